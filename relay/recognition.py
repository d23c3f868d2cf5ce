"""What an arrival is, and what it says: Document → Recognised, by classifying first and reading after.

Receipts, automatic answers, citizens' mail and replies are told apart before any document is looked for, so
that nothing enclosed in a report is taken for a new letter. Then every part is read by the formats and the
pieces become one notice: package metadata, CDA header, and the mail's labelled text, in that order of trust.
What contradicts itself about the patient is never merged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from itertools import islice
from typing import Final
from zoneinfo import ZoneInfo

from relay import formats, identity
from relay.formats import cda, fhir, hl7v2, hprim, office, pdf, receipts, replies, xdm
from relay.formats import text as letters
from relay.model import LocalId, Notice, Outcome, Patient, Person, Problem, Recognised, Stay, Why
from relay.reading import (
    MAX_CONTENT,
    Document,
    Part,
    decode,
    html_text,
    never_raises,
    read,
    read_alone,
    read_file,
)

Reader = Callable[[bytes], Notice | None]


def _is_cda(part: Part, head: bytes) -> bool:
    bare = head.replace(b"\x00", b"")
    return b"ClinicalDocument" in bare or (
        part.media_type.endswith("xml") and bare.lstrip(b"\xef\xbb\xbf \r\n\t")[:1] == b"<"
    )


# One line for each format of attachments: whether a part looks like it, by its first bytes, and its reader.
_READERS: Final[tuple[tuple[Callable[[Part, bytes], bool], Reader], ...]] = (
    (lambda _, head: xdm.looks_like_zip(head), xdm.read),
    (lambda _, head: hl7v2.looks_like(head), hl7v2.read),
    (_is_cda, cda.read),
    (lambda _, head: fhir.looks_like_fhir(head), fhir.read),
    (lambda _, head: pdf.looks_like_pdf(head), pdf.read),
    (lambda _, head: hprim.looks_like(head), hprim.read),
)

_FORWARD = re.compile(r"^\s*(?:\[[^\]]{0,40}\]\s*)?(?:fwd?|tr|wg|i|rv|transf(?:ert|ere)?)\s*:", re.IGNORECASE)
_ANSWER = re.compile(r"^\s*(?:re|rep|ref|aw|sv|antw|r)\s*(?:\[\d+\])?\s*:", re.IGNORECASE)
_NOBODY: Final = Patient()
_QUOTED: Final = (">", " ", "\t")  # how a quoted line begins
_XDM_SUBJECT = re.compile(r"xdm/1\.0/ddm", re.IGNORECASE)
_DOCUMENT_NAME = re.compile(r"\.(?:zip|xml|cda|hl7|er7|hpr|hprim|json|apz|p7m)$|ihe_xdm|lettre|courrier|\bcrh?\b|liaison|sortie",
                            re.IGNORECASE)  # fmt: skip
_NO_DOCUMENT = ("application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature",
                "text/calendar", "text/x-vcard", "text/vcard", "text/rfc822-headers")  # fmt: skip
_TYPE_UNKNOWN = ("application/octet-stream", "application/x-eml", "application/eml")
_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype\s+)?html\b", re.IGNORECASE)
_CITIZENS = "@patient.mssante.fr"
_READ_WITH_IT: Final = frozenset({"application/pdf", "application/zip", "text/xml"})
_MAX_BESIDE = 50  # texts and messages that leave with one letter
_BROKEN = frozenset({"broken_package", "unreadable_document"})
_HIDING = frozenset({"not_closed", "boundary_not_found", "no_boundary", "too_deep", "too_many_parts", "header_too_large",
                     "too_many_headers", "too_many_boundaries", "bad_header_line"})  # fmt: skip


SEALED: Final = frozenset({Why.NOT_OPENED, Why.SIGNATURE_BROKEN, Why.SIGNATURE_WEAK, Why.SIGNATURE_UNTRUSTED,
                           Why.SIGNATURE_EXPIRED, Why.SIGNATURE_REVOKED, Why.SIGNATURE_OF_ANOTHER,
                           Why.SIGNATURE_UNCHECKED})  # fmt: skip
"""What a mail's encryption or signature holds it for."""
_SEALED_WORDS: Final = {
    Why.NOT_OPENED: "le message est chiffré et n'a pas pu être ouvert",
    Why.SIGNATURE_BROKEN: "la signature ne correspond pas au contenu",
    Why.SIGNATURE_WEAK: "la signature emploie un procédé trop faible",
    Why.SIGNATURE_UNTRUSTED: "la signature n'émane pas d'une autorité de confiance",
    Why.SIGNATURE_EXPIRED: "le certificat de la signature est hors de sa période de validité",
    Why.SIGNATURE_REVOKED: "le certificat de la signature est révoqué",
    Why.SIGNATURE_OF_ANOTHER: "la signature n'est pas celle de l'expéditeur",
    Why.SIGNATURE_UNCHECKED: "la signature n'a pas pu être vérifiée",
}


