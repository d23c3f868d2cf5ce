"""FHIR R4 in JSON: documents, messages and collections, event notifications, document references.

A reference is followed inside the file only, never over a network; one that leads nowhere, or to two
different things, makes its field unknown. Codes name a French event or letter only beside a French mark.
Paths after FHIR R4 (hl7.org/fhir/R4), the French core profiles and the guide « notification
d'évènements » of the CI-SIS. Numbers are never read: everything that routing needs is text.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from dataclasses import fields as fields_of
from datetime import UTC, date, datetime
from typing import Final, Literal, NoReturn

from relay import formats
from relay.formats import cda, enclosed, pdf, xdm
from relay.formats import text as letters
from relay.formats.enclosed import Enclosed
from relay.model import FollowUp, LocalId, Notice, Patient, Person, Problem, Stay
from relay.reading import html_text, never_raises

MAX_JSON = 20 * 2**20
MAX_MARKS = 400_000  # commas, braces and brackets: each value costs a hundred bytes of memory
MAX_DEPTH = 100
MAX_RESOURCES = 5000
_MAX_TEXT = 1000
_MAX_LIST = 200
_MAX_DOCUMENTS = 20
_MAX_ENTRIES = 20
_MAX_MEDICATIONS = 100
_MAX_LINES = 20_000
_MAX_SECTIONS_DEEP = 6
_MAX_NARRATIVE = 2**20

Json = dict[str, object]

_FRENCH = re.compile(
    r'"(?:https?:\\?/\\?/(?:[\w-]+\.)*(?:esante\.gouv|finess\.sante\.gouv|hl7|interopsante|interop-sante)\.(?:fr|org)\\?/'
    r"|urn:oid:1\.2\.250\.1\.(?:71|213)\.)(?<!hl7\.org/)(?<!hl7\.org\\/)"
)
_LOINC = ("http://loinc.org", "urn:oid:2.16.840.1.113883.6.1", "2.16.840.1.113883.6.1")
_OBSOLETE_INS_C = "1.2.250.1.213.1.4.2"
_LOCAL_TYPES = frozenset({"PI", "MR", "PT"})  # v2-0203; passports, licences and social security are none
_FORMER = ("old", "temp", "nickname", "anonymous")
_INPATIENT = frozenset({"IMP", "ACUTE", "NONAC", "OBSENC", "SS"})  # v3-ActCode, ActEncounterCode
_RANK = {"discharge": 0, "death": 0, "er_visit": 1, "birth": 2, "transfer": 3, "admission": 4}

# Event codes. TRE_R254 of the NOS; HL7 table 0003, whose cancellations withdraw; the R4 message events.
_R254: Final = {"SOR": "discharge"}
_ADT: Final = {"A01": "admission", "A02": "transfer", "A03": "discharge", "A04": "other",
               "A11": "admission", "A12": "transfer", "A13": "discharge"}  # fmt: skip
_CANCELLED = frozenset({"A11", "A12", "A13"})
_WORDS: Final = {"notification-discharge": "discharge", "notification-admit": "admission",
                 "notification-transfer": "transfer"}  # fmt: skip

_EXITS: Final = {  # terminology.hl7.org discharge-disposition, and the codes of the CI-SIS observation ORG-074
    "home": "home", "alt-home": "home", "160849004": "home",
    "other-hcf": "hospital", "hosp": "hospital", "psy": "hospital", "GEN-092.06.01": "hospital",
    "long": "nursing_home", "snf": "nursing_home", "500": "nursing_home",
    "rehab": "rehabilitation", "109": "rehabilitation", "127": "home_hospitalisation",
    "exp": "death", "419099009": "death", "aadvice": "other", "oth": "other", "GEN-092.06.03": "other",
}  # fmt: skip

_SOURCES: Final = {  # terminology.hl7.org admit-source
    "hosp-trans": "hospital", "psych": "hospital", "emd": "emergency", "born": "birth", "nursing": "nursing_home",
    "rehab": "rehabilitation", "other": "other",
}  # fmt: skip

_MOMENT = re.compile(r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)?)?")
_UNSAFE = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff\u200b\u2028-\u202e\u2066-\u2069\ufeff]")
_STRUCK = re.compile(r"<(/)?(?:del|s|strike)(?:\s[^<>]{0,200})?>", re.IGNORECASE)
_NOTHING = re.compile(r"(aucune?|neant|sans objet|non|rien|pas de)\b.{0,40}")


class _RefusedJson(ValueError):
    """The JSON breaks a bound or a rule that protects the reader."""


# --------------------------------------------------------------------------------------------------------- reading


def looks_like_fhir(content: bytes) -> bool:
    """A JSON object, by its first byte. What kind of object it is only parsing tells."""
    bare = content[:64].replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
    return bare[:1] == b"{"


def read(content: bytes) -> Notice | None:
    """What a FHIR resource or bundle says; None for other JSON. Broken FHIR gives a notice with a problem."""
    found = _read(content)
    if found is not _UNREADABLE:
        return found
    if b"resourceType" not in content.replace(b"\x00", b""):
        return None
    return found


_UNREADABLE = Notice(format="fhir", problems=(Problem("unreadable_document", "le FHIR ne peut pas être lu"),))


@never_raises(None)
def documents(content: bytes) -> tuple[Enclosed, ...] | None:
    """The documents enclosed, each as it was before it was put into the FHIR; () for an event alone.

    A document bundle that encloses none is the document itself. None where it is no FHIR, or where a document
    cannot be had: then the file itself is all there is.
    """
    letter = _letter(content)
    if letter is None:
        return None
    found = list(letter.enclosed())
    if any(problem != formats.ELSEWHERE for problem in letter.problems):
        return None
    if not found and letter.narrative():
        return (Enclosed("lettre.json", "application/fhir+json", content),)
    return enclosed.named(
        (inside, _text(attachment.get("contentType")) or "") for attachment, inside in found
    )


@never_raises("")
def words(content: bytes) -> str:
    """What stands there for a human reader: the Composition section by section, else the lines of a Communication."""
    letter = _letter(content) if looks_like_fhir(content) else None
    return letter.narrative() or letter.lines_sent() if letter is not None else ""


@never_raises(_UNREADABLE)
def _read(content: bytes) -> Notice | None:
    """Every error that bytes can cause ends here: broken JSON, depth, charset, a bound."""
    letter = _letter(content)
    return letter.notice() if letter is not None else None


def _letter(content: bytes) -> _Letter | None:
    """The file, parsed; None where it is no FHIR. Raises ValueError and RecursionError for what is hostile."""
    if len(content) > MAX_JSON:
        raise _RefusedJson("too large")
    text = content.decode(json.detect_encoding(content))
    if text.count(",") + text.count("{") + text.count("[") > MAX_MARKS:
        raise _RefusedJson("too many values")
    root = json.loads(text, object_pairs_hook=_object, parse_int=_number, parse_float=_number,
                      parse_constant=_refuse)  # fmt: skip
    if not isinstance(root, dict) or not isinstance(root.get("resourceType"), str):
        return None
    _check_depth(root)
    return _Letter(root, french=_FRENCH.search(text) is not None)


def _object(pairs: list[tuple[str, object]]) -> Json:
    """Two members of one name are refused: readers differ in which of the two they take."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RefusedJson("a name stands twice")
    return found


