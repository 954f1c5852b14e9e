"""`networks.initial`: where the weights lie that a run starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from huggingface_hub.constants import CONFIG_NAME

from savae_dist.errors import ConfigError, of_key
from savae_dist.files import read_object
from savae_dist.networks import NETWORKS, Network
from savae_dist.networks.hub import folder_of
from savae_dist.pipeline import folder as pipeline_folder


def find_initial(source: str, networks: Mapping[str, Network]) -> dict[str, Path]:
    """Those of `networks` that `source` holds, each with its folder.

    source: what `Pipeline.from_pretrained` takes (a finished run, a pipeline, a repository on the Hub), a checkpoint or
    its `networks`, or the folder or repository of one network. ConfigError or CheckpointError if it holds none of them.
    """
    with of_key("networks.initial", source):
        root = folder_of(source, pipeline_folder.FILES).resolve()
        if not (root / CONFIG_NAME).is_file() and not any((root / name).is_dir() for name in ("networks", *networks)):
            root = pipeline_folder.find(root)
    if (root / CONFIG_NAME).is_file():
        return {_name_of(root, source, networks): root}
    if (root / "networks").is_dir():
        root = root / "networks"
    found = {name: root / name for name in networks if (root / name).is_dir()}
    if not found:
        raise ConfigError(f"networks.initial={source} holds none of {', '.join(networks)}")
    return found


def _name_of(root: Path, source: str, networks: Mapping[str, Network]) -> str:
    """Which of `networks` the single network in `root` is, by the only one of its class or by the folder's name."""
    model_type = read_object(root / CONFIG_NAME).get("model_type")
    fitting = [name for name, network in networks.items() if type(network) is NETWORKS.get(str(model_type))]
    if not fitting:
        raise ConfigError(f"networks.initial={source} holds a {model_type}, and none of {', '.join(networks)} is one")
    if len(fitting) > 1 and root.name not in fitting:
        raise ConfigError(
            f"networks.initial={source} holds a {model_type}, as {' and '.join(fitting)} are: name its folder as one "
            "of them, or give the folder that holds it"
        )
    return root.name if root.name in fitting else fitting[0]
