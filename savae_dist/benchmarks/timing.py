"""Times of loops that take turns, and the table of them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import numpy as np
import psutil
import torch

from savae_dist.benchmarks.setting import Step
from savae_dist.run.reporting.about import processor

WARM_UP = 3  # iterations: memory is allocated, kernels are chosen, DDP orders its buckets


def interleave(
    steps: Mapping[str, Step], rounds: int, seconds: float, wait: Step, untimed: int = 0
) -> dict[str, np.ndarray]:
    """Wall and CPU seconds per iteration of every loop, `[rounds, 2]`; the loops take turns of about `seconds`.

    wait: returns when the device has done all that it was given. untimed: iterations at the begin of each turn, for
    what worker processes have read while others took theirs.
    """
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for run in steps.values():
        for _ in range(WARM_UP):
            run()
    for _ in range(rounds):
        for name, run in steps.items():
            for _ in range(untimed):
                run()
            wait()
            count, cpu, start = 0, time.process_time(), time.perf_counter()
            while not count or time.perf_counter() - start < seconds:
                run()
                count += 1
            wait()
            times[name].append(((time.perf_counter() - start) / count, (time.process_time() - cpu) / count))
    return {name: np.array(pairs) for name, pairs in times.items()}


def table(title: str, times: Mapping[str, np.ndarray], reference: str, batch: int) -> Iterator[str]:
    """A line per loop: medians over the rounds; speeds relative to `reference` are compared within each round."""
    yield f"{title:<28}{'wall ms':>10}{'CPU ms':>10}{'samples/s':>11}{'speed':>8}{'by CPU':>8}"
    for name, pairs in times.items():
        wall, cpu = np.median(pairs, axis=0)
        speed, by_cpu = np.median(times[reference] / pairs, axis=0)
        yield f"  {name:<26}{1e3 * wall:10.2f}{1e3 * cpu:10.2f}{batch / wall:11.0f}{speed:8.3f}{by_cpu:8.3f}"


def machine(device: torch.device) -> str:
    """Torch's version, the processor's model and the threads of torch."""
    model = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    return f"torch {torch.__version__}, {model}, {torch.get_num_threads()} threads"


def device_wait(device: torch.device) -> Step:
    """A function that waits until the device has finished its work."""
    return torch.cuda.synchronize if device.type == "cuda" else lambda: None


def memory(step: Step, epoch: int, epochs: int) -> str:
    """Resident memory of this process, mapped shards included, after the first and the last epoch of `epoch` steps."""
    sizes = []
    for _ in range(epochs):
        for _ in range(epoch):
            step()
        sizes.append(psutil.Process().memory_info().rss / 2**20)
    return f"resident memory: {sizes[0]:.1f} MiB after epoch 1, {sizes[-1]:.1f} MiB after epoch {epochs}"
