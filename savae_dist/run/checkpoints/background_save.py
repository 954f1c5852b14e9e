"""One checkpoint at a time, written by a thread while training goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from savae_dist.errors import SaveError
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.checkpoints.checkpoint import Verified
from savae_dist.run.checkpoints.contents import Contents, HostMemory
from savae_dist.run.reporting.side_outputs import SideOutputs

# Seconds before each further attempt: errors of disks and of network file systems may pass.
SAVE_AGAIN = (0.5, 2.0, 5.0)


class BackgroundSave:
    """Writes checkpoints into `folder`, and keeps the newest `keep`; `check` and `wait` raise SaveError if one failed.

    The thread calls no collective, since one would mix with those of training: the main threads exchange the result
    (`Saves`).

    waits: `begin` returns when all is written, and no second copy of the tensors is kept.
    seconds: the time that it has spent on writing, in all.
    """

    def __init__(self, folder: Path, keep: int, waits: bool, side: SideOutputs, say: Callable[[str], None]) -> None:
        self.seconds = 0.0
        self._folder, self._keep, self._waits, self._side, self._say = folder, keep, waits, side, say
        self._verified, self._memory = Verified(), HostMemory()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None

    def begin(self, contents: Contents) -> None:
        """Begin to write. Wait for the checkpoint before it first: the copies share one memory."""
        assert self._writing is None
        if self._waits:
            self._writing = self._thread.submit(self._write, contents)
            wait([self._writing])
        else:
            self._writing = self._thread.submit(self._write, *self._memory.copy(contents))

    def check(self) -> None:
        """SaveError if what is being written has failed by now."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Wait until nothing is being written; SaveError if that has failed each time that it was tried."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Wait for what is being written; an error is printed, not raised: the run is ending for another reason."""
        self._thread.shutdown()
        try:
            self.wait()
        except SaveError as error:
            self._say(f"savae_dist: {error}")

    def _write(self, contents: Contents, arrived: Callable[[], None] | None = None) -> None:
        if arrived is not None:
            arrived()
        start = time.perf_counter()
        for pause in (*SAVE_AGAIN, None):
            try:
                checkpoint.write(self._folder, contents, self._keep, self._side, self._verified)
                break
            except SaveError as error:
                if pause is None or not self._folder.parent.is_dir():
                    raise
                self._say(f"savae_dist: {error}; trying again")
            time.sleep(pause)
        self.seconds += time.perf_counter() - start
