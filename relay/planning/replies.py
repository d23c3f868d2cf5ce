"""What people answer by mail: which thread it belongs to, who speaks, what they want. In doubt a person looks."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from relay import threads
from relay.formats import replies as answers
from relay.formats import text as letters
from relay.identity import somebody_else, tokens
from relay.model import (
    Ask,
    AuditEvent,
    ChatKind,
    Context,
    DeliveryState,
    EnvelopeState,
    Participant,
    Plan,
    Purpose,
    ThreadState,
    ThreadView,
    Verb,
    Why,
)
from relay.planning.copies import To, mail
from relay.planning.draft import Draft
from relay.planning.holding import plan_hold, unread_lines
from relay.planning.site import Correction, folded, thread_id
from relay.threads import Event, Happening, is_hospital
from relay.tokens import Address, Ours, participant_mark, references_in
from relay.wording import GP, RECALL_WORD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.model import Delivery, Hold, Patient, Recognised
    from relay.planning.site import Arrival, Site
    from relay.reading import Document

ADDRESSED: Final = (
    "to", "cc", "delivered-to", "x-original-to", "envelope-to", "resent-to", "resent-cc", "x-envelope-to",
)  # fmt: skip
"""Headers in which servers leave the address a mail was sent to."""

_FORWARD: Final = re.compile(r"\s*(?:(?:re|rép|rep)\s*:\s*)*(?:fwd?|tr|wg|i)\s*:", re.IGNORECASE)
_FAIL: Final = re.compile(r"\b(?:spf|dkim|dmarc)\s*=\s*fail\b", re.IGNORECASE)
_ABSENT: Final = re.compile(r"\s*ABSENTE?\b[\s,:]+\d{1,2}[/.-]\d{1,2}", re.IGNORECASE)

HOUR: Final = timedelta(hours=1)
MOST_TURNS: Final = 8
"""Mails an hour that a thread carries between the two sides; more are two machines talking (RFC 3834 §2)."""

VERBS: Final = {"OK": Verb.ACK, "RAPPEL": Verb.CALL_ME, "ERREUR": Verb.REFUSE}
"""The one-word answers of a GP; anything else is a question."""

_NAME, _SIGNATURE = 4, 8
"""Words of a name with its title, and lines of a signature, at most."""
_LOGO: Final = 64 * 1024
"""Bytes, encoded; a picture pasted for its own sake is larger."""
_CANCEL: Final = "ANNUL"
"""How annuler, annulez, annulation begin."""


@dataclass(frozen=True, slots=True)
class _Named:
    """What a reply proves about the thread it belongs to."""

    tokens: tuple[Address, ...]
    ours: tuple[Ours, ...]

    @property
    def threads(self) -> tuple[str, ...]:
        """The threads that anything signed names, each once."""
        return tuple(dict.fromkeys([t.thread for t in self.tokens] + [o.thread for o in self.ours]))

    @property
    def marks(self) -> tuple[str, ...]:
        """The participants that anything signed names."""
        return tuple(dict.fromkeys([t.participant for t in self.tokens] + [o.participant for o in self.ours]))


def tokens_of(site: Site, document: Document) -> tuple[Address, ...]:
    """The signed reply addresses that a mail came to."""
    return site.tokens.read_tokens("\n".join(value for name in ADDRESSED for value in document.headers(name)))


def _named(site: Site, document: Document) -> _Named:
    quoted = " ".join((*document.in_reply_to, *document.references))
    return _Named(tokens_of(site, document), site.tokens.read_message_ids(quoted))


def ask_of_mail(site: Site, document: Document, recognised: Recognised, ask: Ask) -> Ask:
    """`ask` with what matching a reply or a receipt needs to know."""
    named = _named(site, document)
    ids = list(dict.fromkeys((*document.in_reply_to, *document.references)))
    deliveries = [ours.delivery for ours in named.ours]
    news = recognised.receipt
    threads_named = list(named.threads)
    if news is not None:
        if news.original_message_id:
            ids.append(news.original_message_id)
            ours = site.tokens.read_message_id(news.original_message_id)
            if ours is not None:
                deliveries.append(ours.delivery)
                threads_named.append(ours.thread)
        if news.envid:
            deliveries.append(news.envid)
    sender = document.from_
    return replace(
        ask,
        message_ids=(*ask.message_ids, *ids[-30:]),
        deliveries=tuple(dict.fromkeys((*ask.deliveries, *deliveries))),
        threads=tuple(dict.fromkeys((*ask.threads, *threads_named))),
        references=(*ask.references, *references_in(document.subject)[:3]),
        addresses=(*ask.addresses, *((sender,) if sender else ())),
    )


def plan_reply(site: Site, arrival: Arrival, context: Context, at: datetime) -> Plan | Correction:
    """A person's mail in the relay's mailbox. Steps as docs/threads.md counts them; the first that holds.

    Answers a Correction when a ward filled in the lines about a held letter: it is decided again.
    """
    document = arrival.document
    named = _named(site, document)
    if _is_forward(document):  # 5: never appended, whatever it is signed with
        note = _note(context, named) if authentic(site, arrival) else None
        return _unread(site, arrival, context, at, Why.FORWARDED_REPLY, note)
    if len(named.threads) > 1:  # 4
        return _held(site, arrival, context, at, Why.TOKEN_MISMATCH)
    if not authentic(site, arrival):
        return _held(site, arrival, context, at, Why.AUTHENTICATION_FAILED, named)
    correction = _about_a_hold(site, arrival, context, named)
    if isinstance(correction, Correction):
        return correction
    if correction is Why.UNCLEAR and (done := _so_already(site, arrival, context, named)) is not None:
        return _settled(
            Draft(site, at, arrival.envelope.id, done, actor=f"ward:{done.thread.ward}"), arrival, Why.REPLY
        )
    if isinstance(correction, Why):
        note = _note(context, named) if correction is Why.UNCLEAR else None
        return _unread(site, arrival, context, at, correction, note)
    view = next((v for v in context.threads if v.thread.id in named.threads), None)
    if view is None:  # 7: a visible reference or a subject is a suggestion only
        return _held(site, arrival, context, at, Why.UNCLEAR)
    speaker = _speaker(site, arrival, context, view, named)
    if speaker is None and (desk := _desk(site, arrival, named)):
        return _desk_said(site, arrival, view, desk, at)
    if speaker is None:  # 3
        return _stranger(site, arrival, context, view, at)
    return _said(site, arrival, view, speaker, at)  # 1, 2


def _is_forward(document: Document) -> bool:
    return bool(_FORWARD.match(document.subject)) or any(part.is_message for part in document.attachments)


def authentic(site: Site, arrival: Arrival) -> bool:
    """What the named server said of the sender must not be a failure (RFC 8601 §2.2)."""
    own = site.mail_adapter()
    server = (arrival.table.authserv_id if arrival.table else None) or (own.authserv_id if own else None)
    if not server:
        return True
    for value in arrival.document.headers("authentication-results"):
        if value.strip().lower().startswith(server.lower()) and _FAIL.search(value):
            return False
    return True


# -------------------------------------------------------------------------------------------------- who speaks


@dataclass(frozen=True, slots=True)
class _Speaker:
    """A participant, and whom an answer of theirs is for when they are the ward."""

    part: Participant
    asker: str = ""


def voice(ward: str, asker: str) -> str:
    """Whom the relay expects at the reply address of a question: the ward, answering that person."""
    return f"{ward}>{asker}"


def _speaker(
    site: Site, arrival: Arrival, context: Context, view: ThreadView, named: _Named
) -> _Speaker | None:
    """The participant who wrote: what is signed names them, and the mail comes from where they write."""
    sender = arrival.document.from_
    if sender is None or not site.allowed(sender):
        return None
    thread = view.thread
    for part in thread.participants:
        if part.revoked or not _writes_from(site, context, part, sender):
            continue
        if participant_mark(part.key) in named.marks:
            return _Speaker(part, thread.gp if is_hospital(part.key) else "")
        if is_hospital(part.key):
            for other in thread.participants:
                if participant_mark(voice(part.key, other.key)) in named.marks:
                    return _Speaker(part, other.key)
    return None


def _desk(site: Site, arrival: Arrival, named: _Named) -> str | None:
    """The desk that answers a mail of its own; None where it is anybody else."""
    for name, desk in site.settings.desks.items():
        if participant_mark(f"desk:{name}") in named.marks and arrival.document.from_ == desk.mail.lower():
            return name
    return None


def _writes_from(site: Site, context: Context, part: Participant, sender: str) -> bool:
    """Whether that address is theirs: the one we wrote to, another of the same RPPS, one of the ward's people."""
    if sender == part.address.lower():
        return True
    if part.key.startswith("rpps:"):
        return context.owners.get(sender) == part.key.removeprefix("rpps:")
    if part.key.startswith("ward:"):
        return _is_ward(site, part.key.removeprefix("ward:"), sender)
    return False


