"""Atomic, verified, resumable state.

A checkpoint is a folder `step-00001200` with `networks/NAME/` and `ema/NAME/` (each a `from_pretrained` folder; none
for networks that stay as they were loaded), `updates/NAME.safetensors` + `.json`, `pipeline.json` (by which
`Pipeline.from_pretrained` loads the networks), `state.json` and `manifest.json` (size and sha256 of every file). It is
written under another name, flushed to the disk and renamed once, so a folder of that name was whole at first; the
manifest shows whether it was damaged later. There is no pointer to the latest: the newest that verifies is taken. One
that is saved again is found as `.step-00001200.HEX.old` while the new one takes its name.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, load_model

from savae_dist.errors import CheckpointError, SaveError, printable
from savae_dist.files import OLD, discard, draft_of, make_folder, publish, remove_replaced
from savae_dist.networks import FeatureNetwork, Network
from savae_dist.networks.stored import fit, tensor_forms
from savae_dist.run.checkpoints.contents import Contents, Savable, sha256
from savae_dist.run.checkpoints.schema import MANIFEST, OPTIONAL_VALUES, RESTORE, STATE, VALUES
from savae_dist.run.reporting.side_outputs import SideOutputs
from savae_dist.run.training_state import FORMAT_VERSION, TrainingState
from savae_dist.untrusted import SIZE, Misfit, check, content, parse, read_object, reason, record, shown, whole

PREFIX = "step-"
NAME = re.compile(rf"{PREFIX}([0-9]{{8,18}})|\.{PREFIX}([0-9]{{8,18}})\.[0-9a-f]+\{OLD}")


Signature = list[tuple[str, int, int, int]] | None  # name, size, time and inode of every file; None: not known


class Verified:
    """Remembers which checkpoints were found whole, and reads them again only if their files have changed since."""

    def __init__(self) -> None:
        self._seen: dict[str, Signature] = {}

    def note(self, checkpoint: Path) -> None:
        """Remember this checkpoint as whole."""
        self._seen[checkpoint.name] = _signature(checkpoint)

    def problem(self, checkpoint: Path) -> str | None:
        """The same as the function `problem`, with less to read."""
        signature = _signature(checkpoint)
        if signature is not None and signature == self._seen.get(checkpoint.name):
            return None
        found = problem(checkpoint)
        if found is None:
            self._seen[checkpoint.name] = signature
        return found


def _signature(checkpoint: Path) -> Signature:
    try:
        files = [(str(path.relative_to(checkpoint)), path.lstat()) for path in sorted(checkpoint.rglob("*"))]
    except OSError:
        return None
    return [(name, file.st_size, file.st_mtime_ns, file.st_ino) for name, file in files]


def save(
    folder: Path,
    networks: Mapping[str, Network],
    updates: Mapping[str, Savable],
    state: TrainingState,
    keep: int,
    side: SideOutputs | None = None,
    pipeline: str = "",
) -> Path:
    """`write` the current state of training, which waits meanwhile."""
    return write(folder, Contents.of(networks, updates, state, pipeline), keep, side)


def write(
    folder: Path,
    contents: Contents,
    keep: int,
    side: SideOutputs | None = None,
    verified: Verified | None = None,
) -> Path:
    """Write `folder/step-N`, then remove all but the newest `keep`, the best and the ends of phases; SaveError.

    Only one call at a time. side: reports an old one that could not be removed; the next call tries again. verified:
    remembers which were found whole.
    """
    target = folder_of(folder, contents.state.total)
    draft, side, verified = draft_of(target), side or SideOutputs(), verified or Verified()
    try:
        # A run's folder that was removed is not made again: its configuration and logs would be missing.
        if not folder.parent.is_dir():
            raise FileNotFoundError(f"{folder.parent} is gone")
        if not folder.is_dir():
            make_folder(folder)
        with side.spared("an old checkpoint", "removed"):  # before writing, which may need the space
            sweep(folder)
        contents.write(draft)
        # The target may exist already: as a damaged checkpoint, or as the same state saved before.
        publish(draft, target)
    except (OSError, SafetensorError) as error:  # safetensors raises its own error on a full disk
        shutil.rmtree(draft, ignore_errors=True)
        raise not_saved(target, "the checkpoint", folder.parent, error) from error
    verified.note(target)  # its manifest was just made from its files
    with side.spared("an old checkpoint", "removed"):
        remove_replaced(target)
        _remove_old(folder, keep, contents.state.best.get("total", -1), verified)
    return target


def not_saved(path: Path, what: str, folder: Path, error: Exception) -> SaveError:
    """The error to raise where something could not be written into a run's folder, with what to do next."""
    advice = "free space or choose another `output`, then run the same command again"
    if not folder.is_dir():
        advice = f"{folder} was removed while the run was at work in it: start anew, there or in another `output`"
    return SaveError(f"{path}: {what} could not be written ({error}); {advice}")


def sweep(folder: Path) -> None:
    """Remove the drafts of killed processes, but no older checkpoint that was set aside and not yet replaced."""
    for draft in set(folder.glob(f".{PREFIX}*")) - set(checkpoints(folder)):
        shutil.rmtree(draft)


def folder_of(checkpoints: Path, total: int) -> Path:
    """The folder of the checkpoint after so many iterations."""
    return checkpoints / f"{PREFIX}{total:08d}"


