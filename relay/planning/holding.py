"""Arrivals that go no further by themselves: held for a person, set aside, or kept without need of anybody."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Final

from relay import composing
from relay.formats import replies
from relay.model import (
    AuditEvent,
    Context,
    DecisionRecord,
    Delivery,
    DeliveryState,
    EnvelopeState,
    Hold,
    Outcome,
    Plan,
    Purpose,
    Why,
    delivery_id,
    derived_id,
)
from relay.planning.copies import To, mail
from relay.planning.documents import held_keys, kept_documents
from relay.planning.draft import unless_observing
from relay.planning.site import Arrival, Site, joined, patient_ins, thread_id
from relay.recognition import SEALED
from relay.tokens import references_in
from rules.language import facts_as_json

if TYPE_CHECKING:
    from relay.config import AdapterTable
    from relay.errors import Refused
    from relay.model import Envelope, ThreadView
    from rules.engine import Decision


_IDENTITY: Final = frozenset({Why.FLOOR_IDENTITY, Why.TWO_PATIENTS})
_NOTHING_TO_FILL_IN: Final = frozenset(
    {
        Why.FLOOR_CONSENT, Why.OBJECTION, Why.TWO_PATIENTS, Why.BROKEN_PACKAGE, Why.AUTHENTICATION_FAILED,
        Why.TOO_LARGE, Why.TRUNCATED, *SEALED,
    }
)  # fmt: skip
"""No line of the ward's would make these letters fit to leave."""
ANEW: Final = frozenset({Why.TWO_PATIENTS, Why.BROKEN_PACKAGE, Why.TOO_LARGE, Why.TRUNCATED, *SEALED})
"""Those that may come again, written or sent otherwise."""
_ROOM: Final = 16_384
"""Bytes our own headers and words may add to a letter."""


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


def envelope_side(site: Site | None, arrival: Arrival, at: datetime) -> Plan:
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
        envelope_side(None, arrival, at),
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


def desk_of(site: Site, decision: Decision) -> str | None:
    """The desk that a decision's `hold` names."""
    target = site.rules.targets.get(decision.hold) if site.rules and decision.hold else None
    return target.desk if target else None


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
    cited = _cited(arrival, why) if view is None else ""
    said = reason or (
        words.say("rien ne prouve à quel échange appartient cette réponse") if cited else words.why(why)
    )
    view = view or joined(arrival, context)
    planned = thread_id(envelope.id)
    reference = view.thread.reference if view else site.tokens.reference(planned)
    ward, patient = arrival.ward, arrival.notice.patient
    named = words.patient(patient) if patient and patient.birth_name else ""
    detail = words.because(resolution) if (resolution := arrival.resolution) else ""
    if cited:
        detail = words.say("elle cite la Réf. {reference}", reference=cited)
    notes: list[Delivery | None] = []
    if found is not None:
        sees = found.sees == "document"
        # What nobody could open is of no use there.
        carries = sees and why is not Why.NOT_OPENED and fits(site, site.mail_adapter(), arrival)
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
                    letter=arrival.recognised.outcome is not Outcome.REPLY and not cited,
                    detail=detail,
                ),
                at,
                seed=envelope.id,
                thread=planned,
                reference=reference,
                tracked=False,
                envelope=envelope.id,
                original=envelope.id if carries else None,
                carries="documents" if carries else "none",
            )
        )
    if ward is not None and tell_ward:
        # Also where a rule says so before the floor would.
        opposed = arrival.resolution is not None and arrival.resolution.consent != "allowed"
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
                    fields=why not in _NOTHING_TO_FILL_IN and not opposed,
                    anew=why in ANEW and not opposed,
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
        envelope_side(site, arrival, at),
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
        document_keys=held_keys(arrival, context),
        deliveries=tuple(
            replace(note, state=DeliveryState.CANCELLED, why=Why.OBSERVE) if silent else note
            for note in (*notes, *withdrawn_notes(site, arrival, context, at, held=reference))
            if note is not None
        ),
        audit=(AuditEvent("relay", "held", envelope.id, why),),
    )


def _cited(arrival: Arrival, why: Why) -> str:
    """The reference that a mail to the relay's own mailbox shows, whose reader can prove nothing: a suggestion."""
    table, document = arrival.table, arrival.document
    if table is None or table.role != "replies" or arrival.recognised.outcome is Outcome.NOTICE:
        return ""
    if why not in (Why.UNCLEAR, Why.UNKNOWN_SENDER, Why.UNLISTED_SENDER):
        return ""
    return next(iter(references_in(f"{document.subject}\n{document.text}")), "")