def _is_ward(site: Site, slug: str, sender: str) -> bool:
    """One of the people who may send that ward's letters, or its own answering address."""
    for table in site.settings.adapters.values():
        if table.ward is not None and table.ward.slug == slug:
            if sender == table.ward.reply_to:
                return True
            if any(fnmatchcase(sender, pattern) for pattern in table.senders):
                return True
    return False


# -------------------------------------------------------------------------------------------------- held letters


def _about_a_hold(site: Site, arrival: Arrival, context: Context, named: _Named) -> Correction | Why | None:
    """An answer to the note about a held letter: the lines filled in, or the letter taken back."""
    note = _note(context, named)
    if note is None:
        return None
    hold = next((h for h in context.holds if h.envelope == note.envelope), None)
    if hold is not None and hold.lost:
        return None  # its letter has a follow-up, in which the ward speaks
    reply = answers.reply_text(arrival.document)
    if hold is None:
        # Settled meanwhile. The letter may have left: taking it back is still heard, all else a person reads.
        return None if _word(reply.first_line) == RECALL_WORD else Why.UNCLEAR
    sender = arrival.document.from_ or ""
    slug = note.to.removeprefix("ward:")
    ours = note.to.startswith("ward:") and _is_ward(site, slug, sender)
    if not ours and sender != note.address.lower():
        return Why.UNKNOWN_SENDER
    if _word(reply.first_line) == RECALL_WORD:
        return Correction(
            by=note.to, hold=hold.id, envelope=arrival.envelope.id, reject=True, text=_whole(arrival)
        )
    fields: dict[str, str] = dict(answers.corrections(arrival.document.text))
    if not fields:
        return Why.UNCLEAR
    gp = fields.get("registered_gp.rpps")
    return Correction(
        by=note.to, hold=hold.id, gp=gp, fields=fields, envelope=arrival.envelope.id, text=_whole(arrival)
    )


