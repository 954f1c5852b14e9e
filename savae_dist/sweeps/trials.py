"""The runs of a sweep: every combination of some values, each resolved, with a folder of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from savae_dist.config.arguments import read_yaml
from savae_dist.config.identity import digest, to_yaml
from savae_dist.config.schema import RunConfig
from savae_dist.errors import ConfigError, DivergedError
from savae_dist.files import read_object
from savae_dist.load_config import load

ENDED = ("done", DivergedError.__name__)  # outcomes after which there is nothing left to run


@dataclass(frozen=True)
class Trial:
    """One combination: `varied` are the keys that have several values (config or name among them), with this one's.

    arguments: the trainer's, but for `output`.
    """

    arguments: tuple[str, ...]
    varied: Mapping[str, str]
    resolved: RunConfig
    folder: Path

    @property
    def exit_code(self) -> int | None:
        """None while it is not ended, whatever for."""
        status = read_object(self.folder / "status.json")
        return status["exit_code"] if status.get("outcome") in ENDED else None


def split(values: str) -> list[str]:
    """At the commas that stand in no bracket."""
    parts, depth = [""], 0
    for character in values:
        depth += (character in "[{(") - (character in ")}]")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def named(configs: str) -> tuple[str, dict[str, tuple[str, ...]]]:
    """CONFIG as the trainer's arguments by name; and what the names are, `config` or, in a comparison, `name`."""
    listed = split(configs)
    if len(listed) > 1 or not configs.endswith((".yaml", ".yml")):
        return "config", {config: (config,) for config in listed}
    content: dict[str, Any] = OmegaConf.to_container(read_yaml(Path(configs)))  # type: ignore[assignment]
    if "compare" not in content:
        return "config", {configs: (configs,)}
    compared = content.pop("compare")
    common = content.pop("common", [])
    if content or not isinstance(compared, dict) or not compared:
        raise ConfigError(f"{configs}: a comparison holds `compare: {{NAME: [PRESET, key=value, ...], ...}}`, `common`")
    for name, words in [*compared.items(), ("common", common)]:
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise ConfigError(f"{configs}: {name}: give the trainer's arguments as a list, [PRESET, key=value, ...]")
    return "name", {str(name): (*common, *words) for name, words in compared.items()}


def combine(configs: str, out: Path, arguments: Sequence[str]) -> list[Trial]:
    """Every combination, each resolved, so that a wrong key ends the sweep before anything is started."""
    kind, starts = named(configs)
    axes = {kind: list(starts)}
    for argument in arguments:
        key, equals, listed = argument.partition("=")
        if not equals or key in axes or key == "output":
            raise ConfigError(f"{argument}: give each key once, as key=v1,v2; `output` is the sweep's")
        axes[key] = split(listed)
    found = []
    outermost = sorted(axes, key=lambda key: key != "seed")  # so that the whole table is there after the first seed
    for combination in product(*(axes[key] for key in outermost)):
        by_key = dict(zip(outermost, combination, strict=True))
        values = {key: by_key[key] for key in axes}
        varied = {key: value for key, value in values.items() if len(axes[key]) > 1}
        name = values.pop(kind)
        overrides = tuple(f"{key}={value}" for key, value in values.items())
        resolved = load([*starts[name], *overrides])
        words = [f"{key}={value}" for key, value in varied.items()] or [Path(name).stem]
        folder = re.sub(r"[^A-Za-z0-9.=_+-]+", "_", "-".join(words))[:120]
        found.append(Trial((*starts[name], *overrides), varied, resolved, out / f"{folder}-{digest(resolved)}"))
    _check_distinct(found)
    return found


def _check_distinct(found: Sequence[Trial]) -> None:
    """ConfigError where two are one and the same run: its row would stand there under two names."""
    known: dict[str, Trial] = {}
    for trial in found:
        what = to_yaml(replace(trial.resolved, output=None))
        if (other := known.setdefault(what, trial)) is not trial:
            raise ConfigError(
                f"{dict(other.varied)} and {dict(trial.varied)} are the same run: their values come to "
                "the same, so give one of them"
            )
