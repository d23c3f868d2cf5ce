"""The console's HTTP: health, metrics, the channels' own pages, and later the desks' and admins' pages.

`app()` builds what the daemon serves on `[console] listen`. `/healthz`, `/readyz` and `/metrics` need no
sign-in; what is mounted under `/channel/NAME` looks after its own visitors; every other page asks for one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, FileSystemLoader, select_autoescape
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from relay import __version__, metrics
from relay.console.guard import Guard

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp, Receive, Scope, Send

FOLDER = Path(__file__).parent
UNGUARDED = ("/healthz", "/readyz", "/metrics")
"""Probes come by address or by any name of the machine: no Host check, and nothing there to protect."""


@dataclass(slots=True)
class Readiness:
    """What the daemon has reached; `/readyz` answers 200 once all of it is. A dead adapter counts as tried."""

    database: bool = False
    rules: bool = False
    listeners: bool = False
    adapters: dict[str, bool] = field(default_factory=dict)  # name → was tried once

    @property
    def ready(self) -> bool:
        """All is up, and each adapter was tried once."""
        return self.database and self.rules and self.listeners and all(self.adapters.values())

    def missing(self) -> list[str]:
        """What is still waited for, by name."""
        parts = {"database": self.database, "rules": self.rules, "listeners": self.listeners}
        waiting = [name for name, there in parts.items() if not there]
        return waiting + [f"adapter {name}" for name, tried in self.adapters.items() if not tried]


def templates(*folders: Path) -> Environment:
    """A Jinja environment that escapes everything; `folders` come before the console's own templates."""
    return Environment(
        loader=FileSystemLoader([*map(str, folders), str(FOLDER / "templates")]),
        autoescape=select_autoescape(default_for_string=True, default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )


def app(
    readiness: Readiness,
    *,
    listen: tuple[str, int],
    channels: Mapping[str, ASGIApp] | None = None,
    pages: Sequence[BaseRoute] = (),
    gauges: Callable[[], Awaitable[None]] | None = None,
    warning: Callable[[], Awaitable[str]] | None = None,
    name: str = "Relais",
    language: str = "fr",
) -> Starlette:
    """Build the console's application.

    `channels` is looked up at each request, so that an adapter may mount itself later. `pages` come before
    the console's own and sign their visitors in themselves (the demo's tour). `gauges` is awaited before
    `/metrics` answers, to read from the store what only the store counts; when it fails the rest is shown.
    `warning` is asked for each page what everybody who looks here must know: one line in the site's language
    without a person in it, or "".
    """
    pages_of = templates()
    mounted = channels if channels is not None else {}

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        return JSONResponse(
            {"ready": readiness.ready, "waiting_for": readiness.missing()},
            status_code=200 if readiness.ready else 503,
        )

    async def exposition(_: Request) -> Response:
        if gauges is not None:
            await gauges()
        return Response(metrics.exposition(), media_type=metrics.CONTENT_TYPE)

    async def sign_in(_: Request) -> Response:
        said = await warning() if warning is not None else ""
        page = pages_of.get_template("sign_in.html").render(
            name=name, version=__version__, warning=said, language=language
        )
        return HTMLResponse(page, status_code=401)

    return Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/metrics", exposition),
            Mount("/static", StaticFiles(directory=FOLDER / "static")),
            Mount("/channel", _Channels(mounted)),
            *pages,
            Route("/{path:path}", sign_in, methods=["GET", "POST", "PUT", "PATCH", "DELETE"]),
        ],
        middleware=[Middleware(Guard, listen=listen, unguarded=UNGUARDED)],
    )


class _Channels:
    """Hands `/channel/NAME/…` to the adapter of that name."""

    def __init__(self, mounted: Mapping[str, ASGIApp]) -> None:
        self.mounted = mounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        root = scope.get("root_path", "")
        name, _, _ = scope["path"].removeprefix(root).lstrip("/").partition("/")
        channel = self.mounted.get(name)
        if channel is None:
            await PlainTextResponse("Not found\n", status_code=404)(scope, receive, send)
            return
        await channel({**scope, "root_path": f"{root}/{name}"}, receive, send)