def _number(digits: str) -> int:
    """Sizes are the only numbers anybody asks for; a value too long for one is nobody's."""
    if len(digits) > 32:
        raise _RefusedJson("a number is too long")
    return int(digits) if digits.lstrip("-").isdigit() else -1


def _refuse(_: str) -> NoReturn:
    raise _RefusedJson("NaN or Infinity")


def _check_depth(root: Json) -> None:
    level: list[object] = [root]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            for inner in (
                value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
            )
            if isinstance(inner, dict | list)
        ]
        if not level:
            return
    raise _RefusedJson("too deep")


# ----------------------------------------------------------------------------------------------------------- values


def _text(value: object) -> str | None:
    """A string on one line, safe to store, at most 1000 characters; None for anything else."""
    if not isinstance(value, str):
        return None
    return " ".join(_UNSAFE.sub("", value[: 4 * _MAX_TEXT]).split())[:_MAX_TEXT] or None


def _one(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _all(value: object) -> list[Json]:
    """The objects of a list; one object that should have been a list counts as one."""
    many = value if isinstance(value, list) else [value]
    return [one for one in many[:_MAX_LIST] if isinstance(one, dict)]


def _texts(value: object) -> list[str]:
    many = value if isinstance(value, list) else [value]
    return [words for one in many[:_MAX_LIST] if (words := _text(one))]


def _kind(resource: Json) -> str:
    return _text(resource.get("resourceType")) or ""


def _oid(system: object) -> str:
    """The system of an identifier, an OID without its `urn:oid:`."""
    return (_text(system) or "").removeprefix("urn:oid:")


def _codings(concept: object) -> Iterator[tuple[str, str, str]]:
    """(system, code, words) of a CodeableConcept, a list of them, or a Coding."""
    for one in _all(concept):
        coded = _all(one.get("coding")) if "coding" in one or "text" in one else [one]
        for coding in coded:
            words = _text(coding.get("display")) or _text(one.get("text")) or ""
            yield _oid(coding.get("system")), _text(coding.get("code")) or "", words
        if not coded and _text(one.get("text")):
            yield "", "", _text(one.get("text")) or ""


def _extensions(element: Json, name: str) -> Iterator[Json]:
    """The extensions whose URL ends with `name`, punctuation and case aside."""
    for one in _all(element.get("extension")):
        last = re.split(r"[/#]", _text(one.get("url")) or "")[-1]
        if re.sub(r"[^a-z0-9]", "", last.lower()).endswith(name):
            yield one


def _moment(value: object) -> tuple[datetime, bool] | None:
    """(UTC time, whether it has an hour) of a FHIR dateTime; None when it is less than a day or is not real."""
    found = _MOMENT.fullmatch(_text(value) or "")
    if not found:
        return None
    try:
        if found[4] is None:
            return _midnight(date(int(found[1]), int(found[2]), int(found[3]))), False
        moment = datetime.fromisoformat(
            f"{found[0][:16]}:{found[6] or '00'}{(found[7] or '').replace('Z', '+00:00')}"
        )
        return (moment if moment.tzinfo else moment.replace(tzinfo=formats.PARIS)).astimezone(UTC), True
    except (ValueError, OverflowError):
        return None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=formats.PARIS).astimezone(UTC)


def _document_id(identifier: Json) -> str | None:
    """As the CDA writes it: `root` or `root^extension`; a bare URI for others."""
    system, value = _oid(identifier.get("system")), _text(identifier.get("value"))
    if not value:
        return None
    bare = value.removeprefix("urn:oid:").removeprefix("urn:uuid:")
    return bare if system in ("", "urn:ietf:rfc:3986") else f"{system}^{bare}"


def _rpps(identifiers: object) -> tuple[str | None, bool]:
    """(RPPS, whether one stands there that cannot be read) of the identifiers of a professional."""
    found: set[str] = set()
    unreadable = False
    for one in _all(identifiers):
        system, value = _oid(one.get("system")), _text(one.get("value"))
        kinds = {code for _, code, _ in _codings(one.get("type"))}
        if not value or not (
            system == formats.PROFESSIONALS_OID or "rpps" in system.lower() or kinds & {"RPPS", "IDNPS"}
        ):
            continue
        if rpps := formats.bare_rpps(value):
            found.add(rpps)
        else:
            unreadable = True
    if len(found) > 1:
        return None, True
    return (found.pop() if found else None), unreadable and not found


def _finess(organisation: Json) -> str | None:
    for one in _all(organisation.get("identifier")):
        system = _oid(one.get("system"))
        if (system == formats.STRUCTURES_OID or "finess" in system.lower()) and (
            finess := formats.bare_finess(_text(one.get("value")))
        ):
            return finess
    return None


def _telecoms(*owners: Json) -> tuple[str | None, str | None]:
    """(secure address, phone). An ordinary mail address is nobody's secure mailbox."""
    address = phone = None
    for owner in owners:
        for one in _all(owner.get("telecom")):
            system, value = _text(one.get("system")), _text(one.get("value")) or ""
            bare = value.lower().removeprefix("mailto:").strip()
            secure = any(_extensions(one, "mailboxmssmetadata")) or re.search(
                r"@(?:[\w-]+\.)*mssante\.fr$", bare
            )
            if "@" in bare and " " not in bare and secure:
                address = address or bare
            elif system == "phone" and value:
                phone = phone or value.removeprefix("tel:")
    return address, phone


# ------------------------------------------------------------------------------------------------------- the letter


@dataclass(frozen=True, slots=True)
class _Said:
    """What one resource says of itself: an event, a document, or both."""

    resource: Json
    event: str | None = None
    document: str | None = None
    code: str | None = None
    title: str | None = None
    status: str | None = None
    replaces: str | None = None
    document_id: str | None = None
    set_id: str | None = None
    version: str | None = None
    withdrawn: bool = False
    is_document: bool = False
    discharged: object = None  # a dateTime that says when the event was
    urgency: str | None = None


