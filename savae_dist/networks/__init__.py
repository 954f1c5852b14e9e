"""The networks; `model_type` in a folder's config.json names one of them."""

from savae_dist.networks.autoencoders import autoencoder
from savae_dist.networks.base import Classifier, Critic, Decoder, Encoder, Network
from savae_dist.networks.conv import ConvCritic, ConvDecoder, ConvEncoder
from savae_dist.networks.features import VGG19, EncoderFeatures, FeatureNetwork, Preprocessing, TapWeights
from savae_dist.networks.hou import HouCritic, HouDecoder, HouEncoder
from savae_dist.networks.mlp import DenseClassifier

NETWORKS: dict[str, type[Network]] = {
    "conv_encoder": ConvEncoder,
    "conv_decoder": ConvDecoder,
    "conv_critic": ConvCritic,
    "dense_classifier": DenseClassifier,
    "hou_encoder": HouEncoder,
    "hou_decoder": HouDecoder,
    "hou_critic": HouCritic,
    "vgg19": VGG19,
    "encoder_features": EncoderFeatures,
    "tap_weights": TapWeights,
}

__all__ = [
    "NETWORKS",
    "VGG19",
    "Classifier",
    "ConvCritic",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "Decoder",
    "DenseClassifier",
    "Encoder",
    "EncoderFeatures",
    "FeatureNetwork",
    "HouCritic",
    "HouDecoder",
    "HouEncoder",
    "Network",
    "Preprocessing",
    "TapWeights",
    "autoencoder",
]
