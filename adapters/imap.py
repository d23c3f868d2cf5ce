"""Watches one IMAP folder: IDLE, whole messages in order, a cursor of UIDVALIDITY and UID, MOVE once they are kept.

Built on aioimaplib behind one hardened session, as the library alone loses mail (each danger is named
where it is met). The connection that watches only reads; acknowledging has a connection of its own.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Literal

from aioimaplib import aioimaplib
from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from relay import log
from relay.errors import Deferred
from relay.model import Batch, Envelope, Why, envelope_id
from relay.ports import Tools
from relay.tls import Trust, is_loopback, tls_verdict

# At DEBUG this library writes every byte it receives, whole letters, to the log.
logging.getLogger(aioimaplib.__name__).setLevel(logging.WARNING)

BATCH_MESSAGES, BATCH_BYTES = 200, 4 * 2**20
SIZES_AT_A_TIME = 2000  # messages whose sizes are asked for in one command
ACKNOWLEDGED_AT_A_TIME = 500  # a command line of UIDs stays below the 8,000 bytes servers take
IDLE_SECONDS = 240.0  # renewed below 5 minutes: firewalls and half-open sockets forget longer silences
POLL_SECONDS = 15.0  # where the server has no IDLE
COMMAND_SECONDS = 60.0  # without a single byte of the answer
HANDSHAKE_SECONDS = 20.0
OURS_TO_MEND_SECONDS = 300.0  # refused logins: operators lock accounts that hammer
LINE_LIMIT = 16 * 2**20  # a SEARCH of a million messages fits
BREAKS_UNTIL_GIVEN_UP = 5  # times one message, fetched alone, may break the connection


class Settings(BaseModel):
    """The keys of `[adapters.NAME]` with `kind = "imap"` that concern the wire."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    host: str
    port: int = Field(default=993, ge=1, le=65535)
    security: Literal["tls", "starttls", "none"] = "tls"
    username: str = ""
    password: SecretStr | None = None
    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    auth: Literal["login", "plain", "external", "xoauth2"] = "login"
    folder: str = Field(default="INBOX", min_length=1)
    since: Literal["now", "all"] | date = "now"
    done: str | None = Field(default=None, min_length=1)

    @field_validator("since", mode="before")
    @classmethod
    def _date(cls, value: object) -> object:
        if isinstance(value, str) and value not in {"now", "all"}:
            try:
                return date.fromisoformat(value)
            except ValueError:
                raise ValueError('write "now", "all" or a date such as 2026-11-01') from None
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError('security = "none" is for loopback addresses only')
        if self.auth != "external" and not (self.username and self.password):
            raise ValueError(f'auth = "{self.auth}" needs username and password')
        if self.client_key and not self.client_cert:
            raise ValueError("client_key without client_cert")
        if self.done == self.folder:
            raise ValueError("done must be another folder than the watched one")
        return self


def connect(name: str, settings: Settings, tools: Tools) -> Imap:
    """Make the adapter; the network is touched by `watch`, `acknowledge` and `probe` only."""
    return Imap(name, settings, tools)


# -------------------------------------------------------------------------------------------------- cursor


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a folder was read: everything up to `uid` was yielded.

    `floor` is the last UID that was there before the very first start, `floor_date` the same as a date,
    for the day the server gives all messages new UIDs. `era` grows when a server starts its UIDs anew
    without saying so. Up to the UID `dated`, only what came on `floor_date` or later was asked for; what
    arrives after that is taken whatever date its server gives it.
    """

    validity: int
    uid: int = 0
    floor: int = 0
    floor_date: date | None = None
    era: int = 0
    dated: int = 0

    def __str__(self) -> str:
        day = self.floor_date.isoformat() if self.floor_date else ""
        dated = f".{self.dated}" if self.dated else ""
        return f"{self.validity}.{self.era}.{self.uid}.{self.floor}.{day}{dated}"

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read back what `str` wrote. Raises ValueError."""
        validity, era, uid, floor, day, *dated = text.split(".")
        floor_date = date.fromisoformat(day) if day else None
        return cls(int(validity), int(uid), int(floor), floor_date, int(era), *map(int, dated))

    def ref(self, uid: int) -> str:
        """What names one message within the account."""
        return f"{self.validity}.{uid}" if self.era == 0 else f"{self.validity}.{self.era}.{uid}"


# --------------------------------------------------------------------------------------------- the adapter


