"""What machines, clocks, buttons and commands report about a thread that exists."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Final, Literal

from relay import threads
from relay.errors import Refused
from relay.model import (
    AuditEvent,
    ChatFields,
    ChatKind,
    ChatRecipe,
    Context,
    Delivery,
    DeliveryNews,
    DeliveryState,
    EnvelopeState,
    Hold,
    Link,
    Plan,
    Press,
    Professional,
    Purpose,
    Thread,
    ThreadState,
    ThreadView,
    Timer,
    Typed,
    Verb,
    Why,
    delivery_id,
    lost_id,
)
from relay.planning.copies import LEFT, To, mail, may_stand, on_its_way, second_row, shown
from relay.planning.draft import TELLING, Draft, unless_observing
from relay.planning.holding import plan_ignore
from relay.planning.replies import answer, ask, authentic, tokens_of
from relay.planning.site import CHAT_KINDS, thread_id
from relay.threads import Event, Happening

if TYPE_CHECKING:
    from relay.model import Envelope, ReceiptNews
    from relay.planning.site import Arrival, Site
    from relay.wording import Mail

LATE: Final = timedelta(minutes=5)
"""A timer that fires so long after its time was missed while nobody ran."""

_RANK: Final = {
    DeliveryState.SENT: 1,
    DeliveryState.ACCEPTED: 2,
    DeliveryState.FAILED: 3,
    DeliveryState.SEEN: 4,
}


# ------------------------------------------------------------------------------------------------------ receipts


def plan_receipt(site: Site, arrival: Arrival, context: Context, at: datetime) -> Plan:
    """A DSN, MDN or "KO Intégration" about one of our mails: evidence about the copy, never an acknowledgement."""
    news = arrival.recognised.receipt
    delivery = (_reported(site, news, context) or _sent_to(site, arrival, news, context)) if news else None
    if news is None or delivery is None:
        return plan_ignore(arrival, Why.NO_SUCH_DELIVERY, at)
    view = next((v for v in context.threads if v.thread.id == delivery.thread), None)
    draft = Draft(site, at, arrival.envelope.id, view)
    state, why = _evidence(news)
    if state in (DeliveryState.ACCEPTED, DeliveryState.SEEN) and (
        doubt := _doubted(site, arrival, delivery, context)
    ):
        state, why = None, doubt
    if state is not None and _RANK.get(state, 0) > _RANK.get(delivery.state, 0):
        draft.news.append(DeliveryNews(delivery.id, state, why))
        _consequences(draft, delivery, state, why)
    draft.note(f"receipt_{news.status}", why, note=news.code or "", subject=delivery.id)
    return replace(
        draft.plan(
            envelope=arrival.envelope.id,
            state=EnvelopeState.DECIDED,
            why=Why.RECEIPT,
            kind=arrival.recognised.outcome.value,
            message_id=arrival.document.message_id,
            fingerprint=arrival.fingerprint,
        ),
        reference=delivery.reference,
    )


def _reported(site: Site, news: ReceiptNews, context: Context) -> Delivery | None:
    """The copy a report speaks of: by our envelope id, else by the Message-ID it quotes."""
    by_id = {d.id: d for d in context.deliveries}
    by_message = {d.message_id: d for d in context.deliveries if d.message_id}
    if news.envid and news.envid in by_id:
        return by_id[news.envid]
    original = news.original_message_id or ""
    ours = site.tokens.read_message_id(original)
    if ours is not None and ours.delivery in by_id:
        return by_id[ours.delivery]
    return by_message.get(original)


def _sent_to(site: Site, arrival: Arrival, news: ReceiptNews, context: Context) -> Delivery | None:
    """The copy that a report speaks of without naming it: what we sent under the signed address it came back to.

    Of several, only a failure is taken for the latest letter: people look then.
    """
    for named in tokens_of(site, arrival.document):
        view = next((v for v in context.threads if v.thread.id == named.thread), None)
        copies = [
            copy
            for copy in (view.deliveries if view else ())
            if copy.state in LEFT
            and (ours := site.tokens.read_message_id(copy.message_id or "")) is not None
            and ours.participant == named.participant
        ]
        if len(copies) == 1:
            return copies[0]
        if copies and news.status in ("failed", "error"):
            letters = [copy for copy in copies if copy.purpose is Purpose.LETTER]
            return max(letters or copies, key=lambda copy: copy.created_at)
    return None


def _doubted(site: Site, arrival: Arrival, delivery: Delivery, context: Context) -> Why | None:
    """Why good news proves nothing. Bad news needs no proof: it leads to people.

    Whoever reports knows the envelope id, the signed Message-ID or the signed address, which only the recipient's
    side ever saw. « Lu » must also come from the mailbox we wrote to, or another of the same doctor: a colleague to
    whom the letter was passed on is not the GP.
    """
    news, sender = arrival.recognised.receipt, arrival.document.from_ or ""
    if news is None or news.kind != "mdn":
        return None
    if not authentic(site, arrival):
        return Why.AUTHENTICATION_FAILED
    theirs = sender == delivery.address.lower() or f"rpps:{context.owners.get(sender)}" == delivery.to
    return None if theirs or not delivery.address else Why.UNKNOWN_SENDER


def _evidence(news: ReceiptNews) -> tuple[DeliveryState | None, Why | None]:
    """What a report proves about the copy."""
    match news.status:
        case "delivered":
            return DeliveryState.ACCEPTED, None
        case "read" | "processed":
            return DeliveryState.SEEN, None
        case "failed":
            return DeliveryState.FAILED, _failure(news.code or "")
        case "error":
            return DeliveryState.FAILED, Why.KO
        case "delayed":
            return None, Why.DSN_DELAYED


def _failure(code: str) -> Why:
    """RFC 3463 codes that say something a ward can act on."""
    if code.startswith(("5.1.1", "5.1.6", "5.1.10", "550")):
        return Why.UNKNOWN_MAILBOX
    if code.startswith(("5.2.2", "4.2.2", "552")):
        return Why.MAILBOX_FULL
    if code.startswith(("5.3.4", "5.2.3", "523")):
        return Why.MESSAGE_TOO_LARGE
    return Why.DSN_FAILED


def _consequences(draft: Draft, delivery: Delivery, state: DeliveryState, why: Why | None) -> None:
    """What a copy's fate means for its thread."""
    view = draft.view
    if view is None:
        return
    if state is DeliveryState.FAILED:
        _failed(draft, delivery, why or Why.DSN_FAILED)
        return
    if delivery.purpose is not Purpose.LETTER or delivery.to != view.thread.gp:
        return
    seen = state is DeliveryState.SEEN
    event = Event(Happening.SEEN if seen else Happening.DELIVERED)
    step = threads.advance(view.thread, event, draft.at, view.timers)
    if step.changed or step.timers:
        draft.take(step)
        draft.carry_out(step, event)


