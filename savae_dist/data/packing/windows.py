"""A recording to windows, read piece by piece: it may be larger than the memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from savae_dist.data.packing.readers.signal import Signal, Unreadable
from savae_dist.data.packing.resampling import Resampled

AT_ONCE = 1 << 20  # samples of a channel that are read at once


def windows_of(signal: Signal, recorded: float, rate: float, length: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """(start, float32 [length] or [channels, length]) of each window; Unreadable if there is none.

    start: in samples at `rate`. recorded: the signal's own rate in Hz; rate: that of the windows, 0: as recorded.
    """
    at_rate = Resampled(signal, recorded, rate) if rate else signal
    if at_rate.length < length:
        raise Unreadable("shorter than a window", f"{at_rate.length} samples of {length}")
    count = (at_rate.length - length) // hop + 1
    together = max(1, (AT_ONCE - length) // hop + 1)
    for first in range(0, count, together):
        here = range(first, min(first + together, count))
        begin = here[0] * hop
        x = at_rate.read(begin, here[-1] * hop + length).astype(np.float32)
        for start in (k * hop for k in here):
            window = x[:, start - begin : start - begin + length]
            yield start, window if len(window) > 1 else window[0]
