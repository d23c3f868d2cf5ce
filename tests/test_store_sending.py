"""Copies are claimed by one sender at a time, marked before the wire, and never sent twice unmarked."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from relay.errors import Stale
from relay.model import (
    Ask,
    Attempt,
    Delivery,
    DeliveryNews,
    DeliveryState,
    Plan,
    Purpose,
    ThreadState,
    Why,
)
from relay.store import Store
from tests.stores import NOON, Place, batch, chat, decided, letter, mail, thread

ALL = ["mss", "telegram"]


async def line(store: Store, copy: str) -> dict[str, object]:
    (found,) = await store.deliveries(ids=[copy])
    return found


async def to_the_wire(store: Store, adapter: str = "mss") -> Delivery:
    (claimed,) = await store.claim([adapter], 1, 60)
    assert await store.in_flight([claimed.id]) == {claimed.id}
    return claimed


def further(number: int, *copies: Delivery, version: int = 1) -> Plan:
    return Plan(at=NOON, thread=replace(thread(number), version=version), deliveries=copies)


def sent(copy: str, **changes: object) -> Attempt:
    return replace(Attempt(copy, DeliveryState.SENT, NOON, remote="250"), **changes)  # type: ignore[arg-type]


def deferred(copy: str, after: timedelta) -> Attempt:
    return Attempt(copy, DeliveryState.DEFERRED, NOON, Why.CONNECTION, not_before=NOON + after)


async def test_a_claim_brings_the_whole_recipe(store: Store) -> None:
    await decided(store, 1)
    assert await store.claim(ALL, 10, 60) == tuple(
        replace(copy, state=DeliveryState.SENDING, not_before=NOON) for copy in (mail(1), chat(1))
    )
    assert await store.claim(ALL, 10, 60) == ()


async def test_the_oldest_leave_first_and_no_more_than_asked(store: Store) -> None:
    await decided(store, 1, 2, 3)
    assert [copy.id for copy in await store.claim(["mss"], 2, 60)] == [mail(1).id, mail(2).id]
    assert [copy.id for copy in await store.claim(["mss"], 2, 60)] == [mail(3).id]


async def test_one_busy_adapter_does_not_starve_another(store: Store) -> None:
    await decided(store, *range(1, 7))
    claimed = await store.claim(ALL, 4, 60)
    assert sorted(copy.adapter for copy in claimed) == ["mss", "mss", "telegram", "telegram"]


async def test_what_is_not_due_waits(store: Store, place: Place) -> None:
    await store.accept(batch(1))
    later = NOON + timedelta(hours=3)
    await store.record([replace(letter(1), deliveries=(replace(mail(1), not_before=later),))])
    assert await store.claim(["mss"], 10, 60) == ()
    assert await store.next_due(["mss"]) == later
    place.clock.turn(hours=3)
    assert len(await store.claim(["mss"], 10, 60)) == 1
    assert await store.next_due(["mss"]) is None


async def test_a_younger_copy_waits_for_the_older_one_of_its_lane(store: Store, place: Place) -> None:
    await decided(store, 1)
    await store.record([further(1, mail(1, Purpose.REMINDER))])
    (first,) = await store.claim(["mss"], 10, 60)
    assert first.purpose is Purpose.LETTER
    await store.in_flight([first.id])
    assert await store.claim(["mss"], 10, 60) == ()
    await store.finish([deferred(first.id, timedelta(minutes=1))])
    assert await store.claim(["mss"], 10, 60) == ()
    assert await store.next_due(["mss"]) == NOON + timedelta(minutes=1), (
        "the younger copy is not due before it"
    )
    place.clock.turn(minutes=1)
    again = await to_the_wire(store)
    assert again.id == first.id
    await store.finish([sent(again.id)])
    (second,) = await store.claim(["mss"], 10, 60)
    assert second.purpose is Purpose.REMINDER


async def test_a_failed_copy_lets_its_lane_go_on(store: Store) -> None:
    await decided(store, 1)
    await store.record([further(1, mail(1, Purpose.REMINDER))])
    first = await to_the_wire(store)
    await store.finish([Attempt(first.id, DeliveryState.FAILED, NOON, Why.UNKNOWN_MAILBOX)])
    assert (await to_the_wire(store)).purpose is Purpose.REMINDER


async def test_nothing_leaves_through_a_paused_adapter(store: Store) -> None:
    await decided(store, 1)
    (claimed,) = await store.claim(["telegram"], 10, 60)
    await store.pause("telegram")
    assert await store.in_flight([claimed.id]) == frozenset(), "claimed before the pause, stopped by it"
    await store.release([claimed.id])
    assert await store.claim(["telegram"], 10, 60) == ()
    assert await store.next_due(["telegram"]) is None
    assert len(await store.claim(["mss"], 10, 60)) == 1
    await store.resume("telegram")
    assert len(await store.claim(["telegram"], 10, 60)) == 1


async def test_a_pause_of_everything_stops_everything(store: Store) -> None:
    await decided(store, 1)
    await store.adapter_state("mss", "up", "")
    await store.pause()
    assert await store.claim(ALL, 10, 60) == ()
    assert (await store.status())["adapters"]["mss"]["state"] == "paused"
    await store.resume()
    assert len(await store.claim(ALL, 10, 60)) == 2
    assert await store.paused() == frozenset()


async def test_a_copy_stopped_after_its_claim_never_reaches_the_wire(store: Store) -> None:
    await decided(store, 1)
    claimed = await store.claim(ALL, 10, 60)
    recall = Plan(
        at=NOON,
        thread=replace(
            thread(1), version=1, state=ThreadState.CLOSED, closed_at=NOON, closed_reason="recalled"
        ),
        cancel_queued=((thread(1).id, Why.RECALLED),),
    )
    assert await store.record([recall]) == [None]
    assert await store.in_flight([copy.id for copy in claimed]) == frozenset()
    await store.finish([deferred(claimed[0].id, timedelta(0))])
    assert (await line(store, claimed[0].id))["state"] == "cancelled"
    assert await store.claim(ALL, 10, 60) == ()


async def test_a_stopped_copy_stays_stopped_though_it_left_at_the_same_moment(store: Store) -> None:
    await decided(store, 1)
    (copy, _) = await store.claim(ALL, 10, 60)
    stop = Plan(at=NOON, news=(DeliveryNews(copy.id, DeliveryState.CANCELLED, Why.RECALLED),))
    assert await store.record([stop]) == [None]
    await store.finish([sent(copy.id)])
    shown = await line(store, copy.id)
    assert (shown["state"], shown["attempts"]) == ("cancelled", 1)


async def test_what_was_given_back_counts_no_attempt(store: Store) -> None:
    await decided(store, 1)
    (claimed,) = await store.claim(["mss"], 10, 60)
    await store.release([claimed.id])
    again = await to_the_wire(store)
    assert (again.id, again.attempts, again.state) == (claimed.id, 0, DeliveryState.SENDING)


async def test_a_sent_copy_keeps_the_other_side_s_id_and_its_first_time(store: Store) -> None:
    await decided(store, 1)
    copy = await to_the_wire(store)
    await store.finish([sent(copy.id)])
    shown = await line(store, copy.id)
    assert (shown["state"], shown["attempts"], shown["next_at"]) == ("sent", 1, None)
    assert shown["sent_at"] == "2026-11-20T12:00:00.000Z"
    (found,) = (await store.contexts([_ask(copy.id)]))[0].deliveries
    assert found.remote == "250"


def _ask(copy: str) -> Ask:
    return Ask(deliveries=(copy,))


async def test_a_receipt_that_came_before_the_answer_is_not_undone(store: Store) -> None:
    await decided(store, 1)
    copy = await to_the_wire(store)
    await store.record([Plan(at=NOON, news=(DeliveryNews(copy.id, DeliveryState.SEEN),))])
    await store.finish([sent(copy.id)])
    assert (await line(store, copy.id))["state"] == "seen"
    assert (await store.status())["deliveries"]["seen"] == 1


async def test_an_edit_knows_the_message_it_changes(store: Store) -> None:
    await decided(store, 1)
    edit = chat(1, Purpose.EDIT, edits=chat(1).id)
    await store.record([further(1, edit)])
    alert = await to_the_wire(store, "telegram")
    await store.finish([sent(alert.id, remote="777")])
    assert (await to_the_wire(store, "telegram")).remote == "777"


async def test_a_deferred_copy_comes_back_when_it_is_due(store: Store, place: Place) -> None:
    await decided(store, 1)
    copy = await to_the_wire(store)
    await store.finish([deferred(copy.id, timedelta(minutes=5))])
    assert await store.claim(["mss"], 10, 60) == ()
    shown = await line(store, copy.id)
    assert (shown["state"], shown["why"], shown["next_at"]) == (
        "deferred",
        "connection",
        "2026-11-20T12:05:00.000Z",
    )
    place.clock.turn(minutes=5)
    again = await to_the_wire(store)
    assert (again.id, again.attempts, again.why) == (copy.id, 1, Why.CONNECTION)


# ------------------------------------------------------------------------------------------------- after a crash


async def test_after_a_crash_what_was_only_claimed_goes_again_unmarked(place: Place) -> None:
    async with place.opened() as store:
        await decided(store, 1)
        (claimed,) = await store.claim(["mss"], 10, 600)
    async with place.opened() as store:
        shown = await line(store, claimed.id)
        assert (shown["state"], shown["why"]) == ("deferred", "lease_ended")
        again = await to_the_wire(store)
        assert (again.id, again.state) == (claimed.id, DeliveryState.SENDING)


async def test_after_a_crash_what_was_in_flight_goes_once_more_and_is_marked(place: Place) -> None:
    async with place.opened() as store:
        await decided(store, 1)
        first = await to_the_wire(store)
    async with place.opened() as store:
        shown = await line(store, first.id)
        assert (shown["state"], shown["why"]) == ("ambiguous", "lost_after_send")
        assert await store.claim(["mss"], 10, 60) == (), "evidence is looked for first"
        place.clock.turn(seconds=5)
        again = await to_the_wire(store)
        assert again == replace(
            first,
            state=DeliveryState.AMBIGUOUS,
            why=Why.LOST_AFTER_SEND,
            not_before=NOON + timedelta(seconds=5),
        )
        await store.finish([sent(again.id)])
        shown = await line(store, first.id)
        assert (shown["state"], shown["why"]) == ("sent", "resent_after_crash")


async def test_a_copy_in_doubt_that_is_given_back_stays_in_doubt(place: Place) -> None:
    async with place.opened() as store:
        await decided(store, 1)
        first = await to_the_wire(store)
    async with place.opened() as store:
        place.clock.turn(seconds=5)
        await store.claim(["mss"], 10, 60)
        await store.release([first.id])
        assert (await line(store, first.id))["state"] == "ambiguous"
        assert (await to_the_wire(store)).state is DeliveryState.AMBIGUOUS


async def test_a_second_crash_in_flight_leaves_the_copy_to_people(place: Place) -> None:
    async with place.opened() as store:
        await decided(store, 1)
        first = await to_the_wire(store)
    async with place.opened() as store:
        place.clock.turn(seconds=5)
        await to_the_wire(store)
    async with place.opened() as store:
        place.clock.turn(days=30)
        assert await store.claim(["mss"], 10, 60) == ()
        assert (await line(store, first.id))["state"] == "ambiguous"
        assert (await store.recover())["unsure"] == 1, "named at every start until a person was told"
        await store.requeue(first.id, by="admin")
        assert (await to_the_wire(store)).id == first.id


async def test_evidence_found_after_a_crash_ends_the_doubt(place: Place) -> None:
    async with place.opened() as store:
        await decided(store, 1)
        first = await to_the_wire(store)
    async with place.opened() as store:
        await store.record([Plan(at=NOON, news=(DeliveryNews(first.id, DeliveryState.ACCEPTED),))])
        place.clock.turn(seconds=5)
        assert await store.claim(["mss"], 10, 60) == ()
        assert (await line(store, first.id))["state"] == "accepted"


async def test_a_copy_of_another_node_is_left_alone_until_its_lease_ends(place: Place) -> None:
    async with place.opened("n1") as store:
        await decided(store, 1)
        (claimed,) = await store.claim(["mss"], 10, 60)
        async with place.opened("n2") as other:
            assert await other.claim(["mss"], 10, 60) == ()
            assert await other.in_flight([claimed.id]) == frozenset()
        place.clock.turn(seconds=61)
        async with place.opened("n2") as other:
            assert (await to_the_wire(other)).id == claimed.id
            assert await store.in_flight([claimed.id]) == frozenset(), "the first node must not send it too"
            await store.finish([deferred(claimed.id, timedelta(hours=1))])
            assert (await line(store, claimed.id))["state"] == "in_flight"


async def test_each_copy_is_counted_in_one_state(store: Store) -> None:
    await decided(store, 1, 2, 3)
    await store.pause("telegram")
    copies = [copy.id for copy in await store.claim(["mss"], 10, 60)]
    await store.in_flight(copies[:2])
    await store.finish([sent(copies[0]), deferred(copies[1], timedelta(hours=1))])
    counts = (await store.status())["deliveries"]
    assert {state: count for state, count in counts.items() if count} == {
        "queued": 3,
        "sending": 1,
        "deferred": 1,
        "sent": 1,
    }
    tries = await store.counters()
    assert (tries["tries.mss.sent"], tries["tries.mss.deferred"]) == (1, 1)


async def test_an_attempt_of_nobody_is_passed_over(store: Store) -> None:
    await decided(store, 1)
    copy = await to_the_wire(store)
    await store.finish([sent("nobody"), sent(copy.id)])
    assert (await line(store, copy.id))["state"] == "sent"


async def test_one_commit_concludes_a_handful_and_marks_the_next(store: Store) -> None:
    await decided(store, 1, 2)
    first, second = await store.claim(["mss"], 2, 60)
    await store.in_flight([first.id])
    before = store.generation
    assert await store.conclude([sent(first.id)], [None], [second.id]) == ([None], {second.id})
    assert store.generation == before + 1
    assert [(await line(store, each.id))["state"] for each in (first, second)] == ["sent", "in_flight"]


async def test_what_the_end_of_one_copy_stops_does_not_go_next(store: Store) -> None:
    await decided(store, 1, 2)
    first, second = await store.claim(["mss"], 2, 60)
    await store.in_flight([first.id])
    stop = Plan(at=NOON, news=(DeliveryNews(second.id, DeliveryState.CANCELLED, Why.RECALLED),))
    assert await store.conclude([sent(first.id)], [stop], [second.id]) == ([None], frozenset())
    assert (await line(store, second.id))["state"] == "cancelled"


async def test_a_plan_that_cannot_be_written_keeps_its_try_open_and_holds_no_other_back(store: Store) -> None:
    await decided(store, 1, 2, 3)
    first, second, third = await store.claim(["mss"], 3, 60)
    await store.in_flight([first.id, second.id])
    late = further(1, version=7)
    problems, going = await store.conclude([sent(first.id), sent(second.id)], [late, None], [third.id])
    assert [type(problem) for problem in problems] == [Stale, type(None)]
    assert going == {third.id}
    states = [(await line(store, each.id))["state"] for each in (first, second, third)]
    assert states == ["in_flight", "sent", "in_flight"]
