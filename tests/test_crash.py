"""Killed at every row of the crash table, at random moments and in the middle of a send: nothing is lost.

Each test lets the relay die on real servers, starts it again and asks the outside: mailboxes, phones and what
the commands say must end as if nothing had happened. Only a copy that was on the wire may come twice, once,
byte for byte the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from datetime import date, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from relay import crash
from tests import letters
from tests.campaign import CHAOS
from tests.conftest import ACCOUNTS, GP, RELAY, WARD
from tests.letters import DUPONT, MARTIN, ODETTE
from tests.outside import TRACE, Books, Mail, books, count, extra_copies, posted, shown
from tests.servers import until
from tests.servers.dovecot import Dovecot
from tests.servers.postgres import Postgres
from tests.servers.proxy import Proxy
from tests.servers.telegram import Telegram
from tests.site import FAST_RULES, REFERENCE, ROOT, Site, parsed

MakeSite = Callable[..., Site]

SENDER = "sorties.cardio@chr-exemple.mssante.fr"
WARD_PEOPLE = "sorties@chr-exemple.mssante.fr"
DESK = "dpo@chr-exemple.mssante.fr"
DUPONTS_BOX = "dr.dupont@medecin.mssante.fr"
PHONES = {MARTIN: 9001, DUPONT: 9002}
ABSENT = letters.doctor("Absent", "Jo", 9)  # the mail server does not know this mailbox
LISE = letters.patient("GRANVAL", "Lise", born=date(1971, 2, 4), place="45147", order=11, ipp="900054321")
RENE = letters.patient(
    "TISSERAND", "René", born=date(1939, 7, 30), sex="M", place="45155", order=3, ipp="900011111"
)
NOBODY = letters.patient("QUELVEN", "Maud", born=date(1955, 1, 9), place="45285", order=4, ipp="900077777")

LETTERS = (
    letters.xdm_mail(gp=MARTIN),
    letters.text_mail(patient=LISE, gp=DUPONT, stay="S-2026-000002"),
    letters.text_mail(patient=RENE, gp=ABSENT, stay="S-2026-000003"),
    letters.text_mail(patient=NOBODY, gp=None, stay="S-2026-000004"),
    letters.mail("Le parking est fermé lundi.", sender=WARD, to=WARD, subject="Parking"),
)
ALERT = "Lettre de sortie à lire dans votre messagerie sécurisée. Non urgente. Réf. *"
MAILS = Counter(
    {
        (GP, "XDM/1.0/DDM+Lettre de liaison a la sortie d'un etabl CORMERAIS Odette 17/03/1948"): 1,
        (DUPONTS_BOX, "Lettre de liaison – Réf. *"): 1,
        (WARD_PEOPLE, "Lettre retenue – Réf. *"): 1,
        (WARD_PEOPLE, "Lettre non remise – Réf. *"): 1,
        (DESK, "À vérifier – Réf. *"): 1,
        (DESK, "À suivre – Réf. *"): 1,
    }
)
ALERTS = Counter({(9001, ALERT): 1, (9002, ALERT): 1})
ENVELOPES = Counter(
    {
        ("decided", "rule"): 2,
        ("held", "rule"): 1,
        ("held", "unknown_mailbox"): 1,
        ("ignored", "not_a_notice"): 1,
    }
)
DELIVERIES = Counter(
    {
        (f"rpps:{MARTIN.rpps}", "letter", "accepted", None): 1,
        (f"rpps:{MARTIN.rpps}", "alert", "sent", None): 1,
        (f"rpps:{DUPONT.rpps}", "letter", "accepted", None): 1,
        (f"rpps:{DUPONT.rpps}", "alert", "sent", None): 1,
        (f"rpps:{ABSENT.rpps}", "letter", "failed", "unknown_mailbox"): 1,
        (f"rpps:{ABSENT.rpps}", "alert", "cancelled", "no_channel"): 1,
        ("ward:cardiologie", "hold_note", "accepted", None): 2,
        ("desk:sorties", "hold_note", "accepted", None): 1,
        ("desk:sorties", "ward_note", "accepted", None): 1,
    }
)
THREADS = Counter({("awaiting_ack", None, 0): 2, ("with_desk", "sorties", 0): 1})

AMBIGUOUS = {"in_flight", "sent"}
"""Where the relay dies with a copy on the wire: the only points after which one may come twice."""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the state of a site with its registries is kept, so that they are imported once for all tests."""
    return tmp_path_factory.mktemp("prepared")


