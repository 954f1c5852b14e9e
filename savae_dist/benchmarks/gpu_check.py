"""Measure the trainer on one GPU within a time limit: a list of cells, the most telling first.

A cell is a phase of SAVAE at a size and width, beside the bare loop on the same device. A CPU writes the same page, so
that the check itself can be tried without a GPU.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from time import monotonic

import torch
from torch.utils.flop_counter import FlopCounterMode

from savae_dist.benchmarks import bare_loop
from savae_dist.benchmarks.apart import apart
from savae_dist.benchmarks.launches import given, launches
from savae_dist.benchmarks.setting import SHAPE, Setting, Step, synthetic
from savae_dist.benchmarks.timing import WARM_UP, device_wait, machine
from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.config import auto
from savae_dist.config.schema import RunConfig
from savae_dist.distributed import launch
from savae_dist.errors import ConfigError
from savae_dist.systems.phases import Phase

SIGNAL, LARGE = (1, 1024), (1, 128, 128)
PEAK_SIDE = 8192  # side of the square matrices whose product is timed
PAGE, NUMBERS, UNKNOWN = "gpu.md", "gpu.json", "not measured"
START_SECONDS, CELL_SECONDS = 90.0, 120.0  # longest time that the measuring process may take to start, and for a cell


@dataclass(frozen=True)
class Cell:
    """A measurement: samples of this shape, networks of this width, a phase of SAVAE, compiled or not."""

    shape: tuple[int, ...]
    width: int
    phase: str
    compiled: bool = False

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape[1:]))
        return f"{size}, width {self.width}, {self.phase}{', compiled' * self.compiled}"


# The most telling first: the usual size, then larger ones, then those that must be compiled before they are timed.
SIZES = ((SHAPE, 64), (LARGE, 64), (SIGNAL, 64), (SHAPE, 16), (SHAPE, 128), (LARGE, 16), (LARGE, 128), (SIGNAL, 16))
EAGER = tuple(Cell(shape, width, phase) for shape, width in (*SIZES, (SIGNAL, 128)) for phase in ("vec", "decoder"))
CELLS = (*EAGER, *(Cell(shape, 64, "decoder", True) for shape in (SHAPE, LARGE, SIGNAL)))


@dataclass(frozen=True)
class Measured:
    """What a cell tells. share: of the measured bf16 peak. host_ms: time in which the host launches an iteration.

    waiting: share of the time spent waiting for data. memory: peak bytes of tensors. bare: samples per second of the
    bare loop. launches, bare_launches: per iteration, of the trainer and of the bare loop; on a CPU operators are
    counted instead. share and memory are None on a CPU: its peak depends on what else runs there.
    """

    samples_per_second: float
    bare: float
    share: float | None
    launches: float
    bare_launches: float
    host_ms: float
    waiting: float
    memory: int | None


def check(config: RunConfig, out: Path, device: str, limit: float, seconds: float) -> Iterator[str]:
    """Measure cell by cell for at most `limit` seconds, and write OUT/gpu.json and OUT/gpu.md after each.

    A child process measures the cells. If a cell takes too long or fails, for example for lack of memory, the next one
    is measured by a new process. seconds: of each loop in a cell. ConfigError if the device is not there.
    """
    deadline = monotonic() + limit
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA GPU is here: run it on one, or write the same page for this CPU by --device cpu")
    page, left = Page(out), list(CELLS)
    while left and monotonic() < deadline:
        with tempfile.TemporaryDirectory() as scratch, apart(cells, config, left, device, seconds, scratch) as result:
            try:
                page.about = str(result(min(START_SECONDS, deadline - monotonic())))
                yield page.about
                while left:
                    one = result(min(CELL_SECONDS, deadline - monotonic()))
                    assert isinstance(one, Measured)
                    page.found[left[0]] = one
                    yield f"{left.pop(0)}: {one.samples_per_second:,.0f} samples/s, bare loop {one.bare:,.0f}"
                    page.write(left)
            except (TimeoutError, EOFError) as error:
                if monotonic() < deadline:
                    page.failed[left[0]] = why = reason(error)
                    yield f"{left.pop(0)}: not measured, since {why}"
    page.write(left)
    yield from (f"left out, since {limit:g} s have passed: {name}" for name in left)


def reason(error: Exception) -> str:
    """Why a cell was not measured."""
    return f"it took over {CELL_SECONDS:g} s" if isinstance(error, TimeoutError) else "its process ended with an error"


def cells(
    config: RunConfig, asked: Sequence[Cell], device: str, seconds: float, scratch: str
) -> Iterator[str | Measured]:
    """A description of the machine, then each cell. scratch: a folder, which the parent process removes."""
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    here = launch.start("bf16", config.timeout).device
    about, peak = f"{machine(here)}; bf16, batches of {config.data.batch_size}", None
    if here.type == "cuda":
        peak = bf16_peak(here)
        about += f"; bf16 peak {peak / 1e12:.3g} TFLOP/s"
    yield about
    for cell in asked:
        yield measured(config, cell, here, seconds, peak, scratch)


def measured(
    config: RunConfig, cell: Cell, device: torch.device, seconds: float, peak: float | None, scratch: str
) -> Measured:
    """One cell: the trainer and the bare loop, one after the other."""
    config = auto.resolve(replace(config, networks=replace(config.networks, width=cell.width)), cell.shape, {})
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        shards = synthetic(Path(folder) / "shards", cell.shape)
        setting = Setting(config, shards, device)
        (phase,) = (one for one in config.system.phases() if one.name == cell.phase)
        return compared(setting, phase, cell.compiled, seconds, peak)


def compared(setting: Setting, phase: Phase, compiled: bool, seconds: float, peak: float | None) -> Measured:
    wait, size = device_wait(setting.device), setting.config.data.batch_size
    written = bare_loop.WRITTEN[phase.name](setting, bare_loop.Preloaded(setting))
    bare, _ = rate(in_bf16(written, setting.device), seconds, wait)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loop = trainer(setting, phase, compile="update" if compiled else "none")
    for _ in range(WARM_UP):
        loop.iterate()
    before, start = loop.waited(), time.perf_counter()
    ours, host = rate(loop.iterate, seconds, wait)
    waiting = (loop.waited() - before) / (time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() if setting.device.type == "cuda" else None
    with FlopCounterMode(display=False) as counter:
        in_bf16(written, setting.device)()
    share = counter.get_total_flops() * ours / peak if peak is not None else None
    count = given if setting.device.type == "cuda" else launches
    kernels, by_hand = count(loop.iterate, 2).kernels, count(in_bf16(written, setting.device), 2).kernels
    return Measured(ours * size, bare * size, share, kernels, by_hand, 1e3 * host, waiting, memory)


def in_bf16(step: Step, device: torch.device) -> Step:
    def run() -> None:
        with torch.autocast(device.type, torch.bfloat16):
            step()

    return run


def rate(step: Step, seconds: float, wait: Step) -> tuple[float, float]:
    """Iterations per second, and the seconds until one is given to the device."""
    for _ in range(WARM_UP):
        step()
    wait()
    count, start = 0, time.perf_counter()
    while not count or time.perf_counter() - start < seconds:
        step()
        count += 1
    given = time.perf_counter() - start
    wait()
    return count / (time.perf_counter() - start), given / count


def bf16_peak(device: torch.device) -> float:
    """Floating-point operations per second in a product of large matrices."""
    a = torch.randn(PEAK_SIDE, PEAK_SIDE, device=device).bfloat16()
    products, _ = rate(lambda: a @ a, 1.0, device_wait(device))
    return 2 * PEAK_SIDE**3 * products


@dataclass
class Page:
    """The numbers as JSON and as a page in the folder `out`; failed: cells that were tried, and why there is none."""

    out: Path
    about: str = "nothing was measured"
    found: dict[Cell, Measured] = field(default_factory=dict)
    failed: dict[Cell, str] = field(default_factory=dict)

    def write(self, left: Sequence[Cell]) -> None:
        """left: cells that were not tried, or not yet."""
        numbers = {
            "about": self.about,
            "cells": {str(cell): asdict(one) for cell, one in self.found.items()},
            "failed": {str(cell): why for cell, why in self.failed.items()},
            "left_out": [str(cell) for cell in left],
        }
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / NUMBERS).write_text(json.dumps(numbers, indent=1))
        lines = ["# The trainer on one device", "", self.about, ""]
        lines += ["| cell | samples/s | bare loop | of the peak | launches | bare loop | host, ms | waiting | memory |"]
        lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
        lines += [row(cell, one) for cell, one in self.found.items()]
        missing = [*(f"- {cell}: {why}" for cell, why in self.failed.items()), *(f"- {cell}" for cell in left)]
        lines += ["", "Not measured:", "", *missing] if missing else []
        (self.out / PAGE).write_text("\n".join([*lines, ""]))


def row(cell: Cell, one: Measured) -> str:
    memory = UNKNOWN if one.memory is None else f"{one.memory / 1e9:.2f} GB"
    share = UNKNOWN if one.share is None else f"{one.share:.1%}"
    return (
        f"| {cell} | {one.samples_per_second:,.0f} | {one.bare:,.0f} | {share} | {one.launches:.0f} | "
        f"{one.bare_launches:.0f} | {one.host_ms:.2f} | {one.waiting:.1%} | {memory} |"
    )
