"""One process equals two: losses and parameters, both phases, with accumulation and augmentation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from launching import SMALL, scalars, shards, status, train, weights

pytestmark = pytest.mark.distributed

OPTIONS = {
    "separate": [
        *("optimizers.default.name=sgd", "optimizers.default.lr=0.05"),
        *("optimizers.default.clip_norm=0.5", "ema=0.5"),
    ],
    "adam": [],
    "joint": [
        "system.critic_update=joint",
        "system.batches=shared",
        "system.critic_steps=2",
        "optimizers.default.name=sgd",
        "optimizers.default.momentum=0.5",
        "optimizers.default.lr=0.05",
        "optimizers.default.clip_value=0.01",
        "optimizers.critic.clip_weights=0.05",
        "data.augment={crop: 0.2, flip: 0.5, shift: 0.2, cutout: 0.3}",
    ],
}


def run(folder: Path, processes: int, accumulate: int, data: Path, *options: str) -> Path:
    output = folder / f"{processes}-{accumulate}"
    result = train(
        processes,
        *SMALL,
        *options,
        f"data.train={data}",
        f"output={output}",
        f"accumulate={accumulate}",
        "networks.norm=group",
        "max_steps=3",
    )
    assert result.returncode == 0, result.stderr
    word = "1 process (" if processes == 1 else f"{processes} processes ("
    assert word in result.stderr  # it says how many it is
    assert status(output)["outcome"] == "done"
    return output


@pytest.mark.parametrize("kind", OPTIONS)
def test_one_process_equals_two(kind: str, tmp_path: Path) -> None:
    data = shards(tmp_path / "shards")
    reference = run(tmp_path, 1, 1, data, *OPTIONS[kind])
    expected, losses = weights(reference), scalars(reference)
    terms = [name for name in losses if name.split("/")[0] in ("vec", "critic", "decoder") and "samples" not in name]
    assert {"vec/kl", "vec/cat", "critic/generated", "decoder/rec", "decoder/adv", "decoder/latent"} <= set(terms)
    for processes, accumulate in ((2, 1), (2, 2)) if kind == "separate" else ((2, 2),):
        other = run(tmp_path, processes, accumulate, data, *OPTIONS[kind])
        found = weights(other)
        assert found.keys() == expected.keys()
        differences = {k: np.abs(found[k].astype(np.float64) - v).ravel() for k, v in expected.items()}
        every = np.concatenate([*differences.values()])
        if kind == "adam":  # it divides each gradient by its own size: next to nothing, rounding is all that is left
            assert np.mean(every > 1e-6) < 1e-3
        else:
            assert every.max() <= 1e-6, max(differences, key=lambda k: differences[k].max())
        there = scalars(other)
        for name in terms:
            for step, value in losses[name].items():
                assert there[name][step] == pytest.approx(value, rel=1e-5, abs=1e-6), (name, step)
