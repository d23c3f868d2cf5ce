"""The built-in chat page: what it shows survives, what is pressed arrives once, and only its owner gets in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from adapters import webchat
from relay.errors import Deferred, Rejected
from relay.model import (
    Batch,
    ChatFields,
    ChatKind,
    ChatMessage,
    ChatRecipe,
    Delivery,
    Envelope,
    Press,
    Purpose,
    Typed,
)
from relay.ports import Channel, Tools

NOON = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)


class Noon:
    """It is always noon."""

    def now(self) -> datetime:
        return NOON

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


@pytest.fixture
def open_chat(tmp_path: Path) -> Callable[[], webchat.Webchat]:
    tools = Tools(clock=Noon(), state=tmp_path)
    return lambda: webchat.connect("chat", webchat.Settings(), tools)


@pytest.fixture
def chat(open_chat: Callable[[], webchat.Webchat]) -> webchat.Webchat:
    return open_chat()


def browser_of(chat: webchat.Webchat) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(chat.pages), base_url="http://127.0.0.1", follow_redirects=True
    )


@pytest.fixture
async def browser(chat: webchat.Webchat) -> AsyncIterator[httpx.AsyncClient]:
    """Signed in to the chat `ambre`, with the page's token in its headers."""
    async with browser_of(chat) as client:
        await sign_in(client, chat)
        yield client


async def sign_in(client: httpx.AsyncClient, chat: webchat.Webchat, name: str = "ambre") -> None:
    page = await client.get(f"/{chat.link(name)}")
    token = re.search(r'name="relais-press" content="(\w+)"', page.text)
    assert token
    client.headers["x-relais-press"] = token[1]


def delivery(
    number: int = 1, text: str = "Lettre de sortie à lire. Réf. 7F3Q-K2M9", **message: object
) -> Delivery:
    shown = ChatMessage("ambre", text, ((("Bien reçu", f"nonce-{number}"), ("Rappelez-moi", "n2")),))
    return Delivery(
        id=f"delivery{number}",
        adapter="chat",
        to="rpps:10099900012",
        address="ambre",
        purpose=Purpose.ALERT,
        recipe=ChatRecipe(ChatFields(ChatKind.ALERT)),
        created_at=NOON,
        message=replace(shown, **message),  # type: ignore[arg-type]
    )


async def messages(client: httpx.AsyncClient, name: str = "ambre") -> list[dict[str, object]]:
    answer = await client.get(f"/{name}/messages")
    assert answer.status_code == 200, answer.text
    return answer.json()["messages"]  # type: ignore[no-any-return]


async def next_batch(watching: AsyncIterator[Batch]) -> tuple[Envelope, ...]:
    return (await asyncio.wait_for(anext(watching), 5)).envelopes


def test_it_is_a_channel_that_is_not_confidential(chat: webchat.Webchat) -> None:
    assert isinstance(chat, Channel)
    assert not chat.limits.confidential


def test_settings_refuse_unknown_keys_and_the_claim_to_be_confidential() -> None:
    for wrong in ({"colour": "red"}, {"confidential": True}):
        with pytest.raises(ValidationError):
            webchat.Settings.model_validate(wrong)


async def test_a_message_that_was_sent_is_shown_again_after_a_restart(
    chat: webchat.Webchat, open_chat: Callable[[], webchat.Webchat]
) -> None:
    receipt = await chat.send(delivery())
    await chat.close()
    again = open_chat()
    async with browser_of(again) as client:
        await sign_in(client, again)
        (shown,) = await messages(client)
    assert shown["text"] == "Lettre de sortie à lire. Réf. 7F3Q-K2M9"
    assert shown["buttons"] == [[["Bien reçu", "nonce-1"], ["Rappelez-moi", "n2"]]]
    assert shown["id"] == receipt.remote
    assert again.account == chat.account


async def test_the_same_delivery_sent_again_shows_once_even_after_an_edit_and_a_restart(
    chat: webchat.Webchat, open_chat: Callable[[], webchat.Webchat]
) -> None:
    first = await chat.send(delivery(1))
    await chat.send(delivery(2, "Prise en charge", edits=first.remote, buttons=()))
    again = open_chat()
    assert (await again.send(delivery(1))).remote == first.remote
    async with browser_of(again) as client:
        await sign_in(client, again)
        (shown,) = await messages(client)
    assert (shown["text"], shown["buttons"]) == ("Prise en charge", [])


