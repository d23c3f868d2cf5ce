"""Which rules can decide at all: dead ones with what covers them, live ones with facts that reach them."""

from __future__ import annotations

import gc
import itertools
import json
import random
import subprocess
import sys
import weakref
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules import cases, reach, writing
from rules.boxes import Covered, OutOfBudget, Space
from rules.engine import decide
from rules.language import FIELDS, UNKNOWN, Finding, Rule, RuleSet, Site, load
from rules.reach import Dead, Witness
from tests import rulesets
from tests.campaign import many

SETS = Path(__file__).parent.parent / "rules" / "sets"
HEAD = """\
version: 1
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
  nuit: { every-day: ["20:00-08:00"] }
  midi: { mon-fri: ["12:00-12:20"] }
  noel: { mon: ["10:00-11:00"], 2027-12-25: ["08:00-20:00"] }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  ward: { who: sending_ward, via: [mss], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
keywords: { chute: chute, fugue: fugue, avk: avk }
default: { hold: sorties, reason: "Rien ne va" }
"""
EVERY_EVENT = "event: [discharge, er_visit, admission, transfer, death, birth, other]"


def rules_of(*whens: str, also: tuple[str, ...] = (), site: Site | None = None) -> RuleSet:
    """A set whose rules are r0, r1, …, and whose copies c0, c1, …; what follows a bar stands beside `when`."""
    text = HEAD
    for section, letter, action, listed in (
        ("rules", "r", "hold: sorties, reason: x", whens),
        ("also", "c", "copy: ward", also),
    ):
        text += f"{section}:\n" if listed else ""
        for number, written in enumerate(listed):
            when, _, more = written.partition("|")
            text += f"  - {{ id: {letter}{number}, when: {{ {when} }}, {more.strip() or action} }}\n"
    rules, found = load(text, "routes.yaml", site)
    assert rules is not None, [f.text() for f in found]
    return rules


def last(rules: RuleSet) -> reach.Answer:
    return reach.answer(rules, rules.rules[-1])


def names(answer: reach.Answer) -> list[str]:
    assert isinstance(answer, Dead), answer
    return [rule.id for rule in answer.by]


def reaches(rules: RuleSet) -> Witness:
    """The witness of the last rule, once more asked of the engine."""
    found = last(rules)
    assert isinstance(found, Witness), found
    decision = decide(rules, found.facts, found.at)
    assert (decision.rule, decision.why) == (rules.rules[-1].id, "rule")
    return found


# -- dead


@pytest.mark.parametrize(
    ("whens", "covering"),
    [
        (["event: discharge", "event: discharge"], ["r0"]),
        (["event: [discharge, death]", "age: 3", "event: discharge, age: { lt: 10 }"], ["r0"]),
        (["age: { lt: 75 }", "age: { gte: 75 }", "age: { gte: 18 }"], ["r0", "r1"]),
        (["age: { lt: 75 }", "age: { gt: 75 }", "age: 75", "age: { gte: 70, lte: 80 }"], ["r0", "r1", "r2"]),
        (["signed: yes", "signed: no", "event: death", "signed: [yes, no]"], ["r0", "r1"]),
        (["event: discharge, urgency: urgent", "event: discharge, urgency: [routine, soon]",
          "event: discharge, ward: x"], ["r0", "r1"]),
        (["urgency: [soon, urgent]", "urgency: routine", "ward: x"], ["r0", "r1"]),
        (["consent: [opposed, masked]", "consent: allowed", "event: birth"], ["r0", "r1"]),
        (["unless: { ward: geriatrie }", "ward: cardiologie"], ["r0"]),
        (["unless: { event: discharge, age: { gte: 75 } }", "event: death"], ["r0"]),
        (["any: [ { event: discharge }, { event: death } ]", "event: [death, discharge]"], ["r0"]),
        (["event: [death, discharge]", "any: [ { event: discharge, age: 3 }, { event: death } ]"], ["r0"]),
        (["all: [ { event: discharge }, { age: { gt: 1 } } ]", "event: discharge, age: 2"], ["r0"]),
        (["mentions: chute", "mentions: [fugue, avk]", "mentions: [avk, chute]"], ["r0", "r1"]),
        (["ward: [A, b]", "ward: a"], ["r0"]),
        (["during: nuit", "unless: { during: nuit }", "event: discharge"], ["r0", "r1"]),
        (["unless: { during: cabinet }", "during: nuit"], ["r0"]),
        (["event: discharge | from: 2026-01-01, hold: sorties, reason: x",
          "event: discharge | from: 2027-01-01, hold: sorties, reason: x"], ["r0"]),
        (["event: discharge | until: 2026-12-31, hold: sorties, reason: x",
          "event: discharge | from: 2027-01-01, hold: sorties, reason: x", "event: discharge"], ["r0", "r1"]),
        (['sender: { matches: "@ch" }', 'sender: { matches: "@ch" }'], ["r0"]),
        (['sender: { matches: "@ch[.]fr$" }', "sender: secretariat@ch.fr"], ["r0"]),
        (['code: { matches: "^1" }', "code: 11490-0"], ["r0"]),
        (['unless: { sender: { matches: "@ch" } }', 'sender: { matches: "@ch" }', "sender: a@b.fr"], ["r0"]),
        (['sender: { matches: "@ch" }', 'sender: { matches: "@ch[.]fr$" }'], ["r0"]),
        (['sender: { matches: "^[a-m]" }', 'sender: { matches: "^[n-z]" }', "event: death",
          'sender: { matches: "^[a-z]+$" }'], ["r0", "r1"]),
        (["code: [a, B]", 'code: { matches: "^[abAB]$" }'], ["r0"]),
        (['ward: { matches: "(?i)^geri" }', "ward: [Geriatrie, geri-2]"], ["r0"]),
        # What r0 can't tell it holds: an unknown event never comes to r1.
        ([EVERY_EVENT, EVERY_EVENT], ["r0"]),
        # Undecided counts as passed here, but a known event does not pass.
        ([f"{EVERY_EVENT} | if_unknown: skip, hold: sorties, reason: x", "event: birth"], ["r0"]),
        (["event: discharge", "event: discharge | mode: observe, hold: sorties, reason: x"], ["r0"]),
    ],
)  # fmt: skip
def test_a_rule_that_earlier_ones_cover_together_is_dead_and_no_more_of_them_are_named(whens, covering):
    assert names(last(rules_of(*whens))) == covering


