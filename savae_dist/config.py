"""The typed run configuration: defaults < preset or YAML file < key=value.

Every default stands in the dataclass that uses it: the run's here, an update's in `optim`, a paper's in its system.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from savae_dist.augment import OPERATIONS
from savae_dist.errors import ConfigError
from savae_dist.optim import OptimizerConfig
from savae_dist.phases import System
from savae_dist.systems import SYSTEMS

PRESET_FOLDERS = (
    Path(__file__).parents[1] / "launch_configs" / "runs",  # a checkout
    Path(__file__).parent / "presets",  # an installed wheel
)
DEFAULT = "demo"
# Keys that may change when a run goes on: they alter neither the mathematics nor the order of the data.
FREE_KEYS = {
    *("output", "resume", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "nonfinite_limit"),
    *("judge", "compile", "accumulate"),
    *("data.workers", "data.lanes", "data.cache", "data.validation", "data.bad_budget"),
}


@dataclass
class NetworksConfig:
    """width: the paper's open channel number w. pools: halvings of the input, more for large ones.

    initial: folder with trained networks by name (a checkpoint's `networks`, or a pipeline) to start from.
    """

    width: int = 16
    norm: Literal["batch", "group", "none"] = "batch"
    pools: int = 2
    initial: str | None = None


@dataclass
class DataConfig:
    """train, validation: a packed folder, a brace pattern of tars, or a list; train null: the embedded digits.

    batch_size: samples per optimiser step, over all processes. normalise: of signals: `window` or `dataset` statistics.
    lanes: parallel streams through the shards, fixed for a run; auto = max(8, processes). bad_budget: the share of the
    set that may be unusable before a process (each counts what it meets) stops the run.
    augment: strengths by name, of `augment.OPERATIONS`; `none` in YAML for none at all.
    """

    train: str | list[str] | None = None
    validation: str | list[str] | None = None
    batch_size: int = 128
    workers: int = 0
    shuffle_window: int = 16
    lanes: int | Literal["auto"] = "auto"
    normalise: Literal["window", "dataset", "none"] = "window"
    cache: Literal["none", "memory"] = "none"
    bad_budget: float = 0.01
    augment: dict[str, float] = field(default_factory=dict)


@dataclass
class RunConfig:
    """A run. `system` is the dataclass that `system.name` names; `optimizers` has one entry per update."""

    system: Any = None
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizers: dict[str, OptimizerConfig] = field(default_factory=dict)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    compile: bool = False
    ema: float = 0.0  # decay of the weight average that is validated and exported; 0: none
    seed: int = 0
    output: str | None = None  # null: runs/NAME, with a digest of what differs from the preset
    resume: Literal["auto", "never"] = "auto"
    max_steps: int | None = None  # caps every phase, for trials
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 3
    judge: str | None = None  # a pipeline whose classifier, trained independently, judges reconstructions
    nonfinite_limit: int = 20  # the run ends after so many steps in a row without a finite gradient


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
        systems = [OmegaConf.select(node, "system.name") for node in (preset, changes)]
        if None not in systems and systems[0] != systems[1]:
            for section in ("system", "optimizers"):  # hyperparameters of another paper, and of its updates
                preset.pop(section, None)
        asked = OmegaConf.merge(preset, changes)
        assert isinstance(asked, DictConfig)
        _check_shape(asked, OmegaConf.missing_keys(changes) | OmegaConf.missing_keys(asked))
        config = _typed(asked.copy())
    except OmegaConfBaseException as error:
        where = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(where + " ".join(str(error.msg or error).splitlines()[0].split())) from error
    except (ValueError, YAMLError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
    if config.output is None:
        name = Path(files[0] if files else DEFAULT).stem
        same = not overrides or (not OmegaConf.missing_keys(preset) and digest(_typed(preset)) == digest(config))
        config.output = f"runs/{name}" if same else f"runs/{name}-{digest(config)}"
    return config


def _changes(overrides: Sequence[str]) -> DictConfig:
    for override in overrides:
        try:
            OmegaConf.from_dotlist([override])
        except YAMLError as error:
            raise ConfigError(f"{override.partition('=')[0]}: {' '.join(str(error).split())}") from error
    return OmegaConf.from_dotlist(list(overrides))


def _check_shape(asked: DictConfig, missing: set[str]) -> None:
    """Sections are mappings, and nothing is left at `???`."""
    if missing:
        raise ConfigError(f"{sorted(missing)[0]} is `???`: give it a value")
    for key in ("system", "networks", "data"):
        if key in asked and not isinstance(asked[key], DictConfig):
            raise ConfigError(f"{key}: holds keys, {key}.NAME=..., not {asked[key]!r}")


def _read(name: str) -> DictConfig:
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        presets = {p.stem: p for folder in PRESET_FOLDERS for p in sorted(folder.glob("*.yaml"))}
        if name not in presets:
            raise ConfigError(f"{name!r} is no preset{nearest(name, presets)}; presets: {', '.join(sorted(presets))}")
        path = presets[name]
    if not path.is_file():
        raise ConfigError(f"{path} does not exist")
    try:
        config = OmegaConf.load(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, DictConfig):
        raise ConfigError(f"{path} must hold `key: value` pairs")
    return config


def nearest(word: str, known: Any) -> str:
    """` (did you mean 'x'?)`, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


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
            f"data.augment: `none`, or strengths by name as in data.augment.{next(iter(OPERATIONS))}=0.1, "
            f"not {data['augment']!r}"
        )
    schema = OmegaConf.structured(RunConfig)
    schema.system = OmegaConf.structured(SYSTEMS[name])
    merged = OmegaConf.merge(schema, asked)
    config = OmegaConf.to_object(merged)
    assert isinstance(config, RunConfig)
    config.optimizers = _optimizers(config.system, optimizers)
    _check(config)
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


