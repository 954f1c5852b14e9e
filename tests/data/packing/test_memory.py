"""Recordings that are larger than the memory: packing takes no more of it for a long one than for a short one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
from helpers.launching import ROOT

from savae_dist.data import Shards

MEASURED = """
import sys
from savae_dist.run.planning.memory import resident
from tools.make_shards import main
code = main(sys.argv[1:])
print(resident() >> 20)
sys.exit(code)
"""
CHUNK = 1 << 16


def write_matlab(path: Path, length: int) -> None:
    """A vector [length, 1] as MATLAB 7.3 keeps it, and its rate."""
    path.parent.mkdir(parents=True)
    with h5py.File(path, "w", userblock_size=512) as file:
        values = file.create_dataset("signal", (1, length), np.float64, chunks=(1, CHUNK))
        piece = np.random.default_rng(0).standard_normal(CHUNK)
        for start in range(0, length, CHUNK):
            values[0, start : start + CHUNK] = piece[: length - start]
        file["fs"] = [[12000.0]]
        for name in file:
            file[name].attrs["MATLAB_class"] = np.bytes_("double")
    with path.open("r+b") as raw:
        raw.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def peak(source: Path, out: Path) -> int:
    """MiB that packing took."""
    words = ["recordings", str(source), str(out), "--length", "1024", "--processes", "1"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return int(done.stdout.split()[-1])


def test_a_long_recording_of_matlab_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    """128 MiB of values, 64 MiB once they are stored: either would show."""
    long = 1 << 24
    write_matlab(tmp_path / "short" / "a" / "1.mat", 1 << 20)
    write_matlab(tmp_path / "long" / "a" / "1.mat", long)
    little, much = (peak(tmp_path / name, tmp_path / f"{name}-out") for name in ("short", "long"))
    assert Shards.open(tmp_path / "long-out").size == long // 1024
    assert much - little < 32
