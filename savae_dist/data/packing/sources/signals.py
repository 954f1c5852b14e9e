"""One recording: its values from a `.wav`, `.npy`, `.npz`, `.csv` or `.mat` file, and its change of sampling rate."""

from __future__ import annotations

import csv
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path

import numpy as np
from scipy.io import loadmat, wavfile, whosmat
from scipy.io.matlab import MatReadError
from scipy.signal import firwin, kaiserord, resample_poly

from savae_dist.errors import BadSample, ConfigError

EXTENSIONS = (".wav", ".npy", ".npz", ".csv", ".mat")
RATES = ("rate", "fs")  # names under which an .npz or .mat may hold its sampling rate
STOPBAND_DB, TRANSITION = 80.0, 0.1  # attenuation, and width in parts of the lower Nyquist frequency
MAX_FACTOR = 10_000
BROKEN = (OSError, ValueError, TypeError, LookupError, EOFError, struct.error, zlib.error, zipfile.BadZipFile)


def read_signal(path: Path, variables: Sequence[str] = ()) -> tuple[np.ndarray, float]:
    """float64 [channels, length] and the sampling rate in Hz (0: the file does not say).

    variables: names or patterns of the arrays (or CSV columns), one after the other the channels; needed where a file
    holds several. The longer axis of an array is time. Integer samples of a .wav are scaled to [-1, 1), others stay.
    BadSample with the reason where there is no signal.
    """
    readers = {".wav": _wav, ".npy": _npy, ".npz": _npz, ".csv": _csv, ".mat": _mat}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", wavfile.WavFileWarning)  # chunks that it does not know
            x, rate = readers[path.suffix.lower()](path, variables)
    except FileNotFoundError as error:
        raise BadSample("missing") from error
    except (*BROKEN, MatReadError) as error:
        raise BadSample("undecodable") from error
    if x.dtype.kind not in "fiub":
        raise BadSample(f"values of type {x.dtype}")
    if x.ndim != 2 or not x.size:
        raise BadSample("neither [length] nor [channels, length]")
    if not np.isfinite(rate) or rate < 0:
        raise BadSample("sampling rate")
    return x.astype(np.float64), rate


def _channels(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """[channels, length] of arrays that are [length], [length, channels] or [channels, length]."""
    rows = []
    for x in map(np.atleast_1d, arrays):
        x = x.squeeze() if x.ndim > 1 and x.size > 1 else x
        rows.append(x[None] if x.ndim == 1 else x.T if x.ndim == 2 and x.shape[0] > x.shape[1] else x)
    if len({row.shape[-1] for row in rows}) != 1:
        raise BadSample("channels of different length")
    return np.concatenate(rows)


def _chosen(names: Iterable[str], variables: Sequence[str]) -> list[str]:
    """The names that match, in the order of the patterns; without patterns `x`, or the only one."""
    names = list(names)
    if variables:
        found = [name for pattern in variables for name in names if fnmatchcase(name, pattern)]
        if not found:
            raise BadSample(f"no variable {' '.join(variables)}")
        return found
    if "x" in names or len(names) == 1:
        return ["x"] if "x" in names else names
    raise BadSample("several variables, name one with --variable" if names else "no variable")


def _wav(path: Path, _: Sequence[str]) -> tuple[np.ndarray, float]:
    rate, x = wavfile.read(path)
    if x.dtype == np.uint8:
        x = (x.astype(np.float64) - 128) / 128
    elif x.dtype.kind == "i":
        x = x.astype(np.float64) / -float(np.iinfo(x.dtype).min)
    return (x[None] if x.ndim == 1 else x.T), float(rate)  # always [length, channels], however short


def _npy(path: Path, _: Sequence[str]) -> tuple[np.ndarray, float]:
    x = np.load(path, allow_pickle=False, mmap_mode="r")
    if not isinstance(x, np.ndarray):
        raise BadSample("undecodable")
    return _channels([x]), 0.0


def _npz(path: Path, variables: Sequence[str]) -> tuple[np.ndarray, float]:
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
        if not variables:
            variables = _chosen((name for name, x in arrays.items() if x.size > 1), ())
        rate = next((float(arrays[name].squeeze()) for name in RATES if name in arrays), 0.0)
        return _channels(arrays[name] for name in _chosen(arrays, variables)), rate


def _csv(path: Path, variables: Sequence[str]) -> tuple[np.ndarray, float]:
    """One row per sample, one column per channel, with or without a line of names; comma, semicolon, tab or blank."""
    with path.open(encoding="utf-8-sig") as file:
        first = file.readline().strip()
    delimiter = next((mark for mark in (",", ";", "\t") if mark in first), None)
    cells = next(csv.reader([first], delimiter=delimiter)) if delimiter else first.split()
    columns = None
    if _named := not all(_is_number(cell) for cell in cells):
        names = [cell.strip() for cell in cells]
        columns = [names.index(name) for name in _chosen(names, variables)] if variables else None
    elif variables:
        raise BadSample("no line of column names")
    x = np.loadtxt(path, delimiter=delimiter, skiprows=int(_named), usecols=columns, ndmin=2, encoding="utf-8-sig")
    return x.T, 0.0


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _mat(path: Path, variables: Sequence[str]) -> tuple[np.ndarray, float]:
    with path.open("rb") as file:
        if file.read(10) == b"MATLAB 7.3":
            raise BadSample("MATLAB 7.3 (HDF5), save it with -v7")
    held = whosmat(path)
    numeric = {"double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32"}
    names = [name for name, shape, kind in held if kind in numeric and int(np.prod(shape)) > 1]
    chosen = _chosen([name for name, _, _ in held] if variables else names, variables)
    loaded = loadmat(path, variable_names=[*chosen, *RATES])
    rate = next((float(np.squeeze(loaded[name])) for name in RATES if name in loaded), 0.0)
    return _channels(loaded[name] for name in chosen), rate


def resample(x: np.ndarray, rate: float, to: float) -> np.ndarray:
    """float64 [channels, length] at `rate` Hz to [channels, ceil(length to / rate)] at `to` Hz; sample 0 stays at 0 s.

    A polyphase FIR (scipy.signal.resample_poly; Crochiere and Rabiner, Multirate Digital Signal Processing, 1983,
    ch. 2) of zero phase, with a Kaiser window (Kaiser 1974) of 80 dB from the lower of the two Nyquist frequencies on
    and flat up to 0.9 of it. scipy's own default is 6 dB down there and lets aliases near it through, and `decimate`'s
    IIR bends the phase. Beyond its ends a recording is taken to go on along the line through its first and last
    sample; the filter's 50 periods of the lower rate there are not exact.
    """
    ratio = Fraction(str(to)) / Fraction(str(rate))
    up, down = ratio.numerator, ratio.denominator
    if up == down:
        return x
    if max(up, down) > MAX_FACTOR:
        raise ConfigError(f"{rate:g} Hz to {to:g} Hz is {up}/{down}; choose a --rate in a smaller ratio")
    taps, beta = kaiserord(STOPBAND_DB, TRANSITION / max(up, down))
    low_pass = firwin(taps | 1, (1 - TRANSITION / 2) / max(up, down), window=("kaiser", beta))
    return resample_poly(x, up, down, axis=-1, window=low_pass, padtype="line")