def nobody(_: str) -> bool:
    """Nothing is ours: for `recognise` on files."""
    return False


def has_attachment(document: Document) -> bool:
    """Whether something hangs on the mail that could be a document."""
    return any(part.media_type not in _NO_DOCUMENT for part in document.attachments)


def is_forward(document: Document) -> bool:
    """A person sent somebody else's mail on."""
    if _FORWARD.match(document.subject):
        return True
    return any(part.is_message for part in document.parts) and not _ANSWER.match(document.subject)


def recognise(
    document: Document, *, is_ours: Callable[[str], bool] = nobody, timezone: str = "Europe/Paris"
) -> Recognised:
    """What `document` is. `is_ours` tells of a Message-ID or an address whether we signed it. Never raises."""
    found = _recognised(document, is_ours, ZoneInfo(timezone))
    return found or Recognised(Outcome.UNCLEAR, why=Why.UNREADABLE)


def opened(recognised: Recognised, why: Why | None) -> Recognised:
    """What stays of `recognised` once its seal was looked at; `why` is one of SEALED, or None for a good one.

    Nothing that could matter passes a broken seal. What a broken signature stands under and is no letter,
    answer or receipt stays what it is; what nobody could open may be anything.
    """
    if why is None or recognised.why in (Why.OWN_MESSAGE, Why.CITIZEN):
        return recognised
    if why is not Why.NOT_OPENED and recognised.outcome in (Outcome.OTHER, Outcome.AUTOMATIC):
        return recognised
    mark = Problem(why.value, _SEALED_WORDS[why])
    notice = replace(recognised.notice, problems=(*recognised.notice.problems, mark))
    return Recognised(Outcome.UNCLEAR, notice, why=why)


