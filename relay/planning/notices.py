"""Notices: a decision about one letter becomes a plan. Sent, held or filed; nothing is ever dropped."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

from relay import composing, threads
from relay.errors import Refused
from relay.model import (
    Ask,
    AuditEvent,
    ButtonGrant,
    ChatKind,
    ChatRecipe,
    Context,
    DecisionRecord,
    Delivery,
    DeliveryState,
    EnvelopeState,
    Hold,
    LadderStep,
    Outcome,
    Participant,
    Pinned,
    Plan,
    Purpose,
    Thread,
    ThreadState,
    Timer,
    Why,
    delivery_id,
    derived_id,
)
from relay.planning.copies import To, alert, earlier, fields, mail
from relay.planning.draft import Draft, unless_observing
from relay.planning.site import (
    CHAT_KINDS,
    Arrival,
    Recipient,
    Site,
    away,
    folded,
    further_stays,
    joined,
    name_of,
    own_stay,
    patient_ins,
    recipients,
    stay_of_another,
    thread_id,
)
from relay.recognition import SEALED
from relay.resolution import document_keys as own_documents
from relay.resolution import replaced_keys as every_named
from relay.threads import Event, Happening
from relay.wording import Mail
from rules.engine import leaves_at
from rules.engine import not_before as quiet_until
from rules.language import facts_as_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from relay.config import AdapterTable
    from relay.model import Envelope, Notice, ThreadView
    from relay.resolution import StayKeys
    from rules.engine import Decision
    from rules.language import RuleSet, Target

NUMBERED: Final = frozenset({"cda", "hl7v2", "fhir", "notice"})
"""Forms whose documents bear a number of their own: what another document names is known when it comes."""
NOTICE: Final = "notice"
FORMS: Final = ("cda", "hprim", "hl7v2", "fhir", "pdf", "text", NOTICE)
"""In which a stay may have been told: the formats of letters, and a notice without any."""
_IDENTITY: Final = frozenset({Why.FLOOR_IDENTITY, Why.TWO_PATIENTS})
_NOTHING_TO_FILL_IN: Final = frozenset(
    {
        Why.FLOOR_CONSENT, Why.OBJECTION, Why.TWO_PATIENTS, Why.BROKEN_PACKAGE, Why.AUTHENTICATION_FAILED,
        Why.TOO_LARGE, Why.TRUNCATED, *SEALED,
    }
)  # fmt: skip
"""No line of the ward's would make these letters fit to leave."""
_LAST_RESORT: Final = "1d"
_ROOM: Final = 16_384
"""Bytes our own headers and words may add to a letter."""


# ------------------------------------------------------------------------------------------------ documents


def document_keys(arrival: Arrival) -> tuple[str, ...]:
    """What a later arrival is compared with: this document, what it replaces, its stay in this form.

    A retraction bears the name of what it takes back and is no document come again: it leaves no form either.
    """
    notice = arrival.notice
    gone = _named(notice)
    marks = [*_own(notice), *(f"void-{key}" for key in gone)]
    if notice.document != "retraction":
        marks += [f"heir-{key}" for key in own_documents(notice) if gone]
        marks += [_form(key, _own_form(arrival)) for key in _stays(arrival.stay)]
    return tuple(dict.fromkeys(marks))


def ask_of_notice(notice: Notice, stay: StayKeys | None, ask: Ask) -> Ask:
    """`ask` with the document keys to look up: itself, what it replaces or takes back, whether either was withdrawn
    before and by what, its stay in any form."""
    own, gone = own_documents(notice), _named(notice)
    void = [f"void-{key}" for key in (*own, *gone)]
    heirs = [f"heir-{key}" for key in gone]
    forms = [_form(key, form) for key in _stays(stay) for form in FORMS]
    keys = (*ask.document_keys, *own, *_own(notice), *every_named(notice), *void, *heirs, *forms)
    return replace(ask, document_keys=tuple(dict.fromkeys(keys)))


def _own(notice: Notice) -> tuple[str, ...]:
    """The keys by which this very document is known again."""
    own = own_documents(notice)
    if notice.document != "retraction":
        return own
    gone = _named(notice)
    return (*(key for key in own if key.startswith("doc-") and key not in gone), *(f"back-{k}" for k in gone))


