"""The index leaves out nothing but sure noes: with it and without it every decision is the same."""

from __future__ import annotations

import json
import statistics
import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rules.engine import decide, decide_plainly
from rules.index import Index
from rules.language import UNKNOWN, Facts, RuleSet, load
from tests import rulesets
from tests.campaign import many

NOW = datetime(2026, 12, 4, 18, 45, tzinfo=ZoneInfo("Europe/Paris"))
HEAD = """\
version: 1
hours: { nuit: { every-day: ["20:00-08:00"] }, cabinet: { mon-fri: "08:00-19:00" } }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  others: { who: letter_recipients, via: [mss], carries: document, basis: care_team }
  sorties: { who: desk/sorties, via: [mss], carries: document }
keywords: { chute: chute, fugue: fugue, oxygene: oxygène }
default: { hold: sorties, reason: "Rien ne va" }
"""

# -- any rules, any facts

SETS = st.frozensets(st.sampled_from(["chute", "fugue", "x"]))
FACTS: dict[str, st.SearchStrategy[object]] = {
    "event": st.sampled_from(["discharge", "death", "nonsense", UNKNOWN, None]),
    "urgency": st.sampled_from(["routine", "urgent", UNKNOWN]),
    "identity": st.sampled_from(["qualified", "doubtful", UNKNOWN]),
    "gp": st.sampled_from(["found", "none", UNKNOWN]),
    "consent": st.sampled_from(["allowed", "opposed", UNKNOWN]),
    "age": st.one_of(
        st.sampled_from([0, 17.5, 18, 74, 75, 75.0, True, float("inf"), float("nan"), UNKNOWN, "vieux"]),
        st.integers(-1, 130),
    ),
    "signed": st.sampled_from([True, False, UNKNOWN, 1]),
    "ward": st.one_of(
        st.sampled_from(["X", "y", UNKNOWN]), st.frozensets(st.sampled_from(["x", "Y", "Gériatrie"]))
    ),
    "sender": st.sampled_from(["a@chr.fr", "A@CHR.fr", "b@autre.fr", UNKNOWN]),
    "mentions": st.one_of(SETS, st.just(UNKNOWN), st.sampled_from([["chute"], ("fugue", "chute")])),
}
SOME_FACTS = st.fixed_dictionaries({}, optional=FACTS)

NUMBER = st.sampled_from([0, 18, 18.5, 75])
WORDS = {
    "event": ["discharge", "death"],
    "urgency": ["routine", "urgent"],
    "ward": ["x", "y", "gériatrie"],
    "sender": ["a@chr.fr", "b@autre.fr"],
    "mentions": ["chute", "fugue", "oxygene"],
}


def listed(values: list[str]) -> st.SearchStrategy[object]:
    return st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, unique=True))


def pattern(values: list[str]) -> st.SearchStrategy[object]:
    return st.fixed_dictionaries({"matches": st.sampled_from(values)})


MATCHERS: dict[str, st.SearchStrategy[object]] = {
    **{name: listed(values) for name, values in WORDS.items()},
    "ward": st.one_of(listed(WORDS["ward"]), pattern(["^X$", "(?i)^x$", "riatrie", "."])),
    "sender": st.one_of(listed(WORDS["sender"]), pattern(["@chr", "^a", "z"])),
    "age": st.one_of(
        NUMBER,
        st.lists(NUMBER, min_size=1, unique=True),
        st.dictionaries(st.sampled_from(["gte", "lte", "lt", "gt"]), NUMBER, min_size=1),
    ),
    "signed": st.booleans(),
    "during": st.sampled_from(["nuit", "cabinet"]),
}
CONJUNCTION = st.lists(st.sampled_from(sorted(MATCHERS)), min_size=1, max_size=3, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: MATCHERS[name] for name in names})
)
GROUPS = st.lists(CONJUNCTION, min_size=1, max_size=3)
WHEN = st.builds(
    lambda base, more: {**base, **more},
    CONJUNCTION,
    st.fixed_dictionaries({}, optional={"any": GROUPS, "all": GROUPS, "unless": CONJUNCTION}),
)
LIFE = {
    "mode": st.sampled_from(["on", "observe", "off"]),
    "from": st.sampled_from(["2026-12-04", "2026-12-05"]),
    "until": st.sampled_from(["2026-12-05", "2026-12-31"]),
}
ACTION = st.sampled_from([{"send": "gp", "followup": "none"}, {"hold": "sorties", "reason": "x"}])
RULE = st.builds(
    lambda when, action, life: {"when": when, **action, **life},
    WHEN,
    ACTION,
    st.fixed_dictionaries({}, optional={**LIFE, "if_unknown": st.just("skip")}),
)
COPY = st.builds(
    lambda when, target, life: {"when": when, "copy": target, **life},
    WHEN,
    st.sampled_from(["gp", "others"]),
    st.fixed_dictionaries({}, optional=LIFE),
)


def rules_of(rules: list[dict[str, object]], also: list[dict[str, object]] | None = None) -> RuleSet:
    numbered = [{"id": f"r{n}", **each} for n, each in enumerate(rules)]
    copies = [{"id": f"c{n}", **each} for n, each in enumerate(also or [])]
    # JSON is YAML too, and never shares a node.
    loaded, findings = load(
        f"{HEAD}rules: {json.dumps(numbered)}\nalso: {json.dumps(copies)}\n", "routes.yaml", explaining=True
    )
    assert loaded is not None, [finding.text() for finding in findings]
    return loaded


