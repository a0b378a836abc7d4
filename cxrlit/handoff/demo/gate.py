"""What stands before the page: who may ask, for what, and how a file comes in.

Gradio serves more than this page needs: files by their path, proxies, logs. Only what the page asks for passes. Its own
way to take files keeps them under the hash of their content, so that two people with the same file would share one,
and the first to be done would take it from the other: here each upload is a file of its own, with a name that says
nothing.
"""

import asyncio
import os
import re
import secrets
import shutil
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BYTES = 64 * 2**20
"""The largest file that is taken."""

MAX_WAITING = 32
"""So many uploads may wait for the network."""

KEEP_SECONDS = 600
"""An upload that nobody asked about, since its page was closed, goes after this."""

FORM_BYTES = 2**16
"""What a form may have around its file."""

HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
PAGES = frozenset({"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/startup-events", UPLOAD, PROGRESS})
FOLDERS = ("/assets/", "/static/", "/gradio_api/queue/", "/gradio_api/heartbeat/")

HEADERS = {
    # Gradio's own scripts are inline and compile templates; whatever they ask for, it comes from here or not at all.
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; object-src 'none'; "
    "base-uri 'self'; form-action 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}


class Gate:
    """An ASGI application before another.

    Args:
        app: The other.
        uploads: Where uploads go.
    """

    def __init__(self, app: ASGIApp, uploads: Path) -> None:
        self.app, self.uploads = app, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, _add_headers(send))
        else:
            await send({"type": "websocket.close"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if not _is_own(Headers(scope=scope)):
            app: ASGIApp = PlainTextResponse("This page answers its own address alone.", 403)
        elif path not in PAGES and not path.startswith(FOLDERS):
            app = PlainTextResponse("There is nothing here.", 404)
        elif path == UPLOAD:
            app = await self._take_file(scope, receive)
        elif path == PROGRESS:  # of Gradio's own uploads
            app = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
        else:
            app = self.app
        await app(scope, receive, send)

    async def _take_file(self, scope: Scope, receive: Receive) -> Response:
        """Keep the file of a form; the answer is its path, in a list."""
        if len(os.listdir(self.uploads)) >= MAX_WAITING:
            return PlainTextResponse("Too many files wait: try again in a moment.", 503)
        try:
            async with Request(scope, _bound(receive)).form(max_files=1, max_fields=0) as form:
                file = form.get("files")
                if not isinstance(file, UploadFile):
                    return PlainTextResponse("There is no file in the form.", 400)
                path = self.uploads / secrets.token_hex(16)
                await run_in_threadpool(_keep, file, path)
                asyncio.get_running_loop().call_later(KEEP_SECONDS, path.unlink, True)
        except MultiPartException as error:
            return PlainTextResponse(error.message, 413 if "larger" in error.message else 400)
        except OSError as error:
            return PlainTextResponse(f"The file cannot be kept: {error.strerror}.", 507)
        return JSONResponse([str(path)])


def _is_own(headers: Headers) -> bool:
    """Whether a request is of the page itself: another site's name may lead here too, and its page ask for things."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    return len(hosts) == 1 and HOST.fullmatch(hosts[0]) is not None and set(origins) <= {f"http://{hosts[0]}"}


def _bound(receive: Receive) -> Receive:
    n_bytes = 0

    async def receive_bounded() -> Message:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > MAX_BYTES + FORM_BYTES:
            raise MultiPartException(f"The file is larger than {MAX_BYTES // 2**20} MiB.")
        return message

    return receive_bounded


def _keep(file: UploadFile, path: Path) -> None:
    try:
        with path.open("xb") as kept:
            shutil.copyfileobj(file.file, kept)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _add_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return send_with_headers
