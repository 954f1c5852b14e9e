"""Data sets of the Hugging Face Hub, and local ones that `datasets` reads: image folders, WebDataset tars, tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from savae_dist.data.packing.sources.base import Source, identity
from savae_dist.data.packing.sources.columns import (
    Batch,
    Columns,
    Piece,
    class_names,
    digest,
    divided,
    read_items,
    top_of,
)
from savae_dist.data.packing.splits import SPLITS, Splits, as_set
from savae_dist.errors import ConfigError, DataError

ROWS = 256  # read at once


def hub(
    name: str,
    columns: Columns,
    *,
    split: str = "train",
    config: str | None = None,
    data_files: str | list[str] | None = None,
    revision: str | None = None,
    splits: Splits | None = None,
) -> Source:
    """Any data set of the Hugging Face Hub, or local files by the same call, streamed: the parts are its files.

    name: of a repository, a folder of images or tables, or a kind of file (`webdataset`, `parquet`, ...) with
    `data_files`. split: one that it names, or several, `train,test`, which become sets of their own. The set is never
    downloaded as a whole; where it is divided, it is streamed once more for the columns that tell how, and then once
    for each set.
    """
    from datasets import load_dataset, load_dataset_builder

    given: dict[str, Any] = {"name": config, "data_files": data_files, "revision": revision}
    names = _sets(split)
    try:
        files = load_dataset_builder(name, **given).config.data_files or {}
        streams = {one: load_dataset(name, split=one, streaming=True, **given) for one in names}
        first = next(iter(streams.values()))
        example = first.with_format("arrow").take(1).iter(batch_size=1)
        schema = first.features.arrow_schema if first.features else next(example).schema
    except Exception as error:  # `datasets` runs the code of many kinds of file, which raise what they like
        raise _unreadable(name, error) from error
    columns = columns.named(schema, name, len(names) == 1)
    read = partial(_read, name, streams, schema)
    pieces = [Piece(one, part) for one, stream in streams.items() for part in range(stream.num_shards)]
    found = divided(pieces, [names[str(piece.where)] for piece in pieces], read, columns, splits or Splits())
    # Commit, etag or time of every file.
    state = {str(part): [list(files[part]), files[part].origin_metadata] for part in files}
    made = {**given, "source": "hub", "path": name, "split": split, "columns": columns, "state": state}
    return Source(
        partial(read_items, found.pieces, read, columns),
        found.sets,
        identity({**made, "pieces": digest(found)}, ()),
        class_names(schema, columns.y),
        (*columns.notes(schema), *found.notes),
        found.labels,
        columns.files if columns.size else None,
    )


def _sets(split: str) -> dict[str, str]:
    """The named splits of `--split`, and the set that each becomes; "" where there is one split only."""
    names = split.split(",")
    if len(names) == 1:
        return {split: ""}
    sets = {name: as_set(name.partition("[")[0]) for name in names}
    if odd := [name for name, own in sets.items() if own not in SPLITS]:
        raise ConfigError(f"--split {split}: {odd[0]} is none of {', '.join(SPLITS)}; pack it by itself")
    if len(set(sets.values())) < len(names):
        raise ConfigError(f"--split {split}: two of them are the same set; name one of each")
    return sets


def _read(
    name: str, streams: Mapping[str, Any], schema: pa.Schema, piece: Piece, paths: Sequence[str]
) -> Iterator[Batch]:
    stream = streams[str(piece.where)]
    columns = list(dict.fromkeys(top_of(schema, path) for path in paths))
    shard = stream.select_columns(columns).shard(num_shards=stream.num_shards, index=piece.number)
    batches = iter(shard.with_format("arrow").iter(batch_size=ROWS))
    while True:
        try:
            batch = next(batches, None)
        except Exception as error:  # see `hub`
            reason = " ".join(str(error).split()) or type(error).__name__
            where = f"{name}, {piece.where} part {piece.number}"
            raise DataError(
                f"{where}: the stream broke off ({reason}); mend it, or run the same command again to go on"
            ) from error
        if batch is None:
            return
        yield batch


def _unreadable(name: str, error: Exception) -> DataError:
    reason = " ".join(str(error).split()) or ("it is empty" if isinstance(error, StopIteration) else "no reason given")
    hint = "correct the name or the options"
    if "invalid literal for int()" in reason:
        hint = "its .cls are no numbers: index the tars as they are, which takes names (tools/index_shards.py)"
    return DataError(f"{name} cannot be streamed ({reason}); {hint}")
