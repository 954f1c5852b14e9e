"""Make shards: `make_shards.py images|arrays|recordings|idx|table|hub SOURCE OUT [options]`, or `digits OUT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from savae_dist.data import Shards, summary
from savae_dist.data.packing import told
from savae_dist.data.packing.command_line import parse
from savae_dist.data.packing.digits import pack_digits
from savae_dist.data.packing.pack import in_words
from savae_dist.data.packing.packer import Options, Share, pack_source
from savae_dist.data.packing.sources import Source, arrays, idx
from savae_dist.data.packing.sources.arrays import Meant
from savae_dist.data.packing.sources.listing import Rules
from savae_dist.data.packing.splits import Splits
from savae_dist.errors import ConfigError, UserError

if TYPE_CHECKING:
    from savae_dist.data.packing.sources.columns import Columns

# Each imports what reads its files only when it is chosen.


def from_images(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.sources.images import images

    rules, sets = Rules(a.label, a.group_by), splits(a)
    return images(a.source, a.size, a.mode, resize=resize(a), limits=a.range, rules=rules, splits=sets)


def resize(a: argparse.Namespace) -> Any:
    """ConfigError where it has no effect."""
    if a.resize != "crop" and a.size is None:
        raise ConfigError(f"--resize {a.resize} has no effect without --size: leave it out, or give --size")
    return a.resize


def from_arrays(a: argparse.Namespace) -> Source:
    return arrays(a.source, a.labels, Meant(a.x, a.y, a.group_by, a.kind, a.range), splits(a))


def from_idx(a: argparse.Namespace) -> Source:
    return idx(a.source, a.labels, Meant(group=a.group_by), splits(a))


def from_table(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.sources.tables import table

    return table(a.source, columns(a), splits(a))


def from_hub(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.sources.hub import hub

    files = a.data_files or None
    return hub(
        a.source,
        columns(a),
        split=a.split,
        config=a.config,
        data_files=files,
        revision=a.revision,
        splits=splits(a),
    )


def columns(a: argparse.Namespace) -> Columns:
    from savae_dist.data.packing.sources.columns import Columns

    return Columns(a.x, a.y, a.shape, a.size, a.mode, a.group_by, resize=resize(a))


def from_recordings(a: argparse.Namespace) -> Source:
    from savae_dist.data.packing.readers.own import OwnReader
    from savae_dist.data.packing.readers.signal import Choice
    from savae_dist.data.packing.sources.recordings import Windows, recordings

    choice = Choice(tuple(a.variable), a.time_axis, a.irregular_times)
    reader = OwnReader.parse(a.reader) if a.reader else None
    windows = Windows(a.length, a.hop or a.length, a.rate, a.source_rate, choice, a.read_as, reader, a.id)
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
    share = Share.parse(a.part) if a.part else None
    source = READ[a.source_kind](a)
    made = pack_source(source, a.out, options, processes=a.processes, overwrite=a.overwrite, share=share)
    if share is not None or not a.preview:
        return made
    return [one | preview(Path(one["folder"]), Path(a.out), a.command) for one in made]


def preview(folder: Path, out: Path, command: Sequence[str]) -> dict[str, str]:
    """Draw a set and write its card; `out` holds what was told of all sets together."""
    from savae_dist.data.card import write_card

    shards = Shards.open(folder)
    card = write_card(shards, told.read(out), command, told.channels(out, shards.spec.shape[0]))
    return {"card": str(card)}


def digits(a: argparse.Namespace) -> list[dict[str, Any]]:
    return [summary(Shards.open(folder)) for folder in pack_digits(a.out, a.overwrite)]


READ = {
    "images": from_images,
    "arrays": from_arrays,
    "idx": from_idx,
    "table": from_table,
    "hub": from_hub,
    "recordings": from_recordings,
}


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    arguments.command = ["make_shards", *(sys.argv[1:] if argv is None else argv)]
    try:
        made = digits(arguments) if arguments.source_kind == "digits" else packed(arguments)
    except UserError as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return error.code
    except KeyboardInterrupt:
        print("make_shards: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(in_words(made))
    return 0


if __name__ == "__main__":
    sys.exit(main())
