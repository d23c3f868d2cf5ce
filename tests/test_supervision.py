"""The daemon's watch over its adapters: how often those are tried again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay import config, daemon
from relay.clock import SystemClock
from relay.daemon import Daemon
from tests.servers import free_port
from tests.site import ROOT, Site


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


def test_a_second_relay_of_one_machine_and_state_starts_nothing(make_site: Callable[..., Site]) -> None:
    site = make_site()
    with site.running("--only", "dispatch"):
        text = site.file.read_text("utf-8")
        other = site.file.with_name("other.toml")
        other.write_text(text.replace(f"127.0.0.1:{site.port}", f"127.0.0.1:{free_port()}"), "utf-8")
        for words in (["--only", "dispatch"], []):
            done = subprocess.run(
                [sys.executable, "-m", "relay", "run", *words, "--config", str(other)],
                capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
                env={**os.environ, **site.env},
            )  # fmt: skip
            assert done.returncode == 3
            assert "another relay on this machine" in done.stderr
    site.start("--only", "dispatch")
    site.kill()
    with site.running():  # what a killed one held is free
        pass


def test_what_a_killed_relay_said_of_itself_last_is_not_believed(make_site: Callable[..., Site]) -> None:
    site = make_site()

    def states() -> dict[str, str]:
        return {name: each["state"] for name, each in site.json("status")["adapters"].items()}

    inward, outward = ("cardiologie", "retours"), ("mss", "telegram")
    site.start()
    site.until(lambda: states() == dict.fromkeys(inward + outward, "up"))
    site.kill()
    for row in site.json("status")["adapters"].values():
        assert (row["state"], row["detail"]) == ("down", "not_running")
    assert "mss down not_running" in site.relay("status")
    with site.running("--only", "intake"):
        site.until(lambda: states() == dict.fromkeys(inward, "up") | dict.fromkeys(outward, "down"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes files in another's name")
def test_a_relay_that_root_started_once_leaves_its_claims_to_whose_folder_it_is(tmp_path: Path) -> None:
    os.chown(tmp_path, 12345, 23456)
    with daemon._alone(tmp_path, "intake"):
        (claim,) = tmp_path.glob("intake-*.lock")
        assert (claim.stat().st_uid, claim.stat().st_gid) == (12345, 23456)
        assert daemon.playing(tmp_path) == {"intake"}
    assert not daemon.playing(tmp_path)


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
