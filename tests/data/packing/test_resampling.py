"""A signal at another rate: its tones, its ends, and the same values however it is cut."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from scipy.signal import firwin, kaiserord, resample_poly

from savae_dist.data.packing.readers.signal import Part, Signal
from savae_dist.data.packing.resampling import STOPBAND_DB, TRANSITION, Resampled
from savae_dist.errors import ConfigError


def resample(x: np.ndarray, rate: float, to: float) -> np.ndarray:
    made = Resampled(Signal([Part(tuple("abc"[: len(x)]), x, 1)]), rate, to)
    return made.read(0, made.length)


def spectrum(x: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies and amplitudes of the middle of a signal, by a window of low side lobes, between the bins as well."""
    x = x[len(x) // 8 : -len(x) // 8]
    window = np.blackman(len(x)) ** 2
    n = 8 * len(x)
    return np.fft.rfftfreq(n, 1 / rate), 2 * np.abs(np.fft.rfft(x * window, n)) / window.sum()


@pytest.mark.parametrize(
    ("rate", "to"), [(48000, 12000), (44100, 16000), (8000, 12000), (25600, 12000), (51200.5, 12800.125)]
)
def test_resampling_keeps_tones_and_removes_aliases(rate, to):
    t = np.arange(40_000) / rate
    low = min(rate, to) / 2
    kept = resample(np.sin(2 * np.pi * 0.31 * low * t)[None], rate, to)[0]
    assert len(kept) == np.ceil(40_000 * to / rate)
    frequency, amplitude = spectrum(kept, to)
    assert abs(frequency[amplitude.argmax()] - 0.31 * low) <= frequency[1]
    far = np.abs(frequency - 0.31 * low) > 100 * frequency[1]
    assert amplitude.max() == pytest.approx(1, abs=1e-3)
    assert amplitude[far].max() < 1e-4
    exact = np.sin(2 * np.pi * 0.31 * low * np.arange(len(kept)) / to)  # same phase: sample 0 stays at 0 s
    assert np.abs(kept - exact)[200:-200].max() < 1e-3
    edge = resample(np.sin(2 * np.pi * 0.89 * low * t)[None], rate, to)[0]
    assert spectrum(edge, to)[1].max() == pytest.approx(1, abs=1e-3)
    if to < rate:
        for above in (1.01, 1.2, 1.5):  # parts of the new Nyquist frequency; all below the old one
            alias = resample(np.sin(2 * np.pi * above * low * t + 1)[None], rate, to)[0]
            assert spectrum(alias, to)[1].max() < 3e-4


def test_resampling_of_level_slope_and_odd_rates():
    line = np.arange(2.0, 402.0)[None]
    assert np.allclose(resample(line, 48000, 12000)[0], line[0, ::4], atol=1e-9)  # no step where the recording ends
    assert resample(line, 100.0, 100).tobytes() == line.tobytes()
    with pytest.raises(ConfigError, match="smaller ratio"):
        resample(line, 44100.0007, 12000)


@pytest.mark.parametrize(("up", "down"), [(1, 4), (160, 441), (3, 2), (100, 1)])
def test_it_is_scipy_s_polyphase_filter_in_any_pieces(up, down):
    x = np.random.default_rng(0).standard_normal((2, 3001))
    made = Resampled(Signal([Part(("a", "b"), x, 1)]), down, up)
    taps, beta = kaiserord(STOPBAND_DB, TRANSITION / max(up, down))
    low_pass = firwin(taps | 1, (1 - TRANSITION / 2) / max(up, down), window=("kaiser", beta))
    whole = made.read(0, made.length)
    np.testing.assert_allclose(
        whole, resample_poly(x, up, down, axis=-1, window=low_pass, padtype="line"), rtol=0, atol=1e-13
    )
    cuts = sorted({0, 1, made.length, *np.random.default_rng(1).integers(0, made.length, 9).tolist()})
    pieces = [made.read(a, b) for a, b in pairwise(cuts)]
    assert np.concatenate(pieces, axis=1).tobytes() == whole.tobytes()
