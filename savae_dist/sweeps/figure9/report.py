"""Figure 9's report: tables, curves and pictures of a grid, as far as it is finished."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from savae_dist.data import Request
from savae_dist.evaluation import report as evaluation
from savae_dist.evaluation.classes.gaming import decision
from savae_dist.evaluation.figures import figures
from savae_dist.evaluation.figures.class_changes import Curve, Panel, class_changes, over_beta
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise
from savae_dist.sweeps.figure9.decision import Decision, decide
from savae_dist.sweeps.figure9.measured import Point
from savae_dist.sweeps.figure9.plan import row_of
from savae_dist.sweeps.trials import Trial

TITLES = {
    "class_flip_rate": "own flips [%]",
    "judge_flip_rate": "judge's flips [%]",
    "sharpness": "sharpness (real images: 1)",
    "reconstruction_mse": "reconstruction MSE",
}
PERCENT = ("class_flip_rate", "judge_flip_rate")
DRAWN = 40  # images of a picture, as in the paper's
IMAGES_SEED = 9


def table(points: Sequence[Point], class_means: float | None) -> list[str]:
    """Markdown: a line per place of the grid; mean, and least to most over the seeds."""
    lines = [["K", "beta", "gamma", "seeds", *TITLES.values()], ["---"] * (4 + len(TITLES))]
    for point in points:
        values = [_cell(point.all(measure), measure) for measure in TITLES]
        lines.append([point.row, point.beta, point.gamma, str(len(point.of_seeds)), *values])
    told = [] if class_means is None else ["", f"The mean image of each class has an MSE of {class_means:.4f}."]
    return [*(f"| {' | '.join(line)} |" for line in lines), *told]


def _cell(values: Sequence[float], measure: str) -> str:
    scale, digits = (100.0, 1) if measure in PERCENT else (1.0, 4 if measure == "reconstruction_mse" else 2)
    mean, least, most = (f"{scale * one:.{digits}f}" for one in (sum(values) / len(values), min(values), max(values)))
    return mean if len(values) == 1 else f"{mean} ({least} to {most})"


def told(row: str, decision: Decision) -> str:
    """The decision of one row of the grid in a sentence per rule."""
    named = {
        "epsilon-1 (sharp from here on)": decision.epsilon_1,
        "epsilon-2 (the class is lost from here on)": decision.epsilon_2,
        "beta* (more than half of the judge's classes change)": decision.beta_star,
    }
    parts = [f"{name}: {beta if beta is not None else 'none of the grid'}" for name, beta in named.items()]
    beta, gamma = decision.recommended
    return f"K = {row}: {'; '.join(parts)}; recommended: beta {beta}, gamma {gamma}."


def by_row(points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each K, and of each change of phase 2, in their order."""
    found: dict[str, list[Point]] = {}
    for point in points:
        found.setdefault(point.row, []).append(point)
    return found


def decisions(points: Sequence[Point]) -> dict[str, Decision]:
    return {row: decide(of_row) for row, of_row in by_row(points).items()}


def draw_curves(points: Sequence[Point], class_means: float | None, of: str, out: Path, name: str) -> list[Path]:
    """A picture per row, `NAME-ROW.png`. of: what samples were measured."""
    drawn = []
    for row, known in by_row(points).items():
        betas, gammas = (sorted({p.beta for p in known}, key=float), sorted({p.gamma for p in known}, key=float))
        places = {(p.beta, p.gamma): p for p in known}
        curves = []
        for measure, title in TITLES.items():
            scale = 100 if measure in PERCENT else 1
            values = {
                gamma: [
                    [scale * v for v in places[beta, gamma].all(measure)] if (beta, gamma) in places else []
                    for beta in betas
                ]
                for gamma in gammas
            }
            error = class_means if measure == "reconstruction_mse" else None
            reference = None if error is None else ("mean image of the class", error)
            curves.append(Curve(title, values, reference))
        rule = decide(known)
        marked = {"epsilon-1": rule.epsilon_1, "epsilon-2": rule.epsilon_2, "beta*": rule.beta_star}
        seeds = max(len(point.of_seeds) for point in known)
        title = f"K = {row}, {of}: mean, least and most of {seeds} seed{'s' * (seeds > 1)}"
        drawn.append(figures.save(over_beta(betas, curves, marked, title), out / f"{name}-{file_name(row)}.png"))
    return drawn


def file_name(row: str) -> str:
    return row.replace(", ", "-").replace(" ", "_")


def draw_images(cells: Sequence[Trial], shards: str, judge: Pipeline, out: Path) -> list[Path]:
    """A picture of each row's first seed, `images-K.png`: 40 images drawn at random from the shards."""
    first: dict[str, list[Trial]] = {}
    for trial in cells:
        of_row = first.setdefault(row_of(trial), [])
        if trial.exit_code == 0 and (not of_row or trial.varied["seed"] == of_row[0].varied["seed"]):
            of_row.append(trial)
    drawn = []
    for name, trials in first.items():
        panels, x = {}, torch.empty(0)
        for trial in trials:
            pipeline = Pipeline.from_pretrained(trial.folder)
            x = images(shards, pipeline)
            x_hat = pipeline.decoded(pipeline.posterior(x).mean)
            changed = decision(judge, x) != decision(judge, x_hat)
            panels[trial.varied["beta"], trial.varied["gamma"]] = Panel(x_hat, changed)
        if panels:
            seed = trials[0].varied["seed"]
            title = f"{DRAWN} random images of {shards} and their reconstructions, K = {name}, seed {seed}"
            drawn.append(figures.save(class_changes(x, panels, title), out / f"images-{file_name(name)}.png"))
    return drawn


def images(shards: str, pipeline: Pipeline) -> Tensor:
    """The same random samples for every pipeline, normalised `[40, *shape]`."""
    reader = evaluation.open_reader(shards, pipeline)
    random = torch.Generator().manual_seed(IMAGES_SEED)
    rows = torch.randperm(reader.shards.size, generator=random)[:DRAWN].tolist()
    parts = [reader[Request(row, 1, range(1))].x for row in rows]
    return torch.cat([normalise(part, pipeline.spec) for part in parts])
