"""Files with one to three faults each, the same for the same seed, and what loading them comes to.

`python mutations.py KIND FOLDER FIRST COUNT SECONDS` loads COUNT damaged copies of golden files, and prints for each a
line of JSON: its outcome (`fine`, `refused CODE` or `traceback NAME`), its time, and how far memory grew.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import re
import resource
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

GOLDEN = Path(__file__).parents[1] / "golden"
SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 7, 255, 65_536, 1_048_575, 10**6, 10**9, 2**31, 2**53, 2**63, 10**19, 10**400),
    *(-(10**9), -(2**63), 0.5, -0.0, 1e-300, 1e300, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        "x",
        "0",
        "../../../etc/passwd",
        "/dev/zero",
        "a\0b",
        "\x1b[31mred\x1b[0m\nnext",
        "\ud800",
        "é" * 300,
        "$" * 5000,
    ),
    *([], {}, [[]], [1, 2, 3], [10**9] * 3, [-1, -1], {"a": 1}, ["x"], [None], list(range(1000)), "${oc.env:HOME}"),
)
SUFFIXES = (".json", ".npy", ".safetensors", ".yaml")
Way = tuple[Any, ...]


def ways(value: Any, way: Way = ()) -> Iterator[Way]:
    """The way to every value inside this one."""
    yield way
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield from ways(entry, (*way, key))


def change_value(values: Any, rng: random.Random) -> Any:
    """One value replaced, scaled, removed, renamed, or copied over another."""
    way = rng.choice(list(ways(values))[1:] or [()])
    if not way:
        return rng.choice(SCALARS)
    holder = values
    for step in way[:-1]:
        holder = holder[step]
    key, action = way[-1], rng.randrange(8)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[str(rng.choice(SCALARS))[:50]] = holder.pop(key)
    elif action == 2 and type(holder[key]) in (int, float):
        holder[key] = rng.choice([-holder[key], holder[key] * 1000, holder[key] + 1, str(holder[key]), [holder[key]]])
    elif action == 3 and isinstance(holder[key], list):
        holder[key] = holder[key] * rng.choice([0, 2, 500])
    else:
        holder[key] = rng.choice(SCALARS)
    return values


def change_text(text: str, rng: random.Random) -> bytes:
    """What a parser meets and no tree can show: deep nesting, keys twice, endless numbers, bytes that are not UTF-8."""
    at = [found.start() for found in re.finditer(r"[:,\[{]", text)] or [0]
    where = rng.choice(at) + 1
    deep = rng.choice([20, 100, 5000, 200_000])
    pieces = (
        "[" * deep + "]" * deep, '{"a":' * deep + "1" + "}" * deep, "9" * deep, '"shards": [], "shape": [1], "x": 1,',
        '"format_version": 1, "format_version": 2,', "NaN", "-Infinity", "\ufeff", "//", "'", "\0" * 20,
    )  # fmt: skip
    changed = (text[:where] + rng.choice(pieces) + text[where:]).encode("utf-8", "surrogatepass")
    return changed if rng.random() < 0.8 else changed.replace(b"e", b"\xff\xc0", 1)


def change_bytes(data: bytes, rng: random.Random, head: int = 1 << 30) -> bytes:
    """Bits turned, bytes overwritten, cut, doubled or put in; near the front where headers stand, half of the time."""
    changed = bytearray(data or b"x")
    reach = min(len(changed), head if rng.random() < 0.5 else len(changed))
    at, size = rng.randrange(reach), int(2 ** rng.uniform(0, 9))
    action = rng.randrange(6)
    if action == 0:
        for _ in range(size):
            changed[rng.randrange(reach)] ^= 1 << rng.randrange(8)
    elif action == 1:
        changed[at : at + size] = rng.choice([b"\0", b"\xff", rng.randbytes(1)]) * size
    elif action == 2:
        del changed[at:]
    elif action == 3:
        del changed[at : at + size]
    elif action == 4:
        changed[at:at] = rng.randbytes(size)
    else:
        changed += changed[at:]
    return bytes(changed)


def change_numbers(data: bytes, rng: random.Random) -> bytes:
    """A number in the header of a table or of tensors, as text, replaced by another of the same length."""
    found = list(re.finditer(rb"\d+", data[:4000])) or [re.compile(b"").match(data)]
    one = rng.choice(found)
    size = len(one[0])
    new = rng.choice([b"9" * size, b"0" * size, b"%0*d" % (size, rng.randrange(10**size)), b"-" * size, b" " * size])
    return data[: one.start()] + new + data[one.end() :]


def odd_file(path: Path, rng: random.Random) -> None:
    """The file is gone, empty, a folder, a pipe, or another of the set."""
    others = sorted(other for other in path.parent.iterdir() if other.is_file())
    content = rng.choice(others).read_bytes()
    path.unlink()
    action = rng.randrange(6)
    if action == 1:
        path.write_bytes(b"")
    elif action == 2:
        path.mkdir()
    elif action == 3:
        os.mkfifo(path)
    elif action == 4:
        path.symlink_to("/dev/zero")
    elif action == 5:
        path.write_bytes(content)


def damage(folder: Path, rng: random.Random) -> list[str]:
    """One to three faults in the files of a folder, and their names."""
    names = []
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        files = sorted(
            p for p in folder.rglob("*") if p.is_file() and p.suffix in (".json", ".npy", ".safetensors", ".yaml")
        )
        if not files:
            break
        path = rng.choice(files)
        names.append(damage_one(path, rng) + " " + path.name)
    return names


def damage_one(path: Path, rng: random.Random) -> str:
    data = path.read_bytes()
    if rng.random() < 0.06:
        odd_file(path, rng)
        return "odd file"
    if path.suffix in (".npy", ".safetensors"):
        numbers = rng.random() < 0.4
        path.write_bytes(change_numbers(data, rng) if numbers else change_bytes(data, rng, 300))
        return "number" if numbers else "bytes"
    kind = rng.random()
    if kind < 0.7:
        try:
            values = read_tree(path, data)
        except ValueError:  # an earlier fault has left no tree
            kind = 1.0
        else:
            path.write_bytes(write_tree(path, change_value(values, rng)))
            return "value"
    if kind < 0.85:
        path.write_bytes(change_text(data.decode(errors="replace"), rng))
        return "text"
    path.write_bytes(change_bytes(data, rng))
    return "bytes"


def read_tree(path: Path, data: bytes) -> Any:
    import yaml

    try:
        return json.loads(data) if path.suffix == ".json" else yaml.safe_load(data)
    except (RecursionError, yaml.YAMLError) as error:
        raise ValueError(error) from error


def write_tree(path: Path, values: Any) -> bytes:
    import yaml

    if path.suffix == ".json":
        return json.dumps(values).encode("utf-8", "surrogatepass")
    return yaml.safe_dump(values, allow_unicode=True).encode("utf-8", "surrogatepass")


# What is loaded, as far as a user would use it.


def index(folder: Path) -> None:
    from savae_dist.data import Order, Reader, Request, Shards, survey

    shards = Shards.open(str(folder))
    survey(shards)
    assert shards.digest
    whole = Reader(shards, Order.sequential(shards.counts), sys.maxsize)
    batch = whole[Request(0, shards.size, range(shards.size))]
    assert len(batch.id) + len(batch.bad) == shards.size
    Reader(shards, Order(shards.counts, 0, 2, 2), sys.maxsize)[Request(0, 16, range(16))]


def pipeline(folder: Path) -> None:
    import numpy as np

    from savae_dist.pipeline.card.model_card import model_card
    from savae_dist.pipeline.pipeline import Pipeline

    found = Pipeline.from_pretrained(folder)
    x = np.zeros((2, *found.spec.shape[1:]), np.uint8)
    if "encoder" in found.networks:
        found.encode(x)
    if "decoder" in found.networks:
        for label in (None, *found.labels[:2]):
            found.generate(2, label, seed=0)
    model_card(found, "pipeline")


def checkpoint(folder: Path) -> None:
    from savae_dist.run.checkpoints.checkpoint import load_networks, load_updates, newest, read_state
    from savae_dist.systems import SAVAE
    from savae_dist.testing.small_run import SmallRun

    path = newest(folder)
    if path is not None:
        read_state(path)
        run = SmallRun(SAVAE(latent_dim=3, vec_steps=6, decoder_steps=6), ema=0.5)
        load_networks(path / "networks", run.networks)
        load_updates(path, run.prepare("decoder"))


def yaml(folder: Path) -> None:
    from savae_dist.load_config import load

    load([str(folder / "config.yaml")])


def make_index(folder: Path) -> None:
    for name in ("packed", "samples", "windows"):
        shutil.copytree(GOLDEN / "shards" / name, folder / name)


def make_pipeline(folder: Path) -> None:
    import torch

    from savae_dist.networks import AllConvDecoder, ConvDecoder, ConvEncoder, HouEncoder, LabelPart, MLPEncoder, Prior
    from savae_dist.pipeline.pipeline import Pipeline
    from savae_dist.preprocess import DataSpec

    shutil.copytree(GOLDEN / "run" / "pipeline", folder / "golden")
    spec = DataSpec("image", (1, 12, 10), 4, "unit", class_names=("a", "b", "c", "d"))
    torch.manual_seed(0)
    coded = {"prior": Prior(2, labels="inferred", entries=4), "decoder": AllConvDecoder(spec.shape, 6, 2)}
    coded |= {"encoder": MLPEncoder(spec.shape, 2, 4, 8), "classifier": LabelPart(2, 4, 4)}
    for name, networks in (
        ("coded", coded),
        ("conv", {"encoder": ConvEncoder(spec.shape, 3, 2), "decoder": ConvDecoder(spec.shape, 3, 2)}),
        ("hou", {"encoder": HouEncoder(spec.shape, 3, 2)}),
    ):
        Pipeline(networks, spec, system={"name": name, "alpha": [1.0]}).save_pretrained(folder / name)


def make_checkpoint(folder: Path) -> None:
    from savae_dist.run.checkpoints.checkpoint import save
    from savae_dist.run.training_state import TrainingState
    from savae_dist.systems import SAVAE
    from savae_dist.testing.small_run import SmallRun

    run = SmallRun(SAVAE(latent_dim=3, vec_steps=6, decoder_steps=6), ema=0.5)
    run.run("decoder", 1)
    state = TrainingState("decoder", 1, 7, 0, rates={"vec": 12.5}, lanes=8, data="0" * 64, config={"seed": 0})
    save(folder / "one", run.networks, run.updates, state, keep=1)


def make_yaml(folder: Path) -> None:
    presets = Path(__file__).parents[2] / "launch_configs" / "runs"
    for path in (GOLDEN / "run" / "config.yaml", *sorted(presets.glob("*.yaml"))):
        (folder / path.stem).mkdir()
        shutil.copyfile(path, folder / path.stem / "config.yaml")


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "index": (make_index, index),
    "pipeline": (make_pipeline, pipeline),
    "checkpoint": (make_checkpoint, checkpoint),
    "yaml": (make_yaml, yaml),
}


def seal(folder: Path) -> None:
    """The manifest of a damaged checkpoint made anew, so that what is behind it is loaded."""
    from savae_dist.run.checkpoints.contents import sha256

    for manifest in folder.rglob("manifest.json"):
        if manifest.is_symlink() or not manifest.is_file():
            continue
        files = (p for p in sorted(manifest.parent.rglob("*")) if p.is_file() and p != manifest)
        entries = {
            p.relative_to(manifest.parent).as_posix(): {"size": p.stat().st_size, "sha256": sha256(p)}
            for p in files
            if not p.is_symlink()
        }
        manifest.write_text(json.dumps(entries))


def attempt(kind: str, original: Path, folder: Path, seed: int) -> dict[str, Any]:
    from savae_dist.errors import UserError

    rng = random.Random(seed)
    shutil.copytree(original, folder)
    faults = damage(folder, rng)
    if kind == "checkpoint" and rng.random() < 0.8:
        seal(folder)
    message, start = "", time.perf_counter()
    try:
        KINDS[kind][1](folder)
        outcome = "fine"
    except UserError as error:
        outcome, message = f"refused {error.code}", str(error)
    except Exception as error:  # what this looks for: anything else is a bug
        outcome, message = f"traceback {type(error).__name__}", repr(error)[:500]
        if os.environ.get("MUTATIONS_SHOW"):
            import traceback

            traceback.print_exc()
    seconds = time.perf_counter() - start
    shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"seed": seed, "faults": faults, "outcome": outcome, "message": message, "seconds": seconds, "peak": peak}


def main() -> None:
    kind, folder, first, count, seconds = sys.argv[1], Path(sys.argv[2]).resolve(), *map(int, sys.argv[3:6])
    os.environ["XDG_CACHE_HOME"], os.environ["HF_HUB_OFFLINE"] = str(folder / "cache"), "1"
    originals = folder / "originals"
    originals.mkdir(parents=True)
    KINDS[kind][0](originals)
    sets = sorted(originals.iterdir())
    for one in sets:  # all of them load, and so all that is imported is
        KINDS[kind][1](one)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    # So that a fault of ours does not take the machine's memory.
    resource.setrlimit(resource.RLIMIT_DATA, (8 << 30, 8 << 30))
    for seed in range(first, first + count):
        faulthandler.dump_traceback_later(seconds, exit=True)
        result = attempt(kind, sets[seed % len(sets)], folder / "work", seed)
        result["grown"] = result.pop("peak") - before
        print(json.dumps(result), flush=True)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
