"""The language itself: the table of facts, the rule set as immutable values, and the reading of a file.

Specification: docs/rules.md. A file becomes a `RuleSet`, or findings that each name a place and one fix.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias
from zoneinfo import ZoneInfo, available_timezones

import re2

from relay.calendar import DAY_MINUTES, DAYS, Duration, Holidays, Hours, OnHolidays, Window, add, subdivisions
from rules.source import (
    Finding,
    Listing,
    Node,
    Report,
    RulesError,
    Scalar,
    Table,
    as_text,
    compose,
    nearest,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = [
    "FIELDS",
    "UNKNOWN",
    "Copy",
    "Default",
    "FactValue",
    "Facts",
    "Finding",
    "Followup",
    "Rule",
    "RuleSet",
    "RulesError",
    "Site",
    "Step",
    "Target",
    "Test",
    "When",
    "facts_as_json",
    "facts_from_json",
    "load",
    "mentioned",
]


class _Unknown(Enum):
    UNKNOWN = "unknown"

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN: Final = _Unknown.UNKNOWN
"""Something stood there and could not be read; a matcher on it is undecided. In JSON: `"unknown"`."""

FactValue: TypeAlias = str | bool | int | float | AbstractSet[str] | _Unknown
Facts: TypeAlias = Mapping[str, FactValue]
"""What was found out about a notice. A missing key is absent: the document was read and says nothing.

