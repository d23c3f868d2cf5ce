"""A letter that was decided and did not arrive: the ward is told with lines to fill in, and they send it elsewhere."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from adapters import memory
from relay import operations, planning
from relay.dispatch import Dispatch
from relay.errors import NotFound, Refused, Rejected, Stale, Uncertain
from relay.identity import keys_of
from relay.model import (
    Ask,
    Attempt,
    ChatKind,
    ChatMessage,
    ChatRecipe,
    Delivery,
    DeliveryState,
    Hold,
    Link,
    Mailbox,
    Plan,
    Press,
    Professional,
    Purpose,
    Registration,
    ThreadState,
    ThreadView,
    Why,
    lost_id,
)
from relay.planning import Correction
from relay.store import Store
from tests import letters
from tests import stores as rows
from tests.conftest import RELAY, WARD
from tests.letters import DUPONT, DURAND, MARTIN, ODETTE
from tests.servers.dovecot import Dovecot
from tests.servers.postfix import BOUNCING_ADDRESS
from tests.servers.postgres import Postgres
from tests.servers.telegram import Telegram
from tests.site import Site, answer, body, documents, parsed, reference
from tests.stores import Place, empty_sqlite, place, store  # noqa: F401 - fixtures
from tests.test_loops import SENDER, House, house, letter, mails  # noqa: F401 - fixtures
from tests.test_planning import (  # noqa: F401 - fixtures
    RULES,
    _secret,
    headers,
    make_site,
    text,
)
from tests.trials import tools

WARD_PEOPLE = "sorties@chr-exemple.mssante.fr"
WARD_LINES = f"Médecin traitant : Dr Alix Dupont\nRPPS : {DUPONT.rpps}"


def directory(*people: Any) -> list[Professional]:
    return [
        Professional(
            each.rpps or "",
            each.family_name or "",
            each.given_name or "",
            mailboxes=(Mailbox(each.mss_address or ""),),
        )
        for each in people
    ]


def registration(person: Any) -> Registration:
    return Registration(
        ins=person.ins, ins_oid="1.2.250.1.213.1.4.8", facility="450000088", birth_name=person.birth_name,
        given_names=person.given_names, birth_date=person.birth_date, sex=person.sex,
        gp_rpps=(DUPONT.rpps or "",),
    )  # fmt: skip


@pytest.fixture
async def clinic(house: House) -> House:
    """The house, with other doctors than Odette's in its directory."""
    await house.store.import_professionals(directory(DUPONT, DURAND), str.upper)
    return house


async def fail(house: House, why: Why = Why.UNKNOWN_MAILBOX, **more: Any) -> Delivery:
    """A letter that its doctor's server refuses; answers the ward's note."""
    await house.take(letter(**more))
    house.sender.fail(Rejected(why))
    await house.leave()
    return note_of(house)


def note_of(house: House) -> Delivery:
    return next(each for each in reversed(mails(house)) if each.to == "ward:cardiologie")


async def answered(house: House, note: Delivery, words: str, *, sender: str = SENDER) -> None:
    raw = letters.reply(
        words, to_message_id=headers(note)["Message-ID"], to=headers(note)["Reply-To"].strip("<>"),
        sender=sender, subject="RE: Lettre non remise",
    )  # fmt: skip
    await house.take(raw, adapter="retours")
    await house.leave()


async def view_of(house: House) -> ThreadView:
    (row,) = await house.store.threads()
    return await house.store.view(str(row["id"]))


async def sound(house: House) -> None:
    """Nothing is lost and every promise holds."""
    status = await house.store.status()
    assert status["balance"] == 0
    assert status["open"] == 0
    assert status["held"] == len(await house.store.holds())
    assert not any((await house.store.invariants()).values())


def letters_to(house: House, person: Any) -> list[Delivery]:
    return [each for each in mails(house) if each.purpose == "letter" and each.to == f"rpps:{person.rpps}"]


