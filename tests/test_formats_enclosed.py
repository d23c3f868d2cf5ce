"""What stood inside HL7 v2 and FHIR leaves as it was before it was wrapped, under names that a practice opens."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import composing
from relay.formats import enclosed, fhir, hl7v2
from relay.formats.enclosed import Enclosed
from relay.reading import read, read_file
from tests import letters
from tests.campaign import many
from tests.letters import MARTIN, ODETTE, hl7, printed
from tests.letters import fhir as written
from tests.test_composing import parsed, recipe

CDA, PDF, PACKAGE = letters.cda(), printed.letter(ODETTE, MARTIN), letters.xdm()


def sent(original: bytes) -> dict[str, bytes]:
    """The attachments of the GP's mail, by their names."""
    message = parsed(composing.compose(recipe(), original))
    return {str(p.get_filename()): p.get_payload(decode=True) for p in message.walk() if p.get_filename()}


def mailed(body: str, attachments: list[tuple[str, bytes, str]]) -> bytes:
    return letters.mail(body, sender=letters.WARD, to=letters.RELAY_IN, subject="x", attachments=attachments)


def words(original: bytes) -> str:
    return read(composing.compose(recipe(), original)).text


def binary(content: bytes, kind: str) -> dict[str, Any]:
    return {"resourceType": "Binary", "contentType": kind, "data": base64.b64encode(content).decode()}


# ----------------------------------------------------------------------------------------------------- whole files


@pytest.mark.parametrize("content", [CDA, PDF, PACKAGE], ids=["CDA", "PDF", "package"])
@pytest.mark.parametrize("wrapping", ["MDM", "ORU", "reference", "binary", "mail"])
def test_a_document_leaves_as_it_was_before_it_was_wrapped(content: bytes, wrapping: str) -> None:
    name = {CDA: "lettre.xml", PDF: "lettre.pdf", PACKAGE: "IHE_XDM.zip"}[content]
    mdm = hl7.mdm(document=content, subtype="PDF" if content is PDF else "XML", wrapped=76)
    original = {
        "MDM": mdm,
        "ORU": hl7.mdm("ORU^R01", document=content),
        "reference": written.dumped(written.reference(content, "application/octet-stream")),
        "binary": written.dumped(
            written.bundle("collection", {"urn:uuid:b": binary(content, "x/y"), **written.people()})
        ),
        "mail": mailed("Ci-joint.", attachments=[("sortie.hl7", mdm, "application/octet-stream")]),
    }[wrapping]
    assert sent(original) == {name: content}
    assert "MSH|" not in words(original)
    assert ("Ci-joint." in words(original)) == (wrapping == "mail")


def test_several_documents_have_names_of_their_own_and_each_leaves_once() -> None:
    other = letters.pdf("Bilan")
    many_ = written.bundle("collection", {
        "urn:uuid:1": binary(PDF, "application/pdf"), "urn:uuid:2": binary(other, "application/pdf"),
        "urn:uuid:3": binary(PDF, "application/pdf"), "urn:uuid:4": binary(b"{\\rtf1 x}", "application/rtf"),
        "urn:uuid:5": binary(b"\xff\xd8\xff\xe0JFIF", ""), "urn:uuid:6": binary(b"Bonjour", "text/plain"),
        "urn:uuid:7": binary(b"<!DOCTYPE html><html>x</html>", ""), "urn:uuid:8": binary(b"\x00\x01", "a/b; c=\r\nX: y"),
    })  # fmt: skip
    assert sent(written.dumped(many_)) == {
        "lettre.pdf": PDF, "lettre-2.pdf": other, "lettre.rtf": b"{\\rtf1 x}", "lettre.jpg": b"\xff\xd8\xff\xe0JFIF",
        "message.txt": b"Bonjour", "lettre.html": b"<!DOCTYPE html><html>x</html>", "document.bin": b"\x00\x01",
    }  # fmt: skip


