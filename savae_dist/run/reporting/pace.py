"""How fast each rank is, and which one the others wait for.

Two times are measured on every rank and exchanged at a log, in the same reduction as the losses: that of its own
computing (`training.own_time` says what is in it, and why it is not the time of a step) and that of its waiting for
data. On GPUs each rank adds the most memory that it has used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

import torch

from savae_dist.training.engine import PreparedUpdate
from savae_dist.training.own_time import Waiting

SLOWER = 1.2  # times the median of the other ranks, from which on a rank is slow
COSTS = 0.05  # share of an iteration that it must take longer: below that nobody would notice
IN_A_ROW = 3  # logs in which the same rank must be slow before it is told
ON_ITS_OWN = 16  # ranks, up to which each has a curve of its own

COMPUTE, DATA, MEMORY = "compute_seconds", "data_seconds", "gpu_peak_bytes"
TIMES = (COMPUTE, DATA)
SAID = {
    COMPUTE: ("computes slowly", "see what else runs on that machine, and whether it is hot or a slower model"),
    DATA: ("waits for its data", "see to its disk or network, or set data.workers"),
}


def slowest(seconds: Sequence[float], iteration: float) -> int | None:
    """The rank that takes longest if it is notably slow, by the two rules above; None if there is none.

    seconds: of each rank, in an iteration that takes `iteration` seconds.
    """
    rank = max(range(len(seconds)), key=seconds.__getitem__)
    others = [one for number, one in enumerate(seconds) if number != rank]
    if not others:
        return None
    usual = median(others)
    slow = seconds[rank] > SLOWER * usual and seconds[rank] - usual >= COSTS * iteration
    return rank if slow else None


class Pace:
    """That of one phase; `measured` is this rank's row of the table which `logged` takes, with a row for each rank.

    hosts: the machine of each rank. batches: what the phase reads.
    """

    def __init__(
        self,
        phase: str,
        hosts: Sequence[str],
        device: torch.device,
        batches: Waiting[Any],
        updates: Iterable[PreparedUpdate],
    ) -> None:
        self.phase, self.hosts, self.device = phase, hosts, device
        self.batches, self.updates = batches, list(updates)
        self.iterations, self.seconds = 0, 0.0
        self.in_a_row: dict[str, tuple[int, int]] = {}  # name of a time -> the slow rank, and in how many logs
        self.warnings: dict[str, str] = {}
        self.status: dict[str, Any] = {}
        self.note = ""

    def measured(self) -> list[float]:
        """Seconds of computing and of waiting for data since the last log; on a GPU also its peak memory in bytes."""
        compute = sum(update.own_time.drain() for update in self.updates)
        memory = [float(torch.cuda.max_memory_allocated(self.device))] if self.device.type == "cuda" else []
        return [compute, self.batches.drain(), *memory]

    def logged(self, table: Sequence[Sequence[float]], step: int, iterations: int, seconds: float) -> dict[str, float]:
        """The curves of a log; `warnings`, `status` (of status.json) and `note` (of the progress line) are set.

        iterations, seconds: of the phase so far in this launch.
        """
        number = max(iterations - self.iterations, 1)
        iteration = (seconds - self.seconds) / number
        self.iterations, self.seconds = iterations, seconds
        columns = dict(zip((*TIMES, MEMORY), map(list, zip(*table, strict=True)), strict=False))
        for name in TIMES:
            columns[name] = [one / number for one in columns[name]]
        self.warnings, notes = {}, []
        self.status = {"iteration_seconds": iteration}
        for name, values in columns.items():
            rank = self._lasting(name, slowest(values, iteration), step, values) if name in TIMES else None
            self.status[name] = self._shown(values, rank)
            if rank is not None:
                notes.append(f"rank {rank} ({self.hosts[rank]}) {SAID[name][0]}")
        self.note = ", ".join(notes)
        return self._curves(columns)

    def _shown(self, values: Sequence[float], slow: int | None) -> dict[str, Any]:
        named = {} if slow is None else {"slow_rank": slow, "host": self.hosts[slow]}
        return {"least": min(values), "most": max(values), **named}

    def _lasting(self, name: str, rank: int | None, step: int, values: Sequence[float]) -> int | None:
        """The rank that is slow if it was in the last IN_A_ROW logs, too; the first time that this holds it is told."""
        if rank is None:
            self.in_a_row.pop(name, None)
            return None
        before, count = self.in_a_row.get(name, (rank, 0))
        count = count + 1 if before == rank else 1
        self.in_a_row[name] = rank, count
        if count == IN_A_ROW:
            does, advice = SAID[name]
            others = median(one for number, one in enumerate(values) if number != rank)
            self.warnings[f"rank {rank} {does}"] = (
                f"{self.phase} step {step}: rank {rank} on {self.hosts[rank]} {does}, and all others wait for it: "
                f"{values[rank]:.3g} s in each iteration, the others {others:.3g} s, in {IN_A_ROW} logs in a row; "
                f"{advice}"
            )
        return rank if count >= IN_A_ROW else None

    def _curves(self, columns: Mapping[str, Sequence[float]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, values in columns.items():
            if len(values) > 1:
                found |= {f"ranks/{name}_least": min(values), f"ranks/{name}_most": max(values)}
            if len(values) <= ON_ITS_OWN:
                found |= {f"ranks/{name}/{rank}": value for rank, value in enumerate(values)}
        return found
