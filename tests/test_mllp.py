"""The MLLP listener on real sockets: who is answered what and when, and every way a sender can misbehave."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adapters import mllp
from relay import checking, config, daemon
from relay.errors import ConfigurationError, Deferred
from relay.model import Batch, Why
from tests import letters
from tests.conftest import GP
from tests.letters import MARTIN, ODETTE
from tests.servers import LOOPBACK, free_port
from tests.servers.dovecot import Dovecot
from tests.site import Site, body, documents, parsed, reference
from tests.trials import control, hl7, tools

if TYPE_CHECKING:
    from tests.servers.pki import Pair, Pki

START, END = b"\x0b", b"\x1c\r"


class Listener:
    """The adapter, watched, and connections to it."""

    def __init__(self, folder: Path, **changed: object) -> None:
        self.port, self.folder = free_port(), folder
        self.adapter = self.again(**changed)
        self.watching = self.adapter.watch(None)
        self.following = asyncio.ensure_future(anext(self.watching))
        self.writers: list[asyncio.StreamWriter] = []

    def again(self, **changed: object) -> mllp.Mllp:
        settings = mllp.Settings.model_validate({"listen": f"{LOOPBACK}:{self.port}"} | changed)
        return mllp.connect("his", settings, tools(self.folder))

    async def batch(self) -> Batch:
        """The next arrivals; the watch goes on behind it, as intake does it."""
        batch = await asyncio.wait_for(self.following, 10)
        self.following = asyncio.ensure_future(anext(self.watching))
        return batch

    async def keep(self) -> Batch:
        """Take the next arrivals, and acknowledge them."""
        batch = await self.batch()
        await self.adapter.acknowledge(batch.envelopes)
        return batch

    async def call(self, context: ssl.SSLContext | None = None) -> Call:
        for _ in range(500):
            try:
                reader, writer = await asyncio.open_connection(
                    LOOPBACK, self.port, ssl=context, server_hostname="localhost" if context else None
                )
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                self.writers.append(writer)
                return Call(reader, writer)
        raise AssertionError("nobody listens")

    async def end(self) -> None:
        self.following.cancel()
        await asyncio.gather(self.following, return_exceptions=True)
        await self.adapter.close()
        for writer in self.writers:
            writer.transport.abort()


class Call:
    """One connection of a hospital's system."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *messages: bytes) -> None:
        for message in messages:
            self.writer.write(START + message + END)

    async def answer(self) -> Answer:
        raw = await asyncio.wait_for(self.reader.readuntil(END), 10)
        assert raw.startswith(START)
        return Answer(raw.removeprefix(START).removesuffix(END))

    async def said(self, message: bytes) -> Answer:
        self.send(message)
        return await self.answer()

    async def closed(self) -> bool:
        """Wait until the other side hangs up; whether it did so without a word."""
        try:
            return await asyncio.wait_for(self.reader.read(), 10) == b""
        except ConnectionError:
            return True


