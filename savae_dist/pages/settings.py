"""The keys of a run: those that were chosen apart from those at their defaults, which most readers may pass over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from savae_dist.config.effect import written
from savae_dist.config.identity import as_dict
from savae_dist.config.schema import OptimizerConfig, RunConfig
from savae_dist.pages.folder import RunFolder, flat
from savae_dist.pages.metrics import table_of

# Keys that a reader looks for, even at their defaults: of a system, of an optimiser, and of all else.
OF_SYSTEM = ("latent_dim",)
OF_OPTIMIZER = ("name", "lr", "schedule")
OF_REST = ("networks.width", "data.batch_size", "precision", "seed")


class Settings(NamedTuple):
    """Keys with their values: `chosen` are shown at once, `others`, which are at their defaults, on request."""

    chosen: dict[str, Any]
    others: dict[str, Any]


def apart(values: Mapping[str, Any], defaults: Mapping[str, Any], always: Sequence[str]) -> Settings:
    """Divide values: one that equals its default goes to `others`, unless its key is in `always`."""
    others = {k: value for k, value in values.items() if k not in always and k in defaults and value == defaults[k]}
    return Settings({key: value for key, value in values.items() if key not in others}, others)


def hyperparameters(run: RunFolder) -> Settings:
    """Those of the system, with the steps that were made in place of those that were asked for."""
    made = {f"{phase}_steps": done for phase, (done, _) in run.steps.items()}
    if len(run.steps) == 1:  # the configuration key of a one-phase system is `steps`
        made["steps"] = next(iter(run.steps.values()))[0]
    values = {key: made.get(key, value) for key, value in below(run.config, "system.").items() if key != "name"}
    # Runs of older versions did not write down their system's defaults.
    defaults = flat(table_of(table_of(run.about.get("system")).get("defaults")))
    return apart(values, defaults, (*OF_SYSTEM, *made))


def settings(run: RunFolder) -> Settings:
    """All other keys; what was chosen of an optimiser is one line."""
    names = [key.split(".")[1] for key in run.config if key.startswith("optimizers.") and key.endswith(".lr")]
    defaults = as_dict(RunConfig(optimizers={name: OptimizerConfig() for name in names}))
    values = {
        key: value
        for key, value in run.config.items()
        if not key.startswith(("system.", "optimizers.")) and value != {}  # an empty table has no key to show
    }
    chosen, others = apart(values, defaults, OF_REST)
    for name in names:
        prefix = f"optimizers.{name}."
        own = apart(below(run.config, prefix), below(defaults, prefix), OF_OPTIMIZER)
        line = ", ".join(f"{key} {written(value)}" for key, value in own.chosen.items())
        chosen[f"optimizers.{name}"] = line.removeprefix("name ")
        others |= {f"{prefix}{key}": value for key, value in own.others.items()}
    return Settings(chosen, others)


def below(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The dotted keys that begin so, without it."""
    return {key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)}
