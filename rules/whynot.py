"""Why a rule did not decide about a notice, and the smallest change of facts with which it would have.

Whatever stands in the way — a test of the rule itself, an earlier rule that takes the notice, a floor — one of
the facts it hangs on must change: the search changes those alone, one more each round, so the first answer is
the smallest. Where a pattern asks for a text, one is made up that it matches. What this search does not find, the
proof over all facts (`rules.reach`) does: of its facts as many as possible become those that were there again.
The engine has the last word on each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from rules import patterns, reach
from rules.engine import Decision, decide, matches
from rules.facts import FIELDS, UNKNOWN, WHEN_ABSENT, Facts, FactValue, facts_as_json
from rules.patterns import Unsupported
from rules.ruleset import Copy, Rule

if TYPE_CHECKING:
    from rules.ruleset import RuleSet, Test

MOST_CHANGES: Final = 6
MOST_TRIES: Final = 60_000
"""Decisions tried before the search gives up: some two seconds."""

_AVOIDED: Final = 30
"""Patterns of other rules that a made-up text keeps clear of, if it can."""
_WARDS: Final = 5

Obstacle: TypeAlias = Literal["off", "observe"]
_AT: Final = "at"


@dataclass(frozen=True, slots=True)
class Change:
    """One fact that must be another; `field` `at` is the instant. Values as JSON, None for absent."""

    field: str
    found: object
    wanted: object


@dataclass(frozen=True, slots=True)
class WhyNot:
    """What it would take for a rule to decide (for a copy: to be made).

    `decides` already: `changes` is empty. `changes` None: no change of facts was found; `complete` then says
    whether there is none. `obstacle`: its mode, which no fact changes. `decision` is what would come of it.
    """

    rule: str
    decides: bool
    changes: tuple[Change, ...] | None
    complete: bool = True
    obstacle: Obstacle | None = None
    decision: Decision | None = None

    def as_json(self) -> dict[str, object]:
        """`why_not` of `relay rules explain --json` (docs/interface.md, Commands)."""
        return {
            "rule": self.rule,
            "decides": self.decides,
            "possible": self.changes is not None,
            "complete": self.complete,
            "obstacle": self.obstacle,
            "changes": [
                {"field": each.field, "from": each.found, "to": each.wanted} for each in self.changes or ()
            ],
            "decision": None if self.decision is None else self.decision.as_json(),
        }


def why_not(rules: RuleSet, name: str, facts: Facts, at: datetime) -> WhyNot:
    """The smallest change of facts with which the rule or copy `name` acts. Raises KeyError when there is none."""
    if name == "default":
        return _Search(rules, None, facts, at).run()
    entry = rules.rule(name)
    if entry is None:
        raise KeyError(name)
    obstacle: Obstacle | None = None
    if entry.mode != "on":
        obstacle = entry.mode
        acting = replace(entry, mode="on")
        rules = replace(
            rules,
            rules=tuple(acting if e is entry else e for e in rules.rules),  # type: ignore[misc]  # of its own kind
            also=tuple(acting if e is entry else e for e in rules.also),  # type: ignore[misc]
        )
        entry = acting
    found = _Search(rules, entry, facts, at).run()
    return replace(found, obstacle=obstacle, decides=found.decides and obstacle is None)


@dataclass(slots=True)
class _Search:
    rules: RuleSet
    entry: Rule | Copy | None  # None: the default
    facts: Facts
    at: datetime
    left: int = MOST_TRIES
    seen: dict[frozenset[tuple[str, object]], int] = field(default_factory=dict)
    values: Mapping[str, Sequence[FactValue | None]] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return "default" if self.entry is None else self.entry.id

    def run(self) -> WhyNot:
        decision = decide(self.rules, self.facts, self.at)
        if self._acts(decision):
            return WhyNot(self.id, decides=True, changes=(), decision=decision)
        self.values = _values(self.rules, self.entry)
        for most in range(1, MOST_CHANGES + 1):
            self.seen.clear()
            found = self._deepen(dict(self.facts), self.at, frozenset(), most)
            if found is not None:
                return self._found(*found)
            if self.left <= 0:
                break
        proof = reach.answer(self.rules, self.entry)
        # A rule that only ever sends what a floor forbids is reached all the same.
        if isinstance(proof, reach.Witness) and self._acts(decide(self.rules, proof.facts, proof.at)):
            return self._found(*self._nearest(proof))
        searched = self.left > 0 and not _any_pattern(self.rules)
        complete = searched or isinstance(proof, reach.Dead)
        return WhyNot(self.id, decides=False, changes=None, complete=complete)

    def _found(self, facts: dict[str, FactValue], at: datetime) -> WhyNot:
        changes = self._changes(facts, at)
        return WhyNot(self.id, decides=False, changes=changes, decision=decide(self.rules, facts, at))

    def _nearest(self, proof: reach.Witness) -> tuple[dict[str, FactValue], datetime]:
        """The facts of a proof with as many of those that were there as it stays one with."""
        facts, at = dict(proof.facts), proof.at
        if self._acts(decide(self.rules, facts, self.at)):
            at = self.at
        for name in FIELDS:
            trial = {key: value for key, value in facts.items() if key != name}
            if name in self.facts:
                trial[name] = self.facts[name]
            if self._acts(decide(self.rules, trial, at)):
                facts = trial
        return facts, at

    def _acts(self, decision: Decision) -> bool:
        if isinstance(self.entry, Copy):
            return any(name == self.id for name, _ in decision.copies)
        return decision.rule == self.id and decision.why in ("rule", "default")

    def _deepen(
        self, facts: dict[str, FactValue], at: datetime, changed: frozenset[str], left: int
    ) -> tuple[dict[str, FactValue], datetime] | None:
        """The first way of changing at most `left` more facts, in the order of the facts and of their values."""
        self.left -= 1
        decision = decide(self.rules, facts, at)
        if self._acts(decision):
            return facts, at
        if not left or self.left <= 0:
            return None
        for name in self._suspects(facts, at, decision):
            if name in changed:
                continue
            for value in self._choices(name, facts, at):
                if name == _AT:
                    assert isinstance(value, datetime)  # noqa: S101 - made by _choices
                    trial, then = facts, value
                elif value == facts.get(name):
                    continue
                else:
                    assert not isinstance(value, datetime)  # noqa: S101 - a fact's value
                    trial, then = {key: old for key, old in facts.items() if key != name}, at
                    if value is not None:
                        trial[name] = value
                if self._known(trial, then, left):
                    continue
                found = self._deepen(trial, then, changed | {name}, left - 1)
                if found is not None:
                    return found
        return None

    def _known(self, facts: Mapping[str, FactValue], at: datetime, left: int) -> bool:
        """Whether the same facts were looked at already with as many changes to go."""
        mark = frozenset({*facts.items(), (_AT, at)})
        if self.seen.get(mark, 0) >= left:
            return True
        self.seen[mark] = left
        return False

    def _suspects(self, facts: Facts, at: datetime, decision: Decision) -> list[str]:
        """The facts of which one must change: those of what stands in the way now."""
        names = self._in_the_way(facts, at, decision)
        # What could not be read is the likeliest to be meant otherwise.
        return sorted(names, key=lambda name: facts.get(name) is not UNKNOWN)

    def _in_the_way(self, facts: Facts, at: datetime, decision: Decision) -> list[str]:
        own = self.entry
        if own is not None and (names := _unmet(self.rules, own, facts, at)):
            return names
        blocker = self.rules.rule(decision.rule) if decision.rule != "default" else None
        if isinstance(own, Copy):
            return ["identity", "consent", "gp"]
        if blocker is None or blocker is own:
            return ["identity", "consent", "gp"]
        return _fields([*blocker.when.every_test()], dated=blocker.start or blocker.until)

    def _choices(self, name: str, facts: Facts, at: datetime) -> Iterator[FactValue | datetime | None]:
        if name != _AT:
            said = facts.get(name)
            if FIELDS[name].kind == "set" and isinstance(said, frozenset):
                # A letter that mentions one thing more, or less.
                several = [each for each in self.values.get(name, ()) if isinstance(each, frozenset)]
                yield from (said | each for each in several)
                yield from (said - each for each in several)
            yield from self.values.get(name, ())
            return
        moments: list[datetime] = []
        for entry in self.rules.every():
            for test in entry.when.every_test():
                if test.during is not None:
                    hours = self.rules.hours[test.during]
                    moments += [m for m in (hours.opens_at(at), hours.closes_at(at)) if m is not None]
        wall = at.astimezone(self.rules.zone).time()
        for entry in self.rules.every():
            # Within its dates, and beyond them.
            days = [entry.start + timedelta(days=more) for more in (0, -1)] if entry.start else []
            days += [entry.until + timedelta(days=more) for more in (0, 1)] if entry.until else []
            moments += [datetime.combine(day, wall, tzinfo=self.rules.zone) for day in days]
        # The nearest first: the smallest change of an instant is the shortest wait.
        yield from sorted({m for m in moments if m != at}, key=lambda m: (m < at, abs(m - at)))

    def _changes(self, facts: Facts, at: datetime) -> tuple[Change, ...]:
        found, wanted = facts_as_json(self.facts), facts_as_json(facts)
        names = [name for name in FIELDS if found.get(name) != wanted.get(name)]
        changes = [
            Change(name, found.get(name, WHEN_ABSENT.get(name)), wanted.get(name, WHEN_ABSENT.get(name)))
            for name in names
        ]
        if at != self.at:
            times = [
                moment.astimezone(self.rules.zone).isoformat(timespec="minutes") for moment in (self.at, at)
            ]
            changes.append(Change(_AT, *times))
        return tuple(changes)


def _any_pattern(rules: RuleSet) -> bool:
    """Whether a text that some pattern would like may have been missed."""
    return any(test.pattern is not None for entry in rules.every() for test in entry.when.every_test())


def _unmet(rules: RuleSet, entry: Rule | Copy, facts: Facts, at: datetime) -> list[str]:
    """The facts of what in the entry's own `when` is no yes; the first such part alone, since it must change."""
    day = at.astimezone(rules.zone).date()
    if not (entry.start or day) <= day <= (entry.until or day):
        return [_AT]
    when = entry.when
    parts = [[test] for test in when.tests]
    parts += [list(group) for group in when.all_of or ()]
    for part in parts:
        if _truth(rules, entry, facts, at, part, "all"):
            continue
        return _fields(part)
    if when.any_of is not None and not any(
        _truth(rules, entry, facts, at, group, "all") for group in when.any_of
    ):
        return _fields([test for group in when.any_of for test in group])
    if when.unless is not None and not _truth(rules, entry, facts, at, when.unless, "unless"):
        return _fields(when.unless)
    return []


