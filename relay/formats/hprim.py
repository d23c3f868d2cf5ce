"""HPRIM Médecin: twelve positional lines about the patient and the letter's people, then the letter as text.

Lines: 1 code or title, 2 family name, 3 given name, 4 and 5 street, 6 postcode and town, 7 birth date, 8 social
security number, 9 file number, 10 date, 11 sender, 12 addressee. Some senders write thirteen, an address line
more. The addressee of line 12 is a recipient and nobody's registered GP; line 8 may be the insured parent's
number and counts only where it fits the patient; line 9 means something else with every sender and is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import Final, Literal

from relay import formats
from relay.formats import text as letters
from relay.model import LocalId, Notice, Patient, Person, Problem, Stay
from relay.reading import never_raises

MAX_PATIENTS = 200
_FORMAT: Final = "hprim"

_END = re.compile(r"[ \t]*\*{2,}[ \t]*FIN(?:[ \t]*FICHIER)?[ \t]*\*{2,}[ \t]*", re.IGNORECASE)
_LABORATORY = re.compile(r"[ \t]*\*{2,}[ \t]*LAB[ \t]*\*{2,}[ \t]*", re.IGNORECASE)
_RESULT = re.compile(r"(?:RES|TEX|KEY|LAB)\|", re.IGNORECASE)
_DAY = re.compile(r"\d{2}[/.-]\d{2}[/.-]\d{4}|\d{8}")
_NUMBER = re.compile(r"[\dABab .\u00a0-]*")
_TOWN = re.compile(r"\d{5}\b.{0,80}|\D{0,80}")
_CODE = re.compile(r"(?=\S*\d)[\w./-]{1,30}$")

_TITLES: Final[dict[str, Literal["M", "F"]]] = {
    "m": "M", "mr": "M", "monsieur": "M", "mme": "F", "mlle": "F", "madame": "F", "mademoiselle": "F",
}  # fmt: skip

# « hospitalisée dans le service du 23/11/2026 au 01/12/2026 », « sortie le 01/12/2026 », in running prose
_WHEN = r"(?:\d{1,2}[/.-]\d{1,2}[/.-]\d{2,4}|\d{1,2}(?:er)? [a-z]{3,9}\.? \d{4})"
_STAYED = re.compile(
    rf"\b(?:hospitalis|sejour)[^.\n]{{0,120}}?\bdu\s+({_WHEN})\s+(?:au|jusqu'au)\s+({_WHEN})"
)
_LEFT = re.compile(rf"\bsort(?:i|ie|ante?)\s+(?:du service |de l'hopital |a domicile )?(?:le|ce)\s+({_WHEN})")
_MAIDEN = re.compile(r"\S\s+(?:nee|ep\.?|epouse|veuve)\s+\S")  # « DUPONT NEE MARTIN » on line 2
_HEADLINE = re.compile(
    r"\b(?:compte|lettre|courrier|objet|resultats?|bilan|consultation|concerne|chere?|service)\b"
)
_HOSPITAL = re.compile(r"\bch[ru]?u?\b|\bhopital|\bclinique|\bcentre hospitalier")


@dataclass(frozen=True, slots=True)
class _Block:
    """One patient's part of a file."""

    head: tuple[str, ...]  # the twelve lines
    body: str
    has_results: bool


def looks_like(head: bytes) -> bool:
    """Whether bytes begin with the positional lines: they bear no mark, so dates must stand where dates belong."""
    return _head(_lines(head[:16_384])) is not None


