"""Arrivals → decisions.

    watch → accept (one commit) → acknowledge upstream ┊ open → read → recognise → resolve → rules → plan → record

The only input and output besides the store are the opener and the directory, asked before the pure rooms.
Whatever an arrival holds, it ends decided, held, ignored with a reason or corrupt: a failure of ours on one
arrival sets that one aside, whole, for a person, and the next goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from relay import crash, log, metrics, planning, reading, recognition, resolution, wording
from relay.errors import NotFound, Refused, RelaisError, Stale, Unavailable, Verdict
from relay.formats import replies, words
from relay.model import (
    Ask,
    AuditEvent,
    Context,
    Envelope,
    EnvelopeState,
    Notice,
    Outcome,
    Patient,
    Plan,
    Press,
    Professional,
    Recognised,
    Registration,
    Resolution,
    Typed,
    Why,
)
from relay.planning import Arrival, Correction
from relay.ports import Channel
from relay.tokens import references_in
from rules import engine, language

if TYPE_CHECKING:
    from datetime import datetime

    from relay.config import AdapterTable
    from relay.directory import Lookups
    from relay.planning import Site
    from relay.ports import Clock, Inbox, Opened, Opener
    from relay.reading import Document
    from relay.store import Store

Answer = TypeVar("Answer")

SLOW = 64 * 1024
"""Bytes; reading more than this leaves the event loop."""
_NO_LINE_MENDS = frozenset(
    {Why.TWO_PATIENTS, Why.BROKEN_PACKAGE, Why.AUTHENTICATION_FAILED, *recognition.SEALED}
)
TRIES = 5
"""How often a decision is made again when somebody changed its thread meanwhile."""
QUIET = 2.0
"""Seconds without a batch after which what waited in an inbox at the start is taken to be decided."""
ADOPT_AFTER = 120.0
"""Seconds for which a letter is seen undecided before it is taken for one that another node left behind."""
ADOPTED = 20  # letters looked at a time
CATCH_UP = 15.0
"""Seconds after which nobody waits any longer for that: an inbox may be out of reach."""
AT_ONCE = 2
"""Letters taken apart outside the event loop: more would only wait for one another."""
_PDF_MAY_BE_INSIDE = (
    b"JVBERi0",
    b"%PDF-",
    b"json",
    b"JSON",
    b"PK\x03\x04",
    b"UEsDB",
    b"/xml",
    b".xml",
    b".XML",
)
"""As it stands, in base64, within FHIR, a package or a letter of level 1: a hostile page may keep the reader busy, so it waits elsewhere."""


def _is_slow(raw: bytes) -> bool:
    """Whether taking it apart may keep the event loop waiting."""
    return len(raw) > SLOW or any(mark in raw for mark in _PDF_MAY_BE_INSIDE)


@dataclass(slots=True)
class _Letter:
    """One arrival on its way to a plan. Each step of `decide` fills in its part."""

    envelope: Envelope
    document: Document | None = None
    opened: Opened | None = None  # what its S/MIME layers hold; None: nobody looked
    recognised: Recognised | None = None
    registrations: tuple[Registration, ...] = ()
    resolution: Resolution | None = None
    arrival: Arrival | None = None  # all of it but facts and decision, which need the store's answers
    plan: Plan | None = None  # settled without asking the store
    correction: Correction | None = None
    fingerprint: str | None = None
    chosen_patient: Registration | None = None
    stated: Patient | None = None  # whom it names, before anybody corrected that
    mentions: tuple[str, object] | None = None  # digest of the rules that asked, and the fact


class Intake:
    """Takes and decides what arrives at one node."""

    def __init__(
        self,
        store: Store,
        inboxes: Mapping[str, Inbox],
        site: planning.SiteSource,
        clock: Clock,
        opener: Opener | None = None,
        lookups: Lookups | None = None,
    ) -> None:
        self.store, self.inboxes, self.site, self.clock, self.opener = store, inboxes, site, clock, opener
        self.lookups = lookups
        self._quiet: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._undecided: dict[str, float] = {}  # since when each was seen so

    # ------------------------------------------------------------------------------------------------ taking

    async def catch_up(self) -> None:
        """Decide what was accepted and not decided when the last life ended."""
        after: str | None = None
        while waiting := await self.store.open_envelopes(after, 200):
            await self.decide(waiting)
            after = waiting[-1].id

    async def adopt(self) -> None:
        """Decide what another node accepted and did not live to decide. It comes from no mailbox again.

        Where that node lives after all, both decide the same, and what the second writes is turned away.
        """
        waiting = await self.store.open_envelopes(None, ADOPTED)
        now = self.clock.monotonic()
        self._undecided = {each.id: self._undecided.get(each.id, now) for each in waiting}
        # What our keys do not open another node's may: it is not ours to set aside.
        opened = (each for each in waiting if each.flaw is not Why.UNREADABLE)
        left = [each for each in opened if now - self._undecided[each.id] >= ADOPT_AFTER]
        if left:
            log.get().warning("adopted", count=len(left))
            await self.decide(left)

    async def caught_up(self) -> None:
        """Return once the answers that came while nobody ran are decided, as far as can be told from here."""
        tables = self.site().settings.adapters
        answering = [name for name in self.inboxes if name in tables and tables[name].ward is None]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP):
                for name in answering:
                    await self._quiet[name].wait()

    async def watch(self, name: str) -> None:
        """Serve one inbox until its connection breaks (Deferred)."""
        inbox = self.inboxes[name]
        arrivals = inbox.watch(await self.store.cursor(inbox.account))
        following: asyncio.Task[object] | None = None
        refused: Verdict | None = None
        try:
            following = asyncio.ensure_future(anext(arrivals))
            while True:
                if not self._quiet[name].is_set():
                    given, _ = await asyncio.wait({following}, timeout=QUIET)
                    if not given:
                        self._quiet[name].set()
                batch = await following
                place = name if batch.envelopes else ""  # a batch may bring a cursor alone
                crash.point("given", place)
                # The next batch is fetched while this one is stored and decided.
                following = asyncio.ensure_future(anext(arrivals))
                fresh = await self.store.accept(batch)
                crash.point("accepted", place)
                acknowledging = asyncio.ensure_future(self._acknowledge(inbox, batch.envelopes, place))
                if crash.armed("acknowledged"):
                    await acknowledging
                try:
                    await self.decide(fresh)
                except RelaisError:
                    raise
                except Exception as error:  # noqa: BLE001 - a defect of ours, told apart from one of the adapter
                    log.failure("arrivals_not_decided", error, adapter=name, count=len(fresh))
                    raise Unavailable("arrivals could not be decided; the next start decides them") from None
                finally:
                    # What was accepted is decided whatever becomes of the connection, and why it was not
                    # counts for more.
                    try:
                        await acknowledging
                    except Verdict as verdict:
                        refused = refused or verdict
                # A mailbox may be readable and refuse to let anything be moved: what is new there goes on.
                if refused is not None and not (fresh and following.done()):
                    raise refused
        finally:
            if following is not None:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            if isinstance(arrivals, AsyncGenerator):
                await arrivals.aclose()  # else its connection outlives us, until it is found as garbage

    async def _acknowledge(self, inbox: Inbox, envelopes: Sequence[Envelope], place: str) -> None:
        await inbox.acknowledge(envelopes)
        crash.point("acknowledged", place)

    # ---------------------------------------------------------------------------------------------- deciding

    async def decide(self, envelopes: Sequence[Envelope]) -> None:
        """Decide arrivals in their order; answers when each is recorded.

        Arrivals that speak of the same stay, document or thread are decided one after the other, each
        seeing what the one before it wrote; all others share their reads and their commit.
        """
        letters = await self._read_all(envelopes)
        await self._resolve(letters)
        waiting = [(letter, self._surely(letter, partial(self._ask, letter)) or Ask()) for letter in letters]
        while waiting:
            chosen: list[tuple[_Letter, Ask]] = []
            later: list[tuple[_Letter, Ask]] = []
            taken: set[str] = set()
            for letter, ask in waiting:
                marks = _marks(ask)
                (later if marks & taken else chosen).append((letter, ask))
                taken |= marks
            await self._settle(chosen)
            waiting = later

    async def _read_all(self, envelopes: Sequence[Envelope]) -> list[_Letter]:
        """Bytes → what they say, in their order; while PDFium reads for one letter, the next is taken apart."""
        letters: dict[str, _Letter] = {}
        gate = asyncio.Semaphore(AT_ONCE)

        async def read(envelope: Envelope) -> None:
            async with gate:
                letters[envelope.id] = await self._read(envelope)

        async with asyncio.TaskGroup() as elsewhere:
            for envelope in envelopes:
                if _is_slow(envelope.raw):
                    elsewhere.create_task(read(envelope))
                else:
                    letters[envelope.id] = await self._read(envelope)
        return [letters[envelope.id] for envelope in envelopes]

    async def _read(self, envelope: Envelope, correction: Correction | None = None) -> _Letter:
        """Bytes → what they say. A failure of ours makes the arrival corrupt, its bytes kept."""
        letter = _Letter(envelope, correction=correction)
        if envelope.flaw is Why.UNREADABLE:
            letter.plan = self._corrupt(envelope)
            return letter
        if envelope.event is not None:
            return letter
        try:
            raw = envelope.raw
            if self.opener is not None:
                letter.opened = await self.opener.open(raw, envelope.received_at)
                raw = letter.opened.raw
            if _is_slow(raw):
                await asyncio.to_thread(self._understand, letter, raw)
            else:
                self._understand(letter, raw)
                await asyncio.sleep(0)
        except Exception as error:  # noqa: BLE001 - whatever the bytes did, a person sees them and the next goes on
            log.failure("arrival_unreadable", error, envelope=envelope.id, adapter=envelope.adapter)
            letter.plan = self._corrupt(envelope)
        return letter

    def _corrupt(self, envelope: Envelope) -> Plan:
        """Set aside whole; the admins are told."""
        return planning.plan_corrupt(self.site(), envelope, Why.UNREADABLE, self.clock.now())

    def _understand(self, letter: _Letter, raw: bytes) -> None:
        """The pure rooms that need nothing but the bytes; may run outside the event loop."""
        site = self.site()
        table = site.settings.adapters.get(letter.envelope.adapter)
        mail = table is None or table.kind == "imap"
        document = reading.read(raw) if mail else reading.read_file(letter.envelope.ref, raw)
        letter.document = document
        seal = letter.opened.why if letter.opened else None
        # The good mail that follows a spoilt one is no duplicate of it: each is known by its own bytes then.
        letter.fingerprint = reading.fingerprint(letter.envelope.raw if seal else raw)
        letter.recognised = recognition.opened(
            recognition.recognise(document, is_ours=_ours(site), timezone=site.settings.timezone), seal
        )
        letter.stated = letter.recognised.notice.patient
        if letter.correction is not None:
            fields = letter.correction.fields or {}
            letter.recognised = replace(
                letter.recognised, notice=replies.applied(letter.recognised.notice, fields)
            )

    async def _resolve(self, letters: Sequence[_Letter]) -> None:
        """Ask the registry and the directory about every notice, all in two reads."""
        site = self.site()
        notices = [letter for letter in letters if _is_notice(letter)]
        if not notices:
            return
        keys = [
            self._surely(letter, partial(resolution.asks, _notice(letter), _facility(site, letter))) or ()
            for letter in notices
        ]
        found = await self.store.registrations(keys)
        numbers: dict[str, None] = {}
        names: dict[str, None] = {}
        asked: dict[str, None] = {}  # of directories elsewhere: strangers' mail sends nobody there
        for letter, registrations in zip(notices, found, strict=True):
            letter.registrations = tuple(registrations)
            chosen = (letter.chosen_patient,) if letter.chosen_patient else ()
            asking = partial(
                resolution.professional_asks,
                _notice(letter),
                (*registrations, *chosen),
                test_ins=site.settings.test_ins,
                facility=_facility(site, letter),
            )
            rpps, families = self._surely(letter, asking) or ((), ())
            numbers.update(dict.fromkeys(rpps))
            names.update(dict.fromkeys(families))
            if letter.correction and letter.correction.gp:
                rpps = (*rpps, letter.correction.gp)
                numbers[letter.correction.gp] = None
            if letter.correction or _is_listed(site, letter):
                asked.update(dict.fromkeys(rpps))
        if self.lookups is not None:
            await self.lookups.freshen(asked)
        professionals = await self.store.professionals(list(numbers), list(names))
        stated = [address for letter in notices if (address := _stated_address(letter))]
        owners = await self.store.owners(stated) if stated else {}
        known = {each.rpps: each for each in professionals}
        for letter in notices:
            self._surely(letter, partial(self._resolved, site, letter, professionals, owners))
            letter.arrival = self._surely(letter, partial(_arrival, site, letter, known))

    def _surely(self, letter: _Letter, work: Callable[[], Answer]) -> Answer | None:
        """What `work` makes of this letter; a failure of ours sets this one aside and none beside it."""
        if letter.plan is not None:
            return None
        try:
            return work()
        except Exception as error:  # noqa: BLE001 - whatever the letter says, a person sees it and the next goes on
            log.failure("arrival_not_understood", error, envelope=letter.envelope.id)
            letter.plan = self._corrupt(letter.envelope)
            return None

    def _resolved(
        self,
        site: Site,
        letter: _Letter,
        professionals: Sequence[Professional],
        owners: Mapping[str, str],
    ) -> None:
        correction = letter.correction
        letter.resolution = resolution.resolve(
            _notice(letter),
            letter.registrations,
            professionals,
            domains=site.settings.domains,
            test_ins=site.settings.test_ins,
            facility=_facility(site, letter),
            owners=owners,
            chosen_patient=letter.chosen_patient,
            chosen_gp=correction.gp if correction else None,
            chosen_name=(
                _notice(letter).registered_gp
                if correction and "registered_gp.name" in (correction.fields or {})
                else None
            ),
        )

    # ------------------------------------------------------------------------------------------------- asking

    def _ask(self, letter: _Letter) -> Ask:
        """What the store must say before this arrival can be planned."""
        site = self.site()
        event = letter.envelope.event
        if isinstance(event, Press):
            return Ask(nonce=event.nonce, account=(event.channel, event.sender))
        if isinstance(event, Typed):
            return Ask(account=(event.channel, event.sender))
        document, recognised = letter.document, letter.recognised
        if document is None or recognised is None:
            return Ask()
        if letter.arrival is None:
            letter.arrival = _arrival(site, letter, {})
        ask = Ask(fingerprint=letter.fingerprint)
        if recognised.outcome in (Outcome.REPLY, Outcome.RECEIPT):
            ask = planning.ask_of_mail(site, document, recognised, ask)
        stay, found = letter.arrival.stay, letter.resolution
        if stay is not None and found is not None:
            people = (found.professional.rpps,) if found.professional else ()
            ask = replace(ask, stays=stay.asked, people=people, patient=planning.patient_ins(letter.arrival))
        return planning.ask_of_notice(recognised.notice, stay, ask)

    # ----------------------------------------------------------------------------------------------- settling

    async def _settle(self, chosen: Sequence[tuple[_Letter, Ask]]) -> None:
        """Plan and record arrivals that have nothing to do with each other; one that lost a race is planned again."""
        waiting = list(chosen)
        for draw in range(TRIES):
            if not waiting:
                return
            contexts = await self._contexts(waiting)
            planned: list[tuple[_Letter, Ask, Plan, str | None]] = []
            for (letter, ask), context in zip(waiting, contexts, strict=True):
                plan, popup = await self._plan(letter, context, draw)
                planned.append((letter, ask, plan, popup))
            crash.point("decided")
            problems = await self.store.record([plan for _, _, plan, _ in planned])
            crash.point("recorded")
            waiting = []
            for (letter, ask, plan, popup), problem in zip(planned, problems, strict=True):
                if problem is None:
                    await self._settled(letter, plan, popup)
                elif isinstance(problem, Stale):
                    waiting.append((letter, ask))
                else:
                    log.failure("plan_not_recorded", problem, envelope=letter.envelope.id)
                    await self._set_aside_whole(letter)
        for letter, _ in waiting:
            await self._set_aside_whole(letter)

    async def _set_aside_whole(self, letter: _Letter) -> None:
        """The store refuses what was decided, again and again: people are told, nothing of the letter is written."""
        envelope = letter.envelope
        log.get().error("plan_not_recorded", envelope=envelope.id, adapter=envelope.adapter)
        (problem,) = await self.store.record([self._corrupt(envelope)])
        if problem is not None:
            # Still open in the store: decided again at the next start, and counted as open until then.
            log.failure("plan_not_recorded", problem, envelope=envelope.id)

    async def _contexts(self, waiting: Sequence[tuple[_Letter, Ask]]) -> list[Context]:
        """What the store knows, and who the substitutes, people on duty and other doctors are that rules may mean."""
        contexts = list(await self.store.contexts([ask for _, ask in waiting]))
        site, now = self.site(), self.clock.now()
        meant = [
            planning.people_meant(site, letter.arrival, context, now) if letter.arrival else frozenset[str]()
            for (letter, _), context in zip(waiting, contexts, strict=True)
        ]
        everybody = sorted(frozenset[str]().union(*meant))
        if not everybody:
            return contexts
        known = {each.rpps: each for each in await self.store.professionals(everybody, ())}
        links = await self.store.links(everybody)
        for number, ((letter, _), people) in enumerate(zip(waiting, meant, strict=True)):
            if letter.arrival is None or not people:
                continue
            found = {rpps: known[rpps] for rpps in people if rpps in known}
            letter.arrival = replace(letter.arrival, people={**letter.arrival.people, **found})
            theirs = (link for link in links if link.rpps in people)
            contexts[number] = replace(contexts[number], links=(*contexts[number].links, *theirs))
        return contexts

    async def _plan(self, letter: _Letter, context: Context, draw: int) -> tuple[Plan, str | None]:
        """One arrival's plan, and the words that answer a button press."""
        site, now = self.site(), self.clock.now()
        try:
            event = letter.envelope.event
            if letter.plan is not None:
                return letter.plan, None
            if isinstance(event, Press):
                crash.point("pressed")
                return planning.plan_press(site, letter.envelope, event, context, now)
            if isinstance(event, Typed):
                return planning.plan_typed(site, letter.envelope, event, context, now)
            mentions = await self._mentions(site, letter)
            arrival = replace(self._decided(site, letter, context, now, mentions), draw=draw)
            return _traced(await self._plan_mail(site, arrival, context, now), letter.opened), None
        except Exception as error:  # noqa: BLE001 - a defect of ours sets one arrival aside, never stops the loop
            log.failure("arrival_not_planned", error, envelope=letter.envelope.id)
            return self._corrupt(letter.envelope), None

    async def _plan_mail(self, site: Site, arrival: Arrival, context: Context, now: datetime) -> Plan:
        """The plan of one mail or document."""
        recognised, document = arrival.recognised, arrival.document
        if context.duplicate_of not in (None, arrival.envelope.id):
            return planning.plan_ignore(arrival, Why.DUPLICATE, now)
        if site.tokens.read_message_id(document.message_id or "") is not None:
            return planning.plan_ignore(arrival, Why.OWN_MESSAGE, now)
        match recognised.outcome:
            case Outcome.RECEIPT:
                return planning.plan_receipt(site, arrival, context, now)
            case Outcome.AUTOMATIC:
                return planning.plan_ignore(arrival, Why.AUTOMATIC, now)
            case Outcome.REPLY:
                plan = planning.plan_reply(site, arrival, context, now)
                if isinstance(plan, Correction):
                    return await self._correct(site, arrival, plan, context, now)
                return plan
        if recognised.why is Why.UNREADABLE:
            return planning.plan_corrupt(site, arrival.envelope, Why.UNREADABLE, now)
        if why := _set_aside(site, arrival):
            return planning.plan_hold(site, arrival, context, why, now)
        if recognised.outcome is Outcome.UNCLEAR:
            return planning.plan_hold(site, arrival, context, recognised.why or Why.UNCLEAR, now)
        if recognised.outcome is Outcome.OTHER:
            if _is_addressed_to_us(site, arrival):
                return planning.plan_hold(site, arrival, context, Why.UNKNOWN_SENDER, now)
            if arrival.ward is not None and arrival.listed and recognition.has_attachment(document):
                return planning.plan_hold(site, arrival, context, Why.ATTACHMENT_UNREAD, now)
            return planning.plan_ignore(arrival, recognised.why or Why.NOT_A_NOTICE, now)
        return planning.plan_notice(site, arrival, context, now)

    async def _mentions(self, site: Site, letter: _Letter) -> object:
        """The fact `mentions`, by the rules in force: letters are long and PDFs slow, so they are read elsewhere.

        The words themselves are let go at once; a new rule set looks for its own.
        """
        rules, document = site.rules, letter.document
        if rules is None or not rules.keywords or document is None or letter.resolution is None:
            return frozenset[str]()
        if letter.mentions is None or letter.mentions[0] != rules.digest:
            letter.mentions = (rules.digest, await asyncio.to_thread(_mentioned, rules, document))
        return letter.mentions[1]

    def _decided(
        self, site: Site, letter: _Letter, context: Context, now: datetime, mentions: object
    ) -> Arrival:
        """The arrival with its facts and the rules' word, where it is a letter."""
        arrival = letter.arrival or _arrival(site, letter, {})
        if letter.resolution is None:
            return arrival
        facts = _facts(site, letter, arrival.table, context, now, mentions)
        decision = self._decide(site, letter, facts, now)
        return replace(arrival, facts=cast("language.Facts", facts), decision=decision)

    def _decide(
        self, site: Site, letter: _Letter, facts: dict[str, object], now: datetime
    ) -> engine.Decision | None:
        """The rules' word. What a desk or an admin released is sent: only rules that send are asked then.

        A ward's lines mend what was missing; a rule that holds all the same was not about that.
        """
        if site.rules is None:
            return None
        decision = engine.decide(site.rules, facts, now)  # type: ignore[arg-type]
        if (
            letter.correction is not None
            and not letter.correction.by.startswith("ward:")
            and decision.action != "send"
            and not decision.why.startswith("floor")
        ):
            decision = engine.decide_released(site.rules, facts, now)  # type: ignore[arg-type]
        return decision

    async def _settled(self, letter: _Letter, plan: Plan, popup: str | None) -> None:
        """Tell the outside what needs no durability."""
        if plan.state is not None:
            metrics.envelope(plan.state.value)
            log.get().info(
                "settled", envelope=letter.envelope.id, adapter=letter.envelope.adapter, state=plan.state,
                why=plan.why, outcome=plan.kind, reference=plan.reference,
                rule=plan.decision.rule if plan.decision else None,
            )  # fmt: skip
        event = letter.envelope.event
        inbox = self.inboxes.get(letter.envelope.adapter)
        if isinstance(event, Press) and isinstance(inbox, Channel):
            await inbox.answer(event, popup or "", alert=plan.why is not Why.PRESS)

    # ----------------------------------------------------------------------------------------------- a person

    async def _correct(
        self, site: Site, arrival: Arrival, correction: Correction, context: Context, now: datetime
    ) -> Plan:
        """A ward filled in the lines, or took its letter back: settle the hold; the reply itself is then decided.

        A ward whose lines were not enough is told why; what else went wrong keeps the reply for a person.
        """
        held, shown = None, ""
        try:
            held = await self.store.hold(correction.hold)
            shown = str((await self.store.envelope(held.envelope))["reference"] or "")
            if set(references_in(replies.new_text(correction.text).text)) - {shown}:
                reason = site.words.say(wording.CITES_ANOTHER)
                raise Refused("it may be about another letter than the one it answers", reason=reason)
            if correction.reject:
                plan = planning.plan_reject(site, held, correction.by, "", now)
                (problem,) = await self.store.record([plan])
                if problem is not None:
                    raise problem
                reference = shown
            else:
                reference = await self.release(correction) or shown
        except RelaisError as refusal:
            log.get().warning(
                "correction_refused", envelope=arrival.envelope.id, error=type(refusal).__name__
            )
            if held is None or not isinstance(refusal, Refused) or not correction.by.startswith("ward:"):
                return planning.plan_hold(site, arrival, context, Why.UNCLEAR, now, tell_ward=False)
            return planning.plan_still_held(site, arrival, held, shown, correction.by, refusal, now)
        return Plan(
            at=now,
            envelope=arrival.envelope.id,
            state=EnvelopeState.DECIDED,
            why=Why.REPLY,
            kind=arrival.recognised.outcome.value,
            message_id=arrival.document.message_id,
            fingerprint=arrival.fingerprint,
            reference=reference or None,
            audit=(AuditEvent(correction.by, "corrected", arrival.envelope.id, Why.REPLY),),
        )

    async def release(self, correction: Correction) -> str | None:
        """Decide a held letter again with what a person said; answers its reference.

        Raises NotFound when nothing is held under this id, Refused when a floor still forbids sending.
        """
        hold = await self.store.hold(correction.hold)
        said = correction.fields or {}
        if hold.lost:
            named = {name: value for name, value in said.items() if name.startswith("registered_gp.")}
            correction = replace(correction, fields=named or None)
        letter = await self._read(await self.store.stored(hold.envelope), correction)
        if letter.plan is not None or letter.recognised is None:
            raise Refused("these bytes cannot be read: reject the hold, or answer the ward by hand")
        if hold.lost and not _of_the_same_patient(letter.recognised.notice, said):
            reason = self.site().words.why(Why.STAY_OF_ANOTHER)
            raise Refused("these lines name another patient or stay than the letter that left", reason=reason)
        if letter.envelope.flaw is not None:
            raise Refused(
                "only a part of this letter was kept: reject the hold, and have the ward send it anew"
            )
        if planning.names_another(correction.text, letter.stated, said):
            reason = self.site().words.say(wording.NAMES_ANOTHER)
            raise Refused("the answer names another patient than the letter", reason=reason)
        if correction.by.startswith("ward:") and hold.why in _NO_LINE_MENDS:
            raise Refused(
                "no line that a ward fills in mends this letter: it must come anew, or a desk decides"
            )
        if correction.patient is not None:
            letter.chosen_patient = await self.store.registration_by_ins(correction.patient)
            if letter.chosen_patient is None:
                raise NotFound("no registered patient has this INS")
        await self._resolve([letter])
        if letter.resolution is None or letter.plan is not None:
            raise Refused("no letter was recognised in it: it can be rejected, not sent by itself")
        for draw in range(TRIES):
            site, now = self.site(), self.clock.now()
            if draw:
                hold = await self.store.hold(correction.hold)  # somebody may have settled it meanwhile
            ask, again = self._ask(letter), (hold.thread or "") if hold.lost else ""
            if again:
                ask = replace(ask, threads=(*ask.threads, again))
            (context,) = await self._contexts([(letter, ask)])
            mentions = await self._mentions(site, letter)
            arrival = replace(self._decided(site, letter, context, now, mentions), draw=draw, again=again)
            # What takes a letter back sends none: no rule and no floor stands against what a person looked at.
            back = letter.recognised.notice.document == "retraction" and site.rules is not None
            if not back and (arrival.decision is None or arrival.decision.action != "send"):
                reason = arrival.decision.reason if arrival.decision else site.words.why(Why.NO_RULES)
                amiss = site.words.because(arrival.resolution, answered=True) if arrival.resolution else ""
                opposed = arrival.resolution is not None and arrival.resolution.consent != "allowed"
                raise Refused(
                    f"it still cannot be sent: {reason}", reason=reason, detail=amiss, final=opposed
                )
            plan = planning.plan_release(site, arrival, context, hold, now)
            (problem,) = await self.store.record([plan])
            if problem is None:
                return plan.reference
            if not isinstance(problem, Stale):
                raise problem
        raise Refused("somebody else is deciding this at the moment; try again")

    async def facts_as_if(self, name: str, raw: bytes, adapter: str, now: datetime) -> language.Facts | None:
        """The facts of a file as if it came by that adapter now; None where no letter is in it. Writes nothing."""
        site = self.site()
        letter = _Letter(Envelope("explained", adapter, "", name, now, raw))
        if self.opener is not None:
            letter.opened = await self.opener.open(raw, now)
            raw = letter.opened.raw
        letter.document = await asyncio.to_thread(reading.read_file, name, raw)
        letter.recognised = recognition.recognise(
            letter.document, is_ours=_ours(site), timezone=site.settings.timezone
        )
        await self._resolve([letter])
        if letter.resolution is None:
            return None
        (context,) = await self._contexts([(letter, self._ask(letter))])
        mentions = await self._mentions(site, letter)
        table = site.settings.adapters.get(adapter)
        return cast("language.Facts", _facts(site, letter, table, context, now, mentions))

    async def replay(self, envelope: str) -> None:
        """Decide an arrival again; its rows have the same ids, so what exists stays as it is."""
        await self.decide([await self.store.stored(envelope)])


