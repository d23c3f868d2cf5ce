"""Reports of machines are told from letters, and their enclosures stay closed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relay.formats.receipts import is_automatic_reply, is_machine_mail, read_receipt
from relay.model import ReceiptNews
from relay.reading import read
from tests import letters

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


def test_a_letter_is_no_receipt():
    for raw in (LETTER, letters.text_mail(), letters.reply("OK", to_message_id=OURS)):
        assert receipt(raw) is None
        assert not is_automatic_reply(read(raw))
        assert not is_machine_mail(read(raw))


@pytest.mark.parametrize(
    "subject",
    ["Réponse automatique : cabinet fermé", "Automatic reply: away", "Out of office", "Absence du bureau", "Automatische Antwort: x",
     "RE: Réponse automatique", "Abwesenheitsnotiz"],
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
    ],
)
def test_an_absence_note_is_known_by_its_headers(headers: dict[str, str]):
    raw = letters.mail("Je suis absent.", sender=GP, to="x@y.fr", subject="Re: lettre", headers=headers)
    assert is_automatic_reply(read(raw))


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
