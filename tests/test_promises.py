"""The three promises, attacked: letters that might get lost, recipients that might be wrong, answers that are none."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from email import message_from_bytes, policy
from typing import Any

import pytest

from adapters import memory, telegram
from relay import planning
from relay.dispatch import Dispatch
from relay.errors import Deferred, NotFound, Refused, Rejected, Stale, Unavailable
from relay.health import Health
from relay.model import (
    Ask,
    Batch,
    Context,
    Delivery,
    DeliveryState,
    Envelope,
    EnvelopeState,
    LadderStep,
    Link,
    Mailbox,
    MailMessage,
    Plan,
    Press,
    Professional,
    Purpose,
    ThreadState,
    ThreadView,
    Timer,
    Verb,
    Why,
    envelope_id,
)
from relay.planning import Correction
from rules import engine
from tests import letters
from tests import stores as rows
from tests.letters import DUPONT, MARTIN, ODETTE
from tests.site import ROOT
from tests.stores import empty_sqlite, place, store  # noqa: F401 - fixtures
from tests.test_loops import House, house, letter, mails, without_gp  # noqa: F401 - fixtures
from tests.test_planning import (  # noqa: F401 - fixtures
    AT,
    GP,
    LATER,
    LINKED,
    RULES,
    WARD,
    _secret,
    after,
    answer_to,
    arrive,
    headers,
    make_site,
    nonce,
    one,
    opened,
    replied,
    report,
    sent,
    text,
)
from tests.trials import tools

# -------------------------------------------------------------------------------------------- nothing is lost


async def state_of(house: House, number: int = 0) -> tuple[str, str | None]:
    rows = await house.store.envelopes()
    row = rows[number]
    return str(row["state"]), row["why"]  # type: ignore[return-value]


async def test_a_held_letter_decided_again_stays_held_and_is_no_duplicate_of_itself(house: House) -> None:
    await house.take(without_gp("S-1"))
    (row,) = await house.store.envelopes()
    await house.intake.replay(str(row["id"]))
    assert (await state_of(house))[0] == "held"
    assert len(await house.store.holds()) == 1


async def test_a_letter_decided_again_leaves_once_and_its_thread_stays_where_it_was(house: House) -> None:
    await house.take(letter())
    await house.leave()
    (before,) = await house.store.threads()
    (row,) = await house.store.envelopes()
    for _ in range(3):
        await house.intake.replay(str(row["id"]))
        await house.leave()
    assert (await state_of(house))[0] == "decided"
    assert await house.store.threads() == [before]
    assert len([each for each in mails(house) if each.purpose == "letter"]) == 1


@pytest.mark.parametrize("moment", ["99991231235959-1200", "00010101000000+1400", "99991231"])
async def test_a_date_at_the_end_of_time_stops_no_other_letter(house: House, moment: str) -> None:
    raw = letters.cda(patient=ODETTE, gp=MARTIN)
    stamp = f"{letters.DISCHARGED:%Y%m%d%H%M%S%z}".encode()
    assert stamp[:12] in raw
    raw = re.sub(rb'<high value="[^"]*"', b'<high value="%s"' % moment.encode(), raw)
    await house.take(
        letters.cda_mail(letter=raw, sender="sorties.cardio@chr-exemple.mssante.fr"), letter(stay="S-2")
    )
    states = [row["state"] for row in await house.store.envelopes()]
    assert len(states) == 2
    assert "open" not in states
    assert "decided" in states


@pytest.mark.parametrize(
    "name", [b"<caf\xe9\xff@x>", b"<a\x00b@x>", b"<\xed\xa0\x80@x>", b"<=?utf-8?q?=ED=A0=80?=@x>"]
)
async def test_no_byte_of_a_message_id_stops_the_store(house: House, name: bytes) -> None:
    raw = letter().replace(b"Message-ID: ", b"Message-ID: " + name + b"\r\nX-Old: ", 1)
    await house.take(raw, letter(stay="S-2"))
    assert "open" not in [row["state"] for row in await house.store.envelopes()]


async def test_what_nobody_can_read_is_told_to_its_ward(house: House) -> None:
    await house.take(b"\x00\x01\x02" * 50)
    assert (await state_of(house))[0] == "corrupt"
    await house.leave()
    assert [each for each in mails(house) if each.to == "ward:cardiologie"]


async def test_a_letter_of_which_the_head_alone_was_kept_is_never_released(house: House) -> None:
    await house.take(without_gp("S-1"))
    await house.take(letter(stay="S-2"))
    rows = await house.store.envelopes()
    assert rows
    cut = Envelope(
        envelope_id("box", "77"),
        "cardiologie",
        "box",
        "77",
        house.clock.now(),
        letter(stay="S-7"),
        flaw=Why.TOO_LARGE,
    )
    await house.intake.decide(await house.store.accept(Batch("box", (cut,), "77")))
    hold = next(each for each in await house.store.holds() if each["why"] == "too_large")
    with pytest.raises(Refused):
        await house.intake.release(Correction("desk:sorties", str(hold["id"])))


def document(number: str = "1", **more: Any) -> bytes:
    made = letters.cda(document_id=f"1.2.250.1.999.1.1.20261201.{number}", **more)
    return letters.cda_mail(letter=made, message_id=f"<{number}-{len(more)}@chr-exemple.mssante.fr>")


@pytest.mark.parametrize("how", ["recalled", "refused"])
def test_a_letter_that_comes_again_after_its_recall_or_refusal_is_a_persons_to_decide(how: str) -> None:
    site = make_site()
    arrival = arrive(site, document())
    plan = planning.plan_notice(site, arrival, LINKED, AT)
    view = sent(after(None, plan))
    if how == "recalled":
        view = sent(after(view, planning.plan_recall(site, view, "ward:cardiologie", "erreur", LATER)))
    else:
        view = sent(after(view, replied(site, view, one(plan, Purpose.LETTER), "ERREUR")))
    resent = letters.cda_mail(
        letter=letters.cda(document_id="1.2.250.1.999.1.1.20261201.1"),
        message_id="<again@chr-exemple.mssante.fr>",
    )
    again = arrive(site, resent, at=LATER)
    context = replace(
        LINKED,
        threads=(view,),
        stays=dict.fromkeys(again.stay.asked, view.thread.id) if again.stay else {},
        documents=dict.fromkeys(plan.document_keys, arrival.envelope.id),
    )
    made = planning.plan_notice(site, again, context, LATER)
    assert made.state is EnvelopeState.HELD
    assert not [d for d in made.deliveries if d.purpose is Purpose.LETTER]


def test_a_retraction_that_names_only_the_document_is_not_put_away_in_silence() -> None:
    site = make_site()
    arrival = arrive(site, document())
    plan = planning.plan_notice(site, arrival, LINKED, AT)
    notice = replace(
        arrival.notice, document="retraction", retracts=arrival.notice.document_id, document_id="1.2.250.1.999.9.9.9",
        set_id=None, stay=None,
    )  # fmt: skip
    back = replace(
        arrival,
        recognised=replace(arrival.recognised, notice=notice),
        envelope=replace(arrival.envelope, id="e" * 24),
        stay=None,
    )
    ask = planning.ask_of_notice(notice, None, Ask())
    documents = {key: plan.envelope or "" for key in plan.document_keys if key in ask.document_keys}
    made = planning.plan_notice(site, back, Context(documents=documents), LATER)
    assert made.state is EnvelopeState.HELD


# ------------------------------------------------------------------------------ nothing reaches the wrong person


def test_a_gp_who_refused_gets_nothing_more_of_that_stay() -> None:
    site = make_site()
    first, view = opened(site)
    view = sent(after(view, replied(site, view, one(first, Purpose.LETTER), "ERREUR")))
    more = arrive(
        site, letters.text_mail(gp=MARTIN, body=None, subject="Complément", message_id="<2@x>"), at=LATER
    )
    context = replace(LINKED, threads=(view,), stays=dict.fromkeys(more.stay.asked, view.thread.id))  # type: ignore[union-attr]
    plan = planning.plan_notice(site, more, context, LATER)
    assert (plan.state, plan.why) == (EnvelopeState.HELD, Why.GP_REFUSED)
    assert not [d for d in plan.deliveries if d.to == f"rpps:{MARTIN.rpps}"]
    # A person may still decide so.
    by_hand = replace(more, released=Correction("desk:sorties", "h", gp=MARTIN.rpps))
    sent_on = planning.plan_notice(site, by_hand, context, LATER, ends=("h",))
    assert [d for d in sent_on.deliveries if d.to == f"rpps:{MARTIN.rpps}" and d.purpose is Purpose.LETTER]


def test_a_wards_answer_no_longer_reaches_the_gp_who_refused_meanwhile() -> None:
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), "Quel traitement ?")
    question = one(asked, Purpose.QUESTION)
    view = sent(after(view, asked))
    view = sent(after(view, replied(site, view, one(first, Purpose.LETTER), "ERREUR")))
    plan = replied(site, view, question, "Bisoprolol 2,5 mg.", sender=WARD)
    assert not [d for d in plan.deliveries if d.to == f"rpps:{MARTIN.rpps}"]
    assert plan.state is EnvelopeState.HELD


def changed_gp(site: Any) -> tuple[Delivery, ThreadView]:
    """A letter that went to Dr Martin, recalled, then sent to Dr Dupont, who is the registered GP."""
    first, view = opened(site)
    view = sent(after(view, planning.plan_recall(site, view, "ward:cardiologie", "erreur", LATER)))
    raw = letters.text_mail(gp=DUPONT, message_id="<corrigee@x>")
    again = arrive(site, raw, at=LATER, gps=(MARTIN, DUPONT))
    found = again.resolution
    assert found is not None
    dupont = Professional(
        DUPONT.rpps or "",
        DUPONT.family_name or "",
        "Alix",
        "10",
        mailboxes=(Mailbox(DUPONT.mss_address or ""),),
    )
    again = replace(
        again,
        resolution=replace(found, gp="found", professional=dupont, mailbox=DUPONT.mss_address),
        facts={**again.facts, "gp": "found"},
    )
    again = replace(again, decision=engine.decide(site.rules, again.facts, LATER))
    context = replace(LINKED, threads=(view,), stays=dict.fromkeys(again.stay.asked, view.thread.id))  # type: ignore[union-attr]
    plan = planning.plan_notice(site, again, context, LATER)
    assert one(plan, Purpose.LETTER).to == f"rpps:{DUPONT.rpps}"
    return one(first, Purpose.LETTER), sent(after(view, plan))


def test_the_former_gp_acknowledges_nothing_for_the_new_one() -> None:
    site = make_site()
    old, view = changed_gp(site)
    plan = replied(site, view, old, "OK")
    now = after(view, plan).thread
    assert now.state is ThreadState.AWAITING_ACK
    assert now.acknowledged_by is None


def test_who_read_a_copy_and_becomes_the_gp_answers_as_the_gp() -> None:
    site = make_site()
    _, view = changed_gp(site)
    raw = letters.text_mail(gp=MARTIN, message_id="<encore@x>", subject="Rectificatif")
    again = arrive(site, raw, at=LATER)
    context = replace(LINKED, threads=(view,), stays=dict.fromkeys(again.stay.asked, view.thread.id))  # type: ignore[union-attr]
    plan = planning.plan_notice(site, again, context, LATER)
    view = sent(after(view, plan))
    assert (
        after(view, replied(site, view, one(plan, Purpose.LETTER), "OK")).thread.state
        is ThreadState.ACKNOWLEDGED
    )


def test_a_thread_of_another_facility_is_not_joined() -> None:
    site = make_site()
    _, view = opened(site)
    other = replace(view, thread=replace(view.thread, facility="750000018", ward="ailleurs"))
    again = arrive(site, letters.text_mail(gp=MARTIN, message_id="<2@x>"), at=LATER)
    context = replace(LINKED, threads=(other,), stays=dict.fromkeys(again.stay.asked, other.thread.id))  # type: ignore[union-attr]
    plan = planning.plan_notice(site, again, context, LATER)
    assert plan.thread is not None
    assert plan.thread.id != other.thread.id
    assert plan.thread.stay == ""


HOLDING = RULES.replace(
    "rules:\n",
    "rules:\n"
    "  - id: relecture\n"
    "    when: { ward: cardiologie, urgency: urgent }\n"
    "    hold: sorties\n"
    '    reason: "À relire par le DIM"\n',
)


async def hold_note_of(house: House) -> Delivery:
    await house.leave()
    return next(
        each for each in mails(house) if each.purpose == "hold_note" and each.to == "ward:cardiologie"
    )


async def answered(house: House, note: Delivery, words: str) -> None:
    raw = letters.reply(
        words, to_message_id=headers(note)["Message-ID"], to=headers(note)["Reply-To"].strip("<>"),
        sender="sorties.cardio@chr-exemple.mssante.fr", subject="RE: Lettre retenue",
    )  # fmt: skip
    await house.take(raw, adapter="retours")


async def test_lines_filled_in_by_a_ward_do_not_lift_a_rule_that_holds_for_another_reason(
    house: House,
) -> None:
    house.site = make_site(rules=HOLDING)
    await house.take(
        letter(body=letters.labelled_lines(ODETTE, MARTIN) + "Urgence : urgent\n\nCher confrère,\n")
    )
    (hold,) = await house.store.holds()
    assert hold["rule"] == "relecture"
    await answered(house, await hold_note_of(house), f"RPPS : {MARTIN.rpps}")
    await house.leave()
    assert not [each for each in mails(house) if each.purpose == "letter"]
    # A desk may.
    await house.intake.release(Correction("desk:sorties", str(hold["id"])))
    await house.leave()
    assert [each for each in mails(house) if each.purpose == "letter"]


async def test_a_number_that_belongs_to_another_doctor_than_the_name_beside_it_sends_nothing(
    house: House,
) -> None:
    await house.store.import_professionals(
        [Professional(DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),))],
        str.upper,
    )
    await house.take(without_gp("S-1"))
    note = await hold_note_of(house)
    await answered(
        house, note, f"Médecin traitant : Dr Camille Martin\nRPPS du médecin traitant : {DUPONT.rpps}"
    )
    await house.leave()
    assert not [each for each in mails(house) if each.purpose == "letter"]
    assert len(await house.store.holds()) == 1  # the letter; the ward is told why, and may answer again
    await answered(
        house, note, f"Bonjour,\nMédecin traitant : Dr Alix Dupont\nRPPS du médecin traitant : {DUPONT.rpps}"
    )


async def test_a_wards_letter_that_its_operator_calls_forged_is_held(house: House) -> None:
    forged = {"Authentication-Results": "operateur.mssante.fr; spf=fail; dkim=fail"}
    await house.take(letter(headers=forged))
    (hold,) = await house.store.holds()
    assert hold["why"] == "authentication_failed"


# ------------------------------------------------------------------------------- answers that are none, forged ones


SEEN = RULES.replace("await: ack", "await: seen")


def test_a_read_receipt_of_somebody_else_closes_nothing() -> None:
    site = make_site(rules=SEEN)
    first, view = opened(site)
    message_id = one(first, Purpose.LETTER).message_id or ""
    plan = report(
        site,
        view,
        letters.mdn(original_message_id=message_id, recipient="secretariat@chr-exemple.mssante.fr"),
    )
    assert after(view, plan).thread.state is ThreadState.AWAITING_ACK
    assert not [n for n in plan.news if n.state is DeliveryState.SEEN]
    assert plan.state is EnvelopeState.DECIDED


def test_a_read_receipt_that_the_operator_calls_forged_closes_nothing() -> None:
    site = make_site(rules=SEEN)
    first, view = opened(site)
    raw = letters.mdn(original_message_id=one(first, Purpose.LETTER).message_id or "")
    forged = b"Authentication-Results: operateur.mssante.fr; spf=fail\r\n" + raw
    assert after(view, report(site, view, forged)).thread.state is ThreadState.AWAITING_ACK
    assert after(view, report(site, view, raw)).thread.state is ThreadState.CLOSED


def test_a_failure_without_proof_is_told_to_people_all_the_same() -> None:
    site = make_site()
    first, view = opened(site)
    mail = one(first, Purpose.LETTER)
    plan = report(
        site,
        view,
        letters.dsn(original_message_id="<lost@x>", envid=mail.id, action="failed", status="5.1.1"),
    )
    assert after(view, plan).thread.state is ThreadState.WITH_DESK


def test_a_secretary_of_two_doctors_presses_for_either() -> None:
    site = make_site()
    first, view = opened(site)
    ping = one(first, Purpose.ALERT)
    other = Link(DUPONT.rpps or "", "telegram", "9001", "9001", role="secrétariat")
    own = replace(view.links[0], role="secrétariat")
    press = Press("telegram", "9001", "9001", "1", nonce(ping, Verb.ACK), "cb")
    grant = next(g for g in first.grants if g.nonce == press.nonce)
    context = Context(threads=(replace(view, links=(own,)),), grant=grant, links=(other, own))
    plan, _ = planning.plan_press(site, arrive(site, letter()).envelope, press, context, LATER)
    assert plan.why is Why.PRESS


def test_a_copy_that_may_arrive_twice_is_not_sent_again_once_recalled() -> None:
    site = make_site()
    first, view = opened(site)
    view = replace(
        view,
        deliveries=tuple(
            replace(d, state=DeliveryState.AMBIGUOUS) if d.purpose is Purpose.LETTER else d
            for d in view.deliveries
        ),
    )
    plan = planning.plan_recall(site, view, "ward:cardiologie", "erreur", LATER)
    assert [(n.delivery, n.state) for n in plan.news] == [
        (one(first, Purpose.LETTER).id, DeliveryState.CANCELLED)
    ]
    assert one(plan, Purpose.RECALL).address == GP


def test_a_reminder_that_the_chat_refused_goes_by_mail() -> None:
    site = make_site()
    _, view = opened(site)
    timer = next(t for t in view.timers if t.kind == "step" and t.level == 0)
    view = sent(after(view, planning.plan_timer(site, timer, view, timer.due)))
    ping = next(d for d in view.deliveries if d.purpose is Purpose.REMINDER)
    plan = planning.plan_failed(site, view, ping, Why.BLOCKED, timer.due)
    assert plan is not None
    assert one(plan, Purpose.REMINDER).address == GP


COPYING = RULES.replace(
    "default:", "also:\n  - id: garde\n    when: { event: discharge }\n    copy: sub_ping\ndefault:"
).replace(
    "  sorties:", "  sub_ping: { who: letter_recipients, via: [telegram], carries: pointer }\n  sorties:"
)


def test_whoever_is_only_told_of_a_copy_by_chat_cannot_acknowledge_for_the_gp() -> None:
    site = make_site(rules=COPYING)
    arrival = arrive(site, letters.cda_mail(letter=letters.cda(recipients=(MARTIN, DUPONT))))
    links = (*LINKED.links, Link(DUPONT.rpps or "", "telegram", "77", "77"))
    plan = planning.plan_notice(site, arrival, replace(LINKED, links=links), AT)
    theirs = [d for d in plan.deliveries if d.to == f"rpps:{DUPONT.rpps}" and d.address == "77"]
    assert theirs
    view = sent(after(None, plan))
    view = replace(view, links=links)
    grants = [g for g in plan.grants if g.person == f"rpps:{DUPONT.rpps}" and g.verb is Verb.ACK]
    for grant in grants:
        press = Press("telegram", "77", "77", "1", grant.nonce, "cb")
        made, _ = planning.plan_press(
            site, arrival.envelope, press, Context(threads=(view,), grant=grant, links=links), LATER
        )
        assert made.thread is None


def test_a_machine_that_sends_our_document_back_is_no_person() -> None:
    site = make_site()
    first, _ = opened(site)
    mail = one(first, Purpose.LETTER)
    raw = letters.mail(
        "OK\n", sender=GP, to=headers(mail)["Reply-To"].strip("<>"), subject="RE: Lettre de liaison",
        attachments=(("lettre.xml", letters.cda(), "text/xml"),),
        headers={"In-Reply-To": headers(mail)["Message-ID"], "Precedence": "bulk"},
    )  # fmt: skip
    arrival = arrive(site, raw, at=LATER, adapter="retours")
    assert arrival.recognised.outcome.value != "reply"


def test_closing_a_refused_thread_still_asks_the_gp_to_delete_and_tells_the_ward() -> None:
    site = make_site()
    first, view = opened(site)
    view = after(
        view, replied(site, view, one(first, Purpose.LETTER), "ERREUR")
    )  # nothing of it has left yet
    closed = after(view, planning.plan_verb(site, view, Verb.CLOSE, "desk:sorties", "handled", LATER))
    waiting = {d.purpose for d in closed.deliveries if d.state is DeliveryState.QUEUED}
    assert {Purpose.RECALL, Purpose.WARD_NOTE} <= waiting


# --------------------------------------------------------------------------- what waits is never waited for in vain


async def test_a_copy_paused_between_claim_and_wire_leaves_once_the_pause_ends(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    claim = house.store.claim

    async def claim_and_pause(*wanted: Any) -> tuple[Delivery, ...]:
        claimed = await claim(*wanted)
        await house.store.pause()
        return claimed

    await house.take(letter())
    with monkeypatch.context() as patched:
        patched.setattr(house.store, "claim", claim_and_pause)
        await house.dispatch.turn("mss", house.sender)
    assert not mails(house)
    await house.store.resume()
    await house.leave()
    assert len([each for each in mails(house) if each.purpose == "letter"]) == 1


async def test_what_a_dead_node_had_claimed_is_taken_over_without_a_restart(house: House) -> None:
    await house.take(letter())
    async with house.place.opened("n2") as other:
        assert await other.claim(["mss"], 10, 900)
    await house.leave()
    assert not mails(house)
    house.clock.turn(minutes=16)
    await house.dispatch.reclaim()
    await house.leave()
    assert len([each for each in mails(house) if each.purpose == "letter"]) == 1


async def test_a_defect_in_a_sender_ends_with_people_and_not_with_the_relay(house: House) -> None:
    await house.take(letter())

    class Broken:
        name, kind, limits = "mss", "memory", house.sender.limits

        async def send_many(self, deliveries: Any) -> Any:
            raise RuntimeError("nobody expected this")

    for _ in range(2):
        await house.dispatch.turn("mss", Broken())  # type: ignore[arg-type]
        house.clock.turn(seconds=6)
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("failed", "lost_after_send")
    await house.leave()
    assert any(each.to == "ward:cardiologie" for each in mails(house))


async def test_a_timer_that_cannot_be_answered_neither_stops_the_others_nor_spins(house: House) -> None:
    await house.take(letter())
    await house.leave()
    await house.store.accept(rows.batch(1))
    broken = rows.thread(1)
    assert broken.followup is not None
    pinned = replace(
        broken.followup,
        ladder=(LadderStep("1h", "real", remind="gp"),),
        targets={"gp": {"who": "registered_gp", "via": ["telegram"], "quiet": "nuit"}},
        hours={"nuit": {"week": "no week"}},
    )
    (problem,) = await house.store.record(
        [
            rows.letter(
                1,
                thread=replace(broken, followup=pinned),
                timers=(Timer(broken.id, "step", 0, 0, rows.NOON),),
            )
        ]
    )
    assert problem is None
    house.clock.turn(hours=1)
    assert await house.schedule.turn()
    assert not await house.schedule.turn()
    before = house.clock.now()
    await house.schedule.rest(house.store.calls)
    assert house.clock.now() > before


async def test_a_sender_that_cannot_be_reached_is_told_of_and_so_is_its_return(house: House) -> None:
    health = Health(house.store, lambda: house.site, house.clock, ["mss"])
    house.dispatch = Dispatch(
        house.store, {"mss": house.sender}, lambda: house.site, house.clock, health.heard
    )
    await health.up("mss")
    await house.take(letter())
    for _ in range(6):
        for _ in range(3):
            house.sender.fail(Deferred(Why.CONNECTION))
        assert await house.dispatch.turn("mss", house.sender)
        house.sender.faults.clear()
        await health.look()
        house.clock.turn(minutes=6)
    assert (await house.store.status())["adapters"]["mss"]["state"] == "down"
    assert len(await house.copies(purpose="admin")) == 1
    await house.leave()
    assert (await house.store.status())["adapters"]["mss"]["state"] == "up"
    house.clock.turn(minutes=3)
    await health.look()
    assert len(await house.copies(purpose="admin")) == 2


async def test_an_adapter_that_comes_and_goes_is_told_of_once(house: House) -> None:
    health = Health(house.store, lambda: house.site, house.clock, ["cardiologie"])
    for _ in range(50):
        await health.up("cardiologie")
        house.clock.turn(seconds=1)
        await health.down("cardiologie", Deferred(Why.BUSY))
        house.clock.turn(seconds=20)
        await health.look()
    assert len(await house.copies(purpose="admin")) == 1


async def test_copies_for_an_adapter_that_is_configured_no_more_are_found(house: House) -> None:
    await house.take(letter())
    dispatch = Dispatch(house.store, {"autre": house.sender}, lambda: house.site, house.clock)
    assert await dispatch.unserved() == ["mss"]


async def test_what_was_accepted_is_decided_though_the_connection_breaks_before_it_is_acknowledged(
    house: House, tmp_path: Any
) -> None:
    inbox = memory.connect("cardiologie", memory.Settings(), tools(tmp_path, house.clock))
    house.intake.inboxes = {"cardiologie": inbox}
    inbox.arrive(letter())
    acknowledge = inbox.acknowledge

    async def breaking(envelopes: Any) -> None:
        raise Deferred(Why.CONNECTION)

    inbox.acknowledge = breaking  # type: ignore[method-assign]
    with pytest.raises(Deferred):
        await house.intake.watch("cardiologie")
    assert (await state_of(house))[0] == "decided"
    inbox.acknowledge = acknowledge  # type: ignore[method-assign]


async def test_a_mailbox_that_lets_nothing_be_moved_gives_its_letters_all_the_same(
    house: House, tmp_path: Any
) -> None:
    inbox = memory.connect("cardiologie", memory.Settings(batch=1), tools(tmp_path, house.clock))
    house.intake.inboxes = {"cardiologie": inbox}
    for number in range(3):
        inbox.arrive(letter(stay=f"S-2026-00000{number}", message_id=f"<{number}@chr-exemple.mssante.fr>"))

    async def refusing(envelopes: Any) -> None:
        raise Deferred(Why.SERVER_ERROR)

    inbox.acknowledge = refusing  # type: ignore[method-assign]
    with pytest.raises(Deferred):
        await house.intake.watch("cardiologie")
    assert [each["state"] for each in await house.store.envelopes()] == ["decided"] * 3


async def test_letters_not_decided_end_the_relay_though_its_mailbox_broke_as_well(
    house: House, tmp_path: Any
) -> None:
    inbox = memory.connect("cardiologie", memory.Settings(), tools(tmp_path, house.clock))
    house.intake.inboxes = {"cardiologie": inbox}
    inbox.arrive(letter())

    async def breaking(envelopes: Any) -> None:
        raise Deferred(Why.CONNECTION)

    def failing() -> Any:
        raise RuntimeError("nobody expected this")

    inbox.acknowledge = breaking  # type: ignore[method-assign]
    house.intake.site = failing
    with pytest.raises(Unavailable):  # else the letter would lie undecided for as long as the relay runs
        await house.intake.watch("cardiologie")


async def test_a_letter_recalled_while_on_the_wire_is_not_tried_again(house: House) -> None:
    await house.take(letter())
    (thread,) = await house.store.threads()

    class Recalled:
        name, kind, limits = "mss", "memory", house.sender.limits

        async def send_many(self, deliveries: Any) -> Any:
            view = await house.store.view(str(thread["id"]))
            plan = planning.plan_recall(house.site, view, "ward:cardiologie", "erreur", house.clock.now())
            assert await house.store.record([plan]) == [None]
            return [Deferred(Why.BUSY) for _ in deliveries]

    await house.dispatch.turn("mss", Recalled())  # type: ignore[arg-type]
    house.clock.turn(hours=1)
    await house.leave()
    assert not [each for each in mails(house) if each.purpose == "letter"]
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("cancelled", "recalled")


async def test_what_was_released_is_not_rejected_and_what_was_rejected_is_not_released(house: House) -> None:
    await house.take(without_gp("S-1"), without_gp("S-2"))
    first, second = [await house.store.hold(str(row["id"])) for row in await house.store.holds()]
    released = Correction("desk:sorties", first.id, gp=MARTIN.rpps, fields={})
    late = planning.plan_reject(house.site, first, "desk:sorties", "non", house.clock.now())
    await house.intake.release(released)
    (problem,) = await house.store.record([late])
    assert isinstance(problem, Stale)
    early = planning.plan_reject(house.site, second, "desk:sorties", "non", house.clock.now())
    assert await house.store.record([early]) == [None]
    with pytest.raises(NotFound):
        await house.intake.release(Correction("desk:sorties", second.id, gp=MARTIN.rpps))
    states = {str(row["id"]): row["state"] for row in await house.store.envelopes()}
    assert states == {first.envelope: "decided", second.envelope: "ignored"}


def test_not_my_patient_is_heard_however_late() -> None:
    site = make_site(rules=SEEN)
    first, view = opened(site)
    mail = one(first, Purpose.LETTER)
    view = after(view, report(site, view, letters.mdn(original_message_id=mail.message_id or "")))
    assert view.thread.state is ThreadState.CLOSED
    late = AT + timedelta(days=60)
    made = planning.plan_reply(
        site, answer_to(site, mail, "ERREUR", sender=GP), Context(threads=(view,)), late
    )
    assert isinstance(made, Plan)
    assert (made.state, made.why) == (EnvelopeState.HELD, Why.GP_REFUSED)


async def test_a_ward_whose_mailbox_is_gone_is_the_admins_business(house: House) -> None:
    await house.take(without_gp("S-1"))
    for _ in range(2):
        house.sender.fail(Rejected(Why.UNKNOWN_MAILBOX))
    await house.leave()
    assert {row["state"] for row in await house.copies(purpose="hold_note")} == {"failed"}
    assert len(await house.copies(purpose="admin")) == 2


READING = RULES.replace("send: [gp, gp_ping]", "send: [gp, gp_ping, lus]").replace(
    "  sorties:",
    "  lus: { who: letter_recipients, via: [mss], carries: document, basis: care_team }\n  sorties:",
)


def test_a_recipient_whose_number_is_somebody_elses_gets_no_letter() -> None:
    site = make_site(rules=READING)
    slip = replace(letters.DURAND, rpps=DUPONT.rpps)  # Dr Durand's name beside Dr Dupont's number
    people = {
        DUPONT.rpps or "": Professional(
            DUPONT.rpps or "", "Dupont", "Alix", "10", mailboxes=(Mailbox(DUPONT.mss_address or ""),)
        )
    }
    raw = letters.cda_mail(letter=letters.cda(recipients=(MARTIN, DUPONT)))
    right = planning.plan_notice(site, replace(arrive(site, raw), people=people), LINKED, AT)
    assert [d for d in right.deliveries if d.address == DUPONT.mss_address]
    raw = letters.cda_mail(letter=letters.cda(recipients=(MARTIN, slip)))
    wrong = planning.plan_notice(site, replace(arrive(site, raw), people=people), LINKED, AT)
    assert wrong.state is EnvelopeState.HELD
    assert not [d for d in wrong.deliveries if d.address == DUPONT.mss_address]


FALLING = """
import threading
from relay import log
log.set_up()
class Falling:
    def __del__(self):
        raise ValueError("Odette " + "VALBRUNE")
