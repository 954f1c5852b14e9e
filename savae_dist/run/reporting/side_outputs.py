"""What a run tells besides its checkpoints and its pipeline, none of which may end it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from savae_dist.streams import Spared


def on_stderr(text: str) -> None:
    print(text, file=sys.stderr)


class SideOutputs:
    """Curves, figures, the status file, the deletion of old checkpoints: what of these fails is told and left out.

    Each kind is told once, on stderr and in the list `warnings`, which status.json shows; the run tries it again the
    next time. Only errors of the system (a full disk, a folder that is gone) are spared: all others are bugs.
    """

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    @contextmanager
    def spared(self, what: str, done: str = "written") -> Iterator[None]:
        """Go on after an OSError inside. what, done: the words for what was tried, `figures` and `written`."""
        try:
            yield
        except OSError as error:
            self.tell(what, f"{what} cannot be {done} ({error}); the run goes on, and tries again")

    def tell(self, what: str, text: str, say: Callable[[str], None] = on_stderr) -> None:
        """Say a warning and note it; of each `what` only the first."""
        if what not in self._told:
            self._told[what] = text
            say(f"savae_dist: {text}")

    @property
    def warnings(self) -> list[str]:
        """What was told, and of stdout and stderr what they cannot tell themselves."""
        streams = [stream.problem for stream in (sys.stdout, sys.stderr) if isinstance(stream, Spared)]
        return [*self._told.values(), *filter(None, streams)]
