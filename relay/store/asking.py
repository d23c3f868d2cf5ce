"""In charge of what deciding needs to know: many questions answered by few queries on one snapshot."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, Select, Table, bindparam, or_, select, text

from relay import identity, tables
from relay.errors import NotFound
from relay.model import (
    Absence,
    Ask,
    Context,
    Delivery,
    DeliveryState,
    Hold,
    Link,
    Purpose,
    Thread,
    ThreadState,
    ThreadView,
    Timer,
    Why,
    lost_id,
)
from relay.store import rows
from relay.store.database import chunks
from relay.store.transaction import moment, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from relay.vault import Vault

_envelope, _thread, _delivery, _timer = tables.envelope, tables.thread, tables.delivery, tables.timer


def among(
    connection: Connection,
    query: Select[Any],
    column: ColumnElement[Any],
    texts: Iterable[str],
    **given: object,
) -> list[Any]:
    """The rows whose column is one of the texts. `given`: the values of the query's own parameters.

    A query that is asked for every letter is made once, beside its function: making one and finding what
    SQLAlchemy compiled for it costs more than SQLite's answer.
    """
    found: list[Any] = []
    for some in chunks(dict.fromkeys(texts)):
        found += connection.execute(_among(query, column), {"among": some, **given}).all()
    return found


@functools.lru_cache(maxsize=256)
def _among(query: Select[Any], column: ColumnElement[Any]) -> Select[Any]:
    return query.where(column.in_(bindparam("among", expanding=True)))


# ------------------------------------------------------------------------------------------------------- views

_THREADS = select(_thread)
_COPIES = select(_delivery).where(_delivery.c.thread.is_not(None)).order_by(_delivery.c.seq)
_WAITING = select(_timer).where(_timer.c.done_at.is_(None))
_HABITS = select(tables.habit)
_OPEN_HOLDS = select(tables.hold).where(tables.hold.c.ended_at.is_(None))
_LINKS = select(tables.link).where(tables.link.c.unlinked_at.is_(None)).order_by(tables.link.c.linked_at)
_ABSENCES = (
    select(tables.absence)
    .where(tables.absence.c.until >= bindparam("today"))
    .order_by(tables.absence.c.since)
)


def views(connection: Connection, vault: Vault, ids: Iterable[str], today: str) -> dict[str, ThreadView]:
    """Threads by id, each with its copies, waiting timers and the links and absences of who takes part."""
    found = among(connection, _THREADS, _thread.c.id, ids)
    threads = {row.id: rows.thread_of(row, vault) for row in found}
    if not threads:
        return {}
    copies: defaultdict[str, list[Delivery]] = defaultdict(list)
    boxes: defaultdict[str, set[tuple[str, str]]] = defaultdict(set)
    for row in among(connection, _COPIES, _delivery.c.thread, threads):
        copy = rows.delivery_of(row, vault, recipe=False)
        copies[row.thread].append(copy)
        if row.box:
            boxes[row.thread].add((row.box, copy.address))
    habits = _habits(connection, {box for group in boxes.values() for box, _ in group})
    timers: defaultdict[str, list[Timer]] = defaultdict(list)
    for row in among(connection, _WAITING, _timer.c.thread, threads):
        timers[row.thread].append(rows.timer_of(row))
    # A follow-up that waits for its reader has no letter that failed: none of the many is asked for.
    lost = {
        lost_id(copy.envelope): name
        for name, each in threads.items()
        if each.state is not ThreadState.AWAITING_ACK
        for copy in copies[name]
        if copy.purpose is Purpose.LETTER and copy.envelope
    }
    holds: defaultdict[str, list[Hold]] = defaultdict(list)
    for row in among(connection, _OPEN_HOLDS, tables.hold.c.id, lost):
        holds[lost[row.id]].append(rows.hold_of(row, vault))
    people = {name: _rpps_of(thread) for name, thread in threads.items()}
    wanted = {rpps for group in people.values() for rpps in group}
    links, absences = links_of(connection, wanted), absences_of(connection, wanted, today)
    return {
        name: ThreadView(
            thread=thread,
            deliveries=tuple(copies[name]),
            timers=tuple(sorted(timers[name], key=lambda timer: timer.due)),
            links=tuple(link for rpps in people[name] for link in links.get(rpps, ())),
            absences=tuple(absence for rpps in people[name] for absence in absences.get(rpps, ())),
            readers=frozenset(address for box, address in boxes[name] if (box, "read") in habits),
            confirmers=frozenset(address for box, address in boxes[name] if (box, "dsn") in habits),
            holds=tuple(holds[name]),
        )
        for name, thread in threads.items()
    }


def _habits(connection: Connection, boxes: Iterable[str]) -> set[tuple[str, str]]:
    return {(row.box, row.kind) for row in among(connection, _HABITS, tables.habit.c.box, boxes)}


def _rpps_of(thread: Thread) -> list[str]:
    keys = [participant.key for participant in thread.participants]
    if thread.gp:
        keys.append(thread.gp)
    return list(dict.fromkeys(key.removeprefix("rpps:") for key in keys if key.startswith("rpps:")))


def links_of(connection: Connection, people: Iterable[str]) -> dict[str, list[Link]]:
    """The running links of each professional."""
    found: dict[str, list[Link]] = {}
    for row in among(connection, _LINKS, tables.link.c.rpps, people):
        found.setdefault(row.rpps, []).append(rows.link_of(row))
    return found


def absences_of(connection: Connection, people: Iterable[str], today: str) -> dict[str, list[Absence]]:
    """The absences of each professional that run or are to come. `today` as ISO text."""
    found: dict[str, list[Absence]] = {}
    for row in among(connection, _ABSENCES, tables.absence.c.rpps, people, today=today):
        found.setdefault(row.rpps, []).append(rows.absence_of(row))
    return found


def view(connection: Connection, vault: Vault, thread: str, now: datetime) -> ThreadView:
    """One thread by id or reference. Raises NotFound."""
    query = select(_thread.c.id).where(or_(_thread.c.id == thread, _thread.c.reference == thread.upper()))
    name = connection.execute(query).scalar()
    if name is None:
        raise NotFound("no such follow-up")
    return views(connection, vault, [name], now.date().isoformat())[name]


def patient_index(ins: str, vault: Vault) -> str:
    """The blind index under which a thread names its patient, with or without the key's two digits."""
    return vault.index("patient", (identity.normal_ins(ins) or ins)[:13])


