"""The three promises, attacked once more: what is wrapped inside what arrives, and what is taken back."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import date
from typing import Any

import pytest

from relay.dispatch import HANDFUL
from relay.errors import Unavailable
from relay.identity import fold, keys_of
from relay.model import Mailbox, Professional, Registration
from tests import letters
from tests.letters import DUPONT, MARTIN, fhir, hl7, printed
from tests.stores import Place, empty_sqlite, place, store  # noqa: F401 - fixtures
from tests.test_joining import (  # noqa: F401 - fixtures
    FORMS,
    ODETTE,
    SENDER,
    TOLD_OFF,
    arrive,
    attached,
    body,
    his,
    house,
    mailed,
    message,
    package,
    to_gp,
    version,
)
from tests.test_loops import House
from tests.test_planning import RULES, _secret, make_site  # noqa: F401 - a fixture

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)

REGISTERED = Registration(
    ins=ODETTE.ins or "", ins_oid=letters.INS_NIR, facility="450000088", birth_name="CORMERAIS",
    used_name="VALBRUNE", given_names=ODETTE.given_names, birth_date=ODETTE.birth_date, sex="F",
    birth_place="45234", gp_rpps=(MARTIN.rpps or "",),
)  # fmt: skip
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


# ----------------------------------------------------------------------------------------------- what is taken back


def of_stay(document: bytes, stay: str) -> bytes:
    """The same document, said to be of another stay."""
    own = document.split(b"<encompassingEncounter>")[1].split(b'extension="')[1].split(b'"')[0]
    return document.replace(own, stay.encode())


async def test_a_retraction_under_the_wrong_stay_is_not_put_away_while_its_letter_stands(
    house: House,
) -> None:
    first, second = version("S-700", 1), version("S-701", 1)
    await arrive(house, package(first), package(second))
    assert len(to_gp(house)) == 2
    await arrive(house, message(of_stay(first, "S-701"), "MDM^T04"))
    (row, *_) = await house.store.envelopes()
    withdrawn = [each for each in to_gp(house) if TOLD_OFF in body(each)]
    assert row["state"] == "held" or withdrawn, (row["state"], row["why"])


async def test_a_replacement_under_the_wrong_stay_leaves_no_letter_that_it_replaces_in_force(
    house: House,
) -> None:
    await arrive(house, package(version("S-710", 1)), package(version("S-711", 5)))
    newer = version("S-710", 2, replaces=1)
    await arrive(house, message(of_stay(newer, "S-711"), "MDM^T10"))
    (row, *_) = await house.store.envelopes()
    print([(str(m["Subject"]), body(m)[:300]) for m in to_gp(house)])
    assert row["state"] == "held", (row["state"], row["why"])


async def test_a_letter_corrected_to_another_patient_is_not_sent_while_the_wrong_one_stands(
    house: House,
) -> None:
    await arrive(house, package(version("S-720", 1)))
    theirs = letters.cda(
        patient=STRANGER, stay="S-721", gp=MARTIN, document_id="1.2.250.1.999.1.720.2",
        set_id="1.2.250.1.999.1.720.1.0", replaces="1.2.250.1.999.1.720.1",
    )  # fmt: skip
    await arrive(
        house, his(hl7.mdm("MDM^T10", patient=STRANGER, document=theirs, visit=hl7.pv1(number="S-721")))
    )
    (row, *_) = await house.store.envelopes()
    assert row["state"] == "held"
    assert len(to_gp(house)) == 1


async def test_a_corrected_letter_leaves_although_the_one_it_replaces_is_held(house: House) -> None:
    nobody = letters.cda(
        patient=ODETTE, gp=letters.DUPONT, stay="S-730", document_id="1.2.250.1.999.1.730.1",
    )  # fmt: skip
    await arrive(house, package(nobody))
    assert not to_gp(house)
    await arrive(
        house, message(version("S-731", 2, replaces=1).replace(b"1.999.1.731.1", b"1.999.1.730.1"), "MDM^T10")
    )
    assert len(to_gp(house)) == 1


@pytest.mark.parametrize("way", ["package", "message"])
async def test_a_correction_whose_version_nobody_counted_is_no_duplicate(house: House, way: str) -> None:
    first = version("S-740", 1)
    second = version("S-740", 2, replaces=1).replace(b"740.2.0", b"740.1.0")
    await arrive(house, package(first), package(second) if way == "package" else message(second, "MDM^T10"))
    assert len(to_gp(house)) == 2
    (row, *_) = await house.store.envelopes()
    assert row["state"] == "decided"


async def test_a_replacement_under_the_number_of_what_it_replaces_is_a_persons_to_see(house: House) -> None:
    first = version("S-750", 1)
    changed = first.replace(b"2,5 mg", b"5 mg").replace(b"</title>", b" bis</title>", 1)
    assert changed != first
    await arrive(house, package(first), message(changed, "MDM^T10"))
    (row, *_) = await house.store.envelopes()
    assert (row["state"], row["why"]) == ("held", "unclear")


# -------------------------------------------------------------------------------------------------- two directories


async def test_a_number_that_two_directories_give_to_two_doctors_sends_no_letter_to_either(
    house: House, place: Place
) -> None:
    slip = Professional(
        DUPONT.rpps or "", "Martin", "Camille", mailboxes=(Mailbox("a.martin@medecin.mssante.fr"),)
    )
    true = Professional(
        DUPONT.rpps or "", "Dupont", "Alix", "10", mailboxes=(Mailbox(DUPONT.mss_address or ""),)
    )
    registered = replace(REGISTERED, gp_rpps=(DUPONT.rpps or "",))
    await house.store.import_registrations([registered], keys_of)

    async def told(one: Professional, source: str) -> None:
        place.clock.turn(hours=1)
        await house.store.import_professionals([one], fold, source=source)

    async def sent(stay: str) -> set[str]:
        await arrive(house, mailed(letters.text_mail(patient=ODETTE, gp=DUPONT, stay=stay, sender=SENDER)))
        return {each.address for each in house.sender.sent if each.purpose == "letter"}

    for stay, (one, source) in enumerate(
        [
            (slip, "site"),
            (true, "annuaire"),
            (true, "annuaire"),
            (slip, "site"),
            (slip, "site"),
            (true, "extraction"),
        ]
    ):
        await told(one, source)
        assert not await sent(f"S-80{stay}")
    await told(replace(true, mailboxes=()), "site")  # mended
    await told(true, "annuaire")
    assert await sent("S-810") == {DUPONT.mss_address}


# --------------------------------------------------------------------------------- one message says two things at once


def oru(*results: tuple[bytes, str]) -> bytes:
    """Results with a document each, final (F) or withdrawn (D)."""
    (first, status), *more = results
    raw = hl7.mdm("ORU^R01", patient=ODETTE, document=first, result=status)
    for number, (document, result) in enumerate(more, 90):
        payload = base64.b64encode(document).decode()
        raw = told(raw, hl7.obx(number, "ED", "11490-0^Lettre^LN", f"^TEXT^XML^Base64^{payload}", result))
    return raw


@pytest.mark.parametrize("order", [("F", "D"), ("D", "F")])
async def test_a_message_that_brings_one_document_and_withdraws_another_is_held(
    house: House, order: tuple[str, str]
) -> None:
    one, other = (letters.cda(patient=ODETTE, document_id=f"1.2.250.1.999.1.1.20261201.{n}") for n in (1, 2))
    await arrive(house, his(oru((one, order[0]), (other, order[1]))))
    await held_alone(house)


async def test_no_document_hides_in_an_acknowledgement_beside_a_letter(house: House) -> None:
    letter = hl7.mdm(patient=ODETTE, document=CDA)
    hidden = told(hl7.zam(), packed(90, letters.cda(patient=STRANGER), "XML"))
    await arrive(house, his(hl7.batch(letter, hidden)))
    for mail in to_gp(house):
        for part in mail.walk():
            assert b"BOISGARD" not in (part.get_payload(decode=True) or b"")


# ------------------------------------------------------------------------------------------- copies of what is filed

FILING = RULES.replace(
    "  - id: sortie\n",
    "  - id: classee\n"
    "    when: { event: admission }\n"
    '    file: "Gardé"\n'
    "  - id: sortie\n",
).replace("default:", "also:\n  - id: lecture\n    when: { event: admission }\n    copy: gp\ndefault:")  # fmt: skip


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_no_copy_of_a_filed_letter_leaves_that_was_withdrawn_before_it_came(
    house: House, withdrawn: bool
) -> None:
    house.site = replace(house.site, rules=make_site(rules=FILING).rules)
    document = letters.cda(patient=ODETTE, code="18761-7", document_id="1.2.250.1.999.1.900.1")
    if withdrawn:
        await arrive(house, his(hl7.mdm("MDM^T04", patient=ODETTE, document=document)))
    await arrive(house, package(document))
    assert len([each for each in house.sender.sent if each.purpose == "letter"]) == (not withdrawn)


# ------------------------------------------------------------------------------------------------------- what is sent


async def test_a_database_that_is_away_for_a_moment_makes_no_second_letter(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a copy is entered when the database is back, whatever was to go next."""
    mails = [
        letters.text_mail(patient=ODETTE, gp=MARTIN, stay=f"S-95{n}", sender=SENDER)
        for n in range(2 * HANDFUL)
    ]
    await house.take(*mails)
    real, failures = house.store.conclude, [Unavailable("the database is away")]

    async def flaky(*args: Any, **more: Any) -> Any:
        if failures and args[0]:
            raise failures.pop()
        return await real(*args, **more)

    monkeypatch.setattr(house.store, "conclude", flaky)
    with pytest.raises(Unavailable):
        await house.dispatch.turn("mss", house.sender)
    rows = [row for row in await house.copies(purpose="letter") if row["state"] == "in_flight"]
    assert not rows, f"{len(rows)} copies left and nobody knows"


