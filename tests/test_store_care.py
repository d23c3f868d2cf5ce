"""What the store says of itself is true: counts, invariants, the trail, retention, rules, adapters."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from relay.errors import ConfigurationError, NotFound
from relay.model import (
    Ask,
    Attempt,
    AuditEvent,
    Batch,
    DeliveryState,
    EnvelopeState,
    Link,
    Plan,
    Purpose,
    ThreadState,
    Why,
)
from relay.store import Store
from relay.vault import FileKeyRing, Vault
from tests.stores import GP, NOON, Place, batch, chat, decided, envelope, held, letter, mail, thread


def execute(place: Place, statement: str) -> None:
    """Change the database behind the store's back."""
    if place.kind == "sqlite":
        connection = sqlite3.connect(place.url.removeprefix("sqlite:///"))
        connection.execute(statement)
        connection.commit()
        connection.close()
    else:
        with psycopg.connect(place.url, autocommit=True) as session:
            session.execute(statement.encode())


# --------------------------------------------------------------------------------------------------------- counts


async def test_counts_say_what_the_rows_say(store: Store, place: Place) -> None:
    await decided(store, 1, 2, 3)
    await store.accept(batch(4, 5, 6, 7))
    ignored = Plan(
        at=NOON, envelope=envelope(5).id, state=EnvelopeState.IGNORED, why=Why.NOT_A_NOTICE, kind="other"
    )
    corrupt = replace(ignored, envelope=envelope(6).id, state=EnvelopeState.CORRUPT, why=Why.UNREADABLE)
    closed = replace(thread(1), version=1, state=ThreadState.CLOSED, closed_at=NOON, closed_reason="by_phone")
    await store.record([held(4), ignored, corrupt, Plan(at=NOON, thread=closed)])
    copy = (await store.claim(["mss"], 1, 60))[0]
    await store.in_flight([copy.id])
    await store.finish([Attempt(copy.id, DeliveryState.SENT, NOON)])
    status = await store.status()
    for state in EnvelopeState:
        assert status[state.value] == len(await store.envelopes(state=state.value)), state
    for state in DeliveryState:
        assert status["deliveries"][state.value] == len(await store.deliveries(state=state.value)), state
    for state in ThreadState:
        assert status["threads"][state.value] == len(await store.threads(state=state.value)), state
    assert (status["received"], status["balance"]) == (7, 0)
    assert status["held"] == len(await store.holds())


async def test_the_list_of_threads_has_the_contract_s_names(store: Store) -> None:
    await decided(store, 1)
    (line,) = await store.threads()
    assert {"id", "reference", "state", "owner", "level", "deadline", "closed_reason"} <= set(line)
    (copy, _) = await store.deliveries()
    assert {
        "id", "envelope", "reference", "adapter", "to", "purpose", "state", "attempts", "message_id", "next_at", "why",
    } <= set(copy)  # fmt: skip


async def test_the_oldest_that_waits_is_an_arrival_or_a_copy(store: Store, place: Place) -> None:
    assert (await store.status())["oldest_waiting_s"] is None
    await store.accept(batch(1))
    place.clock.turn(seconds=90)
    assert (await store.status())["oldest_waiting_s"] == 90
    await store.record([letter(1)])
    assert (await store.status())["oldest_waiting_s"] == 90, "its copies were made at noon"
    for copy in await store.claim(["mss", "telegram"], 10, 60):
        await store.in_flight([copy.id])
        await store.finish([Attempt(copy.id, DeliveryState.SENT, NOON)])
    assert (await store.status())["oldest_waiting_s"] is None


async def test_an_adapter_s_state_keeps_the_time_it_began(store: Store, place: Place) -> None:
    await store.adapter_state("mss", "down", "connection")
    place.clock.turn(minutes=5)
    await store.adapter_state("mss", "down", "timeout")
    assert (await store.status())["adapters"] == {
        "mss": {"state": "down", "since": "2026-11-20T12:00:00.000Z", "detail": "timeout"}
    }
    await store.adapter_state("mss", "up", "")
    assert (await store.status())["adapters"]["mss"]["since"] == "2026-11-20T12:05:00.000Z"


# ----------------------------------------------------------------------------------------------------- invariants


