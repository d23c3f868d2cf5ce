"""The test servers behave as the real world does; where they do not, no other test means anything."""

from __future__ import annotations

import imaplib
import json
import smtplib
import ssl
import urllib.error
import urllib.parse
import urllib.request
from email.message import EmailMessage
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.conftest import ACCOUNTS, GP, PASSWORD, RELAY, WARD
from tests.servers import LOOPBACK
from tests.servers.postfix import BOUNCING_ADDRESS, DEFERRING_DOMAIN

if TYPE_CHECKING:
    from tests.servers.dovecot import Dovecot
    from tests.servers.pki import Pair, Pki
    from tests.servers.postfix import Postfix
    from tests.servers.postgres import Postgres
    from tests.servers.telegram import Telegram


def letter(subject: str = "Lettre de liaison", to: str = GP) -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = WARD, to, subject
    message["Message-ID"] = f"<{subject.replace(' ', '.')}@chr-exemple.mssante.fr>"
    message.set_content("Bonjour.\n")
    return message


def log_in(dovecot: Dovecot, pki: Pki, pair: Pair | None) -> imaplib.IMAP4_SSL:
    context = ssl.create_default_context(cafile=str(pki.ca))
    if pair is not None:
        context.load_cert_chain(pair.cert, pair.key)
    imap = imaplib.IMAP4_SSL(LOOPBACK, dovecot.imaps_port, ssl_context=context, timeout=10)
    try:
        imap.login(WARD, PASSWORD)
    except (imaplib.IMAP4.error, OSError):
        imap.shutdown()
        raise
    return imap


def submit(postfix: Postfix, pki: Pki, *, starttls: bool = False) -> smtplib.SMTP:
    context = ssl.create_default_context(cafile=str(pki.ca))
    if starttls:
        smtp = smtplib.SMTP(LOOPBACK, postfix.starttls_port, timeout=20)
        smtp.starttls(context=context)
    else:
        smtp = smtplib.SMTP_SSL(LOOPBACK, postfix.tls_port, context=context, timeout=20)
    smtp.login(RELAY, PASSWORD)
    return smtp


def test_a_mailbox_opens_with_the_application_certificate(dovecot: Dovecot, pki: Pki) -> None:
    log_in(dovecot, pki, pki.client).logout()


@pytest.mark.parametrize("name", ["revoked", "expired", "rogue", "missing"])
def test_a_mailbox_does_not_open_with_a_bad_certificate(dovecot: Dovecot, pki: Pki, name: str) -> None:
    with pytest.raises((imaplib.IMAP4.error, ssl.SSLError, ConnectionError)):
        log_in(dovecot, pki, getattr(pki, name, None))


def test_the_plain_listener_shows_the_same_mailboxes(dovecot: Dovecot, plain_dovecot: Dovecot) -> None:
    dovecot.empty(WARD)
    dovecot.deliver(WARD, letter(to=WARD))
    assert len(plain_dovecot.wait_messages(WARD)) == 1


@pytest.mark.parametrize("starttls", [False, True])
def test_a_submitted_letter_reaches_the_mailbox_of_the_gp(
    postfix: Postfix, dovecot: Dovecot, pki: Pki, starttls: bool
) -> None:
    dovecot.empty(GP)
    with submit(postfix, pki, starttls=starttls) as smtp:
        smtp.send_message(letter("Arrive"), RELAY, [GP])
    (raw,) = dovecot.wait_messages(GP)
    assert b"Subject: Arrive" in raw


def test_a_reply_to_a_token_address_reaches_the_relays_mailbox(postfix: Postfix, dovecot: Dovecot) -> None:
    dovecot.empty(RELAY)
    with smtplib.SMTP(LOOPBACK, postfix.incoming_port) as smtp:
        smtp.send_message(letter("Jeton"), GP, ["relais+ABCDEF234567@relais45.mssante.fr"])
    (raw,) = dovecot.wait_messages(RELAY)
    assert b"relais+ABCDEF234567@" in raw


