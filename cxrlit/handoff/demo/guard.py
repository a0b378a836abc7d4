"""ASGI middleware: the service answers this machine's own address alone, and tells browsers to ask nobody else.

A page of another site may be open in a browser of this machine. It cannot read what the service answers, but it could
have it answer: by posting to 127.0.0.1, or through a name of its own that it lets point there (DNS rebinding). The
first is known by its ``Origin``, the second by its ``Host``.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
"""Any port: a tunnel may end at another one."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer; the page has a content policy of its own."""


class Guard:
    """An ASGI application before another.

    Args:
        app: The other.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']} is not served")
        app = self.app
        if not is_own(Headers(scope=scope)):
            app = JSONResponse({"error": "this service answers http://127.0.0.1 and http://localhost alone"}, 403)

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await app(scope, receive, send_with_headers)


def is_own(headers: Headers) -> bool:
    """Whether a request names this machine as its host, and comes from a page of that very address or from no page."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    return len(hosts) == 1 and HOST.fullmatch(hosts[0]) is not None and set(origins) <= {f"http://{hosts[0]}"}
