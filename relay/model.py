"""The nouns of the relay: what arrives, what it says, who it concerns, what is decided, what leaves.

Frozen dataclasses without behaviour beyond what derives from their own fields. Everything that is stored
or handed from one room to another is one of these. Times are aware datetimes in UTC unless a name says
otherwise; dates of people are `datetime.date` or, when only half known, None beside an `unknown` mark.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from enum import StrEnum
from typing import Literal

# --------------------------------------------------------------------------------------------------- reasons


class Why(StrEnum):
    """Every reason the relay ever gives, one closed list: audit rows, metrics, lists, YAML and tests."""

    # a notice was decided
    RULE = "rule"
    DEFAULT = "default"
    UNDECIDED = "undecided"
    FLOOR_IDENTITY = "floor_identity"
    FLOOR_GP = "floor_gp"
    FLOOR_CONSENT = "floor_consent"
    OBSERVE = "observe"
    NO_RULES = "no_rules"
    # held whatever the rules say
    UNLISTED_SENDER = "unlisted_sender"
    TWO_PATIENTS = "two_patients"
    STAY_OF_ANOTHER = "stay_of_another"
    NUMBER_OF_ANOTHER = "number_of_another"
    WITHDRAWAL_HELD = "withdrawal_held"
    OTHER_DISCHARGE = "other_discharge"
    BROKEN_PACKAGE = "broken_package"
    UNCLEAR = "unclear"
    ATTACHMENT_UNREAD = "attachment_unread"
    NO_ADDRESS = "no_address"
    OUTSIDE_DOMAIN = "outside_domain"
    TOO_LARGE = "too_large"
    TOKEN_MISMATCH = "token_mismatch"
    UNKNOWN_SENDER = "unknown_sender"
    FORWARDED_REPLY = "forwarded_reply"
    AUTHENTICATION_FAILED = "authentication_failed"
    GP_REFUSED = "gp_refused"
    NOT_OPENED = "not_opened"
    SIGNATURE_BROKEN = "signature_broken"
    SIGNATURE_WEAK = "signature_weak"
    SIGNATURE_UNTRUSTED = "signature_untrusted"
    SIGNATURE_EXPIRED = "signature_expired"
    SIGNATURE_REVOKED = "signature_revoked"
    SIGNATURE_OF_ANOTHER = "signature_of_another"
    SIGNATURE_UNCHECKED = "signature_unchecked"
    # ignored
    NOT_A_NOTICE = "not_a_notice"
    DUPLICATE = "duplicate"
    AUTOMATIC = "automatic"
    NO_SUCH_DELIVERY = "no_such_delivery"
    REJECTED = "rejected"
    OWN_MESSAGE = "own_message"
    CITIZEN = "citizen"
    # corrupt
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    # replies, receipts and presses
    REPLY = "reply"
    RECEIPT = "receipt"
    PRESS = "press"
    PRESS_USED = "press_used"
    PRESS_EXPIRED = "press_expired"
    PRESS_NOT_YOURS = "press_not_yours"
    PRESS_TAKEN = "press_taken"
    FREE_TEXT = "free_text"
    COMMAND = "command"
    # deliveries
    NO_CHANNEL = "no_channel"
    CONNECTION = "connection"
    TIMEOUT = "timeout"
    BUSY = "busy"
    RATE_LIMITED = "rate_limited"
    AUTHENTICATION = "authentication"
    CERTIFICATE = "certificate"
    UNKNOWN_MAILBOX = "unknown_mailbox"
    MAILBOX_FULL = "mailbox_full"
    REFUSED = "refused"
    MESSAGE_TOO_LARGE = "message_too_large"
    BLOCKED = "blocked"
    SERVER_ERROR = "server_error"
    PROTOCOL = "protocol"
    LOST_AFTER_SEND = "lost_after_send"
    LEASE_ENDED = "lease_ended"
    RESENT_AFTER_CRASH = "resent_after_crash"
    GAVE_UP = "gave_up"
    DSN_FAILED = "dsn_failed"
    DSN_DELAYED = "dsn_delayed"
    KO = "ko"
    PAUSED = "paused"
    RECALLED = "recalled"
    SUPERSEDED = "superseded"
    OBJECTION = "objection"
    ANSWERED = "answered"
    UNLINKED = "unlinked"
    # threads
    HANDLED = "handled"
    ACKNOWLEDGED = "acknowledged"
    SEEN_NO_ANSWER = "seen_no_answer"
    DELIVERED_NO_ANSWER = "delivered_no_answer"
    BY_PHONE = "by_phone"
    NOT_MY_PATIENT = "not_my_patient"
    REASSIGNED = "reassigned"
    LADDER_EXHAUSTED = "ladder_exhausted"
    BY_PERSON = "by_person"


# ------------------------------------------------------------------------------------------------------- ids


_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_BASE32_PAIRS = tuple(first + second for first in _BASE32 for second in _BASE32)


def base32(raw: bytes) -> str:
    """RFC 4648 §6 in lower case, without padding.

    `base64.b32encode` works in Python too, for any length and alphabet, and each letter asks forty times.
    """
    spare = -len(raw) * 8 % 10
    number = int.from_bytes(raw) << spare
    pairs = [_BASE32_PAIRS[number >> shift & 1023] for shift in range(len(raw) * 8 + spare - 10, -1, -10)]
    return "".join(pairs)[: -(-len(raw) * 8 // 5)]


def derived_id(*parts: str) -> str:
    """The same parts give the same id for ever: 24 lower-case base32 characters (120 bits of SHA-256)."""
    return base32(hashlib.sha256("\x1f".join(parts).encode()).digest()[:15])


def envelope_id(account: str, ref: str) -> str:
    """`account` names the place (host, user, folder, UIDVALIDITY or bot), never the adapter's name."""
    return derived_id("envelope", account, ref)


