"""Several processes, killed processes and cut connections: what was promised is there, and nothing twice."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from relay.errors import Unavailable
from relay.model import Attempt, DeliveryState, Plan
from relay.store import Store, database
from tests.servers import LOOPBACK
from tests.servers.postgres import Postgres
from tests.servers.proxy import Proxy
from tests.stores import NOON, Place, batch, decided, envelope, letter

ROOT = Path(__file__).parents[1]

BEGIN = """
import asyncio, json, os, signal, sys
from pathlib import Path
from relay.store import Store, database, transaction
from relay.vault import FileKeyRing, Vault
from tests.stores import HandClock, batch, decided, letter
url, ring, node = sys.argv[1:]

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def opened():
    return await Store.open(url, Vault(FileKeyRing(Path(ring))), clock=HandClock(), node=node)

async def main():
    store = await opened()
"""
END = """
    await store.close()

asyncio.run(main())
"""


def start(place: Place, body: str, node: str = "n1") -> subprocess.Popen[str]:
    """Another process with its own store; `body` stands inside its main()."""
    lines = "".join(f"    {line}\n" for line in body.strip().splitlines())
    ring = str(place.vault.ring.path)  # type: ignore[attr-defined]  # tests seal with a file's ring
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + lines + END, place.url, ring, node],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ended(*processes: subprocess.Popen[str]) -> list[str]:
    """What each printed; all must end well."""
    answers = []
    for process in processes:
        printed, errors = process.communicate(timeout=100)
        assert process.returncode == 0, errors
        answers.append(printed)
    return answers


@contextmanager
def killed(place: Place, body: str) -> Iterator[None]:
    process = start(place, body)
    _, errors = process.communicate(timeout=100)
    assert process.returncode == -9, errors
    yield


# ----------------------------------------------------------------------------------------------------------- kill -9


async def test_killed_after_the_commit_everything_is_there_though_nobody_was_told(place: Place) -> None:
    with killed(place, "database.Database.announce = die\nawait store.accept(batch(1, 2))"):
        async with place.opened() as store:
            assert await store.open_envelopes(None, 10) == batch(1, 2).envelopes
            assert await store.cursor("imap/cardiologie") == "2"
            assert await store.accept(batch(1, 2)) == ()
            assert (await store.status())["received"] == 2
            assert (await store.audit_verify())["ok"]


async def test_killed_before_the_commit_nothing_is_there(place: Place) -> None:
    with killed(place, "transaction.Transaction.settle = die\nawait store.accept(batch(1, 2))"):
        async with place.opened() as store:
            assert await store.open_envelopes(None, 10) == ()
            assert await store.cursor("imap/cardiologie") is None
            assert await store.accept(batch(1, 2)) == batch(1, 2).envelopes


async def test_killed_while_recording_a_plan_is_whole_or_not_there(place: Place) -> None:
    async with place.opened() as store:
        await store.accept(batch(1))
    dying = "transaction.Transaction.settle = die\nawait store.record([letter(1)])"
    with killed(place, dying):
        async with place.opened() as store:
            assert (await store.status())["open"] == 1
            assert await store.deliveries() == await store.threads() == []
            assert await store.record([letter(1)]) == [None]


async def test_killed_between_the_mark_and_the_wire_the_copy_is_ambiguous(place: Place) -> None:
    body = """
await decided(store, 1)
await store.recover()
(copy,) = await store.claim(["mss"], 1, 60)
await store.in_flight([copy.id])
die()
"""
    with killed(place, body):
        async with place.opened() as store:
            assert [line["state"] for line in await store.deliveries()] == ["queued", "ambiguous"]


# ------------------------------------------------------------------------------------------------------- at the same time


async def test_two_processes_write_at_once_and_neither_is_turned_away(place: Place) -> None:
    body = """
first = 1 if node == "n1" else 1001
for number in range(first, first + 60):
    await decided(store, number)
"""
    processes = [start(place, body, node) for node in ("n1", "n2")]
    await asyncio.to_thread(ended, *processes)
    async with place.opened() as store:
        status = await store.status()
        assert (status["received"], status["decided"], status["balance"]) == (120, 120, 0)
        assert status["deliveries"]["queued"] == 240
        assert (await store.audit_verify())["ok"]


async def test_no_copy_is_ever_given_to_two_senders(place: Place) -> None:
    numbers = range(1, 151)
    async with place.opened("n0") as store:
        await decided(store, *numbers)
    body = """
await store.recover()
mine = []
while claimed := await store.claim(["mss", "telegram"], 7, 600):
    mine += [copy.id for copy in claimed]
