"""Whatever an admin writes: no notice disappears, no floor is lowered, no document enters a chat, nothing hangs on chance."""

from __future__ import annotations

import ast
import json
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

import rules
from relay import planning
from relay.model import (
    ChatRecipe,
    Context,
    DeliveryState,
    EnvelopeState,
    MailRecipe,
    Plan,
    Purpose,
    ThreadState,
)
from relay.planning import Arrival
from relay.planning import Site as PlanningSite
from rules.engine import decide, explain
from rules.language import FIELDS, NEEDS_SOMEBODY, UNKNOWN, FactValue, RuleSet, Site, load
from rules.ruleset import CHAT_KINDS, PEOPLE
from tests import test_planning
from tests.campaign import many
from tests.test_planning import AT, LINKED, arrive, letter, make_site

_secret = test_planning._secret  # fixture

# -- any rule set

TARGETS = {
    "gp": {"who": "registered_gp", "via": ["mss"], "carries": "document"},
    "gp_ping": {"who": "registered_gp", "via": ["telegram"], "carries": "pointer", "quiet": "nuit"},
    "cabinet": {"who": "practice", "via": ["mss"], "carries": "notice", "quiet": "nuit"},
    "remplacant": {"who": "substitute", "via": ["telegram", "mss"], "carries": "pointer"},
    "pharma": {"who": "pharmacist", "via": ["mss"], "carries": "document", "basis": "care_team"},
    "service": {"who": "sending_ward", "via": ["mss"], "carries": "pointer"},
    "patient": {"who": "patient", "via": ["mss"], "carries": "document"},
    "garde": {"who": "rota/garde", "via": ["telegram", "mss"], "carries": "pointer"},
    "sorties": {"who": "desk/sorties", "via": ["mss"], "carries": "document"},
}
HEAD: dict[str, object] = {
    "version": "1",
    "hours": {"nuit": {"every-day": ["20:00-08:00"]}, "cabinet": {"mon-fri": ["08:00-19:00"]}},
    "targets": TARGETS,
    "followups": {
        "court": {
            "await": "seen",
            "ack": {"within": "2h"},
            "ladder": [{"after": "1h", "remind": "gp_ping"}, {"after": "4h", "hand_to": "sorties"}],
        }
    },
    "keywords": {"chute": ["chute"], "fugue": ["fugue"]},
    "default": {"hold": "sorties", "reason": "Aucune règle"},
}

WORDS: dict[str, list[str]] = {
    **{name: list(entry.values) for name, entry in FIELDS.items() if entry.kind == "enum"},
    **{name: ["x", "y"] for name, entry in FIELDS.items() if entry.kind == "text"},
    "mentions": ["chute", "fugue"],
}
NUMBERS = st.sampled_from(["0", "18", "75"])


def matcher(name: str) -> st.SearchStrategy[object]:
    if FIELDS[name].kind == "yesno":
        return st.sampled_from(["yes", "no"])
    if FIELDS[name].kind == "number":
        return st.one_of(
            NUMBERS, st.dictionaries(st.sampled_from(["gte", "lte", "lt", "gt"]), NUMBERS, min_size=1)
        )
    listed = st.lists(st.sampled_from(WORDS[name]), min_size=1, max_size=3, unique=True)
    one = st.sampled_from(WORDS[name])
    if FIELDS[name].kind == "text":
        return st.one_of(one, listed, st.just({"matches": "^[xX]"}))
    return st.one_of(one, listed)


