"""Contract §4 sentence by sentence, then ten thousand people and two thousand doctors made to be confused."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import resolution
from relay.identity import INS_C, INS_DEMO, INS_TEST, NIA, NIR, keys_of
from relay.model import (
    FollowUp,
    LocalId,
    Mailbox,
    Notice,
    Patient,
    Person,
    Problem,
    Professional,
    Registration,
    Resolution,
    Stay,
)
from relay.resolution import WardNames, document_keys, facts, resolve, same_stay, stay_keys
from tests.population import DOMAINS, FACILITY, Population, box, doctor, gp_cases

INS = "279035121518989"
OTHER_INS = "277076322082910"

KNOWN = Registration(
    ins=INS,
    ins_oid=NIR,
    facility=FACILITY,
    local_id="42",
    birth_name="Cormerais",
    used_name="Hérelle",
    given_names=("Odette",),
    birth_date=date(1979, 3, 28),
    sex="F",
    birth_place="51215",
    gp_rpps=("10000000001",),
    consent="allowed",
    postcode="45000",
)
PATIENT = Patient(
    birth_name="CORMERAIS", given_names=("Odette",), birth_date=date(1979, 3, 28), sex="F", name_kind="birth"
)
WITH_INS = replace(PATIENT, ins=INS, ins_oid=NIR, ins_key_valid=True)
GP = Professional(
    "10000000001",
    "Ambre",
    "Lucie",
    "10",
    "SM54",
    (Mailbox("lucie.ambre@medecin.mssante.fr"),),
    "45000",
    cpts="45-A",
)
RIVAL = Professional(
    "10000000002", "Brême", "Paul", "10", "SM54", (Mailbox("paul.breme@medecin.mssante.fr"),)
)


def letter(patient: Patient | None = WITH_INS, gp: Person | None = None, **fields: Any) -> Notice:
    stay = fields.pop("stay", Stay(facility=FACILITY))
    return Notice(format="text", event="discharge", patient=patient, registered_gp=gp, stay=stay, **fields)


def resolved(
    notice: Notice,
    registrations: tuple[Registration, ...] = (KNOWN,),
    professionals: tuple[Professional, ...] = (GP, RIVAL),
    **options: Any,
) -> Resolution:
    return resolve(notice, registrations, professionals, domains=DOMAINS, **options)


def changed(patient: Patient, **fields: Any) -> Patient:
    return replace(patient, **fields)


# ----------------------------------------------------------------------------------------------- identity


def test_a_valid_ins_whose_traits_agree_with_the_registered_patient_is_qualified() -> None:
    found = resolved(letter())
    assert (found.identity, found.gp, found.gp_source) == ("qualified", "found", "registry")
    assert found.registration == KNOWN
    assert found.mailbox == "lucie.ambre@medecin.mssante.fr"


def test_an_ins_in_text_without_oid_is_taken_as_nir() -> None:
    stated = changed(WITH_INS, ins_oid=None)
    assert resolved(letter(stated)).registration == KNOWN
    assert resolved(letter(stated), (replace(KNOWN, ins_oid=NIA),)).registration is None


@pytest.mark.parametrize(
    "contradiction",
    [
        {"birth_name": "Cormerois"},
        {"given_names": ("Ondine",)},
        {"birth_date": date(1979, 3, 29)},
        {"sex": "M"},
        {"used_name": "Autrement"},
    ],
)
def test_a_valid_ins_beside_a_contradicting_trait_is_doubtful(contradiction: dict[str, Any]) -> None:
    found = resolved(letter(changed(WITH_INS, **contradiction)))
    assert (found.identity, found.gp, found.registration) == ("doubtful", "none", None)
    assert found.candidates == (INS,)


def test_a_valid_ins_needs_no_complete_traits_but_some() -> None:
    assert resolved(letter(changed(WITH_INS, birth_date=None, sex=None))).identity == "qualified"
    assert resolved(letter(Patient(ins=INS, ins_oid=NIR, ins_key_valid=True))).identity == "doubtful"


def test_a_used_name_with_a_valid_ins_is_enough_and_without_it_never() -> None:
    used = {"birth_name": None, "used_name": "HERELLE", "name_kind": "used"}
    assert resolved(letter(changed(WITH_INS, **used))).identity == "qualified"
    assert resolved(letter(changed(PATIENT, **used))).identity == "doubtful"
    assert resolved(letter(changed(PATIENT, **used)), ()).identity == "doubtful"


@pytest.mark.parametrize(
    "broken",
    [
        {"ins": "279035121518988", "ins_key_valid": False},
        {"ins": "279035121518988"},
        {"ins_key_valid": False},
        {"ins": "2790351215189", "ins_key_valid": None},
        {"ins": "27903512151", "ins_key_valid": None},
        {"ins_oid": INS_C},
        {"ins_oid": "1.2.3"},
    ],
)
def test_a_bad_key_or_oid_is_doubtful_even_with_all_traits(broken: dict[str, Any]) -> None:
    found = resolved(letter(changed(WITH_INS, **broken)))
    assert (found.identity, found.registration) == ("doubtful", None)
    assert found.candidates == (INS,)


@pytest.mark.parametrize(
    ("row", "consent"),
    [
        ({"ins_oid": NIA}, "opposed"),  # the letter's INS has no OID: taken as NIR
        (
            {"ins_oid": NIA, "birth_name": "", "used_name": "", "given_names": (), "birth_date": None},
            "opposed",
        ),
        ({"ins_oid": NIA, "birth_date": date(1979, 3, 29)}, "allowed"),  # the number is another's
        ({"ins": "", "ins_oid": "", "facility": "450000088", "local_id": "L9"}, "opposed"),
        ({"ins": OTHER_INS}, "allowed"),  # a namesake
    ],
)
def test_an_objection_counts_in_every_row_that_may_be_the_patients_even_beside_a_namesake(
    row: dict[str, Any], consent: str
) -> None:
    stated = letter(changed(WITH_INS, ins_oid=None), Person(rpps=RIVAL.rpps))
    namesake = replace(KNOWN, ins="279035121519986", consent="allowed")
    opposed = replace(KNOWN, consent="opposed", **row)
    for rows in ((opposed,), (namesake, opposed)):
        assert resolved(stated, rows).consent == consent


def test_a_valid_ins_that_nobody_has_agrees_with_itself_and_never_takes_a_namesakes_gp() -> None:
    fresh = changed(WITH_INS, ins=OTHER_INS)
    alone = resolved(letter(fresh), ())
    assert (alone.identity, alone.gp) == ("qualified", "none")
    beside = resolved(letter(fresh))
    assert (beside.identity, beside.gp, beside.registration) == ("qualified", "none", None)
    assert beside.candidates == (INS,)
    named = resolved(letter(fresh, Person(rpps=RIVAL.rpps)))
    assert (named.gp, named.gp_source, named.professional) == ("found", "notice", RIVAL)


def test_a_valid_ins_that_nobody_has_may_be_that_of_the_one_row_without_ins() -> None:
    fresh, bare = changed(WITH_INS, ins=OTHER_INS), replace(KNOWN, ins="", ins_oid="")
    assert resolved(letter(fresh), (bare,)).registration == bare
    assert resolved(letter(fresh), (bare, KNOWN)).registration is None
    twice = resolved(letter(fresh), (bare, replace(bare, local_id="43")))
    assert twice.identity == "doubtful"


@pytest.mark.parametrize("name", ["CORMERAIS", "Hérelle"])
def test_complete_traits_of_exactly_one_registered_patient_are_validated(name: str) -> None:
    stated = changed(PATIENT, birth_name=name, name_kind="unstated")
    found = resolved(letter(stated))
    assert (found.identity, found.gp, found.registration) == ("validated", "found", KNOWN)


def test_a_row_from_before_the_ins_was_known_is_no_second_candidate() -> None:
    before = replace(KNOWN, ins="", ins_oid="")
    for rows in ((before, KNOWN), (KNOWN, before)):
        found = resolved(letter(PATIENT), rows)
        assert (found.identity, found.gp, found.registration) == ("validated", "found", KNOWN)
        assert resolved(letter(), rows).identity == "qualified"
    objected = resolved(letter(PATIENT), (replace(before, consent="opposed"), KNOWN))
    assert objected.consent == "opposed"
    moved = resolved(letter(PATIENT), (replace(before, gp_rpps=(RIVAL.rpps,)), KNOWN))
    assert (moved.identity, moved.gp) == ("validated", "many"), "which of the two is the later, nobody knows"
    other: Any
    for other in (
        {"local_id": "43"}, {"local_id": ""}, {"facility": "570000018"}, {"given_names": ("Odette", "Rose"), "sex": ""},
        {"birth_date": None},
    ):  # fmt: skip
        assert resolved(letter(PATIENT), (replace(before, **other), KNOWN)).identity == "doubtful"


def test_traits_that_nobody_registered_matches_are_provisional_and_take_no_registered_gp() -> None:
    found = resolved(letter(changed(PATIENT, birth_date=date(1979, 3, 27))))
    assert (found.identity, found.gp, found.registration) == ("provisional", "none", None)
    assert resolved(letter(PATIENT, Person(rpps=GP.rpps)), ()).gp == "found"


@pytest.mark.parametrize(
    "missing",
    [{"birth_name": None}, {"given_names": ()}, {"birth_date": None}, {"sex": None}, {"sex": "U"}],
)
def test_incomplete_traits_without_ins_are_doubtful(missing: dict[str, Any]) -> None:
    stated = changed(PATIENT, **missing)
    assert resolved(letter(stated)).identity == "doubtful"
    assert resolved(letter(stated), ()).identity == "doubtful"


def test_two_registered_patients_with_the_same_traits_are_doubtful() -> None:
    twin = replace(KNOWN, ins=OTHER_INS, local_id="43", gp_rpps=("10000000002",))
    found = resolved(letter(PATIENT), (KNOWN, twin))
    assert (found.identity, found.gp) == ("doubtful", "none")
    assert set(found.candidates) == {INS, OTHER_INS}
    assert resolved(letter(), (KNOWN, twin)).registration == KNOWN


def test_a_row_that_cannot_be_ruled_out_is_a_second_candidate() -> None:
    undated = replace(KNOWN, ins="", local_id="44", birth_date=None)
    assert resolved(letter(PATIENT), (KNOWN, undated)).identity == "doubtful"
    assert resolved(letter(PATIENT), (undated,)).identity == "doubtful"


def test_another_birth_place_is_a_doubt_without_ins_and_a_note_with_it() -> None:
    doubted = resolved(letter(changed(PATIENT, birth_place="57463")))
    assert doubted.identity == "doubtful"
    assert "other_birth_place" in doubted.notes
    assert resolved(letter(changed(PATIENT, birth_place="Reims"))).identity == "validated"
    found = resolved(letter(changed(WITH_INS, birth_place="57463")))
    assert found.identity == "qualified"
    assert "other_birth_place" in found.notes


def test_a_local_id_of_another_patient_is_a_contradiction_and_of_another_facility_nothing() -> None:
    other = replace(KNOWN, ins=OTHER_INS, local_id="77", birth_name="Dumoulin", gp_rpps=("10000000002",))
    for stated in (PATIENT, WITH_INS):
        crossed = changed(stated, local_ids=(LocalId(FACILITY, "77"),))
        assert resolved(letter(crossed), (KNOWN, other)).identity == "doubtful"
        elsewhere = changed(stated, local_ids=(LocalId("570000018", "77"),))
        assert resolved(letter(elsewhere), (KNOWN, other)).registration == KNOWN
    renumbered = changed(PATIENT, local_ids=(LocalId(FACILITY, "4242"),))
    assert resolved(letter(renumbered)).identity == "doubtful"


def test_two_people_in_one_letter_are_doubtful() -> None:
    assert resolved(letter(problems=(Problem("two_patients", "…"),))).identity == "doubtful"
    assert resolved(letter(None)).identity == "doubtful"


@pytest.mark.parametrize(
    "field", ["patient.ins", "patient.birth_date", "birth_name", "patient.sex", "patient"]
)
def test_a_trait_that_stands_there_unreadable_agrees_with_nothing(field: str) -> None:
    assert resolved(letter(PATIENT, unknown=(field,))).identity == "doubtful"
    assert resolved(letter(WITH_INS, unknown=(field,))).identity == "doubtful"
    assert resolved(letter(WITH_INS, unknown=("author.phone",))).identity == "qualified"


@pytest.mark.parametrize("oid", [INS_TEST, INS_DEMO])
def test_a_test_ins_is_held_unless_accepted_and_never_meets_a_production_one(oid: str) -> None:
    fictive = replace(KNOWN, ins_oid=oid)
    stated = changed(WITH_INS, ins_oid=oid)
    assert resolved(letter(stated), (fictive,)).identity == "test"
    accepted = resolved(letter(stated), (fictive,), test_ins="accept")
    assert (accepted.identity, accepted.registration) == ("qualified", fictive)
    crossed = resolved(letter(stated), (KNOWN, replace(KNOWN, ins="")), test_ins="accept")
    assert (crossed.identity, crossed.registration, crossed.gp) == ("qualified", None, "none")
    bare = resolved(letter(stated), (replace(KNOWN, ins="", ins_oid=""),), test_ins="accept")
    assert (bare.identity, bare.registration, bare.gp) == ("qualified", None, "none")
    assert resolved(letter(), (fictive,)).registration is None


def test_a_test_patient_of_the_registry_never_stands_in_for_a_real_one() -> None:
    fictive = replace(KNOWN, ins_oid=INS_TEST)
    assert resolved(letter(PATIENT), (fictive,)).identity == "test"
    assert resolved(letter(PATIENT), (fictive, KNOWN)).registration == KNOWN
    assert resolved(letter(PATIENT), (fictive,), test_ins="accept").identity == "validated"


# ------------------------------------------------------------------------------------------------------ GP


def test_the_gp_named_by_rpps_and_the_registered_one_agree() -> None:
    found = resolved(letter(gp=Person(family_name="AMBRE", rpps="810000000001")))
    assert (found.gp, found.gp_source, found.professional) == ("found", "both", GP)


def test_the_registry_may_not_contradict_the_letter() -> None:
    found = resolved(letter(gp=Person(rpps=RIVAL.rpps)))
    assert (found.gp, found.mailbox, found.professional) == ("conflict", None, None)
    assert found.candidates == (RIVAL.rpps, GP.rpps)


def test_a_registered_gp_missing_from_the_directory_still_contradicts() -> None:
    assert resolved(letter(gp=Person(rpps=RIVAL.rpps)), professionals=(RIVAL,)).gp == "conflict"
    assert (
        resolved(letter(gp=Person(rpps=RIVAL.rpps)), professionals=(RIVAL, replace(GP, active=False))).gp
        == "found"
    )


def test_a_gp_named_without_rpps_finds_nobody_by_name_alone() -> None:
    nobody = replace(KNOWN, gp_rpps=())
    named = letter(gp=Person(name="Dr Lucie AMBRE"))
    assert resolved(named, (nobody,)).gp == "none"
    namesake = replace(GP, rpps="10000000009")
    found = resolved(named, (nobody,), (GP, namesake))
    assert (found.gp, set(found.candidates)) == ("many", {GP.rpps, namesake.rpps})
    assert resolved(named, (replace(KNOWN, gp_rpps=(GP.rpps, RIVAL.rpps)),)).gp == "many"


def test_a_gp_named_without_rpps_beside_the_registered_one_agrees_or_is_a_conflict() -> None:
    assert resolved(letter(gp=Person(name="Dr AMBRE"))).gp_source == "both"
    for name in ("Dr Paul BRÊME", "Dr Ambre-Durand", "Dr Hugo AMBRE"):
        assert resolved(letter(gp=Person(name=name))).gp == "conflict", name


def test_an_rpps_unknown_or_inactive_is_a_conflict_beside_a_living_registered_gp_only() -> None:
    stranger, gone = Person(rpps="10000000077"), replace(RIVAL, active=False)
    nobody = (replace(KNOWN, gp_rpps=()),)
    assert resolved(letter(gp=stranger)).gp == "conflict"
    assert resolved(letter(gp=stranger), nobody).gp == "none"
    assert resolved(letter(gp=Person(rpps=RIVAL.rpps)), professionals=(GP, gone)).gp == "conflict"
    assert resolved(letter(gp=Person(rpps=RIVAL.rpps)), nobody, (GP, gone)).gp == "left"
    both_gone = (replace(GP, active=False), gone)
    assert resolved(letter(gp=Person(rpps=RIVAL.rpps)), professionals=both_gone).gp == "left"


def test_an_unreadable_rpps_is_never_passed_over() -> None:
    assert resolved(letter(gp=Person(family_name="AMBRE"), unknown=("registered_gp.rpps",))).gp == "conflict"
    assert resolved(letter(gp=None, unknown=("registered_gp",))).gp == "conflict"


def test_no_gp_in_letter_and_registry_is_none_and_several_registered_are_many() -> None:
    assert resolved(letter(), (replace(KNOWN, gp_rpps=()),)).gp == "none"
    assert resolved(letter(), (replace(KNOWN, gp_rpps=(GP.rpps, RIVAL.rpps)),)).gp == "many"
    two_lines = (KNOWN, replace(KNOWN, gp_rpps=(RIVAL.rpps,)))
    assert resolved(letter(), two_lines).gp == "many"


def test_the_registered_gp_may_have_left_or_be_unknown() -> None:
    assert resolved(letter(), professionals=(replace(GP, active=False),)).gp == "left"
    assert resolved(letter(), professionals=(RIVAL,)).gp == "none"


def test_a_doubtful_patient_never_takes_the_registered_gp() -> None:
    assert resolved(letter(changed(PATIENT, sex=None))).gp == "none"


def test_one_rpps_with_two_names_is_a_conflict() -> None:
    assert resolved(letter(gp=Person(family_name="DURAND", rpps=GP.rpps))).gp == "conflict"
    assert (
        resolved(letter(gp=Person(family_name="AMBRE", given_name="Jacques", rpps=GP.rpps))).gp == "conflict"
    )
    assert resolved(letter(), professionals=(GP, replace(GP, family_name="Durand"))).gp == "conflict"
    married = replace(GP, family_name="Ambre-Durand")
    assert resolved(letter(), professionals=(GP, married)).gp == "found"


def test_another_profession_is_no_gp() -> None:
    for profession in ("21", "Pharmacien", "Infirmière"):
        assert resolved(letter(), professionals=(replace(GP, profession=profession),)).gp == "conflict"
    for profession in ("", "10", "Médecin", "Médecin généraliste"):
        assert resolved(letter(), professionals=(replace(GP, profession=profession),)).gp == "found"


# -------------------------------------------------------------------------------------------- the mailbox


def boxes(*made: Mailbox) -> tuple[Professional, ...]:
    return (replace(GP, mailboxes=made),)


def test_no_allowed_active_mailbox_is_no_mailbox() -> None:
    for made in (
        (),
        (Mailbox("a@medecin.mssante.fr", active=False),),
        (Mailbox("a@orange.example"),),
        (Mailbox("279035121518989@patient.mssante.fr"),),
        (Mailbox("a@b@medecin.mssante.fr"),),
    ):
        found = resolved(letter(), professionals=boxes(*made))
        assert (found.gp, found.mailbox) == ("no_mailbox", None)
    assert "outside_domain" in resolved(letter(), professionals=boxes(Mailbox("a@orange.example"))).notes


def test_the_personal_mailbox_comes_before_the_practices_and_a_shared_one_last() -> None:
    every = [Mailbox(f"{kind.lower()}@x.mssante.fr", kind) for kind in ("APP", "ORG", "CAB", "PER")]
    while every:
        assert resolved(letter(), professionals=boxes(*every)).mailbox == every[-1].address
        every.pop()


def test_the_site_the_letter_names_decides_between_a_doctors_own_mailboxes() -> None:
    made = boxes(
        Mailbox("a@x.mssante.fr", "PER", "Clinique du Parc"),
        Mailbox("b@x.mssante.fr", "CAB", "Cabinet de l'Église"),
        Mailbox("c@x.mssante.fr", "ORG", "Maison de santé"),
    )
    site = Person(family_name="Ambre", organisation="CABINET DE L’EGLISE")
    assert resolved(letter(gp=site), professionals=made).mailbox == "b@x.mssante.fr"
    shared = replace(site, organisation="Maison de santé")
    assert resolved(letter(gp=shared), professionals=made).mailbox == "a@x.mssante.fr"


def test_the_address_in_the_letter_counts_only_if_the_directory_gives_it_to_that_rpps() -> None:
    made = boxes(Mailbox("a@x.mssante.fr"), Mailbox("b@x.mssante.fr", "CAB"))
    own = Person(rpps=GP.rpps, mss_address="B@x.mssante.fr")
    assert resolved(letter(gp=own), professionals=made).mailbox == "b@x.mssante.fr"
    strange = replace(own, mss_address="c@x.mssante.fr")
    found = resolved(letter(gp=strange), professionals=made)
    assert found.mailbox == "a@x.mssante.fr"
    assert "address_not_in_directory" in found.notes
    taken = resolved(letter(gp=strange), professionals=made, owners={"c@x.mssante.fr": RIVAL.rpps})
    assert (taken.gp, taken.mailbox) == ("conflict", None)


def test_the_choice_of_a_mailbox_does_not_depend_on_the_order_of_lines() -> None:
    made = (Mailbox("b@x.mssante.fr"), Mailbox("a@x.mssante.fr"))
    assert {resolved(letter(), professionals=boxes(*each)).mailbox for each in (made, made[::-1])} == {
        "a@x.mssante.fr"
    }


# ------------------------------------------------------------------------------------- consent, department


@pytest.mark.parametrize(
    ("document", "registry", "strictest"),
    [
        (None, "", "allowed"),
        ("allowed", "opposed", "opposed"),
        ("opposed", "allowed", "opposed"),
        ("masked", "allowed", "masked"),
        ("masked", "opposed", "opposed"),
        (None, "allowed", "allowed"),
        ("peut-être", "", "opposed"),
    ],
)
def test_consent_is_the_strictest_of_document_and_registry(
    document: str | None, registry: str, strictest: str
) -> None:
    found = resolved(letter(consent=document), (replace(KNOWN, consent=registry),))
    assert found.consent == strictest


def test_an_objection_in_another_row_of_the_same_person_counts() -> None:
    elsewhere = replace(KNOWN, ins="", ins_oid="", facility="570000018", local_id="9", consent="opposed")
    assert resolved(letter(), (KNOWN, elsewhere)).consent == "opposed"
    assert resolved(letter(), (KNOWN, replace(elsewhere, birth_name="Dumoulin"))).consent == "allowed"


def test_a_consent_that_cannot_be_read_is_no_consent() -> None:
    found = resolved(letter(unknown=("consent",)))
    assert found.consent == "masked"


@pytest.mark.parametrize(
    ("postcode", "department"),
    [
        ("45000", "45"), ("01000", "01"), ("20000", "2A"), ("20137", "2A"), ("20200", "2B"), ("20620", "2B"),
        ("97100", "971"), ("97400", "974"), ("98800", "988"), ("45 000", "45"), ("4500", None), ("L-1009", None),
        ("00000", None), ("99352", None), ("", None), (None, None),
    ],
)  # fmt: skip
def test_a_postcode_tells_the_department(postcode: str | None, department: str | None) -> None:
    assert resolution.department_of(postcode) == department


def test_the_address_in_the_document_comes_before_the_registrys() -> None:
    assert resolved(letter()).department == "45"
    assert resolved(letter(changed(WITH_INS, postcode="57000"))).department == "57"
    assert resolved(letter(changed(PATIENT, sex=None))).department is None


# -------------------------------------------------------------------------------------- a person's decision


def test_a_persons_choice_overrules_letter_and_registry_but_no_floor() -> None:
    unclear = letter(changed(PATIENT, sex=None), Person(name="Dr Inconnu"))
    found = resolved(unclear, chosen_patient=KNOWN, chosen_gp=RIVAL.rpps)
    assert (found.identity, found.gp, found.professional) == ("qualified", "found", RIVAL)
    assert resolved(letter(), chosen_gp=GP.rpps).gp_source == "registry"
    opposed = replace(KNOWN, consent="opposed")
    assert resolved(unclear, chosen_patient=opposed, chosen_gp=RIVAL.rpps).consent == "opposed"
    gone = (GP, replace(RIVAL, active=False))
    assert resolved(unclear, professionals=gone, chosen_patient=KNOWN, chosen_gp=RIVAL.rpps).gp == "left"
    outside = (replace(RIVAL, mailboxes=(Mailbox("a@orange.example"),)),)
    assert (
        resolved(unclear, professionals=outside, chosen_patient=KNOWN, chosen_gp=RIVAL.rpps).gp
        == "no_mailbox"
    )
    assert resolved(unclear, chosen_patient=KNOWN, chosen_gp="12").gp == "none"
    assert resolved(unclear, chosen_patient=replace(KNOWN, ins_oid=INS_TEST)).identity == "test"


# ------------------------------------------------------------------------------------------ what is asked


def test_what_is_asked_finds_the_registered_gp_and_names_only_where_they_matter() -> None:
    rpps, names = resolution.professional_asks(letter(gp=Person(name="Dr Lucie AMBRE")), (KNOWN,))
    assert (rpps, names) == (("10000000001",), ())
    rpps, names = resolution.professional_asks(letter(gp=Person(name="Dr Lucie AMBRE")), ())
    assert rpps == ()
    assert "ambre" in names
    assert resolution.professional_asks(letter(gp=Person(rpps="810000000002")), ()) == (("10000000002",), ())
    assert set(keys_of(KNOWN)) & set(resolution.asks(letter(), FACILITY))
    assert resolution.asks(letter(None)) == ()


# ----------------------------------------------------------------------------------------------------- facts

UNKNOWN = object()
ARRIVED = datetime(2026, 12, 6, 9, 0, tzinfo=UTC)
CARDIO = WardNames("Cardiologie", "cardiologie", "3021", FACILITY)
ELDER = WardNames("Gériatrie aiguë", "geriatrie", "3044", FACILITY)


def facts_of(notice: Notice, found: Resolution | None = None, **options: Any) -> dict[str, object]:
    given: dict[str, Any] = {
        "unknown": UNKNOWN,
        "mailbox": "cardio",
        "sender": "Ward@CHR.mssante.fr",
        "signed": None,
        "arrived": ARRIVED,
        "timezone": "Europe/Paris",
        "ward_name": "Cardiologie",
        "ward_slug": "cardiologie",
        "ward_unit": "3021",
        "facility": FACILITY,
        "wards": (CARDIO, ELDER),
        **options,
    }
    return facts(notice, found or resolved(notice), **given)


def test_every_fact_has_the_name_and_value_that_rules_match_on() -> None:
    stay = Stay(
        admitted=datetime(2026, 11, 29, 23, 30, tzinfo=UTC),
        discharged=datetime(2026, 12, 4, 16, 0, tzinfo=UTC),
        discharged_exact=True,
        facility="1450000088",
        exit_mode="home",
    )
    notice = letter(
        document="letter", code="11490-0", urgency="urgent", stay=stay, follow_up=(FollowUp("…"),)
    )
    assert facts_of(notice, mentions=frozenset({"avk"}), addressed=True, gp_away=True, signed=True) == {
        "event": "discharge",
        "document": "letter",
        "format": "text",
        "code": "11490-0",
        "urgency": "urgent",
        "identity": "qualified",
        "consent": "allowed",
        "gp": "found",
        "gp_source": "registry",
        "gp_away": True,
        "addressed": True,
        "registered": True,
        "mailbox": "cardio",
        "sender": "ward@chr.mssante.fr",
        "signed": True,
        "facility": FACILITY,
        "ward": frozenset({"cardiologie", "Cardiologie"}),
        "unit": "3021",
        "exit_mode": "home",
        "age": 47,
        "stay_days": 4,  # 30 November to 4 December in Paris
        "late_hours": 41.0,
        "department": "45",
        "cpts": "45-A",
        "mentions": frozenset({"avk"}),
    }


def test_what_the_letter_does_not_say_is_absent_and_urgency_then_routine() -> None:
    found = facts_of(letter(changed(PATIENT, birth_date=None), stay=None))
    assert found["urgency"] == "routine"
    assert found["consent"] == "allowed"
    assert found["signed"] is False
    for absent in (
        "document",
        "code",
        "exit_mode",
        "age",
        "stay_days",
        "late_hours",
        "department",
        "cpts",
        "gp_source",
    ):
        assert absent not in found
    assert facts_of(replace(letter(), format=None))["urgency"] is UNKNOWN


@pytest.mark.parametrize(
    ("field", "fact"),
    [
        ("urgency", "urgency"), ("event", "event"), ("document", "document"), ("code", "code"), ("consent", "consent"),
        ("stay.exit_mode", "exit_mode"), ("stay.discharged", "late_hours"), ("stay.discharged", "stay_days"),
        ("stay.admitted", "stay_days"), ("patient.birth_date", "age"),
    ],
)  # fmt: skip
def test_what_stands_there_and_cannot_be_read_is_unknown(field: str, fact: str) -> None:
    notice = letter(changed(PATIENT, birth_date=None), unknown=(field,))
    assert facts_of(notice)[fact] is UNKNOWN


def test_an_objection_is_sure_even_beside_an_unreadable_consent() -> None:
    notice = letter(unknown=("consent",))
    assert facts_of(notice, resolved(notice, (replace(KNOWN, consent="opposed"),)))["consent"] == "opposed"


def test_a_value_outside_the_closed_list_is_unknown() -> None:
    assert facts_of(letter(urgency="très urgent"))["urgency"] is UNKNOWN


def test_the_ward_is_the_mailboxs_unless_the_letter_names_another_configured_one() -> None:
    assert facts_of(letter(stay=Stay(ward="GERIATRIE AIGUE")))["ward"] == {"geriatrie", "Gériatrie aiguë"}
    assert facts_of(letter(stay=Stay(ward="Service de gériatrie")))["ward"] == {
        "geriatrie",
        "Gériatrie aiguë",
    }
    assert facts_of(letter(stay=Stay(unit="3044")))["ward"] == {"geriatrie", "Gériatrie aiguë"}
    assert facts_of(letter(stay=Stay(ward="Inconnu")))["ward"] == {"cardiologie", "Cardiologie"}
    bare = facts_of(letter(stay=Stay(ward="Médecine B")), ward_slug="", wards=())
    assert bare["ward"] == {"Médecine B", "medecine-b"}


def test_a_discharge_of_which_only_the_day_is_known_is_not_late_on_that_day() -> None:
    day = Stay(discharged=datetime(2026, 12, 5, 23, 0, tzinfo=UTC))  # the 6th in Paris
    assert facts_of(letter(stay=day))["late_hours"] == 0
    before = Stay(discharged=datetime(2026, 12, 3, 23, 0, tzinfo=UTC))  # the 4th: ends the 4th at 23:00 UTC
    assert facts_of(letter(stay=before))["late_hours"] == 34
    coming = Stay(discharged=datetime(2026, 12, 8, 9, 0, tzinfo=UTC), discharged_exact=True)
    assert facts_of(letter(stay=coming))["late_hours"] == 0


def test_age_counts_full_years() -> None:
    for day, age in ((27, 46), (28, 47)):
        stay = Stay(discharged=datetime(2026, 3, day, 12, tzinfo=UTC), discharged_exact=True)
        assert facts_of(letter(stay=stay))["age"] == age


# ---------------------------------------------------------------------------------------------------- stays


class Threads:
    """The store's answer, in little: which thread stands under which stay key."""

    def __init__(self) -> None:
        self.keys: dict[str, str] = {}
        self.stays: dict[str, str] = {}

    def arrive(
        self, number: str | None, patient: Patient = WITH_INS, day: int = 4, facility: str = FACILITY
    ) -> str:
        stay = Stay(number=number, discharged=datetime(2026, 12, day, 15, tzinfo=UTC), facility=facility)
        notice = letter(patient, stay=stay)
        keys = stay_keys(notice, resolved(notice), "")
        found = {key: self.keys[key] for key in keys.asked if key in self.keys}
        thread = same_stay(keys, found, self.stays)
        if thread is None:
            thread = f"T{len(self.stays) + 1}"
            self.stays[thread] = keys.primary
        elif keys.number:
            self.stays[thread] = keys.primary
        for key in keys.registered(found, thread):
            self.keys.setdefault(key, thread)
        return thread


