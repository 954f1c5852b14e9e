"""Recordings as people have them, as the windows of a pipeline: by the functions that the packer used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import numpy as np

from savae_dist.data.packing.readers import READERS, Reader, kind_of, read_recording
from savae_dist.data.packing.readers.signal import Choice, Signal, Variable, part_of
from savae_dist.data.packing.windows import windows_of
from savae_dist.errors import BadSample, ConfigError
from savae_dist.origin import Recordings
from savae_dist.pipeline.inputs.sources import content_of, is_url
from savae_dist.preprocess import DataSpec

Recording = str | Path | np.ndarray


@dataclass(frozen=True)
class Reading:
    """What a file does not say, or is to be read otherwise than the training set was.

    rate: in Hz, of recordings that do not say theirs. hop: samples from window to window at the networks' rate, 0: that
    of the training set. variables: the names of a file's channels. reader: a function of the user's own.
    """

    rate: float = 0.0
    hop: int = 0
    variables: tuple[str, ...] = ()
    reader: Reader | None = None


def windows(recording: Recording, spec: DataSpec, reading: Reading | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """(start, window float32 [length] or [channels, length]) of all windows of a file, a URL or an array.

    An array is [length] or [channels, length], at the networks' rate where `reading` gives none. start: in samples at
    the networks' rate. A file is read piece by piece. ValueError in one line where it cannot be used.
    """
    reading = reading or Reading()
    origin = spec.origin if isinstance(spec.origin, Recordings) else None
    length = spec.shape[1]
    hop = reading.hop or (origin.hop if origin else length)
    name = str(recording) if isinstance(recording, str | Path) else "the recording"
    try:
        with _opened(recording, spec, origin, reading) as signal:
            if len(signal.channels) != spec.shape[0]:
                found = f"{len(signal.channels)} channels ({', '.join(signal.channels)})"
                raise ValueError(f"{name} has {found}, and the networks take {spec.shape[0]}: name them, variables=...")
            recorded = signal.rate or reading.rate or (origin.source_rate if origin else 0)
            if isinstance(recording, np.ndarray):
                recorded = recorded or spec.rate
            if spec.rate and not recorded:
                raise ValueError(
                    f"{name} does not say its sampling rate, and the networks take {spec.rate:g} Hz: rate="
                )
            for start, window in windows_of(signal, recorded, spec.rate, length, hop):
                if not np.isfinite(window).all():
                    raise ValueError(f"{name} holds NaN or infinite values after sample {start}")
                yield start, window
    except (BadSample, ConfigError) as error:
        found = f": {error.found}" if isinstance(error, BadSample) and error.found else ""
        raise ValueError(f"{name} cannot be used: {error}{found}") from error


@contextmanager
def _opened(recording: Recording, spec: DataSpec, origin: Recordings | None, reading: Reading) -> Iterator[Signal]:
    if isinstance(recording, np.ndarray):
        time = "last" if recording.ndim == 2 and recording.shape[0] == spec.shape[0] else "longer"
        yield Signal([part_of(Variable("", recording), time)], reading.rate)
        return
    if is_url(recording):
        with TemporaryDirectory() as folder:
            # Its own name: by a number in it a file chooses among its variables.
            path = Path(folder) / PurePosixPath(urlsplit(str(recording)).path).name
            path.write_bytes(content_of(recording))
            with _opened(path, spec, origin, reading) as signal:
                yield signal
        return
    path = Path(recording)
    kind = kind_of(path.name) or (origin.read_as if origin else "")
    if origin is not None and origin.own_reader and reading.reader is None:
        raise ConfigError(
            "the set was packed by a reader of one's own, which a pipeline does not hold: give it, or arrays"
        )
    if origin is not None and origin.id:
        raise ConfigError(f"the set's recordings were told apart by their column {origin.id}: give arrays")
    if not kind and reading.reader is None:
        raise ConfigError(f"it is none of {' '.join(READERS)}")
    with read_recording(path, _choice(origin, reading), kind, reading.reader) as signal:
        yield signal


def _choice(origin: Recordings | None, reading: Reading) -> Choice:
    if origin is None:
        return Choice(reading.variables)
    return Choice(reading.variables or origin.variables, origin.time_axis, origin.irregular_times)
