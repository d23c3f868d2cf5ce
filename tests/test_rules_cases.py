"""The tests beside the rules: what passes, what fails with which words, and what lacks a test."""

from __future__ import annotations

import pytest

from rules import cases
from rules.cases import CaseResult, Outcome
from rules.language import RuleSet, load

RULES = """\
version: 1
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  gp_ping: { who: registered_gp, via: [telegram], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }
followups:
  standard:
    await: seen
    ack: { within: 2d, clock: cabinet }
    ladder: [ { after: 3d, hand_to: sorties } ]
keywords: { chute: chute }
rules:
  - id: urgente
    when: { event: discharge, urgency: urgent }
    send: [gp, gp_ping]
    followup: standard
    grace: 10m
  - id: sortie
    when: { event: discharge }
    send: [gp, gp_ping]
    followup: none
  - id: admission
    when: { event: admission }
    file: "Gardé"
also:
  - id: copie
    when: { ward: geriatrie, age: { gte: 75 }, mentions: chute }
    copy: pharma
  - id: bientot
    when: { event: discharge }
    from: 2026-12-01
    copy: pharma
    mode: observe
default: { hold: sorties, reason: "Rien ne va" }
"""
CLEAN = "event: discharge, identity: qualified, gp: found"


def rule_set() -> RuleSet:
    rules, findings = load(RULES, "routes.yaml")
    assert rules is not None, [f.text() for f in findings]
    return rules


def case(given: str = CLEAN, expect: str = "rule: sortie", more: str = "", name: str = "un cas") -> str:
    return f"  - {{ name: {name}, given: {{ {given} }}, expect: {{ {expect} }}{more and ', ' + more} }}\n"


def run(*listed: str, coverage: str = "", lang: str | None = None) -> Outcome:
    text = "tests:\n" + "".join(listed) + (f"coverage: {coverage}\n" if coverage else "")
    return cases.run(rule_set(), text, "routes.test.yaml", lang)


def one(given: str = CLEAN, expect: str = "rule: sortie", more: str = "") -> CaseResult:
    outcome = run(case(given, expect, more))
    assert len(outcome.results) == 1, [f.text() for f in outcome.findings]
    return outcome.results[0]


@pytest.mark.parametrize(
    ("given", "expect"),
    [
        (CLEAN, "rule: sortie, send: [gp_ping, gp], followup: none, action: send, why: rule"),
        (CLEAN + ", urgency: urgent", "rule: urgente, followup: standard, undecided_at: none"),
        (CLEAN + ", urgency: unknown", "undecided_at: urgente, hold: sorties, why: undecided"),
        (CLEAN + ", consent: opposed", "rule: sortie, hold: sorties, why: floor_consent, send: []"),
        ("event: admission", "rule: admission, file: yes"),
        ("event: admission", "rule: admission, file: Gardé, action: file"),
        ("event: birth", "rule: default, hold: sorties"),
        (CLEAN + ", ward: geriatrie, age: 80, mentions: [chute]", "rule: sortie, copy: pharma"),
        (CLEAN + ", ward: geriatrie, age: 80, mentions: []", "copy: []"),
        (CLEAN + ", ward: geriatrie, age: 74.5, mentions: chute, signed: yes, department: 01", "copy: []"),
    ],
)
def test_a_case_that_says_what_happens_passes(given, expect):
    result = one(given, expect)
    assert result.ok, result.got
    assert result.finding is None


@pytest.mark.parametrize(
    "expect",
    [
        "rule: urgente",
        "send: gp",
        "followup: standard",
        "action: hold",
        "hold: sorties",
        "file: yes",
        "why: default",
        "undecided_at: urgente",
        "copy: pharma",
        "observed: bientot",
        'ack_due: "2026-01-08T19:00"',
    ],
)
def test_a_case_that_says_anything_else_fails(expect):
    result = one(CLEAN, expect)
    assert not result.ok
    assert result.finding is not None
    assert result.finding.code == "T001"


