"""Spectra beside scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal

from savae_dist import spectra


def test_log_spectra():
    x = np.random.default_rng(0).normal(size=(3, 2, 700))
    _, power = scipy.signal.welch(x[1, 1], fs=1.0, window="hann", nperseg=256, noverlap=128, scaling="density")
    np.testing.assert_allclose(spectra.log_spectrum(x)[1, 1], 10 * np.log10(power[1:]))
    quiet = spectra.log_spectrum(x / 10)
    np.testing.assert_allclose(spectra.log_spectral_distance(spectra.log_spectrum(x), quiet), 20)  # dB
    assert np.isfinite(spectra.log_spectrum(np.zeros((1, 1, 100)))).all()


def test_envelope_spectra_show_the_modulation():
    t = np.arange(512) / 512
    x = ((1 + 0.5 * np.cos(2 * np.pi * 20 * t)) * np.cos(2 * np.pi * 100 * t))[None, None]
    spectrum = spectra.envelope_spectrum(x)[0, 0]
    assert spectrum.shape == (256,)
    assert spectrum[20 - 1] == pytest.approx(0.5)  # DC is left out
    assert np.delete(spectrum, 19).max() < 1e-9
    both = spectra.envelope_spectrum(np.concatenate([x, 0 * x]))
    assert spectra.relative_distance(both, 3 * both) == pytest.approx([2])  # the silent one is left out


def test_features_do_not_depend_on_phase_and_show_the_rate_of_impacts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 2, 1024))
    found = spectra.features(x)
    assert found.shape == (3, 2 * (128 + 256))
    np.testing.assert_allclose(spectra.features(-x), found)
    t = np.arange(1024)
    beaten = rng.normal(size=1024) * (1 + np.sin(2 * np.pi * 16 / 512 * t))  # an envelope of 16 waves a segment
    assert spectra.features(beaten[None, None])[0, 128:].argmax() == 16 - 1
