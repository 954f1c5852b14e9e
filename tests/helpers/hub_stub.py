"""A stub of the Hub on loopback: repositories with commits, branches and tokens, as far as the client asks.

It serves the real client (`HF_ENDPOINT`, `HF_HUB_DISABLE_XET=1`): whoami, create, branch, preupload, LFS, commit, tree,
info and files. Weights go through LFS, all else in the commit.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_letmein"
Files = dict[str, bytes]


@dataclass
class Repository:
    """branches: each the oids of its commits, the newest last. commits: the files of each."""

    private: bool = False
    branches: dict[str, list[str]] = field(default_factory=lambda: {"main": []})
    commits: dict[str, Files] = field(default_factory=dict)
    pull_requests: int = 0

    def head(self, revision: str = "main") -> str:
        own = self.branches.get(revision)
        return (own[-1] if own else "0" * 40) if own is not None else revision

    def files(self, revision: str = "main") -> Files:
        return self.commits.get(self.head(revision), {})

    def commit(self, revision: str, files: Files) -> str:
        history = self.branches.setdefault(revision, [])
        digest = hashlib.sha1(repr((revision, len(history), sorted(files.items()))).encode()).hexdigest()
        self.commits[digest] = files
        history.append(digest)
        return digest


@dataclass
class Hub:
    """drop: a part of a path; a request for such a path is cut off. asked: method and path of each request.

    wait: while it is not set no request is answered.
    """

    url: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: Files = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    drop: str = ""
    wait: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.wait.set()


class Refused(Exception):
    """status, and the Hub's own code of the error."""


def large(path: str) -> bool:
    return path.endswith(".safetensors")


def oid(path: str, content: bytes) -> str:
    """As git and LFS name it."""
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content)
    return hashlib.sha256(content).hexdigest() if large(path) else blob.hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def answer(self) -> None:
        parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
        self.hub.asked.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        self.hub.wait.wait()
        if self.hub.drop and self.hub.drop in self.path:
            self.close_connection = True
            self.connection.close()
            return
        try:
            self.route(parts)
        except Refused as error:
            status, code = error.args
            self.reply({"error": code}, status, {"X-Error-Code": code})

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def route(self, parts: list[str]) -> None:
        if parts[:2] == ["api", "whoami-v2"]:
            self.allowed()
            self.reply({"type": "user", "name": "someone", "auth": {"type": "access_token"}, "orgs": []})
        elif parts[:3] == ["api", "repos", "create"]:
            self.create()
        elif parts[:2] == ["api", "validate-yaml"]:  # the head of a card
            self.reply({"errors": [], "warnings": []})
        elif parts[0] == "lfs":
            self.hub.objects[parts[1]] = self.body
            self.reply({})
        elif parts[:2] == ["api", "models"]:
            action, revision = [*parts[4:], "revision", "main"][:2]
            routes: dict[str, Callable[[str, str], None]] = {
                "revision": self.info,
                "preupload": self.preupload,
                "commit": self.commit,
                "tree": self.tree,
                "branch": self.branch,
            }
            routes[action]("/".join(parts[2:4]), revision)
        elif len(parts) > 1 and parts[1].endswith(".git"):
            self.batch()
        elif len(parts) > 4 and parts[2] == "resolve":
            self.file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            raise Refused(404, "")

    def allowed(self) -> bool:
        """Whether the caller has the token; Refused for a wrong one, or none."""
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "")
        return True

    def repository(self, name: str, write: bool = False) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or ((found.private or write) and not self.headers.get("Authorization", "").endswith(TOKEN)):
            raise Refused(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")
        return found

    def create(self) -> None:
        self.allowed()
        asked = json.loads(self.body)
        name = f"{asked.get('organization') or 'someone'}/{asked['name']}"
        known = name in self.hub.repositories
        if not known:
            self.hub.repositories[name] = Repository(asked.get("visibility") == "private" or bool(asked.get("private")))
        self.reply({"url": f"{self.hub.url}/{name}"}, 409 if known else 200)

    def branch(self, name: str, revision: str) -> None:
        found = self.repository(name, write=True)
        if revision in found.branches:
            raise Refused(409, "")
        found.branches[revision] = list(found.branches["main"])
        self.reply({})

    def info(self, name: str, revision: str) -> None:
        found = self.repository(name)
        if found.head(revision) not in found.commits and revision not in found.branches:
            raise Refused(404, "RevisionNotFound")
        siblings = [{"rfilename": path} for path in found.files(revision)]
        self.reply(
            {"id": name, "sha": found.head(revision), "private": found.private, "siblings": siblings, "tags": []}
        )

    def tree(self, name: str, revision: str) -> None:
        files = self.repository(name).files(revision)
        self.reply([{"type": "file", "path": path, "size": len(x), "oid": oid(path, x)} for path, x in files.items()])

    def preupload(self, name: str, revision: str) -> None:
        there = self.repository(name, write=True).files(revision)
        files: list[dict[str, Any]] = []
        for one in json.loads(self.body)["files"]:
            path = one["path"]
            known = oid(path, there[path]) if path in there else None
            mode = "lfs" if large(path) else "regular"
            files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": known})
        self.reply({"files": files})

    def batch(self) -> None:
        self.allowed()
        objects: list[dict[str, Any]] = []
        for one in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}
            objects.append(
                {**one, "authenticated": True, **({} if one["oid"] in self.hub.objects else {"actions": upload})}
            )
        self.reply({"transfer": "basic", "objects": objects})

    def commit(self, name: str, revision: str) -> None:
        found = self.repository(name, write=True)
        files = dict(found.files(revision))
        for line in self.body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        answer: dict[str, Any] = {}
        if "create_pr=1" in self.path:
            found.pull_requests += 1
            revision = f"refs/pr/{found.pull_requests}"
            answer["pullRequestUrl"] = f"{self.hub.url}/{name}/discussions/{found.pull_requests}"
        made = found.commit(revision, files)
        self.reply({"commitUrl": f"{self.hub.url}/{name}/commit/{made}", "commitOid": made, **answer})

    def file(self, name: str, revision: str, path: str) -> None:
        found = self.repository(name)
        files = found.files(revision)
        if path not in files:
            raise Refused(404, "EntryNotFound")
        headers = {"ETag": f'"{oid(path, files[path])}"', "X-Repo-Commit": found.head(revision)}
        self.send(files[path], 200, headers)

    def reply(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def send(self, content: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def running() -> Iterator[Hub]:
    """The stub, until the end of the block."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub})) as server:
        hub.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield hub
        finally:
            hub.wait.set()
            server.shutdown()
