"""Copies: the deliveries of mail and chat, written whole, so that the same plan gives the same bytes for ever."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final, Literal

from relay.model import (
    Button,
    ButtonGrant,
    ChatFields,
    ChatKind,
    ChatRecipe,
    Delivery,
    DeliveryState,
    Link,
    MailRecipe,
    Purpose,
    Thread,
    ThreadState,
    ThreadView,
    Verb,
    Why,
    delivery_id,
)
from relay.planning.site import CHAT_KINDS, Site, one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from relay.config import AdapterTable
    from relay.wording import Mail

PRESSABLE_FOR: Final = timedelta(days=30)
_ON_ITS_WAY: Final = frozenset(
    {DeliveryState.QUEUED, DeliveryState.SENDING, DeliveryState.DEFERRED, DeliveryState.HELD}
)
LEFT: Final = frozenset(
    {
        DeliveryState.IN_FLIGHT,
        DeliveryState.AMBIGUOUS,
        DeliveryState.SENT,
        DeliveryState.ACCEPTED,
        DeliveryState.SEEN,
    }
)
"""States in which the other side has the copy, or may have it."""

MAIN: Final = (
    ((Verb.ACK, ""),),
    ((Verb.CALL_ME, ""), (Verb.MORE, "snooze")),
    ((Verb.REFUSE, ""), (Verb.MORE, "ask")),
)
SECOND: Final = {
    "ask": (
        ((Verb.CALL_ME, "call"), (Verb.ASK, "treatment")),
        ((Verb.ASK, "appointment"), (Verb.ASK, "result")),
    ),
    "snooze": (((Verb.SNOOZE, "1h"), (Verb.SNOOZE, "tomorrow"), (Verb.SNOOZE, "monday")),),
}


@dataclass(frozen=True, slots=True)
class To:
    """Whom a mail is for. `voice` is whom the relay expects to hear from at the reply address."""

    key: str
    address: str
    voice: str = ""


def earlier(view: ThreadView | None, key: str, address: str) -> tuple[str, ...]:
    """Message-IDs of our earlier mails of that thread to that person, oldest first; first and last ten."""
    if view is None:
        return ()
    sent = sorted(
        (d for d in view.deliveries if d.to == key and d.address == address and d.message_id),
        key=lambda d: (d.created_at, d.id),
    )
    ids = [d.message_id for d in sent if d.message_id and d.state is not DeliveryState.CANCELLED]
    return tuple(ids[:1] + ids[1:][-9:])


def mail(
    site: Site,
    to: To,
    purpose: Purpose,
    words: Mail,
    at: datetime,
    *,
    seed: str,
    thread: str,
    reference: str,
    tracked: bool = True,
    ordinal: int = 0,
    envelope: str | None = None,
    table: AdapterTable | None = None,
    name: str = "",
    original: str | None = None,
    carries: Literal["documents", "text", "none"] = "none",
    answers: str | None = None,
    references: Sequence[str] = (),
    receipts: bool = False,
    extra: Iterable[tuple[str, str]] = (),
    not_before: datetime | None = None,
) -> Delivery | None:
    """One mail. `seed` names its cause: the same cause gives the same id. None when there is no mail adapter.

    `tracked` False: the thread named in its Message-ID does not exist yet (a hold's note). An address outside
    the white list gives a copy that is cancelled, with the reason: no mail ever leaves for another domain.
    """
    table = table or site.mail_adapter()
    if table is None or table.sender is None:
        return None
    made = delivery_id(f"{seed}/{to.address}", to.key, purpose.value, ordinal)
    voice = to.voice or to.key
    message_id = site.tokens.message_id(thread, voice, made)
    reply = site.tokens.reply_address(table.reply or table.sender, thread, voice)
    local = at.astimezone(site.settings.zone)
    shown = one_line(name or site.settings.name).replace("\\", "").replace('"', "'")
    headers = [
        ("From", f'"{shown}" <{table.sender}>'),
        ("To", f"<{one_line(to.address)}>"),
        ("Subject", one_line(words.subject)),
        ("Date", format_datetime(local.replace(microsecond=0))),
        ("Message-ID", message_id),
    ]
    chain = list(dict.fromkeys((*references, *((answers,) if answers else ()))))
    if answers or chain:
        headers.append(("In-Reply-To", one_line(answers or chain[-1])))
        headers.append(("References", one_line(" ".join(chain))))
    headers.append(("Reply-To", f"<{reply}>"))
    if receipts:
        # RFC 8098 §2.1: compared with Return-Path, which is the same address.
        headers.append(("Disposition-Notification-To", f"<{reply}>"))
    headers += [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "All")]
    headers += [(name, one_line(value)) for name, value in extra]
    allowed = site.allowed(to.address)
    return Delivery(
        id=made,
        adapter=table.name,
        to=to.key,
        address=to.address,
        purpose=purpose,
        recipe=MailRecipe(
            sender=reply,
            headers=tuple(headers),
            text=words.text,
            boundary=site.tokens.boundary(made),
            original=original,
            carries=carries,
        ),
        created_at=at,
        envelope=envelope,
        thread=thread if tracked else None,
        reference=reference,
        message_id=message_id,
        state=DeliveryState.QUEUED if allowed else DeliveryState.CANCELLED,
        why=None if allowed else Why.OUTSIDE_DOMAIN,
        not_before=not_before,
        give_up_at=(not_before or at) + site.settings.give_up,
    )


# --------------------------------------------------------------------------------------------------------- chat


def _buttons(
    site: Site,
    rows: Iterable[Iterable[tuple[Verb, str]]],
    delivery: str,
    thread: str,
    person: str,
    account: str,
    at: datetime,
) -> tuple[tuple[tuple[Button, ...], ...], tuple[ButtonGrant, ...]]:
    """Rows of buttons on a copy, and what each of them grants to that account."""
    made: list[tuple[Button, ...]] = []
    grants: list[ButtonGrant] = []
    for row in rows:
        buttons = []
        for verb, choice in row:
            nonce = site.tokens.nonce(delivery, verb.value, choice)
            buttons.append(Button(verb, nonce, choice))
            grants.append(
                ButtonGrant(nonce, thread, person, account, verb, delivery, at + PRESSABLE_FOR, choice)
            )
        made.append(tuple(buttons))
    return tuple(made), tuple(grants)


def fields(
    site: Site, thread: Thread, kind: ChatKind, *, verb: Verb | None = None, at: datetime | None = None
) -> ChatFields:
    """The chat-safe side of a thread, and nothing else of it."""
    return ChatFields(
        kind=kind,
        reference=thread.reference,
        urgent=thread.urgency == "urgent",
        verb=verb,
        at=at,
        language=site.settings.language,
        timezone=site.settings.timezone,
    )


def alert(
    site: Site,
    thread: Thread,
    adapter: str,
    link: Link,
    kind: ChatKind,
    purpose: Purpose,
    at: datetime,
    *,
    seed: str,
    ordinal: int = 0,
    envelope: str | None = None,
    arrived: datetime | None = None,
    not_before: datetime | None = None,
    tracked: bool = True,
) -> tuple[Delivery, tuple[ButtonGrant, ...]]:
    """One message with buttons on one account of a person. Silent unless the letter is urgent.

    `arrived`: when its letter came, from which the time to the alert is measured.
    """
    key = f"rpps:{link.rpps}"
    made = delivery_id(f"{seed}/{adapter}/{link.chat}", key, purpose.value, ordinal)
    rows, grants = _buttons(site, MAIN, made, thread.id, key, link.account, at)
    shown = replace(fields(site, thread, kind), arrived=arrived)
    return (
        Delivery(
            id=made,
            adapter=adapter,
            to=key,
            address=link.chat,
            purpose=purpose,
            recipe=ChatRecipe(shown, rows, silent=not shown.urgent and kind is ChatKind.ALERT),
            created_at=at,
            envelope=envelope,
            thread=thread.id if tracked else None,
            reference=thread.reference,
            not_before=not_before,
            give_up_at=(not_before or at) + site.settings.give_up,
        ),
        grants,
    )


def shown(view: ThreadView, site: Site) -> tuple[Delivery, ...]:
    """The chat messages of a thread that people may still see: alerts, reminders, pointers to answers."""
    return tuple(
        d
        for d in view.deliveries
        if d.purpose in (Purpose.ALERT, Purpose.REMINDER, Purpose.ANSWER)
        and d.state in LEFT
        and (table := site.settings.adapters.get(d.adapter)) is not None
        and table.kind in CHAT_KINDS
    )


def edit(
    site: Site,
    thread: Thread,
    message: Delivery,
    kind: ChatKind,
    at: datetime,
    *,
    seed: str,
    verb: Verb | None = None,
    when: datetime | None = None,
    rows: tuple[tuple[Button, ...], ...] = (),
) -> Delivery | None:
    """Change a chat message that was shown. None where the platform cannot."""
    if not site.limits_of(message.adapter).edits:
        return None
    return Delivery(
        id=delivery_id(f"{seed}/{message.id}", message.to, Purpose.EDIT.value, 0),
        adapter=message.adapter,
        to=message.to,
        address=message.address,
        purpose=Purpose.EDIT,
        recipe=ChatRecipe(
            fields(site, thread, kind, verb=verb, at=when), rows, edits=message.id, silent=True
        ),
        created_at=at,
        thread=thread.id,
        reference=thread.reference,
        give_up_at=at + site.settings.give_up,
        remote=message.remote,
    )


def edits(
    site: Site,
    view: ThreadView,
    thread: Thread,
    kind: ChatKind,
    at: datetime,
    *,
    seed: str,
    verb: Verb | None = None,
    when: datetime | None = None,
    only: str | None = None,
) -> tuple[Delivery, ...]:
    """Change every message of a thread on every account; `only` narrows it to one person's."""
    made = (
        edit(site, thread, message, kind, at, seed=seed, verb=verb, when=when)
        for message in shown(view, site)
        if only is None or message.to == only
    )
    return tuple(each for each in made if each is not None)


def second_row(
    site: Site, thread: Thread, message: Delivery, account: str, choice: str, at: datetime, *, seed: str
) -> tuple[Delivery | None, tuple[ButtonGrant, ...]]:
    """The same message with a row of choices below its buttons; the buttons above stay what they were."""
    rows = tuple(tuple(pair for pair in row if pair != (Verb.MORE, choice)) for row in MAIN)
    more = SECOND.get(choice, ())
    buttons, grants = _buttons(site, (*rows, *more), message.id, thread.id, message.to, account, at)
    known = {(verb, coded) for row in rows for verb, coded in row}
    kind = ChatKind.ALERT if message.purpose is Purpose.ALERT else ChatKind.REMINDER
    if message.purpose is Purpose.ANSWER:
        kind = ChatKind.ANSWERED
    elif message.purpose is Purpose.REMINDER and thread.state is ThreadState.AWAITING_GP:
        kind = ChatKind.ANSWER_WAITS
    changed = edit(site, thread, message, kind, at, seed=seed, rows=buttons)
    return changed, tuple(grant for grant in grants if (grant.verb, grant.choice) not in known)


def may_stand(copy: Delivery) -> bool:
    """Whether the copy stands in somebody's mailbox, or may: also one that failed after its last byte, or on the
    other side's own software."""
    lost = copy.state is DeliveryState.FAILED and copy.why in (Why.LOST_AFTER_SEND, Why.KO)
    return lost or copy.state in LEFT


def on_its_way(view: ThreadView) -> tuple[Delivery, ...]:
    """Copies that can still be stopped."""
    return tuple(d for d in view.deliveries if d.state in _ON_ITS_WAY)
