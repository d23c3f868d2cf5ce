"""The life of a rule file: what may enter into force by itself, what waits, what is refused, and what comes back."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from prometheus_client.parser import text_string_to_metric_families

from relay import config, daemon, metrics, planning, ruling
from relay.errors import Stale
from relay.model import Plan, Purpose, Why
from relay.ruling import Ruling
from relay.store import Store
from rules import language
from rules.language import RuleSet
from tests import letters
from tests.commands import Done, in_a_fork, in_a_process
from tests.letters import MARTIN, ODETTE
from tests.site import Site, free_port
from tests.stores import NOON, HandClock, Place, batch, decision, letter

ROOT = Path(__file__).resolve().parent.parent

CONFIG = """\
[relay]
rules = "routes.yaml"
domains = ["*.mssante.fr"]
admins = ["informatique@chr-exemple.mssante.fr"]
[adapters.mss]
kind = "smtp"
host = "127.0.0.1"
port = 2525
security = "none"
from = "relais@relais45.mssante.fr"
[desks.sorties]
mail = "sorties@chr-exemple.mssante.fr"
"""
RULES = """\
# Nos règles.
version: 1
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  ping: { who: registered_gp, via: [telegram], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups:
  standard: { await: ack, ack: { within: 2d }, ladder: [ { after: 3d, hand_to: sorties } ] }
rules:
  - id: sortie
    when: { event: discharge }
    send: [gp, ping]
    followup: standard

  - id: naissance
    when: { event: birth }
    send: [gp]
    followup: none
    mode: observe

default: { hold: sorties, reason: "Rien ne va" }
"""
TESTS = """\
tests:
  - name: une sortie
    given: { event: discharge, identity: qualified, gp: found }
    expect: { rule: sortie, send: [gp, ping] }
"""
LESS = RULES.replace("send: [gp, ping]", "send: [gp]")
MORE = RULES.replace("event: discharge }", "event: [discharge, er_visit] }")
BROKEN = RULES.replace("followup: standard", "followup: standart")
HALF = RULES[: RULES.index("  - id: naissance")] + "default: { hold: sorties, reason: x }\n"


@dataclass
class House:
    """One process of a relay: its file, and what it runs."""

    folder: Path
    store: Store
    clock: HandClock
    used: list[RuleSet | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.file = self.folder / "routes.yaml"
        self.settings = config.read(self.folder / "config.toml")
        self.ruling = Ruling(self.settings, self.store, self.clock, self.used.append)

    def write(self, text: str, tests: str | None = None) -> None:
        self.file.write_text(text, encoding="utf-8")
        if tests is not None:
            (self.folder / "routes.test.yaml").write_text(tests, encoding="utf-8")

    async def looks(self, count: int = 2) -> None:
        for _ in range(count):
            if await self.ruling.look():
                await self.ruling.tell(self.site)

    @property
    def site(self) -> planning.Site:
        return daemon.open_site(self.settings, self.ruling.rules)

    @property
    def rules(self) -> list[str]:
        return [] if self.ruling.rules is None else [rule.id for rule in self.ruling.rules.rules]

    async def mails(self) -> list[str]:
        """The subjects that the admins were told, oldest first."""
        rows = await self.store.deliveries()
        ids = [str(row["id"]) for row in reversed(rows) if row["purpose"] == Purpose.ADMIN.value]
        taken = await self.store.claim(["mss"], 100, 60)
        found = {each.id: dict(each.recipe.headers)["Subject"] for each in taken}  # type: ignore[union-attr]  # mail
        await self.store.release(list(found))
        return [found[name] for name in ids]

    async def active(self) -> str:
        active = await self.store.rules_active()
        assert active is not None
        return active.text

    async def matches(self) -> bool:
        return bool((await ruling.standing(self.settings, self.store))["file_matches"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "site"
    (made / "state").mkdir(parents=True)
    (made / "config.toml").write_text(CONFIG, encoding="utf-8")
    (made / "routes.yaml").write_text(RULES, encoding="utf-8")
    return made


@pytest.fixture
async def house(folder: Path, place: Place, store: Store) -> House:
    """A process that has started on RULES. Its clock stands before the file's time, so nothing counts as fresh."""
    from relay.vault import FileKeyRing

    FileKeyRing.create(folder / "state" / "keys.json")
    made = House(folder, store, place.clock)
    await made.ruling.start()
    return made


def restarted(house: House) -> House:
    return House(house.folder, house.store, house.clock)


# ------------------------------------------------------------------------------------------------- entering force


async def test_the_first_start_takes_any_file_that_checks(house: House) -> None:
    assert house.rules == ["sortie", "naissance"]
    assert await house.matches()
    assert house.used == [house.ruling.rules]


async def test_a_change_that_takes_nothing_enters_into_force_once_two_looks_saw_the_same(
    house: House,
) -> None:
    house.write(MORE)
    await house.looks(1)
    assert await house.active() == RULES
    await house.looks(1)
    assert await house.active() == MORE
    assert house.used[-1] is house.ruling.rules
    assert await house.mails() == []


async def test_a_file_that_is_still_being_written_never_counts(house: House) -> None:
    for end in range(len(MORE) - 40, len(MORE), 10):
        house.write(MORE[:end])
        await house.looks(1)
        assert await house.active() == RULES
    house.write(MORE)
    await house.looks()
    assert await house.active() == MORE
    assert await house.mails() == []  # nobody was alarmed by half a file


async def test_half_a_file_that_lies_still_takes_something_away_and_waits(house: House) -> None:
    house.write(HALF.replace("event: discharge", "event: er_visit"))
    await house.looks()
    assert await house.active() == RULES
    assert not await house.matches()


async def test_a_change_that_takes_something_away_waits_for_a_person(house: House) -> None:
    house.write(LESS)
    await house.looks(4)
    assert await house.active() == RULES
    assert not await house.matches()
    assert await house.mails() == ["Relais : règles en attente de votre accord"]
    again = restarted(house)
    await again.ruling.start()
    await again.ruling.tell(again.site)
    assert again.rules == ["sortie", "naissance"]
    assert await again.active() == RULES
    assert len(await again.mails()) == 1


async def test_stored_facts_count_as_well_as_any_there_could_be(house: House) -> None:
    digest = house.ruling.rules.digest if house.ruling.rules else ""
    facts = {"event": "discharge", "identity": "qualified", "gp": "found"}
    await house.store.accept(batch(1, 2))
    await house.store.record(
        [letter(each, decision=decision(facts=facts, ruleset=digest)) for each in (1, 2)]
    )
    house.write(LESS)
    await house.looks()
    mark = await house.store.rule_file()
    assert mark is not None
    assert (mark.state, mark.first) == (
        "waiting",
        "le médecin traitant par telegram ne serait plus prévenu (2 avis)",
    )


async def test_decisions_by_a_file_with_a_byte_order_mark_know_their_rules_after_a_restart(
    house: House,
) -> None:
    house.file.write_bytes(b"\xef\xbb\xbf" + MORE.replace("\n", "\r\n").encode())
    await house.looks()
    again = restarted(house)
    await again.ruling.start()
    assert again.ruling.rules is not None
    digest = again.ruling.rules.digest
    assert house.ruling.rules is not None
    assert digest == house.ruling.rules.digest
    assert await again.store.rules_of(digest) is not None
    assert await again.matches()
    # Taken back and put in force again it is the same revision of the file.
    await applied(again, RULES)
    await applied(again, house.ruling.rules.text)
    assert await again.matches()


# ----------------------------------------------------------------------------------------------------- bad files


async def test_a_bad_file_leaves_the_rules_in_force_and_the_admins_are_told_once(house: House) -> None:
    house.write(BROKEN)
    await house.looks(4)
    assert house.rules == ["sortie", "naissance"]
    assert await house.mails() == ["Relais : règles refusées"]
    (mail,) = await house.store.claim(["mss"], 10, 60)
    assert "routes.yaml:13:15 E110 " in mail.recipe.text  # type: ignore[union-attr]  # mail
    assert gauge("relay_ruleset_ok") == 0
    standing = await ruling.standing(house.settings, house.store)
    assert (standing["file_matches"], standing["file"]) == (False, "refused")


async def test_a_restart_with_a_broken_file_runs_the_last_good_rules_and_tells_nobody_again(
    house: House,
) -> None:
    house.write(BROKEN)
    await house.looks()
    for _ in range(2):
        again = restarted(house)
        await again.ruling.start()
        await again.ruling.tell(again.site)
        assert again.rules == ["sortie", "naissance"]
    assert await house.mails() == ["Relais : règles refusées"]


async def test_without_last_good_rules_a_broken_file_holds_everything(
    folder: Path, place: Place, store: Store
) -> None:
    (folder / "routes.yaml").write_text(BROKEN, encoding="utf-8")
    house = House(folder, store, place.clock)
    assert await house.ruling.start() is None
    assert await store.rules_active() is None


@pytest.mark.parametrize("mended", [RULES, MORE])
async def test_the_admins_are_told_once_that_the_file_is_in_order_again(house: House, mended: str) -> None:
    house.write(BROKEN)
    await house.looks()
    house.write(mended)
    await house.looks(4)
    assert await house.mails() == ["Relais : règles refusées", "Relais : règles en ordre"]
    assert gauge("relay_ruleset_ok") == 1
    assert await house.matches()
    assert await house.store.rule_file() is None


async def test_a_file_mended_while_the_relay_was_down_is_told_of_as_well(house: House) -> None:
    house.write(BROKEN)
    await house.looks()
    house.write(MORE)
    again = restarted(house)
    await again.ruling.start()
    await again.ruling.tell(again.site)
    assert await again.mails() == ["Relais : règles refusées", "Relais : règles en ordre"]


async def test_another_error_is_told_anew(house: House) -> None:
    house.write(BROKEN)
    await house.looks()
    house.write(BROKEN.replace("birth", "berth"))
    await house.looks()
    assert await house.mails() == ["Relais : règles refusées"] * 2


async def test_a_file_that_is_gone_leaves_the_rules_in_force(house: House) -> None:
    house.file.unlink()
    await house.looks()
    again = restarted(house)
    await again.ruling.start()
    assert again.rules == ["sortie", "naissance"]
    assert not await house.matches()


async def test_what_is_no_file_is_not_waited_for(house: House) -> None:
    house.file.unlink()
    os.mkfifo(house.file)
    async with asyncio.timeout(10):
        await house.looks()
    assert not await house.matches()
    house.file.unlink()
    house.write(MORE)
    await house.looks()
    assert await house.active() == MORE


async def test_a_change_of_neither_size_nor_time_is_seen_as_well(house: House) -> None:
    """So is one of who may read the file: both change what only the kernel writes."""
    said, other = house.file.stat(), RULES.replace("Nos règles", "Vos règles")
    house.write(other)
    os.utime(house.file, ns=(said.st_atime_ns, said.st_mtime_ns))  # as an archive restores it
    await house.looks()
    assert await house.active() == other


async def test_a_test_that_fails_keeps_a_file_out_and_mending_the_test_lets_it_in(house: House) -> None:
    house.write(MORE, TESTS.replace("rule: sortie", "rule: naissance"))
    await house.looks()
    assert await house.active() == RULES
    house.write(MORE, TESTS)
    await house.looks()
    assert await house.active() == MORE


async def test_a_hangup_has_the_file_judged_at_once(house: House) -> None:
    house.write(MORE)
    await house.ruling.reload()
    assert await house.active() == MORE


async def test_a_configuration_that_lost_what_the_rules_name_holds_everything(house: House) -> None:
    file = house.folder / "config.toml"
    file.write_text(CONFIG.replace("desks.sorties", "desks.autre"), encoding="utf-8")
    again = restarted(house)
    assert await again.ruling.start() is None
    await again.ruling.tell(again.site)
    assert await again.mails() == ["Relais : règles refusées"]  # it is not silent that everything is held


async def test_a_rule_that_nothing_can_reach_keeps_a_file_out(house: House) -> None:
    house.write(
        MORE.replace(
            "default:", "  - { id: morte, when: { event: er_visit }, hold: sorties, reason: x }\n\ndefault:"
        )
    )
    await house.looks()
    mark = await house.store.rule_file()
    assert mark is not None
    assert "E201" in mark.first


# ----------------------------------------------------------------------------------------------- persons, processes


async def applied(house: House, text: str) -> int:
    from rules import language

    rules, _ = language.load(text, "routes.yaml", house.ruling.site)
    assert rules is not None
    return await ruling.put_in_force(
        house.settings, house.store, rules, by="anne", reason="essai", after=await house.store.rules_revision(),
        note="", now=house.clock.now(),
    )  # fmt: skip


async def test_what_a_person_put_in_force_is_followed_by_every_process(house: House) -> None:
    other = restarted(house)
    await other.ruling.start()
    house.write(LESS)
    await house.looks()
    await applied(house, LESS)
    await asyncio.sleep(0)
    for each in (house, other):
        await each.looks(1)
        assert each.ruling.rules is not None
        assert each.ruling.rules.text == LESS
    assert await house.matches()
    assert await house.store.rule_file() is None


async def test_rules_a_person_set_aside_do_not_come_back_with_a_restart(house: House) -> None:
    house.write(MORE)
    await house.looks()
    await applied(house, RULES)  # back to before, the file untouched
    again = restarted(house)
    await again.ruling.start()
    await again.looks(3)
    assert await again.active() == RULES
    assert not await again.matches()
    # Once it is changed it counts again.
    again.write(MORE.replace("Nos règles", "Nos nouvelles règles"))
    await again.looks()
    assert "Nos nouvelles règles" in await again.active()


async def test_rules_a_person_set_aside_do_not_come_back_with_other_tests_or_after_a_while_away(
    house: House,
) -> None:
    house.write(MORE)
    await house.looks()
    await applied(house, RULES)
    house.write(MORE, TESTS)  # the tests are adapted to the rules in force, the rule file is untouched
    await house.looks()
    assert await house.active() == RULES
    house.file.unlink()
    await house.looks()
    house.write(MORE)
    await house.looks()
    assert await house.active() == RULES
    standing = await ruling.standing(house.settings, house.store)
    assert (standing["file_matches"], standing["file"]) == (False, "passed_over")
    again = restarted(house)
    await again.ruling.start()
    assert await again.active() == RULES
    again.write(MORE.replace("Nos règles", "Nos nouvelles règles"))
    await again.looks()
    assert "Nos nouvelles règles" in await again.active()
    # What was in force in between is no longer set aside.
    again.write(MORE)
    await again.looks()
    assert await again.active() == MORE


async def test_a_reason_is_given_once_and_only_to_what_the_relay_took_over(house: House) -> None:
    revision = await house.store.rules_revision()
    for by, reason, noted in (("anne", "voulu", True), ("béa", "aussi", False)):
        assert await house.store.give_rules_a_reason(revision, by=by, reason=reason) is noted
    active = await house.store.rules_active()
    assert active is not None
    assert (active.by, active.reason, active.revision) == ("anne", "voulu", revision)
    assert not await house.store.give_rules_a_reason(revision + 1, by="anne", reason="voulu")


async def test_two_who_put_rules_in_force_at_the_same_time_do_not_pass_each_other_by(house: House) -> None:
    revision = await house.store.rules_revision()
    await house.store.activate_rules("a", "d1", by="anne", reason="x", after=revision)
    with pytest.raises(Stale):
        await house.store.activate_rules("b", "d2", by="paul", reason="x", after=revision)
    active = await house.store.rules_active()
    assert active is not None
    assert active.digest == "d1"


async def test_a_person_who_is_faster_than_the_file_is_not_overruled_by_it(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    activate = house.store.activate_rules

    async def overtaken(text: str, digest: str, **more: Any) -> int:
        if more["by"] == "relay":
            await applied(house, LESS)
        return await activate(text, digest, **more)

    monkeypatch.setattr(house.store, "activate_rules", overtaken)
    house.write(MORE)
    await house.looks()
    assert await house.active() == LESS
    assert house.ruling.rules is not None
    assert house.ruling.rules.text == LESS


async def test_rules_in_force_that_a_running_process_cannot_read_hold_everything(house: House) -> None:
    revision = await house.store.rules_revision()
    await house.store.activate_rules("version: 99", "d1", by="anne", reason="x", after=revision)
    await house.looks(1)
    assert house.ruling.rules is None
    assert house.used[-1] is None


async def test_a_defect_in_judging_a_file_leaves_the_rules_in_force_and_is_told(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    def defect(*_: object) -> None:
        raise RuntimeError("nobody expected this")

    monkeypatch.setattr(ruling, "check", defect)
    house.write(MORE)
    await house.looks()
    assert house.rules == ["sortie", "naissance"]
    assert await house.active() == RULES
    assert await house.mails() == ["Relais : règles refusées"]


# ---------------------------------------------------------------------------------------------------------- counting


def gauge(name: str, **labels: str) -> float | None:
    for family in text_string_to_metric_families(metrics.exposition().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return None


async def test_each_rule_is_counted_by_what_it_had_to_do_with_decisions(store: Store) -> None:
    await store.accept(batch(1, 2, 3))
    await store.record(
        [
            letter(1, decision=decision(copies=("copie",), observed=("naissance",))),
            letter(2, decision=decision(undecided=("vieux",))),
            letter(3, decision=decision(action="hold", why=Why.UNDECIDED, undecided_at="sortie")),
        ]
    )
    counts = await store.rule_counts()
    assert counts == {
        "copie": {"copied": 1},
        "naissance": {"observed": 1},
        "sortie": {"decided": 2, "undecided": 1},
        "vieux": {"passed": 1},
    }
    metrics.rules(counts)
    assert gauge("relay_rule_decisions_total", rule="sortie", what="decided") == 2


async def test_a_rule_keeps_its_counts_under_its_new_name(house: House) -> None:
    await house.store.accept(batch(1, 2))
    await house.store.record([letter(1), letter(2, decision=decision(rule="depart"))])
    house.write(RULES.replace("id: sortie", "id: depart\n    was: sortie"))
    await house.looks()
    assert ruling.counted(house.ruling.rules, await house.store.rule_counts()) == {"depart": {"decided": 2}}


def observing(number: int, house: House, *names: str) -> Plan:
    """A letter decided now, which these rules would have matched."""
    return letter(number, decision=decision(observed=names, at=house.clock.now()))


async def test_it_is_known_how_long_a_rule_was_only_observed(house: House) -> None:
    from rules.language import observed_long

    house.clock.turn(minutes=1)
    await house.store.accept(batch(1))
    await house.store.record([observing(1, house, "naissance")])
    house.clock.turn(days=10)
    house.write(RULES.replace("id: naissance", "id: bebe\n    was: naissance"))
    await house.looks()
    house.clock.turn(days=32)
    rules = house.ruling.rules
    assert rules is not None
    seen = await ruling.observed(house.store, rules, house.ruling.site, house.clock.now())
    assert seen == {"bebe": (42, 1)}
    (finding,) = observed_long(rules, seen)
    assert finding.code == "W302"


async def test_what_an_earlier_observation_saw_is_not_counted_in_this_one(house: House) -> None:
    async def observed() -> dict[str, tuple[int, int]]:
        rules = house.ruling.rules
        assert rules is not None
        return await ruling.observed(house.store, rules, house.ruling.site, house.clock.now())

    await house.store.accept(batch(1, 2, 3, 4))
    house.clock.turn(minutes=1)
    await house.store.record([observing(1, house, "naissance"), observing(2, house, "naissance")])
    assert await observed() == {"naissance": (0, 2)}
    house.clock.turn(days=5)
    house.write(RULES.replace("    mode: observe\n", ""))
    await house.looks()
    assert await observed() == {}
    house.clock.turn(days=1)
    house.write(RULES)
    rules, _ = language.load(RULES, "routes.yaml", house.ruling.site)
    assert rules is not None
    await ruling.put_in_force(
        house.settings, house.store, rules, by="anne", reason="on observe encore", after=house.ruling.revision,
        note="", now=house.clock.now(),
    )  # fmt: skip
    await house.looks()
    house.clock.turn(days=40)
    # A letter decided twice is one notice; a rule whose name only begins alike is another.
    await house.store.record([observing(3, house, "naissance"), observing(4, house, "naissances")])
    await house.store.record([observing(3, house, "naissance")])
    assert await observed() == {"naissance": (40, 1)}


async def test_decisions_come_a_page_at_a_time_the_last_of_each_arrival(store: Store) -> None:
    await store.accept(batch(*range(1, 8)))
    old = [decision(at=NOON - timedelta(days=9)), *[decision(rule=f"r{n}") for n in range(2, 8)]]
    await store.record([letter(n, decision=each) for n, each in enumerate(old, 1)])
    again = replace(
        letter(3, decision=decision(rule="again")), thread=None, deliveries=(), timers=(), grants=()
    )
    assert await store.record([replace(again, document_keys=())]) == [None]
    pages = [page async for page in store.decisions(NOON - timedelta(days=7), page=2)]
    assert [len(page) for page in pages] == [2, 2, 2]
    assert [each.rule for page in pages for each in page] == ["r2", "r4", "r5", "r6", "r7", "again"]
    latest = [page async for page in store.decisions(NOON - timedelta(days=7), most=3)]
    assert [each.rule for page in latest for each in page] == ["r6", "r7", "again"]
    assert (await store.decision("0000-0003")).rule == "again"


# ------------------------------------------------------------------------------------------------------- commands


@pytest.fixture
def relay(folder: Path) -> Any:  # Any: a command with any words
    """Runs commands on a site with two hundred stored decisions."""
    from relay.vault import FileKeyRing

    FileKeyRing.create(folder / "state" / "keys.json")

    def run(*words: str, code: int | None = 0, real: bool = False) -> Done:
        line = [*words, "--config", str(folder / "config.toml")]
        made = in_a_process(line) if real else in_a_fork(line, folder)
        assert code is None or made.code == code, made
        return made

    return run


def fill(folder: Path, count: int = 20) -> str:
    """Letters decided today; the digest that decided them."""

    async def work() -> str:
        settings = config.read(folder / "config.toml")
        store = await daemon.open_store(settings)
        try:
            rules = await Ruling(settings, store, HandClock(datetime.now(UTC)), lambda _: None).start()
            assert rules is not None
            if not count:
                return rules.digest
            facts = {"event": "discharge", "identity": "qualified", "gp": "found", "age": 80}
            at = datetime.now(UTC)
            numbers = range(1, count + 1)
            await store.accept(batch(*numbers))
            made = [
                letter(n, decision=decision(facts=facts, ruleset=rules.digest, at=at, targets=("gp", "ping")))
                for n in numbers
            ]
            assert set(await store.record(made)) == {None}
            return rules.digest
        finally:
            await store.close()

    return asyncio.run(work())


def test_a_change_is_previewed_accepted_listed_and_undone_by_commands(folder: Path, relay: Any) -> None:
    first = fill(folder)
    file = folder / "routes.yaml"
    file.write_text(LESS, encoding="utf-8")
    seen = relay("rules", "preview", "--json").json
    assert (seen["replayed"], seen["unchanged"], seen["changed"], seen["not_replayable"]) == (20, 0, 20, 0)
    assert seen["lost"] == {"registered_gp (telegram)": 20}
    (flow,) = seen["flows"]
    assert (flow["from"], flow["to"], flow["count"], len(flow["examples"])) == ("sortie", "sortie", 20, 3)
    assert seen["needs_acceptance"] is True
    page = relay("rules", "preview", real=True).out
    assert "sortie → sortie : 20 avis (#0000-0001, #0000-0002, #0000-0003, …)" in page
    assert "Attend votre accord" in page
    refused = relay("rules", "apply", "--reason", "moins d'alertes", "--json", code=1).json
    assert (refused["ok"], refused["changed"]) == (False, False)
    assert relay("status", "--json").json["rules"]["digest"] == first
    done = relay(
        "rules", "apply", "--reason", "moins d'alertes", "--by", "anne", "--accept", "--json", real=True
    ).json
    assert (done["ok"], done["changed"], done["accepted"]) == (True, True, True)
    standing = relay("status", "--json").json["rules"]
    assert (standing["digest"], standing["file_matches"]) == (done["digest"], True)
    newest, oldest = relay("rules", "history", "--json").json
    assert (newest["revision"], newest["by"], newest["reason"], newest["active"]) == (
        done["revision"],
        "anne",
        "moins d'alertes",
        True,
    )
    assert (oldest["digest"], oldest["until"]) == (first, newest["active_since"])
    assert relay("rules", "history", str(oldest["revision"])).out == RULES
    trail = [line for line in relay("audit", "export", "--json").json if line["act"] == "rules_activated"]
    assert trail[-1]["actor"] == "anne"
    assert "replayed=20" in trail[-1]["note"]
    assert "lost=20" in trail[-1]["note"]
    back = relay("rules", "rollback", str(oldest["revision"]), "--json").json
    assert back["digest"] == first
    assert file.read_text(encoding="utf-8") == LESS
    standing = relay("status", "--json").json["rules"]
    assert (standing["digest"], standing["file_matches"], standing["file"]) == (first, False, "passed_over")
    assert "vigueur : d'autres règles lui ont été préférées." in relay("rules", "history").out
    assert "is missing or cannot be read" not in relay("rules", "history", "--lang", "en").out
    assert "other rules were preferred to it." in relay("rules", "history", "--lang", "en").out
    relay("rules", "apply", "--reason", "encore", "--accept")
    relay("rules", "rollback", "--write")
    assert file.read_text(encoding="utf-8") == RULES
    assert relay("status", "--json").json["rules"]["file_matches"] is True


def test_the_reason_of_a_person_is_noted_where_the_relay_took_the_file_over_before(
    folder: Path, relay: Any
) -> None:
    fill(folder, 1)
    (folder / "routes.yaml").write_text(MORE, encoding="utf-8")
    fill(folder, 0)  # a start takes it over by itself
    (taken, first) = relay("rules", "history", "--json").json
    assert (taken["by"], taken["reason"]) == ("relay", "file")
    said = relay("rules", "apply", "--reason", "aussi les urgences", "--by", "anne").out
    assert "déjà en vigueur" in said
    assert "aussi les urgences" in said
    noted = {**taken, "by": "anne", "reason": "aussi les urgences"}
    assert relay("rules", "history", "--json").json == [noted, first]
    trail = relay("audit", "export", "--json").json
    assert [line["actor"] for line in trail if line["act"] == "rules_wanted"] == ["anne"]
    # Whose reason stands there stays.
    relay("rules", "apply", "--reason", "moi aussi", "--by", "béa")
    assert relay("rules", "history", "--json").json == [noted, first]


def test_the_relay_may_take_the_very_file_over_that_a_person_applies_at_this_moment(
    folder: Path, relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, 1)
    (folder / "routes.yaml").write_text(MORE, encoding="utf-8")
    weigh = ruling.weigh

    async def meanwhile(
        store: Store, site: Any, before: Any, after: RuleSet, **more: Any
    ) -> Any:  # handed on
        weighed = await weigh(store, site, before, after, **more)
        await store.activate_rules(after.text, after.digest, by="relay", reason="file", after=1, note="")
        return weighed

    monkeypatch.setattr(ruling, "weigh", meanwhile)
    assert "déjà en vigueur" in relay("rules", "apply", "--reason", "aussi les urgences", "--by", "anne").out
    (now, _) = relay("rules", "history", "--json").json
    assert (now["by"], now["reason"]) == ("anne", "aussi les urgences")


def test_tests_that_no_longer_go_with_the_rules_are_told_of_after_a_rollback(
    folder: Path, relay: Any
) -> None:
    fill(folder, 1)
    file, tests = folder / "routes.yaml", folder / "routes.test.yaml"
    file.write_text(LESS, encoding="utf-8")
    tests.write_text(TESTS.replace("send: [gp, ping]", "send: [gp]"), encoding="utf-8")
    relay("rules", "apply", "--reason", "un", "--accept")
    said = relay("rules", "rollback", "--write").out
    assert "routes.yaml dit la même chose" in said
    assert "Les tests à côté ne vont plus avec : routes.test.yaml:2:5 T001" in said
    tests.write_text(TESTS, encoding="utf-8")
    relay("rules", "rollback")
    assert "ne vont plus" not in relay("rules", "rollback").out


def test_one_change_is_taken_back_and_the_later_one_stays(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    file = folder / "routes.yaml"
    file.write_text(LESS, encoding="utf-8")
    revision = relay("rules", "apply", "--reason", "un", "--accept", "--json").json["revision"]
    file.write_text(LESS.replace("event: birth", "event: [birth, transfer]"), encoding="utf-8")
    relay("rules", "apply", "--reason", "deux", "--accept")
    relay("rules", "rollback", str(revision), "--only", "--write", "--reason", "les alertes manquent")
    assert file.read_text(encoding="utf-8") == RULES.replace("event: birth", "event: [birth, transfer]")
    file.write_text(
        LESS.replace("send: [gp]\n    followup: standard", "send: [ping]\n    followup: standard"),
        encoding="utf-8",
    )
    relay("rules", "apply", "--reason", "trois", "--accept")
    refused = relay("rules", "rollback", str(revision), "--only", code=1)
    assert "l.12" in refused.err


def test_a_rule_is_promoted_out_of_observation(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    relay("rules", "promote", "naissance", "--reason", "elle voit juste")
    assert (folder / "routes.yaml").read_text(encoding="utf-8") == RULES.replace("mode: observe", "mode: on")
    assert relay("status", "--json").json["rules"]["file_matches"] is True
    again = relay("rules", "promote", "naissance", "--reason", "encore", code=1)
    assert "naissance" in again.err


def test_a_rule_with_an_accent_is_known_however_its_name_is_typed(folder: Path, relay: Any) -> None:
    written, typed = (normalize(form, "bébé") for form in ("NFD", "NFC"))
    file = folder / "routes.yaml"
    file.write_text(RULES.replace("id: naissance", f"id: {written}"), encoding="utf-8")
    fill(folder, 1)
    for name in (written, typed):
        found = relay("rules", "explain", "--facts", '{"event": "birth"}', "--why-not", name, "--json").json
        assert found["why_not"]["rule"] == typed
    relay("rules", "promote", written, "--reason", "elle voit juste")
    assert f"id: {written}" in file.read_text(encoding="utf-8")
    assert "mode: on" in file.read_text(encoding="utf-8")


def test_a_ward_with_an_accent_is_known_however_the_configuration_was_typed(folder: Path, relay: Any) -> None:
    ward = '[adapters.ped]\nkind = "folder"\npath = "depot"\nward = {{ name = "{}", slug = "ped", facility = "1", reply_to = "p@x.fr" }}\n'
    (folder / "config.toml").write_text(CONFIG + ward.format(normalize("NFD", "Pédiatrie")), encoding="utf-8")
    named = RULES.replace("event: discharge }", "event: discharge, ward: Pédiatrie }")
    (folder / "routes.yaml").write_text(named, encoding="utf-8")
    assert relay("rules", "check", "--json").json["ok"] is True


def test_a_rewritten_file_keeps_its_link_its_rights_and_its_owner(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    file, kept = folder / "routes.yaml", folder / "depot" / "routes.yaml"
    kept.parent.mkdir()
    file.rename(kept)
    file.symlink_to("depot/routes.yaml")
    kept.chmod(0o640)
    owner = (65534, 65534) if os.getuid() == 0 else (os.getuid(), os.getgid())
    os.chown(kept, *owner)
    relay("rules", "promote", "naissance", "--reason", "elle voit juste")
    assert file.is_symlink()
    assert kept.read_text(encoding="utf-8") == RULES.replace("mode: observe", "mode: on")
    said = kept.stat()
    assert (said.st_mode & 0o777, said.st_uid, said.st_gid) == (0o640, *owner)
    assert [each.name for each in kept.parent.iterdir()] == ["routes.yaml"]


def test_who_comes_second_leaves_the_file_as_it_was(
    folder: Path, relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, 1)
    weigh = ruling.weigh

    async def overtaken(store: Store, *rest: Any, **more: Any) -> Any:  # Any: handed on as they are
        weighed = await weigh(store, *rest, **more)
        await store.activate_rules(LESS, "0" * 64, by="béa", reason="plus vite", after=1, note="")
        return weighed

    monkeypatch.setattr(ruling, "weigh", overtaken)
    late = relay("rules", "promote", "naissance", "--reason", "elle voit juste", code=1)
    assert "at this moment" in late.err
    assert (folder / "routes.yaml").read_text(encoding="utf-8") == RULES
    assert relay("rules", "history", "--json").json[0]["by"] == "béa"


def test_a_file_that_somebody_changes_while_it_is_applied_is_still_to_be_judged(
    folder: Path, relay: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(folder, 1)
    file = folder / "routes.yaml"
    file.write_text(MORE, encoding="utf-8")
    weigh = ruling.weigh

    async def meanwhile(*rest: Any, **more: Any) -> Any:  # Any: handed on as they are
        file.write_text(LESS, encoding="utf-8")
        return await weigh(*rest, **more)

    monkeypatch.setattr(ruling, "weigh", meanwhile)
    relay("rules", "apply", "--reason", "aussi les urgences")
    monkeypatch.undo()
    standing = relay("status", "--json").json["rules"]
    assert (standing["file_matches"], standing.get("file")) == (False, None)
    assert relay("rules", "history", "2").out == MORE


def test_a_file_that_is_gone_is_said_to_be_gone(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    (folder / "routes.yaml").unlink()
    assert "introuvable" in relay("rules", "history").out
    assert "cannot be read" in relay("rules", "apply", "--reason", "x", code=2).err


def test_what_reading_and_reasoning_find_is_told_in_the_order_of_the_file(folder: Path, relay: Any) -> None:
    twice = "  - { id: autre, when: { event: discharge, age: 3 }, send: [gp], followup: none }\n" * 2
    (folder / "routes.yaml").write_text(RULES.replace("\ndefault:", f"{twice}\ndefault:"), encoding="utf-8")
    found = relay("rules", "check", "--json", code=1).json["findings"]
    codes = [(each["line"], each["code"]) for each in found if each["severity"] == "error"]
    assert sorted(code for _, code in codes) == ["E201", "E201", "E203"]
    assert [line for line, _ in codes] == sorted(line for line, _ in codes)
    assert found[-1]["code"] == "W304"


def test_a_bad_file_is_neither_previewed_nor_applied(folder: Path, relay: Any) -> None:
    fill(folder, 1)
    (folder / "routes.yaml").write_text(BROKEN, encoding="utf-8")
    for words in (("preview",), ("apply", "--reason", "x", "--accept")):
        done = relay("rules", *words, "--json", code=1).json
        assert done["ok"] is False
        assert [each["code"] for each in done["findings"] if each["severity"] == "error"] == ["E110"]
    assert relay("rules", "apply", code=2).err.count("\n") == 1  # --reason is missing


def test_the_trace_of_a_stored_decision_is_rebuilt_from_the_rules_that_made_it(
    folder: Path, relay: Any
) -> None:
    digest = fill(folder, 2)
    (folder / "routes.yaml").write_text(LESS, encoding="utf-8")
    relay("rules", "apply", "--reason", "x", "--accept")
    said = relay("rules", "explain", "0000-0002", "--why-not", "default", "--json").json
    assert (said["rule"], said["targets"]) == ("sortie", ["gp", "ping"])
    assert (said["stored"]["ruleset"], said["stored"]["same"]) == (digest, True)
    assert said["facts"]["age"] == 80
    matcher = said["trace"][0]["matchers"][0]
    assert {key: matcher[key] for key in ("field", "expected", "found", "result", "line")} == {
        "field": "event", "expected": "discharge", "found": "discharge", "result": "yes", "line": 11,
    }  # fmt: skip
    assert [(each["purpose"], each["to"]) for each in said["stored"]["deliveries"]]
    assert said["why_not"]["changes"][0]["field"] == "event"
    by_id = relay("rules", "explain", said["stored"]["envelope"], "--json").json
    assert by_id["trace"] == said["trace"]
    page = relay("rules", "explain", "0000-0002").out
    for words in (
        "Réf. 0000-0002",
        "révision 1",
        "event : attendu discharge · trouvé discharge · oui",
        "la même décision",
    ):
        assert words in page
    # Under the file as it is now.
    now = relay("rules", "explain", "0000-0002", "--rules", str(folder / "routes.yaml"), "--json").json
    assert now["targets"] == ["gp"]
    assert relay("rules", "explain", "9999-9999", code=1).err


@pytest.mark.parametrize(
    "at", ["demain", "2026-02-30T10:00", "0001-01-01T00:00", "1999-12-31T23:59", "9999-12-31T23:59"]
)
def test_an_instant_that_cannot_be_is_refused_in_one_line(folder: Path, relay: Any, at: str) -> None:
    said = relay("rules", "explain", "--facts", "{}", "--at", at, code=2)
    assert said.err.count("\n") == 1
    assert at in said.err


def test_why_not_is_told_in_words_in_both_languages(folder: Path, relay: Any) -> None:
    facts = '{"event": "death", "identity": "qualified", "gp": "found"}'
    french = relay("rules", "explain", "--facts", facts, "--why-not", "sortie", real=True).out
    assert "Pourquoi pas « sortie » ?" in french
    assert "event  death  →  discharge" in french
    english = relay("rules", "explain", "--facts", facts, "--why-not", "naissance", "--lang", "en").out
    assert "It is observed" in english
    wrong = relay("rules", "explain", "--facts", facts, "--why-not", "sorti", code=2)
    assert "sortie, naissance, default" in wrong.err


def test_a_letter_is_explained_by_the_site_s_registers_where_there_are_any(folder: Path, relay: Any) -> None:
    raw = letters.text_mail(gp=MARTIN)
    file = folder / "lettre.eml"
    file.write_bytes(raw)
    alone = relay("rules", "explain", str(file), "--rules", str(folder / "routes.yaml"), "--json").json
    assert alone["source"] == "registers"
    assert alone["facts"]["gp"] == "none"
    site = Site(folder, CONFIG)
    site.directory([MARTIN])
    site.patients([(ODETTE, [MARTIN])])
    known = relay("rules", "explain", str(file), "--json").json
    assert (known["facts"]["gp"], known["rule"]) == ("found", "sortie")
    assert relay("envelopes", "list", "--json").json == []  # nothing was written
    assert "mailbox" in relay("rules", "explain", str(file), "--mailbox", "x", code=2).err
    assert "no rule is asked" not in relay("rules", "explain", str(file)).err
    file.write_bytes(letters.ko(original=raw))
    assert "takes it for: receipt" in relay("rules", "explain", str(file)).err


def test_counts_are_listed_for_each_rule_in_force(folder: Path, relay: Any) -> None:
    fill(folder, 3)
    rows = {row["rule"]: row for row in relay("rules", "counts", "--json").json}
    assert list(rows) == ["sortie", "naissance", "default"]
    assert (rows["sortie"]["decided"], rows["naissance"]["mode"]) == (3, "observe")
    assert "a décidé" in relay("rules", "counts").out


# ----------------------------------------------------------------------------------------------------- the daemon


def test_a_running_relay_takes_a_changed_file_over_and_survives_a_broken_one(folder: Path) -> None:
    port = free_port()
    site = Site(folder, f'{CONFIG}[console]\nlisten = "127.0.0.1:{port}"\n')
    site.port = port
    site.keys()
    file = folder / "routes.yaml"

    def ok() -> bool:
        return "relay_ruleset_ok 1.0" in site.get("/metrics")[1]

    site.start()
    try:
        site.until(ok)
        file.write_text(MORE, encoding="utf-8")
        site.until(lambda: len(site.logged("rules_activated")) == 2)
        file.write_text(LESS, encoding="utf-8")
        site.until(lambda: site.logged("rules_file_waiting") and not ok())
        site.relay("rules", "apply", "--reason", "voulu", "--accept")
        site.until(lambda: ok() and site.logged("rules_followed"))
        file.write_text(BROKEN, encoding="utf-8")
        site.until(lambda: site.logged("rules_file_refused"))
        site.kill()
        site.start()
        (active,) = [each for each in site.json("rules", "history") if each["active"]]
        assert site.relay("rules", "history", str(active["revision"])) == LESS
        assert not ok()
        standing = site.json("status")["rules"]
        assert (standing["digest"], standing["file_matches"]) == (active["digest"], False)
        assert len(site.rows("deliveries", purpose="admin")) == 2  # one waited, one was refused
    finally:
        assert site.stop() == 0
