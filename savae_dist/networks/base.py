"""What every network shares: saving and loading as a Hub folder, and the roles."""

from __future__ import annotations

import inspect
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from savae_dist.errors import CheckpointError
from savae_dist.files import write_bytes, write_text
from savae_dist.latents import full_precision
from savae_dist.networks.blocks import Output
from savae_dist.networks.hub import folder_of
from savae_dist.networks.staged import Staged
from savae_dist.networks.stored import AGAIN, CONFIG, check_stored
from savae_dist.untrusted import check, read_object

FORMAT_VERSION = 1


class Network(Staged, PyTorchModelHubMixin):
    """A network that is a folder with `config.json` and `model.safetensors`, here or on the Hub.

    A subclass takes plain, JSON-able arguments; they become the config. `Network.from_pretrained` and that of the
    roles below give the class that the folder names in `model_type`.
    """

    model_type: ClassVar[str] = ""  # the name under which NETWORKS holds the subclass

    init_arguments: dict[str, Any]  # arguments of __init__, defaults included; `*args` under "*args"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        network = super().__new__(cls, *args, **kwargs)
        network.init_arguments = noted(inspect.signature(cls.__init__), network, *args, **kwargs)
        return network

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **hub: Any) -> str | None:
        """Write config and weights; with `push_to_hub=True` and the like, see huggingface_hub, also a card.

        config: a mapping of more keys for config.json; those that a network is loaded by are always its own.
        """
        if unknown := hub.keys() - HUB_SAVING:
            raise TypeError(
                f"save_pretrained() takes no {min(unknown)!r}; for the Hub it takes {', '.join(HUB_SAVING)}"
            )
        if hub:
            return super().save_pretrained(save_directory, config=json.loads(self.config_text(config)), **hub)
        (folder := Path(save_directory)).mkdir(parents=True, exist_ok=True)
        self._save_pretrained(folder)
        write_text(folder / CONFIG_NAME, self.config_text(config))
        return None

    def config_text(self, more: Mapping[str, Any] | None = None) -> str:
        """What config.json holds; more: further keys, which do not replace those that a network is loaded by."""
        named = {"model_type": self.model_type, "format_version": FORMAT_VERSION, **self.init_arguments}
        return json.dumps({**(more or {}), **named}, indent=2, sort_keys=True) + "\n"

    def _save_pretrained(self, save_directory: Path) -> None:
        """Save copies: under ZeRO parameters are pieces of one flat tensor, which the mixin's own method refuses."""
        tensors = {name: one.clone(memory_format=torch.contiguous_format) for name, one in self.state_dict().items()}
        write_bytes(save_directory / SAFETENSORS_SINGLE_FILE, save(tensors, metadata={"format": "pt"}))

    @classmethod
    def from_pretrained(  # type: ignore[override]  # no other keywords: the mixin drops what it does not know
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        subfolder: str = "",
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        token: str | bool | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> Self:
        """Load a local folder or a repository on the Hub, in eval mode; the keywords are those of `Pipeline`'s.

        subfolder: of a network within it. CheckpointError if it cannot be had or read, or is none of this kind.
        """
        from savae_dist.networks import NETWORKS  # here, because the registry imports the networks

        source = pretrained_model_name_or_path
        # Both files of one commit, also if another is pushed meanwhile.
        folder = folder_of(
            source,
            (CONFIG_NAME, SAFETENSORS_SINGLE_FILE, PIPELINE),
            subfolder,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        source = f"{source}, {subfolder}" if subfolder else source
        config = _config(folder, source)
        kind = NETWORKS.get(config["model_type"])
        if kind is None:
            raise CheckpointError(
                f"{source}: model_type {config.get('model_type')!r} is not in NETWORKS: first import the file that "
                "enters it there (tools: --trainer FILE.py)"
            )
        if config.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{source}: format_version {config.get('format_version')} is not {FORMAT_VERSION}; "
                "use the version of savae_dist that wrote it"
            )
        if not issubclass(kind, cls):
            raise CheckpointError(f"{source} holds a {kind.__name__}, which is no {cls.__name__}")
        try:
            return super(Network, kind).from_pretrained(folder, strict=True).to(device=device, dtype=dtype)
        except (OSError, SafetensorError, RuntimeError) as error:  # RuntimeError: other tensors than the config's
            raise _unreadable(source, error) from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", strict: bool = True, **kwargs: Any) -> Self:
        """Read safetensors only: the mixin's own method prints, and loads a pickle if there are no safetensors."""
        # The mixin passes every key of config.json to an __init__ that takes **kwargs.
        arguments = {name: value for name, value in kwargs.items() if name not in (*NO_ARGUMENTS, *HUB_OPTIONS)}
        weights = Path(model_id) / SAFETENSORS_SINGLE_FILE
        check_stored(cls, arguments, weights)
        return cls._load_as_safetensor(cls(**arguments), str(weights), map_location, strict)


NO_ARGUMENTS = ("model_type", "format_version")
PIPELINE = "pipeline.json"  # marks the folder of a whole pipeline
# The keywords that the mixin takes; it silently drops all others.
HUB_SAVING = (
    *("repo_id", "push_to_hub", "model_card_kwargs", "commit_message", "private", "token", "branch", "create_pr"),
    *("allow_patterns", "ignore_patterns", "delete_patterns"),
)
HUB_OPTIONS = ("revision", "cache_dir", "force_download", "local_files_only", "token")


def noted(signature: inspect.Signature, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """The arguments of a call by name, without `self`."""
    # Not bound in full: a copy of a network is made without arguments, and takes over those of the original.
    bound = signature.bind_partial(*args, **kwargs)
    bound.apply_defaults()
    found: dict[str, Any] = {}
    for parameter in list(signature.parameters.values())[1:]:
        value = bound.arguments.get(parameter.name)
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            found |= value or {}
        elif parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            found |= {f"*{parameter.name}": value} if value else {}
        elif parameter.name in bound.arguments:
            found[parameter.name] = value
    return found


def _config(folder: Path, source: str | Path) -> dict[str, Any]:
    """config.json; CheckpointError if it cannot be read, or if there are no weights beside it."""
    for name in (CONFIG_NAME, SAFETENSORS_SINGLE_FILE):
        if not (folder / name).is_file():
            if (folder / PIPELINE).is_file():
                raise CheckpointError(f"{source} is a whole pipeline; name one of its networks, subfolder='encoder'")
            raise CheckpointError(f"{source} cannot be loaded: it holds no {name}, so it is not a network's folder")
    config = read_object(folder / CONFIG_NAME, CheckpointError, AGAIN)
    check(config, CONFIG, folder / CONFIG_NAME, CheckpointError, AGAIN)
    return config


def _unreadable(source: str | Path, error: Exception) -> CheckpointError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return CheckpointError(f"{source} cannot be loaded: {reason}; save it or download it again")


class Encoder(Network):
    """x `[batch, *shape]` -> posterior of z `[batch, latent_dim]` and the features of the first stages."""

    latent_dim: int

    def stages(self, x: Tensor) -> list[Tensor]:
        """The features alone; an encoder overrides this where that spares a part of the way."""
        features: list[Tensor] = self(x)[1]
        return features


class Decoder(Network):
    """z `[batch, latent_dim]` -> x^ `[batch, *shape]`: `output` of the logits, which are a subclass's own."""

    latent_dim: int
    output: Output

    @abstractmethod
    def logits(self, z: Tensor) -> Tensor:
        """The last layer's values before `output` is applied, `[batch, *shape]`."""

    def forward(self, z: Tensor) -> Tensor:
        return self.finished(self.logits(z))

    def finished(self, logits: Tensor) -> Tensor:
        logits = full_precision(logits)
        return torch.sigmoid(logits) if self.output == "sigmoid" else logits


class Critic(Network):
    """x `[batch, *shape]` -> unbounded score `[batch]`, high for real samples, never in half precision."""


class Classifier(Network):
    """z `[batch, latent_dim]` -> logits `[batch, classes]`."""


class Discriminator(Network):
    """Samples or codes `[batch, ...]` -> logit `[batch]` of the probability that they are real; at least float32."""


@contextmanager
def inference(network: nn.Module) -> Iterator[None]:
    """No gradients and eval mode inside; every module's mode is put back, so a network in training may be measured."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training
