"""What arrives is stored once, whole and sealed, and given out until it is decided."""

from __future__ import annotations

from dataclasses import replace

import pytest

from relay.errors import NotFound
from relay.model import Batch, Press, Typed, Why
from relay.store import Store
from tests.stores import NOON, Place, batch, decided, envelope, letter


async def test_what_was_accepted_comes_back_whole_and_in_order(store: Store) -> None:
    accepted = await store.accept(batch(1, 2, 3))
    assert accepted == await store.open_envelopes(None, 10) == batch(1, 2, 3).envelopes
    assert await store.cursor("imap/cardiologie") == "3"
    assert await store.cursor("imap/nobody") is None


async def test_what_comes_again_is_left_alone_and_only_the_new_is_answered(store: Store) -> None:
    await store.accept(batch(1, 2))
    again = await store.accept(Batch("imap/cardiologie", (*batch(1, 2, 3).envelopes, envelope(3)), "3"))
    assert again == (envelope(3),)
    status = await store.status()
    assert (status["received"], status["open"], status["balance"]) == (3, 3, 0)


async def test_a_decided_envelope_that_comes_again_stays_decided(store: Store) -> None:
    await decided(store, 1)
    assert await store.accept(batch(1)) == ()
    assert await store.open_envelopes(None, 10) == ()


async def test_paging_over_the_undecided_follows_the_order_of_acceptance(store: Store) -> None:
    late = replace(envelope(9), received_at=NOON.replace(year=2020))
    await store.accept(batch(1, 2))
    await store.accept(Batch("imap/cardiologie", (late,), "9"))
    first = await store.open_envelopes(None, 2)
    assert [each.ref for each in first] == ["1", "2"]
    assert await store.open_envelopes(first[-1].id, 2) == (late,)
    assert await store.open_envelopes(late.id, 2) == ()


async def test_a_flaw_and_a_chat_event_come_back_with_the_envelope(store: Store) -> None:
    press = Press("telegram", "42", "42", "7", "nonce", "callback")
    typed = Typed("telegram", "42", "42", "8", "/lettres")
    came = (
        replace(envelope(1), flaw=Why.TOO_LARGE),
        replace(envelope(2), event=press),
        replace(envelope(3), event=typed),
    )
    await store.accept(Batch("bot", came, "3"))
    assert await store.open_envelopes(None, 10) == came


async def test_bytes_of_any_kind_and_size_come_back(store: Store) -> None:
    raws = [b"", b"\x00\xff" * 700, b"a" * 5000, bytes(range(256)) * 4000]
    came = tuple(replace(envelope(number), raw=raw) for number, raw in enumerate(raws))
    await store.accept(Batch("a", came, "x"))
    assert await store.raws([each.id for each in came]) == {each.id: each.raw for each in came}
    assert [await store.raw(each.id) for each in came] == raws


async def test_an_unknown_envelope_is_not_found(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.stored("nobody")
    with pytest.raises(NotFound):
        await store.envelope("nobody")
    assert await store.raws(["nobody"]) == {}


async def test_one_envelope_is_shown_with_its_decision(store: Store) -> None:
    await decided(store, 1)
    line = await store.envelope(envelope(1).id)
    assert (line["state"], line["rule"], line["reference"]) == (
        "decided",
        "sortie",
        letter(1).thread.reference,
    )  # type: ignore[union-attr]
    shown = line["decision"]
    assert isinstance(shown, dict)
    assert shown["facts"] == {"event": "discharge", "age": 80}


async def test_the_list_shows_the_contract_s_names_latest_first(store: Store) -> None:
    await decided(store, 1)
    await store.accept(batch(2))
    lines = await store.envelopes()
    assert [line["ref"] for line in lines] == ["2", "1"]
    assert set(lines[0]) == {
        "id", "adapter", "ref", "message_id", "kind", "state", "why", "rule", "reference", "received_at",
    }  # fmt: skip
    assert [line["ref"] for line in await store.envelopes(state="open")] == ["2"]
    assert await store.envelopes(since=NOON.replace(year=2027)) == []
    assert len(await store.envelopes(limit=1)) == 1


async def test_two_nodes_accepting_the_same_mail_store_it_once(place: Place) -> None:
    async with place.opened("n1") as one, place.opened("n2") as other:
        assert len(await one.accept(batch(1, 2))) == 2
        assert await other.accept(batch(1, 2)) == ()
        assert (await other.status())["received"] == 2