@never_raises(None)
def _recognised(document: Document, is_ours: Callable[[str], bool], zone: ZoneInfo) -> Recognised:
    if document.is_mail:
        if document.message_id and is_ours(document.message_id):
            return Recognised(Outcome.OTHER, why=Why.OWN_MESSAGE)
        receipt = receipts.read_receipt(document)
        if receipt is not None:
            return Recognised(Outcome.RECEIPT, receipt=receipt, why=Why.RECEIPT)
    parts = document.attachments if document.is_mail else document.parts
    if len(parts) == 1 and hl7v2.looks_like(parts[0].content(4096)):
        receipt = hl7v2.read_receipt(parts[0].content())
        if receipt is not None:
            return Recognised(Outcome.RECEIPT, receipt=receipt, why=Why.RECEIPT)
    answers = _answers(document, is_ours)
    if _from_citizen(document):
        return (
            Recognised(Outcome.REPLY, why=Why.REPLY)
            if answers
            else Recognised(Outcome.OTHER, why=Why.CITIZEN)
        )
    forward = is_forward(document)
    pieces = list(_documents(document))
    source = document
    if forward and not pieces and document.enclosed is not None:
        enclosed = document.enclosed
        if (
            receipts.read_receipt(enclosed)
            or receipts.is_automatic_reply(enclosed)
            or is_ours(enclosed.message_id or "")
        ):
            return _held(Notice(), Why.FORWARDED_REPLY)
        if receipts.comes_back(document) or _from_citizen(enclosed):
            return _held(Notice(), Why.UNCLEAR)
        if not letters.read(_own_text(document, forward=True), zone=zone).has_patient:
            source = enclosed  # the words around it are no letter themselves
        pieces = list(_documents(source))
    own = _own_text(source, forward=forward)
    letter = letters.read(own, subject=source.subject, zone=zone)
    if document.is_mail and receipts.is_automatic_reply(document):
        if pieces or (letter.has_patient and not answers):  # no absence note carries a letter: a person looks
            return _held(_merged(document, pieces, letter.notice), Why.UNCLEAR)
        return Recognised(Outcome.AUTOMATIC, why=Why.AUTOMATIC)
    if answers and not forward:
        if receipts.is_machine_mail(document):  # never a person's word, whatever it says
            if pieces:
                return _held(_merged(document, pieces, None), Why.UNCLEAR)
            return Recognised(Outcome.AUTOMATIC, why=Why.AUTOMATIC)
        notice = _merged(document, pieces, None) if pieces else Notice()
        return Recognised(Outcome.REPLY, notice, why=Why.REPLY)
    recognised = _judged(document, pieces, letter)
    if recognised.outcome is Outcome.OTHER and document.is_mail:
        shown = _shown_only(source, forward=forward, zone=zone)
        if shown is not None:
            recognised = _held(shown, Why.UNCLEAR)
    if recognised.outcome is Outcome.NOTICE and document.is_mail:
        if receipts.writes_no_letters(document):
            return _held(recognised.notice, Why.UNCLEAR)
        if forward and receipts.is_forwarded_report(document):
            return _held(recognised.notice, Why.FORWARDED_REPLY)
    if recognised.outcome is Outcome.NOTICE:
        recognised = _alone(document, source, own, recognised, letter, zone)
    if answers:
        return _held(recognised.notice, Why.FORWARDED_REPLY)
    if forward and recognised.notice != Notice():
        mark = Problem("forwarded", "transféré par quelqu'un : l'expéditeur n'est pas l'auteur")
        recognised = replace(
            recognised, notice=replace(recognised.notice, problems=(*recognised.notice.problems, mark))
        )
    return recognised


def _from_citizen(document: Document) -> bool:
    """A patient wrote it, alone or among its authors: their space writes to professionals, it announces nobody."""
    return any(
        address.endswith(_CITIZENS) for name in ("from", "sender") for _, address in document.addresses(name)
    )


def _answers(document: Document, is_ours: Callable[[str], bool]) -> bool:
    """Whether the mail answers one of ours, by its threading or by the address it came to."""
    if any(is_ours(one) for one in (*document.in_reply_to, *reversed(document.references))):
        return True
    return any(
        is_ours(address)
        for name in ("to", "cc", "delivered-to", "x-original-to", "envelope-to", "resent-to", "resent-cc")
        for _, address in document.addresses(name)
    )


def _documents(document: Document) -> Iterator[tuple[Part, Notice]]:
    """What the formats understood of the attachments."""
    for part in document.parts:
        if part.is_message or part.size < 20 or (part.is_text and document.is_mail and not _is_hprim(part)):
            continue
        large = part.size > 128 * 1024
        head = part.content(1024 if large else MAX_CONTENT)
        if large and not head.startswith((b"%PDF-", b"PK\x03\x04")):  # others may show what they are late
            head = part.content(64 * 1024)
        for looks_like, reader in _READERS:
            if looks_like(part, head):
                notice = reader(part.content() if large else head)
                if notice is not None:
                    yield part, notice
                break


def _is_hprim(part: Part) -> bool:
    """Old secure mail writes HPRIM into the body itself; its end mark tells it from words to read."""
    if part.encoding == "base64":
        return b"****FIN" in part.content()
    return part.raw.find(b"****FIN", part.body, part.end) >= 0