def lost_id(envelope: str) -> str:
    """The id of the hold of a letter that was decided and did not arrive; a hold before any decision bears another."""
    return derived_id("hold", envelope, "lost")


def delivery_id(document: str, to: str, purpose: str, ordinal: int) -> str:
    """One copy of one document for one recipient; deciding again gives the same id."""
    return derived_id("delivery", document, to, purpose, str(ordinal))


# -------------------------------------------------------------------------------------------------- arrivals


@dataclass(frozen=True, slots=True)
class Press:
    """A person pressed a button in chat. `sender` is the platform's own account id, never a display name."""

    channel: str  # "telegram", "matrix", "webchat"
    sender: str  # the presser's account id
    chat: str
    message: str  # the platform's id of the message that carried the button
    nonce: str
    callback: str  # what the platform wants answered


@dataclass(frozen=True, slots=True)
class Typed:
    """A person typed in chat. On a channel that is not confidential `text` is a command or None, never prose."""

    channel: str
    sender: str
    chat: str
    message: str
    text: str | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """One arrival, as the adapter took it: the whole of its bytes and where they came from."""

    id: str
    adapter: str
    account: str
    ref: str  # unique within the account: an IMAP UID, a Telegram update_id, a file name
    received_at: datetime
    raw: bytes
    event: Press | Typed | None = None  # set for chat; `raw` is then its JSON
    flaw: Why | None = None  # the adapter could not take all of it (TOO_LARGE, TRUNCATED)

    @property
    def sha256(self) -> str:
        """Of the raw bytes: the same Message-ID with other bytes is new mail."""
        return hashlib.sha256(self.raw).hexdigest()


@dataclass(frozen=True, slots=True)
class Batch:
    """Arrivals in order, and the cursor that says "all before here was yielded"."""

    account: str
    envelopes: tuple[Envelope, ...]
    cursor: str


# ------------------------------------------------------------------------------------------- what a letter says


@dataclass(frozen=True, slots=True)
class LocalId:
    """A number that belongs to one facility (IPP). `system` is an OID, or a FINESS for a text letter."""

    system: str
    value: str


