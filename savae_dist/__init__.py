"""A distributed large-scale trainer for adversarial variational autoencoders."""

from savae_dist.networks import Classifier, Critic, Decoder, Encoder, Prior
from savae_dist.pipeline.pipeline import Pipeline

__version__ = "0.1.0"

__all__ = ["Classifier", "Critic", "Decoder", "Encoder", "Pipeline", "Prior", "__version__"]
