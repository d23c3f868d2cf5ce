"""Who carries the responsibility: whatever happens, an open thread waits for a time or for a desk."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from relay import threads
from relay.calendar import Holidays, Hours, Window
from relay.model import LadderStep, Participant, Pinned, Thread, ThreadState, Timer, Verb, Why
from relay.threads import Do, Event, Happening, Step
from tests.campaign import many

AT = datetime(2026, 12, 1, 16, 0, tzinfo=UTC)
GP, OTHER, WARD, DESK = "rpps:10009990019", "rpps:10009990027", "ward:cardiologie", "desk:sorties"
PARIS = ZoneInfo("Europe/Paris")
OFFICE = Hours(
    "cabinet",
    tuple((Window(480, 750), Window(810, 1140)) if day < 5 else () for day in range(7)),
    PARIS,
    "closed",
    Holidays("FR"),
    {date(2026, 12, 24): (Window(480, 720),)},
)


def pinned(awaits: Any = "ack", **more: Any) -> Pinned:
    return Pinned(
        "court",
        awaits,
        (
            LadderStep("1h", "real", remind="gp_ping"),
            LadderStep("2h", "real", remind="gp"),
            LadderStep("4h", "real", hand_to="sorties"),
        ),
        ack_within="2h",
        targets={"sorties": {"who": "desk/sorties"}, "gp_ping": {"who": "registered_gp"}},
        **more,
    )


def opened(awaits: Any = "ack", **more: Any) -> Step:
    thread = Thread(
        "t", "7F3Q-K2M9", ThreadState.AWAITING_ACK, AT, "cardiologie", "450000088", "", "letter", gp=GP,
        followup=pinned(awaits, **more),
        participants=(Participant(GP, "gp@x"), Participant(OTHER, "o@x"), Participant(WARD, "w@x")),
        revision=-1,
    )  # fmt: skip
    return threads.opened(thread, AT)


def does(
    thread: Thread, what: Verb | Happening, by: str = "", at: datetime = AT, timers: Any = (), **more: Any
) -> Step:
    return threads.advance(thread, Event(what, by, **more), at, timers)


def test_a_thread_opens_with_its_whole_ladder_and_a_deadline():
    step = opened()
    assert [(t.level, t.due) for t in step.timers] == [
        (0, AT + timedelta(hours=1)),
        (1, AT + timedelta(hours=2)),
        (2, AT + timedelta(hours=4)),
    ]
    assert step.thread.deadline == AT + timedelta(hours=2)
    assert step.thread.revision == 0


@pytest.mark.parametrize("by", [GP, OTHER])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_an_acknowledgement_by_anyone_entitled_at_any_level_stops_the_ladder(by: str, level: int):
    step = opened()
    thread = step.thread
    for rung in range(level):
        thread = does(thread, Happening.STEP, level=rung, timers=step.timers).thread
    done = does(thread, Verb.ACK, by, words="Dr Ambre")
    assert (done.thread.state, done.thread.owner) == (ThreadState.ACKNOWLEDGED, by)
    assert done.thread.acknowledged_by == "Dr Ambre"
    assert done.anew
    assert {t.kind for t in done.timers} == {"close"}
    assert Do.SHOW_TAKEN in done.does


def test_a_stranger_a_revoked_one_and_the_wards_people_cannot_do_what_a_gp_does():
    thread = opened().thread
    assert does(thread, Verb.ACK, "rpps:10009990035").refused is Why.PRESS_NOT_YOURS
    assert does(thread, Verb.REFUSE, WARD).refused is Why.PRESS_NOT_YOURS
    assert does(thread, Verb.RECALL, GP).refused is Why.PRESS_NOT_YOURS
    revoked = replace(thread, participants=(Participant(GP, "gp@x", revoked=True),))
    assert does(revoked, Verb.ACK, GP).refused is Why.PRESS_NOT_YOURS


def test_a_second_acknowledgement_says_who_was_first():
    thread = does(opened().thread, Verb.ACK, GP).thread
    assert does(thread, Verb.ACK, GP).refused is Why.PRESS_USED
    assert does(thread, Verb.ACK, OTHER).refused is Why.PRESS_TAKEN


@pytest.mark.parametrize("happening", [Happening.SEEN, Happening.DELIVERED, Happening.STARTED])
def test_no_report_of_a_machine_acknowledges(happening: Happening):
    for awaits in ("ack", "seen", "delivered"):
        thread = does(opened(awaits).thread, happening).thread
        assert thread.state is not ThreadState.ACKNOWLEDGED
        assert thread.acknowledged_at is None


def test_what_the_follow_up_awaits_ends_the_wait():
    seen = does(opened("seen").thread, Happening.SEEN).thread
    assert (seen.state, seen.closed_reason) == (ThreadState.CLOSED, "seen_no_answer")
    delivered = does(opened("delivered").thread, Happening.DELIVERED).thread
    assert (delivered.state, delivered.closed_reason) == (ThreadState.CLOSED, "delivered_no_answer")
    assert does(opened("ack").thread, Happening.SEEN).thread.state is ThreadState.AWAITING_ACK


def test_a_mailbox_that_never_says_read_counts_as_handed_over_after_five_open_days():
    step = opened("seen", ack_clock="cabinet", hours={"cabinet": threads.hours_as_json(OFFICE)})
    accepted = does(step.thread, Happening.DELIVERED)
    (timer,) = accepted.timers
    assert not accepted.changed
    assert timer.due == datetime(2026, 12, 8, 18, 0, tzinfo=UTC)
    last = does(step.thread, Happening.STEP, level=2, silent=True, timers=[timer])
    assert (last.thread.state, last.does, last.timers) == (ThreadState.AWAITING_ACK, (), ())
    closed = does(last.thread, Happening.CLOSE, silent=True)
    assert closed.thread.closed_reason == "delivered_no_answer"


def test_a_mailbox_that_does_say_read_is_handed_to_the_desk():
    step = opened("seen")
    last = does(step.thread, Happening.STEP, level=2, silent=False)
    assert (last.thread.state, last.thread.desk) == (ThreadState.WITH_DESK, "sorties")
    assert does(step.thread, Happening.CLOSE).thread.state is ThreadState.WITH_DESK


def test_a_question_turns_the_ladder_to_the_ward_and_an_answer_back_to_the_gp():
    asked = does(opened().thread, Verb.ASK, GP, at=AT + timedelta(hours=3))
    assert (asked.thread.state, asked.thread.owner, asked.thread.level) == (
        ThreadState.AWAITING_WARD,
        None,
        0,
    )
    assert asked.timers[0].due == AT + timedelta(hours=4)
    assert does(asked.thread, Happening.STEP, level=0).does == (Do.REMIND_WARD,)
    answered = does(asked.thread, Verb.ANSWER, WARD)
    assert answered.thread.state is ThreadState.AWAITING_GP
    assert does(answered.thread, Happening.STEP, level=0).does == (Do.REMIND_GP,)
    assert does(answered.thread, Happening.STEP, level=2).thread.state is ThreadState.WITH_DESK


def test_reading_the_answer_is_no_answer():
    asked = does(opened("seen").thread, Verb.ASK, GP).thread
    answered = does(asked, Verb.ANSWER, WARD).thread
    assert does(answered, Happening.SEEN).thread.state is ThreadState.AWAITING_GP


def test_a_quiet_acknowledged_thread_closes_as_handled():
    acknowledged = does(opened().thread, Verb.ACK, GP)
    (close,) = acknowledged.timers
    assert close.due == AT + timedelta(days=2)
    assert does(acknowledged.thread, Happening.CLOSE).thread.closed_reason == "handled"


def test_an_acknowledgement_that_expires_opens_the_wait_again():
    acknowledged = does(opened("ack", ack_expires="7d").thread, Verb.ACK, GP)
    assert {t.kind: t.due for t in acknowledged.timers}["ack_expires"] == AT + timedelta(days=7)
    again = does(acknowledged.thread, Happening.ACK_EXPIRES)
    assert (again.thread.state, again.thread.owner) == (ThreadState.AWAITING_ACK, None)


def test_a_snooze_stops_the_clock_for_72_hours_at_most():
    step = opened()
    snoozed = does(step.thread, Verb.SNOOZE, GP, timers=step.timers, until=AT + timedelta(days=30))
    assert snoozed.thread.snoozed_until == AT + threads.LONGEST_SNOOZE
    steps = [t.due for t in snoozed.timers if t.kind == "step"]
    assert steps == [t.due + threads.LONGEST_SNOOZE for t in step.timers]
    woken = does(snoozed.thread, Happening.WAKE, timers=snoozed.timers)
    assert woken.thread.snoozed_until is None
    assert woken.does == (Do.REMIND_GP,)
    assert does(snoozed.thread, Verb.ASK, GP).thread.snoozed_until is None


def test_a_step_taken_back_within_a_minute_is_as_if_it_had_not_been():
    step = opened()
    thread = does(step.thread, Verb.ACK, GP).thread
    assert does(thread, Verb.UNDO, GP, AT + timedelta(seconds=61)).refused is Why.PRESS_EXPIRED
    assert does(thread, Verb.UNDO, OTHER, AT + timedelta(seconds=5)).refused is Why.PRESS_EXPIRED
    undone = does(thread, Verb.UNDO, GP, AT + timedelta(seconds=59)).thread
    assert (undone.state, undone.owner, undone.acknowledged_by) == (ThreadState.AWAITING_ACK, None, None)
    snoozed = does(step.thread, Verb.SNOOZE, GP, timers=step.timers, until=AT + timedelta(hours=5))
    back = does(snoozed.thread, Verb.UNDO, GP, AT + timedelta(seconds=10), snoozed.timers)
    assert back.thread.snoozed_until is None
    assert abs(back.timers[0].due - step.timers[0].due) <= timedelta(minutes=1)


def test_a_refusal_stops_everything_and_the_refuser_is_out():
    step = does(opened().thread, Verb.REFUSE, GP)
    assert step.thread.state is ThreadState.WITH_DESK
    assert {Do.STOP_COPIES, Do.ASK_DELETION, Do.TELL_WARD, Do.OPEN_INCIDENT} <= set(step.does)
    assert does(step.thread, Verb.ACK, GP).refused is Why.PRESS_NOT_YOURS


def test_a_recall_closes_for_good():
    thread = does(opened().thread, Verb.RECALL, WARD).thread
    assert thread.closed_reason == "recalled"
    for verb, by in (
        (Verb.ACK, GP),
        (Verb.ASK, GP),
        (Verb.ANSWER, WARD),
        (Verb.RECALL, WARD),
        (Verb.REOPEN, WARD),
    ):
        assert does(thread, verb, by).refused is Why.PRESS_EXPIRED


def test_an_acknowledged_thread_can_still_be_recalled():
    thread = does(opened().thread, Verb.ACK, GP).thread
    assert does(thread, Verb.RECALL, DESK).thread.closed_reason == "recalled"
    handled = does(thread, Happening.CLOSE).thread
    assert does(handled, Verb.RECALL, WARD).thread.closed_reason == "recalled"


def test_a_question_within_thirty_days_opens_a_closed_thread_again():
    closed = does(opened("seen").thread, Happening.SEEN).thread
    assert does(closed, Verb.ASK, GP, AT + timedelta(days=29)).thread.state is ThreadState.AWAITING_WARD
    assert does(closed, Verb.ASK, GP, AT + timedelta(days=31)).refused is Why.PRESS_EXPIRED
    assert does(closed, Verb.ACK, GP, AT + timedelta(days=1)).thread.state is ThreadState.ACKNOWLEDGED


def test_a_desk_gives_back_as_well_as_takes():
    taken = does(opened().thread, Happening.STEP, level=2).thread
    assert taken.state is ThreadState.WITH_DESK
    back = does(taken, Verb.HAND_OVER, DESK, to="ward:cardiologie")
    assert (back.thread.state, back.thread.desk) == (ThreadState.AWAITING_WARD, None)
    assert back.timers
    again = does(back.thread, Verb.HAND_OVER, WARD, to="desk:sorties").thread
    assert (again.state, again.desk, again.owner) == (ThreadState.WITH_DESK, "sorties", None)


def test_an_addendum_must_be_read_anew():
    thread = does(opened().thread, Verb.ACK, GP).thread
    renewed = does(thread, Happening.RENEWED)
    assert (renewed.thread.state, renewed.thread.owner) == (ThreadState.AWAITING_ACK, None)
    assert renewed.thread.acknowledged_at is None
    assert len(renewed.timers) == 3


def test_hours_survive_their_plain_form():
    again = threads.hours_from_json("cabinet", threads.hours_as_json(OFFICE), "Europe/Paris")
    for days in range(40):
        at = AT + timedelta(days=days, hours=days)
        assert again.opens_at(at) == OFFICE.opens_at(at)


# ------------------------------------------------------------------------------------------------- another follow-up


def laddered(*after: str, awaits: Any = "ack", who: str = "registered_gp", **more: Any) -> Pinned:
    """Reminders after these times, the last of which hands over."""
    steps = tuple(LadderStep(each, "real", remind=f"to-{number}") for number, each in enumerate(after[:-1]))
    targets = {f"to-{number}": {"who": who, "via": [f"chat-{number}"]} for number in range(len(after))}
    return Pinned(
        "autre", awaits, (*steps, LadderStep(after[-1], "real", hand_to="bureau")), ack_within="3h",
        targets={**targets, "bureau": {"who": "desk/cpts"}}, **more,
    )  # fmt: skip


def at_hour(hours: float) -> datetime:
    return AT + timedelta(hours=hours)


def later(step: Step, hours: float) -> tuple[Thread, list[Timer]]:
    """The thread after that many hours, its timers fired as they fell due."""
    thread, timers = step.thread, list(step.timers)
    for timer in sorted(step.timers, key=lambda t: t.due):
        if timer.due <= at_hour(hours):
            timers.remove(timer)
            thread = does(
                thread, Happening(timer.kind), at=timer.due, timers=timers, level=timer.level
            ).thread
    return thread, timers


def dues(step: Step) -> list[tuple[str, int, float]]:
    return sorted((t.kind, t.level, (t.due - AT) / timedelta(hours=1)) for t in step.timers)


def test_another_follow_up_counts_from_where_the_former_one_counted():
    thread, timers = later(opened(), 0.5)
    step = threads.repinned(thread, laddered("3h", "5h", "9h"), at_hour(0.5), timers)
    assert dues(step) == [("step", 0, 3), ("step", 1, 5), ("step", 2, 9)]
    assert (step.thread.deadline, step.thread.level) == (at_hour(3), 0)
    assert step.anew
    assert all(timer.revision == step.thread.revision > thread.revision for timer in step.timers)


def test_of_the_steps_whose_time_has_passed_the_latest_is_done_now_and_the_earlier_ones_never():
    thread, timers = later(opened(), 0.75)
    step = threads.repinned(thread, laddered("10m", "20m", "9h"), at_hour(0.75), timers)
    assert dues(step) == [("step", 1, 0.75), ("step", 2, 9)]
    assert step.thread.level == 1


def test_what_the_former_follow_up_did_is_not_done_again():
    first = laddered("1h", "6h", "9h")
    thread, timers = later(threads.repinned(opened().thread, first, AT), 2)
    assert thread.level == 1
    step = threads.repinned(thread, laddered("30m", "8h", "9h"), at_hour(2), timers)
    assert dues(step) == [("step", 1, 8), ("step", 2, 9)]
    # The same step for somebody else is another step.
    step = threads.repinned(thread, laddered("30m", "8h", "9h", who="sending_ward"), at_hour(2), timers)
    assert dues(step)[0] == ("step", 0, 2)


def test_a_ladder_whose_every_time_has_passed_hands_over_now():
    thread, timers = later(opened(), 3)
    step = threads.repinned(thread, laddered("30m", "2h"), at_hour(3), timers)
    assert dues(step) == [("step", 1, 3)]
    done = does(step.thread, Happening.STEP, at=at_hour(3), level=1)
    assert (done.thread.state, done.thread.desk) == (ThreadState.WITH_DESK, "cpts")


def test_a_snoozed_thread_sleeps_on_and_its_ladder_counts_from_as_much_later():
    step = does(opened().thread, Verb.SNOOZE, GP, at_hour(1), opened().timers, until=at_hour(11))
    moved = threads.repinned(step.thread, laddered("30m", "4h"), at_hour(2), step.timers)
    assert dues(moved) == [("step", 0, 11), ("step", 1, 14), ("wake", 0, 11)]
    assert moved.thread.snoozed_until == at_hour(11)


def test_an_acknowledged_thread_counts_from_its_acknowledgement():
    taken = does(opened().thread, Verb.ACK, GP, at_hour(1))
    other = laddered("1h", close_quiet_for="10h", ack_expires="20h")
    assert dues(threads.repinned(taken.thread, other, at_hour(2), taken.timers)) == [
        ("ack_expires", 0, 21), ("close", 0, 11),
    ]  # fmt: skip
    # Of two times that are both past, the close.
    assert dues(threads.repinned(taken.thread, other, at_hour(30), taken.timers)) == [("close", 0, 30)]


def test_a_question_s_ladder_counts_from_the_question():
    asked = does(opened().thread, Verb.ASK, GP, at_hour(10))
    step = threads.repinned(asked.thread, laddered("2h", "4h"), at_hour(11), asked.timers)
    assert dues(step) == [("step", 0, 12), ("step", 1, 14)]
    assert (step.thread.state, step.thread.deadline) == (ThreadState.AWAITING_WARD, at_hour(13))


def test_what_the_new_follow_up_awaits_may_have_happened_already():
    sent = does(opened().thread, Happening.STARTED, at=AT)
    seen = threads.repinned(sent.thread, laddered("2h", awaits="seen"), at_hour(1), came=Happening.SEEN)
    assert (seen.thread.state, seen.thread.closed_reason) == (ThreadState.CLOSED, Why.SEEN_NO_ANSWER)
    assert seen.timers == ()
    came = threads.repinned(sent.thread, laddered("2h", awaits="delivered"), AT, came=Happening.DELIVERED)
    assert came.thread.closed_reason == Why.DELIVERED_NO_ANSWER
    # Whoever opened it again wants more than that.
    again = does(seen.thread, Verb.REOPEN, DESK, at_hour(2))
    step = threads.repinned(again.thread, laddered("9h", awaits="seen"), at_hour(3), came=Happening.SEEN)
    assert dues(step) == [("step", 0, 11)]


def test_a_mailbox_that_never_says_read_waits_on_under_the_new_follow_up_instead_of_its_desk():
    sent = does(opened().thread, Happening.STARTED, at=AT)
    step = threads.repinned(
        sent.thread,
        laddered("2h", awaits="seen"),
        at_hour(3),
        sent.timers,
        came=Happening.DELIVERED,
        silent=True,
    )
    assert [timer.kind for timer in step.timers] == ["close"]
    back = threads.repinned(step.thread, laddered("2h"), at_hour(4), step.timers)
    assert dues(back) == [("step", 0, 4)]


def test_a_desk_s_thread_keeps_its_desk_and_a_closed_one_its_follow_up():
    desk = does(opened().thread, Verb.HAND_OVER, DESK, to="desk:sorties")
    step = threads.repinned(desk.thread, laddered("1h"), at_hour(9))
    assert (step.thread.desk, step.timers, step.changed) == ("sorties", (), True)
    closed = does(opened().thread, Verb.CLOSE, DESK)
    assert not threads.repinned(closed.thread, laddered("1h"), at_hour(9)).changed


def test_the_same_follow_up_in_another_rule_set_changes_nothing():
    thread = opened().thread
    assert not threads.repinned(thread, replace(pinned(), ruleset="other"), at_hour(1)).changed


# ----------------------------------------------------------------------------------------- whatever comes, in any order

CLOSES_BY = {
    ThreadState.CLOSED: {
        "handled", "seen_no_answer", "delivered_no_answer", "recalled", "superseded", "by_phone", "reassigned",
    }
}  # fmt: skip


class AnyLife(RuleBasedStateMachine):
    """Random people, machines and clocks act on one thread, its timers kept as the store keeps them."""

    @initialize(awaits=st.sampled_from(["ack", "seen", "delivered"]), expires=st.sampled_from([None, "3d"]))
    def opens(self, awaits: str, expires: str | None) -> None:
        step = opened(awaits, ack_expires=expires)
        self.thread, self.timers, self.at = step.thread, {t.id: t for t in step.timers}, AT
        self.fired: set[str] = set()

    def take(self, step: Step) -> None:
        before = self.thread
        if not step.changed:
            assert step.thread == before
        if step.anew:
            assert step.thread.revision > before.revision
            self.timers = {}
        if step.thread.state is not before.state:
            assert step.thread.revision > before.revision
        self.thread = step.thread
        for timer in step.timers:
            assert timer.revision == self.thread.revision
            assert timer.due >= self.at
            if timer.id not in self.fired:
                self.timers.setdefault(timer.id, timer)

    @rule(
        verb=st.sampled_from([v for v in Verb if v is not Verb.MORE]),
        by=st.sampled_from([GP, OTHER, WARD, DESK, "rpps:1", "admin:x"]),
        to=st.sampled_from(["desk:sorties", "ward:cardiologie", "", "rpps:1"]),
        hours=st.integers(-2, 200),
    )
    def somebody_acts(self, verb: Verb, by: str, to: str, hours: int) -> None:
        before = self.thread
        to = to if verb is Verb.HAND_OVER else "sorties"
        until = self.at + timedelta(hours=hours)
        step = does(self.thread, verb, by, self.at, self.timers.values(), to=to, until=until)
        self.take(step)
        if step.refused is not None:
            assert self.thread == before
        if not threads.entitled(before, by, verb):
            assert self.thread == before
        if self.thread.acknowledged_at not in (None, before.acknowledged_at):
            assert verb is Verb.ACK
            assert by in (GP, OTHER, WARD, DESK, "admin:x")

    @rule(
        what=st.sampled_from(
            [
                Happening.STARTED, Happening.DELIVERED, Happening.SEEN, Happening.FAILED, Happening.SUPERSEDED,
                Happening.RETRACTED, Happening.RENEWED, Happening.STRANGER,
            ]
        )
    )  # fmt: skip
    def a_machine_reports(self, what: Happening) -> None:
        before = self.thread
        self.take(does(self.thread, what, at=self.at, timers=self.timers.values(), to="sorties"))
        assert self.thread.acknowledged_at in (before.acknowledged_at, None)
        assert self.thread.state is not ThreadState.ACKNOWLEDGED or before.state is ThreadState.ACKNOWLEDGED

    @rule(
        awaits=st.sampled_from(["ack", "seen", "delivered"]),
        hours=st.lists(st.integers(1, 60), min_size=1, max_size=4),
        expires=st.sampled_from([None, "3d"]),
        came=st.sampled_from([None, Happening.SEEN, Happening.DELIVERED]),
        silent=st.booleans(),
    )
    def the_follow_up_becomes_another(
        self, awaits: str, hours: list[int], expires: str | None, came: Happening | None, silent: bool
    ) -> None:
        before = self.thread
        other = laddered(*(f"{each}h" for each in sorted(hours)), awaits=awaits, ack_expires=expires)
        step = threads.repinned(self.thread, other, self.at, self.timers.values(), came=came, silent=silent)
        assert step.changed == (
            before.state is not ThreadState.CLOSED and not threads.same_followup(before.followup, other)
        )
        self.take(step)
        assert self.thread.state in (before.state, ThreadState.CLOSED)
        assert not step.does

    @rule(hours=st.integers(0, 40))
    def time_passes(self, hours: int) -> None:
        self.at += timedelta(hours=hours)
        self.fire()

    @precondition(lambda self: self.timers)
    @rule(silent=st.booleans())
    def the_next_timer_falls_due(self, silent: bool) -> None:
        self.at = max(self.at, min(t.due for t in self.timers.values()))
        self.fire(silent=silent)

    def fire(self, *, silent: bool = False) -> None:
        due = sorted((t for t in self.timers.values() if t.due <= self.at), key=lambda t: (t.due, t.level))
        for timer in due:
            current = self.timers.pop(timer.id, None)
            if current is None or current.revision != self.thread.revision:
                continue
            self.fired.add(timer.id)
            what = Happening(timer.kind)
            rest = list(self.timers.values())
            event = Event(what, level=timer.level, silent=silent, to="sorties")
            self.take(threads.advance(self.thread, event, self.at, rest))

    @invariant()
    def nothing_is_forgotten(self) -> None:
        if hasattr(self, "thread"):
            assert not threads.problems(self.thread, self.timers.values())
            assert self.thread.closed_reason is None or (
                self.thread.closed_reason in CLOSES_BY[ThreadState.CLOSED]
            )
            assert not (self.thread.owner and self.thread.desk)
            snoozed = self.thread.snoozed_until
            assert snoozed is None or any(t.kind == "wake" for t in self.timers.values())


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=many(150), stateful_step_count=40, deadline=None)


def test_the_id_of_a_timer_is_its_promise():
    first = Timer("t", "step", 0, 1, AT)
    assert first.id == replace(first, due=AT + timedelta(hours=1)).id
    assert first.id != replace(first, revision=2).id
