"""One picture of a set of shards: a sheet of samples of every class, or a curve and a spectrum of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from savae_dist.data.index.pictures import Wanted, odd_sizes, with_pictures
from savae_dist.data.index.shards import Shards
from savae_dist.data.order.hold_out import sequential
from savae_dist.data.order.order import Request
from savae_dist.data.packing.splits import SPLITS
from savae_dist.data.reading.reader import Reader
from savae_dist.errors import printable

ROWS = {"image": 20, "signal": 10}  # classes that are shown
EACH = {"image": 10, "signal": 1}  # samples of each
CHANNELS = 6  # at most so many of a signal are drawn, one above the other
SMALLEST, LARGEST = 64, 160  # pixels of the longer side of an image in the sheet
LETTERS = 24  # longer class names are cut off
DPI = 100
QUIETEST = 1e-12  # power below which nothing is drawn

Rows = list[tuple[str, list[np.ndarray]]]  # for each class its name, and some samples as they are stored


def draw_preview(shards: Shards, path: Path, channels: Sequence[str] = ()) -> None:
    """Write the picture as PNG. channels: their names."""
    rows = _rows(shards)
    figure = _sheet(rows) if shards.spec.kind == "image" else _curves(rows, shards.spec.rate, channels)
    shown = f" ({len(rows)} classes are shown)" if len(rows) < len(shards.label_counts) else ""
    figure.suptitle(_cut(f"{title(shards)}: ", 80) + f"{shards.describe()}{shown}", fontsize=10)
    FigureCanvasAgg(figure).print_figure(path, dpi=DPI)


def title(shards: Shards) -> str:
    """What a set is called: by its folder, and that above it where it is one of several."""
    home = shards.home
    return printable(f"{home.parent.name}, {home.name}" if home.name in SPLITS else home.name)


def class_name(shards: Shards, label: int) -> str:
    names = shards.spec.class_names
    return "unlabelled" if label < 0 else printable(names[label]) if label < len(names) else str(label)


def _rows(shards: Shards) -> Rows:
    """The first samples of each class, of which at most `ROWS` are taken, evenly over their numbers."""
    kind = shards.spec.kind
    known = sorted(shards.label_counts, key=lambda label: (label < 0, label))
    places = np.linspace(0, len(known) - 1, min(ROWS[kind], len(known))).round().astype(int)
    wanted = [known[place] for place in places]
    found: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    if kind == "image" and odd_sizes(shards):
        shards = with_pictures(shards, Wanted((LARGEST, LARGEST), "pad", "rgb"))
    reader = Reader(shards, sequential(shards), shards.size)
    for shard in range(len(shards.counts)):
        labels = shards.labels_of(shard)
        for label in wanted:
            for row in np.flatnonzero(labels == label).tolist():
                if len(found[label]) == EACH[kind]:
                    break
                raw = reader[Request(int(shards.starts[shard]) + row, 1, range(1))]
                found[label] += [x.numpy() for x in raw.x]  # none where it cannot be decoded
    return [(class_name(shards, label), found[label]) for label in wanted if found[label]]


def _sheet(rows: Rows) -> Figure:
    """A row of images for each class, all of one height."""
    side = min(max(max(one.shape[:2]) for _, images in rows for one in images), LARGEST)
    cell = max(side, SMALLEST)
    strips = [np.concatenate([_celled(one, cell) for one in images], axis=1) for _, images in rows]
    width = max(strip.shape[1] for strip in strips)
    sheet = np.concatenate(
        [np.pad(one, ((0, 0), (0, width - one.shape[1]), (0, 0)), constant_values=255) for one in strips]
    )
    figure = Figure(figsize=(sheet.shape[1] / DPI + 2, sheet.shape[0] / DPI + 0.5), layout="constrained")
    axes = figure.subplots()
    axes.imshow(sheet, interpolation="nearest", aspect="equal")
    middles = [sheet.shape[0] / len(rows) * (number + 0.5) - 0.5 for number in range(len(rows))]
    axes.set_yticks(middles, [_cut(name) for name, _ in rows], fontsize=9)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def _celled(image: np.ndarray, cell: int) -> np.ndarray:
    """An image [h, w(, c)] as RGB in the middle of a white square: enlarged by whole factors, or each n-th pixel."""
    x = image[..., None] if image.ndim == 2 else image
    x = np.repeat(x[..., :1], 3, axis=2) if x.shape[2] < 3 else x[..., :3]
    longest = max(x.shape[:2])
    step, factor = -(-longest // cell), max(1, cell // longest)
    x = x[::step, ::step].repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = ((cell - size) // 2 for size in x.shape[:2])
    framed = np.full((cell + 4, cell + 4, 3), 255, np.uint8)
    framed[2 + height : 2 + height + x.shape[0], 2 + width : 2 + width + x.shape[1]] = x
    return framed


def _curves(rows: Rows, rate: float, channels: Sequence[str]) -> Figure:
    """A curve and a spectrum for each class, in the unit of the recording; all channels over one another."""
    figure = Figure(figsize=(10, 1.5 * len(rows) + 1.2), layout="constrained")
    grid = figure.subplots(len(rows), 2, squeeze=False, sharex="col")
    for (name, samples), (curve, spectrum) in zip(rows, grid, strict=True):
        x = np.atleast_2d(samples[0])[:CHANNELS]
        frequencies, levels = _spectra(x, rate)
        for number, channel in enumerate(x):
            told = printable(channels[number]) if number < len(channels) else f"channel {number + 1}"
            curve.plot(np.arange(len(channel)) / (rate or 1), channel, linewidth=0.7, label=_cut(told))
            spectrum.plot(frequencies, levels[number], linewidth=0.7)
        curve.set_ylabel(_cut(name), fontsize=9)
        spectrum.set_ylabel("dB", fontsize=9)
        for axes in (curve, spectrum):
            axes.tick_params(labelsize=8)
            axes.margins(x=0)
    _named(grid[-1][0], f"time in {'s' if rate else 'samples'}")
    _named(grid[-1][1], f"frequency in {'Hz' if rate else 'cycles per sample'}")
    if len(x) > 1 or channels:
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=6, fontsize=8)
    return figure


def _spectra(x: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies, and the power of x [channels, length] at them in dB below the highest of all channels.

    Through a Hann window, and without the mean.
    """
    power = np.abs(np.fft.rfft((x - x.mean(axis=1, keepdims=True)) * np.hanning(x.shape[1]))) ** 2
    power = np.maximum(power / max(float(power.max()), QUIETEST), QUIETEST)
    return np.fft.rfftfreq(x.shape[1], 1 / (rate or 1)), 10 * np.log10(power)


def _named(axes: Axes, label: str) -> None:
    axes.set_xlabel(label, fontsize=9)


def _cut(name: str, letters: int = LETTERS) -> str:
    """Short, and with no sign by which matplotlib would begin a formula."""
    name = name if len(name) <= letters else f"{name[: letters - 1]}…"
    return name.replace("$", r"\$")
