"""Patient × registry × directory → who this is and who the registered GP is, or precisely why not.

Pure, and never guesses: whatever is not certain has a name (docs/interface.md, People), and a person decides. The order:

    search_keys(letter) → registrations ─identify→ one patient, or a doubt
    professional_asks(letter, registrations) → professionals ─resolve→ one GP and one mailbox, or a reason
    facts(letter, resolution, …) → what the rules match on
    stay_keys, same_stay, document_keys → which follow-up a letter joins
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING, Final, Literal
from zoneinfo import ZoneInfo

from relay.identity import (
    CITIZENS,
    PRODUCTION_OIDS,
    TEST_OIDS,
    Comparison,
    Fit,
    Ins,
    bears,
    compare,
    domain_allowed,
    family_kind,
    family_names,
    first_given,
    fold,
    has_strict_traits,
    ins_is_valid,
    ins_of,
    is_named,
    local_fit,
    local_key,
    merged,
    nir_warnings,
    normal_finess,
    normal_rpps,
    person_words,
    search_keys,
    strictest,
    tokens,
    two_people,
)
from relay.model import Mailbox, Notice, Patient, Person, Professional, Registration, Resolution, derived_id

if TYPE_CHECKING:
    from collections.abc import Iterable

IdentityStatus = Literal["qualified", "validated", "provisional", "doubtful", "test"]
GpStatus = Literal["found", "none", "many", "conflict", "left", "no_mailbox"]

MAX_CANDIDATES: Final = 10

# ---------------------------------------------------------------------------------------------- asking first


def asks(notice: Notice, facility: str = "") -> tuple[str, ...]:
    """The registry keys to look up before `resolve`; `facility` is the watched mailbox's FINESS."""
    return search_keys(notice.patient, _facility(notice, facility)) if notice.patient else ()


