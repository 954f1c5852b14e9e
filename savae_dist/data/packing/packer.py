"""A source to a set of shards: read in parts, shuffled, written and indexed; in several processes and resumable."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from savae_dist import __version__
from savae_dist.data.index.scan import Layout
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import index_shard, write_index
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing import told
from savae_dist.data.packing.pack import check_options, entries_of, summary, write_tar
from savae_dist.data.packing.sources.base import Bad, Note, Source, resolve
from savae_dist.data.packing.splits import SPLITS
from savae_dist.data.packing.spool import Form, Part, Spool, checked, write_part
from savae_dist.data.processes import run_jobs
from savae_dist.errors import ConfigError, DataError, SaveError
from savae_dist.files import flush, publish, read_object, remove_drafts, remove_replaced, write_json
from savae_dist.locks import locked, try_lock

PLAN, WHOLE = "plan.json", "whole.json"  # in the work folder: what is made, and what was made to its end
FIRST = 5  # rates shown in a message


@dataclass(frozen=True)
class Options:
    """How shards are made; see `pack`. bad_budget: how many samples may be unusable before the packer stops.

    labelled: how many samples of the (training) set keep their label, as equally over the classes as they have samples;
    all the others are unlabelled. None: as the source has them.
    """

    layout: Literal["packed", "samples"] = "packed"
    shard_size: int = 8192
    block: int = 256
    seed: int = 0
    class_names: tuple[str, ...] = ()
    rate: float = 0.0
    bad_budget: int = 0
    labelled: int | None = None


def pack_source(
    source: Source,
    out: str | os.PathLike[str],
    options: Options | None = None,
    *,
    processes: int = 1,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Write `out` (or `out`/train, validation, test) and return the summary of each set.

    Same source and options, same bytes, whatever the number of processes. Memory: a block and, of the order, 24 bytes
    per sample, but no samples. Disk: until the end also all samples decoded, in a hidden folder beside `out`. That
    stays where packing is cut off; the same command then goes on from the parts and shards that are whole.
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
        with _alone(work):
            plan = _plan(source, options)
            if not _renamed(work, out, plan):
                if out.exists() and (not out.is_dir() or any(out.iterdir())) and not overwrite:
                    raise ConfigError(f"{out} exists and is not empty; name another folder or pass --overwrite")
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


def _make(source: Source, options: Options, plan: dict[str, Any], work: Path, out: Path, processes: int) -> None:
    form = _begin(source, options, plan, work)
    parts = _read(source, form, work, options.bad_budget, processes)
    numbers, names = resolve(
        dict.fromkeys(chain.from_iterable(part.labels for part in parts)), options.class_names or source.class_names
    )
    rate = _one_rate(options.rate, parts)
    new = work / "new"
    for split in dict.fromkeys(source.splits):
        mine = [i for i, own in enumerate(source.splits) if own == split]
        if not any(parts[i].count for i in mine):
            raise DataError(f"no usable sample for {split or out}; see the dropped ones with a --bad-budget")
        spool = Spool(
            [(work / f"part-{i:06d}", parts[i].count) for i in mine if parts[i].count],
            [[numbers[label] for label in parts[i].labels] for i in mine if parts[i].count],
            form,
        )
        if options.labelled is not None and split in ("", "train"):
            spool.keep_labels(options.labelled, options.seed)
        _write(spool, options, names, rate, new / split, work / f"shards{split and '-'}{split}", processes)
    told.save(new, source, parts, options.class_names)
    for folder in (new, *(path for path in new.iterdir() if path.is_dir())):
        remove_drafts(folder)
    write_json(work / WHOLE, plan)
    publish(new, out)


def _plan(source: Source, options: Options) -> dict[str, Any]:
    """What a packer makes, by which the next one knows whether it may go on from there."""
    kept = {name: value for name, value in asdict(options).items() if name != "bad_budget"}
    plan = {"version": __version__, "source": source.identity, "splits": list(source.splits), **kept}
    values: dict[str, Any] = json.loads(json.dumps(plan))
    return values


def _begin(source: Source, options: Options, plan: dict[str, Any], work: Path) -> Form:
    """The folder of a packer that was cut off, if it was making the same thing, else a new one."""
    before = read_object(work / PLAN)
    if before.get("plan") == plan:
        return Form(before["form"]["dtype"], tuple(before["form"]["shape"]))
    if work.exists():
        shutil.rmtree(work)
    items = checked(item for part in range(len(source.splits)) for item in source.read(part))
    bad: list[tuple[str, str]] = []
    for item in items:  # the first usable sample decides, whoever reads it later
        if isinstance(item, Note):
            continue
        if isinstance(item, Bad):
            bad.append(item)
            told.check_budget(bad, options.bad_budget)
            continue
        form = Form(item.x.dtype.name, item.x.shape)
        if options.layout == "samples" and len(form.shape) == 3 and form.shape[2] != 3:
            raise DataError(f"PNG members hold 1 or 3 channels, not {form.shape[2]}; use --layout packed")
        work.mkdir()
        write_json(work / PLAN, {"plan": plan, "form": asdict(form)})
        return form
    raise DataError(f"the source holds no usable sample: {told.told(bad) or 'it is empty'}; name another")


def _read(source: Source, form: Form, work: Path, budget: int, processes: int) -> list[Part]:
    """Every part into the work folder; those that are there are left as they are."""
    paths = [work / f"part-{number:06d}.json" for number in range(len(source.splits))]
    bad = [one for path in paths if path.exists() for one in Part.load(path).bad]
    told.check_budget(bad, budget)

    def read(number: int) -> None:
        write_part(paths[number], source.read(number), form)

    def after(number: int) -> None:
        bad.extend(Part.load(paths[number]).bad)
        told.check_budget(bad, budget)

    run_jobs([i for i, path in enumerate(paths) if not path.exists()], read, processes, "reading", after)
    return [Part.load(path) for path in paths]


def _write(
    spool: Spool, options: Options, names: tuple[str, ...], rate: float, home: Path, done: Path, processes: int
) -> None:
    """The shards of one set and their tables; the index comes last, so that there is one only of a whole set."""
    home.mkdir(parents=True, exist_ok=True)
    done.mkdir(exist_ok=True)
    count = -(-spool.size // options.shard_size)
    shards = np.array_split(permutation(spool.size, options.seed, PACK), count)

    def write(number: int) -> None:
        path = home / f"shards-{number:06d}.tar"
        write_tar(path, number, entries_of(spool.take, shards[number], options.layout, options.block, rate))
        scanned = index_shard(path, home, Layout())
        flush(path)  # before the file that says that this shard is done
        write_json(done / f"{number:06d}.json", scanned)

    missing = [i for i in range(count) if not (done / f"{i:06d}.json").exists()]
    run_jobs(missing, write, processes, f"writing {home.name if home.name != 'new' else 'shards'}")
    write_index(home, [json.loads((done / f"{i:06d}.json").read_text()) for i in range(count)], names, rate)


def _one_rate(given: float, parts: Sequence[Part]) -> float:
    rates = sorted({rate for part in parts for rate in part.rates})
    if len(rates) > 1:
        shown = ", ".join(f"{rate:g}" for rate in rates[:FIRST])
        raise DataError(f"the recordings have {len(rates)} sampling rates ({shown} Hz); bring them to one with --rate")
    return rates[0] if rates else given