async def test_the_ward_of_a_letter_that_did_not_arrive_gets_lines_to_fill_in(clinic: House) -> None:
    note = await fail(clinic)
    for line in ("Médecin traitant :", "RPPS :", "Né(e) le :", "Réf. "):
        assert line in text(note)
    (hold,) = await clinic.store.holds()
    assert (hold["why"], hold["desk"]) == ("unknown_mailbox", "sorties")
    assert (await clinic.store.threads())[0]["state"] == "with_desk"
    await sound(clinic)


async def test_the_lines_are_asked_for_in_english_too() -> None:
    words = replace(make_site().words, language="en")
    assert "GP:" in words.failed("7F3Q-0000", "Dr Martin", Why.GAVE_UP, fields=True).text.replace(" :", ":")
    assert "another GP" in words.failed("7F3Q-0000", "Dr Martin", Why.GAVE_UP, fields=True).text


async def test_the_wards_lines_send_the_same_letter_to_the_doctor_they_name(clinic: House) -> None:
    note = await fail(clinic)
    before = (await view_of(clinic)).thread
    await answered(clinic, note, WARD_LINES)
    (sent,) = letters_to(clinic, DUPONT)
    assert sent.address == DUPONT.mss_address
    assert not letters_to(clinic, MARTIN)
    assert await clinic.store.holds() == []
    view = await view_of(clinic)
    assert (view.thread.id, view.thread.reference) == (before.id, before.reference)
    assert (view.thread.gp, view.thread.state.value) == (f"rpps:{DUPONT.rpps}", "awaiting_ack")
    assert view.timers
    former = next(part for part in view.thread.participants if part.key == f"rpps:{MARTIN.rpps}")
    assert former.revoked
    assert before.reference in text(sent)
    await sound(clinic)
    # What the former doctor writes now is a stranger's, and the new one's word counts.
    await answered(clinic, sent, "OK", sender=DUPONT.mss_address or "")
    assert (await view_of(clinic)).thread.owner == f"rpps:{DUPONT.rpps}"


async def test_another_address_of_the_same_doctor_is_one_the_directory_knows(clinic: House) -> None:
    note = await fail(clinic)
    boxes = (Mailbox(MARTIN.mss_address or "", active=False), Mailbox("nouveau@medecin.mssante.fr"))
    await clinic.store.import_professionals(
        [Professional(MARTIN.rpps or "", "Martin", "Camille", mailboxes=boxes)],
        str.upper,
    )
    await answered(clinic, note, f"RPPS : {MARTIN.rpps}")
    (sent,) = letters_to(clinic, MARTIN)
    assert sent.address == "nouveau@medecin.mssante.fr"
    view = await view_of(clinic)
    part = next(part for part in view.thread.participants if part.key == f"rpps:{MARTIN.rpps}")
    assert (part.address, part.revoked, part.copy) == ("nouveau@medecin.mssante.fr", False, False)
    await sound(clinic)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (f"Médecin traitant : Dr Camille Martin\nRPPS : {MARTIN.rpps}", "boîte"),
        ("RPPS : 10100000099", ""),
        (f"Médecin traitant : Dr Camille Martin\nRPPS : {DUPONT.rpps}", ""),
        (f"{WARD_LINES}\nNé(e) le : 01/01/1950", ""),
    ],
    ids=["the same doctor", "nobody", "two doctors", "another patient"],
)
async def test_lines_that_mend_nothing_send_nothing_and_say_so(
    clinic: House, words: str, reason: str
) -> None:
    note = await fail(clinic)
    await answered(clinic, note, words)
    assert not letters_to(clinic, DUPONT)
    assert len(await clinic.store.holds()) >= 1
    assert (await view_of(clinic)).thread.state.value == "with_desk"
    await sound(clinic)
    # The ward is told why, and may answer once more.
    again = note_of(clinic)
    assert again.id != note.id
    assert "RPPS :" in text(again)
    assert reason in text(again)
    await answered(clinic, again, WARD_LINES)
    assert len(letters_to(clinic, DUPONT)) == 1
    await sound(clinic)


async def test_words_without_lines_are_read_at_the_desk_and_the_letter_stays_there(clinic: House) -> None:
    note = await fail(clinic)
    await answered(clinic, note, "Nous l'appelons demain.")
    holds = await clinic.store.holds()
    assert {each["desk"] for each in holds} == {"sorties"}
    assert len(holds) == 2  # the letter, and what the ward wrote
    assert not [each for each in mails(clinic) if each.to.startswith("rpps:")]
    await sound(clinic)


