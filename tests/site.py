"""A whole site for end-to-end tests: configuration, registries and the daemon, driven as its admin would."""

from __future__ import annotations

import contextlib
import csv
import email
import email.policy
import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from typing import Any

from relay.model import Patient, Person
from relay.vault import FileKeyRing
from tests import letters
from tests.servers import free_port, until

ROOT = Path(__file__).resolve().parent.parent
RELAY = "relais@relais45.mssante.fr"
WARD_PEOPLE = "sorties.cardio@chr-exemple.mssante.fr"
REFERENCE = re.compile(r"Réf\. ([0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4})")

FAST_RULES = """\
version: 1
timezone: Europe/Paris
targets:
  gp: {{ who: registered_gp, via: [mss], carries: document }}
  gp_ping: {{ who: registered_gp, via: [telegram], carries: pointer }}
  sorties: {{ who: desk/sorties, via: [mss], carries: document }}
followups:
  court:
    await: ack
    ack: {{ within: {second}, clock: real }}
    ladder:
      - {{ after: {first}, remind: gp_ping }}
      - {{ after: {second}, remind: gp }}
      - {{ after: {third}, hand_to: sorties }}
rules:
  - id: sortie
    when: {{ event: [discharge, er_visit] }}
    send: [gp, gp_ping]
    followup: court
default: {{ hold: sorties, reason: "Aucune règle ne correspond" }}
"""


class Refused(AssertionError):
    """A command ended with another code than was expected."""


@dataclass
class Site:
    """One configured relay in a folder of its own."""

    folder: Path
    config: str
    env: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    lives: int = 0

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "config.toml"
        self.file.write_text(self.config, encoding="utf-8")

    # ------------------------------------------------------------------------------------------- commands

    def relay(self, *words: str | Path, code: int | None = 0, env: dict[str, str] | None = None) -> str:
        """Run one command; its standard output. `code` None takes any exit code."""
        done = subprocess.run(
            [sys.executable, "-m", "relay", *map(str, words), "--config", str(self.file)],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=90,
            env={**os.environ, **self.env, **(env or {})},
        )  # fmt: skip
        if code is not None and done.returncode != code:
            raise Refused(
                f"relay {' '.join(map(str, words))}: {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )
        return done.stdout

    def json(self, *words: str | Path) -> Any:  # Any: whatever the command answers
        """Run one command with --json and read its document."""
        return json.loads(self.relay(*words, "--json"))

    def rows(self, what: str, **wanted: object) -> list[dict[str, Any]]:
        """The rows of a list command that carry these values, oldest first."""
        found = self.json(what, "list", "--limit", "1000")
        return [row for row in reversed(found) if all(row[key] == value for key, value in wanted.items())]

    def keys(self) -> None:
        """Make the site's key ring, as `relay init` does."""
        FileKeyRing.create(self.folder / "state" / "keys.json")

    # --------------------------------------------------------------------------------------------- daemon

    def start(self, *words: str, env: dict[str, str] | None = None, ready: bool = True) -> None:
        """Start `relay run`; returns once it says ready."""
        self.lives += 1
        log = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "relay", "run", "--config", str(self.file), *words],
            stdout=subprocess.DEVNULL, stderr=log, cwd=ROOT, env={**os.environ, **self.env, **(env or {})},
        )  # fmt: skip
        log.close()
        if ready:
            assert until(lambda: self.logged("ready") or self.process.poll() is not None, 30)
            assert self.process.poll() is None, self.log.read_text()[-3000:]

    @property
    def log(self) -> Path:
        return self.folder / f"log-{self.lives}.jsonl"

    @property
    def logs(self) -> str:
        """Everything every life of the daemon wrote."""
        return "".join(each.read_text() for each in sorted(self.folder.glob("log-*.jsonl")))

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = self.log.read_text().splitlines()
        found = [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]
        return [line for line in found if line.get("event") == event]

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.process = None
        return code

    def kill(self) -> None:
        """kill -9, as a power cut would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        self.process = None

    def died(self, seconds: float = 30) -> bool:
        """Wait until the daemon ended by itself (a crash point)."""
        assert self.process is not None
        return until(lambda: self.process is not None and self.process.poll() is not None, seconds)

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[Site]:
        """The daemon between two braces; it must end well."""
        self.start(*words)
        try:
            yield self
        finally:
            code = self.stop()
            assert code == 0, f"exit {code}: {self.log.read_text()[-3000:]}"

    def get(self, path: str) -> tuple[int, str]:
        """A page of the console."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    port: int = 0

    # ------------------------------------------------------------------------------------------- registries

    def patients(self, rows: Iterable[tuple[Patient, Sequence[Person]]], consent: str = "allowed") -> None:
        """Import patients with their registered GPs."""
        file = self.folder / "patients.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            out = csv.writer(stream)
            out.writerow(
                [
                    "ins",
                    "ins_oid",
                    "facility",
                    "local_id",
                    "birth_name",
                    "used_name",
                    "given_names",
                    "birth_date",
                    "sex",
                    "birth_place",
                    "gp_rpps",
                    "consent",
                ]
            )
            for who, gps in rows:
                for gp in gps or [None]:
                    out.writerow(
                        [
                            who.ins, who.ins_oid, "450000088", "", who.birth_name, who.used_name or "",
                            " ".join(who.given_names), who.birth_date, who.sex, who.birth_place,
                            gp.rpps if gp else "", consent,
                        ]
                    )  # fmt: skip
        self.relay("patients", "import", file)

    def directory(self, people: Iterable[Person], *, active: bool = True) -> None:
        """Import professionals with the mailbox each of them names."""
        file = self.folder / "directory.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            out = csv.writer(stream)
            out.writerow(
                [
                    "rpps",
                    "family_name",
                    "given_name",
                    "profession",
                    "speciality",
                    "mss_address",
                    "mss_kind",
                    "organisation",
                    "finess",
                    "postcode",
                    "phone",
                    "cpts",
                    "active",
                ]
            )
            for one in people:
                out.writerow(
                    [one.rpps, one.family_name, one.given_name, "10", "SM26", one.mss_address or "", "PER", "", "",
                     "45000", "", "", "yes" if active else "no"]
                )  # fmt: skip
        self.relay("directory", "import", file)

    # ---------------------------------------------------------------------------------------------- waiting

    def until(self, condition: Callable[[], object], seconds: float = 20) -> None:
        """Wait until something outside us is so; the daemon must not have died meanwhile."""

        def reached() -> bool:
            if self.process is not None and self.process.poll() is not None:
                raise AssertionError(f"the daemon died: {self.log.read_text()[-3000:]}")
            return bool(condition())

        assert until(reached, seconds), f"not reached in {seconds} s: {self.log.read_text()[-2000:]}"

    def row(self, what: str, seconds: float = 20, **wanted: object) -> dict[str, Any]:
        """Wait for one row of a list command that carries these values."""
        found: list[dict[str, Any]] = []

        def there() -> bool:
            found[:] = self.rows(what, **wanted)
            return bool(found)

        try:
            self.until(there, seconds)
        except AssertionError as error:
            raise AssertionError(f"no {what} with {wanted}: {self.rows(what)}\n{error}") from None
        return found[-1]


