"""A trained pipeline for runtimes without torch: ONNX and torch.export, checked against torch.

    python tools/export_onnx.py PIPELINE OUT [--shards SHARDS [--int8 [--max-loss SHARE]]] [--trainer FILE.py]

OUT gets encode, classify, score, decode and generate, as far as the pipeline has networks for them, each as `.onnx` and
`.pt2`, with the preprocessing inside: raw samples go in and come out, in batches of any size. `generate` takes its
draws: eps from a standard normal, and u, uniform, which chooses among the Gaussians of a mixture. Every file is run on
other samples, and more of them, than it was made with, by onnxruntime and by torch; OUT/README.md says how a file is
run, what each takes and gives, and the largest differences. SHARDS: where those samples come from; without them the
pipeline generates them. --int8 adds `encode.int8.onnx` and `classify.int8.onnx`, whose loss of accuracy on SHARDS, a
validation set, goes into the card; more than --max-loss of it is refused.
Needs `pip install 'savae-dist[onnx]'`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from savae_dist.errors import ConfigError, UserError
from savae_dist.evaluation import report
from savae_dist.pipeline.exports import int8
from savae_dist.pipeline.exports.runtimes import MANY, export_all, told
from savae_dist.pipeline.exports.runtimes_card import runtimes_card
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.systems.own import enter
from savae_dist.tool_command import ended_by, tool_parser

MAX_LOSS = 0.01
MOST = 20_480  # samples that INT8 is measured on


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="A trained pipeline as ONNX and torch.export, checked against torch.")
    parser.add_argument("pipeline", help="a run's folder, a checkpoint, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder, or an earlier export to replace")
    parser.add_argument("--shards", help="samples to check with: a folder made by make_shards.py, or a pattern of tars")
    parser.add_argument("--int8", action="store_true", help="also write encoder and classifier in INT8; needs --shards")
    parser.add_argument("--max-loss", type=float, metavar="SHARE", help=f"accuracy that INT8 may cost ({MAX_LOSS})")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    options = parser.parse_args(argv)
    if options.int8 and not options.shards:
        parser.error("--int8 needs --shards, a labelled validation set: its loss of accuracy is measured")
    if options.max_loss is not None and not options.int8:
        parser.error("--max-loss goes with --int8")
    return options


def samples(pipeline: Pipeline, shards: str | None) -> np.ndarray:
    """Raw samples, at most `MANY`."""
    if shards is not None:
        return np.asarray(report.first(report.open_reader(shards, pipeline)).x)[:MANY]
    made: np.ndarray = pipeline.generate(MANY, seed=1)
    return made


def eight_bits(pipeline: Pipeline, options: argparse.Namespace) -> str:
    """Quantise what was exported, and tell of its loss; all samples of the shards are held, up to `MOST`."""
    if not {"encoder", "classifier"} <= pipeline.networks.keys():
        raise ConfigError("--int8 is for pipelines with an encoder and a classifier, by which its loss is measured")
    batches = islice(report.raw_batches(report.open_reader(options.shards, pipeline)), MOST // report.EVALUATION_BATCH)
    parts = [(np.asarray(raw.x), np.asarray(raw.y)) for raw in batches]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    max_loss = MAX_LOSS if options.max_loss is None else options.max_loss
    return int8.told(int8.quantise(options.out, x, y, max_loss), Path(options.shards).name)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        pipeline = Pipeline.from_pretrained(options.pipeline)
        x = samples(pipeline, options.shards)
        found = export_all(pipeline, x, options.out)
        # The card is for others: it has the set's name, not where it lies here.
        lines = [told(found, len(x), Path(options.shards).name if options.shards else "generated samples")]
        if options.int8:
            lines.append(eight_bits(pipeline, options))
        card = runtimes_card(pipeline, found, int8.FUNCTIONS if options.int8 else (), lines)
        (options.out / "README.md").write_text(card)
    except ModuleNotFoundError as error:
        print(f"export_onnx: {error.name} is not installed: pip install 'savae-dist[onnx]'", file=sys.stderr)
        return ConfigError.code
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "export_onnx")
    print("\n\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
