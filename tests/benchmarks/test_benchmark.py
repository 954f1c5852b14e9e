from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import ROOT, environment

from savae_dist.config import load
from savae_dist.data import Order, Reader, Request, Shards, pack
from savae_dist.preprocess import normalise
from savae_dist.training.batches import BatchBuilder, BatchSplit, training_plan
from savae_dist.training.engine import PreparedUpdate
from tools import benchmark, handwritten, loaders, scaling

SMALL = ["--width", "2", "--batch", "4", "--rounds", "1", "--seconds", "0", "--threads", "1"]
ROW = re.compile(r"^  (\S.*?) +(\d+\.\d+) +(\d+\.\d+) +(\d+) +(\d+\.\d+) +(\d+\.\d+)$", re.MULTILINE)


@pytest.fixture
def digits(tmp_path: Path) -> str:
    rng = np.random.default_rng(1)
    pack(rng.integers(0, 256, (40, 8, 8), np.uint8), np.arange(40) % 3, tmp_path / "shards")
    return str(tmp_path / "shards")


def setting(shards: str, *values: str) -> handwritten.Setting:
    config = load.load(["networks.width=2", "data.batch_size=4", benchmark.CONSTANT, *values])
    return handwritten.Setting(config, Shards.open(shards), torch.device("cpu"))


@pytest.mark.parametrize("phase", ["vec", "decoder"])
@pytest.mark.parametrize("weights", [(0.01, 0.1), (0.0, 0.1), (0.5, 0.0), (0.0, 0.0)])
def test_the_hand_written_loop_does_what_the_trainer_does(phase, weights, digits, monkeypatch):
    """Fed with the trainer's batches and noise, it ends with the same weights: the two may be compared."""
    here = setting(digits, f"system.beta={weights[0]}", f"system.gamma={weights[1]}")
    made = []
    networks = handwritten.Setting.networks
    monkeypatch.setattr(handwritten.Setting, "networks", lambda self: made.append(networks(self)) or made[-1])
    (chosen,) = (p for p in here.config.system.phases() if p.name == phase)
    trained, iterations = benchmark.trainer(here, chosen), 3
    written = handwritten.WRITTEN[phase](here, Replay(here, chosen, iterations))
    for _ in range(iterations):
        trained()
        written()
    fresh = networks(here)
    for name in fresh:
        ours, theirs, start = (dict(nets[name].named_parameters()) for nets in (*made, fresh))
        for key in start:
            torch.testing.assert_close(ours[key], theirs[key], msg=f"{name}.{key}")
        trains = {n for u in chosen.updates if u.active for n in u.trains}
        assert (name in trains) == any(not torch.equal(ours[key], start[key]) for key in start)


class Replay(handwritten.Preloaded):
    """What the trainer's builder gives, in the order in which it is asked for."""

    def __init__(self, here: handwritten.Setting, phase, iterations: int) -> None:
        size, config = here.config.data.batch_size, here.config
        split = BatchSplit(size)
        builder = BatchBuilder(split, here.device, lambda x: normalise(x, here.shards.spec), config.seed)
        order = Order(here.shards.counts, config.seed, loaders.LANES, config.data.shuffle_window)
        reader = Reader(here.shards, order, 0)
        self.batches, self.draws = [], []
        for planned in training_plan(phase, split, first=0, last=iterations, origin=0):
            step, raw = planned.step, reader[Request(planned.position, size, range(size))]
            batch, noise = builder.batch(raw), builder.noise(step, planned.position, raw.slot)
            self.batches.append((batch.x, batch.y))
            if step.update.losses[step.loss_index].__name__ != "critic_real_loss":
                names = ["z", "z_hat"] if step.update.name == "decoder" and config.system.gamma else ["z"]
                self.draws += [noise[name] for name in names]

    def batch(self):
        return self.batches.pop(0)

    def noise(self):
        return self.draws.pop(0)


def test_preloaded_batches_go_through_all_samples(digits):
    data = handwritten.Preloaded(setting(digits))
    epoch = torch.cat([data.batch()[0] for _ in range(10)])
    assert sorted(x.sum().item() for x in epoch) == sorted(x.sum().item() for x in data.x)
    assert data.batch()[0].shape == (4, 1, 8, 8)
    assert data.noise().shape == (4, 2)


def test_loops_take_turns():
    calls, waits = [], []
    steps = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = benchmark.interleave(steps, rounds=3, seconds=0, wait=lambda: waits.append(len(calls)))
    warm = 2 * benchmark.WARM_UP
    assert calls[:warm] == ["a"] * benchmark.WARM_UP + ["b"] * benchmark.WARM_UP
    assert calls[warm:] == ["a", "b"] * 3
    assert waits == [warm + i for i in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6)]
    assert all(pairs.shape == (3, 2) and (pairs >= 0).all() for pairs in times.values())


def test_table_gives_medians_and_speeds_of_the_same_round():
    slow_round = {
        "a": np.array([[1.0, 1.0], [9.0, 2.0], [2.0, 3.0]]),
        "b": np.array([[2.0, 1.0], [18.0, 4.0], [4.0, 3.0]]),
    }
    head, *rows = benchmark.table("vec", slow_round, "a", batch=10)
    assert head.split() == ["vec", "wall", "ms", "CPU", "ms", "samples/s", "speed", "by", "CPU"]
    assert rows[0].split() == ["a", "2000.00", "2000.00", "5", "1.000", "1.000"]
    assert rows[1].split() == ["b", "4000.00", "3000.00", "2", "0.500", "1.000"]


