"""The system's clock, as `relay.ports.Clock` asks for it, and waiting for whichever comes first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from datetime import UTC, datetime


async def either(*waits: Coroutine[object, object, object]) -> None:
    """Return once one of these is over; the others are given up, and have ended when this returns.

    What a wait raises is not told: these are waits, not work.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class SystemClock:
    """Wall time in UTC, monotonic seconds, and asyncio's sleep."""

    def now(self) -> datetime:
        """Aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never step back."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)