def professional_asks(
    notice: Notice,
    registrations: Sequence[Registration],
    *,
    test_ins: Literal["hold", "accept"] = "hold",
    facility: str = "",
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(RPPS, folded family names) for `Directory.find`, from the letter and from whoever it may be about.

    Names are asked only where they can matter, to tell one homonym from several: a GP named without RPPS
    for a patient who has no registered one. A common name bears on a thousand professionals.
    """
    numbers: dict[str, None] = {}
    stated = notice.registered_gp
    if stated and (rpps := normal_rpps(stated.rpps)):
        numbers[rpps] = None
    for registration in registrations:
        numbers.update(dict.fromkeys(_gps_of(registration)))
    if stated is None or stated.rpps or not is_named(stated):
        return tuple(numbers), ()
    certain = identify(notice, registrations, test_ins=test_ins, facility=facility).registration
    return tuple(numbers), () if certain and certain.gp_rpps else family_names(stated)


def _facility(notice: Notice, facility: str) -> str:
    stated = notice.stay.facility if notice.stay else None
    return normal_finess(stated) or stated or facility


def _gps_of(registration: Registration) -> tuple[str, ...]:
    """The distinct registered GPs; a number that is no RPPS stays as it is, so that it is seen and not found."""
    return tuple(
        dict.fromkeys(normal_rpps(each) or each.strip() for each in registration.gp_rpps if each.strip())
    )


# -------------------------------------------------------------------------------------------------- the patient


@dataclass(frozen=True, slots=True)
class Identity:
    """How sure the patient is. `registration` only where one registered patient is certain."""

    status: IdentityStatus
    registration: Registration | None = None
    candidates: tuple[str, ...] = ()  # INS of registered patients that could be meant
    notes: tuple[str, ...] = ()


def identify(
    notice: Notice,
    registrations: Sequence[Registration],
    *,
    test_ins: Literal["hold", "accept"] = "hold",
    facility: str = "",
) -> Identity:
    """The patient's identity as docs/interface.md, People defines it; `registrations` is all that shares a key with the letter.

    A stated fact that contradicts outweighs any that agrees; who can't be ruled out counts as a candidate;
    a local id never makes an identity, it can only contradict one.
    """
    patient = notice.patient
    if patient is None:
        return Identity("doubtful", notes=("no_patient",))
    unreadable = _unreadable_traits(notice)
    rows: dict[str, Registration] = {}
    for each in registrations:
        rows[each.key] = merged(rows[each.key], each) if each.key in rows else each
    known = _one_row_each(tuple(rows.values()))
    place = _facility(notice, facility)
    if any(problem.code == "two_patients" for problem in notice.problems):
        return _doubtful(patient, known, "two_patients")
    if patient.ins or "ins" in unreadable:
        return _by_ins(patient, known, unreadable, test_ins, place)
    return _by_traits(patient, known, unreadable, test_ins, place)


def _one_row_each(known: tuple[Registration, ...]) -> tuple[Registration, ...]:
    """A row from before its INS was known is one with the row that has it: the same file of the same facility, and no
    strict trait left out or other. An import adds the second and leaves the first."""
    bare = [each for each in known if not each.ins and each.local_id]
    if not bare:
        return known
    full = [each for each in known if (ins := ins_of(each)) and ins.oid in PRODUCTION_OIDS and each.local_id]
    gone: dict[str, Registration] = {}
    for one in bare:
        number, who = local_key(one.facility, one.local_id), _as_stated(one)
        same = [
            each
            for each in full
            if local_key(each.facility, each.local_id) == number and compare(who, each).is_same
        ]
        if len(same) == 1:
            gone[same[0].key] = merged(gone.get(same[0].key, same[0]), one)
            gone[one.key] = one
    return tuple(gone.get(each.key, each) for each in known if each.ins or each.key not in gone)


def _as_stated(known: Registration) -> Patient:
    return Patient(
        birth_name=known.birth_name,
        used_name=known.used_name or None,
        given_names=known.given_names,
        sex=known.sex if known.sex in ("M", "F") else None,  # type: ignore[arg-type]  # a CSV's word
        birth_date=known.birth_date,
        birth_place=known.birth_place or None,
        name_kind="birth",
    )


def _by_ins(
    patient: Patient,
    known: Sequence[Registration],
    unreadable: frozenset[str],
    test_ins: str,
    facility: str,
) -> Identity:
    ins = ins_of(patient)
    oid = (patient.ins_oid or "").strip()
    if oid in TEST_OIDS and test_ins != "accept":
        return Identity("test", notes=("test_ins",))
    if ins is None or "ins" in unreadable:
        return _doubtful(patient, known, "ins_unreadable")
    if ins.oid not in PRODUCTION_OIDS | TEST_OIDS:
        return _doubtful(patient, known, "ins_other_oid")
    if patient.ins_key_valid is False or not ins_is_valid(ins.value):
        return _doubtful(patient, known, "ins_bad_key")
    if unreadable:
        return _doubtful(patient, known, "trait_unreadable")
    if family_kind(patient) == "none" and patient.birth_date is None:
        # A number alone may have been copied from the neighbour's file: nothing stated vouches for it.
        return _doubtful(patient, known, "ins_without_traits")
    warnings = nir_warnings(patient)
    holders = [each for each in known if (theirs := ins_of(each)) is not None and ins.same(theirs)]
    if holders:
        return _of_holders(patient, holders, known, facility, warnings)
    return _of_nobody(patient, ins, known, facility, warnings)


def _of_holders(
    patient: Patient,
    holders: Sequence[Registration],
    known: Sequence[Registration],
    facility: str,
    warnings: tuple[str, ...],
) -> Identity:
    """A valid INS that a registered patient has: every stated trait must agree with theirs.

    More than one row only where the registry holds the number with and without its key.
    """
    compared = [compare(patient, each) for each in holders]
    if against := [trait for how in compared for trait in how.against]:
        return _doubtful(
            patient, known, *(f"other_{trait}" for trait in dict.fromkeys(against)), among=holders
        )
    others = [each for each in known if each not in holders]
    if any(local_fit(patient, each, facility) is Fit.SAME and not _may_be(patient, each) for each in others):
        return _doubtful(patient, known, "local_id_of_another", among=holders)
    notes = [*warnings]
    if any(how.place is Fit.OTHER for how in compared):
        # Communes merge and registries keep the old code: with an INS that agrees it is no contradiction.
        notes.append("other_birth_place")
    if any(local_fit(patient, each, facility) is Fit.OTHER for each in holders):
        notes.append("other_local_id")
    one = reduce(merged, holders)
    # The same person may also stand in a row without INS, and may have objected there.
    also = [each for each in others if not each.ins and compare(patient, each).is_same]
    one = replace(
        one,
        consent=strictest(one.consent, *(each.consent for each in also)),
        copies_opposed=one.copies_opposed or any(each.copies_opposed for each in also),
    )
    return Identity("qualified", one, notes=("ins_registered", *notes))


def _of_nobody(
    patient: Patient, ins: Ins, known: Sequence[Registration], facility: str, warnings: tuple[str, ...]
) -> Identity:
    """A valid INS that nobody has: qualified by itself. A namesake under another INS is another person.

    A registration without any INS may be theirs when its strict traits agree, and no second one does.
    """
    if any(local_fit(patient, each, facility) is Fit.SAME and not _may_be(patient, each) for each in known):
        return _doubtful(patient, known, "local_id_of_another")
    same = [each for each in known if compare(patient, each).could_be]
    without_ins = [each for each in same if not each.ins]
    namesakes = [each for each in same if each.ins]
    notes = ("ins_nobody", *warnings, *(("namesake_other_ins",) if namesakes else ()))
    candidates = _ins_list(namesakes)
    if ins.is_test or not has_strict_traits(patient):
        return Identity("qualified", candidates=candidates, notes=notes)
    if len(without_ins) > 1:
        return _doubtful(patient, known, "several", among=same)
    if len(without_ins) == 1 and not namesakes:
        only = without_ins[0]
        if compare(patient, only).is_same and local_fit(patient, only, facility) is not Fit.OTHER:
            return Identity("qualified", only, notes=(*notes, "registered_without_ins"))
    return Identity("qualified", candidates=candidates, notes=notes)


def _may_be(patient: Patient, known: Registration) -> bool:
    """Without an INS of its own and with no trait against: the letter's INS may simply be new to the registry."""
    return not known.ins and compare(patient, known).could_be


def _by_traits(
    patient: Patient,
    known: Sequence[Registration],
    unreadable: frozenset[str],
    test_ins: str,
    facility: str,
) -> Identity:
    """No INS: all four strict traits, of exactly one registered patient, and nobody else who could be meant."""
    if unreadable:
        return _doubtful(patient, known, "trait_unreadable")
    if family_kind(patient) == "used":
        return _doubtful(patient, known, "used_name_alone")
    if not has_strict_traits(patient):
        return _doubtful(patient, known, "incomplete_traits")
    compared = [(each, compare(patient, each)) for each in known]
    possible = [(each, how) for each, how in compared if how.could_be]
    if test_ins != "accept":
        real = [(each, how) for each, how in possible if not _is_test(each)]
        if possible and not real:
            return Identity("test", notes=("registered_as_test",))
        possible = real
    if len(possible) > 1:
        return _doubtful(patient, known, "several", among=[each for each, _ in possible])
    by_number = [each for each in known if local_fit(patient, each, facility) is Fit.SAME]
    if not possible:
        if by_number:
            return _doubtful(patient, known, "local_id_of_another", among=by_number)
        return Identity("provisional", notes=("nobody_registered",))
    only, how = possible[0]
    if not how.is_same:
        return _doubtful(patient, known, *_doubts(how), among=[only])
    if any(each is not only for each in by_number):
        return _doubtful(patient, known, "local_id_of_another", among=[only, *by_number])
    if local_fit(patient, only, facility) is Fit.OTHER:
        return _doubtful(patient, known, "other_local_id", among=[only])
    return Identity(
        "validated", only, notes=("traits_agree", *(("by_used_name",) if how.by_used_name else ()))
    )


def _doubts(how: Comparison) -> tuple[str, ...]:
    slugs = [f"other_{trait}" for trait in how.against]
    if how.place is Fit.OTHER:
        slugs.append("other_birth_place")
    return tuple(slugs) or ("registered_incompletely",)


def _is_test(known: Registration) -> bool:
    ins = ins_of(known)
    return ins is not None and ins.is_test


def _doubtful(
    patient: Patient, known: Sequence[Registration], *notes: str, among: Sequence[Registration] = ()
) -> Identity:
    """For the person who will look: those named, then everybody whom no trait rules out."""
    could_be = [each for each in known if compare(patient, each).could_be]
    return Identity("doubtful", candidates=_ins_list([*among, *could_be]), notes=notes)


def _ins_list(known: Iterable[Registration]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.ins for each in known if each.ins))[:MAX_CANDIDATES]


