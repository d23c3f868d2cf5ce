"""Who carries the responsibility for a letter: a pure state machine, and the pinned follow-up that times it.

    advance(thread, event, at, timers) → Step(thread', timers, what is to be done)

What people do (verbs) and what machines report (happenings) are two kinds of event and never stand in for each
other: no report ever acknowledges. After every step an open thread has a timer to come or a desk, and one owner
at most. Instants are aware and UTC.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

from relay.calendar import DAYS, Duration, Holidays, Hours, Window, add
from relay.model import LadderStep, Pinned, Thread, ThreadState, Timer, Verb, Why

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LONGEST_SNOOZE: Final = timedelta(hours=72)
UNDO_WITHIN: Final = timedelta(seconds=60)
REOPENS_WITHIN: Final = timedelta(days=30)
QUIET_DAYS: Final = Duration(5, "d")
"""Open days after acceptance at which a letter to software that sends no read receipts counts as handed over."""

LADDER_STATES: Final = frozenset(
    {ThreadState.AWAITING_ACK, ThreadState.AWAITING_WARD, ThreadState.AWAITING_GP}
)
_FINAL: Final = frozenset({Why.RECALLED, Why.SUPERSEDED, Why.NOT_MY_PATIENT, Why.REASSIGNED})
"""Reasons of closing after which nothing a GP says opens the thread again."""


class Happening(StrEnum):
    """What machines and clocks report."""

    STARTED = "started"  # the letter was sent
    DELIVERED = "delivered"
    SEEN = "seen"
    FAILED = "failed"
    STEP = "step"
    CLOSE = "close"
    ACK_EXPIRES = "ack_expires"
    WAKE = "wake"
    SUPERSEDED = "superseded"
    RETRACTED = "retracted"
    RENEWED = "renewed"  # an addendum or a replacement joined: it must be read anew
    STRANGER = "stranger"  # a valid token in the hands of somebody who takes no part


class Do(StrEnum):
    """What a step asks of planning."""

    SHOW_TAKEN = "show_taken"
    SHOW_WITHDRAWN = "show_withdrawn"
    SHOW_REFUSED = "show_refused"
    SHOW_ASKED = "show_asked"
    SHOW_SNOOZED = "show_snoozed"
    SHOW_ALERT = "show_alert"  # the alert as it was first
    REMIND = "remind"  # `Step.target`
    REMIND_GP = "remind_gp"
    REMIND_WARD = "remind_ward"
    TELL_DESK = "tell_desk"
    TELL_WARD = "tell_ward"
    STOP_COPIES = "stop_copies"
    ASK_DELETION = "ask_deletion"
    OPEN_INCIDENT = "open_incident"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a thread.

    `by` is a participant's key, or "desk:NAME", "ward:SLUG", "admin:NAME"; `words` how the actor is named to
    others. `to` is whom it is handed to ("desk:NAME", "ward:SLUG"), or the desk to fall back on. `silent`:
    the letter was accepted by a mailbox from which no read receipt ever came. `why` of a step: what keeps the
    letter from leaving.
    """

    what: Verb | Happening
    by: str = ""
    words: str = ""
    level: int = 0
    until: datetime | None = None
    to: str = ""
    why: Why | None = None
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """What an event made of a thread.

    `timers` are to be added; where `anew`, every other timer of the thread goes. `refused` says why nothing
    changed, and is None when something did or there was nothing to do.
    """

    thread: Thread
    timers: tuple[Timer, ...] = ()
    anew: bool = False
    does: tuple[Do, ...] = ()
    target: str = ""
    why: Why | None = None
    refused: Why | None = None
    changed: bool = True


# ---------------------------------------------------------------------------------------------------- the clock


def hours_as_json(hours: Hours) -> dict[str, object]:
    """Hours in plain values, for a pinned follow-up; `hours_from_json` reads them back."""
    return {
        "week": [[[w.start, w.end] for w in day] for day in hours.week],
        "holidays": hours.on_holidays,
        "country": hours.calendar.country,
        "subdiv": hours.calendar.subdiv,
        "exceptions": {
            day.isoformat(): [[w.start, w.end] for w in windows] for day, windows in hours.exceptions.items()
        },
    }


