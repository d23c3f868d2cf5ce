"""The tour: what a visitor can do in the place of ward and GP, and what the page is told about it.

Everything goes the way it goes in life: the ward's letter into the watched mailbox, answers by mail to the
address the mail gives, presses through the chat's own page. The tour reads the store and writes nothing there.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from typing import TYPE_CHECKING, Protocol
from zoneinfo import ZoneInfo

from relay.demo import letters, people, story
from relay.demo.post import Mail, PostOffice, read_report
from relay.errors import NotFound, Refused

if TYPE_CHECKING:
    from relay.demo.letters import Letter
    from relay.demo.people import Doctor
    from relay.store import Store

PARIS = ZoneInfo("Europe/Paris")
MOST_TEXT = 20_000  # characters of what a visitor writes
MOST_LETTERS = 60  # a visitor who holds the key down fills no disk


class ChatLinks(Protocol):
    """What the tour asks of the web chat."""

    def link(self, chat: str) -> str:
        """The path that opens a chat, below the adapter's mount."""


@dataclass(slots=True)
class Sent:
    """One letter that left the ward."""

    key: str
    title: str
    patient: str
    message_id: str
    at: datetime
    letter: Letter | None = None  # one of the prepared ones
    seen: dict[str, datetime] = field(default_factory=dict)  # moment → when it was first told
    moments: dict[str, story.Moment] = field(default_factory=dict)  # everything told so far
    story: story.Story = field(default_factory=story.Story)
    hold: str | None = None  # why it waits for a person, as the list of holds says


