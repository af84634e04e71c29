"""A stand-in for the Hugging Face hub on the loopback: refs, revisions, files and their ranges.

It answers what huggingface_hub asks, in the form of the hub, and can be told to fail.
"""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save
from torch import Tensor

__all__ = ["Repository", "StandIn", "safetensors_of", "stand_in"]


def safetensors_of(state: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file."""
    return save({name: tensor.contiguous() for name, tensor in state.items()})


@dataclass
class Repository:
    """Commits with their files, and the branches and tags that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    token: str | None = None
    gated: bool = False

    def add(self, files: Mapping[str, bytes], branch: str = "main", *, tag: bool = False) -> str:
        """Commit files, and let a branch or a tag point there."""
        content = repr(sorted(files)).encode() + b"".join(files[name] for name in sorted(files))
        commit = sha1(content + branch.encode()).hexdigest()
        self.commits[commit] = dict(files)
        (self.tags if tag else self.branches)[branch] = commit
        return commit

    def resolved(self, name: str) -> str | None:
        """The commit that a branch, a tag or a commit names."""
        known = {**self.tags, **self.branches, **{commit: commit for commit in self.commits}}
        return known.get(name)


class StandIn:
    """The server's state: repositories, faults, and what was asked.

    Attributes:
        repositories: by ``org/name``.
        faults: asked, in this order, with each request before it is answered; one that returns True
            has answered it.
        requests: method, path and range of each.
        moved: bytes of files that were sent.
        redirects: send whoever asks for a file to another host name, as the hub does.
        leaked: paths of requests at the other host that bore a token.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.faults: list[Callable[[_Handler], bool]] = []
        self.requests: list[tuple[str, str, str]] = []
        self.moved = 0
        self.redirects = False
        self.leaked: list[str] = []
        self.endpoint = ""
        self.port = 0

    def fail(self, times: int, status: int, part: str = "", **headers: str) -> None:
        """Answer the next requests whose path holds a text with a status."""
        left = [times]

        def fault(handler: "_Handler") -> bool:
            if part not in handler.path or not left[0]:
                return False
            left[0] -= 1
            handler.answer(status, b"token hf_secret", {**headers})
            return True

        self.faults.append(fault)

    def cut(self, times: int, part: str, after: int) -> None:
        """Break the connection of the next requests for a file, after some bytes."""
        left = [times]

        def fault(handler: "_Handler") -> bool:
            if part not in handler.path or not left[0]:
                return False
            left[0] -= 1
            handler.cut_after = after
            return False

        self.faults.append(fault)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    cut_after: int | None = None

    @property
    def hub(self) -> StandIn:
        return self.server.hub  # type: ignore[attr-defined,no-any-return]

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def log_message(self, *args: Any) -> None:
        """Be silent."""

    def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        """Send a whole answer."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body[: self.cut_after]
        self.wfile.write(sent)
        if self.cut_after is not None:
            self.close_connection = True

    def _serve(self) -> None:
        self.cut_after = None
        self.hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
        if any(fault(self) for fault in self.hub.faults):
            return
        path = urlsplit(self.path).path
        if path.startswith("/api/models/"):
            self._api(path.removeprefix("/api/models/"))
        else:
            self._file(path.strip("/"))

    def _json(self, content: object) -> None:
        self.answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _refused(self, repository: Repository | None) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if repository is None or (repository.token is not None and given != repository.token):
            if repository is not None and repository.gated:
                self.answer(403, b"", {"X-Error-Code": "GatedRepo"})
            else:
                self.answer(401, b"", {"X-Error-Code": "RepoNotFound"})
            return True
        return False

    def _api(self, rest: str) -> None:
        organisation, name, *more = rest.split("/")
        repository = self.hub.repositories.get(f"{organisation}/{name}")
        if self._refused(repository):
            return
        assert repository is not None
        if more == ["refs"]:
            self._json(
                {
                    kind: [
                        {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": commit}
                        for ref, commit in found.items()
                    ]
                    for kind, found in (
                        ("branches", repository.branches),
                        ("tags", repository.tags),
                        ("converts", {}),
                    )
                }
            )
            return
        commit = repository.resolved(unquote(more[1]) if more else "main")
        if commit is None:
            self.answer(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return
        self._json(
            {
                "id": f"{organisation}/{name}",
                "sha": commit,
                "siblings": [
                    {"rfilename": file, "size": len(content)}
                    for file, content in repository.commits[commit].items()
                ],
            }
        )

    def _file(self, path: str) -> None:
        elsewhere = path.startswith("elsewhere/")
        if path.count("/") < 4:
            # Such as whose token it is.
            self.answer(404, b"", {})
            return
        if elsewhere and self.headers.get("Authorization"):
            self.hub.leaked.append(path)
        organisation, name, _, revision, *parts = path.removeprefix("elsewhere/").split("/")
        repository = self.hub.repositories.get(f"{organisation}/{name}")
        if not elsewhere and self._refused(repository):
            return
        assert repository is not None
        commit = repository.resolved(unquote(revision))
        content = repository.commits.get(commit or "", {}).get(unquote("/".join(parts)))
        if content is None or commit is None:
            self.answer(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        known = {"ETag": f'"{sha1(content).hexdigest()}"', "X-Repo-Commit": commit}
        if self.hub.redirects and not elsewhere and self.command == "GET":
            target = f"http://localhost:{self.hub.port}/elsewhere/{path}"
            self.answer(302, b"", {**known, "Location": target})
            return
        status, asked = 200, self.headers.get("Range")
        sent = content
        if asked is not None:
            first, _, last = asked.removeprefix("bytes=").partition("-")
            sent = content[int(first) : int(last) + 1 if last else None]
            end = int(first) + len(sent) - 1
            status, known["Content-Range"] = 206, f"bytes {first}-{end}/{len(content)}"
        if self.command == "GET":
            self.hub.moved += len(sent)
        self.answer(status, sent, known)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Be silent: whoever refuses an answer closes the connection."""


@contextmanager
def stand_in() -> Iterator[StandIn]:
    """Serve a stand-in for the duration of a block, to huggingface_hub in this process."""
    hub = StandIn()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.hub = hub  # type: ignore[attr-defined]
    server.daemon_threads = True
    hub.port = server.server_address[1]
    hub.endpoint = f"http://127.0.0.1:{hub.port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patched:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.endpoint)
        patched.setattr(constants, "ENDPOINT", hub.endpoint)
        patched.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        patched.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patched.delenv("HF_TOKEN", raising=False)
        try:
            yield hub
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def small_network(seed: int, scale: float = 1.0) -> dict[str, Tensor]:
    """Weights of a small network, with an embedding that is larger than all else."""
    source = torch.Generator().manual_seed(seed)
    return {
        "embed.weight": torch.randn(500, 40, generator=source),
        "layers.0.weight": torch.randn(60, 50, generator=source) * scale,
        "layers.0.bias": torch.zeros(60),
        "layers.1.weight": torch.randn(50, 60, generator=source).exp() * scale,
    }
