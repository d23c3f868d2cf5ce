"""What stands outside the relay, gathered in one look: mailboxes, phones, and what its commands answer.

The truth of a crash test comes from here, never from the database. Many commands share one interpreter, as
starting one takes longer than most of them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.conftest import ACCOUNTS, RELAY, WARD
from tests.servers.dovecot import Dovecot
from tests.servers.telegram import Telegram
from tests.site import REFERENCE, ROOT, Site, body, parsed

ASK = """
import contextlib, io, json, sys
from relay import cli
from relay.cli import shared
answers = []
for words in json.loads(sys.argv[2]):
    out, shared.shown = io.StringIO(), False
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        cli.main([*words, "--json", "--config", sys.argv[1]])
    answers.append(json.loads(out.getvalue()))
print(json.dumps(answers))
"""
LISTS = ("envelopes", "deliveries", "threads", "hold")
UNFINISHED = ("queued", "sending", "in_flight", "deferred", "ambiguous")
Row = dict[str, Any]  # Any: JSON


def ask(site: Site, *commands: Sequence[str]) -> list[Any]:  # Any: whatever the commands answer
    """What these commands answer with --json."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(site.file), json.dumps(commands)],
        capture_output=True, text=True, check=False, cwd=ROOT, timeout=90, env={**os.environ, **site.env},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    answers: list[Any] = json.loads(done.stdout)
    return answers


@dataclass(frozen=True)
class Books:
    """What the relay says of itself."""

    status: Row
    envelopes: list[Row]
    deliveries: list[Row]
    threads: list[Row]
    hold: list[Row]

    @property
    def quiet(self) -> bool:
        """Nothing waits to be decided or to leave."""
        waiting = sum(self.status["deliveries"][state] for state in UNFINISHED)
        return bool(self.status["open"] == 0 and waiting == 0)

    def check(self) -> None:
        """The conservation law and every promise that is a query."""
        assert self.status["balance"] == 0, self.status
        assert not any(self.status["invariants"].values()), self.status["invariants"]


def books(site: Site) -> Books:
    status, *lists = ask(site, ["status"], *([name, "list", "--limit", "1000"] for name in LISTS))
    return Books(status, *(list(reversed(rows)) for rows in lists))


@dataclass(frozen=True)
class Mail:
    """One mail of ours in somebody's mailbox. `raw` without what the servers on the way put on top."""

    to: str
    message_id: str
    raw: bytes

    @property
    def subject(self) -> str:
        return REFERENCE.sub("Réf. *", str(parsed(self.raw)["Subject"]))

    @property
    def text(self) -> str:
        return body(parsed(self.raw))


TRACE = re.compile(
    rb"\A(?:(?:Return-Path|Delivered-To|Received|X-Original-To):[^\n]*\n(?:[ \t][^\n]*\n)*)+", re.I
)


def count(dovecot: Dovecot, account: str) -> int:
    """How many mails stand in a mailbox, counted in its Maildir: for asking often."""
    return sum(1 for place in ("new", "cur") for _ in (dovecot.mail / account / place).glob("*"))


def posted(dovecot: Dovecot) -> list[Mail]:
    """Every mail the relay sent to a person, whoever got it, oldest first in each mailbox."""
    found = []
    for account in ACCOUNTS:
        # What arrives at these two was not sent by the relay.
        if account in (RELAY, WARD) or not count(dovecot, account):
            continue
        for whole in dovecot.messages(account):
            raw = TRACE.sub(b"", whole)
            found.append(Mail(account, str(parsed(raw)["Message-ID"]), raw))
    return found


def shown(telegram: Telegram) -> list[tuple[int, str]]:
    """Every chat message that was sent, edits aside: (chat, text)."""
    return [(int(call["chat_id"]), str(call["text"])) for call in telegram.made("sendMessage")]


def extra_copies(mails: Sequence[Mail]) -> Counter[str]:
    """How many copies beyond the first of each Message-ID; copies must be the same byte for byte."""
    first: dict[str, Mail] = {}
    extra: Counter[str] = Counter()
    for mail in mails:
        known = first.setdefault(mail.message_id, mail)
        if known is not mail:
            assert (mail.to, mail.raw) == (known.to, known.raw), (
                f"{mail.message_id} changed between its copies"
            )
            extra[mail.message_id] += 1
    return extra