class _Letter:
    """One file being read; collects what stands there and cannot be read."""

    def __init__(self, root: Json, *, french: bool) -> None:
        self.root, self.french = root, french
        self.unknown: list[str] = []
        self.problems: list[Problem] = []
        self.resources: list[Json] = []  # of the entries, bundles opened
        self.inner: list[Json] = []  # contained
        self.urls: dict[int, str] = {}  # id(resource) → fullUrl
        self.roots: dict[int, Json] = {}  # id(contained) → the resource around it
        self._gather()

    def _gather(self) -> None:
        """Every resource of the file with the URL it stands under; bundles in bundles are opened."""
        waiting: list[tuple[str, Json]] = [("", self.root)]
        while waiting and len(self.resources) < MAX_RESOURCES:
            url, resource = waiting.pop(0)
            self.urls[id(resource)] = url
            if _kind(resource) == "Bundle":
                entries = resource.get("entry")
                for entry in (entries if isinstance(entries, list) else [])[:MAX_RESOURCES]:
                    one = _one(_one(entry).get("resource"))
                    if _kind(one):
                        if _text(_one(_one(entry).get("request")).get("method")) == "DELETE":
                            continue
                        waiting.append((_text(_one(entry).get("fullUrl")) or "", one))
                continue
            self.resources.append(resource)
            for one in _all(resource.get("contained")):
                self.roots[id(one)] = resource
                self.inner.append(one)
        if waiting:
            raise _RefusedJson("too many resources")

    def of_kind(self, *kinds: str, contained: bool = False) -> list[Json]:
        return [one for one in (*self.resources, *(self.inner if contained else ())) if _kind(one) in kinds]

    def resolve(self, reference: Json, source: Json) -> Json | None:
        """The resource a reference of `source` means; None when it is not in the file or means two."""
        place = (_text(reference.get("reference")) or "").split("/_history/")[0]
        if not place:
            return None
        around = self.roots.get(id(source), source)
        if place.startswith("#"):
            found = [
                one
                for one in _all(around.get("contained"))
                if (_text(one.get("id")) or "").lstrip("#") == place[1:] and place != "#"
            ]
        elif ":" in place:
            found = [one for one in self.resources if self.urls.get(id(one)) == place]
        else:
            kind, _, name = place.partition("/")
            base = re.match(r"https?://.*/(?=[A-Z]\w+/[^/]+$)", self.urls.get(id(around), ""))
            found = []
            for one in self.resources:
                if _kind(one) != kind or not name:
                    continue
                url = self.urls.get(id(one), "")
                # A resource of another server may bear the same number: it is somebody else.
                if (base and url == base[0] + place) or (
                    _text(one.get("id")) == name and (not base or not url.startswith("http"))
                ):
                    found.append(one)
        return found[0] if found and all(one == found[0] for one in found[1:]) else None

    # ------------------------------------------------------------------------------------------------ the whole

    def notice(self) -> Notice:
        said = self.said()
        chief = said[0] if said else _Said(self.root)
        if sum(one.is_document and one.event in ("discharge", "death", "er_visit") for one in said) > 1:
            self.problems.append(Problem("many_documents", "plusieurs lettres dans le même envoi"))
            chief = replace(chief, event=None, document=None)
        patient = self.patient(chief.resource)
        stay = self.stay(chief)
        event, document = chief.event, chief.document
        if event in ("discharge", "er_visit") and (
            (patient is not None and patient.deceased) or stay.exit_mode == "death"
        ):
            event = "death"
        inside = list(self.enclosed())
        embedded = list(self.embedded(inside))
        if document == "letter" and not inside and _kind(chief.resource) == "DocumentReference":
            document = "advance_notice"  # it points at a letter that is not in the file
        elif document is None and event is not None:
            # A line of text beside an event says that it happened; it is no letter.
            noted = all((_text(one.get("contentType")) or "").startswith("text/plain") for one, _ in inside)
            document = "advance_notice" if noted else "letter"
        if chief.withdrawn:
            document = "retraction"
        elif document == "letter" and chief.replaces:
            document = "replacement"
        return self.joined(
            Notice(
                format="fhir",
                event=event,
                document=document,
                code=chief.code,
                title=chief.title,
                document_id=chief.document_id,
                set_id=chief.set_id,
                version=chief.version,
                replaces=chief.replaces,
                retracts=chief.document_id if chief.withdrawn and chief.is_document else None,
                status=chief.status,
                patient=patient,
                stay=stay if stay != Stay() else None,
                author=self.author(chief.resource),
                registered_gp=self.registered_gp(),
                recipients=self.recipients(chief.resource),
                follow_up=tuple(self.follow_up(chief.resource)),
                awaited_results=self.awaited(chief.resource),
                referring_doctor=self.referring_doctor(chief.resource),
                medications=self.medications(chief.resource, "10183-2", "medications"),
                stopped_medications=self.medications(chief.resource, "18610-6", "stopped_medications"),
                consent=self.consent(),
                urgency=chief.urgency,
                unknown=tuple(dict.fromkeys(self.unknown)),
                problems=tuple(dict.fromkeys(self.problems)),
            ),
            embedded,
        )

    # ------------------------------------------------------------------------------------------- events, documents

    def said(self) -> list[_Said]:
        """What the resources say, the one that speaks for the file first: documents before events."""
        found: list[_Said] = []
        compositions = self.of_kind("Composition")
        if _text(self.root.get("type")) == "document" and compositions:
            compositions = compositions[:1]  # R4 §3.3: the first entry is the document, others are quoted
        found += [self.composition(one) for one in compositions]
        found += [
            self.document_reference(one) for one in self.of_kind("DocumentReference") if not compositions
        ]
        found += [self.header(one) for one in self.of_kind("MessageHeader")]
        found += [self.communication(one) for one in self.of_kind("Communication", "CommunicationRequest")]
        if not any(one.event for one in found):
            found += [self.encounter_event(one) for one in self.of_kind("Encounter")]
        for one in self.of_kind("Subscription"):
            found.append(_Said(one, code=self.event_code(one)[1]))
            self.problems.append(Problem("subscription", "abonnement à des notifications, pas un évènement"))
        return sorted(found, key=lambda one: _RANK.get(one.event or "", 5 if one.event else 6))

    def claim(self, concept: object) -> tuple[str | None, str | None, str | None, str | None]:
        """(event, document, code, words) of a document type: LOINC codes of the CI-SIS, beside a French mark."""
        for system, code, words in _codings(concept):
            if system in _LOINC and code:
                if self.french and code in cda.CODES:
                    return (*cda.CODES[code], code, words or None)
                if code == "11490-0":
                    self.problems.append(Problem("foreign_letter", "lettre sans marque française"))
                return "other", "other", code, words or None
        for _, code, words in _codings(concept):
            return "other", "other", code or None, words or None
        return None, None, None, None

    def composition(self, one: Json) -> _Said:
        event, document, code, words = self.claim(one.get("type"))
        status = _text(one.get("status"))
        replaces = None
        for related in _all(one.get("relatesTo")):
            target = _document_id(_one(related.get("targetIdentifier"))) or self.target(
                _one(related.get("targetReference")), one
            )
            if _text(related.get("code")) == "replaces":
                replaces = target
                if target is None:
                    self.unknown.append("replaces")
            elif _text(related.get("code")) == "appends" and document == "letter":
                document = "addendum"
        version = next(
            (words for two in _extensions(one, "versionnumber") if (words := _text(two.get("valueString")))),
            None,
        )
        set_id = next((found for two in _all(one.get("identifier")) if (found := _document_id(two))), None)
        own = _document_id(_one(self.root.get("identifier"))) if _kind(self.root) == "Bundle" else None
        return _Said(
            one, event, document, code, _text(one.get("title")) or words,
            {"preliminary": "draft", "final": "final", "amended": "final"}.get(status or ""),
            replaces, own, set_id, version, withdrawn=status == "entered-in-error", is_document=True,
        )  # fmt: skip

    def target(self, reference: Json, source: Json) -> str | None:
        """The identifier of a document that another one names."""
        if found := _document_id(_one(reference.get("identifier"))):
            return found
        resource = self.resolve(reference, source) or {}
        return next(
            (
                found
                for name in ("masterIdentifier", "identifier")
                for one in _all(resource.get(name))
                if (found := _document_id(one))
            ),
            None,
        )

    def document_reference(self, one: Json) -> _Said:
        event, document, code, words = self.claim(one.get("type"))
        status, inner = _text(one.get("status")), _text(one.get("docStatus"))
        if status == "superseded":
            self.problems.append(Problem("superseded", "le document a été remplacé"))
            event = None
        replaces = None
        for related in _all(one.get("relatesTo")):
            target = self.target(_one(related.get("target")), one)
            if _text(related.get("code")) == "replaces":
                replaces = target
                if target is None:
                    self.unknown.append("replaces")
            elif _text(related.get("code")) == "appends" and document == "letter":
                document = "addendum"
        own = self.target({"reference": "#"}, one)
        own = next(
            (
                found
                for name in ("masterIdentifier", "identifier")
                for two in _all(one.get(name))
                if (found := _document_id(two))
            ),
            own,
        )
        title = next(
            (
                words
                for two in _all(one.get("content"))
                if (words := _text(_one(two.get("attachment")).get("title")))
            ),
            words,
        )
        return _Said(
            one, event, document, code, _text(one.get("description")) or title,
            {"preliminary": "draft", "final": "final", "amended": "final"}.get(inner or ""),
            replaces, own, withdrawn="entered-in-error" in (status, inner), is_document=True,
        )  # fmt: skip

    def event_code(self, one: Json) -> tuple[str | None, str | None, str | None]:
        """(event, code, words) of the extension EventType of an event notification."""
        for extension in _all(one.get("extension")):
            for system, code, words in _codings(extension.get("valueCodeableConcept")):
                if "r254" in system.lower() and code:
                    return _R254.get(code, "other"), code, words or None
        return None, None, None

    def header(self, one: Json) -> _Said:
        """MessageHeader: what happened, as a message event."""
        for system, code, words in _codings(one.get("eventCoding")):
            event = None
            if "r254" in system.lower():
                event = _R254.get(code, "other")
            elif system.endswith("v2-0003") or system == "2.16.840.1.113883.12.3":
                event = _ADT.get(code, "other")
            elif code in _WORDS:
                event = _WORDS[code]
            if event is not None:
                if not self.french and event == "discharge":
                    self.problems.append(Problem("foreign_letter", "avis sans marque française"))
                    event = "other"
                return _Said(one, event, code=code, title=words or None, withdrawn=code in _CANCELLED,
                             document_id=_document_id(_one(self.root.get("identifier"))))  # fmt: skip
        return _Said(one)

    def communication(self, one: Json) -> _Said:
        """A Communication or CommunicationRequest of the event notification guide."""
        event, code, words = self.event_code(one)
        status = _text(one.get("status"))
        time = next((two.get("valueDateTime") for two in _extensions(one, "eventtime")), None)
        urgency = {"routine": "routine", "urgent": "urgent", "asap": "urgent", "stat": "urgent"}.get(
            _text(one.get("priority")) or ""
        )
        own = next((found for two in _all(one.get("identifier")) if (found := _document_id(two))), None)
        return _Said(
            one, event, None, code, words, "draft" if status in ("draft", "on-hold", "preparation") else None,
            document_id=own, withdrawn=status in ("revoked", "entered-in-error", "stopped", "not-done"),
            discharged=time if event == "discharge" else None, urgency=urgency,
        )  # fmt: skip

    def encounter_event(self, one: Json) -> _Said:
        """A stay alone: finished and with an end it is a discharge, in France, of a patient who lay in a bed."""
        status = _text(one.get("status"))
        codes = {code for _, code, _ in _codings(one.get("class"))}
        ended = status in ("finished", "completed", "discharged") and _text(_period(one).get("end"))
        event = None
        if self.french and (ended or status == "entered-in-error"):
            event = "discharge" if codes & _INPATIENT else "er_visit" if "EMER" in codes else "other"
        return _Said(one, event, withdrawn=status == "entered-in-error")

    # ---------------------------------------------------------------------------------------------- the patient

    def patient(self, chief: Json) -> Patient | None:
        """The one person of the file, who must be the one its chief resource speaks of."""
        found: list[tuple[Json, Patient]] = []
        for one in self.of_kind("Patient", contained=True):
            if not any(one == known for known, _ in found):
                found.append((one, _patient(one, self.unknown, self.problems)))
        people = [who for _, who in found]
        if any(_apart(first, other) for n, first in enumerate(people) for other in people[:n]):
            self.problems.append(formats.TWO_PATIENTS)
        own: Patient | None = None
        for source in (chief, self.encounter(chief)):
            subject = self.subject(source)
            if not subject:
                continue
            resource = self.resolve(subject, source)
            named = _patient({"identifier": _all(subject.get("identifier"))}, self.unknown, self.problems)
            if resource is not None and _kind(resource) == "Patient":
                who = next(who for known, who in found if known == resource)
                if named.ins and _apart(who, named):
                    self.problems.append(formats.TWO_PATIENTS)
                own = own or who
            elif not found:
                own = own or (named if named != Patient() else None)
                if own is None:
                    self.unknown.append("patient")
            elif (_text(subject.get("reference")) or named != Patient()) and not any(
                (named.ins and named.ins == one.ins) or set(named.local_ids) & set(one.local_ids)
                for one in people
            ):
                # It speaks of a person who is not in the file: whoever is there may be somebody else.
                self.problems.append(formats.TWO_PATIENTS)
        if own is not None or not people:
            return own
        return max(people, key=lambda who: sum(bool(getattr(who, one.name)) for one in fields_of(Patient)))

    @staticmethod
    def subject(resource: Json) -> Json:
        """The reference to the patient, under the names that resources give it."""
        stated = _one(resource.get("subject") or resource.get("patient"))
        return stated or next(
            (_one(one.get("valueReference")) for one in _extensions(resource, "subject")), {}
        )

    # ---------------------------------------------------------------------------------------------- the people

    def registered_gp(self) -> Person | None:
        """Of Patient.generalPractitioner alone. Two doctors, or one that cannot be found, are nobody."""
        doctors: list[Person] = []
        centres: list[Person] = []
        missing = False
        for patient in self.of_kind("Patient", contained=True):
            for reference in _all(patient.get("generalPractitioner")):
                before = len(self.unknown)
                person = self.person(reference, patient, "registered_gp")
                if person is None:
                    missing = missing or "registered_gp" in self.unknown[before:]
                elif person.rpps or person.name:
                    doctors += [] if person in doctors else [person]
                elif person not in centres:
                    centres.append(person)
        if missing:
            return None
        if len({one.rpps or formats.fold(one.name or "") for one in doctors}) > 1:
            self.unknown.append("registered_gp")
            self.problems.append(Problem("many_gps", "plusieurs médecins traitants dans le document"))
            return None
        if doctors:
            place = doctors[0].organisation or (centres[0].organisation if len(centres) == 1 else None)
            return replace(doctors[0], organisation=place)
        return centres[0] if len(centres) == 1 else None

    def person(self, reference: Json, source: Json, field: str | None = None) -> Person | None:
        """Whom a reference means. `field` names what a reference that leads nowhere makes unknown."""
        logical = _one(reference.get("identifier"))
        said, unreadable = _rpps(logical)
        resource = self.resolve(reference, source)
        if resource is None:
            shown = letters.person(_text(reference.get("display")) or "") or Person()
            named = bool(shown.name) and not logical and not _text(reference.get("reference"))
            if said is None and reference != {} and not named:
                if field:
                    self.unknown.append(field)
                return None
            return Person(
                name=shown.name, family_name=shown.family_name, given_name=shown.given_name, rpps=said
            )
        role, organisation = {}, {}
        who = resource
        if _kind(resource) in ("PractitionerRole", "HealthcareService"):
            role = resource
            place = resource.get("organization") or resource.get("providedBy")
            organisation = self.resolve(_one(place), resource) or {"name": _one(place).get("display")}
            inner = _one(resource.get("practitioner"))
            found = self.resolve(inner, resource)
            if found is None and inner:
                rpps, bad = _rpps([*_all(inner.get("identifier")), *_all(role.get("identifier"))])
                shown = letters.person(_text(inner.get("display")) or "") or Person()
                if rpps is None and field:
                    self.unknown.append(f"{field}.rpps" if shown.name or bad else field)
                    if not shown.name:
                        return None
                address, phone = _telecoms(role)
                return Person(shown.name, shown.family_name, shown.given_name, rpps, address,
                              _text(organisation.get("name")), phone)  # fmt: skip
            who = found or {}
        elif _kind(resource) == "Organization":
            address, phone = _telecoms(resource)
            return Person(mss_address=address, organisation=_text(resource.get("name")), phone=phone)
        if who and _kind(who) != "Practitioner":
            if field:
                self.unknown.append(field)
            return None
        rpps, bad = _rpps([*_all(who.get("identifier")), *_all(role.get("identifier"))])
        if said and rpps and said != rpps:
            if field:
                self.unknown.append(field)
            return None
        if (bad or unreadable) and field:
            self.unknown.append(f"{field}.rpps")
        names = [one for one in _all(who.get("name")) if _text(one.get("use")) not in _FORMER]
        name = next(
            (one for one in names if _text(one.get("use")) in ("usual", "official")),
            names[0] if names else {},
        )
        family, given = _text(name.get("family")), " ".join(_texts(name.get("given"))) or None
        if family is None and (words := _text(name.get("text"))):
            shown = letters.person(words) or Person()
            family, given = shown.family_name, shown.given_name
        address, phone = _telecoms(role, who)
        result = Person(
            name=" ".join(part for part in (given, family) if part) or None,
            family_name=family,
            given_name=given,
            rpps=rpps or said,
            mss_address=address,
            organisation=_text(organisation.get("name")),
            phone=phone,
        )
        if result == Person():
            if field:
                self.unknown.append(field)
            return None
        return result

    def referring_doctor(self, chief: Json) -> Person | None:
        """Who takes part in the stay as referrer (v3-ParticipationType REF, REFB); of two, nobody."""
        encounter = self.encounter(chief, quietly=True)
        people: list[Person] = []
        for one in _all(encounter.get("participant")):
            roles = {code for _, code, _ in _codings(one.get("type"))}
            person = self.person(_one(one.get("individual") or one.get("actor")), encounter)
            if roles & {"REF", "REFB"} and person is not None and (person.rpps or person.name):
                people += [] if person in people else [person]
        return people[0] if len(people) == 1 else None

    def author(self, chief: Json) -> Person | None:
        references = [*_all(chief.get("author")), *_all(chief.get("sender")), *_all(chief.get("requester"))]
        people = [self.person(one, chief) for one in references]
        return next((one for one in people if one is not None and (one.name or one.rpps)), None)

    def recipients(self, chief: Json) -> tuple[Person, ...]:
        references = [*_all(chief.get("recipient"))]
        references += [_one(one.get("valueReference")) for one in _extensions(chief, "informationrecipient")]
        references += [_one(one.get("receiver")) for one in _all(chief.get("destination"))]
        people = [(one, self.person(one, chief)) for one in references if one]
        found = []
        for reference, person in people:
            if person is None or person == Person():
                continue
            for extension in _extensions(reference, "recipientendpoint"):
                place = (_text(extension.get("valueUrl")) or "").lower()
                place = re.sub(r"^(?:mailto:)+", "", place)
                if re.search(r"^[^\s@]+@(?:[\w-]+\.)*mssante\.fr$", place):
                    person = replace(person, mss_address=person.mss_address or place)
            found.append(person)
        return tuple(dict.fromkeys(found))

    # -------------------------------------------------------------------------------------------------- the stay

    def stay(self, said: _Said) -> Stay:
        chief = said.resource
        encounter = self.encounter(chief)
        stay = Stay()
        over = _text(encounter.get("status")) not in (
            "planned", "in-progress", "arrived", "triaged", "onleave", "cancelled", "on-hold",
        )  # fmt: skip
        sources = [_period(encounter) if over else {"start": _period(encounter).get("start")}]
        sources += [_one(one.get("period")) for one in _all(chief.get("event"))]
        sources.append(_one(_one(chief.get("context")).get("period")))
        for source in sources:
            for edge, name in (("start", "admitted"), ("end", "discharged")):
                if source.get(edge) is not None:
                    stay = self.timed(stay, name, source.get(edge))
            if stay.admitted or stay.discharged:
                break  # both edges of one source: the other may speak of another stay
        if stay.discharged is None and said.discharged is not None:
            stay = self.timed(stay, "discharged", said.discharged)
        numbers = _all(encounter.get("identifier"))
        visits = [one for one in numbers if any(code == "VN" for _, code, _ in _codings(one.get("type")))]
        number = next((value for one in visits or numbers if (value := _text(one.get("value")))), None)
        mode = None
        lying = _one(encounter.get("hospitalization")) or _one(encounter.get("admission"))
        for _, code, words in _codings(lying.get("dischargeDisposition")):
            mode = mode or _EXITS.get(code) or formats.exit_mode(words)
        if mode is None and lying.get("dischargeDisposition"):
            mode = "other"
        came = None
        for _, code, words in _codings(lying.get("admitSource")):
            came = came or _SOURCES.get(code) or formats.entry_mode(words)
        facility, called, ward, unit = self.places(chief, encounter)
        return replace(stay, number=number, facility=facility, facility_name=called, ward=ward, unit=unit,
                       exit_mode=mode, entry_mode=came)  # fmt: skip

    def timed(self, stay: Stay, name: str, value: object) -> Stay:
        moment = _moment(value)
        if moment is None:
            self.unknown.append(f"stay.{name}")
            return stay
        if name == "admitted":
            return replace(stay, admitted=moment[0], admitted_exact=moment[1])
        return replace(stay, discharged=moment[0], discharged_exact=moment[1])

    def encounter(self, chief: Json, *, quietly: bool = False) -> Json:
        """The stay the chief resource names, else the only one there is; `quietly`: two of them are noted elsewhere."""
        if _kind(chief) == "Encounter":
            return chief
        names = [*_all(chief.get("encounter")), *_all(chief.get("focus"))]
        names += _all(_one(chief.get("context")).get("encounter"))
        found = [one for name in names if (one := self.resolve(name, chief)) and _kind(one) == "Encounter"]
        if not found:
            found = self.of_kind("Encounter", contained=True)
            found = [one for one in found if not one.get("partOf")] or found
        if len(found) > 1 and any(one != found[0] for one in found[1:]):
            if not quietly:
                self.unknown.append("stay.discharged")
            return {}
        return found[0] if found else {}

    def places(self, chief: Json, encounter: Json) -> tuple[str | None, str | None, str | None, str | None]:
        """(FINESS, its name, ward, unit): from the unit that cared up to the establishment that has a FINESS."""
        facility = called = ward = unit = None
        starts = [(_one(encounter.get("serviceProvider")), encounter)]
        for name in ("custodian", "sender", "requester", "responsible", "author"):
            starts += [(one, chief) for one in _all(chief.get(name))]
        for reference, source in starts:
            organisation = self.resolve(reference, source)
            chain: list[Json] = []
            while organisation is not None and _kind(organisation) == "Organization" and len(chain) < 6:
                if organisation in chain:
                    break
                chain.append(organisation)
                organisation = self.resolve(_one(organisation.get("partOf")), organisation)
            if not chain:
                continue
            home = next((one for one in chain if _finess(one)), chain[-1])
            facility, called = _finess(home), _text(home.get("name"))
            if chain[0] is not home:
                ward = _text(chain[0].get("name"))
            if any(code.upper() == "UF" for _, code, _ in _codings(chain[0].get("type"))):
                unit = next(
                    (v for one in _all(chain[0].get("identifier")) if (v := _text(one.get("value")))), None
                )
            break
        for stop in reversed(_all(encounter.get("location"))):
            if ward is not None:
                break
            place = self.resolve(_one(stop.get("location")), encounter)
            kinds = {code for _, code, _ in _codings((place or {}).get("physicalType"))}
            if place is not None and not kinds & {"si", "bu", "bd", "ro"}:
                name_ = _text(place.get("name"))
                ward = name_ if name_ != called else None
        return facility, called, ward, unit

    # ---------------------------------------------------------------------------------------- consent, sections

    def consent(self) -> str | None:
        """MASQUE_PS on any resource; an objection as Consent. Any other Consent is a person's to read."""
        for one in (self.root, *self.resources):
            labels = [*_all(one.get("securityLabel")), *_all(_one(one.get("meta")).get("security"))]
            if any(code == "MASQUE_PS" for label in labels for _, code, _ in _codings(label)):
                return "masked"
        for one in self.of_kind("Consent"):
            if (
                _text(_one(one.get("provision")).get("type")) == "deny"
                and _text(one.get("status")) == "active"
            ):
                return "opposed"
            self.unknown.append("consent")
        return None

    def lines(self, chief: Json, code: str) -> Iterator[str]:
        """The lines of one section's narrative; « Aucun » says nothing."""
        for section in _all(chief.get("section")):
            if not any(found == code for _, found, _ in _codings(section.get("code"))):
                continue
            div = _one(section.get("text")).get("div")
            words = html_text(div[: 64 * 1024]) if isinstance(div, str) else ""
            for line in words.split("\n")[:_MAX_ENTRIES]:
                shown = _text(line.replace("\t", " "))
                if shown and not _NOTHING.fullmatch(formats.fold(shown)):
                    yield shown[:300]

    def narrative(self) -> str:
        """The Composition as text: its title, then each section's title and words, in their order.

        R4 Composition: the narratives of the sections are the document that was signed; an entry stands in for
        a section that has none of its own.
        """
        compositions = self.of_kind("Composition")
        if not compositions:
            return ""
        chief = compositions[0]
        lines: list[str] = []
        entries = _MAX_LIST  # of the whole document: following a reference looks through every resource
        waiting = [(one, 1) for one in reversed(_all(chief.get("section")))]
        while waiting and len(lines) < _MAX_LINES:
            section, depth = waiting.pop()
            codes = [words for _, _, words in _codings(section.get("code")) if words]
            title = _text(section.get("title")) or next(iter(codes), "")
            told = _told(section)
            if not told:
                references = _all(section.get("entry"))[: max(0, entries)]
                entries -= len(references)
                spoken = (_told(self.resolve(one, chief) or {}) for one in references)
                told = "\n".join(filter(None, spoken))
            lines += [f"{'—' * depth} {title}".rstrip(), *told.split("\n"), ""] if title or told else []
            if depth < _MAX_SECTIONS_DEEP:
                waiting += [(one, depth + 1) for one in reversed(_all(section.get("section")))]
        own = _told(chief)
        whole = "\n".join(lines).strip()
        if own and own not in whole:
            whole = f"{own}\n\n{whole}".strip()
        title = _text(chief.get("title")) or ""
        return f"{title}\n\n{whole}".strip() if whole else ""

    def lines_sent(self) -> str:
        """The texts of an event notification."""
        sent = [
            words
            for one in self.of_kind("Communication", "CommunicationRequest")
            for part in _all(one.get("payload"))
            if isinstance(said := part.get("contentString"), str)
            and (words := _UNSAFE.sub("", said[:_MAX_NARRATIVE]).strip())
        ]
        return "\n".join(dict.fromkeys(sent))

    def follow_up(self, chief: Json) -> Iterator[FollowUp]:
        """The lines of the care plan; without any, the appointments that stand."""
        told = False
        for line in self.lines(chief, "18776-5"):
            day, told = formats.find_day(formats.fold(line)), True
            yield FollowUp(line, day[0] if day else None)
        for one in () if told else self.of_kind("Appointment")[:_MAX_ENTRIES]:
            what = _text(one.get("description")) or _concept(one.get("serviceType"))
            if what and _text(one.get("status")) in ("proposed", "pending", "booked", "waitlist"):
                moment = _moment(one.get("start"))
                yield FollowUp(what[:300], moment[0].astimezone(formats.PARIS).date() if moment else None)

    def awaited(self, chief: Json) -> tuple[str, ...]:
        """The lines of the section of awaited results, and what is registered without a result (R4 Observation.status)."""
        waiting = (
            words[:300]
            for one in self.of_kind("Observation", "DiagnosticReport")
            if _text(one.get("status")) == "registered" and (words := _concept(one.get("code")))
        )
        return tuple(dict.fromkeys((*self.lines(chief, "30954-2"), *waiting)))[:_MAX_ENTRIES]

    def medications(self, chief: Json, code: str, field: str) -> tuple[str, ...]:
        """The lines of a list of treatments, headings of columns aside: whole or not at all, half a list being worse."""
        found: list[str] = []
        for section in _all(chief.get("section")):
            if not any(named == code for _, named, _ in _codings(section.get("code"))):
                continue
            div = _one(section.get("text")).get("div")
            div = _without_headings(div) if isinstance(div, str) and len(div) <= _MAX_NARRATIVE else None
            told = html_text(div) if div is not None and not _STRUCK.search(div) else ""
            lines = [shown for line in told.split("\n") if (shown := _text(line.replace("\t", " ")))]
            found += [line for line in lines if not _NOTHING.fullmatch(formats.fold(line))]
            if not lines:  # nothing to read, struck out in part, or told by its entries alone
                self.unknown.append(field)
                return ()
        if len(found) > _MAX_MEDICATIONS or any(len(line) > 300 for line in found):
            self.unknown.append(field)
            return ()
        return tuple(found)

    # ---------------------------------------------------------------------------------------- embedded documents

    def embedded(self, found: list[tuple[Json, bytes]]) -> Iterator[Notice]:
        """What the CDA, PDF and XDM among the enclosed documents say."""
        for _, content in found:
            if b"ClinicalDocument" in content[: 64 * 1024].replace(b"\x00", b""):
                notice = cda.read(content)
            elif pdf.looks_like_pdf(content):
                notice = pdf.read(content)
            elif xdm.looks_like_zip(content):
                notice = xdm.read(content)
            else:
                notice = None
            if notice is not None:
                yield notice

    def enclosed(self) -> Iterator[tuple[Json, bytes]]:
        """Each document inside the file once, with its Attachment; what cannot be had is a problem."""
        seen: set[str] = set()
        for attachment in self.attachments():
            data = attachment.get("data")
            if not data and _text(attachment.get("url")):
                self.problems.append(formats.ELSEWHERE)
            if not isinstance(data, str) or not data or data in seen:
                continue
            if len(seen) >= _MAX_DOCUMENTS:
                self.problems.append(formats.broken_package("trop de documents dans l'envoi"))
                return
            seen.add(data)
            try:
                content = base64.b64decode(re.sub(r"\s", "", data), validate=True)
            except (binascii.Error, ValueError):
                self.problems.append(formats.broken_package("un document de l'envoi est abîmé"))
                continue
            size, digest = attachment.get("size"), _text(attachment.get("hash"))
            # R4 Attachment: `size` of the decoded bytes, `hash` their SHA-1 in base64. It finds damage only.
            own = hashlib.sha1(content, usedforsecurity=False).digest()
            if (isinstance(size, int) and size != len(content)) or (
                digest and digest not in (base64.b64encode(own).decode(), own.hex())
            ):
                self.problems.append(formats.broken_package("un document n'est pas celui annoncé"))
                continue
            if content:
                yield attachment, content

    def attachments(self) -> Iterator[Json]:
        """Every Attachment and Binary; an Attachment that names a Binary of the file takes its bytes."""
        taken: list[Json] = []
        for one in self.of_kind(
            "DocumentReference", "Communication", "CommunicationRequest", "DiagnosticReport"
        ):
            held = [_one(two.get("attachment")) for two in _all(one.get("content"))]
            held += [_one(two.get("contentAttachment")) for two in _all(one.get("payload"))]
            held += _all(one.get("presentedForm"))
            for attachment in held:
                binary = self.resolve({"reference": attachment.get("url")}, one)
                if binary is not None and _kind(binary) == "Binary":
                    taken.append(binary)
                    kind = attachment.get("contentType") or binary.get("contentType")
                    yield {
                        **attachment,
                        "data": attachment.get("data") or binary.get("data"),
                        "contentType": kind,
                    }
                else:
                    yield attachment
        for one in self.of_kind("Binary", contained=True):
            if not any(one is two for two in taken):
                yield {"data": one.get("data"), "contentType": one.get("contentType")}

    def joined(self, notice: Notice, embedded: list[Notice]) -> Notice:
        """The embedded letter's header first, completed by the file around it; a PDF only fills what nobody says."""
        printed = [one for one in embedded if one.format == "pdf"]
        written = sorted(
            (one for one in embedded if one.format != "pdf"), key=lambda one: _RANK.get(one.event or "", 9)
        )
        problems = [*notice.problems, *(problem for one in written for problem in one.problems)]
        people = [one.patient for one in (notice, *embedded) if one.patient is not None]
        if any(formats.contradict(people[0], other) for other in people[1:]):
            problems.append(formats.TWO_PATIENTS)
        for one in printed:
            problems += [two for two in one.problems if two.code == "two_patients"]
        unknown = list(notice.unknown)
        if written:
            letter = written[0]
            gps = [one for one in (notice.registered_gp, letter.registered_gp) if one is not None]
            gp = letter.registered_gp or notice.registered_gp
            if len({one.rpps for one in gps if one.rpps}) > 1:
                gp = None
                unknown.append("registered_gp")
            unknown += letter.unknown
            # Whether it is a French letter, the letter itself knows better than what is around it.
            problems = [one for one in problems if one.code != "foreign_letter" or one in letter.problems]
            kept = notice
            if letter.event is not None:
                document = (
                    notice.document if notice.document in ("retraction", "replacement") else letter.document
                )
                kept = replace(notice, event=letter.event, document=document, code=letter.code or notice.code)
            notice = replace(
                kept,
                title=letter.title or notice.title,
                document_id=letter.document_id or notice.document_id,
                other_ids=formats.further(letter, notice),
                set_id=letter.set_id or notice.set_id,
                version=letter.version or notice.version,
                replaces=letter.replaces or notice.replaces,
                retracts=(letter.document_id or notice.retracts) if notice.retracts else kept.retracts,
                status=notice.status or letter.status,
                patient=_filled(letter.patient, notice.patient),
                stay=_filled_stay(letter.stay, notice.stay),
                author=letter.author or notice.author,
                registered_gp=gp,
                recipients=letter.recipients or notice.recipients,
                follow_up=letter.follow_up or notice.follow_up,
                awaited_results=letter.awaited_results or notice.awaited_results,
                referring_doctor=letter.referring_doctor or notice.referring_doctor,
                medications=letter.medications or notice.medications,
                stopped_medications=letter.stopped_medications or notice.stopped_medications,
                consent=_strictest(letter.consent, notice.consent),
            )
        elif printed and notice.patient is None:
            page = max(printed, key=lambda one: (one.patient is not None, one.event is not None))
            problems += page.problems
            unknown += page.unknown
            notice = replace(
                notice,
                event=notice.event if notice.event not in (None, "other") else page.event or notice.event,
                document=notice.document or page.document,
                patient=page.patient,
                stay=_filled_stay(notice.stay, page.stay),
                registered_gp=notice.registered_gp or page.registered_gp,
                author=notice.author or page.author,
                follow_up=notice.follow_up or page.follow_up,
                awaited_results=notice.awaited_results or page.awaited_results,
                referring_doctor=notice.referring_doctor or page.referring_doctor,
                consent=_strictest(notice.consent, page.consent),
            )
        return replace(notice, unknown=tuple(dict.fromkeys(unknown)), problems=tuple(dict.fromkeys(problems)))


