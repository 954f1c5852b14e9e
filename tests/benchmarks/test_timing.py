from __future__ import annotations

import numpy as np

from savae_dist.benchmarks.timing import WARM_UP, interleave, table


def test_loops_take_turns():
    calls, waits = [], []
    steps = {name: (lambda name=name: calls.append(name)) for name in "ab"}
    times = interleave(steps, rounds=3, seconds=0, wait=lambda: waits.append(len(calls)))
    warm = 2 * WARM_UP
    assert calls[:warm] == ["a"] * WARM_UP + ["b"] * WARM_UP
    assert calls[warm:] == ["a", "b"] * 3
    assert waits == [warm + i for i in (0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6)]
    assert all(pairs.shape == (3, 2) and (pairs >= 0).all() for pairs in times.values())


def test_table_gives_medians_and_speeds_of_the_same_round():
    slow_round = {
        "a": np.array([[1.0, 1.0], [9.0, 2.0], [2.0, 3.0]]),
        "b": np.array([[2.0, 1.0], [18.0, 4.0], [4.0, 3.0]]),
    }
    head, *rows = table("vec", slow_round, "a", batch=10)
    assert head.split() == ["vec", "wall", "ms", "CPU", "ms", "samples/s", "speed", "by", "CPU"]
    assert rows[0].split() == ["a", "2000.00", "2000.00", "5", "1.000", "1.000"]
    assert rows[1].split() == ["b", "4000.00", "3000.00", "2", "0.500", "1.000"]