@dataclass(frozen=True, slots=True)
class Patient:
    """The person as the document names them; every field may be absent.

    `name_kind` says what the document called the family name: "birth", "used", or "unstated" (then
    `birth_name` holds it and it is compared with both). `order_unsure`: all in capitals, so family and
    given names may stand in either order.
    """

    ins: str | None = None  # 13 or 15 characters, no spaces
    ins_oid: str | None = None  # None: an INS in text without OID, taken as NIR
    ins_key_valid: bool | None = None
    birth_name: str | None = None
    used_name: str | None = None
    given_names: tuple[str, ...] = ()
    sex: Literal["M", "F", "U"] | None = None
    birth_date: date | None = None
    birth_place: str | None = None  # INSEE COG, 5 characters
    local_ids: tuple[LocalId, ...] = ()
    postcode: str | None = None
    deceased: bool = False
    name_kind: Literal["birth", "used", "unstated"] = "unstated"
    order_unsure: bool = False


@dataclass(frozen=True, slots=True)
class Stay:
    """The hospital stay. Times keep the precision of the document: a date alone is midnight local, `*_exact` False."""

    admitted: datetime | None = None
    discharged: datetime | None = None
    discharged_exact: bool = False
    admitted_exact: bool = False
    number: str | None = None
    facility: str | None = None  # FINESS, 9 characters
    facility_name: str | None = None
    ward: str | None = None
    unit: str | None = None
    exit_mode: str | None = None
    entry_mode: str | None = None  # home emergency hospital nursing_home rehabilitation birth other


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody the document names: the registered GP, a recipient, the author."""

    name: str | None = None  # as written, given names then family name
    family_name: str | None = None
    given_name: str | None = None
    rpps: str | None = None  # 11 digits
    mss_address: str | None = None
    organisation: str | None = None
    phone: str | None = None
    copy: bool = False


@dataclass(frozen=True, slots=True)
class FollowUp:
    """Something to do after the discharge, as the letter says."""

    what: str
    when: date | None = None


@dataclass(frozen=True, slots=True)
class Problem:
    """Something a reader noticed. `code` is a slug; `text` is for people and may name the field, not its value."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What was understood of a letter, whatever the outcome. The shape behind `relay recognise --json`."""

    format: str | None = None  # cda hprim hl7v2 fhir pdf text
    package: str | None = None  # xdm mime
    event: str | None = None
    document: str | None = None
    code: str | None = None
    title: str | None = None
    document_id: str | None = None
    other_ids: tuple[str, ...] = ()  # further numbers it goes by: TXA-12, the registry's uniqueId
    set_id: str | None = None
    version: str | None = None
    replaces: str | None = None
    retracts: str | None = None
    status: str | None = None
    patient: Patient | None = None
    stay: Stay | None = None
    author: Person | None = None
    registered_gp: Person | None = None
    recipients: tuple[Person, ...] = ()
    follow_up: tuple[FollowUp, ...] = ()
    awaited_results: tuple[str, ...] = ()
    consent: str | None = None
    urgency: str | None = None
    unknown: tuple[str, ...] = ()  # fields that stand there and could not be read
    problems: tuple[Problem, ...] = ()
    referring_doctor: Person | None = None  # who sent the patient (R.1112-1-2 CSP), never the GP
    medications: tuple[str, ...] = ()  # at discharge, whole or not at all: for the secure view alone
    stopped_medications: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReceiptNews:
    """A machine's report about a message of ours: DSN, MDN, "KO Intégration", ZAM."""

    kind: Literal["dsn", "mdn", "ko", "zam"]
    status: Literal["delivered", "delayed", "failed", "read", "processed", "error"]
    code: str | None = None
    recipient: str | None = None
    original_message_id: str | None = None
    envid: str | None = None


class Outcome(StrEnum):
    """What an arrival is."""

    NOTICE = "notice"
    REPLY = "reply"
    RECEIPT = "receipt"
    AUTOMATIC = "automatic"
    UNCLEAR = "unclear"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Recognised:
    """The result of recognition. `notice` is filled whenever a document was read, whatever the outcome."""

    outcome: Outcome
    notice: Notice = field(default_factory=Notice)
    receipt: ReceiptNews | None = None
    why: Why | None = None  # why it is unclear, broken or not a notice


# ------------------------------------------------------------------------------------------ people we know