class Tour:
    """The visitor's hands and eyes."""

    def __init__(self, office: PostOffice, store: Store, chats: ChatLinks, mount: str) -> None:
        """`mount` is the path under which the chat's page is served."""
        self.office, self.store, self.chats, self.mount = office, store, chats, mount
        self.round = 0
        self.prepared = letters.prepared(self.local(), self.round)
        self.sent: list[Sent] = []
        self.opened: set[int] = set()  # mails that somebody looked at
        self.answered: dict[int, str] = {}  # mail → the answer that was given
        self.version = 0
        self.changed = asyncio.Event()
        office.delivered = self.touch

    @staticmethod
    def local() -> datetime:
        """Now, as the hospital's clock shows it."""
        return datetime.now(PARIS)

    def touch(self) -> None:
        """Something is to be shown anew."""
        self.version += 1
        self.changed.set()
        self.changed = asyncio.Event()

    # ------------------------------------------------------------------------------------------- doing

    async def send(self, key: str) -> Sent:
        """The ward sends a prepared letter. Raises NotFound, or Refused when it left already."""
        letter = next((each for each in self.prepared if each.key == key), None)
        if letter is None:
            raise NotFound("Cette lettre n'existe pas.")
        if any(each.letter is letter for each in self.sent):
            raise Refused("Cette lettre est déjà partie.")
        return await self._leave(
            Sent(letter.key, letter.title, letter.patient, letter.message_id, datetime.now(UTC), letter),
            letter.raw,
        )

    async def write(self, text: str) -> Sent:
        """The ward sends a letter of the visitor's own. Raises Refused when it is empty or too long."""
        raw, message_id = letters.written(_checked(text), self.local())
        match = re.search(r"^\s*patient\s*:\s*(.{1,60}?)\s*$", text, re.IGNORECASE | re.MULTILINE)
        return await self._leave(
            Sent("libre", "Lettre écrite ici", match[1] if match else "?", message_id, datetime.now(UTC)), raw
        )

    async def _leave(self, sent: Sent, raw: bytes) -> Sent:
        if len(self.sent) >= MOST_LETTERS:
            raise Refused("La démonstration s'arrête à soixante lettres : relancez-la.")
        self.sent.append(sent)
        await self.office.deliver(people.WARD, people.WATCHED, raw)
        self.touch()
        return sent

    def again(self) -> None:
        """Lay the same letters ready once more, for other stays."""
        self.round += 1
        self.prepared = letters.prepared(self.local(), self.round)
        self.touch()

    async def answer(self, number: int, text: str) -> None:
        """Whoever owns the mailbox answers a mail, as their mail program would. Raises NotFound or Refused."""
        mail = self._mail(number)
        message = mail.message
        to = parseaddr(str(message.get("Reply-To") or message.get("From") or ""))[1]
        answer = EmailMessage(policy=SMTP)
        answer["From"] = mail.mailbox
        answer["To"] = to
        answer["Subject"] = f"Re: {message.get('Subject', '')}"
        answer["Date"] = format_datetime(self.local())
        answer["Message-ID"] = make_msgid(domain=mail.mailbox.partition("@")[2])
        answer["In-Reply-To"] = mail.message_id
        answer["References"] = mail.message_id
        quoted = "\n".join(f"> {line}" for line in words_of(message).splitlines()[:12])
        head = f"Le {self.local():%d/%m/%Y à %H:%M}, {_shown_from(message)} a écrit :"
        answer.set_content(f"{_checked(text)}\n\n{head}\n{quoted}\n", cte="quoted-printable")
        if await self.office.deliver(mail.mailbox, to, answer.as_bytes()) is None:
            raise Refused("Ce courriel n'attend pas de réponse.")
        self.answered[number] = text.strip()
        self.touch()

    async def open(self, number: int) -> None:
        """Somebody opens a mail; their program tells its sender, as ours asked it to. Raises NotFound."""
        mail = self._mail(number)
        if number in self.opened:
            return
        self.opened.add(number)
        report = read_report(mail.mailbox, mail.message)
        if report is not None:
            to, raw = report
            await self.office.deliver(mail.mailbox, to, raw)
        self.touch()

    def attachment(self, number: int, place: int) -> tuple[str, bytes]:
        """One attachment's name and content. Raises NotFound."""
        parts = list(self._mail(number).message.iter_attachments())
        if not 0 <= place < len(parts):
            raise NotFound("Cette pièce jointe n'existe pas.")
        content = parts[place].get_payload(decode=True)
        return parts[place].get_filename() or "piece", content if isinstance(content, bytes) else b""

    def _mail(self, number: int) -> Mail:
        shown = (people.WARD, people.DESK, *(doctor.address for doctor in people.DOCTORS))
        for box in shown:
            for mail in self.office.mails[box]:
                if mail.number == number:
                    return mail
        raise NotFound("Ce courriel n'existe pas.")

    # ------------------------------------------------------------------------------------------ looking

    async def follow(self) -> None:
        """Look at the store after each of its commits, for ever, and remember when each thing was first seen."""
        generation = -1
        while True:
            generation = await self.store.changed(generation)
            await self.look()

    async def look(self) -> None:
        """Bring every letter's story up to date."""
        ours = {sent.message_id for sent in self.sent}
        rows = [row for row in await self._rows("envelopes") if row.get("message_id") in ours]
        holds = {row["envelope"]: row for row in await self._rows("holds")}
        threads = {row["reference"]: str(row["id"]) for row in await self._rows("threads")}
        first = {
            row["message_id"]: row
            for row in sorted(rows, key=lambda row: str(row["received_at"]), reverse=True)
        }
        news = False
        for sent in self.sent:
            row = first.get(sent.message_id)
            hold = holds.get(row["id"]) if row else None
            thread = threads.get(row["reference"]) if row and row.get("reference") else None
            told = story.tell(row, hold, await self.store.view(thread) if thread else None)
            news = news or told != sent.story
            sent.story = told
            sent.hold = str(hold["why"]) if hold and row and row["state"] == "held" else None
            self._remember(sent, told)
        if news:
            self.touch()

    @staticmethod
    def _remember(sent: Sent, told: story.Story) -> None:
        """Keep each moment with the time it was first told: what is over is still part of the story."""
        moments = list(told.moments)
        if "held" in sent.moments and all(moment.key != "held" for moment in moments):
            moments.insert(2, story.RELEASED)
        now = datetime.now(UTC)
        for moment in moments:
            sent.seen.setdefault(moment.key, now)
            sent.moments[moment.key] = moment

    async def _rows(self, name: str) -> Sequence[Mapping[str, object]]:
        rows = await getattr(self.store, name)(state=None, since=None, limit=500)
        return [getattr(row, "values", row) if not isinstance(row, Mapping) else row for row in rows]

    def page(self) -> dict[str, object]:
        """Everything the page shows, as JSON."""
        return {
            "version": self.version,
            "now": datetime.now(UTC).isoformat(),
            "outbox": [self._prepared(letter) for letter in self.prepared],
            "round": self.round,
            "ward": [self._shown(mail, "ward") for mail in self._people(people.WARD)],
            "desk": [self._shown(mail, "desk") for mail in self._people(people.DESK)],
            "doctors": [
                {
                    "name": doctor.name,
                    "town": doctor.town,
                    "chat": doctor.chat,
                    "mails": [self._shown(mail, "doctor") for mail in self._people(doctor.address)],
                }
                for doctor in people.DOCTORS
            ],
            "letters": [self._story(sent) for sent in sorted(self.sent, key=_latest, reverse=True)],
        }

    def _people(self, box: str) -> list[Mail]:
        """A mailbox as its people see it, newest first."""
        return [mail for mail in reversed(self.office.mails[box]) if not mail.automatic]

    def _prepared(self, letter: Letter) -> dict[str, object]:
        return {
            "key": letter.key,
            "title": letter.title,
            "hint": letter.hint,
            "patient": letter.patient,
            "text": letter.text,
            "attachments": list(letter.attachments),
            "sent": any(each.letter is letter for each in self.sent),
        }

    def _shown(self, mail: Mail, whose: str) -> dict[str, object]:
        message = mail.message
        text = words_of(message)
        return {
            "number": mail.number,
            "at": mail.at.isoformat(),
            "from": _shown_from(message),
            "subject": _shown_subject(str(message.get("Subject", ""))),
            "text": text,
            "attachments": [part.get_filename() or "pièce jointe" for part in message.iter_attachments()],
            "opened": mail.number in self.opened,
            "answered": self.answered.get(mail.number),
            "draft": self._draft(text) if whose == "ward" else "",
            "quick": _quick(text),
        }

    def _draft(self, text: str) -> str:
        """What the ward would fill in, where lines are asked for: the visitor only has to press « Envoyer »."""
        if not re.search(r"^Médecin traitant :\s*$", text, re.MULTILINE):
            return ""
        doctor: Doctor = people.SAULE_TOO if people.GENET.family in text else people.AMBRE
        return f"Médecin traitant : {doctor.name}\nRPPS : {doctor.rpps}\n"

    def _story(self, sent: Sent) -> dict[str, object]:
        told = sent.story
        ordered = sorted(sent.moments.values(), key=lambda moment: sent.seen[moment.key])
        return {
            "id": sent.message_id,
            "title": sent.title,
            "patient": sent.patient,
            "at": sent.at.isoformat(),
            "reference": told.reference,
            "state": told.now,
            "tone": told.tone,
            "stages": [
                {"name": name, "tone": tone} for name, tone in zip(story.STAGES, told.stages, strict=True)
            ],
            "moments": [
                {"text": moment.text, "tone": moment.tone, "at": sent.seen[moment.key].isoformat()}
                for moment in ordered
            ],
            "next": {"text": told.next.text, "at": told.next.at.isoformat()} if told.next else None,
        }

    def chat_path(self, doctor: Doctor) -> str:
        """Where the doctor's phone is."""
        return f"{self.mount}/{self.chats.link(doctor.chat)}"


