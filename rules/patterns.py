"""Texts that match some patterns and not others, or that there are none: what `matches` can mean, decided.

A pattern is read as RE2 reads it (github.com/google/re2/wiki/Syntax) into a small machine; texts are searched
for shortest first, in all machines at once, one letter standing for all that no machine tells apart. What RE2
knows and this does not (scripts such as `\\p{Greek}`, wide classes without case) raises Unsupported.
"""

from __future__ import annotations

import string
import unicodedata
from collections import deque
from collections.abc import Mapping
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Code points as sorted, disjoint, inclusive ranges."""

_LAST: Final = 0x10FFFF
_ASSIGNED: Final = 0x323B0
_ANY: Final[Ranges] = ((0, _LAST),)
_DIGITS: Final[Ranges] = ((48, 57),)
_SPACES: Final[Ranges] = ((9, 10), (12, 13), (32, 32))
_WORD: Final[Ranges] = ((48, 57), (65, 90), (95, 95), (97, 122))
_LINE: Final[Ranges] = ((10, 10),)
_PERL: Final[Mapping[str, Ranges]] = {"d": _DIGITS, "s": _SPACES, "w": _WORD}
_POSIX: Final[Mapping[str, str]] = {
    "alnum": string.ascii_letters + string.digits, "alpha": string.ascii_letters, "digit": string.digits,
    "lower": string.ascii_lowercase, "upper": string.ascii_uppercase, "xdigit": string.hexdigits,
    "punct": string.punctuation, "space": " \t\n\v\f\r", "blank": " \t",
    "word": string.ascii_letters + string.digits + "_",
}  # fmt: skip
_CONTROLS: Final[Mapping[str, int]] = {"n": 10, "t": 9, "r": 13, "f": 12, "v": 11, "a": 7}
_LARGEST: Final = 3_000
_DEEPEST: Final = 40
_MOST_VISITS: Final = 20_000
_MOST_MOVES: Final = 500_000


class Unsupported(Exception):
    """A pattern, or a question, that is not decided here."""


# -- sets of code points


def _union(parts: Iterable[tuple[int, int]]) -> Ranges:
    joined: list[tuple[int, int]] = []
    for low, high in sorted(parts):
        if joined and low <= joined[-1][1] + 1:
            joined[-1] = joined[-1][0], max(high, joined[-1][1])
        else:
            joined.append((low, high))
    return tuple(joined)


def _all_but(ranges: Ranges) -> Ranges:
    edges = [-1, *(edge for low, high in ranges for edge in (low - 1, high + 1)), _LAST]
    pairs = [(-1 + 1, edges[1])] if ranges else [(0, _LAST)]
    pairs += [(edges[n], edges[n + 1]) for n in range(2, len(edges) - 1, 2)]
    return tuple((low, high) for low, high in pairs if low <= high)


def _of(text: str) -> Ranges:
    return _union((ord(letter), ord(letter)) for letter in text)


@lru_cache(maxsize=1)
def _unfolded() -> Mapping[str, tuple[str, ...]]:
    """Case-folded text → the single letters that fold to it, itself among them where it is one."""
    found: dict[str, list[str]] = {}
    for code in range(_ASSIGNED):
        letter = chr(code)
        folded = letter.casefold()
        if folded != letter:
            found.setdefault(folded, []).append(letter)
    return {folded: tuple(letters) for folded, letters in found.items()}


def _any_case(ranges: Ranges) -> Ranges:
    if sum(high - low + 1 for low, high in ranges) > _LARGEST:
        raise Unsupported
    letters = {chr(code) for low, high in ranges for code in range(low, high + 1)}
    folded = {f for f in (letter.casefold() for letter in letters) if len(f) == 1}
    return _of("".join(letters | folded | {u for f in folded for u in _unfolded().get(f, ())}))


@lru_cache(maxsize=64)
def _category(name: str) -> Ranges:
    codes = [code for code in range(_ASSIGNED) if unicodedata.category(chr(code)).startswith(name)]
    if not codes or len(name) > 2:
        raise Unsupported
    return _union((code, code) for code in codes)


def _has(ranges: Ranges, code: int) -> bool:
    return any(low <= code <= high for low, high in ranges)


# -- a pattern as a machine


class Machine:
    """One pattern, as what it searches for. Raises Unsupported. States are opaque and can be compared."""

    def __init__(self, pattern: str) -> None:
        self.classes: set[Ranges] = set()
        self._steps: list[tuple[str, object, object]] = []
        self._text, self._at, self._depth = pattern, 0, 0
        self._flags = {"i": False, "s": False, "m": False}
        self._start = self._emit("jump")
        first = self._either()
        if self._at < len(self._text):
            raise Unsupported
        self._steps[self._start] = ("jump", first[0], None)
        self._patch(first[1], self._emit("match"))
        self._edged = any(step[0] == "edge" for step in self._steps)
        if self._edged:
            self.classes |= {_WORD, _LINE}
        self._moves: dict[tuple[object, int], object] = {}
        self.begin: object = (frozenset({self._start}), "")

    # -- reading

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, word: str) -> bool:
        if self._text.startswith(word, self._at):
            self._at += len(word)
            return True
        return False

    def _until(self, end: str) -> str:
        stop = self._text.find(end, self._at)
        if stop < 0:
            raise Unsupported
        found, self._at = self._text[self._at : stop], stop + len(end)
        return found

    def _emit(self, kind: str, one: object = None, two: object = None) -> int:
        if len(self._steps) > _LARGEST:
            raise Unsupported
        self._steps.append((kind, one, two))
        return len(self._steps) - 1

    def _patch(self, ends: list[int], to: int) -> None:
        for number in ends:
            kind, one, two = self._steps[number]
            self._steps[number] = (kind, to, two) if one is None else (kind, one, to)

    # Each reader gives where a part begins, and the steps whose way out is still open.

    def _either(self) -> tuple[int, list[int]]:
        begin, ends = self._sequence()
        while self._take("|"):
            other, more = self._sequence()
            begin, ends = self._emit("split", begin, other), [*ends, *more]
        return begin, ends

    def _sequence(self) -> tuple[int, list[int]]:
        begin = self._emit("jump")
        ends = [begin]
        while self._peek() not in ("", "|", ")"):
            part = self._repeated()
            self._patch(ends, part[0])
            ends = part[1]
        return begin, ends

    def _repeated(self) -> tuple[int, list[int]]:
        at, flags = self._at, dict(self._flags)
        part = self._one()
        after = self._at
        while (times := self._times()) is not None:
            # Read again, as often as it may stand: a copy of its steps each.
            low, high = times
            resume = self._at
            begin = self._emit("jump")
            ends = [begin]
            leave: list[int] = []
            for number in range(low if high is None else high):
                copy = self._again(at, after, flags)
                if number >= low:
                    split = self._emit("split", copy[0], None)
                    self._patch(ends, split)
                    leave.append(split)
                else:
                    self._patch(ends, copy[0])
                ends = copy[1]
            if high is None:
                copy = self._again(at, after, flags)
                split = self._emit("split", copy[0], None)
                self._patch(ends, split)
                self._patch(copy[1], split)
                ends = [split]
            part = begin, [*ends, *leave]
            after = self._at = resume
            if self._peek() in ("*", "+", "?", "{"):
                raise Unsupported
        return part

    def _again(self, at: int, after: int, flags: dict[str, bool]) -> tuple[int, list[int]]:
        self._at, self._flags = at, dict(flags)
        part = self._one()
        assert self._at == after  # noqa: S101 - the same text, read the same way
        return part

    def _times(self) -> tuple[int, int | None] | None:
        times: tuple[int, int | None] | None = None
        if self._take("*"):
            times = (0, None)
        elif self._take("+"):
            times = (1, None)
        elif self._take("?"):
            times = (0, 1)
        elif self._peek() == "{":
            low, comma, high = self._text[self._at + 1 :].partition("}")[0].partition(",")
            if low.isdecimal() and (not high or high.isdecimal()):
                self._until("}")
                times = (int(low), int(high) if high else None if comma else int(low))
        if times is not None:
            self._take("?")
        return times

    def _one(self) -> tuple[int, list[int]]:
        if self._take("("):
            self._depth += 1
            if self._depth > _DEEPEST:
                raise Unsupported
            group = self._group()
            self._depth -= 1
            return group
        letter = self._peek()
        if letter in ("*", "+", "?"):
            raise Unsupported
        self._at += 1
        if letter == "^":
            return self._edge("line" if self._flags["m"] else "begin")
        if letter == "$":
            return self._edge("line end" if self._flags["m"] else "end")
        if letter == ".":
            return self._letters(_ANY if self._flags["s"] else _all_but(_LINE))
        if letter == "[":
            return self._letters(self._class())
        if letter == "\\":
            return self._escaped()
        return self._letters(self._cased(_of(letter)))

    def _group(self) -> tuple[int, list[int]]:
        before = dict(self._flags)
        if self._take("?P<") or self._take("?<"):
            self._until(">")
        elif self._take("?"):
            value = True
            while (letter := self._peek()) not in (":", ")"):
                self._at += 1
                if letter == "-":
                    value = False
                elif letter in self._flags:
                    self._flags[letter] = value
                elif letter != "U":  # greed does not change what is found
                    raise Unsupported
            if self._take(")"):
                step = self._emit("jump")
                return step, [step]
            self._at += 1
        inner = self._either()
        if not self._take(")"):
            raise Unsupported
        self._flags = before
        return inner

    def _escaped(self) -> tuple[int, list[int]]:
        letter = self._peek()
        self._at += 1
        for sign, edge in (("A", "begin"), ("z", "end"), ("b", "word"), ("B", "no word")):
            if letter == sign:
                return self._edge(edge)
        if letter == "Q":
            rest = self._text[self._at :]
            words = rest.partition("\\E")[0]
            self._at += min(len(rest), len(words) + 2)
            begin = self._emit("jump")
            ends = [begin]
            for each in words:
                part = self._letters(self._cased(_of(each)))
                self._patch(ends, part[0])
                ends = part[1]
            return begin, ends
        self._at -= 1
        return self._letters(self._cased(self._escape()))

    def _escape(self) -> Ranges:
        """What stands behind a backslash, as letters."""
        letter = self._peek()
        self._at += 1
        if letter.lower() in _PERL:
            found = _PERL[letter.lower()]
            return found if letter.islower() else _all_but(found)
        if letter in ("p", "P"):
            name = self._until("}") if self._take("{") else self._text[self._at : self._at + 1]
            if not self._text.startswith("}", self._at - 1):
                self._at += 1
            found = _category(name.removeprefix("^"))
            return found if (letter == "p") is not name.startswith("^") else _all_but(found)
        if letter == "x":
            code = self._until("}") if self._take("{") else self._text[self._at : self._at + 2]
            if not self._text.startswith("}", self._at - 1):
                self._at += 2
            try:
                return ((int(code, 16),) * 2,)
            except ValueError:
                raise Unsupported from None
        if letter in _CONTROLS:
            return ((_CONTROLS[letter],) * 2,)
        if not letter or letter.isalnum():
            raise Unsupported
        return _of(letter)

    def _class(self) -> Ranges:
        negated = self._take("^")
        parts: list[tuple[int, int]] = []
        first = True
        while first or self._peek() != "]":
            first = False
            if self._take("[:"):
                name = self._until(":]")
                if name.removeprefix("^") not in _POSIX:
                    raise Unsupported
                found = _of(_POSIX[name.removeprefix("^")])
                parts += _all_but(found) if name.startswith("^") else found
                continue
            low = self._member()
            single = len(low) == 1 and low[0][0] == low[0][1]
            if single and self._peek() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                low = ((low[0][0], self._member()[0][1]),)
            parts += low
        self._at += 1
        ranges = self._cased(_union(parts))
        return _all_but(ranges) if negated else ranges

    def _member(self) -> Ranges:
        letter = self._peek()
        if not letter:
            raise Unsupported
        self._at += 1
        return self._escape() if letter == "\\" else _of(letter)

    def _cased(self, ranges: Ranges) -> Ranges:
        return _any_case(ranges) if self._flags["i"] else ranges

    def _letters(self, ranges: Ranges) -> tuple[int, list[int]]:
        self.classes.add(ranges)
        step = self._emit("letter", None, ranges)
        return step, [step]

    def _edge(self, kind: str) -> tuple[int, list[int]]:
        step = self._emit("edge", None, kind)
        return step, [step]

    # -- running

    def move(self, state: object, code: int) -> object:
        """The state after one more letter; True once the pattern was found, and for ever."""
        if state is True:
            return True
        found = self._moves.get((state, code))
        if found is None:
            found = self._moves[state, code] = self._move(state, code)
        return found

    def _move(self, state: object, code: int) -> object:
        assert isinstance(state, tuple)  # noqa: S101 - states come from here
        steps, before = state
        after: set[int] = {self._start}
        for number in self._closed(steps, before, chr(code)):
            kind, to, ranges = self._steps[number]
            if kind == "match":
                return True
            if kind == "letter" and _has(ranges, code):  # type: ignore[arg-type]  # of a letter
                after.add(to)  # type: ignore[arg-type]  # patched to a step
        # Of the letter before, only what edges ask is part of the state.
        kind = "\n" if code == 10 else "a" if _has(_WORD, code) else " "
        return frozenset(after), kind if self._edged else ""

    def found(self, state: object) -> bool:
        """Whether a text that ends in that state has the pattern."""
        if state is True:
            return True
        assert isinstance(state, tuple)  # noqa: S101 - states come from here
        steps, before = state
        return any(self._steps[number][0] == "match" for number in self._closed(steps, before, ""))

    def _closed(self, steps: Iterable[int], before: str, after: str) -> set[int]:
        """The steps reached without a letter, between two letters; "" is the text's beginning or end."""
        seen: set[int] = set()
        todo = list(steps)
        while todo:
            number = todo.pop()
            if number in seen:
                continue
            seen.add(number)
            kind, one, two = self._steps[number]
            if kind in ("jump", "split") or (kind == "edge" and _holds(str(two), before, after)):
                todo.append(one)  # type: ignore[arg-type]  # patched to a step
                if kind == "split":
                    todo.append(two)  # type: ignore[arg-type]  # patched to a step
        return seen


