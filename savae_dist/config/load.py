"""From `[PRESET or FILE.yaml] [key=value ...]` to the run's configuration: defaults < preset or file < key=value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from savae_dist.config.identity import digest
from savae_dist.config.schema import AUGMENTATIONS, OptimizerConfig, RunConfig, nearest
from savae_dist.errors import ConfigError
from savae_dist.systems import SYSTEMS
from savae_dist.systems.phases import System

PRESET_FOLDERS = (
    Path(__file__).parents[2] / "launch_configs" / "runs",  # a checkout
    Path(__file__).parents[1] / "presets",  # an installed wheel
)
DEFAULT = "demo"


def load(arguments: Sequence[str]) -> RunConfig:
    """The configuration of `[PRESET or FILE.yaml] [key=value ...]`, the preset being `demo` if none is named.

    ConfigError in one line where it cannot work.
    """
    files = [a for a in arguments if "=" not in a or Path(a).is_file()]
    overrides = [a for a in arguments if a not in files]
    if len(files) > 1:
        raise ConfigError(f"one preset or file, then key=value; {files[1]!r} is neither")
    try:
        preset, changes = _read(files[0] if files else DEFAULT), _changes(overrides)
        asked = OmegaConf.merge(_kept(preset, changes), changes)
        assert isinstance(asked, DictConfig)
        _check_shape(asked, OmegaConf.missing_keys(changes) | OmegaConf.missing_keys(asked))
        config = _typed(asked.copy())
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(where + " ".join(str(error.msg or error).splitlines()[0].split())) from error
    except (ValueError, YAMLError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if config.output is None:
        same = not overrides or (not OmegaConf.missing_keys(preset) and digest(_typed(preset.copy())) == digest(config))
        name = Path(files[0]).stem if files else DEFAULT if same else config.system.name
        config.output = f"runs/{name}" if same else f"runs/{name}-{digest(config)}"
    return config


def _kept(preset: DictConfig, changes: DictConfig) -> DictConfig:
    """The preset without what belongs to another system than the one that the changes name.

    Another paper takes none of its hyperparameters and optimisers; another member of the same family all but those in
    which the members themselves differ.
    """
    old, new = (OmegaConf.select(node, "system.name") for node in (preset, changes))
    known = all(isinstance(name, str) and name in SYSTEMS for name in (old, new))
    if not known or old == new:
        return preset
    if type(SYSTEMS[old]) is not type(SYSTEMS[new]):
        return OmegaConf.masked_copy(preset, [str(key) for key in preset if key not in ("system", "optimizers")])
    kept = preset.copy()
    before, after = vars(SYSTEMS[old]), vars(SYSTEMS[new])
    for key in [key for key in preset.system if before.get(key) != after.get(key)]:
        kept.system.pop(key)
    optimizers = OmegaConf.merge(preset.get("optimizers") or {}, changes.get("optimizers") or {})
    there, here = ({u.name for phase in SYSTEMS[name].phases() for u in phase.updates} for name in (old, new))
    added = sorted(here - there - set(optimizers))
    if optimizers and added and "default" not in optimizers:
        raise ConfigError(
            f"optimizers say nothing of {added[0]}, an update of {new} that {old} does not have: add "
            f"optimizers.{added[0]}.lr=... or optimizers.default.lr=..."
        )
    return kept


def _changes(overrides: Sequence[str]) -> DictConfig:
    tars = [override.partition("=")[0] for override in overrides if override.endswith(".tar")]
    for override in overrides:
        key = override.partition("=")[0]
        if tars.count(key) > 1:  # of which the last would count, as of other keys
            raise ConfigError(
                f"{key} names {tars.count(key)} tars: a pattern needs quotes, '{key}=shards-{{0..9}}.tar'"
            )
        try:
            OmegaConf.from_dotlist([override])
        except YAMLError as error:
            raise ConfigError(f"{key}: {' '.join(str(error).split())}") from error
    return OmegaConf.from_dotlist(list(overrides))


def _check_shape(asked: DictConfig, missing: set[str]) -> None:
    """Sections are mappings, and nothing is left at `???`."""
    if missing:
        raise ConfigError(f"{sorted(missing)[0]} is `???`: give it a value")
    for key in ("system", "networks", "data", "debug"):
        if key in asked and not isinstance(asked[key], DictConfig):
            raise ConfigError(f"{key}: holds keys, {key}.NAME=..., not {asked[key]!r}")


def _read(name: str) -> DictConfig:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        presets = {p.stem: p for folder in PRESET_FOLDERS for p in sorted(folder.glob("*.yaml"))}
        if name not in presets:
            raise ConfigError(f"{name!r} is no preset{nearest(name, presets)}; presets: {', '.join(sorted(presets))}")
        path = presets[name]
    return read_yaml(path)


def read_yaml(path: Path) -> DictConfig:
    """The mapping in that file; ConfigError where there is none."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    try:
        config = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError, YAMLError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} must hold `key: value` pairs")
    return config


