"""In charge of rule sets and decisions: what was in force when, what stands on the disk, what was decided from what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Connection, func, or_, select, update

from relay import tables
from relay.errors import NotFound, Stale
from relay.model import AuditEvent
from relay.store import arrivals, rows
from relay.store.transaction import Transaction, moment, stamp

if TYPE_CHECKING:
    from collections import Counter

    from relay.model import DecisionRecord

FILE = "relay/rule-file"
"""The cursor row that holds what became of the rule file on the disk."""


@dataclass(frozen=True, slots=True)
class ActiveRules:
    """A rule set that is, or was, in force. `revision` grows with each activation."""

    text: str
    digest: str
    active_since: datetime
    reason: str
    by: str
    revision: int = 0


@dataclass(frozen=True, slots=True)
class RuleFile:
    """A rule file on the disk that is not in force, and why.

    `refused`: it has errors. `waiting`: it would take something from somebody, and a person must accept it.
    `passed_over`: a person put other rules in force while it stood there. `mended`: it is in force again, and the
    admins, who were told of its error, are to be told. `first` is the first error's line, or what would be lost.
    """

    digest: str  # of the file and the tests beside it
    state: Literal["refused", "waiting", "passed_over", "mended"]
    since: datetime
    first: str = ""
    told: bool = False  # the admins were
    aside: str = ""  # digest of the rules that a person passed over: they do not come back by themselves


@dataclass(frozen=True, slots=True)
class StoredDecision:
    """One decision as it was recorded: what it was made from, and what came of it."""

    seq: int
    envelope: str
    reference: str | None
    at: datetime
    ruleset: str  # digest
    rule: str
    action: str
    why: str
    followup: str | None
    facts: Mapping[str, object]  # JSON (docs/rules.md)
    targets: tuple[str, ...] = ()
    undecided_at: str | None = None
    undecided: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------- rule sets


def history(connection: Connection, limit: int) -> tuple[ActiveRules, ...]:
    """The rule sets that were in force, the current one first."""
    table = tables.ruleset
    found = connection.execute(select(table).order_by(table.c.seq.desc()).limit(limit))
    return tuple(map(_active, found))


def revision(connection: Connection) -> int:
    """The number of the set in force; 0 before the first."""
    return int(connection.execute(select(func.max(tables.ruleset.c.seq))).scalar() or 0)


def by_digest(connection: Connection, digest: str) -> ActiveRules | None:
    """The last time that a set of this digest (or beginning of one) was put in force."""
    table = tables.ruleset
    query = select(table).where(table.c.digest.startswith(digest, autoescape=True))
    row = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).one_or_none()
    return None if row is None else _active(row)


def by_revision(connection: Connection, number: int) -> ActiveRules | None:
    """The set of that revision."""
    row = connection.execute(select(tables.ruleset).where(tables.ruleset.c.seq == number)).one_or_none()
    return None if row is None else _active(row)


def _active(row: Any) -> ActiveRules:
    return ActiveRules(row.source, row.digest, moment(row.active_since), row.reason, row.by, row.seq)


def activate(
    work: Transaction, source: str, digest: str, by: str, reason: str, after: int | None, note: str
) -> int:
    """Put a rule set in force; its revision. Raises Stale where another came after revision `after`."""
    work.database.alone(work.connection, "rules")
    if after is not None and revision(work.connection) != after:
        raise Stale("other rules were put in force meanwhile")
    row = {"digest": digest, "source": source, "active_since": work.at, "reason": reason, "by": by}
    work.add(tables.ruleset, [row])
    work.trail.append(AuditEvent(by, "rules_activated", digest, note=note))
    return revision(work.connection)


def give_reason(work: Transaction, number: int, by: str, reason: str) -> bool:
    """Note who wanted a set that the relay had taken from the file by itself, and why; False: it bears a reason."""
    table = tables.ruleset
    unreasoned = table.c.seq == number, table.c.by == "relay", table.c.reason == "file"
    row = work.connection.execute(select(table.c.digest).where(*unreasoned)).one_or_none()
    if row is None:
        return False
    work.connection.execute(update(table).where(*unreasoned).values(by=by, reason=reason))
    work.trail.append(AuditEvent(by, "rules_wanted", row.digest))
    return True


def file(connection: Connection) -> RuleFile | None:
    """What became of the file on the disk, where it is not in force."""
    written = arrivals.cursor(connection, FILE)
    return None if not written else _file.validate_json(written)


def note_file(work: Transaction, mark: RuleFile | None) -> None:
    """Keep what became of the file; None: it is in force."""
    before = file(work.connection)
    if before == mark:
        return
    arrivals.set_cursor(work, FILE, "" if mark is None else _file.dump_json(mark).decode())
    if mark is not None and (before is None or (before.digest, before.state) != (mark.digest, mark.state)):
        work.trail.append(AuditEvent("relay", f"rules_{mark.state}", mark.digest))
    work.news = True


_file = rows.json_of(RuleFile)


# ------------------------------------------------------------------------------------------------------- decisions


def decisions(connection: Connection, since: datetime, after: int, limit: int) -> tuple[StoredDecision, ...]:
    """The last decision of each arrival, of those made since; in the order they were made, after number `after`."""
    decision, envelope, later = tables.decision, tables.envelope, tables.decision.alias()
    newer = select(later.c.seq).where(later.c.envelope == decision.c.envelope, later.c.seq > decision.c.seq)
    query = (
        select(decision, envelope.c.reference)
        .join(envelope, envelope.c.id == decision.c.envelope)
        .where(decision.c.seq > after, decision.c.at >= stamp(since), ~newer.exists())
        .order_by(decision.c.seq)
        .limit(limit)
    )
    return tuple(_decision(row) for row in connection.execute(query))


def observed(connection: Connection, names: Sequence[str], since: datetime) -> int:
    """How many arrivals were decided since while an observed rule of one of these names would have matched."""
    table = tables.decision
    spoken = (json.dumps(name, ensure_ascii=False) for name in names)
    named = or_(*(table.c.trace.contains(each, autoescape=True) for each in spoken))
    found: set[str] = set()
    query = select(table.c.envelope, table.c.trace).where(table.c.at >= stamp(since), named)
    for row in connection.execute(query):
        if not set(_trace.validate_json(row.trace).observed).isdisjoint(names):
            found.add(row.envelope)
    return len(found)


def first_since(connection: Connection, since: datetime, most: int) -> int:
    """The number before the first of the decisions made since, or of the latest `most` of them."""
    table = tables.decision
    query = select(table.c.seq).where(table.c.at >= stamp(since)).order_by(table.c.seq.desc())
    last = connection.execute(query.offset(most).limit(1)).scalar()
    if last is not None:
        return int(last)
    first = connection.execute(select(func.min(table.c.seq)).where(table.c.at >= stamp(since))).scalar()
    return int(first or 1) - 1


def decided(connection: Connection, name: str) -> StoredDecision:
    """The last decision about an arrival, by its id or a reference (its letter in force). Raises NotFound."""
    decision, envelope, thread = tables.decision, tables.envelope, tables.thread
    query = select(decision, envelope.c.reference).join(envelope, envelope.c.id == decision.c.envelope)
    query = query.order_by(decision.c.seq.desc()).limit(1)
    letter = connection.execute(select(thread.c.letter).where(thread.c.reference == name.upper())).scalar()
    row = connection.execute(query.where(decision.c.envelope == (letter or name))).one_or_none()
    if row is None:
        # What is held, or was never followed up, bears its reference alone: no index leads there.
        row = connection.execute(query.where(envelope.c.reference == name.upper())).one_or_none()
    if row is None:
        raise NotFound(f"no decision is kept about {name}")
    return _decision(row)


def _decision(row: Any) -> StoredDecision:
    trace = _trace.validate_json(row.trace)
    return StoredDecision(
        seq=row.seq,
        envelope=row.envelope,
        reference=row.reference,
        at=moment(row.at),
        ruleset=row.ruleset,
        rule=row.rule,
        action=row.action,
        why=row.why,
        followup=row.followup,
        facts=trace.facts,
        targets=trace.targets,
        undecided_at=trace.undecided_at,
        undecided=trace.undecided,
        copies=trace.copies,
        observed=trace.observed,
    )


@dataclass(frozen=True, slots=True)
class _Trace:
    """The JSON of a decision's row."""

    facts: Mapping[str, Any] = field(default_factory=dict)  # bools, numbers, texts, lists of texts
    targets: tuple[str, ...] = ()
    undecided_at: str | None = None
    undecided: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()


