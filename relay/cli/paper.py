"""What the rule commands share to be read with pleasure: two languages, colours where somebody looks, dates, columns."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from relay.cli.shared import visible

if TYPE_CHECKING:
    from datetime import tzinfo

_STYLES: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_DAYS: Final = (
    ("lun.", "mar.", "mer.", "jeu.", "ven.", "sam.", "dim."),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
)


def _looked_at() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


@dataclass(frozen=True, slots=True)
class Paper:
    """One page on standard output, in French or English."""

    french: bool
    colours: bool = field(default_factory=_looked_at)

    def say(self, french: str, english: str) -> str:
        """The words in the chosen language."""
        return french if self.french else english

    def style(self, text: str, *styles: str) -> str:
        """The text, coloured where a person looks at it."""
        if not self.colours or not text:
            return text
        return f"\x1b[{';'.join(_STYLES[each] for each in styles)}m{text}\x1b[0m"

    def line(self, text: str = "", indent: int = 0) -> None:
        """One line."""
        print((" " * indent + text).rstrip())

    def title(self, text: str) -> None:
        """A heading, with air above it."""
        print(f"\n{self.style(text, 'bold')}")

    def columns(
        self, rows: Sequence[Sequence[str]], indent: int = 2, styles: Mapping[int, str] | None = None
    ) -> None:
        """Rows with their columns below each other; `styles` by number of the column."""
        widths = [
            max(len(row[n]) for row in rows if n < len(row)) for n in range(max(map(len, rows), default=0))
        ]
        for row in rows:
            cells = [
                self.style(cell, (styles or {})[number]) + " " * (widths[number] - len(cell))
                if number in (styles or {})
                else cell.ljust(widths[number])
                for number, cell in enumerate(row)
            ]
            self.line("  ".join(cells), indent)

    def moment(self, at: datetime | str, zone: tzinfo | None = None) -> str:
        """« ven. 4/12/2026 à 18:45 »."""
        when = datetime.fromisoformat(at) if isinstance(at, str) else at
        local = when.astimezone(zone) if zone is not None else when
        day = _DAYS[not self.french][local.weekday()]
        if self.french:
            return f"{day} {local.day}/{local.month}/{local.year} à {local:%H:%M}"
        return f"{day} {local:%Y-%m-%d %H:%M}"

    def span(self, span: timedelta) -> str:
        """« 1 j 4 h »."""
        minutes = round(span.total_seconds() / 60)
        days, rest = divmod(minutes, 1440)
        hours, minutes = divmod(rest, 60)
        parts = ((days, self.say("j", "d")), (hours, "h"), (minutes, "min"))
        return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 min"

    def who(self, reach: str) -> str:
        """« le médecin traitant par telegram », out of `registered_gp (telegram)`."""
        from rules.outcome import in_words

        return in_words(reach, french=self.french)

    def fact(self, value: object) -> str:
        """A fact's value as a person writes it."""
        if value is None:
            return self.say("absent", "absent")
        if value == "unknown":
            return self.say("illisible", "unknown")
        if isinstance(value, bool) or value in ("yes", "no"):
            value = value is True or value == "yes"
            return self.say("oui", "yes") if value else self.say("non", "no")
        if isinstance(value, Mapping):
            signs = {"gte": "≥", "lte": "≤", "gt": ">", "lt": "<", "matches": "~"}
            value = ", ".join(f"{signs.get(str(key), key)} {each}" for key, each in value.items())
        if isinstance(value, Iterable) and not isinstance(value, str):
            value = self.say(" ou ", " or ").join(map(str, value)) or self.say("aucun", "none")
        return visible(str(value))
