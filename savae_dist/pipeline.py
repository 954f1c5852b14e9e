"""The trained networks with their preprocessing, ready to use: a folder of safetensors and JSON, here or on the Hub."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from savae_dist.errors import CheckpointError
from savae_dist.latents import Posterior
from savae_dist.networks import Classifier, Critic, Decoder, Encoder, Network
from savae_dist.preprocess import DataSpec, denormalise, normalise

FORMAT_VERSION = 1
CONFIG = "pipeline.json"
POSTERIORS = "posteriors.safetensors"
ROLES: dict[str, type[Network]] = {"encoder": Encoder, "decoder": Decoder, "classifier": Classifier, "critic": Critic}

Samples = np.ndarray | Tensor  # raw, in the stored layout: see preprocess.normalise


@dataclass(frozen=True)
class PosteriorBank:
    """Posteriors of training samples, from which a labelled sample is generated.

    mean, log_variance float32 `[n, K]`; label int64 `[n]`.
    """

    mean: Tensor
    log_variance: Tensor
    label: Tensor

    def __post_init__(self) -> None:
        if not (self.mean.shape == self.log_variance.shape and self.label.shape == self.mean.shape[:1]):
            raise ValueError("a posterior bank needs mean and log_variance [n, K] and label [n]")

    def of_class(self, label: int) -> Posterior:
        chosen = self.label == label
        if not chosen.any():
            known = ", ".join(map(str, self.label.unique().tolist()))
            raise ValueError(f"label {label}: no training posterior is stored for it; there are some for {known}")
        return Posterior(self.mean[chosen], self.log_variance[chosen])


class Pipeline:
    """Encode, decode, reconstruct, generate and classify raw samples with trained networks.

    networks: by role, `encoder`, `decoder`, `classifier`; any may be missing, and then what needs it says so.
    system: the system's name and hyperparameters, kept for the record.
    batch_size: samples that pass through a network at once.

    Raw samples are uint8 images `[n, h, w(, c)]` or windows `[n, l]` / `[n, c, l]` in the unit of the recording.
    `posterior`, `decoded` and `logits` are the same steps on what the networks see: normalised float tensors.
    """

    def __init__(
        self,
        networks: dict[str, Network],
        spec: DataSpec,
        posteriors: PosteriorBank | None = None,
        system: dict[str, Any] | None = None,
        batch_size: int = 256,
    ) -> None:
        for name, network in networks.items():
            if not name.isidentifier():  # it becomes a folder's name
                raise ValueError(f"{name!r} cannot be the name of a network: use letters, digits and _")
            if not isinstance(network, ROLES.get(name, Network)):
                raise ValueError(f"the {name} of a pipeline cannot be a {type(network).__name__}")
        self.networks = dict(networks)
        self.spec = spec
        self.posteriors = posteriors
        self.system = dict(system or {})
        self.batch_size = batch_size

    @property
    def device(self) -> torch.device:
        return next((p.device for network in self.networks.values() for p in network.parameters()), torch.device("cpu"))

    def to(self, device: torch.device | str) -> Self:
        for network in self.networks.values():
            network.to(device)
        return self

    def role(self, name: str) -> Network:
        """The network of that role; ValueError if the pipeline has none."""
        if name not in self.networks:
            raise ValueError(f"this needs a network {name!r}, and the pipeline has only: {', '.join(self.networks)}")
        return self.networks[name]

    # On normalised tensors, results on the networks' device.

    def posterior(self, x: Tensor) -> Posterior:
        """q(z|x) of normalised samples x `[n, *shape]`."""
        encoder = self.role("encoder")
        with inference(encoder):
            parts = [encoder(part)[0] for part in self._parts(x)]
        return Posterior(*map(torch.cat, zip(*parts, strict=True)))

    def decoded(self, z: Tensor) -> Tensor:
        """Normalised samples `[n, *shape]` of latents z `[n, K]`."""
        decoder = self.role("decoder")
        with inference(decoder):
            return torch.cat([decoder(part) for part in self._parts(z)])

    def logits(self, z: Tensor) -> Tensor:
        """Class logits float32 `[n, classes]` of latents z `[n, K]`."""
        classifier = self.role("classifier")
        with inference(classifier):
            return torch.cat([classifier(part).float() for part in self._parts(z)])

    def latents(self, n: int, label: int | None = None, seed: int | None = None) -> Tensor:
        """z `[n, K]`: from the prior N(0, I), or each from one of the stored posteriors of class `label`.

        A seed gives the same draws on every device; without one they differ from call to call.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        if label is None:
            return torch.randn(n, self.latent_dim, generator=generator).to(self.device)
        if self.posteriors is None:
            raise ValueError("generate(label=...) needs stored posteriors, and this pipeline has none: leave label out")
        stored = self.posteriors.of_class(label)
        chosen = torch.randint(len(stored.mean), (n,), generator=generator)
        posterior = Posterior(stored.mean[chosen], stored.log_variance[chosen])
        return posterior.sample(torch.randn(posterior.mean.shape, generator=generator)).to(self.device)

    @property
    def latent_dim(self) -> int:
        """K."""
        decoder = self.role("decoder")
        assert isinstance(decoder, Decoder)
        return decoder.latent_dim

    # On raw samples, results on the CPU.

    def encode(self, x: Samples) -> Posterior:
        """q(z|x) of raw samples."""
        parts = [self.posterior(part) for part in self._normalised(x)]
        return Posterior(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))

    def decode(self, z: Samples) -> np.ndarray:
        """Raw samples in the stored layout of latents z `[n, K]`."""
        parts = as_tensor(z).float().split(self.batch_size)
        return np.concatenate([self._raw(self.decoded(part)) for part in parts])

    def reconstruct(self, x: Samples) -> np.ndarray:
        """Raw samples in the stored layout, each decoded from its posterior's mean."""
        return np.concatenate([self._raw(self.decoded(self.posterior(p).mean)) for p in self._normalised(x)])

    def generate(self, n: int, label: int | None = None, seed: int | None = None) -> np.ndarray:
        """n new raw samples: of the prior, or of class `label` (`latents` says how)."""
        return self.decode(self.latents(n, label, seed))

    def classify(self, x: Samples) -> np.ndarray:
        """Class probabilities float32 `[n, classes]` of raw samples, at their posteriors' means."""
        parts = self._normalised(x)
        return np.concatenate([self.logits(self.posterior(part).mean).softmax(1).cpu().numpy() for part in parts])

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        return (part.to(self.device) for part in x.split(self.batch_size))

    def _normalised(self, x: Samples) -> Iterator[Tensor]:
        return (normalise(part, self.spec) for part in self._parts(as_tensor(x)))

    def _raw(self, x: Tensor) -> np.ndarray:
        return denormalise(x, self.spec).cpu().numpy()

    # As a folder.

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `pipeline.json`, one folder per network and the posteriors; an older pipeline there is replaced."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG).unlink(missing_ok=True)  # written last: a folder that holds it is whole
        (folder / POSTERIORS).unlink(missing_ok=True)
        for name, network in self.networks.items():
            network.save_pretrained(folder / name)
        if self.posteriors is not None:
            tensors = {name: value.cpu().contiguous() for name, value in vars(self.posteriors).items()}
            save_file(tensors, folder / POSTERIORS)
        write_config(folder, {name: name for name in self.networks}, self.spec, self.system)

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None, token: str | None = None) -> Self:
        """Load a run's folder, a saved or exported folder, or a repository on the Hub; CheckpointError if it cannot."""
        folder = _find(source, revision, token)
        config = _read_json(folder / CONFIG)
        if config.get("format_version") != FORMAT_VERSION:
            raise CheckpointError(
                f"{folder / CONFIG}: format_version {config.get('format_version')} is not {FORMAT_VERSION}; "
                "use the version of savae_dist that wrote it"
            )
        try:
            networks = {name: _network(folder, name, place) for name, place in dict(config["networks"]).items()}
            bank = folder / POSTERIORS
            posteriors = PosteriorBank(**load_file(bank)) if bank.is_file() else None
            return cls(networks, DataSpec.from_dict(config["spec"]), posteriors, config["system"])
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:  # bad files
            raise CheckpointError(f"{folder} cannot be loaded: {_one_line(error)}; save the pipeline again") from error


