"""Hostile bytes become a Document; what can be read is read, and nothing raises."""

from __future__ import annotations

import email
import email.policy
import hashlib
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay import reading
from relay.reading import Document, decode_words, fingerprint, html_text, parse_addresses, read, read_file
from tests import letters
from tests.campaign import many

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"


def everything(document: Document) -> int:
    """Ask for all there is; answers the bytes seen."""
    seen = len(document.text) + len(document.subject)
    _ = (
        document.from_,
        document.reply_to,
        document.to,
        document.date,
        document.message_id,
        document.media_type,
    )
    _ = (document.in_reply_to, document.references, document.headers("received"), document.attachments)
    for part in document.parts:
        assert 0 <= part.start <= part.body <= part.end <= len(document.raw)
        seen += len(part.content()) + len(part.text()) + len(part.filename or "")
    return seen


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64", "8bit"])
@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-1", "windows-1252"])
def test_the_words_are_the_same_in_every_transfer_encoding_and_charset(encoding: str, charset: str):
    raw = letters.text_mail(encoding=encoding, charset=charset)
    assert "Médecin traitant : Dr Camille Martin\n" in read(raw).text


@pytest.mark.parametrize("label", [b"us-ascii", b"nonsense", b"idna", b"utf-8"])
def test_a_lying_charset_label_does_not_spoil_a_name(label: bytes):
    raw = letters.text_mail(encoding="8bit", charset="iso-8859-1").replace(b"iso-8859-1", label)
    assert "Médecin traitant : Dr Camille Martin\n" in read(raw).text


def test_a_part_keeps_its_place_byte_for_byte():
    raw = letters.xdm_mail(pdf_size=5000)
    parts = read(raw).parts
    boundary = email.message_from_bytes(raw).get_boundary()
    assert [part.media_type for part in parts] == ["text/plain", "application/zip", "application/pdf"]
    for part in parts:
        around = (
            raw[part.start - len(boundary) - 4 : part.start],
            raw[part.end : part.end + len(boundary) + 4],
        )
        assert around == (f"--{boundary}\r\n".encode(), f"\r\n--{boundary}".encode())
    zipped = email.message_from_bytes(raw).get_payload()[1].get_payload(decode=True)
    assert parts[1].content() == zipped


def test_file_names_are_read_in_both_encodings_and_lose_their_paths():
    name = "20261201_Lettre de liaison à la sortie_CORMERAIS_Odette.pdf"
    assert read(letters.xdm_mail()).parts[2].filename == name
    two = b'Content-Type: application/pdf; name="=?utf-8?q?h=C3=A9las?=.pdf"\r\n\r\nx'
    assert read(b"From: a@b\r\n" + two).parts[0].filename == "hélas.pdf"
    path = b'Content-Disposition: attachment; filename="..\\..\\etc/pass\x1bwd"\r\n\r\nx'
    assert read(b"From: a@b\r\n" + path).parts[0].filename == "passwd"


def test_neighbouring_encoded_words_are_joined_before_they_are_decoded():
    assert (
        decode_words("=?utf-8?B?w4k=?= =?utf-8?B?bG/Drw==?= =?utf-8?Q?se_=C3?=\t=?utf-8?Q?=A9?=")
        == "Éloïse é"
    )
    assert decode_words("=?nonsense?B?w4k=?= x") == "É x"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("Dr Martin <Dr.Martin@X.fr>", [("Dr Martin", "dr.martin@x.fr")]),
        ('"Martin, Camille" <a@x.fr>, b@x.fr', [("Martin, Camille", "a@x.fr"), ("", "b@x.fr")]),
        ('"gp@mssante.fr" <evil@x.fr>', [("gp@mssante.fr", "evil@x.fr")]),
        ("équipe: a@x.fr, b@x.fr;", [("", "a@x.fr"), ("", "b@x.fr")]),
        ("a@x.fr (a comment (nested) <b@x.fr>)", [("", "a@x.fr")]),
        ("a@x@y.fr, a b@x.fr, @, <>", []),
        ("<@relay.fr:a@x.fr>", [("", "a@x.fr")]),
        ("(" * 100_000, []),
    ],
)
def test_addresses_are_what_stands_between_the_brackets(written: str, expected: list[tuple[str, str]]):
    assert list(parse_addresses(written)) == expected


@pytest.mark.parametrize(
    "written",
    [
        "<a@x.fr> <b@y.fr>",
        "<a@x.fr>b@y.fr",
        'A <a@x.fr> "b@y.fr"',
        "A <a@x.fr> B <b@y.fr>",
        "<a@x.fr>> <b@y.fr",
    ],
)
def test_two_addresses_that_stand_as_one_are_nobodys(written: str):
    assert parse_addresses(written) == ()
    assert parse_addresses(f"{written}, <c@z.fr> (à midi)") == (("", "c@z.fr"),)