class Imap:
    """One watched folder of one account."""

    kind = "imap"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        self.account = f"imap://{settings.username}@{settings.host}/{settings.folder}"
        self._settings, self._tools = settings, tools
        self._trust = Trust(settings.ca, settings.client_cert, settings.client_key)
        self._second: _Session | None = None  # the connection that acknowledges
        self._turn = asyncio.Lock()
        self._open: set[_Session] = set()
        self._breaks: dict[str, int] = {}  # ref → how often its fetching ended the connection
        self._place: tuple[int, int] | None = None  # UIDVALIDITY and era of what is being watched

    async def probe(self) -> None:
        """Log in and look at the folder, changing nothing. Raises Deferred."""
        with _verdicts():
            session = await self._session(readonly=True)
            await session.bye()
            self._open.discard(session)

    async def close(self) -> None:
        """Drop every connection."""
        sessions, self._open, self._second = self._open, set(), None
        await asyncio.gather(*(session.end() for session in sessions))

    async def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Yield arrivals after the cursor for ever; see `relay.ports.Inbox.watch`.

        Where the count of UIDs begins and nothing is wanted of what stands there (`since = "now"` at the
        very first start), an empty batch carries the cursor, so that what arrives before the first letter is
        stored is not skipped by a restart. What stands unacknowledged in the folder comes again at each
        connection.
        """
        session: _Session | None = None
        try:
            with _verdicts():
                session = await self._session(readonly=True)
                cursor, waiting = await self._begin(session, since)
            self._place = cursor.validity, cursor.era
            if str(cursor) != since and not waiting:
                yield Batch(self.account, (), str(cursor))
            while True:
                async for batch in self._fetched(session, cursor, waiting):
                    yield batch
                    cursor = Cursor.parse(batch.cursor)
                cursor = replace(cursor, uid=max(cursor.uid, cursor.dated))  # what is too old is passed over
                with _verdicts():
                    waiting = await self._arrivals(session, cursor)
        finally:
            if session is not None:
                self._open.discard(session)
                await session.end()

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Move to the `done` folder, or flag \\Seen, on a connection of its own. Raises Deferred.

        Messages numbered otherwise than now are left where they are: their UID may be another letter's, and
        they come again under their new one.
        """
        uids: dict[int, list[int]] = {}
        for envelope in envelopes:
            validity, *era, uid = map(int, envelope.ref.split("."))
            if self._place in {None, (validity, *(era or [0]))}:
                uids.setdefault(validity, []).append(uid)
        if not uids:
            return
        async with self._turn:
            with _verdicts():
                for fresh in (False, True):
                    if self._second is None or not self._second.alive:
                        self._second = await self._session(readonly=False)
                        fresh = True
                    try:
                        await self._put_away(self._second, uids.get(self._second.validity, []))
                    except (_Lost, aioimaplib.CommandTimeout, OSError):
                        self._open.discard(self._second)
                        await self._second.end()
                        self._second = None
                        # It lay idle for hours, and the server let go of it: once more on a new one.
                        if fresh:
                            raise
                    else:
                        return

    # Connections

    async def _session(self, *, readonly: bool) -> _Session:
        settings = self._settings
        session = await _Session.connect(
            settings.host, settings.port, settings.security, self._trust, literal_limit=self._tools.max_bytes
        )
        try:
            await session.log_in(
                settings.auth,
                settings.username,
                settings.password.get_secret_value() if settings.password else "",
            )
            await session.select(settings.folder, readonly=readonly)
        except BaseException:
            await session.end()
            raise
        self._open.add(session)
        return session

    # Reading

    async def _begin(self, session: _Session, since: str | None) -> tuple[Cursor, list[int]]:
        """The cursor to go on from, and the UIDs that wait at this moment, oldest first."""
        today = self._tools.clock.now().date()
        if since is None:
            first = self._settings.since
            if first == "now":
                newest = session.uid_next - 1
                return Cursor(session.validity, newest, newest, today - timedelta(days=1)), []
            return await self._anew(session, Cursor(session.validity), None if first == "all" else first)
        cursor = Cursor.parse(since)
        if cursor.validity != session.validity:
            # Every UID means another message now: read the whole folder again; what is known is recognised
            # by its bytes further on.
            log.get().warning("uidvalidity_changed", adapter=self.name)
            return await self._anew(session, Cursor(session.validity), self._known(cursor.floor_date))
        if session.uid_next <= cursor.uid:
            # UIDs only ever grow (RFC 3501 §2.3.1.1): this server was rolled back or renumbered in silence.
            log.get().warning("uids_restarted", adapter=self.name)
            fresh = Cursor(session.validity, era=cursor.era + 1)
            return await self._anew(session, fresh, self._known(cursor.floor_date))
        # Stored, but the crash came before the acknowledgement: once more, the store knows them.
        unacknowledged = () if self._settings.done else ("UNSEEN",)
        again: list[int] = []
        if cursor.uid > cursor.floor:
            since_when = self._known(cursor.floor_date if not cursor.floor else None)
            criteria = (*unacknowledged, *_since(since_when))
            again = await session.search(cursor.floor + 1, cursor.uid, *criteria)
        # Behind what is new: where nothing can be put away, every letter ever stored stands there again.
        return cursor, await self._after(session, cursor) + again

    def _known(self, since: date | None) -> date | None:
        """That date, or the later one from which on the relay knows again what it took: older mail would leave twice."""
        kept = self._tools.remembered
        if kept is None:
            return since
        # Two days, as servers count theirs by the clock of another place; but what came lately may never have been taken.
        oldest = (self._tools.clock.now() - max(kept, timedelta(days=5))).date() + timedelta(days=2)
        return oldest if since is None else max(since, oldest)

    async def _anew(self, session: _Session, cursor: Cursor, since: date | None) -> tuple[Cursor, list[int]]:
        """Begin with the first UID; of what stands there now, only what came on that date or later."""
        if since is not None:
            cursor = replace(cursor, floor_date=since, dated=session.uid_next - 1)
        return cursor, await self._after(session, cursor)

    @staticmethod
    async def _after(session: _Session, cursor: Cursor) -> list[int]:
        """What stands behind the cursor."""
        if cursor.uid >= cursor.dated:
            return await session.search(cursor.uid + 1)
        old = await session.search(cursor.uid + 1, cursor.dated, *_since(cursor.floor_date))
        return old + await session.search(cursor.dated + 1)

    async def _arrivals(self, session: _Session, cursor: Cursor) -> list[int]:
        """Wait until there are messages after the cursor."""
        while True:
            # Cleared before the question: what is announced from here on asks again.
            session.announced.clear()
            if waiting := await session.search(cursor.uid + 1):
                return waiting
            if session.announced.is_set():
                continue
            if session.can("IDLE"):
                await session.idle(IDLE_SECONDS)
            else:
                await self._tools.clock.sleep(POLL_SECONDS)

    async def _fetched(
        self, session: _Session, cursor: Cursor, waiting: Sequence[int]
    ) -> AsyncIterator[Batch]:
        """Fetch these messages batch by batch; the next one comes in while the last is being stored."""
        groups = self._groups(session, cursor, waiting)
        ahead: asyncio.Task[tuple[Batch, Cursor] | None] | None = None

        async def following(at: Cursor) -> tuple[Batch, Cursor] | None:
            with _verdicts():
                async for group in groups:
                    return await self._batch(session, at, group)
                return None

        try:
            ahead = asyncio.create_task(following(cursor))
            while (found := await ahead) is not None:
                batch, cursor = found
                ahead = asyncio.create_task(following(cursor))
                yield batch
        finally:
            if ahead is not None and not ahead.done():
                ahead.cancel()
                with contextlib.suppress(asyncio.CancelledError, Deferred):
                    await ahead
            elif ahead is not None and not ahead.cancelled():
                ahead.exception()  # looked at, or asyncio complains to the log
            await groups.aclose()

    async def _groups(
        self, session: _Session, cursor: Cursor, waiting: Sequence[int]
    ) -> AsyncGenerator[list[tuple[int, int]], None]:
        """Divide the waiting messages into batches of (UID, size) below both limits."""
        for start in range(0, len(waiting), SIZES_AT_A_TIME):
            asked = waiting[start : start + SIZES_AT_A_TIME]
            rows = await session.fetch(asked, "RFC822.SIZE")
            sizes = {row.uid: row.size for row in rows if row.size is not None}
            if gone := len(asked) - len(sizes.keys() & set(asked)):
                log.get().info("messages_gone_before_read", adapter=self.name, count=gone)
            group: list[tuple[int, int]] = []
            weight = 0
            for uid in asked:
                if uid not in sizes:
                    continue
                size = sizes[uid]
                alone = cursor.ref(uid) in self._breaks or size > self._tools.max_bytes
                if group and (alone or len(group) >= BATCH_MESSAGES or weight + size > BATCH_BYTES):
                    yield group
                    group, weight = [], 0
                group.append((uid, size))
                weight += size
                if alone:
                    yield group
                    group, weight = [], 0
            if group:
                yield group

    async def _batch(
        self, session: _Session, cursor: Cursor, group: Sequence[tuple[int, int]]
    ) -> tuple[Batch, Cursor]:
        expected = dict(group)
        (first, *others) = expected
        breaks = 0 if others else self._breaks.get(cursor.ref(first), 0)
        flaw = Why.TOO_LARGE if not others and expected[first] > self._tools.max_bytes else None
        if breaks >= BREAKS_UNTIL_GIVEN_UP:
            # One message on which the server hangs up each time must not keep all later ones waiting.
            log.get().error("message_cannot_be_read", adapter=self.name, envelope=self._id(cursor, first))
            flaw = Why.TRUNCATED
        if breaks > BREAKS_UNTIL_GIVEN_UP:
            envelopes = [self._envelope(cursor, first, None, b"", flaw)]
        else:
            part = "BODY.PEEK[HEADER]" if flaw else "BODY.PEEK[]"
            try:
                rows = await session.fetch(list(expected), f"RFC822.SIZE INTERNALDATE {part}")
            except (aioimaplib.AioImapException, OSError, TimeoutError):
                for uid in expected:
                    self._breaks[cursor.ref(uid)] = self._breaks.get(cursor.ref(uid), 0) + 1
                raise
            envelopes = [
                self._envelope(cursor, row.uid, row.received, row.body, flaw or _flaw(row, expected[row.uid]))
                for row in sorted(rows, key=lambda row: row.uid)
                if row.uid in expected and row.body is not None
            ]
        for uid in expected:
            self._breaks.pop(cursor.ref(uid), None)
        cursor = replace(cursor, uid=max(cursor.uid, *expected))
        return Batch(self.account, tuple(envelopes), str(cursor)), cursor

    def _id(self, cursor: Cursor, uid: int) -> str:
        return envelope_id(self.account, cursor.ref(uid))

    def _envelope(
        self, cursor: Cursor, uid: int, received: datetime | None, raw: bytes, flaw: Why | None
    ) -> Envelope:
        return Envelope(
            id=self._id(cursor, uid),
            adapter=self.name,
            account=self.account,
            ref=cursor.ref(uid),
            received_at=received or self._tools.clock.now(),
            raw=raw,
            flaw=flaw,
        )

    # Acknowledging

    async def _put_away(self, session: _Session, uids: Sequence[int]) -> None:
        # What came in since this connection last spoke does not exist for it: MOVE would answer OK, and not move.
        await session.ask("NOOP")
        for start in range(0, len(uids), ACKNOWLEDGED_AT_A_TIME):
            some = _set_of(uids[start : start + ACKNOWLEDGED_AT_A_TIME])
            if self._settings.done is None:
                await session.ask("STORE", some, "+FLAGS.SILENT", "(\\Seen)", uid=True)
                continue
            target = _mailbox(self._settings.done)
            try:
                await self._move(session, some, target)
            except _No:
                # The folder is made when it is first needed; when that is not what was wrong, this raises.
                with contextlib.suppress(_No):
                    await session.ask("CREATE", target)
                    await session.ask("SUBSCRIBE", target)
                await self._move(session, some, target)

    @staticmethod
    async def _move(session: _Session, some: str, target: str) -> None:
        if session.can("MOVE"):  # RFC 6851
            await session.ask("MOVE", some, target, uid=True)
            return
        await session.ask("COPY", some, target, uid=True)
        await session.ask("STORE", some, "+FLAGS.SILENT", "(\\Deleted)", uid=True)
        # Without UIDPLUS (RFC 4315), EXPUNGE would also remove what a person marked: it stays, marked.
        if session.can("UIDPLUS"):
            await session.ask("EXPUNGE", some, uid=True)