def of_patient(connection: Connection, vault: Vault, ins: str, now: datetime) -> tuple[ThreadView, ...]:
    """Every thread about this patient, oldest first."""
    query = (
        select(_thread.c.id)
        .where(_thread.c.patient == patient_index(ins, vault), _thread.c.patient.is_not(None))
        .order_by(_thread.c.opened_at)
    )
    names = list(connection.execute(query).scalars())
    found = views(connection, vault, names, now.date().isoformat())
    return tuple(found[name] for name in names)


def of_ward(
    connection: Connection, vault: Vault, ward: str, since: datetime, now: datetime
) -> tuple[ThreadView, ...]:
    """The ward's threads opened since, and those that still wait for somebody, oldest first; 500 at most."""
    query = (
        select(_thread.c.id)
        .where(_thread.c.ward == ward, or_(_thread.c.opened_at >= stamp(since), text(tables.OPEN_THREAD)))
        .order_by(_thread.c.opened_at)
        .limit(500)
    )
    names = list(connection.execute(query).scalars())
    found = views(connection, vault, names, now.date().isoformat())
    return tuple(found[name] for name in names)


def open_ids(connection: Connection) -> list[str]:
    """The ids of every open thread."""
    query = select(_thread.c.id).where(text(tables.OPEN_THREAD)).order_by(_thread.c.id)
    return list(connection.execute(query).scalars())


# ------------------------------------------------------------------------------------------------------ timers


def due_timers(
    connection: Connection, vault: Vault, now: datetime, at: int, limit: int
) -> tuple[tuple[Timer, ThreadView], ...]:
    """Timers that are due, oldest first, each with its thread as it stands."""
    query = select(_timer).where(_timer.c.done_at.is_(None), _timer.c.due <= at)
    found = connection.execute(query.order_by(_timer.c.due).limit(limit)).all()
    threads = views(connection, vault, {row.thread for row in found}, now.date().isoformat())
    return tuple((rows.timer_of(row), threads[row.thread]) for row in found)


def next_timer(connection: Connection) -> datetime | None:
    """When the next timer is due."""
    query = select(_timer.c.due).where(_timer.c.done_at.is_(None)).order_by(_timer.c.due).limit(1)
    due = connection.execute(query).scalar()
    return None if due is None else moment(due)


# ---------------------------------------------------------------------------------------------------- contexts

