"""The networks; `model_type` in a folder's config.json names one of them."""

from savae_dist.networks.base import Classifier, Critic, Decoder, Encoder, Network
from savae_dist.networks.conv import ConvCritic, ConvDecoder, ConvEncoder
from savae_dist.networks.mlp import DenseClassifier

NETWORKS: dict[str, type[Network]] = {
    "conv_encoder": ConvEncoder,
    "conv_decoder": ConvDecoder,
    "conv_critic": ConvCritic,
    "dense_classifier": DenseClassifier,
}

__all__ = [
    "NETWORKS",
    "Classifier",
    "ConvCritic",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "Decoder",
    "DenseClassifier",
    "Encoder",
    "Network",
]