def hours_from_json(name: str, stored: Mapping[str, Any], timezone: str) -> Hours:
    """The hours as they stood when they were pinned. Raises KeyError, ValueError on a form we never wrote."""
    week = tuple(tuple(Window(start, end) for start, end in day) for day in stored["week"])
    if len(week) != len(DAYS):
        raise ValueError("a week has seven days")
    return Hours(
        name=name,
        week=week,
        zone=ZoneInfo(timezone),
        on_holidays=stored.get("holidays", "open"),
        calendar=Holidays(stored.get("country") or "FR", stored.get("subdiv")),
        exceptions=MappingProxyType(
            {
                date.fromisoformat(day): tuple(Window(start, end) for start, end in windows)
                for day, windows in (stored.get("exceptions") or {}).items()
            }
        ),
    )


@lru_cache(maxsize=256)
def _hours(name: str, stored: str, timezone: str) -> Hours:
    return hours_from_json(name, json.loads(stored), timezone)


def clock(pinned: Pinned, name: str) -> Hours | None:
    """A clock of the pinned follow-up; None for `real`, and for one that was never pinned."""
    stored = pinned.hours.get(name)
    if name == "real" or stored is None:
        return None
    return _hours(name, json.dumps(stored, sort_keys=True), pinned.timezone)


def due(pinned: Pinned, span: str, name: str, since: datetime) -> datetime:
    """The instant `span` after `since` on that clock."""
    return add(since, Duration.parse(span), clock(pinned, name))


def last_desk(pinned: Pinned | None) -> str:
    """The name of the desk at the end of the ladder, "" when there is none."""
    if pinned is None or not pinned.ladder:
        return ""
    target = pinned.ladder[-1].hand_to
    return desk_of(pinned, target) if target else ""


def desk_of(pinned: Pinned, target: str) -> str:
    """The desk that a target of the pinned follow-up is."""
    who = str(pinned.targets.get(target, {}).get("who", ""))
    return who.removeprefix("desk/") if who.startswith("desk/") else ""


# --------------------------------------------------------------------------------------------------- opening


def opened(thread: Thread, since: datetime) -> Step:
    """A new thread in `awaiting_ack`, its ladder counted from the planned sending."""
    return _climb(thread, ThreadState.AWAITING_ACK, since)


def _climb(thread: Thread, state: ThreadState, since: datetime, does: tuple[Do, ...] = ()) -> Step:
    """Into a state with a ladder, from its first rung; nobody has taken it there."""
    pinned = thread.followup
    assert pinned is not None  # noqa: S101 - every thread is opened with one
    moved = replace(
        thread,
        state=state,
        owner=None,
        desk=None,
        level=0,
        revision=thread.revision + 1,
        counts_from=since,
        deadline=due(pinned, pinned.ack_within, pinned.ack_clock, since) if pinned.ack_within else None,
        snoozed_until=None,
        closed_at=None,
        closed_reason=None,
    )
    timers = tuple(
        Timer(thread.id, "step", level, moved.revision, due(pinned, rung.after, rung.clock, since))
        for level, rung in enumerate(pinned.ladder)
    )
    return Step(moved, timers, anew=True, does=does)


def _rest(
    thread: Thread,
    state: ThreadState,
    *,
    owner: str | None = None,
    desk: str | None = None,
    timers: tuple[Timer, ...] = (),
    does: tuple[Do, ...] = (),
    why: Why | None = None,
) -> Step:
    """Into a state without a ladder."""
    moved = replace(
        thread,
        state=state,
        owner=owner,
        desk=desk,
        revision=thread.revision + 1,
        deadline=None,
        snoozed_until=None,
        closed_at=None,
        closed_reason=None,
    )
    return Step(
        moved, tuple(replace(t, revision=moved.revision) for t in timers), anew=True, does=does, why=why
    )


