"""Two ranks, of which one gets a signal: both stop at the same step, whatever the other waits for or is at."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from helpers.launching import SMALL, equal, side_by_side, status, steps_saved, weights

pytestmark = pytest.mark.faults

# Runs the trainer twice for each case, in one launch, and prints how long the first took to stop and both exit codes.
PROGRAM = """
import json, os, signal, sys, time
from matplotlib.figure import Figure
from savae_dist import train
from savae_dist.distributed import signals
from savae_dist.evaluation import metrics
from savae_dist.run.checkpoints import checkpoint
from savae_dist.training import engine

rank, asked = int(os.environ["RANK"]), []
signals.LAUNCHER_SECONDS = 7.0  # so that the ranks have two to agree

def leave(code):
    raise SystemExit(code)

def main(arguments):
    try:
        return train.main(arguments)
    except SystemExit as error:
        return error.code

def signalled(seconds=0.0):
    asked.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(seconds)

def case(home, name, call, event):
    function, calls = getattr(home, name), []
    def called(*arguments, **options):
        calls.append(None)
        if len(calls) == call:
            event()
        return function(*arguments, **options)
    setattr(home, name, called)
    return lambda: setattr(home, name, function)

def stalls():
    asked.append(time.monotonic())
    time.sleep(60)

signals.leave = leave
Figure.draw = lambda figure, renderer: None  # blank: they take most of a short run's time
CASES = {
    "data": (engine, "_read", 3, [stalls, signalled]),
    "validation": (metrics, "measure", 1, [signalled, lambda: None]),
    "save": (checkpoint, "write", 1, [lambda: signalled(4), lambda: None]),
}
for name, (home, function, call, events) in CASES.items():
    arguments = [*sys.argv[2:], f"output={sys.argv[1]}/{name}"]
    undo, began = case(home, function, call, events[rank]), len(asked)
    codes = [main(arguments)]
    passed = time.monotonic() - asked[began] if len(asked) > began else 0
    undo()
    codes.append(main(arguments))
    print(json.dumps([name, passed, codes]), flush=True)
print(json.dumps(["whole", 0.0, [75, main([*sys.argv[2:], f"output={sys.argv[1]}/whole"])]]), flush=True)
"""


def test_a_signal_to_one_rank_loses_no_step(data: Path, tmp_path: Path) -> None:
    steps = ["system.vec_steps=4", "system.decoder_steps=1", "networks.norm=group", "checkpoint_every=3"]
    words = [*SMALL[:-1], *steps, "validate_every=2", f"data.train={data}", f"data.validation={data}"]
    one = [sys.executable, "-c", PROGRAM, str(tmp_path), *words]
    done = side_by_side(one, one, timeout=240)
    assert [d.returncode for d in done] == [0, 0], done[0].stderr + done[1].stderr
    for result in done:
        for name, passed, codes in map(json.loads, result.stdout.splitlines()):
            assert codes == [75, 0], name
            assert passed < 6 + 4 * (name == "save"), name
            assert equal(weights(tmp_path / name), weights(tmp_path / "whole")), name
    stops = [line for line in done[0].stderr.splitlines() if "stopped by" in line]
    places = [line.partition(" at ")[2].partition(";")[0] for line in stops]
    assert places == ["vec step 2", "vec step 2", "vec step 3"], stops
    assert not any("could not agree" in result.stderr for result in done)
    assert status(tmp_path / "whole")["outcome"] == "done"
    assert 2 in steps_saved(tmp_path / "data") or 5 in steps_saved(tmp_path / "data")
