"""Hands mail over by SMTP: pooled connections, DSN asked for, and never a guess about what happened after the dot.

aiosmtplib connects, protects and authenticates. The transaction itself is spoken here: pipelined where
the server can (RFC 2920), written in pieces so that a large letter stalls nobody, and with the final dot
held back until the last byte before it has left, so that a loss earlier is known to be harmless.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import re
import socket
import ssl
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

import aiosmtplib
from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from relay.errors import Deferred, Rejected, Uncertain, Verdict
from relay.model import Delivery, MailMessage, Receipt, Why
from relay.ports import Limits, Tools
from relay.tls import Trust, is_loopback, tls_verdict

logging.getLogger(aiosmtplib.__name__).setLevel(logging.WARNING)

CONNECT_SECONDS = 30.0
COMMAND_SECONDS = 300.0  # RFC 5321 §4.5.3.2
BLOCK_SECONDS = 180.0  # RFC 5321 §4.5.3.2.5: one piece of a letter
DOT_SECONDS = 600.0  # RFC 5321 §4.5.3.2.6: giving up earlier makes duplicates
PIECE = 256 * 1024  # bytes encrypted at a time: below a millisecond
OFF_THE_LOOP = 2**20  # letters larger than this are prepared in a thread
OURS_TO_MEND_SECONDS = 300.0  # refused passwords: operators lock accounts that hammer
REST_SECONDS = 120.0  # a connection idle for longer is not trusted: firewalls forget without a word
UNREACHABLE_SECONDS = 1.0  # the rest of a batch does not try a dead server one by one
REPLY_LIMIT = 64 * 1024


class Settings(BaseModel):
    """The keys of `[adapters.NAME]` with `kind = "smtp"` that concern the wire."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    host: str
    port: int = Field(default=465, ge=1, le=65535)
    security: Literal["tls", "starttls", "none"] = "tls"
    username: str | None = None
    password: SecretStr | None = None
    ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    auth: Literal["login", "plain", "external", "xoauth2"] = "login"
    max_bytes: int = Field(default=10_485_760, gt=0)
    connections: int = Field(default=4, ge=1, le=50)
    hello: str | None = None  # the name given in EHLO; else the username's domain or this machine's name

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError('security = "none" is for loopback addresses only')
        if self.username and self.auth != "external" and not self.password:
            raise ValueError("username without password")
        if self.client_key and not self.client_cert:
            raise ValueError("client_key without client_cert")
        return self


def connect(name: str, settings: Settings, tools: Tools) -> Smtp:
    """Make the adapter; the network is touched by `send` and `probe` only."""
    return Smtp(name, settings, tools)