def _truth(
    rules: RuleSet, entry: Rule | Copy, facts: Facts, at: datetime, tests: Sequence[Test], how: str
) -> bool:
    """Whether a part of a `when` is a sure yes, asked of the engine as a rule of its own."""
    part = replace(
        entry.when,
        tests=() if how == "unless" else tuple(tests),
        any_of=None,
        all_of=None,
        unless=tuple(tests) if how == "unless" else None,
    )
    return matches(rules, part, facts, at) is True


def _fields(tests: Sequence[Test], *, dated: object = None) -> list[str]:
    names = {_AT if test.during is not None else test.field for test in tests}
    if dated:
        names.add(_AT)
    return [name for name in (*FIELDS, _AT) if name in names]


def _values(rules: RuleSet, entry: Rule | Copy | None) -> dict[str, tuple[FactValue | None, ...]]:
    """What each fact may be changed to: what the rule itself wants, then every value the rules tell apart, then none.

    Never `unknown`: nobody wants a letter to be illegible.
    """
    own: dict[str, list[Test]] = {}
    other: dict[str, list[Test]] = {}
    for each in ([entry] if entry is not None else []) + [e for e in rules.every() if e is not entry]:
        for test in each.when.every_test():
            if test.during is None:
                (own if each is entry else other).setdefault(test.field, []).append(test)
    found: dict[str, tuple[FactValue | None, ...]] = {}
    for name, kind in FIELDS.items():
        mine, others = own.get(name, []), other.get(name, [])
        values: list[FactValue | None] = [value for test in mine for value in _telling(test)]
        if kind.kind == "text" and any(test.pattern is not None for test in (*mine, *others)):
            values += _matching(rules, name, mine, others)
        if kind.kind == "set" and len(values) > 1:
            values.append(frozenset[str]().union(*(each for each in values if isinstance(each, frozenset))))
        if kind.kind == "enum":
            values += [value for value in kind.values if value not in values]
        elif kind.kind == "yesno":
            values += [True, False]
        values += [value for test in others for value in _telling(test)]
        if name not in WHEN_ABSENT:
            values.append(None)
        if kind.kind == "text" and name != "ward":
            values.append("autre")
        found[name] = tuple(dict.fromkeys(value for value in values if value is not UNKNOWN))
    return found


