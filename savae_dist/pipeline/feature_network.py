"""Frozen feature networks, from where their weights lie; nothing is downloaded but a pipeline that is asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from savae_dist.errors import ConfigError, of_key
from savae_dist.networks import VGG19, Encoder, EncoderFeatures, FeatureNetwork, Preprocessing
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
CONVERT = (
    "python -c 'import torch, safetensors.torch as s; "
    's.save_file(torch.load("vgg19.pth", weights_only=True), "vgg19.safetensors")\''
)


def open_features(key: str, source: str | None, preprocessing: Preprocessing, spec: DataSpec) -> FeatureNetwork:
    """The feature network for samples of `spec`; `key` is what a user calls it.

    source: a `.safetensors` file with torchvision's state dict of a VGG-19, whose input is prepared by `preprocessing`;
    or a run, a pipeline's folder or its id on the Hub, whose encoder is taken. ConfigError or CheckpointError if not.
    """
    if not source:
        raise ConfigError(
            f"{key} is not set: give VGG-19's weights (a .safetensors file), or a trained run or pipeline"
        )
    suffix = Path(source).suffix
    if suffix in PICKLES:
        raise ConfigError(f"{key}={source} is a pickle, which nothing here opens; convert it once: {CONVERT}")
    if suffix == ".safetensors":
        return _vgg19(f"{key}={source}", _tensors(f"{key}={source}", Path(source)), preprocessing, spec)
    with of_key(key, source):
        pipeline = Pipeline.from_pretrained(source)
    encoder = pipeline.networks.get("encoder")
    if not isinstance(encoder, Encoder):
        raise ConfigError(f"{key}={source} has no encoder; choose a pipeline that has one")
    theirs = replace(pipeline.spec, classes=spec.classes, class_names=spec.class_names, rate=spec.rate)
    if theirs != spec:
        raise ConfigError(
            f"{key}={source} takes {theirs.shape} normalised by {theirs.normalise}, not {spec.shape} by "
            f"{spec.normalise} (or with other statistics): train one on the same shards"
        )
    features = EncoderFeatures.of(encoder, spec.shape)
    if not features.taps:
        raise ConfigError(f"{key}={source}: its encoder shows no features; choose another")
    return features


def _tensors(what: str, path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise ConfigError(
            f"{what} does not exist and is not downloaded: put VGG-19's weights there, under torchvision's "
            f"names, converted by {CONVERT}"
        ) from error
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{what} cannot be read ({' '.join(str(error).split())}); convert it again") from error


def _vgg19(what: str, tensors: dict[str, Tensor], preprocessing: Preprocessing, spec: DataSpec) -> VGG19:
    """The network, as wide as the file's first layer; layers after the last tap are ignored."""
    if spec.kind != "image" or spec.shape[0] not in (1, 3):
        raise ConfigError(
            f"{what} takes images of 1 or 3 channels, not {spec.kind}s {spec.shape}; give a pipeline of ours"
        )
    first = tensors.get("features.0.weight")
    network = VGG19(64 if first is None else len(first), preprocessing)
    for name, value in network.state_dict().items():
        if name not in tensors or tensors[name].shape != value.shape:
            found = tuple(tensors[name].shape) if name in tensors else "missing"
            raise ConfigError(
                f"{what} is no VGG-19: {name} is {found}, not {tuple(value.shape)}; give torchvision's names"
            )
    network.load_state_dict({name: tensors[name] for name in network.state_dict()})
    return network