@dataclass(frozen=True, slots=True)
class Registration:
    """One patient of the registry (`patients.csv`)."""

    ins: str = ""
    ins_oid: str = ""
    facility: str = ""
    local_id: str = ""
    birth_name: str = ""
    used_name: str = ""
    given_names: tuple[str, ...] = ()
    birth_date: date | None = None
    sex: str = ""
    birth_place: str = ""
    gp_rpps: tuple[str, ...] = ()  # several = several registered GPs
    consent: str = ""  # allowed | opposed | ""
    postcode: str = ""
    patient_mss: str = ""
    pharmacist_mss: str = ""
    nurse_mss: str = ""
    had_mss: str = ""
    corrected: bool = False  # a person corrected it: an import shows it as differing, never overwrites it
    copies_opposed: bool = False  # objects to copies for others than the registered GP

    @property
    def key(self) -> str:
        """What makes it one row: the INS pair, else the facility's local id, else the traits."""
        if self.ins:
            return derived_id("ins", self.ins_oid, self.ins)
        if self.local_id:
            return derived_id("local", self.facility, self.local_id)
        born = self.birth_date.isoformat() if self.birth_date else ""
        return derived_id("traits", self.birth_name, " ".join(self.given_names), born, self.sex)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """One secure mailbox of a professional."""

    address: str
    kind: str = "PER"  # PER | CAB | ORG | APP
    organisation: str = ""
    finess: str = ""
    active: bool = True


@dataclass(frozen=True, slots=True)
class Professional:
    """One RPPS of the directory, with all its lines."""

    rpps: str
    family_name: str = ""
    given_name: str = ""
    profession: str = ""
    speciality: str = ""
    mailboxes: tuple[Mailbox, ...] = ()
    postcode: str = ""
    phone: str = ""
    cpts: str = ""
    active: bool = True  # when one of its lines is
    two_names: bool = False  # its lines name different people: nobody may be taken for either
    as_of: datetime | None = field(default=None, compare=False)  # when a source last said so


@dataclass(frozen=True, slots=True)
class Absence:
    """A professional is away, with dates (inclusive, local days) and perhaps a substitute."""

    rpps: str
    since: date
    until: date
    substitute: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """A chat account that belongs to a professional."""

    rpps: str
    adapter_kind: str  # telegram | matrix | webchat
    chat: str
    account: str  # the user's own id
    role: str = "médecin"  # médecin | secrétariat
    linked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """Patient and registered GP: certain, or the reason they are not. Values of docs/interface.md, People."""

    identity: Literal["qualified", "validated", "provisional", "doubtful", "test"]
    gp: Literal["found", "none", "many", "conflict", "left", "no_mailbox"]
    registration: Registration | None = None  # exactly one registered patient matches
    professional: Professional | None = None  # set when gp == "found"
    mailbox: str | None = None  # the address the letter goes to, in an allowed domain
    gp_source: Literal["notice", "registry", "both"] | None = None
    consent: Literal["allowed", "opposed", "masked"] = "allowed"
    department: str | None = None
    candidates: tuple[str, ...] = ()  # RPPS or INS that could be meant
    notes: tuple[str, ...] = ()  # slugs that say how it came about, in order


# ------------------------------------------------------------------------------------------------- decisions


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """What is kept of a decision: enough to rebuild its trace. Facts hold no content (docs/rules.md)."""

    ruleset: str  # digest
    rule: str
    action: Literal["send", "hold", "file"]
    why: Why
    facts: Mapping[str, object]  # JSON: unknown is the string "unknown"
    at: datetime
    targets: tuple[str, ...] = ()
    followup: str | None = None
    undecided_at: str | None = None
    undecided: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    observed: tuple[str, ...] = ()


# --------------------------------------------------------------------------------------------------- threads


class ThreadState(StrEnum):
    """Who carries the responsibility (docs/threads.md)."""

    AWAITING_ACK = "awaiting_ack"
    ACKNOWLEDGED = "acknowledged"
    AWAITING_WARD = "awaiting_ward"
    AWAITING_GP = "awaiting_gp"
    WITH_DESK = "with_desk"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class LadderStep:
    """One rung: after this much time on this clock, remind a target or hand over to a desk's target."""

    after: str  # a duration as the rules write it
    clock: str  # "real" or a name of `hours`
    remind: str | None = None
    hand_to: str | None = None


