"""In charge of the shape of the rows: one SQLModel class per kind; queries live in `relay.store` alone.

Times are whole microseconds since 1970 (UTC), so they compare and index alike on both databases. Columns named
`sealed` hold bytes of the vault. `seq` numbers rows in the order they were committed. Partial indexes serve the
few live rows, so that a decision costs the same after ten million letters.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, MetaData, Table, Text, text
from sqlalchemy.dialects import postgresql
from sqlmodel import Field, SQLModel

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(column_0_N_label)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

OPEN_THREAD = "state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
DUE = "state IN ('queued', 'deferred', 'ambiguous')"
UNFINISHED = "state IN ('queued', 'deferred', 'sending', 'in_flight', 'ambiguous', 'held')"
UNFINISHED_OF = f"delivery.{UNFINISHED}"
"""Conditions of partial indexes. A query must say them in these words, or SQLite does not use the index."""


class Row(SQLModel):
    """What all tables share: one collection, with names for every constraint."""

    metadata = metadata


def _seq() -> Column[int]:
    # SQLite counts by itself only on exactly INTEGER PRIMARY KEY.
    return Column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


def _when(name: str, *columns: str, where: str, unique: bool = False) -> Index:
    return Index(name, *columns, unique=unique, sqlite_where=text(where), postgresql_where=text(where))


_BIG = BigInteger
_BYTES = LargeBinary
_BYTEWISE = Text().with_variant(postgresql.TEXT(collation="C"), "postgresql")  # ranges of it are prefixes


# --------------------------------------------------------------------------------------------------- arrivals


class CursorRow(Row, table=True):
    """How far each account was read."""

    __tablename__ = "cursor"

    account: str = Field(primary_key=True, sa_type=Text)
    position: str = Field(sa_type=Text)
    at: int = Field(sa_type=_BIG)


class EnvelopeRow(Row, table=True):
    """One arrival and where it stands. Its bytes are in `content`."""

    __tablename__ = "envelope"
    __table_args__ = (
        Index("uq_envelope_account_ref", "account", "ref", unique=True),
        _when("ix_envelope_open", "seq", where="state = 'open'"),
        _when("ix_envelope_held", "seq", where="state = 'held'"),
        _when("ix_envelope_fingerprint", "fingerprint", where="fingerprint IS NOT NULL"),
        Index("ix_envelope_received", "received_at"),
        _when(
            "ix_envelope_unaccounted",
            "seq",
            where="(state = 'ignored' AND why IS NULL) OR (state = 'decided' AND rule IS NULL"
            " AND thread IS NULL AND reference IS NULL AND kind IN ('notice', 'reply'))",
        ),
    )

    seq: int = Field(sa_column=_seq())
    id: str = Field(sa_type=Text, unique=True)
    adapter: str = Field(sa_type=Text)
    account: str = Field(sa_type=Text)
    ref: str = Field(sa_type=Text)
    received_at: int = Field(sa_type=_BIG)
    accepted_at: int = Field(sa_type=_BIG)
    sha256: str = Field(sa_type=Text)
    size: int
    flaw: str | None = Field(default=None, sa_type=Text)
    state: str = Field(sa_type=Text)
    why: str | None = Field(default=None, sa_type=Text)
    kind: str | None = Field(default=None, sa_type=Text)
    message_id: str | None = Field(default=None, sa_type=Text)
    fingerprint: str | None = Field(default=None, sa_type=Text)
    reference: str | None = Field(default=None, sa_type=Text)
    rule: str | None = Field(default=None, sa_type=Text)
    thread: str | None = Field(default=None, sa_type=Text)
    decided_at: int | None = Field(default=None, sa_type=_BIG)


class ContentRow(Row, table=True):
    """The whole bytes of an envelope, sealed under the key of `day`, and its chat event if it is one."""

    __tablename__ = "content"

    envelope: str = Field(primary_key=True, sa_type=Text, foreign_key="envelope.id")
    day: str = Field(sa_type=Text, index=True)
    sealed: bytes = Field(sa_type=_BYTES)
    event: bytes | None = Field(default=None, sa_type=_BYTES)


class DocumentKeyRow(Row, table=True):
    """What makes a later arrival the same document."""

    __tablename__ = "document_key"

    key: str = Field(primary_key=True, sa_type=Text)
    envelope: str = Field(sa_type=Text, foreign_key="envelope.id", index=True)


# --------------------------------------------------------------------------------------------------- decisions


class DecisionRow(Row, table=True):
    """What was decided and from which facts; a later decision about the same envelope adds a row."""

    __tablename__ = "decision"

    seq: int = Field(sa_column=_seq())
    envelope: str = Field(sa_type=Text, foreign_key="envelope.id", index=True)
    at: int = Field(sa_type=_BIG, index=True)
    ruleset: str = Field(sa_type=Text)
    rule: str = Field(sa_type=Text)
    action: str = Field(sa_type=Text)
    why: str = Field(sa_type=Text)
    followup: str | None = Field(default=None, sa_type=Text)
    trace: str = Field(sa_type=Text)  # JSON: facts, targets, undecided…


class HoldRow(Row, table=True):
    """A person must look."""

    __tablename__ = "hold"
    __table_args__ = (_when("ix_hold_open", "since", where="ended_at IS NULL"),)

    id: str = Field(primary_key=True, sa_type=Text)
    envelope: str = Field(sa_type=Text, foreign_key="envelope.id", index=True)
    why: str = Field(sa_type=Text)
    reason: str = Field(sa_type=Text)
    detail: str = Field(default="", sa_type=Text)
    since: int = Field(sa_type=_BIG)
    rule: str | None = Field(default=None, sa_type=Text)
    desk: str | None = Field(default=None, sa_type=Text)
    thread: str | None = Field(default=None, sa_type=Text)
    sealed: bytes | None = Field(default=None, sa_type=_BYTES)  # candidates: an INS is a patient
    ended_at: int | None = Field(default=None, sa_type=_BIG)


class IncidentRow(Row, table=True):
    """Something that may have to be notified."""

    __tablename__ = "incident"

    id: str = Field(primary_key=True, sa_type=Text)
    kind: str = Field(sa_type=Text)
    opened: int = Field(sa_type=_BIG, index=True)
    due: int = Field(sa_type=_BIG)
    reference: str | None = Field(default=None, sa_type=Text)
    closed: int | None = Field(default=None, sa_type=_BIG)


# ----------------------------------------------------------------------------------------------------- threads


class ThreadRow(Row, table=True):
    """One stay, one thread. `sealed` holds the participants with their addresses."""

    __tablename__ = "thread"
    __table_args__ = (
        _when("ix_thread_open", "id", where=OPEN_THREAD),
        _when("ix_thread_alone", "id", where=f"desk IS NULL AND {OPEN_THREAD}"),
        _when("ix_thread_desk", "id", where=f"desk IS NOT NULL AND {OPEN_THREAD}"),
        _when("ix_thread_stay", "facility", "stay", where=f"stay <> '' AND {OPEN_THREAD}"),
        _when("ix_thread_gp", "gp", where=f"gp <> '' AND {OPEN_THREAD}"),
        _when("ix_thread_patient", "patient", where="patient IS NOT NULL"),
        Index("ix_thread_opened", "opened_at"),
        Index("ix_thread_ward", "ward", "facility"),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    reference: str = Field(sa_type=Text, unique=True)
    state: str = Field(sa_type=Text)
    opened_at: int = Field(sa_type=_BIG)
    ward: str = Field(sa_type=Text)
    facility: str = Field(sa_type=Text)
    stay: str = Field(sa_type=Text)
    letter: str = Field(sa_type=Text, index=True)
    gp: str = Field(sa_type=Text)
    urgency: str = Field(sa_type=Text)
    owner: str | None = Field(default=None, sa_type=Text)
    desk: str | None = Field(default=None, sa_type=Text)
    level: int
    revision: int
    started_at: int | None = Field(default=None, sa_type=_BIG)
    counts_from: int | None = Field(default=None, sa_type=_BIG)
    deadline: int | None = Field(default=None, sa_type=_BIG)
    snoozed_until: int | None = Field(default=None, sa_type=_BIG)
    followup: str | None = Field(default=None, sa_type=Text)  # JSON of Pinned
    closed_at: int | None = Field(default=None, sa_type=_BIG)
    closed_reason: str | None = Field(default=None, sa_type=Text)
    acknowledged_by: str | None = Field(default=None, sa_type=Text)
    acknowledged_at: int | None = Field(default=None, sa_type=_BIG)
    version: int
    patient: str | None = Field(default=None, sa_type=Text)  # blind index of the INS
    sealed: bytes = Field(sa_type=_BYTES)


class StayKeyRow(Row, table=True):
    """Every name under which a thread's stay is known."""

    __tablename__ = "stay_key"

    key: str = Field(primary_key=True, sa_type=Text)
    thread: str = Field(sa_type=Text, foreign_key="thread.id", index=True)