# ------------------------------------------------------------------------------------------- what is fetched


@dataclass(frozen=True, slots=True)
class _Row:
    uid: int
    size: int | None
    received: datetime | None
    body: bytes | None


_TOKEN = re.compile(rb'[()]|"(?:[^"\\]|\\.)*"|\{\d+\}$|[^\s()"]+')


def _rows(lines: Iterable[bytes | bytearray]) -> Iterator[_Row]:
    """Read the rows of a FETCH; rows without a UID (somebody's flags changed) are left out."""
    tokens: list[bytes] = []
    for line in lines:
        if isinstance(line, bytearray):
            # The literal that the last token announced. Nothing in it is ever looked at as protocol.
            tokens[-1] = bytes(line)
            continue
        if _IS_FETCH.match(line):
            if row := _row(tokens):
                yield row
            tokens = []
        tokens += _TOKEN.findall(line)
    if row := _row(tokens):
        yield row


_IS_FETCH = re.compile(rb"\d+ FETCH \(")


def _row(tokens: Sequence[bytes]) -> _Row | None:
    found: dict[bytes, bytes] = {}
    place, depth = 3, 0  # after: number FETCH (
    while place < len(tokens) - 1:
        token = tokens[place]
        if token in {b"(", b")"}:
            depth += 1 if token == b"(" else -1
            place += 1
        elif depth == 0 and tokens[place + 1] not in {b"(", b")"}:
            found[token.upper()] = tokens[place + 1]
            place += 2
        else:
            place += 1
    if b"UID" not in found:
        return None
    body = next((value for name, value in found.items() if name.startswith(b"BODY[")), None)
    if body == b"NIL":
        body = b""
    elif body is not None and body[:1] == b'"' and body[-1:] == b'"' and b"\n" not in body:
        body = re.sub(rb"\\(.)", rb"\1", body[1:-1])
    size = found.get(b"RFC822.SIZE")
    return _Row(
        uid=int(found[b"UID"]),
        size=int(size) if size is not None else None,
        received=_internal_date(found.get(b"INTERNALDATE", b"")),
        body=body,
    )


