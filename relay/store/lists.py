"""In charge of what people read: the rows of the `list` commands, under the names of the outside contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, select

from relay import tables
from relay.errors import NotFound
from relay.store import rows
from relay.store.asking import among
from relay.store.transaction import moment, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from relay.model import Hold
    from relay.vault import Vault

Line = dict[str, object]


def iso(at: int | None) -> str | None:
    """A stamp as JSON shows it: UTC, to the millisecond."""
    return None if at is None else moment(at).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _page(
    connection: Connection, query: Select[Any], table: Any, order: str, since: datetime | None, limit: int
) -> list[Any]:
    """The latest rows."""
    if since is not None:
        query = query.where(table.c[order] >= stamp(since))
    order_by = table.c.seq if "seq" in table.c else table.c[order]
    return list(connection.execute(query.order_by(order_by.desc()).limit(limit)))


def envelopes(connection: Connection, state: str | None, since: datetime | None, limit: int) -> list[Line]:
    """What arrived, the latest first."""
    query = select(tables.envelope)
    if state is not None:
        query = query.where(tables.envelope.c.state == state)
    return [_envelope(row) for row in _page(connection, query, tables.envelope, "received_at", since, limit)]


def envelope(connection: Connection, name: str) -> Line:
    """One arrival with its last decision. Raises NotFound."""
    row = connection.execute(select(tables.envelope).where(tables.envelope.c.id == name)).one_or_none()
    if row is None:
        raise NotFound(f"no envelope {name}")
    decision = tables.decision
    query = select(decision).where(decision.c.envelope == name).order_by(decision.c.seq.desc()).limit(1)
    made = connection.execute(query).one_or_none()
    line = _envelope(row) | {"thread": row.thread, "size": row.size, "sha256": row.sha256}
    line["decided_at"] = iso(row.decided_at)
    if made is not None:
        line["decision"] = {
            "at": iso(made.at),
            "ruleset": made.ruleset,
            "rule": made.rule,
            "action": made.action,
            "why": made.why,
            "followup": made.followup,
            **rows.json_of(dict[str, Any]).validate_json(made.trace),
        }
    return line


def _envelope(row: Any) -> Line:
    return {
        "id": row.id,
        "adapter": row.adapter,
        "ref": row.ref,
        "message_id": row.message_id,
        "kind": row.kind,
        "state": row.state,
        "why": row.why,
        "rule": row.rule,
        "reference": row.reference,
        "received_at": iso(row.received_at),
    }


def deliveries(
    connection: Connection,
    state: str | None,
    since: datetime | None,
    limit: int,
    ids: Sequence[str] | None,
    envelope: str | None,
) -> list[Line]:
    """What leaves or left, the latest first; those of `ids` in their order."""
    table = tables.delivery
    query = select(table)
    if state is not None:
        query = query.where(table.c.state == state)
    if envelope is not None:
        query = query.where(table.c.envelope == envelope)
    if ids is None:
        return [_delivery(row) for row in _page(connection, query, table, "created_at", since, limit)]
    found = {row.id: row for row in among(connection, query, table.c.id, ids)}
    return [_delivery(found[name]) for name in ids if name in found]


def _delivery(row: Any) -> Line:
    waits = row.state in ("queued", "deferred", "ambiguous")
    return {
        "id": row.id,
        "envelope": row.envelope,
        "reference": row.reference,
        "adapter": row.adapter,
        "to": row.to,
        "purpose": row.purpose,
        "state": row.state,
        "attempts": row.attempts,
        "message_id": row.message_id,
        "next_at": iso(row.due) if waits else None,
        "why": row.why,
        "created_at": iso(row.created_at),
        "sent_at": iso(row.sent_at),
        "thread": row.thread,
    }


def threads(connection: Connection, state: str | None, since: datetime | None, limit: int) -> list[Line]:
    """Follow-ups, the latest first."""
    query = select(tables.thread)
    if state is not None:
        query = query.where(tables.thread.c.state == state)
    return [
        {
            "id": row.id,
            "reference": row.reference,
            "state": row.state,
            "owner": row.owner or (f"desk:{row.desk}" if row.desk else None),
            "level": row.level,
            "deadline": iso(row.deadline),
            "closed_reason": row.closed_reason,
            "desk": row.desk,
            "opened_at": iso(row.opened_at),
        }
        for row in _page(connection, query, tables.thread, "opened_at", since, limit)
    ]


def holds(
    connection: Connection, vault: Vault, state: str | None, since: datetime | None, limit: int
) -> list[Line]:
    """What waits for a person, the latest first; with state "ended", what was released or rejected."""
    table = tables.hold
    ended = table.c.ended_at.is_not(None) if state == "ended" else table.c.ended_at.is_(None)
    lines: list[Line] = []
    for row in _page(connection, select(table).where(ended), table, "since", since, limit):
        hold = rows.hold_of(row, vault)
        lines.append(
            {
                "id": hold.id,
                "envelope": hold.envelope,
                "why": hold.why.value,
                "reason": hold.reason,
                "rule": hold.rule,
                "since": iso(row.since),
                "candidates": list(hold.candidates),
                "desk": hold.desk,
                "detail": hold.detail,
            }
        )
    return lines


def hold(connection: Connection, vault: Vault, name: str) -> Hold:
    """One hold that is not ended, by its id or its envelope's. Raises NotFound."""
    table = tables.hold
    for column in (table.c.id, table.c.envelope):
        row = connection.execute(select(table).where(column == name, table.c.ended_at.is_(None))).first()
        if row is not None:
            return rows.hold_of(row, vault)
    raise NotFound(f"nothing is held under {name}")


def holds_from(connection: Connection, vault: Vault, adapters: Sequence[str]) -> tuple[Hold, ...]:
    """What came by these adapters and waits for a person, oldest first, with its reference; 500 at most."""
    table, envelope = tables.hold, tables.envelope
    query = (
        select(table, envelope.c.reference)
        .join(envelope, envelope.c.id == table.c.envelope)
        .where(table.c.ended_at.is_(None), envelope.c.adapter.in_(adapters))
        .order_by(table.c.since)
        .limit(500)
    )
    return tuple(
        replace(rows.hold_of(row, vault), reference=row.reference) for row in connection.execute(query)
    )


def incidents(connection: Connection, state: str | None, since: datetime | None, limit: int) -> list[Line]:
    """What may have to be notified, the latest first; state "open" or "closed" narrows."""
    table = tables.incident
    query = select(table)
    if state is not None:
        query = query.where(table.c.closed.is_(None) if state == "open" else table.c.closed.is_not(None))
    return [
        {
            "id": row.id,
            "reference": row.reference,
            "kind": row.kind,
            "opened": iso(row.opened),
            "due": iso(row.due),
            "closed": iso(row.closed),
        }
        for row in _page(connection, query, table, "opened", since, limit)
    ]
