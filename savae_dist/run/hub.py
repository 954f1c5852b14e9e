"""`hub.push` and `resume=ORG/NAME`: a run's checkpoints and its pipeline, to the Hub and from there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from savae_dist.config.hub import RESUME, HubConfig
from savae_dist.distributed.ranks import Peers
from savae_dist.errors import CheckpointError, DeniedError, UserError, of_key
from savae_dist.files import draft_of, make_folder, publish
from savae_dist.networks.hub import folder_of
from savae_dist.pipeline.folder import FILES
from savae_dist.run.checkpoints import checkpoint
from savae_dist.run.reporting.side_outputs import SideOutputs

BRANCH = "checkpoint"  # beside the main branch, so that whoever loads the pipeline downloads no optimisers


class HubPush:
    """Pushes a run's results, in a process of its own: the Hub can neither stop training nor make it wait.

    write: true on one rank, which alone pushes. side: reports a failure, once.
    """

    def __init__(self, config: HubConfig, folder: Path, side: SideOutputs, write: bool = True) -> None:
        self.config, self.folder, self.side = config, folder, side
        self.active = write and config.push is not None
        self._process: subprocess.Popen[str] | None = None
        self._place = draft_of(folder / "hub")  # holds the files of the push under way
        self._pushed = ""  # the checkpoint that was pushed last
        self._answer = ""

    def checkpoint(self) -> None:
        """Begin to push the newest checkpoint, unless that was done or another push is still under way."""
        newest = next(iter(checkpoint.checkpoints(self.folder / "checkpoints")), None) if self.active else None
        if newest is not None and self._over() and newest.name != self._pushed:
            self._pushed = newest.name
            # Push hard links: they take no space, and stay when training removes the checkpoint.
            self._begin(lambda place: shutil.copytree(newest, place, copy_function=_linked), BRANCH)

    def finish(self, write_folders: Callable[[Path], object]) -> str:
        """Push what `write_folders` writes, and wait for that, `hub.timeout` seconds at most.

        The URL of the commit is returned, "" if there is none.
        """
        if not self.active:
            return ""
        until = time.monotonic() + self.config.timeout
        self._answer = ""
        if self._over(self.config.timeout):
            self._begin(write_folders)
            self._over(max(0.1, until - time.monotonic()))
        if self._process is not None:
            self._tell(f"it did not answer within hub.timeout={self.config.timeout:g} seconds")
        self.close()
        return self._answer

    def close(self) -> None:
        """End a push that is under way; the repository stays as it was before it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._clear()

    def _begin(self, write: Callable[[Path], object], revision: str = "") -> None:
        """Start to push what `write` writes; if it cannot be written, that is only reported."""
        with self.side.spared("what goes to the Hub"):
            shutil.rmtree(self._place, ignore_errors=True)
            write(self._place)
            options = [f"--revision={revision}"] * bool(revision) + ["--private"] * self.config.private
            command = [sys.executable, "-m", "savae_dist.networks.upload", str(self._place), str(self.config.push)]
            self._process = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
                start_new_session=True,  # Ctrl-C must reach the trainer alone, which then ends this process
            )

    def _over(self, seconds: float = 0.0) -> bool:
        """Whether no push is under way, after at most so many seconds of waiting; a failed one is reported."""
        if self._process is None:
            return True
        if not seconds and self._process.poll() is None:
            return False
        try:
            answer, said = self._process.communicate(timeout=seconds or None)
        except subprocess.TimeoutExpired:
            return False
        if self._process.returncode:
            self._tell(next(iter(reversed(said.strip().splitlines())), f"exit code {self._process.returncode}"))
        self._answer = answer.strip()
        self._clear()
        return True

    def _tell(self, why: str) -> None:
        self._pushed = ""
        again = f"tools/export_hub.py {self.folder} OUT --push-to {self.config.push}"
        self.side.tell("the Hub", f"hub.push: {why}; the run goes on and tries again; later: {again}")

    def _clear(self) -> None:
        self._process = None
        shutil.rmtree(self._place, ignore_errors=True)


def _linked(source: str, target: str) -> None:
    """Hard-link a file, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def fetch(resume: str, folder: Path, peers: Peers, write: bool) -> None:
    """With `resume=ORG/NAME`, get the checkpoint that was pushed there, unless the folder of the run has any.

    write: true on one rank, which fetches. CheckpointError or DeniedError on every rank if there is none to be had.
    """
    if resume in RESUME:
        return
    error: UserError | None = None
    if write and not checkpoint.checkpoints(folder / "checkpoints"):
        try:
            with of_key("resume", resume):
                _fetched(resume, folder / "checkpoints")
        except (CheckpointError, DeniedError) as met:
            error = met
        except OSError as reason:
            error = CheckpointError(f"resume={resume}: its checkpoint cannot be written to {folder} ({reason})")
    peers.raise_everywhere(error)


def _fetched(repository: str, folder: Path) -> None:
    """Put the checkpoint of the repository into `folder`, whole and verified, or not at all."""
    found = folder_of(repository, FILES, revision=BRANCH)
    if not (found / "state.json").is_file():
        raise CheckpointError(f"its branch {BRANCH} holds no checkpoint; resume=auto starts anew")
    kept = checkpoint.folder_of(folder, checkpoint.read_state(found).total)
    make_folder(folder)
    draft = draft_of(kept)
    try:
        shutil.copytree(found, draft / kept.name)
        if problem := checkpoint.problem(draft / kept.name):
            raise CheckpointError(f"{problem}; resume=auto starts anew")
        publish(draft / kept.name, kept)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