@dataclass(frozen=True, slots=True)
class Pinned:
    """The follow-up as it stood when the thread opened; later rule changes do not move it.

    `hours` keeps the definition of every clock it uses in the calendar's own JSON form, and `targets`
    what each target named by a step is: {"name": {"who", "via": [...], "carries", "quiet"}}.
    """

    name: str
    awaits: Literal["delivered", "seen", "ack"]
    ladder: tuple[LadderStep, ...]
    ack_within: str | None = None
    ack_clock: str = "real"
    ack_expires: str | None = None
    close_quiet_for: str = "2d"
    hours: Mapping[str, object] = field(default_factory=dict)
    targets: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    timezone: str = "Europe/Paris"
    ruleset: str = ""


@dataclass(frozen=True, slots=True)
class Participant:
    """Somebody with a place in the thread. `key` is "rpps:…", "ward:SLUG", "desk:NAME", "pharmacist"…"""

    key: str
    address: str  # secure mailbox
    name: str = ""  # shown to the other side: « Dr Ambre », « Cardiologie »
    revoked: bool = False
    copy: bool = False  # reads along: may ask the ward, answers for nothing


@dataclass(frozen=True, slots=True)
class Thread:
    """One stay, one thread. `version` grows with each write: the optimistic lock."""

    id: str
    reference: str  # XXXX-XXXX
    state: ThreadState
    opened_at: datetime
    ward: str  # slug
    facility: str  # FINESS
    stay: str  # the stay's key; "" when none could be made
    letter: str  # envelope of the letter in force
    gp: str = ""  # "rpps:…"
    urgency: str = "routine"
    owner: str | None = None  # participant key
    desk: str | None = None
    level: int = 0  # the next rung of the ladder
    revision: int = 0  # grows when the ladder starts anew; timers of older revisions are void
    started_at: datetime | None = None  # the sending of the letter
    counts_from: datetime | None = None  # the ladder's times do: the sending, a question, an answer, …
    deadline: datetime | None = None
    snoozed_until: datetime | None = None
    followup: Pinned | None = None
    closed_at: datetime | None = None
    closed_reason: str | None = None
    participants: tuple[Participant, ...] = ()
    version: int = 0
    about: str = ""  # the patient as the ward's own people read it; sealed at rest, for hospital mail only
    whose: Patient | None = None  # INS and strict traits; sealed at rest, to tell another patient's letter by
    acknowledged_by: str | None = None  # the words: « Dr Ambre », « par le secrétariat du Dr Ambre »
    acknowledged_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Timer:
    """A promise to wake up. (thread, kind, level, revision) is unique: a crash neither skips nor doubles."""

    thread: str
    kind: Literal["step", "close", "ack_expires", "wake", "evidence"]
    level: int
    revision: int
    due: datetime

    @property
    def id(self) -> str:
        """Derived from the idempotency key."""
        return derived_id("timer", self.thread, self.kind, str(self.level), str(self.revision))


class Verb(StrEnum):
    """What a person can do to a thread."""

    ACK = "ack"
    ASK = "ask"
    ANSWER = "answer"
    SNOOZE = "snooze"
    HAND_OVER = "hand_over"
    REFUSE = "refuse"
    RECALL = "recall"
    CLOSE = "close"
    REOPEN = "reopen"
    UNDO = "undo"
    CALL_ME = "call_me"  # RAPPEL, « Rappelez-moi »
    MORE = "more"  # opens a second row of buttons (coded choices, delays)


# ------------------------------------------------------------------------------------------------- deliveries


class Purpose(StrEnum):
    """Why a copy leaves."""

    LETTER = "letter"
    ALERT = "alert"
    REMINDER = "reminder"
    QUESTION = "question"
    ANSWER = "answer"
    WARD_NOTE = "ward_note"
    HOLD_NOTE = "hold_note"
    RECEIPT = "receipt"
    RECALL = "recall"
    ACCOUNT = "account"
    ADMIN = "admin"
    EDIT = "edit"  # changes a chat message shown before; never a message of its own


