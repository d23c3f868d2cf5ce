"""HL7 v2 of French hospitals: movements (ADT), documents (MDM, ORU) and business acknowledgements (ZAM).

After IHE PAM France 2.11 and the CI-SIS volet « Transmission d'un document CDA-R2 en HL7 v2 ». Only a ROL
segment with ODRP names the registered GP; attending, admitting and referring doctors of PV1 never do.

The segments are cut by our own few lines: what arrives has segments wrapped over several lines, no MSH at
all in what people cut out of a log, any line end, MLLP bytes left in files, and a ZBE shifted by one field.
The libraries want one message, MSH first, `\\r` between segments, and split every field of a 200 kB document
before the first is asked for; all of that would have to be repaired before they could be called.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Literal

from relay import formats
from relay.formats import cda, enclosed, pdf, xdm
from relay.formats import text as letters
from relay.formats.enclosed import Enclosed
from relay.model import LocalId, Notice, Patient, Person, Problem, ReceiptNews, Stay
from relay.reading import decode, never_raises

MAX_MESSAGES = 500
MAX_SEGMENTS = 20_000
_FORMAT: Final = "hl7v2"
_UNREADABLE: Final = Problem("unreadable_document", "le message HL7 ne peut pas être lu")

_FRAMING = ("\x0b", "\x1c", "\ufeff")  # MLLP's bytes, and a byte order mark
_HEADER = re.compile(rb"(?:MSH|FHS|BHS)[^\w\s]")
_CUT_OUT = (b"OBX|", b"PID|", b"EVN|", b"PV1|", b"TXA|", b"OBR|")
_SEGMENT = re.compile(rb"[A-Z][A-Z0-9]{2}\|")

# (event, whether it takes back) by trigger. A04, A05, A08, A16 (foreseen discharge), merges…: other.
_TRIGGERS: Final[dict[str, tuple[str, bool]]] = {
    "A01": ("admission", False),
    "A02": ("transfer", False),
    "A03": ("discharge", False),
    "A06": ("admission", False),
    "A11": ("admission", True),
    "A12": ("transfer", True),
    "A13": ("discharge", True),
}
_TELLING: Final = ("discharge", "death", "er_visit")
"""Events for which somebody is written to."""

# Fields of a document's life: MSH-9.2 of MDM, and OBX-11 (table 0085).
_MDM: Final = {"T04": "delete", "T06": "append", "T08": "replace", "T10": "replace", "T11": "delete"}
_OBX_ACTIONS: Final = {"D": "delete", "W": "delete", "C": "replace"}
_DRAFTS: Final = frozenset({"P", "R", "S", "I"})
_TXA_DRAFTS: Final = frozenset({"DI", "DO", "IN", "IP", "PA"})

_FLAGS: Final = "MetaDMPMSS"
_KNOWN_FLAGS: Final = frozenset({
    "MASQUE_PS", "INVISIBLE_PATIENT", "INVISIBLE_REP_LEGAUX", "CONNEXION_SECRETE", "MODIF_CONF_CODE", "DESTDMP",
    "DESTMSSANTEPS", "DESTMSSANTEPAT", "ACK_RECEPTION", "ACK_LECTURE", "ACK_LECTURE_MSS",
})  # fmt: skip
_FORBIDDEN: Final = (  # both "Y": one forbids what the other asks
    ("MASQUE_PS", "DESTMSSANTEPS"),
    ("MASQUE_PS", "INVISIBLE_PATIENT"),
    ("INVISIBLE_PATIENT", "DESTMSSANTEPAT"),
)
_LOINC = re.compile(r"\d{1,6}-\d")
_CITIZENS: Final = "@patient.mssante.fr"

# PID-32 (table 0445): nobody checked who this is / it may be two people, nobody, or somebody else.
_UNCHECKED: Final = frozenset({"PROV", "VIDE", "RECU", "RECUP"})
_DOUBTED: Final = frozenset({
    "DOUB", "DOUT", "DOUTE", "FICT", "FICTI", "USUR", "USURP", "USUP", "COLP", "COLV", "ANOM", "CACH", "SUSP", "IMPR",
})  # fmt: skip
_INS_NAMES: Final = {
    "ASIP-SANTE-INS-NIR": "1.2.250.1.213.1.4.8",
    "ASIP-SANTE-INS-NIA": "1.2.250.1.213.1.4.9",
    "ASIP-SANTE-INS-NIR-TEST": "1.2.250.1.213.1.4.10",
}
_OBSOLETE_INS_C: Final = "1.2.250.1.213.1.4.2"
_STAY_NUMBERS: Final = frozenset({"AN", "VN", "NDA", "IEP"})

# PV1-36. IHE PAM France knows how the stay was ended (2 to 6, E, F, R); some write PMSI's exit mode there.
_DISPOSITIONS: Final[dict[str, str | None]] = {
    "2": "other", "3": None, "4": "other", "5": "other", "E": "other", "F": "other", "R": "other",
    "7": "hospital", "8": "home", "9": "death",
}  # fmt: skip
_PMSI_EXITS: Final = {"0": "hospital", "6": "hospital", "7": "hospital", "8": "home", "9": "death"}
_SOURCES: Final = {"4": "hospital", "6": "hospital", "7": "emergency"}  # PV1-14, table 0023
_PMSI_ENTRIES: Final = {"0": "hospital", "6": "hospital", "7": "hospital", "8": "home", "N": "birth"}
_PMSI_ORIGINS: Final = {"2": "rehabilitation", "3": "nursing_home", "5": "emergency", "7": "nursing_home"}
_MAX_AWAITED: Final = 20
_PMSI_DESTINATIONS: Final = {
    "2": "rehabilitation",
    "3": "nursing_home",
    "6": "home_hospitalisation",
    "7": "nursing_home",
}

Segment = list[str]


def looks_like(head: bytes) -> bool:
    """Whether bytes begin like HL7 v2, or like lines cut out of it."""
    bare = head[:4096].replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n\x0b")
    if _HEADER.match(bare):
        return True
    # Lines cut out of a message: a second segment soon follows the first.
    return bare.startswith(_CUT_OUT) and any(_SEGMENT.match(line) for line in re.split(rb"[\r\n]+", bare)[1:])


@never_raises(Notice(format=_FORMAT, problems=(_UNREADABLE,)))
def read(content: bytes) -> Notice | None:
    """All messages of a file or frame as one notice; None when it is none, or holds acknowledgements alone.

    Two people in it give the problem `two_patients`; two stays, or a document that cannot be read,
    `broken_package`: such a file is held whole.
    """
    if not looks_like(content[:4096]):
        return None
    every = _messages(content)
    messages = [one for one in every if one.kind != "ZAM"]
    if not messages:
        several = formats.broken_package("plusieurs accusés dans un fichier")
        return Notice(format=_FORMAT, problems=(several,)) if len(every) > 1 else None
    if len(messages) > MAX_MESSAGES:
        return Notice(format=_FORMAT, problems=(formats.broken_package("trop de messages dans un fichier"),))
    if len(messages) == 1:
        return _Reading(messages[0]).notice()
    return _joined([_Reading(one).notice() for one in messages])


@never_raises(None)
def read_receipt(content: bytes) -> ReceiptNews | None:
    """The news of a ZAM message (Z01 DMP, Z02 mail received, Z03 mail read); None when it is none."""
    if not looks_like(content[:4096]) or b"ZAM" not in content[:4096].replace(b"\x00", b""):
        return None
    messages = _messages(content)
    if len(messages) != 1 or messages[0].kind != "ZAM":
        return None
    return _acknowledgement(messages[0])


@never_raises(None)
def documents(content: bytes) -> tuple[Enclosed, ...] | None:
    """The documents of the OBX, each as it was before it was put into the message; () for movements alone.

    None where it is no HL7, or where a document cannot be had: then the message itself is all there is.
    """
    if not looks_like(content[:4096]):
        return None
    found: list[tuple[bytes, str]] = []
    for message in _messages(content):
        if message.cut:
            return None
        if message.kind == "ZAM":  # it speaks of a mail: nobody reads it as a letter
            continue
        before = len(found)
        for segment in message.all("OBX"):
            if not _is_document(segment, message) or message.part(segment, 2) == "RP":
                continue
            one = _enclosed(segment, message)
            if one is None or len(found) >= enclosed.MAX_DOCUMENTS:
                return None
            found.append((one[0], "text/plain" if "text" in one[1] else ""))
        if typed := _typed(message) or (_lines(message) if len(found) > before else ""):
            found.append((typed.encode(), "text/plain"))
    return enclosed.named(found)


# --------------------------------------------------------------------------------------------------------- segments


def _decoded(content: bytes) -> tuple[str, str]:
    """(text, codec) by MSH-18, whose name may be wrong: valid UTF-8 is UTF-8 whatever it says."""
    wide = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"M\x00": "utf-16-le", b"\x00M": "utf-16-be"}
    if codec := wide.get(content[:2]):
        return content.decode(codec, "replace"), codec
    for codec in filter(None, ("utf-8", _charset(content), "cp1252")):
        try:
            return content.decode(codec), codec
        except (UnicodeDecodeError, LookupError):
            continue
    return content.decode("latin-1"), "latin-1"


def _charset(content: bytes) -> str | None:
    start = content.find(b"MSH")
    line = re.split(rb"[\r\n]", content[start : start + 4096], maxsplit=1)[0] if start >= 0 else b""
    names = line.split(line[3:4])[17:18] if len(line) > 4 else []
    name = re.sub(rb"[^ -\x7d].*", b"", names[0]).decode("ascii").upper().strip() if names else ""
    found = re.match(r"8859[/-](\d{1,2})", name)
    # What calls itself Latin-1 is windows-1252 in practice; what calls itself Unicode and is none, too.
    return f"iso8859-{found[1]}" if found and found[1] != "1" else None


@dataclass(frozen=True, slots=True)
class _Message:
    """One message: its segments, each a list where place N is field N, and the signs that part them."""

    segments: tuple[Segment, ...]
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    codec: str = "utf-8"  # of the bytes it came in
    cut: bool = False  # it goes on beyond MAX_SEGMENTS

    @property
    def header(self) -> Segment:
        """MSH, or an empty segment where it was cut off."""
        return self.segments[0] if self.segments[0][0] == "MSH" else []

    @property
    def kind(self) -> str:
        """ADT, MDM, ORU, ZAM…; "" without MSH."""
        return self.part(self.header, 9, 1).upper()

    def all(self, name: str) -> Iterator[Segment]:
        """The segments of this name, in order."""
        return (one for one in self.segments if one[0] == name)

    def first(self, name: str) -> Segment:
        """The first of this name; an empty one when there is none."""
        return next(self.all(name), [])

    def repeated(self, segment: Segment, number: int) -> list[list[str]]:
        """The components of each repetition of a field; none for an absent one."""
        value = segment[number] if number < len(segment) else ""
        return [
            one.split(self.component) for one in value.split(self.repetition) if one.strip(self.component)
        ]

    def part(self, segment: Segment, number: int, component: int = 1) -> str:
        """One component of a field's first repetition, as text."""
        found = self.repeated(segment, number)
        return self.text(found[0], component) if found else ""

    def text(self, components: Sequence[str], number: int) -> str:
        """A component, escapes undone; the explicit null `""` is nothing."""
        value = components[number - 1].strip() if number <= len(components) else ""
        if value == '""':
            return ""
        return " ".join(self.plain(value).split())

    def parts(self, components: Sequence[str], number: int) -> list[str]:
        """The subcomponents of a component, at least three."""
        value = components[number - 1] if number <= len(components) else ""
        found = [self.plain(one.strip()) for one in value.split(self.subcomponent)]
        return ["" if one == '""' else one for one in found] + ["", ""]

    def plain(self, value: str) -> str:
        """Escape sequences undone (HL7 v2.5 §2.7); formatting becomes a space, an unknown one stays away."""
        sign = self.escape
        if not sign or sign not in value:
            return value
        signs = {"S": self.component, "T": self.subcomponent, "R": self.repetition, "E": sign, "F": "|"}
        mark = re.escape(sign)

        def undone(found: re.Match[str]) -> str:
            code = found[1]
            if code in signs:
                return signs[code]
            if re.fullmatch(r"X(?:[0-9A-Fa-f]{2})+", code):
                return decode(bytes.fromhex(code[1:]))
            return " " if code[:1] == "." else ""

        return re.sub(rf"{mark}([^{mark}\s]{{1,40}}){mark}", undone, value)


