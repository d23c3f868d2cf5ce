"""The tables are what the code thinks they are, and what every decision asks is answered by an index."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from relay import migrations, tables
from relay.errors import ConfigurationError, Unavailable
from relay.model import Ask, Attempt, DeliveryState, Plan, Purpose, ThreadState, Why
from relay.store import Store
from relay.store.care import INVARIANTS
from relay.vault import FileKeyRing, Vault
from tests.stores import GP, NOON, HandClock, Place, batch, chat, envelope, letter, mail, thread


@contextmanager
def raw(place: Place) -> Iterator[Engine]:
    url = make_url(place.url)
    engine = create_engine(
        url if place.kind == "sqlite" else url.set(drivername="postgresql+psycopg"), hide_parameters=True
    )
    yield engine
    engine.dispose()


# -------------------------------------------------------------------------------------------------------- the schema


def test_the_release_s_revision_is_the_newest_script() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    assert ScriptDirectory.from_config(config).get_current_head() == migrations.HEAD


def test_the_revisions_make_exactly_the_tables_of_the_code(place: Place) -> None:
    with raw(place) as engine, engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


@pytest.mark.parametrize("kind", ["sqlite"])
def test_partial_indexes_are_made_with_the_conditions_the_queries_name(kind: str, empty_sqlite: Path) -> None:
    connection = sqlite3.connect(empty_sqlite)
    found = dict(
        connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql NOT NULL")
    )
    connection.close()
    expected = {
        index.name: str(index.dialect_options["sqlite"]["where"])
        for table in tables.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["sqlite"]["where"] is not None
    }
    assert len(expected) > 15
    for name, where in expected.items():
        assert str(found[str(name)]).endswith(f"WHERE {where}")


async def test_a_database_of_the_first_release_keeps_its_directory(tmp_path: Path, first_keys: Path) -> None:
    file = tmp_path / "relay.db"
    vault = Vault(FileKeyRing(first_keys))
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.execute(
            text(
                "INSERT INTO professional VALUES "
                "('10000000001', 'ambre', 'Ambre', 'Léa', '10', '', '45000', '', '', 1, 1, 1700000000000000)"
            )
        )
        connection.execute(
            text(
                "INSERT INTO mailbox VALUES "
                "('10000000001', 'lea@medecin.mssante.fr', 0, 'PER', '', '', 1, 1700000000000000)"
            )
        )
    engine.dispose()
    store = await Store.open(f"sqlite:///{file}", vault, clock=HandClock(), node="n1")
    try:
        (found,) = await store.professionals(["10000000001"], [])
        assert (found.family_name, found.active, len(found.mailboxes)) == ("Ambre", True, 1)
        sources = await store.directory_sources()
        assert (sources["site"]["entries"], sources["site"]["as_of"]) == (1, found.as_of)
        # Who named the mailbox is not known: the next source that speaks of the person may end it.
        await store.import_professionals([replace(found, mailboxes=())], str.lower, source="extraction")
        assert (await store.professionals(["10000000001"], []))[0].mailboxes == ()
    finally:
        await store.close()


async def test_missing_folders_and_tables_are_made(tmp_path: Path) -> None:
    vault = Vault(FileKeyRing.create(tmp_path / "keys.json"))
    file = tmp_path / "a" / "b" / "relay.db"
    store = await Store.open(f"sqlite:///{file}", vault, clock=HandClock(), node="n1")
    await store.accept(batch(1))
    await store.close()
    assert os.stat(file).st_mode & 0o077 == 0


async def test_a_database_of_a_newer_release_is_left_alone(place: Place) -> None:
    with raw(place) as engine, engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(ConfigurationError, match="newer release"):
        async with place.opened():
            pass


@pytest.mark.parametrize("url", ["mysql://x@y/z", "sqlite://", "sqlite:///:memory:", "nonsense", ""])
async def test_another_kind_of_database_is_refused(tmp_path: Path, url: str) -> None:
    vault = Vault(FileKeyRing.create(tmp_path / "keys.json"))
    with pytest.raises(ConfigurationError, match="sqlite:///FILE or postgresql"):
        await Store.open(url, vault, clock=HandClock(), node="n1")


async def test_a_database_that_does_not_answer_is_unavailable(tmp_path: Path) -> None:
    vault = Vault(FileKeyRing.create(tmp_path / "keys.json"))
    (tmp_path / "relay.db").write_bytes(b"this is no database, but somebody's letter" * 100)
    (tmp_path / "file").touch()
    for url in (
        "postgresql://nobody@127.0.0.1:1/none",
        f"sqlite:///{tmp_path}/relay.db",
        f"sqlite:///{tmp_path}/file/relay.db",
    ):
        with pytest.raises(Unavailable) as told:
            await Store.open(url, vault, clock=HandClock(), node="n1", password="secret-word")
        assert "secret-word" not in str(told.value)
        assert told.value.__cause__ is None


async def test_sqlite_is_set_to_keep_what_it_promised(tmp_path: Path) -> None:
    vault = Vault(FileKeyRing.create(tmp_path / "keys.json"))
    store = await Store.open(f"sqlite:///{tmp_path}/relay.db", vault, clock=HandClock(), node="n1")
    try:
        found = await store._read(
            lambda connection: [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
        )
    finally:
        await store.close()
    assert found == ["wal", 2, 1, 30_000]


def test_opening_a_database_that_is_up_to_date_loads_no_migrations(
    empty_sqlite: Path, first_keys: Path
) -> None:
    script = f"""