class Answer:
    """An acknowledgement, taken apart."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.segments = {line.split(b"|")[0]: line.split(b"|") for line in raw.split(b"\r") if line}

    @property
    def code(self) -> bytes:
        return self.segments[b"MSA"][1]

    @property
    def control(self) -> bytes:
        return self.segments[b"MSA"][2]

    def header(self, number: int) -> bytes:
        """MSH-`number`; MSH-1 is the separator itself."""
        return self.segments[b"MSH"][number - 1]


@pytest.fixture
async def listener(tmp_path: Path) -> AsyncIterator[Listener]:
    listener = Listener(tmp_path)
    yield listener
    await listener.end()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., Listener]]:
    made: list[Listener] = []

    def make(**changed: object) -> Listener:
        made.append(Listener(tmp_path, **changed))
        return made[-1]

    yield make
    for listener in made:
        await listener.end()


async def turns(count: int = 50) -> None:
    """Let everything that can happen without news from outside happen."""
    for _ in range(count):
        await asyncio.sleep(0)


# ---------------------------------------------------------------------------------------------- being answered


async def test_a_message_is_answered_aa_after_our_commit_and_not_before(listener: Listener) -> None:
    call = await listener.call()
    call.send(hl7("un"))
    batch = await listener.batch()
    answer = asyncio.ensure_future(call.answer())
    await turns()
    assert not answer.done()
    await listener.adapter.acknowledge(batch.envelopes)
    assert ((await answer).code, (await answer).control) == (b"AA", control("un").encode())
    (envelope,) = batch.envelopes
    assert envelope.raw == hl7("un")


async def test_an_answer_bears_the_message_in_no_word_but_its_control_id_and_addresses(
    listener: Listener,
) -> None:
    message = (
        b"MSH|^~\\&|DPI|CHR|RELAIS|HUB|20261120090000||ADT^A03^ADT_A03|MSG0001|T|2.5^FRA^2.11||||||8859/1\r"
        b"PID|||900012345||CORMERAIS^H\xe9l\xe8ne||19480317|F\rPV1||I|CARDIO\r"
    )
    call = await listener.call()
    call.send(message)
    await listener.keep()
    answer = await call.answer()
    assert [answer.header(number) for number in (3, 4, 5, 6)] == [b"RELAIS", b"HUB", b"DPI", b"CHR"]
    assert answer.header(9) == b"ACK^A03^ACK"
    assert answer.header(11) == b"T"
    assert answer.header(12) == b"2.5^FRA^2.11"
    assert answer.header(18) == b"8859/1", "in the character set that was spoken"
    assert datetime.strptime(answer.header(7).decode(), "%Y%m%d%H%M%S%z").utcoffset() is not None
    assert answer.header(10) not in (b"", b"MSG0001"), "it has a name of its own"
    assert answer.segments[b"MSA"] == [b"MSA", b"AA", b"MSG0001"]
    for word in (b"CORMERAIS", b"900012345", b"CARDIO", b"19480317", b"H\xe9l"):
        assert word not in answer.raw


async def test_separators_of_the_senders_own_are_kept(listener: Listener) -> None:
    message = hl7("un").replace(b"|", b"*").replace(b"^", b"!")
    call = await listener.call()
    call.send(message)
    await listener.keep()
    raw = (await call.answer()).raw
    assert raw.startswith(b"MSH*!~\\&*RELAIS*CHR*DPI*CHR*")
    assert b"*ACK!A03!ACK*" in raw
    assert b"\rMSA*AA*" + control("un").encode() + b"\r" in raw


async def test_what_is_no_hl7_is_refused_for_good_and_the_next_message_is_taken(listener: Listener) -> None:
    call = await listener.call()
    refused = await call.said(b"<ClinicalDocument>Mme CORMERAIS</ClinicalDocument>")
    assert (refused.code, refused.control) == (b"AR", b"")
    assert b"CORMERAIS" not in refused.raw
    assert refused.segments[b"ERR"][3].startswith(b"100^")
    call.send(hl7("suivant"))
    (envelope,) = (await listener.keep()).envelopes
    assert envelope.raw == hl7("suivant")
    assert (await call.answer()).code == b"AA"


async def test_a_message_too_large_is_refused_by_its_control_id_and_the_next_one_is_taken(
    opened: Callable[..., Listener],
) -> None:
    listener = opened(max_bytes=100_000)
    call = await listener.call()
    refused = await call.said(hl7("énorme", "NTE|1||" + "x" * 400_000 + "\r"))
    assert (refused.code, refused.control) == (b"AR", control("énorme").encode())
    assert b"too large" in refused.raw
    call.send(hl7("un"))
    (envelope,) = (await listener.keep()).envelopes
    assert envelope.raw == hl7("un")
    assert (await call.answer()).code == b"AA"


async def test_what_the_store_does_not_keep_in_time_gets_ae_and_aa_when_it_comes_again(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "ANSWER_SECONDS", 0.05)
    call = await listener.call()
    answer = await call.said(hl7("un"))
    assert (answer.code, answer.control) == (b"AE", control("un").encode())
    monkeypatch.setattr(mllp, "ANSWER_SECONDS", 10)
    call.send(hl7("un"))
    batch = await listener.batch()
    await turns()
    await listener.adapter.acknowledge(batch.envelopes)
    assert (await call.answer()).code == b"AA"
    assert len(batch.envelopes) == 1


async def test_what_is_kept_after_its_ae_is_not_answered_again_in_the_place_of_the_next(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "ANSWER_SECONDS", 0.05)
    call = await listener.call()
    assert (await call.said(hl7("un"))).code == b"AE"
    monkeypatch.setattr(mllp, "ANSWER_SECONDS", 10)
    await listener.keep()
    await turns()
    call.send(hl7("deux"))
    await listener.keep()
    answer = await call.answer()
    assert (answer.code, answer.control) == (b"AA", control("deux").encode())


async def test_more_messages_than_may_wait_are_told_to_come_again(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "UNDER_WAY", 2)
    calls = [await listener.call() for _ in range(3)]
    calls[0].send(hl7("un"))
    first = await listener.batch()
    calls[1].send(hl7("deux"))
    second = await listener.batch()
    assert (await calls[2].said(hl7("trois"))).code == b"AE"
    await listener.adapter.acknowledge([*first.envelopes, *second.envelopes])
    assert [(await call.answer()).code for call in calls[:2]] == [b"AA", b"AA"]
    calls[2].send(hl7("trois"))
    await listener.keep()
    assert (await calls[2].answer()).code == b"AA"


# ------------------------------------------------------------------------------------------------------- batches

FHS = b"FHS|^~\\&|DPI|CHR|RELAIS|HUB|20261201174100||lot du soir||FILE-7|\r"
BHS = b"BHS|^~\\&|DPI|CHR|RELAIS|HUB|20261201174100||sorties||LOT-7|\r"


def lines(answer: Answer) -> list[list[bytes]]:
    return [line.split(b"|") for line in answer.raw.split(b"\r") if line]


async def test_each_message_of_a_batch_is_an_arrival_and_one_batch_answers_after_our_commit(
    listener: Listener,
) -> None:
    call = await listener.call()
    one, two = hl7("un"), hl7("deux")
    call.send(FHS + BHS + one + two + b"BTS|2\rFTS|1\r")
    batch = await listener.batch()
    assert [envelope.raw for envelope in batch.envelopes] == [one, two]
    answer = asyncio.ensure_future(call.answer())
    await listener.adapter.acknowledge(batch.envelopes[:1])
    await turns()
    assert not answer.done(), "the second is not on our disk yet"
    await listener.adapter.acknowledge(batch.envelopes[1:])
    told = lines(await answer)
    assert [line[0] for line in told] == [
        b"FHS", b"BHS", b"MSH", b"MSA", b"MSH", b"MSA", b"BTS", b"FTS",
    ]  # fmt: skip
    file, pack = told[0], told[1]
    assert (file[2:6], file[11]) == ([b"RELAIS", b"HUB", b"DPI", b"CHR"], b"FILE-7")
    assert (pack[2:6], pack[11]) == ([b"RELAIS", b"HUB", b"DPI", b"CHR"], b"LOT-7")
    assert len({file[10], pack[10], b"FILE-7", b"LOT-7", b""}) == 5, "they have names of their own"
    assert [line[1:3] for line in told if line[0] == b"MSA"] == [
        [b"AA", control("un").encode()],
        [b"AA", control("deux").encode()],
    ]
    assert (told[-2], told[-1]) == ([b"BTS", b"2"], [b"FTS", b"1"])


@pytest.mark.parametrize(
    ("block", "opened_by"),
    [(BHS + hl7("un") + b"BTS|1", b"BHS"), (FHS + hl7("un") + b"FTS|1\r\n", b"FHS"), (BHS + hl7("un"), b"BHS"),
     (BHS.replace(b"\r", b"\r\n") + hl7("un") + b"BTS|1\r\n", b"BHS")],
    ids=["without a file", "without a batch", "without an end", "line feeds too"],
)  # fmt: skip
async def test_a_batch_may_lack_one_of_its_frames(listener: Listener, block: bytes, opened_by: bytes) -> None:
    call = await listener.call()
    call.send(block)
    (envelope,) = (await listener.keep()).envelopes
    assert envelope.raw.strip() == hl7("un").strip()
    told = lines(await call.answer())
    assert told[0][0] == opened_by
    assert [line[1] for line in told if line[0] == b"MSA"] == [b"AA"]


async def test_a_message_in_a_batch_and_alone_is_one_envelope(listener: Listener) -> None:
    call = await listener.call()
    call.send(BHS + hl7("un") + hl7("un") + b"BTS|2\r")
    (envelope,) = (await listener.keep()).envelopes
    assert [line[1] for line in lines(await call.answer()) if line[0] == b"MSA"] == [b"AA", b"AA"]
    call.send(hl7("un"))
    assert [each.id for each in (await listener.keep()).envelopes] == [envelope.id]


async def test_of_a_batch_each_message_that_could_not_be_kept_is_named(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "ANSWER_SECONDS", 0.3)
    call = await listener.call()
    call.send(BHS + hl7("un") + hl7("deux") + b"BTS|2\r")
    batch = await listener.batch()
    await listener.adapter.acknowledge(batch.envelopes[:1])
    told = [line[1:3] for line in lines(await call.answer()) if line[0] == b"MSA"]
    assert told == [[b"AA", control("un").encode()], [b"AE", control("deux").encode()]]
    assert await call_works(listener, call)


async def call_works(listener: Listener, call: Call) -> bool:
    call.send(hl7("suivant"))
    await listener.keep()
    return (await call.answer()).code == b"AA"


@pytest.mark.parametrize(
    "block",
    [BHS + b"PID|||1||CORMERAIS\r" + hl7("un") + b"BTS|1\r", BHS + hl7("un") + b"BTS|1\rPID|||1||CORMERAIS\r"],
    ids=["before", "behind"],
)  # fmt: skip
async def test_a_batch_with_words_outside_its_messages_is_refused_whole(
    listener: Listener, block: bytes
) -> None:
    call = await listener.call()
    refused = await call.said(block)
    assert refused.code == b"AR"
    assert b"CORMERAIS" not in refused.raw
    assert await call_works(listener, call)


async def test_an_empty_batch_is_answered_by_an_empty_batch(listener: Listener) -> None:
    call = await listener.call()
    told = lines(await call.said(FHS + BHS + b"BTS|0\rFTS|1\r"))
    assert [line[0] for line in told] == [b"FHS", b"BHS", b"BTS", b"FTS"]
    assert told[2] == [b"BTS", b"0"]


async def test_a_batch_too_large_says_so(opened: Callable[..., Listener]) -> None:
    listener = opened(max_bytes=100_000)
    call = await listener.call()
    refused = await call.said(BHS + hl7("un", "NTE|1||" + "x" * 400_000 + "\r"))
    assert refused.code == b"AR"
    assert b"too large" in refused.raw


async def test_a_long_batch_is_handed_on_in_shares(listener: Listener) -> None:
    call = await listener.call()
    messages = [hl7(f"n° {number}") for number in range(120)]
    call.send(BHS + b"".join(messages) + b"BTS|120\r")
    taken: list[bytes] = []
    while len(taken) < len(messages):
        taken += [envelope.raw for envelope in (await listener.keep()).envelopes]
        assert len(taken) <= len(messages)
    assert taken == messages
    told = [line[1] for line in lines(await call.answer()) if line[0] == b"MSA"]
    assert told == [b"AA"] * 120


# ------------------------------------------------------------------------------------------------- coming again


async def test_the_same_message_again_is_the_same_envelope_and_is_answered_again(listener: Listener) -> None:
    call = await listener.call()
    ids = []
    for _ in range(2):
        call.send(hl7("un"))
        ids += [envelope.id for envelope in (await listener.keep()).envelopes]
        assert (await call.answer()).code == b"AA"
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_other_bytes_under_the_same_control_id_are_another_message(listener: Listener) -> None:
    call = await listener.call()
    ids = set()
    for text in ("PV1||I\r", "PV1||E\r"):
        call.send(hl7("un", text))
        ids |= {envelope.id for envelope in (await listener.keep()).envelopes}
        assert (await call.answer()).code == b"AA"
    assert len(ids) == 2


async def test_one_message_on_two_connections_at_once_is_one_envelope_and_both_are_answered(
    listener: Listener,
) -> None:
    calls = [await listener.call(), await listener.call()]
    calls[0].send(hl7("un"))
    batch = await listener.batch()
    calls[1].send(hl7("un"))
    await turns()
    assert not listener.following.done(), "it is under way already"
    await listener.adapter.acknowledge(batch.envelopes)
    assert [(await call.answer()).code for call in calls] == [b"AA", b"AA"]


async def test_a_connection_cut_before_the_answer_loses_nothing(listener: Listener) -> None:
    call = await listener.call()
    call.send(hl7("un"))
    first = await listener.batch()
    call.writer.transport.abort()
    await turns()
    await listener.adapter.acknowledge(first.envelopes)
    again = await listener.call()
    again.send(hl7("un"))
    second = await listener.keep()
    assert (await again.answer()).code == b"AA"
    assert [envelope.id for envelope in second.envelopes] == [envelope.id for envelope in first.envelopes]


async def test_closing_leaves_an_answer_to_what_was_kept_and_none_to_the_rest(listener: Listener) -> None:
    kept, waiting, idle = [await listener.call() for _ in range(3)]
    kept.send(hl7("gardé"))
    batch = await listener.batch()
    waiting.send(hl7("en attente"))
    await listener.batch()
    await listener.adapter.acknowledge(batch.envelopes)
    await listener.adapter.close()
    assert (await kept.answer()).code == b"AA"
    assert await kept.closed()
    assert await waiting.closed(), "no AE either: systems lay those aside for a person"
    assert await idle.closed()
    with pytest.raises(Deferred):
        await listener.following


async def test_a_ref_names_the_message_for_the_hospital_and_bears_nothing_else_of_it(
    listener: Listener,
) -> None:
    call = await listener.call()
    strange = hl7("x").replace(control("x").encode(), b"Mme CORMERAIS;rm")
    refs = []
    for message in (hl7("un"), strange):
        call.send(message)
        refs += [envelope.ref for envelope in (await listener.keep()).envelopes]
        await call.answer()
    assert re.fullmatch(re.escape(control("un")) + r"-[0-9a-f]{24}\.hl7", refs[0])
    assert re.fullmatch(r"[0-9a-f]{24}\.hl7", refs[1])


# --------------------------------------------------------------------------------------------------- framing


async def test_messages_sent_without_waiting_are_taken_one_after_the_other(listener: Listener) -> None:
    call = await listener.call()
    call.send(hl7("un"), hl7("deux"), hl7("trois"))
    for mark in ("un", "deux", "trois"):
        batch = await listener.batch()
        assert [envelope.raw for envelope in batch.envelopes] == [hl7(mark)]
        await turns()
        assert not listener.following.done()
        await listener.adapter.acknowledge(batch.envelopes)
        assert (await call.answer()).control == control(mark).encode()


async def test_a_message_may_come_byte_by_byte_and_with_line_ends_around_it(listener: Listener) -> None:
    call = await listener.call()
    for byte in b"\r\n" + START + hl7("un") + END + b"\n" + START + hl7("deux") + END:
        call.writer.write(bytes([byte]))
        await asyncio.sleep(0)
    taken = []
    for _ in range(2):
        taken += [envelope.raw for envelope in (await listener.keep()).envelopes]
        assert (await call.answer()).code == b"AA"
    assert taken == [hl7("un"), hl7("deux")]


async def test_a_message_broken_off_is_never_joined_to_the_one_begun_after_it(listener: Listener) -> None:
    call = await listener.call()
    call.writer.write(START + hl7("coupé")[:80])
    call.send(hl7("entier"))
    (envelope,) = (await listener.keep()).envelopes
    assert envelope.raw == hl7("entier")
    assert (await call.answer()).control == control("entier").encode()


@pytest.mark.parametrize("head", [BHS, FHS + BHS], ids=["a pack", "a file"])
async def test_a_message_broken_off_is_never_joined_to_the_batch_begun_after_it(
    listener: Listener, head: bytes
) -> None:
    call = await listener.call()
    call.writer.write(START + hl7("coupé")[:80])
    call.send(head + hl7("entier") + b"BTS|1\r")
    (envelope,) = (await listener.keep()).envelopes
    assert envelope.raw == hl7("entier")
    told = lines(await call.answer())
    assert [line[2] for line in told if line[0] == b"MSA"] == [control("entier").encode()]


async def test_a_vertical_tab_in_the_text_of_a_letter_stays_in_it(listener: Listener) -> None:
    message = hl7("un", "OBX|1|TX|||ligne\x0bsuivante\r")  # Word's line break
    call = await listener.call()
    call.send(message)
    assert [envelope.raw for envelope in (await listener.keep()).envelopes] == [message]


async def test_a_message_of_many_megabytes_is_taken_whole_and_two_of_them_side_by_side(
    listener: Listener,
) -> None:
    calls = [await listener.call(), await listener.call()]
    sent = [
        hl7(mark, f"OBX|1|ED|||{base64.b64encode(os.urandom(3_000_000)).decode()}\r")
        for mark in ("un", "deux")
    ]
    for call, message in zip(calls, sent, strict=True):
        call.send(message)
    taken = [envelope.raw for _ in sent for envelope in (await listener.keep()).envelopes]
    assert sorted(taken) == sorted(sent)
    assert [(await call.answer()).code for call in calls] == [b"AA", b"AA"]


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"GET / HTTP/1.1\r\nHost: relais\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"MSH|^~\\&|sans cadre\r",
        b"\x00",
    ],
)
async def test_who_speaks_no_mllp_is_hung_up_on(listener: Listener, bytes_sent: bytes) -> None:
    call = await listener.call()
    call.writer.write(bytes_sent)
    assert await call.closed()
    assert not listener.following.done()


async def test_half_a_message_is_nobodys(listener: Listener) -> None:
    call = await listener.call()
    call.writer.write(START + hl7("coupé")[:-5])
    call.writer.write_eof()
    assert await call.closed()
    assert not listener.following.done()


async def test_who_hangs_up_after_the_last_message_is_answered_all_the_same(listener: Listener) -> None:
    call = await listener.call()
    call.send(hl7("un"))
    call.writer.write_eof()
    await listener.keep()
    assert (await call.answer()).code == b"AA"
    assert await call.closed()


@pytest.mark.parametrize(
    ("limit", "sent"),
    [("IDLE_SECONDS", b""), ("SILENCE_SECONDS", START + b"MSH|"), ("MESSAGE_SECONDS", START)],
)
async def test_who_falls_silent_is_hung_up_on(
    listener: Listener, monkeypatch: pytest.MonkeyPatch, limit: str, sent: bytes
) -> None:
    monkeypatch.setattr(mllp, limit, 0.05)
    call = await listener.call()
    call.writer.write(sent)
    assert await call.closed()


async def test_connections_beyond_the_limit_are_refused_until_one_ends(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mllp, "CONNECTIONS", 2)
    first, second = await listener.call(), await listener.call()
    third = await listener.call()
    assert await third.closed()
    second.writer.write_eof()
    assert await second.closed()
    fourth = await listener.call()
    for call, mark in ((first, "un"), (fourth, "quatre")):
        call.send(hl7(mark))
        await listener.keep()
        assert (await call.answer()).code == b"AA"


# -------------------------------------------------------------------------------------------------- headers


@given(st.binary(max_size=300), st.sampled_from([mllp.KEPT, mllp.NO_HL7, mllp.TOO_LARGE, mllp.NOT_KEPT]))
def test_whatever_is_called_a_header_gives_an_answer_of_well_formed_segments(
    junk: bytes, answer: mllp.Answer
) -> None:
    header = mllp.Header.of(b"MSH" + junk) or mllp.Header()
    raw = header.acknowledgement(answer, datetime(2026, 11, 20, tzinfo=UTC), "1234")
    separator = header.get(1, b"|")
    names = [line.split(separator)[0] for line in raw.split(b"\r")]
    assert names == ([b"MSH", b"MSA", b"ERR", b""] if answer.error else [b"MSH", b"MSA", b""])
    assert not re.search(rb"[\x00-\x0c\x0e-\x1f]", raw), "nothing that ends a block, or begins one"


# ------------------------------------------------------------------------------------------------ settings, TLS


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"listen": "2575"}, "no address to listen on"),
        ({"listen": "127.0.0.1:0"}, "no address to listen on"),
        ({"listen": "0.0.0.0:2575"}, "anybody in the network"),
        ({"listen": "his.chr.example:2575"}, "anybody in the network"),
        ({"security": "tls"}, "needs cert"),
        ({"cert": "x.pem"}, 'are for security = "tls"'),
        ({"max_bytes": 0}, "greater than or equal to 1"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changed: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        mllp.Settings.model_validate({"listen": "127.0.0.1:2575"} | changed)


@pytest.mark.parametrize("listen", ["127.0.0.1:2575", "[::1]:2575", "localhost:2575"])
def test_plain_text_is_for_this_machine(listen: str) -> None:
    assert mllp.Settings(listen=listen).security == "none"
    assert mllp.Settings(listen="10.1.2.3:2575", security="tls", cert="x.pem").place == ("10.1.2.3", 2575)


def test_a_mistake_in_the_file_is_named_with_its_line_and_paths_count_from_the_files_folder(
    tmp_path: Path,
) -> None:
    text = '[adapters.his]\nkind = "mllp"\nlisten = "10.1.2.3:2575"\n'
    settings = config.parse(text, tmp_path / "config.toml")
    with pytest.raises(ConfigurationError, match=r"config\.toml:1: adapters\.his: anybody in the network"):
        daemon.check_adapter(settings, settings.adapters["his"])
    settings = config.parse(
        text + 'security = "tls"\ncert = "his.pem"\nkey = "his.key"\n'
        'ward = { name = "Tous", slug = "his", reply_to = "dim@chr-exemple.mssante.fr" }\n',
        tmp_path / "config.toml",
    )
    checked = daemon.check_adapter(settings, settings.adapters["his"])
    assert isinstance(checked, mllp.Settings)
    assert (checked.cert, checked.key) == (str(tmp_path / "his.pem"), str(tmp_path / "his.key"))
    (flow, *_) = checking.flow_matrix(settings)
    assert (flow["from"], flow["to"], flow["port"]) == ("hospital", "10.1.2.3", 2575)


def protected(pki: Pki, **changed: object) -> dict[str, object]:
    return {
        "security": "tls",
        "cert": str(pki.server.cert),
        "key": str(pki.server.key),
        "ca": str(pki.ca_and_crls),
    } | changed


def client(pki: Pki, pair: Pair | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(pki.ca))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    return context


async def test_a_client_with_a_certificate_of_the_authority_is_heard(
    opened: Callable[..., Listener], pki: Pki
) -> None:
    listener = opened(**protected(pki))
    call = await listener.call(client(pki, pki.client))
    call.send(hl7("un"))
    await listener.keep()
    assert (await call.answer()).code == b"AA"


@pytest.mark.parametrize("whose", ["nobody", "rogue", "revoked", "expired"])
async def test_a_client_without_a_good_certificate_is_not(
    opened: Callable[..., Listener], pki: Pki, whose: str
) -> None:
    listener = opened(**protected(pki))
    context = client(pki, None if whose == "nobody" else getattr(pki, whose))
    try:
        call = await listener.call(context)
        call.send(hl7("intrus"))
        assert await call.closed()
    except (ssl.SSLError, ConnectionError):
        pass
    good = await listener.call(client(pki, pki.client))
    good.send(hl7("un"))
    assert [envelope.raw for envelope in (await listener.keep()).envelopes] == [hl7("un")]


async def test_plain_text_is_not_heard_where_tls_is_asked_for(
    opened: Callable[..., Listener], pki: Pki
) -> None:
    listener = opened(**protected(pki))
    call = await listener.call()
    call.send(hl7("en clair"))
    assert await call.closed()
    assert not listener.following.done()


async def test_a_renewed_certificate_is_shown_without_a_restart_and_a_bad_one_is_not_taken(
    opened: Callable[..., Listener], pki: Pki, tmp_path: Path
) -> None:
    pair = tmp_path / "his.pem", tmp_path / "his.key"
    shutil.copy(pki.server_elsewhere.cert, pair[0])
    shutil.copy(pki.server_elsewhere.key, pair[1])
    listener = opened(**protected(pki, cert=str(pair[0]), key=str(pair[1]), ca=None))
    with pytest.raises(ssl.SSLCertVerificationError):
        await listener.call(client(pki, None))
    shutil.copy(pki.server.cert, pair[0])  # its key is not there yet
    with pytest.raises(ssl.SSLCertVerificationError):
        await listener.call(client(pki, None))
    shutil.copy(pki.server.key, pair[1])
    call = await listener.call(client(pki, None))
    call.send(hl7("un"))
    await listener.keep()
    assert (await call.answer()).code == b"AA"


async def test_missing_certificates_and_a_taken_address_are_deferred_with_their_reason(
    opened: Callable[..., Listener], pki: Pki, tmp_path: Path
) -> None:
    listener = opened()
    missing = listener.again(**protected(pki, cert=str(tmp_path / "gone.pem")))
    with pytest.raises(Deferred) as deferred:
        await missing.probe()
    assert (deferred.value.why, deferred.value.detail) == (Why.CERTIFICATE, "files cannot be loaded")
    with socket.create_server((LOOPBACK, 0)) as taken:
        elsewhere = listener.again(listen=f"{LOOPBACK}:{taken.getsockname()[1]}")
        for attempt in (elsewhere.probe, lambda: anext(elsewhere.watch(None))):
            with pytest.raises(Deferred) as deferred:
                await attempt()
            assert (deferred.value.why, deferred.value.detail) == (Why.BUSY, "address in use")


async def test_a_probe_of_what_listens_already_is_well_and_hangs_up_on_nobody(listener: Listener) -> None:
    call = await listener.call()
    await listener.adapter.probe()
    call.send(hl7("un"))
    await listener.keep()
    assert (await call.answer()).code == b"AA"


async def test_what_comes_before_anybody_watches_is_kept_for_the_watch(tmp_path: Path) -> None:
    port = free_port()
    adapter = mllp.connect(
        "his", mllp.Settings.model_validate({"listen": f"{LOOPBACK}:{port}"}), tools(tmp_path)
    )
    await adapter.listen()
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    writer.write(START + hl7("un") + END)
    batch = await asyncio.wait_for(anext(adapter.watch(None)), 10)
    await adapter.acknowledge(batch.envelopes)
    assert b"\rMSA|AA|" in await asyncio.wait_for(reader.readuntil(END), 10)
    writer.close()
    await adapter.close()


async def test_no_word_of_a_message_is_logged(
    opened: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(mllp, "ANSWER_SECONDS", 0.05)
    listener = opened(max_bytes=1000)
    call = await listener.call()
    for message in (b"CORMERAIS", hl7("CORMERAIS", "NTE|CORMERAIS\r" * 500), hl7("CORMERAIS")):
        assert (await call.said(message)).code in (b"AR", b"AE")
    call.writer.write(b"CORMERAIS")
    assert await call.closed()
    logged = "".join(capfd.readouterr())
    assert logged.count("message_refused") == 2
    assert "message_not_stored" in logged
    assert "connection_closed" in logged
    assert "CORMERAIS" not in logged


# ------------------------------------------------------------------------------------------------ the whole way

HIS = """
[adapters.his]
kind = "mllp"
listen = "127.0.0.1:{port}"
ward = {{ name = "Tous services", slug = "his", facility = "450000088", reply_to = "sorties@chr-exemple.mssante.fr" }}
"""


def mdm(document: bytes, number: str) -> bytes:
    """A document notification (MDM^T02) that carries a CDA in OBX-5, as the CI-SIS has it."""
    return b"\r".join(
        [
            b"MSH|^~\\&|DPI|CHR|RELAIS|CHR|20261201174100+0100||MDM^T02^MDM_T02|" + number.encode()
            + b"|P|2.6^FRA^2.1|||||FRA|UNICODE UTF-8",
            b"EVN||20261201174100+0100",
            b"PID|||900012345^^^&1.2.250.1.71.4.2.2.450000088&ISO^PI||CORMERAIS^ODETTE^^^^^L||19480317|F",
            b"PV1||I",
            b"TXA|1|CR|TX|||||||||1.2.250.1.999.1.1.20261201.1|||||LA",
            b"OBX|1|ED|11490-0^Lettre de liaison^LN||^TEXT^XML^Base64^" + base64.b64encode(document)
            + b"||||||F",
            b"",
        ]
    )  # fmt: skip


def said(port: int, message: bytes) -> bytes:
    """Send one message as a hospital's system does, and wait for its answer."""
    with socket.create_connection((LOOPBACK, port), 10) as call:
        call.sendall(START + message + END)
        answer = b""
        while not answer.endswith(END):
            chunk = call.recv(65536)
            if not chunk:
                raise ConnectionError
            answer += chunk
        return answer


