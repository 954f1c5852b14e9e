"""Figures of a pipeline.

Each function returns a matplotlib Figure of its own; pyplot, which keeps a global list of figures, is not used. x and
x_hat are normalised samples and their reconstructions `[n, *shape]`, y is int64 `[n]` with -1 for unlabelled; `of`
says in the title what samples these are, where a reader would take them for others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import scipy.stats
import torch
from einops import rearrange
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from torch import Tensor

from savae_dist.colours import COLOURS
from savae_dist.evaluation.figures.signal_rows import signal_rows, small_curves
from savae_dist.pipeline.class_names import name_of
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

MARKERS = "osD^vPX<>p*h"  # the next one after every ten classes, when the colours begin again
UNLABELLED = "#b0b0b0"
COLUMNS = 10  # images in a row
REPRODUCED = {"image": 3 * COLUMNS, "signal": 10}  # samples beside their reconstructions
MAX_ROWS = 20  # rows that are labelled with names
MAX_POINTS = 5000  # in the scatter of the latent space
GRID = {"image": 20, "signal": 10}  # decoded points along each side of the latent grid
LABELS_IN_LEGEND = 20  # with more classes their numbers are written into the scatter instead


def save(figure: Figure, path: str | Path, dpi: int = 120) -> Path:
    """Write a figure as its name ends, `.png` or `.svg`, in a folder that is made if it is not there.

    The folders above it must be there: a run's folder that was removed meanwhile is not made again.
    """
    path = Path(path)
    path.parent.mkdir(exist_ok=True)
    metadata = {"Date": None} if path.suffix == ".svg" else None  # so that equal figures are equal files
    with rc_context({"svg.hashsalt": path.stem}):
        FigureCanvasAgg(figure).print_figure(path, dpi=dpi, metadata=metadata)
    return path


def add_to_title(figure: Figure, more: str) -> None:
    """A line below the title: of the figure, or of its first axes where it has none of its own."""
    if above := figure.get_suptitle():
        figure.suptitle(f"{above}\n{more}", fontsize=11)
    else:
        figure.axes[0].set_title(f"{figure.axes[0].get_title()}\n{more}")


def class_name(label: int, spec: DataSpec) -> str:
    """The name of a class, its number if it has none, cut to 14 characters."""
    if label < 0:
        return "no label"
    name = name_of(label, spec.class_names)
    return name if len(name) <= 14 else name[:13] + "…"


def spread(items: Sequence[int], count: int) -> list[int]:
    """At most `count` of the items, evenly spaced."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def choose(y: Tensor, count: int) -> Tensor:
    """Indices of at most `count` samples, sorted by class: as many classes as possible, then more of each."""
    rows_of: dict[int, list[int]] = {}
    for row, label in enumerate(y.tolist()):
        rows_of.setdefault(label, []).append(row)
    labels = spread(sorted(rows_of), count)
    turns = [(turn, label, row) for label in labels for turn, row in enumerate(rows_of[label])]
    chosen = sorted(turns)[:count]
    return torch.tensor([row for _, _, row in sorted(chosen, key=lambda c: (c[1], c[0]))], dtype=torch.int64)


