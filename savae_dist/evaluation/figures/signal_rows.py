"""Signals as rows of curves and spectra, and as a grid of small curves."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from savae_dist.colours import COLOURS
from savae_dist.preprocess import DataSpec
from savae_dist.spectra import SEGMENT, log_spectrum

REAL, OURS = "#404040", "#e76300"


def signal_rows(rows: list[list[Tensor]], names: list[str], title: str, spec: DataSpec) -> Figure:
    """A named row per list of windows: curves at the left, spectra at the right, of the first channel.

    A list holds one generated window, or a sample and its reconstruction.
    """
    figure = Figure(figsize=(11, 1.25 * len(rows) + 1.0), layout="constrained")
    channel = f" (channel 1 of {spec.shape[0]})" if spec.shape[0] > 1 else ""
    figure.suptitle(title + channel, fontsize=11)
    grid = figure.subplots(len(rows), 2, sharex="col", squeeze=False, width_ratios=(3, 2))
    rate, unit = (
        (spec.rate / 1000, "kHz") if spec.rate > 2000 else (spec.rate or 1.0, "Hz" if spec.rate else "1/sample")
    )
    styles = ((REAL, 0.7, "original"), (OURS, 0.8, "reconstruction")) if len(rows[0]) == 2 else ((OURS, 0.7, ""),)
    for (left, right), windows, name in zip(grid, rows, names, strict=True):
        for window, (colour, width, label) in zip(windows, styles, strict=True):
            curve = window[:1].detach().double().cpu().numpy()
            spectrum = log_spectrum(curve[None])[0, 0]
            time = np.arange(curve.shape[1]) / (spec.rate / 1000 if spec.rate else 1)
            frequency = np.arange(1, len(spectrum) + 1) * rate / min(SEGMENT, curve.shape[1])
            left.plot(time, curve[0], color=colour, linewidth=width, alpha=0.85, label=label)
            right.plot(frequency, spectrum, color=colour, linewidth=width + 0.3, alpha=0.9)
        left.set_ylabel(name, fontsize=9)
        for axes in (left, right):
            axes.tick_params(labelsize=8)
            axes.margins(x=0)
            axes.grid(alpha=0.25, linewidth=0.5)
    grid[0, 0].set_title("normalised amplitude", fontsize=9)
    grid[0, 1].set_title("power spectral density [dB]", fontsize=9)
    grid[-1, 0].set_xlabel("time [ms]" if spec.rate else "time [samples]", fontsize=9)
    grid[-1, 1].set_xlabel(f"frequency [{unit}]", fontsize=9)
    figure.align_ylabels(grid[:, 0])
    if len(styles) == 2:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def small_curves(axes: Axes, windows: np.ndarray, columns: int) -> None:
    """Draw windows `[rows * columns, length]` as a grid of curves, row by row, all on one scale.

    Each has a cell of side 1 in the rectangle [0, columns] x [0, rows]; the first row is the highest.
    """
    rows = -(-len(windows) // columns)
    limit = max(float(np.abs(windows).max()), 1e-12)
    along = np.linspace(0.06, 0.94, windows.shape[1])
    row, column = np.divmod(np.arange(len(windows))[:, None], columns)
    curves = np.stack([column + along, rows - 1 - row + 0.5 + 0.45 * windows / limit], -1)
    axes.add_collection(LineCollection(list(curves), colors=COLOURS[0], linewidths=0.5))
    axes.set(xlim=(0, columns), ylim=(0, rows), aspect="equal")
    axes.set_xticks(np.arange(columns + 1), minor=True)
    axes.set_yticks(np.arange(rows + 1), minor=True)
    axes.grid(which="minor", alpha=0.3, linewidth=0.5)
    axes.tick_params(which="minor", length=0)