def _messages(content: bytes) -> list[_Message]:
    """The messages of a batch (FHS, BHS and their ends say nothing themselves) or of one frame."""
    text, codec = _decoded(content)
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for sign in _FRAMING:
        text = text.replace(sign, "")
    messages: list[_Message] = []
    segments: list[Segment] = []
    open_line: list[str] = []
    separator, signs = "|", "^~\\&"
    cut = False

    def end_segment() -> None:
        nonlocal cut
        cut = cut or (bool(open_line) and len(segments) >= MAX_SEGMENTS)
        if open_line and not cut:
            whole = "".join(open_line).split(separator)
            if whole[0] == "MSH":
                whole.insert(1, separator)  # MSH-1 is the separator itself: now place N is field N
            if whole[0] not in ("FHS", "BHS", "BTS", "FTS"):
                segments.append(whole)
        open_line.clear()

    def end_message() -> None:
        nonlocal cut
        end_segment()
        if segments and len(messages) <= MAX_MESSAGES:
            messages.append(_Message(tuple(segments), signs[0], signs[1], signs[2], signs[3], codec, cut=cut))
        segments.clear()
        cut = False

    begins = _beginning(separator)
    for line in text.split("\n"):
        bare = line.lstrip(" \t")
        if (
            bare[:3] in ("MSH", "FHS", "BHS")
            and len(bare) > 4
            and not (bare[3].isalnum() or bare[3].isspace())
        ):
            end_message()
            separator, given = bare[3], bare[4:8]
            distinct = len(set(given)) == 4 and not any(c.isalnum() or c.isspace() for c in given + separator)
            signs = given if distinct and separator not in given else "^~\\&"
            begins = _beginning(separator)
            open_line.append(bare)
        elif begins.match(bare):
            end_segment()
            open_line.append(bare)
        elif open_line:
            open_line.append(line)  # a segment that somebody's editor or a guide wrapped
    end_message()
    return messages


