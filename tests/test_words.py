"""The words of a letter, whatever it came in, become names of keyword groups; what cannot be read leaves them unknown."""

from __future__ import annotations

import base64
import io
import json
import logging
import threading
import zipfile
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import reading
from relay.formats import words
from relay.model import Envelope
from rules import language
from tests import letters, test_loops, test_planning
from tests.campaign import many
from tests.letters import fhir as fhir_letters
from tests.letters import hprim
from tests.test_loops import House, letter
from tests.test_planning import RULES

house, _secret = test_loops.house, test_planning._secret  # fixtures

SAID = b"sedation profonde et continue"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(200)


def of(raw: bytes) -> words.Words:
    return words.of(reading.read(raw))


def of_file(name: str, content: bytes) -> words.Words:
    return words.of(reading.read_file(name, content))


def attached(content: bytes, kind: str, name: str = "piece") -> words.Words:
    return of(letter(attachments=[(name, content, kind)]))


def a_cda() -> bytes:
    return letters.cda().replace(
        "Dyspnée".encode(), b"Dyspn\xc3\xa9e, <content>seda</content>tion profonde et continue"
    )


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return out.getvalue()


def wrapped(content: bytes) -> bytes:
    """A CDA whose body is another document (CDA R2 §4.3.1.2)."""
    return (
        b'<ClinicalDocument xmlns="urn:hl7-org:v3"><component><nonXMLBody><text mediaType="application/pdf" '
        b'representation="B64">'
        + base64.b64encode(content)
        + b"</text></nonXMLBody></component></ClinicalDocument>"
    )


def hl7(content: bytes) -> bytes:
    return (
        b"MSH|^~\\&|SIH|450000088|RELAIS|450000088|20261201174100||MDM^T02^MDM_T02|1|P|2.6|||||FRA|UNICODE UTF-8\r"
        b"PID|1||1^^^SIH||CORMERAIS^Odette||19480317|F\rTXA|1|11490-0|TX\r"
        b"OBX|1|ED|11490-0^Lettre^LN||^TEXT^XML^Base64^" + base64.b64encode(content) + b"\r"
    )


def fhir(content: bytes, kind: str) -> bytes:
    attachment = {"contentType": kind, "data": base64.b64encode(content).decode()}
    return json.dumps({"resourceType": "DocumentReference", "content": [{"attachment": attachment}]}).encode()


def _told_in_fhir() -> dict[str, object]:
    made = fhir_letters.document()
    entries = made["entry"]
    assert isinstance(entries, list)
    composition = next(e["resource"] for e in entries if e["resource"]["resourceType"] == "Composition")
    composition["section"].append(fhir_letters.section("55112-7", SAID.decode()))
    return made


PLACES = {
    "the mail's text": lambda: of(letter(body=f"Patient : X\n{SAID.decode()}")),
    "its subject": lambda: of(letter(subject=SAID.decode())),
    "a text file": lambda: attached(SAID, "text/plain", "a.txt"),
    "an HTML file": lambda: attached(b"<p>seda<b>tion</b> profonde et continue</p>", "text/html", "a.html"),
    "a CDA": lambda: attached(a_cda(), "text/xml", "lettre.xml"),
    "a CDA as a file": lambda: of_file("lettre.xml", a_cda()),
    "a PDF": lambda: attached(letters.pdf(SAID.decode()), "application/pdf", "lettre.pdf"),
    "a PDF in a CDA": lambda: of_file("a.xml", wrapped(letters.pdf(SAID.decode()))),
    "a CDA in a package": lambda: attached(zipped("a/LETTRE.XML", a_cda()), "application/zip", "IHE_XDM.zip"),
    "a PDF in a package": lambda: attached(zipped("a.pdf", letters.pdf(SAID.decode())), "application/zip", "a.zip"),
    "a forwarded mail": lambda: attached(letter(body=SAID.decode()), "message/rfc822", "mail.eml"),
    "a CDA in HL7": lambda: of_file("a.hl7", hl7(a_cda())),
    "a PDF in HL7": lambda: of_file("a.hl7", hl7(letters.pdf(SAID.decode()))),
    "HPRIM": lambda: of_file("a.hpr", hprim.hprim(body=f"Bonjour,\n{SAID.decode()}\n")),
    "HPRIM in a mail": lambda: attached(hprim.hprim(body=SAID.decode()), "text/plain", "a.hpr"),
    "FHIR narrative": lambda: of_file("a.json", fhir_letters.dumped(_told_in_fhir())),
    "typed lines of HL7": lambda: of_file("a.hl7", hl7(b"").replace(b"ED", b"TX").replace(b"^TEXT^XML^Base64^", SAID)),
    "a PDF in FHIR": lambda: of_file("a.json", fhir(letters.pdf(SAID.decode()), "application/pdf")),
}  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_words_are_read_wherever_they_stand(place):
    found = PLACES[place]()
    assert SAID.decode() in " ".join(found.text.split())
    assert found.whole