def _internal_date(quoted: bytes) -> datetime | None:
    try:
        return datetime.strptime(quoted.decode("ascii").strip('" '), "%d-%b-%Y %H:%M:%S %z").astimezone(UTC)
    except ValueError:
        return None


def _flaw(row: _Row, size: int) -> Why | None:
    """A server that cuts a message short still counts its size whole."""
    return Why.TRUNCATED if row.body is not None and len(row.body) < size else None


def _since(day: date | None) -> tuple[str, ...]:
    # English month names whatever the locale (RFC 3501 §6.4.4).
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return ("SINCE", f"{day.day}-{months[day.month - 1]}-{day.year}") if day else ()


def _set_of(uids: Sequence[int]) -> str:
    """`1:3,7` for 1, 2, 3 and 7."""
    parts: list[list[int]] = []
    for uid in sorted(set(uids)):
        if parts and uid == parts[-1][1] + 1:
            parts[-1][1] = uid
        else:
            parts.append([uid, uid])
    return ",".join(f"{first}:{last}" if last > first else str(first) for first, last in parts)


def _mailbox(name: str) -> str:
    """A folder's name as it goes on the wire: modified UTF-7, quoted (RFC 3501 §5.1.3)."""

    def shifted(match: re.Match[str]) -> str:
        if match[0] == "&":
            return "&-"
        packed = base64.b64encode(match[0].encode("utf-16-be")).decode().rstrip("=")
        return f"&{packed.replace('/', ',')}-"

    return _quoted(re.sub(r"&|[^\x20-\x7e]+", shifted, name))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# ---------------------------------------------------------------------------------------- hardened session


