"""A TCP proxy that misbehaves on command: cuts after so many bytes or on a pattern, or goes silent."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.servers import LOOPBACK, free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@dataclass
class Proxy:
    """Forwards to `target`; the faults hold for connections and bytes from the moment they are set."""

    target: int
    port: int = field(default_factory=free_port)
    cut_down_after: int | None = None  # bytes from the server, then both ends are aborted
    cut_up_on: bytes = b""  # once the client has sent this, whole, the server's bytes no longer come back
    cut_up_before: bytes = b""  # this is never forwarded: both ends are aborted instead
    hold_down: bool = False  # the server's bytes stay in the proxy; the connection stands
    connections: int = 0
    down: int = 0  # bytes forwarded from the server so far

    def __post_init__(self) -> None:
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        self._server = server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        try:
            yield self
        finally:
            await self.go_away()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    async def cut(self) -> None:
        """Abort every open connection, and return once both ends of each are closed."""
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def go_away(self) -> None:
        """Refuse new connections, and abort those that are open."""
        self._server.close()
        await self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self.target)
        except OSError:
            writer.transport.abort()
            self._tasks.discard(task)
            return
        ends = {writer, inner_writer}
        self._open |= ends
        silenced = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._up(reader, inner_writer, silenced))
                both.create_task(self._down(inner_reader, writer, silenced))
        except* (ConnectionError, _Cut, asyncio.CancelledError):
            pass
        finally:
            self._open -= ends
            self._tasks.discard(task)
            for end in ends:
                end.transport.abort()
            for end in ends:
                with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                    await end.wait_closed()

    async def _up(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silenced: asyncio.Event
    ) -> None:
        seen = b""
        while chunk := await reader.read(65536):
            # What was sent before a fault is set counts for nothing.
            seen = (seen + chunk)[-70_000:] if self.cut_up_before or self.cut_up_on else b""
            if self.cut_up_before and self.cut_up_before in seen:
                raise _Cut
            if self.cut_up_on and self.cut_up_on in seen:
                silenced.set()
            writer.write(chunk)
            await writer.drain()
        raise _Cut

    async def _down(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silenced: asyncio.Event
    ) -> None:
        while chunk := await reader.read(65536):
            if silenced.is_set():
                raise _Cut
            if self.hold_down:
                continue
            if self.cut_down_after is not None and self.down + len(chunk) > self.cut_down_after:
                writer.write(chunk[: max(0, self.cut_down_after - self.down)])
                await writer.drain()
                raise _Cut
            self.down += len(chunk)
            writer.write(chunk)
            await writer.drain()
        raise _Cut


class _Cut(Exception):
    """Both ends go."""
