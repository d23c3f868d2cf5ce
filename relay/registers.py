"""The files people hand in: patients, professionals, chat links, rotas, and the Annuaire Santé extraction.

Pure and streaming: lines of bytes in; registrations, professionals, links and duties out, one at a time, in
constant memory, each bad line as a `BadLine` with its number and reason, the good ones kept. Several lines
of one patient or one RPPS come out one by one: whoever stores them brings them together
(`relay.identity.merged`, and one `Mailbox` per line). Only a header that can't be right stops a file.
"""

from __future__ import annotations

import csv
import difflib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Final, Literal, TypeVar
from zoneinfo import ZoneInfo

from relay.errors import ConfigurationError, UsageError
from relay.identity import (
    NIR,
    PRODUCTION_OIDS,
    TEST_OIDS,
    ins_is_valid,
    is_address,
    normal_finess,
    normal_ins,
    normal_rpps,
    tokens,
)
from relay.model import Link, Mailbox, Professional, Registration

PATIENTS: Final = (
    "ins", "ins_oid", "facility", "local_id", "birth_name", "used_name", "given_names", "birth_date", "sex",
    "birth_place", "gp_rpps", "consent", "postcode", "patient_mss", "pharmacist_mss", "nurse_mss", "had_mss",
)  # fmt: skip
DIRECTORY: Final = (
    "rpps", "family_name", "given_name", "profession", "speciality", "mss_address", "mss_kind", "organisation",
    "finess", "postcode", "phone", "cpts", "active",
)  # fmt: skip
LINKS: Final = ("rpps", "channel")
ROTA: Final = ("from", "to", "rpps")

Row = TypeVar("Row")
Lines = Iterable[bytes]
"""A binary file, or anything that yields its lines; a progress bar may count what passes."""

# --------------------------------------------------------------------------------------------- bad lines