def _named(notice: Notice) -> tuple[str, ...]:
    """The documents it replaces or takes back. A retraction may come as the very document, which replaced others."""
    return every_named(replace(notice, replaces=None) if notice.retracts else notice)


def _stays(stay: StayKeys | None) -> tuple[str, ...]:
    return tuple(key for key in (stay.number, stay.day) if key) if stay else ()


def _own_form(arrival: Arrival) -> str:
    return NOTICE if is_notice(arrival) else arrival.notice.format or ""


def is_notice(arrival: Arrival) -> bool:
    """A discharge told before its letter: in a ward's words, or by a movement that encloses no document."""
    notice = arrival.notice
    if notice.document != "advance_notice":
        return False
    return notice.format not in ("hl7v2", "fhir") or not composing.hand_on(arrival.document).is_letter


def _forms(arrival: Arrival, context: Context) -> frozenset[str]:
    """In which forms the stay was told before."""
    return frozenset(
        form
        for key in _stays(arrival.stay)
        for form in FORMS
        if context.documents.get(_form(key, form)) not in (None, arrival.envelope.id)
    )


def _form(stay: str, form: str) -> str:
    return derived_id("form", stay, form)


# ---------------------------------------------------------------------------------------------- the decision


def record(site: Site, arrival: Arrival, at: datetime) -> DecisionRecord | None:
    """What is kept of the decision."""
    decision = arrival.decision
    if decision is None:
        return None
    return DecisionRecord(
        ruleset=site.rules.digest if site.rules else "",
        rule=decision.rule,
        action=decision.action,
        why=Why(decision.why),
        facts=facts_as_json(arrival.facts),
        at=at,
        targets=decision.targets,
        followup=decision.followup,
        undecided_at=decision.undecided_at,
        undecided=decision.undecided,
        copies=tuple(name for name, _ in decision.copies),
        observed=decision.observed,
    )


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


# -------------------------------------------------------------------------------------------------- planning


def plan_notice(
    site: Site,
    arrival: Arrival,
    context: Context,
    at: datetime,
    *,
    ends: tuple[str, ...] = (),
) -> Plan:
    """What a decided notice leads to, in one plan. Deciding again writes the same rows.

    `ends` are the holds that a release ends; `arrival.released` says who released.
    """
    if context.duplicate_of not in (None, arrival.envelope.id) and not ends:
        return plan_ignore(arrival, Why.DUPLICATE, at)
    notice, decision = arrival.notice, arrival.decision
    by = arrival.released.by if arrival.released else "relay"
    if decision is None or site.rules is None:
        return plan_hold(site, arrival, context, Why.NO_RULES, at)
    view = joined(arrival, context)
    if _same_document(arrival, context) and not ends:
        if view is not None and (again := _undone(view)):
            return plan_hold(site, arrival, context, again, at)
        return plan_ignore(arrival, Why.DUPLICATE, at)
    if decision.action == "hold":
        return plan_hold(
            site, arrival, context, Why(decision.why), at, reason=decision.reason, desk=_desk(site, decision)
        )
    if stay_of_another(arrival, context) and not ends:
        return plan_hold(site, arrival, context, Why.STAY_OF_ANOTHER, at)
    if decision.action == "file" and decision.copies:
        # Nobody is asked, but somebody reads along.
        return _Writer(site, site.rules, arrival, context, at, view, ends=ends, by=by).plan(decision)
    if decision.action == "file":
        return _filed(site, arrival, view, Why(decision.why), at, ends, by)
    if _withdrawn(arrival, context):
        if notice.document != "retraction" and notice.replaces:  # what it replaced goes with it
            return _retracted(site, arrival, context, view, at, ends, by, why=Why.SUPERSEDED)
        return _filed(site, arrival, view, Why.SUPERSEDED, at, ends, by)
    if notice.document == "retraction":
        if view is None and not ends and _names_known(arrival, context):
            return plan_hold(site, arrival, context, Why.UNCLEAR, at)
        return _retracted(site, arrival, context, view, at, ends, by)
    if view is not None and _refused_by(view, arrival) and not _person_insists(arrival):
        return plan_hold(site, arrival, context, Why.GP_REFUSED, at)
    writer = _Writer(site, site.rules, arrival, context, at, view, ends=ends, by=by)
    return writer.plan(decision)


