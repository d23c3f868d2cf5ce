"""In charge of patients and professionals: the sealed registry, the public directory, links and absences.

Imports come line by line and are written a few thousand at a time, so that letters go on meanwhile. Several
lines of one person are one person, wherever they stand in the file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import ColumnElement, Connection, and_, bindparam, delete, func, not_, or_, select, update

from relay import identity, tables
from relay.errors import NotFound, UsageError
from relay.model import Absence, AuditEvent, Link, Mailbox, Professional, Registration
from relay.store import rows
from relay.store.asking import absences_of, among, links_of
from relay.store.database import chunks
from relay.store.transaction import Record, Transaction, moment, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from relay.vault import Vault

Line = TypeVar("Line")
Act = Callable[[Transaction], None]
Write = Callable[[Act], Awaitable[None]]
Keys = Callable[[Registration], Sequence[str]]

BATCH = 2000
_OF_ONE = 50  # lines of one patient that wait for the next
_registration, _key = tables.registration, tables.registration_key
_professional, _mailbox = tables.professional, tables.mailbox


@dataclass(frozen=True, slots=True)
class ImportCount:
    """What an import did, in people. `differing`: corrected by a person, and the file says otherwise."""

    new: int = 0
    changed: int = 0
    same: int = 0
    ended: int = 0
    differing: int = 0


async def in_batches(
    lines: Iterable[Line],
    write: Callable[[list[Line]], Awaitable[None]],
    progress: Callable[[int], None] | None,
) -> None:
    """Hand lines over a batch at a time; they are read in a thread, since a file's reader may be slow."""
    waiting, done = iter(lines), 0

    def reading() -> asyncio.Future[list[Line]]:
        return asyncio.ensure_future(asyncio.to_thread(lambda: list(islice(waiting, BATCH))))

    following = reading()
    try:
        while some := await following:
            following = reading()  # while these are written
            await write(some)
            done += len(some)
            if progress is not None:
                progress(done)
    finally:
        # The file is closed after us: no thread may still be reading it.
        await asyncio.gather(following, return_exceptions=True)


# ---------------------------------------------------------------------------------------------------- registry


def _id(registration: Registration, vault: Vault) -> str:
    return vault.index("registration", registration.key)


def _written(registration: Registration) -> bytes:
    return bytes(rows.json_of(Registration).dump_json(registration))


def _digest(registration: Registration, vault: Vault) -> str:
    """Tells whether two registrations say the same, the correction aside."""
    return vault.index("digest", _written(replace(registration, corrected=False)).decode())


def _row(registration: Registration, vault: Vault, load: int) -> Record:
    name = _id(registration, vault)
    return {
        "id": name,
        "digest": _digest(registration, vault),
        "corrected": registration.corrected,
        "differing": False,
        "load": load,
        "ended_at": None,
        "sealed": vault.seal_long("registry", _written(registration), f"registration:{name}"),
    }


def _of(row: Any, vault: Vault) -> Registration:
    plain = vault.open_long("registry", row.sealed, f"registration:{row.id}")
    registration: Registration = rows.json_of(Registration).validate_json(plain)
    return registration


def registrations(
    connection: Connection, vault: Vault, keysets: Sequence[Sequence[str]]
) -> list[tuple[Registration, ...]]:
    """For each set of keys, the registrations that any of them names, each once."""
    blind = [[vault.index("key", key) for key in dict.fromkeys(keys)] for keys in keysets]
    query = select(_key.c.key, _registration).join(_registration, _registration.c.id == _key.c.registration)
    found: dict[str, list[str]] = {}
    known: dict[str, Registration] = {}
    wanted = (key for keys in blind for key in keys)
    for row in among(connection, query.where(_registration.c.ended_at.is_(None)), _key.c.key, wanted):
        if row.id not in known:
            known[row.id] = _of(row, vault)
        found.setdefault(row.key, []).append(row.id)
    return [
        tuple(known[name] for name in dict.fromkeys(name for key in keys for name in found.get(key, ())))
        for keys in blind
    ]