def _whole(arrival: Arrival) -> str:
    return f"{arrival.document.subject}\n\n{arrival.document.text}"


def names_another(text: str, whose: Patient | None, fields: Mapping[str, str]) -> bool:
    """Whether an answer about a held letter, its quotation included, names a patient who is surely not the letter's.

    `fields` are the lines filled in, which may correct the letter's patient.
    """
    if whose is None:
        return False
    for name, value, _ in letters.fields(text):
        named = letters.read(f"Patient : {value}\n").notice.patient if name == "patient" else None
        if named is not None and somebody_else(named, whose):
            return True
    born = letters.read(answers.new_text(text).text).born
    return (
        whose.birth_date is not None and "patient.birth_date" not in fields and not born <= {whose.birth_date}
    )


def _note(context: Context, named: _Named) -> Delivery | None:
    """Our note about a held letter that the reply answers."""
    return next((d for d in context.deliveries if d.purpose is Purpose.HOLD_NOTE and _signed(d, named)), None)


def _unread(
    site: Site, arrival: Arrival, context: Context, at: datetime, why: Why, note: Delivery | None
) -> Plan:
    """A person reads what was answered to `note`; a ward is told that its words alone send nothing."""
    sender = arrival.document.from_ or ""
    if note is None or not note.to.startswith("ward:"):
        return _held(site, arrival, context, at, why)
    if not _is_ward(site, note.to.removeprefix("ward:"), sender) and sender != note.address.lower():
        return _held(site, arrival, context, at, why)
    about = note.envelope or ""
    waits = any(each.envelope == about for each in context.holds)
    reason = (
        site.words.say("Réponse du service au sujet de sa lettre retenue, sans ligne qui se lise")
        if waits
        else site.words.say("Réponse du service au sujet d'une lettre qui n'est plus retenue")
    )
    held = _held(site, arrival, context, at, why, reason=reason if why is Why.UNCLEAR else None)
    told = unread_lines(
        site,
        arrival,
        note.to,
        about,
        note.reference or site.tokens.reference(thread_id(about)),
        next((each for each in context.holds if each.envelope == about), None),
        at,
        gone=any(
            each.envelope == about and each.purpose is Purpose.LETTER
            for view in context.threads
            for each in view.deliveries
        ),
    )
    return replace(held, deliveries=(*held.deliveries, *told))


