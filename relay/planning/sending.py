"""The plan of one letter that leaves: its thread, its copies, its alerts, all or nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from relay import composing, threads
from relay.identity import tokens
from relay.model import (
    AuditEvent,
    ButtonGrant,
    ChatKind,
    ChatRecipe,
    Context,
    Delivery,
    DeliveryNews,
    DeliveryState,
    EnvelopeState,
    LadderStep,
    Participant,
    Patient,
    Pinned,
    Plan,
    Purpose,
    Thread,
    ThreadState,
    Timer,
    Why,
    delivery_id,
)
from relay.planning.copies import To, alert, earlier, fields, mail, may_stand, on_its_way
from relay.planning.documents import (
    NOTICE,
    document_keys,
    forms_told,
    is_notice,
    meant_by,
    own_form,
    sent_letters,
)
from relay.planning.draft import TELLING, Draft
from relay.planning.holding import desk_of, envelope_side, fits, observing, plan_hold
from relay.planning.site import (
    CHAT_KINDS,
    Arrival,
    Recipient,
    Site,
    away,
    folded,
    further_stays,
    name_of,
    own_stay,
    patient_of,
    recipients,
    thread_id,
)
from relay.threads import Event, Happening
from relay.wording import Mail
from rules.engine import leaves_at
from rules.engine import not_before as quiet_until

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.config import AdapterTable
    from relay.model import ThreadView
    from rules.engine import Decision
    from rules.language import RuleSet, Target


_LAST_RESORT: Final = "1d"


@lru_cache(maxsize=64)
def pinned(rules: RuleSet, name: str | None) -> Pinned:
    """The follow-up as it stands now, with every clock and target it uses; `none` waits for nobody."""
    followup = rules.followups.get(name) if name and name != "none" else None
    if followup is None:
        return _last_resort(rules)
    targets = [t for step in followup.ladder for t in (step.remind, step.hand_to) if t]
    quiet = [rules.targets[t].quiet or "real" for t in targets if t in rules.targets]
    used = {followup.clock, *quiet, *(step.clock for step in followup.ladder)} - {"real"}
    return Pinned(
        name=followup.name,
        awaits=followup.awaits,
        ladder=tuple(LadderStep(str(s.after), s.clock, s.remind, s.hand_to) for s in followup.ladder),
        ack_within=str(followup.ack_within),
        ack_clock=followup.clock,
        ack_expires=str(followup.ack_expires) if followup.ack_expires else None,
        close_quiet_for=str(followup.close_quiet_for),
        hours={clock: threads.hours_as_json(rules.hours[clock]) for clock in used if clock in rules.hours},
        targets={name: _pinned_target(rules.targets[name]) for name in targets if name in rules.targets},
        timezone=rules.timezone,
        ruleset=rules.digest,
    )


def _pinned_target(target: Target) -> Mapping[str, object]:
    return {
        "who": target.who,
        "via": list(target.via),
        "carries": target.carries,
        "quiet": target.quiet,
    }


def _last_resort(rules: RuleSet) -> Pinned:
    """For `followup: none`: nobody is asked, but a question that comes still finds a ward and then a desk."""
    desk = rules.default.hold
    return Pinned(
        name="none",
        awaits="delivered",
        ladder=(LadderStep(_LAST_RESORT, "real", hand_to=desk),),
        targets={desk: _pinned_target(rules.targets[desk])} if desk in rules.targets else {},
        timezone=rules.timezone,
        ruleset=rules.digest,
    )


class _CannotSend(Exception):
    """A document of this decision has nowhere to go: the whole is held instead."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass
class Writer:
    """Writes the plan of one `send`."""

    site: Site
    rules: RuleSet
    arrival: Arrival
    context: Context
    at: datetime
    view: ThreadView | None
    ends: tuple[str, ...]
    by: str
    told: set[tuple[str, ...]] = field(default_factory=set)
    """Who was told what in this plan, and where: two targets that mean one person's one box are one copy."""

    def plan(self, decision: Decision) -> Plan:
        """The whole plan; a hold when a document has nowhere to go."""
        try:
            return self._sent(decision)
        except _CannotSend as cannot:
            return plan_hold(
                self.site, self.arrival, self.context, cannot.why, self.at, desk=desk_of(self.site, decision)
            )

    def _sent(self, decision: Decision) -> Plan:
        site, arrival, at = self.site, self.arrival, self.at
        silent = observing(site, arrival.table)
        follows = self._follows()
        waits = self.view is not None and self.view.thread.state is ThreadState.AWAITING_ACK
        # One alert for one discharge: a letter that follows its notice rings again only where the notice is settled.
        alerts = (follows != "same" and not (follows == "letter" and waits)) or bool(arrival.again)
        if self._moved and self._has_document and not alerts:
            follows, alerts = "letter", True  # who was told of it is the patient's doctor no more
        start = at + decision.grace.elapsed if decision.grace else at
        thread, step = self._thread(decision, leaves_at(self.rules, decision, arrival.facts, at), follows)
        self.thread = thread
        copies: list[Delivery] = []
        grants: list[ButtonGrant] = []
        for ordinal, name in enumerate(decision.targets):
            made, granted = self._to_target(
                self.rules.targets[name], start, ordinal, alerts=alerts, follows=follows
            )
            copies += made
            grants += granted
        if not self._told(decision, copies, follows, alerts=alerts):
            raise _CannotSend(next((c.why for c in copies if c.why), Why.NO_ADDRESS))
        for ordinal, (_, name) in enumerate(decision.copies, len(decision.targets)):
            made, granted = self._to_target(
                self.rules.targets[name],
                start,
                ordinal,
                alerts=alerts,
                follows=follows,
                copy=True,
            )
            copies += made
            grants += granted
        copies += self._receipt(copies)
        ended = self._end_former(copies) or self._tell_left_out(copies, follows)
        base = envelope_side(site, arrival, at)
        audit = [AuditEvent(self.by, "decided", arrival.envelope.id, Why(decision.why), note=decision.rule)]
        if silent:
            return replace(
                base,
                state=EnvelopeState.DECIDED,
                why=Why.OBSERVE,
                reference=self.thread.reference,
                deliveries=tuple(
                    replace(c, state=DeliveryState.CANCELLED, why=Why.OBSERVE, thread=None) for c in copies
                ),
                end_hold=self.ends,
                audit=tuple(audit),
            )
        if kept_from := self._starts_now(copies):
            self.thread = replace(self.thread, started_at=kept_from)
        kept = self.thread
        # The alert of whom the letter did not reach at one address stays theirs: it is not shown again.
        same_reader = bool(arrival.again and self.view and self.view.thread.gp == kept.gp)
        timers: tuple[Timer, ...] = step.timers
        return replace(
            base,
            state=EnvelopeState.DECIDED,
            why=Why(decision.why),
            document_keys=document_keys(arrival, self.context),
            stay_keys=further_stays(arrival, self.context, kept.id),
            reference=kept.reference,
            thread=kept,
            deliveries=(*copies, *(ended.deliveries if ended else ())),
            news=ended.news if ended else (),
            timers=timers,
            drop_timers=(kept.id,) if step.anew and self.view else (),
            grants=tuple(grants),
            end_hold=(*self.ends, *self._replaced(follows)),
            void_grants_of=(kept.id,) if self.view and step.anew and alerts and not same_reader else (),
            incident=ended.incident if ended else None,
            audit=(*audit, *(ended.audit if ended else ())),
        )

    # ----------------------------------------------------------------------------------------- the thread

    def _follows(self) -> str:
        """What this letter is to the thread it joins: "" (opens one), "letter" after a mere notice, "addendum",
        "replacement", or "same" (the same discharge in another form: nobody is told twice)."""
        notice, view = self.arrival.notice, self.view
        if view is None:
            return ""
        readers = {part.key for part in view.thread.participants if part.copy}
        own_copies = self.arrival.envelope.id  # of a letter that did not arrive: they told nobody
        letters = [d for d in sent_letters(view) if d.to not in readers and d.envelope != own_copies]
        known, own = forms_told(self.arrival, self.context), own_form(self.arrival)
        replaces = notice.document == "replacement" or (notice.replaces and notice.document == "letter")
        meant = meant_by(self.arrival, self.context, view) if replaces else frozenset()
        if replaces and letters and (meant is None or meant):
            return "replacement"
        if not letters or view.thread.closed_reason == Why.SUPERSEDED.value:
            return "letter"  # nothing was told, or all that was told has been taken back
        if own == NOTICE:
            return "addendum" if self._has_document else "same"
        if replaces or notice.document == "addendum":
            return "letter" if known <= {NOTICE} else "addendum"
        if known == {NOTICE} or view.thread.closed_reason == Why.RECALLED.value:
            return "letter"  # its readers were asked to delete the one before
        return "same" if known and own not in known else "addendum"

    @cached_property
    def _moved(self) -> bool:
        """Whether the stay was told to another GP than the patient has now."""
        gp = self.arrival.resolution.professional if self.arrival.resolution else None
        return self.view is not None and gp is not None and self.view.thread.gp not in ("", f"rpps:{gp.rpps}")

    def _replaced(self, follows: str) -> tuple[str, ...]:
        """The holds of letters that did not arrive, and which this one replaces: nobody need send them elsewhere."""
        if self.view is None or follows != "replacement":
            return ()
        meant = meant_by(self.arrival, self.context, self.view)
        return tuple(hold.id for hold in self.view.holds if meant is None or hold.envelope in meant)

    def _thread(self, decision: Decision, start: datetime, follows: str) -> tuple[Thread, threads.Step]:
        """The thread, opened or joined, with this plan's timers."""
        arrival, site, view = self.arrival, self.site, self.view
        ward, resolution = arrival.ward, arrival.resolution
        gp = resolution.professional if resolution else None
        followup = pinned(self.rules, decision.followup)
        urgency = arrival.notice.urgency or "routine"
        facility = (ward.facility if ward else "") or (
            arrival.notice.stay.facility if arrival.notice.stay else None
        )
        if view is None:
            made = thread_id(arrival.envelope.id)
            patient = self.arrival.notice.patient
            thread = Thread(
                about=self.site.words.patient(patient) if patient and patient.birth_name else "",
                whose=patient_of(arrival),
                id=made,
                reference=site.tokens.reference(made, arrival.draw),
                state=ThreadState.AWAITING_ACK,
                opened_at=self.at,
                ward=ward.slug if ward else "",
                facility=facility or "",
                stay=own_stay(arrival, self.context, made),
                letter=arrival.envelope.id,
                gp=f"rpps:{gp.rpps}" if gp else "",
                urgency=urgency,
                followup=followup,
                participants=self._participants(()),
                revision=-1,
            )
            if decision.followup in (None, "none"):
                return self._unfollowed(thread)
            step = threads.opened(thread, start)
            return step.thread, step
        if follows == "same" and not self._has_document:
            gp = None  # nothing is sent: the letter's reader stays the one who answers
        thread = replace(
            view.thread,
            letter=arrival.envelope.id if self._has_document else view.thread.letter,
            participants=self._participants(
                view.thread.participants,
                former=view.thread.gp if gp and view.thread.gp != f"rpps:{gp.rpps}" else "",
            ),
            version=view.thread.version + 1,
            whose=self._whose(view.thread),
            urgency="urgent" if "urgent" in (urgency, view.thread.urgency) else urgency,
            gp=f"rpps:{gp.rpps}" if gp else view.thread.gp,
            stay=own_stay(arrival, self.context, view.thread.id) or view.thread.stay,
        )
        if follows == "same":
            return thread, threads.Step(thread)
        if decision.followup in (None, "none"):
            return thread, threads.Step(thread)
        if thread.state is ThreadState.AWAITING_WARD and thread.gp == view.thread.gp:
            # The ward still owes its answer; after it the GP is waited for in any case.
            step = threads.repinned(thread, followup, self.at, view.timers)
            return step.thread, step
        step = threads.advance(
            replace(thread, followup=followup), Event(Happening.RENEWED), start, view.timers
        )
        return step.thread, step

    def _whose(self, known: Thread) -> Patient | None:
        """As the thread keeps it; a letter with an INS knows better than one without."""
        mine = patient_of(self.arrival)
        return mine if known.whose is None or (mine and mine.ins and not known.whose.ins) else known.whose

    def _told(self, decision: Decision, copies: Sequence[Delivery], follows: str, *, alerts: bool) -> bool:
        """Whether somebody hears of it: now, by a follow-up's reminders and its desk, or because they did before."""
        if not decision.targets or decision.followup not in (None, "none"):
            return True
        known = follows == "same" or not alerts or self.arrival.facts.get("addressed") is True
        return known or any(copy.state is DeliveryState.QUEUED for copy in copies)

    def _unfollowed(self, thread: Thread) -> tuple[Thread, threads.Step]:
        """`followup: none`: a thread that is closed from the start, so that an answer still finds it."""
        closed = replace(
            thread,
            state=ThreadState.CLOSED,
            closed_at=self.at,
            closed_reason=Why.DELIVERED_NO_ANSWER.value,
            revision=0,
        )
        return closed, threads.Step(closed)

    def _participants(self, known: Sequence[Participant], former: str = "") -> tuple[Participant, ...]:
        """Who takes part; a `former` GP may still ask, and answers for nothing any more."""
        parts = {part.key: replace(part, copy=part.copy or part.key == former) for part in known}
        gp = self.arrival.resolution.professional if self.arrival.resolution else None
        if self.arrival.again and gp is not None and (same := parts.get(f"rpps:{gp.rpps}")) is not None:
            parts[same.key] = replace(same, address="")  # they write from where the letter goes now
        ward = self.arrival.ward
        if ward is not None:
            parts[f"ward:{ward.slug}"] = Participant(f"ward:{ward.slug}", ward.reply_to, ward.name)
        return tuple(parts.values())

    def _joins(self, person: Recipient, address: str, *, copy: bool = False) -> None:
        """Whoever gets a copy takes part, from now on and under this address."""
        if person.key.startswith("desk:"):
            return
        parts = {part.key: part for part in self.thread.participants}
        known = parts.get(person.key)
        # Who has no RPPS (pharmacy, nurse, patient) reads along, whatever the rule called it; the GP never only does.
        reads_along = person.key != self.thread.gp and (copy or not person.key.startswith(("rpps:", "ward:")))
        if known is None or not known.address or known.revoked:
            parts[person.key] = Participant(person.key, address, person.name, copy=reads_along)
        elif known.copy and not reads_along:
            parts[person.key] = replace(known, copy=False)
        else:
            return
        self.thread = replace(self.thread, participants=tuple(parts.values()))

    def _starts_now(self, copies: Sequence[Delivery]) -> datetime | None:
        """Now, where no letter of ours will leave whose sending could start the ladder."""
        letters = any(c.purpose is Purpose.LETTER and c.to == self.thread.gp for c in copies)
        return None if letters or self.thread.started_at else self.at

    def _end_former(self, copies: Sequence[Delivery]) -> Plan | None:
        """Whoever the letter did not reach, where another doctor gets it: they take no part any more, and nothing of
        it reaches them. What they may have all the same they are asked to delete, and an incident opens."""
        view, letter = self.view, self.arrival.envelope.id
        if view is None or not self.arrival.again:
            return None
        made, readers = {copy.id for copy in copies}, {copy.to for copy in copies}
        told = {d.to for d in view.deliveries if d.purpose in (Purpose.ALERT, Purpose.REMINDER)}
        former = {view.thread.gp, *(key for key in told if key.startswith("rpps:"))} - readers
        if self.thread.gp == view.thread.gp:
            former = set()
        self.thread = replace(
            self.thread,
            participants=tuple(
                replace(part, revoked=True) if part.key in former else part
                for part in self.thread.participants
            ),
        )
        draft = Draft(self.site, self.at, f"{letter}/instead/{self.thread.gp}", view, self.thread, self.by)
        stopped = [
            d
            for d in view.deliveries
            if d.purpose in TELLING
            and (d in on_its_way(view) or d.state is DeliveryState.AMBIGUOUS)
            and (d.to in former or (d.to == self.thread.gp and d.envelope == letter))
            and d.id not in made
        ]
        draft.news += [DeliveryNews(d.id, DeliveryState.CANCELLED, Why.REASSIGNED) for d in stopped]
        for key in sorted(former):
            draft.show(ChatKind.WITHDRAWN, only=key)
        had = {
            d.address: d
            for d in view.deliveries
            if d.purpose is Purpose.LETTER and d.envelope == letter and d.to in former
            if may_stand(d)
        }
        for ordinal, copy in enumerate(had.values()):
            part = Participant(copy.to, copy.address, draft.name(copy.to), revoked=True)
            words = self.site.words.recall(self.thread.reference)
            draft.mail(part, Purpose.RECALL, words, ordinal=ordinal, answers=copy.message_id)
        if had:
            draft.open_incident("wrong_recipient")
        draft.note("sent_elsewhere", Why.REASSIGNED, note=f"former={len(former)} may_have_it={len(had)}")
        return draft.plan()

    def _tell_left_out(self, copies: Sequence[Delivery], follows: str) -> Plan | None:
        """Whoever had the letter that this one replaces and gets no replacement, because the patient's doctor or the
        rules are others now: they are told that it was withdrawn, and what is queued for them stops."""
        view = self.view
        if view is None or follows != "replacement" or observing(self.site, self.arrival.table):
            return None
        meant = meant_by(self.arrival, self.context, view)
        readers = {copy.to for copy in copies if copy.state is not DeliveryState.CANCELLED} | {self.thread.gp}
        past = {part.key for part in self.thread.participants if part.revoked}
        seed = f"{self.arrival.envelope.id}/left-out"
        draft = Draft(self.site, self.at, seed, view, self.thread, self.by)
        left_out = [
            copy
            for copy in view.deliveries
            if copy.to not in readers | past
            and not threads.is_hospital(copy.to)
            and (meant is None or copy.envelope in meant)
        ]
        waiting = on_its_way(view)
        draft.news += [
            DeliveryNews(copy.id, DeliveryState.CANCELLED, Why.SUPERSEDED)
            for copy in left_out
            if copy.purpose in TELLING and (copy in waiting or copy.state is DeliveryState.AMBIGUOUS)
        ]
        had = {c.address: c for c in left_out if c.purpose is Purpose.LETTER and may_stand(c)}
        for ordinal, copy in enumerate(had.values()):
            part = Participant(copy.to, copy.address, draft.name(copy.to))
            words = self.site.words.retracted(self.thread.reference)
            draft.mail(part, Purpose.RECALL, words, ordinal=ordinal, answers=copy.message_id)
        for key in sorted({copy.to for copy in left_out if copy.to.startswith("rpps:")}):
            draft.show(ChatKind.WITHDRAWN, only=key)
        return draft.plan() if draft.deliveries or draft.news else None

    # ----------------------------------------------------------------------------------------- the copies

    def _to_target(
        self,
        target: Target,
        start: datetime,
        ordinal: int,
        *,
        alerts: bool,
        follows: str,
        copy: bool = False,
    ) -> tuple[list[Delivery], list[ButtonGrant]]:
        """Everything that one target means."""
        chat = any(
            (table := self.site.settings.adapters.get(name)) is not None and table.kind in CHAT_KINDS
            for name in target.via
        )
        people = recipients(self.site, target, self.arrival, self.context, self.at)
        if not people and target.rota is not None and not copy:
            nobody = Recipient(f"rota:{target.rota}", target.rota)
            return [self._unsent(target, nobody, ordinal * 100, Why.NO_CHANNEL, Purpose.ALERT)], []
        if target.carries == "pointer" and (chat or self.site.mail_adapter(target.via) is None):
            return self._pointers(target, people, start, ordinal, alerts=alerts, copy=copy)
        made = []
        for number, person in enumerate(people):
            made += self._mails(target, person, start, ordinal * 100 + number, follows=follows, copy=copy)
        if not people and target.carries != "pointer" and not copy:
            raise _CannotSend(Why.NO_ADDRESS)
        return made, []

    def _mails(
        self,
        target: Target,
        person: Recipient,
        start: datetime,
        ordinal: int,
        *,
        follows: str,
        copy: bool,
    ) -> list[Delivery]:
        site, arrival = self.site, self.arrival
        table = site.mail_adapter(target.via)
        carries = target.carries if person.reads_content else "pointer"
        is_gp = self.thread.gp == person.key
        if follows == "same" and not self._has_document:
            return []  # « lettre à venir » after the letter would be wrong
        if carries == "document" and is_gp and arrival.facts.get("addressed") is True:
            # The ward wrote to that mailbox itself: alert and thread only.
            self._joins(person, person.address)
            return []
        problem = self._cannot(table, person, carries)
        registered = arrival.resolution.registration if arrival.resolution else None
        if copy and registered is not None and registered.copies_opposed:
            problem = Why.OBJECTION
        if problem is not None:
            if carries == "pointer" or copy:
                return [self._unsent(target, person, ordinal, problem, Purpose.LETTER)]
            raise _CannotSend(problem)
        self._joins(person, person.address, copy=copy)
        if carries != "pointer":
            box = (person.key, person.address.lower())
            if (*box, "document") in self.told or (*box, carries) in self.told:
                return []
            self.told.add((*box, carries))
        if follows == "replacement" and not self._had_one(person):
            follows = "letter"
        words, purpose, extra = self._words(carries, person, follows, copy=copy)
        full = carries == "document" and (self._has_document or bool(self._handed.words.strip()))
        thread = self.thread
        made = mail(
            site,
            To(person.key, person.address),
            purpose,
            words,
            self.at,
            seed=arrival.envelope.id,
            thread=thread.id,
            reference=thread.reference,
            ordinal=ordinal,
            envelope=arrival.envelope.id,
            table=table,
            name=self._sender_name() if not person.key.startswith(("ward:", "desk:")) else "",
            original=arrival.envelope.id if full else None,
            carries="documents" if full else "none",
            references=earlier(self.view, person.key, person.address),
            receipts=purpose is Purpose.LETTER and carries != "pointer",
            extra=extra,
            not_before=self._later(target, start),
        )
        return [made] if made else []

    def _had_one(self, person: Recipient) -> bool:
        """Whether a letter of this stay went to them before."""
        return self.view is not None and any(copy.to == person.key for copy in sent_letters(self.view))

    def _later(self, target: Target, start: datetime) -> datetime | None:
        """When a copy may leave, if not at once: after the rule's grace, and after the target's quiet hours."""
        quiet = quiet_until(self.rules, target, start, urgent=self.thread.urgency == "urgent")
        return quiet or (start if start > self.at else None)

    def _cannot(self, table: AdapterTable | None, person: Recipient, carries: str) -> Why | None:
        """Why that mail cannot leave."""
        if table is None or table.sender is None or not person.address:
            return Why.NO_ADDRESS
        if not self.site.allowed(person.address):
            return Why.OUTSIDE_DOMAIN
        if carries == "document" and not fits(self.site, table, self.arrival):
            return Why.TOO_LARGE
        return None

    @cached_property
    def _handed(self) -> composing.HandedOn:
        return composing.hand_on(self.arrival.document)

    @cached_property
    def _has_document(self) -> bool:
        """Whether there is anything to read: an event of the hospital's system may come without a letter."""
        return self.arrival.notice.document != "advance_notice" or self._handed.is_letter

    def _words(
        self, carries: str, person: Recipient, follows: str, *, copy: bool
    ) -> tuple[Mail, Purpose, tuple[tuple[str, str], ...]]:
        """Subject and text of a mail, and the headers of secure messaging it keeps."""
        words, arrival, reference = self.site.words, self.arrival, self.thread.reference
        ward = arrival.ward
        name, phone = (ward.name, ward.phone) if ward else ("", None)
        if carries == "pointer":
            return words.pointer(reference), Purpose.ALERT, ()
        if carries == "notice" or (follows in ("", "letter") and is_notice(arrival)):
            text = (
                words.copy(reference, name, phone)
                if copy
                else words.notice(reference, name, phone, arrival.notice.patient)
            )
            return Mail(words.letter_subject(reference), text), Purpose.LETTER, ()
        remarks = [words.draft()] if arrival.notice.status == "draft" else []
        if any(problem.code == "document_elsewhere" for problem in arrival.notice.problems):
            remarks.append(words.partly())
        text = (
            words.copy(reference, name, phone, remarks=remarks)
            if copy
            else words.letter(reference, name, phone, follows=follows, remarks=remarks)
        )
        subject = words.letter_subject(reference)
        if arrival.notice.package == "xdm":
            subject = xdm_subject(arrival)
        if follows == "replacement":
            subject = words.replacing(subject)
        kept = tuple(
            (header, value)
            for header in ("X-MSS-CODECDA", "X-MSS-INS", "X-MSS-NIL")
            if (value := arrival.document.header(header))
        )
        return Mail(subject, text), Purpose.LETTER, kept

    def _sender_name(self) -> str:
        ward = self.arrival.ward
        stay = self.arrival.notice.stay
        facility = self.site.settings.facilities.get(self.thread.facility, "")
        name = ward.name if ward else (stay.ward if stay else None) or ""
        return self.site.words.sender_name(name, facility)

    def _pointers(
        self,
        target: Target,
        people: Sequence[Recipient],
        start: datetime,
        ordinal: int,
        *,
        alerts: bool,
        copy: bool = False,
    ) -> tuple[list[Delivery], list[ButtonGrant]]:
        """Alerts in chat: on the first of the target's channels that each person has. A copy's has no buttons."""
        made: list[Delivery] = []
        grants: list[ButtonGrant] = []
        if not alerts:
            return made, grants
        site, thread = self.site, self.thread
        later = self._later(target, start)
        for number, person in enumerate(people):
            rpps = person.rpps
            substitute = away(self.context.absences, rpps, self.at, site)
            if (named := self.arrival.people.get(substitute or "")) is not None and not named.active:
                substitute = None  # who stood in has left: the phone of whom the letter goes to rings
            reached = None
            for each in (substitute, rpps):
                if each and reached is None:
                    links = [link for link in self.context.links if link.rpps == each]
                    reached = site.chat_adapter(target.via, links)
            if reached is None:
                made.append(
                    self._unsent(target, person, ordinal * 100 + number, Why.NO_CHANNEL, Purpose.ALERT)
                )
                continue
            adapter, links_there = reached
            for place, link in enumerate(links_there):
                owner = self._owner(link.rpps, person)
                if (owner.key, adapter, link.chat) in self.told:
                    continue
                self.told.add((owner.key, adapter, link.chat))
                self._joins(owner, person.address, copy=copy)
                ping, granted = alert(
                    site,
                    self.thread,
                    adapter,
                    link,
                    ChatKind.ALERT,
                    Purpose.ALERT,
                    self.at,
                    seed=self.arrival.envelope.id,
                    ordinal=ordinal * 100 + number * 10 + place,
                    envelope=self.arrival.envelope.id,
                    arrived=self.arrival.envelope.received_at,
                    not_before=later,
                )
                if copy and owner.key != thread.gp and isinstance(ping.recipe, ChatRecipe):
                    ping, granted = replace(ping, recipe=replace(ping.recipe, buttons=())), ()
                made.append(ping)
                grants += granted
        return made, grants

    def _owner(self, rpps: str, person: Recipient) -> Recipient:
        if rpps == person.rpps:
            return person
        return Recipient(f"rpps:{rpps}", name_of(self.arrival.people.get(rpps)), "", rpps)

    def _unsent(
        self, target: Target, person: Recipient, ordinal: int, why: Why, purpose: Purpose
    ) -> Delivery:
        """A copy that was decided and has no way to leave: recorded, so that people see it."""
        adapter = next((n for n in target.via if n in self.site.settings.adapters), target.via[0])
        return Delivery(
            id=delivery_id(f"{self.arrival.envelope.id}/none", person.key, purpose.value, ordinal),
            adapter=adapter,
            to=person.key,
            address="",
            purpose=purpose,
            recipe=ChatRecipe(fields(self.site, self.thread, ChatKind.ALERT)),
            created_at=self.at,
            envelope=self.arrival.envelope.id,
            thread=self.thread.id,
            reference=self.thread.reference,
            state=DeliveryState.CANCELLED,
            why=why,
        )

    def _receipts_before(self) -> int:
        """How many this very letter had, before it did not arrive."""
        own = self.arrival.envelope.id
        copies = self.view.deliveries if self.view and self.arrival.again else ()
        return sum(d.purpose is Purpose.RECEIPT and d.envelope == own for d in copies)

    def _receipt(self, copies: Sequence[Delivery]) -> list[Delivery]:
        """« Reçue 17 h 41, envoyée au Dr X » where the ward asked for one per letter."""
        arrival, ward = self.arrival, self.arrival.ward
        if ward is None or ward.receipts != "each":
            return []
        resolution = arrival.resolution
        gp = resolution.professional if resolution else None
        if gp is None or not any(c.to == f"rpps:{gp.rpps}" and c.purpose is Purpose.LETTER for c in copies):
            return []
        part = next((p for p in self.thread.participants if p.key == f"rpps:{gp.rpps}"), None)
        words = self.site.words.receipt(
            self.thread.reference,
            arrival.envelope.received_at,
            part.name if part else "",
            gp.postcode,
        )
        made = mail(
            self.site,
            To(f"ward:{ward.slug}", ward.reply_to),
            Purpose.RECEIPT,
            words,
            self.at,
            seed=arrival.envelope.id,
            thread=self.thread.id,
            reference=self.thread.reference,
            ordinal=self._receipts_before(),
            envelope=arrival.envelope.id,
            answers=arrival.document.message_id,
            references=earlier(self.view, f"ward:{ward.slug}", ward.reply_to),
        )
        return [made] if made else []


