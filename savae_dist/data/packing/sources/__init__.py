"""What shards are made from. `images`, `tables` and `recordings` are imported where used: they load what they read."""

from savae_dist.data.packing.sources.arrays import arrays, idx, read_arrays, read_digits
from savae_dist.data.packing.sources.base import Bad, Item, Note, Sample, Source

__all__ = ["Bad", "Item", "Note", "Sample", "Source", "arrays", "idx", "read_arrays", "read_digits"]
