"""What each rank was at when one was lost: asked of all, told in the error's line and written to `OUTPUT/flight`.

A collective that times out says nothing of who did not come. So a rank whose collective fails calls a roll in the
launch's store. A thread of every rank looks for the call twice a second: it answers where the rank stands and how many
collectives it has begun, and writes the stacks of its threads into a file. A rank that hangs outside a collective, in a
read or an endless loop, answers too, and has begun fewer than those that wait for it. One that was killed, stopped or
cut off does not answer.

torch has a flight recorder as well, a list of the last collectives. For gloo it keeps the list but never writes it, so
its last lines go into our file; for NCCL it writes a file of its own when NCCL times out (`record_nccl`).
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

from torch._C._distributed_c10d import _dump_fr_trace_json  # type: ignore[attr-defined] # no stub has it
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from savae_dist.distributed.folder_lock import FolderLock
from savae_dist.distributed.lost_peer import lost_peer
from savae_dist.distributed.ranks import Peers

FOLDER = "flight"
ANSWER_SECONDS = 2.0  # for which a call waits; threads look for one every half second
LAST = 10  # collectives of a rank that its file lists
START = "the start"
# What torch 2.13 reads for NCCL. Of each the first name holds; an older one of the user's is left to count.
NCCL = (
    (("TORCH_FR_BUFFER_SIZE", "TORCH_NCCL_TRACE_BUFFER_SIZE"), "2000"),
    (("TORCH_NCCL_DUMP_ON_TIMEOUT",), "1"),
    (("TORCH_NCCL_ENABLE_MONITORING",), "1"),
)
NCCL_FILES = ("TORCH_FR_DUMP_TEMP_FILE", "TORCH_NCCL_DEBUG_INFO_TEMP_FILE")


class Stand(NamedTuple):
    """Where a rank stands. where: phase and step. doing, seconds: what, and for how long. begun: collectives so far."""

    host: str
    where: str
    doing: str
    seconds: float
    begun: int

    def __str__(self) -> str:
        return f"on {self.host}: {self.where}, {self.doing}, for {self.seconds:.1f} s, {self.begun:,} collectives begun"


class Flight:
    """This rank's part of it; `at` notes what it is at, and the rest is for when a rank is lost.

    folder_lock: of the run's folder; nothing is written while this launch does not hold it, as in a check. where: phase
    and step, in words.
    """

    def __init__(self, folder_lock: FolderLock | None = None, where: Callable[[], str] = lambda: START) -> None:
        self.folder_lock, self.where = folder_lock, where
        self.doing, self.since = "beginning", time.monotonic()
        self.peers: Peers | None = None
        self.answered = False
        self.problem = ""  # why the file could not be written
        self._writing = threading.Lock()

    def at(self, doing: str) -> None:
        self.doing, self.since = doing, time.monotonic()

    def join(self, peers: Peers) -> None:
        self.peers = peers

    @property
    def folder(self) -> Path | None:
        """A folder for each launch, so that a restart does not write over what the one before has left."""
        if self.folder_lock is None or not self.folder_lock.held or self.peers is None:
            return None
        return self.folder_lock.folder / FOLDER / self.peers.begun

    def stand(self) -> Stand:
        return Stand(socket.gethostname(), self.where(), self.doing, time.monotonic() - self.since, begun())

    def answer(self, store: TCPStore, peers: Peers) -> None:
        """Answer a call, if there was one; a thread calls this again and again."""
        if not self.answered and store.check([_key(peers, "call")]):
            self.answered = True
            store.set(_key(peers, peers.rank), json.dumps(self.stand()))
            self.write(f"rank {store.get(_key(peers, 'call')).decode()} lost a rank")

    def lost(self, reason: str, error: BaseException) -> str:
        """Call the roll, write this rank's file, and say in words who is missing and where the files are.

        error: of the collective that failed; the file tells where that was. Empty where there is nothing to say: a rank
        that has not joined its peers knows none.
        """
        if self.peers is None:
            return ""
        self.answered = True  # the lines below are this rank's answer
        mine = self.stand()
        stands = {self.peers.rank: mine, **self._call(self.peers, mine)}
        self.write(reason, stands, error)
        missing = told_missing(stands, self.peers.hosts)
        files = f"what each rank was at stands in {self.folder}" if self.folder is not None else ""
        return "; ".join(filter(None, (missing, self.problem or files)))

    def _call(self, peers: Peers, mine: Stand) -> dict[int, Stand]:
        """The stands of the ranks that answer; of none where the store is gone with the process that kept it."""
        found: dict[int, Stand] = {}
        until = time.monotonic() + ANSWER_SECONDS
        try:
            store = connect(timedelta(seconds=ANSWER_SECONDS))
            store.set(_key(peers, peers.rank), json.dumps(mine))
            store.set(_key(peers, "call"), str(peers.rank))
            while len(found) < peers.ranks and time.monotonic() < until:
                for rank in range(peers.ranks):
                    if rank not in found and store.check([key := _key(peers, rank)]):
                        found[rank] = Stand(*json.loads(store.get(key)))
                time.sleep(0.05)
        except RuntimeError as error:
            if lost_peer(error) is None:
                raise
        return found

    def write(self, reason: str, stands: Mapping[int, Stand] | None = None, error: BaseException | None = None) -> None:
        """Add to this rank's file; stands: of all ranks that have answered. What prevents it is kept in `problem`."""
        if self.folder is None or self.peers is None:
            return
        try:
            with self._writing:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / f"rank-{self.peers.rank}.txt").open("a") as file:
                    file.write(head(self.peers, self.stand(), reason, stands or {}, error))
                    file.flush()
                    faulthandler.dump_traceback(file, all_threads=True)
        except OSError as refused:
            self.problem = f"{self.folder} cannot be written ({refused})"