UNREAD = {
    "a scan": lambda: attached(letters.pdf(""), "application/pdf", "scan.pdf"),
    "a picture": lambda: attached(PNG, "image/png", "scan.png"),
    "a damaged package": lambda: attached(b"PK\x03\x04" + bytes(100), "application/zip", "IHE_XDM.zip"),
    "broken XML": lambda: attached(a_cda()[:-40], "text/xml", "lettre.xml"),
    "a scan in a package": lambda: attached(zipped("a.pdf", letters.pdf("")), "application/zip", "a.zip"),
    "a scan in HL7": lambda: of_file("a.hl7", hl7(letters.pdf(""))),
    "an old Word file": lambda: attached(
        b"\xd0\xcf\x11\xe0" + bytes(500), "application/msword", "lettre.doc"
    ),
    "a cut mail": lambda: of(letter(attachments=[("a.txt", b"x" * 90, "text/plain")])[:-20]),
    "mails within mails": lambda: of(_nested(6)),
}


def _nested(depth: int) -> bytes:
    made = letter(body=SAID.decode())
    for _ in range(depth):
        made = letter(body="Pour information.", attachments=[("mail.eml", made, "message/rfc822")])
    return made


@pytest.mark.parametrize("what", UNREAD)
def test_what_cannot_be_read_is_told(what):
    assert not UNREAD[what]().whole


def test_a_scan_beside_the_letter_it_prints_hides_nothing():
    cda = ("lettre.xml", a_cda(), "text/xml")
    assert of(letter(attachments=[cda, ("lettre.pdf", letters.pdf(""), "application/pdf")])).whole


def test_more_words_than_anybody_writes_are_read_in_part(monkeypatch):
    monkeypatch.setattr(words, "MAX_CHARACTERS", 1000)
    found = of(letter(body="x" * 5000))
    assert len(found.text) <= 1100
    assert not found.whole


def test_the_words_never_show_in_a_representation():
    assert "sedation" not in repr(of(letter(body=SAID.decode())))


@settings(max_examples=many(150), deadline=None)
@given(
    st.binary(max_size=400),
    st.integers(0, 10_000),
    st.sampled_from([a_cda(), hl7(a_cda()), letter(body="x")]),
)
def test_whatever_the_bytes_are_reading_the_words_ends(noise, place, base):
    at = place % len(base)
    assert isinstance(words.of(reading.read_file("a", base[:at] + noise + base[at:])), words.Words)


# -- from the rule file to the decision

KEYWORD_RULES = RULES.replace(
    "rules:\n",
    """keywords:
  palliatif: ["sédation profonde", { matches: "\\\\bLATA\\\\b" }]
rules:
  - id: palliatif
    when: { mentions: palliatif }
    hold: sorties
    reason: "À appeler d'abord"
""",
)
OTHER_WORDS = KEYWORD_RULES.replace("sédation profonde", "oxygène à domicile")


def with_rules(house: House, text: str) -> None:
    loaded, findings = language.load(text, "test.yaml")
    assert loaded is not None, findings
    house.site = replace(house.site, rules=loaded)


