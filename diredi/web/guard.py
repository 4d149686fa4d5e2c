"""What stands in front of every page: who may ask, how much at a time, and what browsers may do with the answer."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diredi.rpc.byte_counter import EgressMeter
from diredi.web.hosts import REFUSAL, is_local_name

MAX_BODY_BYTES: Final = 2**20
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline, and nothing of any other host."""
HEADERS: Final = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """Answer only who asks for this machine, with headers that keep pages to themselves, and count what is answered."""

    def __init__(
        self, app: ASGIApp, names: Collection[str], meter: EgressMeter, uploads: Mapping[str, int], *, has_tls: bool
    ) -> None:
        """Stand in front of an application.

        Args:
            app: The application.
            names: Names that may be asked for beside addresses and local names.
            meter: Counts what is answered, by the first part of the path.
            uploads: Paths that take more than `MAX_BODY_BYTES`, and how much.
            has_tls: Whether browsers shall insist on TLS from now on.
        """
        self._app, self._names, self._meter = app, {name.lower() for name in names}, meter
        self._uploads = uploads
        headers = HEADERS | ({"strict-transport-security": "max-age=31536000"} if has_tls else {})
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on an HTTP request, or refuse it."""
        if scope["type"] != "http":
            return
        kind, taken = "pages/text", 0
        most = self._uploads.get(scope["path"], MAX_BODY_BYTES)

        async def receive_bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            return message if taken <= most else {"type": "http.disconnect"}

        async def send_guarded(message: Message) -> None:
            nonlocal kind
            if message["type"] == "http.response.start":
                said = {name.lower(): value for name, value in message["headers"]}
                kept = [] if b"cache-control" in said else [(b"cache-control", b"no-store")]
                kind = "pages/pictures" if said.get(b"content-type", b"").startswith(b"image/") else kind
                message["headers"] = [*message["headers"], *kept, *self._headers]
            elif message.get("body"):
                self._meter.count(kind, len(message["body"]))
            await send(message)

        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        app = self._app
        if not is_local_name(headers.get(b"host", ""), self._names):
            app = PlainTextResponse(REFUSAL, 421)
        elif (size := headers.get(b"content-length", "0")).isdigit() and int(size) > most:
            app = PlainTextResponse(f"a request has at most {most} bytes: send less\n", 413)
        await app(scope, receive_bounded, send_guarded)
