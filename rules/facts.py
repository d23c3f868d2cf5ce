"""The table of facts a rule may match on, their types, and their form as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias
from unicodedata import normalize

from rules.meant import nearest
from rules.source import shown


class Unknown(Enum):
    """The type of the one value `UNKNOWN`."""

    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = Unknown.UNKNOWN
"""Something stood there and could not be read; a matcher on it is undecided. In JSON: `"unknown"`."""

FactValue: TypeAlias = str | bool | int | float | AbstractSet[str] | Unknown
Facts: TypeAlias = Mapping[str, FactValue]
"""What was found out about a notice. A missing key is absent: the document was read and says nothing.

Yes/no facts are bools, numbers ints or floats, `mentions` a set of names, the rest str; `ward` may be a set
of spellings (name and slug of the same ward). Never any content of a letter.
"""

Kind: TypeAlias = Literal["enum", "yesno", "text", "number", "set"]


@dataclass(frozen=True, slots=True)
class Field:
    """One fact a rule may match on; `values` is closed for an enum, else empty."""

    name: str
    kind: Kind
    values: tuple[str, ...] = ()


def _enum(name: str, values: str) -> Field:
    return Field(name, "enum", tuple(values.split()))


FIELDS: Final[Mapping[str, Field]] = {
    entry.name: entry
    for entry in (
        _enum("event", "discharge er_visit admission transfer death birth other"),
        _enum("document", "letter advance_notice addendum replacement retraction other"),
        _enum("format", "cda hprim hl7v2 fhir pdf text"),
        Field("code", "text"),
        _enum("urgency", "routine soon urgent"),
        _enum("identity", "qualified validated provisional doubtful test"),
        _enum("consent", "allowed opposed masked"),
        _enum("gp", "found none many conflict left no_mailbox"),
        _enum("gp_source", "notice registry both"),
        Field("gp_away", "yesno"),
        Field("addressed", "yesno"),
        Field("registered", "yesno"),
        Field("mailbox", "text"),
        Field("sender", "text"),
        Field("signed", "yesno"),
        Field("facility", "text"),
        Field("ward", "text"),
        Field("unit", "text"),
        _enum("exit_mode", "home hospital rehabilitation nursing_home home_hospitalisation death other"),
        Field("age", "number"),
        Field("stay_days", "number"),
        Field("late_hours", "number"),
        Field("department", "text"),
        Field("cpts", "text"),
        Field("mentions", "set"),
    )
}
WHEN_ABSENT: Final[Mapping[str, str]] = {"urgency": "routine", "consent": "allowed"}
"""What a document that says nothing means."""

NEEDS_SOMEBODY: Final = ("discharge", "er_visit", "death")
"""Events that `file` may never take (E142)."""


def facts_from_json(facts: Mapping[str, object]) -> dict[str, FactValue]:
    """Facts as stored or typed (`--facts`): yes/no as true/false, `"unknown"`, null for absent.

    Raises ValueError, in English, naming the field that is not one or whose value is of another type.
    """
    read: dict[str, FactValue] = {}
    for name, value in facts.items():
        entry = FIELDS.get(name)
        if entry is None:
            hint = nearest(name, FIELDS)
            raise ValueError(f"unknown fact {shown(name)!r}" + (f", did you mean {hint!r}?" if hint else ""))
        if value is None:
            continue
        if value == "unknown":
            read[name] = UNKNOWN
        elif (
            isinstance(value, Sequence | AbstractSet)
            and not isinstance(value, str)
            and name in ("mentions", "ward")
        ):
            read[name] = frozenset(str(each) for each in value)
        elif name == "mentions" and isinstance(value, str):
            read[name] = frozenset({value})
        elif isinstance(value, bool | int | float | str) and _fits(entry, value):
            if entry.kind == "enum" and value not in entry.values:
                raise ValueError(f"{name} can't be {shown(str(value))!r}: {', '.join(entry.values)}")
            read[name] = value
        else:
            raise ValueError(
                f"{name} takes {_AS_JSON[entry.kind]}, not {shown(json.dumps(value, default=str))}"
            )
    return read


_AS_JSON: Final[Mapping[Kind, str]] = {
    "enum": "a word",
    "yesno": "true or false",
    "text": "a text",
    "number": "a number",
    "set": "a list of names",
}


def _fits(entry: Field, value: str | bool | float) -> bool:
    if entry.kind == "yesno" or isinstance(value, bool):
        return entry.kind == "yesno" and isinstance(value, bool)
    return isinstance(value, str) == (entry.kind != "number")


def facts_as_json(facts: Facts) -> dict[str, str | bool | int | float | list[str]]:
    """The same facts as JSON can hold them, in the order of the field table."""
    written: dict[str, str | bool | int | float | list[str]] = {}
    for name in sorted(facts, key=lambda n: list(FIELDS).index(n) if n in FIELDS else len(FIELDS)):
        value = facts[name]
        if isinstance(value, Unknown):
            written[name] = "unknown"
        elif isinstance(value, str | bool | int | float):
            written[name] = value
        else:
            written[name] = sorted(value)
    return written


def composed(text: str) -> str:
    """« é » as one character, however it was typed (UAX #15): rule files are read so, and texts compared with them."""
    return text if text.isascii() else normalize("NFC", text)


_NUMBER: Final = re.compile(r"-?\d{1,9}(\.\d{1,6})?", re.ASCII)
_YES: Final = {"yes": True, "true": True, "no": False, "false": False}


def as_number(text: str) -> float | None:
    """A decimal number as people write it (no exponent, no underscore), else None."""
    return float(text) if _NUMBER.fullmatch(text) else None


def typed(entry: Field, text: str) -> str | bool | float | None:
    """A written value as its field has it (texts case-folded), or None when it is none of that type."""
    if entry.kind == "enum":
        return text if text in entry.values else None
    if entry.kind == "yesno":
        return _YES.get(text.casefold())
    if entry.kind == "number":
        return as_number(text)
    return text if entry.kind == "set" else text.casefold()
