"""What planning knows of the site and of one arrival, and how people, desks and stays are named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from relay.identity import ins_of, somebody_else
from relay.model import (
    Absence,
    Context,
    Link,
    Patient,
    Person,
    Professional,
    ThreadView,
    derived_id,
)
from relay.ports import Limits
from relay.resolution import is_called, same_stay
from relay.tokens import THREAD_LENGTH, Tokens
from relay.wording import Words, doctor

if TYPE_CHECKING:
    from relay.config import AdapterTable, Desk, Settings, Ward
    from relay.model import Envelope, Notice, Recognised, Resolution
    from relay.reading import Document
    from relay.resolution import StayKeys
    from rules.engine import Decision
    from rules.language import Facts, RuleSet, Target

CHAT_KINDS: Final = frozenset({"telegram", "matrix", "webchat"})


def _nobody(rota: str, at: datetime) -> str | None:
    return None


@dataclass(frozen=True, slots=True)
class Site:
    """The configuration, the rules in force, and what the senders can carry. One object, swapped as a whole.

    `on_duty` answers the RPPS a rota names at an instant.
    """

    settings: Settings
    rules: RuleSet | None
    tokens: Tokens
    limits: Mapping[str, Limits] = field(default_factory=dict)
    on_duty: Callable[[str, datetime], str | None] = _nobody

    @property
    def words(self) -> Words:
        """The site's language and time zone."""
        return Words(self.settings.language, self.settings.timezone)

    @property
    def desk(self) -> Desk | None:
        """The desk of last resort: the default's, else the first there is."""
        if self.rules is not None:
            target = self.rules.targets.get(self.rules.default.hold)
            desk = self.settings.desks.get(target.desk) if target and target.desk else None
            if desk:
                return desk
        return next(iter(self.settings.desks.values()), None)

    def desk_named(self, name: str | None) -> Desk | None:
        """That desk, or the one of last resort."""
        return (self.settings.desks.get(name) if name else None) or self.desk

    def limits_of(self, adapter: str) -> Limits:
        """What a sender can carry; its table's figures before it was ever connected."""
        table = self.settings.adapters.get(adapter)
        known = self.limits.get(adapter)
        if known is not None:
            return known
        chat = table is not None and table.kind in CHAT_KINDS
        return Limits(
            max_bytes=table.max_bytes if table else 10_485_760,
            buttons=chat,
            edits=chat,
            confidential=not chat,
        )

    def is_ours(self, text: str) -> bool:
        """Whether that Message-ID or that reply address was signed by us."""
        return self.tokens.read_message_id(text) is not None or self.tokens.read_token(text) is not None

    def allowed(self, address: str) -> bool:
        """Whether mail may leave for that address: the white list of domains, for everybody alike."""
        domain = address.rpartition("@")[2].lower()
        return bool(domain) and any(fnmatchcase(domain, pattern.lower()) for pattern in self.settings.domains)

    def mail_adapter(self, via: Sequence[str] | None = None) -> AdapterTable | None:
        """The first of `via` that is configured and sends mail; without `via`, the site's mail adapter."""
        if via is None:
            return self.settings.mail
        for name in via:
            table = self.settings.adapters.get(name)
            if table is not None and table.kind not in CHAT_KINDS:
                return table
        return None

    def chat_adapter(self, via: Sequence[str], links: Sequence[Link]) -> tuple[str, tuple[Link, ...]] | None:
        """The first of `via` that is a chat for which one of `links` exists, with those links."""
        if self.settings.chat_agreed is None:
            return None
        for name in via:
            table = self.settings.adapters.get(name)
            if table is None or table.kind not in CHAT_KINDS:
                continue
            fitting = tuple(link for link in links if link.adapter_kind == table.kind)
            if fitting:
                return name, fitting
        return None


SiteSource = Callable[[], Site]
"""Answers the site in force now; a reload swaps it between two messages."""