async def test_ordinary_work_breaks_no_promise(store: Store, place: Place) -> None:
    await decided(store, 1, 2)
    await store.accept(batch(3))
    await store.link([Link(GP.removeprefix("rpps:"), "telegram", "4242", "4242", linked_at=NOON)])
    taken = replace(thread(1), version=1, state=ThreadState.ACKNOWLEDGED, owner=GP)
    desk = replace(thread(2), version=1, state=ThreadState.WITH_DESK, desk="sorties", owner="desk:sorties")
    await store.record(
        [held(3), Plan(at=NOON, thread=taken, used_grant="nonce-1"), Plan(at=NOON, thread=desk)]
    )
    assert set((await store.invariants()).values()) == {0}


async def broken(store: Store) -> dict[str, int]:
    return {name: rows for name, rows in (await store.invariants()).items() if rows}


async def test_a_thread_that_waits_for_nothing_is_noticed(store: Store) -> None:
    await store.accept(batch(1))
    await store.record([replace(letter(1), timers=())])
    assert await broken(store) == {"open_thread_without_timer_or_desk": 1}


async def test_a_timer_that_nobody_answers_is_noticed_after_a_minute(store: Store, place: Place) -> None:
    await decided(store, 1)
    place.clock.turn(days=1, seconds=60)
    assert await broken(store) == {}
    place.clock.turn(seconds=1)
    assert await broken(store) == {"timer_overdue": 1}


async def test_a_letter_that_left_without_follow_up_is_noticed_unless_a_rule_says_so(store: Store) -> None:
    await store.accept(batch(1, 2))
    alone = replace(letter(1), thread=None, timers=(), grants=(), deliveries=(mail(1, thread=None),))
    meant = replace(
        letter(2), thread=None, timers=(), grants=(), deliveries=(mail(2, thread=None),),
        decision=replace(held(1).decision, followup="none"),
    )  # fmt: skip
    assert await store.record([alone, meant]) == [None, None]
    for copy in await store.claim(["mss"], 10, 60):
        await store.in_flight([copy.id])
        await store.finish([Attempt(copy.id, DeliveryState.SENT, NOON)])
    assert await broken(store) == {"sent_without_thread_or_none": 1}


@pytest.mark.parametrize(
    "plan",
    [
        Plan(at=NOON, envelope=envelope(1).id, state=EnvelopeState.IGNORED, kind="other"),
        Plan(at=NOON, envelope=envelope(1).id, state=EnvelopeState.DECIDED, kind="reply", why=Why.REPLY),
        Plan(at=NOON, envelope=envelope(1).id, state=EnvelopeState.HELD, kind="notice", why=Why.UNCLEAR),
    ],
)
async def test_an_arrival_that_ended_nowhere_is_noticed(store: Store, plan: Plan) -> None:
    await store.accept(batch(1))
    await store.record([plan])
    assert await broken(store) == {"inbound_unaccounted": 1}


async def test_a_press_by_an_account_nobody_linked_is_noticed(store: Store) -> None:
    await decided(store, 1)
    taken = replace(thread(1), version=1, state=ThreadState.ACKNOWLEDGED, owner=GP)
    await store.record([Plan(at=NOON, thread=taken, used_grant="nonce-1")])
    assert await broken(store) == {"ack_by_unlinked": 1}


async def test_a_thread_that_two_own_is_noticed(store: Store) -> None:
    await decided(store, 1)
    both = replace(thread(1), version=1, state=ThreadState.ACKNOWLEDGED, desk="sorties", owner=GP)
    await store.record([Plan(at=NOON, thread=both)])
    assert await broken(store) == {"two_owners": 1}


async def test_a_copy_for_a_ward_of_another_facility_is_noticed(store: Store) -> None:
    await store.accept(batch(1, 2))
    elsewhere = replace(thread(2), ward="chirurgie", facility="750000001")
    wrong = mail(1, Purpose.WARD_NOTE, to="ward:chirurgie")
    await store.record([letter(1), replace(letter(2), thread=elsewhere)])
    await store.record([Plan(at=NOON, deliveries=(wrong,))])
    assert await broken(store) == {"thread_seen_from_another_facility": 1}


