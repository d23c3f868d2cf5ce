"""The SMTP adapter: on a real Postfix, and on a sink that refuses, hangs and hangs up where it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from adapters import smtp
from relay.errors import Deferred, Rejected, Uncertain, Verdict
from relay.model import Delivery, MailMessage, Receipt, Why
from tests.campaign import many
from tests.conftest import GP, PASSWORD, RELAY
from tests.servers.proxy import Proxy
from tests.servers.sink import HANG_UP, SILENCE, THEN_HANG_UP, Sink
from tests.trials import TurnedClock, letter, mail, subject, tools

if TYPE_CHECKING:
    from tests.servers.pki import Pki
    from tests.servers.postfix import Postfix


class Opener:
    """Opens adapters; all of them are closed at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.clock = folder, TurnedClock()
        self.adapters: list[smtp.Smtp] = []

    def __call__(self, port: int, **changed: object) -> smtp.Smtp:
        table = {"host": "127.0.0.1", "port": port, "security": "none"} | changed
        adapter = smtp.connect("mss", smtp.Settings.model_validate(table), tools(self.folder, self.clock))
        self.adapters.append(adapter)
        return adapter


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    opener = Opener(tmp_path)
    yield opener
    for adapter in opener.adapters:
        await adapter.close()


def submission(postfix: Postfix, **changed: object) -> dict[str, object]:
    table: dict[str, object] = {
        "security": "tls",
        "username": RELAY,
        "password": SecretStr(PASSWORD),
        "ca": str(postfix.dovecot.pki.ca),
    }
    return table | changed


def carrying(content: bytes, delivery: Delivery) -> Delivery:
    assert isinstance(delivery.message, MailMessage)
    return replace(delivery, message=replace(delivery.message, content=content))


async def verdict_of(adapter: smtp.Smtp, delivery: Delivery) -> Verdict:
    with pytest.raises(Verdict) as verdict:
        await asyncio.wait_for(adapter.send(delivery), 20)
    return verdict.value


# ------------------------------------------------------------------------------------------ the real Postfix


@pytest.mark.parametrize("auth", ["login", "plain"])
@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_letter_is_submitted_under_every_protection_and_password_login(
    postfix: Postfix, opened: Opener, security: str, auth: str
) -> None:
    postfix.dovecot.empty(GP)
    port = postfix.tls_port if security == "tls" else postfix.starttls_port
    adapter = opened(port, **submission(postfix, security=security, auth=auth))
    await adapter.probe()
    await adapter.send(mail("un"))
    (raw,) = await asyncio.to_thread(postfix.dovecot.wait_messages, GP)
    assert raw.endswith(letter("un"))


async def test_the_report_comes_back_with_our_own_id_and_without_the_letter(
    postfix: Postfix, opened: Opener
) -> None:
    postfix.dovecot.empty(RELAY)
    delivery = carrying(letter("un", "Corps-de-la-lettre\r\n"), mail("un"))
    await opened(postfix.tls_port, **submission(postfix)).send(delivery)
    (report,) = await asyncio.to_thread(postfix.dovecot.wait_messages, RELAY)
    assert isinstance(delivery.message, MailMessage)
    assert f"Original-Envelope-Id: {delivery.message.envid}".encode() in report
    assert f"Original-Recipient: rfc822;{GP}".encode() in report
    assert b"Corps-de-la-lettre" not in report


async def test_a_wrong_password_pauses_everything_without_hammering(postfix: Postfix, opened: Opener) -> None:
    adapter = opened(postfix.tls_port, **submission(postfix, password=SecretStr("faux")))
    verdicts = await adapter.send_many([mail(f"n{number}") for number in range(20)])
    assert {type(verdict) for verdict in verdicts} == {Deferred}
    assert {verdict.why for verdict in verdicts if isinstance(verdict, Verdict)} == {Why.AUTHENTICATION}
    assert "faux" not in repr(verdicts)
    tries = postfix.log.read_text().count("SASL LOGIN authentication failed") + postfix.log.read_text().count(
        "SASL PLAIN authentication failed"
    )
    assert tries <= adapter.limits.parallel, "one try a connection, not one a letter"


