"""In charge of reading the audit trail: proving it whole, showing it, and cutting its old end at a checkpoint."""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, select, update

from relay import tables
from relay.model import AuditEvent
from relay.store.lists import iso
from relay.store.transaction import GENESIS, Transaction, link, seal, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from relay.vault import Vault

PAGE = 5000
_audit, _head, _checkpoint = tables.audit, tables.audit_head, tables.audit_checkpoint


def verify(connection: Connection, vault: Vault) -> dict[str, Any]:
    """Walk every chain. `ok` is False when a line was changed, added or removed; `problems` name where.

    {"ok", "writers", "lines", "problems": [{"writer", "number", "what"}]}
    """
    problems: list[dict[str, Any]] = []
    lines = 0
    heads = {row.writer: row for row in connection.execute(select(_head))}
    strangers = set(connection.execute(select(_audit.c.writer).distinct()).scalars()) - set(heads)
    problems += [{"writer": name, "number": 0, "what": "no_head"} for name in sorted(strangers)]
    for writer, head in sorted(heads.items()):
        places = {
            row.number: row
            for row in connection.execute(select(_checkpoint).where(_checkpoint.c.writer == writer))
        }
        for number, row in places.items():
            if not hmac.compare_digest(row.seal, seal(vault, "checkpoint", writer, number, row.hash)):
                problems.append({"writer": writer, "number": number, "what": "checkpoint_forged"})
        if not hmac.compare_digest(head.seal, seal(vault, "head", writer, head.number, head.hash)):
            problems.append({"writer": writer, "number": head.number, "what": "head_forged"})
        number, chained = _beginning(vault, writer, places)
        for row in _lines(connection, writer, number):
            number += 1
            chained = link(chained, dict(row._mapping))  # noqa: SLF001 - SQLAlchemy's public way to a dict
            lines += 1
            if row.number != number:
                problems.append({"writer": writer, "number": number, "what": "line_missing"})
                break
            place = places.get(number)
            if chained != row.hash or (place is not None and place.hash != row.hash):
                problems.append({"writer": writer, "number": number, "what": "line_changed"})
                break
        else:
            if (number, chained) != (head.number, head.hash):
                problems.append({"writer": writer, "number": number, "what": "end_missing"})
    return {"ok": not problems, "writers": len(heads), "lines": lines, "problems": problems}


def _beginning(vault: Vault, writer: str, places: dict[int, Any]) -> tuple[int, bytes]:
    """Where a chain starts: at its first line ever, or at the checkpoint where a purge of ours cut it."""
    for number in sorted(places, reverse=True):
        row = places[number]
        if row.cut is not None and hmac.compare_digest(row.cut, seal(vault, "cut", writer, number, row.hash)):
            return number, row.hash
    return 0, GENESIS


def _lines(connection: Connection, writer: str, after: int) -> Iterator[Any]:
    while True:
        query = select(_audit).where(_audit.c.writer == writer, _audit.c.number > after)
        page = connection.execute(query.order_by(_audit.c.number).limit(PAGE)).all()
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].number


def export(connection: Connection, since: datetime | None) -> list[dict[str, object]]:
    """The lines, in order of time."""
    query = select(_audit).order_by(_audit.c.at, _audit.c.writer, _audit.c.number)
    if since is not None:
        query = query.where(_audit.c.at >= stamp(since))
    return [
        {
            "at": iso(row.at),
            "writer": row.writer,
            "number": row.number,
            "actor": row.actor,
            "act": row.act,
            "subject": row.subject,
            "why": row.why,
            "note": row.note,
            "hash": row.hash.hex(),
        }
        for row in connection.execute(query)
    ]


def purge(work: Transaction, before: datetime) -> int:
    """Cut each chain at its last checkpoint older than `before`; answers how many lines went."""
    gone = 0
    last = (
        select(_checkpoint.c.writer, func.max(_checkpoint.c.number).label("number"))
        .where(_checkpoint.c.at < stamp(before))
        .group_by(_checkpoint.c.writer)
        .subquery()
    )
    query = select(_checkpoint).join(
        last, (_checkpoint.c.writer == last.c.writer) & (_checkpoint.c.number == last.c.number)
    )
    for row in work.run(query).all():
        cut = (_audit.c.writer == row.writer) & (_audit.c.number <= row.number)
        gone += work.run(delete(_audit).where(cut)).rowcount
        work.run(
            delete(_checkpoint).where(_checkpoint.c.writer == row.writer, _checkpoint.c.number < row.number)
        )
        # Without this proof a purge could not be told from somebody who cut the trail by hand.
        proof = seal(work.vault, "cut", row.writer, row.number, row.hash)
        here = (_checkpoint.c.writer == row.writer) & (_checkpoint.c.number == row.number)
        work.run(update(_checkpoint).where(here).values(cut=proof))
    if gone:
        work.trail.append(AuditEvent("relay", "audit_purged", "audit", note=str(gone)))
    return gone