async def test_a_strangers_lines_send_nothing(clinic: House) -> None:
    note = await fail(clinic)
    await answered(clinic, note, WARD_LINES, sender="x@ailleurs.mssante.fr")
    assert not letters_to(clinic, DUPONT)
    assert (await clinic.store.holds())[-1]["why"] == "unknown_mailbox"
    await sound(clinic)


async def test_a_desk_sends_it_on_with_the_command_for_holds(clinic: House) -> None:
    await fail(clinic)
    (hold,) = await clinic.store.holds()
    with pytest.raises(Refused):
        await clinic.intake.release(Correction("desk:sorties", str(hold["id"])))
    other = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11)
    await clinic.store.import_registrations([registration(other)], keys_of)
    for person in (other, ODETTE):
        said = Correction("desk:sorties", str(hold["id"]), gp=DUPONT.rpps, patient=person.ins)
        if person is other:
            with pytest.raises(Refused, match="no longer that of its follow-up"):
                await clinic.intake.release(said)
            continue
        await clinic.intake.release(said)
    await clinic.leave()
    assert len(letters_to(clinic, DUPONT)) == 1
    await sound(clinic)


async def test_a_desk_sets_the_hold_aside_and_the_follow_up_stays_with_it(clinic: House) -> None:
    await fail(clinic)
    (row,) = await clinic.store.holds()
    hold = await clinic.store.hold(str(row["id"]))
    plan = planning.plan_reject(
        clinic.site, hold, "desk:sorties", "remise en main propre", clinic.clock.now()
    )
    assert await clinic.store.record([plan]) == [None]
    assert await clinic.store.holds() == []
    assert (await clinic.store.envelopes())[0]["state"] == "decided"
    assert (await view_of(clinic)).thread.state.value == "with_desk"
    await sound(clinic)


async def test_the_second_doctor_cannot_be_reached_either(clinic: House) -> None:
    note = await fail(clinic)
    clinic.sender.fail(Rejected(Why.MAILBOX_FULL))
    await answered(clinic, note, WARD_LINES)
    (hold,) = await clinic.store.holds()
    assert hold["why"] == "mailbox_full"
    await sound(clinic)
    second = note_of(clinic)
    assert second.id != note.id
    await answered(clinic, second, f"Médecin traitant : Dr {DURAND.name}\nRPPS : {DURAND.rpps}")
    assert len(letters_to(clinic, DURAND)) == 1
    assert await clinic.store.holds() == []
    await sound(clinic)


async def test_a_letter_taken_back_after_it_failed_waits_for_nobody(clinic: House) -> None:
    note = await fail(clinic)
    (hold,) = await clinic.store.holds()
    held = await clinic.store.hold(str(hold["id"]))
    await answered(clinic, note, "ANNULER")
    view = await view_of(clinic)
    assert view.thread.closed_reason == "recalled"
    assert await clinic.store.holds() == []
    assert [row["state"] for row in await clinic.store.envelopes()] == ["decided", "decided"]
    await sound(clinic)
    # Lines that come afterwards send nothing any more.
    await answered(clinic, note, WARD_LINES)
    assert not letters_to(clinic, DUPONT)
    assert held.lost


async def test_a_copy_tried_again_that_leaves_ends_the_hold(clinic: House) -> None:
    await fail(clinic, Why.MAILBOX_FULL)
    (copy,) = await clinic.copies(purpose="letter")
    await clinic.store.requeue(copy["id"], by="admin")
    await clinic.leave()
    assert len(letters_to(clinic, MARTIN)) == 1
    assert await clinic.store.holds() == []
    await sound(clinic)


async def test_a_copy_tried_again_for_the_former_doctor_leaves_no_more(clinic: House) -> None:
    note = await fail(clinic)
    (copy,) = await clinic.copies(purpose="letter")
    await answered(clinic, note, WARD_LINES)
    await clinic.store.requeue(copy["id"], by="admin")
    await clinic.leave()
    assert not letters_to(clinic, MARTIN)
    await sound(clinic)