def _failed(draft: Draft, delivery: Delivery, why: Why) -> None:
    """A copy that will not arrive: the ward knows within two minutes, and a desk takes the thread."""
    view, words = draft.view, draft.site.words
    assert view is not None  # noqa: S101 - asked by callers
    thread = view.thread
    if delivery.purpose is Purpose.LETTER and delivery.to == thread.gp:
        desk = draft.site.desk_named(threads.last_desk(thread.followup))
        event = Event(Happening.FAILED, why=why, to=desk.name if desk else "")
        step = threads.advance(thread, event, draft.at, view.timers)
        draft.hold = _lost(draft, delivery, why, desk.name if desk else None)
        if step.changed:
            draft.take(step)
            draft.carry_out(step, event)
            return
        draft.tell_failed(_named(draft, delivery.to), why)
        if draft.hold is not None:
            draft.tell_desk(draft.hold.desk, words.desk_thread(thread.reference, why))
    elif delivery.purpose is Purpose.LETTER:
        draft.tell_failed(_named(draft, delivery.to), why)
    elif delivery.purpose is Purpose.REMINDER and _is_chat(draft.site, delivery):
        if thread.state in threads.LADDER_STATES:
            draft.remind_by_mail(delivery.to)
    elif delivery.purpose in (Purpose.QUESTION, Purpose.ANSWER, Purpose.RECALL) and not _is_chat(
        draft.site, delivery
    ):
        desk = draft.site.desk_named(threads.last_desk(thread.followup))
        if thread.state is not ThreadState.CLOSED and desk is not None:
            event = Event(Verb.HAND_OVER, "admin:relay", to=f"desk:{desk.name}")
            step = threads.advance(thread, event, draft.at, view.timers)
            draft.take(step)
        draft.tell_desk(desk.name if desk else None, words.desk_thread(thread.reference, why))