def _closed(thread: Thread, why: Why, at: datetime, *does: Do) -> Step:
    step = _rest(thread, ThreadState.CLOSED, does=does, why=why)
    return replace(step, thread=replace(step.thread, closed_at=at, closed_reason=why.value))


def _with_desk(thread: Thread, desk: str, why: Why, *does: Do) -> Step:
    return _rest(thread, ThreadState.WITH_DESK, desk=desk, does=does, why=why)


def _unchanged(thread: Thread, refused: Why | None = None) -> Step:
    return Step(thread, refused=refused, changed=False)


# --------------------------------------------------------------------------------------------------- entitled


def is_hospital(key: str) -> bool:
    """Wards, desks, admins and the DPO speak for the hospital; everybody else was written to."""
    return key.startswith(("ward:", "desk:", "admin:")) or key in ("admin", "dpo")


def entitled(thread: Thread, by: str, verb: Verb) -> bool:
    """Whether that person may do that to this thread; the state may still forbid it."""
    if by == "admin" or by.startswith(("desk:", "admin:")):
        return verb is not Verb.REFUSE
    part = next((p for p in thread.participants if p.key == by), None)
    if part is None or part.revoked or part.copy:
        return False
    if is_hospital(by):
        return verb in _WARDS_VERBS
    return verb in _GPS_VERBS


_GPS_VERBS: Final = frozenset(
    {Verb.ACK, Verb.ASK, Verb.CALL_ME, Verb.SNOOZE, Verb.REFUSE, Verb.UNDO, Verb.MORE}
)
_WARDS_VERBS: Final = frozenset({Verb.ANSWER, Verb.HAND_OVER, Verb.RECALL, Verb.CLOSE, Verb.REOPEN, Verb.ACK})


# --------------------------------------------------------------------------------------------------- advancing


def advance(thread: Thread, event: Event, at: datetime, timers: Iterable[Timer] = ()) -> Step:
    """One event's step. `timers` are those waiting now (a snooze moves them). Raises nothing."""
    at = at.astimezone(UTC)
    current = tuple(t for t in timers if t.revision == thread.revision)
    if isinstance(event.what, Happening):
        return _happened(thread, event, at, current)
    if not entitled(thread, event.by, event.what):
        return _unchanged(thread, Why.PRESS_NOT_YOURS)
    if thread.state is ThreadState.CLOSED and not _reopens(thread, event, at):
        return _unchanged(thread, Why.PRESS_EXPIRED)
    return _done(thread, event, at, current)


def _reopens(thread: Thread, event: Event, at: datetime) -> bool:
    """Whether a closed thread hears this at all."""
    if event.what is Verb.RECALL:
        return thread.closed_reason != Why.RECALLED.value
    if event.what in (Verb.SNOOZE, Verb.UNDO, Verb.CLOSE):
        return False
    if thread.closed_reason in _FINAL:
        return False
    if is_hospital(event.by):
        return True
    return thread.closed_at is None or at - thread.closed_at <= REOPENS_WITHIN


