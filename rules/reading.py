"""Reading a rule file: from nodes with positions to the values of a rule set, every mistake told once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, available_timezones

from relay.calendar import DAY_MINUTES, DAYS, Duration, Holidays, Hours, OnHolidays, Window, add, subdivisions
from rules.conditions import ConditionReader, Names, takes_discharges
from rules.keywords import Keyword, compile_words, fold
from rules.meant import days_meant, nearest, window_meant
from rules.nodes import DESKS, FOLLOWUPS, HOURS, ROTAS, TARGETS, Entries, Place, whole
from rules.ruleset import (
    CHAT_KINDS,
    DOCUMENT_WITHOUT_BASIS,
    PEOPLE,
    SENDING_KINDS,
    Copy,
    Default,
    Followup,
    Mode,
    Rule,
    RuleSet,
    Site,
    Step,
    Target,
)
from rules.source import Listing, Node, Report, Scalar, Table, shown
from rules.words import said_of_pattern

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

RULE_KEYS: Final = (
    *("id", "was", "when", "send", "followup", "hold", "reason", "file"),
    *("from", "until", "mode", "grace", "if_unknown"),
)
COPY_KEYS: Final = ("id", "was", "when", "copy", "from", "until", "mode")
SECTIONS: Final = (
    *("version", "timezone", "holidays", "hours", "targets", "followups", "keywords"),
    *("rules", "also", "default"),
)
RESERVED: Final = ("none", "real", "default")
TARGET_KEYS: Final = ("who", "via", "carries", "quiet", "basis")
FOLLOWUP_KEYS: Final = ("await", "ack", "ladder", "ack_expires", "close")
STEP_KEYS: Final = ("after", "clock", "remind", "hand_to")
HOURS_KEYS: Final = (*DAYS, "mon-fri", "every-day", "holidays", "exceptions")
_FILE: Final = ("le fichier", "the file")
_PATTERN_SIGNS: Final = re.compile(r"[\\^$|?*+()\[\]{}]")
_NAME_LENGTH: Final = 80
_FEW: Final = 20


class FileReader(ConditionReader):
    """The reading of one rule file."""

    def __init__(self, report: Report, site: Site | None) -> None:
        super().__init__(report, site)
        self.target_names: Names = {}
        self.followup_names: Names = {}
        self.desks: set[str] = set()
        self.clocks: Mapping[str, Hours] = {}
        self.ids: dict[str, Scalar] = {}

    def rule_set(self, root: Node, file: str, digest: str, text: str) -> RuleSet | None:
        """The file's rule set; None when too little of it could be read. Errors are in the report."""
        top = self.table(root, _FILE, SECTIONS)
        if top is None or not self._version(root, top := _as_meant(root, top)):
            return None
        self.target_names = _names(top, "targets")
        self.hours_names = _names(top, "hours")
        self.followup_names = _names(top, "followups")
        self.keyword_names = _names(top, "keywords")
        zone = self._zone(top)
        calendar = self._holidays(top)
        hours = dict(self._named(top, "hours", lambda k, n: self._hours(k, n, zone, calendar)))
        self.clocks = hours
        targets = dict(self._named(top, "targets", self._target))
        if "targets" not in top:
            self.missing(root, "targets", _FILE, "targets: { … }")
        followups = dict(self._named(top, "followups", lambda k, n: self._followup(k, n, hours)))
        keywords = dict(self._named(top, "keywords", self._keyword))
        default = self._default(root, top)
        rules = [r for n in self._listed(top, "rules") if (r := self._rule(n)) is not None]
        also = [c for n in self._listed(top, "also") if (c := self._copy(n)) is not None]
        if default is None:
            return None
        return RuleSet(
            version=1,
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
            wards=self.site.spellings if self.site is not None else (),
            text=text,
        )

    # -- the head of the file

    def _version(self, root: Node, top: Entries) -> bool:
        """Whether the rest can be read as the language we know."""
        if "version" not in top:
            self.missing(root, "version", _FILE, "version: 1")
            return True
        node = self.word(top["version"][1], "version")
        if node is not None and node.text != "1":
            self.tell("version", node, word=shown(node.text))
        return node is not None and node.text == "1"

    def _zone(self, top: Entries) -> ZoneInfo:
        node = self.word(top["timezone"][1], "timezone") if "timezone" in top else None
        zones = available_timezones() if node is not None else ()
        if node is not None and node.text in zones:
            return ZoneInfo(node.text)
        if node is not None:
            self.tell("unknown_zone", node, nearest(node.text, zones), word=shown(node.text))
        return ZoneInfo("Europe/Paris")

    def _holidays(self, top: Entries) -> Holidays:
        usual = Holidays()
        found = self.table(top["holidays"][1], "holidays", ("country", "subdiv")) if "holidays" in top else {}
        country = self.word(found["country"][1], "country") if found and "country" in found else None
        name = country.text if country is not None else usual.country
        try:
            known = subdivisions(name)
        except KeyError:
            if country is not None:
                self.unknown_value(country, "country", ("FR", "BE", "CH", "LU", "MC", "DE", "ES", "IT"))
            return usual
        node = self.word(found["subdiv"][1], "subdiv") if found and "subdiv" in found else None
        if node is None:
            return Holidays(name)
        if node.text not in known:
            self.unknown_value(node, "subdiv", [part for part in known if known[part] is not None])
            return Holidays(name)
        chosen, country_wide = Holidays(name, node.text), Holidays(name)
        if all(chosen.year(year) == country_wide.year(year) for year in range(2020, 2040)):
            self.tell("same_holidays", node)
        return chosen

    def _named(
        self, top: Entries, section: str, read: Callable[[Scalar, Node], Any]
    ) -> Iterator[tuple[str, Any]]:
        # Any: each section's reader has its own result, and the caller knows it.
        node = top[section][1] if section in top else None
        if node is None or (isinstance(node, Scalar) and node.empty):
            return
        for name, (key, value) in (self.table(node, section) or {}).items():
            if not name.isprintable() or len(name) > _NAME_LENGTH or name != name.strip() or not name:
                self.tell("no_word", key, place=("un nom", "a name"))
            elif name in RESERVED:
                self.tell("reserved", key, word=name)
            elif (result := read(key, value)) is not None:
                yield name, result

    def _listed(self, top: Entries, section: str) -> Iterator[Node]:
        node = top[section][1] if section in top else None
        if isinstance(node, Listing):
            for item in node.items:
                if self.report.full:
                    return
                yield item
        elif node is not None and not (isinstance(node, Scalar) and node.empty):
            self.tell("no_list", node, of=section)

    # -- hours

    def _hours(self, key: Scalar, node: Node, zone: ZoneInfo, calendar: Holidays) -> Hours | None:
        found = self.table(node, f"hours.{shown(key.text)}")
        if found is None:
            return None
        before = len(self.report.findings)
        week: list[list[tuple[Window, Scalar]]] = [[] for _ in DAYS]
        closed: dict[int, tuple[int, Scalar]] = {}
        opened: dict[int, tuple[int, Scalar]] = {}
        exceptions: dict[date, tuple[Window, ...]] = {}
        on_holidays: OnHolidays = "open"
        for name, (where, value) in found.items():
            if name == "holidays":
                chosen = self.one_of(value, "holidays", ("closed", "open", "as-sunday"))
                on_holidays = chosen or "open"  # type: ignore[assignment]  # out of the three above
            elif name == "exceptions":
                for special, day in (self.table(value, "exceptions") or {}).values():
                    self._exception(special, day, exceptions)
            elif name[:1].isdigit():
                self._exception(where, value, exceptions)
            else:
                windows = self._windows(value)
                days = self._days(where)
                shut = isinstance(value, Scalar) and value.text == "closed"
                told = closed if shut else opened
                for number in days:
                    week[number].extend(windows)
                    if (shut or windows) and len(days) < told.get(number, (8, where))[0]:
                        told[number] = len(days), where
        self._shut(week, closed, opened)
        self._overlaps(week)
        if not any(week):
            if len(self.report.findings) == before:
                self.tell("never_open", key, word=shown(key.text))
            return None
        plain = tuple(tuple(sorted({window for window, _ in day})) for day in week)
        return Hours(key.text, plain, zone, on_holidays, calendar, exceptions)

    def _shut(
        self,
        week: Sequence[list[tuple[Window, Scalar]]],
        closed: Mapping[int, tuple[int, Scalar]],
        opened: Mapping[int, tuple[int, Scalar]],
    ) -> None:
        """Empty the days said to be closed by a key of fewer days than any that opens them; as many contradict.

        `closed` and `opened` have, of each day, the key of the fewest days and how many these are.
        """
        told: set[Scalar] = set()
        for number in sorted(closed.keys() & opened.keys()):
            (days, where), (others, other) = closed[number], opened[number]
            if days < others:
                week[number].clear()
            elif days == others and where not in told:
                told.add(where)
                self.tell("open_anyway", where, word=where.text, day=DAYS[number], other=other.text)

    def _days(self, key: Scalar) -> list[int]:
        if key.text == "every-day":
            return list(range(7))
        first, dash, last = key.text.partition("-")
        if first in DAYS and (last in DAYS if dash else not last):
            start = DAYS.index(first)
            length = (DAYS.index(last) - start) % 7 + 1 if dash else 1
            return [(start + number) % 7 for number in range(length)]
        self.unknown_key(key, "`hours`", HOURS_KEYS, days_meant(key.text))
        return []

    def _exception(self, key: Scalar, node: Node, into: dict[date, tuple[Window, ...]]) -> None:
        first, dots, last = key.text.partition("..")
        start = self.day(Scalar(key.line, key.column, first), "exceptions")
        end = self.day(Scalar(key.line, key.column, last), "exceptions") if dots else start
        windows = self._windows(node)
        self._overlaps([windows, *[[]] * 6])
        if start is None or end is None:
            return
        if not start <= end <= start + timedelta(days=366):
            self.tell("period", key)
            return
        special = tuple(sorted(window for window, _ in windows))
        for number in range((end - start).days + 1):
            day = start + timedelta(days=number)
            if into.setdefault(day, special) != special:
                self.tell("day_twice", key, word=day)
                return

    def _windows(self, node: Node) -> list[tuple[Window, Scalar]]:
        if isinstance(node, Scalar) and node.text == "closed":
            return []
        read: list[tuple[Window, Scalar]] = []
        for scalar in self.words(node, ("une journée", "a day")):
            try:
                read.append((Window.parse(scalar.text.replace(" ", "")), scalar))
            except ValueError:
                guess = window_meant(scalar.text) or nearest(scalar.text, ("closed",))
                self.tell("window", scalar, guess, word=shown(scalar.text))
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
        if len(placed) < 2:
            return
        again, until, scalar = placed[0]
        following = [*placed[1:], (again + 7 * DAY_MINUTES, until + 7 * DAY_MINUTES, scalar)]
        for (_, end, one), (start, _, other) in zip(placed, following, strict=True):
            if start < end:
                self.tell("overlap", max(one, other, key=lambda s: (s.line, s.column)))

    def _clock(self, node: Node) -> str | None:
        found = self.word(node, "clock")
        if found is not None and found.text != "real" and found.text not in self.hours_names:
            self.undefined(found, HOURS, ("real", *self.hours_names))
            return None
        return found.text if found is not None else None

    # -- targets

    def _target(self, key: Scalar, node: Node) -> Target | None:
        name = shown(key.text)
        found = self.table(node, f"targets.{name}", TARGET_KEYS)
        if found is None:
            return None
        for needed, example in (("who", "registered_gp"), ("via", "[mss]"), ("carries", "pointer")):
            if needed not in found and whole(node, found):
                self.missing(key, needed, f"targets.{name}", f"{needed}: {example}")
        who = self._who(key, found["who"][1]) if "who" in found else None
        written = found["who"][1] if "who" in found else None
        if who is None and (not isinstance(written, Scalar) or written.text.startswith("desk")):
            self.desks.add(key.text)  # meant for one, perhaps: nothing more is said wherever it is to hold
        via = self.words(found["via"][1], "via") if "via" in found else []
        carries = None
        if "carries" in found:
            carries = self.one_of(found["carries"][1], "carries", ("document", "notice", "pointer"))
        basis = (
            self.one_of(found["basis"][1], "basis", ("care_team", "consent")) if "basis" in found else None
        )
        quiet = self.hours_name(found["quiet"][1], "quiet") if "quiet" in found else None
        if quiet is not None and quiet in self.clocks and _endless(self.clocks[quiet]):
            self.tell("never_ends", found["quiet"][1], word=quiet)
        chats = [kind for adapter in via if (kind := self._adapter_kind(adapter)) in CHAT_KINDS]
        if carries in ("document", "notice") and chats:
            self.tell("chat_document", key, word=name, carries=carries, kind=chats[0].capitalize())
        if who is None or carries is None or not via:
            return None
        desk = who[5:] if who.startswith("desk/") else None
        if (
            carries == "document"
            and desk is None
            and who not in DOCUMENT_WITHOUT_BASIS
            and "basis" not in found
        ):
            self.tell("no_basis", key, word=name)
        if desk and self.site is not None and self.site.desks.get(desk) == "reference":
            carries = "pointer"
        return Target(
            name=key.text,
            who=who,
            via=tuple(dict.fromkeys(adapter.text for adapter in via)),
            carries=carries,  # type: ignore[arg-type]  # out of the three above
            quiet=quiet,
            basis=basis,
            line=key.line,
        )

    def _adapter_kind(self, name: Scalar) -> str:
        """The kind of an adapter; what nobody configured counts as the kind it is named after, else mail.

        A site without any adapter is a new one, and hears at `relay check` that nothing leaves.
        """
        if self.site is not None and self.site.adapters:
            kind = self.site.adapters.get(name.text)
            if kind in SENDING_KINDS:
                return kind
            sending = [each for each, k in self.site.adapters.items() if k in SENDING_KINDS]
            listed, guess = ", ".join(sending) or "—", None
            if kind is not None:
                problem = (f"({kind}) n'envoie rien", f"({kind}) sends nothing")
            else:
                problem = ("absent de la configuration", "not in the configuration")
                guess = self._guess(name, sending)
            self.tell("channel", name, guess, word=shown(name.text), problem=problem, listed=listed)
        return name.text if name.text in CHAT_KINDS else "smtp"

    def _who(self, key: Scalar, node: Node) -> str | None:
        found = self.word(node, "who")
        if found is None:
            return None
        group, _, name = found.text.partition("/")
        if group == "desk" and name:
            # Even one the site lacks counts as a desk: its own error is enough.
            self.desks.add(key.text)
        if group in ("desk", "rota") and name:
            known: Iterable[str] | None = None
            if self.site is not None:
                known = self.site.desks if group == "desk" else sorted(self.site.rotas)
            if known is None or name in known:
                return found.text
            self.undefined(found, DESKS if group == "desk" else ROTAS, [f"{group}/{each}" for each in known])
            return None
        if found.text not in PEOPLE:
            self.unknown_value(found, "who", (*PEOPLE, "desk/NOM", "rota/NOM"))
            return None
        return found.text

    def _target_name(self, node: Node, of: str) -> Scalar | None:
        found = self.word(node, of)
        return found if found is not None and self._is_target(found) else None

    def _is_target(self, name: Scalar) -> bool:
        if name.text not in self.target_names:
            self.undefined(name, TARGETS, self.target_names)
        return name.text in self.target_names

    def _desk_name(self, node: Node, of: str) -> str | None:
        found = self._target_name(node, of)
        if found is None:
            return None
        if found.text not in self.desks:
            listed = ", ".join(name for name in self.target_names if name in self.desks) or "—"
            self.tell("no_desk", found, word=shown(found.text), of=of, listed=listed)
            return None
        return found.text

    # -- follow-ups

    def _followup(self, key: Scalar, node: Node, hours: Mapping[str, Hours]) -> Followup | None:
        name = shown(key.text)
        found = self.table(node, f"followups.{name}", FOLLOWUP_KEYS)
        if found is None:
            return None
        awaits = (
            self.one_of(found["await"][1], "await", ("delivered", "seen", "ack"))
            if "await" in found
            else "ack"
        )
        within, clock = self._ack(*found["ack"]) if "ack" in found else (None, "real")
        ladder = self._ladder(key, found["ladder"][1] if "ladder" in found else None, clock)
        expires = self.duration(found["ack_expires"][1], "ack_expires") if "ack_expires" in found else None
        quiet_for = (self._close(found["close"][1]) if "close" in found else None) or Duration(2, "d")
        if expires is not None and _reopens(expires, quiet_for, hours.get(clock)):
            self.tell("reopens", found["ack_expires"][0], word=name, quiet_for=quiet_for)
        if awaits is None or not ladder:
            return None
        return Followup(
            name=key.text,
            awaits=awaits,  # type: ignore[arg-type]  # out of the three above
            ack_within=within or ladder[-1].after,
            clock=clock,
            ladder=tuple(ladder),
            ack_expires=expires,
            close_quiet_for=quiet_for,
            line=key.line,
        )

    def _ack(self, key: Scalar, node: Node) -> tuple[Duration | None, str]:
        found = self.table(node, "ack", ("within", "clock"))
        if found is None:
            return None, "real"
        clock = self._clock(found["clock"][1]) if "clock" in found else "real"
        if "within" not in found and whole(node, found):
            self.missing(key, "within", "ack", "within: 2d")
        within = self.duration(found["within"][1], "within") if "within" in found else None
        return within, clock or "real"

    def _close(self, node: Node) -> Duration | None:
        found = self.table(node, "close", ("when", "quiet_for")) or {}
        if "when" in found:
            self.one_of(found["when"][1], "when", ("acknowledged",))
        return self.duration(found["quiet_for"][1], "quiet_for") if "quiet_for" in found else None

    def _ladder(self, key: Scalar, node: Node | None, clock: str) -> list[Step]:
        """The steps; none, and E140, when the last does not hand over to a desk."""
        items = node.items if isinstance(node, Listing) else ()
        steps: list[Step] = []
        ends_at_desk = False
        for number, item in enumerate(items):
            found = self.table(item, "ladder", STEP_KEYS)
            if found is None:
                continue
            after, own = self._times(item, found, clock)
            remind = hand_to = None
            if ("remind" in found) == ("hand_to" in found):
                # Neither beside an unknown key: that key was probably meant as one, and is told already.
                if "remind" in found or whole(item, found):
                    self.tell("one_step", item)
            elif "remind" in found:
                named = self._target_name(found["remind"][1], "remind")
                remind = named.text if named else None
            elif number < len(items) - 1:
                hand_to = self._desk_name(found["hand_to"][1], "hand_to")
            else:
                # A last step that names no desk is told by E140, one that names nothing by its own error.
                named = self._target_name(found["hand_to"][1], "hand_to")
                hand_to = named.text if named and named.text in self.desks else None
                ends_at_desk = hand_to is not None or named is None
            if after is None or own is None or not (remind or hand_to):
                continue
            if steps and steps[-1].clock == own and after.elapsed < steps[-1].after.elapsed:
                self.tell("step_order", found["after"][1], after=after, before=steps[-1].after)
            steps.append(Step(after, own, remind, hand_to))
        if not ends_at_desk:
            self.tell("last_step", key, word=shown(key.text))
            return []
        return steps

    def _times(self, item: Node, found: Entries, clock: str) -> tuple[Duration | None, str | None]:
        if "after" not in found and whole(item, found):
            self.missing(item, "after", "ladder", "after: 1d")
        after = self.duration(found["after"][1], "after") if "after" in found else None
        return after, self._clock(found["clock"][1]) if "clock" in found else clock

    # -- keywords

    def _keyword(self, key: Scalar, node: Node) -> Keyword | None:
        words: list[str] = []
        patterns: list[Any] = []
        place = f"keywords.{shown(key.text)}"
        if isinstance(node, Listing) and not node.items:
            self.words(node, place)
        for item in node.items if isinstance(node, Listing) else (node,):
            explicit = isinstance(item, Table)
            if explicit:
                found = self.table(item, place, ("matches",)) or {}
                if "matches" not in found:
                    continue
                item = found["matches"][1]
            scalar = self.word(item, place)
            if scalar is None:
                continue
            if explicit or _PATTERN_SIGNS.search(scalar.text):
                patterns.append(self.pattern(scalar, fold_case=True))
            elif re.search(r"\w", fold(scalar.text)):
                words.append(scalar.text)
            else:
                self.tell("no_word", scalar, place=f"`{place}`")
        sound = tuple(pattern for pattern in patterns if pattern is not None)
        try:
            return Keyword(compile_words(words) if words else None, sound) if words or sound else None
        except ValueError as error:
            self.tell("pattern", key, word=shown(key.text), problem=said_of_pattern(str(error)))
            return None

    # -- rules

    def _default(self, root: Node, top: Entries) -> Default | None:
        if "default" not in top:
            self.missing(root, "default", _FILE, "default: { hold: BUREAU, reason: … }")
            return None
        key, node = top["default"]
        found = self.table(node, "default", ("hold", "reason"))
        if found is None:
            return None
        reason = self.report.say("Aucune règle ne correspond", "No rule matches")
        if "reason" in found:
            said = self.word(found["reason"][1], "reason")
            reason = said.text if said else reason
        if "hold" not in found:
            if whole(node, found):
                self.missing(key, "hold", "default", "hold: BUREAU")
            return None
        hold = self._desk_name(found["hold"][1], "hold")
        return Default(hold, reason, key.line) if hold else None

    def _identified(
        self, node: Node, keys: Sequence[str], place: Place
    ) -> tuple[Entries, Scalar, str] | None:
        """A rule's entries, the key `id`, and the id itself, checked to be unique."""
        found = self.table(node, place, keys)
        if found is None:
            return None
        if "id" not in found:
            if whole(node, found):
                self.missing(node, "id", place, "id: …")
            return None
        key, value = found["id"]
        scalar = self.word(value, "id")
        if scalar is None:
            return None
        name = scalar.text
        if len(name) > _NAME_LENGTH or not name.isprintable() or name.split() != [name]:
            self.tell("id_words", scalar)
            return None
        if name in RESERVED:
            self.tell("reserved", scalar, word=name)
        former = self.words(found["was"][1], "was") if "was" in found else []
        for each in (scalar, *former):
            first = self.ids.setdefault(each.text, key)
            if first is not key:
                at = key if each is scalar else each
                self.tell("id_twice", at, word=shown(each.text), first=first.line)
        return found, key, name

    def _life(self, found: Entries) -> tuple[date | None, date | None, Mode]:
        start = self.day(found["from"][1], "from") if "from" in found else None
        until = self.day(found["until"][1], "until") if "until" in found else None
        if start and until and until < start:
            self.tell("dates_reversed", found["until"][1])
        mode = self.one_of(found["mode"][1], "mode", ("on", "observe", "off")) if "mode" in found else "on"
        return start, until, mode or "on"  # type: ignore[return-value]  # out of the three above

    def _rule(self, node: Node) -> Rule | None:
        identified = self._identified(node, RULE_KEYS, ("une règle", "a rule"))
        if identified is None:
            return None
        found, key, name = identified
        place = (f"la règle « {name} »", f"rule “{name}”")
        # Not a second time beside an unknown key that was probably meant as it.
        when = self.when(key, found) if "when" in found or whole(node, found) else None
        start, until, mode = self._life(found)
        verbs = [verb for verb in ("send", "hold", "file") if verb in found]
        if len(verbs) != 1:
            # No verb beside an unknown key: that key was probably meant as one, and is told already.
            if verbs or whole(node, found):
                if verbs:
                    listed = "`, `".join(verbs)
                    self.tell("two_actions", found[verbs[1]][0], word=name, listed=f"`{listed}`")
                else:
                    self.tell("one_action", key, word=name)
            return None
        action = verbs[0]
        where, value = found[action]
        reason = self.word(found["reason"][1], "reason") if "reason" in found else None
        targets: tuple[str, ...] = ()
        hold = followup = None
        if action == "send":
            named = [target for target in self.words(value, "send") if self._is_target(target)]
            targets = tuple(dict.fromkeys(target.text for target in named))
            if "followup" in found or whole(node, found):
                followup = self._followup_name(where, found, place)
        elif action == "hold":
            hold = self._desk_name(value, "hold")
            if "reason" not in found and whole(node, found):
                self.missing(where, "reason", place, 'reason: "…"')
        else:
            reason = self.word(value, "file")
            if when is not None and takes_discharges(when):
                self.tell("files_discharge", key)
        for only in ("followup", "grace"):
            if action != "send" and only in found:
                self.tell("only_send", found[only][0], word=only)
        grace = self.duration(found["grace"][1], "grace") if "grace" in found else None
        skip = "if_unknown" in found and self.one_of(found["if_unknown"][1], "if_unknown", ("hold", "skip"))
        if when is None or not (targets or hold or action == "file"):
            return None
        return Rule(
            id=name,
            was=_former(found),
            line=key.line,
            column=key.column,
            when=when,
            action=action,  # type: ignore[arg-type]  # out of the three above
            targets=targets,
            followup=followup,
            hold=hold,
            reason=reason.text if reason else "",
            start=start,
            until=until,
            mode=mode,
            grace=grace,
            skip_unknown=skip == "skip",
        )

    def _followup_name(self, where: Scalar, found: Entries, place: Place) -> str | None:
        if "followup" not in found:
            self.missing(where, "followup", place, f"followup: {next(iter(self.followup_names), 'none')}")
            return None
        scalar = self.word(found["followup"][1], "followup")
        if scalar is None or scalar.text == "none":
            return None
        if scalar.text not in self.followup_names:
            self.undefined(scalar, FOLLOWUPS, (*self.followup_names, "none"))
            return None
        return scalar.text

    def _copy(self, node: Node) -> Copy | None:
        identified = self._identified(node, COPY_KEYS, "also")
        if identified is None:
            return None
        found, key, name = identified
        when = self.when(key, found) if "when" in found or whole(node, found) else None
        start, until, mode = self._life(found)
        if "copy" not in found:
            if whole(node, found):
                self.missing(key, "copy", (f"la copie « {name} »", f"copy “{name}”"), "copy: …")
            return None
        target = self._target_name(found["copy"][1], "copy")
        if when is None or target is None:
            return None
        return Copy(name, _former(found), key.line, key.column, when, target.text, start, until, mode)