class _Lost(aioimaplib.Abort):  # type: ignore[misc] # the library has no types
    """The connection is gone."""


class _No(aioimaplib.Error):  # type: ignore[misc] # the library has no types
    """The server answered NO or BAD; its words are not kept."""


class _LoginRefused(_No):
    """NO to a login. On Dovecot a refused client certificate looks the same."""


class _NoFolder(_No):
    """NO to SELECT."""


class _Command(aioimaplib.Command):  # type: ignore[misc] # the library has no types
    """One command of ours; the library's own are never made."""

    def progress(self) -> None:
        """Bytes of the answer came in: a long letter is no silence."""
        self._reset_timer()

    def fail(self, why: Exception) -> None:
        """Wake whoever waits for the answer, with this error."""
        self._exception = why
        self._timer.cancel()
        self._event.set()


_ANNOUNCED = re.compile(rb"\d+ (?:EXISTS|RECENT)", re.IGNORECASE)
_NUMBERED = re.compile(rb"\d+ (FETCH|EXPUNGE)\b", re.IGNORECASE)
_STATUS = re.compile(rb"(?:\*|[A-Z0-9]+) (?:OK|NO|BAD|BYE|PREAUTH)\b", re.IGNORECASE)
_LITERAL = re.compile(rb"\{(\d+)\}$")
_KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4), ("TCP_USER_TIMEOUT", 120_000))