CONJUNCTION = st.lists(
    st.sampled_from([*FIELDS, "event", "event", "urgency", "gp"]), min_size=1, max_size=3, unique=True
).flatmap(lambda names: st.fixed_dictionaries({name: matcher(name) for name in names}))
GROUPS = st.lists(CONJUNCTION, min_size=1, max_size=2)
ANY = st.builds(
    lambda base, more: {**base, **more},
    CONJUNCTION,
    st.fixed_dictionaries({}, optional={"any": GROUPS, "all": GROUPS, "unless": CONJUNCTION}),
)
LIKELY = st.sampled_from(
    [
        {"event": ["discharge", "er_visit", "admission", "transfer"]},
        {"urgency": ["routine", "soon"]},
        {"gp": "found", "unless": {"document": "addendum"}},
        {"any": [{"age": {"gte": "18"}}, {"event": "discharge"}], "event": ["discharge", "other"]},
    ]
)
WHEN = st.one_of(LIKELY, ANY)
"""Half of all conditions fit an ordinary letter, so that rules of every kind decide."""
NAMES = st.sampled_from(sorted(TARGETS))
ACTION = st.one_of(
    st.builds(
        lambda to, followup, more: {"send": to, "followup": followup, **more},
        st.lists(NAMES, min_size=1, max_size=4, unique=True),
        st.sampled_from(["court", "none"]),
        st.fixed_dictionaries({}, optional={"grace": st.just("5m")}),
    ),
    st.just({"hold": "sorties", "reason": "À relire"}),
    st.just({"file": "Personne à prévenir"}),
)
DAYS = st.sampled_from(
    [{}, {}, {"from": "2026-12-02"}, {"until": "2026-11-30"}, {"from": "2026-12-01", "until": "2026-12-01"}]
)
"""The day of most decisions here is 1 December."""
MODE = {"mode": st.sampled_from(["on", "on", "observe", "off"])}


def with_action(
    when: dict[str, object], action: dict[str, object], days: dict[str, str], more: dict[str, str]
) -> dict[str, object]:
    # Mostly of events that may be filed at all: the others are refused, and try nothing.
    filed = {"event": ["admission", "transfer", "other"]} if "file" in action and "age" not in when else {}
    return {"when": {**when, **filed}, **action, **days, **more}


RULE = st.builds(
    with_action,
    WHEN,
    ACTION,
    DAYS,
    st.fixed_dictionaries({}, optional={**MODE, "if_unknown": st.sampled_from(["skip", "hold"])}),
)
COPY = st.builds(
    lambda when, to, days, more: {"when": when, "copy": to, **days, **more},
    WHEN,
    NAMES,
    DAYS,
    st.fixed_dictionaries({}, optional=MODE),
)
LAST = st.sampled_from(
    [
        [],
        [{"when": {"event": ["admission", "transfer"]}, "file": "Personne à prévenir"}],
        [{"when": {"urgency": "routine"}, "send": ["gp", "gp_ping", "garde"], "followup": "court"}],
        [{"when": {"gp": "found"}, "send": ["gp"], "followup": "none", "grace": "5m"}],
        [
            {
                "when": {"event": ["discharge", "admission"]},
                "send": ["patient", "service"],
                "followup": "court",
            }
        ],
    ]
)
RULES = st.builds(lambda first, last: [*first, *last], st.lists(RULE, max_size=4), LAST)
ALSO = st.lists(COPY, max_size=3)


def written(listed: list[dict[str, object]], also: list[dict[str, object]]) -> dict[str, object]:
    return {
        **HEAD,
        "rules": [{"id": f"r{number}", **each} for number, each in enumerate(listed)],
        "also": [{"id": f"c{number}", **each} for number, each in enumerate(also)],
    }


def loaded(file: dict[str, object]) -> RuleSet | None:
    """The set, dead rules and all; None when it is refused (a `file` that could take a discharge)."""
    found, findings = load(json.dumps(file), "routes.yaml", explaining=True)
    if found is None:
        assert {each.code for each in findings if each.severity == "error" and each.code[1] != "2"} == {
            "E142"
        }
    return found


# -- any facts