# ---------------------------------------------------------------------------------------------------- small words


def _of_the_same_patient(notice: Notice, fields: Mapping[str, str]) -> bool:
    """Whether nothing a person wrote beside the doctor contradicts the letter."""
    others = {name: value for name, value in fields.items() if not name.startswith("registered_gp.")}
    said = replies.applied(notice, others)
    if said.stay != notice.stay and "stay.number" in others:
        return False
    before, after = notice.patient, said.patient
    if not others or before is None or after is None:
        return not others
    return replace(after, ins_key_valid=None) == replace(before, ins_key_valid=None)


def _ours(site: Site) -> Callable[[str], bool]:
    """Whether a Message-ID or an address was signed by us."""
    tokens = site.tokens
    return lambda text: tokens.read_message_id(text) is not None or tokens.read_token(text) is not None


def _marks(ask: Ask) -> set[str]:
    """What two arrivals may both speak of."""
    return {
        *ask.document_keys, *ask.stays, *ask.message_ids, *ask.deliveries, *ask.threads, *ask.references,
        *([ask.fingerprint] if ask.fingerprint else []), *([ask.nonce] if ask.nonce else []),
    }  # fmt: skip


def _is_notice(letter: _Letter) -> bool:
    return letter.recognised is not None and letter.recognised.outcome in (Outcome.NOTICE, Outcome.UNCLEAR)


