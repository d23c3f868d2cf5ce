"""What people do from the command line: each act reads, decides with the pure rooms, and records one plan.

Every act answers one row for the screen. Raises NotFound, Refused or UsageError; somebody else's change in
between is looked at again, never overwritten.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from relay import daemon, planning, ruling
from relay.clock import SystemClock
from relay.directory import NIGHTLY, Lookups
from relay.errors import NotFound, Refused, Stale, Unavailable, UsageError, Verdict
from relay.identity import family_names, normal_rpps
from relay.intake import Intake
from relay.model import (
    AuditEvent,
    DeliveryNews,
    DeliveryState,
    EnvelopeState,
    Person,
    Plan,
    ThreadState,
    Verb,
    Why,
)
from relay.planning import Correction
from relay.planning.copies import LEFT

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.model import Link, Pinned, Professional, Thread, ThreadView
    from relay.planning import Move, Site
    from relay.store import ActiveRules, Store

TRIES = 5


async def _site(settings: Settings, store: Store) -> Site:
    """The site under the rules in force. A changed file waits for the daemon: a command puts nothing in force."""
    active, rules = await ruling.in_force(settings, store)
    if active is None:
        rules = await ruling.Ruling(settings, store, SystemClock(), lambda _: None).start()
    return daemon.open_site(settings, rules)


def _now() -> datetime:
    return datetime.now(UTC)


@contextlib.asynccontextmanager
async def _intake(settings: Settings, store: Store) -> AsyncIterator[Intake]:
    """What decides letters, for one command; the directory is asked as the daemon asks it."""
    site = await _site(settings, store)
    async with asking_directories(settings, store) as lookups:
        yield Intake(store, {}, lambda: site, SystemClock(), daemon.opener(settings), lookups=lookups)


@contextlib.asynccontextmanager
async def asking_directories(settings: Settings, store: Store) -> AsyncIterator[Lookups]:
    """The configured directory adapters, closed at the end."""
    directories = daemon.directories(settings)
    lookups = Lookups(store, directories, SystemClock())
    try:
        yield lookups
    finally:
        await lookups.close()
        for each in directories.values():
            await each.close()


async def _recorded(store: Store, plan: Callable[[], Plan | None]) -> Plan | None:
    """Record what `plan` makes; when somebody changed it meanwhile, make it again."""
    for _ in range(TRIES):
        made = plan()
        if made is None:
            return None
        (problem,) = await store.record([made])
        if problem is None:
            return made
        if not isinstance(problem, Stale):
            raise problem
    raise Refused("somebody else is changing this at the moment; try again")


# --------------------------------------------------------------------------------------------------- arrivals


async def show_envelope(
    settings: Settings, store: Store, envelope: str, *, raw: Path | None = None
) -> dict[str, object]:
    """One arrival and its decision; `raw` gets the original bytes, readable by their owner alone."""
    row = dict(await store.envelope(envelope))
    if raw is not None:
        content = await store.raw(envelope)
        await asyncio.to_thread(_write_private, raw, content)
        row["raw"] = str(raw)
    return row


def _write_private(file: Path, content: bytes) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
        stream.write(content)


async def replay(settings: Settings, store: Store, envelope: str) -> dict[str, object]:
    """Decide again what is held, ignored, corrupt or open.

    What was decided stays as it is, whether its copies arrived or not: they left, perhaps by a person's word that
    the letter alone does not hold. Raises Refused for what a person set aside.
    """
    row = dict(await store.envelope(envelope))
    if row["why"] == Why.REJECTED:
        raise Refused("a person set this letter aside: it stays so")
    lost = row["state"] == EnvelopeState.HELD and (await store.hold(envelope)).lost
    if row["state"] != EnvelopeState.DECIDED and not lost:
        async with _intake(settings, store) as intake:
            await intake.replay(envelope)
        row = dict(await store.envelope(envelope))
    return row


async def release(
    settings: Settings, store: Store, held: str, *, gp: str | None, patient: str | None, by: str
) -> dict[str, object]:
    """Send a held letter on as a person decided."""
    if gp is not None and normal_rpps(gp) is None:
        raise UsageError("--gp is an RPPS: 11 digits")
    correction = Correction(
        by=_actor(settings, by), hold=held, gp=normal_rpps(gp) if gp else None, patient=patient
    )
    async with _intake(settings, store) as intake:
        reference = await intake.release(correction)
    return {"released": held, "reference": reference}


async def reject(settings: Settings, store: Store, held: str, *, reason: str, by: str) -> dict[str, object]:
    """Set a held letter aside for good."""
    if not reason.strip():
        raise UsageError("--reason must say why")
    site = await _site(settings, store)
    hold = await store.hold(held)
    await _recorded(store, lambda: planning.plan_reject(site, hold, _actor(settings, by), reason, _now()))
    return {"rejected": held}


# --------------------------------------------------------------------------------------------------- deliveries


async def retry(settings: Settings, store: Store, delivery: str) -> dict[str, object]:
    """Queue a failed or deferred copy again."""
    await store.requeue(delivery, by="admin")
    return {"delivery": delivery, "state": "queued"}


async def cancel(settings: Settings, store: Store, delivery: str) -> dict[str, object]:
    """Stop a copy that has not left; the GP's letter is then a desk's. Raises Refused when it has left."""
    return await stop_copy(await _site(settings, store), store, delivery, _now())


async def stop_copy(site: Site, store: Store, delivery: str, at: datetime) -> dict[str, object]:
    """`cancel`, by the rules of this site."""
    plan = Plan(
        at=at,
        news=(DeliveryNews(delivery, DeliveryState.CANCELLED, Why.BY_PERSON),),
        audit=(AuditEvent("admin", "delivery_cancelled", delivery, Why.BY_PERSON),),
    )
    (problem,) = await store.record([plan])
    if problem is not None:
        raise problem
    rows = await store.deliveries(ids=[delivery])
    if not rows:
        raise NotFound(f"no delivery {delivery}")
    if rows[0]["state"] != DeliveryState.CANCELLED:
        raise Refused(f"this copy is {rows[0]['state']}: it can be recalled, not cancelled")
    if rows[0]["thread"] and rows[0]["why"] == Why.BY_PERSON:
        # Only once it is sure that the copy will not leave: it might have, at this very moment.
        await _without_copy(site, store, str(rows[0]["thread"]), delivery, at)
    return {"delivery": delivery, "state": "cancelled"}


async def _without_copy(site: Site, store: Store, thread: str, delivery: str, at: datetime) -> None:
    """Carry what it means that this copy will not leave into its follow-up."""
    for _ in range(TRIES):
        view = await store.view(thread)
        copy = next(each for each in view.deliveries if each.id == delivery)
        made = planning.plan_cancelled(site, view, copy, "admin", at)
        if made is None:
            return
        (problem,) = await store.record([made])
        if problem is None:
            return
        if not isinstance(problem, Stale):
            raise problem
    raise Refused("somebody else is changing this follow-up at the moment; cancel the copy again")


# ------------------------------------------------------------------------------------------------------ threads


def _actor(settings: Settings, by: str, *, admins: bool = True) -> str:
    """Check who acts: RPPS (or rpps:RPPS), ward:SLUG, desk:NAME, or, where `admins` may, a name."""
    kind, colon, name = by.strip().partition(":")
    if not colon and (bare := normal_rpps(kind)) is not None:
        return f"rpps:{bare}"
    if not colon and admins and kind:
        return kind if kind == "admin" else f"admin:{kind}"
    if kind == "rpps":
        bare = normal_rpps(name)
        if bare is None:
            raise UsageError("--by rpps:… needs an RPPS: 11 digits")
        return f"rpps:{bare}"
    if kind == "ward":
        if name not in settings.wards:
            raise UsageError(f"no ward « {name} »; known are {', '.join(settings.wards) or 'none'}")
        return by
    if kind == "desk":
        if name not in settings.desks:
            raise UsageError(f"no desk « {name} »; known are {', '.join(settings.desks) or 'none'}")
        return by
    raise UsageError(f"--by « {by} » is no RPPS, ward:SLUG or desk:NAME")


def _owner(thread: Thread) -> str | None:
    """Who answers for it: a person, or the desk it lies with; as `threads list` says."""
    return thread.owner or (f"desk:{thread.desk}" if thread.desk else None)


_SHOWN: Final = frozenset(
    {
        "id", "reference", "state", "opened_at", "ward", "facility", "stay", "letter", "gp", "urgency", "owner",
        "desk", "level", "revision", "started_at", "counts_from", "deadline", "snoozed_until", "closed_at",
        "closed_reason", "participants", "version", "acknowledged_by", "acknowledged_at",
    }
)  # fmt: skip
"""What `threads show` tells of a thread itself; a field added later says nothing until it stands here."""


async def show_thread(settings: Settings, store: Store, ref: str) -> dict[str, object]:
    """One follow-up, its copies and its timers. Whose letter it is stays sealed: nobody needs the patient for these."""
    view = await store.thread(ref)
    row = {name: value for name, value in asdict(view.thread).items() if name in _SHOWN}
    row["owner"] = _owner(view.thread)
    row["participants"] = [each.key for each in view.thread.participants]
    row["followup"] = view.thread.followup.name if view.thread.followup else None
    row["deliveries"] = await store.deliveries(ids=[each.id for each in view.deliveries])
    row["timers"] = [{"kind": each.kind, "level": each.level, "due": each.due} for each in view.timers]
    return row


async def thread_verb(
    settings: Settings, store: Store, verb: str, ref: str, *, by: str, text: str | None
) -> dict[str, object]:
    """One verb of docs/threads.md on one follow-up. Raises UsageError where words are missing, Refused, NotFound."""
    if verb == Verb.ANSWER and not (text or "").strip():
        raise UsageError("an answer needs its words: --text")
    site = await _site(settings, store)
    actor = _actor(settings, by, admins=False)
    view = await store.thread(ref)
    return await _on_thread(
        store, view, lambda fresh: planning.plan_verb(site, fresh, Verb(verb), actor, text, _now())
    )


async def recall(settings: Settings, store: Store, ref: str, *, by: str, reason: str) -> dict[str, object]:
    """Take a letter back."""
    site = await _site(settings, store)
    actor = _actor(settings, by)
    view = await store.thread(ref)
    return await _on_thread(
        store, view, lambda fresh: planning.plan_recall(site, fresh, actor, reason, _now())
    )


async def _on_thread(store: Store, view: ThreadView, plan: Callable[[ThreadView], Plan]) -> dict[str, object]:
    for _ in range(TRIES):
        (problem,) = await store.record([plan(view)])
        view = await store.view(view.thread.id)
        if problem is None:
            thread = view.thread
            return {
                "reference": thread.reference,
                "state": thread.state,
                "owner": _owner(thread),
                "closed_reason": thread.closed_reason,
            }
        if not isinstance(problem, Stale):
            raise problem
    raise Refused("somebody else is changing this follow-up at the moment; try again")


@dataclass(frozen=True, slots=True)
class Migration:
    """What moving open follow-ups onto the rules in force would do, or did.

    `strays` are threads whose follow-up these rules do not have; `busy` those that changed under each try.
    """

    rules: ActiveRules
    moves: tuple[Move, ...] = ()
    unchanged: int = 0
    strays: tuple[Thread, ...] = ()
    busy: tuple[Thread, ...] = ()
    applied: bool = False

    @property
    def looked_at(self) -> int:
        """How many open threads were meant."""
        return len(self.moves) + self.unchanged + len(self.strays) + len(self.busy)


async def migrate(
    settings: Settings,
    store: Store,
    refs: Sequence[str] = (),
    *,
    named: str | None = None,
    to: str | None = None,
    apply: bool = False,
    by: str = "admin",
    reason: str = "",
) -> Migration:
    """Move open threads, or those of `refs` or on the follow-up `named`, to their follow-up in the rules in force.

    `to` names another one instead. Nothing is written unless `apply`; then a page of threads is one commit, each
    thread whole in it. Raises UsageError, NotFound, Refused.
    """
    if apply and not reason.strip():
        raise UsageError("--reason must say why")
    if to and not (named or refs):
        raise UsageError("--to needs --from FOLLOWUP, or the references it is meant for")
    actor = _actor(settings, by)
    active, rules = await ruling.in_force(settings, store)
    if active is None:
        raise Refused("no rules are in force: there is no follow-up to move to")
    if rules is None:
        raise Refused("the configuration lacks what the rules in force name (relay rules check)")
    if to and to not in rules.followups:
        raise UsageError(f"no follow-up « {to} »; these rules have {', '.join(rules.followups)}")
    done = Migration(active, applied=apply)
    async for page in _meant(store, refs):
        meant = [view for view in page if _is_meant(view, named)]
        known = {view.thread.id: planning.followup_for(rules, view.thread, to) for view in meant}
        strays = tuple(view.thread for view in meant if known[view.thread.id] is None)
        wanted = [(view, followup) for view in meant if (followup := known[view.thread.id]) is not None]
        moves, busy = await _moved(store, wanted, actor, apply=apply)
        done = replace(
            done,
            moves=done.moves + moves,
            unchanged=done.unchanged + len(wanted) - len(moves) - len(busy),
            strays=done.strays + strays,
            busy=done.busy + busy,
        )
    if apply and done.moves:
        left = len(done.strays) + len(done.busy)
        plan = planning.plan_moved(
            active.digest, actor, _now(), moved=len(done.moves), left=left, reason=reason
        )
        await store.record([plan])
    return done


async def _meant(store: Store, refs: Sequence[str]) -> AsyncIterator[tuple[ThreadView, ...]]:
    if not refs:
        async for page in store.open_threads():
            yield page
        return
    views = {view.thread.id: view for view in [await store.view(ref) for ref in refs]}
    for view in views.values():
        if view.thread.state is ThreadState.CLOSED:
            raise Refused(f"{view.thread.reference} is closed: only open follow-ups are moved")
    yield tuple(views.values())


def _is_meant(view: ThreadView, named: str | None) -> bool:
    followup = view.thread.followup
    if followup is None or view.thread.state is ThreadState.CLOSED:
        return False
    return named is None or followup.name == named


async def _moved(
    store: Store, wanted: Sequence[tuple[ThreadView, Pinned]], by: str, *, apply: bool
) -> tuple[tuple[Move, ...], tuple[Thread, ...]]:
    """The moves of one page, recorded where `apply`; and the threads that others kept changing."""
    moves: list[Move] = []
    waiting = list(wanted)
    for _ in range(TRIES):
        at = _now()
        planned = [
            (move, followup)
            for view, followup in waiting
            if (move := planning.plan_move(view, followup, by, at)) is not None
        ]
        if not apply:
            return tuple(move for move, _ in planned), ()
        waiting = []
        problems = await store.record([move.plan for move, _ in planned]) if planned else ()
        for (move, followup), problem in zip(planned, problems, strict=True):
            if problem is None:
                moves.append(move)
            elif isinstance(problem, Stale):
                waiting.append((await store.view(move.after.id), followup))
            else:
                raise problem
        if not waiting:
            break
    return tuple(moves), tuple(view.thread for view, _ in waiting)


# ------------------------------------------------------------------------------------------------------- people


async def objection(settings: Settings, store: Store, ins: str, scope: str, by: str) -> dict[str, object]:
    """Record an objection; stop what is queued, list what left for those it is about."""
    site = await _site(settings, store)
    await store.object(ins, scope, by)
    stopped: list[str] = []
    left: list[str] = []
    for view in await store.threads_of_patient(ins):
        await _stop(site, store, view, scope, by)
        for delivery in await store.deliveries(ids=[each.id for each in view.deliveries]):
            if delivery["why"] == Why.OBJECTION:
                stopped.append(str(delivery["id"]))
            elif delivery["state"] in LEFT and planning.objected(view.thread, str(delivery["to"]), scope):
                left.append(str(delivery["id"]))
    return {"ins": ins, "scope": scope, "cancelled": stopped, "left": left}


@dataclass(frozen=True, slots=True)
class Linked:
    """How many chat accounts were linked, and the RPPS that the directory lacks."""

    linked: int
    strangers: tuple[str, ...]


async def _stop(site: Site, store: Store, view: ThreadView, scope: str, by: str) -> None:
    """Carry an objection into one follow-up, whatever else happens to it at the moment."""
    for _ in range(TRIES):
        plan = planning.plan_objection(site, view, scope, by, _now())
        if plan is None:
            return
        (problem,) = await store.record([plan])
        if problem is None:
            return
        if not isinstance(problem, Stale):
            raise problem
        view = await store.view(view.thread.id)
    raise Refused("somebody else is changing a follow-up of this patient at the moment; object again")


async def link(settings: Settings, store: Store, links: Sequence[Link], *, notice: bool) -> Linked:
    """Link chat accounts of those the directory knows; each is told at their own secure mailbox if `notice`."""
    site = await _site(settings, store)
    now = _now()
    known = {each.rpps: each for each in await store.professionals([one.rpps for one in links], [])}
    sure = [one for one in links if one.rpps in known]
    await store.link(sure)
    if notice:
        plans = [plan for one in sure if (plan := planning.plan_linked(site, one, known[one.rpps], now))]
        for problem in await store.record(plans):
            if problem is not None:
                raise problem
    return Linked(len(sure), tuple(sorted({one.rpps for one in links} - set(known))))


async def refresh_directory(settings: Settings, store: Store, rpps: Sequence[str]) -> dict[str, object]:
    """Ask the directory adapters about these professionals, or about all in use. Raises Unavailable, UsageError."""
    async with _directories(settings, store) as lookups:
        asked = list(rpps) or list(await store.professionals_in_use(NIGHTLY))
        found = {each.rpps: each for each in await _asked(lookups, asked, [])} if asked else {}
    return {
        "asked": len(asked),
        "found": len(found),
        "left": sorted(each.rpps for each in found.values() if not each.active),
        "unknown": [each for each in asked if each not in found],
    }


async def ask_directory(settings: Settings, store: Store, text: str) -> None:
    """Ask the directory adapters about an RPPS or a family name as a person types it; the answers enter the copy."""
    bare = normal_rpps(text)
    if bare is None and "@" in text:
        raise UsageError("--online finds an RPPS or a family name: servers are not asked for addresses")
    async with _directories(settings, store) as lookups:
        await _asked(lookups, [bare] if bare else [], [] if bare else family_names(Person(name=text)))


@contextlib.asynccontextmanager
async def _directories(settings: Settings, store: Store) -> AsyncIterator[Lookups]:
    async with asking_directories(settings, store) as lookups:
        if not lookups.directories:
            raise UsageError("no directory adapter is configured: add one of kind annuaire")
        yield lookups


async def _asked(lookups: Lookups, rpps: Sequence[str], names: Sequence[str]) -> Sequence[Professional]:
    try:
        return await lookups.ask(rpps, names)
    except Verdict as verdict:
        raise Unavailable(f"the directory does not answer: {verdict}") from None


async def purge(settings: Settings, store: Store) -> dict[str, object]:
    """Apply the retention periods."""
    now = _now()
    counts: Mapping[str, int] = await store.purge(
        content_before=now - settings.keep_content,
        facts_before=now - settings.keep_facts,
        audit_before=now - settings.keep_audit,
    )
    return dict(counts)
