"""Which rules can decide at all: for each, facts that reach it, or the earlier rules that leave it none.

A rule reaches a notice when its `when` is a sure yes and every earlier rule in force is a sure no, or is
undecided and says `if_unknown: skip`. The facts of a notice are a point in a space with one axis a field:

- enum and yes/no: each value, absent, unknown; absent `urgency` and `consent` are their usual values;
- number: each number that some rule names, each interval between, absent, unknown;
- text: each text that some rule names, any other, absent, unknown; a ward of the site may also carry all its
  spellings at once, as its notices do;
- `mentions`: one yes/no a keyword group, or the whole unknown;
- the instant: one cell for each way in which the named hours can be open and the dates of rules in force
  together, between 2000 and 2099, to the minute, with holidays, exceptions and both nights of summer time;
- pattern: yes or no each; whether some text, in some letter case, has and lacks what a point asks for is then
  found out from the patterns themselves (`rules.patterns`), and what is impossible is taken out of the space.

So a rule is called dead exactly when it is. Neither called dead nor given a witness is one for which this takes
too long, or hangs on a pattern that `rules.patterns` can't take apart. No witness is believed before `decide`
confirmed it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias
from weakref import WeakKeyDictionary

from rules import patterns
from rules.boxes import Box, Covered, OutOfBudget, Space, bits
from rules.engine import decide
from rules.facts import FIELDS, UNKNOWN, WHEN_ABSENT, Facts, FactValue, Field, as_number
from rules.patterns import Unsupported
from rules.ruleset import Copy, Rule, RuleSet, Test
from rules.source import Report

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from relay.calendar import Hours
    from rules.engine import Decision
    from rules.source import Finding

USUAL_DAY: Final = date(2026, 1, 6)
"""A Tuesday with no holiday near, on whose morning a witness happens unless another instant is needed."""

_MORNING: Final = time(10)
_FIRST, _LAST = date(2000, 1, 1), date(2099, 12, 31)
_NEAR_DAYS: Final = 730
_STEPS: Final = 50_000
_ALL_STEPS: Final = 100_000
_STEPS_A_RULE: Final = 300
_FEW_STEPS: Final = 200
_IMPOSSIBLE: Final = 300
_MOST_BOXES: Final = 50_000
_APART: Final = "\0"
_SPOKEN: Final = f"mentions{_APART}"
# What an ordinary letter says, where a rule leaves the choice.
_PLAIN: Final = ("event", "identity", "gp")
_OTHER: Final[Mapping[str, str]] = {
    "code": "00000-0",
    "sender": "autre@example.org",
    "facility": "000000000",
    "department": "00",
}


@dataclass(frozen=True, slots=True)
class Witness:
    """Facts, and an aware instant in the set's zone, for which a rule decides, copies or is observed."""

    at: datetime
    facts: Facts


@dataclass(frozen=True, slots=True)
class Dead:
    """No facts reach the rule. `by` are earlier rules that together take everything; none can be spared.

    An empty `by`: the rule's own condition contradicts itself. `floored`: a copy that some floor forbids
    whenever its condition holds.
    """

    by: tuple[Rule, ...] = ()
    floored: bool = False


Answer: TypeAlias = Witness | Dead | None
"""None: neither could be shown."""


def reached(decision: Decision) -> set[str]:
    """The ids that a decision is a case of: who decided, who copied, who was observed, or `default`."""
    # Staying undecided at a rule is not deciding by it.
    taken = set() if decision.why == "undecided" else {decision.rule}
    return taken | {name for name, _ in decision.copies} | set(decision.observed)


def answer(rules: RuleSet, entry: Rule | Copy | None) -> Answer:
    """What reaches a rule or copy of a set (None: the default). Remembered; the same answer each time."""
    proof = _PROOFS.get(rules)
    if proof is None:
        proof = _PROOFS[rules] = _Proof(rules)
    return proof.answer(rules, entry)