@settings(max_examples=many(400), deadline=None)
@given(
    st.lists(RULE, max_size=8), st.lists(COPY, max_size=4), st.lists(SOME_FACTS, min_size=1, max_size=6),
    st.sampled_from([NOW, NOW + timedelta(hours=3)]),
)  # fmt: skip
def test_with_the_index_and_without_it_every_decision_is_the_same(rules, also, many_facts, at):
    loaded = rules_of(rules, also)
    for facts in many_facts:
        assert decide(loaded, facts, at) == decide_plainly(loaded, facts, at)


# -- what it leaves out


def left(rules: RuleSet, **values: object) -> list[int]:
    """The numbers of the rules that the index would have asked."""
    alive = Index([rule.when for rule in rules.rules]).possible(values)
    return [number for number in range(len(rules.rules)) if alive >> number & 1]


@pytest.mark.parametrize(
    ("values", "asked"),
    [
        ({"ward": frozenset({"w1"}), "age": 80, "event": "death"}, [1, 4, 5]),
        ({"ward": frozenset({"w1"}), "age": 80, "event": "discharge"}, [1, 3, 4]),
        ({"ward": frozenset({"w1", "w2"}), "age": 80, "event": "death"}, [1, 2, 4, 5]),
        ({"ward": frozenset({"w1"}), "age": 3, "event": "death"}, [5]),
        ({"ward": UNKNOWN, "age": 80, "event": "death"}, [0, 1, 2, 4, 5]),
        ({"event": "birth"}, []),
        ({"event": "discharge"}, [3]),
    ],
)
def test_only_rules_that_could_match_are_asked_whatever_field_tells_them_apart(values, asked):
    rules = rules_of(
        [
            *({"when": {"ward": f"w{n}", "age": {"gte": 75}}, "hold": "sorties", "reason": "x"} for n in range(3)),
            {"when": {"event": "discharge"}, "hold": "sorties", "reason": "x"},
            {"when": {"any": [{"age": 80}, {"age": {"gt": 90}}]}, "hold": "sorties", "reason": "x"},
            {"when": {"all": [{"event": "death"}], "ward": {"matches": "1"}}, "hold": "sorties", "reason": "x"},
        ]
    )  # fmt: skip
    assert left(rules, **values) == asked


@pytest.mark.parametrize("order", [1, -1], ids=["upwards", "downwards"])
def test_a_number_on_a_bound_is_told_from_those_on_either_side_of_it(order: int):
    compared = [{"gte": 18, "lt": 75}, {"gt": 18}, {"lte": 18}, {"gte": 75}]
    rules = rules_of([{"when": {"age": each}, "hold": "sorties", "reason": "x"} for each in compared])
    index = Index(
        [rule.when for rule in rules.rules]
    )  # one for all: what it worked out for a number it keeps
    asked = {17: [2], 18: [0, 2], 19: [0, 1], 74: [0, 1], 75: [1, 3], 76: [1, 3]}
    for age in sorted(asked, reverse=order < 0):
        alive = index.possible({"age": age})
        assert [number for number in range(len(compared)) if alive >> number & 1] == asked[age], age


def test_more_bounds_than_a_table_is_worth_are_asked_one_by_one_and_decided_alike():
    rules = rules_of(
        [
            {"when": {"late_hours": {"gte": n, "lt": n + 1}}, "hold": "sorties", "reason": "x"}
            for n in range(400)
        ]
    )
    assert len(left(rules, late_hours=7)) == 400
    assert decide(rules, {"late_hours": 7.5}, NOW).rule == "r7"
    assert left(rules) == []


# -- what it costs


@pytest.mark.parametrize(("number", "within"), [(500, 30e-6), (10_000, 200e-6)])
def test_a_decision_by_a_file_of_many_rules_is_many_times_quicker_with_the_index(tmp_path, number, within):
    file = tmp_path / "routes.yaml"
    file.write_text(rulesets.by_ward(number), encoding="utf-8")
    rules, findings = load(file.read_bytes(), str(file))
    assert rules is not None, [finding.text() for finding in findings]
    assert len(rules.rules) == number
    facts: Facts = {
        "event": "discharge", "identity": "qualified", "gp": "found", "ward": "SERVICE 499", "age": 499 % 90,
        "signed": True, "mailbox": "cardio", "sender": "a@chr.fr", "mentions": frozenset(),
    }  # fmt: skip
    assert decide(rules, facts, NOW).rule == f"service-499-{number // 500 - 1}"

    def median(ask, times: int) -> float:
        taken = []
        for _ in range(times):
            began = time.process_time_ns()
            ask(rules, facts, NOW)
            taken.append(time.process_time_ns() - began)
        return statistics.median(taken) / 1e9

    quick, plain = median(decide, 101), median(decide_plainly, 5)
    assert quick * 5 < plain
    # The figure itself is measured by the bench, on a machine at rest; here it may be busy.
    assert quick < 5 * within
