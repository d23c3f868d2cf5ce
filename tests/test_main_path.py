"""The main job on real servers: a discharge letter reaches the registered GP, and somebody answers for it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from tests import letters
from tests.conftest import GP, RELAY, WARD
from tests.letters import DUPONT, DURAND, MARTIN, ODETTE
from tests.servers.dovecot import Dovecot
from tests.servers.postgres import Postgres
from tests.servers.telegram import Telegram
from tests.site import FAST_RULES, Site, answer, body, documents, parsed, reference

SENDER = "sorties.cardio@chr-exemple.mssante.fr"
WARD_REPLIES = "sorties@chr-exemple.mssante.fr"
DESK = "dpo@chr-exemple.mssante.fr"
CHAT = 9001
FIRST_LINE = (
    "Réf. {} — Répondez par un mot : OK (bien reçu), RAPPEL (rappelez-moi), "
    "ERREUR (pas mon patient), ou écrivez votre question."
)

MakeSite = Callable[..., Site]


def ready(site: Site) -> Site:
    """Odette's registered GP is Dr Martin, who has a mailbox and a phone."""
    site.directory([MARTIN, DUPONT, DURAND])
    site.patients([(ODETTE, [MARTIN])])
    site.relay("directory", "link", MARTIN.rpps, f"telegram:{CHAT}", "--no-notice")
    return site


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return "sqlite:///state/relay.db"
    postgres: Postgres = request.getfixturevalue("postgres")
    return postgres.fresh()


