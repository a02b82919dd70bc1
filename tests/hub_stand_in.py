"""A stand-in for the Hugging Face hub over HTTP: as much of its API as an upload and a download of models call."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_SUFFIXES = (".safetensors", ".bin", ".pt")


@dataclass
class Repository:
    """Files by path at the newest commit; a commit is a count, written as a hash."""

    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 1
    private: bool = False
    messages: list[str] = field(default_factory=list)

    @property
    def commit(self) -> str:
        return f"{self.commits:040x}"


@dataclass
class Hub:
    """What the server serves and what it was asked. Tests set and read it."""

    token: str = "hf_of_the_test"
    owner: str = "someone"  # who may write
    repos: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # uploaded large files, by sha256
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)  # method, path, Authorization
    spoiled: set[str] = field(default_factory=set)  # files whose bytes arrive altered, their size unchanged
    stalled: str | None = None  # a file of which only half arrives until `go_on` is set
    in_stall: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def writes(self) -> list[str]:
        """The requests that would change something."""
        return [f"{method} {path}" for method, path, _ in self.requests if method not in ("GET", "HEAD")]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine, until the end of the block."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        parts = self._start()
        if parts[:2] == ["api", "models"]:
            self._model_info("/".join(parts[2:4]))
        elif len(parts) >= 5 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        else:
            self._refuse(404, "EntryNotFound")

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self._start()
        content = self._body()
        self.hub.objects[hashlib.sha256(content).hexdigest()] = content
        self._answer(b"")

    def do_POST(self) -> None:
        parts = self._start()
        body = self._body()
        authorization = self.headers.get("Authorization")
        if parts == ["api", "validate-yaml"]:
            self._answer_json({"errors": [], "warnings": []})
        elif authorization != f"Bearer {self.hub.token}":
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[2].endswith(".git") or parts[1].endswith(".git"):
            self._lfs_batch(json.loads(body))
        elif parts[4] == "preupload":
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            answer = [{"path": f["path"], "uploadMode": modes[f["path"].endswith(LFS_SUFFIXES)]} for f in files]
            self._answer_json({"files": [file | {"shouldIgnore": False} for file in answer]})
        else:
            self._commit("/".join(parts[2:4]), body)

    def _start(self) -> list[str]:
        path = urlsplit(self.path).path
        self.hub.requests.append((self.command, path, self.headers.get("Authorization")))
        return [unquote(part) for part in path.split("/")[1:]]

    def _create(self, wanted: dict[str, Any]) -> None:
        if wanted["organization"] != self.hub.owner:
            self._refuse(403, "", "You don't have the rights to create a model under this namespace")
            return
        repo = f"{wanted['organization']}/{wanted['name']}"
        self.hub.repos[repo] = Repository(private=wanted.get("visibility") == "private")
        self.hub.repos[repo].files[".gitattributes"] = b"*.safetensors filter=lfs\n"
        self._answer_json({"url": f"{self.hub.url}/{repo}"})

    def _lfs_batch(self, wanted: dict[str, Any]) -> None:
        objects = []
        for item in wanted["objects"]:
            known = item["oid"] in self.hub.objects
            upload = {} if known else {"actions": {"upload": {"href": f"{self.hub.url}/objects/{item['oid']}"}}}
            objects.append(item | upload)
        self._answer_json({"transfer": "basic", "objects": objects})

    def _commit(self, repo: str, body: bytes) -> None:
        repository = self.hub.repos[repo]
        files = dict(repository.files)
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                repository.messages.append(value["summary"])
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        repository.files, repository.commits = files, repository.commits + 1
        self._answer_json(
            {"commitUrl": f"{self.hub.url}/{repo}/commit/{repository.commit}", "commitOid": repository.commit}
        )

    def _model_info(self, repo: str) -> None:
        if not self._may_see(repo):
            return
        repository = self.hub.repos[repo]
        siblings = []
        for path, content in repository.files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            sibling = {"rfilename": path, "size": len(content), "blobId": blob}
            if path.endswith(LFS_SUFFIXES):
                sha256 = hashlib.sha256(content).hexdigest()
                # Of a large file, git has a pointer, whose hash says nothing about the content.
                sibling |= {"blobId": "0" * 40, "lfs": {"sha256": sha256, "size": len(content), "pointerSize": 134}}
            siblings.append(sibling)
        self._answer_json({"id": repo, "modelId": repo, "sha": repository.commit, "siblings": siblings})

    def _file(self, repo: str, revision: str, path: str) -> None:
        if not self._may_see(repo):
            return
        repository = self.hub.repos[repo]
        if path not in repository.files or revision not in ("main", repository.commit):
            self._refuse(404, "EntryNotFound")
            return
        content = repository.files[path]
        etag = hashlib.sha256(content).hexdigest()
        if path in self.hub.spoiled:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._answer(content, {"ETag": f'"{etag}"', "X-Repo-Commit": repository.commit}, stall=path == self.hub.stalled)

    def _may_see(self, repo: str) -> bool:
        repository = self.hub.repos.get(repo)
        authorization = self.headers.get("Authorization")
        if authorization not in (None, f"Bearer {self.hub.token}"):
            self._refuse(401, "", "Invalid credentials in Authorization header")
        elif repository is None or (repository.private and authorization is None):
            # So that nobody learns which private repositories there are, the hub answers both alike.
            self._refuse(404 if authorization else 401, "RepoNotFound", "Repository not found")
        else:
            return True
        return False

    def _refuse(self, status: int, code: str, message: str = "") -> None:
        headers = ({"X-Error-Code": code} if code else {}) | ({"X-Error-Message": message} if message else {})
        self._answer(json.dumps({"error": message}).encode(), headers, status)

    def _answer_json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(
        self, content: bytes, headers: dict[str, str] | None = None, status: int = 200, stall: bool = False
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(content) // 2 if stall else len(content)
        try:
            self.wfile.write(content[:half])
            if stall:
                self.wfile.flush()
                self.hub.in_stall.set()
                self.hub.go_on.wait(60)
                self.wfile.write(content[half:])
        except (BrokenPipeError, ConnectionResetError):  # the client was killed
            self.close_connection = True

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body
