"""Numbers, folded names and people compared, as the contract's paragraph on comparing people says."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay import identity
from relay.identity import INS_TEST, NIA, NIR, Fit, Ins, compare, compare_given, fold
from relay.model import LocalId, Patient, Person, Registration
from tests.campaign import many
from tests.population import Population

NAMES = Path(__file__).parents[2] / "shared" / "samples" / "torture" / "names-fr-faker"

KNOWN = Registration(
    ins="248034523400723",
    ins_oid=NIR,
    facility="450000088",
    local_id="900012345",
    birth_name="Cormerais",
    used_name="Le Goff",
    given_names=("Marie-Odette", "Louise"),
    birth_date=date(1948, 3, 17),
    sex="F",
    birth_place="45234",
)
STATED = Patient(
    birth_name="CORMERAIS",
    given_names=("Marie-Odette", "Louise"),
    birth_date=date(1948, 3, 17),
    sex="F",
    name_kind="birth",
)

# ---------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    "ins", ["279035121518989", "277076322082910", "188102B17295264", "1 88 10 2b 172 952 64"]
)
def test_the_key_of_a_nir_is_checked_with_corsica_in_it(ins: str) -> None:
    assert identity.ins_is_valid(ins)


@pytest.mark.parametrize(
    "ins", ["223042545611404", "146026322000197", "279035121518988", "2790351215189", "188102C17295264", "", "٢79035121518989"]
)  # fmt: skip
def test_a_wrong_or_missing_key_is_never_valid(ins: str) -> None:
    assert not identity.ins_is_valid(ins)


@given(st.text("0123456789", min_size=13, max_size=13), st.integers(0, 14), st.sampled_from("0123456789"))
def test_one_wrong_digit_breaks_the_key(body: str, place: int, digit: str) -> None:
    ins = body + identity.ins_key(body)
    assert identity.ins_is_valid(ins)
    wrong = ins[:place] + digit + ins[place + 1 :]
    assert identity.ins_is_valid(wrong) == (wrong == ins)


def test_an_ins_is_a_pair_of_oid_and_value() -> None:
    nir = Ins(NIR, "279035121518989")
    assert nir.same(Ins(NIR, "2790351215189"))
    assert not nir.same(Ins(NIA, "279035121518989"))
    assert not nir.same(Ins(INS_TEST, "279035121518989"))
    assert not nir.same(Ins(NIR, "279035121518988"))
    assert identity.ins_of(Patient(ins="279035121518989")) == nir


@pytest.mark.parametrize("text", ["810000023084", "10000023084", "10 000 023 084", "8 10000023084"])
def test_an_rpps_loses_its_leading_8_and_its_spaces(text: str) -> None:
    assert identity.normal_rpps(text) == "10000023084"


@pytest.mark.parametrize(
    "text", ["", None, "0451234567", "910000023084", "1000002308", "1000002308A", "١0000023084"]
)
def test_what_is_no_rpps_is_none(text: str | None) -> None:
    assert identity.normal_rpps(text) is None


def test_luhn_is_known_for_rpps_and_finess_and_refuses_nothing() -> None:
    assert identity.passes_luhn("10000023084")
    assert identity.passes_luhn("750803447")
    assert not identity.passes_luhn("01984758437")
    assert identity.normal_rpps("01984758437") == "01984758437"
    assert identity.normal_finess("1750803447") == "750803447"
    assert identity.normal_finess("2A0000014") == "2A0000014"
    assert identity.normal_finess("CHR") is None


# ------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Éloïse", "ELOISE"),
        ("Lætitia Bœuf", "laetitia boeuf"),
        ("D'Aubigné", "d aubigne"),
        ("D’AUBIGNÉ", "D'Aubigne"),
        ("Jean-Pierre", "JEAN PIERRE"),
        ("Jean‑Pierre", "Jean Pierre"),
        ("İSMAİL", "ismail"),
        ("ISMAIL", "ısmaıl"),
        ("Müller\u200b", "MULLER"),
        ("Mar\u00adtin", "Martin"),
        ("\u202eMartin\u202c", "Martin"),
        ("Straße", "STRASSE"),
        ("Łukasz Ødegård", "lukasz odegard"),
        ("o\ufb03cier", "officier"),
        ("  De  La\u00a0Tour ", "de la tour"),
    ],
)
def test_folding_makes_spellings_of_one_name_equal(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Мartin", "Martin"),  # Cyrillic М
        ("Ρaul", "Paul"),  # Greek Ρ
        ("Ｍartin", "Martin"),  # full width
        ("𝐌artin", "Martin"),  # mathematical
        ("ᴍartin", "Martin"),  # small capital
        ("Le Goff", "Goff"),
        ("Delatour", "De la Tour"),
        ("Muller", "Mueller"),
        ("", "Martin"),
    ],
)
def test_folding_never_makes_a_look_alike_or_another_name_equal(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@given(st.text(max_size=60))
def test_folding_is_stable_and_the_same_for_composed_and_decomposed_text(text: str) -> None:
    folded = fold(text)
    assert fold(folded) == folded
    assert fold(unicodedata.normalize("NFD", text)) == fold(unicodedata.normalize("NFC", text))
    assert folded == folded.strip()


@pytest.mark.skipif(not NAMES.is_dir(), reason="the shared French names are not here")
def test_real_french_names_fold_to_plain_letters_and_stay_apart() -> None:
    lines = [
        line for file in NAMES.glob("*_names*.txt") for line in file.read_text("utf-8").splitlines() if line
    ]
    assert len(lines) > 300
    for name in lines:
        assert fold(name).replace(" ", "").isascii(), name
        assert fold(name) == fold(unicodedata.normalize("NFD", name).upper()), name


# ------------------------------------------------------------------------------------------- given names


@pytest.mark.parametrize(
    ("stated", "known", "fit"),
    [
        (["Jean", "Pierre"], ["Jean-Pierre"], Fit.SAME),
        (["Jean-Pierre"], ["Jean", "Pierre"], Fit.SAME),
        (["JEAN PIERRE"], ["Jean-Pierre", "Marie"], Fit.SAME),
        (["Jean", "Pierre"], ["Jean"], Fit.SAME),
        (["Jean"], ["Jean", "Pierre", "Marie"], Fit.SAME),
        (["Jean", "Marie", "Paul"], ["Jean", "Paul"], Fit.SAME),
        (["Jean"], ["Jean-Pierre"], Fit.OTHER),
        (["Jean-Pierre"], ["Jean"], Fit.OTHER),
        (["Pierre", "Jean"], ["Jean", "Pierre"], Fit.OTHER),
        (["Jean", "Paul"], ["Jean", "Pierre"], Fit.UNSURE),
        (["J."], ["Jean"], Fit.SILENT),
        (["P."], ["Jean"], Fit.OTHER),
        (["J.-P."], ["Jean-Pierre"], Fit.SILENT),
        (["N'Golo"], ["N", "Golo"], Fit.SAME),
        (["N'Golo"], ["N’GOLO"], Fit.SAME),
        (["SANS PRENOM"], ["Jean"], Fit.SILENT),
        ([], ["Jean"], Fit.SILENT),
        (["Luc"], ["Lucas"], Fit.OTHER),
        (["Y"], ["Y"], Fit.SAME),
    ],
)
def test_first_given_names_must_be_one_and_a_hyphen_is_a_space(
    stated: list[str], known: list[str], fit: Fit
) -> None:
    assert compare_given(stated, known) is fit


# ----------------------------------------------------------------------------------------------- people


def test_the_same_person_agrees_in_every_strict_trait() -> None:
    assert compare(STATED, KNOWN).is_same
    assert compare(STATED, KNOWN).against == ()


@pytest.mark.parametrize(
    ("change", "trait"),
    [
        ({"birth_name": "Cormerois"}, "family"),
        ({"given_names": ("Odette",)}, "given"),
        ({"birth_date": date(1948, 3, 18)}, "born"),
        ({"sex": "M"}, "sex"),
        ({"used_name": "Le Gall"}, "used"),
    ],
)
def test_each_trait_can_contradict_alone(change: dict[str, object], trait: str) -> None:
    compared = compare(replace(STATED, **change), KNOWN)  # type: ignore[arg-type]  # fields of Patient
    assert compared.against == (trait,)
    assert not compared.is_same


def test_a_name_not_labelled_is_compared_with_birth_and_used_name() -> None:
    for name in ("Cormerais", "LE GOFF"):
        assert compare(replace(STATED, birth_name=name, name_kind="unstated"), KNOWN).is_same
    assert compare(replace(STATED, birth_name="LE GOFF"), KNOWN).family is Fit.OTHER


def test_a_stated_used_name_agrees_when_it_equals_the_registered_one() -> None:
    assert compare(replace(STATED, used_name="LE GOFF"), KNOWN).used is Fit.SAME
    assert compare(replace(STATED, used_name="CORMERAIS"), KNOWN).used is Fit.SAME
    assert compare(replace(STATED, used_name="Goff"), KNOWN).used is Fit.OTHER
    assert compare(replace(STATED, used_name="Goff"), replace(KNOWN, used_name="")).used is Fit.SILENT


@pytest.mark.parametrize(
    ("family", "given"),
    [
        ("LE GOFF", ("MARIE", "ODETTE")),
        ("LE", ("GOFF", "MARIE-ODETTE")),
        ("MARIE ODETTE", ("LE", "GOFF")),
        ("MARIE", ("ODETTE", "LOUISE", "CORMERAIS")),
        ("CORMERAIS", ("MARIE-ODETTE",)),
    ],
)
def test_capitals_are_read_in_either_order_however_they_were_split(
    family: str, given: tuple[str, ...]
) -> None:
    stated = replace(STATED, birth_name=family, given_names=given, name_kind="unstated")
    assert compare(replace(stated, order_unsure=True), KNOWN).is_same
    assert identity.has_strict_traits(replace(stated, order_unsure=True))


def test_names_in_mixed_case_are_not_turned_round() -> None:
    stated = replace(STATED, birth_name="Marie-Odette", given_names=("Cormerais",), name_kind="unstated")
    assert compare(stated, KNOWN).family is Fit.OTHER


def test_a_label_outweighs_capitals() -> None:
    stated = replace(STATED, birth_name="MARIE ODETTE", given_names=("CORMERAIS",), order_unsure=True)
    assert compare(stated, KNOWN).family is Fit.OTHER


@pytest.mark.parametrize(
    "missing",
    [
        {"birth_name": None},
        {"given_names": ()},
        {"given_names": ("M.",)},
        {"given_names": ("SANS", "PRENOM")},
        {"birth_date": None},
        {"sex": None},
        {"sex": "U"},
        {"birth_name": None, "used_name": "Le Goff", "name_kind": "used"},
    ],
)
def test_strict_traits_are_complete_only_with_all_four(missing: dict[str, object]) -> None:
    assert identity.has_strict_traits(STATED)
    assert not identity.has_strict_traits(replace(STATED, **missing))  # type: ignore[arg-type]  # fields of Patient


def test_a_local_id_belongs_to_its_facility() -> None:
    here = replace(STATED, local_ids=(LocalId("450000088", "900012345"),))
    there = replace(STATED, local_ids=(LocalId("570000018", "900012345"),))
    changed = replace(STATED, local_ids=(LocalId("1450000088", "900099999"),))
    by_oid = replace(STATED, local_ids=(LocalId("1.2.250.1.71.4.2.2.450000088", "900012345"),))
    assert identity.local_fit(by_oid, KNOWN) is Fit.SAME
    assert identity.local_fit(here, KNOWN) is Fit.SAME
    assert identity.local_fit(there, KNOWN) is Fit.SILENT
    assert identity.local_fit(changed, KNOWN) is Fit.OTHER
    bare = replace(STATED, local_ids=(LocalId("", "900012345"),))
    assert identity.local_fit(bare, KNOWN, "450000088") is Fit.SAME


def test_a_nir_that_tells_another_sex_or_month_only_warns() -> None:
    stated = replace(STATED, ins="248034523400723")
    assert identity.nir_warnings(stated) == ()
    assert identity.nir_warnings(replace(stated, sex="M", birth_date=date(1948, 4, 17))) == (
        "nir_other_sex",
        "nir_other_birth",
    )
    assert identity.nir_warnings(replace(stated, sex="M", ins_oid=NIA)) == ()


# ----------------------------------------------------------------------------------------------- finding


def test_every_registration_that_could_be_the_person_shares_a_key_and_few_others_do() -> None:
    people = Population(200, 160, seed=7)
    index: dict[str, set[int]] = defaultdict(set)
    for number, row in enumerate(people.rows):
        for key in identity.keys_of(row):
            index[key].add(number)
    most = 0
    for case in people.cases:
        stated = case.notice.patient
        assert stated is not None
        found = set().union(*(index.get(key, set()) for key in identity.search_keys(stated)))
        could = {number for number, row in enumerate(people.rows) if compare(stated, row).could_be}
        assert could <= found, case.scenario
        if case.truth is not None and stated.birth_date:
            assert case.truth in found, case.scenario
        most = max(most, len(found))
    assert most <= 12


def test_a_letter_without_ins_finds_the_row_by_used_name_turned_round_and_local_id() -> None:
    keys = set(identity.keys_of(KNOWN))
    turned = replace(
        STATED, birth_name="MARIE", given_names=("LE", "GOFF"), name_kind="unstated", order_unsure=True
    )
    assert keys & set(identity.search_keys(turned))
    assert keys & set(identity.search_keys(Patient(used_name="Le Goff", birth_date=date(1948, 3, 17))))
    assert keys & set(identity.search_keys(Patient(local_ids=(LocalId("450000088", "900012345"),))))
    assert keys & set(identity.search_keys(Patient(ins="2480345234007")))
    assert not keys & set(identity.search_keys(Patient(local_ids=(LocalId("570000018", "900012345"),))))
    nearly_nothing = replace(KNOWN, ins="", local_id="", birth_date=None, given_names=())
    assert set(identity.keys_of(nearly_nothing)) & set(identity.search_keys(STATED))


@settings(max_examples=many(60))
@given(st.text(max_size=300), st.lists(st.text(max_size=60), max_size=8), st.booleans())
def test_no_name_breaks_comparing_or_multiplies_keys(name: str, given_names: list[str], unsure: bool) -> None:
    stated = Patient(
        birth_name=name, given_names=tuple(given_names), order_unsure=unsure, birth_date=date(1948, 3, 17)
    )
    compare(stated, KNOWN)
    assert len(identity.search_keys(stated)) <= 6 * identity.MAX_WORDS


# --------------------------------------------------------------------------------- professionals, addresses


@pytest.mark.parametrize(
    ("person", "family", "given_name", "agrees"),
    [
        (Person(name="Dr Claire MARTIN"), "Martin", "Claire", True),
        (Person(name="Dr MARTIN"), "Martin", "Claire", True),
        (Person(name="Docteur C. Martin"), "MARTIN", "CLAIRE", True),
        (Person(name="MARTIN Claire"), "Martin", "Claire", True),
        (Person(name="Dr Paul Martin"), "Martin", "Claire", False),
        (Person(name="Dr Claire Martin"), "Martin-Durand", "Claire", False),
        (Person(family_name="MARTIN", given_name="Jean"), "Martin", "Jean-Claude", True),
        (Person(family_name="LE GALL"), "Le Gall", "Yann", True),
        (Person(name="Dr Yann Le Gall"), "Le Gall", "Yann", True),
        (Person(name="Dr Yann Le Gall"), "Gall", "Yann", False),
        (Person(name="Dr"), "Martin", "Claire", False),
        (Person(name="Dr Martin"), "", "", False),
    ],
)
def test_a_doctors_name_agrees_by_family_name_and_never_with_another_given_name(
    person: Person, family: str, given_name: str, agrees: bool
) -> None:
    assert identity.bears(person, family, given_name) is agrees


def test_a_title_alone_is_no_name() -> None:
    assert not identity.is_named(Person(name="Dr"))
    assert not identity.is_named(None)
    assert "martin" in identity.family_names(Person(name="Dr Claire MARTIN"))
    assert "de la tour" in identity.family_names(Person(name="Dr Claire de La Tour"))


@pytest.mark.parametrize(
    ("address", "allowed"),
    [
        ("dr.martin@medecin.mssante.fr", True),
        ("dr.martin@MEDECIN.MSSANTE.FR", True),
        ("x@apicrypt.org", True),
        ("x@mssante.fr", False),
        ("x@evilmssante.fr", False),
        ("x@medecin.mssante.fr.evil.example", False),
        ("x@evil.example@medecin.mssante.fr", False),
        ('"x@evil.example"@medecin.mssante.fr', False),
        ("x@medecin.mssante.fr\r\nBcc: y@evil.example", False),
        ("dr.martin@medecin.mssante.fr ", False),
        ("dr.mаrtin@medecin.mssante.fr", False),  # a Cyrillic letter
        ("", False),
    ],
)
def test_no_address_outside_the_white_list_passes(address: str, allowed: bool) -> None:
    assert identity.domain_allowed(address, ["*.mssante.fr", "Apicrypt.org"]) is allowed


def test_lines_of_one_person_keep_every_gp_and_the_strictest_consent() -> None:
    one = replace(KNOWN, gp_rpps=("10000000001",), consent="allowed")
    two = replace(KNOWN, gp_rpps=("10000000002", "10000000001"), consent="opposed", postcode="45000")
    both = identity.merged(one, two)
    assert both.gp_rpps == ("10000000001", "10000000002")
    assert both.consent == "opposed"
    assert both.postcode == "45000"
    assert identity.strictest("allowed", "masked", None) == "masked"
    assert identity.strictest("peut-être") == "opposed"


@pytest.mark.parametrize("given", [("M",), ("MARIE", "ANNE")])
def test_a_married_woman_in_capitals_is_nobody_else(given: tuple[str, ...]) -> None:
    her = Patient(birth_name="MARTIN", used_name="DURAND", given_names=("Marie",), sex="F")
    capitals = Patient(birth_name="DURAND", given_names=given, sex="F", order_unsure=True)
    assert not identity.somebody_else(capitals, her)
    assert identity.somebody_else(replace(capitals, given_names=("ZOE",)), her)