def work():
    raise ValueError("Odette " + "VALBRUNE")
Falling()
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


def test_what_a_thread_or_a_destructor_raises_is_logged_without_its_words() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FALLING], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.count("ValueError") == 2
    assert "VALBRUNE" not in done.stderr


def test_a_word_after_a_command_is_no_command() -> None:
    assert telegram._COMMAND.fullmatch("/lettres DurandOdette1948") is None
    assert telegram._COMMAND.fullmatch("/start AbCd-1234_xyz") is not None


async def test_a_letter_of_a_mailbox_that_is_configured_no_more_is_a_persons_to_decide(house: House) -> None:
    await house.take(letter(), adapter="ancienne")
    (hold,) = await house.store.holds()
    assert hold["why"] == "unlisted_sender"


def test_a_bounce_that_names_no_message_is_known_by_the_address_it_comes_back_to() -> None:
    site = make_site()
    first, view = opened(site)
    to = headers(one(first, Purpose.LETTER))["Reply-To"].strip("<>")
    bare = letters.dsn(original_message_id="<stripped@x>", action="failed", status="5.1.1", to=to)
    plan = report(site, view, bare)
    assert after(view, plan).thread.state is ThreadState.WITH_DESK
    assert one(plan, Purpose.HOLD_NOTE, "ward:cardiologie")
    stranger = report(
        site, view, letters.dsn(original_message_id="<stripped@x>", action="failed", status="5.1.1")
    )
    assert stranger.why is Why.NO_SUCH_DELIVERY


