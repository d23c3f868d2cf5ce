"""A store on each of the two databases, and invented rows to put into it."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay.model import (
    CROCKFORD,
    AuditEvent,
    Batch,
    Button,
    ButtonGrant,
    ChatFields,
    ChatKind,
    ChatRecipe,
    DecisionRecord,
    Delivery,
    Envelope,
    EnvelopeState,
    Hold,
    LadderStep,
    MailRecipe,
    Participant,
    Pinned,
    Plan,
    Purpose,
    Thread,
    ThreadState,
    Timer,
    Verb,
    Why,
    delivery_id,
    derived_id,
    envelope_id,
)
from relay.store import Store
from relay.vault import FileKeyRing, Vault
from tests.servers.postgres import Postgres

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
GP = "rpps:10000000001"
GP_ADDRESS = "dr.ambre@medecin.mssante.fr"
FACILITY = "450000088"


@dataclass
class HandClock:
    """Stands still until a test turns it."""

    at: datetime = NOON

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOON).total_seconds()

    async def sleep(self, seconds: float) -> None:
        self.turn(seconds=seconds)

    def turn(self, **span: float) -> None:
        self.at += timedelta(**span)


@dataclass
class Place:
    """Where a database is; every `opened` is another process as far as the store can tell."""

    kind: str
    url: str
    vault: Vault
    clock: HandClock = field(default_factory=HandClock)

    @asynccontextmanager
    async def opened(self, node: str = "n1", url: str | None = None) -> AsyncIterator[Store]:
        store = await Store.open(url or self.url, self.vault, clock=self.clock, node=node)
        try:
            await store.recover()
            yield store
        finally:
            await store.close()


def in_another_loop(work: Coroutine[Any, Any, None]) -> None:
    """Run to the end, from code that has no loop or may not use it."""
    thread = threading.Thread(target=asyncio.run, args=(work,))
    thread.start()
    thread.join()


async def _prepare(url: str, vault: Vault) -> None:
    await (await Store.open(url, vault, clock=HandClock(), node="template")).close()


@pytest.fixture(scope="session")
def first_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key ring that the templates are made with; a database opens with no other, so tests copy it."""
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    FileKeyRing.create(file)
    return file


@pytest.fixture(scope="session")
def empty_sqlite(tmp_path_factory: pytest.TempPathFactory, first_keys: Path) -> Path:
    """A new SQLite file with its tables; tests copy it."""
    folder = tmp_path_factory.mktemp("sqlite")
    vault = Vault(FileKeyRing(first_keys))
    in_another_loop(_prepare(f"sqlite:///{folder}/relay.db", vault))
    return folder / "relay.db"


@pytest.fixture(params=["sqlite", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path, first_keys: Path) -> Iterator[Place]:
    """An empty database of its own for each test."""
    shutil.copy(first_keys, tmp_path / "keys.json")
    vault = Vault(FileKeyRing(tmp_path / "keys.json"))
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("empty_sqlite"), tmp_path / "relay.db")
        yield Place("sqlite", f"sqlite:///{tmp_path}/relay.db", vault)
        return
    postgres: Postgres = request.getfixturevalue("postgres")
    url = postgres.fresh(lambda url: in_another_loop(_prepare(url, vault)), "store")
    yield Place("postgres", url, vault)
    postgres.drop(url)


@pytest.fixture
async def store(place: Place) -> AsyncIterator[Store]:
    async with place.opened() as opened:
        yield opened


# ------------------------------------------------------------------------------------------------------ rows


def envelope(number: int, text: str = "lettre", account: str = "imap/cardiologie") -> Envelope:
    ref = str(number)
    return Envelope(
        id=envelope_id(account, ref),
        adapter="cardiologie",
        account=account,
        ref=ref,
        received_at=NOON + timedelta(milliseconds=number),
        raw=f"{text} {number}".encode(),
    )


def batch(*numbers: int, account: str = "imap/cardiologie") -> Batch:
    return Batch(account, tuple(envelope(each, account=account) for each in numbers), str(max(numbers)))


def reference(number: int) -> str:
    digits = ""
    for _ in range(8):
        number, rest = divmod(number, 32)
        digits = CROCKFORD[rest] + digits
    return f"{digits[:4]}-{digits[4:]}"