async def test_who_may_have_the_letter_all_the_same_is_asked_to_delete_it(clinic: House) -> None:
    await clinic.take(letter())
    clinic.sender.fail(Uncertain(Why.LOST_AFTER_SEND))
    await clinic.leave()
    clinic.clock.turn(seconds=10)
    clinic.sender.fail(Uncertain(Why.LOST_AFTER_SEND))
    await clinic.leave()
    (copy,) = await clinic.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("failed", "lost_after_send")
    await answered(clinic, note_of(clinic), WARD_LINES)
    assert len(letters_to(clinic, DUPONT)) == 1
    (plea,) = [each for each in mails(clinic) if each.purpose == "recall"]
    assert (plea.to, plea.address) == (f"rpps:{MARTIN.rpps}", MARTIN.mss_address)
    assert "supprimer sans lire" in text(plea)
    (incident,) = await clinic.store.incidents()
    assert incident["kind"] == "wrong_recipient"
    assert (DUPONT.rpps or "?") not in text(plea)
    await sound(clinic)


async def test_a_letter_that_may_have_come_is_taken_back_like_one_that_did(clinic: House) -> None:
    await clinic.take(letter())
    for _ in range(2):
        clinic.sender.fail(Uncertain(Why.LOST_AFTER_SEND))
        await clinic.leave()
        clinic.clock.turn(seconds=10)
    await answered(clinic, note_of(clinic), "ANNULER")
    (plea,) = [each for each in mails(clinic) if each.purpose == "recall"]
    assert plea.address == MARTIN.mss_address
    (incident,) = await clinic.store.incidents()
    assert incident["kind"] == "recall"
    await sound(clinic)


async def test_a_letter_refused_outright_asks_nobody_to_delete_anything(clinic: House) -> None:
    await answered(clinic, await fail(clinic), WARD_LINES)
    assert not [each for each in mails(clinic) if each.purpose == "recall"]
    assert await clinic.store.incidents() == []


async def test_a_report_of_failure_long_after_sending_opens_the_same_hold(clinic: House) -> None:
    await clinic.take(letter())
    await clinic.leave()
    (sent,) = letters_to(clinic, MARTIN)
    raw = letters.dsn(
        original_message_id=headers(sent)["Message-ID"], envid=sent.id, action="failed", status="5.1.1"
    )
    await clinic.take(raw, adapter="retours")
    await clinic.leave()
    (hold,) = await clinic.store.holds()
    assert hold["why"] == "unknown_mailbox"
    await sound(clinic)
    await answered(clinic, note_of(clinic), WARD_LINES)
    assert len(letters_to(clinic, DUPONT)) == 1
    await sound(clinic)


async def test_the_same_lines_twice_send_the_letter_once(clinic: House) -> None:
    note = await fail(clinic)
    await answered(clinic, note, WARD_LINES)
    await answered(clinic, note, f"Bonjour,\n\n{WARD_LINES}")
    assert len(letters_to(clinic, DUPONT)) == 1
    assert await clinic.store.holds() == []
    # Other lines come too late: the letter left. A person reads them.
    await answered(clinic, note, f"Médecin traitant : Dr {DURAND.name}\nRPPS : {DURAND.rpps}")
    assert not letters_to(clinic, DURAND)
    (hold,) = await clinic.store.holds()
    assert hold["why"] == "unclear"
    await sound(clinic)


