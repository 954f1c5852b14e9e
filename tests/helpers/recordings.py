"""Shards of recordings whose classes hum at other frequencies, as the packer makes them."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tools import make_shards

LENGTH, RATE = 256, 1000
FREQUENCY = {"low": 60.0, "high": 220.0}


def hum(frequency: float, seed: int, seconds: float = 2.0) -> np.ndarray:
    """float32, a tone at `frequency` Hz in noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * RATE)) / RATE
    tone = np.sin(2 * np.pi * frequency * t + rng.uniform(0, 6)) + 0.3 * rng.normal(size=len(t))
    return tone.astype(np.float32)


def recorded(folder: Path, machines: Mapping[str, str], each: int = 2) -> Path:
    """Packed windows of `each` recordings of every machine (name -> class); the folder of its shards."""
    folder.mkdir(parents=True)
    with (folder / "list.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "machine", "rate"])
        for number, (machine, label) in enumerate(machines.items()):
            for one in range(each):
                name = f"{machine}_{one}.npy"
                np.save(folder / name, hum(FREQUENCY[label] * (1 + 0.02 * number), 10 * number + one))
                writer.writerow([name, label, machine, RATE])
    options = ["--length", str(LENGTH), "--hop", "128", "--class-names", "low,high", "--processes", "1"]
    assert make_shards.main(["recordings", str(folder / "list.csv"), str(folder / "shards"), *options]) == 0
    return folder / "shards"
