"""The relay's own chat page: a phone-sized page per professional, served by the console's listener.

Nothing leaves the machine, so the page can be shown without an account anywhere. It is not confidential all
the same: a phone on a table shows it. Typed prose is neither kept nor passed on, only commands are.

    GET  CHAT?token=…     opens the page and signs its holder in (the token is an HMAC of the chat's name)
    GET  CHAT             the page                GET  CHAT/messages?after=VERSION   waits for something new
    POST CHAT/press       a button                POST CHAT/text                     a command

A press is answered to the browser only once its envelope was committed; the browser repeats one that was
not, under the same id, so it arrives once.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import re
import secrets
from base64 import b32encode
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from html import escape
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from relay.errors import Deferred, Rejected, Verdict
from relay.model import Batch, ChatMessage, Envelope, Press, Receipt, Typed, Why, derived_id, envelope_id
from relay.ports import Limits

if TYPE_CHECKING:
    from starlette.requests import Request

    from relay.model import Delivery
    from relay.ports import Tools

PAGE = Path(__file__).parent / "webchat_page"
COOKIE = "relais-chat"
KEPT = 200  # messages of one chat; older ones scroll away
WAITING = 20  # presses of one chat that were not committed yet; more are told to wait
MOST_BYTES = 2048  # of a request's body
HOLD = 20.0  # seconds a browser waits for our commit before it is told to try again
WORDS = 3.0  # seconds it then waits for the answer's words
LONG_POLL = 25.0  # seconds before an idle page asks again

_CHAT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ID = re.compile(r"[A-Za-z0-9-]{8,64}")
_COMMAND = re.compile(r"/[a-zé]{1,16}(?: +\d{1,2}/\d{1,2}(?:/\d{4})?){0,2}")


class Settings(BaseModel):
    """`[adapters.NAME]` of kind webchat. There is nothing to set: links are made with `relay directory link`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    confidential: Literal[False] = False


def connect(name: str, settings: Settings, tools: Tools) -> Webchat:
    """Open the journal in the state folder and mount the page. Touches no network."""
    chat = Webchat(name, settings, tools)
    if tools.mount is not None:
        tools.mount(name, chat.pages)
    return chat


@dataclass(slots=True)
class _Shown:
    """One message as the page shows it."""

    id: str
    chat: str
    at: str
    text: str
    buttons: list[list[list[str]]]
    link: list[str] | None = None
    silent: bool = False
    edited: str | None = None
    deliveries: list[str] = field(default_factory=list)  # that wrote it: the same one again shows nothing new

    @classmethod
    def of(cls, number: str, message: ChatMessage, at: datetime) -> _Shown:
        rows = [[[label, nonce] for label, nonce in row] for row in message.buttons]
        link = list(message.link) if message.link else None
        return cls(number, message.chat, at.isoformat(), message.text, rows, link, message.silent)

    def visible(self) -> dict[str, object]:
        """What the browser is told."""
        hidden = ("chat", "deliveries")
        return {key: value for key, value in asdict(self).items() if key not in hidden}


@dataclass(slots=True)
class _Waiting:
    """A press or a command on its way from the browser to our commit, and the words that answer it."""

    envelope: Envelope
    chat: str
    taken: asyncio.Future[None]
    words: asyncio.Future[tuple[str, bool]]


@dataclass(slots=True)
class _Chat:
    """What one chat shows, oldest first; `version` changes with it."""

    messages: OrderedDict[str, _Shown] = field(default_factory=OrderedDict)
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def touch(self) -> None:
        self.version += 1
        self.changed.set()
        self.changed = asyncio.Event()