def by_ins(connection: Connection, vault: Vault, ins: str) -> Registration | None:
    """The patient registered under this INS, of whatever series; None: nobody, or several."""
    (found,) = registrations(connection, vault, [[_ins_key(ins)]])
    return found[0] if len(found) == 1 else None


def _ins_key(ins: str) -> str:
    value = identity.normal_ins(ins)
    if value is None:
        raise UsageError("an INS has 13 or 15 characters")
    return next(key for key in identity.keys_of(Registration(ins=value)) if key.startswith("ins:"))


def _eases(row: Any, new: Registration, vault: Vault) -> bool:
    """Whether somebody would be certain, or written to, who was not: perhaps the file's other lines say otherwise."""
    if row.ended_at is not None:
        return False
    known = _of(row, vault)
    objects_no_more = known.consent == "opposed" and new.consent != "opposed"
    return objects_no_more or (len(known.gp_rpps) > 1 and not set(known.gp_rpps) <= set(new.gp_rpps))


class RegistryImport:
    """One run over `patients.csv`."""

    def __init__(self, write: Write, vault: Vault, keys: Keys, load: int) -> None:
        self._write, self._vault, self._keys, self._load = write, vault, keys, load
        self.new = self.changed = self.same = self.ended = 0
        self._differing: set[str] = set()
        self._last: list[Registration] = []  # lines of one patient, whose next may be in the next batch
        self._easing: dict[str, Registration] = {}  # who would have fewer doctors, or object no more

    async def batch(self, lines: list[Registration]) -> None:
        """Write some lines. Letters go by them at once; what eases a patient's row waits for the last line."""
        lines = [*self._last, *lines]
        cut, last = len(lines), lines[-1].key
        while cut and len(lines) - cut < _OF_ONE and lines[cut - 1].key == last:
            cut -= 1
        self._last = lines[cut:]
        if cut:
            await self._write(lambda work: self._enter(work, lines[:cut]))

    def _enter(self, work: Transaction, lines: Sequence[Registration], *, eased: bool = False) -> None:
        vault = self._vault
        named: dict[str, Registration] = {}
        for line in lines:
            name = _id(line, vault)
            named[name] = identity.merged(named[name], line) if name in named else line
        known = {
            row.id: row for row in among(work.connection, select(_registration), _registration.c.id, named)
        }
        new: list[Record] = []
        changed: list[Record] = []
        same: list[Record] = []
        people: dict[str, Registration] = {}
        count = {"new": 0, "changed": 0, "same": 0}
        easing: dict[str, Registration] = {}
        for name, registration in named.items():
            row = known.get(name)
            if name in self._easing and not eased:
                self._easing[name] = identity.merged(self._easing[name], registration)
                continue
            if row is not None and row.load == self._load and not row.corrected and not eased:
                registration = identity.merged(_of(row, vault), registration)  # an earlier line of this file
            if row is None:
                new.append(_row(registration, vault, self._load))
                people[name] = registration
                count["new"] += 1
            elif row.digest == _digest(registration, vault) and row.ended_at is None:
                same.append({"b_id": name, "load": self._load, "differing": False})
                count["same"] += eased or row.load != self._load
            elif row.corrected:
                same.append({"b_id": name, "load": self._load, "differing": True})
                self._differing.add(name)
            elif not eased and row.load != self._load and _eases(row, registration, vault):
                same.append({"b_id": name, "load": self._load, "differing": False})
                easing[name] = registration
            else:
                written = _row(registration, vault, self._load)
                changed.append({"b_id": written.pop("id"), **written})
                people[name] = registration
                count["changed"] += eased or row.load != self._load
        work.add(_registration, new)
        self._change(work, changed)
        self._change(work, same)
        _enter_keys(work, people, self._keys)
        self.new += count["new"]
        self.changed += count["changed"]
        self.same += count["same"]
        self._easing |= easing

    @staticmethod
    def _change(work: Transaction, changes: list[Record]) -> None:
        if changes:
            values: Record = {column: bindparam(column) for column in changes[0] if column != "b_id"}
            statement = update(_registration).where(_registration.c.id == bindparam("b_id")).values(values)
            work.run(statement, changes)

    async def finish(self, *, complete: bool) -> ImportCount:
        """Write what waited, end what the file lacks when it is complete; answer what was done."""
        if self._last:
            await self._write(lambda work: self._enter(work, self._last))
        eased = list(self._easing.values())
        for start in range(0, len(eased), BATCH):
            await self._write(partial(self._enter, lines=eased[start : start + BATCH], eased=True))
        if complete:
            await self._write(self._end)
        return ImportCount(self.new, self.changed, self.same, self.ended, len(self._differing))

    def _end(self, work: Transaction) -> None:
        ended = work.run(
            update(_registration)
            .where(
                _registration.c.load < self._load,
                _registration.c.ended_at.is_(None),
                _registration.c.corrected.is_(False),
            )
            .values(ended_at=work.at)
        )
        self.ended = ended.rowcount
        work.trail.append(AuditEvent("admin", "registry_ended", "registry", note=str(self.ended)))