@pytest.fixture
def ready(make_site: MakeSite, prepared: Path) -> MakeSite:
    """Make sites whose patients, doctors and phones are known."""

    def make(*, database: str = "", **options: str) -> Site:
        if database:
            return registries(make_site(database=database, **options))
        site = make_site(**options)
        state = site.folder / "state"
        # Rules enter the state with the first command: other rules would wait there for a person.
        kept = prepared / hashlib.sha256((site.folder / "routes.yaml").read_bytes()).hexdigest()
        if not kept.exists():
            registries(site)
            shutil.copytree(state, kept)
        shutil.rmtree(state)
        shutil.copytree(kept, state)
        return site

    return make


def registries(site: Site) -> Site:
    site.directory([MARTIN, DUPONT, ABSENT])
    site.patients([(ODETTE, [MARTIN]), (LISE, [DUPONT]), (RENE, [ABSENT])])
    links = site.folder / "links.csv"
    links.write_text(
        "rpps,channel\n" + "".join(f"{doctor.rpps},telegram:{chat}\n" for doctor, chat in PHONES.items())
    )
    site.relay("directory", "link", "--file", links, "--no-notice")
    return site


def dies(site: Site, point: str) -> None:
    """Run the relay until it kills itself at that point."""
    site.start(env={"RELAIS_CRASH_AT": point}, ready=False)
    assert site.died(40), f"never came to {point}: {site.log.read_text()[-2000:]}"
    assert site.process is not None
    assert site.process.returncode == -signal.SIGKILL, site.log.read_text()[-2000:]
    site.process = None


def settled(
    site: Site, dovecot: Dovecot, telegram: Telegram, seconds: float = 30
) -> tuple[Books, list[Mail]]:
    """Wait until all is as it must be outside; the books and the mails then."""
    expected = Counter(account for account, _ in MAILS)
    site.until(
        lambda: (
            all(count(dovecot, account) >= number for account, number in expected.items())
            and set(ALERTS) <= chats(telegram).keys()
        ),
        seconds,
    )
    found: list[Books] = []

    def same() -> bool:
        found[:] = [books(site)]
        return found[0].quiet and ends(found[0]) == (ENVELOPES, DELIVERIES, THREADS)

    try:
        site.until(same, 15)
    except AssertionError:
        assert ends(found[0]) == (ENVELOPES, DELIVERIES, THREADS)
        raise
    return found[0], posted(dovecot)


def kinds(mails: list[Mail]) -> Counter[tuple[str, str]]:
    return Counter((mail.to, mail.subject) for mail in mails)


def chats(telegram: Telegram) -> Counter[tuple[int, str]]:
    return Counter((chat, REFERENCE.sub("Réf. *", text)) for chat, text in shown(telegram))


def ends(seen: Books) -> tuple[Counter[tuple[object, ...]], ...]:
    """Where everything from the ward ended. The mark of a second copy is looked at by itself."""
    return (
        Counter((row["state"], row["why"]) for row in seen.envelopes if row["adapter"] == "cardiologie"),
        Counter(
            (
                row["to"],
                row["purpose"],
                row["state"],
                None if row["why"] == "resent_after_crash" else row["why"],
            )
            for row in seen.deliveries
        ),
        Counter((row["state"], row["desk"], row["level"]) for row in seen.threads),
    )


def resent(seen: Books, adapter: str) -> set[str]:
    """The copies that the list marks as sent again."""
    marked = [
        row for row in seen.deliveries if row["why"] == "resent_after_crash" and row["adapter"] == adapter
    ]
    return {row["message_id"] or row["id"] for row in marked}


ON_SQLITE = [
    "given@cardiologie",
    "accepted@cardiologie",
    "decided",
    "recorded",
    "claimed@mss",
    "in_flight@mss",
    "in_flight@telegram",
    "sent@telegram",
    "finished@mss",
]
ON_POSTGRESQL = ["acknowledged@cardiologie", "sent@mss"]
BY_PEOPLE_AND_TIME = {"pressed", "timer_due"}


def test_every_row_of_the_crash_table_has_its_point_in_the_code_and_its_test_here() -> None:
    assert {point.partition("@")[0] for point in ON_SQLITE + ON_POSTGRESQL} | BY_PEOPLE_AND_TIME == set(
        crash.POINTS
    )
    code = "".join((ROOT / "relay" / f"{room}.py").read_text() for room in ("intake", "dispatch", "schedule"))
    assert all(code.count(f'crash.point("{point}"') == 1 for point in crash.POINTS)


@pytest.mark.parametrize("point", ["", *ON_SQLITE])
def test_killed_there_it_ends_as_if_nothing_had_happened(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram, point: str
) -> None:
    die_and_recover(ready(), dovecot, telegram, point)