def value(name: str) -> st.SearchStrategy[object]:
    kind = FIELDS[name].kind
    known: st.SearchStrategy[object]
    if kind == "yesno":
        known = st.booleans()
    elif kind == "number":
        known = st.sampled_from([0, 3.5, 18, 75, 130])
    elif kind == "set":
        known = st.frozensets(st.sampled_from(WORDS[name]))
    else:
        known = st.sampled_from([*WORDS[name], "étranger"])
    return st.one_of(known, known, known, st.just(UNKNOWN))


FACTS = st.fixed_dictionaries({}, optional={name: value(name) for name in FIELDS})
CLEAN: dict[str, FactValue] = {
    "event": "discharge", "identity": "qualified", "gp": "found", "consent": "allowed", "urgency": "routine",
}  # fmt: skip
NEARLY = st.builds(
    lambda event, more: {**CLEAN, "event": event, **more},
    st.sampled_from(["discharge", "discharge", "er_visit", "admission", "transfer"]),
    st.lists(st.sampled_from(sorted({*FIELDS} - {"event"})), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: value(name) for name in names})
    ),
)
"""An ordinary letter, with a few facts that are anything."""


@cache
def an_arrival() -> tuple[PlanningSite, Arrival]:
    site = make_site()
    return site, arrive(site, letter())


def plan_of(
    chosen: RuleSet, facts: dict[str, FactValue], at: datetime = AT, site: PlanningSite | None = None
) -> Plan:
    ordinary, arrival = an_arrival()
    site = replace(site or ordinary, rules=chosen)
    decided = replace(arrival, facts=facts, decision=decide(chosen, facts, at))
    return planning.plan_notice(site, decided, LINKED, at)


# -- nothing disappears


@settings(max_examples=many(150), deadline=None)
@given(RULES, ALSO, st.lists(st.one_of(NEARLY, NEARLY, FACTS), min_size=1, max_size=6))
def test_no_rule_set_however_written_makes_a_notice_disappear(listed, also, many_facts):
    chosen = loaded(written(listed, also))
    assume(chosen is not None)
    assert chosen is not None
    for facts in many_facts:
        is_somewhere(chosen, facts)


def is_somewhere(chosen: RuleSet, facts: dict[str, FactValue]) -> None:
    """The notice is held for a person, filed with a reason, or sent and answered for."""
    decision = decide(chosen, facts, AT)
    plan = plan_of(chosen, facts)
    event(f"{decision.action}, {plan.state}")
    assert plan.envelope
    assert plan.decision is not None
    assert plan.decision.rule == decision.rule
    if plan.state is EnvelopeState.HELD:
        assert plan.hold is not None
        assert plan.hold.desk == "sorties"
        assert plan.hold.reason
        assert [
            each
            for each in plan.deliveries
            if each.to == "desk:sorties" and each.state is DeliveryState.QUEUED
        ]
        return
    assert plan.state is EnvelopeState.DECIDED
    assert plan.hold is None
    if decision.action == "file":
        assert decision.reason
        assert facts.get("event") not in (*NEEDS_SOMEBODY, UNKNOWN, "étranger")
        return
    assert decision.action == "send"
    assert plan.thread is not None
    if decision.followup is not None:
        assert plan.thread.state is ThreadState.AWAITING_ACK
        assert plan.timers
        assert plan.thread.followup is not None
        assert plan.thread.followup.ladder[-1].hand_to == "sorties"
    else:
        # Nobody will be reminded: somebody is told now, or had the letter from the ward itself.
        sent = [each for each in plan.deliveries if each.state is DeliveryState.QUEUED]
        assert sent or facts.get("addressed") is True