def _so_already(site: Site, arrival: Arrival, context: Context, named: _Named) -> ThreadView | None:
    """The follow-up in which the letter went to the doctor whom its ward names: it said so twice, or we were killed
    between its letter's going and the end of this reply. None where anything else is said."""
    filled: dict[str, str] = dict(answers.corrections(arrival.document.text))
    meant = filled.get("registered_gp.rpps")
    for note in context.deliveries:
        if note.purpose is not Purpose.HOLD_NOTE or not _signed(note, named):
            continue
        for view in context.threads:
            ours = note.to == f"ward:{view.thread.ward}" and _is_ward(
                site, view.thread.ward, arrival.document.from_ or ""
            )
            gone = (
                d.envelope for d in view.deliveries if d.purpose is Purpose.LETTER and d.to == view.thread.gp
            )
            if ours and not view.holds and view.thread.gp == f"rpps:{meant}" and note.envelope in gone:
                return view
    return None


def _signed(delivery: Delivery, named: _Named) -> bool:
    return any(ours.delivery == delivery.id for ours in named.ours)


def _held(
    site: Site,
    arrival: Arrival,
    context: Context,
    at: datetime,
    why: Why,
    named: _Named | None = None,
    view: ThreadView | None = None,
    reason: str | None = None,
) -> Plan:
    """A person looks at the reply. Wards are told about letters, not about replies."""
    if view is None and named is not None:
        view = next((v for v in context.threads if v.thread.id in named.threads), None)
    desk = threads.last_desk(view.thread.followup) if view else None
    return plan_hold(
        site,
        arrival,
        context,
        why,
        at,
        reason=reason,
        desk=desk,
        view=view,
        tell_ward=False,
        candidates=(),
    )


def _stranger(site: Site, arrival: Arrival, context: Context, view: ThreadView, at: datetime) -> Plan:
    """Something signed in the hands of somebody who takes no part: a desk decides, and they learn nothing."""
    held = _held(site, arrival, context, at, Why.UNKNOWN_SENDER, view=view)
    draft = Draft(site, at, arrival.envelope.id, view)
    desk = site.desk_named(threads.last_desk(view.thread.followup))
    event = Event(Happening.STRANGER, to=desk.name if desk else "")
    taken = view.thread.state in (ThreadState.ACKNOWLEDGED, ThreadState.CLOSED, ThreadState.WITH_DESK)
    if not taken and desk is not None:
        draft.take(threads.advance(view.thread, event, at, view.timers))
    sender = arrival.document.from_
    told = any(d.purpose is Purpose.ACCOUNT and d.address == sender for d in view.deliveries)
    # Whoever said « pas mon patient », or reads a copy no more, did take part.
    told = told or any(part.address.lower() == sender for part in view.thread.participants)
    # Once: what answers this mail may be a machine that does not say so.
    if sender and site.allowed(sender) and not told:
        owner = context.owners.get(sender)
        made = mail(
            site,
            To(f"rpps:{owner}" if owner else "sender", sender),
            Purpose.ACCOUNT,
            site.words.not_taking_part(view.thread.reference),
            at,
            seed=arrival.envelope.id,
            thread=view.thread.id,
            reference=view.thread.reference,
            answers=arrival.document.message_id,
        )
        if made is not None:
            draft.deliveries.append(made)
    made_plan = draft.plan()
    return replace(
        held,
        reference=view.thread.reference,
        thread=made_plan.thread,
        timers=made_plan.timers,
        drop_timers=made_plan.drop_timers,
        deliveries=(*held.deliveries, *made_plan.deliveries),
    )


# -------------------------------------------------------------------------------------------------- what is said


def _turns(view: ThreadView, at: datetime) -> int:
    """Mails carried from one side to the other within the last hour."""
    return sum(
        d.purpose in (Purpose.QUESTION, Purpose.ANSWER)
        and d.message_id is not None
        and at - d.created_at < HOUR
        for d in view.deliveries
    )