_TRAITS: Final = frozenset({"patient", "ins", "birth_name", "used_name", "given_names", "birth_date", "sex"})


def _unreadable_traits(notice: Notice) -> frozenset[str]:
    """What of the patient stands in the letter and could not be read: it can't agree with anything."""
    return frozenset(each.removeprefix("patient.") for each in notice.unknown) & _TRAITS


# ------------------------------------------------------------------------------------------------------ the GP


@dataclass(frozen=True, slots=True)
class _Entry:
    """All lines of one RPPS. `two_names`: they name different people."""

    professional: Professional
    two_names: bool = False


@dataclass(frozen=True, slots=True)
class _Gp:
    status: GpStatus
    professional: Professional | None = None
    mailbox: str | None = None
    source: Literal["notice", "registry", "both"] | None = None
    candidates: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def resolve(
    notice: Notice,
    registrations: Sequence[Registration],
    professionals: Sequence[Professional],
    *,
    domains: Sequence[str],
    test_ins: Literal["hold", "accept"] = "hold",
    facility: str = "",
    owners: Mapping[str, str] | None = None,
    chosen_patient: Registration | None = None,
    chosen_gp: str | None = None,
    chosen_name: Person | None = None,
) -> Resolution:
    """Patient and registered GP of a letter. Never raises on any letter, never picks between two.

    `registrations`: everything found by `asks`; `professionals`: everything found by `professional_asks`.
    `domains`: the white list as globs. `facility`: FINESS of the watched mailbox. `owners`: mail address
    → RPPS, where the address that the letter names for its GP was looked up. `chosen_patient` and
    `chosen_gp` (RPPS) are what a person decided about a held letter: they overrule the letter and the
    registry, but neither an objection, nor a GP who has left, nor the white list. `chosen_name`: the name
    they wrote beside that RPPS; where it is another's, one of the two is a slip.
    """
    who = identify(notice, registrations, test_ins=test_ins, facility=facility)
    if chosen_patient is not None:
        if _is_test(chosen_patient) and test_ins != "accept":
            who = Identity("test", notes=("test_ins", "patient_chosen"))
        else:
            sure: IdentityStatus = "qualified" if ins_is_valid(chosen_patient.ins) else "validated"
            who = Identity(sure, chosen_patient, notes=("patient_chosen",))
    directory = _by_rpps(professionals)
    if chosen_gp is not None:
        gp = _chosen(chosen_gp, who, directory, domains, notice.registered_gp, chosen_name)
    else:
        gp = _gp(notice, who, directory, domains, owners or {})
    elsewhere = _perhaps_theirs(notice.patient, registrations) if chosen_patient is None else ()
    consent, consent_notes = _consent(notice, who.registration, elsewhere)
    return Resolution(
        identity=who.status,
        gp=gp.status,
        registration=who.registration,
        professional=gp.professional if gp.status == "found" else None,
        mailbox=gp.mailbox if gp.status == "found" else None,
        gp_source=gp.source if gp.status == "found" else None,
        consent=consent,
        department=_department(notice, who.registration),
        candidates=(gp.candidates if who.status in ("qualified", "validated") else who.candidates)
        or who.candidates
        or gp.candidates,
        notes=(*who.notes, *gp.notes, *consent_notes),
    )


