"""Packing over several machines: in whatever order they work, the bytes are those of one."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from helpers.sources import OPTIONS, made_up

from savae_dist.data.packing.packer import Share, pack_source
from savae_dist.data.packing.sources import Bad, Item, Sample, Source
from savae_dist.errors import ConfigError, DataError
from tools.make_shards import main


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What one machine makes."""
    out = tmp_path_factory.mktemp("whole") / "s"
    pack_source(made_up(), out, OPTIONS)
    return contents(out)


def share(number: int, of: int, out: Path, processes: int = 1) -> dict[str, object]:
    (told,) = pack_source(made_up(), out, OPTIONS, processes=processes, share=Share(number, of))
    assert not out.exists()  # it has no name before the last call
    return told


@pytest.mark.parametrize(
    "calls",
    [
        [(1, 3), (2, 3), (3, 3), (1, 3), (2, 3), (3, 3)],  # read by all, then written by all
        [(3, 3), (1, 3), (2, 3)],  # the last reader writes its shards, and the last call those of the others
        [(2, 3)],  # the last call does what the others would have done
        [(5, 20), (5, 20)],  # more machines than parts
        [(1, 1)],
        [],
    ],
)
def test_the_bytes_are_those_of_one_machine(
    tmp_path: Path, calls: list[tuple[int, int]], expected: dict[str, str]
) -> None:
    out = tmp_path / "s"
    for number, of in calls:
        share(number, of, out, 1 + number % 2)
    made = pack_source(made_up(), out, OPTIONS)
    assert contents(out) == expected
    assert sum(one["samples"] for one in made) == sum(20 + part for part in range(12))
    assert [path.name for path in tmp_path.iterdir()] == ["s"]  # nothing is left over


def test_each_call_says_how_far_all_are(tmp_path: Path) -> None:
    out = tmp_path / "s"
    told = share(1, 2, out)
    assert told["read"] == "6 of 12 parts of the source, by all machines"
    assert "written" not in told
    assert "again once all machines have read" in str(told["then"])
    told = share(2, 2, out)
    assert told["read"] == "12 of 12 parts of the source, by all machines"
    written, count = (int(word) for word in str(told["written"]).split(" shards")[0].split(" of "))
    assert 0 < written < count
    told = share(1, 2, out)
    assert told["written"] == f"{count} of {count} shards, by all machines"
    assert told["then"] == "the same command without --part, which makes the index"


def test_what_does_not_fit_the_work_of_the_others_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "s"
    share(1, 2, out)
    for source, options in ((made_up(), replace(OPTIONS, seed=3)), (made_up(identity="2"), OPTIONS)):
        with pytest.raises(ConfigError, match="is of another packing: give the same options everywhere"):
            pack_source(source, out, options, share=Share(2, 2))
    share(2, 2, out)
    pack_source(made_up(), out, OPTIONS)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        pack_source(made_up(), out, OPTIONS, share=Share(2, 2))
    for text in ("0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"):
        with pytest.raises(ConfigError, match=r"give I/N"):
            Share.parse(text)


def slowly(begun: threading.Event, go: threading.Event, part: int) -> Iterator[Item]:
    if part == 1:
        begun.set()
        assert go.wait(60)
    yield Sample(np.full(8, part, np.float32), part % 2, {})


def test_the_last_call_waits_for_those_that_are_at_work(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun, go = threading.Event(), threading.Event()
    source = Source(partial(slowly, begun, go), ("",) * 4, "1")
    pack_here = partial(pack_source, source, tmp_path / "s", OPTIONS)
    machine = threading.Thread(target=pack_here, kwargs={"share": Share(2, 2)})
    machine.start()
    assert begun.wait(60)
    with pytest.raises(ConfigError, match="--part 2/2 is at work already"):
        pack_here(share=Share(2, 2))
    pack_here(share=Share(1, 2))  # beside it
    last = threading.Thread(target=pack_here)
    last.start()
    last.join(0.5)
    assert last.is_alive()
    go.set()
    for thread in (machine, last):
        thread.join(60)
        assert not thread.is_alive()
    assert "waiting for --part 2, at work in" in capsys.readouterr().err
    assert len(contents(tmp_path / "s")) >= 3


def spoilt(part: int) -> Iterator[Item]:
    yield Sample(np.full(8, part, np.float32), part % 2, {})
    yield Bad("undecodable", f"file {part}")


def test_the_budget_is_that_of_all_machines(tmp_path: Path) -> None:
    source, options = Source(spoilt, ("",) * 6, "1"), replace(OPTIONS, bad_budget=4)
    pack_source(source, tmp_path / "s", options, share=Share(1, 2))
    with pytest.raises(DataError, match=r"undecodable: 5 .*more than --bad-budget 4; .*with --bad-budget N$"):
        pack_source(source, tmp_path / "s", options, share=Share(2, 2))
    pack_source(source, tmp_path / "s", replace(options, bad_budget=6))
    assert len((tmp_path / "s" / "dropped.csv").read_text().splitlines()) == 1 + 6


def test_the_tool_takes_a_part(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", x=np.arange(40 * 64, dtype=np.uint8).reshape(40, 8, 8), y=np.arange(40) % 2)
    command = ["arrays", str(tmp_path / "a.npz"), str(tmp_path / "s"), "--shard-size", "7", "--processes", "1"]
    one = [*command[:2], str(tmp_path / "one"), *command[3:]]
    for number in (2, 1, 2):
        assert main([*command, "--preview", "--part", f"{number}/2"]) == 0
        assert "then  the same command" in capsys.readouterr().out
    assert main(command) == 0
    assert main(one) == 0
    assert contents(tmp_path / "s") == contents(tmp_path / "one")
    assert main([*command, "--overwrite", "--part", "3/2"]) == 2
    assert "--part 3/2: give I/N, with I from 1 to N" in capsys.readouterr().err
