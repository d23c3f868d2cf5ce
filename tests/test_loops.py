"""The three loops on a real store, with time that a test turns by hand and senders that can be told to fail."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta, tzinfo
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest
from apscheduler.executors import base as base_executor
from apscheduler.schedulers import base as base_scheduler

from adapters import memory, smtp
from relay import dispatch, planning, tables
from relay.clock import SystemClock
from relay.dispatch import Dispatch, backoff
from relay.errors import Deferred, Rejected, Uncertain, Verdict
from relay.identity import keys_of
from relay.intake import Intake
from relay.model import (
    Ask,
    Batch,
    Delivery,
    Envelope,
    Link,
    Mailbox,
    MailMessage,
    Plan,
    Professional,
    Registration,
    ThreadState,
    ThreadView,
    Why,
    envelope_id,
)
from relay.planning import Correction, Site
from relay.schedule import Schedule
from relay.store import Store
from relay.vault import FileKeyRing, Vault
from tests import letters
from tests.letters import DUPONT, MARTIN, ODETTE
from tests.servers.sink import SILENCE, Sink
from tests.site import answer
from tests.stores import HandClock, Place
from tests.test_planning import RULES, _secret, make_site, text  # noqa: F401 - fixtures
from tests.trials import tools

RELAY = "relais@relais45.mssante.fr"
SENDER = "sorties.cardio@chr-exemple.mssante.fr"


@dataclass
class House:
    """A relay without a network: real store, real rooms, a sender in memory."""

    place: Place
    store: Store
    site: Site
    sender: Any  # adapters.memory's class, whose record tests read
    letters: int = 0

    def __post_init__(self) -> None:
        self.clock: HandClock = self.place.clock
        self.intake = Intake(self.store, {}, lambda: self.site, self.clock)
        self.dispatch = Dispatch(self.store, {"mss": self.sender}, lambda: self.site, self.clock)
        self.schedule = Schedule(self.store, lambda: self.site, self.clock)

    async def take(self, *mails: bytes, adapter: str = "cardiologie") -> None:
        """What an inbox would do with these mails."""
        envelopes = []
        for raw in mails:
            self.letters += 1
            ref = str(self.letters)
            envelopes.append(Envelope(envelope_id("box", ref), adapter, "box", ref, self.clock.now(), raw))
        fresh = await self.store.accept(Batch("box", tuple(envelopes), str(self.letters)))
        await self.intake.decide(fresh)

    async def leave(self) -> None:
        """Send whatever may leave now."""
        while await self.dispatch.turn("mss", self.sender) is None:
            pass

    async def copies(self, **wanted: object) -> list[dict[str, Any]]:
        rows = await self.store.deliveries()
        return [
            dict(row) for row in reversed(rows) if all(row[key] == value for key, value in wanted.items())
        ]


@pytest.fixture
async def house(place: Place, store: Store, tmp_path: Path) -> House:
    await store.import_registrations(
        [
            Registration(
                ins=ODETTE.ins or "", ins_oid="1.2.250.1.213.1.4.8", facility="450000088",
                birth_name=ODETTE.birth_name or "", used_name=ODETTE.used_name or "",
                given_names=ODETTE.given_names, birth_date=ODETTE.birth_date, sex="F",
                birth_place="45234", gp_rpps=(MARTIN.rpps or "",),
            )
        ],
        keys_of,
    )  # fmt: skip
    await store.import_professionals(
        [
            Professional(
                MARTIN.rpps or "", "Martin", "Camille", mailboxes=(Mailbox(MARTIN.mss_address or ""),)
            )
        ],
        str.upper,
    )
    sender = memory.connect("mss", memory.Settings(), tools(tmp_path, place.clock))
    return House(place, store, make_site(receipts="daily"), sender)


def letter(**more: Any) -> bytes:
    return letters.text_mail(gp=MARTIN, sender=SENDER, **more)


def without_gp(stay: str) -> bytes:
    """A letter about somebody whom nobody registered."""
    stranger = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11)
    return letters.text_mail(gp=None, patient=stranger, stay=stay, sender=SENDER)


def mails(house: House) -> list[Delivery]:
    return [each for each in house.sender.sent if isinstance(each.message, MailMessage)]


async def test_a_letter_is_taken_decided_and_sent_once(house: House) -> None:
    await house.take(letter())
    await house.leave()
    await house.leave()
    assert [each.purpose for each in mails(house)] == ["letter"]
    assert not any((await house.store.invariants()).values())


async def test_what_was_accepted_and_not_decided_is_decided_at_the_next_start(house: House) -> None:
    raw = letter()
    envelope = Envelope(envelope_id("box", "1"), "cardiologie", "box", "1", house.clock.now(), raw)
    await house.store.accept(Batch("box", (envelope,), "1"))
    assert (await house.store.status())["open"] == 1
    await house.intake.catch_up()
    assert (await house.store.status())["decided"] == 1
    await house.leave()
    assert len(mails(house)) == 1


async def test_what_another_node_accepted_and_did_not_live_to_decide_is_decided_without_a_restart(
    house: House,
) -> None:
    await house.intake.catch_up()
    raw = letter()
    envelope = Envelope(envelope_id("box", "1"), "cardiologie", "box", "1", house.clock.now(), raw)
    async with house.place.opened("n2") as other:
        await other.accept(Batch("box", (envelope,), "1"))
    await house.intake.adopt()
    house.clock.turn(seconds=60)
    await house.intake.adopt()
    assert (await house.store.status())["open"] == 1  # who took it may still be at it
    house.clock.turn(seconds=60)
    await house.intake.adopt()
    await house.leave()
    house.clock.turn(minutes=10)
    await house.intake.adopt()
    await house.leave()
    assert [each.purpose for each in mails(house)] == ["letter"]
    status = await house.store.status()
    assert (status["open"], status["decided"], status["balance"]) == (0, 1, 0)
    assert not any((await house.store.invariants()).values())


async def test_what_only_another_nodes_keys_open_is_left_to_it(house: House, tmp_path: Path) -> None:
    FileKeyRing.create(tmp_path / "others.json")
    envelope = Envelope(envelope_id("box", "1"), "cardiologie", "box", "1", house.clock.now(), letter())
    await house.store.accept(Batch("box", (envelope,), "1"))
    kept, house.store.vault = house.store.vault, Vault(FileKeyRing(tmp_path / "others.json"))
    for _ in range(2):
        await house.intake.adopt()
        house.clock.turn(seconds=121)
    assert (await house.store.status())["open"] == 1
    house.store.vault = kept
    await house.intake.adopt()
    await house.leave()
    assert [each.purpose for each in mails(house)] == ["letter"]


async def test_a_letter_adopted_from_a_node_that_is_only_slow_is_decided_once(house: House) -> None:
    raw = letter()
    envelope = Envelope(envelope_id("box", "1"), "cardiologie", "box", "1", house.clock.now(), raw)
    async with house.place.opened("n2") as other:
        slow = Intake(other, {}, lambda: house.site, house.clock)
        fresh = await other.accept(Batch("box", (envelope,), "1"))
        await house.intake.adopt()
        house.clock.turn(seconds=121)
        await asyncio.gather(house.intake.adopt(), slow.decide(fresh))
        await slow.decide(fresh)
    await house.leave()
    assert [each.purpose for each in mails(house)] == ["letter"]
    status = await house.store.status()
    assert (status["decided"], status["balance"]) == (1, 0)
    assert not any((await house.store.invariants()).values())


async def test_a_copy_that_cannot_leave_is_tried_again_ever_more_slowly_with_the_same_bytes(
    house: House,
) -> None:
    await house.take(letter())
    waits = []
    for _ in range(4):
        house.sender.fail(Deferred(Why.BUSY))
        await house.dispatch.turn("mss", house.sender)
        (copy,) = await house.copies(purpose="letter")
        assert (copy["state"], copy["why"]) == ("deferred", "busy")
        due = await house.store.next_due(["mss"])
        assert due is not None
        waits.append((due - house.clock.now()).total_seconds())
        assert await house.dispatch.turn("mss", house.sender) == 0.0
        house.clock.at = due
    assert all(later > earlier for earlier, later in itertools.pairwise(waits))
    await house.leave()
    (sent,) = mails(house)
    assert isinstance(sent.message, MailMessage)
    assert sent.message.envid == sent.id
    (copy,) = await house.copies(purpose="letter")
    assert copy["state"] == "sent"
    assert copy["attempts"] == 5


async def test_a_copy_that_could_not_leave_for_days_is_failed_and_the_ward_told(house: House) -> None:
    await house.take(letter())
    house.clock.turn(days=6)
    house.sender.fail(Deferred(Why.BUSY))
    await house.dispatch.turn("mss", house.sender)
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("failed", "gave_up")
    await house.leave()
    assert any(each.to == "ward:cardiologie" for each in mails(house))


async def test_a_refused_letter_tells_the_ward_at_once_and_a_desk_takes_over(house: House) -> None:
    await house.take(letter())
    house.sender.fail(Rejected(Why.UNKNOWN_MAILBOX))
    await house.leave()
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("failed", "unknown_mailbox")
    (note,) = await house.copies(purpose="hold_note", to="ward:cardiologie")
    assert note["state"] == "sent"
    (thread,) = await house.store.threads()
    assert thread["state"] == "with_desk"
    assert not any((await house.store.invariants()).values())


async def test_a_copy_that_may_have_been_taken_is_sent_once_more_and_never_a_third_time(
    house: House,
) -> None:
    await house.take(letter())
    house.sender.fail(Uncertain(Why.LOST_AFTER_SEND), taken=True)
    await house.dispatch.turn("mss", house.sender)
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("ambiguous", "lost_after_send")
    assert await house.dispatch.turn("mss", house.sender) == 0.0
    house.clock.turn(seconds=5)
    house.sender.fail(Uncertain(Why.LOST_AFTER_SEND), taken=True)
    await house.dispatch.turn("mss", house.sender)
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("failed", "lost_after_send")
    house.clock.turn(days=1)
    await house.leave()
    twice = [each.message for each in mails(house) if each.purpose == "letter"]
    assert len(twice) == 2
    assert twice[0] == twice[1]


async def test_a_desk_gets_a_minute_between_two_mails_about_held_letters(house: House) -> None:
    await house.take(*(without_gp(f"S-{n}") for n in range(3)))
    await house.leave()
    sent = [each for each in mails(house) if each.to == "desk:sorties"]
    told = [each for each in mails(house) if each.to == "ward:cardiologie"]
    assert len(told) == 3
    assert len(sent) == 1
    for expected in (2, 3):
        house.clock.turn(seconds=61)
        await house.leave()
        assert len([each for each in mails(house) if each.to == "desk:sorties"]) == expected


async def test_a_desk_does_not_read_that_a_letter_is_held_which_was_settled_meanwhile(house: House) -> None:
    await house.take(*(without_gp(f"S-{n}") for n in range(3)))
    await house.leave()
    told = [each.envelope for each in mails(house) if each.to == "desk:sorties"]
    settled, waiting = (each for each in await house.store.holds() if each["envelope"] not in told)
    plan = planning.plan_reject(
        house.site, await house.store.hold(settled["id"]), "admin", "x", house.clock.now()
    )
    assert await house.store.record([plan]) == [None]
    house.clock.turn(minutes=3)
    await house.leave()
    read = [each.envelope for each in mails(house) if each.to == "desk:sorties"]
    assert read == [*told, waiting["envelope"]]
    (silent,) = await house.copies(envelope=settled["envelope"], to="desk:sorties")
    assert (silent["state"], silent["why"]) == ("cancelled", "answered")


async def test_a_ward_that_asked_gets_one_list_a_day(house: House) -> None:
    await house.take(letter(), without_gp("S-9"))
    await house.leave()
    await house.schedule.daily_lists()
    await house.schedule.daily_lists()
    await house.leave()
    lists = [each for each in mails(house) if each.purpose == "ward_note"]
    assert len(lists) == 1
    assert isinstance(lists[0].message, MailMessage)
    text = message_from_bytes(lists[0].message.content, policy=policy.default).get_body().get_content()
    (thread,) = await house.store.threads()
    assert str(thread["reference"]) in text
    assert "envoyée, sans accusé de réception" in text
    assert len([line for line in text.splitlines() if "Réf." in line]) >= 2
    house.clock.turn(days=1)
    await house.schedule.daily_lists()
    assert len(await house.copies(purpose="ward_note")) == 2


async def test_a_reminder_fires_once_and_the_last_step_hands_over(house: House) -> None:
    await house.take(letter())
    await house.leave()
    for hours in (1, 1, 2):
        house.clock.turn(hours=hours)
        assert await house.schedule.turn()
        assert not await house.schedule.turn()
        await house.leave()
    (thread,) = await house.store.threads()
    assert thread["state"] == "with_desk"
    assert len(await house.copies(purpose="reminder")) >= 1
    assert not any((await house.store.invariants()).values())


async def test_timers_missed_while_down_fire_once_and_only_the_latest(house: House) -> None:
    await house.take(letter())
    await house.leave()
    house.clock.turn(hours=30)
    while await house.schedule.turn():
        pass
    await house.leave()
    (thread,) = await house.store.threads()
    assert thread["state"] == "with_desk"
    assert await house.copies(purpose="reminder") == []


async def test_nobody_is_reminded_of_a_letter_that_has_not_left_and_the_desk_reads_why(house: House) -> None:
    await house.take(letter())
    await house.store.pause("mss")
    for hours in (1, 1):  # both reminders of the ladder
        house.clock.turn(hours=hours, seconds=1)
        while await house.schedule.turn():
            pass
    assert not await house.copies(purpose="reminder")
    house.clock.turn(hours=2)
    while await house.schedule.turn():
        pass
    (thread,) = await house.store.threads()
    assert (thread["state"], thread["owner"], thread["level"]) == ("with_desk", "desk:sorties", 3)
    await house.store.resume("mss")
    await house.leave()
    told = [(each.to, each.purpose, text(each)) for each in mails(house)]
    assert [each[:2] for each in told] == [
        (f"rpps:{MARTIN.rpps}", "letter"), ("desk:sorties", "ward_note"), ("ward:cardiologie", "ward_note"),
    ]  # fmt: skip
    assert all("les envois sont suspendus" in said and "rappels" not in said for *_, said in told[1:])


async def test_a_ladder_begins_when_the_letter_leaves_however_long_it_waited(house: House) -> None:
    await house.take(letter())
    await house.store.pause("mss")
    house.clock.turn(hours=3)
    while await house.schedule.turn():
        pass
    await house.store.resume("mss")
    await house.leave()
    assert [each.purpose for each in mails(house)] == ["letter"]
    (thread,) = await house.store.threads()
    assert (thread["state"], thread["level"]) == ("awaiting_ack", 0)
    house.clock.turn(hours=2, seconds=1)
    while await house.schedule.turn():
        pass
    assert await house.copies(purpose="reminder")


async def test_two_letters_of_one_stay_in_one_batch_open_one_thread(house: House) -> None:
    more = f"{letters.labelled_lines(ODETTE, MARTIN)}\nComplément : résultat du contrôle.\n"
    await house.take(letter(), letter(body=more))
    assert await house.store.holds() == []
    assert len(await house.store.threads()) == 1
    assert len(await house.copies(purpose="letter")) == 2


async def test_retention_forgets_the_letter_and_keeps_the_counts(house: House) -> None:
    await house.take(letters.text_mail(gp=None, sender="quelquun@ailleurs.fr"))
    (row,) = await house.store.envelopes()
    (hold,) = await house.store.holds()
    before = (await house.store.status())["received"]
    house.clock.turn(days=120)
    await house.schedule.retention()
    # Somebody must still deal with it: it is kept until they did.
    assert await house.store.raw(str(row["id"]))
    assert (await house.store.status())["received"] == before
    assert hold["why"] == "unlisted_sender"


def test_the_wait_doubles_up_to_half_an_hour() -> None:
    assert [backoff(n, 0.5) for n in range(4)] == [5.0, 10.0, 20.0, 40.0]
    assert backoff(30, 0.5) == 1800.0
    assert backoff(0, 0.0) < 5.0 < backoff(0, 1.0)


async def test_a_mail_to_the_relay_that_answers_nothing_is_held_when_a_colleague_wrote_it(
    house: House,
) -> None:
    mail = letters.mail("Qui est-ce ?", sender="dr.zoe@medecin.mssante.fr", to=RELAY, subject="Une question")
    await house.take(mail, adapter="retours")
    (held,) = await house.store.holds()
    assert held["why"] == "unknown_sender"
    await house.take(letters.mail("Offre", sender="promo@ailleurs.example", to=RELAY), adapter="retours")
    (latest, *_) = await house.store.envelopes()
    assert (latest["state"], latest["why"]) == ("ignored", "not_a_notice")


async def test_a_letter_mailed_to_the_relay_itself_is_held_whoever_sent_it(house: House) -> None:
    await house.take(letter(), adapter="retours")
    (held,) = await house.store.holds()
    assert held["why"] == "unlisted_sender"
    await house.leave()
    assert not [each for each in mails(house) if each.purpose == "letter"]


async def test_a_copy_that_was_twice_on_the_wire_when_we_died_is_a_persons_to_settle(house: House) -> None:
    await house.take(letter())
    for _ in range(2):
        (copy,) = await house.store.claim(["mss"], 1, 60)
        assert await house.store.in_flight([copy.id]) == {copy.id}
        await house.dispatch.recover()
        house.clock.turn(seconds=6)
    (row,) = await house.copies(purpose="letter")
    assert (row["state"], row["why"]) == ("failed", "lost_after_send")
    await house.leave()
    assert any(each.to == "ward:cardiologie" for each in mails(house))
    assert not any(each.purpose == "letter" for each in mails(house))
    assert not any((await house.store.invariants()).values())


async def _view(house: House) -> ThreadView:
    (row,) = await house.copies(purpose="letter")
    (context,) = await house.store.contexts([Ask(threads=(str(row["thread"]),))])
    return context.threads[0]


async def test_a_copy_in_doubt_after_a_crash_stays_here_once_its_letter_was_taken_back(house: House) -> None:
    await house.take(letter())
    (copy,) = await house.store.claim(["mss"], 1, 60)
    await house.store.in_flight([copy.id])
    await house.dispatch.recover()
    thread, now = (await _view(house)).thread, house.clock.now()
    back = replace(
        thread, version=thread.version + 1, state=ThreadState.CLOSED, closed_at=now, closed_reason="recalled"
    )
    assert await house.store.record([Plan(at=now, thread=back)]) == [None]
    house.clock.turn(seconds=6)
    await house.leave()
    (row,) = await house.copies(purpose="letter")
    assert (row["state"], row["why"]) == ("cancelled", "recalled")
    assert not any(each.purpose == "letter" for each in mails(house))


async def test_what_another_node_left_twice_in_doubt_is_told_without_a_restart(house: House) -> None:
    await house.take(letter())
    async with house.place.opened("n2") as other:
        for reclaim in (house.store.reclaim, house.dispatch.reclaim):
            (copy,) = await other.claim(["mss"], 1, 60)
            await other.in_flight([copy.id])
            house.clock.turn(seconds=61)
            await reclaim()
            house.clock.turn(seconds=6)
    (row,) = await house.copies(purpose="letter")
    assert (row["state"], row["why"]) == ("failed", "lost_after_send")
    await house.leave()
    assert any(each.to == "ward:cardiologie" for each in mails(house))


async def test_when_a_server_goes_away_the_rest_of_a_batch_waits_for_any_node(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "HANDFUL", 1)
    handful = house.sender.limits.parallel
    await house.take(*(letter(stay=f"S-7{number}") for number in range(handful + 2)))
    for _ in range(handful):
        house.sender.fail(Deferred(Why.CONNECTION))
    assert await house.dispatch.turn("mss", house.sender)
    states = [row["state"] for row in await house.copies(purpose="letter")]
    assert sorted(states) == ["deferred"] * handful + ["queued"] * 2


async def test_a_recipient_who_is_put_off_says_nothing_against_the_server(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[str, Verdict | None]] = []

    async def hear(name: str, verdict: Verdict | None) -> None:
        heard.append((name, verdict))

    monkeypatch.setattr(house.dispatch, "_heard", hear)
    await house.take(letter())
    house.sender.fail(Deferred(Why.BUSY, reached=True))
    await house.dispatch.turn("mss", house.sender)
    (row,) = await house.copies(purpose="letter")
    assert (row["state"], row["why"]) == ("deferred", "busy")
    assert heard == [("mss", None)]
    house.clock.turn(hours=1)
    house.sender.fail(Deferred(Why.BUSY))
    await house.dispatch.turn("mss", house.sender)
    assert [verdict.why for _, verdict in heard[1:] if verdict] == ["busy"]


async def test_a_copy_whose_letter_was_destroyed_fails_and_no_empty_frame_leaves(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def destroyed(_: object) -> dict[str, bytes]:
        return {}

    await house.take(letter())
    with monkeypatch.context() as patched:
        patched.setattr(house.store, "raws", destroyed)
        await house.leave()
    (row,) = await house.copies(purpose="letter")
    assert (row["state"], row["why"]) == ("failed", "gave_up")
    assert not any(each.purpose == "letter" for each in mails(house))


@pytest.mark.parametrize("times", [1, 100], ids=["once", "again and again"])
async def test_that_a_copy_left_is_entered_though_its_thread_changes_meanwhile(
    house: House, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    await house.take(letter())
    contexts, left = house.store.contexts, [None] * times

    async def and_then_changed(asks: Any) -> Any:
        found = await contexts(asks)
        for view in found[0].threads if left else ():
            left.pop()
            changed = replace(view.thread, version=view.thread.version + 1)
            assert await house.store.record([Plan(at=house.clock.now(), thread=changed)]) == [None]
        return found

    monkeypatch.setattr(house.store, "contexts", and_then_changed)
    await house.dispatch.turn("mss", house.sender)
    (row,) = await house.copies(purpose="letter")
    assert row["state"] == "sent"
    assert len([each for each in mails(house) if each.purpose == "letter"]) == 1
    started = (await contexts([Ask(threads=(str(row["thread"]),))]))[0].threads[0].thread.started_at
    assert (started is not None) is (times == 1)


@pytest.mark.parametrize("flaw", ["no plan", "a plan that cannot be kept"])
async def test_that_a_copy_left_is_entered_whatever_planning_makes_of_it(
    house: House, monkeypatch: pytest.MonkeyPatch, flaw: str
) -> None:
    def spoilt(*_: object) -> Plan:
        if flaw == "no plan":
            raise RuntimeError("nobody expected this")
        thread = replace(view.thread, id="nobody", version=7)
        return Plan(at=house.clock.now(), envelope="nobody", thread=thread)

    await house.take(letter())
    view = await _view(house)
    monkeypatch.setattr(planning, "plan_sent", spoilt)
    await house.dispatch.turn("mss", house.sender)
    (row,) = await house.copies(purpose="letter")
    assert row["state"] == "sent"


ROTA_RULES = RULES.replace(
    "  sorties: {", "  garde: { who: rota/garde, via: [mss], carries: pointer }\n  sorties: {"
).replace("send: [gp, gp_ping]", "send: [gp, gp_ping, garde]")


async def test_whoever_is_on_duty_gets_their_copy_at_their_own_mailbox(house: House) -> None:
    on_duty = Professional(
        DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),)
    )
    await house.store.import_professionals([on_duty], str.upper)
    house.site = replace(make_site(rules=ROTA_RULES), on_duty=lambda rota, at: DUPONT.rpps)
    await house.take(letter())
    await house.leave()
    assert any(each.address == DUPONT.mss_address for each in mails(house))


async def test_deciding_a_letter_again_never_takes_it_for_its_own_duplicate(house: House) -> None:
    await house.take(letter())
    before = await house.copies()
    (row,) = await house.store.envelopes()
    await house.intake.replay(str(row["id"]))
    (after,) = await house.store.envelopes()
    assert after["state"] == "decided"
    assert await house.copies() == before


async def test_a_stay_number_that_is_another_patients_is_held_and_joins_nobody(house: House) -> None:
    other = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11)
    on_list = Professional(
        DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),)
    )
    await house.store.import_professionals([on_list], str.upper)
    await house.take(letter(stay="S-77"))
    await house.take(letters.text_mail(gp=DUPONT, patient=other, stay="S-77", sender=SENDER))
    (held,) = await house.store.holds()
    assert held["why"] == "stay_of_another"
    await house.leave()
    assert not [each for each in mails(house) if each.address == DUPONT.mss_address]
    (thread,) = await house.store.threads()
    notes = [each for each in mails(house) if each.purpose == "hold_note"]
    assert notes
    assert all(each.reference != thread["reference"] for each in notes)
    # A person who looked may let it go: it then has a follow-up of its own.
    await house.intake.release(Correction(by="desk:sorties", hold=str(held["id"])))
    await house.leave()
    assert [each for each in mails(house) if each.address == DUPONT.mss_address]
    assert len(await house.store.threads()) == 2
    assert not any((await house.store.invariants()).values())


async def test_a_ward_whose_lines_were_not_enough_is_told_why_and_may_answer_again(house: House) -> None:
    await house.take(without_gp("S-5"))
    await house.leave()
    (note,) = [each for each in mails(house) if each.to == "ward:cardiologie"]

    def filled(to: Delivery, lines: str) -> bytes:
        assert isinstance(to.message, MailMessage)
        seen = message_from_bytes(to.message.content, policy=policy.default)
        return answer(seen, lines, sender=note.address)  # type: ignore[arg-type]

    await house.take(filled(note, "RPPS : 10999999999"), adapter="retours")
    await house.leave()
    assert len(await house.store.holds()) == 1
    again = [each for each in mails(house) if each.to == "ward:cardiologie"][-1]
    assert again.id != note.id
    assert isinstance(again.message, MailMessage)
    body = message_from_bytes(again.message.content, policy=policy.default).get_body().get_content()
    assert "n'a pas suffi" in body
    assert "RPPS :" in body
    await house.take(filled(again, f"RPPS : {MARTIN.rpps}"), adapter="retours")
    await house.leave()
    assert await house.store.holds() == []
    assert [each.address for each in mails(house) if each.purpose == "letter"] == [MARTIN.mss_address]


async def test_somebody_who_asks_for_their_letters_gets_the_open_references(house: House) -> None:
    await house.take(letter())
    (thread,) = await house.store.threads()
    await house.store.link([Link(MARTIN.rpps or "", "telegram", "9", "9")])
    (context,) = await house.store.contexts([Ask(account=("telegram", "9"))])
    assert [view.thread.reference for view in context.threads] == [thread["reference"]]
    (pressed,) = await house.store.contexts([Ask(account=("telegram", "8"))])
    assert pressed.threads == ()


async def test_a_package_and_a_mail_that_name_two_gps_are_nobodys_to_choose_from(house: House) -> None:
    lines = f"Médecin traitant : Dr Alix Dupont\nRPPS : {DUPONT.rpps}\n"
    on_list = Professional(
        DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),)
    )
    await house.store.import_professionals([on_list], str.upper)
    await house.take(letters.xdm_mail(gp=MARTIN, body=lines, sender=SENDER))
    await house.leave()
    assert not [each for each in mails(house) if each.purpose == "letter"]
    assert len(await house.store.holds()) == 1


@pytest.mark.parametrize("damage", ["cut", "another release", "no header at all"])
async def test_a_copy_whose_recipe_cannot_be_read_fails_by_itself_and_the_ward_is_told(
    house: House, damage: str
) -> None:
    await house.take(letter(), without_gp("26015502"))
    (copy,) = [row for row in await house.copies(adapter="mss") if row["purpose"] == "letter"]

    def spoil(work: Any) -> None:
        recipe = {
            "another release": b'{"sender": "relais", "shape": "of a release to come"}',
            "no header at all": '{"sender": "a@b.fr", "headers": [["é", "x"]], "text": "", "boundary": "x"}'.encode(),
        }
        content = b"\x00\x06a@b.fr" + recipe.get(damage, b"")
        sealed = work.vault.seal(content, day=work.day, aad=f"delivery:{copy['id']}")
        sealed = sealed[:40] if damage == "cut" else sealed
        work.run(tables.delivery.update().where(tables.delivery.c.id == copy["id"]).values(sealed=sealed))

    await house.store._write(spoil)
    await house.leave()
    (failed,) = await house.copies(purpose="letter")
    assert (failed["state"], failed["why"]) == ("failed", "unreadable")
    told = [each.to for each in mails(house)]
    assert {each.purpose.value for each in mails(house)} == {"hold_note", "ward_note"}
    assert told.count("ward:cardiologie") == 2, "of the stranger's letter, and of the copy that failed"


# ------------------------------------------------------------------------------------------------ stopping


async def test_periodic_work_under_way_has_ended_when_the_schedule_has(house: House) -> None:
    begun, tidied = asyncio.Event(), False

    async def work() -> None:
        nonlocal tidied
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5):
                await asyncio.sleep(0)
            tidied = True

    house.schedule.clock = SystemClock()
    house.schedule.every("work", work, second="*")
    going = asyncio.create_task(house.schedule.run())
    await asyncio.wait_for(begun.wait(), 10)
    going.cancel()
    await asyncio.wait({going})
    assert tidied


async def test_what_fell_due_while_the_machine_slept_is_done_when_it_wakes(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone = house.site.settings.zone
    due = datetime.now(zone).replace(microsecond=0) + timedelta(seconds=2)
    done = asyncio.Event()

    class Wall(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override] # no Wall
            now = datetime.now(tz)
            return now if now < due else now + timedelta(hours=9)

    async def work() -> None:
        done.set()

    monkeypatch.setattr(base_scheduler, "datetime", Wall)
    monkeypatch.setattr(base_executor, "datetime", Wall)
    house.schedule.every("work", work, hour=due.hour, minute=due.minute, second=due.second)
    going = asyncio.create_task(house.schedule.run())
    try:
        await asyncio.wait_for(done.wait(), 10)
    finally:
        going.cancel()
        await asyncio.wait({going})


async def test_a_daily_list_made_late_is_the_one_that_was_due(house: House) -> None:
    zone = house.site.settings.zone
    due = house.clock.now().astimezone(zone).replace(hour=18, minute=0, second=0, microsecond=0)
    house.clock.at = due + timedelta(minutes=30)
    await house.take(letter())
    house.schedule.settle_in()
    (make,) = [work for name, _, work in house.schedule._periodic if name == "daily_lists"]
    await make()
    assert not await house.copies(purpose="ward_note"), "what came after the hour is the next list's"
    house.clock.at = due + timedelta(days=1, hours=5)
    await make()
    assert len(await house.copies(purpose="ward_note")) == 1


async def test_what_stays_on_the_wire_longer_than_the_drain_is_cut_off(house: House) -> None:
    on_the_wire = asyncio.Event()

    class Dawdling:
        name, limits = "mss", house.sender.limits

        async def send_many(self, _: object) -> None:
            on_the_wire.set()
            await asyncio.Event().wait()

    house.dispatch.senders = {"mss": Dawdling()}
    await house.take(letter())
    before = asyncio.all_tasks()
    serving = asyncio.create_task(house.dispatch.run("mss"))
    await on_the_wire.wait()
    await house.dispatch.drain(0.01)
    left = asyncio.all_tasks() - before - {serving}
    serving.cancel()
    await asyncio.wait({serving})
    assert not left, left
    (copy,) = await house.copies(purpose="letter")
    assert copy["state"] == "in_flight"  # the next start finds out what became of it


async def test_an_inbox_is_let_go_of_even_when_it_has_more_to_give(house: House) -> None:
    told, goes_on = asyncio.Event(), asyncio.Event()

    class Box:
        account, closed = "box", False

        async def watch(self, _: str | None) -> AsyncIterator[Batch]:
            try:
                for ref in ("1", "2", "3"):
                    known = Envelope(envelope_id("box", ref), "box", "box", ref, house.clock.now(), letter())
                    yield Batch("box", (known,), ref)
            finally:
                await asyncio.sleep(0)  # its connection ends
                self.closed = True

        async def acknowledge(self, _: object) -> None:
            told.set()
            await goes_on.wait()

    box = Box()
    house.intake.inboxes = {"box": box}
    before = asyncio.all_tasks()
    watching = asyncio.create_task(house.intake.watch("box"))
    await told.wait()
    watching.cancel()
    goes_on.set()
    await asyncio.wait({watching})
    assert box.closed
    assert asyncio.all_tasks() == before


DOCTORS = [letters.doctor(f"Nom{letter}", "Jo", 20 + n) for n, letter in enumerate("abcdefg")]


async def crowd(house: House, sender: smtp.Smtp) -> AsyncIterator[str]:
    """Letters of as many patients as there are doctors, one after the other: each doctor's address."""
    house.dispatch = Dispatch(house.store, {"mss": sender}, lambda: house.site, house.clock)
    for n, doctor in enumerate(DOCTORS):
        name, rpps, address = doctor.family_name or "", doctor.rpps or "", doctor.mss_address or ""
        who = letters.patient(f"BOIS{name}".upper(), "Rémi", born=date(1951, 4, 2 + n), sex="M", order=20 + n)
        await house.store.import_professionals(
            [Professional(rpps, name, "Jo", mailboxes=(Mailbox(address),))], str.upper
        )
        await house.store.import_registrations(
            [
                Registration(
                    ins=who.ins or "", ins_oid="1.2.250.1.213.1.4.8", facility="450000088",
                    birth_name=who.birth_name or "", given_names=who.given_names, birth_date=who.birth_date,
                    sex="M", birth_place="45234", gp_rpps=(rpps,),
                )
            ],
            keys_of,
        )  # fmt: skip
        await house.take(letters.text_mail(patient=who, gp=doctor, stay=f"S-{n}", sender=SENDER))
        yield address


