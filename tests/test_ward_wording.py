"""How wards word things beyond the plain label: names with « née », wills in prose, a death, a second person."""

from __future__ import annotations

import unicodedata
from datetime import UTC, date, datetime

import pytest

from relay.formats import text
from relay.model import Patient
from relay.reading import html_text
from tests import letters

GP, AUTHOR = letters.MARTIN.rpps, letters.AUTHOR.rpps
HEAD = f"Patient : M. GARNEREAU Basile né le 12/03/1950\nMédecin traitant : Dr Camille MARTIN\nRPPS : {GP}\nDate de sortie : 01/12/2026\n"


def read(body: str, subject: str = "") -> text.Letter:
    return text.read(body, subject=subject)


@pytest.mark.parametrize(
    ("line", "birth", "used", "given", "born"),
    [
        ("Mme Jeanne DUPONT, née MARTIN, le 12/03/1950", "MARTIN", "DUPONT", ("Jeanne",), date(1950, 3, 12)),
        ("Mme DUPONT Jeanne - née MARTIN - 12/03/1950", "MARTIN", "DUPONT", ("Jeanne",), date(1950, 3, 12)),
        ("Mme. Jeanne DUPONT (NJF : MARTIN) née le 12 mars 1950", "MARTIN", "DUPONT", ("Jeanne",), date(1950, 3, 12)),
        ("Mme veuve DUPONT née MARTIN Jeanne", "MARTIN", "DUPONT", ("Jeanne",), None),
        ("Mme DUPONT Jeanne née à Orléans le 12/03/1950", "DUPONT", None, ("Jeanne",), date(1950, 3, 12)),
        ("Mme DUPONT-MARTIN Jeanne, née en 1950", "DUPONT-MARTIN", None, ("Jeanne",), None),
        ("Mme DUPONT née MARTIN Jeanne à Orléans le 12/03/1950", "MARTIN", "DUPONT", ("Jeanne",), date(1950, 3, 12)),
        ("Monsieur le Docteur Jean DUPONT né le 12/03/1950", "DUPONT", None, ("Jean",), date(1950, 3, 12)),
    ],
)  # fmt: skip
def test_a_name_with_its_birth_name_is_taken_apart_however_it_is_pointed(
    line: str, birth: str, used: str | None, given: tuple[str, ...], born: date | None
):
    patient = read(f"Patient : {line}\nDate de sortie : 01/12/2026\n").notice.patient or Patient()
    assert (patient.birth_name, patient.used_name, patient.given_names, patient.birth_date) == (
        birth,
        used,
        given,
        born,
    )


def test_accents_that_stand_apart_are_the_same_letters():
    letter = read(unicodedata.normalize("NFD", HEAD.replace("Basile", "Zoé")))
    assert letter.notice.patient is not None
    assert letter.notice.patient.given_names == ("Zoé",)
    assert letter.notice.patient.birth_date == date(1950, 3, 12)


@pytest.mark.parametrize(
    "said",
    [
        "Patient : GARNEREAU Basile et VASSEUR Odile\nDate de sortie : 01/12/2026\n",
        "Patient : M. et Mme GARNEREAU\nDate de sortie : 01/12/2026\n",
        f"{HEAD}\nPar ailleurs Mme VASSEUR Odile née le 02/07/1944 est sortie ce jour, merci de la voir.\n",
        f"{HEAD}\nMadame Odile VASSEUR, née le 2 juillet 1944, rentre aussi.\n",
    ],
)
def test_two_people_in_one_line_or_beside_the_labels_are_two(said: str):
    assert "two_patients" in [problem.code for problem in read(said).notice.problems]


@pytest.mark.parametrize(
    "said",
    [
        "M. GARNEREAU Basile, né le 12/03/1950, a été hospitalisé.",
        "Son épouse Mme GARNEREAU Odile née le 02/07/1944 est prévenue.",
        "Personne de confiance : Mme VASSEUR Odile née le 02/07/1944.",
        "Représentant légal : Mme VASSEUR Odile née le 02/07/1944",
        "Il est suivi par le Dr Martin depuis le 02/07/1994.",
    ],
)
def test_the_patient_again_or_somebody_of_the_family_is_no_second_patient(said: str):
    assert not read(f"{HEAD}\n{said}\n").notice.problems


