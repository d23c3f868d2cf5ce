"""Office hours, holidays and clock changes."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.calendar import Duration, Holidays, Hours, Window, add, subdivisions

PARIS = ZoneInfo("Europe/Paris")
OFFICE = (Window.parse("08:00-12:30"), Window.parse("13:30-19:00"))


def hours(*week: tuple[Window, ...], on_holidays="closed", calendar=None, exceptions=None) -> Hours:
    days = week or (OFFICE,) * 5 + ((), ())
    return Hours("cabinet", tuple(days), PARIS, on_holidays, calendar or Holidays(), exceptions or {})


def every_day(window: str) -> Hours:
    return hours(*((Window.parse(window),),) * 7, on_holidays="open")


def local(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=PARIS)


def after(start: str, span: str, on: Hours | None) -> str:
    return add(local(start), Duration.parse(span), on).astimezone(PARIS).strftime("%Y-%m-%dT%H:%M")


@pytest.mark.parametrize("text", ["30s", "10m", "2h", "3d", "366d"])
def test_a_duration_reads_and_writes_the_same(text):
    assert str(Duration.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "2", "h", "0m", "-1h", "1.5h", "2 h", "2w", "367d", "9" * 30 + "s", "٣h", "2h\n"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match=r"duration|longer"):
        Duration.parse(text)


@pytest.mark.parametrize(
    "text", ["8:00-12:00", "08:00", "25:00-26:00", "08:60-09:00", "08:00-08:00", "24:00-08:00", ""]
)
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ValueError, match="window"):
        Window.parse(text)


def test_two_open_days_after_a_friday_evening_end_on_tuesday_at_closing_time():
    assert after("2026-12-04T18:45", "2d", hours()) == "2026-12-08T19:00"


def test_one_open_day_counts_from_the_next_day_even_in_the_early_morning():
    assert after("2026-12-07T06:00", "1d", hours()) == "2026-12-08T19:00"


def test_open_hours_run_over_the_lunch_break_and_the_week_end():
    assert after("2026-12-04T18:00", "2h", hours()) == "2026-12-07T09:00"
    assert after("2026-12-07T12:00", "1h", hours()) == "2026-12-07T14:00"


def test_open_hours_that_end_at_closing_time_are_due_then_and_not_at_the_next_opening():
    assert after("2026-12-07T17:00", "2h", hours()) == "2026-12-07T19:00"


@pytest.mark.parametrize(("span", "due"), [("90s", "2026-12-04T23:01"), ("30m", "2026-12-04T23:30")])
def test_seconds_and_minutes_are_real_time_on_any_clock(span, due):
    assert after("2026-12-04T23:00", span, hours()) == due


def test_a_day_of_the_real_clock_is_24_hours_even_when_the_clocks_change():
    assert after("2026-10-24T12:00", "1d", None) == "2026-10-25T11:00"
    assert after("2026-03-28T12:00", "1d", None) == "2026-03-29T13:00"


def test_a_holiday_is_no_open_day():
    assert after("2026-11-10T11:00", "1d", hours()) == "2026-11-12T19:00"
    assert after("2026-11-10T11:00", "1d", hours(on_holidays="open")) == "2026-11-11T19:00"


def test_moselle_keeps_good_friday_and_saint_stephen():
    moselle = hours(calendar=Holidays("FR", "Moselle"))
    assert len(Holidays("FR", "Moselle").year(2026)) == 13
    assert len(Holidays("FR").year(2026)) == 11
    assert after("2026-04-02T10:00", "1d", moselle) == "2026-04-07T19:00"
    assert after("2026-04-02T10:00", "1d", hours()) == "2026-04-03T19:00"


def test_the_whole_of_alsace_and_plain_departments_are_known():
    known = subdivisions("FR")
    assert known["67"] == known["Haut-Rhin"] == "6AE"
    assert known["45"] is None
    assert Holidays("FR", "45").year(2026) == Holidays("FR").year(2026)
    with pytest.raises(KeyError):
        subdivisions("XX")


def test_a_holiday_as_sunday_takes_the_windows_of_sunday():
    week = (OFFICE,) * 6 + ((Window.parse("09:00-11:00"),),)
    assert after("2026-11-10T20:00", "1d", hours(*week, on_holidays="as-sunday")) == "2026-11-11T11:00"


def test_a_dated_exception_beats_the_week_and_the_holiday():
    special = {date(2026, 11, 11): (Window.parse("10:00-11:00"),), date(2026, 11, 12): ()}
    clock = hours(exceptions=special)
    assert after("2026-11-10T20:00", "1d", clock) == "2026-11-11T11:00"
    assert after("2026-11-10T20:00", "2d", clock) == "2026-11-13T19:00"


def test_a_night_belongs_to_the_day_it_starts_on():
    night = every_day("20:00-08:00")
    assert night.open_at(local("2026-12-04T20:00"))
    assert night.open_at(local("2026-12-05T07:59"))
    assert not night.open_at(local("2026-12-05T08:00"))
    assert night.closes_at(local("2026-12-04T23:00")) == local("2026-12-05T08:00")
    assert night.closes_at(local("2026-12-05T12:00")) is None
    assert after("2026-12-04T12:00", "1d", night) == "2026-12-06T08:00"


def test_windows_that_touch_close_together():
    day = (Window.parse("08:00-12:00"), Window.parse("12:00-24:00"))
    clock = hours(*(day,) * 7, on_holidays="open")
    assert clock.closes_at(local("2026-12-04T09:00")) == local("2026-12-05T00:00")


def test_an_exception_that_overlaps_the_night_before_is_not_counted_twice():
    night = hours(
        *((Window.parse("20:00-08:00"),),) * 7,
        on_holidays="open",
        exceptions={date(2026, 12, 5): (Window.parse("06:00-10:00"),)},
    )
    assert after("2026-12-05T05:00", "5h", night) == "2026-12-05T10:00"


def test_the_next_opening_is_now_when_open_and_monday_after_a_friday_evening():
    assert hours().opens_at(local("2026-12-04T10:00")) == local("2026-12-04T10:00")
    assert hours().opens_at(local("2026-12-04T19:00")) == local("2026-12-07T08:00")


def test_a_night_of_clock_change_lasts_what_it_lasts():
    night = every_day("20:00-08:00")
    autumn = night.closes_at(local("2026-10-24T20:00"))
    spring = night.closes_at(local("2026-03-28T20:00"))
    assert autumn is not None
    assert spring is not None
    assert autumn - local("2026-10-24T20:00").astimezone(UTC) == timedelta(hours=13)
    assert spring - local("2026-03-28T20:00").astimezone(UTC) == timedelta(hours=11)


def test_a_window_inside_the_spring_gap_does_not_exist_that_day():
    gap = every_day("02:10-02:50")
    assert gap.intervals(date(2026, 3, 29)) == ()
    assert after("2026-03-28T12:00", "1d", gap) == "2026-03-30T02:50"


@pytest.mark.parametrize(
    ("window", "day", "opens", "closes"),
    [
        ("02:15-02:45", date(2026, 10, 25), "00:15", "01:45"),  # the hour from 2 to 3 comes twice
        ("01:30-02:30", date(2026, 10, 25), "23:30", "01:30"),
        ("02:30-03:30", date(2026, 10, 25), "00:30", "02:30"),
        ("01:30-02:30", date(2026, 3, 29), "00:30", "01:00"),  # and never
        ("02:30-04:00", date(2026, 3, 29), "01:00", "02:00"),
    ],
)
def test_an_edge_in_a_repeated_hour_is_the_outer_one_and_in_a_skipped_hour_the_jump(
    window: str, day: date, opens: str, closes: str
):
    ((start, end),) = every_day(window).intervals(day)
    assert (f"{start:%H:%M}", f"{end:%H:%M}") == (opens, closes)
    assert end - start < timedelta(hours=3)


def test_hours_closed_for_years_fall_back_to_real_time_instead_of_never():
    start = date(2026, 1, 1)
    closed = {start + timedelta(days=n): () for n in range(4 * 366)}
    clock = hours(exceptions=closed)
    assert after("2026-01-05T10:00", "2d", clock) == "2026-01-07T10:00"
    assert after("2026-01-05T10:00", "2h", clock) == "2026-01-05T12:00"
    assert clock.opens_at(local("2026-01-05T10:00")) is None


def test_an_instant_without_zone_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        add(datetime(2026, 1, 1), Duration.parse("1h"), None)  # noqa: DTZ001


INSTANTS = st.datetimes(datetime(2025, 1, 1), datetime(2028, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
SPANS = st.builds(Duration, st.integers(1, 60), st.sampled_from("smhd"))


@settings(deadline=None)
@given(INSTANTS, SPANS)
def test_what_is_due_lies_ahead_and_office_hours_are_never_quicker_than_hours_on_the_clock(at, span):
    due = add(at, span, hours())
    assert due > at
    if span.unit == "h":
        assert due >= add(at, span, None)
        assert hours().open_at(due - timedelta(microseconds=1))


@settings(deadline=None)
@given(INSTANTS, st.integers(1, 40))
def test_open_hours_add_up(at, count):
    clock = hours()
    one = at
    for _ in range(count):
        one = add(one, Duration(1, "h"), clock)
    assert one == add(at, Duration(count, "h"), clock)


@settings(deadline=None)
@given(INSTANTS, st.sampled_from(["20:00-08:00", "02:00-03:00", "00:00-24:00", "23:30-00:30"]))
def test_inside_a_window_it_closes_later_and_outside_it_does_not_close(at, window):
    clock = every_day(window)
    closes = clock.closes_at(at)
    assert (closes is not None) == clock.open_at(at)
    if closes is not None and window != "00:00-24:00":
        assert closes > at
        assert not clock.open_at(closes)
