"""One file per format. Each holds `read(...) -> Notice | None`: None = not of this format; never raises.

A reader says what stands in the piece it was given, with its doubts in `Notice.unknown` (a field that
stands there and cannot be read) and `Notice.problems`; `relay.recognition` puts the pieces together.
A new format is one file here and one line in `relay.recognition._READERS`. Below: the values that letters
have in common, read the same way by every format.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from dataclasses import fields, replace
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Literal
from zoneinfo import ZoneInfo

from lxml import etree

from relay.model import Notice, Patient, Problem, Stay

PARIS = ZoneInfo("Europe/Paris")

INS_OIDS = {  # CI-SIS: NIR, NIA, test, demonstration
    "1.2.250.1.213.1.4.8": "NIR",
    "1.2.250.1.213.1.4.9": "NIA",
    "1.2.250.1.213.1.4.10": "NIR",
    "1.2.250.1.213.1.4.11": "NIR",
}
PROFESSIONALS_OID = "1.2.250.1.71.4.2.1"
STRUCTURES_OID = "1.2.250.1.71.4.2.2"

ELSEWHERE = Problem("document_elsewhere", "un document n'est pas dans l'envoi")
"""What is here leaves, and whoever reads it is told that something is missing."""
TWO_PATIENTS = Problem("two_patients", "plus d'une personne dans le même envoi")
"""The mail or package speaks of two people: it is held whole."""


def broken_package(text: str) -> Problem:
    """The package cannot be trusted as a whole."""
    return Problem("broken_package", text)


def further(letter: Notice, around: Notice) -> tuple[str, ...]:
    """What a letter is called by what is around it, beside its own number."""
    names = dict.fromkeys((*letter.other_ids, *around.other_ids, around.document_id))
    return tuple(name for name in names if name and letter.document_id and name != letter.document_id)


def completed(patient: Patient, other: Patient) -> Patient:
    """What one source leaves out about a person, from another about the same; the names stay one source's."""
    named = patient if patient.birth_name or patient.used_name else other
    return replace(
        patient,
        ins=patient.ins or other.ins,
        ins_oid=patient.ins_oid if patient.ins else other.ins_oid,
        birth_name=named.birth_name,
        used_name=named.used_name,
        name_kind=named.name_kind,
        order_unsure=named.order_unsure,
        given_names=patient.given_names or other.given_names,
        sex=patient.sex or other.sex,
        birth_date=patient.birth_date or other.birth_date,
        birth_place=patient.birth_place or other.birth_place,
        local_ids=tuple(dict.fromkeys((*patient.local_ids, *other.local_ids))),
        postcode=patient.postcode or other.postcode,
        deceased=patient.deceased or other.deceased,
    )


def completed_stay(stay: Stay, other: Stay) -> Stay:
    """The same for one stay; how exact a moment is goes with it."""
    gaps = {one.name: getattr(other, one.name) for one in fields(Stay) if getattr(stay, one.name) is None}
    filled = replace(stay, **gaps)
    if stay.admitted is None:
        filled = replace(filled, admitted_exact=other.admitted_exact)
    if stay.discharged is None:
        filled = replace(filled, discharged_exact=other.discharged_exact)
    return filled


# ------------------------------------------------------------------------------------------------------- two people


def contradict(one: Patient, other: Patient) -> bool:
    """Whether two descriptions cannot be of one person: other INS, other birth date, other sex, or other names.

    Names are others' where they share no word, or no given name: twins share the rest.
    """
    if one.ins and other.ins and one.ins_oid == other.ins_oid and one.ins[:13] != other.ins[:13]:
        return True
    if one.birth_date and other.birth_date and one.birth_date != other.birth_date:
        return True
    if one.sex in ("M", "F") and other.sex in ("M", "F") and one.sex != other.sex:
        return True
    if one.birth_name and (one.birth_name, one.given_names) == (other.birth_name, other.given_names):
        return False
    family, further = _words(one.birth_name, one.used_name), _words(other.birth_name, other.used_name)
    given, others = _words(*one.given_names), _words(*other.given_names)
    whole, all_of_other = family | given, further | others
    if not whole or not all_of_other:
        return False
    if not whole & all_of_other:
        return True
    # Where nobody knows which word is the family name, it is the other one's.
    if one.order_unsure:
        given = whole - (all_of_other if other.order_unsure else further)
    if other.order_unsure:
        others = all_of_other - (whole if one.order_unsure else family)
    given, others = _telling(given), _telling(others)
    return bool(given and others) and not given & all_of_other and not others & whole