def _enter_keys(work: Transaction, people: Mapping[str, Registration], keys: Keys) -> None:
    """Write the keys anew of those whose row was written."""
    if not people:
        return
    work.run(
        delete(_key).where(_key.c.registration == bindparam("b_id")), [{"b_id": name} for name in people]
    )
    new = [
        {"key": work.vault.index("key", key), "registration": name}
        for name, registration in people.items()
        for key in dict.fromkeys(keys(registration))
    ]
    if new:
        work.run(work.database.insert_new(_key), new)


def _correct(work: Transaction, ins: str, change: Callable[[Registration], Registration]) -> None:
    """Write a person's correction; the next import leaves it alone. Raises NotFound."""
    query = select(_registration).join(_key, _key.c.registration == _registration.c.id)
    found = work.run(
        query.where(_key.c.key == work.vault.index("key", _ins_key(ins)), _registration.c.ended_at.is_(None))
    ).all()
    if not found:
        raise NotFound("no registered patient has this INS")
    if len(found) > 1:
        raise NotFound("several registered patients have this INS: correct the file and import it")
    corrected = replace(change(_of(found[0], work.vault)), corrected=True)
    written = _row(corrected, work.vault, found[0].load)
    RegistryImport._change(work, [{"b_id": written.pop("id"), **written}])  # noqa: SLF001 - its own module


def set_gp(work: Transaction, ins: str, rpps: str, by: str) -> None:
    """Correct the registered GP."""
    _correct(work, ins, lambda known: replace(known, gp_rpps=(rpps,)))
    work.trail.append(AuditEvent(by, "gp_corrected", f"rpps:{rpps}"))
    work.news = True


def object_to(work: Transaction, ins: str, scope: str, by: str) -> None:
    """Record an objection. A patient whom the registry lacks is entered with nothing but the objection."""

    def opposed(known: Registration) -> Registration:
        if scope == "copies":
            return replace(known, copies_opposed=True)
        return replace(known, consent="opposed", copies_opposed=scope == "all" or known.copies_opposed)

    try:
        _correct(work, ins, opposed)
    except NotFound:
        if by_ins(work.connection, work.vault, ins) is not None or _several(work, ins):
            raise
        value = identity.normal_ins(ins) or ins
        unknown = replace(opposed(Registration(ins=value, ins_oid=identity.NIR)), corrected=True)
        work.add(_registration, [_row(unknown, work.vault, 0)])
        _enter_keys(work, {_id(unknown, work.vault): unknown}, identity.keys_of)
    work.trail.append(AuditEvent(by, "objection", "registry", note=scope))
    work.news = True


def _several(work: Transaction, ins: str) -> bool:
    (found,) = registrations(work.connection, work.vault, [[_ins_key(ins)]])
    return bool(found)


# --------------------------------------------------------------------------------------------------- directory

_PLAIN = ("family_name", "given_name", "profession", "speciality", "postcode", "phone", "cpts")
_BOX = ("rpps", "address", "kind", "organisation", "finess", "active", "source")
_plain = attrgetter(*_PLAIN)
_WHO = [
    _professional.c[name]
    for name in ("rpps", *_PLAIN, "two_names", "active", "pending", "site_left", "since", "load")
]
_WHERE = [_mailbox.c[name] for name in (*_BOX, "place", "load")]
SITE, EXTRACTION = "site", "extraction"
"""Sources of the directory: the site's own CSV, the Annuaire Santé extraction; others are adapters' names."""