@never_raises(
    Notice(format=_FORMAT, problems=(Problem("unreadable_document", "le fichier HPRIM est illisible"),))
)
def read(content: bytes) -> Notice | None:
    """The letter of an HPRIM file; None when it is none. Several people give the problem `two_patients`."""
    lines = _lines(content)
    if _head(lines) is None:
        return None
    blocks: list[_Block] = []
    problems: list[Problem] = []
    start, closed = 0, False
    for place in [*(n for n, line in enumerate(lines) if _END.fullmatch(line)), len(lines)]:
        piece, start = lines[start:place], place + 1
        block = _block(piece)
        if block is not None:
            blocks.append(block)
            closed = place < len(lines)
        elif any(re.search(r"\w", line) for line in piece):
            problems.append(formats.broken_package("du texte suit la fin du message HPRIM"))
        if len(blocks) > MAX_PATIENTS:
            problems.append(formats.broken_package("trop de patients dans le fichier"))
            break
    if not closed:
        problems.append(Problem("no_end_mark", "le message HPRIM n'a pas de marque de fin"))
    if not blocks:
        return Notice(format=_FORMAT, problems=(formats.broken_package("le message HPRIM est coupé"),))
    notices = [_notice(block) for block in blocks]
    return _joined(notices, problems)


@never_raises("")
def words(content: bytes) -> str:
    """The file as text, whatever old character set it came in."""
    return "\n".join(_lines(content))


def _joined(notices: Sequence[Notice], problems: list[Problem]) -> Notice:
    """Several parts speak of one person only where nothing at all differs; a file of two letters is held whole."""
    for other in notices[1:]:
        if _identity(other.patient) != _identity(notices[0].patient):
            problems.append(formats.TWO_PATIENTS)
            break
    telling = [one for one in notices if one.event not in (None, "other")]
    if len(telling) > 1:
        problems.append(formats.broken_package("plusieurs lettres dans le fichier HPRIM"))
    chief = (telling or list(notices))[0]
    every = (*problems, *(problem for one in notices for problem in one.problems))
    return replace(chief, problems=tuple(dict.fromkeys(every)))


def _identity(patient: Patient | None) -> tuple[object, ...]:
    who = patient or Patient()
    return (
        formats.fold(who.birth_name or ""),
        formats.fold(" ".join(who.given_names[:1])),
        who.birth_date,
        (who.ins or "")[:13],
    )


# ------------------------------------------------------------------------------------------------------------- lines

_LETTERS = {
    codec: bytes(
        byte
        for byte in range(0x80, 0x100)
        if bytes((byte,)).decode(codec, "replace") in "àâäçèéêëîïôöùûüÀÂÇÈÉÊËÎÏÔÙÛœŒ«»°’–…€"
    )
    for codec in ("cp1252", "mac_roman", "cp850")
}


def _decoded(content: bytes) -> str:
    """By a byte order mark, else UTF-8, else the old character set in which the most bytes are French letters."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return content.decode("utf-16", "replace")
    if b"\x00" in content[:64]:
        return content.decode("utf-16-le" if content[1:2] == b"\x00" else "utf-16-be", "replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        if broken.reason == "unexpected end of data":  # a head cut inside a letter
            return content.decode("utf-8-sig", "replace")
    strange = {codec: len(content.translate(None, known)) for codec, known in _LETTERS.items()}
    return content.decode(min(strange, key=lambda codec: strange[codec]), "replace")


def _lines(content: bytes) -> list[str]:
    """Empty lines count: a value's place is its name."""
    text = _decoded(content).replace("\r\r\n", "\n").replace("\r\n", "\n").replace("\r", "\n")
    lines = text.split("\n")
    return _from_first(lines)


def _from_first(lines: list[str]) -> list[str]:
    """Without the few blank lines that editors and mail leave before the first."""
    start = 0
    while (
        start < min(5, len(lines)) and not lines[start].strip() and _layout(lines[start : start + 16]) is None
    ):
        start += 1
    return lines[start:]


def _head(lines: Sequence[str]) -> int | None:
    return _layout(lines[:16])


