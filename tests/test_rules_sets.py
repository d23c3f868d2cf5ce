"""The sets that come along, through resolution, rules and planning: who really gets what."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from relay import planning
from relay.model import Absence, Context, EnvelopeState, MailRecipe, Plan, Purpose
from relay.planning import Arrival
from tests.letters import DUPONT, MARTIN
from tests.test_planning import AT, LINK, arrive, doctor, letter, make_site
from tests.test_rules import SETS

GP = f"rpps:{MARTIN.rpps}"
SUBSTITUTE = f"rpps:{DUPONT.rpps}"


@pytest.fixture(autouse=True)
def _secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TEST_PASSWORD", "x")


def planned(name: str, **facts: Any) -> tuple[Arrival, Plan]:
    """A letter under a set; its patient has a pharmacist and a nurse, its doctor a substitute."""
    site = make_site(rules=(SETS / f"{name}.yaml").read_text())
    arrival = arrive(site, letter(), **facts)
    assert arrival.resolution is not None
    assert arrival.resolution.registration is not None
    known = replace(
        arrival.resolution.registration,
        pharmacist_mss="officine@pharma.mssante.fr",
        nurse_mss="cabinet@infirmier.mssante.fr",
    )
    arrival = replace(
        arrival,
        resolution=replace(arrival.resolution, registration=known),
        people={DUPONT.rpps or "": doctor(DUPONT)},
    )
    away = Absence(MARTIN.rpps or "", AT.date(), AT.date(), DUPONT.rpps)
    context = Context(links=(LINK,), absences=(away,) if facts.get("gp_away") else ())
    return arrival, planning.plan_notice(site, arrival, context, AT)


def told(plan: Plan) -> dict[tuple[str, str], str]:
    """Who gets a message, of which purpose, and what it carries."""
    return {
        (each.to, each.purpose.value): each.recipe.carries if isinstance(each.recipe, MailRecipe) else "chat"
        for each in plan.deliveries
    }


def test_standard_sends_the_letter_and_rings_and_tells_nobody_else():
    _, plan = planned("standard")
    assert plan.state is EnvelopeState.DECIDED
    assert told(plan) == {(GP, "letter"): "documents", (GP, "alert"): "chat"}


def test_cautious_leaves_the_ward_five_minutes_before_anything_leaves():
    _, plan = planned("cautious")
    assert told(plan) == {(GP, "letter"): "documents", (GP, "alert"): "chat"}
    assert {each.not_before for each in plan.deliveries} == {AT + timedelta(minutes=5)}


def test_cautious_holds_a_letter_whose_doctor_only_the_letter_names():
    arrival, plan = planned("cautious", gp_source="notice")
    assert plan.state is EnvelopeState.HELD
    assert arrival.decision is not None
    assert arrival.decision.rule == "mt-a-confirmer"
    assert told(plan)["desk:sorties", "hold_note"] == "documents"
    assert not [each for each in plan.deliveries if each.purpose in (Purpose.LETTER, Purpose.ALERT)]


def test_cpts_gives_the_letter_to_the_substitute_and_keeps_one_for_the_doctor_who_is_away():
    _, plan = planned("cpts", gp_away=True)
    assert told(plan) == {(SUBSTITUTE, "letter"): "documents", (GP, "letter"): "documents"}


def test_cpts_rings_the_substitute_and_hurries_as_ever_when_the_letter_is_urgent():
    _, plan = planned("cpts", gp_away=True, urgency="urgent")
    assert told(plan) == {
        (SUBSTITUTE, "letter"): "documents",
        (SUBSTITUTE, "alert"): "chat",
        (GP, "letter"): "documents",
    }
    steps = {each.due for each in plan.timers if each.kind == "step"}
    assert min(steps) == AT + timedelta(hours=1)


@pytest.mark.parametrize(
    ("mentions", "copies"),
    [
        (frozenset(), {}),
        ({"traitement"}, {("pharmacist", "letter"): "documents"}),
        ({"soins"}, {("nurse", "letter"): "none"}),
        ({"traitement", "soins"}, {("pharmacist", "letter"): "documents", ("nurse", "letter"): "none"}),
    ],
)
def test_cpts_copies_to_whom_the_letter_concerns_and_tells_the_nurse_without_the_letter(mentions, copies):
    _, plan = planned("cpts", exit_mode="home", mentions=frozenset(mentions))
    assert told(plan) == {(GP, "letter"): "documents", (GP, "alert"): "chat", **copies}


@pytest.mark.parametrize("name", ["standard", "cautious", "cpts", "demo"])
def test_no_set_lets_a_letter_out_for_a_patient_who_objects(name):
    _, plan = planned(name, consent="opposed", exit_mode="home", mentions=frozenset({"traitement", "soins"}))
    assert plan.state is EnvelopeState.HELD
    assert {to for to, _ in told(plan)} <= {"desk:sorties", "ward:cardiologie"}
