"""Measure the trainer on one GPU within a time limit: a list of cells, the most telling first.

A cell is a phase of SAVAE at a size and width, beside the bare loop on the same device. A CPU writes the same page, so
that the check itself can be tried without a GPU.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

import torch
from torch.utils.flop_counter import FlopCounterMode

from savae_dist.benchmarks import bare_loop
from savae_dist.benchmarks.launches import launches
from savae_dist.benchmarks.setting import SHAPE, Setting, Step, synthetic
from savae_dist.benchmarks.timing import WARM_UP, device_wait, machine
from savae_dist.benchmarks.trainer_loop import trainer
from savae_dist.config import auto
from savae_dist.config.schema import RunConfig
from savae_dist.distributed import launch
from savae_dist.errors import ConfigError
from savae_dist.systems.phases import Phase

SIGNAL, LARGE = (1, 1024), (1, 128, 128)
PEAK_SIDE = {"cuda": 8192, "cpu": 512}  # side of the square matrices whose product is timed
PAGE, NUMBERS = "gpu.md", "gpu.json"


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

    waiting: share of the time spent waiting for data. memory: peak bytes of tensors on a GPU, None on a CPU. bare:
    samples per second of the bare loop. launches, bare_launches: per iteration, of the trainer and of the bare loop.
    """

    samples_per_second: float
    bare: float
    share: float
    launches: float
    bare_launches: float
    host_ms: float
    waiting: float
    memory: int | None


def check(config: RunConfig, out: Path, device: str, limit: float, seconds: float) -> Iterator[str]:
    """Measure cell by cell until `limit` seconds have passed, and write OUT/gpu.json and OUT/gpu.md after each.

    seconds: of each loop in a cell. ConfigError if the device is not there.
    """
    began = monotonic()
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("no CUDA GPU is here: run it on one, or write the same page for this CPU by --device cpu")
    if device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
    here = launch.start("bf16", config.timeout).device
    out.mkdir(parents=True, exist_ok=True)
    peak, found = bf16_peak(here), dict[Cell, Measured]()
    about = f"{machine(here)}; bf16, batches of {config.data.batch_size}; bf16 peak {peak / 1e12:.3g} TFLOP/s"
    yield about
    for number, cell in enumerate(CELLS):
        if monotonic() - began > limit:
            left = [str(one) for one in CELLS[number:]]
            write(out, about, found, left)
            yield from (f"left out, since {limit:g} s have passed: {name}" for name in left)
            return
        found[cell] = measured(config, cell, here, seconds, peak)
        write(out, about, found, [str(one) for one in CELLS[number + 1 :]])
        yield f"{cell}: {found[cell].samples_per_second:,.0f} samples/s, bare loop {found[cell].bare:,.0f}"


def measured(config: RunConfig, cell: Cell, device: torch.device, seconds: float, peak: float) -> Measured:
    """One cell: the trainer and the bare loop, one after the other."""
    config = auto.resolve(replace(config, networks=replace(config.networks, width=cell.width)), cell.shape, {})
    with tempfile.TemporaryDirectory() as scratch:
        shards = synthetic(Path(scratch) / "shards", cell.shape)
        setting = Setting(config, shards, device)
        (phase,) = (one for one in config.system.phases() if one.name == cell.phase)
        return compared(setting, phase, cell.compiled, seconds, peak)


def compared(setting: Setting, phase: Phase, compiled: bool, seconds: float, peak: float) -> Measured:
    wait, size = device_wait(setting.device), setting.config.data.batch_size
    written = bare_loop.WRITTEN[phase.name](setting, bare_loop.Preloaded(setting))
    bare, _ = rate(in_bf16(written, setting.device), seconds, wait)
    if setting.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    loop = trainer(setting, phase, compile=compiled)
    for _ in range(WARM_UP):
        loop.iterate()
    before, start = loop.waited(), time.perf_counter()
    ours, host = rate(loop.iterate, seconds, wait)
    waiting = (loop.waited() - before) / (time.perf_counter() - start)
    memory = torch.cuda.max_memory_allocated() if setting.device.type == "cuda" else None
    with FlopCounterMode(display=False) as counter:
        in_bf16(written, setting.device)()
    share = counter.get_total_flops() * ours / peak
    kernels = launches(loop.iterate, 2).kernels
    by_hand = launches(in_bf16(written, setting.device), 2).kernels
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
    side = PEAK_SIDE[device.type]
    a = torch.randn(side, side, device=device).bfloat16()
    products, _ = rate(lambda: a @ a, 1.0, device_wait(device))
    return 2 * side**3 * products


def write(out: Path, about: str, found: dict[Cell, Measured], left: list[str]) -> None:
    """The numbers as JSON and as a page; left: cells that were not measured."""
    numbers = {"about": about, "cells": {str(cell): asdict(one) for cell, one in found.items()}, "left_out": left}
    (out / NUMBERS).write_text(json.dumps(numbers, indent=1))
    lines = ["# The trainer on one device", "", about, ""]
    lines += ["| cell | samples/s | bare loop | of the peak | launches | bare loop | host, ms | waiting | memory |"]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for cell, one in found.items():
        memory = "not measured" if one.memory is None else f"{one.memory / 1e9:.2f} GB"
        lines.append(
            f"| {cell} | {one.samples_per_second:,.0f} | {one.bare:,.0f} | {one.share:.1%} | {one.launches:.0f} | "
            f"{one.bare_launches:.0f} | {one.host_ms:.2f} | {one.waiting:.1%} | {memory} |"
        )
    lines += ["", "Not measured:", "", *(f"- {name}" for name in left)] if left else []
    (out / PAGE).write_text("\n".join([*lines, ""]))