class Smtp:
    """One submission server, a few connections kept open."""

    kind = "smtp"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        self.limits = Limits(max_bytes=settings.max_bytes, confidential=True, parallel=settings.connections)
        self._settings, self._clock = settings, tools.clock
        self._trust = Trust(settings.ca, settings.client_cert, settings.client_key)
        self._idle: list[tuple[float, _Wire]] = []  # with the moment each came to rest
        self._busy: set[_Wire] = set()
        self._places = asyncio.Semaphore(settings.connections)
        self._pause: tuple[float, Deferred] | None = None  # until this moment of the clock, answer this

    async def probe(self) -> None:
        """Connect and log in, send nothing. Raises Deferred."""
        self._pause = None
        async with self._places:
            wire = await self._connected()
            wire.quit()

    async def close(self) -> None:
        """Drop every connection; a letter under way counts as not finished."""
        wires = [*(wire for _, wire in self._idle), *self._busy]
        self._idle.clear()
        for wire in wires:
            wire.quit()
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await asyncio.gather(*(wire.closed.wait() for wire in wires))

    async def send(self, delivery: Delivery) -> Receipt:
        """Hand one letter over; see `relay.ports.Sender.send`."""
        mail = delivery.message
        if not isinstance(mail, MailMessage):
            raise Rejected(Why.PROTOCOL, detail="no mail")
        if len(mail.content) > self._settings.max_bytes:
            raise Rejected(Why.MESSAGE_TOO_LARGE)
        if len(mail.content) > OFF_THE_LOOP:
            body = await asyncio.to_thread(_transparent, mail.content)
        else:
            body = _transparent(mail.content)
        async with self._places:
            while self._idle:
                since, wire = self._idle.pop()
                if self._clock.monotonic() - since > REST_SECONDS or not wire.alive:
                    wire.quit()
                    continue
                try:
                    return await self._hand_over(wire, delivery.id, mail, body)
                except _Stale:
                    continue  # the server let go while nobody looked; nothing was said yet
            return await self._hand_over(await self._connected(), delivery.id, mail, body)

    async def send_many(self, deliveries: Sequence[Delivery]) -> Sequence[Receipt | Verdict]:
        """Hand letters over, as many at a time as there are connections; never raises a verdict."""
        answers: list[Receipt | Verdict] = [Deferred(Why.CONNECTION)] * len(deliveries)
        waiting = iter(enumerate(deliveries))

        async def work() -> None:
            for place, delivery in waiting:
                try:
                    answers[place] = await self.send(delivery)
                except Verdict as verdict:
                    answers[place] = verdict

        async with asyncio.TaskGroup() as group:
            for _ in range(min(self.limits.parallel, len(deliveries))):
                group.create_task(work())
        return answers

    async def _hand_over(self, wire: _Wire, delivery: str, mail: MailMessage, body: bytes) -> Receipt:
        self._busy.add(wire)
        try:
            await wire.transmit(mail, body)
        except (Deferred, Rejected):
            self._rest(wire)
            raise
        except BaseException:
            # Cancelled, lost or out of step: what a later letter would read might be an answer to this one.
            wire.drop()
            raise
        finally:
            self._busy.discard(wire)
        self._rest(wire)
        return Receipt(delivery)

    def _rest(self, wire: _Wire) -> None:
        if wire.alive:
            self._idle.append((self._clock.monotonic(), wire))
        else:
            wire.drop()

    async def _connected(self) -> _Wire:
        if self._pause is not None:
            until, verdict = self._pause
            left = until - self._clock.monotonic()
            if left > 0:
                raise Deferred(verdict.why, retry_after=verdict.retry_after and left, detail=verdict.detail)
            self._pause = None
        try:
            return await self._connect()
        except (aiosmtplib.SMTPException, OSError, ValueError, Deferred) as error:
            verdict = _translate(error)
            self._pause = (self._clock.monotonic() + (verdict.retry_after or UNREACHABLE_SECONDS), verdict)
            raise verdict from None

    async def _connect(self) -> _Wire:
        settings = self._settings
        protected = settings.security != "none"
        client = aiosmtplib.SMTP(
            hostname=settings.host,
            port=settings.port,
            use_tls=settings.security == "tls",
            start_tls=settings.security == "starttls",
            tls_context=self._trust.context() if protected else None,
            local_hostname=settings.hello or _own_name(settings.username),
            timeout=CONNECT_SECONDS,
        )
        try:
            await client.connect()
            await client.ehlo()
            if settings.username is not None or settings.auth == "external":
                await self._log_in(client)
            return _Wire.over(client)
        except BaseException:
            if isinstance(client.transport, asyncio.WriteTransport):
                client.transport.abort()  # a polite close of TLS would wait for the other side
            client.close()
            raise

    async def _log_in(self, client: aiosmtplib.SMTP) -> None:
        settings = self._settings
        username = settings.username or ""
        password = settings.password.get_secret_value() if settings.password else ""
        offered = client.server_auth_methods
        if settings.auth == "xoauth2":
            await client.auth_xoauth2(username, password)
        elif settings.auth == "external":  # RFC 4422 appendix A
            initial = base64.b64encode(username.encode()) or b"="
            response = await client.execute_command(b"AUTH", b"EXTERNAL", initial)
            if response.code != 235:
                raise aiosmtplib.SMTPAuthenticationError(response.code, "")
        elif settings.auth == "plain" or ("login" not in offered and "plain" in offered):
            await client.auth_plain(username, password)
        else:
            await client.auth_login(username, password)


def _own_name(username: str | None) -> str:
    domain = (username or "").rpartition("@")[2] if "@" in (username or "") else socket.gethostname()
    return domain if domain.isascii() and " " not in domain else "localhost"


# ---------------------------------------------------------------------------------------------- the letter


