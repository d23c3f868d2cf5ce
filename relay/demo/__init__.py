"""The demo: the whole relay on one machine, its own mail servers beside it, a ward and three doctors who do not exist.

The daemon and its loops are those of `relay run`; only what stands at the far ends is the demo's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, TypeVar, cast

import structlog

from relay import config, identity, registers
from relay.daemon import Daemon, open_store
from relay.demo import once as sample
from relay.demo import people, site, web
from relay.demo.post import PostOffice
from relay.demo.tour import Tour
from relay.errors import Unavailable

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.demo.tour import ChatLinks

Row = TypeVar("Row")

__all__ = ["Opened", "opened", "run"]


@dataclass(frozen=True, slots=True)
class Opened:
    """A running demo. `url` is its page."""

    tour: Tour
    daemon: Daemon
    url: str
    running: asyncio.Task[None]


async def run(port: int, once: bool, out: TextIO) -> list[dict[str, object]]:
    """`relay demo`: serve the tour until interrupted, or (`once`) run the sample letters through and judge.

    Answers with `once` a row for each step, `ok` where it ended as it must. Raises Unavailable when the port is taken.
    """
    # A visitor reads the page, not our journal: only what goes wrong is logged.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    async with opened(0 if once else port) as demo:
        if once:
            judging = asyncio.create_task(sample.run(demo.tour, demo.url, out))
            await asyncio.wait({judging, demo.running}, return_when=asyncio.FIRST_COMPLETED)
            if judging.done():
                return judging.result()
            judging.cancel()
            demo.running.result()  # it ended by itself: raise what ended it
            raise Unavailable("le relais s'est arrêté")
        print(f"Relais, démonstration : ouvrez {demo.url}", file=out)
        print("Tout se passe sur cet ordinateur, rien n'en sort. Ctrl-C pour finir.", file=out, flush=True)
        await asyncio.shield(demo.running)
    return []


@contextlib.asynccontextmanager
async def opened(port: int) -> AsyncIterator[Opened]:
    """Start everything in a folder that is gone afterwards; `port` 0 takes a free one. Raises RelaisError."""
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="relais-demo-"))
    try:
        async with PostOffice(people.MAILBOXES) as office:
            settings = config.read(site.write(folder, office, port, Tour.local().date()))
            await _fill(settings, folder)
            async with _running(settings, office) as demo:
                yield demo
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


async def _fill(settings: Settings, folder: Path) -> None:
    """Read the three CSV files in, as `relay patients import` and its sisters do."""
    store = await open_store(settings)
    try:
        with (folder / "patients.csv").open("rb") as lines:
            await store.import_registrations(_good(registers.patients(lines)), identity.keys_of)
        with (folder / "directory.csv").open("rb") as lines:
            await store.import_professionals(_good(registers.directory(lines)), identity.fold)
        with (folder / "links.csv").open("rb") as lines:
            await store.link(list(_good(registers.links(lines))))
    finally:
        await store.close()


def _good(rows: Iterable[Row | registers.BadLine]) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, registers.BadLine):
            raise Unavailable(f"la démonstration a écrit une ligne fausse : {row.reason}")
        yield row


@contextlib.asynccontextmanager
async def _running(settings: Settings, office: PostOffice) -> AsyncIterator[Opened]:
    tours: list[Tour] = []
    daemon = Daemon(settings, pages=web.pages(lambda: tours[0]))
    running = asyncio.create_task(daemon.run(), name="relay")
    ready = asyncio.create_task(daemon.ready.wait())
    following = None
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        chats = cast("ChatLinks", daemon.adapters[site.CHAT])
        tours.append(Tour(office, daemon.store, chats, f"/channel/{site.CHAT}"))
        following = asyncio.create_task(tours[0].follow(), name="tour")
        yield Opened(tours[0], daemon, f"http://127.0.0.1:{daemon.port}/", running)
    finally:
        ready.cancel()
        daemon.stop()
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await asyncio.wait({running})
