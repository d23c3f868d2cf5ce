"""What a change of rules takes away, what it would have done, and why a rule did not decide."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations, product
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.engine import Decision, decide
from rules.facts import FIELDS, UNKNOWN, Facts, FactValue, facts_as_json, facts_from_json
from rules.language import RuleSet, load
from rules.merging import Overlap, promoted, take_back
from rules.outcome import copies_of, loss, missing, of_decision
from rules.replaying import Replay
from rules.weakening import compare
from rules.whynot import WhyNot, why_not
from tests.campaign import many

PARIS = ZoneInfo("Europe/Paris")
NOW = datetime(2026, 12, 4, 18, 45, tzinfo=PARIS)
CLEAN: Mapping[str, FactValue] = {"event": "discharge", "identity": "qualified", "gp": "found"}

HEAD = """\
version: 1
hours:
  nuit: { every-day: ["20:00-08:00"] }
  cabinet: { mon-fri: ["08:00-19:00"], holidays: closed }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  ping: { who: registered_gp, via: [telegram], carries: pointer }
  patient: { who: patient, via: [mss], carries: document }
  pharma: { who: pharmacist, via: [mss], carries: document, basis: care_team }
  sorties: { who: desk/sorties, via: [mss], carries: document }
  autre: { who: desk/autre, via: [mss], carries: document }
followups:
  standard:
    await: ack
    ack: { within: 2d, clock: cabinet }
    ladder: [ { after: 1d, remind: ping }, { after: 3d, hand_to: sorties } ]
  court:
    await: ack
    ack: { within: 1h }
    ladder: [ { after: 1h, hand_to: sorties } ]
