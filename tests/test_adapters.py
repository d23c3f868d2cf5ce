"""The contract of `relay.ports`, kept by every adapter, each on its real server.

CONTRACT has one line per module of `adapters/`: how it is tried as an inbox, and as a sender.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel, ValidationError

from adapters.memory import Memory
from relay.errors import Deferred, Rejected, Uncertain, Verdict
from relay.model import Batch, Envelope, Receipt, envelope_id
from relay.ports import Inbox, Sender
from tests.trials import folder_trial, imap_trial, memory_trial, mllp_trial, smtp_trial, telegram_trial

if TYPE_CHECKING:
    from tests.trials import InboxTrial, SenderTrial

Opens = Callable[
    [pytest.FixtureRequest, Path], AbstractAsyncContextManager[Any]
]  # Any: the module's own trial


@dataclass(frozen=True)
class Line:
    """How one adapter is tried; `elsewhere` names the test file of one that keeps another port."""

    inbox: Opens | None = None
    sender: Opens | None = None
    elsewhere: str = ""


CONTRACT: dict[str, Line] = {
    # It neither takes nor sends: it is asked.
    "annuaire": Line(elsewhere="test_annuaire.py"),
    "folder": Line(inbox=folder_trial),
    "imap": Line(inbox=imap_trial),
    "memory": Line(inbox=memory_trial, sender=memory_trial),
    "mllp": Line(inbox=mllp_trial),
    # It opens mail and carries none.
    "smime": Line(elsewhere="test_smime.py"),
    "smtp": Line(sender=smtp_trial),
    "telegram": Line(inbox=telegram_trial, sender=telegram_trial),
    # Its wire is a browser: the page and the contract are tried together there.
    "webchat": Line(elsewhere="test_webchat.py"),
}

ADAPTERS = Path(__file__).parent.parent / "adapters"


@pytest.fixture(params=sorted(kind for kind, line in CONTRACT.items() if line.inbox))
async def inbox(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[InboxTrial]:
    opens = CONTRACT[request.param].inbox
    assert opens is not None
    async with opens(request, tmp_path) as trial:
        yield trial
        await trial.adapter.close()


@pytest.fixture(params=sorted(kind for kind, line in CONTRACT.items() if line.sender))
async def sender(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SenderTrial]:
    opens = CONTRACT[request.param].sender
    assert opens is not None
    async with opens(request, tmp_path) as trial:
        yield trial
        await trial.adapter.close()


async def take(watching: AsyncIterator[Batch], count: int) -> tuple[list[Envelope], list[Batch]]:
    """Take batches until there are so many envelopes."""
    batches: list[Batch] = []
    async with asyncio.timeout(20):
        while sum(len(batch.envelopes) for batch in batches) < count:
            batches.append(await anext(watching))
    return [envelope for batch in batches for envelope in batch.envelopes], batches


# -------------------------------------------------------------------------------------------------- modules


def test_every_module_of_adapters_has_a_line() -> None:
    modules = {module.stem for module in ADAPTERS.glob("*.py")} - {"__init__"}
    assert modules == set(CONTRACT), "one line in CONTRACT for each module, and none without a module"


@pytest.mark.parametrize("kind", sorted(CONTRACT))
def test_a_line_that_points_elsewhere_points_to_a_test_file(kind: str) -> None:
    line = CONTRACT[kind]
    assert line.inbox or line.sender or (Path(__file__).parent / line.elsewhere).is_file()


@pytest.mark.parametrize("kind", sorted(CONTRACT))
def test_a_module_refuses_keys_it_does_not_know(kind: str) -> None:
    module = importlib.import_module(f"adapters.{kind}")
    assert issubclass(module.Settings, BaseModel)
    with pytest.raises(ValidationError) as refused:
        module.Settings.model_validate({"no_such_key": 1})
    assert any(error["type"] == "extra_forbidden" for error in refused.value.errors())


@pytest.mark.parametrize("kind", sorted(kind for kind, line in CONTRACT.items() if line.inbox or line.sender))
def test_a_module_connects_with_name_settings_and_tools(kind: str) -> None:
    module = importlib.import_module(f"adapters.{kind}")
    assert list(inspect.signature(module.connect).parameters) == ["name", "settings", "tools"]
    assert (module.__doc__ or "").strip()


# -------------------------------------------------------------------------------------------------- inboxes


async def test_an_inbox_fulfils_the_port(inbox: InboxTrial) -> None:
    assert isinstance(inbox.adapter, Inbox)
    await inbox.adapter.probe()


async def test_connecting_touches_no_network(inbox: InboxTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("connect() must not touch the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    inbox.again()


async def test_what_arrives_is_yielded_whole_in_order_with_ids_of_its_place(inbox: InboxTrial) -> None:
    await inbox.arrive("un", "deux", "trois")
    envelopes, batches = await take(inbox.adapter.watch(None), 3)
    assert [inbox.mark(envelope) for envelope in envelopes] == ["un", "deux", "trois"]
    for envelope in envelopes:
        assert envelope.account == inbox.adapter.account == batches[-1].account
        assert envelope.id == envelope_id(envelope.account, envelope.ref)
        assert envelope.adapter == inbox.adapter.name
        assert envelope.received_at.tzinfo is not None
        assert envelope.flaw is None
        assert envelope.raw
    assert len({envelope.id for envelope in envelopes}) == 3


async def test_an_arrival_during_the_watch_is_yielded(inbox: InboxTrial) -> None:
    watching = inbox.adapter.watch(None)
    await inbox.arrive("avant")
    first, _ = await take(watching, 1)
    await inbox.adapter.acknowledge(first)
    waiting = asyncio.ensure_future(take(watching, 1))
    await inbox.arrive("pendant")
    (envelope,), _ = await waiting
    assert inbox.mark(envelope) == "pendant"


async def test_what_was_not_acknowledged_comes_again_after_a_restart_under_the_same_id(
    inbox: InboxTrial,
) -> None:
    await inbox.arrive("un", "deux")
    watching = inbox.adapter.watch(None)
    before, batches = await take(watching, 2)
    await watching.aclose()  # type: ignore[attr-defined] # every watch is a generator
    await inbox.adapter.close()
    inbox.adapter = inbox.again()
    after, _ = await take(inbox.adapter.watch(batches[-1].cursor), 2)
    assert [envelope.id for envelope in after] == [envelope.id for envelope in before]
    assert [envelope.raw for envelope in after] == [envelope.raw for envelope in before]


async def test_what_was_acknowledged_does_not_come_again(inbox: InboxTrial) -> None:
    await inbox.arrive("un", "deux")
    watching = inbox.adapter.watch(None)
    before, batches = await take(watching, 2)
    await inbox.adapter.acknowledge(before)
    await inbox.arrive("trois")
    between, batches = await take(watching, 1)
    await inbox.adapter.acknowledge(between)
    waiting = asyncio.ensure_future(anext(watching))
    await inbox.arrive("quatre")
    await waiting
    await watching.aclose()  # type: ignore[attr-defined] # every watch is a generator
    await inbox.adapter.close()
    inbox.adapter = inbox.again()
    after, _ = await take(inbox.adapter.watch(batches[-1].cursor), 1)
    assert [inbox.mark(envelope) for envelope in after] == ["quatre"]


async def test_acknowledging_twice_or_nothing_does_no_harm(inbox: InboxTrial) -> None:
    await inbox.arrive("un")
    envelopes, _ = await take(inbox.adapter.watch(None), 1)
    await inbox.adapter.acknowledge(())
    await inbox.adapter.acknowledge(envelopes)
    await inbox.adapter.acknowledge(envelopes)


async def test_a_flood_comes_in_batches_of_at_most_200_without_gaps(inbox: InboxTrial) -> None:
    marks = [f"n{number}" for number in range(450)]
    await inbox.arrive(*marks)
    watching, got = inbox.adapter.watch(None), []
    async with asyncio.timeout(30):
        while len(got) < len(marks):
            batch = await anext(watching)
            assert len(batch.envelopes) <= 200
            got += [inbox.mark(envelope) for envelope in batch.envelopes]
            await inbox.adapter.acknowledge(batch.envelopes)
    assert got == marks


async def test_a_connection_that_breaks_is_deferred_and_nothing_is_missed(inbox: InboxTrial) -> None:
    await inbox.arrive("avant")
    watching = inbox.adapter.watch(None)
    first, batches = await take(watching, 1)
    await inbox.adapter.acknowledge(first)
    waits = asyncio.ensure_future(inbox.waits())
    await asyncio.sleep(0)
    waiting = asyncio.ensure_future(anext(watching))
    await waits
    await inbox.cut()
    with pytest.raises(Deferred):
        await asyncio.wait_for(waiting, 10)
    await inbox.arrive("après")
    after, _ = await take(inbox.adapter.watch(batches[-1].cursor), 1)
    assert inbox.mark(after[-1]) == "après"


async def test_a_server_that_is_away_is_deferred(inbox: InboxTrial) -> None:
    await inbox.go_away()
    with pytest.raises(Deferred):
        await asyncio.wait_for(inbox.adapter.probe(), 10)


@pytest.mark.parametrize("turns", [1, 3, 30, 300])
async def test_a_watch_given_up_at_any_moment_leaves_the_adapter_usable(
    inbox: InboxTrial, turns: int
) -> None:
    watching = inbox.adapter.watch(None)
    waiting = asyncio.ensure_future(anext(watching))
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await inbox.arrive("après")
    envelopes, _ = await take(inbox.adapter.watch(None), 1)
    assert inbox.mark(envelopes[0]) == "après"


# -------------------------------------------------------------------------------------------------- senders


async def test_a_sender_fulfils_the_port(sender: SenderTrial) -> None:
    assert isinstance(sender.adapter, Sender)
    await sender.adapter.probe()
    assert await sender.adapter.send_many(()) in ([], ())


async def test_what_is_sent_is_taken_once(sender: SenderTrial) -> None:
    delivery = sender.delivery("un")
    receipt = await sender.adapter.send(delivery)
    assert receipt.delivery == delivery.id
    assert await sender.taken(1) == ["un"]


async def test_many_at_a_time_are_answered_in_order_whatever_each_becomes(sender: SenderTrial) -> None:
    rejected = sender.rejected("refusée")
    answers = list(await sender.adapter.send_many([rejected]))
    answers += await sender.adapter.send_many([sender.delivery(f"n{number}") for number in range(30)])
    answers += await sender.adapter.send_many([sender.deferred("plus tard")])
    assert isinstance(answers[0], Rejected)
    assert isinstance(answers[-1], Deferred)
    good = answers[1:-1]
    assert [answer.delivery for answer in good if isinstance(answer, Receipt)] == [
        sender.delivery(f"n{number}").id for number in range(30)
    ]
    assert sorted(await sender.taken(30)) == sorted(f"n{number}" for number in range(30))


async def test_a_refusal_is_final_and_says_none_of_the_servers_words(sender: SenderTrial) -> None:
    delivery = sender.rejected("Secret-du-patient")
    with pytest.raises(Rejected) as refused:
        await sender.adapter.send(delivery)
    said_nothing_of(delivery, refused.value)
    assert (await sender.adapter.send(sender.delivery("suivante"))).delivery


async def test_a_server_that_cannot_now_is_deferred(sender: SenderTrial) -> None:
    delivery = sender.deferred("Secret-du-patient")
    with pytest.raises(Deferred) as deferred:
        await sender.adapter.send(delivery)
    said_nothing_of(delivery, deferred.value)
    assert (await sender.adapter.send(sender.delivery("suivante"))).delivery


async def test_an_answer_lost_after_the_message_was_taken_is_uncertain(sender: SenderTrial) -> None:
    sender.lose_answer()
    with pytest.raises(Uncertain) as uncertain:
        await asyncio.wait_for(sender.adapter.send(sender.delivery("peut-être")), 20)
    said_nothing_of(sender.delivery("peut-être"), uncertain.value)
    assert await sender.taken(1) == ["peut-être"], "it was taken, and sent once"


async def test_a_server_that_is_away_defers_what_is_sent(sender: SenderTrial) -> None:
    await sender.go_away()
    with pytest.raises(Deferred):
        await asyncio.wait_for(sender.adapter.send(sender.delivery("un")), 10)


async def test_connections_cut_while_they_rest_are_no_reason_to_fail(sender: SenderTrial) -> None:
    await sender.adapter.send(sender.delivery("un"))
    if not isinstance(sender.adapter, Memory):
        await sender.cut()
    await sender.adapter.send(sender.delivery("deux"))
    assert sorted(await sender.taken(2)) == ["deux", "un"]


async def test_a_send_given_up_at_any_moment_leaves_nothing_behind_for_the_next_one(
    sender: SenderTrial,
) -> None:
    for turns in (1, 3, 10, 30, 100):
        sending = asyncio.ensure_future(sender.adapter.send(sender.delivery("abandonnée")))
        for _ in range(turns):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    receipts = await sender.adapter.send_many([sender.delivery("un"), sender.delivery("deux")])
    assert [getattr(receipt, "delivery", receipt) for receipt in receipts] == ["delivery-un", "delivery-deux"]


async def test_what_was_sent_before_a_restart_is_sent_under_the_same_id_after_it(sender: SenderTrial) -> None:
    first = await sender.adapter.send(sender.delivery("un"))
    await sender.adapter.close()
    sender.adapter = sender.again()
    second = await sender.adapter.send(sender.delivery("un"))
    assert first.delivery == second.delivery


def said_nothing_of(delivery: object, verdict: Verdict) -> None:
    text = f"{verdict} {verdict!r} {verdict.__cause__} {verdict.detail}"
    for word in ("Secret", "@", "peut-être", "User unknown", "later", "blocked by", "TEST-token"):
        assert word not in text
    assert verdict.__suppress_context__ or verdict.__context__ is None