@pytest.mark.parametrize(
    "when",
    [
        "age: { gte: 80, lt: 70 }",
        "age: { gt: 5, lt: 5 }",
        "event: discharge, unless: { event: discharge }",
        "event: discharge, all: [ { event: death } ]",
        "event: discharge, any: [ { event: death }, { event: birth } ]",
        "mentions: chute, unless: { mentions: [chute, fugue] }",
        "ward: a, all: [ { ward: b } ]",
        "during: midi, all: [ { during: nuit } ]",
        "during: nuit, all: [ { during: cabinet } ]",
        'sender: { matches: "x" }, unless: { sender: { matches: "x" } }',
        "sender: a@b.fr, all: [ { sender: { matches: c } } ]",
        'code: { matches: "^a" }, unless: { code: { matches: a } }',
        'code: { matches: "^.$" }, all: [ { code: { matches: ".." } } ]',
        "during: noel, all: [ { during: nuit } ] | from: 2026-01-01, until: 2026-12-31, hold: sorties, reason: x",
    ],
)
def test_a_condition_that_contradicts_itself_is_dead_without_any_other_rule(when):
    assert names(last(rules_of("event: birth", when))) == []
    # Nor is one named that takes everything.
    everything = f"any: [ {{ {EVERY_EVENT} }}, {{ urgency: [routine, soon, urgent] }} ]"
    assert names(last(rules_of(everything, when))) == []


def test_a_copy_is_dead_by_its_own_condition_only():
    rules = rules_of(
        EVERY_EVENT, also=("event: discharge", "event: discharge", "age: { lt: 3, gt: 4 }", "identity: test")
    )
    first, second, third, fourth = (reach.answer(rules, copy) for copy in rules.also)
    assert isinstance(first, Witness)
    assert isinstance(second, Witness)
    assert third == Dead()
    assert fourth == Dead(floored=True)
    assert [(f.code, f.severity) for f in reach.findings(rules)] == [("E201", "error"), ("W203", "warning")]


def test_a_copy_to_the_gp_that_asks_for_none_is_never_made_and_one_to_others_is():
    for target, dead in (("gp", True), ("ward", False)):
        text = f"{HEAD}also:\n  - {{ id: c, when: {{ gp: none }}, copy: {target} }}\n"
        rules, _ = load(text, "routes.yaml")
        assert rules is not None
        assert (reach.answer(rules, rules.also[0]) == Dead(floored=True)) is dead
        assert [f.code for f in reach.findings(rules)] == ["W203"] * dead


def test_nothing_is_said_of_a_rule_that_is_off():
    rules = rules_of(
        EVERY_EVENT,
        "event: discharge | mode: off, hold: sorties, reason: x",
        "age: { lt: 3, gt: 4 } | mode: off, hold: sorties, reason: x",
    )
    assert reach.findings(rules) == ()


# -- alive


