"""Two hosts, as network namespaces joined by a virtual cable: one run over both, the cable cut, and the run going on.

They share the file system, as the nodes of a cluster share the run's folder.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from helpers.launching import (
    SMALL,
    ended,
    environment,
    equal,
    free_port,
    scalars,
    status,
    steps_saved,
    train,
    wait_until,
    weights,
)

from savae_dist.testing.two_hosts import TwoHosts, why_not

TIMEOUT = 8
STEPS = ["system.vec_steps=90", "system.decoder_steps=3", "checkpoint_every=15", "networks.norm=group"]
LAUNCH = """
compute_environment: LOCAL_MACHINE
distributed_type: MULTI_GPU
use_cpu: true
gpu_ids: "-1"
num_machines: 2
num_processes: 2
mixed_precision: "no"
rdzv_backend: {backend}
same_network: true
"""

REASON = why_not()
pytestmark = [pytest.mark.faults, pytest.mark.slow, pytest.mark.skipif(bool(REASON), reason=REASON)]


class Hosts(TwoHosts):
    """With a launcher on each."""

    @contextmanager
    def started(self, log: Path, backend: str, *arguments: str) -> Iterator[list[subprocess.Popen[str]]]:
        """The launcher of each host; whatever is left of them is killed in the end."""
        (log / "two.yaml").write_text(LAUNCH.format(backend=backend))
        port = str(free_port())
        launchers = []
        try:
            for rank, name in enumerate(self.names):
                where = [
                    "--machine_rank",
                    str(rank),
                    "--main_process_ip",
                    self.addresses[0],
                    "--main_process_port",
                    port,
                ]
                launch = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
                launch += ["--config_file", str(log / "two.yaml"), *where, "-m", "savae_dist.train", *arguments]
                with (log / f"stderr{rank}").open("a") as errors:
                    process = subprocess.Popen(
                        self.command(rank, *launch),
                        env={**environment(), "GLOO_SOCKET_IFNAME": name},
                        stderr=errors,
                        text=True,
                    )
                launchers.append(process)
            yield launchers
        finally:
            for process in launchers:
                below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
                for one in below:
                    if one.is_running():
                        one.kill()
                process.kill()
                process.wait(30)

    def run(self, log: Path, backend: str, *arguments: str, seconds: float = 150) -> str:
        """A whole run over both hosts; what rank 0 said."""
        with self.started(log, backend, *arguments) as launchers:
            for process in launchers:
                process.wait(seconds)
            codes = [process.returncode for process in launchers]
        said = [(log / f"stderr{rank}").read_text() for rank in (0, 1)]
        assert codes == [0, 0], said
        return said[0]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts.built() as both:
        yield both


@pytest.fixture(scope="module")
def whole(hosts: Hosts, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over both hosts that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    said = hosts.run(
        folder, "static", *SMALL, *STEPS, f"data.train={data}", f"output={folder / 'run'}", "debug.check_ranks=1"
    )
    assert "2 processes (MULTI_CPU, gloo, cpu)" in said
    return folder / "run"


def test_two_hosts_equal_one_process(whole: Path, data: Path, tmp_path: Path) -> None:
    result = train(1, *SMALL, *STEPS, f"data.train={data}", f"output={tmp_path / 'run'}", "max_steps=3")
    assert result.returncode == 0, result.stderr
    one, two = scalars(tmp_path / "run"), scalars(whole)
    for name in ("vec/kl", "vec/cat", "vec/gradient_norm"):
        for step in (1, 2, 3):
            assert two[name][step] == pytest.approx(one[name][step], rel=1e-5, abs=1e-6), (name, step)


@pytest.mark.parametrize("backend", ["static", "c10d"])
def test_the_cable_is_cut(backend: str, hosts: Hosts, whole: Path, data: Path, tmp_path: Path) -> None:
    """Both sides say 75 within the time-out and five seconds; the same command then ends as if nothing had been."""
    output = tmp_path / "run"
    words = [*SMALL, *STEPS, f"data.train={data}", f"output={output}", f"timeout={TIMEOUT}"]
    views = [f"status-node{node}.json" for node in (0, 1)]
    with hosts.started(tmp_path, backend, *words) as launchers:
        try:
            wait_until(lambda: bool(steps_saved(output)) or ended(output), 90, "the first checkpoint")
            hosts.cable("down")
            cut = time.time()
            wait_until(lambda: all(ended(output, view) for view in views), TIMEOUT + 5 + 1, "75 on both sides")
        finally:
            hosts.cable("up")
        for process in launchers:
            process.wait(60)
    for view in ("status.json", *views):
        said = status(output, view)
        assert (said["outcome"], said["exit_code"]) == ("RankLost", 75), said
        assert "run it again" in said["message"]
        assert 0 < said["heartbeat"] - cut < TIMEOUT + 5
    assert 15 <= status(output)["step"] < 90
    assert "continuing step-" in hosts.run(tmp_path, backend, *words)
    assert status(output)["outcome"] == "done"
    assert equal(weights(output), weights(whole))
