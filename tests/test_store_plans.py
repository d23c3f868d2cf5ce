"""A plan is written whole or not at all, and what changed meanwhile is never overwritten."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from relay.errors import Clash, NotFound, Stale
from relay.model import (
    Ask,
    Attempt,
    AuditEvent,
    ButtonGrant,
    DeliveryNews,
    DeliveryState,
    EnvelopeState,
    Incident,
    Plan,
    Purpose,
    ThreadState,
    Timer,
    Verb,
    Why,
)
from relay.store import Store
from tests.stores import (
    GP,
    GP_ADDRESS,
    NOON,
    Place,
    batch,
    chat,
    decided,
    envelope,
    held,
    letter,
    mail,
    thread,
)


async def states(store: Store) -> dict[str, str]:
    return {str(line["purpose"]): str(line["state"]) for line in await store.deliveries()}


def news(copy: str, state: DeliveryState, why: Why | None = None) -> Plan:
    return Plan(at=NOON, news=(DeliveryNews(copy, state, why),))


def moved(number: int, version: int, **changes: object) -> Plan:
    return Plan(at=NOON, thread=replace(thread(number), version=version, **changes))  # type: ignore[arg-type]


async def test_a_letter_s_plan_can_be_read_back(store: Store) -> None:
    await decided(store, 1)
    view = await store.view(thread(1).reference)
    assert view.thread == thread(1)
    assert view.timers == letter(1).timers
    assert {(copy.id, copy.state, copy.address) for copy in view.deliveries} == {
        (mail(1).id, DeliveryState.QUEUED, GP_ADDRESS),
        (chat(1).id, DeliveryState.QUEUED, "4242"),
    }
    assert await store.open_envelopes(None, 10) == ()


async def test_what_deciding_asks_is_answered_by_every_name_a_thread_has(store: Store) -> None:
    await decided(store, 1, 2)
    await store.record([replace(moved(1, 1), stay_keys=("other-name",))])
    asks = [
        Ask(fingerprint="print-1", document_keys=("document-1", "document-9")),
        Ask(stays=("other-name", "stay-2", "stay-9")),
        Ask(message_ids=(str(mail(2).message_id),), deliveries=(chat(1).id,)),
        Ask(references=(thread(1).reference, "0000-0000"), threads=(thread(2).id, "nobody")),
        Ask(nonce="nonce-2"),
        Ask(),
    ]
    one, two, three, four, five, nothing = await store.contexts(asks)
    assert one.duplicate_of == envelope(1).id
    assert one.documents == {"document-1": envelope(1).id}
    assert two.stays == {"other-name": thread(1).id, "stay-2": thread(2).id}
    assert [view.thread.id for view in two.threads] == [thread(1).id, thread(2).id]
    assert {copy.id for copy in three.deliveries} == {mail(2).id, chat(1).id}
    assert {view.thread.id for view in three.threads} == {thread(1).id, thread(2).id}
    assert {view.thread.id for view in four.threads} == {thread(1).id, thread(2).id}
    assert five.grant == letter(2).grants[0]
    assert [view.thread.id for view in five.threads] == [thread(2).id]
    assert nothing == (await store.contexts([Ask()]))[0]
    assert not nothing.threads


async def test_a_duplicate_is_no_original(store: Store) -> None:
    await store.accept(batch(1, 2, 3))
    same = replace(held(2), state=EnvelopeState.IGNORED, why=Why.DUPLICATE, hold=None, fingerprint="print-1")
    assert await store.record([held(1), same]) == [None, None]
    (context,) = await store.contexts([Ask(fingerprint="print-1")])
    assert context.duplicate_of == envelope(1).id


async def test_the_same_mail_twice_in_one_batch_is_decided_once(store: Store) -> None:
    await store.accept(batch(1, 2))
    first, second = await store.record([held(1), replace(held(2), fingerprint="print-1")])
    assert first is None
    assert isinstance(second, Stale)
    status = await store.status()
    assert (status["held"], status["open"]) == (1, 1)


async def test_two_letters_of_one_stay_open_one_thread(store: Store) -> None:
    await store.accept(batch(1, 2))
    other = replace(letter(2), thread=replace(thread(2), stay="stay-1"))
    assert [type(answer) for answer in await store.record([letter(1), other])] == [type(None), Stale]
    assert await store.record([other]) != [None]
    assert [line["ref"] for line in await store.envelopes(state="open")] == ["2"]


async def test_a_thread_that_changed_since_it_was_read_is_not_overwritten(store: Store) -> None:
    await decided(store, 1)
    ack = moved(1, 1, state=ThreadState.ACKNOWLEDGED, owner=GP)
    desk = moved(1, 1, state=ThreadState.WITH_DESK, desk="sorties", owner="desk:sorties")
    first, second = await store.record([ack, replace(desk, deliveries=(mail(1, Purpose.REMINDER),))])
    assert first is None
    assert isinstance(second, Stale)
    view = await store.view(thread(1).id)
    assert (view.thread.state, view.thread.version) == (ThreadState.ACKNOWLEDGED, 1)
    assert len(view.deliveries) == 2, "nothing of a stale plan may be written"
    assert isinstance((await store.record([moved(1, 3)]))[0], Stale)
    assert isinstance((await store.record([moved(1, 0)]))[0], Stale)


async def test_one_refused_plan_does_not_hold_up_the_others(store: Store) -> None:
    await store.accept(batch(1, 2, 3))
    answers = await store.record([letter(1), replace(letter(2), thread=moved(2, 5).thread), letter(3)])
    assert [answer is None for answer in answers] == [True, False, True]
    assert (await store.status())["decided"] == 2


async def test_a_reference_that_is_taken_asks_for_another(store: Store) -> None:
    await store.accept(batch(1, 2))
    clash = replace(letter(2), thread=replace(thread(2), reference=thread(1).reference))
    first, second = await store.record([letter(1), clash])
    assert first is None
    assert isinstance(second, Clash)


async def test_a_button_works_once(store: Store) -> None:
    await decided(store, 1)
    press = replace(moved(1, 1, state=ThreadState.ACKNOWLEDGED), used_grant="nonce-1")
    again = replace(moved(1, 2), used_grant="nonce-1")
    assert [type(each) for each in await store.record([press, again])] == [type(None), Stale]
    (context,) = await store.contexts([Ask(nonce="nonce-1")])
    assert context.grant is not None
    assert context.grant.used_at == NOON
    assert isinstance((await store.record([replace(moved(1, 2), used_grant="never-made")]))[0], Stale)


async def test_buttons_of_a_closed_thread_end(store: Store) -> None:
    await decided(store, 1)
    late = ButtonGrant("new", thread(1).id, GP, "4242", Verb.ACK, chat(1).id, NOON + timedelta(days=1))
    closed = moved(1, 1, state=ThreadState.CLOSED, closed_reason="handled", closed_at=NOON)
    assert await store.record([replace(closed, void_grants_of=(thread(1).id,), grants=(late,))]) == [None]
    old, new = await store.contexts([Ask(nonce="nonce-1"), Ask(nonce="new")])
    assert old.grant is not None
    assert old.grant.expires == NOON
    assert new.grant == late


async def test_a_timer_fires_once_whoever_comes_first(store: Store, place: Place) -> None:
    await decided(store, 1)
    place.clock.turn(days=2)
    ((timer, view),) = await store.due_timers(10)
    assert timer == letter(1).timers[0]
    assert view == await store.view(thread(1).id)
    fired = replace(moved(1, 1, level=1), done_timers=(timer.id,))
    assert await store.record([fired]) == [None]
    assert await store.due_timers(10) == ()
    assert isinstance((await store.record([replace(fired, thread=None)]))[0], Stale)
    again = replace(moved(1, 2), timers=(timer,))
    assert await store.record([again]) == [None]
    assert await store.due_timers(10) == (), "deciding again must not fire it again"


async def test_a_ladder_that_starts_anew_drops_the_timers_of_the_old_one(store: Store) -> None:
    await decided(store, 1)
    name = thread(1).id
    new = Timer(name, "step", 0, 1, NOON + timedelta(days=5))
    anew = replace(moved(1, 1, revision=1), drop_timers=(name,), timers=(new,))
    assert await store.record([anew]) == [None]
    assert (await store.view(name)).timers == (new,)
    assert await store.next_timer() == new.due
    closed = moved(1, 2, revision=1, state=ThreadState.CLOSED, closed_at=NOON, closed_reason="handled")
    assert await store.record([replace(closed, drop_timers=(name,))]) == [None]
    assert (await store.view(name)).timers == ()
    assert await store.next_timer() is None


async def test_deciding_again_writes_the_same_rows(store: Store) -> None:
    await decided(store, 1)
    claimed = await store.claim(["mss"], 10, 60)
    await store.in_flight([copy.id for copy in claimed])
    await store.finish([Attempt(claimed[0].id, DeliveryState.SENT, NOON, remote="250")])
    again = replace(letter(1), thread=replace(thread(1), version=1))
    assert await store.record([again]) == [None]
    assert await states(store) == {"letter": "sent", "alert": "queued"}
    assert (await store.status())["deliveries"]["queued"] == 1


async def test_what_is_queued_is_stopped_and_what_left_is_not(store: Store) -> None:
    await decided(store, 1)
    (claimed,) = await store.claim(["mss"], 10, 60)
    await store.in_flight([claimed.id])
    await store.finish([Attempt(claimed.id, DeliveryState.SENT, NOON)])
    note = mail(1, Purpose.RECALL)
    recall = replace(moved(1, 1), cancel_queued=((thread(1).id, Why.RECALLED),), deliveries=(note,))
    assert await store.record([recall]) == [None]
    assert await states(store) == {"letter": "sent", "alert": "cancelled", "recall": "queued"}


async def test_stopping_can_be_narrowed_to_purposes(store: Store) -> None:
    await decided(store, 1)
    await store.record([replace(moved(1, 1), deliveries=(mail(1, Purpose.REMINDER),))])
    stop = replace(
        moved(1, 2), cancel_queued=((thread(1).id, Why.ANSWERED),), cancel_purposes=(Purpose.REMINDER,)
    )
    await store.record([stop])
    assert await states(store) == {"letter": "queued", "alert": "queued", "reminder": "cancelled"}


@pytest.mark.parametrize(
    ("told", "ends"),
    [
        ((DeliveryState.ACCEPTED, DeliveryState.SEEN), "seen"),
        ((DeliveryState.SEEN, DeliveryState.ACCEPTED), "seen"),
        ((DeliveryState.ACCEPTED, DeliveryState.FAILED), "failed"),
        ((DeliveryState.SEEN, DeliveryState.FAILED), "seen"),
        ((DeliveryState.FAILED, DeliveryState.ACCEPTED), "failed"),
        ((DeliveryState.ACCEPTED, DeliveryState.CANCELLED), "accepted"),
        ((DeliveryState.FAILED, DeliveryState.QUEUED), "queued"),
    ],
)
async def test_evidence_only_moves_a_copy_forward(
    store: Store, told: tuple[DeliveryState, ...], ends: str
) -> None:
    await decided(store, 1)
    (claimed,) = await store.claim(["mss"], 10, 60)
    await store.in_flight([claimed.id])
    await store.finish([Attempt(claimed.id, DeliveryState.SENT, NOON)])
    for state in told:
        assert await store.record([news(claimed.id, state)]) == [None]
    assert (await states(store))["letter"] == ends
    counts = (await store.status())["deliveries"]
    assert counts[ends] == 1 + (ends == "queued")
    assert sum(counts.values()) == 2


async def test_a_mailbox_is_remembered_for_the_receipts_it_sends(store: Store) -> None:
    await decided(store, 1, 2)
    assert (await store.view(thread(2).id)).readers == frozenset()
    await store.record([news(mail(1).id, DeliveryState.ACCEPTED), news(mail(1).id, DeliveryState.SEEN)])
    view = await store.view(thread(2).id)
    assert view.readers == view.confirmers == {GP_ADDRESS}


async def test_a_hold_is_listed_until_it_ends(store: Store) -> None:
    await store.accept(batch(1))
    await store.record([held(1)])
    hold = held(1).hold
    assert hold is not None
    assert await store.hold(hold.id) == await store.hold(envelope(1).id) == hold
    (line,) = await store.holds()
    assert line["candidates"] == ["10000000001", "10000000002"]
    assert {"id", "envelope", "why", "reason", "rule", "since", "candidates"} <= set(line)
    release = replace(letter(1), end_hold=(hold.id,))
    assert await store.record([release]) == [None]
    assert await store.holds() == []
    assert (await store.status())["held"] == 0
    with pytest.raises(NotFound):
        await store.hold(hold.id)


async def test_a_letter_has_one_open_hold_while_it_is_held_and_none_after(store: Store) -> None:
    await store.accept(batch(1))
    first = held(1)
    assert first.hold is not None
    second = replace(first, hold=replace(first.hold, id="another", why=Why.UNCLEAR))
    assert await store.record([first]) == await store.record([second]) == [None]
    assert [line["id"] for line in await store.holds()] == ["another"]
    assert await store.record([letter(1)]) == [None]
    assert await store.holds() == []
    assert {line["id"] for line in await store.holds(state="ended")} == {first.hold.id, "another"}


async def test_an_answer_to_a_hold_note_finds_the_hold(store: Store) -> None:
    await store.accept(batch(1))
    note = mail(1, Purpose.HOLD_NOTE, thread=None, to="ward:cardiologie")
    await store.record([replace(held(1), deliveries=(note,))])
    (context,) = await store.contexts([Ask(message_ids=(str(note.message_id),))])
    assert context.holds == (held(1).hold,)


async def test_an_incident_is_kept_with_its_clock(store: Store) -> None:
    opened = Incident("i1", "wrong_recipient", NOON, NOON + timedelta(hours=72), "ABCD-EFGH")
    await store.record([Plan(at=NOON, incident=opened), Plan(at=NOON, incident=opened)])
    (line,) = await store.incidents(state="open")
    assert (line["id"], line["kind"], line["due"]) == ("i1", "wrong_recipient", "2026-11-23T12:00:00.000Z")


async def test_a_plan_for_what_nobody_knows_is_not_found(store: Store) -> None:
    unknown_letter, unknown_copy = await store.record([held(7), news("nobody", DeliveryState.SEEN)])
    assert isinstance(unknown_letter, NotFound)
    assert isinstance(unknown_copy, NotFound)


async def test_a_row_that_the_tables_refuse_harms_its_own_plan_only(store: Store) -> None:
    await store.accept(batch(1, 2))
    orphan = Timer("no-such-thread", "step", 0, 0, NOON)
    broken = Plan(at=NOON, timers=(orphan,), audit=(AuditEvent("relay", "broken", "x"),))
    answers = await store.record([letter(1), broken, letter(2)])
    assert [answer is None for answer in answers] == [True, False, True]
    assert (await store.status())["decided"] == 2
    assert "x" not in {line["subject"] for line in await store.audit_export()}


async def test_an_objection_finds_the_patient_s_threads_with_or_without_the_key(store: Store) -> None:
    await store.accept(batch(1, 2))
    await store.record([replace(letter(1), patient="2690549588157 80"), replace(letter(2), patient=None)])
    assert await store.record([moved(1, 1)]) == [None]
    for written in ("269054958815780", "2690549588157"):
        (view,) = await store.threads_of_patient(written)
        assert view.thread.id == thread(1).id
    assert await store.threads_of_patient("154019999999999") == ()