def _beginning(separator: str) -> re.Pattern[str]:
    sign = re.escape(separator)
    return re.compile(rf"[A-Z][A-Z0-9]{{2}}{sign}|(?:PV1|PV2|PD1|EVN|NK1|ORC|OBR|TXA)$")


# --------------------------------------------------------------------------------------------------------- messages


def _joined(notices: list[Notice]) -> Notice:
    """A batch of one person's messages speaks with its last word about a discharge; anything else is held whole."""
    people = [one.patient or Patient() for one in notices]
    problems = tuple(problem for one in notices for problem in one.problems)
    if any(not _one_person(people[0], other) for other in people[1:]):
        problems += (formats.TWO_PATIENTS,)
    telling = [one for one in notices if one.event in _TELLING]
    stays = {one.stay.number if one.stay else None for one in telling}
    letters = {one.document_id for one in telling if one.document not in ("advance_notice", "retraction")}
    if len(stays) > 1 or len(letters) > 1:
        problems += (formats.broken_package("plusieurs séjours ou documents dans le même envoi"),)
    chief = telling[-1] if telling else notices[-1]
    consents = {one.consent for one in notices}
    return replace(
        chief,
        consent="masked" if "masked" in consents else chief.consent,
        unknown=tuple(dict.fromkeys(name for one in (chief, *notices) for name in one.unknown)),
        problems=tuple(dict.fromkeys(problems)),
    )


def _one_person(one: Patient, other: Patient) -> bool:
    """An identifier in common and nothing against: twins share the name, the day and the place."""
    shared = (one.ins is not None and (one.ins_oid, one.ins) == (other.ins_oid, other.ins)) or bool(
        set(one.local_ids) & set(other.local_ids)
    )
    given = [formats.fold(who.given_names[0]) for who in (one, other) if who.given_names]
    return shared and not formats.contradict(one, other) and len(set(given)) <= 1