import asyncio, json, sys
from pathlib import Path
from relay.clock import SystemClock
from relay.store import Store
from relay.vault import FileKeyRing, Vault
async def main():
    vault = Vault(FileKeyRing(Path({str(first_keys)!r})))
    store = await Store.open({f"sqlite:///{empty_sqlite}"!r}, vault, clock=SystemClock(), node="n")
    await store.status()
    await store.close()
asyncio.run(main())
print(json.dumps([name for name in ("alembic", "mako") if name in sys.modules]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


# --------------------------------------------------------------------------------------------------------- the indexes


@contextmanager
def statements(store: Store) -> Iterator[list[tuple[str, object]]]:
    """Every statement the store runs."""
    seen: list[tuple[str, object]] = []

    def note(_: object, __: object, statement: str, parameters: object, ___: object, many: bool) -> None:
        seen.append((statement, parameters[0] if many else parameters))  # type: ignore[index]

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


# PostgreSQL chooses its plans by statistics; the indexes are the same.
@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_what_every_decision_asks_is_answered_by_an_index(place: Place) -> None:
    big = ("envelope", "content", "decision", "thread", "delivery", "attempt", "timer", "button_grant",
           "stay_key", "document_key", "audit", "hold", "registration", "registration_key", "professional", "mailbox")  # fmt: skip
    async with place.opened() as store:
        with statements(store) as seen:
            await store.accept(batch(1, 2))
            first = await store.open_envelopes(None, 10)
            await store.open_envelopes(first[0].id, 10)
            asks = [
                Ask(
                    fingerprint="print-1", document_keys=("d",), stays=("stay-1",), message_ids=("<m>",),
                    deliveries=(mail(1).id,), threads=(thread(1).id,), references=(thread(1).reference,),
                    nonce="nonce-1", account=("telegram", "4242"), people=(GP[5:],), addresses=("a@b",),
                )
            ]  # fmt: skip
            await store.contexts(asks)
            await store.registrations([["key"]])
            await store.professionals(["10000000001"], ["ambre"])
            await store.record([letter(1), letter(2)])
            await store.contexts(asks)
            ack = replace(thread(1), version=1, state=ThreadState.ACKNOWLEDGED, owner=GP)
            name = thread(1).id
            await store.record(
                [
                    Plan(
                        at=NOON, thread=ack, used_grant="nonce-1", void_grants_of=(name,), drop_timers=(name,),
                        cancel_queued=((name, Why.ANSWERED),), done_timers=(letter(1).timers[0].id,),
                        deliveries=(chat(1, Purpose.EDIT),), end_hold=("h",), stay_keys=("further",),
                    )
                ]
            )  # fmt: skip
            copies = await store.claim(["mss", "telegram"], 10, 60)
            ids = [copy.id for copy in copies]
            await store.in_flight(ids)
            await store.release(ids)
            await store.finish([Attempt(ids[0], DeliveryState.SENT, NOON)])
            await store.raws([envelope(1).id])
            await store.next_due(["mss", "telegram"])
            await store.recover()
            await store.next_timer()
            place.clock.turn(days=9)
            await store.due_timers(10)
            await store.view(thread(1).reference)
            await store.status()
            await store.invariants()
        executed = [
            (statement, parameters)
            for statement, parameters in seen
            if re.match(r"\s*(SELECT|UPDATE|DELETE|INSERT|WITH)", statement)
        ]
        assert len(executed) > 60
        connection = sqlite3.connect(place.url.removeprefix("sqlite:///"))
        slow = set()
        for statement, parameters in executed:
            for *_, step in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters):  # type: ignore[arg-type]
                scanned = re.match(r"SCAN (\w+)(?! USING (?:COVERING )?INDEX)", step)
                if scanned and scanned.group(1) in (*big, "older", "other"):
                    slow.add((step, statement))
                # An index that is read from end to end is as slow, unless it holds the live rows only.
                walked = re.match(r"SCAN (\w+) USING (?:COVERING )?INDEX (\w+)", step)
                if walked and walked.group(1) in (*big, "older", "other") and walked.group(2) not in LIVE:
                    slow.add((step, statement))
        connection.close()
        assert not slow, "\n".join(f"{step}: {statement}" for step, statement in slow)


LIVE = {
    "ix_envelope_open", "ix_envelope_held", "ix_envelope_unaccounted", "ix_thread_open", "ix_thread_alone",
    "ix_thread_desk", "ix_thread_stay", "ix_timer_due", "ix_timer_waiting", "ix_delivery_due",
    "ix_delivery_unfinished", "ix_delivery_claimed", "ix_delivery_astray",
}  # fmt: skip


def test_every_invariant_has_a_query() -> None:
    assert set(INVARIANTS) == {
        "open_thread_without_timer_or_desk", "timer_overdue", "sent_without_thread_or_none", "inbound_unaccounted",
        "ack_by_unlinked", "two_owners", "thread_seen_from_another_facility",
    }  # fmt: skip