class Webchat:
    """The Channel behind the page."""

    kind = "webchat"
    limits = Limits(
        max_bytes=4096,
        buttons=True,
        confidential=False,
        deduplicates=True,
        edits=True,
        deletes=True,
        parallel=1,
    )

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name, self.settings, self.clock = name, settings, tools.clock
        self._key = _key(tools.state / f"webchat-{name}.key")
        # The key is the place: a new one means that no link, no nonce and no browser of before fits.
        self.account = f"webchat:{hashlib.sha256(self._key).hexdigest()[:16]}"
        self._journal = _Journal(tools.state / f"webchat-{name}.jsonl")
        self._boot = secrets.token_hex(4)
        self._chats: dict[str, _Chat] = {}
        self._by_delivery: dict[str, str] = {}
        self._last = 0
        for shown in self._journal.load():
            self._put(shown)
        self._journal.rewrite([shown for chat in self._chats.values() for shown in chat.messages.values()])
        self._waiting: OrderedDict[str, _Waiting] = OrderedDict()
        self._done: OrderedDict[str, _Waiting] = OrderedDict()
        self._arrived = asyncio.Event()
        self._closed = False
        self._writing = asyncio.Lock()
        self.pages = self._pages()

    # -------------------------------------------------------------------------------------------- adapter

    async def probe(self) -> None:
        """There is nobody to connect to; the journal must be writable."""
        try:
            await asyncio.to_thread(self._journal.append, [])
        except OSError:
            raise Deferred(Why.SERVER_ERROR) from None

    async def close(self) -> None:
        """Let every waiting browser go; its presses were not taken and come again."""
        self._closed = True
        for waiting in self._waiting.values():
            waiting.taken.cancel()
        for chat in self._chats.values():
            chat.touch()
        self._arrived.set()

    # ---------------------------------------------------------------------------------------------- inbox

    async def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Yield presses and commands. A browser that was not answered holds the only copy and repeats it."""
        yielded: set[str] = set()
        while True:
            new = [waiting for ref, waiting in self._waiting.items() if ref not in yielded]
            yielded &= self._waiting.keys()
            for waiting in new:
                yielded.add(waiting.envelope.ref)
            if new:
                yield Batch(self.account, tuple(waiting.envelope for waiting in new), new[-1].envelope.ref)
                continue
            self._arrived.clear()
            await self._arrived.wait()
            if self._closed:
                raise Deferred(Why.CONNECTION)

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Answer the browsers whose presses are now ours."""
        for envelope in envelopes:
            waiting = self._waiting.pop(envelope.ref, None)
            if waiting is None:
                continue
            self._done[envelope.ref] = waiting
            while len(self._done) > 500:
                self._done.popitem(last=False)
            if not waiting.taken.done():
                waiting.taken.set_result(None)

    # --------------------------------------------------------------------------------------------- sender

    async def send(self, delivery: Delivery) -> Receipt:
        """Show one message, or change the one it edits. Taken once it is on the disk."""
        answer = (await self.send_many([delivery]))[0]
        if isinstance(answer, Verdict):
            raise answer
        return answer

    async def send_many(self, deliveries: Sequence[Delivery]) -> Sequence[Receipt | Verdict]:
        """The same for many with one write to the disk."""
        async with self._writing:
            shown: list[_Shown] = []
            answers: list[Receipt | Verdict] = []
            fresh: dict[str, str] = {}
            for delivery in deliveries:
                message = delivery.message
                if not isinstance(message, ChatMessage) or not _CHAT.fullmatch(message.chat):
                    answers.append(Rejected(Why.NO_CHANNEL))
                    continue
                number = self._by_delivery.get(delivery.id) or fresh.get(delivery.id)
                if number is None:
                    new = self._compose(message, shown)
                    new.deliveries.append(delivery.id)
                    number = fresh[delivery.id] = new.id
                    shown.append(new)
                answers.append(Receipt(delivery.id, number))
            try:
                await asyncio.to_thread(self._journal.append, shown)
            except OSError:
                return [Deferred(Why.SERVER_ERROR) if isinstance(each, Receipt) else each for each in answers]
            for each in shown:
                self._put(each)
            return answers

    def _compose(self, message: ChatMessage, beside: Sequence[_Shown] = ()) -> _Shown:
        """The next message, or the edited one under its old number and time; it may stand in the same batch."""
        now = self.clock.now()
        old = None
        if message.edits:
            chat = self._chats.get(message.chat, _Chat())
            standing = [each for each in beside if each.chat == message.chat and each.id == message.edits]
            old = standing[-1] if standing else chat.messages.get(message.edits)
        if old is None:
            self._last += 1
            return _Shown.of(str(self._last), message, now)
        new = _Shown.of(old.id, message, now)
        new.at, new.edited, new.deliveries = old.at, now.isoformat(), list(old.deliveries)
        return new

    def _put(self, shown: _Shown) -> None:
        chat = self._chats.setdefault(shown.chat, _Chat())
        chat.messages[shown.id] = shown
        self._by_delivery.update(dict.fromkeys(shown.deliveries, shown.id))
        while len(chat.messages) > KEPT:
            _, gone = chat.messages.popitem(last=False)
            for delivery in gone.deliveries:
                self._by_delivery.pop(delivery, None)
        if shown.id.isdigit():
            self._last = max(self._last, int(shown.id))
        chat.touch()

    # -------------------------------------------------------------------------------------------- channel

    async def answer(self, press: Press, text: str, *, alert: bool = False) -> None:
        """The words that the pressed button answers with."""
        ref = _ref(press.chat, press.callback)
        waiting = self._waiting.get(ref) or self._done.get(ref)
        if waiting is not None and not waiting.words.done():
            waiting.words.set_result((text, alert))

    async def reply(self, message: ChatMessage) -> None:
        """Show something that need not outlive a restart."""
        if _CHAT.fullmatch(message.chat):
            self._put(self._compose(message))

    def link(self, chat: str) -> str:
        """The path, below where the page is mounted, that opens a chat and signs its holder in."""
        return f"{chat}?token={self._sign('visitor', chat)}"

    # --------------------------------------------------------------------------------------------- pages

    def _pages(self) -> Starlette:
        async def static(request: Request) -> Response:
            name = request.path_params["name"]
            return FileResponse(PAGE / name, headers={"cache-control": "no-cache"})

        return Starlette(
            routes=[
                Route("/-/{name:path}", _only(static, "chat.css", "chat.js")),
                Route("/{chat}", self._open),
                Route("/{chat}/messages", self._messages),
                Route("/{chat}/press", self._press, methods=["POST"]),
                Route("/{chat}/text", self._text, methods=["POST"]),
            ]
        )

    def _sign(self, purpose: str, chat: str) -> str:
        digest = hmac.digest(self._key, f"{purpose}:{chat}".encode(), "sha256")
        return b32encode(digest[:20]).decode().lower()

    def _fits(self, purpose: str, chat: str, token: str | None) -> bool:
        return token is not None and hmac.compare_digest(
            self._sign(purpose, chat).encode(), token.encode("utf-8", "replace")
        )

    def _visitor(self, request: Request) -> str:
        """The chat that the visitor's cookie opens. Raises HTTPException 403 otherwise."""
        chat = str(request.path_params["chat"])
        if not _CHAT.fullmatch(chat) or not self._fits("visitor", chat, request.cookies.get(COOKIE)):
            raise HTTPException(403, "Ce lien n'ouvre pas cette messagerie.")
        return chat

    async def _open(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is None:
            chat = self._visitor(request)
            page = Template((PAGE / "chat.html").read_text(encoding="utf-8"))
            base = escape(f"{request.scope.get('root_path', '')}/", quote=True)
            return HTMLResponse(
                page.substitute(chat=escape(chat, quote=True), base=base, press=self._sign("press", chat))
            )
        chat = str(request.path_params["chat"])
        if not _CHAT.fullmatch(chat) or not self._fits("visitor", chat, token):
            raise HTTPException(403, "Ce lien n'ouvre pas cette messagerie.")
        here = f"{request.scope.get('root_path', '')}/{chat}"
        answer = RedirectResponse(here, status_code=303)
        answer.set_cookie(
            COOKIE, token, max_age=90 * 86400, path=here, httponly=True, samesite="lax",
            secure=request.url.scheme == "https",
        )  # fmt: skip
        return answer

    async def _messages(self, request: Request) -> Response:
        chat = self._chats.setdefault(self._visitor(request), _Chat())
        if request.query_params.get("after") == f"{self._boot}.{chat.version}" and not self._closed:
            changed = chat.changed
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LONG_POLL):
                    await changed.wait()
        return JSONResponse(
            {
                "version": f"{self._boot}.{chat.version}",
                "messages": [shown.visible() for shown in chat.messages.values()],
            }
        )

    async def _asked(self, request: Request) -> tuple[str, dict[str, Any]]:  # the browser's JSON
        """Chat and body of a POST that our own page made. Raises HTTPException."""
        chat = self._visitor(request)
        if not self._fits("press", chat, request.headers.get("x-relais-press")):
            raise HTTPException(403, "Rechargez la page.")
        body = b""
        async for piece in request.stream():
            body += piece
            if len(body) > MOST_BYTES:
                raise HTTPException(413)
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise HTTPException(400) from None
        if not isinstance(asked, dict) or not _ID.fullmatch(str(asked.get("id", ""))):
            raise HTTPException(400)
        return chat, asked

    async def _press(self, request: Request) -> Response:
        chat, asked = await self._asked(request)
        message, nonce = str(asked.get("message", "")), str(asked.get("nonce", ""))
        if message not in self._chats.get(chat, _Chat()).messages or not 0 < len(nonce) <= 64:
            raise HTTPException(404)
        press = Press("webchat", chat, chat, message, nonce, str(asked["id"]))
        return await self._take(chat, str(asked["id"]), press)

    async def _text(self, request: Request) -> Response:
        chat, asked = await self._asked(request)
        command = _COMMAND.match(str(asked.get("text", "")).strip().lower())
        typed = Typed("webchat", chat, chat, str(asked["id"]), command[0] if command else None)
        return await self._take(chat, str(asked["id"]), typed)

    async def _take(self, chat: str, asked: str, event: Press | Typed) -> Response:
        """Hand an event over; answer once it was committed, with the words if they come soon."""
        ref = _ref(chat, asked)
        waiting = self._done.get(ref) or self._waiting.get(ref)
        if waiting is None:
            if self._closed or sum(each.chat == chat for each in self._waiting.values()) >= WAITING:
                raise HTTPException(503, "Un instant…", headers={"retry-after": "2"})
            loop = asyncio.get_running_loop()
            envelope = Envelope(
                id=envelope_id(self.account, ref),
                adapter=self.name,
                account=self.account,
                ref=ref,
                received_at=self.clock.now(),
                raw=json.dumps(asdict(event), ensure_ascii=False, sort_keys=True).encode(),
                event=event,
            )
            waiting = _Waiting(envelope, chat, loop.create_future(), loop.create_future())
            self._waiting[ref] = waiting
            self._arrived.set()
        if not await _within(HOLD, waiting.taken):
            raise HTTPException(503, "Un instant…", headers={"retry-after": "2"})
        text, alert = "", False
        if isinstance(event, Press) and await _within(WORDS, waiting.words):
            text, alert = waiting.words.result()
        return JSONResponse({"text": text, "alert": alert})