def _same_document(arrival: Arrival, context: Context) -> bool:
    """The same document came before in another mail. A new version of it is a new document."""
    return any(context.documents.get(key) not in (None, arrival.envelope.id) for key in _own(arrival.notice))


def _undone(view: ThreadView) -> Why | None:
    """Why a letter that came before may have to leave again: taken back, refused, or never arrived. A person says."""
    thread = view.thread
    if thread.closed_reason == Why.RECALLED.value:
        return Why.RECALLED
    if any(part.key == thread.gp and part.revoked for part in thread.participants):
        return Why.GP_REFUSED
    letters = [d for d in view.deliveries if d.purpose is Purpose.LETTER and d.to == thread.gp]
    if letters and all(d.state is DeliveryState.FAILED for d in letters):
        return letters[-1].why or Why.REFUSED
    return None


def _refused_by(view: ThreadView, arrival: Arrival) -> bool:
    """Whether the GP it would go to has said « pas mon patient » of this stay: another letter is another disclosure."""
    gp = arrival.resolution.professional if arrival.resolution else None
    return gp is not None and any(p.key == f"rpps:{gp.rpps}" and p.revoked for p in view.thread.participants)


def _person_insists(arrival: Arrival) -> bool:
    """A desk released it, or a ward named the doctor."""
    said = arrival.released
    return said is not None and (said.gp is not None or not said.by.startswith("ward:"))


def _names_known(arrival: Arrival, context: Context) -> bool:
    """It takes back, by its number alone, a document that came before: whose thread that is a person finds out."""
    return any(key in context.documents for key in _named(arrival.notice))


def _withdrawn(arrival: Arrival, context: Context) -> bool:
    """Its replacement or retraction arrived first; what a retraction names was replaced or taken back already."""
    notice = arrival.notice
    if notice.document == "retraction" and _of_movement(notice):
        return False  # a discharge that was changed before can be cancelled all the same
    named = _named(notice) if notice.document == "retraction" else own_documents(notice)
    return any(context.documents.get(f"void-{key}") not in (None, arrival.envelope.id) for key in named)


def _of_movement(notice: Notice) -> bool:
    """Whether a retraction takes back the discharge itself, and no document of it."""
    return not _named(notice) or (notice.format == "hl7v2" and notice.code is None)


def _desk(site: Site, decision: Decision) -> str | None:
    target = site.rules.targets.get(decision.hold) if site.rules and decision.hold else None
    return target.desk if target else None


def _seen(site: Site | None, arrival: Arrival, at: datetime) -> Plan:
    """The envelope's side of a plan, common to all outcomes."""
    return Plan(
        at=at,
        envelope=arrival.envelope.id,
        kind=arrival.recognised.outcome.value,
        message_id=arrival.document.message_id,
        fingerprint=arrival.fingerprint,
        decision=record(site, arrival, at) if site else None,
        patient=patient_ins(arrival),
    )


def plan_ignore(arrival: Arrival, why: Why, at: datetime) -> Plan:
    """An arrival that needs nothing: kept, with its reason."""
    return replace(
        _seen(None, arrival, at),
        state=EnvelopeState.IGNORED,
        why=why,
        audit=(AuditEvent("relay", "ignored", arrival.envelope.id, why),),
    )


