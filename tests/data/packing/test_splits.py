"""Sets: shares of groups, no group on both sides, and a machine that is left out."""

from __future__ import annotations

from collections import Counter

import pytest

from savae_dist.data.packing.splits import Splits, apportion, check_given, divide
from savae_dist.errors import ConfigError, DataError


def test_apportion_by_largest_remainder():
    assert apportion(20, [0.7, 0.15, 0.15]) == [14, 3, 3]
    assert apportion(4, [0.7, 0.15, 0.15]) == [2, 1, 1]
    assert apportion(2, [0.7, 0.15, 0.15]) == [1, 1, 0]
    assert apportion(1, [0.5, 0.5]) == [1, 0]
    assert apportion(1000, [0.8, 0.2]) == [800, 200]
    for n in range(1, 60):
        counts = apportion(n, [0.6, 0.3, 0.1])
        assert sum(counts) == n
        assert min(counts) >= (n >= 3)


def test_shares_of_each_class_by_group_and_seed():
    groups = [f"r{i // 2}" for i in range(120)]  # two files each
    labels = ["abc"[i // 2 % 3] for i in range(120)]
    splits = Splits({"validation": 0.2, "test": 0.1})
    sets = divide(groups, labels, splits)
    assert all(len({name for group, name in zip(groups, sets) if group == one}) == 1 for one in set(groups))
    for label in "abc":
        counts = Counter(name for own, name in zip(labels, sets) if own == label)
        assert counts == {"train": 28, "validation": 8, "test": 4}
    assert divide(groups, labels, splits) == sets
    assert divide(groups, labels, Splits(splits.shares, seed=1)) != sets
    assert divide(groups, labels, Splits({"validation": 0, "test": 0})) == ("",) * 120
    with pytest.raises(ConfigError, match="less than 1"):
        divide(groups, labels, Splits({"validation": 0.5, "test": 0.5}))
    with pytest.raises(ConfigError, match="too few for a test"):
        divide(groups[:4], labels[:4], splits)


def test_a_group_that_is_left_out_is_the_test_set():
    groups, labels = ["m1", "m1", "m2", "m3", "m4"], list("ababa")
    sets = divide(groups, labels, Splits(leave_out=("m1",)))
    assert sets == ("test", "test", "train", "train", "train")
    both = divide(groups, labels, Splits({"validation": 0.4}, ("m2",)))
    assert both[2] == "test"
    assert set(both) == {"train", "validation", "test"}
    assert both[0] == both[1]
    with pytest.raises(ConfigError, match="--leave-out m9: no such group; there are m1, m2"):
        divide(groups, labels, Splits(leave_out=("m9",)))
    with pytest.raises(ConfigError, match="give one of them"):
        divide(groups, labels, Splits({"test": 0.2}, ("m1",)))


def test_given_sets_divide_no_group():
    check_given(["a", "b", "a"], ["train", "test", "train"])
    with pytest.raises(DataError, match="a is in 'train' and in 'test'"):
        check_given(["a", "b", "a"], ["train", "test", "test"])
    with pytest.raises(DataError, match="b is in 'dev'"):
        check_given(["a", "b"], ["train", "dev"])
