"""Who is who: INS, NIR, RPPS and FINESS numbers, folded names, and whether two descriptions are one person.

Pure. Nothing here picks a person: it says how each trait of a letter stands to a registered one (contract
§4, "How people are compared"), and which plain keys find every registration that could be meant. The store
turns the keys into blind indexes.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from anyascii import anyascii

from relay.formats import contradict, is_no_name

if TYPE_CHECKING:
    from relay.model import Patient, Person, Registration

# ----------------------------------------------------------------------------------------------- numbers

NIR: Final = "1.2.250.1.213.1.4.8"
NIA: Final = "1.2.250.1.213.1.4.9"
INS_TEST: Final = "1.2.250.1.213.1.4.10"
INS_DEMO: Final = "1.2.250.1.213.1.4.11"
INS_C: Final = "1.2.250.1.213.1.4.2"
"""The computed INS of before 2019, obsolete: it identifies nobody."""

PRODUCTION_OIDS: Final = frozenset({NIR, NIA})
TEST_OIDS: Final = frozenset({INS_TEST, INS_DEMO})

_INS = re.compile(r"[0-9]{5}(?:[0-9]{2}|2[AB])[0-9]{6}(?:[0-9]{2})?")
_RPPS = re.compile(r"[0-9]{11}")
_FINESS = re.compile(r"[0-9](?:[0-9]|[AB])[0-9]{7}")
_SPACING = re.compile(r"[\s.-]+")


def normal_ins(text: str) -> str | None:
    """The 13 or 15 characters of an INS, upper case, without the spaces people write; None when it is none."""
    bare = _SPACING.sub("", text).upper()
    return bare if _INS.fullmatch(bare) else None


def ins_key(body: str) -> str:
    """The two digits that belong to the 13 characters of a NIR: 97 − (N mod 97), 2A read as 19 and 2B as 18."""
    number = int(body[:5] + body[5:7].replace("2A", "19").replace("2B", "18") + body[7:13])
    return f"{97 - number % 97:02d}"


def ins_is_valid(text: str | None) -> bool:
    """15 characters whose key fits. 13 characters have no key, so nothing vouches for them."""
    ins = normal_ins(text) if text else None
    return ins is not None and len(ins) == 15 and ins_key(ins[:13]) == ins[13:]


@dataclass(frozen=True, slots=True)
class Ins:
    """The matricule: never the number alone, always the pair of OID and value (référentiel INS)."""

    oid: str
    value: str

    @property
    def body(self) -> str:
        """The 13 characters before the key."""
        return self.value[:13]

    @property
    def is_test(self) -> bool:
        """Of the test or demonstration series; never one person with a production one."""
        return self.oid in TEST_OIDS

    def same(self, other: Ins) -> bool:
        """One pair; a key that one side left out is no difference."""
        return (
            self.oid == other.oid
            and self.body == other.body
            and (self.value[13:] or other.value[13:]) == (other.value[13:] or self.value[13:])
        )


def ins_of(person: Patient | Registration) -> Ins | None:
    """The pair, or None without a well-formed value. No OID: taken as NIR (docs/interface.md, People)."""
    value = normal_ins(person.ins) if person.ins else None
    return Ins((person.ins_oid or "").strip() or NIR, value) if value else None


def passes_luhn(digits: str) -> bool:
    """The check digit of RPPS and FINESS (2A and 2B count as 0 there). It warns only: official samples fail it."""
    total = 0
    for place, character in enumerate(reversed(digits)):
        digit = int(character) if character.isdigit() else 0
        digit *= 1 + place % 2
        total += digit - 9 if digit > 9 else digit
    return total % 10 == 0


@lru_cache(maxsize=4096)  # a batch compares the same doctors for each of its letters
def normal_rpps(text: str | None) -> str | None:
    """The bare 11 digits, or None. "8" + 11 digits is the same number in IDNPS form (annexe CI-SIS "Identifiants")."""
    bare = _SPACING.sub("", text or "")
    if len(bare) == 12 and bare[0] == "8":
        bare = bare[1:]
    return bare if bare.isascii() and _RPPS.fullmatch(bare) else None


def normal_finess(text: str | None) -> str | None:
    """The 9 characters, or None. "1" + FINESS is the same number in IDNST form."""
    bare = _SPACING.sub("", text or "").upper()
    if len(bare) == 10 and bare[0] == "1":
        bare = bare[1:]
    return bare if bare.isascii() and _FINESS.fullmatch(bare) else None


# ------------------------------------------------------------------------------------------------- names

_SPACE_LIKE = {
    ord(character): " "
    for character in "-'‐‑‒–—―−﹘﹣－’‘‛ʼʹʻ′`´＇.,_/"  # hyphens and apostrophes as people and machines write them
}


def fold(text: str) -> str:
    """A name as it is compared: no accents, no case, ligatures split, hyphen and apostrophe as space.

    Particles stay. NFC and NFD give the same. Invisible characters (zero width, bidi, soft hyphen) go.
    Only letters of the Latin blocks are brought to ASCII: a Cyrillic or Greek look-alike, a full-width or
    a mathematical letter stays what it is, so it never becomes equal to the letter it imitates.
    """
    if text.isascii():
        return " ".join(text.translate(_SPACE_LIKE).lower().split())
    letters: list[str] = []
    for character in unicodedata.normalize("NFD", text.translate(_SPACE_LIKE)):
        kind = unicodedata.category(character)
        if kind == "Mn" or kind in ("Cf", "Cs", "Co"):
            continue
        if character < "ɐ" or "ﬀ" <= character <= "ﬆ":  # Latin up to Extended-B; ff … st
            letters.append(anyascii(character) if character.isalpha() else character)
        else:
            letters.append(character)
    return " ".join("".join(letters).casefold().split())


def tokens(*names: str) -> tuple[str, ...]:
    """The folded words of names, in order."""
    return tuple(word for name in names for word in fold(name).split())


_NO_NAME = frozenset(
    {
        "sans prenom", "sansprenom", "sans nom", "inconnu", "inconnue", "non renseigne", "nr", "nouveau ne",
        "nouveaune", "anonyme", "x", "xx", "xxx", "unknown", "none", "na", "n a",
    }
)  # fmt: skip
"""What registration desks type where there is no name: it distinguishes nobody."""

# ---------------------------------------------------------------------------------------------- comparing


class Fit(StrEnum):
    """How one trait of a letter stands to the registered one."""

    SAME = "same"
    SILENT = "silent"  # one of the two does not say
    UNSURE = "unsure"  # can be the same, is not certainly
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Comparison:
    """Each strict trait, and two that can only raise a doubt: the stated used name and the birth place."""

    family: Fit
    given: Fit
    born: Fit
    sex: Fit
    used: Fit = Fit.SILENT
    place: Fit = Fit.SILENT
    by_used_name: bool = False  # the family name agreed with the registered used name only

    @property
    def strict(self) -> tuple[Fit, Fit, Fit, Fit]:
        """Birth name, first given name, birth date, sex."""
        return (self.family, self.given, self.born, self.sex)

    @property
    def is_same(self) -> bool:
        """All strict traits stated and equal, no doubt raised."""
        return all(fit is Fit.SAME for fit in self.strict) and Fit.OTHER not in (self.used, self.place)

    @property
    def could_be(self) -> bool:
        """No strict trait speaks against it: a person who looks would have to consider it."""
        return Fit.OTHER not in self.strict and self.family is not Fit.SILENT

    @property
    def against(self) -> tuple[str, ...]:
        """The stated traits that contradict."""
        named = zip(("family", "given", "born", "sex", "used"), (*self.strict, self.used), strict=True)
        return tuple(name for name, fit in named if fit in (Fit.OTHER, Fit.UNSURE))


def compare(stated: Patient, known: Registration) -> Comparison:
    """A letter's patient against a registered one, trait by trait (docs/interface.md, People).

    A family name not labelled birth or used is compared with both, in either order when all of it is in
    capitals; a stated used name agrees when it equals the registered one.
    """
    birth, used = fold(known.birth_name), fold(known.used_name)
    family, given, by_used = _names(stated, birth, used, known.given_names)
    return Comparison(
        family=family,
        given=given,
        born=_equal(stated.birth_date, known.birth_date),
        sex=_equal(_sex(stated.sex), _sex(known.sex)),
        used=_used(stated, birth, used),
        place=_equal(_cog(stated.birth_place), _cog(known.birth_place)),
        by_used_name=by_used,
    )


def _names(stated: Patient, birth: str, used: str, known_given: Sequence[str]) -> tuple[Fit, Fit, bool]:
    kind = family_kind(stated)
    if kind == "none":
        return Fit.SILENT, compare_given(stated.given_names, known_given), False
    if kind == "unstated" and stated.order_unsure:
        return _in_either_order(stated, birth, used, known_given)
    given = compare_given(stated.given_names, known_given)
    if kind == "used":
        name = fold(stated.used_name or stated.birth_name or "")
        # Who has no registered used name goes by the birth name.
        return (Fit.SAME if name in {used or birth, birth} else Fit.OTHER), given, name != birth
    name = fold(stated.birth_name or "")
    if kind == "birth" or not used:
        family = Fit.SILENT if not birth else Fit.SAME if name == birth else Fit.OTHER
        return family, given, False
    return (Fit.SAME if name in (birth, used) else Fit.OTHER), given, name != birth


def _in_either_order(
    stated: Patient, birth: str, used: str, known_given: Sequence[str]
) -> tuple[Fit, Fit, bool]:
    """The words of the whole name begin or end with a registered family name; the rest are given names."""
    words = tokens(stated.birth_name or "", *stated.given_names)
    best = (Fit.OTHER, Fit.OTHER, False)
    for name in dict.fromkeys((birth, used)):
        family = tuple(name.split())
        size = len(family)
        if not size:
            continue
        for rest in (
            *((words[size:],) if words[:size] == family else ()),
            *((words[:-size],) if words[-size:] == family else ()),
        ):
            given = compare_given(rest, known_given)
            if given is Fit.SAME:
                return Fit.SAME, given, name != birth
            if best[0] is Fit.OTHER or (best[1] is Fit.OTHER and given is not Fit.OTHER):
                best = (Fit.SAME, given, name != birth)
    return best


def family_kind(stated: Patient) -> str:
    """What the letter's family name is: "birth", "used", "unstated", or "none" when there is no name.

    Both names given: each is what its field says. A used name alone is one whatever the label says.
    """
    birth, used = fold(stated.birth_name or ""), fold(stated.used_name or "")
    if birth in _NO_NAME:
        birth = ""
    if birth and used:
        return "birth"
    if used:
        return "used"
    return stated.name_kind if birth else "none"


def _used(stated: Patient, birth: str, used: str) -> Fit:
    name = fold(stated.used_name or "")
    if not name or not used:
        return Fit.SILENT
    # Many hospital systems fill the used name with the birth name: that states nothing.
    return Fit.SAME if name in (used, birth) else Fit.OTHER


def compare_given(stated: Sequence[str], known: Sequence[str]) -> Fit:
    """The first given names must be one; a hyphen counts as a space, so a compound is matched word by word.

    « Jean Pierre » agrees with « Jean-Pierre » and with Jean, second name Pierre; « Jean » does not agree
    with « Jean-Pierre » (twins are given such names). Further names may be left out on either side; where
    both give them and they differ, it is unsure, since « Jean Paul » may be one name written without its
    hyphen. An initial is no name: it rules out, it never identifies.
    """
    ours, theirs = tokens(*stated), tokens(*known)
    if _nameless(ours) or _nameless(theirs):
        return Fit.SILENT
    if ours == theirs:
        return Fit.SAME
    first_ours, first_theirs = first_given(stated), first_given(known)
    if _is_initial(first_ours) != _is_initial(first_theirs):
        return Fit.SILENT if ours[0][0] == theirs[0][0] else Fit.OTHER
    shared = 0
    for one, other in zip(ours, theirs, strict=False):
        if one != other:
            break
        shared += 1
    if shared < max(len(first_ours), len(first_theirs)):
        return Fit.OTHER
    if shared == min(len(ours), len(theirs)):
        return Fit.SAME
    further = set(ours[shared:]), set(theirs[shared:])
    return Fit.SAME if further[0] <= further[1] or further[1] <= further[0] else Fit.UNSURE


def somebody_else(one: Patient, other: Patient) -> bool:
    """Whether two letters are surely about two people: another INS, or, where one has none, another trait.

    Unlike the parts of one mail (`formats.contradict`), letters that only name one stay need the same first given name.
    """
    ours, theirs = ins_of(one), ins_of(other)
    if ours and theirs:
        return ours.body != theirs.body
    if contradict(one, other):
        return True
    ordered = not (one.order_unsure or other.order_unsure)
    return ordered and compare_given(one.given_names, other.given_names) is Fit.OTHER


def first_given(names: Sequence[str]) -> tuple[str, ...]:
    """The folded words of the first given name: as far as the first space, so « Jean-Pierre » is two words, one name."""
    for name in names:
        for word in name.split():
            if folded := tokens(word):
                return folded
    return ()


def _nameless(given: tuple[str, ...]) -> bool:
    return not given or " ".join(given) in _NO_NAME or is_no_name(given)


def _is_initial(name: tuple[str, ...]) -> bool:
    return all(len(word) == 1 for word in name)


def _equal(stated: object, known: object) -> Fit:
    if stated is None or known is None:
        return Fit.SILENT
    return Fit.SAME if stated == known else Fit.OTHER


def _sex(text: str | None) -> str | None:
    """M or F; U says that nobody knows."""
    return text if text in ("M", "F") else None


_COG = re.compile(r"(?:[0-9]{2}|2[AB])[0-9]{3}")


def _cog(text: str | None) -> str | None:
    """An INSEE code of a commune or country; anything else (a town's name) can't be compared."""
    bare = (text or "").strip().upper()
    return bare if _COG.fullmatch(bare) else None


def has_strict_traits(stated: Patient) -> bool:
    """Birth name (or one not labelled), first given name, birth date and sex are all there and mean something."""
    if stated.birth_date is None or _sex(stated.sex) is None:
        return False
    kind = family_kind(stated)
    if kind == "unstated" and stated.order_unsure:
        words = tokens(stated.birth_name or "", *stated.given_names)
        return not _nameless(words[1:])
    first = first_given(stated.given_names)
    return (
        kind in ("birth", "unstated")
        and bool(first)
        and not _is_initial(first)
        and not _nameless(tokens(*stated.given_names))
    )


def nir_warnings(stated: Patient) -> tuple[str, ...]:
    """Where the digits of a NIR tell another sex, year or month of birth than the letter: slugs, warnings only.

    A NIR keeps its first digits after a change of the civil status, and months of 20 and more stand for
    unknown ones, so nothing follows from a difference but a line in the trace.
    """
    ins = ins_of(stated)
    if ins is None or ins.oid == NIA:
        return ()
    found = []
    if _sex(stated.sex) and ins.value[0] in "12" and (ins.value[0] == "1") != (stated.sex == "M"):
        found.append("nir_other_sex")
    if stated.birth_date and (
        int(ins.value[1:3]) != stated.birth_date.year % 100
        or (1 <= int(ins.value[3:5]) <= 12 and int(ins.value[3:5]) != stated.birth_date.month)
    ):
        found.append("nir_other_birth")
    return tuple(found)


# ------------------------------------------------------------------------------------------------ finding


def keys_of(known: Registration) -> tuple[str, ...]:
    """Plain strings under which a registration is found; health data: the store keeps only blind indexes of them.

    Any registration that could be a letter's person shares a key with `search_keys` of that letter. The
    keys by name alone ("name:") serve letters without a birth date, which are never decided without a
    person; rows without a birth date stand under "undated:" and are seen by every letter, since they can't
    be ruled out.
    """
    keys: dict[str, None] = {}
    if ins := ins_of(known):
        keys[f"ins:{ins.body}"] = None
    if known.local_id:
        keys[local_key(known.facility, known.local_id)] = None
    first = (*first_given(known.given_names), "")[0]
    for family in dict.fromkeys((fold(known.birth_name), fold(known.used_name))):
        if not family:
            continue
        if known.birth_date:
            keys[f"born:{known.birth_date.isoformat()}:{family}"] = None
            keys[f"name:{family}:{first}"] = None
        else:
            keys[f"undated:{family}:{first[:1]}"] = None
    return tuple(keys)


MAX_WORDS: Final = 12
"""A name all in capitals is split at every word; of a longer one only this many words are tried."""


def search_keys(stated: Patient, facility: str = "") -> tuple[str, ...]:
    """The keys to look up for a letter's patient. `facility` (FINESS) stands in for a local id without system."""
    keys: dict[str, None] = {}
    if ins := ins_of(stated):
        keys[f"ins:{ins.body}"] = None
    for local in stated.local_ids:
        if system := local.system or facility:
            keys[local_key(system, local.value)] = None
    for family, first in _readings(stated):
        if stated.birth_date:
            keys[f"born:{stated.birth_date.isoformat()}:{family}"] = None
        else:
            keys[f"name:{family}:{first}"] = None
        keys[f"undated:{family}:{first[:1]}"] = None
        keys[f"undated:{family}:"] = None
    return tuple(keys)


def _readings(stated: Patient) -> Iterable[tuple[str, str]]:
    """Every (family name, first word of the given names) that the letter's name can be read as."""
    if stated.order_unsure and family_kind(stated) == "unstated":
        words = tokens(stated.birth_name or "", *stated.given_names)[:MAX_WORDS]
        for cut in range(1, len(words)):
            yield " ".join(words[:cut]), words[cut]
            yield " ".join(words[-cut:]), words[0]
        return
    first = (*first_given(stated.given_names), "")[0]
    for family in dict.fromkeys((fold(stated.birth_name or ""), fold(stated.used_name or ""))):
        if family:
            yield family, first


def local_key(system: str, value: str) -> str:
    """A local id belongs to its facility: the same number elsewhere is somebody else."""
    return f"local:{_place_of(system)}:{value.strip().upper()}"


def _place_of(system: str) -> str:
    """The FINESS of a facility, also out of an OID that hangs it below the root of structures."""
    bare = system.strip().removeprefix("1.2.250.1.71.4.2.2.")
    return normal_finess(bare) or bare


def local_fit(stated: Patient, known: Registration, facility: str = "") -> Fit:
    """SAME: one local id is equal. OTHER: that facility knows the person by another number. Else SILENT."""
    if not known.local_id:
        return Fit.SILENT
    ours = {
        local_key(local.system or facility, local.value)
        for local in stated.local_ids
        if _place_of(local.system or facility) == _place_of(known.facility)
    }
    if not ours:
        return Fit.SILENT
    return Fit.SAME if local_key(known.facility, known.local_id) in ours else Fit.OTHER


_STRICTNESS: Final = ("", "allowed", "masked", "opposed")


def strictest(*consents: str | None) -> str:
    """The most forbidding of several consents; a word nobody knows counts as an objection."""
    return max(
        (each if each in _STRICTNESS else "opposed" for each in (consent or "" for consent in consents)),
        key=_STRICTNESS.index,
        default="",
    )


def merged(one: Registration, other: Registration) -> Registration:
    """Two lines of one person: every registered GP, the strictest consent, and what only the later one says."""
    gaps = {
        name: getattr(other, name)
        for name in (
            "local_id", "facility", "birth_name", "used_name", "given_names", "birth_date", "sex", "birth_place",
            "postcode", "patient_mss", "pharmacist_mss", "nurse_mss", "had_mss",
        )
        if not getattr(one, name)
    }  # fmt: skip
    return replace(
        one,
        gp_rpps=tuple(dict.fromkeys((*one.gp_rpps, *other.gp_rpps))),
        consent=strictest(one.consent, other.consent),
        corrected=one.corrected or other.corrected,
        copies_opposed=one.copies_opposed or other.copies_opposed,
        **gaps,
    )


# ------------------------------------------------------------------------------------------ professionals

_TITLES = frozenset(
    {
        "dr", "docteur", "docteure", "doctor", "pr", "prof", "professeur", "professeure", "mr", "m", "mme",
        "mlle", "monsieur", "madame", "mademoiselle", "med", "medecin",
    }
)  # fmt: skip


_PARTICLES = frozenset(
    [
        "le",
        "la",
        "les",
        "de",
        "du",
        "des",
        "d",
        "l",
        "van",
        "von",
        "der",
        "den",
        "el",
        "al",
        "ben",
        "da",
        "di",
        "do",
        "dos",
    ]
)
"""Of a name in one piece: where a particle is left over, the family name was longer than the one compared."""


def person_words(person: Person) -> tuple[str, ...]:
    """The folded words of a doctor's name as the letter writes it, titles left out."""
    written = person.name or " ".join(part for part in (person.given_name, person.family_name) if part)
    words = tokens(written)
    while words and words[0] in _TITLES:
        words = words[1:]
    return words


def is_named(person: Person | None) -> bool:
    """Whether the letter gives a name at all."""
    return person is not None and bool(tokens(person.family_name or "") or person_words(person))


def family_names(person: Person) -> tuple[str, ...]:
    """Every folded family name the letter may mean; more than one where the reader could not split the name."""
    if person.family_name and (family := fold(person.family_name)):
        return (family,)
    words = person_words(person)[:6]
    return tuple(
        dict.fromkeys(
            " ".join(part) for cut in range(len(words)) for part in (words[cut:], words[: len(words) - cut])
        )
    )


def bears(person: Person, family: str, given: str) -> bool:
    """Whether the name in a letter can be that of the professional: same family name, no other given name.

    An initial agrees with a given name that begins with it; a letter that gives none agrees with any.
    """
    theirs, first = tokens(family), tokens(given)
    if not theirs:
        return False
    if person.family_name and tokens(person.family_name):
        return tokens(person.family_name) == theirs and _given_agrees(tokens(person.given_name or ""), first)
    words, size = person_words(person), len(theirs)
    return any(
        part == theirs and _PARTICLES.isdisjoint(rest) and _given_agrees(rest, first)
        for part, rest in ((words[-size:], words[:-size]), (words[:size], words[size:]))
    )


def two_people(one: str, other: str) -> bool:
    """Whether two family names under one RPPS can't be one person's.

    « Martin » and « Martin-Durand » can be one person who changed names; « Martin » and « Durand » can't.
    """
    if one == other:
        return False
    first, second = set(tokens(one)), set(tokens(other))
    return bool(first and second) and not (first <= second or second <= first)


def _given_agrees(stated: tuple[str, ...], known: tuple[str, ...]) -> bool:
    if not stated or not known:
        return True
    if len(stated[0]) == 1 or len(known[0]) == 1:
        return stated[0][0] == known[0][0]
    shorter, longer = sorted((stated, known), key=len)
    return longer[: len(shorter)] == shorter


# --------------------------------------------------------------------------------------------- addresses

_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&*+/=?^_{|}~'-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z0-9-]{2,63}")
CITIZENS: Final = "patient.mssante.fr"
"""The domain of patients' own boxes: their local part is an INS, and no professional reads there."""


def is_address(text: str) -> bool:
    """A plain ASCII addr-spec as MSSanté hands them out; anything cleverer is not mailed to."""
    return len(text) <= 254 and _ADDRESS.fullmatch(text) is not None


def domain_allowed(address: str, domains: Iterable[str]) -> bool:
    """Whether the address is well-formed and its domain is on the white list (globs: "*.mssante.fr")."""
    if not is_address(address):
        return False
    domain = address.rpartition("@")[2].lower()
    return any(fnmatchcase(domain, pattern.strip().lower()) for pattern in domains)
