"""In charge of all state of the relay, and the only way from one loop to another.

Every public method is one transaction, run in a worker thread. What it writes is on disk when it returns. Ids are
derived, so a caller that never heard how a write ended may simply write again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from relay.errors import ConfigurationError, Refused, RelaisError
from relay.model import AuditEvent, DeliveryNews, DeliveryState, Plan, Why
from relay.store import arrivals, asking, care, database, lists, people, recording, ruling, sending, trail
from relay.store.database import Inconsistent
from relay.store.lists import Line
from relay.store.people import ImportCount
from relay.store.ruling import ActiveRules, RuleFile, StoredDecision
from relay.store.transaction import Transaction, stamp

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy import Connection

    from relay.model import (
        Absence,
        Ask,
        Attempt,
        Batch,
        Context,
        Delivery,
        Envelope,
        Hold,
        Link,
        Professional,
        Registration,
        ThreadView,
        Timer,
    )  # fmt: skip
    from relay.ports import Clock
    from relay.vault import Vault

Answer = TypeVar("Answer")

__all__ = ["ActiveRules", "ImportCount", "RuleFile", "Store", "StoredDecision"]


KEY_RING = "relay/key-ring"
"""The cursor row that says which key ring the database was made with."""


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
        store = cls(await database.connect(url, password), vault, clock, node)
        try:
            await store._check_keys()
        except BaseException:
            await store.close()
            raise
        return store

    async def _check_keys(self) -> None:
        """With another ring nothing could be opened, and every waiting arrival would be taken for damaged."""
        mark = self.vault.index("key-ring", "relay")
        known = await self._read(lambda connection: arrivals.cursor(connection, KEY_RING))
        if known is None:
            await self._write(lambda work: arrivals.set_cursor(work, KEY_RING, mark), quiet=True)
        elif known != mark:
            raise ConfigurationError(
                "these are not the keys of this database: restore the keys.json that was made with it"
            )

    async def close(self) -> None:
        """Let what is being written end, then let go."""
        await self._database.close()

    async def _write(self, act: Callable[[Transaction], Answer], *, quiet: bool = False) -> Answer:
        def work(connection: Connection) -> tuple[Answer, bool]:
            transaction = Transaction(
                connection, self._database, self.vault, self._clock.now(), self.node, self.epoch
            )
            answer = act(transaction)
            transaction.settle()
            return answer, transaction.news

        return await self._database.write(work, quiet=quiet)

    async def _read(self, act: Callable[[Connection], Answer]) -> Answer:
        return await self._database.read(act)

    # --------------------------------------------------------------------------------------------- waking

    @property
    def generation(self) -> int:
        """Grows with every commit this process knows of. Note it before you look, and give it to `changed`."""
        return self._database.changes.rings

    async def changed(self, since: int | None = None) -> int:
        """Return once somebody committed after generation `since` (None: after the call); another process too."""
        return await self._database.changes.after(since)

    @property
    def calls(self) -> int:
        """Grows with every commit after which something may be due. Note it before you look, and give it to `called`."""
        return self._database.work.rings

    async def called(self, since: int) -> int:
        """Return once there may be work that was not there at call `since`: not for each mark on the way."""
        return await self._database.work.after(since)

    # ------------------------------------------------------------------------------------------- arrivals

    async def cursor(self, account: str) -> str | None:
        """How far the account was read; None: never."""
        return await self._read(lambda connection: arrivals.cursor(connection, account))

    async def accept(self, batch: Batch) -> tuple[Envelope, ...]:
        """Store arrivals and the cursor; answers those that were new. What is known already is left alone."""
        return await self._write(lambda work: arrivals.accept(work, batch), quiet=True)

    async def open_envelopes(self, after: str | None, limit: int) -> tuple[Envelope, ...]:
        """Accepted and undecided with their bytes, in the order of acceptance, after the envelope `after`."""
        return await self._read(lambda connection: arrivals.undecided(connection, self.vault, after, limit))

    async def stored(self, envelope: str) -> Envelope:
        """One envelope with its bytes. Raises NotFound, also when its content was destroyed."""
        return await self._read(lambda connection: arrivals.one(connection, self.vault, envelope))

    async def raw(self, envelope: str) -> bytes:
        """The whole bytes of an envelope. Raises NotFound, also when its content was destroyed."""
        return (await self.stored(envelope)).raw

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

    async def open_threads(self, page: int = 200) -> AsyncIterator[tuple[ThreadView, ...]]:
        """Every thread that is open now, a page at a time; one that closes meanwhile comes as it then stands."""
        ids = await self._read(asking.open_ids)
        for some in (ids[start : start + page] for start in range(0, len(ids), page)):
            today = self._clock.now().date().isoformat()
            found = await self._read(partial(asking.views, vault=self.vault, ids=some, today=today))
            yield tuple(found.values())

    async def letters_of(
        self, ward: str, adapters: Sequence[str], since: datetime
    ) -> tuple[tuple[ThreadView, ...], tuple[Hold, ...]]:
        """The ward's threads opened since or still open, and what came by its adapters and is held now."""
        now = self._clock.now()
        return await self._read(
            lambda connection: (
                asking.of_ward(connection, self.vault, ward, since, now),
                lists.holds_from(connection, self.vault, adapters),
            )
        )

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
        return await self._write(lambda work: sending.claim(work, adapters, n, lease), quiet=True)

    async def in_flight(self, ids: Sequence[str]) -> frozenset[str]:
        """Before the first byte that counts: mark what goes on the wire; send only those answered.

        The others were stopped or paused since, or their lease ended.
        """
        return await self._write(lambda work: sending.in_flight(work, ids), quiet=True)

    async def release(self, ids: Sequence[str]) -> None:
        """Give back what was claimed and did not go on the wire."""
        await self._write(lambda work: sending.release(work, ids))

    async def finish(self, attempts: Sequence[Attempt]) -> None:
        """Enter how tries ended. Unknown deliveries are passed over."""
        await self._write(lambda work: sending.finish(work, attempts))

    async def conclude(
        self, attempts: Sequence[Attempt], plans: Sequence[Plan | None], going: Sequence[str] = ()
    ) -> tuple[Sequence[RelaisError | None], frozenset[str]]:
        """Enter how each try ended with the plan of what it means (None: nothing), and mark those that go next.

        One commit for all. Answers try by try None, or why its plan was not written (see `record`); such a try
        is not entered either, so that no crash can keep the end of a copy and lose what follows from it. Then
        which of `going` may go on the wire now, see `in_flight`: what these plans stopped may not.
        """

        def both(work: Transaction) -> tuple[list[RelaisError | None], frozenset[str]]:
            answers = iter(recording.record(work, [plan for plan in plans if plan is not None]))
            problems = [None if plan is None else next(answers) for plan in plans]
            sending.finish(
                work, [each for each, problem in zip(attempts, problems, strict=True) if problem is None]
            )
            return problems, sending.in_flight(work, going) if going else frozenset()

        try:
            return await self._write(both)
        except Inconsistent as refusal:
            if len(attempts) == 1:
                return [refusal], await self.in_flight(going) if going else frozenset()
        # One plan broke the commit of all: write each on its own to find it.
        problems: list[RelaisError | None] = []
        for attempt, plan in zip(attempts, plans, strict=True):
            problems += (await self.conclude([attempt], [plan]))[0]
        return problems, await self.in_flight(going) if going else frozenset()

    async def recover(self) -> Mapping[str, int]:
        """Begin a new life of this node and put right what the last one left half done. Once, at start."""

        def begin(work: Transaction) -> tuple[int, Mapping[str, int]]:
            life = care.next_life(work)
            work.life = life
            return life, sending.recover(work)

        self.epoch, counts = await self._write(begin)
        return counts

    async def reclaim(self) -> Mapping[str, int]:
        """The same for claims whose lease ended, at any time; what this life holds within its lease stays its own."""
        return await self._write(sending.recover)

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

    # --------------------------------------------------------------------------------------------- people

    async def registrations(self, keysets: Sequence[Sequence[str]]) -> Sequence[tuple[Registration, ...]]:
        """For each set of plain keys, every running registration that one of them names."""
        return await self._read(lambda connection: people.registrations(connection, self.vault, keysets))

    async def registration_by_ins(self, ins: str) -> Registration | None:
        """The one patient registered under this INS; None when nobody is, or several are."""
        return await self._read(lambda connection: people.by_ins(connection, self.vault, ins))

    async def import_registrations(
        self,
        lines: Iterable[Registration],
        keys: Callable[[Registration], Sequence[str]],
        *,
        complete: bool | Callable[[], bool] = False,
        progress: Callable[[int], None] | None = None,
    ) -> ImportCount:
        """Enter lines of `patients.csv`; `keys` says under which plain keys a registration is found.

        Several lines of one person are brought together. What a person corrected stays. Rows that the file
        lacks stay unless it is `complete` (a function is asked after the last line). `progress` is told how
        many lines are done.
        """
        run = people.RegistryImport(self._write, self.vault, keys, stamp(self._clock.now()))
        await people.in_batches(lines, run.batch, progress)
        return await run.finish(complete=complete() if callable(complete) else complete)

    async def set_gp(self, ins: str, rpps: str, *, by: str) -> None:
        """Correct a patient's registered GP. Raises NotFound, UsageError."""
        await self._write(lambda work: people.set_gp(work, ins, rpps, by))

    async def object(self, ins: str, scope: str, by: str) -> None:
        """Record a patient's objection: "gp", "copies" or "all". What is queued is the caller's to stop."""
        await self._write(lambda work: people.object_to(work, ins, scope, by))

    async def professionals(self, rpps: Sequence[str], names: Sequence[str]) -> tuple[Professional, ...]:
        """Everybody with one of these RPPS or one of these folded family names, each once."""
        return await self._read(lambda connection: people.professionals(connection, rpps, names))

    async def import_professionals(
        self,
        lines: Iterable[Professional],
        fold: Callable[[str], str],
        progress: Callable[[int], None] | None = None,
        *,
        source: str = people.SITE,
    ) -> ImportCount:
        """Enter lines of a directory; several of one RPPS add their mailboxes. Who is not in the file stays.

        `source`: "site" (its own CSV) or "extraction"; a mailbox ends only with the source that named it.
        """
        run = people.DirectoryImport(self._write, fold, stamp(self._clock.now()), source)
        await people.in_batches(lines, run.batch, progress)
        return await run.finish()

    async def enter_professionals(
        self, found: Sequence[Professional], fold: Callable[[str], str], source: str
    ) -> None:
        """Enter what the directory adapter `source` answered: the whole of what it says of each of them."""
        await self._write(lambda work: people.enter_found(work, found, fold, source))

    async def directory_ages(self, rpps: Sequence[str]) -> Mapping[str, datetime]:
        """Since when the copy of each of these professionals stands; who is not known has none."""
        return await self._read(lambda connection: people.ages(connection, rpps))

    async def professionals_in_use(self, limit: int) -> tuple[str, ...]:
        """RPPS of those whom the relay writes to or alerts, the one asked about longest ago first."""
        return await self._read(lambda connection: people.in_use(connection, limit))

    async def directory_sources(self) -> dict[str, dict[str, Any]]:
        """{source: {"as_of": datetime, "entries": int}}: when each source of the directory was last read well."""
        return await self._read(people.directory_sources)

    async def find_professionals(self, text: str) -> tuple[Professional, ...]:
        """At most 50 by RPPS, mail address or name, as a person types them."""
        return await self._read(lambda connection: people.find(connection, text))

    async def owners(self, addresses: Sequence[str]) -> Mapping[str, str]:
        """Mail address → RPPS, for mailboxes of one professional alone."""
        return await self._read(lambda connection: people.owners(connection, addresses))

    async def link(self, links: Sequence[Link], *, by: str = "admin") -> None:
        """Link chat accounts to professionals, from now or their `linked_at`."""
        await self._write(lambda work: people.link(work, links, by))

    async def unlink(self, rpps: str, one: Link | None = None, *, by: str = "admin") -> int:
        """End one link of a professional, or all; answers how many."""
        return await self._write(lambda work: people.unlink(work, rpps, one, by))

    async def links(self, rpps: Sequence[str] | None = None) -> tuple[Link, ...]:
        """The running links of these professionals, or of all."""
        return await self._read(lambda connection: people.links(connection, rpps))

    async def away(self, absence: Absence, *, by: str = "admin") -> None:
        """Declare an absence."""
        await self._write(lambda work: people.away(work, absence, by))

    async def absences(self, rpps: Sequence[str]) -> tuple[Absence, ...]:
        """Those that run or are to come."""
        today = self._clock.now().date().isoformat()
        return await self._read(lambda connection: people.absences(connection, rpps, today))

    # ---------------------------------------------------------------------------------------------- lists

    async def envelopes(
        self, state: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Line]:
        """What arrived, the latest first, under the names of docs/interface.md, Commands."""
        return await self._read(lambda connection: lists.envelopes(connection, state, since, limit))

    async def envelope(self, envelope: str) -> Line:
        """One arrival, with its last decision under "decision". Raises NotFound."""
        return await self._read(lambda connection: lists.envelope(connection, envelope))

    async def deliveries(
        self,
        state: str | None = None,
        since: datetime | None = None,
        limit: int = 100,
        *,
        ids: Sequence[str] | None = None,
        envelope: str | None = None,
    ) -> list[Line]:
        """What leaves or left, the latest first; or those of `ids`, in their order and without limit."""
        return await self._read(
            lambda connection: lists.deliveries(connection, state, since, limit, ids, envelope)
        )

    async def threads(
        self, state: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Line]:
        """Follow-ups, the latest first."""
        return await self._read(lambda connection: lists.threads(connection, state, since, limit))

    async def holds(
        self, state: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Line]:
        """What waits for a person, the latest first; state "ended" shows what does no more."""
        return await self._read(lambda connection: lists.holds(connection, self.vault, state, since, limit))

    async def hold(self, hold: str) -> Hold:
        """What is held under this id, or for this envelope. Raises NotFound when nothing waits."""
        return await self._read(lambda connection: lists.hold(connection, self.vault, hold))

    async def incidents(
        self, state: str | None = None, since: datetime | None = None, limit: int = 100
    ) -> list[Line]:
        """What may have to be notified, the latest first; state "open" or "closed"."""
        return await self._read(lambda connection: lists.incidents(connection, state, since, limit))

    async def requeue(self, delivery: str, *, by: str) -> None:
        """Try a copy again now, by a person's will. Raises NotFound, or Refused when it is not one that failed."""
        plan = Plan(
            at=self._clock.now(),
            news=(DeliveryNews(delivery, DeliveryState.QUEUED, Why.BY_PERSON),),
            audit=(AuditEvent(by, "delivery_requeued", delivery, Why.BY_PERSON),),
        )
        (problem,) = await self.record([plan])
        if problem is not None:
            raise problem
        (row,) = await self.deliveries(ids=[delivery])
        if row["state"] not in ("queued", "sending", "in_flight"):
            raise Refused(
                f"this copy is {row['state']}: only one that failed, waits or was cancelled by hand can be tried again"
            )

    # ----------------------------------------------------------------------------------------------- care

    async def status(self) -> dict[str, Any]:
        """Contract §6, but for version, mode, rules and invariants."""
        now = self._clock.now()
        return await self._read(lambda connection: care.status(connection, now))

    async def counters(self) -> Mapping[str, int]:
        """Every count: `envelope.STATE`, `delivery.STATE`, `thread.STATE`, `tries.ADAPTER.STATE`."""
        return await self._read(care.counters)

    async def invariants(self) -> dict[str, int]:
        """How many rows break each promise; all must be 0."""
        now = self._clock.now()
        return await self._read(lambda connection: care.invariants(connection, now))

    async def adapter_state(self, name: str, state: str, detail: str) -> None:
        """Enter what an adapter says of itself: up, down, starting; `detail` is a slug."""
        await self._write(lambda work: care.adapter_state(work, name, state, detail))

    async def pause(self, adapter: str = "", *, by: str = "admin") -> None:
        """Let nothing leave through this adapter, or through any."""
        await self._write(lambda work: care.pause(work, adapter, by))

    async def resume(self, adapter: str = "", *, by: str = "admin") -> None:
        """End one pause, or all."""
        await self._write(lambda work: care.resume(work, adapter, by))

    async def paused(self) -> frozenset[str]:
        """The adapters that send nothing; the empty name stands for all."""
        return await self._read(care.paused)

    async def rules_active(self) -> ActiveRules | None:
        """The rule set in force: the last one activated; None before the first."""
        found = await self.rules_history(1)
        return found[0] if found else None

    async def rules_history(self, limit: int = 100) -> tuple[ActiveRules, ...]:
        """The rule sets that were in force, the current one first."""
        return await self._read(lambda connection: ruling.history(connection, limit))

    async def rules_revision(self) -> int:
        """The number of the rule set in force; 0 before the first."""
        return await self._read(ruling.revision)

    async def rules_of(self, name: str | int) -> ActiveRules | None:
        """A rule set that was in force once, by its revision or the beginning of its digest."""
        if isinstance(name, int):
            return await self._read(lambda connection: ruling.by_revision(connection, name))
        return await self._read(lambda connection: ruling.by_digest(connection, name))

    async def activate_rules(
        self, text: str, digest: str, *, by: str, reason: str, after: int | None = None, note: str = ""
    ) -> int:
        """Put a rule set in force; its text is kept as last good. Answers its revision.

        Raises Stale where other rules were put in force since revision `after`. `note` goes to the trail.
        """
        return await self._write(
            lambda work: ruling.activate(work, text, digest, by, reason, after, note), quiet=True
        )

    async def give_rules_a_reason(self, revision: int, *, by: str, reason: str) -> bool:
        """Note who wanted the rules of a revision that the relay took from the file by itself, and why.

        False, and nothing is noted, where that revision bears a person's reason already.
        """
        return await self._write(lambda work: ruling.give_reason(work, revision, by, reason), quiet=True)

    async def rule_file(self) -> RuleFile | None:
        """What became of the rule file on the disk; None where it is in force."""
        return await self._read(ruling.file)

    async def note_rule_file(self, mark: RuleFile | None) -> None:
        """Keep what became of the rule file on the disk."""
        await self._write(lambda work: ruling.note_file(work, mark), quiet=True)

    async def rule_counts(self) -> dict[str, dict[str, int]]:
        """Rule id → decided, undecided, copied, observed, passed → how often, since the beginning."""
        return await self._read(ruling.counted)

    async def observed_since(self, names: Sequence[str], since: datetime) -> int:
        """How many arrivals were decided since while an observed rule of one of these names would have matched."""
        return await self._read(lambda connection: ruling.observed(connection, names, since))

    async def decision(self, name: str) -> StoredDecision:
        """The last decision about an arrival, by its id or its reference. Raises NotFound."""
        return await self._read(lambda connection: ruling.decided(connection, name))

    async def decisions(
        self, since: datetime, most: int = 1_000_000, page: int = 500
    ) -> AsyncIterator[tuple[StoredDecision, ...]]:
        """The last decision of each arrival since then, oldest first, a page at a time; of the latest `most`."""
        after = await self._read(lambda connection: ruling.first_since(connection, since, most))
        while some := await self._read(partial(ruling.decisions, since=since, after=after, limit=page)):
            yield some
            after = some[-1].seq

    async def audit_verify(self) -> dict[str, Any]:
        """{"ok", "writers", "lines", "problems"}: whether a line of the trail was changed, added or removed."""
        return await self._read(lambda connection: trail.verify(connection, self.vault))

    async def audit_export(self, since: datetime | None = None) -> list[Line]:
        """The lines of the trail in order of time."""
        return await self._read(lambda connection: trail.export(connection, since))

    async def purge(
        self, *, content_before: datetime, facts_before: datetime, audit_before: datetime
    ) -> dict[str, int]:
        """Forget what retention says. {"contents", "keys", "facts", "audit"}: how many of each went.

        What people still have to deal with is kept: it is sealed anew under today's key first.
        """
        contents = await self._write(lambda work: care.purge_content(work, content_before))
        day = content_before.date().isoformat()
        keys = await asyncio.to_thread(self.vault.ring.destroy_before, day)
        facts = 0
        while some := await self._write(lambda work: care.purge_facts(work, facts_before)):
            facts += some
        audit = await self._write(lambda work: trail.purge(work, audit_before))
        return {"contents": contents, "keys": keys, "facts": facts, "audit": audit}
