"""A pipeline for other runtimes: functions of raw samples, with the preprocessing inside, as ONNX and torch.export.

Every function takes and gives batches of any size. What is drawn is an input, so that nothing in a file is random.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from savae_dist.networks import Decoder
from savae_dist.pipeline.exports.quiet import without_known_messages
from savae_dist.pipeline.inputs.inputs import as_tensor
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sampling.sampler import WHOLE, of_gaussians
from savae_dist.preprocess import DataSpec, denormalise, normalise

EXAMPLES = 3  # samples that a function is traced with; it then takes any number
MANY = 64  # samples that the exports are checked with


class Function(NamedTuple):
    """What is exported: the module, an example of its inputs by name, and the names of its outputs."""

    module: nn.Module
    inputs: dict[str, Tensor]
    outputs: tuple[str, ...]


class _Of(nn.Module):
    """The networks that a function needs, in eval mode."""

    def __init__(self, pipeline: Pipeline, *roles: str) -> None:
        super().__init__()
        self.spec: DataSpec = pipeline.spec
        self.prior = pipeline.prior
        self.networks = nn.ModuleDict({role: pipeline.role(role) for role in roles}).eval()

    def code(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.networks["encoder"](normalise(x, self.spec))[0]
        return mean, log_variance

    def decoded(self, z: Tensor) -> Tensor:
        return self.networks["decoder"](z)


class Encode(_Of):
    """Raw samples to mean and log-variance of their codes."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.code(x)


class Decode(_Of):
    """Codes to raw samples."""

    def forward(self, z: Tensor) -> Tensor:
        return denormalise(self.decoded(z), self.spec)


