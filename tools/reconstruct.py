"""Reconstructions of files by a trained pipeline, as files of the same kind, and how far they are off.

    python tools/reconstruct.py PIPELINE FILE... --out FOLDER [--format png|wav|npz|shards] [--rate HZ] [--hop N]
                                [--variable NAME] [--overwrite] [--trainer FILE.py]

PIPELINE and FILE are those of predict.py. A picture becomes a picture of the pipeline's size, a recording its windows.
Printed is the mean squared error of each file, of [0, 1] images or normalised windows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from savae_dist.errors import UserError
from savae_dist.pipeline.inputs.inputs import as_tensor
from savae_dist.pipeline.pipeline import Pipeline
from savae_dist.pipeline.predictions import reconstructed
from savae_dist.pipeline.sample_files import FORMATS, usual_format, write_samples
from savae_dist.preprocess import denormalise, normalise
from savae_dist.systems.own import enter
from savae_dist.tool_command import ended_by, tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Reconstructions of files by a trained pipeline, as files.")
    parser.add_argument("pipeline", help="a run's folder, a checkpoint, a saved pipeline, or a repository on the Hub")
    parser.add_argument("files", nargs="+", help="pictures or recordings, folders of them, or URLs")
    parser.add_argument("--out", type=Path, required=True, help="a new folder")
    parser.add_argument("--format", choices=FORMATS, help="default: png for images, npz for signals")
    parser.add_argument("--rate", type=float, metavar="HZ", help="sampling rate of recordings that do not state theirs")
    parser.add_argument("--hop", type=int, metavar="N", help="samples from window to window; default: as in training")
    parser.add_argument(
        "--variable", action="append", metavar="NAME", help="channel of a file; default: as in training"
    )
    parser.add_argument("--overwrite", action="store_true", help="write into the folder although it holds something")
    parser.add_argument("--trainer", metavar="FILE.py", help="the file that enters systems and networks of one's own")
    return parser.parse_intermixed_args(argv)


def reconstruct(options: argparse.Namespace) -> list[str]:
    """Write them, and return a line for each file."""
    pipeline = Pipeline.from_pretrained(options.pipeline, device="cuda" if torch.cuda.is_available() else "cpu")
    form = usual_format(options.format, pipeline.spec)
    given = {"rate": options.rate, "hop": options.hop, "variables": options.variable and tuple(options.variable)}
    reading = {name: value for name, value in given.items() if value}
    made, files = [], []
    errors: dict[str, list[float]] = {}
    for number, part in enumerate(pipeline.parts(options.files, **reading)):
        real = normalise(as_tensor(part.x).to(pipeline.device), pipeline.spec)
        found = reconstructed(pipeline, real, pipeline.posterior(real).mean)
        made.append(denormalise(found.x_hat, pipeline.spec).cpu().numpy())
        files += [f"{number:05d}-{Path(part.name).stem}-{start}" for start in part.starts]
        errors.setdefault(part.name, []).extend(found.errors)
    x = np.concatenate(made)
    write_samples(x, np.full(len(x), -1), files, options.out, form, pipeline.spec, options.overwrite)
    return [f"{name}  {np.mean(own):.6g}  ({len(own)})" for name, own in errors.items()]


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        if options.trainer:
            enter(options.trainer)
        lines = reconstruct(options)
    except (UserError, ValueError, OSError) as error:
        return ended_by(error, "reconstruct")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