class DeliveryState(StrEnum):
    """Where one copy on one transport stands (docs/threads.md)."""

    QUEUED = "queued"
    SENDING = "sending"
    IN_FLIGHT = "in_flight"
    DEFERRED = "deferred"
    AMBIGUOUS = "ambiguous"
    SENT = "sent"
    ACCEPTED = "accepted"
    SEEN = "seen"
    FAILED = "failed"
    HELD = "held"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class MailRecipe:
    """How to write one mail, fixed at planning: the same recipe and original give the same bytes for ever.

    `headers` are complete and in order (Date and Message-ID included), values as Unicode text.
    `original` names the envelope whose documents are carried: "documents" copies every attachment as it
    stood and the original text below ours; "text" the text alone; None carries nothing.
    """

    sender: str  # envelope MAIL FROM
    headers: tuple[tuple[str, str], ...]
    text: str
    boundary: str
    original: str | None = None
    carries: Literal["documents", "text", "none"] = "none"


class ChatKind(StrEnum):
    """The fixed wordings a chat may ever show."""

    ALERT = "alert"
    REMINDER = "reminder"
    TAKEN = "taken"  # « prise en charge », buttons gone
    WITHDRAWN = "withdrawn"  # « retirée »
    ANSWERED = "answered"  # the ward answered: read your secure mailbox
    ANSWER_WAITS = "answer_waits"
    REFUSED = "refused"
    SNOOZED = "snoozed"
    ASKED = "asked"
    REDIRECT = "redirect"  # « Écrivez-nous par messagerie sécurisée »
    LIST = "list"
    HELP = "help"
    UNKNOWN = "unknown"  # an account nobody linked
    DONE = "done"


_CHAT_ACCOUNT = re.compile(r"telegram:-?[0-9]{1,19}(:[0-9]{1,19})?")


@dataclass(frozen=True, slots=True)
class ChatFields:
    """All that chat text can be made of. No field of this type can hold a person, a ward or a word of a letter."""

    kind: ChatKind
    reference: str = ""  # XXXX-XXXX, checked when built
    urgent: bool = False
    arrived: datetime | None = None
    count: int | None = None
    verb: Verb | None = None
    at: datetime | None = None
    references: tuple[tuple[str, datetime], ...] = ()
    language: str = "fr"
    timezone: str = "Europe/Paris"
    account: str = ""  # telegram:CHAT[:USER], their own, for somebody who is not linked yet

    def __post_init__(self) -> None:
        for text in (self.reference, *(ref for ref, _ in self.references)):
            if text and not is_reference(text):
                raise ValueError("a chat text can name a reference only")
        if self.account and not _CHAT_ACCOUNT.fullmatch(self.account):
            raise ValueError("a chat account is named by its numbers only")


@dataclass(frozen=True, slots=True)
class Button:
    """One button: its verb, and the nonce that stands for the whole of what it may do. `choice` is a coded one."""

    verb: Verb
    nonce: str
    choice: str = ""


@dataclass(frozen=True, slots=True)
class ChatRecipe:
    """How to write one chat message. `edits` names the delivery whose message is changed instead."""

    fields: ChatFields
    buttons: tuple[tuple[Button, ...], ...] = ()  # rows
    edits: str | None = None
    silent: bool = False
    link: str | None = None


@dataclass(frozen=True, slots=True)
class MailMessage:
    """What an SMTP adapter puts on the wire: one recipient, bytes with CRLF line ends."""

    sender: str
    recipient: str
    content: bytes
    envid: str  # RFC 3461 §4.4, our delivery id


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """What a chat adapter shows. Made by `relay.wording` alone, from ChatFields."""

    chat: str
    text: str
    buttons: tuple[tuple[tuple[str, str], ...], ...] = ()  # rows of (label, callback data); data ≤ 64 bytes
    link: tuple[str, str] | None = None  # (label, URL)
    edits: str | None = None  # the platform's id of the message to change
    silent: bool = False
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """One copy for one recipient on one transport. `message` is filled just before it goes on the wire."""

    id: str
    adapter: str
    to: str  # role key: "rpps:…", "ward:SLUG", "desk:NAME", "patient", "admin"…
    address: str  # mail address, or chat id
    purpose: Purpose
    recipe: MailRecipe | ChatRecipe
    created_at: datetime
    envelope: str | None = None
    thread: str | None = None
    reference: str | None = None
    message_id: str | None = None
    state: DeliveryState = DeliveryState.QUEUED
    why: Why | None = None
    attempts: int = 0
    not_before: datetime | None = None
    give_up_at: datetime | None = None
    remote: str | None = None  # the platform's id of what was sent
    message: MailMessage | ChatMessage | None = None

    @property
    def lane(self) -> str:
        """Copies of one lane leave one after the other, oldest first."""
        return derived_id("lane", self.thread or self.id, self.adapter, self.to)


