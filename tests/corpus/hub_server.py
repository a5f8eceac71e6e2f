"""A Hugging Face hub on loopback that serves dataset repositories from a folder.

It speaks the part of the hub's protocol that `huggingface_hub` and `datasets` use to read: repository info,
tree, paths-info, access check and file resolution with ranges. As on the hub, a repository's info, tree and
card are open even when its files are gated, and a large file is answered by a redirect to a store of another
origin whose signed address needs no token. There is no Xet.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import threading
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from loopback import Handler, Server

MODIFIED = "2024-04-23T15:52:32.000Z"
LARGE_SUFFIXES = (".parquet",)
OPEN_FILES = frozenset({"README.md", ".gitattributes"})
NO_PAGE = (404, None, "Sorry, we can't find the page you are looking for.")
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


def commit_of(repo: str) -> str:
    """Return the only commit of a repository."""
    return hashlib.sha1(f"commit of {repo}".encode()).hexdigest()


def _git_id(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass(frozen=True)
class _File:
    """A file as the hub describes it: large ones have a Git LFS pointer."""

    path: str
    where: Path
    size: int
    git_id: str
    sha256: str | None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        return self.sha256 or self.git_id

    def entry(self) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "oid": self.git_id, "size": self.size, "path": self.path}
        if self.sha256 is not None:
            entry["lfs"] = {"oid": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return entry

    def sibling(self, *, blobs: bool) -> dict[str, Any]:
        """Return the file's entry in a repository's info."""
        sibling: dict[str, Any] = {"rfilename": self.path}
        if blobs:
            sibling |= {"size": self.size, "blobId": self.git_id}
            if self.sha256 is not None:
                sibling["lfs"] = {"sha256": self.sha256, "size": self.size, "pointerSize": self.pointer_size}
        return sibling


@lru_cache(maxsize=4096)
def _described(where: Path, path: str, _modified: int) -> _File:
    content = where.read_bytes()
    if not path.endswith(LARGE_SUFFIXES):
        return _File(path, where, len(content), _git_id(content), None)
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    )
    return _File(path, where, len(content), _git_id(pointer), sha256, len(pointer))


class HubError(Exception):
    """An error answer of the hub."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class HubServer:
    """Serves `root/{org}/{name}` as dataset repositories. `requests` counts requests by kind.

    Files of a repository in `gated` are read with one of the `accepted` tokens; `others` are tokens of
    accounts that exist but were not granted access; every other token is invalid. `leaked` counts the tokens
    that a client sent to the store of large files, which is another origin.
    """

    def __init__(
        self,
        root: Path,
        *,
        gated: Iterable[str] = (),
        accepted: Iterable[str] = ("hf_accepted",),
        others: Iterable[str] = ("hf_other",),
        page: int = 1000,
    ) -> None:
        self.root, self.gated, self.page = root, set(gated), page
        self.accepted, self.others = set(accepted), set(others)
        self.requests: Counter[str] = Counter()
        self.leaked = 0
        self.large: dict[str, _File] = {}
        self._secret = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._servers = [_Server(self, _HubHandler), _Server(self, _StoreHandler)]
        self.url, self.store_url = (f"http://127.0.0.1:{one.server_address[1]}" for one in self._servers)

    def __enter__(self) -> Self:
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.stop()

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Return the environment of a process that uses this hub; clients read it when imported."""
        kept = {name: os.environ[name] for name in os.environ if not name.startswith(("HF_", "HUGGING"))}
        quiet = (
            "HF_HUB_DISABLE_TELEMETRY",
            "HF_HUB_DISABLE_PROGRESS_BARS",
            "HF_DATASETS_DISABLE_PROGRESS_BARS",
        )
        settings = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), **dict.fromkeys(quiet, "1")}
        return kept | settings | ({"HF_TOKEN": token} if token is not None else {})

    def count(self, kind: str) -> None:
        with self._lock:
            self.requests[kind] += 1

    def signature(self, sha256: str) -> str:
        """Return the signature that makes an address of the store valid without a token."""
        return hmac.new(self._secret, sha256.encode(), hashlib.sha256).hexdigest()

    def files(self, repo: str) -> list[_File]:
        """Return all files of a repository by path."""
        folder = self.root / repo
        found = ((path.relative_to(folder).as_posix(), path) for path in folder.rglob("*") if path.is_file())
        return [_described(path, name, path.stat().st_mtime_ns) for name, path in sorted(found)]

    def token(self, header: str | None) -> str | None:
        """Return the token of a request; refuse one that no account has."""
        if header is None:
            return None
        token = header.removeprefix("Bearer ").strip()
        if token not in self.accepted | self.others:
            raise HubError(401, None, "Invalid credentials in Authorization header")
        return token

    def check_repository(self, repo: str, token: str | None) -> None:
        if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) and ".." not in repo and (self.root / repo).is_dir():
            return
        if token is None:  # the hub hides from anonymous clients whether a private repository exists
            raise HubError(401, "RepoNotFound", "Invalid username or password.")
        raise HubError(404, "RepoNotFound", "Repository not found")

    def check_gate(self, repo: str, token: str | None) -> None:
        if repo not in self.gated or token in self.accepted:
            return
        restricted = f"Access to dataset {repo} is restricted"
        if token is None:
            hint = "You must have access to it and be authenticated to access it. Please log in."
            raise HubError(401, "GatedRepo", f"{restricted}. {hint}")
        hint = f"Visit {self.url}/datasets/{repo} to ask for access."
        raise HubError(403, "GatedRepo", f"{restricted} and you are not in the authorized list. {hint}")

    def check_revision(self, repo: str, revision: str) -> None:
        if revision not in ("main", "refs/heads/main", commit_of(repo)):
            raise HubError(404, "RevisionNotFound", f"Invalid rev id: {revision}")


class _Server(Server):
    def __init__(self, hub: HubServer, handler: type[_Handler]) -> None:
        self.hub = hub
        super().__init__(("127.0.0.1", 0), handler)


class _Handler(Handler, ABC):
    server: _Server
    body = b""

    @abstractmethod
    def do_GET(self) -> None:
        """Answer a request."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_file(self, file: _File, headers: dict[str, str]) -> None:
        """Send a file, or the requested range."""
        start, end, status = 0, file.size, 200
        headers = {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes", **headers}
        if (asked := _RANGE.match(self.headers.get("Range", ""))) and asked.group() != "bytes=-":
            low, high = asked.groups()
            start = int(low) if low else max(file.size - int(high), 0)
            end = min(int(high) + 1, file.size) if low and high else file.size
            if start >= end:
                self.answer(416, headers={"Content-Range": f"bytes */{file.size}"})
                return
            status, headers["Content-Range"] = 206, f"bytes {start}-{end - 1}/{file.size}"
        headers["Content-Type"] = "application/octet-stream"
        self.answer(status, file.where.read_bytes()[start:end], headers)


class _StoreHandler(_Handler):
    """The store of large files, which accepts signed addresses and no tokens."""

    def do_GET(self) -> None:
        hub, parts = self.server.hub, urlsplit(self.path)
        hub.count("store")
        hub.leaked += "Authorization" in self.headers
        sha256 = parts.path.lstrip("/")
        signature = parse_qs(parts.query).get("Signature", [""])[0]
        if sha256 not in hub.large or not hmac.compare_digest(signature, hub.signature(sha256)):
            self.answer(403, b"<Error><Code>AccessDenied</Code></Error>", {"Content-Type": "application/xml"})
        else:
            self.answer_file(hub.large[sha256], {})


class _HubHandler(_Handler):
    """Checks of a request: token, repository, gate, revision, entry."""

    def do_GET(self) -> None:
        try:
            self.route()
        except HubError as error:
            headers = {"X-Error-Message": error.message, "Content-Type": "application/json; charset=utf-8"}
            if error.code is not None:
                headers["X-Error-Code"] = error.code
            if error.status == 401:
                headers["WWW-Authenticate"] = 'Bearer realm="Authentication required", charset="UTF-8"'
            self.answer(error.status, json.dumps({"error": error.message}).encode(), headers)

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def route(self) -> None:
        self.hub = self.server.hub
        parts = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        self.caller = self.hub.token(self.headers.get("Authorization"))
        # A quoted slash is part of a revision, so split into segments before unquoting.
        segments = [unquote(segment) for segment in parts.path.strip("/").split("/")]
        api = segments[0] == "api"
        if segments[api] != "datasets" or len(segments) < 3 + api:
            raise HubError(*NO_PAGE)
        repo, (verb, *rest) = "/".join(segments[1 + api : 3 + api]), segments[3 + api :] or [""]
        self.hub.count(verb or "info")
        self.hub.check_repository(repo, self.caller)
        revision, path = rest[0] if rest else "main", "/".join(rest[1:])
        if verb == "auth-check" and api:
            self.hub.check_gate(repo, self.caller)
            self.answer_json({})
            return
        if verb == "resolve" and path not in OPEN_FILES:
            self.hub.check_gate(repo, self.caller)
        self.hub.check_revision(repo, revision)
        of_api = {"": self.info, "revision": self.info, "tree": self.tree, "paths-info": self.paths_info}
        handlers = of_api if api else {"resolve": self.resolve}
        if verb not in handlers:
            raise HubError(*NO_PAGE)
        handlers[verb](repo, path)

    def answer_json(self, value: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(value).encode()
        self.answer(200, body, {"Content-Type": "application/json; charset=utf-8", **(headers or {})})

    def no_entry(self, path: str) -> NoReturn:
        raise HubError(404, "EntryNotFound", f"Entry not found: {path}")

    def info(self, repo: str, _path: str) -> None:
        siblings = [file.sibling(blobs="blobs" in self.query) for file in self.hub.files(repo)]
        info = {
            **{"_id": commit_of(repo)[:24], "id": repo, "author": repo.split("/")[0], "sha": commit_of(repo)},
            **{"lastModified": MODIFIED, "createdAt": MODIFIED, "downloads": 0, "likes": 0, "tags": []},
            **{"private": False, "disabled": False, "gated": "auto" if repo in self.hub.gated else False},
            "siblings": siblings,
        }
        self.answer_json(info)

    def entries(self, repo: str) -> dict[str, dict[str, Any]]:
        """Return files and their folders by path."""
        found = {file.path: file.entry() for file in self.hub.files(repo)}
        folders = {parent.as_posix() for path in found for parent in Path(path).parents} - {"."}
        for path in folders:
            found[path] = {"type": "directory", "oid": _git_id(path.encode()), "size": 0, "path": path}
        if self.query.get("expand") in ("true", "True", "1"):
            commit = {"id": commit_of(repo), "title": "Upload", "date": MODIFIED}
            found = {path: {**entry, "lastCommit": commit} for path, entry in found.items()}
        return dict(sorted(found.items()))

    def tree(self, repo: str, path: str) -> None:
        found = self.entries(repo)
        if path and found.get(path, {}).get("type") != "directory":
            self.no_entry(path)
        recursive = self.query.get("recursive") in ("true", "True", "1")
        under = f"{path}/" if path else ""
        held = [
            entry
            for name, entry in found.items()
            if name.startswith(under) and name != path and (recursive or "/" not in name[len(under) :])
        ]
        start = int(self.query.get("cursor", 0))
        end = start + self.hub.page
        headers = {}
        if end < len(held):
            query = "&".join(f"{key}={quote(value)}" for key, value in self.query.items() if key != "cursor")
            here = f"{self.hub.url}{urlsplit(self.path).path}?{query}&cursor={end}"
            headers["Link"] = f'<{here}>; rel="next"'
        self.answer_json(held[start:end], headers)

    def paths_info(self, repo: str, _path: str) -> None:
        form = parse_qs(self.body.decode())
        self.query["expand"] = form.get("expand", ["false"])[0]
        found = self.entries(repo)
        self.answer_json([found[path] for path in form.get("paths", []) if path in found])

    def resolve(self, repo: str, path: str) -> None:
        file = next((file for file in self.hub.files(repo) if file.path == path), None)
        if file is None:
            self.no_entry(path)
        headers = {"X-Repo-Commit": commit_of(repo)}
        if file.sha256 is None:
            self.answer_file(file, headers)
            return
        self.hub.large[file.sha256] = file
        headers |= {"X-Linked-Size": str(file.size), "X-Linked-ETag": f'"{file.sha256}"'}
        headers["Location"] = (
            f"{self.hub.store_url}/{file.sha256}?Signature={self.hub.signature(file.sha256)}"
        )
        self.answer(302, b"Found. Redirecting to the store.", headers)
