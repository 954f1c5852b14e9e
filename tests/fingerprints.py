"""Print the sha256 of what every preset trains: run before and after a change that must not alter a weight.

    python tests/fingerprints.py [PRESET ...] [--processes N] [--checkout FOLDER]

The demo is trained to its end, every other preset for two steps of each phase, on made-up samples. A line holds the
preset, and the digest of all weights and optimiser states of its last checkpoint. Compare only digests of one machine:
other processors round otherwise.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
TWO_STEPS = ("networks.width=4", "data.batch_size=16", "max_steps=2", "debug.check_ranks=1", "seed=1")
PARALLEL = ("networks.norm=group",)  # batch norm sees its own process's part of the batch
CLASSES = {"caltech": 101}
LABELLED = {"aae_semi_supervised": 20, "savae_100_labels": 20}
SIGNALS = ("cwru",)
VGG = {0: 1, 2: 1, 5: 2, 7: 2, 10: 4, 12: 4, 14: 4, 16: 4, 19: 8, 21: 8, 23: 8, 25: 8, 28: 8, 30: 8, 32: 8, 34: 8}


def run(checkout: Path, *words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def train(checkout: Path, out: Path, processes: int, *words: str) -> str:
    launch = ["-m", "savae_dist.train"]
    if processes > 1:
        file = "launch_configs/accelerate/cpu_2.yaml"
        launch = ["-m", "accelerate.commands.launch", "--config_file", file, f"--num_processes={processes}", *launch]
        words = (*words, *PARALLEL)
    run(checkout, *launch, *words, f"output={out}")
    return digest(sorted((out / "checkpoints").glob("step-*"))[-1])


def digest(checkpoint: Path) -> str:
    """Of all tensors by file, name, type, shape and bytes."""
    whole = hashlib.sha256()
    for path in sorted(checkpoint.rglob("*.safetensors")):
        for name, value in sorted(load_file(path).items()):
            whole.update(f"{path.relative_to(checkpoint)} {name} {value.dtype} {value.shape}".encode())
            whole.update(np.ascontiguousarray(value).tobytes())
    return whole.hexdigest()


def pack(checkout: Path, preset: str, folder: Path) -> list[str]:
    """A few samples as the preset's data are, and the arguments that put them in their place."""
    rng, classes = np.random.default_rng(0), CLASSES.get(preset, 10)
    y = np.arange(max(2 * classes, 64)) % classes
    if preset in SIGNALS:
        x = rng.normal(size=(len(y), 1024)).astype(np.float32)
    else:
        x = rng.integers(0, 256, (len(y), 28, 28)).astype(np.uint8)
    y[LABELLED.get(preset, len(y)) :] = -1
    np.savez(folder / "set.npz", x=x, y=y)
    run(checkout, "tools/make_shards.py", "arrays", str(folder / "set.npz"), str(folder / "shards"))
    return [f"data.train={folder / 'shards'}", f"data.validation={folder / 'shards'}"]


def vgg19(folder: Path) -> Path:
    """Narrow VGG-19 weights under torchvision's names, made up."""
    generator = torch.Generator().manual_seed(5)
    tensors, channels = {}, 3
    for index, factor in VGG.items():
        tensors[f"features.{index}.weight"] = torch.randn(4 * factor, channels, 3, 3, generator=generator) * 0.2
        tensors[f"features.{index}.bias"] = torch.randn(4 * factor, generator=generator)
        channels = 4 * factor
    save_file(tensors, folder / "vgg19.safetensors")
    return folder / "vgg19.safetensors"


def features(checkout: Path, preset: str, folder: Path, data: list[str]) -> list[str]:
    """A narrow VGG-19 or a small pipeline, whichever the preset takes its features from."""
    text = (checkout / "launch_configs" / "runs" / f"{preset}.yaml").read_text()
    if "feature_network:" not in text:
        return []
    if ".safetensors" in text.partition("feature_network:")[2].splitlines()[0]:
        return [f"system.feature_network={vgg19(folder)}"]
    train(checkout, folder / "features", 1, "mnist_k2", *data, *TWO_STEPS)
    return [f"system.feature_network={folder / 'features'}"]


def fingerprint(checkout: Path, preset: str, processes: int) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if preset == "demo":
            short = ("max_steps=4",) if processes > 1 else ()
            return train(checkout, folder / "run", processes, "demo", *short)
        data = pack(checkout, preset, folder)
        data += features(checkout, preset, folder, data)
        return train(checkout, folder / "run", processes, preset, *data, *TWO_STEPS)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the sha256 of what every preset trains.")
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the checkout to run, this one if not given")
    options = parser.parse_args()
    checkout = options.checkout.resolve()
    known = sorted(path.stem for path in (checkout / "launch_configs" / "runs").glob("*.yaml"))
    for preset in options.presets or known:
        print(f"{preset:24} {fingerprint(checkout, preset, options.processes)}", flush=True)


if __name__ == "__main__":
    main()
