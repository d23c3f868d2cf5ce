"""In charge of turning the relay's nouns into rows and back, sealing what must not stand there in plain."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from relay.errors import NotFound
from relay.model import (
    Absence,
    ButtonGrant,
    ChatFields,
    ChatKind,
    ChatRecipe,
    Delivery,
    DeliveryState,
    Hold,
    Link,
    MailRecipe,
    Participant,
    Patient,
    Pinned,
    Press,
    Purpose,
    Thread,
    ThreadState,
    Timer,
    Typed,
    Verb,
    Why,
)
from relay.store.transaction import Record, moment, moment_or_none, stamp, stamp_or_none

if TYPE_CHECKING:
    from relay.vault import Vault

NO_MAIL = MailRecipe(sender="", headers=(), text="", boundary="")
NO_CHAT = ChatRecipe(ChatFields(ChatKind.HELP))
"""What stands for a recipe that was left out."""


@cache
def json_of(kind: Any) -> TypeAdapter[Any]:
    """How a noun is written as JSON and read back."""
    return TypeAdapter(kind)


def _why(slug: str | None) -> Why | None:
    return None if slug is None else Why(slug)


# -------------------------------------------------------------------------------------------------- deliveries


def delivery_row(delivery: Delivery, vault: Vault, day: str, *, unfollowed: bool) -> Record:
    """A new copy, whatever its state."""
    recipe = delivery.recipe
    mail = isinstance(recipe, MailRecipe)
    address = delivery.address.encode()
    written = json_of(MailRecipe if mail else ChatRecipe).dump_json(recipe)
    return {
        "id": delivery.id,
        "lane": delivery.lane,
        "adapter": delivery.adapter,
        "to": delivery.to,
        "purpose": delivery.purpose.value,
        "medium": "mail" if mail else "chat",
        "envelope": delivery.envelope,
        "thread": delivery.thread,
        "reference": delivery.reference,
        "message_id": delivery.message_id,
        "box": box_of(delivery.address, vault) if mail else None,
        "edits": recipe.edits if isinstance(recipe, ChatRecipe) else None,
        "unfollowed": unfollowed,
        "state": delivery.state.value,
        "why": None if delivery.why is None else delivery.why.value,
        "attempts": delivery.attempts,
        "created_at": stamp(delivery.created_at),
        "due": stamp(delivery.not_before or delivery.created_at),
        "give_up_at": stamp_or_none(delivery.give_up_at),
        "sent_at": None,
        "remote": delivery.remote,
        "resent": False,
        "sealed": vault.seal(
            len(address).to_bytes(2, "big") + address + written, day=day, aad=f"delivery:{delivery.id}"
        ),
    }


def box_of(address: str, vault: Vault) -> str:
    """The blind index of a mailbox."""
    return vault.index("mailbox", address.lower())


def delivery_of(row: Any, vault: Vault, *, recipe: bool) -> Delivery:
    """The copy as stored.

    Where its content was destroyed, or cannot be read (damage, a newer release), address and recipe are empty:
    no sender takes such a copy, so it fails by itself and people are told, while the others leave.
    """
    mail = row.medium == "mail"
    address, content = "", None
    if row.sealed is not None:
        try:
            plain = vault.open(row.sealed, f"delivery:{row.id}")
            end = 2 + int.from_bytes(plain[:2], "big")
            if recipe:
                content = json_of(MailRecipe if mail else ChatRecipe).validate_json(plain[end:])
            address = plain[2:end].decode()
        except (NotFound, ValueError):  # pydantic's errors are ValueErrors, and they quote the content
            pass
    return Delivery(
        id=row.id,
        adapter=row.adapter,
        to=row.to,
        address=address,
        purpose=Purpose(row.purpose),
        recipe=content or (NO_MAIL if mail else NO_CHAT),
        created_at=moment(row.created_at),
        envelope=row.envelope,
        thread=row.thread,
        reference=row.reference,
        message_id=row.message_id,
        state=DeliveryState(row.state),
        why=_why(row.why),
        attempts=row.attempts,
        not_before=moment_or_none(row.due),
        give_up_at=moment_or_none(row.give_up_at),
        remote=row.remote,
    )


# ----------------------------------------------------------------------------------------------------- threads


@dataclass(frozen=True, slots=True)
class _Sealed:
    """What of a thread names people."""

    participants: tuple[Participant, ...] = ()
    about: str = ""
    whose: Patient | None = None


def thread_row(thread: Thread, vault: Vault, day: str) -> Record:
    """All columns but `patient`."""
    inside = _Sealed(thread.participants, thread.about, thread.whose)
    sealed = json_of(_Sealed).dump_json(inside, exclude_defaults=True)
    return {
        "id": thread.id,
        "reference": thread.reference,
        "state": thread.state.value,
        "opened_at": stamp(thread.opened_at),
        "ward": thread.ward,
        "facility": thread.facility,
        "stay": thread.stay,
        "letter": thread.letter,
        "gp": thread.gp,
        "urgency": thread.urgency,
        "owner": thread.owner,
        "desk": thread.desk,
        "level": thread.level,
        "revision": thread.revision,
        "started_at": stamp_or_none(thread.started_at),
        "counts_from": stamp_or_none(thread.counts_from),
        "deadline": stamp_or_none(thread.deadline),
        "snoozed_until": stamp_or_none(thread.snoozed_until),
        "followup": None if thread.followup is None else json_of(Pinned).dump_json(thread.followup).decode(),
        "closed_at": stamp_or_none(thread.closed_at),
        "closed_reason": thread.closed_reason,
        "acknowledged_by": thread.acknowledged_by,
        "acknowledged_at": stamp_or_none(thread.acknowledged_at),
        "version": thread.version,
        "sealed": vault.seal(sealed, day=day, aad=f"thread:{thread.id}"),
    }


def thread_of(row: Any, vault: Vault) -> Thread:
    """The thread as stored. Where its content was destroyed, nobody takes part."""
    try:
        plain = vault.open(row.sealed, f"thread:{row.id}")
    except NotFound:
        inside = _Sealed()
    else:
        inside = json_of(_Sealed).validate_json(plain)
    return Thread(
        id=row.id,
        reference=row.reference,
        state=ThreadState(row.state),
        opened_at=moment(row.opened_at),
        ward=row.ward,
        facility=row.facility,
        stay=row.stay,
        letter=row.letter,
        gp=row.gp,
        urgency=row.urgency,
        owner=row.owner,
        desk=row.desk,
        level=row.level,
        revision=row.revision,
        started_at=moment_or_none(row.started_at),
        counts_from=moment_or_none(row.counts_from),
        deadline=moment_or_none(row.deadline),
        snoozed_until=moment_or_none(row.snoozed_until),
        followup=None if row.followup is None else json_of(Pinned).validate_json(row.followup),
        closed_at=moment_or_none(row.closed_at),
        closed_reason=row.closed_reason,
        participants=inside.participants,
        about=inside.about,
        whose=inside.whose,
        version=row.version,
        acknowledged_by=row.acknowledged_by,
        acknowledged_at=moment_or_none(row.acknowledged_at),
    )


def timer_of(row: Any) -> Timer:
    """A waiting timer."""
    return Timer(row.thread, row.kind, row.level, row.revision, moment(row.due))


def grant_row(grant: ButtonGrant) -> Record:
    """What a nonce stands for."""
    return {
        "nonce": grant.nonce,
        "thread": grant.thread,
        "person": grant.person,
        "account": grant.account,
        "verb": grant.verb.value,
        "delivery": grant.delivery,
        "choice": grant.choice,
        "expires": stamp(grant.expires),
        "used_at": stamp_or_none(grant.used_at),
    }


def grant_of(row: Any) -> ButtonGrant:
    """What a nonce stands for."""
    return ButtonGrant(
        nonce=row.nonce,
        thread=row.thread,
        person=row.person,
        account=row.account,
        verb=Verb(row.verb),
        delivery=row.delivery,
        expires=moment(row.expires),
        choice=row.choice,
        used_at=moment_or_none(row.used_at),
    )


# ------------------------------------------------------------------------------------------------------- holds


def hold_row(hold: Hold, vault: Vault, day: str) -> Record:
    """A hold that is not ended."""
    names = json_of(tuple[str, ...]).dump_json(hold.candidates)
    return {
        "id": hold.id,
        "envelope": hold.envelope,
        "why": hold.why.value,
        "reason": hold.reason,
        "detail": hold.detail,
        "since": stamp(hold.since),
        "rule": hold.rule,
        "desk": hold.desk,
        "thread": hold.thread,
        "sealed": vault.seal(names, day=day, aad=f"hold:{hold.id}") if hold.candidates else None,
        "ended_at": None,
    }


def hold_of(row: Any, vault: Vault) -> Hold:
    """The hold as stored. Where its content was destroyed, there are no candidates."""
    candidates: tuple[str, ...] = ()
    if row.sealed is not None:
        try:
            candidates = json_of(tuple[str, ...]).validate_json(vault.open(row.sealed, f"hold:{row.id}"))
        except NotFound:
            candidates = ()
    return Hold(
        id=row.id,
        envelope=row.envelope,
        why=Why(row.why),
        reason=row.reason,
        since=moment(row.since),
        rule=row.rule,
        desk=row.desk,
        candidates=candidates,
        thread=row.thread,
        detail=row.detail,
    )


# ------------------------------------------------------------------------------------------------------ people


def link_of(row: Any) -> Link:
    """A chat account of a professional."""
    return Link(row.rpps, row.adapter_kind, row.chat, row.account, row.role, moment(row.linked_at))


def absence_of(row: Any) -> Absence:
    """An absence."""
    return Absence(row.rpps, date.fromisoformat(row.since), date.fromisoformat(row.until), row.substitute)


def event_bytes(event: Press | Typed) -> bytes:
    """A chat event with its kind before it."""
    if isinstance(event, Press):
        return b"press " + bytes(json_of(Press).dump_json(event))
    return b"typed " + bytes(json_of(Typed).dump_json(event))


def event_of(written: bytes) -> Press | Typed:
    """The event `event_bytes` wrote."""
    kind, _, text = written.partition(b" ")
    event: Press | Typed = (json_of(Press) if kind == b"press" else json_of(Typed)).validate_json(text)
    return event
