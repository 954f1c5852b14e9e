"""Print the sha256 of what every preset trains: run before and after a change that must not alter a weight.

    python tests/fingerprints.py [PRESET ...] [--checkout FOLDER]
    python tests/fingerprints.py [PRESET ...] --processes 1,2,4

The demo is trained to its end, every other preset for two steps of each phase, on made-up samples. A line holds the
preset, and the digest of all weights and optimiser states of its last checkpoint. Compare only digests of one machine:
other processors round otherwise.

With several numbers of processes a line holds, for each number after the first, the largest difference of a weight from
the first's, relative to the network's largest weight. They differ by rounding, since gradients are summed in another
order, so all train by plain SGD (Adam would turn a gradient of 1e-9 into a whole step) and with group norm.
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
import yaml
from safetensors.numpy import load_file
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[1]
TWO_STEPS = ("networks.width=4", "data.batch_size=16", "max_steps=2", "debug.check_ranks=1", "seed=1")
SGD = ("name=sgd", "lr=0.0001", "schedule=constant")  # of every update
ALIKE = ("precision=fp32", "networks.norm=group", "max_steps=2")  # batch norm sees its own process's part of the batch
CLASSES = {"caltech": 101}
LABELLED = {"aae_semi_supervised": 20, "savae_100_labels": 20}
SIGNALS = ("cwru", "cwru_spectral")
VGG = {0: 1, 2: 1, 5: 2, 7: 2, 10: 4, 12: 4, 14: 4, 16: 4, 19: 8, 21: 8, 23: 8, 25: 8, 28: 8, 30: 8, 32: 8, 34: 8}


def run(checkout: Path, *words: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")
    return done.stdout


def train(checkout: Path, out: Path, processes: int, *words: str) -> Path:
    """The last checkpoint of a run of the trainer with these arguments."""
    launch = ["-m", "savae_dist.train"]
    if processes > 1:
        file = "launch_configs/accelerate/cpu_2.yaml"
        launch = ["-m", "accelerate.commands.launch", "--config_file", file, f"--num_processes={processes}", *launch]
    run(checkout, *launch, *words, f"output={out}")
    return sorted((out / "checkpoints").glob("step-*"))[-1]


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


def arguments(checkout: Path, preset: str, folder: Path) -> list[str]:
    """The demo as it is; another preset with two steps, on made-up samples."""
    if preset == "demo":
        return ["demo"]
    data = pack(checkout, preset, folder)
    return [preset, *data, *features(checkout, preset, folder, data), *TWO_STEPS]


def updates(checkout: Path, words: list[str]) -> list[str]:
    """The names of the updates that a run with these arguments has."""
    return list(yaml.safe_load(run(checkout, "-m", "savae_dist.train", *words, "--print-config"))["optimizers"])


def difference(first: Path, other: Path) -> float:
    """Of the weights of two checkpoints: the largest, relative to the largest weight of its network."""
    found = 0.0
    for path in sorted((first / "networks").rglob("*.safetensors")):
        ours, theirs = load_file(path), load_file(other / path.relative_to(first))
        scale = max((float(np.abs(value).max()) for value in ours.values()), default=1.0)
        found = max([found, *(float(np.abs(ours[key] - theirs[key]).max()) / scale for key in ours)])
    return found


def line(checkout: Path, preset: str, processes: list[int]) -> str:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = arguments(checkout, preset, folder)
        if len(processes) == 1:
            return digest(train(checkout, folder / "run", processes[0], *words))
        text = (checkout / "launch_configs" / "runs" / f"{preset}.yaml").read_text()
        alike = [*words, *ALIKE, *["system.code_norm=false"] * ("code_norm: true" in text)]
        alike += [f"optimizers.{update}.{value}" for update in updates(checkout, alike) for value in SGD]
        first, *others = (train(checkout, folder / f"run{n}", n, *alike) for n in processes)
        return "  ".join(f"{n} processes {difference(first, one):.1e}" for n, one in zip(processes[1:], others))


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the sha256 of what every preset trains.")
    parser.add_argument("presets", nargs="*")
    parser.add_argument("--processes", default="1", help="how many, or several numbers that are compared: 1,2,4")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="the checkout to run, this one if not given")
    options = parser.parse_args()
    checkout, processes = options.checkout.resolve(), [int(n) for n in options.processes.split(",")]
    known = sorted(path.stem for path in (checkout / "launch_configs" / "runs").glob("*.yaml"))
    for preset in options.presets or known:
        print(f"{preset:24} {line(checkout, preset, processes)}", flush=True)


if __name__ == "__main__":
    main()