@pytest.mark.parametrize(
    ("whens", "facts"),
    [
        # Absent is a value of a field as well.
        (["event: [discharge, er_visit]", "identity: test"], {"event": "admission"}),
        ([EVERY_EVENT, "identity: [qualified, test]"], {"identity": "qualified"}),
        (["age: { lt: 75 }", "age: { gte: 75 }", "unless: { age: 3 }"], {}),
        (["age: { lte: 17 }", "age: { gte: 18 }", "age: { gt: 16 }"], {"age": 17.1}),
        (["mentions: chute", "mentions: [chute, avk]"], {"mentions": frozenset({"avk"})}),
        (["ward: a", "unless: { ward: b }, ward: [a, B, c]"], {"ward": "c"}),
        ([f"{EVERY_EVENT} | if_unknown: skip, hold: sorties, reason: x", "age: 3 "], {"age": 3}),
        (["signed: yes | mode: observe, hold: sorties, reason: x", "signed: yes"], {"signed": True}),
        (["signed: yes | mode: off, hold: sorties, reason: x", "signed: yes"], {"signed": True}),
        (["ward: Unknown", "ward: [unknown, Autre, autre-x]"], {"ward": "Autre"}),
        (['ward: { matches: "^G" }', "ward: Geriatrie"], {"ward": "geriatrie"}),
        (['code: { matches: "^[ab]" }', 'code: { matches: "^.[ab]$" }'], {"code": "ca"}),
        (
            [
                'sender: { matches: "@ch-1[.]fr$" }',
                'unless: { sender: { matches: "@ch-2[.]fr$" } }',
                'sender: { matches: "[.]fr" }',
            ],
            {"sender": "@ch-2.fr"},
        ),
        (["code: [a, b]", 'code: { matches: "^[a-c]$" }'], {"code": "c"}),
    ],
)
def test_a_live_rule_has_facts_that_reach_it(whens, facts):
    found = reaches(rules_of(*whens)).facts
    assert {name: found[name] for name in facts} == facts


def test_only_what_is_unknown_passes_a_rule_that_takes_every_value_and_skips_what_it_cannot_tell():
    skipping = "| if_unknown: skip, hold: sorties, reason: x"
    found = reaches(
        rules_of(f"signed: [yes, no] {skipping}", f"unless: {{ signed: no }} {skipping}", "age: 1")
    )
    assert found.facts["signed"] is UNKNOWN
    found = reaches(
        rules_of(f"mentions: chute {skipping}", f"unless: {{ mentions: chute }} {skipping}", "age: 2")
    )
    assert found.facts["mentions"] is UNKNOWN


@pytest.mark.parametrize(
    ("whens", "instant"),
    [
        (["during: nuit"], "2026-01-06T20:00"),
        (["during: nuit", "unless: { during: cabinet }"], "2026-01-06T12:30"),
        (["during: cabinet", "unless: { during: nuit }, all: [ { during: midi } ]"], None),
        (["event: death | from: 2029-03-01, until: 2029-03-01, hold: sorties, reason: x"], "2029-03-01T10:00"),
        # The day after the last one, and the last one itself.
        (["event: death | until: 2029-03-01, hold: sorties, reason: x", "event: death"], "2029-03-02T10:00"),
        (["event: death | until: 2029-02-28, hold: sorties, reason: x",
          "event: death | until: 2029-03-01, hold: sorties, reason: x"], "2029-03-01T10:00"),
        (["event: death | from: 2029-03-02, hold: sorties, reason: x",
          "event: death | until: 2029-03-01, hold: sorties, reason: x"], "2026-01-06T10:00"),
        (["event: death | from: 2025-03-02, hold: sorties, reason: x",
          "event: death | until: 2025-03-01, hold: sorties, reason: x"], "2025-03-01T10:00"),
        (["unless: { during: cabinet }", "during: nuit"], None),
        (["during: noel, all: [ { during: cabinet } ]"], "2026-01-12T10:00"),
        # A Saturday: noel is open for its exception's sake only.
        (["during: noel, unless: { during: cabinet } | from: 2027-01-01, hold: sorties, reason: x"],
         "2027-12-25T10:00"),
    ],
)  # fmt: skip
def test_the_instant_of_a_witness_lies_in_the_hours_and_dates_that_rules_ask_for(whens, instant):
    rules = rules_of(*whens)
    found = last(rules)
    if instant is None and isinstance(found, Dead):
        return
    assert isinstance(found, Witness), found
    assert found.at.tzinfo is not None
    if instant is not None:
        assert found.at == datetime.fromisoformat(instant).replace(tzinfo=ZoneInfo("Europe/Paris"))


def test_what_cannot_be_told_is_neither_dead_nor_reached_and_said():
    rules = rules_of('code: { matches: "\\\\p{Greek}" }', 'code: { matches: "^α$" }')
    assert last(rules) is None
    assert [(f.code, f.line) for f in reach.findings(rules)] == [("W204", 14), ("W204", 15)]


def test_an_instant_that_comes_once_in_many_years_is_found():
    # 8 May and Ascension on one day: 2059 is the first after 2008 where a Thursday's window can tell.
    rules = rules_of(
        "during: cabinet", "during: midi | from: 2059-05-08, until: 2059-05-08, hold: sorties, reason: x"
    )
    assert reaches(rules).at.isoformat() == "2059-05-08T12:00:00+02:00"


def by_hours(hours: str, *named: str) -> RuleSet:
    """A set with hours of its own, a rule for each of these in turn, and one for every death."""
    text = HEAD.replace("hours:\n", hours) + "rules:\n"
    for name in named:
        text += f"  - {{ id: {name}, when: {{ during: {name} }}, hold: sorties, reason: x }}\n"
    text += "  - { id: rest, when: { event: death }, hold: sorties, reason: x }\n"
    rules, findings = load(text, "routes.yaml")
    assert rules is not None, [finding.text() for finding in findings]
    return rules


