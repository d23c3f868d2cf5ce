"""A letter and the message that takes it back, where one of them waits for a person: neither passes the other by."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import email
import email.policy
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from relay.errors import Refused
from relay.identity import keys_of
from relay.model import MailMessage, Professional, Purpose, Registration
from relay.planning import Correction, plan_reject
from rules import language
from tests.letters import DISCHARGED, MARTIN, hl7
from tests.stores import place, store  # noqa: F401 - fixtures
from tests.test_joining import ODETTE, arrive, his, house, message, package, to_gp, version  # noqa: F401 - a fixture
from tests.test_loops import House
from tests.test_planning import RULES, _secret  # noqa: F401 - a fixture

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
HOLDING = "rules:\n  - {{ id: look, when: {{ document: {} }}, hold: sorties, reason: À lire }}\n"


def holding(house: House, what: str | None) -> None:
    """From now on a rule holds such documents, or none does."""
    text = RULES.replace("rules:\n", HOLDING.format(what), 1) if what else RULES
    rules, findings = language.load(text, "test.yaml")
    assert rules is not None, findings
    house.site = replace(house.site, rules=rules)


async def states(house: House) -> list[tuple[object, object]]:
    """Of the arrivals, oldest first."""
    return [(row["state"], row["why"]) for row in reversed(await house.store.envelopes())]


def to_desk(house: House) -> list[str]:
    """What the desk was told, oldest first."""
    found = []
    for each in house.sender.sent:
        if each.to == "desk:sorties" and each.purpose is Purpose.HOLD_NOTE:
            assert isinstance(each.message, MailMessage)
            parsed = email.message_from_bytes(each.message.content, policy=email.policy.default)
            words = parsed.get_body(("plain",))
            assert words is not None
            found.append(str(words.get_content()))
    return found


async def settle(house: House, why: str, *, reject: bool = False) -> None:
    """The desk lets go what is held for that reason, or sets it aside."""
    (row,) = [each for each in await house.store.holds() if each["why"] == why]
    hold = await house.store.hold(str(row["id"]))
    if reject:
        plan = plan_reject(house.site, hold, "desk:sorties", "Erreur", house.clock.now())
        assert await house.store.record([plan]) == [None]
    else:
        await house.intake.release(Correction("desk:sorties", hold.id))
    await house.leave()


FIRST = version("S-800", 1)
TAKING_BACK: dict[str, tuple[Callable[[], tuple[bytes, str]], str]] = {
    "a deleted package": (lambda: package(FIRST, "D"), "retraction"),
    "a cancelled document": (lambda: message(FIRST, "MDM^T04"), "retraction"),
    "a replacement": (lambda: package(version("S-800", 2, replaces=1)), "replacement"),
}


@pytest.mark.parametrize("way", TAKING_BACK)
async def test_a_letter_that_comes_after_a_held_message_that_takes_it_back_is_not_sent(
    house: House, way: str
) -> None:
    taking_back, kind = TAKING_BACK[way]
    holding(house, kind)
    await arrive(house, taking_back(), package(FIRST))
    assert await states(house) == [("held", "rule"), ("held", "withdrawal_held")]
    assert not to_gp(house)


async def test_a_letter_whose_retraction_was_set_aside_leaves(house: House) -> None:
    holding(house, "retraction")
    await arrive(house, package(FIRST, "D"))
    await settle(house, "rule", reject=True)
    await arrive(house, package(FIRST))
    assert len(to_gp(house)) == 1


async def test_a_second_held_retraction_still_stops_the_letter_when_the_first_was_set_aside(
    house: House,
) -> None:
    holding(house, "retraction")
    await arrive(house, package(FIRST, "D"))
    await settle(house, "rule", reject=True)
    await arrive(house, message(FIRST, "MDM^T04"), package(FIRST))
    assert (await states(house))[1:] == [("held", "rule"), ("held", "withdrawal_held")]
    assert not to_gp(house)


async def test_a_person_who_read_both_may_send_the_letter_all_the_same(house: House) -> None:
    holding(house, "retraction")
    await arrive(house, package(FIRST, "D"), package(FIRST))
    await settle(house, "withdrawal_held")
    assert len(to_gp(house)) == 1


async def test_a_letter_held_beside_its_retraction_cannot_leave_once_that_is_carried_out(
    house: House,
) -> None:
    holding(house, "retraction")
    await arrive(house, package(FIRST, "D"), package(FIRST))
    await settle(house, "rule")
    house.clock.turn(seconds=180)
    await house.leave()
    assert "ne peut plus être envoyée" in to_desk(house)[-1]
    with pytest.raises(Refused, match="withdrew"):
        await settle(house, "withdrawal_held")
    assert not to_gp(house)


@pytest.mark.parametrize("way", TAKING_BACK)
async def test_the_desk_that_holds_a_letter_is_told_when_it_is_taken_back(house: House, way: str) -> None:
    taking_back, _ = TAKING_BACK[way]
    holding(house, "letter")
    await arrive(house, package(FIRST))
    ((row,), (note,)) = (await house.store.envelopes(), to_desk(house))
    holding(house, None)
    await arrive(house, taking_back())
    house.clock.turn(seconds=60)
    await house.leave()
    assert len(to_desk(house)) == 2
    assert str(row["reference"]) in note
    assert f"Réf. {row['reference']}" in to_desk(house)[1]
    assert "L'hôpital a retiré ou remplacé cette lettre retenue" in to_desk(house)[1]


async def test_the_desk_is_told_of_a_held_message_that_asks_for_its_letter(house: House) -> None:
    holding(house, "[letter, retraction]")
    await arrive(house, package(FIRST), package(FIRST, "D"))
    house.clock.turn(seconds=180)
    await house.leave()
    letter, asking = (str(row["reference"]) for row in reversed(await house.store.envelopes()))
    (told,) = [note for note in to_desk(house) if "demande de retirer ou de remplacer" in note]
    assert f"Réf. {letter}" in told.splitlines()[0]
    assert f"retenu (Réf. {asking})" in told


async def test_a_desk_is_told_of_no_letter_but_the_one_that_was_taken_back(house: House) -> None:
    holding(house, "letter")
    await arrive(house, package(FIRST))
    holding(house, None)
    await arrive(house, package(version("S-801", 1)), package(version("S-801", 1), "D"))
    house.clock.turn(seconds=60)
    await house.leave()
    assert len(to_desk(house)) == 1


async def now_registered(house: House, **changed: Any) -> None:
    row = Registration(
        ins=ODETTE.ins or "", ins_oid=ODETTE.ins_oid or "", facility="450000088", birth_name="CORMERAIS",
        used_name="VALBRUNE", given_names=ODETTE.given_names, birth_date=ODETTE.birth_date, sex="F",
        gp_rpps=(MARTIN.rpps or "",),
    )  # fmt: skip
    await house.store.import_registrations([replace(row, **changed)], keys_of)


async def left(house: House) -> None:
    gone = Professional(MARTIN.rpps or "", "Martin", "Camille", active=False)
    await house.store.import_professionals([gone], str.upper)


MEANWHILE: dict[str, Callable[[House], Awaitable[None]]] = {
    "the GP has left": left,
    "the patient objects": partial(now_registered, consent="opposed"),
    "the registry names the patient otherwise": partial(now_registered, birth_name="CORMERET"),
}


@pytest.mark.parametrize("change", MEANWHILE)
async def test_a_person_can_let_a_retraction_through_though_no_letter_could_leave_any_more(
    house: House, change: str
) -> None:
    await arrive(house, package(FIRST))
    await MEANWHILE[change](house)
    await arrive(house, package(FIRST, "D"))
    (hold,) = await house.store.holds()
    assert len(to_gp(house)) == 1
    await house.intake.release(Correction("desk:sorties", str(hold["id"])))
    await house.leave()
    letter, told = to_gp(house)
    assert told["In-Reply-To"] == letter["Message-ID"]
    assert await house.store.holds() == []
    assert [row["state"] for row in await house.store.threads()] == ["closed"]
    assert not any((await house.store.invariants()).values())


async def test_a_letter_that_a_floor_forbids_is_let_through_by_nobody(house: House) -> None:
    await now_registered(house, consent="opposed")
    await arrive(house, package(FIRST))
    (hold,) = await house.store.holds()
    with pytest.raises(Refused):
        await house.intake.release(Correction("desk:sorties", str(hold["id"])))
    assert to_gp(house) == []


# ------------------------------------------------------------------------------------ numbers counted within a stay

LATER = datetime(2027, 2, 3, 9, 0, tzinfo=UTC)


def moved(trigger: str, stay: str, *, control: str = "1", left: datetime | None = None) -> tuple[bytes, str]:
    """A movement of a system that counts the movements of each stay from one."""
    action = {"A13": "CANCEL", "Z99": "UPDATE"}.get(trigger, "INSERT")
    change = hl7.zbe(action, trigger="A03", number="2")
    visit = hl7.pv1(number=stay, discharged=None if trigger == "A13" else left or DISCHARGED)
    told = hl7.adt(trigger, patient=ODETTE, visit=visit, movement=change, control=control)
    return his(told if stay else told.replace(b"NDA-88^^^CHR^AN", b""))


@pytest.mark.parametrize("trigger", ["A13", "Z99"])
async def test_a_movement_that_came_without_its_discharge_silences_no_discharge_of_another_stay(
    house: House, trigger: str
) -> None:
    await arrive(house, moved(trigger, "S-1"))
    before = len(to_gp(house))
    await arrive(house, moved("A03", "S-2", control="2", left=LATER))
    assert (await states(house))[-1] == ("held", "number_of_another")
    await settle(house, "number_of_another")
    assert len(to_gp(house)) == before + 1


@pytest.mark.parametrize("stays", [("S-1", "S-1"), ("", "S-1"), ("S-1", "")], ids=str)
async def test_a_cancellation_that_may_be_of_this_stay_silences_its_discharge(
    house: House, stays: tuple[str, str]
) -> None:
    await arrive(house, moved("A13", stays[0]), moved("A03", stays[1], control="2"))
    assert (await states(house))[-1] == ("decided", "superseded")
    assert not to_gp(house)