@settings(max_examples=many(100), deadline=None)
@given(RULES, ALSO, NEARLY, st.sampled_from(["identity", "consent", "gp"]), st.integers(0, 5))
def test_no_rule_set_lowers_a_floor(listed, also, facts, floor, which):
    chosen = loaded(written(listed, also))
    assume(chosen is not None)
    assert chosen is not None
    lowered = {
        "identity": ["doubtful", "test", UNKNOWN, "étranger", "doubtful", "test"],
        "consent": ["opposed", "masked", UNKNOWN, "étranger", "opposed", "masked"],
        "gp": ["none", "many", "conflict", "left", "no_mailbox", UNKNOWN],
    }[floor][which]
    plan = plan_of(chosen, {**facts, floor: lowered})
    strangers = {each.to for each in plan.deliveries if not each.to.startswith(("desk:", "ward:"))}
    if floor == "gp":
        strangers &= {f"rpps:{test_planning.MARTIN.rpps}"}
    assert not strangers
    if plan.state is EnvelopeState.HELD:
        assert plan.hold is not None
        assert plan.hold.desk == "sorties"


@settings(max_examples=many(25), deadline=None)
@given(RULES, ALSO, NEARLY)
def test_a_site_without_rules_or_in_doubt_holds_everything(listed, also, facts):
    chosen = loaded(written(listed, also))
    assume(chosen is not None)
    site, arrival = an_arrival()
    nothing = planning.plan_notice(
        replace(site, rules=None), replace(arrival, facts=facts, decision=None), Context(), AT
    )
    assert nothing.state is EnvelopeState.HELD
    assert nothing.hold is not None


# -- no document in a chat

TARGET = st.fixed_dictionaries(
    {
        "who": st.sampled_from([*PEOPLE, "desk/sorties", "rota/garde"]),
        "via": st.lists(st.sampled_from(["mss", "telegram", "matrix", "salon"]), min_size=1, unique=True),
        "carries": st.sampled_from(["document", "notice", "pointer"]),
    },
    optional={"basis": st.sampled_from(["care_team", "consent"]), "quiet": st.just("nuit")},
)  # fmt: skip
KINDS = st.fixed_dictionaries(
    {
        name: st.sampled_from(["smtp", "telegram", "matrix", "webchat"])
        for name in ("mss", "telegram", "matrix", "salon")
    }
)


@settings(max_examples=many(300), deadline=None)
@given(st.lists(TARGET, min_size=1, max_size=4), st.one_of(st.none(), KINDS))
def test_no_target_on_a_chat_can_carry_a_document(listed, kinds):
    named = {f"t{number}": each for number, each in enumerate(listed)}
    file = {**HEAD, "targets": {**TARGETS, **named}, "followups": {}}
    site = (
        None
        if kinds is None
        else Site(adapters=kinds, desks={"sorties": "document"}, rotas=frozenset({"garde"}))
    )
    found, findings = load(json.dumps(file), "routes.yaml", site)
    kind_of = dict(kinds or {"telegram": "telegram", "matrix": "matrix"})
    dangerous = {
        name
        for name, each in {**TARGETS, **named}.items()
        if each["carries"] != "pointer" and any(kind_of.get(via) in CHAT_KINDS for via in each["via"])
    }
    told = {each.code for each in findings}
    assert ("E120" in told) == bool(dangerous)
    if found is not None:
        for target in found.targets.values():
            assert target.carries == "pointer" or not any(
                kind_of.get(via) in CHAT_KINDS for via in target.via
            )


@settings(max_examples=many(80), deadline=None)
@given(
    RULES,
    ALSO,
    NEARLY,
    st.dictionaries(st.sampled_from(["mss", "telegram"]), st.sampled_from(["smtp", "telegram", "matrix"])),
)
def test_whatever_the_configuration_becomes_after_the_rules_were_read_no_chat_is_handed_a_document(
    listed, also, facts, kinds
):
    chosen = loaded(written(listed, also))
    assume(chosen is not None)
    assert chosen is not None
    site, _ = an_arrival()
    adapters = {
        name: replace(table, kind=kinds.get(name, table.kind))
        for name, table in site.settings.adapters.items()
    }
    changed = replace(site, settings=replace(site.settings, adapters=adapters))
    for each in plan_of(chosen, facts, site=changed).deliveries:
        if adapters[each.adapter].kind in CHAT_KINDS and each.state is DeliveryState.QUEUED:
            assert isinstance(each.recipe, ChatRecipe)
            assert each.purpose is Purpose.ALERT
        elif each.state is DeliveryState.QUEUED:
            assert isinstance(each.recipe, MailRecipe)