@pytest.mark.parametrize(
    "said",
    [
        "Patient opposé à la transmission au médecin traitant.",
        "Le patient ne souhaite pas que ce courrier soit transmis à son médecin traitant.",
        "La patiente n'autorise pas l'envoi de ce document à son médecin traitant.",
        "Le patient ne veut pas que son médecin traitant soit informé de cette hospitalisation.",
        "Le patient a exprimé son opposition à la transmission de la lettre.",
        "Refus du patient de transmettre au médecin traitant.",
        "Confidentiel : la patiente refuse que le Dr Martin soit informé.",
        "LE PATIENT S'OPPOSE A LA TRANSMISSION AU MEDECIN TRAITANT",
        "En cas d'opposition du patient, merci de le noter.\nLe patient s’oppose à la transmission de cette lettre.",
        "The patient does not want this letter sent to the GP.",
    ],
)
def test_a_will_told_in_prose_is_an_objection(said: str):
    assert read(f"{HEAD}\n{said}\n").notice.consent == "opposed"


@pytest.mark.parametrize(
    "said",
    ["Ne pas transmettre au médecin traitant.", "Merci de ne pas prévenir le Dr Martin", "Do not send to the GP."],
)  # fmt: skip
def test_an_order_not_to_send_leaves_consent_unreadable(said: str):
    assert "consent" in read(f"{HEAD}\n{said}\n").notice.unknown


@pytest.mark.parametrize(
    "said",
    [
        "Le patient peut s'opposer au partage de ses données.",
        "Vous disposez d'un droit d'opposition à la communication de vos données.",
        "Sauf opposition du patient, ce document est transmis au médecin traitant.",
        "En l'absence d'opposition du patient, ce courrier est transmis.",
        "Le patient ne s'est pas opposé à la transmission.",
        "Le patient n'a pas exprimé son opposition à la transmission.",
        "Si le patient s'oppose à la transmission, merci de nous prévenir.",
        "La patiente a refusé l'envoi en SSR et rentre à domicile.",
        "La patiente refuse un antidépresseur, à rediscuter avec le médecin traitant.",
        "Le patient s'oppose à l'ouverture d'un dossier médical partagé.",
        "Le patient refuse de prendre son traitement, communication difficile.",
        "Si vous n'êtes pas le destinataire, merci de ne pas communiquer ce message et d'avertir l'expéditeur.",
    ],
)
def test_a_notice_of_rights_or_a_refused_treatment_is_no_objection(said: str):
    found = read(f"{HEAD}\n{said}\n").notice
    assert found.consent is None
    assert "consent" not in found.unknown


@pytest.mark.parametrize(
    "said",
    [
        "Date de décès : 30/11/2026",
        "Décédé le : 30/11/2026",
        "Décès le 30/11/2026",
        "Date de sortie : 01/12/2026 (décès)",
        "Sortie : décès le 01/12/2026",
        "Patient décédé dans le service le 30/11/2026 à 4 h.",
    ],
)
def test_a_death_is_no_discharge_wherever_the_letter_says_it(said: str):
    assert read(f"{HEAD.replace('Date de sortie', 'Sortie le')}{said}\n").notice.event == "death"


def test_a_death_that_did_not_happen_or_not_to_the_patient_changes_nothing():
    for said in (
        "Décès : non",
        "Décès : père à 60 ans d'un infarctus",
        "Frère du patient décédé d'un infarctus.",
    ):
        assert read(f"{HEAD}{said}\n").notice.event == "discharge", said


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Médecin traitant : M. MARTIN Camille", ("MARTIN", "Camille")),
        ("Médecin traitant : Dr MARTIN prévenu", ("MARTIN", None)),
        ("Médecin traitant : prévenu par téléphone", None),
        ("Médecin traitant : voir ci-dessous", None),
        ("Méd. traitant : Dr MARTIN", ("MARTIN", None)),
        (f"Médecin traitant : {GP} - MARTIN Camille", ("MARTIN", "Camille")),
        ("Médecin traitant (retraité) : Dr MARTIN", None),
    ],
)
def test_what_stands_around_the_gps_name_is_none_of_it(line: str, expected: tuple[str, str | None] | None):
    gp = read(f"Patient : GARNEREAU Basile\n{line}\nDate de sortie : 01/12/2026\n").notice.registered_gp
    assert (gp and (gp.family_name, gp.given_name)) == expected