def collect_posteriors(
    encoder: Encoder, batches: Iterable[tuple[Tensor, Tensor]], per_class: int = 1000
) -> PosteriorBank:
    """The posteriors of the first `per_class` samples of each class, in the order given.

    batches: (x normalised `[n, *shape]`, y int64 `[n]`); the unlabelled (-1) are left out.
    """
    count: dict[int, int] = {}
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    device = next(encoder.parameters()).device
    for x, y in batches:
        rows = []
        for row, label in enumerate(y.tolist()):
            if label >= 0 and count.get(label, 0) < per_class:
                count[label] = count.get(label, 0) + 1
                rows.append(row)
        if rows:
            with inference(encoder):
                posterior = encoder(x[rows].to(device))[0]
            parts.append((posterior.mean.cpu(), posterior.log_variance.cpu(), y[rows].cpu()))
    if not parts:
        raise ValueError("no labelled sample: there is nothing to keep a posterior of; leave the bank out")
    return PosteriorBank(*(torch.cat(column) for column in zip(*parts, strict=True)))


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


def as_tensor(x: Samples) -> Tensor:
    """A tensor that shares the array's memory where it can (a read-only or strided array is copied)."""
    return x if isinstance(x, Tensor) else torch.from_numpy(np.require(x, requirements=["C", "W"]))


def write_config(folder: Path, networks: dict[str, str], spec: DataSpec, system: dict[str, Any]) -> None:
    """`pipeline.json`; networks: name -> its folder inside this one, "." for the folder itself."""
    values = {"format_version": FORMAT_VERSION, "networks": networks, "spec": spec.to_dict(), "system": system}
    (folder / CONFIG).write_text(json.dumps(values, indent=2) + "\n")


def _network(folder: Path, name: str, place: str) -> Network:
    if place not in (name, "."):  # a file from elsewhere must not send us out of its folder
        raise ValueError(f"network {name!r} is said to lie in {place!r}")
    return ROLES.get(name, Network).from_pretrained(folder / place)


def _find(source: str | Path, revision: str | None, token: str | None) -> Path:
    path = Path(source)
    if not path.is_dir():
        try:
            patterns = ["*.json", "*.safetensors"]
            path = Path(snapshot_download(str(source), revision=revision, token=token, allow_patterns=patterns))
        except (OSError, HFValidationError) as error:
            reason = _one_line(error)
            raise CheckpointError(f"{source}: no such folder, and not to be had from the Hub ({reason})") from error
    for folder in (path, path / "pipeline"):
        if (folder / CONFIG).is_file():
            return folder
    if (path / "status.json").is_file():
        status = _read_json(path / "status.json")
        where = ", ".join(f"{key} {status[key]}" for key in ("outcome", "phase", "step") if key in status)
        raise CheckpointError(f"{path}: the run is not finished ({where}); run its command again to continue it")
    raise CheckpointError(f"{path} holds no {CONFIG}: give a finished run, a saved or exported folder, or a Hub id")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {_one_line(error)}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} holds no JSON object")
    return values


def _one_line(error: Exception) -> str:
    return " ".join((type(error).__name__ + ":", *str(error).strip().splitlines()[:1]))