@dataclass(frozen=True, slots=True)
class Correction:
    """What a person said about a held letter. `gp` and `patient` overrule what letter and registry say.

    `fields` are named as `recognise` names them: "registered_gp.rpps", "patient.birth_date". `reject` True: the
    ward took its letter back while it was held. `text`: the whole reply, which must be about that letter.
    """

    by: str
    hold: str
    gp: str | None = None
    patient: str | None = None
    fields: Mapping[str, str] | None = None
    envelope: str | None = None  # the reply that brought it
    reject: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One arrival, read and understood. `people` are the professionals its targets may need, by RPPS.

    `draw` counts up when the reference was taken (errors.Clash); `released` is what a person said of a hold.
    """

    envelope: Envelope
    document: Document
    recognised: Recognised
    fingerprint: str | None = None
    resolution: Resolution | None = None
    stay: StayKeys | None = None
    facts: Facts = field(default_factory=dict)
    decision: Decision | None = None
    table: AdapterTable | None = None
    listed: bool = True  # its sender may send letters there
    draw: int = 0
    released: Correction | None = None
    people: Mapping[str, Professional] = field(default_factory=dict)
    again: str = ""  # the thread in which its letter left before and did not arrive

    @property
    def ward(self) -> Ward | None:
        """The ward whose mailbox it came by."""
        return self.table.ward if self.table else None

    @property
    def notice(self) -> Notice:
        """What it says."""
        return self.recognised.notice


# ------------------------------------------------------------------------------------------------------ names


def thread_id(envelope: str, *more: str) -> str:
    """The id of the thread that an arrival opens; a hold bears the same, so its reference stays after release."""
    return derived_id("thread", envelope, *more)[:THREAD_LENGTH]


def folded(text: str) -> str:
    """Upper case without accents, apart from nothing else."""
    plain = unicodedata.normalize("NFKD", text.replace("œ", "oe").replace("Œ", "OE").replace("æ", "ae"))
    return "".join(c for c in plain if not unicodedata.combining(c)).upper()


def name_of(person: Professional | None) -> str:
    """« Dr Ambre »; « Dr » stands alone for somebody the directory does not name."""
    return (doctor(person) if person else "") or "Dr"


def one_line(text: str) -> str:
    """A header's value: no line break, no control character may pass."""
    return re.sub(r"[\x00-\x1f\x7f\u2028\u2029]+", " ", text).strip()


# ------------------------------------------------------------------------------------------------------- stays


def patient_of(arrival: Arrival) -> Patient | None:
    """Whom the letter is about, as its thread keeps it: the strict traits as stated, and the INS."""
    stated = arrival.notice.patient
    if stated is None:
        return None
    return Patient(
        ins=patient_ins(arrival),
        birth_name=stated.birth_name,
        used_name=stated.used_name,
        given_names=stated.given_names,
        sex=stated.sex,
        birth_date=stated.birth_date,
        order_unsure=stated.order_unsure,
    )


def patient_ins(arrival: Arrival) -> str | None:
    """The patient's INS without spaces; the registry's, which has its key, before the letter's."""
    registered = arrival.resolution.registration if arrival.resolution else None
    for person in (registered, arrival.notice.patient):
        found = ins_of(person) if person else None
        if found is not None:
            return found.value
    return None


def joined(arrival: Arrival, context: Context) -> ThreadView | None:
    """The thread this arrival's stay has already; None when it has none, or only one of another facility."""
    views = {view.thread.id: view for view in context.threads}
    if arrival.stay is None:
        return views.get(arrival.again)
    stays = {name: view.thread.stay for name, view in views.items()}
    found = views.get(same_stay(arrival.stay, context.stays, stays) or arrival.again)
    if arrival.again and found is not None and found.thread.id != arrival.again:
        return None
    ours = arrival.ward.facility if arrival.ward else ""
    if found is not None and ours and found.thread.facility not in ("", ours):
        return None
    return None if found is not None and found.thread.id in strangers(arrival, context) else found


def stay_of_another(arrival: Arrival, context: Context) -> bool:
    """Whether the stay this arrival names is already that of another patient: one of the two numbers is wrong."""
    if arrival.stay is None:
        return False
    others = strangers(arrival, context)
    return any(context.stays.get(key) in others for key in arrival.stay.asked)


def strangers(arrival: Arrival, context: Context) -> frozenset[str]:
    """The threads that are another patient's: by the INS, or by the traits where either letter has none."""
    who = patient_of(arrival)
    if who is None:
        return context.strangers
    return context.strangers.union(
        view.thread.id
        for view in context.threads
        if view.thread.whose is not None and somebody_else(who, view.thread.whose)
    )


def own_stay(arrival: Arrival, context: Context, thread: str) -> str:
    """What the thread is to bear as its stay; "" where another thread stands under that name."""
    primary = arrival.stay.primary if arrival.stay else ""
    return primary if context.stays.get(primary) in (None, thread) else ""


def further_stays(arrival: Arrival, context: Context, thread: str) -> tuple[str, ...]:
    """The names later arrivals may find that stay by."""
    if arrival.stay is None:
        return ()
    keys = arrival.stay.registered(context.stays, thread)
    return tuple(key for key in keys if context.stays.get(key) in (None, thread))