def _own_text(document: Document, *, forward: bool, text: str | None = None) -> str:
    """The words that speak for this mail: an answer's own, a forward's with what it carries.

    `text`: other words of the same mail, its HTML for instance.
    """
    text = document.text if text is None else text
    if forward:
        return _unquoted(text)
    if _ANSWER.match(document.subject):
        return replies.new_text(text).text
    return (
        text
        if "\n>" not in text
        else "\n".join(line for line in text.split("\n") if not line.startswith(">"))
    )


def _shown_only(source: Document, *, forward: bool, zone: ZoneInfo) -> Notice | None:
    """A letter in the HTML of a mail whose plain words are none: « Voir ci-dessous », or a stub."""
    if not any(part.is_text and part.media_type == "text/plain" for part in source.parts):
        return None
    for part in source.parts:
        if part.is_text and part.media_type == "text/html":
            words = _own_text(source, forward=forward, text=html_text(part.text()))
            letter = letters.read(words, subject=source.subject, zone=zone)
            if letter.has_patient or letter.tells:
                return letter.notice
    return None


def _alone(
    document: Document,
    source: Document,
    own: str,
    recognised: Recognised,
    letter: letters.Letter,
    zone: ZoneInfo,
) -> Recognised:
    """The notice, unless something else that would leave with it speaks of another patient.

    The mail goes to the GP as it is: an older letter quoted below, a second message or text attached, HTML that
    says otherwise than the plain words, a text wrapped with the letter in HL7 v2 or FHIR. What only repeats the
    patient is no matter.
    """
    notice = recognised.notice
    others = [*_told(letter), *islice(_besides(document, source, own, zone), _MAX_BESIDE + 1)]
    if len(others) > _MAX_BESIDE:
        return _held(notice, Why.UNCLEAR)
    for other in others:
        two = any(problem.code == "two_patients" for problem in other.problems)
        someone = other.patient if other.patient is not None and notice.patient is not None else None
        if two or (someone and notice.patient and _contradict(notice.patient, someone)):
            problems = tuple(dict.fromkeys((*notice.problems, formats.TWO_PATIENTS)))
            return _held(replace(notice, problems=problems), Why.TWO_PATIENTS)
    above = replies.above_quotation(source.text) if document.is_mail else None
    top = letters.read(above, zone=zone) if above is not None else None
    if top is not None and top.tells and not top.has_patient:
        return _held(notice, Why.UNCLEAR)  # words about somebody over a letter, perhaps about somebody else
    return recognised


def _besides(document: Document, source: Document, own: str, zone: ZoneInfo) -> Iterator[Notice]:
    """What each text says that leaves with a letter, quotations and all; nothing where it names nobody."""
    yield from _wrapped(source, zone)
    if not document.is_mail:
        return
    if (words := _unquoted(source.text)) != own:
        yield from _named(words, zone)
    if source is not document:
        yield from _named(_unquoted(document.text), zone)
    yield from _hanging(document, zone)


def _hanging(document: Document, zone: ZoneInfo, *, packed: bool = False) -> Iterator[Notice]:
    """The same of HTML beside plain words, of files and archives, and of the messages attached, with what hangs on them.

    `packed`: it lies in an archive itself, and no second one is opened.
    """
    plain = any(part.is_text and part.media_type == "text/plain" for part in document.parts)
    for part in document.parts:
        if part.media_type == "text/html" and (plain or not part.is_text):
            yield from _named(_unquoted(html_text(part.text())), zone)
        elif part.media_type == "text/plain" and not part.is_text:
            yield from _named(part.text(), zone)
        elif part.is_message:
            yield from _mail_within(read(part.content()), zone, packed=packed)
        elif xdm.looks_like_zip(head := part.content(1024)):  # which may show a PDF that it did not press
            if not packed:
                yield from _packed(part.content(), zone)
        elif pdf.looks_like_pdf(head):
            if words := pdf.text(part.content()):
                yield from _told(letters.read(words, zone=zone))
        elif office.looks_like_rtf(head):
            yield from _named(office.rtf(part.content()), zone)
        elif not part.is_text and not any(looks_like(part, head) for looks_like, _ in _READERS):
            yield from _file(head, part, zone, packed=packed)