def submission(house: House, folder: Path, sink: Sink) -> smtp.Smtp:
    settings = smtp.Settings(host="127.0.0.1", port=sink.port, security="none")
    return smtp.connect("mss", settings, tools(folder, house.clock))


def doctors_of(sink: Sink) -> list[str]:
    return sorted(to for each in sink.taken for to in each.recipients if to.startswith("dr.nom"))


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelined", "step by step"])
async def test_a_recipient_whose_server_falls_silent_keeps_no_other_waiting(
    house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, extensions: tuple[str, ...]
) -> None:
    monkeypatch.setattr(dispatch, "PATIENCE", 0.2)
    silent = DOCTORS[2].mss_address or ""
    async with Sink(answers={f"RCPT:{silent}": SILENCE}, extensions=extensions).running() as sink:
        sender = submission(house, tmp_path, sink)
        arriving = crowd(house, sender)
        for _ in DOCTORS[:-1]:
            await anext(arriving)
        others = asyncio.create_task(house.dispatch.run("mss"))
        await sink.wait_for(lambda: len(doctors_of(sink)) == len(DOCTORS) - 2)
        # One that comes while the answer is still out leaves too, and what left is known to have left.
        await anext(arriving)
        await sink.wait_for(lambda: len(doctors_of(sink)) == len(DOCTORS) - 1)
        seen = house.store.calls
        while len(await house.copies(purpose="letter", state="sent")) < len(DOCTORS) - 1:
            await asyncio.wait_for(house.store.called(seen), 10)
            seen = house.store.calls
        (waiting,) = await house.copies(purpose="letter", state="in_flight")
        assert waiting["to"] == f"rpps:{DOCTORS[2].rpps}"
        await house.dispatch.drain(0)
        others.cancel()
        await asyncio.wait({others})
        await sender.close()
    assert not any((await house.store.invariants()).values())