async def decided(house: House) -> list[tuple[str, str, object]]:
    """(rule, action, the fact) of every decision, oldest first."""
    rows = list(reversed(await house.store.envelopes()))
    stored = [await house.store.decision(str(row["id"])) for row in rows]
    return [(each.rule, each.action, each.facts.get("mentions")) for each in stored]


@pytest.mark.parametrize(
    ("attachments", "expected"),
    [
        ([("lettre.pdf", letters.pdf("Une sedation profonde."), "application/pdf")], ("palliatif", "hold", ["palliatif"])),
        ([("note.txt", "Décision LATA".encode(), "text/plain")], ("palliatif", "hold", ["palliatif"])),
        ([("lettre.pdf", letters.pdf("Rien de cela."), "application/pdf")], ("sortie", "send", [])),
        ([("scan.pdf", letters.pdf(""), "application/pdf")], ("palliatif", "hold", "unknown")),
    ],
)  # fmt: skip
async def test_a_rule_matches_on_what_the_letter_and_what_hangs_on_it_say(
    house: House, attachments, expected
) -> None:
    with_rules(house, KEYWORD_RULES)
    await house.take(letter(attachments=attachments))
    assert await decided(house) == [expected]


async def test_a_new_rule_set_looks_for_its_own_words(house: House) -> None:
    with_rules(house, KEYWORD_RULES)
    await house.take(letter(stay="S-1", attachments=[("a.txt", "oxygène à domicile".encode(), "text/plain")]))
    with_rules(house, OTHER_WORDS)
    await house.take(letter(stay="S-2", attachments=[("a.txt", "oxygène à domicile".encode(), "text/plain")]))
    assert [rule for rule, _, _ in await decided(house)] == ["sortie", "palliatif"]


async def test_a_rule_set_that_changes_between_reading_and_deciding_is_the_one_that_counts(
    house: House,
) -> None:
    with_rules(house, KEYWORD_RULES)
    raw = letter(attachments=[("a.txt", "oxygène à domicile".encode(), "text/plain")])
    held = await house.intake._read(Envelope("e", "cardiologie", "box", "1", house.clock.now(), raw))
    await house.intake._resolve([held])
    assert await house.intake._mentions(house.site, held) == frozenset()
    with_rules(house, OTHER_WORDS)
    assert await house.intake._mentions(house.site, held) == {"palliatif"}


async def test_neither_the_words_looked_for_nor_those_of_the_letter_are_stored_or_logged(
    house: House, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with_rules(house, KEYWORD_RULES)
    await house.take(letter(attachments=[("a.txt", "Sédation profonde QUETSCHE".encode(), "text/plain")]))
    (row,) = await house.store.envelopes()
    stored = json.dumps(dict((await house.store.decision(str(row["id"]))).facts)).casefold()
    said = (stored + "".join(capfd.readouterr()) + caplog.text).casefold()
    assert "palliatif" in stored
    assert not [word for word in ("sédation", "sedation", "s\\u00e9dation", "quetsche") if word in said]


async def test_a_long_letter_is_searched_outside_the_event_loop(house: House, monkeypatch) -> None:
    with_rules(house, KEYWORD_RULES)
    where: list[int] = []
    search = language.mentioned
    monkeypatch.setattr(language, "mentioned", lambda *a: where.append(threading.get_ident()) or search(*a))
    long = ("Le patient âgé est sorti. " * 80_000 + "sédation profonde").encode()
    await house.take(letter(attachments=[("a.txt", long, "text/plain")]))
    assert [rule for rule, _, _ in await decided(house)] == ["palliatif"]
    assert where
    assert threading.get_ident() not in where


async def test_without_keywords_nothing_is_read_twice(house: House, monkeypatch) -> None:
    monkeypatch.setattr(words, "of", lambda _: pytest.fail("the words were asked for"))
    await house.take(letter())
    assert [fact for _, _, fact in await decided(house)] == [[]]
