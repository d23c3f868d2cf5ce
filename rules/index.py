"""Which rules are worth asking: an index over a rule set that passes over those that are a sure no.

The plain engine asks every rule, in file order. This names the few that could be anything but a sure no, by one
table per field: value → rules that accept it. What it leaves out would have said no, so the answer is the same.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rules.facts import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rules.ruleset import Test, When

_CELLS: Final = 100_000
"""How many pairs of a bound and a condition a field's table may stand for; beyond, its comparisons are asked one by one."""


class Index:
    """Entries by number, in the order of their `when`s. A set of entries is an int with one bit for each.

    Built in about 5 µs for each rule; takes up to a bit per rule and value that rules name.
    """

    def __init__(self, whens: Sequence[When]) -> None:
        self.all: Final = (1 << len(whens)) - 1
        listed: dict[str, list[tuple[int, tuple[Test, ...]]]] = {}
        for number, when in enumerate(whens):
            for name, alternatives in _constraints(when).items():
                listed.setdefault(name, []).append((number, alternatives))
        tables = [_Table(name, entries, len(whens)) for name, entries in listed.items()]
        # The most selective first: the sets it leaves are short, and the rest is done on them.
        self.tables: Final = tuple(sorted(tables, key=lambda table: (table.breadth, table.name)))

    def possible(self, values: Mapping[str, object]) -> int:
        """The entries that are no sure no, and perhaps some that are. `values` as matchers compare them."""
        alive = self.all
        for table in self.tables:
            alive &= table.accepting(values.get(table.name))
            if not alive:
                break
        return alive


class _Table:
    """The entries whose conjunction demands something of one field."""

    __slots__ = ("_bounds", "_cells", "_exact", "_free", "_otherwise", "_points", "breadth", "name")

    def __init__(self, name: str, entries: Sequence[tuple[int, tuple[Test, ...]]], total: int) -> None:
        self.name = name
        exact: dict[object, list[int]] = {}
        present: list[int] = []
        bounded: dict[tuple[tuple[str, float], ...], list[int]] = {}
        for number, alternatives in entries:
            for test in alternatives:
                if test.bounds:
                    bounded.setdefault(test.bounds, []).append(number)
                elif test.values:
                    for value in test.values:
                        exact.setdefault(value, []).append(number)
                else:
                    present.append(number)
        points = sorted({bound for bounds in bounded for _, bound in bounds})
        if len(points) * len(bounded) > _CELLS:
            present += [number for numbers in bounded.values() for number in numbers]
            bounded, points = {}, []
        self._free = ((1 << total) - 1) & ~_mask([number for number, _ in entries])
        # What stands there but is none of the listed values: patterns may like it, others don't.
        self._otherwise = self._free | _mask(present)
        self._exact = {value: _mask(numbers) for value, numbers in exact.items()}
        self._bounds = tuple((bounds, _mask(numbers)) for bounds, numbers in bounded.items())
        self._points: Sequence[float] = points
        self._cells: dict[int, int] = {}
        share = sum(map(len, exact.values())) / max(len(exact), 1) + len(present) + total - len(entries)
        self.breadth = share + sum(map(len, bounded.values())) / 2

    def accepting(self, value: object) -> int:
        """The entries that this value may satisfy, or leave undecided."""
        if value is None:
            return self._free
        if value is UNKNOWN:
            return -1
        found = self._otherwise
        if isinstance(value, frozenset):
            for each in value:
                found |= self._exact.get(each, 0)
            return found
        found |= self._exact.get(value, 0)
        if self._bounds and isinstance(value, int | float):
            found |= self._compared(value)
        return found

    def _compared(self, value: float) -> int:
        """The entries one of whose comparisons this number satisfies; worked out once between two bounds."""
        place = bisect_left(self._points, value)
        cell = 2 * place + (place < len(self._points) and self._points[place] == value)
        known = self._cells.get(cell)
        if known is None:
            known = 0
            for bounds, entries in self._bounds:
                if all(within(value, sign, bound) for sign, bound in bounds):
                    known |= entries
            self._cells[cell] = known
        return known


def within(value: float, sign: str, bound: float) -> bool:
    """Whether a number satisfies one comparison: `gte`, `lte`, `lt` or `gt`."""
    if sign == "gte":
        return value >= bound
    if sign == "lte":
        return value <= bound
    return value < bound if sign == "lt" else value > bound


def _constraints(when: When) -> Mapping[str, tuple[Test, ...]]:
    """By field, tests of which one must hold for the whole to hold; of several such lists the shortest.

    `any` demands something of a field only where each of its groups does; `unless` demands nothing.
    """
    found: dict[str, tuple[Test, ...]] = {}

    def demands(name: str, alternatives: tuple[Test, ...]) -> None:
        if name != "during" and (name not in found or _breadth(alternatives) < _breadth(found[name])):
            found[name] = alternatives

    for test in (*when.tests, *(test for group in when.all_of or () for test in group)):
        demands(test.field, (test,))
    if when.any_of:
        first, *others = ({test.field: test for test in group} for group in when.any_of)
        for name in first:
            if all(name in other for other in others):
                demands(name, (first[name], *(other[name] for other in others)))
    return found


def _breadth(alternatives: Iterable[Test]) -> int:
    return sum(len(test.values) or 100 for test in alternatives)


def _mask(numbers: Sequence[int]) -> int:
    """The set of these entries."""
    if not numbers:
        return 0
    bits = bytearray(max(numbers) // 8 + 1)
    for number in numbers:
        bits[number >> 3] |= 1 << (number & 7)
    return int.from_bytes(bits, "little")