def findings(rules: RuleSet, lang: str | None = None) -> tuple[Finding, ...]:
    """What can't be reached: E201 for each dead rule, W202 for the default, W203 for a copy never made; W204
    for what could not be told.

    Each stands at the entry's `id`. The time grows with the square of the number of rules: 500 take half a
    second, and so it is asked for by who checks a file, once, and not by `load`.
    """
    report = Report(rules.file, rules.text, lang or rules.language)
    for entry in rules.every():
        found = answer(rules, entry)
        place = entry.line, entry.column
        if found is None and entry.mode != "off":
            report.tell("unproved", place, word=entry.id)
        if not isinstance(found, Dead):
            continue
        if found.by:
            report.tell("covered", place, word=entry.id, first=found.by[0].id, by=_together(found.by))
        elif found.floored:
            report.tell("floored", place, word=entry.id)
        else:
            noun = ("règle", "rule") if isinstance(entry, Rule) else ("copie", "copy")
            report.tell("contradicts", place, word=entry.id, noun=noun)
    if isinstance(answer(rules, None), Dead):
        report.tell("default_dead", (rules.default.line, 1))
    return report.findings


def _together(by: Sequence[Rule]) -> tuple[str, str]:
    """The covering rules in words, French and English."""
    french = " + ".join(f"« {rule.id} » (l.{rule.line})" for rule in by)
    english = " + ".join(f"“{rule.id}” (line {rule.line})" for rule in by)
    return (f"{french} ensemble", f"{english} together") if len(by) > 1 else (french, english)


# -- axes


@dataclass(slots=True)
class _Axis:
    """One dimension: `name` is a field, `at`, or a part of one; `cells` what a point may have there.

    `spelled` says which cells have a text among their spellings, case-folded.
    """

    name: str
    number: int
    cells: list[object]
    spelled: dict[object, int] = field(default_factory=dict)

    @property
    def full(self) -> int:
        return (1 << len(self.cells)) - 1

    def mask(self, wanted: Iterable[object]) -> int:
        found = 0
        for value in wanted:
            found |= self.spelled.get(value, 0)
        return found


@dataclass(frozen=True, slots=True)
class _Literal:
    """One test on one axis: where it is a sure yes, and where a sure no. Unknown is neither."""

    axis: int
    yes: int
    no: int


_Boxes: TypeAlias = list[dict[int, int]]


@dataclass(frozen=True, slots=True)
class _Patterned:
    """A text that patterns ask about: its axis, and the axis of each pattern by its words.

    `loose` are the cells that don't say how the text is written, `other` the one of any other text, `written` all
    with a text, as bits.
    """

    axis: _Axis
    loose: frozenset[int]
    other: int
    written: int
    own: Mapping[str, int]
    known: dict[object, str | None] = field(default_factory=dict)

    def text(self, cell: int, wanted: Mapping[str, bool]) -> str | None:
        """A text of a cell that has and lacks these patterns; None: there is none. Raises Unsupported."""
        key = cell, tuple(wanted.items())
        if key not in self.known:
            self.known[key] = self._text(cell, wanted)
        return self.known[key]

    def _text(self, cell: int, wanted: Mapping[str, bool]) -> str | None:
        machines = [(patterns.machine(words), truth) for words, truth in wanted.items()]
        written = _texts(self.axis.cells[cell])[0]
        if cell != self.other:
            return patterns.spelling(machines, written.casefold(), start=written)
        return patterns.text(machines, self._refused, start=written)

    @property
    def _refused(self) -> frozenset[str]:
        other = 1 << self.other
        return frozenset(e for e, cells in self.axis.spelled.items() if isinstance(e, str) and cells != other)

    def conflict(self, cell: int, wanted: Mapping[str, bool]) -> dict[int, int]:
        """The box around a cell in which no text has and lacks these patterns, with as few of them as it takes."""
        needed = dict(wanted)
        # Half at a time first: of hundreds of patterns, two or three stand in each other's way.
        size = len(needed) // 2
        while size:
            for some in [list(needed)[at : at + size] for at in range(0, len(needed), size)]:
                fewer = {each: truth for each, truth in needed.items() if each not in some}
                if self.text(cell, fewer) is None:
                    needed = fewer
            size //= 2
        for words in tuple(needed):
            fewer = {each: truth for each, truth in needed.items() if each != words}
            if self.text(cell, fewer) is None:
                needed = fewer
        box = {self.own[words]: 1 << truth for words, truth in needed.items()}
        machines = [(patterns.machine(words), truth) for words, truth in needed.items()]
        never = patterns.text(machines, frozenset()) is None
        return {self.axis.number: self.written if never else 1 << cell, **box}


