"""A hub of models on the loopback: real HTTP, as much of the hub's API as huggingface_hub's client needs to pull a model.

As on the hub, a safetensors file is an LFS object: `resolve` states its SHA-256 and redirects to another host (here localhost instead of
127.0.0.1), which must not get the token. Faults are set beforehand, for the next downloads of LFS objects.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

TOKEN = "hf_of_who_may_see_it"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    host: str
    range: str | None
    authorization: str | None


@dataclass(frozen=True)
class _Fault:
    after: int | None  # bytes that are sent; None: refused
    stalled: threading.Event | None = None  # set then; the connection stays open until the hub's `released` is


@dataclass(frozen=True)
class Repository:
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)  # files by path
    revisions: dict[str, str] = field(default_factory=dict)  # commits by branch


class HubServer:
    """`with HubServer() as hub`: serves at `hub.url` what `put` gave it. `hub.requests` is what was asked for."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self.objects: dict[str, bytes] = {}  # LFS objects by their SHA-256: what is sent, which a test may spoil
        self.spoilt: dict[str, bytes] = {}  # other files by path: what is sent instead
        self.faults: list[_Fault] = []  # one for each download to come
        self._stalled = threading.Event()
        self.released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = False  # so that closing waits for them
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def storage(self) -> str:
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, type_: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def put(self, name: str, files: Mapping[str, bytes], *, gated: bool = False) -> str:
        """A new commit of a repository's branch main; its hash."""
        repository = self.repositories.setdefault(name, Repository(gated))
        digest = hashlib.sha1(name.encode())
        for path, content in sorted(files.items()):
            digest.update(path.encode() + content)
            if path.endswith(".safetensors"):
                self.objects[hashlib.sha256(content).hexdigest()] = content
        commit = digest.hexdigest()
        repository.commits[commit] = dict(files)
        repository.revisions["main"] = commit
        return commit

    def break_off(self, after: int) -> None:
        """Close the connection after so many bytes."""
        self.faults.append(_Fault(after))

    def refuse(self) -> None:
        """Answer 503."""
        self.faults.append(_Fault(None))

    @contextmanager
    def stalled(self, after: int) -> Iterator[None]:
        """Send no more than so many bytes, while in the context."""
        self.faults.append(_Fault(after, self._stalled))
        try:
            yield
        finally:
            self.released.set()

    def wait_until_stalled(self) -> None:
        assert self._stalled.wait(60)

    def downloads(self) -> list[Request]:
        return [request for request in self.requests if request.method == "GET" and request.path.startswith("/objects/")]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        headers = self.headers
        self.hub.requests.append(Request(self.command, path, headers["Host"], headers["Range"], headers["Authorization"]))
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            self._info(match[1], match[2] or "main")
        elif match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1], match[2], match[3])
        elif match := re.fullmatch(r"/objects/([0-9a-f]{64})", path):
            self._object(self.hub.objects[match[1]])
        else:
            self._send(404)

    def _info(self, name: str, revision: str) -> None:
        found = self._find(name, revision)
        if found:
            repository, commit = found
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            gated = "auto" if repository.gated else False
            info = {"id": name, "modelId": name, "sha": commit, "private": False, "gated": gated, "siblings": siblings, "tags": []}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, name: str, revision: str, path: str) -> None:
        found = self._find(name, revision)
        if not found:
            return
        repository, commit = found
        if repository.gated and self.headers["Authorization"] != f"Bearer {TOKEN}":
            self._send(403 if self.headers["Authorization"] else 401, headers={"X-Error-Code": "GatedRepo"})
            return
        content = repository.commits[commit].get(path)
        if content is None:
            self._send(404, headers={"X-Error-Code": "EntryNotFound"})
        elif path.endswith(".safetensors"):
            sha256 = hashlib.sha256(content).hexdigest()
            linked = {"X-Linked-ETag": f'"{sha256}"', "X-Linked-Size": str(len(content))}
            self._send(302, headers={"X-Repo-Commit": commit, "Location": f"{self.hub.storage}/objects/{sha256}", **linked})
        else:
            oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._send(200, self.hub.spoilt.get(path, content), {"X-Repo-Commit": commit, "ETag": f'"{oid}"'})

    def _find(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            self._send(404, headers={"X-Error-Code": "RepoNotFound"})
            return None
        commit = repository.revisions.get(revision, revision)
        if commit not in repository.commits:
            self._send(404, headers={"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, commit

    def _object(self, content: bytes) -> None:
        fault = self.hub.faults.pop(0) if self.hub.faults else _Fault(len(content))
        if fault.after is None:
            self._send(503)
            return
        status, headers = 200, {"ETag": '"of-the-storage"', "Accept-Ranges": "bytes"}
        if range_ := self.headers["Range"]:
            start, total = int(range_.removeprefix("bytes=").rstrip("-")), len(content)
            status, headers["Content-Range"], content = 206, f"bytes {start}-{total - 1}/{total}", content[start:]
        self._send(status, content, headers, fault.after)
        if fault.stalled:
            fault.stalled.set()
            self.hub.released.wait()

    def _send(self, status: int, content: bytes = b"", headers: Mapping[str, str] | None = None, end: int | None = None) -> None:
        """`end`: of the content, only so much is sent, of what was promised."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[:end])

    def log_message(self, *_: Any) -> None:
        pass
