"""One discharge, however it is told and in whatever order: one thread, one alert, and the GP holds what is in force.

Every arrival goes through the real rooms and a real store, as an inbox would hand it over.
"""

from __future__ import annotations

import io
import itertools
import re
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from adapters import memory
from relay import config
from relay.identity import keys_of
from relay.model import Link, Mailbox, MailMessage, Person, Professional, Registration
from relay.planning import Site, Tokens
from relay.store import Store
from rules import language
from tests import letters
from tests.campaign import many
from tests.letters import DUPONT, MARTIN, fhir, hl7, printed
from tests.stores import Place
from tests.test_loops import House
from tests.test_planning import CONFIG, RULES, _secret  # noqa: F401 - a fixture
from tests.trials import tools

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
SENDER = "sorties.cardio@chr-exemple.mssante.fr"
ODETTE = replace(letters.ODETTE, ins_oid=letters.INS_NIR)
STAY = "S-2026-004217"
DIRECT = """
[adapters.his]
kind = "mllp"
listen = "127.0.0.1:2575"
ward = { name = "Tous services", slug = "his", facility = "450000088", reply_to = "dim@chr-exemple.mssante.fr" }
"""
GP = MARTIN.mss_address or ""


@pytest.fixture(params=["fr"])
async def house(request: pytest.FixtureRequest, place: Place, store: Store, tmp_path: Path) -> House:
    """A house whose second way in is the hospital's system."""
    registered = Registration(
        ins=ODETTE.ins or "", ins_oid=letters.INS_NIR, facility="450000088", birth_name="CORMERAIS",
        used_name="VALBRUNE", given_names=ODETTE.given_names, birth_date=ODETTE.birth_date, sex="F",
        birth_place="45234", gp_rpps=(MARTIN.rpps or "",),
    )  # fmt: skip
    await store.import_registrations([registered], keys_of)
    known = Professional(MARTIN.rpps or "", "Martin", "Camille", mailboxes=(Mailbox(GP),))
    await store.import_professionals([known], str.upper)
    await store.link([Link(MARTIN.rpps or "", "telegram", "9001", "9001")])
    text = CONFIG.format(mode="live", receipts="problems", sees="document") + DIRECT
    text = text.replace("domains =", f'language = "{request.param}"\ndomains =')
    rules, findings = language.load(RULES, "test.yaml")
    assert rules is not None, findings
    site = Site(
        config.parse(text, Path("/nowhere/config.toml")), rules, Tokens(b"k" * 32, "relais45.mssante.fr")
    )
    sender = memory.connect("mss", memory.Settings(), tools(tmp_path, place.clock))
    return House(place, store, site, sender)


# ------------------------------------------------------------------------------------------------------ arrivals


def his(raw: bytes) -> tuple[bytes, str]:
    return raw, "his"


def mailed(raw: bytes) -> tuple[bytes, str]:
    return raw, "cardiologie"


PAPER = printed.letter(ODETTE, MARTIN)
CDA = letters.cda(patient=ODETTE, stay=STAY)

FORMS: dict[str, Callable[[], tuple[bytes, str]]] = {
    "A03": lambda: his(hl7.adt(patient=ODETTE)),
    "FHIR": lambda: his(fhir.dumped(fhir.message("A03", ODETTE))),
    "SOR": lambda: his(fhir.dumped(fhir.notification(ODETTE))),
    "reference": lambda: his(fhir.dumped(fhir.reference(CDA, who=ODETTE))),
    "MDM": lambda: his(hl7.mdm(patient=ODETTE, document=CDA)),
    "XDM": lambda: mailed(letters.xdm_mail(patient=ODETTE, letter=CDA, sender=SENDER)),
    "PDF": lambda: mailed(
        letters.mail("Ci-joint.", sender=SENDER, to="relais@relais45.mssante.fr", subject="Lettre de liaison",
                     attachments=[("lettre.pdf", PAPER, "application/pdf")])
    ),
    "text": lambda: mailed(letters.text_mail(patient=ODETTE, gp=MARTIN, stay=STAY, sender=SENDER)),
}  # fmt: skip


async def arrive(house: House, *arrivals: tuple[bytes, str]) -> None:
    """One after the other, each sent on before the next comes."""
    for raw, adapter in arrivals:
        await house.take(raw, adapter=adapter)
        await house.leave()
        house.clock.turn(seconds=5)