def _remove_old(folder: Path, keep: int, best: int, verified: Verified) -> None:
    """Remove all but the newest `keep`, the newest good one, that of the step `best`, and the ends of phases.

    Damaged checkpoints are not counted and never deleted: they may be the only copy.
    """
    states = {path: read_state(path) for path in checkpoints(folder) if verified.problem(path) is None}
    good = next((path for path, state in states.items() if state.good), None)
    passing = [path for path, state in states.items() if not state.phase_end]
    for path in passing[keep:]:
        if path != good and _number(path) != best:
            discard(path)


def newest_good(folder: Path) -> Path | None:
    """The newest checkpoint that verifies and was saved in good state; None where there is none."""
    return next((path for path in checkpoints(folder) if problem(path) is None and read_state(path).good), None)


def remove_after(folder: Path, total: int) -> None:
    """Remove the checkpoints of later steps than `total`, which a run that went back to it will make anew."""
    for path in checkpoints(folder):
        if problem(path) is None and read_state(path).total > total:
            discard(path)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoint folders, the newest first; also one that was being replaced when the program was killed."""
    paths = {_number(path): path for path in (*folder.glob(f".{PREFIX}*{OLD}"), *folder.glob(f"{PREFIX}*"))}
    return [paths[number] for number in sorted(paths, reverse=True) if number >= 0 and paths[number].is_dir()]


def _number(checkpoint: Path) -> int:
    """The step in a checkpoint's name; -1 where `save` never gives such a name."""
    found = NAME.fullmatch(checkpoint.name)
    return int(found[1] or found[2]) if found else -1


def problem(checkpoint: Path) -> str | None:
    """Why a checkpoint cannot be used (a file missing, cut or changed, another's number), or None."""
    try:
        manifest = parse(content(checkpoint / "manifest.json", SIZE))
        MANIFEST(manifest)
        if "state.json" not in manifest:
            return "manifest.json names no state.json"
        for name, entry in manifest.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != entry["size"] or sha256(path) != entry["sha256"]:
                return f"{name} was changed or cut"
    except (OSError, Misfit) as error:
        return f"manifest.json cannot be read ({reason(error)})"
    try:
        total = parse(content(checkpoint / "state.json", SIZE)).get("total")
    except (OSError, Misfit) as error:
        return f"state.json cannot be read ({reason(error)})"
    return None if total == _number(checkpoint) else f"it was renamed or copied: state.json is of step {shown(total)}"


def newest(folder: Path) -> Path | None:
    """The newest checkpoint that verifies; None where there was never one.

    Damaged ones are reported on stderr and skipped; CheckpointError if all are damaged.
    """
    found = checkpoints(folder)
    for path in found:
        reason = problem(path)
        if reason is None:
            return path
        print(printable(f"{path}: {reason}; the one before it is used"), file=sys.stderr)
    if found:
        raise CheckpointError(
            f"{folder}: none of {len(found)} checkpoints verifies; restore one, or start anew in another `output`"
        )
    return None


def read_state(checkpoint: Path) -> TrainingState:
    path = checkpoint / "state.json"
    values = read_object(path, CheckpointError, RESTORE)
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{checkpoint}: format {shown(values.get('format_version'))} is not {FORMAT_VERSION}; finish this run with "
            "the version of savae_dist that wrote it, or choose another output"
        )
    check(values, STATE, path, CheckpointError, RESTORE)
    if unknown := values.keys() - {field.name for field in fields(TrainingState)}:
        raise CheckpointError(f"{path} has {shown(min(unknown))}, which this version does not know; {RESTORE}")
    return TrainingState(**values)


def load_networks(folder: Path, networks: Mapping[str, Network]) -> list[str]:
    """Load, in place, each network for which there is a `folder/NAME`, and return their names.

    CheckpointError if one does not fit.
    """
    loaded = []
    for name, network in networks.items():
        if not (folder / name).is_dir():
            continue
        try:
            path = folder / name / "model.safetensors"
            fit(path, network.state_dict(keep_vars=True), "the configuration")
            load_model(network, path, strict=True)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"{folder / name} does not fit this run's {name} ({reason}); check networks.* and system.*"
            ) from error
        loaded.append(name)
    return loaded


def load_updates(checkpoint: Path, updates: Mapping[str, Savable]) -> None:
    """Load, in place, optimisers, scalers, counts and averages; CheckpointError if one does not fit."""
    for name, update in updates.items():
        path = checkpoint / "updates" / name
        values = read_object(path.with_suffix(".json"), CheckpointError, RESTORE)
        averaged = {network: whole() for network in update.averages}
        check(values, record({**VALUES, "averaged": record(averaged)}, OPTIONAL_VALUES), path, CheckpointError, RESTORE)
        try:
            tensor_forms(path.with_suffix(".safetensors"))
            update.load_state(load_file(path.with_suffix(".safetensors")), values)
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise CheckpointError(f"{path} does not fit this run's {name} ({reason(error)}); {RESTORE}") from error
        averages = {network: average.network for network, average in update.averages.items()}
        load_all_networks(checkpoint / "ema", averages)


def load_all_networks(folder: Path, networks: Mapping[str, Network]) -> None:
    """Load, in place, every network that `save` writes; CheckpointError if one is not there or does not fit."""
    loaded = load_networks(folder, networks)
    for name, network in networks.items():
        if name not in loaded and not isinstance(network, FeatureNetwork):
            raise CheckpointError(f"{folder / name} is missing; {RESTORE}")
