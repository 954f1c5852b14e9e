"""The typed run configuration; `resolve` reads it from files and arguments.

Every default stands in the dataclass that uses it: the run's here, an update's in `optim`, those of its
spread over processes in `parallel`, a paper's in its system.
"""

from __future__ import annotations

import difflib
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from omegaconf import OmegaConf

from savae_dist.augment import OPERATIONS
from savae_dist.data.store import CACHE_BYTES, OUTAGE_LIMIT
from savae_dist.errors import ConfigError
from savae_dist.optim import OptimizerConfig
from savae_dist.parallel import DdpConfig
from savae_dist.phases import System
from savae_dist.precision import Precision

# Keys that may change when a run goes on: they alter neither the mathematics nor the order of the data.
FREE_KEYS = {
    *("output", "resume", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "nonfinite_limit"),
    *("judge", "compile", "accumulate", "ddp.bucket_mb", "timeout", "debug.check_ranks"),
    *("data.workers", "data.lanes", "data.cache", "data.validation", "data.bad_budget"),
    *("data.cache_dir", "data.cache_bytes", "data.outage_limit"),
}


def nearest(word: str, known: Any) -> str:
    """` (did you mean 'x'?)`, or nothing."""
    close = difflib.get_close_matches(word, list(known), 1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def at_least_one(values: Mapping[str, Any]) -> None:
    """ConfigError unless the numbers among these are 1 or more."""
    for key, value in values.items():
        if isinstance(value, int) and value < 1:
            raise ConfigError(f"{key} must be at least 1, not {value}")


@dataclass
class NetworksConfig:
    """width: the paper's open channel number w. pools: halvings of the input, more for large ones.
    norm: `batch` normalises over a process's part of the global batch, `sync_batch` (GPUs) over all processes' parts.

    initial: folder with trained networks by name (a checkpoint's `networks`, or a pipeline) to start from.
    """

    width: int = 16
    norm: Literal["batch", "sync_batch", "group", "none"] = "batch"
    pools: int = 2
    initial: str | None = None

    def check(self) -> None:
        at_least_one({"networks.width": self.width})
        if not 0 <= self.pools <= 6:
            raise ConfigError(f"networks.pools must lie between 0 and 6, not {self.pools}")


@dataclass
class DataConfig:
    """train, validation: a packed folder, a brace pattern of tars, or a list, on disk or behind URLs (s3://, gs://,
    https://, hf:// ...); train null: the embedded digits.

    batch_size: samples per optimiser step, over all processes. normalise: of signals: `window` or `dataset` statistics.
    lanes: parallel streams through the shards, fixed for a run; auto = max(8, processes). bad_budget: the share of the
    set that may be unusable before a process (each counts what it meets) stops the run.
    weights: shares of the sets that `train` lists; none: as large as they are. labelled_fraction: share of labelled
    samples in every batch; null: as the data has them. balance: a class of n labelled samples is drawn n^(1 - balance)
    often: 0 as it is, 1 all classes equally.
    cache_dir: where remote shards are kept, at most cache_bytes of them; null: ~/.cache/savae_dist.
    outage_limit: seconds for which a store may be out of reach before the run stops.
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
    cache_dir: str | None = None
    cache_bytes: int = CACHE_BYTES
    outage_limit: float = OUTAGE_LIMIT
    bad_budget: float = 0.01
    weights: list[float] = field(default_factory=list)
    labelled_fraction: float | None = None
    balance: float = 0.0
    augment: dict[str, float] = field(default_factory=dict)

    def check(self) -> None:
        at_least_one(
            {f"data.{key}": self.__dict__[key] for key in ("batch_size", "shuffle_window", "lanes", "cache_bytes")}
        )
        for key, source in (("train", self.train), ("validation", self.validation)):
            if isinstance(source, list) and not all(isinstance(one, str) for one in source):
                raise ConfigError(f"data.{key} must be a path or a list of paths, not {source}")
        if self.workers < 0:
            raise ConfigError(f"data.workers must not be negative, not {self.workers}")
        if not 0 <= self.outage_limit < math.inf:
            raise ConfigError(f"data.outage_limit is a number of seconds, not {self.outage_limit}")
        for key in ("bad_budget", "labelled_fraction", "balance"):
            share = self.__dict__[key]
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"data.{key} is a share between 0 and 1, not {share}")
        if self.weights and not (isinstance(self.train, list) and len(self.weights) == len(self.train)):
            raise ConfigError(f"data.weights={self.weights} needs one number for each set that data.train lists")
        if self.weights and not (min(self.weights) >= 0 and 0 < sum(self.weights) < math.inf):
            raise ConfigError(f"data.weights must not be negative, nor all 0, not {self.weights}")
        for name, strength in self.augment.items():
            if name not in OPERATIONS:
                raise ConfigError(
                    f"data.augment.{name}: no such augmentation{nearest(name, OPERATIONS)}; "
                    f"known: {', '.join(OPERATIONS)}"
                )
            if not 0 <= strength < OPERATIONS[name].limit:
                raise ConfigError(f"data.augment.{name} must lie in [0, {OPERATIONS[name].limit:g}), not {strength}")


@dataclass
class DebugConfig:
    """check_ranks: compare all parameters of all ranks, bit for bit, every so many steps; 0: never."""

    check_ranks: int = 0

    def check(self) -> None:
        if self.check_ranks < 0:
            raise ConfigError(f"debug.check_ranks must not be negative, not {self.check_ranks}")


@dataclass
class RunConfig:
    """A run. `system` is the dataclass that `system.name` names; `optimizers` has one entry per update."""

    system: Any = None
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizers: dict[str, OptimizerConfig] = field(default_factory=dict)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    precision: Precision = "fp32"
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
    timeout: float = 600.0  # seconds that a rank waits for its peers before it gives them up for lost
    debug: DebugConfig = field(default_factory=DebugConfig)
    nonfinite_limit: int = 20  # the run ends after so many steps in a row without a finite gradient

    def check(self) -> None:
        """ConfigError for values that the types allow and that cannot work; ranks are checked at the launch."""
        counts = ("accumulate", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
        at_least_one({key: self.__dict__[key] for key in (*counts, "nonfinite_limit", "max_steps")})
        self.networks.check()
        self.data.check()
        self.ddp.check()
        self.debug.check()
        if not 1 <= self.timeout < 1e6:
            raise ConfigError(f"timeout is seconds, from 1 to a million, not {self.timeout}")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed must lie in [0, 2^63), not {self.seed}")
        if not 0 <= self.ema < 1:
            raise ConfigError(f"ema must lie in [0, 1), not {self.ema}")
        if self.data.batch_size % self.accumulate:
            raise ConfigError(
                f"data.batch_size={self.data.batch_size} must be a multiple of accumulate={self.accumulate}"
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
