"""A PDF is read by where its words stand; what cannot be read is never guessed, and never overrides a document."""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import pdf
from relay.model import Notice, Outcome, Patient, Recognised, Why
from relay.reading import read as read_mail
from relay.reading import read_file
from relay.recognition import recognise
from tests import letters
from tests.campaign import many
from tests.letters import AUTHOR, DUPONT, MARTIN, ODETTE, RELAY_IN, WARD, printed
from tests.letters import fhir as build

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
MOREL = letters.patient("MOREL", "Jean", born=date(1950, 1, 2), sex="M")


def read(content: bytes) -> Notice:
    notice = pdf.read(content)
    assert notice is not None
    return notice


def by_mail(
    content: bytes, text: str = "Veuillez trouver le courrier en pièce jointe.\n", name: str = "a.pdf"
) -> Recognised:
    return recognise(
        read_mail(
            letters.mail(text, sender=WARD, to=RELAY_IN, attachments=[(name, content, "application/pdf")])
        )
    )


def codes(notice: Notice) -> list[str]:
    return [problem.code for problem in notice.problems]


# ------------------------------------------------------------------------------------------------ the project's letters


@pytest.mark.parametrize("content", [printed.letter(), printed.form(), printed.letter(pages_of_annex=5)])
def test_a_printed_letter_says_all_that_its_lines_say(content: bytes):
    notice = read(content)
    assert (notice.format, notice.event, notice.document) == ("pdf", "discharge", "letter")
    patient = notice.patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.given_names) == (
        "CORMERAIS",
        "VALBRUNE",
        ("Odette", "Marie-Louise"),
    )
    assert (patient.ins, patient.birth_date, patient.sex) == (ODETTE.ins, date(1948, 3, 17), "F")
    stay = notice.stay
    assert stay is not None
    assert (stay.discharged, stay.number, stay.ward) == (
        datetime(2026, 12, 1, 13, tzinfo=UTC), "S-2026-004217", "Cardiologie",
    )  # fmt: skip
    gp = notice.registered_gp
    assert gp is not None
    assert (gp.name, gp.rpps) == ("Camille Martin", MARTIN.rpps)
    assert (notice.unknown, notice.problems) == ((), ())


@pytest.mark.parametrize("gp", [MARTIN, replace(MARTIN, rpps=None)])
def test_a_number_never_slips_from_one_column_under_the_name_of_another(gp: letters.Person):
    notice = read(printed.columns(gp=gp))
    assert notice.registered_gp is not None
    assert (notice.registered_gp.family_name, notice.registered_gp.rpps) == ("Martin", gp.rpps)
    assert notice.author is not None
    assert notice.author.rpps == AUTHOR.rpps
    assert notice.patient is not None
    assert (notice.patient.birth_name, notice.patient.ins) == ("CORMERAIS", ODETTE.ins)


def test_the_heading_of_a_column_is_no_value_of_the_heading_beside_it():
    rows = [(60.0, 780.0, "Patient"), (320.0, 780.0, "Médecin traitant"), (60.0, 766.0, "CORMERAIS Odette"),
            (320.0, 766.0, "Dr Camille MARTIN"), (60.0, 700.0, "Date de sortie : 01/12/2026")]  # fmt: skip
    notice = read(printed.pages(rows))
    assert (notice.patient, notice.registered_gp) == (None, None)


def test_words_are_put_together_whatever_the_order_they_were_drawn_in():
    drawn = printed.lines("Lettre de liaison\nPatient : CORMERAIS Odette\nNé(e) le : 17/03/1948\nRPPS : 1")
    assert pdf.text(printed.pages(drawn[::-1])) == pdf.text(printed.pages(drawn))


def test_a_pdf_alone_is_a_notice_as_a_file_and_as_an_attachment():
    found = recognise(read_file("lettre.pdf", printed.letter()))
    assert (found.outcome, found.notice.format, found.notice.event) == (Outcome.NOTICE, "pdf", "discharge")
    assert found.notice.patient is not None
    assert found.notice.patient.ins_key_valid is True
    mailed = by_mail(printed.letter())
    assert (mailed.outcome, mailed.notice.format, mailed.notice.package) == (Outcome.NOTICE, "pdf", "mime")


# -------------------------------------------------------------------------------------------------- never guessed


@pytest.mark.parametrize(
    "content",
    [printed.scan(), printed.locked(), printed.letter()[:700], b"%PDF-1.7\n" + b"x" * 40, printed.letter(pages_of_annex=200),
     printed.pages([(60, 780, "1/1")])],
    ids=["scan", "locked", "cut", "empty", "too many pages", "page number"],
)  # fmt: skip
def test_without_words_nothing_is_guessed(content: bytes):
    assert codes(read(content)) == ["no_text"]
    assert read(content).patient is None
    for found in (recognise(read_file("courrier.pdf", content)), by_mail(content)):
        assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.UNCLEAR)
        assert codes(found.notice) == ["no_text"]