def _word(line: str) -> str:
    """One line as a verb: case, accents, quotes and punctuation aside (« O.K. »)."""
    return " ".join(re.sub(r"[^A-Z0-9\s]+", "", folded(line)).split())


def _is_signature(text: str, name: str) -> bool:
    """Whether all of it is a signature that no mark sets off: « Dr » and the writer's name, then a few short lines."""
    lines = [line for line in text.split("\n") if line.strip()]
    first = re.findall(r"[A-Z-]+", folded(lines[0])) if lines else []
    family = re.findall(r"[A-Z-]+", folded(name))[1:]
    if not family or first[:1] not in (["DR"], ["DOCTEUR"]) or not set(family) <= set(first):
        return False
    short = len(first) <= _NAME and len(lines) <= _SIGNATURE and all(len(line) <= 60 for line in lines)
    return short and not any(re.match(r"\s*(?:P\.?\s?S\b|\()|.*[?!]", line) for line in lines)


def _may_take_back(reply: answers.Reply, *, asked: bool) -> bool:
    """Whether a ward's words may mean RECALL_WORD without being it: « Annuler svp », « Merci d'annuler ».

    `asked`: a question waits for its answer, which may speak of something else that is cancelled.
    """
    words = re.findall(r"[A-Z]+", folded(reply.first_line if asked else reply.text))
    return words[:1] == [RECALL_WORD] or (not asked and any(word.startswith(_CANCEL) for word in words))


def _of_another(arrival: Arrival, view: ThreadView, words: str) -> bool:
    """Whether these words name a patient who is surely not the letter's: somebody answered the wrong mail."""
    whose = view.thread.whose
    if whose is None:
        return False
    said = letters.read(words)
    patient = said.notice.patient if said.has_patient else None
    named = (patient and _without_prose(patient, whose), arrival.recognised.notice.patient)
    if any(each is not None and somebody_else(each, whose) for each in named):
        return True
    return whose.birth_date is not None and not said.born <= {whose.birth_date}


def _without_prose(said: Patient, whose: Patient) -> Patient:
    """The names alone of « Mme Cormerais, vue ce jour », where the family name is that of `whose`: they have capitals."""
    names = (said.birth_name or "", said.used_name or "", *said.given_names)
    if set(tokens(*names)).isdisjoint(tokens(whose.birth_name or "", whose.used_name or "")):
        return said
    family, used, *given = (" ".join(w for w in name.split() if not w[0].islower()) for name in names)
    return replace(said, birth_name=family, used_name=used, given_names=tuple(given), order_unsure=True)


def _unreached(view: ThreadView) -> Why | None:
    """Why no letter of this follow-up reached its doctor; None where one did, or may have."""
    letters = [d for d in view.deliveries if d.purpose is Purpose.LETTER and d.to == view.thread.gp]
    if not letters or any(d.state is not DeliveryState.FAILED for d in letters):
        return None
    return letters[-1].why or Why.DSN_FAILED


def _answered_copies(site: Site, arrival: Arrival, view: ThreadView) -> tuple[Delivery, ...]:
    """Our mails of this follow-up that the reply answers by its In-Reply-To."""
    ours = site.tokens.read_message_ids(" ".join(arrival.document.in_reply_to))
    answered = {each.delivery for each in ours}
    return tuple(copy for copy in view.deliveries if copy.id in answered)


def _lost(site: Site, arrival: Arrival, view: ThreadView) -> Hold | None:
    """The letter of this follow-up that did not arrive and of which the reply speaks; None where it may be any of several."""
    about = {copy.envelope for copy in _answered_copies(site, arrival, view)}
    found = [hold for hold in view.holds if hold.envelope in about] or list(view.holds)
    return found[0] if len(found) == 1 else None