class DirectoryImport:
    """One run over a directory. Mailboxes that the source lacks end with the run, so none is missing meanwhile.

    A source lets go of its own mailboxes only: what the site entered outlives every extraction, also that
    somebody has left. What an official source does not tell (a phone, a CPTS, the name of who has left)
    stays as it was.
    """

    def __init__(self, write: Write, fold: Callable[[str], str], load: int, source: str = SITE) -> None:
        self._write, self._fold, self._load, self._source = write, fold, load, source
        self._owner = SITE if source == SITE else "official"
        self._new = self._known = 0
        self._changed: set[str] = set()  # of those whom the directory knew before
        self._one_name: set[str] = set()  # numbers that had two names, and so far bear one

    async def batch(self, lines: list[Professional]) -> None:
        """Write some lines."""
        await self._write(lambda work: self.enter(work, lines))

    def enter(self, work: Transaction, lines: Sequence[Professional]) -> None:
        """The same within a transaction."""
        people: dict[str, Professional] = {}
        boxes: dict[tuple[str, str], Mailbox] = {}
        active: dict[str, bool] = {}
        torn: set[str] = set()
        for line in lines:
            before = people.get(line.rpps)
            if line.two_names or (before and identity.two_people(before.family_name, line.family_name)):
                torn.add(line.rpps)
            people.setdefault(line.rpps, line)  # of several lines the first says how they are called
            active[line.rpps] = active.get(line.rpps, False) or line.active
            for box in line.mailboxes:
                boxes[line.rpps, box.address.lower()] = box
        known = {row[0]: row for row in among(work.connection, select(*_WHO), _WHO[0], people)}
        held = {(row[0], row[1]): row for row in among(work.connection, select(*_WHERE), _WHERE[0], people)}
        boxed: dict[
            str, dict[bool, int]
        ] = {}  # number → by the site or not → when its mailboxes were last told
        for there in held.values():
            if there.source:  # an older release did not write it down
                told = boxed.setdefault(there.rpps, {})
                told[there.source == SITE] = max(told.get(there.source == SITE, 0), there.load)
        changed: set[str] = set()
        written: list[Record] = []
        same: dict[tuple[bool, bool], list[str]] = {}  # whom nothing but this run's date is written to
        for name, line in people.items():
            row = known.get(name)
            values: tuple[Any, ...] = _plain(line)
            pending, two_names, stays = active[name], name in torn, False
            barred = row is not None and row.site_left and self._owner != SITE
            if row is not None:
                stays = row.active
                stood = row[1 : len(_PLAIN) + 1]
                if row.load == self._load:  # an earlier line of this run
                    pending = pending or row.pending
                    if two_names or identity.two_people(row.family_name, line.family_name):
                        two_names = True
                        self._one_name.discard(name)
                    two_names = two_names or row.two_names
                    values = tuple(old or new for old, new in zip(stood, values, strict=True))
                else:
                    two_names = two_names or self._apart(row, line, boxed.get(name, {}))
                    if row.two_names and not two_names:  # the other may stand further down
                        two_names = True
                        self._one_name.add(name)
                    if self._owner != SITE:
                        values = tuple(new or old for old, new in zip(stood, values, strict=True))
                if (*stood, row.two_names) == (*values, two_names):
                    # What the directory says of `active` is known at the end of the file only.
                    same.setdefault((stays or (pending and not barred), pending), []).append(name)
                    continue
                changed.add(name)
            record = dict(zip(_PLAIN, values, strict=True))
            record |= {
                "rpps": name,
                "folded": self._fold(values[0]),
                "active": stays or (pending and not barred),
                "pending": pending,
                "site_left": row is not None and row.site_left,
                "two_names": two_names,
                "since": self._load if row is None else row.since,
                "load": self._load,
            }
            written.append(record)
        letters: list[Record] = []
        again: list[Record] = []
        for (name, address), box in boxes.items():
            there = held.get((name, address))
            source = SITE if there is not None and there.source == SITE else self._owner
            said = (name, address, box.kind, box.organisation, box.finess, box.active, source)
            if there is not None and there[: len(said)] == said:
                again.append({"load": self._load, "b_rpps": name, "b_address": address})
                continue
            changed.add(name)
            place = len(letters) if there is None or there.load != self._load else there.place
            record = dict(zip(_BOX, said, strict=True))
            letters.append(record | {"place": place, "load": self._load})
        self._upsert(work, _professional, ["rpps"], written)
        for (is_active, pending), names in same.items():
            statement = update(_professional).values(active=is_active, pending=pending, load=self._load)
            for some in chunks(names):
                work.run(statement.where(_professional.c.rpps.in_(some)))
        self._upsert(work, _mailbox, ["rpps", "address"], letters)
        if again:
            seen = update(_mailbox).values(load=bindparam("load"))
            this = (_mailbox.c.rpps == bindparam("b_rpps")) & (_mailbox.c.address == bindparam("b_address"))
            work.run_plain(seen.where(this), again)
        self._changed.update(
            name for name in changed if (row := known.get(name)) is not None and row.since != self._load
        )
        self._new += len(people) - len(known)
        self._known += sum(row.load != self._load for row in known.values())

    def _apart(self, row: Any, line: Professional, boxed: Mapping[bool, int]) -> bool:
        """Whether mailboxes of another source stand under this number, and that source calls it somebody else.

        A slip in one of two files must not give one doctor's letters to the other. The row bears the name that
        was told last: where that was by this very source, the doubt stays until the other one speaks again.
        """
        other = boxed.get(self._owner != SITE)
        if other is None:
            return False
        own_turn = other != row.load
        return identity.two_people(row.family_name, line.family_name) or (own_turn and bool(row.two_names))

    @staticmethod
    def _upsert(work: Transaction, table: Any, key: list[str], new: list[Record]) -> None:
        if new:
            statement = work.database.insert(table)
            columns = {name: statement.excluded[name] for name in new[0] if name not in key}
            work.run_plain(statement.on_conflict_do_update(index_elements=key, set_=columns), new)

    async def finish(self) -> ImportCount:
        """Let go of mailboxes that listed professionals have no more."""
        await self._write(self._end)
        return ImportCount(new=self._new, changed=len(self._changed), same=self._known - len(self._changed))

    def _end(self, work: Transaction) -> None:
        self.let_go(work, _professional.c.load == self._load)
        work.trail.append(
            AuditEvent("admin", "directory_imported", "directory", note=f"{self._new + self._known}")
        )

    def let_go(self, work: Transaction, listed: ColumnElement[bool]) -> None:
        """What the run's source says no more of `listed` professionals ends; its date is kept."""
        those = select(_professional.c.rpps).where(listed)
        old = (
            (_mailbox.c.load != self._load)
            & _mailbox.c.source.in_([self._owner, ""])
            & _mailbox.c.rpps.in_(those)
        )
        known = select(_professional.c.rpps).where(_professional.c.since != self._load)
        self._changed.update(
            work.run(select(_mailbox.c.rpps).where(old, _mailbox.c.rpps.in_(known))).scalars()
        )
        work.run(delete(_mailbox).where(old))
        seen: ColumnElement[bool] = _professional.c.pending
        if self._owner == SITE:
            differs = _professional.c.site_left == _professional.c.pending
            work.run(
                update(_professional).where(listed, differs).values(site_left=not_(_professional.c.pending))
            )
        else:
            seen = and_(_professional.c.pending, not_(_professional.c.site_left))
        left = listed & (_professional.c.active != seen)
        self._changed.update(work.run(known.where(left)).scalars())
        work.run(update(_professional).where(left).values(active=seen))
        for some in chunks(sorted(self._one_name)):
            those_now = _professional.c.rpps.in_(some) & (_professional.c.load == self._load)
            work.run(update(_professional).where(those_now).values(two_names=False))
        self._changed |= self._one_name
        record = {"name": self._source, "at": work.at, "entries": self._new + self._known}
        self._upsert(work, tables.directory_source, ["name"], [record])
        work.news = True


