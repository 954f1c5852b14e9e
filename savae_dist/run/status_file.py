"""`status.json`: what other programs read of a run."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

from savae_dist.distributed.folder_lock import FolderLock
from savae_dist.files import write_json

STATUS = "status.json"
HEARTBEAT_SECONDS = 10.0


class Status:
    """`status.json`: what other programs (SLURM scripts, dashboards) read of a run.

    The main process writes it; one that ends alone, or has lost its peers, writes it too, and the first word on how a
    launch ended stands. Where there are several nodes each leaves its own end in `status-nodeN.json` as well.

    folder_lock: of the run's folder; None writes nothing. Whoever runs the launch acquires it; where that has not
        happened, nothing is written while another launch has it.
    main: whether this is the main process.
    """

    def __init__(self, folder_lock: FolderLock | None, main: bool) -> None:
        self.main = main
        self._folder_lock = folder_lock
        self.values: dict[str, Any] = {"outcome": "running", "exit_code": None, "message": "", "phase": "", "step": 0}
        self._training = False
        self._launch, self._node = "", ""
        self._started = time.time()
        self._written = 0.0
        self._writing = threading.Lock()  # the last word may come from a thread

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run's folder."""
        return self.main and self._folder_lock is not None

    def join(self, launch: str, node: int, nodes: int) -> None:
        """launch: the token by which the ranks of a launch know each other's words."""
        self._launch, self._node = launch, f"status-node{node}.json" if nodes > 1 else ""

    def begin(self) -> None:
        """It runs; what is said of a run that was done before stands until it trains."""
        if self.main and not self._was_done():
            self._write(STATUS)

    def beat(self, phase: str, step: int) -> None:
        """Note where the run is, at most every ten seconds."""
        self.values.update(phase=phase, step=step)
        self._training = True
        if time.monotonic() - self._written > HEARTBEAT_SECONDS:
            self._written = time.monotonic()
            if self.main:
                self._write(STATUS)

    def where(self) -> str:
        return f"{self.values['phase']} step {self.values['step']}" if self._training else "the start"

    def end(self, outcome: str, exit_code: int, message: str = "", alone: bool = False) -> dict[str, Any] | None:
        """How it ended; returns what a peer has said before, which stands.

        A start that was refused leaves the word of a run that was done before. `alone`: written by this process though
        it is not the main one, since perhaps no other can.
        """
        self.values.update(outcome=outcome, exit_code=exit_code, message=message)
        if self._node:
            self._write(self._node)
        if (self.main or alone) and (self._training or not self._was_done()):
            return self._write(STATUS)
        return None

    def _was_done(self) -> bool:
        return self._folder_lock is not None and read(self._folder_lock.folder / STATUS).get("outcome") == "done"

    def _write(self, name: str) -> dict[str, Any] | None:
        """Unless a peer said how this launch ended, which is returned: what happens here after that follows from it."""
        if self._folder_lock is None:
            return None
        path = self._folder_lock.folder / name
        try:
            with self._writing, self._folder_lock.for_one_write() as allowed:
                there = read(path)
                if self._is_ours(there) and there.get("exit_code") is not None:
                    return there
                if allowed:
                    write_json(path, {**self.values, "launch": self._launch, "heartbeat": time.time()})
        except OSError as error:  # a full disk must not hide what happened
            print(f"savae_dist: {path} cannot be written ({error})", file=sys.stderr)
        return None

    def _is_ours(self, there: dict[str, Any]) -> bool:
        """Whether what is there was written by this launch, which before `join` only the time can tell."""
        if self._launch:
            return there.get("launch") == self._launch
        return there.get("heartbeat", 0) > self._started


def read(path: Path) -> dict[str, Any]:
    """What a status file says; nothing where there is none."""
    values: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return values
