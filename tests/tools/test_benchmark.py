from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.benchmarks import noise_shards
from helpers.launching import ROOT, environment

from savae_dist.data import pack
from tools import benchmark

SMALL = ["--width", "2", "--batch", "4", "--rounds", "1", "--seconds", "0", "--threads", "1"]


LOOPS_HERE, KEPT = ["hand-written", "trainer"], "trainer, posteriors kept"
ROW = re.compile(r"^  (\S.*?) +(\d+\.\d+) +(\d+\.\d+) +(\d+) +(\d+\.\d+) +(\d+\.\d+)$", re.MULTILINE)


def test_step_on_the_synthetic_set(capsys):
    assert benchmark.main(["step", *SMALL]) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert f"torch {torch.__version__}" in first
    assert "1 threads; networks.width=2, data.batch_size=4, system.beta=0.01, system.gamma=0.1" in first
    assert [row[0] for row in ROW.findall(out)] == [*LOOPS_HERE, *LOOPS_HERE, KEPT]
    assert all(float(value) > 0 for row in ROW.findall(out) for value in row[1:])


def test_step_takes_shards_and_a_phase(tmp_path, capsys):
    assert (
        benchmark.main(
            ["step", *SMALL, "--shards", str(noise_shards(tmp_path / "shards")), "--phase", "vec", "--beta", "0"]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert len(ROW.findall(out)) == 2
    assert "decoder" not in out


def test_step_takes_signals(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(20, 2, 30)).astype(np.float32)
    pack(x, np.arange(20) % 2, tmp_path / "shards")
    assert benchmark.main(["step", *SMALL, "--shards", str(tmp_path / "shards")]) == 0
    assert len(ROW.findall(capsys.readouterr().out)) == 5


LOOPS = """
    import numpy as np
    from nets import Plan
    STAGES = ("fuse", "partial", "cache")
    made = []

    class Phase1:
        def __init__(self, plan, batch, channels_last, where):
            made.append((plan, batch, channels_last, np.load(where)["x_train"].shape))

        def step(self):
            sum(range(20_000))

    class Phase2(Phase1):
        def __init__(self, plan, batch, opts, beta, gamma, channels_last, where):
            super().__init__(plan, batch, channels_last, where)
            made[-1] += (opts, beta, gamma)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "raw_torch.py").write_text(textwrap.dedent(LOOPS))
    (tmp_path / "nets.py").write_text("def Plan(*values):\n    return values\n")
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    for name in ("raw_torch", "nets"):
        sys.modules.pop(name, None)


def test_step_times_the_loops_of_a_folder(folder, capsys):
    assert benchmark.main(["step", *SMALL, "--gamma", "0.2", "--hand-written", str(folder)]) == 0
    names = [row[0] for row in ROW.findall(capsys.readouterr().out)]
    assert names[2:4] == ["Phase1 NCHW", "Phase1 NHWC"]
    assert names[7:] == ["Phase2 NCHW", "Phase2 NCHW cache", "Phase2 NHWC", "Phase2 NHWC cache"]
    made, shared = sys.modules["raw_torch"].made, ((2, 2, 10), 4)
    images = (4096, 28, 28)
    assert made[:2] == [(*shared, False, images), (*shared, True, images)]
    stages = {True: ("fuse", "partial", "cache"), False: ("fuse", "partial")}
    expected = [(*shared, last, images, stages[cache], 0.01, 0.2) for last in (False, True) for cache in (False, True)]
    assert made[2:] == expected


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--shards", "nowhere"], 65, "nowhere"),
        (["--beta", "-1"], 2, "system.beta"),
        (["--width", "0"], 2, "networks.width"),
        (["--hand-written", "nowhere"], 2, "nowhere holds no raw_torch.py"),
    ],
)
def test_what_cannot_work_is_one_line(arguments, code, message, capsys):
    assert benchmark.main(["step", *SMALL, *arguments]) == code
    error = capsys.readouterr().err
    assert error.startswith("benchmark: ")
    assert message in error
    assert error.count("\n") == 1


def test_loops_of_a_folder_want_their_own_shape(folder, tmp_path, capsys):
    assert (
        benchmark.main(
            ["step", *SMALL, "--shards", str(noise_shards(tmp_path / "shards")), "--hand-written", str(folder)]
        )
        == 2
    )
    assert "28x28" in capsys.readouterr().err


def test_systems_take_turns(capsys):
    tiny = ["networks.width=4", "data.batch_size=8", "system.latent_dim=3", "system.backbone=savae"]
    assert benchmark.main(["systems", "dcgan,vae_gan", *tiny, "--rounds", "1", "--seconds", "0", "--threads", "1"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:2] for row in rows] == [["dcgan", "gan"], ["vae_gan", "vae_gan"]]
    assert [float(value) for value in rows[0][5:]] == [1, 1]
    assert all(float(row[2]) > 0 for row in rows)


def test_systems_want_the_same_batch_and_precision(tmp_path, capsys):
    file = tmp_path / "compare.yaml"
    for other in ("data.batch_size=8", "precision=bf16"):
        file.write_text(f"compare: {{a: [demo], b: [demo, {other}]}}")
        assert benchmark.main(["systems", str(file)]) == 2
        assert "differ in batch or precision: add data.batch_size=" in capsys.readouterr().err


SHARES = re.compile(r"^  (vec|critic|decoder)((?: +-?\d+\.\d+){5})$", re.MULTILINE)


SCALED = re.compile(r"^  (\d[^.\n]*?)  +(\d+\.\d+) +(\d+)((?: +\d+\.\d+){3})$", re.MULTILINE)


@pytest.mark.distributed
def test_scaling_times_processes_with_and_without_reduction(capfd):
    tiny = ["--width", "2", "--batch", "8", "--rounds", "1", "--seconds", "0"]
    assert benchmark.main(["scaling", *tiny, "system.critic_update=joint"]) == 0
    out = capfd.readouterr().out
    asked = "networks.width=2, data.batch_size=8, system.critic_update=joint"
    assert f"1 threads each, 2 processes (gloo); {asked}" in out.splitlines()[0]
    rows = SCALED.findall(out)
    assert [row[0] for row in rows] == ["1 process", "2, no reduction", "2 processes"] * 2
    assert [row[3].split()[0] for row in rows[::3]] == ["1.000"] * 2  # what the speeds are compared to
    assert [row[3].split()[1:] for row in rows[1::3]] == [["1.000", "1.000"]] * 2
    shares = SHARES.findall(out)
    assert [name for name, _ in shares] == ["vec", "critic", "decoder"]
    for _, values in shares:
        data, forward, backward, _, optimiser = map(float, values.split())
        assert min(data, forward, backward, optimiser) > 0


def test_one_process_is_no_scaling(capsys):
    assert benchmark.main(["scaling", "--processes", "1"]) == 2
    assert "--processes=1" in capsys.readouterr().err


def test_scaling_is_refused_before_anything_is_started(capsys):
    for wrong, word in (("system.betta=1", "betta"), ("--phase=encoder", "no such phase")):
        assert benchmark.main(["scaling", wrong]) == 2
        assert word in capsys.readouterr().err


TINY = ["--batch", "8", "--samples", "64", "--rounds", "1", "--seconds", "0"]


def test_data_compares_both_kinds_and_layouts(capsys):
    assert benchmark.main(["data", *TINY]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].startswith(f"torch {torch.__version__}")
    assert out.splitlines()[0].endswith("1 threads; batches of 8, 0 workers, 64 samples")
    assert [row[0] for row in ROW.findall(out)] == ["savae_dist", "webdataset", "datasets"] * 4
    assert re.findall(r"^(\w+, \w+) ", out, re.MULTILINE) == [
        "images, samples",
        "images, packed",
        "windows, samples",
        "windows, packed",
    ]
    sizes = re.findall(r"resident memory: (\S+) MiB after epoch 1, (\S+) MiB after epoch 10$", out, re.MULTILINE)
    assert len(sizes) == 4
    assert all(float(last) < float(first) + 1 for first, last in sizes)
    assert all(float(row[4]) == 1 for row in ROW.findall(out)[1::3])  # what the others are compared to


def test_photographs_at_several_sizes_and_what_a_step_waits(capsys):
    assert benchmark.main(["data", "--source", "photos", *TINY, "--sizes", "32,48", "--width", "4"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"batches of 8, 64 JPEGs of 300 to 500 pixels, \d+ kB each$", out, re.MULTILINE)
    titles = re.findall(r"^(\d+ px, \d workers) ", out, re.MULTILINE)
    assert titles == ["32 px, 0 workers", "32 px, 2 workers", "48 px, 0 workers", "48 px, 2 workers"]
    assert out.count("webdataset, draft") == 4
    waits = re.findall(
        r"^(\d+) px, vec, 4 channels: (\S+) s a step, (\S+)% of it waiting for data from 2 workers$", out, re.M
    )
    assert [side for side, _, _ in waits] == ["32", "48"]
    assert all(0 <= float(share) <= 100 for _, _, share in waits)


@pytest.mark.parametrize("wrong", [["--samples", "65"], ["--samples", "0"], ["--batch", "0"], ["--workers", "-1"]])
def test_sizes_that_cannot_work_are_one_line(wrong, capsys):
    assert benchmark.main(["data", *TINY, *wrong]) == 2
    error = capsys.readouterr().err
    assert wrong[0] in error
    assert error.count("\n") == 1


def test_it_starts_as_a_file():
    """As in a checkout, from the path of its file."""
    started = [sys.executable, str(ROOT / "tools" / "benchmark.py"), "data", *TINY, "--samples", "1"]
    result = subprocess.run(started, env=environment(), capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "--samples=1" in result.stderr


def test_saves_by_a_thread_and_waited_for(tmp_path, capsys):
    assert benchmark.main(["saves", "--sizes", "1,9", "--rounds", "1", "--folder", str(tmp_path)]) == 0
    _, _, *rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:2] for row in rows] == [["1", "MB"], ["9", "MB"]]
    for waited, share, whole, synchronous in (row.split()[2:] for row in rows):
        assert 0 <= float(waited) <= float(whole)
        assert float(synchronous) > 0
        assert share.endswith("%")
    assert list(tmp_path.iterdir()) == []
