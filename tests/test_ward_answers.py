"""What a ward reads after it answered the note about a held letter otherwise than was asked."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import pytest

from relay.model import Delivery, Mailbox, Professional, Why
from relay.wording import Words
from tests import letters
from tests.letters import DUPONT, MARTIN
from tests.stores import Place, empty_sqlite, place, store  # noqa: F401 - fixtures
from tests.test_failed_letters import answered, note_of, sound
from tests.test_loops import House, house, mails, without_gp  # noqa: F401 - fixtures
from tests.test_planning import _secret, headers, text  # noqa: F401 - fixtures

LINES = "Médecin traitant :\nRPPS :\nNé(e) le :"


async def held(house: House) -> Delivery:
    """A letter without GP; answers the ward's note."""
    await house.take(without_gp("S-9"))
    await house.leave()
    return note_of(house)


def told(house: House) -> list[Delivery]:
    return [each for each in mails(house) if each.to == "ward:cardiologie"]


def letters_left(house: House) -> list[str]:
    return [each.to for each in mails(house) if each.purpose == "letter"]


@pytest.mark.parametrize(
    "words",
    [
        "Bonjour, le médecin traitant est le Dr Martin à Orléans. Merci",
        "OK",
        "Médecin traitant : pas de médecin traitant",
        "RPPS : 1009990001",
        "",
    ],
)
async def test_a_ward_that_fills_in_nothing_readable_hears_that_nothing_left_and_may_answer_again(
    house: House, words: str
) -> None:
    note = await held(house)
    await answered(house, note, words)
    assert letters_left(house) == []
    again = told(house)[-1]
    assert again.id != note.id
    assert "rien n'a été envoyé" in text(again)
    assert "Une personne lira votre réponse." in text(again)
    assert LINES in text(again)
    assert headers(again)["Subject"] == headers(note)["Subject"].replace("retenue", "toujours retenue")
    # The desk reads whose words these are, not that nobody can tell.
    reasons = [str(each["reason"]) for each in await house.store.holds()]
    assert "Réponse du service au sujet de sa lettre retenue, sans ligne qui se lise" in reasons
    await answered(house, again, f"RPPS : {MARTIN.rpps}")
    assert letters_left(house) == [f"rpps:{MARTIN.rpps}"]
    await sound(house)


async def test_a_machine_that_answers_every_note_for_its_ward_is_answered_once(house: House) -> None:
    note = await held(house)
    for number in range(4):
        await answered(house, note, f"Message {number} bien enregistré, merci de patienter.")
        note = told(house)[-1]
    assert len(told(house)) == 2
    await answered(house, note, "Qui est ce médecin ?")
    assert len(told(house)) == 3


async def test_a_stranger_who_answers_the_note_makes_nobody_write_to_the_ward(house: House) -> None:
    note = await held(house)
    await answered(house, note, "OK", sender="x@ailleurs.mssante.fr")
    assert told(house) == [note]


@pytest.mark.parametrize(
    ("lines", "detail"),
    [
        ("Médecin traitant : Dr Camille Martin", "le nom seul ne suffit pas, ajoutez le RPPS du médecin"),
        ("RPPS : 10099900777", "l'annuaire ne connaît pas ce RPPS, vérifiez ses 11 chiffres"),
        (
            f"Médecin traitant : Dr Alix Dupont\nRPPS : {MARTIN.rpps}",
            "ce RPPS est celui d'un médecin d'un autre nom",
        ),
    ],
)
async def test_lines_that_were_not_enough_come_back_with_what_is_amiss_in_them(
    house: House, lines: str, detail: str
) -> None:
    await answered(house, await held(house), lines)
    assert letters_left(house) == []
    assert f"Précision : {detail}." in text(told(house)[-1])


async def test_a_ward_that_answers_an_old_note_hears_that_the_letter_waits_no_longer(house: House) -> None:
    await house.store.import_professionals(
        [Professional(DUPONT.rpps or "", "Dupont", "Alix", mailboxes=(Mailbox(DUPONT.mss_address or ""),))],
        str.upper,
    )
    note = await held(house)
    await answered(house, note, f"RPPS : {MARTIN.rpps}")
    before = told(house)
    await answered(house, note, f"RPPS : {DUPONT.rpps}")
    assert letters_left(house) == [f"rpps:{MARTIN.rpps}"]
    (again,) = [each for each in told(house) if each not in before]
    reasons = [str(each["reason"]) for each in await house.store.holds()]
    assert reasons == ["Réponse du service au sujet d'une lettre qui n'est plus retenue"]
    assert "Cette lettre n'est plus retenue : votre réponse n'y a rien changé." in text(again)
    assert "Pour retirer la lettre envoyée, répondez ANNULER." in text(again)
    await answered(house, again, "ANNULER")
    assert (await house.store.threads())[0]["closed_reason"] == "recalled"
    await sound(house)


async def test_a_letter_that_was_taken_back_while_it_waited_is_not_said_to_have_left(house: House) -> None:
    note = await held(house)
    (hold,) = await house.store.holds()
    await answered(house, note, "ANNULER")
    await answered(house, note, f"RPPS : {MARTIN.rpps}")
    assert hold["id"] not in [each["id"] for each in await house.store.holds()]
    assert "ANNULER" not in text(told(house)[-1])
    assert "n'est plus retenue" in text(told(house)[-1])