@dataclass(frozen=True, slots=True)
class Receipt:
    """The other side took responsibility. `remote` is its own id of the message, if it gave one."""

    delivery: str
    remote: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """How one try ended, for `store.finish`. `state` is SENT, DEFERRED, AMBIGUOUS or FAILED; `reached` as in `Verdict`."""

    delivery: str
    state: DeliveryState
    at: datetime
    why: Why | None = None
    remote: str | None = None
    not_before: datetime | None = None
    reached: bool = False


# ---------------------------------------------------------------------------------------------------- plans


class EnvelopeState(StrEnum):
    """Where an arrival stands. received = the sum of these, always."""

    OPEN = "open"
    DECIDED = "decided"
    HELD = "held"
    IGNORED = "ignored"
    CORRUPT = "corrupt"


@dataclass(frozen=True, slots=True)
class Hold:
    """A person must look. `candidates` are RPPS or INS."""

    id: str
    envelope: str
    why: Why
    reason: str  # the rule's or the floor's words; no patient
    since: datetime
    rule: str | None = None
    desk: str | None = None
    candidates: tuple[str, ...] = ()
    thread: str | None = None
    detail: str = ""  # why patient or GP are not certain, in words; no person
    reference: str | None = field(
        default=None, compare=False
    )  # shown beside its envelope; read back in a Context

    @property
    def lost(self) -> bool:
        """Whether its letter was decided, left or tried to, and did not arrive."""
        return self.id == lost_id(self.envelope)


@dataclass(frozen=True, slots=True)
class ButtonGrant:
    """What a nonce stands for: who may press it, once, on which version of which thread, until when."""

    nonce: str
    thread: str
    person: str  # participant key "rpps:…"
    account: str  # the platform account that may press
    verb: Verb
    delivery: str
    expires: datetime
    choice: str = ""
    used_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that may have to be notified (a letter that reached the wrong person). 72 h: GDPR art. 33."""

    id: str
    kind: Literal["wrong_recipient", "recall", "disclosure"]
    opened: datetime
    due: datetime
    reference: str | None = None
    closed: datetime | None = None


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One line of the trail: who did what to which object, with a reason of the closed list. No content."""

    actor: str  # "relay", "rpps:…", "ward:…", "desk:…", "admin:NAME"
    act: str  # slug
    subject: str  # envelope, thread or delivery id, or a reference
    why: Why | None = None
    note: str = ""  # slugs and numbers only


