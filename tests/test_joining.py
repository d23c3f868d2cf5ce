"""One discharge, however it is told and in whatever order: one thread, one alert, and the GP holds what is in force.

Every arrival goes through the real rooms and a real store, as an inbox would hand it over.
"""

from __future__ import annotations

import io
import itertools
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from adapters import memory
from relay import config
from relay.identity import keys_of
from relay.model import Link, Mailbox, MailMessage, Professional, Registration
from relay.planning import Site, Tokens
from relay.store import Store
from rules import language
from tests import letters
from tests.letters import MARTIN, fhir, hl7, printed
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
async def house(
    request: pytest.FixtureRequest, place: Place, store: Store, tmp_path: Path
) -> AsyncIterator[House]:
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
    yield House(place, store, site, sender)


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
        house.clock.turn(minutes=1)


def to_gp(house: House) -> list[EmailMessage]:
    """What the GP's mailbox holds, oldest first."""
    found = [each.message for each in house.sender.sent if each.address == GP]
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
