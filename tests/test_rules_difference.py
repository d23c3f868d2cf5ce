"""What a failed case shows an admin."""

from __future__ import annotations

import pytest

from rules import cases
from rules.language import load

RULES = """\
version: 1
hours: { cabinet: { mon-fri: ["08:00-12:00"] } }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  gp_ping: { who: registered_gp, via: [telegram], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups: { suite: { ack: { within: 2d, clock: cabinet }, ladder: [ { after: 3d, hand_to: sorties } ] } }
rules:
  - { id: urgente, when: { event: discharge, urgency: urgent }, send: [gp], followup: suite }
  - { id: sortie, when: { event: discharge, unless: { document: addendum } }, send: [gp, gp_ping], followup: suite }
  - { id: vieille, when: { event: discharge, age: { gte: 75 } }, send: [gp], followup: none }
  - { id: jadis, when: { event: birth }, until: 2020-01-01, send: [gp], followup: none }
  - { id: jamais, when: { event: birth }, mode: off, send: [gp], followup: none }
  - { id: ici, when: { any: [ { ward: a }, { ward: b, age: 3 } ] }, send: [gp], followup: none }
  - { id: essai, when: { event: transfer }, mode: observe, send: [gp], followup: none }
default: { hold: sorties }
"""
CLEAN = "identity: qualified, gp: found"


def shown(given: str, expect: str, lang: str = "fr") -> list[str]:
    """What stands below the caret of the one finding, up to the fix."""
    rules, findings = load(RULES, "routes.yaml", lang=lang)
    assert rules is not None, [f.text() for f in findings]
    case = f'{{ name: x, at: "2026-12-04T18:45", given: {{ {given} }}, expect: {{ {expect} }} }}'
    (finding,) = cases.run(rules, f"tests: [ {case} ]\n", "routes.test.yaml", lang).findings
    assert finding.code == "T001"
    lines = finding.text(lang).split("\n")
    return [line.removeprefix("  ") for line in lines[3:-1]]


def test_expected_and_obtained_stand_side_by_side_with_what_is_missing():
    assert shown(
        f"event: discharge, urgency: urgent, {CLEAN}",
        "rule: sortie, send: [gp, gp_ping], followup: none, action: send",
    ) == [
        "          attendu      obtenu",
        "rule      sortie       urgente",
        "send      gp, gp_ping  gp       gp_ping en moins",
        "followup  —            suite",
        "→ « sortie » (l.10) conviendrait aussi, mais « urgente » (l.9) vient avant",
    ]


def test_a_deadline_is_shown_with_its_day_its_clock_and_from_when_it_counts():
    assert shown(f"event: discharge, {CLEAN}", 'ack_due: "2026-12-09T12:00"') == [
        "         attendu                obtenu",
        "ack_due  mer. 2026-12-09 12:00  mar. 2026-12-08 12:00",
        "→ « suite » : 2d sur l'horloge `cabinet`, depuis l'envoi ven. 2026-12-04 18:45",
    ]


@pytest.mark.parametrize(
    "reason", ["Mouvement Transfusion", "2026-12-04 The rest", "2026-12-04Tout est à revoir"]
)
def test_a_reason_is_never_taken_for_an_instant(reason):
    rules, _ = load(
        RULES.replace("rules:", f"rules:\n  - {{ id: f, when: {{ event: other }}, file: '{reason}' }}"), "r"
    )
    assert rules is not None
    case = '{ name: x, given: { event: other }, expect: { file: "Mouvement Tardif" } }'
    (finding,) = cases.run(rules, f"tests: [ {case} ]\n", "r.test").findings
    assert finding.details[1].split("  ") == ["file", "Mouvement Tardif", reason]


def test_a_deadline_that_nobody_asked_about_explains_nothing():
    shown_lines = shown(f"event: discharge, {CLEAN}", "followup: none")
    assert [line.split()[0] for line in shown_lines] == ["attendu", "followup"]


@pytest.mark.parametrize(
    ("given", "expect", "why"),
    [
        (f"event: discharge, urgency: unknown, {CLEAN}", "rule: sortie",
         "`urgency` est illisible : « urgente » (l.9) ne peut trancher, et retient"),
        ("event: discharge, identity: qualified, gp: none", "send: gp",
         "« sortie » (l.10) enverrait, mais aucune règle ne passe outre : Médecin traitant à trouver"),
        (f"event: discharge, age: 7, {CLEAN}", "rule: vieille",
         "« vieille » (l.11) ne convient pas : `age` attendu ≥ 75, ici 7"),
        (f"event: discharge, {CLEAN}", "rule: vieille", "« vieille » (l.11) ne convient pas : `age` attendu ≥ 75, ici absent"),
        (f"event: discharge, document: addendum, {CLEAN}", "rule: sortie",
         "« sortie » (l.10) ne convient pas : `unless` l'écarte"),
        (f"event: death, {CLEAN}", "rule: ici", "« ici » (l.14) ne convient pas : aucun des cas de `any`"),
        (f"event: death, {CLEAN}", "rule: urgente", "« urgente » (l.9) ne convient pas : `event` attendu discharge, ici death"),
        (f"event: discharge, {CLEAN}", "rule: default", "« sortie » (l.10) prend cet avis avant `default`"),
        (f"event: birth, {CLEAN}", "rule: jadis", "« jadis » (l.12) n'est pas en vigueur ce jour-là"),
        (f"event: birth, {CLEAN}", "rule: jamais", "« jamais » (l.13) est en `mode: off`"),
        (f"event: transfer, {CLEAN}", "rule: essai", "« essai » (l.15) est en `mode: observe` : elle est notée et n'agit pas"),
        (f"event: discharge, age: unknown, {CLEAN}", "rule: vieille", "« vieille » (l.11) ne pourrait trancher"),
    ],
)  # fmt: skip
def test_why_the_rules_answer_otherwise_is_said_in_one_line(given, expect, why):
    assert shown(given, expect)[-1] == f"→ {why}"
    english = shown(given, expect, "en")
    assert english[0].split() == ["expected", "obtained"]
    assert english[-1] != f"→ {why}"
    assert "«" not in english[-1]


def test_the_message_names_the_facts_that_made_the_difference_and_no_others():
    rules, _ = load(RULES, "routes.yaml")
    assert rules is not None
    text = f"tests: [ {{ name: x, given: {{ event: discharge, urgency: urgent, {CLEAN} }}, expect: {{ rule: sortie }} }} ]"
    (finding,) = cases.run(rules, text, "routes.test.yaml").findings
    assert finding.message == "« x » : attendu rule=sortie, obtenu rule=urgente (urgency=urgent)."
