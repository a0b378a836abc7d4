"""``cxrlit demo``: serve the page to this machine only, until it is stopped."""

import os
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cxrlit.core.console import say
from cxrlit.core.errors import ConfigError
from cxrlit.core.extras import import_extra
from cxrlit.core.notice import RESEARCH_USE
from cxrlit.handoff.backends.backend import BackendChoice, DeviceName, Precision
from cxrlit.handoff.predictor import Predictor

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn import Server

HOST = "127.0.0.1"
PACKAGES = ("starlette", "uvicorn", "h11")


@dataclass(frozen=True)
class DemoOptions:
    """Options of ``cxrlit demo``.

    Attributes:
        bundle: Folder of the bundle.
        port: Local port; 0: any free one.
        backend: torch, onnx, openvino, or auto.
        precision: fp32, bf16 or int8; None: as ``Predictor.load`` chooses.
        n_threads: Threads; None: one per core.
        device: Device of torch.
    """

    bundle: Path
    port: int
    backend: BackendChoice
    precision: Precision | None
    n_threads: int | None
    device: DeviceName = "auto"


def serve_demo(options: DemoOptions) -> None:
    """Serve a bundle and its page until Ctrl-C or a signal.

    Raises:
        BundleError: The bundle cannot be used.
        ConfigError: The server packages are not installed, or the port is taken.
    """
    for package in PACKAGES:
        import_extra(package, "demo", "cxrlit demo")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with open_port(options.port) as door:
            from cxrlit.handoff.demo.service import make_app

            predictor = Predictor.load(
                options.bundle,
                options.backend,
                precision=options.precision,
                n_threads=options.n_threads,
                device=options.device,
            )
            app = make_app(predictor)
            address = f"http://{HOST}:{door.getsockname()[1]}"
            say(f"{predictor.bundle.config.title}: {predictor.description}")
            say(f"The page is at {address}, for this machine alone; Ctrl-C ends it.")
            say(f"Programs post files to {address}/predict; {address}/openapi.json describes it.")
            say(RESEARCH_USE)
            make_server(app).run(sockets=[door])
    except KeyboardInterrupt:
        return


def open_port(port: int) -> socket.socket:
    """Open a socket on this machine's own address.

    Raises:
        ConfigError: The port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        what = os.strerror(error.errno or 0).lower()
        raise ConfigError(f"--port {port}: {what}: take another, or 0 for any") from None


def make_server(app: "ASGIApp") -> "Server":
    """Make the server of an application, independent of environment variables and other installed packages."""
    import uvicorn

    config = uvicorn.Config(
        app, loop="asyncio", http="h11", ws="none", lifespan="off", workers=1, log_level="warning",
        access_log=False, proxy_headers=False, server_header=False, timeout_graceful_shutdown=1,
    )  # fmt: skip
    return uvicorn.Server(config)


def _interrupt(number: int, frame: object) -> None:
    """End the service on a signal like on Ctrl-C, with exit code 0."""
    signal.raise_signal(signal.SIGINT)