def enter_found(
    work: Transaction, found: Sequence[Professional], fold: Callable[[str], str], source: str
) -> None:
    """Enter what a directory answered about these professionals, the whole of what it says of each."""
    run = DirectoryImport(_never, fold, work.at, source)
    run.enter(work, found)
    run.let_go(work, _professional.c.rpps.in_([each.rpps for each in found]))
    work.trail.append(AuditEvent("relay", "directory_asked", "directory", note=str(len(found))))


async def _never(act: Act) -> None:
    raise AssertionError("the transaction is open already")


def ages(connection: Connection, rpps: Sequence[str]) -> Mapping[str, datetime]:
    """Since when the copy of each of these stands; who is not known has none."""
    query = select(_professional.c.rpps, _professional.c.load)
    return {row.rpps: moment(row.load) for row in among(connection, query, _professional.c.rpps, rpps)}


def in_use(connection: Connection, limit: int) -> tuple[str, ...]:
    """Professionals whom the relay writes to or alerts, the longest unasked first."""
    to = tables.delivery.c.to
    mailed = select(func.substr(to, 6)).where(to.startswith("rpps:", autoescape=True))
    linked = select(tables.link.c.rpps).where(tables.link.c.unlinked_at.is_(None))
    meant = _professional.c.rpps.in_(mailed) | _professional.c.rpps.in_(linked)
    query = select(_professional.c.rpps).where(meant).order_by(_professional.c.load).limit(limit)
    return tuple(connection.execute(query).scalars())