def _words(*names: str | None) -> frozenset[str]:
    return frozenset(word for name in names if name for word in re.split(r"[\s'-]+", fold(name)) if word)


def _telling(given: frozenset[str]) -> frozenset[str]:
    """Without initials; nothing of what stands where there is no name."""
    return frozenset() if is_no_name(given) else frozenset(word for word in given if len(word.strip(".")) > 1)


_STAND_INS = frozenset(["bebe", "bb", "sansprenom", "prenom", "inconnu", "inconnue", "anonyme", "nouveaune"])
_NAMELESS = frozenset(
    [
        "nouveau",
        "ne",
        "nee",
        "sans",
        "nom",
        "enfant",
        "fille",
        "garcon",
        "jumeau",
        "jumelle",
        "masculin",
        "feminin",
    ]
)


def is_no_name(given: Collection[str]) -> bool:
    """Whether these folded words are what maternities type before a child has a given name: it tells nobody apart.

    « Sans prénom », « Bébé de Marie », « Nouveau-né 2 », « Fille ».
    """
    said = {word for word in given if len(word) > 1 and not word.isdigit()}
    return not _STAND_INS.isdisjoint(said) or {"nouveau", "ne"} <= said or (bool(said) and said <= _NAMELESS)


# --------------------------------------------------------------------------------------------------------- words

_PLAIN = {ord(c): unicodedata.normalize("NFD", c)[0] for c in map(chr, range(0xC0, 0x250))}
_PLAIN |= {ord("ø"): "o", ord("Ø"): "o", ord("ł"): "l", ord("Ł"): "l", ord("đ"): "d"}
_PLAIN |= dict.fromkeys(map(ord, "\u00a0\u202f\u2007\u2009\u200a\u3000"), " ")
_PLAIN |= dict.fromkeys(map(ord, "’‘ʼ´′"), "'")
_PLAIN |= dict.fromkeys(map(ord, "‐‑‒–—−"), "-")
_PLAIN |= dict.fromkeys(map(ord, "：﹕꞉∶"), ":")
_PLAIN |= {
    ord("\u200b"): "",
    ord("\u00ad"): "",
    ord("\ufeff"): "",
    ord("œ"): "oe",
    ord("Œ"): "oe",
    ord("æ"): "ae",
    ord("Æ"): "ae",
}


_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")  # letter by letter, French is three parts in a hundred
_GONE = bytes(n for n in range(256) if _PLAIN.get(n) == "")
_LATIN_1 = bytes(ord((_PLAIN.get(n, chr(n)) + chr(n))[0].lower()) for n in range(256))
"""What each letter of ISO 8859-1 folds to; « æ » folds to two."""


def fold(text: str) -> str:
    """Lower case without accents, typographic signs made plain: for finding words, not for comparing people."""
    if text.isascii():
        return text.lower()
    text = text.replace("’", "'")  # by far the commonest in French of what stands beyond ISO 8859-1
    try:
        single = text.encode("latin-1")  # fast, and composed already: accents that stand apart are not in it
    except UnicodeEncodeError:
        single = None
    if single is not None and "æ" not in text and "Æ" not in text:
        return single.translate(_LATIN_1, _GONE).decode("latin-1")
    plain = _BEYOND_ASCII.sub(lambda found: found[0].translate(_PLAIN), unicodedata.normalize("NFC", text))
    return plain.lower()


# --------------------------------------------------------------------------------------------------------- times

_MONTHS = {
    name: number
    for number, names in enumerate(
        (
            "janvier janv january jan", "fevrier fevr fev february feb", "mars march mar", "avril avr april apr",
            "mai may", "juin june jun", "juillet juil july jul", "aout august aug", "septembre september sept sep",
            "octobre october oct", "novembre november nov", "decembre december dec",
        ), 1,
    )
    for name in names.split()
}  # fmt: skip
_DAY = re.compile(
    r"(?<!\d)(?:(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})"
    r"|(?P<d2>\d{1,2})\s?[-/.]\s?(?P<m2>\d{1,2})\s?[-/.]\s?(?P<y2>\d{4}|\d{2})"
    r"|(?P<d3>\d{1,2})(?:er|st|nd|rd|th)?\s+(?:of\s+)?(?P<m3>[a-z]{3,9})\.?,?\s+(?P<y3>\d{4})"
    r"|(?P<m4>[a-z]{3,9})\s+(?P<d4>\d{1,2})(?:st|nd|rd|th)?,?\s+(?P<y4>\d{4})"
    r"|(?P<d5>\d{2})(?P<m5>\d{2})(?P<y5>(?:19|20)\d{2})"
    r"|(?P<y6>(?:19|20)\d{2})(?P<m6>\d{2})(?P<d6>\d{2}))(?!\d)"
)
_CLOCK = re.compile(r"(?<!\d)(\d{1,2})\s?(?:h|:|heures?)\s?(\d{2})?(?::\d{2})?\s?(am|pm)?(?![\d])")


