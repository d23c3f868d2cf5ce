"""When an answer is due and when a chat may ring: windows, nights, holidays and clock changes, as a test file says it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.calendar import Duration, Holidays, Hours, Window, add
from rules import cases
from rules.engine import explain, ladder, not_before
from rules.language import RuleSet, load
from tests.campaign import many

CLEAN = "event: discharge, identity: qualified, gp: found"
CABINET = '{ mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }'
THREE = '{ mon-sat: ["08:00-10:00", "11:00-12:00", "16:00-18:00"], holidays: closed }'
NIGHT = '{ every-day: ["20:00-08:00"] }'
GUARD = '{ mon-thu: ["18:30-08:00"], fri: ["18:30-24:00"], sat-sun: ["00:00-24:00"], holidays: as-sunday }'


def rule_set(
    hours: str, within: str, zone: str = "Europe/Paris", subdiv: str = "", grace: str = ""
) -> RuleSet:
    part = f', subdiv: "{subdiv}"' if subdiv else ""
    text = f"""\
version: 1
timezone: {zone}
holidays: {{ country: FR{part} }}
hours: {{ horloge: {hours}, nuit: {NIGHT} }}
targets:
  gp: {{ who: registered_gp, via: [mss], carries: document }}
  ping: {{ who: registered_gp, via: [telegram], carries: pointer, quiet: horloge }}
  sorties: {{ who: desk/sorties, via: [mss], carries: document }}
followups:
  suite:
    ack: {{ within: {within}, clock: horloge }}
    ladder: [ {{ after: {within}, remind: ping }}, {{ after: 366d, clock: real, hand_to: sorties }} ]
rules:
  - id: sortie
    when: {{ event: discharge }}
    send: [gp, ping]
    followup: suite
    {grace and "grace: " + grace}