keywords: { chute: [chute], fugue: [fugue] }
default: { hold: sorties, reason: "Rien ne va" }
"""
SORTIE = "  - { id: sortie, when: { event: discharge }, send: [gp, ping], followup: standard }\n"


def rules_of(rules: str, also: str = "", head: str = HEAD) -> RuleSet:
    text = head + ("rules:\n" + rules if rules else "") + ("also:\n" + also if also else "")
    loaded, findings = load(text, "routes.yaml", explaining=True)
    assert loaded is not None, [f.text() for f in findings]
    return loaded


def losses(before: RuleSet, after: RuleSet, facts: Mapping[str, FactValue], at: datetime) -> bool:
    old, new = decide(before, facts, at), decide(after, facts, at)
    copied = missing(copies_of(before, old), copies_of(after, new))
    return bool(loss(of_decision(before, old), of_decision(after, new)) or copied)


# ---------------------------------------------------------------------------------------- what may be taken away


@pytest.mark.parametrize(
    ("rules", "also"),
    [
        (SORTIE.replace("id: sortie", "id: depart, was: sortie"), ""),
        (SORTIE.replace("[gp, ping]", "[ping, gp, patient]"), ""),
        (SORTIE, "  - { id: c, when: { event: discharge }, copy: pharma }\n"),
        (SORTIE + "  - { id: n, when: { event: birth }, send: [gp], followup: standard }\n", ""),
        (SORTIE + "  - { id: n, when: { event: birth }, hold: sorties, reason: x }\n", ""),
        # Unknown is passed over, and those it takes get no less.
        (
            "  - { id: n, when: { event: discharge, age: { gte: 80 } }, if_unknown: skip,"
            " send: [gp, ping, patient], followup: standard }\n" + SORTIE,
            "",
        ),
        # A hold that says what the floors say anyway.
        ("  - { id: n, when: { identity: doubtful }, hold: sorties, reason: x }\n" + SORTIE, ""),
        ("  - { id: n, when: { event: discharge }, mode: observe, hold: sorties, reason: x }\n" + SORTIE, ""),
        (
            "  - { id: n, when: { event: discharge }, until: 2026-12-03, hold: sorties, reason: x }\n"
            + SORTIE,
            "",
        ),
    ],
)
def test_a_change_that_only_gives_is_proved_harmless(rules: str, also: str):
    compared = compare(rules_of(SORTIE), rules_of(rules, also), NOW)
    assert compared.harmless, compared.weaker


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        (SORTIE.replace("[gp, ping]", "[gp]"), "the alert goes"),
        (SORTIE.replace("followup: standard", "followup: none"), "nobody reminds"),
        ("", "the default takes all"),
        (SORTIE.replace("event: discharge", "event: discharge, age: { gte: 18 }"), "children are held"),
        (SORTIE.replace("send:", "mode: observe, send:"), "it is watched only"),
        (SORTIE.replace("send:", "mode: 'off', send:"), "it is off"),
        (SORTIE.replace("send:", "from: 2026-12-20, send:"), "it begins later"),
        (SORTIE.replace("send:", "until: 2026-12-20, send:"), "it ends"),
        (SORTIE.replace("send:", "when: { event: discharge, during: nuit }, send:").replace("when: { event: discharge }, ", "", 1), "by day"),
        ("  - { id: n, when: { ward: x }, hold: sorties, reason: x }\n" + SORTIE, "a ward is held"),
        ("  - { id: n, when: { event: discharge, age: { gte: 80 } }, send: [gp, ping], followup: standard }\n" + SORTIE,
         "an unknown age is held"),
        ("  - { id: n, when: { event: discharge, code: { matches: '^11' } }, if_unknown: skip, hold: autre, reason: x }\n" + SORTIE,
         "a pattern is held"),
        ("  - { id: n, when: { mentions: chute }, if_unknown: skip, hold: autre, reason: x }\n" + SORTIE, "a word is held"),
        (SORTIE.replace("event: discharge", "event: discharge, unless: { document: addendum }"), "an addendum is held"),
        (SORTIE.replace("event: discharge", "event: discharge, any: [ { urgency: urgent }, { urgency: soon } ]"), "routine is held"),
        ("  - { id: n, when: { identity: doubtful }, hold: autre, reason: x }\n" + SORTIE, "another desk than the floors'"),
    ],
)  # fmt: skip
def test_a_change_that_takes_something_is_found(rules: str, why: str):
    compared = compare(rules_of(SORTIE), rules_of(rules), NOW)
    assert compared.weaker, why
    assert not compared.harmless


def test_a_loss_is_shown_by_a_notice_that_the_engine_agrees_on():
    before, after = rules_of(SORTIE), rules_of(SORTIE.replace("discharge", "discharge, age: { gte: 18 }"))
    found = compare(before, after, NOW).weaker
    # An unknown age is undecided at the rule; a child goes to the default.
    assert {(each.rule, each.instead) for each in found} == {("sortie", "sortie"), ("sortie", "default")}
    for each in found:
        assert each.loss.held
        assert each.facts is not None
        assert each.at is not None
        assert decide(before, each.facts, each.at).action == "send"
        assert decide(after, each.facts, each.at).action == "hold"


def test_less_carried_to_the_same_people_is_a_loss():
    less = HEAD.replace("gp: { who: registered_gp, via: [mss], carries: document }",
                        "gp: { who: registered_gp, via: [mss], carries: pointer }")  # fmt: skip
    before, after = rules_of(SORTIE), rules_of(SORTIE, head=less)
    assert not compare(before, after, NOW).harmless
    assert compare(after, before, NOW).harmless


def test_a_follow_up_that_waits_for_less_ends_before_it_calls_upon_anybody():
    sets = {
        waits: rules_of(SORTIE, head=HEAD.replace("await: ack", f"await: {waits}"))
        for waits in ("delivered", "seen", "ack")
    }
    order = list(sets)
    for one, before in sets.items():
        for other, after in sets.items():
            less = order.index(other) < order.index(one)
            compared = compare(before, after, NOW)
            assert compared.harmless is not less, (one, other)
            assert {str(who) for each in compared.weaker for who in each.loss.people} == (
                {"desk/sorties (mss)"} if less else set()
            )
    replay = Replay(sets["ack"], sets["delivered"], {}.get)
    replay.add({"event": "discharge", "identity": "qualified", "gp": "found"}, NOW, sets["ack"].digest, "x")
    assert replay.takes_away


def test_a_gp_who_must_be_found_now_holds_back_what_others_got_without():
    before = rules_of("  - { id: s, when: { event: discharge }, send: [patient], followup: court }\n")
    after = rules_of("  - { id: s, when: { event: discharge }, send: [patient, gp], followup: court }\n")
    found = compare(before, after, NOW).weaker
    assert [each.loss.held for each in found] == [True]
    assert found[0].facts is not None
    assert found[0].facts.get("gp") != "found"


def test_what_waited_at_a_desk_and_is_filed_now_is_a_loss():
    before = rules_of("  - { id: h, when: { event: birth }, hold: sorties, reason: x }\n" + SORTIE)
    after = rules_of("  - { id: h, when: { event: birth }, file: yes }\n" + SORTIE)
    (weaker,) = compare(before, after, NOW).weaker
    assert [each.who for each in weaker.loss.people] == ["desk/sorties"]


def test_passing_over_what_is_unknown_is_no_change_without_effect():
    first = (
        "  - { id: a, when: { event: discharge, age: { gte: 80 } }, send: [gp, ping], followup: standard }\n"
    )
    then = "  - { id: b, when: { event: discharge }, hold: autre, reason: x }\n"
    before, after = rules_of(first + then), rules_of(first.replace("send:", "if_unknown: skip, send:") + then)
    (weaker,) = compare(before, after, NOW).weaker
    assert [each.who for each in weaker.loss.people] == ["desk/sorties"]


def test_other_hours_under_the_same_name_count_as_another_test():
    rules = SORTIE.replace("event: discharge", "event: discharge, during: nuit")
    later = HEAD.replace("20:00-08:00", "22:00-08:00")
    assert compare(rules_of(rules), rules_of(rules), NOW).harmless
    assert not compare(rules_of(rules), rules_of(rules, head=later), NOW).harmless


def test_what_happens_between_two_bounds_or_without_the_fact_is_looked_at():
    between = "  - { id: n, when: { age: { gt: 18, lt: 80 } }, if_unknown: skip, hold: autre, reason: x }\n"
    assert not compare(rules_of(SORTIE), rules_of(between + SORTIE), NOW).harmless
    before = rules_of(SORTIE.replace("event: discharge", "event: discharge, unless: { age: { lt: 0 } }"))
    after = rules_of(SORTIE.replace("event: discharge", "event: discharge, age: { gte: 0 }"))
    found = compare(before, after, NOW).weaker
    assert found
    assert all(each.facts is not None and "age" not in each.facts for each in found)


def test_another_desk_for_what_is_held_is_a_loss_for_the_first():
    before = rules_of("  - { id: h, when: { event: birth }, hold: sorties, reason: x }\n")
    after = rules_of("  - { id: h, when: { event: birth }, hold: autre, reason: x }\n")
    (weaker,) = compare(before, after, NOW).weaker
    assert [each.who for each in weaker.loss.people] == ["desk/sorties"]


@pytest.mark.parametrize(
    ("also", "lost"),
    [
        ("", True),
        ("  - { id: c, when: { age: { gte: 75 } }, copy: pharma }\n", False),
        ("  - { id: c, when: { age: { gte: 70 } }, copy: pharma }\n", False),
        ("  - { id: d, when: { any: [ { age: { gte: 75 } }, { ward: x } ] }, copy: pharma }\n", False),
        ("  - { id: c, when: { age: { gte: 76 } }, copy: pharma }\n", True),
        ("  - { id: c, when: { age: { gte: 75 } }, copy: patient }\n", True),
        ("  - { id: c, when: { age: { gte: 75 } }, copy: pharma, mode: observe }\n", True),
        (
            "  - { id: a, when: { age: { gte: 75, lt: 90 } }, copy: pharma }\n  - { id: b, when: { age: { gte: 90 } }, copy: pharma }\n",
            False,
        ),
    ],
)  # fmt: skip
def test_a_copy_is_lost_where_nothing_else_makes_it(also: str, lost: bool):
    before = rules_of(SORTIE, "  - { id: c, when: { age: { gte: 75 } }, copy: pharma }\n")
    assert bool(compare(before, rules_of(SORTIE, also), NOW).weaker) is lost


def test_other_words_in_a_keyword_group_count_as_another_test():
    rules = "  - { id: n, when: { mentions: chute }, send: [gp, ping], followup: standard }\n"
    before = rules_of(rules)
    assert compare(before, rules_of(rules), NOW).harmless
    after = rules_of(rules, head=HEAD.replace("chute: [chute]", "chute: [tombe]"))
    assert not compare(before, after, NOW).harmless


def test_two_sets_too_different_to_be_searched_are_not_called_harmless():
    compared = compare(
        rules_of(SORTIE), rules_of(SORTIE.replace("[gp, ping]", "[gp, ping, patient]")), NOW, work=1
    )
    assert not compared.complete
    assert not compared.harmless


_WHENS = (
    "event: discharge", "event: [discharge, death]", "urgency: urgent", "age: { gte: 18 }", "age: { lt: 75 }",
    "addressed: yes", "ward: x", "unless: { document: addendum }", "any: [ { age: 3 }, { addressed: no } ]",
    "event: discharge, urgency: [urgent, soon]", "mentions: chute", "during: nuit", "gp: [none, many]",
    "code: { matches: '^11' }", "all: [ { event: discharge }, { signed: yes } ]", "consent: opposed",
)  # fmt: skip
_ACTS = (
    "send: [gp], followup: none", "send: [gp, ping], followup: standard", "send: [patient], followup: court",
    "send: [ping], followup: standard", "hold: sorties, reason: x", "hold: autre, reason: x",
)  # fmt: skip
_MORE = ("", ", if_unknown: skip", ", mode: observe", ", from: 2026-12-10", ", until: 2026-12-08")


@st.composite
def _sets(draw: st.DrawFn) -> str:
    count = draw(st.integers(0, 5))
    return "".join(
        f"  - {{ id: r{n}, when: {{ {draw(st.sampled_from(_WHENS))} }}, {draw(st.sampled_from(_ACTS))}"
        f"{draw(st.sampled_from(_MORE))} }}\n"
        for n in range(count)
    )


@st.composite
def _changed(draw: st.DrawFn) -> tuple[str, str]:
    """A set and a set that differs by a little, as admins change them, or by everything."""
    before = draw(_sets())
    lines = before.splitlines(keepends=True)
    kind = draw(st.sampled_from(("other", "drop", "swap", "add")))
    if kind == "other" or not lines:
        return before, draw(_sets())
    place = draw(st.integers(0, len(lines) - 1))
    if kind == "drop":
        del lines[place]
    elif kind == "swap":
        lines.insert(0, lines.pop(place))
    else:
        when, act, more = (draw(st.sampled_from(each)) for each in (_WHENS, _ACTS, _MORE))
        lines.insert(place, f"  - {{ id: added, when: {{ {when} }}, {act}{more} }}\n")
    return before, "".join(lines)


_FACTS = st.fixed_dictionaries(
    {},
    optional={
        "event": st.sampled_from(("discharge", "death", "birth", UNKNOWN)),
        "urgency": st.sampled_from(("routine", "urgent", "soon", UNKNOWN)),
        "age": st.sampled_from((3, 17, 18, 74.5, 75, 90, UNKNOWN)),
        "addressed": st.sampled_from((True, False, UNKNOWN)),
        "signed": st.sampled_from((True, UNKNOWN)),
        "ward": st.sampled_from(("x", "X", "y", frozenset({"x", "y"}), UNKNOWN)),
        "document": st.sampled_from(("letter", "addendum", UNKNOWN)),
        "code": st.sampled_from(("11490-0", "34105-7", UNKNOWN)),
        "mentions": st.sampled_from((frozenset({"chute"}), frozenset({"fugue"}), frozenset(), UNKNOWN)),
        "identity": st.sampled_from(("qualified", "qualified", "qualified", "doubtful", UNKNOWN)),
        "consent": st.sampled_from(("allowed", "opposed", UNKNOWN)),
        "gp": st.sampled_from(("found", "found", "found", "none", UNKNOWN)),
    },
)
_TIMES = st.sampled_from([NOW + timedelta(hours=hours) for hours in (0, 5, 24 * 6, 24 * 9)])


@settings(max_examples=many(150), deadline=None)
@given(_changed(), st.lists(st.tuples(_FACTS, _TIMES), min_size=5, max_size=40))
def test_what_is_called_harmless_takes_nothing_from_any_notice(
    pair: tuple[str, str], notices: list[tuple[dict[str, FactValue], datetime]]
):
    before, after = map(rules_of, pair)
    compared = compare(before, after, NOW)
    for facts, at in notices:
        if losses(before, after, facts, at):
            assert not compared.harmless, (pair, facts, at)
    for each in compared.weaker:
        if each.facts is not None and each.at is not None:
            assert losses(before, after, each.facts, each.at)


# ------------------------------------------------------------------------------------------------------ replaying


def replayed(
    before: RuleSet | None, after: RuleSet, *notices: Mapping[str, object], digest: str = ""
) -> Replay:
    known = {each.digest: each for each in (before, after) if each is not None}
    replay = Replay(before, after, known.get)
    for number, facts in enumerate(notices):
        replay.add(facts, NOW.astimezone(UTC), digest or (before or after).digest, f"N{number}")
    return replay


def test_a_preview_counts_a_copy_that_is_no_longer_made():
    with_copy = rules_of(SORTIE, "  - { id: c, when: { event: discharge }, copy: pharma }\n")
    replay = replayed(with_copy, rules_of(SORTIE), CLEAN)
    assert (replay.takes_away, replay.unchanged) == (True, 0)
    assert dict(replay.lost) == {"pharmacist (mss)": 1}


def test_a_preview_shows_a_notice_whose_follow_up_calls_upon_somebody_more():
    more = HEAD.replace(
        "{ after: 3d, hand_to: sorties }", "{ after: 2d, remind: gp }, { after: 3d, hand_to: sorties }"
    )
    replay = replayed(rules_of(SORTIE), rules_of(SORTIE, head=more), CLEAN)
    assert (replay.replayed, replay.unchanged, replay.takes_away) == (1, 0, False)
    assert (replay.earlier, replay.later) == (0, 0)


def test_a_preview_groups_by_flow_and_says_who_loses_what():
    before = rules_of(SORTIE)
    after = rules_of(
        "  - { id: vieux, when: { age: { gte: 80 } }, send: [gp], followup: standard }\n" + SORTIE
    )
    old = dict(CLEAN, age=85)
    replay = replayed(before, after, old, dict(CLEAN, age=30), old, old, old, dict(CLEAN, age="unknown"))
    assert (replay.replayed, replay.unchanged, replay.not_replayable) == (6, 1, 0)
    first, second = replay.flows
    assert (first.before.rule, first.after.rule, first.count, first.examples) == (
        "sortie",
        "vieux",
        4,
        ["N0", "N2", "N3"],
    )
    assert first.lost == ("registered_gp (telegram)",)
    assert (second.after.action, second.after.why, second.count) == ("hold", "undecided", 1)
    assert (replay.held, replay.released, dict(replay.lost)) == (1, 0, {"registered_gp (telegram)": 4})
    assert replay.takes_away


def test_a_rename_is_no_change():
    replay = replayed(
        rules_of(SORTIE), rules_of(SORTIE.replace("id: sortie", "id: depart, was: sortie")), CLEAN
    )
    assert (replay.unchanged, replay.flows) == (1, [])
    without = replayed(rules_of(SORTIE), rules_of(SORTIE.replace("id: sortie", "id: depart")), CLEAN)
    assert [(flow.before.rule, flow.after.rule) for flow in without.flows] == [("sortie", "depart")]


def test_a_preview_states_deadlines_that_move_at_the_notice_s_own_instant():
    after = rules_of(
        SORTIE.replace("send:", "grace: 1h, send:"), head=HEAD.replace("within: 2d", "within: 3d")
    )
    replay = replayed(rules_of(SORTIE), after, CLEAN)
    # A Friday evening: the second open day after is Tuesday, the third Wednesday.
    assert (replay.earlier, replay.later, replay.furthest) == (0, 1, timedelta(days=1))


def test_without_rules_in_force_everything_was_held():
    replay = replayed(None, rules_of(SORTIE), CLEAN, {"event": "birth"})
    assert (replay.released, replay.unchanged, replay.takes_away) == (1, 0, False)


@pytest.mark.parametrize("facts", [{"event": "teleported"}, {"weather": "rain"}, {"age": "old"}])
def test_facts_of_another_language_are_counted_and_not_guessed(facts: Mapping[str, object]):
    replay = replayed(rules_of(SORTIE), rules_of(SORTIE), facts, CLEAN)
    assert (replay.replayed, replay.not_replayable) == (1, 1)


def test_words_that_nobody_looked_for_then_are_not_replayed_where_they_decide():
    before = rules_of(SORTIE)
    chute = "  - { id: chute, when: { mentions: chute, age: { gte: 75 } }, hold: sorties, reason: x }\n"
    after = rules_of(chute + SORTIE, head=HEAD.replace("chute: [chute]", "chute: [chute, tombe]"))
    replay = replayed(before, after, dict(CLEAN, age=80), dict(CLEAN, age=20))
    # For somebody of 20 the word changes nothing; for somebody of 80 it would.
    assert (replay.not_replayable, replay.unchanged) == (1, 1)
    same = replayed(before, rules_of(chute + SORTIE), dict(CLEAN, age=80, mentions=["chute"]))
    assert (same.not_replayable, same.held) == (0, 1)


def test_ten_thousand_notices_leave_nothing_but_counts():
    before, after = rules_of(SORTIE), rules_of(SORTIE.replace("[gp, ping]", "[gp]"))
    replay = replayed(before, after, *(dict(CLEAN, age=n % 100) for n in range(10_000)))
    (flow,) = replay.flows
    assert (flow.count, len(flow.examples)) == (10_000, 3)


# ----------------------------------------------------------------------------------------------------------- why not


def decides(decision: Decision, name: str) -> bool:
    return decision.rule == name and decision.why in ("rule", "default")


def test_why_not_names_the_one_fact_that_stands_in_the_way():
    rules = rules_of(SORTIE)
    found = why_not(rules, "sortie", dict(CLEAN, event="death"), NOW)
    assert [(c.field, c.found, c.wanted) for c in found.changes or ()] == [("event", "death", "discharge")]
    assert found.decision is not None
    assert found.decision.targets == ("gp", "ping")


def test_why_not_changes_what_could_not_be_read_first():
    urgent = "  - { id: urgente, when: { event: discharge, urgency: urgent, unless: { document: addendum } }, send: [gp], followup: court }\n"
    found = why_not(rules_of(urgent + SORTIE), "sortie", dict(CLEAN, urgency=UNKNOWN), NOW)
    assert [(c.field, c.found, c.wanted) for c in found.changes or ()] == [("urgency", "unknown", "routine")]


def test_why_not_counts_the_floors():
    found = why_not(rules_of(SORTIE), "sortie", dict(CLEAN, identity="doubtful", gp="none"), NOW)
    assert [(c.field, c.wanted) for c in found.changes or ()] == [("identity", "qualified"), ("gp", "found")]


def test_why_not_of_the_rule_that_decides_is_that_it_does():
    found = why_not(rules_of(SORTIE), "sortie", CLEAN, NOW)
    assert found.decides
    assert found.changes == ()


@pytest.mark.parametrize(("more", "obstacle"), [("mode: observe, ", "observe"), ("mode: 'off', ", "off")])
def test_why_not_says_that_the_rule_does_not_act_at_all(more: str, obstacle: str):
    found = why_not(rules_of(SORTIE.replace("send:", more + "send:")), "sortie", CLEAN, NOW)
    assert (found.obstacle, found.decides, found.changes) == (obstacle, False, ())


def test_why_not_knows_the_clock():
    rules = rules_of(
        "  - { id: n, when: { event: discharge, during: nuit }, hold: autre, reason: x }\n" + SORTIE
    )
    found = why_not(rules, "n", CLEAN, NOW)
    (change,) = found.changes or ()
    assert (change.field, change.wanted) == ("at", "2026-12-04T20:00+01:00")
    later = rules_of(SORTIE.replace("send:", "from: 2026-12-20, send:"))
    (change,) = why_not(later, "sortie", CLEAN, NOW).changes or ()
    assert str(change.wanted).startswith("2026-12-20")


def test_why_not_would_rather_wait_an_hour_than_go_back_a_month():
    rules = rules_of(
        "  - { id: a, when: { event: birth }, until: 2026-11-01, hold: autre, reason: x }\n"
        "  - { id: n, when: { unless: { during: cabinet } }, hold: autre, reason: x }\n"
    )
    (change,) = why_not(rules, "n", CLEAN, NOW).changes or ()
    assert (change.field, change.wanted) == ("at", "2026-12-04T19:00+01:00")


def test_why_not_of_a_covered_rule_is_that_nothing_helps():
    rules = rules_of(
        "  - { id: tout, when: { event: [discharge, death] }, hold: sorties, reason: x }\n" + SORTIE
    )
    found = why_not(rules, "sortie", CLEAN, NOW)
    assert found.changes is None
    assert found.complete


def test_why_not_of_a_copy_and_of_the_default():
    rules = rules_of(SORTIE, "  - { id: c, when: { age: { gte: 75 } }, copy: pharma }\n")
    (change,) = why_not(rules, "c", CLEAN, NOW).changes or ()
    assert (change.field, change.found, change.wanted) == ("age", None, 75)
    (change,) = why_not(rules, "default", CLEAN, NOW).changes or ()
    assert change.field == "event"
    with pytest.raises(KeyError):
        why_not(rules, "nobody", CLEAN, NOW)


def with_changes(found: WhyNot, facts: Mapping[str, FactValue], at: datetime) -> tuple[Facts, datetime]:
    """The facts and the instant after what was proposed."""
    said = {change.field: change.wanted for change in found.changes or ()}
    then = datetime.fromisoformat(str(said.pop("at"))) if "at" in said else at
    changed = {**facts_as_json(facts), **said}
    return facts_from_json({key: value for key, value in changed.items() if value is not None}), then


@pytest.mark.parametrize(
    ("rules", "facts", "changed"),
    [
        ("{ sender: { matches: '@ch-3[.]fr$' } }", {}, ["sender"]),
        ("{ sender: { matches: '@ch-3[.]fr$' } }", {"sender": "a@ch-4.fr"}, ["sender"]),
        ("{ code: { matches: '^11[0-9]{3}-' }, age: 70 }", {"age": 3}, ["code", "age"]),
        ("{ ward: { matches: 'riatrie' } }", {"ward": frozenset({"Cardiologie"})}, ["ward"]),
        ("{ all: [{ sender: { matches: '^a' } }, { sender: { matches: 'z$' } }] }", {}, ["sender"]),
        ("{ sender: { matches: '^a' }, unless: { sender: { matches: '^ab?c?$' } } }", {}, ["sender"]),
        ("{ any: [{ sender: { matches: 'x' } }, { code: { matches: '^9' } }] }", {"code": "1"}, ["code"]),
        ("{ any: [{ sender: { matches: 'x' }, age: 3, signed: yes }, { code: { matches: '^9' } }] }", {}, ["code"]),
        ("{ mentions: chute }", {"mentions": frozenset()}, ["mentions"]),
        ("{ all: [{ mentions: chute }, { mentions: fugue }] }", {"mentions": frozenset({"x"})}, ["mentions"]),
        ("{ mentions: chute, unless: { mentions: fugue } }", {"mentions": frozenset({"fugue"})}, ["mentions"]),
    ],
)  # fmt: skip
def test_why_not_makes_up_a_text_that_a_pattern_matches(rules, facts, changed):
    asked = rules_of(f"  - {{ id: n, when: {rules}, hold: autre, reason: x }}\n" + SORTIE)
    given = {**CLEAN, **facts}
    found = why_not(asked, "n", given, NOW)
    assert [change.field for change in found.changes or ()] == changed
    assert found.decision == decide(asked, *with_changes(found, given, NOW))
    assert found.decision.rule == "n"


@pytest.mark.parametrize(
    ("when", "said", "wanted"),
    [
        ("{ mentions: chute }", {"avk"}, ["avk", "chute"]),
        ("{ unless: { mentions: fugue } }", {"avk", "fugue"}, ["avk"]),
        ("{ all: [{ mentions: chute }, { mentions: fugue }] }", {"avk"}, ["avk", "chute", "fugue"]),
    ],
)
def test_why_not_lets_a_letter_mention_what_it_mentioned(when, said, wanted):
    rules = rules_of(f"  - {{ id: n, when: {when}, hold: autre, reason: x }}\n")
    (change,) = why_not(rules, "n", {**CLEAN, "mentions": frozenset(said)}, NOW).changes or ()
    assert (change.field, change.wanted) == ("mentions", wanted)


@pytest.mark.parametrize(
    ("dates", "wanted"),
    [("until: 2026-12-31", "2027-01-01T18:45+01:00"), ("from: 2026-12-01", "2026-11-30T18:45+01:00")],
)
def test_why_not_goes_beyond_the_dates_of_the_rule_in_the_way(dates, wanted):
    rules = rules_of(
        f"  - {{ id: a, when: {{ event: discharge }}, {dates}, hold: autre, reason: x }}\n" + SORTIE
    )
    (change,) = why_not(rules, "sortie", CLEAN, NOW).changes or ()
    assert (change.field, change.wanted) == ("at", wanted)


def test_why_not_of_a_copy_that_a_floor_forbids_is_the_floor():
    rules = rules_of(SORTIE, "  - { id: c, when: { event: discharge }, copy: pharma }\n")
    given = {**CLEAN, "identity": "doubtful", "consent": "opposed"}
    changes = why_not(rules, "c", given, NOW).changes or ()
    assert {(change.field, change.wanted) for change in changes} == {
        ("identity", "qualified"),
        ("consent", "allowed"),
    }


def test_why_not_makes_up_a_text_that_no_earlier_rule_takes():
    rules = rules_of(
        "  - { id: a, when: { sender: { matches: '^[a-y]' } }, hold: autre, reason: x }\n"
        "  - { id: b, when: { sender: [z, zz] }, hold: autre, reason: x }\n"
        "  - { id: n, when: { sender: { matches: '^[a-z]*$' } }, hold: autre, reason: x }\n"
    )
    found = why_not(rules, "n", {**CLEAN, "sender": "a"}, NOW)
    (change,) = found.changes or ()
    assert (change.field, change.wanted) == ("sender", "za")


def test_why_not_names_a_ward_of_the_site_rather_than_one_that_there_is_not():
    ward = frozenset({"Gériatrie aiguë", "ger-a"})
    rules = replace(
        rules_of("  - { id: n, when: { ward: { matches: '^ger' } }, hold: autre, reason: x }\n"),
        wards=(frozenset({"Cardiologie", "cardio"}), ward),
    )
    (change,) = why_not(rules, "n", CLEAN, NOW).changes or ()
    assert change.wanted == sorted(ward)


FAR = "event: death, document: addendum, format: pdf, exit_mode: death, signed: no, age: 3, stay_days: 4, gp: left"


def test_why_not_finds_what_is_further_than_a_search_goes_and_changes_nothing_in_vain():
    rules = rules_of(f"  - {{ id: n, when: {{ {FAR} }}, hold: autre, reason: x }}\n" + SORTIE)
    given = {**CLEAN, "age": 3, "sender": "a", "urgency": "soon"}
    found = why_not(rules, "n", given, NOW)
    assert sorted(change.field for change in found.changes or ()) == sorted(
        {part.split(":")[0] for part in FAR.split(", ")} - {"age"}
    )
    assert found.decision == decide(rules, *with_changes(found, given, NOW))
    assert found.decision.rule == "n"


@pytest.mark.parametrize(
    ("patterns", "complete"),
    [
        (["a", "ba"], True),
        (["\\p{Greek}"], False),
    ],
)  # fmt: skip
def test_why_not_says_whether_there_is_no_way_or_none_was_found(patterns, complete):
    rule = "  - {{ id: n{}, when: {{ sender: {{ matches: '{}' }} }}, hold: autre, reason: x }}\n"
    rules = rules_of("".join(rule.format(n, each) for n, each in enumerate(patterns)))
    found = why_not(rules, rules.rules[-1].id, {**CLEAN, "sender": "x"}, NOW)
    assert (found.changes, found.complete) == (None, complete)


_SMALL: Mapping[str, tuple[FactValue | None, ...]] = {
    "event": (*FIELDS["event"].values,),
    "urgency": ("routine", "soon", "urgent"),
    "age": (None, 2, 3, 4, 17, 18, 19, 74, 75, 76),
    "addressed": (None, True, False),
    "gp": FIELDS["gp"].values,
    "document": (None, "letter", "addendum"),
}
_PLAIN = tuple(
    w
    for w in _WHENS
    if not any(word in w for word in ("during", "mentions", "code", "ward", "signed", "consent"))
)


@settings(max_examples=many(60), deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(_PLAIN), st.sampled_from(_ACTS)), min_size=1, max_size=4), st.data()
)
def test_no_smaller_change_of_facts_would_do(listed: list[tuple[str, str]], data: st.DataObject):
    rules = rules_of(
        "".join(f"  - {{ id: r{n}, when: {{ {w} }}, {a} }}\n" for n, (w, a) in enumerate(listed))
    )
    facts = {"identity": "qualified"} | {
        name: value
        for name, values in _SMALL.items()
        if (value := data.draw(st.sampled_from(values))) is not None
    }
    name = data.draw(st.sampled_from([*(rule.id for rule in rules.rules), "default"]))
    found = why_not(rules, name, facts, NOW)

    def reached(count: int) -> bool:
        """By brute force: whether some change of so many facts makes it decide."""
        for fields in combinations(_SMALL, count):
            for values in product(*(_SMALL[field] for field in fields)):
                changed = {**facts, **dict(zip(fields, values, strict=True))}
                if decides(decide(rules, {k: v for k, v in changed.items() if v is not None}, NOW), name):
                    return True
        return False

    if found.changes is None:
        assert not any(reached(count) for count in (0, 1, 2))
        return
    assert not any(reached(count) for count in range(min(len(found.changes), 3)))
    changed = facts_as_json(facts) | {change.field: change.wanted for change in found.changes}
    again = {key: value for key, value in changed.items() if value is not None}
    assert decides(decide(rules, again, NOW), name)  # type: ignore[arg-type]  # JSON of such facts is the facts


# ---------------------------------------------------------------------------------------------------- changing text


def test_one_change_is_taken_back_and_later_ones_stay():
    first = "a\nb\nc\nd\ne\n"
    second = "a\nB\nc\nd\ne\n"
    third = "a\nB\nc\nd\nE\nf\n"
    assert take_back(third, second, first) == "a\nb\nc\nd\nE\nf\n"
    assert take_back(second, second, first) == first
    assert take_back(third, third, second) == second


def test_an_editor_that_ends_lines_another_way_has_touched_none_of_them():
    first, second, third = "a\nb\nc\nd\n", "a\nB\nc\nd\n", "a\nB\nc\nD\n"
    for end in ("\r\n", "\r"):
        other = third.replace("\n", end)
        assert take_back(other, second, first) == "a\nb\nc\nD\n".replace("\n", end)
        # That change itself is taken back like any other.
        assert take_back(other, third.replace("\n", end), third) == third
        assert take_back(third, second.replace("\n", end), first.replace("\n", end)) == "a\nb\nc\nD\n"
    marked = "\ufeff" + third
    assert take_back(marked, second, first) == "\ufeffa\nb\nc\nD\n"
    assert take_back(marked, marked, third) == third
    assert take_back(third, "\ufeff" + second, "\ufeff" + first) == "a\nb\nc\nD\n"
    mixed = "a\r\nB\nc\nd\n"
    assert take_back(mixed, second, first) == "a\r\nb\nc\nd\n"


def test_a_change_that_a_later_one_touched_is_not_taken_back():
    with pytest.raises(Overlap) as caught:
        take_back("a\nBB\nc\n", "a\nB\nc\n", "a\nb\nc\n")
    assert caught.value.line == 2


def test_promoting_changes_one_word_of_the_file():
    text = (
        HEAD
        + "rules:\n  - id: sortie   # la nôtre\n    when: { event: discharge }\n    mode: observe\n    send: [gp]\n    followup: none\n"
    )
    for start, end in (("", "\n"), ("\ufeff", "\r\n"), ("", "\r")):
        written = start + text.replace("\n", end)
        assert promoted(written, "sortie") == written.replace("mode: observe", "mode: on")
    with pytest.raises(KeyError):
        promoted(text.replace("observe", "on"), "sortie")
    with pytest.raises(KeyError):
        promoted(text, "other")
