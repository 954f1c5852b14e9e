"""Make shards: `make_shards.py images|arrays|recordings|idx|table|hub SOURCE OUT [options]`, or `digits OUT`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from savae_dist.data import Shards, summary
from savae_dist.data.packing.digits import pack_digits
from savae_dist.data.packing.packer import Options, pack_source
from savae_dist.data.packing.readers import READERS
from savae_dist.data.packing.sources import Source, arrays, idx
from savae_dist.data.packing.sources.arrays import Meant
from savae_dist.data.packing.sources.listing import Rules
from savae_dist.data.packing.splits import Splits
from savae_dist.errors import UserError

# Each imports what reads its files only when it is chosen.


def from_images(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.sources.images import images

    return images(a.source, a.size, a.mode, rules=Rules(a.label, a.group_by), splits=splits(a))


def from_arrays(a: argparse.Namespace) -> Source:
    return arrays(a.source, a.labels, Meant(a.x, a.y, a.group_by, a.kind, a.range), splits(a))


def from_idx(a: argparse.Namespace) -> Source:
    return idx(a.source, a.labels)


def from_table(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.sources.tables import Columns, table

    return table(a.source, Columns(a.x, a.y, a.shape, a.size, a.mode))


def from_hub(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.sources.tables import Columns, hub

    columns = Columns(a.x, a.y, a.shape, a.size, a.mode)
    return hub(a.source, columns, split=a.split, config=a.config, data_files=a.data_files or None, revision=a.revision)


def from_recordings(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.readers.own import OwnReader
    from savae_dist.data.packing.readers.signal import Choice
    from savae_dist.data.packing.sources.recordings import Windows, recordings

    choice = Choice(tuple(a.variable), a.time_axis, a.irregular_times)
    reader = OwnReader.parse(a.reader) if a.reader else None
    windows = Windows(a.length, a.hop or a.length, a.rate, a.source_rate, choice, a.read_as, reader)
    rules = Rules(a.label, a.group_by)
    return recordings(a.source, windows, annotations=a.annotations, rules=rules, splits=splits(a))


def splits(a: argparse.Namespace) -> Splits:
    return Splits({"validation": a.validation, "test": a.test}, tuple(a.leave_out), a.seed)


def packed(a: argparse.Namespace) -> list[dict[str, Any]]:
    options = Options(
        layout=a.layout,
        shard_size=a.shard_size,
        seed=a.seed,
        class_names=tuple(a.class_names.split(",")) if a.class_names else (),
        rate=a.rate,
        bad_budget=a.bad_budget,
        labelled=a.labelled,
    )
    return pack_source(a.read(a), a.out, options, processes=a.processes, overwrite=a.overwrite)


def digits(a: argparse.Namespace) -> list[dict[str, Any]]:
    return [summary(Shards.open(folder)) for folder in pack_digits(a.out, a.overwrite)]


def numbers(text: str) -> tuple[int, ...]:
    """`28,28` or `28x28`; one number is a square."""
    return tuple(int(part) for part in text.replace("x", ",").split(","))


def limits(text: str) -> tuple[float, float]:
    """`0,4095`"""
    low, high = (float(part) for part in text.split(","))
    return low, high


def size(text: str) -> tuple[int, int]:
    height, width = (numbers(text) * 2)[:2]
    if min(height, width) < 1:
        raise argparse.ArgumentTypeError("give HEIGHTxWIDTH")
    return height, width


def common_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--layout", choices=("packed", "samples"), default="packed", help="blocks, or one file each")
    parser.add_argument("--shard-size", type=int, default=8192, metavar="N", help="samples per shard at most")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the shuffle, and of the split")
    parser.add_argument("--class-names", default="", metavar="A,B,...", help="in the order of the labels")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="same bytes for any number"
    )
    parser.add_argument("--bad-budget", type=int, default=0, metavar="N", help="unusable samples that may be left out")
    parser.add_argument("--labelled", type=int, metavar="N", help="training labels to keep, over all classes equally")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it holds something")
    parser.set_defaults(make=packed)
    return parser


def picture_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--size", type=size, metavar="HxW", help="crop to these proportions and scale (Lanczos)")
    parser.add_argument("--mode", choices=("auto", "gray", "rgb"), default="auto", help="auto: gray stays gray")
    return parser


def column_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--x", default="", metavar="COLUMN", help="of samples; default: x, image, img or signal")
    parser.add_argument("--y", default="", metavar="COLUMN", help="of labels; default: y or label, if there")
    parser.add_argument("--shape", type=numbers, default=(), metavar="H,W", help="of samples that are flat lists")
    return parser


def recording_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--length", type=int, required=True, metavar="N", help="samples of a window")
    parser.add_argument("--hop", type=int, default=0, metavar="N", help="from window to window; default: --length")
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="resample to it; default: as recorded")
    parser.add_argument("--source-rate", type=float, default=0.0, metavar="HZ", help="where a file does not say")
    parser.add_argument(
        "--variable", action="append", default=[], metavar="NAME", help="array, column or its number; * and ? work"
    )
    parser.add_argument(
        "--time-axis", choices=("longer", "first", "last"), default="longer", help="of arrays with two axes"
    )
    parser.add_argument(
        "--irregular-times",
        choices=("refuse", "interpolate", "ignore"),
        default="refuse",
        help="where the steps of a column of times differ",
    )
    parser.add_argument(
        "--as", dest="read_as", default="", metavar=".csv", help=f"how to read other files: {' '.join(READERS)}"
    )
    parser.add_argument("--reader", metavar="FILE.py:NAME", help="your function(path) -> (x, rate[, attributes])")
    parser.add_argument("--annotations", metavar="FILE.csv", help="columns path,start,end,label; in seconds")


def file_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument(
        "--label", default="top", metavar="RULE", help="class of a file: top or parent folder, none, or a regex (...)"
    )
    parser.add_argument(
        "--group-by", default="", metavar="RULE", help="what goes to one set: folder, a column, or a regex (...)"
    )
    return parser


def set_options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--validation", type=float, default=0.0, metavar="SHARE", help="of the groups")
    parser.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="of the groups")
    parser.add_argument("--leave-out", action="append", default=[], metavar="GROUP", help="it is the test set")
    return parser


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make_shards", description="Pack a source into indexed WebDataset shards.")
    kinds = parser.add_subparsers(required=True, metavar="KIND")
    common, pictures, columns = common_options(), picture_options(), column_options()
    files, sets = file_options(), set_options()

    def kind(name: str, read: Any, what: str, help: str, *parents: argparse.ArgumentParser) -> argparse.ArgumentParser:
        one = kinds.add_parser(name, help=help, parents=[*parents, common])
        one.add_argument("source", metavar=what)
        one.add_argument("out", metavar="OUT")
        one.set_defaults(read=read, rate=0.0)
        return one

    kind(
        "images",
        from_images,
        "FOLDER|FILE.csv",
        "one sub-folder per class, or a CSV of path,label",
        pictures,
        files,
        sets,
    )
    one = kind("arrays", from_arrays, "FILE.npz|FILE.npy", "x (images or windows) and y", sets)
    one.add_argument(
        "--x", default="", metavar="NAME", help="array of samples; default: x, or Keras' and MedMNIST's names"
    )
    one.add_argument("--y", default="", metavar="NAME", help="array of labels; default: y")
    one.add_argument("--group-by", default="", metavar="NAME", help="array of what goes to one set")
    one.add_argument(
        "--kind", choices=("images", "signals"), default="", help="where the type of the values does not say"
    )
    one.add_argument("--range", type=limits, metavar="LOW,HIGH", help="values that become black and white")
    other = kind("idx", from_idx, "FILE[.gz]", "MNIST's format; labels from the labels-idx1 file beside it")
    for each in (one, other):
        each.add_argument("--labels", metavar="FILE", help="of the same length")
        each.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="sampling rate of windows")
    kind("table", from_table, "FILE|FOLDER", ".parquet or .arrow", columns, pictures)
    one = kind("hub", from_hub, "NAME", "any data set that datasets.load_dataset streams", columns, pictures)
    one.add_argument("--split", default="train")
    one.add_argument("--config", metavar="NAME", help="of the data set, where it has several")
    one.add_argument("--revision", metavar="COMMIT", help="of its repository")
    one.add_argument("--data-files", action="append", default=[], metavar="FILE", help="for NAME parquet, csv, ...")
    recording_options(
        kind("recordings", from_recordings, "FOLDER|FILE.csv", f"windows of {' '.join(READERS)} files", files, sets)
    )
    one = kinds.add_parser("digits", help="scikit-learn's 8x8 digits, into OUT/train and OUT/validation")
    one.add_argument("out", metavar="OUT")
    one.add_argument("--overwrite", action="store_true", help="replace OUT if it holds something")
    one.set_defaults(make=digits)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    try:
        made = arguments.make(arguments)
    except UserError as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("make_shards: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    for one in made:
        print("\n".join(f"{name:>12}  {value}" for name, value in one.items()), end="\n\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
