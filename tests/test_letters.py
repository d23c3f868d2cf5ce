"""The project's own letters, each field of their truth: what is there is read, what is not is not invented."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.model import Outcome, Why
from relay.reading import Document, read, read_file
from relay.recognition import recognise, to_json
from tests import letters
from tests.letters import hl7, hprim, ldl, truths, wards
from tests.letters.wards import MAILS, Json, WardMail

DOCUMENTS = ldl.LETTERS | truths.FHIR | truths.PDF


def said(document: Document) -> Json:
    """What `recognise --json` says, problems by their code."""
    row = to_json(recognise(document), file="")
    row["problems"] = [problem["code"] for problem in row["problems"]]  # type: ignore[attr-defined]
    return row


@pytest.mark.parametrize("mail", MAILS.values(), ids=MAILS.keys())
def test_every_field_of_a_wards_mail_is_read(mail: WardMail) -> None:
    row = said(read(mail.raw))
    if mail.truth["outcome"] == "unclear" and "format" not in mail.truth:
        row = {name: row[name] for name in ("outcome", "why")}  # what a person will see of it is not promised
    assert wards.full(row) == wards.full(mail.truth)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_field_of_a_letter_is_read(name: str) -> None:
    letter = DOCUMENTS[name]
    assert wards.full(said(read_file(name, letter.content))) == wards.full(letter.truth)


def test_every_format_has_its_letters() -> None:
    """HL7 v2 and HPRIM prove theirs with their readers."""
    assert min(len(hl7.LETTERS), len(hprim.LETTERS), len(truths.FHIR), len(truths.PDF), len(ldl.LETTERS)) >= 3
    assert len(MAILS) >= 40
    assert len({mail.program for mail in MAILS.values()}) >= 10
    notices = [mail for mail in MAILS.values() if mail.truth["outcome"] == "notice"]
    assert len(notices) >= 30
    levels = [ldl.LETTERS[f"ldl_level_{level}.eml"] for level in (1, 3)]
    assert [one.truth["package"] for one in levels] == ["xdm", "xdm"]


def test_the_letters_are_the_same_each_time() -> None:
    assert wards.MAILS["outlook_table"].raw == wards.MAILS["outlook_table"].raw
    assert ldl.full() == ldl.full()
    assert all(who.ins_oid == letters.INS_TEST for who in (wards.LUCIEN, wards.ANGELE, ldl.ANES, ldl.JOAN))


@pytest.mark.parametrize(
    "mail",
    [one for one in MAILS.values() if one.truth["outcome"] == "notice" and one.name != "two_gps"],
    ids=lambda one: one.name,
)
def test_a_wards_mail_cut_anywhere_names_nobody_else(mail: WardMail) -> None:
    """Half a letter may say less; it never says another doctor's number or another patient's."""
    known = {one for one in (mail.truth.get("registered_gp") or {}).values() if one}
    raw = mail.raw
    start = raw.index(b"\r\n\r\n")
    for end in range(start, len(raw), max(1, (len(raw) - start) // 25)):
        found = recognise(read(raw[:end])).notice
        if found.registered_gp is not None and found.registered_gp.rpps:
            assert found.registered_gp.rpps in known
        if found.patient is not None and found.patient.ins and len(found.patient.ins) == 15:
            assert found.patient.ins == (mail.truth["patient"] or {}).get("ins")


NAMED = [one for one in MAILS.values() if one.truth.get("registered_gp") and "<table" not in one.text]


@pytest.mark.parametrize("mail", NAMED, ids=lambda one: one.name)
def test_a_wards_mail_with_a_line_forgotten_names_no_other_gp(mail: WardMail) -> None:
    lines = mail.text.split("\n")
    for number in range(len(lines)):
        text = "\n".join(lines[:number] + lines[number + 1 :])
        found = recognise(read(replace(mail, text=text).raw)).notice
        if found.registered_gp is not None and found.registered_gp.rpps is not None:
            assert found.registered_gp.rpps == mail.truth["registered_gp"].get("rpps"), lines[number]
        if found.patient is not None and found.patient.birth_date is not None:
            assert found.patient.birth_date.isoformat() == mail.truth["patient"].get("birth_date"), lines[
                number
            ]


@pytest.mark.parametrize("mail", NAMED, ids=lambda one: one.name)
def test_a_stranger_quoted_below_holds_the_letter(mail: WardMail) -> None:
    """Whatever the client: the mail leaves as it is, and the stranger's letter would leave with it."""
    if mail.truth["outcome"] != "notice":
        pytest.skip("held without it")
    other = "Patient : LEROUX Paul\nNé le : 04/05/1962\nMédecin traitant : Dr Noé Tordu\nRPPS : 10000000017\n"
    quoted = "".join(f"> {line}\n" for line in other.split("\n"))
    text = f"{mail.text}\nLe lun. 30 nov. 2026 à 17:02, Cardiologie a écrit :\n{quoted}"
    found = recognise(read(replace(mail, text=text).raw))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)


def test_a_mail_about_a_patient_without_any_event_is_shown_to_a_person() -> None:
    mail = MAILS["english_ward"]
    without = mail.text.replace("Discharged: 2026-12-01 11:00\n", "").replace("Discharged to: home\n", "")
    plain = WardMail("x", "Meeting", without, mail.program, {})
    assert recognise(read(plain.raw)).outcome is Outcome.UNCLEAR