def to_gp(house: House, after: int = 0) -> list[EmailMessage]:
    """What the GP's mailbox holds, oldest first; `after` so many copies sent to anybody."""
    found = [each.message for each in house.sender.sent[after:] if each.address == GP]
    assert all(isinstance(each, MailMessage) for each in found)
    return [message_from_bytes(each.content, policy=policy.default) for each in found]  # type: ignore[union-attr]


def body(mail: EmailMessage) -> str:
    part = mail.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def attached(mail: EmailMessage) -> dict[str, bytes]:
    return {str(p.get_filename()): p.get_payload(decode=True) for p in mail.walk() if p.get_filename()}


async def alerts(house: House) -> list[dict[str, Any]]:
    return [row for row in await house.copies(purpose="alert") if row["state"] != "cancelled"]


async def sound(house: House) -> None:
    """What must hold after any arrivals."""
    status = await house.store.status()
    assert status["balance"] == 0
    assert not any((await house.store.invariants()).values())


# ---------------------------------------------------------------------------------------------- one discharge


@pytest.mark.parametrize("order", list(itertools.permutations(("A03", "MDM", "PDF"))), ids="-".join)
async def test_one_discharge_in_three_forms_is_one_thread_and_one_alert(
    house: House, order: Sequence[str]
) -> None:
    await arrive(house, *(FORMS[form]() for form in order))
    assert await house.store.holds() == []
    (thread,) = await house.store.threads()
    assert thread["state"] == "awaiting_ack"
    assert len(await alerts(house)) == 1
    received = [name for mail in to_gp(house) for name in attached(mail).values()]
    assert CDA in received
    assert PAPER in received
    told = [mail for mail in to_gp(house) if "lettre à venir" in body(mail)]
    assert len(told) == (1 if order[0] == "A03" else 0), "only before the letter is one to come"
    assert {str(mail["Subject"]) for mail in to_gp(house)} == {
        f"Lettre de liaison – Réf. {thread['reference']}"
    }
    await sound(house)


@pytest.mark.parametrize(
    "order", list(itertools.permutations(("A03", "SOR", "FHIR", "XDM"), 3)), ids="-".join
)
async def test_a_discharge_told_twice_by_systems_and_once_by_its_letter_rings_once(
    house: House, order: Sequence[str]
) -> None:
    await arrive(house, *(FORMS[form]() for form in order))
    assert len(await house.store.threads()) == 1
    assert len(await alerts(house)) == 1
    assert len(to_gp(house)) == 1 + (order[0] != "XDM" and "XDM" in order)
    packed = [content for mail in to_gp(house) for content in _of_package(mail).values()]
    assert ("XDM" in order) == (CDA in packed)
    await sound(house)


def _of_package(mail: EmailMessage) -> dict[str, bytes]:
    package = attached(mail).get("IHE_XDM.zip")
    if package is None:
        return {}
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.mark.parametrize("order", list(itertools.permutations(("MDM", "XDM", "reference"), 2)), ids="-".join)
async def test_the_same_document_by_two_ways_is_sent_once(house: House, order: Sequence[str]) -> None:
    await arrive(house, *(FORMS[form]() for form in order))
    assert len(to_gp(house)) == 1
    (second, _) = await house.store.envelopes()
    assert (second["state"], second["why"]) == ("ignored", "duplicate")


@pytest.mark.parametrize("house", ["fr", "en"], indirect=True)
@pytest.mark.parametrize("form", ["A03", "SOR", "FHIR"])
async def test_a_discharge_without_its_letter_is_told_in_our_own_words(house: House, form: str) -> None:
    await arrive(house, FORMS[form]())
    (mail,) = to_gp(house)
    words = body(mail)
    french = "Sorti ce jour, lettre à venir." in words
    english = "Discharged today, letter to follow." in words
    assert (french, english) == ((True, False) if house.site.settings.language == "fr" else (False, True))
    assert "CORMERAIS" in words
    assert attached(mail) == {}
    assert "MSH|" not in mail.as_string()
    assert "resourceType" not in mail.as_string()
    (thread,) = await house.store.threads()
    if house.site.settings.language == "fr":
        assert str(mail["Subject"]) == f"Lettre de liaison – Réf. {thread['reference']}"
    assert len(await alerts(house)) == 1


