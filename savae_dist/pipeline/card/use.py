"""The example of a card: Python that runs as printed in the card's folder, with a file of the user's own beside it."""

from __future__ import annotations

from savae_dist.origin import PictureFiles, Recordings
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

ALONE = {  # how a network is loaded without the pipeline
    "encoder": "encoder = Encoder.from_pretrained(folder)  # the network alone: it takes normalised tensors",
    "decoder": "decoder = Decoder.from_pretrained(folder)  # the network alone, without preprocessing",
    "classifier": "classifier = Classifier.from_pretrained(folder)  # the network alone: it takes latent codes",
    "prior": "prior = Prior.from_pretrained(folder)  # it takes {draws} standard normal draws per code",
    "critic": "critic = Critic.from_pretrained(folder)  # the network alone: it takes normalised tensors",
}


def snippet(pipeline: Pipeline, name: str) -> str:
    """The example of a network (`name` its role) or of the whole pipeline (`name` "pipeline")."""
    body = {"pipeline": _whole, "encoder": _encoding, "decoder": _decoding}.get(name, lambda pipeline: [])(pipeline)
    if name in ALONE:
        body.append(ALONE[name].format(draws=0 if pipeline.prior is None else pipeline.prior.draws))
    lines = [
        *(["import numpy as np"] if any("np." in line for line in body) else []),
        f"from savae_dist import {f'{name.capitalize()}, ' if name in ALONE else ''}Pipeline",
        "",
        'folder = "."  # this folder; or its repository on the Hub, "ORGANISATION/NAME"',
        "pipeline = Pipeline.from_pretrained(folder)  # with the preprocessing",
        *body,
    ]
    return "\n".join(lines)


def _whole(pipeline: Pipeline) -> list[str]:
    """What the pipeline has networks for."""
    networks, lines = pipeline.networks.keys(), []
    if "encoder" in networks:
        lines += [_sample(pipeline.spec), "print(pipeline.encode(x).mean.shape)  # one latent code per sample"]
    if {"encoder", "classifier"} <= networks:
        lines.append("print(pipeline.classify(x).names())  # the most probable class of each sample")
    if {"encoder", "decoder"} <= networks:
        lines.append("x_hat = pipeline.reconstruct(x)  # raw samples again")
    if "decoder" in networks:
        lines.append(_generated(pipeline, "encoder" in networks))
    return lines


def _encoding(pipeline: Pipeline) -> list[str]:
    return [_sample(pipeline.spec), "posterior = pipeline.encode(x)  # mean and log_variance, one row per sample"]


def _decoding(pipeline: Pipeline) -> list[str]:
    of_class = f"; label={_label(pipeline)!r} for a class" if pipeline.labels else ""
    return [f"x = pipeline.generate(4, seed=0)  # raw samples{of_class}"]


def _generated(pipeline: Pipeline, encodes: bool) -> str:
    if pipeline.labels:
        return f"new = pipeline.generate(4, label={_label(pipeline)!r}, seed=0)  # raw samples of a class, or of all"
    why = "" if encodes else "; there is no encoder, so none is reconstructed"
    return f"new = pipeline.generate(4, seed=0)  # raw samples{why}"


def _label(pipeline: Pipeline) -> int | str:
    """The first class as `generate` takes it: its name, or its number if it has none."""
    number, names = pipeline.labels[0], pipeline.spec.class_names
    return names[number] if number < len(names) else number


def _sample(spec: DataSpec) -> str:
    """A line that gives x: a file of the user's own where the pipeline knows how to read one, otherwise raw samples."""
    origin = spec.origin
    if isinstance(origin, PictureFiles) or spec.pictures is not None:
        fixed = spec.pictures is None and (not isinstance(origin, PictureFiles) or origin.size is None)
        what = f"your picture, {spec.shape[2]} wide and {spec.shape[1]} high" if fixed else "your picture, of any size"
        return f'x = "photo.jpg"  # {what}; or a list, a folder, a URL'
    if isinstance(origin, Recordings) and not origin.own_reader and not origin.id:
        what = f"your recording of {spec.shape[0]} channels" if spec.shape[0] > 1 else "your recording"
        return f'x = "recording.wav"  # {what}, also .mat, .csv and others; or a list, a folder, a URL'
    channels, *size = spec.shape
    stored = tuple(size) if channels == 1 else (*size, channels) if spec.kind == "image" else spec.shape
    if spec.kind == "image":
        return f"x = np.zeros({(4, *stored)}, np.uint8)  # your images"
    return f"x = np.random.default_rng(0).normal(size={(4, *stored)}).astype(np.float32)  # your windows"
