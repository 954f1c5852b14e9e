"""How long training waits for a checkpoint, and how long writing takes: by a thread, and synchronously."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from savae_dist.benchmarks.timing import machine
from savae_dist.run.checkpoints.background_save import BackgroundSave
from savae_dist.run.checkpoints.contents import Contents
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.run.training_state import TrainingState

PIECE = 1 << 20  # values of a tensor: 4 MiB
KEEP = 2  # checkpoints


def contents(megabytes: int, total: int) -> Contents:
    """Float32 tensors of so many MB: a third weights, two thirds the moments of Adam."""
    count = max(3, round(megabytes * 1e6 / 4 / PIECE))
    pieces = [torch.full((max(1, int(megabytes * 1e6 / 4 / count)),), float(number)) for number in range(count)]
    parts = {"networks/one/model": pieces[::3], "updates/one": pieces[1::3] + pieces[2::3]}
    tensors = {f"{name}.safetensors": {str(n): one for n, one in enumerate(part)} for name, part in parts.items()}
    texts = {"networks/one/config.json": "{}", "updates/one.json": "{}"}
    return Contents(TrainingState("one", total, total, 0, lanes=8), texts, tensors)


def times(megabytes: int, rounds: int, waits: bool, folder: Path) -> tuple[float, float]:
    """Median seconds for which training waits, and until the checkpoint is whole; the first save is left out."""
    writer, found = BackgroundSave(folder / "checkpoints", KEEP, waits, SideOutputs(), print), []
    for total in range(rounds + 1):
        state = contents(megabytes, total)
        start = time.perf_counter()
        writer.begin(state)
        waited = time.perf_counter() - start
        writer.wait()
        found.append((waited, time.perf_counter() - start))
    writer.close()
    waited, whole = np.median(found[1:], axis=0)
    return float(waited), float(whole)


def report(sizes: Sequence[int], rounds: int, place: Path | None) -> Iterator[str]:
    """A line per size of the state. place: the folder to save in; a temporary one if left out."""
    yield f"{machine(torch.device('cpu'))}; seconds of a save, the median of {rounds}"
    yield f"{'state':>8}{'training waits':>16}{'share at one a minute':>23}{'whole after':>13}{'synchronous':>13}"
    for megabytes in sizes:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            (path := Path(folder) / "thread").mkdir()
            waited, whole = times(megabytes, rounds, False, path)
            (path := Path(folder) / "waits").mkdir()
            synchronous, _ = times(megabytes, rounds, True, path)
        yield f"{megabytes:5} MB{waited:16.3f}{waited / 60:23.2%}{whole:13.3f}{synchronous:13.3f}"
