"""stdout and stderr that are gone or full: the program goes on, and ends with its own code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from savae_dist.streams import Spared, spared_streams

STREAMS = Path(__file__).parents[1] / "savae_dist" / "streams.py"
PROGRAM = f"""
import os, sys
sys.path.insert(0, {str(STREAMS.parent)!r})
from streams import spared_streams
with spared_streams():
    for number in range(3000):
        print("a line of a bar", number)
        print("a line of a log", number, file=sys.stderr)
    opened = os.open({str(STREAMS)!r}, os.O_RDONLY)
sys.exit(5 if opened > 2 else 1)
"""
WAYS = {
    "closed": ">&- 2>&-",
    "no reader": "2>&1 | true",
    "head": "2>&1 | head -1",
    "full disk": ">/dev/full 2>/dev/full",
    "as usual": ">/dev/null 2>/dev/null",
}


@pytest.mark.parametrize("way", WAYS)
def test_the_exit_code_stays(way: str) -> None:
    words = f'"$0" -c "$1" {WAYS[way]}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", words, sys.executable, PROGRAM], capture_output=True, text=True, timeout=60)
    assert done.returncode == 5, done.stderr


def test_what_cannot_be_written_is_noted_and_tried_again(tmp_path: Path) -> None:
    read, written = os.pipe()
    stream = Spared(os.fdopen(written, "w", buffering=1), "stderr")
    assert stream.write("heard\n") == 6
    assert stream.problem == ""
    assert os.read(read, 100) == b"heard\n"
    os.close(read)
    assert stream.write("lost\n") == 5
    stream.flush()
    assert stream.problem == "stderr cannot be written ([Errno 32] Broken pipe); its lines are lost"
    assert not stream.isatty()
    assert not Spared(None, "stderr").isatty()


def test_only_failures_of_the_system_are_spared(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        stream = Spared(file, "stdout")
        with pytest.raises(UnicodeEncodeError):
            stream.write("é")
        assert stream.encoding == "ascii"


def test_the_streams_are_put_back() -> None:
    before = sys.stdout, sys.stderr
    with spared_streams():
        assert isinstance(sys.stderr, Spared)
    assert (sys.stdout, sys.stderr) == before
