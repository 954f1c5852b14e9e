"""`--profile N`: where the time of a phase's steps goes, recorded by torch's profiler while training goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from savae_dist.run.process import Process

FOLDER = "profile"
WARM_UP = 3  # iterations that are not recorded: memory is allocated in them, algorithms are chosen, code is compiled
SHOWN = 10  # operators in the table

Say = Callable[[str], None]


@contextmanager
def profiled(steps: int, phase: str, folder: Path, process: Process, say: Say) -> Iterator[Callable[[], None]]:
    """What must be called after each iteration of the phase; `steps` of them are recorded, after the warm-up.

    Each rank writes FOLDER/PHASE-rankN.json, a Chrome trace, and `say` gets a table of rank 0's costly operators. What
    happens between these iterations, such as a validation, is in it too. steps: 0 for no recording.
    """
    recording, done = recorder(process.state.device), 0

    def after_iteration() -> None:
        nonlocal done
        done += 1
        if done == WARM_UP and steps:
            recording.start()
        elif done == WARM_UP + steps and steps:
            finish()

    def finish() -> None:
        recording.stop()
        path = folder / FOLDER / f"{phase}-rank{process.peers.rank}.json"
        with process.status.side.spared("the profile's trace"):
            path.parent.mkdir(exist_ok=True)
            recording.export_chrome_trace(str(path))
            check_whole(path)
            say("\n".join([f"profile of {phase}: {done - WARM_UP} iterations, all of it in {path}", *table(recording)]))

    try:
        yield after_iteration
    except BaseException:
        if WARM_UP <= done < WARM_UP + steps:
            recording.stop()
        raise
    if not steps or done >= WARM_UP + steps:
        return
    if done > WARM_UP:
        finish()
    else:
        if done == WARM_UP:
            recording.stop()
        say(f"profile of {phase}: none, since it had {done} iterations and the first {WARM_UP} are not recorded")


def check_whole(trace: Path) -> None:
    """OSError unless all of a trace was written, because torch says nothing when the disk is full."""
    with trace.open("rb") as file:
        file.seek(-min(trace.stat().st_size, 64), os.SEEK_END)
        if not file.read().rstrip().endswith(b"}"):
            raise OSError(f"{trace} was cut short; is the disk full?")


def recorder(device: torch.device) -> profile:
    gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return profile(activities=[ProfilerActivity.CPU, *gpu])


def table(recording: profile) -> list[str]:
    """The operators that took longest themselves, without those that they called; on a GPU by its time."""
    gpu = ProfilerActivity.CUDA in recording.activities
    taken = {
        one.key: (one.self_device_time_total if gpu else one.self_cpu_time_total, one.count)
        for one in recording.key_averages()
        if not one.is_user_annotation  # names of stretches, ours and torch's, and no operators
    }
    total = sum(time for time, _ in taken.values()) or 1.0
    costly = sorted(taken.items(), key=lambda item: -item[1][0])[:SHOWN]
    width = max((min(len(name), 48) for name, _ in costly), default=8)
    lines = [f"  {'operator':<{width}}  {'calls':>7}  {'ms':>9}  share of the {'GPU' if gpu else 'CPU'}'s time"]
    return lines + [
        f"  {name[:width]:<{width}}  {count:>7,}  {time / 1000:>9.2f}  {time / total:.0%}"
        for name, (time, count) in costly
    ]