def _lost(draft: Draft, delivery: Delivery, why: Why, desk: str | None) -> Hold | None:
    """The hold of a letter no copy of which reaches its doctor. None where people settled the matter otherwise."""
    view, letter = draft.view, delivery.envelope
    assert view is not None  # noqa: S101 - asked by callers
    thread = view.thread
    if letter is None or thread.closed_reason not in (None, Why.DELIVERED_NO_ANSWER.value):
        return None
    if any(part.key == thread.gp and part.revoked for part in thread.participants):
        return None
    if any(
        copy.id != delivery.id and copy.state not in (DeliveryState.FAILED, DeliveryState.CANCELLED)
        for copy in _letters(view)
        if copy.envelope == letter
    ):
        return None
    return Hold(
        id=lost_id(letter),
        envelope=letter,
        why=why,
        reason=draft.site.words.why(why),
        since=draft.at,
        desk=desk,
        thread=thread.id,
    )


def no_longer(view: ThreadView | None, delivery: Delivery) -> Why | None:
    """Why a copy that is to be tried again must not leave any more: it was on the wire when people stopped the rest."""
    if view is None or delivery.purpose not in TELLING or threads.is_hospital(delivery.to):
        return None
    if view.thread.closed_reason in (Why.RECALLED.value, Why.SUPERSEDED.value):
        return Why(view.thread.closed_reason)
    if any(part.key == delivery.to and part.revoked for part in view.thread.participants):
        return Why.NOT_MY_PATIENT
    taken = view.thread.state in (ThreadState.ACKNOWLEDGED, ThreadState.CLOSED)
    return Why.ANSWERED if taken and delivery.purpose in (Purpose.ALERT, Purpose.REMINDER) else None


def _named(draft: Draft, key: str) -> str:
    """Somebody in a note to the ward: by name, else by what they are to the patient."""
    return draft.name(key) or draft.site.words.role(key)


def _is_chat(site: Site, delivery: Delivery) -> bool:
    table = site.settings.adapters.get(delivery.adapter)
    return table is not None and table.kind in CHAT_KINDS


# ------------------------------------------------------------------------------------------------ what was sent


def wants_sent(site: Site, delivery: Delivery, at: datetime) -> bool:
    """Whether `plan_sent` could have something to write: the letter's sending starts the ladder."""
    del site, at
    return delivery.purpose is Purpose.LETTER and delivery.thread is not None


def plan_sent(site: Site, view: ThreadView | None, delivery: Delivery, at: datetime) -> Plan | None:
    """The letter left: ladder times count from here. None when nothing changes."""
    if view is None or delivery.purpose is not Purpose.LETTER or delivery.to != view.thread.gp:
        return None
    draft = Draft(site, at, delivery.id, view)
    event = Event(Happening.STARTED)
    step = threads.advance(view.thread, event, at, view.timers)
    # Tried again by a person, it left after all.
    draft.ends += [hold.id for hold in view.holds if hold.envelope == delivery.envelope]
    if not step.changed:
        return draft.plan() if draft.ends else None
    draft.take(step)
    thread = step.thread
    if thread.state is not ThreadState.CLOSED:
        draft.timers.append(Timer(thread.id, "evidence", 0, thread.revision, at + site.settings.evidence))
    return draft.plan()


def plan_failed(
    site: Site, view: ThreadView | None, delivery: Delivery, why: Why, at: datetime
) -> Plan | None:
    """A copy was refused for good, or given up. None when nobody needs to know."""
    if delivery.to.startswith(("desk:", "ward:")):
        # The hospital's own people cannot be reached: the last who can act are the admins.
        note = _without_letter(site, view, delivery, at) if why is Why.NOT_OPENED else None
        told = note is not None
        words = site.words.undelivered(
            delivery.reference or "", delivery.to.partition(":")[2], why, told=told
        )
        copies = to_admins(site, words, at, seed=f"{delivery.id}/failed")
        if note is not None:
            copies = (note, *copies)
        audit = (AuditEvent("relay", "delivery_failed", delivery.id, why),)
        return Plan(at=at, deliveries=copies, audit=audit) if copies else None
    if view is None:
        return None
    draft = Draft(site, at, f"{delivery.id}/failed", view)
    _failed(draft, delivery, why)
    if not draft.deliveries and draft.thread is None:
        return None
    draft.note("delivery_failed", why, subject=delivery.id)
    return draft.plan()