async def test_a_line_torn_by_a_crash_costs_only_itself(
    chat: webchat.Webchat, open_chat: Callable[[], webchat.Webchat], tmp_path: Path
) -> None:
    await chat.send(delivery(1))
    with (tmp_path / "webchat-chat.jsonl").open("ab") as journal:
        journal.write(b'{"id": "2", "chat": "am')
    again = open_chat()
    await again.send(delivery(3, "Suivante"))
    third = open_chat()
    async with browser_of(third) as client:
        await sign_in(client, third)
        assert [each["text"] for each in await messages(client)] == [
            "Lettre de sortie à lire. Réf. 7F3Q-K2M9",
            "Suivante",
        ]


async def test_a_full_disk_defers_and_shows_nothing(chat: webchat.Webchat, tmp_path: Path) -> None:
    (tmp_path / "webchat-chat.jsonl").unlink()
    (tmp_path / "webchat-chat.jsonl").mkdir()  # as good as full: it cannot be written
    with pytest.raises(Deferred):
        await chat.send(delivery())
    async with browser_of(chat) as client:
        await sign_in(client, chat)
        assert await messages(client) == []


async def test_a_chat_name_that_is_no_name_is_refused_for_good(chat: webchat.Webchat) -> None:
    with pytest.raises(Rejected):
        await chat.send(delivery(chat="../etc"))


async def test_the_files_are_for_the_relay_alone(chat: webchat.Webchat, tmp_path: Path) -> None:
    await chat.send(delivery())
    modes = {file.name: oct(file.stat().st_mode & 0o777) for file in tmp_path.iterdir()}  # noqa: ASYNC240
    assert modes == {"webchat-chat.key": "0o600", "webchat-chat.jsonl": "0o600"}


