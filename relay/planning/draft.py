"""A plan in the making: what a step of a thread asks for becomes copies, timers, grants and a line of the trail."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal

from relay import threads
from relay.model import (
    AuditEvent,
    ButtonGrant,
    ChatKind,
    Delivery,
    DeliveryNews,
    DeliveryState,
    EnvelopeState,
    Hold,
    Incident,
    Participant,
    Plan,
    Purpose,
    Thread,
    ThreadState,
    ThreadView,
    Timer,
    Why,
    derived_id,
)
from relay.planning.copies import To, alert, earlier, edits, mail, may_stand, on_its_way
from relay.planning.site import Site, away
from relay.threads import Do

if TYPE_CHECKING:
    from collections.abc import Iterable
    from collections.abc import Set as AbstractSet

    from relay.wording import Mail

NOTIFY_WITHIN: Final = timedelta(hours=72)
"""GDPR art. 33 (1): from the moment a breach is known."""
TELLING: Final = (
    Purpose.LETTER, Purpose.ALERT, Purpose.REMINDER, Purpose.ANSWER, Purpose.RECEIPT, Purpose.EDIT,
)  # fmt: skip
"""Copies that speak of the letter as if it stood."""
COUNTED: Final = (Purpose.LETTER, Purpose.ALERT, Purpose.REMINDER, Purpose.ANSWER)
"""Of these, what a ward is told was stopped: neither its own receipt nor a change of what stands on a phone."""


@dataclass
class Draft:
    """Collects the rows of one plan. `seed` names the cause: the same cause writes the same rows."""

    site: Site
    at: datetime
    seed: str
    view: ThreadView | None = None
    thread: Thread | None = None
    actor: str = "relay"
    deliveries: list[Delivery] = field(default_factory=list)
    grants: list[ButtonGrant] = field(default_factory=list)
    timers: list[Timer] = field(default_factory=list)
    audit: list[AuditEvent] = field(default_factory=list)
    news: list[DeliveryNews] = field(default_factory=list)
    cancel: list[tuple[str, Why]] = field(default_factory=list)
    cancel_purposes: tuple[Purpose, ...] = ()
    drop_timers: tuple[str, ...] = ()
    void: tuple[str, ...] = ()
    incident: Incident | None = None
    hold: Hold | None = None  # of the letter of this thread that did not arrive
    ends: list[str] = field(default_factory=list)  # holds
    said: str = ""  # below the one word of whoever acts, for the hospital's people
    said_to_desk: bool = False  # for a desk alone: it may be about another patient

    # --------------------------------------------------------------------------------------------- building

    @property
    def current(self) -> Thread:
        """The thread as this plan leaves it."""
        thread = self.thread or (self.view.thread if self.view else None)
        assert thread is not None  # noqa: S101 - asked only where a thread is
        return thread

    def note(self, act: str, why: Why | None = None, note: str = "", subject: str | None = None) -> None:
        """A line of the trail."""
        found = self.thread or (self.view.thread if self.view else None)
        self.audit.append(
            AuditEvent(self.actor, act, subject or (found.id if found else self.seed), why, note)
        )

    def take(self, step: threads.Step) -> None:
        """Write a step's thread and timers; what it `does` is `carry_out`'s."""
        if step.changed:
            version = self.view.thread.version + 1 if self.view else step.thread.version
            self.thread = replace(step.thread, version=version)
        if step.anew:
            self.timers = []
            self.drop_timers = (step.thread.id,)
        self.timers += step.timers

    def participant(self, key: str) -> Participant | None:
        """Somebody of the thread."""
        return next((p for p in self.current.participants if p.key == key), None)

    @property
    def ward_key(self) -> str:
        """The sending ward's."""
        return f"ward:{self.current.ward}"

    @property
    def ward_name(self) -> str:
        """As the GP sees it."""
        known = self.site.settings.wards.get(self.current.ward)
        part = self.participant(self.ward_key)
        return known.name if known else part.name if part else ""

    @property
    def sender_name(self) -> str:
        """What From shows a GP."""
        facility = self.site.settings.facilities.get(self.current.facility, "")
        return self.site.words.sender_name(self.ward_name, facility)

    def mail(
        self,
        part: Participant | None,
        purpose: Purpose,
        words: Mail,
        *,
        voice: str = "",
        ordinal: int = 0,
        answers: str | None = None,
        with_letter: bool = False,
        envelope: str | None = None,
        not_before: datetime | None = None,
    ) -> None:
        """One mail to somebody of the thread, beneath the earlier ones; nothing when there is nobody."""
        if part is None or not part.address:
            self.note("no_address", Why.NO_ADDRESS, purpose.value)
            return
        if part.revoked and purpose is not Purpose.RECALL:
            # Whoever said « pas mon patient » is asked to delete, and told nothing more of that patient.
            self.note("no_longer_taking_part", Why.NOT_MY_PATIENT, purpose.value)
            return
        thread = self.current
        made = mail(
            self.site,
            To(part.key, part.address, voice),
            purpose,
            self.naming(part, words),
            self.at,
            seed=self.seed,
            thread=thread.id,
            reference=thread.reference,
            ordinal=ordinal,
            envelope=envelope,
            name=self.sender_name if not threads.is_hospital(part.key) else "",
            answers=answers,
            references=earlier(self.view, part.key, part.address),
            original=thread.letter if with_letter else None,
            carries="documents" if with_letter else "none",
            # Whether the ward's words, or the plea to delete a letter, were read is worth as much as of the letter.
            receipts=purpose in (Purpose.ANSWER, Purpose.RECALL) and not threads.is_hospital(part.key),
            not_before=not_before,
        )
        if made is not None:
            self.deliveries.append(made)

    def naming(self, part: Participant, words: Mail) -> Mail:
        """The hospital's people read which patient it is beneath the reference, where they may; nobody else does."""
        about = self.current.about
        ward = part.key == self.ward_key
        desk = self.site.settings.desks.get(part.key.removeprefix("desk:"))
        if not about or not (ward or (part.key.startswith("desk:") and desk and desk.sees == "document")):
            return words
        first, line, rest = words.text.partition("\n")
        return replace(words, text=f"{first}\n{about}{line}{rest}")

    def tell_ward(self, words: Mail, *, answers: str | None = None, ordinal: int = 0) -> None:
        """A note to the sending ward."""
        self.mail(self.participant(self.ward_key), Purpose.WARD_NOTE, words, answers=answers, ordinal=ordinal)

    def tell_failed(self, who: str, why: Why) -> None:
        """The ward's note about a letter that did not arrive; with lines to fill in where it waits for them."""
        hold, part = self.hold, self.participant(self.ward_key)
        if hold is None:
            self.mail(part, Purpose.WARD_NOTE, self.site.words.failed(self.current.reference, who, why))
            return
        mends = why not in (Why.NOT_OPENED, Why.UNREADABLE)
        words = self.site.words.failed(self.current.reference, who, why, fields=mends)
        self.mail(part, Purpose.HOLD_NOTE, words, envelope=hold.envelope)

    def tell_desk(
        self,
        name: str | None,
        words: Mail,
        *,
        with_letter: bool = False,
        not_before: datetime | None = None,
    ) -> None:
        """A note to a desk."""
        desk = self.site.desk_named(name)
        if desk is None:
            self.note("no_desk", Why.NO_ADDRESS)
            return
        part = Participant(f"desk:{desk.name}", desk.mail, desk.name)
        with_letter = with_letter and desk.sees == "document"
        self.mail(part, Purpose.WARD_NOTE, words, with_letter=with_letter, not_before=not_before)

    def quiet_until(self, target: str) -> datetime | None:
        """When the quiet hours of a pinned target end; None when it may ring now. Urgent ignores them."""
        pinned = self.current.followup
        quiet = pinned.targets.get(target, {}).get("quiet") if pinned and target else None
        if pinned is None or not isinstance(quiet, str) or self.current.urgency == "urgent":
            return None
        hours = threads.clock(pinned, quiet)
        return hours.closes_at(self.at) if hours else None

    def remind_by_chat(
        self,
        rpps: str,
        via: Iterable[str],
        kind: ChatKind = ChatKind.REMINDER,
        target: str = "",
        purpose: Purpose = Purpose.REMINDER,
    ) -> bool:
        """A new message with buttons on each account of that person; False when there is none."""
        links = self.view.links if self.view else ()
        part = self.participant(f"rpps:{rpps}")
        if part is not None and part.revoked:
            return False
        chosen = self.site.chat_adapter(tuple(via), [link for link in links if link.rpps == rpps])
        if chosen is None:
            return False
        adapter, accounts = chosen
        later = self.quiet_until(target)
        for ordinal, link in enumerate(accounts):
            made, grants = alert(
                self.site,
                self.current,
                adapter,
                link,
                kind,
                purpose,
                self.at,
                seed=self.seed,
                not_before=later,
                ordinal=ordinal,
            )
            self.deliveries.append(made)
            self.grants += grants
        return True

    @property
    def chats(self) -> tuple[str, ...]:
        """Every chat of the site, in the order of the configuration."""
        return tuple(self.site.settings.adapters)

    def show(self, kind: ChatKind, *, when: datetime | None = None, only: str | None = None) -> None:
        """Change the messages of the thread that people see."""
        if self.view is not None:
            self.deliveries += edits(
                self.site, self.view, self.current, kind, self.at, seed=self.seed, when=when, only=only
            )

    def stop(self, why: Why, *purposes: Purpose) -> None:
        """Cancel what is queued of the thread for these purposes."""
        if self.cancel:
            why, purposes = self.cancel[0][1], tuple(dict.fromkeys((*self.cancel_purposes, *purposes)))
        self.cancel, self.cancel_purposes = [(self.current.id, why)], purposes

    def stop_all(self, why: Why) -> None:
        """Cancel all that would tell anybody of the letter; what asks to delete it, and the hospital's own notes, go on."""
        self.stop(why, *TELLING)
        if self.view is not None:
            # What may have arrived, and would be sent once more.
            twice = (
                d for d in self.view.deliveries if d.state is DeliveryState.AMBIGUOUS and d.purpose in TELLING
            )
            self.news += [DeliveryNews(d.id, DeliveryState.CANCELLED, why) for d in twice]

    def withdraw(self, gone: AbstractSet[str], stands: AbstractSet[str | None]) -> None:
        """Take the copies of some arrivals back while the thread goes on with the others: the ward is told."""
        copies = self.view.deliveries if self.view else ()
        waiting = on_its_way(self.view) if self.view else ()
        stopped = [d for d in waiting if d.envelope in gone and d.purpose in TELLING]
        self.news += [DeliveryNews(d.id, DeliveryState.CANCELLED, Why.SUPERSEDED) for d in stopped]
        if self.current.letter in gone:
            left = [d for d in copies if d.purpose is Purpose.LETTER and d.envelope in stands]
            latest = max(left, key=lambda d: (d.created_at, d.id), default=None)
            if latest is not None and latest.envelope is not None:
                self.take(threads.Step(replace(self.current, letter=latest.envelope)))
        self.ends += [hold.id for hold in (self.view.holds if self.view else ()) if hold.envelope in gone]
        told = len(self.had_letter(gone))
        self.tell_ward(self.site.words.ward_recalled(self.current.reference, len(stopped), told))

    # ------------------------------------------------------------------------------------------- carrying out

    def carry_out(self, step: threads.Step, event: threads.Event) -> None:
        """Make what the step asks for. The thread was taken before."""
        thread, words = self.current, self.site.words
        who = event.words or self.name(event.by)
        self.relieve_desk(event)
        for does in step.does:
            match does:
                case Do.SHOW_TAKEN:
                    closed = thread.state is ThreadState.CLOSED
                    kind = ChatKind.DONE if closed else ChatKind.TAKEN
                    self.show(kind, when=thread.acknowledged_at or self.at)
                    self.void = (thread.id,)
                    self.stop(Why.ANSWERED, Purpose.ALERT, Purpose.REMINDER)
                case Do.SHOW_WITHDRAWN:
                    self.show(ChatKind.WITHDRAWN)
                    self.void = (thread.id,)
                case Do.SHOW_REFUSED if event.by != thread.gp:
                    # Not the patient of whoever was told beside the GP: the GP's own phone and buttons stay.
                    self.show(ChatKind.REFUSED, only=event.by)
                case Do.SHOW_REFUSED:
                    self.show(ChatKind.REFUSED)
                    self.void = (thread.id,)
                case Do.SHOW_ASKED:
                    self.show(ChatKind.ASKED)
                    self.stop(Why.ANSWERED, Purpose.ALERT, Purpose.REMINDER)
                case Do.SHOW_SNOOZED:
                    self.show(ChatKind.SNOOZED, when=thread.snoozed_until, only=event.by)
                    self.stop(Why.ANSWERED, Purpose.REMINDER)
                case Do.SHOW_ALERT | Do.REMIND_GP:
                    self.remind_gp(step.target)
                case Do.REMIND:
                    self.remind(step.target)
                case Do.REMIND_WARD:
                    self.mail(
                        self.participant(self.ward_key),
                        Purpose.REMINDER,
                        words.ward_reminder(thread.reference, *self.ward_owes()),
                    )
                case Do.STOP_COPIES:
                    self.stop_all(step.why or Why.BY_PERSON)
                case Do.ASK_DELETION:
                    self.ask_deletion(step)
                case Do.OPEN_INCIDENT if step.why is not Why.RECALLED:
                    self.open_incident("wrong_recipient")
                case Do.OPEN_INCIDENT:
                    if self.had_letter():  # within the grace nothing left, and nobody read anything
                        self.open_incident("recall")
                case Do.TELL_DESK:
                    why = step.why or Why.BY_PERSON
                    desk = self.site.desk_named(thread.desk)
                    said = self.said if desk and desk.sees == "document" else ""
                    self.tell_desk(
                        thread.desk,
                        words.desk_thread(thread.reference, why, self.owed(why), said),
                        with_letter=self.desk_reads(),
                    )
                case Do.TELL_WARD:
                    self.tell_ward_why(step, who)

    def relieve_desk(self, event: threads.Event) -> None:
        """Somebody else answered what a desk was asked to see to: it need not look for them any more."""
        before, now = self.view.thread if self.view else None, self.current
        if before is None or before.desk is None or now.desk is not None or not event.by:
            return
        if event.by.startswith(("desk:", "admin")):
            return
        who = event.words or self.name(event.by) or self.site.words.role(event.by)
        recalled = now.closed_reason == Why.RECALLED.value
        self.tell_desk(before.desk, self.site.words.desk_relieved(now.reference, who, recalled=recalled))

    def open_incident(self, kind: Literal["recall", "wrong_recipient"]) -> None:
        """A letter may have reached somebody it was not for: the clock of its notification starts."""
        thread = self.current
        self.incident = Incident(
            derived_id("incident", thread.id, self.seed),
            kind,
            self.at,
            self.at + NOTIFY_WITHIN,
            thread.reference,
        )
        if (dpo := self.site.settings.dpo) is None:
            return
        made = mail(
            self.site,
            To("dpo", dpo),
            Purpose.ADMIN,
            self.site.words.incident(thread.reference, kind, self.at, self.incident.due),
            self.at,
            seed=self.seed,
            thread=thread.id,
            reference=thread.reference,
        )
        if made is not None:
            self.deliveries.append(made)

    def tell_ward_why(self, step: threads.Step, who: str) -> None:
        """The ward's note about what became of its letter."""
        thread, words = self.current, self.site.words
        gp = self.name(thread.gp) or who
        match step.why:
            case Why.GP_REFUSED:
                said = "" if self.said_to_desk else self.said
                self.tell_ward(words.ward_refused(thread.reference, who or gp, said))
            case Why.LADDER_EXHAUSTED:
                owed = self.owed(Why.LADDER_EXHAUSTED) if self.waited_for is ThreadState.AWAITING_WARD else ""
                self.tell_ward(words.nobody(thread.reference, thread.desk or "", owed))
            case Why.RECALLED:
                told = len(self.had_letter())
                stopped = sum(d.purpose in COUNTED for d in on_its_way(self.view)) if self.view else 0
                self.tell_ward(words.ward_recalled(thread.reference, stopped, told))
            case Why.BY_PERSON:
                self.tell_ward(words.given_back(thread.reference, ""))
            case Why.SUPERSEDED:
                self.tell_ward(words.ward_recalled(thread.reference, 0, len(self.had_letter())))
            case None:
                pass
            case why:
                self.tell_failed(gp, why)

    def name(self, key: str) -> str:
        """How somebody is named to others."""
        if key.startswith("desk:"):
            return key.removeprefix("desk:")
        part = self.participant(key)
        return part.name if part else ""

    def desk_reads(self) -> bool:
        """Whether the ladder's desk is meant to get the letter itself."""
        pinned = self.current.followup
        if pinned is None or not pinned.ladder or not pinned.ladder[-1].hand_to:
            return False
        return pinned.targets.get(pinned.ladder[-1].hand_to, {}).get("carries") == "document"

    def had_letter(self, among: AbstractSet[str] | None = None) -> tuple[Delivery, ...]:
        """The letters that left or may have, one for each mailbox; `among` narrows them to those of some arrivals."""
        view = self.view.deliveries if self.view else ()
        left = (d for d in view if d.purpose is Purpose.LETTER and may_stand(d))
        return tuple({d.address: d for d in left if among is None or d.envelope in among}.values())

    def ward_owes(self) -> tuple[datetime, bool]:
        """Since when the ward is waited for, and whether somebody asked it; else a desk gave the follow-up back."""
        since = self.view.thread.counts_from if self.view else None
        view = self.view.deliveries if self.view else ()
        asked = max((d.created_at for d in view if d.purpose is Purpose.QUESTION), default=None)
        if asked is None or (since is not None and asked < since - timedelta(seconds=1)):
            return since or self.at, False
        return asked, True

    def ask_deletion(self, step: threads.Step) -> None:
        """A mail to everybody who got the letter, or to the GP who refused it."""
        thread, words = self.current, self.site.words
        for ordinal, letter in enumerate(self.had_letter()):
            part = next(
                (p for p in thread.participants if p.key == letter.to and p.address == letter.address),
                Participant(letter.to, letter.address),
            )
            text = (
                words.refused(thread.reference)
                if step.why is Why.GP_REFUSED
                else words.recall(thread.reference)
            )
            if step.why is Why.GP_REFUSED and not part.revoked:
                continue
            self.mail(part, Purpose.RECALL, text, ordinal=ordinal)

    @property
    def waited_for(self) -> ThreadState | None:
        """Whose turn it was before this plan."""
        return self.view.thread.state if self.view else None

    def owed(self, why: Why) -> str:
        """For a desk at the end of a ladder: whom it has to look for, where that is not whoever got the letter."""
        if why is not Why.LADDER_EXHAUSTED:
            return ""
        if self.waited_for is ThreadState.AWAITING_WARD:
            return self.site.words.ward_waited_for(*self.ward_owes())
        return (
            self.site.words.answer_waits(self.answered_at())
            if self.waited_for is ThreadState.AWAITING_GP
            else ""
        )

    def answered_at(self) -> datetime:
        """When the ward's last answer was carried to whoever asked."""
        sent = self.current.started_at or self.current.opened_at
        view = self.view.deliveries if self.view else ()
        return max((d.created_at for d in view if d.purpose is Purpose.ANSWER), default=sent)

    def remind(self, target: str) -> None:
        """A rung: whom the pinned target names, on its first channel that reaches them, else their mailbox."""
        thread = self.current
        known = thread.followup.targets.get(target, {}) if thread.followup else {}
        who = str(known.get("who", "registered_gp"))
        if who == "sending_ward":
            self.mail(
                self.participant(self.ward_key),
                Purpose.REMINDER,
                self.site.words.ward_unanswered(thread.reference, thread.started_at or thread.opened_at),
                not_before=self.quiet_until(target),
            )
        elif who.startswith("desk/"):
            self.tell_desk(
                who.removeprefix("desk/"),
                self.site.words.pointer(thread.reference),
                not_before=self.quiet_until(target),
            )
        elif (other := self.meant(who)) is not None:
            via = known.get("via")
            chats = tuple(str(name) for name in via) if isinstance(via, list | tuple) else ()
            if not self.remind_by_chat(other.key.removeprefix("rpps:"), chats, target=target):
                self.remind_by_mail(other.key, target=target)
        else:
            self.remind_gp(target)

    def meant(self, who: str) -> Participant | None:
        """Somebody else than the GP whom a rung names and who may answer; None where nobody like that takes part."""
        rpps = None
        if who.startswith("rota/"):
            rpps = self.site.on_duty(who.removeprefix("rota/"), self.at)
        elif who == "substitute" and self.view is not None:
            rpps = away(self.view.absences, self.current.gp.removeprefix("rpps:"), self.at, self.site)
        part = self.participant(f"rpps:{rpps}") if rpps else None
        answers = part is not None and not part.revoked and not part.copy and part.key != self.current.gp
        return part if answers else None

    def remind_gp(self, target: str = "", *, answer: bool = False) -> None:
        """The GP, or who stands in for them, by the target's chat where one is linked, else in the GP's mailbox."""
        thread = self.current
        known = thread.followup.targets.get(target, {}) if thread.followup and target else {}
        via = known.get("via")
        chats = tuple(str(name) for name in via) if isinstance(via, list | tuple) else self.chats
        # Whoever read the letter and asked is waited for because of the answer, not of the letter.
        kind = ChatKind.ANSWER_WAITS if thread.state is ThreadState.AWAITING_GP else ChatKind.REMINDER
        substitute = self.meant("substitute")
        for key in (substitute.key if substitute else "", thread.gp):
            if key and self.remind_by_chat(key.removeprefix("rpps:"), chats, kind, target):
                return
        self.remind_by_mail(thread.gp, answer=answer, target=target)

    def remind_by_mail(self, key: str, *, answer: bool = False, target: str = "") -> None:
        """A reminder in that person's mailbox, after the quiet hours of the target that named them."""
        thread = self.current
        sent = thread.started_at or thread.opened_at
        answer = answer or thread.state is ThreadState.AWAITING_GP
        if answer:
            sent = self.answered_at()
        self.mail(
            self.participant(key),
            Purpose.REMINDER,
            self.site.words.reminder(thread.reference, sent, answer=answer),
            not_before=self.quiet_until(target),
        )

    # -------------------------------------------------------------------------------------------------- done

    def plan(
        self,
        *,
        envelope: str | None = None,
        state: EnvelopeState | None = None,
        why: Why | None = None,
        kind: str | None = None,
        message_id: str | None = None,
        fingerprint: str | None = None,
        hold: Hold | None = None,
        done_timers: tuple[str, ...] = (),
        used_grant: str | None = None,
        end_hold: tuple[str, ...] = (),
    ) -> Plan:
        """The rows, in one plan. A thread that closes takes the holds of its lost letters with it."""
        found = self.thread or (self.view.thread if self.view else None)
        before, now = self.view.thread if self.view else None, self.thread
        if before and now and now.closed_reason and now.closed_reason != before.closed_reason and self.view:
            self.ends += [each.id for each in self.view.holds]
        return Plan(
            at=self.at,
            envelope=envelope,
            state=state,
            why=why,
            kind=kind,
            message_id=message_id,
            fingerprint=fingerprint,
            reference=found.reference if found else None,
            thread=self.thread,
            deliveries=tuple(unless_observing(self.site, each) for each in self.deliveries),
            news=tuple(self.news),
            cancel_queued=tuple(self.cancel),
            cancel_purposes=self.cancel_purposes,
            timers=tuple(self.timers),
            drop_timers=self.drop_timers,
            done_timers=done_timers,
            hold=hold or self.hold,
            end_hold=tuple(dict.fromkeys((*end_hold, *self.ends))),
            grants=tuple(self.grants),
            used_grant=used_grant,
            void_grants_of=self.void,
            incident=self.incident,
            audit=tuple(self.audit),
        )


def unless_observing(site: Site, delivery: Delivery) -> Delivery:
    """The copy; where the site only observes, recorded and never sent."""
    if site.settings.mode == "observe" and delivery.state is DeliveryState.QUEUED:
        return replace(delivery, state=DeliveryState.CANCELLED, why=Why.OBSERVE)
    return delivery