def _gp(
    notice: Notice,
    who: Identity,
    directory: Mapping[str, _Entry],
    domains: Sequence[str],
    owners: Mapping[str, str],
) -> _Gp:
    stated = notice.registered_gp
    certain = who.registration if who.status in ("qualified", "validated") else None
    registered = _gps_of(certain) if certain else ()
    unreadable = bool({"registered_gp", "registered_gp.rpps", "gp"} & set(notice.unknown))
    if unreadable or (stated and stated.rpps and normal_rpps(stated.rpps) is None):
        # A number that nobody can read, or two GPs in one letter: it may contradict the registry, and nobody picks.
        living = _living(registered, directory)
        found = _Gp("conflict" if living else "none", candidates=living, notes=("gp_unreadable",))
    elif stated and (rpps := normal_rpps(stated.rpps)):
        found = _named_by_rpps(stated, rpps, registered, directory, domains)
    elif stated and (centre := _centre(stated, registered, directory)):
        found = _at_centre(stated, centre, registered, directory, domains)
    elif stated and is_named(stated):
        found = _named_by_name(stated, registered, directory, domains)
    else:
        found = _from_registry(registered, directory, domains, stated, "registry")
    if found.status != "found" or found.professional is None:
        return found
    owner = owners.get(stated.mss_address.lower()) if stated and stated.mss_address else None
    if owner and owner != found.professional.rpps:
        return _Gp(
            "conflict",
            candidates=(found.professional.rpps, owner),
            notes=(*found.notes, "address_of_another"),
        )
    if not is_doctor(found.professional):
        return _Gp("conflict", candidates=(found.professional.rpps,), notes=(*found.notes, "not_a_doctor"))
    return found


def _named_by_rpps(
    stated: Person,
    rpps: str,
    registered: tuple[str, ...],
    directory: Mapping[str, _Entry],
    domains: Sequence[str],
) -> _Gp:
    """The letter names an RPPS. The registry may agree or be silent; a registered GP who has left says nothing."""
    others = tuple(each for each in registered if each != rpps)
    entry = directory.get(rpps)
    if entry is None or not entry.professional.active:
        living = _living(others, directory)
        note = "gp_unknown" if entry is None else "gp_left"
        if living:
            return _Gp("conflict", candidates=living, notes=(note,))
        return _Gp("none" if entry is None else "left", candidates=(rpps,), notes=(note,))
    candidates = (rpps, *others)
    if entry.two_names:
        return _Gp("conflict", candidates=candidates, notes=("rpps_two_names",))
    if is_named(stated) and not is_called(stated, entry.professional):
        return _Gp("conflict", candidates=candidates, notes=("rpps_other_name",))
    if rpps not in registered and any(not _has_left(each, directory) for each in registered):
        return _Gp("conflict", candidates=candidates, notes=("registry_other_gp",))
    return _with_mailbox(entry, domains, stated, "both" if rpps in registered else "notice")


def _named_by_name(
    stated: Person,
    registered: tuple[str, ...],
    directory: Mapping[str, _Entry],
    domains: Sequence[str],
) -> _Gp:
    """A name finds nobody: it can only agree with the registered GP, or contradict."""
    if not registered:
        bearers = tuple(
            rpps
            for rpps, entry in directory.items()
            if bears(stated, entry.professional.family_name, entry.professional.given_name)
        )
        return _Gp(
            "many" if len(bearers) > 1 else "none",
            candidates=bearers[:MAX_CANDIDATES],
            notes=("name_alone",),
        )
    entries = [directory.get(each) for each in registered]
    agreeing = [
        entry is None or bears(stated, entry.professional.family_name, entry.professional.given_name)
        for entry in entries
    ]
    if not any(agreeing):
        return _Gp("conflict", candidates=registered, notes=("registry_other_name",))
    if len(registered) > 1:
        return _Gp("many", candidates=registered, notes=("several_registered",))
    return _from_registry(registered, directory, domains, stated, "both")


_CENTRE_WORDS: Final = frozenset(
    [
        "centre",
        "maison",
        "cabinet",
        "pole",
        "msp",
        "clinique",
        "hopital",
        "dispensaire",
        "polyclinique",
        "scm",
        "sisa",
    ]
)


def _centre(stated: Person, registered: tuple[str, ...], directory: Mapping[str, _Entry]) -> str:
    """The organisation that a letter gives in a doctor's place, folded; "" where it gives a doctor.

    A structured document has it in its own field; a line of text has it where the name stands.
    """
    if not is_named(stated):
        return fold(stated.organisation or "")
    words = tokens(stated.name or stated.family_name or "")
    if words and words[0] in _CENTRE_WORDS and not stated.given_name:
        bearers = (directory[rpps].professional for rpps in registered if rpps in directory)
        if not any(bears(stated, each.family_name, each.given_name) for each in bearers):
            return " ".join(words)
    return ""


def _at_centre(
    stated: Person,
    centre: str,
    registered: tuple[str, ...],
    directory: Mapping[str, _Entry],
    domains: Sequence[str],
) -> _Gp:
    """A letter names a centre as the GP: no doctor is found by it, it can only agree with the registered one, or not.

    A registered GP of whose organisations the directory says nothing is neither.
    """
    if not registered:
        return _Gp("none", notes=("gp_is_a_centre",))
    known = {
        rpps: {fold(box.organisation) for box in entry.professional.mailboxes if box.organisation}
        for rpps in registered
        if (entry := directory.get(rpps))
    }
    if known and all(places and centre not in places for places in known.values()):
        return _Gp("conflict", candidates=registered, notes=("registry_other_centre",))
    at = stated if stated.organisation else replace(stated, organisation=centre)
    return _from_registry(registered, directory, domains, at, "registry")


def _from_registry(
    registered: tuple[str, ...],
    directory: Mapping[str, _Entry],
    domains: Sequence[str],
    stated: Person | None,
    source: Literal["registry", "both"],
) -> _Gp:
    if not registered:
        return _Gp("none", notes=("no_gp",))
    if len(registered) > 1:
        return _Gp("many", candidates=registered, notes=("several_registered",))
    entry = directory.get(registered[0])
    if entry is None:
        return _Gp("none", candidates=registered, notes=("registered_gp_unknown",))
    if not entry.professional.active:
        return _Gp("left", candidates=registered, notes=("registered_gp_left",))
    if entry.two_names:
        return _Gp("conflict", candidates=registered, notes=("rpps_two_names",))
    return _with_mailbox(entry, domains, stated, source)