class _Reading:
    """One message being read; collects what stands there and cannot be read."""

    def __init__(self, message: _Message) -> None:
        self.message = message
        self.unknown: list[str] = []
        self.problems: list[Problem] = []
        self.enclosed = 0  # documents that are here, whether they could be read or not
        self.sent = formats.hl7_day(message.part(message.header, 7))
        self.trigger = message.part(message.header, 9, 2).upper()

    def notice(self) -> Notice:
        message = self.message
        if message.cut:
            self.problems.append(formats.broken_package("le message compte trop de segments"))
        patient, stay = self.patient(), self.stay()
        notice = Notice(
            format=_FORMAT,
            event="other" if message.header else None,
            document="other" if message.header else None,
            patient=patient if patient != Patient() else None,
            stay=stay if stay != Stay() else None,
            registered_gp=self.registered_gp(),
            recipients=tuple(self.participants("RCT")),
            author=next(iter((*self.participants("AUT"), *self.participants("SB"))), None),
            consent=self.consent(),
            referring_doctor=self.referring_doctor(),
            awaited_results=self.awaited(),
        )
        notice = self.movement(notice) if message.kind == "ADT" else self.document(notice)
        dead = (notice.patient is not None and notice.patient.deceased) or (
            notice.stay is not None and notice.stay.exit_mode == "death"
        )
        if dead and notice.event in ("discharge", "er_visit"):
            notice = replace(notice, event="death")
        return replace(
            notice,
            unknown=tuple(dict.fromkeys((*notice.unknown, *self.unknown))),
            problems=tuple(dict.fromkeys((*self.problems, *notice.problems))),
        )

    # ------------------------------------------------------------------------------------------------- movements

    def movement(self, notice: Notice) -> Notice:
        """ADT: somebody came, moved or left. No letter hangs on it: a discharge is the notice of one to come."""
        message, trigger = self.message, self.trigger
        shift, action = self._shift()
        zbe = message.first("ZBE")
        if trigger == "Z99":  # IHE PAM: a movement is changed; ZBE-6 says which
            trigger = message.part(zbe, 6 + shift).upper()
        event, back = _TRIGGERS.get(trigger, ("other", False))
        back = back or action == "CANCEL"
        ward_class = message.part(message.first("PV1"), 2).upper()
        if event == "discharge":
            event = {"E": "er_visit", "O": "other"}.get(ward_class, event)
        number = _document_number(message.repeated(zbe, 1), message, "mvt-")
        if event == "other":
            return replace(notice, event=event, document="other")
        if back:
            return replace(notice, event=event, document="retraction", retracts=number)
        document = "advance_notice" if event in _TELLING else "other"
        if action == "UPDATE":
            control = message.part(message.header, 10)
            own = f"msg-{control}" if control else None
            return replace(notice, event=event, document=document, replaces=number, document_id=own)
        return replace(notice, event=event, document=document, document_id=number)

    def _shift(self) -> tuple[int, str]:
        """(how far ZBE-4 and all after it stand to the right, the action); the guide's own A03 has one `|` too many."""
        segment = self.message.first("ZBE")
        for place in (4, 5, 6):
            action = self.message.part(segment, place).upper()
            if action in ("INSERT", "UPDATE", "CANCEL"):
                return place - 4, action
        return 0, ""

    # ------------------------------------------------------------------------------------------------- documents

    def document(self, notice: Notice) -> Notice:
        """MDM, ORU: the documents of the OBX, completed by the segments around them."""
        message = self.message
        txa = message.first("TXA")
        action = _MDM.get(self.trigger) if message.kind == "MDM" else None
        status = message.part(txa, 17).upper()
        draft = status in _TXA_DRAFTS
        code, system, title = (message.part(txa, 2, place) for place in (1, 3, 2))
        if not code or not _LOINC.fullmatch(code):
            code, system, title = (message.part(message.first("OBR"), 4, place) for place in (1, 3, 2))
        read: list[Notice] = []
        printed: list[Notice] = []
        named = False
        said_of: set[str | None] = set()
        for segment in message.all("OBX"):
            if not _is_document(segment, message):
                continue
            if not named:
                named = True
                own = [message.part(segment, 3, place) for place in (1, 3, 2)]
                code, system, title = own if own[0] else (code, system, title)
            result = message.part(segment, 11).upper()
            draft = draft or result in _DRAFTS
            said = _OBX_ACTIONS.get(result)
            said_of.add(said)
            if said and action and said != action:
                self.problems.append(formats.broken_package("l'événement et OBX-11 se contredisent"))
            if message.kind == "MDM" and self.trigger == "T02" and said is not None:
                self.problems.append(formats.broken_package("l'événement et OBX-11 se contredisent"))
            action = action or said
            one = self.embedded(segment)
            if one is not None:
                (printed if one.format == "pdf" else read).append(one)
        if "delete" in said_of and len(said_of) > 1:
            self.problems.append(formats.broken_package("un document est retiré et un autre ne l'est pas"))
        if not named and (typed := _typed(message)):
            named = True
            self.enclosed += 1
            letter = letters.read(typed, subject=title[:200])
            printed += [letter.notice] if letter.has_patient or letter.is_discharge else []
        number = _document_number(message.repeated(txa, 12), message)
        parent = _document_number(message.repeated(txa, 13), message)
        event: str | None
        document: str | None
        event, document = cda.CODES.get(code, ("other", "other"))
        if code and not _LOINC.fullmatch(code):  # the hospital's own codes: their words say what it is
            said_so = [letters.read("", subject=title[:200]).notice, *printed]
            event, document = next(
                ((one.event, one.document) for one in said_so if one.event), (event, document)
            )
        elif not (named or action == "delete") or not self.french() or system not in ("LN", ""):
            # The same codes name other letters abroad.
            event, document = "other", "other"
        notice = replace(
            notice,
            event=event if message.header else None,
            document=document if message.header else None,
            code=code if named or _LOINC.fullmatch(code) else None,
            title=title or None,
            document_id=number,
            status="draft" if draft else "final" if named else None,
        )
        if read:
            notice = self.with_letter(notice, read)
        notice = self.with_print(notice, printed, alone=not read)
        author = self.person(message.repeated(txa, 9) or message.repeated(txa, 5), None)
        notice = replace(notice, author=author if notice.author is None and author else notice.author)
        if action == "delete":
            # Never its own id beside: the withdrawn document's would make this one its duplicate.
            back = (notice.document_id if read else None) or parent or notice.document_id
            return replace(notice, document="retraction", retracts=back, document_id=None)
        if action == "replace":
            return replace(notice, document="replacement", replaces=notice.replaces or parent)
        if action == "append" and notice.document == "letter":
            return replace(notice, document="addendum")
        if notice.document == "letter" and not self.enclosed:
            return replace(notice, document="advance_notice")  # it points at a letter that is not here
        return notice

    def french(self) -> bool:
        """Whether the message says it is made after the French volets."""
        header = self.message.header
        marks = (self.message.part(header, 12, 2), self.message.part(header, 17))
        if any(one.upper() in ("FRA", "FR") for one in marks):
            return True
        return any(
            "1.2.250.1." in value
            for segment in self.message.segments
            for value in segment
            if len(value) < 2000
        )

    def embedded(self, segment: Segment) -> Notice | None:
        """The document of one OBX, where it is a CDA or a package. What says it is one and is none is a problem."""
        message = self.message
        if message.part(segment, 2) == "RP":
            self.problems.append(formats.ELSEWHERE)
            return None
        found = _enclosed(segment, message)
        if found is None:
            self.problems.append(Problem("unreadable_document", "le document joint ne peut pas être décodé"))
            return None
        if self.enclosed >= enclosed.MAX_DOCUMENTS:
            self.problems.append(formats.broken_package("trop de documents dans le message"))
            return None
        content, words = found
        self.enclosed += 1
        start = content[:512].replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")
        notice = None
        if xdm.looks_like_zip(content):
            notice = xdm.read(content)
        elif start[:1] == b"<":
            notice = cda.read(content)
        elif pdf.looks_like_pdf(content):
            notice = pdf.read(content)
            if notice is None:
                return None
            self.problems += [one for one in notice.problems if one.code == "two_patients"]
            return replace(notice, problems=())  # for all else that a scan does not tell, PID speaks
        if notice is None and ("xml" in words or "zip" in words):
            self.problems.append(Problem("unreadable_document", "le document joint n'est pas un CDA lisible"))
        return notice

    def with_letter(self, notice: Notice, read: list[Notice]) -> Notice:
        """The letter's own header first, the message where it is silent, and both must speak of one person."""
        ranked = sorted(read, key=lambda one: one.event not in _TELLING)
        letter = ranked[0]
        problems = tuple(problem for one in read for problem in one.problems)
        people = [one.patient for one in (notice, *ranked) if one.patient is not None]
        if any(formats.contradict(people[0], other) for other in people[1:]):
            problems += (formats.TWO_PATIENTS,)
        unknown = list(letter.unknown)
        gp, said = letter.registered_gp, notice.registered_gp
        if gp is not None and said is not None and gp.rpps and said.rpps and gp.rpps != said.rpps:
            unknown.append("registered_gp")
            problems += (Problem("many_gps", "le message et le document nomment deux médecins traitants"),)
            gp = said = None
        stay, around = letter.stay or Stay(), notice.stay or Stay()
        if stay.number and around.number and stay.number != around.number:
            problems += (Problem("stay_differs", "le message et le document portent deux numéros de séjour"),)
        listed = {one.rpps for one in letter.recipients}
        stay = formats.completed_stay(stay, around)
        return replace(
            notice,
            event=letter.event,
            document=letter.document,
            code=letter.code or notice.code,
            title=letter.title or notice.title,
            package=letter.package,
            document_id=letter.document_id or notice.document_id,
            other_ids=formats.further(letter, notice),
            set_id=letter.set_id,
            version=letter.version,
            replaces=letter.replaces,
            retracts=letter.retracts,
            status="draft" if "draft" in (letter.status, notice.status) else letter.status or notice.status,
            patient=_same_person(letter.patient, notice.patient),
            stay=stay if stay != Stay() else None,
            author=letter.author or notice.author,
            registered_gp=gp or said,
            recipients=(
                *letter.recipients,
                *(one for one in notice.recipients if not one.rpps or one.rpps not in listed),
            ),
            follow_up=letter.follow_up,
            awaited_results=letter.awaited_results or notice.awaited_results,
            referring_doctor=letter.referring_doctor or notice.referring_doctor,
            medications=letter.medications,
            stopped_medications=letter.stopped_medications,
            consent="masked" if "masked" in (letter.consent, notice.consent) else letter.consent,
            urgency=letter.urgency,
            unknown=tuple(unknown),
            problems=problems,
        )

    def with_print(self, notice: Notice, printed: list[Notice], *, alone: bool) -> Notice:
        """A PDF may contradict the message; where it is the whole letter, its labelled lines fill what is missing."""
        for one in printed:
            if notice.patient is None:
                continue
            if one.patient is not None and formats.contradict(notice.patient, one.patient):
                self.problems.append(formats.TWO_PATIENTS)
                return notice
            self.unknown += [name for name in one.unknown if name == "consent"]
            gp, said = notice.registered_gp, one.registered_gp
            if gp is not None and said is not None and gp.rpps and said.rpps and gp.rpps != said.rpps:
                self.unknown.append("registered_gp")
            notice = replace(
                notice, consent=one.consent if one.consent == "opposed" else notice.consent or one.consent
            )
            if alone:
                if gp is None:
                    self.unknown += [name for name in one.unknown if name.startswith("registered_gp")]
                notice = replace(
                    notice,
                    registered_gp=gp or said,
                    follow_up=notice.follow_up or one.follow_up,
                    awaited_results=notice.awaited_results or one.awaited_results,
                    referring_doctor=notice.referring_doctor or one.referring_doctor,
                    urgency=notice.urgency or one.urgency,
                )
                stay = formats.completed_stay(notice.stay or Stay(), one.stay or Stay())
                notice = replace(notice, stay=stay if stay != Stay() else None)
        return notice

    # ------------------------------------------------------------------------------------------------ the patient

    def patient(self) -> Patient:
        found = [self.person_of(segment) for segment in self.message.all("PID")]
        if any(not _one_person(found[0], other) for other in found[1:]):
            self.problems.append(formats.TWO_PATIENTS)
        return found[0] if found else Patient()

    def person_of(self, pid: Segment) -> Patient:
        message = self.message
        patient = self.named(self.identifiers(pid), pid)
        if born := message.part(pid, 7):
            day = formats.hl7_day(born)
            if day is None:
                self.unknown.append("patient.birth_date")
            patient = replace(patient, birth_date=day)
        if sex := message.part(pid, 8).upper():
            said: Literal["M", "F", "U"] = "M" if sex == "M" else "F" if sex == "F" else "U"
            patient = replace(patient, sex=said)
        else:
            titles = (formats.civility(message.text(one, 5)) for one in message.repeated(pid, 5))
            patient = replace(patient, sex=next((title for title in titles if title), None))
        for address in message.repeated(pid, 11):
            kind, cog = message.text(address, 7).upper(), message.text(address, 9).upper()
            if kind == "BDL":
                patient = replace(patient, birth_place=cog if re.fullmatch(r"\d[\dAB]\d{3}", cog) else None)
            elif patient.postcode is None:
                patient = replace(patient, postcode=formats.postcode(message.text(address, 5)))
        if message.part(pid, 30).upper() == "Y" or message.part(pid, 29):
            patient = replace(patient, deceased=True)
        self.reliability(pid, patient)
        return patient

    def identifiers(self, pid: Segment) -> Patient:
        """INS by OID; other numbers belong to whoever assigned them. Numbers of stays are no person's."""
        message = self.message
        found: dict[str, list[str]] = {}
        local: list[LocalId] = []
        for one in message.repeated(pid, 3):
            value, kind = message.text(one, 1), message.text(one, 5).upper()
            name, system, _ = message.parts(one, 4)[:3]
            ended = formats.hl7_day(message.text(one, 8))
            if not value or kind in _STAY_NUMBERS or (ended and self.sent and ended < self.sent):
                continue
            system = system or _INS_NAMES.get(name.upper(), "")
            if system in formats.INS_OIDS:
                number = formats.matricule(value)
                if number is None:
                    self.unknown.append("patient.ins")
                elif number not in found.setdefault(system, []):
                    found[system].append(number)
            elif kind == "INS":
                self.unknown.append("patient.ins")  # the INS is a pair: a number without its OID is none
            elif system != _OBSOLETE_INS_C and kind != "INS-C":
                local.append(LocalId(system or name, value))
        if any(len({number[:13] for number in numbers}) > 1 for numbers in found.values()):
            self.problems.append(formats.TWO_PATIENTS)
        for oid in formats.INS_OIDS:
            if oid in found:
                return Patient(ins=found[oid][0], ins_oid=oid, local_ids=tuple(local))
        return Patient(local_ids=tuple(local))

    def named(self, patient: Patient, pid: Segment) -> Patient:
        """PID-5: L is the birth name, D the used one; XPN-2 the first given name, XPN-3 all of them."""
        message = self.message
        birth = used = plain = None
        given: tuple[str, ...] = ()
        for one in message.repeated(pid, 5):
            kind = message.text(one, 7).upper()
            family = " ".join(message.parts(one, 1)[0].split()) or None
            names = _given_names(message.text(one, 2), message.text(one, 3))
            if kind in ("L", "B", "M"):
                if birth and family and formats.fold(birth) != formats.fold(family):
                    self.unknown.append("patient.birth_name")
                birth = birth or family
                given = names or given
            elif kind == "D":
                used = used or family
                given = given or names
            elif kind in ("S", "A", "N"):
                self.unknown.append(
                    "patient.birth_name"
                )  # a name made up to hide somebody, an alias, a nickname
            else:
                plain = plain or family
                given = given or names
        if used and birth and formats.fold(used) == formats.fold(birth):
            used = None
        return replace(
            patient,
            birth_name=birth or plain,
            used_name=used,
            given_names=given,
            name_kind="birth" if birth else "unstated" if plain else "used" if used else "unstated",
        )

    def reliability(self, pid: Segment, patient: Patient) -> None:
        """PID-32 may weaken an identity and never makes one: only a checked one carries an INS (référentiel INS)."""
        message = self.message
        codes = {message.text(one, 1).upper() for one in message.repeated(pid, 32)}
        if codes & _UNCHECKED:
            self.problems.append(
                Problem("identity_unchecked", "l'hôpital dit l'identité provisoire (PID-32)")
            )
            if patient.ins:
                self.unknown.append("patient.ins")
        if codes & _DOUBTED:
            self.problems.append(Problem("identity_doubted", "l'hôpital doute de l'identité (PID-32)"))
            self.unknown.append("patient")
        if message.part(message.header, 11).upper() in ("T", "D"):
            self.problems.append(Problem("test_message", "message d'essai (MSH-11)"))
            if patient.ins_oid in ("1.2.250.1.213.1.4.8", "1.2.250.1.213.1.4.9"):
                self.unknown.append("patient")

    # ------------------------------------------------------------------------------------------------- the people

    def registered_gp(self) -> Person | None:
        """ROL with ODRP, wherever it stands; a role that ended or is deleted is none."""
        people: list[Person] = []
        for rol in self.message.all("ROL"):
            if self.message.part(rol, 3).upper() != "ODRP" or self.message.part(rol, 2).upper() in (
                "DE",
                "DELETE",
            ):
                continue
            ended = formats.hl7_day(self.message.part(rol, 6))
            if ended and self.sent and ended < self.sent:
                continue
            person = self.person(self.message.repeated(rol, 4), "registered_gp")
            person = self.reached(person or Person(), rol, 11)
            if person != Person() and person not in people:
                people.append(person)
        if len({one.rpps or formats.fold(one.name or one.organisation or "") for one in people}) > 1:
            self.unknown.append("registered_gp")
            self.problems.append(Problem("many_gps", "plusieurs médecins traitants dans le message"))
            return None
        return people[0] if people else None

    def referring_doctor(self) -> Person | None:
        """Who sent the patient: PV1-8 (HL7 v2.5 §3.4.3.8), or ROL with RP (table 0443); of two, nobody."""
        message = self.message
        asked = [message.repeated(message.first("PV1"), 8)]
        asked += [
            message.repeated(rol, 4) for rol in message.all("ROL") if message.part(rol, 3).upper() == "RP"
        ]
        people = [person for one in asked if (person := self.person(one, None)) is not None]
        several = len({one.rpps or formats.fold(one.name or "") for one in people}) > 1
        return people[0] if people and not several else None

    def awaited(self) -> tuple[str, ...]:
        """Observations without their result yet: OBX-11 is I (table 0085)."""
        message = self.message
        named = (
            message.part(obx, 3, 2) or message.part(obx, 3)
            for obx in message.all("OBX")
            if message.part(obx, 11).upper() == "I"
        )
        return tuple(dict.fromkeys(words[:300] for words in named if words))[:_MAX_AWAITED]

    def person(self, repeated: list[list[str]], field: str | None) -> Person | None:
        """An XCN; several repetitions are several numbers of one person. `field` names what cannot be read."""
        message = self.message
        numbers: list[str] = []
        unread = False
        family = given = None
        for one in repeated:
            value, kind = message.text(one, 1), message.text(one, 13).upper()
            system = message.parts(one, 9)[1]
            family = family or " ".join(message.parts(one, 2)[0].split()) or None
            given = given or message.text(one, 3) or None
            if not value or kind in ("ADELI", "EI", "PI"):
                continue
            rpps = formats.bare_rpps(value)
            if rpps and rpps not in numbers:
                numbers.append(rpps)
            elif rpps is None and (
                kind == "RPPS" or (system == formats.PROFESSIONALS_OID and value[0] == "8")
            ):
                unread = True
        if field and len(numbers) > 1:
            self.unknown.append(field)
            self.problems.append(Problem("many_gps", "plusieurs numéros RPPS pour un médecin traitant"))
            return None
        if field and unread and not numbers:
            self.unknown.append(f"{field}.rpps")
        person = Person(
            name=" ".join(part for part in (given, family) if part) or None,
            family_name=family,
            given_name=given,
            rpps=numbers[0] if len(numbers) == 1 else None,
        )
        return person if person != Person() else None

    def reached(self, person: Person, segment: Segment, start: int) -> Person:
        """The secure address, telephone and organisation in the fields from `start` on, wherever they stand."""
        message = self.message
        address = phone = organisation = None
        for number in range(start, len(segment)):
            for one in message.repeated(segment, number):
                words = [message.text(one, place) for place in (1, 4, 12)]
                found = next((word for word in words if "@" in word), None)
                if found:
                    address = address or found.lower().removeprefix("mailto:")
                elif number == start + 1 and start == 11:
                    phone = phone or next(
                        (word for word in words if re.fullmatch(r"\+?[\d .-]{8,}", word)), None
                    )
                elif (number == 8 and start == 6) or (number == 14 and start == 11):
                    organisation = organisation or words[0] or None
        return replace(person, mss_address=address, phone=phone, organisation=organisation)

    def participants(self, role: str) -> Iterator[Person]:
        """PRT with this participation (PRT-4)."""
        for prt in self.message.all("PRT"):
            if self.message.part(prt, 4).upper() == role:
                person = self.reached(self.person(self.message.repeated(prt, 5), None) or Person(), prt, 6)
                if person != Person():
                    yield person

    # --------------------------------------------------------------------------------------------------- the stay

    def stay(self) -> Stay:
        """PV1 and ZBE. PV2-8 and PV2-9 are plans, and no plan is a discharge."""
        message = self.message
        pv1, zbe, pid = (message.first(name) for name in ("PV1", "ZBE", "PID"))
        shift, _ = self._shift()
        stay = Stay(number=message.part(pv1, 19) or message.part(pid, 18) or None)
        admitted = self.moment(message.part(pv1, 44), "stay.admitted")
        if admitted:
            stay = replace(stay, admitted=admitted[0], admitted_exact=admitted[1])
        left = message.part(pv1, 45)
        moved = message.part(zbe, 2) or message.part(message.first("EVN"), 6)
        if message.kind == "ADT" and self.trigger == "A03" and left and moved:
            days = formats.hl7_day(left), formats.hl7_day(moved)
            if None not in days and days[0] != days[1]:
                self.problems.append(
                    Problem("discharge_differs", "PV1-45 et le mouvement donnent deux jours")
                )
        if not left and message.kind == "ADT" and self.trigger == "A03":
            left = moved
        discharged = self.moment(left, "stay.discharged")
        if discharged:
            stay = replace(stay, discharged=discharged[0], discharged_exact=discharged[1])
        place = (message.repeated(pv1, 3) or [[]])[0]
        medical = (message.repeated(zbe, 7 + shift) or message.repeated(zbe, 8 + shift) or [[]])[0]
        point = message.text(place, 1)
        named = message.text(medical, 1) or message.text(place, 9)
        code = message.text(medical, 10) or message.text(medical, 3)
        if not named and re.search(r"[^\W\d]{3}", point):
            named, point = point, ""
        facility, called = self.facility(place, medical)
        return replace(
            stay,
            ward=named or None,
            unit=code or point or None,
            facility=facility,
            facility_name=called,
            exit_mode=self.exit_mode(pv1),
            entry_mode=self.entry_mode(pv1),
        )

    def moment(self, value: str, field: str) -> tuple[datetime, bool] | None:
        if not value:
            return None
        found = formats.hl7_time(value)
        if found is None:
            self.unknown.append(field)
        return found

    def facility(self, place: Sequence[str], medical: Sequence[str]) -> tuple[str | None, str | None]:
        """(FINESS, name): of the event, the bed, the ward's authority, then the sender."""
        message = self.message
        evn, header = (
            (message.repeated(message.first("EVN"), 7) or [[]])[0],
            message.repeated(message.header, 4),
        )
        called = None
        for one in (
            [message.text(evn, number) for number in (1, 2, 3)],
            message.parts(place, 4)[:3],
            message.parts(medical, 6)[:3],
            [message.text((header or [[]])[0], number) for number in (1, 2, 3)],
        ):
            name, number, kind = one
            called = called or (name if re.search(r"[^\W\d]{2}", name) else None)
            if kind.upper() in ("SIREN", "SIRET"):
                continue
            for value in (number, name):
                if finess := formats.bare_finess(value.removeprefix(f"{formats.STRUCTURES_OID}.")):
                    return finess, called
        return None, called

    def entry_mode(self, pv1: Segment) -> str | None:
        """PMSI's entry mode and where from (ZFM-1, ZFM-3), else PV1-14 as a code or in words, else a birth (PV1-4)."""
        message = self.message
        zfm = message.first("ZFM")
        pmsi = _PMSI_ENTRIES.get(message.part(zfm, 1).upper())
        if pmsi:
            return _PMSI_ORIGINS.get(message.part(zfm, 3).upper(), pmsi)
        code, words = message.part(pv1, 14), message.part(pv1, 14, 2)
        found = formats.entry_mode(words) or _SOURCES.get(code) or formats.entry_mode(code)
        return found or ("birth" if message.part(pv1, 4).upper() == "N" else None)

    def exit_mode(self, pv1: Segment) -> str | None:
        """PMSI's exit mode and destination (ZFM-2, ZFM-4), else PV1-36, as a code or in words."""
        message = self.message
        zfm = message.first("ZFM")
        pmsi = _PMSI_EXITS.get(message.part(zfm, 2))
        if pmsi:
            return pmsi if pmsi == "death" else _PMSI_DESTINATIONS.get(message.part(zfm, 4), pmsi)
        code, words = message.part(pv1, 36), message.part(pv1, 36, 2)
        if not code and not words:
            return None
        if code.upper() in _DISPOSITIONS and not words:
            return _DISPOSITIONS[code.upper()]
        mode = formats.exit_mode(words) or formats.exit_mode(code) or _DISPOSITIONS.get(code.upper())
        if mode is None:
            self.unknown.append("stay.exit_mode")
        return mode

    # ------------------------------------------------------------------------------------------------- the flags

    def consent(self) -> str | None:
        """`masked` by MASQUE_PS. Flags that the volet's table does not allow together leave consent unreadable."""
        message = self.message
        flags: dict[str, str] = {}
        clash = False
        for segment in message.all("OBX"):
            code = message.part(segment, 3)
            if code not in _KNOWN_FLAGS:
                continue
            value = message.part(segment, 5).upper()
            value = {"O": "Y", "OUI": "Y", "YES": "Y", "NON": "N", "NO": "N"}.get(value, value)
            clash = clash or value not in ("Y", "N") or flags.get(code, value) != value
            flags[code] = "Y" if "Y" in (value, flags.get(code)) else value
        clash = clash or any(flags.get(one) == flags.get(other) == "Y" for one, other in _FORBIDDEN)
        masked = flags.get("MASQUE_PS") == "Y"
        if masked and any(
            one.rpps or (one.mss_address and not one.mss_address.endswith(_CITIZENS))
            for one in self.participants("RCT")
        ):
            clash = True
        if clash:
            self.problems.append(Problem("flags_contradict", "des indicateurs d'envoi se contredisent"))
            self.unknown.append("consent")
        elif not masked and flags.get("DESTMSSANTEPS") == "N":
            self.problems.append(
                Problem("not_for_professionals", "l'hôpital n'envoie pas ce document aux soignants")
            )
            self.unknown.append("consent")
        if (
            flags.get("CONNEXION_SECRETE") == "Y"
        ):  # a minor who keeps the care from their parents (L. 1111-5 CSP)
            self.problems.append(Problem("secret_connection", "l'hôpital demande la connexion secrète"))
            self.unknown.append("consent")
        protected = (message.part(message.first("PD1"), 12), message.part(message.first("PV2"), 22))
        if "Y" in (one.upper() for one in protected):
            self.problems.append(Problem("protected", "dossier marqué protégé (PD1-12 ou PV2-22)"))
            self.unknown.append("consent")
        return "masked" if masked else None