# -------------------------------------------------------------------------------------------------------- patients


def _patient(resource: Json, unknown: list[str], problems: list[Problem]) -> Patient:
    """One Patient resource. What stands there and cannot be read is added to `unknown`."""
    patient = _named(_identified(resource, unknown, problems), resource, unknown)
    gender = _text(resource.get("gender"))
    if gender:
        kinds: dict[str, Literal["M", "F"]] = {"male": "M", "female": "F"}
        patient = replace(patient, sex=kinds.get(gender, "U"))
    else:
        prefixes = (prefix for one in _all(resource.get("name")) for prefix in _texts(one.get("prefix")))
        patient = replace(
            patient, sex=next((title for each in prefixes if (title := formats.civility(each))), None)
        )
    if resource.get("birthDate") is not None:
        try:
            patient = replace(patient, birth_date=date.fromisoformat(_text(resource.get("birthDate")) or ""))
        except ValueError:
            unknown.append("patient.birth_date")
    for extension in _extensions(resource, "birthplace"):
        address = _one(extension.get("valueAddress"))
        coded = [
            _text(_one(one.get("valueCoding")).get("code"))
            or _text(one.get("valueCode"))
            or _text(one.get("valueString"))
            for one in _extensions(address, "inseecode")
        ]
        cog = next((code for code in (*coded, _text(address.get("district"))) if code), "")
        if re.fullmatch(r"\d[\dAB]\d{3}", cog):
            patient = replace(patient, birth_place=cog)
    homes = [
        one
        for one in _all(resource.get("address"))
        if _text(one.get("use")) not in ("old", "temp", "billing")
    ]
    code = next((code for one in homes if (code := formats.postcode(_text(one.get("postalCode"))))), None)
    dead = resource.get("deceasedBoolean") is True or _text(resource.get("deceasedDateTime")) is not None
    return replace(patient, postcode=code, deceased=dead)