def _chosen(
    rpps: str,
    who: Identity,
    directory: Mapping[str, _Entry],
    domains: Sequence[str],
    stated: Person | None,
    name: Person | None,
) -> _Gp:
    """The GP a person decided on: no contradiction is left, but the directory and the white list still bind."""
    number = normal_rpps(rpps)
    entry = directory.get(number) if number else None
    if number is None or entry is None:
        return _Gp("none", notes=("gp_unknown", "gp_chosen"))
    if not entry.professional.active:
        return _Gp("left", candidates=(number,), notes=("gp_left", "gp_chosen"))
    if name is not None and is_named(name) and not is_called(name, entry.professional):
        return _Gp("conflict", candidates=(number,), notes=("rpps_other_name", "gp_chosen"))
    if not is_doctor(entry.professional):
        return _Gp("conflict", candidates=(number,), notes=("not_a_doctor", "gp_chosen"))
    registered = who.registration is not None and number in _gps_of(who.registration)
    found = _with_mailbox(entry, domains, stated, "registry" if registered else "notice")
    return replace(found, notes=(*found.notes, "gp_chosen"))


def _with_mailbox(
    entry: _Entry,
    domains: Sequence[str],
    stated: Person | None,
    source: Literal["notice", "registry", "both"],
) -> _Gp:
    professional = entry.professional
    address, notes = choose_mailbox(professional, domains, stated)
    if address is None:
        return _Gp("no_mailbox", candidates=(professional.rpps,), notes=notes)
    return _Gp("found", professional, address, source, notes=notes)


_KINDS: Final = ("PER", "CAB", "ORG", "APP")


def choose_mailbox(
    professional: Professional, domains: Sequence[str], stated: Person | None = None
) -> tuple[str | None, tuple[str, ...]]:
    """One mailbox of this RPPS for a letter, and slugs that say why; (None, …) when none may be written to.

    Only active lines, only allowed domains, never a patient's box. Among those left, in this order: the
    address the letter names, when the directory gives it to this RPPS; the site the letter names; then PER
    before CAB before ORG before APP; then the alphabet, so that the same letter always goes the same way.
    A letter to one doctor belongs in the box that doctor opens: PER is theirs alone, CAB their practice's.
    ORG (a team) and APP (a machine) serve only where the directory lists nothing else under this RPPS: a
    health centre's doctors may have no other, somebody entered the line for this doctor, and holding every
    such letter would reach nobody.
    """
    active = [box for box in professional.mailboxes if box.active and box.address]
    usable = [
        box
        for box in active
        if domain_allowed(box.address, domains) and not box.address.lower().endswith("@" + CITIZENS)
    ]
    if not usable:
        return None, ("outside_domain",) if active else ("no_mailbox",)
    wanted = (stated.mss_address or "").strip().lower() if stated else ""
    site = fold(stated.organisation or "") if stated else ""

    def rank(box: Mailbox) -> tuple[bool, bool, bool, int, str]:
        kind = box.kind.upper()
        return (
            kind not in ("PER", "CAB"),
            not wanted or box.address.lower() != wanted,
            not site or fold(box.organisation) != site,
            _KINDS.index(kind) if kind in _KINDS else len(_KINDS),
            box.address.lower(),
        )

    best = min(usable, key=rank)
    notes = []
    if wanted and wanted not in {box.address.lower() for box in professional.mailboxes}:
        notes.append("address_not_in_directory")
    if best.kind.upper() not in ("PER", "CAB"):
        notes.append("shared_mailbox")
    return best.address, tuple(notes)


def own_mailboxes(found: Resolution) -> frozenset[str]:
    """Where a letter is in the GP's own hands: active personal or practice boxes, and the one that was chosen.

    An old box, or one that a whole team reads, is not: a letter sent there still has to reach the doctor.
    """
    if found.professional is None:
        return frozenset()
    own = {
        box.address
        for box in found.professional.mailboxes
        if box.active and box.kind.upper() in ("PER", "CAB")
    }
    return frozenset(each.lower() for each in (*own, found.mailbox or "") if each)


def _by_rpps(professionals: Sequence[Professional]) -> dict[str, _Entry]:
    """One entry per RPPS, also when its lines come apart; lines that name different people are kept in mind."""
    found: dict[str, _Entry] = {}
    for each in professionals:
        rpps = normal_rpps(each.rpps)
        if rpps is None:
            continue
        before = found.get(rpps)
        if before is None:
            found[rpps] = _Entry(each if each.rpps == rpps else replace(each, rpps=rpps), each.two_names)
            continue
        one = before.professional
        boxes = tuple(dict.fromkeys((*one.mailboxes, *each.mailboxes)))
        first = each if each.active and not one.active else one
        found[rpps] = _Entry(
            replace(first, rpps=rpps, mailboxes=boxes, active=one.active or each.active),
            before.two_names or each.two_names or two_people(one.family_name, each.family_name),
        )
    return found