@pytest.mark.parametrize("point", ON_POSTGRESQL)
def test_killed_there_it_ends_as_if_nothing_had_happened_on_postgresql(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram, postgres: Postgres, point: str
) -> None:
    die_and_recover(ready(database=postgres.fresh()), dovecot, telegram, point)


def die_and_recover(site: Site, dovecot: Dovecot, telegram: Telegram, point: str) -> None:
    dovecot.deliver(WARD, *LETTERS, sender=SENDER)
    if point:
        dies(site, point)
        at_the_crash(point, dovecot, telegram)
    with site.running():
        seen, mails = settled(site, dovecot, telegram)
        seen.check()
        assert kinds(unique(mails)) == MAILS  # nothing lost, nothing for anybody else
        name, _, adapter = point.partition("@")
        copies, alerts = extra_copies(mails), chats(telegram)
        marked = {"mss": resent(seen, "mss"), "telegram": resent(seen, "telegram")}
        assert set(copies) <= marked["mss"]
        assert all(count == 1 for count in copies.values())
        assert set(alerts) == set(ALERTS)
        assert sum(alerts.values()) - len(alerts) <= len(marked["telegram"])
        # A sender may double only what it had on the wire: it died there itself, or while another died.
        if adapter in ("", "mss") and name not in AMBIGUOUS:
            assert not copies
            assert not marked["mss"]
        if adapter in ("", "telegram") and name not in AMBIGUOUS:
            assert alerts == ALERTS
            assert not marked["telegram"]
        if name in AMBIGUOUS and (adapter, name) != ("mss", "sent"):  # there a DSN may come first
            assert marked[adapter]
        if point == "in_flight@mss":  # the second try is the first copy
            assert not copies
        if adapter == "telegram" and name in AMBIGUOUS:
            assert max(alerts.values()) == (2 if name == "sent" else 1)
        assert not dovecot.messages(WARD)
        assert len(dovecot.messages(WARD, "Traités")) == len(LETTERS)


def at_the_crash(point: str, dovecot: Dovecot, telegram: Telegram) -> None:
    """The relay died where it was meant to: seen from outside, that step was taken and the next was not."""
    name, _, adapter = point.partition("@")
    taken = len(dovecot.messages(WARD, "Traités"))
    if name in ("given", "accepted"):
        assert taken == 0
    if name == "acknowledged":
        assert taken == len(LETTERS)
    if name in ("given", "accepted", "acknowledged", "decided"):
        assert not posted(dovecot)
        assert not shown(telegram)
    if adapter == "mss" and name in ("sent", "finished"):
        dovecot.wait_messages(GP)
    elif adapter == "mss":
        assert not posted(dovecot)
    if adapter == "telegram":
        assert bool(shown(telegram)) == (name == "sent")


