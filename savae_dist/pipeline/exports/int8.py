"""INT8 of encoder and classifier, quantised statically by onnxruntime, and what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import torch

from savae_dist.errors import ConfigError
from savae_dist.pipeline.exports.runtimes import run_onnx

FUNCTIONS = ("encode", "classify")
CALIBRATION = 256  # samples that set the ranges of activations; accuracy is measured on others
AT_ONCE = 256
QUANTISED = ("Conv", "Gemm", "MatMul")  # they take nearly all the time; all other operators stay float32


class Int8(NamedTuple):
    """What INT8 costs. accuracy: of float32 and of INT8. codes: root mean square difference of the codes' means, in
    their own deviations. measured, calibrated: labelled samples. size: of the files, against float32.
    """

    accuracy: tuple[float, float]
    codes: float
    measured: int
    calibrated: int
    size: float

    @property
    def loss(self) -> float:
        return self.accuracy[0] - self.accuracy[1]


def quantise(out: Path, x: np.ndarray, y: np.ndarray, max_loss: float) -> Int8:
    """Write `encode.int8.onnx` and `classify.int8.onnx` beside the exports in `out`, and measure them.

    x, y: labelled raw samples and their classes. The first `CALIBRATION`, or half of them, calibrate; the others
    measure. ConfigError if more than `max_loss` of accuracy is lost, and then both files are removed.
    """
    known = y >= 0
    x, y = x[known], y[known]
    calibrated = min(CALIBRATION, len(x) // 2)
    if not calibrated:
        raise ConfigError("--int8 needs labelled samples to measure what it costs: give --shards that have labels")
    for name in FUNCTIONS:
        _quantise(out / f"{name}.onnx", out / f"{name}.int8.onnx", x[:calibrated])
    rest, classes = x[calibrated:], y[calibrated:]
    (means, means_8), (found, found_8) = (
        [_run(out / f"{name}{kind}.onnx", rest) for kind in ("", ".int8")] for name in FUNCTIONS
    )
    right, right_8 = (float((one.argmax(1) == classes).mean()) for one in (found, found_8))
    codes = float(np.sqrt(np.square((means_8 - means) / means.std(0).clip(1e-12)).mean()))
    bytes_of = [sum((out / f"{name}{kind}.onnx").stat().st_size for name in FUNCTIONS) for kind in ("", ".int8")]
    result = Int8((right, right_8), codes, len(rest), calibrated, bytes_of[1] / bytes_of[0])
    if result.loss > max_loss:
        for name in FUNCTIONS:
            (out / f"{name}.int8.onnx").unlink()
        raise ConfigError(
            f"INT8 costs {result.loss:.4f} of accuracy ({right:.4f} to {right_8:.4f} on {len(rest):,} samples), more "
            f"than --max-loss {max_loss:g}: nothing of it is kept; leave --int8 out or allow more"
        )
    return result


def told(found: Int8, source: str) -> str:
    """For the card: how accurate INT8 is, and on what that was measured."""
    before, after = found.accuracy
    return (
        "## INT8\n\n"
        f"`encode.int8.onnx` and `classify.int8.onnx` have {found.size:.0%} of the size. Accuracy {after:.4f}, float32 "
        f"{before:.4f}: {found.loss:+.4f} lost, on {found.measured:,} labelled samples of {source} beside the "
        f"{found.calibrated} that calibrate it. Codes are off by {found.codes:.2g} of their deviation."
    )


def _quantise(source: Path, target: Path, x: np.ndarray) -> None:
    from onnxruntime.quantization import (  # here: an extra
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, parts: Sequence[np.ndarray]) -> None:
            self.parts: Iterator[np.ndarray] = iter(parts)

        def get_next(self) -> dict[str, np.ndarray] | None:
            part = next(self.parts, None)
            return None if part is None else {"x": part}

    with TemporaryDirectory() as folder:
        prepared = Path(folder) / source.name
        quant_pre_process(source, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            target,
            Reader([x]),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=list(QUANTISED),
        )


def _run(path: Path, x: np.ndarray) -> np.ndarray:
    """The first output for all samples."""
    starts = range(0, len(x), AT_ONCE)
    return np.concatenate([run_onnx(path, {"x": torch.from_numpy(x[at : at + AT_ONCE])})[0] for at in starts])
