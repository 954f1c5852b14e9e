"""In which features sets are compared: as the encoder gives them, of images made to fit, and told."""

from __future__ import annotations

import pytest
import torch

from savae_dist.errors import ConfigError
from savae_dist.evaluation.features.feature_view import FeatureView
from savae_dist.networks import ConvDecoder, ConvEncoder, MLPEncoder
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

GREY, COLOUR = DataSpec("image", (1, 12, 12), 4, "unit"), DataSpec("image", (3, 20, 16), 2, "unit")
WINDOWS = DataSpec("signal", (1, 40), 3, "window")


def of(spec: DataSpec, kind: type = ConvEncoder) -> Pipeline:
    torch.manual_seed(0)
    return Pipeline({"encoder": kind(spec.shape, 2)}, spec)


def test_the_last_hidden_layer_of_savaes_encoder_and_the_code_of_others() -> None:
    x, pipeline = torch.rand(5, *GREY.shape), of(GREY)
    view = FeatureView.of(pipeline, "runs/a", GREY)
    seen: list[torch.Tensor] = []
    handle = pipeline.networks["encoder"].mean.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pipeline.posterior(x)
    handle.remove()
    torch.testing.assert_close(torch.from_numpy(view.features(x)).float(), seen[0])
    dense = of(GREY, MLPEncoder)
    code = torch.from_numpy(FeatureView.of(dense, "runs/b", GREY).features(x)).float()
    torch.testing.assert_close(code, dense.posterior(x).mean)


def test_images_of_other_sizes_and_channels_are_made_to_fit() -> None:
    grey, colour = torch.rand(3, *GREY.shape), torch.rand(3, *COLOUR.shape)
    view = FeatureView.of(of(COLOUR), "runs/c", GREY)
    fitted = torch.nn.functional.interpolate(grey.expand(-1, 3, -1, -1), (20, 16), mode="bilinear", antialias=True)
    same = FeatureView.of(view.pipeline, "runs/c", COLOUR).features(fitted.clamp(0, 1))
    torch.testing.assert_close(view.features(grey), same)
    assert view.told()["resize"] == "(1, 12, 12) to (3, 20, 16), bilinear with antialiasing"
    reduced = FeatureView.of(of(GREY), "runs/d", COLOUR)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    fitted = torch.nn.functional.interpolate(
        (colour * weights).sum(1, keepdim=True), (12, 12), mode="bilinear", antialias=True
    )
    same = FeatureView.of(reduced.pipeline, "runs/d", GREY).features(fitted)
    torch.testing.assert_close(reduced.features(colour), same, rtol=1e-4, atol=1e-5)


def test_what_is_told_changes_with_the_weights() -> None:
    told = FeatureView.of(of(GREY), "runs/a", GREY).told()
    assert (told["resize"], told["features"]) == ("none", "last hidden layer of the conv_encoder of runs/a")
    other = of(GREY)
    with torch.no_grad():
        other.networks["encoder"].mean.bias += 1
    assert FeatureView.of(other, "runs/a", GREY).told()["features_sha256"] != told["features_sha256"]


def test_what_cannot_see_these_samples_is_refused() -> None:
    decoder = Pipeline({"decoder": ConvDecoder(GREY.shape, 2)}, GREY)
    with pytest.raises(ConfigError, match="has no encoder"):
        FeatureView.of(decoder, "runs/e", GREY)
    for spec in (WINDOWS, DataSpec("signal", (1, 50), 3, "window"), DataSpec("signal", (1, 40), 3, "none")):
        with pytest.raises(ConfigError, match="choose an encoder of these"):
            FeatureView.of(of(GREY) if spec is WINDOWS else of(WINDOWS), "runs/f", spec)
