"""The steps from a source to shards: read in parts, planned as sets, written; each goes on from what is there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np

from savae_dist.data.index.scan import Layout
from savae_dist.data.index.tables import index_shard
from savae_dist.data.order.permutation import PACK, permutation
from savae_dist.data.packing import told
from savae_dist.data.packing.pack import entries_of, write_tar
from savae_dist.data.packing.sources.base import Bad, Note, Source, resolve
from savae_dist.data.packing.spool import Form, Part, Spool, checked, write_part
from savae_dist.data.processes import run_jobs
from savae_dist.errors import ConfigError, DataError
from savae_dist.files import flush, read_object, write_json

PLAN = "plan.json"  # in the work folder: what is made
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


@dataclass(frozen=True)
class Share:
    """The part of the work that one of several machines does: every `of`-th job, from `number` (1 ..) on."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """`2/4`; ConfigError if it is no such share."""
        number, _, of = text.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
            raise ConfigError(f"--part {text}: give I/N, with I from 1 to N machines")
        return cls(int(number), int(of))

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def of_jobs(self, count: int) -> range:
        return range(self.number - 1, count, self.of)


ALL = Share(1, 1)


def begin(source: Source, options: Options, plan: dict[str, Any], work: Path) -> Form:
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


def read_parts(
    source: Source, form: Form, work: Path, budget: int, processes: int, share: Share = ALL
) -> dict[int, Part]:
    """Read the parts of the share into the work folder; those that are there are left as they are.

    Returns all parts that are there by now, by their numbers, those of other machines included; each is loaded once.
    """
    paths = [work / f"part-{number:06d}.json" for number in range(len(source.splits))]
    parts = {number: Part.load(path) for number, path in enumerate(paths) if path.exists()}
    bad = [one for part in parts.values() for one in part.bad]
    told.check_budget(bad, budget)

    def read(number: int) -> None:
        write_part(paths[number], source.read(number), form)

    def after(number: int) -> None:
        parts[number] = Part.load(paths[number])
        bad.extend(parts[number].bad)
        told.check_budget(bad, budget)

    run_jobs([i for i in share.of_jobs(len(paths)) if i not in parts], read, processes, "reading", after)
    # Other machines may have finished parts meanwhile.
    late = [number for number, path in enumerate(paths) if number not in parts and path.exists()]
    parts |= {number: Part.load(paths[number]) for number in late}
    return dict(sorted(parts.items()))


@dataclass(frozen=True)
class Planned:
    """One set: its samples, what its classes are called, and where its shards go.

    scanned: for each shard the file that holds its part of the index, and is there once the shard is whole.
    """

    spool: Spool
    names: tuple[str, ...]
    rate: float
    home: Path
    scanned: list[Path]


def planned_sets(source: Source, options: Options, form: Form, parts: Sequence[Part], work: Path) -> list[Planned]:
    """All sets, once every part has been read."""
    numbers, names = resolve(
        dict.fromkeys(chain.from_iterable(part.labels for part in parts)), options.class_names or source.class_names
    )
    rate = _one_rate(options.rate, parts)
    planned = []
    for split in dict.fromkeys(source.splits):
        mine = [i for i, own in enumerate(source.splits) if own == split and parts[i].count]
        if not mine:
            raise DataError(f"no usable sample for {split or 'the set'}; see the dropped ones with a --bad-budget")
        spool = Spool(
            [(work / f"part-{i:06d}", parts[i].count) for i in mine],
            [[numbers[label] for label in parts[i].labels] for i in mine],
            form,
        )
        if options.labelled is not None and split in ("", "train"):
            spool.keep_labels(options.labelled, options.seed)
        done = work / f"shards{split and '-'}{split}"
        scanned = [done / f"{i:06d}.json" for i in range(-(-spool.size // options.shard_size))]
        planned.append(Planned(spool, names, rate, work / "new" / split, scanned))
    return planned


def write_shards(one: Planned, options: Options, processes: int, share: Share = ALL) -> None:
    """The shards of one set that belong to the share, with their tables; those that are there are left as they are."""
    one.home.mkdir(parents=True, exist_ok=True)
    one.scanned[0].parent.mkdir(exist_ok=True)
    shards = np.array_split(permutation(one.spool.size, options.seed, PACK), len(one.scanned))

    def write(number: int) -> None:
        path = one.home / f"shards-{number:06d}.tar"
        write_tar(path, number, entries_of(one.spool.take, shards[number], options.layout, options.block, one.rate))
        scanned = index_shard(path, one.home, Layout())
        flush(path)  # before the file that says that this shard is done
        write_json(one.scanned[number], scanned)

    missing = [i for i in share.of_jobs(len(one.scanned)) if not one.scanned[i].exists()]
    run_jobs(missing, write, processes, f"writing {one.home.name if one.home.name != 'new' else 'shards'}")


def _one_rate(given: float, parts: Sequence[Part]) -> float:
    rates = sorted({rate for part in parts for rate in part.rates})
    if len(rates) > 1:
        shown = ", ".join(f"{rate:g}" for rate in rates[:FIRST])
        raise DataError(f"the recordings have {len(rates)} sampling rates ({shown} Hz); bring them to one with --rate")
    return rates[0] if rates else given