@dataclass(frozen=True, slots=True)
class DeliveryNews:
    """A state that evidence gives to a copy already sent (or a hand that stops one)."""

    delivery: str
    state: DeliveryState
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything one decision writes, in one transaction, or nothing of it.

    `thread` is inserted when its version is 0, else updated where the stored version is one less
    (otherwise the store answers Stale for this plan and writes nothing of it). Deliveries, timers and
    grants whose ids exist already are left as they are: deciding again writes the same rows.

    A `hold` of another envelope than the plan's makes that one held, where it was decided; ending one makes it
    decided again.
    """

    at: datetime
    envelope: str | None = None
    state: EnvelopeState | None = None
    why: Why | None = None
    kind: str | None = None  # Outcome value
    message_id: str | None = None
    fingerprint: str | None = None  # of the mail without its trace headers
    document_keys: tuple[str, ...] = ()  # what makes a later arrival the same document
    stay_keys: tuple[str, ...] = ()  # further names of the thread's stay; later arrivals join it by any
    reference: str | None = None  # shown beside the envelope
    patient: str | None = None  # INS, kept as a blind index: an objection finds the patient's threads by it
    decision: DecisionRecord | None = None
    thread: Thread | None = None
    deliveries: tuple[Delivery, ...] = ()
    news: tuple[DeliveryNews, ...] = ()
    cancel_queued: tuple[tuple[str, Why], ...] = ()  # (thread, why): every copy of it not yet on the wire
    cancel_purposes: tuple[Purpose, ...] = ()  # narrows cancel_queued; empty = all
    timers: tuple[Timer, ...] = ()
    drop_timers: tuple[str, ...] = ()  # threads whose timers of other revisions or all go
    done_timers: tuple[str, ...] = ()  # timer ids this plan answers
    hold: Hold | None = None
    end_hold: tuple[str, ...] = ()  # hold ids; refused with Stale when one is settled already
    grants: tuple[ButtonGrant, ...] = ()
    used_grant: str | None = None  # refused with Stale when it is used already
    void_grants_of: tuple[str, ...] = ()  # threads whose unused buttons end now
    incident: Incident | None = None
    audit: tuple[AuditEvent, ...] = ()
    wake: frozenset[str] = frozenset()


# ------------------------------------------------------------------------------------- asking the store


@dataclass(frozen=True, slots=True)
class ThreadView:
    """A thread with the copies it sent (their recipes left out) and its waiting timers."""

    thread: Thread
    deliveries: tuple[Delivery, ...] = ()
    timers: tuple[Timer, ...] = ()
    links: tuple[Link, ...] = ()  # the chat accounts of its participants
    absences: tuple[Absence, ...] = ()  # of its participants, running or to come
    readers: frozenset[str] = frozenset()  # addresses of its copies from which a read receipt ever came
    confirmers: frozenset[str] = frozenset()  # addresses of its copies from which a DSN ever came
    holds: tuple[Hold, ...] = ()  # of its letters that did not arrive, once somebody was told


@dataclass(frozen=True, slots=True)
class Ask:
    """What deciding one arrival needs to know; many are answered in one read."""

    fingerprint: str | None = None
    document_keys: tuple[str, ...] = ()
    known_by: tuple[str, ...] = ()  # those of them that are the document's own
    stays: tuple[str, ...] = ()  # every key under which the same stay may be known
    message_ids: tuple[str, ...] = ()  # from In-Reply-To, References or a receipt
    deliveries: tuple[str, ...] = ()
    threads: tuple[str, ...] = ()  # ids that signed tokens named
    references: tuple[str, ...] = ()  # visible « Réf. »
    nonce: str | None = None
    account: tuple[str, str] | None = None  # (chat kind, account id)
    people: tuple[str, ...] = ()  # RPPS whose links and absences are wanted
    addresses: tuple[str, ...] = ()  # mailboxes: which professionals own them
    patient: str | None = None  # INS: whose threads are somebody else's


@dataclass(frozen=True, slots=True)
class Context:
    """The answer to one Ask. `threads` holds every thread that any part of it named, each once."""

    duplicate_of: str | None = None  # envelope with the same fingerprint, not itself ignored as a duplicate
    documents: Mapping[str, str] = field(default_factory=dict)  # document key → envelope
    letters: Mapping[str, str] = field(
        default_factory=dict
    )  # such an envelope → thread in which its letter leaves
    followed: Mapping[str, str] = field(default_factory=dict)  # an envelope of `known_by` → its thread
    threads: tuple[ThreadView, ...] = ()
    stays: Mapping[str, str] = field(default_factory=dict)  # stay key → thread id
    deliveries: tuple[Delivery, ...] = ()  # found by message id or id; recipes left out
    holds: tuple[Hold, ...] = ()  # the holds those deliveries spoke of
    kept: tuple[Hold, ...] = ()  # those of `documents` whose letter waits for a person, with their references
    grant: ButtonGrant | None = None
    links: tuple[Link, ...] = ()
    absences: tuple[Absence, ...] = ()
    owners: Mapping[str, str] = field(default_factory=dict)  # mailbox address → RPPS
    strangers: frozenset[str] = frozenset()  # threads that are known to be about another patient than asked


CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def is_reference(text: str) -> bool:
    """XXXX-XXXX in Crockford base32."""
    return (
        len(text) == 9 and text[4] == "-" and all(character in CROCKFORD for character in text[:4] + text[5:])
    )
