"""A stand-in for the Hugging Face hub: its HTTP interface over one folder, as far as it is used.

    GET  /api/models/ORG/NAME/revision/REV      commit, files, sizes and hashes
    HEAD /ORG/NAME/resolve/COMMIT/FILE          etag, size, commit
    GET  /ORG/NAME/resolve/COMMIT/FILE          the content, or a range of it

Source: huggingface_hub 2.4, hf_api.py (`model_info`) and file_download.py (`get_hf_file_metadata`).
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

COMMIT = "0123456789abcdef0123456789abcdef01234567"
GATED = "org/gated"


class Hub(BaseHTTPRequestHandler):
    """Serves one model."""

    folder: ClassVar[Path]
    repo: ClassVar[str]
    damaged: ClassVar[set[str]]
    """Files whose content comes otherwise than announced."""
    asked: ClassVar[list[str]]
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        if path.startswith(f"/api/models/{GATED}"):
            self._refuse(403, "GatedRepo")
        elif path.startswith(f"/api/models/{self.repo}/revision/"):
            revision = path.rpartition("/")[2]
            if revision in ("main", COMMIT):
                self._send(json.dumps(self._info()).encode(), {"Content-Type": "application/json"})
            else:
                self._refuse(404, "RevisionNotFound")
        elif path.startswith(f"/{self.repo}/resolve/{COMMIT}/"):
            self._send_file(self.folder / path.rpartition("/")[2])
        else:
            self._refuse(404, "RepoNotFound")

    def _info(self) -> dict[str, object]:
        return {
            "id": self.repo,
            "sha": COMMIT,
            "siblings": [self._sibling(path) for path in sorted(self.folder.rglob("*.*"))],
        }

    def _sibling(self, path: Path) -> dict[str, object]:
        content = path.read_bytes()
        found: dict[str, object] = {
            "rfilename": str(path.relative_to(self.folder)),
            "size": len(content),
            "blobId": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }
        if path.suffix == ".safetensors":
            sha256 = hashlib.sha256(content).hexdigest()
            found["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 134}
        return found

    def _send_file(self, path: Path) -> None:
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if path.name in self.damaged:
            content = content[::-1]
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        self._send(content, headers)

    def _send(self, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextlib.contextmanager
def running_hub(folder: Path, repo: str) -> Iterator[tuple[str, type[Hub]]]:
    """Yield the address of a hub with this model, and its class to look at or change."""

    class Mine(Hub):
        pass

    Mine.folder, Mine.repo, Mine.damaged, Mine.asked = folder, repo, set(), []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Mine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", Mine
    finally:
        server.shutdown()
        server.server_close()