def test_a_copy_without_evidence_is_sent_again_once_within_seconds_byte_for_byte(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready()
    dovecot.deliver(WARD, *LETTERS, sender=SENDER)
    dies(site, "sent@mss")
    (first,) = dovecot.wait_messages(GP)
    site.start("--only", "dispatch")  # nobody reads the delivery reports
    _, second = dovecot.wait_messages(GP, 2)
    late = latest([second]) - began(site)
    assert late < 8, f"sent again {late:.1f} s after the start"  # 5 s, and the mail servers' own way
    assert TRACE.sub(b"", second) == TRACE.sub(b"", first)
    site.stop()
    with site.running():
        seen, mails = settled(site, dovecot, telegram)
        seen.check()
        copies = extra_copies(mails)
        assert copies
        assert set(copies) == resent(seen, "mss")
        assert set(copies.values()) == {1}
        assert kinds(unique(mails)) == MAILS


def test_a_copy_twice_on_the_wire_is_not_sent_a_third_time_and_the_ward_is_told(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready()
    dovecot.deliver(WARD, LETTERS[0], sender=SENDER)
    dies(site, "in_flight@mss")
    dies(site, "in_flight@mss")
    with site.running():
        dovecot.wait_messages(WARD_PEOPLE)
        site.until(lambda: books(site).quiet)
        seen = books(site)
        seen.check()
        (copy,) = (row for row in seen.deliveries if row["purpose"] == "letter")
        assert (copy["state"], copy["why"]) == ("failed", "lost_after_send")
        assert [(row["state"], row["desk"]) for row in seen.threads] == [("with_desk", "sorties")]
        assert not dovecot.messages(GP)
        assert kinds(posted(dovecot)) == Counter(
            {(WARD_PEOPLE, "Lettre non remise – Réf. *"): 1, (DESK, "À suivre – Réf. *"): 1}
        )


def unique(mails: list[Mail]) -> list[Mail]:
    return list({mail.message_id: mail for mail in mails}.values())


def latest(raws: list[bytes]) -> float:
    """When the last of these came to the mail server, in seconds since 1970."""
    return max(
        parsedate_to_datetime(str(parsed(raw)["Received"]).rpartition(";")[2].strip()).timestamp()
        for raw in raws
    )


def began(site: Site) -> float:
    (line,) = site.logged("ready")
    return datetime.fromisoformat(line["timestamp"]).timestamp()


# ------------------------------------------------------------------------------------------- people and time


def test_a_press_accepted_before_the_crash_acknowledges_after_it(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready()
    dovecot.deliver(WARD, LETTERS[0], sender=SENDER)
    site.start(env={"RELAIS_CRASH_AT": "pressed"})
    telegram.wait("sendMessage", seconds=20)
    # The relay must have noted which message it sent, or its next life has none to change and shows a new one.
    site.row("deliveries", purpose="alert", state="sent")
    (chat, message), _ = next(iter(telegram.messages.items()))
    telegram.press(chat, message, "Bien reçu")
    assert site.died()
    assert site.process is not None
    assert site.process.returncode == -signal.SIGKILL
    site.process = None
    with site.running():
        telegram.wait("editMessageText", seconds=20)
        telegram.wait("answerCallbackQuery", seconds=20)
        site.until(lambda: books(site).quiet)
        seen = books(site)
        seen.check()
        (thread,) = seen.threads
        assert (thread["state"], thread["owner"]) == ("acknowledged", f"rpps:{MARTIN.rpps}")
        assert len(telegram.made("sendMessage")) == 1
        presses = [row for row in seen.envelopes if row["adapter"] == "telegram"]
        assert [(row["state"], row["why"]) for row in presses] == [("decided", "press")]


def test_a_timer_that_fell_due_at_the_crash_reminds_once_after_it(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready(rules=FAST_RULES.format(first="2s", second="1h", third="2h"))
    dovecot.deliver(WARD, LETTERS[0], sender=SENDER)
    dies(site, "timer_due")
    assert len(telegram.made("sendMessage")) == 1
    with site.running():
        telegram.wait("sendMessage", 2, seconds=20)
        site.until(lambda: books(site).quiet)
        seen = books(site)
        seen.check()
        assert [row["level"] for row in seen.threads] == [1]
        reminders = [row for row in seen.deliveries if row["purpose"] == "reminder"]
        assert [row["state"] for row in reminders] == ["sent"]
        assert len(telegram.made("sendMessage")) == 2


# ------------------------------------------------------------------------------------------------ blind kills


@pytest.mark.parametrize("seed", range(20261201, 20261201 + CHAOS))
def test_killed_at_any_moment_thirty_letters_all_arrive(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram, seed: int
) -> None:
    chance = random.Random(seed)
    site = ready()
    stays = [f"S-2026-{number:06d}" for number in range(30)]
    dovecot.fill(WARD, [letters.text_mail(gp=MARTIN, stay=stay, patient=ODETTE) for stay in stays])
    for _ in range(6):
        site.start()
        # Not a synchronisation: the moment of death is meant to be anywhere.
        time.sleep(chance.uniform(0, 0.5))
        site.kill()
    with site.running():
        site.until(lambda: len((now := books(site)).envelopes) >= len(stays) and now.quiet, 60)
        seen = books(site)
        # A copy that was on the wire at two of the deaths is sent no third time: people are told.
        left_to_people = [row for row in seen.deliveries if row["why"] == "lost_after_send"]
        letters_left = sum(row["purpose"] == "letter" for row in left_to_people)
        site.until(lambda: len(unique(in_box(dovecot, GP))) >= len(stays) - letters_left, 20)
        seen.check()
        mails = in_box(dovecot, GP)
        copies = extra_copies(mails)
        arrived = [stay for mail in unique(mails) for stay in stays if stay in mail.text]
        assert len(set(arrived)) == len(arrived) >= len(stays) - letters_left, f"seed {seed}"
        assert set(copies) <= resent(seen, "mss"), f"seed {seed}"
        assert set(copies.values()) <= {1}
        assert {mail.to for mail in posted(dovecot)} <= {GP, *([WARD_PEOPLE, DESK] if left_to_people else [])}
        alerts = Counter(text for _, text in shown(telegram))
        assert len(alerts) >= len(stays) - len(left_to_people)
        assert max(alerts.values()) <= 2
        assert {chat for chat, _ in shown(telegram)} == {PHONES[MARTIN]}
        assert sum(alerts.values()) - len(alerts) <= len(resent(seen, "telegram")) + len(left_to_people)


def in_box(dovecot: Dovecot, account: str) -> list[Mail]:
    return [mail for mail in posted(dovecot) if mail.to == account]


# ------------------------------------------------------------------------------------------- damage and orders


def test_an_arrival_whose_row_is_damaged_is_set_aside_and_the_next_goes_on(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = ready()
    dovecot.deliver(WARD, LETTERS[0], LETTERS[1], sender=SENDER)
    dies(site, "accepted@cardiologie")
    with sqlite3.connect(site.folder / "state" / "relay.db") as database:
        (first,) = database.execute("SELECT id FROM envelope ORDER BY seq LIMIT 1").fetchone()
        (sealed,) = database.execute("SELECT sealed FROM content WHERE envelope = ?", [first]).fetchone()
        damaged = sealed[:-1] + bytes([sealed[-1] ^ 1])
        database.execute("UPDATE content SET sealed = ? WHERE envelope = ?", [damaged, first])
    database.close()
    with site.running():
        dovecot.wait_messages(DUPONTS_BOX)
        site.until(lambda: books(site).quiet)
        seen = books(site)
        seen.check()
        states = {row["id"]: (row["state"], row["why"]) for row in seen.envelopes}
        assert states[first] == ("corrupt", "unreadable")
        assert seen.status["corrupt"] == 1
        assert not dovecot.messages(GP)
        # The message itself is safe where it was put away, and somebody was told.
        assert len(dovecot.messages(WARD, "Traités")) == 2
        dovecot.wait_messages("informatique@chr-exemple.mssante.fr")


@pytest.mark.parametrize("answer_comes", [True, False])
def test_an_orderly_end_in_the_middle_of_a_send_takes_seconds_and_doubles_nothing(
    ready: MakeSite, dovecot: Dovecot, telegram: Telegram, answer_comes: bool
) -> None:
    site = ready()
    dovecot.deliver(WARD, LETTERS[0], sender=SENDER)
    telegram.fault("sendMessage", delay=2 if answer_comes else 60)
    site.start()
    telegram.wait("sendMessage", seconds=20)
    asked = time.monotonic()
    assert site.stop() == 0
    assert time.monotonic() - asked < 10.5  # 10 s, and half of one to be seen
    with site.running():
        dovecot.wait_messages(GP)
        site.until(lambda: books(site).quiet, 30)
        seen = books(site)
        seen.check()
        assert len(dovecot.messages(GP)) == 1
        assert len(telegram.made("sendMessage")) == (1 if answer_comes else 2)
        assert bool(resent(seen, "telegram")) == (not answer_comes)


@pytest.mark.parametrize("database_too", [False, True])
async def test_whatever_goes_silent_an_orderly_end_takes_ten_seconds(
    ready: MakeSite, dovecot: Dovecot, postgres: Postgres, telegram: Telegram, database_too: bool
) -> None:
    async with Proxy(dovecot.imaps_port).running() as imap, Proxy(postgres.port).running() as stored:
        site = ready(database=postgres.fresh() if database_too else "")
        text = site.file.read_text("utf-8")
        text = text.replace(f":{postgres.port}/", f":{stored.port}/")
        text = text.replace(f"port = {dovecot.imaps_port}", f"port = {imap.port}")
        ward = text[text.index("[adapters.cardiologie]") : text.index("[adapters.retours]")]
        for account in sorted(ACCOUNTS.keys() - {WARD, RELAY}):
            name = re.sub(r"\W", "-", account)
            text += "\n" + ward.replace("cardiologie]", f"{name}]").replace(WARD, account).replace(
                'slug = "cardiologie"', f'slug = "{name}"'
            )
        site.file.write_text(text, "utf-8")
        dovecot.deliver(WARD, LETTERS[0], sender=SENDER)
        telegram.fault("sendMessage", delay=60)
        await asyncio.to_thread(site.start)
        await asyncio.to_thread(telegram.wait, "sendMessage", seconds=20)
        await asyncio.to_thread(until, lambda: imap.connections >= len(ACCOUNTS), 20)
        imap.hold_down = True
        stored.hold_down = database_too
        asked = time.monotonic()
        assert await asyncio.to_thread(site.stop) == 0
        assert time.monotonic() - asked < 10.5  # 10 s, and half of one to be seen
