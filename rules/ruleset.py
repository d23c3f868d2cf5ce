"""A rule set as immutable values: what a checked file says, and what a site knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from zoneinfo import ZoneInfo

    from relay.calendar import Duration, Hours
    from rules.keywords import Keyword

Action: TypeAlias = Literal["send", "hold", "file"]
Mode: TypeAlias = Literal["on", "observe", "off"]
Carries: TypeAlias = Literal["document", "notice", "pointer"]

PEOPLE: Final = (
    "registered_gp",
    "practice",
    "substitute",
    "referring_doctor",
    "letter_recipients",
    "pharmacist",
    "nurse",
    "home_hospitalisation",
    "sending_ward",
    "patient",
)
GP_PEOPLE: Final = frozenset({"registered_gp", "practice", "substitute"})
DOCUMENT_WITHOUT_BASIS: Final = GP_PEOPLE | {"referring_doctor", "sending_ward", "patient"}
CHAT_KINDS: Final = frozenset({"telegram", "matrix", "webchat"})
SENDING_KINDS: Final = CHAT_KINDS | {"smtp", "memory"}


@dataclass(frozen=True, slots=True)
class Site:
    """What the configuration knows, for a rule file to be checked against it.

    `adapters`: name → kind; `desks`: name → what it sees; `wards`: names and slugs, and `spellings` which of
    them are one ward's.
    """

    adapters: Mapping[str, str] = field(default_factory=dict)
    desks: Mapping[str, str] = field(default_factory=dict)
    rotas: frozenset[str] = frozenset()
    wards: frozenset[str] = frozenset()
    language: str = "fr"
    spellings: tuple[frozenset[str], ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody a rule may send to, and how; the address comes from the directory.

    `carries` is what really leaves: a desk whose configuration says `sees = "reference"` gets a pointer,
    whatever the file says. `via` holds adapter names in order of preference.
    """

    name: str
    who: str
    via: tuple[str, ...]
    carries: Carries
    quiet: str | None = None
    basis: str | None = None
    line: int = 0

    @property
    def desk(self) -> str | None:
        """The desk's name when this is one."""
        return self.who[5:] if self.who.startswith("desk/") else None

    @property
    def rota(self) -> str | None:
        """The rota's name when this is one."""
        return self.who[5:] if self.who.startswith("rota/") else None

    @property
    def is_gp(self) -> bool:
        """Whether nothing may go there before the GP was found."""
        return self.who in GP_PEOPLE


@dataclass(frozen=True, slots=True)
class Step:
    """One rung of a ladder: `after` the sending, on a clock (`real` or an hours name), remind or hand over.

    Exactly one of `remind` and `hand_to` names a target.
    """

    after: Duration
    clock: str
    remind: str | None
    hand_to: str | None


@dataclass(frozen=True, slots=True)
class Followup:
    """What happens until somebody answers. Clocks are `real` or the name of an entry of `hours`.

    `ack_expires` and `close_quiet_for` count from the acknowledgement, on the clock of `ack`.
    """

    name: str
    awaits: Literal["delivered", "seen", "ack"]
    ack_within: Duration
    clock: str
    ladder: tuple[Step, ...]
    ack_expires: Duration | None
    close_quiet_for: Duration
    line: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Test:
    """One matcher: a field (or `during`) and what is expected of it.

    `values` for one-of (texts case-folded, yes/no as bools, numbers as floats), `bounds` for comparisons,
    `pattern` a compiled RE2; `during` names hours. `words` is what the admin wrote, for traces.
    """

    field: str
    line: int
    column: int
    words: str | tuple[str, ...] | Mapping[str, str]
    values: frozenset[str | bool | float] = frozenset()
    bounds: tuple[tuple[str, float], ...] = ()
    pattern: Any = None  # google-re2 has no types
    during: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class When:
    """A conjunction of tests, and at most one each of `any`, `all` and `unless`, one level deep."""

    tests: tuple[Test, ...]
    any_of: tuple[tuple[Test, ...], ...] | None = None
    all_of: tuple[tuple[Test, ...], ...] | None = None
    unless: tuple[Test, ...] | None = None

    def every_test(self) -> Iterator[Test]:
        """All tests at any depth, in reading order."""
        yield from self.tests
        for group in (*(self.any_of or ()), *(self.all_of or ()), self.unless or ()):
            yield from group


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """One rule of `rules`. `targets` and `followup` belong to `send`, `hold` to `hold`.

    `start` and `until` are whole days in the set's time zone, `until` included.
    """

    id: str
    was: tuple[str, ...]
    line: int
    column: int
    when: When
    action: Action
    targets: tuple[str, ...]
    followup: str | None
    hold: str | None
    reason: str
    start: date | None
    until: date | None
    mode: Mode
    grace: Duration | None
    skip_unknown: bool


@dataclass(frozen=True, slots=True, eq=False)
class Copy:
    """One entry of `also`: a copy for `target` whenever it matches."""

    id: str
    was: tuple[str, ...]
    line: int
    column: int
    when: When
    target: str
    start: date | None
    until: date | None
    mode: Mode


@dataclass(frozen=True, slots=True)
class Default:
    """What happens when no rule takes a notice: it is held, at `hold`."""

    hold: str
    reason: str
    line: int = 0


@dataclass(frozen=True, eq=False)
class RuleSet:
    """A checked rule file. Immutable; two are never equal, `digest` (SHA-256 of the text) tells them apart.

    `text` is the file itself, for findings that are told later to show their line; `wards` the spellings of
    each ward of the site it was checked for.
    """

    version: int
    file: str
    digest: str
    timezone: str
    zone: ZoneInfo
    targets: Mapping[str, Target]
    followups: Mapping[str, Followup]
    hours: Mapping[str, Hours]
    rules: tuple[Rule, ...]
    also: tuple[Copy, ...]
    default: Default
    keywords: Mapping[str, Keyword]
    language: str = "fr"
    wards: tuple[frozenset[str], ...] = ()
    text: str = field(default="", repr=False)

    def rule(self, name: str) -> Rule | Copy | None:
        """The rule or copy of that id, a former id (`was`) counting too."""
        entries = self.every()
        return next((e for e in entries if e.id == name), None) or next(
            (e for e in entries if name in e.was), None
        )

    def every(self) -> tuple[Rule | Copy, ...]:
        """All rules, then all copies, in file order."""
        return (*self.rules, *self.also)
