"""What leaves is what arrived: documents byte for byte, headers that nobody can add to, the same bytes each time."""

from __future__ import annotations

import email
import email.header
import email.policy
import hashlib
import time
from email.message import EmailMessage

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.composing import compose, hand_on
from relay.model import MailRecipe
from relay.reading import fingerprint, html_text, read, read_file
from tests import letters
from tests.campaign import many
from tests.letters import hl7

TEXT = "Réf. 7F3Q-K2M9 — Répondez par un mot : OK (bien reçu), RAPPEL (rappelez-moi), ERREUR (pas mon patient).\n"
HEADERS = (
    ("From", "Cardiologie – CHR d'Exemple (Relais) <relais@relais45.mssante.fr>"),
    ("To", "dr.martin@medecin.mssante.fr"),
    ("Subject", "Lettre de liaison – Réf. 7F3Q-K2M9"),
    ("Date", "Tue, 01 Dec 2026 17:42:00 +0100"),
    ("Message-ID", "<v1.thread.abcde.delivery.mac@relais45.mssante.fr>"),
    ("Auto-Submitted", "auto-generated"),
)


def recipe(
    carries: str = "documents", *, text: str = TEXT, headers: tuple[tuple[str, str], ...] = HEADERS
) -> MailRecipe:
    return MailRecipe("relais@relais45.mssante.fr", headers, text, "=_unforeseeable", "envelope", carries)  # type: ignore[arg-type]


def parsed(raw: bytes) -> EmailMessage:
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not any(part.defects for part in message.walk())
    return message


def documents(raw: bytes) -> list[tuple[str | None, str]]:
    return [
        (part.get_filename(), hashlib.sha256(part.get_payload(decode=True)).hexdigest())
        for part in parsed(raw).walk()
        if not part.is_multipart() and part.get_filename()
    ]


ORIGINALS = {
    "XDM": letters.xdm_mail(pdf_size=5000),
    "CDA": letters.cda_mail(),
    "text": letters.text_mail(),
    "text and PDF": letters.text_mail(attachments=[("Lettre à lire.pdf", letters.pdf(), "application/pdf")]),
    "both alternatives": letters.text_mail(
        html="<p>x</p>", attachments=[("é.pdf", letters.pdf(), "application/pdf")]
    ),
    "Latin-1": letters.text_mail(encoding="8bit", charset="iso-8859-1"),
}


@pytest.mark.parametrize("original", ORIGINALS.values(), ids=ORIGINALS)
def test_documents_and_words_arrive_as_they_were_sent(original: bytes):
    written = compose(recipe(), original)
    assert documents(written) == documents(original)
    body = parsed(written).get_body(("plain",))
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").startswith(TEXT.strip())
    assert read(original).text.strip() in read(written).text
    for part in read(original).attachments:
        assert original[part.start : part.end] in written


@pytest.mark.parametrize("original", [*ORIGINALS.values(), None])
def test_the_same_recipe_gives_the_same_bytes_that_any_server_carries(original: bytes | None):
    written = compose(recipe(), original)
    assert written == compose(recipe(), original)
    assert written.count(b"\n") == written.count(b"\r\n") == written.count(b"\r")
    assert max(map(len, written.split(b"\r\n"))) <= 998
    head = written.split(b"\r\n\r\n")[0]
    assert head.isascii()
    message = parsed(written)
    assert message["Subject"] == "Lettre de liaison – Réf. 7F3Q-K2M9"
    assert message["From"].addresses[0].display_name == "Cardiologie – CHR d'Exemple (Relais)"
    assert message["From"].addresses[0].addr_spec == "relais@relais45.mssante.fr"


def test_the_words_of_a_text_mail_are_ascii_on_the_wire():
    assert compose(recipe("text"), letters.text_mail(encoding="8bit", charset="iso-8859-1")).isascii()


def test_text_alone_carries_no_attachment_and_nothing_carries_nothing():
    original = ORIGINALS["text and PDF"]
    assert documents(compose(recipe("text"), original)) == []
    assert "VALBRUNE" in read(compose(recipe("text"), original)).text
    assert "VALBRUNE" not in read(compose(recipe("none"), original)).text
    assert read(compose(recipe("none"), None)).text.strip() == TEXT.strip()


