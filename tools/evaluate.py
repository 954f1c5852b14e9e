"""Measure a trained pipeline on a set of shards, and draw its figures.

    python tools/evaluate.py PIPELINE SHARDS OUT [--judge PIPELINE] [--training SHARDS] [--samples N]
                             [--trainer FILE.py]

PIPELINE is a run, a saved or exported folder, or a Hub id. OUT gets metrics.json and the figures; the numbers are
printed as well. A judge is a pipeline with encoder and classifier, trained independently on the same kind of data.
Networks of one's own need the file that enters them, `--trainer FILE.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from savae_dist.data import Order, Reader, Shards
from savae_dist.errors import ConfigError, UserError
from savae_dist.evaluation import report, sample_metrics
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.preprocess import normalise
from savae_dist.systems.own import enter

Values = dict[str, float | None]


def evaluate(
    pipeline: Pipeline,
    reader: Reader,
    training: Reader | None = None,
    judge: Pipeline | None = None,
    samples: int = sample_metrics.DRAWN,
) -> Values:
    """All figures of merit; those that need a network that the pipeline has not are None."""
    baseline = report.batches(training) if training else None
    values: Values = report.evaluate(pipeline, report.batches(reader), baseline, judge)
    if "decoder" in pipeline.networks:
        values |= sample_metrics.measure_samples(pipeline, report.batches(reader), judge, samples)
    return values


def open_reader(source: str, pipeline: Pipeline) -> Reader:
    """All samples in their order, normalised as the pipeline's were."""
    shards = Shards.open(source)
    if shards.spec.shape != pipeline.spec.shape or shards.spec.kind != pipeline.spec.kind:
        raise ConfigError(f"{source} holds {shards.spec.shape}, and the pipeline takes {pipeline.spec.shape}")
    shards = shards.with_spec(pipeline.spec)
    if shards.foreign:
        print(f"{source}: {shards.foreign} samples are of classes not trained on: unlabelled", file=sys.stderr)
    return Reader(shards, Order.sequential(shards.counts), bad_budget=shards.size)


def table(values: Values) -> str:
    lines = [f"{name:40} {value:.6g}" for name, value in values.items() if value is not None]
    absent = [name for name, value in values.items() if value is None]
    return "\n".join([*lines, *([f"does not apply here: {', '.join(absent)}"] if absent else [])])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure a trained pipeline on shards, and draw its figures.")
    parser.add_argument("pipeline", help="a run's folder, a saved pipeline, or a repository on the Hub")
    parser.add_argument("shards", help="a folder made by make_shards.py, or a brace pattern of tars")
    parser.add_argument("out", type=Path, help="folder for metrics.json and the figures")
    parser.add_argument("--judge", help="a pipeline whose classifier judges reconstructions and samples")
    parser.add_argument("--training", help="the training shards: adds the class-mean baselines")
    parser.add_argument("--samples", type=int, default=sample_metrics.DRAWN, help="drawn from the prior (%(default)s)")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    options = parser.parse_args(argv)
    if options.samples < 2:
        parser.error("--samples must be at least 2")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        if options.trainer:
            enter(options.trainer)
        pipeline = Pipeline.from_pretrained(options.pipeline).to(device)
        judge = Pipeline.from_pretrained(options.judge).to(device) if options.judge else None
        reader = open_reader(options.shards, pipeline)
        training = open_reader(options.training, pipeline) if options.training else None
        values = evaluate(pipeline, reader, training, judge, options.samples)
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "metrics.json").write_text(json.dumps(values, indent=2) + "\n")
        drawn = report.first(reader)
        report.write_figures(pipeline, normalise(drawn.x, pipeline.spec), drawn.y, options.out / "figures")
    except (UserError, ValueError, OSError) as error:
        print(f"evaluate: {' '.join(str(error).split())}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else ConfigError.code
    print(table(values))
    return 0


if __name__ == "__main__":
    sys.exit(main())
