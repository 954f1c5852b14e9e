"""What a pipeline gives back: raw samples as arrays, tensors or PIL images, and itself in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import torch

from savae_dist.networks import Network
from savae_dist.preprocess import DataSpec

Output = Literal["np", "pt", "pil"]
Returned = Any  # an array `[n, ...]`, a tensor of the same, or a list of PIL images


def returned(x: np.ndarray, spec: DataSpec, output_type: Output) -> Returned:
    """Raw samples as `np` (an array), `pt` (a tensor) or `pil` (a list of PIL images); ValueError for anything else."""
    if output_type == "np":
        return x
    if output_type == "pt":
        return torch.from_numpy(x)
    if output_type != "pil":
        raise ValueError(f"output_type={output_type!r}: there are {', '.join(get_args(Output))}")
    if spec.kind != "image" or spec.shape[0] not in (1, 3):
        raise ValueError(f"output_type='pil': PIL has no {spec.kind}s of {spec.shape[0]} channels; take 'np'")
    from PIL import Image  # here: arrays need none

    return [Image.fromarray(one) for one in x]


def described(networks: Mapping[str, Network], spec: DataSpec, system: Mapping[str, Any]) -> str:
    """`savae, images 1x28x28, 10 classes; encoder ConvEncoder, decoder ConvDecoder`."""
    rate = f" at {spec.rate:g} Hz" if spec.rate else ""
    name = f"{known}, " if (known := system.get("name")) else ""
    parts = ", ".join(f"{role} {type(network).__name__}" for role, network in networks.items())
    return f"{name}{spec.kind}s {'x'.join(map(str, spec.shape))}{rate}, {spec.classes} classes; {parts}"
