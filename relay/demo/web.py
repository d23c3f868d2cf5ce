"""The tour's page and the few requests it makes. The visitor is signed in by opening it; nobody else can act.

`pages()` gives the routes that the console serves before its own. A request that acts needs the session's
cookie and the page's token: another site open in the same browser has neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from relay import __version__
from relay.console import templates
from relay.demo import letters, people
from relay.demo.tour import MOST_TEXT
from relay.errors import NotFound, Refused

if TYPE_CHECKING:
    from starlette.requests import Request

    from relay.demo.tour import Tour

COOKIE = "relais-demo"
LONG_POLL = 1.5  # seconds; below what the server waits for when it stops


def pages(tour: Callable[[], Tour]) -> list[Route]:
    """The routes; `tour` is called at each request, for it is there only once the relay runs."""
    session, token = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
    page = templates().get_template("tour.html")

    def signed_in(request: Request) -> None:
        if not hmac.compare_digest(request.cookies.get(COOKIE, "").encode(), session.encode()):
            raise HTTPException(403, "Ouvrez d'abord la page d'accueil.")

    async def show(_: Request) -> Response:
        here = tour()
        doctors = [{"who": doctor, "path": here.chat_path(doctor)} for doctor in people.DOCTORS]
        shown = page.render(
            token=token,
            doctors=doctors,
            ward=people.WARD,
            version=__version__,
            example=letters.example(here.local()),
        )
        answer = HTMLResponse(shown)
        answer.set_cookie(COOKIE, session, httponly=True, samesite="strict")
        return answer

    async def state(request: Request) -> Response:
        signed_in(request)
        here = tour()
        if request.query_params.get("after") == str(here.version):
            changed = here.changed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONG_POLL):
                    await changed.wait()
        return JSONResponse(here.page())

    async def act(request: Request) -> Response:
        signed_in(request)
        if not hmac.compare_digest(request.headers.get("x-relais-demo", "").encode(), token.encode()):
            raise HTTPException(403, "Rechargez la page.")
        asked = await _body(request)
        try:
            await _done(tour(), request.path_params["act"], asked)
        except (NotFound, Refused) as error:
            return JSONResponse({"error": str(error)}, status_code=409)
        return JSONResponse({})

    async def attachment(request: Request) -> Response:
        signed_in(request)
        try:
            name, content = tour().attachment(request.path_params["mail"], request.path_params["place"])
        except NotFound as error:
            raise HTTPException(404, str(error)) from None
        # Saved, never shown: what a letter carries does not run on this page's origin.
        headers = {"content-disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}"}
        return Response(content, media_type="application/octet-stream", headers=headers)

    return [
        Route("/", show),
        Route("/demo/state", state),
        Route("/demo/mail/{mail:int}/{place:int}", attachment),
        Route("/demo/{act}", act, methods=["POST"]),
    ]


async def _body(request: Request) -> dict[str, Any]:  # the page's JSON
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > 8 * MOST_TEXT:
            raise HTTPException(413)
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400) from None
    if not isinstance(asked, dict):
        raise HTTPException(400)
    return asked


async def _done(tour: Tour, act: str, asked: dict[str, Any]) -> None:
    number = asked.get("mail")
    mail = number if isinstance(number, int) else -1
    match act:
        case "send":
            await tour.send(str(asked.get("letter", "")))
        case "write":
            await tour.write(str(asked.get("text", "")))
        case "answer":
            await tour.answer(mail, str(asked.get("text", "")))
        case "open":
            await tour.open(mail)
        case "again":
            tour.again()
        case _:
            raise NotFound("Cette action n'existe pas.")
