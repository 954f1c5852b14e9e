"""The metrics of a validation and of an evaluation: which way is better, and what each is to be compared with."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Literal, get_args

from savae_dist.config.effect import no_effect
from savae_dist.config.nearest import nearest
from savae_dist.errors import ConfigError

Direction = Literal["higher", "lower"]

HIGHER = (
    *("accuracy", "macro_f1", "macro_auroc", "psnr", "ssim", "label_agreement", "inception_score", "class_balance"),
    *("precision", "recall", "density", "coverage", "linear_probe", "knn_probe"),
)
LOWER = (
    *("cluster_error", "reconstruction_mse", "class_flip_rate", "judge_flip_rate", "log_spectral_distance"),
    *("envelope_spectral_distance", "frechet_distance", "label_frechet_distance", "rfid", "rkid", "gfid", "gkid"),
)
DIRECTIONS: Mapping[str, Direction] = ChainMap(dict.fromkeys(HIGHER, "higher"), dict.fromkeys(LOWER, "lower"))
# Metric -> the one that says how good it would be without what was learnt, or how good real samples are.
BASELINES = {
    "reconstruction_mse": "class_mean_mse",
    "log_spectral_distance": "class_mean_log_spectral_distance",
    "envelope_spectral_distance": "class_mean_envelope_spectral_distance",
    "frechet_distance": "frechet_floor",
    "gfid": "gfid_floor",
    "linear_probe": "most_frequent",
    "knn_probe": "most_frequent",
    "nearest_training": "nearest_training_real",
}
# Shares of samples that are counted one by one, with the samples that count.
SHARES = {
    "accuracy": "labelled",
    "cluster_error": "labelled",
    "class_flip_rate": "all",
    "judge_flip_rate": "all",
}
# Metrics of a validation that say how good the networks are; the others are baselines.
VALIDATED = (
    *("accuracy", "cluster_error", "reconstruction_mse", "class_flip_rate", "judge_flip_rate", "kl", "sharpness"),
    *("psnr", "ssim", "log_spectral_distance", "envelope_spectral_distance"),
)


def kept_by(keep_best: str) -> tuple[str, Direction]:
    """The metric, and which way is better, of `METRIC`, `METRIC:lower` or `METRIC:higher`; ConfigError for no such."""
    metric, colon, given = keep_best.partition(":")
    if metric not in VALIDATED:
        raise ConfigError(f"keep_best={keep_best}: {metric!r} is no metric of a validation{nearest(metric, VALIDATED)}")
    for direction in get_args(Direction):
        if given == direction:
            return metric, direction
    if colon or metric not in DIRECTIONS:
        raise ConfigError(f"keep_best={keep_best}: say which way is better, {metric}:lower or {metric}:higher")
    return metric, DIRECTIONS[metric]


def check_best(keep_best: str | None, patience: int, judge: str | None) -> None:
    """ConfigError unless these keys of a run go together."""
    if keep_best is not None and kept_by(keep_best)[0] == "judge_flip_rate" and judge is None:
        raise ConfigError(f"keep_best={keep_best} needs judge=PIPELINE, which tells the flips")
    if patience < 0:
        raise ConfigError(f"patience must not be negative, not {patience}")
    if patience and keep_best is None:
        raise no_effect("patience", patience, "without keep_best")