# ------------------------------------------------------------------------------------------------------ people


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody a target means: a role key, how others see them, the mailbox, and who holds the phone."""

    key: str
    name: str = ""
    address: str = ""
    rpps: str = ""
    reads_content: bool = True  # False: a desk that sees references only


def away(absences: Sequence[Absence], rpps: str, at: datetime, site: Site) -> str | None:
    """The substitute of somebody who is away on that local day, if one is named."""
    day = at.astimezone(site.settings.zone).date()
    return next(
        (a.substitute for a in absences if a.rpps == rpps and a.since <= day <= a.until and a.substitute),
        None,
    )


def people_meant(site: Site, arrival: Arrival, context: Context, at: datetime) -> frozenset[str]:
    """The RPPS, beside the GP's, of everybody whom a target of the rules may mean for this notice."""
    if site.rules is None or arrival.resolution is None:
        return frozenset()
    meant: set[str | None] = set()
    gp = arrival.resolution.professional
    if gp is not None and context.absences:
        meant.add(away(context.absences, gp.rpps, at, site))
    for target in site.rules.targets.values():
        if target.rota is not None:
            meant.add(site.on_duty(target.rota, at))
        elif target.who in ("referring_doctor", "letter_recipients"):
            meant.update(person.rpps for person in _named(arrival))
    return frozenset(rpps for rpps in meant if rpps) - {gp.rpps if gp else ""}


def recipients(
    site: Site, target: Target, arrival: Arrival, context: Context, at: datetime
) -> tuple[Recipient, ...]:
    """Who a target is, for this notice. An empty address means that none is known."""
    resolution, registration = arrival.resolution, None
    gp = resolution.professional if resolution else None
    if resolution:
        registration = resolution.registration
    if target.desk is not None:
        desk = site.settings.desks.get(target.desk)
        if desk is None:
            return ()
        return (Recipient(f"desk:{desk.name}", desk.name, desk.mail, reads_content=desk.sees == "document"),)
    if target.rota is not None:
        return _professional(arrival, site.on_duty(target.rota, at))
    match target.who:
        case "registered_gp":
            if gp is None:
                return ()
            mailbox = (resolution.mailbox if resolution else None) or ""
            return (Recipient(f"rpps:{gp.rpps}", name_of(gp), mailbox, gp.rpps),)
        case "practice":
            if gp is None:
                return ()
            boxes = [box for box in gp.mailboxes if box.active and box.kind in ("CAB", "ORG")]
            return (Recipient(f"rpps:{gp.rpps}", name_of(gp), boxes[0].address if boxes else "", gp.rpps),)
        case "substitute":
            return _professional(arrival, away(context.absences, gp.rpps, at, site) if gp else None)
        case "referring_doctor" | "letter_recipients":
            copies, sender = target.who == "letter_recipients", arrival.notice.referring_doctor
            named = [p.rpps for p in arrival.notice.recipients if p.rpps and (copies or not p.copy)]
            if sender is not None and not copies:  # named without a number, they are found by nobody
                named = [sender.rpps] if sender.rpps else []
            gps = {gp.rpps} if gp else set()
            chosen = [rpps for rpps in dict.fromkeys(named) if rpps not in gps]
            return tuple(
                r for rpps in (chosen if copies else chosen[:1]) for r in _named_in_letter(arrival, rpps)
            )
        case "sending_ward":
            ward = arrival.ward
            return (Recipient(f"ward:{ward.slug}", ward.name, ward.reply_to),) if ward else ()
        case "pharmacist":
            return (Recipient("pharmacist", "", registration.pharmacist_mss if registration else ""),)
        case "nurse":
            return (Recipient("nurse", "", registration.nurse_mss if registration else ""),)
        case "home_hospitalisation":
            return (Recipient("had", "", registration.had_mss if registration else ""),)
        case "patient":
            return (Recipient("patient", "", registration.patient_mss if registration else ""),)
        case _:
            return ()


def _named(arrival: Arrival) -> tuple[Person, ...]:
    """Whom the letter names beside the GP."""
    sender = arrival.notice.referring_doctor
    return (*arrival.notice.recipients, *([sender] if sender is not None else []))


def _named_in_letter(arrival: Arrival, rpps: str) -> tuple[Recipient, ...]:
    """Somebody the letter names: without an address where its name and its number are two people's, or they have left."""
    person = arrival.people.get(rpps)
    said = [each for each in _named(arrival) if each.rpps == rpps]
    sure = person is not None and person.active and all(is_called(each, person) for each in said)
    return tuple(each if sure else replace(each, address="") for each in _professional(arrival, rpps))


def _professional(arrival: Arrival, rpps: str | None) -> tuple[Recipient, ...]:
    if not rpps:
        return ()
    person = arrival.people.get(rpps)
    boxes = [box.address for box in person.mailboxes if box.active] if person else []
    return (Recipient(f"rpps:{rpps}", name_of(person), boxes[0] if boxes else "", rpps),)