def directory_sources(connection: Connection) -> dict[str, dict[str, Any]]:
    """When each source of the directory was last read well, and how many people it told of: {name: {"as_of", "entries"}}."""
    table = tables.directory_source
    return {
        row.name: {"as_of": moment(row.at), "entries": row.entries}
        for row in connection.execute(select(table).order_by(table.c.name))
    }


def _professionals(connection: Connection, found: Sequence[Any]) -> tuple[Professional, ...]:
    boxes: dict[str, list[Mailbox]] = {}
    query = select(_mailbox).order_by(_mailbox.c.load.desc(), _mailbox.c.place, _mailbox.c.address)
    for row in among(connection, query, _mailbox.c.rpps, (row.rpps for row in found)):
        box = Mailbox(row.address, row.kind, row.organisation, row.finess, row.active)
        boxes.setdefault(row.rpps, []).append(box)
    return tuple(
        Professional(
            rpps=row.rpps,
            family_name=row.family_name,
            given_name=row.given_name,
            profession=row.profession,
            speciality=row.speciality,
            mailboxes=tuple(boxes.get(row.rpps, ())),
            postcode=row.postcode,
            phone=row.phone,
            cpts=row.cpts,
            active=row.active,
            two_names=row.two_names,
            as_of=moment(row.load),
        )
        for row in found
    )


def professionals(
    connection: Connection, rpps: Sequence[str], names: Sequence[str]
) -> tuple[Professional, ...]:
    """Everybody with one of these RPPS or bearing one of these folded family names, by RPPS."""
    found = {row.rpps: row for row in among(connection, select(_professional), _professional.c.rpps, rpps)}
    for row in among(connection, select(_professional), _professional.c.folded, names):
        found[row.rpps] = row
    return _professionals(connection, [found[name] for name in sorted(found)])


def find(connection: Connection, text: str, limit: int = 50) -> tuple[Professional, ...]:
    """By RPPS, mail address, or the beginning of a family name (given names may follow)."""
    words = identity.fold(text)
    query = select(_professional)
    bare = identity.normal_rpps(text)
    if bare is not None:
        query = query.where(_professional.c.rpps == bare)
    elif "@" in text:
        owners = select(_mailbox.c.rpps).where(_mailbox.c.address == text.strip().lower())
        query = query.where(_professional.c.rpps.in_(owners))
    elif words:
        # A range instead of LIKE: the index serves it on both databases, whatever their collation.
        gaps = [place for place, letter in enumerate(words) if letter == " "]
        family = [words, *(words[:gap] for gap in gaps), *(words[gap + 1 :] for gap in gaps)]
        starts = (_professional.c.folded >= words) & (_professional.c.folded <= words + "\U0010ffff")
        query = query.where(or_(starts, _professional.c.folded.in_(family)))
    else:
        return ()
    found = connection.execute(query.order_by(_professional.c.folded, _professional.c.rpps).limit(4 * limit))
    people = _professionals(connection, found.all())
    if bare is None and "@" not in text:
        people = tuple(each for each in people if _answers(each, words))
    return people[:limit]