class TimerRow(Row, table=True):
    """A promise to wake up. Fired ones stay, so that deciding again cannot fire them twice."""

    __tablename__ = "timer"
    __table_args__ = (
        _when("ix_timer_due", "due", where="done_at IS NULL"),
        _when("ix_timer_waiting", "thread", where="done_at IS NULL"),
        Index("ix_timer_thread", "thread"),
    )

    id: str = Field(primary_key=True, sa_type=Text)
    thread: str = Field(sa_type=Text, foreign_key="thread.id")
    kind: str = Field(sa_type=Text)
    level: int
    revision: int
    due: int = Field(sa_type=_BIG)
    done_at: int | None = Field(default=None, sa_type=_BIG)


class GrantRow(Row, table=True):
    """What a button's nonce stands for."""

    __tablename__ = "button_grant"  # `grant` is a word of SQL
    __table_args__ = (
        _when("ix_button_grant_unused", "thread", where="used_at IS NULL"),
        _when("ix_button_grant_used", "used_at", where="used_at IS NOT NULL"),
        Index("ix_button_grant_expires", "expires"),
    )

    nonce: str = Field(primary_key=True, sa_type=Text)
    thread: str = Field(sa_type=Text)
    person: str = Field(sa_type=Text)
    account: str = Field(sa_type=Text)
    verb: str = Field(sa_type=Text)
    delivery: str = Field(sa_type=Text)
    choice: str = Field(sa_type=Text)
    expires: int = Field(sa_type=_BIG)
    used_at: int | None = Field(default=None, sa_type=_BIG)


