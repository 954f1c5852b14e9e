"""Nguyen 2023's experiment: a VAE and AVA1 to AVA5 on ten images, at nineteen learning rates, scored by eq 17.

The paper's ten images of 180x250, which its networks zoom out three times, are not published; here they are crops of
the two photographs in scikit-learn, reduced to a third, or images of one's own.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from zipfile import BadZipFile

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from savae_dist.data import pack
from savae_dist.data.index.tables import INDEX
from savae_dist.errors import ConfigError, DivergedError
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.sweeps import results, running
from savae_dist.sweeps.results import Row
from savae_dist.sweeps.trials import Trial, combine

MEMBERS = ("vae", "ava1", "ava2", "ava3", "ava4", "ava5")
RATES = (*(f"{n / 10:g}" for n in range(10, 0, -1)), *(f"{n / 100:g}" for n in range(9, 0, -1)))
PUBLISHED = {"vae": 0.2454, "ava1": 0.1787, "ava2": 0.1786, "ava3": 0.1783, "ava4": 0.1783, "ava5": 0.1783}  # table 3
DRAWN = 100
HEIGHT, WIDTH, ZOOM = 180, 250, 3
CORNERS = ((0, 0), (0, 390), (247, 0), (247, 390), (123, 195))  # top-left corners of five crops of a 427x640 photograph
COLUMNS = {"eq_17": "Eq 17 of the best of 100 samples", "rmse": "RMSE of the reconstructions"}


def photographs() -> np.ndarray:
    """uint8 `[10, 60, 83, 3]`."""
    crops = [
        whole[top : top + HEIGHT, left : left + WIDTH] for whole in load_sample_images().images for top, left in CORNERS
    ]
    size = (WIDTH // ZOOM, HEIGHT // ZOOM)
    return np.stack([cv2.resize(crop, size, interpolation=cv2.INTER_AREA) for crop in crops])


def equation_17(image: np.ndarray, images: np.ndarray) -> float:
    """1/N sum_i 1/n_i sum_j 1/2 ||image[j] - images_i[j]||, the norm of a pixel's colours.

    image `[height, width(, 3)]` and images `[N, height, width(, 3)]` in [0, 1].
    """
    difference = (image - images).reshape(len(images), image.shape[0] * image.shape[1], -1)
    return float(0.5 * np.linalg.norm(difference, axis=2).mean())


def score(pipeline: Pipeline, images: np.ndarray) -> Row:
    """The two figures of a trained model; images uint8."""
    true, drawn = images / 255, pipeline.generate(DRAWN, seed=0) / 255
    rmse = np.sqrt(np.square(pipeline.reconstruct(images) / 255 - true).mean())
    return {"eq_17": min(equation_17(image, true) for image in drawn), "rmse": float(rmse)}


def read(path: Path) -> np.ndarray:
    """uint8 `[n, height, width]` or `[n, height, width, 3]`; ConfigError in one line."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            x = np.asarray(arrays["x"])
    except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile) as error:
        raise ConfigError(f"{path} is no .npz with an array x: {' '.join(str(error).split())}") from error
    x = x[..., 0] if x.ndim == 4 and x.shape[3] == 1 else x
    if x.dtype != np.uint8 or not (x.ndim == 3 or (x.ndim == 4 and x.shape[3] == 3)) or len(x) < 2:
        raise ConfigError(
            f"{path}: x must be uint8 [n, height, width] or [n, height, width, 3], not {x.dtype} {x.shape}"
        )
    return x


def packed(images: np.ndarray, out: Path) -> Path:
    """The shards of these images, in a folder of their own, so that no run of others is taken for theirs."""
    shards = out.absolute() / f"images-{hashlib.sha256(images.tobytes()).hexdigest()[:8]}"
    if not (shards / INDEX).is_file():
        pack(images, np.full(len(images), -1), shards)
    return shards


def cells(out: Path, members: Sequence[str], shards: Path, changes: Sequence[str]) -> list[Trial]:
    """A trial per member and learning rate."""
    axes = [f"optimizers.default.lr={','.join(RATES)}", f"data.train={shards}", f"data.validation={shards}", *changes]
    found = []
    for member in members:
        preset = "vae_ten_images" if member == "vae" else "ava_ten_images"
        found += combine(preset, out.absolute() / member, [f"system.name={member}", *axes])
    if len(found) != len(members) * len(RATES):
        raise ConfigError("one value for each key: a cell is one run, and the learning rates are the paper's")
    return found


def cell(trial: Trial, images: np.ndarray) -> Row:
    """One run, from wherever it stands to its figures."""
    running.run(trial)
    known = results.row(trial)
    row: Row = {
        "system": trial.resolved.system.name,
        "learning_rate": trial.varied["optimizers.default.lr"],
        "outcome": known["outcome"],
        "exit_code": trial.exit_code,
        **(score(Pipeline.from_pretrained(trial.folder), images) if trial.exit_code == 0 else {}),
    }
    log = "" if trial.exit_code is not None else f"; see {running.log_of(trial)}"
    print(f"{row['system']} at {row['learning_rate']}: {row['outcome']}{log}", file=sys.stderr)
    return row


def table(rows: Sequence[Row], members: Sequence[str], column: str) -> list[str]:
    """Markdown: a line per learning rate, then mean, least and deviation of the cells that did not diverge."""
    by_cell = {(row["system"], row["learning_rate"]): row for row in rows}

    def shown(row: Row) -> str:
        if column in row:
            return f"{row[column]:.4f}"
        return "diverged" if row["exit_code"] == DivergedError.code else str(row["outcome"])

    lines = [["learning rate", *members], ["---"] * (len(members) + 1)]
    lines += [[rate, *(shown(by_cell[member, rate]) for member in members)] for rate in RATES]
    summaries: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.mean,
        "minimum": min,
        "deviation": statistics.stdev,
    }
    for name, function in summaries.items():
        known = [[row[column] for row in rows if row["system"] == member and column in row] for member in members]
        lines.append([name, *(f"{function(values):.4f}" if len(values) > 1 else "-" for values in known)])
    if column == "eq_17":
        lines.append(["published mean", *(f"{PUBLISHED[member]:.4f}" for member in members)])
    return [f"| {' | '.join(line)} |" for line in lines]


def report(rows: Sequence[Row], images: np.ndarray, members: Sequence[str]) -> list[str]:
    """Markdown: the score of the mean image, which has no model at all, and a table per column."""
    lines = [f"Eq 17 of the mean image: {equation_17(images.mean(0) / 255, images / 255):.4f}"]
    for column, title in COLUMNS.items():
        lines += ["", title, "", *table(rows, members, column)]
    return lines