def test_the_same_stay_is_the_same_facility_and_number() -> None:
    threads = Threads()
    assert threads.arrive("S 1") == "T1"
    assert threads.arrive("s1", changed(PATIENT, sex=None), day=9) == "T1"
    assert threads.arrive("S1", facility="570000018") == "T2"


def test_where_one_side_has_no_number_patient_facility_and_day_decide() -> None:
    threads = Threads()
    assert threads.arrive(None) == "T1"
    assert threads.arrive("S1") == "T1"
    assert threads.arrive(None, PATIENT) == "T1"
    assert threads.arrive(None, day=5) == "T2"
    assert threads.arrive(None, changed(PATIENT, sex=None)) == "T3"
    assert threads.arrive(None, changed(PATIENT, sex=None)) == "T4"


def test_different_numbers_are_different_stays_even_of_one_patient_on_one_day() -> None:
    threads = Threads()
    assert threads.arrive("S1") == "T1"
    assert threads.arrive("S2") == "T2"
    assert threads.arrive("S1") == "T1"
    assert threads.arrive(None) == "T3"  # either could be meant
    late = Threads()
    assert late.arrive(None) == "T1"
    assert late.arrive("S1") == "T1"
    assert late.arrive("S2") == "T2"


def test_a_stay_of_no_facility_has_no_key() -> None:
    notice = letter(stay=Stay(number="S1"))
    assert stay_keys(notice, resolved(notice), "").primary == ""
    assert stay_keys(notice, resolved(notice), FACILITY).number
    assert "S1" not in stay_keys(notice, resolved(notice), FACILITY).primary


