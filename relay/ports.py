"""What the relay asks of the world. Adapters fulfil these; nothing here knows a transport.

A module of `adapters/` is named like its `kind` and holds: `Settings` (a pydantic model that forbids
unknown keys), `connect(name, settings, tools) -> Adapter`, one class, and one `_translate()` that maps its
library's errors to the three verdicts of `relay.errors`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

if TYPE_CHECKING:
    from relay.errors import Verdict
    from relay.model import Batch, ChatMessage, Delivery, Envelope, Press, Professional, Receipt, Why


class Clock(Protocol):
    """The only source of time and of waiting; tests turn it by hand."""

    def now(self) -> datetime:
        """Aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never step back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds` of this clock."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a sender can carry; read by planning before anything is queued.

    `confidential`: clinical text may pass. `deduplicates`: the same delivery id sent twice shows once.
    """

    max_bytes: int = 10_485_760
    threads: bool = False
    buttons: bool = False
    confidential: bool = False
    deduplicates: bool = False
    edits: bool = False
    deletes: bool = False
    parallel: int = 1  # how many sends it can use at a time


@dataclass(frozen=True, slots=True)
class Tools:
    """What the daemon lends an adapter when it connects it."""

    clock: Clock
    state: Path  # the relay's state folder
    language: str = "fr"
    timezone: str = "Europe/Paris"
    mount: Callable[[str, object], None] | None = None  # (name, ASGI app) → served under /channel/NAME
    max_bytes: int = 50 * 2**20  # an arrival larger than this is held, its head kept
    remembered: timedelta | None = None  # for so long what arrived is known again; None: for ever


@runtime_checkable
class Adapter(Protocol):
    """One connection to one outside party, opened by `connect` without touching the network."""

    name: str
    kind: str

    async def probe(self) -> None:
        """Connect and authenticate, send nothing. For `relay check --online` and the first try of the daemon.

        Raises Deferred or Rejected with the reason."""

    async def close(self) -> None:
        """Let go of every socket. Called once; what was being sent counts as not finished."""


@runtime_checkable
class Inbox(Adapter, Protocol):
    """Where envelopes come from."""

    account: str  # host, user and folder, or bot: what the cursor and the envelope ids belong to

    def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Yield arrivals after the cursor `since`, oldest first, for ever, a batch at a time (≤ 200 envelopes or 8 MB).

        `since` None is the very first start: the adapter's own `since` setting decides. The next batch may
        be fetched while the last is stored. What was not acknowledged comes again after a restart.
        Duplicates are allowed, gaps are not. Raises Deferred when the connection breaks; never ends otherwise.
        """

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Told after our commit: only now flag, move, or confirm an offset.

        Called at any time after the batch was yielded, also while the next is being fetched. Raises
        Deferred; then the same envelopes are acknowledged again after the next connection, or come again.
        """


@runtime_checkable
class Listener(Inbox, Protocol):
    """An inbox that others connect to."""

    async def listen(self) -> None:
        """Take connections from here on; `watch` yields what they bring. Raises Deferred.

        The daemon says that it is ready after this, so that nobody who heard it finds the door shut.
        """


@runtime_checkable
class Sender(Adapter, Protocol):
    """Where copies leave."""

    limits: Limits

    async def send(self, delivery: Delivery) -> Receipt:
        """Hand one message over (`delivery.message` is set); return once the other side took responsibility.

        `delivery.id` is the same over all retries; it goes on the wire (ENVID, txnId). Raises Deferred,
        Rejected or Uncertain. Error text holds no content and no server's answer.
        """

    async def send_many(self, deliveries: Sequence[Delivery]) -> Sequence[Receipt | Verdict]:
        """The same, many at a time where the wire can; answers in the order of `deliveries`; never raises a verdict."""


@runtime_checkable
class Channel(Inbox, Sender, Protocol):
    """Inbox and Sender on one connection: a chat platform."""

    async def answer(self, press: Press, text: str, *, alert: bool = False) -> None:
        """Close the platform's waiting mark on a button press with a short text. Best effort, never raises."""

    async def reply(self, message: ChatMessage) -> None:
        """Show something at once that need not survive a crash (a list, a help text). Best effort, never raises."""


@runtime_checkable
class Directory(Adapter, Protocol):
    """Who is a professional, and where their secure mailboxes are. Its answers enter the store's own copy."""

    max_age: timedelta  # a copy older than this is asked for again before a letter goes by it

    async def find(self, rpps: Sequence[str], names: Sequence[str]) -> Sequence[Professional]:
        """Every professional with one of these RPPS or bearing one of these family names; never picks.

        Who has left comes back inactive, perhaps without name; who is not known does not come back. Raises
        Deferred or Rejected, and then answers nothing: half an answer could hide a namesake.
        """


@dataclass(frozen=True, slots=True)
class Opened:
    """Mail with its S/MIME layers undone.

    `signed`: None where no signature stands, or none that a configured authority could vouch for. `why`:
    the reason for which a person must look at it. `layers`: what was undone, outermost first, "encrypted"
    or "signed".
    """

    raw: bytes
    signed: bool | None = None
    why: Why | None = None
    layers: tuple[str, ...] = ()


class Opener(Protocol):
    """Undoes S/MIME."""

    async def open(self, raw: bytes, at: datetime) -> Opened:
        """Open mail that arrived `at`. The same bytes give the same `raw` as long as their key is there.

        Never raises: what cannot be opened comes back as it was, with the reason; what a signature covers
        comes back readable, whatever the signature is worth.
        """


class KeyRing(Protocol):
    """Day keys and long-lived keys; they live outside the database and outside every backup of it."""

    def day_key(self, day: str, *, create: bool = False) -> bytes:
        """32 bytes for the UTC day `YYYY-MM-DD`. Raises KeyError when it was destroyed or never made."""

    def long_key(self, purpose: str) -> bytes:
        """32 bytes for "index", "registry", "token"…, made at init."""

    def destroy_before(self, day: str) -> int:
        """Forget every day key older than `day`; answers how many."""