def _layout(lines: Sequence[str]) -> int | None:
    """Where the birth date stands (6, or 7 with one more address line); None when these are no HPRIM lines."""
    for born in (6, 7):
        if len(lines) < born + 5:
            continue
        birth, number, written = (lines[born + n].strip() for n in (0, 1, 3))
        name = lines[1].strip()
        if not lines[0].strip() and formats.fold(name).strip(" .") in _TITLES:
            continue  # a blank line before the first, not a line more
        if (
            _DAY.fullmatch(written)
            and (not birth or _DAY.fullmatch(birth))
            and _NUMBER.fullmatch(number)
            and (birth or number)
            and _TOWN.fullmatch(lines[born - 1].strip())
            and 0 < len(name) < 80
            and not re.search(r"[\d:|@<>]", name)
        ):
            return born
    return None


def _block(lines: list[str]) -> _Block | None:
    lines = _from_first(lines)
    born = _layout(lines)
    if born is None:
        return None
    head = [line.strip() for line in (*lines[:5], *lines[born - 1 : born + 6])] + [""]
    rest = lines[born + 6 :]
    if head[11] and _named(head[11]) is None:  # no line 12 at all: the letter begins here
        rest, head[11] = [head[11], *rest], ""
    cut = next((n for n, line in enumerate(rest) if _LABORATORY.fullmatch(line)), len(rest))
    prose = [line for line in rest[:cut] if not _RESULT.match(line)]
    return _Block(tuple(head[:12]), "\n".join(prose), has_results=cut < len(rest) or len(prose) < cut)


def _named(value: str) -> Person | None:
    """« code nom » of lines 11 and 12; a sentence is nobody."""
    words = value.split()
    code = words[0] if words and _CODE.fullmatch(words[0]) else ""
    name = value[len(code) :].strip() if code else value
    if (
        len(words) > 8
        or name.endswith((",", ".", ":", ";", "!", "?"))
        or _HEADLINE.search(formats.fold(name))
    ):
        return None
    titled = re.match(r"(?:dr|docteur|pr|professeur)\b", formats.fold(name))
    if not (code or titled or name.isupper() or (len(words) < 4 and name.istitle())):
        return None
    person = letters.person(name)
    rpps = formats.bare_rpps(code)
    if person is None and rpps is None:
        return None
    return replace(person or Person(), rpps=(person.rpps if person else None) or rpps)


# ------------------------------------------------------------------------------------------------------------ notice


def _notice(block: _Block) -> Notice:
    letter = letters.read(block.body).notice
    unknown = list(letter.unknown)
    problems = list(letter.problems)
    patient = _patient(block.head, unknown)
    if letter.patient is not None:
        if formats.contradict(patient, _beside(letter.patient, patient)):
            problems.append(formats.TWO_PATIENTS)
        else:
            patient = _completed(patient, letter.patient)
    patient = _with_number(patient, block.head[7], unknown, problems)
    stay, event, document = letter.stay or Stay(), letter.event, letter.document
    told = _told(block.body) if stay.discharged is None else None
    if told is not None:
        stay = replace(stay, admitted=stay.admitted or told.admitted, discharged=told.discharged)
        event, document = event or "discharge", document or "letter"
    facility, called = _facility(block.head[10])
    stay = replace(stay, facility=stay.facility or facility, facility_name=stay.facility_name or called)
    addressee = _named(block.head[11]) if block.head[11] else None
    if block.head[11] and addressee is None:
        problems.append(Problem("addressee_unread", "le destinataire (ligne 12) ne peut pas être lu"))
    recipients = (*((addressee,) if addressee else ()), *letter.recipients)
    return replace(
        letter,
        format=_FORMAT,
        event=event or "other",
        document=document or "other",
        patient=patient,
        stay=stay if stay != Stay() else None,
        author=letter.author or (None if facility else _named(block.head[10])),
        recipients=tuple(dict.fromkeys(recipients)),
        unknown=tuple(dict.fromkeys(unknown)),
        problems=tuple(dict.fromkeys(problems)),
    )