def test_a_gp_who_is_said_to_have_retired_is_unknown():
    found = read(
        "Patient : GARNEREAU Basile\nMédecin traitant (retraité) : Dr MARTIN\nSortie le : 01/12/2026\n"
    )
    assert "registered_gp" in found.notice.unknown


@pytest.mark.parametrize(
    "between", ["Paul KERBELLEC, cardiologue", "Cordialement,", "Service de cardiologie"]
)
def test_a_number_below_the_wards_own_words_is_not_the_gps(between: str):
    gp = read(
        f"Patient : GARNEREAU Basile\nSortie le : 01/12/2026\nMédecin traitant : Dr MARTIN\n{between}\nRPPS {AUTHOR}\n"
    ).notice.registered_gp
    assert gp is not None
    assert gp.rpps is None


@pytest.mark.parametrize(
    "between", ["12 rue des Tilleuls", "Cabinet du Parc", "45160 Olivet", "Tél. 02 38 00 00 00"]
)
def test_a_number_below_the_gps_address_is_the_gps(between: str):
    gp = read(
        f"Patient : GARNEREAU Basile\nSortie le : 01/12/2026\nMédecin traitant : Dr MARTIN\n{between}\nRPPS : {GP}\n"
    ).notice.registered_gp
    assert gp is not None
    assert gp.rpps == GP


@pytest.mark.parametrize(
    "body",
    [
        HEAD.replace("\n", " / ").replace(" né le", " / Né le :"),
        "".join(f"{n}) {line}\n" for n, line in enumerate(HEAD.splitlines(), 1)),
        "".join(f"{line.replace(' : ', ' -> ')}\n" for line in HEAD.splitlines()),
    ],
)  # fmt: skip
def test_slashes_numbers_and_arrows_part_labelled_values(body: str):
    letter = read(body)
    patient, gp = letter.notice.patient, letter.notice.registered_gp
    assert patient is not None
    assert (patient.birth_name, patient.given_names, patient.birth_date) == (
        "GARNEREAU",
        ("Basile",),
        date(1950, 3, 12),
    )
    assert gp is not None
    assert gp.rpps == GP
    assert letter.notice.stay is not None


def test_a_column_that_says_nothing_of_the_patient_hides_none_of_the_others():
    row = "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>"
    head = row.format("Nom", "Prénom", "DDN", "Chambre", "Sortie le")
    one = row.format("GARNEREAU", "Basile", "12/03/1950", "12", "01/12/2026")
    two = row.format("VASSEUR", "Odile", "02/07/1944", "14", "01/12/2026")
    patient = read(html_text(f"<table>{head}{one}</table>")).notice.patient or Patient()
    assert (patient.birth_name, patient.given_names, patient.birth_date) == (
        "GARNEREAU",
        ("Basile",),
        date(1950, 3, 12),
    )
    both = read(html_text(f"<table>{head}{one}{two}</table>")).notice
    assert "two_patients" in [problem.code for problem in both.problems]


def test_the_first_lines_may_say_that_a_letter_replaces_another():
    assert read(f"Annule et remplace le courrier du 30/11.\n\n{HEAD}").notice.document == "replacement"
    assert read(f"Cette lettre annule et remplace la précédente.\n\n{HEAD}").notice.document == "replacement"
    assert read(f"{HEAD}\nCette ordonnance annule et remplace la précédente.\n").notice.document == "letter"
    assert read(HEAD, subject="Lettre de liaison envoyée par erreur").notice.document == "retraction"


