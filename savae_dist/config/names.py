"""Check that every preset, system and key that is named exists; values are checked by `load_config`.

Nothing here loads torch, so a misspelt key is refused in an instant. The systems would load it, so their names and keys
are parsed from their source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from pathlib import Path

from omegaconf import DictConfig, ListConfig, OmegaConf

from savae_dist.config.arguments import Asked, in_one_line, read
from savae_dist.config.augmentations import check_augmentations
from savae_dist.config.braces import check_braces
from savae_dist.config.effect import field_values
from savae_dist.config.nearest import nearest
from savae_dist.config.schema import LIMITS, OptimizerConfig, RunConfig
from savae_dist.errors import ConfigError
from savae_dist.untrusted import shown

SYSTEMS_FOLDER = Path(__file__).parents[1] / "systems"
DEFAULT_SYSTEM = "savae"
# Section -> its keys; those of `system` depend on its name, and `optimizers` holds a section for each update.
SECTIONS = {
    name: [*field_values(section)]
    for name, section in field_values(RunConfig()).items()
    if is_dataclass(section) and not isinstance(section, type)
}


@dataclass(frozen=True)
class SystemNames:
    """family: name of the class, which its members share; keys: those of `system.KEY`."""

    family: str
    keys: tuple[str, ...]


def systems_by_source() -> dict[str, SystemNames]:
    """The systems as `savae_dist/systems` writes them: `SYSTEMS` is a literal, and annotated fields are the keys."""
    registry = ast.parse((SYSTEMS_FOLDER / "__init__.py").read_text(encoding="utf-8"))
    classes = {
        node.name: tuple(_annotated(node))
        for path in sorted(SYSTEMS_FOLDER.glob("*.py"))
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef)
    }
    found = {}
    for node in registry.body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "SYSTEMS":
            assert isinstance(node.value, ast.Dict)
            for name, made in zip(node.value.keys, node.value.values, strict=True):
                assert isinstance(name, ast.Constant)
                assert isinstance(made, ast.Call)
                family = ast.unparse(made.func)
                found[str(name.value)] = SystemNames(family, classes[family])
    return found


def _annotated(cls: ast.ClassDef) -> Iterable[str]:
    """The fields of a dataclass: its annotated names except ClassVars."""
    annotated = (node for node in cls.body if isinstance(node, ast.AnnAssign))
    return (ast.unparse(node.target) for node in annotated if not ast.unparse(node.annotation).startswith("ClassVar"))


def check(arguments: Sequence[str]) -> None:
    """ConfigError in one line if `[PRESET or FILE.yaml] [key=value ...]` names something that does not exist."""
    with in_one_line():
        check_names(read(arguments), systems_by_source())


def check_names(asked: Asked, systems: Mapping[str, SystemNames]) -> None:
    """ConfigError if something that is asked for does not exist or is beyond its limit, or a section is no mapping."""
    merged = OmegaConf.merge(without_another_paper(asked, systems), asked.changes)
    assert isinstance(merged, DictConfig)
    _check_shape(merged, OmegaConf.missing_keys(asked.changes) | OmegaConf.missing_keys(merged))
    name = OmegaConf.select(merged, "system.name", default=DEFAULT_SYSTEM)
    if not isinstance(name, str) or name not in systems:
        raise ConfigError(f"system.name={name} is unknown{nearest(str(name), systems)}; known: {', '.join(systems)}")
    sections = {"": [*field_values(RunConfig())], "system.": systems[name].keys}
    sections |= {f"{section}.": known for section, known in SECTIONS.items()}
    sections |= {"optimizers.default.": [*field_values(OptimizerConfig())]}
    _check_keys("", merged, sections)
    for section in ("system", *SECTIONS):
        _check_keys(f"{section}.", merged.get(section) or {}, sections)
    for key, limit in LIMITS.items():
        _check_limit(key, OmegaConf.select(merged, key), limit)
    for key in ("data.train", "data.validation"):
        sources = OmegaConf.select(merged, key)
        for source in sources if isinstance(sources, ListConfig) else [sources]:
            check_braces(str(source))
    augment, optimizers = (merged.get("data") or {}).get("augment"), merged.get("optimizers")
    if isinstance(augment, DictConfig):
        check_augmentations(map(str, augment))
    for update in map(str, optimizers) if isinstance(optimizers, DictConfig) else ():
        if isinstance(optimizers[update], DictConfig):
            section = f"optimizers.{update}."
            _check_keys(section, optimizers[update], {**sections, section: sections["optimizers.default."]})


def _check_limit(key: str, value: object, limit: int) -> None:
    """ConfigError if a number is beyond the limit; here, before anything is loaded that takes memory by it."""
    text = str(value).replace("_", "").removeprefix("+")
    if re.fullmatch("[0-9]+", text) and (len(text) > 18 or int(text) > limit):
        raise ConfigError(f"{key} must be at most {limit:,}, not {shown(value)}")


def without_another_paper(asked: Asked, systems: Mapping[str, SystemNames]) -> DictConfig:
    """The preset, without what belongs to its system if the changes name one of another family."""
    before, after = (systems.get(name) for name in system_names(asked))
    if before is None or after is None or before.family == after.family:
        return asked.preset
    kept = [str(key) for key in asked.preset if key not in ("system", "optimizers", "schedules", "adaptive")]
    return OmegaConf.masked_copy(asked.preset, kept)


def system_names(asked: Asked) -> tuple[str, str]:
    """`system.name` of the preset and of the changes; empty where it is missing or no text."""
    names = (OmegaConf.select(node, "system.name") for node in (asked.preset, asked.changes))
    before, after = (name if isinstance(name, str) else "" for name in names)
    return before, after


def _check_shape(asked: DictConfig, missing: set[str]) -> None:
    """Sections are mappings, and nothing is left at `???`."""
    if missing:
        raise ConfigError(f"{sorted(missing)[0]} is `???`: give it a value")
    for key in ("system", *SECTIONS):
        if key in asked and not isinstance(asked[key], DictConfig):
            raise ConfigError(f"{key}: holds keys, {key}.NAME=..., not {asked[key]!r}")


def _check_keys(section: str, asked: Iterable[object], sections: Mapping[str, Sequence[str]]) -> None:
    """ConfigError for a key that the section does not have. sections: keys by where they stand, `data.` or nothing."""
    known = sections[section]
    for key in map(str, asked):
        if key not in known:
            elsewhere = (f" (did you mean {other + key!r}?)" for other, keys in sections.items() if key in keys)
            instead = next(elsewhere, "") or nearest(key, known) or f"; known: {', '.join(known)}"
            raise ConfigError(f"{section}{key or repr(key)}: no such key{instead}")