def parsed(raw: bytes) -> EmailMessage:
    """A mail as its reader's program sees it."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    return message


def body(message: EmailMessage) -> str:
    """The text that a reader sees first."""
    part = message.get_body(("plain",))
    assert part is not None
    return str(part.get_content()).replace("\r\n", "\n")


def reference(text: str) -> str:
    """The reference that a text shows."""
    found = REFERENCE.search(text)
    assert found, text
    return found[1]


def answer(original: EmailMessage, words: str, *, sender: str, to: str | None = None) -> bytes:
    """What a mail program sends when its reader answers: Re:, In-Reply-To, References, the quoted original."""
    reply = EmailMessage(policy=email.policy.SMTP)
    reply["From"] = sender
    reply["To"] = to or str(original["Reply-To"] or original["From"])
    reply["Subject"] = "Re: " + str(original["Subject"])
    reply["Date"] = format_datetime(datetime.now(UTC))
    reply["Message-ID"] = make_msgid(domain=sender.rpartition("@")[2])
    reply["In-Reply-To"] = str(original["Message-ID"])
    reply["References"] = " ".join(
        filter(None, (str(original["References"] or ""), str(original["Message-ID"])))
    )
    quoted = "\n".join("> " + line for line in body(original).splitlines())
    reply.set_content(f"{words}\n\nLe mar. 1 déc. 2026 à 17:45, Relais a écrit :\n{quoted}\n")
    return reply.as_bytes()


def documents(message: EmailMessage) -> dict[str, bytes]:
    """Attachments by name, decoded."""
    return {
        str(part.get_filename()): part.get_payload(decode=True)
        for part in message.walk()
        if part.get_filename()
    }


__all__ = [
    "REFERENCE",
    "Refused",
    "Site",
    "answer",
    "body",
    "documents",
    "free_port",
    "letters",
    "parsed",
    "reference",
]
