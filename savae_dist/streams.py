"""stdout and stderr as streams that cannot end the program: what they cannot take is left out."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class Spared(io.TextIOBase):
    """A standard stream whose failures are kept and not raised.

    It may be closed, a pipe that nobody reads any more (`| head`), or a file on a full disk. Each write tries again.

    stream: None where the program was started without it. problem: why it could not be written, at first.
    """

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._stream, self._name = stream, name
        self.problem = "" if stream is not None else f"{name} is closed"

    def write(self, text: str) -> int:
        if self._stream is not None and not self._stream.closed:
            try:
                return self._stream.write(text)
            except OSError as error:
                self._fails(error)
        return len(text)

    def flush(self) -> None:
        if self._stream is not None and not self._stream.closed:
            try:
                self._stream.flush()
            except OSError as error:
                self._fails(error)

    def _fails(self, error: OSError) -> None:
        self.problem = self.problem or f"{self._name} cannot be written ({error}); its lines are lost"

    # The methods that programs call on a stream.

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._stream is not None and not self._stream.closed and self._stream.isatty()

    def fileno(self) -> int:
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding if self._stream is not None else "utf-8"


@contextmanager
def spared_streams() -> Iterator[None]:
    """Inside, stdout and stderr are `Spared`; after it, they can be flushed, so that the exit code stays."""
    _open_standard_descriptors()
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = Spared(sys.stdout, "stdout"), Spared(sys.stderr, "stderr")
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for stream in before:
            if stream is not None and not stream.closed:
                _settle(stream)


def _open_standard_descriptors() -> None:
    """Open those that are closed, else the next file that is opened takes the number, and C code prints into it."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _settle(stream: TextIO) -> None:
    """Drop what the stream cannot take: Python flushes it once more when it ends, and a failure would be code 120."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
