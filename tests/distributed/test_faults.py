"""What one rank meets alone is told as it was, whichever rank it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from launching import SMALL, shards, status, train

from savae_dist.data import Order, Shards

pytestmark = pytest.mark.faults
BATCH, LANES = 8, 5


@pytest.mark.parametrize("rank", [0, 1])
def test_a_bad_sample_over_the_budget(rank: int, tmp_path: Path) -> None:
    data = shards(tmp_path / "shards", n=60, unlabelled=False)
    opened = Shards.open(str(data))
    row = opened.samples(0)[7]
    with opened.path(0).open("r+b") as file:
        file.seek(int(row["offset"]))
        byte = file.read(1)
        file.seek(int(row["offset"]))
        file.write(bytes([byte[0] ^ 1]))
    slots = {}
    for seed in range(40):  # one whose order gives the sample to this rank, but not in the first batch
        shard, at = Order(opened.counts, seed, LANES, 16).locate(np.arange(opened.size))
        position = int(np.flatnonzero((shard == 0) & (at == 7))[0])
        slots[seed] = position
    seed = next(s for s, p in slots.items() if p % BATCH % 2 == rank and BATCH <= p < 5 * BATCH)
    output = tmp_path / "run"
    result = train(
        2,
        *SMALL,
        *("networks.norm=group", f"data.batch_size={BATCH}", f"data.lanes={LANES}", "data.bad_budget=0"),
        *("max_steps=6", f"seed={seed}", f"data.train={data}", f"output={output}"),
    )
    assert result.returncode != 0
    ended = status(output)
    assert (ended["outcome"], ended["exit_code"]) == ("DataError", 65)
    assert "crc: 1" in ended["message"]
    assert "savae_dist: bad samples 1 (crc: 1)" in result.stderr
