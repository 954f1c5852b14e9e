"""An augmentation that is meant for some phases leaves the others, and their kept posteriors, as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.launching import SMALL, cut, equal, shards, train, weights

from savae_dist.config.identity import identity
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.testing.small_run import CPU, IMAGE, Samples
from savae_dist.train import main
from savae_dist.training.augment import Augmentation
from savae_dist.training.batches import BatchBuilder, BatchSplit

ON = ["data.augment.noise=0.5", "data.augment.blur=0.1"]
STEPS = ["system.vec_steps=3", "system.decoder_steps=3", "checkpoint_every=2", "keep_checkpoints=9"]
VEC = [*ON, "data.augment_phases=[vec]"]


def networks(run: Path, name: str, checkpoint: str | None = None) -> dict[str, np.ndarray]:
    return {k: v for k, v in weights(run, checkpoint).items() if k.startswith(f"networks/{name}")}


@pytest.mark.parametrize(("phases", "augmented"), [((), {"vec", "decoder"}), (("vec",), {"vec"})])
def test_a_builder_augments_the_batches_of_its_phases(phases: tuple[str, ...], augmented: set[str]) -> None:
    raw = Samples(IMAGE).raw(0, 8, range(8))
    builder = BatchBuilder(BatchSplit(8), CPU, lambda x: x, 5, Augmentation({"noise": 0.5}, IMAGE, phases))
    for phase in ("vec", "decoder"):
        x = builder.during(phase).batch(raw, position=0).x
        assert torch.equal(x, raw.x) == (phase not in augmented)


def test_only_its_phase_is_another_and_a_resumption_is_exact(tmp_path: Path) -> None:
    data = [*SMALL, *STEPS, f"data.train={shards(tmp_path / 'shards')}"]
    for name, more in (("plain", []), ("all", ON), ("vec", VEC)):
        assert main([*data, *more, f"output={tmp_path / name}"]) == 0
    first = "step-00000003"  # the end of phase 1
    plain, everywhere, vec = (networks(tmp_path / name, "encoder", first) for name in ("plain", "all", "vec"))
    assert equal(everywhere, vec)
    assert not equal(plain, vec)
    assert not equal(networks(tmp_path / "all", "decoder"), networks(tmp_path / "vec", "decoder"))
    for kept in (2, 5):  # within each phase
        output = tmp_path / f"run{kept}"
        cut(tmp_path / "vec", output, kept)
        assert main([*data, *VEC, f"output={output}"]) == 0
        assert equal(weights(output), weights(tmp_path / "vec"))


def test_a_phase_that_is_not_meant_trains_as_without(tmp_path: Path) -> None:
    data = [*SMALL, "system.vec_steps=0", "system.decoder_steps=3", f"data.train={shards(tmp_path / 'shards')}"]
    for name, more in (("plain", []), ("vec", VEC), ("decoder", [*ON, "data.augment_phases=[decoder]"])):
        assert main([*data, *more, f"output={tmp_path / name}"]) == 0
    assert equal(weights(tmp_path / "plain"), weights(tmp_path / "vec"))
    assert not equal(weights(tmp_path / "plain"), weights(tmp_path / "decoder"))


@pytest.mark.distributed
def test_two_processes_train_the_same(tmp_path: Path) -> None:
    plain = ["networks.norm=group", "optimizers.default.name=sgd"]  # adam divides rounding by next to nothing
    data = [*SMALL, *STEPS, *plain, f"data.train={shards(tmp_path / 'shards')}", *VEC]
    for ranks in (1, 2):
        done = train(ranks, *data, f"output={tmp_path / str(ranks)}")
        assert done.returncode == 0, done.stderr
    for name in ("encoder", "classifier", "decoder", "critic"):
        one, two = (networks(tmp_path / str(ranks), name) for ranks in (1, 2))
        assert one.keys() == two.keys() != set()
        assert all(np.allclose(one[key], two[key], atol=1e-5) for key in one)


@pytest.mark.parametrize(
    ("phase", "told"), [("vec", "kept: 0.00568 MB in each process"), ("decoder", "not kept: samples are augmented")]
)
def test_posteriors_are_kept_where_nothing_is_augmented(
    phase: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"data.train={shards(tmp_path / 'shards')}", f"output={tmp_path / 'run'}", "system.decoder_steps=30"]
    assert main([*SMALL, *data, *ON, f"data.augment_phases=[{phase}]", "--check"]) == 0
    assert f"posteriors  of encoder in decoder: {told}" in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([*ON, "data.augment_phases=[vecc]"], ["no such phase 'vecc'", "'vec'", "savae has vec, decoder"]),
        (["system.name=vae", *VEC], ["no such phase 'vec'", "vae has vae"]),
        (["data.augment_phases=[vec]"], ['data.augment_phases=["vec"] has no effect without data.augment']),
        (["data.augment=none", "data.augment_phases=[vec]"], ["has no effect without data.augment"]),
    ],
)
def test_what_cannot_work_is_one_line(arguments: list[str], words: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        load(arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_what_is_switched_off_takes_its_phases_with_it(tmp_path: Path) -> None:
    file, plain = tmp_path / "on.yaml", tmp_path / "plain.yaml"
    plain.write_text("seed: 0\n")
    file.write_text("data: {augment: {noise: 0.5}, augment_phases: [vec]}\n")
    assert load([str(file)]).data.augment_phases == ["vec"]
    for off in ("data.augment=none", "data.augment.noise=0"):  # sweeps may go through 0
        assert load([str(file), off]).data.augment_phases == []
        assert identity(load([str(file), off])) == identity(load([str(plain)]))