def test_a_document_over_mllp_is_answered_stored_once_and_reaches_the_gp(
    make_site: Callable[..., Site], dovecot: Dovecot
) -> None:
    site = make_site()
    port = free_port()
    with site.file.open("a", encoding="utf-8") as file:
        file.write(HIS.format(port=port))
    site.directory([MARTIN])
    site.patients([(ODETTE, [MARTIN])])
    letter = letters.cda()
    with site.running():  # whoever reads that it is ready may connect
        for _ in range(2):
            assert b"\rMSA|AA|CTRL-0001\r" in said(port, mdm(letter, "CTRL-0001"))
        (raw,) = dovecot.wait_messages(GP)
        sent = parsed(raw)
        assert documents(sent) == {"lettre.xml": letter}, "the very bytes of the document, and no HL7"
        (envelope,) = site.rows("envelopes", adapter="his")
        assert envelope["state"] == "decided"
        assert envelope["ref"].startswith("CTRL-0001-")
        assert reference(body(sent)) == envelope["reference"]
    assert "CORMERAIS" not in site.logs


def test_a_message_answered_aa_is_there_after_a_crash_at_once(
    make_site: Callable[..., Site], dovecot: Dovecot
) -> None:
    site = make_site()
    port = free_port()
    with site.file.open("a", encoding="utf-8") as file:
        file.write(HIS.format(port=port))
    message = mdm(letters.cda(), "CTRL-0002")
    site.start(env={"RELAIS_CRASH_AT": "accepted@his"})
    with pytest.raises(ConnectionError):
        said(port, message)
    assert site.died()
    site.start()
    assert b"\rMSA|AA|CTRL-0002\r" in said(port, message)
    site.kill()
    (envelope,) = site.rows("envelopes", adapter="his")
    assert envelope["ref"].startswith("CTRL-0002-")