class _Model:
    """The space of one rule set: its axes, its rules as boxes. `century`: with every instant, not only near ones."""

    def __init__(self, rules: RuleSet, *, century: bool) -> None:
        self.century = century
        self.zone = rules.zone
        self.wards = rules.wards
        self.live = [rule for rule in rules.rules if rule.mode != "off"]
        self.axes: list[_Axis] = []
        self.by_name: dict[str, _Axis] = {}
        self.links: _Boxes = []
        self.literals: dict[object, _Literal] = {}
        tests: dict[str, list[Test]] = {}
        # Only a rule that skips what it can't tell is ever passed by something unknown.
        self.unknown: set[str] = set()
        for entry in (e for e in rules.every() if e.mode != "off"):
            for test in entry.when.every_test():
                tests.setdefault("at" if test.during else test.field, []).append(test)
                if isinstance(entry, Rule) and entry.skip_unknown and entry.mode == "on":
                    self.unknown.add(test.field)
        self.tests = tests
        for name, kind in FIELDS.items():
            if kind.kind == "set":
                self._keywords(tests.get(name, ()))
            elif name in tests or name in _PLAIN or name == "consent":
                self._add(name, self._cells(kind, tests.get(name, ())))
        spans = {(e.start, e.until) for e in rules.every() if e.start or e.until}
        if spans or "at" in tests:
            self._time(rules, sorted({t.during for t in tests.get("at", ()) if t.during}), spans)
        self.patterned: list[_Patterned] = []
        self._patterns(tests)
        boxes: list[tuple[Box, int | None]] = [(box, None) for box in self.links]
        self.number: dict[Rule, int] = {}
        for number, rule in enumerate(self.live):
            self.number[rule] = number
            if rule.mode == "on":
                taken = self.boxes(rule, "yes" if rule.skip_unknown else "not no")
                boxes.extend((box, number) for box in taken)
            if len(boxes) > _MOST_BOXES:
                raise OutOfBudget
        self.space = Space([len(axis.cells) for axis in self.axes], boxes)
        self.before: list[int] = [self.space.of(())]
        for number in range(len(self.live)):
            self.before.append(self.before[-1] | self.space.of((number,)))

    def _add(self, name: str, cells: list[object]) -> _Axis:
        axis = _Axis(name, len(self.axes), cells)
        for number, cell in enumerate(cells):
            spelled: Iterable[object] = (cell,)
            if name in FIELDS and FIELDS[name].kind == "text":
                spelled = {each.casefold() for each in _texts(cell)}
            for each in spelled:
                axis.spelled[each] = axis.spelled.get(each, 0) | 1 << number
        self.axes.append(axis)
        self.by_name[name] = axis
        return axis

    def _cells(self, kind: Field, tests: Sequence[Test]) -> list[object]:
        name = kind.name
        values: list[object]
        if kind.kind == "enum":
            values = list(kind.values)
        elif kind.kind == "yesno":
            values = [True, False]
        elif kind.kind == "number":
            values = list(_numbers({n for t in tests for n in (*t.values, *(b for _, b in t.bounds))}))  # type: ignore[misc]  # numbers only
        else:
            values = self._texts(kind, tests)
        unknown = [UNKNOWN] if name in self.unknown else []
        if name in WHEN_ABSENT:
            usual = WHEN_ABSENT[name]
            return [usual, *(v for v in values if v != usual), *unknown]
        return [*values, None, *unknown] if name in _PLAIN else [None, *values, *unknown]

    def _texts(self, kind: Field, tests: Sequence[Test]) -> list[object]:
        known: dict[str, str] = {}
        for test in tests:
            words = test.words if isinstance(test.words, tuple) else (test.words,)
            for word in words:
                if isinstance(word, str):
                    # The one text that means something else in a test file.
                    word = word.lower() if kind.name == "sender" else word
                    known.setdefault(word.casefold(), "Unknown" if word == "unknown" else word)
        spellings: dict[object, None] = dict.fromkeys(known.values())
        if kind.name == "ward":
            for ward in self.wards:
                if len(ward) > 1 and any(each.casefold() in known for each in ward):
                    spellings[tuple(sorted(ward))] = None
        other = _OTHER.get(kind.name, "autre")
        while other.casefold() in known:
            other += "-x"
        return [*spellings, other]

    def _keywords(self, tests: Sequence[Test]) -> None:
        """One axis a keyword, and one for each list of several, bound together."""
        unknown = [UNKNOWN] if "mentions" in self.unknown else []
        for word in sorted({str(word) for test in tests for word in test.values}):
            self._add(_spoken(word), [False, True, *unknown])
        for several in sorted({tuple(sorted(map(str, t.values))) for t in tests if len(t.values) > 1}):
            joint = self._add(_spoken(*several), [False, True, *unknown])
            members = [self.by_name[_spoken(word)].number for word in several]
            self.links.append({joint.number: 2, **dict.fromkeys(members, 1)})
            self.links += [{joint.number: 1, each: 2} for each in members]

    # -- the instant

    def _time(
        self, rules: RuleSet, names: Sequence[str], spans: set[tuple[date | None, date | None]]
    ) -> None:
        hours = [rules.hours[name] for name in names]
        edges = sorted(
            {d for start, until in spans for d in (start, until and until + timedelta(days=1)) if d}
        )
        cells: dict[tuple[tuple[bool, ...], int], datetime] = {}
        for signature, instant in _instants(rules, hours, edges, every=self.century):
            cells.setdefault(signature, instant)
        axis = self._add("at", list(cells.values()))
        full = axis.full
        for place, name in enumerate(names):
            opened = sum(1 << n for n, (states, _) in enumerate(cells) if states[place])
            self.literals["during", name] = _Literal(axis.number, opened, full & ~opened)
        days = [instant.date() for instant in cells.values()]
        for start, until in spans:
            inside = sum(1 << n for n, day in enumerate(days) if (start or day) <= day <= (until or day))
            self.literals["span", start, until] = _Literal(axis.number, inside, full & ~inside)

    # -- patterns

    def _patterns(self, tests: Mapping[str, Sequence[Test]]) -> None:
        """One axis a pattern, bound to the texts that are written in one way only."""
        for name, listed in tests.items():
            patterns = {
                test.words["matches"]: test.pattern
                for test in listed
                if test.pattern is not None and isinstance(test.words, Mapping)
            }
            if not patterns:
                continue
            axis = self.by_name[name]
            written = [number for number, cell in enumerate(axis.cells) if _texts(cell)]
            # The last is any text that no rule names; the others may come in whatever case.
            other = written[-1]
            loose = frozenset(n for n in written if n == other or not _one_way(name, axis.cells[n]))
            unknown = 1 << axis.cells.index(UNKNOWN) if UNKNOWN in axis.cells else 0
            own: dict[str, int] = {}
            for words, pattern in patterns.items():
                truth = self._add(f"{name} ~ {words}", [False, True, *([UNKNOWN] if unknown else [])])
                own[words] = truth.number
                sure = [0, 0]
                for cell, text in enumerate(axis.cells):
                    if cell not in loose and text is not UNKNOWN:
                        sure[any(pattern.search(each) for each in _texts(text))] |= 1 << cell
                for found, cells in enumerate(sure):
                    self.links.append({axis.number: cells, truth.number: truth.full & ~(1 << found)})
                if unknown:
                    self.links.append({axis.number: unknown, truth.number: 3})
                    self.links.append({axis.number: axis.full & ~unknown, truth.number: 4})
                self.literals[name, words] = _Literal(truth.number, 2, 1)
            self.patterned.append(_Patterned(axis, loose, other, sum(1 << n for n in written), own))
        self.links = [link for link in self.links if all(link.values())]

    # -- rules as boxes

    def literal(self, test: Test) -> _Literal:
        """A test as cells of one axis."""
        if test.during is not None:
            return self.literals["during", test.during]
        words = test.words["matches"] if isinstance(test.words, Mapping) and test.pattern is not None else ""
        key: object = (test.field, words or (test.values, test.bounds))
        found = self.literals.get(key)
        if found is None:
            found = self.literals[key] = self._literal(test)
        return found

    def _literal(self, test: Test) -> _Literal:
        if test.field == "mentions":
            return _Literal(self.by_name[_spoken(*sorted(map(str, test.values)))].number, 2, 1)
        axis = self.by_name[test.field]
        yes = _between_bounds(axis.cells, test.bounds) if test.bounds else axis.mask(test.values)
        unknown = 1 << axis.cells.index(UNKNOWN) if UNKNOWN in axis.cells else 0
        return _Literal(axis.number, yes, axis.full & ~yes & ~unknown)

    def boxes(self, entry: Rule | Copy, truth: str) -> _Boxes:
        """Where an entry is in force and its `when` a sure `yes`, or `not no`: yes or undecided."""
        sure = truth == "yes"
        base: dict[int, int] = {}
        if entry.start or entry.until:
            span = self.literals["span", entry.start, entry.until]
            base[span.axis] = span.yes
        when = entry.when
        for test in (*when.tests, *(t for group in when.all_of or () for t in group)):
            self._narrow(base, self.literal(test), negated=False, sure=sure)
        found = [base]
        if when.any_of is not None:
            found = [self._narrowed(box, group, sure=sure) for box in found for group in when.any_of]
        if when.unless is not None:
            found = [
                self._narrow(dict(box), self.literal(test), negated=True, sure=sure)
                for box in found
                for test in when.unless
            ]
        return [box for box in found if all(box.values())]

    def _narrowed(self, box: dict[int, int], group: Iterable[Test], *, sure: bool) -> dict[int, int]:
        box = dict(box)
        for test in group:
            self._narrow(box, self.literal(test), negated=False, sure=sure)
        return box

    def _narrow(self, box: dict[int, int], literal: _Literal, *, negated: bool, sure: bool) -> dict[int, int]:
        wanted, other = (literal.no, literal.yes) if negated else (literal.yes, literal.no)
        full = self.axes[literal.axis].full
        box[literal.axis] = box.get(literal.axis, full) & (wanted if sure else full & ~other)
        return box

    def worlds(self, boxes: _Boxes) -> Iterator[dict[int, int]]:
        """The boxes where all keywords are known, then those where none is."""
        spoken = [axis for axis in self.axes if axis.name.startswith(_SPOKEN)]
        for mask in (3, 4) if "mentions" in self.unknown else (3,):
            for box in boxes:
                narrowed = dict(box)
                for axis in spoken:
                    narrowed[axis.number] = narrowed.get(axis.number, axis.full) & mask
                if all(narrowed.values()):
                    yield narrowed

    def witness(self, point: Sequence[int]) -> Witness | None:
        """The facts of a point; None when there are none, and that is now known to the space.

        Raises Unsupported when that can't be told.
        """
        at = datetime.combine(USUAL_DAY, _MORNING, tzinfo=self.zone)
        facts: dict[str, FactValue] = {}
        said: set[str] = set()
        for axis, cell in zip(self.axes, point, strict=True):
            value = axis.cells[cell]
            if axis.name == "at":
                assert isinstance(value, datetime)  # noqa: S101 - what `_time` put there
                at = value
            elif axis.name.startswith(_SPOKEN):
                words = axis.name.split(_APART)[1:]
                if value is UNKNOWN:
                    facts["mentions"] = UNKNOWN
                elif value and len(words) == 1:
                    said.add(words[0])
            elif axis.name in FIELDS and value is not None and value != WHEN_ABSENT.get(axis.name):
                facts[axis.name] = frozenset(value) if isinstance(value, tuple) else value  # type: ignore[assignment]  # a cell of that field
        if said:
            facts["mentions"] = frozenset(said)
        for each in self.patterned:
            cell = point[each.axis.number]
            if cell in each.loose:
                wanted = {words: bool(point[number]) for words, number in each.own.items()}
                text = each.text(cell, wanted)
                if text is None:
                    self.space.forbid(each.conflict(cell, wanted))
                    return None
                facts[each.axis.name] = text
        return Witness(at, facts)

    def is_timed(self, entry: Rule | Copy) -> bool:
        """Whether the instant matters to a rule or copy."""
        return bool(entry.start or entry.until or any(test.during for test in entry.when.every_test()))

    def plain(self, box: dict[int, int]) -> dict[int, int]:
        """The part of a box where a letter is an ordinary one, or the box itself."""
        narrowed = dict(box)
        for name in _PLAIN:
            axis = self.by_name[name]
            first = narrowed.get(axis.number, axis.full) & 1
            if first:
                narrowed[axis.number] = first
        return narrowed