async def test_no_lines_are_asked_for_that_could_not_mend_the_letter(house: House) -> None:
    other = letters.patient("BOISGARD", "Rémi", sex="M", order=11)
    both = letters.labelled_lines(letters.ODETTE, MARTIN) + "\n" + letters.labelled_lines(other, MARTIN)
    await house.take(letters.text_mail(body=both, sender="sorties.cardio@chr-exemple.mssante.fr"))
    await house.leave()
    (hold,) = await house.store.holds()
    assert hold["why"] == Why.TWO_PATIENTS.value
    anew = "Envoyez la lettre corrigée comme une nouvelle lettre ; pour retirer celle-ci, répondez ANNULER."
    for words in ("", f"RPPS : {MARTIN.rpps}", "Il n'y a qu'un patient."):
        if words:
            await answered(house, note_of(house), words)
        assert anew in text(told(house)[-1])
        assert "RPPS" not in text(told(house)[-1])
    assert len(told(house)) == 3
    await answered(house, note_of(house), "ANNULER")
    assert str(hold["id"]) not in [str(each["id"]) for each in await house.store.holds()]
    assert letters_left(house) == []


def test_the_lines_are_explained_in_english_too() -> None:
    note = Words("en").lines_unread("7F3Q-K2M9", "no GP", anew=True).text
    assert "nothing was sent" in note
    assert "Send the corrected letter as a new letter" in note


@pytest.mark.parametrize(
    "words",
    [
        f"Pour la Réf. 7F3Q-K2M9 :\nRPPS : {MARTIN.rpps}",
        f"Patient : TRAVOISIER Anne, née le 17/03/1948\n\nMédecin traitant : Dr Martin\nRPPS : {MARTIN.rpps}",
        f"Mme TRAVOISIER Anne, née le 17/03/1948\n\nRPPS : {MARTIN.rpps}",
    ],
    ids=["the reference of another", "another patient's line", "another patient in words"],
)
async def test_lines_meant_for_another_held_letter_release_none(house: House, words: str) -> None:
    note = await held(house)
    await answered(house, note, words)
    assert letters_left(house) == []
    assert "autre" in text(told(house)[-1])
    assert LINES in text(told(house)[-1])
    await answered(house, told(house)[-1], f"RPPS : {MARTIN.rpps}")
    assert letters_left(house) == [f"rpps:{MARTIN.rpps}"]
    await sound(house)


async def test_annuler_beside_the_reference_of_another_letter_takes_none_back(house: House) -> None:
    await answered(house, await held(house), "ANNULER\nRéf. 7F3Q-K2M9")
    assert len(await house.store.holds()) == 1
    assert "répondez à chaque message séparément" in text(told(house)[-1])


async def test_a_ward_may_quote_the_note_name_its_patient_and_correct_their_birth_date(house: House) -> None:
    note = await held(house)
    quoted = "\n".join(f"> {line}" for line in text(note).splitlines())
    said = f"Mme BOISGARD Rémi\nRPPS : {MARTIN.rpps}\nNé(e) le : 02/04/1951\n\nLe 1 déc. 2026, Relais <r@x.fr> a écrit :\n{quoted}"
    await answered(house, note, said)
    assert letters_left(house) == [f"rpps:{MARTIN.rpps}"]


async def test_a_ward_that_asks_in_words_to_take_its_letter_back_reads_the_word_that_does(
    house: House,
) -> None:
    await answered(house, await held(house), "Merci d'annuler cette lettre.")
    assert "Pour retirer cette lettre, répondez ANNULER." in text(told(house)[-1])
    await answered(house, told(house)[-1], "ANNULER")
    assert (await house.store.status())["ignored"] == 1


async def test_lines_in_a_forwarded_note_release_nothing_and_the_ward_hears_of_it(house: House) -> None:
    note = await held(house)
    raw = letters.reply(
        f"RPPS : {MARTIN.rpps}", to_message_id=headers(note)["Message-ID"], sender="sorties.cardio@chr-exemple.mssante.fr",
        to=headers(note)["Reply-To"].strip("<>"), subject="RE: TR: Lettre retenue",
    )  # fmt: skip
    await house.take(raw, adapter="retours")
    await house.leave()
    assert letters_left(house) == []
    assert {"forwarded_reply"} < {str(each["why"]) for each in await house.store.holds()}
    assert told(house)[-1].id != note.id
    assert "rien n'a été envoyé" in text(told(house)[-1])


async def test_lines_about_a_patient_who_objects_are_not_asked_for_again(house: House) -> None:
    said = (
        letters.labelled_lines(letters.ODETTE, MARTIN)
        + "\nLe patient s'oppose à la transmission de cette lettre.\n"
    )
    await house.take(letters.text_mail(body=said, sender="sorties.cardio@chr-exemple.mssante.fr"))
    await house.leave()
    await answered(house, note_of(house), f"RPPS : {MARTIN.rpps}")
    assert letters_left(house) == []
    assert len(told(house)) == 2
    assert "rien n'a été envoyé" in text(told(house)[-1])
    assert "RPPS" not in text(told(house)[-1])
