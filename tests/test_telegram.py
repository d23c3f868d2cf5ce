"""The Telegram adapter on a double with the Bot API's real semantics: what is confirmed, refused, paced and forgotten."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr, ValidationError

from adapters import telegram as adapter_module
from relay.errors import Deferred, Rejected, Uncertain, Verdict
from relay.model import Batch, ChatMessage, Press, Receipt, Typed, Why
from tests.servers import LOOPBACK
from tests.trials import TurnedClock, alert, telegram_settings, tools

if TYPE_CHECKING:
    from tests.servers.pki import Pki
    from tests.servers.telegram import Telegram


class Opener:
    """Opens adapters; all of them are closed at the end."""

    def __init__(self, server: Telegram, folder: Path) -> None:
        self.server, self.folder, self.clock = server, folder, TurnedClock()
        self.adapters: list[adapter_module.Telegram] = []

    def __call__(self, **changed: object) -> adapter_module.Telegram:
        settings = telegram_settings(self.server, **changed)
        self.adapters.append(adapter_module.connect("telegram", settings, tools(self.folder, self.clock)))
        return self.adapters[-1]


@pytest.fixture
async def opened(telegram: Telegram, tmp_path: Path) -> AsyncIterator[Opener]:
    opener = Opener(telegram, tmp_path)
    yield opener
    for adapter in opener.adapters:
        await adapter.close()


async def following(watching: AsyncIterator[Batch]) -> Batch:
    return await asyncio.wait_for(anext(watching), 10)


async def verdict_of(adapter: adapter_module.Telegram, mark: str = "un", **fields: object) -> Verdict:
    with pytest.raises(Verdict) as verdict:
        await adapter.send(alert(mark, **fields))
    return verdict.value


# ------------------------------------------------------------------------------------------------------ in


async def test_an_update_is_confirmed_to_the_server_after_our_commit_only(
    telegram: Telegram, opened: Opener
) -> None:
    adapter = opened()
    first = telegram.say(7, "/lettres")
    watching = adapter.watch(None)
    batch = await following(watching)
    waiting = asyncio.ensure_future(following(watching))
    for _ in range(50):
        await asyncio.sleep(0)
    assert telegram.acknowledged <= first
    assert len(telegram.made("getUpdates")) == 1, "asking again would confirm, or bring the same"
    await adapter.acknowledge(batch.envelopes)
    second = telegram.say(7, "/aide")
    assert [envelope.ref for envelope in (await waiting).envelopes] == [str(second)]
    assert telegram.acknowledged == first + 1


async def test_updates_whose_numbers_start_anew_are_not_hidden_by_an_old_cursor(
    telegram: Telegram, opened: Opener
) -> None:
    number = telegram.say(7, "/lettres")
    batch = await following(opened().watch(str(number + 10**6)))
    assert [envelope.ref for envelope in batch.envelopes] == [str(number)]


async def test_a_press_carries_who_where_and_the_nonce(telegram: Telegram, opened: Opener) -> None:
    adapter = opened()
    receipt = await adapter.send(alert("un", chat=-100))
    query = telegram.press(-100, int(receipt.remote or 0), "Bien reçu", user=42, name="Nom-de-la-personne")
    (envelope,) = (await following(adapter.watch(None))).envelopes
    assert envelope.event == Press("telegram", "42", "-100", receipt.remote or "", "nonce", query)
    assert envelope.account == "telegram:123456"
    assert b"Nom-de-la-personne" not in envelope.raw


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("/lettres", "/lettres"),
        ("/lettres@relais_bot", "/lettres"),
        ("/absent 04/01 10/01/2027", "/absent 04/01 10/01/2027"),
        ("/start AbCd_1234-xyzAbCd", "/start AbCd_1234-xyzAbCd"),
        ("/absent Mme Dupont est partie", None),
        ("Mme Dupont va mal", None),
        ("/lettres\nMme Dupont", None),
    ],
)
async def test_commands_pass_and_prose_is_neither_kept_nor_left_standing(
    telegram: Telegram, opened: Opener, typed: str, kept: str | None
) -> None:
    adapter = opened()
    telegram.say(7, typed)
    batch = await following(adapter.watch(None))
    (envelope,) = batch.envelopes
    assert isinstance(envelope.event, Typed)
    assert envelope.event.text == kept
    assert b"Dupont" not in envelope.raw
    assert telegram.deleted == [], "nothing is deleted before it is answered for"
    await adapter.acknowledge(batch.envelopes)
    assert telegram.deleted == ([] if kept else [(7, int(envelope.event.message))])


async def test_what_nobody_said_is_no_arrival(telegram: Telegram, opened: Opener) -> None:
    chat = {"id": -5, "type": "supergroup", "title": "Cabinet"}
    person = {"id": 7, "is_bot": False, "first_name": "Dr"}
    base = {"message_id": 1, "date": 1, "chat": chat, "from": person}
    telegram.push(message={**base, "new_chat_title": "Autre"})
    telegram.push(message={**base, "from": {**person, "is_bot": True}, "text": "/lettres"})
    telegram.push(message={**base, "new_chat_members": [person]})
    wanted = telegram.say(7, "/aide")
    batch = await following(opened().watch(None))
    assert [envelope.ref for envelope in batch.envelopes] == [str(wanted)]


async def test_a_picture_is_deleted_like_prose(telegram: Telegram, opened: Opener) -> None:
    adapter = opened()
    telegram.say(7, "")
    message = next(iter(telegram.messages.values()))
    del message["text"]
    message["photo"] = [{"file_id": "f", "file_unique_id": "f", "width": 1, "height": 1}]
    batch = await following(adapter.watch(None))
    await adapter.acknowledge(batch.envelopes)
    assert telegram.deleted == [(7, message["message_id"])]


async def test_a_webhook_set_by_somebody_else_is_taken_down(telegram: Telegram, opened: Opener) -> None:
    telegram.say(7, "/aide")
    await following(opened().watch(None))
    assert telegram.made("deleteWebhook") == [{"drop_pending_updates": "false"}] or telegram.made(
        "deleteWebhook"
    )


async def test_two_processes_on_one_bot_are_told_apart_from_a_broken_line(
    telegram: Telegram, opened: Opener
) -> None:
    waiting = asyncio.ensure_future(following(opened().watch(None)))
    await asyncio.to_thread(telegram.wait, "getUpdates", 1)
    other = asyncio.ensure_future(following(opened().watch(None)))
    with pytest.raises(Deferred) as deferred:
        await waiting
    assert deferred.value.why == Why.BUSY
    assert (deferred.value.retry_after or 0) >= 60
    other.cancel()
    await asyncio.gather(other, return_exceptions=True)


async def test_a_flood_of_updates_comes_without_gaps(telegram: Telegram, opened: Opener) -> None:
    adapter = opened()
    numbers = [str(telegram.say(7, "/aide")) for _ in range(250)]
    watching, got = adapter.watch(None), []
    while len(got) < 250:
        batch = await following(watching)
        got += [envelope.ref for envelope in batch.envelopes]
        await adapter.acknowledge(batch.envelopes)
    assert got == numbers


# ----------------------------------------------------------------------------------------------------- out


async def test_an_alert_is_protected_and_shows_its_buttons_and_link(
    telegram: Telegram, opened: Opener
) -> None:
    buttons = ((("Bien reçu", "n1"), ("Rappelez-moi", "n2")), (("Plus tard", "n3"),))
    link = ("Ouvrir", "https://lettres.example.fr/x")
    await opened().send(alert("Réf. 7F3Q-K2M9 <b>_*", silent=True, buttons=buttons, link=link))
    (sent,) = telegram.made("sendMessage")
    assert sent["text"] == "Réf. 7F3Q-K2M9 <b>_*"
    assert "parse_mode" not in sent
    assert [sent[key].lower() for key in ("protect_content", "disable_notification")] == ["true", "true"]
    assert sent["link_preview_options"] == {"is_disabled": True}
    rows = [[button.get("callback_data") or button["url"] for button in row] for row in _keyboard(sent)]
    assert rows == [["n1", "n2"], ["n3"], ["https://lettres.example.fr/x"]]


async def test_an_urgent_alert_rings(telegram: Telegram, opened: Opener) -> None:
    await opened().send(alert("un", silent=False))
    assert telegram.made("sendMessage")[0].get("disable_notification", "false").lower() == "false"


async def test_a_message_is_edited_in_place_and_its_buttons_go(telegram: Telegram, opened: Opener) -> None:
    adapter = opened()
    receipt = await adapter.send(alert("un"))
    again = await adapter.send(alert("Prise en charge", edits=receipt.remote, buttons=()))
    assert again == Receipt("delivery-Prise-en-charge", receipt.remote)
    (message,) = telegram.messages.values()
    assert message["text"] == "Prise en charge"
    assert "reply_markup" not in message


async def test_the_same_edit_twice_is_well(telegram: Telegram, opened: Opener) -> None:
    adapter = opened()
    receipt = await adapter.send(alert("un"))
    for _ in range(2):
        assert (await adapter.send(alert("deux", edits=receipt.remote))).remote == receipt.remote


async def test_an_edit_without_an_answer_is_repeated_not_uncertain(
    telegram: Telegram, opened: Opener
) -> None:
    adapter = opened()
    receipt = await adapter.send(alert("un"))
    telegram.fault("editMessageText", drop="after")
    verdict = await verdict_of(adapter, "deux", edits=receipt.remote)
    assert (type(verdict), verdict.why) == (Deferred, Why.CONNECTION)


async def test_a_reply_to_a_message_that_is_gone_is_shown_all_the_same(
    telegram: Telegram, opened: Opener
) -> None:
    await opened().send(alert("un", reply_to="999"))
    assert [message["text"] for message in telegram.messages.values()] == ["un"]


@pytest.mark.parametrize("nonce", ["x" * 65, "é" * 33, ""])
async def test_button_data_the_server_would_refuse_never_leaves(
    telegram: Telegram, opened: Opener, nonce: str
) -> None:
    verdict = await verdict_of(opened(), buttons=((("Lu", nonce),),))
    assert (type(verdict), verdict.why) == (Rejected, Why.PROTOCOL)
    assert telegram.calls == []


async def test_64_bytes_of_button_data_pass(telegram: Telegram, opened: Opener) -> None:
    await opened().send(alert("un", buttons=((("Lu", "é" * 32),),)))


FAULTS: dict[str, tuple[dict[str, object], type[Verdict], Why]] = {
    "too many": ({"status": 429, "retry_after": 7}, Deferred, Why.RATE_LIMITED),
    "half a second": ({"status": 429, "retry_after": 0.5}, Deferred, Why.RATE_LIMITED),
    "500": ({"status": 500}, Deferred, Why.SERVER_ERROR),
    "502 with a page": ({"status": 502, "html": True}, Deferred, Why.SERVER_ERROR),
    "504": ({"status": 504, "html": True}, Uncertain, Why.LOST_AFTER_SEND),
    "blocked": (
        {"status": 403, "description": "Forbidden: bot was blocked by the user"},
        Rejected,
        Why.BLOCKED,
    ),
    "no chat": ({"status": 400, "description": "Bad Request: chat not found"}, Rejected, Why.NO_CHANNEL),
    "other": ({"status": 400, "description": "Bad Request: something"}, Rejected, Why.REFUSED),
    "migrated": ({"status": 400, "migrate_to": -1009}, Rejected, Why.UNLINKED),
    "revoked token": ({"status": 401}, Deferred, Why.AUTHENTICATION),
    "lost before": ({"drop": "before"}, Uncertain, Why.LOST_AFTER_SEND),
    "lost after": ({"drop": "after"}, Uncertain, Why.LOST_AFTER_SEND),
    "cut short": ({"garble": "short"}, Uncertain, Why.LOST_AFTER_SEND),
    "ok: false": ({"garble": "false"}, Uncertain, Why.LOST_AFTER_SEND),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_has_its_verdict_and_says_nothing_of_the_server_or_the_token(
    telegram: Telegram, opened: Opener, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    caplog.set_level(logging.DEBUG)
    fault, kind, why = FAULTS[name]
    adapter = opened()
    telegram.fault("sendMessage", **fault)
    verdict = await verdict_of(adapter, "Canari-du-patient", chat=11)
    assert (type(verdict), verdict.why) == (kind, why)
    said = f"{verdict} {verdict!r} {verdict.__cause__} {caplog.text}"
    for secret in (telegram.token, "Canari", "Forbidden", "Bad Gateway"):
        assert secret not in said
    assert await adapter.send(alert("suivant", chat=12))


async def test_a_chat_told_to_wait_is_left_alone_and_the_others_are_not(
    telegram: Telegram, opened: Opener
) -> None:
    adapter = opened()
    telegram.fault("sendMessage", status=429, retry_after=30)
    assert (await verdict_of(adapter, chat=7)).retry_after == 30
    opened.clock.at += 10
    assert (await verdict_of(adapter, chat=7)).retry_after == 20
    assert len(telegram.made("sendMessage")) == 1
    await adapter.send(alert("autre", chat=8))
    opened.clock.at += 21
    await adapter.send(alert("un", chat=7))
    assert len(telegram.made("sendMessage")) == 3


async def test_a_chat_gets_one_message_a_second_and_all_chats_thirty(
    telegram: Telegram, opened: Opener
) -> None:
    adapter = opened(rate={"total": 30, "chat": 1})
    for _ in range(3):
        await adapter.send(alert("un", chat=7))
    assert opened.clock.at == pytest.approx(2)
    before = opened.clock.at
    for chat in range(100, 130):
        await adapter.send(alert("un", chat=chat))
    assert opened.clock.at - before == pytest.approx(1, abs=0.05)


async def test_no_limit_means_no_waiting(telegram: Telegram, opened: Opener) -> None:
    receipts = await opened(rate={"total": 0, "chat": 0}).send_many(
        [alert(f"n{n}", chat=7) for n in range(40)]
    )
    assert all(isinstance(receipt, Receipt) for receipt in receipts)
    assert opened.clock.slept == []


async def test_a_person_who_blocked_the_bot_does_not_hold_the_others_up(
    telegram: Telegram, opened: Opener
) -> None:
    telegram.block(7)
    answers = await opened().send_many([alert(f"n{chat}", chat=chat) for chat in (6, 7, 8)])
    assert [type(answer) for answer in answers] == [Receipt, Rejected, Receipt]


async def test_an_answer_and_a_reply_never_raise(telegram: Telegram, opened: Opener) -> None:
    adapter = opened()
    press = Press("telegram", "7", "7", "1", "nonce", "callback")
    await adapter.answer(press, "x" * 300, alert=True)
    (answered,) = telegram.made("answerCallbackQuery")
    assert (answered["callback_query_id"], len(answered["text"])) == ("callback", 200)
    assert answered["show_alert"].lower() == "true"
    for method in ("answerCallbackQuery", "sendMessage"):
        telegram.fault(method, status=400)
    await adapter.answer(press, "x")
    await adapter.reply(ChatMessage("7", "x"))
    telegram.fault("sendMessage", status=429, retry_after=60)
    await verdict_of(adapter, chat=7)
    await adapter.reply(ChatMessage("7", "x"))
    await adapter.reply(ChatMessage("8", "bonjour"))
    assert telegram.made("sendMessage")[-1]["text"] == "bonjour"


async def test_a_text_over_the_limit_is_rejected(telegram: Telegram, opened: Opener) -> None:
    assert (await verdict_of(opened(), "x" * 4097)).why == Why.MESSAGE_TOO_LARGE
    await opened().send(alert("x" * 4096))


async def test_it_never_claims_to_be_confidential(telegram: Telegram, opened: Opener) -> None:
    limits = opened().limits
    assert (limits.confidential, limits.deduplicates, limits.buttons, limits.edits) == (
        False,
        False,
        True,
        True,
    )
    with pytest.raises(ValidationError):
        telegram_settings(telegram, confidential=True)


@pytest.mark.parametrize(
    "wrong",
    [
        {"base_url": "http://api.telegram.org"},
        {"base_url": "ftp://127.0.0.1"},
        {"base_url": "api.telegram.org"},
        {"token": SecretStr("no-token")},
        {"token": SecretStr("1:a/../b")},
        {"rate": {"total": -1}},
        {"rate": {"total": 1, "person": 2}},
        {"tokken": "x"},
    ],
)
def test_settings_that_cannot_work_are_refused(telegram: Telegram, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        telegram_settings(telegram, **wrong)


def test_the_real_server_is_the_default() -> None:
    settings = adapter_module.Settings(token=SecretStr("1:a"))
    assert settings.base_url == "https://api.telegram.org"
    assert (settings.rate.total, settings.rate.chat) == (30, 1)


def _keyboard(sent: dict[str, object]) -> list[list[dict[str, str]]]:
    markup = sent["reply_markup"]
    assert isinstance(markup, dict)
    rows: list[list[dict[str, str]]] = markup["inline_keyboard"]
    return rows


async def test_a_server_whose_certificate_nobody_vouches_for_hears_nothing(pki: Pki, opened: Opener) -> None:
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))
        writer.close()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pki.server.cert, pki.server.key)
    server = await asyncio.start_server(listen, LOOPBACK, 0, ssl=context)
    async with server:
        port = server.sockets[0].getsockname()[1]
        verdict = await verdict_of(opened(base_url=f"https://{LOOPBACK}:{port}"))
    assert isinstance(verdict, Deferred)
    assert verdict.why == Why.CERTIFICATE
    assert not any(heard)