class Classify(_Of):
    """Raw samples to class probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        probabilities: Tensor = self.networks["classifier"](self.code(x)[0]).float().softmax(1)
        return probabilities


class Score(_Of):
    """Raw samples to the mean squared error of their reconstructions, of [0, 1] images or normalised windows."""

    def forward(self, x: Tensor) -> Tensor:
        seen = normalise(x, self.spec)
        z = self.networks["encoder"](seen)[0].mean
        x_hat = self.decoded(z if self.prior is None else self.prior.complete(z, None))
        return (x_hat - seen).square().flatten(1).mean(1)


class Generate(_Of):
    """Standard normal draws eps, and uniform ones u that choose a Gaussian of the mixture, to raw samples."""

    def __init__(self, pipeline: Pipeline) -> None:
        super().__init__(pipeline, "decoder")
        self.mixture = pipeline.mixture is not None
        if pipeline.mixture is not None:
            told = self.prior is not None and self.prior.labels == "told"
            mixture = pipeline.mixture.of_classes() if told else pipeline.mixture.of(WHOLE)
            self.register_buffer("bounds", mixture.weight.cumsum(0)[:-1])
            for name in ("label", "mean", "factor"):
                self.register_buffer(name, mixture.tensors()[name])

    def forward(self, eps: Tensor, u: Tensor) -> Tensor:
        if self.mixture:
            bounds, label, mean, factor = map(self.get_buffer, ("bounds", "label", "mean", "factor"))
            component = (u[:, None] > bounds).sum(1)
            z = of_gaussians(mean[component], factor[component], eps)
            z = z if self.prior is None else self.prior.complete(z, label[component])
        else:
            z = eps if self.prior is None else self.prior(eps, None, None)
        return denormalise(self.decoded(z), self.spec)


def functions(pipeline: Pipeline, x: np.ndarray) -> dict[str, Function]:
    """Those that the pipeline has networks for, by name. x: raw samples, at least `EXAMPLES` of them."""
    found: dict[str, Function] = {}
    networks, few = pipeline.networks, as_tensor(x[:EXAMPLES])
    if "encoder" in networks:
        found["encode"] = Function(Encode(pipeline, "encoder"), {"x": few}, ("mean", "log_variance"))
    if {"encoder", "classifier"} <= networks.keys():
        found["classify"] = Function(Classify(pipeline, "encoder", "classifier"), {"x": few}, ("probabilities",))
    if {"encoder", "decoder"} <= networks.keys():
        found["score"] = Function(Score(pipeline, "encoder", "decoder"), {"x": few}, ("score",))
    if "decoder" in networks:
        random = torch.Generator().manual_seed(0)
        decoder = pipeline.role("decoder")
        assert isinstance(decoder, Decoder)
        z = torch.randn(EXAMPLES, decoder.latent_dim, generator=random)
        if pipeline.mixture is not None:
            draws = pipeline.mixture.mean.shape[1]
        else:
            draws = decoder.latent_dim if pipeline.prior is None else pipeline.prior.draws
        eps, u = torch.randn(EXAMPLES, draws, generator=random), torch.rand(EXAMPLES, generator=random)
        found["decode"] = Function(Decode(pipeline, "decoder"), {"z": z}, ("samples",))
        found["generate"] = Function(Generate(pipeline), {"eps": eps, "u": u}, ("samples",))
    return found


class Exported(NamedTuple):
    """A function as it was written: the largest absolute differences from torch, and what it was compared with.

    onnx, exported: over all elements of all outputs. takes, gives: inputs and outputs by name.
    """

    onnx: float
    exported: float
    takes: Mapping[str, Tensor]
    gives: Mapping[str, Tensor]


def export_all(pipeline: Pipeline, x: np.ndarray, out: Path) -> dict[str, Exported]:
    """Write every function as `NAME.onnx` and `NAME.pt2` into `out`, and compare both with torch on the samples x."""
    import onnxruntime  # noqa: F401  # an optional extra: fail here, before anything is written

    if len(x) < EXAMPLES:
        raise ValueError(f"{len(x)} samples are too few to export with: give at least {EXAMPLES}")
    if not {"encoder", "decoder"} & pipeline.networks.keys():
        raise ValueError("the pipeline has neither encoder nor decoder: there is nothing to export of it")
    out.mkdir(parents=True, exist_ok=True)
    random = torch.Generator().manual_seed(1)
    with without_known_messages():
        return {name: _written(one, x, out / name, random) for name, one in functions(pipeline, x).items()}


def _written(function: Function, x: np.ndarray, path: Path, random: torch.Generator) -> Exported:
    """Write one function, and compare it; path: of its files, without their ends."""
    onnx, pt2 = (path.with_name(f"{path.name}.{end}") for end in ("onnx", "pt2"))
    program = export_onnx(function, onnx)
    torch.export.save(program, pt2)
    inputs = {key: _given(key, example, x, random) for key, example in function.inputs.items()}
    with torch.no_grad():
        expected = function.module(*inputs.values())
        again = program.module()(*inputs.values())
    outputs = expected if isinstance(expected, tuple) else (expected,)
    return Exported(
        largest_difference(expected, run_onnx(onnx, inputs)),
        largest_difference(expected, again),
        inputs,
        dict(zip(function.outputs, outputs, strict=True)),
    )


def _given(key: str, example: Tensor, x: np.ndarray, random: torch.Generator) -> Tensor:
    """An input as users give it: raw samples, or as many codes or draws."""
    if key == "x":
        return as_tensor(x)
    draw = torch.rand if key == "u" else torch.randn
    return draw(len(x), *example.shape[1:], generator=random)


def told(found: Mapping[str, Exported], count: int, source: str) -> str:
    """For the card and the terminal: how far the files are from torch."""
    rows = "\n".join(f"| `{name}` | {one.onnx:.2g} | {one.exported:.2g} |" for name, one in found.items())
    return (
        "## Largest differences from torch\n\n"
        f"Absolute ones, over {count} samples ({source}); samples are in their own unit, pixels from 0 to 255.\n\n"
        f"| function | onnxruntime | torch.export |\n|---|---|---|\n{rows}"
    )


def export_onnx(function: Function, path: Path) -> torch.export.ExportedProgram:
    """Write a function as ONNX, and return it as torch.export has it."""
    batch = torch.export.Dim("batch", min=1)
    shapes = {name: {0: batch} for name in function.inputs}
    with torch.no_grad():
        program = torch.export.export(function.module, tuple(function.inputs.values()), dynamic_shapes=shapes)
        made = torch.onnx.export(
            program,
            input_names=list(function.inputs),
            output_names=list(function.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert made is not None
    made.save(path, external_data=False)
    return program


def run_onnx(path: Path, inputs: Mapping[str, Tensor]) -> list[np.ndarray]:
    """What onnxruntime makes of these inputs on the CPU."""
    import onnxruntime  # here: an extra

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


def largest_difference(expected: Tensor | tuple[Tensor, ...], found: object) -> float:
    """The largest absolute difference of any element, over all outputs."""
    ours = expected if isinstance(expected, tuple) else (expected,)
    theirs = found if isinstance(found, tuple | list) else (found,)
    pairs = zip(ours, theirs, strict=True)
    return max(float((a.double() - torch.as_tensor(b).double()).abs().max()) for a, b in pairs)
