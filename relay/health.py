"""What each adapter's people see: whether it stands, since when, and one mail when it breaks, one when it heals.

A connection that stands for a moment and breaks again has not healed: trouble ends only once it stood for a while,
so that an adapter which comes and goes is told of once, and neither never nor each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Literal

from relay import log, metrics, planning

if TYPE_CHECKING:
    from relay.errors import Verdict
    from relay.ports import Clock
    from relay.store import Store

ALERT_AFTER = timedelta(minutes=2)
"""An adapter that stays away this long is worth a mail to the admins; a hiccup is not."""
LOOK_EVERY = 15.0  # seconds


@dataclass
class _State:
    up: bool | None = None  # None: never tried
    since: datetime | None = None
    detail: str = ""
    trouble: datetime | None = None  # since when it has not stood for a while
    told: bool = False


class Health:
    """The adapters of one process."""

    def __init__(
        self, store: Store, site: planning.SiteSource, clock: Clock, names: Iterable[str] = ()
    ) -> None:
        self.store, self.site, self.clock = store, site, clock
        self._states = {name: _State() for name in names}

    def tried(self) -> Iterator[str]:
        """The adapters that were reached, or tried in vain."""
        return (name for name, state in self._states.items() if state.up is not None)

    async def heard(self, name: str, verdict: Verdict | None) -> None:
        """A connection was made (None), or why it was not or is no more."""
        if verdict is None:
            await self.up(name)
        else:
            await self.down(name, verdict)

    async def up(self, name: str) -> None:
        """It stands."""
        state = self._states.setdefault(name, _State())
        metrics.adapter_up(name, True)
        if state.up:
            return
        state.up, state.since, state.detail = True, self.clock.now(), ""
        log.get().info("adapter_up", adapter=name)
        await self.store.adapter_state(name, "up", "")

    async def down(self, name: str, verdict: Verdict) -> None:
        """It broke, or still is not there."""
        state, now = self._states.setdefault(name, _State()), self.clock.now()
        metrics.adapter_up(name, False)
        self._settle(state, now)
        if state.up is not False:
            state.up, state.since = False, now
            state.trouble = state.trouble or now
            state.detail = ""
        if state.detail != verdict.why:
            state.detail = verdict.why
            log.get().warning("adapter_down", adapter=name, why=verdict.why, code=verdict.detail or None)
            await self.store.adapter_state(name, "down", verdict.why)

    @staticmethod
    def _settle(state: _State, now: datetime) -> bool:
        """Whether trouble has just been found to be over."""
        if not state.up or state.trouble is None or state.since is None or now - state.since < ALERT_AFTER:
            return False
        state.trouble = None
        return True

    async def look(self) -> None:
        """Tell who must know of what lasts, or is over."""
        now = self.clock.now()
        for name, state in self._states.items():
            if self._settle(state, now) and state.told:
                state.told = False
                await self._tell("healed", name, "")
            elif state.trouble is not None and not state.told and now - state.trouble >= ALERT_AFTER:
                state.told = True
                await self._tell("broken", name, state.detail)

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await self.clock.sleep(LOOK_EVERY)
            await self.look()

    async def _tell(self, what: Literal["broken", "healed"], name: str, why: str) -> None:
        """One mail to each admin, with the age of the oldest waiting."""
        status = await self.store.status()
        plan = planning.plan_admin(self.site(), what, name, why, status["oldest_waiting_s"], self.clock.now())
        if plan is not None:
            for problem in await self.store.record([plan]):
                if problem is not None:
                    log.failure("plan_not_recorded", problem, adapter=name)
