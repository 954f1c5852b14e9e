"""The card of a folder of ONNX and torch.export files: how one is run, and what each takes and gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from huggingface_hub import ModelCardData
from torch import Tensor

from savae_dist.networks import LabelPart, Prior
from savae_dist.pipeline.card.model_card import PACKAGE, data_told, table
from savae_dist.pipeline.class_names import name_of
from savae_dist.pipeline.exports.runtimes import Exported
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import DataSpec

MEANING = {
    "mean": "codes: any number",
    "log_variance": "any number",
    "probabilities": "0 to 1, and 1 in sum over the classes",
    "score": "at least 0: the mean squared error of the reconstruction, of {scored}",
    "z": "codes, as `mean` of `encode`",
    "eps": "standard normal draws",
    "u": "uniform draws from 0 to 1",
}


def runtimes_card(pipeline: Pipeline, found: Mapping[str, Exported], int8: Sequence[str], told: Sequence[str]) -> str:
    """The README.md of the exported files; int8: functions that are there in INT8 too; told: what was measured."""
    system = str(pipeline.system.get("name", "autoencoder"))
    head = ModelCardData(library_name="onnx", tags=["onnx", system.replace(" ", "-"), pipeline.spec.kind]).to_yaml()
    sections = [
        f"---\n{head}\n---",
        f"# {system} as ONNX and torch.export",
        "The functions of a pipeline that was trained with `savae_dist`, for runtimes without it: raw samples go in "
        "and come out, in batches of any size, and the normalisation is inside. It is no pipeline: "
        "`Pipeline.from_pretrained` cannot load it. No code of a single training sample is in any of the files.",
        f"## Use\n\n```python\n{_example(found, pipeline.spec)}\n```\n\nIt needs `pip install onnxruntime` alone.",
        f"## Files\n\n{_files(pipeline.spec, found, int8)}",
        _drawn(pipeline, found) if "generate" in found else "",
        f"## torch.export\n\n```python\n{_exported(found)}\n```\n\nInputs in the order of the table. It "
        "needs torch alone.",
        f"## Data\n\n{data_told(pipeline.spec)}\n\nFiles of pictures and recordings are not read here: give samples as "
        f"they are after that. {PACKAGE}",
        *told,
        table("Hyperparameters", dict(pipeline.system)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _shape(value: Tensor) -> str:
    return f"[{', '.join(['batch', *map(str, value.shape[1:])])}]"


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _example(found: Mapping[str, Exported], spec: DataSpec) -> str:
    """The function of samples that says most, and generation."""
    lines = ["import numpy as np", "import onnxruntime", ""]
    if "classify" in found:
        lines += [_zeros(found["classify"], spec), _run("classify", found["classify"], '{"x": x}')]
        lines.append("print(probabilities.argmax(1))  # the number of each sample's class")
    elif "encode" in found:
        lines += [_zeros(found["encode"], spec), _run("encode", found["encode"], '{"x": x}')]
        lines.append("print(mean)  # the code of each sample")
    if "generate" in found:
        draws = {
            "eps": f"random.standard_normal((4, {found['generate'].takes['eps'].shape[1]}), np.float32)",
            "u": "random.random(4, np.float32)",
        }
        lines.append("random = np.random.default_rng(0)")
        given = ", ".join(f'"{name}": {draws[name]}' for name in found["generate"].takes)
        lines.append(f"draws = {{{given}}}")
        lines.append(f"{_run('generate', found['generate'], 'draws')}  # four new {spec.kind}s")
    return "\n".join(lines)


def _zeros(one: Exported, spec: DataSpec) -> str:
    x = one.takes["x"]
    return f"x = np.zeros({(4, *x.shape[1:])}, np.{_dtype(x)})  # your {spec.kind}s"


def _run(name: str, one: Exported, given: str) -> str:
    outputs = ", ".join(one.gives) if len(one.gives) > 1 else f"({next(iter(one.gives))},)"
    return f'{outputs} = onnxruntime.InferenceSession("{name}.onnx").run(None, {given})'


def _exported(found: Mapping[str, Exported]) -> str:
    """Two lines of torch."""
    name = "generate" if "generate" in found else "encode"
    takes = found[name].takes
    made = {
        "x": lambda one: f"torch.zeros({(4, *one.shape[1:])}, dtype={one.dtype})",
        "eps": lambda one: f"torch.randn(4, {one.shape[1]})",
        "u": lambda one: "torch.rand(4)",
    }
    given = ", ".join(made[key](one) for key, one in takes.items())
    return f'import torch\nfound = torch.export.load("{name}.pt2").module()({given})'


def _files(spec: DataSpec, found: Mapping[str, Exported], int8: Sequence[str]) -> str:
    rows = []
    for name, one in found.items():
        files = [f"`{name}.onnx`", f"`{name}.pt2`", *([f"`{name}.int8.onnx`"] if name in int8 else [])]
        rows.append(f"| {', '.join(files)} | {_tensors(one.takes, spec)} | {_tensors(one.gives, spec)} |")
    return "| files | inputs | outputs |\n|---|---|---|\n" + "\n".join(rows)


def _tensors(values: Mapping[str, Tensor], spec: DataSpec) -> str:
    return "; ".join(
        f"`{key}` {_dtype(one)} `{_shape(one)}`, {_meaning(key, one, spec)}" for key, one in values.items()
    )


def _meaning(key: str, value: Tensor, spec: DataSpec) -> str:
    """What the numbers are, and their range."""
    if key in MEANING:
        return MEANING[key].format(scored="images from 0 to 1" if spec.kind == "image" else "normalised windows")
    if spec.kind == "image":
        return f"pixels from 0 to {255 if _dtype(value) == 'uint8' else 65535}"
    if key == "samples" and spec.normalise == "window":
        return "normalised windows: any number, mean 0 and deviation 1 in training"
    return "windows in the unit of the recordings: any number"


def _drawn(pipeline: Pipeline, found: Mapping[str, Exported]) -> str:
    """What `generate` draws, how a class is asked for, and what `decode` does instead."""
    chosen = (
        "it chooses among the Gaussians of the mixture" if pipeline.mixture else "there is no mixture: it does nothing"
    )
    lines = [
        f"- `eps`: `{_shape(found['generate'].takes['eps'])}`, draws of a standard normal, anew for each sample.",
        f"- `u`: one draw for each sample, uniform from 0 to 1; {chosen}.",
        f"- A class: {_class(pipeline)}",
        "- `decode` draws nothing: it takes codes `z` that you have, as `mean` of `encode`, or points between two of "
        "them. `generate` makes its codes of the draws, and decodes these.",
    ]
    prior = pipeline.prior
    if prior is not None and prior.labels == "told":
        one_hot = f"{prior.entries} numbers, 1 at its class and 0 elsewhere, or all 0 for no class"
        lines.append(f"- `z` of `decode` is the `mean` of a sample and behind it {one_hot}.")
    return "## Draws\n\n" + "\n".join(lines)


def _class(pipeline: Pipeline) -> str:
    """How samples of one class are generated, if they can be."""
    prior, names = pipeline.prior, pipeline.spec.class_names
    if not pipeline.labels:
        return "none can be asked for, since codes are drawn from what knows no classes."
    if prior is None or prior.labels == "none":
        number = pipeline.labels[0]
        label = names[number] if number < len(names) else number
        kept = ", or keep those samples that `classify` puts into it" if "classifier" in pipeline.networks else ""
        return (
            "`generate` cannot be asked for one, its samples are of all classes. Draw the codes of a class with the "
            f"pipeline that this was made of, `pipeline.latents(4, label={label!r})`, and give them to `decode`{kept}."
        )
    if pipeline.mixture is not None:
        count = len(pipeline.mixture.labels)
        first = (f"{name_of(label, names)}: {k / count:.4g}" for k, label in enumerate(pipeline.mixture.labels))
        return f"`u` chooses it: draw it uniformly from f to f + 1/{count}. By class, f is {'; '.join(first)}."
    column, count = _chooser(prior)
    part = pipeline.networks.get("classifier")
    entries = {
        label: part.entries_of(label).tolist() if isinstance(part, LabelPart) else [label] for label in pipeline.labels
    }
    listed = "; ".join(f"{name_of(label, names)}: {' or '.join(map(str, k))}" for label, k in entries.items())
    return (
        f"`eps[:, {column}]` chooses it: where it is `statistics.NormalDist().inv_cdf((k + r) / {count})`, with r "
        f"drawn uniformly from 0 to 1, the sample is of the class that k stands for. By class, k is {listed}."
    )


def _chooser(prior: Prior) -> tuple[int, int]:
    """The column of eps by which a prior chooses a class, and among how many it chooses: see `networks.codes.Prior`."""
    if prior.labels != "mode":
        return prior.draws - 1, prior.entries
    return 0 if prior.kind == "swiss_roll" else prior.style_dim, prior.modes