def plan_cancelled(site: Site, view: ThreadView, delivery: Delivery, by: str, at: datetime) -> Plan | None:
    """A person stopped the GP's letter before it left: nobody waits for an answer to it, and people decide what becomes of it.

    As with a letter that did not arrive a desk has the follow-up and the letter is held anew. None for any other copy,
    where the letter reaches its GP all the same, and where this was done before. Another letter of the stay goes on.
    """
    thread, waiting = view.thread, on_its_way(view)
    if delivery.purpose is not Purpose.LETTER or delivery.to != thread.gp:
        return None
    draft = Draft(site, at, f"{delivery.id}/cancelled", view, actor=by)
    desk = site.desk_named(threads.last_desk(thread.followup))
    draft.hold = _lost(draft, delivery, Why.BY_PERSON, desk.name if desk else None)
    if draft.hold is None or any(hold.id == draft.hold.id for hold in view.holds):
        return None
    event = Event(Happening.FAILED, why=Why.BY_PERSON, to=desk.name if desk else "")
    draft.take(threads.advance(thread, event, at, view.timers))
    # Their phone and the ward's receipt speak of a letter that is on its way.
    others = (d for d in _letters(view) if d.envelope != delivery.envelope)
    if any(may_stand(d) or d.state not in (DeliveryState.FAILED, DeliveryState.CANCELLED) for d in others):
        draft.news += [
            DeliveryNews(d.id, DeliveryState.CANCELLED, Why.BY_PERSON)
            for d in view.deliveries
            if d.envelope == delivery.envelope
            and d.purpose in TELLING
            and (d in waiting or d.state is DeliveryState.AMBIGUOUS)
        ]
    else:
        draft.stop_all(Why.BY_PERSON)
        draft.show(ChatKind.WITHDRAWN)
        draft.void = (thread.id,)
    draft.tell_failed(_named(draft, delivery.to), Why.BY_PERSON)
    draft.tell_desk(
        draft.hold.desk,
        site.words.desk_thread(thread.reference, Why.BY_PERSON),
        with_letter=draft.desk_reads(),
    )
    return draft.plan()


def _without_letter(site: Site, view: ThreadView | None, delivery: Delivery, at: datetime) -> Delivery | None:
    """What a desk reads where the letter beside its note can be opened no more: the note must not be lost with it."""
    desk = site.settings.desks.get(delivery.to.removeprefix("desk:"))
    if desk is None or not delivery.to.startswith("desk:"):
        return None
    reference, words = delivery.reference or "", site.words
    said = (
        words.desk_thread(reference, Why.NOT_OPENED)
        if view
        else words.desk_hold(reference, words.why(Why.NOT_OPENED))
    )
    made = mail(
        site,
        To(delivery.to, delivery.address),
        delivery.purpose,
        said,
        at,
        seed=f"{delivery.id}/not_opened",
        thread=view.thread.id if view else thread_id(delivery.envelope or delivery.id),
        reference=reference,
        tracked=view is not None,
        envelope=delivery.envelope,
    )
    return unless_observing(site, made) if made else None


# ------------------------------------------------------------------------------------------------------- timers


def plan_timer(site: Site, timer: Timer, view: ThreadView, at: datetime) -> Plan:
    """A timer fired. Of several steps missed while down only the latest acts, marked late."""
    thread = view.thread
    done = (timer.id,)
    overtaken = timer.kind == "step" and any(
        other.kind == "step"
        and other.revision == thread.revision
        and other.level > timer.level
        and other.due <= at
        for other in view.timers
    )
    if timer.revision != thread.revision or thread.state is ThreadState.CLOSED or overtaken:
        return Plan(at=at, done_timers=done, audit=(AuditEvent("relay", "timer_void", thread.id),))
    waiting = tuple(other for other in view.timers if other.id != timer.id)
    view = replace(view, timers=waiting)
    draft = Draft(site, at, timer.id, view)
    if timer.kind == "evidence":
        _no_evidence(draft)
        return draft.plan(done_timers=done)
    desk = site.desk
    event = Event(
        Happening(timer.kind),
        level=timer.level,
        silent=silent(view),
        to=desk.name if desk else "",
        why=_kept_back(view) if timer.kind == "step" else None,
    )
    step = threads.advance(thread, event, at, waiting)
    if step.changed:
        draft.take(step)
        draft.carry_out(step, event)
    draft.note(
        f"timer_{timer.kind}",
        step.why,
        note=f"level={timer.level}" + (" late" if at - timer.due > LATE else ""),
    )
    return draft.plan(done_timers=done)