_DAY: Final = re.compile(r"\b\d\d/\d\d/\d{4}\b")


def _names(subject: str, patient: Patient) -> bool:
    """Whether family and first given name stand there, and no other birth date."""
    words = set(tokens(subject))
    families = [set(tokens(name)) for name in (patient.birth_name, patient.used_name) if name]
    born = f"{patient.birth_date:%d/%m/%Y}" if patient.birth_date else ""
    return (
        any(family <= words for family in families)
        and set(tokens(*patient.given_names[:1])) <= words
        and all(day == born for day in _DAY.findall(subject))
    )


def xdm_subject(arrival: Arrival) -> str:
    """The subject that the interoperability framework asks for, kept where the letter bears it (ECO.2.1.3).

    One that names somebody else than the package does, by a name or a birth date, is written anew.
    """
    stated = arrival.document.subject
    notice, patient = arrival.notice, arrival.notice.patient
    if re.match(r"(\[[^\]]*\]\s*)?XDM/1\.0/DDM\+", stated) and (patient is None or _names(stated, patient)):
        return stated
    title = folded(notice.title or "Lettre de liaison")
    title = (notice.title or "Lettre de liaison") if title else "Lettre de liaison"
    parts = [title[:40].strip()]
    if patient:
        parts.append(folded(patient.birth_name or patient.used_name or ""))
        parts += patient.given_names[:1]
        if patient.birth_date:
            parts.append(patient.birth_date.strftime("%d/%m/%Y"))
    return "XDM/1.0/DDM+" + " ".join(part for part in parts if part)