# ------------------------------------------------------------------------------------------------------------ pieces


def _is_document(segment: Segment, message: _Message) -> bool:
    """OBX with a document: not the flags beside it, nor the words of the mail that a platform is to write."""
    return (
        message.part(segment, 2) in ("ED", "RP")
        and message.part(segment, 3, 3) != _FLAGS
        and not message.part(segment, 3).startswith("CORPSMAIL")
    )


def _typed(message: _Message) -> str:
    """The letter of an MDM that was typed into the message, a line for each TX, or FT, of its OBX; "" for none."""
    if message.kind != "MDM" or any(_is_document(one, message) for one in message.all("OBX")):
        return ""
    return _lines(message)


def _lines(message: _Message) -> str:
    """What stands in the TX and FT of a message, beside a document too: it leaves, for nobody else will show it."""
    lines = [
        message.plain(line.replace(f"{message.escape}.br{message.escape}", "\n"))
        for one in message.all("OBX")
        if message.part(one, 2) in ("TX", "FT")
        and message.part(one, 3, 3) != _FLAGS
        and not message.part(one, 3).startswith("CORPSMAIL")
        for line in (one[5] if len(one) > 5 else "").split(message.repetition)
    ]
    return "\n".join(lines).strip()


def _enclosed(segment: Segment, message: _Message) -> tuple[bytes, set[str]] | None:
    """The bytes of an ED and its words (type, subtype, encoding of table 0299); None for damage.

    How many components stand before the payload differs by sender, even in the guide's own examples.
    """
    head, _, payload = (segment[5] if len(segment) > 5 else "").rpartition(message.component)
    words = {one.strip().lower() for one in head.split(message.component)}
    try:
        if "base64" in words:
            if message.escape and message.escape in payload:  # line ends, as escapes: no sign of base64
                payload = message.plain(payload)
            bare = "".join(payload.split()).rstrip("=")
            content = binascii.a2b_base64(bare + "=" * (-len(bare) % 4), strict_mode=True)
        elif "hex" in words:
            content = bytes.fromhex(payload)
        else:
            # Unpacked text says itself in which characters it is written: those it came in.
            content = message.plain(payload).encode(message.codec, "replace")
    except ValueError:
        return None
    return (content, words) if content else None


