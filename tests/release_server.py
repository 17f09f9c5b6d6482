"""A local server of release files that can be told to misbehave, and official-format files to serve."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

import golden_files


class ReleaseServer(ThreadingHTTPServer):
    """Serves `files`, and keeps the requests it gets.

    Attributes:
        files: name -> contents.
        ranges: whether ranges are served.
        validators: whether an ETag is sent.
        lengths: whether the length is sent.
        status: answer with this status instead.
        cuts: per request in turn, after how many bytes of the body the connection is closed (None: not at all).
        stall: send half of the body and then nothing, for this many seconds.
        delay: seconds before every answer.
        requests: name and Range header of every request.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.ranges = self.validators = self.lengths = True
        self.status: int | None = None
        self.cuts: list[int | None] = []
        self.stall = self.delay = 0.0
        self.requests: list[tuple[str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/weights/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that goes away is no news


class _Handler(BaseHTTPRequestHandler):
    server: ReleaseServer

    def do_GET(self) -> None:
        server, name = self.server, self.path.rsplit("/", 1)[-1]
        asked = self.headers.get("Range")
        server.requests.append((name, asked))
        time.sleep(server.delay)
        if server.status or name not in server.files:
            self.send_error(server.status or 404)
            return
        content = server.files[name]
        tag = f'"{hash(content)}"'
        start = 0
        if asked and server.ranges and self.headers.get("If-Range", tag) == tag:
            start = int(asked.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if server.validators:
            self.send_header("ETag", tag)
        body = content[start:]
        if server.lengths:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.stall:
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            time.sleep(server.stall)
            return
        cut = server.cuts.pop(0) if server.cuts else None
        self.wfile.write(body if cut is None else body[:cut])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[ReleaseServer]:
    server = ReleaseServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def official(path: Path, golden: Path, change: Callable[[dict[str, Any]], object] = lambda _: None) -> bytes:
    """Write a golden file's model as its publishers would, and give the bytes of the file."""
    file = golden_files.read(golden)
    contents = {"model_config": file["config"], "state_dict": golden_files.make_state_dict(file)}
    change(contents)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(contents, path)
    return path.read_bytes()
