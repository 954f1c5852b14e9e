"""A signal at another sampling rate, piece by piece."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy.signal import firwin, kaiserord, upfirdn

from savae_dist.data.packing.readers.signal import Signal
from savae_dist.errors import ConfigError

STOPBAND_DB, TRANSITION = 80.0, 0.1  # attenuation, and width in parts of the lower Nyquist frequency
MAX_FACTOR = 10_000


class Resampled:
    """[channels, length] at `rate` Hz as [channels, ceil(length to / rate)] at `to` Hz; sample 0 stays at 0 s.

    A polyphase FIR (Crochiere and Rabiner, Multirate Digital Signal Processing, 1983, ch. 2) of zero phase, with a
    Kaiser window (Kaiser 1974) of 80 dB from the lower of the two Nyquist frequencies on and flat up to 0.9 of it.
    scipy's own default is 6 dB down there and lets aliases near it through, and `decimate`'s IIR bends the phase.
    Beyond its ends a recording is taken to go on along the line through its first and last sample; the filter's 50
    periods of the lower rate there are not exact. A piece does not depend on where the others begin.
    """

    def __init__(self, signal: Signal, rate: float, to: float) -> None:
        ratio = Fraction(str(to)) / Fraction(str(rate))
        self.signal, self.up, self.down = signal, ratio.numerator, ratio.denominator
        if max(self.up, self.down) > MAX_FACTOR and self.up != self.down:
            raise ConfigError(f"{rate:g} Hz to {to:g} Hz is {self.up}/{self.down}; choose a --rate in a smaller ratio")
        self.length = -(-signal.length * self.up // self.down)
        if self.up == self.down:
            return
        taps, beta = kaiserord(STOPBAND_DB, TRANSITION / max(self.up, self.down))
        low_pass = firwin(taps | 1, (1 - TRANSITION / 2) / max(self.up, self.down), window=("kaiser", beta))
        self._half = len(low_pass) // 2
        # Zeros in front, so that the first output of a piece falls on a multiple of `down`.
        self._filter = np.concatenate([np.zeros(-self._half % self.down), low_pass * self.up])
        ends = signal.read(0, 1), signal.read(signal.length - 1, signal.length)
        self._first, self._slope = ends[0], (ends[1] - ends[0]) / max(signal.length - 1, 1)

    def read(self, start: int, stop: int) -> np.ndarray:
        """float64 [channels, stop - start]."""
        if self.up == self.down:
            return self.signal.read(start, stop)
        up, down, half = self.up, self.down, self._half
        begin = (start * down - half) // up // down * down
        x = self._extended(begin, ((stop - 1) * down + half) // up + 1)
        y = upfirdn(self._filter, x, up, down, axis=-1)
        at = start + (half + -half % down) // down - begin // down * up
        return y[:, at : at + stop - start]

    def _extended(self, start: int, stop: int) -> np.ndarray:
        """Samples start .. stop - 1, with the line beyond the ends."""
        n = self.signal.length
        inside = self.signal.read(min(max(start, 0), n), min(max(stop, 0), n))
        before = self._first + self._slope * np.arange(start, min(stop, 0))
        after = self._first + self._slope * np.arange(max(start, n), stop)
        return np.concatenate([before, inside, after], axis=1)