# ------------------------------------------------------------------------------------------------ wrapped once more

WIDE = b"\xff\xfe" + THEIRS.encode("utf-16-le")
NESTED: dict[str, bytes] = {
    "HL7": hl7.mdm(patient=STRANGER, document=letters.cda(patient=STRANGER)),
    "FHIR": fhir.dumped(fhir.document(STRANGER)),
    "a reference": fhir.dumped(fhir.reference(letters.cda(patient=STRANGER), who=STRANGER)),
    "a mail": letters.cda_mail(letter=letters.cda(patient=STRANGER), sender=SENDER),
    "wide text": WIDE,
}


@pytest.mark.parametrize("around", ["HL7", "FHIR"])
@pytest.mark.parametrize("nested", NESTED)
async def test_nobody_else_hides_in_a_message_within_the_message(
    house: House, nested: str, around: str
) -> None:
    if around == "HL7":
        raw = told(hl7.mdm(patient=ODETTE, document=CDA), packed(90, NESTED[nested], "PLAIN"))
    else:
        raw = fhir.dumped(with_more((NESTED[nested], "text/plain")))
    await arrive(house, his(raw))
    await held_alone(house)


@pytest.mark.parametrize("event", ["MDM^T02", "ORU^R01"])
async def test_a_line_beside_a_document_leaves_with_it(house: House, event: str) -> None:
    line = hl7.obx(90, "TX", "REM^Remarque^L", "Attention : allergie à la pénicilline")
    await arrive(house, his(told(hl7.mdm(event, patient=ODETTE, document=CDA), line)))
    (mail,) = to_gp(house)
    assert any("pénicilline".encode() in content for content in attached(mail).values())
    assert CDA in attached(mail).values()