async def test_the_former_doctors_phone_shows_the_alert_as_withdrawn_and_the_new_ones_rings(
    clinic: House,
) -> None:
    now = clinic.clock.now()
    for number, person in (("9001", MARTIN), ("9002", DUPONT)):
        await clinic.store.link([Link(person.rpps or "", "telegram", number, number, linked_at=now)])
    await clinic.take(letter())
    (ring,) = await clinic.store.claim(["telegram"], 10, 60.0)
    await clinic.store.in_flight([ring.id])
    await clinic.store.finish([Attempt(ring.id, DeliveryState.SENT, now, remote="77")])
    clinic.sender.fail(Rejected(Why.UNKNOWN_MAILBOX))
    await clinic.leave()
    await answered(clinic, note_of(clinic), WARD_LINES)
    waiting = await clinic.store.claim(["telegram"], 10, 60.0)
    shown = {
        (each.to, each.purpose, each.recipe.fields.kind)
        for each in waiting
        if isinstance(each.recipe, ChatRecipe)
    }
    assert shown == {
        (f"rpps:{MARTIN.rpps}", Purpose.EDIT, ChatKind.WITHDRAWN),
        (f"rpps:{DUPONT.rpps}", Purpose.ALERT, ChatKind.ALERT),
    }
    recipe = ring.recipe
    assert isinstance(recipe, ChatRecipe)
    press = Press("telegram", "9001", "9001", "77", recipe.buttons[0][0].nonce, "cb")
    (context,) = await clinic.store.contexts([Ask(nonce=press.nonce, account=("telegram", "9001"))])
    assert context.grant is not None
    assert context.grant.expires <= clinic.clock.now()
    await sound(clinic)


async def test_a_letter_nobody_follows_up_is_held_anew_too(clinic: House) -> None:
    clinic.site = make_site(rules=RULES.replace("followup: court", "followup: none"))
    note = await fail(clinic)
    (hold,) = await clinic.store.holds()
    assert hold["why"] == "unknown_mailbox"
    assert any(each.to == "desk:sorties" for each in mails(clinic))
    await answered(clinic, note, WARD_LINES)
    assert len(letters_to(clinic, DUPONT)) == 1
    assert await clinic.store.holds() == []
    assert (await view_of(clinic)).thread.state.value == "closed"
    await sound(clinic)


async def test_while_another_letter_of_the_stay_is_on_its_way_to_the_former_doctor_nothing_is_sent(
    clinic: House,
) -> None:
    note = await fail(clinic)
    await clinic.take(letter(body=letters.labelled_lines(ODETTE, MARTIN) + "\nAvec un complément.\n"))
    assert len(await clinic.copies(purpose="letter", state="queued")) == 1
    (hold,) = await clinic.store.holds()
    with pytest.raises(Refused, match="still on its way"):
        await clinic.intake.release(Correction("desk:sorties", str(hold["id"]), gp=DUPONT.rpps))
    await clinic.leave()  # it leaves, as it was decided
    await clinic.intake.release(Correction("desk:sorties", str(hold["id"]), gp=DUPONT.rpps))
    await clinic.leave()
    assert len(letters_to(clinic, DUPONT)) == 1
    assert text(note)
    await sound(clinic)


async def test_a_ward_that_answers_its_receipt_with_lines_is_heard_as_well(clinic: House) -> None:
    clinic.site = make_site(receipts="each")
    await fail(clinic)
    (receipt,) = [each for each in mails(clinic) if each.purpose == "receipt"]
    await answered(clinic, receipt, WARD_LINES)
    assert len(letters_to(clinic, DUPONT)) == 1
    # The ward is told that its letter went to another.
    assert len([each for each in mails(clinic) if each.purpose == "receipt"]) == 2
    await sound(clinic)


async def test_a_letter_taken_back_by_a_desk_is_released_by_nobody(clinic: House) -> None:
    await fail(clinic)
    (hold,) = await clinic.store.holds()
    view = await view_of(clinic)
    plan = planning.plan_recall(clinic.site, view, "desk:sorties", "erreur", clinic.clock.now())
    assert hold["id"] in plan.end_hold
    assert await clinic.store.record([plan]) == [None]
    assert (await clinic.store.envelopes())[0]["why"] == "recalled"
    with pytest.raises(NotFound):
        await clinic.intake.release(Correction("desk:sorties", str(hold["id"]), gp=DUPONT.rpps))
    await sound(clinic)


