"""The command line of `tools/make_shards.py`: which options each kind of source has."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from savae_dist.data.packing.readers import READERS
from savae_dist.tool_command import with_version


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


class Parser(argparse.ArgumentParser):
    """Knows the names of its options, so that those of other kinds of source can be told."""

    def __init__(self, *, parents: Sequence[Parser] = (), **options: Any) -> None:
        self.options: set[str] = {name for parent in parents for name in parent.options}
        super().__init__(parents=list(parents), **options)

    def add_argument(self, *names: Any, **options: Any) -> argparse.Action:
        self.options |= {name for name in names if name.startswith("--")}
        return super().add_argument(*names, **options)


def common_options() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--layout", choices=("packed", "samples"), default="packed", help="blocks, or one file each")
    parser.add_argument("--shard-size", type=int, default=8192, metavar="N", help="samples per shard at most")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the shuffle, and of the split")
    parser.add_argument("--class-names", default="", metavar="A,B,...", help="in the order of the labels")
    parser.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, metavar="N", help="same bytes for any number"
    )
    parser.add_argument("--part", metavar="I/N", help="one of N machines; a last call without it makes the index")
    parser.add_argument(
        "--bad-budget", type=int, default=0, metavar="N", help="how many unusable samples may be left out; a number (0)"
    )
    parser.add_argument("--labelled", type=int, metavar="N", help="training labels to keep, over all classes equally")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it holds something")
    parser.add_argument("--preview", action="store_true", help="write card.md and preview.png beside each index")
    parser.set_defaults(rate=0.0)
    return parser


def picture_options() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--size", type=size, metavar="HxW", help="bring all to it")
    parser.add_argument("--resize", choices=("crop", "pad", "stretch"), default="crop", help="how; pad: on black")
    parser.add_argument(
        "--mode",
        choices=("auto", "gray", "rgb"),
        default="auto",
        help="rgb where only some are grey; auto keeps each as it is, and refuses a mixture",
    )
    return parser


def column_options() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--x", default="", metavar="COLUMN", help="of samples; default: x, image, img, signal")
    parser.add_argument("--y", default="", metavar="COLUMN", help="of labels, or json.label; default: y, label, cls")
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="sampling rate of windows")
    parser.add_argument("--shape", type=numbers, default=(), metavar="H,W", help="of samples that are flat lists")
    parser.add_argument(
        "--group-by",
        default="",
        metavar="RULE",
        help="what goes to one set: a column, folder, or a regex (...) of names",
    )
    return parser


def recording_options(parser: Parser) -> None:
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
    parser.add_argument("--id", default="", metavar="COLUMN", help="tells several recordings in one table apart")
    parser.add_argument("--annotations", metavar="FILE.csv", help="columns path,start,end,label; in seconds")


def file_options() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument(
        "--label",
        default="top",
        metavar="RULE",
        help="class: top or parent folder, none, a regex (...), with --id a column",
    )
    parser.add_argument(
        "--group-by", default="", metavar="RULE", help="what goes to one set: folder, a column, or a regex (...)"
    )
    return parser


def set_options() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--validation", type=float, default=0.0, metavar="SHARE", help="of the groups")
    parser.add_argument("--test", type=float, default=0.0, metavar="SHARE", help="of the groups")
    parser.add_argument("--leave-out", action="append", default=[], metavar="GROUP", help="it is the test set")
    return parser


def array_options(parser: Parser) -> None:
    parser.add_argument(
        "--x", default="", metavar="NAME", help="array of samples; default: x, or Keras' and MedMNIST's names"
    )
    parser.add_argument("--y", default="", metavar="NAME", help="array of labels; default: y")
    parser.add_argument("--group-by", default="", metavar="NAME", help="array of what goes to one set (.npy: a file)")
    parser.add_argument(
        "--kind", choices=("images", "signals"), default="", help="where the type of the values does not say"
    )
    parser.add_argument("--range", type=limits, metavar="LOW,HIGH", help="values that become black and white")


def beside_options() -> Parser:
    parser = Parser(add_help=False)
    parser.add_argument("--labels", metavar="FILE", help="of the same length")
    parser.add_argument("--rate", type=float, default=0.0, metavar="HZ", help="sampling rate of windows")
    return parser


def hub_options(parser: Parser) -> None:
    parser.add_argument("--split", default="train", metavar="A,B", help="of the data set; several become sets")
    parser.add_argument("--config", metavar="NAME", help="of the data set, where it has several")
    parser.add_argument("--revision", metavar="COMMIT", help="of its repository")
    parser.add_argument("--data-files", action="append", default=[], metavar="FILE", help="for NAME webdataset, csv...")


def kinds_of(parser: Parser) -> dict[str, Parser]:
    """A parser for each kind of source, by its name."""
    kinds = parser.add_subparsers(required=True, metavar="KIND", dest="source_kind", parser_class=Parser)
    common, pictures, beside = common_options(), picture_options(), beside_options()
    columns, files, sets = column_options(), file_options(), set_options()
    made: dict[str, Parser] = {}

    def kind(name: str, what: str, help: str, *parents: Parser) -> Parser:
        one = made[name] = kinds.add_parser(name, help=help, parents=[*parents, sets, common])
        one.add_argument("source", metavar=what)
        one.add_argument("out", metavar="OUT")
        return one

    listed = "FOLDER|FILE.csv"
    one = kind("images", listed, "one sub-folder per class, or a CSV of path,label", pictures, files)
    one.add_argument("--range", type=limits, metavar="LOW,HIGH", help="values that become black and white")
    array_options(kind("arrays", "FILE.npz|FILE.npy", "x (images or windows) and y", beside))
    one = kind("idx", "FILE[.gz]", "MNIST's format; labels from the labels-idx1 file beside it", beside)
    one.add_argument("--group-by", default="", metavar="FILE.npy", help="what goes to one set, a value per sample")
    kind("table", "FILE|FOLDER", ".parquet or .arrow", columns, pictures)
    hub_options(kind("hub", "NAME", "any data set that datasets.load_dataset streams", columns, pictures))
    recording_options(kind("recordings", listed, f"windows of {' '.join(READERS)} files", files))
    one = made["digits"] = kinds.add_parser(
        "digits", help="scikit-learn's 8x8 digits, into OUT/train and OUT/validation"
    )
    one.add_argument("out", metavar="OUT")
    one.add_argument("--overwrite", action="store_true", help="replace OUT if it holds something")
    return made


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(prog="make_shards", description="Pack a source into indexed WebDataset shards.")
    with_version(parser)
    kinds = kinds_of(parser)
    arguments, unknown = parser.parse_known_args(argv)
    if unknown:
        parser.error(not_understood(arguments.source_kind, unknown, {name: one.options for name, one in kinds.items()}))
    return arguments


def not_understood(kind: str, words: Sequence[str], known: dict[str, set[str]]) -> str:
    """The first option that a kind of source does not have, with the kinds that have it."""
    option = next((word.partition("=")[0] for word in words if word.startswith("-")), "")
    others = [name for name, options in known.items() if option in options]
    if not others:
        return f"{kind} does not understand {' '.join(words)}; see make_shards {kind} --help"
    return f"{kind} has no {option}, which is for {', '.join(others)}; see make_shards {kind} --help"
