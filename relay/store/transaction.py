"""In charge of what every write shares: counters, the trail and waking, settled just before the commit."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, insert, select, update

from relay import tables

if TYPE_CHECKING:
    from sqlalchemy import Connection, CursorResult, Executable, Insert, Update

    from relay.model import AuditEvent
    from relay.store.database import Database
    from relay.vault import Vault

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
CHECKPOINT_EVERY = 3_600_000_000
GENESIS = bytes(32)

Record = dict[str, Any]  # one row: columns of many types


def stamp(at: datetime) -> int:
    """Microseconds since 1970, as the tables keep them."""
    return (at - EPOCH) // MICROSECOND


def stamp_or_none(at: datetime | None) -> int | None:
    """The same for what may be absent."""
    return None if at is None else (at - EPOCH) // MICROSECOND


def moment(microseconds: int) -> datetime:
    """The aware UTC time of a stamp."""
    return EPOCH + timedelta(microseconds=microseconds)


def moment_or_none(microseconds: int | None) -> datetime | None:
    """The same for what may be absent."""
    return None if microseconds is None else EPOCH + timedelta(microseconds=microseconds)


@dataclass(slots=True)
class Transaction:
    """One write in progress: the connection, the time, who writes, and what is to be settled at its end."""

    connection: Connection
    database: Database
    vault: Vault
    now: datetime
    node: str
    life: int
    counts: Counter[str] = field(default_factory=Counter)
    trail: list[AuditEvent] = field(default_factory=list)
    news: bool = False  # somebody may want to look

    @property
    def at(self) -> int:
        """Now, as the tables keep it."""
        return stamp(self.now)

    @property
    def day(self) -> str:
        """The UTC day whose key seals what is written now."""
        return self.now.date().isoformat()

    def run(self, statement: Executable, rows: Sequence[Record] | Record | None = None) -> CursorResult[Any]:
        """Execute one statement, once or for each of the rows."""
        return self.connection.execute(statement, rows)

    def run_plain(self, statement: Insert | Update, rows: Sequence[Record]) -> None:
        """Execute a statement for very many rows of plain values (texts, integers, booleans), each with every column.

        The statement is compiled once and the rows go to the driver as they are: SQLAlchemy's work on each of
        half a million rows costs more than the database's.
        """
        compiled = statement.compile(dialect=self.connection.dialect, column_keys=list(rows[0]))
        order = getattr(compiled, "positiontup", None)
        plain: Any = list(map(itemgetter(*order), rows)) if order else list(rows)
        self.connection.exec_driver_sql(str(compiled), plain)

    def add(self, table: Any, rows: Sequence[Record]) -> None:  # a Table; SQLAlchemy's stubs want more
        """Insert rows that must be new."""
        if rows:
            self.connection.execute(insert(table), rows)
            self.news = True

    def settle(self) -> None:
        """Append the trail, add up the counters, tell the others; the last acts of a transaction.

        Their rows are locked by nobody for longer than a commit takes, and always in this order.
        """
        if self.trail:
            self._append()
        # Sorted: two processes adding to the same counters take their locks in the same order.
        rows = [
            {"writer": self.node, "name": name, "value": value}
            for name, value in sorted(self.counts.items())
            if value
        ]
        if rows:
            statement = self.database.insert(tables.counter)
            total = tables.counter.c.value + statement.excluded.value
            self.connection.execute(
                statement.on_conflict_do_update(index_elements=["writer", "name"], set_={"value": total}),
                rows,
            )
        if self.news or rows or self.trail:
            self.news = True
            self.database.tell(self.connection)

    def _append(self) -> None:
        head = tables.audit_head
        found = self.connection.execute(
            self.database.locking(select(head).where(head.c.writer == self.node))
        ).one_or_none()
        number, chained, checked = (
            (found.number, found.hash, found.checkpoint_at) if found else (0, GENESIS, 0)
        )
        at, rows = self.at, []
        for entry in self.trail:
            number += 1
            row: Record = {
                "writer": self.node,
                "number": number,
                "at": at,
                "actor": entry.actor,
                "act": entry.act,
                "subject": entry.subject,
                "why": None if entry.why is None else str(entry.why),
                "note": entry.note,
            }
            row["hash"] = chained = link(chained, row)
            rows.append(row)
        self.connection.execute(insert(tables.audit), rows)
        if at - checked >= CHECKPOINT_EVERY:
            checked = at
            place = {"writer": self.node, "number": number, "at": at, "hash": chained}
            sealed = seal(self.vault, "checkpoint", self.node, number, chained)
            self.connection.execute(insert(tables.audit_checkpoint), {**place, "seal": sealed})
        end = {
            "number": number,
            "hash": chained,
            "seal": seal(self.vault, "head", self.node, number, chained),
            "checkpoint_at": checked,
        }
        if found:
            self.connection.execute(
                update(head).where(head.c.writer == bindparam("b_writer")), {"b_writer": self.node, **end}
            )
        else:
            self.connection.execute(insert(head), {"writer": self.node, **end})


_fields = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def link(before: bytes, row: Record) -> bytes:
    """The hash of a line of the trail, which covers all lines before it."""
    text = _fields(
        [row[name] for name in ("writer", "number", "at", "actor", "act", "subject", "why", "note")]
    )
    return hashlib.sha256(before + text.encode()).digest()


def seal(vault: Vault, what: str, writer: str, number: int, chained: bytes) -> bytes:
    """Proof that the ring's holder saw this place of the chain."""
    return vault.mac("audit", f"{what}\x1f{writer}\x1f{number}\x1f{chained.hex()}")


def move(counts: Counter[str], kind: str, before: str | None, after: str | None, times: int = 1) -> None:
    """Count rows of a kind from one state to another; None: it was not, or is no more."""
    if before != after:
        if before is not None:
            counts[f"{kind}.{before}"] -= times
        if after is not None:
            counts[f"{kind}.{after}"] += times


def first(texts: Iterable[str]) -> list[str]:
    """Each text once, in order, as a statement's parameters."""
    return list(dict.fromkeys(texts))
