"""Keyword groups: lists of words or RE2 patterns, looked for in a letter; only the names of those found go further.

Nothing here keeps or shows the letter's text. RE2 takes time linear in the text, whatever the patterns are.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

import re2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rules.ruleset import RuleSet

LONGEST_PATTERN: Final = 1_000
_SET_MEMORY: Final = 64 << 20
_ONE_MEMORY: Final = 64 << 20
"""Bytes that the automaton of all groups, or of one, may take; RE2 forgets states rather than take more."""

_LIGATURES: Final = str.maketrans({"œ": "oe", "Œ": "oe", "æ": "ae", "Æ": "ae", "ﬁ": "fi", "ﬂ": "fl", "\xad": None,
                                   "\u200b": None, "\u200c": None, "\u200d": None, "\ufeff": None})  # fmt: skip
_MARKS: Final = re.compile("[\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")
_GAP: Final = re.compile(r"[\s_'’ʼ`´\-\u2010-\u2015\u2212\x00-\x1f]+")
_CUT: Final = re.compile(r"(?<=[^\W\d_])[-\u2010\u2011][ \t]*\r?\n[ \t]*(?=[^\W\d_])")
# A quotation, an escape, a class, the beginning of a group, or one character.
_PARTS: Final = re.compile(
    r"\\Q.*?(?:\\E|\Z)|\\.|\[\^?\]?(?:\\.|\[:\^?\w+:\]|[^\]\\])*\]|\((?:\?(?:P?<\w+>|[\w-]*[:)]))?|.",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, eq=False)
class Keyword:
    """One group: one RE2 for its words, over folded text, and RE2 for its patterns, over the text as well."""

    words: Any  # google-re2 has no types; None where there is none
    patterns: tuple[Any, ...]


def compile_pattern(pattern: str, *, fold_case: bool = False) -> Any:  # google-re2 has no types
    """An RE2 expression (linear time, bounded memory). Raises ValueError when it is none."""
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"longer than {LONGEST_PATTERN} characters")
    try:
        return re2.compile(pattern, _options(1 << 20, fold_case=fold_case))
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


def _options(memory: int, *, fold_case: bool) -> Any:  # google-re2 has no types
    options = re2.Options()
    options.log_errors = False
    options.max_mem = memory
    options.case_sensitive = not fold_case
    return options


def fold(text: str) -> str:
    """As words are compared: no accents, no case; a gap, a hyphen, an apostrophe and a line's end are one space."""
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFKD", text.translate(_LIGATURES)))
    return _GAP.sub(" ", text.casefold())


def compile_words(words: Iterable[str]) -> Any:  # google-re2 has no types
    """RE2 for any of these words and phrases as a whole, over folded text. Raises ValueError when they are too many."""
    # A word's own sides count: RE2's \b knows ASCII letters only.
    any_of = "|".join(re2.escape(fold(word).strip()) for word in words)
    try:
        return re2.compile(
            rf"(?:^|[^\pL\pN])(?:{any_of})(?:[^\pL\pN]|$)", _options(_ONE_MEMORY, fold_case=False)
        )
    except re2.error:
        raise ValueError("too many words") from None


def _with_edges(pattern: str) -> str | None:
    """The pattern with the `\\b` at its edges, and at those of its groups, such as they are meant of letters with accents.

    RE2's own knows ASCII letters only: `\\béchec` would be found in no letter at all. None where that is no matter,
    or takes more memory than a pattern may.
    """
    if pattern.isascii() or "\\b" not in pattern:
        return None
    parts = _PARTS.findall(pattern)
    made = "".join(
        part if part != "\\b" else "(?:^|[^\\pL\\pN_])" if before.startswith("(") or before in ("", "|")
        else "(?:[^\\pL\\pN_]|$)" if after in (")", "|", "") else part
        for before, part, after in zip(["", *parts], parts, [*parts[1:], ""], strict=False)
    )  # fmt: skip
    try:
        re2.compile(made, _options(1 << 20, fold_case=True))
    except re2.error:
        return None
    return made


# ------------------------------------------------------------------------------------------------------ searching


class _Searched:
    """Expressions of named groups as one RE2 set: the text is gone through once for all of them."""

    def __init__(self, named: Sequence[tuple[str, str]]) -> None:
        self.names: Final = [name for name, _ in named]
        self.expressions: Final = [expression for _, expression in named]
        self.set: Final = self._compiled()

    def _compiled(self) -> Any:  # google-re2 has no types
        """None where they are too many for one automaton."""
        made = re2.Set.SearchSet(_options(_SET_MEMORY, fold_case=True))
        try:
            # The first, empty, is found in every text: a set that runs out of memory finds nothing, and says nothing.
            for expression in ("", *self.expressions):
                made.Add(expression)
            made.Compile()
        except re2.error:
            return None
        return made

    def found_in(self, text: str) -> set[str]:
        """Names of the groups one of whose expressions is found."""
        if not self.names:
            return set()
        found = self.set.Match(text) if self.set is not None else ()
        if 0 in found:
            return {self.names[number - 1] for number in found if number}
        return {
            name
            for name, expression in zip(self.names, self.expressions, strict=True)
            if re2.compile(expression, _options(_ONE_MEMORY, fold_case=True)).search(text) is not None
        }


class _Groups:
    def __init__(self, keywords: Mapping[str, Keyword]) -> None:
        patterns = [
            (name, form)
            for name, group in keywords.items()
            for each in group.patterns
            for form in (each.pattern, _with_edges(each.pattern))
            if form is not None
        ]
        words = [(name, group.words.pattern) for name, group in keywords.items() if group.words is not None]
        self.folded: Final = _Searched([*words, *patterns])
        self.plain: Final = _Searched(patterns)


_GROUPS: Final[WeakKeyDictionary[RuleSet, _Groups]] = WeakKeyDictionary()


def mentioned(rules: RuleSet, text: str) -> frozenset[str]:
    """Names of the keyword groups found in a letter: the fact `mentions`. Linear in the text: 100 ms for each MB.

    Words are found whole, whatever their accents, case and hyphens are and where lines break in or between
    them. A pattern is looked for, whatever its case, in the text as it stands and in the folded text.
    """
    if not rules.keywords:
        return frozenset()
    groups = _GROUPS.get(rules)
    if groups is None:
        groups = _GROUPS[rules] = _Groups(rules.keywords)
    text = text.encode("utf-8", "replace").decode()  # no lone surrogate
    found = groups.folded.found_in(fold(text)) | groups.plain.found_in(
        unicodedata.normalize("NFC", text).replace("\xa0", " ")
    )
    whole = _CUT.sub("", text)  # a word that was cut at a line's end, put together again
    if len(whole) != len(text):
        found |= groups.folded.found_in(fold(whole))
    return frozenset(found)
