"""Notices: a decision about one letter becomes a plan. Sent, held or filed; nothing is ever dropped."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from relay import threads
from relay.errors import Refused
from relay.model import (
    AuditEvent,
    Context,
    DeliveryState,
    EnvelopeState,
    Hold,
    Participant,
    Plan,
    Purpose,
    Why,
)
from relay.planning.copies import on_its_way
from relay.planning.documents import (
    NOTICE,
    another_discharge,
    changed_in_place,
    document_keys,
    form_key,
    forms_told,
    in_doubt,
    meant_by,
    names_known,
    number_of_another,
    own_form,
    same_document,
    sent_letters,
    stands_elsewhere,
    stays_of,
    withdrawn,
    withdrawn_elsewhere,
)
from relay.planning.draft import Draft
from relay.planning.holding import (
    desk_of,
    envelope_side,
    observing,
    plan_hold,
    plan_ignore,
    withdrawn_notes,
)
from relay.planning.sending import Writer
from relay.planning.site import Arrival, Site, joined, stay_of_another
from relay.threads import Event, Happening

if TYPE_CHECKING:
    from relay.model import ThreadView


def plan_notice(
    site: Site,
    arrival: Arrival,
    context: Context,
    at: datetime,
    *,
    ends: tuple[str, ...] = (),
) -> Plan:
    """What a decided notice leads to, in one plan. Deciding again writes the same rows.

    `ends` are the holds that a release ends; `arrival.released` says who released. A desk that holds what it takes
    back or replaces is told.
    """
    made = _decided(site, arrival, context, at, ends)
    if made.state is not EnvelopeState.DECIDED or observing(site, arrival.table):
        return made
    notes = withdrawn_notes(site, arrival, context, at)
    return replace(made, deliveries=(*made.deliveries, *notes)) if notes else made


def _decided(site: Site, arrival: Arrival, context: Context, at: datetime, ends: tuple[str, ...]) -> Plan:
    if context.duplicate_of not in (None, arrival.envelope.id) and not ends:
        return plan_ignore(arrival, Why.DUPLICATE, at)
    notice, decision = arrival.notice, arrival.decision
    by = arrival.released.by if arrival.released else "relay"
    if decision is None or site.rules is None:
        return plan_hold(site, arrival, context, Why.NO_RULES, at)
    view = joined(arrival, context)
    if same_document(arrival, context) and not ends:
        if number_of_another(arrival, context):
            return plan_hold(site, arrival, context, Why.NUMBER_OF_ANOTHER, at)
        if view is not None and (again := _undone(view)):
            return plan_hold(site, arrival, context, again, at)
        if changed_in_place(notice):
            return plan_hold(site, arrival, context, Why.UNCLEAR, at)
        return plan_ignore(arrival, Why.DUPLICATE, at)
    if decision.action == "hold" and not (ends and notice.document == "retraction"):
        return plan_hold(
            site,
            arrival,
            context,
            Why(decision.why),
            at,
            reason=decision.reason,
            desk=desk_of(site, decision),
        )
    if stay_of_another(arrival, context) and not ends:
        return plan_hold(site, arrival, context, Why.STAY_OF_ANOTHER, at)
    if stands_elsewhere(arrival, context, view) and not ends:
        return plan_hold(site, arrival, context, Why.UNCLEAR, at)
    taken_back = notice.document == "retraction" or withdrawn(arrival, context)
    leaves = decision.action == "send" or decision.copies
    if leaves and not ends and withdrawn_elsewhere(arrival, context):
        return plan_hold(site, arrival, context, Why.NUMBER_OF_ANOTHER, at)
    if leaves and not ends and not taken_back and in_doubt(arrival, context):
        return plan_hold(site, arrival, context, Why.WITHDRAWAL_HELD, at)
    if decision.action == "file" and decision.copies and not taken_back:
        # Nobody is asked, but somebody reads along.
        return Writer(site, site.rules, arrival, context, at, view, ends=ends, by=by).plan(decision)
    if decision.action == "file":
        return _filed(site, arrival, context, view, Why(decision.why), at, ends, by)
    if withdrawn(arrival, context):
        if notice.document != "retraction" and notice.replaces:  # what it replaced goes with it
            return _retracted(site, arrival, context, view, at, ends, by, why=Why.SUPERSEDED)
        return _filed(site, arrival, context, view, Why.SUPERSEDED, at, ends, by)
    if notice.document == "retraction":
        if view is None and not ends and names_known(arrival, context):
            return plan_hold(site, arrival, context, Why.UNCLEAR, at)
        if view is not None and not ends and another_discharge(arrival, context):
            return plan_hold(site, arrival, context, Why.OTHER_DISCHARGE, at)
        return _retracted(site, arrival, context, view, at, ends, by)
    if view is not None and _refused_by(view, arrival) and not _person_insists(arrival):
        return plan_hold(site, arrival, context, Why.GP_REFUSED, at)
    if view is not None and _recalled_in(view, arrival, context) and not _person_insists(arrival):
        return plan_hold(site, arrival, context, Why.RECALLED, at)
    writer = Writer(site, site.rules, arrival, context, at, view, ends=ends, by=by)
    return writer.plan(decision)


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


def _recalled_in(view: ThreadView, arrival: Arrival, context: Context) -> bool:
    """Whether it is another form of the letter that was taken back from this GP, not one that was written anew."""
    gp, notice = arrival.resolution.professional if arrival.resolution else None, arrival.notice
    recalled = view.thread.closed_reason == Why.RECALLED.value
    if not recalled or gp is None or view.thread.gp != f"rpps:{gp.rpps}":
        return False
    letters = forms_told(arrival, context) - {NOTICE}
    return (
        notice.document == "letter"
        and not notice.replaces
        and bool(letters)
        and own_form(arrival) not in letters
    )


def _person_insists(arrival: Arrival) -> bool:
    """A desk released it, or a ward named the doctor."""
    said = arrival.released
    return said is not None and (said.gp is not None or not said.by.startswith("ward:"))


def _filed(
    site: Site,
    arrival: Arrival,
    context: Context,
    view: ThreadView | None,
    why: Why,
    at: datetime,
    ends: tuple[str, ...],
    by: str,
) -> Plan:
    """Kept with its stay, nobody asked."""
    return replace(
        envelope_side(site, arrival, at),
        state=EnvelopeState.DECIDED,
        why=why,
        document_keys=document_keys(arrival, context),
        reference=view.thread.reference if view else None,
        end_hold=ends,
        audit=(AuditEvent(by, "filed", arrival.envelope.id, why),),
    )


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
    base = _filed(site, arrival, context, view, why, at, ends, by)
    if view is None:
        return base
    gone = meant_by(arrival, context, view)
    if gone is not None and not gone:
        return base
    notices = {context.documents.get(form_key(key, NOTICE)) for key in stays_of(arrival.stay)}
    stands = {d.envelope for d in sent_letters(view)} - notices - (gone or set())
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
        end_hold=tuple(dict.fromkeys((*ends, *made.end_hold))),
        audit=(*base.audit, *made.audit),
    )


def plan_release(site: Site, arrival: Arrival, context: Context, hold: Hold, at: datetime) -> Plan:
    """A held letter goes on as a person decided. Raises Refused when a floor or a missing address still forbids it."""
    by = arrival.released.by if arrival.released else "admin"
    former = _lost_in(site, arrival, context) if hold.lost else None
    made = plan_notice(site, arrival, context, at, ends=(hold.id,))
    if made.state is EnvelopeState.HELD:
        why = made.why or Why.UNDECIDED
        raise Refused(f"still held ({why.value}): {site.words.why(why)}", reason=site.words.why(why))
    if made.why is Why.SUPERSEDED:
        raise Refused("the hospital withdrew or replaced this document meanwhile: reject the hold")
    if former is not None:
        _goes_elsewhere(site, former, made, hold)
    return replace(made, audit=(*made.audit, AuditEvent(by, "released", hold.envelope, Why.BY_PERSON)))


def _lost_in(site: Site, arrival: Arrival, context: Context) -> ThreadView:
    """The follow-up in which the letter did not arrive. Raises Refused where it can no longer go on there."""
    view = joined(arrival, context)
    if view is None:
        reason = site.words.why(Why.STAY_OF_ANOTHER)
        raise Refused("the patient or the stay is no longer that of its follow-up", reason=reason)
    if (ended := view.thread.closed_reason) in (Why.RECALLED.value, Why.SUPERSEDED.value):
        reason = site.words.why(Why(ended))
        raise Refused("the hospital took this letter back: reject the hold", reason=reason)
    return view


def _goes_elsewhere(site: Site, view: ThreadView, made: Plan, hold: Hold) -> None:
    """Raises Refused where the letter would go again where it did not arrive, or while its former reader gets more."""
    gp, known = made.thread.gp if made.thread else "", {copy.id for copy in view.deliveries}
    letters = [copy for copy in made.deliveries if copy.purpose is Purpose.LETTER and copy.to == gp]
    if letters and all(copy.id in known for copy in letters):
        raise Refused(
            "it would go where it did not arrive: name another doctor (--gp), or try that copy again"
            " (deliveries retry)",
            reason=site.words.why(hold.why),
        )
    if gp != view.thread.gp and any(
        copy.to == view.thread.gp and copy.purpose is Purpose.LETTER and copy.envelope != hold.envelope
        for copy in on_its_way(view)
    ):
        raise Refused(
            "another letter of this stay is still on its way to the former doctor: cancel it, or wait",
            reason=site.words.say("Une autre lettre de ce séjour est encore en route vers ce médecin"),
        )


def plan_reject(site: Site, hold: Hold, by: str, reason: str, at: datetime) -> Plan:
    """A person set a held arrival aside for good. The reason stays with the trail only as its length: it is prose.

    A letter that left and did not arrive stays decided: its follow-up is settled apart.
    """
    return Plan(
        at=at,
        envelope=hold.envelope,
        state=EnvelopeState.DECIDED if hold.lost else EnvelopeState.IGNORED,
        why=Why.BY_PERSON if hold.lost else Why.REJECTED,
        end_hold=(hold.id,),
        audit=(AuditEvent(by, "rejected", hold.envelope, Why.REJECTED, note=f"{len(reason)} characters"),),
    )