def test_step_on_the_synthetic_set(capsys):
    assert benchmark.main(["step", *SMALL]) == 0
    out = capsys.readouterr().out
    first = out.splitlines()[0]
    assert f"torch {torch.__version__}" in first
    assert "1 threads; networks.width=2, data.batch_size=4, system.beta=0.01, system.gamma=0.1" in first
    assert [row[0] for row in ROW.findall(out)] == ["hand-written", "trainer"] * 2
    assert all(float(value) > 0 for row in ROW.findall(out) for value in row[1:])


def test_step_takes_shards_and_a_phase(digits, capsys):
    assert benchmark.main(["step", *SMALL, "--shards", digits, "--phase", "vec", "--beta", "0"]) == 0
    out = capsys.readouterr().out
    assert len(ROW.findall(out)) == 2
    assert "decoder" not in out


def test_step_takes_signals(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(20, 2, 30)).astype(np.float32)
    pack(x, np.arange(20) % 2, tmp_path / "shards")
    assert benchmark.main(["step", *SMALL, "--shards", str(tmp_path / "shards")]) == 0
    assert len(ROW.findall(capsys.readouterr().out)) == 4


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
    assert names[6:] == ["Phase2 NCHW", "Phase2 NCHW cache", "Phase2 NHWC", "Phase2 NHWC cache"]
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


def test_loops_of_a_folder_want_their_own_shape(folder, digits, capsys):
    assert benchmark.main(["step", *SMALL, "--shards", digits, "--hand-written", str(folder)]) == 2
    assert "28x28" in capsys.readouterr().err


def test_trainer_leaves_out_what_is_inactive(digits, monkeypatch):
    names = []
    init = PreparedUpdate.__init__

    def named(self, update, *rest, **options):
        names.append(update.name)
        init(self, update, *rest, **options)

    monkeypatch.setattr(PreparedUpdate, "__init__", named)
    here = setting(digits, "system.beta=0")
    benchmark.trainer(here, here.config.system.phases()[1])
    assert names == ["decoder"]


# Several systems.


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


# Several processes.

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


def test_scaling_without_reduction_trains_the_same_samples_alone(digits):
    """Unwrapped it steps as the wrapped one does on one process."""
    here = setting(digits)
    for phase in here.config.system.phases():
        loops = [scaling.trainer(here, phase, BatchSplit(4), reduce=reduce) for reduce in (True, False)]
        for loop in loops:
            for _ in range(3):
                loop.step()
        for name, update in loops[0].updates.items():
            other = loops[1].updates[name].parameters
            for key, parameter in update.parameters.items():
                torch.testing.assert_close(parameter, other[key], rtol=0, atol=0)


def test_one_process_is_no_scaling(capsys):
    assert benchmark.main(["scaling", "--processes", "1"]) == 2
    assert "--processes=1" in capsys.readouterr().err


def test_scaling_is_refused_before_anything_is_started(capsys):
    for wrong, word in (("system.betta=1", "betta"), ("--phase=encoder", "no such phase")):
        assert benchmark.main(["scaling", wrong]) == 2
        assert word in capsys.readouterr().err


# Data.

TINY = ["--batch", "8", "--samples", "64", "--rounds", "1", "--seconds", "0"]


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return dict(loaders.sets(tmp_path_factory.mktemp("sets"), 64, 8))


@pytest.mark.parametrize("title", ["images, samples", "images, packed", "windows, samples", "windows, packed"])
@pytest.mark.parametrize("library", loaders.LOADERS)
def test_every_loader_gives_every_sample_once_as_it_is_stored(library, title, small_sets):
    """Eight batches of eight are the set, in any order; the ninth begins again."""
    kind, layout = title.split(", ")
    x, y = {"images": loaders.digits, "windows": loaders.noise}[kind](64)
    assert Shards.open(small_sets[title]).packed == (layout == "packed")
    given = loaders.LOADERS[library](small_sets[title], 8, 0)
    batches = [next(given) for _ in range(9)]
    for values, labels in batches:
        assert values.shape == (8, *x.shape[1:])
        assert values.dtype == torch.from_numpy(x).dtype
        assert labels.shape == (8,)
    pairs = [(v.numpy().tobytes(), int(label)) for values, labels in batches[:8] for v, label in zip(values, labels)]
    assert sorted(pairs) == sorted((one.tobytes(), int(label)) for one, label in zip(x, y))


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


@pytest.mark.parametrize("wrong", [["--samples", "65"], ["--samples", "0"], ["--batch", "0"], ["--workers", "-1"]])
def test_sizes_that_cannot_work_are_one_line(wrong, capsys):
    assert benchmark.main(["data", *TINY, *wrong]) == 2
    error = capsys.readouterr().err
    assert wrong[0] in error
    assert error.count("\n") == 1


def test_it_starts_as_a_file():
    """Outside the package its neighbours have other names."""
    started = [sys.executable, str(ROOT / "tools" / "benchmark.py"), "data", *TINY, "--samples", "1"]
    result = subprocess.run(started, env=environment(), capture_output=True, text=True, timeout=120)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert "--samples=1" in result.stderr
