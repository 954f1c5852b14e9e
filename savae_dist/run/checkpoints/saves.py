"""The checkpoints of a run: when one is due, and whether all of them could be written, on every rank."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from savae_dist.config.schema import RunConfig
from savae_dist.distributed.reduce import rank_sums
from savae_dist.errors import SaveError
from savae_dist.networks import Network
from savae_dist.run.checkpoints.background_save import BackgroundSave
from savae_dist.run.checkpoints.contents import Contents, Savable
from savae_dist.run.process import Process
from savae_dist.run.reporting.tracker import Tracker
from savae_dist.run.reporting.units import size
from savae_dist.run.training_state import TrainingState

T = TypeVar("T")


class Saves:
    """All ranks call its methods together; rank 0 writes.

    begun: `total` of the newest state that is saved or is being written. waited: seconds that training has waited for
    checkpoints, in all.
    """

    def __init__(self, folder: Path, config: RunConfig, process: Process, tracker: Tracker, begun: int) -> None:
        self.begun, self.waited = begun, 0.0
        self._minutes, self._process, self._tracker = config.checkpoint_minutes, process, tracker
        self._count, self._bytes = 0, 0
        self._unknown = False  # whether the ranks do not know yet if the newest could be written
        self._opened = self._since = time.monotonic()
        self._writer = BackgroundSave(
            folder / "checkpoints",
            config.keep_checkpoints,
            waits=not config.checkpoint_background,
            side=process.status.side,
            say=tracker.say,
        )

    def begin(
        self, networks: Mapping[str, Network], updates: Mapping[str, Savable], state: TrainingState, pipeline: str
    ) -> None:
        """Begin to write a checkpoint, when the one before is whole; SaveError as in `settle`."""
        before = self.waited
        self.settle()
        start = time.perf_counter()
        with self._process.stop.patient():
            contents = Contents.of(networks, updates, state, pipeline)
            if self._process.state.is_main_process:
                self._writer.begin(contents)
        self.begun, self._since, self._unknown = state.total, time.monotonic(), True
        self._count, self._bytes = self._count + 1, contents.nbytes
        self.waited += time.perf_counter() - start
        self._tracker.scalars({"checkpoints/seconds_waited": self.waited - before}, state.total)

    def settle(self) -> None:
        """Wait until the newest is whole; SaveError on every rank if it could not be written."""
        if not self._unknown:
            return
        start, failed, self._unknown = time.perf_counter(), None, False
        with self._process.stop.patient():
            try:
                self._writer.wait()
            except SaveError as error:
                failed = error
            (failures,) = rank_sums(torch.tensor([failed is not None], dtype=torch.float64))
        if failures:
            raise failed or SaveError("rank 0 could not save; see status.json")
        self.waited += time.perf_counter() - start

    def together(self, work: Callable[[], T]) -> T:
        """As `Stop.together`: a checkpoint that could not be written stops all ranks at the next iteration."""

        def checked() -> T:
            self._writer.check()
            return work()

        return self._process.stop.together(checked)

    def due(self) -> bool:
        """Whether `checkpoint_minutes` have passed since the last one, by the clock of rank 0."""
        if self._minutes is None:
            return False
        passed = self._process.state.is_main_process and time.monotonic() - self._since >= 60 * self._minutes
        return bool(rank_sums(torch.tensor([passed], dtype=torch.float64)))

    def report(self) -> dict[str, Any]:
        """The cost of this launch's checkpoints, for `summary.json`; it is printed, too. Empty without checkpoints."""
        if not self._count:
            return {}
        share, each = self.waited / (time.monotonic() - self._opened), self.waited / self._count
        self._tracker.say(
            f"checkpoints: {self._count} of {size(self._bytes)} each; training waited {each:.3f} s for each "
            f"({share:.1%} of the time), writing took {self._writer.seconds / self._count:.3f} s beside it"
        )
        seconds = {"seconds_waited": self.waited, "seconds_writing": self._writer.seconds, "share_of_time": share}
        return {"count": self._count, "bytes": self._bytes, **seconds}

    def close(self) -> None:
        """Wait for the thread, on this rank alone."""
        self._writer.close()
