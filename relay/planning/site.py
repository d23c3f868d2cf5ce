"""What planning knows of the site and of one arrival, and how people, desks and stays are named."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

from relay.model import (
    Absence,
    Context,
    Link,
    Professional,
    ThreadView,
    derived_id,
)
from relay.ports import Limits
from relay.tokens import THREAD_LENGTH, Tokens
from relay.wording import Words, doctor

if TYPE_CHECKING:
    from relay.config import AdapterTable, Desk, Settings, Ward
    from relay.model import Envelope, Notice, Recognised, Resolution
    from relay.reading import Document
    from rules.engine import Decision
    from rules.language import RuleSet, Target

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
class Arrival:
    """One arrival, read and understood. `people` are the professionals its targets may need, by RPPS."""

    envelope: Envelope
    document: Document
    recognised: Recognised
    table: AdapterTable
    resolution: Resolution | None = None
    decision: Decision | None = None
    facts: Mapping[str, object] = field(default_factory=dict)  # JSON: unknown is the string "unknown"
    people: Mapping[str, Professional] = field(default_factory=dict)
    fingerprint: str | None = None

    @property
    def ward(self) -> Ward | None:
        """The ward whose mailbox it came by."""
        return self.table.ward

    @property
    def notice(self) -> Notice:
        """What it says."""
        return self.recognised.notice

    @property
    def patient_may_be_named(self) -> bool:
        """Whether there is a patient to name at all."""
        return self.notice.patient is not None


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


def stay_keys(arrival: Arrival) -> tuple[str, ...]:
    """Every name under which the stay may be known; [0] is the one a thread would bear.

    With a number: `n:` the number, then `b:` the same patient and day of a stay known without number. Without:
    `b:` and `a:` the same patient and day of a stay known with a number. Different numbers never meet.
    """
    notice, ward = arrival.notice, arrival.ward
    stay = notice.stay
    facility = (ward.facility if ward else "") or (stay.facility if stay else None) or ""
    if stay is None:
        return ()
    keys: list[str] = []
    if stay.number and facility:
        keys.append("n:" + derived_id("stay", facility, folded(stay.number)))
    keys += [f"b:{key}" for key in _days(arrival, facility)]
    if not stay.number:
        keys += [f"a:{key}" for key in _days(arrival, facility)]
    return tuple(keys)


def own_stay_keys(arrival: Arrival) -> tuple[str, ...]:
    """The names a thread of this stay is to be found by later."""
    notice, ward = arrival.notice, arrival.ward
    stay = notice.stay
    if stay is None:
        return ()
    facility = (ward.facility if ward else "") or stay.facility or ""
    keys = [key for key in stay_keys(arrival) if key.startswith("n:")]
    mark = "a:" if keys else "b:"
    return (*keys, *(mark + key for key in _days(arrival, facility)))


def _days(arrival: Arrival, facility: str) -> tuple[str, ...]:
    """Certain patient, facility, day of discharge: one key for each name the patient is certainly known by."""
    resolution, stay = arrival.resolution, arrival.notice.stay
    if stay is None or stay.discharged is None or not facility or resolution is None:
        return ()
    if resolution.identity not in ("qualified", "validated"):
        return ()
    day = stay.discharged.date().isoformat()
    people = []
    patient = arrival.notice.patient
    if patient is not None and patient.ins and resolution.identity == "qualified":
        people.append(derived_id("ins", patient.ins[:13]))
    if resolution.registration is not None:
        registered = resolution.registration
        people.append(derived_id("ins", registered.ins[:13]) if registered.ins else registered.key)
    return tuple(dict.fromkeys(derived_id("day", facility, person, day) for person in people))


def joined(arrival: Arrival, context: Context) -> ThreadView | None:
    """The thread this arrival's stay has already; None when it has none."""
    numbered = next((key for key in stay_keys(arrival) if key.startswith("n:")), None)
    views = {view.thread.id: view for view in context.threads}
    for key in stay_keys(arrival):
        view = views.get(context.stays.get(key, ""))
        if view is None:
            continue
        known = view.thread.stay
        if numbered and known.startswith("n:") and known != numbered:
            continue  # different numbers are different stays
        if known.startswith("n:") and key.startswith("a:") and numbered:
            continue
        return view
    return None


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
            copies = target.who == "letter_recipients"
            named = [p.rpps for p in arrival.notice.recipients if p.rpps and (copies or not p.copy)]
            gps = {gp.rpps} if gp else set()
            chosen = [rpps for rpps in dict.fromkeys(named) if rpps not in gps]
            return tuple(
                r for rpps in (chosen if copies else chosen[:1]) for r in _professional(arrival, rpps)
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


def _professional(arrival: Arrival, rpps: str | None) -> tuple[Recipient, ...]:
    if not rpps:
        return ()
    person = arrival.people.get(rpps)
    boxes = [box.address for box in person.mailboxes if box.active] if person else []
    return (Recipient(f"rpps:{rpps}", name_of(person), boxes[0] if boxes else "", rpps),)
