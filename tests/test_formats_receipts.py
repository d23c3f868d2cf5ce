"""Reports of machines are told from letters, and their enclosures stay closed."""

from __future__ import annotations

import json
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats.receipts import is_automatic_reply, is_machine_mail, read_receipt
from relay.model import Notice, Outcome, ReceiptNews, Why
from relay.reading import read
from relay.recognition import recognise
from tests import letters
from tests.campaign import many

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
OURS = "<v1.thread.abcde.delivery.mac@relais45.mssante.fr>"
LETTER = letters.xdm_mail(message_id=OURS)
GP = "dr.martin@medecin.mssante.fr"


def receipt(raw: bytes) -> ReceiptNews | None:
    return read_receipt(read(raw))


@pytest.mark.parametrize(
    ("action", "status"),
    [("delivered", "delivered"), ("relayed", "delivered"), ("expanded", "delivered"), ("delayed", "delayed"), ("failed", "failed"),
     ("Failed (no such user)", "failed")],
)  # fmt: skip
def test_a_dsn_tells_the_fate_of_one_copy(action: str, status: str):
    raw = letters.dsn(LETTER, original_message_id=OURS, action=action, status="5.1.1", envid="abc123")
    assert receipt(raw) == ReceiptNews("dsn", status, "5.1.1", GP, OURS, "abc123")  # type: ignore[arg-type]


def test_of_several_recipients_the_worst_fate_counts():
    raw = letters.dsn(original_message_id=OURS).replace(
        b"\r\nFinal-Recipient",
        b"\r\nFinal-Recipient: rfc822; x@y.fr\r\nAction: failed\r\nStatus: 5.2.2\r\n\r\nFinal-Recipient",
    )
    news = receipt(raw)
    assert news is not None
    assert (news.status, news.code, news.recipient) == ("failed", "5.2.2", "x@y.fr")


@pytest.mark.parametrize(
    ("disposition", "status"),
    [
        ("manual-action/MDN-sent-manually; displayed", "read"),
        ("automatic-action/MDN-sent-automatically; processed", "processed"),
        ("manual-action/MDN-sent-manually; deleted", "delivered"),
        ("automatic-action/MDN-sent-automatically; dispatched", "delivered"),
        ("automatic-action/MDN-sent-automatically; denied", "delivered"),
        ("automatic-action/MDN-sent-automatically; failed", "error"),
        ("automatic-action/MDN-sent-automatically; processed/error", "error"),
    ],
)
def test_an_mdn_says_read_only_when_it_was_displayed(disposition: str, status: str):
    news = receipt(letters.mdn(original_message_id=OURS, disposition=disposition))
    assert news == ReceiptNews("mdn", status, None, GP, OURS)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("disposition", "error"),
    [
        ("automatic-action/MDN-sent-automatically; processed/error", "902^Identifiant de patient inconnu"),
        (
            "automatic-action/MDN-sent-automatically; processed/Error: 902^Identifiant^messageErrorCondition| E^Error",
            None,
        ),
    ],
    ids=["RFC 8098", "older form"],
)
def test_both_grammars_of_an_integration_error_are_read(disposition: str, error: str | None):
    raw = letters.mdn(LETTER, original_message_id=OURS, disposition=disposition, error=error,
                      subject="[KO Intégration système !][902] XDM/1.0/DDM+Lettre")  # fmt: skip
    assert receipt(raw) == ReceiptNews("mdn", "error", "902", GP, OURS)


def test_a_plain_ko_mail_is_a_receipt_although_the_package_hangs_on_it():
    news = receipt(letters.ko(original=letters.xdm()))
    assert news is not None
    assert (news.kind, news.status, news.code) == ("ko", "error", "902")


