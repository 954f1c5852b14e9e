"""What a pipeline is made of, written to a folder and read from one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import save

from savae_dist.errors import CheckpointError
from savae_dist.files import remove_drafts, write_bytes
from savae_dist.networks import Network
from savae_dist.pipeline.folder import (
    AGAIN,
    CONFIG,
    POSTERIORS,
    SAMPLER,
    load_network,
    one_line,
    read_config,
    write_config,
)
from savae_dist.pipeline.sampling.posteriors import PosteriorBank, check_together, load_posteriors
from savae_dist.pipeline.sampling.sampler import Sampler, load_sampler
from savae_dist.preprocess import DataSpec


class Parts(NamedTuple):
    """All of a pipeline that its folder holds; see `Pipeline`."""

    networks: dict[str, Network]
    spec: DataSpec
    posteriors: PosteriorBank | None
    system: dict[str, Any]
    mixture: Sampler | None


def save_parts(folder: Path, parts: Parts) -> None:
    """Write `pipeline.json`, each network and what codes are drawn from; an older pipeline there is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).unlink(missing_ok=True)  # written last: a folder that holds it is whole
    for name in (POSTERIORS, SAMPLER):
        (folder / name).unlink(missing_ok=True)
    for written in (folder, *(folder / name for name in parts.networks)):
        remove_drafts(written)
    for name, network in parts.networks.items():
        network.save_pretrained(folder / name)
    for name, drawn_from in ((POSTERIORS, parts.posteriors), (SAMPLER, parts.mixture)):
        if drawn_from is not None:
            tensors = {key: value.cpu().contiguous() for key, value in drawn_from.tensors().items()}
            write_bytes(folder / name, save(tensors))
    write_config(folder, {name: name for name in parts.networks}, parts.spec, parts.system)


def load_parts(folder: Path) -> Parts:
    """The parts in a folder; CheckpointError in one line where they are damaged or do not go together."""
    config = read_config(folder)
    try:
        networks = {name: load_network(folder, name, place) for name, place in config["networks"].items()}
        bank, sampler = folder / POSTERIORS, folder / SAMPLER
        posteriors = load_posteriors(bank) if bank.is_file() else None
        mixture = load_sampler(sampler) if sampler.is_file() else None
        spec = DataSpec.from_dict(config["spec"])
        check_together(networks, spec, posteriors, mixture)
    except (OSError, SafetensorError, TypeError, ValueError, RuntimeError) as error:  # bad files
        raise CheckpointError(f"{folder} cannot be loaded: {one_line(error)}; {AGAIN}") from error
    return Parts(networks, spec, posteriors, config["system"], mixture)