async def test_five_megabytes_arrive_whole_while_others_have_their_turn(
    postfix: Postfix, opened: Opener
) -> None:
    postfix.dovecot.empty(GP)
    body = b"".join(b"%06d " % number + b"x" * 60 + b"\r\n" for number in range(75_000))
    content = letter("grand") + body
    adapter = opened(postfix.tls_port, **submission(postfix))
    sending, turns = asyncio.ensure_future(adapter.send(carrying(content, mail("grand")))), 0
    while not sending.done():
        await asyncio.sleep(0)
        turns += 1
    await sending
    (raw,) = await asyncio.to_thread(postfix.dovecot.wait_messages, GP)
    assert raw.endswith(content)
    assert turns > len(content) / smtp.PIECE


# ---------------------------------------------------------------------------------- what each answer means

GRID: dict[tuple[str, str], tuple[type[Verdict], Why]] = {
    ("CONNECT", "421 4.3.2 busy"): (Deferred, Why.BUSY),
    ("CONNECT", "554 5.3.2 none"): (Deferred, Why.SERVER_ERROR),
    ("CONNECT", HANG_UP): (Deferred, Why.CONNECTION),
    ("EHLO", "421 4.3.2 busy"): (Deferred, Why.BUSY),
    ("EHLO", HANG_UP): (Deferred, Why.CONNECTION),
    ("MAIL", "451 4.3.0 later"): (Deferred, Why.BUSY),
    ("MAIL", "421 4.3.2 busy"): (Deferred, Why.BUSY),
    ("MAIL", "530 5.7.0 log in"): (Deferred, Why.AUTHENTICATION),
    ("MAIL", "550 5.7.1 no"): (Rejected, Why.REFUSED),
    ("MAIL", "552 5.3.4 large"): (Rejected, Why.MESSAGE_TOO_LARGE),
    ("MAIL", HANG_UP): (Deferred, Why.CONNECTION),
    ("RCPT", "450 4.2.0 greylisted"): (Deferred, Why.BUSY),
    ("RCPT", "452 4.2.2 full"): (Deferred, Why.MAILBOX_FULL),
    ("RCPT", "550 5.1.1 unknown"): (Rejected, Why.UNKNOWN_MAILBOX),
    ("RCPT", "550 unknown"): (Rejected, Why.UNKNOWN_MAILBOX),
    ("RCPT", "552 5.2.2 full"): (Rejected, Why.MAILBOX_FULL),
    ("RCPT", "550 5.7.1 policy"): (Rejected, Why.REFUSED),
    ("RCPT", "501 5.5.4 syntax"): (Rejected, Why.PROTOCOL),
    ("RCPT", HANG_UP): (Deferred, Why.CONNECTION),
    ("DATA", "451 4.3.0 later"): (Deferred, Why.BUSY),
    ("DATA", "554 5.7.1 no"): (Rejected, Why.REFUSED),
    ("DATA", "250 what"): (Deferred, Why.PROTOCOL),
    ("DATA", HANG_UP): (Deferred, Why.CONNECTION),
    ("DOT", "451 4.3.0 later"): (Deferred, Why.BUSY),
    ("DOT", "421 4.3.2 busy"): (Deferred, Why.BUSY),
    ("DOT", "554 5.6.0 content"): (Rejected, Why.REFUSED),
    ("DOT", "552 5.3.4 large"): (Rejected, Why.MESSAGE_TOO_LARGE),
    ("DOT", HANG_UP): (Uncertain, Why.LOST_AFTER_SEND),
    ("DOT", "nonsense"): (Uncertain, Why.LOST_AFTER_SEND),
    ("DOT", "354 what"): (Uncertain, Why.LOST_AFTER_SEND),
}


