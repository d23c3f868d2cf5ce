"""What a person wrote, apart from what their client quoted; what a ward filled in."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.formats import cda
from relay.formats.replies import applied, corrections, new_text, reply_text
from relay.model import Notice
from relay.reading import read
from tests import letters
from tests.campaign import many

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
OLD = "Réf. 7F3Q-K2M9 — Répondez par un mot\nPatient : VALBRUNE Odette\n"
QUOTED = "".join(f"> {line}\n" for line in OLD.split("\n"))


@pytest.mark.parametrize(
    "below",
    [
        f"\n\nLe mar. 1 déc. 2026 à 17:41, Cardiologie (Relais) <relais@x.fr> a écrit :\n{QUOTED}",
        f"\n\nLe mar. 1 déc. 2026 à 17:41, Cardiologie – CHR d'Exemple (Relais)\n<relais@x.fr> a écrit :\n\n{QUOTED}",
        f"\n\nLe 01/12/2026 à 17:41, Cardiologie a écrit :\n{OLD}",
        f"\n\nDe : Cardiologie <relais@x.fr>\nEnvoyé : mardi 1 décembre 2026 17:41\nÀ : Dr Martin\nObjet : Lettre\n\n{OLD}",
        f"\n\n-----Message d'origine-----\nDe : Cardiologie\n{OLD}",
        f"\n\n-------- Message original --------\n{OLD}",
        f"\n\n________________________________\nDe: Cardiologie\nEnvoyé: mardi\nÀ: Dr Martin\n\n{OLD}",
        f'\n\n----- Mail original -----\nDe: "Cardiologie" <relais@x.fr>\nÀ: x\nObjet: y\n\n{OLD}',
        f"\n\nEnvoyé de mon iPhone\n\n> Le 1 déc. 2026 à 17:41, Cardiologie <relais@x.fr> a écrit :\n> \n{QUOTED}",
        f"\n\nOn Tue, Dec 1, 2026 at 5:41 PM Cardiologie <relais@x.fr> wrote:\n{QUOTED}",
        f"\n\n-- \nDr Camille Martin\n12 rue des Lilas\n\n{QUOTED}",
        f"\n\nCordialement,\nDr Camille Martin\nMédecin généraliste\n\n{QUOTED}",
        "",
    ],
)
def test_only_the_new_words_count(below: str):
    assert new_text(f"OK\n\nMerci pour elle.{below}") == ("OK", "OK\n\nMerci pour elle.")


def test_words_below_and_between_quotations_count():
    assert new_text(f"Le 1 déc., Cardio <r@x> a écrit :\n{QUOTED}\nRAPPEL\n").first_line == "RAPPEL"
    assert new_text("> Question ?\nOui.\n> Autre ?\nNon.\n").text == "Oui.\nNon."


@pytest.mark.parametrize(
    "html",
    [
        (
            '<div dir="ltr">OK</div><br><div class="gmail_quote"><div>Le mar. 1 déc. 2026 à 17:41, Cardio &lt;<a>r@x.fr</a>&gt; a écrit :<br></div>'
            "<blockquote>Patient : VALBRUNE</blockquote></div>"
        ),
        (
            '<p>OK</p><hr><div id="divRplyFwdMsg"><b>De :</b> Cardio<br><b>Envoyé :</b> mardi<br><b>À :</b> Dr<br><b>Objet :</b> x</div>'
            "<p>Patient : VALBRUNE</p>"
        ),
        "<div>OK</div><blockquote type='cite'>Le 1 déc. 2026, Cardio a écrit :<br>Patient : VALBRUNE</blockquote>",
    ],
    ids=["Gmail", "Outlook", "Apple"],
)
def test_html_answers_are_cut_as_well(html: str):
    raw = letters.text_mail(body="x", html=html, html_only=True, subject="RE: Lettre")
    assert reply_text(read(raw)) == ("OK", "OK")


def test_a_ward_fills_in_the_lines_it_was_sent():
    form = "Médecin traitant : Dr Camille Martin\nRPPS : 8 10099900010\nNé(e) le : 17/03/1948\nINS : 248034523400724\nSexe : Féminin\n"
    expected = {
        "registered_gp.name": "Camille Martin",
        "registered_gp.rpps": "10099900010",
        "patient.birth_date": "1948-03-17",
        "patient.ins": "248034523400724",
        "patient.sex": "F",
    }
    assert corrections(form) == expected
    quoted = "Voilà.\n\nLe 1 déc. 2026 à 17:41, Relais <r@x> a écrit :\n" + "".join(
        f"> {line}\n" for line in form.split("\n")
    )
    assert corrections(quoted) == expected
    assert corrections("RPPS : 10099900010\n") == {"registered_gp.rpps": "10099900010"}
    assert corrections("Médecin traitant :\nRPPS :\nNé(e) le :\n") == {}
    assert corrections("Né(e) le : 31/02/1948\nRPPS : 12\n") == {}


@pytest.mark.parametrize("subject", ["Lettre retenue", "RE: Lettre toujours retenue", "Lettre non remise"])
def test_lines_filled_in_below_the_headers_that_outlook_copies_are_read(subject: str):
    above = "De : Cardiologie (Relais) <r@x.fr>\nEnvoyé : mardi 1 décembre 2026 17:45\nÀ : sorties <s@x.fr>\n"
    note = f"Réf. 7F3Q-K2M9\nPatient : Odette VALBRUNE, née le 17/03/1948\n\nMédecin traitant : Dr Noé Durand\nRPPS : {letters.DURAND.rpps}\nNé(e) le :\n"
    quoted = f"Ci-dessous.\n\n{above}Objet : {subject} – Réf. 7F3Q-K2M9\n\n{note}"
    assert corrections(quoted) == {
        "registered_gp.name": "Noé Durand",
        "registered_gp.rpps": letters.DURAND.rpps,
    }
    # The headers of a letter stand above a letter.
    assert corrections(quoted.replace(f"{subject} – Réf. 7F3Q-K2M9", "Lettre de liaison")) == {}


def test_a_quoted_letter_or_note_never_comes_back_as_the_wards_choice():
    note = "Réf. 7F3Q-K2M9\nPatient : Odette VALBRUNE, né(e) le 17/03/1948\n\nRépondez en complétant :\n\nMédecin traitant :\nRPPS :\n"
    letter = letters.labelled_lines(letters.ODETTE, letters.MARTIN)
    for below in (note, letter, note + "\n" + letter):
        quoted = "".join(f"> {line}\n" for line in below.split("\n"))
        assert corrections(f"Je ne sais pas.\n\nLe 1 déc. 2026, Relais <r@x> a écrit :\n{quoted}") == {}
        assert corrections(f"Je ne sais pas.\n\n{below}") == {}
    filled = note.replace("RPPS :", f"RPPS : {letters.DURAND.rpps}")
    assert corrections(f"Voilà\n\n{filled}") == {"registered_gp.rpps": letters.DURAND.rpps}
    spaced = letter.replace("Médecin", "\nMédecin").replace("Service", "\nService")
    assert corrections(f"Je ne sais pas.\n\n{spaced}") == {}


def test_a_wards_own_lines_beat_the_quoted_ones():
    text = f"RPPS : {letters.MARTIN.rpps}\n\n> Médecin traitant : Dr Durand\n> RPPS : {letters.DURAND.rpps}\n"
    assert corrections(text) == {"registered_gp.rpps": letters.MARTIN.rpps}


def test_a_correction_changes_what_it_names_and_nothing_else():
    notice = cda.read(letters.cda(gp=None))
    assert notice is not None
    fixed = applied(
        notice, {"registered_gp.rpps": "10099900010", "patient.birth_date": "1950-01-02", "nonsense": "x"}
    )
    assert fixed.registered_gp is not None
    assert fixed.registered_gp.rpps == "10099900010"
    assert fixed.patient is not None
    assert str(fixed.patient.birth_date) == "1950-01-02"
    assert fixed.patient.birth_name == "CORMERAIS"
    assert fixed.stay == notice.stay
    assert applied(notice, {}) == notice
    unknown = Notice(unknown=("registered_gp.rpps", "patient.birth_date", "consent"))
    assert applied(unknown, {"registered_gp.rpps": "10099900010"}).unknown == (
        "patient.birth_date",
        "consent",
    )


def test_a_corrected_gp_keeps_nothing_of_the_one_before():
    notice = cda.read(letters.cda())
    assert notice is not None
    fixed = applied(
        notice, {"registered_gp.name": "Noé Durand", "registered_gp.rpps": str(letters.DURAND.rpps)}
    )
    gp = fixed.registered_gp
    assert gp is not None
    assert (gp.family_name, gp.rpps, gp.mss_address) == ("Durand", letters.DURAND.rpps, None)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not here")
@pytest.mark.parametrize(
    "name", ["embedded_email_french_1", "embedded_email_french_2", "embedded_email_german_1"]
)
def test_french_clients_answers_are_trimmed_as_the_corpus_says(name: str):
    folder = SAMPLES / "torture" / "discourse-trimmer" / "test"
    if not (folder / "emails" / f"{name}.txt").is_file():
        pytest.skip("not in this copy of the corpus")
    written = (folder / "emails" / f"{name}.txt").read_text(encoding="utf-8")
    expected = (folder / "trimmed" / f"{name}.txt").read_text(encoding="utf-8")
    assert new_text(written).text.split() == expected.split()


@settings(max_examples=many(200), deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.one_of(st.sampled_from(["OK", QUOTED, "Le 1 déc. a écrit :", "De : x", "Envoyé : y", "À : z", "--", "____"]),
                          st.text(max_size=50)), max_size=15).map("\n".join))  # fmt: skip
def test_no_text_raises(text: str):
    new_text(text)
    corrections(text)


def test_a_hostile_answer_costs_no_time():
    began = time.process_time()
    new_text("Le 1 " + "a " * 100_000 + "\n" + "Le 1 déc\n" * 20_000 + "<" * 50_000)
    assert time.process_time() - began < 2
