"""A folder to a repository on the Hub, as one commit: all of it is there, or nothing.

A run pushes by `python -m savae_dist.networks.upload FOLDER REPOSITORY [--revision BRANCH] [--private]`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError: of the httpx that it uses
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalTokenNotFoundError,
)

from savae_dist.errors import ConfigError, DeniedError, SaveError, UserError
from savae_dist.networks.hub import DENIED, LONGEST

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES = ("*.json", "*.safetensors", "README.md", "*.png", "*.onnx", "*.pt2")  # all that is uploaded or replaced
LOGIN = "log in with `hf auth login`, or give token=..., of an account that may write there"


def upload(
    folder: Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
    message: str = "",
) -> str:
    """Upload the files of a folder, in place of those that were there, and return the URL of the commit.

    Repeated, it changes nothing. The token is checked before a file is read. private: of a repository that is made
    here; None: as the account has it. revision: a branch, made where it is not there. create_pr: as a pull request.
    DeniedError without the right to write; SaveError where the Hub does not answer, and then nothing has changed.
    """
    from huggingface_hub import HfApi  # here: a pipeline that is only loaded needs none

    api = HfApi(token=token)
    try:
        api.whoami()
        repo = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        if revision is not None:
            api.create_branch(repo, branch=revision, exist_ok=True)
        made = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            create_pr=create_pr,
            commit_message=message or "Upload by savae_dist",
            allow_patterns=list(FILES),
            delete_patterns=_left_from_before(api, repo, revision, folder),
        )
    except HFValidationError as error:
        raise ConfigError(f"{repo_id!r} is no name of a repository: give NAME or ORGANISATION/NAME") from error
    except LocalTokenNotFoundError as error:
        raise DeniedError(f"{repo_id}: the Hub wants a token: {LOGIN}") from error
    except HfHubHTTPError as error:
        if error.response.status_code in DENIED:
            raise DeniedError(f"{repo_id}: the Hub does not let this account write there: {LOGIN}") from error
        raise _not_pushed(repo_id, error) from error
    except (HTTPError, OSError, ValueError) as error:  # ValueError: an answer that is no JSON
        raise _not_pushed(repo_id, error) from error
    return str(made.pr_url or made.commit_url)


def _left_from_before(api: HfApi, repo: str, revision: str | None, folder: Path) -> list[str]:
    """What an earlier push left there, such as a network that the pipeline has no more."""
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    held = (path for path in api.list_repo_files(repo, revision=revision) if path.endswith((".json", ".safetensors")))
    return [path for path in held if path not in here]


def _not_pushed(repo_id: str, error: Exception) -> SaveError:
    said = " ".join(f"{type(error).__name__}: {error}".split())
    return SaveError(f"{repo_id}: not pushed, and nothing there was changed ({said[:LONGEST]}); run it again")


def main() -> int:
    """The URL of the commit is printed; what went wrong is the last line on stderr."""
    parser = argparse.ArgumentParser(description="Upload a folder to a repository on the Hub.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("repository")
    parser.add_argument("--revision")
    parser.add_argument("--private", action="store_true")
    options = parser.parse_args()
    try:
        print(upload(options.folder, options.repository, private=options.private or None, revision=options.revision))
    except UserError as error:
        print(error, file=sys.stderr)
        return error.code
    return 0


if __name__ == "__main__":
    sys.exit(main())
