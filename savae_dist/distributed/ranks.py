"""What ranks tell each other besides gradients: they check that they fit together and hold equal parameters."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import PartialState
from torch import Tensor, nn

from savae_dist import __version__
from savae_dist.config.urls import shown_value
from savae_dist.distributed.environment import ranks_of_node
from savae_dist.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    DeniedError,
    DriftError,
    OccupiedError,
    OutageError,
    SaveError,
    UserError,
    WorkerLost,
)

# Paths that may be written differently on each node; check_shared tests that all see the same `output`.
PER_NODE = {"output", "data.cache_dir"}
# Errors that ranks pass on to each other, by name.
MET: dict[str, type[UserError]] = {
    kind.__name__: kind
    for kind in (
        CheckpointError,
        ConfigError,
        DataError,
        DeniedError,
        OccupiedError,
        OutageError,
        SaveError,
        WorkerLost,
    )
}
SHARED_FOLDER_SECONDS = 30.0  # network file systems cache for a while that a folder does not exist


class Peers:
    """The ranks of this launch, with a gloo group for small messages.

    launch: a random token of this launch, the same on all ranks; begun: when it began, by rank 0's clock. node: number
    of this node, of `nodes`. hosts: the machine of each rank.
    """

    def __init__(self, state: PartialState, timeout: float) -> None:
        self.rank, self.ranks = state.process_index, state.num_processes
        self.device = state.device
        size = ranks_of_node(self.ranks)
        self.node, self.nodes = self.rank // size, -(-self.ranks // size)
        self.group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout)) if self.ranks > 1 else None
        mine = {"launch": secrets.token_hex(8), "begun": time.strftime("%Y%m%d-%H%M%S"), "host": socket.gethostname()}
        records = self.gather(mine)
        self.launch, self.begun = records[0]["launch"], records[0]["begun"]
        self.hosts = [record["host"] for record in records]

    def gather(self, record: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The records of all ranks, in rank order; values must be JSON-able."""
        text = json.dumps(record)
        if self.group is None:
            return [json.loads(text)]
        mine = torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)
        lengths = self._gather_tensor(torch.tensor([len(mine)]))
        padded = torch.zeros(max(int(n) for n in lengths), dtype=torch.uint8)
        padded[: len(mine)] = mine
        parts = self._gather_tensor(padded)
        return [json.loads(bytes(part[: int(n)].tolist())) for part, n in zip(parts, lengths, strict=True)]

    def _gather_tensor(self, mine: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(mine) for _ in range(self.ranks)]
        dist.all_gather(parts, mine, group=self.group)
        return parts

    def check_alike(self, config: Mapping[str, Any]) -> None:
        """ConfigError on every rank unless all run the same version with the same keys, each on a device of its own.

        config: dotted keys to values.
        """
        mine = {
            "host": socket.gethostname(),
            "device": self.device.type,
            "chip": _chip(self.device),
            "versions": {"savae_dist": __version__, "torch": torch.__version__},
            "config": {key: value for key, value in config.items() if key not in PER_NODE},
        }
        records = self.gather(mine)
        first, owners = records[0], dict[str, int]()
        for rank, record in enumerate(records):
            for kind in ("versions", "config"):
                for key in sorted(first[kind] | record[kind]):
                    here, there = record[kind].get(key), first[kind].get(key)
                    if here != there:
                        ours, theirs = shown_value(here), shown_value(there)
                        secret = ", with another password or query" if ours == theirs else ""
                        raise ConfigError(
                            f"rank {rank} on {record['host']} has {key}={ours}, "
                            f"rank 0 on {first['host']} {theirs}{secret}: "
                            "start all nodes with the same version and the same arguments"
                        )
            if record["device"] != first["device"]:
                raise ConfigError(
                    f"rank {rank} on {record['host']} computes on {record['device']}, rank 0 on {first['device']}: "
                    "give every rank the same kind of device"
                )
            other = owners.setdefault(record["chip"] or f"rank {rank}", rank)
            if other != rank:
                raise ConfigError(
                    f"ranks {other} and {rank} on {record['host']} share one GPU ({record['chip']}): lower "
                    "num_processes in the launch file to the GPUs of a node, or widen CUDA_VISIBLE_DEVICES"
                )

    def raise_everywhere(self, error: UserError | None) -> None:
        """Raise rank 0's error, of a class in `MET`, on every rank; all must call it."""
        met = self.gather({"kind": type(error).__name__, "text": str(error)})[0]
        if met["kind"] in MET:
            raise MET[met["kind"]](met["text"])

    def first_error(self, mine: UserError | None) -> UserError:
        """The error of the first rank that has one, with its code, for all ranks; all must call it."""
        code, none = (0 if mine is None else mine.code), type(None).__name__
        records = self.gather({"kind": type(mine).__name__, "text": str(mine), "code": code})
        met = next(record for record in records if record["kind"] != none)
        error = MET.get(met["kind"], UserError)(met["text"])
        error.code = met["code"]
        error.everywhere = True  # by now
        return error

    def each(self, work: Callable[[], dict[str, Any]]) -> list[dict[str, Any]]:
        """What `work`, a rank's own part, gives on every rank; the error of the first rank that has one, on all."""
        result, error = None, None
        try:
            result = work()
        except UserError as met:
            error = met
        results = [record["result"] for record in self.gather({"result": result})]
        if any(one is None for one in results):
            raise self.first_error(error)
        return results

    def choose(
        self, folder: Path, newest: Callable[[Path], Path | None], problem: Callable[[Path], str | None]
    ) -> Path | None:
        """What `newest` finds in `folder` on rank 0, for all ranks; CheckpointError if one of them cannot read it.

        If each rank chose, they might go on from different steps: on a network file system a folder may appear late.
        """
        found, error = None, None
        if self.rank == 0:
            try:
                found = newest(folder)
            except CheckpointError as met:
                error = met
        self.raise_everywhere(error)
        name = self.gather({"name": found.name if found else None})[0]["name"]
        if name is None:
            return None
        reason, until = None, time.monotonic() + SHARED_FOLDER_SECONDS
        while self.rank and (reason := problem(folder / name)) and time.monotonic() < until:
            time.sleep(0.5)
        for rank, record in enumerate(self.gather({"reason": reason, "host": socket.gethostname()})):
            if record["reason"]:
                raise CheckpointError(
                    f"{folder / name}: rank {rank} on {record['host']} cannot read what rank 0 can "
                    f"({record['reason']}): see to its file system, then run it again"
                )
        return folder / name

    def check_shared(self, folder: Path) -> None:
        """ConfigError on every rank unless all nodes see one and the same `folder`; leaves nothing behind."""
        if self.nodes == 1:
            return
        # Named as a draft, so that the next launch removes it if this one is killed.
        token, made, error = folder / f".launch-{self.launch}.draft", False, None
        if self.rank == 0:
            try:
                made = not folder.exists()
                folder.mkdir(parents=True, exist_ok=True)
                token.touch()
            except OSError as reason:
                error = unwritable(folder, reason)
        self.raise_everywhere(error)
        until = time.monotonic() + SHARED_FOLDER_SECONDS
        while not (found := token.exists()) and time.monotonic() < until:
            time.sleep(0.2)
        records = self.gather({"found": found, "host": socket.gethostname(), "node": self.node})
        if self.rank == 0:
            token.unlink()
            if made and not any(folder.iterdir()):
                folder.rmdir()
        blind = sorted({f"{record['node']} ({record['host']})" for record in records if not record["found"]})
        if blind:
            raise ConfigError(
                f"output={folder}: node {', '.join(blind)} does not see what rank 0 writes there, and could not go on "
                "from its checkpoints: put `output` on a file system that all nodes share"
            )

    def check_equal(self, networks: Mapping[str, nn.Module], where: str) -> None:
        """DriftError on every rank unless all hold the same parameters, bit for bit."""
        if self.group is None:
            return
        mine = torch.stack([checksum(network) for network in networks.values()]).cpu()
        sums = torch.stack(self._gather_tensor(mine)).tolist()  # [ranks, networks, 2]
        drifted = []
        for number, name in enumerate(networks):
            column = [tuple(of_rank[number]) for of_rank in sums]
            usual, _ = Counter(column).most_common(1)[0]
            others = [str(rank) for rank, value in enumerate(column) if value != usual]
            if others:
                drifted.append(f"{name} on rank {', '.join(others)}")
        if drifted:
            raise DriftError(
                f"{where}: parameters are no longer the same on all ranks: {'; '.join(drifted)} against the others; "
                "test those machines' memory and network, and go on from a checkpoint before the drift"
            )


def unwritable(folder: Path, reason: OSError) -> ConfigError:
    return ConfigError(f"output={folder}: rank 0 cannot write there ({reason})")


@torch.no_grad()
def checksum(network: nn.Module) -> Tensor:
    """`[2]` int64: the sum of all parameters' bits as integers, plain and weighted by position, modulo 2^64."""
    kinds = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.int8}
    bits = [p.detach().contiguous().view(kinds[p.element_size()]).flatten().long() for p in network.parameters()]
    flat = torch.cat(bits) if bits else torch.zeros(1, dtype=torch.int64)
    places = torch.arange(1, len(flat) + 1, device=flat.device) * 2 + 1
    return torch.stack([flat.sum(), (flat * places).sum()])


def _chip(device: torch.device) -> str | None:
    """A unique identifier of this GPU; None on a CPU, which ranks may share."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None