def test_a_pdf_that_only_forbids_printing_is_read():
    assert read(printed.locked("")).patient is not None


def test_too_many_characters_are_too_long_to_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pdf, "_last", ())
    with monkeypatch.context() as few:
        few.setattr(pdf, "MAX_CHARACTERS", 500)
        assert codes(read(printed.letter())) == ["no_text"]
    monkeypatch.setattr(pdf, "MAX_SECONDS", -1.0)
    assert codes(read(printed.letter())) == ["no_text"]


def test_a_process_that_answers_no_more_is_ended_and_the_next_letter_is_read(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(pdf, "_last", ())
    monkeypatch.setattr(pdf, "_KEPT_BYTES", 0)
    letter = printed.letter()
    assert read(letter).patient is not None
    running = pdf._CHILD._running
    assert running is not None
    os.kill(running.pid, signal.SIGSTOP)
    monkeypatch.setattr(pdf, "MAX_SECONDS", 0.0)
    assert codes(read(letter)) == ["no_text"]
    assert running.wait() == -signal.SIGKILL
    monkeypatch.undo()
    assert read(letter).patient is not None


@pytest.mark.parametrize(
    "text", ["Plan du parking\nSortie par le portail nord", "Facture n° 12\nTotal : 30 euros"]
)
def test_an_ordinary_pdf_is_no_letter(text: str):
    assert pdf.read(printed.pages(printed.lines(text))) is None
    assert by_mail(printed.pages(printed.lines(text))).outcome is Outcome.OTHER


def test_a_letter_without_a_patient_or_without_an_event_is_shown_to_a_person():
    for text in (
        "Lettre de liaison à la sortie\nCher confrère,",
        f"Patient : CORMERAIS Odette\nINS : {ODETTE.ins}\nBilan",
    ):
        found = by_mail(printed.pages(printed.lines(text)))
        assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.UNCLEAR)


# ------------------------------------------------------------------------------------- beside a document or a text


def with_pdf(content: bytes) -> Recognised:
    raw = letters.xdm_mail(with_pdf=False)
    message = letters.mail("Bonjour.\n", sender=WARD, to=RELAY_IN, attachments=[
        ("IHE_XDM.zip", letters.xdm([("DOC00001.XML", letters.cda(), "text/xml")]), "application/zip"),
        ("lettre.pdf", content, "application/pdf"),
    ])  # fmt: skip
    assert recognise(read_mail(raw)).outcome is Outcome.NOTICE
    return recognise(read_mail(message))


@pytest.mark.parametrize(
    "content", [printed.scan(), printed.locked(), printed.letter(), b"%PDF-1.4 and nothing more"]
)
def test_a_rendition_never_overrides_the_document_beside_it(content: bytes):
    found = with_pdf(content)
    assert found.outcome is Outcome.NOTICE
    notice = found.notice
    assert (notice.format, notice.package, notice.problems, notice.unknown) == ("cda", "xdm", (), ())
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps == MARTIN.rpps


def test_a_rendition_with_another_gp_leaves_none_certain():
    notice = with_pdf(printed.letter(gp=DUPONT)).notice
    assert notice.unknown == ("registered_gp",)
    assert notice.registered_gp is None or notice.registered_gp.rpps != DUPONT.rpps


def test_a_rendition_fills_no_gap_of_the_document():
    message = letters.mail("Bonjour.\n", sender=WARD, to=RELAY_IN, attachments=[
        ("lettre.xml", letters.cda(gp=None), "text/xml"), ("lettre.pdf", printed.letter(), "application/pdf"),
    ])  # fmt: skip
    found = recognise(read_mail(message))
    assert found.outcome is Outcome.NOTICE
    assert found.notice.registered_gp is None


def test_a_rendition_of_somebody_else_holds_the_whole():
    found = with_pdf(printed.letter(MOREL))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)
    text = letters.text_mail(attachments=[("lettre.pdf", printed.letter(MOREL), "application/pdf")])
    assert recognise(read_mail(text)).why is Why.TWO_PATIENTS
    twice = letters.mail("Bonjour.\n", sender=WARD, to=RELAY_IN, attachments=[
        ("a.pdf", printed.letter(), "application/pdf"), ("b.pdf", printed.letter(MOREL), "application/pdf"),
    ])  # fmt: skip
    assert recognise(read_mail(twice)).why is Why.TWO_PATIENTS


def test_a_mails_own_lines_go_before_the_pdf_that_hangs_on_it():
    plain = recognise(read_mail(letters.text_mail()))
    for content in (printed.letter(), printed.scan()):
        raw = letters.text_mail(attachments=[("lettre.pdf", content, "application/pdf")])
        assert recognise(read_mail(raw)) == plain