# -------------------------------------------------------------------------------------------- what cannot be joined

POINTER = hl7.obx(90, "RP", "11490-0^Annexe^LN", "https://dpi.example/secret/1")


def partly(form: str) -> bytes:
    """A letter with its document inside, and a second document that lies elsewhere."""
    if form == "HL7":
        return told(hl7.mdm(patient=ODETTE, document=CDA), POINTER)
    one = with_more()
    one["content"].append(
        {"attachment": {"contentType": "application/pdf", "url": "https://dpi.example/secret/1"}}
    )
    return fhir.dumped(one)


@pytest.mark.parametrize("house", ["fr", "en"], indirect=True)
@pytest.mark.parametrize("form", ["HL7", "FHIR"])
async def test_the_gp_reads_that_a_document_could_not_be_joined(house: House, form: str) -> None:
    await arrive(house, his(partly(form)))
    (mail,) = to_gp(house)
    assert list(attached(mail).values()) == [CDA]
    french = house.site.settings.language == "fr"
    said = "un document de cet envoi n'a pas pu être joint" if french else "could not be joined"
    assert said in body(mail)
    assert "dpi.example" not in mail.as_string()


@pytest.mark.parametrize("form", ["MDM", "FHIR", "reference"])
async def test_a_letter_that_is_whole_says_nothing_of_missing_documents(house: House, form: str) -> None:
    await arrive(house, FORMS[form]())
    assert to_gp(house)
    assert not any("joint. Demandez" in body(mail) for mail in to_gp(house))


