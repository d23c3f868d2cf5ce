"""Whether a changed rule set could take anything away: a search over all facts, not only those seen so far.

Both sets are asked at once over boxes of facts (each field narrowed to some of its values). A box is settled
when the rules left for it are the same in both, or when nothing the new ones can do is less than what the old
ones can. Else it is split along a test of a rule that differs. What remains in the end is a concrete notice
that the change would take something from. The work is counted, so a pair of sets that is too different to be
searched ends "not proved" instead of taking for ever.

Where the facts cannot be told apart by listing values (patterns, words in a letter, hours), a test may come
out either way: the search may then suspect a change that is harmless, and never the reverse.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from rules.engine import decide
from rules.facts import FIELDS, UNKNOWN, WHEN_ABSENT, FactValue
from rules.index import within
from rules.outcome import Loss, Outcome, copies_of, held_at, loss, missing, of_copy, of_decision, of_rule

if TYPE_CHECKING:
    from rules.ruleset import Copy, Rule, RuleSet, Test

WORK: Final = 400_000
"""How often a rule is looked at before the search gives up: a second or a few."""
MOST: Final = 5
"""How many losses are named; one is enough to make a change wait."""

_NO, _MAYBE, _YES = 1, 2, 4
_FREE: Final = 8  # hangs on something that values do not tell: a pattern, a word
_OTHER: Final = "\x00other"  # a text that no rule names
_THERE: Final = "\x00there"  # a set of names, whatever is in it

_Key: TypeAlias = tuple[Hashable, ...]
_Value: TypeAlias = Hashable
_Box: TypeAlias = Mapping[_Key, tuple[_Value, ...]]
_Kind = TypeVar("_Kind", "Rule", "Copy")


@dataclass(frozen=True, slots=True)
class Weaker:
    """A notice that a change would take something from.

    `rule` and `instead` are the ids of the rules that decide before and after (`default` too); for a copy both
    are its id. `facts` and `at` show one such notice, where a concrete one could be made.
    """

    rule: str
    instead: str
    loss: Loss
    facts: Mapping[str, FactValue] | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Compared:
    """The result for two rule sets: what is lost, and whether everything could be searched."""

    weaker: tuple[Weaker, ...]
    complete: bool

    @property
    def harmless(self) -> bool:
        """Proved: whatever arrives, nobody who was told is told no longer, and nothing more is held."""
        return self.complete and not self.weaker


def compare(before: RuleSet, after: RuleSet, now: datetime, work: int = WORK) -> Compared:
    """What `after` could take away from `before`, from `now` on (days that are over don't count)."""
    search = _Search(before, after, now, work)
    try:
        return _compared(search, before, after)
    except _TooMuch:
        return Compared((), complete=False)


class _TooMuch(Exception):
    """More values to tell apart than can be held at hand."""


def _compared(search: _Search, before: RuleSet, after: RuleSet) -> Compared:
    old = [*map(search.rule(before), _on(before.rules)), search.default(before)]
    new = [*map(search.rule(after), _on(after.rules)), search.default(after)]
    found = search.run(old, new, _change)
    copies = [search.copy(after)(copy) for copy in _on(after.also)]
    for copy in _on(before.also):
        mine = search.copy(before)(copy)
        (told,) = mine.outcome.reached
        nobody = _Entry("default", "default", (), Outcome("file"), Outcome("file"), skips=False)
        others = [each for each in copies if any(r.covers(told) for r in each.outcome.reached)]
        if any(each.key == mine.key for each in others):
            continue
        found += search.run([mine, nobody], [*others, nobody], _copy_lost)
    return Compared(tuple(found[:MOST]), search.work > 0)


def _on(entries: Iterable[_Kind]) -> list[_Kind]:
    return [entry for entry in entries if entry.mode == "on"]


# -- what a test hangs on


@dataclass(frozen=True, slots=True)
class _Atom:
    """One test over one variable: the values on which it is a sure yes. With `extras` it is free on any other.

    Values stand in the order of their domain everywhere: absent first, unknown last.
    """

    variable: _Key
    yes: frozenset[_Value]
    extras: tuple[_Key, ...] = ()
    whole: int = 0  # what all values of the variable together admit

    def truth(self, value: _Value) -> int:
        """What one value makes of it."""
        if value in self.yes:
            return _YES
        if value is UNKNOWN:
            return _MAYBE
        return _NO if value is None or not self.extras else _FREE

    def among(self, values: tuple[_Value, ...]) -> int:
        """Which truths these values admit, as a mask; there may be thousands."""
        sure = len(self.yes.intersection(values))
        absent, unknown = values[0] is None, values[-1] is UNKNOWN
        found = (_YES if sure else 0) | (_NO if absent else 0) | (_MAYBE if unknown else 0)
        if len(values) > sure + absent + unknown:
            found |= _FREE if self.extras else _NO
        return found

    def possible(self, box: _Box) -> int:
        """Which truths the box admits, as a mask."""
        values = box.get(self.variable)
        found = self.among(values) if values else self.whole
        if found & _FREE:
            found &= ~_FREE
            known = [box.get(extra, (True, False)) for extra in self.extras]
            if (True,) in known:
                found |= _YES
            elif all(each == (False,) for each in known):
                found |= _NO
            else:
                found |= _YES | _NO
        return found

    def split(self, box: _Box, domain: Mapping[_Key, tuple[_Value, ...]]) -> list[_Box] | None:
        """The box in parts that this test tells apart; None when it is settled."""
        if self.possible(box) in (_NO, _MAYBE, _YES):
            return None
        groups: dict[int, list[_Value]] = {}
        for value in box.get(self.variable) or domain[self.variable]:
            groups.setdefault(self.truth(value), []).append(value)
        if len(groups) > 1:
            parts = sorted(groups.values(), key=lambda v: _strangeness(self.variable, v), reverse=True)
            return [{**box, self.variable: tuple(values)} for values in parts]
        free = next(extra for extra in self.extras if extra not in box)
        return [{**box, free: (False,)}, {**box, free: (True,)}]


def _strangeness(variable: _Key, values: Sequence[_Value]) -> int:
    """The most ordinary part comes last: it is looked at first, and makes the best example."""
    usual = _USUAL.get(str(variable[0])) or WHEN_ABSENT.get(str(variable[0]))
    if usual in values:
        return 0
    return 1 if UNKNOWN not in values else 2


_Group: TypeAlias = tuple[_Atom, ...]


@dataclass(frozen=True, slots=True)
class _When:
    tests: _Group
    any_of: tuple[_Group, ...] | None
    all_of: tuple[_Group, ...]
    unless: _Group | None

    def possible(self, box: _Box) -> int:
        """Which truths the box admits; too many where parts hang together, never too few."""
        masks = [_conjunction(group, box) for group in (self.tests, *self.all_of) if group]
        if self.any_of is not None:
            masks.append(_flipped(_joined([_flipped(_conjunction(g, box)) for g in self.any_of])))
        if self.unless is not None:
            masks.append(_flipped(_conjunction(self.unless, box)))
        return _joined(masks)

    def atoms(self) -> Iterable[_Atom]:
        """All tests, in reading order."""
        yield from self.tests
        for group in (*(self.any_of or ()), *self.all_of, self.unless or ()):
            yield from group


def _conjunction(group: _Group, box: _Box) -> int:
    return _joined([atom.possible(box) for atom in group])


def _joined(masks: Sequence[int]) -> int:
    """Kleene's conjunction of masks."""
    found, sure, maybe = 0, True, False
    for mask in masks:
        if mask == _NO:
            return _NO
        found |= mask & _NO
        sure = sure and bool(mask & _YES)
        maybe = maybe or bool(mask & _MAYBE)
    if sure:
        found |= _YES
    if maybe:
        found |= _MAYBE
    return found


def _flipped(mask: int) -> int:
    return (mask & _MAYBE) | (_YES if mask & _NO else 0) | (_NO if mask & _YES else 0)


@dataclass(frozen=True, slots=True)
class _Entry:
    """One rule or copy, or the default (`when` None: always)."""

    id: str
    key: Hashable  # two entries of one key do the same whatever the facts
    atoms: tuple[_Atom, ...]
    outcome: Outcome
    undecided: Outcome
    skips: bool
    when: _When | None = None
    variables: frozenset[_Key] = frozenset()  # all that its truth hangs on

    def possible(self, box: _Box) -> int:
        """Which truths the box admits; being skipped counts as no."""
        if self.when is None:
            return _YES
        found = self.when.possible(box)
        if self.skips and found & _MAYBE:
            found = (found & ~_MAYBE) | _NO
        return found


_Left: TypeAlias = list[tuple[_Entry, int]]
"""Entries that may decide yet, each with the mask of its truths in the box; 0: not looked at."""


def _outcomes(entries: _Left) -> frozenset[Outcome]:
    """What may come of any of them."""
    yes = {entry.outcome for entry, mask in entries if mask & _YES}
    return frozenset(yes | {entry.undecided for entry, mask in entries if mask & _MAYBE})


_Weigh: TypeAlias = Callable[[Outcome, Outcome], Loss]


def _change(before: Outcome, after: Outcome) -> Loss:
    return loss(before, after)


def _copy_lost(before: Outcome, after: Outcome) -> Loss:
    return Loss(people=missing(before.reached, after.reached))


# -- the search


class _Search:
    def __init__(self, before: RuleSet, after: RuleSet, now: datetime, work: int) -> None:
        self.before, self.after, self.now, self.work = before, after, now, work
        self.domain = _domain(before, after, now)
        self._compared: dict[tuple[str, tuple[tuple[str, float], ...]], frozenset[_Value]] = {}
        self._tested: dict[Hashable, _Atom] = {}
        self._keys: dict[Hashable, int] = {}
        self._spelled: dict[object, list[_Value]] = {}
        for ward in self.domain[("ward",)]:
            for each in ward if isinstance(ward, frozenset) else ():
                self._spelled.setdefault(each, []).append(ward)
        self._weighed: dict[tuple[object, Outcome, Outcome, str], Loss] = {}

    # building

    def rule(self, rules: RuleSet) -> Callable[[Rule], _Entry]:
        """How rules of that set become entries."""
        held = held_at(rules, None)
        return lambda rule: self._entry(rules, rule, of_rule(rules, rule), held, rule.skip_unknown)

    def copy(self, rules: RuleSet) -> Callable[[Copy], _Entry]:
        """How copies of that set become entries; what is undecided is not copied."""
        return lambda copy: self._entry(rules, copy, of_copy(rules, copy), Outcome("file"), skips=True)

    def default(self, rules: RuleSet) -> _Entry:
        """The last entry of the rules."""
        held = held_at(rules, None)
        return _Entry("default", ("default", held), (), held, held, skips=False)

    def _entry(
        self, rules: RuleSet, entry: Rule | Copy, outcome: Outcome, undecided: Outcome, skips: bool
    ) -> _Entry:
        def group(tests: Iterable[Test]) -> _Group:
            return tuple(self._atom(test, rules) for test in tests)

        when = entry.when
        dates = self._dates(entry)
        compiled = _When(
            dates + group(when.tests),
            None if when.any_of is None else tuple(map(group, when.any_of)),
            () if when.all_of is None else tuple(map(group, when.all_of)),
            None if when.unless is None else group(when.unless),
        )
        # Equal tests are one object here, of both sets: thousands of rules are soon compared.
        shape = tuple(
            None if groups is None else tuple(tuple(map(id, each)) for each in groups)
            for groups in (
                (compiled.tests,), compiled.any_of, compiled.all_of,
                None if compiled.unless is None else (compiled.unless,),
            )
        )  # fmt: skip
        key = self._keys.setdefault((shape, outcome, undecided, skips), len(self._keys))
        atoms = tuple(compiled.atoms())
        variables = frozenset(v for atom in atoms for v in (atom.variable, *atom.extras))
        return _Entry(entry.id, key, atoms, outcome, undecided, skips, compiled, variables)

    def _atom(self, test: Test, rules: RuleSet) -> _Atom:
        if test.during is not None:
            return self._one(_hours(test, rules), frozenset({True}))
        extras: tuple[_Key, ...] = ()
        if test.pattern is not None:
            extras = (("pattern", test.field, test.pattern.pattern),)
        elif FIELDS[test.field].kind == "set":
            extras = tuple(_named(value, rules) for value in sorted(test.values, key=str))
        return self._one((test.field,), frozenset() if extras else self._satisfying(test), extras)

    def _dates(self, entry: Rule | Copy) -> _Group:
        if entry.start is None and entry.until is None:
            return ()
        days = [day for day in self.domain[("day",)] if isinstance(day, date)]
        inside = frozenset(day for day in days if (entry.start or day) <= day <= (entry.until or day))
        return (self._one(("day",), inside),)

    def _one(self, variable: _Key, yes: frozenset[_Value], extras: tuple[_Key, ...] = ()) -> _Atom:
        """The same object for the same test."""
        known = variable, yes, extras
        atom = self._tested.get(known)
        if atom is None:
            atom = _Atom(variable, yes, extras)
            atom = self._tested[known] = replace(atom, whole=atom.among(self.domain[variable]))
        return atom

    def _satisfying(self, test: Test) -> frozenset[_Value]:
        """The values that stand for all there are of which the test is true."""
        if test.field == "ward":
            return frozenset(ward for value in test.values for ward in self._spelled.get(value, ()))
        values = self.domain[(test.field,)]
        if not test.bounds:
            return frozenset(test.values).intersection(values)
        known = test.field, test.bounds
        if known not in self._compared:
            self.work -= len(values) // 10
            if self.work <= 0:
                raise _TooMuch
            self._compared[known] = frozenset(
                value
                for value in values
                if isinstance(value, float) and all(within(value, sign, bound) for sign, bound in test.bounds)
            )
        return self._compared[known]

    # searching

    def run(self, old: Sequence[_Entry], new: Sequence[_Entry], weigh: _Weigh) -> list[Weaker]:
        """A loss for each pair of entries that has one, at most `MOST`."""
        found: dict[tuple[str, str], Weaker] = {}
        start = ([(entry, 0) for entry in old], [(entry, 0) for entry in new])
        waiting: list[tuple[_Box, _Left, _Left, frozenset[_Key]]] = [({}, *start, frozenset())]
        while waiting and len(found) < MOST:
            box, before, after, changed = waiting.pop()
            before, after = self._left(box, before, changed), self._left(box, after, changed)
            if self.work <= 0:
                break
            for part in self._look(box, before, after, weigh, found):
                moved = frozenset(key for key, values in part.items() if box.get(key) != values)
                waiting.append((part, before, after, moved))
        return list(found.values())

    def _left(self, box: _Box, entries: _Left, changed: frozenset[_Key]) -> _Left:
        """Those that the box does not rule out, up to the first that is certain to decide, each with its mask.

        Only what hangs on a variable that has changed since is looked at again.
        """
        left: _Left = []
        self.work -= len(entries) // 8
        for entry, known in entries:
            mask = known
            if not mask or not changed.isdisjoint(entry.variables):
                self.work -= 1
                mask = entry.possible(box)
            if mask != _NO:
                left.append((entry, mask))
            if not mask & _NO:
                break
        return left

    def _look(
        self, box: _Box, before: _Left, after: _Left, weigh: _Weigh, found: dict[tuple[str, str], Weaker]
    ) -> list[_Box]:
        """The parts of the box that must be looked at one by one; none when it is settled."""
        same = 0
        while same < min(len(before), len(after)) and before[same][0].key == after[same][0].key:
            same += 1
        olds, news = before[same:], after[same:]
        if not olds or not news:
            return []
        mine, theirs = _outcomes(olds), _outcomes(news)
        if not any(self._lost(weigh, one, other, box) for one in mine for other in theirs):
            return []
        for entry, mask in (news[0], olds[0]):
            parts = self._split(entry, mask, box)
            if parts:
                return parts
        return self._witness(box, before[:same], olds[0], news[0], weigh, found)

    def _witness(
        self,
        box: _Box,
        earlier: _Left,
        one: tuple[_Entry, int],
        other: tuple[_Entry, int],
        weigh: _Weigh,
        found: dict[tuple[str, str], Weaker],
    ) -> list[_Box]:
        """Both deciding rules are known. Settle what forbids sending, and that no earlier rule comes first."""
        pair = (one[0].id, other[0].id)
        if pair in found:
            return []
        (mine,), (theirs,) = _outcomes([one]), _outcomes([other])
        parts = _floors(box, self.domain)
        if len(parts) > 1:
            return [part for part in parts if self._lost(weigh, mine, theirs, part)]
        for entry, mask in earlier:
            split = self._split(entry, mask, box)
            if split:
                return split
        found[pair] = self._shown(box, *pair, self._lost(weigh, mine, theirs, box))
        return []

    def _split(self, entry: _Entry, mask: int, box: _Box) -> list[_Box] | None:
        if mask in (_NO, _MAYBE, _YES):
            return None
        return next((parts for atom in entry.atoms if (parts := atom.split(box, self.domain))), None)

    def _lost(self, weigh: _Weigh, one: Outcome, other: Outcome, box: _Box) -> Loss:
        """What `other` takes from `one` under any of the floors that the box admits."""
        for floor in _possible_floors(box, self.domain):
            known = (weigh, one, other, floor)
            if known not in self._weighed:
                mine = _under(one, floor, held_at(self.before, None))
                theirs = _under(other, floor, held_at(self.after, None))
                nothing = weigh is _copy_lost and floor != "none" and (floor == "all" or one.needs_gp)
                self._weighed[known] = Loss() if nothing else weigh(mine, theirs)
            if self._weighed[known]:
                return self._weighed[known]
        return Loss()

    # showing

    def _shown(self, box: _Box, rule: str, instead: str, said: Loss) -> Weaker:
        """The loss with a notice that shows it, when the engine agrees that it does."""
        facts = _facts(box, self.domain)
        for at in _instants(box, self.domain, self.now, self.after):
            old, new = decide(self.before, facts, at), decide(self.after, facts, at)
            lost = loss(of_decision(self.before, old), of_decision(self.after, new))
            copies = missing(copies_of(self.before, old), copies_of(self.after, new))
            if lost or copies:
                ids = (old.rule, new.rule) if lost else (rule, instead)
                return Weaker(*ids, lost or Loss(people=copies), facts, at)
        return Weaker(rule, instead, said)


def _under(outcome: Outcome, floor: str, held: Outcome) -> Outcome:
    """What the floors make of it."""
    if outcome.action != "send" or floor == "none":
        return outcome
    return held if floor == "all" or outcome.needs_gp else outcome


_BAD: Final[Mapping[str, frozenset[object]]] = {
    "identity": frozenset(("doubtful", "test", UNKNOWN)),
    "consent": frozenset(("opposed", "masked", UNKNOWN)),
}


def _floors(box: _Box, domain: Mapping[_Key, tuple[_Value, ...]]) -> list[_Box]:
    """The box in parts in each of which the same floors hold."""
    parts: list[_Box] = [box]
    for name in ("identity", "consent", "gp"):
        split: list[_Box] = []
        for part in parts:
            values = part.get((name,)) or domain[(name,)]
            bad = _BAD[name] if name in _BAD else frozenset(v for v in values if v != "found")
            sides = (tuple(v for v in values if v in bad), tuple(v for v in values if v not in bad))
            split += [part if len(s) == len(values) else {**part, (name,): s} for s in sides if s]
        parts = split
    return parts


def _possible_floors(box: _Box, domain: Mapping[_Key, tuple[_Value, ...]]) -> list[str]:
    """Which of none, gp (no GP was found) and all (identity or consent) the box admits."""
    good, bad = True, False
    for name, forbidden in _BAD.items():
        values = box.get((name,)) or domain[(name,)]
        bad = bad or any(value in forbidden for value in values)
        good = good and any(value not in forbidden for value in values)
    gp = box.get(("gp",)) or domain[("gp",)]
    found = []
    if good and "found" in gp:
        found.append("none")
    if good and any(value != "found" for value in gp):
        found.append("gp")
    return found + ["all"] * bad


# -- variables


def _domain(before: RuleSet, after: RuleSet, now: datetime) -> dict[_Key, tuple[_Value, ...]]:
    """Every variable with values that stand for all there are."""
    domain: dict[_Key, tuple[_Value, ...]] = {}
    listed: dict[str, set[_Value]] = {}
    points: set[float] = set()
    numbers: dict[str, set[float]] = {}
    days = {now.astimezone(after.zone).date()}
    today = min(days)
    for rules in (before, after):
        for entry in rules.every():
            days |= {
                day
                for day in (entry.start, entry.until and entry.until + timedelta(days=1))
                if day and day > today
            }
            for test in entry.when.every_test():
                if test.during is not None:
                    domain[_hours(test, rules)] = (True, False)
                elif FIELDS[test.field].kind == "number":
                    points = {float(v) for v in test.values} | {bound for _, bound in test.bounds}
                    numbers.setdefault(test.field, set()).update(points)
                else:
                    listed.setdefault(test.field, set()).update(test.values)
    domain[("day",)] = tuple(sorted(days))
    for name, field in FIELDS.items():
        values: tuple[_Value, ...]
        if field.kind == "enum":
            values = field.values
        elif field.kind == "yesno":
            values = (True, False)
        elif field.kind == "number":
            values = _between(numbers.get(name, set()))
        elif field.kind == "set":
            values = (_THERE,)
        elif name == "ward":
            values = _wards(before, after, {str(each) for each in listed.get(name, ())})
        else:
            values = (*sorted(map(str, listed.get(name, ()))), _OTHER)
        absent: tuple[_Value, ...] = () if name in WHEN_ABSENT else (None,)
        domain[(name,)] = (*absent, *values, UNKNOWN)
    return domain


def _wards(before: RuleSet, after: RuleSet, listed: set[str]) -> tuple[frozenset[str], ...]:
    """Each ward by all its spellings, as a notice names it; a listed one that nobody configured; any other."""
    known = {frozenset(each.casefold() for each in ward) for ward in (*before.wards, *after.wards)}
    rest = [each for each in listed if not any(each in ward for ward in known)]
    alike: dict[tuple[str, ...], set[str]] = {}
    for each in rest:
        # A ward that nobody configured is told by its name and by what a slug of it would be.
        alike.setdefault(tuple(re.findall(r"\w+", each)), set()).add(each)
    alone = {frozenset({each}) for each in rest} | {frozenset(group) for group in alike.values()}
    named = (ward for ward in known | alone if not ward.isdisjoint(listed))
    return (*sorted(named, key=sorted), frozenset({"autre"}))


def _between(points: set[float]) -> tuple[float, ...]:
    """Each point, something between any two, and something below and above all."""
    if not points:
        return (0.0,)
    order = sorted(points)
    middles = [(low + high) / 2 for low, high in pairwise(order)]
    return tuple(sorted({order[0] - 1, *order, *middles, order[-1] + 1}))


def _hours(test: Test, rules: RuleSet) -> _Key:
    """Hours by what they say: two sets may call different ones by the same name."""
    hours = rules.hours[test.during or ""]
    exceptions = tuple(sorted(hours.exceptions.items()))
    return ("during", hours.week, hours.zone.key, hours.on_holidays, hours.calendar, exceptions)


def _named(value: object, rules: RuleSet) -> _Key:
    """Whether a name stands in a set; of `mentions` by what the group looks for."""
    group = rules.keywords.get(str(value))
    if group is None:
        return ("has", str(value))
    words = None if group.words is None else group.words.pattern
    return ("mentions", str(value), words, tuple(pattern.pattern for pattern in group.patterns))


# -- a notice out of a box

_USUAL: Final[Mapping[str, str]] = {"event": "discharge", "identity": "qualified", "gp": "found"}


def _facts(box: _Box, domain: Mapping[_Key, tuple[_Value, ...]]) -> dict[str, FactValue]:
    """The most ordinary notice of the box; absent wherever that is possible."""
    facts: dict[str, FactValue] = {}
    for name in FIELDS:
        values = box.get((name,)) or domain[(name,)]
        usual = _USUAL.get(name) or WHEN_ABSENT.get(name)
        value = usual if usual in values else None if None in values else values[0]
        if value is None or value == WHEN_ABSENT.get(name):
            continue
        if value == _THERE:
            facts[name] = frozenset(
                str(key[1])
                for key, held in box.items()
                if key[0] in ("has", "mentions") and len(key) > 1 and held == (True,)
            )
        elif value == _OTHER:
            facts[name] = "autre"
        elif isinstance(value, float):
            facts[name] = int(value) if value.is_integer() else value
        else:
            facts[name] = value  # type: ignore[assignment]  # the domain of a field holds its values only
    return facts


def _instants(
    box: _Box, domain: Mapping[_Key, tuple[_Value, ...]], now: datetime, rules: RuleSet
) -> Iterable[datetime]:
    """Moments at which the box's hours and days may be as it says: now, and then each hour of a week and more."""
    days = box.get(("day",)) or domain[("day",)]
    first = days[0]
    assert isinstance(first, date)  # noqa: S101 - made in _domain
    start = max(now, datetime.combine(first, time(10), tzinfo=rules.zone))
    yield start
    if any(key[0] == "during" for key in box):
        yield from (start + timedelta(hours=hour) for hour in range(1, 24 * 10))