def plan_corrupt(site: Site, envelope: Envelope, why: Why, at: datetime) -> Plan:
    """Bytes nobody can read: set aside whole; the ward whose mail it may be and the admins (else a desk) are told."""
    table = site.settings.adapters.get(envelope.adapter)
    ward, desk = table.ward if table else None, site.desk
    people = [(To("admin", address), Purpose.ADMIN) for address in site.settings.admins]
    if not people and desk is not None:
        people = [(To(f"desk:{desk.name}", desk.mail), Purpose.HOLD_NOTE)]
    thread = thread_id(envelope.id)
    reference, words = site.tokens.reference(thread), site.words
    told = [(to, purpose, words.corrupt(envelope.adapter, why)) for to, purpose in people]
    if ward is not None:
        note = words.hold_note(reference, words.why(why), fields=False)
        told.append((To(f"ward:{ward.slug}", ward.reply_to), Purpose.HOLD_NOTE, note))
    made = [
        mail(
            site,
            to,
            purpose,
            said,
            at,
            seed=envelope.id,
            thread=thread,
            reference=reference,
            tracked=False,
            ordinal=ordinal,
            envelope=envelope.id if purpose is Purpose.HOLD_NOTE else None,
        )
        for ordinal, (to, purpose, said) in enumerate(told)
    ]
    silent = observing(site, table)
    return Plan(
        at=at,
        envelope=envelope.id,
        state=EnvelopeState.CORRUPT,
        why=why,
        deliveries=tuple(
            replace(each, state=DeliveryState.CANCELLED, why=Why.OBSERVE) if silent else each
            for each in made
            if each is not None
        ),
        audit=(AuditEvent("relay", "corrupt", envelope.id, why),),
    )


def _filed(
    site: Site,
    arrival: Arrival,
    view: ThreadView | None,
    why: Why,
    at: datetime,
    ends: tuple[str, ...],
    by: str,
) -> Plan:
    """Kept with its stay, nobody asked."""
    return replace(
        _seen(site, arrival, at),
        state=EnvelopeState.DECIDED,
        why=why,
        document_keys=document_keys(arrival),
        reference=view.thread.reference if view else None,
        end_hold=ends,
        audit=(AuditEvent(by, "filed", arrival.envelope.id, why),),
    )


def _sent_letters(view: ThreadView) -> tuple[Delivery, ...]:
    """Copies of letters and notices that left, or will."""
    return tuple(
        d for d in view.deliveries if d.purpose is Purpose.LETTER and d.state is not DeliveryState.CANCELLED
    )


def _meant(arrival: Arrival, context: Context, view: ThreadView) -> frozenset[str] | None:
    """The envelopes of the thread that a retraction or replacement names; None: all of the stay, whatever came.

    Empty where it names a document that never came: it is known when it does.
    """
    notice = arrival.notice
    named = _named(notice)
    found = frozenset(context.documents[key] for key in named if key in context.documents)
    if notice.document == "retraction" and _of_movement(notice):
        return None
    here = {view.thread.letter, *(d.envelope for d in _sent_letters(view))}
    if not found:
        # A letter without a number of its own may be the one that is meant: there is but one stay.
        return None if not named or not _forms(arrival, context) <= NUMBERED else frozenset()
    if notice.retracts and notice.replaces:  # what it replaced was gone before
        before = every_named(replace(notice, retracts=None))
        found |= {context.documents[key] for key in before if key in context.documents}
    elif any(context.documents.get(f"heir-{key}") for key in named):
        last = max((d.created_at for d in _sent_letters(view) if d.envelope in found), default=None)
        found |= {d.envelope for d in _sent_letters(view) if d.envelope and last and d.created_at < last}
    return found & here


def _retracted(
    site: Site,
    arrival: Arrival,
    context: Context,
    view: ThreadView | None,
    at: datetime,
    ends: tuple[str, ...],
    by: str,
    *,
    why: Why = Why.RULE,
) -> Plan:
    """The hospital withdraws a document: those who got it are told; one that never came is remembered.

    The thread ends with its last letter; while another stands, only the one that is named goes.
    """
    base = _filed(site, arrival, view, why, at, ends, by)
    if view is None:
        return base
    gone = _meant(arrival, context, view)
    if gone is not None and not gone:
        return base
    notices = {context.documents.get(_form(key, NOTICE)) for key in _stays(arrival.stay)}
    stands = {d.envelope for d in _sent_letters(view)} - notices - (gone or set())
    draft = Draft(site, at, arrival.envelope.id, view, actor=by)
    if gone is None or not stands:
        event = Event(Happening.RETRACTED)
        step = threads.advance(view.thread, event, at, view.timers)
        draft.take(step)
        draft.carry_out(replace(step, why=Why.SUPERSEDED), event)
        told = draft.had_letter()
    else:
        told = draft.had_letter(gone)
        draft.withdraw(gone, stands)
    for ordinal, letter in enumerate(told):
        part = Participant(letter.to, letter.address, draft.name(letter.to))
        draft.mail(
            part,
            Purpose.RECALL,
            site.words.retracted(view.thread.reference),
            ordinal=ordinal,
            answers=letter.message_id,
        )
    made = draft.plan()
    return replace(
        made,
        envelope=base.envelope,
        state=base.state,
        why=base.why,
        kind=base.kind,
        message_id=base.message_id,
        fingerprint=base.fingerprint,
        decision=base.decision,
        document_keys=base.document_keys,
        end_hold=ends,
        audit=(*base.audit, *made.audit),
    )