def _done(thread: Thread, event: Event, at: datetime, timers: Sequence[Timer]) -> Step:
    """What a person did, who may."""
    match event.what:
        case Verb.ACK:
            return _acknowledged(thread, event, at)
        case Verb.ASK | Verb.CALL_ME:
            return _climb(thread, ThreadState.AWAITING_WARD, at, (Do.SHOW_ASKED,))
        case Verb.ANSWER:
            return _climb(thread, ThreadState.AWAITING_GP, at)
        case Verb.SNOOZE:
            return _snoozed(thread, event, at, timers)
        case Verb.HAND_OVER:
            return _handed(thread, event, at)
        case Verb.REFUSE:
            revoked = tuple(replace(p, revoked=True) if p.key == event.by else p for p in thread.participants)
            return _with_desk(
                replace(thread, participants=revoked),
                last_desk(thread.followup) or event.to,
                Why.GP_REFUSED,
                Do.STOP_COPIES,
                Do.SHOW_REFUSED,
                Do.ASK_DELETION,
                Do.TELL_WARD,
                Do.TELL_DESK,
                Do.OPEN_INCIDENT,
            )
        case Verb.RECALL:
            return _closed(
                thread,
                Why.RECALLED,
                at,
                Do.STOP_COPIES,
                Do.SHOW_WITHDRAWN,
                Do.ASK_DELETION,
                Do.TELL_WARD,
                Do.OPEN_INCIDENT,
            )
        case Verb.CLOSE:
            return _closed(thread, event.why or Why.HANDLED, at, Do.STOP_COPIES, Do.SHOW_TAKEN)
        case Verb.REOPEN if thread.state is ThreadState.CLOSED:
            return _climb(thread, ThreadState.AWAITING_ACK, at)
        case Verb.UNDO:
            return _undone(thread, event, at, timers)
        case _:
            return _unchanged(thread)


def _acknowledged(thread: Thread, event: Event, at: datetime) -> Step:
    if thread.state is ThreadState.ACKNOWLEDGED or (
        thread.state is ThreadState.CLOSED and thread.closed_reason == Why.HANDLED.value
    ):
        return _unchanged(thread, Why.PRESS_USED if thread.owner in (event.by, None) else Why.PRESS_TAKEN)
    pinned = thread.followup
    assert pinned is not None  # noqa: S101 - every thread is opened with one
    timers = [Timer(thread.id, "close", 0, 0, due(pinned, pinned.close_quiet_for, pinned.ack_clock, at))]
    if pinned.ack_expires:
        timers.append(
            Timer(thread.id, "ack_expires", 0, 0, due(pinned, pinned.ack_expires, pinned.ack_clock, at))
        )
    step = _rest(
        thread, ThreadState.ACKNOWLEDGED, owner=event.by, timers=tuple(timers), does=(Do.SHOW_TAKEN,)
    )
    return replace(
        step, thread=replace(step.thread, acknowledged_by=event.words or event.by, acknowledged_at=at)
    )


def _snoozed(thread: Thread, event: Event, at: datetime, timers: Sequence[Timer]) -> Step:
    """The ladder stands still until then: every rung moves by as much as the wait is long."""
    if thread.state not in (ThreadState.AWAITING_ACK, ThreadState.AWAITING_GP) or thread.snoozed_until:
        return _unchanged(thread, Why.PRESS_EXPIRED)
    until = min(event.until or at + timedelta(hours=1), at + LONGEST_SNOOZE)
    if until <= at:
        return _unchanged(thread, Why.PRESS_EXPIRED)
    return _moved(thread, until, until - at, timers, at, Do.SHOW_SNOOZED)


def _moved(
    thread: Thread, until: datetime | None, by: timedelta, timers: Sequence[Timer], at: datetime, does: Do
) -> Step:
    counts_from = thread.counts_from + by if thread.counts_from else None
    moved = replace(thread, snoozed_until=until, counts_from=counts_from, revision=thread.revision + 1)
    kept = [
        replace(t, revision=moved.revision, due=max(t.due + by, at) if by < timedelta(0) else t.due + by)
        for t in timers
        if t.kind in ("step", "close")
    ]
    if not any(t.kind == "step" for t in kept):
        # Nothing was left to wait for: begin again rather than end without a timer.
        return _climb(thread, thread.state, until or at, (does,))
    if until:
        kept.append(Timer(thread.id, "wake", 0, moved.revision, until))
    return Step(moved, tuple(kept), anew=True, does=(does,))


def _undone(thread: Thread, event: Event, at: datetime, timers: Sequence[Timer]) -> Step:
    if (
        thread.state is ThreadState.ACKNOWLEDGED
        and thread.owner == event.by
        and thread.acknowledged_at
        and at - thread.acknowledged_at <= UNDO_WITHIN
    ):
        cleared = replace(thread, acknowledged_by=None, acknowledged_at=None)
        return _climb(cleared, ThreadState.AWAITING_ACK, at, (Do.SHOW_ALERT,))
    if thread.snoozed_until:
        return _moved(thread, None, at - thread.snoozed_until, timers, at, Do.SHOW_ALERT)
    return _unchanged(thread, Why.PRESS_EXPIRED)


