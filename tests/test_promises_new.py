"""The three promises, attacked once more: what is wrapped inside what arrives, and what is taken back."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import base64
from datetime import date
from typing import Any

import pytest

from tests import letters
from tests.letters import MARTIN, fhir, hl7, printed
from tests.stores import empty_sqlite, place, store  # noqa: F401 - fixtures
from tests.test_joining import ODETTE, arrive, body, his, house, mailed, to_gp  # noqa: F401 - fixtures
from tests.test_loops import House
from tests.test_planning import _secret  # noqa: F401 - a fixture

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)

STRANGER = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11, ipp="900099999")
THEIRS = letters.labelled_lines(STRANGER, MARTIN) + "\nCher confrère,\n"
HTML = f"<html><body><p>{THEIRS.strip().replace(chr(10), '</p><p>')}</p></body></html>".encode()
RTF = rb"{\rtf1\ansi " + THEIRS.encode("cp1252").replace(b"\n", b"\\par\n") + b"}"
BOTH_PRINTED = printed.pages(
    printed.lines(letters.labelled_lines(ODETTE, MARTIN)),
    printed.lines(letters.labelled_lines(STRANGER, MARTIN)),
)


def packed(number: int, content: bytes, subtype: str) -> str:
    return hl7.obx(
        number, "ED", "11490-0^Annexe^LN", f"^TEXT^{subtype}^Base64^{base64.b64encode(content).decode()}"
    )


def told(raw: bytes, *lines: str) -> bytes:
    return raw + "".join(f"{line}\r" for line in lines).encode()


async def held_alone(house: House) -> None:
    """Nothing reached the GP, and a person is asked."""
    assert not to_gp(house)
    rows = await house.store.envelopes()
    assert [row["state"] for row in rows] == ["held"], [(row["state"], row["why"]) for row in rows]


CDA = letters.cda(patient=ODETTE)
MIXED: dict[str, bytes] = {
    "text beside a CDA": told(hl7.mdm(patient=ODETTE, document=CDA), packed(90, THEIRS.encode(), "PLAIN")),
    "HTML beside a CDA": told(hl7.mdm(patient=ODETTE, document=CDA), packed(90, HTML, "HTML")),
    "CDA beside a CDA": told(
        hl7.mdm(patient=ODETTE, document=CDA), packed(90, letters.cda(patient=STRANGER), "XML")
    ),
    "PDF beside a CDA": told(
        hl7.mdm(patient=ODETTE, document=CDA), packed(90, printed.letter(STRANGER), "PDF")
    ),
    "one PDF of two people": hl7.mdm(patient=ODETTE, document=BOTH_PRINTED, subtype="PDF"),
    "text alone": hl7.mdm(patient=ODETTE, document=THEIRS.encode(), subtype="PLAIN"),
    "HTML alone": hl7.mdm(patient=ODETTE, document=HTML, subtype="HTML"),
    "CDA of somebody else": hl7.mdm(patient=ODETTE, document=letters.cda(patient=STRANGER)),
}


@pytest.mark.parametrize("mixed", MIXED)
async def test_no_document_of_somebody_else_leaves_out_of_an_hl7_message(house: House, mixed: str) -> None:
    await arrive(house, his(MIXED[mixed]))
    await held_alone(house)


def attachment(content: bytes, kind: str) -> dict[str, Any]:
    return {"attachment": {"contentType": kind, "data": base64.b64encode(content).decode()}}


def with_more(*more: tuple[bytes, str]) -> dict[str, Any]:
    one = fhir.reference(CDA, who=ODETTE)
    one["content"] += [attachment(*each) for each in more]
    return one


def two_references(other: dict[str, Any]) -> dict[str, Any]:
    mine = fhir.reference(CDA, who=ODETTE)
    other["masterIdentifier"]["value"] += ".77"
    return fhir.bundle("collection", {"urn:uuid:1": mine, "urn:uuid:2": other})


def composed_of(*more: dict[str, Any]) -> dict[str, Any]:
    one = fhir.document(ODETTE)
    composition = next(e["resource"] for e in one["entry"] if e["resource"]["resourceType"] == "Composition")
    composition["section"] += more
    return one


DIV = f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{THEIRS.strip().replace(chr(10), "</p><p>")}</p></div>'
WRAPPED: dict[str, dict[str, Any]] = {
    "text beside a CDA": with_more((THEIRS.encode(), "text/plain")),
    "HTML beside a CDA": with_more((HTML, "text/html")),
    "PDF beside a CDA": with_more((printed.letter(STRANGER), "application/pdf")),
    "PDF of two people": with_more((BOTH_PRINTED, "application/pdf")),
    "two references": two_references(fhir.reference(letters.cda(patient=STRANGER), who=STRANGER)),
    "two references, one without a patient": two_references(
        fhir.reference(printed.letter(STRANGER), "application/pdf", who=None)
    ),
    "a section about somebody else": composed_of({"title": "Courrier", "text": {"status": "generated", "div": DIV}}),
    "lines of a notification": fhir.notification(ODETTE)
    | {"payload": [{"contentString": THEIRS}]},
}  # fmt: skip


@pytest.mark.parametrize("mixed", WRAPPED)
async def test_no_document_of_somebody_else_leaves_out_of_fhir(house: House, mixed: str) -> None:
    await arrive(house, his(fhir.dumped(WRAPPED[mixed])))
    await held_alone(house)
