"""Reading conditions: `when` with its `any`, `all` and `unless`, each test typed by its field."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from rules.facts import FIELDS, NEEDS_SOMEBODY, Field, as_number, typed
from rules.keywords import compile_pattern
from rules.nodes import HOURS, KEYWORDS, Entries, Reader, whole
from rules.ruleset import Site, Test, When
from rules.source import Listing, Node, Report, Scalar, Table, shown
from rules.words import said_of_pattern

if TYPE_CHECKING:
    from collections.abc import Iterable

COMPARISONS: Final = ("gte", "lte", "lt", "gt")
Names: TypeAlias = Mapping[str, None]
"""Names of one kind in the order of the file: thousands are looked up as quickly as a few."""
NESTED: Final = ("any", "all", "unless")
CURLY: Final = "“”„«»‘’‚ \xa0\u202f"


class ConditionReader(Reader):
    """Reads what a rule asks of the facts; the names it may use are those of the file and of the site."""

    def __init__(self, report: Report, site: Site | None) -> None:
        super().__init__(report)
        self.site = site
        named: dict[str, Iterable[str]] = (
            {} if site is None else {"ward": site.wards, "mailbox": site.adapters}
        )
        self._known = {of: (sorted(each), {name.casefold() for name in each}) for of, each in named.items()}
        self.hours_names: Names = {}
        self.keyword_names: Names = {}

    def when(self, at: Scalar, found: Entries) -> When | None:
        """The `when` among a rule's entries; `at` is where a missing one is told."""
        key, node = found.get("when", (at, Scalar(at.line, at.column, "")))
        if (isinstance(node, Scalar) and node.empty) or (isinstance(node, Table) and not node.entries):
            self.tell("when_empty", key)
            return None
        entries = self.table(node, "when", (*FIELDS, "during", *NESTED))
        if entries is None:
            return None
        tests: list[Test | None] = []
        groups: dict[str, list[tuple[Test, ...] | None]] = {}
        for name, (place, value) in entries.items():
            if name == "unless":
                groups[name] = [self._conjunction(value, name)]
            elif name in NESTED and isinstance(value, Listing) and value.items:
                groups[name] = [self._conjunction(item, name) for item in value.items]
            elif name in NESTED:
                self.tell("no_conditions", value, of=name)
                groups[name] = [None]
            else:
                tests.append(self._test(name, place, value))
        good = [test for test in tests if test is not None]
        sound = {name: tuple(g for g in group if g is not None) for name, group in groups.items()}
        complete = len(good) == len(tests) and all(len(sound[name]) == len(groups[name]) for name in groups)
        if not complete or not entries:
            return None
        unless = sound["unless"][0] if "unless" in sound else None
        return When(tuple(good), sound.get("any"), sound.get("all"), unless)

    def _conjunction(self, node: Node, of: str) -> tuple[Test, ...] | None:
        if isinstance(node, Table):
            deeper = [key for key, _ in node.entries if key.text in NESTED]
            for key in deeper:
                self.tell("too_nested", key, word=key.text, of=of)
            if not node.entries:
                self.tell("condition_empty", node, of=of)
            if deeper or not node.entries:
                return None
        entries = self.table(node, of, (*FIELDS, "during"))
        if entries is None:
            return None
        tests = [self._test(name, place, value) for name, (place, value) in entries.items()]
        good = tuple(test for test in tests if test is not None)
        return good if isinstance(node, Table) and len(good) == len(node.entries) else None

    def _test(self, name: str, key: Scalar, node: Node) -> Test | None:
        if name == "during":
            hours = self.hours_name(node, "during")
            return Test(name, key.line, key.column, hours, during=hours) if hours else None
        entry = FIELDS[name]
        if isinstance(node, Table):
            return self._compared(entry, key, node)
        scalars = self.words(node, name)
        values = [value for scalar in scalars if (value := self._value(entry, scalar)) is not None]
        asked = len(node.items) if isinstance(node, Listing) else 1
        if not values or len(values) != asked:
            return None
        words = tuple(scalar.text for scalar in scalars)
        written = words[0] if isinstance(node, Scalar) else words
        return Test(name, key.line, key.column, written, frozenset(values))

    def _value(self, entry: Field, scalar: Scalar) -> str | bool | float | None:
        value = typed(entry, scalar.text)
        if value is None:
            self._wrong_value(entry, scalar)
            return None
        if entry.name == "mentions" and scalar.text not in self.keyword_names:
            self.undefined(scalar, KEYWORDS, self.keyword_names)
            return None
        names, folded = self._known.get(entry.name, ((), ()))
        if names and scalar.text.casefold() not in folded:
            self.unknown_value(scalar, entry.name, names)
            return None
        if entry.kind == "text":
            self._never_met(entry, scalar)
        return value

    def _never_met(self, entry: Field, scalar: Scalar) -> None:
        """W308, for what a word processor or another program's habits make of a text."""
        bare = scalar.text.strip(CURLY)
        if bare and scalar.text[0] in CURLY and scalar.text[-1] in CURLY:
            self.tell("curly_quotes", scalar, bare, word=shown(scalar.text))
        elif "*" in scalar.text and entry.name in ("sender", "mailbox"):
            parts = [re.escape(part) for part in scalar.text.split("*")]
            pattern = ".*".join(["^" + parts[0], *parts[1:-1], parts[-1] + "$"])
            pattern = pattern.removeprefix("^.*").removesuffix(".*$").removeprefix("$") or "."
            self.tell("star", scalar, word=shown(scalar.text), of=entry.name, pattern=shown(pattern))

    def _wrong_value(self, entry: Field, scalar: Scalar) -> None:
        if scalar.text == "unknown":
            self.tell("unknown_matched", scalar, of=entry.name)
        elif entry.kind == "number":
            self.tell("no_number", scalar, word=shown(scalar.text), of=entry.name)
        else:
            self.unknown_value(scalar, entry.name, entry.values or ("yes", "no"))

    def _compared(self, entry: Field, key: Scalar, node: Table) -> Test | None:
        signs: tuple[str, ...] = {"number": COMPARISONS, "text": ("matches",)}.get(entry.kind, ())
        if not signs:
            self.tell("no_comparison", node, of=entry.name)
            return None
        found = self.table(node, entry.name, signs)
        if not node.entries:
            self.missing(node, signs[0], entry.name, f"{signs[0]}: …")
        if not found or not whole(node, found):
            return None
        words: dict[str, str] = {}
        bounds: list[tuple[str, float]] = []
        pattern: Any = None
        for sign, (_, value) in found.items():
            scalar = self.word(value, sign)
            if scalar is None:
                return None
            words[sign] = scalar.text
            if sign == "matches":
                pattern = self.pattern(scalar)
                if pattern is None:
                    return None
                continue
            number = as_number(scalar.text)
            if number is None:
                self._wrong_value(entry, scalar)
                return None
            bounds.append((sign, number))
        return Test(entry.name, key.line, key.column, words, bounds=tuple(bounds), pattern=pattern)

    def hours_name(self, node: Node, of: str) -> str | None:
        """The name of hours that the file has; another is E110."""
        found = self.word(node, of)
        if found is not None and found.text not in self.hours_names:
            self.undefined(found, HOURS, self.hours_names)
            return None
        return found.text if found is not None else None

    def pattern(self, scalar: Scalar, *, fold_case: bool = False) -> Any:  # google-re2 has no types
        """A compiled RE2 expression; what is none is E113, with what RE2 objects to."""
        try:
            return compile_pattern(scalar.text, fold_case=fold_case)
        except ValueError as error:
            self.tell("pattern", scalar, word=shown(scalar.text), problem=said_of_pattern(shown(str(error))))
            return None


def takes_discharges(when: When) -> bool:
    """Whether an event that needs somebody could satisfy a `when`, its other fields being anything."""
    return any(_possible(when, event) for event in NEEDS_SOMEBODY)


def _possible(when: When, event: str) -> bool:
    """Whether `when` can be true with that event."""

    def can_hold(test: Test) -> bool:
        return test.field != "event" or event in test.values

    def can_fail(test: Test) -> bool:
        return test.field != "event" or event not in test.values

    return (
        all(map(can_hold, when.tests))
        and (when.any_of is None or any(all(map(can_hold, group)) for group in when.any_of))
        and all(all(map(can_hold, group)) for group in when.all_of or ())
        and (when.unless is None or any(map(can_fail, when.unless)))
    )