def _handed(thread: Thread, event: Event, at: datetime) -> Step:
    if event.to.startswith("desk:"):
        return _with_desk(thread, event.to.removeprefix("desk:"), Why.BY_PERSON, Do.TELL_DESK)
    if event.to.startswith("ward:"):
        step = _climb(thread, ThreadState.AWAITING_WARD, at, (Do.TELL_WARD,))
        return replace(step, why=Why.BY_PERSON)
    return _unchanged(thread, Why.PRESS_EXPIRED)


def _happened(thread: Thread, event: Event, at: datetime, timers: Sequence[Timer]) -> Step:
    """What a machine or a clock reports. None of it acknowledges."""
    pinned = thread.followup
    if pinned is None or (thread.state is ThreadState.CLOSED and event.what is not Happening.RENEWED):
        return _unchanged(thread)
    waits = thread.state is ThreadState.AWAITING_ACK
    match event.what:
        case Happening.STARTED if thread.started_at is None:
            begun = replace(thread, started_at=at)
            if waits and not thread.snoozed_until:
                return _climb(begun, ThreadState.AWAITING_ACK, at)
            return Step(begun)
        case Happening.SEEN if waits and pinned.awaits in ("seen", "delivered"):
            return _closed(thread, Why.SEEN_NO_ANSWER, at)
        case Happening.DELIVERED if waits and pinned.awaits == "delivered":
            return _closed(thread, Why.DELIVERED_NO_ANSWER, at)
        case Happening.DELIVERED if waits and pinned.awaits == "seen":
            return Step(thread, (_quiet_timer(thread, pinned, at),), changed=False)
        case Happening.FAILED:
            desk = last_desk(pinned) or event.to
            return _with_desk(thread, desk, event.why or Why.REFUSED, Do.TELL_WARD, Do.TELL_DESK)
        case Happening.STRANGER:
            desk = last_desk(pinned) or event.to
            return _with_desk(thread, desk, Why.UNKNOWN_SENDER, Do.TELL_DESK)
        case Happening.STEP if thread.state in LADDER_STATES and event.level < len(pinned.ladder):
            return _stepped(thread, pinned, event, at, timers)
        case Happening.CLOSE if thread.state is ThreadState.ACKNOWLEDGED:
            return _closed(thread, Why.HANDLED, at)
        case Happening.CLOSE if waits and pinned.awaits == "seen":
            if event.silent:
                return _closed(thread, Why.DELIVERED_NO_ANSWER, at)
            if not any(t.kind == "step" for t in timers):
                desk = last_desk(pinned) or event.to
                return _with_desk(thread, desk, Why.LADDER_EXHAUSTED, Do.TELL_DESK, Do.TELL_WARD)
            return _unchanged(thread)
        case Happening.ACK_EXPIRES if thread.state is ThreadState.ACKNOWLEDGED:
            return _climb(thread, ThreadState.AWAITING_ACK, at, (Do.REMIND_GP,))
        case Happening.WAKE if thread.snoozed_until:
            return Step(replace(thread, snoozed_until=None), does=(Do.REMIND_GP,))
        case Happening.SUPERSEDED:
            return _closed(thread, Why.SUPERSEDED, at, Do.STOP_COPIES, Do.SHOW_WITHDRAWN)
        case Happening.RETRACTED:
            return _closed(thread, Why.SUPERSEDED, at, Do.STOP_COPIES, Do.SHOW_WITHDRAWN, Do.TELL_WARD)
        case Happening.RENEWED:
            anew = replace(thread, started_at=None, acknowledged_by=None, acknowledged_at=None)
            return _climb(anew, ThreadState.AWAITING_ACK, at)
        case _:
            return _unchanged(thread)


