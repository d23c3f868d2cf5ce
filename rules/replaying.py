"""What a changed rule set would have made of notices that came: the stored facts through the same engine again.

Nothing is kept but counts, so ten thousand decisions take no more room than ten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from rules.engine import ack_due, decide, leaves_at
from rules.facts import facts_from_json
from rules.outcome import copies_of, loss, missing, of_decision
from rules.ruleset import Copy

if TYPE_CHECKING:
    from rules.engine import Decision
    from rules.facts import Facts
    from rules.outcome import Reach
    from rules.ruleset import RuleSet

EXAMPLES: Final = 3
"""How many notices of a flow are named."""

RuleSets = Callable[[str], "RuleSet | None"]
"""Digest → the rule set that once ran, None when it cannot be read any more."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a rule set says of one notice: the id of the rule, what happens, and why (docs/rules.md)."""

    rule: str
    action: str
    why: str


@dataclass(frozen=True, slots=True)
class _Way:
    """How a notice fares: before, after, and what that takes from or gives to people."""

    before: Word
    after: Word
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    moved: bool


@dataclass(slots=True)
class Flow:
    """All notices that fare alike. `examples` are names of the first few."""

    before: Word
    after: Word
    lost: tuple[str, ...]
    gained: tuple[str, ...]
    count: int = 0
    examples: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """One entry of `flows` (docs/interface.md, Commands)."""
        return {
            "from": self.before.rule, "to": self.after.rule, "count": self.count, "examples": self.examples,
            "action_before": self.before.action, "action_after": self.after.action,
            "why_before": self.before.why, "why_after": self.after.why,
            "lost": list(self.lost), "gained": list(self.gained),
        }  # fmt: skip