def _answers(person: Professional, words: str) -> bool:
    family, given = identity.fold(person.family_name), identity.fold(person.given_name)
    return f"{family} {given}".startswith(words) or f"{given} {family}".startswith(words)


def owners(connection: Connection, addresses: Sequence[str]) -> Mapping[str, str]:
    """Address → RPPS, for mailboxes that belong to one professional alone."""
    plain = {address: address.lower() for address in addresses}
    found: dict[str, set[str]] = {}
    query = select(_mailbox.c.address, _mailbox.c.rpps)
    for row in among(connection, query, _mailbox.c.address, plain.values()):
        found.setdefault(row.address, set()).add(row.rpps)
    return {
        address: next(iter(found[lower]))
        for address, lower in plain.items()
        if len(found.get(lower, ())) == 1
    }


# ---------------------------------------------------------------------------------------------- links, absences


def link(work: Transaction, links: Sequence[Link], by: str) -> None:
    """Link chat accounts; an account already linked to the same person is renewed."""
    new = [
        {
            "rpps": each.rpps,
            "adapter_kind": each.adapter_kind,
            "account": each.account,
            "chat": each.chat,
            "role": each.role,
            "linked_at": work.at if each.linked_at is None else stamp(each.linked_at),
            "unlinked_at": None,
        }
        for each in links
    ]
    if new:
        key = ["rpps", "adapter_kind", "account"]
        statement = work.database.insert(tables.link)
        columns = {name: statement.excluded[name] for name in new[0] if name not in key}
        work.run(statement.on_conflict_do_update(index_elements=key, set_=columns), new)
    work.trail += [AuditEvent(by, "linked", f"rpps:{each.rpps}", note=each.adapter_kind) for each in links]
    work.news = True


def unlink(work: Transaction, rpps: str, one: Link | None, by: str) -> int:
    """End one link, or all of a professional; answers how many."""
    table = tables.link
    statement = update(table).where(table.c.rpps == rpps, table.c.unlinked_at.is_(None))
    if one is not None:
        statement = statement.where(table.c.adapter_kind == one.adapter_kind, table.c.account == one.account)
    ended = work.run(statement.values(unlinked_at=work.at)).rowcount
    if ended:
        work.trail.append(AuditEvent(by, "unlinked", f"rpps:{rpps}", note=str(ended)))
        work.news = True
    return ended


def links(connection: Connection, people: Sequence[str] | None) -> tuple[Link, ...]:
    """The running links of these professionals, or all."""
    if people is not None:
        return tuple(each for group in links_of(connection, people).values() for each in group)
    query = select(tables.link).where(tables.link.c.unlinked_at.is_(None))
    return tuple(rows.link_of(row) for row in connection.execute(query.order_by(tables.link.c.linked_at)))


def away(work: Transaction, absence: Absence, by: str) -> None:
    """Declare an absence; one that begins the same day is replaced."""
    statement = work.database.insert(tables.absence)
    columns = {name: statement.excluded[name] for name in ("until", "substitute")}
    work.run(
        statement.on_conflict_do_update(index_elements=["rpps", "since"], set_=columns),
        {
            "rpps": absence.rpps,
            "since": absence.since.isoformat(),
            "until": absence.until.isoformat(),
            "substitute": absence.substitute,
        },
    )
    work.trail.append(AuditEvent(by, "away", f"rpps:{absence.rpps}"))
    work.news = True


def absences(connection: Connection, people: Sequence[str], today: str) -> tuple[Absence, ...]:
    """Running or to come."""
    return tuple(each for group in absences_of(connection, people, today).values() for each in group)
