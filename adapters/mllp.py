"""Listens for HL7 v2 over MLLP: a hospital system sends a message, and hears AA once it is on our disk.

One message at a time on each connection, as the protocol has it; several connections side by side. What was
not answered, because either side went away, is sent again, and is known by its control id and its bytes.
A batch (FHS, BHS) is taken apart: each message is an arrival of its own, and one batch answers for all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import re
import secrets
import ssl
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from relay import log
from relay.errors import Deferred
from relay.model import Batch, Envelope, Why, envelope_id
from relay.ports import Tools
from relay.tls import is_loopback

START, END = b"\x0b", b"\x1c\r"  # MLLP (HL7 v2.5 implementation guide, appendix C)
BATCH_MESSAGES, BATCH_BYTES = 200, 8 * 2**20
CONNECTIONS = 64
BATCH_SHARE = 50  # messages of one batch that wait for the store at a time
UNDER_WAY = 200  # messages that wait for the store; more than these are told to come again
LIGHT_BYTES = 2**20  # of one message; heavier ones are read one at a time over all connections
CHUNK_BYTES = 64 * 1024
HEAD_BYTES = 8 * 1024  # MSH stands in them
IDLE_SECONDS = 3600.0  # between two messages: wards are silent at night
SILENCE_SECONDS = 30.0  # within a message
MESSAGE_SECONDS = 300.0  # for one message, however large
ANSWER_SECONDS = 25.0  # senders give up after 30
HANDSHAKE_SECONDS = 20.0
LAST_BYTES_SECONDS = 2.0
OURS_TO_MEND_SECONDS = 300.0


class Settings(BaseModel):
    """The keys of `[adapters.NAME]` with `kind = "mllp"` that concern the wire."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    listen: str
    security: Literal["tls", "none"] = "none"
    cert: str | None = None  # shown to the hospital's systems, with its chain
    key: str | None = None  # left out: it stands in `cert`
    ca: str | None = None  # who signs the certificates that clients must show; left out: they need none
    max_bytes: int | None = Field(default=None, ge=1)  # a larger message is refused

    @field_validator("listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise ValueError(f"« {value} » is no address to listen on; write 127.0.0.1:2575")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.security == "none":
            if not is_loopback(self.place[0]):
                raise ValueError(
                    'anybody in the network could read along: security = "tls" with cert and key, or listen on 127.0.0.1'
                )
            if self.cert or self.key or self.ca:
                raise ValueError('cert, key and ca are for security = "tls"')
        elif not self.cert:
            raise ValueError('security = "tls" needs cert (and key, unless it stands in the same file)')
        return self

    @property
    def place(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def connect(name: str, settings: Settings, tools: Tools) -> Mllp:
    """Make the adapter; it listens while it is watched."""
    return Mllp(name, settings, tools)


# ------------------------------------------------------------------------------------------ acknowledgements


@dataclass(frozen=True, slots=True)
class Answer:
    """MSA-1, and for a refusal its error (HL7 table 0357) and words of ours."""

    code: bytes
    error: tuple[bytes, bytes] | None = None
    words: bytes = b""


KEPT = Answer(b"AA")
NO_HL7 = Answer(b"AR", (b"100", b"Segment sequence error"), b"no MSH segment")
TOO_LARGE = Answer(b"AR", (b"207", b"Application internal error"), b"message too large")
NOT_KEPT = Answer(b"AE", (b"207", b"Application internal error"), b"not stored yet, send again")

_CONTROLS = bytes(range(32))
_FIELD_BYTES = 199  # MSH-10 is the longest that is given back (HL7 v2.7)


@dataclass(frozen=True, slots=True)
class Header:
    """What an acknowledgement takes from MSH (HL7 v2.5 §2.15.9), as bytes in the sender's character set.

    `fields[n]` is MSH-n; those that are absent are empty.
    """

    fields: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, message: bytes) -> Header | None:
        """None where no MSH stands first: it is no HL7 v2."""
        head = message[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").lstrip(b"\r\n ")
        if head[:3] != b"MSH":
            return None
        fields = _fields(head)
        return cls(fields) if fields else None

    def get(self, number: int, default: bytes = b"") -> bytes:
        """MSH-`number`."""
        return self.fields.get(number) or default

    @property
    def control(self) -> bytes:
        """MSH-10: the sender's own name for this message."""
        return self.get(10)

    def acknowledgement(self, answer: Answer, at: datetime, control: str) -> bytes:
        """ACK of HL7 v2.5 §2.9.2: of the message it says its control id, its trigger and who spoke to whom."""
        between, within = self.get(1, b"|"), self.get(2, b"^~\\&")[:1]
        trigger = self.get(9).split(within)[1:2]
        kind = [b"ACK"]
        if trigger and re.fullmatch(rb"[A-Z0-9]{3}", trigger[0]):
            kind += [trigger[0], b"ACK"]
        header = [
            b"MSH", self.get(2, b"^~\\&"),
            self.get(5, b"RELAIS"), self.get(6), self.get(3), self.get(4),
            at.strftime("%Y%m%d%H%M%S%z").encode(), b"",
            within.join(kind), control.encode(), self.get(11, b"P"), self.get(12, b"2.5"),
        ]  # fmt: skip
        if charset := self.get(18):
            header += [b"", b"", b"", b"", b"", charset]
        segments = [header, [b"MSA", answer.code, self.control]]
        if answer.error is not None:
            segments[1].append(answer.words)
            segments.append([b"ERR", b"", b"", within.join([*answer.error, b"HL70357"]), b"E"])
        return b"".join(between.join(segment) + b"\r" for segment in segments)


def _fields(head: bytes) -> dict[int, bytes]:
    """The fields of a header segment (MSH, FHS, BHS) by their numbers; empty where its separator is none."""
    separator = head[3:4]
    if not separator or separator.isalnum() or separator < b"!":
        return {}
    found = re.split(rb"[\r\n]", head[:HEAD_BYTES], maxsplit=1)[0].split(separator)
    cleaned = (each.translate(None, _CONTROLS)[:_FIELD_BYTES] for each in found)
    return {1: separator, **{number: each for number, each in enumerate(cleaned, 1) if number > 1}}


# ------------------------------------------------------------------------------------------------- batches

_OPENS_BATCH = re.compile(rb"\s*(?:FHS|BHS)[^\w\s]")
_EDGE = re.compile(rb"(?:(?<=[\r\n])|\A)(?:MSH|FHS|BHS|BTS|FTS)(?=[^\w\s]|[\r\n]|\Z)")


@dataclass(frozen=True, slots=True)
class Pack:
    """What came between BHS and BTS; `head` is BHS, empty where none stood there."""

    head: bytes
    messages: list[bytes]


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A batch as HL7 v2.5 §2.10.3 knows it: packs of messages between FHS and FTS."""

    head: bytes  # FHS; empty where the batch came without
    packs: tuple[Pack, ...]

    @classmethod
    def of(cls, block: bytes) -> BatchFile | None:
        """The messages byte for byte as they stood. None for words outside every message: something is missing."""
        places = [found.start() for found in _EDGE.finditer(block)]
        if block[: places[0] if places else None].strip():
            return None
        head = b""
        packs: list[Pack] = []
        for start, end in zip(places, [*places[1:], len(block)], strict=True):
            piece = block[start:end]
            name = piece[:3]
            if name == b"MSH":
                if not packs:
                    packs.append(Pack(b"", []))
                packs[-1].messages.append(piece)
            elif any(more.strip() for more in re.split(rb"[\r\n]", piece, maxsplit=1)[1:]):
                return None
            elif name == b"FHS":
                head = piece
            elif name == b"BHS":
                packs.append(Pack(piece, []))
        return cls(head, tuple(packs))

    def answer(self, acknowledged: Sequence[Sequence[bytes]], at: datetime, control: str) -> bytes:
        """The batch of acknowledgements, one for each message, under the numbers of what it answers (§2.10.3.3)."""
        lines = [_answering(self.head, at, f"{control}F")] if self.head else []
        for number, (pack, answers) in enumerate(zip(self.packs, acknowledged, strict=True), 1):
            between = pack.head[3:4] or b"|"
            lines.append(_answering(pack.head or b"BHS|^~\\&", at, f"{control}B{number}"))
            lines += [*answers, b"BTS" + between + str(len(answers)).encode() + b"\r"]
        if self.head:
            lines.append(b"FTS" + self.head[3:4] + str(len(self.packs)).encode() + b"\r")
        return b"".join(lines)


def _answering(head: bytes, at: datetime, control: str) -> bytes:
    """FHS or BHS of an answer: addresses the other way round, field 12 names what is answered (§2.14.2, §2.14.6)."""
    fields = _fields(head)
    between = fields.get(1, b"|")
    told = [
        head[:3], fields.get(2) or b"^~\\&", fields.get(5) or b"RELAIS", fields.get(6, b""), fields.get(3, b""),
        fields.get(4, b""), at.strftime("%Y%m%d%H%M%S%z").encode(), b"", b"", b"", control.encode(),
        fields.get(11, b""),
    ]  # fmt: skip
    return between.join(told) + b"\r"


# --------------------------------------------------------------------------------------------- the adapter


@dataclass(eq=False, slots=True)
class _Question:
    """One message that waits for its answer, on one connection."""

    writer: asyncio.StreamWriter | None  # None within a batch, which is answered as a whole
    header: Header
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    kept: bool = False


class _NoMllp(Exception):
    """What came is no MLLP block, or not the whole of one: the connection is closed."""


class Mllp:
    """One listening address."""

    kind = "mllp"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        # The address and not MSH-3/4: an account is one place with one cursor, and what a message says of its
        # sender is anybody's to write. The sender's own names count all the same, by the hash of the bytes.
        self.account = f"mllp://{settings.listen}"
        self._settings, self._tools = settings, tools
        self._zone = ZoneInfo(tools.timezone)
        self._max_bytes = settings.max_bytes or tools.max_bytes
        self._certificates = _Certificates(settings) if settings.security == "tls" else None
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._arrived: deque[Envelope] = deque()
        self._asked: dict[str, list[_Question]] = {}  # envelope id → who waits for it, from arrival to commit
        self._news = asyncio.Event()
        self._heavy = asyncio.Lock()

    async def probe(self) -> None:
        """Look whether the address can be had and the certificates load. Raises Deferred."""
        if self._server is None:
            (await self._bind()).close()

    async def listen(self) -> None:
        """See `relay.ports.Listener.listen`."""
        if self._server is not None:
            return
        self._server = server = await self._bind()
        try:
            await server.start_serving()
        except OSError as error:
            await self.close()
            raise _translate(error) from None

    async def close(self) -> None:
        """Stop listening and hang up.

        What was acknowledged has its answer in the socket. The rest gets none: systems send again after a
        connection that broke, but lay a message that got AE aside for a person.
        """
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self._news.set()
        talks = list(self._talks)
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)
        self._arrived.clear()
        self._asked.clear()

    async def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Listen, and yield messages as they come in; see `relay.ports.Inbox.watch`.

        Whoever sends keeps what was not answered, so the cursor only says when the last message came.
        """
        await self.listen()
        server = self._server
        try:
            while True:
                self._news.clear()
                while self._arrived:
                    envelopes = self._batch()
                    yield Batch(self.account, envelopes, envelopes[-1].received_at.isoformat())
                await self._news.wait()
                if self._server is not server:
                    raise Deferred(Why.CONNECTION, detail="closed")
        finally:
            if self._server is server:
                await self.close()

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Answer AA to whoever sent these and still listens. Never raises."""
        for envelope in envelopes:
            for question in self._asked.pop(envelope.id, ()):
                if question.writer is not None:
                    self._answer(question.writer, question.header, KEPT)
                question.kept = True
                question.answered.set()

    # Listening

    async def _bind(self) -> asyncio.Server:
        """The address, bound and not yet listening: whoever gives up now leaves nothing behind. Raises Deferred."""
        host, port = self._settings.place
        try:
            context = self._certificates.context() if self._certificates else None
            return await asyncio.get_running_loop().create_server(
                self._protocol,
                host,
                port,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_SECONDS if context else None,
                start_serving=False,
            )
        except OSError as error:
            raise _translate(error) from None

    def _protocol(self) -> asyncio.StreamReaderProtocol:
        """Called for each connection, before its handshake."""
        if self._certificates is not None:
            self._certificates.renew()
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=CHUNK_BYTES), self._talk)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection from its first byte to its last."""
        task = asyncio.current_task()
        if task is None or self._server is None or len(self._talks) >= CONNECTIONS:
            log.get().warning("connection_refused", adapter=self.name, count=len(self._talks))
            writer.transport.abort()
            return
        self._talks.add(task)
        try:
            await self._converse(reader, writer)
        except (_NoMllp, TimeoutError) as error:
            log.get().warning("connection_closed", adapter=self.name, error=type(error).__name__)
        except OSError:
            pass  # they hung up: what was not answered comes again
        except asyncio.CancelledError:
            pass  # we hang up; nobody awaits this task but `close`
        finally:
            self._talks.discard(task)
            writer.close()
            try:
                async with asyncio.timeout(LAST_BYTES_SECONDS):
                    await writer.wait_closed()
            except (OSError, TimeoutError):
                writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        rest = bytearray()
        while await _begins(reader, rest):
            async with contextlib.AsyncExitStack() as weight:
                async with asyncio.timeout(MESSAGE_SECONDS):
                    message, whole = await self._message(reader, rest, weight)
                await self._heard(writer, message, whole=whole)
            await writer.drain()

    async def _message(
        self, reader: asyncio.StreamReader, rest: bytearray, weight: contextlib.AsyncExitStack
    ) -> tuple[bytes, bool]:
        """The message that begins in `rest`, which keeps what follows it; of one too large the head, and False.

        Raises _NoMllp when the other side hangs up within it.
        """
        head, looked, heavy = b"", 0, False
        while (end := rest.find(END, looked)) < 0:
            looked = max(0, len(rest) - 1)
            if len(rest) > self._max_bytes:
                # Read to its end all the same: who is still sending does not hear us.
                head = head or bytes(rest[:HEAD_BYTES])
                del rest[:looked]
                looked = 0
            elif len(rest) > LIGHT_BYTES and not heavy:
                heavy = True
                await weight.enter_async_context(self._heavy)
            async with asyncio.timeout(SILENCE_SECONDS):
                chunk = await reader.read(CHUNK_BYTES)
            if not chunk:
                raise _NoMllp
            rest += chunk
        message = bytes(rest[:end])
        del rest[: end + len(END)]
        if head or len(message) > self._max_bytes:
            return head or message[:HEAD_BYTES], False
        # A sender that broke off and began anew: what it broke off is another patient's, perhaps.
        anew = max(message.rfind(START + name) for name in (b"MSH", b"FHS", b"BHS"))
        return message[anew + 1 :], True

    async def _heard(self, writer: asyncio.StreamWriter, message: bytes, *, whole: bool) -> None:
        """Hand a message or a batch on, and return once it is answered."""
        if whole and _OPENS_BATCH.match(message[:HEAD_BYTES]):
            await self._heard_batch(writer, message)
            return
        header = Header.of(message)
        if header is None or not whole:
            refusal = NO_HL7 if whole else TOO_LARGE
            self._refused(message, Why.UNREADABLE if refusal is NO_HL7 else Why.TOO_LARGE)
            self._answer(writer, header or Header(), refusal)
            return
        question = _Question(writer, header)
        if not await self._kept([(message, question)]):
            self._answer(writer, header, NOT_KEPT)

    async def _heard_batch(self, writer: asyncio.StreamWriter, block: bytes) -> None:
        """Each message of a batch is an arrival; the answer leaves once all are kept, or time is up."""
        batch = BatchFile.of(block.lstrip(b"\r\n "))
        if batch is None:
            self._refused(block, Why.UNREADABLE)
            self._answer(writer, Header(), NO_HL7)
            return
        asked: list[list[tuple[bytes, _Question | None]]] = []
        for pack in batch.packs:
            headers = [(message, Header.of(message)) for message in pack.messages]
            asked.append([(m, _Question(None, header) if header else None) for m, header in headers])
        every = [(message, question) for pack in asked for message, question in pack if question]
        deadline = asyncio.get_running_loop().time() + ANSWER_SECONDS
        for start in range(0, len(every), BATCH_SHARE):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0 or not await self._kept(every[start : start + BATCH_SHARE], left):
                break
        now = self._tools.clock.now().astimezone(self._zone)
        told = [[self._told(question, message, now) for message, question in pack] for pack in asked]
        writer.write(START + batch.answer(told, now, secrets.token_hex(8)) + END)

    def _told(self, question: _Question | None, message: bytes, now: datetime) -> bytes:
        """The acknowledgement of one message of a batch."""
        if question is None:
            self._refused(message, Why.UNREADABLE)
            return Header().acknowledgement(NO_HL7, now, secrets.token_hex(10))
        return question.header.acknowledgement(
            KEPT if question.kept else NOT_KEPT, now, secrets.token_hex(10)
        )

    def _refused(self, message: bytes, why: Why) -> None:
        log.get().warning("message_refused", adapter=self.name, bytes=len(message), why=why)

    async def _kept(self, asked: Sequence[tuple[bytes, _Question]], seconds: float | None = None) -> bool:
        """Hand messages on and wait until the store has each; False where one could not be kept in time."""
        waiting: list[tuple[str, _Question]] = []
        every = True
        for message, question in asked:
            envelope = await self._envelope(question.header, message)
            if (
                envelope.id in self._asked
            ):  # the same message under way on another connection, or twice in a batch
                self._asked[envelope.id].append(question)
            elif len(self._asked) < UNDER_WAY:
                self._asked[envelope.id] = [question]
                self._arrived.append(envelope)
            else:
                every = False
                continue
            waiting.append((envelope.id, question))
        self._news.set()
        try:
            async with asyncio.timeout(ANSWER_SECONDS if seconds is None else seconds):
                for _, question in waiting:
                    await question.answered.wait()
        except TimeoutError:
            every = False
            for known, question in waiting:
                if not question.kept:
                    log.get().error("message_not_stored", adapter=self.name, envelope=known)
        finally:
            for known, question in waiting:
                with contextlib.suppress(KeyError, ValueError):
                    self._asked[known].remove(question)
        return every

    def _answer(self, writer: asyncio.StreamWriter, header: Header, answer: Answer) -> None:
        now = self._tools.clock.now().astimezone(self._zone)
        writer.write(START + header.acknowledgement(answer, now, secrets.token_hex(10)) + END)

    async def _envelope(self, header: Header, message: bytes) -> Envelope:
        if len(message) > LIGHT_BYTES:
            content = await asyncio.to_thread(_digest, message)
        else:
            content = _digest(message)
        control = header.control.decode("ascii", "replace")
        named = f"{control}-" if re.fullmatch(r"[\w.+-]{1,64}", control, re.ASCII) else ""
        ref = f"{named}{content[:24]}.hl7"
        return Envelope(
            id=envelope_id(self.account, ref),
            adapter=self.name,
            account=self.account,
            ref=ref,
            received_at=self._tools.clock.now(),
            raw=message,
        )

    def _batch(self) -> tuple[Envelope, ...]:
        """The oldest of what arrived, below both limits."""
        envelopes = [self._arrived.popleft()]
        weight = len(envelopes[0].raw)
        while self._arrived and len(envelopes) < BATCH_MESSAGES:
            weight += len(self._arrived[0].raw)
            if weight > BATCH_BYTES:
                break
            envelopes.append(self._arrived.popleft())
        return tuple(envelopes)


def _digest(message: bytes) -> str:
    return hashlib.sha256(message).hexdigest()


async def _begins(reader: asyncio.StreamReader, rest: bytearray) -> bool:
    """Wait until a message begins, and drop its first mark. False when the other side hangs up before.

    Line ends between two messages are some senders' habit. Raises _NoMllp for anything else, TimeoutError.
    """
    async with asyncio.timeout(IDLE_SECONDS):
        while not (beginning := rest.lstrip(b"\r\n")):
            rest[:] = await reader.read(CHUNK_BYTES)
            if not rest:
                return False
    if not beginning.startswith(START):
        raise _NoMllp
    rest[:] = beginning[len(START) :]
    return True


# ------------------------------------------------------------------------------------------------------ TLS


class _Certificates:
    """The server's side of TLS. Files that change are read again: a renewed certificate needs no restart."""

    def __init__(self, settings: Settings) -> None:
        self._cert, self._key, self._ca = settings.cert or "", settings.key, settings.ca
        self._context: ssl.SSLContext | None = None
        self._read: tuple[tuple[int, int], ...] = ()

    def context(self) -> ssl.SSLContext:
        """At least TLS 1.2; with `ca` every client must show a certificate. Raises OSError, ssl.SSLError with it."""
        read = self._stamps()
        self._context, self._read = self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)), read
        return self._context

    def renew(self) -> None:
        """Let the next handshake use the files as they are now; bad ones are told of, and the old ones stay."""
        try:
            read = self._stamps()
            if self._context is None or read == self._read:
                return
            # A key that does not fit yet would leave the context in use without one: tried on another first.
            self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
            self._load(self._context)
            self._read = read
        except OSError as error:  # SSLError is one
            log.get().warning("certificate_files_kept", error=type(error).__name__)

    def _stamps(self) -> tuple[tuple[int, int], ...]:
        files = (Path(file).stat() for file in (self._cert, self._key, self._ca) if file)
        return tuple((found.st_mtime_ns, found.st_size) for found in files)

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # An encrypted key would ask on the terminal: answer with nothing, and fail.
        context.load_cert_chain(self._cert, self._key, password=lambda: b"")
        if self._ca:
            context.load_verify_locations(self._ca)
            context.verify_mode = ssl.CERT_REQUIRED
            if b"BEGIN X509 CRL" in Path(self._ca).read_bytes():
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        return context


# -------------------------------------------------------------------------------------------------- verdicts


def _translate(error: OSError) -> Deferred:
    """Why nobody can reach us; the senders keep what they have."""
    if isinstance(error, ssl.SSLError | FileNotFoundError):
        return Deferred(Why.CERTIFICATE, retry_after=OURS_TO_MEND_SECONDS, detail="files cannot be loaded")
    if error.errno == errno.EADDRINUSE:
        return Deferred(Why.BUSY, detail="address in use")
    if error.errno == errno.EACCES:
        return Deferred(
            Why.REFUSED, retry_after=OURS_TO_MEND_SECONDS, detail="port or certificate permissions"
        )
    return Deferred(Why.CONNECTION, detail="cannot listen on this address")