def _as_meant(root: Node, top: Entries) -> Entries:
    """The sections, misspelt ones under the name that was meant: what they define is not missed all over the file.

    Each was told as E101 already, so that no set is made of them.
    """
    strange = (
        [entry for entry in root.entries if entry[0].text not in SECTIONS] if isinstance(root, Table) else []
    )
    meant = {nearest(key.text, SECTIONS): (key, value) for key, value in reversed(strange[:_FEW])}
    return {**{name: entry for name, entry in meant.items() if name is not None}, **top}


def _endless(hours: Hours) -> bool:
    """Whether hours stay open for more than a week: what waits for their end would be as good as lost."""
    monday = datetime(2026, 6, 8, tzinfo=UTC)
    end = hours.closes_at(monday)
    return end is not None and end - monday > timedelta(days=8)


def _names(top: Entries, section: str) -> Names:
    node = top[section][1] if section in top else None
    return dict.fromkeys(key.text for key, _ in node.entries) if isinstance(node, Table) else {}


def _former(found: Entries) -> tuple[str, ...]:
    node = found["was"][1] if "was" in found else None
    nodes = node.items if isinstance(node, Listing) else (node,)
    return tuple(each.text for each in nodes if isinstance(each, Scalar))


def _reopens(expires: Duration, quiet_for: Duration, hours: Hours | None) -> bool:
    """Whether an acknowledgement would, at some hour of an ordinary week, expire before the thread closes."""
    monday = datetime(2026, 6, 8, tzinfo=UTC)  # no public holiday near, in France at least
    return any(
        add(at, expires, hours) <= add(at, quiet_for, hours)
        for at in (monday + timedelta(hours=hour) for hour in range(0, 7 * 24, 3))
    )
