"""One number a sample, in a table that is read and never mapped: a mapped file that is cut short ends the program."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from savae_dist.data.formats.npy import open_table, table_extent
from savae_dist.errors import DataError
from savae_dist.untrusted import regular, version_of

IN_MEMORY = 64 << 20  # bytes of the largest column that is kept in memory
PAGE = 1 << 12  # rows that are read together of a larger one


class Column:
    """The rows of a table of numbers: in memory if it is small, else read where they are wanted.

    OSError or ValueError where it cannot be opened, DataError where it is written afterwards.
    """

    def __init__(self, path: Path, dtype: np.dtype) -> None:
        self.path, self.dtype = path, dtype
        regular(path)
        with path.open("rb") as file:
            self._rows, self._start = table_extent(file, dtype)
            self._known = version_of(os.fstat(file.fileno()))
        self._values = open_table(path, dtype) if self._rows * dtype.itemsize <= IN_MEMORY else None

    def __len__(self) -> int:
        return self._rows

    def rows(self, places: np.ndarray) -> np.ndarray:
        """[n], the values of the rows at `places`, int64 [n]."""
        if self._values is not None:
            return self._values[places]
        pages, where = np.unique(places // PAGE, return_inverse=True)
        values = np.empty((len(pages), PAGE), self.dtype)
        try:
            with self.path.open("rb") as file:
                if version_of(os.fstat(file.fileno())) != self._known:
                    raise DataError(f"{self.path} was written while it was in use; start again")
                for number, page in enumerate(pages.tolist()):
                    size = min(PAGE, self._rows - page * PAGE) * self.dtype.itemsize
                    target = memoryview(values[number]).cast("B")[:size]
                    if os.preadv(file.fileno(), [target], self._start + page * PAGE * self.dtype.itemsize) < size:
                        raise DataError(f"{self.path} was cut short while it was read; start again")
        except OSError as error:
            raise DataError(
                f"{self.path} cannot be read ({error}); bring it back, or index the shards again"
            ) from error
        return values[where, places % PAGE]
