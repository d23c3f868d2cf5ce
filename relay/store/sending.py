"""In charge of copies on their way: claimed by one sender at a time, marked before the wire, finished together.

A claim belongs to a node in one of its lives until its lease ends. Nothing of a lane is claimed while an older
copy of it is not done, so a recipient reads in the order things happened.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Update,
    bindparam,
    exists,
    func,
    or_,
    select,
    text,
    update,
)

from relay import tables
from relay.model import Attempt, AuditEvent, Delivery, DeliveryState, Why
from relay.store import rows
from relay.store.asking import among
from relay.store.transaction import Record, Transaction, moment, move, stamp, stamp_or_none

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.sql.dml import ReturningUpdate

_delivery, _pause = tables.delivery, tables.pause
_older = _delivery.alias("older")

AMBIGUOUS_WAIT = timedelta(seconds=5)
"""For so long at most evidence is looked for before a copy is sent again (once)."""

ON_THE_WAY = frozenset({"sending", "in_flight"})


def _claimable(adapter: ColumnElement[Any] | str) -> Any:  # a Select, of columns given later
    """Copies of one adapter that no older copy of their lane holds back, nor a pause."""
    blocked = exists().where(
        _older.c.lane == _delivery.c.lane,
        _older.c.seq < _delivery.c.seq,
        text(f"older.{tables.UNFINISHED}"),
    )
    return (
        select(_delivery.c.seq, _delivery.c.due)
        .where(_delivery.c.adapter == adapter, text(f"delivery.{tables.DUE}"), ~blocked)
        .order_by(_delivery.c.due, _delivery.c.seq)
    )


_PAUSED = select(_pause.c.adapter)


def _running(connection: Connection, adapters: Sequence[str]) -> list[str]:
    """The adapters that are not paused."""
    stopped = set(connection.execute(_PAUSED).scalars())
    return [] if "" in stopped else [name for name in dict.fromkeys(adapters) if name not in stopped]


def claim(work: Transaction, adapters: Sequence[str], n: int, lease: float) -> tuple[Delivery, ...]:
    """Take at most `n` copies that are due, oldest first."""
    running = _running(work.connection, adapters)
    until = stamp(work.now + timedelta(seconds=lease))
    found: list[Any] = []
    for left, adapter in zip(range(len(running), 0, -1), running, strict=True):
        share = -(-(n - len(found)) // left)  # each adapter its part, what one leaves is the next one's
        if share > 0:
            found += _claim(work, adapter, share, until)
    if not found:
        return ()
    work.news = True
    for row in found:
        move(work.counts, "delivery", row.was, "sending")
    edited = {row.edits for row in found if row.edits}
    remotes: dict[str, str | None] = {
        row.id: row.remote
        for row in among(work.connection, select(_delivery.c.id, _delivery.c.remote), _delivery.c.id, edited)
    }
    claimed = []
    for row in sorted(found, key=lambda row: (row.due or 0, row.seq)):
        delivery = rows.delivery_of(row, work.vault, recipe=True)
        # The sender must know that the other side may have this one already.
        state = DeliveryState.AMBIGUOUS if row.resent else DeliveryState.SENDING
        claimed.append(
            replace(delivery, state=state, remote=remotes.get(row.edits) if row.edits else delivery.remote)
        )
    return tuple(claimed)


def _claim(work: Transaction, adapter: str, n: int, until: int) -> list[Any]:
    wanted = work.database.locking(
        _claimable(adapter).where(_delivery.c.due <= work.at).limit(n), skip=True
    ).cte("wanted")
    statement = (
        update(_delivery)
        .where(_delivery.c.seq.in_(select(wanted.c.seq)))
        .values(
            was=_delivery.c.state,
            state="sending",
            resent=or_(_delivery.c.resent, _delivery.c.state == "ambiguous"),
            node=work.node,
            life=work.life,
            lease_until=until,
        )
        .returning(*_delivery.c)
    )
    return list(work.run(statement).all())


_MARKABLE = (
    select(_delivery.c.seq)
    .where(
        _delivery.c.id.in_(bindparam("names", expanding=True)),
        _delivery.c.state == "sending",
        _delivery.c.node == bindparam("my_node"),
        _delivery.c.life == bindparam("my_life"),
        ~exists().where(or_(_pause.c.adapter == "", _pause.c.adapter == _delivery.c.adapter)),
    )
    .order_by(_delivery.c.id)
)


@functools.lru_cache(maxsize=4)
def _marking(markable: Select[Any]) -> ReturningUpdate[Any]:
    wanted = markable.cte("wanted")
    return (
        update(_delivery)
        .where(_delivery.c.seq.in_(select(wanted.c.seq)))
        .values(state="in_flight")
        .returning(_delivery.c.id)
    )


def in_flight(work: Transaction, ids: Sequence[str]) -> frozenset[str]:
    """Mark what goes on the wire now; answers which may. The others were stopped, paused or lost to another node."""
    statement = _marking(work.database.locking(_MARKABLE))
    mine = {"names": sorted(set(ids)), "my_node": work.node, "my_life": work.life}
    going = work.run(statement, mine).scalars().all()
    move(work.counts, "delivery", "sending", "in_flight", len(going))
    work.news = work.news or bool(going)
    return frozenset(going)


def release(work: Transaction, ids: Sequence[str]) -> None:
    """Give back what was claimed and did not go; no attempt is counted."""
    mine = among(
        work.connection,
        work.database.locking(
            select(_delivery.c.id, _delivery.c.resent)
            .where(
                _delivery.c.state == "sending", _delivery.c.node == work.node, _delivery.c.life == work.life
            )
            .order_by(_delivery.c.id)
        ),
        _delivery.c.id,
        sorted(set(ids)),
    )
    for row in mine:
        # A copy that may have been taken stays marked, whatever the reason it did not go again.
        move(work.counts, "delivery", "sending", "ambiguous" if row.resent else "queued")
    _set(
        work,
        [
            {"b_id": row.id, "state": "ambiguous" if row.resent else "queued", "lease_until": None}
            for row in mine
        ],
    )


_TRIED = select(
    _delivery.c.id, _delivery.c.adapter, _delivery.c.state, _delivery.c.attempts, _delivery.c.why,
    _delivery.c.sent_at, _delivery.c.remote, _delivery.c.resent, _delivery.c.node, _delivery.c.life,
).order_by(_delivery.c.id)  # fmt: skip


def finish(work: Transaction, attempts: Sequence[Attempt]) -> None:
    """Enter how each try ended. Evidence that came first is not undone, a stopped copy stays stopped."""
    names = sorted({attempt.delivery for attempt in attempts})
    found = {
        row.id: dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public way to a dict
        for row in among(work.connection, work.database.locking(_TRIED), _delivery.c.id, names)
    }
    history: list[Record] = []
    for attempt in attempts:
        row = found.get(attempt.delivery)
        if row is None:
            continue
        at, state = stamp(attempt.at), attempt.state.value
        why = None if attempt.why is None else attempt.why.value
        resent = row["resent"] and attempt.state is DeliveryState.SENT
        if resent:
            why = Why.RESENT_AFTER_CRASH.value
        history.append(
            {
                "delivery": attempt.delivery,
                "at": at,
                "state": state,
                "why": why,
                "remote": attempt.remote,
                "node": work.node,
            }
        )
        work.counts[f"tries.{row['adapter']}.{state}"] += 1
        row["attempts"] += 1
        row["remote"] = attempt.remote or row["remote"]
        if attempt.state is DeliveryState.SENT and row["sent_at"] is None:
            row["sent_at"] = at
        mine = row["node"] == work.node and row["life"] == work.life
        # Another node took the copy over when our lease ended: what it says now counts, unless ours was sent.
        if (row["state"] in ON_THE_WAY and (mine or attempt.state is DeliveryState.SENT)) or (
            attempt.state is DeliveryState.SENT and row["state"] in ("ambiguous", "deferred", "queued")
        ):
            move(work.counts, "delivery", row["state"], state)
            row |= {"state": state, "why": why, "due": stamp_or_none(attempt.not_before), "moved": True}
    work.add(tables.attempt, history)
    moved, kept = [], []
    for name, row in found.items():
        change = {"b_id": name, **{key: row[key] for key in ("attempts", "remote", "sent_at")}}
        if row.get("moved"):
            moved.append(
                change | {"state": row["state"], "why": row["why"], "due": row["due"], "lease_until": None}
            )
        else:
            kept.append(change)
    _set(work, moved)
    _set(work, kept)


def _set(work: Transaction, changes: Sequence[Record]) -> None:
    """Update copies; all rows change the same columns."""
    if not changes:
        return
    work.run(_setting(tuple(name for name in changes[0] if name != "b_id")), changes)
    work.news = True


@functools.lru_cache(maxsize=16)
def _setting(names: tuple[str, ...]) -> Update:
    values: Record = {name: bindparam(name) for name in names}
    return update(_delivery).where(_delivery.c.id == bindparam("b_id")).values(values)


def recover(work: Transaction) -> Mapping[str, int]:
    """Put right what an earlier life of this node, or a node whose lease ended, left half done.

    Answers how many were `deferred` (nothing had reached the wire), `ambiguous` (to be sent once more) and
    `unsure` (were being sent the second time: only evidence or a person moves them now).
    """
    query = select(_delivery.c.id, _delivery.c.state, _delivery.c.resent).where(
        text("state IN ('sending', 'in_flight')"),
        or_(
            _delivery.c.lease_until < work.at,
            (_delivery.c.node == work.node) & (_delivery.c.life < work.life),
        ),
    )
    counts = {"deferred": 0, "ambiguous": 0, "unsure": 0}
    changes: list[Record] = []
    soon = stamp(work.now + AMBIGUOUS_WAIT)
    for row in work.run(work.database.locking(query.order_by(_delivery.c.lease_until))).all():
        if row.state == "in_flight" and row.resent:
            state, why, due, what = "ambiguous", Why.LOST_AFTER_SEND, None, "unsure"
        elif row.state == "in_flight" or row.resent:
            state, why, due, what = "ambiguous", Why.LOST_AFTER_SEND, soon, "ambiguous"
        else:
            state, why, due, what = "deferred", Why.LEASE_ENDED, work.at, "deferred"
        counts[what] += 1
        move(work.counts, "delivery", row.state, state)
        changes.append({"b_id": row.id, "state": state, "why": why.value, "due": due, "lease_until": None})
        work.trail.append(AuditEvent("relay", "recovered", row.id, why))
    _set(work, changes)
    # Also those that a life which died in its first moments had no time to give to people.
    doubtful = (text(tables.DUE), _delivery.c.state == "ambiguous", _delivery.c.due.is_(None))
    counts["unsure"] = work.run(select(func.count()).select_from(_delivery).where(*doubtful)).scalar_one()
    return counts


def next_due(connection: Connection, adapters: Sequence[str]) -> datetime | None:
    """When the next copy that could be claimed falls due, with these adapters."""
    dues = [
        row.due
        for adapter in _running(connection, adapters)
        if (
            row := connection.execute(
                _claimable(adapter).where(_delivery.c.due.is_not(None)).limit(1)
            ).first()
        )
    ]
    return moment(min(dues)) if dues else None
