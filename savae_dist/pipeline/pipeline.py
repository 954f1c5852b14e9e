"""The trained networks with their preprocessing, ready to use: a folder of safetensors and JSON, here or on the Hub."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from savae_dist.latents import Posterior
from savae_dist.networks import Decoder, LabelPart, Network, Prior
from savae_dist.networks.base import inference
from savae_dist.pipeline.anomaly import all_scores_of
from savae_dist.pipeline.class_names import Probabilities, known_label, label_numbers
from savae_dist.pipeline.folder import ROLES, find
from savae_dist.pipeline.inputs.inputs import Given, Named, Samples, as_tensor, named_samples, raw_samples
from savae_dist.pipeline.outputs import Output, Returned, described, returned
from savae_dist.pipeline.parts import Parts, load_parts, save_parts
from savae_dist.pipeline.sampling.codes import Codes, Source
from savae_dist.pipeline.sampling.posteriors import PosteriorBank
from savae_dist.pipeline.sampling.sampler import Sampler
from savae_dist.pipeline.stream import Piece, Signal, pieces
from savae_dist.preprocess import DataSpec, denormalise, normalise


class Pipeline:
    """Encode, decode, reconstruct, generate and classify raw samples with trained networks.

    networks: by role, `encoder`, `decoder`, `classifier`; any may be missing, and then what needs it says so. `prior`
        is what codes are drawn from, N(0, I) if missing.
    system: the system's name and hyperparameters, kept for the record.
    batch_size: samples that pass through a network at once.
    mixture, posteriors: what codes can be drawn from besides the prior.

    What is given may be raw samples, uint8 images `[n, h, w(, c)]` or windows `[n, l]` / `[n, c, l]` in the unit of the
    recording; or what they were made of, one thing or a list: picture files, recordings, folders of them, URLs, PIL
    images, pixels of any size, signals of any length. See `prepared`.
    `posterior`, `decoded` and `logits` are the same steps on what the networks see: normalised float tensors.
    """

    def __init__(
        self,
        networks: dict[str, Network],
        spec: DataSpec,
        posteriors: PosteriorBank | None = None,
        system: dict[str, Any] | None = None,
        batch_size: int = 256,
        mixture: Sampler | None = None,
    ) -> None:
        for name, network in networks.items():
            if not name.isidentifier():  # it becomes a folder's name
                raise ValueError(f"{name!r} cannot be the name of a network: use letters, digits and _")
            if not isinstance(network, ROLES.get(name, Network)):
                raise ValueError(f"the {name} of a pipeline cannot be a {type(network).__name__}")
        self.networks = dict(networks)
        self.spec = spec
        self.posteriors = posteriors
        self.mixture = mixture
        self.system = dict(system or {})
        self.batch_size = batch_size

    @property
    def device(self) -> torch.device:
        return next((p.device for network in self.networks.values() for p in network.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights: float32, or bfloat16 or float16 after `to(dtype=...)`."""
        return next((p.dtype for network in self.networks.values() for p in network.parameters()), torch.float32)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move the networks, and make their weights those of `dtype`; codes and probabilities stay float32."""
        for network in self.networks.values():
            network.to(device=device, dtype=dtype)
        return self

    def __repr__(self) -> str:
        return f"Pipeline({described(self.networks, self.spec, self.system)})"

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
            parts = [encoder(part.to(self.dtype))[0] for part in self._parts(x)]
        return Posterior(*(torch.cat(column).float() for column in zip(*parts, strict=True)))

    def decoded(self, z: Tensor) -> Tensor:
        """Normalised samples `[n, *shape]` of latents z `[n, K]`."""
        decoder = self.role("decoder")
        with inference(decoder):
            return torch.cat([decoder(part.to(self.dtype)).float() for part in self._parts(z)])

    def logits(self, z: Tensor) -> Tensor:
        """Class logits float32 `[n, classes]` of latents z `[n, K]`."""
        classifier = self.role("classifier")
        with inference(classifier):
            return torch.cat([classifier(part.to(self.dtype)).float() for part in self._parts(z)])

    def latents(
        self,
        n: int,
        label: int | str | None = None,
        seed: int | None = None,
        style: Samples | None = None,
        sampler: Source | None = None,
        temperature: float = 1.0,
    ) -> Tensor:
        """Codes `[n, K]` for the decoder, of all classes or of class `label`; see `labels` for those that are known.

        label: the number or the name of a class.
        style: z `[n, style_dim]`, or `[style_dim]` for all, in place of a draw, where the code has a label part.
        sampler: `mixture`, fitted to where the training set's codes lie; `prior`, which the decoder may hardly have
        seen; `posteriors` of single training samples, nearly their reconstructions. None: the first that there is.
        temperature: times the deviation of each Gaussian; below 1 samples are more alike and more typical.
        A seed gives the same draws on every device, and by the prior every class the same style; without one they
        differ from call to call.
        """
        if n < 1:
            raise ValueError(f"n must be at least 1, not {n}")
        label = known_label(label, self.labels, self.spec.class_names)
        generator = torch.Generator()
        generator.seed() if seed is None else generator.manual_seed(seed)
        given = None if style is None else as_tensor(style).float().cpu()
        return self.codes.draw(n, label, generator, given, sampler, temperature).to(self.device)

    @property
    def codes(self) -> Codes:
        """What codes can be drawn from."""
        networks = self.networks
        classifier = networks.get("classifier")
        return Codes(self.latent_dim, self.spec.classes, self.prior, classifier, self.mixture, self.posteriors)

    @property
    def prior(self) -> Prior | None:
        """The prior that the decoder's codes were trained towards; None: N(0, I)."""
        prior = self.networks.get("prior")
        return prior if isinstance(prior, Prior) else None

    @property
    def labels(self) -> list[int]:
        """The classes that can be generated."""
        return self.codes.labels if "decoder" in self.networks else []

    @property
    def has_clusters(self) -> bool:
        """Whether the classifier reads classes that were given to clusters."""
        classifier = self.networks.get("classifier")
        return isinstance(classifier, LabelPart) and classifier.clusters

    def completed(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """An encoder's codes z `[n, ...]` as the decoder takes them: with labels y `[n]` where it is told those."""
        return z if self.prior is None else self.prior.complete(z, None if y is None else y.to(z.device))

    @property
    def latent_dim(self) -> int:
        """K."""
        decoder = self.role("decoder")
        assert isinstance(decoder, Decoder)
        return decoder.latent_dim

    # On raw samples, results on the CPU.

    def prepared(self, given: Given, **reading: Any) -> Samples:
        """What is given as raw samples, by what the training set went through; ValueError names the first that is bad.

        A recording becomes its windows. reading: of recordings, `rate` in Hz where they do not say theirs, `hop`,
        `variables` (the names of their channels), `reader`: see `recordings.Reading`.
        """
        return raw_samples(given, self.spec, **reading)

    def parts(self, given: Given, **reading: Any) -> Iterator[Named]:
        """The same file by file; of a recording at most `batch_size` windows at once, with their starts."""
        return named_samples(given, self.spec, self.batch_size, **reading)

    def encode(self, given: Given) -> Posterior:
        """q(z|x) of each sample."""
        parts = [self.posterior(part) for part in self._normalised(given)]
        return Posterior(*(torch.cat(column).cpu() for column in zip(*parts, strict=True)))

    def decode(self, z: Samples, output_type: Output = "np") -> Returned:
        """Raw samples in the stored layout of latents z `[n, K]`; output_type: arrays, tensors or PIL images."""
        parts = as_tensor(z).float().split(self.batch_size)
        return returned(np.concatenate([self._raw(self.decoded(part)) for part in parts]), self.spec, output_type)

    def reconstruct(
        self, given: Given, y: Samples | Sequence[str] | None = None, output_type: Output = "np"
    ) -> Returned:
        """Raw samples in the stored layout, each decoded from its posterior's mean.

        y int `[n]`, -1 = unlabelled, or names: labels for a decoder that is told them; None: it is told none.
        """
        x = self.prepared(given)
        labels = torch.full((len(x),), -1) if y is None else label_numbers(y, self.spec.class_names)
        if len(labels) != len(x):
            raise ValueError(f"{len(labels)} labels for {len(x)} samples: give one each, -1 where there is none")
        pairs = zip(self._normalised(x), self._parts(labels), strict=True)
        made = [self._raw(self.decoded(self.completed(self.posterior(p).mean, own))) for p, own in pairs]
        return returned(np.concatenate(made), self.spec, output_type)

    def generate(
        self,
        n: int,
        label: int | str | None = None,
        seed: int | None = None,
        output_type: Output = "np",
        **options: Any,
    ) -> Returned:
        """n new raw samples, of all classes or of class `label`; options: style, sampler, temperature of `latents`."""
        return self.decode(self.latents(n, label, seed, **options), output_type)

    def classify(self, given: Given) -> Probabilities:
        """Class probabilities float32 `[n, classes]` of each sample, at its posterior's mean.

        An array; `class_names` are those of its columns, and `names()` those of the most probable class of each sample.
        """
        parts = self._normalised(given)
        found = [self.logits(self.posterior(part).mean).softmax(1).cpu().numpy() for part in parts]
        return Probabilities.of(np.concatenate(found), self.spec.class_names)

    def score(self, x: Samples) -> dict[str, np.ndarray]:
        """How strange raw samples are to what was trained on, float64 `[n]` by kind: see `anomaly.scores`."""
        return all_scores_of(self, self._normalised(x))

    def stream(self, recording: Signal | np.ndarray, hop: int) -> Iterator[Piece]:
        """Scores, classes and codes of the windows of a recording, every `hop` samples: see `stream.pieces`."""
        return pieces(self, recording, hop)

    def _parts(self, x: Tensor) -> Iterator[Tensor]:
        return (part.to(self.device) for part in x.split(self.batch_size))

    def _normalised(self, given: Given) -> Iterator[Tensor]:
        return (normalise(part, self.spec) for part in self._parts(as_tensor(self.prepared(given))))

    def _raw(self, x: Tensor) -> np.ndarray:
        return denormalise(x, self.spec).cpu().numpy()

    # As a folder.

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `pipeline.json`, each network and what codes are drawn from; an older pipeline there is replaced."""
        save_parts(Path(folder), Parts(self.networks, self.spec, self.posteriors, self.system, self.mixture))

    def push_to_hub(
        self, repo_id: str, *, license: str | None = None, datasets: Sequence[str] = (), **upload_options: Any
    ) -> str:
        """Upload the pipeline, and a folder for each network, as one commit to a repository; its URL is returned.

        license, datasets: of the card, as the Hub names them. upload_options: private, token, revision, create_pr,
        message: see `networks.upload.upload`.
        """
        from savae_dist.pipeline.exports.export import push  # here: a pipeline that is only used needs none of it

        return push(self, repo_id, license, datasets, **upload_options)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
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
        """Load a run's folder, a saved or exported folder, or a repository on the Hub; CheckpointError if it cannot.

        subfolder: of the pipeline within it. device, dtype: see `to`. The other keywords are those of diffusers and
        transformers.
        """
        folder = find(
            source,
            subfolder,
            revision=revision,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            token=token,
        )
        found = load_parts(folder)
        made = cls(found.networks, found.spec, found.posteriors, found.system, mixture=found.mixture)
        return made.to(device, dtype)
