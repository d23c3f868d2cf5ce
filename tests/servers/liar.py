"""An IMAP server that says what it is told to: for the answers that a healthy Dovecot never gives."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers import LOOPBACK, free_port
from tests.servers.sink import HANG_UP, SILENCE

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator

# {tag} is the command's. Bytes go out as they stand.
HEALTHY = {
    "GREETING": "* OK ready\r\n",
    "CAPABILITY": "* CAPABILITY IMAP4rev1 IDLE MOVE UIDPLUS SASL-IR STARTTLS\r\n{tag} OK done\r\n",
    "LOGIN": "{tag} OK in\r\n",
    "AUTHENTICATE": "{tag} OK in\r\n",
    "EXAMINE": "* 2 EXISTS\r\n* OK [UIDVALIDITY 9] ok\r\n* OK [UIDNEXT 3] ok\r\n{tag} OK open\r\n",
    "SELECT": "* 2 EXISTS\r\n* OK [UIDVALIDITY 9] ok\r\n* OK [UIDNEXT 3] ok\r\n{tag} OK open\r\n",
    "SEARCH": "* SEARCH 1 2\r\n{tag} OK done\r\n",
    "SIZES": "* 1 FETCH (UID 1 RFC822.SIZE 5)\r\n* 2 FETCH (UID 2 RFC822.SIZE 5)\r\n{tag} OK done\r\n",
    "FETCH": (
        "* 1 FETCH (UID 1 RFC822.SIZE 5 BODY[] {{5}}\r\nun 1\n)\r\n"
        "* 2 FETCH (UID 2 RFC822.SIZE 5 BODY[] {{5}}\r\nun 2\n)\r\n{tag} OK done\r\n"
    ),
    "IDLE": "+ idling\r\n",
    "DONE": "{tag} OK idled\r\n",
    "NOOP": "{tag} OK\r\n",
    "STORE": "{tag} OK\r\n",
    "COPY": "{tag} OK\r\n",
    "MOVE": "{tag} OK\r\n",
    "EXPUNGE": "{tag} OK\r\n",
    "CREATE": "{tag} OK\r\n",
    "SUBSCRIBE": "{tag} OK\r\n",
    "LOGOUT": "* BYE\r\n{tag} OK\r\n",
    "STARTTLS": "{tag} BAD no\r\n",
}


@dataclass
class Liar:
    """`answers` replace those of HEALTHY; `once` before them, a single time each, oldest first.

    FETCH of sizes alone is named SIZES. An answer may be HANG_UP or SILENCE, or end in HANG_UP.
    """

    answers: dict[str, str | bytes] = field(default_factory=dict)
    once: list[tuple[str, str | bytes]] = field(default_factory=list)
    tls: ssl.SSLContext | None = None
    starttls: ssl.SSLContext | None = None
    port: int = field(default_factory=free_port)
    commands: list[str] = field(default_factory=list)  # without their tags
    connections: int = 0

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Liar]:
        server = await asyncio.start_server(self._accept, LOOPBACK, self.port, ssl=self.tls)
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def heard(self, start: str, count: int = 1) -> None:
        """Wait until so many commands came that start like this."""
        async with asyncio.timeout(10), self._heard:
            await self._heard.wait_for(lambda: sum(each.startswith(start) for each in self.commands) >= count)

    def _answer(self, name: str) -> str | bytes:
        for place, (point, answer) in enumerate(self.once):
            if point == name:
                del self.once[place]
                return answer
        return self.answers.get(name, HEALTHY.get(name, "{tag} BAD unknown\r\n"))

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await self._talk(reader, writer)
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tag, name = "*", "GREETING"
        while True:
            answer = self._answer(name)
            if answer == SILENCE:
                await asyncio.Event().wait()
            sent = (
                answer if isinstance(answer, bytes) else answer.removesuffix(HANG_UP).format(tag=tag).encode()
            )
            writer.write(sent)
            await writer.drain()
            if isinstance(answer, str) and answer.endswith(HANG_UP):
                return
            if name == "STARTTLS" and self.starttls is not None:
                await writer.start_tls(self.starttls)
            line = (await reader.readuntil(b"\r\n")).decode().rstrip("\r\n")
            if line == "DONE":
                command = "DONE"
            elif " " in line and not line.startswith("="):
                tag, _, command = line.partition(" ")
            else:
                command = f"ANSWER {line}"
            async with self._heard:
                self.commands.append(command)
                self._heard.notify_all()
            words = command.upper().removeprefix("UID ").split()
            name = words[0]
            if name == "FETCH" and "BODY" not in command.upper():
                name = "SIZES"
