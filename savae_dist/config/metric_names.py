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
# Metric -> its value for a decoder that answers every sample with the mean of its class.
CLASS_MEANS = {
    "reconstruction_mse": "class_mean_mse",
    "log_spectral_distance": "class_mean_log_spectral_distance",
    "envelope_spectral_distance": "class_mean_envelope_spectral_distance",
}
# Metric -> its baseline: the value without anything learnt, or that of real samples.
BASELINES = {
    **CLASS_MEANS,
    "frechet_distance": "frechet_floor",
    "gfid": "gfid_floor",
    "linear_probe": "most_frequent",
    "knn_probe": "most_frequent",
    "nearest_training": "nearest_training_real",
}
# Share of samples -> the samples among which it is counted.
SHARES = {
    "accuracy": "labelled",
    "cluster_error": "labelled",
    "class_flip_rate": "all",
    "judge_flip_rate": "all",
}
# The metrics of a validation that `keep_best` may name: all but the baselines.
VALIDATED = (
    *("accuracy", "cluster_error", "reconstruction_mse", "class_flip_rate", "judge_flip_rate", "kl", "sharpness"),
    *("psnr", "ssim", "log_spectral_distance", "envelope_spectral_distance"),
)


def kept_by(keep_best: str) -> tuple[str, Direction]:
    """`METRIC`, `METRIC:lower` or `METRIC:higher` as metric and better direction; ConfigError for anything else."""
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
    """ConfigError unless these three keys of a run fit together."""
    if keep_best is not None and kept_by(keep_best)[0] == "judge_flip_rate" and judge is None:
        raise ConfigError(f"keep_best={keep_best} needs judge=PIPELINE, which tells the flips")
    if patience < 0:
        raise ConfigError(f"patience must not be negative, not {patience}")
    if patience and keep_best is None:
        raise no_effect("patience", patience, "without keep_best")