_ORIGINALS = (
    select(_envelope.c.fingerprint, _envelope.c.id)
    .where(
        _envelope.c.fingerprint.is_not(None),
        or_(_envelope.c.why.is_(None), _envelope.c.why != Why.DUPLICATE.value),
    )
    .order_by(_envelope.c.seq)
)
_CARRIED = select(_delivery.c.envelope, _delivery.c.thread).where(
    _delivery.c.purpose == Purpose.LETTER.value,
    _delivery.c.state != DeliveryState.CANCELLED.value,
    _delivery.c.thread.is_not(None),
)
_FOLLOWED = select(_envelope.c.id, _thread.c.id.label("thread")).join(
    _thread, _thread.c.reference == _envelope.c.reference
)
REFERENCES = select(_thread.c.id, _thread.c.reference)
_MESSAGES = select(_delivery).where(_delivery.c.message_id.is_not(None)).order_by(_delivery.c.seq)
_DELIVERIES = select(_delivery)
_GRANTS = select(tables.grant)
_OWNERS = select(tables.mailbox.c.address, tables.mailbox.c.rpps)
_OWED = (
    select(_thread.c.gp, _thread.c.id)
    .where(_thread.c.gp != "", text(tables.OPEN_THREAD))
    .order_by(_thread.c.opened_at.desc())
    .limit(20)
)
_KEPT = (
    select(tables.hold, _envelope.c.reference)
    .join(_envelope, tables.hold.c.envelope == _envelope.c.id)
    .where(tables.hold.c.ended_at.is_(None))
)
_PATIENTS = select(_thread.c.id, _thread.c.patient)


