"""Index tars of other writers: `index_shards.py SHARDS... [--x --y] [--out FOLDER] [--decode]`, and say what they hold.

Ends with 65 where not one sample can be used.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from savae_dist.config.members import FORMS
from savae_dist.data import Shards, check_usable, index_set, survey
from savae_dist.errors import UserError
from savae_dist.tool_command import tool_parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = tool_parser(prog="index_shards", description="Index WebDataset tars and say what they hold.")
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="folders, tars or brace patterns")
    parser.add_argument("--out", metavar="FOLDER", help="of the index, and then data.train; default: beside the shards")
    parser.add_argument("--x", metavar="ENDING", help="of the samples' members: jpg, left.png or jpg|png; as data.x")
    parser.add_argument("--y", metavar="RULE", help=f"what tells the labels: {FORMS}; as data.y")
    parser.add_argument("--attributes", metavar="RULE", help="several values a sample: json:PATH; as data.attributes")
    parser.add_argument("--decode", action="store_true", help="decode every image, to find those that cannot be")
    parser.add_argument("--class-names", default="", metavar="A,B,...", help="in the order of the labels")
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="sampling rate of windows")
    parser.add_argument("--preview", action="store_true", help="write card.md and preview.png beside the index")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    return parser.parse_args(argv)


def preview(shards: Shards, lines: Sequence[str], words: Sequence[str]) -> Path:
    """Draw the set and write its card, which says what `survey` says."""
    from savae_dist.data.card import write_card

    told: dict[str, str] = {}
    for name, _, text in (line.partition(" ") for line in lines):
        told[name] = "; ".join([*([told[name]] if name in told else []), text.strip()])
    return write_card(shards, told, ["index_shards", *words])


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    names = tuple(arguments.class_names.split(",")) if arguments.class_names else ()
    try:
        shards = index_set(
            arguments.shards,
            arguments.out,
            x=arguments.x,
            y=arguments.y,
            attributes=arguments.attributes,
            class_names=names,
            rate=arguments.rate,
            decode_all=arguments.decode,
            processes=arguments.processes,
        )
        lines = survey(shards)
        print("\n".join([f"index       {shards.home}", *lines]))
        check_usable(shards)
        if arguments.preview:
            print(f"card        {preview(shards, lines, sys.argv[1:] if argv is None else argv)}")
    except UserError as error:
        print(f"index_shards: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("index_shards: interrupted; nothing was indexed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
