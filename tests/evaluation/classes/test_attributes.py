"""Attributes as yes or no, their directions, and the SVMs that read them, against what they were made of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from savae_dist.evaluation.bootstrap import Resampling
from savae_dist.evaluation.classes.attribute_svm import CHANCE, TOGETHER, Views, attribute_accuracies, markdown
from savae_dist.evaluation.classes.attributes import binary, direction, of_classes, usable

NAN = np.nan


def test_columns_become_attributes() -> None:
    values = np.stack(
        [[0, 1, 1, NAN, 0], [-1, 1, -1, 1, NAN], [3, 7, 7, 3, 3], [0, 1, 2, 1, NAN], [5, 5, 5, 5, 5]], axis=1
    )
    found = binary(values, ["smile", "male", "size", "load", "same"])
    assert list(found) == ["smile", "male", "size=7", "load=0", "load=1", "load=2"]
    np.testing.assert_array_equal(found["smile"], [0, 1, 1, NAN, 0])
    np.testing.assert_array_equal(found["male"], [0, 1, 0, 1, NAN])
    np.testing.assert_array_equal(found["size=7"], [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(found["load=1"], [0, 1, 0, 1, NAN])


def test_a_measure_is_divided_at_its_median() -> None:
    age = np.append(np.arange(20.0), NAN)
    ((name, found),) = binary(age[:, None], ["age"]).items()
    assert name == "age > 9.5"
    np.testing.assert_array_equal(found, [*(age[:20] > 9.5), NAN])


def test_classes_as_attributes_and_those_that_too_few_have() -> None:
    y = np.array([0] * 6 + [1] * 5 + [2] * 2 + [-1])
    found = of_classes(y, ("ball", "inner"))
    assert list(found) == ["class ball", "class inner", "class 2"]
    assert np.isnan(found["class 2"][-1])
    assert found["class ball"].tolist()[:-1] == [1.0] * 6 + [0.0] * 7
    assert list(usable(found)) == ["class ball", "class inner"]


def test_a_direction_is_the_difference_of_means() -> None:
    z = torch.arange(12.0).view(6, 2) ** 2
    attribute = np.array([1, 0, NAN, 1, 0, 0])
    expected = z[[0, 3]].mean(0) - z[[1, 4, 5]].mean(0)
    torch.testing.assert_close(direction(z, attribute), expected)


def views(n: int, seed: int) -> Views:
    """View a tells `first`, view b tells `second`; it takes both to tell `either`, and nothing tells `noise`."""
    rng = np.random.default_rng(seed)
    first, second, noise = rng.integers(0, 2, (3, n)).astype(float)
    a, b = (np.stack([one + 0.1 * rng.normal(size=n), rng.normal(size=n)], 1) for one in (first, second))
    both = ((first + second) > 0).astype(float)
    known = np.where(np.arange(n) % 7 == 0, NAN, first)
    return Views({"a": a, "b": b}, {"first": known, "second": second, "either": both, "noise": noise})


def test_each_view_tells_what_it_holds_and_together_they_tell_more() -> None:
    found = attribute_accuracies(views(300, 0), views(200, 1), Resampling.of(np.arange(200)))
    share = {name: {view: one.share for view, one in row.items()} for name, row in found.items()}
    assert share["first"]["a"] == 1
    assert share["first"]["b"] < 0.65
    assert share["second"]["b"] == 1
    assert share["either"][TOGETHER] > 0.98 > max(share["either"]["a"], share["either"]["b"])
    assert max(share["noise"].values()) < 0.65
    assert share["either"][CHANCE] == pytest.approx(views(200, 1).attributes["either"].mean())
    assert found["first"]["a"].n == int((np.arange(200) % 7 != 0).sum())
    table = markdown(found, "Of made codes.").splitlines()
    assert table[2].split(" | ")[2:] == [CHANCE, "a", "b", f"{TOGETHER} |"]
    average = 100 * np.mean([row["a"] for row in share.values()])
    assert f"**{average:.2f}**" in table[-1]
    assert len(table) == 4 + 4 + 1


def test_a_single_view_stands_alone_and_unknown_attributes_are_left_out() -> None:
    seen, tested = views(60, 0), views(40, 1)
    one = Views({"a": seen.codes["a"]}, seen.attributes)
    other = Views({"a": tested.codes["a"]}, {"second": tested.attributes["second"], "first": np.full(40, NAN)})
    found = attribute_accuracies(one, other, Resampling.of(np.arange(40)))
    assert {name: list(row) for name, row in found.items()} == {"second": [CHANCE, "a"]}