@pytest.mark.parametrize(
    ("line", "rpps"),
    [
        ("Médecin traitant / RPPS : Dr Camille MARTIN / {}", GP),
        ("Médecin traitant actuel : Dr Camille MARTIN\nN° RPPS MT : {}", GP),
        ("Médecin traitant : Dr Camille MARTIN\nRPPS : {0:.2}.{0:.0}{1}", GP),
        ("Médecin traitant : Dr Camille MARTIN, {} 4 rue du Parc", GP),
    ],
)
def test_the_gps_number_is_found_however_it_is_set(line: str, rpps: str):
    said = line.format(GP, f"{GP[2:5]}.{GP[5:8]}.{GP[8:]}") if "{0" in line else line.format(GP)
    gp = read(f"Patient : GARNEREAU Basile\nSortie le : 01/12/2026\n{said}\n").notice.registered_gp
    assert gp is not None
    assert (gp.family_name, gp.rpps) == ("MARTIN", rpps)


def test_the_gps_secure_address_may_have_a_label_of_its_own():
    found = read(
        f"{HEAD}\n\nAdresse MSSanté du médecin traitant : camille.martin@medecin.mssante.fr\n"
    ).notice.registered_gp
    assert found is not None
    assert found.mss_address == "camille.martin@medecin.mssante.fr"


@pytest.mark.parametrize(
    "line", ["Séjour : 20/11/2026 - 01/12/2026", "Entrée / sortie : 20/11/2026 → 01/12/2026"]
)
def test_two_days_with_a_dash_are_the_stay(line: str):
    stay = read(f"Patient : GARNEREAU Basile\n{line}\n").notice.stay
    assert stay is not None
    assert stay.admitted == datetime(2026, 11, 19, 23, tzinfo=UTC)
    assert stay.discharged == datetime(2026, 11, 30, 23, tzinfo=UTC)


def test_a_stay_that_ends_before_it_begins_is_unknown():
    found = read("Patient : GARNEREAU Basile\nSéjour : 01/12/2026 - 20/11/2026\n").notice
    assert (found.stay, "stay.discharged" in found.unknown) == (None, True)


def test_an_ins_that_is_said_to_be_for_tests_or_not_qualified_is_no_ones_for_certain():
    for said, oid, unknown in (
        ("(INS de test)", "1.2.250.1.213.1.4.10", False),
        ("- non qualifiée", None, True),
        ("(identité provisoire)", None, True),
        ("", None, False),
    ):
        found = read(f"INS : {letters.ODETTE.ins} {said}\n{HEAD}").notice
        assert found.patient is not None
        assert (found.patient.ins, found.patient.ins_oid) == (letters.ODETTE.ins, oid), said
        assert ("patient.ins" in found.unknown) is unknown, said


def test_a_subject_that_begins_with_urgent_says_so_and_a_label_goes_before_it():
    assert read(HEAD, subject="URGENT - Lettre de liaison").notice.urgency == "urgent"
    assert read(f"{HEAD}Urgence : non\n", subject="Urgent : lettre").notice.urgency == "routine"
    assert read(HEAD, subject="Lettre de liaison (urgences)").notice.urgency is None


def test_the_emergency_departments_letter_is_told_by_its_title():
    body = f"COMPTE RENDU DE PASSAGE AUX URGENCES\n\n{HEAD}"
    assert read(body).notice.event == "er_visit"
    assert read(f"{HEAD}\nAprès un passage aux urgences, il a été hospitalisé.\n").notice.event == "discharge"


@pytest.mark.parametrize(
    ("lines", "birth", "used"),
    [
        ("Nom : DUPONT (née MARTIN)\nPrénom : Jeanne", "MARTIN", "DUPONT"),
        ("Nom : DUPONT née MARTIN\nPrénom : Jeanne", "MARTIN", "DUPONT"),
        ("Nom : MARTIN épouse DUPONT\nPrénom : Jeanne", "MARTIN", "DUPONT"),
        ("Nom de naissance : MARTIN Jeanne", "MARTIN", None),
        ("Nom : LE GOFF Jeanne", "LE GOFF", None),
    ],
)
def test_a_name_line_may_hold_both_names_or_the_given_one(lines: str, birth: str, used: str | None):
    patient = read(f"{lines}\nNée le : 12/03/1950\nSortie le : 01/12/2026\n").notice.patient or Patient()
    assert (patient.birth_name, patient.used_name, patient.given_names) == (birth, used, ("Jeanne",))


