"""The attributes of an indexed set, by sample."""

from __future__ import annotations

import numpy as np

from savae_dist.data.index.attributes import ATTRIBUTES, row_dtype
from savae_dist.data.index.shards import Shards


class AttributeTable:
    """names: of the columns, those of the shards' `spec`: as the training set has them, for the validation set too."""

    def __init__(self, shards: Shards) -> None:
        own = list(shards.index.get("attributes", {}).get("names", ()))
        self.shards, self.names = shards, shards.spec.attributes
        self._stored = [own.index(name) for name in self.names if name in own]
        self._place = np.array([number for number, name in enumerate(self.names) if name in own], np.int64)
        self._columns = shards.open_columns(ATTRIBUTES, row_dtype(len(own))) if own else []

    def of(self, ids: np.ndarray) -> np.ndarray:
        """float32 [n, names], NaN where a value is missing. ids: int64 [n], as in `RawBatch.id`."""
        shards = np.searchsorted(self.shards.starts, ids, side="right") - 1
        values = np.full((len(ids), len(self.names)), np.nan, "<f4")
        for here, stored in self.shards.stored_rows(self._columns, shards, ids - self.shards.starts[shards]):
            values[np.ix_(here, self._place)] = stored["values"][:, self._stored]
        return values


def attributes_of(shards: Shards) -> AttributeTable | None:
    """None where `spec` has none."""
    return AttributeTable(shards) if shards.spec.attributes else None
