"""Deciding: three-valued logic, floors, copies, and that no notice ever disappears."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.engine import ack_due, decide, explain, ladder, not_before
from rules.language import FIELDS, NEEDS_SOMEBODY, UNKNOWN, RuleSet, facts_as_json, facts_from_json, load
from tests.campaign import many

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 12, 4, 18, 45, tzinfo=PARIS)
CLEAN = {"event": "discharge", "identity": "qualified", "gp": "found"}

HEAD = """\
version: 1
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
  nuit: { every-day: ["20:00-08:00"] }
targets:
  gp: { who: registered_gp, via: [mss], carries: document, quiet: nuit }
  practice: { who: practice, via: [mss], carries: document }
  others: { who: letter_recipients, via: [mss], carries: document, basis: care_team }
  garde: { who: rota/garde, via: [matrix], carries: pointer, quiet: nuit }
  sorties: { who: desk/sorties, via: [mss], carries: document }
  autre: { who: desk/autre, via: [mss], carries: document }
followups:
  standard:
    await: seen
    ack: { within: 2d, clock: cabinet }
    ladder: [ { after: 1h, remind: garde }, { after: 4h, clock: real, hand_to: sorties } ]
keywords: { chute: chute, fugue: fugue }
default: { hold: sorties, reason: "Rien ne va" }
"""


def rules_of(rules: str = "", also: str = "") -> RuleSet:
    text = HEAD + ("rules:\n" + rules if rules else "") + ("also:\n" + also if also else "")
    loaded, findings = load(text, "routes.yaml")
    assert loaded is not None, [f.text() for f in findings]
    return loaded


def rule(when: str, action: str = "send: [gp], followup: none", name: str = "r", more: str = "") -> str:
    return f"  - {{ id: {name}, when: {{ {when} }}, {action}{more and ', ' + more} }}\n"


def truth(when: str, **facts: object) -> str:
    """Whether a condition is yes, no or unknown for these facts, as the engine behaves on it."""
    decision = decide(
        rules_of(rule(when, "send: [others], followup: none")), {"identity": "qualified", **facts}, NOW
    )  # type: ignore[dict-item]
    return {"rule": "yes", "default": "no", "undecided": "unknown"}[decision.why]


def test_the_first_rule_that_matches_decides_and_no_other():
    rules = rules_of(
        rule("event: discharge", name="a") + rule("event: discharge", "send: [practice], followup: none", "b")
    )
    decision = decide(rules, CLEAN, NOW)
    assert (decision.rule, decision.action, decision.targets, decision.why) == ("a", "send", ("gp",), "rule")


def test_without_a_matching_rule_the_default_holds_at_its_desk():
    decision = decide(rules_of(), CLEAN, NOW)
    assert (decision.rule, decision.action, decision.hold, decision.why) == (
        "default",
        "hold",
        "sorties",
        "default",
    )
    assert decision.reason == "Rien ne va"
    assert decision.targets == ("sorties",)


def test_a_hold_goes_to_the_desk_and_with_the_words_of_its_rule():
    decision = decide(rules_of(rule("event: discharge", "hold: autre, reason: Pourquoi")), CLEAN, NOW)
    assert (decision.action, decision.hold, decision.reason, decision.followup) == (
        "hold",
        "autre",
        "Pourquoi",
        None,
    )


@pytest.mark.parametrize(
    ("when", "facts", "expected"),
    [
        ("urgency: urgent", {"urgency": "urgent"}, "yes"),
        ("urgency: urgent", {}, "no"),
        ("urgency: routine", {}, "yes"),
        ("consent: allowed", {}, "yes"),
        ("ward: x", {}, "no"),
        ("urgency: [routine, soon, urgent]", {"urgency": UNKNOWN}, "unknown"),
        ("event: discharge, age: { gte: 75 }", {"event": "death", "age": UNKNOWN}, "no"),
        ("event: discharge, age: { gte: 75 }", {"event": "discharge", "age": UNKNOWN}, "unknown"),
        ("any: [ { event: discharge }, { age: 3 } ]", {"event": "discharge", "age": UNKNOWN}, "yes"),
        ("any: [ { event: discharge }, { age: 3 } ]", {"event": "death", "age": UNKNOWN}, "unknown"),
        ("any: [ { event: discharge, ward: x }, { ward: y } ]", {"event": "discharge", "ward": "y"}, "yes"),
        ("all: [ { event: discharge }, { age: 3 } ]", {"event": "death", "age": UNKNOWN}, "no"),
        ("all: [ { event: discharge }, { age: 3 } ]", {"event": "discharge", "age": 3}, "yes"),
        ("unless: { document: addendum }", {}, "yes"),
        ("unless: { document: addendum }", {"document": "addendum"}, "no"),
        ("unless: { document: addendum }", {"document": UNKNOWN}, "unknown"),
        ("unless: { document: addendum, age: 3 }", {"document": "letter", "age": UNKNOWN}, "yes"),
        ("age: { gte: 18, lt: 75 }", {"age": 18}, "yes"),
        ("age: { gte: 18, lt: 75 }", {"age": 75}, "no"),
        ("age: { gt: 18 }", {"age": 18}, "no"),
        ("age: { lte: 18.5 }", {"age": 18.5}, "yes"),
        ("age: [3, 75]", {"age": 75.0}, "yes"),
        ("age: { gte: 0 }", {}, "no"),
        ("signed: no", {"signed": False}, "yes"),
        ("signed: no", {}, "no"),
        ("signed: yes", {"signed": True}, "yes"),
        ("ward: Geriatrie", {"ward": "geriatrie"}, "yes"),
        ("ward: Gériatrie", {"ward": frozenset({"geriatrie", "Gériatrie"})}, "yes"),
        ("ward: { matches: '^Gér' }", {"ward": frozenset({"geriatrie", "Gériatrie"})}, "yes"),
        ("ward: { matches: '^Gér' }", {"ward": UNKNOWN}, "unknown"),
        ("sender: { matches: '@chr' }", {"sender": "a@chr.fr"}, "yes"),
        ("sender: { matches: '@chr' }", {"sender": "a@autre.fr"}, "no"),
        ("sender: { matches: '@chr' }", {}, "no"),
        ("mentions: chute", {"mentions": frozenset({"chute", "fugue"})}, "yes"),
        ("mentions: [chute, fugue]", {"mentions": frozenset({"fugue"})}, "yes"),
        ("mentions: chute", {"mentions": frozenset()}, "no"),
        ("mentions: chute", {"mentions": UNKNOWN}, "unknown"),
        ("during: cabinet", {}, "yes"),
        ("during: nuit", {}, "no"),
        ("department: 2A", {"department": "2a"}, "yes"),
    ],
)
def test_a_condition_is_yes_no_or_unknown(when, facts, expected):
    assert truth(when, **facts) == expected


@pytest.mark.parametrize("names", [("chute", "fugue"), ("fugue", "chute")])
def test_a_set_with_several_names_reaches_the_rule_of_each(names):
    rules = rules_of("".join(rule(f"mentions: {name}", name=name) for name in names))
    both = {**CLEAN, "mentions": frozenset({"chute", "fugue"})}
    assert decide(rules, both, NOW).rule == names[0]


def test_an_undecided_rule_holds_even_where_a_later_rule_would_match():
    rules = rules_of(rule("urgency: urgent", name="urgente") + rule("event: discharge", name="sortie"))
    decision = decide(rules, {**CLEAN, "urgency": UNKNOWN}, NOW)
    assert (decision.action, decision.why, decision.hold) == ("hold", "undecided", "sorties")
    assert (decision.undecided_at, decision.undecided_field, decision.rule) == (
        "urgente",
        "urgency",
        "urgente",
    )
    assert "urgente" in decision.reason
    assert "urgency" in decision.reason


def test_a_rule_may_ask_to_be_skipped_when_unknown_and_the_decision_says_so():
    rules = rules_of(
        rule("urgency: urgent", name="urgente", more="if_unknown: skip")
        + rule("event: discharge", name="sortie")
    )
    decision = decide(rules, {**CLEAN, "urgency": UNKNOWN}, NOW)
    assert (decision.rule, decision.action, decision.undecided) == ("sortie", "send", ("urgente",))


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"identity": "doubtful"}, "floor_identity"),
        ({"identity": "test"}, "floor_identity"),
        ({"identity": UNKNOWN}, "floor_identity"),
        ({"consent": "opposed"}, "floor_consent"),
        ({"consent": "masked"}, "floor_consent"),
        ({"consent": UNKNOWN}, "floor_consent"),
        ({"gp": "none"}, "floor_gp"),
        ({"gp": "left"}, "floor_gp"),
        ({"gp": UNKNOWN}, "floor_gp"),
        ({"identity": "test", "gp": "none"}, "floor_identity"),
    ],
)
def test_no_rule_lowers_a_floor(facts, why):
    rules = rules_of(
        rule("event: discharge", "send: [gp, others], followup: standard", "tout"),
        "  - { id: c, when: { event: discharge }, copy: practice }\n",
    )
    decision = decide(rules, {**CLEAN, **facts}, NOW)
    assert (decision.action, decision.why, decision.rule) == ("hold", why, "tout")
    assert (decision.hold, decision.followup, decision.copies) == ("sorties", None, ())
    assert decision.reason


def test_a_provisional_identity_is_no_floor():
    assert (
        decide(rules_of(rule("event: discharge")), {**CLEAN, "identity": "provisional"}, NOW).action == "send"
    )


def test_the_gp_floor_is_only_for_what_goes_to_the_gp():
    rules = rules_of(rule("event: discharge", "send: [others], followup: none"))
    assert decide(rules, {**CLEAN, "gp": "none"}, NOW).action == "send"
    assert decide(rules, {**CLEAN, "gp": "none", "consent": "opposed"}, NOW).why == "floor_consent"


def test_each_matching_copy_is_added_and_none_removes_anything():
    also = (
        "  - { id: c1, when: { event: discharge }, copy: others }\n"
        "  - { id: c2, when: { age: { gte: 75 } }, copy: practice }\n"
        "  - { id: c3, when: { event: death }, copy: practice }\n"
    )
    decision = decide(rules_of(rule("event: discharge"), also), {**CLEAN, "age": 80}, NOW)
    assert decision.copies == (("c1", "others"), ("c2", "practice"))
    assert (decision.rule, decision.targets) == ("r", ("gp",))
    undecided = decide(rules_of(rule("event: discharge"), also), {**CLEAN, "age": UNKNOWN}, NOW)
    assert undecided.copies == (("c1", "others"),)
    assert undecided.undecided == ("c2",)
    held = decide(rules_of("", also), {**CLEAN, "gp": "none", "age": 80}, NOW)
    assert (held.action, held.copies) == ("hold", (("c1", "others"),))


def test_observed_rules_and_copies_are_told_and_change_nothing():
    also = "  - { id: c, when: { event: discharge }, copy: others, mode: observe }\n"
    rules = rules_of(
        rule("event: discharge", name="a", more="mode: observe") + rule("event: discharge", name="b"), also
    )
    decision = decide(rules, CLEAN, NOW)
    assert (decision.rule, decision.copies, decision.observed) == ("b", (), ("a", "c"))


def test_a_rule_that_is_off_never_decides():
    rules = rules_of(
        rule("event: discharge", name="a", more="mode: off") + rule("event: discharge", name="b")
    )
    assert decide(rules, CLEAN, NOW).rule == "b"


def test_from_and_until_are_whole_days_of_the_rules_time_zone():
    rules = rules_of(rule("event: discharge", more="from: 2026-12-02, until: 2026-12-03"))

    def name_at(text: str) -> str:
        return decide(rules, CLEAN, datetime.fromisoformat(text).replace(tzinfo=PARIS)).rule

    assert name_at("2026-12-01T23:59") == "default"
    assert name_at("2026-12-02T00:00") == "r"
    assert name_at("2026-12-03T23:59") == "r"
    assert name_at("2026-12-04T00:00") == "default"
    assert decide(rules, CLEAN, datetime(2026, 12, 1, 23, 30, tzinfo=UTC)).rule == "r"


@pytest.mark.parametrize(
    "facts",
    [
        {"event": "sortie"},
        {"event": 7},
        {"event": ["discharge"]},
        {"event": True},
        {"age": "vieux", "event": "discharge"},
        {"age": float("nan"), "event": "discharge"},
        {"age": True, "event": "discharge"},
        {"signed": "yes", "event": "discharge"},
    ],
)
def test_a_fact_that_is_none_of_its_field_counts_as_unknown_and_goes_to_a_person(facts):
    when = "event: discharge, age: { gte: 0 }" if "age" in facts else "event: discharge"
    when = "event: discharge, signed: yes" if "signed" in facts else when
    decision = decide(rules_of(rule(when)), {"identity": "qualified", "gp": "found", **facts}, NOW)
    assert decision.why == "undecided"


def test_facts_nobody_knows_are_ignored_and_an_absent_one_may_be_none():
    assert (
        decide(rules_of(rule("event: discharge")), {**CLEAN, "colour": "red", "age": None}, NOW).action
        == "send"
    )  # type: ignore[dict-item]


# -- time


def test_what_is_due_counts_from_the_sending_on_each_clock():
    rules = rules_of()
    assert ack_due(rules, "standard", NOW).astimezone(PARIS).isoformat() == "2026-12-08T19:00:00+01:00"
    first, last = ladder(rules, "standard", NOW)
    assert (first[0].remind, first[1].astimezone(PARIS).isoformat()) == ("garde", "2026-12-07T08:45:00+01:00")
    assert (last[0].hand_to, last[1] - NOW) == ("sorties", timedelta(hours=4))


def test_quiet_hours_defer_to_their_end_and_urgent_ignores_them():
    rules, night = rules_of(), datetime(2026, 12, 4, 23, 0, tzinfo=PARIS)
    assert not_before(rules, "garde", night, urgent=False) == datetime(2026, 12, 5, 8, 0, tzinfo=PARIS)
    assert not_before(rules, "garde", night, urgent=True) is None
    assert not_before(rules, "garde", NOW, urgent=False) is None
    assert not_before(rules, "sorties", night, urgent=False) is None


# -- explaining


def test_an_explanation_traces_each_rule_and_each_matcher_with_its_place():
    rules = rules_of(
        rule("event: death", name="deces")
        + rule(
            "event: [discharge, other], unless: { age: { lt: 18 } }",
            "send: [gp], followup: standard",
            "sortie",
        )
        + rule("event: discharge, any: [ { signed: yes }, { ward: x } ]", name="jamais")
    )
    told = explain(rules, {**CLEAN, "age": UNKNOWN, "ward": "x"}, NOW)
    assert {"rule", "action", "targets", "followup", "why", "undecided_at", "facts", "trace"} <= told.keys()
    assert told["undecided_at"] == "sortie"
    assert told["facts"] == {**CLEAN, "age": "unknown", "ward": "x"}
    trace = told["trace"]
    assert isinstance(trace, list)
    assert [(t["id"], t["result"], t["decides"]) for t in trace] == [
        ("deces", "no", False),
        ("sortie", "unknown", True),
        ("jamais", "yes", False),
    ]
    event, unless = trace[1]["matchers"]
    assert (event["expected"], event["found"], event["result"]) == (
        ["discharge", "other"],
        "discharge",
        "yes",
    )
    assert (event["file"], event["line"], event["column"]) == ("routes.yaml", HEAD.count("\n") + 3, 27)
    assert unless["groups"][0]["matchers"][0]["found"] == "unknown"
    sent = explain(rules, {**CLEAN, "age": 40}, NOW)
    assert sent["ack_due"] == "2026-12-08T19:00:00+01:00"


def test_an_explanation_agrees_with_the_decision_and_is_json():
    rules = rules_of(rule("event: discharge"), "  - { id: c, when: { mentions: chute }, copy: others }\n")
    facts = {**CLEAN, "mentions": frozenset({"chute"}), "signed": True}
    told = explain(rules, facts, NOW)
    assert json.loads(json.dumps(told)) == told
    assert told["copies"] == [{"id": "c", "target": "others"}]
    assert facts_from_json(told["facts"]) == facts  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "facts", [{"evnt": "x"}, {"event": "sortie"}, {"age": "3"}, {"signed": "yes"}, {"age": True}, {"gp": []}]
)
def test_facts_typed_by_hand_are_refused_with_the_field_named(facts):
    with pytest.raises(ValueError, match=next(iter(facts))):
        facts_from_json(facts)


def test_a_fact_of_another_type_is_refused_with_what_it_takes():
    with pytest.raises(ValueError, match=r'^signed takes true or false, not "yes"$'):
        facts_from_json({"signed": "yes"})
    with pytest.raises(ValueError, match=r"^age takes a number, not true$"):
        facts_from_json({"age": True})


@pytest.mark.parametrize(
    "when", ["ward: Pédiatrie", "ward: { matches: '^Pé' }", "ward: [x, PE\u0301DIATRIE]"]
)
@pytest.mark.parametrize("spelled", ["Pédiatrie", "Pe\u0301diatrie"])
def test_an_accent_in_a_fact_is_the_same_however_it_was_typed(when, spelled):
    rules = rules_of(f"  - {{ id: a, when: {{ {when} }}, hold: sorties, reason: x }}")
    assert decide(rules, {"ward": spelled}, NOW).rule == "a"
    assert decide(rules, {"ward": frozenset({spelled, "ped"})}, NOW).rule == "a"


def test_facts_survive_json():
    facts = {
        "event": "discharge",
        "age": 3.5,
        "signed": False,
        "mentions": frozenset({"a"}),
        "ward": UNKNOWN,
        "cpts": "x",
    }
    assert facts_from_json(facts_as_json(facts)) == facts
    assert facts_from_json({"age": None}) == {}


# -- against a naive reading of the specification

VALUES: dict[str, list[object]] = {
    "event": ["discharge", "death", "other", UNKNOWN],
    "urgency": ["routine", "urgent", UNKNOWN],
    "document": ["letter", "addendum", UNKNOWN],
    "age": [3, 18, 75, UNKNOWN],
    "signed": [True, False, UNKNOWN],
    "ward": ["x", "y", UNKNOWN],
    "identity": ["qualified", "doubtful", UNKNOWN],
    "gp": ["found", "none", UNKNOWN],
    "consent": ["allowed", "opposed", UNKNOWN],
}
SOME_FACTS = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in VALUES.items()}
)


def _matcher(name: str) -> st.SearchStrategy[object]:
    known = [v for v in VALUES[name] if v is not UNKNOWN]
    if name == "age":
        bound = st.sampled_from([0, 18, 75])
        return st.one_of(
            bound, st.dictionaries(st.sampled_from(["gte", "lte", "lt", "gt"]), bound, min_size=1)
        )
    if name == "signed":
        return st.booleans()
    return st.one_of(st.sampled_from(known), st.lists(st.sampled_from(known), min_size=1, unique=True))


MATCHED = [name for name in VALUES if name not in ("identity", "gp", "consent")]
CONJUNCTION = st.lists(st.sampled_from(MATCHED), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: _matcher(name) for name in names})
)
GROUPS = st.lists(CONJUNCTION, min_size=1, max_size=3)
WHEN = st.builds(
    lambda base, more: {**base, **more},
    CONJUNCTION,
    st.fixed_dictionaries({}, optional={"any": GROUPS, "all": GROUPS, "unless": CONJUNCTION}),
)
ACTION = st.sampled_from(
    [
        {"send": ["gp"], "followup": "standard"},
        {"send": ["others", "garde"], "followup": "none"},
        {"hold": "autre", "reason": "x"},
        {"file": "x"},
    ]
)
EXTRA = st.fixed_dictionaries(
    {},
    optional={
        "mode": st.sampled_from(["on", "observe", "off"]),
        "if_unknown": st.sampled_from(["skip", "hold"]),
    },
)
RULE = st.builds(lambda when, action, extra: {"when": when, **action, **extra}, WHEN, ACTION, EXTRA)


def naive_matcher(expected: object, value: object) -> bool | None:
    if value is None:
        return False
    if value is UNKNOWN:
        return None
    if isinstance(expected, dict):
        compare = {"gte": value.__ge__, "lte": value.__le__, "lt": value.__lt__, "gt": value.__gt__}  # type: ignore[attr-defined]
        return all(compare[sign](bound) for sign, bound in expected.items())
    return value in (expected if isinstance(expected, list) else [expected])


def least(truths: list[bool | None]) -> bool | None:
    return min(truths, key=lambda t: 0.5 if t is None else t)


def naive(when: dict[str, object], facts: dict[str, object]) -> bool | None:
    """Kleene's logic as the minimum, the maximum and the complement over 0, ½ and 1."""
    truths: list[bool | None] = []
    for key, expected in when.items():
        if key == "any":
            truths.append(max((naive(g, facts) for g in expected), key=lambda t: 0.5 if t is None else t))  # type: ignore[attr-defined]
        elif key == "all":
            truths.append(least([naive(g, facts) for g in expected]))  # type: ignore[attr-defined]
        elif key == "unless":
            inner = naive(expected, facts)  # type: ignore[arg-type]
            truths.append(None if inner is None else not inner)
        else:
            truths.append(naive_matcher(expected, facts.get(key)))
    return least(truths)