Yes/no facts are bools, numbers ints or floats, `mentions` a set of names, the rest str; `ward` may be a set
of spellings (name and slug of the same ward). Never any content of a letter.
"""

Kind: TypeAlias = Literal["enum", "yesno", "text", "number", "set"]
Action: TypeAlias = Literal["send", "hold", "file"]
Mode: TypeAlias = Literal["on", "observe", "off"]
Carries: TypeAlias = Literal["document", "notice", "pointer"]


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
_DOCUMENT_WITHOUT_BASIS: Final = GP_PEOPLE | {"referring_doctor", "sending_ward", "patient"}
CHAT_KINDS: Final = frozenset({"telegram", "matrix", "webchat"})
_SENDING_KINDS: Final = CHAT_KINDS | {"smtp", "memory"}
_BASES: Final = ("care_team", "consent")
_COMPARISONS: Final = ("gte", "lte", "lt", "gt")


@dataclass(frozen=True, slots=True)
class Site:
    """What the configuration knows, for a rule file to be checked against it.

    `adapters`: name → kind; `desks`: name → what it sees; `wards`: names and slugs.
    """

    adapters: Mapping[str, str] = field(default_factory=dict)
    desks: Mapping[str, str] = field(default_factory=dict)
    rotas: frozenset[str] = frozenset()
    wards: frozenset[str] = frozenset()
    language: str = "fr"


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
    """A checked rule file. Immutable; two are never equal, `digest` (SHA-256 of the text) tells them apart."""

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
    keywords: Mapping[str, Any]
    language: str = "fr"

    def rule(self, name: str) -> Rule | Copy | None:
        """The rule or copy of that id, a former id (`was`) counting too."""
        entries = self.every()
        return next((e for e in entries if e.id == name), None) or next(
            (e for e in entries if name in e.was), None
        )

    def every(self) -> tuple[Rule | Copy, ...]:
        """All rules, then all copies, in file order."""
        return (*self.rules, *self.also)


def fold(text: str) -> str:
    """Without accents and case, ligatures split: how keyword words are compared."""
    text = text.replace("œ", "oe").replace("Œ", "oe").replace("æ", "ae").replace("Æ", "ae").replace("’", "'")
    parts = unicodedata.normalize("NFD", text)
    return "".join(c for c in parts if not unicodedata.combining(c)).casefold()


def mentioned(rules: RuleSet, text: str) -> frozenset[str]:
    """Names of the keyword groups found in a letter: the fact `mentions`. Linear in the text (RE2)."""
    if not rules.keywords:
        return frozenset()
    folded = fold(text)
    return frozenset(
        name
        for name, (words, patterns) in rules.keywords.items()
        if (words is not None and words.search(folded)) or any(p.search(text) for p in patterns)
    )


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
            raise ValueError(f"{name} is a {entry.kind}, not {shown(repr(value))}")
    return read


def _fits(entry: Field, value: str | bool | float) -> bool:
    if entry.kind == "yesno" or isinstance(value, bool):
        return entry.kind == "yesno" and isinstance(value, bool)
    return isinstance(value, str) == (entry.kind != "number")


def facts_as_json(facts: Facts) -> dict[str, str | bool | int | float | list[str]]:
    """The same facts as JSON can hold them, in the order of the field table."""
    written: dict[str, str | bool | int | float | list[str]] = {}
    for name in sorted(facts, key=lambda n: list(FIELDS).index(n) if n in FIELDS else len(FIELDS)):
        value = facts[name]
        if isinstance(value, _Unknown):
            written[name] = "unknown"
        elif isinstance(value, str | bool | int | float):
            written[name] = value
        else:
            written[name] = sorted(value)
    return written


def load(
    text: str | bytes, file: str, site: Site | None = None, lang: str = "fr", *, explaining: bool = False
) -> tuple[RuleSet | None, tuple[Finding, ...]]:
    """Read and check a rule file. The set is None when any finding is an error; it never raises.

    `site` None: wards, desks and rotas are not resolved, and W305 is not raised. With `explaining`, findings
    E2xx (a doubled id, a dead rule) don't stop the set from being built: `rules explain` runs on it.
    """
    content, report = as_text(text, file, lang)
    root = compose(content, report)
    if root is None:
        return None, report.findings
    raw = text if isinstance(text, bytes) else text.encode("utf-8")
    rules = _Reading(report, site).rule_set(root, file, hashlib.sha256(raw).hexdigest())
    fatal = [f for f in report.findings if f.severity == "error" and not (explaining and f.code[1] == "2")]
    return (None if fatal else rules), report.findings


_SECTIONS: Final = (
    "version",
    "timezone",
    "holidays",
    "hours",
    "targets",
    "followups",
    "keywords",
    "rules",
    "also",
    "default",
)
_RULE_KEYS: Final = (
    "id",
    "was",
    "when",
    "send",
    "followup",
    "hold",
    "reason",
    "file",
    "from",
    "until",
    "mode",
    "grace",
    "if_unknown",
)
_COPY_KEYS: Final = ("id", "was", "when", "copy", "from", "until", "mode")
_PATTERN_SIGNS: Final = re.compile(r"[\\^$|?*+()\[\]{}]")
_NUMBER: Final = re.compile(r"-?\d{1,9}(\.\d{1,6})?", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_YES: Final = {"yes": True, "true": True, "no": False, "false": False}


def as_yes_no(text: str) -> bool | None:
    """`yes`, `no`, `true` or `false` in any case, else None."""
    return _YES.get(text.casefold())


def as_number(text: str) -> float | None:
    """A decimal number as people write it (no exponent, no underscore), else None."""
    return float(text) if _NUMBER.fullmatch(text) else None


def as_date(text: str) -> date | None:
    """A day of the years 2000 to 2099 as `YYYY-MM-DD`, else None."""
    if not _DATE.fullmatch(text):
        return None
    try:
        day = date.fromisoformat(text)
    except ValueError:
        return None
    return day if 2000 <= day.year < 2100 else None


def compile_pattern(pattern: str, *, fold_case: bool = False) -> Any:  # google-re2 has no types
    """An RE2 expression (linear time, bounded memory). Raises ValueError when it is none."""
    if len(pattern) > 1_000:
        raise ValueError("longer than 1000 characters")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = 1 << 20
    options.case_sensitive = not fold_case
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        said = error.args[0] if error.args else ""
        raise ValueError(said.decode(errors="replace") if isinstance(said, bytes) else str(said)) from None


class Reader:
    """Typed access to nodes; whatever does not fit becomes a finding, and None."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.add = report.add

    def table(
        self, node: Node, fr: str, en: str, keys: Sequence[str] | None = None
    ) -> dict[str, tuple[Scalar, Node]] | None:
        """A mapping by key; with `keys`, others are E101. `fr` and `en` name the place in messages."""
        if not isinstance(node, Table):
            self.add(
                "E104",
                node,
                f"{fr} attend des paires `clé: valeur`.",
                f"{en} takes `key: value` pairs.",
                (
                    f"Clés possibles : {', '.join(keys)}." if keys else "Écrire `nom: …`.",
                    f"Possible keys: {', '.join(keys)}." if keys else "Write `name: …`.",
                ),
            )
            return None
        found: dict[str, tuple[Scalar, Node]] = {}
        for key, value in node.entries:
            if keys is not None and key.text not in keys:
                self.unknown_key(key, fr, en, keys)
            else:
                found.setdefault(key.text, (key, value))
        return found

    def unknown_key(self, key: Scalar, fr: str, en: str, keys: Sequence[str]) -> None:
        """E101, with the key that was probably meant."""
        word, guess = shown(key.text), nearest(key.text, keys)
        self.add(
            "E101",
            key,
            f"clé inconnue « {word} » dans {fr}." + (f" Vouliez-vous dire « {guess} » ?" if guess else ""),
            f"unknown key “{word}” in {en}." + (f" Did you mean “{guess}”?" if guess else ""),
            (
                f"Remplacer « {word} » par « {guess} »." if guess else f"Clés possibles : {', '.join(keys)}.",
                f"Replace “{word}” with “{guess}”." if guess else f"Possible keys: {', '.join(keys)}.",
            ),
        )

    def unknown_value(self, node: Scalar, of: str, values: Iterable[str], code: str = "E102") -> None:
        """E102, with the values and the one that was probably meant."""
        values = list(values)
        word, guess, listed = shown(node.text), nearest(node.text, values), ", ".join(values[:40])
        self.add(
            code,
            node,
            f"valeur « {word} » inconnue pour `{of}`. Valeurs : {listed}."
            + (f" Vouliez-vous dire « {guess} » ?" if guess else ""),
            f"unknown value “{word}” for `{of}`. Values: {listed}."
            + (f" Did you mean “{guess}”?" if guess else ""),
            (
                f"Remplacer « {word} » par « {guess} »." if guess else f"Choisir parmi : {listed}.",
                f"Replace “{word}” with “{guess}”." if guess else f"Choose one of: {listed}.",
            ),
        )

    def undefined(self, node: Scalar, fr: str, en: str, names: Iterable[str]) -> None:
        """E110; `fr` and `en` are pairs « cible|Cibles » of the noun, singular and plural."""
        names = list(names)
        word, guess, listed = shown(node.text), nearest(node.text, names), ", ".join(names[:40]) or "—"
        (one_fr, many_fr), (one_en, many_en) = fr.split("|"), en.split("|")
        self.add(
            "E110",
            node,
            f"{one_fr} « {word} » non définie. {many_fr} : {listed}."
            + (f" Vouliez-vous dire « {guess} » ?" if guess else ""),
            f"{one_en} “{word}” is not defined. {many_en}: {listed}."
            + (f" Did you mean “{guess}”?" if guess else ""),
            (
                f"Remplacer « {word} » par « {guess} »." if guess else "La définir, ou en choisir une autre.",
                f"Replace “{word}” with “{guess}”." if guess else "Define it, or choose another.",
            ),
        )

    def word(self, node: Node, fr: str, en: str) -> Scalar | None:
        """A non-empty scalar."""
        if isinstance(node, Scalar) and not node.empty and node.text.strip():
            return node
        self.add(
            "E104",
            node,
            f"{fr} attend un mot ou un texte.",
            f"{en} takes a word or a text.",
            ("Écrire une seule valeur.", "Write a single value."),
        )
        return None

    def words(self, node: Node, fr: str, en: str) -> list[Scalar]:
        """A scalar, or a list of scalars; an empty list is an error."""
        if isinstance(node, Listing) and node.items:
            return [found for item in node.items if (found := self.word(item, fr, en))]
        if isinstance(node, Listing):
            self.add(
                "E104",
                node,
                f"{fr} est une liste vide.",
                f"{en} is an empty list.",
                ("Y mettre au moins une valeur, ou retirer la clé.", "Put a value in, or remove the key."),
            )
            return []
        found = self.word(node, fr, en)
        return [found] if found else []

    def one_of(self, node: Node, of: str, values: Sequence[str]) -> str | None:
        """A scalar out of a closed list."""
        found = self.word(node, f"`{of}`", f"`{of}`")
        if found is None:
            return None
        if found.text not in values:
            self.unknown_value(found, of, values)
            return None
        return found.text

    def duration(self, node: Node, of: str) -> Duration | None:
        """`Ns`, `Nm`, `Nh` or `Nd`."""
        found = self.word(node, f"`{of}`", f"`{of}`")
        if found is None:
            return None
        try:
            return Duration.parse(found.text)
        except ValueError:
            self.add(
                "E104",
                found,
                f"durée « {shown(found.text)} » illisible pour `{of}`.",
                f"unreadable duration “{shown(found.text)}” for `{of}`.",
                (
                    "Écrire 30s, 10m, 2h ou 3d (366 jours au plus).",
                    "Write 30s, 10m, 2h or 3d (366 days at most).",
                ),
            )
            return None

    def day(self, node: Node, of: str) -> date | None:
        """A date."""
        found = self.word(node, f"`{of}`", f"`{of}`")
        if found is None:
            return None
        day = as_date(found.text)
        if day is None:
            self.add(
                "E104",
                found,
                f"date « {shown(found.text)} » illisible pour `{of}`.",
                f"unreadable date “{shown(found.text)}” for `{of}`.",
                ("Écrire AAAA-MM-JJ, par exemple 2026-12-01.", "Write YYYY-MM-DD, for example 2026-12-01."),
            )
        return day

    def missing(self, at: Node, key: str, fr: str, en: str, example: str) -> None:
        """E103, at the place that should have it."""
        self.add(
            "E103",
            at,
            f"il manque `{key}` dans {fr}.",
            f"`{key}` is missing in {en}.",
            (f"Ajouter `{example}`.", f"Add `{example}`."),
        )


