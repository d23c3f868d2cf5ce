"""Labelled lines as wards write them: any order, French or English, and no GP taken from anybody else's line."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import text
from relay.formats.text import person, split_name
from tests import letters
from tests.campaign import many

GP, AUTHOR = letters.MARTIN.rpps, letters.AUTHOR.rpps
HEAD = "Patient : VALBRUNE Odette\nNé(e) le : 17/03/1948\nDate de sortie : 01/12/2026\n"


def notice(body: str, subject: str = ""):
    return text.read(body, subject=subject).notice


def codes(body: str) -> list[str]:
    return [problem.code for problem in notice(body).problems]


FRENCH = f"""LETTRE DE LIAISON

Nom de naissance\t: CORMERAIS
Nom d’usage : VALBRUNE
Prénom(s) : Odette Marie-Louise
Né(e) le : 17/03/1948 à Orléans   Sexe : F
IPP : 900012345
INS : 2 48 03 45 234 007 24 (OID 1.2.250.1.213.1.4.10)
Lieu de naissance : ORLEANS (45234)
Médecin traitant (déclaré) : Dr MARTIN Camille – 45000 Orléans
N° RPPS : {GP}
MSSanté : Dr.Martin@medecin.mssante.fr
Service : Cardiologie (UF 3021)
Date d'entrée : 23/11/2026 à 9 h 30
Date de sortie : mardi 1er décembre 2026 à 14h00
N° de séjour : S-2026-004217
Mode de sortie : Retour à domicile
Médecin hospitalier : Dr Solenn Kerbellec
RPPS : {AUTHOR}
Copie à : Dr Noé Durand ; Dr Alix Dupont
Degré d'urgence : URGENT
Opposition : non
"""

ENGLISH = f"""Discharge notice