def test_a_cda_that_only_wraps_a_pdf_is_followed_by_that_pdf() -> None:
    wrapping = letters.cda(level=1, body_pdf=PDF)
    assert sent(hl7.mdm(document=wrapping)) == {"lettre.xml": wrapping, "lettre.pdf": PDF}
    assert enclosed.named([(letters.cda(level=1, body_pdf=b"no PDF"), "")])[1:] == ()


@pytest.mark.parametrize(
    "event",
    [hl7.adt(), hl7.adt("A13"), written.dumped(written.message()), written.dumped(written.stay())],
    ids=["A03", "A13", "message", "stay"],
)
def test_an_event_alone_hands_nothing_on(event: bytes) -> None:
    handed = composing.hand_on(read(event))
    assert (handed.words, handed.parts, handed.is_letter) == ("", (), False)
    attached = mailed("Voir pièce jointe.", attachments=[("a.hl7", event, "application/octet-stream")])
    handed = composing.hand_on(read(attached))
    assert (handed.words.strip(), handed.parts, handed.is_letter) == ("Voir pièce jointe.", (), False)


def test_a_letter_that_hangs_beside_an_event_is_handed_on() -> None:
    beside = mailed(
        "x", attachments=[("a.hl7", hl7.adt(), "application/octet-stream"), ("l.pdf", PDF, "application/pdf")]
    )
    handed = composing.hand_on(read(beside))
    assert (len(handed.parts), handed.is_letter) == (1, True)
    assert sent(beside) == {"l.pdf": PDF}


@pytest.mark.parametrize(
    "damaged",
    [
        hl7.mdm().replace(b"^Base64^", b"^Base64^%%%"),
        written.dumped({**written.reference(), "content": [{"attachment": {"data": "%%%"}}]}),
        written.dumped({**written.reference(), "content": [{"attachment": {"data": "QUJD", "size": 7}}]}),
        b'{"resourceType": "Bundle", ' + b'"x": 1, "x": 2}',
        b'{"colour": "blue"}',
    ],
    ids=["HL7", "base64", "size", "twice", "no FHIR"],
)
def test_what_cannot_be_unwrapped_leaves_as_it_came(damaged: bytes) -> None:
    assert list(sent(damaged).values()) == [damaged]


def test_the_size_on_the_wire_is_that_of_the_documents() -> None:
    hexed = (
        hl7.mdm(document=PDF)
        .replace(base64.b64encode(PDF), PDF.hex().encode())
        .replace(b"^Base64^", b"^Hex^")
    )
    assert sent(hexed) == {"lettre.pdf": PDF}
    for original in (hexed, hl7.mdm(document=PDF), written.dumped(written.reference(PDF))):
        size = composing.hand_on(read(original)).size
        written_ = composing.compose(recipe(), original)
        assert 0 <= len(written_) - size < 2000


# ------------------------------------------------------------------------------------------------ documents of FHIR


def test_a_document_bundle_without_attachment_is_told_in_words_and_attached_itself() -> None:
    original = written.dumped(written.document())
    assert sent(original) == {"lettre.json": original}
    told = words(original).splitlines()
    assert "Lettre de liaison à la sortie de l'établissement" in told
    at = told.index("Recherche de thrombophilie")
    assert told.index("Consultation de cardiologie 15/12/2026") > at
    assert composing.hand_on(read(original)).is_letter


def section(title: str, html: str, **more: Any) -> dict[str, Any]:
    return {"title": title, "text": {"status": "generated", "div": f"<div>{html}</div>"}, **more}


