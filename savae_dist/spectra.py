"""Spectra of signal windows: power density, the envelope's spectrum, distances, and what the baselines look at.

Spectra, since two signals of the same class differ in phase, so that their waveforms may differ everywhere.
"""

from __future__ import annotations

import numpy as np
import scipy.signal

SEGMENT = 256  # samples in a segment of Welch's method; segments overlap by half
FLOOR = 1e-10  # least power before the logarithm is taken; white noise of variance 1 has a power density of 2
SILENT = 1e-6  # norm of a spectrum below which no relative distance is taken: it would be a division by almost zero


def log_spectrum(x: np.ndarray, segment: int = SEGMENT) -> np.ndarray:
    """Power spectral density in dB `[n, channels, frequencies]` of windows `[n, channels, length]`, without DC.

    Welch's method (1967) with Hann windows that overlap by half: averaging over segments lessens the noise.
    """
    if not len(x):  # for no windows at all scipy returns an empty array of another shape
        return np.empty((0, x.shape[1], min(segment, x.shape[-1]) // 2))
    _, power = scipy.signal.welch(x, nperseg=min(segment, x.shape[-1]), axis=-1)
    decibels: np.ndarray = 10 * np.log10(np.maximum(power[..., 1:], FLOOR))
    return decibels


def envelope(x: np.ndarray) -> np.ndarray:
    """The Hilbert envelope of windows `[n, channels, length]`."""
    size: np.ndarray = np.abs(scipy.signal.hilbert(x, axis=-1))
    return size


def envelope_spectrum(x: np.ndarray) -> np.ndarray:
    """Amplitude spectrum of the Hilbert envelope, without DC; bearing faults show there (Randall and Antoni 2011).

    x: windows `[n, channels, length]`. Returns amplitudes `[n, channels, length // 2]` in the unit of x.
    """
    amplitude: np.ndarray = np.abs(np.fft.rfft(envelope(x), axis=-1))[..., 1:] * (2 / x.shape[-1])
    return amplitude


def log_spectral_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """RMS difference in dB `[n]` of log spectra `[n, channels, frequencies]` (Gray and Markel 1976)."""
    distance: np.ndarray = np.sqrt(np.square(a - b).mean((1, 2)))
    return distance


def audible(a: np.ndarray) -> np.ndarray:
    """Which amplitude spectra `[n, channels, frequencies]` have a norm that can be divided by, bool `[n]`."""
    heard: np.ndarray = _norm(a) > SILENT
    return heard


def _norm(a: np.ndarray) -> np.ndarray:
    size: np.ndarray = np.sqrt(np.square(a).sum((1, 2)))
    return size


def relative_distance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """||b - a|| / ||a|| of amplitude spectra `[n, channels, frequencies]`, `[m]` of those that are `audible`."""
    size, error, heard = _norm(a), _norm(b - a), audible(a)
    distance: np.ndarray = error[heard] / size[heard]
    return distance


def features(x: np.ndarray) -> np.ndarray:
    """The log spectra of windows `[n, channels, length]` and of their envelopes, `[n, channels * frequencies]`.

    The envelope's segments are twice as long, since the rates of impacts are low frequencies.
    """
    both = [log_spectrum(x), log_spectrum(envelope(x), 2 * SEGMENT)]
    return np.concatenate(both, axis=-1).reshape(len(x), -1)
