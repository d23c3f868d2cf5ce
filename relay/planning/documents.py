"""What planning remembers of documents and stays: the same one again, replaced, taken back, or told in another form."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from relay import composing
from relay.model import Ask, Context, Delivery, DeliveryState, Purpose, derived_id
from relay.planning.site import Arrival, joined, strangers
from relay.resolution import NUMBERED as NUMBERED_STAY
from relay.resolution import document_keys as own_documents
from relay.resolution import is_counter
from relay.resolution import replaced_keys as every_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from relay.model import Hold, Notice, ThreadView
    from relay.resolution import StayKeys


NUMBERED: Final = frozenset({"cda", "hl7v2", "fhir", "notice"})
"""Forms whose documents bear a number of their own: what another document names is known when it comes."""
NOTICE: Final = "notice"
FORMS: Final = ("cda", "hprim", "hl7v2", "fhir", "pdf", "text", NOTICE)
"""In which a stay may have been told: the formats of letters, and a notice without any."""

_MOVEMENTS: Final = 6
"""Numbered discharges of one stay that are told apart."""


def document_keys(arrival: Arrival, context: Context) -> tuple[str, ...]:
    """What a later arrival is compared with: this document, what it replaces, its stay in this form, its movement.

    A retraction bears the name of what it takes back and is no document come again: it leaves no form either.
    """
    notice = arrival.notice
    gone = named_keys(notice)
    marks = [*own_keys(notice), *(f"void-{key}" for key in gone)]
    if arrival.stay and arrival.stay.number and is_counter(notice.retracts or notice.replaces or ""):
        marks += [mark for key in gone for mark in (_told_of(key), _told_of(key, arrival.stay.number))]
    if notice.document != "retraction":
        marks += [f"heir-{key}" for key in own_documents(notice) if gone]
        marks += [f"also-{key}" for key in _other_names(notice)]
        marks += [form_key(key, own_form(arrival)) for key in stays_of(arrival.stay)]
    return tuple(dict.fromkeys((*marks, *_movement_marks(arrival, context))))


def held_keys(arrival: Arrival, context: Context) -> tuple[str, ...]:
    """What is remembered of an arrival that a person must look at: the document it brings, and what it would take back.

    Nobody knows yet whether it will leave or be set aside, so that none of it makes a later arrival a duplicate or
    void. Each mark has several places: a hold that ended keeps its own.
    """
    notice, own = arrival.notice, arrival.envelope.id
    marks = [f"doubt-{key}" for key in named_keys(notice)]
    if notice.document != "retraction":
        marks += [f"kept-{key}" for key in (*own_documents(notice), *_other_names(notice))]
    free = (
        next((place for place in _places(mark) if context.documents.get(place) in (None, own)), None)
        for mark in dict.fromkeys(marks)
    )
    return tuple(place for place in free if place is not None)


def in_doubt(arrival: Arrival, context: Context) -> bool:
    """A message that takes this very document back, or replaces it, waits for a person."""
    if arrival.notice.document == "retraction":
        return False
    names = (*own_documents(arrival.notice), *_other_names(arrival.notice))
    return bool(_waiting(arrival, context, (f"doubt-{key}" for key in names)))


def kept_documents(arrival: Arrival, context: Context) -> tuple[Hold, ...]:
    """The holds of the documents that this arrival takes back or replaces."""
    return _waiting(arrival, context, (f"kept-{key}" for key in named_keys(arrival.notice)))


def _waiting(arrival: Arrival, context: Context, marks: Iterable[str]) -> tuple[Hold, ...]:
    marked = {context.documents.get(place) for mark in marks for place in _places(mark)}
    return tuple(
        hold for hold in context.kept if hold.envelope in marked and hold.envelope != arrival.envelope.id
    )


def _places(mark: str) -> tuple[str, ...]:
    return (mark, f"{mark}.2", f"{mark}.3")


def ask_of_notice(notice: Notice, stay: StayKeys | None, ask: Ask) -> Ask:
    """`ask` with the document keys to look up: itself, what it replaces or takes back, whether either was withdrawn
    before and by what, its stay in any form; which of all these wait for a person."""
    own, gone = own_documents(notice), named_keys(notice)
    void = [f"void-{key}" for key in (*own, *gone, *_other_names(notice))]
    if stay and stay.number:
        void += [mark for key in _counted(notice) for mark in (_told_of(key), _told_of(key, stay.number))]
    also = [f"also-{key}" for key in every_named(notice)]
    heirs = [f"heir-{key}" for key in gone]
    forms = [form_key(key, form) for key in stays_of(stay) for form in FORMS]
    names = (*own, *_other_names(notice))
    held = [f"doubt-{key}" for key in (*names, *gone)] + [f"kept-{key}" for key in (*names, *gone)]
    waiting = [place for mark in held for place in _places(mark)]
    keys = (
        *ask.document_keys, *own, *own_keys(notice), *every_named(notice), *void, *also, *heirs, *forms, *waiting,
        *_movements_asked(notice, stay),
    )  # fmt: skip
    return replace(ask, document_keys=tuple(dict.fromkeys(keys)), known_by=own_keys(notice))


def own_keys(notice: Notice) -> tuple[str, ...]:
    """The keys by which this very document is known again."""
    own = own_documents(notice)
    if notice.document != "retraction":
        return own
    gone = named_keys(notice)
    return (*(key for key in own if key.startswith("doc-") and key not in gone), *(f"back-{k}" for k in gone))


def named_keys(notice: Notice) -> tuple[str, ...]:
    """The documents it replaces or takes back. A retraction may come as the very document, which replaced others."""
    return every_named(replace(notice, replaces=None) if notice.retracts else notice)


def _other_names(notice: Notice) -> tuple[str, ...]:
    """Keys by which others may name this document, and by which alone it is nobody's duplicate."""
    return tuple(
        key
        for name in notice.other_ids
        for key in own_documents(replace(notice, document_id=name, set_id=None))
    )


