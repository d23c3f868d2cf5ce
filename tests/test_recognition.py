"""What an arrival is: receipts, answers and absence notes first, then letters, and in doubt a person."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import replace
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.model import Outcome, Recognised, Why
from relay.reading import read, read_file
from relay.recognition import SEALED, has_attachment, opened, recognise, to_json
from tests import letters
from tests.campaign import many
from tests.letters import DURAND, MARTIN, ODETTE, WARD, printed

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
OURS = "<v1.thread.abcde.delivery.mac@relais45.mssante.fr>"
PAUL = letters.patient("LEROUX", "Paul", sex="M")
GP_LINES = f"Médecin traitant : Dr Noé Durand\nRPPS : {DURAND.rpps}\n"


def is_ours(name: str) -> bool:
    return name.startswith(("<v1.", "relais+"))


def judge(raw: bytes) -> Recognised:
    return recognise(read(raw), is_ours=is_ours)


@pytest.mark.parametrize(
    ("raw", "form", "package"),
    [
        (letters.xdm_mail(), "cda", "xdm"),
        (letters.xdm_mail(level=1), "cda", "xdm"),
        (letters.xdm_mail(subject="Lettre", headers={"X-MSS-CODECDA": ""}), "cda", "xdm"),
        (letters.cda_mail(), "cda", "mime"),
        (letters.cda_mail(media_type="application/octet-stream", filename="lettre"), "cda", "mime"),
        (letters.text_mail(), "text", None),
        (letters.text_mail(encoding="8bit", charset="iso-8859-1"), "text", None),
        (letters.text_mail(html_only=True, encoding="base64"), "text", None),
        (letters.text_mail(attachments=[("lettre.pdf", letters.pdf(), "application/pdf")]), "text", None),
    ],
)
def test_a_wards_letter_is_a_notice_in_every_dress(raw: bytes, form: str, package: str | None):
    found = judge(raw)
    notice = found.notice
    assert (found.outcome, found.why) == (Outcome.NOTICE, None)
    assert (notice.format, notice.package, notice.event, notice.document) == (
        form,
        package,
        "discharge",
        "letter",
    )
    assert notice.patient is not None
    assert (notice.patient.ins, notice.patient.ins_key_valid) == (ODETTE.ins, True)
    assert (notice.patient.birth_name, notice.patient.used_name) == ("CORMERAIS", "VALBRUNE")
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps == MARTIN.rpps
    assert notice.problems == ()


@pytest.mark.parametrize(("name", "content"), [("a.xml", letters.cda()), ("a.zip", letters.xdm()), ("a.eml", letters.xdm_mail()),
                                               ("a.txt", letters.labelled_lines(ODETTE, MARTIN).encode())])  # fmt: skip
def test_a_file_is_recognised_as_well(name: str, content: bytes):
    assert recognise(read_file(name, content)).outcome is Outcome.NOTICE


def test_a_bad_key_and_a_missing_key_are_told_apart():
    assert ODETTE.ins is not None
    wrong = ODETTE.ins[:13] + "01"
    assert judge(letters.text_mail(patient=replace(ODETTE, ins=wrong))).notice.patient.ins_key_valid is False  # type: ignore[union-attr]
    bare = ODETTE.ins[:13]
    assert judge(letters.text_mail(patient=replace(ODETTE, ins=bare))).notice.patient.ins_key_valid is None  # type: ignore[union-attr]


# ------------------------------------------------------------------------------------------ what is no letter


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (letters.dsn(letters.xdm_mail(message_id=OURS), original_message_id=OURS), "dsn"),
        (
            letters.mdn(
                letters.xdm_mail(message_id=OURS),
                original_message_id=OURS,
                subject=letters.xdm_subject(ODETTE),
            ),
            "mdn",
        ),
        (letters.ko(original=letters.xdm()), "ko"),
    ],
)
def test_a_report_is_a_receipt_and_what_it_encloses_is_not_read(raw: bytes, kind: str):
    found = judge(raw)
    assert found.outcome is Outcome.RECEIPT
    assert found.receipt is not None
    assert found.receipt.kind == kind
    assert found.notice.patient is None


@pytest.mark.parametrize("marked", [True, False])
@pytest.mark.parametrize("answering", [OURS, None])
def test_an_absence_note_is_automatic_even_when_it_answers_us(marked: bool, answering: str | None):
    assert judge(letters.automatic(to_message_id=answering, marked=marked)).outcome is Outcome.AUTOMATIC


def test_an_absence_note_that_carries_a_package_is_shown_to_a_person():
    found = judge(letters.xdm_mail(headers={"Auto-Submitted": "auto-replied"}))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.UNCLEAR)


@pytest.mark.parametrize(
    "headers", [{"Auto-Submitted": "auto-generated"}, {"Precedence": "bulk"}, {"Return-Path": "<>"}]
)
def test_a_hospital_system_may_mail_letters_by_itself(headers: dict[str, str]):
    assert judge(letters.xdm_mail(headers=headers)).outcome is Outcome.NOTICE
    assert judge(letters.text_mail(headers=headers)).outcome is Outcome.NOTICE
    other = letters.mail(
        "Rapport quotidien", sender="cron@x.fr", to="y@x.fr", subject="Rapport", headers=headers
    )
    assert judge(other).outcome is Outcome.AUTOMATIC


def test_an_answer_to_us_is_a_reply_whatever_it_quotes():
    quoting = (
        letters.reply("OK", to_message_id=OURS) + b"\r\n> " + letters.labelled_lines(ODETTE, MARTIN).encode()
    )
    assert judge(quoting).outcome is Outcome.REPLY
    by_address = letters.mail("OK", sender="a@b.fr", to="relais+token@relais45.mssante.fr", subject="x")
    assert judge(by_address).outcome is Outcome.REPLY
    delivered = letters.mail(
        "OK", sender="a@b.fr", to="x@y.fr", headers={"Delivered-To": "relais+t@relais45.mssante.fr"}
    )
    assert judge(delivered).outcome is Outcome.REPLY
    stranger = letters.reply("OK", to_message_id="<other@x>", subject="RE: planning")
    assert judge(stranger).outcome is Outcome.OTHER


def test_a_forward_of_our_letter_is_shown_to_a_person():
    raw = letters.reply(
        letters.labelled_lines(ODETTE, MARTIN), to_message_id=OURS, subject="TR: Lettre de liaison"
    )
    found = judge(raw)
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.FORWARDED_REPLY)


@pytest.mark.parametrize("subject", ["TR: Lettre de liaison", "Fwd: Lettre", "[Externe] FW: Lettre"])
def test_a_letter_sent_on_by_hand_is_a_notice_that_says_so(subject: str):
    quoted = "".join(f"> {line}\n" for line in letters.labelled_lines(ODETTE, MARTIN).split("\n"))
    found = judge(letters.text_mail(body=f"Pour le relais.\n\n{quoted}", subject=subject))
    assert found.outcome is Outcome.NOTICE
    assert [problem.code for problem in found.notice.problems] == ["forwarded"]
    assert found.notice.registered_gp is not None
    assert found.notice.registered_gp.rpps == MARTIN.rpps


def sent_on(raw: bytes) -> bytes:
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = WARD, letters.RELAY_IN, "TR: lettre"
    message.set_content("Pour le relais.")
    message.add_attachment(message_from_bytes(raw, policy=SMTP))
    return message.as_bytes()


@pytest.mark.parametrize("raw", [letters.xdm_mail(), letters.text_mail()])
def test_a_letter_sent_on_as_an_attachment_is_opened(raw: bytes):
    found = judge(sent_on(raw))
    assert found.outcome is Outcome.NOTICE
    assert found.notice.patient is not None
    assert found.notice.patient.ins == ODETTE.ins
    assert [problem.code for problem in found.notice.problems] == ["forwarded"]


def test_a_report_sent_on_as_an_attachment_is_shown_to_a_person():
    report = letters.mdn(letters.xdm_mail(message_id=OURS), original_message_id=OURS)
    for raw in (report, letters.xdm_mail(message_id=OURS)):
        found = judge(sent_on(raw))
        assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.FORWARDED_REPLY)


def test_a_citizens_mail_sent_on_as_an_attachment_is_shown_to_a_person():
    for sender in (f"{ODETTE.ins}@patient.mssante.fr", f"{WARD}, {ODETTE.ins}@patient.mssante.fr"):
        found = judge(sent_on(letters.text_mail(sender=sender)))
        assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.UNCLEAR), sender
        assert found.notice.patient is None, "what a patient writes announces nobody"


def test_a_letter_under_a_subject_like_an_absence_note_is_never_thrown_away():
    found = judge(letters.text_mail(gp=None, subject="Absence : médecin traitant non déclaré"))
    assert (found.outcome, found.notice.event) == (Outcome.UNCLEAR, "discharge")


def test_a_colleagues_answer_that_quotes_a_letter_is_no_letter():
    quoted = "".join(f"> {line}\n" for line in letters.labelled_lines(ODETTE, MARTIN).split("\n"))
    found = judge(letters.text_mail(body=f"Merci, bien vu.\n\n{quoted}", subject="RE: patiente"))
    assert found.outcome is Outcome.OTHER


def test_our_own_mail_and_citizens_mail_are_no_letters():
    assert judge(letters.xdm_mail(message_id=OURS)).why is Why.OWN_MESSAGE
    found = judge(letters.xdm_mail(sender=f"{ODETTE.ins}@patient.mssante.fr"))
    assert (found.outcome, found.why) == (Outcome.OTHER, Why.CITIZEN)


@pytest.mark.parametrize("why", sorted(SEALED))
def test_no_seal_makes_our_own_mail_or_a_citizens_anything_else(why: Why):
    for raw in (
        letters.xdm_mail(message_id=OURS),
        letters.xdm_mail(sender=f"{ODETTE.ins}@patient.mssante.fr"),
    ):
        found = judge(raw)
        assert opened(found, why) is found
    held = opened(judge(letters.xdm_mail()), why)
    assert (held.outcome, held.why) == (Outcome.UNCLEAR, why)
    assert [problem.code for problem in held.notice.problems] == [why.value]
    news = judge(letters.mail("Réunion demain.", sender=WARD, to="x@y.fr", subject="Réunion"))
    expected = Outcome.UNCLEAR if why is Why.NOT_OPENED else Outcome.OTHER
    assert opened(news, why).outcome is expected, "what nobody could open may be anything"


@pytest.mark.parametrize(
    "raw",
    [
        letters.mail(
            "Réunion demain à 14:00, salle B.\nService : Cardiologie",
            sender=WARD,
            to="x@y.fr",
            subject="Réunion",
        ),
        letters.mail("Patient : merci de votre patience", sender=WARD, to="x@y.fr", subject="Parking"),
        letters.mail("", sender=WARD, to="x@y.fr"),
    ],
)
def test_ordinary_mail_is_other(raw: bytes):
    assert judge(raw).outcome is Outcome.OTHER


# -------------------------------------------------------------------------------------------- in doubt a person


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (letters.xdm_mail(letter=letters.cda(patient=PAUL)), Why.TWO_PATIENTS),
        (letters.xdm_mail(body=letters.labelled_lines(PAUL, MARTIN)), Why.TWO_PATIENTS),
        (letters.text_mail(body=letters.labelled_lines(ODETTE, MARTIN) + "\n" + letters.labelled_lines(PAUL, MARTIN)), Why.TWO_PATIENTS),
        (letters.xdm_mail(package=letters.xdm()[:-60]), Why.BROKEN_PACKAGE),
        (letters.xdm_mail(package=letters.xdm(meta=letters.metadata([("DOC00001.XML", b"x", "text/xml")]))), Why.BROKEN_PACKAGE),
        (letters.cda_mail(letter=letters.cda()[:-300]), Why.BROKEN_PACKAGE),
        (letters.xdm_mail(pdf_size=9000)[:-4000], Why.TRUNCATED),
        (b"From: other@x.fr\r\n" + letters.text_mail(), Why.UNKNOWN_SENDER),
        (letters.mail("Voir ci-joint.", sender=WARD, to="x@y.fr", subject=letters.xdm_subject(ODETTE)), Why.UNCLEAR),
        (letters.text_mail(body="Lettre jointe.", subject="Lettre de liaison"), Why.UNCLEAR),
        (letters.text_mail(body=f"Patient : VALBRUNE Odette\nINS : {ODETTE.ins}\n", subject="Bilan"), Why.UNCLEAR),
        (letters.text_mail(body="Voir.", subject="x", attachments=[("x.zip", letters.zipped([("a", b"b")]), "application/zip")]),
         Why.ATTACHMENT_UNREAD),
    ],
    ids=["CDA and metadata", "CDA and text", "text and text", "cut ZIP", "lying metadata", "cut CDA", "cut mail", "two authors",
         "announced only", "no patient", "no event", "unknown ZIP"],
)  # fmt: skip
def test_in_doubt_a_person_decides(raw: bytes, why: Why):
    found = judge(raw)
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, why)


def beside(raw: bytes, content: bytes, media_type: str, name: str) -> bytes:
    """The mail with one thing more attached."""
    message = message_from_bytes(raw, policy=SMTP)
    if message.get_content_type() != "multipart/mixed":
        message.make_mixed()
    if media_type == "message/rfc822":
        message.add_attachment(message_from_bytes(content, policy=SMTP))
    else:
        main, _, sub = media_type.partition("/")
        message.add_attachment(content, maintype=main, subtype=sub, filename=name)
    return message.as_bytes()


OTHERS = {
    "message": (letters.text_mail(patient=PAUL), "message/rfc822", ""),
    "message with a package": (letters.xdm_mail(patient=PAUL), "message/rfc822", ""),
    "text file": (letters.labelled_lines(PAUL, MARTIN).encode(), "text/plain", "autre.txt"),
    "HTML file": (f"<p>{letters.labelled_lines(PAUL, MARTIN).replace(chr(10), '</p><p>')}</p>".encode(), "text/html", "autre.html"),
}  # fmt: skip


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize(
    "raw", [letters.text_mail(), letters.xdm_mail(), letters.cda_mail()], ids=["text", "XDM", "CDA"]
)
def test_a_letter_that_would_leave_with_another_patients_is_held(raw: bytes, kind: str):
    found = judge(beside(raw, *OTHERS[kind]))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)
    assert "two_patients" in {problem.code for problem in found.notice.problems}


@pytest.mark.parametrize("raw", [letters.text_mail(), letters.xdm_mail()], ids=["text", "XDM"])
def test_what_hangs_beside_a_letter_and_repeats_its_patient_changes_nothing(raw: bytes):
    again = letters.labelled_lines(ODETTE, DURAND)
    for content, media_type, name in (
        (letters.text_mail(), "message/rfc822", ""), (again.encode(), "text/plain", "copie.txt"),
        (b"Plan du service", "text/plain", "plan.txt"),
        (letters.mail("Bonjour", sender=WARD, to="x@y.fr", subject="Question"), "message/rfc822", ""),
    ):  # fmt: skip
        found = judge(beside(raw, content, media_type, name))
        assert found.outcome is Outcome.NOTICE
        assert found.notice.registered_gp is not None
        assert found.notice.registered_gp.rpps == MARTIN.rpps


@pytest.mark.parametrize(
    ("above", "outcome"),
    [
        ("Mme Leroux est sortie ce jour du service.", Outcome.UNCLEAR),
        ("Ci-dessous la lettre.", Outcome.NOTICE),
        (f"Mme Valbrune est sortie ce jour du service.\nINS : {ODETTE.ins}", Outcome.NOTICE),
    ],
    ids=["of somebody", "of nobody", "of the same patient, who is named"],
)
def test_words_about_somebody_above_an_older_letter_are_shown_to_a_person(above: str, outcome: Outcome):
    older = "-----Message d'origine-----\nDe : Secrétariat\nEnvoyé : mardi 1 décembre 2026\nObjet : Lettre\n"
    body = f"Bonjour,\n\n{above}\n\n{older}\n{letters.labelled_lines(ODETTE, MARTIN)}"
    found = judge(letters.text_mail(body=body))
    assert (found.outcome, found.why) == (outcome, Why.UNCLEAR if outcome is Outcome.UNCLEAR else None)
    assert found.notice.patient is not None
    assert found.notice.patient.ins == ODETTE.ins


def test_html_that_names_somebody_else_than_the_plain_words_holds_the_letter():
    def html(who: object) -> str:
        return f"<p>{letters.labelled_lines(who, MARTIN).replace(chr(10), '</p><p>')}</p>"  # type: ignore[arg-type]

    assert judge(letters.text_mail(html=html(ODETTE))).outcome is Outcome.NOTICE
    found = judge(letters.text_mail(html=html(PAUL)))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)


def test_a_letter_that_only_the_html_holds_is_shown_to_a_person():
    lines = letters.labelled_lines(ODETTE, MARTIN).replace("\n", "<br>")
    for stub in ("Voir le message en HTML.", "Bonjour,"):
        found = judge(letters.text_mail(body=stub, subject="Patiente", html=f"<p>{lines}</p>"))
        assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.UNCLEAR)
        assert found.notice.patient is not None
    quoted = f"<p>Merci, bien vu.</p><blockquote>{lines}</blockquote>"
    assert (
        judge(letters.text_mail(body="Merci, bien vu.", subject="RE: patiente", html=quoted)).outcome
        is Outcome.OTHER
    )
    assert (
        judge(letters.text_mail(body="À demain.", subject="Planning", html="<p>À demain.</p>")).outcome
        is Outcome.OTHER
    )


def test_what_hangs_on_an_attached_message_counts_as_well():
    once = beside(letters.mail("Voir.", sender=WARD, to="x@y.fr", subject="x"), *OTHERS["message"])
    for inner in (once, beside(letters.mail("Voir.", sender=WARD, to="x@y.fr"), once, "message/rfc822", "")):
        found = judge(beside(letters.xdm_mail(), inner, "message/rfc822", ""))
        assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)


def test_a_letter_with_a_heap_of_other_texts_is_shown_to_a_person_soon():
    heap = EmailMessage(policy=SMTP)
    heap["From"], heap["To"], heap["Subject"] = WARD, letters.RELAY_IN, "Lettre de liaison"
    heap.set_content(letters.labelled_lines(ODETTE, MARTIN))
    for number in range(200):
        heap.add_attachment(f"Note {number} : rien\n" * 1000, filename=f"{number}.txt")
    raw = heap.as_bytes()
    began = time.process_time()
    found = judge(raw)
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.UNCLEAR)
    assert time.process_time() - began < 4


def test_a_pdf_alone_is_nothing_known_but_hangs_there():
    document = read(
        letters.mail(
            "Voir.",
            sender=WARD,
            to="x@y.fr",
            attachments=[("a.pdf", letters.pdf("Plan du parking"), "application/pdf")],
        )
    )
    assert recognise(document).outcome is Outcome.OTHER
    assert has_attachment(document)
    assert not has_attachment(read(letters.text_mail()))


def test_bytes_that_are_no_mail_are_unreadable():
    for raw in (b"", b"\x00\xff" * 500):
        assert judge(raw).why is Why.UNREADABLE


# --------------------------------------------------------------------------------------------------- merging


def test_the_document_beats_the_mails_text_which_only_fills_gaps():
    text = (
        letters.labelled_lines(ODETTE, None, ward="Urgences", stay="AUTRE")
        + "Degré d'urgence : urgent\n"
        + GP_LINES
    )
    notice = judge(letters.xdm_mail(gp=None, body=text)).notice
    assert notice.stay is not None
    assert (notice.stay.ward, notice.stay.number) == ("Service de Cardiologie", "S-2026-004217")
    assert notice.urgency == "urgent"
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps == DURAND.rpps


def test_a_package_of_pdf_alone_takes_its_traits_from_the_mail():
    package = letters.xdm([("DOC00001.PDF", letters.pdf(), "application/pdf")])
    notice = judge(letters.xdm_mail(package=package, body=letters.labelled_lines(ODETTE, MARTIN))).notice
    assert notice.patient is not None
    assert (notice.patient.birth_name, notice.patient.birth_date) == ("CORMERAIS", ODETTE.birth_date)
    assert notice.patient.ins == ODETTE.ins


def test_two_registered_gps_in_one_mail_are_nobodys_to_choose_from():
    text = letters.labelled_lines(ODETTE, None) + GP_LINES
    notice = judge(letters.xdm_mail(body=text)).notice
    assert notice.unknown == ("registered_gp",)


def test_the_strictest_word_on_consent_counts():
    text = letters.labelled_lines(ODETTE, MARTIN) + "Opposition : oui\n"
    assert judge(letters.xdm_mail(body=text)).notice.consent == "opposed"


# ------------------------------------------------------------------------------------------------------ JSON


def test_the_json_has_the_shape_of_the_contract():
    row = json.loads(json.dumps(to_json(judge(letters.xdm_mail()), file="a.eml")))
    assert row["file"] == "a.eml"
    assert (row["outcome"], row["format"], row["package"]) == ("notice", "cda", "xdm")
    assert row["patient"] == {
        "ins": ODETTE.ins, "ins_oid": letters.INS_TEST, "ins_key_valid": True, "birth_name": "CORMERAIS",
        "used_name": "VALBRUNE", "given_names": ["Odette", "Marie-Louise"], "sex": "F", "birth_date": "1948-03-17",
        "birth_place": "45234", "local_ids": [{"system": letters.IPP_SYSTEM, "value": "900012345"}],
    }  # fmt: skip
    assert row["registered_gp"] == {
        "family_name": "MARTIN", "given_name": "Camille", "rpps": MARTIN.rpps, "mss_address": MARTIN.mss_address,
        "organisation": "Cabinet médical des Tilleuls",
    }  # fmt: skip
    assert row["stay"]["discharged"] == "2026-12-01T14:00:00+01:00"
    assert row["recipients"] == [{"name": "Camille MARTIN", "rpps": MARTIN.rpps, "copy": False}]
    assert row["receipt"] is None


def test_what_is_absent_is_null_and_a_day_stays_a_day():
    row = to_json(judge(letters.text_mail(gp=None)), file="x")
    assert (row["registered_gp"], row["author"], row["receipt"], row["consent"]) == (None, None, None, None)
    body = letters.labelled_lines(ODETTE, None).replace("01/12/2026 14:00", "01/12/2026")
    stay = to_json(judge(letters.text_mail(body=body)), file="x")["stay"]
    assert isinstance(stay, dict)
    assert stay["discharged"] == "2026-12-01"
    empty = to_json(judge(b""), file="x")
    assert (empty["patient"], empty["stay"], empty["outcome"]) == (None, None, "other")
    news = to_json(judge(letters.mdn(original_message_id=OURS)), file="x")["receipt"]
    assert isinstance(news, dict)
    assert (news["kind"], news["status"], news["original_message_id"]) == ("mdn", "read", OURS)


# ----------------------------------------------------------------------------------------------------- corpora


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_no_ordinary_mail_of_the_corpora_is_taken_for_a_letter():
    mails = wrong = 0
    for folder in ("torture", "health"):
        for path in sorted((SAMPLES / folder).rglob("*")):
            if not path.is_file():
                continue
            document = read(path.read_bytes())
            began = time.process_time()
            found = recognise(document, is_ours=is_ours)
            assert time.process_time() - began < 10, path.name
            to_json(found, file=path.name)
            mails += document.is_mail
            wrong += document.is_mail and found.outcome is Outcome.NOTICE
    assert mails > 700
    assert wrong == 0


@settings(max_examples=many(120), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(
        [letters.xdm_mail(), letters.text_mail(), letters.mdn(original_message_id=OURS), letters.cda_mail()]
    ),
    st.data(),
)
def test_no_mutation_raises(raw: bytes, data: st.DataObject):
    spoilt = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(spoilt) - 1))
        spoilt[place : place + data.draw(st.integers(0, 60))] = data.draw(st.binary(max_size=10))
    found = judge(bytes(spoilt))
    to_json(found, file="x")
    if found.outcome is Outcome.NOTICE and found.notice.patient is not None and found.notice.package == "xdm":
        # A spoilt package is held: what counts as a notice is the letter as it was.
        assert found.notice.registered_gp is None or found.notice.registered_gp.rpps == MARTIN.rpps


def test_recognising_is_fast_enough_for_the_daemon():
    big, small = letters.xdm_mail(pdf_size=70_000, cda_size=60_000), letters.text_mail(
        body=letters.labelled_lines(ODETTE, MARTIN) + "\n" + f"{letters.PARAGRAPH}\n\n" * 12
    )  # fmt: skip
    assert len(big) > 190_000
    assert len(small) > 4_000
    for raw, limit in ((big, 0.005), (small, 0.001)):
        judge(raw)
        times = []
        for _ in range(15):
            began = time.process_time()
            judge(raw)
            times.append(time.process_time() - began)
        assert min(times) < limit, hashlib.sha256(raw).hexdigest()


PROSE = "Cher confrère,\nVotre patiente {} a été hospitalisée du 20/11/2026 au 01/12/2026.\n"
STRANGER = "Mme VASSEUR Odile, née le 02/07/1944,"
HERSELF = f"Mme {ODETTE.used_name} Odette, née le {ODETTE.birth_date:%d/%m/%Y},"
_PDF = printed.pages(printed.lines(PROSE.format(STRANGER)))
_OWN_PDF = printed.pages(printed.lines(PROSE.format(HERSELF)))


def _with(name: str, content: bytes, media_type: str, body: str | None = None) -> bytes:
    lines = letters.labelled_lines(ODETTE, MARTIN) if body is None else body
    return letters.text_mail(body=lines, attachments=[(name, content, media_type)])


@pytest.mark.parametrize(
    ("stranger", "herself"),
    [
        (_with("courrier.pdf", _PDF, "application/pdf"), _with("courrier.pdf", _OWN_PDF, "application/pdf")),
        (_with("courrier.txt", PROSE.format(STRANGER).encode(), "text/plain"), _with("courrier.txt", PROSE.format(HERSELF).encode(), "text/plain")),
        (_with("lettre.xml", letters.cda(), "text/xml", PROSE.format(STRANGER)), _with("lettre.xml", letters.cda(), "text/xml", PROSE.format(HERSELF))),
        (_with("courriers.zip", letters.zipped([("a.pdf", _PDF)]), "application/zip"), _with("courriers.zip", letters.zipped([("a.pdf", _OWN_PDF)]), "application/zip")),
        (_with("courriers.zip", letters.zipped([("a.eml", _with("b.pdf", _PDF, "application/pdf"))]), "application/zip"),
         _with("courriers.zip", letters.zipped([("a.eml", _with("b.pdf", _OWN_PDF, "application/pdf"))]), "application/zip")),
        (_with("courriers.zip", letters.zipped([("a.txt", b"Patient : VASSEUR Odile\nSexe : F\nNee le : 02/07/1944\n")]), "application/zip"),
         _with("courriers.zip", letters.zipped([("a.txt", letters.labelled_lines(ODETTE, MARTIN).encode())]), "application/zip")),
    ],
    ids=["a PDF in prose", "a text file in prose", "prose over a CDA", "an archive of PDFs", "a mail in an archive", "text in an archive"],
)  # fmt: skip
def test_somebody_else_in_prose_or_in_an_archive_beside_a_letter_is_two_patients(
    stranger: bytes, herself: bytes
):
    found, same = judge(stranger), judge(herself)
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)
    assert same.outcome is Outcome.NOTICE


def test_an_archive_of_archives_is_not_opened_for_ever():
    inside = _with("a.zip", letters.zipped([("x.txt", b"x" * 40)]), "application/zip")
    for number in range(30):
        inside = _with("a.zip", letters.zipped([(f"{number}.eml", inside)]), "application/zip")
    began = time.process_time()
    assert judge(inside).outcome is not Outcome.OTHER
    assert time.process_time() - began < 1
