"""Losses of signals beside numpy and scipy: spectra and envelopes have no phase, and Gram matrices no positions."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch

from savae_dist.networks import SpectrogramCritic
from savae_dist.networks.spectrogram import power_frames
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SAVAE, losses


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_power_is_that_of_welchs_method() -> None:
    x = noise(3, 2, 700)
    _, power = scipy.signal.welch(x.numpy(), nperseg=64, detrend=False, window="hann")
    found = power_frames(x, 64).mean(2).numpy()
    np.testing.assert_allclose(found[..., :-1], power[..., 1:-1] / 2)  # scipy's is one-sided: twice the power
    assert power_frames(x, 1024).shape == (3, 2, 1, 350)  # no window is longer than the signal


def test_spectral_loss_by_hand() -> None:
    x, x_hat = noise(2, 1, 128), noise(2, 1, 128, seed=1)
    expected = []
    for window in (16, 32):
        p, q = (power_frames(one, window).mean(2).numpy() + losses.SPECTRAL_FLOOR for one in (x, x_hat))
        norms = [np.linalg.norm(a - b) / np.linalg.norm(a) for a, b in zip(np.sqrt(p), np.sqrt(q))]
        expected.append(np.mean(norms) + np.abs(np.log(p / q)).mean())
    assert losses.spectral_loss(x, x_hat, (16, 32)).item() == pytest.approx(np.mean(expected))
    assert losses.spectral_loss(x, -x, (16, 32)).item() == 0  # the sign is a phase
    assert losses.spectral_loss(x, 0 * x, (16,)).isfinite()


@pytest.mark.parametrize("length", [200, 201])
def test_envelope_is_that_of_scipy(length: int) -> None:
    x = noise(2, 2, length)
    expected = np.abs(scipy.signal.hilbert(x.numpy()))
    found = losses.envelope(x).numpy()
    np.testing.assert_allclose(found, expected - expected.mean(-1, keepdims=True), atol=1e-4)


def test_the_spectrum_of_the_envelope_tells_the_rate_of_impacts() -> None:
    """Bursts of the same noise in other rhythms have like spectra, and their envelopes have not."""
    t = torch.arange(1024, dtype=torch.float64)
    carrier = noise(1, 1, 1024)
    slow, fast, late = (
        carrier * (1 + torch.sin(2 * np.pi * rate * t / 1024 + at)) for rate, at in ((8, 0), (40, 0), (8, 2))
    )
    rhythm = [losses.spectral_loss(losses.envelope(slow), losses.envelope(other), (512,)) for other in (fast, late)]
    assert rhythm[0] > 1.5 * rhythm[1]


def test_gram_matrices_forget_where_a_feature_stands() -> None:
    f = noise(2, 3, 5, 4)
    expected = np.einsum("bchw,bdhw->bcd", f.numpy(), f.numpy()) / 20
    np.testing.assert_allclose(losses.gram(f).numpy(), expected)
    torch.testing.assert_close(losses.gram(f.roll(2, 3)), losses.gram(f))


def test_the_spectrogram_critic_does_not_see_the_sign_and_loads_again(tmp_path) -> None:
    critic = SpectrogramCritic((2, 300), width=2, windows=(32, 64))
    x = noise(3, 2, 300).float()
    torch.testing.assert_close(critic(x), critic(-x))
    assert critic(x).shape == (3,)
    critic.save_pretrained(tmp_path)
    torch.testing.assert_close(SpectrogramCritic.from_pretrained(tmp_path)(x), critic(x))


@pytest.mark.parametrize(
    "options",
    [{"spectral_weight": 1.0}, {"envelope_weight": 1.0}, {"critic": "spectrogram"}, {"critic": "period"}],
    ids=str,
)
def test_images_have_no_spectra_here(options: dict) -> None:
    with pytest.raises(ValueError, match="for signals, not images"):
        SAVAE(**options).build(DataSpec("image", (1, 12, 10), 4, "unit"), 4, "batch", 2)
    with pytest.raises(ValueError, match="of 4 samples or more"):
        SAVAE(spectral_windows=(2,))
