"""The attributes of an indexed set, by sample."""

from __future__ import annotations

import numpy as np

from savae_dist.data.index.attributes import ATTRIBUTES, row_dtype
from savae_dist.data.index.shards import Shards
from savae_dist.data.index.tables import INDEX, checked_column


class AttributeTable:
    """names: of the columns, those of the shards' `spec`: as the training set has them, for the validation set too."""

    def __init__(self, shards: Shards) -> None:
        index, own = shards.index["shards"], list(shards.index.get("attributes", {}).get("names", ()))
        self.names = shards.spec.attributes
        self._stored = [own.index(name) for name in self.names if name in own]
        self._place = [number for number, name in enumerate(self.names) if name in own]
        self._starts, self._first = shards.starts, np.array([shard["first"] for shard in index], np.int64)
        folders, self._folder_of = np.unique([shard.get("folder", "") for shard in index], return_inverse=True)
        self._columns = []
        for number, folder in enumerate(folders if own else ()):
            home, last = shards.home / folder, int((self._first + shards.counts)[self._folder_of == number].max())
            dtype = row_dtype(len(own))
            self._columns.append(checked_column(home / ATTRIBUTES, home / INDEX, last, dtype))

    def of(self, ids: np.ndarray) -> np.ndarray:
        """float32 [n, names], NaN where a value is missing. ids: int64 [n], as in `RawBatch.id`."""
        shards = np.searchsorted(self._starts, ids, side="right") - 1
        places = self._first[shards] + ids - self._starts[shards]
        values = np.full((len(ids), len(self.names)), np.nan, "<f4")
        for number, column in enumerate(self._columns):
            here = self._folder_of[shards] == number
            values[np.ix_(here, self._place)] = column.rows(places[here])["values"][:, self._stored]
        return values


def attributes_of(shards: Shards) -> AttributeTable | None:
    """None where `spec` has none."""
    return AttributeTable(shards) if shards.spec.attributes else None