def _said(
    site: Site, arrival: Arrival, view: ThreadView, speaker: _Speaker, at: datetime
) -> Plan | Correction:
    reply = answers.reply_text(arrival.document)
    word = _word(reply.first_line)
    rest = reply.text.partition("\n")[2].strip() if reply.text else ""
    words = _with_attachments(site, arrival, _without_addresses(site, arrival, view, reply.text))
    part = speaker.part
    if word not in (*VERBS, RECALL_WORD) and _turns(view, at) >= MOST_TURNS:
        reason = site.words.say("Échanges trop rapprochés, peut-être automatiques")
        return _held(site, arrival, Context(), at, Why.AUTOMATIC, view=view, reason=reason)
    draft = Draft(site, at, arrival.envelope.id, view, actor=part.key)
    below = _with_attachments(site, arrival, _without_addresses(site, arrival, view, rest))
    refuses = not is_hospital(part.key) and VERBS.get(word) is Verb.REFUSE  # heard at once, whatever it adds
    another = _of_another(arrival, view, reply.text)
    if refuses:
        draft.said, draft.said_to_desk, another = below, another, False
    if part.copy and not another:
        verb = VERBS.get(word)
        return _reader_said(draft, arrival, part, verb, below if verb is Verb.CALL_ME else words)
    if is_hospital(part.key):
        if word == RECALL_WORD:
            return _step(draft, arrival, Event(Verb.RECALL, part.key, part.name))
        lost = _lost(site, arrival, view)
        failed = lost.why if lost else _unreached(view)
        if failed is not None and speaker.asker in ("", view.thread.gp):
            filled: dict[str, str] = dict(answers.corrections(arrival.document.text))
            meant = filled.get("registered_gp.rpps")
            if lost is not None and filled:
                return Correction(
                    part.key,
                    lost.id,
                    gp=meant,
                    fields=filled,
                    envelope=arrival.envelope.id,
                    text=_whole(arrival),
                )
            # Words sent after the letter would be lost with it, and take the follow-up from the desk that has it.
            held = plan_hold(
                site,
                arrival,
                Context(),
                failed,
                at,
                view=view,
                tell_ward=False,
                candidates=(meant,) if meant else (),
                desk=view.thread.desk or threads.last_desk(view.thread.followup),
            )
            if lost is None:
                return held
            told = unread_lines(site, arrival, part.key, lost.envelope, view.thread.reference, lost, at)
            return replace(held, deliveries=(*held.deliveries, *told))
        if _may_take_back(reply, asked=view.thread.state is ThreadState.AWAITING_WARD):
            return _unsure_recall(draft, arrival)
        if not another:
            return _answered(draft, arrival, speaker, words)
    if another:
        reason = site.words.say("La réponse nomme un autre patient que celui de la lettre")
        return _held(site, arrival, Context(), at, Why.TOKEN_MISMATCH, view=view, reason=reason)
    if _ABSENT.match(reply.first_line):
        return plan_hold(
            site,
            arrival,
            Context(),
            Why.REPLY,
            at,
            view=view,
            tell_ward=False,
            candidates=(part.key.removeprefix("rpps:"),),
            reason=site.words.say("Absence annoncée par un médecin, à enregistrer"),
        )
    verb = VERBS.get(word)
    if verb is Verb.ACK and any(
        copy.purpose is Purpose.RECALL for copy in _answered_copies(site, arrival, view)
    ):
        # « OK » to our plea to delete a letter takes no other one that came since.
        draft.tell_ward(site.words.deletion_answered(view.thread.reference, part.name, words))
        draft.note("deletion_answered", Why.REPLY)
        return _settled(draft, arrival, Why.REPLY)
    if verb is Verb.ACK:
        note = "" if _is_signature(below, part.name) else below
        return _step(draft, arrival, Event(Verb.ACK, part.key, part.name), note=note)
    if verb is Verb.CALL_ME:
        return _asked(draft, arrival, part, Verb.CALL_ME, below)
    if verb is Verb.REFUSE:
        desk = site.desk
        event = Event(Verb.REFUSE, part.key, part.name, to=desk.name if desk else "")
        return _step(draft, arrival, event)
    if not words:
        return _held(site, arrival, Context(), at, Why.UNCLEAR, view=view)
    return _asked(draft, arrival, part, Verb.ASK, words)


def _unsure_recall(draft: Draft, arrival: Arrival) -> Plan:
    """A ward that may want its letter back: the GP reads none of it, the ward how to say so, and a person the rest."""
    view, words = draft.view, draft.site.words
    assert view is not None  # noqa: S101 - replies belong to a thread here
    reason = words.say("Le service demande peut-être de retirer sa lettre")
    held = _held(draft.site, arrival, Context(), draft.at, Why.UNCLEAR, view=view, reason=reason)
    draft.tell_ward(words.unsure_recall(view.thread.reference), answers=arrival.document.message_id)
    return replace(held, deliveries=(*held.deliveries, *draft.plan().deliveries))