def _identified(resource: Json, unknown: list[str], problems: list[Problem]) -> Patient:
    found: dict[str, list[str]] = {}
    local: list[LocalId] = []
    for one in _all(resource.get("identifier")):
        system, value = _oid(one.get("system")), _text(one.get("value"))
        if not value or _text(one.get("use")) == "old":
            continue
        kinds = {code for _, code, _ in _codings(one.get("type")) if code}
        if system in formats.INS_OIDS:
            number = formats.matricule(value)
            if number is None:
                unknown.append("patient.ins")
            elif number not in found.setdefault(system, []):
                found[system].append(number)
        elif system != _OBSOLETE_INS_C and any(kind.startswith("INS-N") for kind in kinds):
            unknown.append("patient.ins")  # the INS is a pair: a number without its OID is none
        elif system and system != _OBSOLETE_INS_C and (not kinds or kinds & _LOCAL_TYPES):
            local.append(LocalId(system, value[:100]))
    if any(len({number[:13] for number in numbers}) > 1 for numbers in found.values()):
        problems.append(formats.TWO_PATIENTS)
    own = tuple(dict.fromkeys(local))
    for oid in formats.INS_OIDS:  # the NIR before the provisional NIA, real before test
        if oid in found:
            return Patient(ins=found[oid][0], ins_oid=oid, local_ids=own)
    return Patient(local_ids=own)


