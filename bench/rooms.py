"""What single rooms of the house cost, without the others: medians, in the unit the row names."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING

from bench.letters import Town
from relay import reading, recognition
from relay.clock import SystemClock
from relay.model import (
    Attempt,
    Batch,
    Button,
    ButtonGrant,
    ChatFields,
    ChatKind,
    ChatRecipe,
    DecisionRecord,
    Delivery,
    DeliveryState,
    Envelope,
    EnvelopeState,
    MailRecipe,
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
from rules import engine, language, reach
from tests import letters as samples
from tests import rulesets

if TYPE_CHECKING:
    from pathlib import Path

    from rules.facts import Facts
    from rules.ruleset import RuleSet

ACCOUNT = "imap://bench"


def measure(folder: Path, *, quick: bool) -> dict[str, float]:
    """Every row: what it is, and its median."""
    times = 20 if quick else 100
    text, large = (Town().letter(1, size).content for size in ("small", "large"))
    package = samples.xdm_mail(pdf_size=60_000, cda_size=75_000)
    letter = samples.cda(size=75_000 - len(samples.cda()))
    return {
        **_deciding(folder, times),
        **_proving(),
        f"understand {len(text) // 1000} kB of text, ms": _cost(lambda: _understood(text), times) * 1e3,
        f"understand {len(large) // 1000} kB with a PDF, ms": _cost(lambda: _understood(large), times) * 1e3,
        f"understand {len(package) // 1000} kB of XDM, ms": _cost(lambda: _understood(package), times) * 1e3,
        f"understand {len(letter) // 1000} kB of CDA, ms": _cost(
            lambda: recognition.recognise(reading.read_file("letter.xml", letter)), times
        )
        * 1e3,
        **asyncio.run(_storing(folder, 3 if quick else 7)),
    }


def _understood(raw: bytes) -> None:
    """From bytes to a notice, as intake does it."""
    document = reading.read(raw)
    reading.fingerprint(raw)
    if recognition.recognise(document).notice.patient is None:
        raise RuntimeError("a bench letter was not understood")


def _cost(work: Callable[[], object], times: int) -> float:
    """CPU seconds of one call, the median of many; the first is not counted."""
    work()
    taken = []
    for _ in range(times):
        began = time.process_time()
        work()
        taken.append(time.process_time() - began)
    return statistics.median(taken)


# ------------------------------------------------------------------------------------------------ the rules


def _deciding(folder: Path, times: int) -> dict[str, float]:
    """A rule file of 500 wards, three conditions a rule, of which only the last of all matches; with the index and without."""
    facts: Facts = {
        "event": "discharge", "document": "letter", "identity": "qualified", "gp": "found", "consent": "allowed",
        "urgency": "routine", "ward": frozenset({"Service 499", "service-499"}), "age": 71, "signed": True,
        "mailbox": "his", "sender": "secretariat@chr-exemple.mssante.fr", "format": "cda", "code": "11490-0",
        "facility": "450000088", "exit_mode": "home", "stay_days": 4, "late_hours": 20, "mentions": frozenset(),
    }  # fmt: skip
    now = datetime(2026, 12, 1, 10, tzinfo=UTC)
    rows: dict[str, float] = {}
    for number in (500, 10_000):
        file = folder / f"routes-{number}.yaml"
        file.write_text(rulesets.by_ward(number), encoding="utf-8")
        began = time.process_time()
        rules = _read(file)
        rows[f"read a file of {number} rules, s"] = time.process_time() - began
        decided = engine.decide(rules, facts, now)
        last = f"service-499-{number // 500 - 1}"
        if decided.rule != last or engine.decide_plainly(rules, facts, now) != decided:
            raise RuntimeError(f"{number} rules decided otherwise than they must")
        quick = _each(partial(engine.decide, rules, facts, now), times)
        plain = _each(partial(engine.decide_plainly, rules, facts, now), 5)
        rows[f"decide by {number} rules, µs"] = quick
        rows[f"decide by {number} rules without the index, µs"] = plain
        rows[f"decide by {number} rules, quicker with the index, times"] = plain / quick
    return rows


def _proving() -> dict[str, float]:
    """From the text of a rule file to every dead rule with what covers it, and facts that reach each other one."""
    rows: dict[str, float] = {}
    for number in (500, 1_000):
        text = rulesets.written(number)
        began = time.process_time()
        rules, findings = language.load(text, "bench.yaml")
        if rules is None:
            raise RuntimeError(str(findings[:3]))
        answers = [reach.answer(rules, entry) for entry in (*rules.rules, None)]
        rows[f"dead rules {number}, s"] = time.process_time() - began
        rows[f"dead rules {number}, found"] = sum(isinstance(each, reach.Dead) for each in answers)
        rows[f"dead rules {number}, undecided"] = answers.count(None)
    return rows


def _each(work: Callable[[], object], times: int) -> float:
    """Microseconds of one call, from `times` measures of ten."""

    def ten() -> None:
        for _ in range(10):
            work()

    return _cost(ten, times) / 10 * 1e6


def _read(file: Path) -> RuleSet:
    site = language.Site(
        adapters={"mss": "smtp"},
        desks={"sorties": "document"},
        rotas=frozenset(),
        wards=frozenset(f"Service {number}" for number in range(500)),
        language="fr",
    )
    loaded, findings = language.load(file.read_bytes(), str(file), site)
    if loaded is None:
        raise RuntimeError(str(findings[:3]))
    return loaded


# ------------------------------------------------------------------------------------------------ the store


async def _storing(folder: Path, rounds: int) -> dict[str, float]:
    """A letter's whole life in the store, 200 at a time, on SQLite with every commit on the disk."""
    place = folder / "store"
    place.mkdir()
    keys = place / "keys.json"
    FileKeyRing.create(keys)
    clock = SystemClock()
    store = await Store.open(
        f"sqlite:///{place / 'relay.db'}", Vault(FileKeyRing(keys)), clock=clock, node="bench"
    )
    taken: dict[str, list[float]] = {}
    try:
        await store.recover()
        for number in range(rounds):
            for name, seconds in (await _round(store, number)).items():
                taken.setdefault(name, []).append(seconds)
    finally:
        await store.close()
    return {f"store: {name}, ms": statistics.median(values) * 1e3 for name, values in taken.items()}