async def _within(seconds: float, future: asyncio.Future[Any]) -> bool:  # only whether it came matters
    """Whether `future` got a result in time; it is left as it is, for the next who waits."""
    await asyncio.wait([future], timeout=seconds)
    return future.done() and not future.cancelled()


def _only(
    page: Callable[[Request], Awaitable[Response]], *names: str
) -> Callable[[Request], Awaitable[Response]]:
    async def checked(request: Request) -> Response:
        if request.path_params["name"] not in names:
            raise HTTPException(404)
        return await page(request)

    return checked


def _ref(chat: str, asked: str) -> str:
    """The same press repeated by the browser is the same arrival; two chats cannot meet."""
    return derived_id("webchat", chat, asked)


def _key(file: Path) -> bytes:
    """The secret that links are signed with, made at the first start. Raises Rejected when it cannot be had."""
    try:
        with contextlib.suppress(FileNotFoundError):
            key = file.read_bytes()
            if len(key) == 32:
                return key
        file.parent.mkdir(parents=True, exist_ok=True)
        key = secrets.token_bytes(32)
        _write_whole(file, key)
    except OSError:
        raise Rejected(Why.SERVER_ERROR, detail="webchat key") from None
    return key


def _write_whole(file: Path, content: bytes) -> None:
    """Replace a file: whole on the disk under its name, or not at all."""
    beside = file.with_name(file.name + ".new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as out:
            out.write(content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    beside.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _private(path: str, flags: int) -> int:
    """Buttons' nonces stand in the journal: nobody else reads it."""
    return os.open(path, flags, 0o600)


class _Journal:
    """The messages on disk: one JSON line each, appended and flushed to the platter; rewritten at each start."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def load(self) -> list[_Shown]:
        """Every whole line, oldest first. A line torn by a crash was never answered for: it is left out."""
        try:
            lines = self.file.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]
        except FileNotFoundError:
            return []
        shown = []
        for line in lines:
            with contextlib.suppress(ValueError, TypeError):
                shown.append(_Shown(**json.loads(line)))
        return shown

    def append(self, shown: Sequence[_Shown]) -> None:
        """Return once the lines are on the disk. Raises OSError; a torn line may then stand at the end."""
        text = "".join(json.dumps(asdict(each), ensure_ascii=False) + "\n" for each in shown)
        with open(self.file, "ab", opener=_private) as out:
            if out.tell() and self._torn:
                out.write(b"\n")
            self._torn = True
            out.write(text.encode())
            out.flush()
            os.fsync(out.fileno())
            self._torn = False

    _torn = False

    def rewrite(self, shown: Sequence[_Shown]) -> None:
        """Keep only what is still shown."""
        _write_whole(self.file, "".join(json.dumps(asdict(each)) + "\n" for each in shown).encode())
