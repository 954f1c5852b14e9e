"""`--profile N`: what is recorded, and that training is the same to the bit."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.launching import SMALL, equal, shards, side_by_side, weights

from savae_dist.run.profiling import SHOWN, WARM_UP, check_whole
from savae_dist.train import main

STEPS = ["system.vec_steps=8", "system.decoder_steps=5", "networks.norm=group"]
RECORDED = 3


def ranges(path: Path) -> dict[str, int]:
    """The names of a trace's events, and how often each stands there."""
    names = [event.get("name", "") for event in json.loads(path.read_text())["traceEvents"]]
    return {name: names.count(name) for name in set(names)}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    run = tmp_path_factory.mktemp("plain") / "run"
    assert main([*SMALL, *STEPS, f"data.train={data}", f"output={run}"]) == 0
    return run


def test_it_records_and_changes_nothing(
    plain: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    words = [*SMALL, *STEPS, f"data.train={data}", f"output={run}"]
    assert main([*words, f"--profile={RECORDED}"]) == 0
    assert equal(weights(run), weights(plain))
    assert not (plain / "profile").exists()
    assert sorted(path.name for path in (run / "profile").iterdir()) == ["decoder-rank0.json", "vec-rank0.json"]
    vec, decoder = ranges(run / "profile" / "vec-rank0.json"), ranges(run / "profile" / "decoder-rank0.json")
    assert vec["update: vec"] == RECORDED
    assert (decoder["update: critic"], decoder["update: decoder"]) == (2 * 2, 2)  # five steps: two after the warm-up
    assert vec["aten::convolution"] > 0 < decoder["aten::convolution"]
    assert "update: critic" not in vec
    said = capsys.readouterr().err.splitlines()
    first = said.index(f"profile of vec: {RECORDED} iterations, all of it in {run / 'profile' / 'vec-rank0.json'}")
    assert said[first + 1].split() == ["operator", "calls", "ms", "share", "of", "the", "CPU's", "time"]
    rows = [line.split() for line in said[first + 2 : first + 2 + SHOWN]]
    times = [float(row[-2]) for row in rows]  # from the right: names may hold spaces
    assert times == sorted(times, reverse=True)
    assert times[0] > 0
    assert any(row[0].startswith("aten::") for row in rows)
    assert any(line.startswith("profile of decoder: 2 iterations") for line in said)


def test_a_phase_that_ends_before(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    words = [*SMALL, f"max_steps={WARM_UP}", f"data.train={data}", f"output={run}"]
    assert main([*words, "--profile", "2"]) == 0
    assert (
        capsys.readouterr().err.count(f"none, since it had {WARM_UP} iterations and the first {WARM_UP} are not") == 2
    )
    assert not (run / "profile").exists()


@pytest.mark.parametrize("words", [["--profile=0"], ["--profile=2", "--check"], ["--profile=2", "--plan"]])
def test_it_is_for_runs_that_train(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "is a number of iterations, of a run that trains" in capsys.readouterr().err


@pytest.mark.distributed
def test_each_rank_has_a_trace(tmp_path: Path) -> None:
    run, data = tmp_path / "run", shards(tmp_path / "shards", n=60)
    words = [*SMALL, "networks.norm=group", "max_steps=6", f"data.train={data}", f"output={run}", "--profile=2"]
    one = [sys.executable, "-m", "savae_dist.train", *words]
    done = side_by_side(one, one, timeout=400)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr
    for phase in ("vec", "decoder"):
        for rank in range(2):
            assert "gloo:all_reduce" in ranges(run / "profile" / f"{phase}-rank{rank}.json")
    assert done[0].stderr.count("profile of ") == 2
    assert "profile of " not in done[1].stderr


def test_a_trace_that_was_cut_is_told(tmp_path: Path) -> None:
    """torch raises nothing where a disk is full."""
    trace = tmp_path / "trace.json"
    for text in ("", '{"traceEvents": [{"name": "a"}, {"na'):
        trace.write_text(text)
        with pytest.raises(OSError, match="cut"):
            check_whole(trace)
    trace.write_text('{"traceEvents": []}\n')
    check_whole(trace)
