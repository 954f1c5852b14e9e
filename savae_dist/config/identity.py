"""A configuration as plain values, and the keys that identify a run: they must not change when it is resumed."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import OmegaConf

from savae_dist.config.auto import AUTO, IN_NAMES
from savae_dist.config.schema import RunConfig

# Keys that may change when a run is resumed: they alter neither the mathematics nor the order of the data.
FREE_KEYS = {
    *("output", "resume", "log_every", "validate_every", "checkpoint_every", "keep_checkpoints", "nonfinite_limit"),
    *("checkpoint_minutes", "checkpoint_background"),
    *("keep_best", "trackers"),
    "networks.checkpoint_activations",
    *("judge", "compile", "accumulate", "ddp.bucket_mb", "posterior_cache", "timeout", "debug.check_ranks"),
    *("divergence.retries", "divergence.lr_factor"),
    *("data.workers", "data.lanes", "data.cache", "data.validation", "data.bad_budget"),
    *("data.cache_dir", "data.cache_bytes", "data.outage_limit"),
    *("hub.push", "hub.private", "hub.license", "hub.timeout"),
}


NEVER = object()  # equals no value
# Keys that came later (`*`: an update), with the value at which a run is the one that it was without them: at that they
# are left out.
LATER_KEYS: dict[str, Any] = {
    "optimizers.*.start": 0,
    **{"system.kl_free_bits": 0.0, "system.kl_capacity": 0.0, "system.r1_weight": 0.0},
    "data.hold_out": 0.0,
    "data.hold_out_by": "auto",
    "data.augment_phases": [],
    "system.label_smoothing": 0.0,
    **{"system.spectral_weight": 0.0, "system.spectral_windows": [64, 128, 512], "system.envelope_weight": 0.0},
    **{"system.feature_form": "elements", "system.critic": "waveform", "system.latent_form": "probabilities"},
    **{"system.upsample": "nearest", "system.decoder_noise": 0},
    **{"data.x": None, "data.y": None, "data.attributes": None},
    "patience": 0,
    "ddp.reduce_dtype": "fp32",
    **{"data.size": None, "data.resize": "crop", "data.mode": "auto", "data.range": None},
}


def without_it(key: str, otherwise: Any = None) -> Any:
    """What stands for a later key where there is none; `otherwise` for all other keys."""
    return next((value for pattern, value in LATER_KEYS.items() if fnmatchcase(key, pattern)), otherwise)


def to_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML; used as FILE.yaml it gives the same run."""
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


def plain(system: object) -> dict[str, Any]:
    """A system's name and hyperparameters as JSON-able values."""
    values = OmegaConf.to_container(OmegaConf.structured(system))
    assert isinstance(values, dict)
    return {str(k): list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def identity(config: RunConfig) -> dict[str, Any]:
    """The keys that identify a run, with their values: all but the free ones."""
    return {
        key: value for key, value in as_dict(config).items() if key not in FREE_KEYS and value != without_it(key, NEVER)
    }


def digest(config: RunConfig, judge: str | None = None) -> str:
    """Eight hexadecimal digits of the run's identity, in which `auto` counts as the number that it once was.

    judge: a name that counts too. The key `judge` is free and does not count, because it does not change the training;
    a sweep that reads what the judge said gives this name.
    """
    values = {key: IN_NAMES[key] if value == AUTO else value for key, value in identity(config).items()}
    values |= {"judge": judge} if judge is not None else {}
    return hashlib.sha256(repr(sorted(values.items())).encode()).hexdigest()[:8]