def test_an_html_letter_gives_its_words_and_keeps_its_form():
    original = letters.text_mail(html_only=True, encoding="base64")
    written = read(compose(recipe(), original))
    assert "Médecin traitant : Dr Camille Martin" in written.text
    assert [(part.media_type, part.filename) for part in written.attachments] == [
        ("text/html", "lettre.html")
    ]
    assert written.attachments[0].content() == read(original).parts[0].content()


SAID = "Cher confrère,\n\nMme VALBRUNE sort ce jour.\nKardégic 75 mg : un sachet par jour, à poursuivre\njusqu'à la consultation.\n"
FORM = (
    "<html><head><style>p { color: red }</style></head><body><p>Cher&nbsp;confrère,</p><p>Mme <b>VALBRUNE</b> sort ce "
    "jour.</p><ul><li>Kardégic 75&nbsp;mg : un sachet par jour, à poursuivre jusqu'à la consultation.</li></ul>%s</body></html>"
)
STOPPED = "<table><tr><td>Previscan</td><td>ARRÊTÉ</td></tr></table>"


def with_html(kind: str, plain: str, html: str) -> bytes:
    """A mail of both, as multipart/`kind`."""
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["Subject"] = "a@b.fr", "Sortie"
    message.set_content(plain)
    if kind == "alternative":
        message.add_alternative(html, subtype="html")
    else:
        message.add_attachment(html, subtype="html", disposition="inline")
    return message.as_bytes()


@pytest.mark.parametrize("kind", ["alternative", "mixed"])
@pytest.mark.parametrize(
    ("plain", "html"),
    [
        (SAID, FORM % STOPPED),
        (SAID, FORM.replace("75&nbsp;mg", "160 mg") % ""),
        (SAID, STOPPED),
        ("Voir la version HTML de ce message.\n", FORM % STOPPED),
        (" \n", FORM % STOPPED),
    ],
    ids=["one line more", "another dose", "something else", "a stub", "nothing"],
)
def test_what_only_the_html_says_leaves_too(kind: str, plain: str, html: str):
    written = read(compose(recipe(), with_html(kind, plain, html)))
    assert plain.strip() in written.text
    said = " ".join(written.text.split())
    for words in ("Previscan ARRÊTÉ", "160 mg"):
        assert (words in said) == (words in " ".join(html_text(html).split()))
    assert "color: red" not in written.text
    names = [part.filename for part in written.attachments]
    assert names == ([] if plain.strip() else ["lettre.html"])


def test_the_words_of_an_html_forward_around_a_letter_leave_too():
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["Subject"] = "a@b.fr", "TR: lettre"
    message.set_content("Voir HTML.")
    message.add_alternative("<p>Appelez-moi avant vendredi.</p>", subtype="html")
    message.add_attachment(email.message_from_bytes(ORIGINALS["text"], policy=email.policy.SMTP))
    assert "Appelez-moi avant vendredi." in read(compose(recipe(), message.as_bytes())).text


@pytest.mark.parametrize("kind", ["alternative", "mixed"])
def test_html_that_only_repeats_the_plain_words_leaves_once(kind: str):
    written = read(compose(recipe(), with_html(kind, SAID, FORM % "")))
    assert written.text.count("Kardégic") == 1
    assert not written.attachments


def test_hostile_html_beside_many_words_is_compared_in_bounded_time():
    original = with_html("alternative", "mot " * 500_000, "<br>".join(f"ligne {n}" for n in range(50_000)))
    began = time.process_time()
    assert "ligne 49999" in read(compose(recipe(), original)).text
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (letters.cda(), "lettre.xml"),
        (letters.xdm(), "IHE_XDM.zip"),
        (letters.pdf(), "lettre.pdf"),
        (b"MSH|^~\\&|A\rOBX|1|ED|11490-0^Lettre^LN||^TEXT^XML^Base64^%%%\r", "message.hl7"),
    ],
)
def test_a_bare_file_is_attached_as_it_is(content: bytes, name: str):
    attachment = read(compose(recipe(), content)).attachments[0]
    assert (attachment.filename, attachment.content()) == (name, content)


@pytest.mark.parametrize(
    "first", ["Date : 01/12/2026", "From: Cardiologie", "Objet : sortie\nDate : 01/12/2026"]
)
def test_a_text_file_that_begins_like_a_mail_keeps_its_first_lines(first: str):
    original = f"{first}\nPatient : Mme VALBRUNE\nNé(e) le : 17/03/1948\n\nBonjour.\n"
    written = compose(recipe(), original.encode())
    assert original.strip() in read(written).text
    assert documents(written) == []


