"""`relay demo --once`: the ward's five letters through the whole relay, and a verdict on where each ended."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import urllib.request
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.cookiejar import CookieJar
from typing import TYPE_CHECKING, Any, TextIO

from relay.demo import people
from relay.demo.tour import Sent, Tour, words_of

if TYPE_CHECKING:
    from relay.demo.letters import Letter
    from relay.demo.people import Doctor
    from relay.demo.post import Mail

ALL = 60.0  # seconds until every letter must have ended, and a page must have answered
LOOK = 0.05  # seconds between two looks


class Phone:
    """A doctor's browser, open on the chat's page."""

    def __init__(self, url: str, path: str) -> None:
        """`path` holds the link that signs in."""
        self.base = f"{url.rstrip('/')}{path.partition('?')[0]}"
        self._browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
        page = self._browser.open(f"{url.rstrip('/')}{path}", timeout=ALL).read().decode()
        found = re.search(r'name="relais-press" content="(\w+)"', page)
        self._token = found[1] if found else ""

    def messages(self) -> list[dict[str, Any]]:
        """What it shows."""
        shown = json.load(self._browser.open(f"{self.base}/messages", timeout=ALL))
        return list(shown["messages"])

    def press(self, message: str, nonce: str) -> str:
        """Press a button; answers the words that pop up."""
        asked = json.dumps({"id": secrets.token_hex(8), "message": message, "nonce": nonce}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own page on loopback
            f"{self.base}/press", asked, {"x-relais-press": self._token, "content-type": "application/json"}
        )
        return str(json.load(self._browser.open(request, timeout=ALL))["text"])


async def run(tour: Tour, url: str, out: TextIO) -> list[dict[str, object]]:
    """Send, wait, judge, print. Answers a row for each step: `name`, `reference`, `ok`, and the `problem` if there is one."""
    print("Relais, démonstration : les cinq lettres de « Cardiologie – CHR d'Exemple »\n", file=out)
    phones = {
        doctor: await asyncio.to_thread(Phone, url, tour.chat_path(doctor)) for doctor in people.DOCTORS
    }
    sent = [await tour.send(letter.key) for letter in tour.prepared]
    wrong = await _settled(tour, sent, phones)
    for one in sent:
        _print(one, wrong[one.key], out)
    if not any(wrong.values()):
        problem = await _pressed(tour, sent[0], phones)
        print(f"▸ Le médecin appuie sur « Bien reçu » pour {sent[0].patient}", file=out)
        _verdict(problem, f"le suivi dit : {sent[0].story.now}", out)
        wrong["bien-reçu"] = problem
    good = sum(not problem for problem in wrong.values())
    print(f"{good} étapes sur {len(wrong)} ont fini où elles devaient.", file=out, flush=True)
    references = {one.key: one.story.reference for one in sent} | {"bien-reçu": sent[0].story.reference}
    return [
        {"name": name, "reference": references[name], "ok": not problem, "problem": problem or None}
        for name, problem in wrong.items()
    ]


async def _settled(tour: Tour, sent: list[Sent], phones: dict[Doctor, Phone]) -> dict[str, str]:
    """What is wrong with each letter once all are right or the time is over; "" is nothing."""
    end = asyncio.get_running_loop().time() + ALL
    while True:
        await tour.look()
        shown = {doctor: await asyncio.to_thread(phone.messages) for doctor, phone in phones.items()}
        wrong = {one.key: _wrong(tour, one, shown) for one in sent}
        if not any(wrong.values()) or asyncio.get_running_loop().time() > end:
            return wrong
        await asyncio.sleep(LOOK)


def _wrong(tour: Tour, one: Sent, shown: dict[Doctor, list[dict[str, Any]]]) -> str:
    """Where a letter is that it must not be, or is not where it must be."""
    assert one.letter is not None  # noqa: S101 - the prepared ones
    reference = one.story.reference
    if reference is None:
        return "le relais ne l'a pas encore reçue"
    for doctor in people.DOCTORS:
        if doctor != one.letter.gp and any(
            _about(mail, one, reference) for mail in tour.office.mails[doctor.address]
        ):
            return f"elle est arrivée chez {doctor.name}, à qui elle n'est pas destinée"
    return (
        _undelivered(tour, one, one.letter, reference, shown)
        if one.letter.ends == "sent"
        else _unheld(tour, one)
    )


def _about(mail: Mail, one: Sent, reference: str) -> bool:
    text = mail.raw.decode("utf-8", "replace") + words_of(mail.message)
    return reference in text or one.patient.split()[-1] in text


def _undelivered(
    tour: Tour, one: Sent, letter: Letter, reference: str, shown: dict[Doctor, list[dict[str, Any]]]
) -> str:
    assert letter.gp is not None  # noqa: S101 - a letter that ends at a doctor's
    mails = [
        mail for mail in tour.office.mails[letter.gp.address] if f"Réf. {reference}" in words_of(mail.message)
    ]
    if not mails:
        return f"elle manque dans la messagerie du {letter.gp.name}"
    got, original = mails[0].message, message_from_bytes(letter.raw, policy=default)
    if _documents(got) != _documents(original):
        return "ses documents ne sont pas arrivés à l'identique"
    if words_of(original) not in words_of(got):
        return "son texte n'est pas arrivé à l'identique"
    alerts = [message for message in shown[letter.gp] if reference in message["text"]]
    if not alerts:
        return f"l'alerte manque sur le téléphone du {letter.gp.name}"
    if letter.patient.split()[-1].lower() in json.dumps(alerts, ensure_ascii=False).lower():
        return "l'alerte nomme le patient"
    if letter.urgent != ("URGENTE" in alerts[0]["text"]):
        return "l'alerte se trompe sur l'urgence"
    return "" if one.story.stages[3] == "done" else "le suivi ne sait pas qu'elle est partie"


def _documents(message: EmailMessage) -> list[tuple[str | None, object]]:
    return [(part.get_filename(), part.get_payload(decode=True)) for part in message.iter_attachments()]


def _unheld(tour: Tour, one: Sent) -> str:
    assert one.letter is not None  # noqa: S101 - the prepared ones
    if one.hold is None:
        return "elle devait être retenue"
    if one.hold not in one.letter.whys:
        return f"elle est retenue pour une autre raison : {one.hold}"
    told = [
        mail
        for mail in tour.office.mails[people.WARD]
        if one.message_id in str(mail.message.get("In-Reply-To"))
    ]
    if not any("retenue" in words_of(mail.message) for mail in told):
        return "le service n'est pas prévenu"
    return ""


async def _pressed(tour: Tour, one: Sent, phones: dict[Doctor, Phone]) -> str:
    """The doctor acknowledges on the phone; the follow-up must say so."""
    assert one.letter is not None  # noqa: S101 - the first prepared one
    assert one.letter.gp is not None  # noqa: S101 - which ends at a doctor's
    phone = phones[one.letter.gp]
    shown = await asyncio.to_thread(phone.messages)
    alert = next(message for message in shown if str(one.story.reference) in message["text"])
    await asyncio.to_thread(phone.press, alert["id"], alert["buttons"][0][0][1])
    end = asyncio.get_running_loop().time() + ALL
    while asyncio.get_running_loop().time() < end:
        await tour.look()
        if one.story.tone == "good":
            return ""
        await asyncio.sleep(LOOK)
    return f"le suivi dit encore : {one.story.now}"


def _print(one: Sent, problem: str, out: TextIO) -> None:
    print(f"▸ {one.title} – {one.patient}", file=out)
    for moment in one.moments.values():
        after = (one.seen[moment.key] - one.at).total_seconds()
        print(f"    {after:5.2f} s  {moment.text}", file=out)
    assert one.letter is not None  # noqa: S101 - the prepared ones
    where = (
        f"dans la messagerie du {one.letter.gp.name} et sur son téléphone"
        if one.letter.gp
        else "retenue, et le service le sait"
    )
    _verdict(problem, f"{where}, Réf. {one.story.reference}", out)


def _verdict(problem: str, well: str, out: TextIO) -> None:
    print(f"    ✗ {problem}\n" if problem else f"    ✓ {well}\n", file=out)