def is_called(stated: Person, professional: Professional) -> bool:
    """Whether the name that a letter gives can be that of the professional whose RPPS it gives; no name is no lie."""
    if not is_named(stated):
        return True
    family = professional.family_name
    if not tokens(family) or bears(stated, family, professional.given_name):
        return True
    # The number tells who; the words may stand in the other order, as they do in lists all in capitals.
    if sorted(person_words(stated)) == sorted((*tokens(family), *tokens(professional.given_name))):
        return True
    # Of a compound name the letter may give one half, if the given name agrees.
    half = stated.family_name or ""
    return (
        bool(tokens(half)) and not two_people(half, family) and bears(stated, half, professional.given_name)
    )


def _has_left(rpps: str, directory: Mapping[str, _Entry]) -> bool:
    """Known, and on no active line. Who is not in the directory has not left: the file may be incomplete."""
    entry = directory.get(rpps)
    return entry is not None and not entry.professional.active


def _living(registered: Iterable[str], directory: Mapping[str, _Entry]) -> tuple[str, ...]:
    return tuple(rpps for rpps in registered if (entry := directory.get(rpps)) and entry.professional.active)


_OTHER_PROFESSIONS: Final = (
    "pharmacien", "infirmier", "sage femme", "chirurgien dentiste", "dentiste", "masseur", "kine", "pedicure",
    "orthophoniste", "orthoptiste", "opticien", "audioprothesiste", "ergotherapeute", "psychomotricien",
    "dieteticien", "manipulateur", "psychologue", "assistant", "secretaire", "technicien", "preparateur",
)  # fmt: skip
_OTHER_CODES: Final = frozenset(
    [
        "21",
        "26",
        "28",
        "31",
        "40",
        "50",
        "60",
        "69",
        "70",
        "71",
        "72",
        "73",
        "80",
        "81",
        "82",
        "83",
        "84",
        "85",
        "86",
        "91",
        "92",
        "93",
        "94",
        "95",
        "96",
        "98",
    ]
)
"""Annuaire Santé, TRE_G15-ProfessionSante: 10 is the doctor."""


def is_doctor(professional: Professional) -> bool:
    """False only where the directory clearly says another profession: a pharmacist's RPPS is no GP's."""
    word = fold(professional.profession)
    return word not in _OTHER_CODES and not word.startswith(_OTHER_PROFESSIONS)


# ------------------------------------------------------------------------------------- consent, department


def _perhaps_theirs(
    patient: Patient | None, registrations: Sequence[Registration]
) -> tuple[Registration, ...]:
    """Rows in which somebody with an INS may have objected, though they may not be taken for theirs.

    The same number under another OID (a provisional one, an INS written without its OID), unless a trait is against
    it; a row without any INS with the same strict traits. A namesake under another number is another person.
    """
    ins = ins_of(patient) if patient is not None else None
    if patient is None or ins is None:
        return ()
    found = []
    for each in registrations:
        theirs = ins_of(each)
        how = compare(patient, each) if theirs is None or theirs.body == ins.body else None
        if how is not None and (Fit.OTHER not in how.strict if theirs else how.is_same):
            found.append(each)
    return tuple(found)


def _consent(
    notice: Notice, registration: Registration | None, elsewhere: Sequence[Registration] = ()
) -> tuple[Literal["allowed", "opposed", "masked"], tuple[str, ...]]:
    """The strictest of document and registry. What stands there and can't be read is not taken for a yes."""
    registered = (each.consent for each in ((registration,) if registration else ()) + tuple(elsewhere))
    stated = strictest(notice.consent, *registered)
    if stated == "opposed":
        return "opposed", ()
    if stated == "masked":
        return "masked", ()
    if "consent" in notice.unknown:
        return "masked", ("consent_unreadable",)
    return "allowed", ()


def _department(notice: Notice, registration: Registration | None) -> str | None:
    stated = notice.patient.postcode if notice.patient else None
    return department_of(stated) or department_of(registration.postcode if registration else None)


def department_of(postcode: str | None) -> str | None:
    """ "45", "2A", "971": the département of a French postcode, None for anything else.

    Corsica: 200 and 201 are 2A, 202 and up 2B. Overseas takes three digits (97x, 98x).
    """
    bare = "".join((postcode or "").split())
    if len(bare) != 5 or not (bare.isascii() and bare.isdigit()) or bare.startswith(("00", "96", "99")):
        return None
    if bare.startswith("20"):
        return "2A" if bare[2] in "01" else "2B"
    return bare[:3] if bare[:2] in ("97", "98") else bare[:2]


# ------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True, slots=True)
class WardNames:
    """A ward as the configuration names it."""

    name: str
    slug: str
    unit: str = ""
    facility: str = ""


_EVENTS: Final = ("discharge", "er_visit", "admission", "transfer", "death", "birth", "other")
_DOCUMENTS: Final = ("letter", "advance_notice", "addendum", "replacement", "retraction", "other")
_FORMATS: Final = ("cda", "hprim", "hl7v2", "fhir", "pdf", "text")
_URGENCIES: Final = ("routine", "soon", "urgent")
_EXITS: Final = (
    "home",
    "hospital",
    "rehabilitation",
    "nursing_home",
    "home_hospitalisation",
    "death",
    "other",
)


