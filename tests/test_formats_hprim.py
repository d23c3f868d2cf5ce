"""HPRIM Médecin: twelve places, any old character set, and an addressee who is nobody's registered GP."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import PARIS
from relay.formats import hprim as reader
from relay.model import LocalId, Notice, Outcome, Patient, Why
from relay.reading import read as read_mail
from relay.reading import read_file
from relay.recognition import recognise
from tests import letters
from tests.campaign import many
from tests.letters import AUTHOR, DURAND, MARTIN, ODETTE
from tests.letters import hprim as written
from tests.letters.hl7 import Written
from tests.letters.hprim import END, LETTER, LINA, PAUL, doctor_line, hprim

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
ACCENTS = letters.patient("BÉRENGÈRE", "Anaëlle", born=date(1990, 1, 15), place="18033")


def read(raw: bytes) -> Notice:
    notice = reader.read(raw)
    assert notice is not None
    return notice


def who(raw: bytes) -> Patient:
    patient = read(raw).patient
    assert patient is not None
    return patient


def codes(notice: Notice) -> set[str]:
    return {one.code for one in notice.problems}


@pytest.mark.parametrize(("name", "letter"), written.LETTERS.items())
def test_the_projects_letters_say_their_truth(name: str, letter: Written):
    found = recognise(read_file(name, letter.content))
    notice, truth = found.notice, letter.truth
    assert (found.outcome, notice.format) == (Outcome.NOTICE, "hprim")
    assert (notice.event, notice.document) == (truth["event"], truth["document"])
    assert notice.patient is not None
    assert (notice.patient.birth_name, notice.patient.given_names) == (truth["family"], truth["given"])
    assert (notice.patient.ins, notice.patient.ins_oid, notice.patient.ins_key_valid) == (
        truth["ins"],
        None,
        True,
    )
    assert (notice.registered_gp.rpps if notice.registered_gp else None) == truth["gp"]
    left = notice.stay.discharged if notice.stay else None
    assert (left.astimezone(PARIS).date() if left else None) == truth["discharged"]
    assert [one.rpps for one in notice.recipients] == ([truth["recipient"]] if truth["recipient"] else [])
    assert (notice.unknown, notice.problems) == ((), ())


def test_the_lines_are_read_by_their_places():
    notice = read(hprim())
    assert notice.patient == Patient(
        ins=ODETTE.ins,
        birth_name="VALBRUNE",
        given_names=("Odette",),
        sex="F",
        birth_date=date(1948, 3, 17),
        postcode="45000",
    )
    assert notice.author is not None
    assert notice.author.rpps == AUTHOR.rpps
    assert notice.stay is not None
    assert notice.stay.number is None  # line 9 is the sender's own


@pytest.mark.parametrize(
    "encoding",
    ["latin-1", "cp1252", "mac_roman", "cp850", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"],
)
@pytest.mark.parametrize("newline", ["\r\n", "\n", "\r"])
def test_any_old_character_set(encoding: str, newline: str):
    body = (
        "Évolution favorable, contrôle à prévoir. L'œdème a cédé."
        if encoding not in ("latin-1", "cp850")
        else LETTER
    )
    patient = who(hprim(ACCENTS, body, encoding=encoding, newline=newline))
    assert (patient.birth_name, patient.given_names) == ("BÉRENGÈRE", ("Anaëlle",))


@pytest.mark.parametrize("encoding", ["mac_roman", "cp850", "cp1252"])
def test_one_accented_name_is_enough_to_tell_the_old_sets_apart(encoding: str):
    patient = who(
        hprim(replace(ODETTE, used_name="LEFÈVRE", given_names=("Zoé",)), "Bonjour", encoding=encoding)
    )
    assert (patient.birth_name, patient.given_names) == ("LEFÈVRE", ("Zoé",))


def test_a_thirteenth_line_shifts_all_that_follows():
    assert read(hprim(thirteen=True)) == read(hprim())


def test_leading_blank_lines_and_doubled_ends_are_no_values():
    assert read(b"\r\n\r\n" + hprim()) == read(hprim())
    assert read(hprim(newline="\r\r\n")) == read(hprim())


def test_the_addressee_is_a_recipient_and_never_the_registered_gp():
    notice = read(hprim())
    assert notice.registered_gp is None
    assert [one.rpps for one in notice.recipients] == [MARTIN.rpps]


def test_a_labelled_line_of_the_letter_names_the_registered_gp():
    gp = read(hprim(body=f"{doctor_line(DURAND)}\n{LETTER}")).registered_gp
    assert gp is not None
    assert (gp.rpps, gp.family_name) == (DURAND.rpps, "Durand")


def test_a_letter_to_a_colleague_who_is_called_traitant_elsewhere_stays_a_letter():
    assert read(hprim(body="Je le confie à son médecin traitant.\n" + LETTER)).registered_gp is None


@pytest.mark.parametrize("addressee", ["", None])
def test_line_twelve_may_miss_its_value(addressee: str | None):
    notice = read(hprim(addressee=addressee))
    assert notice.recipients == ()
    assert notice.event == "discharge"
    assert (
        read(hprim(addressee=None, body="Cher confrère,\n\nLettre de sortie de votre patiente.")).recipients
        == ()
    )


# --------------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize("code", ["MME", "Madame", "M", "MLLE."])
def test_a_title_tells_the_sex_and_a_code_is_a_local_number(code: str):
    patient = who(hprim(code=code, social=""))
    assert (patient.sex, patient.local_ids) == ("M" if code == "M" else "F", ())
    assert who(hprim(code="900012345")).local_ids == (LocalId("", "900012345"),)


def test_the_number_of_an_insured_parent_is_not_the_childs():
    child = letters.patient("LEROUX", "Tom", born=date(2019, 6, 1), sex="M")
    notice = read(hprim(child, social=written.number(PAUL), code="M"))
    assert notice.patient is not None
    assert notice.patient.ins is None
    assert "insured_number" in codes(notice)
    wife = letters.patient("LEROUX", "Anne", born=PAUL.birth_date or date(1962, 5, 4))
    assert who(hprim(wife, social=written.number(PAUL))).ins is None


def test_a_bad_key_is_kept_and_said_bad():
    assert ODETTE.ins is not None
    found = recognise(read_file("a.hpr", hprim(social=f"{ODETTE.ins[:13]} 01")))
    assert found.notice.patient is not None
    assert found.notice.patient.ins_key_valid is False
    assert who(hprim(social=ODETTE.ins[:13])).ins == ODETTE.ins[:13]


def test_a_number_that_cannot_be_read_is_unknown_and_zeros_are_none():
    assert "patient.ins" in read(hprim(social="2480345")).unknown
    assert read(hprim(social="0000000000000 00")).unknown == ()


def test_a_birth_date_that_is_none_is_unknown():
    assert "patient.birth_date" in read(hprim(born="31/02/1948")).unknown
    assert who(hprim(born="")).birth_date is None


def test_a_birth_name_alone_of_another_day_is_another_person():
    body = f"Nom de naissance : CORMERAIS\nDate de naissance : 18/03/1948\n\n{LETTER}"
    assert "two_patients" in codes(read(hprim(body=body)))


def test_the_letter_tells_the_birth_name():
    patient = who(hprim(body=f"Nom de naissance : CORMERAIS\nDate de naissance : 17/03/1948\n\n{LETTER}"))
    assert (patient.birth_name, patient.used_name, patient.name_kind) == ("CORMERAIS", "VALBRUNE", "birth")


# ----------------------------------------------------------------------------------------------------- what it is


@pytest.mark.parametrize(
    ("body", "event", "left"),
    [
        ("Compte rendu d'hospitalisation\n\nTout va bien.", "discharge", None),
        ("LETTRE DE SORTIE\n\nTout va bien.", "discharge", None),
        (
            "Il a séjourné chez nous.\nHospitalisé du 23/11/2026 au 01/12/2026 pour dyspnée.",
            "discharge",
            date(2026, 12, 1),
        ),
        ("Votre patient est sorti le 1er décembre 2026.", "discharge", date(2026, 12, 1)),
        ("Date de sortie : 02/12/2026 14:00", "discharge", date(2026, 12, 2)),
        ("Je l'ai vue en consultation ce jour.", "other", None),
        ("Compte rendu de radiologie du 01/12/2026", "other", None),
    ],
)
def test_exit_marks_in_the_letter_make_it_a_discharge(body: str, event: str, left: date | None):
    notice = read(hprim(body=body))
    assert (notice.event, notice.document) == (event, "letter" if event == "discharge" else "other")
    found = notice.stay.discharged if notice.stay else None
    assert (found.astimezone(PARIS).date() if found else None) == left


def test_results_are_no_words_of_the_letter():
    body = "Biologie\n****LAB****\nTEX|Date de sortie : 02/12/2026\nRES|Médecin traitant : Dr X|X|N|1|||"
    notice = read(hprim(body=body))
    assert (notice.event, notice.registered_gp) == ("other", None)


def test_a_hospital_as_the_sender_is_the_facility():
    notice = read(hprim(sender="450000088 CHR D'EXEMPLE"))
    assert notice.stay is not None
    assert (notice.stay.facility, notice.stay.facility_name) == ("450000088", "CHR D'EXEMPLE")
    assert notice.author is None


def test_labelled_lines_of_the_letter_say_the_rest():
    body = (
        "Lettre de liaison\nDate de sortie : 01/12/2026\nMode d'entrée : urgences\nMédecin adressant : Dr Alix Dupont\n"
        "Rendez-vous : cardiologie le 15/12/2026\nRésultats en attente : sérologie Lyme\n"
    )
    notice = read(hprim(body=body))
    assert notice.stay is not None
    assert notice.stay.entry_mode == "emergency"
    assert notice.referring_doctor is not None
    assert notice.referring_doctor.family_name == "Dupont"
    assert [one.when for one in notice.follow_up] == [date(2026, 12, 15)]
    assert notice.awaited_results == ("sérologie Lyme",)


# --------------------------------------------------------------------------------------------------------- several


def test_several_patients_in_one_file_are_held_whole():
    raw = hprim(end=f"{END}\n") + hprim(PAUL, code="M")
    found = recognise(read_file("lot.hpr", raw))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)


def test_twins_are_two_patients():
    one = replace(LINA, ins=None)
    raw = hprim(one, end=f"{END}\n") + hprim(replace(one, given_names=("Agathe",)))
    assert "two_patients" in codes(read(raw))


def test_a_letter_and_its_results_of_one_person_are_one_letter():
    raw = hprim(body="Biologie\n****LAB****\nRES|a|b|N|1", end=f"{END}\n") + hprim()
    notice = read(raw)
    assert (notice.event, notice.problems) == ("discharge", ())


def test_two_letters_in_one_file_are_held_whole():
    assert "broken_package" in codes(read(hprim(end=f"{END}\n") + hprim()))


def test_words_behind_the_end_are_held():
    found = recognise(read_file("a.hpr", hprim() + "MARTINEZ\nune lettre sans en-tête\n".encode("cp1252")))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.BROKEN_PACKAGE)


def test_a_missing_end_mark_is_noted():
    notice = read(hprim(end=""))
    assert codes(notice) == {"no_end_mark"}
    assert notice.event == "discharge"


def test_a_letter_that_speaks_of_another_person_is_held():
    body = f"Patient : LEROUX Paul\nDate de naissance : 04/05/1962\n\n{LETTER}"
    assert "two_patients" in codes(read(hprim(body=body)))


# ---------------------------------------------------------------------------------------------------------- in mail


def test_hprim_as_an_attachment_or_as_the_body_of_a_mail():
    content = hprim(encoding="utf-8")
    attached = letters.mail("Ci-joint.", sender=letters.WARD, to=letters.RELAY_IN, subject="CRH",
                            attachments=(("lettre.hpr", content, "application/octet-stream"),))  # fmt: skip
    body = letters.mail(
        content.decode().replace("\r\n", "\n"), sender=letters.WARD, to=letters.RELAY_IN, subject="CRH"
    )
    for raw in (attached, body):
        found = recognise(read_mail(raw))
        assert (found.outcome, found.notice.format) == (Outcome.NOTICE, "hprim")
        assert found.notice.patient is not None
        assert found.notice.patient.birth_name == "VALBRUNE"


def test_a_plain_letter_is_no_hprim():
    assert not reader.looks_like(letters.text_mail())
    assert not reader.looks_like(letters.labelled_lines(ODETTE, MARTIN).encode())
    assert reader.read(b"") is None


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_no_torture_file_is_taken_for_hprim_or_raises():
    files = [path for path in sorted((SAMPLES / "torture").rglob("*")) if path.is_file()]
    assert len(files) > 1500
    for path in files:
        raw = path.read_bytes()
        began = time.process_time()
        assert reader.read(raw) is None, path.name
        assert time.process_time() - began < 2, path.name


@settings(max_examples=many(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([hprim(), hprim(encoding="utf-16"), hprim() + hprim(PAUL)]), st.data())
def test_no_mutation_raises_or_makes_the_addressee_the_gp(raw: bytes, data: st.DataObject):
    spoilt = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[place : place + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=10))
    notice = reader.read(bytes(spoilt))
    assert notice is None or notice.registered_gp is None


@settings(max_examples=many(100), deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_raise(raw: bytes):
    reader.read(raw)
    reader.read(hprim()[:120] + raw)


def test_an_end_among_the_twelve_lines_is_a_broken_letter():
    raw = hprim().replace(b"12 rue des Lilas", b"****FIN****")
    assert codes(read(raw)) >= {"broken_package"}


@pytest.mark.parametrize(
    "raw",
    [b"\n" * 1_000_000, hprim(body="a\n" * 300_000), hprim(body=f"{END}\n" * 100_000), hprim() * 2000,
     hprim(body="hospitalise du " * 50_000), hprim(sender="1 DR " + "a." * 100_000)],
    ids=range(6),
)  # fmt: skip
def test_no_repetition_takes_long(raw: bytes):
    began = time.process_time()
    reader.read(raw)
    assert time.process_time() - began < 2


def test_a_long_letter_is_read_fast():
    raw = hprim(body=LETTER * 200)
    began = time.process_time()
    read(raw)
    assert time.process_time() - began < 0.05


@pytest.mark.parametrize(
    ("family", "birth", "used"),
    [("VALBRUNE NEE CORMERAIS", "CORMERAIS", "VALBRUNE"), ("MME VALBRUNE", "VALBRUNE", None), ("LE NEE", "LE NEE", None)],
)  # fmt: skip
def test_a_civility_or_a_birth_name_on_the_second_line_is_told_apart(
    family: str, birth: str, used: str | None
):
    patient = read(hprim(family=family)).patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.given_names[:1]) == (birth, used, ("Odette",))
