"""Follow-ups where things cross: words that nearly are one word, letters that meet questions, people who answer oddly."""

from __future__ import annotations

import pytest

from relay import planning
from relay.model import EnvelopeState, Purpose, ThreadState, Why
from tests.test_planning import (  # noqa: F401 - fixtures
    AT,
    LINKED,
    WARD,
    _secret,
    after,
    arrive,
    headers,
    letter,
    make_site,
    one,
    opened,
    replied,
    sent,
    text,
)

# ------------------------------------------------------------------------------------------- nearly the one word


def test_full_stops_within_the_one_word_are_punctuation_too() -> None:
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), "O.K.")
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.ACKNOWLEDGED


@pytest.mark.parametrize(
    "words",
    [
        "ANNULER svp",
        "Annulation : la lettre est celle de Mme Durand.",
        "Bonjour,\n\nMerci d'annuler cet envoi, je me suis trompée de patient.",
    ],
)
def test_a_ward_that_may_want_its_letter_back_is_told_how_and_the_gp_reads_none_of_it(words: str) -> None:
    site = make_site(receipts="each")
    plan = planning.plan_notice(site, arrive(site, letter()), LINKED, AT)
    view = sent(after(None, plan))
    back = replied(site, view, one(plan, Purpose.RECEIPT), words, sender=WARD)
    assert (back.state, back.why, back.thread) == (EnvelopeState.HELD, Why.UNCLEAR, None)
    assert back.hold is not None
    assert back.reference == view.thread.reference
    assert {copy.to for copy in back.deliveries} == {"desk:sorties", "ward:cardiologie"}
    note = one(back, Purpose.WARD_NOTE)
    assert (note.to, "le seul mot ANNULER" in text(note)) == ("ward:cardiologie", True)
    recalled = replied(site, after(view, back), note, "ANNULER", sender=WARD)
    assert recalled.thread is not None
    assert recalled.thread.closed_reason == "recalled"


def test_an_answer_that_speaks_of_something_cancelled_reaches_whoever_asked() -> None:
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), "Le rendez-vous du 12 tient-il ?")
    view = sent(after(view, asked))
    back = replied(site, view, one(asked, Purpose.QUESTION), "Non, il est annulé.", sender=WARD)
    answered = [copy for copy in back.deliveries if copy.purpose is Purpose.ANSWER and copy.adapter == "mss"]
    assert ["il est annulé" in text(copy) for copy in answered] == [True]
