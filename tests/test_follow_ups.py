"""Follow-ups where things cross: words that nearly are one word, letters that meet questions, people who answer oddly."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from email.policy import SMTP

import pytest

from relay import planning
from relay.model import (
    Absence,
    ChatKind,
    Context,
    Delivery,
    DeliveryState,
    EnvelopeState,
    Link,
    Participant,
    Plan,
    Purpose,
    ThreadState,
    ThreadView,
    Verb,
    Why,
)
from relay.planning import Correction, Site
from tests import conftest, letters
from tests.conftest import make_site as real_site  # noqa: F401 - a fixture
from tests.letters import DUPONT, MARTIN, ODETTE
from tests.servers import until
from tests.servers.dovecot import Dovecot
from tests.site import FAST_RULES, answer, parsed
from tests.site import Site as RealSite
from tests.stores import place, store  # noqa: F401 - fixtures
from tests.test_joining import FORMS, SENDER, STAY, body, house, mailed, sound, to_gp  # noqa: F401 - a fixture
from tests.test_joining import arrive as arrive_by
from tests.test_loops import House, mails
from tests.test_planning import (  # noqa: F401 - fixtures
    AT,
    DESK,
    GP,
    LATER,
    LINK,
    LINKED,
    WARD,
    _secret,
    after,
    arrive,
    chat,
    fire,
    headers,
    letter,
    make_site,
    one,
    opened,
    press,
    replied,
    sent,
    text,
)

WARD_REPLIES = "sorties@chr-exemple.mssante.fr"
DESK_MAIL = "dpo@chr-exemple.mssante.fr"

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


# --------------------------------------------------------------------------------------- words on another patient

ANOTHER = [
    "Patient : VASSEUR Odile\nNé(e) le : 02/07/1944\n\nElle prend 5 mg.",
    "Pour Mme VASSEUR Odile, née le 02/07/1944 : 5 mg.",
    "INS : 2 44 07 45 234 012 37\n\n5 mg le soir.",
    "Patiente : Mme Cormerais Zoé, vue ce jour",
    "patiente : mme vasseur odile",
]


@pytest.mark.parametrize("words", ANOTHER)
def test_words_on_another_patient_reach_neither_the_gp_nor_the_ward(words: str) -> None:
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), "Quelle dose le soir ?")
    view = sent(after(view, asked))
    for mail, sender in ((one(asked, Purpose.QUESTION), WARD), (one(first, Purpose.LETTER), GP)):
        back = replied(site, view, mail, words, sender=sender)
        assert (back.state, back.why, back.thread) == (EnvelopeState.HELD, Why.TOKEN_MISMATCH, None)
        assert [copy.to for copy in back.deliveries] == ["desk:sorties"]
        assert back.hold is not None
        assert back.hold.reason == "La réponse nomme un autre patient que celui de la lettre"


@pytest.mark.parametrize(
    "words",
    [
        "Pour Mme CORMERAIS Odette, née le 17/03/1948 : 5 mg.",
        "Patiente : Mme Valbrune\nSexe : F\n\n5 mg, comme son fils né le 02/07/1974.",
        f"INS : {ODETTE.ins}\n5 mg.",
        "Patiente : Mme Cormerais, vue ce jour, 5 mg.",
        "Patiente : Mme Valbrune (5 mg) et son mari",
    ],
)
def test_words_that_name_the_letters_patient_pass(words: str) -> None:
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), words)
    assert "5 mg" in text(one(asked, Purpose.QUESTION))


def test_a_refusal_that_names_somebody_else_is_heard_at_once_and_a_desk_alone_reads_of_whom() -> None:
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), f"ERREUR\n\n{ANOTHER[1]}")
    assert plan.incident is not None
    assert {copy.to for copy in plan.deliveries if "VASSEUR" in str(copy.recipe)} == {"desk:sorties"}


# ------------------------------------------------------------------------------------------- below the one word


@pytest.mark.parametrize(
    ("below", "carried"),
    [
        ("Dr Camille Martin\n12 rue des Lilas\n45000 Orléans\nTél. 02 38 00 00 00", False),
        ("Dr C. MARTIN", False),
        ("Dr Martin\nPS : revoir la dose", True),
        ("Dr Martin\nQuelle dose ?", True),
        ("Mme Martin viendra jeudi.", True),
        ("Je la vois jeudi.\nDr Martin", True),
    ],
)
def test_a_signature_below_ok_is_no_word_to_the_ward(below: str, carried: bool) -> None:
    site = make_site()
    first, view = opened(site)
    plan = replied(site, view, one(first, Purpose.LETTER), f"OK\n\n{below}")
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.ACKNOWLEDGED
    assert any(copy.purpose is Purpose.WARD_NOTE for copy in plan.deliveries) is carried


def test_what_a_gp_writes_below_rappel_reaches_the_ward() -> None:
    site = make_site()
    first, view = opened(site)
    words = f"RAPPEL\n\nSur mon portable, 06 00 00 00 00, après 19 h.\n{GP}"
    question = text(one(replied(site, view, one(first, Purpose.LETTER), words), Purpose.QUESTION))
    assert "Dr Martin demande un rappel téléphonique." in question
    assert "Précisions :\nSur mon portable, 06 00 00 00 00, après 19 h." in question
    assert GP not in question


def test_what_a_gp_writes_below_erreur_reaches_ward_and_desk_and_no_desk_that_sees_references_only() -> None:
    for sees, readers in (
        ("document", {"ward:cardiologie", "desk:sorties"}),
        ("reference", {"ward:cardiologie"}),
    ):
        site = make_site(sees=sees)
        first, view = opened(site)
        words = "ERREUR\nElle a déménagé à Tours, son médecin est le Dr Dupont."
        plan = replied(site, view, one(first, Purpose.LETTER), words)
        told = {copy.to for copy in plan.deliveries if "déménagé à Tours" in str(copy.recipe)}
        assert (plan.incident is not None, told) == (True, readers)


# ------------------------------------------------------------------------------------------------ what phones say


def test_who_waits_for_an_answer_is_reminded_of_the_answer_and_not_of_the_letter() -> None:
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), "Quelle dose le soir ?")
    view = sent(after(view, asked))
    view = sent(after(view, replied(site, view, one(asked, Purpose.QUESTION), "5 mg.", sender=WARD)))
    plan = fire(site, view, 0, LATER + timedelta(hours=1))
    reminder = one(plan, Purpose.REMINDER)
    assert chat(reminder).fields.kind is ChatKind.ANSWER_WAITS
    more, _ = press(site, sent(after(view, plan)), plan, Verb.MORE, choice="snooze")
    assert chat(more.deliveries[0]).fields.kind is ChatKind.ANSWER_WAITS


def test_whoever_was_told_beside_the_gp_silences_their_own_phone_alone() -> None:
    site = make_site()
    first, view = opened(site)
    other = Participant(f"rpps:{DUPONT.rpps}", "dr.dupont@medecin.mssante.fr", "Dr Dupont")
    alert = replace(one(first, Purpose.ALERT), id="beside", to=other.key, address="9002", remote="r9")
    view = replace(
        view,
        thread=replace(view.thread, participants=(*view.thread.participants, other)),
        deliveries=(*view.deliveries, replace(alert, state=DeliveryState.SENT)),
    )
    plan = planning.plan_verb(site, view, Verb.REFUSE, other.key, None, LATER)
    assert plan.thread is not None
    assert plan.thread.state is ThreadState.WITH_DESK
    assert [copy.to for copy in plan.deliveries if copy.purpose is Purpose.EDIT] == [other.key]
    assert not plan.void_grants_of
    taken, words = press(site, after(view, plan), first, Verb.ACK)
    assert (taken.why, words) == (Why.PRESS, "Merci, c'est noté.")


# ------------------------------------------------------------------------------------------------ letters that cross


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_question_stays_the_wards_to_answer_when_more_of_the_stay_comes(house: House) -> None:
    await arrive_by(house, FORMS["text"]())
    first = mails(house)[0]
    house.clock.turn(minutes=20)
    asked = house.clock.now()
    await house.take(reply_to(first, "Quelle dose le soir ?"), adapter="retours")
    await house.leave()
    house.clock.turn(minutes=20)
    await arrive_by(house, mailed(letters.text_mail(gp=MARTIN, stay=STAY, sender=SENDER, admitted=None)))
    assert [each.purpose for each in mails(house)] == ["letter", "question", "letter"]
    (row,) = await house.store.threads()
    view = await house.store.view(str(row["id"]))
    assert view.thread.state is ThreadState.AWAITING_WARD
    assert view.thread.counts_from == asked
    house.clock.at = asked + timedelta(hours=1, seconds=1)
    await house.schedule.turn()
    await house.leave()
    assert (mails(house)[-1].to, mails(house)[-1].purpose) == ("ward:cardiologie", "reminder")
    await sound(house)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("forms", [("MDM", "PDF"), ("PDF", "MDM"), ("text", "XDM")])
async def test_another_form_of_a_letter_taken_back_waits_for_a_person(
    house: House, forms: tuple[str, str]
) -> None:
    await arrive_by(house, FORMS[forms[0]]())
    await recall(house)
    before = len(house.sender.sent)
    await arrive_by(house, FORMS[forms[1]]())
    assert not to_gp(house, before)
    (held,) = await house.store.holds()
    assert held["why"] == "recalled"
    await house.intake.release(Correction(by="admin", hold=str(held["id"])))
    await house.leave()
    (mail,) = to_gp(house, before)
    assert "précédente" not in body(mail)
    assert [row["state"] for row in await house.store.threads()] == ["awaiting_ack"]
    await sound(house)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_a_letter_written_anew_after_one_was_taken_back_stands_by_itself(house: House) -> None:
    await arrive_by(house, FORMS["text"]())
    await recall(house)
    before = len(house.sender.sent)
    await arrive_by(house, mailed(letters.text_mail(gp=MARTIN, stay=STAY, sender=SENDER, admitted=None)))
    (mail,) = to_gp(house, before)
    assert "Complète la lettre précédente" not in body(mail)
    assert [row["state"] for row in await house.store.threads()] == ["awaiting_ack"]
    await sound(house)


async def recall(house: House) -> None:
    (row,) = await house.store.threads()
    view = await house.store.view(str(row["id"]))
    plan = planning.plan_recall(house.site, view, f"ward:{view.thread.ward}", "erreur", house.clock.now())
    assert await house.store.record([plan]) == [None]
    await house.leave()


def reply_to(copy: Delivery, words: str, sender: str = GP) -> bytes:
    return letters.reply(
        words, to_message_id=headers(copy)["Message-ID"], to=headers(copy)["Reply-To"].strip("<>"), sender=sender
    )  # fmt: skip


# ---------------------------------------------------------------------------------------- people who answer oddly


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
async def test_ok_to_the_plea_to_delete_takes_no_letter_that_came_since(house: House) -> None:
    await arrive_by(house, FORMS["text"]())
    await recall(house)
    plea = next(each for each in mails(house) if each.purpose is Purpose.RECALL)
    await arrive_by(house, mailed(letters.text_mail(gp=MARTIN, stay=STAY, sender=SENDER, admitted=None)))
    await house.take(reply_to(plea, "OK\n\nSupprimée sans lire."), adapter="retours")
    await house.leave()
    assert [row["state"] for row in await house.store.threads()] == ["awaiting_ack"]
    note = mails(house)[-1]
    assert (note.to, note.purpose) == ("ward:cardiologie", Purpose.WARD_NOTE)
    assert "Dr Martin répond à la demande de supprimer la lettre :" in text(note)
    assert "Supprimée sans lire." in text(note)
    await sound(house)


def with_picture(to: Delivery, words: str, size: int) -> bytes:
    """What a mail program sends whose signature shows a logo."""
    mail = EmailMessage(policy=SMTP)
    mail["From"], mail["To"], mail["Subject"] = GP, headers(to)["Reply-To"], "RE: lettre"
    mail["Message-ID"], mail["In-Reply-To"] = f"<{size}@cabinet.example>", headers(to)["Message-ID"]
    mail.set_content(f"{words}\n\nCordialement\nDr Martin")
    mail.add_alternative(f"<p>{words}</p><p>Cordialement<br><img src='cid:logo'></p>", subtype="html")
    _, shown = mail.iter_parts()
    picture = b"\x89PNG\r\n\x1a\n" * (size // 8)
    shown.add_related(picture, "image", "png", cid="<logo>", filename="image001.png", disposition="inline")
    return mail.as_bytes()


def test_the_logo_of_a_signature_is_no_attachment_that_a_ward_misses() -> None:
    site = make_site()
    first, view = opened(site)
    copies = []
    for size in (4_000, 400_000):
        raw = with_picture(one(first, Purpose.LETTER), "OK", size)
        plan = planning.plan_reply(
            site, arrive(site, raw, adapter="retours"), Context(threads=(view,)), LATER
        )
        assert isinstance(plan, Plan)
        assert plan.thread is not None
        assert plan.thread.state is ThreadState.ACKNOWLEDGED
        copies.append([text(copy) for copy in plan.deliveries if copy.purpose is Purpose.WARD_NOTE])
    assert copies[0] == []
    assert "Pièces jointes non transmises par le relais : 1." in copies[1][0]


def test_who_said_not_my_patient_is_not_told_that_they_never_took_part() -> None:
    site = make_site()
    first, view = opened(site)
    refused = replied(site, view, one(first, Purpose.LETTER), "ERREUR")
    plan = replied(site, sent(after(view, refused)), one(refused, Purpose.RECALL), "C'est supprimé.")
    assert plan.state is EnvelopeState.HELD
    assert [copy.to for copy in plan.deliveries] == ["desk:sorties"]


def handed_over() -> tuple[Site, ThreadView, Delivery]:
    site = make_site()
    _, view = opened(site)
    plan = fire(site, view, 2, AT + timedelta(hours=4))
    return site, sent(after(view, plan)), one(plan, Purpose.WARD_NOTE, "desk:sorties")


def test_a_desk_takes_a_letter_back_by_the_one_word() -> None:
    site, view, note = handed_over()
    plan = replied(site, view, note, "Annuler.", sender=DESK)
    assert plan.thread is not None
    assert plan.thread.closed_reason == "recalled"
    assert {copy.to for copy in plan.deliveries if copy.purpose is Purpose.WARD_NOTE} == {"ward:cardiologie"}


def test_a_desk_that_answers_with_words_is_told_that_nobody_reads_them() -> None:
    site, view, note = handed_over()
    plan = replied(site, view, note, "Joint par téléphone, dossier clos.", sender=DESK)
    assert (plan.state, plan.thread, plan.hold) == (EnvelopeState.DECIDED, None, None)
    (told,) = plan.deliveries
    assert (told.to, "ni au service ni au médecin" in text(told)) == ("desk:sorties", True)
    for number in range(9):
        view = sent(after(view, plan))
        plan = replied(site, view, note, f"Absent {number} jours.", sender=DESK)
    assert not plan.deliveries, "two machines"


@pytest.mark.parametrize(
    ("words", "said"), [("OK", "Dr Martin a répondu."), ("Quelle dose ?", "Dr Martin a répondu.")]
)
def test_a_desk_hears_that_somebody_answered_after_all(words: str, said: str) -> None:
    site, view, _ = handed_over()
    letter_to_gp = next(d for d in view.deliveries if d.purpose is Purpose.LETTER)
    message_id = letter_to_gp.message_id or ""
    raw = letters.reply(words, to_message_id=message_id, sender=GP)
    plan = planning.plan_reply(site, arrive(site, raw, adapter="retours"), Context(threads=(view,)), LATER)
    assert isinstance(plan, Plan)
    note = one(plan, Purpose.WARD_NOTE, "desk:sorties")
    assert f"{said} Ce suivi ne vous est plus confié." in text(note)


def test_a_desk_hears_that_the_ward_took_its_letter_back_and_not_what_it_did_itself() -> None:
    site, view, _ = handed_over()
    plan = planning.plan_recall(site, view, "ward:cardiologie", "erreur", LATER)
    assert "rappelée par « Cardiologie »" in text(one(plan, Purpose.WARD_NOTE, "desk:sorties"))
    own = planning.plan_verb(site, view, Verb.CLOSE, "desk:sorties", "by_phone", LATER)
    assert not [copy for copy in own.deliveries if copy.to == "desk:sorties"]


def test_a_ward_reads_how_many_letters_were_stopped_and_not_how_many_phones_were_to_change() -> None:
    site = make_site(receipts="each")
    first, view = opened(site)
    acknowledged = after(view, replied(site, view, one(first, Purpose.LETTER), "OK"))
    assert any(copy.purpose is Purpose.EDIT for copy in acknowledged.deliveries)  # still to leave
    plan = planning.plan_recall(site, acknowledged, "ward:cardiologie", "erreur", LATER)
    assert "Envois arrêtés avant leur départ : 0." in text(one(plan, Purpose.WARD_NOTE))


def test_at_the_end_of_a_ladder_desk_and_ward_read_whose_answer_is_missing() -> None:
    site = make_site()
    first, view = opened(site)
    asked = replied(site, view, one(first, Purpose.LETTER), "Quelle dose le soir ?")
    view = sent(after(view, asked))
    end = fire(site, view, 2, LATER + timedelta(hours=4))
    waits = "Une question posée le 1/12 à 17 h 55 attend toujours la réponse du service."
    assert waits in text(one(end, Purpose.WARD_NOTE, "desk:sorties"))
    ward = one(end, Purpose.WARD_NOTE, "ward:cardiologie")
    assert waits in text(ward)
    assert "Personne" not in text(ward)
    answered = replied(site, sent(after(view, end)), ward, "5 mg.", sender=WARD)
    assert any("5 mg." in text(copy) for copy in answered.deliveries if copy.adapter == "mss")

    view = sent(after(view, replied(site, view, one(asked, Purpose.QUESTION), "5 mg.", sender=WARD)))
    end = fire(site, view, 2, LATER + timedelta(hours=4))
    note = text(one(end, Purpose.WARD_NOTE, "desk:sorties"))
    assert "La réponse du service, envoyée le 1/12 à 17 h 55, attend toujours le retour du médecin." in note
    assert "Personne n'a répondu" in text(one(end, Purpose.WARD_NOTE, "ward:cardiologie"))


def test_a_ward_that_a_desk_gave_a_follow_up_back_to_is_reminded_of_no_question() -> None:
    site, view, _ = handed_over()
    back = planning.plan_verb(site, view, Verb.HAND_OVER, "desk:sorties", "ward:cardiologie", LATER)
    view = sent(after(view, back))
    reminder = text(one(fire(site, view, 0, LATER + timedelta(hours=1)), Purpose.REMINDER))
    assert "Le suivi de cette lettre vous a été rendu le 1/12 à 17 h 55 et attend votre réponse." in reminder
    assert "question" not in reminder
    end = fire(site, view, 2, LATER + timedelta(hours=4))
    for note in (
        one(end, Purpose.WARD_NOTE, "desk:sorties"),
        one(end, Purpose.WARD_NOTE, "ward:cardiologie"),
    ):
        assert "Le suivi, rendu au service le 1/12 à 17 h 55, attend toujours sa réponse." in text(note)


def test_somebody_elses_mail_is_no_desks() -> None:
    site, view, note = handed_over()
    plan = replied(site, view, note, "ANNULER", sender="autre@chr-exemple.mssante.fr")
    assert (plan.state, plan.why, plan.thread) == (EnvelopeState.HELD, Why.UNKNOWN_SENDER, None)


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
@pytest.mark.parametrize("subject", ["RE: {0}", "Votre courrier"])
async def test_an_answer_that_lost_all_but_the_visible_reference_names_it_to_its_desk(
    house: House, subject: str
) -> None:
    await arrive_by(house, FORMS["text"]())
    first = mails(house)[0]
    quoted = "\n".join(f"> {line}" for line in text(first).splitlines())
    raw = letters.mail(
        f"OK\n\n{quoted}", sender=GP, to="relais@relais45.mssante.fr",
        subject=subject.format(headers(first)["Subject"]),
    )  # fmt: skip
    await house.take(raw, adapter="retours")
    await house.leave()
    (held,) = await house.store.holds()
    assert held["detail"] == f"elle cite la Réf. {first.reference}"
    note = text(mails(house)[-1])
    assert "Une réponse est à lire." in note
    assert f"Précision : elle cite la Réf. {first.reference}." in note
    assert [row["state"] for row in await house.store.threads()] == ["awaiting_ack"]
    await sound(house)


# ------------------------------------------------------------------------------------------------- while it stood still


def test_who_answered_while_the_relay_stood_still_is_heard_before_anybody_is_told_of_silence(
    real_site: Callable[..., RealSite], dovecot: Dovecot
) -> None:
    site = real_site(rules=FAST_RULES.format(first="2s", second="3s", third="5s"))
    site.directory([MARTIN])
    site.patients([(ODETTE, [MARTIN])])
    dovecot.deliver(conftest.WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    site.start()
    (raw,) = dovecot.wait_messages(GP)
    site.kill()
    took = datetime.now(UTC)
    dovecot.deliver(conftest.RELAY, answer(parsed(raw), "OK", sender=GP), sender=GP)
    assert until(lambda: datetime.now(UTC) - took > timedelta(seconds=6), 10)
    with site.running():
        assert site.row("threads", state="acknowledged")["level"] < 3
        site.until(lambda: len(site.logged("timer_fired")) + len(site.logged("settled")) > 0)
        for told in (WARD_REPLIES, DESK_MAIL):
            assert not dovecot.messages(told)
        assert not any(site.json("status")["invariants"].values())


# -------------------------------------------------------------------------------------------------- whoever stands in


def test_who_stands_in_for_the_gp_is_reminded_while_the_gp_is_away() -> None:
    site = make_site()
    absence = Absence(MARTIN.rpps or "", AT.date(), AT.date() + timedelta(days=7), DUPONT.rpps)
    links = (LINK, Link(DUPONT.rpps or "", "telegram", "9002", "9002"))
    context = Context(links=links, absences=(absence,))
    first = planning.plan_notice(site, arrive(site, letter(), gps=(MARTIN, DUPONT)), context, AT)
    assert one(first, Purpose.ALERT).address == "9002"
    view = replace(sent(after(None, first)), links=links, absences=(absence,))
    reminder = one(fire(site, view, 0, AT + timedelta(hours=1)), Purpose.REMINDER)
    assert (reminder.to, reminder.address) == (f"rpps:{DUPONT.rpps}", "9002")
    back = replace(
        view,
        absences=(
            replace(absence, since=AT.date() - timedelta(days=9), until=AT.date() - timedelta(days=2)),
        ),
    )
    assert one(fire(site, back, 0, AT + timedelta(hours=1)), Purpose.REMINDER).address == "9001"