def _notice(letter: _Letter) -> Notice:
    assert letter.recognised is not None  # noqa: S101 - asked after _is_notice
    return letter.recognised.notice


def _stated_address(letter: _Letter) -> str | None:
    gp = _notice(letter).registered_gp
    return gp.mss_address.lower() if gp and gp.mss_address else None


def _facility(site: Site, letter: _Letter) -> str:
    table = site.settings.adapters.get(letter.envelope.adapter)
    return table.ward.facility if table and table.ward else ""


def _listed(table: AdapterTable | None, sender: str | None) -> bool:
    """Whether this sender may send letters to that mailbox. Nobody may to the relay's own, nor to one configured no more."""
    if table is None:
        return False
    if table.kind != "imap":
        return True
    return sender is not None and any(fnmatchcase(sender, glob) for glob in table.senders)


def _is_listed(site: Site, letter: _Letter) -> bool:
    sender = letter.document.from_ if letter.document else None
    return _listed(site.settings.adapters.get(letter.envelope.adapter), sender)


def _arrival(site: Site, letter: _Letter, people: Mapping[str, Professional]) -> Arrival:
    """One mail as it was read; `people` are the professionals its lookups found."""
    assert letter.document is not None and letter.recognised is not None  # noqa: S101, PT018 - set by _read
    table = site.settings.adapters.get(letter.envelope.adapter)
    stay = None
    if letter.resolution is not None:
        stay = resolution.stay_keys(
            letter.recognised.notice,
            letter.resolution,
            _facility(site, letter),
            site.settings.timezone,
            site.settings.facilities,
        )
    return Arrival(
        envelope=letter.envelope,
        document=letter.document,
        recognised=letter.recognised,
        fingerprint=letter.fingerprint,
        resolution=letter.resolution,
        stay=stay,
        table=table,
        listed=_listed(table, letter.document.from_),
        released=letter.correction,
        people=people,
    )


