"""Nguyen 2023's experiment: a VAE and AVA1 to AVA5 on ten images, at nineteen learning rates, scored by eq 17.

    python tools/ava_experiment.py OUT [--images FILE.npz] [--jobs N] [key=value ...]

The paper's ten images of 180x250 are not published; here they are crops of the two photographs in scikit-learn, zoomed
out three times as in the paper, or the `x` of an .npz. Every cell is a run of the preset `ava_ten_images` or
`vae_ten_images`, with the changes given as key=value, in a folder of OUT; what is finished is not run again, and a run
that diverges is a result.

Eq 17 is no error of reconstruction: it compares one image, the best of 100 drawn from the prior (the paper does not say
by which rule; here by this score), with all ten. So it is printed beside the score of the mean image, which has no
model at all, and beside the root mean square error of the ten reconstructions. OUT/results.csv has every cell.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from sklearn.datasets import load_sample_images

from savae_dist.data import pack
from savae_dist.data.index import INDEX
from savae_dist.errors import ConfigError, DivergedError, UserError
from savae_dist.pipeline import Pipeline

if __package__:
    from . import sweep
else:
    import sweep  # type: ignore[no-redef]

MEMBERS = ("vae", "ava1", "ava2", "ava3", "ava4", "ava5")
RATES = (*(f"{n / 10:g}" for n in range(10, 0, -1)), *(f"{n / 100:g}" for n in range(9, 0, -1)))
PUBLISHED = {"vae": 0.2454, "ava1": 0.1787, "ava2": 0.1786, "ava3": 0.1783, "ava4": 0.1783, "ava5": 0.1783}  # table 3
DRAWN = 100
HEIGHT, WIDTH, ZOOM = 180, 250, 3
CORNERS = ((0, 0), (0, 390), (247, 0), (247, 390), (123, 195))  # of the crops in 427x640: the four and the middle
COLUMNS = {"eq_17": "Eq 17 of the best of 100 samples", "rmse": "RMSE of the ten reconstructions"}


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


def score(pipeline: Pipeline, images: np.ndarray) -> sweep.Row:
    """The two figures of a trained model; images uint8."""
    true, drawn = images / 255, pipeline.generate(DRAWN, seed=0) / 255
    rmse = np.sqrt(np.square(pipeline.reconstruct(images) / 255 - true).mean())
    return {"eq_17": min(equation_17(image, true) for image in drawn), "rmse": float(rmse)}


def cells(out: Path, shards: Path, changes: Sequence[str]) -> list[sweep.Trial]:
    """A trial per member and learning rate."""
    axes = [f"optimizers.default.lr={','.join(RATES)}", f"data.train={shards}", f"data.validation={shards}", *changes]
    found = []
    for member in MEMBERS:
        preset = "vae_ten_images" if member == "vae" else "ava_ten_images"
        found += sweep.trials(preset, out / member, [f"system.name={member}", *axes])
    return found


def cell(trial: sweep.Trial, images: np.ndarray) -> sweep.Row:
    """One run, from wherever it stands to its figures."""
    sweep.run(trial, None)
    known = sweep.row(trial)
    row = {
        "system": trial.resolved.system.name,
        "learning_rate": trial.varied["optimizers.default.lr"],
        **{key: known[key] for key in ("outcome", "exit_code")},
        **(score(Pipeline.from_pretrained(trial.folder), images) if trial.exit_code == 0 else {}),
    }
    print(f"{row['system']} at {row['learning_rate']}: {row['outcome']}", file=sys.stderr)
    return row


def table(rows: Sequence[sweep.Row], column: str) -> list[str]:
    """Markdown: a line per learning rate, then mean, least and deviation of the cells that did not diverge."""
    by_cell = {(row["system"], row["learning_rate"]): row for row in rows}

    def shown(row: sweep.Row) -> str:
        if column in row:
            return f"{row[column]:.4f}"
        return "diverged" if row["exit_code"] == DivergedError.code else str(row["outcome"])

    lines = [["learning rate", *MEMBERS], ["---"] * (len(MEMBERS) + 1)]
    lines += [[rate, *(shown(by_cell[member, rate]) for member in MEMBERS)] for rate in RATES]
    summaries: dict[str, Callable[[list[float]], float]] = {
        "mean": statistics.mean,
        "minimum": min,
        "deviation": statistics.stdev,
    }
    for name, function in summaries.items():
        known = [[row[column] for row in rows if row["system"] == member and column in row] for member in MEMBERS]
        lines.append([name, *(f"{function(values):.4f}" if len(values) > 1 else "-" for values in known)])
    if column == "eq_17":
        lines.append(["published mean", *(f"{PUBLISHED[member]:.4f}" for member in MEMBERS)])
    return [f"| {' | '.join(line)} |" for line in lines]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Nguyen 2023's experiment: AVA1 to AVA5 and a VAE on ten images.")
    parser.add_argument("out", type=Path, help="folder of the runs, of results.csv and table.md")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of the two presets")
    parser.add_argument("--images", type=Path, help=".npz with x, uint8 [n, height, width(, 3)], instead of crops")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    options = parser.parse_intermixed_args(argv)
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // options.jobs)))
    try:
        images = np.load(options.images)["x"] if options.images else photographs()
        if images.dtype != np.uint8 or images.ndim not in (3, 4):
            raise ConfigError(f"{options.images}: x must be uint8 [n, height, width(, 3)], not {images.shape}")
        shards = options.out / "shards"
        if not (shards / INDEX).is_file():
            pack(images, np.full(len(images), -1), shards)
        trials = cells(options.out, shards, options.changes)
        with ThreadPoolExecutor(options.jobs) as pool:
            rows = list(pool.map(lambda trial: cell(trial, images), trials))
    except (UserError, OSError, KeyError) as error:
        print(f"ava_experiment: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else 1
    sweep.write_csv(rows, options.out / "results.csv")
    mean = equation_17(images.mean(0) / 255, images / 255)
    lines = [f"Eq 17 of the mean image: {mean:.4f}"]
    for column, title in COLUMNS.items():
        lines += ["", title, "", *table(rows, column)]
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0 if all(row["exit_code"] is not None for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