@pytest.mark.parametrize("notice", ["A03", "SOR", "FHIR"])
async def test_the_letter_after_its_notice_joins_it_beneath_its_mail(house: House, notice: str) -> None:
    await arrive(house, FORMS[notice](), FORMS["XDM"]())
    told, letter = to_gp(house)
    assert letter["References"] == told["Message-ID"]
    assert "lettre à venir" not in body(letter)
    assert "IHE_XDM.zip" in attached(letter)
    assert len(await alerts(house)) == 1
    (thread,) = await house.store.threads()
    assert thread["state"] == "awaiting_ack"


async def test_a_wards_own_lines_about_a_letter_to_come_reach_the_gp(house: House) -> None:
    """Words that a person wrote are never replaced by ours."""
    lines = "Lettre définitive à venir. Surveiller le potassium avant vendredi."
    lines = f"{letters.labelled_lines(ODETTE, MARTIN, stay=STAY)}\n{lines}"
    mail = letters.text_mail(patient=ODETTE, gp=MARTIN, stay=STAY, sender=SENDER, body=lines)
    await arrive(house, mailed(mail))
    (sent,) = to_gp(house)
    assert "Surveiller le potassium avant vendredi." in body(sent)
    await arrive(house, FORMS["XDM"]())
    assert len(await house.store.threads()) == 1
    assert len(await alerts(house)) == 1
    assert "IHE_XDM.zip" in attached(to_gp(house)[-1])
    late = letters.text_mail(patient=ODETTE, gp=MARTIN, stay=STAY, sender=SENDER, body=f"{lines} Merci.")
    await arrive(house, mailed(late))
    assert "Merci." in body(to_gp(house)[-1])
    assert "Complète la lettre précédente" in body(to_gp(house)[-1])
    assert "Sorti ce jour" not in body(to_gp(house)[-1]).replace(lines, "")


# ------------------------------------------------------------------------------------ replaced, added to, taken back


def version(stay: str, number: int, *, replaces: int | None = None, adds_to: int | None = None) -> bytes:
    """The document `number` of a stay."""
    root = f"1.2.250.1.999.1.{stay.removeprefix('S-')}"
    made = letters.cda(
        patient=ODETTE, stay=stay, document_id=f"{root}.{number}", set_id=f"{root}.{number}.0",
        title=f"Lettre de liaison {stay} n° {number}",
        replaces=f"{root}.{replaces or adds_to}" if replaces or adds_to else None,
    )  # fmt: skip
    return made.replace(b'typeCode="RPLC"', b'typeCode="APND"') if adds_to else made


def package(document: bytes, action: str | None = None) -> tuple[bytes, str]:
    """It as a ward's secure mail."""
    held = [("DOC00001.XML", document, "text/xml")]
    zipped = letters.xdm(held, patient=ODETTE, meta=letters.metadata(held, patient=ODETTE, action=action))
    return mailed(letters.xdm_mail(patient=ODETTE, package=zipped, with_pdf=False, sender=SENDER))


def message(document: bytes, event: str) -> tuple[bytes, str]:
    """It as the hospital's system tells it; its stay stands in the document."""
    stay = document.split(b"<encompassingEncounter>")[1].split(b'extension="')[1].split(b'"')[0].decode()
    return his(hl7.mdm(event, patient=ODETTE, document=document, visit=hl7.pv1(number=stay)))


CAMPAIGN = many(1) > 1
TOLD_OFF = "L'hôpital a retiré cette lettre"