def _known(context: Context, keys: Iterable[str]) -> frozenset[str]:
    """The envelopes of the documents that are named so."""
    found = (context.documents.get(key) or context.documents.get(f"also-{key}") for key in keys)
    return frozenset(envelope for envelope in found if envelope)


def stays_of(stay: StayKeys | None) -> tuple[str, ...]:
    """The keys of a stay, by number and by day."""
    return tuple(key for key in (stay.number, stay.day) if key) if stay else ()


def own_form(arrival: Arrival) -> str:
    """One of FORMS: how this arrival tells of its stay."""
    return NOTICE if is_notice(arrival) else arrival.notice.format or ""


def is_notice(arrival: Arrival) -> bool:
    """A discharge told before its letter: in a ward's words, or by a movement that encloses no document."""
    notice = arrival.notice
    if notice.document != "advance_notice":
        return False
    return notice.format not in ("hl7v2", "fhir") or not composing.hand_on(arrival.document).is_letter


def forms_told(arrival: Arrival, context: Context) -> frozenset[str]:
    """In which forms the stay was told before."""
    return frozenset(
        form
        for key in stays_of(arrival.stay)
        for form in FORMS
        if context.documents.get(form_key(key, form)) not in (None, arrival.envelope.id)
    )


def form_key(stay: str, form: str) -> str:
    """Remembered where that stay was told in that form."""
    return derived_id("form", stay, form)


def same_document(arrival: Arrival, context: Context) -> bool:
    """The same document came before in another mail. A new version of it is a new document.

    One that replaces the very document whose set and version it bears is a correction that nobody counted.
    """
    return bool(_before(arrival, context))


def number_of_another(arrival: Arrival, context: Context) -> bool:
    """What came before under its number, or its set and version, is a letter of another patient or another stay.

    Some systems count within a stay, or give every letter the number of the form it was written in.
    """
    views = {view.thread.id: view for view in context.threads}
    found = [views.get(context.followed.get(envelope, "")) for envelope in _before(arrival, context)]
    if arrival.notice.document == "retraction" and None in found and joined(arrival, context) is not None:
        return True  # what was cancelled before had no follow-up, and this one has
    return any(_elsewhere(arrival, context, view) for view in found if view is not None)


