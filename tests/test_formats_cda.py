"""The CDA reader takes the header's word, and nobody is the registered GP whom the header does not call so."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import cda
from relay.model import FollowUp, Why
from relay.reading import read as read_mail
from relay.recognition import recognise
from tests import letters
from tests.campaign import many
from tests.letters import ldl, printed

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"


def read(**changes: object):
    notice = cda.read(letters.cda(**changes))  # type: ignore[arg-type]
    assert notice is not None
    return notice


@pytest.mark.parametrize("level", [1, 3])
def test_the_header_says_all_that_routing_needs(level: int):
    notice = read(level=level)
    assert (notice.event, notice.document, notice.code, notice.format) == (
        "discharge",
        "letter",
        "11490-0",
        "cda",
    )
    assert (notice.document_id, notice.version, notice.status) == (
        "1.2.250.1.999.1.1.20261201.1",
        "1",
        "final",
    )
    assert notice.patient == replace(letters.ODETTE, ins_key_valid=None, postcode="45000")
    gp = notice.registered_gp
    assert gp is not None
    assert (gp.family_name, gp.given_name, gp.rpps) == ("MARTIN", "Camille", letters.MARTIN.rpps)
    assert (gp.mss_address, gp.organisation) == (letters.MARTIN.mss_address, "Cabinet médical des Tilleuls")
    stay = notice.stay
    assert stay is not None
    assert stay.discharged == datetime(2026, 12, 1, 13, 0, tzinfo=UTC)
    assert (stay.discharged_exact, stay.number, stay.facility) == (True, "S-2026-004217", "450000088")
    assert (stay.ward, stay.facility_name) == ("Service de Cardiologie", "CHR d'Exemple")
    assert notice.author is not None
    assert (notice.author.name, notice.author.rpps) == ("Solenn KERBELLEC", letters.AUTHOR.rpps)
    assert notice.unknown == ()


def header(change: tuple[str, str] | None = None):
    """The full letter, perhaps with one thing in it changed."""
    raw = ldl.full()
    if change:
        assert change[0].encode() in raw
        raw = raw.replace(change[0].encode(), change[1].encode())
    notice = cda.read(raw)
    assert notice is not None
    return notice


def test_the_pdf_inside_a_letter_of_level_1_must_be_the_same_patients():
    def problems(content: bytes) -> tuple[list[str], tuple[str, ...]]:
        notice = read(level=1, body_pdf=content)
        assert (notice.event, notice.registered_gp and notice.registered_gp.rpps) == (
            "discharge",
            letters.MARTIN.rpps,
        )
        return [problem.code for problem in notice.problems], notice.unknown

    paul = letters.patient("LEROUX", "Paul", sex="M", born=date(1962, 5, 4), order=21)
    assert problems(printed.letter()) == ([], ())
    assert problems(printed.scan()) == ([], ())
    assert problems(b"no PDF at all") == ([], ())
    assert problems(printed.letter(paul)) == (["two_patients"], ())
    assert problems(printed.letter(gp=letters.DURAND)) == ([], ("registered_gp",))
    mail = letters.xdm_mail(letter=letters.cda(level=1, body_pdf=printed.letter(paul)))
    assert recognise(read_mail(mail)).why is Why.TWO_PATIENTS


def test_the_chain_of_a_document_is_read_with_both_halves_of_its_numbers():
    notice = header()
    assert notice.document_id == "1.2.250.1.999.1.7.1234.5678.3^LDL-7731"
    assert (notice.set_id, notice.version) == ("1.2.250.1.999.1.7^LDL-77", "3")
    assert (notice.replaces, notice.document) == ("1.2.250.1.999.1.7.1234.5678.2^LDL-7730", "replacement")
    added = header(('typeCode="RPLC"', 'typeCode="APND"'))
    assert (added.replaces, added.document) == (None, "addendum")


def test_of_all_the_people_around_the_patient_only_pcp_is_the_gp():
    notice = header()
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps == letters.MARTIN.rpps
    assert notice.registered_gp.mss_address == letters.MARTIN.mss_address
    assert notice.registered_gp.organisation == "Maison de santé de l'Étape"
    for other in ("XYZ", "CORRE", "353", "PRELV", "REF", "RESP", "ATTPHYS"):
        assert header(('functionCode code="PCP"', f'functionCode code="{other}"')).registered_gp is None
    nobody = header(
        ('functionCode code="PCP" codeSystem="2.16.840.1.113883.5.88" displayName="Médecin traitant"', "time")
    )
    assert nobody.registered_gp is None


def test_the_doctor_who_sent_the_patient_is_known_and_no_gp():
    notice = header()
    assert notice.referring_doctor is not None
    assert (notice.referring_doctor.name, notice.referring_doctor.rpps) == (
        "Ismaël AUBERT",
        ldl.REFERRER.rpps,
    )
    as_function = header(('functionCode code="CORRE"', 'functionCode code="REFB"'))
    assert as_function.referring_doctor is None, "two of them are nobody"
    alone = header(('typeCode="REFB"', 'typeCode="INF"'))
    assert alone.referring_doctor is None


def test_recipients_keep_their_order_their_kind_and_their_practice():
    first, second = header().recipients
    assert (first.rpps, first.copy, first.organisation) == (
        ldl.CARDIOLOGIST.rpps,
        False,
        "Cabinet de cardiologie",
    )
    assert (second.rpps, second.copy) == (letters.DUPONT.rpps, True)
    assert [one.copy for one in header((' typeCode="PRCP"', "")).recipients] == [False, True]


def test_the_header_beats_what_the_narrative_says():
    stay = header().stay
    assert stay is not None
    assert stay.discharged == datetime(2026, 12, 3, 13, 30, tzinfo=UTC)
    assert (stay.number, stay.ward, stay.facility) == ("26113377", "Service de cardiologie A", "450000088")
    assert (stay.exit_mode, stay.entry_mode) == ("home", "emergency")


@pytest.mark.parametrize(
    ("display", "mode"),
    [("Entrée par les urgences", "emergency"), ("Domicile", "home"), ("Transfert d'un autre établissement", "hospital"),
     ("Mutation", "hospital"), ("EHPAD", "nursing_home"), ("SSR", "rehabilitation"), ("Naissance", "birth"), ("?", None)],
)  # fmt: skip
def test_how_the_patient_came_is_read(display: str, mode: str | None):
    stay = header(("Entrée par les urgences", display)).stay
    assert stay is not None
    assert stay.entry_mode == mode


def test_a_discharge_disposition_of_the_header_goes_before_the_bodys():
    notice = header(("<responsibleParty>", '<dischargeDispositionCode code="109"/><responsibleParty>'))
    assert notice.stay is not None
    assert notice.stay.exit_mode == "rehabilitation"


def test_follow_up_has_its_days_and_awaited_results_their_words():
    notice = header()
    assert [one.when for one in notice.follow_up] == [date(2026, 12, 5), date(2027, 1, 15), None]
    assert notice.awaited_results == ("Recherche de thrombophilie", "Holter : lecture en cours")


def test_medication_lists_are_whole_and_what_was_struck_out_is_out():
    notice = header()
    assert notice.medications[1:] == (
        "Bisoprolol 2,5 mg 1 le matin 3 mois",
        "Furosémide 20 mg 1 le matin 1 mois",
    )
    assert notice.stopped_medications == ("Ramipril 5 mg toux",)
    rows = "".join(f"<tr><td>Médicament {n}</td></tr>" for n in range(60))
    assert len(header(("<tr><td>Bisoprolol", f"{rows}<tr><td>Bisoprolol")).medications) == 63
    too_many = header(("<tr><td>Bisoprolol", f"{rows}{rows}<tr><td>Bisoprolol"))
    assert (too_many.medications, too_many.unknown) == ((), ("medications",))
    long = header(("1 le matin</td><td>3 mois", "x" * 400))
    assert (long.medications, long.unknown) == ((), ("medications",))
    assert header(("<list><item>Pénicilline</item></list>", "Aucune")).medications == notice.medications


def test_nested_lists_say_each_line_once():
    inner = "<list><item>Antalgiques<list><item>paracétamol</item></list></item><item>Repos</item></list>"
    notice = header(("<paragraph>Kinésithérapie respiratoire à domicile</paragraph>", inner))
    assert [one.what for one in notice.follow_up][2:] == ["Antalgiques paracétamol", "Repos"]


@pytest.mark.parametrize(
    ("value", "status"),
    [("385651009", "draft"), ("398166005", "final"), ("9571008", "final"), ("29179001", "final")],
)
def test_a_document_in_progress_is_a_draft(value: str, status: str):
    assert header(('code="9571008"', f'code="{value}"')).status == status


@pytest.mark.parametrize("code", ["R", "V", "MASQUE_PS"])
def test_only_the_mask_forbids_professionals(code: str):
    notice = header(('confidentialityCode code="N"', f'confidentialityCode code="{code}"'))
    assert notice.consent == ("masked" if code == "MASQUE_PS" else None)


def test_the_body_adds_exit_mode_awaited_results_and_what_follows():
    notice = read(
        awaited=("Anatomopathologie", "Aucun"),
        follow_up=(("Consultation", date(2026, 12, 15)), ("Kiné", None)),
    )
    assert notice.stay is not None
    assert notice.stay.exit_mode == "home"
    assert notice.awaited_results == ("Anatomopathologie",)
    assert notice.follow_up == (FollowUp("Consultation 15/12/2026", date(2026, 12, 15)), FollowUp("Kiné"))


@pytest.mark.parametrize(
    ("code", "mode"),
    [("109", "rehabilitation"), ("127", "home_hospitalisation"), ("500", "nursing_home"), ("GEN-092.06.01", "hospital"),
     ("GEN-092.06.03", "other"), ("999", "other")],
)  # fmt: skip
def test_exit_modes_are_those_of_the_value_set(code: str, mode: str):
    stay = read(exit_mode=(code, "")).stay
    assert stay is not None
    assert stay.exit_mode == mode


def test_a_death_is_no_discharge():
    assert read(exit_mode=("419099009", "Décès")).event == "death"


@pytest.mark.parametrize("model", [2020, 2022])
def test_both_models_of_names_give_the_same_person(model: int):
    patient = read(model=model).patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.name_kind) == ("CORMERAIS", "VALBRUNE", "birth")
    assert patient.given_names == ("Odette", "Marie-Louise")


def test_a_compound_first_name_stays_one_name():
    names = read(patient=replace(letters.ODETTE, given_names=("Anne Lise", "Rose"))).patient
    assert names is not None
    assert names.given_names == ("Anne Lise", "Rose")


def test_without_a_pcp_participant_there_is_no_registered_gp_whoever_receives_the_letter():
    notice = read(gp=None, recipients=(letters.MARTIN, replace(letters.DUPONT, copy=True)))
    assert notice.registered_gp is None
    assert [(one.rpps, one.copy) for one in notice.recipients] == [
        (letters.MARTIN.rpps, False), (letters.DUPONT.rpps, True),
    ]  # fmt: skip


def test_two_registered_gps_are_none():
    raw = letters.cda()
    participant = re.search(
        rb"<participant typeCode=\"INF\">\s*<functionCode code=\"PCP\".*?</participant>", raw, re.DOTALL
    )
    assert participant is not None
    other = participant[0].replace(letters.MARTIN.rpps.encode(), letters.DURAND.rpps.encode())
    notice = cda.read(raw.replace(participant[0], participant[0] + other))
    assert notice is not None
    assert notice.registered_gp is None
    assert notice.unknown == ("registered_gp",)


def test_a_gp_number_that_cannot_be_read_is_unknown_not_absent():
    raw = letters.cda().replace(b'extension="8' + letters.MARTIN.rpps.encode(), b'extension="8123')
    notice = cda.read(raw)
    assert notice is not None
    assert notice.registered_gp is not None
    assert notice.registered_gp.rpps is None
    assert "registered_gp.rpps" in notice.unknown


@pytest.mark.parametrize(
    ("code", "event", "document"),
    [("34112-3", "discharge", "letter"), ("18761-7", "admission", "letter"), ("15507-7", "er_visit", "letter"),
     ("60280-5", "er_visit", "letter"), ("34133-9", "discharge", "other"), ("83981-1", "discharge", "letter"),
     ("86531-1", "discharge", "other"), ("88348-8", "admission", "letter"), ("78341-5", "transfer", "letter"),
     ("78489-2", "birth", "other"), ("89235-6", "birth", "other"), ("57057-2", "birth", "other"), ("57075-4", "birth", "other"),
     ("74207-2", "other", "other"), ("34874-8", "other", "other"), ("11488-4", "other", "other"), ("57833-6", "other", "other"),
     ("11502-2", "other", "other")],
)  # fmt: skip
def test_a_neighbouring_code_keeps_its_own_meaning(code: str, event: str, document: str):
    notice = read(code=code)
    assert (notice.code, notice.event, notice.document) == (code, event, document)


def test_the_code_alone_makes_no_lettre_de_liaison():
    notice = read(realm=None, code="11490-0")
    assert notice.event == "discharge"  # the LDL-SES template still is a French mark
    foreign = cda.read(letters.cda(realm=None).replace(b"1.2.250.1.213.1.1.1.29", b"1.2.276.0.76.10.1"))
    assert foreign is not None
    assert foreign.event == "other"
    assert [problem.code for problem in foreign.problems] == ["foreign_letter"]


@pytest.mark.parametrize("realm", ["DE", "AT", "US", None])
@pytest.mark.parametrize("code", ["11490-0", "34112-3", "34133-9", "18761-7", "15507-7", "78489-2"])
def test_a_foreign_document_of_the_same_code_is_nothing_we_send_on(realm: str | None, code: str):
    raw = re.sub(rb"<templateId[^>]*/>", b'<templateId root="1.2.40.0.34.11.2"/>', letters.cda(code=code))
    mark = b'<realmCode code="FR"/>'
    assert mark in raw
    foreign = raw.replace(mark, f'<realmCode code="{realm}"/>'.encode() if realm else b"")
    notice = cda.read(foreign)
    assert notice is not None
    assert (notice.code, notice.event, notice.document) == (code, "other", "other")
    here = cda.read(raw)
    assert here is not None
    assert here.event != "other"
    other_system = cda.read(raw.replace(letters.LOINC.encode(), b"1.2.276.0.76.5.1"))
    assert other_system is not None
    assert other_system.event == "other", "the number of another code system"


def test_abroad_a_span_of_care_is_no_stay():
    bare = re.sub(
        rb"<encompassingEncounter>.*?</encompassingEncounter>",
        b"<encompassingEncounter/>",
        letters.cda(),
        flags=re.DOTALL,
    )
    here = cda.read(bare)
    assert here is not None
    assert here.stay is not None
    assert here.stay.discharged == datetime(2026, 12, 1, 13, 0, tzinfo=UTC)
    foreign = bare.replace(b'<realmCode code="FR"/>', b'<realmCode code="US"/>')
    foreign = re.sub(rb"<templateId[^>]*/>", b"", foreign)
    abroad = cda.read(foreign)
    assert abroad is not None
    assert abroad.stay is not None
    assert (abroad.stay.admitted, abroad.stay.discharged) == (None, None)


def test_a_replacement_names_what_it_replaces():
    notice = read(replaces="1.2.3", version="2")
    assert (notice.document, notice.replaces, notice.version) == ("replacement", "1.2.3", "2")


def test_a_day_without_a_time_is_a_day():
    raw = letters.cda().replace(b"20261201140000+0100", b"20261201")
    stay = cda.read(raw).stay  # type: ignore[union-attr]
    assert stay is not None
    assert (stay.discharged, stay.discharged_exact) == (datetime(2026, 11, 30, 23, tzinfo=UTC), False)


@pytest.mark.parametrize("value", [b"1948", b"194803", b"19480231", b"hier"])
def test_half_a_birth_date_is_unknown(value: bytes):
    notice = cda.read(letters.cda().replace(b'birthTime value="19480317"', b'birthTime value="%s"' % value))
    assert notice is not None
    assert notice.patient is not None
    assert notice.patient.birth_date is None
    assert "patient.birth_date" in notice.unknown


def test_ongoing_stays_have_no_discharge():
    notice = read(discharged=None)
    assert notice.stay is not None
    assert notice.stay.discharged is None
    assert notice.stay.admitted is not None


def test_two_record_targets_are_two_patients():
    raw = letters.cda()
    target = re.search(rb"<recordTarget>.*?</recordTarget>", raw, re.DOTALL)
    assert target is not None
    notice = cda.read(raw.replace(target[0], target[0] * 2))
    assert notice is not None
    assert "two_patients" in {problem.code for problem in notice.problems}


@pytest.mark.parametrize(
    "hostile",
    [
        b'<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
    ],
)
def test_a_document_type_is_refused(hostile: bytes):
    raw = letters.cda().replace(b"<ClinicalDocument", hostile + b"<ClinicalDocument", 1)
    notice = cda.read(raw)
    assert notice is not None
    assert notice.patient is None
    assert [problem.code for problem in notice.problems] == ["unreadable_document"]
    assert cda.read(raw.decode().encode("utf-16")) is not None


def test_broken_xml_is_a_problem_and_other_xml_is_not_ours():
    broken = cda.read(letters.cda()[:-200])
    assert broken is not None
    assert [problem.code for problem in broken.problems] == ["unreadable_document"]
    assert cda.read(b"<Bundle/>") is None


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
def test_no_hostile_xml_raises_or_takes_long():
    files = [
        path
        for folder in ("defusedxml-bombs", "libxml2-errors")
        for path in (SAMPLES / "torture" / folder).rglob("*")
    ]
    assert len(files) > 150
    for path in files:
        if path.is_file():
            began = time.process_time()
            assert cda.read(path.read_bytes()) is None or path.name.startswith("ccda")
            assert time.process_time() - began < 2, path.name


@settings(max_examples=many(150), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_no_mutation_raises(data: st.DataObject):
    raw = bytearray(data.draw(st.sampled_from([letters.cda(), ldl.full()])))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.integers(0, 40))] = data.draw(st.binary(max_size=8))
    cda.read(bytes(raw))


def test_a_large_letter_is_read_in_four_milliseconds():
    raw = letters.cda(size=75_000)
    cda.read(raw)
    began = time.process_time()
    for _ in range(20):
        cda.read(raw)
    assert (time.process_time() - began) / 20 < 0.004


# --------------------------------------------------------------------------- what senders write instead of the guide


def changed(old: str, new: str):
    """The level-3 letter with one thing in it changed."""
    raw = letters.cda()
    assert old.encode() in raw
    notice = cda.read(raw.replace(old.encode(), new.encode()))
    assert notice is not None
    return notice


NAME = '<family qualifier="BR">CORMERAIS</family><family qualifier="CL">VALBRUNE</family><given qualifier="BR">Odette</given><given>Odette Marie-Louise</given>'
GP_NUMBER = f'<id root="1.2.250.1.71.4.2.1" extension="8{letters.MARTIN.rpps}"/><telecom value="mailto:dr.martin@medecin.mssante.fr" use="EC"/><associatedPerson>'


@pytest.mark.parametrize(
    "names",
    [
        f'<name use="A"><family>LUNE</family><given>Belle</given></name><name>{NAME}</name>',
        f'<name nullFlavor="UNK"/><name use="L">{NAME}</name>',
        (
            '<name use="L"><family qualifier="BR">CORMERAIS</family><given qualifier="BR">Odette</given><given>Odette Marie-Louise</given></name>'
            '<name><family qualifier="CL">VALBRUNE</family></name>'
        ),
    ],
)
def test_of_several_names_the_persons_own_are_read(names: str):
    patient = changed(f"<name>{NAME}</name>", names).patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.name_kind) == ("CORMERAIS", "VALBRUNE", "birth")
    assert patient.given_names == ("Odette", "Marie-Louise")


def test_two_birth_names_are_none_and_words_without_elements_are_a_name():
    two = changed(NAME, f'<family qualifier="BR">LERICHE</family>{NAME}')
    assert "patient.birth_name" in two.unknown
    plain = changed(NAME, "Odette CORMERAIS")
    assert plain.patient is not None
    assert (plain.patient.birth_name, plain.patient.given_names) == ("CORMERAIS", ("Odette",))
    assert plain.patient.name_kind == "unstated"
    assert "patient.birth_name" in changed(f"<name>{NAME}</name>", f'<name use="A">{NAME}</name>').unknown


def test_a_birth_date_as_iso_writes_it_is_read_and_one_in_the_order_of_the_country_is_not():
    iso, local = (changed('value="19480317"', f'value="{said}"') for said in ("1948-03-17", "17/03/1948"))
    assert iso.patient is not None
    assert iso.patient.birth_date == date(1948, 3, 17)
    assert "patient.birth_date" in local.unknown


def test_two_numbers_of_one_gp_are_none_and_an_adeli_number_is_no_rpps():
    other = f'<id root="1.2.250.1.71.4.2.1" extension="8{letters.DURAND.rpps}"/>'
    two = changed(GP_NUMBER, other + GP_NUMBER)
    assert two.registered_gp is not None
    assert (two.registered_gp.rpps, "registered_gp.rpps" in two.unknown) == (None, True)
    adeli = changed(GP_NUMBER, '<id root="1.2.250.1.71.4.2.1" extension="0451234567"/><associatedPerson>')
    assert adeli.registered_gp is not None
    assert (adeli.registered_gp.family_name, adeli.registered_gp.rpps, adeli.unknown) == ("MARTIN", None, ())


def test_a_performer_who_is_called_the_registered_gp_is_one_and_another_beside_makes_two():
    performer = (
        '<performer typeCode="PPRF"><functionCode code="PCP" codeSystem="2.16.840.1.113883.5.88"/><assignedEntity>'
        '<id root="1.2.250.1.71.4.2.1" extension="8{}"/><assignedPerson><name><given>{}</given><family>{}</family></name>'
        '</assignedPerson></assignedEntity></performer><performer typeCode="PRF">'
    )
    alone = letters.cda(gp=None).replace(
        b'<performer typeCode="PRF">', performer.format(letters.DURAND.rpps, "Noé", "DURAND").encode()
    )
    found = cda.read(alone)
    assert found is not None
    assert found.registered_gp is not None
    assert found.registered_gp.rpps == letters.DURAND.rpps
    beside = changed('<performer typeCode="PRF">', performer.format(letters.DURAND.rpps, "Noé", "DURAND"))
    assert beside.registered_gp is None
    assert "registered_gp" in beside.unknown


def test_the_secure_address_of_a_gp_goes_before_an_everyday_one():
    address = '<telecom value="mailto:dr.martin@medecin.mssante.fr" use="EC"/><associatedPerson>'
    found = changed(
        address, f'<telecom value="mailto:camille.martin@courriel.example"/>{address}'
    ).registered_gp
    assert found is not None
    assert found.mss_address == "dr.martin@medecin.mssante.fr"


def test_a_mask_in_a_translation_is_a_mask():
    said = '<confidentialityCode code="N" codeSystem="2.16.840.1.113883.5.25"/>'
    masked = said.replace(
        "/>", '><translation code="MASQUE_PS" codeSystem="1.2.250.1.213.1.1.4.13"/></confidentialityCode>'
    )
    assert changed(said, masked).consent == "masked"


def test_an_empty_line_before_the_declaration_is_no_damage():
    found = cda.read(b"\r\n " + letters.cda())
    assert found is not None
    assert found.patient == read().patient


@pytest.mark.parametrize(("title", "sex"), [("MME", "F"), ("Monsieur", "M"), ("DR", None)])
def test_a_civility_states_the_sex_where_none_is_given(title: str, sex: str | None):
    raw = letters.cda().replace(
        b'<administrativeGenderCode code="F" codeSystem="2.16.840.1.113883.5.1"/>', b""
    )
    notice = cda.read(raw.replace(b"<patient><name>", f"<patient><name><prefix>{title}</prefix>".encode()))
    assert notice is not None
    assert notice.patient is not None
    assert notice.patient.sex == sex
    stated = cda.read(letters.cda().replace(b"<patient><name>", b"<patient><name><prefix>M.</prefix>"))
    assert stated is not None
    assert stated.patient is not None
    assert stated.patient.sex == "F"