def _kept_back(view: ThreadView) -> Why | None:
    """Why the letter that somebody should take has not left yet: its ladder counts from its sending. None once one left."""
    letters = _letters(view)
    if view.thread.state is not ThreadState.AWAITING_ACK or any(map(may_stand, letters)):
        return None
    waiting = [copy for copy in on_its_way(view) if copy in letters]
    return (waiting[0].why or Why.PAUSED) if waiting else None


def _letters(view: ThreadView) -> tuple[Delivery, ...]:
    return tuple(d for d in view.deliveries if d.purpose is Purpose.LETTER and d.to == view.thread.gp)


def silent(view: ThreadView) -> bool:
    """The letter was accepted, by a mailbox that never said of any letter that it was read."""
    return any(d.state is DeliveryState.ACCEPTED and d.address not in view.readers for d in _letters(view))


def _no_evidence(draft: Draft) -> None:
    """No DSN and no MDN in time: told at once only where that destination sends them."""
    view = draft.view
    assert view is not None  # noqa: S101 - timers belong to a thread
    for letter in _letters(view):
        if letter.state is DeliveryState.SENT:
            draft.note("no_evidence", subject=letter.id)
            if letter.address in view.confirmers:
                draft.tell_ward(draft.site.words.no_evidence(view.thread.reference, _named(draft, letter.to)))


# ------------------------------------------------------------------------------------------------------- presses


def plan_press(
    site: Site, envelope: Envelope, press: Press, context: Context, at: datetime
) -> tuple[Plan, str]:
    """A button was pressed: the plan, and the words that answer the press. A refused one says why."""
    grant = context.grant
    view = next((v for v in context.threads if grant and v.thread.id == grant.thread), None)
    link = _link_of(context, view, press, grant.person) if grant else None
    if grant is None or view is None:
        return _refused_press(site, envelope, Why.PRESS_EXPIRED, at, view)
    if grant.account != press.sender or link is None or f"rpps:{link.rpps}" != grant.person:
        return _refused_press(site, envelope, Why.PRESS_NOT_YOURS, at, view)
    if view.thread.state is ThreadState.ACKNOWLEDGED and grant.verb is Verb.ACK:
        own = view.thread.owner == grant.person
        return _refused_press(site, envelope, Why.PRESS_USED if own else Why.PRESS_TAKEN, at, view)
    if grant.used_at is not None:
        return _refused_press(site, envelope, Why.PRESS_USED, at, view)
    if grant.expires <= at:
        return _refused_press(site, envelope, Why.PRESS_EXPIRED, at, view)
    draft = Draft(site, at, envelope.id, view, actor=grant.person)
    message = next((d for d in shown(view, site) if d.id == grant.delivery), None)
    if grant.verb is Verb.MORE:
        if message is not None:
            changed, grants = second_row(
                site, view.thread, message, grant.account, grant.choice, at, seed=envelope.id
            )
            draft.deliveries += [changed] if changed else []
            draft.grants += grants
        return _pressed(draft, envelope, grant.nonce), ""
    event = _event(site, view, grant.person, link, grant.verb, grant.choice, at)
    step = threads.advance(view.thread, event, at, view.timers)
    if step.refused is not None:
        return _refused_press(site, envelope, step.refused, at, view)
    draft.take(step)
    draft.carry_out(step, event)
    draft.note(grant.verb.value, Why.PRESS)
    part = draft.participant(grant.person)
    if grant.verb in (Verb.ASK, Verb.CALL_ME) and part is not None:
        ask(draft, part, "", grant.choice or "call")
    words = site.words.popup(None, verb=grant.verb, at=step.thread.snoozed_until)
    return _pressed(draft, envelope, grant.nonce), words


def _link_of(context: Context, view: ThreadView | None, press: Press, person: str) -> Link | None:
    """The presser's account; a secretary's may be linked to several doctors."""
    links = (*context.links, *(view.links if view else ()))
    own = [k for k in links if k.adapter_kind == press.channel and k.account == press.sender]
    return next((k for k in own if f"rpps:{k.rpps}" == person), next(iter(own), None))


def _event(
    site: Site, view: ThreadView, person: str, link: Link, verb: Verb, choice: str, at: datetime
) -> Event:
    """The press as the thread sees it: who acts, and how others will read it."""
    name = next((p.name for p in view.thread.participants if p.key == person), "")
    if link.role == "secrétariat" and name:
        name = site.words.say("par le secrétariat du {name}", name=name)
    desk = site.desk
    until = snooze_until(site, choice, at) if verb is Verb.SNOOZE else None
    return Event(verb, person, name, until=until, to=desk.name if desk else "")