def test_a_package_reaches_the_gp_byte_for_byte_and_their_chat(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram, database: str
) -> None:
    site = ready(make_site(database=database))
    mail = letters.xdm_mail(gp=MARTIN)
    dovecot.deliver(WARD, mail, sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        sent = parsed(raw)
        ours = reference(body(sent))
        assert body(sent).splitlines()[0] == FIRST_LINE.format(ours)
        original = documents(parsed(mail))
        arrived = documents(sent)
        assert {name: hashlib.sha256(content).hexdigest() for name, content in arrived.items()} == {
            name: hashlib.sha256(content).hexdigest() for name, content in original.items()
        }
        assert str(sent["Subject"]).startswith("XDM/1.0/DDM+")
        assert "Cardiologie – CHR d'Exemple (Relais)" in str(sent["From"])
        assert sent["Auto-Submitted"] == "auto-generated"
        assert WARD not in raw.decode("utf-8", "replace")
        (alert,) = telegram.wait("sendMessage")
        assert int(alert["chat_id"]) == CHAT
        assert alert["text"] == (
            f"Lettre de sortie à lire dans votre messagerie sécurisée. Non urgente. Réf. {ours}"
        )
        site.until(lambda: not dovecot.messages(WARD))
        assert len(dovecot.messages(WARD, "Traités")) == 1
        thread = site.row("threads", reference=ours, state="awaiting_ack")
        assert thread["deadline"]
        status = site.json("status")
        assert status["balance"] == 0
        assert not any(status["invariants"].values())


def test_one_press_on_the_phone_acknowledges(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        telegram.wait("sendMessage")
        message = next(iter(telegram.messages.values()))
        # Somebody else in the same chat may not press for the doctor.
        telegram.press(CHAT, message["message_id"], "Bien reçu", user=666)
        telegram.wait("answerCallbackQuery", 1)
        assert site.rows("threads")[0]["state"] == "awaiting_ack"
        telegram.press(CHAT, message["message_id"], "Bien reçu")
        thread = site.row("threads", state="acknowledged")
        assert thread["owner"] == f"rpps:{MARTIN.rpps}"
        telegram.wait("answerCallbackQuery", 2)
        # The buttons go, so that nobody presses twice.
        telegram.wait_for(
            lambda: any("reply_markup" not in m or not m["reply_markup"] for m in telegram.messages.values())
        )


def test_ok_by_mail_acknowledges_and_what_follows_reaches_the_ward(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        dovecot.deliver(RELAY, answer(parsed(raw), "Ok !\nJe la vois jeudi.", sender=GP), sender=GP)
        site.row("threads", state="acknowledged")
        (note,) = dovecot.wait_messages(WARD_REPLIES)
        assert "Je la vois jeudi." in body(parsed(note))
        assert GP not in note.decode()


def test_a_question_goes_to_the_ward_and_its_answer_comes_back(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        ours = reference(body(parsed(raw)))
        dovecot.deliver(RELAY, answer(parsed(raw), "Le bisoprolol est-il maintenu ?", sender=GP), sender=GP)
        site.row("threads", state="awaiting_ward", reference=ours)
        (question,) = dovecot.wait_messages(WARD_REPLIES)
        assert "Le bisoprolol est-il maintenu ?" in body(parsed(question))
        assert ours in body(parsed(question))
        # The ward must know which patient is meant; no subject ever says it.
        assert "Patient : CORMERAIS Odette" in body(parsed(question))
        assert "CORMERAIS" not in str(parsed(question)["Subject"])
        assert GP not in question.decode()
        dovecot.deliver(
            RELAY, answer(parsed(question), "Oui, à 2,5 mg.", sender=WARD_REPLIES), sender=WARD_REPLIES
        )
        reply = parsed(dovecot.wait_messages(GP, 2)[1])
        assert "Oui, à 2,5 mg." in body(reply)
        assert WARD_REPLIES not in reply.as_string()
        assert str(parsed(raw)["Message-ID"]) in str(reply["References"])
        site.row("threads", state="awaiting_gp", reference=ours)


def test_rappel_asks_the_ward_and_acknowledges_nothing(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        dovecot.deliver(RELAY, answer(parsed(raw), "rappel", sender=GP), sender=GP)
        assert site.row("threads", state="awaiting_ward")["owner"] is None
        dovecot.wait_messages(WARD_REPLIES)


def test_erreur_stops_everything_and_a_person_decides(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        dovecot.deliver(RELAY, answer(parsed(raw), "ERREUR", sender=GP), sender=GP)
        site.row("threads", state="with_desk")
        assert site.row("incidents")["kind"] == "wrong_recipient"
        dovecot.wait_messages(WARD_REPLIES)
        assert "supprimer" in body(parsed(dovecot.wait_messages(GP, 2)[1]))


def test_a_ward_takes_its_letter_back(make_site: MakeSite, dovecot: Dovecot, telegram: Telegram) -> None:
    site = ready(make_site(receipts="each"))
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        dovecot.wait_messages(GP)
        telegram.wait("sendMessage")
        (receipt,) = dovecot.wait_messages(WARD_REPLIES)
        assert "ANNULER" in body(parsed(receipt))
        dovecot.deliver(RELAY, answer(parsed(receipt), "ANNULER", sender=WARD_REPLIES), sender=WARD_REPLIES)
        thread = site.row("threads", state="closed")
        assert thread["closed_reason"] == "recalled"
        told = parsed(dovecot.wait_messages(GP, 2)[1])
        assert "merci de supprimer sans lire" in body(told)
        assert site.row("incidents")["kind"] == "recall"
        telegram.wait_for(lambda: any("retirée" in m["text"] for m in telegram.messages.values()))


def test_silence_is_reminded_and_ends_at_a_desk(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site(rules=FAST_RULES.format(first="2s", second="4s", third="6s")))
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        telegram.wait("sendMessage", 2, seconds=20)  # the alert, then the reminder
        assert len(dovecot.wait_messages(GP, 2)) == 2  # the letter, then the reminder
        thread = site.row("threads", state="with_desk")
        assert thread["level"] >= 2
        dovecot.wait_messages(DESK)
        dovecot.wait_messages(WARD_REPLIES)
        status = site.json("status")
        assert not any(status["invariants"].values())


def test_a_letter_without_gp_is_held_and_the_ward_releases_it_by_an_answer(
    make_site: MakeSite, dovecot: Dovecot
) -> None:
    site = make_site()
    site.directory([MARTIN, DUPONT])
    dovecot.deliver(WARD, letters.text_mail(gp=None), sender=SENDER)
    with site.running():
        held = site.row("hold")
        assert held["why"] in ("rule", "floor_gp")
        (note,) = dovecot.wait_messages(WARD_REPLIES)
        text = body(parsed(note))
        assert "RPPS" in text
        assert not dovecot.messages(GP)
        assert site.json("status")["held"] == 1
        filled = f"Médecin traitant : Dr Martin\nRPPS : {MARTIN.rpps}"
        dovecot.deliver(RELAY, answer(parsed(note), filled, sender=WARD_REPLIES), sender=WARD_REPLIES)
        dovecot.wait_messages(GP)
        assert site.rows("hold") == []
        assert site.json("status")["held"] == 0


def test_an_admin_releases_or_rejects(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = make_site()
    site.directory([MARTIN])
    dovecot.deliver(WARD, letters.text_mail(gp=None), letters.text_mail(gp=None, stay="S-2"), sender=SENDER)
    with site.running():
        site.until(lambda: len(site.rows("hold")) == 2)
        first, second = site.rows("hold")
        site.relay("hold", "release", first["id"], "--gp", MARTIN.rpps)
        dovecot.wait_messages(GP)
        site.relay("hold", "reject", second["id"], "--reason", "doublon du dossier")
        states = {row["id"]: (row["state"], row["why"]) for row in site.rows("envelopes")}
        assert states[second["envelope"]] == ("ignored", "rejected")
        assert states[first["envelope"]][0] == "decided"
        assert site.rows("hold") == []


def test_an_unlisted_sender_is_held(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    mail = letters.text_mail(gp=MARTIN, sender="x@ailleurs.mssante.fr")
    dovecot.deliver(WARD, mail, sender="x@ailleurs.mssante.fr")
    with site.running():
        assert site.row("hold")["why"] == "unlisted_sender"
        assert not dovecot.messages(GP)


def test_the_same_letter_twice_is_sent_once(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site())
    mail = letters.text_mail(gp=MARTIN)
    dovecot.deliver(WARD, mail, mail, sender=SENDER)
    with site.running():
        site.row("envelopes", state="ignored", why="duplicate")
        dovecot.wait_messages(GP)
        telegram.wait("sendMessage")
        assert len(dovecot.messages(GP)) == 1
        assert len(telegram.made("sendMessage")) == 1


def test_observe_decides_everything_and_sends_nothing(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(make_site(mode="observe"))
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        row = site.row("envelopes", state="decided")
        assert row["rule"]
        copies = site.rows("deliveries")
        assert {(each["state"], each["why"]) for each in copies} == {("cancelled", "observe")}
        assert len(copies) >= 2
    assert not dovecot.messages(GP)
    assert not telegram.made("sendMessage")


def test_a_delivery_report_moves_the_copy_to_accepted(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        site.row("deliveries", purpose="letter", state="accepted")


def test_any_bytes_end_somewhere_and_the_next_letter_goes_on(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    junk = [b"\x00\xff\xfe", b"", b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n" * 3000,
            b"Subject: =?utf-8?b?////?=\nFrom: " + b"<" * 500 + b"\n\n" + bytes(range(256)) * 40]  # fmt: skip
    dovecot.deliver(WARD, *junk, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        dovecot.wait_messages(GP)
        site.until(lambda: site.json("status")["received"] >= 5)
        status = site.json("status")
        assert status["balance"] == 0
        assert status["open"] == 0


def test_what_waited_before_the_first_start_is_read_by_since(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site(since="now"))
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN, stay="ANCIEN"), sender=SENDER)
    with site.running():
        site.until(lambda: site.json("status")["adapters"]["cardiologie"]["state"] == "up")
        dovecot.deliver(WARD, letters.text_mail(gp=MARTIN, stay="NOUVEAU"), sender=SENDER)
        dovecot.wait_messages(GP)
    assert len(dovecot.messages(GP)) == 1
    assert "NOUVEAU" in body(parsed(dovecot.messages(GP)[0]))
    assert len(dovecot.messages(WARD)) == 1


def test_the_console_answers_health_readiness_and_metrics(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        assert site.get("/healthz")[0] == 200
        site.until(lambda: site.get("/readyz")[0] == 200)
        site.until(lambda: 'relay_deliveries_total{adapter="mss",outcome="sent"}' in site.get("/metrics")[1])
        metrics = site.get("/metrics")[1]
        assert 'relay_envelopes_total{outcome="decided"}' in metrics
        assert 'relay_adapter_up{adapter="cardiologie"} 1.0' in metrics
        assert site.get("/")[0] == 401


def test_pause_stops_what_leaves_and_resume_lets_it_go(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = ready(make_site())
    site.relay("pause")
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender=SENDER)
    with site.running():
        site.row("deliveries", purpose="letter", state="queued")
        assert site.json("status")["adapters"]["mss"]["state"] == "paused"
        assert not dovecot.messages(GP)
        site.relay("resume")
        dovecot.wait_messages(GP)
