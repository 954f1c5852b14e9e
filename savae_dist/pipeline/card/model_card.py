"""Model cards: what a pipeline or one of its networks is, what it takes, how it was made, and how to use it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from savae_dist import __version__
from savae_dist.errors import printable
from savae_dist.pipeline.card.card_data import TRAINING, CardFacts, flat, head, with_baselines
from savae_dist.pipeline.card.card_limits import shortcomings
from savae_dist.pipeline.card.use import snippet
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
        f"## Use\n\n```python\n{snippet(pipeline, name)}\n```\n\n{PACKAGE}",
        f"## Input\n\n{data_told(pipeline.spec)}\n\n`pipeline.json` holds this; `Pipeline` applies it.",
        _trained_on(summary.get("training_data")),
        _kept(pipeline, name) if name in ("pipeline", "decoder") else "",
        "## What it is not good at\n\n" + "\n".join(f"- {one}" for one in limits) if limits else "",
        _metrics(summary, pipeline.spec),
        _pictures(facts) if name == "pipeline" else "",
        table("Hyperparameters", _as_trained(pipeline.system, summary)),
        table("Training", _training(summary)),
        f"## Citation\n\n```bibtex\n{facts.citation}\n```" if facts.citation else "",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def data_told(spec: DataSpec) -> str:
    """What a sample is, as a list."""
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


def _kept(pipeline: Pipeline, name: str) -> str:
    """A warning where the codes of single training samples are published with the weights."""
    if pipeline.posteriors is None:
        return ""
    also, it = (", here and in `decoder/`,", "both files") if name == "pipeline" else ("", "the file")
    return (
        "## Training samples in it\n\n"
        f"`posteriors.safetensors`{also} holds the codes of {len(pipeline.posteriors.mean):,} training samples: "
        f"whoever has the decoder can see nearly these samples. If they are private, delete {it} before you share "
        "this, or export with `--without-posteriors`; new samples are drawn without it where there is a "
        "`sampler.safetensors`."
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
    about = "Of samples of the validation set, and of new ones. Delete the `.png` files if those samples are private."
    return f"## Pictures\n\n{about}\n\n" + "\n\n".join(shown) if shown else ""


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


def table(title: str, values: dict[str, Any]) -> str:
    """A section of names and values; empty where there are none."""
    if not values:
        return ""
    rows = "\n".join(f"| `{key}` | {value} |" for key, value in values.items())
    return f"## {title}\n\n| | |\n|---|---|\n{rows}"
