"""A reader of one's own: `--reader FILE.py:function`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from savae_dist.data.packing.readers.signal import Choice, Signal, Unreadable, Variable, part_of
from savae_dist.errors import ConfigError
from savae_dist.import_file import import_file


@dataclass(frozen=True)
class OwnReader:
    """Calls function(path) of a Python file, which returns (x, rate) or (x, rate, attributes).

    x: numbers [length], [channels, length] or [length, channels]; or a dictionary of such by name. rate: in Hz, 0 if
    unknown. attributes: what is kept with each window, numbers and texts by name. Whatever the function raises makes
    the file unusable, and is told.
    """

    file: str
    name: str

    @classmethod
    def parse(cls, text: str) -> OwnReader:
        """`FILE.py:function`; ConfigError where there is no such function."""
        file, _, name = text.rpartition(":")
        own = cls(str(Path(file).absolute()), name)
        own.function()
        return own

    def function(self) -> Callable[[Path], Any]:
        module = import_file(self.file, "--reader FILE.py:function")
        found = module.__dict__.get(self.name)
        if not callable(found):
            raise ConfigError(f"--reader: {self.file} has no function {self.name!r}; give FILE.py:function")
        return found

    def __call__(self, path: Path, choice: Choice) -> Signal:
        try:
            x, rate, *more = self.function()(path)
        except Exception as error:  # code of the user's may raise anything
            raise Unreadable(
                f"{self.name} failed", f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        named = x if isinstance(x, dict) else {"": x}
        parts = [part_of(Variable(name, np.asarray(values)), choice.time_axis) for name, values in named.items()]
        return Signal(parts, float(rate), attributes=dict(more[0]) if more else {})