@pytest.mark.parametrize("code", ["900", "901", "902", "903", "904", "905", "906"])
@pytest.mark.parametrize(
    "subject",
    ["[KO Intégration système !][{}] XDM/1.0/DDM+Lettre de liaison", "[Erreur d’intégration !][{}] XDM/1.0/DDM+Lettre", "KO INTEGRATION {}",
     "RE: [KO Intégration système !][{}] XDM/1.0/DDM+Lettre", "Échec d'intégration ({})"],
)  # fmt: skip
def test_every_code_of_a_practices_program_is_read_from_its_subject(subject: str, code: str):
    raw = letters.mail("Voir le sujet.", sender=GP, to="retours@relais45.mssante.fr", subject=subject.format(code),
                       attachments=(("IHE_XDM.zip", letters.xdm(), "application/zip"),), headers={"In-Reply-To": OURS})  # fmt: skip
    assert receipt(raw) == ReceiptNews("ko", "error", code, GP, OURS)


def bounced(subject: str, sender: str, inner: bytes = LETTER, headers: dict[str, str] | None = None) -> bytes:
    """A bounce in words, with the whole letter attached, as some servers write it."""
    message = EmailMessage(policy=SMTP)
    message["From"], message["To"], message["Subject"] = sender, "retours@relais45.mssante.fr", subject
    for name, value in (headers or {}).items():
        message[name] = value
    message.set_content("Le message ci-joint a été refusé : 550 5.1.1 utilisateur inconnu.")
    message.add_attachment(message_from_bytes(inner, policy=SMTP))
    return message.as_bytes()


BOUNCES = ["Undelivered Mail Returned to Sender", "Votre message n'a pas pu être remis", "Non remis : Lettre de liaison", "Échec de remise",
           "Message en erreur", "Undeliverable: Lettre", "Unzustellbar: Lettre", "failure notice", "Courrier refusé",
           "Mail delivery failed: returning message to sender", "Notification d'état de remise (échec)",
           "Impossible de remettre votre message", "Ihre Nachricht wurde nicht zugestellt"]  # fmt: skip


@pytest.mark.parametrize("subject", BOUNCES)
@pytest.mark.parametrize(
    ("sender", "headers"),
    [
        ("MAILER-DAEMON@smtp.operateur.fr", {}),
        ("postmaster@chr-exemple.fr", {}),
        ("Microsoft Outlook <msx@chr-exemple.fr>", {"Return-Path": "<>"}),
        ("gateway@chr-exemple.fr", {"Auto-Submitted": "auto-replied"}),
    ],
)
def test_a_bounce_in_words_is_a_receipt_and_the_letter_in_it_stays_closed(
    subject: str, sender: str, headers: dict[str, str]
):
    for inner in (LETTER, letters.xdm_mail(), letters.text_mail()):
        found = recognise(read(bounced(subject, sender, inner, headers)))
        assert (found.outcome, found.notice) == (Outcome.RECEIPT, Notice())
        assert found.receipt is not None
        assert (found.receipt.kind, found.receipt.status, found.receipt.code) == ("dsn", "failed", "5.1.1")
    news = receipt(bounced(subject, sender, LETTER, headers))
    assert news is not None
    assert news.original_message_id == OURS


LINES = letters.labelled_lines(letters.ODETTE, letters.MARTIN)
QUOTED = f"-----Message d'origine-----\nDe : Cardio\nObjet : Lettre de liaison\n\n{LINES}"


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("Avertissement : message toujours en file", f"Votre message n'a pas encore été remis.\n{QUOTED}"),
        ("Lettre de liaison", LINES),
        ("", f"Warning: could not be sent for 4 hours\n\n{LINES}"),
    ],
)
@pytest.mark.parametrize("who", ["postmaster", "MAILER-DAEMON"])
def test_words_of_a_letter_that_a_mail_server_writes_are_no_letter(subject: str, words: str, who: str):
    raw = letters.mail(words, sender=f"{who}@chr-exemple.mssante.fr", to=letters.RELAY_IN, subject=subject)
    assert recognise(read(raw)).outcome in (Outcome.UNCLEAR, Outcome.RECEIPT)
    by_a_ward = raw.replace(who.encode(), b"sorties.cardio")
    assert recognise(read(by_a_ward)).outcome is Outcome.NOTICE