def _desk_said(site: Site, arrival: Arrival, view: ThreadView, desk: str, at: datetime) -> Plan:
    """A desk takes a letter back as its ward does. Any other words are for nobody in particular: it is told so."""
    reply = answers.reply_text(arrival.document)
    draft = Draft(site, at, arrival.envelope.id, view, actor=f"desk:{desk}")
    if _word(reply.first_line) == RECALL_WORD:
        return _step(draft, arrival, Event(Verb.RECALL, draft.actor, desk))
    told = [d for d in view.deliveries if d.to == draft.actor and at - d.created_at < HOUR]
    if len(told) < MOST_TURNS:  # what answers may be a machine that does not say so
        draft.tell_desk(desk, site.words.desk_not_carried(view.thread.reference))
    draft.note("desk_wrote", Why.REPLY)
    return _settled(draft, arrival, Why.REPLY)


def _reader_said(draft: Draft, arrival: Arrival, part: Participant, verb: Verb | None, words: str) -> Plan:
    """Somebody who got a copy: an exchange of their own with the ward, which moves nothing for the GP."""
    view, site = draft.view, draft.site
    assert view is not None  # noqa: S101 - replies belong to a thread here
    reference = view.thread.reference
    if verb is Verb.ACK:
        return _settled(draft, arrival, Why.REPLY)
    if verb is Verb.REFUSE:
        out = tuple(replace(p, revoked=True) if p.key == part.key else p for p in view.thread.participants)
        draft.thread = replace(view.thread, participants=out, version=view.thread.version + 1)
        draft.open_incident("wrong_recipient")
        draft.mail(part, Purpose.RECALL, site.words.refused(reference))
        said = "" if draft.said_to_desk else draft.said
        draft.tell_ward(site.words.ward_refused(reference, part.name or site.words.role(part.key), said))
        draft.tell_desk(
            threads.last_desk(view.thread.followup), site.words.desk_thread(reference, Why.GP_REFUSED)
        )
    else:
        ask(draft, part, words, "call" if verb is Verb.CALL_ME else "")
    draft.note(verb.value if verb else Verb.ASK.value, Why.REPLY)
    return _settled(draft, arrival, Why.REPLY)


def _without_addresses(site: Site, arrival: Arrival, view: ThreadView, text: str) -> str:
    """The words without any mail address of the two sides: both talk through the relay."""
    known = {part.address for part in view.thread.participants if part.address}
    known |= {arrival.document.from_ or "", arrival.document.reply_to or ""}
    for address in sorted(known - {""}, key=len, reverse=True):
        text = re.sub(re.escape(address), "…", text, flags=re.IGNORECASE)
    return text.strip()


def _not_carried(document: Document) -> int:
    """How many files the other side does not get; the small pictures that a signature shows are none of them."""
    return sum(
        not (
            part.media_type.startswith("image/")
            and part.disposition != "attachment"
            and "multipart/related" in part.inside
            and part.size <= _LOGO
        )
        for part in document.attachments
    )


def _with_attachments(site: Site, arrival: Arrival, text: str) -> str:
    """The words, and a line that says what did not pass: only words are carried from one side to the other."""
    count = _not_carried(arrival.document)
    if not count:
        return text
    said = site.words.say("(Pièces jointes non transmises par le relais : {count}.)", count=count)
    return f"{text}\n\n{said}".strip()


def _step(draft: Draft, arrival: Arrival, event: Event, *, note: str = "") -> Plan:
    """A verb by mail, with all it leads to; refused ones are kept with the reason and change nothing."""
    view = draft.view
    assert view is not None  # noqa: S101 - replies belong to a thread here
    step = threads.advance(view.thread, event, draft.at, view.timers)
    if step.refused is not None and event.what is Verb.REFUSE:
        # « Pas mon patient » is never too late to be heard: a letter may have reached the wrong person.
        return _held(draft.site, arrival, Context(), draft.at, Why.GP_REFUSED, view=view)
    if step.refused is not None and not note:
        return _settled(draft, arrival, step.refused)
    if step.refused is None:
        draft.take(step)
        draft.carry_out(step, event)
        draft.note(event.what.value, Why.REPLY)
    if note:
        draft.mail(
            draft.participant(draft.ward_key),
            Purpose.WARD_NOTE,
            draft.site.words.ack_note(draft.current.reference, event.words, note),
            ordinal=1,
        )
    return _settled(draft, arrival, Why.REPLY)