def test_two_holidays_in_a_row_that_hours_tell_apart_are_found_years_ahead():
    # In Moselle both Christmas days are holidays; a Thursday and a Friday they are in 2031.
    hours = """holidays: { country: FR, subdiv: Moselle }
hours:
  jeudi: { thu: ["20:00-08:00"], holidays: closed }
  vendredi: { fri: ["02:00-06:00"], holidays: closed }
  sinon: { every-day: ["00:00-02:00", "06:00-24:00"] }
  autres: { mon-thu: ["02:00-06:00"], sat-sun: ["02:00-06:00"] }
"""
    rules = by_hours(hours, "jeudi", "vendredi", "sinon", "autres")
    assert reaches(rules).at.isoformat() == "2031-12-26T02:00:00+01:00"


def test_the_half_hour_between_a_night_and_a_day_is_found():
    hours = 'hours:\n  soir: { every-day: ["20:00-06:00"] }\n  jour: { every-day: ["06:30-20:00"] }\n'
    assert reaches(by_hours(hours, "soir", "jour")).at.time().isoformat() == "06:00:00"


def test_a_ward_of_the_site_has_all_its_spellings_at_once():
    site = Site(adapters={"mss": "smtp"}, desks={"sorties": "document"}, wards=frozenset({"Cardiologie", "cardio", "Gériatrie", "geri"}),
                spellings=(frozenset({"Cardiologie", "cardio"}), frozenset({"Gériatrie", "geri"})))  # fmt: skip
    whens = ("unless: { ward: cardio }", "ward: Cardiologie")
    assert reaches(rules_of(*whens, site=site)).facts["ward"] == frozenset({"cardio", "Cardiologie"})
    assert names(last(rules_of("unless: { ward: cardio }", "ward: geri", site=site))) == ["r0"]
    # They are written as the configuration has them, whatever a pattern would like.
    whens = ('ward: { matches: "^Cardio" }', "unless: { ward: Cardiologie }", "ward: cardio")
    assert names(last(rules_of(*whens, site=site))) == ["r0", "r1"]


def test_without_need_a_witness_is_an_ordinary_letter_on_an_ordinary_morning():
    found = reaches(rules_of("identity: test", "event: [birth, discharge], urgency: urgent"))
    assert found.facts == {
        "event": "discharge",
        "identity": "qualified",
        "gp": "found",
        "urgency": "urgent",
    }
    assert found.at.isoformat() == "2026-01-06T10:00:00+01:00"


def test_what_was_proved_of_a_set_goes_when_the_set_goes():
    rules = rules_of("event: birth", "during: nuit", "event: birth")
    assert len(reach.findings(rules)) == 1
    watched = weakref.ref(rules)
    del rules
    gc.collect()
    assert watched() is None


# -- findings


def finding(rules: RuleSet, lang: str = "fr") -> Finding:
    (found,) = reach.findings(rules, lang)
    return found


def test_a_dead_rule_is_told_at_its_id_with_the_covering_rules_and_their_lines():
    text = HEAD + (
        "rules:\n"
        "  - id: mt-introuvable\n"
        "    when: { event: discharge, gp: [none, many, conflict, left, no_mailbox] }\n"
        "    hold: sorties\n"
        "    reason: Médecin traitant à trouver\n"
        "  - id: sortie-toutes\n"
        "    when: { event: discharge, unless: { gp: [none, many, conflict, left, no_mailbox] } }\n"
        "    send: [gp]\n"
        "    followup: none\n"
        "  - id: sortie-urgente\n"
        "    when: { event: discharge, urgency: urgent }\n"
        "    send: [gp]\n"
        "    followup: none\n"
    )
    rules, _ = load(text, "routes.yaml")
    assert rules is not None
    found = finding(rules)
    one, two, three = (rule.line for rule in rules.rules)
    assert (found.file, found.line, found.column, found.code) == ("routes.yaml", three, 5, "E201")
    assert found.message == (
        "règle « sortie-urgente » inatteignable : "
        f"couverte par « mt-introuvable » (l.{one}) + « sortie-toutes » (l.{two}) ensemble."
    )
    assert found.source_line == "  - id: sortie-urgente"
    assert finding(rules, "en").message == (
        "rule “sortie-urgente” can't be reached: "
        f"covered by “mt-introuvable” (line {one}) + “sortie-toutes” (line {two}) together."
    )


def test_one_covering_rule_is_named_alone():
    found = finding(rules_of("event: discharge", "event: discharge, age: 3"))
    assert found.message.endswith("couverte par « r0 » (l.14).")
    assert found.severity == "error"


def test_a_contradiction_says_so():
    found = finding(rules_of("age: { gt: 3, lt: 2 }"))
    assert (found.code, found.line) == ("E201", 14)
    assert found.message == "règle « r0 » inatteignable : sa condition se contredit."