def _mail_within(inner: Document, zone: ZoneInfo, *, packed: bool) -> Iterator[Notice]:
    yield from _named(_unquoted(inner.text), zone)
    yield from (notice for _, notice in _documents(inner))
    yield from _wrapped(inner, zone)
    yield from _hanging(inner, zone, packed=packed)


def _file(head: bytes, part: Part, zone: ZoneInfo, *, packed: bool) -> Iterator[Notice]:
    """The same of words and mail whose type their sender did not know."""
    told = part.media_type.startswith("text/") or part.media_type in _TYPE_UNKNOWN
    if _HTML.match(head):
        yield from _named(_unquoted(html_text(part.text())), zone)
    elif told and part.media_type not in _NO_DOCUMENT and b"\x00" not in head and head[:1] != b"<":
        inner = read_alone(part.content())
        if inner.is_mail:
            yield from _mail_within(inner, zone, packed=packed)
        else:
            yield from _named(part.text(), zone)


def _wrapped(document: Document, zone: ZoneInfo) -> Iterator[Notice]:
    """The same of the texts inside HL7 v2 and FHIR, which leave without the message around them."""
    for part in document.parts:
        if not part.is_message and _wraps(part.content(4096)):
            yield from _inside(part.content(), zone)


def _wraps(head: bytes) -> bool:
    return hl7v2.looks_like(head) or fhir.looks_like_fhir(head)


def _inside(content: bytes, zone: ZoneInfo, deeper: int = 3) -> Iterator[Notice]:
    """What the documents of a message say that its own reader passes over: words, and messages within the message."""
    if hl7v2.looks_like(content[:4096]):
        inside = hl7v2.documents(content) or ()
    else:
        inside = fhir.documents(content) or ()
        yield from _named(_unquoted(fhir.words(content)), zone)
    for one in inside:
        if one.content == content or one.media_type in _READ_WITH_IT:
            continue
        if office.looks_like_rtf(one.content):
            yield from _named(office.rtf(one.content), zone)
            continue
        if xdm.looks_like_zip(one.content):
            yield from _packed(one.content, zone)
            continue
        wide = one.content[:2] in (b"\xff\xfe", b"\xfe\xff")
        words = one.content.decode("utf-16", "replace") if wide else decode(one.content)
        yield from _named(_unquoted(html_text(words) if one.media_type == "text/html" else words), zone)
        inner = read_file(one.name, one.content)
        yield from (notice for _, notice in _documents(inner))
        if inner.is_mail:
            yield from _named(_unquoted(inner.text), zone)
            yield from _hanging(inner, zone)
        if deeper and _wraps(one.content[:4096]):
            yield from _inside(one.content, zone, deeper - 1)


def _packed(content: bytes, zone: ZoneInfo) -> Iterator[Notice]:
    """What lies in an archive. Of an XDM its own reader looks at every document, bar words and RTF beside them."""
    names = content[-64 * 1024 :].lower()  # the central directory stands last
    package = b"metadata.xml" in names
    if package and b".rtf" not in names and names.count(b".txt") == names.count(b"readme.txt"):
        return
    members = xdm.members(content) or {}
    if words := office.packed(members):
        yield from _named(words, zone)
    for name, inside in members.items():
        if office.looks_like_rtf(inside):
            yield from _named(office.rtf(inside), zone)
            continue
        if package and not name.lower().endswith(".txt"):
            continue
        inner = read_file(name, inside)
        yield from (notice for _, notice in _documents(inner))
        if inner.is_mail:
            yield from _named(_unquoted(inner.text), zone)
            yield from _hanging(inner, zone, packed=True)
        elif pdf.looks_like_pdf(inside):
            yield from _named(pdf.text(inside) or "", zone)
        elif inner.parts[0].media_type == "text/plain":
            yield from _named(inner.parts[0].text(), zone)


def _named(text: str, zone: ZoneInfo) -> Iterator[Notice]:
    letter = letters.read(text, zone=zone)
    yield letter.notice if letter.has_patient or letter.notice.problems else Notice()
    yield from _told(letter)