def _latest(sent: Sent) -> datetime:
    """When something last happened to a letter."""
    return max(sent.seen.values(), default=sent.at)


def words_of(message: EmailMessage) -> str:
    """The text a reader sees; empty when a mail has none."""
    body = message.get_body(("plain",))
    with contextlib.suppress(LookupError, ValueError):  # a charset nobody knows
        return str(body.get_content()).replace("\r\n", "\n").strip() if body is not None else ""
    return ""


def _quick(text: str) -> list[tuple[str, str]]:
    """The one-word answers that a mail offers, with their meaning."""
    if "Répondez par un mot" in text:
        return [("OK", "bien reçu"), ("RAPPEL", "rappelez-moi"), ("ERREUR", "pas mon patient")]
    return [("ANNULER", "rappeler la lettre")] if "Répondez ANNULER" in text else []


def _shown_subject(subject: str) -> str:
    """As mail programs for doctors show it: without the prefix machines look for, nor the label cut at 40 letters."""
    plain = re.sub(r"^XDM/1\.0/DDM\+", "", subject)
    return re.sub(r"^Lettre de liaison a la sortie d'un etabl\w* ", "Lettre de liaison – ", plain)


def _shown_from(message: EmailMessage) -> str:
    name, address = parseaddr(str(message.get("From", "")))
    return name or address


def _checked(text: str) -> str:
    if not text.strip():
        raise Refused("Le message est vide.")
    if len(text) > MOST_TEXT:
        raise Refused("Le message est trop long.")
    return text.strip()