# -------------------------------------------------------------------------------------------------- deliveries


class DeliveryRow(Row, table=True):
    """One copy for one recipient on one transport. `sealed` holds the address and the recipe."""

    __tablename__ = "delivery"
    __table_args__ = (
        _when("ix_delivery_due", "adapter", "due", "seq", where=DUE),
        _when("ix_delivery_unfinished", "seq", where=UNFINISHED),
        _when("ix_delivery_lane", "lane", "seq", where=UNFINISHED),
        _when("ix_delivery_claimed", "lease_until", where="state IN ('sending', 'in_flight')"),
        _when("ix_delivery_thread", "thread", "seq", where="thread IS NOT NULL"),
        _when("ix_delivery_envelope", "envelope", where="envelope IS NOT NULL"),
        _when("ix_delivery_message_id", "message_id", where="message_id IS NOT NULL"),
        _when(
            "ix_delivery_astray",
            "seq",
            where="purpose = 'letter' AND thread IS NULL AND NOT unfollowed AND sent_at IS NOT NULL",
        ),
        Index("ix_delivery_created", "created_at"),
    )

    seq: int = Field(sa_column=_seq())
    id: str = Field(sa_type=Text, unique=True)
    lane: str = Field(sa_type=Text)
    adapter: str = Field(sa_type=Text)
    to: str = Field(sa_type=Text)
    purpose: str = Field(sa_type=Text)
    medium: str = Field(sa_type=Text)  # mail | chat
    envelope: str | None = Field(default=None, sa_type=Text)
    thread: str | None = Field(default=None, sa_type=Text)
    reference: str | None = Field(default=None, sa_type=Text)
    message_id: str | None = Field(default=None, sa_type=Text)
    box: str | None = Field(default=None, sa_type=Text)  # blind index of the mailbox
    edits: str | None = Field(default=None, sa_type=Text)
    unfollowed: bool = False  # its decision says `followup: none`
    state: str = Field(sa_type=Text)
    why: str | None = Field(default=None, sa_type=Text)
    attempts: int = 0
    created_at: int = Field(sa_type=_BIG)
    due: int | None = Field(default=None, sa_type=_BIG)  # None: only a person or evidence moves it
    give_up_at: int | None = Field(default=None, sa_type=_BIG)
    sent_at: int | None = Field(default=None, sa_type=_BIG)
    remote: str | None = Field(default=None, sa_type=Text)
    resent: bool = False  # sent again after a crash: never a third time by itself
    was: str | None = Field(default=None, sa_type=Text)  # its state before it was claimed
    node: str | None = Field(default=None, sa_type=Text)  # who claimed it, in which of its lives
    life: int | None = Field(default=None)
    lease_until: int | None = Field(default=None, sa_type=_BIG)
    sealed: bytes | None = Field(default=None, sa_type=_BYTES)