@pytest.mark.parametrize("point", ["RCPT", "DOT"])
async def test_what_was_answered_is_known_though_the_relay_stops_while_another_answer_is_out(
    house: House, tmp_path: Path, point: str
) -> None:
    silent, unknown = DOCTORS[2].mss_address or "", DOCTORS[4].mss_address or ""
    answers = {f"RCPT:{unknown}": "550 5.1.1 unknown"}
    answers |= {f"RCPT:{silent}": SILENCE} if point == "RCPT" else {}
    once = {"DOT": SILENCE} if point == "DOT" else {}
    async with Sink(answers=answers, once=once, extensions=()).running() as sink:
        sender = submission(house, tmp_path, sink)
        _ = [address async for address in crowd(house, sender)]
        serving = asyncio.create_task(house.dispatch.run("mss"))
        await sink.wait_for(lambda: len(doctors_of(sink)) == len(DOCTORS) - 1 - (point == "RCPT"))
        await house.dispatch.drain(1)
        serving.cancel()
        await asyncio.wait({serving})
        await sender.close()
        states = [copy["state"] for copy in await house.copies(purpose="letter")]
        assert sorted(states) == ["failed", "in_flight", *["sent"] * (len(DOCTORS) - 2)]
        sink.answers.pop(f"RCPT:{silent}", None)
        sender = submission(house, tmp_path, sink)
        house.dispatch = Dispatch(house.store, {"mss": sender}, lambda: house.site, house.clock)
        await house.dispatch.recover()
        house.clock.turn(seconds=6)
        while await house.dispatch.turn("mss", sender) is None:
            pass
        await sender.close()
        # Only the one without an answer left again, and that is said.
        assert len(doctors_of(sink)) == len(DOCTORS) - (point == "RCPT")
        (again,) = await house.copies(purpose="letter", why="resent_after_crash")
        assert again["state"] == "sent"
    assert not any((await house.store.invariants()).values())
