"""The demo: its post office behaves like a server, its letters say what they should, its page shows the relay at work."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import aiosmtplib
import pytest

from relay import reading, recognition
from relay.demo import letters, people, story
from relay.demo.letters import Letter
from relay.demo.post import PASSWORD, PostOffice, read_report
from relay.model import (
    ChatFields,
    ChatKind,
    ChatRecipe,
    Delivery,
    DeliveryState,
    LadderStep,
    Outcome,
    Pinned,
    Purpose,
    Thread,
    ThreadState,
    ThreadView,
    Timer,
)

NOW = datetime(2026, 12, 1, 17, 41, tzinfo=ZoneInfo("Europe/Paris"))
GP, WARD = people.AMBRE.address, people.WARD

# ---------------------------------------------------------------------------------------------- post office


async def _submit(
    office: PostOffice, sender: str, recipient: str, raw: bytes, notify: str = "SUCCESS,FAILURE"
) -> None:
    async with aiosmtplib.SMTP(
        hostname="127.0.0.1", port=office.smtp_port, use_tls=False, start_tls=False
    ) as client:
        await client.sendmail(
            sender,
            [recipient],
            raw,
            mail_options=["RET=HDRS", "ENVID=abc123"],
            rcpt_options=[f"NOTIFY={notify}"],
        )


MAIL = b"From: x\r\nSubject: bonjour\r\nMessage-ID: <1@x>\r\n\r\ncorps\r\n"


async def test_a_mail_sent_over_smtp_arrives_and_its_delivery_is_reported() -> None:
    async with PostOffice([GP, people.RELAY]) as office:
        await _submit(office, "relais+jeton@relais45.mssante.fr", GP, MAIL)
        (mail,) = office.mails[GP]
        assert mail.raw.endswith(MAIL)
        (report,) = office.mails[people.RELAY]
    received = recognition.recognise(reading.read(report.raw)).receipt
    assert received is not None
    assert (received.kind, received.status, received.original_message_id, received.envid) == (
        "dsn", "delivered", "<1@x>", "abc123",
    )  # fmt: skip
    assert b"Delivered-To: relais+jeton@relais45.mssante.fr" in report.raw


async def test_no_report_comes_where_none_was_asked() -> None:
    async with PostOffice([GP, people.RELAY]) as office:
        await _submit(office, people.RELAY, GP, MAIL, notify="NEVER")
        assert len(office.mails[GP]) == 1
        assert office.mails[people.RELAY] == []


async def test_nobodys_address_is_refused() -> None:
    async with PostOffice([GP, people.RELAY]) as office:
        with pytest.raises(aiosmtplib.SMTPRecipientsRefused):
            await _submit(office, people.RELAY, "personne@medecin.mssante.fr", MAIL)


async def test_opening_a_mail_tells_its_sender_when_asked() -> None:
    asking = MAIL.replace(b"Subject", b"Disposition-Notification-To: <relais@relais45.mssante.fr>\r\nSubject")
    async with PostOffice([GP]) as office:
        mail = await office.deliver("x@y", GP, asking)
        silent = await office.deliver("x@y", GP, MAIL)
    assert mail is not None
    assert silent is not None
    told = read_report(GP, mail.message)
    assert told is not None
    received = recognition.recognise(reading.read(told[1])).receipt
    assert received is not None
    assert (told[0], received.kind, received.status) == ("relais@relais45.mssante.fr", "mdn", "read")
    assert read_report(GP, silent.message) is None


async def test_a_mail_that_came_just_before_idle_is_announced_at_once() -> None:
    async with PostOffice([GP]) as office:
        reader, writer = await asyncio.open_connection("127.0.0.1", office.imap_port)

        async def say(line: str, until: str) -> None:
            writer.write(f"{line}\r\n".encode())
            while not (await reader.readline()).startswith(until.encode()):
                pass

        async with asyncio.timeout(20):
            await say(f'1 LOGIN "{GP}" "{PASSWORD}"', "1 OK")
            await say("2 EXAMINE INBOX", "2 OK")
            await say("3 UID SEARCH UID 1:*", "3 OK")
            await office.deliver("x@y", GP, MAIL)
            await say("4 IDLE", "* 1 EXISTS")
            await say("DONE", "4 OK")
            await say("5 IDLE\r\nDONE", "5 OK")
        writer.close()
        await writer.wait_closed()


# -------------------------------------------------------------------------------------------------- letters

PREPARED = letters.prepared(NOW)


@pytest.mark.parametrize("letter", PREPARED, ids=lambda letter: letter.key)
def test_each_letter_is_read_as_a_discharge_of_its_patient(letter: Letter) -> None:
    found = recognition.recognise(reading.read(letter.raw))
    assert found.outcome is Outcome.NOTICE
    assert found.notice.event == "discharge"
    assert found.notice.patient is not None
    assert letter.patient == f"{found.notice.patient.given_names[0]} {found.notice.patient.birth_name}"
    assert (found.notice.urgency == "urgent") is letter.urgent
    named = found.notice.registered_gp.rpps if found.notice.registered_gp else None
    assert named == (letter.gp.rpps if letter.gp else None)


def test_another_turn_is_about_other_stays() -> None:
    stays = [
        {
            recognition.recognise(reading.read(letter.raw)).notice.stay.number
            for letter in letters.prepared(NOW, turn)
        }  # type: ignore[union-attr]
        for turn in (0, 1)
    ]
    assert len(stays[0]) == len(stays[1]) == len(PREPARED)
    assert not stays[0] & stays[1]


def test_the_demos_people_bear_numbers_that_hold() -> None:
    from relay import identity

    for doctor in people.DOCTORS:
        assert identity.normal_rpps(doctor.rpps) == doctor.rpps
        assert identity.passes_luhn(doctor.rpps)
    for patient in people.PATIENTS:
        assert identity.ins_is_valid(patient.ins)


# --------------------------------------------------------------------------------------------------- stories


def _view(state: ThreadState = ThreadState.AWAITING_ACK, **thread: Any) -> ThreadView:
    pinned = Pinned(
        "standard",
        "ack",
        (LadderStep("20s", "real", remind="gp_ping"), LadderStep("60s", "real", hand_to="sorties")),
    )
    one = Thread(
        id="t", reference="7F3Q-K2M9", state=state, opened_at=NOW, ward="cardiologie", facility="", stay="s",
        letter="e", gp=f"rpps:{people.AMBRE.rpps}", followup=pinned,
    )  # fmt: skip
    return ThreadView(replace(one, **thread), (_copy(Purpose.LETTER, "mss"), _copy(Purpose.ALERT, "webchat")),
                      (Timer("t", "step", 0, 0, NOW + timedelta(seconds=20)),))  # fmt: skip


def _copy(purpose: Purpose, adapter: str, state: DeliveryState = DeliveryState.SENT) -> Delivery:
    return Delivery(f"{purpose}-{adapter}", adapter, f"rpps:{people.AMBRE.rpps}", "x", purpose,
                    ChatRecipe(ChatFields(ChatKind.ALERT)), NOW, state=state)  # fmt: skip


DECIDED = {"id": "e", "state": "decided", "reference": "7F3Q-K2M9"}


def test_a_letter_on_its_way_tells_who_has_it_and_what_comes_next() -> None:
    told = story.tell(DECIDED, None, _view())
    assert [moment.text for moment in told.moments] == [
        "Reçue par le relais",
        "Lettre de sortie reconnue",
        "Médecin traitant trouvé : Dr Camille Ambre, Orléans",
        "Lettre remise dans la messagerie sécurisée du Dr Camille Ambre",
        "Alerte sur son téléphone, sans donnée de santé",
    ]
    assert (told.now, told.tone) == ("En attente du médecin", "wait")
    assert told.next == story.Next("Rappel sur son téléphone", NOW + timedelta(seconds=20))


def test_an_acknowledged_letter_says_by_whom_and_counts_nothing_down() -> None:
    told = story.tell(
        DECIDED, None, replace(_view(ThreadState.ACKNOWLEDGED, acknowledged_by="Dr Ambre"), timers=())
    )
    assert (told.now, told.tone, told.next) == ("Bien reçue – Dr Ambre", "good", None)
    assert told.moments[-1].text == "Bien reçue – Dr Ambre"


def test_a_held_letter_gives_the_reason_in_the_rules_words() -> None:
    hold = {"envelope": "e", "why": "rule", "reason": "Médecin traitant à trouver.", "since": "x"}
    told = story.tell({"id": "e", "state": "held", "reference": "7F3Q-K2M9"}, hold, None)
    assert "Retenue, rien n'est envoyé : médecin traitant à trouver" in [
        moment.text for moment in told.moments
    ]
    assert told.tone == "warn"


def test_a_refused_letter_is_told_as_such_and_a_recalled_one_otherwise() -> None:
    copies = (_copy(Purpose.LETTER, "mss"), _copy(Purpose.RECALL, "mss"), _copy(Purpose.RECALL, "webchat"))
    refused = story.tell(DECIDED, None, replace(_view(ThreadState.WITH_DESK), deliveries=copies))
    closed = _view(ThreadState.CLOSED, closed_reason="recalled")
    recalled = story.tell(DECIDED, None, replace(closed, deliveries=copies))
    assert [moment.text for moment in refused.moments[-2:]] == [
        "« Pas mon patient » : Dr Camille Ambre doit supprimer la lettre",
        "Confiée au bureau des sorties, qui cherche le bon médecin",
    ]
    assert [moment.text for moment in recalled.moments[-2:]] == [
        "Dr Camille Ambre doit supprimer la lettre sans la lire",
        "Rappelée par le service",
    ]


def test_a_copy_still_to_leave_is_not_told_as_delivered() -> None:
    view = replace(_view(), deliveries=(_copy(Purpose.LETTER, "mss", DeliveryState.DEFERRED),))
    assert not any("remise" in moment.text for moment in story.tell(DECIDED, None, view).moments)


# -------------------------------------------------------------------------------------------- the whole demo


@pytest.mark.parametrize("form", ["", "--json"])
def test_the_sample_letters_end_where_they_must(form: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "relay", "demo", "--once", *filter(None, [form])],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    told = ran.stderr if form else ran.stdout
    assert told.count("✓") == 6
    assert "✗" not in told
    assert "Retenue, rien n'est envoyé" in told
    if form:  # exactly one document, and the words for people beside it
        answer = json.loads(ran.stdout)
        assert answer["ok"] is True
        assert [step["ok"] for step in answer["steps"]] == [True] * 6
        assert all(step["reference"] in told for step in answer["steps"])