def tells_of_hold(delivery: Delivery) -> bool:
    """Whether this is the mail in which a desk reads that an arrival is held, and not what became of it since."""
    if delivery.purpose is not Purpose.HOLD_NOTE or not delivery.to.startswith("desk:"):
        return False
    seed = f"{delivery.envelope}/{delivery.address}"  # as `plan_hold` names its cause
    return delivery.id == delivery_id(seed, delivery.to, delivery.purpose.value, 0)


def withdrawn_notes(
    site: Site, arrival: Arrival, context: Context, at: datetime, *, held: str = ""
) -> tuple[Delivery, ...]:
    """To each desk that holds a letter which this arrival takes back or replaces; `held`: under which it waits itself."""
    notes: list[Delivery | None] = []
    for hold in kept_documents(arrival, context):
        desk = site.desk_named(hold.desk)
        if desk is None:
            continue
        thread = thread_id(hold.envelope)
        reference = hold.reference or site.tokens.reference(thread)
        notes.append(
            mail(
                site,
                To(f"desk:{desk.name}", desk.mail),
                Purpose.HOLD_NOTE,
                site.words.desk_withdrawn(reference, held),
                at,
                seed=f"{arrival.envelope.id}/{'asked' if held else 'withdrawn'}/{hold.id}",
                thread=thread,
                reference=reference,
                tracked=False,
                envelope=hold.envelope,
            )
        )
    return tuple(unless_observing(site, note) for note in notes if note is not None)


def plan_still_held(
    site: Site, reply: Arrival, held: Hold, reference: str, to: str, refusal: Refused, at: datetime
) -> Plan:
    """A ward's lines did not release its letter: it is told why, with the lines that may. The hold stays."""
    ward = site.settings.wards.get(to.removeprefix("ward:"))
    note = ward and mail(
        site,
        To(to, ward.reply_to),
        Purpose.HOLD_NOTE,
        site.words.still_held(
            reference,
            refusal.reason or held.reason,
            detail=refusal.detail,
            fields=held.why not in _NOTHING_TO_FILL_IN and not refusal.final,
            anew=held.why in ANEW,
        ),
        at,
        seed=reply.envelope.id,
        thread=held.thread if held.lost and held.thread else thread_id(held.envelope),
        reference=reference,
        tracked=held.lost,
        envelope=held.envelope,
        answers=reply.document.message_id,
    )
    return replace(
        envelope_side(None, reply, at),
        state=EnvelopeState.DECIDED,
        why=Why.REPLY,
        reference=reference,
        deliveries=(unless_observing(site, note),) if note else (),
        audit=(AuditEvent(to, "correction_refused", held.envelope, held.why),),
    )


def unread_lines(
    site: Site,
    reply: Arrival,
    to: str,
    envelope: str,
    reference: str,
    held: Hold | None,
    at: datetime,
    *,
    gone: bool = False,
) -> tuple[Delivery, ...]:
    """To the ward `to` that answered without lines that could be read: what became of its letter, what would help.

    `held`: where its letter waits; None once that was settled, `gone` where the letter then left. Once for the same
    words, whatever their figures: what answers may be a machine that does not say so.
    """
    ward = site.settings.wards.get(to.removeprefix("ward:"))
    if ward is None:
        return ()
    answered = replies.reply_text(reply.document).text
    if held is None:
        said = site.words.held_no_more(reference, recall=gone)
    else:
        said = site.words.lines_unread(
            reference,
            held.reason,
            fields=held.lost or held.why not in _NOTHING_TO_FILL_IN,
            anew=not held.lost and held.why in ANEW,
        )
    made = mail(
        site,
        To(to, ward.reply_to),
        Purpose.HOLD_NOTE,
        said,
        at,
        seed=derived_id("unread", envelope, str(held is None), re.sub(r"\d+", "", answered)),
        thread=held.thread if held and held.lost and held.thread else thread_id(envelope),
        reference=reference,
        tracked=bool(held and held.lost),
        envelope=envelope,
        answers=reply.document.message_id,
    )
    return (unless_observing(site, made),) if made is not None else ()


def size_of(arrival: Arrival) -> int:
    """Bytes the letter will have on the wire, at most."""
    html = any(part.is_text and part.media_type == "text/html" for part in arrival.document.parts)
    # What HL7 v2 and FHIR enclose leaves, not what is around it; the words of HTML may leave beside it.
    if arrival.notice.format in ("hl7v2", "fhir") or html:
        return composing.hand_on(arrival.document).size + _ROOM
    raw = len(arrival.envelope.raw)
    return (raw if arrival.document.is_mail else raw * 138 // 100) + _ROOM


def fits(site: Site, table: AdapterTable | None, arrival: Arrival) -> bool:
    """Whether the letter is within what that sender carries."""
    return table is not None and size_of(arrival) <= site.limits_of(table.name).max_bytes
