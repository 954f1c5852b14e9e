"""A pipeline's folder: `pipeline.json`, a folder per network, perhaps posteriors, and where to find it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from savae_dist.errors import CheckpointError
from savae_dist.files import write_text
from savae_dist.networks import Classifier, Critic, Decoder, Encoder, Network, Prior
from savae_dist.networks.hub import folder_of
from savae_dist.preprocess import DataSpec

FORMAT_VERSION = 1
CONFIG = "pipeline.json"
POSTERIORS = "posteriors.safetensors"
FILES = ("*.json", "*.safetensors")  # all that is downloaded of a repository
ROLES: dict[str, type[Network]] = {
    "encoder": Encoder,
    "decoder": Decoder,
    "classifier": Classifier,
    "critic": Critic,
    "prior": Prior,
}


def write_config(folder: Path, networks: dict[str, str], spec: DataSpec, system: dict[str, Any]) -> None:
    """`pipeline.json`; networks: name -> its folder inside this one, "." for the folder itself."""
    values = {"format_version": FORMAT_VERSION, "networks": networks, "spec": spec.to_dict(), "system": system}
    write_text(folder / CONFIG, json.dumps(values, indent=2) + "\n")


def load_network(folder: Path, name: str, place: str) -> Network:
    if place not in (name, "."):  # a downloaded pipeline.json must not point outside its folder
        raise ValueError(f"network {name!r} is said to lie in {place!r}")
    return ROLES.get(name, Network).from_pretrained(folder / place)


def find(source: str | Path, **options: str | None) -> Path:
    """The pipeline's folder of a run, a saved or exported folder, or a repository; CheckpointError if it has none.

    options: `revision` and `token`, of the Hub.
    """
    path = folder_of(source, FILES, **options)
    for folder in (path, path / "pipeline"):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "status.json").is_file():
        status = read_json(path / "status.json")
        where = ", ".join(f"{key} {status[key]}" for key in ("outcome", "phase", "step") if key in status)
        raise CheckpointError(f"{path}: the run is not finished ({where}); run its command again to continue it")
    raise CheckpointError(f"{path} holds no {CONFIG}: give a finished run, a saved or exported folder, or a Hub id")


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {one_line(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return values


def one_line(error: Exception) -> str:
    return " ".join((type(error).__name__ + ":", *str(error).strip().splitlines()[:1]))