_trace = rows.json_of(_Trace)


# -------------------------------------------------------------------------------------------------------- counters

COUNTED = ("decided", "undecided", "copied", "observed", "passed")
"""What is counted for each rule: it decided, held for want of a fact, copied, would have matched, was passed over."""


def count(counts: Counter[str], decision: DecisionRecord) -> None:
    """Count what each rule had to do with a decision, as `rule.WHAT.ID`."""
    counts[f"rule.{'undecided' if decision.undecided_at else 'decided'}.{decision.rule}"] += 1
    for what, ids in (
        ("copied", decision.copies),
        ("observed", decision.observed),
        ("passed", decision.undecided),
    ):
        for name in ids:
            counts[f"rule.{what}.{name}"] += 1


def counted(connection: Connection) -> dict[str, dict[str, int]]:
    """Rule id → what is counted → how often, over all writers."""
    counter = tables.counter
    query = (
        select(counter.c.name, func.sum(counter.c.value))
        .where(counter.c.name.startswith("rule."))
        .group_by(counter.c.name)
        .order_by(counter.c.name)
    )
    found: dict[str, dict[str, int]] = {}
    for name, value in connection.execute(query):
        _, what, rule = name.split(".", 2)
        found.setdefault(rule, {})[what] = int(value)
    return found