def _holds(edge: str, before: str, after: str) -> bool:
    if edge in ("begin", "line"):
        return not before or (edge == "line" and before == "\n")
    if edge in ("end", "line end"):
        return not after or (edge == "line end" and after == "\n")
    inside = [bool(each) and _has(_WORD, ord(each)) for each in (before, after)]
    return (inside[0] != inside[1]) is (edge == "word")


@lru_cache(maxsize=512)
def machine(pattern: str) -> Machine:
    """The machine of a pattern, made once. Raises Unsupported."""
    return Machine(pattern)


# -- finding texts


def text(wanted: Sequence[tuple[Machine, bool]], refused: frozenset[str], start: str = "") -> str | None:
    """The shortest text, none of `refused` in any case, that has and lacks these patterns; None: there is none.

    `refused` are case-folded, `start` is tried first. Raises Unsupported when it takes too long to tell.
    """
    if start and start.casefold() not in refused and _fits(wanted, start):
        return start
    # What is asked for alone is soon found, and has little of what it must not have: only that is added.
    asked = [each for each in wanted if each[1]]
    while True:
        found = _text(asked, refused)
        if found is None:
            return None
        wrong = [each for each in wanted if not each[1] and _found_in(each[0], found)]
        if not wrong:
            return found
        asked += wrong[:3]