def record_nccl(output: Path) -> None:
    """Let NCCL's flight recorder write into the run's folder; before the process group is made, which reads this.

    It is needed where a rank hangs on the GPU: its main thread waits there and meets no error, and NCCL's watchdog ends
    the process, so nothing of ours is written.
    """
    for names, value in (*NCCL, (NCCL_FILES, str(output.absolute() / FOLDER / "nccl-rank-"))):
        if not any(name in os.environ for name in names):
            os.environ[names[0]] = value


def connect(timeout: timedelta) -> TCPStore:
    """A connection of one's own to the launch's store: that of the process group is locked while a rank waits."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=timeout)


def _key(peers: Peers, name: str | int) -> str:
    return f"savae_dist/flight/{peers.launch}/{name}"


def recorded(collectives: bool) -> dict[str, Any]:
    """What torch's recorder of gloo's collectives holds."""
    content: dict[str, Any] = json.loads(_dump_fr_trace_json(collectives, False))
    return content


def begun() -> int:
    """How many collectives over gloo this rank has begun, in all groups."""
    groups = recorded(collectives=False).get("pg_status", {}).values()
    return sum(max(int(group["last_enqueued_collective"]), 0) for group in groups)


def told_missing(stands: Mapping[int, Stand], hosts: Sequence[str]) -> str:
    """Which ranks the others wait for, if that can be known: who does not answer, else who has begun the fewest."""
    silent = [rank for rank in range(len(hosts)) if rank not in stands]
    if len(silent) == len(hosts) - 1 and len(hosts) > 2:
        return "no other rank answers"
    if silent:
        return f"{_listed(silent, hosts)} {'does' if len(silent) == 1 else 'do'} not answer"
    most = max(stand.begun for stand in stands.values())
    late = [rank for rank, stand in sorted(stands.items()) if stand.begun < most]
    if not late:
        return ""
    first = stands[late[0]]
    return f"the others wait for {_listed(late, hosts)}: at {first.where}, {first.doing}, for {first.seconds:.0f} s"


def _listed(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    shown = ", ".join(f"{rank} ({hosts[rank]})" for rank in ranks[:4])
    return f"rank{'s' * (len(ranks) > 1)} {shown}{', ...' * (len(ranks) > 4)}"


def head(
    peers: Peers, stand: Stand, reason: str, stands: Mapping[int, Stand], error: BaseException | None = None
) -> str:
    """What stands above the stacks."""
    now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
    lines = [
        f"rank {peers.rank} of {peers.ranks}, process {os.getpid()}, launch {peers.launch}, {now}",
        f"reason: {reason}",
        f"stands: {stand}",
    ]
    if stands:
        lines += ["", "all ranks:"]
        lines += [f"  {rank} {stands.get(rank, f'on {host}: no answer')}" for rank, host in enumerate(peers.hosts)]
    if error is not None:
        lines += ["", "the collective that failed was called here, the innermost call last:"]
        lines += [line.rstrip() for line in traceback.format_tb(error.__traceback__)]
    lines += ["", f"the last {LAST} collectives over gloo that it has begun (group, number in it, name, sizes):"]
    for one in recorded(collectives=True).get("entries", [])[-LAST:]:
        group, number = one["process_group"][0], one["collective_seq_id"]
        lines.append(f"  {group} {number} {one['profiling_name']} {one['input_sizes']}")
    return "\n".join(["", *lines, "", "stacks of its threads, the innermost call first:", ""])
