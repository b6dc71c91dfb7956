"""Ask the Hugging Face hub about a repository, quickly, before a long download begins."""

from typing import Literal

import httpx2
from huggingface_hub import HfApi, constants, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, RepositoryNotFoundError

from ftkit.errors import FtkitError

RepoType = Literal["model", "dataset"]
TIMEOUT_SECONDS = 10.0


def is_cached(repo_id: str, repo_type: RepoType, revision: str | None = None) -> bool:
    """Say whether this machine already holds a copy of the repository in its hub cache."""
    try:
        snapshot_download(repo_id, repo_type=repo_type, revision=revision, local_files_only=True)
    except (FileNotFoundError, ValueError):
        return False
    return True


def file_names(repo_id: str, repo_type: RepoType, revision: str | None = None) -> list[str]:
    """List the files of a hub repository, or fail within seconds and say why.

    Parameters
    ----------
    repo_id : str
        Such as ``"google-bert/bert-base-uncased"``.
    repo_type : {"model", "dataset"}
    revision : str, optional
        Branch, tag or commit.

    Raises
    ------
    FtkitError
        The hub cannot be reached, or it has no such repository.
    """
    if constants.HF_HUB_OFFLINE:
        raise FtkitError(
            f'"{repo_id}" is a hub id and HF_HUB_OFFLINE is set. Unset it, or use a bundled '
            f"name or a local path."
        )
    try:
        info = HfApi().repo_info(
            repo_id, repo_type=repo_type, revision=revision, timeout=TIMEOUT_SECONDS
        )
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FtkitError(
            f'The hub at {constants.ENDPOINT} has no {repo_type} "{repo_id}". Check the spelling '
            f"(it reads owner/name); a private one needs `hf auth login`."
        ) from error
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        raise FtkitError(
            f'"{repo_id}" is a hub id, and the hub at {constants.ENDPOINT} cannot be reached '
            f"({type(error).__name__}). Connect to the network, or use a bundled name or a "
            f"local path."
        ) from error
    siblings = info.siblings or []  # type: ignore[union-attr]
    return [sibling.rfilename for sibling in siblings]