@pytest.mark.parametrize("extensions", [("PIPELINING", "DSN"), ()], ids=["pipelined", "step by step"])
@pytest.mark.parametrize(("point", "answer"), GRID, ids=lambda value: str(value)[:12])
async def test_each_answer_at_each_point_has_its_verdict_and_the_next_letter_leaves(
    opened: Opener, point: str, answer: str, extensions: tuple[str, ...]
) -> None:
    kind, why = GRID[point, answer]
    async with Sink(once={point: answer}, extensions=extensions).running() as sink:
        adapter = opened(sink.port)
        verdict = await verdict_of(adapter, mail("Secret-du-patient"))
        assert (type(verdict), verdict.why) == (kind, why)
        assert verdict.reached == (kind is Deferred and answer.startswith(("450 4.2", "452 4.2")))
        text = f"{verdict} {verdict!r} {verdict.__cause__}"
        for word in ("later", "greylisted", "unknown (", "Secret", "@"):
            assert word not in text
        opened.clock.at += verdict.retry_after or 2
        assert await adapter.send(mail("suivante")) == Receipt("delivery-suivante")
        taken = [subject(each.raw) for each in sink.taken]
    assert taken[-1] == "suivante"
    assert taken.count("Secret-du-patient") == (1 if kind is Uncertain else 0)


@pytest.mark.parametrize("extensions", [("PIPELINING",), ()], ids=["pipelined", "step by step"])
@pytest.mark.parametrize("used", [False, True], ids=["new", "used before"])
@pytest.mark.parametrize("point", ["MAIL", "RCPT", "DATA", "DOT"])
async def test_a_refusal_stands_though_the_server_hangs_up_right_after_it(
    opened: Opener, point: str, used: bool, extensions: tuple[str, ...]
) -> None:
    async with Sink(extensions=extensions).running() as sink:
        adapter = opened(sink.port)
        if used:
            await adapter.send(mail("avant"))
        sink.once[point] = "550 5.1.1 unknown" + THEN_HANG_UP
        verdict = await verdict_of(adapter, mail("un"))
        assert (type(verdict), verdict.why) == (Rejected, Why.UNKNOWN_MAILBOX)
        assert await adapter.send(mail("suivante")) == Receipt("delivery-suivante")
        assert [subject(each.raw) for each in sink.taken] == [*["avant"] * used, "suivante"]


async def test_a_refused_recipient_never_ends_in_an_empty_letter_to_somebody_else(opened: Opener) -> None:
    async with Sink(once={"RCPT": "550 5.1.1 no"}).running() as sink:
        adapter = opened(sink.port)
        await verdict_of(adapter, mail("un"))
        await adapter.send(mail("deux", to="dr.dupont@medecin.mssante.fr"))
        # The sink says 354 to DATA whatever came before; the empty letter that ends it names nobody.
        assert [each.recipients for each in sink.taken if each.recipients] == [
            ("dr.dupont@medecin.mssante.fr",)
        ]
        assert sink.connections == 1


async def test_a_loss_at_the_final_dot_is_uncertain_even_where_nothing_was_taken(opened: Opener) -> None:
    async with Sink().running() as sink, Proxy(sink.port, cut_up_before=b"\r\n.\r\n").running() as proxy:
        verdict = await verdict_of(opened(proxy.port), mail("un"))
        assert (type(verdict), verdict.why) == (Uncertain, Why.LOST_AFTER_SEND)
        assert sink.taken == []


async def test_a_loss_in_the_middle_of_a_letter_is_no_uncertainty(opened: Opener) -> None:
    async with Sink().running() as sink, Proxy(sink.port).running() as proxy:
        proxy.cut_up_before = b"y" * 70
        # More than the sockets of both sides hold: when the dot's turn comes, the loss is known.
        content = letter("grand") + b"y" * 70 + (b"\r\n" + b"z" * 998) * 24_000
        adapter = opened(proxy.port, max_bytes=2**25)
        verdict = await verdict_of(adapter, carrying(content, mail("grand")))
    assert (type(verdict), verdict.why) == (Deferred, Why.CONNECTION)
    assert sink.taken == []


@pytest.mark.parametrize(
    ("point", "limit", "expected"),
    [
        ("MAIL", "COMMAND_SECONDS", (Deferred, Why.TIMEOUT)),
        ("DOT", "DOT_SECONDS", (Uncertain, Why.LOST_AFTER_SEND)),
        ("CONNECT", "CONNECT_SECONDS", (Deferred, Why.TIMEOUT)),
    ],
)
async def test_a_server_that_falls_silent_is_given_up(
    opened: Opener,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
    limit: str,
    expected: tuple[type[Verdict], Why],
) -> None:
    monkeypatch.setattr(smtp, limit, 0.1)
    async with Sink(answers={point: SILENCE}).running() as sink:
        verdict = await verdict_of(opened(sink.port), mail("un"))
    assert (type(verdict), verdict.why) == expected


