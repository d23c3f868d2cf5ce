"""The daemon's end: whatever ends it and whatever is under way, no task of its own outlives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from datetime import timedelta

import pytest

from relay import config, daemon, intake
from relay.clock import SystemClock
from relay.daemon import Daemon, Role
from relay.directory import Lookups
from relay.model import Batch, Envelope, Professional, envelope_id
from relay.store import Store
from tests.letters import MARTIN
from tests.servers import until
from tests.site import Site
from tests.stores import Place

MakeSite = Callable[..., Site]


@contextlib.asynccontextmanager
async def running(
    site: Site, monkeypatch: pytest.MonkeyPatch, only: Role | None = None
) -> AsyncIterator[tuple[Daemon, asyncio.Task[None]]]:
    """The daemon in this process, ready; ended with the braces, and nothing of it left behind."""
    for name, secret in site.env.items():
        monkeypatch.setenv(name, secret)
    before = asyncio.all_tasks()
    relay = Daemon(config.read(site.file), only=only)
    life = asyncio.create_task(relay.run())
    left: set[asyncio.Task[object]] = set()
    life.add_done_callback(lambda _: left.update(asyncio.all_tasks() - before - {life}))
    await asyncio.wait_for(relay.ready.wait(), 30)
    try:
        yield relay, life
    finally:
        relay.stop()
        await asyncio.wait({life})
    assert not left, left


async def test_a_stop_leaves_no_task_behind(make_site: MakeSite, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(make_site(), monkeypatch) as (relay, life):
        assert await asyncio.to_thread(until, lambda: relay.readiness.ready, 20)
        for _ in range(2):  # and the rules are being read again at this moment
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0)
        relay.stop()
        await life


@pytest.mark.parametrize("only", [None, "intake"])
async def test_a_running_relay_decides_what_another_node_left_undecided(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch, only: Role | None
) -> None:
    monkeypatch.setattr(daemon, "ADOPT_EVERY", 0.05)
    monkeypatch.setattr(intake, "ADOPT_AFTER", 0.1)
    async with running(make_site(), monkeypatch, only) as (relay, _):
        name = envelope_id("box", "1")
        now = relay.clock.now()
        await relay.store.accept(
            Batch("box", (Envelope(name, "cardiologie", "box", "1", now, b"Subject: x\r\n\r\nx"),), "1")
        )
        seen = relay.store.calls
        async with asyncio.timeout(20):
            while (await relay.store.status())["open"]:
                await relay.store.called(seen)
                seen = relay.store.calls
        assert (await relay.store.status())["balance"] == 0


async def test_a_database_that_goes_away_ends_the_relay_whole(
    make_site: MakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(make_site(), monkeypatch) as (relay, life):
        await relay.store.close()
        await asyncio.wait({life}, timeout=20)
        assert life.exception() is not None


async def test_a_letter_given_up_while_a_directory_dawdles_waits_for_it_no_more(
    store: Store, place: Place
) -> None:
    asked = asyncio.Event()

    class Slow:
        name, kind, max_age = "slow", "annuaire", timedelta(hours=24)

        async def find(self, rpps: object, names: object) -> tuple[Professional, ...]:
            asked.set()
            await asyncio.Event().wait()
            return ()

        async def probe(self) -> None: ...

        async def close(self) -> None: ...

    before = asyncio.all_tasks()
    lookups = Lookups(store, {"slow": Slow()}, SystemClock(), lambda *_: asyncio.sleep(0))
    letter = asyncio.create_task(lookups.freshen([MARTIN.rpps or ""]))
    await asked.wait()
    letter.cancel()
    await asyncio.wait({letter})
    left = asyncio.all_tasks() - before - set(lookups._under_way.values())
    await lookups.close()
    assert not left, left
    assert asyncio.all_tasks() == before
