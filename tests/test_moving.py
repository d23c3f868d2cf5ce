"""Open follow-ups on the rules in force: shown first, moved once, and none without a time or a desk meanwhile."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from relay import config, daemon, operations, planning, ruling, threads
from relay.config import Settings
from relay.errors import NotFound, Refused, Stale, UsageError
from relay.model import DeliveryNews, DeliveryState, Plan, ThreadState, ThreadView, Timer, Verb, Why
from relay.planning.sending import pinned
from relay.store import Store
from relay.threads import Event, Happening
from relay.vault import FileKeyRing
from rules import language
from rules.language import RuleSet
from tests import letters
from tests.commands import Done, in_a_fork, in_a_process
from tests.conftest import GP as GP_BOX
from tests.conftest import WARD
from tests.letters import MARTIN, ODETTE
from tests.servers.dovecot import Dovecot
from tests.site import Site, parsed
from tests.stores import GP, Place, batch, envelope, letter, mail, thread

ROOT = Path(__file__).resolve().parent.parent
MakeSite = Callable[..., Site]
Command = Callable[..., Done]

CONFIG = """\
[relay]
rules = "routes.yaml"
domains = ["*.mssante.fr"]
[adapters.mss]
kind = "smtp"
host = "127.0.0.1"
port = 2525
security = "none"
from = "relais@relais45.mssante.fr"
[desks.sorties]
mail = "sorties@chr-exemple.mssante.fr"
[desks.cpts]
mail = "coordination@cpts-exemple.mssante.fr"
"""
RULES = """\
version: 1
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  ping: { who: registered_gp, via: [telegram], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
  cpts: { who: desk/cpts, via: [mss], carries: pointer }
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
followups:
  standard:
    await: ack
    ack: { within: 2d, clock: real }
    ladder: [ { after: 2d, remind: ping }, { after: 3d, remind: gp }, { after: 5d, hand_to: sorties } ]
  urgent:
    await: ack
    ack: { within: 3d, clock: cabinet }
    ladder: [ { after: 5d, clock: cabinet, hand_to: sorties } ]
rules:
  - id: urgente
    when: { event: discharge, urgency: urgent }
    send: [gp]
    followup: urgent
  - id: sortie
    when: { event: discharge }
    send: [gp, ping]
    followup: standard
default: { hold: sorties, reason: "Rien ne va" }
"""
SHORTER = RULES.replace(
    "{ after: 2d, remind: ping }, { after: 3d, remind: gp }, { after: 5d, hand_to: sorties }",
    "{ after: 1d, remind: gp }, { after: 4d, hand_to: cpts }",
).replace("within: 2d", "within: 36h")
RENAMED = SHORTER.replace("standard", "ordinaire")

NOW = datetime.now(UTC)
SENT = NOW - timedelta(hours=30)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    folder = tmp_path / "site"
    (folder / "state").mkdir(parents=True)
    (folder / "config.toml").write_text(CONFIG, encoding="utf-8")
    (folder / "routes.yaml").write_text(RULES, encoding="utf-8")
    return config.read(folder / "config.toml")


async def in_force(settings: Settings, store: Store, text: str) -> RuleSet:
    rules, findings = language.load(text, "routes.yaml", ruling.rules_site(settings))
    assert rules is not None, findings
    await store.activate_rules(text, rules.digest, by="anne", reason="essai")
    return rules


async def followed(store: Store, rules: RuleSet, *numbers: int, name: str = "standard") -> None:
    """Letters sent thirty hours ago, each with its thread."""
    await store.accept(batch(*numbers))
    plans = []
    for number in numbers:
        new = replace(
            thread(number), followup=pinned(rules, name), opened_at=SENT, started_at=SENT, revision=-1
        )
        step = threads.opened(new, SENT)
        plans.append(letter(number, at=SENT, thread=step.thread, timers=step.timers))
    assert set(await store.record(plans)) == {None}


async def happens(store: Store, number: int, what: Verb | Happening, by: str = "", **more: Any) -> None:
    """Something moves a thread before the migration comes."""
    view = await store.view(thread(number).id)
    step = threads.advance(view.thread, Event(what, by, **more), NOW - timedelta(hours=1), view.timers)
    assert step.changed
    after = replace(step.thread, version=view.thread.version + 1)
    dropped = (after.id,) if step.anew else ()
    assert await store.record([Plan(at=NOW, thread=after, timers=step.timers, drop_timers=dropped)]) == [None]


async def views(store: Store) -> dict[str, ThreadView]:
    return {view.thread.reference: view async for page in store.open_threads() for view in page}


@pytest.fixture
async def two(settings: Settings, place: Place, store: Store) -> RuleSet:
    """Two threads on the first rules; the shorter ones are in force."""
    place.clock.at = NOW
    await followed(store, await in_force(settings, store, RULES), 1, 2)
    return await in_force(settings, store, SHORTER)


async def whole(store: Store) -> tuple[object, ...]:
    return await views(store), await store.audit_export(), await store.deliveries()


# --------------------------------------------------------------------------------------------------------- previews


async def test_a_preview_says_what_would_change_and_writes_nothing(
    settings: Settings, store: Store, two: RuleSet
) -> None:
    before = await whole(store)
    seen = await operations.migrate(settings, store)
    assert await whole(store) == before
    assert (seen.looked_at, seen.unchanged, seen.applied) == (2, 0, False)
    move = seen.moves[0]
    assert (move.before.level, move.after.level, move.at_once) == (0, 0, "remind")
    assert (move.before.deadline, move.after.deadline) == (
        SENT + timedelta(days=2),
        SENT + timedelta(hours=36),
    )
    # The chat and the first desk are heard of no more; the GP's mailbox and the other desk are.
    assert set(move.lost) == {"registered_gp (telegram)", "desk/sorties"}


async def test_the_same_follow_up_in_other_rules_is_left_alone(
    settings: Settings, place: Place, store: Store
) -> None:
    place.clock.at = NOW
    rules = await in_force(settings, store, RULES)
    await followed(store, rules, 1)
    await followed(store, rules, 2, name="urgent")
    await in_force(settings, store, RULES.replace("Rien ne va", "Rien ne va plus"))
    before = await whole(store)
    seen = await operations.migrate(settings, store, apply=True, reason="x")
    assert (seen.unchanged, seen.moves) == (2, ())
    assert await whole(store) == before


# ---------------------------------------------------------------------------------------------------------- applied


async def test_every_open_thread_gets_the_new_times_and_the_trail_says_who_did_it(
    settings: Settings, store: Store, two: RuleSet
) -> None:
    await happens(store, 2, Verb.ASK, GP)
    done = await operations.migrate(settings, store, apply=True, by="anne", reason="échelle trop longue")
    assert len(done.moves) == 2
    found = await views(store)
    waits, asked = found[thread(1).reference], found[thread(2).reference]
    assert all(view.thread.followup == pinned(two, "standard") for view in found.values())
    # What is past comes at once; what a question began counts from the question.
    assert [t.due - SENT for t in waits.timers if t.level == 1] == [timedelta(days=4)]
    assert NOW <= waits.timers[0].due <= datetime.now(UTC)
    assert [t.due - (NOW - timedelta(hours=1)) for t in asked.timers] == [
        timedelta(days=1),
        timedelta(days=4),
    ]
    assert not any((await store.invariants()).values())
    assert (await store.audit_verify())["ok"]
    trail = [line for line in await store.audit_export() if str(line["act"]).startswith("thread")]
    assert [(line["actor"], line["act"], line["subject"]) for line in trail] == [
        *(("admin:anne", "thread_migrated", name) for name in sorted(thread(n).id for n in (1, 2))),
        ("admin:anne", "threads_migrated", two.digest),
    ]
    assert trail[-1]["note"] == "moved=2 left=0 19 characters"
    again = await operations.migrate(settings, store, apply=True, reason="encore")
    assert (again.moves, again.unchanged) == ((), 2)


async def test_what_has_an_owner_a_desk_or_an_end_keeps_it(
    settings: Settings, place: Place, store: Store
) -> None:
    place.clock.at = NOW
    await followed(store, await in_force(settings, store, RULES), 1, 2, 3)
    await in_force(settings, store, SHORTER)
    await happens(store, 1, Verb.ACK, GP, words="Dr Ambre")
    await happens(store, 2, Verb.HAND_OVER, "desk:sorties", to="desk:sorties")
    await happens(store, 3, Verb.CLOSE, "desk:sorties")
    before = await store.view(thread(3).id)
    done = await operations.migrate(settings, store, apply=True, reason="x")
    assert len(done.moves) == 2
    assert all(move.lost == () for move in done.moves)
    found = await views(store)
    acked, desk = found[thread(1).reference], found[thread(2).reference]
    assert (acked.thread.owner, [t.kind for t in acked.timers]) == (GP, ["close"])
    assert (desk.thread.desk, desk.timers) == ("sorties", ())
    assert await store.view(thread(3).id) == before
    assert not any((await store.invariants()).values())


async def test_a_letter_that_was_read_ends_a_wait_that_reading_now_ends_but_an_earlier_letter_s_reading_does_not(
    settings: Settings, place: Place, store: Store
) -> None:
    place.clock.at = NOW
    rules = await in_force(settings, store, RULES)
    await followed(store, rules, 1, 2)
    view = await store.view(thread(2).id)
    newer = replace(view.thread, letter=envelope(1).id, version=view.thread.version + 1)
    seen = tuple(DeliveryNews(mail(number).id, DeliveryState.SEEN) for number in (1, 2))
    assert await store.record([Plan(at=NOW, thread=newer, news=seen)]) == [None]
    await in_force(settings, store, RULES.replace("await: ack", "await: seen"))
    done = await operations.migrate(settings, store, apply=True, reason="x")
    assert [(move.after.reference, move.at_once) for move in done.moves if move.at_once] == [
        (thread(1).reference, "close")
    ]
    read, waits = await store.view(thread(1).id), await store.view(thread(2).id)
    assert (read.thread.state, read.thread.closed_reason) == (ThreadState.CLOSED, Why.SEEN_NO_ANSWER)
    assert (waits.thread.state, len(waits.timers)) == (ThreadState.AWAITING_ACK, 3)
    assert not any((await store.invariants()).values())


async def test_a_copy_whose_receipt_is_awaited_is_still_awaited(
    settings: Settings, store: Store, two: RuleSet
) -> None:
    view = await store.view(thread(1).id)
    waiting = Timer(view.thread.id, "evidence", 0, view.thread.revision, NOW + timedelta(hours=1))
    await store.record([Plan(at=NOW, timers=(waiting,))])
    await operations.migrate(settings, store, apply=True, reason="x")
    after = await store.view(thread(1).id)
    (kept,) = [timer for timer in after.timers if timer.kind == "evidence"]
    assert (kept.due, kept.revision) == (waiting.due, after.thread.revision)


async def test_a_follow_up_that_is_no_more_is_named_and_moved_only_where_somebody_says_whereto(
    settings: Settings, place: Place, store: Store
) -> None:
    place.clock.at = NOW
    rules = await in_force(settings, store, RULES)
    await followed(store, rules, 1, 2)
    await followed(store, rules, 3, name="urgent")
    await in_force(settings, store, RENAMED)
    before = await whole(store)
    done = await operations.migrate(settings, store, apply=True, reason="x")
    assert (len(done.strays), done.unchanged, done.moves) == (2, 1, ())
    assert await whole(store) == before
    with pytest.raises(UsageError, match="--from"):
        await operations.migrate(settings, store, to="ordinaire", apply=True, reason="x")
    with pytest.raises(UsageError, match="ordinaire, urgent"):
        await operations.migrate(settings, store, named="standard", to="standard")
    one = await operations.migrate(
        settings, store, [thread(2).reference], to="urgent", apply=True, reason="x"
    )
    assert [move.after.followup.name for move in one.moves if move.after.followup] == ["urgent"]
    rest = await operations.migrate(settings, store, named="standard", to="ordinaire", apply=True, reason="x")
    assert [move.after.reference for move in rest.moves] == [thread(1).reference]
    assert not (await operations.migrate(settings, store)).strays


async def test_only_open_threads_that_there_are_can_be_named(
    settings: Settings, store: Store, two: RuleSet
) -> None:
    await happens(store, 2, Verb.CLOSE, "desk:sorties")
    with pytest.raises(Refused, match="closed"):
        await operations.migrate(settings, store, [thread(2).reference])
    with pytest.raises(NotFound):
        await operations.migrate(settings, store, ["9999-9999"])
    with pytest.raises(UsageError, match="reason"):
        await operations.migrate(settings, store, apply=True, reason=" ")


async def test_without_rules_in_force_nothing_moves(settings: Settings, store: Store) -> None:
    with pytest.raises(Refused, match="no rules"):
        await operations.migrate(settings, store)
    await in_force(settings, store, RULES)
    lost = config.parse(CONFIG[: CONFIG.index("[desks.cpts]")], settings.file)
    with pytest.raises(Refused, match="lacks what the rules in force name"):
        await operations.migrate(lost, store)


# ---------------------------------------------------------------------------------------- others act at the same time


async def test_three_who_migrate_at_once_move_each_thread_once(settings: Settings, place: Place) -> None:
    place.clock.at = NOW
    numbers = range(1, 31)
    async with place.opened("n1") as one, place.opened("n2") as two, place.opened("n3") as three:
        await followed(one, await in_force(settings, one, RULES), *numbers)
        await in_force(settings, one, SHORTER)
        done = await asyncio.gather(
            *(operations.migrate(settings, each, apply=True, reason="x") for each in (one, two, three))
        )
        assert sum(len(each.moves) for each in done) == len(numbers)
        assert not any(each.busy or each.strays for each in done)
        trail = [line["subject"] for line in await one.audit_export() if line["act"] == "thread_migrated"]
        assert sorted(map(str, trail)) == sorted(thread(n).id for n in numbers)
        assert not any((await one.invariants()).values())


async def test_an_answer_that_came_meanwhile_is_not_overwritten(
    settings: Settings, store: Store, two: RuleSet
) -> None:
    view = await store.view(thread(1).id)
    move = planning.plan_move(view, pinned(two, "standard"), "admin", NOW)
    assert move is not None
    await happens(store, 1, Verb.ACK, GP, words="Dr Ambre")
    (problem,) = await store.record([move.plan])
    assert isinstance(problem, Stale)
    done = await operations.migrate(settings, store, apply=True, reason="x")
    assert len(done.moves) == 2
    after = (await store.view(thread(1).id)).thread
    assert (after.state, after.owner, after.acknowledged_by) == (ThreadState.ACKNOWLEDGED, GP, "Dr Ambre")


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from relay import config, operations
from relay.store import Store
from relay.vault import FileKeyRing, Vault
from tests.stores import HandClock

class Dying(Store):
    async def record(self, plans):
        done = await super().record(plans)
        os.kill(os.getpid(), signal.SIGKILL)
        return done

async def main():
    url, ring, site = sys.argv[1:]
    store = await Dying.open(url, Vault(FileKeyRing(Path(ring))), clock=HandClock(), node="n2")
    await operations.migrate(config.read(Path(site)), store, apply=True, reason="x")

asyncio.run(main())
"""


async def test_killed_half_way_each_thread_is_whole_and_the_next_call_moves_the_rest(
    settings: Settings, place: Place, store: Store
) -> None:
    place.clock.at = NOW
    numbers = range(1, 251)
    await followed(store, await in_force(settings, store, RULES), *numbers)
    rules = await in_force(settings, store, SHORTER)
    ring = str(place.vault.ring.path)  # type: ignore[attr-defined]  # tests seal with a file's ring
    line = [sys.executable, "-c", KILLED, place.url, ring, str(settings.file)]
    process = await asyncio.create_subprocess_exec(*line, cwd=ROOT, stderr=subprocess.PIPE)
    _, errors = await process.communicate()
    assert process.returncode == -9, errors
    new = pinned(rules, "standard")
    half = [view.thread.followup == new for view in (await views(store)).values()]
    assert half.count(True) == 200
    assert not any((await store.invariants()).values())
    assert len((await operations.migrate(settings, store, apply=True, reason="x")).moves) == 50
    assert all(view.thread.followup == new for view in (await views(store)).values())
    assert not any((await store.invariants()).values())
    assert (await store.audit_verify())["ok"]


# ---------------------------------------------------------------------------------------------------- the command


@pytest.fixture
def relay(settings: Settings) -> Command:
    """Runs commands on a site with three threads, one of them closed, and shorter rules in force."""
    FileKeyRing.create(settings.keys_file)

    async def fill() -> None:
        store = await daemon.open_store(settings)
        try:
            await followed(store, await in_force(settings, store, RULES), 1, 2, 3)
            await happens(store, 3, Verb.CLOSE, "desk:sorties")
            await in_force(settings, store, SHORTER)
        finally:
            await store.close()

    asyncio.run(fill())

    def run(*words: str, code: int = 0, real: bool = False) -> Done:
        line = [*words, "--config", str(settings.file)]
        made = in_a_process(line) if real else in_a_fork(line, settings.file.parent)
        assert made.code == code, made
        return made

    return run


def test_the_command_shows_first_and_moves_with_a_reason(
    relay: Command,
) -> None:
    page = relay("threads", "migrate", real=True).out
    for words in (
        "révision 2", "0000-0001  standard", "étape : rappel « ping » (1 sur 3), ", " → rappel « gp » (1 sur 2), ",
        "tout de suite : rappel", "− le médecin traitant par telegram", "échéances déplacées : 2 plus tôt",
        "ne seraient plus prévenus : le bureau « sorties » × 2", "Rien n'a changé.",
    ):  # fmt: skip
        assert words in page
    english = relay("threads", "migrate", "--lang", "en", "0000-0002").out
    assert "step: reminder “ping” (1 of 3), " in english
    assert "0000-0001" not in english
    seen = relay("threads", "migrate", "--json").json
    assert {key: seen[key] for key in ("ok", "applied", "open", "unchanged", "moved", "at_once", "lost")} == {
        "ok": True, "applied": False, "open": 2, "unchanged": 0, "moved": 2, "at_once": {"remind": 2},
        "lost": {"registered_gp (telegram)": 2, "desk/sorties": 2},
    }  # fmt: skip
    row = seen["threads"][0]
    assert (row["from"]["next"], row["from"]["steps"]) == ("remind ping", 3)
    assert (row["to"]["next"], row["to"]["steps"], row["to"]["ruleset"]) == (
        "remind gp", 2, seen["rules"]["digest"],
    )  # fmt: skip
    assert row["to"]["deadline"] < row["from"]["deadline"]
    relay("threads", "migrate", "--apply", code=2)
    done = relay("threads", "migrate", "--apply", "--reason", "plus court", "--json").json
    assert (done["applied"], done["moved"]) == (True, 2)
    assert "Il n'y a rien à déplacer." in relay("threads", "migrate").out
    assert not any(relay("status", "--json").json["invariants"].values())
    relay("threads", "migrate", "9999-9999", code=1)


def test_the_command_ends_with_one_where_a_follow_up_has_no_successor(
    relay: Command, settings: Settings
) -> None:
    settings.rules.write_text(SHORTER.replace("Rien ne va", "Rien"), encoding="utf-8")
    hint = "Les suivis ouverts gardent leurs délais ; relay threads migrate"
    assert hint not in relay("rules", "apply", "--accept", "--reason", "autres mots").out
    settings.rules.write_text(RENAMED, encoding="utf-8")
    assert hint in relay("rules", "apply", "--accept", "--reason", "nouveau nom").out
    seen = relay("threads", "migrate", "--json", code=1).json
    assert (seen["ok"], seen["moved"]) == (False, 0)
    assert {(row["problem"], row["to"]) for row in seen["threads"]} == {("no_followup", None)}
    assert "--from standard --to" in relay("threads", "migrate", code=1).out
    relay("threads", "migrate", "--from", "standard", "--to", "ordinaire", "--apply", "--reason", "x")
    relay("threads", "migrate")


# ------------------------------------------------------------------------------------------------------ the daemon


LONG = """\
version: 1
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  sorties: { who: desk/sorties, via: [mss], carries: pointer }
followups:
  suivi: { await: ack, ack: { within: 2d, clock: real }, ladder: [ { after: 3d, hand_to: sorties } ] }
rules:
  - id: sortie
    when: { event: discharge }
    send: [gp]
    followup: suivi
default: { hold: sorties, reason: "Rien ne va" }
"""


def test_a_running_relay_goes_on_with_the_times_it_is_given(make_site: MakeSite, dovecot: Dovecot) -> None:
    site = make_site(rules=LONG)
    site.directory([MARTIN])
    site.patients([(ODETTE, [MARTIN])])
    dovecot.deliver(WARD, letters.text_mail(gp=MARTIN), sender="sorties.cardio@chr-exemple.mssante.fr")
    with site.running():
        dovecot.wait_messages(GP_BOX)
        site.until(lambda: site.rows("threads", state="awaiting_ack") and site.rows("threads")[0]["deadline"])
        site.row("deliveries", purpose="letter", state="accepted")
        file = site.folder / "routes.yaml"
        file.write_text(re.sub(r"after: 3d", "after: 1s", LONG), encoding="utf-8")
        site.relay("rules", "apply", "--accept", "--reason", "essai")
        (thread,) = site.rows("threads")
        assert thread["state"] == "awaiting_ack"
        moved = site.json("threads", "migrate", "--apply", "--reason", "essai")
        assert moved["at_once"] == {"hand_to": 1}
        (told,) = dovecot.wait_messages("dpo@chr-exemple.mssante.fr")
        assert thread["reference"] in str(parsed(told)["Subject"])
        assert site.rows("threads")[0]["state"] == "with_desk"
        assert not any(site.json("status")["invariants"].values())
        assert site.json("audit", "verify")["ok"]