class Replay:
    """Two rule sets over stored facts; `before` None: no rules are in force and everything is held."""

    def __init__(self, before: RuleSet | None, after: RuleSet, known: RuleSets) -> None:
        self.before, self.after, self._known = before, after, known
        self.replayed = self.unchanged = self.not_replayable = self.held = self.released = 0
        self.earlier = self.later = 0
        self.furthest = timedelta(0)
        self.lost: Counter[str] = Counter()
        self.gained: Counter[str] = Counter()
        self._flows: dict[_Way, Flow] = {}
        self._blind: dict[str, frozenset[str]] = {}
        self._used = {
            str(value)
            for rules in (before, after)
            if rules is not None
            for entry in rules.every()
            for test in entry.when.every_test()
            if test.field == "mentions"
            for value in test.values
        }

    @property
    def takes_away(self) -> bool:
        """Whether somebody would not be told who was, or something be held that was not."""
        return bool(self.held or self.lost)

    @property
    def flows(self) -> list[Flow]:
        """What changes, the most frequent first."""
        return sorted(self._flows.values(), key=lambda flow: (-flow.count, flow.before.rule, flow.after.rule))

    def add(self, facts: Mapping[str, object], at: datetime, ruleset: str, name: str) -> None:
        """One stored decision: its facts as JSON, its instant, the digest that decided, and how it is called."""
        try:
            read = facts_from_json(facts)
        except ValueError:
            # A field or value that this release's language does not know.
            self.not_replayable += 1
            return
        ways = {self._fare(each, at) for each in self._readings(read, ruleset)}
        if len(ways) > 1:
            # It hangs on words that nobody looked for when the letter was there.
            self.not_replayable += 1
            return
        ((way, late),) = ways
        self.replayed += 1
        self._count(way, late, name)

    def _readings(self, facts: Facts, ruleset: str) -> Iterator[Facts]:
        """The facts, and what they might be where groups of words were others when the letter was read."""
        if ruleset not in self._blind:
            self._blind[ruleset] = self._changed_groups(ruleset)
        blind = self._blind[ruleset]
        found = facts.get("mentions", frozenset())
        if not blind or not isinstance(found, frozenset | set):
            yield facts
            return
        sure = frozenset(found) - blind
        for names in (sure, *(sure | {each} for each in sorted(blind)), sure | blind):
            yield {**facts, "mentions": names}

    def _changed_groups(self, ruleset: str) -> frozenset[str]:
        """The groups of words in use that were not the same when that rule set read the letters."""
        if not self._used:
            return frozenset()
        then = self._known(ruleset)
        return frozenset(
            name
            for name in self._used
            if any(
                _group(rules, name) != (None if then is None else _group(then, name))
                for rules in (self.before, self.after)
                if rules is not None and name in rules.keywords
            )
        )

    def _fare(self, facts: Facts, at: datetime) -> tuple[_Way, timedelta]:
        after = decide(self.after, facts, at)
        told = copies_of(self.after, after)
        outcome = of_decision(self.after, after)
        if self.before is None:
            way = _Way(
                Word("—", "hold", "no_rules"), _word(after), (), _names(outcome.reached | told), moved=False
            )
            return way, timedelta(0)
        before = decide(self.before, facts, at)
        old = of_decision(self.before, before)
        lost, gained = loss(old, outcome), frozenset(missing(outcome.reached, old.reached))
        copied = copies_of(self.before, before)
        people = {*lost.people, *missing(copied, told | outcome.reached)}
        gained |= frozenset(missing(told, copied | old.reached))
        late = self._late(before, after, facts, at)
        way = _Way(
            self._renamed(_word(before)),
            _word(after),
            _names(people),
            _names(gained),
            bool(late) or (old.chased, old.patience) != (outcome.chased, outcome.patience),
        )
        return way, late

    def _renamed(self, word: Word) -> Word:
        """An old id under its new name (`was`)."""
        now = self.after.rule(word.rule)
        return word if now is None or isinstance(now, Copy) else Word(now.id, word.action, word.why)

    def _late(self, before: Decision, after: Decision, facts: Facts, at: datetime) -> timedelta:
        """How much later an answer is due."""
        assert self.before is not None  # noqa: S101 - asked by _fare alone
        dues = [_due(self.before, before, facts, at), _due(self.after, after, facts, at)]
        return dues[1] - dues[0] if dues[0] and dues[1] else timedelta(0)

    def _count(self, way: _Way, late: timedelta, name: str) -> None:
        if late:
            self.earlier += late < timedelta(0)
            self.later += late > timedelta(0)
            self.furthest = max(self.furthest, abs(late))
        if way.before == way.after and not (way.lost or way.gained or way.moved):
            self.unchanged += 1
            return
        self.held += way.before.action != "hold" and way.after.action == "hold"
        self.released += way.before.action == "hold" and way.after.action != "hold"
        self.lost.update(way.lost)
        self.gained.update(way.gained)
        flow = self._flows.setdefault(way, Flow(way.before, way.after, way.lost, way.gained))
        flow.count += 1
        if len(flow.examples) < EXAMPLES:
            flow.examples.append(name)

    def as_json(self) -> dict[str, object]:
        """The figures of `relay rules preview --json` (docs/interface.md, Commands)."""
        return {
            "replayed": self.replayed, "unchanged": self.unchanged, "changed": self.replayed - self.unchanged,
            "not_replayable": self.not_replayable, "would_be_held": self.held,
            "would_be_released": self.released, "lost": dict(self.lost), "gained": dict(self.gained),
            "deadlines": {
                "earlier": self.earlier, "later": self.later, "furthest_s": int(self.furthest.total_seconds()),
            },
            "flows": [flow.as_json() for flow in self.flows],
        }  # fmt: skip


def _word(decision: Decision) -> Word:
    return Word(decision.rule, decision.action, decision.why)


def _names(people: Iterable[Reach]) -> tuple[str, ...]:
    return tuple(sorted(map(str, people)))


def _due(rules: RuleSet, decision: Decision, facts: Facts, at: datetime) -> datetime | None:
    if decision.followup is None or decision.followup not in rules.followups:
        return None
    return ack_due(rules, decision.followup, leaves_at(rules, decision, facts, at))


def _group(rules: RuleSet, name: str) -> object:
    group = rules.keywords.get(name)
    if group is None:
        return None
    return (
        None if group.words is None else group.words.pattern,
        tuple(each.pattern for each in group.patterns),
    )
