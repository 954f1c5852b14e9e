"""Model cards: what a pipeline or one of its networks is, what it takes, how it was made, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from savae_dist import __version__
from savae_dist.errors import printable
from savae_dist.pipeline.card.card_data import TRAINING, CardFacts, flat, head, with_baselines
from savae_dist.pipeline.card.card_limits import shortcomings
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

WHAT = {
    "pipeline": "The trained networks of {family} with their preprocessing.",
    "encoder": "Encodes a sample x as the diagonal Gaussian posterior q(z|x) of its latent code z.",
    "decoder": "Decodes a latent code z into a sample x.",
    "classifier": "Gives the logits of the class of a latent code z.",
    "prior": "Turns standard normal draws into latent codes, and says how a label enters them. It has no weights.",
    "critic": "Scores a sample: high for real ones, low for generated ones.",
}
USE = {
    "pipeline": "{raw}\nprint(pipeline.encode(x).mean.shape)  # one latent code per sample\n"
    "x_hat = pipeline.reconstruct(x)  # raw samples again\nnew = pipeline.generate(4, seed=0)",
    "generator": "new = pipeline.generate(4, seed=0)  # raw samples; there is no encoder, so none is reconstructed",
    "encoder": "{raw}\nposterior = pipeline.encode(x)  # mean and log_variance, one row per sample\n"
    "encoder = Encoder.from_pretrained(folder)  # the network alone: it takes normalised tensors",
    "decoder": "x = pipeline.generate(4, seed=0)  # raw samples of the prior{of_class}\n"
    "decoder = Decoder.from_pretrained(folder)  # the network alone, without preprocessing",
    "classifier": "classifier = Classifier.from_pretrained(folder)  # the network alone: it takes latent codes",
    "prior": "prior = Prior.from_pretrained(folder)  # it takes {draws} standard normal draws per code",
    "critic": "critic = Critic.from_pretrained(folder)  # the network alone: it takes normalised tensors",
}
PACKAGE = f"Made by version {__version__} of the package: `pip install savae-dist`, or from its source."
NORMALISE = {
    "unit": "uint8 pixels are divided by 255",
    "window": "each window and channel is brought to mean 0 and deviation 1",
    "dataset": "each channel by the training set's mean and deviation, {mean} and {std}",
    "none": "windows are taken as they are",
}


def model_card(pipeline: Pipeline, name: str, facts: CardFacts | None = None) -> str:
    """The README.md of a network (`name` its role) or of the whole pipeline (`name` "pipeline")."""
    facts = facts or CardFacts()
    summary = facts.summary
    encodes = "encoder" in pipeline.networks
    family = "variational autoencoder" if encodes else "generative adversarial network"
    system = str(pipeline.system.get("name", family))
    what = WHAT.get(name, "A network of the system.").format(family=f"a {family}")
    tags = list(dict.fromkeys([family.replace(" ", "-"), system.replace(" ", "-"), pipeline.spec.kind]))
    limits = shortcomings(summary) if summary else []
    sections = [
        f"---\n{head(name, pipeline.spec, encodes, tags, facts)}\n---",
        f"# {name.capitalize()} of {system}",
        f"{what} Trained with `savae_dist`; safetensors and JSON only.",
        f"## Use\n\n```python\n{_snippet(pipeline, name)}\n```\n\n{PACKAGE}",
        f"## Input\n\n{_data(pipeline.spec)}\n\n`pipeline.json` holds this; `Pipeline` applies it.",
        _trained_on(summary.get("training_data")),
        _kept(pipeline) if name in ("pipeline", "decoder") else "",
        "## What it is not good at\n\n" + "\n".join(f"- {one}" for one in limits) if limits else "",
        _metrics(summary, pipeline.spec),
        _pictures(facts) if name == "pipeline" else "",
        _table("Hyperparameters", _as_trained(pipeline.system, summary)),
        _table("Training", _training(summary)),
        f"## Citation\n\n```bibtex\n{facts.citation}\n```" if facts.citation else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _snippet(pipeline: Pipeline, name: str) -> str:
    raw = _raw_example(pipeline.spec)
    draws = 0 if pipeline.prior is None else pipeline.prior.draws
    of_class = f"; label={_label(pipeline)!r} for a class" if pipeline.labels else ""
    classes = f"{name.capitalize()}, " if name in WHAT and name != "pipeline" else ""
    use = "generator" if name == "pipeline" and "encoder" not in pipeline.networks else name
    body = USE.get(use, "").format(raw=raw, of_class=of_class, draws=draws)
    lines = [
        *(["import numpy as np"] if "np." in body else []),
        f"from savae_dist import {classes}Pipeline",
        "",
        'folder = "."  # this folder; or its repository on the Hub, "ORGANISATION/NAME"',
        "pipeline = Pipeline.from_pretrained(folder)  # with the preprocessing",
        body,
    ]
    return "\n".join(lines).strip()


def _label(pipeline: Pipeline) -> int | str:
    """The first class as `generate` takes it: its name, or its number if it has none."""
    number, names = pipeline.labels[0], pipeline.spec.class_names
    return names[number] if number < len(names) else number


def _raw_example(spec: DataSpec) -> str:
    """A line that makes four raw samples in the stored layout."""
    channels, *size = spec.shape
    stored = tuple(size) if channels == 1 else (*size, channels) if spec.kind == "image" else spec.shape
    if spec.kind == "image":
        return f"x = np.zeros({(4, *stored)}, np.uint8)  # your images"
    return f"x = np.random.default_rng(0).normal(size={(4, *stored)}).astype(np.float32)  # your windows"


def _data(spec: DataSpec) -> str:
    names = ": " + ", ".join(spec.class_names) if spec.class_names else ""
    axes = "channels, height, width" if spec.kind == "image" else "channels, length"
    raw = {"image": "uint8 `[n, h, w]` or `[n, h, w, c]`", "signal": "float `[n, l]` or `[n, c, l]`"}[spec.kind]
    lines = [
        f"- {spec.kind}s; the networks see ({axes}) = {spec.shape}",
        f"- raw samples: {raw}",
        "- normalisation: " + NORMALISE[spec.normalise].format(mean=list(spec.mean), std=list(spec.std)),
        f"- {spec.classes} classes{names}",
    ]
    if spec.origin is not None:
        lines.append(f"- {spec.origin.told()}")
    if spec.rate:
        lines.append(f"- sampling rate: {spec.rate:g} Hz")
    return "\n".join(lines)


def _trained_on(data: object) -> str:
    """The training data, and the digest by which their card (of `make_shards --preview`) is recognised."""
    if not isinstance(data, dict) or not all(isinstance(data.get(key), str) for key in ("samples", "index_sha256")):
        return ""
    keys = ("samples", "index_sha256", "on_both_sides")
    samples, digest, shared = (printable(str(data.get(key, ""))).replace("`", "") for key in keys)
    text = f"## Training data\n\n{samples}; the sha256 of their index, as in the card of the data set, is `{digest}`."
    return f"{text}\n\n**Of the metrics below: {shared}.**" if shared else text


def _kept(pipeline: Pipeline) -> str:
    """A warning where the codes of single training samples are published with the weights."""
    if pipeline.posteriors is None:
        return ""
    return (
        "## Training samples in it\n\n"
        f"`posteriors.safetensors` holds the codes of {len(pipeline.posteriors.mean):,} training samples: whoever has "
        "the decoder can see nearly these samples. Delete the file before you share it if they are private; new "
        "samples are drawn without it where there is a `sampler.safetensors`."
    )


def _metrics(summary: Mapping[str, Any], spec: DataSpec) -> str:
    """Each metric beside its baseline."""
    found = with_baselines(summary, spec.classes)
    rows = [f"| `{name}` | {value:.6g} | {beside} |" for name, (value, beside) in found.items()]
    title = "## Metrics on the validation set\n\n| | | beside |\n|---|---|---|\n"
    return title + "\n".join(rows) if rows else ""


def _pictures(facts: CardFacts) -> str:
    """The run's own figures of its validation set, which lie beside the card."""
    shown = [f"![{path.stem.replace('_', ' ')}]({path.name})" for path in facts.pictures]
    return "## Pictures\n\nOf samples of the validation set, and of new ones.\n\n" + "\n\n".join(shown) if shown else ""


def _as_trained(system: Mapping[str, Any], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters, with the steps that were trained where a run was shorter than they ask for."""
    done = summary.get("steps")
    steps = {f"{phase}_steps": count for phase, count in done.items()} if isinstance(done, dict) else {}
    return {name: steps.get(name, value) for name, value in system.items()}


def _training(summary: Mapping[str, Any]) -> dict[str, str]:
    """What the run says of its training, numbers and words."""
    words = {key: printable(str(summary[key])) for key in TRAINING if isinstance(summary.get(key), str)}
    numbers = flat({key: summary[key] for key in TRAINING if key in summary})
    return {**words, **{name: f"{value:.6g}" for name, value in numbers.items()}}


def _table(title: str, values: dict[str, Any]) -> str:
    if not values:
        return ""
    rows = "\n".join(f"| `{key}` | {value} |" for key, value in values.items())
    return f"## {title}\n\n| | |\n|---|---|\n{rows}"