def snooze_until(site: Site, choice: str, at: datetime) -> datetime:
    """« 1 h », « demain 8 h » and « lundi 8 h », by the wall clock of the site; 72 hours at most."""
    local = at.astimezone(site.settings.zone)
    if choice == "tomorrow":
        day = local.date() + timedelta(days=1)
    elif choice == "monday":
        day = local.date() + timedelta(days=7 - local.weekday())
    else:
        return at + timedelta(hours=1)
    wanted = datetime.combine(day, time(8), tzinfo=site.settings.zone).astimezone(at.tzinfo)
    return min(wanted, at + threads.LONGEST_SNOOZE)


def _pressed(draft: Draft, envelope: Envelope, nonce: str) -> Plan:
    return draft.plan(
        envelope=envelope.id, state=EnvelopeState.DECIDED, why=Why.PRESS, kind="press", used_grant=nonce
    )


def _refused_press(
    site: Site, envelope: Envelope, why: Why, at: datetime, view: ThreadView | None
) -> tuple[Plan, str]:
    thread = view.thread if view else None
    plan = Plan(
        at=at,
        envelope=envelope.id,
        state=EnvelopeState.DECIDED,
        why=why,
        kind="press",
        reference=thread.reference if thread and why is not Why.PRESS_NOT_YOURS else None,
        audit=(AuditEvent("relay", "press_refused", envelope.id, why),),
    )
    who = thread.acknowledged_by if thread else None
    return plan, site.words.popup(why, who=who or "", at=thread.acknowledged_at if thread else None)


def _numbers(typed: Typed) -> str:
    """What `relay directory link` is given for this account; nobody sees their own numbers in Telegram."""
    if typed.channel != "telegram":
        return ""
    return f"telegram:{typed.chat}" + (f":{typed.sender}" if typed.sender != typed.chat else "")


def plan_typed(
    site: Site, envelope: Envelope, typed: Typed, context: Context, at: datetime
) -> tuple[Plan, str]:
    """Somebody typed in chat: a command is answered, anything else is sent to secure mail and not kept."""
    link = next(
        (k for k in context.links if k.adapter_kind == typed.channel and k.account == typed.sender), None
    )
    command = (typed.text or "").strip().split("@", 1)[0].lower()
    why = Why.COMMAND if command.startswith("/") else Why.FREE_TEXT
    kind = ChatKind.REDIRECT
    references: tuple[tuple[str, datetime], ...] = ()
    if link is None:
        kind = ChatKind.UNKNOWN
    elif command.startswith("/lettres"):
        kind, references = ChatKind.LIST, _open_letters(context, link)
    elif why is Why.COMMAND:
        kind = ChatKind.HELP
    said = ChatFields(
        kind=kind,
        count=len(references) if kind is ChatKind.LIST else None,
        references=references,
        language=site.settings.language,
        timezone=site.settings.timezone,
        account=_numbers(typed) if link is None else "",
    )
    key = f"rpps:{link.rpps}" if link else "unknown"
    reply = Delivery(
        id=delivery_id(envelope.id, key, Purpose.ACCOUNT.value, 0),
        adapter=envelope.adapter,
        to=key,
        address=typed.chat,
        purpose=Purpose.ACCOUNT,
        recipe=ChatRecipe(said, silent=True),
        created_at=at,
        envelope=envelope.id,
        give_up_at=at + timedelta(hours=1),
    )
    plan = Plan(
        at=at,
        envelope=envelope.id,
        state=EnvelopeState.DECIDED,
        why=why,
        kind="press",
        deliveries=(unless_observing(site, reply),),
        audit=(AuditEvent(key if link else "relay", "typed", envelope.id, why),),
    )
    return plan, ""


def _open_letters(context: Context, link: Link) -> tuple[tuple[str, datetime], ...]:
    """The references a person still owes an answer to."""
    found = [
        (v.thread.reference, v.thread.opened_at)
        for v in context.threads
        if v.thread.state not in (ThreadState.ACKNOWLEDGED, ThreadState.AWAITING_WARD, ThreadState.CLOSED)
        and any(p.key == f"rpps:{link.rpps}" and not p.revoked for p in v.thread.participants)
    ]
    return tuple(sorted(found, key=lambda each: each[1]))[-20:]


# ------------------------------------------------------------------------------------------------------ commands


_REFUSALS: Final = {
    Why.PRESS_NOT_YOURS: "who acts takes no part in this follow-up, or may not do this",
    Why.PRESS_USED: "that is so already",
    Why.PRESS_TAKEN: "somebody else has taken it",
    Why.PRESS_EXPIRED: "that cannot be done in this state, or no longer",
}
"""The reasons as an admin reads them who typed a command; a phone shows them as answers to a button."""


