"""Packing on several machines: the SLURM array really packs, under a stub of sbatch; Kubernetes jobs say the same."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from helpers.job_stubs import Job
from helpers.launching import ROOT, environment

from savae_dist.data.packing.packer import Share
from savae_dist.data.packing.sources.arrays import ROWS
from savae_dist.errors import ConfigError, DataError, DeniedError
from tools.make_shards import main

SCRIPT = "launch_configs/slurm/pack_array.sh"
FILE = ROOT / "launch_configs" / "kubernetes" / "pack.yaml"
READ, WRITE, INDEX = yaml.safe_load_all(FILE.read_text())


@pytest.fixture
def job(tmp_path: Path) -> Job:
    (tmp_path / "stubs").mkdir()
    return Job(tmp_path / "stubs", "sbatch")


@pytest.fixture
def source(tmp_path: Path) -> str:
    """Three parts, which six shards are made of."""
    n = 3 * ROWS
    np.save(tmp_path / "labels.npy", np.arange(n) % 2)
    np.save(tmp_path / "a.npy", np.arange(n * 4).reshape(n, 2, 2).astype(np.uint8))
    return str(tmp_path / "a.npy")


def options(folder: Path) -> list[str]:
    return ["--labels", str(folder / "labels.npy"), "--shard-size", str(ROWS // 2), "--class-names", "no,yes"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def check_jobs(job: Job, words: list[str]) -> None:
    """An array that reads, one that writes once all of that have ended well, and the index after that."""
    one, two = (f"--dependency=afterok:{number} --kill-on-invalid-dep=yes" for number in (701, 702))
    behind = f"{SCRIPT} {' '.join(words)}"
    assert job.log == [
        f"sbatch --parsable --array=0-2 {behind}",
        f"sbatch --parsable --array=0-2 {one} {behind}",
        f"sbatch --parsable {two} {behind}",
    ]


def check_same_bytes(source: str, tmp_path: Path) -> None:
    """`three` against what one machine makes."""
    assert main(["arrays", source, str(tmp_path / "one"), *options(tmp_path), "--processes", "1"]) == 0
    assert contents(tmp_path / "three") == contents(tmp_path / "one")
    assert sum(name.endswith(".tar") for name in contents(tmp_path / "one")) == 6


QUEUED = "job 701 reads, 702 writes, 703 makes the index; their logs are slurm-*.log\n"


def test_three_machines_make_the_bytes_of_one(
    job: Job, source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tool is called here with what each task calls it with, in this order: that spares seven starts of Python."""
    words = ["arrays", source, str(tmp_path / "three"), *options(tmp_path)]
    (job.folder / "bin" / "python").write_text('#!/bin/sh\nprintf "%s\\n" "$*" >>"$STUBS/calls"\n')
    (job.folder / "bin" / "python").chmod(0o755)
    assert job.run("slurm/pack_array.sh", "3", *words, SLURM_CPUS_PER_TASK="1") == (0, QUEUED)
    check_jobs(job, words)
    calls = [line.split() for line in (job.folder / "calls").read_text().splitlines()]
    assert len(calls) == 7
    for tool, *arguments in calls:
        assert tool == "tools/make_shards.py"
        assert main(arguments) == 0
    said = capsys.readouterr().out
    assert re.findall(r"part  (\d/\d)", said) == ["1/3", "2/3", "3/3"] * 2
    written = re.findall(r"written  (\d) of 6 shards", said)
    assert written == ["2", "4", "6", "6"]  # by the third reader, who finds all read, and by each once more
    check_same_bytes(source, tmp_path)


@pytest.mark.slow
def test_the_jobs_themselves(job: Job, source: str, tmp_path: Path) -> None:
    words = ["arrays", source, str(tmp_path / "three"), *options(tmp_path)]
    process = job.start("slurm/pack_array.sh", "3", *words, SLURM_CPUS_PER_TASK="1")
    try:
        said, _ = process.communicate(timeout=550)
    finally:
        process.kill()
    assert (process.returncode, said) == (0, QUEUED), (job.folder / "said").read_text()
    check_jobs(job, words)
    check_same_bytes(source, tmp_path)


def test_a_job_that_fails_ends_the_others(job: Job, tmp_path: Path) -> None:
    """sbatch itself fails: nothing more is queued."""
    (job.folder / "bin" / "sbatch").write_text('#!/bin/sh\necho "sbatch $*" >>"$STUBS/log"\nexit 1\n')
    code, _ = job.run("slurm/pack_array.sh", "3", "arrays", "a.npz", str(tmp_path / "s"))
    assert code == 1
    assert len(job.log) == 1


def dry(job: Job, **environment: str) -> str:
    """What make_shards is called with."""
    (job.folder / "bin" / "python").write_text('#!/bin/sh\necho "$*"\n')
    (job.folder / "bin" / "python").chmod(0o755)
    code, said = job.run("slurm/pack_array.sh", "images", "a folder", "out", "--processes", "3", **environment)
    assert code == 0
    return said.strip()


