"""Nguyen 2023's experiment: a VAE and AVA1 to AVA5 on ten images, at nineteen learning rates, scored by eq 17.

    python tools/ava_experiment.py OUT [--members vae,ava1,...] [--images FILE.npz] [--jobs N] [key=value ...]

The paper's ten images of 180x250, which its networks zoom out three times, are not published; here they are crops of
the two photographs in scikit-learn, reduced to a third, or the `x` of an .npz. Every cell is a run of the preset
`ava_ten_images` or `vae_ten_images`, with the changes given as key=value, in a folder of OUT; what is finished is not
run again, and a run that diverges is a result. Options that the VAE does not have need `--members` without it.

Eq 17 is no error of reconstruction: it compares one image, the best of 100 drawn from the prior (the paper does not say
by which rule; here by this score), with all images. So it is printed beside the score of the mean image, which has no
model at all, and beside the root mean square error of the reconstructions. OUT/results.csv has every cell.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.errors import UserError
from savae_dist.sweeps import ava_experiment as experiment
from savae_dist.sweeps import results, running
from savae_dist.sweeps.ava_experiment import MEMBERS
from savae_dist.sweeps.trials import ENDED
from savae_dist.tool_command import tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(description="Nguyen 2023's experiment: AVA1 to AVA5 and a VAE on ten images.")
    parser.add_argument("out", type=Path, help="folder of the runs, of results.csv and table.md")
    parser.add_argument("changes", nargs="*", metavar="key=value", help="of the two presets")
    parser.add_argument("--members", default=",".join(MEMBERS), help="of the comparison (%(default)s)")
    parser.add_argument("--images", type=Path, help=".npz with x, uint8 [n, height, width(, 3)], instead of crops")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (%(default)s)")
    options = parser.parse_intermixed_args(argv)
    options.members = options.members.split(",")
    unknown = set(options.members) - set(MEMBERS)
    if unknown or len(set(options.members)) < len(options.members):
        parser.error(f"--members: each once, of {','.join(MEMBERS)}")
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    options = parse(argv)
    try:
        images = experiment.read(options.images) if options.images else experiment.photographs()
        shards = experiment.packed(images, options.out)
        trials = experiment.cells(options.out, options.members, shards, options.changes)
        rows = running.for_each(trials, lambda trial: experiment.cell(trial, images), options.jobs)
    except (UserError, OSError) as error:
        print(f"ava_experiment: {error}", file=sys.stderr)
        return error.code if isinstance(error, UserError) else 1
    results.write_csv(rows, options.out / "results.csv")
    lines = experiment.report(rows, images, options.members)
    (options.out / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    return 0 if all(row["outcome"] in ENDED for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