def _document_number(repeated: list[list[str]], message: _Message, prefix: str = "") -> str | None:
    """An EI as `OID^number`. Without OID it is a short counter of that system, told apart by `prefix`."""
    if not repeated:
        return None
    value, oid = message.text(repeated[0], 1), message.text(repeated[0], 3)
    if not value:
        return None
    if re.fullmatch(r"\d+(?:\.\d+){3,}", oid):
        return f"{oid}^{value}"
    return value if re.fullmatch(r"\d+(?:\.\d+){3,}", value) else f"{prefix}{value}"


def _given_names(first: str, every: str) -> tuple[str, ...]:
    """The first given name kept whole, then each further one; the list may begin with the first."""
    rest = every
    if first and formats.fold(every).startswith(formats.fold(first)):
        rest = every[len(first) :]
        if rest[:1] not in ("", " ", ","):
            rest = every
    names = [first, *re.split(r"[\s,]+", rest)]
    return tuple(dict.fromkeys(name for name in names if name))


def _same_person(letter: Patient | None, message: Patient | None) -> Patient | None:
    """The letter's patient; numbers and traits it leaves out come from PID where an identifier is shared."""
    if letter is None or message is None or letter == Patient():
        return message if letter in (None, Patient()) else letter
    return formats.completed(letter, message) if _one_person(letter, message) else letter


