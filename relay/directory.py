"""Keeps the store's copy of the directory fresh where letters need it: asks the directory adapters about a few people.

The store's copy is what letters go by. A number that it lacks, or whose copy is older than the adapter's
`max_age`, is asked for first; the answer enters the copy. While a directory is away the last good copy
serves, as old as it is (`relay status` tells how old); nobody waits longer than PATIENCE for an answer, and
a late one serves the next letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from relay import log
from relay.clock import either
from relay.errors import Deferred, RelaisError, Verdict
from relay.identity import fold
from relay.model import Why

if TYPE_CHECKING:
    from datetime import datetime, timedelta

    from relay.model import Professional
    from relay.ports import Clock, Directory
    from relay.store import Store

PATIENCE: Final = 3.0  # seconds that letters wait for a directory
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 300.0  # seconds for which a directory that failed is left alone
AT_A_TIME: Final = 200  # numbers of one question
REMEMBERED: Final = 50_000  # numbers; then the oldest questions are forgotten
NIGHTLY: Final = 5_000  # people asked about in one night

Heard = Callable[[str, Verdict | None], Awaitable[None]]


class Lookups:
    """The directory adapters of one process, and what they were asked lately."""

    def __init__(
        self, store: Store, directories: Mapping[str, Directory], clock: Clock, heard: Heard | None = None
    ) -> None:
        """`heard` is told how each question to an adapter ended."""
        self.store, self.directories, self.clock, self._heard = store, directories, clock, heard
        self._asked: dict[tuple[str, str], datetime] = {}  # (adapter, number) → answered, also with nobody
        self._under_way: dict[tuple[str, str], asyncio.Task[bool]] = {}
        self._rest: dict[str, float] = {}  # adapter → left alone until
        self._pauses: dict[str, float] = {}

    async def freshen(self, rpps: Iterable[str], patience: float = PATIENCE) -> None:
        """Ask about whom the copy lacks or knows from too long ago. Never raises for a directory's sake."""
        numbers = tuple(dict.fromkeys(rpps))
        if not self.directories or not numbers:
            return
        ages = await self.store.directory_ages(numbers)
        waiting: set[asyncio.Task[bool]] = set()
        for name, directory in self.directories.items():
            old = [each for each in numbers if self._is_due(name, each, ages.get(each), directory.max_age)]
            waiting |= {self._under_way[name, each] for each in old if (name, each) in self._under_way}
            if self._rest.get(name, 0) <= self.clock.monotonic():
                waiting |= self._start(name, [each for each in old if (name, each) not in self._under_way])
        if not waiting:
            return
        await either(asyncio.wait(waiting), self.clock.sleep(patience))
        for name in {name for (name, _), task in self._under_way.items() if task in waiting}:
            # Whoever is this slow is asked nothing more for a moment: each letter would wait anew.
            self._rest[name] = max(self._rest.get(name, 0), self.clock.monotonic() + FIRST_PAUSE)

    async def ask(self, rpps: Sequence[str], names: Sequence[str] = ()) -> Sequence[Professional]:
        """Ask now, as a person wants it; the answers enter the copy. Raises Deferred or Rejected."""
        found: dict[str, Professional] = {}
        for name, directory in self.directories.items():
            for start in range(0, max(len(rpps), 1), AT_A_TIME):
                some = rpps[start : start + AT_A_TIME]
                for each in await self._answer(name, directory, some, names if start == 0 else ()):
                    found[each.rpps] = each
        return tuple(found.values())

    async def refresh_in_use(self) -> None:
        """Ask about those whom the relay writes to, the oldest copies first: who left is known before the next letter."""
        people = await self.store.professionals_in_use(NIGHTLY)
        for start in range(0, len(people), AT_A_TIME):  # one question at a time: letters may need the line
            await self.freshen(people[start : start + AT_A_TIME], patience=120)

    async def close(self) -> None:
        """Ask no more."""
        tasks = set(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------- asking

    def _is_due(self, name: str, rpps: str, as_of: datetime | None, max_age: timedelta) -> bool:
        """Neither the copy nor the last question is young enough; nobody is asked for twice in vain."""
        known = [each for each in (as_of, self._asked.get((name, rpps))) if each is not None]
        return not known or self.clock.now() - max(known) > max_age

    def _start(self, name: str, rpps: Sequence[str]) -> set[asyncio.Task[bool]]:
        started = set()
        for start in range(0, len(rpps), AT_A_TIME):
            some = tuple(rpps[start : start + AT_A_TIME])
            task = asyncio.create_task(self._look_up(name, some), name=f"directory:{name}")
            keys = [(name, each) for each in some]
            self._under_way.update(dict.fromkeys(keys, task))
            task.add_done_callback(partial(self._ended, keys))
            started.add(task)
        return started

    def _ended(self, keys: Sequence[tuple[str, str]], _: asyncio.Task[bool]) -> None:
        for key in keys:
            self._under_way.pop(key, None)

    async def _look_up(self, name: str, rpps: Sequence[str]) -> bool:
        """One question; whatever becomes of it, letters go on by what the copy says."""
        try:
            await self._answer(name, self.directories[name], rpps, ())
        except Verdict:
            return False
        except RelaisError as error:  # our own database: the letters that follow will meet it too
            log.failure("directory_answer_not_kept", error, adapter=name)
            return False
        return True

    async def _answer(
        self, name: str, directory: Directory, rpps: Sequence[str], names: Sequence[str]
    ) -> Sequence[Professional]:
        try:
            found = await directory.find(rpps, names)
        except Verdict as verdict:
            await self._failed(name, verdict)
            raise
        except Exception as error:  # noqa: BLE001 - an adapter's defect is this adapter's trouble: the last copy serves
            log.failure("directory_failed", error, adapter=name)
            await self._failed(name, defect := Deferred(Why.PROTOCOL))
            raise defect from None
        self._rest.pop(name, None)
        self._pauses.pop(name, None)
        now = self.clock.now()
        self._asked.update(((name, each), now) for each in rpps)
        while len(self._asked) > REMEMBERED:
            del self._asked[next(iter(self._asked))]
        if found:
            await self.store.enter_professionals(found, fold, name)
        if self._heard is not None:
            await self._heard(name, None)
        return found

    async def _failed(self, name: str, verdict: Verdict) -> None:
        pause = self._pauses.get(name, FIRST_PAUSE)
        self._pauses[name] = min(LONGEST_PAUSE, pause * 2)
        self._rest[name] = self.clock.monotonic() + max(pause, verdict.retry_after or 0)
        if self._heard is not None:
            await self._heard(name, verdict)