async def test_a_hold_of_another_arrival_makes_that_one_held_and_its_end_makes_it_decided(
    store: Store,
) -> None:
    await rows.decided(store, 1, 2)
    lost = Hold(
        id=lost_id(rows.envelope(1).id),
        envelope=rows.envelope(1).id,
        why=Why.GAVE_UP,
        reason="délai d'envoi dépassé",
        since=rows.NOON,
        thread=rows.thread(1).id,
    )
    for _ in range(2):  # told twice, held once
        assert await store.record([Plan(at=rows.NOON, hold=lost)]) == [None]
    states = {str(row["id"]): (row["state"], row["why"]) for row in await store.envelopes()}
    assert states[lost.envelope] == ("held", "gave_up")
    assert states[rows.envelope(2).id] == ("decided", "rule")
    status = await store.status()
    assert (status["held"], status["decided"], status["balance"]) == (1, 1, 0)
    assert not any((await store.invariants()).values())
    assert await store.hold(lost.envelope) == lost
    closed = replace(
        rows.thread(1), version=1, state=ThreadState.CLOSED, closed_at=rows.NOON, closed_reason="recalled"
    )
    ended = Plan(at=rows.NOON, thread=closed, drop_timers=(closed.id,), end_hold=(lost.id,))
    assert await store.record([ended]) == [None]
    states = {str(row["id"]): (row["state"], row["why"]) for row in await store.envelopes()}
    assert states[lost.envelope] == ("decided", "recalled")
    status = await store.status()
    assert (status["held"], status["decided"], status["balance"]) == (0, 2, 0)
    assert not any((await store.invariants()).values())
    (again,) = await store.record([Plan(at=rows.NOON, end_hold=(lost.id,))])
    assert isinstance(again, Stale)


async def test_a_hold_of_an_arrival_that_is_no_more_holds_nothing_and_refuses_nothing(store: Store) -> None:
    await rows.decided(store, 1)
    lost = Hold(lost_id("forgotten"), "forgotten", Why.GAVE_UP, "délai", rows.NOON)
    note = Plan(at=rows.NOON, hold=lost, deliveries=(rows.mail(9, Purpose.WARD_NOTE, thread=None),))
    assert await store.record([note]) == [None]
    assert await store.holds() == []
    assert len(await store.deliveries(ids=[note.deliveries[0].id])) == 1
    assert (await store.status())["balance"] == 0


async def test_a_replacement_for_another_doctor_ends_what_waited(
    place: Place, store: Store, tmp_path: Path
) -> None:
    sender = memory.connect("mss", memory.Settings(), tools(tmp_path, place.clock))
    house = House(place, store, make_site(), sender)
    await store.import_professionals(directory(MARTIN, DUPONT), str.upper)
    known = replace(
        registration(ODETTE), ins_oid=letters.INS_NIR, birth_name="CORMERAIS", used_name="VALBRUNE",
        birth_place="45234",
    )  # fmt: skip
    await store.import_registrations([replace(known, gp_rpps=(MARTIN.rpps or "",))], keys_of)
    first, real = "1.2.250.1.999.1.1.20261201.1", replace(ODETTE, ins_oid=letters.INS_NIR)
    await house.take(letters.cda_mail(letter=letters.cda(patient=real, document_id=first), sender=SENDER))
    house.sender.fail(Rejected(Why.UNKNOWN_MAILBOX))
    await house.leave()
    (hold,) = await store.holds()
    assert hold["why"] == "unknown_mailbox"
    await store.import_registrations([known], keys_of)
    second = letters.cda(
        patient=real, gp=DUPONT, recipients=(DUPONT,), document_id=f"{first[:-1]}2", version="2",
        replaces=first,
    )  # fmt: skip
    await house.take(letters.cda_mail(letter=second, gp=DUPONT, sender=SENDER))
    await house.leave()
    assert len(letters_to(house, DUPONT)) == 1
    assert await store.holds() == []
    assert {row["state"] for row in await store.envelopes()} == {"decided"}
    await sound(house)


async def test_the_wards_list_of_the_day_names_it_once(clinic: House) -> None:
    await fail(clinic)
    ours = (await view_of(clinic)).thread.reference
    await clinic.schedule.daily_lists()
    await clinic.leave()
    assert text(note_of(clinic)).count(ours) == 1


# ------------------------------------------------------------------------------------------------ on real servers

ABSENT = letters.doctor("Absent", "Jo", 9)  # the mail server does not know this mailbox
GONE = letters.doctor("Lointain", "Eve", 12, address=BOUNCING_ADDRESS)
DUPONTS_BOX = DUPONT.mss_address or ""
MakeSite = Callable[..., Site]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///state/relay.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.fresh()


