"""Files of word processors beside a letter: somebody else's holds it, the patient's own does not."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from email import message_from_bytes
from email.policy import SMTP

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.formats import office, xdm
from relay.model import Outcome, Patient, Why
from relay.reading import read, read_file
from relay.recognition import recognise
from tests import letters
from tests.letters import MARTIN, ODETTE, hl7

HELENE = replace(ODETTE, birth_name="D’ÉPINAY-LEBŒUF", used_name=None, given_names=("Hélène", "Zoé"))
PAUL = letters.patient("LEROUX", "Paul", sex="M")
OFFICE = "urn:oasis:names:tc:opendocument:xmlns"
WORD_ML = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"


def rtf(lines: str) -> bytes:
    """As Word writes it: its own code page where it can, Unicode with a stand-in elsewhere."""

    def one(sign: str) -> str:
        if sign in "\\{}":
            return "\\" + sign
        if sign == "\n":
            return "\\par\r\n"
        if ord(sign) < 128:
            return sign
        try:
            return f"\\'{sign.encode('latin-1')[0]:02x}"
        except UnicodeEncodeError:
            return f"\\u{ord(sign)}?"

    head = r"{\rtf1\ansi\ansicpg1252\uc1{\fonttbl{\f0 Nom : Arial;}}{\*\generator Prenom : x;}{\info{\author Nom : AUTRE}}"
    return f"{head}\r\n\\pard\\f0 {''.join(map(one, lines))}}}".encode()


def _cells(lines: str, cell: str, row: str) -> str:
    return "".join(
        row.format("".join(cell.format(part.strip()) for part in line.split(" : ", 1)))
        for line in lines.splitlines()
    )


def word(lines: str, *, table: bool = False) -> bytes:
    """A Word file, its words cut into runs as editing leaves them."""
    runs = "<w:p><w:r><w:t>{}</w:t></w:r></w:p>"
    rows = (
        _cells(lines, f"<w:tc>{runs}</w:tc>", "<w:tr>{}</w:tr>")
        if table
        else "".join(
            f"<w:p><w:r><w:t>{line[:3]}</w:t></w:r><w:r><w:t>{line[3:]}</w:t></w:r></w:p>"
            for line in lines.splitlines()
        )
    )
    body = f"<w:tbl>{rows}</w:tbl>" if table else rows
    deleted = "<w:p><w:del><w:r><w:delText>Sexe : X</w:delText></w:r></w:del></w:p>"
    text = f'<w:document xmlns:w="{WORD_ML}"><w:body>{deleted}{body}</w:body></w:document>'
    return letters.zipped([("[Content_Types].xml", b"<Types/>"), ("word/document.xml", text.encode())])


def open_document(lines: str, *, table: bool = False) -> bytes:
    """An OpenDocument text."""
    one = "<text:p>{}</text:p>"
    rows = (
        _cells(lines, f"<table:table-cell>{one}</table:table-cell>", "<table:table-row>{}</table:table-row>")
        if table
        else "".join(
            f"<text:p><text:span>{line[:3]}</text:span>{line[3:]}</text:p>" for line in lines.splitlines()
        )
    )
    names = " ".join(f'xmlns:{name}="{OFFICE}:{name}:1.0"' for name in ("office", "text", "table"))
    text = f"<office:document-content {names}><office:body><office:text>{rows}</office:text></office:body></office:document-content>"
    return letters.zipped(
        [("mimetype", b"application/vnd.oasis.opendocument.text"), ("content.xml", text.encode())]
    )


UNKNOWN = "application/octet-stream"
WRITTEN: dict[str, tuple[Callable[[str], bytes], str, str]] = {
    "RTF": (rtf, "application/rtf", "courrier.rtf"),
    "RTF as text": (rtf, "text/rtf", "courrier.rtf"),
    "RTF as Word": (rtf, "application/msword", "courrier.doc"),
    "Word": (word, UNKNOWN, "courrier.docx"),
    "Word, a table": (lambda lines: word(lines, table=True), UNKNOWN, "courrier.docx"),
    "OpenDocument": (open_document, "application/vnd.oasis.opendocument.text", "courrier.odt"),
    "OpenDocument, a table": (lambda lines: open_document(lines, table=True), UNKNOWN, "courrier.odt"),
    "RTF in an archive": (lambda lines: letters.zipped([("a.rtf", rtf(lines))]), "application/zip", "a.zip"),
    "text of unknown type": (str.encode, UNKNOWN, "courrier.txt"),
    "text of a type of its own": (str.encode, "text/csv", "courrier.csv"),
    "HTML of unknown type": (
        lambda lines: f"<html><p>{lines.replace(chr(10), '<br>')}</p></html>".encode(),
        UNKNOWN,
        "courrier.html",
    ),
    "a mail of unknown type": (lambda lines: letters.text_mail(body=lines), UNKNOWN, "courrier.eml"),
}


@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("way", ["text", "XDM"])
def test_a_letter_that_would_leave_with_another_patients_file_is_held(form: str, way: str) -> None:
    write, media_type, name = WRITTEN[form]

    def sent(who: Patient) -> bytes:
        main, _, sub = media_type.partition("/")
        letter = letters.cda(patient=HELENE)
        mail = letters.text_mail(patient=HELENE) if way == "text" else letters.xdm_mail(letter=letter)
        message = message_from_bytes(mail, policy=SMTP)
        if not message.is_multipart():
            message.make_mixed()
        content = write(letters.labelled_lines(who, MARTIN))
        message.add_attachment(content, maintype=main, subtype=sub, filename=name)
        return message.as_bytes()

    found = recognise(read(sent(PAUL)))
    assert (found.outcome, found.why) == (Outcome.UNCLEAR, Why.TWO_PATIENTS)
    same = recognise(read(sent(HELENE)))
    assert (same.outcome, same.notice.patient and same.notice.patient.ins) == (Outcome.NOTICE, HELENE.ins)


def test_a_file_that_hl7_wraps_is_looked_through_as_well() -> None:
    for write in (rtf, word):
        for who, outcome in ((PAUL, Outcome.UNCLEAR), (HELENE, Outcome.NOTICE)):
            wrapped = write(letters.labelled_lines(who, MARTIN))
            found = recognise(read_file("a.hl7", hl7.mdm(patient=HELENE, document=wrapped, subtype="RTF")))
            assert found.outcome is outcome


@pytest.mark.parametrize(
    "name", ["IHE_XDM/SUBSET01/COURRIER.RTF", "COURRIER.RTF", "IHE_XDM/SUBSET01/NOTE.TXT"]
)
def test_words_within_a_package_are_looked_through_as_well(name: str) -> None:
    for who, outcome in ((PAUL, Outcome.UNCLEAR), (HELENE, Outcome.NOTICE)):
        message = message_from_bytes(letters.xdm_mail(letter=letters.cda(patient=HELENE)), policy=SMTP)
        (part,) = [each for each in message.walk() if each.get_content_type() == "application/zip"]
        package = io.BytesIO(part.get_content())
        with zipfile.ZipFile(package, "a") as archive:
            lines = letters.labelled_lines(who, MARTIN)
            archive.writestr(name, rtf(lines) if name.endswith("RTF") else lines)
        part.set_content(package.getvalue(), "application", "zip", filename="IHE_XDM.zip")
        assert recognise(read(message.as_bytes())).outcome is outcome


def test_words_come_as_they_are_read() -> None:
    lines = "Nom de naissance : D’ÉPINAY-LEBŒUF\nPrénom : Hélène {Zoé}\\\nNé€ le : 1 < 2\n"
    assert office.rtf(rtf(lines)) == lines
    plain = lines.replace("<", "&lt;")
    for write in (word, open_document):
        members = xdm.members(write(plain))
        assert members is not None
        assert office.packed(members).strip() == lines.strip()


def test_what_follows_raw_bytes_and_unseen_groups_is_read() -> None:
    picture = rb"{\pict\bin12 }}}}{{{{\par ;}{\*\x{\y a}b}c\'e9\~d"
    assert office.rtf(rb"{\rtf1 a" + picture + b"}") == "acé d"
    assert office.rtf(rb"{\rtf1\mac \'8e}") == "é"
    assert office.rtf(rb"{\rtf1\ansicpg1250 \'e6\ansicpg99999 \'e9}") == "ćé"


def test_a_hostile_file_says_little_and_soon() -> None:
    began = time.process_time()
    for content in (
        b"{\\rtf1" + b"{" * 8_000_000,
        b"{\\rtf1" + b"\\u8364 ?" * 300_000,
        b"{\\rtf1" + b"\\'e9" * 500_000,
        b"{\\rtf1" + b"\\bin99999999 x" * 100_000,
    ):
        office.rtf(content)
    depth = b"<p>" * 100_000
    office.packed({"word/document.xml": depth})
    office.packed({"word/document.xml": b"<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"})
    assert time.process_time() - began < 8


@given(
    st.lists(st.sampled_from([*rb"{}\ '*a1", b"\\u8364", b"\\bin3", b"\\uc2", b"\\'e9", b"\xff", b"\\par\n"]))
)
def test_no_bytes_raise(pieces: list[bytes | int]) -> None:
    content = b"".join(each if isinstance(each, bytes) else bytes([each]) for each in pieces)
    assert isinstance(office.rtf.__wrapped__(b"{\\rtf1" + content), str)  # type: ignore[attr-defined]
