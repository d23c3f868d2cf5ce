"""Typed access to the nodes of a rule file or of its tests: what does not fit becomes a finding at its place."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Final, TypeAlias

from relay.calendar import Duration
from rules.meant import NAMES_SEARCHED, day_meant, duration_meant, nearest
from rules.source import Listing, Node, Report, Scalar, Table, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

Entries: TypeAlias = Mapping[str, tuple[Scalar, Node]]
"""A mapping's keys and values by name."""
Place: TypeAlias = str | tuple[str, str]
"""Where something stands, in words: a key, or (French, English)."""

_PATIENCE: Final = 300_000  # names compared, in a second
# As people join names: with a comma, a semicolon, a word.
_SEVERAL: Final = re.compile(r"\s*[,;]\s*|\s+(?:et|ou|and|or|[+&/|])\s+")
_LONG: Final = 500
_MANY: Final = 20
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

TARGETS: Final = (("cible", "target"), ("Cibles", "Targets"))
HOURS: Final = (("plage horaire", "hours"), ("Plages", "Hours"))
FOLLOWUPS: Final = (("suite", "follow-up"), ("Suites", "Follow-ups"))
RULES: Final = (("règle", "rule"), ("Règles", "Rules"))
KEYWORDS: Final = (("liste de mots", "keyword group"), ("Listes", "Groups"))
DESKS: Final = (("adresse de bureau", "desk"), ("Bureaux", "Desks"))
ROTAS: Final = (("garde", "rota"), ("Gardes", "Rotas"))


def as_date(text: str) -> date | None:
    """A day of the years 2000 to 2099 as `YYYY-MM-DD`, else None."""
    if not _DATE.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 2100 else None


def whole(node: Node, found: Entries) -> bool:
    """Whether every key of a mapping was one that may stand there."""
    return isinstance(node, Table) and len(node.entries) == len(found)


class Reader:
    """Typed access to nodes; whatever does not fit becomes a finding, and None."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.tell = report.tell
        self._guesses: dict[tuple[str, tuple[str, ...]], str | None] = {}
        self._alone: Scalar | None = None
        """The last word that stood by itself where a list may stand."""
        self._spent = 0

    def table(self, node: Node, place: Place, keys: Sequence[str] | None = None) -> Entries | None:
        """A mapping by key; with `keys`, others are E101."""
        where = f"`{place}`" if isinstance(place, str) else place
        if not isinstance(node, Table):
            listed = ", ".join(keys) if keys else ("des noms de votre choix", "names of your own")
            self.tell("no_table", node, place=where, listed=listed)
            return None
        found: dict[str, tuple[Scalar, Node]] = {}
        for key, value in node.entries:
            if keys is not None and key.text not in keys:
                self.unknown_key(key, where, keys)
            else:
                found.setdefault(key.text, (key, value))
        return found

    def _guess(self, node: Scalar, known: Sequence[str]) -> str | None:
        """What was probably meant: a name, or a list of them that lacks its brackets. Never one in place of several."""
        parts = _SEVERAL.split(node.text.strip()) if len(node.text) < _LONG else []
        if len(parts) < 2 or any(_SEVERAL.search(name) for name in known[:NAMES_SEARCHED]):
            return self._nearest(node.text, known)
        if node is not self._alone:
            return None
        meant = [part if part in known else self._nearest(part, known) for part in parts[:_MANY]]
        return f"[{', '.join(filter(None, meant))}]" if all(meant) and len(parts) <= _MANY else None

    def _nearest(self, word: str, known: Sequence[str]) -> str | None:
        """Guessing takes longer than reading: a file of mistakes alone gets no more of it."""
        key = word, tuple(known[:NAMES_SEARCHED])
        if key not in self._guesses:
            self._spent += len(key[1])
            self._guesses[key] = nearest(*key) if self._spent < _PATIENCE else None
        return self._guesses[key]

    def unknown_key(self, key: Scalar, place: Place, keys: Sequence[str], guess: str | None = None) -> None:
        """E101, with the key that was probably meant: `guess`, or one of `keys`."""
        guess = guess or self._guess(key, keys)
        self.tell("unknown_key", key, guess, word=shown(key.text), place=place, listed=", ".join(keys))

    def unknown_value(self, node: Scalar, of: str, values: Iterable[str]) -> None:
        """E102, with the values and the one that was probably meant."""
        values = list(values)
        guess = self._guess(node, values)
        self.tell("unknown_value", node, guess, word=shown(node.text), of=of, listed=", ".join(values[:40]))

    def undefined(
        self, node: Scalar, nouns: tuple[tuple[str, str], tuple[str, str]], names: Iterable[str]
    ) -> None:
        """E110; `nouns` is the noun for one and for many, each (French, English)."""
        names = list(names)
        self.tell(
            "undefined",
            node,
            self._guess(node, names),
            word=shown(node.text),
            one=nouns[0],
            many=nouns[1],
            listed=", ".join(names[:40]) or "—",
        )

    def word(self, node: Node, place: Place) -> Scalar | None:
        """A non-empty scalar."""
        if isinstance(node, Scalar) and not node.empty and node.text.strip():
            return node
        self.tell("no_word", node, place=f"`{place}`" if isinstance(place, str) else place)
        return None

    def words(self, node: Node, place: Place) -> list[Scalar]:
        """A scalar, or a list of scalars; an empty list is an error."""
        if not isinstance(node, Listing):
            self._alone = self.word(node, place)
            return [self._alone] if self._alone else []
        if not node.items:
            self.tell("empty_list", node, place=f"`{place}`" if isinstance(place, str) else place)
        return [found for item in node.items if (found := self.word(item, place))]

    def one_of(self, node: Node, of: str, values: Sequence[str]) -> str | None:
        """A scalar out of a closed list."""
        found = self.word(node, of)
        if found is None:
            return None
        if found.text not in values:
            self.unknown_value(found, of, values)
            return None
        return found.text

    def duration(self, node: Node, of: str) -> Duration | None:
        """`Ns`, `Nm`, `Nh` or `Nd`."""
        found = self.word(node, of)
        if found is None:
            return None
        try:
            return Duration.parse(found.text)
        except ValueError:
            self.tell("duration", found, duration_meant(found.text), word=shown(found.text), of=of)
            return None

    def day(self, node: Node, of: str) -> date | None:
        """A date."""
        found = self.word(node, of)
        day = as_date(found.text) if found is not None else None
        if found is not None and day is None:
            self.tell("date", found, day_meant(found.text), word=shown(found.text), of=of)
        return day

    def missing(self, at: Node, key: str, place: Place, example: str) -> None:
        """E103, at the place that should have it."""
        where = f"`{place}`" if isinstance(place, str) else place
        self.tell("missing", at, key=key, place=where, example=example)