def test_a_case_may_say_that_nothing_is_filed():
    assert one(CLEAN, "file: no").ok
    filed = one("event: admission", "file: no")
    assert (filed.ok, filed.got["file"]) == (False, True)


def test_a_failed_case_says_expected_got_and_the_facts_at_its_place():
    outcome = run(
        case(name="premier"), case(CLEAN + ", urgency: urgent", "send: [gp], rule: sortie", name="second")
    )
    assert [r.ok for r in outcome.results] == [True, False]
    assert not outcome.ok
    (finding,) = outcome.findings
    assert (finding.code, finding.file, finding.line, finding.column) == ("T001", "routes.test.yaml", 3, 5)
    assert finding.message.startswith("« second » : attendu rule=sortie, send=[gp], obtenu rule=urgente, ")
    assert "urgency=urgent" in finding.message
    assert outcome.results[1].finding == finding
    english = run(case(expect="rule: default"), lang="en").findings[0]
    assert "expected rule=default, got rule=sortie" in english.message


def test_a_result_as_json_has_the_keys_of_the_contract():
    told = one(CLEAN, "send: [gp]").as_json()
    assert told == {
        "name": "un cas",
        "ok": False,
        "expected": {"send": ["gp"]},
        "got": {"rule": "sortie", "send": ["gp", "gp_ping"]},
    }


def test_the_acknowledgement_is_due_from_the_sending_grace_included():
    urgent = CLEAN + ", urgency: urgent"
    assert one(urgent, 'ack_due: "2026-12-08T19:00"', 'at: "2026-12-04T18:45"').ok
    # Ten minutes before midnight the letter leaves the next day: one open day later.
    assert one(urgent, 'ack_due: "2026-12-09T19:00"', 'at: "2026-12-06T23:55"').ok
    assert one(urgent, 'ack_due: "2026-12-08T19:00+01:00"', 'at: "2026-12-04T18:45"').ok
    assert one(CLEAN, "ack_due: none").ok


def test_a_case_happens_at_its_own_instant_in_the_rules_time_zone():
    assert one(CLEAN, "observed: bientot", 'at: "2026-12-01T00:00"').ok
    assert one(CLEAN, "observed: []", 'at: "2026-11-30T23:59"').ok
    assert one(CLEAN, "observed: bientot", 'at: "2026-11-30T23:00Z"').ok
    assert one(CLEAN, "observed: []").ok


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (case(expect=""), "E109", "ne prouverait rien"),
        ("  - { name: x, given: { event: birth }, expect: }\n", "E109", "ne prouverait rien"),
        ("  - { name: x, given: { event: birth } }\n", "E103", "expect"),
        ("  - { given: { event: birth }, expect: { rule: sortie } }\n", "E103", "name"),
        ("  - { name: x, expect: { rule: sortie } }\n", "E103", "given"),
        (case("evnt: discharge"), "E101", "Vouliez-vous dire « event » ?"),
        (case("event: sortie"), "E102", "discharge"),
        (case("signed: oui"), "E102", "yes, no"),
        (case("age: vieux"), "E102", "vieux"),
        (case("mentions: [chute, chutes]"), "E110", "Vouliez-vous dire « chute » ?"),
        ("  - { name: x, given: { event: birth }, attendu: { rule: sortie } }\n", "E101", "« expect »"),
        (case(expect="rul: sortie"), "E101", "Vouliez-vous dire « rule » ?"),
        (case(expect="rule: sorti"), "E110", "Vouliez-vous dire « sortie » ?"),
        (case(expect="rule: copie"), "E110", "Règles"),
        (case(expect="send: [gpp]"), "E110", "Vouliez-vous dire « gp » ?"),
        (case(expect="followup: standar"), "E110", "Suites"),
        (case(expect="hold: x"), "E110", "Cibles"),
        (case(expect="why: x"), "E102", "floor_gp"),
        (case(expect="action: drop"), "E102", "send, hold, file"),
        (case(expect="ack_due: demain"), "E104", "instant"),
        (case(more="at: demain"), "E104", "instant"),
        (case(more='at: "9999-12-31T00:00"'), "E104", "instant"),
        (case(more="at: 04/12/2026 18:45"), "E104", "« 2026-12-04T18:45 »"),
        (case(expect="ack_due: 8/12/2026 à 19h"), "E104", "« 2026-12-08T19:00 »"),
        (case(more="skip: yes"), "E101", "skip"),
        ("", "E103", "tests"),
        ("  - { name: &a x, given: { event: birth }, expect: { rule: default } }\n", "E106", "ancre"),
    ],
)
def test_a_mistake_in_the_test_file_is_told_and_the_rules_do_not_pass(text, code, words):
    outcome = run(text)
    assert not outcome.ok
    assert outcome.results == ()
    assert [f.code for f in outcome.findings] == [code]
    assert words in f"{outcome.findings[0].message} {outcome.findings[0].fix}"
    assert outcome.findings[0].file == "routes.test.yaml"


