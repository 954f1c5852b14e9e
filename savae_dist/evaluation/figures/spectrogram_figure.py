"""Signals over time and frequency, and the spectra of their envelopes, every channel, beside the reconstructions."""

from __future__ import annotations

import numpy as np
import scipy.signal
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.evaluation.figures.figures import choose, class_name, suffix
from savae_dist.evaluation.figures.signal_rows import OURS, REAL
from savae_dist.preprocess import DataSpec
from savae_dist.spectra import FLOOR, envelope_spectrum

SHOWN = 4  # samples
MOST_ROWS = 12  # samples times channels
SEGMENT = 64  # samples in a segment of the spectrogram; segments overlap by three quarters
RANGE = 60.0  # dB from the strongest that colours show


def spectrograms(x: Tensor, x_hat: Tensor, y: Tensor, spec: DataSpec, of: str = "") -> Figure:
    """A row for each channel of some samples: spectrogram of it and of its reconstruction, and both envelopes' spectra.

    x, x_hat: normalised windows `[n, channels, length]`; y: labels `[n]`.
    """
    channels = spec.shape[0]
    rows = choose(y, max(1, min(SHOWN, MOST_ROWS // channels)))
    figure = Figure(figsize=(12, 1.9 * len(rows) * channels + 1.2), layout="constrained")
    figure.suptitle(f"Spectrograms and envelope spectra of samples and reconstructions{suffix(of)}", fontsize=11)
    grid = figure.subplots(len(rows) * channels, 3, squeeze=False, sharex="col", width_ratios=(1, 1, 1.2))
    pairs = [(row, channel) for row in rows.tolist() for channel in range(channels)]
    for axes, (row, channel) in zip(grid, pairs, strict=True):
        both = [one[row, channel].detach().double().cpu().numpy() for one in (x, x_hat)]
        power = [10 * np.log10(np.maximum(_spectrogram(one), FLOOR)) for one in both]
        top = max(one.max() for one in power)
        extent = _extent(spec)
        for place, one in zip(axes, power, strict=False):
            shown = place.imshow(
                one, origin="lower", aspect="auto", extent=extent, cmap="cividis", vmin=top - RANGE, vmax=top
            )
        figure.colorbar(shown, ax=axes[1], label="dB")
        for signal, colour, name in zip(both, (REAL, OURS), ("original", "reconstruction"), strict=True):
            spectrum = envelope_spectrum(signal[None, None])[0, 0]
            frequency = np.arange(1, len(spectrum) + 1) * (spec.rate or 1.0) / len(signal)
            axes[2].plot(frequency, spectrum, color=colour, linewidth=0.8, alpha=0.85, label=name)
        name = class_name(int(y[row]), spec) + (f", channel {channel + 1}" if channels > 1 else "")
        axes[0].set_ylabel(f"{name}\nfrequency [{'kHz' if spec.rate else '1/sample'}]", fontsize=9)
        axes[2].margins(x=0)
        axes[2].grid(alpha=0.25, linewidth=0.5)
        for place in axes:
            place.tick_params(labelsize=8)
    for axes, title in zip(grid[0], ("original", "reconstruction", "envelope's spectrum"), strict=True):
        axes.set_title(title, fontsize=9)
    for axes in grid[-1, :2]:
        axes.set_xlabel("time [ms]" if spec.rate else "time [samples]", fontsize=9)
    grid[-1, 2].set_xlabel("frequency [Hz]" if spec.rate else "frequency [1/sample]", fontsize=9)
    figure.legend(*grid[0, 2].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _spectrogram(signal: np.ndarray) -> np.ndarray:
    """Power density `[frequencies, times]` of a signal `[length]` by Hann windows."""
    segment = min(SEGMENT, len(signal))
    _, _, power = scipy.signal.spectrogram(signal, window="hann", nperseg=segment, noverlap=3 * segment // 4)
    found: np.ndarray = power
    return found


def _extent(spec: DataSpec) -> tuple[float, float, float, float]:
    """The edges of a spectrogram in ms and kHz, or in samples and 1/sample."""
    length = spec.shape[-1]
    return (0, 1000 * length / spec.rate, 0, spec.rate / 2000) if spec.rate else (0, length, 0, 0.5)