def _patient(head: Sequence[str], unknown: list[str]) -> Patient:
    code, family, given = head[0], " ".join(head[1].split()), " ".join(head[2].split())
    born = _day(head[6])
    if head[6] and born is None:
        unknown.append("patient.birth_date")
    title = _TITLES.get(formats.fold(code).strip(" ."))
    used: str | None = None
    kind: Literal["birth", "used", "unstated"] = "unstated"
    if _MAIDEN.search(formats.fold(family)) or formats.fold(family).split(" ")[0].strip(".") in _TITLES:
        shown = letters.read(f"Patient : {family} {given}").notice.patient or Patient()
        title = title or (shown.sex if shown.sex != "U" else None)
        family, used, kind = shown.birth_name or family, shown.used_name, shown.name_kind
    return Patient(
        birth_name=family or None,
        used_name=used,
        name_kind=kind,
        given_names=tuple(re.split(r"[\s,;]+", given)) if given else (),
        sex=title,
        birth_date=born,
        local_ids=(LocalId("", code),) if title is None and _CODE.fullmatch(code) else (),
        postcode=formats.postcode(head[5][:5]),
    )


def _beside(said: Patient, patient: Patient) -> Patient:
    """What can be compared: a birth name alone, beside a used name in line 2, shares no word with it."""
    if (
        said.name_kind == "birth"
        and not said.given_names
        and said.birth_date == patient.birth_date is not None
    ):
        return replace(said, birth_name=None, used_name=None)
    return said


def _completed(patient: Patient, said: Patient) -> Patient:
    """What labelled lines of the letter add to the twelve: above all, which name is the birth name."""
    if said.name_kind == "birth" and said.birth_name:
        family = patient.birth_name
        other = family if family and formats.fold(family) != formats.fold(said.birth_name) else None
        patient = replace(
            patient, birth_name=said.birth_name, used_name=said.used_name or other, name_kind="birth"
        )
    return replace(
        patient,
        ins=said.ins,
        ins_oid=said.ins_oid,
        used_name=patient.used_name or said.used_name,
        given_names=patient.given_names or said.given_names,
        sex=patient.sex or said.sex,
        birth_date=patient.birth_date or said.birth_date,
        birth_place=said.birth_place,
        local_ids=tuple(dict.fromkeys((*patient.local_ids, *said.local_ids))),
        postcode=patient.postcode or said.postcode,
    )


def _with_number(patient: Patient, value: str, unknown: list[str], problems: list[Problem]) -> Patient:
    """Line 8 as the patient's NIR, where birth and sex do not show it to be somebody else's."""
    if patient.ins or not value.strip("0 .-"):
        return patient
    number = formats.matricule(value)
    if number is None:
        unknown.append("patient.ins")
        return patient
    born, sex = patient.birth_date, {"1": "M", "2": "F", "7": "M", "8": "F"}.get(number[0])
    month = int(number[3:5])
    if (
        (born is not None and number[1:3] != f"{born:%y}")
        or (born is not None and 1 <= month <= 12 and month != born.month)
        or (patient.sex in ("M", "F") and sex is not None and sex != patient.sex)
    ):
        problems.append(Problem("insured_number", "le n° de sécurité sociale est celui d'un autre assuré"))
        return patient
    return replace(patient, ins=number)


def _day(value: str) -> date | None:
    found = formats.find_day(value) if _DAY.fullmatch(value) else None
    return found[0] if found else None


def _told(body: str) -> Stay | None:
    """The stay as running prose tells it; None when it does not."""
    folded = formats.fold(body[:20_000])
    if found := _STAYED.search(folded):
        low, high = formats.find_moment(found[1]), formats.find_moment(found[2])
        if low and high and low[0] <= high[0]:
            return Stay(admitted=low[0], discharged=high[0])
    if found := _LEFT.search(folded):
        left = formats.find_moment(found[1])
        return Stay(discharged=left[0]) if left else None
    return None


def _facility(sender: str) -> tuple[str | None, str | None]:
    """(FINESS, name) where line 11 names a hospital; a doctor's ADELI number has nine digits too."""
    code, _, name = sender.partition(" ")
    if not _HOSPITAL.search(formats.fold(sender)):
        return None, None
    finess = formats.bare_finess(code)
    return finess, (name.strip() if finess else sender) or None
