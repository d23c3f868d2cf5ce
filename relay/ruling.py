"""Which rules are in force, and what becomes of a changed file.

A file that cannot be read, fails its tests or would take something from somebody leaves the rules in force as they
are; the admins are told once. What is in force stands in the store, so that a restart with a broken file runs it,
and every process of the relay follows the same. The swap is one reference, between two messages.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from relay import log, metrics, planning
from relay.errors import RelaisError, Stale, Unavailable
from relay.store import RuleFile
from relay.wording import RULE_FILE
from rules import language
from rules.facts import composed
from rules.source import MAX_BYTES

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.ports import Clock
    from relay.store import ActiveRules, Store, StoredDecision
    from relay.wording import Words
    from rules.language import Finding, RuleSet
    from rules.replaying import Replay
    from rules.weakening import Compared

LOOK_EVERY = 2.0
"""Seconds between two looks at the file; a change counts once two of them saw the same."""
SETTLE = 0.2
"""Seconds between two readings of a file that somebody may be writing."""
SETTLE_TRIES = 20
LOOK_BACK = 100
"""Revisions that are asked how long a rule was only observed."""
GATE = timedelta(days=30)
GATE_MOST = 10_000
"""A change is weighed on the stored facts of so long, at most so many of the latest decisions."""


def rules_site(settings: Settings) -> language.Site:
    """What a rule file may refer to."""
    spellings = tuple(frozenset((composed(ward.name), ward.slug)) for ward in settings.wards.values())
    return language.Site(
        adapters={name: table.kind for name, table in settings.adapters.items()},
        desks={name: desk.sees for name, desk in settings.desks.items()},
        rotas=frozenset(settings.rotas),
        wards=frozenset[str]().union(*spellings),
        language=settings.language,
        spellings=spellings,
    )


# ------------------------------------------------------------------------------------------------------ the file


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A rule file and the tests beside it as they stood at one moment; None where one could not be read."""

    text: bytes | None
    tests: bytes | None

    @property
    def digest(self) -> str:
        """Of both files together."""
        parts = (self.text, self.tests)
        return hashlib.sha256(b"\0".join(b"-" if p is None else b"+" + p for p in parts)).hexdigest()

    @property
    def rules_digest(self) -> str | None:
        """The digest of the rule set it would make."""
        return None if self.text is None else hashlib.sha256(self.text).hexdigest()


@dataclass(frozen=True, slots=True)
class Checked:
    """A rule file read and tested: `rules` None when it must not be put in force; `findings` say why."""

    file: Path
    disk: OnDisk
    rules: RuleSet | None
    findings: tuple[Finding, ...]

    @property
    def error(self) -> Finding | None:
        """The first error."""
        return next((finding for finding in self.findings if finding.severity == "error"), None)

    def first(self, lang: str) -> str:
        """The first error in one line."""
        found = self.error
        if found is None:
            return f"{self.file.name} : illisible" if lang == "fr" else f"{self.file.name}: cannot be read"
        return f"{Path(found.file).name}:{found.line}:{found.column} {found.code} {found.message}"


def on_disk(file: Path) -> OnDisk:
    """Read a rule file and the tests beside it."""
    from rules import cases

    return OnDisk(_bytes(file), _bytes(Path(cases.tests_beside(str(file)))))


