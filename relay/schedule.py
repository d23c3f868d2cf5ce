"""Timers and periodic work.

The timer table is the truth; APScheduler, in memory, only wakes us and runs what comes round by the clock on
the wall: the wards' daily list, retention, the audit checkpoint, certificate checks.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from relay import crash, log, planning
from relay.clock import either
from relay.errors import Stale
from relay.model import Ask

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from datetime import datetime

    from relay.model import Plan, Timer
    from relay.ports import Clock
    from relay.store import Store

BATCH = 100
LISTS_AT = 18  # o'clock, by the site's clock
LONGEST_WAIT = 30.0  # seconds; a timer written by another process is seen at the latest then


class Schedule:
    """Fires the timers of one node and runs its periodic work."""

    def __init__(self, store: Store, site: planning.SiteSource, clock: Clock) -> None:
        self.store, self.site, self.clock = store, site, clock
        self._periodic: list[tuple[str, CronTrigger, Callable[[], Awaitable[None]]]] = []
        self._stuck = False  # what was due last could not be answered
        self._at_work: set[asyncio.Task[object]] = set()  # periodic work that goes on at this moment

    def every(self, name: str, work: Callable[[], Awaitable[None]], **cron: int | str) -> None:
        """Run `work` by the site's wall clock: `every("daily_list", …, hour=18, minute=0)`."""
        self._periodic.append((name, CronTrigger(timezone=self.site().settings.timezone, **cron), work))

    def settle_in(self) -> None:
        """The relay's own periodic work."""
        self.every("daily_lists", self.missed_lists, hour=LISTS_AT, minute=0)
        self.every("retention", self.retention, hour=3, minute=20)

    async def daily_lists(self, due: datetime | None = None) -> None:
        """Tell each ward that wants it what became of its letters in the day up to `due` (None: now)."""
        site, now = self.site(), self.clock.now()
        due = due or now
        plans = []
        for ward in site.settings.wards.values():
            boxes = [t for t in site.settings.adapters.values() if t.ward and t.ward.slug == ward.slug]
            observed = site.settings.mode == "observe" or all(box.mode == "observe" for box in boxes)
            if ward.receipts != "daily" or observed:
                continue
            views, holds = await self.store.letters_of(
                ward.slug, [box.name for box in boxes], due - timedelta(days=1)
            )
            plan = planning.plan_daily(site, ward, views, holds, now, due)
            if plan is not None:
                plans.append(plan)
        made = [Ask(deliveries=tuple(copy.id for copy in plan.deliveries)) for plan in plans]
        told = await self.store.contexts(made) if made else ()
        plans = [plan for plan, context in zip(plans, told, strict=True) if not context.deliveries]
        for problem in await self.store.record(plans) if plans else ():
            if problem is not None:
                log.failure("daily_list_not_recorded", problem)

    async def missed_lists(self) -> None:
        """The daily lists that fell due last, however long ago: the relay stood still then, or its machine slept."""
        now = self.clock.now().astimezone(self.site().settings.zone)
        due = now.replace(hour=LISTS_AT, minute=0, second=0, microsecond=0)
        await self.daily_lists(due if due <= now else due - timedelta(days=1))

    async def retention(self) -> None:
        """Forget what the retention periods say."""
        settings, now = self.site().settings, self.clock.now()
        counts = await self.store.purge(
            content_before=now - settings.keep_content,
            facts_before=now - settings.keep_facts,
            audit_before=now - settings.keep_audit,
        )
        log.get().info("purged", count=sum(counts.values()))

    async def run(self, caught_up: Callable[[], Awaitable[None]] | None = None) -> None:
        """Fire timers for ever. What was missed while down fires once, after `caught_up`: people may have answered."""
        self.settle_in()
        scheduler = AsyncIOScheduler()
        for name, trigger, work in self._periodic:
            # However late: a machine that slept, or whose clock was put forward, still owes what fell due.
            scheduler.add_job(
                self._guarded, trigger, args=(name, work), id=name, coalesce=True, misfire_grace_time=None
            )
        scheduler.start()
        missed = asyncio.ensure_future(self._guarded("missed_lists", self.missed_lists))
        try:
            due = await self.store.next_timer()
            if caught_up is not None and due is not None and due <= self.clock.now():
                await caught_up()
            while True:
                seen = self.store.calls
                if not await self.turn():
                    await self.rest(seen)
        finally:
            scheduler.shutdown(wait=False)
            missed.cancel()
            await asyncio.gather(
                missed, *self._at_work, return_exceptions=True
            )  # the library cancels, and waits for none

    async def rest(self, seen: int) -> None:
        """Wait for the next timer, or for a commit after call `seen`: it may have brought an earlier one."""
        due = await self.store.next_timer()
        wait = LONGEST_WAIT
        if due is not None and not self._stuck:
            wait = min(wait, (due - self.clock.now()).total_seconds())
        if wait <= 0:
            return
        await either(self.store.called(seen), self.clock.sleep(wait))

    async def turn(self) -> bool:
        """Fire what is due. Answers whether anything was."""
        due = await self.store.due_timers(BATCH)
        self._stuck = False
        if not due:
            return False
        site = self.site()
        now = self.clock.now()
        planned: list[tuple[Timer, Plan]] = []
        for timer, view in due:
            try:
                planned.append((timer, planning.plan_timer(site, timer, view, now)))
            except Exception as error:  # noqa: BLE001 - one follow-up's defect must not silence the others
                log.failure("timer_not_planned", error, thread=timer.thread)
        crash.point("timer_due")
        moved = False
        problems = await self.store.record([plan for _, plan in planned])
        for (timer, _), problem in zip(planned, problems, strict=True):
            moved = moved or problem is None or isinstance(problem, Stale)
            if problem is None:
                log.get().info("timer_fired", thread=timer.thread, kind=timer.kind, step=timer.level)
            elif not isinstance(problem, Stale):
                log.failure("timer_not_recorded", problem, thread=timer.thread)
        # Timers that cannot be answered stay due, and show in `timer_overdue`: asked again later, not at once.
        self._stuck = not moved
        return moved

    async def _guarded(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Periodic work that fails is logged and comes round again."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the scheduler runs it in one
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - one job's failure must not end the others
            log.failure("periodic_work_failed", error, task=name)