def _elsewhere(arrival: Arrival, context: Context, view: ThreadView) -> bool:
    if view.thread.id in strangers(arrival, context):
        return True
    stay, other = arrival.stay, view.thread.stay
    if stay is None or not stay.number or not other.startswith(NUMBERED_STAY) or other == stay.number:
        return False
    # Two systems may number one stay each in its way: then they agree on the day.
    return view.thread.id not in (context.stays.get(stay.number), context.stays.get(stay.day or ""))


def _before(arrival: Arrival, context: Context) -> frozenset[str]:
    """The other envelopes that brought this very document."""
    notice = arrival.notice
    replaced = _known(context, named_keys(notice)) if notice.document != "retraction" else frozenset()
    before = (
        envelope
        for key in own_keys(notice)
        if (envelope := context.documents.get(key)) and not (key.startswith("set-") and envelope in replaced)
    )
    return frozenset(before) - {arrival.envelope.id}


def changed_in_place(notice: Notice) -> bool:
    """It says that it replaces a document, and names none but itself: the same number for other words."""
    return notice.document == "replacement" and not named_keys(notice)


def names_known(arrival: Arrival, context: Context) -> bool:
    """It takes back, by its number alone, a document that came before: whose thread that is a person finds out."""
    return bool(_known(context, named_keys(arrival.notice)))


def stands_elsewhere(arrival: Arrival, context: Context, view: ThreadView | None) -> bool:
    """It replaces or takes back a letter that left for another stay, perhaps another patient's: nobody there would hear."""
    own = view.thread.id if view else None
    return any(
        context.letters.get(envelope) not in (None, own)
        for envelope in _known(context, named_keys(arrival.notice))
    )


def withdrawn(arrival: Arrival, context: Context) -> bool:
    """Its replacement or retraction arrived first; what a retraction names was replaced or taken back already."""
    return any(not _of_other_stay(key, arrival, context) for key in _void(arrival, context))


def withdrawn_elsewhere(arrival: Arrival, context: Context) -> bool:
    """What came first took back, or replaced, a document of its number, and told of another stay of the patient.

    Where a system counts within a stay that is no word about this one; a person sees which it is.
    """
    return bool(_void(arrival, context)) and not withdrawn(arrival, context)


def _void(arrival: Arrival, context: Context) -> tuple[str, ...]:
    """Those keys of the document, or of what a retraction names, that were taken back or replaced before."""
    notice = arrival.notice
    if notice.document == "retraction" and of_movement(notice):
        return ()  # a discharge that was changed before can be cancelled all the same
    named = named_keys(notice)
    if notice.document != "retraction":
        named = (*own_documents(notice), *_other_names(notice))
    return tuple(k for k in named if context.documents.get(f"void-{k}") not in (None, arrival.envelope.id))


def _of_other_stay(key: str, arrival: Arrival, context: Context) -> bool:
    """Whether both that made this key void and this arrival tell the number of their stay, and it differs."""
    if not (arrival.stay and arrival.stay.number):
        return False
    numbered = context.documents.get(_told_of(key)) == context.documents.get(f"void-{key}")
    return numbered and _told_of(key, arrival.stay.number) not in context.documents


def _counted(notice: Notice) -> tuple[str, ...]:
    """Keys of the documents it brings or names by a short counter, which another stay may have as well."""
    numbers = (notice.document_id, *notice.other_ids, notice.retracts or notice.replaces)
    return tuple(
        key
        for number in numbers
        if number and is_counter(number)
        for key in own_documents(replace(notice, document_id=number, set_id=None))
    )


def _told_of(key: str, stay: str = "") -> str:
    """Remembered where that document was taken back or replaced with the number of a stay, or of this one."""
    return f"void-{key}.{derived_id('stay', stay)}" if stay else f"void-{key}.stay"


def of_movement(notice: Notice) -> bool:
    """Whether a retraction takes back the discharge itself, and no document of it."""
    return not named_keys(notice) or (notice.format == "hl7v2" and notice.code is None)


# ------------------------------------------------------------------------------------------------------ movements


