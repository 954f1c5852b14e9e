"""What `--plan` predicts of two hosts with a slow cable between them, and what a run over both then measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from savae_dist.benchmarks.setting import synthetic
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.run.lifecycle import train
from savae_dist.run.planning.plan import speeds
from savae_dist.run.run import Run
from savae_dist.testing.two_hosts import TwoHosts, why_not

LEAST = 6  # iterations of a phase
MOST_SECONDS = 300  # that a run may take
PORT = 29500  # the first host, a network namespace of its own, has no other listener

Rates = dict[str, float]  # phase -> samples per second


def compare(changes: Sequence[str], gigabits: Sequence[float], seconds: float, rounds: int) -> Iterator[str]:
    """A line for one process and for each cable: predicted samples per second, and those of `rounds` runs, by phase.

    changes: of the demo's configuration. seconds: that a phase of a run is to take. ConfigError where there can be no
    two hosts.
    """
    if reason := why_not():
        raise ConfigError(f"two hosts on one machine: {reason}")
    with tempfile.TemporaryDirectory() as scratch, TwoHosts.built() as hosts:
        synthetic(Path(scratch) / "shards")
        words = [*changes, f"data.train={scratch}/shards", "data.validation=null"]
        one, two = predicted(words, gigabits)
        yield f"{'between the hosts':<18}" + "".join(f"{name + ': predicted':>20}{'measured':>18}" for name in one)

        def line(name: str, expected: Rates, several: bool) -> str:
            runs = [
                measured(words, expected, seconds, hosts if several else None, Path(scratch)) for _ in range(rounds)
            ]
            cells = (
                f"{rate:20.0f}{' '.join(f'{found[phase]:.0f}' for found in runs):>18}"
                for phase, rate in expected.items()
            )
            return f"{name:<18}" + "".join(cells)

        yield line("one process", one, several=False)
        for speed in gigabits:
            hosts.slow_down(speed)
            yield line(f"{speed:g} Gbit/s", two[speed], several=True)


def predicted(words: Sequence[str], gigabits: Sequence[float]) -> tuple[Rates, dict[float, Rates]]:
    """Of one process, and of two for each cable, as `--plan` predicts them."""
    one: Rates = {}
    two: dict[float, Rates] = {speed: {} for speed in gigabits}

    def look(run: Run) -> str:
        split = run.data.builder.split
        for phase, speed in speeds(run):
            one[phase.name] = speed.rate(split.size, split.accumulate, 1, 1.0)
            for cable in gigabits:
                two[cable][phase.name] = speed.rate(split.size, split.accumulate, 2, cable * 1e9 / 8)
        return f"predicted from this process, data.batch_size={split.size}; samples per second:"

    with tempfile.TemporaryDirectory() as folder:
        train(load([*words, f"output={folder}/plan"]), look)
    return one, two


def measured(words: Sequence[str], expected: Rates, seconds: float, hosts: TwoHosts | None, scratch: Path) -> Rates:
    """Of a run in one process, or on both hosts; ConfigError if it fails."""
    size = load(words).data.batch_size
    steps = {name: max(LEAST, round(seconds * rate / size)) for name, rate in expected.items()}
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        lengths = [f"system.{name}_steps={count}" for name, count in steps.items()]
        command = [sys.executable, "-m", "savae_dist.train", *words, *lengths, f"output={folder}/run"]
        ranks = []
        for rank in range(2 if hosts else 1):
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            if hosts is not None:
                at = {"MASTER_ADDR": hosts.addresses[0], "MASTER_PORT": PORT, "GLOO_SOCKET_IFNAME": hosts.names[rank]}
                place = {"WORLD_SIZE": 2, "RANK": rank, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
                environment |= {key: str(value) for key, value in {**at, **place}.items()}
            with open(f"{folder}/said{rank}", "w") as said:
                here = command if hosts is None else hosts.command(rank, *command)
                ranks.append(subprocess.Popen(here, env=environment, stdout=said, stderr=said))
        try:
            codes = [process.wait(MOST_SECONDS) for process in ranks]
        finally:
            for process in ranks:
                with suppress(ProcessLookupError):
                    process.kill()
        if any(codes):
            raise ConfigError(f"a run ended with {codes}: {Path(folder, 'said0').read_text()[-500:]}")
        rates: Rates = json.loads(Path(folder, "run", "summary.json").read_text())["samples_per_second"]
        return rates
