"""`status.json`: what other programs read of a run."""

from __future__ import annotations

import threading
import time
from typing import Any

from savae_dist.distributed.folder_lock import FolderLock
from savae_dist.files import read_object, write_json
from savae_dist.run.reporting.side_outputs import SideOutputs

STATUS = "status.json"
HEARTBEAT_SECONDS = 10.0


class Status:
    """`status.json`: what other programs (SLURM scripts, dashboards) read of a run.

    The main process writes it. A process that ends alone, or has lost its peers, writes it too; the first to say how
    the launch ended is not overwritten. With several nodes, each also writes how it ended to `status-nodeN.json`.

    folder_lock: of the run's folder; None: nothing is written. The launch acquires it elsewhere; before that, nothing
        is written while another launch holds it.
    main: whether this is the main process.
    side: the run's side outputs, of which this file is one; it shows their `warnings`.
    """

    def __init__(self, folder_lock: FolderLock | None, main: bool) -> None:
        self.main, self.side = main, SideOutputs()
        self._folder_lock = folder_lock
        self.values: dict[str, Any] = {"outcome": "running", "exit_code": None, "message": "", "phase": "", "step": 0}
        self._training = False
        self._launch, self._node = "", ""
        self._started = time.time()
        self._written = 0.0
        self._writing = threading.Lock()  # `end` may be called by the thread that watches for signals

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run's folder."""
        return self.main and self._folder_lock is not None

    def join(self, launch: str, node: int, nodes: int) -> None:
        """launch: the token by which the ranks of a launch recognise what their peers wrote."""
        self._launch, self._node = launch, f"status-node{node}.json" if nodes > 1 else ""

    def begin(self, again: bool = False) -> None:
        """Say that the run has started; if it was done already, that stays until it trains or exports `again`."""
        if self.main and (again or not self._was_done()):
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
        """Say how the launch ended; if a peer has said so before, that stays and is returned.

        If this launch has not trained, the "done" of an earlier one stays. alone: write though this is not the main
        process, since perhaps no other can.
        """
        self.values.update(outcome=outcome, exit_code=exit_code, message=message)
        if self._node:
            self._write(self._node)
        if (self.main or alone) and (self._training or not self._was_done()):
            return self._write(STATUS)
        return None

    def _was_done(self) -> bool:
        return self._folder_lock is not None and read_object(self._folder_lock.folder / STATUS).get("outcome") == "done"

    def _write(self, name: str) -> dict[str, Any] | None:
        """Write, unless a peer has said how this launch ended: return that, because later errors follow from it."""
        if self._folder_lock is None:
            return None
        path = self._folder_lock.folder / name
        # A full disk must not hide the run's own error, nor end a run that could go on.
        with self.side.spared(name), self._writing, self._folder_lock.for_one_write() as allowed:
            there = read_object(path)
            if self._is_ours(there) and there.get("exit_code") is not None:
                return there
            if allowed:
                damaged = path.is_file() and not there
                warnings = self.side.warnings
                write_json(
                    path, {**self.values, "warnings": warnings, "launch": self._launch, "heartbeat": time.time()}
                )
                if damaged:
                    self.side.tell(f"damaged {name}", f"{path} is damaged and was replaced")
        return None

    def _is_ours(self, there: dict[str, Any]) -> bool:
        """Whether this launch wrote `there`: known by its token or, before `join` has given one, by the time."""
        if self._launch:
            return there.get("launch") == self._launch
        heartbeat = there.get("heartbeat")
        return isinstance(heartbeat, float) and heartbeat > self._started
