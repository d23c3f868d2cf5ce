"""Office-hours arithmetic: durations, weekly opening windows, public holidays, and what is due when.

Pure: every instant comes in as an argument. Instants are aware datetimes; those returned are UTC, because
the difference of two datetimes of one time zone is wall-clock time in Python, an hour wrong twice a year.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from zoneinfo import ZoneInfo

Unit: TypeAlias = Literal["s", "m", "h", "d"]
OnHolidays: TypeAlias = Literal["closed", "open", "as-sunday"]
Interval: TypeAlias = tuple[datetime, datetime]

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY_MINUTES: Final = 24 * 60
_LONGEST: Final[Mapping[str, int]] = {"s": 31_622_400, "m": 527_040, "h": 8_784, "d": 366}
_SECONDS: Final[Mapping[str, int]] = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])")
_WINDOW: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-(?:([01]\d|2[0-3]):([0-5]\d)|(24):(00))", re.ASCII)
# Hours that never open again would be searched for ever; after so many days the time counts as real.
_HORIZON_DAYS: Final = 3 * 366


@dataclass(frozen=True, slots=True)
class Duration:
    """A span as an admin writes it: `30s`, `10m`, `2h`, `3d`; at least 1, at most 366 days."""

    count: int
    unit: Unit

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read `Ns`, `Nm`, `Nh` or `Nd`. Raises ValueError on anything else."""
        found = _DURATION.fullmatch(text)
        if not found:
            raise ValueError(f"not a duration: {text[:40]!r}")
        count, unit = int(found[1]), found[2]
        if count > _LONGEST[unit]:
            raise ValueError(f"longer than 366 days: {text!r}")
        return cls(count, unit)  # type: ignore[arg-type]  # the pattern admits the four units only

    @property
    def elapsed(self) -> timedelta:
        """The span on the `real` clock, where a day is 24 hours."""
        return timedelta(seconds=self.count * _SECONDS[self.unit])

    def __str__(self) -> str:
        return f"{self.count}{self.unit}"


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Minutes after the midnight of the day it starts on; `end` is beyond 1440 for a night."""

    start: int
    end: int

    @classmethod
    def parse(cls, text: str) -> Window:
        """Read `08:00-12:30`; `20:00-08:00` ends the next day, `24:00` is midnight. Raises ValueError."""
        found = _WINDOW.fullmatch(text)
        if not found:
            raise ValueError(f"not a window: {text[:40]!r}")
        start = int(found[1]) * 60 + int(found[2])
        end = int(found[3] or found[5]) * 60 + int(found[4] or found[6])
        if start == end:
            raise ValueError(f"an empty window: {text!r}")
        return cls(start, end if end > start else end + DAY_MINUTES)


@dataclass(frozen=True, slots=True)
class Holidays:
    """The public holidays of a country, of a part of it when `subdiv` says which (Moselle has 13, not 11).

    `subdiv` is the code or the name the holidays library knows; check it with `subdivisions` first.
    """

    country: str = "FR"
    subdiv: str | None = None

    def __contains__(self, day: date) -> bool:
        return day in _holidays(self.country, self.subdiv, day.year)

    def year(self, year: int) -> frozenset[date]:
        """Every public holiday of that year."""
        return _holidays(self.country, self.subdiv, year)


@lru_cache(maxsize=256)
def _holidays(country: str, subdiv: str | None, year: int) -> frozenset[date]:
    import holidays  # 30 ms, and many commands never ask for a holiday

    if subdiv is not None:
        subdiv = subdivisions(country)[subdiv]
    return frozenset(holidays.country_holidays(country, subdiv=subdiv, years=year))


@lru_cache(maxsize=32)
def subdivisions(country: str) -> Mapping[str, str | None]:
    """Name or code of each part of a country → the library's code (None: no holidays of its own).

    Raises KeyError for a country nobody knows.
    """
    import holidays

    countries = holidays.list_supported_countries()
    if country not in countries:
        raise KeyError(country)
    # The instance of a year without computing any: it only tells the names.
    entity = holidays.country_holidays(country)
    known: dict[str, str | None] = {}
    if country == "FR":
        # Admins know their département; only Alsace and Moselle have days of their own in the mainland.
        known.update(dict.fromkeys([f"{number:02d}" for number in range(1, 96)] + ["2A", "2B"]))
        known.update(dict.fromkeys(("67", "68", "Bas-Rhin", "Haut-Rhin"), "6AE"))
        del known["20"]
    # The library's zones A to C are of school holidays.
    known.update({code: code for code in entity.subdivisions if not code.startswith("Zone ")})
    known.update({str(alias): str(code) for alias, code in entity.subdivisions_aliases.items()})
    return MappingProxyType(known)


@dataclass(frozen=True, slots=True)
class Hours:
    """Named weekly windows in one time zone.

    `week` has seven days from Monday; a window belongs to the day it starts on, its night included. A dated
    exception replaces the windows of its day and beats a holiday.
    """

    name: str
    week: tuple[tuple[Window, ...], ...]
    zone: ZoneInfo
    on_holidays: OnHolidays = "open"
    calendar: Holidays = Holidays()
    exceptions: Mapping[date, tuple[Window, ...]] = field(default_factory=dict, hash=False)
    _known: dict[date, tuple[Interval, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False, hash=False
    )

    def windows(self, day: date) -> tuple[Window, ...]:
        """The windows that start on that day, in order; empty when it is closed."""
        special = self.exceptions.get(day)
        if special is not None:
            return special
        if self.on_holidays != "open" and day in self.calendar:
            return () if self.on_holidays == "closed" else self.week[6]
        return self.week[day.weekday()]

    def intervals(self, day: date) -> tuple[Interval, ...]:
        """The same as UTC instants. A window that touches the hour skipped in spring loses it, or is left out."""
        found = self._known.get(day)
        if found is None:
            pairs = [
                (self._instant(day, w.start, 0), self._instant(day, w.end, 1)) for w in self.windows(day)
            ]
            found = tuple((start, end) for start, end in pairs if end > start)
            if len(self._known) > 4_000:
                self._known.clear()
            self._known[day] = found
        return found

    def _instant(self, day: date, minutes: int, fold: int) -> datetime:
        """An edge of a window; of an hour that comes twice the outer one, of one that is skipped the jump itself."""
        days, rest = divmod(minutes, DAY_MINUTES)
        wall = datetime.combine(day + timedelta(days=days), time(rest // 60, rest % 60), tzinfo=self.zone)
        first, second = (wall.replace(fold=each).astimezone(UTC) for each in (0, 1))
        if first <= second:
            return second if fold else first
        # Skipped (PEP 495): `second` lies before the jump, `first` behind it.
        before = second.astimezone(self.zone).utcoffset()
        while first - second > timedelta(minutes=1):
            middle = second + timedelta(minutes=(first - second) // timedelta(minutes=2))
            if middle.astimezone(self.zone).utcoffset() == before:
                second = middle
            else:
                first = middle
        return first

    def open_at(self, at: datetime) -> bool:
        """Whether `at` lies in a window; its first minute does, its end does not."""
        day = at.astimezone(self.zone).date()
        return any(
            start <= at < end
            for near in (day - timedelta(days=1), day)
            for start, end in self.intervals(near)
        )

    def stretches(self, at: datetime) -> Iterator[Interval]:
        """Open stretches from `at` on, clipped to it, none overlapping; ends after three years."""
        cursor = at.astimezone(UTC)
        day = at.astimezone(self.zone).date() - timedelta(days=1)
        for _ in range(_HORIZON_DAYS):
            for start, end in self.intervals(day):
                if end > cursor:
                    yield max(start, cursor), end
                    cursor = end
            day += timedelta(days=1)

    def closes_at(self, at: datetime) -> datetime | None:
        """When the open stretch around `at` ends, windows that touch counting as one; None when closed."""
        end: datetime | None = None
        for start, stop in self.stretches(at):
            if start > (end or at):
                break
            end = stop
            if end - at > timedelta(days=400):  # open round the clock
                break
        return end

    def opens_at(self, at: datetime) -> datetime | None:
        """The first open instant at or after `at`; None when nothing opens within three years."""
        return next((start for start, _ in self.stretches(at)), None)


def add(at: datetime, span: Duration, hours: Hours | None) -> datetime:
    """The instant `span` after `at`, in UTC, on a clock: None is the `real` one.

    Seconds and minutes are always real time. On office hours `Nh` is N open hours, and `Nd` the closing time
    of the Nth open day after the day `at` falls on. Raises ValueError when `at` is naive.
    """
    if at.tzinfo is None:
        raise ValueError("an instant needs its time zone")
    at = at.astimezone(UTC)
    if hours is None or span.unit in "sm":
        return at + span.elapsed
    if span.unit == "h":
        left = span.elapsed
        for start, end in hours.stretches(at):
            if end - start >= left:
                return start + left
            left -= end - start
        return at + span.elapsed
    day = at.astimezone(hours.zone).date()
    missing = span.count
    for _ in range(_HORIZON_DAYS):
        day += timedelta(days=1)
        intervals = hours.intervals(day)
        if intervals:
            missing -= 1
            if not missing:
                return max(end for _, end in intervals)
    return at + span.elapsed