class AttemptRow(Row, table=True):
    """How each try ended; rows are only ever added."""

    __tablename__ = "attempt"

    seq: int = Field(sa_column=_seq())
    delivery: str = Field(sa_type=Text, foreign_key="delivery.id", index=True)
    at: int = Field(sa_type=_BIG, index=True)
    state: str = Field(sa_type=Text)
    why: str | None = Field(default=None, sa_type=Text)
    remote: str | None = Field(default=None, sa_type=Text)
    node: str = Field(sa_type=Text)


class HabitRow(Row, table=True):
    """What machines answer from a mailbox: `read` receipts, `dsn`; whose silence then means something."""

    __tablename__ = "habit"

    box: str = Field(primary_key=True, sa_type=Text)  # blind index
    kind: str = Field(primary_key=True, sa_type=Text)


# ------------------------------------------------------------------------------------------------------ people


class RegistrationRow(Row, table=True):
    """One patient of the registry, sealed under a long-lived key; found through blind indexes only."""

    __tablename__ = "registration"

    id: str = Field(primary_key=True, sa_type=Text)
    digest: str = Field(sa_type=Text)  # blind: tells whether an import changes the row
    corrected: bool = False
    differing: bool = False  # the last import says otherwise than the person who corrected it
    load: int = Field(sa_type=_BIG, index=True)  # the import that named it last
    ended_at: int | None = Field(default=None, sa_type=_BIG)
    sealed: bytes = Field(sa_type=_BYTES)


class RegistrationKeyRow(Row, table=True):
    """A blind index of something a patient can be found by."""

    __tablename__ = "registration_key"

    key: str = Field(primary_key=True, sa_type=Text)
    registration: str = Field(
        primary_key=True, sa_type=Text, foreign_key="registration.id", index=True, ondelete="CASCADE"
    )


class ProfessionalRow(Row, table=True):
    """One RPPS of the public directory."""

    __tablename__ = "professional"

    rpps: str = Field(primary_key=True, sa_type=Text)
    folded: str = Field(sa_type=_BYTEWISE, index=True)  # the family name as it is compared
    family_name: str = Field(sa_type=Text)
    given_name: str = Field(sa_type=Text)
    profession: str = Field(sa_type=Text)
    speciality: str = Field(sa_type=Text)
    postcode: str = Field(sa_type=Text)
    phone: str = Field(sa_type=Text)
    cpts: str = Field(sa_type=Text)
    active: bool
    pending: bool = False  # what the import that runs has seen of `active`
    site_left: bool = False  # the site's own file says that they left: no official source undoes that
    two_names: bool = False  # the lines of its last import name different people
    since: int = Field(default=0, sa_type=_BIG)  # the import or answer that named it first, by its time
    load: int = Field(sa_type=_BIG)  # and the last


class MailboxRow(Row, table=True):
    """One secure mailbox of a professional; an organisation's may belong to many."""

    __tablename__ = "mailbox"

    rpps: str = Field(primary_key=True, sa_type=Text, foreign_key="professional.rpps", ondelete="CASCADE")
    address: str = Field(primary_key=True, sa_type=Text, index=True)  # lower case
    place: int  # order of the import
    kind: str = Field(sa_type=Text)
    organisation: str = Field(sa_type=Text)
    finess: str = Field(sa_type=Text)
    active: bool
    source: str = Field(default="", sa_type=Text)  # site (its own CSV) | official | "" of older releases
    load: int = Field(sa_type=_BIG)


class DirectorySourceRow(Row, table=True):
    """When each source of the directory was last read well, and how many lines it gave then."""

    __tablename__ = "directory_source"

    name: str = Field(primary_key=True, sa_type=Text)  # "site", "extraction", or an adapter's name
    at: int = Field(sa_type=_BIG)
    entries: int = Field(sa_type=_BIG)


class LinkRow(Row, table=True):
    """A chat account that belongs, or belonged, to a professional."""

    __tablename__ = "link"
    __table_args__ = (Index("ix_link_account", "account"),)

    rpps: str = Field(primary_key=True, sa_type=Text)
    adapter_kind: str = Field(primary_key=True, sa_type=Text)
    account: str = Field(primary_key=True, sa_type=Text)
    chat: str = Field(sa_type=Text)
    role: str = Field(sa_type=Text)
    linked_at: int = Field(sa_type=_BIG)
    unlinked_at: int | None = Field(default=None, sa_type=_BIG)