def test_a_task_by_hand(job: Job) -> None:
    """PARTS tells how many there are where only some are queued again; the user's own --processes comes last."""
    task = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2", "PARTS": "32", "SLURM_CPUS_PER_TASK": "16"}
    assert dry(job, **task) == "tools/make_shards.py images --processes 16 a folder out --processes 3 --part 8/32"
    del task["PARTS"]
    assert dry(job, **{**task, "SLURM_ARRAY_TASK_ID": "1"}).endswith(" --part 2/2")
    assert "--part" not in dry(job)


def test_parts_count_from_one() -> None:
    assert [str(Share.parse(f"{index + 1}/3")) for index in range(3)] == ["1/3", "2/3", "3/3"]
    with pytest.raises(ConfigError, match="with I from 1 to N"):
        Share.parse("0/3")


# Kubernetes.


def container(manifest: dict[str, Any]) -> dict[str, Any]:
    (one,) = manifest["spec"]["template"]["spec"]["containers"]
    return dict(one)


def called(manifest: dict[str, Any], tmp_path: Path, **variables: str) -> str:
    """What a pod calls make_shards with."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    program = tmp_path / "bin" / "savae-make-shards"
    program.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    program.chmod(0o755)
    one = container(manifest)
    named = {variable["name"]: variable["value"] for variable in one.get("env", [])}
    path = f"{tmp_path / 'bin'}:{environment()['PATH']}"
    done = subprocess.run(
        [*one["command"], *one["args"]],
        env={**environment(), **named, **variables, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("manifest", [READ, WRITE])
def test_each_pod_has_its_part(manifest: dict[str, Any], tmp_path: Path) -> None:
    spec = manifest["spec"]
    assert spec["completionMode"] == "Indexed"
    assert spec["completions"] == spec["parallelism"] == int(container(manifest)["env"][0]["value"])
    words = "|".join(container(manifest)["args"])
    for index in range(spec["completions"]):
        part = f"{index + 1}/{spec['completions']}"
        assert called(manifest, tmp_path, JOB_COMPLETION_INDEX=str(index)) == f"{words}|--part|{part}|"
        assert Share.parse(part)


def test_the_last_one_makes_the_index(tmp_path: Path) -> None:
    assert "completionMode" not in INDEX["spec"]
    assert called(INDEX, tmp_path) == "|".join(container(INDEX)["args"]) + "|"
    assert (
        container(INDEX)["args"] == container(READ)["args"] == container(WRITE)["args"]
    )  # else they refuse each other


def test_the_later_ones_wait() -> None:
    assert [one["spec"].get("suspend", False) for one in (READ, WRITE, INDEX)] == [False, True, True]
    final = sorted([ConfigError.code, DataError.code, DeniedError.code])
    for manifest in (READ, WRITE, INDEX):
        (rule,) = manifest["spec"]["podFailurePolicy"]["rules"]
        assert rule["onExitCodes"] == {"containerName": container(manifest)["name"], "operator": "In", "values": final}
        assert manifest["spec"]["template"]["spec"]["restartPolicy"] == "Never"
    for line in ("kubectl create -f launch_configs/kubernetes/pack.yaml", "kubectl wait", "kubectl patch job"):
        assert line in FILE.read_text()


def head(folder: Path, fails: str = "no job") -> list[str]:
    """What the commands in the manifest's head ask of kubectl, a stub under which a job's wait ends at the second time.

    fails: the job that fails, so that no wait for its completion ends well.
    """
    (folder / "kubectl").write_text(
        f"""#!/bin/sh
echo "$1 $2 $3 $4"
[ "$1" = wait ] || exit 0
[ "$2 $4" != "--for=condition=failed job/{fails}" ] || exit 0
[ "$2 $4" != "--for=condition=complete job/{fails}" ] || exit 1
[ "$2" = --for=condition=complete ] && [ -e "{folder}/${{4##*/}}" ] && exit 0
touch "{folder}/${{4##*/}}"
exit 1
"""
    )
    (folder / "kubectl").chmod(0o755)
    lines = [line.removeprefix("#   ") for line in FILE.read_text().splitlines() if line.startswith("#   ")]
    env = {**environment(), "PATH": f"{folder}:{environment()['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", "\n".join(lines)], env=env, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.splitlines()


def waits(job: str) -> list[str]:
    complete = f"wait --for=condition=complete --timeout=60s job/savae-pack-{job}"
    return [complete, f"wait --for=condition=failed --timeout=0s job/savae-pack-{job}", complete]


def test_the_commands_in_its_head_start_one_after_the_other(tmp_path: Path) -> None:
    assert head(tmp_path) == [
        "create -f launch_configs/kubernetes/pack.yaml ",
        *waits("read"),
        "patch job savae-pack-write --type=merge",
        *waits("write"),
        "patch job savae-pack-index --type=merge",
    ]


def test_after_a_job_that_failed_nothing_is_waited_for(tmp_path: Path) -> None:
    assert head(tmp_path, "savae-pack-read") == ["create -f launch_configs/kubernetes/pack.yaml ", *waits("read")[:2]]