# -- the proof


class _Proof:
    """The answers about one rule set, as they are asked for. It must not hold the set: it lives as long as that."""

    def __init__(self, rules: RuleSet) -> None:
        self._answers: dict[Rule | Copy | None, Answer] = {}
        self._models: dict[bool, _Model | None] = {}
        self._left = _ALL_STEPS + _STEPS_A_RULE * len(rules.rules)

    def _model(self, rules: RuleSet, *, century: bool) -> _Model | None:
        if century not in self._models:
            try:
                self._models[century] = _Model(rules, century=century)
            except OutOfBudget:
                self._models[century] = None
        return self._models[century]

    def answer(self, rules: RuleSet, entry: Rule | Copy | None) -> Answer:
        """See the function of that name."""
        if entry not in self._answers:
            try:
                self._answers[entry] = self._answer(rules, entry)
            except (OutOfBudget, Unsupported):
                self._answers[entry] = None
        return self._answers[entry]

    def _answer(self, rules: RuleSet, entry: Rule | Copy | None) -> Answer:
        model = self._model(rules, century=False)
        if model is None or (entry is not None and entry.mode == "off"):
            return None
        found = self._ask(rules, model, entry)
        if isinstance(found, Dead) and any(
            map(model.is_timed, found.by or (() if entry is None else (entry,)))
        ):
            # What two years don't reach, others may.
            model = self._model(rules, century=True)
            found = self._ask(rules, model, entry) if model is not None else None
        return found

    def _ask(self, rules: RuleSet, model: _Model, entry: Rule | Copy | None) -> Answer:
        floored = False
        boxes: _Boxes
        among = model.before[-1]
        if entry is None:
            boxes = [{}]
        else:
            boxes = model.boxes(entry, "yes")
            if isinstance(entry, Copy):
                among = model.before[0]
                free = [box for each in boxes if (box := self._floored(rules, model, entry, each))]
                floored = bool(boxes) and not free
                boxes = free
            else:
                among = model.before[model.number[entry]]
        boxes = list(model.worlds(boxes))
        proofs: list[Covered] = []
        for box in boxes:
            found = self._find(model, model.plain(box), among)
            if isinstance(found, Covered):
                found = self._find(model, box, among)
            if isinstance(found, Covered):
                proofs.append(found)
                continue
            name = "default" if entry is None else entry.id
            confirmed = name in reached(decide(rules, found.facts, found.at))
            return found if confirmed else None
        return Dead(self._cover(model, boxes, proofs), floored)

    def _find(self, model: _Model, box: Box, among: int) -> Witness | Covered:
        """The facts of a point in a box and outside others, or the proof of none."""
        for _ in range(_IMPOSSIBLE):
            point = self._outside(model, box, among)
            found = point if isinstance(point, Covered) else model.witness(point)
            if found is not None:
                return found
        raise OutOfBudget

    def _outside(self, model: _Model, box: Box, among: int) -> tuple[int, ...] | Covered:
        steps = min(_STEPS, max(self._left, _FEW_STEPS))
        try:
            return model.space.outside(box, among | model.space.of(()), steps)
        finally:
            self._left -= steps - max(model.space.left, 0)

    def _floored(
        self, rules: RuleSet, model: _Model, copy: Copy, box: dict[int, int]
    ) -> dict[int, int] | None:
        """The part of a box where no floor forbids a copy."""
        asked = {"identity": ("qualified", "validated", "provisional", None), "consent": ("allowed",)}
        if rules.targets[copy.target].is_gp:
            asked["gp"] = ("found",)
        narrowed = dict(box)
        for name, wanted in asked.items():
            axis = model.by_name[name]
            narrowed[axis.number] = narrowed.get(axis.number, axis.full) & axis.mask(wanted)
        return narrowed if all(narrowed.values()) else None

    def _cover(self, model: _Model, boxes: _Boxes, proofs: Sequence[Covered]) -> tuple[Rule, ...]:
        """Rules that together take all of the boxes, none of which can be spared."""
        used = {number for proof in proofs for number in bits(proof.owners)}
        # What no text can be, say a ward's name that lacks its own letters, needs no rule to take it.
        if not used or self._take(model, boxes, ()):
            return ()
        first = model.space.covering(boxes[0], model.before[max(used) + 1])
        for alone in (*(() if first is None else (first,)), *sorted(used)):
            if self._take(model, boxes, [alone]):
                return (model.live[alone],)
        for number in sorted(used, reverse=True):
            if self._take(model, boxes, used - {number}):
                used -= {number}
        return tuple(model.live[number] for number in sorted(used))

    def _take(self, model: _Model, boxes: _Boxes, owners: Iterable[int]) -> bool:
        among = model.space.of(owners)
        try:
            return all(isinstance(self._find(model, box, among), Covered) for box in boxes)
        except (OutOfBudget, Unsupported):
            return False