def find_day(folded: str, *, short_years: bool = False) -> tuple[date, int] | None:
    """The first real date of folded text and where it ends. Two-digit years count only where `short_years`."""
    for found in _DAY.finditer(folded):
        groups = [found[name] for name in ("y", "y2", "y3", "y4", "y5", "y6") if found[name]]
        months = [found[name] for name in ("m", "m2", "m3", "m4", "m5", "m6") if found[name]]
        days = [found[name] for name in ("d", "d2", "d3", "d4", "d5", "d6") if found[name]]
        year, month = groups[0], months[0]
        if len(year) == 2 and not short_years:
            return None
        number = int(month) if month.isdigit() else _MONTHS.get(month, 0)
        if not number:
            continue
        try:
            return date(int(year) + (2000 if len(year) == 2 else 0), number, int(days[0])), found.end()
        except ValueError:
            return None
    return None


def find_moment(text: str, zone: ZoneInfo = PARIS) -> tuple[datetime, bool] | None:
    """(UTC time, whether a time of day stands there) of text such as « 01/12/2026 à 14 h 30 »; None: no real date."""
    folded = fold(text)
    day = find_day(folded, short_years=True)
    if day is None:
        return None
    clock = _CLOCK.search(folded, day[1]) or (_CLOCK.search(folded) if "T" not in text else None)
    hour = minute = 0
    if iso := re.match(r"t(\d{2}):(\d{2})", folded[day[1] :]):
        hour, minute, exact = int(iso[1]), int(iso[2]), True
    elif clock:
        hour, minute, exact = int(clock[1]), int(clock[2] or 0), True
        if clock[3] == "pm" and hour < 12:
            hour += 12
    else:
        exact = False
    if hour > 23 or minute > 59:
        return None
    local = datetime(day[0].year, day[0].month, day[0].day, hour, minute, tzinfo=zone)
    return local.astimezone(UTC), exact


_HL7_TIME = re.compile(r"(\d{4})(\d{2})?(\d{2})?(?:(\d{2})(\d{2})?(\d{2})?(?:\.\d+)?)?([+-]\d{4})?$")


def hl7_time(value: str | None, zone: ZoneInfo = PARIS) -> tuple[datetime, bool] | None:
    """(UTC time, whether it has an hour) of an HL7 TS; None when it is less than a day or is not real."""
    found = _HL7_TIME.match(value.strip()) if value else None
    if not found or not found[3]:
        return None
    where: ZoneInfo | timezone = zone
    if found[7]:
        minutes = int(found[7][1:3]) * 60 + int(found[7][3:])
        where = (
            timezone(timedelta(minutes=minutes if found[7][0] == "+" else -minutes))
            if minutes < 1440
            else zone
        )
    try:
        local = datetime(int(found[1]), int(found[2]), int(found[3]), int(found[4] or 0), int(found[5] or 0),
                         int(found[6] or 0), tzinfo=where if found[4] else zone)  # fmt: skip
        return local.astimezone(UTC), found[4] is not None
    except (ValueError, OverflowError):
        return None


def hl7_day(value: str | None) -> date | None:
    """The calendar day an HL7 TS writes, whatever its offset; None when it is less than a day or is not real.

    Some write the day as ISO 8601 does, which can mean no other.
    """
    bare = value.strip() if value else ""
    found = _HL7_TIME.match(bare.replace("-", "") if re.match(r"\d{4}-\d{2}-\d{2}$", bare) else bare)
    if not found or not found[3]:
        return None
    try:
        return date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None


# ----------------------------------------------------------------------------------------------------- identifiers

_MATRICULE = re.compile(r"[1-478]\d{4}(?:\d{2}|2[AB])\d{6}(?:\d{2})?")


def matricule(text: str) -> str | None:
    """A 13- or 15-character INS without its spaces; None when it has not that shape."""
    bare = re.sub(r"[\s.\-\u00a0\u202f]", "", text).upper()
    return bare if _MATRICULE.fullmatch(bare) else None


