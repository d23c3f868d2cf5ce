"""People's answers: what they wrote themselves, apart from what their client quoted, and the lines a ward filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import date
from typing import NamedTuple

from relay.formats import bare_rpps, fold, matricule
from relay.formats import text as letters
from relay.model import Notice, Patient, Person, Stay
from relay.reading import Document, never_raises


class Reply(NamedTuple):
    """The new words of an answer: its first line, and all of it without quotation and signature."""

    first_line: str
    text: str


# Attributions of many clients; they wrap, so up to four lines are looked at together.
_WROTE = re.compile(
    r"[-\s]*(?:le|on|am|el|il|op|em|den|w dniu|pe|dnia)?\b.{3,400}?(?:a ecrit|wrote|schrieb|escribio|ha scritto|schreef|napisala?"
    r"|napisal\(a\)|escreveu|skrev|a scris|ecrivait|ecrit|kirjoitti)\b.{0,80}?:?\s*",
    re.DOTALL,
)
_BEGINS_WROTE = re.compile(
    r"[-\s]*(?:le|on|am|el|il|op|em|den|w dniu|pe|dnia)\s.{0,12}\d|.{0,120}<[^>]+@|\d{1,4}[-/. ]\d|.{3,80}\b(?:a ecrit|wrote)\s*:"
)
_ORIGINAL = re.compile(
    r"[-_*\s]*(?:message d'origine|message original|original message|ursprungliche nachricht|mensaje original"
    r"|messaggio originale|oorspronkelijk bericht|message transfere|forwarded message|message initial|begin forwarded"
    r" message|debut du message transfere|original appointment|mail original|courriel original)[-_*\s:]*"
)
_ORIGINAL_WORDS = (
    "origin",
    "initial",
    "transfere",
    "forwarded",
    "nachricht",
    "bericht",
)  # each of them has one
_FROM = r"\**(?:de|from|von|expediteur|da|van|fra)\s?\**\s?:"
_SENDER_LINE = re.compile(_FROM + r"\**\s?\S")
_MAY_BE_SENDER = re.compile(r"\n\s*" + _FROM)
_MORE_HEADERS = re.compile(
    r"\**(?:envoye|sent|date|a|to|cc|objet|subject|gesendet|an|betreff|enviado|para|asunto|verzonden|aan|onderwerp|inviato"
    r"|oggetto|destinataire|repondre a|reply-to|envoye le|copie)\s?\**\s?:"
)
_MOBILE = re.compile(
    r"(?:envoye|sent|gesendet|enviado|telecharg|get outlook|obtenez outlook|provenance|expedie|mail envoye)\b.{0,12}"
    r"(?:de(?:puis)?|from|von|desde|a partir|outlook|via|:|with|mit)\b.{0,60}"
)
_CLOSING = re.compile(
    r"(?:bien |tres |respectueusement|avec mes |je vous prie|veuillez |salutations |best |kind |warm )?"
    r"(?:cordialement|cdt|cdlt|bien a vous|a vous|confraternellement|confraternelles|sinceres salutations|salutations"
    r"|bonne (?:journee|soiree|reception)|sincerely|regards|best regards|kind regards|amicalement|respectueusement)\b.{0,60}"
)


@never_raises(Reply("", ""))
def reply_text(document: Document) -> Reply:
    """The answer in a mail. Never raises."""
    return new_text(document.text)


def new_text(text: str) -> Reply:
    """What a person wrote above, between or below what was quoted."""
    lines = [line.replace("\u00a0", " ").replace("\u200b", "").rstrip() for line in text.split("\n")]
    folded = _folded(lines)
    kept: list[str] = []
    number = 0
    while number < len(lines):
        plain = folded[number]
        if plain.startswith((">", "|>")):
            number += 1
            continue
        if lines[number].rstrip("\r") in ("--", "-- ") or re.fullmatch(r"--|_{5,}|-{5,}|={5,}", plain):
            after = next((n for n in range(number + 1, len(lines)) if folded[n]), None)
            if plain == "--" or (after is not None and _header_block(folded, after)) or after is None:
                break
        if _ORIGINAL.fullmatch(plain) or _header_block(folded, number):
            break
        size = _attribution(folded, number)
        if size:
            number += size
            after = next((n for n in range(number, len(lines)) if folded[n]), len(lines))
            if after < len(lines) and not folded[after].startswith(">"):
                break  # quoted without marks: all below is the old letter
            continue
        if _MOBILE.fullmatch(plain) and len(plain) < 90:
            number += 1
            continue
        kept.append(lines[number])
        number += 1
    kept = _without_signature(kept)
    whole = re.sub(r"\n{3,}", "\n\n", "\n".join(kept)).strip()
    first = next((line.strip() for line in whole.split("\n") if line.strip()), "")
    return Reply(first, whole)


def above_quotation(text: str) -> str | None:
    """What stands above an older mail that a client put below without marks; None when there is none."""
    lines = text.split("\n", 2000)
    whole = fold("\n".join(lines))
    told = any(word in whole for word in _ORIGINAL_WORDS)
    if not told and not _MAY_BE_SENDER.search(f"\n{whole}"):  # line by line is slow
        return None
    folded = [line.strip() for line in whole.split("\n")]
    for number, line in enumerate(folded):
        if (told and _ORIGINAL.fullmatch(line)) or _header_block(folded, number):
            return "\n".join(lines[:number])
    return None


def _folded(lines: list[str]) -> list[str]:
    """Each line folded and stripped; folded as one text, as a call for each line costs more than the folding."""
    return [line.strip() for line in fold("\n".join(lines)).split("\n")]


def _attribution(folded: list[str], number: int) -> int:
    """How many lines « Le … a écrit : » takes here; 0 when none begins."""
    if not _BEGINS_WROTE.match(folded[number]):
        return 0
    joined = ""
    for size in range(1, 5):
        if number + size > len(folded) or (size > 1 and folded[number + size - 1].startswith(">")):
            return 0
        joined = f"{joined} {folded[number + size - 1]}".strip()
        if len(joined) > 500 or not folded[number + size - 1]:
            return 0
        if joined.endswith(":") and _WROTE.fullmatch(joined):
            return size
    return 0


def _header_block(folded: list[str], number: int) -> bool:
    """Outlook's copied headers: « De : », then at least two of « Envoyé : », « À : », « Objet : »."""
    if not _SENDER_LINE.match(folded[number]):
        return False
    following = [line for line in folded[number + 1 : number + 9] if line][:6]
    return sum(bool(_MORE_HEADERS.match(line)) for line in following) >= 2