@pytest.mark.parametrize(
    ("subject", "why"),
    [
        ("Tr: Undelivered Mail Returned to Sender", Why.FORWARDED_REPLY),
        ("TR : Non remis : Lettre de liaison", Why.FORWARDED_REPLY),
        ("Fwd: Lu : Lettre de liaison", Why.FORWARDED_REPLY),
        ("Tr: Réponse automatique : Lettre de liaison", Why.FORWARDED_REPLY),
        ("Tr: Lettre de liaison", None),
    ],
)
def test_a_report_that_a_person_sends_on_with_the_letter_in_it_is_a_persons_to_see(
    subject: str, why: Why | None
):
    words = f"Pour info\n\n---------- Message transféré ----------\nDe : quelqu'un\n\n{LINES}"
    found = recognise(read(letters.mail(words, sender=letters.WARD, to=letters.RELAY_IN, subject=subject)))
    assert found.why is why
    assert found.outcome is (Outcome.UNCLEAR if why else Outcome.NOTICE)


def test_what_a_mail_server_sends_back_is_no_letter_whatever_it_calls_it():
    for subject in ("Lettre de liaison", "", "TR: Lettre de liaison", letters.xdm_subject(letters.ODETTE)):
        found = recognise(read(bounced(subject, "MAILER-DAEMON@smtp.operateur.fr", letters.xdm_mail())))
        assert (found.outcome, found.notice) == (Outcome.RECEIPT, Notice())
        without_sender = bounced(subject, "x@chr-exemple.fr", letters.xdm_mail(), {"Return-Path": "<>"})
        found = recognise(read(without_sender))
        assert (found.outcome, found.notice) == (Outcome.UNCLEAR, Notice()), "a person looks"


def test_a_warning_of_delay_is_no_failure():
    news = receipt(bounced("Delivery Delayed: Lettre", "MAILER-DAEMON@smtp.operateur.fr"))
    assert news is not None
    assert news.status == "delayed"


@pytest.mark.parametrize("raw", [
    letters.dsn(letters.xdm_mail(), original_message_id=OURS),
    letters.mdn(letters.xdm_mail(), original_message_id=OURS),
    letters.mdn(letters.xdm_mail(), original_message_id=OURS, disposition="x; processed/Error: 902^y"),
    letters.ko(original=letters.xdm()),
    letters.mdn(letters.text_mail(), original_message_id=OURS).replace(b"report-type=disposition-notification; ", b""),
    letters.dsn(letters.text_mail(), original_message_id=OURS).replace(b"multipart/report", b"multipart/mixed"),
    letters.dsn(letters.text_mail(), original_message_id=OURS).replace(b"message/delivery", b"message/global-delivery"),
    letters.mdn(letters.text_mail(), original_message_id=OURS).replace(b"message/disposition", b"message/global-disposition"),
], ids=["DSN", "MDN", "MDN of the older grammar", "KO with its package", "MDN without its type", "DSN called mixed", "DSN of RFC 6533", "MDN of RFC 6533"])  # fmt: skip
def test_nothing_inside_a_report_is_ever_read_as_a_letter(raw: bytes):
    found = recognise(read(raw))
    assert (found.outcome, found.notice) == (Outcome.RECEIPT, Notice())


CITIZEN = f"{letters.ODETTE.ins}@patient.mssante.fr"


@pytest.mark.parametrize(
    "raw",
    [
        letters.xdm_mail(sender=CITIZEN),
        letters.text_mail(sender=f"Cardiologie <{CITIZEN.upper()}>"),
        letters.cda_mail(sender=f"cardiologie@chr-exemple.mssante.fr, {CITIZEN}"),
        letters.xdm_mail(headers={"Sender": CITIZEN}),
        letters.text_mail(sender=CITIZEN, subject="TR: Lettre de liaison"),
    ],
    ids=["package", "text, in capitals", "second author", "sender", "sent on"],
)
def test_a_citizens_mail_is_never_a_notice(raw: bytes):
    found = recognise(read(raw))
    assert (found.outcome, found.why, found.notice) == (Outcome.OTHER, Why.CITIZEN, Notice())


