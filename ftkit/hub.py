"""Ask the Hugging Face hub about a repository, quickly, before a long download begins."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal

import httpx2
from huggingface_hub import HfApi, constants, set_client_factory, snapshot_download
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import _http

from ftkit.errors import FtkitError

RepoType = Literal["model", "dataset"]
TIMEOUT_SECONDS = float(constants.HF_HUB_ETAG_TIMEOUT)  # 10, where the variable is not set
SILENCE_SECONDS = 60.0
ADVICE = "Connect to the network, or use a bundled name or a local path."
ERRORS = (HfHubHTTPError, httpx2.HTTPError, OSError)

_silent: dict[str, tuple[float, Exception]] = {}  # host: when to ask it again, what was wrong


class UnreachableError(FtkitError):
    """The hub does not answer, or must not be asked; the cache may know more."""


def _send(send: Callable[..., httpx2.Response], request: httpx2.Request, **options: Any) -> Any:
    """Send a request that does not wait for ever; a host that was silent is offline for a minute.

    By itself huggingface_hub waits without limit for some answers, and asks for others six times
    a minute long, even where its cache holds everything.
    """
    host = request.url.netloc.decode()
    again, problem = _silent.get(host, (0.0, None))
    if time.monotonic() < again:
        raise OfflineModeIsEnabled(f"{host} {_problem(problem)}. {ADVICE}") from problem
    longest = max(TIMEOUT_SECONDS, constants.HF_HUB_DOWNLOAD_TIMEOUT)
    waits = request.extensions.get("timeout", {})
    kinds = ("connect", "read", "write", "pool")
    limits = {kind: min(waits.get(kind) or TIMEOUT_SECONDS, longest) for kind in kinds}
    request.extensions = {**request.extensions, "timeout": limits}
    try:
        return send(request, **options)
    except (httpx2.ConnectError, httpx2.TimeoutException) as error:
        if min(limits.values()) < TIMEOUT_SECONDS:
            raise  # it was hardly waited for
        _silent[host] = time.monotonic() + SILENCE_SECONDS, error.with_traceback(None)
        raise OfflineModeIsEnabled(f"{host} {_problem(error)}. {ADVICE}") from error


@contextmanager
def time_limits() -> Iterator[None]:
    """Let no request of huggingface_hub wait for ever, in this block or decorated function alone.

    The client that the process had before, with its proxy and certificates, does the work, and is
    the process's own again afterwards.
    """
    factory = _http._GLOBAL_CLIENT_FACTORY

    def limited() -> httpx2.Client:
        client = factory()
        client.send = partial(_send, client.send)  # type: ignore[method-assign]
        return client

    set_client_factory(limited)
    try:
        yield
    finally:
        set_client_factory(factory)


@time_limits()
def cached_names(repo_id: str, repo_type: RepoType, revision: str | None = None) -> list[str]:
    """List the files of a repository that this machine holds in its hub cache; often not all."""
    try:
        folder = snapshot_download(
            repo_id,
            repo_type=repo_type,
            revision=revision,
            local_files_only=True,
            allow_patterns=[],  # whichever are there
        )
    except (FileNotFoundError, ValueError):
        return []
    return [path.relative_to(folder).as_posix() for path in Path(folder).rglob("*")]


@time_limits()
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
    UnreachableError
        The hub cannot be reached.
    FtkitError
        It has no such repository, or no such revision of it.
    """
    if constants.HF_HUB_OFFLINE:
        raise UnreachableError(
            f'"{repo_id}" is a hub id and HF_HUB_OFFLINE is set. Unset it, or use a bundled '
            f"name or a local path."
        )
    try:
        info = HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision)
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise FtkitError(
            f'The hub at {constants.ENDPOINT} has no {repo_type} "{repo_id}". Check the spelling '
            f"(it reads owner/name); a private one needs `hf auth login`."
        ) from error
    except RevisionNotFoundError as error:
        raise FtkitError(
            f'The hub\'s {repo_type} "{repo_id}" has no revision "{revision}". Expected a branch, '
            f"a tag or a whole commit; {constants.ENDPOINT}/{repo_id}/commits/main lists them."
        ) from error
    except ERRORS as error:
        text = unreachable(repo_id, error) or _complaint(repo_id, error)
        raise UnreachableError(text) from error
    return [sibling.rfilename for sibling in info.siblings or []]  # type: ignore[union-attr]


def unreachable(repo_id: str, error: BaseException) -> str | None:
    """Say what was wrong with the network, and what to do; None where it was something else."""
    fault: BaseException | None = error
    while fault is not None and not isinstance(fault, httpx2.TransportError):
        fault = fault.__cause__
    if fault is None and isinstance(error, ConnectionError):  # datasets drops the cause
        _, fault = _silent.get(httpx2.URL(constants.ENDPOINT).netloc.decode(), (0.0, None))
    return _complaint(repo_id, fault) if fault else None


def _complaint(repo_id: str, fault: BaseException) -> str:
    return (
        f'"{repo_id}" is a hub id, and the hub at {constants.ENDPOINT} {_problem(fault)}. {ADVICE}'
    )


def _problem(fault: BaseException | None) -> str:
    if isinstance(fault, httpx2.TimeoutException):
        return f"does not answer within {TIMEOUT_SECONDS:g} seconds"
    return f"cannot be reached ({type(fault).__name__})"