def test_a_document_is_known_again_by_its_id_and_by_its_set_and_version() -> None:
    one = letter(document_id="1.2.250.1.999.1.1^ABC-1", set_id="1.2.250.1.999.1.2^SET", version="1")
    again = replace(one, document_id="1.2.250.1.999.1.1^ABC-2")
    newer = replace(one, document_id="1.2.250.1.999.1.1^ABC-3", version="2", replaces=one.document_id)
    assert set(document_keys(one)) & set(document_keys(again))
    assert not set(document_keys(one)) & set(document_keys(newer))
    assert set(resolution.replaced_keys(newer)) <= set(document_keys(one))
    assert document_keys(letter()) == ()


def test_a_short_document_number_is_one_document_only_for_one_patient() -> None:
    one = letter(document_id="17")
    other = letter(changed(WITH_INS, birth_name="Dumoulin"), document_id="17")
    assert document_keys(one) == document_keys(letter(document_id="17"))
    assert not set(document_keys(one)) & set(document_keys(other))
    twin = letter(changed(WITH_INS, given_names=("Lucette",)), document_id="17")
    assert not set(document_keys(one)) & set(document_keys(twin))


# ------------------------------------------------------------------------------------------ hostile letters

words = st.one_of(
    st.none(), st.text(max_size=40), st.sampled_from(["Cormerais", "AMBRE", INS, GP.rpps, NIR, INS_TEST])
)
patients = st.builds(
    Patient,
    ins=words,
    ins_oid=words,
    ins_key_valid=st.sampled_from([None, True, False]),
    birth_name=words,
    used_name=words,
    given_names=st.lists(st.text(max_size=20), max_size=3).map(tuple),
    birth_date=st.sampled_from([None, date(1979, 3, 28), date.min, date.max]),
    local_ids=st.lists(st.builds(LocalId, st.text(max_size=12), st.text(max_size=12)), max_size=2).map(tuple),
    postcode=words,
    name_kind=st.sampled_from(["birth", "used", "unstated"]),
    order_unsure=st.booleans(),
)
people = st.builds(Person, name=words, family_name=words, given_name=words, rpps=words, mss_address=words)


