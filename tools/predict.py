"""Classes and scores of files: a CSV with a row for each picture, or for each window of a recording.

    python tools/predict.py PIPELINE FILE... [--out FILE.csv] [--rate HZ] [--hop N] [--variable NAME]
                            [--per-file] [--trainer FILE.py]

PIPELINE is a run, one of its checkpoints, a saved or exported folder, or a Hub id. FILE is a file, a folder of them or
a URL, of any size or length: it is prepared as the training set was. Columns: the file; the second at which a window
begins; the class, and the probability of each class; the mean squared error of the reconstruction (of [0, 1] images or
normalised windows); the anomaly scores of `pipeline.score`, `score_KIND`. Columns for which the pipeline has no network
are left out. `--per-file` writes a row for each recording: how many windows it has, the class of the largest mean
probability, and the means of all numbers.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from savae_dist.errors import ConfigError, UserError
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.predictions import by_file, columns, rows
from savae_dist.systems.own import enter
from savae_dist.tool_command import ended_by, tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Classes and scores of files, as a CSV.")
    parser.add_argument("pipeline", help="a run's folder, a checkpoint, a saved pipeline, or a repository on the Hub")
    parser.add_argument("files", nargs="+", help="pictures or recordings, folders of them, or URLs")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="where to write it, instead of the terminal")
    parser.add_argument("--rate", type=float, metavar="HZ", help="sampling rate of recordings that do not state theirs")
    parser.add_argument("--hop", type=int, metavar="N", help="samples from window to window; default: as in training")
    parser.add_argument(
        "--variable", action="append", metavar="NAME", help="channel of a file; default: as in training"
    )
    parser.add_argument("--per-file", action="store_true", help="a row for each recording, the means of its windows")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    return parser.parse_intermixed_args(argv)


def written(options: argparse.Namespace) -> Iterator[Sequence[Any]]:
    pipeline = Pipeline.from_pretrained(options.pipeline, device="cuda" if torch.cuda.is_available() else "cpu")
    given = {"rate": options.rate, "hop": options.hop, "variables": options.variable and tuple(options.variable)}
    found = rows(pipeline, options.files, **{name: value for name, value in given.items() if value})
    header = columns(pipeline)
    if options.per_file:
        if pipeline.spec.kind != "signal":
            raise ConfigError("--per-file is for recordings: a picture has one row already")
        header[1], found = "windows", by_file(pipeline, found)
    yield header
    yield from found


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        found = written(options)
        begins = list(islice(found, 2))  # read before OUT is made: if reading fails, no file is left
        with ExitStack() as stack:
            file = stack.enter_context(options.out.open("w", newline="")) if options.out else sys.stdout
            csv.writer(file, lineterminator="\n").writerows(chain(begins, found))
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "predict")
    return 0


if __name__ == "__main__":
    sys.exit(main())