def test_ten_minutes_are_waited_for_the_answer_to_the_dot() -> None:
    assert smtp.DOT_SECONDS >= 600, "RFC 5321 §4.5.3.2.6"


async def test_a_send_given_up_closes_its_connection(opened: Opener) -> None:
    async with Sink(once={"DOT": SILENCE}).running() as sink:
        adapter = opened(sink.port)
        sending = asyncio.ensure_future(adapter.send(mail("un")))
        await sink.wait_for(lambda: bool(sink.taken))
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await sink.wait_for(lambda: sink.ended == 1)
        await adapter.send(mail("deux"))
        assert sink.connections == 2, "what comes on the first one may be the answer to the first letter"


# ------------------------------------------------------------------------------------------- what is said


async def test_dsn_size_and_8bit_are_asked_for_where_the_server_knows_them(opened: Opener) -> None:
    extensions = ("SIZE 1000000", "8BITMIME", "DSN", "SMTPUTF8")
    delivery = mail("un", to="dr.o+suite=x@medecin.mssante.fr")
    content = letter("un", "été\r\n")
    async with Sink(extensions=extensions).running() as sink:
        await opened(sink.port).send(carrying(content, delivery))
    options = sink.taken[0].options
    assert isinstance(delivery.message, MailMessage)
    assert f" SIZE={len(content)} BODY=8BITMIME RET=HDRS ENVID={delivery.message.envid}" in options
    assert "NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;dr.o+2Bsuite+3Dx@medecin.mssante.fr" in options
    assert "SMTPUTF8" not in options


async def test_nothing_is_asked_for_where_the_server_knows_nothing(opened: Opener) -> None:
    async with Sink(extensions=()).running() as sink:
        await opened(sink.port).send(mail("un"))
    assert sink.taken[0].options == f"MAIL FROM:<{RELAY}>\nRCPT TO:<{GP}>"


@pytest.mark.parametrize("extensions", [("SMTPUTF8",), ()])
async def test_an_accented_address_needs_a_server_that_knows_them(
    opened: Opener, extensions: tuple[str, ...]
) -> None:
    delivery = mail("un", to="rené@medecin.mssante.fr")
    async with Sink(extensions=extensions).running() as sink:
        adapter = opened(sink.port)
        if extensions:
            await adapter.send(delivery)
            assert sink.taken[0].recipients == ("rené@medecin.mssante.fr",)
        else:
            assert (await verdict_of(adapter, delivery)).why == Why.NO_ADDRESS


@pytest.mark.parametrize("address", ["", "a@b>\r\nRCPT TO:<evil@x", "a b@c", "a@b\x00", "a@b\n", "<a@b>"])
async def test_an_address_that_would_be_another_command_is_rejected(opened: Opener, address: str) -> None:
    async with Sink().running() as sink:
        adapter = opened(sink.port)
        for delivery in (
            mail("un", to=address),
            replace(mail("un"), message=MailMessage(address + ">", GP, b"", "e")),
        ):
            assert (await verdict_of(adapter, delivery)).why == Why.NO_ADDRESS
    assert not any("evil" in command for command in sink.commands)
    assert sink.taken == []


@pytest.mark.parametrize(("limit", "extensions"), [(1000, ()), (10**7, ("SIZE 1000",))])
async def test_a_letter_that_is_too_large_is_rejected_before_it_leaves(
    opened: Opener, limit: int, extensions: tuple[str, ...]
) -> None:
    async with Sink(extensions=extensions).running() as sink:
        adapter = opened(sink.port, max_bytes=limit)
        assert adapter.limits.max_bytes == limit
        verdict = await verdict_of(adapter, carrying(letter("un") + b"x" * 1000, mail("un")))
        assert (type(verdict), verdict.why) == (Rejected, Why.MESSAGE_TOO_LARGE)
    assert not any(command.startswith("MAIL") for command in sink.commands)


