"""What stands before every page: the Host allow-list and the security headers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

HEADERS = {
    # One's own pages may frame one another: the tour shows the chat as the phone it is on.
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'self'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "SAMEORIGIN",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


def host_of(header: str) -> str:
    """The name in a Host header, without its port: `[::1]:8025` → `::1`."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0].lower()


class Guard:
    """Refuses requests for a name that is not ours (DNS rebinding), and adds the headers to every answer.

    `listen` is the address served; a listener on loopback is reached by any name of loopback.
    """

    def __init__(self, app: ASGIApp, *, listen: tuple[str, int], unguarded: Sequence[str] = ()) -> None:
        self.app, self.unguarded = app, frozenset(unguarded)
        self.hosts = LOOPBACK | {listen[0].lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 421 for a foreign name, else the page with the headers it does not set itself."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        host = host_of(Headers(scope=scope).get("host", ""))
        if host not in self.hosts and scope["path"] not in self.unguarded:
            await PlainTextResponse("This name is not served here.\n", 421)(scope, receive, with_headers)
            return
        await self.app(scope, receive, with_headers)