async def test_a_press_is_answered_only_once_it_was_acknowledged(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    receipt = await chat.send(delivery())
    asked = {"id": "press-0001", "message": receipt.remote, "nonce": "nonce-1"}
    answering = asyncio.create_task(browser.post("/ambre/press", json=asked))
    (envelope,) = await next_batch(chat.watch(None))
    assert envelope.event == Press("webchat", "ambre", "ambre", str(receipt.remote), "nonce-1", "press-0001")
    assert not answering.done()
    await chat.acknowledge([envelope])
    assert isinstance(envelope.event, Press)
    await chat.answer(envelope.event, "Bien reçu : noté.")
    answer = await answering
    assert (answer.status_code, answer.json()) == (200, {"text": "Bien reçu : noté.", "alert": False})


async def test_a_press_repeated_by_the_browser_arrives_once(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    receipt = await chat.send(delivery())
    asked = {"id": "press-0001", "message": receipt.remote, "nonce": "nonce-1"}
    first = asyncio.create_task(browser.post("/ambre/press", json=asked))
    watching = chat.watch(None)
    (envelope,) = await next_batch(watching)
    second = asyncio.create_task(browser.post("/ambre/press", json=asked))
    await chat.answer(envelope.event, "Noté.")  # type: ignore[arg-type]
    await chat.acknowledge([envelope])
    assert [(await each).json()["text"] for each in (first, second)] == ["Noté.", "Noté."]
    later = await browser.post("/ambre/press", json=asked)
    assert later.json()["text"] == "Noté."
    assert not chat._waiting


async def test_a_press_not_acknowledged_comes_again_when_watched_anew(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    receipt = await chat.send(delivery())
    asked = {"id": "press-0001", "message": receipt.remote, "nonce": "nonce-1"}
    answering = asyncio.create_task(browser.post("/ambre/press", json=asked))
    before = await next_batch(chat.watch(None))
    after = await next_batch(chat.watch("whatever"))
    assert before == after
    await chat.close()
    assert (await answering).status_code == 503, "the browser must try again: nobody took the press"


async def test_a_browser_is_told_to_try_again_while_nobody_takes_its_press(
    chat: webchat.Webchat, browser: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webchat, "HOLD", 0.01)
    receipt = await chat.send(delivery())
    answer = await browser.post(
        "/ambre/press", json={"id": "press-0001", "message": receipt.remote, "nonce": "nonce-1"}
    )
    assert answer.status_code == 503
    assert len(await next_batch(chat.watch(None))) == 1, "it is kept for the loop all the same"


async def test_commands_pass_and_prose_is_dropped_at_the_door(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    texts = {"/lettres": "/lettres", "/Absent 04/01 10/01 Dr Cormerais": "/absent 04/01 10/01",
             "Mme Cormerais va mieux": None}  # fmt: skip
    for number, (typed, kept) in enumerate(texts.items()):
        asking = asyncio.create_task(
            browser.post("/ambre/text", json={"id": f"typed-{number:04}", "text": typed})
        )
        (envelope,) = await next_batch(chat.watch(None))
        assert isinstance(envelope.event, Typed)
        assert envelope.event.text == kept
        assert "ormerais" not in envelope.raw.decode()
        await chat.acknowledge([envelope])
        assert (await asking).status_code == 200


async def test_only_the_holder_of_the_link_gets_in(chat: webchat.Webchat) -> None:
    await chat.send(delivery())
    async with browser_of(chat) as stranger:
        for path in (
            "/ambre",
            "/ambre/messages",
            "/ambre?token=",
            f"/ambre?token={'a' * 32}",
            "/ambre?token=é",
        ):
            assert (await stranger.get(path)).status_code == 403, path
        await sign_in(stranger, chat, "saule")
        stranger.cookies.set(webchat.COOKIE, stranger.cookies[webchat.COOKIE], path="/")
        assert (await stranger.get("/ambre/messages")).status_code == 403, (
            "one's own cookie opens one's own chat"
        )


async def test_a_post_without_the_pages_token_is_refused(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    receipt = await chat.send(delivery())
    asked = {"id": "press-0001", "message": receipt.remote, "nonce": "nonce-1"}
    for token in ("", "a" * 32, browser.cookies[webchat.COOKIE]):
        answer = await browser.post("/ambre/press", json=asked, headers={"x-relais-press": token})
        assert answer.status_code == 403


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"id": "press-0001", "message": "99", "nonce": "x"}, 404),
        ({"id": "press-0001", "message": "1", "nonce": "n" * 65}, 404),
        ({"id": "press-0001", "message": "1"}, 404),
        ({"id": "a b", "message": "1", "nonce": "x"}, 400),
        ([], 400),
        ({"id": "press-0001", "pad": "x" * 5000}, 413),
    ],
)
async def test_a_malformed_press_never_becomes_an_envelope(
    chat: webchat.Webchat, browser: httpx.AsyncClient, asked: object, status: int
) -> None:
    await chat.send(delivery())
    assert (await browser.post("/ambre/press", json=asked)).status_code == status
    assert not chat._waiting


async def test_a_press_nested_beyond_measure_is_malformed_too(browser: httpx.AsyncClient) -> None:
    answer = await browser.post("/ambre/press", content=b"[" * 1500)
    assert answer.status_code == 400


async def test_one_chat_cannot_flood_the_relay(chat: webchat.Webchat, browser: httpx.AsyncClient) -> None:
    receipt = await chat.send(delivery())
    asking = [
        asyncio.create_task(
            browser.post(
                "/ambre/press", json={"id": f"press-{n:04}", "message": receipt.remote, "nonce": "x"}
            )
        )
        for n in range(webchat.WAITING + 5)
    ]
    refused, _ = await asyncio.wait(asking, timeout=5, return_when=asyncio.FIRST_COMPLETED)
    assert {task.result().status_code for task in refused} == {503}
    await chat.close()
    await asyncio.gather(*asking)
    assert len(chat._waiting) == webchat.WAITING


async def test_the_page_waits_for_something_new_and_is_told_at_once(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    version = (await browser.get("/ambre/messages")).json()["version"]
    waiting = asyncio.create_task(browser.get("/ambre/messages", params={"after": version}))
    await chat.send(delivery())
    news = (await asyncio.wait_for(waiting, 5)).json()
    assert news["version"] != version
    assert len(news["messages"]) == 1


async def test_a_closing_relay_lets_waiting_pages_and_its_own_watch_go(
    chat: webchat.Webchat, browser: httpx.AsyncClient
) -> None:
    version = (await browser.get("/ambre/messages")).json()["version"]
    waiting = asyncio.create_task(browser.get("/ambre/messages", params={"after": version}))
    watching = asyncio.create_task(anext(chat.watch(None)))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await chat.close()
    assert (await asyncio.wait_for(waiting, 5)).status_code == 200
    with pytest.raises(Deferred):
        await asyncio.wait_for(watching, 5)


async def test_a_list_shown_at_once_is_gone_after_a_restart(
    chat: webchat.Webchat, browser: httpx.AsyncClient, open_chat: Callable[[], webchat.Webchat]
) -> None:
    await chat.reply(ChatMessage("ambre", "2 lettres à lire"))
    assert [each["text"] for each in await messages(browser)] == ["2 lettres à lire"]
    again = open_chat()
    async with browser_of(again) as client:
        await sign_in(client, again)
        assert await messages(client) == []


async def test_old_messages_scroll_away(chat: webchat.Webchat, browser: httpx.AsyncClient) -> None:
    await chat.send_many([delivery(n, f"message {n}") for n in range(webchat.KEPT + 3)])
    shown = await messages(browser)
    assert len(shown) == webchat.KEPT
    assert shown[0]["text"] == "message 3"