_PROOFS: Final[WeakKeyDictionary[RuleSet, _Proof]] = WeakKeyDictionary()


# -- cells


def _numbers(named: set[float]) -> Iterator[float]:
    """The numbers rules name, and one between each two and beyond them, as few decimals as it takes."""
    ordered = sorted(named)
    if not ordered:
        return
    for low, high in zip([None, *ordered], [*ordered, None], strict=True):
        between = _between(low, high)
        if between is not None:
            yield int(between) if between == int(between) else between
        if high is not None:
            yield int(high) if high == int(high) else high


def _between(low: float | None, high: float | None) -> float | None:
    if low is None:
        return None if high is None else high - 1
    if high is None:
        return low + 1
    for digits in range(7):
        step = 10.0**-digits
        near = round(low + step, digits)
        if low < near < high and as_number(f"{near:.{digits}f}") == near:
            return near
    middle = (low + high) / 2
    return middle if low < middle < high else None


def _between_bounds(cells: Sequence[object], bounds: Iterable[tuple[str, float]]) -> int:
    """The cells of a number's axis within bounds: numbers stand in order, behind absent and before unknown."""
    numbers = [cell for cell in cells if isinstance(cell, int | float)]
    low, high = 0, len(numbers)
    for sign, bound in bounds:
        if sign in ("gte", "gt"):
            low = max(low, (bisect_left if sign == "gte" else bisect_right)(numbers, bound))
        else:
            high = min(high, (bisect_right if sign == "lte" else bisect_left)(numbers, bound))
    return ((1 << high) - (1 << low)) << 1 if low < high else 0


