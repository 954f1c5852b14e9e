"""The networks; `model_type` in a folder's config.json names one of them."""

from savae_dist.networks.allconv import AllConvDecoder, AllConvEncoder, ConvCodeEncoder
from savae_dist.networks.backbones import (
    Backbone,
    CriticBackbone,
    make_autoencoder,
    make_critic,
    make_decoder,
    make_encoder,
)
from savae_dist.networks.base import Classifier, Critic, Decoder, Discriminator, Encoder, Network
from savae_dist.networks.codes import LabelPart, Prior
from savae_dist.networks.conv import ConvCritic, ConvDecoder, ConvEncoder
from savae_dist.networks.dcgan import DcganCritic, DcganDecoder, DcganEncoder
from savae_dist.networks.features import VGG19, EncoderFeatures, FeatureNetwork, Preprocessing, TapWeights
from savae_dist.networks.hou import HouCritic, HouDecoder, HouEncoder
from savae_dist.networks.mlp import CodeDiscriminator, DenseClassifier, MLPDecoder, MLPEncoder
from savae_dist.networks.period import PeriodCritic
from savae_dist.networks.spectrogram import SpectrogramCritic

NETWORKS: dict[str, type[Network]] = {
    "conv_encoder": ConvEncoder,
    "conv_decoder": ConvDecoder,
    "conv_critic": ConvCritic,
    "spectrogram_critic": SpectrogramCritic,
    "period_critic": PeriodCritic,
    "dcgan_encoder": DcganEncoder,
    "dcgan_decoder": DcganDecoder,
    "dcgan_critic": DcganCritic,
    "dense_classifier": DenseClassifier,
    "mlp_encoder": MLPEncoder,
    "mlp_decoder": MLPDecoder,
    "all_conv_encoder": AllConvEncoder,
    "all_conv_decoder": AllConvDecoder,
    "conv_code_encoder": ConvCodeEncoder,
    "code_discriminator": CodeDiscriminator,
    "prior": Prior,
    "label_part": LabelPart,
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
    "AllConvDecoder",
    "AllConvEncoder",
    "Backbone",
    "Classifier",
    "CodeDiscriminator",
    "ConvCodeEncoder",
    "ConvCritic",
    "ConvDecoder",
    "ConvEncoder",
    "Critic",
    "CriticBackbone",
    "DcganCritic",
    "DcganDecoder",
    "DcganEncoder",
    "Decoder",
    "DenseClassifier",
    "Discriminator",
    "Encoder",
    "EncoderFeatures",
    "FeatureNetwork",
    "HouCritic",
    "HouDecoder",
    "HouEncoder",
    "LabelPart",
    "MLPDecoder",
    "MLPEncoder",
    "Network",
    "PeriodCritic",
    "Preprocessing",
    "Prior",
    "SpectrogramCritic",
    "TapWeights",
    "make_autoencoder",
    "make_critic",
    "make_decoder",
    "make_encoder",
]
