"""The directory's copy is kept fresh where letters need it, and serves as it is while nobody answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest

from adapters import annuaire
from relay.directory import Lookups
from relay.errors import Deferred, Verdict
from relay.identity import fold
from relay.model import Link, Mailbox, Professional, Why
from relay.ports import Tools
from relay.store import Store
from tests.letters import DUPONT, MARTIN
from tests.servers import free_port, until
from tests.servers.annuaire import Annuaire, box, practitioner
from tests.site import ROOT, Site
from tests.stores import HandClock, Place
from tests.test_contract_commands import relay
from tests.test_loops import SENDER, House, house, letter, letters  # noqa: F401 - fixtures
from tests.test_planning import _secret  # noqa: F401 - fixture

GP, OTHER = MARTIN.rpps or "", DUPONT.rpps or ""
BOX = MARTIN.mss_address or ""


@dataclass
class Waiting(HandClock):
    """Sleeps until a test turns it: whoever waits, waits."""

    turned: asyncio.Event = field(default_factory=asyncio.Event)

    async def sleep(self, seconds: float) -> None:
        until = self.at + timedelta(seconds=seconds)
        while self.at < until:
            await self.turned.wait()
            self.turned.clear()

    def turn(self, **span: float) -> None:
        super().turn(**span)
        self.turned.set()


@pytest.fixture
def server() -> Iterator[Annuaire]:
    started = Annuaire(resources=[practitioner(GP, "Martin", "Camille", box(BOX))]).start()
    yield started
    started.stop()


@dataclass
class Told:
    """What the daemon would hear."""

    verdicts: list[tuple[str, str | None]]

    async def heard(self, name: str, verdict: Verdict | None) -> None:
        self.verdicts.append((name, verdict.why if verdict else None))


@pytest.fixture
def told() -> Told:
    return Told([])


@pytest.fixture
async def lookups(store: Store, server: Annuaire, place: Place, told: Told) -> AsyncIterator[Lookups]:
    adapter = reached(server)
    clock = Waiting(place.clock.at)
    place.clock = clock
    store._clock = clock
    yield Lookups(store, {"annuaire": adapter}, clock, told.heard)
    await adapter.close()


def reached(server: Annuaire, **changed: object) -> annuaire.Annuaire:
    given = {"api_key": server.key, "base_url": server.base_url, **changed}
    return annuaire.connect("annuaire", annuaire.Settings.model_validate(given), Tools(HandClock(), Path()))


def asked(server: Annuaire) -> int:
    return sum(call.kind == "Practitioner" for call in server.calls)


# ------------------------------------------------------------------------------------------------- asking


async def test_whom_the_copy_lacks_is_asked_for_and_kept(
    lookups: Lookups, store: Store, server: Annuaire
) -> None:
    await lookups.freshen([GP])
    (found,) = await store.professionals([GP], [])
    assert (found.family_name, found.mailboxes, found.as_of) == (
        "Martin", (Mailbox(BOX.lower()),), lookups.clock.now()
    )  # fmt: skip
    assert list(await store.directory_sources()) == ["annuaire"]


async def test_a_young_copy_is_not_asked_about_and_an_old_one_is(
    lookups: Lookups, store: Store, server: Annuaire, place: Place
) -> None:
    await store.import_professionals(
        [Professional(GP, "Martin", mailboxes=(Mailbox(BOX),))], fold, source="extraction"
    )
    await lookups.freshen([GP])
    assert asked(server) == 0
    place.clock.turn(hours=24, seconds=1)
    server.resources = [practitioner(GP, "Martin", "Camille", active=False)]
    await lookups.freshen([GP])
    (found,) = await store.professionals([GP], [])
    assert (found.active, found.family_name, found.mailboxes) == (False, "Martin", ())
    await lookups.freshen([GP])
    assert asked(server) == 1


async def test_nobody_is_asked_for_twice_in_a_day_in_vain(
    lookups: Lookups, server: Annuaire, place: Place
) -> None:
    for _ in range(3):
        await lookups.freshen([OTHER])
    assert asked(server) == 1
    place.clock.turn(hours=25)
    await lookups.freshen([OTHER])
    assert asked(server) == 2


async def test_who_waits_for_the_same_number_shares_one_question(lookups: Lookups, server: Annuaire) -> None:
    await asyncio.gather(*(lookups.freshen([GP]) for _ in range(5)))
    assert asked(server) == 1


async def test_a_directory_that_fails_is_left_alone_for_a_while_and_the_last_copy_serves(
    lookups: Lookups, store: Store, server: Annuaire, place: Place, told: Told
) -> None:
    await lookups.freshen([GP])
    place.clock.turn(days=3)
    server.fail(status=503, times=2)
    await lookups.freshen([GP])
    await lookups.freshen([GP])
    assert asked(server) == 2
    (found,) = await store.professionals([GP], [])
    assert found.as_of == lookups.clock.now() - timedelta(days=3)
    assert found.mailboxes
    place.clock.turn(seconds=6)
    await lookups.freshen([GP])
    place.clock.turn(seconds=6)
    await lookups.freshen([GP])
    assert asked(server) == 3  # ever more rarely
    place.clock.turn(seconds=6)
    await lookups.freshen([GP])
    assert asked(server) == 4
    assert told.verdicts == [("annuaire", None), *[("annuaire", Why.SERVER_ERROR)] * 2, ("annuaire", None)]


async def test_nobody_waits_longer_than_patience_and_a_late_answer_serves_the_next_letter(
    lookups: Lookups, store: Store, place: Place
) -> None:
    arrived, answers = asyncio.Event(), asyncio.Event()

    class Slow:
        name, kind, max_age = "slow", "annuaire", timedelta(hours=24)

        async def find(self, rpps: object, names: object) -> tuple[Professional, ...]:
            arrived.set()
            await answers.wait()
            return (Professional(GP, "Martin"),)

        async def probe(self) -> None: ...

        async def close(self) -> None: ...

    lookups.directories = {"slow": Slow()}
    waiting = asyncio.ensure_future(lookups.freshen([GP], patience=3))
    await arrived.wait()
    assert not waiting.done()
    place.clock.turn(seconds=4)
    await waiting
    assert await store.professionals([GP], []) == ()
    (task,) = set(lookups._under_way.values())
    await lookups.freshen([OTHER], patience=3)  # whoever is this slow is asked nothing more for a moment
    assert set(lookups._under_way.values()) == {task}
    answers.set()
    assert await task
    assert [each.family_name for each in await store.professionals([GP], [])] == ["Martin"]


async def test_a_defect_of_an_adapter_stops_no_letter(lookups: Lookups, told: Told) -> None:
    class Broken:
        name, kind, max_age = "broken", "annuaire", timedelta(hours=24)

        async def find(self, rpps: object, names: object) -> tuple[Professional, ...]:
            raise KeyError("entry")

        async def probe(self) -> None: ...

        async def close(self) -> None: ...

    lookups.directories = {"broken": Broken()}
    await lookups.freshen([GP])
    assert told.verdicts == [("broken", Why.PROTOCOL)]


async def test_at_night_those_are_asked_about_whom_the_relay_writes_to(
    lookups: Lookups, store: Store, server: Annuaire, place: Place
) -> None:
    people = [Professional(each, "N") for each in (GP, OTHER, "10000000099")]
    await store.import_professionals(people, fold)
    await store.link([Link(OTHER, "telegram", "7", "7")])
    place.clock.turn(days=2)
    assert await store.professionals_in_use(10) == (OTHER,)
    await lookups.refresh_in_use()
    (call,) = [each for each in server.calls if each.kind == "Practitioner"]
    assert call.asked["identifier"] == [f"{OTHER},8{OTHER}"]


# -------------------------------------------------------------------------------------------- whose mailbox it is


async def test_what_the_site_entered_outlives_every_official_answer(
    lookups: Lookups, store: Store, server: Annuaire, place: Place
) -> None:
    own = Mailbox("martin@apicrypt.org")
    mine = Professional(GP, "Martin", "Camille", mailboxes=(own,), phone="0238000000", cpts="45-A")
    await store.import_professionals([mine], fold)
    old = Professional(GP, "MARTIN", "Camille", "10", mailboxes=(Mailbox("old@medecin.mssante.fr"),))
    place.clock.turn(hours=1)
    await store.import_professionals([old], fold, source="extraction")
    place.clock.turn(days=2)
    await lookups.freshen([GP])
    (found,) = await store.professionals([GP], [])
    assert {each.address for each in found.mailboxes} == {own.address, BOX.lower()}
    assert (found.phone, found.cpts, found.profession) == ("0238000000", "45-A", "10")
    place.clock.turn(hours=1)
    await store.import_professionals([Professional(GP, "Martin", "Camille")], fold)
    (found,) = await store.professionals([GP], [])
    assert [each.address for each in found.mailboxes] == [BOX.lower()]


async def test_a_mailbox_that_both_named_is_still_the_sites(store: Store, place: Place) -> None:
    with_box = Professional(GP, "Martin", "Camille", mailboxes=(Mailbox(BOX.lower()),))
    without = replace(with_box, mailboxes=())
    for line, source in ((with_box, "site"), (with_box, "extraction"), (without, "extraction")):
        await store.import_professionals([line], fold, source=source)
        place.clock.turn(hours=1)
        (found,) = await store.professionals([GP], [])
        assert found.mailboxes == with_box.mailboxes
    await store.import_professionals([without], fold)
    (found,) = await store.professionals([GP], [])
    assert found.mailboxes == ()


async def test_who_left_says_the_site_has_left_until_the_site_says_otherwise(
    lookups: Lookups, store: Store, server: Annuaire, place: Place
) -> None:
    async def is_active() -> bool:
        (found,) = await store.professionals([GP], [])
        return found.active

    here = Professional(GP, "Martin", "Camille", mailboxes=(Mailbox(BOX),))
    for active, source, expected in (
        (False, "site", False), (True, "extraction", False), (True, "api", False), (True, "site", True),
        (True, "extraction", True),
    ):  # fmt: skip
        place.clock.turn(days=2)
        if source == "api":
            await lookups.freshen([GP])
            assert asked(server) == 1
        else:
            await store.import_professionals([replace(here, active=active)], fold, source=source)
        assert await is_active() is expected, source
    server.resources = [practitioner(GP, "Martin", "Camille", active=False)]
    place.clock.turn(days=2)
    await lookups.freshen([GP])
    assert not await is_active()
    server.resources = [practitioner(GP, "Martin", "Camille", box(BOX))]
    place.clock.turn(days=2)
    await lookups.freshen([GP])
    assert await is_active()


async def test_lines_of_one_number_with_two_names_are_kept_in_mind_until_a_file_without_them(
    store: Store, place: Place
) -> None:
    def named(*families: str) -> list[Professional]:
        return [
            Professional(GP, family, mailboxes=(Mailbox(f"{family}@medecin.mssante.fr"),))
            for family in families
        ]

    filler = [Professional(f"2{number:010d}", "Foule") for number in range(2100)]
    for lines in (named("Martin", "Zwiller"), [*named("Martin"), *filler, *named("Zwiller")]):
        place.clock.turn(hours=1)
        await store.import_professionals(lines, fold)
        (found,) = await store.professionals([GP], [])
        assert found.two_names
    place.clock.turn(hours=1)
    await store.import_professionals(named("Martin", "Martin-Duval"), fold)
    (found,) = await store.professionals([GP], [])
    assert not found.two_names


# ------------------------------------------------------------------------------------------------- letters


async def test_a_letter_to_a_doctor_whom_only_the_directory_knows_reaches_them(
    house: House,  # noqa: F811
    lookups: Lookups,
    server: Annuaire,
) -> None:
    server.resources.append(practitioner(OTHER, "Dupont", "Alix", box("alix.dupont@medecin.mssante.fr")))
    house.intake.lookups = lookups
    stranger = letters.patient("BOISGARD", "Rémi", sex="M", order=11)
    await house.take(letters.text_mail(gp=DUPONT, patient=stranger, sender=SENDER))
    await house.leave()
    assert [each.address for each in house.sender.sent] == ["alix.dupont@medecin.mssante.fr"]


async def test_a_doctor_who_has_left_since_the_copy_gets_no_letter(
    house: House,  # noqa: F811
    lookups: Lookups,
    server: Annuaire,
    place: Place,
) -> None:
    server.resources = [practitioner(GP, "Martin", "Camille", active=False)]
    house.intake.lookups = lookups
    place.clock.turn(days=2)
    await house.take(letter())
    (held,) = await house.store.holds()
    assert held["why"] in ("rule", "floor_gp")
    assert await house.copies(purpose="letter") == []


async def test_while_the_directory_is_away_letters_go_by_the_last_good_copy(
    house: House,  # noqa: F811
    lookups: Lookups,
    server: Annuaire,
    place: Place,
) -> None:
    server.fail(drop=True, times=9)
    house.intake.lookups = lookups
    place.clock.turn(days=2)
    await house.take(letter())
    await house.leave()
    assert [each.address for each in house.sender.sent] == [BOX.lower()]


async def test_a_strangers_letter_sends_nobody_to_the_directory(
    house: House,  # noqa: F811
    lookups: Lookups,
    server: Annuaire,
) -> None:
    house.intake.lookups = lookups
    await house.take(letters.text_mail(gp=DUPONT, sender="someone@else.mssante.fr"))
    assert server.calls == []


# ------------------------------------------------------------------------------------------------ commands


@pytest.fixture
def site(tmp_path: Path, server: Annuaire) -> Path:
    assert relay("init", tmp_path / "site", "--since", "now").code == 0
    file = tmp_path / "site" / "config.toml"
    (tmp_path / "site" / "esante.key").write_text(server.key)
    with file.open("a") as config:
        config.write(
            f'\n[adapters.ans]\nkind = "annuaire"\nbase_url = "{server.base_url}"\napi_key = {{ file = "esante.key" }}\n'
        )
    return file


def test_the_command_line_asks_about_some_and_tells_who_left_and_who_is_unknown(
    site: Path, server: Annuaire
) -> None:
    server.resources.append(practitioner(OTHER, "", "", active=False))
    done = relay("directory", "refresh", GP, OTHER, "10000000099", "--json", "--config", site)
    assert done.code == 1
    assert done.json == {"asked": 3, "found": 2, "left": [OTHER], "unknown": ["10000000099"]}
    (found,) = relay("directory", "find", GP, "--json", "--config", site).json
    assert (found["mailboxes"], found["active"]) == ([BOX.lower()], True)
    assert found["as_of"]
    status = relay("status", "--json", "--config", site).json
    assert status["directory"]["ans"]["entries"] == 2
    assert 0 <= status["directory"]["ans"]["age_s"] < 60
    assert "ans 2 people, 0 min old" in relay("status", "--config", site).out


def test_a_name_is_looked_for_online_when_asked(site: Path, server: Annuaire) -> None:
    assert relay("directory", "find", "martin", "--json", "--config", site).json == []
    (found,) = relay("directory", "find", "Martin", "--online", "--json", "--config", site).json
    assert found["rpps"] == GP
    server.fail(status=503)
    away = relay("directory", "find", "Martin", "--online", "--config", site)
    assert away.code == 3
    assert "server_error" in away.err


def test_the_check_tells_of_the_directory_and_of_a_key_that_is_refused(site: Path, server: Annuaire) -> None:
    flows = relay("check", "--flows", "--json", "--config", site).json["flows"]
    assert ("127.0.0.1", server.port) in {(row["to"], row["port"]) for row in flows}
    relay("directory", "refresh", GP, "--config", site)
    assert "ans: 1 people, 0 days old" in relay("check", "--config", site).out
    server.key = "another"
    online = relay("check", "--online", "--config", site)
    assert "online ans" in online.out
    assert "authentication" in online.out


def test_an_api_key_never_stands_in_the_configuration(site: Path) -> None:
    site.write_text(site.read_text().replace('{ file = "esante.key" }', '"plain"'))
    done = relay("check", "--config", site)
    assert done.code == 2
    assert "api_key" in done.err
    assert "plain" not in done.err


def test_the_daemon_tells_of_a_directory_as_of_any_adapter(tmp_path: Path, server: Annuaire) -> None:
    home = Site(
        tmp_path / "home",
        f'[relay]\nrules = "{ROOT / "rules" / "sets" / "standard.yaml"}"\n'
        f'[console]\nlisten = "127.0.0.1:{free_port()}"\n'
        f'[adapters.ans]\nkind = "annuaire"\nbase_url = "{server.base_url}"\napi_key = {{ env = "ANS_KEY" }}\n',
        env={"ANS_KEY": server.key},
    )
    home.keys()
    home.start()
    try:
        assert until(lambda: home.json("status")["adapters"]["ans"]["state"] == "up")
    finally:
        assert home.stop() == 0
    assert server.key not in home.logs


async def test_the_adapters_own_answer_is_raised_to_a_person_who_asks(
    lookups: Lookups, server: Annuaire
) -> None:
    server.fail(body=json.dumps({}).encode())
    with pytest.raises(Deferred):
        await lookups.ask([GP])
    assert [each.rpps for each in await lookups.ask([GP])] == [GP]