def _asked(draft: Draft, arrival: Arrival, part: Participant, verb: Verb, words: str) -> Plan:
    """A question on its way to the ward; at the desk where the thread can hear no more."""
    view = draft.view
    assert view is not None  # noqa: S101 - replies belong to a thread here
    event = Event(verb, part.key, part.name)
    step = threads.advance(view.thread, event, draft.at, view.timers)
    if step.refused is not None:
        return _held(draft.site, arrival, Context(), draft.at, Why.UNCLEAR, view=view)
    draft.take(step)
    draft.carry_out(step, event)
    draft.note(verb.value, Why.REPLY)
    ask(draft, part, words, "call" if verb is Verb.CALL_ME else "")
    lost = _not_carried(arrival.document)
    if lost and draft.deliveries:
        draft.note("attachments_not_carried", note=str(lost))
    return _settled(draft, arrival, Why.REPLY)


def ask(draft: Draft, part: Participant, words: str, choice: str = "") -> None:
    """The question's mail to the ward: in the asker's words, or coded, with what they added."""
    reference, say = draft.current.reference, draft.site.words
    who = part.name or say.role(part.key)
    gp = part.key == draft.current.gp
    asker = GP if gp else part.key
    text = (
        say.coded_question(reference, who, choice, asker=asker, words=words)
        if choice
        else say.question(reference, who, words, asker=asker)
    )
    own = "" if gp else voice(draft.ward_key, part.key)
    draft.mail(draft.participant(draft.ward_key), Purpose.QUESTION, text, voice=own)


def _answered(draft: Draft, arrival: Arrival, speaker: _Speaker, words: str) -> Plan:
    """The ward's words on their way to whoever asked, and a pointer on their phone."""
    view, site = draft.view, draft.site
    assert view is not None  # noqa: S101 - replies belong to a thread here
    if not words:
        return _held(site, arrival, Context(), draft.at, Why.UNCLEAR, view=view)
    asker = draft.participant(speaker.asker or draft.current.gp)
    if (
        asker is None or asker.revoked
    ):  # « pas mon patient » came in between: these words are no longer theirs
        return _held(site, arrival, Context(), draft.at, Why.GP_REFUSED, view=view)
    if asker.copy:
        answer(draft, speaker.asker, words)
        return _settled(draft, arrival, Why.REPLY)
    event = Event(Verb.ANSWER, speaker.part.key, speaker.part.name, to=speaker.asker)
    step = threads.advance(view.thread, event, draft.at, view.timers)
    if step.refused is not None:
        return _held(site, arrival, Context(), draft.at, Why.UNCLEAR, view=view)
    draft.take(step)
    draft.carry_out(step, event)
    answer(draft, speaker.asker, words)
    return _settled(draft, arrival, Why.REPLY)


def answer(draft: Draft, asker: str, words: str) -> None:
    """The ward's words by mail to whoever asked, and a pointer in their chat."""
    reference = draft.current.reference
    draft.note("answer", Why.REPLY)
    draft.mail(
        draft.participant(asker or draft.current.gp),
        Purpose.ANSWER,
        draft.site.words.answer(reference, draft.ward_name, words),
    )
    if asker.startswith("rpps:"):
        draft.remind_by_chat(
            asker.removeprefix("rpps:"), draft.chats, ChatKind.ANSWERED, purpose=Purpose.ANSWER
        )


def _settled(draft: Draft, arrival: Arrival, why: Why) -> Plan:
    if why is not Why.REPLY:
        draft.audit.append(AuditEvent(draft.actor, "reply_without_effect", arrival.envelope.id, why))
    return draft.plan(
        envelope=arrival.envelope.id,
        state=EnvelopeState.DECIDED,
        why=why,
        kind=arrival.recognised.outcome.value,
        message_id=arrival.document.message_id,
        fingerprint=arrival.fingerprint,
    )