# ----------------------------------------------------------------------------------------------------- holding


def observing(site: Site, table: AdapterTable | None) -> bool:
    """Whether everything from there is decided and shown, and nothing leaves."""
    return "observe" in (site.settings.mode, table.mode if table else "")


def plan_hold(
    site: Site,
    arrival: Arrival,
    context: Context,
    why: Why,
    at: datetime,
    *,
    reason: str | None = None,
    desk: str | None = None,
    view: ThreadView | None = None,
    candidates: tuple[str, ...] | None = None,
    tell_ward: bool = True,
) -> Plan:
    """A person must look: the hold, one mail to its desk, one to the ward as an answer to its letter.

    `reason` are a rule's or a floor's words, the reason's own where there are none. `view`: the thread it
    belongs to, where that is known otherwise than by its stay. The desk's mails are spaced
    by the dispatcher, a minute at least apart for each desk; these are queued at once.
    """
    found, words, envelope = site.desk_named(desk), site.words, arrival.envelope
    said = reason or words.why(why)
    view = view or joined(arrival, context)
    planned = thread_id(envelope.id)
    reference = view.thread.reference if view else site.tokens.reference(planned)
    ward, patient = arrival.ward, arrival.notice.patient
    named = words.patient(patient) if patient and patient.birth_name else ""
    detail = words.because(resolution) if (resolution := arrival.resolution) else ""
    notes: list[Delivery | None] = []
    if found is not None:
        sees = found.sees == "document"
        notes.append(
            mail(
                site,
                To(f"desk:{found.name}", found.mail),
                Purpose.HOLD_NOTE,
                words.desk_hold(
                    reference,
                    said,
                    ward=ward.name if ward and sees else "",
                    patient=named if sees else "",
                    letter=arrival.recognised.outcome is not Outcome.REPLY,
                    detail=detail,
                ),
                at,
                seed=envelope.id,
                thread=planned,
                reference=reference,
                tracked=False,
                envelope=envelope.id,
                original=envelope.id if sees and _fits(site, site.mail_adapter(), arrival) else None,
                carries="documents" if sees and _fits(site, site.mail_adapter(), arrival) else "none",
            )
        )
    if ward is not None and tell_ward:
        identity = why in _IDENTITY or (
            arrival.resolution is not None
            and arrival.resolution.identity in ("doubtful", "test", "provisional")
        )
        notes.append(
            mail(
                site,
                To(f"ward:{ward.slug}", ward.reply_to),
                Purpose.HOLD_NOTE,
                words.hold_note(
                    reference,
                    said,
                    patient=named,
                    identity=identity,
                    fields=why not in _NOTHING_TO_FILL_IN,
                    detail=detail,
                ),
                at,
                seed=envelope.id,
                thread=planned,
                reference=reference,
                tracked=False,
                envelope=envelope.id,
                answers=arrival.document.message_id,
            )
        )
    silent = observing(site, arrival.table)
    return replace(
        _seen(site, arrival, at),
        state=EnvelopeState.HELD,
        why=why,
        reference=reference,
        hold=Hold(
            id=derived_id("hold", envelope.id),
            envelope=envelope.id,
            why=why,
            reason=said,
            since=at,
            rule=arrival.decision.rule if arrival.decision else None,
            desk=found.name if found else None,
            candidates=resolution.candidates if candidates is None and resolution else candidates or (),
            thread=view.thread.id if view else None,
            detail=detail,
        ),
        deliveries=tuple(
            replace(note, state=DeliveryState.CANCELLED, why=Why.OBSERVE) if silent else note
            for note in notes
            if note is not None
        ),
        audit=(AuditEvent("relay", "held", envelope.id, why),),
    )