@pytest.mark.parametrize("status", ["IP", "AU"])
async def test_the_gp_reads_that_a_document_is_preliminary(house: House, status: str) -> None:
    await arrive(house, his(hl7.mdm(patient=ODETTE, document=CDA, status=status)))
    (mail,) = to_gp(house)
    assert ("Document provisoire" in body(mail)) == (status == "IP")
    assert CDA in attached(mail).values()


async def test_a_message_too_long_to_be_read_whole_is_held(house: House) -> None:
    lines = [hl7.obx(n, "NM", "8867-4^FC^LN", "72") for n in range(20_000)]
    whole = hl7.mdm(patient=ODETTE, document=CDA)
    await arrive(house, his(told(whole, *lines, packed(90_000, THEIRS.encode(), "PLAIN"))))
    await held_alone(house)
    (held,) = await house.store.holds()
    assert held["why"] == "broken_package"


# ------------------------------------------------------------------------------------------- two discharges of a stay

MOVES: dict[str, list[tuple[str, str]]] = {
    "the first is cancelled late": [("A03", "1"), ("A03", "2"), ("", ""), ("A13", "1")],
    "the first is cancelled before the letter": [("A03", "1"), ("A03", "2"), ("A13", "1"), ("", "")],
    "a cancellation without a number": [("A03", "1"), ("A03", "2"), ("", ""), ("A13", "")],
    "a cancellation of what never came": [("A03", "1"), ("", ""), ("A13", "3")],
    "the second was changed": [("A03", "1"), ("A03", "2"), ("Z99", "2"), ("", ""), ("A13", "1")],
    "only a change of the second came": [("A03", "1"), ("Z99", "2"), ("", ""), ("A13", "1")],
}


def moves(steps: list[tuple[str, str]]) -> list[tuple[bytes, str]]:
    """Movements by trigger and number, and the letter of their stay where none is named."""
    told: list[tuple[bytes, str]] = []
    for control, (trigger, number) in enumerate(steps, 100):
        if not trigger:
            told.append(mailed(letters.xdm_mail(patient=ODETTE, letter=CDA, sender=SENDER)))
            continue
        action = {"A13": "CANCEL", "Z99": "UPDATE"}.get(trigger, "INSERT")
        change = hl7.zbe(action, trigger="A03", number=number)
        if not number:
            change = change.replace("ZBE|^CHR^^ISO|", "ZBE||")
        told.append(his(hl7.adt(trigger, patient=ODETTE, movement=change, control=str(control))))
    return told


@pytest.mark.parametrize("story", MOVES)
async def test_a_cancelled_movement_takes_no_letter_back_while_another_discharge_stands(
    house: House, story: str
) -> None:
    await arrive(house, *moves(MOVES[story]))
    assert not [mail for mail in to_gp(house) if TOLD_OFF in body(mail)]
    (held,) = await house.store.holds()
    assert held["why"] == "other_discharge"
    assert [row["state"] for row in await house.store.threads()] == ["awaiting_ack"]


@pytest.mark.parametrize(
    "steps",
    [
        [("A03", "1"), ("A13", "1"), ("A03", "2"), ("", ""), ("A13", "2")],
        [("A13", "1"), ("A03", "1"), ("A03", "2"), ("", ""), ("A13", "2")],
        [("A03", "1"), ("Z99", "1"), ("", ""), ("A13", "1")],
        [("Z99", "1"), ("A03", "1"), ("", ""), ("A13", "1")],
        [("A03", "1"), ("", ""), ("A13", "")],
    ],
    ids=lambda steps: " ".join(f"{trigger or 'letter'}{number}" for trigger, number in steps),
)
async def test_the_last_discharge_that_stood_is_cancelled_with_its_letter(
    house: House, steps: list[tuple[str, str]]
) -> None:
    await arrive(house, *moves(steps))
    assert TOLD_OFF in body(to_gp(house)[-1])
    assert await house.store.holds() == []
    assert [row["state"] for row in await house.store.threads()] == ["closed"]
