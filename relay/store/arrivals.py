"""In charge of envelopes: accepted once, whole and sealed, and given out until they are decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, literal_column, select

from relay import tables
from relay.errors import NotFound
from relay.model import AuditEvent, Batch, Envelope, EnvelopeState, Why
from relay.store import rows
from relay.store.database import chunks
from relay.store.transaction import Record, Transaction, moment, stamp

if TYPE_CHECKING:
    from relay.vault import Vault

_envelope, _content = tables.envelope, tables.content
_whole = select(_envelope, _content.c.sealed, _content.c.event).join(
    _content, _content.c.envelope == _envelope.c.id, isouter=True
)


def cursor(connection: Connection, account: str) -> str | None:
    """How far the account was read."""
    query = select(tables.cursor.c.position).where(tables.cursor.c.account == account)
    position: str | None = connection.execute(query).scalar()
    return position


def set_cursor(work: Transaction, account: str, position: str) -> None:
    """Enter how far the account was read."""
    statement = work.database.insert(tables.cursor)
    work.run(
        statement.on_conflict_do_update(
            index_elements=["account"],
            set_={"position": statement.excluded.position, "at": statement.excluded.at},
        ),
        {"account": account, "position": position, "at": work.at},
    )


def accept(work: Transaction, batch: Batch) -> tuple[Envelope, ...]:
    """Store what is new of the batch, and the cursor."""
    # One at a time: `seq` then grows in the order of the commits, and who reads after a seq misses nothing.
    work.database.alone(work.connection, "accept")
    ids = [envelope.id for envelope in batch.envelopes]
    known: set[str] = set()
    for some in chunks(ids):
        known.update(work.run(select(_envelope.c.id).where(_envelope.c.id.in_(some))).scalars())
    new: dict[str, Envelope] = {}
    for envelope in batch.envelopes:
        if envelope.id not in known:
            new.setdefault(envelope.id, envelope)
    work.add(_envelope, [_row(envelope, work.at) for envelope in new.values()])
    work.add(_content, [_sealed(envelope, work) for envelope in new.values()])
    set_cursor(work, batch.account, batch.cursor)
    work.counts["envelope.received"] += len(new)
    work.counts["envelope.open"] += len(new)
    work.trail += [AuditEvent("relay", "received", envelope.id, envelope.flaw) for envelope in new.values()]
    return tuple(new.values())


def _row(envelope: Envelope, now: int) -> Record:
    return {
        "id": envelope.id,
        "adapter": envelope.adapter,
        "account": envelope.account,
        "ref": envelope.ref,
        "received_at": stamp(envelope.received_at),
        "accepted_at": now,
        "sha256": envelope.sha256,
        "size": len(envelope.raw),
        "flaw": None if envelope.flaw is None else envelope.flaw.value,
        "state": EnvelopeState.OPEN.value,
    }


def _sealed(envelope: Envelope, work: Transaction) -> Record:
    aad, day = f"content:{envelope.id}", work.day
    event = envelope.event and work.vault.seal(
        rows.event_bytes(envelope.event), day=day, aad=f"event:{envelope.id}"
    )
    return {
        "envelope": envelope.id,
        "day": day,
        "sealed": work.vault.seal(envelope.raw, day=day, aad=aad),
        "event": event,
    }


def undecided(connection: Connection, vault: Vault, after: str | None, limit: int) -> tuple[Envelope, ...]:
    """Accepted and not decided, in the order of acceptance, those after the envelope `after`."""
    query = _whole.where(_envelope.c.state == literal_column("'open'"))
    if after is not None:
        query = query.where(_envelope.c.seq > _after(after))
    found = connection.execute(query.order_by(_envelope.c.seq).limit(limit))
    return tuple(_envelope_or_shell(row, vault) for row in found)


def _envelope_or_shell(row: Any, vault: Vault) -> Envelope:
    """A row that no longer opens is given out all the same, empty and UNREADABLE: it must not hold up the others."""
    try:
        return _envelope_of(row, vault)
    except NotFound:
        return Envelope(
            id=row.id,
            adapter=row.adapter,
            account=row.account,
            ref=row.ref,
            received_at=moment(row.received_at),
            raw=b"",
            flaw=Why.UNREADABLE,
        )


def _after(envelope: str) -> Any:  # a scalar subquery, of a type SQLAlchemy cannot say
    other = _envelope.alias()
    return select(other.c.seq).where(other.c.id == envelope).scalar_subquery()


def _envelope_of(row: Any, vault: Vault) -> Envelope:
    event = row.event and rows.event_of(vault.open(row.event, f"event:{row.id}"))
    return Envelope(
        id=row.id,
        adapter=row.adapter,
        account=row.account,
        ref=row.ref,
        received_at=moment(row.received_at),
        raw=vault.open(row.sealed, f"content:{row.id}"),
        event=event,
        flaw=None if row.flaw is None else Why(row.flaw),
    )


def one(connection: Connection, vault: Vault, envelope: str) -> Envelope:
    """One envelope with its bytes. Raises NotFound when nobody knows it, or its content was destroyed."""
    row = connection.execute(_whole.where(_envelope.c.id == envelope)).one_or_none()
    if row is None:
        raise NotFound(f"no envelope {envelope}")
    if row.sealed is None:
        raise NotFound("content was destroyed")
    return _envelope_of(row, vault)


def raws(connection: Connection, vault: Vault, ids: Sequence[str]) -> Mapping[str, bytes]:
    """The bytes of those envelopes whose content exists."""
    found: dict[str, bytes] = {}
    for some in chunks(dict.fromkeys(ids)):
        query = select(_content.c.envelope, _content.c.sealed).where(_content.c.envelope.in_(some))
        for name, sealed in connection.execute(query):
            try:
                found[name] = vault.open(sealed, f"content:{name}")
            except NotFound:
                continue
    return found
