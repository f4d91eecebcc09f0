"""A hub of our own on loopback: as much of huggingface.co's interface as its client asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """`repos` maps `owner/name`, or `datasets/owner/name`, to its files. `cut` maps a file to how many of its bytes
    come through before the connection breaks, a number an attempt. `asked` are the requests for contents: file and the
    first byte asked for."""

    repos: dict[str, dict[str, bytes]]
    cut: dict[str, list[int]] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    url: str = ""

    def find(self, path: str) -> tuple[str, bytes] | None:
        """The file that `/owner/name/resolve/main/FILE` names."""
        repo, _, rest = path.strip("/").partition("/resolve/")
        name = rest.partition("/")[2]
        return (name, self.repos[repo][name]) if name in self.repos.get(repo, {}) else None

    def api(self, path: str) -> object:
        """What `/api/models/owner/name…` and `/api/datasets/owner/name…` answer; None for what is not there."""
        kind, owner, name, *rest = [*path.removeprefix("/api/").split("/"), "", ""]
        files = self.repos.get(f"{owner}/{name}" if kind == "models" else f"{kind}/{owner}/{name}")
        if files is None or (rest[:1] == ["revision"] and unquote(rest[1]) not in ("main", COMMIT)):
            return None
        if rest[:1] == ["tree"]:
            return [{"type": "file", "path": one, "size": len(data), "oid": etag(data)} for one, data in files.items()]
        return {"id": f"{owner}/{name}", "sha": COMMIT, "siblings": [{"rfilename": one} for one in files]}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, hub: Hub, *arguments: object):
        self.hub = hub
        super().__init__(*arguments)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        """Nothing."""

    def do_HEAD(self) -> None:  # noqa: N802
        self._answer(with_content=False)

    def do_GET(self) -> None:  # noqa: N802
        self._answer(with_content=True)

    def _answer(self, with_content: bool) -> None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/"):
            return self._json(self.hub.api(path))
        found = self.hub.find(path)
        if found is None:
            return self._json(None)
        name, data = found
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        for header, value in {"ETag": f'"{etag(data)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}.items():
            self.send_header(header, value)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        if with_content:
            self.hub.asked.append((name, start))
            self._send(data[start:], self.hub.cut.get(name, []))

    def _send(self, data: bytes, cuts: list[int]) -> None:
        if cuts:
            data, self.close_connection = data[: cuts.pop(0)], True
        self.wfile.write(data)

    def _json(self, answer: object) -> None:
        content = json.dumps({"error": "Repository not found"} if answer is None else answer).encode()
        self.send_response(404 if answer is None else 200)
        if answer is None:
            self.send_header("X-Error-Code", "EntryNotFound" if "/resolve/" in self.path else "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    """The hub at `hub.url` while the block runs; then nobody answers there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def etag(data: bytes) -> str:
    """What tells one content from another."""
    return hashlib.sha256(data).hexdigest()
