"""An open thread moves to the follow-up of the rules in force: never by itself, only when a person says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from relay import threads
from relay.model import AuditEvent, DeliveryState, Plan, Purpose, Thread, ThreadState, Timer, Why
from relay.planning.events import silent
from relay.planning.sending import pinned
from relay.threads import Happening
from rules.outcome import Reach, missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from relay.model import LadderStep, Pinned, ThreadView
    from rules.language import RuleSet

AtOnce = Literal["remind", "hand_to", "close", "reopen"]


@dataclass(frozen=True, slots=True)
class Move:
    """What another follow-up makes of one thread.

    `at_once`: what falls due at this moment, None where nothing does. `lost`: whom the steps still to come would
    have told, and those of the new follow-up will not, as `rules.outcome.Reach` writes itself.
    """

    before: Thread
    after: Thread
    waited: tuple[Timer, ...]
    waits: tuple[Timer, ...]
    at_once: AtOnce | None
    lost: tuple[str, ...]
    plan: Plan


def followup_for(rules: RuleSet, thread: Thread, to: str | None = None) -> Pinned | None:
    """The follow-up of that name, or of the thread's own, under these rules; None where they have none."""
    name = to or (thread.followup.name if thread.followup else "")
    return pinned(rules, name) if name in rules.followups or name == "none" else None


def followups_changed(before: RuleSet, after: RuleSet) -> bool:
    """Whether an open thread may be on a follow-up that `after` has no more, or in another form."""
    return any(
        name not in after.followups or not threads.same_followup(pinned(before, name), pinned(after, name))
        for name in before.followups
    )


def plan_move(view: ThreadView, followup: Pinned, by: str, at: datetime) -> Move | None:
    """Move one thread; None when nothing would change. `by` stands in the trail."""
    thread = view.thread
    step = threads.repinned(thread, followup, at, view.timers, came=_came(view), silent=silent(view))
    former = thread.followup
    if not step.changed or former is None:
        return None
    after = replace(step.thread, version=thread.version + 1)
    waited = tuple(t for t in view.timers if t.revision == thread.revision)
    note = (
        f"{former.name}@{former.ruleset[:8]} -> {followup.name}@{followup.ruleset[:8]}"
        f" level={thread.level}->{after.level}"
    )
    return Move(
        before=thread,
        after=after,
        waited=waited,
        waits=step.timers,
        at_once=_at_once(after, step.timers, at),
        lost=tuple(map(str, missing(_still_told(thread, waited), _still_told(after, step.timers)))),
        plan=Plan(
            at=at,
            thread=after,
            timers=step.timers,
            drop_timers=(thread.id,),
            audit=(AuditEvent(by, "thread_migrated", thread.id, step.why or Why.BY_PERSON, note),),
        ),
    )


def plan_moved(ruleset: str, by: str, at: datetime, *, moved: int, left: int, reason: str) -> Plan:
    """The line of the trail that ends a whole migration; the reason stays as its length alone: it is prose."""
    note = f"moved={moved} left={left} {len(reason)} characters"
    return Plan(at=at, audit=(AuditEvent(by, "threads_migrated", ruleset, Why.BY_PERSON, note),))


def _came(view: ThreadView) -> Happening | None:
    """How far the letter in force came to the GP."""
    thread = view.thread
    states = {
        copy.state
        for copy in view.deliveries
        if copy.purpose is Purpose.LETTER and copy.to == thread.gp and copy.envelope == thread.letter
    }
    if DeliveryState.SEEN in states:
        return Happening.SEEN
    return Happening.DELIVERED if DeliveryState.ACCEPTED in states else None


def _at_once(after: Thread, timers: Sequence[Timer], at: datetime) -> AtOnce | None:
    if after.state is ThreadState.CLOSED:
        return "close"
    for timer in timers:
        if timer.due > at or after.followup is None:
            continue
        if timer.kind == "step":
            return "hand_to" if after.followup.ladder[timer.level].hand_to else "remind"
        if timer.kind in ("close", "ack_expires"):
            return "close" if timer.kind == "close" else "reopen"
    return None


def _still_told(thread: Thread, timers: Iterable[Timer]) -> set[Reach]:
    """Whom the steps that still wait will tell."""
    if thread.followup is None or thread.state not in threads.LADDER_STATES:
        return set()
    ladder = thread.followup.ladder
    steps = [ladder[t.level] for t in timers if t.kind == "step" and t.level < len(ladder)]
    return {_reach(thread.followup, step, thread.state) for step in steps}


def _reach(followup: Pinned, step: LadderStep, state: ThreadState) -> Reach:
    if step.remind and state is ThreadState.AWAITING_WARD:
        return Reach("sending_ward")
    known = followup.targets.get(step.remind or step.hand_to or "", {})
    if step.hand_to:
        return Reach(str(known.get("who", step.hand_to)))
    who = "registered_gp" if state is ThreadState.AWAITING_GP else str(known.get("who", "registered_gp"))
    via = known.get("via")
    ways = tuple(str(name) for name in via) if isinstance(via, list | tuple) else ()
    return Reach(who, ways, "pointer")
