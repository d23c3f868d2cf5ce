"""Deliveries → wire. One loop for each sender, so that a dead destination never delays another.

    claim (one commit) → a handful: compose → in_flight (one commit, which concludes the handful before) → send

`in_flight` is committed before the final dot or the POST: after a crash such a copy is ambiguous, looked for
as evidence and sent again at most once, byte for byte the same. A copy is concluded together with what it
means for its thread. What a server leaves unanswered for long is followed apart: the others neither wait for it
nor lose their own answers when the relay stops meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from relay import composing, crash, log, metrics, planning, wording
from relay.clock import either
from relay.errors import Deferred, NotFound, Rejected, Stale, Uncertain, Verdict
from relay.model import (
    Ask,
    Attempt,
    ChatMessage,
    ChatRecipe,
    Delivery,
    DeliveryNews,
    DeliveryState,
    MailMessage,
    MailRecipe,
    Plan,
    Purpose,
    Receipt,
    Why,
)
from relay.ports import Opened

if TYPE_CHECKING:
    from datetime import datetime

    from relay.planning import Site
    from relay.ports import Clock, Opener, Sender
    from relay.store import Store

BATCH = 100
HANDFUL = 8
"""Copies marked as in flight at a time: at most so many of a sender are ambiguous after a kill."""
PATIENCE = 10.0  # seconds a handful waits for its last answers before the next one goes
LEASE = 900.0  # seconds; longer than the longest answer a server may take after the final dot (RFC 5321 §4.5.3.2.6)
SLOW = 2 * 2**20  # composing more than this leaves the event loop
AMBIGUOUS_WAIT = timedelta(seconds=5)

TRIES = 5
"""How often a consequence is planned again when somebody changed its thread meanwhile."""
Heard = Callable[[str, Verdict | None], Awaitable[None]]
HOLD_NOTES_APART = timedelta(minutes=1)
"""A desk gets at most one mail about a held letter a minute."""

FIRST_RETRY = 5.0  # seconds; doubles with each try
LONGEST_RETRY = 1800.0

OURS = frozenset({Why.AUTHENTICATION, Why.CERTIFICATE})
"""Refusals that say something about us, not about the message: every copy waits, a person is told."""
CONNECTION = frozenset({Why.CONNECTION, Why.TIMEOUT, Why.AUTHENTICATION, Why.CERTIFICATE, Why.BUSY})


def backoff(attempts: int, draw: float) -> float:
    """Seconds until the next try: 5 s doubling to 30 min, spread by ±20 % so that a crowd does not come back at once."""
    return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(attempts, 12)) * (0.8 + 0.4 * draw)


class Dispatch:
    """Runs the senders of one node."""

    def __init__(
        self,
        store: Store,
        senders: Mapping[str, Sender],
        site: planning.SiteSource,
        clock: Clock,
        heard: Heard | None = None,
        opener: Opener | None = None,
    ) -> None:
        """`heard` is told when a sender took something (None), and why when it could not be reached.

        `opener` undoes S/MIME: a GP reads what the ward wrote, not what was encrypted to the relay.
        """
        self.store, self.senders, self.site, self.clock = store, senders, site, clock
        self._heard = heard
        self.opener = opener
        self._draw = random.Random()  # noqa: S311 - spreads retries, guards nothing
        self._draining = False
        self._last_hold_note: dict[str, datetime] = {}
        self._turns: set[asyncio.Task[float | None]] = set()
        self._late: defaultdict[str, set[asyncio.Task[float | None]]] = defaultdict(set)
        self._broken: list[BaseException] = []  # what ended the following of a late answer
        self._reached: dict[str, float] = {}  # when each sender last took something

    async def recover(self) -> None:
        """What an earlier life of this node left half done, before the first send."""
        counts = await self.store.recover()
        if any(counts.values()):
            log.get().warning("recovered", count=sum(counts.values()))
        if counts.get("unsure"):
            await self._give_up_unsure()

    async def reclaim(self) -> None:
        """What a node that is no more, or a send that never ended, has held for longer than its lease."""
        counts = await self.store.reclaim()
        if any(counts.values()):
            log.get().warning("reclaimed", count=sum(counts.values()))
        if counts.get("unsure"):
            await self._give_up_unsure()

    async def unserved(self) -> list[str]:
        """The names of adapters for which copies wait and that this site has no more: nothing would ever take them."""
        names: set[str] = set()
        for state in (DeliveryState.QUEUED, DeliveryState.DEFERRED, DeliveryState.AMBIGUOUS):
            rows = await self.store.deliveries(state=state.value, limit=10_000)
            names.update(str(row["adapter"]) for row in rows)
        return sorted(names - set(self.senders))

    async def _give_up_unsure(self) -> None:
        """Copies twice on the wire when we died: a third might be a third letter, so a person is told instead."""
        rows = await self.store.deliveries(state=DeliveryState.AMBIGUOUS.value, limit=10_000)
        ids = [str(row["id"]) for row in rows if row["next_at"] is None]
        contexts = await self.store.contexts([Ask(deliveries=(each,)) for each in ids])
        site, now = self.site(), self.clock.now()
        for context in contexts:
            for delivery in context.deliveries:
                view = next((each for each in context.threads if each.thread.id == delivery.thread), None)
                plan = planning.plan_failed(site, view, delivery, Why.LOST_AFTER_SEND, now) or Plan(at=now)
                lost = DeliveryNews(delivery.id, DeliveryState.FAILED, Why.LOST_AFTER_SEND)
                (problem,) = await self.store.record([replace(plan, news=(*plan.news, lost))])
                if problem is not None:
                    log.failure("plan_not_recorded", problem, delivery=delivery.id)

    async def drain(self, seconds: float) -> None:
        """Claim nothing more, and wait at most `seconds` for what is on the wire; then it is cut off."""
        self._draining = True
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        # Again, for a turn that ends may leave an answer to be followed.
        while self._turns and (left := end - loop.time()) > 0:
            await asyncio.wait(set(self._turns), timeout=left)
        late = set(self._turns)
        for turn in late:
            turn.cancel()
        await asyncio.gather(*late, return_exceptions=True)

    async def run(self, name: str) -> None:
        """Serve one sender for ever."""
        sender = self.senders[name]
        failures = 0
        while not self._draining:
            if self._broken:
                raise self._broken[0]
            if self._room(name, sender) < 1:
                await asyncio.wait(self._late[name], return_when=asyncio.FIRST_COMPLETED)
                continue
            seen = self.store.calls
            turn = asyncio.ensure_future(self.turn(name, sender))
            self._turns.add(turn)
            turn.add_done_callback(self._turns.discard)
            pause = await asyncio.shield(turn)
            if pause is None:
                failures = 0
                continue
            if pause > 0:
                failures += 1
                await self.clock.sleep(min(60.0, pause * 2 ** min(failures - 1, 5)))
                continue
            failures = 0
            await self.rest(name, seen)

    async def rest(self, name: str, seen: int) -> None:
        """Wait for work: a commit after call `seen`, or the next copy that falls due."""
        due = await self.store.next_due([name])
        wait = 30.0 if due is None else max(0.0, min(30.0, (due - self.clock.now()).total_seconds()))
        if wait == 0.0:
            return
        await either(self.store.called(seen), self.clock.sleep(wait))

    async def turn(self, name: str, sender: Sender) -> float | None:
        """Claim a batch, send it a handful at a time, and finish each handful.

        Answers None when there was work, 0 when there was none, and the seconds to leave the sender alone
        when it could not be reached.
        """
        claimed = await self.store.claim([name], BATCH, LEASE)
        if not claimed:
            return 0.0
        crash.point("claimed", name)
        going, spaced = self._spaced(claimed)
        await self._conclude(name, claimed, spaced)
        pause: float | None = None
        tried: list[Attempt] = []  # of the handful before: not entered yet
        try:
            while going:
                room = self._room(name, sender)
                if self._draining or pause is not None or room < 1:
                    await self.store.release([delivery.id for delivery in going])
                    break
                some: Sequence[Delivery] = going[:room]
                going = going[room:]
                if any(_came_back(each) or _spoke_of_a_hold(each) for each in some):
                    await self._conclude(name, claimed, tried)
                    tried = []
                    some = await self._still_wanted(some)
                # Written here and not for the whole batch: the letters of a handful are all that memory holds.
                ready, unwritten = await self.compose(self.site(), some)
                tried += unwritten
                # Forgotten once entered, no sooner: what left and is not known to have left would leave again.
                allowed = await self._conclude(name, claimed, tried, [delivery.id for delivery in ready])
                tried = []
                await self._hand_over(name, sender, ready, allowed, tried)
                pause = await self._away(name, tried)
        finally:
            await self._conclude(name, claimed, tried)
        return pause

    def _room(self, name: str, sender: Sender) -> int:
        """How many copies may go next: a handful, or the places that late answers leave free."""
        late = self._late[name]
        return sender.limits.parallel - len(late) if late else max(HANDFUL, sender.limits.parallel)

    async def _hand_over(
        self,
        name: str,
        sender: Sender,
        ready: Sequence[Delivery],
        allowed: frozenset[str],
        tried: list[Attempt],
    ) -> None:
        """Send what is marked, and add to `tried` what was answered, also when cancelled meanwhile.

        Killed before it is concluded, or without an answer when cancelled, just these are ambiguous at the next start.
        """
        going = [delivery for delivery in ready if delivery.id in allowed]
        if len(going) < len(ready):
            # Stopped or paused since they were claimed: what is only paused must be claimable once it goes on.
            await self.store.release([delivery.id for delivery in ready if delivery.id not in allowed])
        crash.point("in_flight", name)
        if sender.limits.parallel == 1:
            answers = await self._sent(sender, going)
            tried += [self.attempt(delivery, answer) for delivery, answer in zip(going, answers, strict=True)]
        elif going:
            began = self.clock.monotonic()
            sending = {asyncio.ensure_future(self._sent(sender, [each])): each for each in going}
            try:
                await asyncio.wait(sending, timeout=PATIENCE)
            except asyncio.CancelledError:
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)
                raise
            finally:
                for task, delivery in sending.items():
                    if task.done() and not task.cancelled():
                        tried.append(self.attempt(delivery, task.result()[0]))
            for task, delivery in sending.items():
                if not task.done():
                    self._follow(name, delivery, task, began)
        crash.point("sent", name)

    def _follow(
        self, name: str, delivery: Delivery, task: asyncio.Task[Sequence[Receipt | Verdict]], began: float
    ) -> None:
        """Let a copy take its time; it keeps one place of its sender."""
        following: asyncio.Task[float | None] = asyncio.ensure_future(
            self._late_answer(name, delivery, task, began)
        )
        log.get().info("answer_is_late", delivery=delivery.id, adapter=name)
        for group in (self._turns, self._late[name]):
            group.add(following)
            following.add_done_callback(group.discard)
        following.add_done_callback(self._followed)

    def _followed(self, following: asyncio.Task[float | None]) -> None:
        if not following.cancelled() and (error := following.exception()) is not None:
            self._broken.append(error)

    async def _late_answer(
        self, name: str, delivery: Delivery, task: asyncio.Task[Sequence[Receipt | Verdict]], began: float
    ) -> None:
        (answer,) = await task
        attempt = self.attempt(delivery, answer)
        await self._conclude(name, [delivery], [attempt])
        # One recipient's silence says nothing of a server that took others' letters meanwhile.
        if attempt.state is DeliveryState.SENT or self._reached.get(name, began) <= began:
            await self._away(name, [attempt])

    async def _away(self, name: str, tried: Sequence[Attempt]) -> float | None:
        """Seconds to leave the sender alone when it took nothing of a handful and could not be reached."""
        away = [
            a for a in tried if a.state is DeliveryState.DEFERRED and a.why in CONNECTION and not a.reached
        ]
        if away and len(away) == len(tried):
            await self._tell(name, Deferred(away[0].why or Why.CONNECTION))
            return 60.0 if away[0].why in OURS else 1.0
        if any(a.state is DeliveryState.SENT or a.reached for a in tried):
            self._reached[name] = self.clock.monotonic()
            await self._tell(name, None)
        return None

    async def _tell(self, name: str, verdict: Verdict | None) -> None:
        if self._heard is not None:
            await self._heard(name, verdict)

    def _spaced(self, claimed: Sequence[Delivery]) -> tuple[list[Delivery], list[Attempt]]:
        """Mails to a desk about held letters go a minute apart; each that must wait gets a minute of its own."""
        going: list[Delivery] = []
        later: list[Attempt] = []
        now = self.clock.now()
        for delivery in claimed:
            if delivery.purpose is not Purpose.HOLD_NOTE or not delivery.to.startswith("desk:"):
                going.append(delivery)
                continue
            if delivery.why is Why.RATE_LIMITED:
                going.append(delivery)  # its minute has come
                continue
            last = self._last_hold_note.get(delivery.to)
            turn = now if last is None else max(now, last + HOLD_NOTES_APART)
            self._last_hold_note[delivery.to] = turn
            if turn <= now:
                going.append(delivery)
            else:
                later.append(
                    Attempt(delivery.id, DeliveryState.DEFERRED, now, Why.RATE_LIMITED, not_before=turn)
                )
        return going, later

    async def _still_wanted(self, some: Sequence[Delivery]) -> Sequence[Delivery]:
        """Without those that were on the wire when people stopped the rest, and came back untaken.

        Nor does a desk hear that a letter is held which somebody settled while the desk's mail waited for its minute.
        """
        again = [each for each in some if _came_back(each)]
        contexts = await self.store.contexts([Ask(threads=(each.thread or "",)) for each in again])
        stopped: list[DeliveryNews] = []
        for delivery, context in zip(again, contexts, strict=True):
            why = planning.no_longer(next(iter(context.threads), None), delivery)
            if why is not None:
                stopped.append(DeliveryNews(delivery.id, DeliveryState.CANCELLED, why))
        stopped += [
            DeliveryNews(each.id, DeliveryState.CANCELLED, Why.ANSWERED)
            for each in some
            if _spoke_of_a_hold(each) and not await self._held(each.envelope or "")
        ]
        if not stopped:
            return some
        (problem,) = await self.store.record([Plan(at=self.clock.now(), news=tuple(stopped))])
        if problem is not None:
            log.failure("plan_not_recorded", problem)
        gone = {news.delivery for news in stopped}
        return [each for each in some if each.id not in gone]

    async def _held(self, envelope: str) -> bool:
        try:
            await self.store.hold(envelope)
        except NotFound:
            return False
        return True

    async def _sent(self, sender: Sender, going: Sequence[Delivery]) -> Sequence[Receipt | Verdict]:
        """What the sender answers; a defect in it leaves us not knowing, and stops no other sender."""
        try:
            return await sender.send_many(going)
        except Exception as error:  # noqa: BLE001 - whatever it was, bytes may have left
            log.failure("sender_failed", error, adapter=sender.name, count=len(going))
            return [Uncertain(Why.LOST_AFTER_SEND)] * len(going)

    async def compose(self, site: Site, claimed: Sequence[Delivery]) -> tuple[list[Delivery], list[Attempt]]:
        """Fill each delivery's message; what cannot be written is failed with its reason, the others go on."""
        wanted = {
            delivery.recipe.original
            for delivery in claimed
            if isinstance(delivery.recipe, MailRecipe) and delivery.recipe.original
        }
        raws = await self._opened(await self.store.raws(sorted(wanted))) if wanted else {}
        ready: list[Delivery] = []
        failed: list[Attempt] = []
        for delivery in claimed:
            if not delivery.address:
                # What it says and to whom cannot be read any more: an empty frame would tell nobody anything.
                failed.append(self.fail(delivery, Why.UNREADABLE))
                continue
            original = delivery.recipe.original if isinstance(delivery.recipe, MailRecipe) else None
            found = raws.get(original) if original else None
            if original and found is None:
                # Its content was destroyed by retention: sending the frame without the letter would lie.
                failed.append(self.fail(delivery, Why.GAVE_UP))
                continue
            if found is not None and found.why is Why.NOT_OPENED:
                # Its key was taken away meanwhile: sealed, it is of no use to a doctor nor to a desk.
                failed.append(self.fail(delivery, Why.NOT_OPENED))
                continue
            raw = found.raw if found else None
            try:
                message = await self._message(delivery, raw)
            except Exception as error:  # noqa: BLE001 - whatever its recipe did, people are told and the others leave
                log.failure("copy_not_written", error, delivery=delivery.id, adapter=delivery.adapter)
                failed.append(self.fail(delivery, Why.UNREADABLE))
                continue
            ready.append(replace(delivery, message=message))
        return ready, failed

    async def _opened(self, raws: Mapping[str, bytes]) -> dict[str, Opened]:
        """The originals as they are carried: what was encrypted to the relay is of no use to anybody else."""
        if self.opener is None:
            return {envelope: Opened(raw) for envelope, raw in raws.items()}
        now = self.clock.now()
        return {envelope: await self.opener.open(raw, now) for envelope, raw in raws.items()}

    async def _message(self, delivery: Delivery, raw: bytes | None) -> MailMessage | ChatMessage:
        recipe = delivery.recipe
        if isinstance(recipe, ChatRecipe):
            return wording.chat_message(delivery, recipe)
        if raw is not None and len(raw) > SLOW:
            content = await asyncio.to_thread(composing.compose, recipe, raw)
        else:
            content = composing.compose(recipe, raw)
        return MailMessage(recipe.sender, delivery.address, content, delivery.id)

    def fail(self, delivery: Delivery, why: Why) -> Attempt:
        """A copy that cannot be written at all."""
        return Attempt(delivery.id, DeliveryState.FAILED, self.clock.now(), why)

    def attempt(self, delivery: Delivery, answer: Receipt | Verdict) -> Attempt:
        """What the sender answered, as the row to write."""
        now = self.clock.now()
        match answer:
            case Receipt():
                why = Why.RESENT_AFTER_CRASH if delivery.state is DeliveryState.AMBIGUOUS else None
                return Attempt(delivery.id, DeliveryState.SENT, now, why, remote=answer.remote)
            case Rejected():
                return Attempt(delivery.id, DeliveryState.FAILED, now, Why(answer.why))
            case Uncertain():
                if delivery.state is DeliveryState.AMBIGUOUS:
                    # Second time: a third copy would be worse than a person looking at the evidence.
                    return Attempt(delivery.id, DeliveryState.FAILED, now, Why.LOST_AFTER_SEND)
                return Attempt(
                    delivery.id,
                    DeliveryState.AMBIGUOUS,
                    now,
                    Why.LOST_AFTER_SEND,
                    not_before=now + AMBIGUOUS_WAIT,
                )
            case Deferred():
                if delivery.give_up_at and now >= delivery.give_up_at:
                    return Attempt(delivery.id, DeliveryState.FAILED, now, Why.GAVE_UP)
                wait = answer.retry_after
                if wait is None:
                    wait = backoff(delivery.attempts, self._draw.random())
                return Attempt(
                    delivery.id,
                    DeliveryState.DEFERRED,
                    now,
                    Why(answer.why),
                    not_before=now + timedelta(seconds=wait),
                    reached=answer.reached,
                )
        raise TypeError("a sender answers with a Receipt or a verdict")

    async def _conclude(
        self, name: str, copies: Sequence[Delivery], attempts: Sequence[Attempt], going: Sequence[str] = ()
    ) -> frozenset[str]:
        """Enter how tries ended, each together with what it means for its thread as planning decides.

        The same commit marks those `going` on the wire next; answers which of them may.
        """
        by_id = {delivery.id: delivery for delivery in copies}
        waiting = [(by_id[attempt.delivery], attempt) for attempt in attempts]
        for delivery, attempt in waiting:
            metrics.delivery(delivery.adapter, attempt.state.value)
            if attempt.state is DeliveryState.FAILED:
                log.get().warning(
                    "delivery_failed", delivery=delivery.id, adapter=delivery.adapter, why=attempt.why,
                    purpose=delivery.purpose, reference=delivery.reference,
                )  # fmt: skip
            elif (
                attempt.state is DeliveryState.SENT
                and delivery.purpose is Purpose.ALERT
                and isinstance(delivery.recipe, ChatRecipe)
                and (arrived := delivery.recipe.fields.arrived) is not None
            ):
                metrics.alerted((attempt.at - arrived).total_seconds())
        if not waiting:
            return await self.store.in_flight(going) if going else frozenset()
        waiting, allowed = await self._concluded(waiting, going)
        crash.point("finished", name)
        for _ in range(TRIES - 1):
            if waiting:
                waiting, _ = await self._concluded(waiting)
        await self._unplanned(waiting)
        return allowed

    async def _concluded(
        self, waiting: Sequence[tuple[Delivery, Attempt]], going: Sequence[str] = ()
    ) -> tuple[list[tuple[Delivery, Attempt]], frozenset[str]]:
        """Plan and enter once; answers those whose thread somebody changed meanwhile or that shared one, and who goes."""
        site = self.site()
        telling = [(delivery, attempt) for delivery, attempt in waiting if _tells(site, delivery, attempt)]
        asks = [Ask(threads=(delivery.thread,) if delivery.thread else ()) for delivery, _ in telling]
        contexts = await self.store.contexts(asks) if asks else ()
        threads = {view.thread.id: view for context in contexts for view in context.threads}
        entered: list[tuple[Delivery, Attempt]] = []
        plans: list[Plan | None] = []
        again: list[tuple[Delivery, Attempt]] = []
        seen: set[str] = set()
        now = self.clock.now()
        for delivery, attempt in waiting:
            plan: Plan | None = None
            if _tells(site, delivery, attempt):
                if delivery.thread and delivery.thread in seen:
                    again.append((delivery, attempt))
                    continue
                view = threads.get(delivery.thread or "")
                try:
                    if attempt.state is DeliveryState.FAILED:
                        plan = planning.plan_failed(site, view, delivery, attempt.why or Why.REFUSED, now)
                    else:
                        plan = planning.plan_sent(site, view, delivery, attempt.at)
                except Exception as error:  # noqa: BLE001 - that a copy left is entered whatever planning makes of it
                    log.failure("consequence_not_planned", error, delivery=delivery.id)
                if plan is not None:
                    seen.add(delivery.thread or delivery.id)
            entered.append((delivery, attempt))
            plans.append(plan)
        problems, allowed = await self.store.conclude([attempt for _, attempt in entered], plans, going)
        broken = []
        for cause, problem in zip(entered, problems, strict=True):
            if isinstance(problem, Stale):
                again.append(cause)
            elif problem is not None:
                log.failure("plan_not_recorded", problem, delivery=cause[0].id)
                broken.append(cause)
        await self._unplanned(broken)
        return again, allowed

    async def _unplanned(self, waiting: Sequence[tuple[Delivery, Attempt]]) -> None:
        """Enter tries whose meaning could not be written: that a copy left must be known whatever else fails."""
        if not waiting:
            return
        for delivery, _ in waiting:
            log.get().error("plan_not_recorded", delivery=delivery.id, reference=delivery.reference)
        await self.store.finish([attempt for _, attempt in waiting])


def _came_back(delivery: Delivery) -> bool:
    """Whether a follow-up's copy was on the wire before: it may have been stopped there, out of reach."""
    return bool(delivery.thread) and bool(delivery.attempts or delivery.state is DeliveryState.AMBIGUOUS)


def _spoke_of_a_hold(delivery: Delivery) -> bool:
    """Whether a desk was to read that an arrival is held, and the mail had to wait for its minute."""
    return delivery.why is Why.RATE_LIMITED and planning.tells_of_hold(delivery)


def _tells(site: Site, delivery: Delivery, attempt: Attempt) -> bool:
    """Whether somebody may have to know how this try ended."""
    if attempt.state is DeliveryState.SENT:
        return planning.wants_sent(site, delivery, attempt.at)
    return attempt.state is DeliveryState.FAILED
