"""A plain VGG-19 with made-up weights, and feature networks in folders."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from savae_dist.networks import Network
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

# torchvision's vgg19().features: the index of each convolution and its channels in units of the first layer's
CONVOLUTIONS = {
    0: 1,
    2: 1,
    5: 2,
    7: 2,
    10: 4,
    12: 4,
    14: 4,
    16: 4,
    19: 8,
    21: 8,
    23: 8,
    25: 8,
    28: 8,
    30: 8,
    32: 8,
    34: 8,
}
POOLS = {4, 9, 18, 27, 36}
TAPS = {0: "relu1_1", 5: "relu2_1", 10: "relu3_1", 19: "relu4_1", 28: "relu5_1"}


def vgg19_weights(width: int = 4) -> dict[str, Tensor]:
    """Random weights under all the names of torchvision's state dict."""
    generator = torch.Generator().manual_seed(5)
    tensors, channels = {}, 3
    for index, factor in CONVOLUTIONS.items():
        tensors[f"features.{index}.weight"] = torch.randn(width * factor, channels, 3, 3, generator=generator) * 0.2
        tensors[f"features.{index}.bias"] = torch.randn(width * factor, generator=generator)
        channels = width * factor
    for index in (0, 3, 6):
        tensors[f"classifier.{index}.weight"] = torch.zeros(2, 2)
        tensors[f"classifier.{index}.bias"] = torch.zeros(2)
    return tensors


def rounded(constant: float) -> float:
    """To float32, as a network holds it."""
    return torch.tensor(constant).item()


def vgg19(x: Tensor, weights: dict[str, Tensor], preprocessing: str, last: int = 28) -> dict[str, Tensor]:
    """What torchvision's VGG-19 gives, layer by layer up to index `last`."""
    red, green, blue = x.unbind(1)
    if preprocessing == "caffe":
        x = torch.stack([blue * 255 - rounded(103.939), green * 255 - rounded(116.779), red * 255 - rounded(123.68)], 1)
    else:
        colours = zip((red, green, blue), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)
        x = torch.stack([(colour - rounded(mean)) / rounded(std) for colour, mean, std in colours], 1)
    features = {}
    for index in range(last + 1):
        if index in POOLS:
            x = F.max_pool2d(x, 2, 2)
        elif index in CONVOLUTIONS:
            x = F.conv2d(x, weights[f"features.{index}.weight"], weights[f"features.{index}.bias"], padding=1).relu()
            if index in TAPS:
                features[TAPS[index]] = x
    return features


def saved(encoder: Network, spec: DataSpec, folder: Path) -> str:
    Pipeline({"encoder": encoder}, spec).save_pretrained(folder)
    return str(folder)
