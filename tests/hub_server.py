"""A hub on 127.0.0.1: the part of its protocol that the clients use to download, and its faults."""

import gc
import hashlib
import json
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".bin", ".parquet")  # kept in large-file storage, on a host of its own
API = re.compile(
    r"/api/(models|datasets)/([^/]+/[^/]+)(?:/(revision|tree|paths-info)/([^/]+)/?(.*))?"
)
RESOLVE = re.compile(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
BLOB = re.compile(r"/blobs/([0-9a-f]{64})")


class Answer(NamedTuple):
    """What the server says to one request."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = {}  # noqa: RUF012


@dataclass
class Repository:
    """The commits of one repository, each with its whole files, and the names of some commits."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def commit(self, revision: str) -> str | None:
        """Return the commit that a branch, a tag or a commit stands for."""
        return self.names.get(revision, revision if revision in self.commits else None)


class Hub:
    """A hub to add repositories to, to ask what was asked of it, and to break.

    ``stalls`` and ``breaks`` are patterns of "METHOD /path": what is never answered, and what is
    cut off in the middle, once.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.blobs: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.stalls: str | None = None
        self.breaks: str | None = None
        self._goes_on = threading.Event()
        self._servers: list[ThreadingHTTPServer] = []
        self._ports = [0, 0]
        self.open()

    @property
    def endpoint(self) -> str:
        """The address, for HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._ports[0]}"

    @property
    def storage(self) -> str:
        """The address of the large files."""
        return f"http://127.0.0.1:{self._ports[1]}"

    @property
    def downloads(self) -> list[str]:
        """The requests for the contents of files."""
        return [line for line in self.requests if re.search("^GET .*/(resolve|blobs)/", line)]

    def files(self, start: str) -> list[str]:
        """The paths of one repository's files that were asked for, such as "/org/name"."""
        lines = [line.split()[1] for line in self.requests]
        return [path for path in lines if path.startswith(f"{start}/resolve/")]

    def add(self, name: str, folder: Path, *names: str) -> str:
        """Commit a folder to ``models/owner/name`` or ``datasets/owner/name``, and name the commit.

        The newest commit is always ``main``.
        """
        files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        repository = self.repositories.setdefault(name, Repository())
        digest = hashlib.sha1("\n".join([name, *repository.commits]).encode())
        for path, data in files.items():
            digest.update(path.encode() + data)
            self.blobs[hashlib.sha256(data).hexdigest()] = data
        commit = digest.hexdigest()
        repository.commits[commit] = files
        repository.names.update(dict.fromkeys(("main", *names), commit))
        return commit

    def open(self) -> None:
        """Begin to listen, after `close` at the same address."""
        self._goes_on.clear()
        for i in range(2):
            server = ThreadingHTTPServer(("127.0.0.1", self._ports[i]), _handler(self))
            self._ports[i] = server.server_address[1]
            self._servers.append(server)
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        """Listen no longer."""
        self.release()
        while self._servers:
            server = self._servers.pop()
            server.shutdown()
            server.server_close()

    def release(self) -> None:
        """End all faults, and let go of the requests that wait."""
        self.stalls = self.breaks = None
        self._goes_on.set()
        self._goes_on = threading.Event()

    def forget(self) -> None:
        """Forget the requests so far."""
        self.requests.clear()

    def waits(self, line: str) -> bool:
        """Record a request; where it is one to stall, wait for `release` and say so."""
        self.requests.append(line)
        stalled = self.stalls is not None and re.search(self.stalls, line) is not None
        if stalled:
            self._goes_on.wait(600)
        return stalled

    def answer(self, method: str, url: str, form: str = "") -> Answer:
        """Answer a request as the hub does."""
        path = urlsplit(url).path
        if match := BLOB.fullmatch(path):
            data = self.blobs.get(match[1])
            return Answer(404) if data is None else Answer(200, data)
        if match := RESOLVE.fullmatch(path):
            kind, name, revision, file = match.groups()
            return self._resolve(f"{kind or 'models/'}{name}", unquote(revision), unquote(file))
        if match := API.fullmatch(path):
            kind, name, question, revision, rest = match.groups()
            query = parse_qs(form or urlsplit(url).query)
            query["path"] = [unquote(rest or "")]
            return self._api(f"{kind}/{name}", question, unquote(revision or "main"), query)
        return _refusal(404, "")

    def _api(self, name: str, question: str | None, revision: str, query: dict) -> Answer:
        repository = self.repositories.get(name)
        if repository is None:  # the hub says 401 here, so that nobody learns of private ones
            return _refusal(401, "RepoNotFound")
        commit = repository.commit(revision)
        if commit is None:
            return _refusal(404, "RevisionNotFound")
        files = repository.commits[commit]
        if question == "tree":
            deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
            return _json(_tree(files, query["path"][0], deep))
        if question == "paths-info":
            return _json([entry for p in query.get("paths", []) for entry in _entry(files, p)])
        siblings = [{"rfilename": file} for file in files]
        identity = {"id": name.partition("/")[2], "sha": commit, "siblings": siblings}
        return _json({**identity, "private": False, "gated": False, "disabled": False, "tags": []})

    def _resolve(self, name: str, revision: str, file: str) -> Answer:
        repository = self.repositories.get(name)
        if repository is None:
            return _refusal(401, "RepoNotFound")
        commit = repository.commit(revision)
        if commit is None:
            return _refusal(404, "RevisionNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        data = repository.commits[commit].get(file)
        if data is None:
            return _refusal(404, "EntryNotFound", headers)
        if not file.endswith(LARGE):
            return Answer(200, data, {**headers, "ETag": f'"{_git_sha1(data)}"'})
        sha256 = hashlib.sha256(data).hexdigest()
        headers |= {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
        return Answer(302, b"", {**headers, "Location": f"{self.storage}/blobs/{sha256}"})


def _git_sha1(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _json(value: object) -> Answer:
    return Answer(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _refusal(status: int, code: str, headers: dict[str, str] | None = None) -> Answer:
    headers = {**(headers or {}), "Content-Type": "application/json"}
    if code:
        headers["X-Error-Code"] = code
    return Answer(status, json.dumps({"error": code or "Not Found"}).encode(), headers)


def _entry(files: dict[str, bytes], path: str) -> list[dict]:
    """Describe one file or folder as the hub does; nothing where there is none."""
    if path in files:
        data = files[path]
        entry = {"type": "file", "path": path, "size": len(data), "oid": _git_sha1(data)}
        if path.endswith(LARGE):
            sha256 = hashlib.sha256(data).hexdigest()
            entry["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
        return [entry]
    if any(file.startswith(path + "/") for file in files):
        return [{"type": "directory", "path": path, "oid": _git_sha1(path.encode()), "size": 0}]
    return []


def _tree(files: dict[str, bytes], folder: str, deep: bool) -> list[dict]:
    """Describe what lies in a folder, or all below it."""
    start = f"{folder}/" if folder else ""
    found: dict[str, None] = {}
    for file in files:
        if file.startswith(start):
            parts = file.removeprefix(start).split("/")
            ends = range(1, len(parts) + 1) if deep else [1]
            found.update(dict.fromkeys(start + "/".join(parts[:end]) for end in ends))
    return [entry for path in found for entry in _entry(files, path)]


def _part(answer: Answer, request: Message) -> Answer:
    """Cut an answer down to the range of bytes that was asked for."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.get("Range", ""))
    if match is None or answer.status != 200:
        return answer
    size = len(answer.body)
    first, last = int(match[1]), min(int(match[2] or size), size - 1)
    if first >= size:
        return Answer(416, b"", {**answer.headers, "Content-Range": f"bytes */{size}"})
    headers = {**answer.headers, "Content-Range": f"bytes {first}-{last}/{size}"}
    return Answer(206, answer.body[first : last + 1], headers)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    """Return the class that hands each request to the hub."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_any(self) -> None:
            form = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            line = f"{self.command} {self.path}"
            if hub.waits(line):
                self.close_connection = True
                return
            answer = _part(hub.answer(self.command, self.path, form), self.headers)
            self.send_response(answer.status)
            headers = {**answer.headers, "Content-Length": str(len(answer.body))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            body = answer.body if self.command != "HEAD" else b""
            if body and hub.breaks is not None and re.search(hub.breaks, line):
                hub.breaks, body = None, body[: len(body) // 2]
                self.close_connection = True
            self.wfile.write(body)

        do_GET = do_HEAD = do_POST = handle_any  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    return Handler


def serve_commands() -> None:
    """Run each ftkit command that stdin brings in a fork of this process, which has all loaded.

    A line holds the arguments, the file for all output and a limit in seconds; the answer is the
    status, or minus the signal.
    """
    import transformers.models.bert.modeling_bert  # noqa: F401

    from ftkit.cli.main import main

    gc.freeze()  # the forks share what they do not change
    for line in sys.stdin:
        args, output, seconds = json.loads(line)
        child = os.fork()
        if child == 0:
            signal.alarm(seconds)
            with open(output, "wb", buffering=0) as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            _leave(main, args)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _leave(main: Callable[[list[str]], int], args: list[str]) -> None:
    """Run the command and end the process with its status, or with 99 and a traceback."""
    status = 99
    try:
        status = main(args)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # without taking everything apart


if __name__ == "__main__":
    serve_commands()
