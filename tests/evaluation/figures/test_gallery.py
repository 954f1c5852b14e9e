"""The figures that an evaluation adds: each drawn where it applies, and what it shows is where its axes say."""

from __future__ import annotations

import xml.etree.ElementTree
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.pipelines import untrained
from PIL import Image

from savae_dist.evaluation import report
from savae_dist.evaluation.classes.attributes import direction, of_classes
from savae_dist.evaluation.figures import gallery
from savae_dist.evaluation.figures.attribute_figures import attribute_vectors
from savae_dist.evaluation.figures.code_mosaic import code_mosaic, on_grid
from savae_dist.evaluation.figures.gallery import Extras
from savae_dist.evaluation.figures.interpolation import interpolation
from savae_dist.evaluation.figures.training_curves import grouped, training_curves
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

IMAGES = DataSpec("image", (1, 9, 8), 3, "unit", class_names=("cat", "dog", "a bird"))
WINDOWS = DataSpec("signal", (2, 200), 3, "window", rate=12000.0)
CURVES = {
    "vec/ce": ([1, 2, 3], [3.0, 2.0, 1.0]),
    "validation/kl": ([1, 3], [1.0, 2.0]),
    "vec/skipped": ([1, 2], [0.0, 0.0]),
}


@pytest.mark.rendered
@pytest.mark.parametrize("spec", [IMAGES, WINDOWS], ids=["images", "two channels"])
def test_every_figure_that_applies_is_written_as_png_and_svg(spec: DataSpec, tmp_path: Path) -> None:
    x, y = torch.rand(30, *spec.shape), torch.arange(30) % 3
    confusion = np.array([[5, 1, 0], [0, 4, 0], [2, 0, 0]])
    extras = Extras(of_classes(y.numpy(), spec.class_names), confusion, CURVES, mosaic=True)
    drawn = gallery.draw(untrained(spec, 3), x, y, extras, "test data")
    expected = {"confusion_matrix", "training_curves", "code_mosaic", "interpolation", "attribute_vectors"}
    expected |= {"attribute_arithmetic"} | ({"spectrograms"} if spec.kind == "signal" else set())
    assert drawn.keys() == expected
    report.save_figures(drawn, tmp_path, "run, step 1,200", ("png", "svg"))
    for name in expected:
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert np.asarray(picture.convert("L")).std() > 1
        assert xml.etree.ElementTree.parse(tmp_path / f"{name}.svg").getroot().tag.endswith("svg")
        figure = drawn[name]
        titles = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
        assert sum("run, step 1,200" in title for title in titles) == 1, name


def test_a_part_of_a_pipeline_gets_its_part() -> None:
    x, y, networks = torch.rand(9, *IMAGES.shape), torch.arange(9) % 3, untrained(IMAGES, 3).networks
    assert gallery.draw(Pipeline({"decoder": networks["decoder"]}, IMAGES), x, y, Extras(curves={})) == {}
    alone = Pipeline({"encoder": networks["encoder"]}, IMAGES)
    assert gallery.draw(alone, x, y, Extras(mosaic=True)).keys() == {"code_mosaic"}
    assert gallery.draw(untrained(IMAGES, 3), x[:2], y[:2], Extras()) == {}


def test_frames_go_from_one_sample_to_the_other() -> None:
    pipeline, y = untrained(IMAGES, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    asked: list[torch.Tensor] = []
    decoded = pipeline.decoded
    pipeline.decoded = lambda z: asked.append(z) or decoded(z)
    z = torch.randn(6, 3)
    figure = interpolation(pipeline, z, y)
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert names == ["cat → dog", "cat → a bird", "dog → a bird"]
    rows = asked[0].view(3, 11, 3)
    torch.testing.assert_close(rows[:, 0], z[[0, 3, 1]])
    torch.testing.assert_close(rows[:, 10], z[[4, 2, 5]])
    torch.testing.assert_close(rows[:, 5], (rows[:, 0] + rows[:, 10]) / 2)


def test_an_attribute_is_added_to_a_sample_without_it() -> None:
    pipeline, z = untrained(IMAGES, 3), torch.randn(20, 3)
    attributes = {"smile": np.arange(20) % 2.0, "hat": np.repeat([1.0, 0.0], 10)}
    asked: list[torch.Tensor] = []
    decoded = pipeline.decoded
    pipeline.decoded = lambda codes: asked.append(codes) or decoded(codes)
    attribute_vectors(pipeline, z, attributes)
    rows = asked[0].view(2, 11, 3)
    for row, first, attribute in zip(rows, (0, 10), attributes.values(), strict=True):
        torch.testing.assert_close(row[0], z[first])
        torch.testing.assert_close(row[10], z[first] + direction(z, attribute))


def test_places_keep_their_order_on_the_grid() -> None:
    """Points of a slightly shaken grid get their own cells back, the highest in the top row."""
    rng = np.random.default_rng(0)
    row, column = np.divmod(np.arange(25), 5)
    places = np.stack([column, 4 - row], 1) + 0.05 * rng.normal(size=(25, 2))
    shuffled = rng.permutation(25)
    assert on_grid(places[shuffled], 5).tolist() == shuffled.tolist()
    x, y = torch.rand(25, *IMAGES.shape), torch.zeros(25, dtype=torch.int64)
    figure = code_mosaic(torch.from_numpy(places), x, y, IMAGES)
    shown = figure.axes[0].get_images()[0].get_array()
    cell = shown[11 + 1 : 11 + 10, 20 + 1 : 20 + 9, 0]  # second row, third column: sample 7
    np.testing.assert_allclose(cell, x[7, 0], atol=1e-6)


def test_curves_are_grouped_and_those_that_say_nothing_left_out() -> None:
    assert {group: list(members) for group, members in grouped(CURVES).items()} == {"vec": ["ce"], "validation": ["kl"]}
    assert training_curves({"vec/ce": ([1], [2.0])}) is None
    figure = training_curves(CURVES)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes][:2] == ["vec/ce", "validation/kl"]
