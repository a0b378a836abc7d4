"""ASGI middleware: accept only requests to this machine's own address, and add security headers.

A page of another site may be open in a browser on this machine. It cannot read the answers of the service, but it could
send requests: by posting to 127.0.0.1, or through its own host name that resolves there (DNS rebinding). The ``Origin``
header reveals the first, ``Host`` the second.
"""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = re.compile(r"(?:127\.0\.0\.1|localhost)(?::[0-9]{1,5})?", re.IGNORECASE)
"""Accepted hosts, with any port, since a tunnel may use another one."""

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Headers of every answer; the page has its own content policy."""


class Guard:
    """Middleware around an ASGI application.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 403 if it is not from this machine's own address; adds ``HEADERS``.

        Raises:
            ValueError: It is not an HTTP request.
        """
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
    """Whether a request names this machine as its host, and comes from a page of the same address or from no page."""
    hosts, origins = headers.getlist("host"), headers.getlist("origin")
    return len(hosts) == 1 and HOST.fullmatch(hosts[0]) is not None and set(origins) <= {f"http://{hosts[0]}"}
