from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers.pipelines import untrained
from PIL import Image

from savae_dist.evaluation import report
from savae_dist.evaluation.figures import figures
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.posteriors import collect_posteriors
from savae_dist.preprocess import DataSpec

GREY = DataSpec("image", (1, 9, 8), 10, "unit")
COLOUR = DataSpec("image", (3, 8, 9), 3, "unit", class_names=("cat", "dog", "a rather long-winded bird"))
MANY = DataSpec("image", (1, 8, 8), 101, "unit")
WINDOWS = DataSpec("signal", (1, 300), 4, "window", rate=12000.0)
CHANNELS = DataSpec("signal", (2, 40), 3, "none")


def text_of(figure) -> str:
    axes = figure.axes
    words = [figure.get_suptitle(), *(a.get_title() for a in axes), *(a.get_xlabel() for a in axes)]
    words += [label.get_text() for a in axes for label in (*a.get_xticklabels(), *a.get_yticklabels())]
    return "\n".join([*words, *(a.get_ylabel() for a in axes), *(t.get_text() for a in axes for t in a.texts)])


@pytest.mark.rendered
@pytest.mark.parametrize(
    ("spec", "latent_dim", "labelled", "expected"),
    [
        (GREY, 2, True, {"latent_space", "reconstructions", "samples", "samples_by_class", "latent_grid"}),
        (COLOUR, 5, False, {"latent_space", "reconstructions", "samples"}),
        (MANY, 3, True, {"latent_space", "reconstructions", "samples", "samples_by_class"}),
        (WINDOWS, 2, True, {"latent_space", "reconstructions", "samples", "samples_by_class", "latent_grid"}),
        (CHANNELS, 1, False, {"latent_space", "reconstructions", "samples"}),
    ],
    ids=["grey", "colour", "101 classes", "windows", "two channels"],
)
def test_every_figure_that_applies_is_written(spec, latent_dim, labelled, expected, tmp_path):
    pipeline = untrained(spec, latent_dim)
    n = 2 * spec.classes if labelled else 7
    x = torch.rand(n, *spec.shape)
    y = torch.arange(n) % spec.classes if labelled else torch.full((n,), -1)
    if labelled:
        pipeline.posteriors = collect_posteriors(pipeline.networks["encoder"], [(x, y)])
    drawn = report.write_figures(pipeline, x, y, tmp_path / "figures", "mnist, step 12")
    assert drawn.keys() == expected
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {f"{name}.png" for name in expected}
    assert all("mnist, step 12" in text_of(figure) for figure in drawn.values())
    for path in (tmp_path / "figures").iterdir():
        with Image.open(path) as picture:
            assert min(picture.size) > 150
            assert np.asarray(picture.convert("L")).std() > 1  # something is drawn


def test_a_part_of_a_pipeline_gets_its_part_of_the_figures(tmp_path):
    x, y, networks = torch.rand(4, *GREY.shape), torch.tensor([0, 1, -1, 1]), untrained(GREY, 2).networks
    assert report.draw_figures(Pipeline({"encoder": networks["encoder"]}, GREY), x, y).keys() == {"latent_space"}
    decoder = Pipeline({"decoder": networks["decoder"]}, GREY)
    assert report.draw_figures(decoder, x, y).keys() == {"samples", "latent_grid"}
    assert "prior N(0, I)" in text_of(figures.latent_grid(decoder))


def test_mosaic_puts_images_row_by_row():
    x = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 2) / 4
    picture = figures.mosaic(x, columns=2, pad=0)
    assert picture.shape == (4, 4, 3)
    assert np.array_equal(picture[:2, :, 0], [[0, 0, 0.25, 0.25]] * 2)
    assert np.array_equal(picture[2:, :, 1], [[0.5, 0.5, 1, 1]] * 2)  # white where there is none
    assert figures.mosaic(x, columns=3).shape == (4, 12, 3)
    colour = torch.rand(1, 3, 2, 2)
    assert np.array_equal(figures.mosaic(colour, 1, pad=0), colour[0].permute(1, 2, 0).numpy())


def test_chosen_samples_show_as_many_classes_as_they_can():
    y = torch.tensor([2, 0, 0, 0, 1, 2, 1, -1])
    assert y[figures.choose(y, 4)].tolist() == [-1, 0, 1, 2]
    assert figures.choose(y, 6).tolist() == [7, 1, 2, 4, 6, 0]  # the second of 0 and of 1 come before that of 2
    assert len(figures.choose(y, 100)) == 8
    many = torch.arange(101)
    assert figures.choose(many, 3).tolist() == [0, 50, 100]


def test_titles_and_axes_say_what_is_shown():
    y = torch.arange(8) % 3
    assert "PCA" in text_of(figures.latent_space(torch.randn(8, 7), y, COLOUR))
    assert "cat" in text_of(figures.latent_space(torch.randn(8, 2), y, COLOUR))
    x = torch.randn(2, *WINDOWS.shape)
    signal = text_of(figures.reconstructions(x, x, torch.tensor([1, 3]), WINDOWS))
    assert all(word in signal for word in ("time [ms]", "frequency [kHz]", "normalised amplitude", "[dB]"))
    x = torch.randn(2, *CHANNELS.shape)
    unknown_rate = text_of(figures.reconstructions(x, x, torch.tensor([1, -1]), CHANNELS))
    assert all(word in unknown_rate for word in ("time [samples]", "1/sample", "channel 1 of 2", "no label"))


def test_the_grid_lies_where_its_axes_say():
    """Top left is (lowest z1, highest z2); its spacing is the Gaussian's quantiles."""
    pipeline = untrained(GREY, 2)
    asked: list[torch.Tensor] = []
    decoded = pipeline.decoded
    pipeline.decoded = lambda z: asked.append(z) or decoded(z)
    codes = torch.randn(500, 2) * torch.tensor([2.0, 0.5]) + torch.tensor([10.0, 0.0])
    figures.latent_grid(pipeline, codes)
    grid = asked[0].view(20, 20, 2)
    assert (grid[:, 1:, 0] > grid[:, :-1, 0]).all()
    assert (grid[1:, :, 1] < grid[:-1, :, 1]).all()
    share = (codes[:, :1] < grid[0, :, 0]).float().mean(0)  # of the codes left of each column
    assert (share - (torch.arange(20) + 0.5) / 20).abs().max() < 0.06


def test_no_global_matplotlib_state():
    code = "import sys, savae_dist.evaluation.report; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