def test_a_mail_without_its_author_shows_no_header():
    original = b"Received: from secret.example\r\nDate: Tue, 01 Dec 2026 17:42:00 +0100\r\n\r\nBonjour.\r\n"
    assert "secret.example" not in read(compose(recipe(), original)).text


def test_a_letter_sent_on_as_an_attachment_leaves_without_the_headers_of_the_ward():
    inner = ORIGINALS["XDM"]
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"], message["Subject"] = "a@b.fr", "TR: lettre"
    message.set_content("Pour le relais.")
    message.add_attachment(email.message_from_bytes(inner, policy=email.policy.SMTP))
    written = compose(recipe(), message.as_bytes())
    assert documents(written) == documents(inner)
    assert "Pour le relais." in read(written).text
    assert read(inner).text.strip() in read(written).text
    assert letters.WARD.encode() not in written


def test_a_mail_that_is_one_attachment_keeps_its_name_and_bytes():
    package = letters.xdm()
    message = EmailMessage(policy=email.policy.SMTP)
    message["From"] = "a@b.fr"
    message.set_content(package, "application", "zip", filename="IHE_XDM.zip")
    attachment = read(compose(recipe(), message.as_bytes())).attachments[0]
    assert (attachment.media_type, attachment.filename, attachment.content()) == (
        "application/zip",
        "IHE_XDM.zip",
        package,
    )


def test_what_smtp_cannot_carry_is_encoded_anew_and_decodes_to_the_same_bytes():
    xml = letters.cda().replace(b"\n", b"")
    head = b'From: a@b.fr\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\nContent-Type: text/xml; name="x.xml"\r\n'
    for encoding in (b"8bit", b"binary"):
        original = head + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + xml + b"\r\n--b--\r\n"
        written = compose(recipe(), original)
        assert max(map(len, written.split(b"\r\n"))) <= 998
        assert read(written).attachments[0].content() == read(original).attachments[0].content()
        assert read(written).attachments[0].filename == "x.xml"


@pytest.mark.parametrize("kind", ["pkcs7-signature", "x-pkcs7-signature", "pgp-signature"])
def test_the_signature_of_a_body_that_no_longer_is_stays_here(kind: str):
    pdf = ("lettre.pdf", letters.pdf(), "application/pdf")
    signed = letters.text_mail(attachments=[("smime.p7s", b"\x30\x80 of a body", f"application/{kind}"), pdf])
    assert documents(compose(recipe(), signed)) == documents(letters.text_mail(attachments=[pdf]))


@pytest.mark.parametrize("encoding", ["8bit", "binary"])
def test_a_message_among_the_documents_is_never_encoded(encoding: str):
    # RFC 2046 §5.2.1: encoded it is a message to no reader.
    message = (
        f"From: a@b.fr\nSubject: Bilan\nContent-Type: text/plain; charset=utf-8\n\n{'né ' * 400}\n".encode()
    )
    head = 'From: a@b.fr\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nBonjour.\r\n'
    part = f"--b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    pdf = '--b\r\nContent-Type: application/pdf; name="x.pdf"\r\n\r\n%PDF-1.4\r\n--b--\r\n'
    original = f"{head}{part}".encode() + message + f"\r\n{pdf}".encode()
    carried = compose(recipe(), original)
    assert message.replace(b"\n", b"\r\n") in carried
    assert [part.media_type for part in read(carried).attachments] == ["message/rfc822", "application/pdf"]
    assert read(read(carried).attachments[0].content()).subject == "Bilan"


def test_words_are_a_letter_unless_they_only_explain_an_event():
    event = ("adt.hl7", hl7.adt(), "application/octet-stream")
    pdf = ("lettre.pdf", letters.pdf(), "application/pdf")
    for body, attachments, is_letter in (
        ("Mme Valbrune sort ce jour.", [], True),
        ("Mme Valbrune sort ce jour.", [event], False),
        ("Mme Valbrune sort ce jour.", [event, pdf], True),
        ("", [pdf], True),
        ("", [], False),
    ):
        mail = letters.mail(body, sender=letters.WARD, to=letters.RELAY_IN, attachments=attachments)
        assert hand_on(read(mail)).is_letter is is_letter, (body, len(attachments))