_BARE = re.compile(rb"\r\n|\r|\n")
# Both begin with the LF, so that the search leaps from one to the next: five times faster than counting pairs.
_BARE_LF, _DOT = re.compile(rb"\n(?<!\r\n)"), re.compile(rb"\n\.")


def _transparent(content: bytes) -> bytes:
    """The letter as it stands between DATA and the dot: CRLF only, leading dots doubled (RFC 5321 §4.5.2)."""
    if _BARE_LF.search(content) or content.count(b"\r") != content.count(b"\n"):
        # A bare CR or LF could end the letter early for a server that takes it for a line end (smuggling).
        content = _BARE.sub(b"\r\n", content)
    if not content.endswith(b"\r\n"):
        content += b"\r\n"
    if _DOT.search(content):
        content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content


_UNFIT = re.compile(r"[\x00-\x20\x7f<>]")


def _xtext(text: str) -> str:
    """RFC 3461 §4."""
    return "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)


def _commands(mail: MailMessage, extensions: dict[str, str], size: int) -> list[bytes]:
    """MAIL, RCPT and DATA. Raises Rejected where this server cannot carry the letter."""
    if not mail.recipient or _UNFIT.search(mail.sender) or _UNFIT.search(mail.recipient):
        raise Rejected(Why.NO_ADDRESS)
    sender, recipient = [f"MAIL FROM:<{mail.sender}>"], [f"RCPT TO:<{mail.recipient}>"]
    if not (mail.sender.isascii() and mail.recipient.isascii()):
        if "smtputf8" not in extensions:
            raise Rejected(Why.NO_ADDRESS, detail="SMTPUTF8")
        sender.append("SMTPUTF8")  # RFC 6531
    if "size" in extensions:  # RFC 1870
        limit = extensions["size"].strip()
        if limit.isdigit() and 0 < int(limit) < size:
            raise Rejected(Why.MESSAGE_TOO_LARGE)
        sender.append(f"SIZE={size}")
    if "8bitmime" in extensions and not mail.content.isascii():
        sender.append("BODY=8BITMIME")  # RFC 6152
    if "dsn" in extensions:  # RFC 3461: the report comes back with our own id, and without the letter
        sender += ["RET=HDRS", f"ENVID={_xtext(mail.envid)}"]
        recipient += ["NOTIFY=SUCCESS,FAILURE,DELAY"]
        if mail.recipient.isascii():
            recipient.append(f"ORCPT=rfc822;{_xtext(mail.recipient)}")
    return [" ".join(sender).encode() + b"\r\n", " ".join(recipient).encode() + b"\r\n", b"DATA\r\n"]


# ------------------------------------------------------------------------------------------------- the wire


class _Stale(Exception):
    """An idle connection turned out to be closed before anything was answered on it."""


@dataclass(frozen=True, slots=True)
class _Reply:
    code: int
    status: str = ""  # enhanced, RFC 3463: "5.1.1"

    @property
    def detail(self) -> str:
        return f"{self.code} {self.status}".strip()


def _refusal(answers: Sequence[_Reply]) -> _Reply | None:
    return next((answer for answer in answers if answer.code >= 400), None)