@pytest.mark.parametrize("way", ["package", "message"])
@pytest.mark.parametrize("withdrawn", ["letter", "replacement", "addendum", None])
async def test_in_any_order_the_gp_ends_with_what_is_in_force(
    house: House, way: str, withdrawn: str | None
) -> None:
    """Letter, replacement, addendum and a retraction of one of them, in each of their orders."""
    wrong: list[str] = []
    kinds = ["letter", "replacement", "addendum", *(["retraction"] if withdrawn else [])]
    orders = list(itertools.permutations(kinds))
    if way == "message" and not CAMPAIGN:
        orders = orders[:: 4 if withdrawn else 1]  # planning is the same; the reading differs
    for number, order in enumerate(orders, 100):
        stay = f"S-{number}"
        documents = {
            "letter": version(stay, 1),
            "replacement": version(stay, 2, replaces=1),
            "addendum": version(stay, 3, adds_to=1),
        }
        before = len(house.sender.sent)
        for kind in order:
            if kind != "retraction":
                new = package(documents[kind]) if way == "package" else message(documents[kind], "MDM^T02")
            elif way == "package":
                new = package(documents[withdrawn or ""], "D")
            else:
                new = message(documents[withdrawn or ""], "MDM^T04")
            await arrive(house, new)
        seen = [(mail, *(_of_package(mail) or attached(mail)).values()) for mail in to_gp(house, before)]
        void = {"letter", withdrawn or "letter"}
        story = " ".join(order)
        for kind, document in documents.items():
            places = [n for n, (_, *held) in enumerate(seen) if document in held]
            voided_by = [k for k in ("retraction", "replacement") if k in order and (
                (k == "retraction" and kind == withdrawn) or (k == "replacement" and kind == "letter"))]  # fmt: skip
            if kind not in void:
                if len(places) != 1:
                    wrong.append(f"{story}: {kind} in force was sent {len(places)} times")
                continue
            first = min(order.index(k) for k in voided_by)
            if places and order.index(kind) > first:
                wrong.append(f"{story}: {kind} was sent after it was withdrawn")
            if len(places) > 1:
                wrong.append(f"{story}: {kind} was sent {len(places)} times")
            after = [mail for mail, *_ in seen[places[0] + 1 :]] if places else []
            if places and not any(
                TOLD_OFF in body(mail) or "[Annule et remplace]" in str(mail["Subject"]) for mail in after
            ):
                wrong.append(f"{story}: nobody was told that {kind} no longer stands")
        for mail, *held in seen:
            says = "Annule et remplace" in body(mail) or "[Annule" in str(mail["Subject"])
            came_before = order.index("letter") < order.index("replacement")
            if says and not (documents["replacement"] in held and came_before):
                wrong.append(f"{story}: « annule et remplace » what never came")
        threads = [row for row in await house.store.threads() if row["reference"] in _references(seen)]
        if len({row["reference"] for row in threads}) > 1:
            wrong.append(f"{story}: {len(threads)} threads")
        if any(row["state"] == "closed" for row in threads):
            wrong.append(f"{story}: closed while {set(documents) - void} stands")
    assert not wrong, "\n".join(wrong)
    assert await house.store.holds() == []
    await sound(house)


def _references(seen: Sequence[tuple[Any, ...]]) -> set[str]:
    return {body(mail).split("Réf. ")[1][:9] for mail, *_ in seen}


# ------------------------------------------------------------------------------------------- cancelled discharges


def movement(
    trigger: str, number: str = "77001", action: str = "INSERT", control: str = "1"
) -> tuple[bytes, str]:
    change = hl7.zbe("CANCEL" if trigger == "A13" else action, trigger="A03", number=number)
    return his(hl7.adt(trigger, patient=ODETTE, movement=change, control=control))


async def test_a_cancelled_discharge_withdraws_its_notice_and_a_later_one_is_told_anew(house: House) -> None:
    await arrive(house, movement("A03"), movement("A13", control="2"))
    told, taken_back = to_gp(house)
    assert TOLD_OFF in body(taken_back)
    assert taken_back["In-Reply-To"] == told["Message-ID"]
    (thread,) = await house.store.threads()
    assert (thread["state"], thread["closed_reason"]) == ("closed", "superseded")
    await arrive(house, movement("A03", "77002", control="3"))
    (thread,) = await house.store.threads()
    assert thread["state"] == "awaiting_ack"
    assert "lettre à venir" in body(to_gp(house)[-1])
    states = [row["state"] for row in await house.copies(purpose="alert")]
    assert states == ["cancelled", "queued"], "what waited for the phone is withdrawn, and it rings anew"
    await sound(house)


async def test_a_cancelled_discharge_withdraws_the_letter_too_that_came_meanwhile(house: House) -> None:
    await arrive(house, movement("A03"), FORMS["XDM"](), movement("A13", control="2"))
    assert TOLD_OFF in body(to_gp(house)[-1])
    (thread,) = await house.store.threads()
    assert (thread["state"], thread["closed_reason"]) == ("closed", "superseded")