def _text(wanted: Sequence[tuple[Machine, bool]], refused: frozenset[str]) -> str | None:
    classes = {ranges for machine, _ in wanted for ranges in machine.classes}
    found = _shortest(wanted, classes, None)
    if found is None or found.casefold() not in refused:
        return found
    # Now what is refused is followed letter by letter, and its letters are told apart.
    letters = {letter for word in refused for letter in word}
    letters |= {unfolded for letter in letters for unfolded in _unfolded().get(letter, ())}
    return _shortest(wanted, classes | {_of(letter) for letter in letters}, refused)


def _shortest(
    wanted: Sequence[tuple[Machine, bool]], classes: set[Ranges], refused: frozenset[str] | None
) -> str | None:
    codes = list(_alphabet(classes))
    begun = {word[:size] for word in refused or () for size in range(len(word) + 1)}
    first = tuple(machine.begin for machine, _ in wanted)
    seen: set[object] = set()
    todo = deque([("", first)])
    for _ in range(min(_MOST_VISITS, _MOST_MOVES // (len(codes) * (len(wanted) + 1)))):
        if not todo:
            return None
        word, states = todo.popleft()
        if word and _accepted(wanted, states) and (refused is None or word.casefold() not in refused):
            return word
        for code in codes:
            after = tuple(m.move(s, code) for (m, _), s in zip(wanted, states, strict=True))
            if any(s is True and not truth for (_, truth), s in zip(wanted, after, strict=True)):
                continue
            longer = word + chr(code)
            key = after, folded if (folded := longer.casefold()) in begun else None
            if key not in seen:
                seen.add(key)
                todo.append((longer, after))
    raise Unsupported


def spelling(wanted: Sequence[tuple[Machine, bool]], folded: str, start: str = "") -> str | None:
    """A text that is `folded` but for its case, and has and lacks these patterns; None: there is none.

    `start` is tried first. Raises Unsupported when it takes too long to tell.
    """
    if start and _fits(wanted, start):
        return start
    longest = max(map(len, _unfolded()))
    # By how much of `folded` is written: each state of the machines, with the plainest text that leads there.
    reached: list[dict[tuple[object, ...], str]] = [{tuple(m.begin for m, _ in wanted): ""}]
    for end in range(1, len(folded) + 1):
        here: dict[tuple[object, ...], str] = {}
        for size in range(1, min(longest, end) + 1):
            part = folded[end - size : end]
            letters = (*((part,) if size == 1 else ()), *_unfolded().get(part, ()))
            for states, word in reached[end - size].items():
                for letter in letters:
                    after = tuple(m.move(s, ord(letter)) for (m, _), s in zip(wanted, states, strict=True))
                    here.setdefault(after, word + letter)
        if sum(map(len, reached)) > _MOST_VISITS:
            raise Unsupported
        reached.append(here)
    return next((word for states, word in reached[-1].items() if _accepted(wanted, states)), None)


def _accepted(wanted: Sequence[tuple[Machine, bool]], states: tuple[object, ...]) -> bool:
    return all(machine.found(state) is truth for (machine, truth), state in zip(wanted, states, strict=True))


def _fits(wanted: Sequence[tuple[Machine, bool]], word: str) -> bool:
    return all(_found_in(machine, word) is truth for machine, truth in wanted)


def _found_in(machine: Machine, word: str) -> bool:
    state = machine.begin
    for letter in word:
        state = machine.move(state, ord(letter))
    return machine.found(state)


def _alphabet(classes: set[Ranges]) -> Iterator[int]:
    """One code point for each set of letters that no class tells apart, the plainest of them."""
    edges = sorted(
        {0, _LAST + 1, *(e for ranges in classes for low, high in ranges for e in (low, high + 1))}
    )
    ordered = sorted(classes)
    best: dict[tuple[bool, ...], tuple[int, int]] = {}
    for low, after in pairwise(edges):
        key = tuple(_has(ranges, low) for ranges in ordered)
        plain = _plainest(low, after - 1)
        if plain is not None and (key not in best or plain < best[key]):
            best[key] = plain
    for _, code in sorted(best.values()):
        yield code


def _plainest(low: int, high: int) -> tuple[int, int] | None:
    for rank, (first, last) in enumerate(((97, 122), (48, 57), (65, 90), (33, 126), (0xC0, 0x24F), (32, 32))):
        if low <= last and high >= first:
            return rank, max(low, first)
    if 0xD800 <= low <= 0xDFFF:  # no letters, and no text has them
        return None if high <= 0xDFFF else (7, 0xE000)
    return 7, low