def plan_verb(site: Site, view: ThreadView, verb: Verb, by: str, text: str | None, at: datetime) -> Plan:
    """One verb from the command line or a page. Raises Refused, saying why, when it may not or cannot be done.

    `text` is a question, an answer, a desk or ward to hand over to ("desk:NAME", "ward:SLUG"), a delay
    (1h, tomorrow, monday), or the reason of a closing (handled, by_phone, …).
    """
    thread, words = view.thread, site.words
    draft = Draft(site, at, f"{thread.id}/{thread.version}/{verb.value}", view, actor=by)
    event = _command(site, thread, verb, by, text or "", at)
    for who in (by, event.to) if verb is Verb.HAND_OVER else (by,):
        if _of_another_facility(site, thread, who):
            raise Refused(f"{thread.reference} is of another facility than {who}")
    step = threads.advance(thread, event, at, view.timers)
    if step.refused is not None or not step.changed:
        why = step.refused or Why.PRESS_USED
        said = _REFUSALS.get(why) or words.why(why)
        raise Refused(f"{thread.reference} is {thread.state.value}, owner {thread.owner or 'none'}: {said}")
    draft.take(step)
    draft.carry_out(step, event)
    draft.note(verb.value, Why.COMMAND)
    part = draft.participant(by)
    if verb in (Verb.ASK, Verb.CALL_ME) and part is not None:
        ask(draft, part, text or "", "call" if verb is Verb.CALL_ME or not text else "")
    elif verb is Verb.ANSWER:
        if not (text or "").strip():
            raise Refused("an answer needs its words: --text")
        answer(draft, thread.gp, text or "")
    return draft.plan()


def _of_another_facility(site: Site, thread: Thread, who: str) -> bool:
    """Whether a desk serves another hospital than the thread's; one that serves none serves all."""
    desk = site.settings.desks.get(who.removeprefix("desk:")) if who.startswith("desk:") else None
    if desk is None or thread.desk == desk.name or not desk.facility or not thread.facility:
        return False
    names = site.settings.facilities  # two numbers of one name (legal and geographic) are one establishment
    return names.get(desk.facility, desk.facility) != names.get(thread.facility, thread.facility)


def _command(site: Site, thread: Thread, verb: Verb, by: str, text: str, at: datetime) -> Event:
    name = next((p.name for p in thread.participants if p.key == by), "") or by.partition(":")[2]
    desk = site.desk
    to, why, until = (desk.name if desk else ""), None, None
    match verb:
        case Verb.HAND_OVER:
            to = text.strip()
            if to and ":" not in to:
                to = f"desk:{to}"
            if to.startswith("desk:") and to.removeprefix("desk:") not in site.settings.desks:
                raise Refused(f"no desk « {to.removeprefix('desk:')} »; write --text desk:NAME or ward:SLUG")
            if not to:
                raise Refused("hand over to whom? --text desk:NAME or ward:SLUG")
        case Verb.CLOSE:
            why = Why(text) if text in _CLOSING else Why.HANDLED
        case Verb.SNOOZE:
            until = snooze_until(site, text.strip() or "1h", at)
        case _:
            pass
    return Event(verb, by, name, to=to, why=why, until=until)


_CLOSING: Final = frozenset(
    {Why.HANDLED.value, Why.BY_PHONE.value, Why.REASSIGNED.value, Why.SEEN_NO_ANSWER.value}
)


def plan_recall(site: Site, view: ThreadView, by: str, reason: str, at: datetime) -> Plan:
    """Take a letter back: stop what is queued, ask those who have it to delete it. Raises Refused."""
    if not reason.strip():
        raise Refused("a recall needs its reason")
    return plan_verb(site, view, Verb.RECALL, by, None, at)


def objected(thread: Thread, to: str, scope: str) -> bool:
    """Whether an objection of that scope is about what goes to them: never the hospital's own people."""
    return not threads.is_hospital(to) and (scope == "all" or (to == thread.gp) == (scope == "gp"))


