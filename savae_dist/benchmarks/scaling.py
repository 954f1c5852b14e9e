"""What several processes cost: 1 and N processes beside N that never talk.

The loops take turns in one run, so that a busy machine is busy for all of them.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from savae_dist.benchmarks.setting import Setting, Step, synthetic
from savae_dist.benchmarks.timing import WARM_UP, device_wait, machine
from savae_dist.benchmarks.trainer_loop import Loop, trainer
from savae_dist.config.schema import RunConfig
from savae_dist.distributed import launch
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import ConfigError
from savae_dist.systems.phases import Phase
from savae_dist.training.batches import BatchSplit
from savae_dist.training.strategies import Replicas

PARTS = ("data", "forward", "backward", "optimiser")


@dataclass
class Stopwatch:
    """Seconds per update and part, over all iterations of a loop whose updates it was put on."""

    wait: Step
    seconds: dict[tuple[str, str], float] = field(default_factory=lambda: defaultdict(float))
    mark: float = 0.0

    def now(self) -> float:
        self.wait()
        return time.perf_counter()

    def put_on(self, loop: Loop) -> None:
        """Within a step, time outside forward and backward counts as optimiser; time before a step counts as data."""
        for name, update in loop.updates.items():
            assert isinstance(update.parallel, Replicas)
            update.parallel.forward = self._around(name, "forward", update.parallel.forward)
            update.parallel.backward = self._around(name, "backward", update.parallel.backward)
            update.step = self._step(name, update.step)  # type: ignore[method-assign]

    def _around(self, name: str, part: str, function: Callable[..., Any]) -> Any:
        def timed(*arguments: Any) -> Any:
            start = self.now()
            result = function(*arguments)
            self.seconds[name, part] += self.now() - start
            return result

        return timed

    def _step(self, name: str, step: Callable[..., None]) -> Any:
        def timed(*arguments: Any) -> None:
            start = self.now()
            self.seconds[name, "data"] += start - self.mark
            inner = self.seconds[name, "forward"] + self.seconds[name, "backward"]
            step(*arguments)
            self.mark = self.now()
            inner = self.seconds[name, "forward"] + self.seconds[name, "backward"] - inner
            self.seconds[name, "optimiser"] += self.mark - start - inner

        return timed


def turns(loop: Loop | None, count: int, peers: Peers, wait: Step) -> tuple[float, float]:
    """Seconds per iteration: from when all ranks are there to when the last one is done, and of all ranks' CPUs."""
    peers.gather({})
    start, cpu = time.perf_counter(), time.process_time()
    for _ in range(count if loop is not None else 0):
        assert loop is not None
        loop.iterate()
    wait()
    here = {"wall": (time.perf_counter() - start) / count, "cpu": (time.process_time() - cpu) / count}
    records = peers.gather(here)
    return max(record["wall"] for record in records), sum(record["cpu"] for record in records)


def measure(setting: Setting, phase: Phase, peers: Peers, rounds: int, seconds: float, wait: Step) -> Iterator[str]:
    """Throughput of the loops, and where the time of each update goes."""
    size = setting.config.data.batch_size
    split = BatchSplit(size, peers.rank, peers.ranks)
    together, apart = f"{peers.ranks} processes", f"{peers.ranks}, no reduction"
    lone = trainer(setting, phase, BatchSplit(size), reduce=False)  # by all ranks: DDP comes and goes with it
    loops: dict[str, Loop | None] = {
        "1 process": lone if peers.rank == 0 else None,
        apart: trainer(setting, phase, split, reduce=False),
        together: trainer(setting, phase, split),
    }
    counts, times = {}, dict[str, list[tuple[float, float]]]()
    for name, loop in loops.items():
        turns(loop, WARM_UP, peers, wait)
        counts[name] = max(1, round(seconds / turns(loop, WARM_UP, peers, wait)[0]))
        times[name] = []
    for number in range(rounds):
        for name in (
            loops if number % 2 == 0 else reversed(loops)
        ):  # alternate the order: drift of the machine's speed then cancels
            times[name].append(turns(loops[name], counts[name], peers, wait))
    yield f"{phase.name:<22}{'wall ms':>10}{'samples/s':>11}{'speed':>8}{'of ' + apart:>20}{'by CPU':>8}"
    for name, pairs in times.items():
        wall = statistics.median(wall for wall, _ in pairs)
        speed = statistics.median(b[0] / a[0] for a, b in zip(pairs, times["1 process"]))
        share, by_cpu = (statistics.median(b[i] / a[i] for a, b in zip(pairs, times[apart])) for i in (0, 1))
        yield f"  {name:<20}{1e3 * wall:10.2f}{size / wall:11.0f}{speed:8.3f}{share:20.3f}{by_cpu:8.3f}"
    yield from shares(loops[together], loops[apart], peers, min(counts[together], counts[apart]), rounds, wait)