def thread(number: int, **changes: Any) -> Thread:
    made = Thread(
        id=derived_id("thread", str(number)),
        reference=reference(number),
        state=ThreadState.AWAITING_ACK,
        opened_at=NOON,
        ward="cardiologie",
        facility=FACILITY,
        stay=f"stay-{number}",
        letter=envelope(number).id,
        gp=GP,
        followup=Pinned("standard", "ack", (LadderStep("24h", "ouvre", hand_to="sorties"),), "24h", "ouvre"),
        participants=(
            Participant(GP, GP_ADDRESS, "Dr Ambre"),
            Participant("ward:cardiologie", "cardiologie@chr-exemple.mssante.fr", "Cardiologie"),
        ),
    )
    return replace(made, **changes)


def mail(number: int, purpose: Purpose = Purpose.LETTER, ordinal: int = 0, **changes: Any) -> Delivery:
    of, owner = envelope(number).id, derived_id("thread", str(number))
    made = Delivery(
        id=delivery_id(of, GP, purpose.value, ordinal),
        adapter="mss",
        to=GP,
        address=GP_ADDRESS,
        purpose=purpose,
        recipe=MailRecipe("relais@exemple.fr", (("Subject", "Lettre"),), "Bonjour", "b", of, "documents"),
        created_at=NOON,
        envelope=of,
        thread=owner,
        reference=reference(number),
        message_id=f"<v1.{number}.{purpose.value}.{ordinal}@exemple.fr>",
    )
    return replace(made, **changes)


def chat(number: int, purpose: Purpose = Purpose.ALERT, edits: str | None = None, **changes: Any) -> Delivery:
    recipe = ChatRecipe(
        ChatFields(ChatKind.ALERT, reference(number), arrived=NOON),
        ((Button(Verb.ACK, f"nonce-{number}"),),),
        edits=edits,
    )
    made = mail(number, purpose, adapter="telegram", address="4242", recipe=recipe, message_id=None)
    return replace(made, **changes)


def decision(**changes: Any) -> DecisionRecord:
    made = DecisionRecord(
        "digest", "sortie", "send", Why.RULE, {"event": "discharge", "age": 80}, NOON, ("gp",), "standard"
    )
    return replace(made, **changes)


def letter(number: int, **changes: Any) -> Plan:
    """The plan of an ordinary letter: decided, sent, alerted, followed up."""
    owner = thread(number)
    alert = chat(number)
    made = Plan(
        at=NOON,
        envelope=envelope(number).id,
        state=EnvelopeState.DECIDED,
        why=Why.RULE,
        kind="notice",
        message_id=f"<{number}@chr-exemple.mssante.fr>",
        fingerprint=f"print-{number}",
        document_keys=(f"document-{number}",),
        decision=decision(),
        thread=owner,
        deliveries=(mail(number), alert),
        timers=(Timer(owner.id, "step", 0, 0, NOON + timedelta(days=1)),),
        grants=(
            ButtonGrant(
                f"nonce-{number}", owner.id, GP, "4242", Verb.ACK, alert.id, NOON + timedelta(days=3)
            ),
        ),
        audit=(AuditEvent("relay", "decided", envelope(number).id, Why.RULE),),
    )
    return replace(made, **changes)


def held(number: int, why: Why = Why.FLOOR_GP) -> Plan:
    """The plan of a letter nobody may send yet."""
    return Plan(
        at=NOON,
        envelope=envelope(number).id,
        state=EnvelopeState.HELD,
        why=why,
        kind="notice",
        fingerprint=f"print-{number}",
        decision=decision(action="hold", followup=None, rule="mt-introuvable"),
        hold=Hold(
            id=derived_id("hold", str(number)),
            envelope=envelope(number).id,
            why=why,
            reason="Médecin traitant à trouver",
            since=NOON,
            rule="mt-introuvable",
            desk="sorties",
            candidates=("10000000001", "10000000002"),
        ),
    )


async def decided(store: Store, *numbers: int) -> None:
    """Letters accepted and decided."""
    await store.accept(batch(*numbers))
    assert await store.record([letter(each) for each in numbers]) == [None] * len(numbers)