def _named(patient: Patient, resource: Json, unknown: list[str]) -> Patient:
    """FR Core: `official` is the birth name, `usual` the used one; with a `maiden` name the official one is used."""
    families: dict[str, list[str]] = {}
    given: list[str] = []
    every = whole = ""
    for one in _all(resource.get("name")):
        use = _text(one.get("use")) or ""
        if use in _FORMER or _text(_one(one.get("period")).get("end")):
            continue
        whole = whole or _text(one.get("text")) or ""
        if family := _text(one.get("family")):
            families.setdefault(use, []).append(family)
        names = _texts(one.get("given"))
        if names and (not given or use == "official"):
            given = names
        for extension in _extensions(one, "birthlistgivenname"):
            every = _text(extension.get("valueString")) or every
    if any(len({formats.fold(name) for name in names}) > 1 for names in families.values()):
        unknown.append("patient.birth_name")
        return replace(patient, given_names=_given(given, every))
    first = {use: names[0] for use, names in families.items()}
    birth = first.get("maiden") or first.get("official")
    used = first.get("usual") or (first.get("official") if "maiden" in first else None)
    plain = first.get("")
    if used and birth and formats.fold(used) == formats.fold(birth):
        used = None
    if not families and whole:
        shown = letters.read(f"Patient : {whole}").notice.patient or Patient()
        return replace(
            patient,
            birth_name=shown.birth_name,
            used_name=shown.used_name,
            given_names=_given(given, every) or shown.given_names,
            name_kind=shown.name_kind,
            order_unsure=shown.order_unsure and not given,
        )
    return replace(
        patient,
        birth_name=birth or plain,
        used_name=used,
        given_names=_given(given, every),
        name_kind="birth" if birth else "unstated" if plain else "used" if used else "unstated",
    )