def mosaic(x: Tensor, columns: int, pad: int = 1) -> np.ndarray:
    """Images `[n, channels, height, width]` in [0, 1], row by row, as one RGB picture `[height, width, 3]` on white."""
    n, rows = len(x), -(-len(x) // columns)
    x = x.detach().float().cpu().clamp(0, 1)
    x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x[:, :3]
    x = torch.nn.functional.pad(x, (pad, pad, pad, pad), value=1.0)
    x = torch.cat([x, x.new_ones(rows * columns - n, *x.shape[1:])])
    return rearrange(x.numpy(), "(r k) c h w -> (r h) (k w) c", k=columns)


def reconstructions(x: Tensor, x_hat: Tensor, y: Tensor, spec: DataSpec, of: str = "") -> Figure:
    """Samples and their reconstructions: images one above the other; signals as overlaid curves and spectra."""
    if spec.kind == "signal":
        names = [class_name(label, spec) for label in y.tolist()]
        title = f"Originals and their reconstructions (decoded posterior means){suffix(of)}"
        return signal_rows([[a, b] for a, b in zip(x, x_hat, strict=True)], names, title, spec)
    bands = -(-len(x) // COLUMNS)
    height, width = 1 + 2 * spec.shape[1] / spec.shape[2], min(len(x), COLUMNS)
    figure = Figure(
        figsize=(0.95 * width + 0.6, 0.95 * (height - 1) * bands + 0.35 * bands + 0.5), layout="constrained"
    )
    title = f"Originals above, their reconstructions (decoded posterior means) below{suffix(of)}"
    figure.suptitle(title, fontsize=11)
    for axes, start in zip(np.atleast_1d(figure.subplots(bands, 1)), range(0, len(x), COLUMNS), strict=True):
        part = slice(start, start + COLUMNS)
        axes.imshow(np.concatenate([mosaic(x[part], width), mosaic(x_hat[part], width)]), interpolation="nearest")
        cell = spec.shape[2] + 2
        names = [class_name(label, spec) for label in y[part].tolist()]
        axes.set_xticks([cell * (k + 0.5) - 0.5 for k in range(len(names))], names, fontsize=8)
        axes.xaxis.tick_top()
        axes.set_yticks([(spec.shape[1] + 2) * (k + 0.5) - 0.5 for k in (0, 1)], ["original", "reconstr."], fontsize=8)
        bare(axes)
    return figure


def samples(pipeline: Pipeline, seed: int = 0) -> Figure:
    """Decoded draws of what the pipeline's codes are usually drawn from."""
    normal = " N(0, I)" * (pipeline.prior is None)
    drawn = {"mixture": "a mixture of Gaussians fitted to the training set's codes", "prior": f"the prior{normal}"}
    spec, title = pipeline.spec, f"Samples from {drawn[pipeline.codes.usual(None)]}"
    if spec.kind == "signal":
        x = pipeline.decoded(pipeline.latents(8, seed=seed))
        return signal_rows([[window] for window in x], [f"sample {n + 1}" for n in range(len(x))], title, spec)
    return image_rows(pipeline.decoded(pipeline.latents(8 * COLUMNS, seed=seed)), [], title, spec)


def samples_of_each(pipelines: Mapping[str, Pipeline], seed: int = 0) -> Figure:
    """Decoded draws of each pipeline's usual sampler, a named row per pipeline; all make the same kind of sample."""
    spec = next(iter(pipelines.values())).spec
    each = COLUMNS if spec.kind == "image" else 1
    x = torch.cat([pipeline.decoded(pipeline.latents(each, seed=seed)).cpu() for pipeline in pipelines.values()])
    if spec.kind == "signal":
        return signal_rows([[window] for window in x], list(pipelines), "Samples", spec)
    return image_rows(x, list(pipelines), "Samples", spec)


def samples_by_class(pipeline: Pipeline, seed: int = 0) -> Figure:
    """Decoded draws of each class, a row per class.

    All classes use the same seed, so where the prior draws a label part, a column shows one style in every class.
    """
    spec, known = pipeline.spec, pipeline.labels
    labels = spread(known, MAX_ROWS if spec.kind == "image" else REPRODUCED["signal"])
    some = f" ({len(labels)} of {len(known)} classes)" if len(labels) < len(known) else ""
    title, names = f"Generated by class{some}", [class_name(label, spec) for label in labels]
    each = COLUMNS if spec.kind == "image" else 1
    x = pipeline.decoded(torch.cat([pipeline.latents(each, label, seed) for label in labels]))
    if spec.kind == "signal":
        return signal_rows([[window] for window in x], names, title, spec)
    return image_rows(x, names, title, spec)


def latent_space(z: Tensor, y: Tensor, spec: DataSpec, of: str = "") -> Figure:
    """Codes `[n, K]` coloured by class: as they are for K = 2, else their two principal components."""
    codes, label_of = z.detach().float().cpu().numpy()[:MAX_POINTS], y.cpu().numpy()[:MAX_POINTS]
    places, title, names = _plane(codes)
    title += suffix(of)
    figure = Figure(figsize=(8.4, 6.4), layout="constrained")
    axes = figure.subplots()
    labels = [int(label) for label in np.unique(label_of)]
    few = len(labels) <= LABELS_IN_LEGEND
    size = 9 if len(codes) > 1000 else 16
    for label in labels:
        colour = UNLABELLED if label < 0 else COLOURS[label % len(COLOURS)]
        marker = "o" if label < 0 else MARKERS[label // len(COLOURS) % len(MARKERS)]
        first, second = places[label_of == label].T
        name = class_name(label, spec)
        axes.scatter(first, second, s=size, color=colour, marker=marker, label=name, alpha=0.7, linewidths=0)
    halo = [withStroke(linewidth=2.5, foreground="white")]
    for label in (label for label in labels if label >= 0):  # colours repeat every ten classes, so names are written
        place = np.median(places[label_of == label], axis=0)
        text, points = (class_name(label, spec), 10) if few else (str(label), 7)
        axes.annotate(text, place, ha="center", va="center", fontsize=points, weight="bold", path_effects=halo)
    axes.set(title=title if few else f"{title}; numbers: classes", xlabel=names[0], ylabel=names[1])
    axes.grid(alpha=0.25, linewidth=0.5)
    if few and labels != [-1]:
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), markerscale=2, frameon=False, fontsize=9)
    return figure


def latent_grid(pipeline: Pipeline, codes: Tensor | None = None, of: str = "") -> Figure:
    """Decoded points of a 2-D latent space, at the quantiles of a Gaussian (Zemouri 2020, figure 8).

    The Gaussian has the mean and deviation of the codes `[n, 2]`; without codes it is the prior N(0, I). Codes are
    preferred, since under a weak KL term most of them lie far outside the prior.
    """
    spec, count = pipeline.spec, GRID[pipeline.spec.kind]
    quantiles = scipy.stats.norm.ppf((np.arange(count) + 0.5) / count)
    mean, std, name = np.zeros(2), np.ones(2), "the prior N(0, I)"
    if codes is not None:
        mean, std = codes.double().mean(0).cpu().numpy(), codes.double().std(0, correction=0).cpu().numpy()
        name = f"a Gaussian fitted to the codes{suffix(of)}"
    first, second = (mean[k] + std[k] * quantiles for k in (0, 1))
    places = np.stack([np.tile(first, count), np.repeat(second[::-1], count)], 1)  # the highest z2 is the top row
    x = pipeline.decoded(torch.as_tensor(places, dtype=torch.float32))
    figure = Figure(figsize=(8.4, 8.6), layout="constrained")
    axes = figure.subplots()
    axes.set(title=f"Decoded latent plane: {count} x {count} quantiles of {name}", xlabel="z1", ylabel="z2")
    if spec.kind == "image":
        picture = mosaic(x, count)
        axes.imshow(
            picture, extent=(0, count, 0, count), aspect=picture.shape[0] / picture.shape[1], interpolation="nearest"
        )
    else:
        small_curves(axes, x[:, 0].cpu().numpy(), count)
    shown = np.arange(count)[:: max(1, count // 10)]
    axes.set_xticks(shown + 0.5, [f"{first[k]:.2f}" for k in shown], fontsize=8)
    axes.set_yticks(shown + 0.5, [f"{second[k]:.2f}" for k in shown], fontsize=8)
    return figure


def _plane(codes: np.ndarray) -> tuple[np.ndarray, str, tuple[str, str]]:
    """Where codes `[n, K]` are drawn, `[n, 2]`, with a title and the names of the axes."""
    latent_dim = codes.shape[1]
    if latent_dim == 2:
        return codes, "Latent space (posterior means)", ("z1", "z2")
    if min(codes.shape) < 2:  # K = 1, or one code: two principal components do not exist
        return np.stack([codes[:, 0], np.zeros(len(codes))], 1), "Latent space (posterior means)", ("z1", "")
    pca = PCA(2, random_state=0)
    places = pca.fit_transform(codes)
    shares = [
        f"component {k + 1} ({100 * share:.0f} % of the variance)"
        for k, share in enumerate(pca.explained_variance_ratio_)
    ]
    return (
        places,
        f"Latent space, K = {latent_dim}: principal components (PCA) of the posterior means",
        (shares[0], shares[1]),
    )


def suffix(samples: str) -> str:
    """The end of a title that says which samples these are."""
    return f": {samples}" if samples else ""


def bare(axes: Axes) -> None:
    """Take away the frame and the tick marks."""
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def image_rows(x: Tensor, names: list[str], title: str, spec: DataSpec) -> Figure:
    """Rows of `COLUMNS` images, named at the left."""
    rows, longest = -(-len(x) // COLUMNS), max(map(len, names), default=0)
    ratio = spec.shape[1] / spec.shape[2]
    figure = Figure(figsize=(0.7 * COLUMNS + 0.7 + 0.085 * longest, 0.7 * ratio * rows + 0.5), layout="constrained")
    figure.suptitle(title, fontsize=11)
    axes = figure.subplots()
    axes.imshow(mosaic(x, COLUMNS), interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([(spec.shape[1] + 2) * (k + 0.5) - 0.5 for k in range(len(names))], names, fontsize=9)
    bare(axes)
    return figure