def test_two_authors_are_nobody():
    raw = b"From: a@x.fr\r\nFrom: b@x.fr\r\nSubject: x\r\n\r\n"
    assert read(raw).from_ is None
    assert "many_from" in read(raw).flaws


def test_a_paragraph_in_a_cell_does_not_part_a_label_from_its_value():
    word = "<table><tr><td><p>Nom</p></td><td><p class=MsoNormal>Durand<o:p></o:p></p></td></tr></table>"
    assert html_text(word) == "Nom\tDurand\n"
    layout = "<table><tr><td><p>Bonjour,</p><p>Nom : Durand</p></td></tr></table>"
    assert html_text(layout).split() == ["Bonjour,", "Nom", ":", "Durand"]
    assert "Bonjour,\n" in html_text(layout)
    assert html_text(f"<blockquote>{word}</blockquote>") == "> Nom\tDurand\n"
    began = time.process_time()
    html_text("<table><tr>" + "<td><p>x</p></td>" * 60_000)
    assert time.process_time() - began < 2


def test_html_gives_lines_cells_and_marked_quotations():
    text = html_text(
        "<style>p{}</style><p>Bonjour<br>Dr&nbsp;X</p><table><tr><th>Patient</th><td>LEROUX Paul</td></tr></table>"
        "<blockquote>vieux<div>texte</div></blockquote><script>alert(1)</script>"
    )
    assert text.split("\n") == ["Bonjour", "Dr\u00a0X", "Patient\tLEROUX Paul", "> vieux", "> texte", ""]


def test_the_terms_of_a_list_stand_before_their_values():
    listed = "<dl><dt>Patient<dd>MARTIN Paul<dt>Seul</dt><dt>Adresse</dt>\n<dd><p>1 rue</p><p>Orléans</p></dd>\n<dd>autre</dl>Fin"
    assert html_text(listed) == "Patient\tMARTIN Paul\nSeul\nAdresse\n1 rue\nOrléans\nautre\nFin\n"


def test_a_message_inside_stays_closed():
    raw = letters.dsn(letters.xdm_mail(), original_message_id="<a@b>")
    assert [part.media_type for part in read(raw).parts] == [
        "text/plain", "message/delivery-status", "message/rfc822",
    ]  # fmt: skip


def test_a_spoilt_header_line_hides_neither_the_fields_nor_the_attachments_below():
    raw = letters.xdm_mail().replace(b"MIME-Version", b"\xff no field at all\r\nMIME-Version", 1)
    document = read(raw)
    assert "bad_header_line" in document.flaws
    assert len(document.parts) == 3


def test_line_ends_of_another_age_are_lines_all_the_same():
    raw = letters.xdm_mail().replace(b"\r\n", b"\r")
    assert [part.content() for part in read(raw).attachments] == [
        part.content() for part in read(letters.xdm_mail()).attachments
    ]


def test_a_gateway_that_doubles_the_carriage_return_hides_no_words():
    body = b"--B\r\nContent-Type: text/plain\r\n\r\nPatient : VASSEUR Odile\r\n--B--\r\n"
    head = b"From: a@example.fr\r\nTo: b@example.fr\r\nContent-Type: multipart/mixed; boundary=B\r\n\r\n"
    document = read((head + body).replace(b"\r\n", b"\r\r\n"))
    assert document.text.strip() == "Patient : VASSEUR Odile"
    assert "header_not_closed" not in document.flaws


def test_bounds_are_kept_and_named():
    deep = b"From: a@b\r\n"
    for level in range(60):
        deep += b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (level, level)
    assert "too_deep" in read(deep + b"\r\nx").flaws
    many = b'From: a@b\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n' + b"--b\r\n\r\nx\r\n" * 3000
    assert "too_many_parts" in read(many).flaws
    assert len(read(many).parts) <= reading.MAX_PARTS
    long = b"From: a@b\r\nX: " + b"y" * 400_000 + b"\r\n\r\nbody"
    assert "header_too_large" in read(long).flaws
    fields = b"From: a@b\r\n" + b"X: y\r\n" * 5000 + b"\r\nbody"
    assert "too_many_headers" in read(fields).flaws


def test_a_mail_cut_on_the_way_says_so():
    raw = letters.xdm_mail(pdf_size=5000)
    assert "not_closed" in read(raw[:-2000]).flaws
    assert read(raw).flaws == ()


def test_false_boundaries_do_not_cost_time():
    raw = b'From: a@b\r\nContent-Type: multipart/mixed; boundary="-"\r\n\r\n' + b"\n---x" * 1_000_000
    began = time.process_time()
    everything(read(raw))
    assert time.process_time() - began < 2