async def test_a_cancellation_that_comes_first_keeps_its_discharge_from_being_told(house: House) -> None:
    await arrive(house, movement("A13", control="2"), movement("A03"))
    assert to_gp(house) == []
    assert await house.store.threads() == []
    assert {row["state"] for row in await house.store.envelopes()} == {"decided"}


async def test_a_discharge_that_was_changed_can_still_be_cancelled(house: House) -> None:
    changed = movement("Z99", action="UPDATE", control="9")
    await arrive(house, movement("A03"), changed, movement("A13", control="10"))
    assert TOLD_OFF in body(to_gp(house)[-1])
    (thread,) = await house.store.threads()
    assert thread["state"] == "closed"


@pytest.mark.parametrize("order", [("T02", "T11"), ("T11", "T02")], ids="-".join)
async def test_a_message_without_the_document_names_it_by_the_number_of_its_message(
    house: House, order: Sequence[str]
) -> None:
    letter = hl7.mdm(patient=ODETTE, document=CDA)
    bare = re.sub(rb"\rOBX\|1\|ED[^\r]*", b"", hl7.mdm("MDM^T11", patient=ODETTE, document=CDA))
    assert b"ClinicalDocument" not in bare
    await arrive(house, *(his(letter if one == "T02" else bare) for one in order))
    if order[0] == "T02":
        assert TOLD_OFF in body(to_gp(house)[-1])
        assert [row["state"] for row in await house.store.threads()] == ["closed"]
    else:
        assert to_gp(house) == []
    assert await house.store.holds() == []


async def test_a_reference_entered_in_error_withdraws_the_letter_it_carried(house: House) -> None:
    wrong: Any = {**fhir.reference(CDA, who=ODETTE), "status": "entered-in-error"}
    await arrive(house, FORMS["reference"](), his(fhir.dumped(wrong)))
    letter, told = to_gp(house)
    assert TOLD_OFF in body(told)
    assert told["In-Reply-To"] == letter["Message-ID"]


async def test_the_same_retraction_again_is_told_to_nobody(house: House) -> None:
    document = version("S-500", 1)
    await arrive(house, package(document), package(document, "D"))
    before = len(to_gp(house))
    await arrive(house, message(document, "MDM^T04"))
    assert len(to_gp(house)) == before
    (again, *_) = await house.store.envelopes()
    assert (again["state"], again["why"]) == ("ignored", "duplicate")


async def test_a_retraction_of_what_never_came_leaves_the_letter_that_did(house: House) -> None:
    await arrive(house, package(version("S-501", 1)), package(version("S-501", 7), "D"))
    assert len(to_gp(house)) == 1
    (thread,) = await house.store.threads()
    assert thread["state"] == "awaiting_ack"
    await arrive(house, package(version("S-501", 7)))
    assert len(to_gp(house)) == 1, "withdrawn before it came"


async def test_a_changed_package_replaces_the_letter_it_changes(house: House) -> None:
    first = version("S-502", 1)
    await arrive(house, package(first), package(version("S-502", 2, replaces=1), "C"))
    letter, changed = to_gp(house)
    assert str(changed["Subject"]).startswith("[Annule et remplace]")
    assert changed["References"] == letter["Message-ID"]
    assert len(await house.store.threads()) == 1


# ------------------------------------------------------------------------------------ the patient's doctor changed


def unnamed(number: int, *, replaces: int | None = None) -> bytes:
    """A document of one stay that names no GP: the registry says who."""
    root = "1.2.250.1.999.1.700"
    return letters.cda(
        patient=ODETTE, gp=None, recipients=(), stay="S-700", document_id=f"{root}.{number}",
        set_id=f"{root}.{number}.0", replaces=f"{root}.{replaces}" if replaces else None,
    )  # fmt: skip


async def changes_doctor(house: House) -> None:
    """From Dr Martin to Dr Dupont, who has a phone too."""
    registered = Registration(
        ins=ODETTE.ins or "", ins_oid=letters.INS_NIR, facility="450000088", birth_name="CORMERAIS",
        used_name="VALBRUNE", given_names=ODETTE.given_names, birth_date=ODETTE.birth_date, sex="F",
        birth_place="45234", gp_rpps=(DUPONT.rpps or "",),
    )  # fmt: skip
    await house.store.import_registrations([registered], keys_of)
    known = Professional(DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),))
    await house.store.import_professionals([known], str.upper)
    await house.store.link([Link(DUPONT.rpps or "", "telegram", "9002", "9002")])