class _Wire(asyncio.Protocol):
    """One open, authenticated connection, taken over from aiosmtplib between two commands."""

    def __init__(self, transport: asyncio.Transport, extensions: dict[str, str]) -> None:
        self._transport, self._extensions = transport, extensions
        self._buffer = bytearray()
        self._replies: deque[_Reply] = deque()
        self._news = asyncio.Event()  # a reply came, or the connection went
        self.closed = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._lost = False
        self._rested = False  # it carried letters before, and nothing was answered to the present one yet
        self._open_transaction = False

    @classmethod
    def over(cls, client: aiosmtplib.SMTP) -> _Wire:
        """Take the connection over."""
        transport = client.transport
        if not isinstance(transport, asyncio.Transport) or transport.is_closing():
            raise aiosmtplib.SMTPServerDisconnected("gone")
        wire = cls(transport, dict(client.esmtp_extensions))
        transport.set_protocol(wire)
        return wire

    @property
    def alive(self) -> bool:
        # Whatever the server says unasked while the connection rests is a farewell.
        return not (self._lost or self._replies or self._buffer or self._transport.is_closing())

    def drop(self) -> None:
        """Close at once."""
        self._lost = True
        self._news.set()
        self._writable.set()
        self._transport.abort()

    def quit(self) -> None:
        """Say goodbye without waiting for the answer."""
        if self._busy_or_lost():
            self.drop()
            return
        self._transport.write(b"QUIT\r\n")
        self._lost = True
        self._transport.close()

    def _busy_or_lost(self) -> bool:
        return self._lost or self._open_transaction

    async def transmit(self, mail: MailMessage, body: bytes) -> None:
        """One letter, one recipient. Raises a verdict, or _Stale when nothing was said yet."""
        commands = _commands(mail, self._extensions, len(mail.content))
        dotted = False
        self._open_transaction = True
        try:
            await self._open(commands)
            await self._write_body(body)
            dotted = True
            self._transport.write(b".\r\n")
            self._judge(await self._reply(DOT_SECONDS), after_dot=True)
        except (_Gone, TimeoutError) as error:
            self.drop()
            if dotted:
                raise Uncertain(Why.LOST_AFTER_SEND) from None
            if isinstance(error, TimeoutError):
                raise Deferred(Why.TIMEOUT) from None
            if self._rested:
                # A rested connection that goes before its first answer took nothing: a new one may try.
                raise _Stale from None
            raise Deferred(Why.CONNECTION) from None
        self._open_transaction = False
        self._rested = True

    async def _open(self, commands: list[bytes]) -> None:
        """Get to the 354."""
        if "pipelining" in self._extensions:
            self._transport.write(b"".join(commands))
            answers = [await self._first_reply()]
            with self._refused_before(answers):
                while len(answers) < len(commands):
                    answers.append(await self._reply(COMMAND_SECONDS))
                refusal = _refusal(answers)
                if refusal is not None and answers[-1].code == 354:
                    # RFC 2920 §3.1: it wants data for nobody. An empty letter ends that; no one gets it.
                    self._transport.write(b".\r\n")
                    await self._reply(COMMAND_SECONDS)
            if refusal is None:
                self._judge(answers[-1], expected=354)
                return
            await self._refuse(refusal)
        for command in commands:
            self._transport.write(command)
            answer = await self._first_reply()
            if answer.code >= 400:
                await self._refuse(answer)
            self._judge(answer, expected=354 if command.startswith(b"DATA") else 250)

    async def _first_reply(self) -> _Reply:
        answer = await self._reply(COMMAND_SECONDS)
        if self._rested and answer.code == 421:
            raise _Gone  # it closed while nobody looked
        self._rested = False  # it speaks: a loss from here on is a loss
        return answer

    async def _refuse(self, answer: _Reply) -> None:
        """Clear the transaction away, then say why it ended."""
        if answer.code != 421:
            with self._refused_before([answer]):
                self._transport.write(b"RSET\r\n")
                await self._reply(COMMAND_SECONDS)
            self._open_transaction = False
            self._rested = True
        self._judge(answer)

    @contextmanager
    def _refused_before(self, answers: Sequence[_Reply]) -> Iterator[None]:
        """A refusal stands although the server hangs up, or says no more, right after it: raise that, not the loss."""
        try:
            yield
        except (_Gone, TimeoutError):
            refusal = _refusal(answers)
            if refusal is None:
                raise
            self.drop()
            raise _verdict(refusal) from None

    async def _write_body(self, body: bytes) -> None:
        view = memoryview(body)
        for start in range(0, len(view), PIECE):
            self._transport.write(view[start : start + PIECE])
            if len(view) > PIECE:
                await asyncio.sleep(0)  # the others' turn
            if not self._writable.is_set():
                async with asyncio.timeout(BLOCK_SECONDS):
                    await self._writable.wait()
            if self._lost or self._transport.is_closing():
                raise _Gone
            if self._replies:
                # Refused in the middle: the dot must not follow, and only closing ends a letter without it.
                answer = self._replies.popleft()
                self.drop()
                self._judge(answer)

    async def _reply(self, seconds: float) -> _Reply:
        if not self._replies:
            async with asyncio.timeout(seconds):
                while not self._replies:
                    if self._lost:
                        raise _Gone
                    self._news.clear()
                    await self._news.wait()
        return self._replies.popleft()

    def _judge(self, reply: _Reply, *, expected: int = 0, after_dot: bool = False) -> None:
        """Raise the verdict this reply means."""
        if reply.code == expected or (after_dot and 200 <= reply.code < 300):
            return
        if not 400 <= reply.code < 600:
            # 251 to RCPT is as good as 250; anything else is a server that lost the thread.
            if expected == 250 and 200 <= reply.code < 300:
                return
            self.drop()
            if after_dot:
                raise Uncertain(Why.LOST_AFTER_SEND, detail=reply.detail)
            raise Deferred(Why.PROTOCOL, detail=reply.detail)
        if after_dot:
            self._open_transaction = False
        if reply.code == 421:
            self.drop()
        raise _verdict(reply)

    # Bytes

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end])
            del self._buffer[: end + 1]
            found = _REPLY.match(line)
            if found is None:
                self.drop()
                return
            if found[2] != b"-":
                self._replies.append(_Reply(int(found[1]), (found[3] or b"").decode()))
        if len(self._buffer) > REPLY_LIMIT:
            self.drop()
        self._news.set()

    def eof_received(self) -> None:
        self._lost = True
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._news.set()
        self._writable.set()
        self.closed.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()