def test_a_default_that_nothing_comes_to_is_warned_about_and_needs_no_test():
    rules = rules_of("urgency: routine", "unless: { urgency: routine }")
    found = finding(rules)
    assert (found.code, found.severity, found.line, found.column) == ("W202", "warning", 12, 1)
    assert found.message == "`default` inatteignable."
    assert finding(rules, "en").message == "`default` can't be reached."
    tests = (
        "coverage: every-rule\ntests:\n"
        "  - { name: a, given: {}, expect: { rule: r0 } }\n"
        "  - { name: b, given: { urgency: soon }, expect: { rule: r1 } }\n"
    )
    assert cases.run(rules, tests, "routes.test.yaml").ok


def test_a_default_that_only_something_absent_comes_to_is_no_finding():
    assert reach.findings(rules_of(EVERY_EVENT)) == ()


@pytest.mark.parametrize(
    "path",
    sorted(path for path in SETS.glob("*.yaml") if not path.name.endswith(".test.yaml")),
    ids=lambda path: path.name,
)
def test_of_the_sets_that_come_along_every_rule_is_reached(path):
    rules, _ = load(path.read_bytes(), path.name)
    assert rules is not None
    assert [f.text() for f in reach.findings(rules)] == []
    for entry in (*rules.every(), None):
        found = reach.answer(rules, entry)
        assert isinstance(found, Witness)
        assert (entry.id if entry else "default") in reach.reached(decide(rules, found.facts, found.at))


# -- cases written for those that have none

ONE = "{ name: a, given: { event: birth }, expect: { rule: r0 } }"
WRITTEN = (
    None,
    "",
    f"tests:\n  - {ONE}\ncoverage: every-rule\n",
    f"tests:\n- {ONE}",
    f"coverage: every-rule\ntests: [ {ONE}, ]",
    f"coverage: every-rule\r\ntests: [\r\n    {ONE} # first\r\n  ]\r\n# end\r\n",
    "{ coverage: every-rule, tests: [] }",
    "coverage: every-rule",
    "# yaml-language-server: $schema=./routes.v1.test.schema.json\n\n  # nothing yet",
    "# nothing yet\r\n",
    "tests:   # none yet\n\ncoverage: every-rule\n",
    f"tests:\n    - {ONE}   # first\n\n# after\ncoverage: every-rule\n",
    "tests:\n- name: >-\n    r1\n  given: { event: birth }\n  expect:\n    rule: |-\n      r0\n\n\ncoverage: none\n",
    "---\ntests:\n- name: r1\n  given: {event: birth}\n  expect:\n    rule:\n      r0\n...\n",
)


@pytest.mark.parametrize("before", WRITTEN)
def test_the_missing_cases_are_added_behind_what_stands_there_which_stays_as_it_is(before):
    rules = rules_of(
        "event: birth",
        'event: discharge, ward: "l\'aile: nord #2"',
        "any: [ { during: nuit, mentions: [chute, avk] }, { sender: x@y.fr } ]",
        "identity: test | mode: observe, hold: sorties, reason: x",
        also=("event: discharge, age: { gt: 74.5, lt: 74.6 }",),
    )
    made = cases.missing(rules, before, "routes.test.yaml")
    assert isinstance(made, cases.Written)
    assert made.left == ()
    # The copy's case ends at the default.
    assert len(made.names) == (5 if before is None or "birth" not in before else 4)
    outcome = cases.run(rules, made.text, "routes.test.yaml")
    assert [f.text() for f in outcome.findings] == []
    assert outcome.ok
    assert {result.name for result in outcome.results} >= set(made.names)
    whole = made.text.replace("coverage: none", "coverage: every-rule")
    assert cases.run(rules, whole, "routes.test.yaml").ok
    if before:
        same = next(
            (n for n, pair in enumerate(zip(before, made.text, strict=False)) if len(set(pair)) > 1),
            len(before),
        )
        assert made.text.endswith(before[same:])
        assert ("\r\n" in made.text) is ("\r\n" in before)
    again = cases.missing(rules, made.text, "routes.test.yaml")
    assert isinstance(again, cases.Written)
    assert (again.text, again.names) == (made.text, ())


def test_what_nothing_reaches_is_left_out_and_said():
    made = cases.missing(rules_of("event: birth", "event: birth"), None, "routes.test.yaml")
    assert isinstance(made, cases.Written)
    assert made.left == ("r1",)
    assert made.names == ("r0", "default")


def test_a_test_file_that_cannot_be_read_is_not_written_to():
    made = cases.missing(rules_of("event: birth"), "tests: [", "routes.test.yaml")
    assert isinstance(made, cases.Outcome)
    assert [f.code for f in made.findings] == ["E105"]
    for stands in (f"tests:\n  {ONE[2:-2]}\n", "tests:\n  name: a\n", "tests: later\n", "[]"):
        made = cases.missing(rules_of("event: birth"), stands, "routes.test.yaml")
        assert isinstance(made, cases.Outcome), stands
        assert made.findings
    with pytest.raises(ValueError, match="braces"):
        cases.missing(rules_of("event: birth"), "{ coverage: every-rule }", "routes.test.yaml")