@pytest.mark.parametrize("filling", [";", "; ", ";\t;", ';a="', ";a "])
def test_empty_parameters_do_not_cost_time(filling: str):
    began = time.process_time()
    raw = b"Content-Type: text/plain" + filling.encode() * 20_000 + b"\r\nSubject: x\r\n\r\nCorps\r\n"
    assert "Corps" in read(raw).text
    assert time.process_time() - began < 1


def test_the_same_mail_by_another_way_has_the_same_fingerprint():
    raw = letters.xdm_mail()
    again = b"Return-Path: <x@y>\r\nReceived: from a\r\n\tby b; now\r\nX-Spam-Score: 1\r\n" + raw
    assert fingerprint(again) == fingerprint(raw) == fingerprint(raw.replace(b"\r\n", b"\n"))
    assert fingerprint(raw) != fingerprint(raw.replace(b"Veuillez", b"Veuillex"))
    assert fingerprint(raw) != fingerprint(raw.replace(b"Subject: ", b"Subject: x"))


@pytest.mark.parametrize(
    ("name", "content", "media_type", "is_mail"),
    [
        ("a.eml", letters.text_mail(), "text/plain", True),
        ("a.xml", letters.cda(), "text/xml", False),
        ("a.zip", letters.xdm(), "application/zip", False),
        ("a.pdf", letters.pdf(), "application/pdf", False),
        ("a.hl7", b"MSH|^~\\&|", "x-application/hl7-v2+er7", False),
        ("a.json", b'{"resourceType": "Bundle"}', "application/json", False),
        ("a.txt", b"Patient : X\nDate : demain", "text/plain", False),
        ("mail.txt", letters.text_mail(), "text/plain", True),
        ("noname", letters.cda(), "text/xml", False),
    ],
)
def test_a_file_is_read_by_what_it_is(name: str, content: bytes, media_type: str, is_mail: bool):
    document = read_file(name, content)
    assert (document.parts[0].media_type, document.is_mail) == (media_type, is_mail)
    if not is_mail:
        assert document.parts[0].content() == content


def test_bytes_that_are_no_mail_say_so():
    for raw in (b"", b"\x00" * 100, b"hello\nworld", letters.pdf()):
        document = read(raw)
        assert not document.is_mail
        assert "not_mail" in document.flaws


_ATOMS = st.sampled_from(
    [b"From: a@b\r\n", b"Subject: =?utf-8?B?w4k?=\r\n", b"\r\n", b"\n", b"--b", b"--", b'Content-Type: multipart/mixed; boundary="b"\r\n',
     b"Content-Type: message/rfc822\r\n", b"Content-Transfer-Encoding: base64\r\n", b"Content-Type: text/html; charset=utf-7\r\n",
     b"Content-Type: text/plain; charset*0*=x''%ff; charset*1=idna\r\n", b"To: (((<\"\\\r\n", b"\xff\xfe\x00", b"<p><blockquote>", b" ",
     b"Date: Mon, 99 Foo 99999 99:99:99 +9999\r\n", b"References: <a@b> <<>>\r\n", b"Content-Disposition: attachment; filename*=''%00%2e%2e\r\n"]
)  # fmt: skip


@settings(max_examples=many(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(_ATOMS, st.binary(max_size=30)), max_size=30).map(b"".join))
def test_no_bytes_raise(raw: bytes):
    everything(read(raw))
    everything(read_file("x.txt", raw))
    assert len(fingerprint(raw)) == 64


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_no_sample_of_the_torture_corpora_raises_or_takes_long():
    files = [path for path in sorted((SAMPLES / "torture").rglob("*")) if path.is_file()]
    assert len(files) > 2000
    for path in files:
        raw = path.read_bytes()
        began = time.process_time()
        everything(read(raw))
        everything(read_file(path.name, raw))
        assert time.process_time() - began < 10, path.name


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_attachments_of_ordinary_mail_are_those_the_standard_library_finds():
    seen = 0
    for path in sorted((SAMPLES / "torture" / "sisimai-bounces").rglob("*.eml")):
        raw = path.read_bytes()
        expected = email.message_from_bytes(raw, policy=email.policy.compat32)
        if not expected.is_multipart() or any(part.defects for part in expected.walk()):
            continue
        types: list[str] = []

        def leaves(message: email.message.Message, types: list[str] = types) -> None:
            if message.get_content_maintype() == "multipart":
                for part in message.get_payload():
                    leaves(part, types)
            else:
                types.append(message.get_content_type())

        leaves(expected)
        assert [part.media_type for part in read(raw).parts] == types, path.name
        seen += 1
    assert seen > 50


def test_a_large_mail_is_taken_apart_without_decoding_it():
    raw = letters.xdm_mail(pdf_size=150_000)
    read(raw)
    began = time.process_time()
    for _ in range(20):
        read(raw)
    assert (time.process_time() - began) / 20 < 0.005
    assert (
        hashlib.sha256(read(raw).parts[2].content()).digest()
        == hashlib.sha256(letters.pdf(size=150_000)).digest()
    )