def _quiet_timer(thread: Thread, pinned: Pinned, at: datetime) -> Timer:
    return Timer(thread.id, "close", 0, thread.revision, add(at, QUIET_DAYS, clock(pinned, pinned.ack_clock)))


def _stepped(thread: Thread, pinned: Pinned, event: Event, at: datetime, timers: Sequence[Timer]) -> Step:
    rung: LadderStep = pinned.ladder[event.level]
    climbed = replace(thread, level=event.level + 1)
    if rung.hand_to:
        if thread.state is ThreadState.AWAITING_ACK and pinned.awaits == "seen" and event.silent:
            # A mailbox that never says "read" would send every letter to the desk.
            close = () if any(t.kind == "close" for t in timers) else (_quiet_timer(thread, pinned, at),)
            return Step(climbed, close)
        desk = desk_of(pinned, rung.hand_to) or event.to
        return _with_desk(climbed, desk, event.why or Why.LADDER_EXHAUSTED, Do.TELL_DESK, Do.TELL_WARD)
    if event.why is not None:
        return Step(climbed)  # nobody is reminded of a letter that has not left
    if thread.state is ThreadState.AWAITING_WARD:
        return Step(climbed, does=(Do.REMIND_WARD,))
    if thread.state is ThreadState.AWAITING_GP:
        return Step(climbed, does=(Do.REMIND_GP,), target=rung.remind or "")
    return Step(climbed, does=(Do.REMIND,), target=rung.remind or "")


# ------------------------------------------------------------------------------------------ another follow-up


def same_followup(one: Pinned | None, other: Pinned | None) -> bool:
    """Whether two follow-ups ask for the same, whichever rule set they stand in."""
    return one is not None and other is not None and replace(one, ruleset="") == replace(other, ruleset="")


def repinned(
    thread: Thread,
    pinned: Pinned,
    at: datetime,
    timers: Iterable[Timer] = (),
    *,
    came: Happening | None = None,
    silent: bool = False,
) -> Step:
    """The thread on another follow-up, as far along it as its time has brought it. Nothing begins anew.

    Times count from where they counted before. Of the rungs whose time has passed, the latest is done now, unless
    the former follow-up did the same; earlier ones are passed over. The last rung always keeps its timer, so that
    the thread ends at people. `came` (SEEN, DELIVERED or None) is how far the letter in force came, and `silent` as
    in `Event`: what the new follow-up awaits may have happened already.
    """
    former = thread.followup
    if thread.state is ThreadState.CLOSED or former is None or same_followup(former, pinned):
        return _unchanged(thread)
    at = at.astimezone(UTC)
    moved = replace(thread, followup=pinned, revision=thread.revision + 1)
    waiting = [replace(t, revision=moved.revision) for t in timers if t.revision == thread.revision]
    if thread.state is ThreadState.ACKNOWLEDGED:
        return Step(moved, _resting_timers(moved, pinned, at), anew=True)
    if thread.state not in LADDER_STATES:
        return Step(moved, anew=True)
    kept = [t for t in waiting if t.kind in ("evidence", "wake")]
    if thread.state is ThreadState.AWAITING_ACK:
        # Opened again by a person or a clock, it waits for more than what its letter's first reader did.
        first = thread.started_at is not None and thread.started_at == thread.counts_from
        if first and (ended := _ended(pinned, came)) is not None:
            return _closed(moved, ended, at)
        quiet = [t for t in waiting if t.kind == "close"] if pinned.awaits == "seen" else []
        if pinned.awaits == "seen" and first and came is Happening.DELIVERED and not quiet:
            quiet = [_quiet_timer(moved, pinned, at)]
        kept += quiet
    silent = silent and any(t.kind == "close" for t in kept)
    rungs = _rungs_left(moved, former, at, spare_desk=silent)
    since = _counted_from(moved)
    moved = replace(
        moved,
        level=min((t.level for t in rungs), default=len(pinned.ladder)),
        deadline=due(pinned, pinned.ack_within, pinned.ack_clock, since) if pinned.ack_within else None,
    )
    return Step(moved, (*rungs, *kept), anew=True)


