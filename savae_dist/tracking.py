"""What a run tells: TensorBoard scalars and figures, the progress bar, status.json."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from accelerate import PartialState
from matplotlib.figure import Figure
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from savae_dist.claim import Claim
from savae_dist.peers import Peers

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
    """`status.json`: what other programs (SLURM scripts, dashboards) read of a run.

    The main process writes it; one that ends alone, or has lost its peers, writes it too, and the first word on how a
    launch ended stands. Where there are several nodes each leaves its own end in `status-nodeN.json` as well.
    A launch without a claim on the folder writes nothing while another has it. folder: None writes nothing.
    """

    def __init__(self, folder: Path | None, main: bool) -> None:
        self.folder, self.main = folder, main
        self._claim = Claim(folder) if folder is not None else None
        self.values: dict[str, Any] = {"outcome": "running", "exit_code": None, "message": "", "phase": "", "step": 0}
        self._training = False
        self._launch, self._node = "", ""
        self._started = time.time()
        self._written = 0.0
        self._lock = threading.Lock()  # the last word may come from a thread

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run's folder."""
        return self.main and self.folder is not None

    def join(self, launch: str, node: int, nodes: int) -> None:
        """launch: the token by which the ranks of a launch know each other's words."""
        self._launch, self._node = launch, f"status-node{node}.json" if nodes > 1 else ""

    def claim(self, peers: Peers) -> None:
        """From now on, to the end of the `with`, the folder is this launch's; OccupiedError if it is another's."""
        if self._claim is not None:
            self._claim.take(peers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._claim is not None:
            self._claim.release()

    def begin(self) -> None:
        """It runs; what is said of a run that was done before stands until it trains."""
        if self.main and self._there("status.json").get("outcome") != "done":
            self._write("status.json")

    def beat(self, phase: str, step: int) -> None:
        """Note where the run is, at most every ten seconds."""
        self.values.update(phase=phase, step=step)
        self._training = True
        if time.monotonic() - self._written > HEARTBEAT_SECONDS:
            self._written = time.monotonic()
            if self.main:
                self._write("status.json")

    def where(self) -> str:
        return f"{self.values['phase']} step {self.values['step']}" if self._training else "the start"

    def end(self, outcome: str, exit_code: int, message: str = "", alone: bool = False) -> dict[str, Any] | None:
        """How it ended; returns what a peer has said before, which stands.

        A start that was refused leaves the word of a run that was done before. `alone`: written by this process though
        it is not the main one, since perhaps no other can.
        """
        self.values.update(outcome=outcome, exit_code=exit_code, message=message)
        if self._node:
            self._write(self._node)
        if (self.main or alone) and (self._training or self._there("status.json").get("outcome") != "done"):
            return self._write("status.json")
        return None

    def _there(self, name: str) -> dict[str, Any]:
        path = self.folder / name if self.folder is not None else None
        values: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        return values

    def _write(self, name: str) -> dict[str, Any] | None:
        """Unless a peer said how this launch ended: what happens here after that is its consequence."""
        if self.folder is None or self._claim is None:
            return None
        try:
            with self._lock, self._claim.briefly() as allowed:
                there = self._there(name)
                ours = (
                    there.get("launch") == self._launch if self._launch else there.get("heartbeat", 0) > self._started
                )
                if ours and there.get("exit_code") is not None:
                    return there
                if allowed:
                    write_json(self.folder / name, {**self.values, "launch": self._launch, "heartbeat": time.time()})
        except OSError as error:  # a full disk must not hide what happened
            print(f"savae_dist: {self.folder / name} cannot be written ({error})", file=sys.stderr)
        return None


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