default: {{ hold: sorties }}
"""
    rules, findings = load(text, "routes.yaml")
    assert rules is not None, [f.text() for f in findings]
    return rules


def due(rules: RuleSet, at: str, expected: str) -> None:
    """Run it as an admin would, as a case of a test file."""
    case = f'{{ name: x, at: "{at}", given: {{ {CLEAN} }}, expect: {{ ack_due: "{expected}" }} }}'
    outcome = cases.run(rules, f"tests: [ {case} ]\n", "routes.test.yaml")
    assert outcome.ok, [f.text() for f in outcome.findings]


@pytest.mark.parametrize(
    ("hours", "within", "at", "expected"),
    [
        # several windows a day
        (THREE, "1h", "2026-12-04T09:30", "2026-12-04T11:30"),
        (THREE, "3h", "2026-12-04T09:30", "2026-12-04T17:30"),
        (THREE, "2h", "2026-12-04T08:00", "2026-12-04T10:00"),
        (THREE, "2h", "2026-12-04T17:00", "2026-12-05T09:00"),
        (THREE, "5h", "2026-12-05T12:00", "2026-12-07T12:00"),
        (THREE, "1d", "2026-12-04T07:00", "2026-12-05T18:00"),
        (THREE, "1d", "2026-12-05T07:00", "2026-12-07T18:00"),
        (THREE, "3d", "2026-12-03T23:59", "2026-12-07T18:00"),
        (CABINET, "1h", "2026-12-04T12:15", "2026-12-04T14:15"),
        (CABINET, "10h", "2026-12-04T08:00", "2026-12-04T19:00"),
        (CABINET, "11h", "2026-12-04T08:00", "2026-12-07T09:00"),
        # nights that end the next day
        (NIGHT, "2h", "2026-12-04T21:00", "2026-12-04T23:00"),
        (NIGHT, "2h", "2026-12-04T07:00", "2026-12-04T21:00"),
        (NIGHT, "13h", "2026-12-04T20:00", "2026-12-05T21:00"),
        (NIGHT, "1d", "2026-12-04T21:00", "2026-12-06T08:00"),
        (NIGHT, "1d", "2026-12-05T03:00", "2026-12-07T08:00"),
        # a guard: evenings, nights and the whole week-end
        (GUARD, "3h", "2026-12-04T17:00", "2026-12-04T21:30"),
        (GUARD, "40h", "2026-12-04T18:30", "2026-12-06T10:30"),
        (GUARD, "2h", "2026-12-07T07:00", "2026-12-07T20:30"),
        (GUARD, "1d", "2026-12-04T12:00", "2026-12-06T00:00"),
        # a holiday on which guards work as on a Sunday: Wednesday 11 November
        (GUARD, "10h", "2026-11-10T23:00", "2026-11-11T09:00"),
        (GUARD, "2h", "2026-11-11T12:00", "2026-11-11T14:00"),
        # minutes and seconds are real time whatever the clock
        (CABINET, "90m", "2026-12-04T18:30", "2026-12-04T20:00"),
        (CABINET, "40s", "2026-12-05T18:30", "2026-12-05T18:30:40"),
    ],
)
def test_what_is_due_on_windows_nights_and_guards(hours, within, at, expected):
    due(rule_set(hours, within), at, expected)


@pytest.mark.parametrize(
    ("zone", "subdiv", "at", "expected"),
    [
        # the day before, one open day: the whole country has eleven holidays
        ("Europe/Paris", "", "2026-12-31T10:00", "2027-01-04T19:00"),
        ("Europe/Paris", "", "2026-04-03T10:00", "2026-04-07T19:00"),  # Easter Monday
        ("Europe/Paris", "", "2026-04-30T10:00", "2026-05-04T19:00"),  # 1 May, a Friday
        ("Europe/Paris", "", "2026-05-07T10:00", "2026-05-11T19:00"),  # 8 May, a Friday
        ("Europe/Paris", "", "2026-05-13T10:00", "2026-05-15T19:00"),  # Ascension Day
        ("Europe/Paris", "", "2026-05-22T10:00", "2026-05-26T19:00"),  # Whit Monday
        ("Europe/Paris", "", "2026-07-13T10:00", "2026-07-15T19:00"),
        ("Europe/Paris", "", "2025-08-14T10:00", "2025-08-18T19:00"),  # 15 August, a Friday
        ("Europe/Paris", "", "2027-10-29T10:00", "2027-11-02T19:00"),  # 1 November, a Monday
        ("Europe/Paris", "", "2026-11-10T10:00", "2026-11-12T19:00"),
        ("Europe/Paris", "", "2026-12-24T10:00", "2026-12-28T19:00"),
        # Alsace and Moselle: Good Friday and the 26th of December too
        ("Europe/Paris", "Moselle", "2026-04-02T10:00", "2026-04-07T19:00"),
        ("Europe/Paris", "Bas-Rhin", "2026-04-02T10:00", "2026-04-07T19:00"),
        ("Europe/Paris", "Haut-Rhin", "2026-04-02T10:00", "2026-04-07T19:00"),
        ("Europe/Paris", "67", "2025-12-24T10:00", "2025-12-29T19:00"),
        ("Europe/Paris", "68", "2025-12-24T10:00", "2025-12-29T19:00"),
        ("Europe/Paris", "57", "2025-12-24T10:00", "2025-12-29T19:00"),
        ("Europe/Paris", "45", "2025-12-24T10:00", "2025-12-26T19:00"),
        # overseas: the day slavery was abolished there
        ("America/Guadeloupe", "Guadeloupe", "2026-05-26T10:00", "2026-05-28T19:00"),
        ("America/Guadeloupe", "971", "2026-05-26T10:00", "2026-05-28T19:00"),
        ("America/Martinique", "Martinique", "2026-05-21T10:00", "2026-05-26T19:00"),  # and Whit Monday
        ("America/Martinique", "972", "2026-05-21T10:00", "2026-05-26T19:00"),
        ("America/Cayenne", "Guyane", "2026-06-09T10:00", "2026-06-11T19:00"),
        ("America/Cayenne", "973", "2026-06-09T10:00", "2026-06-11T19:00"),
        ("Indian/Reunion", "La Réunion", "2027-12-17T10:00", "2027-12-21T19:00"),  # 20 December, a Monday
        ("Indian/Reunion", "974", "2027-12-17T10:00", "2027-12-21T19:00"),
        ("Indian/Mayotte", "Mayotte", "2026-04-24T10:00", "2026-04-28T19:00"),  # 27 April, a Monday
        ("Indian/Mayotte", "976", "2026-04-24T10:00", "2026-04-28T19:00"),
        # each has its own day only
        ("Indian/Reunion", "La Réunion", "2026-05-26T10:00", "2026-05-27T19:00"),
        ("America/Martinique", "Martinique", "2026-05-26T10:00", "2026-05-27T19:00"),
        ("Europe/Paris", "", "2026-05-26T10:00", "2026-05-27T19:00"),
        # a day begins at the site's own midnight: 1 a.m. in Saint-Denis is the evening before in Paris
        ("Indian/Reunion", "La Réunion", "2026-12-04T01:00", "2026-12-07T19:00"),
        ("Indian/Reunion", "La Réunion", "2026-12-03T21:30Z", "2026-12-07T19:00"),
        ("Europe/Paris", "", "2026-12-03T21:30Z", "2026-12-04T19:00"),
        ("America/Martinique", "Martinique", "2026-12-04T02:00Z", "2026-12-04T19:00"),
    ],
)  # fmt: skip
def test_one_open_day_later_knows_the_holidays_of_each_part_of_france(zone, subdiv, at, expected):
    due(rule_set(CABINET, "1d", zone, subdiv), at, expected)


@pytest.mark.parametrize(
    ("hours", "within", "at", "expected"),
    [
        # the night of 28 to 29 March 2026: 02:00 becomes 03:00
        (NIGHT, "3h", "2026-03-29T00:30", "2026-03-29T04:30"),
        (NIGHT, "11h", "2026-03-28T20:00", "2026-03-29T08:00"),
        (NIGHT, "12h", "2026-03-28T20:00", "2026-03-29T21:00"),
        (NIGHT, "1d", "2026-03-27T21:00", "2026-03-29T08:00"),
        (NIGHT, "3h", "2026-03-29T02:30", "2026-03-29T06:30"),  # an hour that does not exist counts as 03:30
        ('{ every-day: ["02:00-03:00"] }', "1h", "2026-03-28T12:00", "2026-03-30T03:00"),
        ('{ every-day: ["01:30-03:30"] }', "1h", "2026-03-29T01:00", "2026-03-29T03:30"),
        ('{ every-day: ["01:30-02:30", "02:45-04:00"] }', "1h", "2026-03-29T01:00", "2026-03-29T03:30"),
        # the night of 24 to 25 October 2026: 03:00 becomes 02:00
        (NIGHT, "3h", "2026-10-25T00:30", "2026-10-25T02:30+01:00"),
        (NIGHT, "2h", "2026-10-25T00:30", "2026-10-25T02:30+02:00"),
        (NIGHT, "13h", "2026-10-24T20:00", "2026-10-25T08:00"),
        (NIGHT, "14h", "2026-10-24T20:00", "2026-10-25T21:00"),
        (NIGHT, "1h", "2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00"),
        (NIGHT, "1h", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"),
        ('{ every-day: ["02:00-03:00"] }', "2h", "2026-10-24T12:00", "2026-10-25T03:00"),
        # office hours do not notice either night
        (CABINET, "1d", "2026-03-27T18:00", "2026-03-30T19:00"),
        (CABINET, "2h", "2026-10-23T18:00", "2026-10-26T09:00"),
    ],
)
def test_both_nights_on_which_the_clocks_change(hours, within, at, expected):
    due(rule_set(hours, within), at, expected)


def test_where_clocks_never_change_those_nights_are_nights_like_others():
    for zone in ("Indian/Reunion", "America/Cayenne", "America/Martinique", "Indian/Mayotte"):
        due(rule_set(NIGHT, "12h", zone), "2026-03-28T20:00", "2026-03-29T08:00")
        due(rule_set(NIGHT, "12h", zone), "2026-10-24T20:00", "2026-10-25T08:00")


def test_an_hour_that_comes_twice_is_told_apart_when_the_case_says_which():
    rules = rule_set(NIGHT, "3h")
    case = f'{{ name: x, at: "2026-10-25T00:30", given: {{ {CLEAN} }}, expect: {{ ack_due: "2026-10-25T02:30+02:00" }} }}'
    outcome = cases.run(rules, f"tests: [ {case} ]\n", "routes.test.yaml")
    assert not outcome.ok
    assert outcome.results[0].got["ack_due"] == "2026-10-25T02:30:00+01:00"


def test_a_grace_moves_what_is_due_over_midnight_and_over_the_clock_change():
    due(rule_set(CABINET, "1d", grace="5m"), "2026-12-03T23:57", "2026-12-07T19:00")
    due(rule_set(NIGHT, "1h", grace="1h"), "2026-03-29T00:30", "2026-03-29T03:30")


# -- when a chat may ring


@pytest.mark.parametrize(
    ("hours", "at", "until"),
    [
        (NIGHT, "2026-12-04T19:59", None),
        (NIGHT, "2026-12-04T20:00", "2026-12-05T08:00+01:00"),
        (NIGHT, "2026-12-05T03:00", "2026-12-05T08:00+01:00"),
        (NIGHT, "2026-12-05T08:00", None),
        (NIGHT, "2026-03-29T01:59", "2026-03-29T08:00+02:00"),
        (NIGHT, "2026-10-25T02:30+02:00", "2026-10-25T08:00+01:00"),
        (NIGHT, "2026-10-25T02:30+01:00", "2026-10-25T08:00+01:00"),
        # lunch and night are two silences, not one
        ('{ every-day: ["12:00-14:00", "20:00-08:00"] }', "2026-12-04T13:00", "2026-12-04T14:00+01:00"),
        ('{ every-day: ["12:00-14:00", "20:00-08:00"] }', "2026-12-04T15:00", None),
        # a silence that goes on into the next is one
        ('{ fri: ["20:00-24:00"], sat: ["00:00-12:00"] }', "2026-12-04T21:00", "2026-12-05T12:00+01:00"),
        (GUARD, "2026-12-04T19:00", "2026-12-07T00:00+01:00"),
        # on a holiday that counts as Sunday it is quiet at noon
        (GUARD, "2026-11-11T12:00", "2026-11-12T00:00+01:00"),
    ],
)
def test_a_quiet_target_rings_when_the_silence_ends(hours, at, until):
    rules = rule_set(hours, "1h")
    when = datetime.fromisoformat(at)
    when = when if when.tzinfo else when.replace(tzinfo=rules.zone)
    expected = datetime.fromisoformat(until).astimezone(UTC) if until else None
    assert not_before(rules, "ping", when, urgent=False) == expected
    assert not_before(rules, "ping", when, urgent=True) is None
    assert not_before(rules, "gp", when, urgent=False) is None
    said = explain(rules, {"event": "discharge", "identity": "qualified", "gp": "found"}, when)
    shown = said["not_before"]
    assert isinstance(shown, dict)
    assert [datetime.fromisoformat(each) for each in shown.values()] == ([expected] if expected else [])


def test_the_steps_of_a_ladder_stand_at_their_own_instants():
    rules = rule_set(CABINET, "1d")
    sent = datetime(2026, 3, 27, 18, tzinfo=ZoneInfo("Europe/Paris"))
    first, last = ladder(rules, "suite", sent)
    assert first[1] == datetime(2026, 3, 30, 17, tzinfo=UTC)
    assert last[1] == sent.astimezone(UTC) + timedelta(days=366)


# -- against counting minute by minute


ZONES = [ZoneInfo(name) for name in ("Europe/Paris", "Indian/Reunion", "America/Martinique")]
EDGES = st.lists(st.integers(0, 47), min_size=2, max_size=6, unique=True).map(sorted)


@st.composite
def clocks(draw: st.DrawFn) -> Hours:
    """Hours of one to three windows a day, perhaps a night, with holidays and an exception."""

    def day() -> tuple[Window, ...]:
        edges = [30 * edge for edge in draw(EDGES)]
        windows = [Window(start, end) for start, end in zip(edges[::2], edges[1::2], strict=False)]
        if draw(st.booleans()) and edges[-1] < 1380:
            windows.append(Window(1380, 1440 + draw(st.sampled_from([30, 240]))))
        return tuple(windows)

    week = (*(day() if draw(st.integers(0, 4)) else () for _ in range(6)), day())
    holidays = Holidays("FR", draw(st.sampled_from([None, "Moselle", "974", "972"])))
    return Hours(
        "x",
        week,
        draw(st.sampled_from(ZONES)),
        draw(st.sampled_from(["closed", "open", "as-sunday"])),
        holidays,
        {date(2026, 5, 13): day(), date(2026, 10, 25): ()},
    )


STARTS = st.sampled_from(
    ["2026-03-28T18:10", "2026-03-29T00:40", "2026-10-24T22:20", "2026-10-25T00:50", "2026-05-12T09:00", "2026-12-24T23:30"]
).map(lambda text: datetime.fromisoformat(text).replace(tzinfo=UTC))  # fmt: skip


@settings(max_examples=many(60), deadline=None)
@given(clocks(), STARTS)
def test_it_is_open_when_a_clock_on_the_wall_says_so(clock, at):
    for tenth in range(6 * 60):
        now = at - timedelta(hours=20) + timedelta(minutes=10 * tenth)
        wall = now.astimezone(clock.zone)
        if wall.replace(fold=0).utcoffset() != wall.replace(fold=1).utcoffset():
            continue  # the hour that comes twice counts as one
        today = wall.hour * 60 + wall.minute
        before = wall.date() - timedelta(days=1)
        said = any(w.start <= today < w.end for w in clock.windows(wall.date()))
        said |= any(w.start <= today + 1440 < w.end for w in clock.windows(before))
        assert clock.open_at(now) == said, (now, wall)


@settings(max_examples=many(60), deadline=None)
@given(clocks(), STARTS, st.integers(1, 12))
def test_open_hours_are_what_counting_ten_minutes_at_a_time_gives(clock, at, count):
    due_at = add(at, Duration(count, "h"), clock)
    left, now = count * 6, at
    while left:
        left -= clock.open_at(now)
        now += timedelta(minutes=10)
        assert now < at + timedelta(days=90)
    assert due_at == now


@settings(max_examples=many(60), deadline=None)
@given(clocks(), STARTS, st.integers(1, 5))
def test_open_days_are_what_counting_days_gives(clock, at, count):
    day, left = at.astimezone(clock.zone).date(), count
    while left:
        day += timedelta(days=1)
        left -= bool(clock.intervals(day))
    last = max(window.end for window in clock.windows(day))
    wall = datetime.combine(day, datetime.min.time()) + timedelta(minutes=last)
    assert add(at, Duration(count, "d"), clock) == wall.replace(tzinfo=clock.zone, fold=1).astimezone(UTC)