@settings(max_examples=many(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.lists(st.sampled_from([b".", b"..", b"\r\n", b"x", b"\xe9", b".\r\n", b"\r\n.\r\n", b" "])).map(
        b"".join
    )
)
def test_canonical_bytes_arrive_exactly(tmp_path: Path, body: bytes) -> None:
    content = b"Subject: x\r\n\r\n" + body + b"\r\n"

    async def run() -> None:
        opener = Opener(tmp_path)
        async with Sink(extensions=("8BITMIME", "PIPELINING")).running() as sink:
            adapter = opener(sink.port)
            await adapter.send(carrying(content, mail("x")))
            await adapter.send(carrying(content, mail("x")))
            await adapter.close()
        assert [each.raw for each in sink.taken] == [content, content]

    asyncio.run(run())


@pytest.mark.parametrize("end", [b"\n.\n", b"\n.\r\n", b"\r.\r", b"\r\n.\n", b"\r.\r\n", b"\n.\r"])
async def test_no_line_end_smuggles_a_second_letter_in(opened: Opener, end: bytes) -> None:
    content = letter("un") + b"fin" + end + b"MAIL FROM:<evil@x>\r\nRCPT TO:<evil@x>\r\nDATA\r\nbad\r\n"
    async with Sink().running() as sink:
        await opened(sink.port).send(carrying(content, mail("un")))
    (taken,) = sink.taken
    assert taken.recipients == (GP,)
    rest = taken.raw.replace(b"\r\n", b"")
    assert b"\n" not in rest
    assert b"\r" not in rest


# --------------------------------------------------------------------------------------------- connections


async def test_letters_share_a_few_connections(opened: Opener) -> None:
    async with Sink().running() as sink:
        adapter = opened(sink.port)
        for number in range(5):
            await adapter.send(mail(f"un {number}"))
        assert sink.connections == 1
        receipts = await adapter.send_many([mail(f"n{number}") for number in range(100)])
        assert [receipt.delivery for receipt in receipts if isinstance(receipt, Receipt)] == [
            f"delivery-n{number}" for number in range(100)
        ]
        assert sink.connections == adapter.limits.parallel == 4


async def test_a_connection_that_rested_for_long_is_not_trusted(opened: Opener) -> None:
    async with Sink().running() as sink:
        adapter = opened(sink.port)
        await adapter.send(mail("un"))
        opened.clock.at += smtp.REST_SECONDS + 1
        await adapter.send(mail("deux"))
        assert sink.connections == 2


async def test_a_server_that_closes_after_each_letter_is_no_reason_to_fail(opened: Opener) -> None:
    async with Sink(extensions=("PIPELINING",)).running() as sink:
        adapter = opened(sink.port)
        await adapter.send(mail("un"))
        sink.once["MAIL"] = "421 4.4.2 idle for too long"
        await adapter.send(mail("deux"))
        sink.once["MAIL"] = HANG_UP
        await adapter.send(mail("trois"))
    assert [subject(each.raw) for each in sink.taken] == ["un", "deux", "trois"]


async def test_a_pause_ends_by_the_clock_and_a_probe_does_not_wait_for_it(opened: Opener) -> None:
    login = {"username": RELAY, "password": SecretStr("secret")}
    async with Sink(answers={"AUTH": "535 5.7.8 no"}, extensions=("AUTH PLAIN LOGIN",)).running() as sink:
        adapter = opened(sink.port, **login)
        for _ in range(5):
            verdict = await verdict_of(adapter, mail("un"))
            assert verdict.why == Why.AUTHENTICATION
        assert sink.connections == 1
        sink.answers.clear()
        await adapter.probe()
        await adapter.send(mail("deux"))
        assert len(sink.taken) == 1
        sink.answers["AUTH"] = "535 5.7.8 no"
        opened.clock.at += 1000
        assert (await verdict_of(adapter, mail("trois"))).why == Why.AUTHENTICATION
        sink.answers.clear()
        opened.clock.at += 299
        assert (await verdict_of(adapter, mail("trois"))).why == Why.AUTHENTICATION
        opened.clock.at += 2
        await adapter.send(mail("trois"))


async def test_an_unreachable_server_is_tried_once_a_batch_not_once_a_letter(opened: Opener) -> None:
    async with Sink(answers={"CONNECT": HANG_UP}).running() as sink:
        verdicts = await opened(sink.port).send_many([mail(f"n{number}") for number in range(50)])
        assert {type(verdict) for verdict in verdicts} == {Deferred}
        assert sink.connections <= 4


async def test_closing_closes_every_connection(opened: Opener) -> None:
    async with Sink().running() as sink:
        adapter = opened(sink.port)
        await adapter.send_many([mail(f"n{number}") for number in range(8)])
        await adapter.close()
        await sink.wait_for(lambda: sink.commands.count("QUIT") == 4)


# ------------------------------------------------------------------------------------------------------ TLS


@pytest.mark.parametrize("name", ["server_expired", "server_elsewhere", "server_rogue"])
async def test_a_bad_certificate_of_the_server_is_refused_before_the_password_leaves(
    opened: Opener, pki: Pki, name: str
) -> None:
    pair = getattr(pki, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    async with Sink(tls=context).running() as sink:
        adapter = opened(sink.port, security="tls", ca=str(pki.ca), username="u", password=SecretStr("p"))
        verdict = await verdict_of(adapter, mail("un"))
    assert (verdict.why, verdict.retry_after) == (Why.CERTIFICATE, 300)
    assert sink.commands == []


async def test_a_certificate_of_ours_that_the_server_refuses_is_said(opened: Opener, pki: Pki) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # Blocking sockets, in a thread: asyncio's own servers close without the alert that real ones send.
        def refuse() -> None:
            plain, _ = listener.accept()
            with (
                plain,
                contextlib.suppress(OSError),
                context.wrap_socket(plain, server_side=True) as protected,
            ):
                protected.recv(1)

        for pair in (pki.rogue, pki.expired):
            refusing = asyncio.ensure_future(asyncio.to_thread(refuse))
            shown = {"client_cert": str(pair.cert), "client_key": str(pair.key)}
            adapter = opened(listener.getsockname()[1], security="tls", ca=str(pki.ca), **shown)
            verdict = await verdict_of(adapter, mail("un"))
            await refusing
            assert (verdict.why, verdict.retry_after) == (Why.CERTIFICATE, 300)


async def test_our_certificate_is_shown(opened: Opener, pki: Pki) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(pki.ca))
    context.load_cert_chain(pki.server.cert, pki.server.key)
    context.verify_mode = ssl.CERT_REQUIRED
    shown = {"client_cert": str(pki.client.cert), "client_key": str(pki.client.key)}
    async with Sink(tls=context).running() as sink:
        await opened(sink.port, security="tls", ca=str(pki.ca), **shown).send(mail("un"))
    assert len(sink.taken) == 1


async def test_starttls_that_is_not_offered_is_never_done_without(opened: Opener, pki: Pki) -> None:
    async with Sink(extensions=("AUTH PLAIN LOGIN",)).running() as sink:
        adapter = opened(
            sink.port, security="starttls", ca=str(pki.ca), username="u", password=SecretStr("secret")
        )
        assert isinstance(await verdict_of(adapter, mail("un")), Deferred)
    assert not any(command.startswith(("AUTH", "MAIL")) for command in sink.commands)


# ------------------------------------------------------------------------------------------------- the rest


async def test_nothing_of_a_letter_or_a_password_is_logged_even_at_debug(
    postfix: Postfix, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    adapter = opened(postfix.tls_port, **submission(postfix))
    await adapter.send(mail("Canari"))
    await verdict_of(adapter, mail("Canari", to="inconnu@medecin.mssante.fr"))
    assert "Canari" not in caplog.text
    assert PASSWORD not in caplog.text
    assert "inconnu" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"security": "none", "host": "smtp.operateur.mssante.fr"},
        {"username": "u"},
        {"client_key": "x"},
        {"max_bytes": 0},
        {"auth": "cram-md5"},
        {"hostname": "x"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    smtp.Settings.model_validate({"host": "smtp.example"})
    with pytest.raises(ValidationError):
        smtp.Settings.model_validate({"host": "smtp.example"} | wrong)
