"""In charge of all state of the relay, and the only way from one loop to another.

Every public method is one transaction, run in a worker thread. What it writes is on disk when it returns. Ids are
derived, so a caller that never heard how a write ended may simply write again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from relay.errors import RelaisError
from relay.model import (
    Ask,
    Attempt,
    Batch,
    Context,
    Delivery,
    Envelope,
    EnvelopeState,
    Plan,
    ThreadView,
    Timer,
)
from relay.store import arrivals, asking, care, database, recording, sending
from relay.store.database import Inconsistent
from relay.store.transaction import Transaction, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from relay.ports import Clock
    from relay.vault import Vault

Answer = TypeVar("Answer")

__all__ = ["Store"]


class Store:
    """One open database. Make it with `Store.open`; close it."""

    def __init__(self, opened: database.Database, vault: Vault, clock: Clock, node: str) -> None:
        self._database, self.vault, self._clock, self.node = opened, vault, clock, node
        self.epoch = 0
        """Which life of this node this is; a number once `recover` has begun it."""

    @classmethod
    async def open(
        cls, url: str, vault: Vault, *, clock: Clock, node: str, password: str | None = None
    ) -> Store:
        """Connect, make what is missing, bring the tables up to date.

        `url` is sqlite:///FILE or postgresql://USER@HOST/NAME. Raises ConfigurationError, Unavailable.
        """
        return cls(await database.connect(url, password), vault, clock, node)

    async def close(self) -> None:
        """Let what is being written end, then let go."""
        await self._database.close()

    async def _write(self, act: Callable[[Transaction], Answer]) -> Answer:
        def work(connection: Connection) -> tuple[Answer, bool]:
            transaction = Transaction(
                connection, self._database, self.vault, self._clock.now(), self.node, self.epoch
            )
            answer = act(transaction)
            transaction.settle()
            return answer, transaction.news

        return await self._database.write(work)

    async def _read(self, act: Callable[[Connection], Answer]) -> Answer:
        return await self._database.read(act)

    # --------------------------------------------------------------------------------------------- waking

    @property
    def generation(self) -> int:
        """Grows with every commit this process knows of. Note it before you look, and give it to `changed`."""
        return self._database.generation

    async def changed(self, since: int | None = None) -> int:
        """Return once somebody committed after generation `since` (None: after the call); another process too."""
        return await self._database.changed(since)

    # ------------------------------------------------------------------------------------------- arrivals

    async def cursor(self, account: str) -> str | None:
        """How far the account was read; None: never."""
        return await self._read(lambda connection: arrivals.cursor(connection, account))

    async def accept(self, batch: Batch) -> tuple[Envelope, ...]:
        """Store arrivals and the cursor; answers those that were new. What is known already is left alone."""
        return await self._write(lambda work: arrivals.accept(work, batch))

    async def open_envelopes(self, after: str | None, limit: int) -> tuple[Envelope, ...]:
        """Accepted and undecided with their bytes, in the order of acceptance, after the envelope `after`."""
        return await self._read(lambda connection: arrivals.undecided(connection, self.vault, after, limit))

    async def envelope(self, envelope: str) -> tuple[Envelope, EnvelopeState]:
        """One envelope and where it stands. Raises NotFound."""
        return await self._read(lambda connection: arrivals.one(connection, self.vault, envelope))

    async def raw(self, envelope: str) -> bytes:
        """The whole bytes of an envelope. Raises NotFound, also when its content was destroyed."""
        return (await self.envelope(envelope))[0].raw

    async def raws(self, ids: Sequence[str]) -> Mapping[str, bytes]:
        """The bytes of each envelope whose content still exists."""
        return await self._read(lambda connection: arrivals.raws(connection, self.vault, ids))

    # --------------------------------------------------------------------------------------------- asking

    async def contexts(self, asks: Sequence[Ask]) -> Sequence[Context]:
        """What deciding needs to know, for many arrivals at one instant; in the order of the asks."""
        now = self._clock.now()
        return await self._read(lambda connection: asking.contexts(connection, self.vault, asks, now))

    async def view(self, thread: str) -> ThreadView:
        """A thread by id or reference, with its copies, timers, links and absences. Raises NotFound."""
        now = self._clock.now()
        return await self._read(lambda connection: asking.view(connection, self.vault, thread, now))

    thread = view

    async def threads_of_patient(self, ins: str) -> tuple[ThreadView, ...]:
        """Every thread whose plan named this INS, oldest first."""
        now = self._clock.now()
        return await self._read(lambda connection: asking.of_patient(connection, self.vault, ins, now))

    # ------------------------------------------------------------------------------------------ recording

    async def record(self, plans: Sequence[Plan]) -> Sequence[RelaisError | None]:
        """Write each plan whole or not at all, in one commit; answers plan by plan None or the reason.

        Stale: the thread, button, timer or stay changed; look again and decide again. Clash: draw another
        reference. NotFound: the envelope or delivery does not exist. Raises Unavailable: nothing was written,
        or nobody can tell; recording again is safe.
        """
        try:
            return await self._write(lambda work: recording.record(work, plans))
        except Inconsistent as refusal:
            if len(plans) == 1:
                return [refusal]
        # One plan broke the commit of all: write each on its own to find it.
        return [answer for plan in plans for answer in await self.record([plan])]

    # -------------------------------------------------------------------------------------------- sending

    async def claim(self, adapters: Sequence[str], n: int, lease: float) -> tuple[Delivery, ...]:
        """Take at most `n` copies that are due, oldest first, for `lease` seconds; recipes included.

        `state` is SENDING, or AMBIGUOUS when the other side may have the copy already. `remote` of a chat
        recipe that edits is the platform's id of the message to edit, None when that never left. Nothing of
        a paused adapter, nothing whose lane has an older copy that is not done.
        """
        return await self._write(lambda work: sending.claim(work, adapters, n, lease))

    async def in_flight(self, ids: Sequence[str]) -> frozenset[str]:
        """Before the first byte that counts: mark what goes on the wire; send only those answered.

        The others were stopped or paused since, or their lease ended.
        """
        return await self._write(lambda work: sending.in_flight(work, ids))

    async def release(self, ids: Sequence[str]) -> None:
        """Give back what was claimed and did not go on the wire."""
        await self._write(lambda work: sending.release(work, ids))

    async def finish(self, attempts: Sequence[Attempt]) -> None:
        """Enter how tries ended. Unknown deliveries are passed over."""
        await self._write(lambda work: sending.finish(work, attempts))

    async def recover(self) -> Mapping[str, int]:
        """Begin a new life of this node and put right what the last one left half done. Once, at start."""

        def begin(work: Transaction) -> tuple[int, Mapping[str, int]]:
            life = care.next_life(work)
            work.life = life
            return life, sending.recover(work)

        self.epoch, counts = await self._write(begin)
        return counts

    async def next_due(self, adapters: Sequence[str]) -> datetime | None:
        """When the next copy for these adapters can be claimed; None: none waits."""
        return await self._read(lambda connection: sending.next_due(connection, adapters))

    # --------------------------------------------------------------------------------------------- timers

    async def due_timers(self, n: int) -> tuple[tuple[Timer, ThreadView], ...]:
        """At most `n` timers that are due, the longest overdue first, each with its thread."""
        now = self._clock.now()
        return await self._read(
            lambda connection: asking.due_timers(connection, self.vault, now, stamp(now), n)
        )

    async def next_timer(self) -> datetime | None:
        """When the next timer is due."""
        return await self._read(asking.next_timer)