def facts(
    notice: Notice,
    resolution: Resolution,
    *,
    unknown: object,
    mailbox: str,
    sender: str,
    signed: bool | None,
    arrived: datetime,
    timezone: str,
    ward_name: str = "",
    ward_slug: str = "",
    ward_unit: str = "",
    facility: str = "",
    wards: Sequence[WardNames] = (),
    addressed: bool = False,
    gp_away: bool = False,
    mentions: frozenset[str] = frozenset(),
) -> dict[str, object]:
    """What the rules match on (docs/rules.md). A key that is missing is absent; `unknown` marks what can't be read.

    `mailbox`: the adapter's name. `ward_…` and `facility`: of the mailbox that received it, as configured;
    `wards`: every configured ward, so that a mailbox or an MLLP listener that serves several is told apart
    by what the letter says. `arrived` is aware. The ward is a set: its slug and its name. No value holds
    content.
    """
    ward = WardNames(ward_name, ward_slug, ward_unit, facility) if ward_slug else None
    zone = ZoneInfo(timezone)
    # Names as `recognise` gives them: "urgency", "stay.ward", "patient.birth_date".
    unread = frozenset(
        each.rpartition(".")[2]
        for each in notice.unknown
        if each.partition(".")[0] not in ("registered_gp", "author")
    )
    found: dict[str, object] = {
        "identity": resolution.identity,
        "consent": resolution.consent,
        "gp": resolution.gp,
        "gp_away": gp_away,
        "addressed": addressed,
        "registered": resolution.registration is not None,
        "mailbox": mailbox,
        "sender": sender.strip().lower(),
        "signed": bool(signed),
        "mentions": mentions,
    }
    for name, value, values in (
        ("event", notice.event, _EVENTS),
        ("document", notice.document, _DOCUMENTS),
        ("format", notice.format, _FORMATS),
        ("urgency", notice.urgency, _URGENCIES),
        ("exit_mode", notice.stay.exit_mode if notice.stay else None, _EXITS),
    ):
        if value is not None:
            found[name] = value if value in values else unknown
        if name in unread:
            found[name] = unknown
    if "urgency" not in found:
        # Nothing said is routine only where something was read.
        found["urgency"] = "routine" if notice.format else unknown
    if "consent_unreadable" in resolution.notes:
        found["consent"] = unknown
    _put(found, "code", notice.code, unknown if "code" in unread else None)
    _put(found, "gp_source", resolution.gp_source)
    _put(found, "department", resolution.department, unknown if unread & {"postcode", "department"} else None)
    _put(found, "cpts", resolution.professional.cpts if resolution.professional else None)
    _place(found, notice, ward, wards, facility, unread, unknown)
    _times(found, notice, zone, arrived, unread, unknown)
    return found


def _put(found: dict[str, object], name: str, value: object, otherwise: object = None) -> None:
    if value:
        found[name] = value
    elif otherwise is not None:
        found[name] = otherwise


def _place(
    found: dict[str, object],
    notice: Notice,
    ward: WardNames | None,
    wards: Sequence[WardNames],
    receiving: str,
    unread: frozenset[str],
    unknown: object,
) -> None:
    stay = notice.stay
    facility = stay.facility if stay else None
    named = _ward_of(stay.ward if stay else None, stay.unit if stay else None, ward, wards) or ward
    if named:
        found["ward"] = frozenset(part for part in (named.slug, named.name) if part)
    elif stay and stay.ward:
        found["ward"] = frozenset({stay.ward, "-".join(tokens(stay.ward))})
    elif "ward" in unread:
        found["ward"] = unknown
    _put(
        found,
        "unit",
        (stay.unit if stay else None) or (named.unit if named else None),
        unknown if "unit" in unread else None,
    )
    _put(
        found,
        "facility",
        normal_finess(facility) or facility or receiving,
        unknown if "facility" in unread else None,
    )


def _ward_of(
    name: str | None, unit: str | None, received: WardNames | None, wards: Sequence[WardNames]
) -> WardNames | None:
    """The configured ward that the letter names, by name, slug or UF; in the receiving facility first."""
    near = [each for each in wards if not received or each.facility == received.facility]
    for group in (near, wards):
        for each in group:
            if unit and each.unit and each.unit == unit:
                return each
        for each in group:
            if name and _ward_words(name) in (_ward_words(each.name), _ward_words(each.slug)):
                return each
    return None


_WARD_WORDS: Final = frozenset(
    ["service", "unite", "departement", "pole", "de", "du", "des", "d", "la", "le", "les", "l"]
)


def _ward_words(name: str) -> tuple[str, ...]:
    """« Service de Cardiologie » and « Cardiologie » are one ward."""
    words = tokens(name)
    return tuple(word for word in words if word not in _WARD_WORDS) or words


def _times(
    found: dict[str, object],
    notice: Notice,
    zone: ZoneInfo,
    arrived: datetime,
    unread: frozenset[str],
    unknown: object,
) -> None:
    """Age in full years at discharge (else at arrival); days between the two local dates; hours from discharge to arrival.

    A discharge of which only the day is known counts from the end of that day, so that a letter of the
    same day is never late; a letter that comes before is 0 hours late.
    """
    stay, patient = notice.stay, notice.patient
    left = stay.discharged.astimezone(zone) if stay and stay.discharged else None
    came = stay.admitted.astimezone(zone) if stay and stay.admitted else None
    if patient and patient.birth_date:
        found["age"] = _years(patient.birth_date, (left or arrived.astimezone(zone)).date())
    elif "birth_date" in unread:
        found["age"] = unknown
    if left and came:
        found["stay_days"] = max(0, (left.date() - came.date()).days)
    elif unread & {"discharged", "admitted"}:
        found["stay_days"] = unknown
    if left and stay:
        since = left if stay.discharged_exact else _midnight(left.date() + timedelta(days=1), zone)
        found["late_hours"] = round(max(0.0, (arrived - since.astimezone(UTC)).total_seconds() / 3600), 2)
    elif "discharged" in unread:
        found["late_hours"] = unknown


def _midnight(day: date, zone: ZoneInfo) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=zone)


def _years(born: date, at: date) -> int:
    return max(0, at.year - born.year - ((at.month, at.day) < (born.month, born.day)))