async def test_a_held_letter_taken_back_leaves_everything_accounted_for(house: House) -> None:
    await house.take(without_gp("S-1"))
    await answered(house, await hold_note_of(house), "ANNULER")
    assert not await house.store.holds()
    assert [
        state for state in await house.store.invariants() if (await house.store.invariants())[state]
    ] == []
    await house.leave()
    assert not [each for each in mails(house) if each.purpose == "letter"]


async def test_everything_at_once_keeps_every_promise(house: House) -> None:
    """A day of one ward: every kind of answer, in one life, with every invariant looked at after each."""

    async def kept() -> None:
        found = await house.store.invariants()
        assert not any(found.values()), found

    await house.take(
        letter(),
        without_gp("S-1"),
        b"\x00garbage",
        letters.mail("Bonjour", sender="x@ailleurs.fr", to="y@z.fr"),
    )
    await kept()
    await house.leave()
    await kept()
    mail = next(each for each in mails(house) if each.purpose == "letter")
    to = headers(mail)["Reply-To"].strip("<>")
    message_id = headers(mail)["Message-ID"]
    for number, words in enumerate(
        ("Quel traitement ?", "OK", "RAPPEL", "ERREUR", "OK", "Encore une question")
    ):
        raw = letters.reply(words, to_message_id=message_id, to=to, headers={"X-Number": str(number)})
        await house.take(raw, adapter="retours")
        await kept()
        await house.leave()
        await kept()
    for action in ("delayed", "delivered", "failed"):
        await house.take(
            letters.dsn(original_message_id=message_id, envid=mail.id, action=action, to=to),
            adapter="retours",
        )
        await kept()
    await house.take(letters.mdn(original_message_id=message_id), adapter="retours")
    await house.take(letters.automatic(to_message_id=message_id), adapter="retours")
    await kept()
    for _ in range(40):
        house.clock.turn(hours=7)
        while await house.schedule.turn():
            pass
        await house.leave()
        await kept()
    await house.take(letter(message_id="<autre@chr-exemple.mssante.fr>"))
    await kept()
    status = await house.store.status()
    assert status["open"] == 0
    assert status["balance"] == 0


