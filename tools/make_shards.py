"""Make shards: `make_shards.py arrays FILE.npz OUT` or `make_shards.py digits OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from savae_dist.data import Shards, pack, read_arrays, summary
from savae_dist.data.demo import pack_digits
from savae_dist.errors import UserError


def arrays(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    x, y, names = read_arrays(arguments.source)
    if arguments.class_names:
        names = tuple(arguments.class_names.split(","))
    made = pack(
        x,
        y,
        arguments.out,
        layout=arguments.layout,
        shard_size=arguments.shard_size,
        seed=arguments.seed,
        class_names=names,
        rate=arguments.rate,
        overwrite=arguments.overwrite,
    )
    return [made]


def digits(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    return [summary(Shards.open(folder)) for folder in pack_digits(arguments.out, arguments.overwrite)]


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make_shards", description="Pack a source into indexed WebDataset shards.")
    sources = parser.add_subparsers(required=True, metavar="SOURCE")

    source = sources.add_parser("arrays", help="an .npz with x (uint8 images, float windows) and y (missing: -1)")
    source.add_argument("source", metavar="FILE.npz")
    source.add_argument("out", metavar="OUT")
    source.add_argument("--layout", choices=("packed", "samples"), default="packed", help="blocks, or one file each")
    source.add_argument("--shard-size", type=int, default=8192, help="samples per shard at most")
    source.add_argument("--seed", type=int, default=0, help="of the shuffle")
    source.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="sampling rate of windows")
    source.add_argument("--class-names", default="", metavar="A,B,...", help="in the order of the labels")
    source.add_argument("--overwrite", action="store_true", help="replace OUT if it holds something")
    source.set_defaults(make=arrays)

    source = sources.add_parser("digits", help="scikit-learn's 8x8 digits, into OUT/train and OUT/validation")
    source.add_argument("out", metavar="OUT")
    source.add_argument("--overwrite", action="store_true", help="replace OUT if it holds something")
    source.set_defaults(make=digits)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        made = arguments.make(arguments)
    except UserError as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return error.code
    for one in made:
        print("\n".join(f"{name:>12}  {value}" for name, value in one.items()), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
