"""Which curves of a run stand together in one drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from savae_dist.config.metric_names import BASELINES, SHARES
from savae_dist.pages.chart import Chart, chart
from savae_dist.pages.curves import Curves
from savae_dist.pages.folder import VALIDATION, RunFolder

RANKS = "ranks/"
# Prefixes of tags that belong to no update.
LOGGED = ("gradient_share/", "generated/", "checkpoints/", RANKS, VALIDATION)
NO_LOSS = ("lr", "skipped", "gradient_norm", "samples_per_second")


def losses(curves: Curves) -> list[Chart]:
    """A drawing for each update, with a line for each term; then one of the gradients' norms."""
    updates: dict[str, Curves] = {}
    norms: Curves = {}
    for tag, line in curves.items():
        update, _, term = tag.partition("/")
        if term and not tag.startswith(LOGGED) and term not in NO_LOSS:
            updates.setdefault(update, {})[term] = line
        elif term == "gradient_norm":
            norms[update] = line
    made = [chart(f"losses of {update}", lines) for update, lines in updates.items()]
    return [one for one in [*made, chart("gradient norms", norms)] if one is not None]


def validations(curves: Curves) -> list[Chart]:
    """The shares of samples in one drawing, each other metric beside its baseline in one of its own."""
    found = {tag.removeprefix(VALIDATION): line for tag, line in curves.items() if tag.startswith(VALIDATION)}
    shares = {name: line for name, line in found.items() if name in SHARES}
    baselines = {BASELINES[name] for name in found if name in BASELINES}
    made = [chart("shares of samples", shares, linear=True)]
    for name, line in found.items():
        if name not in SHARES and name not in baselines:
            other = BASELINES.get(name, "")
            pair = {name: line, **({other: found[other]} if other in found else {})}
            made.append(chart(name, pair, dashed=[other]))
    return [one for one in made if one is not None]


def group(curves: Curves, prefix: str, title: str, linear: bool = False) -> list[Chart]:
    """All curves whose tags begin so, in one drawing."""
    lines = {tag.removeprefix(prefix): line for tag, line in curves.items() if tag.startswith(prefix)}
    found = chart(title, lines, linear=linear)
    return [] if found is None else [found]


def compared(runs: Mapping[str, RunFolder]) -> Sequence[Chart]:
    """A drawing for each tag that a run has but baselines, with a line for each run that has it."""
    tags = dict.fromkeys(tag for run in runs.values() for tag in run.curves)
    baselines = tuple(VALIDATION + name for name in BASELINES.values())
    wanted = [tag for tag in tags if not tag.endswith((*NO_LOSS, *baselines)) and not tag.startswith(RANKS)]
    ordered = sorted(wanted, key=lambda tag: not tag.startswith(VALIDATION))
    made = [chart(tag, {name: run.curves[tag] for name, run in runs.items() if tag in run.curves}) for tag in ordered]
    return [one for one in made if one is not None]