def test_a_letter_withdrawn_while_it_was_held_is_not_called_released() -> None:
    site = make_site()
    arrival = arrive(site, document())
    (own, *_) = planning.plan_notice(site, arrival, LINKED, AT).document_keys
    held = planning.plan_hold(site, arrival, LINKED, Why.UNCLEAR, AT)
    assert held.hold is not None
    released = replace(arrival, released=Correction("desk:sorties", held.hold.id, gp=MARTIN.rpps))
    with pytest.raises(Refused, match="withdrew"):
        planning.plan_release(
            site, released, replace(LINKED, documents={f"void-{own}": "another"}), held.hold, LATER
        )


def test_an_alert_that_comes_back_untaken_is_not_shown_once_somebody_took_the_letter() -> None:
    site = make_site()
    first, view = opened(site)
    ping, mail = one(first, Purpose.ALERT), one(first, Purpose.LETTER)
    assert planning.no_longer(view, ping) is None
    taken = after(view, replied(site, view, mail, "OK"))
    assert planning.no_longer(taken, ping) is Why.ANSWERED
    assert planning.no_longer(taken, mail) is None


async def test_a_ward_whose_mailbox_is_only_observed_gets_no_daily_list(house: House) -> None:
    tables = {
        name: replace(table, mode="observe") if table.ward else table
        for name, table in house.site.settings.adapters.items()
    }
    house.site = replace(house.site, settings=replace(house.site.settings, adapters=tables))
    await house.take(without_gp("S-1"))
    await house.schedule.daily_lists()
    await house.leave()
    assert not mails(house)