def plan_objection(site: Site, view: ThreadView, scope: str, by: str, at: datetime) -> Plan | None:
    """The patient objects, to sending to the "gp", to "copies" or to "all": what is queued stops at once.

    What left stays listed; nobody is told to delete it. None when nothing is queued and nothing is open.
    """
    queued = [
        d
        for d in view.deliveries
        if d.state
        in (
            DeliveryState.QUEUED,
            DeliveryState.DEFERRED,
            DeliveryState.HELD,
            DeliveryState.SENDING,
            DeliveryState.AMBIGUOUS,
        )
    ]
    stopped = [d for d in queued if objected(view.thread, d.to, scope)]
    if not stopped and (scope == "copies" or view.thread.state is ThreadState.CLOSED):
        return None
    draft = Draft(site, at, f"{view.thread.id}/{view.thread.version}/objection", view, actor=by)
    draft.news += [DeliveryNews(d.id, DeliveryState.CANCELLED, Why.OBJECTION) for d in stopped]
    if scope != "copies" and view.thread.state is not ThreadState.CLOSED:
        desk = site.desk_named(threads.last_desk(view.thread.followup))
        if desk is not None:
            event = Event(Verb.HAND_OVER, "admin:relay", to=f"desk:{desk.name}")
            step = threads.advance(view.thread, event, at, view.timers)
            draft.take(step)
            draft.tell_desk(
                desk.name, site.words.desk_thread(view.thread.reference, Why.OBJECTION), with_letter=False
            )
            draft.void = (view.thread.id,)
    draft.note("objection", Why.OBJECTION, note=str(scope))
    return draft.plan()


# --------------------------------------------------------------------------------------------- people and admins


def plan_linked(site: Site, link: Link, professional: Professional, at: datetime) -> Plan | None:
    """A chat account was linked: its owner is told in their secure mailbox. None without a mailbox."""
    boxes = [b.address for b in professional.mailboxes if b.active and site.allowed(b.address)]
    if not boxes:
        return None
    seed = f"{link.rpps}/{link.adapter_kind}/{link.account}/{at.isoformat()}"
    thread = thread_id("account", link.rpps)
    made = mail(
        site,
        To(f"rpps:{link.rpps}", boxes[0]),
        Purpose.ACCOUNT,
        site.words.linked(link.adapter_kind.capitalize()),
        at,
        seed=seed,
        thread=thread,
        reference=site.tokens.reference(thread),
        tracked=False,
    )
    if made is None:
        return None
    return Plan(
        at=at,
        deliveries=(unless_observing(site, replace(made, reference=None)),),
        audit=(AuditEvent("relay", "linked", f"rpps:{link.rpps}"),),
    )


def plan_admin(
    site: Site,
    what: Literal["broken", "healed"],
    adapter: str,
    why: str,
    oldest_waiting: float | None,
    at: datetime,
) -> Plan | None:
    """One mail to each admin when an adapter breaks, one when it heals. None without admins or a mail adapter."""
    minutes = round(oldest_waiting / 60) if oldest_waiting else None
    reason = Why(why) if why in Why.__members__.values() else None
    words = (
        site.words.channel_down(adapter, at, reason, minutes)
        if what == "broken"
        else site.words.channel_up(adapter, at, minutes)
    )
    copies = to_admins(site, words, at, seed=f"{adapter}/{what}/{at.isoformat()}")
    if not copies:
        return None
    return Plan(at=at, deliveries=copies, audit=(AuditEvent("relay", f"adapter_{what}", adapter, reason),))


def plan_rules(
    site: Site, what: Literal["refused", "waiting", "mended"], first: str, seed: str, at: datetime
) -> Plan | None:
    """One mail to each admin about the rule file. The same `seed` gives the same mail: told twice, sent once.

    `first` is the first error's line, or what would be taken away. None without admins or a mail adapter.
    """
    match what:
        case "refused":
            words = site.words.rules_refused(first)
        case "waiting":
            words = site.words.rules_waiting(first)
        case "mended":
            words = site.words.rules_mended()
    copies = to_admins(site, words, at, seed=f"rules/{what}/{seed}")
    return Plan(at=at, deliveries=copies) if copies else None


def to_admins(site: Site, words: Mail, at: datetime, *, seed: str) -> tuple[Delivery, ...]:
    """The same mail to each admin."""
    thread = thread_id("admin", seed)
    made = [
        mail(
            site,
            To("admin", address),
            Purpose.ADMIN,
            words,
            at,
            seed=seed,
            thread=thread,
            reference=site.tokens.reference(thread),
            tracked=False,
            ordinal=ordinal,
        )
        for ordinal, address in enumerate(site.settings.admins)
    ]
    return tuple(unless_observing(site, replace(each, reference=None)) for each in made if each is not None)