class _Gone(Exception):
    """The connection is lost."""


_REPLY = re.compile(rb"([2-5]\d\d)([- ]|\r?$)(?:([245]\.\d{1,3}\.\d{1,3})\b)?")


# ------------------------------------------------------------------------------------------------ verdicts


def _verdict(reply: _Reply) -> Verdict:
    """What a 4xx or 5xx about one letter means. RFC 5321 §4.2, RFC 3463, RFC 4954 §6."""
    code, status = reply.code, reply.status
    subject = status[2:]  # "5.1.1" → "1.1"
    if code in {530, 534, 535, 538} or (code == 454 and subject.startswith("7")):
        return Deferred(Why.AUTHENTICATION, retry_after=OURS_TO_MEND_SECONDS, detail=reply.detail)
    if subject == "3.4" or (code == 552 and subject != "2.2"):
        return (Rejected if code >= 500 else Deferred)(Why.MESSAGE_TOO_LARGE, detail=reply.detail)
    if subject == "2.2" or (code == 452 and subject in {"", "2.2"}):
        why = Why.MAILBOX_FULL
    elif subject in {"1.1", "1.2", "1.3", "1.6", "1.10", "2.1"} or (code in {550, 551, 553} and not status):
        why = Why.UNKNOWN_MAILBOX
    elif code in {500, 501, 502, 503, 504, 555}:
        why = Why.PROTOCOL
    else:
        why = Why.REFUSED if code >= 500 else Why.BUSY
    if code < 500:
        # 421 and the subjects « mail system » and « network » speak of the server (RFC 5321 §3.8, RFC 3463 §3.4, §3.5).
        own = code != 421 and not subject.startswith(("3.", "4."))
        return Deferred(why, detail=reply.detail, reached=own)
    return Rejected(why, detail=reply.detail)


def _translate(error: Exception) -> Deferred:
    """Nothing was said about any letter yet: whatever goes wrong while connecting, it is tried again."""
    if isinstance(error, Deferred):
        return error
    if isinstance(error, aiosmtplib.SMTPAuthenticationError):
        if error.code in {421, 454}:
            return Deferred(Why.BUSY, detail=str(error.code))
        return Deferred(Why.AUTHENTICATION, retry_after=OURS_TO_MEND_SECONDS, detail=str(error.code))
    if isinstance(error, aiosmtplib.SMTPResponseException):
        if error.code in {530, 534, 535, 538}:
            return Deferred(Why.AUTHENTICATION, retry_after=OURS_TO_MEND_SECONDS, detail=str(error.code))
        return Deferred(Why.BUSY if error.code < 500 else Why.SERVER_ERROR, detail=str(error.code))
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return tls_verdict(cause)
        cause = cause.__cause__
    if isinstance(error, TimeoutError):
        return Deferred(Why.TIMEOUT)
    if isinstance(error, OSError):
        return Deferred(Why.CONNECTION)
    if isinstance(error, aiosmtplib.SMTPException):
        return Deferred(Why.PROTOCOL, retry_after=OURS_TO_MEND_SECONDS, detail="no such extension")
    return Deferred(Why.PROTOCOL)