@given(patients, st.none() | people, words, st.lists(st.text(max_size=20), max_size=2).map(tuple))
def test_no_letter_breaks_resolving_and_none_finds_a_gp_out_of_nothing(
    stated: Patient, gp: Person | None, said: str | None, unknown: tuple[str, ...]
) -> None:
    notice = letter(
        stated, gp, consent=said, urgency=said, unknown=unknown, stay=Stay(facility=said, number=said)
    )
    resolution.asks(notice, FACILITY)
    resolution.professional_asks(notice, (KNOWN,))
    found = resolved(notice)
    facts_of(notice, found)
    document_keys(notice)
    assert stay_keys(notice, found, FACILITY).number or not "".join((said or "").split())
    if found.registration is not None:
        assert found.identity in ("qualified", "validated")
    if found.gp == "found":
        named = gp is not None and resolution.normal_rpps(gp.rpps) == GP.rpps
        assert named or found.registration is not None


# --------------------------------------------------------------------------------------------- populations


def test_among_ten_thousand_people_nobody_is_taken_for_another_and_no_doubt_is_decided() -> None:
    began = time.process_time()
    people = Population(10_000, 2_000)
    assert len(people.rows) >= 10_000
    assert people.collided >= 2_000
    index: dict[str, list[int]] = defaultdict(list)
    for number, row in enumerate(people.rows):
        for key in keys_of(row):
            index[key].append(number)
    clear = automatic = 0
    wrong: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    seen: Counter[str] = Counter()
    for case in people.cases:
        near = {number for key in resolution.asks(case.notice, FACILITY) for number in index.get(key, ())}
        found = resolve(
            case.notice,
            [people.rows[number] for number in sorted(near)],
            (),
            domains=DOMAINS,
            facility=FACILITY,
        )
        sure = found.identity in ("qualified", "validated")
        truth = people.rows[case.truth] if case.truth is not None else None
        if found.registration is not None and (truth is None or found.registration.key != truth.key):
            wrong[case.scenario] += 1
        if case.kind == "doubt" and sure:
            decided[case.scenario] += 1
        if case.kind == "clear":
            clear += 1
            automatic += sure and found.registration is not None
        seen[case.kind] += 1
    assert not wrong
    assert not decided
    assert automatic / clear >= 0.98
    assert seen["doubt"] >= 2_000
    assert clear >= 8_000
    assert time.process_time() - began < 15


