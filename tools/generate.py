"""New samples of a trained pipeline, as files.

    python tools/generate.py PIPELINE OUT [--label NAME] [--count N] [--format png|wav|npz|shards] [--seed N]
                             [--sampler mixture|prior|posteriors] [--temperature T] [--overwrite] [--judge PIPELINE]
                             [--trainer FILE.py]

PIPELINE is a run, one of its checkpoints, a saved or exported folder, or a Hub id. A class is asked for by its name or
number, `--label each` gives COUNT of every class. The same seed gives the same samples. `wav` holds 32-bit floats;
`shards` is a set to train on. With a judge, a pipeline that was trained independently, only samples that it puts into
the class that was asked for are kept, and the yield is told.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from savae_dist.errors import ConfigError, UserError
from savae_dist.evaluation.metrics import check_judge
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.sample_files import FORMATS, usual_format, write_samples
from savae_dist.pipeline.sampling.codes import SOURCES
from savae_dist.systems.own import enter
from savae_dist.tool_command import ended_by, tool_parser

EACH = "each"
MOST = 20  # draws per wanted sample after which a class is given up


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="New samples of a trained pipeline, as files.")
    parser.add_argument("pipeline", help="a run's folder, a checkpoint, a saved pipeline, or a repository on the Hub")
    parser.add_argument("out", type=Path, help="a new folder")
    parser.add_argument("--label", metavar="NAME", help="a class by its name or number, or each")
    parser.add_argument(
        "--count", type=int, default=16, metavar="N", help="number of samples; with --label each, of every class"
    )
    parser.add_argument("--format", choices=FORMATS, help="default: png for images, npz for signals")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--sampler", choices=SOURCES, help="source of codes; default: the first that the pipeline has")
    parser.add_argument("--temperature", type=float, default=1.0, help="factor of the draws' deviation (%(default)s)")
    parser.add_argument("--overwrite", action="store_true", help="write into OUT although it holds something")
    parser.add_argument("--judge", metavar="PIPELINE", help="keep only samples that this pipeline puts into the class")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    options = parser.parse_args(argv)
    if options.judge and options.label is None:
        parser.error("--judge needs --label: it decides whether a sample is of that class")
    return options


def confirmed(pipeline: Pipeline, judge: Pipeline, label: int | str, options: argparse.Namespace) -> np.ndarray:
    """`options.count` samples of a class that the judge puts into it; ConfigError if `MOST` times so many give fewer.

    Draws are made `options.count` at a time, each time with the next seed.
    """
    number = pipeline.spec.class_names.index(label) if isinstance(label, str) else label
    kept: list[np.ndarray] = []
    drawn = found = 0
    for more in range(MOST):
        draws = {"sampler": options.sampler, "temperature": options.temperature}
        x = np.asarray(pipeline.generate(options.count, label, options.seed + more, **draws))
        kept.append(x[np.asarray(judge.classify(x)).argmax(1) == number])
        drawn, found = drawn + len(x), found + len(kept[-1])
        if found >= options.count:
            print(f"class {label}: the judge confirms {found:,} of {drawn:,} draws")
            return np.concatenate(kept)[: options.count]
    raise ConfigError(f"class {label}: the judge confirms {found:,} of {drawn:,} draws, fewer than --count")


def asked(label: str | None, pipeline: Pipeline) -> list[int | str | None]:
    """The classes to generate; None: samples without a given class."""
    if label == EACH and EACH not in pipeline.spec.class_names:
        if not pipeline.labels:
            raise ConfigError("--label each: this pipeline knows no classes to generate; leave it out")
        return list(pipeline.labels)
    named = label is None or label in pipeline.spec.class_names
    return [int(label) if label is not None and not named and label.isdecimal() else label]


def generate(options: argparse.Namespace) -> list[Path]:
    pipeline = Pipeline.from_pretrained(options.pipeline, device="cuda" if torch.cuda.is_available() else "cpu")
    form = usual_format(options.format, pipeline.spec)
    names = pipeline.spec.class_names
    judge = Pipeline.from_pretrained(options.judge, device=pipeline.device) if options.judge else None
    if judge is not None:
        check_judge(judge, pipeline.spec)
    parts, y, files = [], [], []
    for label in asked(options.label, pipeline):
        draws = {"sampler": options.sampler, "temperature": options.temperature}
        if judge is None or label is None:
            parts.append(pipeline.generate(options.count, label, options.seed, **draws))
        else:
            parts.append(confirmed(pipeline, judge, label, options))
        number = names.index(label) if isinstance(label, str) else -1 if label is None else label
        y += [number] * options.count
        said = "" if label is None else f"{number}-"
        files += [f"{said}{row:05d}" for row in range(options.count)]
    return write_samples(np.concatenate(parts), np.array(y), files, options.out, form, pipeline.spec, options.overwrite)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        files = generate(options)
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "generate")
    print(f"{files[0]}{f' and {len(files) - 1} more' if len(files) > 1 else ''}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
