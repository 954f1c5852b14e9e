from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from torch import Tensor

from savae_dist.evaluation import metrics, report
from savae_dist.latents import Posterior
from savae_dist.networks import Classifier, Decoder, Encoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec
from savae_dist.spectra import envelope_spectrum, log_spectrum

IMAGES = DataSpec("image", (1, 4, 4), 2, "unit")
SIGNALS = DataSpec("signal", (1, 512), 2, "none", rate=512.0)


class MeanEncoder(Encoder):
    """The code is the sample's mean; its log-variance is -1."""

    def forward(self, x: Tensor) -> tuple[Posterior, list[Tensor]]:
        mean = x.flatten(1).mean(1, keepdim=True)
        return Posterior(mean, torch.full_like(mean, -1.0)), []


class FlatDecoder(Decoder):
    """A constant sample of value slope * code."""

    def __init__(self, spec: DataSpec, slope: float) -> None:
        super().__init__()
        self.shape, self.slope = spec.shape, slope

    def forward(self, z: Tensor) -> Tensor:
        return self.slope * z.view(-1, *[1] * len(self.shape)).expand(-1, *self.shape)


class ThresholdClassifier(Classifier):
    """Class 1 above the threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = threshold

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([self.threshold - z, z - self.threshold], 1)


def toy(spec: DataSpec = IMAGES, slope: float = 0.5, threshold: float = 0.3) -> Pipeline:
    networks = {
        "encoder": MeanEncoder(),
        "decoder": FlatDecoder(spec, slope),
        "classifier": ThresholdClassifier(threshold),
    }
    return Pipeline(networks, spec)


def images(*levels: float) -> Tensor:
    """Images whose means are the levels, with some texture."""
    texture = 0.02 * torch.randn(len(levels), 1, 4, 4, generator=torch.Generator().manual_seed(0))
    texture = texture - texture.mean((2, 3), keepdim=True)
    return torch.tensor(levels).view(-1, 1, 1, 1) + texture


def test_accuracy_kl_and_reconstruction_by_hand():
    levels = (0.1, 0.2, 0.4, 0.8)
    x, y = images(*levels), torch.tensor([0, 1, 1, -1])  # decided: 0, 0, 1, 1
    found = report.evaluate(toy(), [(x, y)])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["kl"] == pytest.approx(np.mean([0.5 * (m**2 + np.exp(-1) - 1 + 1) for m in levels]))
    x_hat = 0.5 * np.float64(levels)[:, None, None, None]
    assert found["reconstruction_mse"] == pytest.approx(np.square(x.double().numpy() - x_hat).mean(), rel=1e-5)


def test_without_an_encoder_only_the_baseline_is_left():
    generator = Pipeline({"decoder": toy().networks["decoder"]}, IMAGES)
    x, y = images(0.1, 0.2), torch.tensor([0, 1])
    found = report.evaluate(generator, [(x, y)], [(x, y)], judge=toy())
    assert {name for name, value in found.items() if value is not None} == {"class_mean_mse"}
    assert found["class_mean_mse"] == pytest.approx(0)


def test_flip_rates_by_hand():
    # Reconstructions have the levels 0.1, 0.2, 0.25, 0.4: threshold 0.3 flips the third, 0.22 the second.
    x, y = images(0.2, 0.4, 0.5, 0.8), torch.full((4,), -1)
    found = report.evaluate(toy(threshold=0.3), [(x, y)], judge=toy(slope=1.0, threshold=0.15))
    assert found["class_flip_rate"] == pytest.approx(2 / 4)  # 0.4 -> 0.2, 0.5 -> 0.25
    assert found["judge_flip_rate"] == pytest.approx(1 / 4)  # 0.2 -> 0.1
    assert found["accuracy"] is None


def test_class_means_come_from_the_training_set():
    training = [(images(0.0, 0.2), torch.tensor([0, 0])), (images(0.5, 0.9), torch.tensor([0, -1]))]
    x, y = images(0.1, 0.6, 0.7), torch.tensor([0, 1, -1])  # class 1 has no mean, the third no class
    mean = torch.cat([training[0][0], training[1][0][:1]]).double().mean(0)
    found = report.evaluate(toy(), [(x, y)], training)
    assert found["class_mean_mse"] == pytest.approx((x[0].double() - mean).square().mean().item())
    assert report.evaluate(toy(), [(x, y)])["class_mean_mse"] is None


def test_sharpness_on_known_images():
    spike = torch.zeros(1, 1, 5, 5)
    spike[0, 0, 2, 2] = 1  # interior of the Laplacian: -4 in the middle, four times 1, corners 0
    assert metrics.laplacian_variance(spike).item() == pytest.approx((16 + 4) / 9)
    assert metrics.laplacian_variance(spike[:, :, 2]).item() == pytest.approx(2)  # 1, -2, 1
    x = torch.rand(3, 2, 6, 7, dtype=torch.float64)
    expected = [np.mean([scipy.ndimage.laplace(channel)[1:-1, 1:-1].var() for channel in image]) for image in x.numpy()]
    np.testing.assert_allclose(metrics.laplacian_variance(x), expected)
    double = Pipeline({"encoder": MeanEncoder(), "decoder": FlatDecoder(IMAGES, 1.0)}, IMAGES)
    assert report.evaluate(double, [(images(0.1, 0.5), torch.tensor([0, 1]))])["sharpness"] == pytest.approx(0)


@pytest.mark.parametrize("spec", [IMAGES, SIGNALS], ids=["images", "signals"])
def test_halves_add_up_to_the_whole(spec):
    torch.manual_seed(0)
    x, y = torch.rand(9, *spec.shape, dtype=torch.float64), torch.tensor([0, 1, -1, 1, 0, 0, -1, 1, 0])
    means = metrics.class_means([(x[:5], y[:5])], spec)
    pipeline, judge = toy(spec), toy(spec, threshold=0.24)
    whole = metrics.measure(pipeline, [(x, y)], means, judge)
    halves = [metrics.measure(pipeline, [(x[part], y[part])], means, judge) for part in (slice(4), slice(4, None))]
    assert list(whole) == list(halves[0]) == list(metrics.no_sums())
    added = metrics.add(*halves)
    assert added == pytest.approx(whole, rel=1e-12)
    assert metrics.measure(pipeline, [], means, judge) == metrics.no_sums()


def test_class_sums_add_up_too():
    torch.manual_seed(0)
    x, y = torch.rand(6, *SIGNALS.shape), torch.tensor([0, 1, 1, -1, 0, 1])
    whole = metrics.class_means([(x, y)], SIGNALS).sums
    parts = [metrics.class_means([(x[part], y[part])], SIGNALS).sums for part in (slice(2), slice(2, None))]
    for name, value in whole.items():
        torch.testing.assert_close(parts[0][name] + parts[1][name], value)


def test_what_was_not_counted_is_none():
    assert set(metrics.summarise(metrics.no_sums()).values()) == {None}
    alone = Pipeline({"encoder": MeanEncoder()}, IMAGES)
    found = report.evaluate(alone, [(images(0.1), torch.tensor([0]))])
    assert {name for name, value in found.items() if value is not None} == {"kl"}
    dull = report.evaluate(toy(), [(torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 1]))])
    assert dull["sharpness"] is None  # a flat original has no sharpness to compare with
    assert dull["log_spectral_distance"] is None


def test_a_judge_of_other_inputs_is_refused():
    batch = [(images(0.1), torch.tensor([0]))]
    with pytest.raises(ValueError, match="the judge takes"):
        report.evaluate(toy(), batch, judge=toy(SIGNALS))
    with pytest.raises(ValueError, match="classifier"):
        report.evaluate(toy(), batch, judge=Pipeline({"encoder": MeanEncoder()}, IMAGES))


def test_signal_metrics_by_hand():
    torch.manual_seed(0)
    training = [(torch.randn(4, *SIGNALS.shape), torch.tensor([0, 0, 1, -1]))]
    x, y = torch.randn(3, *SIGNALS.shape), torch.tensor([0, 1, 0])
    pipeline = toy(SIGNALS)
    found = report.evaluate(pipeline, [(x, y)], training)
    real, ours = x.double().numpy(), pipeline.decoded(pipeline.posterior(x).mean).double().numpy()
    before = training[0][0].double().numpy()
    means = np.stack([log_spectrum(before[:2]).mean(0), log_spectrum(before[2:3])[0]])
    gap = log_spectrum(real) - means[y.numpy()]
    assert found["class_mean_log_spectral_distance"] == pytest.approx(np.sqrt((gap**2).mean((1, 2))).mean())
    gap = log_spectrum(real) - log_spectrum(ours)
    assert found["log_spectral_distance"] == pytest.approx(np.sqrt((gap**2).mean((1, 2))).mean())
    envelopes = envelope_spectrum(before)
    means = np.stack([envelopes[:2].mean(0), envelopes[2]])
    own = envelope_spectrum(real)
    ratio = np.linalg.norm((own - means[y.numpy()])[:, 0], axis=1) / np.linalg.norm(own[:, 0], axis=1)
    assert found["class_mean_envelope_spectral_distance"] == pytest.approx(ratio.mean())
    assert found["envelope_spectral_distance"] == pytest.approx(1, abs=1e-3)  # a constant has no envelope spectrum