def _typed(asked: DictConfig) -> RunConfig:
    name = OmegaConf.select(asked, "system.name", default="savae")
    if not isinstance(name, str) or name not in SYSTEMS:
        raise ConfigError(f"system.name={name} is unknown{nearest(str(name), SYSTEMS)}; known: {', '.join(SYSTEMS)}")
    optimizers = asked.pop("optimizers", None) or OmegaConf.create()
    if not isinstance(optimizers, DictConfig):
        raise ConfigError("optimizers needs an update's name: optimizers.default.lr=... or optimizers.NAME.lr=...")
    data = asked.get("data") or {}
    if data.get("augment") == "none":
        data["augment"] = {}
    elif not isinstance(data.get("augment", asked), DictConfig):
        raise ConfigError(
            f"data.augment: `none`, or strengths by name as in data.augment.{next(iter(AUGMENTATIONS))}=0.1, "
            f"not {data['augment']!r}"
        )
    schema = OmegaConf.structured(RunConfig)
    schema.system = OmegaConf.structured(SYSTEMS[name])
    merged = OmegaConf.merge(schema, asked)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    config.optimizers = _optimizers(config.system, optimizers)
    config.check()
    config.data.augment = {name: strength for name, strength in config.data.augment.items() if strength}
    return config


def _optimizers(system: System, asked: DictConfig) -> dict[str, OptimizerConfig]:
    """Per update: defaults < optimizers.default < what the system says of the update < optimizers.NAME."""
    updates = {update.name: update for phase in system.phases() for update in phase.updates}
    result = {}
    for name in map(str, asked):
        if name != "default" and name not in updates:
            raise ConfigError(
                f"optimizers.{name}: no such update{nearest(name, updates)}; "
                f"{system.name} has {', '.join(updates)}, and `default` is for all"
            )
        if not isinstance(asked[name] or OmegaConf.create(), DictConfig):
            raise ConfigError(f"optimizers.{name}: holds keys, optimizers.{name}.lr=..., not {asked[name]!r}")
    everywhere = asked.get("default") or {}
    _optimizer("default", everywhere)
    for name, update in updates.items():
        result[name] = _optimizer(name, everywhere, update.optimizer, asked.get(name) or {})
    return result


def _optimizer(name: str, *layers: Mapping[str, Any]) -> OptimizerConfig:
    merged = OmegaConf.structured(OptimizerConfig)
    for layer in layers:
        for key, value in layer.items():
            try:
                OmegaConf.update(merged, str(key), value)
            except OmegaConfBaseException as error:
                reason = str(error.msg or error).splitlines()[0]
                raise ConfigError(f"optimizers.{name}.{key}: {reason}") from error
    config = OmegaConf.to_object(merged)
    assert isinstance(config, OptimizerConfig)
    config.check(f"optimizers.{name}")
    return config