async def _round(store: Store, number: int) -> Mapping[str, float]:
    now, town = datetime.now(UTC), Town()
    envelopes = tuple(
        Envelope(
            envelope_id(ACCOUNT, f"{number}.{place}"), "cardiologie", ACCOUNT, f"{number}.{place}", now,
            town.letter(number * 200 + place, "small").content,
        )
        for place in range(200)
    )  # fmt: skip
    plans = [_plan(envelope, now) for envelope in envelopes]
    spent: dict[str, float] = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        ended = time.perf_counter()
        spent[name] = spent.get(name, 0.0) + ended - began
        began = ended

    await store.accept(Batch(ACCOUNT, envelopes, str(number)))
    lap("accept 200")
    answers = await store.record(plans)
    lap("record 200 plans")
    if any(answers):
        raise RuntimeError(f"not recorded: {next(filter(None, answers))}")
    for adapter in ("mss", "telegram"):
        for _ in range(2):
            claimed = await store.claim([adapter], 100, 900)
            lap("claim 4 × 100")
            if len(claimed) != 100:
                raise RuntimeError(f"{len(claimed)} of 100 claimed")
            ids = [delivery.id for delivery in claimed]
            if adapter == "mss":
                await store.raws([str(delivery.envelope) for delivery in claimed])
                lap("read 200 letters")
            await store.in_flight(ids)
            lap("in flight 4 × 100")
            await store.finish([Attempt(name, DeliveryState.SENT, datetime.now(UTC)) for name in ids])
            lap("finish 4 × 100")
    return spent


def _plan(envelope: Envelope, now: datetime) -> Plan:
    """What a clean discharge letter plans: a thread, a mail, an alert, its timer and its button."""
    thread = derived_id("thread", envelope.id)
    letters = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    drawn = "".join(letters[byte % 32] for byte in thread.encode()[:8])
    reference = f"{drawn[:4]}-{drawn[4:]}"
    gp = "rpps:10090000539"
    mail = Delivery(
        id=delivery_id(envelope.id, gp, "letter", 0), adapter="mss", to=gp, address="medecin000@medecin.mssante.fr",
        purpose=Purpose.LETTER, created_at=now, envelope=envelope.id, thread=thread, reference=reference,
        message_id=f"<v1.{thread}@relais45.mssante.fr>",
        recipe=MailRecipe(
            "relais@relais45.mssante.fr",
            tuple((name, "x" * 40) for name in ("From", "To", "Subject", "Date", "Message-ID", "Reply-To")),
            "Réf. …\n" * 6, "boundary", envelope.id, "documents",
        ),
    )  # fmt: skip
    chat = replace(
        mail, id=delivery_id(envelope.id, gp, "alert", 0), adapter="telegram", address="700000",
        purpose=Purpose.ALERT, message_id=None,
        recipe=ChatRecipe(ChatFields(ChatKind.ALERT, reference), ((Button(Verb.ACK, thread),),)),
    )  # fmt: skip
    return Plan(
        at=now,
        envelope=envelope.id,
        state=EnvelopeState.DECIDED,
        why=Why.RULE,
        kind="notice",
        message_id=f"<{envelope.ref}@chr-exemple.mssante.fr>",
        fingerprint=envelope.sha256,
        reference=reference,
        decision=DecisionRecord("digest", "sortie", "send", Why.RULE, {"event": "discharge"}, now, ("gp", "gp_ping")),
        thread=Thread(
            thread, reference, ThreadState.AWAITING_ACK, now, "cardiologie", "450000088", derived_id("stay", thread),
            envelope.id, gp, owner=gp,
        ),
        deliveries=(mail, chat),
        timers=(Timer(thread, "step", 0, 0, now + timedelta(days=1)),),
        grants=(ButtonGrant(thread, thread, gp, "700000", Verb.ACK, chat.id, now + timedelta(days=7)),),
    )  # fmt: skip