def test_every_section_is_told_in_its_order_with_what_is_struck_out() -> None:
    bundle: Any = written.document()
    inner = section("Arrêtés", '<p><del>Ramipril 5 mg</del></p><p><s class="x">Aspirine</s></p>')
    treatment = section(
        "Traitements", "<table><tr><td>Furosémide</td><td>40 mg</td></tr></table>", section=[inner]
    )
    structured = {"title": "Allergies", "entry": [{"reference": "urn:uuid:allergy"}]}
    composition = bundle["entry"][0]["resource"]
    composition["section"] = [section("Motif", "Dyspnée<script>alert(1)</script>"), treatment, structured]
    allergy = {"resourceType": "AllergyIntolerance", "text": {"div": "<div>Pénicilline</div>"}}
    bundle["entry"].append({"fullUrl": "urn:uuid:allergy", "resource": allergy})
    told = fhir.words(written.dumped(bundle))
    wanted = ["— Motif", "Dyspnée", "— Traitements", "Furosémide\t40 mg", "—— Arrêtés", "[barré : Ramipril 5 mg]",
              "[barré : Aspirine]", "— Allergies", "Pénicilline"]  # fmt: skip
    places = [told.index(each) for each in wanted]
    assert places == sorted(places)
    assert "alert" not in told


def test_a_document_of_very_many_references_is_told_in_no_time() -> None:
    bundle: Any = written.document()
    sections = [{"title": "x", "entry": [{"reference": f"Z/{n}"} for n in range(200)]} for _ in range(190)]
    bundle["entry"][0]["resource"]["section"] = sections
    bundle["entry"] += [{"resource": {"resourceType": "Z", "id": "a"}}] * 4000
    began = time.process_time()
    fhir.words(written.dumped(bundle))
    assert time.process_time() - began < 4


def test_a_document_bundle_with_its_print_hands_on_the_print_and_the_words() -> None:
    bundle: Any = written.document()
    bundle["entry"].append({"fullUrl": "urn:uuid:print", "resource": binary(PDF, "application/pdf")})
    original = written.dumped(bundle)
    assert sent(original) == {"lettre.pdf": PDF}
    assert "Recherche de thrombophilie" in words(original)


def test_the_lines_of_a_notification_are_kept_beneath_ours() -> None:
    thing: Any = written.notification()
    thing["payload"] = [{"contentString": "Retour à domicile avec HAD, rappeler la famille."}]
    assert "rappeler la famille" in words(written.dumped(thing))
    assert not composing.hand_on(read(written.dumped(thing))).is_letter


# ----------------------------------------------------------------------------------------------------- other files


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "mac_roman", "utf-16"])
def test_an_hprim_file_is_readable_whatever_old_set_it_came_in(encoding: str) -> None:
    from tests.letters.hprim import hprim

    original = hprim(encoding=encoding)
    assert sent(original) == {"lettre.hpr": original}
    assert "décompensation" in words(original)


@settings(max_examples=many(60), deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=400), max_size=6))
def test_whatever_was_enclosed_comes_out_byte_for_byte(contents: list[bytes]) -> None:
    bundle = written.bundle("collection", {f"urn:uuid:{n}": binary(c, "") for n, c in enumerate(contents)})
    message = hl7.adt(more=[
        hl7.obx(n, "ED", "x", f"^APPLICATION^octet-stream^Base64^{base64.b64encode(c).decode()}")
        for n, c in enumerate(contents)
    ])  # fmt: skip
    once = list(dict.fromkeys(contents))
    for original, reader in ((written.dumped(bundle), fhir.documents), (message, hl7v2.documents)):
        found = reader(original)
        assert [one.content for one in found or () if isinstance(one, Enclosed)][: len(once)] == once
        assert len({one.name for one in found or ()}) == len(found or ())
        assert set(once) <= {*sent(original).values(), *([] if once else [original])}


@settings(max_examples=many(100), deadline=None)
@given(
    st.binary(max_size=300), st.sampled_from([b"MSH|^~\\&|", b'{"resourceType": "Bundle", "entry": [', b""])
)
def test_nothing_raises(tail: bytes, head: bytes) -> None:
    for name in ("a.hl7", "a.json", "a.eml", "1"):
        composing.hand_on(read_file(name, head + tail))
    json.dumps(fhir.words(head + tail))
