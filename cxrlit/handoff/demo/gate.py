"""What stands before the page: who may ask, for what, and how a file comes in.

Gradio serves more than this page needs: files by their path, proxies, logs. Only what the page asks for passes. Its own
way to take files keeps them under the hash of their content, so that two people with the same file would share one,
and the first to be done would take it from the other: here each upload is a file of its own, with a name that says
nothing.
"""

import asyncio
import re

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxrlit.handoff.demo.asking import Events, read_question
from cxrlit.handoff.demo.uploads import Uploads

MAX_BYTES = 64 * 2**20
"""The largest file that is taken."""

SILENT_SECONDS = 60
"""A request that is not whole, and of which nothing more comes for so long, is given up."""

FORM_BYTES = 2**16
"""What a form may have around its file."""

QUESTION_BYTES = 2**16

HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
UPLOAD, PROGRESS = "/gradio_api/upload", "/gradio_api/upload_progress"
ASK, HEAR = "/gradio_api/queue/join", "/gradio_api/queue/data"
PAGES = frozenset(
    {"/", "/config", "/theme.css", "/favicon.ico", "/gradio_api/startup-events", UPLOAD, PROGRESS, ASK, HEAR}
)
FOLDERS = ("/assets/", "/static/", "/gradio_api/heartbeat/")

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
        events: What may be asked of the other.
    """

    def __init__(self, app: ASGIApp, uploads: Uploads, events: Events) -> None:
        self.app, self.uploads, self.events = app, uploads, events

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
        elif path == ASK:
            app = await self._pass_on(scope, receive)
        elif path == PROGRESS:  # of Gradio's own uploads
            app = Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")
        else:
            app = self.app
        await app(scope, receive, send)

    async def _take_file(self, scope: Scope, receive: Receive) -> Response:
        """Keep the file of a form; the answer is its path, in a list."""
        with self.uploads.hold_place() as is_free:
            if not is_free:
                return PlainTextResponse("Too many files wait: try again in a moment.", 503)
            try:
                bounded = _bound(receive, MAX_BYTES + FORM_BYTES)
                async with Request(scope, bounded).form(max_files=1, max_fields=0) as form:
                    file = form.get("files")
                    if not isinstance(file, UploadFile):
                        return PlainTextResponse("There is no file in the form.", 400)
                    path = await run_in_threadpool(self.uploads.keep, file.file)
            except TooLargeError:
                return PlainTextResponse(f"The file is larger than {MAX_BYTES // 2**20} MiB.", 413)
            except MultiPartException as error:
                return PlainTextResponse(error.message, 400)
            except (TimeoutError, ClientDisconnect):
                return PlainTextResponse("The file did not come whole.", 408)
            except OSError as error:
                return PlainTextResponse(f"The file cannot be kept: {error.strerror}.", 507)
        self.uploads.await_asking(path)
        return JSONResponse([str(path)])

    async def _pass_on(self, scope: Scope, receive: Receive) -> ASGIApp:
        """The other, asked what the page can ask; or the answer to whoever asks for anything else."""
        if scope["method"] != "POST":
            return PlainTextResponse("Questions are posted.", 405)
        try:
            content = await Request(scope, _bound(receive, QUESTION_BYTES)).body()
        except TooLargeError:
            return PlainTextResponse("That is no question of this page.", 413)
        except (TimeoutError, ClientDisconnect):
            return PlainTextResponse("The question did not come whole.", 408)
        question = read_question(content, self.events, self.uploads)
        if question is None:
            return PlainTextResponse("That is no question of this page.", 400)
        body, upload = question
        if upload:
            self.uploads.ask(upload)

        async def ask(scope: Scope, _: Receive, send: Send) -> None:
            messages = iter([{"type": "http.request", "body": body, "more_body": False}])

            async def receive_question() -> Message:
                return next(messages, None) or await receive()

            async def send_answer(message: Message) -> None:
                if upload and message["type"] == "http.response.start" and message["status"] != 200:
                    self.uploads.forget(upload)
                await send(message)

            kept = [pair for pair in scope["headers"] if pair[0] not in {b"content-type", b"content-length"}]
            told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await self.app({**scope, "headers": kept + told}, receive_question, send_answer)

        return ask


class TooLargeError(MultiPartException):
    """A request has more bytes than it may."""


def _is_own(headers: Headers) -> bool:
    """Whether a request is of the page itself: another site's name may lead here too, and its page ask for things."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    return len(hosts) == 1 and HOST.fullmatch(hosts[0]) is not None and set(origins) <= {f"http://{hosts[0]}"}


def _bound(receive: Receive, max_bytes: int) -> Receive:
    n_bytes = 0

    async def receive_bounded() -> Message:
        nonlocal n_bytes
        message = await asyncio.wait_for(receive(), SILENT_SECONDS)
        n_bytes += len(message.get("body", b""))
        if n_bytes > max_bytes:
            raise TooLargeError("too large")
        return message

    return receive_bounded


def _add_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(HEADERS)
        await send(message)

    return send_with_headers