def _told(letter: letters.Letter) -> Iterator[Notice]:
    """« Mme VASSEUR Odile née le 02/07/1944 » in prose: it names nobody for certain, and may be somebody else."""
    yield from (Notice(patient=Patient(birth_date=day)) for day in sorted(letter.born)[:3])


def _unquoted(text: str) -> str:
    if not text.startswith(_QUOTED) and not any(f"\n{mark}" in text for mark in _QUOTED):
        return text
    return re.sub(r"(?m)^[> \t]+", "", text)


def _held(notice: Notice, why: Why) -> Recognised:
    return Recognised(Outcome.UNCLEAR, notice, why=why)


def _judged(document: Document, pieces: list[tuple[Part, Notice]], letter: letters.Letter) -> Recognised:
    """Notice, unclear or other, from all that was read."""
    spoken = letter if letter.has_patient or letter.is_discharge else None
    notice = _merged(document, pieces, spoken.notice if spoken else None, leads=letter.has_patient)
    codes = {problem.code for problem in notice.problems}
    if "two_patients" in codes:
        return _held(notice, Why.TWO_PATIENTS)
    if codes & _BROKEN:
        return _held(notice, Why.BROKEN_PACKAGE)
    if "not_closed" in document.flaws and document.attachments:
        return _held(notice, Why.TRUNCATED)
    if "many_from" in document.flaws and (pieces or spoken):
        return _held(notice, Why.UNKNOWN_SENDER)
    named = notice.patient is not None and notice.patient != _NOBODY
    # A PDF that names nobody, a scan for instance, neither makes a notice nor unmakes the mail's own.
    naming = any(piece.format != "pdf" or piece.patient is not None for _, piece in pieces)
    if naming and named and notice.event:
        return Recognised(Outcome.NOTICE, notice)
    if not naming and letter.has_patient and notice.event:
        if _announces_package(document):  # the package it speaks of is not there, or not readable
            return _held(notice, Why.ATTACHMENT_UNREAD)
        return Recognised(Outcome.NOTICE, notice)
    if pieces or spoken is not None or letter.tells or _announces_package(document):
        return _held(notice, Why.UNCLEAR)
    if any(_DOCUMENT_NAME.search(part.filename or "") for part in document.attachments):
        return _held(notice, Why.ATTACHMENT_UNREAD)
    if "unreadable" in document.flaws or (not document.is_mail and "not_mail" in document.flaws):
        return Recognised(Outcome.OTHER, notice, why=Why.UNREADABLE)
    if document.is_mail and receipts.is_machine_mail(document):
        return Recognised(Outcome.AUTOMATIC, notice, why=Why.AUTOMATIC)
    if _HIDING & set(document.flaws):
        return _held(notice, Why.UNCLEAR)
    return Recognised(Outcome.OTHER, notice, why=Why.NOT_A_NOTICE)


def _announces_package(document: Document) -> bool:
    """The sender says that a document comes with it: hints that never make a notice by themselves."""
    return bool(_XDM_SUBJECT.search(document.subject) or document.header("x-mss-codecda"))


# ---------------------------------------------------------------------------------------------------------- merging


def _merged(
    document: Document, pieces: list[tuple[Part, Notice]], spoken: Notice | None, *, leads: bool = False
) -> Notice:
    """One notice: the package's or document's, completed by the mail's labelled lines where it is silent.

    A PDF beside either is a rendition of it: it may contradict, it never overrides. `leads`: the mail's lines
    name a patient, so they go before a PDF alone.
    """
    ranked = sorted(
        (notice for _, notice in pieces),
        key=lambda one: (one.event not in ("discharge", "death"), one.document == "advance_notice"),
    )
    printed = [one for one in ranked if one.format == "pdf"]
    written = [one for one in ranked if one.format != "pdf"]
    if printed and not written and leads and spoken is not None and spoken.event:
        written, spoken = [spoken], printed[0] if printed[0].patient is not None else None
    elif pieces and document.is_mail:
        written, printed = _by_mail(written), _by_mail(printed)
    ranked = [*written, *printed]
    if not ranked:
        return _checked(spoken or Notice())
    chief = ranked[0]
    problems = tuple(problem for notice in written or printed for problem in notice.problems)
    problems += tuple(one for notice in printed for one in notice.problems if one.code == "two_patients")
    people = [one.patient for one in ranked if one.patient is not None]
    if spoken is not None and spoken.patient is not None:
        people.append(spoken.patient)
        problems += tuple(one for one in spoken.problems if one.code == "two_patients")
    if any(_contradict(people[0], other) for other in people[1:]):
        problems += (formats.TWO_PATIENTS,)
    if spoken is not None:
        chief = _completed(chief, spoken)
    for other in ranked[1:]:
        chief = _beside(chief, other)
    return _checked(replace(chief, problems=tuple(dict.fromkeys(problems))))


