"""All that a system or a network of one's own needs, in one import; docs/own_systems.md shows a whole one.

- What a system is made of: `System` (what it must have), `Phase`, `Update`, `Recalibration`, `Loss`, `Batch`, and
  `check_numbers` for its hyperparameters.
- Networks: `Network` and its roles `Encoder`, `Decoder`, `Critic`, `Classifier`, `Discriminator`; those of the papers
  by `make_autoencoder`, `make_encoder`, `make_decoder`, `make_critic`; `Prior` of the codes.
- What they work with: `DataSpec` (what the samples are), `Posterior` (what an encoder gives), `Norm`, `Output`,
  `output_for` (what a decoder ends with), `full_precision` (for scores and losses under bf16 and fp16).
- `losses`: the terms of the papers as functions of tensors.
- Where one enters one's own: `SYSTEMS` and `NETWORKS`.
- `main`: the trainer's command line, to be called under `if __name__ == "__main__":`.

`savae_dist.testing.check_system` tests a system, `savae_dist.Pipeline` uses what it has trained.
"""

from savae_dist.latents import Posterior, full_precision
from savae_dist.networks import (
    NETWORKS,
    Classifier,
    Critic,
    Decoder,
    Discriminator,
    Encoder,
    Network,
    Prior,
    make_autoencoder,
    make_critic,
    make_decoder,
    make_encoder,
)
from savae_dist.networks.blocks import Norm, Output, output_for
from savae_dist.preprocess import DataSpec
from savae_dist.systems import SYSTEMS, losses
from savae_dist.systems.phases import Batch, Loss, Phase, Recalibration, System, Update, check_numbers
from savae_dist.train import main

__all__ = [
    "NETWORKS",
    "SYSTEMS",
    "Batch",
    "Classifier",
    "Critic",
    "DataSpec",
    "Decoder",
    "Discriminator",
    "Encoder",
    "Loss",
    "Network",
    "Norm",
    "Output",
    "Phase",
    "Posterior",
    "Prior",
    "Recalibration",
    "System",
    "Update",
    "check_numbers",
    "full_precision",
    "losses",
    "main",
    "make_autoencoder",
    "make_critic",
    "make_decoder",
    "make_encoder",
    "output_for",
]