def another_discharge(arrival: Arrival, context: Context) -> bool:
    """A movement is cancelled while another discharge of the stay is in force: the letter may belong to that one.

    Cancellations come late where a message is sent again. One that bears no number of a discharge that came may
    mean any: it stands against each that is in force, unless it bears none and there is but one.
    """
    if not of_movement(arrival.notice):
        return False
    places = _movement_places(arrival.stay)
    standing = [
        envelope
        for place in places
        if (envelope := context.documents.get(place)) and f"{place}.gone" not in context.documents
    ]
    named = named_keys(arrival.notice)
    if not named:
        return len(standing) > 1
    meant = {context.documents.get(f"moved-{key}") for key in named}
    return any(envelope not in meant for envelope in standing)


def _movement_marks(arrival: Arrival, context: Context) -> tuple[str, ...]:
    """Where a numbered discharge stands among those of its stay, or that it was cancelled. A change of it takes none."""
    notice, own = arrival.notice, arrival.envelope.id
    places = _movement_places(arrival.stay)
    if notice.document == "retraction":
        if not of_movement(notice):
            return ()
        meant = {context.documents.get(f"moved-{key}") for key in named_keys(notice)} - {None}
        return tuple(f"{place}.gone" for place in places if context.documents.get(place) in meant)
    if not _is_movement(notice) or (withdrawn(arrival, context) and not named_keys(notice)):
        return ()
    numbers = [f"moved-{key}" for key in named_keys(notice) or own_documents(notice)]
    if not numbers or any(context.documents.get(number) not in (None, own) for number in numbers):
        return ()
    place = next((each for each in places if context.documents.get(each) in (None, own)), None)
    return (*numbers, place) if place else tuple(numbers)


def _movements_asked(notice: Notice, stay: StayKeys | None) -> tuple[str, ...]:
    """The keys that `another_discharge` and the marks of a movement look at."""
    if not (_is_movement(notice) or (notice.document == "retraction" and of_movement(notice))):
        return ()
    places = _movement_places(stay)
    numbers = (f"moved-{key}" for key in (*named_keys(notice), *own_documents(notice)))
    return (*numbers, *places, *(f"{place}.gone" for place in places))


def _is_movement(notice: Notice) -> bool:
    """A discharge that the hospital's system tells of as a movement, by its number."""
    return notice.document == "advance_notice" and notice.format == "hl7v2" and notice.code is None


def _movement_places(stay: StayKeys | None) -> tuple[str, ...]:
    """One for each discharge of a stay, by its number where it has one: who cancels tells no day."""
    return (
        tuple(derived_id("move", stays_of(stay)[0], str(n)) for n in range(_MOVEMENTS))
        if stays_of(stay)
        else ()
    )


def sent_letters(view: ThreadView) -> tuple[Delivery, ...]:
    """Copies of letters and notices that left, or will."""
    return tuple(
        d for d in view.deliveries if d.purpose is Purpose.LETTER and d.state is not DeliveryState.CANCELLED
    )


def meant_by(arrival: Arrival, context: Context, view: ThreadView) -> frozenset[str] | None:
    """The envelopes of the thread that a retraction or replacement names; None: all of the stay, whatever came.

    Empty where it names a document that never came: it is known when it does.
    """
    notice = arrival.notice
    named = named_keys(notice)
    found = _known(context, named)
    if notice.document == "retraction" and of_movement(notice):
        return None
    here = {view.thread.letter, *(d.envelope for d in sent_letters(view))}
    if not found:
        # A letter without a number of its own may be the one that is meant: there is but one stay.
        return None if not named or not forms_told(arrival, context) <= NUMBERED else frozenset()
    if notice.retracts and notice.replaces:  # what it replaced was gone before
        found |= _known(context, every_named(replace(notice, retracts=None)))
    elif any(context.documents.get(f"heir-{key}") for key in named):
        last = max((d.created_at for d in sent_letters(view) if d.envelope in found), default=None)
        found |= {d.envelope for d in sent_letters(view) if d.envelope and last and d.created_at < last}
    return found & here
