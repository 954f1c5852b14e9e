"""What a run reports while it trains: TensorBoard scalars and figures, and its progress."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import summary
from torch.utils.tensorboard._utils import figure_to_image
from tqdm import tqdm

from savae_dist.run.reporting.events import EventFile
from savae_dist.run.reporting.outside_trackers import OutsideTrackers, plain
from savae_dist.run.reporting.side_outputs import SideOutputs


class Clock:
    """Time spent training, without validation and saving."""

    def __init__(self) -> None:
        self.seconds, self.iterations = 0.0, 0
        self._since = time.perf_counter()

    def tick(self) -> None:
        """Count an iteration that has just ended."""
        now = time.perf_counter()
        self.seconds += now - self._since
        self.iterations += 1
        self._since = now

    def skip(self) -> None:
        """Do not count the time since the last call: it was not spent training."""
        self._since = time.perf_counter()

    def rate(self, batch_size: int) -> float:
        """Global batches' samples per second."""
        return self.iterations * batch_size / self.seconds if self.seconds else 0.0


class Tracker:
    """TensorBoard, and the progress for people: a bar on a terminal, else a plain line per log.

    It is silent on all but the main process.

    total, done: iterations of the whole run, and those that an earlier launch has done. side: where it is told that
    TensorBoard's file cannot be written. outside: further trackers, which get every scalar too.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        done: int,
        main: bool,
        side: SideOutputs | None = None,
        outside: OutsideTrackers | None = None,
    ) -> None:
        self.main, self.side, self.outside = main, side or SideOutputs(), outside
        self.events = EventFile(folder, first=done + 1)
        self.terminal = main and sys.stderr.isatty()
        self.phase = ""
        self.bar = tqdm(
            total=total, initial=done, disable=not self.terminal, unit="it", dynamic_ncols=True, mininterval=0.5
        )

    def advance(self, phase: str) -> None:
        """Move the bar on by an iteration of that phase."""
        if self.terminal:
            if phase != self.phase:
                self.phase = phase
                self.bar.set_postfix_str("", refresh=False)  # the losses are those of the phase before
            self.bar.set_description(phase, refresh=False)
            self.bar.update()

    def progress(self, where: str, losses: Mapping[str, float], rate: float, note: str = "") -> None:
        """Show the losses beside the bar; without a terminal, where a bar would fill a log file, write one line.

        note: added to that line.
        """
        shown = {name: f"{value:.3g}" for name, value in losses.items()}
        if self.terminal:
            self.bar.set_postfix(shown, refresh=False)
        else:
            terms = ", ".join(f"{name} {text}" for name, text in shown.items())
            self.say(f"{where}: {terms}; {rate:,.0f} samples/s{note and f'; {note}'}")

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.main:
            with self.side.spared("TensorBoard's file"):
                self.events.append([summary.scalar(name, value) for name, value in values.items()], step)
            if self.outside is not None:
                self.outside.log(values, step)

    def hparams(self, configuration: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """The configuration beside the last metrics, as TensorBoard's HPARAMS compares runs."""
        if self.main:
            keys = {key: plain(value) for key, value in configuration.items()}
            with self.side.spared("TensorBoard's file"):
                self.events.append([*summary.hparams(keys, dict(metrics))], step)

    def figure(self, name: str, figure: Figure, step: int) -> None:
        if self.main:
            with self.side.spared("TensorBoard's file"):
                self.events.append([summary.image(name, figure_to_image(figure), dataformats="CHW")], step)

    def warn(self, warnings: Mapping[str, str], step: int) -> None:
        """Tell each above the bar, in status.json and among TensorBoard's texts. warnings: sign -> line."""
        if self.main:
            for sign, line in warnings.items():
                self.side.tell(sign, line, self.say)
                with self.side.spared("TensorBoard's file"):
                    self.events.append([summary.text(f"warnings/{sign}", line)], step)

    def say(self, text: str) -> None:
        """Write a line above the bar, on the main process."""
        if self.main:
            self.bar.write(text, file=sys.stderr)

    def close(self) -> None:
        self.bar.close()
        if self.outside is not None:
            self.outside.close()
