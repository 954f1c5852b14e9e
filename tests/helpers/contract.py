"""Every system with small options, and a row for each option that changes what is computed."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from helpers.features import saved
from omegaconf import OmegaConf

from savae_dist.networks import ConvEncoder
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SYSTEMS
from savae_dist.systems.phases import System
from savae_dist.testing.small_run import IMAGE, SIGNAL

OURS = "ours"  # where a row names a feature network: a small encoder of ours

# System -> its options; the first are small sizes, which every other row builds upon.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "savae": [
        {"latent_dim": 3},
        {"kl_reduction": "mean", "reconstruction_weight": 1.0},
        {"critic_update": "joint", "batches": "shared"},
        {"critic_update": "joint", "critic_regulariser": "gradient_penalty", "critic_steps": 2},
        {"critic_regulariser": "gradient_penalty", "adversarial": "wasserstein"},
        {"critic_regulariser": "r1", "adversarial": "non_saturating"},
        {"critic_regulariser": "r1", "critic_update": "joint", "penalty_weight": 1.0},
        {"critic_regulariser": "spectral_norm", "adversarial": "hinge"},
        {"adversarial": "non_saturating", "feature_tap": "conv", "feature_reduction": "sum"},
        {"adversarial": "lsgan", "feature_tap": "pool", "critic_label": 10.0},
        {"decoder_input": "mean", "latent_input": "mean", "gamma": 0.0},
        {"beta": 0.0},
        {"unlabelled": "pseudo_label"},
        {"unlabelled": "entropy", "unlabelled_weight": 0.1},
        {"unlabelled": "consistency"},
        {"label_smoothing": 0.2},
        {"kl_free_bits": 0.05, "kl_weight": 1.0},
        {"kl_capacity": 5.0, "kl_reduction": "mean"},
        {"feature_form": "gram", "latent_form": "logits"},
        {"spectral_weight": 1.0, "spectral_windows": [8, 16], "envelope_weight": 0.5, "critic": "spectrogram"},
        {"critic": "period", "critic_regulariser": "gradient_penalty", "upsample": "anti_aliased"},
        {"decoder_noise": 8, "upsample": "anti_aliased"},
    ],
    "aae_unsupervised": [
        {"latent_dim": 3},
        {"prior": "mixture", "prior_modes": 3, "backbone": "conv"},
        {"prior": "swiss_roll", "backbone": "savae"},
        {"clusters": 6},
        {"clusters": 6, "backbone": "conv"},
    ],
    "aae_supervised": [
        {"latent_dim": 3},
        {"backbone": "conv"},
        {"label_to": "discriminator", "prior": "mixture"},
        {"label_to": "discriminator", "prior": "swiss_roll", "backbone": "savae"},
    ],
    "aae_semi_supervised": [
        {"latent_dim": 3},
        {"backbone": "conv", "prior_scale": 5.0},
        {"backbone": "savae"},
    ],
    "vae": [
        {"latent_dim": 3},
        {"backbone": "hou", "likelihood": "gaussian"},
        {"kl_weight": 0.0},
        {"kl_free_bits": 0.05, "kl_capacity": 5.0},
    ],
    "dfc_vae": [
        {"latent_dim": 3, "feature_network": OURS},
        {"backbone": "savae", "alpha": 0.0},
        {"feature_scale": "calibrated", "kl_capacity": 5.0},
    ],
    "vae_wgan": [
        {"latent_dim": 3, "feature_network": OURS},
        {"adversarial": "squared", "kl_free_bits": 0.05, "r1_weight": 1.0},
        {"critic_steps": 2, "batches": "fresh"},
        {"beta": 0.0},
    ],
    "vae_gan": [
        {"latent_dim": 3},
        {"backbone": "savae", "kl_free_bits": 0.05, "r1_weight": 1.0},
        {"kl_weight": 0.0, "feature_weight": 0.0},
    ],
    "ava1": [
        {"latent_dim": 3},
        {"backbone": "dcgan", "adversarial": "non_saturating"},
        {"encoder_gradient": "paper"},
    ],
    "ava2": [
        {"latent_dim": 3},
        {"lean": "none", "kl_free_bits": 0.05, "kl_capacity": 5.0, "r1_weight": 1.0},
    ],
    "ava3": [
        {"latent_dim": 3},
        {"backbone": "dcgan", "encoder_gradient": "paper", "adversarial": "non_saturating"},
    ],
    "ava4": [
        {"latent_dim": 3},
        {"lean": "none"},
    ],
    "ava5": [
        {"latent_dim": 3},
        {"backbone": "dcgan"},
        {"encoder_gradient": "paper"},
    ],
    "dcgan": [
        {"latent_dim": 3},
        {"backbone": "savae", "critic_steps": 2, "r1_weight": 1.0},
    ],
    "wgan": [
        {"latent_dim": 3},
        {"backbone": "savae", "r1_weight": 1.0},
    ],
    "lsgan": [
        {"latent_dim": 3},
        {"backbone": "savae", "labels": [-1.0, 1.0, 0.0], "r1_weight": 1.0},
    ],
    "classifier": [
        {"latent_dim": 3},
    ],
}


# Rows with one of these options take no images.
OF_SIGNALS = {("spectral_weight", 1.0), ("critic", "period")}


def specs_of(name: str, row: int) -> tuple[DataSpec, ...]:
    """What samples a row is trained on, the usual ones first."""
    return (SIGNAL,) if any(OPTIONS[name][row].get(key) == value for key, value in OF_SIGNALS) else (IMAGE, SIGNAL)


@cache
def feature_folder(kind: str) -> str:
    """The same network in every process."""
    spec = {spec.kind: spec for spec in (IMAGE, SIGNAL)}[kind]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return saved(ConvEncoder(spec.shape, 2, width=4), spec, Path(tempfile.mkdtemp()) / kind)


def make(name: str, row: int = 0, spec: DataSpec | None = None) -> System:
    """As a configuration makes it; spec: None for the first of `specs_of`."""
    spec = spec or specs_of(name, row)[0]
    options = {"name": name, **OPTIONS[name][0], **OPTIONS[name][row]}
    if options.get("feature_network") == OURS:
        options["feature_network"] = feature_folder(spec.kind)
    system = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SYSTEMS[name]), options))
    assert system != SYSTEMS[name]
    return system
