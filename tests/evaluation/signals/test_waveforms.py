"""What a decoder makes of signals: spread and copies by hand and by brute force, and training on what was made."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from savae_dist.evaluation.signals import synthetic, waveforms
from savae_dist.evaluation.signals.by_recording import Windows
from savae_dist.networks import ConvDecoder, ConvEncoder, DenseClassifier
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

SPEC = DataSpec("signal", (1, 512), 2, "none", rate=1000.0, class_names=("low", "high"))


def hums(seed: int, y: np.ndarray) -> torch.Tensor:
    """A tone in noise, at another frequency for each class."""
    rng = np.random.default_rng(seed)
    frequency = np.where(y == 0, 0.05, 0.2)[:, None, None]
    tone = np.sin(2 * np.pi * frequency * np.arange(512) + rng.uniform(0, 6, (len(y), 1, 1)))
    return torch.from_numpy(tone + 0.3 * rng.normal(size=(len(y), 1, 512))).float()


def windows(seed: int, y: np.ndarray, each: int = 4) -> Windows:
    """Recordings of `each` windows, one machine each."""
    recording = (np.arange(len(y)) // each + 1).astype(np.uint64)
    names = {int(one): f"m{one}" for one in np.unique(recording)}
    return Windows(hums(seed, y), y, recording, recording, names, names)


@pytest.fixture
def pipeline() -> Pipeline:
    torch.manual_seed(0)
    networks = {
        "encoder": ConvEncoder(SPEC.shape, 2, 2),
        "decoder": ConvDecoder(SPEC.shape, 2, 2, output="linear"),
        "classifier": DenseClassifier(2, 2),
    }
    return Pipeline(networks, SPEC)


def test_variance_by_hand() -> None:
    """Twice as far from the mean of the class is four times the variance, wherever that mean lies."""
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1, -1], [6, 4, 3])
    real = rng.normal(size=(13, 5))
    ours = real.copy()
    for one in (0, 1):
        ours[y == one] = 7 + 2 * real[y == one]
    assert waveforms.variance_ratio(ours, y, real, y) == pytest.approx(4)
    assert waveforms.variance_within(real, y)[1] == pytest.approx(np.cov(real[y == 1].T).trace() / 5)
    assert waveforms.variance_ratio(ours[:1], y[:1], real, y) is None  # one window has no variance


def test_an_interval_is_of_recordings_not_of_windows() -> None:
    rng = np.random.default_rng(2)
    means = rng.normal(size=40)
    values, recording = np.repeat(means, 50), np.repeat(np.arange(1, 41), 50).astype(np.uint64)
    low, high = waveforms.measured(values, recording)["interval"]
    assert (high - low) / 2 == pytest.approx(1.96 * means.std() / np.sqrt(40), rel=0.15)
    assert low < means.mean() < high
    without = waveforms.measured(np.append(values, np.nan), np.zeros(2001, np.uint64))
    assert without == {"value": pytest.approx(means.mean()), "interval": None}


def test_rare_classes_are_filled_up_in_turn() -> None:
    x, y = np.arange(7.0)[:, None], np.array([0, 0, 0, 0, 1, 2, 2])
    more, of = np.array([[10.0], [20.0], [30.0]]), np.array([1, 1, 0])
    filled, classes = synthetic.filled(x, y, more, of)
    assert filled[:, 0].tolist() == [*range(7), 10, 20, 10]  # of class 2 nothing was made
    assert classes.tolist() == [*y, 1, 1, 1]


def test_what_is_learnt_from_made_windows(pipeline: Pipeline) -> None:
    """From windows like real ones as much as from these, from windows of the wrong class nothing."""
    training, tested = windows(0, np.repeat([0, 1], [24, 4])), windows(1, np.repeat([0, 1], 8))
    y = np.repeat([0, 1], 24)
    good, wrong = synthetic.Made(hums(2, y), y), synthetic.Made(hums(3, 1 - y), y)
    for made, right in ((good, 1.0), (wrong, 0.0)):
        found = synthetic.trained_on(pipeline, tested, training, made, None)
        assert found["made windows"]["logistic regression on spectra"]["balanced_accuracy"] == right
        assert found["real windows"]["logistic regression on spectra"]["balanced_accuracy"] == 1
        sizes = {name: each["windows"] for name, each in found.items()}
        assert sizes["real windows"] == sizes["reconstructions of real windows"] == 28
        assert sizes["real, the rare ones repeated"] == sizes["real and made windows"] == sizes["made windows"] == 48
    assert found["real windows"]["logistic regression on spectra"]["machines"].keys() == {"m1", "m2", "m3", "m4"}


def test_copies_show_and_so_does_the_judge(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    training, tested = windows(0, np.repeat([0, 1], 12)), windows(1, np.repeat([0, 1, -1], 4))
    copied = synthetic.Made(training.x[::2], training.y[::2])
    monkeypatch.setattr(synthetic, "generated", lambda *_: copied)
    with torch.no_grad():  # a judge that says `high` of everything
        last = [layer for layer in pipeline.networks["classifier"].modules() if isinstance(layer, torch.nn.Linear)][-1]
        last.weight.zero_()
        last.bias.copy_(torch.tensor([0.0, 1.0]))
    found = waveforms.compare(pipeline, tested, training, pipeline)
    assert found["spectra"]["made"]["nearest"] == {"value": 0.0, "interval": None}
    low, high = found["spectra"]["real, never seen"]["nearest"]["interval"]
    assert 0 < low < found["spectra"]["real, never seen"]["nearest"]["value"] < high
    assert found["spectra"]["made"]["variance"] == pytest.approx(1, rel=0.3)
    assert found["spectra"]["training"]["nearest"]["value"] > 1  # the nearest of another recording, not itself
    assert found["yield"] == {"low": 0.0, "high": 1.0}
    assert (found["windows"], found["recordings"], found["made"]) == (12, 3, 12)
    told = waveforms.table(found)
    assert "made windows that the judge confirms: low 0.0%, high 100.0%" in told
    assert "real windows                                  24  logistic regression on spectra   1.000 [" in told
    assert "made windows that the judge confirms          " not in told  # windows of one class teach no classifier


def test_where_nothing_was_made_there_are_no_spectra() -> None:
    one, none = (waveforms.flat_spectra(torch.ones(count, 2, 512)) for count in (1, 0))
    assert none.shape == (0, one.shape[1])
