"""The service of ``cxrlit demo``, served for a test, and programs that ask it."""

import http.client
import json
import os
import pickle
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import jsonschema
from hostile import Payload

from cxrlit import Predictor
from cxrlit.handoff.demo.intake import Limits
from cxrlit.handoff.demo.openapi import describe_service
from cxrlit.handoff.demo.server import make_server, open_port
from cxrlit.handoff.demo.service import make_app
from cxrlit.handoff.predictor import Prediction

PATIENCE_S = 30
FILE = {"Content-Type": "application/octet-stream"}


class Answered(NamedTuple):
    """An answer, its JSON read where it is JSON."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


class Served(NamedTuple):
    """A service.

    Attributes:
        address: Where.
        folder: Its working folder, and the only place for temporary files of it and of its libraries.
    """

    address: str
    folder: Path

    def list_files(self) -> set[str]:
        """The names of what lies in the folder."""
        return {path.name for path in self.folder.rglob("*") if path.is_file()}

    @property
    def host(self) -> str:
        return urlsplit(self.address).netloc

    def ask(
        self, path: str, content: Any = None, headers: dict[str, Any] | None = None, *, method: str = "", **options: Any
    ) -> Answered:
        """GET an address, or POST content to it."""
        with closing(http.client.HTTPConnection(self.host, timeout=PATIENCE_S)) as connection:
            asked = method or ("GET" if content is None else "POST")
            connection.request(asked, path, content, headers or {}, **options)
            answer = connection.getresponse()
            body: Any = answer.read()
            if answer.headers.get_content_type() == "application/json":
                body = json.loads(body)
            return Answered(answer.status, answer.headers, body)

    def predict(self, content: Any, query: str = "", **options: Any) -> Answered:
        return self.ask(f"/predict{query}", content, FILE, **options)

    def connect(self, *lines: str, then: bytes = b"") -> socket.socket:
        """A program that has sent these lines, and then some bytes."""
        name, _, port = self.host.partition(":")
        one = socket.create_connection((name, int(port)), PATIENCE_S)
        one.sendall("".join(f"{line}\r\n" for line in (*lines, "")).encode() + then)
        return one

    def begin(self, n_bytes: int, start: bytes = b"") -> socket.socket:
        """A program that has said how large its file is, and sent its start."""
        head = ("POST /predict HTTP/1.1", f"Host: {self.host}", "Content-Type: image/png", f"Content-Length: {n_bytes}")
        return self.connect(*head, then=start)

    def await_waiting(self, n_files: int) -> None:
        """Until so many files are coming in or wait."""
        assert any(self.ask("/health").body["waiting"] == n_files for _ in range(20_000))


class Watched(Predictor):
    """A predictor that notes what it is given, and begins when it may."""

    def __init__(self, predictor: Predictor) -> None:
        super().__init__(predictor.bundle, predictor.backend)
        self.given: list[bytes] = []
        self.may_begin = threading.Event()
        self.may_begin.set()

    def predict_content(self, content: bytes, *, heatmaps: bool = False) -> Prediction:
        self.given.append(content)
        assert self.may_begin.wait(PATIENCE_S)
        return super().predict_content(content, heatmaps=heatmaps)


@contextmanager
def serve_here(predictor: Predictor, folder: Path, limits: Limits | None = None) -> Iterator[Served]:
    """The service in a thread of this process."""
    with open_port(0) as door:
        server = make_server(make_app(predictor, limits))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]})
        thread.start()
        try:
            yield Served(f"http://127.0.0.1:{door.getsockname()[1]}", folder)
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def serve(bundle: Path, folder: Path, *options: str) -> Iterator[Served]:
    """The command itself, in a process of its own, until SIGTERM ends it; it has said nothing of a fault then."""
    command = [sys.executable, "-m", "cxrlit", "demo", str(bundle), "--port", "0"]
    # A proxy that is not there: what asks for anything beyond this machine fails.
    elsewhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    environment = {**os.environ, **elsewhere, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(sys.path)}
    log = folder.with_suffix(".log")
    with log.open("w") as errors:
        process = subprocess.Popen(
            [*command, *options], env=environment, cwd=folder, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        lines = iter(process.stdout.readline, "")
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in lines)), None)
        assert found, log.read_text()
        yield Served(found[0], folder)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE_S) == 0
        assert log.read_text() == ""
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def check_described(answered: Answered, path: str) -> None:
    """An answer is one that the description promises."""
    description = describe_service()
    (method,) = description["paths"][path].values()
    content = method["responses"][str(answered.status)]["content"]["application/json"]
    jsonschema.validate(answered.body, {**content["schema"], "components": description["components"]})


def make_bad(good: bytes, canary: Path) -> dict[str, bytes]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    bomb = chunk(b"IHDR", struct.pack(">IIBBBBB", 200_000, 200_000, 8, 0, 0, 0, 0))
    return {
        "model.pt": pickle.dumps(Payload(canary)),
        "polyglot.png": good[:40] + pickle.dumps(Payload(canary)),
        "bomb.png": good[:8] + bomb + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b""),
        "half.png": good[: len(good) // 2],
        "page.svg": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "empty.png": b"",
    }