def _check(config: RunConfig) -> None:
    """Values that the types allow and that cannot work; ranks are checked at the launch."""
    at_least_one = ("accumulate", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
    values = {key: config.__dict__[key] for key in (*at_least_one, "nonfinite_limit", "max_steps")}
    values |= {f"data.{key}": config.data.__dict__[key] for key in ("batch_size", "shuffle_window", "lanes")}
    values["networks.width"] = config.networks.width
    for key, value in values.items():
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{key} must be at least 1, not {value}")
    if not 0 <= config.seed < 2**63:
        raise ConfigError(f"seed must lie in [0, 2^63), not {config.seed}")
    for key, source in (("train", config.data.train), ("validation", config.data.validation)):
        if isinstance(source, list) and not all(isinstance(one, str) for one in source):
            raise ConfigError(f"data.{key} must be a path or a list of paths, not {source}")
    if config.data.workers < 0:
        raise ConfigError(f"data.workers must not be negative, not {config.data.workers}")
    if not 0 <= config.networks.pools <= 6:
        raise ConfigError(f"networks.pools must lie between 0 and 6, not {config.networks.pools}")
    if not 0 <= config.ema < 1:
        raise ConfigError(f"ema must lie in [0, 1), not {config.ema}")
    if not 0 <= config.data.bad_budget <= 1:
        raise ConfigError(f"data.bad_budget is a share between 0 and 1, not {config.data.bad_budget}")
    for name, strength in config.data.augment.items():
        if name not in OPERATIONS:
            raise ConfigError(
                f"data.augment.{name}: no such augmentation{nearest(name, OPERATIONS)}; known: {', '.join(OPERATIONS)}"
            )
        if not 0 <= strength < OPERATIONS[name].limit:
            raise ConfigError(f"data.augment.{name} must lie in [0, {OPERATIONS[name].limit:g}), not {strength}")
    if config.data.batch_size % config.accumulate:
        raise ConfigError(
            f"data.batch_size={config.data.batch_size} must be a multiple of accumulate={config.accumulate}"
        )


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration; as a FILE.yaml it gives the same run."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def as_dict(config: RunConfig) -> dict[str, Any]:
    """Dotted keys to plain values."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            else:
                flat[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value

    walk("", OmegaConf.to_container(OmegaConf.structured(config)))
    return flat


def plain(system: System) -> dict[str, Any]:
    """A system's name and hyperparameters as JSON-able values."""
    values = OmegaConf.to_container(OmegaConf.structured(system))
    assert isinstance(values, dict)
    return {str(k): list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def identity(config: RunConfig) -> dict[str, Any]:
    """The keys that make a run this run: all but the free ones."""
    return {key: value for key, value in as_dict(config).items() if key not in FREE_KEYS}


def digest(config: RunConfig) -> str:
    """Eight hexadecimal digits of the run's identity."""
    return hashlib.sha256(repr(sorted(identity(config).items())).encode()).hexdigest()[:8]
