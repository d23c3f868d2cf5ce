"""The daemon's watch over its adapters: how often those are tried again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from relay import config
from relay.clock import SystemClock
from relay.daemon import Daemon
from tests.site import Site


class Waits(SystemClock):
    """The system's clock, which notes who waited how long."""

    def __init__(self) -> None:
        self.waits: dict[str, list[float]] = {}
        self.news = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.waits.setdefault(task.get_name(), []).append(seconds)
        self.news.set()
        await super().sleep(seconds)


async def test_a_refused_login_is_tried_twice_and_then_left_alone_for_minutes(
    make_site: Callable[..., Site], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = make_site()
    monkeypatch.setenv("RELAIS_TEST_TOKEN", site.env["RELAIS_TEST_TOKEN"])
    monkeypatch.setenv("RELAIS_TEST_PASSWORD", "wrong")
    clock = Waits()
    relay = Daemon(config.read(site.file), clock=clock)
    life = asyncio.create_task(relay.run())
    tried = ("watch:cardiologie", "watch:retours", "probe:mss")
    try:
        async with asyncio.timeout(40):
            while not all(len(clock.waits.get(name, ())) >= 2 for name in tried):
                assert not life.done()
                clock.news.clear()
                await clock.news.wait()
    finally:
        relay.stop()
        await asyncio.wait({life})
    for name in tried:
        assert clock.waits[name][0] < 5
        assert clock.waits[name][1] >= 300
