"""The folder of a run, finished or not, as its page reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from savae_dist.config.arguments import read_yaml
from savae_dist.config.urls import shown_value
from savae_dist.errors import ConfigError
from savae_dist.files import read_object
from savae_dist.pages import curves
from savae_dist.pages.metrics import numbers, table_of

VALIDATION = "validation/"


@dataclass(frozen=True)
class RunFolder:
    """path: of the folder. outcome: in place of that in its status.json; "" to take that one."""

    path: Path
    outcome: str = ""

    def __post_init__(self) -> None:
        if not (self.path / "config.yaml").is_file():
            raise ConfigError(f"{self.path} is no run's folder: it has no config.yaml")

    @cached_property
    def about(self) -> Mapping[str, Any]:
        """Empty for runs of versions that wrote none."""
        return read_object(self.path / "about.json")

    @cached_property
    def summary(self) -> Mapping[str, Any]:
        """Empty until the run is done."""
        return read_object(self.path / "summary.json")

    @cached_property
    def status(self) -> Mapping[str, Any]:
        found = read_object(self.path / "status.json")
        return {**found, "outcome": self.outcome, "message": ""} if self.outcome else found

    @cached_property
    def config(self) -> dict[str, Any]:
        """Dotted keys to values, as resolved, without the secrets of URLs."""
        return flat(self._config)

    @property
    def yaml(self) -> str:
        """The configuration as YAML, which repeats the run as a file argument."""
        return OmegaConf.to_yaml(OmegaConf.create(self._config))

    @cached_property
    def _config(self) -> dict[str, Any]:
        return without_secrets(OmegaConf.to_container(read_yaml(self.path / "config.yaml")))

    @cached_property
    def curves(self) -> curves.Curves:
        return curves.read(self.path)

    @cached_property
    def launches(self) -> list[float]:
        return curves.launches(self.path)

    @property
    def done(self) -> bool:
        return self.status.get("outcome") == "done"

    @cached_property
    def steps(self) -> dict[str, tuple[int, int]]:
        """Phase -> the steps that it has made, and those that it was to make."""
        planned = dict(table_of(self.about.get("phases"))) or dict(table_of(self.summary.get("steps")))
        if self.done:
            return {name: (table_of(self.summary.get("steps")).get(name, last), last) for name, last in planned.items()}
        current, found, begun = self.status.get("phase", ""), {}, True
        for name, last in planned.items():
            begun = begun and current in planned
            found[name] = (0 if not begun else self.status.get("step", 0) if name == current else last, last)
            begun = begun and name != current
        return found

    @cached_property
    def measured(self) -> Mapping[str, Any]:
        """The metrics: of the run's end; before it, of the last validation."""
        if self.done and self.summary:
            return self.summary
        last = {tag: line[1][-1] for tag, line in self.curves.items() if tag.startswith(VALIDATION) and line[1]}
        return {tag.removeprefix(VALIDATION): value for tag, value in last.items()}

    @cached_property
    def measured_at(self) -> str:
        """The point of training at which `measured` was measured, in words."""
        if self.done and self.summary:
            return "at the run's end"
        steps = [line[0][-1] for tag, line in self.curves.items() if tag.startswith(VALIDATION) and line[0]]
        return f"at the last validation, after {max(steps):,} steps in all" if steps else ""

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """The best validation, as the summary or the newest checkpoint has it; empty where none was kept."""
        states = sorted((self.path / "checkpoints").glob("step-*/state.json"))
        newest = read_object(states[-1]) if states else {}
        return table_of(self.summary.get("best")) or table_of(newest.get("best"))

    @property
    def warnings(self) -> list[str]:
        told = [*self.summary.get("warnings", []), *self.status.get("warnings", [])]
        return [str(line) for line in dict.fromkeys(map(str, told))]

    @property
    def shares(self) -> dict[str, float]:
        """Of the gradient at the decoder's output, as last measured."""
        kept = numbers(table_of(self.summary.get("gradient_shares")))
        tag = "gradient_share/"
        return kept or {name.removeprefix(tag): line[1][-1] for name, line in self.curves.items() if tag in name}

    @property
    def rates(self) -> dict[str, float]:
        """Phase -> samples per second: its mean, and until its end that of the last log."""
        end = "/samples_per_second"
        logged = {tag.removesuffix(end): line[1][-1] for tag, line in self.curves.items() if tag.endswith(end)}
        return logged | numbers(table_of(self.summary.get("samples_per_second")))


def without_secrets(value: Any) -> Any:
    """Nested tables without the passwords and signatures of the URLs in them."""
    return {key: without_secrets(one) for key, one in value.items()} if isinstance(value, dict) else shown_value(value)


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested tables as one with dotted keys; an empty one stays a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