def test_a_citizens_mail_sent_on_whole_is_shown_to_a_person():
    raw = bounced("TR: lettre", "cardiologie@chr-exemple.mssante.fr", letters.xdm_mail(sender=CITIZEN))
    found = recognise(read(raw))
    assert (found.outcome, found.notice) == (Outcome.UNCLEAR, Notice())


def test_a_letter_is_no_receipt():
    for raw in (LETTER, letters.text_mail(), letters.reply("OK", to_message_id=OURS)):
        assert receipt(raw) is None
        assert not is_automatic_reply(read(raw))
        assert not is_machine_mail(read(raw))


@pytest.mark.parametrize(
    "subject",
    ["Réponse automatique : cabinet fermé", "Réponse automatique: Lettre de liaison", "RÉPONSE AUTOMATIQUE", "RE: Réponse automatique",
     "Absence du bureau", "Absent du bureau : congés", "Message d'absence", "Notification d'absence", "Absence jusqu'au 12 janvier",
     "Je suis absente jusqu'au 7", "En congé", "Répondeur : cabinet fermé", "Auto: Lettre de liaison", "(Absence) Lettre",
     "Automatic reply: away", "Out of office", "Out of the office until Monday", "Auto-Reply: letter", "Autoreply: x", "Auto response",
     "Vacation notice", "I am out of the office",
     "Automatische Antwort: x", "Abwesenheitsnotiz", "Abwesend: x", "AW: Automatische Antwort: Brief",
     "Cabinet fermé jusqu'au 15 décembre", "Fermeture annuelle du cabinet", "Je suis en congés du 1er au 15", "Message automatique du secrétariat",
     "Absente du cabinet", "Antwort: Ich bin nicht im Büro"],
)  # fmt: skip
def test_an_absence_note_is_known_by_its_subject(subject: str):
    assert is_automatic_reply(read(letters.automatic(subject=subject, marked=False)))


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto-Submitted": "auto-replied"},
        {"X-Autoreply": "yes"},
        {"Precedence": "auto_reply"},
        {"X-Autorespond": "x"},
        {"X-AutoResponse": "x"},
        {"X-Auto-Reply": "x"},
        {"Auto-Submitted": "auto-replied (vacation)"},
        {"Auto-Submitted": "Auto-Notified; owner-email=x@y.fr"},
        {"Precedence": "AUTO_REPLY"},
        {"X-Autogenerated": "Reply"},
        {"X-POST-MessageClass": "9; Autoresponder"},
    ],
)
def test_an_absence_note_is_known_by_its_headers(headers: dict[str, str]):
    raw = letters.mail("Je suis absent.", sender=GP, to="x@y.fr", subject="Re: lettre", headers=headers)
    assert is_automatic_reply(read(raw))
    assert recognise(read(raw)).outcome is Outcome.AUTOMATIC


@pytest.mark.parametrize(
    "subject",
    ["Lettre de liaison", "Absents à l'appel", "Automatisation des sorties", "Résumé de l'absence d'effet", "Autonomie du patient",
     "Reply to your letter", "Antwort auf Ihren Brief", "Vaccination", "Cabinet du Dr Martin", "Sortie pendant les congés"],
)  # fmt: skip
def test_a_subject_that_only_resembles_one_is_no_absence_note(subject: str):
    assert not is_automatic_reply(read(letters.automatic(subject=subject, marked=False)))


@pytest.mark.parametrize(
    "headers",
    [
        {"List-Id": "<agenda.chr-exemple.fr>"},
        {"List-Unsubscribe": "<mailto:x@y.fr>"},
        {"Precedence": "list"},
        {"X-Loop": "x"},
    ],
)
def test_list_mail_is_automatic_and_a_letter_through_a_list_is_a_letter(headers: dict[str, str]):
    raw = letters.mail("Le bulletin.", sender="x@y.fr", to="z@y.fr", subject="Bulletin", headers=headers)
    assert (recognise(read(raw)).outcome, recognise(read(raw)).why) == (Outcome.AUTOMATIC, Why.AUTOMATIC)
    assert recognise(read(letters.text_mail(headers=headers))).outcome is Outcome.NOTICE


