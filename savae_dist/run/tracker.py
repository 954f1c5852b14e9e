"""What a run tells: TensorBoard scalars and figures, the progress bar, status.json."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm


class Clock:
    """Time spent training, without validation and saving."""

    def __init__(self) -> None:
        self.seconds, self.iterations = 0.0, 0
        self._since = time.perf_counter()

    def tick(self) -> None:
        """An iteration is done."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self.iterations += 1
        self._since = now

    def skip(self) -> None:
        """What happened since the last call was not training."""
        self._since = time.perf_counter()

    def rate(self, batch_size: int) -> float:
        """Global batches' samples per second."""
        return self.iterations * batch_size / self.seconds if self.seconds else 0.0


class Tracker:
    """TensorBoard and the progress bar; silent but on the main process."""

    def __init__(self, folder: Path, total: int, done: int, main: bool) -> None:
        self.main = main
        self.writer = SummaryWriter(folder, purge_step=done + 1) if self.main else None
        self.bar = tqdm(
            total=total,
            initial=done,
            disable=not self.main,
            unit="it",
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 20.0,  # a log file wants few lines
        )

    def advance(self, phase: str) -> None:
        if self.main:
            self.bar.set_description(phase, refresh=False)
            self.bar.update()

    def scalars(self, values: Mapping[str, float], step: int, show: Mapping[str, float] | None = None) -> None:
        """Write all `values`; put those of `show` beside the bar."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)
        if show and self.main:
            self.bar.set_postfix({name: f"{value:.3g}" for name, value in show.items()}, refresh=False)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        if self.writer is not None:
            self.writer.add_figure(name, figure, step)

    def say(self, text: str) -> None:
        """A line above the bar, on the main process."""
        if self.main:
            self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()
        if self.writer is not None:
            self.writer.close()
