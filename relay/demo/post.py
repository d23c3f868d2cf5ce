"""The demo's post office: mailboxes served over IMAP by pymap, filled over SMTP by aiosmtpd, in this process.

It behaves like an operator's server where the relay can tell: plus addresses reach their mailbox, unknown
recipients are refused, and a success DSN comes back when it was asked for (RFC 3461, RFC 3464).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from argparse import Namespace
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default as default_policy
from email.utils import format_datetime, make_msgid
from typing import TYPE_CHECKING, Self

from aiosmtpd.smtp import SMTP
from proxyprotocol.reader import ProxyProtocolReader
from proxyprotocol.version import ProxyProtocolVersion
from pymap.backend.dict import Config, Login
from pymap.backend.dict.filter import FilterSet
from pymap.backend.dict.mailbox import MailboxData, MailboxSet
from pymap.imap import IMAPServer
from pymap.parsing.message import AppendMessage
from pymap.user import UserMetadata
from pysasl.hashing import Cleartext

if TYPE_CHECKING:
    from aiosmtpd.smtp import Envelope, Session
    from pymap.concurrent import Event
    from pymap.selected import SelectedMailbox

HOST = "127.0.0.1"
PASSWORD = "demo"
OURS = "exploitant.mssante.fr"
KEPT = 300  # mails of one mailbox that the page can still show


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail in one mailbox, as it was delivered."""

    number: int  # unique in this post office, growing
    mailbox: str
    sender: str  # envelope
    at: datetime
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        """Parsed, anew at each call."""
        parsed = message_from_bytes(self.raw, policy=default_policy)
        assert isinstance(parsed, EmailMessage)  # noqa: S101 - what this policy makes
        return parsed

    @property
    def message_id(self) -> str:
        """With its angle brackets; empty when there is none."""
        return str(self.message.get("Message-ID", "")).strip()

    @property
    def automatic(self) -> bool:
        """A delivery report or another machine's mail that nobody reads."""
        return self.message.get_content_type() == "multipart/report"


class PostOffice:
    """The mailboxes of the demo. `async with` opens both servers on free loopback ports."""

    def __init__(self, mailboxes: Iterable[str]) -> None:
        self.mailboxes = tuple(mailboxes)
        self.mails: dict[str, list[Mail]] = {address: [] for address in self.mailboxes}
        self.imap_port = self.smtp_port = 0
        self.delivered: Callable[[], None] = lambda: None
        """Called after each delivery, for who shows the mailboxes."""
        self._sets: dict[str, _Mailboxes] = {}
        self._stack = AsyncExitStack()
        self._last = 0

    async def __aenter__(self) -> Self:
        config = Config.from_args(
            Namespace(
                host=HOST, port=0, debug=False, cert=None, key=None, tls=False, proxy_protocol=None,
                passlib_cfg=None, demo_data=False, demo_user="nobody", demo_password="",
            ),
            hash_context=Cleartext(), secure_auth=False,
        )  # fmt: skip
        config.apply_context()
        login = Login(config)
        for address in self.mailboxes:
            login.users_dict[address] = UserMetadata(config, address, password=PASSWORD)
            self._sets[address] = _Mailboxes()
            config.set_cache[address] = (self._sets[address], FilterSet())
        loop = asyncio.get_running_loop()
        reader = ProxyProtocolReader(ProxyProtocolVersion.get(None))
        imap = await asyncio.start_server(reader.get_callback(IMAPServer(login, config)), HOST, 0)
        self._stack.push_async_callback(_closed, imap)
        smtp = await loop.create_server(lambda: _Server(self, loop), HOST, 0)
        self._stack.push_async_callback(_closed, smtp)
        self.imap_port = imap.sockets[0].getsockname()[1]
        self.smtp_port = smtp.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def mailbox_of(self, address: str) -> str | None:
        """The mailbox that an address reaches: `relais+token@…` is `relais@…`. None: nobody's."""
        local, _, domain = address.lower().rpartition("@")
        box = f"{local.partition('+')[0]}@{domain}"
        return box if box in self._sets else None

    async def deliver(self, sender: str, recipient: str, raw: bytes) -> Mail | None:
        """Put a mail into the recipient's mailbox; None when nobody has that address."""
        box = self.mailbox_of(recipient)
        if box is None:
            return None
        now = datetime.now(UTC)
        delivered = f"Return-Path: <{sender}>\r\nDelivered-To: {recipient}\r\n".encode() + raw
        self._last += 1
        mail = Mail(self._last, box, sender, now, delivered)
        self.mails[box].append(mail)
        del self.mails[box][:-KEPT]
        inbox = await self._sets[box].get_mailbox("INBOX")
        await inbox.append(AppendMessage(delivered, now, frozenset()))
        self.delivered()
        return mail


class _Inbox(MailboxData):
    """An INBOX that tells an idling client at once of what came between its last command and IDLE.

    The library's own waits for the next change, even when there is one to tell already, and even when the
    client ended IDLE before it waits: that letter would sleep until another one comes.
    """

    async def update_selected(
        self, selected: SelectedMailbox, *, wait_on: Event | None = None
    ) -> SelectedMailbox:
        """Wait for a change, unless the client has not heard of one, or waits no more."""
        if wait_on is not None and (wait_on.is_set() or selected.mod_sequence != self._mod_sequences.highest):
            wait_on = None
        return await super().update_selected(selected, wait_on=wait_on)