@pytest.mark.parametrize(
    "headers",
    [
        {"Auto-Submitted": "auto-generated"},
        {"Precedence": "bulk"},
        {"List-Id": "<x.y>"},
        {"Return-Path": "<>"},
    ],
)
def test_a_machines_own_mail_is_no_answer_in_a_persons_place(headers: dict[str, str]):
    document = read(letters.text_mail(headers=headers))
    assert is_machine_mail(document)
    assert not is_automatic_reply(document)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
@pytest.mark.parametrize("name", ["mdn_902_old_form", "ko_standard_mail_902"])
def test_the_national_examples_are_read_as_their_truth_says(name: str):
    path = SAMPLES / "french" / "ansforge+IG-hl7v2-volet-trans-lps-doc-cda-courriel-mss" / f"{name}.eml"
    truth = json.loads(Path(f"{path}.truth.json").read_text(encoding="utf-8"))
    news = receipt(path.read_bytes())
    assert news is not None
    assert (news.kind, news.code, news.status) == (
        truth["kind"].removesuffix("_mail"),
        truth["error_code"],
        "error",
    )
    if "original_message_id" in truth:
        assert news.original_message_id == f"<{truth['original_message_id']}>"


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_bounces_in_standard_form_are_failures_or_delays():
    seen = 0
    for path in sorted((SAMPLES / "torture" / "sisimai-bounces").rglob("*.eml")):
        document = read(path.read_bytes())
        if not any(part.media_type == "message/delivery-status" for part in document.parts):
            continue
        news = read_receipt(document)
        assert news is not None, path.name
        assert news.kind == "dsn"
        seen += news.status in ("failed", "delayed")
    assert seen > 100


REPORTS = [
    letters.dsn(LETTER, original_message_id=OURS, envid="abc"), letters.mdn(LETTER, original_message_id=OURS, disposition="a/b; processed/error", error="902^x"),
    letters.ko(original=letters.xdm()), bounced(BOUNCES[0], "MAILER-DAEMON@x.fr"), letters.automatic(to_message_id=OURS),
]  # fmt: skip


@settings(max_examples=many(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(REPORTS), st.data())
def test_no_mutation_raises_or_tells_of_a_delivery_that_was_not_told(raw: bytes, data: st.DataObject):
    spoilt = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, min(len(spoilt) - 1, 3000)))
        new = data.draw(
            st.binary(max_size=10) | st.sampled_from([b"\r\n\r\n", b": ", b"message/rfc822", b"<", b";" * 50])
        )
        spoilt[place : place + data.draw(st.integers(0, 40))] = new
    document = read(bytes(spoilt))
    news = read_receipt(document)
    is_automatic_reply(document)
    is_machine_mail(document)
    assert news is None or news.status in ("failed", "error", "delayed", "delivered", "processed")
    if news is not None:
        assert news.status != "read", "nobody read any of these"


@pytest.mark.parametrize(
    ("subject", "words", "status"),
    [
        ("Lu : Lettre de liaison – Réf. 7F3Q-K2M9", "Votre message\n  À : Relais\n a été lu le mardi 1 décembre 2026.", "read"),
        ("Read: Lettre de liaison", "Your message was read on Tuesday.", "read"),
        ("Non lu : Lettre de liaison", "Votre message a été supprimé sans avoir été lu le 01/12/2026.", "delivered"),
    ],
)  # fmt: skip
def test_a_read_receipt_in_words_alone_is_no_question_to_the_ward(subject: str, words: str, status: str):
    raw = letters.mail(words, sender=GP, to="x@y.fr", subject=subject, headers={"In-Reply-To": OURS})
    assert receipt(raw) == ReceiptNews("mdn", status, None, GP, OURS)  # type: ignore[arg-type]


def test_a_person_who_writes_that_a_letter_was_read_is_no_machine():
    for subject in ("Lu : Lettre de liaison", "Re: Lettre de liaison"):
        assert (
            receipt(letters.mail("Bien lu, mais quel traitement ?", sender=GP, to="x@y.fr", subject=subject))
            is None
        )