Birth name: CORMERAIS
Used name: VALBRUNE
Given names: Odette Marie-Louise
Date of birth: 17 March 1948
Gender: Female
MRN: 900012345
INS: 248034523400724 1.2.250.1.213.1.4.10
Place of birth: 45234
Registered GP: Dr Camille MARTIN
RPPS: 8{GP}
Secure mail: dr.martin@medecin.mssante.fr
Ward: Cardiologie
Unit: 3021
Admission date: 2026-11-23 09:30
Discharge date: December 1, 2026 2:00 pm
Stay number: S-2026-004217
Discharged to: Home
Attending physician: Dr Solenn Kerbellec
RPPS: {AUTHOR}
Copy to: Dr Noé Durand; Dr Alix Dupont
Urgency: high
Patient objection: no
"""


@pytest.mark.parametrize("body", [FRENCH, ENGLISH, FRENCH.replace("\n", "\r\n\n").replace(" : ", "\u00a0: "),
                                  FRENCH.replace(" :", " ："), "\n".join(f"> {line}" for line in FRENCH.split("\n"))],
                         ids=["French", "English", "spaced", "wide colons", "quoted"])  # fmt: skip
def test_every_labelled_datum_is_read(body: str):
    body = body.replace("\r\n\n", "\n")
    found = notice(body)
    patient, stay, gp = found.patient, found.stay, found.registered_gp
    assert patient is not None
    assert stay is not None
    assert gp is not None
    assert (patient.birth_name, patient.used_name, patient.name_kind) == ("CORMERAIS", "VALBRUNE", "birth")
    assert patient.given_names == ("Odette", "Marie-Louise")
    assert (patient.birth_date, patient.sex, patient.birth_place) == (date(1948, 3, 17), "F", "45234")
    assert (patient.ins, patient.ins_oid) == (letters.ODETTE.ins, letters.INS_TEST)
    assert [local.value for local in patient.local_ids] == ["900012345"]
    assert (gp.family_name, gp.given_name, gp.rpps, gp.mss_address) == (
        "MARTIN", "Camille", GP, "dr.martin@medecin.mssante.fr",
    )  # fmt: skip
    assert (stay.admitted, stay.admitted_exact) == (datetime(2026, 11, 23, 8, 30, tzinfo=UTC), True)
    assert (stay.discharged, stay.discharged_exact) == (datetime(2026, 12, 1, 13, 0, tzinfo=UTC), True)
    assert (stay.number, stay.ward, stay.unit, stay.exit_mode) == (
        "S-2026-004217",
        "Cardiologie",
        "3021",
        "home",
    )
    assert found.author is not None
    assert (found.author.name, found.author.rpps) == ("Solenn Kerbellec", AUTHOR)
    assert [(one.name, one.copy) for one in found.recipients] == [("Noé Durand", True), ("Alix Dupont", True)]
    assert (found.urgency, found.consent, found.event) == ("urgent", "allowed", "discharge")
    assert (found.unknown, found.problems) == ((), ())


@pytest.mark.parametrize(
    ("written", "birth", "used", "given", "sex", "unsure"),
    [
        ("Mme VALBRUNE née CORMERAIS Odette", "CORMERAIS", "VALBRUNE", ("Odette",), "F", False),
        ("DUPONT Marie née MARTIN", "MARTIN", "DUPONT", ("Marie",), None, False),
        ("Marie DUPONT (née MARTIN)", "MARTIN", "DUPONT", ("Marie",), None, False),
        ("CORMERAIS épouse VALBRUNE Odette", "CORMERAIS", "VALBRUNE", ("Odette",), None, False),
        ("M. Jean de LA FONTAINE, né le 17/03/1948", "de LA FONTAINE", None, ("Jean",), "M", False),
        ("DUPONT, Marie Anne", "DUPONT", None, ("Marie", "Anne"), None, False),
        ("LEFÈVRE Éloïse", "LEFÈVRE", None, ("Éloïse",), None, False),
        ("Jean-Pierre D'AUBIGNÉ", "D'AUBIGNÉ", None, ("Jean-Pierre",), None, False),
        ("LE GOFF Yann (M)", "LE GOFF", None, ("Yann",), "M", False),
        ("Madame Odette VALBRUNE, 78 ans", "VALBRUNE", None, ("Odette",), "F", False),
        ("DUPONT MARIE", "DUPONT", None, ("MARIE",), None, True),
        ("Marie Claire Dupont", "Dupont", None, ("Marie", "Claire"), None, True),
    ],
)
def test_a_patient_line_is_taken_apart(
    written: str, birth: str, used: str | None, given: tuple[str, ...], sex: str | None, unsure: bool
):
    patient = notice(f"Patient : {written}\nINS : {letters.ODETTE.ins}\n").patient
    assert patient is not None
    assert (patient.birth_name, patient.used_name, patient.given_names) == (birth, used, given)
    assert (patient.sex, patient.order_unsure) == (sex, unsure)
    assert patient.name_kind == ("birth" if used else "unstated")


@pytest.mark.parametrize(
    ("body", "rpps"),
    [
        (f"Médecin traitant : Dr Camille Martin\nRPPS : {GP}\n", GP),
        (f"Médecin traitant : Dr Camille Martin (RPPS : {GP})\n", GP),
        (f"Médecin traitant :\nDr Camille Martin\nRPPS :\n{GP}\n", GP),
        (f"Médecin traitant : Dr Camille Martin ; RPPS : {GP}\n", GP),
        (f"Médecin traitant : Dr Camille Martin\nService : Cardiologie\nRPPS : {GP}\n", GP),
        (f"RPPS du médecin traitant : {GP}\nMédecin traitant : Dr Camille Martin\n", GP),
        (
            f"Médecin hospitalier : Dr Kerbellec\nRPPS : {AUTHOR}\nMédecin traitant : Dr Camille Martin\n",
            None,
        ),
        (
            f"Médecin traitant : Dr Camille Martin\nMédecin hospitalier : Dr Kerbellec\nRPPS : {AUTHOR}\n",
            None,
        ),
        (f"Médecin traitant : Dr Camille Martin\nDestinataire : Dr Durand\nRPPS : {AUTHOR}\n", None),
        (
            f"Médecin traitant : Dr Camille Martin\n\nBien à vous,\nDr Solenn Kerbellec\nRPPS : {AUTHOR}\n",
            None,
        ),
        (f"Médecin traitant : Dr Camille Martin\nDr Solenn Kerbellec, cardiologue\nRPPS : {AUTHOR}\n", None),
        (f"RPPS : {AUTHOR}\nMédecin traitant : Dr Camille Martin\n", None),
    ],
)
def test_an_rpps_belongs_to_the_doctor_whose_label_it_follows(body: str, rpps: str | None):
    gp = notice(HEAD + body).registered_gp
    assert gp is not None
    assert (gp.family_name, gp.rpps) == ("Martin", rpps)


@pytest.mark.parametrize(
    "body",
    ["", "Médecin traitant :\nRPPS :\n", "Médecin traitant : néant\n", "Médecin traitant : non déclaré\n",
     f"Médecin traitant : aucun\nRPPS : {AUTHOR}\n", f"Signataire : Dr Kerbellec\nRPPS : {AUTHOR}\n", f"RPPS : {AUTHOR}\n",
     "Destinataire : Dr Camille Martin\n", "Le médecin traitant a été prévenu.\n"],
)  # fmt: skip
def test_where_no_gp_is_named_there_is_none(body: str):
    assert notice(HEAD + body).registered_gp is None


def test_the_number_after_another_persons_line_is_theirs():
    found = notice(
        f"{HEAD}Médecin hospitalier : Dr Kerbellec\nDestinataire : Dr Noé Durand\nRPPS : {letters.DURAND.rpps}\n"
        f"Adressé par : Dr Alix Dupont\nRPPS : {letters.DUPONT.rpps}\nCardiologue : Dr Aubert\nRPPS : 10000000001\n"
        "Chef de service : Pr Morvan\nRPPS : 10000000002\n"
    )
    assert found.registered_gp is None
    assert found.author is not None
    assert (found.author.name, found.author.rpps) == ("Kerbellec", None)
    assert [(one.name, one.rpps) for one in found.recipients] == [("Noé Durand", letters.DURAND.rpps)]
    assert found.referring_doctor is not None
    assert (found.referring_doctor.name, found.referring_doctor.rpps) == ("Alix Dupont", letters.DUPONT.rpps)


@pytest.mark.parametrize(
    ("written", "mode"),
    [("Mode d'entrée : par les urgences", "emergency"), ("Provenance : EHPAD Les Tilleuls", "nursing_home"),
     ("Mode d'entrée : programmée", None), ("Admitted from: home", "home")],
)  # fmt: skip
def test_how_the_patient_came_is_read(written: str, mode: str | None):
    found = notice(f"{HEAD}{written}\n").stay
    assert found is not None
    assert found.entry_mode == mode


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("Medecin traitan", "gp"), ("Médecin traiatnt", "gp"), ("Médecin trraitant", "gp"), ("Médecin troitant", "gp"),
        ("Date de naisance", "born"), ("Date de sotrie", "discharged"), ("Oposition", "opposition"),
        ("Nom / Prénom", "family_first"), ("Date de sortie / Discharge date", "discharged"), ("Sexe/Sex", "sex"),
        ("Médecin traitant / Auteur", None), ("Nom", "name"), ("Non", None), ("Médecin", "doctor"), ("Médecine", None),
        ("Médecin du travail", None), ("Date de décès", "died"), ("Date de saisie", None), ("Médecin retraité", None),
        ("Réservation", None), ("Exposition", None), ("Disposition", None), ("Sorti", None), ("Tel", "address"),
    ],
)  # fmt: skip
def test_a_mistyped_label_is_read_only_where_one_is_meant(label: str, name: str | None):
    assert text.label_of(label) == name


def test_no_two_long_labels_of_different_meaning_are_one_slip_apart():
    for label, name in text._LABELS.items():
        if len(label) >= 9:
            assert text._nearly(label) in (name, None), label


def test_a_table_with_a_head_row_names_each_column():
    head = "Nom de naissance\tPrénom\tDate de naissance\tMédecin traitant\tRPPS\tDate de sortie\n"
    row = f"CORMERAIS\tOdette\t17/03/1948\tDr Camille Martin\t{GP}\t01/12/2026\n"
    found = notice(head + row)
    assert found.patient is not None
    assert (found.patient.birth_name, found.patient.given_names) == ("CORMERAIS", ("Odette",))
    assert found.registered_gp is not None
    assert found.registered_gp.rpps == GP
    assert found.stay is not None
    assert found.stay.discharged is not None
    other = f"LEROUX\tPaul\t04/05/1962\tDr Noé Durand\t{letters.DURAND.rpps}\t01/12/2026\n"
    assert codes(head + row + other) == ["two_patients", "many_gps"]
    short = notice(
        head + row.replace("Odette\t", "")
    )  # a cell is missing: nothing is taken from the wrong column
    assert short.patient is None or short.patient.given_names == ()
    assert short.registered_gp is None


@pytest.mark.parametrize(
    ("written", "expected"),
    [("2 48 03 45 234 007 24", "248034523400724"), ("2480345234007 clé 24", "248034523400724"),
     ("2480345234007 / 24", "248034523400724"), ("2480345234007 (clé : 24)", "248034523400724"),
     ("2480345234007 | 24", "248034523400724"), ("2480345234007 / 24 ans", "2480345234007"),
     ("2480345234007, 78 ans", "2480345234007"), ("2480345234007", "2480345234007")],
)  # fmt: skip
def test_the_key_of_an_ins_may_stand_apart(written: str, expected: str):
    patient = notice(f"Patient : VALBRUNE Odette\nINS : {written}\n").patient
    assert patient is not None
    assert patient.ins == expected


def test_a_hospital_number_without_a_digit_is_unknown():
    found = notice(f"{HEAD}IPP : voir dossier\n")
    assert found.patient is not None
    assert (found.patient.local_ids, found.unknown) == ((), ("patient.local_ids",))


@pytest.mark.parametrize(
    ("said", "tells"),
    [
        ("Mme Valbrune est sortie ce jour du service.", True), ("M. Leroux sort demain, merci de prévenir.", True),
        ("Votre patiente sera sortie avant midi.", True), ("The patient was discharged this morning.", True),
        ("Retour au domicile de Monsieur Leroux prévu.", True), ("La sortie du service est au fond du couloir.", False),
        ("Le patient est arrivé.", False), ("La nouvelle version est sortie.", False), ("Sortie de l'équipe : bowling.", False),
    ],
)  # fmt: skip
def test_prose_that_tells_of_a_discharge_is_known(said: str, tells: bool):
    assert text.read(f"Bonjour,\n\n{said}\n\nCordialement", subject="Information").tells is tells


@pytest.mark.parametrize(
    "line",
    ["Dr Camille Martin (retraité)", "Dr Camille Martin ?", "Dr Camille Martin, décédé", "ancien : Dr Camille Martin", "Dr Martin à confirmer",
     "Dr Camille Martin (parti à la retraite)", "Dr Camille Martin, ne suit plus la patiente", "Dr Martin (retired)"],
)  # fmt: skip
def test_a_gp_whom_the_line_itself_takes_back_is_unknown(line: str):
    found = notice(f"{HEAD}Médecin traitant : {line}\nRPPS : {GP}\n")
    assert found.registered_gp is None
    assert "registered_gp" in found.unknown


@pytest.mark.parametrize(
    "line",
    ["Dr Camille Martin et Dr Noé Durand", "Dr Camille Martin / Dr Noé Durand", "Drs Martin et Durand (RPPS 10099900010 et 10099900036)",
     "Dr Camille Martin ou le Dr Noé Durand", f"Dr Camille Martin RPPS {GP} ; Dr Noé Durand RPPS {letters.DURAND.rpps}"],
)  # fmt: skip
def test_two_gps_on_one_line_are_nobodys_to_choose_from(line: str):
    found = notice(f"{HEAD}Médecin traitant : {line}\n")
    assert found.registered_gp is None
    assert "registered_gp" in found.unknown


def test_a_letter_lost_on_the_way_is_no_doubt():
    gp = notice(f"{HEAD}Médecin traitant : Dr Gwena?l Martin\nRPPS : {GP}\n").registered_gp
    assert gp is not None
    assert gp.rpps == GP


def test_one_gp_in_a_long_line_stays_one():
    for line in ("Dr Camille Martin, 12 rue de la Retraite-aux-Loups, 45000 Orléans", "Mme le Dr Camille Martin (cabinet Martin et Durand)",
                 "Dr Camille Martin - Cabinet du Dr Durand", "Dr Camille Martin, 3 place de l'Ancien Marché"):  # fmt: skip
        gp = notice(f"{HEAD}Médecin traitant : {line}\nRPPS : {GP}\n").registered_gp
        assert gp is not None
        assert (gp.family_name, gp.rpps) == ("Martin", GP)


def test_a_planned_discharge_is_none_yet():
    found = notice("Patient : VALBRUNE Odette\nNé(e) le : 17/03/1948\nSortie : prévue le 05/12/2026\n")
    assert found.stay is None or found.stay.discharged is None
    assert "stay.discharged" in found.unknown
    planned = notice("Patient : VALBRUNE Odette\nNé(e) le : 17/03/1948\nDate de sortie prévue : 05/12/2026\n")
    assert planned.event is None


@pytest.mark.parametrize(
    "line",
    ["Bébé LEROUX Lina (mère : LEROUX Anne, née le 04/05/1990), née le 01/12/2026", "LEROUX Lina née le 01/12/2026, fille de LEROUX Anne née le 04/05/1990",
     "LEROUX Lina, née le 01/12/2026 - mère LEROUX Anne 04/05/1990"],
)  # fmt: skip
def test_a_birth_date_of_the_mother_is_not_the_childs(line: str):
    patient = notice(f"Patient : {line}\nSexe : F\n").patient
    assert patient is not None
    assert (patient.birth_name, patient.given_names) == ("LEROUX", ("Lina",))
    assert patient.birth_date == date(2026, 12, 1)


def test_two_gps_are_nobodys_to_choose_from():
    body = f"Médecin traitant : Dr Camille Martin\nRPPS : {GP}\nMédecin traitant : Dr Noé Durand\nRPPS : {letters.DURAND.rpps}\n"
    found = notice(HEAD + body)
    assert found.registered_gp is None
    assert found.unknown == ("registered_gp",)


def test_what_stands_there_and_cannot_be_read_is_unknown():
    found = notice(
        "Patient : VALBRUNE Odette\nNé(e) le : 31/02/1948\nSexe : ?!x\nINS : 12345\nMédecin traitant : Dr Martin\n"
        "RPPS : 1009990\nDate d'entrée : 45/11/2026\nDate de sortie : hier\nUrgence : à voir\nOpposition : peut-être\n"
    )
    assert set(found.unknown) == {
        "patient.birth_date", "patient.sex", "patient.ins", "registered_gp.rpps", "stay.admitted", "stay.discharged",
        "urgency", "consent",
    }  # fmt: skip
    assert found.event == "discharge"


@pytest.mark.parametrize("written", ["03/17/1948", "17/03/48", "1948", "mars 1948", "00/00/1948"])
def test_a_birth_date_is_never_guessed(written: str):
    found = notice(f"Patient : VALBRUNE Odette\nNé(e) le : {written}\n")
    assert found.patient is not None
    assert found.patient.birth_date is None
    assert found.unknown == ("patient.birth_date",)


@pytest.mark.parametrize(
    "second",
    [
        "Patient : LEROUX Paul\n",
        "Né(e) le : 01/01/1950\n",
        f"INS : {letters.ins_of('M', date(1950, 1, 1), '45234')}\n",
    ],
)
def test_a_second_person_is_seen(second: str):
    body = f"{HEAD}INS : {letters.ODETTE.ins}\n"
    assert codes(body + "\n" + body) == []
    assert codes(body + "\n" + second) == ["two_patients"]


def test_a_patient_line_that_shares_no_name_with_the_labels_is_somebody_else():
    born = "Date de naissance : 17/03/1948\n"
    labels = "Compte rendu de sortie\nNom : CORMERAIS\nPrénom : Odette\n"
    assert "two_patients" in codes(f"{labels}{born}Patient : LEROUX Paul\n")
    assert "two_patients" not in codes(f"{labels}{born}Patient : CORMERAIS Odette\n")


@pytest.mark.parametrize(
    ("body", "consent"),
    [
        ("Opposition : oui\n", "opposed"), ("Opposition : non\n", "allowed"), ("Consentement : recueilli\n", "allowed"),
        ("Consentement : refusé\n", "opposed"), ("Masquage : oui\n", "masked"),
        ("Le patient s'oppose à la transmission à son médecin traitant.\n", "opposed"),
        ("Le patient ne s'oppose pas à la transmission à son médecin traitant.\n", None),
        ("Opposition : non\nLe patient s’est opposé à l’envoi de la lettre.\n", "opposed"), ("", None),
    ],
)  # fmt: skip
def test_the_patients_will_is_read(body: str, consent: str | None):
    assert notice(HEAD + body).consent == consent


@pytest.mark.parametrize(
    ("subject", "body", "event", "document"),
    [
        ("Avis de sortie", HEAD, "discharge", "letter"),
        ("x", HEAD, "discharge", "letter"),
        (
            "Compte rendu d'hospitalisation",
            "Patient : VALBRUNE Odette\nNé(e) le : 17/03/1948\n",
            "discharge",
            "letter",
        ),
        ("x", f"{HEAD}Lettre de liaison à venir.\n", "discharge", "advance_notice"),
        ("[Annule et remplace] Lettre de liaison", HEAD, "discharge", "replacement"),
        ("Addendum à la lettre de liaison", HEAD, "discharge", "addendum"),
        ("x", f"{HEAD}Mode de sortie : Décès\n", "death", "letter"),
        ("Compte rendu de passage aux urgences", HEAD, "er_visit", "letter"),
        (
            "x",
            "Patient : VALBRUNE Odette\nNé(e) le : 17/03/1948\nType de document : Avis d'admission\n",
            "admission",
            "letter",
        ),
        ("Résultats", "Patient : VALBRUNE Odette\nNé(e) le : 17/03/1948\n", None, None),
    ],
)
def test_the_event_is_what_the_letter_says(subject: str, body: str, event: str | None, document: str | None):
    found = notice(body, subject)
    assert (found.event, found.document) == (event, document)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("Dr d'Aubigné", (None, "d'Aubigné")), ("Docteur Jean-Paul LE GALL, Orléans", ("Jean-Paul", "LE GALL")),
     ("Mme le Dr Alix Dupont - 45000 Orléans", ("Alix", "Dupont")), ("MARTIN Camille", ("Camille", "MARTIN"))],
)  # fmt: skip
def test_a_doctors_name_is_taken_apart(written: str, expected: tuple[str | None, str]):
    found = person(written)
    assert found is not None
    assert (found.given_name, found.family_name) == expected


def test_a_civility_and_a_time_of_day_may_stand_on_lines_of_their_own():
    found = notice("Civilité : Mme\nNom : VALBRUNE\nPrénom : Odette\nDate de naissance : 19480317\nDate de sortie : 01/12/2026\n"
                   "Heure de sortie : 14h30\n")  # fmt: skip
    assert found.patient is not None
    assert (found.patient.sex, found.patient.birth_date) == ("F", date(1948, 3, 17))
    assert found.stay is not None
    assert (found.stay.discharged, found.stay.discharged_exact) == (
        datetime(2026, 12, 1, 13, 30, tzinfo=UTC),
        True,
    )


@settings(max_examples=many(300), deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.one_of(st.sampled_from(FRENCH.split("\n") + ENGLISH.split("\n")), st.text(max_size=40)),
        max_size=25,
    ).map("\n".join)
)
def test_no_text_raises_and_nobody_elses_rpps_is_taken(body: str):
    found = text.read(body, subject=body[:50]).notice
    assert not any(problem.code == "unreadable_document" for problem in found.problems)
    if found.registered_gp is not None:
        assert found.registered_gp.rpps != AUTHOR or "traitant" in body or "GP" in body


def test_ordinary_prose_has_no_patient():
    letter = text.read(
        "Bonjour,\nService : Cardiologie\nRéunion : demain 14:00\nPatient : merci !\n", subject="Réunion"
    )
    assert not letter.has_patient
    assert not letter.is_discharge


def test_splitting_a_name_loses_no_word():
    for name in (
        "DE LA TOUR Jean",
        "Jean DE LA TOUR",
        "van der BERG Anna Maria",
        "A",
        "",
        "ÉLOÏSE",
        "Marie LEROUX Paul",
    ):
        family, given, _ = split_name(name)
        assert sorted(" ".join([family or "", *given]).split()) == sorted(name.split())


def test_a_long_letter_is_read_fast():
    body = FRENCH + "\n" + f"{letters.PARAGRAPH}\n\n" * 400
    began = time.process_time()
    for _ in range(10):
        text.read(body)
    assert (time.process_time() - began) / 10 < 0.01
    hostile = "Patient : " + "A " * 200_000 + "\n" + ":" * 100_000 + "\n" + "né le " * 50_000
    began = time.process_time()
    text.read(hostile)
    assert time.process_time() - began < 1


def labels_of(name: str) -> list[str]:
    """Every label of a field, one that needs nothing else on its line."""
    return sorted(label for label, field in text._LABELS.items() if field == name)


ROWS: dict[str, tuple[list[str], list[str]]] = {
    "born": (labels_of("born"), ["17/03/1948", "17.03.1948", "17 mars 1948", "1948-03-17", "17-03-1948", "17 / 03 / 1948", "19480317"]),
    "sex": (labels_of("sex"), ["F", "féminin", "Female", "femme", "F."]),
    "ins": (labels_of("ins"), ["248034523400724", "2 48 03 45 234 007 24", "2480345234007 clé 24", "248034523400724 (NIR)"]),
    "ipp": (labels_of("ipp"), ["900012345"]),
    "stay": (labels_of("stay"), ["S-2026-004217"]),
    "ward": (labels_of("ward"), ["Cardiologie"]),
    "admitted": (labels_of("admitted"), ["23/11/2026", "23 novembre 2026", "lundi 23/11/2026"]),
    "discharged": (labels_of("discharged"), ["01/12/2026", "1er décembre 2026", "le 01/12/2026", "01/12/26", "December 1, 2026"]),
    "exit_mode": (labels_of("exit_mode"), ["Domicile", "retour à domicile", "home"]),
}  # fmt: skip
BEARINGS = ["{label} : {value}", "{label}: {value}", "- {label} : {value}", "• {label} : {value}", "{label}\t: {value}", "{label} = {value}",
            "{label} :\u00a0{value}", "  {label}  :  {value}  ", "* {label} : {value}", "{label}\t{value}", "{label} | {value}"]  # fmt: skip


@st.composite
def wards_letters(draw: st.DrawFn) -> str:
    """A letter about the same patient, every line in some ward's words, in any order."""

    def line(label: str, value: str) -> str:
        shown = draw(st.sampled_from([label, label.capitalize(), label.upper()]))
        return draw(st.sampled_from(BEARINGS)).format(label=shown, value=value)

    name = draw(st.sampled_from([
        [line(draw(st.sampled_from(labels_of("birth_name"))), "CORMERAIS"), line(draw(st.sampled_from(labels_of("given"))), "Odette")],
        [line(draw(st.sampled_from(labels_of("patient"))), "CORMERAIS Odette")],
        [line(draw(st.sampled_from(labels_of("family_first"))), "CORMERAIS Odette")],
    ]))  # fmt: skip
    doctor = [line(draw(st.sampled_from(labels_of("gp"))), draw(st.sampled_from(["Dr Camille Martin", "MARTIN Camille", "Docteur Camille MARTIN"]))),
              line(draw(st.sampled_from(labels_of("rpps") + labels_of("gp_rpps"))), GP)]  # fmt: skip
    author = [
        line(draw(st.sampled_from(labels_of("doctor"))), "Dr Solenn Kerbellec"),
        line(draw(st.sampled_from(labels_of("rpps"))), str(AUTHOR)),
    ]
    rows = [
        [line(draw(st.sampled_from(labels)), draw(st.sampled_from(values)))]
        for labels, values in ROWS.values()
    ]
    blocks = draw(st.permutations([name, doctor, author, *rows]))
    between = draw(st.sampled_from(["\n", "\n\n"]))
    return between.join("\n".join(block) for block in blocks) + "\n"


@settings(max_examples=many(400), deadline=None, suppress_health_check=list(HealthCheck))
@given(wards_letters())
def test_any_label_in_any_order_is_read(body: str):
    found = notice(body)
    patient, stay, gp = found.patient, found.stay, found.registered_gp
    assert patient is not None
    assert stay is not None
    assert gp is not None
    assert (patient.birth_name, patient.given_names, patient.birth_date) == (
        "CORMERAIS",
        ("Odette",),
        date(1948, 3, 17),
    )
    assert (patient.sex, patient.ins) == ("F", "248034523400724")
    assert [one.value for one in patient.local_ids] == ["900012345"]
    assert (gp.family_name or "").upper() == "MARTIN"
    assert gp.rpps == GP
    assert found.author is not None
    assert found.author.rpps == AUTHOR
    assert (stay.number, stay.ward, stay.exit_mode) == ("S-2026-004217", "Cardiologie", "home")
    assert stay.admitted is not None
    assert stay.discharged is not None
    assert (found.event, found.problems) == ("discharge", ())