def _matching(rules: RuleSet, name: str, mine: Sequence[Test], others: Sequence[Test]) -> Iterator[FactValue]:
    """Texts that a rule's patterns match: wards that there are, then the shortest, clear of other rules if it can be."""
    asked = list(dict.fromkeys(test.pattern.pattern for test in mine if test.pattern is not None))
    avoided = dict.fromkeys(test.pattern.pattern for test in others if test.pattern is not None)
    clear = [pattern for pattern in avoided if pattern not in asked][:_AVOIDED]
    refused = frozenset(str(value).casefold() for test in others for value in test.values)
    for test in mine if name == "ward" else ():
        if test.pattern is not None:
            known = (ward for ward in rules.wards if any(map(test.pattern.search, ward)))
            yield from islice(known, _WARDS)
    tries = [[(each, True)] for each in asked]
    if len(asked) > 1:
        tries.insert(0, [(each, True) for each in asked])
        tries += [[(each, True), *((no, False) for no in asked if no != each)] for each in asked]
    for wanted in tries:
        for more in ([(pattern, False) for pattern in clear], []):
            try:
                text = patterns.text([(patterns.machine(p), truth) for p, truth in (*wanted, *more)], refused)
            except Unsupported:
                continue
            if text is not None:
                yield frozenset({text}) if name == "ward" else text
                break


def _telling(test: Test) -> list[FactValue | None]:
    kind = FIELDS[test.field]
    if test.bounds:
        points = sorted({point for _, bound in test.bounds for point in (bound, bound - 1, bound + 1)})
        return [int(point) if point.is_integer() else point for point in points]
    values = sorted(test.values, key=lambda v: (kind.values.index(str(v)) if v in kind.values else 0, str(v)))
    if kind.kind == "set" or test.field == "ward":
        return [frozenset({str(value)}) for value in values]
    if kind.kind == "number":
        return [int(v) if isinstance(v, float) and v.is_integer() else v for v in values]
    return list(values)