async def test_a_lost_row_shows_in_the_balance(store: Store, place: Place) -> None:
    await decided(store, 1)
    execute(place, "UPDATE counter SET value = value + 1 WHERE name = 'envelope.received'")
    assert await broken(store) == {"balance": 1}


# ---------------------------------------------------------------------------------------------------------- trail


async def trailed(store: Store, place: Place, hours: int = 3) -> None:
    for hour in range(hours):
        await store.record([Plan(at=NOON, audit=(AuditEvent("relay", f"act-{hour}", "x"),) * 2)])
        place.clock.turn(hours=1)


async def test_an_untouched_trail_is_whole(place: Place) -> None:
    async with place.opened("n1") as store, place.opened("n2") as other:
        await trailed(store, place)
        await trailed(other, place)
        found = await store.audit_verify()
        assert found == {"ok": True, "writers": 2, "lines": 12, "problems": []}
        lines = await store.audit_export()
        assert [line["at"] for line in lines] == sorted(str(line["at"]) for line in lines)
        assert len(await store.audit_export(NOON + timedelta(hours=3))) == 6


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("UPDATE audit SET note = 'x' WHERE number = 3", "line_changed"),
        ("UPDATE audit SET actor = 'admin' WHERE number = 6", "line_changed"),
        ("DELETE FROM audit WHERE number = 4", "line_missing"),
        ("DELETE FROM audit WHERE number = 1", "line_missing"),
        ("DELETE FROM audit WHERE number <= 2", "line_missing"),
        ("DELETE FROM audit WHERE number > 4", "end_missing"),
        ("DELETE FROM audit", "end_missing"),
        ("DELETE FROM audit_head", "no_head"),
        ("UPDATE audit_head SET number = 5", "head_forged"),
        ("UPDATE audit_checkpoint SET number = 99 WHERE number = 2", "checkpoint_forged"),
    ],
)
async def test_a_trail_that_somebody_touched_is_not(
    store: Store, place: Place, statement: str, what: str
) -> None:
    await trailed(store, place)
    execute(place, statement)
    found = await store.audit_verify()
    assert not found["ok"]
    assert what in {problem["what"] for problem in found["problems"]}


async def test_a_purged_trail_still_proves_itself(store: Store, place: Place) -> None:
    await trailed(store, place, hours=5)
    gone = await store.purge(
        content_before=NOON, facts_before=NOON, audit_before=NOON + timedelta(hours=2, minutes=30)
    )
    assert gone["audit"] >= 4
    await trailed(store, place)
    assert (await store.audit_verify())["ok"]
    execute(place, "DELETE FROM audit WHERE number = (SELECT min(number) FROM audit)")
    assert not (await store.audit_verify())["ok"]


# ------------------------------------------------------------------------------------------------------ retention


async def test_old_content_is_destroyed_and_live_work_is_not(store: Store, place: Place) -> None:
    await decided(store, 1, 2)
    await store.accept(batch(3, 4))
    await store.record([held(3)])
    done = replace(thread(1), version=1, state=ThreadState.CLOSED, closed_at=NOON, closed_reason="handled")
    await store.record([Plan(at=NOON, thread=done, cancel_queued=((thread(1).id, Why.ANSWERED),))])
    place.clock.turn(days=91)
    gone = await store.purge(
        content_before=place.clock.now() - timedelta(days=90),
        facts_before=place.clock.now() - timedelta(days=400),
        audit_before=NOON,
    )
    assert (gone["contents"], gone["keys"], gone["facts"]) == (2, 1, 0)
    with pytest.raises(NotFound):
        await store.raw(envelope(1).id)
    assert await store.raw(envelope(3).id) == envelope(3).raw, "a held letter still waits for a person"
    assert [each.raw for each in await store.open_envelopes(None, 10)] == [envelope(4).raw]
    assert (await store.hold(envelope(3).id)).candidates == ("10000000001", "10000000002")
    assert (await store.view(thread(2).id)).thread.participants == thread(2).participants
    assert (await store.view(thread(1).id)).thread.participants == ()
    claimed = await store.claim(["mss"], 10, 60)
    assert [(copy.id, copy.address) for copy in claimed] == [(mail(2).id, mail(2).address)]
    assert claimed[0].recipe == mail(2).recipe