def test_in_two_thousand_gp_cases_no_letter_goes_to_a_wrong_doctor() -> None:
    scenarios = Counter[str]()
    for case in gp_cases(2_000):
        rpps, names = resolution.professional_asks(case.notice, (case.row,))
        given = resolved(case.notice, (case.row,), case.professionals)
        assert (given.gp, given.professional and given.professional.rpps) == (case.gp, case.rpps), (
            case.scenario
        )
        assert (given.mailbox is None) == (case.rpps is None)
        if given.professional:
            assert given.mailbox in {each.address for each in given.professional.mailboxes if each.active}
            assert given.professional.rpps in rpps or names
        scenarios[case.scenario] += 1
    assert len(scenarios) >= 25


def test_the_directory_asked_as_told_gives_the_same_answer_as_the_whole_directory() -> None:
    for case in gp_cases(120, seed=9):
        rpps, names = resolution.professional_asks(case.notice, (case.row,))
        asked = tuple(
            each
            for each in case.professionals
            if each.rpps in rpps or resolution.fold(each.family_name) in names
        )
        whole, part = (resolved(case.notice, (case.row,), each) for each in (case.professionals, asked))
        assert (whole.gp, whole.mailbox) == (part.gp, part.mailbox), case.scenario


def test_a_directory_that_changed_between_decision_and_sending_is_seen_when_asked_again() -> None:
    mine = doctor(1, "Ambre", "Lucie", box(1))
    row = replace(KNOWN, gp_rpps=(mine.rpps,))
    assert resolved(letter(), (row,), (mine,)).gp == "found"
    assert resolved(letter(), (row,), (replace(mine, active=False),)).gp == "left"
    assert resolved(letter(), (row,), (replace(mine, mailboxes=()),)).gp == "no_mailbox"