def told(house: House, who: Person) -> list[tuple[str, EmailMessage]]:
    """What somebody's mailbox holds, with its purpose."""
    return [
        (each.purpose, message_from_bytes(each.message.content, policy=policy.default))
        for each in house.sender.sent
        if each.address == who.mss_address
    ]


async def test_the_former_gp_learns_that_the_letter_they_hold_was_replaced(house: House) -> None:
    await arrive(house, package(unnamed(1)))
    await changes_doctor(house)
    await arrive(house, package(unnamed(2, replaces=1)))
    (_, first), (purpose, withdrawn) = told(house, MARTIN)
    assert purpose == "recall"
    assert TOLD_OFF in body(withdrawn)
    assert withdrawn["In-Reply-To"] == first["Message-ID"]
    assert attached(withdrawn) == {}
    ((_, letter),) = told(house, DUPONT)
    assert not str(letter["Subject"]).startswith("[Annule et remplace]"), "nothing was sent there before"
    assert "Annule et remplace" not in body(letter)
    rings = {row["to"]: row["state"] for row in await house.copies(purpose="alert")}
    assert rings[f"rpps:{MARTIN.rpps}"] == "cancelled"
    assert rings[f"rpps:{DUPONT.rpps}"] == "queued"
    (thread,) = await house.store.threads()
    assert thread["state"] == "awaiting_ack"
    await sound(house)


async def test_a_replacement_for_the_same_gp_withdraws_nothing(house: House) -> None:
    await arrive(house, package(unnamed(1)), package(unnamed(2, replaces=1)))
    assert [purpose for purpose, _ in told(house, MARTIN)] == ["letter", "letter"]
    assert "Annule et remplace" in body(told(house, MARTIN)[-1][1])


@pytest.mark.parametrize("first", ["A03", "SOR", "PDF"])
async def test_the_new_gp_is_rung_though_the_former_one_was(house: House, first: str) -> None:
    """After a mere notice, or after the same discharge in another form."""
    await arrive(house, FORMS[first]())
    await changes_doctor(house)
    unnamed_letter = letters.cda(patient=ODETTE, gp=None, recipients=(), stay=STAY)
    await arrive(house, package(unnamed_letter))
    ((purpose, letter),) = told(house, DUPONT)
    assert purpose == "letter"
    assert "IHE_XDM.zip" in attached(letter)
    assert [row["to"] for row in await alerts(house)].count(f"rpps:{DUPONT.rpps}") == 1
    await sound(house)


async def test_a_notice_that_is_told_to_nobody_takes_the_letter_from_nobody(house: House) -> None:
    await arrive(house, package(letters.cda(patient=ODETTE, gp=None, recipients=(), stay=STAY)))
    await changes_doctor(house)
    await arrive(house, his(hl7.adt(patient=ODETTE, gp=None)))
    assert told(house, DUPONT) == []
    (row,) = await house.store.threads()
    found = await house.store.thread(str(row["id"]))
    assert found.thread.gp == f"rpps:{MARTIN.rpps}", "who has the letter answers for it"


# ---------------------------------------------------------------------------------------------- what the GP opens


def attachments_of(*files: tuple[str, bytes, str]) -> tuple[bytes, str]:
    return mailed(
        letters.mail(
            "Bonjour, ci-joint.", sender=SENDER, to=SENDER, subject="Sortie", attachments=list(files)
        )
    )


async def test_a_letter_beside_a_movement_is_a_letter(house: House) -> None:
    binary = "application/octet-stream"
    await arrive(house, attachments_of(("sortie.hl7", hl7.adt(patient=ODETTE), binary),
                                       ("lettre.pdf", PAPER, "application/pdf")))  # fmt: skip
    (mail,) = to_gp(house)
    assert attached(mail) == {"lettre.pdf": PAPER}
    assert "lettre à venir" not in body(mail)
    assert "Bonjour, ci-joint." in body(mail)


async def test_a_movement_that_a_ward_mails_is_told_in_our_words_with_the_wards_below(house: House) -> None:
    await arrive(house, attachments_of(("sortie.hl7", hl7.adt(patient=ODETTE), "application/octet-stream")))
    (mail,) = to_gp(house)
    assert attached(mail) == {}
    assert body(mail).index("Sorti ce jour, lettre à venir.") < body(mail).index("Bonjour, ci-joint.")