def _without_signature(lines: list[str]) -> list[str]:
    """Cut at the closing formula when only a signature's few lines follow it."""
    for number, line in enumerate(lines):
        if number and _CLOSING.fullmatch(fold(line).strip(" ,.!")):
            following = [one for one in lines[number + 1 :] if one.strip()]
            if len(following) <= 8 and not any(len(one) > 120 for one in following):
                return lines[:number]
    return lines


# ------------------------------------------------------------------------------------------------------ corrections


_FORM = {
    "gp": "Médecin traitant",
    "rpps": "RPPS",
    "gp_rpps": "RPPS du médecin traitant",
    "born": "Né(e) le",
    "ins": "INS",
    "sex": "Sexe",
    "birth_name": "Nom de naissance",
    "used_name": "Nom d'usage",
    "given": "Prénom(s)",
    "stay": "N° de séjour",
}
"""The labels a ward is asked to fill in. A block that says more is our own note, not the form."""
_LETTER = frozenset(
    {"admitted", "discharged", "period", "ward", "kind", "exit_mode", "doctor", "referring", "colleague"}
)
_OUR_SUBJECT = re.compile(r".{3,40} – R[ée]f\. [0-9A-Z]{4}-[0-9A-Z]{4}\W*")
"""« Objet : Lettre retenue – Réf. … », which Outlook copies above a quotation: our note's, and no letter's."""