def contexts(connection: Connection, vault: Vault, asks: Sequence[Ask], now: datetime) -> list[Context]:
    """The answer to each question, all seen at one instant."""
    today = now.date().isoformat()
    originals: dict[str, str] = {}
    prints = [ask.fingerprint for ask in asks if ask.fingerprint]
    for fingerprint, name in among(connection, _ORIGINALS, _envelope.c.fingerprint, prints):
        originals.setdefault(fingerprint, name)
    documents = _pairs(connection, tables.document_key, "envelope", (ask.document_keys for ask in asks))
    carried = {
        row.envelope: row.thread
        for row in among(connection, _CARRIED, _delivery.c.envelope, documents.values())
    }
    alike = [[documents[key] for key in ask.known_by if key in documents] for ask in asks]
    followed: dict[str, str] = {
        row.id: row.thread
        for row in among(connection, _FOLLOWED, _envelope.c.id, (name for group in alike for name in group))
    }
    stays = _pairs(connection, tables.stay_key, "thread", (ask.stays for ask in asks))
    references: dict[str, str] = {
        row.reference: row.id
        for row in among(
            connection,
            REFERENCES,
            _thread.c.reference,
            (reference for ask in asks for reference in ask.references),
        )
    }
    by_message: defaultdict[str, list[Delivery]] = defaultdict(list)
    by_id: dict[str, Delivery] = {}
    named = (name for ask in asks for name in ask.message_ids)
    for row in among(connection, _MESSAGES, _delivery.c.message_id, named):
        by_message[row.message_id].append(rows.delivery_of(row, vault, recipe=False))
    for row in among(connection, _DELIVERIES, _delivery.c.id, (d for ask in asks for d in ask.deliveries)):
        by_id[row.id] = rows.delivery_of(row, vault, recipe=False)
    grants = {
        row.nonce: rows.grant_of(row)
        for row in among(connection, _GRANTS, tables.grant.c.nonce, (ask.nonce for ask in asks if ask.nonce))
    }
    accounts: defaultdict[tuple[str, str], list[Link]] = defaultdict(list)
    for row in among(
        connection,
        _LINKS,
        tables.link.c.account,
        (ask.account[1] for ask in asks if ask.account),
    ):
        accounts[row.adapter_kind, row.account].append(rows.link_of(row))
    owners: defaultdict[str, set[str]] = defaultdict(set)
    addresses = {address: address.lower() for ask in asks for address in ask.addresses}
    for row in among(connection, _OWNERS, tables.mailbox.c.address, addresses.values()):
        owners[row.address].add(row.rpps)
    people = {rpps for ask in asks for rpps in ask.people}
    people |= {link.rpps for group in accounts.values() for link in group}
    links, absences = links_of(connection, people), absences_of(connection, people, today)

    # Somebody typed: what they may ask for are the open letters they answer for.
    typists = {
        f"rpps:{link.rpps}"
        for ask in asks
        if ask.account and ask.nonce is None
        for link in accounts.get(ask.account, ())
    }
    owed: defaultdict[str, list[str]] = defaultdict(list)
    for gp, name in among(connection, _OWED, _thread.c.gp, typists):
        owed[gp].append(name)

    copies = [_of(ask, by_message, by_id) for ask in asks]
    threads = [
        list(
            dict.fromkeys(
                (
                    *ask.threads,
                    *(references[each] for each in ask.references if each in references),
                    *(stays[each] for each in ask.stays if each in stays),
                    *(followed[name] for name in known if name in followed),
                    *(copy.thread for copy in mine if copy.thread),
                    *((grants[ask.nonce].thread,) if ask.nonce in grants else ()),
                    *(
                        name
                        for link in (accounts.get(ask.account, ()) if ask.account else ())
                        for name in owed.get(f"rpps:{link.rpps}", ())
                    ),
                )
            )
        )
        for ask, mine, known in zip(asks, copies, alike, strict=True)
    ]
    seen = views(connection, vault, (name for group in threads for name in group), today)
    holds: defaultdict[str, list[Any]] = defaultdict(list)
    spoken = (copy.envelope for mine in copies for copy in mine if copy.envelope)
    for row in among(connection, _OPEN_HOLDS, tables.hold.c.envelope, spoken):
        holds[row.envelope].append(rows.hold_of(row, vault))

    kept: dict[str, Hold] = {}
    for row in among(connection, _KEPT, tables.hold.c.envelope, documents.values()):
        kept[row.envelope] = replace(rows.hold_of(row, vault), reference=row.reference)

    about = {
        row.id: row.patient
        for row in among(
            connection, _PATIENTS, _thread.c.id,
            (name for ask, group in zip(asks, threads, strict=True) if ask.patient for name in group),
        )
    }  # fmt: skip

    answers = []
    for ask, mine, known, group in zip(asks, copies, alike, threads, strict=True):
        asked = patient_index(ask.patient, vault) if ask.patient else None
        account = accounts.get(ask.account, []) if ask.account else []
        wanted = dict.fromkeys((*ask.people, *(link.rpps for link in account)))
        answers.append(
            Context(
                duplicate_of=originals.get(ask.fingerprint) if ask.fingerprint else None,
                documents={key: documents[key] for key in ask.document_keys if key in documents},
                letters={
                    name: carried[name]
                    for key in ask.document_keys
                    if (name := documents.get(key)) is not None and name in carried
                },
                followed={name: followed[name] for name in known if name in followed},
                threads=tuple(seen[name] for name in group if name in seen),
                stays={key: stays[key] for key in ask.stays if key in stays},
                deliveries=mine,
                holds=tuple(
                    each
                    for name in dict.fromkeys(copy.envelope for copy in mine if copy.envelope)
                    for each in holds.get(name, ())
                ),
                kept=tuple(
                    kept[name]
                    for name in dict.fromkeys(documents.get(key, "") for key in ask.document_keys)
                    if name in kept
                ),
                grant=grants.get(ask.nonce) if ask.nonce else None,
                links=tuple(
                    dict.fromkeys((*account, *(link for rpps in wanted for link in links.get(rpps, ()))))
                ),
                absences=tuple(each for rpps in wanted for each in absences.get(rpps, ())),
                owners={
                    address: next(iter(owners[plain]))
                    for address in ask.addresses
                    # A mailbox of several people names nobody.
                    if len(owners.get(plain := addresses[address], ())) == 1
                },
                strangers=frozenset(name for name in group if asked and about.get(name) not in (None, asked)),
            )
        )
    return answers


@functools.cache
def pairs(table: Table, value: str) -> Select[Any]:
    """Each key of a table with what it belongs to."""
    return select(table.c.key, table.c[value])


def _pairs(
    connection: Connection, table: Table, value: str, keys: Iterable[Iterable[str]]
) -> Mapping[str, str]:
    found = among(connection, pairs(table, value), table.c.key, (key for group in keys for key in group))
    return {row[0]: row[1] for row in found}


def _of(
    ask: Ask, by_message: Mapping[str, list[Delivery]], by_id: Mapping[str, Delivery]
) -> tuple[Delivery, ...]:
    found = [copy for message in ask.message_ids for copy in by_message.get(message, ())]
    found += [by_id[name] for name in ask.deliveries if name in by_id]
    return tuple({copy.id: copy for copy in found}.values())
