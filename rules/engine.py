"""Deciding: one rule set, the facts of one notice, one instant → exactly one decision. Pure, and quick.

Nothing here drops a notice: whatever the rules and the facts are, the answer is to send, to hold or to file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from math import isnan
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar
from weakref import WeakKeyDictionary

from relay.calendar import Duration, Hours, add
from rules.facts import FIELDS, UNKNOWN, WHEN_ABSENT, Facts, FactValue, composed, facts_as_json
from rules.index import Index, within
from rules.ruleset import Action, Copy, Rule, RuleSet, Step, Target, Test, When

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Truth: TypeAlias = bool | None
"""Kleene's three: True, False, None for undecided."""

Why: TypeAlias = Literal["rule", "default", "undecided", "floor_identity", "floor_consent", "floor_gp"]

_Values: TypeAlias = Mapping[str, object]
_Test: TypeAlias = Callable[[_Values, datetime], Truth]
_Kind = TypeVar("_Kind", Rule, Copy)

_FLOOR_WORDS: Final[Mapping[str, tuple[str, str]]] = {
    "floor_identity": (
        "Identité à vérifier avant tout envoi",
        "Identity to be verified before anything is sent",
    ),
    "floor_consent": (
        "Le patient s'oppose à l'envoi, ou l'a masqué",
        "The patient objects to sending, or masked it",
    ),
    "floor_gp": ("Médecin traitant à trouver", "Registered GP to be found"),
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a notice.

    `rule` is the id of the rule that decided, or at which it stayed undecided, or `default`. `targets` names
    who is sent to, for a hold the one desk it waits at (also in `hold`), for a filed one nobody. `why` is a
    slug, `reason` the rule's or the floor's words. `copies` are (id of the `also`, target). `observed` are
    ids in `mode: observe` that would have matched, `undecided` ids whose match could not be told and that
    were passed over (`if_unknown: skip`, copies). `line` is where the rule stands in its file.
    """

    rule: str
    action: Action
    targets: tuple[str, ...]
    followup: str | None
    why: Why
    reason: str
    hold: str | None = None
    undecided_at: str | None = None
    undecided_field: str | None = None
    copies: tuple[tuple[str, str], ...] = ()
    observed: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    grace: Duration | None = None
    line: int = 0

    def as_json(self) -> dict[str, object]:
        """The decision's part of `relay rules explain --json` (docs/interface.md, Commands)."""
        return {
            "rule": self.rule,
            "action": self.action,
            "targets": list(self.targets),
            "followup": self.followup,
            "why": self.why,
            "reason": self.reason,
            "undecided_at": self.undecided_at,
            "undecided_field": self.undecided_field,
            "copies": [{"id": name, "target": target} for name, target in self.copies],
            "observed": list(self.observed),
            "undecided": list(self.undecided),
        }


def decide(rules: RuleSet, facts: Facts, at: datetime) -> Decision:
    """Decide about one notice at one instant (aware). Never raises on any facts: what it can't read is unknown.

    Asks only the rules that the index leaves; `decide_plainly` asks them all and answers the same.
    """
    program, values = _program(rules), _readable(facts)
    return _decision(rules, values, at, program.rules.likely(values), program.copies.likely(values))


def decide_plainly(rules: RuleSet, facts: Facts, at: datetime) -> Decision:
    """The same by the letter of the language: every rule in file order, then every copy. The yardstick for `decide`."""
    program = _program(rules)
    return _decision(rules, _readable(facts), at, program.rules.entries, program.copies.entries)


def decide_released(rules: RuleSet, facts: Facts, at: datetime) -> Decision:
    """The same for a letter that a person let go: only rules that send are asked; floors and copies stay."""
    program, values = _program(rules), _readable(facts)
    sending = (entry for entry in program.rules.likely(values) if entry.rule.action == "send")
    return _decision(rules, values, at, sending, program.copies.likely(values))


def prepare(rules: RuleSet) -> None:
    """Make a set ready to decide, which its first decision would do otherwise: 50 µs a rule, for a thread."""
    _program(rules)


def _decision(
    rules: RuleSet,
    values: _Values,
    at: datetime,
    listed: Iterable[_Entry[Rule]],
    also: Iterable[_Entry[Copy]],
) -> Decision:
    """The first rule that is no sure no decides; then each copy that matches is added."""
    day = at.astimezone(rules.zone).date()
    observed: list[str] = []
    passed: list[str] = []
    decision: Decision | None = None
    for entry in listed:
        truth, rule = entry.truth(values, at, day), entry.rule
        if truth is False:
            continue
        if rule.mode == "observe":
            (observed if truth else passed).append(rule.id)
        elif truth is None and rule.skip_unknown:
            passed.append(rule.id)
        else:
            decision = _undecided(rules, rule, values, at) if truth is None else _decided(rules, rule, values)
            break
    decision = decision or _by_default(rules)
    copies: list[tuple[str, str]] = []
    for each in also:
        truth, copy = each.truth(values, at, day), each.rule
        if truth is False:
            continue
        if copy.mode == "observe":
            (observed if truth else passed).append(copy.id)
        elif truth is None:
            passed.append(copy.id)
        elif _floor(rules, values, (copy.target,)) is None:
            copies.append((copy.id, copy.target))
    if copies or observed or passed:
        return replace(decision, copies=tuple(copies), observed=tuple(observed), undecided=tuple(passed))
    return decision


def matches(rules: RuleSet, when: When, facts: Facts, at: datetime) -> Truth:
    """What one `when` of this rule set, or a part of one, makes of a notice; dates and modes aside."""
    return _conjunction(when, rules)(_readable(facts), at)


def _by_default(rules: RuleSet) -> Decision:
    stop = rules.default
    return Decision(
        "default", "hold", (stop.hold,), None, "default", stop.reason, hold=stop.hold, line=stop.line
    )


def _undecided(rules: RuleSet, rule: Rule, values: _Values, at: datetime) -> Decision:
    name = _first_unknown(rule.when, values, at, rules)
    french = rules.language == "fr"
    words = (
        f"Indécis à « {rule.id} » : `{name}` est illisible"
        if french
        else f"Undecided at “{rule.id}” because {name} is unknown"
    )
    hold = rules.default.hold
    return Decision(
        rule.id,
        "hold",
        (hold,),
        None,
        "undecided",
        words,
        hold=hold,
        undecided_at=rule.id,
        undecided_field=name,
        line=rule.line,
    )


def _decided(rules: RuleSet, rule: Rule, values: _Values) -> Decision:
    if rule.action == "hold":
        hold = rule.hold or rules.default.hold
        return Decision(rule.id, "hold", (hold,), None, "rule", rule.reason, hold=hold, line=rule.line)
    if rule.action == "file":
        return Decision(rule.id, "file", (), None, "rule", rule.reason, line=rule.line)
    floor = _floor(rules, values, rule.targets)
    if floor is not None:
        hold = rules.default.hold
        words = _FLOOR_WORDS[floor][rules.language != "fr"]
        return Decision(rule.id, "hold", (hold,), None, floor, words, hold=hold, line=rule.line)
    return Decision(
        rule.id,
        "send",
        rule.targets,
        rule.followup,
        "rule",
        rule.reason,
        grace=rule.grace,
        line=rule.line,
    )


def _floor(
    rules: RuleSet, values: _Values, targets: Iterable[str]
) -> Literal["floor_identity", "floor_consent", "floor_gp"] | None:
    """What forbids sending to these targets whatever the rules say; unknown forbids as well."""
    identity = values.get("identity")
    if identity is UNKNOWN or identity in ("doubtful", "test"):
        return "floor_identity"
    if values.get("consent") != "allowed":
        return "floor_consent"
    if values.get("gp") != "found" and any(rules.targets[name].is_gp for name in targets):
        return "floor_gp"
    return None


# -- facts made comparable


def _readable(facts: Mapping[str, object]) -> dict[str, object]:
    """Facts as matchers compare them; a value that is not one of its field counts as unknown."""
    values: dict[str, object] = dict(WHEN_ABSENT)
    for name, value in facts.items():
        kind = _KINDS.get(name)
        if kind is None or value is None:
            continue
        if isinstance(value, str) and kind == "enum":
            values[name] = value if value in _VALUES[name] else UNKNOWN
        elif isinstance(value, str) and kind == "text":
            value = composed(value)
            values[name] = frozenset((value.casefold(),)) if name == "ward" else value.casefold()
            values["~" + name] = (value,)
        elif (kind == "set" or name == "ward") and isinstance(value, AbstractSet | tuple | list):
            spellings = tuple(composed(each) for each in value if isinstance(each, str))
            values[name] = frozenset(each.casefold() if name == "ward" else each for each in spellings)
            values["~" + name] = spellings
        elif _is_one(kind, value):
            values[name] = value
        else:
            values[name] = UNKNOWN
    return values


def _is_one(kind: str, value: object) -> bool:
    if isinstance(value, bool):
        return kind == "yesno"
    return kind == "number" and isinstance(value, int | float) and not isnan(value)


_KINDS: Final = {entry.name: entry.kind for entry in FIELDS.values()}
_VALUES: Final = {entry.name: frozenset(entry.values) for entry in FIELDS.values()}


# -- the compiled form


@dataclass(frozen=True, slots=True)
class _Entry(Generic[_Kind]):
    rule: _Kind
    when: _Test

    def truth(self, values: _Values, at: datetime, day: date) -> Truth:
        """Whether it matches; `day` is that of `at` in the set's time zone."""
        rule = self.rule
        if (rule.start is not None and day < rule.start) or (rule.until is not None and day > rule.until):
            return False
        return self.when(values, at)


class _Listed(Generic[_Kind]):
    """The rules, or the copies, of a set that are not off, as closures and with their index."""

    def __init__(self, listed: Iterable[_Kind], rules: RuleSet) -> None:
        on = [each for each in listed if each.mode != "off"]
        self.entries: Final[tuple[_Entry[_Kind], ...]] = tuple(
            _Entry(each, _conjunction(each.when, rules)) for each in on
        )
        self.index: Final = Index([each.when for each in on])

    def likely(self, values: _Values) -> Iterator[_Entry[_Kind]]:
        """Those that are no sure no by the index, in file order."""
        alive = self.index.possible(values)
        while alive:
            lowest = alive & -alive
            alive ^= lowest
            yield self.entries[lowest.bit_length() - 1]


class _Program:
    """A rule set made ready to decide."""

    def __init__(self, rules: RuleSet) -> None:
        self.rules: Final = _Listed(rules.rules, rules)
        self.copies: Final = _Listed(rules.also, rules)


_PROGRAMS: Final[WeakKeyDictionary[RuleSet, _Program]] = WeakKeyDictionary()


def _program(rules: RuleSet) -> _Program:
    program = _PROGRAMS.get(rules)
    if program is None:
        program = _PROGRAMS[rules] = _Program(rules)
    return program


def _all(parts: Sequence[_Test]) -> _Test:
    if len(parts) == 1:
        return parts[0]

    def conjunction(values: _Values, at: datetime) -> Truth:
        truth: Truth = True
        for part in parts:
            each = part(values, at)
            if each is False:
                return False
            if each is None:
                truth = None
        return truth

    return conjunction


def _any(parts: Sequence[_Test]) -> _Test:
    def disjunction(values: _Values, at: datetime) -> Truth:
        truth: Truth = False
        for part in parts:
            each = part(values, at)
            if each:
                return True
            if each is None:
                truth = None
        return truth

    return disjunction


def _not(part: _Test) -> _Test:
    def negation(values: _Values, at: datetime) -> Truth:
        truth = part(values, at)
        return None if truth is None else not truth

    return negation


def _conjunction(when: When, rules: RuleSet) -> _Test:
    parts = [_test(test, rules) for test in when.tests]
    if when.any_of is not None:
        parts.append(_any([_all([_test(t, rules) for t in group]) for group in when.any_of]))
    if when.all_of is not None:
        parts += [_all([_test(t, rules) for t in group]) for group in when.all_of]
    if when.unless is not None:
        parts.append(_not(_all([_test(t, rules) for t in when.unless])))
    return _all(parts)


def _test(test: Test, rules: RuleSet) -> _Test:
    name, wanted = test.field, test.values
    if test.during is not None:
        hours = rules.hours[test.during]
        return lambda _, at: hours.open_at(at)
    if test.pattern is not None:
        pattern, raw = test.pattern, "~" + name

        def matches(values: _Values, _: datetime) -> Truth:
            value = values.get(name)
            if value is None or value is UNKNOWN:
                return None if value is UNKNOWN else False
            spellings = values[raw]
            return isinstance(spellings, tuple) and any(
                pattern.search(each) is not None for each in spellings
            )

        return matches
    if test.bounds:
        bounds = test.bounds

        def compares(values: _Values, _: datetime) -> Truth:
            value = values.get(name)
            if isinstance(value, int | float):
                return all(within(value, sign, bound) for sign, bound in bounds)
            return None if value is UNKNOWN else False

        return compares

    def is_one_of(values: _Values, _: datetime) -> Truth:
        value = values.get(name)
        if value is None:
            return False
        if value is UNKNOWN:
            return None
        return not value.isdisjoint(wanted) if isinstance(value, frozenset) else value in wanted

    return is_one_of


def _first_unknown(when: When, values: _Values, at: datetime, rules: RuleSet) -> str:
    """The field to name: the first whose test is undecided."""
    return next((t.field for t in when.every_test() if _test(t, rules)(values, at) is None), "?")


# -- what a decision means in time


def clock_of(rules: RuleSet, name: str) -> Hours | None:
    """The hours of that name; None for the `real` clock."""
    return None if name == "real" else rules.hours[name]


def ack_due(rules: RuleSet, followup: str, sent: datetime) -> datetime:
    """When an acknowledgement is due (UTC), for a letter sent at that instant."""
    chosen = rules.followups[followup]
    return add(sent, chosen.ack_within, clock_of(rules, chosen.clock))


def ladder(rules: RuleSet, followup: str, sent: datetime) -> tuple[tuple[Step, datetime], ...]:
    """Each step of the ladder with its instant (UTC), counted from the sending."""
    steps = rules.followups[followup].ladder
    return tuple((step, add(sent, step.after, clock_of(rules, step.clock))) for step in steps)


def not_before(rules: RuleSet, target: str | Target, at: datetime, *, urgent: bool) -> datetime | None:
    """When a target's quiet hours end (UTC), None when it may be told at `at`. Urgent ignores them."""
    chosen = rules.targets[target] if isinstance(target, str) else target
    if urgent or chosen.quiet is None:
        return None
    return rules.hours[chosen.quiet].closes_at(at)


def leaves_at(rules: RuleSet, decision: Decision, facts: Facts, at: datetime) -> datetime:
    """When the letter of a decision to send leaves (UTC): ladders and acknowledgements count from then.

    After the rule's `grace`, and after the quiet hours of the target that carries it to the GP, the first if
    there are several. `at` is the instant of the decision.
    """
    ready = at.astimezone(UTC) + (decision.grace.elapsed if decision.grace else timedelta(0))
    urgent = facts.get("urgency") == "urgent"
    letters = (rules.targets[name] for name in decision.targets)
    carried = [each for each in letters if each.is_gp and each.carries != "pointer"]
    return min((not_before(rules, each, ready, urgent=urgent) or ready for each in carried), default=ready)


# -- explaining


def explain(rules: RuleSet, facts: Facts, at: datetime) -> dict[str, object]:
    """The decision with the whole trace: `relay rules explain --json` (docs/interface.md, Commands).

    `trace` has one entry per rule and copy in file order: `id`, `kind`, `file`, `line`, `mode`, `result`
    (yes, no, unknown, off, not_in_force), `decides`, and `matchers` as expected, found, result and place.
    """
    decision = decide(rules, facts, at)
    values = _readable(facts)
    day = at.astimezone(rules.zone).date()
    trace: list[dict[str, object]] = [
        {
            "id": rule.id,
            "kind": "rule" if isinstance(rule, Rule) else "also",
            "file": rules.file,
            "line": rule.line,
            "column": rule.column,
            "mode": rule.mode,
            "result": _result(rule, values, at, rules, day),
            "decides": isinstance(rule, Rule) and (rule.id, rule.line) == (decision.rule, decision.line),
            "matchers": _matchers(rule.when, facts, values, at, rules),
        }
        for rule in rules.every()
    ]
    urgent = values.get("urgency") == "urgent"
    ready = at + (decision.grace.elapsed if decision.grace else timedelta(0))
    sent = leaves_at(rules, decision, facts, at)
    quiet = {name: not_before(rules, name, ready, urgent=urgent) for name in decision.targets}
    due: dict[str, object] = {}
    if decision.followup is not None:
        due["ack_due"] = _local(ack_due(rules, decision.followup, sent), rules)
        due["ladder"] = [
            {
                "at": _local(instant, rules),
                "after": str(step.after),
                "clock": step.clock,
                "remind": step.remind,
                "hand_to": step.hand_to,
            }
            for step, instant in ladder(rules, decision.followup, sent)
        ]
    return {
        **decision.as_json(),
        "at": _local(at, rules),
        "facts": facts_as_json(facts),
        "trace": trace,
        "not_before": {name: _local(until, rules) for name, until in quiet.items() if until is not None},
        **due,
    }


def _local(at: datetime, rules: RuleSet) -> str:
    return at.astimezone(rules.zone).isoformat(timespec="seconds")


def _said(truth: Truth) -> str:
    return "unknown" if truth is None else "yes" if truth else "no"


def _result(rule: Rule | Copy, values: _Values, at: datetime, rules: RuleSet, day: date) -> str:
    if rule.mode == "off":
        return "off"
    if not (rule.start or day) <= day <= (rule.until or day):
        return "not_in_force"
    return _said(_conjunction(rule.when, rules)(values, at))


def _matchers(
    when: When, facts: Facts, values: _Values, at: datetime, rules: RuleSet
) -> list[dict[str, object]]:
    def one(test: Test) -> dict[str, object]:
        words = test.words
        return {
            "field": test.field,
            "expected": list(words) if isinstance(words, tuple) else words,
            "found": _found(test, facts, at, rules),
            "result": _said(_test(test, rules)(values, at)),
            "file": rules.file,
            "line": test.line,
            "column": test.column,
        }

    def group(tests: Iterable[Test]) -> dict[str, object]:
        tests = tuple(tests)
        truth = _all([_test(t, rules) for t in tests])(values, at)
        return {"result": _said(truth), "matchers": [one(t) for t in tests]}

    said: list[dict[str, object]] = [one(test) for test in when.tests]
    for name, groups in (("any", when.any_of), ("all", when.all_of)):
        if groups is not None:
            joined = (_any if name == "any" else _all)([_all([_test(t, rules) for t in g]) for g in groups])
            said.append(
                {"field": name, "result": _said(joined(values, at)), "groups": [group(g) for g in groups]}
            )
    if when.unless is not None:
        truth = _not(_all([_test(t, rules) for t in when.unless]))(values, at)
        said.append({"field": "unless", "result": _said(truth), "groups": [group(when.unless)]})
    return said


def _found(test: Test, facts: Facts, at: datetime, rules: RuleSet) -> object:
    if test.during is not None:
        return _local(at, rules)
    value: FactValue | None = facts.get(test.field)
    if value is None:
        return WHEN_ABSENT.get(test.field)
    return facts_as_json({test.field: value})[test.field]
