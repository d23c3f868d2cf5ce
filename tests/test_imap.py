"""The IMAP adapter on a real Dovecot, and each danger of its library and of bad servers, one test each."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr, ValidationError

from adapters import imap
from relay.errors import Deferred
from relay.model import Batch, Envelope, Why
from relay.tls import Trust
from tests.conftest import ACCOUNTS
from tests.servers.dovecot import Dovecot, quoted
from tests.servers.liar import Liar
from tests.servers.proxy import Proxy
from tests.servers.sink import HANG_UP, SILENCE
from tests.trials import RETURNS, imap_settings, large, letter, subject, tools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.servers.pki import Pki


@pytest.fixture
def mailbox(dovecot: Dovecot) -> Dovecot:
    """An empty account RETURNS."""
    dovecot.empty(RETURNS)
    return dovecot


@pytest.fixture
async def opened(dovecot: Dovecot, tmp_path: Path) -> AsyncIterator[Opener]:
    opener = Opener(dovecot, tmp_path)
    yield opener
    for adapter in opener.adapters:
        await adapter.close()


@pytest.fixture
async def lying(tmp_path: Path) -> AsyncIterator[Lying]:
    opener = Lying(tmp_path)
    yield opener
    for adapter in opener.adapters:
        await adapter.close()


class Opener:
    """Opens adapters on the account RETURNS; all of them are closed at the end."""

    def __init__(self, dovecot: Dovecot, folder: Path) -> None:
        self.dovecot, self.folder = dovecot, folder
        self.adapters: list[imap.Imap] = []

    def __call__(self, port: int = 0, max_bytes: int = 50 * 2**20, **changed: object) -> imap.Imap:
        settings = imap_settings(self.dovecot, port, **changed)
        self.adapters.append(imap.connect("retours", settings, tools(self.folder, max_bytes=max_bytes)))
        return self.adapters[-1]


class Lying:
    """Opens adapters that talk to a liar in plain text."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.adapters: list[imap.Imap] = []

    def __call__(self, liar: Liar, **changed: object) -> imap.Imap:
        settings = {
            "host": "127.0.0.1",
            "port": liar.port,
            "security": "none",
            "username": "relais",
            "password": SecretStr("secret"),
            "since": "all",
        }
        checked = imap.Settings.model_validate(settings | changed)
        self.adapters.append(imap.connect("liar", checked, tools(self.folder, max_bytes=10**6)))
        return self.adapters[-1]


async def take(watching: AsyncIterator[Batch], count: int) -> list[Envelope]:
    got: list[Envelope] = []
    async with asyncio.timeout(30):
        while len(got) < count:
            got += (await anext(watching)).envelopes
    return got


async def first(adapter: imap.Imap, since: str | None = None) -> Batch:
    watching = adapter.watch(since)
    try:
        return await asyncio.wait_for(anext(watching), 20)
    finally:
        await watching.aclose()  # type: ignore[attr-defined] # every watch is a generator


def subjects(envelopes: Sequence[Envelope]) -> list[str]:
    return [subject(envelope.raw) for envelope in envelopes]


# ------------------------------------------------------------------------------------- what is read, and when


async def test_the_bytes_arrive_exactly_as_the_server_holds_them(mailbox: Dovecot, opened: Opener) -> None:
    raws = [
        letter("étoiles".encode().hex(), "* * hello * star {5}\r\n) FETCH (UID 7)\r\nA1 OK\r\n"),
        letter("vide", ""),
        letter("octets", "\x01\xff\x7fé\r\n"),
        large("grand", 300_000),
    ]
    mailbox.fill(RETURNS, raws)
    got = await take(opened().watch(None), len(raws))
    assert [envelope.raw for envelope in got] == raws


async def test_stars_in_a_subject_are_not_eaten_in_a_quoted_string(mailbox: Dovecot) -> None:
    mailbox.deliver(RETURNS, letter("bonjour * étoile * fin".replace("é", "e")))
    session = await session_of(mailbox)
    (line, *_) = await session.ask("FETCH", "1", "(ENVELOPE)")
    assert b'"bonjour * etoile * fin"' in line
    await session.end()


async def test_20000_short_rows_in_one_answer_are_read_without_recursion(mailbox: Dovecot) -> None:
    mailbox.fill(RETURNS, (b"Subject: a\r\n\r\n" for _ in range(20_000)))
    session = await session_of(mailbox)
    rows = await session.ask("FETCH", "1:*", "(FLAGS UID)", uid=True)
    assert len(rows) == 20_001
    assert session.alive
    await session.end()