def ready(site: Site, gp: Any) -> Site:
    """Odette's registered GP cannot be reached; Dr Dupont can, and has a phone."""
    site.directory([gp, DUPONT])
    site.patients([(ODETTE, [gp])])
    site.relay("directory", "link", str(DUPONT.rpps), "telegram:9002", "--no-notice")
    return site


def counted(site: Site) -> None:
    status = site.json("status")
    assert status["balance"] == 0
    assert status["held"] == len(site.json("hold", "list"))
    assert not any(status["invariants"].values())


def test_a_refused_letter_goes_to_the_doctor_its_ward_names_untouched(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram, database: str
) -> None:
    site = ready(make_site(database=database), ABSENT)
    mail = letters.xdm_mail(gp=ABSENT)
    dovecot.deliver(WARD, mail, sender=SENDER)
    with site.running():
        (note,) = dovecot.wait_messages(WARD_PEOPLE)
        assert "RPPS :" in body(parsed(note))
        assert site.row("hold")["why"] == "unknown_mailbox"
        ours = reference(body(parsed(note)))
        site.row("threads", state="with_desk", reference=ours)
        counted(site)
        dovecot.deliver(RELAY, answer(parsed(note), WARD_LINES, sender=WARD_PEOPLE), sender=WARD_PEOPLE)
        (raw,) = dovecot.wait_messages(DUPONTS_BOX)
        assert documents(parsed(raw)) == documents(parsed(mail))
        assert reference(body(parsed(raw))) == ours
        (alert,) = telegram.wait("sendMessage")
        assert int(alert["chat_id"]) == 9002
        dovecot.deliver(RELAY, answer(parsed(raw), "OK", sender=DUPONTS_BOX), sender=DUPONTS_BOX)
        thread = site.row("threads", state="acknowledged", reference=ours)
        assert thread["owner"] == f"rpps:{DUPONT.rpps}"
        assert site.json("hold", "list") == []
        assert len(site.rows("threads")) == 1
        counted(site)