# -------------------------------------------------------------------------------------------------- acknowledgements

_GOOD = re.compile(r"(?:ok|y|oui|yes|aa|ca|1|succes|success|recue?|delivree?|remise?|lue?)\b")
_Status = Literal["delivered", "delayed", "failed", "read", "processed", "error"]


def _acknowledgement(message: _Message) -> ReceiptNews:
    """Table AckMetierZAM: one OBX per fact, the original control id in OBX-4. Of several fates the worst counts."""
    fates: list[tuple[int, _Status, str | None]] = []
    recipient = original = None
    for segment in message.all("OBX"):
        fact = message.part(segment, 3).upper()
        original = original or message.part(segment, 4) or None
        value = " ".join(message.text(one, n) for one in message.repeated(segment, 5) for n in (1, 2)).strip()
        if fact.startswith(("DESTINATAIRE", "LECTEUR")):
            told = (
                segment[5][:500] if len(segment) > 5 else ""
            )  # long runs of dots would make the search quadratic
            if found := re.search(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+", told):
                recipient = recipient or found[0].lower()
        elif fact.startswith("ACK_"):
            fates.append(_fate(fact, value))
    # Without a fact that can be read nobody is told that it arrived.
    _, status, code = max(fates, key=lambda one: one[0], default=(3, "error", None))
    return ReceiptNews(
        kind="zam", status=status, code=code, recipient=recipient, original_message_id=original
    )


def _fate(fact: str, value: str) -> tuple[int, _Status, str | None]:
    """(rank, status, code) of one fact; what is not clearly good is bad."""
    found = re.search(r"(?<![\d.])([245]\.\d{1,3}\.\d{1,3}|[245]\d\d|90[0-6])(?![\d.])", value)
    code = found[1] if found else None
    good = code[0] == "2" if code else bool(_GOOD.match(formats.fold(value)))
    if "LECTURE" in fact:
        return (0, "read", code) if good else (3, "error", code)
    if "DMP" in fact:
        return (0, "processed", code) if good else (3, "error", code)
    if code and code[0] == "4":
        return 1, "delayed", code
    return (0, "delivered", code) if good else (2, "failed", code)
