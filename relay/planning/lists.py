"""The list that a ward gets each day: what became of its letters."""

from __future__ import annotations

from typing import TYPE_CHECKING

from relay.model import AuditEvent, Delivery, DeliveryState, Plan, Purpose, ThreadState, ThreadView, Why
from relay.planning.copies import To, mail
from relay.planning.site import thread_id

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from relay.config import Ward
    from relay.model import Hold
    from relay.planning.site import Site

_FURTHEST = (DeliveryState.SEEN, DeliveryState.ACCEPTED, DeliveryState.SENT, DeliveryState.FAILED)


def plan_daily(
    site: Site,
    ward: Ward,
    views: Sequence[ThreadView],
    holds: Sequence[Hold],
    at: datetime,
    due: datetime,
) -> Plan | None:
    """One mail with a line for each of the ward's letters of the day and each that still waits for somebody.

    What came after `due` is the next list's. None when there is nothing to tell. The same day gives the same
    delivery: planned twice, sent once.
    """
    lines = [
        (view.thread.reference, view.thread.opened_at, standing(site, view, at))
        for view in views
        if view.thread.opened_at <= due
    ]
    # What did not arrive has its follow-up's line. Held within a known stay, it was told under that stay's reference.
    for hold in (each for each in holds if each.since <= due and not each.lost):
        own = hold.reference or site.tokens.reference(thread_id(hold.envelope))
        lines.append((own, hold.since, hold.reason))
    if not lines:
        return None
    day = due.astimezone(site.settings.zone).date()
    thread = thread_id("daily", ward.slug, day.isoformat())
    made = mail(
        site,
        To(f"ward:{ward.slug}", ward.reply_to),
        Purpose.WARD_NOTE,
        site.words.daily(sorted(lines, key=lambda line: line[1]), day),
        at,
        seed=f"daily/{ward.slug}/{day.isoformat()}",
        thread=thread,
        reference=site.tokens.reference(thread),
        tracked=False,
    )
    if made is None:
        return None
    return Plan(
        at=at,
        deliveries=(made,),
        audit=(AuditEvent("relay", "daily_list", f"ward:{ward.slug}", note=f"{len(lines)} letters"),),
    )


def standing(site: Site, view: ThreadView, at: datetime) -> str:
    """What became of one letter: who carries it, how far the copy came, and whether it is late."""
    thread, words = view.thread, site.words
    if thread.state is ThreadState.CLOSED:
        return words.why(Why(thread.closed_reason)) if thread.closed_reason else words.state(thread.state)
    if thread.state is not ThreadState.AWAITING_ACK:
        who = f" ({thread.acknowledged_by})" if thread.acknowledged_by else ""
        return words.state(thread.state) + who
    letters = [copy for copy in view.deliveries if copy.purpose is Purpose.LETTER]
    said = words.copy_state(_furthest(letters))
    late = thread.deadline is not None and thread.deadline < at
    return f"{said}, {words.late()}" if late else said


def _furthest(letters: Sequence[Delivery]) -> DeliveryState | None:
    states = {letter.state for letter in letters}
    return next((state for state in _FURTHEST if state in states), None)