_REASONS: Final[Mapping[str, tuple[str, str]]] = {
    "not_utf8": ("is not UTF-8", "n'est pas en UTF-8"),
    "control": ("holds a control character", "contient un caractère de contrôle"),
    "too_long": ("is longer than 64 kB", "dépasse 64 ko"),
    "quotes": ("has a quotation mark that is never closed", "a un guillemet jamais fermé"),
    "fields": ("has not as many fields as the header", "n'a pas autant de champs que l'en-tête"),
    "nobody": (
        "names nobody: an INS, a local id with its facility, or a birth name is needed",
        "ne nomme personne : il faut un INS, un identifiant local avec son établissement, ou un nom de naissance",
    ),
    "missing": ("is empty", "est vide"),
    "ins": ("is no INS: 13 or 15 characters", "n'est pas un INS : 13 ou 15 caractères"),
    "ins_key": (
        "has a wrong key: kept, but a letter never matches it by INS",
        "a une clé fausse : gardé, mais aucun courrier n'y correspondra par l'INS",
    ),
    "ins_oid": ("is no OID of an INS in force", "n'est pas un OID d'INS en vigueur"),
    "date": ("is no date like 1948-03-17", "n'est pas une date comme 1948-03-17"),
    "moment": ("is no date or time like 2026-12-04T18:00", "n'est pas une date ou une heure comme 2026-12-04T18:00"),
    "order": ("ends before it begins", "finit avant de commencer"),
    "sex": ("is none of M, F, U", "n'est ni M, ni F, ni U"),
    "rpps": ("is no RPPS: 11 digits", "n'est pas un RPPS : 11 chiffres"),
    "consent": ("is neither allowed nor opposed", "n'est ni allowed ni opposed"),
    "address": ("is no mail address", "n'est pas une adresse de messagerie"),
    "mss_kind": ("is none of PER, CAB, ORG, APP", "n'est ni PER, ni CAB, ni ORG, ni APP"),
    "active": ("is neither true nor false", "n'est ni true ni false"),
    "local_id": (
        "needs its facility: the line is kept without it",
        "demande son établissement : la ligne est gardée sans lui",
    ),
    "channel": (
        "is no channel: telegram:CHAT_ID[:USER_ID], matrix:@USER:SERVER or webchat:NAME",
        "n'est pas un canal : telegram:CHAT_ID[:USER_ID], matrix:@USER:SERVEUR ou webchat:NOM",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be taken, or not all of it (`kept`). No value of the line is repeated."""

    number: int  # of the physical line, the header being 1
    code: str  # slug
    column: str = ""
    kept: bool = False

    @property
    def reason(self) -> str:
        """In English; `in_words` for the others."""
        return self.in_words("en")

    def in_words(self, language: str = "fr") -> str:
        """Why, for people: « birth_date n'est pas une date comme 1948-03-17 »."""
        english, french = _REASONS[self.code]
        subject = self.column or ("the line" if language == "en" else "la ligne")
        return f"{subject} {english if language == 'en' else french}"


class _Bad(Exception):  # carries a reason from a field to its line, never leaves this module
    def __init__(self, code: str, column: str = "") -> None:
        super().__init__(code)
        self.code, self.column = code, column


# ------------------------------------------------------------------------------------------------- lines

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Controls, line separators, and the marks that turn text round: no name has them, and they forge what is shown."""
_LONGEST: Final = 65_536
_BOM: Final = b"\xef\xbb\xbf"


def _text(lines: Lines) -> Iterator[tuple[int, str | _Bad]]:
    """Physical lines with their numbers, decoded; empty ones left out."""
    for number, raw in enumerate(lines, 1):
        raw = raw.rstrip(b"\r\n")
        if number == 1:
            raw = raw.removeprefix(_BOM)
        if len(raw) > _LONGEST:
            yield number, _Bad("too_long")
            continue
        try:
            line = raw.decode()
        except UnicodeDecodeError:
            yield number, _Bad("not_utf8")
            continue
        if not line or line.isspace():
            continue
        yield number, _Bad("control") if _CONTROL.search(line) else line


def _split(line: str, separator: str) -> list[str]:
    """The fields of one line. A quoted field ends on its own line: an open quotation mark never eats the next."""
    if '"' not in line:
        return [field.strip() for field in line.split(separator)]
    try:
        return [field.strip() for field in next(csv.reader([line], delimiter=separator, strict=True))]
    except (csv.Error, StopIteration):
        raise _Bad("quotes") from None


def _table(
    lines: Lines,
    known: tuple[str, ...],
    needed: tuple[tuple[str, ...], ...],
    name: str,
    make: Callable[[Mapping[str, str]], Iterable[Row | tuple[str, str]]],
) -> Iterator[Row | BadLine]:
    """Rows of a CSV with a header; `make` yields what a line holds and (code, column) for doubts about it."""
    source = _text(lines)
    first = next(source, None)
    if first is None:
        raise ConfigurationError(f"empty; the first line names the columns: {','.join(known)}", file=name)
    number, header = first
    if isinstance(header, _Bad):
        raise ConfigurationError(f"the header {_REASONS[header.code][0]}", file=name, line=number)
    separator = ";" if header.count(";") > header.count(",") else ","
    try:
        columns = [column.lower() for column in _split(header, separator)]
    except _Bad as bad:
        raise ConfigurationError(f"the header {_REASONS[bad.code][0]}", file=name, line=number) from None
    _check_header(columns, known, needed, name, number)
    width = len(columns)
    for number, line in source:
        try:
            if isinstance(line, _Bad):
                raise line
            fields = _split(line, separator)
            while len(fields) > width and not fields[-1]:
                fields.pop()  # a separator too many at the end, as spreadsheets write
            if len(fields) != width:
                # A short line may have lost an objection: it is no line with empty fields.
                raise _Bad("fields")
            for row in make(dict(zip(columns, fields, strict=True))):
                yield BadLine(number, row[0], row[1], kept=True) if isinstance(row, tuple) else row
        except _Bad as bad:
            yield BadLine(number, bad.code, bad.column)


def _check_header(
    columns: list[str], known: tuple[str, ...], needed: tuple[tuple[str, ...], ...], name: str, number: int
) -> None:
    """Raises ConfigurationError for a column that is missing, doubled, or misspelt (it would silently be empty)."""
    twice = next((column for column, count in Counter(columns).items() if count > 1 and column), None)
    if twice:
        raise ConfigurationError("stands twice in the header", file=name, line=number, key=twice)
    absent = [column for column in known if column not in columns]
    for column in columns:
        if column not in known and (near := difflib.get_close_matches(column, absent, 1, 0.8)):
            raise ConfigurationError(
                f"unknown column; did you mean « {near[0]} »?", file=name, line=number, key=column
            )
    for choice in needed:
        if any(column in columns for column in choice):
            continue
        near = difflib.get_close_matches(choice[0], [each for each in columns if each not in known], 1, 0.4)
        hint = f"; is « {near[0]} » meant?" if near else ""
        raise ConfigurationError(
            f"missing column{hint}; known columns: {','.join(known)}",
            file=name,
            line=number,
            key=" or ".join(choice),
        )


# ---------------------------------------------------------------------------------------------- patients


def patients(lines: Lines, name: str = "patients.csv") -> Iterator[Registration | BadLine]:
    """Registrations of `patients.csv` (docs/interface.md, People). Missing columns are empty; an INS without OID is a NIR.

    At least one of the columns that name a patient must be there.

    Several lines of one patient with different `gp_rpps` are several registered GPs. Raises
    ConfigurationError (file, line, column) for a header that can't be right.
    """
    return _table(lines, PATIENTS, (("birth_name", "ins", "local_id"),), name, _patient)


def _patient(row: Mapping[str, str]) -> Iterator[Registration | tuple[str, str]]:
    get = row.get
    doubts: list[tuple[str, str]] = []
    ins, oid = get("ins", ""), get("ins_oid", "")
    if ins:
        value = normal_ins(ins)
        if value is None:
            raise _Bad("ins", "ins")
        ins, oid = value, oid or NIR
        if oid not in PRODUCTION_OIDS | TEST_OIDS:
            raise _Bad("ins_oid", "ins_oid")
        if len(ins) == 15 and not ins_is_valid(ins):
            doubts.append(("ins_key", "ins"))
    facility, local_id = get("facility", ""), get("local_id", "")
    if local_id and not facility:
        doubts.append(("local_id", "local_id"))
        local_id = ""
    if not (ins or local_id or tokens(get("birth_name", ""))):
        raise _Bad("nobody")
    consent = get("consent", "").lower()
    if consent not in ("", "allowed", "opposed"):
        raise _Bad("consent", "consent")
    yield Registration(
        ins=ins,
        ins_oid=oid if ins else "",
        facility=normal_finess(facility) or facility,
        local_id=local_id,
        birth_name=get("birth_name", ""),
        used_name=get("used_name", ""),
        given_names=tuple(get("given_names", "").split()),
        birth_date=_day(get("birth_date", ""), "birth_date"),
        sex=_sex(get("sex", "")),
        birth_place=get("birth_place", "").upper(),
        gp_rpps=(_rpps(number, "gp_rpps"),) if (number := get("gp_rpps", "")) else (),
        consent=consent,
        postcode=get("postcode", ""),
        patient_mss=_address(row, "patient_mss"),
        pharmacist_mss=_address(row, "pharmacist_mss"),
        nurse_mss=_address(row, "nurse_mss"),
        had_mss=_address(row, "had_mss"),
    )
    yield from doubts


_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _day(text: str, column: str) -> date | None:
    if not text:
        return None
    try:
        if not _DAY.fullmatch(text):
            raise _Bad("date", column)
        return date.fromisoformat(text)
    except ValueError:
        raise _Bad("date", column) from None


_SEXES: Final = {"": "", "m": "M", "h": "M", "f": "F", "u": "U", "i": "U"}


def _sex(text: str) -> str:
    """M, F, U; H (homme) and I (indéterminé) as French registers write them."""
    try:
        return _SEXES[text.lower()]
    except KeyError:
        raise _Bad("sex", "sex") from None


def _rpps(text: str, column: str) -> str:
    rpps = normal_rpps(text)
    if rpps is None:
        raise _Bad("rpps", column)
    return rpps


def _address(row: Mapping[str, str], column: str) -> str:
    address = row.get(column, "")
    if address and not is_address(address):
        raise _Bad("address", column)
    return address


# --------------------------------------------------------------------------------------------- directory


def directory(
    lines: Lines, name: str = "directory.csv", tally: Counter[str] | None = None
) -> Iterator[Professional | BadLine]:
    """Professionals of `directory.csv` or of the Annuaire Santé extraction, told apart by the first line.

    One professional per line, with the mailbox of that line and its `active`; lines of one RPPS need not
    stand together. `tally` counts what is no professional and left out (see `annuaire`).
    """
    lines = iter(lines)
    first = next(lines, b"")
    whole = chain((first,), lines)
    if is_extraction(first):
        return annuaire(whole, name, tally)
    return _table(whole, DIRECTORY, (("rpps",),), name, _professional)


def is_extraction(first: bytes) -> bool:
    """Whether a file that begins with this line is the Annuaire Santé extraction."""
    return first.count(b"|") == len(ANNUAIRE) - 1 or first.removeprefix(_BOM).startswith(b"Type de BAL|")


def _professional(row: Mapping[str, str]) -> Iterator[Professional | tuple[str, str]]:
    get = row.get
    if not get("rpps", ""):
        raise _Bad("missing", "rpps")
    active = _yes(get("active", ""))
    kind = get("mss_kind", "").upper() or "PER"
    if kind not in ("PER", "CAB", "ORG", "APP"):
        raise _Bad("mss_kind", "mss_kind")
    address = _address(row, "mss_address")
    organisation, finess = get("organisation", ""), get("finess", "")
    box = Mailbox(address, kind, organisation, normal_finess(finess) or finess, active) if address else None
    yield Professional(
        rpps=_rpps(get("rpps", ""), "rpps"),
        family_name=get("family_name", ""),
        given_name=get("given_name", ""),
        profession=get("profession", ""),
        speciality=get("speciality", ""),
        mailboxes=(box,) if box else (),
        postcode=get("postcode", ""),
        phone=get("phone", ""),
        cpts=get("cpts", ""),
        active=active,
    )


_ACTIVE: Final = {
    **dict.fromkeys(("", "true", "1", "yes", "oui", "vrai"), True),
    **dict.fromkeys(("false", "0", "no", "non", "faux"), False),
}


def _yes(text: str) -> bool:
    """true/1/yes/oui, false/0/no/non; left empty: active."""
    try:
        return _ACTIVE[text.lower()]
    except KeyError:
        raise _Bad("active", "active") from None


ANNUAIRE: Final = (
    "Type de BAL", "Adresse BAL", "Type Identifiant PP", "Identifiant PP", "Identification nationale PP",
    "Type identifiant structure", "Identification Structure", "Service de rattachement", "Civilité d'exercice",
    "Nom d'exercice", "Prénom d'exercice", "Catégorie profession", "Libellé de catégorie profession",
    "Code Profession", "Libellé Profession", "Code savoir-faire", "Libellé savoir-faire", "Dématérialisation",
    "Raison Sociale structure BAL", "Enseigne commerciale structure BAL", "L2COMPLEMENTLOCALISATION",
    "L3COMPLEMENTDISTRIBUTION", "L4NUMEROVOIE", "L4COMPLEMENTNUMEROVOIE", "NL4TYPEVOIE", "L4LIBELLEVOIE",
    "L5LIEUDITMENTION", "L6LIGNEACHEMINEMENT", "Code postal", "Département", "Pays",
)  # fmt: skip
"""The columns of Extraction_Correspondance_MSSante, in their order."""


def annuaire(
    lines: Lines, name: str = "Extraction_Correspondance_MSSante", tally: Counter[str] | None = None
) -> Iterator[Professional | BadLine]:
    """Professionals of the Annuaire Santé extraction: UTF-8, `|`, no quoting, 31 columns, a header or none.

    Half a million lines, not sorted. Boxes of organisations (`organisation`) and of people without an RPPS
    (`without_rpps`: ADELI, students) are no professional's and only counted in `tally`. Who is in the file
    is active; who is missing from it has not left for that (boxes may be unlisted, and it had outages).
    """
    count: Counter[str] = Counter() if tally is None else tally
    width, search = len(ANNUAIRE), _CONTROL.search
    for number, line in enumerate(lines, 1):
        if len(line) > _LONGEST:
            yield BadLine(number, "too_long")
            continue
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            yield BadLine(number, "not_utf8")
            continue
        if number == 1:
            text = text.removeprefix("\ufeff")
            if text.startswith("Type de BAL"):
                if text.count("|") != width - 1:
                    raise ConfigurationError(
                        f"{text.count('|') + 1} columns, where the extraction has {width}", file=name, line=1
                    )
                continue
        fields = text.split("|")
        if len(fields) != width:
            if text and not text.isspace():
                yield BadLine(number, "fields")
            continue
        if search(text):
            yield BadLine(number, "control")
            continue
        national = fields[4]
        if len(national) == 12 and national[0] == "8" and national.isascii() and national.isdigit():
            rpps = national[1:]
        elif not national and not fields[3]:
            count["organisation"] += 1
            continue
        elif (found := normal_rpps(national)) or (found := normal_rpps(fields[3])):
            rpps = found
        else:
            count["without_rpps"] += 1
            continue
        kind, address, structure = fields[0], fields[1], fields[6]
        if not is_address(address):
            yield BadLine(number, "address", ANNUAIRE[1])
            continue
        if kind not in ("PER", "CAB", "ORG", "APP"):
            yield BadLine(number, "mss_kind", ANNUAIRE[0])
            continue
        yield Professional(
            rpps,
            fields[9],
            fields[10],
            fields[13] or fields[14],
            fields[15],
            (
                Mailbox(
                    address,
                    kind,
                    fields[18] or fields[19],
                    (normal_finess(structure) or "") if structure else "",
                ),
            ),
            fields[28],
        )


# ----------------------------------------------------------------------------------------- links and rotas


def links(lines: Lines, name: str = "links.csv") -> Iterator[Link | BadLine]:
    """Chat accounts of professionals: `rpps,channel`."""
    return _table(lines, LINKS, (("rpps",), ("channel",)), name, _link)


def _link(row: Mapping[str, str]) -> Iterator[Link | tuple[str, str]]:
    rpps = _rpps(row["rpps"], "rpps")
    try:
        yield link(rpps, row["channel"])
    except UsageError:
        raise _Bad("channel", "channel") from None


def link(rpps: str, text: str) -> Link:
    """The chat account `text` (see `channel`) of the professional `rpps`. Raises UsageError."""
    number = normal_rpps(rpps)
    if number is None:
        raise UsageError("an RPPS has 11 digits")
    return Link(number, *channel(text))


_TELEGRAM = re.compile(r"telegram:(-?[1-9][0-9]{0,18})(?::([1-9][0-9]{0,18}))?")
_MATRIX = re.compile(r"matrix:(@[a-z0-9._=/+-]{1,200}:[A-Za-z0-9.-]+(?::[0-9]{1,5})?)")
_WEBCHAT = re.compile(r"webchat:([A-Za-z0-9._-]{1,64})")


def channel(text: str) -> tuple[Literal["telegram", "matrix", "webchat"], str, str]:
    """(kind, chat, account) of `telegram:CHAT_ID[:USER_ID]`, `matrix:@USER:SERVER` or `webchat:NAME` (docs/interface.md, Commands).

    Without a user id a Telegram chat is private, where both are equal; a group (negative) needs one.
    Raises UsageError.
    """
    bare = text.strip()
    if found := _TELEGRAM.fullmatch(bare):
        chat, user = found[1], found[2]
        if user or not chat.startswith("-"):
            return "telegram", chat, user or chat
    if found := _MATRIX.fullmatch(bare):
        return "matrix", found[1], found[1]
    if found := _WEBCHAT.fullmatch(bare):
        return "webchat", found[1], found[1]
    raise UsageError("a channel is telegram:CHAT_ID[:USER_ID], matrix:@USER:SERVER or webchat:NAME")


@dataclass(frozen=True, slots=True)
class Duty:
    """Who is on duty; `since` inclusive, `until` exclusive, both aware."""

    since: datetime
    until: datetime
    rpps: str


def rota(lines: Lines, name: str = "rota.csv", timezone: str = "Europe/Paris") -> Iterator[Duty | BadLine]:
    """A duty rota: `from,to,rpps`. Local times; a date alone begins at its midnight and ends with its day."""
    zone = ZoneInfo(timezone)

    def duty(row: Mapping[str, str]) -> Iterator[Duty | tuple[str, str]]:
        since, until = _moment(row["from"], "from", zone), _moment(row["to"], "to", zone, end=True)
        if until <= since:
            raise _Bad("order", "to")
        yield Duty(since, until, _rpps(row["rpps"], "rpps"))

    return _table(lines, ROTA, (("from",), ("to",), ("rpps",)), name, duty)


def _moment(text: str, column: str, zone: ZoneInfo, *, end: bool = False) -> datetime:
    try:
        if _DAY.fullmatch(text):
            day = date.fromisoformat(text) + timedelta(days=1 if end else 0)
            return datetime(day.year, day.month, day.day, tzinfo=zone)
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise _Bad("moment" if text else "missing", column) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=zone)