def _bytes(file: Path) -> bytes | None:
    """None for what is no file as well: a pipe would be waited for, for ever. Of one too large no more than shows it."""
    try:
        if not file.is_file():
            return None
        with file.open("rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except OSError:
        return None


def check(file: Path, disk: OnDisk, site: language.Site | None, lang: str) -> Checked:
    """Whether a file may be put in force: it can be read, no rule is dead, and every test beside it passes.

    Half a second for 500 rules, most of it the search for dead ones: for a thread, and for a file that is not
    in force yet. What is in force was checked then, and a start does not ask again.
    """
    from rules import cases, engine, reach

    if disk.text is None:
        return Checked(file, disk, None, ())
    rules, findings = language.load(disk.text, str(file), site, lang)
    if rules is not None:
        findings = (*findings, *reach.findings(rules, lang))
        beside = cases.tests_beside(str(file))
        if disk.tests is None:
            findings = (*findings, cases.without_tests(str(file), lang))
        else:
            findings = (*findings, *cases.run(rules, disk.tests, beside, lang).findings)
    bad = any(finding.severity == "error" for finding in findings)
    if rules is not None and not bad:
        engine.prepare(rules)
    return Checked(file, disk, None if bad else rules, findings)


# -------------------------------------------------------------------------------------------------- what it changes


@dataclass(frozen=True, slots=True)
class Weighed:
    """What a change of rules would do: on the stored facts, and on any facts there can be."""

    replay: Replay
    compared: Compared | None  # None: no rules are in force, there is nothing to take away
    since: datetime

    @property
    def harmless(self) -> bool:
        """Proved: nobody loses a letter, an alert or a reminder by it, and nothing more is held."""
        return (self.compared is None or self.compared.harmless) and not self.replay.takes_away

    def note(self) -> str:
        """The figures for the trail."""
        figures = {
            "replayed": self.replay.replayed, "changed": self.replay.replayed - self.replay.unchanged,
            "held": self.replay.held, "lost": sum(self.replay.lost.values()),
            "not_replayable": self.replay.not_replayable, "proved": int(self.harmless),
        }  # fmt: skip
        return " ".join(f"{name}={value}" for name, value in figures.items())

    def harm(self, lang: str) -> str:
        """What would be taken away, in one line."""
        from rules.outcome import in_words

        french, replay = lang == "fr", self.replay
        said: list[str] = []
        if replay.held:
            words = "{} avis récents seraient retenus" if french else "{} recent notices would be held"
            said.append(words.format(replay.held))
        for who, count in replay.lost.most_common(3):
            words = "{} ne serait plus prévenu ({} avis)" if french else "{} would not be told ({} notices)"
            said.append(words.format(in_words(who, french=french), count))
        if not said and self.compared is not None:
            for each in self.compared.weaker[:2]:
                what = ", ".join(in_words(str(person), french=french) for person in each.loss.people)
                if each.loss.held:
                    what = "retenu" if french else "held"
                said.append(f"{each.rule} → {each.instead} : {what}")
            if not self.compared.complete:
                said.append(
                    "trop de différences pour tout comparer"
                    if french
                    else "too different to be compared whole"
                )
        return " ; ".join(said)


async def weigh(
    store: Store,
    site: language.Site | None,
    before: RuleSet | None,
    after: RuleSet,
    *,
    now: datetime,
    since: datetime,
    most: int = GATE_MOST,
) -> Weighed:
    """Replay the stored facts through both sets, and search for a notice that the change takes something from.

    Pages of facts are replayed in a thread; nothing but counts is kept.
    """
    from rules.replaying import Replay
    from rules.weakening import compare

    known: dict[str, RuleSet | None] = {each.digest: each for each in (before, after) if each is not None}
    replay = Replay(before, after, known.get)
    async for page in store.decisions(since, most):
        for digest in sorted({each.ruleset for each in page} - known.keys()):
            known[digest] = await once_in_force(store, digest, site)
        await asyncio.to_thread(_replay, replay, page)
    compared = None if before is None else await asyncio.to_thread(compare, before, after, now)
    return Weighed(replay, compared, since)


def _replay(replay: Replay, page: Sequence[StoredDecision]) -> None:
    for each in page:
        replay.add(each.facts, each.at, each.ruleset, each.reference or each.envelope[:8])


async def once_in_force(store: Store, digest: str, site: language.Site | None) -> RuleSet | None:
    """The rule set of a stored decision; None when it is kept no more, or is not of this language any more."""
    active = await store.rules_of(digest) if digest else None
    if active is None:
        return None
    return await asyncio.to_thread(_loaded, active, site, "fr")


def _loaded(active: ActiveRules, site: language.Site | None, lang: str, name: str = "") -> RuleSet | None:
    name = name or f"revision-{active.revision}.yaml"
    rules, _ = language.load(active.text, name, site, lang, explaining=True)
    return rules


def _made_ready(active: ActiveRules, site: language.Site | None, lang: str, name: str) -> RuleSet | None:
    """The set, of which the first decision takes no longer than the others: it is taken on the event loop."""
    from rules import engine

    rules = _loaded(active, site, lang, name)
    if rules is not None:
        engine.prepare(rules)
    return rules


async def in_force(settings: Settings, store: Store) -> tuple[ActiveRules | None, RuleSet | None]:
    """What is in force now; no rule set where none ever was, or the configuration lacks what it names."""
    active = await store.rules_active()
    if active is None:
        return None, None
    return active, await asyncio.to_thread(
        _made_ready, active, rules_site(settings), settings.language, settings.rules.name
    )


async def standing(settings: Settings, store: Store) -> dict[str, object]:
    """The set in force, and whether the file on disk is that set (`status`, docs/interface.md, States)."""
    active, mark = await store.rules_active(), await store.rule_file()
    disk = await asyncio.to_thread(on_disk, settings.rules)
    matches = active is not None and disk.rules_digest == active.digest
    found: dict[str, object] = {
        "digest": active.digest if active else None,
        "active_since": active.active_since if active else None,
        "file_matches": matches,
    }
    if not matches and mark is not None and mark.digest == disk.digest:
        found |= {"file": mark.state, "file_since": mark.since}
    return found


async def differing(settings: Settings, store: Store, words: Words) -> str:
    """That the file on the disk is not what is in force, since when and why, in one line; "" where it is."""
    found = await standing(settings, store)
    if found["file_matches"]:
        return ""
    disk = await asyncio.to_thread(on_disk, settings.rules)
    state = "missing" if disk.text is None else str(found.get("file", "unread"))
    since, active = found.get("file_since"), found["active_since"]
    return words.rules_differ(
        settings.rules.name,
        state if state in RULE_FILE else "unread",
        since if isinstance(since, datetime) else None,
        active if isinstance(active, datetime) else None,
    )


def counted(rules: RuleSet | None, counts: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The store's counts by the rules' present ids: what a rule did under an earlier name (`was`) is its own."""
    found: dict[str, dict[str, int]] = {}
    for name, each in counts.items():
        now = rules.rule(name) if rules is not None else None
        into = found.setdefault(now.id if now is not None else name, {})
        for what, count in each.items():
            into[what] = into.get(what, 0) + count
    return found


async def observed(
    store: Store, rules: RuleSet, site: language.Site | None, now: datetime
) -> dict[str, tuple[int, int]]:
    """Id → (whole days it has been in `mode: observe` without a break, notices observed in them), for W302."""
    known = {entry.id: (entry.id, *entry.was) for entry in rules.every() if entry.mode == "observe"}
    waiting = set(known)
    since: dict[str, datetime] = {}
    for active in await store.rules_history(LOOK_BACK):
        if not waiting:
            break
        past = await asyncio.to_thread(_loaded, active, site, "fr")
        for name in list(waiting):
            then = next((e for e in (past.every() if past else ()) if e.id in known[name]), None)
            if then is None or then.mode != "observe":
                waiting.remove(name)
            else:
                since[name] = active.active_since
    return {
        name: ((now - at).days, await store.observed_since(known[name], at)) for name, at in since.items()
    }


def _in_force_again(mark: RuleFile | None, now: datetime) -> RuleFile | None:
    """What is kept of a file that is in force now: that the admins, told of its error, are to be told that it is over."""
    if mark is not None and mark.state in ("refused", "mended") and (mark.told or mark.state == "mended"):
        return RuleFile(mark.digest, "mended", now)
    return None


async def put_in_force(
    settings: Settings,
    store: Store,
    rules: RuleSet,
    *,
    by: str,
    reason: str,
    after: int,
    note: str,
    now: datetime,
    configured: bool = False,
) -> int:
    """A person puts rules in force; the new revision. Raises Stale where others came after revision `after`.

    Whatever the configured file says at this moment, the person knows: it counts again once it changes. With
    `configured` it was this file that the rules were read from: if it says something else by now, somebody
    changed it meanwhile, and it is still to be judged.
    """
    revision = await store.activate_rules(
        rules.text, rules.digest, by=by, reason=reason, after=after, note=note
    )
    mark, disk = await store.rule_file(), await asyncio.to_thread(on_disk, settings.rules)
    if disk.rules_digest == rules.digest:
        await store.note_rule_file(_in_force_again(mark, now))
    elif not configured and (mark is None or (mark.digest, mark.state) != (disk.digest, "refused")):
        aside = disk.rules_digest or ""
        await store.note_rule_file(RuleFile(disk.digest, "passed_over", now, told=True, aside=aside))
    return revision


# ---------------------------------------------------------------------------------------------------------- ruling


class Ruling:
    """Keeps one process on the rules in force, and puts a changed file in force where that takes nothing away."""

    def __init__(
        self, settings: Settings, store: Store, clock: Clock, use: Callable[[RuleSet | None], None]
    ) -> None:
        """`use` is told each time that other rules are in force."""
        self.settings, self.store, self.clock, self._use = settings, store, clock, use
        self.rules: RuleSet | None = None
        self.revision = 0
        self.site = rules_site(settings)
        self._generation = -1
        self._seen: object = None
        self._judged: object = None
        self._lock = asyncio.Lock()

    async def start(self) -> RuleSet | None:
        """The rules to begin with: the file when it may be put in force, else the last good ones; None holds all."""
        async with self._lock:
            await self._follow()
            stamp = await asyncio.to_thread(self._stamp)
            disk = await self._settled(stamp)
            await self._judge(disk)
            self._judged = stamp
        return self.rules

    async def run(self, site: planning.SiteSource) -> None:
        """Tell the admins what the start found, then look for ever."""
        news = True
        while True:
            try:
                if news or await self.look():
                    await self.tell(site())
                news = False
            except Unavailable as error:
                log.failure("rules_not_looked_at", error)
            await self.clock.sleep(LOOK_EVERY)

    async def look(self) -> bool:
        """One look at the store and at the file; whether there may be something to tell."""
        async with self._lock:
            generation, followed = self.store.generation, False
            if generation != self._generation:
                followed = await self._follow()
                self._generation = generation
            if followed:
                self._gauge(await self.store.rule_file())
            stamp = await asyncio.to_thread(self._stamp)
            if stamp == self._judged:
                return followed
            disk = await asyncio.to_thread(on_disk, self.settings.rules)
            seen = (stamp, disk.digest)
            if seen != self._seen:
                self._seen = seen  # it may be half written: one more look
                return followed
            self._judged = stamp
            await self._judge(disk)
            return True

    async def reload(self) -> None:
        """SIGHUP: judge the file now, as soon as nobody writes it."""
        async with self._lock:
            await self._follow()
            stamp = await asyncio.to_thread(self._stamp)
            await self._judge(await self._settled(None))
            self._judged = stamp

    # -- the file

    def _stamp(self) -> object:
        """What changes when the file or its tests do, or who may read them."""
        from rules import cases

        found: list[tuple[int, ...] | None] = []
        for file in (self.settings.rules, Path(cases.tests_beside(str(self.settings.rules)))):
            try:
                said = file.stat()
            except OSError:
                found.append(None)
            else:
                found.append((said.st_mtime_ns, said.st_ctime_ns, said.st_size, said.st_ino))
        return tuple(found)

    async def _settled(self, stamp: object) -> OnDisk:
        """The file once two readings agree; a file that was not touched lately is read once."""
        disk = await asyncio.to_thread(on_disk, self.settings.rules)
        if stamp is not None and not self._fresh(stamp):
            return disk
        for _ in range(SETTLE_TRIES):
            await self.clock.sleep(SETTLE)
            again = await asyncio.to_thread(on_disk, self.settings.rules)
            if again == disk:
                break
            disk = again
        return disk

    def _fresh(self, stamp: object) -> bool:
        assert isinstance(stamp, tuple)  # noqa: S101 - made by _stamp
        now = self.clock.now().timestamp()
        return any(each is not None and abs(now - each[0] / 1e9) < LOOK_EVERY for each in stamp)

    async def _judge(self, disk: OnDisk) -> None:
        """What becomes of the file as it stands now."""
        try:
            await self._judged_well(disk)
        except RelaisError:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of ours in judging a file must not end the relay
            log.failure("rules_file_not_judged", error)
            first = f"{self.settings.rules.name}: {type(error).__name__}"
            mark = RuleFile(disk.digest, "refused", self.clock.now(), first)
            await self._set_aside(mark, await self.store.rule_file())

    async def _judged_well(self, disk: OnDisk) -> None:
        mark = await self.store.rule_file()
        active = await self.store.rules_active()
        if active is not None and disk.rules_digest == active.digest and self.rules is not None:
            await self._mark(_in_force_again(mark, self.clock.now()))
            return
        if mark is not None and mark.aside and mark.aside == disk.rules_digest:
            # Other tests beside them, or a while in which the file was away, make no other rules of them.
            if (mark.digest, mark.state) != (disk.digest, "passed_over"):
                now = self.clock.now()
                mark = RuleFile(disk.digest, "passed_over", now, told=True, aside=mark.aside)
                await self.store.note_rule_file(mark)
            self._gauge(mark)
            return
        if mark is not None and mark.digest == disk.digest and mark.state in ("passed_over", "waiting"):
            self._gauge(mark)
            return
        checked = await asyncio.to_thread(check, self.settings.rules, disk, self.site, self.settings.language)
        if checked.rules is None:
            found, first = checked.error, checked.first(self.settings.language)
            log.get().error(
                "rules_file_missing" if disk.text is None else "rules_file_refused",
                code=found.code if found else None,
                file=Path(found.file).name if found else self.settings.rules.name,
                line=found.line if found else None,
            )  # fmt: skip
            await self._set_aside(RuleFile(disk.digest, "refused", self.clock.now(), first), mark)
            return
        note, now = "", self.clock.now()
        if self.rules is not None:
            weighed = await weigh(self.store, self.site, self.rules, checked.rules, now=now, since=now - GATE)
            note = weighed.note()
            if not weighed.harmless:
                log.get().warning("rules_file_waiting", file=self.settings.rules.name)
                harm = weighed.harm(self.settings.language)
                await self._set_aside(RuleFile(disk.digest, "waiting", now, harm), mark)
                return
        await self._activate(checked.rules, note)

    async def _activate(self, rules: RuleSet, note: str) -> None:
        try:
            self.revision = await self.store.activate_rules(
                rules.text, rules.digest, by="relay", reason="file", after=self.revision, note=note
            )
        except Stale:  # another process, or a person, was faster
            await self._follow()
            return
        log.get().info("rules_activated", digest=rules.digest[:12])
        self._swap(rules)
        await self._mark(_in_force_again(await self.store.rule_file(), self.clock.now()))

    async def _set_aside(self, mark: RuleFile, before: RuleFile | None) -> None:
        """The rules in force stay. Since when, and whether the admins know, is kept from the last time it was judged."""
        if before is not None:
            mark = replace(mark, aside=before.aside)
        if before is not None and (before.digest, before.state) == (mark.digest, mark.state):
            mark = replace(mark, since=before.since, told=before.told)
        await self._mark(mark)

    async def _mark(self, mark: RuleFile | None) -> None:
        await self.store.note_rule_file(mark)
        self._gauge(mark)

    def _gauge(self, mark: RuleFile | None) -> None:
        metrics.ruleset_ok(self.rules is not None and (mark is None or mark.state == "mended"))

    async def tell(self, site: planning.Site) -> None:
        """One mail to each admin for a file that was set aside, and one when it is in force again after an error."""
        mark = await self.store.rule_file()
        if mark is None or mark.told or mark.state == "passed_over":
            return
        seed = f"{mark.digest}/{self.revision}" if mark.state != "mended" else mark.digest
        plan = planning.plan_rules(site, mark.state, mark.first, seed, self.clock.now())
        for problem in await self.store.record([plan]) if plan is not None else ():
            if problem is not None:
                log.failure("plan_not_recorded", problem)
                return
        await self.store.note_rule_file(None if mark.state == "mended" else replace(mark, told=True))

    # -- the store

    async def _follow(self) -> bool:
        """Run what is in force, whoever put it there; whether that was something new."""
        revision = await self.store.rules_revision()
        if revision == self.revision:
            return False
        active, rules = await in_force(self.settings, self.store)
        self.revision = active.revision if active else 0
        if active is not None and rules is None:
            log.get().error("rules_in_force_unreadable", digest=active.digest[:12])
        else:
            log.get().info("rules_followed", digest=active.digest[:12] if active else None)
        self._swap(rules)
        return True

    def _swap(self, rules: RuleSet | None) -> None:
        self.rules = rules
        self._use(rules)
