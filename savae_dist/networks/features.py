"""Frozen feature networks with named taps, for losses between features instead of pixels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from itertools import count
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from savae_dist.networks.base import Encoder, Network
from savae_dist.networks.stored import check_arguments

MOST_STAGES = 32
ROUNDING = 1e-10  # rounding error of a variance, relative to the mean square

Preprocessing = Literal["caffe", "torchvision"]


class FeatureNetwork(Network):
    """x `[batch, *shape]` -> its features by the name of the tap, no deeper than the wanted taps need.

    No update trains it, so it stays as it was loaded: a checkpoint keeps the digest of its weights instead of them.
    """

    taps: tuple[str, ...]  # from the input on

    def digest(self) -> str:
        """sha256 over arguments, names, shapes, types and values, the same on every device and in any memory order."""
        sha = hashlib.sha256(json.dumps([self.model_type, self.init_arguments], sort_keys=True).encode())
        for name, value in sorted(self.state_dict().items()):
            sha.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
            sha.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        return sha.hexdigest()

    @torch.no_grad()
    def shapes(self, shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        """The shape of each tap's feature of one sample of `shape`."""
        training = self.training
        features = self.eval()(torch.zeros(1, *shape), self.taps)
        self.train(training)
        return {name: tuple(feature.shape[1:]) for name, feature in features.items()}


class VGG19(FeatureNetwork):
    """The convolutions of VGG-19 (Simonyan 2015, configuration E) up to relu5_1, named as torchvision names them.

    x: images in [0, 1] with three channels, or with one, which is repeated. width: channels of the first layer, 64 in
    the paper. preprocessing: what the weights were trained on: `caffe` (0-255, blue first, mean subtracted; the
    original's) or `torchvision` (red first, in units of ImageNet's deviation).
    An axis that is down to 1 is pooled no further, so that small images pass.
    """

    model_type = "vgg19"
    taps = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    CONVOLUTIONS: ClassVar = (2, 2, 4, 4, 1)  # per block; of the fifth's four only the first

    def __init__(self, width: int = 64, preprocessing: Preprocessing = "caffe") -> None:
        super().__init__()
        self.preprocessing = preprocessing
        caffe = preprocessing == "caffe"
        mean, std = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        if caffe:
            mean, std = ((103.939, 116.779, 123.68), (1.0, 1.0, 1.0))
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)
        self.mean: Tensor
        self.std: Tensor
        layers: list[nn.Module] = []
        self.ends: dict[str, int] = {}  # tap -> number of layers up to it
        channels = 3
        for block, convolutions in enumerate(self.CONVOLUTIONS):
            layers += [Pool()] if block else []
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width * 2 ** min(block, 3), 3, padding=1), nn.ReLU(inplace=True)]
                channels = width * 2 ** min(block, 3)
                self.ends.setdefault(self.taps[block], len(layers))
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor, taps: Collection[str]) -> dict[str, Tensor]:
        x = x.expand(-1, 3, -1, -1)
        if self.preprocessing == "caffe":
            x = 255 * x.flip(1)
        x = (x - self.mean) / self.std
        wanted = {self.ends[tap]: tap for tap in taps}
        features: dict[str, Tensor] = {}
        for number, layer in zip(count(1), self.features, strict=False):
            x = layer(x)
            if number in wanted:
                features[wanted[number]] = x
            if len(features) == len(wanted):
                break
        return features


class Pool(nn.Module):
    """Max-pool 2x2 that rounds down, as torchvision's, but leaves an axis of length 1 alone."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, [min(2, n) for n in x.shape[2:]])


class EncoderFeatures(FeatureNetwork):
    """The features of an encoder of ours; taps `stage1`, `stage2`, ... as the encoder gives them.

    encoder: its `model_type` and arguments. stages: how many features it gives.
    """

    model_type = "encoder_features"

    def __init__(self, encoder: dict[str, Any], stages: int) -> None:
        from savae_dist.networks import NETWORKS  # here, because the registry imports this module

        super().__init__()
        kind = NETWORKS.get(encoder.get("model_type", ""))
        if kind is None or not issubclass(kind, Encoder) or not 0 <= stages <= MOST_STAGES:
            raise ValueError(f"encoder and stages name no encoder of ours with 0 to {MOST_STAGES} features")
        arguments = {name: value for name, value in encoder.items() if name != "model_type"}
        check_arguments(kind, arguments)
        self.encoder = kind(**arguments)
        self.taps = tuple(f"stage{number}" for number in range(1, stages + 1))

    @classmethod
    @torch.no_grad()
    def of(cls, encoder: Encoder, shape: Sequence[int]) -> Self:
        """With the weights of a trained encoder of samples of `shape`."""
        features = encoder.eval().stages(torch.zeros(1, *shape))
        network = cls({"model_type": encoder.model_type, **encoder.init_arguments}, len(features))
        network.encoder.load_state_dict(encoder.state_dict())
        return network

    def forward(self, x: Tensor, taps: Collection[str]) -> dict[str, Tensor]:
        features = zip(self.taps, self.encoder.stages(x), strict=True)
        return {name: feature for name, feature in features if name in taps}


def tap_statistics(network: FeatureNetwork, samples: Iterable[Tensor], taps: Sequence[str]) -> tuple[Tensor, Tensor]:
    """For each tap, float64 `[taps]`: its variance over the samples, and the mean squared distance to the mean image's.

    Both are means over the elements of a feature; a variance within rounding is 0. samples: x, batch by batch, once.
    """
    count, total = 0, torch.zeros(())
    sums, squares = dict.fromkeys(taps, total), dict.fromkeys(taps, total)
    for x in samples:
        count, total = count + len(x), total.to(x.device) + x.double().sum(0)
        for name, feature in network(x, taps).items():
            sums[name] = sums[name].to(x.device) + feature.double().sum(0)
            squares[name] = squares[name].to(x.device) + feature.double().square().sum(0)
    of_mean = network((total / count).to(x.dtype)[None], taps)
    variances, distances = [], []
    for name in taps:
        mean, square, target = sums[name] / count, squares[name] / count, of_mean[name][0].double()
        variance = (square - mean**2).mean()
        variances.append(torch.where(variance > ROUNDING * square.mean(), variance, 0.0))
        distances.append((square - 2 * target * mean + target**2).mean())
    return torch.stack(variances), torch.stack(distances)


class TapWeights(Network):
    """The factors of the taps' losses, `[taps]`; no update trains them, and checkpoints store them."""

    model_type = "tap_weights"

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("weight", torch.tensor(weights))
        self.weight: Tensor

    def forward(self) -> Tensor:
        return self.weight
