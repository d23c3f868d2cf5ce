"""What people read: the fixed wordings letter by letter, both languages complete, chat free of people."""

from __future__ import annotations

import string
from datetime import UTC, date, datetime
from itertools import product
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po

from relay import wording
from relay.model import (
    Button,
    ChatFields,
    ChatKind,
    ChatRecipe,
    Delivery,
    Patient,
    Person,
    Professional,
    Purpose,
    ThreadState,
    Verb,
    Why,
)
from relay.planning.copies import MAIN, SECOND
from relay.wording import Words, chat, chat_message, chat_text, doctor, label

RELAY = Path(wording.__file__).parent
FR, EN = Words(), Words("en")
REF = "7F3Q-K2M9"
AT = datetime(2026, 12, 4, 16, 42, tzinfo=UTC)


def sources() -> list[str]:
    """Every French text that is said anywhere."""
    files = [RELAY / "wording.py", *sorted((RELAY / "planning").glob("*.py"))]
    found = {
        message: None
        for file in files
        for _, message, _, _ in extract_from_file("python", str(file), keywords={"say": None, "N_": None})
    }
    return [message for message in found if isinstance(message, str)]


def english() -> dict[str, str]:
    with (RELAY / "locale" / "en.po").open("rb") as file:
        return {str(m.id): str(m.string) for m in read_po(file, locale="en") if m.id}


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


def test_every_reason_has_words_of_its_own():
    assert set(wording.REASONS) == set(Why)
    assert set(wording.STATES) == set(ThreadState)
    for why in Why:
        assert FR.why(why)
        assert EN.why(why)
        assert FR.why(why) != EN.why(why), why


def test_every_text_has_its_english_and_no_english_is_left_over():
    assert set(english()) == set(sources())
    assert not [text for text, translated in english().items() if not translated]


def test_an_english_text_names_what_its_french_names():
    assert {text: names(text) for text in english()} == {text: names(en) for text, en in english().items()}


def test_the_first_line_of_a_letter_is_the_agreed_one():
    assert FR.letter(REF, "Cardiologie", None).splitlines()[0] == (
        "Réf. 7F3Q-K2M9 — Répondez par un mot : OK (bien reçu), RAPPEL (rappelez-moi), "
        "ERREUR (pas mon patient), ou écrivez votre question."
    )


def test_the_agreed_subjects_names_and_notes():
    assert FR.letter_subject(REF) == "Lettre de liaison – Réf. 7F3Q-K2M9"
    assert FR.sender_name("Cardiologie", "CHR d'Exemple") == "Cardiologie – CHR d'Exemple (Relais)"
    assert FR.sender_name("Cardiologie", "") == "Cardiologie (Relais)"
    assert FR.receipt(REF, AT, "Dr X", "Orléans").text.splitlines()[0] == (
        "Reçue 17 h 42, envoyée au Dr X, Orléans. Erreur ? Répondez ANNULER."
    )
    assert "Envoyée par erreur : merci de supprimer sans lire." in FR.recall(REF).text
    assert "Copie pour information, aucune réponse attendue" in FR.copy(REF, "", None)
    assert "Sorti ce jour, lettre à venir" in FR.notice(REF, "", None, None)
    assert FR.popup(Why.PRESS_TAKEN, who="Dr X", at=datetime(2026, 12, 4, 13, 2, tzinfo=UTC)) == (
        "déjà prise par Dr X à 14:02"
    )


def test_dates_are_those_of_the_sites_wall_clock():
    assert FR.moment(AT) == "4/12, 17 h 42"
    assert EN.moment(AT) == "4 Dec, 17:42"
    assert Words("fr", "Indian/Reunion").hour(AT) == "20 h 42"
    assert FR.day(date(1948, 3, 9)) == "09/03/1948"


def test_a_sentence_joins_day_and_hour():
    assert "depuis le 4/12 à 17 h 42." in FR.channel_down("retours", AT, None, None).text
    assert "envoyée le 4/12 à 17 h 42 et attend" in FR.reminder(REF, AT).text
    assert "since 4 Dec at 17:42" in EN.channel_down("retours", AT, None, None).text


def test_whoever_a_letter_was_for_the_sentence_stands():
    for key, name in (("pharmacist", "Le pharmacien"), ("nurse", "L'infirmier ou l'infirmière")):
        text = FR.failed(REF, FR.role(key), Why.UNKNOWN_MAILBOX).text
        assert f"remise : la boîte du destinataire n'existe pas.\nDestinataire : {name}.\n" in text
    assert "Destinataire : Un correspondant." in FR.no_evidence(REF, "").text
    assert "envoyée au médecin traitant, 45160." in FR.receipt(REF, AT, "", "45160").text


def test_the_admins_are_told_a_command_that_works():
    assert "relay rules apply --accept --reason" in FR.rules_waiting("x").text


def test_a_hold_note_has_the_lines_to_fill_in_and_those_of_identity_where_they_matter():
    note = FR.hold_note(REF, "Médecin traitant à trouver.").text
    assert "Médecin traitant :\nRPPS :\nNé(e) le :\n" in note
    assert "INS" not in note
    assert "rien n'a été envoyé.\nMotif : Médecin traitant à trouver." in note
    assert "INS :\nSexe :" in FR.hold_note(REF, "x", identity=True).text
    assert "RPPS" not in FR.hold_note(REF, "x", fields=False).text


