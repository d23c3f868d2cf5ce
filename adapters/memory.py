"""An adapter without a wire: an inbox and a sender held in memory, which fail when told to. For tests."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass, field

from pydantic import BaseModel, ConfigDict

from relay.errors import Deferred, Verdict
from relay.model import Batch, ChatMessage, Delivery, Envelope, Press, Receipt, Typed, Why, envelope_id
from relay.ports import Limits, Tools


class Settings(BaseModel):
    """What the memory pretends to be able to do."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    confidential: bool = False
    max_bytes: int = 10_485_760
    batch: int = 200


def connect(name: str, settings: Settings, tools: Tools) -> Memory:
    """Make the adapter; there is nothing to connect to."""
    return Memory(name, settings, tools)


@dataclass(frozen=True, slots=True)
class Fault:
    """What the next send gets. `taken`: the other side has the message all the same."""

    verdict: Verdict
    taken: bool = False


@dataclass
class Memory:
    """Everything that arrived and everything that left, in order."""

    name: str
    settings: Settings
    tools: Tools
    kind: str = "memory"
    sent: list[Delivery] = field(default_factory=list)
    answered: list[tuple[Press, str, bool]] = field(default_factory=list)
    replied: list[ChatMessage] = field(default_factory=list)
    acknowledged: list[Envelope] = field(default_factory=list)
    faults: deque[Fault] = field(default_factory=deque)
    closed: bool = False

    def __post_init__(self) -> None:
        self.account = f"memory:{self.name}"
        self.limits = Limits(
            max_bytes=self.settings.max_bytes,
            buttons=True,
            edits=True,
            deletes=True,
            confidential=self.settings.confidential,
            parallel=4,
        )
        self._arrived: dict[int, Envelope] = {}
        self._number = 0
        self._broken: Verdict | None = None
        self._news = asyncio.Event()

    # What a test does

    def arrive(self, content: bytes | Press | Typed) -> Envelope:
        """Let something arrive; it stays until it is acknowledged."""
        self._number += 1
        event = None if isinstance(content, bytes) else content
        envelope = Envelope(
            id=envelope_id(self.account, str(self._number)),
            adapter=self.name,
            account=self.account,
            ref=str(self._number),
            received_at=self.tools.clock.now(),
            raw=content if isinstance(content, bytes) else json.dumps(asdict(content)).encode(),
            event=event,
        )
        self._arrived[self._number] = envelope
        self._news.set()
        return envelope

    def fail(self, verdict: Verdict, *, taken: bool = False) -> None:
        """Let the next send end like this, as if the message was taken or not."""
        self.faults.append(Fault(verdict, taken))

    def break_off(self, verdict: Verdict | None = None) -> None:
        """Let whoever watches lose the connection."""
        self._broken = verdict or Deferred(Why.CONNECTION)
        self._news.set()

    # What the relay does

    async def probe(self) -> None:
        """Raise what `break_off` left there, if anything."""
        if self._broken is not None:
            broken, self._broken = self._broken, None
            raise broken

    async def close(self) -> None:
        """Say so; what is in memory stays to be looked at."""
        self.closed = True

    async def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Yield what is unacknowledged, then what arrives; see `relay.ports.Inbox.watch`."""
        yielded = 0
        while True:
            self._news.clear()
            await self.probe()
            waiting = [number for number in self._arrived if number > yielded][: self.settings.batch]
            if waiting:
                yielded = waiting[-1]
                envelopes = tuple(self._arrived[number] for number in waiting)
                yield Batch(self.account, envelopes, str(max(yielded, int(since or 0))))
            else:
                await self._news.wait()

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Let go of these. Raises what `break_off` left there."""
        await self.probe()
        for envelope in envelopes:
            if self._arrived.pop(int(envelope.ref), None) is not None:
                self.acknowledged.append(envelope)

    async def send(self, delivery: Delivery) -> Receipt:
        """Take a delivery, or end as the next fault says."""
        await asyncio.sleep(0)
        fault = self.faults.popleft() if self.faults else None
        if fault is None or fault.taken:
            self.sent.append(delivery)
        if fault is not None:
            raise fault.verdict
        return Receipt(delivery.id, str(len(self.sent)))

    async def send_many(self, deliveries: Sequence[Delivery]) -> Sequence[Receipt | Verdict]:
        """One after the other."""
        answers: list[Receipt | Verdict] = []
        for delivery in deliveries:
            try:
                answers.append(await self.send(delivery))
            except Verdict as verdict:
                answers.append(verdict)
        return answers

    async def answer(self, press: Press, text: str, *, alert: bool = False) -> None:
        """Keep the answer to look at."""
        self.answered.append((press, text, alert))

    async def reply(self, message: ChatMessage) -> None:
        """Keep the reply to look at."""
        self.replied.append(message)
