"""What every network shares: saving and loading as a Hub folder, and the small blocks."""

from __future__ import annotations

import inspect
import json
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from huggingface_hub import PyTorchModelHubMixin
from huggingface_hub.constants import CONFIG_NAME, SAFETENSORS_SINGLE_FILE
from safetensors import SafetensorError
from safetensors.torch import save
from torch import Tensor, nn

from savae_dist.errors import CheckpointError
from savae_dist.files import write_bytes, write_text
from savae_dist.latents import full_precision
from savae_dist.networks.hub import folder_of
from savae_dist.networks.staged import Staged
from savae_dist.networks.stored import AGAIN, CONFIG, check_stored
from savae_dist.untrusted import check, read_object

SLOPE = 0.2  # negative slope of every LeakyReLU
FORMAT_VERSION = 1
Norm = Literal["batch", "group", "none"]
Output = Literal["sigmoid", "linear"]  # last layer of a decoder: sigmoid for images in [0, 1], linear for signals


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


def act(x: Tensor) -> Tensor:
    """LeakyReLU in place: what feeds it, a convolution, a linear layer or a norm, needs its output no more."""
    return nn.functional.leaky_relu_(x, SLOPE)


def conv(dims: int, channels_in: int, channels_out: int) -> nn.Module:
    """3-wide convolution of stride 1 that keeps the size, for signals (dims 1) or images (dims 2)."""
    return (SignalConv, nn.Conv2d)[dims - 1](channels_in, channels_out, 3, padding=1)


class SignalConv(nn.Conv1d):
    """nn.Conv1d over `[batch, channels, length]`, computed in channels-last order, which only conv2d has.

    On a CPU two to three times as fast at the few channels and long windows of signals.
    """

    def forward(self, x: Tensor) -> Tensor:
        x, weight = (t.unsqueeze(2).contiguous(memory_format=torch.channels_last) for t in (x, self.weight))
        return nn.functional.conv2d(x, weight, self.bias, padding=(0, *self.padding)).squeeze(2)


def norm(kind: Norm, channels: int, dims: int) -> nn.Module:
    """Normalisation over `[batch, channels]` (dims 0), `[.., length]` (1) or `[.., height, width]` (2)."""
    if kind == "batch":
        return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[dims](channels)
    if kind == "group":  # independent of the rest of the batch, so the same on any number of ranks
        return nn.GroupNorm(8 if channels % 8 == 0 else 1, channels)
    return nn.Identity()


def output_for(shape: Sequence[int]) -> Output:
    """The function at the end of a decoder of such samples."""
    return "sigmoid" if is_image(shape) else "linear"


def is_image(shape: Sequence[int]) -> bool:
    """(channels, height, width), values in [0, 1]; a signal is (channels, length)."""
    return len(shape) == 3


def crop(x: Tensor, shape: Sequence[int]) -> Tensor:
    """x `[batch, channels, ...]` without what its axes have more than those of `shape`, at their ends."""
    return x[(slice(None), slice(None), *(slice(size) for size in shape[1:]))]


class Residual(nn.Module):
    """x + second(LeakyReLU(first(x))): same width, identity skip, no norm; second layer starts at a tenth."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return self.second(act(self.first(x))).add_(x)


def initialise(network: nn.Module, *small: nn.Module) -> None:
    """Kaiming weights, zero biases; residual blocks' second layers and `small` are scaled by 0.1."""
    for module in network.modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        seconds = (m.second for m in network.modules() if isinstance(m, Residual))
        for layer in (*seconds, *small):
            layer.get_parameter("weight").mul_(0.1)