@pytest.mark.parametrize("nothing", ["~", "null   # none yet"])
def test_cases_take_the_place_of_a_word_for_nothing(nothing):
    made = cases.missing(
        rules_of("event: birth"), f"tests: {nothing}\ncoverage: every-rule\n", "routes.test.yaml"
    )
    assert isinstance(made, cases.Written)
    assert made.names == ("r0", "default")
    assert cases.run(rules_of("event: birth"), made.text, "routes.test.yaml").ok
    assert ("# none yet" in made.text) is ("#" in nothing)


def test_the_hour_that_a_night_has_twice_is_written_with_its_offset():
    rules = rules_of("event: birth")
    for hour in (0, 1):
        at = datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Paris"), fold=hour)
        case = writing.case_for(rules, rules.rules[0], Witness(at, {"event": "birth"}), "night")
        assert case.parts["at"] == ('"2026-10-25T02:30"', '"2026-10-25T02:30+01:00"')[hour]
        outcome = cases.run(rules, f"tests: [ {case.in_line()} ]", "routes.test.yaml")
        assert outcome.ok


def test_the_command_writes_them_at_once_and_then_the_file_passes(tmp_path):
    file, beside = tmp_path / "routes.yaml", tmp_path / "routes.test.yaml"
    file.write_text(rules_of("event: birth", "age: 3").text, encoding="utf-8")

    def relay(*words: str) -> tuple[int, dict[str, object]]:
        done = subprocess.run(
            [sys.executable, "-m", "relay", *words, "--json"],
            check=False, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout or "{}")

    assert relay("rules", "test", str(file))[0] == 2
    assert not beside.exists()
    code, said = relay("rules", "test", str(file), "--write-missing")
    assert (code, said["ok"], said["written"]) == (0, True, ["r0", "r1", "default"])
    made = beside.read_text(encoding="utf-8")
    assert made.startswith("# yaml-language-server: $schema=./routes.v1.test.schema.json\n")
    assert made.endswith("coverage: every-rule\n")
    assert relay("rules", "check", str(file)) == (0, {"ok": True, "findings": []})
    beside.chmod(0o640)
    file.write_text(file.read_text() + "  - { id: r2, when: { event: death }, hold: sorties, reason: x }\n")
    assert relay("rules", "check", str(file))[0] == 1
    assert relay("rules", "test", str(file), "--write-missing")[1]["written"] == ["r2"]
    assert relay("rules", "check", str(file))[0] == 0
    assert beside.read_text(encoding="utf-8").count("yaml-language-server") == 1
    assert beside.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in tmp_path.iterdir()) == ["routes.test.yaml", "routes.yaml"]
    beside.write_text("tests:\n  name: a\n", encoding="utf-8")
    code, said = relay("rules", "test", str(file), "--write-missing")
    assert (code, said["ok"], said["written"]) == (1, False, [])
    told = subprocess.run(
        [sys.executable, "-m", "relay", "rules", "test", str(file), "--write-missing"],
        check=False, capture_output=True, text=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    assert "rien ne manquait" not in told
    assert beside.read_text(encoding="utf-8") == "tests:\n  name: a\n"


# -- against trying everything

FACTS: dict[str, tuple[object, ...]] = {
    "urgency": ("routine", "soon", "urgent", UNKNOWN),
    "consent": ("allowed", "opposed", "masked", UNKNOWN),
    "signed": (True, False, None, UNKNOWN),
    "age": (2, 3, 4, 5, 6, None, UNKNOWN),
    "cpts": ("a", "B", "z", None, UNKNOWN),
    "mentions": (*(frozenset(c) for n in range(3) for c in itertools.combinations(("avk", "chute"), n)), UNKNOWN),
    "code": (*(a + b for a in "ab1B" for b in ("", *"ab1B")), "xyz", None, UNKNOWN),
    "event": ("discharge", "er_visit", "admission", "transfer", "death", "birth", "other", None, UNKNOWN),
}  # fmt: skip
INSTANTS = [
    datetime.fromisoformat(text).replace(tzinfo=ZoneInfo("Europe/Paris"))
    for text in (
        # Each way the hours can be open together, before 2028 and after: 1 May is a holiday.
        *("2026-01-06T10:00", "2026-01-06T12:10", "2026-01-06T13:00", "2026-01-06T22:00", "2026-05-01T12:10"),
        *("2030-05-06T10:00", "2030-05-06T12:10", "2030-05-06T13:00", "2030-05-06T22:00", "2030-05-01T12:10"),
    )
]


def any_test(field: str) -> st.SearchStrategy[str]:
    if field == "age":
        sign = st.sampled_from(("gte", "lte", "lt", "gt"))
        return st.one_of(
            st.sampled_from(("age: 3", "age: [3, 5]")),
            st.builds("age: {{ {}: {} }}".format, sign, st.sampled_from((3, 5))),
        )
    if field == "code":
        words = (
            "[a, B1]",
            "b",
            "11",
            *(f'{{ matches: "{p}" }}' for p in ("^1", "[ab]", "1$", "(?i)b", "^.$")),
        )
        return st.sampled_from([f"code: {word}" for word in words])
    if field == "during":
        return st.sampled_from(("during: nuit", "during: cabinet", "during: midi"))
    words = ["yes", "no"] if field == "signed" else ["avk", "chute"] if field == "mentions" else None
    words = words or [str(value) for value in FACTS[field] if isinstance(value, str) and value != "z"]
    return st.lists(st.sampled_from(words), min_size=1, max_size=4, unique=True).map(
        lambda chosen: f"{field}: [{', '.join(chosen)}]"
    )


def conjunction(fields: st.SearchStrategy[str], most: int) -> st.SearchStrategy[str]:
    return (
        st.lists(fields, min_size=1, max_size=most, unique=True)
        .flatmap(lambda chosen: st.tuples(*map(any_test, chosen)))
        .map(", ".join)
    )


@st.composite
def small_sets(draw: st.DrawFn) -> tuple[RuleSet, list[str], bool]:
    """A rule set of few fields, those fields, and whether the time matters."""
    chosen = draw(st.lists(st.sampled_from([*FACTS, "during"]), min_size=2, max_size=3, unique=True))
    fields = st.sampled_from(chosen)
    whens = []
    for _ in range(draw(st.integers(1, 6))):
        parts = [draw(conjunction(fields, 2))] if draw(st.integers(0, 4)) else []
        shape = draw(st.integers(0, 9))
        group = conjunction(fields, 2).map("{{ {} }}".format)
        if shape in (1, 2, 3):
            parts.append(f"any: [{', '.join(draw(st.lists(group, min_size=1, max_size=3)))}]")
        if shape in (3, 4):
            parts.append(f"all: [{', '.join(draw(st.lists(group, min_size=1, max_size=2)))}]")
        if shape in (2, 5, 6, 7) or not parts:
            parts.append(f"unless: {draw(group)}")
        more = draw(
            st.sampled_from(
                ("", "", "", "if_unknown: skip, ", "mode: observe, ", "mode: off, ", "from: 2028-01-01, ")
            )
        )
        whens.append(", ".join(parts) + (f" | {more}hold: sorties, reason: x" if more else ""))
    rules = rules_of(*whens)
    return rules, [field for field in chosen if field != "during"], "during" in chosen or "2028" in str(whens)


@settings(max_examples=many(60))
@given(small_sets())
def test_what_is_called_dead_or_alive_is_what_trying_every_combination_says(drawn):
    rules, fields, timed = drawn
    points = [
        ({f: v for f, v in zip(fields, values, strict=True) if v is not None}, at)
        for values in itertools.product(*(FACTS[field] for field in fields))
        for at in (INSTANTS if timed else INSTANTS[:1])
    ]
    seen: set[str] = set()
    for facts, at in points:
        seen |= reach.reached(decide(rules, facts, at))
    for entry in (*(rule for rule in rules.rules if rule.mode != "off"), None):
        name = entry.id if entry else "default"
        found = reach.answer(rules, entry)
        assert found is not None, name
        assert not (isinstance(found, Dead) and name in seen), (name, found)
        # More texts can match than are tried here.
        assert isinstance(found, Dead) or name in seen or "code" in fields, (name, found)
        if isinstance(found, Witness):
            assert name in reach.reached(decide(rules, found.facts, found.at))
        elif len(points) < 800:

            def alive(by: list[Rule], of: Rule | None = entry, name: str = name) -> bool:
                chosen = tuple(rule for rule in rules.rules if rule in by or rule is of)
                part = replace(rules, rules=chosen)
                return any(name in reach.reached(decide(part, facts, at)) for facts, at in points)

            assert not alive(list(found.by)), (name, found)
            for spared in found.by if "code" not in fields else ():
                assert alive([rule for rule in found.by if rule is not spared]), (name, spared.id)


def test_of_five_hundred_rules_of_every_kind_each_is_proved_dead_or_reached():
    rules, found = load(rulesets.written(500), "routes.yaml")
    assert rules is not None, [f.text() for f in found]
    answers = [reach.answer(rules, entry) for entry in (*rules.rules, None)]
    assert None not in answers
    dead = {rule.id for rule, each in zip(rules.rules, answers, strict=False) if isinstance(each, Dead)}
    assert 10 < len(dead) < 490
    # The engine reaches each of the others; and of many facts that reach some rule, none reaches a dead one.
    facts = [each.facts for each in answers if isinstance(each, Witness)]
    for one, two in itertools.pairwise(facts):
        for mixed in ({**one, **two}, {**two, **one}, {k: v for k, v in one.items() if k in two}):
            for at in INSTANTS[:4]:
                assert not reach.reached(decide(rules, mixed, at)) & dead


def test_a_rule_that_only_hundreds_together_cover_is_dead_and_each_of_them_is_named():
    chance = random.Random(3)
    whole = {
        name: FIELDS[name].values for name in ("event", "document", "format", "identity", "gp", "exit_mode")
    }
    # Cut the space of all letters in two, again and again: every part becomes a rule, and together they are all.
    parts = [whole]
    while len(parts) < 200:
        part = parts.pop(
            chance.choice([n for n, p in enumerate(parts) if any(len(v) > 1 for v in p.values())])
        )
        name = chance.choice([name for name, values in part.items() if len(values) > 1])
        cut = chance.randint(1, len(part[name]) - 1)
        parts += [{**part, name: part[name][:cut]}, {**part, name: part[name][cut:]}]
    chance.shuffle(parts)

    def when(part: dict[str, tuple[str, ...]]) -> str:
        return ", ".join(f"{name}: [{', '.join(values)}]" for name, values in part.items())

    rules = rules_of(*map(when, parts), when(whole))
    assert len(names(last(rules))) == 200
    assert isinstance(reach.answer(rules, rules.rules[199]), Witness)


# -- the search itself


def boxes_in(sizes: list[int]) -> st.SearchStrategy[dict[int, int]]:
    """A box: some axes, and of each of them some cells."""
    return st.fixed_dictionaries(
        {}, optional={axis: st.integers(1, (1 << size) - 1) for axis, size in enumerate(sizes)}
    )


@st.composite
def small_spaces(
    draw: st.DrawFn,
) -> tuple[list[int], list[tuple[dict[int, int], int | None]], dict[int, int]]:
    """The sizes of axes, boxes with their owners (of which one may have several), and the box to look into."""
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    owners = st.one_of(st.none(), st.integers(0, 5))
    return sizes, draw(st.lists(st.tuples(boxes_in(sizes), owners), max_size=16)), draw(boxes_in(sizes))


def points(sizes: list[int], box: dict[int, int]) -> list[tuple[int, ...]]:
    cells = [[c for c in range(size) if box.get(axis, -1) >> c & 1] for axis, size in enumerate(sizes)]
    return list(itertools.product(*cells))


@settings(max_examples=many(400))
@given(small_spaces(), st.sets(st.integers(0, 5)))
def test_a_point_is_outside_all_boxes_and_without_one_the_proof_is_covered_by_those_it_names(drawn, chosen):
    sizes, listed, box = drawn
    space = Space(sizes, listed)

    def outside(point: tuple[int, ...], owners: set[int]) -> bool:
        return not any(
            all(each.get(a, -1) >> c & 1 for a, c in enumerate(point))
            for each, owner in listed
            if owner is None or owner in owners
        )

    for asked in (box, {}, box):  # what is learned of one box must be true of the next
        found = space.outside(asked, space.of(chosen), 5_000)
        if isinstance(found, Covered):
            named = {number for number in range(6) if found.owners >> number & 1}
            assert named <= chosen
            assert set(points(sizes, asked)) <= set(points(sizes, dict(found.cells)))
            assert not any(outside(point, named) for point in points(sizes, dict(found.cells)))
        else:
            assert found in points(sizes, asked)
            assert outside(found, chosen)


@given(small_spaces(), st.sets(st.integers(0, 5)))
def test_the_single_box_that_holds_another_is_the_first_of_those_that_somebody_owns(drawn, chosen):
    sizes, listed, box = drawn
    inside = set(points(sizes, box))
    holding = [o for each, o in listed if o in chosen and inside <= set(points(sizes, each))]
    space = Space(sizes, listed)
    assert space.covering(box, space.of(chosen)) == (holding[0] if holding else None)


def test_a_part_that_is_covered_whole_ends_the_search_in_it():
    # One of seven spaces in two hundred thousand drawn at random where this happens, made small.
    sizes = [3, 3, 3]
    boxes = [{1: 2, 0: 2}, {1: 3, 2: 5}, {1: 5, 2: 5}, {1: 7, 2: 4, 0: 2}, {1: 6, 0: 7, 2: 2}, {2: 3, 1: 5}]
    space = Space(sizes, [(box, number) for number, box in enumerate(boxes)])
    found = space.outside({}, space.of(range(len(boxes))), 1_000)
    taken = {point for box in boxes for point in points(sizes, box)}
    assert (found in set(points(sizes, {})) - taken) if isinstance(found, tuple) else len(taken) == 27


def test_a_box_without_cells_holds_no_point():
    found = Space([2, 2], []).outside({1: 0}, 0, 10)
    assert found == Covered({1: 0}, 0)


def test_a_search_that_would_not_end_stops():
    # Nine pigeons, eight holes: no resolution is short.
    sizes = [8] * 9
    boxes = [({a: 1 << h, b: 1 << h}, 0) for h in range(8) for a, b in itertools.combinations(range(9), 2)]
    with pytest.raises(OutOfBudget):
        Space(sizes, boxes).outside({}, (1 << len(boxes)) - 1, 300)