def shares(
    together: Loop | None, apart: Loop | None, peers: Peers, count: int, rounds: int, wait: Step
) -> Iterator[str]:
    """Milliseconds per iteration of every update; communication is what its step takes longer than without it."""
    watches = Stopwatch(wait), Stopwatch(wait)
    pairs = list(zip((together, apart), watches))
    for loop, watch in pairs:
        assert loop is not None
        watch.put_on(loop)
    for number in range(rounds):
        for loop, watch in pairs if number % 2 == 0 else reversed(pairs):
            peers.gather({})
            watch.mark = watch.now()
            for _ in range(count):
                assert loop is not None
                loop.iterate()
    assert together is not None
    yield f"  {'of an iteration, ms':<20}{'data':>10}{'forward':>10}{'backward':>10}{'communic.':>10}{'optimiser':>10}"
    for name in together.updates:
        joined, alone = ({part: w.seconds[name, part] * 1e3 / (count * rounds) for part in PARTS} for w in watches)
        steps = ("forward", "backward", "optimiser")
        communication = sum(joined[part] - alone[part] for part in steps)  # below zero: less than the noise
        values = [joined["data"], alone["forward"], alone["backward"], communication, alone["optimiser"]]
        total = sum(values)
        yield f"  {name:<20}" + "".join(f"{value:10.2f}" for value in values)
        yield f"  {'':<20}" + "".join(f"{value / total:10.1%}" for value in values)


def phases_named(config: RunConfig, name: str) -> list[Phase]:
    """The phase of that name, or all for `both`; ConfigError if there is none."""
    phases = [phase for phase in config.system.phases() if name in (phase.name, "both")]
    if not phases:
        raise ConfigError(f"--phase={name}: {config.system.name} has no such phase")
    return phases


def start_ranks(command: Sequence[str], processes: int) -> None:
    """Run a command as `processes` ranks on this machine and wait for them; ConfigError if one fails."""
    if processes < 2:
        raise ConfigError(f"--processes={processes} must be at least 2")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    ranks = []
    for rank in range(processes):
        ours = {key: str(value) for key, value in {**common, "RANK": rank, "LOCAL_RANK": rank}.items()}
        ranks.append(subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1", **ours}))
    try:
        code = max(abs(process.wait()) for process in ranks)
    finally:
        for process in ranks:
            with suppress(ProcessLookupError):
                process.kill()
    if code:
        raise ConfigError(f"a process ended with {code}; what it said stands above")


def one_and_several(
    config: RunConfig, phases: Sequence[Phase], about: str, rounds: int, seconds: float
) -> Iterator[str]:
    """Throughput of 1 and of all processes, what the reduction costs them, and where the time goes.

    To be called by every rank; only rank 0 gets the lines. about: what was asked, for the first of them.
    """
    torch.set_num_threads(1)
    state = launch.start(config.precision, config.timeout)
    peers = Peers(state, config.timeout)
    here = f"{machine(state.device)} each, {peers.ranks} processes ({state.backend})"
    yield from on_rank_0(peers, iter([f"{here}; {about}"]))
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(config, synthetic(Path(scratch) / "shards"), state.device)
        for phase in phases:
            yield from on_rank_0(peers, measure(setting, phase, peers, rounds, seconds, device_wait(state.device)))


def on_rank_0(peers: Peers, lines: Iterator[str]) -> Iterator[str]:
    """Every rank does the work behind the lines; only rank 0 passes them on."""
    return (line for line in lines if peers.rank == 0)