def _given(names: list[str], every: str) -> tuple[str, ...]:
    """Each given name by itself; a birth certificate's list that repeats the first adds the others."""
    if every and names and formats.fold(every).startswith(formats.fold(names[0])):
        return tuple(dict.fromkeys([names[0], *every[len(names[0]) :].split()]))
    if len(names) == 1 and not every:
        return tuple(dict.fromkeys(names[0].split()))
    return tuple(dict.fromkeys(names or every.split()))


_HEADINGS = re.compile(r"<(/?)thead(?:\s[^<>]{0,200})?>", re.IGNORECASE)


def _without_headings(div: str) -> str:
    """The narrative without the headings of its tables' columns; what is never closed stays."""
    kept, place = [], 0
    opened: int | None = None
    for mark in _HEADINGS.finditer(div):
        if not mark[1]:
            opened = mark.start() if opened is None else opened
        elif opened is not None:
            kept.append(div[place:opened])
            place, opened = mark.end(), None
    return "".join((*kept, div[place:]))


def _concept(concept: object) -> str | None:
    """The words of the first coding that has any."""
    return next((shown for _, _, words in _codings(concept) if (shown := _text(words))), None)


def _told(resource: Json) -> str:
    """A resource's narrative as plain text; what is struck out says so, for a stopped drug must not look taken."""
    div = _one(resource.get("text")).get("div")
    if not isinstance(div, str):
        return ""
    marked = _STRUCK.sub(lambda found: "[barré : " if not found[1] else "]", div[:_MAX_NARRATIVE])
    return _UNSAFE.sub("", html_text(marked)).strip()


def _apart(one: Patient, other: Patient) -> bool:
    """Two Patient resources are one person only when they agree on who that is."""
    if Patient() in (one, other):
        return False
    if formats.contradict(one, other):
        return True
    return not (
        (one.ins is not None and other.ins is not None and one.ins[:13] == other.ins[:13])
        or (one.birth_date is not None and one.birth_date == other.birth_date)
        or bool(set(one.local_ids) & set(other.local_ids))
    )


def _period(encounter: Json) -> Json:
    """R4 `period`, R5 `actualPeriod`."""
    return _one(encounter.get("period")) or _one(encounter.get("actualPeriod"))


def _filled(chief: Patient | None, other: Patient | None) -> Patient | None:
    """What the letter leaves out about the patient, from the file around it."""
    if chief is None or other is None:
        return chief or other
    return chief if formats.contradict(chief, other) else formats.completed(chief, other)


def _filled_stay(chief: Stay | None, other: Stay | None) -> Stay | None:
    return formats.completed_stay(chief, other) if chief and other else chief or other


def _strictest(one: str | None, other: str | None) -> str | None:
    order = (None, "allowed", "masked", "opposed")
    return max(one, other, key=order.index)