def test_a_letter_that_bounced_is_sent_on_by_a_desk_with_the_command_for_holds(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(make_site(), GONE)
    dovecot.deliver(WARD, letters.text_mail(gp=GONE), sender=SENDER)
    with site.running():
        hold = site.row("hold")
        assert site.row("deliveries", purpose="letter")["state"] == "failed"
        site.relay("hold", "release", hold["id"], code=1)
        site.relay("hold", "release", hold["id"], "--gp", str(DUPONT.rpps), "--by", "desk:sorties")
        dovecot.wait_messages(DUPONTS_BOX)
        assert site.row("envelopes", adapter="cardiologie")["state"] == "decided"
        site.row("threads", state="awaiting_ack")
        counted(site)


@pytest.mark.parametrize("point", ["decided", "recorded", "in_flight@mss"])
def test_killed_while_the_wards_lines_are_carried_out_the_letter_leaves_once(
    make_site: MakeSite, dovecot: Dovecot, point: str
) -> None:
    site = ready(make_site(), ABSENT)
    dovecot.deliver(WARD, letters.text_mail(gp=ABSENT), sender=SENDER)
    with site.running():
        (note,) = dovecot.wait_messages(WARD_PEOPLE)
        site.until(lambda: not site.rows("deliveries", state="queued"))
    dovecot.deliver(RELAY, answer(parsed(note), WARD_LINES, sender=WARD_PEOPLE), sender=WARD_PEOPLE)
    site.start(env={"RELAIS_CRASH_AT": point}, ready=False)
    assert site.died(40)
    site.process = None
    with site.running():
        dovecot.wait_messages(DUPONTS_BOX)
        site.row("deliveries", purpose="letter", to=f"rpps:{DUPONT.rpps}", state="accepted")
        site.until(lambda: site.json("status")["open"] == 0)
        assert site.json("hold", "list") == []
        assert len(dovecot.messages(DUPONTS_BOX)) == 1
        counted(site)


# ------------------------------------------------------------------------------------- stopped before it left


async def cancelled(house: House) -> dict[str, Any]:
    """An admin stops the GP's letter while everything waits; answers its copy's row."""
    await house.take(letter())
    (copy,) = await house.copies(purpose="letter")
    await operations.stop_copy(house.site, house.store, copy["id"], house.clock.now())
    await house.leave()
    return copy


async def test_a_letter_stopped_by_hand_waits_for_people_and_nobody_is_told_that_it_is_coming(
    clinic: House,
) -> None:
    await clinic.store.link([Link(MARTIN.rpps or "", "telegram", "9", "9")])
    phone = memory.connect("telegram", memory.Settings(), tools(Path(), clinic.clock))
    clinic.dispatch = Dispatch(
        clinic.store, {"mss": clinic.sender, "telegram": phone}, lambda: clinic.site, clinic.clock
    )
    await clinic.take(letter())
    (copy,) = await clinic.copies(purpose="letter")
    assert await clinic.copies(purpose="alert", state="queued")
    for _ in range(2):  # the second time changes nothing
        done = await operations.stop_copy(clinic.site, clinic.store, copy["id"], clinic.clock.now())
        assert done["state"] == "cancelled"
    await clinic.leave()
    while await clinic.dispatch.turn("telegram", phone) is None:
        pass
    assert not await clinic.copies(purpose="alert", state="sent")
    (hold,) = await clinic.store.holds()
    assert (hold["envelope"], hold["why"], hold["desk"]) == (copy["envelope"], "by_person", "sorties")
    (thread,) = await clinic.store.threads()
    assert (thread["state"], thread["owner"]) == ("with_desk", "desk:sorties")
    assert {each.to for each in mails(clinic)} == {"ward:cardiologie", "desk:sorties"}
    await sound(clinic)
    await answered(clinic, note_of(clinic), WARD_LINES)
    assert not letters_to(clinic, MARTIN)
    assert len(letters_to(clinic, DUPONT)) == 1
    await sound(clinic)


@pytest.mark.parametrize("left", [True, False], ids=["left", "waits too"])
async def test_the_other_letter_of_the_stay_goes_on_when_one_is_stopped_by_hand(
    clinic: House, left: bool
) -> None:
    await clinic.store.link([Link(MARTIN.rpps or "", "telegram", "9", "9")])
    phone = memory.connect("telegram", memory.Settings(), tools(Path(), clinic.clock))
    clinic.dispatch = Dispatch(
        clinic.store, {"mss": clinic.sender, "telegram": phone}, lambda: clinic.site, clinic.clock
    )
    await clinic.take(letter())
    if left:
        await clinic.leave()
    await clinic.take(letter(body=letters.labelled_lines(ODETTE, MARTIN) + "\nAvec un complément.\n"))
    copy = (await clinic.copies(purpose="letter", state="queued"))[-1]
    await operations.stop_copy(clinic.site, clinic.store, copy["id"], clinic.clock.now())
    await clinic.leave()
    while await clinic.dispatch.turn("telegram", phone) is None:
        pass
    assert len(letters_to(clinic, MARTIN)) == 1
    (shown,) = phone.sent
    assert isinstance(shown.message, ChatMessage)
    assert shown.message.buttons
    (hold,) = await clinic.store.holds()
    assert hold["envelope"] == copy["envelope"]
    await sound(clinic)


async def test_who_stopped_a_letter_by_hand_may_send_it_after_all(clinic: House) -> None:
    copy = await cancelled(clinic)
    await clinic.store.requeue(copy["id"], by="admin")
    await clinic.leave()
    assert len(letters_to(clinic, MARTIN)) == 1
    assert await clinic.store.holds() == []
    await sound(clinic)


async def test_the_cancelled_note_of_a_ward_moves_no_follow_up(clinic: House) -> None:
    await clinic.take(letter())
    clinic.sender.fail(Rejected(Why.UNKNOWN_MAILBOX))
    while not (waiting := await clinic.copies(purpose="hold_note", state="queued")):
        await clinic.dispatch.turn("mss", clinic.sender)
    before = (await view_of(clinic)).thread
    await operations.stop_copy(clinic.site, clinic.store, waiting[0]["id"], clinic.clock.now())
    assert (await view_of(clinic)).thread == before
