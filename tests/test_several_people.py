"""A file or a mail that brings letters of several people: held whole, with a reason, and nobody gets another's."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest

from relay.identity import keys_of
from relay.model import Mailbox, Patient, Person, Professional, Purpose, Registration
from relay.planning import Correction
from tests import letters
from tests.letters import DUPONT, MARTIN, hl7, printed
from tests.letters.hprim import hprim
from tests.stores import place, store  # noqa: F401 - fixtures
from tests.test_joining import CDA, ODETTE, SENDER, arrive, his, house, mailed, to_gp  # noqa: F401 - a fixture
from tests.test_loops import House
from tests.test_planning import _secret  # noqa: F401 - a fixture

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
OTHER = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11, ipp="900099999")
TWO_HPRIM = hprim(ODETTE).replace(b"****FINFICHIER****\r\n", b"") + hprim(OTHER)
TWO_HL7 = hl7.batch(
    hl7.mdm(patient=ODETTE, document=CDA), hl7.mdm(patient=OTHER, document=letters.cda(patient=OTHER))
)


def attached(name: str, content: bytes) -> tuple[bytes, str]:
    return mailed(
        letters.mail("Ci-joint.", sender=SENDER, to="relais@relais45.mssante.fr", subject="Lettres de sortie",
                     attachments=[(name, content, "application/octet-stream")])
    )  # fmt: skip


WAYS: dict[str, Callable[[], tuple[bytes, str]]] = {
    "a batch of HL7 v2 in the drop folder": lambda: his(TWO_HL7),
    "an HPRIM file in the drop folder": lambda: his(TWO_HPRIM),
    "a batch of HL7 v2 attached": lambda: attached("lettres.hl7", TWO_HL7),
    "an HPRIM file attached": lambda: attached("lettres.hpr", TWO_HPRIM),
    "two HPRIM files attached": lambda: mailed(
        letters.mail("Ci-joint.", sender=SENDER, to="relais@relais45.mssante.fr", subject="Lettres de sortie",
                     attachments=[("a.hpr", hprim(ODETTE), "application/octet-stream"),
                                  ("b.hpr", hprim(OTHER), "application/octet-stream")])
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_letters_of_two_people_in_one_arrival_are_held_with_the_reason(house: House, way: str) -> None:
    await arrive(house, WAYS[way]())
    (held,) = await house.store.holds()
    assert (held["why"], held["reason"]) == ("two_patients", "le message concerne deux patients")
    assert not to_gp(house)
    told = {each.to.partition(":")[0] for each in house.sender.sent if each.purpose is Purpose.HOLD_NOTE}
    assert told == {"desk", "ward"}


@pytest.mark.parametrize("alone", [hprim(ODETTE), hl7.batch(hl7.mdm(patient=ODETTE, document=CDA))])
async def test_the_same_file_about_one_of_them_leaves(house: House, alone: bytes) -> None:
    await arrive(house, his(alone))
    (row,) = await house.store.envelopes()
    assert (row["state"], row["kind"]) == ("decided", "notice"), (row["why"], await house.store.holds())
    assert len(to_gp(house)) == 1


# ---------------------------------------------------------------------------------------------- twins in one mail


def without_ins(who: Patient) -> Patient:
    return replace(who, ins=None, ins_oid=None, ins_key_valid=None)


LEA = without_ins(letters.patient("BOISGARD", "Léa", born=date(2019, 4, 2), ipp=None))
ZOE = replace(LEA, given_names=("Zoé",))


def mail_of(*people: Patient, text: str = "Ci-joint.", kind: str = "pdf") -> tuple[bytes, str]:
    """A mail with a letter about each of them."""
    written = {
        "pdf": ("pdf", "application/pdf", lambda who, n: printed.letter(who, MARTIN)),
        "cda": (
            "xml",
            "text/xml",
            lambda who, n: letters.cda(patient=who, document_id=f"1.2.250.1.999.5.{n}"),
        ),
        "hprim": ("hpr", "application/octet-stream", lambda who, n: hprim(who)),
    }
    ending, media, make = written[kind]
    return mailed(
        letters.mail(text, sender=SENDER, to="relais@relais45.mssante.fr", subject="Lettres de sortie",
                     attachments=[(f"{n}.{ending}", make(who, n), media) for n, who in enumerate(people)])
    )  # fmt: skip


def lines(who: Patient) -> str:
    return letters.labelled_lines(who, MARTIN)


TWINS: dict[str, Callable[[Patient, Patient], tuple[bytes, str]]] = {
    "two PDF": mail_of,
    "two CDA": lambda one, other: mail_of(one, other, kind="cda"),
    "two HPRIM": lambda one, other: mail_of(one, other, kind="hprim"),
    "lines and a PDF": lambda one, other: mail_of(other, text=lines(one)),
    "lines in capitals and a PDF": lambda one, other: mail_of(other, text=lines(one).upper()),
    "lines and a CDA": lambda one, other: mail_of(other, text=lines(one), kind="cda"),
    "an older letter quoted below": lambda one, other: mailed(
        letters.text_mail(
            sender=SENDER, body=lines(one) + "\nCordialement.\n\n> " + lines(other).replace("\n", "\n> ")
        )
    ),
    "a package": lambda one, other: mailed(
        letters.xdm_mail(
            patient=one, with_pdf=False, sender=SENDER,
            package=letters.xdm(
                [(f"DOC0000{n}.XML", letters.cda(patient=who, document_id=f"1.2.250.1.999.5.{n}"), "text/xml")
                 for n, who in enumerate((one, other), 1)],
                patient=one,
            ),
        )
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", TWINS)
async def test_letters_of_twins_without_an_ins_in_one_mail_are_held(house: House, way: str) -> None:
    await registered(house, (LEA, MARTIN.rpps or ""), (ZOE, MARTIN.rpps or ""))
    await arrive(house, TWINS[way](LEA, ZOE))
    (held,) = await house.store.holds()
    assert held["why"] == "two_patients"
    assert not to_gp(house)


INITIAL = replace(LEA, given_names=("L.",))
MORE = replace(LEA, given_names=("Léa", "Zoé"))


@pytest.mark.parametrize(
    ("way", "other"),
    [*((way, who) for way in TWINS for who in (LEA, MORE)), ("lines and a PDF", INITIAL)],
    ids=lambda each: each if isinstance(each, str) else each.given_names[-1],
)
async def test_two_letters_of_one_of_them_leave(house: House, way: str, other: Patient) -> None:
    await registered(house, (LEA, MARTIN.rpps or ""), (ZOE, MARTIN.rpps or ""))
    await arrive(house, TWINS[way](LEA, other))
    assert await house.store.holds() == []
    assert len(to_gp(house)) == 1


# ----------------------------------------------------------------------------------------- what else hangs on a mail


def pressed(*members: tuple[str, bytes], way: int) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", way) as into:
        for name, content in members:
            into.writestr(name, content)
    return archive.getvalue()


HANGING = {
    "an archive of a PDF": lambda who: ("lettres.zip", pressed(("lettre.pdf", printed.letter(who, MARTIN)), way=zipfile.ZIP_DEFLATED), "application/zip"),
    "an archive that presses nothing": lambda who: ("lettres.zip", pressed(("lettre.pdf", printed.letter(who, MARTIN)), way=zipfile.ZIP_STORED), "application/zip"),
    "HTML set out as typed": lambda who: ("lettre.html", f"<html><body><pre>{lines(who)}</pre></body></html>".encode(), "text/html"),
}  # fmt: skip


@pytest.mark.parametrize("what", HANGING)
@pytest.mark.parametrize(("who", "whys"), [(LEA, []), (OTHER, ["two_patients"])], ids=["hers", "another's"])
async def test_what_hangs_beside_a_letter_is_looked_through(
    house: House, what: str, who: Patient, whys: list[str]
) -> None:
    await registered(house, (LEA, MARTIN.rpps or ""))
    raw = letters.mail(
        lines(LEA),
        sender=SENDER,
        to="relais@relais45.mssante.fr",
        subject="Sortie",
        attachments=[HANGING[what](who)],
    )
    await arrive(house, mailed(raw))
    assert [held["why"] for held in await house.store.holds()] == whys
    assert len(to_gp(house)) == 1 - len(whys)


# ------------------------------------------------------------------------------------- one stay number, two people


REMI = replace(OTHER, ins_oid=letters.INS_NIR, local_ids=())
PAUL = letters.patient(
    "GAUDRY", "Paul", born=date(1960, 5, 3), sex="M", order=12, ipp=None, oid=letters.INS_NIR
)
TWIN = replace(without_ins(REMI), given_names=("Rémy-Luc",))
NEWBORN = without_ins(letters.patient("VALBRUNE", "Lina", born=date(2026, 11, 28), ipp=None))

PAIRS = {
    "neither with an INS": (without_ins(REMI), without_ins(PAUL)),
    "the first with an INS": (REMI, without_ins(PAUL)),
    "the second with an INS": (without_ins(REMI), PAUL),
    "both with an INS": (REMI, PAUL),
    "twins": (without_ins(REMI), TWIN),
    "a mother and her child": (ODETTE, NEWBORN),
    "twins, one in capitals": (
        without_ins(REMI),
        replace(TWIN, birth_name="LUC", given_names=("BOISGARD",), name_kind="unstated", order_unsure=True),
    ),
}


async def registered(house: House, *people: tuple[Patient, str]) -> None:
    """These patients, each with their GP; both doctors have mailboxes."""
    rows = [
        Registration(
            ins=who.ins or "", ins_oid=who.ins_oid or "", facility="450000088", birth_name=who.birth_name or "",
            given_names=who.given_names, birth_date=who.birth_date, sex=who.sex or "", gp_rpps=(gp,),
        )
        for who, gp in people
    ]  # fmt: skip
    await house.store.import_registrations(rows, keys_of)
    dupont = Professional(DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),))
    await house.store.import_professionals([dupont], str.upper)


def letter(who: Patient, gp: str, stay: str = "S-77") -> tuple[bytes, str]:
    doctor = MARTIN if gp == MARTIN.rpps else DUPONT
    return mailed(letters.text_mail(patient=who, gp=doctor, stay=stay, sender=SENDER))


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_stay_number_copied_from_another_patients_letter_joins_nobodys_follow_up(
    house: House, pair: str
) -> None:
    first, second = PAIRS[pair]
    await registered(house, (first, MARTIN.rpps or ""), (second, DUPONT.rpps or ""))
    await arrive(house, letter(first, MARTIN.rpps or ""), letter(second, DUPONT.rpps or ""))
    (held,) = await house.store.holds()
    assert held["why"] == "stay_of_another"
    letters_sent = [each for each in house.sender.sent if each.purpose is Purpose.LETTER]
    assert [each.to for each in letters_sent] == [f"rpps:{MARTIN.rpps}"]
    (thread,) = await house.store.threads()
    found = await house.store.thread(str(thread["id"]))
    assert found.thread.gp == f"rpps:{MARTIN.rpps}"
    assert not any(part.revoked for part in found.thread.participants)


SAME = {
    "with and without an INS": (REMI, without_ins(REMI)),
    "without and with an INS": (without_ins(REMI), REMI),
    "another spelling": (without_ins(ODETTE), replace(without_ins(ODETTE), given_names=("ODETTE", "MARIE LOUISE"))),
    "fewer given names": (without_ins(ODETTE), replace(without_ins(ODETTE), given_names=("Odette",))),
    "by the name in use": (
        ODETTE,
        replace(ODETTE, birth_name="VALBRUNE", used_name=None, name_kind="unstated"),
    ),
    "in capitals, the given name first": (
        ODETTE,
        replace(ODETTE, birth_name="ODETTE", used_name=None, given_names=("VALBRUNE",), name_kind="unstated",
                order_unsure=True),
    ),
}  # fmt: skip


@pytest.mark.parametrize("said", SAME)
async def test_one_patient_told_of_in_two_ways_stays_in_one_follow_up(house: House, said: str) -> None:
    first, second = SAME[said]
    if first.birth_name != "CORMERAIS":
        await registered(house, (first, MARTIN.rpps or ""))
    await arrive(house, letter(first, MARTIN.rpps or ""), letter(second, MARTIN.rpps or ""))
    assert await house.store.holds() == []
    assert len(await house.store.threads()) == 1
    assert len(to_gp(house)) == 2


NAMELESS = ["Bébé", "BB DE MARIE", "Nouveau-né 1", "Fille"]


@pytest.mark.parametrize("called", NAMELESS)
async def test_a_letter_of_a_child_that_has_no_given_name_yet_is_for_a_person(
    house: House, called: str
) -> None:
    nameless = replace(LEA, given_names=(called,))
    await registered(house, (nameless, MARTIN.rpps or ""))
    await arrive(house, movement(nameless, MARTIN, "S-9"))
    (held,) = await house.store.holds()
    assert held["why"] == "floor_identity"


@pytest.mark.parametrize("called", NAMELESS)
async def test_a_child_is_the_same_once_it_has_a_given_name(house: House, called: str) -> None:
    lea = letters.patient("BOISGARD", "Léa", born=date(2019, 4, 2), oid=letters.INS_NIR, ipp=None)
    await registered(house, (lea, MARTIN.rpps or ""))
    await arrive(house, movement(replace(lea, given_names=(called,)), MARTIN, "S-9"))
    await arrive(house, letter(without_ins(lea), MARTIN.rpps or "", "S-9"))
    assert await house.store.holds() == []
    assert len(await house.store.threads()) == 1
    assert len(to_gp(house)) == 2


# --------------------------------------------------------------------------------- one document number, two letters


def numbered(who: Patient, gp: Person, stay: str, left: datetime = letters.DISCHARGED) -> tuple[bytes, str]:
    """A letter written on a form that gives every document the same id, set and version."""
    document = letters.cda(patient=who, gp=gp, stay=stay, discharged=left)
    return mailed(letters.xdm_mail(patient=who, letter=document, sender=SENDER))


def movement(who: Patient, gp: Person, stay: str, left: datetime = letters.DISCHARGED) -> tuple[bytes, str]:
    """A discharge of a system that counts movements within a stay."""
    visit = hl7.pv1(number=stay, discharged=left)
    return his(hl7.adt(patient=who, gp=gp, visit=visit, movement=hl7.zbe(number="2")))


LATER = letters.DISCHARGED + timedelta(days=20)
ALIKE: dict[str, list[tuple[bytes, str]]] = {
    "two patients, one id": [numbered(REMI, MARTIN, "S-1"), numbered(PAUL, DUPONT, "S-2")],
    "two stays, one id": [numbered(REMI, MARTIN, "S-1"), numbered(REMI, MARTIN, "S-2", LATER)],
    "two stays, one movement number": [movement(REMI, MARTIN, "S-1"), movement(REMI, MARTIN, "S-2", LATER)],
    "a notice after its letter, and another stay's": [
        numbered(REMI, MARTIN, "S-1"),
        movement(REMI, MARTIN, "S-1"),
        movement(REMI, MARTIN, "S-2", LATER),
    ],
}


@pytest.mark.parametrize("case", ALIKE)
async def test_a_document_number_that_another_letter_bore_puts_no_letter_aside(
    house: House, case: str
) -> None:
    everybody = ((REMI, MARTIN), (PAUL, DUPONT), (LEA, MARTIN), (ZOE, DUPONT))
    await registered(house, *((who, gp.rpps or "") for who, gp in everybody))
    *before, last = ALIKE[case]
    await arrive(house, *before)
    assert await house.store.holds() == []
    known = len(house.sender.sent)
    await arrive(house, last)
    (held,) = await house.store.holds()
    assert held["why"] == "number_of_another"
    assert {each.purpose for each in house.sender.sent[known:]} == {Purpose.HOLD_NOTE}
    await house.intake.release(Correction(by="admin", hold=str(held["id"])))
    await house.leave()
    assert [each.purpose for each in house.sender.sent if each.purpose is Purpose.LETTER][1:], (
        "it leaves when looked at"
    )
    assert len(await house.store.threads()) == 2


async def test_twins_whose_movements_bear_one_number_are_told_of_each(house: House) -> None:
    await registered(house, (LEA, MARTIN.rpps or ""), (ZOE, DUPONT.rpps or ""))
    visit = hl7.pv1(number="S-1", discharged=None)
    gone = hl7.adt("A13", patient=LEA, visit=visit, movement=hl7.zbe("CANCEL", number="2"))
    await arrive(house, his(gone), movement(ZOE, DUPONT, "S-2"))
    assert await house.store.holds() == []
    assert [each.to for each in house.sender.sent if each.purpose is Purpose.LETTER] == [
        f"rpps:{DUPONT.rpps}"
    ]
    await arrive(house, movement(LEA, MARTIN, "S-1"))
    assert (await house.store.envelopes())[0]["why"] == "superseded", "cancelled before it came"


@pytest.mark.parametrize("case", ALIKE)
async def test_the_same_letter_come_again_is_a_duplicate_all_the_same(house: House, case: str) -> None:
    await registered(house, (REMI, MARTIN.rpps or ""), (LEA, MARTIN.rpps or ""))
    (raw, adapter), *_ = ALIKE[case]
    again = raw.replace(b"17:41:00", b"18:02:00").replace(b"|4217|", b"|4218|")
    assert again != raw
    await arrive(house, (raw, adapter), (again, adapter))
    assert await house.store.holds() == []
    assert [row["state"] for row in await house.store.envelopes()] == ["ignored", "decided"]


async def test_a_cancellation_under_a_number_that_was_cancelled_before_is_put_before_a_person(
    house: House,
) -> None:
    """Movements counted within a stay: the first cancelled one was never told of, the second one was."""
    await registered(house, (REMI, MARTIN.rpps or ""))

    def cancelled(stay: str, control: str) -> tuple[bytes, str]:
        visit = hl7.pv1(number=stay, discharged=None)
        gone = hl7.zbe("CANCEL", number="2")
        return his(hl7.adt("A13", patient=REMI, control=control, visit=visit, movement=gone))

    await arrive(house, cancelled("S-1", "1"), letter(REMI, MARTIN.rpps or "", "S-2"))
    assert await house.store.holds() == []
    await arrive(house, cancelled("S-2", "2"))
    (held,) = await house.store.holds()
    assert held["why"] == "number_of_another"
    (thread,) = await house.store.threads()
    assert thread["state"] == "awaiting_ack"
    await arrive(house, cancelled("S-1", "3"))
    assert (await house.store.envelopes())[0]["why"] == "duplicate", "nothing of it to take back"