async def test_the_list_that_fell_due_while_the_relay_stood_still_is_made_once_when_it_starts_again(
    house: House,
) -> None:
    await house.take(letter())
    await house.leave()
    zone = house.site.settings.zone
    due = house.clock.now().astimezone(zone).replace(hour=18, minute=0, second=0, microsecond=0)
    house.clock.turn(seconds=(due - house.clock.now()).total_seconds() + 3600)
    await house.take(without_gp("S-2"))  # what came after the hour is the next list's
    house.clock.turn(hours=12)
    for _ in range(2):
        running = asyncio.create_task(house.schedule.run())
        while not await house.copies(purpose="ward_note"):
            assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await house.schedule.missed_lists()
    await house.leave()
    told = [each.message for each in mails(house) if each.purpose == "ward_note"]
    notes = [
        message_from_bytes(each.content, policy=policy.default)
        for each in told
        if isinstance(each, MailMessage)
    ]
    (made,) = [each for each in notes if each["Subject"] == house.site.words.daily([], due.date()).subject]
    assert len([line for line in made.get_body().get_content().splitlines() if "Réf." in line]) == 1


async def test_a_stay_that_another_facility_has_gives_a_follow_up_of_its_own(house: House) -> None:
    await house.take(letter())
    (row,) = await house.store.threads()
    view = await house.store.view(str(row["id"]))
    moved = replace(view.thread, facility="750000018", ward="ailleurs", version=view.thread.version + 1)
    assert await house.store.record([Plan(at=house.clock.now(), thread=moved)]) == [None]
    await house.take(letter(message_id="<encore@chr-exemple.mssante.fr>", subject="Rectificatif"))
    assert [each["state"] for each in await house.store.envelopes()] == ["decided", "decided"]
    assert len(await house.store.threads()) == 2
    assert not any((await house.store.invariants()).values())


async def test_a_defect_while_deciding_ends_the_relay_so_that_its_next_start_decides(
    house: House, tmp_path: Any
) -> None:
    inbox = memory.connect("cardiologie", memory.Settings(), tools(tmp_path, house.clock))
    house.intake.inboxes = {"cardiologie": inbox}
    inbox.arrive(letter())
    site = house.site

    def failing() -> Any:
        raise RuntimeError("nobody expected this")

    house.intake.site = failing
    with pytest.raises(Unavailable):
        await house.intake.watch("cardiologie")
    assert (await state_of(house))[0] == "open"
    house.intake.site = lambda: site
    await house.intake.catch_up()
    assert (await state_of(house))[0] == "decided"
