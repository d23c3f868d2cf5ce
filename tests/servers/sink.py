"""An SMTP server that answers as it is told, in the test's own loop; it records every message it took.

For the answers a healthy Postfix never gives: refusals at each point, and losses after the final dot.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers import LOOPBACK, free_port

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable

HANG_UP = "hang up"
SILENCE = "silence"
THEN_HANG_UP = " then hang up"


@dataclass(frozen=True)
class Taken:
    """One message the sink took responsibility for (it counts before the answer goes out)."""

    sender: str
    recipients: tuple[str, ...]
    raw: bytes  # with CRLF, dots unstuffed
    options: str  # the whole MAIL line and RCPT lines, for DSN parameters


@dataclass
class Sink:
    """The `answers` name what to say at a point: CONNECT, EHLO, AUTH, MAIL, RCPT, DATA or DOT.

    An answer is a reply line, perhaps with THEN_HANG_UP at its end, HANG_UP or SILENCE; `{recipient}` entries like "RCPT:x@y" go before
    the general one. Each answer in `once` is used a single time, before those in `answers`.
    """

    answers: dict[str, str] = field(default_factory=dict)
    once: dict[str, str] = field(default_factory=dict)
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "DSN", "SIZE 41943040", "ENHANCEDSTATUSCODES")
    tls: ssl.SSLContext | None = None
    port: int = field(default_factory=free_port)
    taken: list[Taken] = field(default_factory=list)
    connections: int = 0
    ended: int = 0  # of them
    commands: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait, asking again after each command and each letter, until the condition holds."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(condition)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Sink]:
        server = await asyncio.start_server(self._accept, LOOPBACK, self.port, ssl=self.tls, limit=64 << 20)
        try:
            yield self
        finally:
            server.close()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def _say(self, point: str, default: str, recipient: str = "") -> str:
        for name in (f"{point}:{recipient}", point):
            if name in self.once:
                return self.once.pop(name)
            if name in self.answers:
                return self.answers[name]
        return default

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        # A cancelled connection ends like any other: asyncio's streams would complain of it.
        with contextlib.suppress(
            ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, _HangUp
        ):
            await self._talk(reader, writer)
        self.ended += 1
        async with self._changed:
            self._changed.notify_all()
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            await writer.wait_closed()
        self._tasks.discard(task)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def reply(text: str) -> bool:
            async with self._changed:
                self._changed.notify_all()
            if text == HANG_UP:
                raise _HangUp
            if text == SILENCE:
                await reader.read()
                raise _HangUp
            writer.write(text.removesuffix(THEN_HANG_UP).encode() + b"\r\n")
            await writer.drain()
            if text.endswith(THEN_HANG_UP):
                writer.write_eof()
                await reader.read()
                raise _HangUp
            return text[0] in "23"

        sender: str | None = None
        recipients: list[str] = []
        options = ""
        await reply(self._say("CONNECT", "220 sink.test ESMTP"))
        while line := (await reader.readuntil(b"\r\n")).decode().rstrip("\r\n"):
            self.commands.append(line)
            verb = line[:4].upper()
            address = line.partition("<")[2].partition(">")[0]
            if verb in {"EHLO", "HELO"}:
                lines = ["sink.test", *self.extensions]
                hello = [f"250{'-' if n < len(lines) - 1 else ' '}{one}" for n, one in enumerate(lines)]
                await reply(self._say("EHLO", "\r\n".join(hello)))
            elif verb == "AUTH":
                if line.upper().startswith("AUTH LOGIN") and await reply("334 UGFzc3dvcmQ6"):
                    await reader.readuntil(b"\r\n")
                await reply(self._say("AUTH", "235 2.7.0 ok"))
            elif verb == "MAIL" and sender is not None:
                await reply("503 5.5.1 nested MAIL")
            elif verb == "MAIL":
                if await reply(self._say("MAIL", "250 2.1.0 ok")):
                    sender, recipients, options = address, [], line
            elif verb == "RCPT" and sender is None:
                await reply("503 5.5.1 MAIL first")
            elif verb == "RCPT":
                if await reply(self._say("RCPT", "250 2.1.5 ok", address)):
                    recipients.append(address)
                    options += "\n" + line
            elif verb == "DATA":
                if not await reply(self._say("DATA", "354 go ahead")):
                    continue
                lines = []
                while (text := await reader.readuntil(b"\r\n")) != b".\r\n":
                    lines.append(text.removeprefix(b"."))
                raw = b"".join(lines)
                if not recipients:
                    await reply("554 5.5.1 nobody to give it to")
                    sender = None
                    continue
                answer = self._say("DOT", "250 2.0.0 taken", address)
                if answer[0] not in "45":
                    self.taken.append(Taken(sender or "", tuple(recipients), raw, options))
                await reply(answer)
                sender, recipients = None, []
            elif verb in {"RSET", "NOOP"}:
                if verb == "RSET":
                    sender, recipients = None, []
                await reply("250 2.0.0 ok")
            elif verb == "QUIT":
                await reply("221 2.0.0 bye")
                return
            else:
                await reply("502 5.5.2 unknown")


class _HangUp(Exception):
    """Close the connection now."""
