"""A trained pipeline for runtimes without torch: ONNX and torch.export, checked against torch.

    python tools/export_onnx.py PIPELINE OUT [--shards SHARDS] [--trainer FILE.py]

OUT gets encode, classify, score, decode and generate, as far as the pipeline has networks for them, each as `.onnx` and
`.pt2`, with the preprocessing inside: raw samples go in and come out, in batches of any size. `generate` takes its
draws: eps from a standard normal, and u, uniform, which chooses among the Gaussians of a mixture. Every file is run on
other samples, and more of them, than it was made with, by onnxruntime and by torch; OUT/README.md is the card, with the
largest differences. SHARDS: where those samples come from; without them the pipeline generates them.
Needs `pip install 'savae-dist[onnx]'`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from savae_dist.errors import ConfigError, UserError
from savae_dist.evaluation import report
from savae_dist.pipeline.model_card import model_card
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.runtimes import MANY, export_all, told
from savae_dist.systems.own import enter
from savae_dist.tool_command import ended_by


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A trained pipeline as ONNX and torch.export, checked against torch.")
    parser.add_argument("pipeline", help="a run's folder, a checkpoint, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder, or an earlier export to replace")
    parser.add_argument("--shards", help="samples to check with: a folder made by make_shards.py, or a pattern of tars")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    return parser.parse_args(argv)


def samples(pipeline: Pipeline, shards: str | None) -> np.ndarray:
    """Raw samples, at most `MANY`."""
    if shards is not None:
        return np.asarray(report.first(report.open_reader(shards, pipeline)).x)[:MANY]
    made: np.ndarray = pipeline.generate(MANY, seed=1)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        pipeline = Pipeline.from_pretrained(options.pipeline)
        x = samples(pipeline, options.shards)
        lines = told(export_all(pipeline, x, options.out), len(x), options.shards or "generated samples")
        card = f"{model_card(pipeline, 'pipeline')}\n{lines}\n"
        (options.out / "README.md").write_text(card)
    except ModuleNotFoundError as error:
        print(f"export_onnx: {error.name} is not installed: pip install 'savae-dist[onnx]'", file=sys.stderr)
        return ConfigError.code
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "export_onnx")
    print(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