def _beside(chief: Notice, other: Notice) -> Notice:
    """What a second document forbids is forbidden, and a second registered GP leaves none certain."""
    unknown = [name for name in other.unknown if name == "consent"]
    gp, said = chief.registered_gp, other.registered_gp
    if gp is not None and said is not None and gp.rpps and said.rpps and gp.rpps != said.rpps:
        unknown.append("registered_gp")
    return replace(
        chief,
        consent=identity.strictest(chief.consent, other.consent) or None,
        unknown=tuple(dict.fromkeys((*chief.unknown, *unknown))),
    )


def _by_mail(notices: list[Notice]) -> list[Notice]:
    """Documents that hang on a mail without a package of their own."""
    return [replace(one, package=one.package or "mime") for one in notices]


def _contradict(one: Patient, other: Patient) -> bool:
    """Two pieces name two people; an INS without OID is compared with any."""
    if one.ins and other.ins and None in (one.ins_oid, other.ins_oid) and one.ins[:13] != other.ins[:13]:
        return True
    return formats.contradict(one, other)


def _completed(chief: Notice, spoken: Notice) -> Notice:
    """Header beats narrative, the document beats the mail's text; two registered GPs are nobody's to choose from."""
    unknown = list(chief.unknown)
    gp, said = chief.registered_gp, spoken.registered_gp
    if gp is not None and said is not None and gp.rpps and said.rpps and gp.rpps != said.rpps:
        unknown.append("registered_gp")
    stay = formats.completed_stay(chief.stay or Stay(), spoken.stay or Stay())
    consent = identity.strictest(chief.consent, spoken.consent) if chief.consent or spoken.consent else None
    # What the mail's text leaves unreadable counts where the document says nothing about it either.
    unknown += [
        name
        for name in spoken.unknown
        if (name in ("consent", "urgency"))
        or (name.startswith("registered_gp") and gp is None)
        or (name.startswith("stay.") and getattr(stay, name.removeprefix("stay."), "") is None)
    ]
    if chief.event is None and spoken.event is not None:  # a package of PDF alone: the mail says what it is
        chief = replace(
            chief, event=spoken.event, document=spoken.document, format=chief.format or spoken.format
        )
    return replace(
        chief,
        patient=_one_person(chief.patient, spoken.patient),
        stay=stay if stay != Stay() else None,
        registered_gp=gp or said,
        consent=consent,
        urgency=chief.urgency or spoken.urgency,
        follow_up=chief.follow_up or spoken.follow_up,
        awaited_results=chief.awaited_results or spoken.awaited_results,
        referring_doctor=chief.referring_doctor or spoken.referring_doctor,
        recipients=chief.recipients or spoken.recipients,
        author=chief.author or spoken.author,
        unknown=tuple(dict.fromkeys(unknown)),
    )


def _one_person(chief: Patient | None, spoken: Patient | None) -> Patient | None:
    """The document's patient; what it leaves out is taken from the text only where the two agree on something."""
    if chief is None or spoken is None:
        return chief or spoken
    agree = (
        (chief.ins is not None and spoken.ins is not None and chief.ins[:13] == spoken.ins[:13])
        or (chief.birth_date is not None and chief.birth_date == spoken.birth_date)
    ) and not _contradict(chief, spoken)  # fmt: skip
    return formats.completed(chief, spoken) if agree else chief