def _is_addressed_to_us(site: Site, arrival: Arrival) -> bool:
    """Somebody of the trusted domains wrote to the relay's own mailbox without answering any of its mails.

    What they mean is a person's to find out; a mail from anywhere else is no business of ours.
    """
    sender = arrival.document.from_
    table = arrival.table
    return (
        table is not None
        and table.role == "replies"
        and arrival.recognised.why in (None, Why.NOT_A_NOTICE)
        and sender is not None
        and site.allowed(sender)
    )


def _traced(plan: Plan, opened: Opened | None) -> Plan:
    """The plan with a line of the trail that says what was undone and what the signature was worth."""
    if opened is None or not opened.layers or plan.envelope is None:
        return plan
    worth = {True: "valid", False: "invalid", None: "unsigned"}[opened.signed]
    if opened.signed is None and "signed" in opened.layers:
        worth = "unvouched"
    note = " ".join((*opened.layers, worth))
    return replace(plan, audit=(*plan.audit, AuditEvent("relay", "opened", plan.envelope, opened.why, note)))


def _set_aside(site: Site, arrival: Arrival) -> Why | None:
    """What holds an arrival whatever the rules say."""
    if arrival.envelope.flaw is not None:
        return arrival.envelope.flaw
    if arrival.recognised.why in recognition.SEALED:
        return arrival.recognised.why
    nobody_is_listed = arrival.ward is not None and arrival.table is not None and not arrival.table.senders
    if not arrival.listed and (arrival.recognised.outcome is not Outcome.OTHER or nobody_is_listed):
        return Why.UNLISTED_SENDER
    if arrival.recognised.outcome is not Outcome.OTHER and not planning.authentic(site, arrival):
        return (
            Why.AUTHENTICATION_FAILED
        )  # the sender's name is on the list, and the server says it is borrowed
    problems = {problem.code for problem in arrival.notice.problems}
    return next((why for why in (Why.TWO_PATIENTS, Why.BROKEN_PACKAGE) if why.value in problems), None)