async def test_a_letter_written_in_fhir_alone_reaches_the_gp_in_words(house: House) -> None:
    original = fhir.dumped(fhir.document(ODETTE))
    await arrive(house, his(original))
    (mail,) = to_gp(house)
    assert attached(mail) == {"lettre.json": original}
    assert "Consultation de cardiologie 15/12/2026" in body(mail)
    assert "lettre à venir" not in body(mail)


async def test_a_message_that_only_points_at_its_letter_is_a_letter_to_come(house: House) -> None:
    pointed = re.sub(
        rb"\|ED\|([^|]*)\|\|[^|]*", rb"|RP|\1||https://dpi.example/1", hl7.mdm(patient=ODETTE, document=CDA)
    )
    await arrive(house, his(pointed), FORMS["XDM"]())
    told, letter = to_gp(house)
    assert "lettre à venir" in body(told)
    assert attached(told) == {}
    assert "IHE_XDM.zip" in attached(letter)


async def test_a_letter_too_large_once_unwrapped_is_held(house: House) -> None:
    heavy = letters.pdf(size=8_000_000)
    limits = {"mss": replace(house.site.limits_of("mss"), max_bytes=10_000_000)}
    house.site = replace(house.site, limits=limits)
    await arrive(house, his(hl7.mdm(patient=ODETTE, document=heavy, subtype="PDF")))
    (held,) = await house.store.holds()
    assert held["why"] == "too_large"
    lighter = letters.pdf(size=7_000_000)  # as base64 in HL7 it would be too large a file to wrap once more
    await arrive(
        house, his(hl7.mdm(patient=ODETTE, document=lighter, subtype="PDF", visit=hl7.pv1(number="S-9")))
    )
    (mail,) = to_gp(house)
    assert attached(mail) == {"lettre.pdf": lighter}


PAUL = letters.patient("LEROUX", "Paul", sex="M", oid=letters.INS_NIR)
ONE = ("DOC00001.XML", CDA, "text/xml")
META = letters.metadata([ONE], patient=ODETTE)
OTHER = ("DOC00002.XML", letters.cda(patient=PAUL, document_id="1.2.3.4"), "text/xml")
HELD = {
    "another hash": (letters.xdm([("DOC00001.XML", CDA.replace(b"Dyspn", b"Fatig"), "text/xml")], meta=META), "broken_package"),
    "another size": (letters.xdm([("DOC00001.XML", CDA + b" ", "text/xml")], meta=META), "broken_package"),
    "a missing file": (letters.xdm([("DOC00009.XML", CDA, "text/xml")], meta=META), "broken_package"),
    "two letters of two": (letters.xdm([ONE, OTHER], patient=ODETTE), "two_patients"),
    "metadata of another": (letters.xdm([ONE], meta=letters.metadata([ONE], patient=PAUL)), "two_patients"),
    "cut": (letters.xdm([ONE], patient=ODETTE)[:-30], "broken_package"),
}  # fmt: skip


@pytest.mark.parametrize("flaw", HELD)
async def test_a_package_that_lies_or_mixes_people_is_held_whole(house: House, flaw: str) -> None:
    zipped, why = HELD[flaw]
    mail = letters.xdm_mail(patient=ODETTE, package=zipped, sender=SENDER, with_pdf=False,
                            body=letters.labelled_lines(ODETTE, MARTIN))  # fmt: skip
    await arrive(house, mailed(mail))
    (held,) = await house.store.holds()
    assert held["why"] == why
    assert to_gp(house) == []
    assert await house.store.threads() == []
    await sound(house)


async def test_a_package_without_its_cda_is_read_from_its_pdf(house: House) -> None:
    held = [("DOC00001.PDF", PAPER, "application/pdf")]
    zipped = letters.xdm(held, patient=ODETTE, meta=letters.metadata(held, patient=ODETTE))
    mail = letters.xdm_mail(patient=ODETTE, package=zipped, sender=SENDER, with_pdf=False)
    await arrive(house, mailed(mail))
    (sent,) = to_gp(house)
    assert attached(sent) == {"IHE_XDM.zip": zipped}
    assert str(sent["Subject"]).startswith("XDM/1.0/DDM+")