def _counted_from(thread: Thread) -> datetime:
    return thread.counts_from or thread.started_at or thread.opened_at


def _ended(pinned: Pinned, came: Happening | None) -> Why | None:
    """What ends the wait at once under that follow-up."""
    if came is Happening.SEEN and pinned.awaits in ("seen", "delivered"):
        return Why.SEEN_NO_ANSWER
    return Why.DELIVERED_NO_ANSWER if came is Happening.DELIVERED and pinned.awaits == "delivered" else None


def _resting_timers(thread: Thread, pinned: Pinned, at: datetime) -> tuple[Timer, ...]:
    """What an acknowledged thread waits for, counted from its acknowledgement; of two that are past, the close."""
    since = thread.acknowledged_at or at
    close = due(pinned, pinned.close_quiet_for, pinned.ack_clock, since)
    timers = [Timer(thread.id, "close", 0, thread.revision, max(close, at))]
    if pinned.ack_expires:
        expires = due(pinned, pinned.ack_expires, pinned.ack_clock, since)
        if close > at or expires > at:
            timers.append(Timer(thread.id, "ack_expires", 0, thread.revision, max(expires, at)))
    return tuple(timers)


def _rungs_left(thread: Thread, former: Pinned, at: datetime, *, spare_desk: bool) -> tuple[Timer, ...]:
    """The timers of the ladder now pinned. `spare_desk`: a desk whose time has passed is not called upon."""
    pinned = thread.followup
    assert pinned is not None  # noqa: S101 - it was just given one
    now = max(at, thread.snoozed_until or at)
    times = [due(pinned, rung.after, rung.clock, _counted_from(thread)) for rung in pinned.ladder]
    last = len(times) - 1
    latest = max((level for level, time in enumerate(times) if time <= now), default=None)
    left = {level: time for level, time in enumerate(times) if time > now}
    if latest is not None:
        done = [_asks(former, rung, thread.state) for rung in former.ladder[: thread.level]]
        again = _asks(pinned, pinned.ladder[latest], thread.state) in done
        if (latest == last and not spare_desk) or (latest != last and not again):
            left[latest] = now
    return tuple(Timer(thread.id, "step", level, thread.revision, left[level]) for level in sorted(left))


def _asks(pinned: Pinned, rung: LadderStep, state: ThreadState) -> tuple[object, ...]:
    """What a rung does, whatever its target is called: in the later waits a reminder goes to who owes the answer."""
    if rung.hand_to:
        return ("hand_to", desk_of(pinned, rung.hand_to))
    if state is ThreadState.AWAITING_WARD:
        return ("remind",)
    known = pinned.targets.get(rung.remind or "", {})
    via = known.get("via")
    who = known.get("who") if state is ThreadState.AWAITING_ACK else "registered_gp"
    return ("remind", who, tuple(via) if isinstance(via, list | tuple) else ())


@dataclass(frozen=True, slots=True)
class Problem:
    """A thread that breaks an invariant, for tests and for `status`."""

    thread: str
    name: str


def problems(thread: Thread, timers: Iterable[Timer]) -> tuple[Problem, ...]:
    """What must never be true of a stored thread."""
    found = []
    waiting = [t for t in timers if t.revision == thread.revision]
    if thread.state is ThreadState.CLOSED:
        if thread.closed_reason is None or thread.closed_at is None:
            found.append("closed_without_reason")
        if thread.owner or thread.desk:
            found.append("closed_with_owner")
    elif not waiting and not thread.desk:
        found.append("open_without_timer_or_desk")
    if thread.desk and thread.owner:
        found.append("two_owners")
    if (thread.state is ThreadState.WITH_DESK) != bool(thread.desk):
        found.append("desk_and_state_differ")
    return tuple(Problem(thread.id, name) for name in found)
