"""In charge of writing what was decided: each plan whole or not at all, many plans in one commit.

All plans are first weighed in memory against the rows they touch (locked for the while); what holds is then
written with one statement per kind of row. A plan that meets a newer state answers Stale and writes nothing.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Table, bindparam, delete, select, update

from relay import tables
from relay.errors import Clash, NotFound, RelaisError, Stale
from relay.model import (
    DecisionRecord,
    Delivery,
    DeliveryNews,
    DeliveryState,
    EnvelopeState,
    Plan,
    ThreadState,
    Why,
)
from relay.store import rows, ruling
from relay.store.asking import REFERENCES, among, pairs, patient_index
from relay.store.transaction import Record, Transaction, move, stamp, stamp_or_none

STOPPABLE = frozenset({"queued", "deferred", "held", "sending"})
"""Not yet on the wire. A claimed copy may be stopped too: `in_flight` then refuses it to the sender."""

FORWARD: dict[str, frozenset[str]] = {
    # what evidence or a person may turn a copy into, and from which states
    "sent": frozenset({"sending", "in_flight", "deferred", "ambiguous"}),
    "accepted": frozenset({"queued", "sending", "in_flight", "deferred", "ambiguous", "sent"}),
    "seen": frozenset({"queued", "sending", "in_flight", "deferred", "ambiguous", "sent", "accepted"}),
    "failed": frozenset(
        {"queued", "sending", "in_flight", "deferred", "ambiguous", "held", "sent", "accepted"}
    ),
    "held": frozenset({"queued", "deferred", "sending"}),
    "cancelled": frozenset({"queued", "deferred", "held", "sending", "ambiguous", "failed"}),
    "queued": frozenset({"deferred", "held", "ambiguous", "failed"}),
}
LEFT = frozenset({"sent", "accepted", "seen"})
_BY_HAND = (DeliveryState.CANCELLED.value, Why.BY_PERSON.value)
"""Whoever cancelled a copy by hand may try it again; what an objection, a recall or an answer stopped stays so."""


@dataclass(slots=True)
class _Copy:
    """A delivery row as it will be; `row` is set when it is new."""

    id: str
    thread: str | None
    purpose: str
    state: str
    why: str | None
    due: int | None
    sent_at: int | None
    resent: bool
    box: str | None
    row: Record | None = None
    changed: bool = False


@dataclass(slots=True)
class _World:
    """The rows that the plans touch, as they stand after the plans accepted so far."""

    envelopes: dict[str, Record]
    threads: dict[str, tuple[int, str]]  # version, state
    references: dict[str, str]
    stays: dict[str, str]
    documents: dict[str, str]
    prints: dict[str, str]
    copies: dict[str, _Copy]
    by_thread: dict[str | None, list[_Copy]]
    grants: dict[str, int | None]  # used_at
    holds: dict[str, int | None]  # ended_at
    held: dict[str, str]  # hold → its envelope
    timers: dict[str, int | None]  # done_at
    # what is to be written, in the order of the plans
    decisions: list[Record] = field(default_factory=list)
    touched: dict[str, Record] = field(default_factory=dict)  # envelopes
    new_threads: dict[str, Record] = field(default_factory=dict)
    old_threads: dict[str, Record] = field(default_factory=dict)
    new_stays: list[Record] = field(default_factory=list)
    new_documents: list[Record] = field(default_factory=list)
    dropped: list[tuple[str, int | None]] = field(default_factory=list)  # thread, revision kept
    new_timers: dict[str, Record] = field(default_factory=dict)
    done_timers: dict[str, int] = field(default_factory=dict)
    new_holds: dict[str, Record] = field(default_factory=dict)
    ended_holds: dict[str, int] = field(default_factory=dict)
    left_holds: dict[str, int] = field(default_factory=dict)  # by envelope
    voided: dict[str, int] = field(default_factory=dict)
    new_grants: dict[str, Record] = field(default_factory=dict)
    used_grants: dict[str, int] = field(default_factory=dict)
    incidents: list[Record] = field(default_factory=list)
    habits: set[tuple[str, str]] = field(default_factory=set)


def record(work: Transaction, plans: Sequence[Plan]) -> list[RelaisError | None]:
    """Write every plan that still holds; answers, plan by plan, None or why it was not written."""
    world = _look(work, plans)
    answers: list[RelaisError | None] = []
    for plan in plans:
        refusal = _weigh(world, plan)
        if refusal is None:
            _take(world, plan, work)
        answers.append(refusal)
    _write(world, work)
    return answers


# ------------------------------------------------------------------------------------------------------ looking


_ENVELOPES = select(
    tables.envelope.c.id, tables.envelope.c.state, tables.envelope.c.fingerprint,
    tables.envelope.c.rule, tables.envelope.c.thread,
).order_by(tables.envelope.c.id)  # fmt: skip
_THREADS = select(tables.thread.c.id, tables.thread.c.version, tables.thread.c.state).order_by(
    tables.thread.c.id
)
_ORIGINALS = (
    select(tables.envelope.c.fingerprint, tables.envelope.c.id)
    .where(
        tables.envelope.c.fingerprint.is_not(None),
        tables.envelope.c.why.is_distinct_from(Why.DUPLICATE.value),
    )
    .order_by(tables.envelope.c.seq)
)
_COPIES = select(
    tables.delivery.c.id, tables.delivery.c.thread, tables.delivery.c.purpose, tables.delivery.c.state,
    tables.delivery.c.why, tables.delivery.c.due, tables.delivery.c.sent_at, tables.delivery.c.resent,
    tables.delivery.c.box,
).order_by(tables.delivery.c.id)  # fmt: skip
_WAITING = _COPIES.where(
    tables.delivery.c.thread.is_not(None), tables.delivery.c.state.in_(sorted(STOPPABLE))
)
_GRANTS = select(tables.grant.c.nonce, tables.grant.c.used_at).order_by(tables.grant.c.nonce)
_TIMERS = select(tables.timer.c.id, tables.timer.c.done_at).order_by(tables.timer.c.id)
_HOLDS = select(tables.hold.c.id, tables.hold.c.ended_at).order_by(tables.hold.c.id)
_HELD = select(tables.hold.c.id, tables.hold.c.envelope)


def _look(work: Transaction, plans: Sequence[Plan]) -> _World:
    """Read and lock what the plans touch; in one order of tables and ids, so that nobody waits in a circle."""
    connection, locking = work.connection, work.database.locking
    envelope, thread, delivery = tables.envelope, tables.thread, tables.delivery
    ended = sorted({name for plan in plans for name in plan.end_hold})
    held = {row.id: row.envelope for row in among(connection, _HELD, tables.hold.c.id, ended)}
    named = {plan.envelope for plan in plans if plan.envelope}
    named |= {plan.hold.envelope for plan in plans if plan.hold}
    names = sorted(named | set(held.values()))
    envelopes = {
        row.id: {"state": row.state, "rule": row.rule, "thread": row.thread}
        for row in among(connection, locking(_ENVELOPES), envelope.c.id, names)
    }
    written = [plan.thread for plan in plans if plan.thread]
    threads = {
        row.id: (row.version, row.state)
        for row in among(connection, locking(_THREADS), thread.c.id, sorted({each.id for each in written}))
    }
    made = (each.reference for each in written if each.version == 0)
    references = {row.reference: row.id for row in among(connection, REFERENCES, thread.c.reference, made)}
    stays = _owners(
        connection, tables.stay_key, "thread", (key for plan in plans for key in _stay_keys(plan))
    )
    documents = _owners(
        connection, tables.document_key, "envelope", (key for plan in plans for key in plan.document_keys)
    )
    prints: dict[str, str] = {}
    for row in among(
        connection, _ORIGINALS, envelope.c.fingerprint, (p.fingerprint for p in plans if p.fingerprint)
    ):
        prints.setdefault(row.fingerprint, row.id)
    wanted = {copy.id for plan in plans for copy in plan.deliveries}
    wanted |= {news.delivery for plan in plans for news in plan.news}
    found = among(connection, locking(_COPIES), delivery.c.id, sorted(wanted))
    stopped = sorted({name for plan in plans for name, _ in plan.cancel_queued})
    found += among(connection, locking(_WAITING), delivery.c.thread, stopped)
    copies = {
        row.id: _Copy(
            row.id, row.thread, row.purpose, row.state, row.why, row.due, row.sent_at, row.resent, row.box
        )
        for row in found
    }
    by_thread: dict[str | None, list[_Copy]] = {}
    for copy in copies.values():
        by_thread.setdefault(copy.thread, []).append(copy)
    used = sorted({plan.used_grant for plan in plans if plan.used_grant})
    grants = {
        row.nonce: row.used_at for row in among(connection, locking(_GRANTS), tables.grant.c.nonce, used)
    }
    done = sorted({name for plan in plans for name in plan.done_timers})
    timers = {row.id: row.done_at for row in among(connection, locking(_TIMERS), tables.timer.c.id, done)}
    holds = {row.id: row.ended_at for row in among(connection, locking(_HOLDS), tables.hold.c.id, ended)}
    return _World(
        envelopes, threads, references, stays, documents, prints, copies, by_thread, grants, holds, held,
        timers,
    )  # fmt: skip


def _owners(connection: Connection, table: Table, value: str, keys: Iterable[str]) -> dict[str, str]:
    return {row[0]: row[1] for row in among(connection, pairs(table, value), table.c.key, keys)}


def _stay_keys(plan: Plan) -> tuple[str, ...]:
    if plan.thread is None:
        return ()
    return tuple(dict.fromkeys(key for key in (plan.thread.stay, *plan.stay_keys) if key))


# ----------------------------------------------------------------------------------------------------- weighing


def _weigh(world: _World, plan: Plan) -> RelaisError | None:
    """Why the plan cannot be written any more, or None. Changes nothing."""
    thread = plan.thread
    if plan.envelope is not None:
        current = world.envelopes.get(plan.envelope)
        if current is None:
            return NotFound("no such envelope")
        original = world.prints.get(plan.fingerprint) if plan.fingerprint else None
        if (
            original not in (None, plan.envelope)
            and current["state"] == EnvelopeState.OPEN.value
            and plan.why is not Why.DUPLICATE
        ):
            return Stale("the same message was decided meanwhile")
    if thread is not None:
        known = world.threads.get(thread.id)
        if thread.version == 0:
            if known is not None:
                return Stale("the follow-up was opened meanwhile")
            if thread.reference in world.references:
                return Clash("the reference belongs to another follow-up")
        elif known is None or known[0] != thread.version - 1:
            return Stale("the follow-up changed meanwhile")
        if any(world.stays.get(key, thread.id) != thread.id for key in _stay_keys(plan)):
            return Stale("the stay belongs to another follow-up")
    if plan.used_grant is not None and world.grants.get(plan.used_grant, 0) is not None:
        return Stale("the button was used meanwhile")
    if any(name not in world.new_holds and world.holds.get(name, 0) is not None for name in plan.end_hold):
        return Stale("somebody settled this hold meanwhile")
    if any(world.timers.get(name, 0) is not None for name in plan.done_timers):
        return Stale("the timer was answered meanwhile")
    if any(news.delivery not in world.copies for news in plan.news):
        return NotFound("no such delivery")
    return None


# ------------------------------------------------------------------------------------------------------- taking


def _take(world: _World, plan: Plan, work: Transaction) -> None:
    """Enter the plan into the world; nothing can refuse it any more."""
    counts, at = work.counts, stamp(plan.at)
    _take_envelope(world, plan, counts, at)
    if plan.decision is not None and plan.envelope is not None:
        world.decisions.append(_decision_row(plan.envelope, plan.decision))
        ruling.count(counts, plan.decision)
    if plan.thread is not None:
        _take_thread(world, plan, work)
    # What is queued stops before the plan's own copies join the queue.
    for name, why in plan.cancel_queued:
        purposes = {purpose.value for purpose in plan.cancel_purposes}
        for copy in world.by_thread.get(name, ()):
            if copy.state in STOPPABLE and (not purposes or copy.purpose in purposes):
                _turn(copy, "cancelled", why.value, counts)
    unfollowed = plan.decision is not None and plan.decision.followup in (None, "none")
    for delivery in plan.deliveries:
        _take_copy(world, delivery, work, unfollowed=unfollowed and delivery.thread is None)
    for news in plan.news:
        _take_news(world, news, counts, at)
    for name in plan.drop_timers:
        mine = plan.thread if plan.thread is not None and plan.thread.id == name else None
        kept = None if mine is None or mine.state is ThreadState.CLOSED else mine.revision
        world.dropped.append((name, kept))
        for timer, row in list(world.new_timers.items()):
            if row["thread"] == name and row["revision"] != kept:
                del world.new_timers[timer]
    for each in plan.timers:
        world.new_timers[each.id] = {
            "id": each.id,
            "thread": each.thread,
            "kind": each.kind,
            "level": each.level,
            "revision": each.revision,
            "due": stamp(each.due),
            "done_at": None,
        }
    for name in plan.done_timers:
        world.timers[name] = world.done_timers[name] = at
    for name in plan.end_hold:
        world.ended_holds[name] = world.holds[name] = at
        world.new_holds.pop(name, None)
        _settle_other(world, plan, world.held.get(name), counts)
    if plan.hold is not None and _hold_other(world, plan, counts):
        world.new_holds[plan.hold.id] = rows.hold_row(plan.hold, work.vault, work.day)
        world.ended_holds.pop(plan.hold.id, None)
        world.holds[plan.hold.id] = None
    if plan.used_grant is not None:
        world.grants[plan.used_grant] = world.used_grants[plan.used_grant] = at
    for name in plan.void_grants_of:
        world.voided[name] = at
        for row in world.new_grants.values():
            if row["thread"] == name:
                row["expires"] = min(row["expires"], at)
    for grant in plan.grants:
        world.new_grants.setdefault(grant.nonce, rows.grant_row(grant))
    if plan.incident is not None:
        world.incidents.append(
            {
                "id": plan.incident.id,
                "kind": plan.incident.kind,
                "opened": stamp(plan.incident.opened),
                "due": stamp(plan.incident.due),
                "reference": plan.incident.reference,
                "closed": stamp_or_none(plan.incident.closed),
            }
        )
    work.trail += plan.audit


def _take_envelope(world: _World, plan: Plan, counts: Counter[str], at: int) -> None:
    if plan.envelope is None:
        return
    current = world.envelopes[plan.envelope]
    change: Record = {"decided_at": at}
    if plan.state is not None:
        if current["state"] == EnvelopeState.HELD.value:
            # What is held has one open hold, what is not has none.
            world.left_holds[plan.envelope] = at
        move(counts, "envelope", current["state"], plan.state.value)
        # A state always comes with its reason: the one of an earlier hold must not survive a release.
        change |= {"state": plan.state.value, "why": None if plan.why is None else plan.why.value}
    elif plan.why is not None:
        change["why"] = plan.why.value
    for name in ("kind", "message_id", "fingerprint", "reference"):
        value = getattr(plan, name)
        if value is not None:
            change[name] = value
    if plan.decision is not None:
        change["rule"] = plan.decision.rule
    if plan.thread is not None:
        change["thread"] = plan.thread.id
        change.setdefault("reference", plan.thread.reference)
    current |= change
    world.touched.setdefault(plan.envelope, {}).update(change)
    if plan.fingerprint and plan.why is not Why.DUPLICATE:
        world.prints.setdefault(plan.fingerprint, plan.envelope)
    for key in plan.document_keys:
        if key not in world.documents:
            world.documents[key] = plan.envelope
            world.new_documents.append({"key": key, "envelope": plan.envelope})


def _hold_other(world: _World, plan: Plan, counts: Counter[str]) -> bool:
    """Make the envelope of the plan's hold held where it is not the plan's own; False where nothing is there to hold."""
    hold = plan.hold
    if hold is None or hold.envelope == plan.envelope:
        return hold is not None
    current = world.envelopes.get(hold.envelope)
    if current is None or current["state"] not in (EnvelopeState.DECIDED.value, EnvelopeState.HELD.value):
        return False  # forgotten meanwhile, or set aside by a person
    _restate(world, hold.envelope, EnvelopeState.HELD, hold.why.value, counts)
    world.held[hold.id] = hold.envelope
    return True


def _settle_other(world: _World, plan: Plan, envelope: str | None, counts: Counter[str]) -> None:
    """A letter that was decided before it was held is so again, for the reason that ended its hold."""
    current = world.envelopes.get(envelope) if envelope != plan.envelope and envelope else None
    if envelope is None or current is None or current["state"] != EnvelopeState.HELD.value:
        return
    closed = plan.thread.closed_reason if plan.thread else None
    why = closed or (plan.why or Why.BY_PERSON).value
    _restate(world, envelope, EnvelopeState.DECIDED, why, counts)


def _restate(world: _World, envelope: str, state: EnvelopeState, why: str, counts: Counter[str]) -> None:
    current, change = world.envelopes[envelope], {"state": state.value, "why": why}
    move(counts, "envelope", current["state"], state.value)
    current |= change
    world.touched.setdefault(envelope, {}).update(change)


def _take_thread(world: _World, plan: Plan, work: Transaction) -> None:
    thread = plan.thread
    if thread is None:
        return
    row = rows.thread_row(thread, work.vault, work.day)
    known = world.threads.get(thread.id)
    move(work.counts, "thread", known and known[1], thread.state.value)
    world.threads[thread.id] = (thread.version, thread.state.value)
    world.references[thread.reference] = thread.id
    if plan.patient is not None:
        row["patient"] = patient_index(plan.patient, work.vault)
    if thread.id in world.new_threads:
        world.new_threads[thread.id] |= row
    elif known is None:
        world.new_threads[thread.id] = {"patient": None, **row}
    else:
        world.old_threads.setdefault(thread.id, {}).update(row)
    for key in _stay_keys(plan):
        if key not in world.stays:
            world.stays[key] = thread.id
            world.new_stays.append({"key": key, "thread": thread.id})


def _take_copy(world: _World, delivery: Delivery, work: Transaction, *, unfollowed: bool) -> None:
    if delivery.id in world.copies:
        return
    row = rows.delivery_row(delivery, work.vault, work.day, unfollowed=unfollowed)
    copy = world.copies[delivery.id] = _Copy(
        id=delivery.id,
        thread=delivery.thread,
        purpose=row["purpose"],
        state=row["state"],
        why=row["why"],
        due=row["due"],
        sent_at=None,
        resent=False,
        box=row["box"],
        row=row,
    )
    world.by_thread.setdefault(copy.thread, []).append(copy)
    work.counts[f"delivery.{row['state']}"] += 1


def _take_news(world: _World, news: DeliveryNews, counts: Counter[str], at: int) -> None:
    copy, state = world.copies[news.delivery], news.state.value
    if copy.box is not None:
        if state == DeliveryState.SEEN.value:
            world.habits.add((copy.box, "read"))
        elif state == DeliveryState.ACCEPTED.value or news.why in (Why.DSN_FAILED, Why.DSN_DELAYED):
            world.habits.add((copy.box, "dsn"))
    taken_back = state == DeliveryState.QUEUED.value and (copy.state, copy.why) == _BY_HAND
    if copy.state not in FORWARD.get(state, ()) and not taken_back:
        return
    why = None if news.why is None else news.why.value
    if why is None and copy.resent and state in LEFT:
        why = Why.RESENT_AFTER_CRASH.value  # evidence that it arrived does not say that it arrived once
    _turn(copy, state, why, counts)
    if state in LEFT and copy.sent_at is None:
        copy.sent_at = at
    if state == DeliveryState.QUEUED.value:
        copy.due, copy.resent = at, False


def _turn(copy: _Copy, state: str, why: str | None, counts: Counter[str]) -> None:
    move(counts, "delivery", copy.state, state)
    copy.state, copy.why, copy.changed = state, why, True


def _decision_row(envelope: str, decision: DecisionRecord) -> Record:
    trace = {
        "facts": dict(decision.facts),
        "targets": decision.targets,
        "undecided_at": decision.undecided_at,
        "undecided": decision.undecided,
        "copies": decision.copies,
        "observed": decision.observed,
    }
    return {
        "envelope": envelope,
        "at": stamp(decision.at),
        "ruleset": decision.ruleset,
        "rule": decision.rule,
        "action": decision.action,
        "why": decision.why.value,
        "followup": decision.followup,
        "trace": json.dumps(trace, ensure_ascii=False, separators=(",", ":"), default=sorted),
    }


# ------------------------------------------------------------------------------------------------------ writing


def _write(world: _World, work: Transaction) -> None:
    """One statement per kind of row; parents before their children."""
    _change(work, tables.envelope, "id", world.touched)
    work.add(tables.document_key, world.new_documents)
    work.add(tables.decision, world.decisions)
    work.add(tables.thread, list(world.new_threads.values()))
    _change(work, tables.thread, "id", world.old_threads)
    work.add(tables.stay_key, world.new_stays)
    _write_copies(world, work)
    _write_timers(world, work)
    _write_holds(world, work)
    _write_grants(world, work)
    _upsert(work, tables.incident, world.incidents)


def _write_copies(world: _World, work: Transaction) -> None:
    new, old = [], {}
    for copy in world.copies.values():
        state = {"state": copy.state, "why": copy.why, "due": copy.due, "sent_at": copy.sent_at}
        if copy.row is not None:
            new.append(copy.row | state)
        elif copy.changed:
            old[copy.id] = state | {"resent": copy.resent}
    work.add(tables.delivery, new)
    _change(work, tables.delivery, "id", old)
    if world.habits:
        habits = [{"box": box, "kind": kind} for box, kind in sorted(world.habits)]
        work.run(work.database.insert_new(tables.habit), habits)


def _write_timers(world: _World, work: Transaction) -> None:
    timer = tables.timer
    _change(work, timer, "id", {name: {"done_at": at} for name, at in world.done_timers.items()})
    gone = [name for name, kept in world.dropped if kept is None]
    older = [{"b_thread": name, "b_kept": kept} for name, kept in world.dropped if kept is not None]
    if gone:
        work.run(
            delete(timer).where(timer.c.done_at.is_(None), timer.c.thread == bindparam("b_thread")),
            [{"b_thread": name} for name in gone],
        )
    if older:
        work.run(
            delete(timer).where(
                timer.c.done_at.is_(None),
                timer.c.thread == bindparam("b_thread"),
                timer.c.revision != bindparam("b_kept"),
            ),
            older,
        )
    if world.new_timers:
        work.run(work.database.insert_new(timer), list(world.new_timers.values()))
    work.news = work.news or bool(world.new_timers or gone or older)


def _write_holds(world: _World, work: Transaction) -> None:
    hold = tables.hold
    if world.left_holds:
        work.run(
            update(hold)
            .where(hold.c.envelope == bindparam("b_envelope"), hold.c.ended_at.is_(None))
            .values(ended_at=bindparam("b_at")),
            [{"b_envelope": name, "b_at": at} for name, at in sorted(world.left_holds.items())],
        )
    _upsert(work, tables.hold, list(world.new_holds.values()))
    _change(work, tables.hold, "id", {name: {"ended_at": at} for name, at in world.ended_holds.items()})


def _write_grants(world: _World, work: Transaction) -> None:
    grant = tables.grant
    _change(work, grant, "nonce", {nonce: {"used_at": at} for nonce, at in world.used_grants.items()})
    if world.voided:
        work.run(
            update(grant)
            .where(
                grant.c.used_at.is_(None),
                grant.c.thread == bindparam("b_thread"),
                grant.c.expires > bindparam("b_at"),
            )
            .values(expires=bindparam("b_at")),
            [{"b_thread": name, "b_at": at} for name, at in sorted(world.voided.items())],
        )
    if world.new_grants:
        work.run(work.database.insert_new(grant), list(world.new_grants.values()))


def _change(work: Transaction, table: Any, key: str, changes: dict[str, Record]) -> None:
    """Update rows by key; rows that change the same columns share a statement."""
    alike: dict[tuple[str, ...], list[Record]] = {}
    for name, change in changes.items():
        if change:
            alike.setdefault(tuple(sorted(change)), []).append({"b_key": name, **change})
    for columns, some in alike.items():
        values: Record = {column: bindparam(column) for column in columns if column != key}
        work.run(update(table).where(table.c[key] == bindparam("b_key")).values(values), some)
        work.news = True


def _upsert(work: Transaction, table: Any, new: list[Record]) -> None:
    """Insert rows, or overwrite those of the same id."""
    if new:
        statement = work.database.insert(table)
        columns = {name: statement.excluded[name] for name in new[0] if name != "id"}
        work.run(statement.on_conflict_do_update(index_elements=["id"], set_=columns), new)
        work.news = True