@pytest.mark.parametrize(
    ("line", "consent", "unknown"),
    [
        ("Opposition : ☐ oui ☒ non", "allowed", False),
        ("Opposition : ☒ oui ☐ non", "opposed", False),
        ("Opposition : oui ☐ non ☒", "allowed", False),
        ("Opposition : [x] oui [ ] non", "opposed", False),
        ("Consentement : [ ] oui [X] non", "opposed", False),
        ("Opposition : ☐ oui ☐ non", None, False),
        ("Opposition : oui / non", None, True),
        ("Consentement : OUI/NON", None, True),
    ],
)
def test_a_ticked_box_says_what_stands_beside_it(line: str, consent: str | None, unknown: bool):
    found = read(f"{HEAD}{line}\n").notice
    assert (found.consent, "consent" in found.unknown) == (consent, unknown)


@pytest.mark.parametrize(
    ("line", "mode", "unknown"),
    [
        ("Mode de sortie : ☒ domicile ☐ SSR ☐ EHPAD ☐ décès", "home", False),
        ("Mode de sortie : ☐ domicile ☒ SSR ☐ EHPAD ☐ décès", "rehabilitation", False),
        ("Mode de sortie : domicile ☐ SSR ☒ EHPAD ☐ décès ☐", "rehabilitation", False),
        ("Mode de sortie : domicile / SSR / EHPAD / décès", None, True),
        ("Mode de sortie : domicile, avec HAD", "home_hospitalisation", False),
        ("Mode de sortie : ☐ domicile ☐ SSR ☐ EHPAD ☐ décès", None, False),
    ],
)
def test_of_a_list_of_ways_out_the_ticked_one_counts(line: str, mode: str | None, unknown: bool):
    found = read(f"{HEAD}{line}\n").notice
    assert found.stay is not None
    assert (found.event, found.stay.exit_mode, "stay.exit_mode" in found.unknown) == (
        "discharge",
        mode,
        unknown,
    )


def test_a_ticked_sex_is_the_sex():
    found = read("Nom : MARTIN\nPrénom : Jeanne\nNée le : 12/03/1950\nSexe : ☐ M ☒ F\n").notice
    assert found.patient is not None
    assert (found.patient.sex, found.unknown) == ("F", ())


@pytest.mark.parametrize(
    ("lines", "gp"),
    [
        (f"Destinataire : Dr Camille MARTIN, médecin traitant\nRPPS : {GP}", ("MARTIN", GP)),
        (f"Destinataires : Dr Camille MARTIN (médecin traitant) ; Dr Noé DURAND (cardiologue)\nRPPS : {AUTHOR}", ("MARTIN", None)),
        ("Copie à : Dr Camille MARTIN - médecin traitant", ("MARTIN", None)),
        ("Destinataire : médecin traitant", None),
        ("Destinataire : Dr Noé DURAND, ancien médecin traitant", None),
        ("Destinataire : Mme Odile VASSEUR pour le médecin traitant", None),
        ("Médecin traitant : non déclaré, suivi par le Dr MARTIN", None),
        ("Médecin traitant : Dr MARTIN jusqu'au 01/01/2026 puis Dr DURAND", None),
    ],
)  # fmt: skip
def test_a_recipient_is_the_gp_where_the_line_calls_them_so(lines: str, gp: tuple[str, str | None] | None):
    found = read(f"Patient : GARNEREAU Basile\nSortie le : 01/12/2026\n{lines}\n").notice.registered_gp
    assert (found and (found.family_name, found.rpps)) == gp


def test_what_is_crossed_out_is_not_said_and_is_shown_as_crossed_out():
    lines = html_text(
        f"<p>Patient : GARNEREAU Basile<br>Né le : 12/03/1950<br><del>Médecin traitant : Dr Noé DURAND<br>RPPS : {AUTHOR}</del><br>"
        f"Médecin traitant : <s>Dr Noé DURAND</s> Dr Camille MARTIN<br>RPPS : {GP}<br>Sortie le : 01/12/2026</p>"
    )
    assert "[barré : Dr Noé DURAND]" in lines
    found = read(lines).notice
    assert found.registered_gp is not None
    assert (found.registered_gp.family_name, found.registered_gp.rpps, found.unknown) == ("MARTIN", GP, ())