def test_a_mail_that_names_no_patient_leaves_it_to_the_pdf():
    found = by_mail(
        printed.letter(), "Type de document : Lettre de liaison à la sortie\nCode postal : 45000\n"
    )
    assert (found.outcome, found.notice.format) == (Outcome.NOTICE, "pdf")
    scanned = by_mail(
        printed.scan(), "Type de document : Lettre de liaison à la sortie\nCode postal : 45000\n"
    )
    assert scanned.outcome is Outcome.UNCLEAR


def test_a_pdf_in_fhir_names_the_patient_only_where_the_file_names_none():
    from relay.formats import fhir

    found = fhir.read(build.dumped(build.reference(printed.letter(), "application/pdf", who=None)))
    assert found is not None
    assert found.patient is not None
    assert found.patient.ins == ODETTE.ins
    other = fhir.read(build.dumped(build.reference(printed.letter(MOREL), "application/pdf")))
    assert other is not None
    assert codes(other) == ["two_patients"]
    scan = fhir.read(build.dumped(build.reference(printed.scan(), "application/pdf")))
    assert scan is not None
    assert (scan.event, scan.document, scan.problems) == ("discharge", "letter", ())


# ---------------------------------------------------------------------------------------------------------- safety


def test_scripts_links_and_attached_files_are_never_opened(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    target = tmp_path / "proof"
    catalogue = (
        b"/OpenAction<</S/Launch/F(%s)/Win<</F(%s)>>>>/AA<</WC<</S/JavaScript/JS(app.launchURL\\('http://127.0.0.1:9/'\\))>>>>"
        b"/Names<</EmbeddedFiles<</Names[(x)<</Type/Filespec/F(http://127.0.0.1:9/x)/FS/URL>>]>>"
        b"/JavaScript<</Names[(j)<</S/JavaScript/JS(this.submitForm\\('http://127.0.0.1:9/'\\))>>]>>>>"
        b"/AcroForm<</XFA(x)/Fields[]>>" % (str(target).encode(), str(target).encode())
    )

    def refused(*_: object) -> None:
        raise AssertionError("a PDF opened a socket")

    monkeypatch.setattr(socket, "socket", refused)
    notice = read(printed.pages(printed.lines(letters.labelled_lines(ODETTE, MARTIN)), catalogue=catalogue))
    assert notice.patient is not None
    assert notice.patient != Patient()
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [printed.bomb(b" " * (200 * 2**20)), printed.bomb(b"0 0 m 9 9 l S " * 8_000_000),
     printed.bomb(b"BT /F1 1 Tf " + b"(AAAAAAAAAAAAAAAA) Tj 1 1 Td " * 2_000_000 + b"ET"), printed.nested_forms()],
    ids=["blanks", "paths", "words", "nested forms"],
)  # fmt: skip
def test_a_page_that_asks_for_everything_gets_little_and_the_next_letter_is_read(content: bytes):
    started = time.perf_counter()
    assert len(content) < 600_000
    assert codes(read(content)) == ["no_text"]
    assert time.perf_counter() - started < 10
    assert read(printed.letter()).patient is not None


def test_no_hostile_pdf_raises_or_takes_long():
    files = [
        file
        for folder in ("pdfminer-samples", "verapdf-sample")
        for file in sorted((SAMPLES / "torture" / folder).rglob("*.pdf"))
    ]
    if not files:
        pytest.skip("shared samples are not here")
    for file in files:
        started = time.perf_counter()
        found = recognise(read_file(file.name, file.read_bytes()))
        assert time.perf_counter() - started < 5
        assert found.outcome is not Outcome.NOTICE, file.name
        assert found.why is not None


def test_the_encrypted_samples_are_shown_to_a_person():
    files = sorted((SAMPLES / "torture" / "pdfminer-samples").rglob("encryption/*.pdf"))
    if not files:
        pytest.skip("shared samples are not here")
    for file in files:
        notice = pdf.read(file.read_bytes())
        assert notice is not None, file.name
        assert codes(notice) == ["no_text"], file.name


def test_words_of_samples_come_out_in_order():
    file = SAMPLES / "torture" / "pdfminer-samples" / "samples" / "simple4.pdf"
    if not file.is_file():
        pytest.skip("shared samples are not here")
    words = pdf.text(file.read_bytes())
    assert words is not None
    assert re.sub(r"\s+", " ", words).strip()


@settings(max_examples=many(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    raw=st.sampled_from([printed.letter(), printed.scan(), printed.locked(), printed.columns()]),
    data=st.data(),
)
def test_no_mutation_raises(raw: bytes, data: st.DataObject):
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(raw) - 1))
        new = data.draw(
            st.binary(max_size=8) | st.sampled_from([b"[" * 500, b"<<" * 500, b"9" * 40, b"0 R", b"/Kids"])
        )
        raw = raw[:place] + new + raw[place + data.draw(st.integers(0, 20)) :]
    pdf.read(raw)


def test_a_letter_is_read_fast():
    content = printed.letter()
    pdf.read(content)
    started = time.process_time()
    for _ in range(20):
        pdf.read(content)
    assert (time.process_time() - started) / 20 < 0.02
