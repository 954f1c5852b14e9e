"""The networks; `model_type` in a folder's config.json names one of them."""

from savae_dist.networks.backbone import Backbone, make_critic, make_decoder, make_encoder
from savae_dist.networks.base import Classifier, Critic, Decoder, Encoder, Network
from savae_dist.networks.conv import ConvCritic, ConvDecoder, ConvEncoder
from savae_dist.networks.dcgan import DcganCritic, DcganDecoder, DcganEncoder
from savae_dist.networks.mlp import DenseClassifier

NETWORKS: dict[str, type[Network]] = {
    "conv_encoder": ConvEncoder,
    "conv_decoder": ConvDecoder,
    "conv_critic": ConvCritic,
    "dcgan_encoder": DcganEncoder,
    "dcgan_decoder": DcganDecoder,
    "dcgan_critic": DcganCritic,
    "dense_classifier": DenseClassifier,
}

__all__ = [
    "NETWORKS",
    "Backbone",
    "Classifier",
    "ConvCritic",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "DcganCritic",
    "DcganDecoder",
    "DcganEncoder",
    "Decoder",
    "DenseClassifier",
    "Encoder",
    "Network",
    "make_critic",
    "make_decoder",
    "make_encoder",
]