def _spoken(*words: str) -> str:
    """The name of the axis of a keyword, or of several of which one is enough."""
    return _APART.join(("mentions", *words))


def _texts(cell: object) -> tuple[str, ...]:
    return cell if isinstance(cell, tuple) else (cell,) if isinstance(cell, str) else ()


def _one_way(name: str, cell: object) -> bool:
    """Whether a text can be written in one way only: a sender is lower case, a code has no letters.

    Several spellings together are those of the configuration.
    """
    return (
        name == "sender"
        or isinstance(cell, tuple)
        or all(each.casefold() == each.upper() for each in _texts(cell))
    )


# -- instants


def _instants(
    rules: RuleSet, hours: Sequence[Hours], edges: Sequence[date], *, every: bool
) -> Iterator[tuple[tuple[tuple[bool, ...], int], datetime]]:
    """Instants, with which hours are open then and between which dates of rules they lie; the usual first."""
    zone = rules.zone
    seen: set[object] = set()

    def shape(day: date) -> tuple[object, ...]:
        """What makes one day like another: its offset at the beginning, and when which hours are open."""
        offset = datetime.combine(day, time(), tzinfo=zone).utcoffset()
        return offset, *(each.windows(day) for each in hours)

    before: date | None = None
    known: tuple[tuple[object, ...], tuple[object, ...]] = ((), ())
    for day in _days(edges, hours, every=every):
        near = [day - timedelta(days=1), day, day + timedelta(days=1)]
        one, two = known if before == near[0] else (shape(near[0]), shape(near[1]))
        three = shape(near[2])
        before, known = day, (two, three)
        place = bisect_right(edges, day)
        key = one, two, three[0], place
        if key in seen:
            continue
        seen.add(key)
        midnight = datetime.combine(day, time(), tzinfo=zone)
        start = midnight.astimezone(UTC)
        end = datetime.combine(near[2], time(), tzinfo=zone).astimezone(UTC)
        changes = {
            instant
            for each in hours
            for other in near[:2]
            for interval in each.intervals(other)
            for instant in interval
            if start < instant < end
        }
        morning = datetime.combine(day, _MORNING, tzinfo=zone).astimezone(UTC)
        for instant in (morning, *sorted(changes), start):
            signature = (tuple(each.open_at(instant) for each in hours), place)
            yield signature, instant.astimezone(zone)


def _days(edges: Sequence[date], hours: Sequence[Hours], *, every: bool) -> Iterator[date]:
    yield USUAL_DAY
    special = {day for each in hours for day in each.exceptions}
    for edge in (*edges, *sorted(special)):
        for number in (-1, 0, 1):
            day = edge + timedelta(days=number)
            if _FIRST <= day <= _LAST:
                yield day
    if hours or every:
        # What is to come is looked at first: nobody tests rules with what was decades ago.
        ahead = (_LAST - USUAL_DAY).days if every else _NEAR_DAYS
        behind = (USUAL_DAY - _FIRST).days if every else 0
        for number in (*range(ahead + 1), *range(-behind, 0)):
            yield USUAL_DAY + timedelta(days=number)