def naive_decision(rules: list[dict[str, object]], given_facts: dict[str, object]) -> tuple[str, str, str]:
    facts = {"urgency": "routine", "consent": "allowed", **given_facts}
    for number, each in enumerate(rules):
        if each.get("mode", "on") != "on":
            continue
        sure = naive(each["when"], facts)  # type: ignore[arg-type]
        if sure is False or (sure is None and each.get("if_unknown") == "skip"):
            continue
        if sure is None:
            return f"r{number}", "hold", "undecided"
        if "send" not in each:
            return f"r{number}", "hold" if "hold" in each else "file", "rule"
        if facts.get("identity") in ("doubtful", UNKNOWN):
            return f"r{number}", "hold", "floor_identity"
        if facts["consent"] != "allowed":
            return f"r{number}", "hold", "floor_consent"
        if "gp" in each["send"] and facts.get("gp") != "found":  # type: ignore[operator]
            return f"r{number}", "hold", "floor_gp"
        return f"r{number}", "send", "rule"
    return "default", "hold", "default"


def written(rules: list[dict[str, object]]) -> str:
    # JSON is YAML too, and never shares a node.
    return HEAD + "rules: " + json.dumps([{"id": f"r{n}", **each} for n, each in enumerate(rules)])


@settings(max_examples=many(300), deadline=None)
@given(st.lists(RULE, max_size=6), st.lists(SOME_FACTS, min_size=1, max_size=8))
def test_no_rule_set_however_written_makes_a_notice_disappear_and_each_decision_is_kleenes(
    listed, many_facts
):
    loaded, findings = load(written(listed), "routes.yaml")
    if loaded is None:
        assert {f.code for f in findings if f.severity == "error"} == {"E142"}
        dangerous = [each for each in listed if "file" in each]
        listed = [each for each in listed if each not in dangerous]
        loaded, _ = load(written(listed), "routes.yaml")
    assert loaded is not None
    for facts in many_facts:
        decision = decide(loaded, facts, NOW)
        assert (decision.rule, decision.action, decision.why) == naive_decision(listed, facts)
        if decision.action == "send":
            assert decision.targets
        elif decision.action == "hold":
            assert decision.hold in loaded.targets
            assert decision.reason
        else:
            assert facts.get("event") not in (*NEEDS_SOMEBODY, UNKNOWN)
            assert decision.reason