def test_the_subject_of_a_question_says_what_its_asker_is_to_the_patient_and_no_name():
    assert {asker: FR.asked(REF, asker) for asker in ("gp", "patient", "rpps:10000000001")} == {
        "gp": f"Question du médecin traitant – Réf. {REF}",
        "patient": f"Question du patient – Réf. {REF}",
        "rpps:10000000001": f"Question d'un correspondant – Réf. {REF}",
    }
    coded = EN.coded_question(REF, "The pharmacist", "call", asker="pharmacist")
    assert coded.subject == f"Question from the pharmacist – Ref. {REF}"


def test_no_subject_names_anybody():
    patient = FR.patient(Patient(birth_name="VALBRUNE", given_names=("Odette",), birth_date=date(1948, 3, 9)))
    assert patient == "Patient : VALBRUNE Odette, né(e) le 09/03/1948"
    known = Patient(birth_name="VALBRUNE", birth_date=date(1948, 3, 9), sex="F")
    assert FR.patient(known) == "Patient : VALBRUNE, née le 09/03/1948"
    mails = [
        FR.question(REF, "Dr X", "VALBRUNE ?", patient), FR.hold_note(REF, "x", patient=patient),
        FR.desk_hold(REF, "x", patient=patient), FR.answer(REF, "Cardiologie", "VALBRUNE"),
        FR.ack_note(REF, "Dr X", "VALBRUNE"),
    ]  # fmt: skip
    assert all("VALBRUNE" in mail.text for mail in mails)
    assert not any("VALBRUNE" in mail.subject or "Cardiologie" in mail.subject for mail in mails)


def test_words_of_people_may_hold_braces():
    assert "{0} {x}" in FR.answer(REF, "Cardiologie", "{0} {x}").text


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        (Professional("1", "AMBRE", "Zoé", "10"), "Dr Ambre"),
        (Professional("1", "LE-GALL", "Zoé", "Médecin"), "Dr Le-Gall"),
        (Professional("1", "SERRE", "ZOÉ", "Pharmacien"), "Zoé Serre"),
        (Person(family_name="Ambre"), "Dr Ambre"),
        (Person(), ""),
    ],
)
def test_a_professional_is_named_as_colleagues_name_them(person: Professional | Person, expected: str):
    assert doctor(person) == expected


# ----------------------------------------------------------------------------------------------------------- chat


def test_the_agreed_alerts():
    assert chat_text(ChatFields(ChatKind.ALERT, REF)) == (
        "Lettre de sortie à lire dans votre messagerie sécurisée. Non urgente. Réf. 7F3Q-K2M9"
    )
    assert chat_text(ChatFields(ChatKind.ALERT, REF, urgent=True)) == (
        "SIGNALÉE URGENTE par l'hôpital, à lire aujourd'hui. Réf. 7F3Q-K2M9"
    )
    assert "retirée" in chat_text(ChatFields(ChatKind.WITHDRAWN, REF))
    assert chat_text(ChatFields(ChatKind.REDIRECT)) == "Écrivez-nous par messagerie sécurisée."


def test_a_list_names_letters_by_their_arrival():
    said = chat_text(ChatFields(ChatKind.LIST, references=((REF, AT),)))
    assert said == "Lettres en attente : 1\nlettre du 4/12, 17 h 42 – Réf. 7F3Q-K2M9"


def test_the_buttons_are_the_agreed_ones_and_the_first_acknowledges():
    rows = [[label(Button(verb, "n", choice)) for verb, choice in row] for row in MAIN]
    assert rows[0][0] == "Bien reçu"
    assert {text for row in rows for text in row} == {
        "Bien reçu", "Rappelez-moi", "Plus tard", "Pas mon patient", "Question",
    }  # fmt: skip
    asked = [label(Button(verb, "n", choice)) for row in SECOND["ask"] for verb, choice in row]
    assert asked == ["Rappelez-moi", "Traitement", "Rendez-vous", "Résultat attendu"]
    later = [label(Button(verb, "n", choice)) for row in SECOND["snooze"] for verb, choice in row]
    assert later == ["1 h", "Demain 8 h", "Lundi"]


@pytest.mark.parametrize(("kind", "language", "urgent"), list(product(ChatKind, ("fr", "en"), (False, True))))
def test_every_chat_text_is_short_and_made_of_its_fields_only(kind: ChatKind, language: str, urgent: bool):
    one = ChatFields(kind, REF, urgent=urgent, at=AT, arrived=AT, references=((REF, AT),), language=language)
    said = chat_text(one)
    assert said
    assert len(said) < 300
    assert "{" not in said


def test_chat_fields_take_no_word_but_a_reference():
    with pytest.raises(ValueError, match="reference"):
        ChatFields(ChatKind.ALERT, "VALBRUNE")
    with pytest.raises(ValueError, match="reference"):
        ChatFields(ChatKind.LIST, references=(("VALBRUNE Odette", AT),))
    for account in ("VALBRUNE", "telegram:VALBRUNE", "matrix:@odette:example.fr", "telegram:1\nVALBRUNE"):
        with pytest.raises(ValueError, match="numbers"):
            ChatFields(ChatKind.UNKNOWN, account=account)


def test_a_chat_message_is_made_of_its_recipe():
    recipe = ChatRecipe(
        ChatFields(ChatKind.TAKEN, REF, at=AT), ((Button(Verb.ACK, "nonce"),),), edits="alert", silent=True
    )
    delivery = Delivery("d", "telegram", "rpps:1", "42", Purpose.EDIT, recipe, AT, remote="777")
    made = chat_message(delivery, recipe)
    assert (made.chat, made.edits, made.silent) == ("42", "777", True)
    assert made.text == "Prise en charge à 17:42. Réf. 7F3Q-K2M9"
    assert made.buttons == ((("Bien reçu", "nonce"),),)
    assert chat(recipe.fields, recipe.buttons, chat="42").edits is None
