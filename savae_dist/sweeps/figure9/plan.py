"""Zemouri 2020, figure 9: beta x gamma x K from one shared phase 1 per K and seed, judged independently.

A plan is a YAML file; launch_configs/comparisons/figure9.yaml says what is in one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from savae_dist.config.arguments import read_yaml
from savae_dist.config.identity import digest
from savae_dist.errors import ConfigError
from savae_dist.load_config import load
from savae_dist.sweeps.trials import Trial

KIND = "figure9"
MUST = ("judge", "phase_1", "phase_2", "common", "beta", "gamma", "seeds", "test")
MAY = ("axes",)


@dataclass(frozen=True)
class Plan:
    """What the file says. judge, phase_2, common: the trainer's arguments; phase_1: those of each K, by its name;
    seeds: of each K. test: shards that are scored once, when the decision stands.
    axes: what else is changed in phase 2, one change at a time, by its name; "" is the grid without a change.
    """

    judge: tuple[str, ...]
    phase_1: dict[str, tuple[str, ...]]
    phase_2: tuple[str, ...]
    common: tuple[str, ...]
    beta: tuple[str, ...]
    gamma: tuple[str, ...]
    seeds: dict[str, tuple[str, ...]]
    test: str
    axes: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Grid:
    """The runs: the judge, phase 1 by (name of K, seed), and the cells, which start from both."""

    judge: Trial
    phase_1: dict[tuple[str, str], Trial]
    cells: tuple[Trial, ...]

    @cached_property
    def runs(self) -> tuple[Trial, ...]:
        """All, each after what it starts from."""
        return (self.judge, *self.phase_1.values(), *self.cells)

    def needs(self, trial: Trial) -> list[Trial]:
        """The runs that this one starts from."""
        if trial in self.cells:
            return [self.judge, self.phase_1[f"K={trial.varied['K']}", trial.varied["seed"]]]
        return [] if trial is self.judge else [self.judge]


def row_of(cell: Trial) -> str:
    """The cells that are read together, over beta and gamma: those of one K and one change of phase 2."""
    return ", ".join(cell.varied[key] for key in ("K", "axis") if key in cell.varied)


def is_plan(config: str) -> bool:
    return config.endswith((".yaml", ".yml")) and Path(config).is_file() and KIND in read_yaml(Path(config))


def read(path: Path) -> Plan:
    """ConfigError where a key is missing or unknown."""
    content: dict[str, Any] = OmegaConf.to_container(read_yaml(path))  # type: ignore[assignment]
    asked = content.pop(KIND)
    if content or not isinstance(asked, dict) or not set(MUST) <= set(asked) <= {*MUST, *MAY}:
        raise ConfigError(f"{path}: `{KIND}` holds {', '.join(MUST)}, perhaps axes, and nothing stands beside it")
    by_k = {key: {str(k): tuple(map(str, words)) for k, words in asked[key].items()} for key in ("phase_1", "seeds")}
    if by_k["phase_1"].keys() != by_k["seeds"].keys():
        raise ConfigError(f"{path}: `phase_1` and `seeds` must name the same K")
    if wrong := [name for name in by_k["phase_1"] if not name.startswith("K=")]:
        raise ConfigError(f"{path}: `phase_1` names {wrong[0]!r}: such a name begins with K=, as in K=2")
    judge, phase_2, common, beta, gamma = (
        tuple(map(str, asked[key])) for key in ("judge", "phase_2", "common", "beta", "gamma")
    )
    axes = {str(name): tuple(map(str, words)) for name, words in asked.get("axes", {"": []}).items()}
    return Plan(judge, by_k["phase_1"], phase_2, common, beta, gamma, by_k["seeds"], str(asked["test"]), axes)


def grid(plan: Plan, out: Path) -> Grid:
    """Every run, resolved, so that a wrong key ends the sweep before anything is started."""
    judge = trial(out, {"judge": ""}, [*plan.judge, *plan.common])
    first = {
        (name, seed): trial(
            out,
            {"phase_1": name, "seed": seed},
            [*plan.phase_1[name], *plan.common, "system.decoder_steps=0", f"seed={seed}"],
            judge,
        )
        for name, seeds in plan.seeds.items()
        for seed in seeds
    }
    cells = []
    for (name, seed), axis, gamma, beta in product(first, plan.axes, plan.gamma, plan.beta):
        start = first[name, seed]
        words = [*plan.phase_1[name], *plan.common, "system.vec_steps=0", *plan.phase_2, *plan.axes[axis]]
        words += [f"seed={seed}", f"system.beta={beta}", f"system.gamma={gamma}", f"networks.initial={start.folder}"]
        changed = {"axis": axis} if axis else {}
        varied = {"K": name.removeprefix("K="), **changed, "beta": beta, "gamma": gamma, "seed": seed}
        cells.append(trial(out, varied, words, judge, start))
    return Grid(judge, first, tuple(cells))


def trial(
    out: Path, varied: dict[str, str], arguments: list[str], judge: Trial | None = None, start: Trial | None = None
) -> Trial:
    """A run in a folder that is named by what varies and by the digest of its configuration.

    The digest has the names of the judge's folder and of the one that it starts from, not their paths, so that `out`
    may be moved. The judge counts, because the sweep reads what it said of the run.
    """
    arguments = [*arguments, *([f"judge={judge.folder}"] if judge else [])]
    resolved = load(arguments)
    known = resolved
    if start is not None:
        known = replace(resolved, networks=replace(resolved.networks, initial=start.folder.name))
    name = "-".join(f"{key}={value}" if value else key for key, value in varied.items())
    name = name.replace("=K=", "=").replace(" ", "_")
    return Trial(
        tuple(arguments), varied, resolved, out / f"{name}-{digest(known, judge.folder.name if judge else None)}"
    )