def _checked(notice: Notice) -> Notice:
    """The key of a 15-character INS, checked once for every format; 13 characters have none."""
    patient = notice.patient
    if patient is None or patient.ins is None:
        return notice
    valid = identity.ins_is_valid(patient.ins) if len(patient.ins) == 15 else None
    return replace(notice, patient=replace(patient, ins_key_valid=valid))


# -------------------------------------------------------------------------------------------------------------- JSON


def to_json(
    recognised: Recognised, *, file: str, timezone: str = "Europe/Paris", signed: bool | None = None
) -> dict[str, object]:
    """The object of `relay recognise --json`: absent values are null, and a group without a value is null."""
    notice, receipt, zone = recognised.notice, recognised.receipt, ZoneInfo(timezone)
    patient, stay = notice.patient, notice.stay
    return {
        "file": file,
        "outcome": recognised.outcome.value,
        "why": recognised.why.value if recognised.why else None,
        "format": notice.format,
        "package": notice.package,
        "event": notice.event,
        "document": notice.document,
        "code": notice.code,
        "title": notice.title,
        "document_id": notice.document_id,
        "set_id": notice.set_id,
        "version": notice.version,
        "replaces": notice.replaces,
        "retracts": notice.retracts,
        "status": notice.status,
        "patient": _patient_json(patient) if patient else None,
        "stay": _group(
            admitted=_moment(stay.admitted, zone, exact=stay.admitted_exact),
            discharged=_moment(stay.discharged, zone, exact=stay.discharged_exact),
            number=stay.number, facility=stay.facility, facility_name=stay.facility_name, ward=stay.ward,
            unit=stay.unit, exit_mode=stay.exit_mode, entry_mode=stay.entry_mode,
        ) if stay else None,
        "author": _person(notice.author, "name", "rpps", "phone"),
        "registered_gp": _person(
            notice.registered_gp, "family_name", "given_name", "rpps", "mss_address", "organisation"
        ),
        "recipients": [
            {"name": one.name, "rpps": one.rpps, "copy": one.copy} for one in notice.recipients
        ],
        "follow_up": [
            {"what": one.what, "when": one.when.isoformat() if one.when else None} for one in notice.follow_up
        ],
        "awaited_results": list(notice.awaited_results),
        "referring_doctor": _person(notice.referring_doctor, "name", "rpps"),
        "medications": list(notice.medications),
        "stopped_medications": list(notice.stopped_medications),
        "consent": notice.consent,
        "urgency": notice.urgency,
        "signed": signed,
        "receipt": _group(
            kind=receipt.kind, status=receipt.status, code=receipt.code, recipient=receipt.recipient,
            original_message_id=receipt.original_message_id, envid=receipt.envid,
        ) if receipt else None,
        "unknown": list(notice.unknown),
        "problems": [{"code": one.code, "text": one.text} for one in notice.problems],
    }  # fmt: skip


def _group(**values: object) -> dict[str, object] | None:
    return values if any(value not in (None, [], ()) for value in values.values()) else None


def _patient_json(patient: Patient) -> dict[str, object] | None:
    return _group(
        ins=patient.ins,
        ins_oid=patient.ins_oid,
        ins_key_valid=patient.ins_key_valid,
        birth_name=patient.birth_name,
        used_name=patient.used_name,
        given_names=list(patient.given_names),
        sex=patient.sex,
        birth_date=patient.birth_date.isoformat() if patient.birth_date else None,
        birth_place=patient.birth_place,
        local_ids=[_local(one) for one in patient.local_ids],
    )


def _local(one: LocalId) -> dict[str, str | None]:
    return {"system": one.system or None, "value": one.value}


def _person(person: Person | None, *names: str) -> dict[str, object] | None:
    return _group(**{name: getattr(person, name) for name in names}) if person else None


def _moment(moment: datetime | None, zone: ZoneInfo, *, exact: bool) -> str | None:
    """ISO 8601 in the local time zone; a day alone where no time of day was written."""
    if moment is None:
        return None
    local = moment.astimezone(zone)
    return local.isoformat() if exact else local.date().isoformat()