def test_a_success_report_comes_back_when_asked_for(postfix: Postfix, dovecot: Dovecot, pki: Pki) -> None:
    dovecot.empty(RELAY)
    with submit(postfix, pki) as smtp:
        smtp.sendmail(RELAY, [GP], letter().as_bytes(), ["RET=HDRS", "ENVID=abc"], ["NOTIFY=SUCCESS,FAILURE"])
    (report,) = dovecot.wait_messages(RELAY)
    assert b"Original-Envelope-Id: abc" in report
    assert b"\nAction: delivered" in report or b"\nAction: relayed" in report


def test_an_address_that_left_is_taken_and_bounces(postfix: Postfix, dovecot: Dovecot, pki: Pki) -> None:
    dovecot.empty(RELAY)
    with submit(postfix, pki) as smtp:
        smtp.send_message(letter(to=BOUNCING_ADDRESS), RELAY, [BOUNCING_ADDRESS])
    (report,) = dovecot.wait_messages(RELAY)
    assert b"\nAction: failed" in report


@pytest.mark.parametrize(
    ("address", "code"), [("inconnu@medecin.mssante.fr", 550), (f"dr@{DEFERRING_DOMAIN}", 450)]
)
def test_unknown_addresses_are_refused_and_slow_domains_deferred(
    postfix: Postfix, pki: Pki, address: str, code: int
) -> None:
    with submit(postfix, pki) as smtp, pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
        smtp.sendmail(RELAY, [address], letter().as_bytes())
    assert refused.value.recipients[address][0] == code


def test_each_database_is_new_and_templates_are_prepared_once(postgres: Postgres) -> None:
    prepared = []

    def prepare(url: str) -> None:
        prepared.append(url)
        with psycopg.connect(url) as connection:
            connection.execute("CREATE TABLE letters (id int)")

    urls = [postgres.fresh(prepare, "letters") for _ in range(2)]
    with psycopg.connect(urls[0]) as first:
        first.execute("INSERT INTO letters VALUES (1)")
    with psycopg.connect(urls[1]) as second:
        assert second.execute("SELECT count(*) FROM letters").fetchone() == (0,)
    assert len(prepared) == 1
    for url in urls:
        postgres.drop(url)


def call(telegram: Telegram, method: str, **parameters: Any) -> Any:  # Any: JSON
    encoded = {k: v if isinstance(v, str) else json.dumps(v) for k, v in parameters.items()}
    url = f"{telegram.base_url}/bot{telegram.token}/{method}"
    with urllib.request.urlopen(url, urllib.parse.urlencode(encoded).encode(), timeout=10) as answer:
        return json.load(answer)["result"]


def test_an_update_comes_again_until_a_higher_offset_is_asked_for(telegram: Telegram) -> None:
    first = telegram.say(7, "bonjour")
    assert [update["update_id"] for update in call(telegram, "getUpdates")] == [first]
    assert [update["update_id"] for update in call(telegram, "getUpdates", offset=first)] == [first]
    assert call(telegram, "getUpdates", offset=first + 1) == []


def test_a_drop_after_the_effect_leaves_the_message_sent(telegram: Telegram) -> None:
    telegram.fault("sendMessage", drop="after")
    with pytest.raises(OSError, match="closed connection"):
        call(telegram, "sendMessage", chat_id=7, text="bonjour")
    assert [message["text"] for message in telegram.messages.values()] == ["bonjour"]


def test_button_data_over_64_bytes_is_refused(telegram: Telegram) -> None:
    keyboard = {"inline_keyboard": [[{"text": "Lu", "callback_data": "é" * 33}]]}
    with pytest.raises(urllib.error.HTTPError, match="400"):
        call(telegram, "sendMessage", chat_id=7, text="bonjour", reply_markup=keyboard)
    assert telegram.messages == {}


def test_the_accounts_cover_every_role() -> None:
    assert {RELAY, WARD, GP} <= set(ACCOUNTS)
