"""How each adapter is tried: what arrives, what leaves, and how its wire breaks.

The contract in test_adapters.py asks for nothing else. A new adapter brings one class like these.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pydantic import SecretStr

from adapters import folder as folders
from adapters import imap, memory, mllp, smtp, telegram
from relay.clock import SystemClock
from relay.errors import Deferred, Rejected, Uncertain
from relay.model import (
    ChatFields,
    ChatKind,
    ChatMessage,
    ChatRecipe,
    Delivery,
    Envelope,
    MailMessage,
    MailRecipe,
    Press,
    Purpose,
    Why,
)
from relay.ports import Adapter, Clock, Inbox, Sender, Tools
from tests.conftest import GP, PASSWORD, RELAY
from tests.servers import LOOPBACK, free_port
from tests.servers.postfix import DEFERRING_DOMAIN
from tests.servers.proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import pytest

    from tests.servers.dovecot import Dovecot
    from tests.servers.postfix import Postfix
    from tests.servers.telegram import Telegram

RETURNS = "retours@relais45.mssante.fr"


@dataclass
class TurnedClock:
    """Time that passes only when somebody sleeps; `slept` says how long each did."""

    at: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 11, 20, 8, tzinfo=UTC) + timedelta(seconds=self.at)

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds
        await asyncio.sleep(0)


def tools(folder: Path, clock: Clock | None = None, max_bytes: int = 50 * 2**20) -> Tools:
    return Tools(clock=clock or SystemClock(), state=folder, max_bytes=max_bytes)


def letter(mark: str, body: str = "Bonjour.\r\n", to: str = GP) -> bytes:
    """A small mail with the mark as its subject, CRLF line ends."""
    head = f"From: cardiologie@chr-exemple.mssante.fr\r\nTo: {to}\r\nSubject: {mark}\r\n"
    head += "Date: Fri, 20 Nov 2026 09:00:00 +0100\r\n"
    return f"{head}Message-ID: <{mark.replace(' ', '.')}@test.example>\r\n\r\n{body}".encode()


def mail(mark: str, to: str = GP, content: bytes | None = None) -> Delivery:
    """One copy for a GP, ready to be sent."""
    return Delivery(
        id=f"delivery-{mark.replace(' ', '-')}",
        adapter="mss",
        to="rpps:10001234567",
        address=to,
        purpose=Purpose.LETTER,
        recipe=MailRecipe(RELAY, (), "", "boundary"),
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
        message=MailMessage(
            RELAY, to, letter(mark, to=to) if content is None else content, mark.encode().hex()
        ),
    )


def alert(mark: str, chat: int = 7, **fields: object) -> Delivery:
    """One alert for a chat, ready to be sent."""
    message = ChatMessage(
        str(chat),
        mark,
        **({"buttons": ((("Bien reçu", "nonce"),),)} | fields),  # type: ignore[arg-type]
    )
    return Delivery(
        id=f"delivery-{mark.replace(' ', '-')}",
        adapter="telegram",
        to="rpps:10001234567",
        address=str(chat),
        purpose=Purpose.ALERT,
        recipe=ChatRecipe(ChatFields(ChatKind.ALERT)),
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
        message=message,
    )


class Trial(Protocol):
    """What the contract needs of one adapter. Marks are short texts without spaces at their ends."""

    adapter: Adapter

    def again(self) -> Adapter:
        """The adapter after a restart of the relay."""

    async def cut(self) -> None:
        """Every open connection breaks."""

    async def go_away(self) -> None:
        """Nobody answers any more."""


class InboxTrial(Trial, Protocol):
    adapter: Inbox

    def again(self) -> Inbox: ...

    async def arrive(self, *marks: str) -> None:
        """Let something arrive upstream for each mark, in this order."""

    def mark(self, envelope: Envelope) -> str:
        """The mark of what arrived."""

    async def waits(self) -> None:
        """Return once a watch that was read to its end depends on the connection again."""


class SenderTrial(Trial, Protocol):
    adapter: Sender

    def again(self) -> Sender: ...

    def delivery(self, mark: str) -> Delivery:
        """A copy that will be taken."""

    def rejected(self, mark: str) -> Delivery:
        """A copy that the other side never takes."""

    def deferred(self, mark: str) -> Delivery:
        """A copy that the other side does not take now."""

    def lose_answer(self) -> None:
        """The next copy is taken, and the answer is lost."""

    async def taken(self, count: int) -> list[str]:
        """The marks of what the other side took; waits until there are so many."""


# ------------------------------------------------------------------------------------------------- memory


class MemoryTrial:
    """The adapter without a wire."""

    def __init__(self, folder: Path) -> None:
        self.adapter = memory.connect("memory", memory.Settings(), tools(folder))
        self._gone = False

    def again(self) -> memory.Memory:
        return self.adapter

    async def cut(self) -> None:
        self.adapter.break_off()

    async def go_away(self) -> None:
        self.adapter.break_off()
        self.adapter.fail(Deferred(Why.CONNECTION))

    async def arrive(self, *marks: str) -> None:
        for mark in marks:
            self.adapter.arrive(letter(mark))

    def mark(self, envelope: Envelope) -> str:
        return subject(envelope.raw)

    async def waits(self) -> None:
        return

    def delivery(self, mark: str) -> Delivery:
        return mail(mark)

    def rejected(self, mark: str) -> Delivery:
        self.adapter.fail(Rejected(Why.UNKNOWN_MAILBOX))
        return mail(mark)

    def deferred(self, mark: str) -> Delivery:
        self.adapter.fail(Deferred(Why.BUSY))
        return mail(mark)

    def lose_answer(self) -> None:
        self.adapter.fail(Uncertain(Why.LOST_AFTER_SEND), taken=True)

    async def taken(self, count: int) -> list[str]:
        return [
            subject(each.message.content)
            for each in self.adapter.sent
            if isinstance(each.message, MailMessage)
        ]


@contextlib.asynccontextmanager
async def memory_trial(_request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[MemoryTrial]:
    yield MemoryTrial(folder)


# --------------------------------------------------------------------------------------------------- imap


class ImapTrial:
    """A mailbox of the real Dovecot, with a client certificate, through a proxy that can be cut."""

    def __init__(self, dovecot: Dovecot, proxy: Proxy, folder: Path) -> None:
        self.dovecot, self.proxy, self.folder = dovecot, proxy, folder
        self.adapter = self.again()

    def again(self, **changed: object) -> imap.Imap:
        return imap.connect(
            "retours", imap_settings(self.dovecot, self.proxy.port, **changed), tools(self.folder)
        )

    async def cut(self) -> None:
        await self.proxy.cut()

    async def go_away(self) -> None:
        await self.proxy.go_away()

    async def arrive(self, *marks: str) -> None:
        await asyncio.to_thread(self.dovecot.deliver, RETURNS, *(letter(mark) for mark in marks))

    def mark(self, envelope: Envelope) -> str:
        return subject(envelope.raw)

    async def waits(self) -> None:
        return  # its connection stands for as long as the watch


def imap_settings(dovecot: Dovecot, port: int = 0, **changed: object) -> imap.Settings:
    pki = dovecot.pki
    return imap.Settings.model_validate(
        {
            "host": "127.0.0.1",
            "port": port or dovecot.imaps_port,
            "username": RETURNS,
            "password": SecretStr(PASSWORD),
            "ca": str(pki.ca),
            "client_cert": str(pki.client.cert),
            "client_key": str(pki.client.key),
            "since": "all",
            "done": "Traités",
        }
        | changed
    )


@contextlib.asynccontextmanager
async def imap_trial(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[ImapTrial]:
    dovecot: Dovecot = request.getfixturevalue("dovecot")
    dovecot.empty(RETURNS)
    async with Proxy(dovecot.imaps_port).running() as proxy:
        yield ImapTrial(dovecot, proxy, folder)


# --------------------------------------------------------------------------------------------------- smtp


class SmtpTrial:
    """The real Postfix in front of Dovecot, through a proxy that can be cut after the final dot."""

    def __init__(self, postfix: Postfix, proxy: Proxy, folder: Path) -> None:
        self.postfix, self.proxy, self.folder = postfix, proxy, folder
        self.adapter = self.again()

    def again(self) -> smtp.Smtp:
        settings = smtp.Settings(host="127.0.0.1", port=self.proxy.port, security="none")
        return smtp.connect("mss", settings, tools(self.folder))

    async def cut(self) -> None:
        await self.proxy.cut()

    async def go_away(self) -> None:
        await self.proxy.go_away()

    def delivery(self, mark: str) -> Delivery:
        return mail(mark)

    def rejected(self, mark: str) -> Delivery:
        return mail(mark, to="inconnu@medecin.mssante.fr")

    def deferred(self, mark: str) -> Delivery:
        return mail(mark, to=f"dr@{DEFERRING_DOMAIN}")

    def lose_answer(self) -> None:
        self.proxy.cut_up_on = b"\r\n.\r\n"

    async def taken(self, count: int) -> list[str]:
        raws = await asyncio.to_thread(self.postfix.dovecot.wait_messages, GP, count)
        return [subject(raw) for raw in raws]


@contextlib.asynccontextmanager
async def smtp_trial(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[SmtpTrial]:
    postfix: Postfix = request.getfixturevalue("postfix")
    postfix.dovecot.empty(GP)
    async with Proxy(postfix.incoming_port).running() as proxy:
        yield SmtpTrial(postfix, proxy, folder)


# ----------------------------------------------------------------------------------------------- telegram


class TelegramTrial:
    """The Bot API double, through a proxy that can be cut."""

    def __init__(self, server: Telegram, proxy: Proxy, folder: Path) -> None:
        self.server, self.proxy, self.folder = server, proxy, folder
        self.adapter = self.again()

    def again(self, **changed: object) -> telegram.Telegram:
        settings = telegram_settings(self.server, self.proxy.port, **changed)
        return telegram.connect("telegram", settings, tools(self.folder))

    async def cut(self) -> None:
        await self.proxy.cut()

    async def go_away(self) -> None:
        await self.proxy.go_away()

    async def arrive(self, *marks: str) -> None:
        message = {"message_id": 1, "date": 1, "chat": {"id": 7, "type": "private"}}
        person = {"id": 7, "is_bot": False, "first_name": "Dr"}
        for mark in marks:
            query = {"id": mark, "from": person, "message": message, "chat_instance": "1", "data": mark}
            self.server.push(callback_query=query)

    def mark(self, envelope: Envelope) -> str:
        assert isinstance(envelope.event, Press)
        return envelope.event.nonce

    async def waits(self) -> None:
        polls = len(self.server.made("getUpdates"))
        await asyncio.to_thread(self.server.wait, "getUpdates", polls + 1)

    def delivery(self, mark: str) -> Delivery:
        return alert(mark)

    def rejected(self, mark: str) -> Delivery:
        self.server.block(8)
        return alert(mark, chat=8)

    def deferred(self, mark: str) -> Delivery:
        self.server.fault("sendMessage", status=429, retry_after=3)
        return alert(mark, chat=9)

    def lose_answer(self) -> None:
        self.server.fault("sendMessage", drop="after")

    async def taken(self, count: int) -> list[str]:
        return [message["text"] for message in self.server.messages.values() if message["from"]["id"] == 1]


def telegram_settings(server: Telegram, port: int = 0, **changed: object) -> telegram.Settings:
    return telegram.Settings.model_validate(
        {
            "token": SecretStr(server.token),
            "base_url": f"http://127.0.0.1:{port or server.port}",
            "rate": {"total": 0, "chat": 0},
        }
        | changed
    )


@contextlib.asynccontextmanager
async def telegram_trial(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[TelegramTrial]:
    server: Telegram = request.getfixturevalue("telegram")
    async with Proxy(server.port).running() as proxy:
        yield TelegramTrial(server, proxy, folder)


# --------------------------------------------------------------------------------------------------- mllp


class Hospital:
    """A system that sends HL7: it keeps each message until AA, one connection for each, in the order given."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.outbox: list[str] = []
        self._on_the_wire: dict[str, asyncio.Task[None]] = {}
        self._lost = False
        self._news = asyncio.Event()

    def send(self, *marks: str) -> None:
        self.outbox += marks
        self._news.set()

    async def run(self) -> None:
        while True:
            self._news.clear()
            if self._lost:
                # Whoever hung up hangs up on all: they are sent again in their order.
                await asyncio.gather(*self._on_the_wire.values())
                self._lost = False
            for mark in [mark for mark in self.outbox if mark not in self._on_the_wire]:
                if len(self._on_the_wire) >= 32 or self._lost:
                    break
                reader, writer = await self._connected()
                writer.write(b"\x0b" + hl7(mark) + b"\x1c\r")
                self._on_the_wire[mark] = asyncio.create_task(self._answered(mark, reader, writer))
            await self._news.wait()

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while True:
            try:
                return await asyncio.open_connection(LOOPBACK, self.port)
            except OSError:
                await asyncio.sleep(0.01)

    async def _answered(self, mark: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await reader.readuntil(b"\x1c\r")
            assert f"MSA|AA|{control(mark)}\r".encode() in answer
            self.outbox.remove(mark)
        except (asyncio.IncompleteReadError, OSError):
            self._lost = True
        finally:
            writer.transport.abort()
            del self._on_the_wire[mark]
            self._news.set()

    async def hang_up(self) -> None:
        tasks = list(self._on_the_wire.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class MllpTrial:
    """The listener, and a hospital system on loopback. When it breaks off, its address is given up."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.hospital = Hospital(self.port)
        self.adapter = self.again()
        self.other: asyncio.Server | None = None

    def again(self) -> mllp.Mllp:
        return mllp.connect("his", mllp.Settings(listen=f"{LOOPBACK}:{self.port}"), tools(self.folder))

    async def cut(self) -> None:
        await self.adapter.close()

    async def go_away(self) -> None:
        self.other = await asyncio.start_server(lambda *_: None, LOOPBACK, self.port)

    async def arrive(self, *marks: str) -> None:
        self.hospital.send(*marks)

    def mark(self, envelope: Envelope) -> str:
        return envelope.raw.decode().split("\rZZZ|")[1].rstrip("\r")

    async def waits(self) -> None:
        return  # it listens for as long as the watch


def control(mark: str) -> str:
    """The control id of the message with this mark."""
    return mark.encode().hex()[:20]


def hl7(mark: str, body: str = "", charset: str = "UNICODE UTF-8") -> bytes:
    """A small discharge message (ADT^A03) with the mark in a segment of its own."""
    return (
        f"MSH|^~\\&|DPI|CHR|RELAIS|CHR|20261120090000+0100||ADT^A03^ADT_A03|{control(mark)}|P|2.5^FRA^2.11"
        f"||||||{charset}\rEVN||20261120090000\r{body}ZZZ|{mark}\r"
    ).encode()


@contextlib.asynccontextmanager
async def mllp_trial(_request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[MllpTrial]:
    trial = MllpTrial(folder)
    sending = asyncio.create_task(trial.hospital.run())
    try:
        yield trial
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        await trial.hospital.hang_up()
        if trial.other is not None:
            trial.other.close()


# ------------------------------------------------------------------------------------------------- folder


class FolderTrial:
    """A folder on disk, which can be taken away. Time passes as fast as it is looked at."""

    def __init__(self, place: Path) -> None:
        self.place, self.drop = place, place / "share" / "depot"
        self.drop.mkdir(parents=True)
        self.adapter = self.again()
        self.written = 0

    def again(self, **changed: object) -> folders.Folder:
        settings = folders.Settings.model_validate({"path": str(self.drop)} | changed)
        return folders.connect("depot", settings, tools(self.place, TurnedClock()))

    async def cut(self) -> None:
        (self.place / "share").rename(self.place / "away")

    async def go_away(self) -> None:
        await self.cut()

    async def arrive(self, *marks: str) -> None:
        if (self.place / "away").exists():
            (self.place / "away").rename(self.place / "share")
        for mark in marks:
            self.put(f"{mark}.eml", letter(mark))

    def put(self, name: str, content: bytes) -> Path:
        """Write a file as a careful program does, each a second later than the one before."""
        self.written += 1
        hidden, file = self.drop / f".{self.written}", self.drop / name
        hidden.write_bytes(content)
        os.utime(hidden, (1_800_000_000 + self.written,) * 2)
        hidden.rename(file)
        return file

    def mark(self, envelope: Envelope) -> str:
        return subject(envelope.raw)

    async def waits(self) -> None:
        return  # it looks for as long as the watch


@contextlib.asynccontextmanager
async def folder_trial(_request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[FolderTrial]:
    yield FolderTrial(folder)


def subject(raw: bytes) -> str:
    found = re.search(rb"^Subject: ([^\r\n]*)", raw, re.MULTILINE)
    assert found is not None
    return found[1].decode()


def large(mark: str, size: int, to: str = RETURNS) -> bytes:
    """A letter of about so many bytes."""
    return letter(mark, ("x" * 76 + "\r\n") * (size // 78), to)