@never_raises({})
def corrections(text: str) -> dict[str, str]:
    """What a ward filled in, under the names `recognise` uses: "registered_gp.rpps", "patient.birth_date"…

    The person's own lines count first; where they wrote none, the lines they filled in inside the quotation.
    Values are normal forms (11 digits, ISO dates); what cannot be read is left out. Never raises.
    """
    return _filled(new_text(text).text) or _filled(text)


def _filled(text: str) -> dict[str, str]:
    blocks: dict[int, list[tuple[str, str]]] = {}
    for name, value, block in letters.fields(text):
        if name:
            blocks.setdefault(block, []).append((name, value))
    if any(
        name in _LETTER and not (name == "kind" and _OUR_SUBJECT.fullmatch(value))
        for lines in blocks.values()
        for name, value in lines
    ):
        return {}  # a quoted letter names a GP too: it must never come back as the ward's choice
    forms = [lines for lines in blocks.values() if all(name in _FORM for name, _ in lines)]
    text = "\n\n".join("\n".join(f"{_FORM[name]} : {value}" for name, value in lines) for lines in forms)
    notice = letters.read(text).notice
    patient, gp, stay = notice.patient or Patient(), notice.registered_gp or Person(), notice.stay or Stay()
    rpps = gp.rpps
    if rpps is None:
        alone = {
            bare_rpps(value) for name, value, _ in letters.fields(text) if name in ("rpps", "gp_rpps")
        } - {None}
        rpps = alone.pop() if len(alone) == 1 else None  # the form asks for one doctor's number only
    found = {
        "registered_gp.name": gp.name,
        "registered_gp.rpps": rpps,
        "patient.birth_date": patient.birth_date.isoformat() if patient.birth_date else None,
        "patient.ins": patient.ins,
        "patient.sex": patient.sex,
        "patient.birth_name": patient.birth_name,
        "patient.used_name": patient.used_name,
        "patient.given_names": " ".join(patient.given_names) or None,
        "stay.number": stay.number,
    }
    return {name: value for name, value in found.items() if value}


def applied(notice: Notice, fields: Mapping[str, str]) -> Notice:
    """The notice as a person corrected it; a corrected field is no longer unknown. Unknown names are left out."""
    patient, gp, stay = notice.patient or Patient(), notice.registered_gp or Person(), notice.stay or Stay()
    done: set[str] = set()
    for name, value in fields.items():
        match name:
            case "registered_gp.name":
                family, given, _ = letters.split_name(letters.plain_name(value))
                first = " ".join(given) or None
                gp = Person(name=" ".join(part for part in (first, family) if part) or None, family_name=family,
                            given_name=first, rpps=None if "registered_gp.rpps" not in fields else gp.rpps)  # fmt: skip
                done |= {"registered_gp", name}
            case "registered_gp.rpps":
                gp = replace(gp, rpps=bare_rpps(value) or gp.rpps, mss_address=None)
                done |= {"registered_gp", name}
            case "patient.birth_date":
                try:
                    patient = replace(patient, birth_date=date.fromisoformat(value))
                except ValueError:
                    continue
            case "patient.ins":
                patient = replace(patient, ins=matricule(value) or patient.ins, ins_key_valid=None)
            case "patient.sex" if value in ("M", "F"):
                patient = replace(patient, sex="M" if value == "M" else "F")
            case "patient.birth_name":
                patient = replace(patient, birth_name=value)
            case "patient.used_name":
                patient = replace(patient, used_name=value)
            case "patient.given_names":
                patient = replace(patient, given_names=tuple(value.split()))
            case "stay.number":
                stay = replace(stay, number=value)
            case _:
                continue
        done.add(name)
    return replace(
        notice,
        patient=patient if patient != Patient() else None,
        registered_gp=gp if gp != Person() else None,
        stay=stay if stay != Stay() else None,
        unknown=tuple(name for name in notice.unknown if name not in done),
    )