class _Reading(Reader):
    """The reading of one rule file."""

    def __init__(self, report: Report, site: Site | None) -> None:
        super().__init__(report)
        self.site = site
        self.target_names: tuple[str, ...] = ()
        self.hours_names: tuple[str, ...] = ()
        self.followup_names: tuple[str, ...] = ()
        self.keyword_names: tuple[str, ...] = ()
        self.desks: set[str] = set()
        self.ids: dict[str, int] = {}

    def rule_set(self, root: Node, file: str, digest: str) -> RuleSet | None:
        top = self.table(root, "le fichier", "the file", _SECTIONS)
        if top is None:
            return None
        version = self._version(root, top)
        if version is None:
            return None
        zone = self._zone(top)
        calendar = self._holidays(top)
        for section in ("hours", "targets", "followups", "keywords"):
            node = top[section][1] if section in top else None
            names = tuple(k.text for k, _ in node.entries) if isinstance(node, Table) else ()
            attribute = {"hours": "hours_names", "targets": "target_names"}.get(section)
            setattr(self, attribute or section[:-1] + "_names", names)
        hours = dict(self._named(top, "hours", lambda k, n: self._hours(k, n, zone, calendar)))
        targets = dict(self._named(top, "targets", self._target))
        if "targets" not in top:
            self.missing(root, "targets", "le fichier", "the file", "targets: { … }")
        followups = dict(self._named(top, "followups", lambda k, n: self._followup(k, n, hours)))
        keywords = dict(self._named(top, "keywords", self._keyword))
        default = self._default(root, top)
        rules = [r for n in self._listed(top, "rules") if (r := self._rule(n)) is not None]
        also = [c for n in self._listed(top, "also") if (c := self._copy(n)) is not None]
        if default is None:
            return None
        return RuleSet(
            version=version,
            file=file,
            digest=digest,
            timezone=zone.key,
            zone=zone,
            targets=targets,
            followups=followups,
            hours=hours,
            rules=tuple(rules),
            also=tuple(also),
            default=default,
            keywords=keywords,
            language="fr" if self.report.french else "en",
        )

    # -- the head of the file

    def _version(self, root: Node, top: Mapping[str, tuple[Scalar, Node]]) -> int | None:
        if "version" not in top:
            self.missing(root, "version", "le fichier", "the file", "version: 1")
            return 1
        node = self.word(top["version"][1], "`version`", "`version`")
        if node is None:
            return None
        if node.text != "1":
            self.add(
                "E108",
                node,
                f"version « {shown(node.text)} » du langage inconnue.",
                f"unknown language version “{shown(node.text)}”.",
                ("Écrire `version: 1`.", "Write `version: 1`."),
            )
            return None
        return 1

    def _zone(self, top: Mapping[str, tuple[Scalar, Node]]) -> ZoneInfo:
        usual = ZoneInfo("Europe/Paris")
        if "timezone" not in top:
            return usual
        node = self.word(top["timezone"][1], "`timezone`", "`timezone`")
        if node is None:
            return usual
        zones = available_timezones()
        if node.text in zones:
            return ZoneInfo(node.text)
        guess = nearest(node.text, zones)
        self.add(
            "E102",
            node,
            f"fuseau « {shown(node.text)} » inconnu."
            + (f" Vouliez-vous dire « {guess} » ?" if guess else ""),
            f"unknown time zone “{shown(node.text)}”." + (f" Did you mean “{guess}”?" if guess else ""),
            (f"Écrire « {guess or 'Europe/Paris'} ».", f"Write “{guess or 'Europe/Paris'}”."),
        )
        return usual

    def _holidays(self, top: Mapping[str, tuple[Scalar, Node]]) -> Holidays:
        if "holidays" not in top:
            return Holidays()
        found = self.table(top["holidays"][1], "`holidays`", "`holidays`", ("country", "subdiv"))
        if found is None:
            return Holidays()
        country = "FR"
        if "country" in found:
            node = self.word(found["country"][1], "`country`", "`country`")
            if node is None:
                return Holidays()
            country = node.text
            try:
                subdivisions(country)
            except KeyError:
                self.unknown_value(node, "country", ("FR", "BE", "CH", "LU", "MC", "DE", "ES", "IT"))
                return Holidays()
        if "subdiv" not in found:
            return Holidays(country)
        node = self.word(found["subdiv"][1], "`subdiv`", "`subdiv`")
        if node is None:
            return Holidays(country)
        known = subdivisions(country)
        if node.text not in known:
            self.unknown_value(node, "subdiv", [n for n in known if known[n] is not None])
            return Holidays(country)
        chosen, whole = Holidays(country, node.text), Holidays(country)
        if all(chosen.year(y) == whole.year(y) for y in range(2020, 2040)):
            self.add(
                "W301",
                node,
                "la subdivision ne change aucun jour férié.",
                "the subdivision changes no public holiday.",
                ("La retirer.", "Remove it."),
            )
        return chosen

    def _named(
        self, top: Mapping[str, tuple[Scalar, Node]], section: str, read: Any
    ) -> Iterator[tuple[str, Any]]:
        # Any: each section's reader has its own result, and the caller knows it.
        if section not in top:
            return
        node = top[section][1]
        if isinstance(node, Scalar) and node.empty:
            return
        found = self.table(node, f"`{section}`", f"`{section}`")
        for name, (key, value) in (found or {}).items():
            if not name or not name.isprintable() or len(name) > 80 or name != name.strip():
                self.word(Scalar(key.line, key.column, ""), "un nom", "a name")
                continue
            if name in ("none", "real", "default"):
                self.add(
                    "E102",
                    key,
                    f"« {name} » est un mot du langage, pas un nom.",
                    f"“{name}” is a word of the language, not a name.",
                    ("Choisir un autre nom.", "Choose another name."),
                )
                continue
            result = read(key, value)
            if result is not None:
                yield name, result

    def _listed(self, top: Mapping[str, tuple[Scalar, Node]], section: str) -> Iterator[Node]:
        if section not in top:
            return
        node = top[section][1]
        if isinstance(node, Listing):
            for item in node.items:
                if self.report.full:
                    return
                yield item
        elif not (isinstance(node, Scalar) and node.empty):
            self.add(
                "E104",
                node,
                f"`{section}` attend une liste.",
                f"`{section}` takes a list.",
                ("Commencer chaque élément par un tiret.", "Start each element with a dash."),
            )

    # -- hours

    def _hours(self, key: Scalar, node: Node, zone: ZoneInfo, calendar: Holidays) -> Hours | None:
        found = self.table(node, f"`hours.{shown(key.text)}`", f"`hours.{shown(key.text)}`")
        if found is None:
            return None
        before = len(self.report.findings)
        week: list[list[tuple[Window, Scalar]]] = [[] for _ in DAYS]
        exceptions: dict[date, tuple[Window, ...]] = {}
        on_holidays: OnHolidays = "open"
        for name, (where, value) in found.items():
            if name == "holidays":
                chosen = self.one_of(value, "holidays", ("closed", "open", "as-sunday"))
                on_holidays = chosen or "open"  # type: ignore[assignment]  # out of the three above
            elif name == "exceptions":
                for each, (place, special) in (
                    self.table(value, "`exceptions`", "`exceptions`") or {}
                ).items():
                    self._exception(each, place, special, exceptions)
            elif name[:1].isdigit():
                self._exception(name, where, value, exceptions)
            else:
                days = self._days(where)
                windows = self._windows(value)
                for day in days:
                    week[day].extend(windows)
        self._overlaps(week)
        if not any(week) and len(self.report.findings) == before:
            self.add(
                "E131",
                key,
                f"« {shown(key.text)} » n'ouvre jamais.",
                f"“{shown(key.text)}” never opens.",
                (
                    'Ajouter des plages, par exemple mon-fri: ["08:00-19:00"].',
                    'Add windows: mon-fri: ["08:00-19:00"].',
                ),
            )
        if not any(week):
            return None
        plain = tuple(tuple(sorted({w for w, _ in day})) for day in week)
        return Hours(key.text, plain, zone, on_holidays, calendar, exceptions)

    def _days(self, key: Scalar) -> list[int]:
        if key.text == "every-day":
            return list(range(7))
        first, dash, last = key.text.partition("-")
        if first in DAYS and (last in DAYS if dash else not last):
            start = DAYS.index(first)
            length = (DAYS.index(last) - start) % 7 + 1 if dash else 1
            return [(start + n) % 7 for n in range(length)]
        self.unknown_key(key, "`hours`", "`hours`", (*DAYS, "mon-fri", "every-day", "holidays", "exceptions"))
        return []

    def _exception(self, name: str, key: Scalar, node: Node, into: dict[date, tuple[Window, ...]]) -> None:
        first, dots, last = name.partition("..")
        start = self.day(Scalar(key.line, key.column, first), "exceptions")
        end = self.day(Scalar(key.line, key.column, last), "exceptions") if dots else start
        if isinstance(node, Scalar) and node.text == "closed":
            windows: list[tuple[Window, Scalar]] = []
        else:
            windows = self._windows(node)
            self._overlaps([windows, [], [], [], [], [], []])
        if start is None or end is None:
            return
        if not start <= end <= start + timedelta(days=366):
            self.add(
                "E104",
                key,
                "période à l'envers, ou de plus d'un an.",
                "a period that ends before it starts, or of more than a year.",
                ("Écrire DÉBUT..FIN.", "Write START..END."),
            )
            return
        for number in range((end - start).days + 1):
            into[start + timedelta(days=number)] = tuple(sorted(w for w, _ in windows))

    def _windows(self, node: Node) -> list[tuple[Window, Scalar]]:
        if isinstance(node, Scalar) and node.text == "closed":
            return []
        read: list[tuple[Window, Scalar]] = []
        for scalar in self.words(node, "une journée", "a day"):
            try:
                read.append((Window.parse(scalar.text.replace(" ", "")), scalar))
            except ValueError:
                self.add(
                    "E131",
                    scalar,
                    f"plage « {shown(scalar.text)} » illisible.",
                    f"unreadable window “{shown(scalar.text)}”.",
                    ('Écrire "08:00-12:30", entre guillemets.', 'Write "08:00-12:30", in quotes.'),
                )
        return read

    def _overlaps(self, week: Sequence[Sequence[tuple[Window, Scalar]]]) -> None:
        """Windows that overlap, over midnight and from Sunday into Monday too."""
        placed = sorted(
            (
                (day * DAY_MINUTES + window.start, day * DAY_MINUTES + window.end, scalar)
                for day, windows in enumerate(week)
                for window, scalar in windows
            ),
            key=lambda each: (each[0], each[1], each[2].line, each[2].column),
        )
        if not placed:
            return
        round_week = 7 * DAY_MINUTES
        following = [*placed[1:], (placed[0][0] + round_week, placed[0][1] + round_week, placed[0][2])]
        for (_, end, one), (start, _, other) in zip(placed, following, strict=True):
            if start < end and len(placed) > 1:
                later = max(one, other, key=lambda s: (s.line, s.column))
                self.add(
                    "E130",
                    later,
                    "plages qui se chevauchent.",
                    "windows that overlap.",
                    ("Raccourcir l'une des deux.", "Shorten one of the two."),
                )

    def _clock(self, node: Node, of: str) -> str | None:
        found = self.word(node, f"`{of}`", f"`{of}`")
        if found is None:
            return None
        if found.text == "real" or found.text in self.hours_names:
            return found.text
        self.undefined(found, "plage horaire|Horloges", "hours|Clocks", ("real", *self.hours_names))
        return None

    # -- targets

    def _target(self, key: Scalar, node: Node) -> Target | None:
        where = f"`targets.{shown(key.text)}`"
        found = self.table(node, where, where, ("who", "via", "carries", "quiet", "basis"))
        if found is None:
            return None
        for needed, example in (
            ("who", "who: registered_gp"),
            ("via", "via: [mss]"),
            ("carries", "carries: pointer"),
        ):
            if needed not in found:
                self.missing(key, needed, where, where, example)
        who = self._who(found["who"][1]) if "who" in found else None
        if who is not None and who.startswith("desk/"):
            self.desks.add(key.text)
        via = self.words(found["via"][1], "`via`", "`via`") if "via" in found else []
        carries = (
            self.one_of(found["carries"][1], "carries", ("document", "notice", "pointer"))
            if "carries" in found
            else None
        )
        basis = self.one_of(found["basis"][1], "basis", _BASES) if "basis" in found else None
        quiet: str | None = None
        if "quiet" in found:
            scalar = self.word(found["quiet"][1], "`quiet`", "`quiet`")
            if scalar is not None and scalar.text not in self.hours_names:
                self.undefined(scalar, "plage horaire|Plages", "hours|Hours", self.hours_names)
            quiet = scalar.text if scalar is not None and scalar.text in self.hours_names else None
        chat = [name for name in via if self._adapter_kind(name) in CHAT_KINDS]
        if carries in ("document", "notice") and chat:
            kind = self._adapter_kind(chat[0]).capitalize()
            self.add(
                "E120",
                key,
                f"`{shown(key.text)}` porte `{carries}` par {kind} : un canal de discussion ne porte que `pointer`.",
                f"`{shown(key.text)}` carries `{carries}` over {kind}: a chat carries only `pointer`.",
                ("Écrire `carries: pointer`.", "Write `carries: pointer`."),
            )
        if who is None or carries is None or not via:
            return None
        if (
            carries == "document"
            and who not in _DOCUMENT_WITHOUT_BASIS
            and not who.startswith("desk/")
            and "basis" not in found
        ):
            self.add(
                "E143",
                key,
                f"« {shown(key.text)} » reçoit un document : précisez `basis`.",
                f"“{shown(key.text)}” receives a document: state its `basis`.",
                (
                    "Ajouter `basis: care_team` ou `basis: consent`.",
                    "Add `basis: care_team` or `basis: consent`.",
                ),
            )
        if (
            self.site is not None
            and self.site.desks.get(who[5:] if who.startswith("desk/") else "") == "reference"
        ):
            carries = "pointer" if carries == "document" else carries
        return Target(
            key.text,
            who,
            tuple(dict.fromkeys(name.text for name in via)),
            carries,  # type: ignore[arg-type]  # out of the three above
            quiet,
            basis,
            key.line,
        )

    def _adapter_kind(self, name: Scalar) -> str:
        """The kind of an adapter; what nobody configured counts as the kind it is named after, else mail."""
        if self.site is not None:
            kind = self.site.adapters.get(name.text)
            if kind is not None and kind in _SENDING_KINDS:
                return kind
            listed = ", ".join(n for n, k in self.site.adapters.items() if k in _SENDING_KINDS) or "—"
            said = ("absent de la configuration", "not in the configuration")
            if kind is not None:
                said = (f"({kind}) n'envoie rien", f"({kind}) sends nothing")
            self.add(
                "W305",
                name,
                f"canal « {shown(name.text)} » {said[0]}. Canaux : {listed}.",
                f"channel “{shown(name.text)}” {said[1]}. Channels: {listed}.",
                ("Le configurer, ou le retirer de `via`.", "Configure it, or remove it from `via`."),
            )
        return name.text if name.text in CHAT_KINDS else "smtp"

    def _who(self, node: Node) -> str | None:
        found = self.word(node, "`who`", "`who`")
        if found is None:
            return None
        group, slash, name = found.text.partition("/")
        if slash and name and group in ("desk", "rota"):
            known = None if self.site is None else (self.site.desks if group == "desk" else self.site.rotas)
            if known is not None and name not in known:
                noun = (
                    ("adresse de bureau|Bureaux", "desk|Desks")
                    if group == "desk"
                    else ("garde|Gardes", "rota|Rotas")
                )
                self.undefined(found, *noun, [f"{group}/{each}" for each in known])
                return None
            return found.text
        if found.text not in PEOPLE:
            self.unknown_value(found, "who", (*PEOPLE, "desk/NOM", "rota/NOM"))
            return None
        return found.text

    def _target_name(self, node: Node, of: str) -> Scalar | None:
        found = self.word(node, f"`{of}`", f"`{of}`")
        return found if found is not None and self._is_target(found) else None

    def _is_target(self, name: Scalar) -> bool:
        if name.text in self.target_names:
            return True
        self.undefined(name, "cible|Cibles", "target|Targets", self.target_names)
        return False

    def _desk_name(self, node: Node, of: str) -> str | None:
        found = self._target_name(node, of)
        if found is None:
            return None
        if found.text not in self.desks:
            listed = ", ".join(n for n in self.target_names if n in self.desks) or "—"
            self.add(
                "E111",
                found,
                f"`{of}` ne prend qu'un bureau ; « {shown(found.text)} » n'en est pas un. Bureaux : {listed}.",
                f"`{of}` takes only a desk; “{shown(found.text)}” is none. Desks: {listed}.",
                ("Choisir une cible `who: desk/…`.", "Choose a target `who: desk/…`."),
            )
            return None
        return found.text

    # -- follow-ups

    def _followup(self, key: Scalar, node: Node, hours: Mapping[str, Hours]) -> Followup | None:
        where = f"`followups.{shown(key.text)}`"
        found = self.table(node, where, where, ("await", "ack", "ladder", "ack_expires", "close"))
        if found is None:
            return None
        awaits = (
            self.one_of(found["await"][1], "await", ("delivered", "seen", "ack"))
            if "await" in found
            else "ack"
        )
        within, clock = None, "real"
        if "ack" in found:
            ack = self.table(found["ack"][1], "`ack`", "`ack`", ("within", "clock")) or {}
            clock = (self._clock(ack["clock"][1], "clock") or "real") if "clock" in ack else "real"
            if "within" in ack:
                within = self.duration(ack["within"][1], "within")
            elif ack or isinstance(found["ack"][1], Table):
                self.missing(found["ack"][0], "within", "`ack`", "`ack`", "within: 2d")
        ladder = self._ladder(key, found.get("ladder"), clock)
        expires = self.duration(found["ack_expires"][1], "ack_expires") if "ack_expires" in found else None
        quiet_for = Duration(2, "d")
        if "close" in found:
            close = self.table(found["close"][1], "`close`", "`close`", ("when", "quiet_for")) or {}
            if "when" in close:
                self.one_of(close["when"][1], "when", ("acknowledged",))
            if "quiet_for" in close:
                quiet_for = self.duration(close["quiet_for"][1], "quiet_for") or quiet_for
        if expires is not None and _reopens(expires, quiet_for, hours.get(clock)):
            self.add(
                "E141",
                found["ack_expires"][0],
                f"« {shown(key.text)} » : `ack_expires` rouvrirait chaque fil avant sa clôture.",
                f"“{shown(key.text)}”: `ack_expires` would re-open each thread before it closes.",
                (f"Dépasser `quiet_for` ({quiet_for}).", f"Make it longer than `quiet_for` ({quiet_for})."),
            )
        if awaits is None or not ladder:
            return None
        return Followup(
            key.text,
            awaits,  # type: ignore[arg-type]  # out of the three above
            within or ladder[-1].after,
            clock,
            tuple(ladder),
            expires,
            quiet_for,
            key.line,
        )

    def _ladder(self, key: Scalar, entry: tuple[Scalar, Node] | None, clock: str) -> list[Step]:
        steps: list[Step] = []
        ends_at_desk = False
        items = entry[1].items if entry is not None and isinstance(entry[1], Listing) else ()
        for number, item in enumerate(items):
            found = self.table(item, "`ladder`", "`ladder`", ("after", "clock", "remind", "hand_to"))
            if found is None:
                continue
            last = number == len(items) - 1
            if "after" not in found:
                self.missing(item, "after", "`ladder`", "`ladder`", "after: 1d")
            after = self.duration(found["after"][1], "after") if "after" in found else None
            own = self._clock(found["clock"][1], "clock") if "clock" in found else clock
            remind = hand_to = None
            if ("remind" in found) == ("hand_to" in found):
                self.add(
                    "E112",
                    item,
                    "une étape a soit `remind`, soit `hand_to`.",
                    "a step has either `remind` or `hand_to`.",
                    ("N'en garder qu'un.", "Keep one of them."),
                )
            elif "remind" in found:
                scalar = self._target_name(found["remind"][1], "remind")
                remind = scalar.text if scalar else None
            elif last:
                # Its own error is E140 below, at the follow-up's name.
                scalar = self._target_name(found["hand_to"][1], "hand_to")
                hand_to = scalar.text if scalar and scalar.text in self.desks else None
                ends_at_desk = hand_to is not None or scalar is None
            else:
                hand_to = self._desk_name(found["hand_to"][1], "hand_to")
            if after is not None and own is not None and (remind or hand_to):
                if steps and steps[-1].clock == own and after.elapsed < steps[-1].after.elapsed:
                    self.add(
                        "W306",
                        found["after"][1],
                        f"étape à {after}, placée après une étape à {steps[-1].after}.",
                        f"a step at {after} after a step at {steps[-1].after}.",
                        ("Ranger les étapes par délai.", "Put the steps in order of time."),
                    )
                steps.append(Step(after, own, remind, hand_to))
        if not ends_at_desk:
            name = shown(key.text)
            self.add(
                "E140",
                key,
                f"échelle « {name} » : la dernière étape doit être `hand_to` un bureau.",
                f"ladder “{name}”: the last step must `hand_to` a desk.",
                (
                    "Finir par `{ after: 3d, hand_to: BUREAU }`.",
                    "End with `{ after: 3d, hand_to: DESK }`.",
                ),
            )
            return []
        return steps

    # -- keywords

    def _keyword(self, key: Scalar, node: Node) -> tuple[Any, tuple[Any, ...]] | None:
        words: list[str] = []
        patterns: list[Any] = []
        where = f"`keywords.{shown(key.text)}`"
        items = node.items if isinstance(node, Listing) else (node,)
        for item in items:
            explicit = False
            if isinstance(item, Table):
                found = self.table(item, where, where, ("matches",)) or {}
                if "matches" not in found:
                    continue
                item, explicit = found["matches"][1], True
            scalar = self.word(item, where, where)
            if scalar is None:
                continue
            if explicit or _PATTERN_SIGNS.search(scalar.text):
                pattern = self._pattern(scalar, fold_case=True)
                if pattern is not None:
                    patterns.append(pattern)
            else:
                words.append(re2.escape(fold(" ".join(scalar.text.split()))).replace("\\ ", r"\s+"))
        if not words and not patterns:
            self.words(Listing(node.line, node.column, ()), where, where)
            return None
        # RE2's \b knows only ASCII letters.
        joined = compile_pattern_set(words)
        return joined, tuple(patterns)

    def _pattern(self, scalar: Scalar, *, fold_case: bool = False) -> Any:  # google-re2 has no types
        try:
            return compile_pattern(scalar.text, fold_case=fold_case)
        except ValueError as error:
            why = shown(str(error))
            self.add(
                "E113",
                scalar,
                f"expression « {shown(scalar.text)} » refusée par RE2 ({why}).",
                f"expression “{shown(scalar.text)}” refused by RE2 ({why}).",
                ("Corriger l'expression, ou énumérer les valeurs.", "Correct it, or list the values."),
            )
            return None

    # -- rules

    def _default(self, root: Node, top: Mapping[str, tuple[Scalar, Node]]) -> Default | None:
        if "default" not in top:
            self.missing(root, "default", "le fichier", "the file", "default: { hold: BUREAU, reason: … }")
            return None
        key, node = top["default"]
        found = self.table(node, "`default`", "`default`", ("hold", "reason"))
        if found is None:
            return None
        if "hold" not in found and not whole(node, found):
            return None
        if "hold" not in found:
            self.missing(key, "hold", "`default`", "`default`", "hold: BUREAU")
            return None
        reason = self.report.say("Aucune règle ne correspond", "No rule matches")
        if "reason" in found:
            scalar = self.word(found["reason"][1], "`reason`", "`reason`")
            reason = scalar.text if scalar else reason
        hold = self._desk_name(found["hold"][1], "hold")
        return Default(hold, reason, key.line) if hold else None

    def _identified(
        self, node: Node, keys: Sequence[str], fr: str, en: str
    ) -> dict[str, tuple[Scalar, Node]] | None:
        found = self.table(node, fr, en, keys)
        if found is None:
            return None
        if "id" not in found:
            self.missing(node, "id", fr, en, "id: …")
            return None
        key, value = found["id"]
        scalar = self.word(value, "`id`", "`id`")
        if scalar is None:
            return None
        if len(scalar.text) > 80 or not scalar.text.isprintable() or scalar.text.split() != [scalar.text]:
            self.add(
                "E104",
                scalar,
                "un `id` est un seul mot, sans espace.",
                "an `id` is one word, without spaces.",
                ("Mettre des tirets : sortie-urgente.", "Use dashes: sortie-urgente."),
            )
            return None
        if scalar.text == "default":
            self.add(
                "E102",
                scalar,
                "« default » est un mot du langage, pas un id.",
                "“default” is a word of the language, not an id.",
                ("Choisir un autre id.", "Choose another id."),
            )
        names = [scalar]
        if "was" in found:
            names += self.words(found["was"][1], "`was`", "`was`")
        for each in names:
            first = self.ids.setdefault(each.text, key.line)
            if first != key.line:
                at = key if each is scalar else each
                self.add(
                    "E203",
                    at,
                    f"id « {shown(each.text)} » déjà utilisé l.{first}.",
                    f"id “{shown(each.text)}” already used on line {first}.",
                    ("Donner un autre id à cette règle.", "Give this rule another id."),
                )
        return found

    def _life(
        self, found: Mapping[str, tuple[Scalar, Node]]
    ) -> tuple[date | None, date | None, Mode, tuple[str, ...]]:
        start = self.day(found["from"][1], "from") if "from" in found else None
        until = self.day(found["until"][1], "until") if "until" in found else None
        if start and until and until < start:
            self.add(
                "E104",
                found["until"][1],
                "`until` vient avant `from`.",
                "`until` comes before `from`.",
                ("Corriger l'une des deux dates.", "Correct one of the dates."),
            )
        mode = self.one_of(found["mode"][1], "mode", ("on", "observe", "off")) if "mode" in found else "on"
        was = tuple(s.text for s in self.words(found["was"][1], "`was`", "`was`")) if "was" in found else ()
        return start, until, mode or "on", was  # type: ignore[return-value]  # out of the three above

    def _rule(self, node: Node) -> Rule | None:
        found = self._identified(node, _RULE_KEYS, "une règle", "a rule")
        if found is None:
            return None
        key, value = found["id"]
        name = value.text if isinstance(value, Scalar) else ""
        when = self._when(key, found)
        start, until, mode, was = self._life(found)
        verbs = [verb for verb in ("send", "hold", "file") if verb in found]
        if not verbs and not whole(node, found):
            return None  # the verb is probably the key that was not known
        if len(verbs) != 1:
            self.add(
                "E112",
                key if not verbs else found[verbs[1]][0],
                f"règle « {shown(name)} » : une règle a exactement une action, `send`, `hold` ou `file`.",
                f"rule “{shown(name)}”: a rule has exactly one action, `send`, `hold` or `file`.",
                (
                    "Rien ne s'écarte : retenir (`hold`) ou classer (`file`).",
                    "Nothing is dropped: hold it or file it.",
                ),
            )
            return None
        action = verbs[0]
        targets: tuple[str, ...] = ()
        hold: str | None = None
        followup: str | None = None
        reason = ""
        if "reason" in found:
            scalar = self.word(found["reason"][1], "`reason`", "`reason`")
            reason = scalar.text if scalar else ""
        if action == "send":
            named = [t for t in self.words(found["send"][1], "`send`", "`send`") if self._is_target(t)]
            targets = tuple(dict.fromkeys(t.text for t in named))
            followup = self._followup_name(key, found, name)
        elif action == "hold":
            hold = self._desk_name(found["hold"][1], "hold")
            if "reason" not in found:
                self.missing(
                    found["hold"][0],
                    "reason",
                    f"la règle « {shown(name)} »",
                    f"rule “{shown(name)}”",
                    'reason: "…"',
                )
        else:
            scalar = self.word(found["file"][1], "`file`", "`file`")
            reason = scalar.text if scalar else ""
            if when is not None and _could_be_true(when):
                self.add(
                    "E142",
                    key,
                    "`file` pourrait classer une sortie sans suite.",
                    "`file` could file a discharge with nobody told.",
                    (
                        "Limiter `event` à admission, transfer, birth ou other, ou retenir (`hold`).",
                        "Limit `event` to admission, transfer, birth or other, or `hold`.",
                    ),
                )
        for only in ("followup", "grace"):
            if action != "send" and only in found:
                self.add(
                    "E112",
                    found[only][0],
                    f"`{only}` ne va qu'avec `send`.",
                    f"`{only}` goes only with `send`.",
                    ("Le retirer.", "Remove it."),
                )
        grace = self.duration(found["grace"][1], "grace") if "grace" in found else None
        unknown = (
            self.one_of(found["if_unknown"][1], "if_unknown", ("hold", "skip"))
            if "if_unknown" in found
            else None
        )
        if when is None or (action == "send" and not targets) or (action == "hold" and hold is None):
            return None
        return Rule(
            id=name,
            was=was,
            line=key.line,
            column=key.column,
            when=when,
            action=action,
            targets=targets,
            followup=followup,
            hold=hold,
            reason=reason,
            start=start,
            until=until,
            mode=mode,
            grace=grace,
            skip_unknown=unknown == "skip",
        )

    def _followup_name(self, key: Scalar, found: Mapping[str, tuple[Scalar, Node]], name: str) -> str | None:
        if "followup" not in found:
            self.missing(
                found["send"][0],
                "followup",
                f"la règle « {shown(name)} »",
                f"rule “{shown(name)}”",
                f"followup: {next(iter(self.followup_names), 'none')}",
            )
            return None
        scalar = self.word(found["followup"][1], "`followup`", "`followup`")
        if scalar is None or (scalar.text == "none"):
            return None
        if scalar.text not in self.followup_names:
            self.undefined(scalar, "suite|Suites", "follow-up|Follow-ups", (*self.followup_names, "none"))
            return None
        return scalar.text

    def _copy(self, node: Node) -> Copy | None:
        found = self._identified(node, _COPY_KEYS, "`also`", "`also`")
        if found is None:
            return None
        key, value = found["id"]
        name = value.text if isinstance(value, Scalar) else ""
        when = self._when(key, found)
        start, until, mode, was = self._life(found)
        if "copy" not in found:
            self.missing(key, "copy", f"la copie « {shown(name)} »", f"copy “{shown(name)}”", "copy: CIBLE")
            return None
        target = self._target_name(found["copy"][1], "copy")
        if when is None or target is None:
            return None
        return Copy(name, was, key.line, key.column, when, target.text, start, until, mode)

    # -- when

    def _when(self, at: Scalar, found: Mapping[str, tuple[Scalar, Node]]) -> When | None:
        if "when" not in found:
            self._empty(at)
            return None
        key, node = found["when"]
        if (isinstance(node, Scalar) and node.empty) or (isinstance(node, Table) and not node.entries):
            self._empty(key)
            return None
        keys = (*FIELDS, "during", "any", "all", "unless")
        entries = self.table(node, "`when`", "`when`", keys)
        if entries is None:
            return None
        tests: list[Test | None] = []
        groups: dict[str, tuple[tuple[Test, ...], ...]] = {}
        sound = True
        for name, (place, value) in entries.items():
            if name in ("any", "all"):
                read = self._conjunctions(place, value)
                groups[name] = read or ()
                sound = sound and read is not None
            elif name == "unless":
                inner = self._conjunction(value, "unless")
                groups[name] = (inner or (),)
                sound = sound and inner is not None
            else:
                tests.append(self._test(name, place, value))
        good = [t for t in tests if t is not None]
        if not sound or len(good) != len(tests) or not entries:
            return None
        unless = groups.get("unless")
        return When(tuple(good), groups.get("any"), groups.get("all"), unless[0] if unless else None)

    def _empty(self, at: Scalar) -> None:
        self.add(
            "E109",
            at,
            "`when` est vide : la règle prendrait tout.",
            "`when` is empty: the rule would take everything.",
            ("Donner une condition, ou utiliser `default`.", "Give a condition, or use `default`."),
        )

    def _conjunctions(self, key: Scalar, node: Node) -> tuple[tuple[Test, ...], ...] | None:
        if not isinstance(node, Listing) or not node.items:
            self.add(
                "E104",
                node,
                f"`{key.text}` attend une liste de conditions.",
                f"`{key.text}` takes a list of conditions.",
                ("Écrire `- { champ: valeur }`, une par ligne.", "Write `- { field: value }`, one a line."),
            )
            return None
        read = [self._conjunction(item, key.text) for item in node.items]
        good = tuple(each for each in read if each is not None)
        return good if len(good) == len(read) else None

    def _conjunction(self, node: Node, of: str) -> tuple[Test, ...] | None:
        if isinstance(node, Table):
            for key, _ in node.entries:
                if key.text in ("any", "all", "unless"):
                    self.add(
                        "E101",
                        key,
                        f"`{key.text}` ne va pas dans `{of}` : un seul niveau.",
                        f"`{key.text}` can't stand inside `{of}`: one level only.",
                        ("Écrire deux règles.", "Write two rules."),
                    )
                    return None
        entries = self.table(node, f"`{of}`", f"`{of}`", (*FIELDS, "during"))
        if entries is None:
            return None
        if isinstance(node, Table) and not node.entries:
            self.add(
                "E109",
                node,
                f"condition vide dans `{of}`.",
                f"empty condition in `{of}`.",
                ("Y mettre un champ, ou la retirer.", "Put a field in, or remove it."),
            )
            return None
        tests = [self._test(name, place, value) for name, (place, value) in entries.items()]
        good = tuple(t for t in tests if t is not None)
        whole = isinstance(node, Table) and len(good) == len(node.entries)
        return good if whole else None

    def _test(self, name: str, key: Scalar, node: Node) -> Test | None:
        if name == "during":
            scalar = self.word(node, "`during`", "`during`")
            if scalar is None:
                return None
            if scalar.text not in self.hours_names:
                self.undefined(scalar, "plage horaire|Plages", "hours|Hours", self.hours_names)
                return None
            return Test(name, key.line, key.column, scalar.text, during=scalar.text)
        entry = FIELDS[name]
        if isinstance(node, Table):
            return self._compared(entry, key, node)
        values: set[str | bool | float] = set()
        scalars = self.words(node, f"`{name}`", f"`{name}`")
        for scalar in scalars:
            value = self.value(entry, scalar)
            if value is not None:
                values.add(value)
        asked = len(node.items) if isinstance(node, Listing) else 1
        if len(scalars) != asked or (len(values) < asked and self._some_wrong(entry, scalars)) or not values:
            return None
        words = tuple(s.text for s in scalars)
        return Test(
            name, key.line, key.column, words[0] if isinstance(node, Scalar) else words, frozenset(values)
        )

    def _some_wrong(self, entry: Field, scalars: Iterable[Scalar]) -> bool:
        return any(typed(entry, s.text) is None for s in scalars)

    def value(self, entry: Field, scalar: Scalar) -> str | bool | float | None:
        """A value a rule compares a field with, typed by the field; None with a finding."""
        value = typed(entry, scalar.text)
        if value is None:
            self._wrong_value(entry, scalar)
            return None
        if entry.name == "mentions" and scalar.text not in self.keyword_names:
            self.undefined(
                scalar, "liste de mots|Listes (`keywords`)", "keyword group|Groups", self.keyword_names
            )
            return None
        known: Iterable[str] = ()
        if self.site is not None and entry.name == "ward":
            known = self.site.wards
        elif self.site is not None and entry.name == "mailbox":
            known = self.site.adapters
        if known and scalar.text.casefold() not in {each.casefold() for each in known}:
            self.unknown_value(scalar, entry.name, sorted(known))
            return None
        return value

    def _wrong_value(self, entry: Field, scalar: Scalar) -> None:
        if scalar.text == "unknown":
            self.add(
                "E102",
                scalar,
                f"« unknown » ne se compare pas : un avis dont `{entry.name}` est illisible est retenu.",
                f"“unknown” can't be matched: a notice whose `{entry.name}` is unreadable is held.",
                (
                    "Pour passer à la suivante : `if_unknown: skip`.",
                    "To go on to the next: `if_unknown: skip`.",
                ),
            )
        elif entry.kind == "yesno":
            self.unknown_value(scalar, entry.name, ("yes", "no"))
        elif entry.kind == "number":
            self.add(
                "E102",
                scalar,
                f"« {shown(scalar.text)} » n'est pas un nombre (`{entry.name}`).",
                f"“{shown(scalar.text)}” is not a number (`{entry.name}`).",
                ("Écrire 75, ou { gte: 75 }.", "Write 75, or { gte: 75 }."),
            )
        else:
            self.unknown_value(scalar, entry.name, entry.values)

    def _compared(self, entry: Field, key: Scalar, node: Table) -> Test | None:
        allowed: tuple[str, ...] = {"number": _COMPARISONS, "text": ("matches",)}.get(entry.kind, ())
        if not allowed:
            self.add(
                "E104",
                node,
                f"`{entry.name}` attend une valeur ou une liste de valeurs.",
                f"`{entry.name}` takes a value or a list of values.",
                (f"Écrire `{entry.name}: [ … ]`.", f"Write `{entry.name}: [ … ]`."),
            )
            return None
        found = self.table(node, f"`{entry.name}`", f"`{entry.name}`", allowed) or {}
        if not node.entries:
            self.missing(node, " | ".join(allowed), f"`{entry.name}`", f"`{entry.name}`", f"{allowed[0]}: …")
        if len(found) != len(node.entries) or not found:
            return None
        words: dict[str, str] = {}
        bounds: list[tuple[str, float]] = []
        pattern: Any = None
        for sign, (_, value) in found.items():
            scalar = self.word(value, f"`{sign}`", f"`{sign}`")
            if scalar is None:
                return None
            words[sign] = scalar.text
            if sign == "matches":
                pattern = self._pattern(scalar)
                if pattern is None:
                    return None
            else:
                number = as_number(scalar.text)
                if number is None:
                    self._wrong_value(entry, scalar)
                    return None
                bounds.append((sign, number))
        return Test(entry.name, key.line, key.column, words, bounds=tuple(bounds), pattern=pattern)