def plan_still_held(
    site: Site, reply: Arrival, held: Hold, reference: str, to: str, reason: str, at: datetime
) -> Plan:
    """A ward's lines did not release its letter: it is told why, with the lines once more. The hold stays."""
    ward = site.settings.wards.get(to.removeprefix("ward:"))
    note = ward and mail(
        site,
        To(to, ward.reply_to),
        Purpose.HOLD_NOTE,
        site.words.still_held(reference, reason or held.reason),
        at,
        seed=reply.envelope.id,
        thread=thread_id(held.envelope),
        reference=reference,
        tracked=False,
        envelope=held.envelope,
        answers=reply.document.message_id,
    )
    return replace(
        _seen(None, reply, at),
        state=EnvelopeState.DECIDED,
        why=Why.REPLY,
        reference=reference,
        deliveries=(unless_observing(site, note),) if note else (),
        audit=(AuditEvent(to, "correction_refused", held.envelope, held.why),),
    )


def _size(arrival: Arrival) -> int:
    """Bytes the letter will have on the wire, at most."""
    if arrival.notice.format in ("hl7v2", "fhir"):  # what they enclose leaves, not what is around it
        return composing.hand_on(arrival.document).size + _ROOM
    raw = len(arrival.envelope.raw)
    return (raw if arrival.document.is_mail else raw * 138 // 100) + _ROOM


def _fits(site: Site, table: AdapterTable | None, arrival: Arrival) -> bool:
    return table is not None and _size(arrival) <= site.limits_of(table.name).max_bytes


def plan_release(site: Site, arrival: Arrival, context: Context, hold: Hold, at: datetime) -> Plan:
    """A held letter goes on as a person decided. Raises Refused when a floor or a missing address still forbids it."""
    by = arrival.released.by if arrival.released else "admin"
    made = plan_notice(site, arrival, context, at, ends=(hold.id,))
    if made.state is EnvelopeState.HELD:
        why = made.why or Why.UNDECIDED
        raise Refused(f"still held ({why.value}): {site.words.why(why)}", reason=site.words.why(why))
    if made.why is Why.SUPERSEDED:
        raise Refused("the hospital withdrew or replaced this document meanwhile: reject the hold")
    return replace(made, audit=(*made.audit, AuditEvent(by, "released", hold.envelope, Why.BY_PERSON)))


def plan_reject(site: Site, hold: Hold, by: str, reason: str, at: datetime) -> Plan:
    """A person set a held arrival aside for good. The reason stays with the trail only as its length: it is prose."""
    return Plan(
        at=at,
        envelope=hold.envelope,
        state=EnvelopeState.IGNORED,
        why=Why.REJECTED,
        end_hold=(hold.id,),
        audit=(AuditEvent(by, "rejected", hold.envelope, Why.REJECTED, note=f"{len(reason)} characters"),),
    )


# ----------------------------------------------------------------------------------------------------- sending


class _CannotSend(Exception):
    """A document of this decision has nowhere to go: the whole is held instead."""

    def __init__(self, why: Why) -> None:
        super().__init__(why.value)
        self.why = why


@dataclass
class _Writer:
    """Writes the plan of one `send`."""

    site: Site
    rules: RuleSet
    arrival: Arrival
    context: Context
    at: datetime
    view: ThreadView | None
    ends: tuple[str, ...]
    by: str

    def plan(self, decision: Decision) -> Plan:
        """The whole plan; a hold when a document has nowhere to go."""
        try:
            return self._sent(decision)
        except _CannotSend as cannot:
            return plan_hold(
                self.site, self.arrival, self.context, cannot.why, self.at, desk=_desk(self.site, decision)
            )

    def _sent(self, decision: Decision) -> Plan:
        site, arrival, at = self.site, self.arrival, self.at
        silent = observing(site, arrival.table)
        follows = self._follows()
        waits = self.view is not None and self.view.thread.state is ThreadState.AWAITING_ACK
        # One alert for one discharge: a letter that follows its notice rings again only where the notice is settled.
        alerts = follows != "same" and not (follows == "letter" and waits)
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
        base = _seen(site, arrival, at)
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
        timers: tuple[Timer, ...] = step.timers
        return replace(
            base,
            state=EnvelopeState.DECIDED,
            why=Why(decision.why),
            document_keys=document_keys(arrival),
            stay_keys=further_stays(arrival, self.context, kept.id),
            reference=kept.reference,
            thread=kept,
            deliveries=tuple(copies),
            timers=timers,
            drop_timers=(kept.id,) if step.anew and self.view else (),
            grants=tuple(grants),
            end_hold=self.ends,
            void_grants_of=(kept.id,) if self.view and step.anew and alerts else (),
            audit=tuple(audit),
        )

    # ----------------------------------------------------------------------------------------- the thread

    def _follows(self) -> str:
        """What this letter is to the thread it joins: "" (opens one), "letter" after a mere notice, "addendum",
        "replacement", or "same" (the same discharge in another form: nobody is told twice)."""
        notice, view = self.arrival.notice, self.view
        if view is None:
            return ""
        readers = {part.key for part in view.thread.participants if part.copy}
        letters = [d for d in _sent_letters(view) if d.to not in readers]
        known, own = _forms(self.arrival, self.context), _own_form(self.arrival)
        replaces = notice.document == "replacement" or (notice.replaces and notice.document == "letter")
        meant = _meant(self.arrival, self.context, view) if replaces else frozenset()
        if replaces and letters and (meant is None or meant):
            return "replacement"
        if not letters or view.thread.closed_reason == Why.SUPERSEDED.value:
            return "letter"  # nothing was told, or all that was told has been taken back
        if own == NOTICE:
            return "addendum" if self._has_document else "same"
        if replaces or notice.document == "addendum":
            return "letter" if known <= {NOTICE} else "addendum"
        if known == {NOTICE}:
            return "letter"
        return "same" if known and own not in known else "addendum"

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
        thread = replace(
            view.thread,
            letter=arrival.envelope.id if self._has_document else view.thread.letter,
            participants=self._participants(
                view.thread.participants,
                former=view.thread.gp if gp and view.thread.gp != f"rpps:{gp.rpps}" else "",
            ),
            version=view.thread.version + 1,
            urgency="urgent" if "urgent" in (urgency, view.thread.urgency) else urgency,
            gp=f"rpps:{gp.rpps}" if gp else view.thread.gp,
            stay=own_stay(arrival, self.context, view.thread.id) or view.thread.stay,
        )
        if follows == "same":
            return thread, threads.Step(thread)
        if decision.followup in (None, "none"):
            return thread, threads.Step(thread)
        step = threads.advance(
            replace(thread, followup=followup), Event(Happening.RENEWED), start, view.timers
        )
        return step.thread, step

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
        if carries == "document" and not _fits(self.site, table, self.arrival):
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
        text = (
            words.copy(reference, name, phone)
            if copy
            else words.letter(reference, name, phone, follows=follows)
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
            envelope=arrival.envelope.id,
            answers=arrival.document.message_id,
            references=earlier(self.view, f"ward:{ward.slug}", ward.reply_to),
        )
        return [made] if made else []


def xdm_subject(arrival: Arrival) -> str:
    """The subject that the interoperability framework asks for, kept where the letter bears it (ECO.2.1.3)."""
    stated = arrival.document.subject
    if re.match(r"(\[[^\]]*\]\s*)?XDM/1\.0/DDM\+", stated):
        return stated
    notice, patient = arrival.notice, arrival.notice.patient
    title = folded(notice.title or "Lettre de liaison")
    title = (notice.title or "Lettre de liaison") if title else "Lettre de liaison"
    parts = [title[:40].strip()]
    if patient:
        parts.append(folded(patient.birth_name or patient.used_name or ""))
        parts += patient.given_names[:1]
        if patient.birth_date:
            parts.append(patient.birth_date.strftime("%d/%m/%Y"))
    return "XDM/1.0/DDM+" + " ".join(part for part in parts if part)