@settings(max_examples=many(60), deadline=None)
@given(st.lists(RULE, max_size=4), SOME_FACTS, st.randoms(use_true_random=False))
def test_a_decision_does_not_depend_on_the_order_of_the_facts(listed, facts, random):
    loaded, _ = load(written([each for each in listed if "file" not in each]), "routes.yaml")
    assert loaded is not None
    items = list(facts.items())
    random.shuffle(items)
    assert decide(loaded, dict(items), NOW) == decide(loaded, facts, NOW)


@settings(max_examples=many(60), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*FIELDS, "x"]),
        st.one_of(st.none(), st.text(), st.integers(), st.floats(), st.lists(st.integers())),
    )
)
def test_any_facts_at_all_get_a_decision(facts):
    rules = rules_of(
        rule("age: { gte: 3 }, ward: x, mentions: chute") + rule("sender: { matches: x }", name="s")
    )
    assert decide(rules, facts, NOW).action in ("send", "hold", "file")


def test_a_decision_over_five_hundred_rules_takes_well_under_a_tenth_of_a_millisecond():
    many = "".join(
        rule(
            f"event: [discharge, death], ward: w{n % 90}, age: {{ gte: {n % 80} }}, urgency: urgent",
            name=f"r{n}",
        )
        for n in range(500)
    )
    rules = rules_of(many)
    facts = {**CLEAN, "ward": "w89", "age": 1, "urgency": "urgent", "signed": True, "mailbox": "cardio"}
    decide(rules, facts, NOW)
    best = 1.0
    for _ in range(20):
        started = time.perf_counter()
        for _ in range(100):
            decide(rules, facts, NOW)
        best = min(best, (time.perf_counter() - started) / 100)
    assert best < 100e-6


def test_a_decision_can_be_compared_and_stored():
    decision = decide(rules_of(rule("event: discharge", more="grace: 5m")), CLEAN, NOW)
    assert str(decision.grace) == "5m"
    assert replace(decision) == decision
    assert hash(decision)