async def test_a_thousand_waiting_letters_cost_less_than_half_a_millisecond_each(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.fill(RETURNS, [large(f"n{number}", 5000) for number in range(1000)])
    start = time.process_time()
    got = await take(opened().watch(None), 1000)
    seconds = time.process_time() - start
    assert subjects(got) == [f"n{number}" for number in range(1000)]
    assert seconds < 0.5, "ten times more than measured"


async def test_a_batch_is_cut_at_4_megabytes(mailbox: Dovecot, opened: Opener) -> None:
    mailbox.fill(RETURNS, [large(f"n{number}", 1_500_000) for number in range(5)])
    watching, sizes = opened().watch(None), []
    async with asyncio.timeout(30):
        while sum(sizes) < 5:
            sizes.append(len((await anext(watching)).envelopes))
    assert sizes == [2, 2, 1]


async def test_a_message_over_the_limit_is_yielded_as_its_head_with_the_flaw(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.fill(
        RETURNS, [letter("avant"), large("énorme".encode().hex(), 300_000), letter("après".encode().hex())]
    )
    before, huge, after = await take(opened(max_bytes=100_000).watch(None), 3)
    assert (before.flaw, huge.flaw, after.flaw) == (None, Why.TOO_LARGE, None)
    assert huge.raw.startswith(b"From: ")
    assert huge.raw.endswith(b"\r\n\r\n")
    assert len(huge.raw) < 1000


async def test_now_leaves_what_was_there_and_a_restart_before_the_first_letter_misses_none(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.deliver(RETURNS, letter("ancienne"))
    start = await first(opened(since="now"))
    assert start.envelopes == ()
    mailbox.deliver(RETURNS, letter("pendant l'arrêt".encode().hex()))
    (envelope,) = await take(opened(since="now").watch(start.cursor), 1)
    assert subject(envelope.raw) == "pendant l'arrêt".encode().hex()


async def test_a_date_leaves_older_mail_and_takes_newer(mailbox: Dovecot, opened: Opener) -> None:
    with mailbox.session(RETURNS) as person:
        for day, mark in (("01-Mar-2026", "mars"), ("01-Oct-2026", "octobre")):
            person.append("INBOX", "", f'"{day} 10:00:00 +0000"', letter(mark))
    got = await take(opened(since="2026-07-01").watch(None), 1)
    assert subjects(got) == ["octobre"]
    assert got[0].received_at == datetime(2026, 10, 1, 10, tzinfo=UTC)


async def test_a_date_leaves_older_mail_where_nothing_newer_stands_or_it_was_put_there_later(
    mailbox: Dovecot, opened: Opener
) -> None:
    with mailbox.session(RETURNS) as person:
        for day, mark in (("01-Mar-2026", "mars"), ("01-Apr-2026", "avril")):
            person.append("INBOX", "", f'"{day} 10:00:00 +0000"', letter(mark))
    adapter = opened(since="2026-07-01", done=None)
    watching = adapter.watch(None)
    start = await anext(watching)
    assert start.envelopes == ()
    with mailbox.session(RETURNS) as person:
        for day, mark in (("01-Oct-2026", "octobre"), ("02-Jan-1970", "horloge arrêtée")):
            person.append("INBOX", "", f'"{day} 10:00:00 +0000"', letter(mark))
    assert subjects(await take(watching, 2)) == ["octobre", "horloge arrêtée"]
    again = await take(opened(since="2026-07-01", done=None).watch(start.cursor), 2)
    assert subjects(again) == ["octobre", "horloge arrêtée"]
    mailbox.renumber(RETURNS)
    anew = opened(since="2026-07-01", done=None).watch(start.cursor)
    assert subjects(await take(anew, 1)) == ["octobre"]
    mailbox.deliver(RETURNS, letter("demain"))
    assert subjects(await take(anew, 1)) == ["demain"]


async def test_old_mail_moved_in_before_the_first_start_is_left_even_by_a_start_cut_short(
    mailbox: Dovecot, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "BATCH_MESSAGES", 1)
    with mailbox.session(RETURNS) as person:
        for day, mark in (("01-Oct-2026", "octobre"), ("01-Mar-2026", "mars"), ("02-Oct-2026", "novembre")):
            person.append("INBOX", "", f'"{day} 10:00:00 +0000"', letter(mark))
    start = await first(opened(since="2026-07-01"))
    assert subjects(start.envelopes) == ["octobre"]
    after = await first(opened(since="2026-07-01"), start.cursor)
    assert subjects(after.envelopes) == ["novembre"]


async def test_mail_a_person_has_read_meanwhile_is_taken_all_the_same(
    mailbox: Dovecot, opened: Opener
) -> None:
    start = await first(opened(since="now", done=None))
    mailbox.deliver(RETURNS, letter("lue"))
    with mailbox.session(RETURNS) as person:
        person.select("INBOX")
        person.store("1", "+FLAGS", "\\Seen")
    (envelope,) = await take(opened(since="now", done=None).watch(start.cursor), 1)
    assert subject(envelope.raw) == "lue"


async def test_a_new_uidvalidity_has_the_whole_folder_read_again_under_other_ids(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.deliver(RETURNS, letter("un"), letter("deux"))
    before = await first(opened())
    mailbox.renumber(RETURNS)
    mailbox.deliver(RETURNS, letter("trois"))
    after = await take(opened().watch(before.cursor), 3)
    assert sorted(subjects(after)) == ["deux", "trois", "un"]
    assert not {envelope.id for envelope in before.envelopes} & {envelope.id for envelope in after}


async def test_uids_that_start_anew_under_the_same_uidvalidity_do_not_hide_new_mail(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.deliver(RETURNS, letter("un"))
    before = await first(opened())
    rolled_back = replace(imap.Cursor.parse(before.cursor), uid=900)
    adapter = opened()
    (again,) = await take(adapter.watch(str(rolled_back)), 1)
    assert subject(again.raw) == "un"
    assert again.id != before.envelopes[0].id, "the same UID may be another letter now"
    await adapter.acknowledge(before.envelopes)
    assert len(mailbox.messages(RETURNS)) == 1, "an old number must not put a new letter away unread"
    await adapter.acknowledge([again])
    assert mailbox.messages(RETURNS) == []


async def test_mail_older_than_what_the_relay_remembers_is_not_taken_for_new(
    mailbox: Dovecot, opened: Opener, tmp_path: Path
) -> None:
    def adapter(done: str | None) -> imap.Imap:
        lent = replace(tools(tmp_path), remembered=timedelta(days=400))
        opened.adapters.append(imap.connect("retours", imap_settings(mailbox, done=done), lent))
        return opened.adapters[-1]

    with mailbox.session(RETURNS) as person:
        for days, mark in ((500, "oubliée"), (300, "connue")):
            came = datetime.now(UTC) - timedelta(days=days)
            person.append("INBOX", "", f'"{came:%d-%b-%Y} 10:00:00 +0000"', letter(mark))
    before = await first(adapter(None))
    assert subjects(before.envelopes) == ["oubliée", "connue"], "the very first start goes by `since` alone"
    await adapter(None).acknowledge(before.envelopes)
    # A folder for what is done, configured later, has all that was ever taken come once more.
    assert subjects((await first(adapter("Traités"), before.cursor)).envelopes) == ["connue"]
    mailbox.renumber(RETURNS)
    assert subjects((await first(adapter(None), before.cursor)).envelopes) == ["connue"]


async def test_letters_that_wait_are_taken_however_soon_the_relay_forgets(
    mailbox: Dovecot, opened: Opener, tmp_path: Path
) -> None:
    lent = replace(tools(tmp_path), remembered=timedelta(days=1))

    def adapter() -> imap.Imap:
        opened.adapters.append(imap.connect("retours", imap_settings(mailbox, done=None), lent))
        return opened.adapters[-1]

    with mailbox.session(RETURNS) as person:
        person.append("INBOX", "", None, letter("d'avant"))
        before = await first(adapter())
        came = datetime.now(UTC) - timedelta(days=1)
        person.append("INBOX", "", f'"{came:%d-%b-%Y} 10:00:00 +0000"', letter("de la veille"))
    mailbox.renumber(RETURNS)
    assert "de la veille" in subjects((await first(adapter(), before.cursor)).envelopes)


async def test_ids_do_not_depend_on_the_adapters_name(
    mailbox: Dovecot, opened: Opener, tmp_path: Path
) -> None:
    mailbox.deliver(RETURNS, letter("un"))
    one = await first(opened())
    renamed = imap.connect("autre", imap_settings(mailbox), tools(tmp_path))
    other = await first(renamed)
    assert [envelope.id for envelope in one.envelopes] == [envelope.id for envelope in other.envelopes]


# ------------------------------------------------------------------------------------------- acknowledging


@pytest.mark.parametrize("done", ["Traités", 'R&D "été" \\ fini', "Archives/2026"])
async def test_what_was_acknowledged_stands_in_the_done_folder_which_is_made(
    mailbox: Dovecot, opened: Opener, done: str
) -> None:
    mailbox.deliver(RETURNS, letter("un"), letter("deux"))
    adapter = opened(done=done)
    got = await take(adapter.watch(None), 2)
    await adapter.acknowledge(got[:1])
    await adapter.acknowledge(got[1:])
    with mailbox.session(RETURNS) as person:
        assert person.select("INBOX")[1] == [b"0"]
        assert person.select(imap._mailbox(done))[1] == [b"2"]
        person.close()
    await adapter.close()


async def test_without_a_done_folder_mail_is_flagged_seen_and_stays(mailbox: Dovecot, opened: Opener) -> None:
    mailbox.deliver(RETURNS, letter("un"), letter("deux"))
    adapter = opened(done=None)
    watching = adapter.watch(None)
    batch = await anext(watching)
    assert mailbox.flags(RETURNS) == [(), ()], "reading leaves no trace"
    await adapter.acknowledge(batch.envelopes[:1])
    assert mailbox.flags(RETURNS) == [("\\Seen",), ()]
    again = await take(opened(done=None).watch(batch.cursor), 1)
    assert subjects(again) == ["deux"], "only what was not acknowledged comes again"
    await watching.aclose()  # type: ignore[attr-defined] # every watch is a generator


async def test_what_a_person_read_before_it_was_put_away_comes_again_all_the_same(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.deliver(RETURNS, letter("un"), letter("deux"))
    batch = await first(opened())
    with mailbox.session(RETURNS) as person:
        person.select("INBOX")
        person.store("1:2", "+FLAGS", "\\Seen")
    assert subjects((await first(opened(), batch.cursor)).envelopes) == ["un", "deux"]


async def test_what_can_never_be_put_away_keeps_no_new_letter_waiting(
    mailbox: Dovecot, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "BATCH_MESSAGES", 2)
    mailbox.deliver(RETURNS, letter("un"), letter("deux"))
    cursor, seen = None, []
    for arriving in ("trois", "quatre", "cinq"):
        adapter = opened(done="Archives//2026")  # no name of a folder here
        batch = await first(adapter, cursor)
        with pytest.raises(Deferred):
            await adapter.acknowledge(batch.envelopes)
        cursor = batch.cursor
        seen.append(subjects(batch.envelopes))
        mailbox.deliver(RETURNS, letter(arriving))
    assert seen[0] == ["un", "deux"]
    assert "trois" in seen[1]
    assert "quatre" in seen[2]


async def test_500_letters_are_put_away_in_one_go(mailbox: Dovecot, opened: Opener) -> None:
    mailbox.fill(RETURNS, [letter(f"n{number}") for number in range(1200)])
    adapter = opened()
    await adapter.acknowledge(await take(adapter.watch(None), 1200))
    with mailbox.session(RETURNS) as person:
        assert person.select(quoted("Traités"))[1] == [b"1200"]


async def test_acknowledging_goes_on_after_its_connection_died(mailbox: Dovecot, opened: Opener) -> None:
    mailbox.deliver(RETURNS, letter("un"), letter("deux"))
    adapter = opened()
    got = await take(adapter.watch(None), 2)
    await adapter.acknowledge(got[:1])
    assert mailbox.kill_sessions(RETURNS)
    await adapter.acknowledge(got[1:])
    assert len(mailbox.messages(RETURNS, "Traités")) == 2


async def test_acknowledging_does_not_interrupt_the_watch(mailbox: Dovecot, opened: Opener) -> None:
    mailbox.deliver(RETURNS, letter("un"))
    adapter = opened()
    watching = adapter.watch(None)
    got = await take(watching, 1)
    waiting = asyncio.ensure_future(take(watching, 1))
    await adapter.acknowledge(got)
    assert not waiting.done()
    mailbox.deliver(RETURNS, letter("deux"))
    assert subjects(await waiting) == ["deux"]


async def test_a_server_without_move_copies_marks_and_expunges_only_ours(lying: Lying) -> None:
    capabilities = "* CAPABILITY IMAP4rev1 IDLE UIDPLUS\r\n{tag} OK done\r\n"
    async with Liar({"CAPABILITY": capabilities}).running() as liar:
        adapter = lying(liar, done="Fini")
        await adapter.acknowledge(await take(adapter.watch(None), 2))
        await adapter.close()
    assert liar.commands[-4:] == [
        "NOOP",
        'UID COPY 1:2 "Fini"',
        "UID STORE 1:2 +FLAGS.SILENT (\\Deleted)",
        "UID EXPUNGE 1:2",
    ]


# ------------------------------------------------------------------------------------ losses and half answers


async def test_a_killed_imap_process_is_noticed_at_once(mailbox: Dovecot, opened: Opener) -> None:
    watching = opened().watch(None)
    assert (await anext(watching)).envelopes == ()
    waiting = asyncio.ensure_future(anext(watching))
    start = time.monotonic()
    assert mailbox.kill_sessions(RETURNS)
    with pytest.raises(Deferred) as deferred:
        await asyncio.wait_for(waiting, 10)
    assert deferred.value.why == Why.CONNECTION
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("after", range(3000, 90_000, 9000))
async def test_a_cut_in_the_middle_of_a_letter_loses_and_shortens_nothing(
    mailbox: Dovecot, opened: Opener, after: int
) -> None:
    raws = [large(f"n{number}", 20_000) for number in range(4)]
    mailbox.fill(RETURNS, raws)
    got: dict[str, bytes] = {}
    async with Proxy(mailbox.imaps_port, cut_down_after=after).running() as proxy:
        adapter = opened(proxy.port)
        cursor = None
        try:
            async for batch in adapter.watch(cursor):
                got |= {envelope.id: envelope.raw for envelope in batch.envelopes}
                cursor = batch.cursor
                if len(got) == len(raws):
                    break
        except Deferred:
            proxy.cut_down_after = None
            got |= {envelope.id: envelope.raw for envelope in await take(adapter.watch(cursor), len(raws))}
        await adapter.close()
    assert sorted(got.values()) == sorted(raws)


async def test_a_fetch_given_up_leaves_no_answer_for_the_next_command(mailbox: Dovecot) -> None:
    mailbox.fill(RETURNS, [large(f"n{number}", 2_000_000) for number in range(10)])
    session = await session_of(mailbox)
    fetching = asyncio.ensure_future(session.fetch(list(range(1, 11)), "BODY.PEEK[]"))
    for _ in range(20):
        await asyncio.sleep(0)
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    assert not session.alive, "half an answer is in the pipe: only a new connection is in step"
    with pytest.raises(imap._Lost):
        await session.ask("NOOP")


async def test_news_that_come_inside_another_command_are_not_thrown_away(mailbox: Dovecot) -> None:
    session = await session_of(mailbox)
    session.announced.clear()
    mailbox.deliver(RETURNS, letter("un"))
    await session.ask("NOOP")
    assert session.announced.is_set()
    await asyncio.wait_for(session.idle(60), 5), "IDLE returns at once: the server will not say it again"
    await session.end()


async def test_a_half_open_connection_is_found_out_at_the_next_renewal(
    mailbox: Dovecot, opened: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(imap, "COMMAND_SECONDS", 0.2)
    mailbox.deliver(RETURNS, letter("un"))
    async with Proxy(mailbox.imaps_port).running() as proxy:
        watching = opened(proxy.port).watch(None)
        await take(watching, 1)
        proxy.hold_down = True
        with pytest.raises(Deferred) as deferred:
            await asyncio.wait_for(anext(watching), 10)
    assert deferred.value.why in {Why.TIMEOUT, Why.CONNECTION}


async def test_idle_is_renewed_and_mail_is_still_noticed(
    lying: Lying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "IDLE_SECONDS", 0.01)
    async with Liar({"SEARCH": "* SEARCH\r\n{tag} OK\r\n"}).running() as liar:
        watching = lying(liar).watch(None)
        await anext(watching)  # the empty folder's cursor
        waiting = asyncio.ensure_future(anext(watching))
        await liar.heard("IDLE", 3)
        # Never announced: only the question after a renewal can find it.
        liar.answers["SEARCH"] = "* SEARCH 1 2\r\n{tag} OK\r\n"
        batch = await asyncio.wait_for(waiting, 5)
    assert len(batch.envelopes) == 2


async def test_a_server_without_idle_is_asked_now_and_then(
    lying: Lying, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imap, "POLL_SECONDS", 0.01)
    answers: dict[str, str | bytes] = {
        "CAPABILITY": "* CAPABILITY IMAP4rev1\r\n{tag} OK\r\n",
        "SEARCH": "* SEARCH\r\n{tag} OK\r\n",
    }
    async with Liar(answers).running() as liar:
        watching = lying(liar).watch(None)
        await anext(watching)
        waiting = asyncio.ensure_future(anext(watching))
        await liar.heard("UID SEARCH", 3)
        del liar.answers["SEARCH"]
        assert len((await asyncio.wait_for(waiting, 5)).envelopes) == 2
    assert "IDLE" not in liar.commands


async def test_a_letter_the_server_cannot_read_out_does_not_stop_the_next(
    mailbox: Dovecot, opened: Opener
) -> None:
    mailbox.fill(RETURNS, [letter("un"), letter("illisible"), letter("trois")])
    (broken,) = [
        path for path in (mailbox.mail / RETURNS / "new").iterdir() if b"illisible" in path.read_bytes()
    ]
    broken.rename(broken.with_name(broken.name + ",W=999999,S=888888"))  # its size is a lie
    adapter, got, breaks = opened(), [], 0
    cursor: str | None = None
    async with asyncio.timeout(30):
        while len(got) < 3:
            try:
                async for batch in adapter.watch(cursor):
                    got += [
                        envelope for envelope in batch.envelopes if envelope.id not in {e.id for e in got}
                    ]
                    cursor = batch.cursor
                    if len(got) >= 3:
                        break
            except Deferred:
                breaks += 1
                assert breaks < 20
    assert {subject(envelope.raw) for envelope in got if envelope.flaw is None} >= {"un", "trois"}
    await adapter.close()


# ------------------------------------------------------------------------------------------ servers that lie


async def test_a_letter_the_server_hangs_up_on_each_time_is_given_up_after_five_breaks(
    lying: Lying,
) -> None:
    async with Liar({"FETCH": "* 1 FETCH (UID 1 BODY[] {{5}}\r\nun" + HANG_UP}).running() as liar:
        adapter = lying(liar)
        liar.answers["SEARCH"] = "* SEARCH 1\r\n{tag} OK\r\n"
        for _ in range(imap.BREAKS_UNTIL_GIVEN_UP + 1):
            with pytest.raises(Deferred):
                await first(adapter)
        batch = await first(adapter)
    assert [(envelope.raw, envelope.flaw) for envelope in batch.envelopes] == [(b"", Why.TRUNCATED)]
    assert liar.commands.count("UID FETCH 1 (UID RFC822.SIZE INTERNALDATE BODY.PEEK[])") == 5
    assert liar.commands.count("UID FETCH 1 (UID RFC822.SIZE INTERNALDATE BODY.PEEK[HEADER])") == 1


async def test_a_watch_given_up_by_us_is_not_held_against_a_letter(lying: Lying) -> None:
    async with Liar({"SEARCH": "* SEARCH 1\r\n{tag} OK\r\n", "FETCH": SILENCE}).running() as liar:
        adapter = lying(liar)
        for turn in range(imap.BREAKS_UNTIL_GIVEN_UP + 2):
            waiting = asyncio.ensure_future(first(adapter))
            await liar.heard("UID FETCH 1 (UID RFC822.SIZE INTERNALDATE", turn + 1)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        del liar.answers["FETCH"]
        batch = await first(adapter)
    assert [(envelope.raw, envelope.flaw) for envelope in batch.envelopes] == [(b"un 1\n", None)]


async def test_a_letter_shorter_than_its_size_is_marked_truncated(lying: Lying) -> None:
    sizes = "* 1 FETCH (UID 1 RFC822.SIZE 500)\r\n* 2 FETCH (UID 2 RFC822.SIZE 5)\r\n{tag} OK\r\n"
    async with Liar({"SIZES": sizes}).running() as liar:
        batch = await first(lying(liar))
    assert [envelope.flaw for envelope in batch.envelopes] == [Why.TRUNCATED, None]


LIES: dict[str, tuple[str, str | bytes]] = {
    "a BYE for a greeting": ("GREETING", "* BYE full\r\n"),
    "a greeting that never comes": ("GREETING", HANG_UP),
    "a session already open": ("GREETING", "* PREAUTH yours\r\n"),
    "no UIDVALIDITY": ("EXAMINE", "* 2 EXISTS\r\n{tag} OK open\r\n"),
    "a literal of 2 GB": ("FETCH", "* 1 FETCH (UID 1 BODY[] {{2147483648}}\r\n"),
    "a line without end": ("FETCH", b"* " + b"x" * (imap.LINE_LIMIT + 10)),
    "an unknown tag": ("SEARCH", "A999 OK what\r\n"),
    "bytes of nothing": ("FETCH", b"\x00\xff\r\n" * 10 + b"\x16\x03\x01\r\nA OK\r\n"),
    "a search of nonsense": ("SEARCH", "* SEARCH 1 deux 99999999999999999999999999\r\n{tag} NO\r\n"),
    "NO to the fetch": ("FETCH", "{tag} NO not today\r\n"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_deferred_at_once(lying: Lying, lie: str) -> None:
    point, answer = LIES[lie]
    async with Liar({point: answer}).running() as liar:
        adapter = lying(liar)
        with pytest.raises(Deferred) as deferred:
            await asyncio.wait_for(first(adapter), 10)
        await adapter.close()
    assert "not today" not in f"{deferred.value!r}{deferred.value.__cause__}"


async def test_rows_nobody_asked_for_are_no_letters(lying: Lying) -> None:
    noise = (
        "* 5 FETCH (FLAGS (\\Seen))\r\n* 9 FETCH (UID 99 BODY[] {{4}}\r\nfake)\r\n* OK [X] well {{12}}\r\n"
        '* 2 FETCH (FLAGS (\\Seen $x) UID 2 RFC822.SIZE 5 MODSEQ (12) BODY[] "un 2\\"")\r\n* 3 EXPUNGE\r\n'
        "* 1 FETCH (BODY[] {{5}}\r\n)\r\n( RFC822.SIZE 5 UID 1)\r\n{tag} OK done\r\n"
    )
    async with Liar({"FETCH": noise}).running() as liar:
        batch = await first(lying(liar))
    assert [envelope.raw for envelope in batch.envelopes] == [b")\r\n( ", b'un 2"']


async def test_a_silent_server_is_given_up(lying: Lying, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imap, "COMMAND_SECONDS", 0.1)
    async with Liar({"SEARCH": SILENCE}).running() as liar:
        with pytest.raises(Deferred) as deferred:
            await first(lying(liar))
    assert deferred.value.why == Why.TIMEOUT


# --------------------------------------------------------------------------------------- TLS and logging in


@pytest.mark.parametrize("name", ["revoked", "expired", "rogue", "missing"])
async def test_a_bad_certificate_of_ours_is_said_and_not_hammered(
    mailbox: Dovecot, opened: Opener, pki: Pki, name: str
) -> None:
    pair = getattr(pki, name, None)
    adapter = opened(client_cert=str(pair.cert) if pair else None, client_key=str(pair.key) if pair else None)
    with pytest.raises(Deferred) as deferred:
        await asyncio.wait_for(adapter.probe(), 10)
    assert deferred.value.why in {Why.AUTHENTICATION, Why.CERTIFICATE}
    assert deferred.value.retry_after is not None
    assert deferred.value.retry_after >= 300


@pytest.mark.parametrize("name", ["server_expired", "server_elsewhere", "server_rogue"])
@pytest.mark.parametrize("security", ["tls", "starttls"])
async def test_a_bad_certificate_of_the_server_is_refused_before_the_password_leaves(
    pki: Pki, lying: Lying, name: str, security: str
) -> None:
    context = server_context(pki, name)
    shown = {"tls": context} if security == "tls" else {"starttls": context}
    async with Liar({"STARTTLS": "{tag} OK go\r\n"}, **shown).running() as liar:
        adapter = lying(liar, security=security, ca=str(pki.ca))
        with pytest.raises(Deferred) as deferred:
            await adapter.probe()
    assert deferred.value.why == Why.CERTIFICATE
    assert liar.commands in ([], ["STARTTLS"])


async def test_a_wrong_password_is_said_and_not_hammered(mailbox: Dovecot, opened: Opener) -> None:
    with pytest.raises(Deferred) as deferred:
        await opened(password=SecretStr("faux")).probe()
    assert deferred.value.why == Why.AUTHENTICATION
    assert (deferred.value.retry_after or 0) >= 300
    assert "faux" not in repr(deferred.value)


@pytest.mark.parametrize("auth", ["login", "plain"])
@pytest.mark.parametrize("security", ["tls", "starttls", "none"])
async def test_every_protection_and_password_login_opens_the_mailbox(
    mailbox: Dovecot, plain_dovecot: Dovecot, tmp_path: Path, security: str, auth: str
) -> None:
    mailbox.deliver(RETURNS, letter("un"))
    port = plain_dovecot.imaps_port if security == "tls" else plain_dovecot.imap_port
    certificates = {"client_cert": None, "client_key": None}
    adapter = imap.connect(
        "plain",
        imap_settings(plain_dovecot, port, security=security, auth=auth, **certificates),
        tools(tmp_path),
    )
    await adapter.probe()
    assert subjects((await first(adapter)).envelopes) == ["un"]


async def test_external_opens_the_mailbox_of_the_certificate(
    server_folder: Callable[[str], Path], dovecot: Dovecot, pki: Pki, tmp_path: Path
) -> None:
    pair = pki.issue(RETURNS)
    server = Dovecot(server_folder("external"), pki, ACCOUNTS, external=True, mail=dovecot.mail).start()
    try:
        changed = {"client_cert": str(pair.cert), "client_key": str(pair.key), "password": None}
        adapter = imap.connect("x", imap_settings(server, auth="external", **changed), tools(tmp_path))
        await adapter.probe()
    finally:
        server.stop()


async def test_a_refused_token_is_answered_with_the_empty_line_it_waits_for(lying: Lying) -> None:
    async with Liar(
        {"AUTHENTICATE": "+ eyJzdGF0dXMiOiI0MDAifQ==\r\n", "ANSWER": "{tag} NO\r\n"}
    ).running() as liar:
        adapter = lying(liar, auth="xoauth2")
        with pytest.raises(Deferred) as deferred:
            await asyncio.wait_for(adapter.probe(), 5)
    assert deferred.value.why == Why.AUTHENTICATION
    assert liar.commands[-1] == "ANSWER "


async def test_starttls_that_is_not_offered_is_never_done_without(lying: Lying, pki: Pki) -> None:
    async with Liar().running() as liar:
        with pytest.raises(Deferred):
            await lying(liar, security="starttls", ca=str(pki.ca)).probe()
    assert liar.commands == ["STARTTLS"]


async def test_plain_text_behind_the_answer_to_starttls_ends_the_connection(lying: Lying, pki: Pki) -> None:
    async with Liar({"STARTTLS": "{tag} OK go\r\n* CAPABILITY IMAP4rev1 FAKE"}).running() as liar:
        with pytest.raises(Deferred) as deferred:
            await lying(liar, security="starttls", ca=str(pki.ca)).probe()
    assert deferred.value.why == Why.CONNECTION


async def test_a_folder_that_is_not_there_is_said(mailbox: Dovecot, opened: Opener) -> None:
    with pytest.raises(Deferred) as deferred:
        await opened(folder="Absent").probe()
    assert deferred.value.why == Why.UNKNOWN_MAILBOX


async def test_a_folder_with_accents_is_watched(mailbox: Dovecot, opened: Opener) -> None:
    with mailbox.session(RETURNS) as person:
        person.create(quoted("Sorties été"))
        person.append(quoted("Sorties été"), "", "", letter("un"))
    got = await take(opened(folder="Sorties été").watch(None), 1)
    assert subjects(got) == ["un"]


# ------------------------------------------------------------------------------------------------- the rest


async def test_nothing_of_a_letter_or_a_password_is_logged_even_at_debug(
    mailbox: Dovecot, opened: Opener, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    mailbox.deliver(RETURNS, letter("Canari-du-patient", "Canari-du-patient\r\n"))
    adapter = opened()
    await adapter.acknowledge(await take(adapter.watch(None), 1))
    await adapter.close()
    assert "Canari" not in caplog.text
    assert ACCOUNTS[RETURNS] not in caplog.text


async def test_closing_leaves_no_session_behind(mailbox: Dovecot, opened: Opener) -> None:
    mailbox.deliver(RETURNS, letter("un"))
    adapter = opened()
    watching = adapter.watch(None)
    await adapter.acknowledge(await take(watching, 1))
    assert len(mailbox.sessions(RETURNS)) == 2
    await adapter.close()
    with pytest.raises(Deferred):
        await asyncio.wait_for(anext(watching), 5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"security": "none", "host": "imap.operateur.mssante.fr"},
        {"username": ""},
        {"password": None},
        {"client_cert": None},
        {"done": "INBOX"},
        {"since": "hier"},
        {"auth": "ntlm"},
        {"port": "993"},
        {"prot": 993},
        {"folder": ""},
    ],
)
def test_settings_that_cannot_work_are_refused(dovecot: Dovecot, wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        imap_settings(dovecot, **wrong)


def test_a_date_may_be_written_as_toml_or_as_text(dovecot: Dovecot) -> None:
    for written in ("2026-11-01", date(2026, 11, 1)):
        assert imap_settings(dovecot, since=written).since == date(2026, 11, 1)


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("INBOX", '"INBOX"'),
        ("Traités", '"Trait&AOk-s"'),
        ("R&D", '"R&-D"'),
        ('a"b\\c', '"a\\"b\\\\c"'),
        ("台北", '"&U,BTFw-"'),
        ("💊", '"&2D3cig-"'),
    ],
)
def test_folder_names_go_out_in_modified_utf_7(name: str, wire: str) -> None:
    assert imap._mailbox(name) == wire


@pytest.mark.parametrize(
    ("uids", "text"), [([1, 2, 3, 7], "1:3,7"), ([5], "5"), ([3, 1, 2, 2], "1:3"), ([1, 3, 5], "1,3,5")]
)
def test_uids_are_written_as_ranges(uids: list[int], text: str) -> None:
    assert imap._set_of(uids) == text


def test_a_cursor_reads_back_what_it_wrote() -> None:
    day = date(2026, 11, 1)
    for cursor in (imap.Cursor(7), imap.Cursor(7, 5, 3, day, 2), imap.Cursor(7, 5, 0, day, 0, 9)):
        assert imap.Cursor.parse(str(cursor)) == cursor


async def session_of(dovecot: Dovecot) -> imap._Session:
    """A bare session on the INBOX of RETURNS."""
    pki = dovecot.pki
    session = await imap._Session.connect(
        "127.0.0.1",
        dovecot.imaps_port,
        "tls",
        Trust(str(pki.ca), str(pki.client.cert), str(pki.client.key)),
        literal_limit=2**24,
    )
    await session.log_in("login", RETURNS, ACCOUNTS[RETURNS])
    await session.select("INBOX", readonly=False)
    return session


def server_context(pki: Pki, name: str) -> ssl.SSLContext:
    pair = getattr(pki, name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pair.cert, pair.key)
    return context


@pytest.fixture(autouse=True)
def no_session_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    if "dovecot" in request.fixturenames:
        request.getfixturevalue("dovecot").kill_sessions(RETURNS)