def _mentioned(rules: language.RuleSet, document: Document) -> object:
    """The names of the keyword groups found; unknown where a part of the letter could not be read."""
    found = words.of(document)
    return language.mentioned(rules, found.text) if found.whole else language.UNKNOWN


def _facts(
    site: Site,
    letter: _Letter,
    table: AdapterTable | None,
    context: Context,
    now: datetime,
    mentions: object,
) -> dict[str, object]:
    """The facts the rules match on (docs/rules.md)."""
    document = letter.document
    assert document is not None and letter.resolution is not None  # noqa: S101, PT018 - set by _resolve
    ward = table.ward if table else None
    today = now.astimezone(site.settings.zone).date()
    found = letter.resolution
    away = any(
        absence.substitute and absence.since <= today <= absence.until
        for absence in context.absences
        if found.professional and absence.rpps == found.professional.rpps
    )
    addressed = not resolution.own_mailboxes(found).isdisjoint(document.to)
    found_facts = resolution.facts(
        _notice(letter),
        found,
        mailbox=letter.envelope.adapter,
        sender=document.from_ or "",
        signed=letter.opened.signed if letter.opened else None,
        ward_name=ward.name if ward else "",
        ward_slug=ward.slug if ward else "",
        ward_unit=(ward.unit or "") if ward else "",
        facility=ward.facility if ward else "",
        wards=tuple(
            resolution.WardNames(each.name, each.slug, each.unit or "", each.facility)
            for each in site.settings.wards.values()
        ),
        arrived=letter.envelope.received_at,
        timezone=site.settings.timezone,
        addressed=addressed,
        gp_away=away,
        unknown=language.UNKNOWN,
    )
    return {**found_facts, "mentions": mentions}


def facts_of(
    name: str, raw: bytes, rules: language.RuleSet, now: datetime, *, signed: bool | None = None
) -> language.Facts:
    """The facts of a file by itself: nobody is registered, no directory is known. For `rules explain`.

    `raw` is what its S/MIME layers held, where there were any; `signed`, what its signature was worth.
    """
    document = reading.read_file(name, raw)
    recognised = recognition.recognise(document)
    found = resolution.resolve(recognised.notice, (), (), domains=("*",), test_ins="accept")
    found_facts = resolution.facts(
        recognised.notice, found, mailbox="", sender=document.from_ or "", signed=signed, ward_name="",
        ward_slug="", ward_unit="", facility="", arrived=now, timezone=rules.timezone, addressed=False,
        gp_away=False, unknown=language.UNKNOWN,
    )  # fmt: skip
    mentions = _mentioned(rules, document) if rules.keywords else frozenset[str]()
    return cast("language.Facts", {**found_facts, "mentions": mentions})
