"""Damaged files end in one line and take no memory; files that are whole still load.

`SAVAE_MUTATIONS=2000 pytest tests/attacks/test_mutations.py -k damaged -s` is the long form, and prints a table.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import mutations

from savae_dist.data import Order, Reader, Request, Shards, pack
from savae_dist.errors import CheckpointError
from savae_dist.networks import NETWORKS, Network
from savae_dist.run.checkpoints.checkpoint import read_state, save
from savae_dist.run.training_state import TrainingState

COUNT = int(os.environ.get("SAVAE_MUTATIONS", "100"))
SECONDS, MEGABYTES = 20, 1024  # for one case
CODES = {"index": 65, "pipeline": 76, "checkpoint": 76, "yaml": 2}


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_damaged_files_end_in_one_line(kind: str, tmp_path: Path) -> None:
    command = [sys.executable, mutations.__file__, kind, str(tmp_path / "work"), "0", str(COUNT), str(SECONDS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == COUNT, done.stderr[-2000:]
    outcomes = Counter(one["outcome"] for one in results)
    seconds, grown = [one["seconds"] for one in results], max(one["grown"] for one in results)
    print(f"\n{kind}: {dict(outcomes)}, at most {max(seconds):.2f} s and {grown} MB, {np.mean(seconds):.3f} s each")
    assert set(outcomes) <= {"fine", f"refused {CODES[kind]}"}, [one for one in results if "traceback" in str(one)]
    assert outcomes["fine"]
    assert outcomes[f"refused {CODES[kind]}"] > COUNT / 3
    assert all(one["message"].isprintable() for one in results)
    assert grown < MEGABYTES


def arguments(rng: random.Random, kind: str) -> dict[str, Any]:
    """Of a small network of this kind; some left at their defaults."""
    shape = rng.choice([[1, 12, 10], [3, 8, 8], [2, 33], [1, 17]])
    rest: dict[str, Any] = {"width": rng.choice([2, 4]), "norm_kind": rng.choice(["batch", "group", "none"])}
    rest |= {
        "pools": rng.choice([0, 2, 6]),
        "output": rng.choice(["sigmoid", "linear"]),
        "stages": rng.choice([1, 4, 6]),
    }
    rest |= {"feature_tap": rng.choice(["act", "conv", "pool"]), "centred": rng.choice([True, False])}
    rest |= {"hidden": rng.choice([1, 9]), "batch_norm": rng.choice([True, False]), "labels": rng.choice([0, 3])}
    needed = {"shape": shape, "latent_dim": rng.choice([1, 5]), "style_dim": rng.choice([2, 3]), "classes": 3}
    needed |= {"entries": rng.choice([3, 7]), "weights": [0.5, 1e-30, 2], "stages": 2}
    hints = NETWORKS[kind].__init__.__annotations__
    taken = {name: value for name, value in rest.items() if name in hints and rng.random() < 0.7}
    taken |= {name: value for name, value in needed.items() if name in hints and name not in rest}
    if kind in ("spectrogram_critic", "period_critic"):
        taken["shape"] = rng.choice([[2, 33], [1, 17]])
    if kind == "prior":
        taken = {"style_dim": 2, "kind": rng.choice(["gaussian", "mixture"]), "scale": rng.choice([1, 2.5])}
    if kind == "vgg19":
        taken = {"width": 1, "preprocessing": rng.choice(["caffe", "torchvision"])}
    if kind == "encoder_features":
        encoder = {"model_type": "dcgan_encoder", "shape": shape, "latent_dim": 2, "width": 2}
        taken = {"encoder": encoder, "stages": rng.choice([1, 2])}
    return taken


def test_whole_networks_load(tmp_path: Path) -> None:
    rng = random.Random(0)
    for number in range(300):
        kind = sorted(NETWORKS)[number % len(NETWORKS)]
        network = NETWORKS[kind](**arguments(rng, kind))
        network.save_pretrained(tmp_path / str(number))
        again = Network.from_pretrained(tmp_path / str(number))
        assert type(again) is type(network)
        pairs = zip(network.state_dict().values(), again.state_dict().values(), strict=True)
        assert all(torch.equal(one, other) for one, other in pairs), network.init_arguments


def test_whole_sets_load(tmp_path: Path) -> None:
    rng = random.Random(1)
    draws = np.random.default_rng(1)
    for number in range(100):
        image, count, classes = rng.random() < 0.5, rng.choice([1, 5, 20]), rng.choice([1, 3, 900])
        shape = rng.choice([(5, 4), (4, 6, 3)] if image else [(9,), (2, 7)])
        x = draws.integers(0, 256, (count, *shape)).astype(np.uint8 if image else np.float32)
        y = draws.integers(-1, classes, count)
        names = [f"é {name}" for name in range(classes)] if rng.random() < 0.5 else []
        options = {
            "layout": rng.choice(["packed", "samples"]),
            "class_names": names,
            "rate": rng.choice([0.0, 0.1, 48e3]),
        }
        pack(x, y, tmp_path / str(number), **options)
        shards = Shards.open(str(tmp_path / str(number)))
        batch = Reader(shards, Order.sequential(shards.counts), 0)[Request(0, count, range(count))]
        assert sorted(batch.y.tolist()) == sorted(y.tolist())


def test_whole_states_load(tmp_path: Path) -> None:
    rng = random.Random(2)
    for number in range(100):
        step = rng.choice([0, 1, 10**6])
        state = TrainingState("a phase", step, step + number, rng.choice([0, 2**40]), rng.random() < 0.5)
        state.rates, state.lanes = {"vec": rng.random() * 1e6}, rng.choice([1, 8, 4096])
        state.config = {"a": None, "b": [0.5, "x"], "c": float("inf"), "d": rng.choice([True, "é"])}
        state.features = {"features": "0f" * 32} if rng.random() < 0.5 else {}
        assert read_state(save(tmp_path / str(number), {}, {}, state, keep=1)) == state


def test_sizes_are_compared_before_memory_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A config.json that asks for terabytes: refused by the shapes of what is there."""
    network = NETWORKS["conv_encoder"](shape=[1, 12, 10], latent_dim=3, width=2)
    network.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = json.loads(path.read_text())
    for change in ({"width": 3000}, {"shape": [1, 10**6, 10**6]}, {"latent_dim": 10**9}, {"shape": [10**9, 12, 10]}):
        path.write_text(json.dumps({**values, **change}))
        with pytest.raises(CheckpointError, match=r"holds .* and config\.json asks for \["):
            Network.from_pretrained(tmp_path)
    path.write_text(json.dumps({**values, "latent_dim": 10**10}))
    with pytest.raises(CheckpointError, match=r"config\.json: latent_dim is 10000000000, not a whole number from"):
        Network.from_pretrained(tmp_path)
