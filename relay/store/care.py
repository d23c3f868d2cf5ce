"""In charge of what the relay knows of itself: lives, counts, adapters, pauses, invariants, retention."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, select, text, update

from relay import tables
from relay.errors import NotFound
from relay.model import AuditEvent, DeliveryState, EnvelopeState, ThreadState
from relay.store.asking import among
from relay.store.database import chunks
from relay.store.lists import iso
from relay.store.transaction import Record, Transaction, moment, stamp

if TYPE_CHECKING:
    pass

LATE = timedelta(seconds=60)
PURGE_AT_ONCE = 500


def next_life(work: Transaction) -> int:
    """Number the life of this node that begins now."""
    counter = tables.counter
    statement = work.database.insert(counter)
    total = counter.c.value + statement.excluded.value
    work.run(
        statement.on_conflict_do_update(index_elements=["writer", "name"], set_={"value": total}),
        {"writer": work.node, "name": "node.lives", "value": 1},
    )
    query = select(counter.c.value).where(counter.c.writer == work.node, counter.c.name == "node.lives")
    return int(work.run(query).scalar_one())


# ------------------------------------------------------------------------------------------------------ status


def counters(connection: Connection) -> dict[str, int]:
    """Every count, summed over the writers: `envelope.…`, `delivery.…`, `thread.…`, `tries.ADAPTER.…`."""
    counter = tables.counter
    query = select(counter.c.name, func.sum(counter.c.value)).group_by(counter.c.name)
    return {name: int(value) for name, value in connection.execute(query)}


def status(connection: Connection, now: datetime) -> dict[str, Any]:
    """What `relay status` says, but for version, mode, rules and invariants."""
    counts = counters(connection)
    states = {state.value: counts.get(f"envelope.{state.value}", 0) for state in EnvelopeState}
    received = counts.get("envelope.received", 0)
    return {
        "now": now.isoformat(timespec="seconds").replace("+00:00", "Z"),
        "received": received,
        **{name: states[name] for name in ("decided", "held", "ignored", "corrupt", "open")},
        "balance": received - sum(states.values()),
        "deliveries": {state.value: counts.get(f"delivery.{state.value}", 0) for state in DeliveryState},
        "threads": {state.value: counts.get(f"thread.{state.value}", 0) for state in ThreadState},
        "oldest_waiting_s": _oldest(connection, now),
        "adapters": adapters(connection),
    }


def _oldest(connection: Connection, now: datetime) -> float | None:
    """Seconds since the arrival that waits longest to be decided, or the copy that waits longest to leave."""
    envelope, delivery = tables.envelope, tables.delivery
    found = [
        connection.execute(
            select(envelope.c.accepted_at).where(text("state = 'open'")).order_by(envelope.c.seq).limit(1)
        ).scalar(),
        connection.execute(
            select(delivery.c.created_at)
            .where(text(tables.UNFINISHED), delivery.c.state != DeliveryState.HELD.value)
            .order_by(delivery.c.seq)
            .limit(1)
        ).scalar(),
    ]
    waiting = [at for at in found if at is not None]
    return max(0.0, (now - moment(min(waiting))).total_seconds()) if waiting else None


def adapters(connection: Connection) -> dict[str, dict[str, Any]]:
    """What each adapter last said, or that it is paused."""
    found = {
        row.name: {"state": row.state, "since": iso(row.since), "detail": row.detail}
        for row in connection.execute(select(tables.adapter_state).order_by(tables.adapter_state.c.name))
    }
    for row in connection.execute(select(tables.pause)):
        for name in [row.adapter] if row.adapter else list(found):
            found[name] = {"state": "paused", "since": iso(row.since), "detail": ""}
    return found


def adapter_state(work: Transaction, name: str, state: str, detail: str) -> None:
    """Enter what an adapter says of itself; `since` moves only when the state does."""
    table = tables.adapter_state
    row = work.run(select(table).where(table.c.name == name)).one_or_none()
    if row is not None and (row.state, row.detail) == (state, detail):
        return
    since = row.since if row is not None and row.state == state else work.at
    statement = work.database.insert(table)
    columns = {column: statement.excluded[column] for column in ("state", "since", "detail")}
    work.run(
        statement.on_conflict_do_update(index_elements=["name"], set_=columns),
        {"name": name, "state": state, "since": since, "detail": detail},
    )
    work.news = True


def pause(work: Transaction, adapter: str, by: str) -> None:
    """Let nothing leave through an adapter, or through any where the name is empty."""
    work.run(work.database.insert_new(tables.pause), {"adapter": adapter, "since": work.at, "by": by})
    work.trail.append(AuditEvent(by, "paused", adapter or "all"))


def resume(work: Transaction, adapter: str, by: str) -> None:
    """End a pause; the empty name ends all."""
    statement = delete(tables.pause)
    if adapter:
        statement = statement.where(tables.pause.c.adapter == adapter)
    work.run(statement)
    work.trail.append(AuditEvent(by, "resumed", adapter or "all"))


def paused(connection: Connection) -> frozenset[str]:
    """The adapters that send nothing; the empty name stands for all."""
    return frozenset(connection.execute(select(tables.pause.c.adapter)).scalars())


# -------------------------------------------------------------------------------------------------- invariants

_waiting = "SELECT 1 FROM timer WHERE timer.thread = thread.id AND done_at IS NULL"

# ruff: noqa: S608 - put together from our own constants: the conditions of the indexes that serve them
INVARIANTS: Mapping[str, str] = {
    # An open follow-up with neither a timer that will fire nor a desk.
    "open_thread_without_timer_or_desk": "SELECT count(*) FROM thread"
    f" WHERE desk IS NULL AND {tables.OPEN_THREAD} AND NOT EXISTS ({_waiting})",
    "timer_overdue": "SELECT count(*) FROM timer WHERE done_at IS NULL AND due < :late",
    "sent_without_thread_or_none": "SELECT count(*) FROM delivery"
    " WHERE purpose = 'letter' AND thread IS NULL AND NOT unfollowed AND sent_at IS NOT NULL",
    "inbound_unaccounted": "SELECT (SELECT count(*) FROM envelope"
    " WHERE (state = 'ignored' AND why IS NULL) OR (state = 'decided' AND rule IS NULL"
    " AND thread IS NULL AND reference IS NULL AND kind IN ('notice', 'reply')))"
    " + (SELECT count(*) FROM envelope WHERE state = 'held' AND NOT EXISTS"
    " (SELECT 1 FROM hold WHERE hold.envelope = envelope.id AND ended_at IS NULL))",
    # A button pressed by an account that was not that person's at the time.
    "ack_by_unlinked": "SELECT count(*) FROM button_grant WHERE used_at IS NOT NULL AND used_at > :recent"
    " AND person LIKE 'rpps:%' AND NOT EXISTS (SELECT 1 FROM link WHERE link.account = button_grant.account"
    " AND 'rpps:' || link.rpps = person"
    " AND (unlinked_at IS NULL OR unlinked_at >= used_at))",
    "two_owners": "SELECT (SELECT count(*) FROM thread WHERE desk IS NOT NULL"
    f" AND {tables.OPEN_THREAD} AND owner IS NOT NULL AND owner <> 'desk:' || desk)"
    " + (SELECT count(*) FROM (SELECT 1 FROM thread"
    f" WHERE stay <> '' AND {tables.OPEN_THREAD} GROUP BY facility, stay HAVING count(*) > 1) AS shared)",
    # A copy for a ward that is not the thread's and belongs to another facility. (CROSS JOIN: SQLite then takes
    # the few open threads first.)
    "thread_seen_from_another_facility": "SELECT count(*) FROM thread CROSS JOIN delivery"
    f" WHERE delivery.thread = thread.id AND thread.{tables.OPEN_THREAD} AND delivery.\"to\" LIKE 'ward:%'"
    " AND delivery.\"to\" <> 'ward:' || thread.ward AND EXISTS (SELECT 1 FROM thread AS other"
    ' WHERE other.ward = substr(delivery."to", 6) AND other.facility <> thread.facility)',
}


def invariants(connection: Connection, now: datetime) -> dict[str, int]:
    """How many rows break each promise; every figure must be 0."""
    times = {"late": stamp(now - LATE), "recent": stamp(now - timedelta(days=7))}
    found = {
        name: int(
            connection.execute(
                text(query), {key: value for key, value in times.items() if f":{key}" in query}
            ).scalar_one()
        )
        for name, query in INVARIANTS.items()
    }
    found["balance"] = abs(status(connection, now)["balance"])
    return found


# --------------------------------------------------------------------------------------------------- retention


def purge_content(work: Transaction, before: datetime) -> int:
    """Take what must outlive its day into today's key, and let go of what was sealed before.

    The caller destroys the keys afterwards. Live work is never destroyed: undecided and held letters, open
    follow-ups, copies still to leave.
    """
    day = before.date().isoformat()
    content, envelope, thread, delivery = tables.content, tables.envelope, tables.thread, tables.delivery
    live = envelope.c.state.in_([EnvelopeState.OPEN.value, EnvelopeState.HELD.value])
    query = select(content).join(envelope, envelope.c.id == content.c.envelope)
    for row in work.run(query.where(content.c.day < day, live)).all():
        _reseal(work, content, content.c.envelope == row.envelope, row, {
            "sealed": f"content:{row.envelope}", "event": f"event:{row.envelope}",
        })  # fmt: skip
        work.run(update(content).where(content.c.envelope == row.envelope).values(day=work.day))
    for row in work.run(select(thread.c.id, thread.c.sealed).where(text(tables.OPEN_THREAD))).all():
        if work.vault.day_of(row.sealed) < day:
            _reseal(work, thread, thread.c.id == row.id, row, {"sealed": f"thread:{row.id}"})
    for row in work.run(select(delivery.c.id, delivery.c.sealed).where(text(tables.UNFINISHED))).all():
        if row.sealed is not None and work.vault.day_of(row.sealed) < day:
            _reseal(work, delivery, delivery.c.id == row.id, row, {"sealed": f"delivery:{row.id}"})
    for row in work.run(
        select(tables.hold.c.id, tables.hold.c.sealed).where(
            tables.hold.c.ended_at.is_(None), tables.hold.c.sealed.is_not(None)
        )
    ).all():
        if work.vault.day_of(row.sealed) < day:
            _reseal(work, tables.hold, tables.hold.c.id == row.id, row, {"sealed": f"hold:{row.id}"})
    gone = work.run(delete(content).where(content.c.day < day)).rowcount
    work.trail.append(AuditEvent("relay", "content_purged", day, note=str(gone)))
    return gone


def _reseal(work: Transaction, table: Any, where: Any, row: Any, columns: Mapping[str, str]) -> None:
    new: Record = {}
    for column, aad in columns.items():
        sealed = getattr(row, column)
        if sealed is None:
            continue
        try:
            new[column] = work.vault.seal(work.vault.open(sealed, aad), day=work.day, aad=aad)
        except NotFound:
            continue  # destroyed already
    if new:
        work.run(update(table).where(where).values(new))


def purge_facts(work: Transaction, before: datetime) -> int:
    """Forget closed follow-ups and settled arrivals older than `before`, a few at a time; answers how many.

    The counts of arrivals stay: they say what was ever received. Those of follow-ups and copies go down.
    """
    at = stamp(before)
    thread, delivery, envelope = tables.thread, tables.delivery, tables.envelope
    old = work.run(
        select(thread.c.id)
        .where(thread.c.opened_at < at, thread.c.closed_at < at, thread.c.state == ThreadState.CLOSED.value)
        .order_by(thread.c.opened_at)
        .limit(PURGE_AT_ONCE)
    )
    names = list(old.scalars())
    settled = [state.value for state in (EnvelopeState.DECIDED, EnvelopeState.IGNORED, EnvelopeState.CORRUPT)]
    kept = select(thread.c.id).where(thread.c.letter == envelope.c.id).exists()
    waiting = (
        select(delivery.c.seq)
        .where(
            delivery.c.envelope == envelope.c.id, delivery.c.envelope.is_not(None), text(tables.UNFINISHED_OF)
        )
        .exists()
    )
    if names:
        copies = among(
            work.connection,
            select(delivery.c.id, delivery.c.state).where(delivery.c.thread.is_not(None)),
            delivery.c.thread,
            names,
        )
        _forget_copies(work, copies)
        for table in (tables.stay_key, tables.timer, tables.grant):
            _delete(work, table, table.c.thread, names)
        _delete(work, thread, thread.c.id, names)
        work.counts[f"thread.{ThreadState.CLOSED.value}"] -= len(names)
    arrivals = list(
        work.run(
            select(envelope.c.id)
            .where(envelope.c.received_at < at, envelope.c.state.in_(settled), ~kept, ~waiting)
            .order_by(envelope.c.received_at)
            .limit(PURGE_AT_ONCE)
        ).scalars()
    )
    if arrivals:
        copies = among(
            work.connection,
            select(delivery.c.id, delivery.c.state).where(
                delivery.c.envelope.is_not(None), delivery.c.thread.is_(None)
            ),
            delivery.c.envelope,
            arrivals,
        )
        _forget_copies(work, copies)
        for table in (tables.content, tables.document_key, tables.decision, tables.hold):
            _delete(work, table, table.c.envelope, arrivals)
        _delete(work, envelope, envelope.c.id, arrivals)
    return len(names) + len(arrivals)


def _forget_copies(work: Transaction, copies: list[Any]) -> None:
    names = [row.id for row in copies]
    _delete(work, tables.attempt, tables.attempt.c.delivery, names)
    _delete(work, tables.delivery, tables.delivery.c.id, names)
    for row in copies:
        work.counts[f"delivery.{row.state}"] -= 1


def _delete(work: Transaction, table: Any, column: Any, names: list[str]) -> None:
    for some in chunks(names):
        work.run(delete(table).where(column.in_(some)))