def whole(node: Node, found: Mapping[str, tuple[Scalar, Node]]) -> bool:
    """Whether every key of a mapping was one that may stand there."""
    return isinstance(node, Table) and len(node.entries) == len(found)


def typed(entry: Field, text: str) -> str | bool | float | None:
    """A written value as its field has it (texts case-folded), or None when it is none of that type."""
    if entry.kind == "enum":
        return text if text in entry.values else None
    if entry.kind == "yesno":
        return as_yes_no(text)
    if entry.kind == "number":
        return as_number(text)
    return text if entry.kind == "set" else text.casefold()


def compile_pattern_set(words: Sequence[str]) -> Any:  # google-re2 has no types
    """One expression that finds any of these folded words whole; None for none."""
    if not words:
        return None
    options = re2.Options()
    options.log_errors = False
    return re2.compile(r"(?:^|[^\pL\pN])(?:" + "|".join(words) + r")(?:[^\pL\pN]|$)", options)


def _reopens(expires: Duration, quiet_for: Duration, hours: Hours | None) -> bool:
    """Whether an acknowledgement would, at some hour of an ordinary week, expire before the thread closes."""
    monday = datetime(2026, 6, 8, tzinfo=UTC)  # no public holiday near, in France at least
    return any(
        add(at, expires, hours) <= add(at, quiet_for, hours)
        for at in (monday + timedelta(hours=hour) for hour in range(0, 7 * 24, 3))
    )


def _could_be_true(when: When) -> bool:
    """Whether an event that needs somebody could satisfy a `when`, other fields left open."""
    return any(_possible(when, event)[0] for event in NEEDS_SOMEBODY)


def _possible(when: When, event: str) -> tuple[bool, bool]:
    """Whether `when` can be true, and can be false, with that event."""

    def one(test: Test) -> tuple[bool, bool]:
        if test.field != "event":
            return True, True
        return (True, False) if event in test.values else (False, True)

    def conjunction(parts: Iterable[tuple[bool, bool]]) -> tuple[bool, bool]:
        parts = list(parts)
        return all(yes for yes, _ in parts), any(no for _, no in parts)

    parts = [one(test) for test in when.tests]
    if when.any_of is not None:
        each = [conjunction(map(one, group)) for group in when.any_of]
        parts.append((any(yes for yes, _ in each), all(no for _, no in each)))
    if when.all_of is not None:
        parts += [conjunction(map(one, group)) for group in when.all_of]
    if when.unless is not None:
        yes, no = conjunction(map(one, when.unless))
        parts.append((no, yes))
    return conjunction(parts)
