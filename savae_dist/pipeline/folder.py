"""A pipeline's folder: `pipeline.json`, a folder per network, what codes are drawn from, and where to find it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from savae_dist.errors import CheckpointError
from savae_dist.files import write_text
from savae_dist.networks import Classifier, Critic, Decoder, Encoder, Network, Prior
from savae_dist.networks.base import PIPELINE
from savae_dist.networks.hub import folder_of
from savae_dist.origin import check_origin
from savae_dist.preprocess import DataSpec
from savae_dist.untrusted import (
    Misfit,
    anything,
    check,
    listed,
    nullable,
    number,
    one_of,
    read_object,
    record,
    shown,
    table,
    text,
    whole,
)

FORMAT_VERSION = 1
CONFIG = PIPELINE
POSTERIORS = "posteriors.safetensors"
SAMPLER = "sampler.safetensors"
FILES = ("*.json", "*.safetensors")  # all that is downloaded of a repository
AGAIN = "save the pipeline again"
ROLES: dict[str, type[Network]] = {
    "encoder": Encoder,
    "decoder": Decoder,
    "classifier": Classifier,
    "critic": Critic,
    "prior": Prior,
}


MOST_CLASSES, MOST_ELEMENTS = 1 << 20, 1 << 28  # more classes, or elements of a sample, are refused


def _name(value: str) -> None:
    if len(value) > 100 or not value.isidentifier():  # it is a folder's name
        raise Misfit(f"is {shown(value)}, no name of letters, digits and _")


MOMENTS = listed(number(), most=MOST_ELEMENTS)
PICTURES = record(
    {
        "size": listed(whole(1, MOST_ELEMENTS), 2, 2),
        "resize": one_of("crop", "pad", "stretch"),
        "mode": one_of("gray", "rgb"),
        "bits": one_of(8, 16),
        "range": nullable(listed(number(), 2, 2)),
        "decoder": whole(),
    }
)
FIELDS = record(
    {
        "networks": table(text(100), _name, most=100),
        "spec": record(
            {
                "kind": one_of("image", "signal"),
                "shape": listed(whole(1, MOST_ELEMENTS), 2, 3),
                "classes": whole(0, MOST_CLASSES),
                "normalise": one_of("unit", "window", "dataset", "none"),
                "mean": MOMENTS,
                "std": MOMENTS,
                "rate": number(0),
                "class_names": listed(text(), most=MOST_CLASSES),
            },
            {"pictures": PICTURES, "attributes": listed(text(), most=MOST_CLASSES), "origin": table(anything)},
        ),
        "system": record({}, {"name": text(100)}),
    }
)


def write_config(folder: Path, networks: dict[str, str], spec: DataSpec, system: dict[str, Any]) -> None:
    """Write `pipeline.json`; see `config_text`."""
    write_text(folder / CONFIG, config_text(networks, spec, system))


def config_text(networks: dict[str, str], spec: DataSpec, system: dict[str, Any]) -> str:
    """`pipeline.json`; networks: name -> its folder inside this one, "." for the folder itself."""
    values = {"format_version": FORMAT_VERSION, "networks": networks, "spec": spec.to_dict(), "system": system}
    return json.dumps(values, indent=2) + "\n"


def read_config(folder: Path) -> dict[str, Any]:
    """`pipeline.json`; CheckpointError unless its parts fit together."""
    path = folder / CONFIG
    config = read_object(path, CheckpointError, AGAIN)
    if config.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format_version {shown(config.get('format_version'))} is not {FORMAT_VERSION}; "
            "use the version of savae_dist that wrote it"
        )
    check(config, FIELDS, path, CheckpointError, AGAIN)
    if "origin" in config["spec"]:
        rule = record({"spec": record({"origin": check_origin(config["spec"]["kind"])})})
        check(config, rule, path, CheckpointError, AGAIN)
    return config


def load_network(folder: Path, name: str, place: str) -> Network:
    # A checkpoint has the weights beside their averages; pipeline.json may come from others and point nowhere else.
    if place not in (name, ".", f"networks/{name}", f"ema/{name}"):
        raise ValueError(f"network {name!r} is said to lie in {place!r}")
    return ROLES.get(name, Network).from_pretrained(folder / place)


def find(source: str | Path, subfolder: str = "", **options: Any) -> Path:
    """The pipeline's folder of a run, a saved or exported folder, or a repository; CheckpointError if it has none.

    subfolder, options: see `networks.hub.folder_of`.
    """
    path = folder_of(source, FILES, subfolder, **options)
    for folder in (path, path / "pipeline"):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "status.json").is_file():
        status = read_object(path / "status.json", CheckpointError, "run its command again")
        where = ", ".join(f"{key} {status[key]}" for key in ("outcome", "phase", "step") if key in status)
        raise CheckpointError(f"{path}: the run is not finished ({where}); run its command again to continue it")
    raise CheckpointError(f"{path} holds no {CONFIG}: give a finished run, a saved or exported folder, or a Hub id")


def one_line(error: Exception) -> str:
    return " ".join((type(error).__name__ + ":", *str(error).strip().splitlines()[:1]))
