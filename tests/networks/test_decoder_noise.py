"""A decoder's noise: by hand, with the moments that it should have, and the same whenever and wherever it is made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from savae_dist.networks import ConvDecoder, DenseClassifier, Network
from savae_dist.networks.noise import CodeDraws, StageNoise
from savae_dist.pipeline.exports.runtimes import Function, export_onnx, run_onnx
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SAVAE
from savae_dist.testing.small_run import IMAGE, SIGNAL, SmallRun

NOISY = SAVAE(latent_dim=3, decoder_noise=16, vec_steps=1, decoder_steps=3)


def decoder(noise: int = 16, scale: float = 0.0, shape: tuple[int, ...] = (2, 37)) -> ConvDecoder:
    torch.manual_seed(0)
    made = ConvDecoder(shape, 3, width=4, norm_kind="group", output="linear", noise=noise)
    with torch.no_grad():
        for stage in made.noises:
            stage.scale.fill_(scale)
    return made


def draws(n: int, count: int, seed: int = 0) -> Tensor:
    return torch.randn(n, count, generator=torch.Generator().manual_seed(seed))


def test_values_are_standard_normal_and_hardly_correlated() -> None:
    stage, count = StageNoise(1, (500,), 64, number=1), 20_000
    with torch.no_grad():
        stage.scale.fill_(1.0)
        values = stage(torch.zeros(count, 1, 500), draws(count, 64))[:, 0]
    torch.testing.assert_close(values.std(0), torch.ones(500), atol=0.03, rtol=0)
    assert values.mean(0).abs().max() < 0.04
    assert (values.pow(4).mean(0) - 3).abs().max() < 0.35  # as of a normal distribution
    correlations = torch.corrcoef(values.T) - torch.eye(500)
    assert correlations.square().mean().sqrt() == pytest.approx(64**-0.5, rel=0.1)


def test_white_within_a_window() -> None:
    """The power at each frequency, over many draws, is that of white noise; at one draw it is exponential."""
    stage = StageNoise(1, (512,), 64, number=3)
    with torch.no_grad():
        values = stage.forward(torch.zeros(4000, 1, 512), draws(4000, 64))
        assert not values.any()  # at first
        stage.scale.fill_(1.0)
        values = stage(torch.zeros(4000, 1, 512), draws(4000, 64))[:, 0]
    power = torch.fft.rfft(values)[:, 1:-1].abs().square() / 512
    assert power.mean() == pytest.approx(1, rel=0.02)
    assert power.std(0).div(power.mean(0)).mean() == pytest.approx(1, abs=0.15)


def test_codes_draw_the_same_and_apart_from_each_other() -> None:
    made = CodeDraws(5, 64)
    z = draws(3000, 5)
    found = made(z)
    assert torch.equal(found, CodeDraws(5, 64)(z))
    assert torch.equal(made(z.flip(0)).flip(0), found)
    torch.testing.assert_close(found.square().mean(), torch.tensor(1.0), atol=0.02, rtol=0)
    assert found.mean(0).abs().max() < 0.1
    correlations = torch.corrcoef(found.T) - torch.eye(64)
    assert correlations.square().mean().sqrt() < 0.05
    assert torch.equal(made.to(torch.bfloat16)(z.bfloat16()), CodeDraws(5, 64)(z.bfloat16().float()))
    made = CodeDraws(5, 64)
    near = made(z + 1e-6)
    assert (near - found).abs().max() < 1e-3  # what rounding changes of a code changes as little of the noise
    apart = made(z + 0.3 * torch.nn.functional.normalize(draws(3000, 5, seed=1)))
    assert (apart * found).mean().abs() < 0.05


@pytest.mark.parametrize("shape", [(2, 37), (1, 13, 10), (1, 64)])
def test_a_decoder_starts_as_one_without(shape: tuple[int, ...]) -> None:
    plain, noisy, z = decoder(0, shape=shape), decoder(16, shape=shape), draws(4, 3)
    states = plain.state_dict(), noisy.state_dict()
    assert set(states[1]) - set(states[0]) == {f"noises.{stage}.scale" for stage in range(6)}
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert torch.equal(noisy(z), plain(z))
    assert torch.equal(noisy(z, draws(4, 16)), plain(z))
    assert not torch.equal(decoder(16, 0.5, shape)(z), plain(z))


def test_a_stage_by_hand() -> None:
    """The noise of stage 5 alone, which has the whole size: between its convolution and its norm."""
    made, z, given = decoder(), draws(4, 3), draws(4, 16, seed=1)
    stage, seen = made.noises[4], {}
    with torch.no_grad():
        stage.scale.copy_(torch.tensor([0.5, 0.0, -1.0, 2.0]))
    made.convs[4].register_forward_hook(lambda _m, _i, out: seen.update(before=out.clone()))
    made.norms[4].register_forward_pre_hook(lambda _m, given: seen.update(behind=given[0].clone()))
    made(z, given)
    values = given @ stage.weights
    assert values.shape == (4, 40)
    expected = seen["before"] + torch.tensor([0.5, 0.0, -1.0, 2.0])[:, None] * values[:, None]
    torch.testing.assert_close(seen["behind"], expected)


def test_other_draws_make_another_sample_of_the_same_code() -> None:
    made, z = decoder(scale=0.5), draws(4, 3)
    one, other = made(z, draws(4, 16, seed=1)), made(z, draws(4, 16, seed=2))
    assert not torch.allclose(one, other)
    torch.testing.assert_close(made(z[:2], draws(4, 16, seed=1)[:2]), one[:2])


@pytest.mark.parametrize("spec", [SIGNAL, IMAGE], ids=lambda spec: spec.kind)
def test_training_takes_it_from_the_engine(spec: DataSpec) -> None:
    """Its numbers belong to the sample's place in the global batch, in the critic's steps and the decoder's."""
    run = SmallRun(NOISY, spec)
    phase = run.phases["decoder"]
    for update in phase.updates:
        assert update.noise["stages"] == (16,)
    run.run("decoder", 3)
    moved = [float(stage.scale.detach().abs().max()) for stage in run.networks["decoder"].noises]
    assert min(moved) > 0
    plain = {update.name: dict(update.noise) for update in replace(NOISY, decoder_noise=0).phases()[1].updates}
    for update in phase.updates:
        assert {**plain[update.name], "stages": (16,)} == update.noise
    step = phase.optimizer_steps()[-1]
    with_it, without = run.noise(step, 8), SmallRun(replace(NOISY, decoder_noise=0), spec)
    again = without.noise(without.phases["decoder"].optimizer_steps()[-1], 8)
    assert all(torch.equal(again[name], with_it[name]) for name in again)  # the other draws are what they were


