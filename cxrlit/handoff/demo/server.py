"""``cxrlit demo``: the page, served to this machine alone until it is stopped."""

import os
import signal
import socket
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cxrlit.core.console import say
from cxrlit.core.errors import ConfigError
from cxrlit.handoff.backends import BackendName
from cxrlit.handoff.predictor import Predictor

if TYPE_CHECKING:
    from cxrlit.handoff.demo.gate import Gate

HOST = "127.0.0.1"


@dataclass(frozen=True)
class DemoOptions:
    """What ``cxrlit demo`` takes.

    Attributes:
        bundle: Folder of the bundle.
        port: Of this machine; 0: any that is free.
        backend: torch or onnx.
        n_threads: None: one a core.
    """

    bundle: Path
    port: int
    backend: BackendName
    n_threads: int | None


def serve_demo(options: DemoOptions) -> None:
    """Serve the page until Ctrl-C or a signal; what was uploaded is gone then.

    Raises:
        BundleError: The bundle cannot be used.
        ConfigError: Gradio is not installed, or the port is taken.
    """
    if find_spec("gradio") is None:
        raise ConfigError("gradio is not installed: pip install 'cxrlit[demo]'")
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        with open_port(options.port) as door, TemporaryDirectory(prefix="cxrlit-demo-") as home:
            predictor = Predictor.load(options.bundle, options.backend, n_threads=options.n_threads)
            app = make_app(predictor, Path(home))
            say(f"{predictor.bundle.config.name}: {predictor.backend.description}")
            say(f"The page is at http://{HOST}:{door.getsockname()[1]}, for this machine alone; Ctrl-C ends it.")
            say("Research use only: not a medical device.")
            _serve(app, door)
    except KeyboardInterrupt:
        return


def open_port(port: int) -> socket.socket:
    """A socket that listens on this machine's own address.

    Raises:
        ConfigError: The port is taken.
    """
    try:
        return socket.create_server((HOST, port))
    except OSError as error:
        what = os.strerror(error.errno or 0).lower()
        raise ConfigError(f"--port {port}: {what}: take another, or 0 for any") from None


def make_app(predictor: Predictor, home: Path) -> "Gate":
    """The page as an ASGI application.

    Args:
        predictor: What answers.
        home: A folder for uploads and examples, of this page alone.
    """
    folders = [home / "uploads", home / "examples"]
    for folder in folders:
        folder.mkdir()
    uploads, examples = folders
    # Gradio reads settings from the environment when it is imported, when it starts and later on.
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    os.environ |= {
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_TEMP_DIR": str(home),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "1",
    }
    from cxrlit.handoff.demo.examples import draw_examples
    from cxrlit.handoff.demo.gate import Gate
    from cxrlit.handoff.demo.page import build_page, list_events, mount_page
    from cxrlit.handoff.demo.uploads import Uploads

    drawn = draw_examples(examples)
    page = build_page(predictor, drawn)
    return Gate(mount_page(page, drawn), Uploads(uploads), list_events(page))


def _serve(app: "Gate", door: socket.socket) -> None:
    import uvicorn

    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[door])


def _interrupt(number: int, frame: object) -> None:
    """A signal ends the page as Ctrl-C does, so that its folder is removed."""
    signal.raise_signal(signal.SIGINT)
