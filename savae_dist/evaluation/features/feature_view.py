"""The features in which sets of samples are compared: those of a judge, or of any encoder of ours."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from savae_dist.errors import ConfigError
from savae_dist.networks import ConvEncoder, Encoder, EncoderFeatures
from savae_dist.networks.base import inference
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

GREY = (0.299, 0.587, 0.114)  # ITU-R 601, as PIL turns colours to grey


@dataclass(frozen=True)
class FeatureView:
    """The last hidden layer of SAVAE's encoder, 128 units before its latent heads; the posterior mean of any other.

    source: where the encoder is from. spec: of the samples that are looked at.
    """

    pipeline: Pipeline
    source: str
    spec: DataSpec

    @classmethod
    def of(cls, pipeline: Pipeline, source: str, spec: DataSpec) -> FeatureView:
        """ConfigError unless the pipeline has an encoder, of samples of the same kind."""
        theirs = pipeline.spec
        if not isinstance(pipeline.networks.get("encoder"), Encoder):
            raise ConfigError(f"--features {source} has no encoder; choose a pipeline that has one")
        alike = replace(theirs, classes=spec.classes, class_names=spec.class_names, rate=spec.rate, origin=spec.origin)
        if spec.kind != theirs.kind or (spec.kind == "signal" and alike != spec):
            raise ConfigError(
                f"--features {source} takes {theirs.kind}s {theirs.shape} normalised by {theirs.normalise}, not "
                f"{spec.kind}s {spec.shape} by {spec.normalise} (or with other statistics); choose an encoder of these"
            )
        return cls(pipeline, source, spec)

    def features(self, x: Tensor) -> np.ndarray:
        """Float64 `[n, units]` of normalised samples x `[n, *shape]`."""
        encoder = self.pipeline.role("encoder")
        if not isinstance(encoder, ConvEncoder):
            return self.pipeline.posterior(self._fitted(x)).mean.double().cpu().numpy()
        found = []
        with inference(encoder):
            for part in x.split(self.pipeline.batch_size):
                part = self._fitted(part.to(self.pipeline.device)).to(self.pipeline.dtype)
                found.append(encoder.hidden(encoder.features(part)[1]).double().cpu())
        return torch.cat(found).numpy()

    def _fitted(self, x: Tensor) -> Tensor:
        """Images as the encoder takes them, in channels and size."""
        channels, *size = self.pipeline.spec.shape
        if x.shape[1] < channels:
            x = x.expand(-1, channels, -1, -1)
        elif x.shape[1] > channels:
            x = (x * x.new_tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True)
        if self.spec.kind == "image" and list(x.shape[2:]) != size:
            x = F.interpolate(x, size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)
        return x

    def told(self) -> dict[str, str]:
        """What stands beside the distances, which can be compared only where it is the same."""
        encoder, spec = self.pipeline.role("encoder"), self.pipeline.spec
        assert isinstance(encoder, Encoder)
        layer = "last hidden layer" if isinstance(encoder, ConvEncoder) else "posterior mean"
        same = spec.shape == self.spec.shape
        resize = "none" if same else f"{self.spec.shape} to {spec.shape}, bilinear with antialiasing"
        digest = EncoderFeatures.of(encoder, spec.shape).digest()
        return {
            "features": f"{layer} of the {encoder.model_type} of {self.source}",
            "features_sha256": digest,
            "resize": resize,
        }