class _Session(aioimaplib.IMAP4ClientProtocol):  # type: ignore[misc] # the library has no types
    """aioimaplib's protocol, with its parser, its handling of losses and its cancelling replaced."""

    validity = 0
    uid_next = 1
    state: str
    transport: asyncio.Transport | None
    pending_sync_command: _Command | None

    def __init__(self, literal_limit: int) -> None:
        super().__init__(asyncio.get_running_loop())
        self.announced = asyncio.Event()  # something new stands in the folder, or the connection is gone
        self._closed = asyncio.Event()
        self._greeting: asyncio.Future[None] = self.loop.create_future()
        self._why: Exception | None = None
        self._buffer = bytearray()
        self._literal: bytearray | None = None
        self._missing = 0  # bytes of the literal still to come
        self._row_of: _Command | None = None  # whose row goes on after a literal
        self._literal_limit = literal_limit + 2**20
        self._sasl: list[bytes] = []

    @classmethod
    async def connect(
        cls, host: str, port: int, security: str, trust: Trust, *, literal_limit: int
    ) -> _Session:
        """Open, greet, and raise the protection asked for. Raises OSError, ssl.SSLError, _Lost."""
        loop = asyncio.get_running_loop()
        session = cls(literal_limit)
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            if security == "tls":
                await loop.create_connection(lambda: session, host, port, ssl=trust.context())
            else:
                await loop.create_connection(lambda: session, host, port)
            try:
                await session._greeting
                if security == "starttls":
                    await session._start_tls(host, trust)
                await session.ask_capabilities()
            except BaseException:
                await session.end()
                raise
        return session

    @property
    def alive(self) -> bool:
        """Whether commands may still be given."""
        return self._why is None

    def drop(self) -> None:
        """Close at once, whatever is under way."""
        self._fail(_Lost("closed by us"))

    async def end(self) -> None:
        """Close at once, and return when the socket is closed."""
        self.drop()
        if self.transport is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._closed.wait()

    def can(self, capability: str) -> bool:
        return capability in self.capabilities

    # Commands

    async def ask(
        self, name: str, *arguments: str, uid: bool = False, seconds: float | None = None
    ) -> list[bytes | bytearray]:
        """Give one command and return the lines of its answer. Raises _No, _Lost, CommandTimeout."""
        limit = None if name == "IDLE" else seconds or COMMAND_SECONDS
        prefix = "UID" if uid else None
        command = _Command(name, self.new_tag(), *arguments, prefix=prefix, loop=self.loop, timeout=limit)
        result, lines = await self.execute(command)
        if result != "OK":
            raise _No(name)
        return list(lines)

    async def ask_capabilities(self) -> None:
        lines = await self.ask("CAPABILITY")
        self.capabilities = set(bytes(lines[0]).decode("ascii", "replace").upper().split())

    async def log_in(self, auth: str, username: str, password: str) -> None:
        """Authenticate as configured. Raises _LoginRefused."""
        if self.state != aioimaplib.NONAUTH:
            raise _Lost("authenticated before we said who we are")  # PREAUTH: somebody else's session
        try:
            if auth == "login":
                await self.ask("LOGIN", _quoted(username), _quoted(password))
            elif auth == "plain":
                await self._authenticate("PLAIN", f"\0{username}\0{password}")  # RFC 4616
            elif auth == "external":
                await self._authenticate("EXTERNAL", username)  # RFC 4422 appendix A
            else:
                await self._authenticate("XOAUTH2", f"user={username}\1auth=Bearer {password}\1\1")
        except _No:
            raise _LoginRefused("login") from None
        self.state = aioimaplib.AUTH
        await self.ask_capabilities()

    async def select(self, folder: str, *, readonly: bool) -> None:
        """Open a folder and learn its UIDVALIDITY and UIDNEXT. Raises _NoFolder."""
        try:
            lines = await self.ask("EXAMINE" if readonly else "SELECT", _mailbox(folder))
        except _No:
            raise _NoFolder("select") from None
        self.state = aioimaplib.SELECTED
        answer = b"\n".join(bytes(line) for line in lines)
        validity = re.search(rb"\[UIDVALIDITY (\d+)\]", answer, re.IGNORECASE)
        following = re.search(rb"\[UIDNEXT (\d+)\]", answer, re.IGNORECASE)
        if validity is None:
            raise _Lost("the server keeps no UIDs")
        self.validity = int(validity[1])
        if following is not None:
            self.uid_next = int(following[1])
        else:  # optional in RFC 3501
            self.uid_next = max(await self.search(1), default=0) + 1

    async def search(self, first: int, last: int | None = None, *criteria: str) -> list[int]:
        """The UIDs from `first` on that meet the criteria, oldest first."""
        lines = await self.ask("SEARCH", "UID", f"{first}:{last or '*'}", *criteria, uid=True)
        # `n:*` always names the newest message, even one below n (RFC 3501 §6.4.8).
        found = {int(word) for line in lines[:-1] for word in bytes(line).split() if word.isdigit()}
        return sorted(uid for uid in found if uid >= first)

    async def fetch(self, uids: Sequence[int], items: str) -> list[_Row]:
        """Fetch these items of these messages; those that are gone are missing from the answer."""
        return list(_rows((await self.ask("FETCH", _set_of(uids), f"(UID {items})", uid=True))[:-1]))

    async def idle(self, seconds: float) -> None:
        """Wait until the server announces something, at most so long (RFC 2177). Raises _Lost, TimeoutError."""
        self._idle_event.clear()
        waiting = asyncio.create_task(self.ask("IDLE"))
        try:
            async with asyncio.timeout(COMMAND_SECONDS):
                await self._idle_event.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self.announced.wait()
            if self.alive:
                self.send("DONE")
            # A server that no longer answers is found out here, not at the next letter.
            async with asyncio.timeout(COMMAND_SECONDS):
                await asyncio.shield(waiting)
        finally:
            if not waiting.done():
                waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, aioimaplib.AioImapException):
                await waiting

    async def bye(self) -> None:
        """Log out politely, without insisting."""
        with contextlib.suppress(aioimaplib.AioImapException, OSError):
            await self.ask("LOGOUT", seconds=5)
        await self.end()

    async def execute(self, command: _Command, scrub: str | None = None) -> tuple[str, list[bytes]]:
        """As in the library, but a command given up leaves no half-read answer behind for the next one."""
        if self._why is not None:
            raise _Lost("connection is gone") from self._why
        try:
            result: tuple[str, list[bytes]] = await super().execute(command, scrub)
        except (asyncio.CancelledError, aioimaplib.CommandTimeout):
            self._fail(_Lost("command given up"))
            raise
        return result

    async def _authenticate(self, mechanism: str, initial: str) -> None:
        answer = base64.b64encode(initial.encode())
        if self.can("SASL-IR"):  # RFC 4959
            # After the first answer only an empty line can follow: XOAUTH2 wants one before it says NO.
            self._sasl = []
            await self.ask("AUTHENTICATE", mechanism, answer.decode() or "=")
        else:
            self._sasl = [answer]
            await self.ask("AUTHENTICATE", mechanism)

    async def _start_tls(self, host: str, trust: Trust) -> None:
        await self.ask("STARTTLS")
        if self._buffer:
            # Plain text behind the OK would be read as if it had come protected (CVE-2021-38371).
            raise _Lost("plain text after STARTTLS")
        if self.transport is None:
            raise _Lost("gone before TLS")
        self.transport = await self.loop.start_tls(
            self.transport,
            self,
            trust.context(),
            server_hostname=host,
            ssl_handshake_timeout=HANDSHAKE_SECONDS,
        )
        self.capabilities = set()

    # Bytes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if (plug := transport.get_extra_info("socket")) is not None:
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                if hasattr(socket, option):
                    plug.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)

    def connection_lost(self, exc: Exception | None) -> None:
        """The library tells nobody: what waits would wait for its timeout, IDLE for ever."""
        self._fail(exc or _Lost("closed by the server"))
        self._closed.set()

    def data_received(self, data: bytes) -> None:
        """The library's parser recurses once a line and dies at a thousand; this one walks."""
        self._buffer += data
        try:
            self._read()
        except Exception as error:  # noqa: BLE001 - whatever a server sends, the session ends and says so
            self._fail(
                error if isinstance(error, aioimaplib.AioImapException) else _Lost(type(error).__name__)
            )

    def _read(self) -> None:
        buffer, place = self._buffer, 0
        try:
            while True:
                if self._literal is not None:
                    chunk = buffer[place : place + self._missing]
                    place += len(chunk)
                    self._literal += chunk
                    self._missing -= len(chunk)
                    if self._row_of is not None:
                        self._row_of.progress()
                    if self._missing:
                        return
                    if self._row_of is not None:
                        self._row_of.append_to_resp(self._literal)
                    self._literal = None
                end = buffer.find(b"\r\n", place)
                if end < 0:
                    if len(buffer) - place > LINE_LIMIT:
                        raise _Lost("a line without end")
                    return
                line = bytes(buffer[place:end])
                place = end + 2
                self._take(line)
        finally:
            del buffer[:place]

    def _take(self, line: bytes) -> None:
        continued, self._row_of = self._row_of, None
        command: _Command | None
        if continued is not None:
            continued.append_to_resp(line)
            command = continued
        elif self.state == aioimaplib.CONNECTED:
            self._greeted(line)
            return
        else:
            command = self._handle_line(line, None)
            if _STATUS.match(line):
                return  # words for people, which may well end in {12}
        if announced := _LITERAL.search(line):
            self._missing = int(announced[1])
            if self._missing > self._literal_limit:
                raise _Lost("a literal larger than any message we take")
            self._literal = bytearray()
            # A row nobody asked for is read and forgotten.
            self._row_of = command if command is not None else _Command("NIL", "", loop=self.loop)

    def _greeted(self, line: bytes) -> None:
        if line.upper().startswith((b"* OK", b"* PREAUTH")):
            self.state = aioimaplib.NONAUTH if line[2:4].upper() == b"OK" else aioimaplib.AUTH
            if not self._greeting.done():
                self._greeting.set_result(None)
        else:
            raise _Lost("no greeting")

    def _untagged_response(self, line: bytes) -> _Command | None:
        """The library deletes every `* ` within the line, and throws an EXISTS away that comes inside a command.

        The server will not repeat it in IDLE: that letter would sleep until the next one.
        """
        text = line[2:]
        if _ANNOUNCED.fullmatch(text):
            self.announced.set()
        command: _Command | None = self.pending_sync_command
        if command is None:
            numbered = _NUMBERED.match(text)
            name, _, rest = text.partition(b" ")
            if numbered:
                name, rest = numbered[1], text
            command = self.pending_async_commands.get(name.decode("ascii", "replace").upper())
            text = rest
        if command is not None:
            command.append_to_resp(text)
        return command

    def _continuation(self, line: bytes) -> None:
        """A SASL exchange goes on; the library leaves a refused XOAUTH2 waiting for ever."""
        command: _Command | None = self.pending_sync_command
        if command is not None and command.name == "AUTHENTICATE":
            answer = self._sasl.pop(0) if self._sasl else b""
            self.send(answer.decode())
        else:
            super()._continuation(line)

    def _fail(self, why: Exception) -> None:
        """End the session: everything that waits raises, now."""
        if self._why is not None:
            return
        self._why = why
        lost = (
            why if isinstance(why, aioimaplib.AioImapException | ssl.SSLError) else _Lost(type(why).__name__)
        )
        commands: list[_Command | None] = [self.pending_sync_command, *self.pending_async_commands.values()]
        self.pending_sync_command = None
        self.pending_async_commands.clear()
        self.state = aioimaplib.LOGOUT
        for command in commands:
            if command is not None:
                command.fail(lost)
        if not self._greeting.done():
            self._greeting.set_exception(lost)
            self._greeting.exception()  # nobody may be waiting for it
        self._idle_event.set()
        self.announced.set()
        if self.transport is not None:
            self.transport.abort()


# -------------------------------------------------------------------------------------------------- verdicts


@contextlib.contextmanager
def _verdicts() -> Iterator[None]:
    """Translate what is raised inside; the server's words stay behind."""
    try:
        yield
    except (aioimaplib.AioImapException, OSError, TimeoutError, ValueError) as error:
        raise _translate(error) from None


def _translate(error: Exception) -> Deferred:
    """An inbox can always be tried again: what was not read stays in the folder."""
    if isinstance(error, _LoginRefused):
        return Deferred(Why.AUTHENTICATION, retry_after=OURS_TO_MEND_SECONDS, detail="login or certificate")
    if isinstance(error, _NoFolder):
        return Deferred(Why.UNKNOWN_MAILBOX, retry_after=OURS_TO_MEND_SECONDS, detail="folder")
    if isinstance(error, ssl.SSLError):
        return tls_verdict(error)
    if isinstance(error, _No):
        return Deferred(Why.SERVER_ERROR)
    if isinstance(error, TimeoutError | aioimaplib.CommandTimeout):
        return Deferred(Why.TIMEOUT)
    if isinstance(error, _Lost | OSError):
        return Deferred(Why.CONNECTION)
    return Deferred(Why.PROTOCOL)