# ------------------------------------------------------------------------------------------- stay and document


@dataclass(frozen=True, slots=True)
class StayKeys:
    """The names of one stay: by its number, and by patient and day. Hashes: no number and no person in clear.

    Same stay = same facility and number; only where one side has no number, same certain patient,
    facility and discharge date (docs/threads.md). Two letters with different numbers share a `day` key and are
    still two stays: `same_stay` tells by the stay key that the thread carries.
    """

    number: str | None = None
    day: str | None = None

    @property
    def primary(self) -> str:
        """For `Thread.stay`: the number where known; "" when neither can be made."""
        return self.number or self.day or ""

    @property
    def asked(self) -> tuple[str, ...]:
        """For `Ask.stays`, and for `Plan.stay_keys`: a later letter may know the stay by either."""
        return tuple(
            key for key in (self.number, self.day, f"{self.day}.2" if self.day else None) if key is not None
        )

    def registered(self, found: Mapping[str, str], thread: str) -> tuple[str, ...]:
        """For `Plan.stay_keys` of `thread`, given what `asked` found.

        Where another thread already stands under the day (a second numbered stay on it), the day is marked
        as taken twice instead, so that a letter without a number joins neither.
        """
        if self.day and found.get(self.day, thread) != thread:
            return tuple(key for key in (self.number, f"{self.day}.2") if key is not None)
        return tuple(key for key in (self.number, self.day) if key is not None)


NUMBERED: Final = "stay-n."
BY_DAY: Final = "stay-d."


def stay_keys(
    notice: Notice,
    resolution: Resolution,
    ward_facility: str,
    timezone: str = "Europe/Paris",
    names: Mapping[str, str] | None = None,
) -> StayKeys:
    """The keys of a letter's stay. No facility, no key; the day key needs a certain patient and a discharge date.

    `names`: FINESS → name of the configured facilities. Numbers of one name are one establishment: its legal
    entity (EJ) stands in one system's messages, its site (ET) in another's.
    """
    stay = notice.stay
    facility = _one_of(_facility(notice, ward_facility), names or {})
    if stay is None or not facility:
        return StayKeys()
    number = "".join((stay.number or "").split()).upper()
    who = _certain_patient(notice, resolution)
    day = stay.discharged.astimezone(ZoneInfo(timezone)).date().isoformat() if stay.discharged else ""
    return StayKeys(
        NUMBERED + derived_id("stay", facility, number) if number else None,
        BY_DAY + derived_id("stay-day", facility, who, day) if who and day else None,
    )


def _one_of(facility: str, names: Mapping[str, str]) -> str:
    """The first FINESS that is configured under the same name as this one."""
    name = fold(names.get(facility, ""))
    return next((each for each, called in names.items() if name and fold(called) == name), facility)


def _certain_patient(notice: Notice, resolution: Resolution) -> str:
    """One string per certain patient, the same whether the letter gave the INS or only the traits."""
    if resolution.identity not in ("qualified", "validated"):
        return ""
    registration = resolution.registration
    ins = ins_of(registration) if registration else ins_of(notice.patient) if notice.patient else None
    if ins:
        return derived_id("ins", ins.oid, ins.body)
    return registration.key if registration else ""


def same_stay(keys: StayKeys, found: Mapping[str, str], stays: Mapping[str, str]) -> str | None:
    """The thread that a letter joins, or None.

    `found`: stay key → thread id, as the store answered `keys.asked`; `stays`: thread id → `Thread.stay`
    of each of those threads. A thread that carries another number is never joined; where the day is marked
    as taken twice, a letter without a number joins none of them. Whoever lets a numbered letter join a
    thread known by its day alone gives that thread `keys.primary` as its stay.
    """
    if keys.number and (thread := found.get(keys.number)):
        return thread
    if not keys.day or not (thread := found.get(keys.day)):
        return None
    if keys.number:
        return None if stays.get(thread, "").startswith(NUMBERED) else thread
    return None if f"{keys.day}.2" in found else thread


def document_keys(notice: Notice) -> tuple[str, ...]:
    """What makes a later arrival the same document: its id, and its set with its version (CDA R2 §4.2.1.7)."""
    keys = [_document_key(notice, notice.document_id)] if notice.document_id else []
    if notice.set_id and notice.version:
        keys.append("set-" + derived_id("set", *_scope(notice, notice.set_id), notice.version.strip()))
    return tuple(keys)


def replaced_keys(notice: Notice) -> tuple[str, ...]:
    """The `document_keys` of what this one replaces or retracts; either may arrive first."""
    return tuple(
        dict.fromkeys(_document_key(notice, each) for each in (notice.replaces, notice.retracts) if each)
    )


def is_counter(number: str) -> bool:
    """Neither an OID nor a UUID: some facility counts so, perhaps anew in each stay."""
    bare = number.strip()
    return len(bare) < 20 or bare.isdigit()


def _document_key(notice: Notice, number: str) -> str:
    return "doc-" + derived_id("document", *_scope(notice, number))


def _scope(notice: Notice, number: str) -> tuple[str, ...]:
    """An OID or a UUID is one document in the whole world; a short counter only for one patient of one facility."""
    bare = number.strip()
    if not is_counter(bare):
        return (bare,)
    patient = notice.patient or Patient()
    return (
        bare,
        _facility(notice, ""),
        fold(patient.birth_name or patient.used_name or ""),
        *first_given(patient.given_names)[:1],  # twins share the rest
        patient.birth_date.isoformat() if patient.birth_date else "",
    )
