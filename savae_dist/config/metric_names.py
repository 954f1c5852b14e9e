"""The metrics of a validation and of an evaluation: which way is better, and what each is to be compared with."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Literal

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