def test_a_loss_sees_the_draws_of_its_batch() -> None:
    run = SmallRun(NOISY, SIGNAL)
    run.run("decoder", 2)
    run.networks["decoder"].eval()
    step = run.phases["decoder"].optimizer_steps()[0]
    batch, seen = run.first_batch(step), []
    run.networks["decoder"].register_forward_pre_hook(lambda _m, given: seen.append(given[1]))
    NOISY.generated(SimpleNamespace(**run.networks), batch)
    assert torch.equal(seen[0], batch.noise["stages"])


def pipeline(folder: Path) -> Pipeline:
    torch.manual_seed(0)
    networks: dict[str, Network] = {"decoder": decoder(scale=0.5), "classifier": DenseClassifier(3, 4)}
    Pipeline(networks, SIGNAL).save_pretrained(folder)
    return Pipeline.from_pretrained(folder)


def test_a_pipeline_makes_the_same_each_time_and_in_any_batch(tmp_path: Path) -> None:
    first, again = pipeline(tmp_path / "a"), pipeline(tmp_path / "b")
    made = first.generate(6, seed=3)
    torch.manual_seed(5)  # the global state plays no part
    np.testing.assert_array_equal(again.generate(6, seed=3), made)
    assert np.abs(again.generate(6, seed=4) - made).max() > 0.1
    again.batch_size = 4
    np.testing.assert_allclose(again.generate(6, seed=3), made, atol=1e-5)
    z = draws(3, 3)
    np.testing.assert_allclose(first.decode(z)[1:], first.decode(z[1:]), atol=1e-5)


def test_it_is_exported_with_the_noise_that_follows_from_the_code(tmp_path: Path) -> None:
    made = decoder(scale=0.5).eval()
    program = export_onnx(Function(made, {"z": draws(3, 3)}, ("x",)), tmp_path / "decode.onnx")
    for n in (1, 5):
        z = draws(n, 3, seed=n)
        expected = made(z)
        torch.testing.assert_close(program.module()(z), expected)
        np.testing.assert_allclose(run_onnx(tmp_path / "decode.onnx", {"z": z})[0], expected.detach(), atol=2e-4)