def test_bare_line_feeds_become_line_ends_without_touching_the_document():
    original = ORIGINALS["XDM"].replace(b"\r\n", b"\n")
    assert documents(compose(recipe(), original)) == documents(ORIGINALS["XDM"])


@settings(max_examples=many(150), deadline=None)
@given(st.text(max_size=200), st.sampled_from(["Subject", "From", "To", "X-MSS-NIL", "References"]))
def test_no_value_can_add_a_header_or_a_line(value: str, name: str):
    written = compose(
        recipe("none", headers=(("Date", "Tue, 01 Dec 2026 17:42:00 +0100"), (name, value))), None
    )
    head = written.split(b"\r\n\r\n")[0]
    assert head.isascii()
    fields = [line.split(b":")[0] for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    assert fields == [b"Date", name.encode(), b"MIME-Version", b"Content-Type", b"Content-Transfer-Encoding"]


@settings(max_examples=many(100), deadline=None)
@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=150)
)
def test_a_subject_comes_back_as_it_was(subject: str):
    written = compose(recipe("none", headers=(("From", "a@b.fr"), ("Subject", subject))), None)
    assert " ".join((read(written).subject or "").split()) == " ".join(subject.split())


@settings(max_examples=many(100), deadline=None)
@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=3000))
def test_text_comes_back_as_it_was(text: str):
    written = compose(recipe("none", text=text), None)
    assert read(written).text.strip() == text.strip()


@pytest.mark.parametrize(
    "display",
    ["Martin, Camille", 'Dr "Camille" Martin', "a@b.fr", "Cabinet (Orléans)", "<x>", "=?utf-8?q?x?="],
)
def test_a_display_name_never_becomes_an_address(display: str):
    written = compose(
        recipe("none", headers=(("From", "r@x.fr"), ("To", f"{display} <dr.martin@medecin.mssante.fr>"))),
        None,
    )
    assert [address for _, address in read(written).addresses("to")] == ["dr.martin@medecin.mssante.fr"]
    assert len(read(written).addresses("to")) == 1


@pytest.mark.parametrize(
    "display",
    [
        "Tous services – CHR d'Exemple (Relais)",
        "Soins intensifs cardiologiques – CHR d'Exemple (Relais)",
        "Médecine polyvalente – Hôpital Saint-Éloi de l'Étang (Relais)",
        "Dr St. Jean =?x, é",
    ],
)
def test_a_wards_long_name_is_read_alike_by_every_reader_of_addresses(display: str):
    written = compose(recipe(headers=(("From", f"{display} <relais@relais45.mssante.fr>"),)), None)
    head = email.message_from_bytes(written)["From"]
    assert str(email.header.make_header(email.header.decode_header(head))).startswith(f"{display} <")
    parsed = email.message_from_bytes(written, policy=email.policy.default)["From"].addresses[0]
    assert (parsed.display_name, parsed.addr_spec) == (display, "relais@relais45.mssante.fr")
    assert max(map(len, written.split(b"\r\n\r\n")[0].split(b"\r\n"))) <= 76


def test_a_composed_mail_can_be_told_from_the_ones_before():
    other = (*HEADERS[:4], ("Message-ID", "<v1.other@relais45.mssante.fr>"))
    assert fingerprint(compose(recipe(), None)) != fingerprint(compose(recipe(headers=other), None))


def test_a_large_letter_is_copied_without_being_decoded():
    original = letters.text_mail(attachments=[("lettre.pdf", letters.pdf(size=148_000), "application/pdf")])
    assert len(original) > 200_000
    compose(recipe(), original)
    times = []
    for _ in range(15):
        began = time.process_time()
        compose(recipe(), original)
        times.append(time.process_time() - began)
    assert min(times) < 0.001


@pytest.mark.parametrize(
    "first",
    ["Date : 1er décembre", "Message-ID: 4217", "From: Cardiologie",
     "From: Cardiologie\nSubject: Sortie", "Received: le 1er", "Subject: Sortie", "Mme CORMERAIS"],
)  # fmt: skip
def test_a_text_file_leaves_with_the_words_that_were_read_in_it(first: str) -> None:
    raw = f"{first}\nPatient: CORMERAIS Odette\n\nSurveiller le potassium.\n".encode()
    words = hand_on(read_file("lettre.txt", raw)).words
    assert parsed(compose(recipe(text=""), raw)).get_content().split() == words.split()