print(json.dumps(mine))
"""
    processes = [start(place, body, node) for node in ("n1", "n2", "n3")]
    claims = [json.loads(each) for each in await asyncio.to_thread(ended, *processes)]
    claimed = [copy for mine in claims for copy in mine]
    assert len(claimed) == len(set(claimed)) == 2 * len(numbers)


async def test_two_that_decide_the_same_letters_open_each_thread_once(place: Place) -> None:
    async with place.opened() as store:
        await store.accept(batch(*range(1, 41)))
    body = """
answers = []
for start in range(1, 41, 4):
    answers += await store.record([letter(number) for number in range(start, start + 4)])
print(sum(answer is None for answer in answers))
"""
    processes = [start(place, body, node) for node in ("n1", "n2")]
    written = [int(each) for each in await asyncio.to_thread(ended, *processes)]
    assert sum(written) == 40
    async with place.opened() as store:
        assert (await store.status())["threads"]["awaiting_ack"] == len(await store.threads()) == 40


# -------------------------------------------------------------------------------------------------------------- waking


async def test_a_commit_wakes_who_waits_here(store: Store) -> None:
    waiting = asyncio.ensure_future(store.changed())
    await asyncio.sleep(0)
    await store.accept(batch(1))
    await asyncio.wait_for(waiting, 5)


async def test_a_commit_between_looking_and_waiting_is_not_missed(store: Store) -> None:
    seen = store.generation
    await store.accept(batch(1))
    assert await asyncio.wait_for(store.changed(seen), 5) > seen


async def test_marks_on_the_way_show_but_call_nobody_to_work(store: Store) -> None:
    await decided(store, 1)
    calls, seen = store.calls, store.generation
    await store.accept(batch(2))
    (copy,) = await store.claim(["mss"], 10, 60)
    await store.in_flight([copy.id])
    assert store.generation > seen
    assert store.calls == calls
    await store.finish([Attempt(copy.id, DeliveryState.SENT, NOON)])
    assert await asyncio.wait_for(store.called(calls), 5) > calls


async def test_looking_for_work_wakes_nobody(store: Store) -> None:
    await decided(store, 1)
    claimed = await store.claim(["mss"], 10, 60)
    await store.in_flight([claimed[0].id])
    await store.finish([Attempt(claimed[0].id, DeliveryState.SENT, NOON)])
    await asyncio.sleep(0)
    seen = store.generation
    assert await store.claim(["mss"], 10, 60) == ()
    assert await store.record([Plan(at=NOON)]) == [None]
    assert await store.finish([]) is None
    await asyncio.sleep(0)
    assert store.generation == seen


async def test_a_commit_of_another_process_wakes_us(place: Place) -> None:
    async with place.opened("n1") as store, place.opened("cli") as other:
        before = store.generation
        await other.pause("mss")
        await asyncio.wait_for(store.changed(before), 5)
        assert await store.paused() == {"mss"}


# ------------------------------------------------------------------------------------------------- cut connections


def through(place: Place, port: int) -> str:
    parts = urlsplit(place.url)
    return f"postgresql://{parts.username}@{LOOPBACK}:{port}{parts.path}"


def committed(place: Place) -> bool:
    with psycopg.connect(place.url) as session:
        return bool(session.execute("SELECT count(*) FROM envelope").fetchone() == (1,))


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_commit_whose_answer_got_lost_is_read_back(place: Place) -> None:
    async with (
        Proxy(urlsplit(place.url).port or 0).running() as proxy,
        place.opened(url=through(place, proxy.port)) as store,
    ):
        before = proxy.connections
        proxy.cut_up_on = b"COMMIT"
        accepting = asyncio.ensure_future(store.accept(batch(1)))
        while not await asyncio.to_thread(committed, place):  # noqa: ASYNC110 - the server has no event for us
            await asyncio.sleep(0.01)
        proxy.cut_up_on = b""
        assert await asyncio.wait_for(accepting, 30) == (envelope(1),), "as if nothing had happened"
        assert (await store.status())["received"] == 1
        assert proxy.connections > before, "its connection was cut"


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_commit_that_never_arrived_is_done_again(place: Place) -> None:
    async with (
        Proxy(urlsplit(place.url).port or 0).running() as proxy,
        place.opened(url=through(place, proxy.port)) as store,
    ):
        before = proxy.connections
        proxy.cut_up_before = b"COMMIT"
        accepting = asyncio.ensure_future(store.accept(batch(1)))
        while proxy.connections == before:  # noqa: ASYNC110 - nor has the proxy
            await asyncio.sleep(0.001)
        proxy.cut_up_before = b""
        assert await asyncio.wait_for(accepting, 30) == (envelope(1),)
        assert (await store.status())["received"] == 1


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_a_commit_that_a_server_taking_over_never_saw_is_done_again(
    place: Place, server_folder: Callable[[str], Path]
) -> None:
    other = Postgres(server_folder("postgres-2")).start()
    try:
        with psycopg.connect(other.url("postgres"), autocommit=True) as session:
            session.execute(f"CREATE DATABASE {place.url.rpartition('/')[2]}".encode())
        await (
            await Store.open(
                other.url(place.url.rpartition("/")[2]), place.vault, clock=place.clock, node="n1"
            )
        ).close()
        with psycopg.connect(place.url, autocommit=True) as session:
            for _ in range(1000):  # the number of our transaction is one that the other has not come to
                session.execute("SELECT pg_current_xact_id()")
        async with (
            Proxy(urlsplit(place.url).port or 0).running() as proxy,
            place.opened(url=through(place, proxy.port)) as store,
        ):
            proxy.target, proxy.cut_up_on = other.port, b"COMMIT\0"
            accepting = asyncio.ensure_future(store.accept(batch(1)))
            while not await asyncio.to_thread(committed, place):  # noqa: ASYNC110 - the server has no event for us
                await asyncio.sleep(0.01)
            proxy.cut_up_on = b""
            assert await asyncio.wait_for(accepting, 30) == (envelope(1),)
            assert (await store.status())["received"] == 1
    finally:
        other.stop()


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
async def test_who_waits_for_others_hears_of_them_again_after_the_line_broke(place: Place) -> None:
    async with (
        Proxy(urlsplit(place.url).port or 0).running() as proxy,
        place.opened(url=through(place, proxy.port)) as store,
        place.opened("cli") as other,
    ):
        before = store.generation
        await proxy.cut()
        await asyncio.wait_for(store.changed(before), 10)  # it is back: somebody may have written meanwhile
        before = store.generation
        await other.pause("mss")
        await asyncio.wait_for(store.changed(before), 10)


# ----------------------------------------------------------------------------------------------------------- the disk


@pytest.mark.parametrize(
    ("trouble", "said"),
    [("PRAGMA max_page_count = 1", "no space is left"), ("PRAGMA query_only = 1", "cannot be written to")],
)
@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_why_the_file_takes_nothing_is_said(place: Place, trouble: str, said: str) -> None:
    async with place.opened() as store:
        assert isinstance(store._database, database.Sqlite)
        raw = store._database._writer.raw_connection()
        raw.cursor().execute(trouble).close()
        raw.close()
        with pytest.raises(Unavailable, match=said):
            await store.accept(batch(*range(1, 100)))


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_that_another_program_keeps_the_file_locked_is_said(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 1)
    async with place.opened() as store:
        other = sqlite3.connect(place.url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another program"):
            await store.accept(batch(1))
        other.execute("ROLLBACK")
        other.close()
        assert await store.accept(batch(1)) == (envelope(1),)


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_nothing_is_promised_on_a_file_that_is_no_longer_there(place: Place, replaced: bool) -> None:
    file = Path(place.url.removeprefix("sqlite:///"))
    copy = shutil.copy(file, file.with_name("yesterday.db"))
    async with place.opened() as store:
        assert await store.accept(batch(1))
        os.rename(file, file.with_name("away.db"))
        if replaced:
            os.rename(copy, file)
        with pytest.raises(Unavailable, match="moved or replaced"):
            await store.accept(batch(2))
        assert (await store.status())["received"] == 1


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_after_a_failed_write_nothing_more_is_promised(place: Place) -> None:
    body = """
import resource
from relay.errors import Unavailable
await store.accept(batch(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, resource.RLIM_INFINITY))
told = []
for number in range(2, 400):
    try:
        await store.accept(batch(*range(number * 100, number * 100 + 100)))
    except Unavailable as refusal:
        told.append(str(refusal))
        break
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
try:
    await store.accept(batch(1_000_000))
except Unavailable as refusal:
    told.append(str(refusal))
print(json.dumps([number, told]))
"""
    (printed,) = await asyncio.to_thread(ended, start(place, body))
    number, (first, second) = json.loads(printed)
    assert "does not answer" in first
    assert "restart" in second
    async with place.opened() as store:
        assert (await store.status())["received"] == 1 + 100 * (number - 2), "what was promised, and no more"
        assert (await store.audit_verify())["ok"]