class AbsenceRow(Row, table=True):
    """A professional is away. Days as ISO text."""

    __tablename__ = "absence"

    rpps: str = Field(primary_key=True, sa_type=Text)
    since: str = Field(primary_key=True, sa_type=Text)
    until: str = Field(sa_type=Text)
    substitute: str | None = Field(default=None, sa_type=Text)


# -------------------------------------------------------------------------------------------------- the relay


class AuditRow(Row, table=True):
    """One line of a writer's trail; `hash` covers the line and the hash before it."""

    __tablename__ = "audit"

    writer: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(primary_key=True, sa_type=_BIG)
    at: int = Field(sa_type=_BIG, index=True)
    actor: str = Field(sa_type=Text)
    act: str = Field(sa_type=Text)
    subject: str = Field(sa_type=Text, index=True)
    why: str | None = Field(default=None, sa_type=Text)
    note: str = Field(sa_type=Text)
    hash: bytes = Field(sa_type=_BYTES)


class AuditHeadRow(Row, table=True):
    """Where each writer's chain ends, sealed at every write: cutting its tail off shows."""

    __tablename__ = "audit_head"

    writer: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(sa_type=_BIG)
    hash: bytes = Field(sa_type=_BYTES)
    seal: bytes = Field(sa_type=_BYTES)
    checkpoint_at: int = Field(sa_type=_BIG)


class AuditCheckpointRow(Row, table=True):
    """A sealed place of a chain, one an hour: where a purge may cut."""

    __tablename__ = "audit_checkpoint"

    writer: str = Field(primary_key=True, sa_type=Text)
    number: int = Field(primary_key=True, sa_type=_BIG)
    at: int = Field(sa_type=_BIG)
    hash: bytes = Field(sa_type=_BYTES)
    seal: bytes = Field(sa_type=_BYTES)
    cut: bytes | None = Field(
        default=None, sa_type=_BYTES
    )  # proof that a purge of ours begins the chain here


class CounterRow(Row, table=True):
    """A count kept in the transaction that changes it; the sum over writers is the figure."""

    __tablename__ = "counter"

    writer: str = Field(primary_key=True, sa_type=Text)
    name: str = Field(primary_key=True, sa_type=Text)
    value: int = Field(sa_type=_BIG)


class AdapterStateRow(Row, table=True):
    """What each adapter last said of itself."""

    __tablename__ = "adapter_state"

    name: str = Field(primary_key=True, sa_type=Text)
    state: str = Field(sa_type=Text)
    since: int = Field(sa_type=_BIG)
    detail: str = Field(sa_type=Text)


class PauseRow(Row, table=True):
    """An adapter that must send nothing; the empty name stands for all."""

    __tablename__ = "pause"

    adapter: str = Field(primary_key=True, sa_type=Text)
    since: int = Field(sa_type=_BIG)
    by: str = Field(sa_type=Text)


class RulesetRow(Row, table=True):
    """Every rule set that was in force; the last row is."""

    __tablename__ = "ruleset"

    seq: int = Field(sa_column=_seq())
    digest: str = Field(sa_type=Text)
    source: str = Field(sa_type=Text)
    active_since: int = Field(sa_type=_BIG)
    reason: str = Field(sa_type=Text)
    by: str = Field(sa_type=Text)


def _table(model: type[Row]) -> Table:
    table: Table = metadata.tables[str(model.__tablename__)]
    return table


cursor = _table(CursorRow)
envelope = _table(EnvelopeRow)
content = _table(ContentRow)
document_key = _table(DocumentKeyRow)
decision = _table(DecisionRow)
hold = _table(HoldRow)
incident = _table(IncidentRow)
thread = _table(ThreadRow)
stay_key = _table(StayKeyRow)
timer = _table(TimerRow)
grant = _table(GrantRow)
habit = _table(HabitRow)
delivery = _table(DeliveryRow)
attempt = _table(AttemptRow)
registration = _table(RegistrationRow)
registration_key = _table(RegistrationKeyRow)
professional = _table(ProfessionalRow)
mailbox = _table(MailboxRow)
directory_source = _table(DirectorySourceRow)
link = _table(LinkRow)
absence = _table(AbsenceRow)
audit = _table(AuditRow)
audit_head = _table(AuditHeadRow)
audit_checkpoint = _table(AuditCheckpointRow)
counter = _table(CounterRow)
adapter_state = _table(AdapterStateRow)
pause = _table(PauseRow)
ruleset = _table(RulesetRow)
