"""`status.json`: what other programs read of a run."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, Self

from savae_dist.distributed.folder_lock import Claim
from savae_dist.distributed.ranks import Peers
from savae_dist.files import write_json

HEARTBEAT_SECONDS = 10.0


class Status:
    """`status.json`: what other programs (SLURM scripts, dashboards) read of a run.

    The main process writes it; one that ends alone, or has lost its peers, writes it too, and the first word on how a
    launch ended stands. Where there are several nodes each leaves its own end in `status-nodeN.json` as well.
    A launch without a claim on the folder writes nothing while another has it. folder: None writes nothing.
    """

    def __init__(self, folder: Path | None, main: bool) -> None:
        self.folder, self.main = folder, main
        self._claim = Claim(folder) if folder is not None else None
        self.values: dict[str, Any] = {"outcome": "running", "exit_code": None, "message": "", "phase": "", "step": 0}
        self._training = False
        self._launch, self._node = "", ""
        self._started = time.time()
        self._written = 0.0
        self._lock = threading.Lock()  # the last word may come from a thread

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes the run's folder."""
        return self.main and self.folder is not None

    def join(self, launch: str, node: int, nodes: int) -> None:
        """launch: the token by which the ranks of a launch know each other's words."""
        self._launch, self._node = launch, f"status-node{node}.json" if nodes > 1 else ""

    def claim(self, peers: Peers) -> None:
        """From now on, to the end of the `with`, the folder is this launch's; OccupiedError if it is another's."""
        if self._claim is not None:
            self._claim.take(peers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._claim is not None:
            self._claim.release()

    def begin(self) -> None:
        """It runs; what is said of a run that was done before stands until it trains."""
        if self.main and self._there("status.json").get("outcome") != "done":
            self._write("status.json")

    def beat(self, phase: str, step: int) -> None:
        """Note where the run is, at most every ten seconds."""
        self.values.update(phase=phase, step=step)
        self._training = True
        if time.monotonic() - self._written > HEARTBEAT_SECONDS:
            self._written = time.monotonic()
            if self.main:
                self._write("status.json")

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
        if (self.main or alone) and (self._training or self._there("status.json").get("outcome") != "done"):
            return self._write("status.json")
        return None

    def _there(self, name: str) -> dict[str, Any]:
        path = self.folder / name if self.folder is not None else None
        values: dict[str, Any] = json.loads(path.read_text()) if path is not None and path.is_file() else {}
        return values

    def _write(self, name: str) -> dict[str, Any] | None:
        """Unless a peer said how this launch ended: what happens here after that is its consequence."""
        if self.folder is None or self._claim is None:
            return None
        try:
            with self._lock, self._claim.briefly() as allowed:
                there = self._there(name)
                ours = (
                    there.get("launch") == self._launch if self._launch else there.get("heartbeat", 0) > self._started
                )
                if ours and there.get("exit_code") is not None:
                    return there
                if allowed:
                    write_json(self.folder / name, {**self.values, "launch": self._launch, "heartbeat": time.time()})
        except OSError as error:  # a full disk must not hide what happened
            print(f"savae_dist: {self.folder / name} cannot be written ({error})", file=sys.stderr)
        return None
