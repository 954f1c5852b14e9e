"""Where a network or a pipeline lies: in a folder here, or in a repository on the Hub, which is downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the httpx that it uses
    EntryNotFoundError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
    XetDownloadError,
)

from savae_dist.errors import CheckpointError, DeniedError

DENIED = (401, 403)  # without a token the Hub answers 401 for what is private and for what does not exist alike
LONGEST = 300  # characters of an error of the Hub's that are shown


def folder_of(source: str | Path, files: Sequence[str], subfolder: str = "", **options: Any) -> Path:
    """The folder `source`, or the one that the files of these patterns were downloaded to from the repository `source`.

    A `Path` is a folder here and never a repository. CheckpointError in one line if there is neither, DeniedError where
    the Hub shows this account no such repository.
    subfolder: the folder within it that is meant, and the only one that is downloaded.
    options: of `huggingface_hub.snapshot_download`, `revision`, `token`, `cache_dir` and `local_files_only` among them.
    """
    if subfolder and (Path(subfolder).is_absolute() or ".." in Path(subfolder).parts):
        raise CheckpointError(f"subfolder={subfolder!r} must be the name of a folder within {source}")
    path = Path(source)
    if path.is_dir():
        return _inside(path, subfolder, source)
    if path.exists():
        raise CheckpointError(f"{source} is a file: give the folder that it lies in")
    if isinstance(source, Path) or _is_path(source):
        raise CheckpointError(f"{source} does not exist: no such folder")
    patterns = [f"{subfolder}/{pattern}" if subfolder else pattern for pattern in files]
    try:
        return _inside(Path(snapshot_download(source, allow_patterns=patterns, **options)), subfolder, source)
    except HFValidationError as error:
        raise CheckpointError(f"{source!r}: no such folder, and no name of a repository on the Hub") from error
    except HfHubHTTPError as error:
        if error.response.status_code not in DENIED and not isinstance(error, RepositoryNotFoundError):
            raise _not_to_be_had(source, error) from error
        raise DeniedError(
            f"{source}: no such folder, and the Hub shows no such repository: see to the name; for a private or gated "
            "one log in with `hf auth login`, or give token=..., of an account that may read it"
        ) from error
    # ValueError: an answer that is no JSON, for example a network's page to log in.
    except (HTTPError, EntryNotFoundError, XetDownloadError, OSError, ValueError) as error:
        raise _not_to_be_had(source, error) from error


def _inside(folder: Path, subfolder: str, source: str | Path) -> Path:
    if (folder / subfolder).is_dir():
        return folder / subfolder
    held = ", ".join(sorted(one.name for one in folder.iterdir() if one.is_dir()))
    raise CheckpointError(f"{source} has no folder {subfolder!r} to load{f'; there are {held}' * bool(held)}")


def _is_path(source: str) -> bool:
    """Whether a text can be nothing but a path: the name of a repository is NAME or ORGANISATION/NAME."""
    return source.startswith(("/", ".", "~")) or source.count("/") > 1 or source.endswith("/") or "\\" in source


def _not_to_be_had(source: str, error: Exception) -> CheckpointError:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return CheckpointError(f"{source}: no such folder, and not to be had from the Hub ({said[:LONGEST]})")
