"""What a run tells: TensorBoard scalars and figures, the progress bar, status.json."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

HEARTBEAT_SECONDS = 10.0


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Atomically: a reader sees the old content or the new one. JSON knows no NaN: it becomes null."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    plain = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
    draft.write_text(json.dumps(plain, indent=1) + "\n")
    draft.replace(path)


def rank_sums(values: Tensor) -> Tensor:
    """The sum over all ranks, element by element."""
    if torch.distributed.is_initialized():
        values = values.to(PartialState().device)
        torch.distributed.all_reduce(values)
    return values


def rank_means(sums: Mapping[str, Tensor]) -> dict[str, float]:
    """Name -> (sum, count) of this rank to name -> mean over all ranks, by one reduction; NaN where nothing counted."""
    if not sums:
        return {}
    values = rank_sums(torch.stack(list(sums.values())).double()).cpu()
    return dict(zip(sums, (values[:, 0] / values[:, 1]).tolist(), strict=True))


class Status:
    """`status.json`: what other programs (SLURM scripts, dashboards) read of a run; written on the main process."""

    def __init__(self, folder: Path, main: bool) -> None:
        self.path, self.main = folder / "status.json", main
        self.values: dict[str, Any] = {"outcome": "running", "exit_code": None, "message": "", "phase": "", "step": 0}
        self._training = False
        self._started = time.time()
        self._written = 0.0

    def beat(self, phase: str, step: int) -> None:
        """Note where the run is, at most every ten seconds."""
        self.values.update(phase=phase, step=step)
        self._training = True
        if time.monotonic() - self._written > HEARTBEAT_SECONDS:
            self._write()

    def end(self, outcome: str, exit_code: int, message: str = "", alone: bool = False) -> None:
        """How it ended; a start that was refused leaves the word of a run that was done before.

        `alone`: written by this process though it is not the main one, since no other knows.
        """
        self.main = self.main or alone
        self.values.update(outcome=outcome, exit_code=exit_code, message=message)
        if self._training or self._there().get("outcome") != "done":
            self._write()

    def _there(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        return values

    def _write(self) -> None:
        """Unless a peer said how this run ended: what happens here after that is its consequence."""
        self._written = time.monotonic()
        if not self.main:
            return
        try:
            there = self._there()
            if there.get("exit_code") is not None and there["heartbeat"] > self._started:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {**self.values, "heartbeat": time.time()})
        except OSError as error:  # a full disk must not hide what happened
            print(f"savae_dist: {self.path} cannot be written ({error})", file=sys.stderr)


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