def test_two_cases_of_one_name_are_told():
    assert [f.code for f in run(case(), case()).findings] == ["E203"]


@pytest.mark.parametrize("text", ["", "[]", "tests: []", "tests: 1", "a: b", "\x00", "coverage: every-rule"])
def test_a_test_file_that_is_none_never_passes_and_never_crashes(text):
    assert not cases.run(rule_set(), text, "routes.test.yaml").ok


COVERED = (
    case(CLEAN + ", urgency: urgent", "rule: urgente", name="a"),
    case(CLEAN, "rule: sortie", name="b"),
    case("event: admission", "rule: admission", name="c"),
    case(CLEAN + ", ward: geriatrie, age: 80, mentions: chute", "copy: pharma", name="d"),
    case(CLEAN, "observed: bientot", 'at: "2026-12-02T10:00"', name="e"),
    case("event: birth", "rule: default", name="f"),
)


def test_with_a_case_for_each_rule_each_copy_and_the_default_coverage_is_whole():
    outcome = run(*COVERED, coverage="every-rule")
    assert outcome.ok, [f.text() for f in outcome.findings]


@pytest.mark.parametrize(
    ("left_out", "name"), [*enumerate(["urgente", None, "admission", "copie", "bientot", "default"])]
)
def test_a_rule_without_a_case_is_told_at_its_id_with_one_to_paste(left_out, name):
    outcome = run(*(c for n, c in enumerate(COVERED) if n != left_out), coverage="every-rule")
    if name is None:  # the cases of the copies reach « sortie » as well
        assert outcome.ok
        return
    (finding,) = outcome.findings
    assert (finding.code, finding.file, finding.severity) == ("E304", "routes.yaml", "error")
    line = RULES.splitlines()[finding.line - 1]
    assert line[finding.column - 1 :].startswith("default" if name == "default" else f"id: {name}")
    assert name in finding.message
    pasted = run(
        *(c for n, c in enumerate(COVERED) if n != left_out), f"  - {finding.fix}\n", coverage="every-rule"
    )
    assert pasted.ok, [f.text() for f in pasted.findings]


def test_without_coverage_a_rule_may_lack_its_case():
    assert run(case()).ok
    assert run(case(), coverage="none").ok


def test_staying_undecided_at_a_rule_is_no_test_of_it():
    undecided = case(CLEAN + ", urgency: unknown", "undecided_at: urgente", name="a")
    outcome = run(undecided, *COVERED[1:], coverage="every-rule")
    assert [f.code for f in outcome.findings] == ["E304"]


def test_a_rule_file_without_tests_is_warned_about():
    finding = cases.without_tests("rules/sets/routes.yaml")
    assert (finding.code, finding.severity) == ("W304", "warning")
    assert "rules/sets/routes.test.yaml" in finding.fix
    assert cases.tests_beside("a.b/routes") == "a.b/routes.test.yaml"