def bare_rpps(text: str | None) -> str | None:
    """The 11 digits of an RPPS written alone or as IDNPS (`8` in front); None for anything else."""
    digits = re.sub(r"[\s.\u00a0\u202f]", "", text or "")
    if len(digits) == 12 and digits[0] == "8":
        digits = digits[1:]
    return digits if len(digits) == 11 and digits.isascii() and digits.isdigit() else None


def bare_finess(text: str | None) -> str | None:
    """The 9 characters of a FINESS written alone or as IDNST (`1` in front); None for anything else."""
    found = re.fullmatch(r"1?(\d[\dABab]\d{7})", (text or "").strip())
    return found[1].upper() if found else None


def civility(text: str | None) -> Literal["M", "F"] | None:
    """The sex that a civility states: « Mme », « Monsieur »; None for « Dr » and all else."""
    word = fold(text or "").strip(" .")
    if word in ("mme", "madame", "mlle", "mademoiselle", "mrs", "miss"):
        return "F"
    return "M" if word in ("m", "mr", "monsieur") else None


def postcode(text: str | None) -> str | None:
    """Five digits, or None."""
    found = re.fullmatch(r"\d{5}", (text or "").strip())
    return found[0] if found else None


_EXITS = (
    ("death", r"dece|death|died|deceased"),
    ("home_hospitalisation", r"hospitalisation a domicile|\bhad\b|hospital at home"),
    ("nursing_home", r"ehpad|maison de retraite|nursing home|\busld\b|long sejour|medico-?social"),
    ("rehabilitation", r"\bssr\b|\bsmr\b|readaptation|reeducation|convalescence|rehab|soins de suite"),
    ("home", r"domicile|home|maison|famille"),
    ("hospital", r"hopital|hospital|\bch[ru]?u?\b|clinique|transfert|mutation|etablissement"),
    ("other", r"autre|other|fugue|contre avis"),
)  # fmt: skip


def exit_mode(text: str) -> str | None:
    """The exit mode that words mean; None when they mean none of those known."""
    folded = fold(text)
    return next((mode for mode, pattern in _EXITS if re.search(pattern, folded)), None)


_ENTRIES = (
    ("birth", r"naissance|birth"),
    ("emergency", r"urgences?|samu|smur|emergency"),
    ("nursing_home", r"ehpad|maison de retraite|nursing home|\busld\b|medico-?social"),
    ("rehabilitation", r"\bssr\b|\bsmr\b|readaptation|reeducation|convalescence|rehab|soins de suite"),
    ("hospital", r"transfert|mutation|hopital|hospital|\bch[ru]?u?\b|clinique|etablissement|autre service"),
    ("home", r"domicile|home|maison|famille"),
    ("other", r"autre|other|voie publique"),
)  # fmt: skip


def entry_mode(text: str) -> str | None:
    """How the patient came, in the words of a document; None when they mean nothing known."""
    folded = fold(text)
    return next((mode for mode, pattern in _ENTRIES if re.search(pattern, folded)), None)


# ------------------------------------------------------------------------------------------------------------- XML

MAX_XML = 50 * 2**20
# In UTF-8 and UTF-16 of either order; it begins with the rarest sign, to which the search leaps.
_DOCTYPE = re.compile(
    rb"!(?:(?<=<!)|(?<=<\x00!))" + rb"\x00?".join((b"", *(b"[%c%c]" % (c, c + 32) for c in b"DOCTYPE")))
)


class RefusedXml(ValueError):
    """The XML is broken, too large, or has a document type: no French document needs one."""


def parse_xml(content: bytes) -> etree._Element:
    """The root of an XML document, no entity resolved, nothing fetched. Raises RefusedXml."""
    if len(content) > MAX_XML:
        raise RefusedXml("too large")
    if _DOCTYPE.search(content):
        raise RefusedXml("has a DOCTYPE")
    # A PDF in base64 passes libxml2's limit of 10 MB a text node; safe, entities being refused above.
    if content[:1].isspace():  # before the declaration it is no XML; senders leave an empty line there
        content = content.lstrip()
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True,
                             remove_pis=True, huge_tree=len(content) > 8 * 2**20)  # fmt: skip
    try:
        root = etree.fromstring(content, parser)
    except (etree.LxmlError, ValueError, RecursionError) as problem:
        raise RefusedXml("is not well formed") from problem
    if root is None:
        raise RefusedXml("is empty")
    if root.getroottree().docinfo.internalDTD is not None:
        raise RefusedXml("has a DOCTYPE")
    return root