async def test_old_facts_are_forgotten_and_the_count_of_arrivals_is_not(store: Store, place: Place) -> None:
    await decided(store, 1, 2)
    done = replace(thread(1), version=1, state=ThreadState.CLOSED, closed_at=NOON, closed_reason="handled")
    await store.record([Plan(at=NOON, thread=done, cancel_queued=((thread(1).id, Why.ANSWERED),))])
    place.clock.turn(days=401)
    await store.accept(batch(3))
    gone = await store.purge(
        content_before=NOON, facts_before=place.clock.now() - timedelta(days=400), audit_before=NOON
    )
    assert gone["facts"] == 2, "one follow-up and its letter"
    assert [line["ref"] for line in await store.envelopes()] == ["3", "2"]
    assert [line["id"] for line in await store.threads()] == [thread(2).id]
    status = await store.status()
    assert (status["received"], status["balance"]) == (3, 0)
    assert status["threads"]["closed"] == 0
    assert sum(status["deliveries"].values()) == len(await store.deliveries()) == 2
    (context,) = await store.contexts(
        [Ask(stays=("stay-1",), document_keys=("document-1",), nonce="nonce-1")]
    )
    assert (context.stays, context.documents, context.grant) == ({}, {}, None)


# ---------------------------------------------------------------------------------------------------------- rules


async def test_the_last_rule_set_activated_is_in_force(store: Store, place: Place) -> None:
    assert await store.rules_active() is None
    await store.activate_rules("version: 1\n", "d1", by="admin:anne", reason="first")
    place.clock.turn(hours=1)
    await store.activate_rules("version: 1 # é\n", "d2", by="admin:paul", reason="second")
    active = await store.rules_active()
    assert active is not None
    assert (active.text, active.digest, active.active_since) == (
        "version: 1 # é\n",
        "d2",
        NOON + timedelta(hours=1),
    )
    assert [each.digest for each in await store.rules_history()] == ["d2", "d1"]


# ---------------------------------------------------------------------------------------------------- what is sealed


def on_disk(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.glob("relay.db*")))


async def test_no_word_of_a_letter_and_no_address_stands_in_the_database(
    place: Place, tmp_path: Path
) -> None:
    from relay import identity
    from relay.model import Registration

    secrets = ["Zyxwvut", "vertigineux", "dr.ambre@", "269054958815780", "IPP-7431", "Quetzalcoatl"]
    patient = Registration(
        ins="269054958815780", facility="450000088", local_id="IPP-7431", birth_name="Quetzalcoatl"
    )
    async with place.opened() as store:
        secret = replace(envelope(1), raw=b"Patient Zyxwvut, un malaise vertigineux " * 50)
        await store.accept(replace(batch(1), envelopes=(secret,)))
        recipe = replace(mail(1).recipe, text="Zyxwvut vertigineux")
        plan = replace(
            letter(1), deliveries=(mail(1, recipe=recipe), chat(1)), patient="269054958815780",
            hold=replace(held(1).hold, candidates=("269054958815780",)),
        )  # fmt: skip
        assert await store.record([plan]) == [None]
        await store.import_registrations([patient], identity.keys_of)
        assert (await store.registration_by_ins("269054958815780")) == patient
    if place.kind == "sqlite":
        stored = on_disk(tmp_path)
    else:
        with psycopg.connect(place.url) as session:
            names = session.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
            ).fetchall()
            rows = [
                session.execute(f'SELECT t::text FROM "{name}" t'.encode()).fetchall() for (name,) in names
            ]
        stored = repr(rows).encode()
        secrets += [secret.encode().hex() for secret in secrets]
    assert b"sortie" in stored, "the search sees the rows"
    for word in secrets:
        assert word.encode() not in stored, word


async def test_another_key_ring_is_refused_before_anything_is_taken_for_damaged(
    place: Place, store: Store, tmp_path: Path
) -> None:
    await store.accept(Batch("imap/cardiologie", (envelope(1),), "1"))
    stranger = Vault(FileKeyRing.create(tmp_path / "other-keys.json"))
    with pytest.raises(ConfigurationError, match=r"restore the keys\.json"):
        await Store.open(place.url, stranger, clock=place.clock, node="n2")
    async with place.opened() as again:
        assert (await again.stored(envelope(1).id)).raw == envelope(1).raw
