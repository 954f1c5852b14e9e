"""A source to a set of shards: read in parts, shuffled, written and indexed; in several processes and resumable."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from savae_dist import __version__
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import write_index
from savae_dist.data.packing import told
from savae_dist.data.packing.pack import check_options, summary
from savae_dist.data.packing.sources.base import Source
from savae_dist.data.packing.splits import SPLITS
from savae_dist.data.packing.steps import (
    PLAN,
    Options,
    Share,
    begin,
    planned_sets,
    read_parts,
    write_shards,
)
from savae_dist.errors import ConfigError, SaveError
from savae_dist.files import publish, read_object, remove_drafts, remove_replaced, write_json
from savae_dist.locks import locked, try_lock
from savae_dist.origin import PictureFiles

SHARE = "share-"  # the file that a machine has locked while it does its part
WHOLE = "whole.json"  # in the work folder: what was made to its end

__all__ = ["Options", "Share", "pack_source"]


def pack_source(
    source: Source,
    out: str | os.PathLike[str],
    options: Options | None = None,
    *,
    processes: int = 1,
    overwrite: bool = False,
    share: Share | None = None,
) -> list[dict[str, Any]]:
    """Write `out` (or `out`/train, validation, test) and return the summary of each set.

    Same source and options, same bytes, whatever the number of processes. Memory: a block and, of the order, 24 bytes
    per sample, but no samples. Disk: until the end also all samples decoded, in a hidden folder beside `out`. That
    stays where packing is cut off; the same command then goes on from the parts and shards that are whole.

    share: of several machines that see the same folders, each does a part of the work, in any order: it reads its parts
    of the source, and once all machines have, writes its shards. A last call without a share does what is left, makes
    the index and gives the set its name.
    """
    options, out = options or Options(), Path(out).absolute()
    check_options(options.layout, options.shard_size, options.block, options.seed)
    if options.labelled is not None and options.labelled < 1:
        raise ConfigError("--labelled must be at least 1")
    if processes < 1:
        raise ConfigError("--processes must be at least 1")
    work = out.parent / f".{out.name}.packing"
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if share is not None:
            return [_make_share(source, options, share, work, out, processes, overwrite)]
        with _alone(work):
            _wait_for_shares(work)
            plan = _plan(source, options)
            if not _renamed(work, out, plan):
                _check_out(out, overwrite)
                _make(source, options, plan, work, out, processes)
            summaries = _tell(source, out)
            _tidy(work, out)
    except OSError as error:
        raise SaveError(f"{out} cannot be written ({error}); free some space and run the same command again") from error
    return summaries


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    """One packer at a time; the file of the lock goes at the end.

    A lock on an open file, since the children must hold it too: after a kill of this process they may still write, and
    the next packer has to wait for them.
    """
    path = Path(f"{work}.lock")
    while True:
        with path.open("ab") as file:
            if not try_lock(file):
                print(f"waiting for another packer that is at work in {work}", file=sys.stderr)
            with locked(file):
                if not os.fstat(file.fileno()).st_nlink:  # removed by the packer before: it guards nothing
                    continue
                try:
                    yield
                finally:
                    path.unlink()
                return


def _renamed(work: Path, out: Path, plan: dict[str, Any]) -> bool:
    """Whether a packer was cut off after its last step, the renaming, and before it had tidied up."""
    return read_object(work / WHOLE) == plan and not (work / "new").exists() and out.exists()


def _tidy(work: Path, out: Path) -> None:
    """Remove the work folder, and last of all what tells that the set is whole: until then `_renamed` knows it."""
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        elif entry.name != WHOLE:
            entry.unlink()
    remove_replaced(out)
    (work / WHOLE).unlink()
    work.rmdir()


def _tell(source: Source, out: Path) -> list[dict[str, Any]]:
    """The summary of each set."""
    said = told.read(out)
    folders = [out / name for name in ("", *SPLITS) if name in source.splits]
    return [summary(Shards.open(folder)) | said for folder in folders]


def _check_out(out: Path, overwrite: bool) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
        raise ConfigError(f"{out} exists and is not empty; name another folder or pass --overwrite")


def _make(source: Source, options: Options, plan: dict[str, Any], work: Path, out: Path, processes: int) -> None:
    form = begin(source, options, plan, work)
    parts = list(read_parts(source, form, work, options.bad_budget, processes).values())
    new = work / "new"
    pictures = form.dtype == "uint8"
    origin = source.origin if isinstance(source.origin, PictureFiles) == pictures else None
    for one in planned_sets(source, options, form, parts, work):
        write_shards(one, options, processes)
        scanned = [json.loads(path.read_text()) for path in one.scanned]
        # Last, so that there is one only of a whole set.
        write_index(one.home, scanned, one.names, one.rate, origin=origin and origin.of_shape(form.shape))
    told.save(new, source, parts, options.class_names)
    for folder in (new, *(path for path in new.iterdir() if path.is_dir())):
        remove_drafts(folder)
    write_json(work / WHOLE, plan)
    publish(new, out)


def _make_share(
    source: Source, options: Options, share: Share, work: Path, out: Path, processes: int, overwrite: bool
) -> dict[str, Any]:
    """What one of several machines does; and in words how far all of them are."""
    with ExitStack() as stack:
        with _alone(work):  # only until the work has begun: the machines then work beside one another
            plan = _plan(source, options)
            _check_out(out, overwrite)
            if (work / PLAN).exists() and read_object(work / PLAN).get("plan") != plan:
                raise ConfigError(f"{work} is of another packing: give the same options everywhere, or remove it")
            form = begin(source, options, plan, work)
            mine = stack.enter_context((work / f"{SHARE}{share.number}").open("ab"))
            if not try_lock(mine):
                raise ConfigError(f"--part {share} is at work already; give each machine a number of its own")
            stack.enter_context(locked(mine))
        parts = list(read_parts(source, form, work, options.bad_budget, processes, share).values())
        count = len(source.splits)
        result = {"part": str(share), "read": f"{len(parts)} of {count} parts of the source, by all machines"}
        if len(parts) < count:
            return result | {"then": "the same command again once all machines have read, or a last one without --part"}
        planned = planned_sets(source, options, form, parts, work)
        for one in planned:
            write_shards(one, options, processes, share)
    shards = [path.exists() for one in planned for path in one.scanned]
    written = f"{sum(shards)} of {len(shards)} shards, by all machines"
    return result | {"written": written, "then": "the same command without --part, which makes the index"}


def _wait_for_shares(work: Path) -> None:
    """None begins while the caller is alone; those that are at work are waited for."""
    for path in sorted(work.glob(f"{SHARE}*")):
        with path.open("ab") as file:
            if not try_lock(file):
                print(f"waiting for --part {path.name.removeprefix(SHARE)}, at work in {work}", file=sys.stderr)
            with locked(file):
                continue


def _plan(source: Source, options: Options) -> dict[str, Any]:
    """What a packer makes, by which the next one knows whether it may go on from there."""
    kept = {name: value for name, value in asdict(options).items() if name != "bad_budget"}
    plan = {"version": __version__, "source": source.identity, "splits": list(source.splits), **kept}
    values: dict[str, Any] = json.loads(json.dumps(plan))
    return values