class _Mailboxes(MailboxSet):
    """One account's folders."""

    def __init__(self) -> None:
        super().__init__()
        self._inbox = _Inbox(self._content_cache, self._thread_cache)


async def _closed(server: asyncio.Server) -> None:
    server.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):  # a client that idles keeps its connection: it is cut with the loop
            await server.wait_closed()


class _Server(SMTP):
    """aiosmtpd with DSN: it takes RET, ENVID, NOTIFY and ORCPT, and reports a delivery where asked."""

    def __init__(self, office: PostOffice, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(_Handler(office, self), hostname=OURS, ident="Relais demo", loop=loop,
                         data_size_limit=30 * 2**20)  # fmt: skip
        self.envid = ""
        self.notify: dict[str, str] = {}

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802 - the library finds commands by name
        """MAIL FROM, its DSN parameters taken off before the library refuses them."""
        left, taken = _without(arg, "RET", "ENVID")
        self.envid, self.notify = taken.get("ENVID", ""), {}
        await super().smtp_MAIL(left)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802 - the library finds commands by name
        """RCPT TO, likewise."""
        left, taken = _without(arg, "NOTIFY", "ORCPT")
        address = re.search(r"<([^>]*)>", left or "")
        if address:
            self.notify[address[1].lower()] = taken.get("NOTIFY", "").upper()
        await super().smtp_RCPT(left)


def _without(arg: str | None, *names: str) -> tuple[str | None, dict[str, str]]:
    if arg is None:
        return None, {}
    taken: dict[str, str] = {}

    def take(match: re.Match[str]) -> str:
        taken[match[1].upper()] = match[2]
        return ""

    return re.sub(rf"\s+({'|'.join(names)})=(\S+)", take, arg, flags=re.IGNORECASE), taken


class _Handler:
    """What becomes of each command; the names are aiosmtpd's hooks."""

    def __init__(self, office: PostOffice, server: _Server) -> None:
        self.office, self.server = office, server

    async def handle_EHLO(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, hostname: str, responses: list[str]
    ) -> list[str]:
        """Announce DSN before the last line."""
        session.host_name = hostname
        return [*responses[:-1], "250-DSN", responses[-1]]

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Refuse an address that nobody has."""
        if self.office.mailbox_of(address) is None:
            return "550 5.1.1 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        """Deliver, then report what was asked to be reported."""
        raw = envelope.original_content or b""
        sender = envelope.mail_from or ""
        for recipient in envelope.rcpt_tos:
            await self.office.deliver(sender, recipient, raw)
            if sender and "SUCCESS" in self.server.notify.get(recipient.lower(), ""):
                report = delivery_report(sender, recipient, raw, self.server.envid)
                await self.office.deliver("", sender, report)
        return "250 2.0.0 OK"


def delivery_report(sender: str, recipient: str, raw: bytes, envid: str) -> bytes:
    """A success DSN, as RFC 3464 §2 lays it out: words, the machine's part, the original's headers."""
    head = re.split(rb"\r?\n\r?\n", raw, maxsplit=1)[0].decode("ascii", "replace").replace("\r\n", "\n")
    original = f"Original-Envelope-Id: {envid}\n" if envid else ""
    edge = "=_avis"
    text = f"""From: Mail Delivery System <mailer-daemon@{OURS}>
To: <{sender}>
Subject: Successful Mail Delivery Report
Date: {format_datetime(datetime.now(UTC))}
Message-ID: {make_msgid(domain=OURS)}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="{edge}"

--{edge}
Content-Type: text/plain; charset=us-ascii

Your message was delivered.
--{edge}
Content-Type: message/delivery-status

Reporting-MTA: dns; {OURS}
{original}
Final-Recipient: rfc822; {recipient}
Action: delivered
Status: 2.0.0

--{edge}
Content-Type: text/rfc822-headers

{head}

--{edge}--
"""
    return text.replace("\n", "\r\n").encode("ascii", "replace")


def read_report(reader: str, original: EmailMessage) -> tuple[str, bytes] | None:
    """What a mailbox sends when a mail is opened (MDN, RFC 8098): where to, and the bytes. None: nobody asked."""
    wanted = str(original.get("Disposition-Notification-To", "")).strip()
    match = re.search(r"[^\s<>]+@[^\s<>]+", wanted)
    if not match:
        return None
    edge = "=_lecture"
    text = f"""From: <{reader}>
To: <{match[0]}>
Subject: Lu
Date: {format_datetime(datetime.now(UTC))}
Message-ID: {make_msgid(domain=OURS)}
In-Reply-To: {original["Message-ID"]}
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=disposition-notification; boundary="{edge}"

--{edge}
Content-Type: text/plain; charset=us-ascii

The message was displayed.
--{edge}
Content-Type: message/disposition-notification

Reporting-UA: {OURS}; demo
Final-Recipient: rfc822;{reader}
Original-Message-ID: {original["Message-ID"]}
Disposition: manual-action/MDN-sent-manually; displayed

--{edge}--
"""
    return match[0], text.replace("\n", "\r\n").encode("ascii", "replace")
