"""Every key of a run except those of its system, with type and default.

A system's hyperparameters are the fields of its own class. This module does not load torch, so that a wrong key is
refused before torch is loaded, and every part of the package may take its defaults here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from savae_dist.config.augmentations import check_strengths
from savae_dist.config.compile import Compile, check_compile
from savae_dist.config.counts import Auto, at_least_one
from savae_dist.config.effect import needs, no_effect
from savae_dist.config.hub import HubConfig, check_resume
from savae_dist.config.members import check_members
from savae_dist.config.metric_names import check_best
from savae_dist.config.networks import NetworksConfig
from savae_dist.config.pictures import as_lists
from savae_dist.config.terms import AdaptiveConfig, ScheduleConfig
from savae_dist.config.trackers import check_trackers
from savae_dist.errors import ConfigError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]

MAX_LANES = 65_536
# By key, far above all that is of use: memory is taken by these numbers, and a slip would be found out by its lack.
LIMITS = {
    "networks.width": 4096,
    "data.batch_size": 1 << 20,
    "data.lanes": MAX_LANES,
    "data.workers": 1024,
    "system.latent_dim": 65_536,
    "system.clusters": 65_536,
    "system.prior_modes": 65_536,
    **{"system.critic_steps": 10_000, "system.decoder_noise": 4096},
}


@dataclass
class DataConfig:
    """train, validation: a packed folder, a brace pattern of tars, or a list, on disk or behind URLs (s3://, gs://,
    https://, hf:// ...); train null: the embedded digits.

    x, y, attributes: of other writers' tars: the ending of the members that are the samples, what tells the labels, and
    what holds more values of a sample; null: an image or npy, cls, and none (`config.members`).
    batch_size: samples per optimiser step, over all processes. normalise: of signals: `window` or `dataset` statistics.
    lanes: parallel streams through the shards, fixed for a run; auto = max(8, processes). bad_budget: the fraction
    of the set that its index may leave out and a process (each counts its own samples) may find unusable.
    weights: shares of the sets that `train` lists; empty: by their sizes. labelled_fraction: share of labelled samples
    in every batch; null: as in the data. balance: a class of n labelled samples is drawn in proportion to
    n^(1 - balance): 0 as in the data, 1 all classes equally often. hold_out: the share of `train` that is not trained
    on and takes the place of `validation`. hold_out_by: what stays together there: groups of the packer's (machines),
    recordings; auto: groups where the shards name some, else recordings.
    cache_dir: where remote shards are kept, at most cache_bytes of them; null: ~/.cache/savae_dist.
    outage_limit: seconds for which a store may be out of reach before the run stops.
    augment: strengths by name, of `AUGMENTATIONS`; `none` in YAML for none at all. augment_phases: the phases whose
    batches are augmented; empty: all.
    size: of pictures, `128` or `[height,width]`, made by `resize`. range: values that become 0 and 1, `[0,4095]`.
    """

    train: str | list[str] | None = None
    validation: str | list[str] | None = None
    x: str | None = None
    y: str | None = None
    attributes: str | None = None
    hold_out: float = 0.0
    hold_out_by: Literal["auto", "group", "recording"] = "auto"
    batch_size: int = 128
    workers: int = 0
    shuffle_window: int = 16
    lanes: int | Auto = "auto"
    normalise: Literal["window", "dataset", "none"] = "window"
    cache: Literal["none", "memory"] = "none"
    cache_dir: str | None = None
    cache_bytes: int = 50_000_000_000
    # Below the ten minutes after which NCCL ends a run if the other ranks wait for one.
    outage_limit: float = 540.0
    bad_budget: float = 0.01
    weights: list[float] = field(default_factory=list)
    labelled_fraction: float | None = None
    balance: float = 0.0
    augment: dict[str, float] = field(default_factory=dict)
    augment_phases: list[str] = field(default_factory=list)
    size: int | list[int] | None = None
    resize: Literal["crop", "pad", "stretch"] = "crop"
    mode: Literal["auto", "gray", "rgb"] = "auto"
    range: str | list[float] | None = None

    def check(self) -> None:
        at_least_one(
            {f"data.{key}": getattr(self, key) for key in ("batch_size", "shuffle_window", "lanes", "cache_bytes")}
        )
        for key, source in (("train", self.train), ("validation", self.validation)):
            if isinstance(source, list) and not all(isinstance(one, str) for one in source):
                raise ConfigError(f"data.{key} must be a path or a list of paths, not {source}")
        check_members(self.x, self.y, self.attributes)
        if self.workers < 0:
            raise ConfigError(f"data.workers must not be negative, not {self.workers}")
        if not 0 <= self.outage_limit < math.inf:
            raise ConfigError(f"data.outage_limit is a number of seconds, not {self.outage_limit}")
        for key in ("bad_budget", "labelled_fraction", "balance"):
            share = getattr(self, key)
            if share is not None and not 0 <= share <= 1:
                raise ConfigError(f"data.{key} is a share between 0 and 1, not {share}")
        if not 0 <= self.hold_out <= 0.5:
            raise ConfigError(f"data.hold_out is a share of data.train between 0 and 0.5, not {self.hold_out}")
        if self.hold_out and self.validation:
            raise ConfigError(
                f"data.hold_out={self.hold_out} takes the place of data.validation={self.validation}: leave one out, "
                "or set data.validation=null"
            )
        if self.hold_out_by != "auto" and not self.hold_out:
            raise no_effect("data.hold_out_by", self.hold_out_by, "without data.hold_out")
        if self.weights and not (isinstance(self.train, list) and len(self.weights) == len(self.train)):
            raise ConfigError(f"data.weights={self.weights} needs one number for each set that data.train lists")
        if not all(isinstance(weight, float) for weight in self.weights):
            raise ConfigError(f"data.weights must be numbers, not {self.weights}")
        if self.weights and not (min(self.weights) >= 0 and 0 < sum(self.weights) < math.inf):
            raise ConfigError(f"data.weights must not be negative, nor all 0, not {self.weights}")
        self.size, self.range = as_lists(self.size, self.resize, self.range)
        check_strengths(self.augment)
        if self.augment_phases and not self.augment:
            raise no_effect("data.augment_phases", self.augment_phases, "without data.augment")


@dataclass
class DivergenceConfig:
    """retries: how often a run that has diverged goes back to its last good checkpoint, before it ends.

    lr_factor: what all learning rates are multiplied by each time.
    """

    retries: int = 0
    lr_factor: float = 0.5

    def check(self) -> None:
        if self.retries < 0:
            raise ConfigError(f"divergence.retries must not be negative, not {self.retries}")
        if not 0 < self.lr_factor < 1:
            raise ConfigError(f"divergence.lr_factor must lie between 0 and 1, not {self.lr_factor}")


@dataclass
class DebugConfig:
    """check_ranks: compare all parameters of all ranks, bit for bit, every so many steps; 0: never."""

    check_ranks: int = 0

    def check(self) -> None:
        if self.check_ranks < 0:
            raise ConfigError(f"debug.check_ranks must not be negative, not {self.check_ranks}")


@dataclass
class OptimizerConfig:
    """How one update steps. The schedule counts the iterations of the update's phase, from `start` on.

    start: iterations of the phase before the update's first step; its place in the data and the noise is kept.
    schedule: `constant`, `cosine` (to zero at the phase's end) or `step` (times `decay_factor` every `decay_every`
        iterations); each after a linear rise over `warmup` iterations.
    clip_norm, clip_value: of the gradient; clip_weights: of the weights after the step; null: none.
    """

    name: Literal["adam", "adamw", "sgd"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = needs((0.9, 0.999), name=("adam", "adamw"))
    momentum: float = needs(0.0, name=("sgd",))
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "step"] = "constant"
    warmup: int = 0
    decay_every: int = needs(1000, schedule=("step",))
    decay_factor: float = needs(0.5, schedule=("step",))
    clip_norm: float | None = None
    clip_value: float | None = None
    clip_weights: float | None = None
    start: int = 0

    def check(self, key: str) -> None:
        """ValueError that names the key (`optimizers.critic`) if a value cannot work."""
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"{key}.lr must be positive, not {self.lr}")
        # Check the types here: the typed configuration lets a list within a list pass.
        if not all(isinstance(beta, float) and 0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"{key}.betas must lie in [0, 1), not {self.betas}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"{key}.momentum must lie in [0, 1), not {self.momentum}")
        if min(self.warmup, self.start) < 0 or not 0 <= self.weight_decay < math.inf:
            raise ValueError(f"{key}.warmup, {key}.start and {key}.weight_decay must not be negative")
        if self.decay_every < 1 or not 0 < self.decay_factor <= 1:
            raise ValueError(f"{key}.decay_every must be at least 1 and {key}.decay_factor in (0, 1]")
        for name, value in (("norm", self.clip_norm), ("value", self.clip_value), ("weights", self.clip_weights)):
            if value is not None and not value > 0:
                raise ValueError(f"{key}.clip_{name} must be positive or null, not {value}")


@dataclass
class DdpConfig:
    """bucket_mb: gradients are reduced over the processes in pieces of so many MiB, each as soon as it is full.

    Under ZeRO it is also the size of the pieces in which the new weights are gathered.

    reduce_dtype: bf16 halves the bytes of gradients while they are reduced, for slow connections between machines.
    """

    bucket_mb: float = 25.0
    reduce_dtype: Literal["fp32", "bf16"] = "fp32"

    def check(self) -> None:
        if not 0 < self.bucket_mb < math.inf:
            raise ConfigError(f"ddp.bucket_mb must be positive, not {self.bucket_mb}")


@dataclass
class RunConfig:
    """A run. `system` is the dataclass that `system.name` names; `optimizers` has one entry per update."""

    system: Any = None
    networks: NetworksConfig = field(default_factory=NetworksConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optimizers: dict[str, OptimizerConfig] = field(default_factory=dict)
    # By TERM or UPDATE.TERM of a loss.
    schedules: dict[str, ScheduleConfig] = field(default_factory=dict)
    adaptive: dict[str, AdaptiveConfig] = field(default_factory=dict)
    ddp: DdpConfig = field(default_factory=DdpConfig)
    precision: Precision = "fp32"
    accumulate: int = 1
    compile: Compile = "none"
    posterior_cache: int = 1_000_000_000  # bytes for the posteriors of a frozen encoder over a phase; 0: none are kept
    ema: float = 0.0  # decay of the weight average that is validated and exported; 0: none
    seed: int = 0
    output: str | None = None  # null: runs/NAME, with a digest of what differs from the preset
    resume: str = "auto"  # auto, never, or a repository that a run pushed its checkpoints to
    hub: HubConfig = field(default_factory=HubConfig)
    max_steps: int | None = None  # caps every phase, for trials
    trackers: list[str] = field(default_factory=list)  # experiment trackers beside TensorBoard (`config.trackers`)
    log_every: int = 50
    validate_every: int = 1000
    checkpoint_every: int = 1000
    checkpoint_minutes: float | None = None
    checkpoint_background: bool = True
    keep_checkpoints: int = 3
    keep_best: str | None = None  # METRIC or METRIC:lower|higher: the checkpoint of the best validation stays, too
    patience: int = 0  # the last phase ends after so many validations in a row that are no better; 0: never
    judge: str | None = None  # the reference classifier: a pipeline, trained independently, that judges reconstructions
    timeout: float = 600.0  # seconds that a rank waits for its peers before it gives them up for lost
    debug: DebugConfig = field(default_factory=DebugConfig)
    nonfinite_limit: int = 20  # the run has diverged after so many steps in a row without a finite gradient
    divergence: DivergenceConfig = field(default_factory=DivergenceConfig)

    def capped(self, steps: int) -> int:
        """The steps that a phase of so many makes in this run."""
        return min(steps, self.max_steps or steps)

    def check(self) -> None:
        """ConfigError for values that the types allow and that cannot work; ranks are checked at the launch."""
        counts = ("accumulate", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints")
        at_least_one({key: getattr(self, key) for key in (*counts, "nonfinite_limit", "max_steps")})
        check_trackers(self.trackers)
        check_best(self.keep_best, self.patience, self.judge)
        for check in (self.networks.check, self.data.check, self.ddp.check, self.hub.check, self.debug.check):
            check()
        check_compile(self.compile, self.accumulate, self.networks.checkpoint_activations)
        check_resume(self.resume)
        self.divergence.check()
        for term, schedule in self.schedules.items():
            schedule.check(f"schedules.{term}")
        for term, adaptive in self.adaptive.items():
            adaptive.check(f"adaptive.{term}")
        if self.posterior_cache < 0:
            raise ConfigError(f"posterior_cache must not be negative, not {self.posterior_cache}")
        if self.checkpoint_minutes is not None and not 0 < self.checkpoint_minutes < math.inf:
            raise ConfigError(f"checkpoint_minutes must be positive or null, not {self.checkpoint_minutes}")
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