# -- nothing hangs on chance


def shuffled(node: object, chance: random.Random) -> object:
    """The same file with the keys of every mapping in another order; lists keep theirs."""
    if isinstance(node, dict):
        entries = [(name, shuffled(inner, chance)) for name, inner in node.items()]
        chance.shuffle(entries)
        return dict(entries)
    return [shuffled(inner, chance) for inner in node] if isinstance(node, list) else node


@settings(max_examples=many(80), deadline=None)
@given(RULES, ALSO, st.one_of(FACTS, NEARLY), st.randoms(use_true_random=False))
def test_a_decision_does_not_depend_on_the_order_of_any_mapping(listed, also, facts, chance):
    file = written(listed, also)
    chosen, other = loaded(file), loaded(shuffled(file, chance))  # type: ignore[arg-type]
    assert (chosen is None) == (other is None)
    assume(chosen is not None)
    assert chosen is not None
    assert other is not None
    backwards = dict(sorted(facts.items(), reverse=True))
    one, two = decide(chosen, facts, AT), decide(other, backwards, AT)
    # Of several unknown fields the one written first is named.
    same = {"line": 0, "undecided_field": None, "reason": ""}
    assert replace(one, **same) == replace(two, **same)
    assert decide(chosen, backwards, AT) == one


@settings(max_examples=many(40), deadline=None)
@given(RULES, ALSO, NEARLY, st.integers(0, 700 * 24 * 60))
def test_a_decision_knows_no_other_time_than_its_instant(listed, also, facts, minutes):
    chosen = loaded(written(listed, also))
    assume(chosen is not None)
    assert chosen is not None
    at = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    for zone in (UTC, ZoneInfo("Europe/Paris"), ZoneInfo("Pacific/Auckland")):
        assert decide(chosen, facts, at.astimezone(zone)) == decide(chosen, facts, at)
    first = plan_of(chosen, facts, at)
    assert plan_of(chosen, facts, at) == first
    for each in first.deliveries:
        assert each.not_before is None or at <= each.not_before <= at + timedelta(days=2)


def test_no_deciding_room_asks_a_clock_or_chance():
    """`datetime.now`, `time`, `random`, the environment: nothing of that stands in rooms whose answer must be the same again."""
    deciding = ("engine", "facts", "index", "keywords", "language", "reading", "ruleset")
    rooms = [Path(rules.__file__).with_name(f"{name}.py") for name in deciding]
    rooms += Path(planning.__file__).parent.glob("*.py")
    rooms += [Path(planning.__file__).parent.parent / name for name in ("threads.py", "calendar.py")]
    clocks = {"now", "today", "utcnow", "monotonic", "environ"}
    chance = {"random", "uuid", "secrets", "time"}
    asked = [
        f"{room.name}:{node.lineno}"
        for room in rooms
        for node in ast.walk(ast.parse(room.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in clocks)
        or (isinstance(node, ast.Import) and chance & {name.name for name in node.names})
    ]
    assert asked == []


@settings(max_examples=many(40), deadline=None)
@given(RULES, ALSO, st.one_of(FACTS, NEARLY))
def test_an_explanation_is_of_the_very_decision(listed, also, facts):
    chosen = loaded(written(listed, also))
    assume(chosen is not None)
    assert chosen is not None
    told = explain(chosen, facts, AT)
    decision = decide(chosen, facts, AT)
    assert {name: told[name] for name in decision.as_json()} == decision.as_json()
    trace: Any = told["trace"]
    deciding = [each["id"] for each in trace if each["decides"]]
    assert deciding == ([] if decision.rule == "default" else [decision.rule])
