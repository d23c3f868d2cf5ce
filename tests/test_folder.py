"""The drop folder on a real disk: when a file is whole, where it goes, and what of it nobody ever reads."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters import folder
from relay.errors import Deferred
from relay.model import Batch, Envelope, Why
from relay.reading import read_file
from tests import letters
from tests.conftest import GP
from tests.letters import MARTIN, ODETTE
from tests.servers.dovecot import Dovecot
from tests.site import Site, body, documents, parsed, reference
from tests.trials import TurnedClock, tools


class Looks(TurnedClock):
    """Time that stands still until the test lets the folder be looked at once more."""

    def __init__(self) -> None:
        super().__init__()
        self._allowed = asyncio.Semaphore(0)
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        assert seconds == folder.LOOK_SECONDS
        self.asleep.set()
        await self._allowed.acquire()
        self.at += seconds

    def look(self) -> None:
        self.asleep.clear()
        self._allowed.release()


class Depot:
    """A watched folder, looked at when the test says so."""

    def __init__(self, place: Path, **changed: object) -> None:
        self.path, self.clock = place / "depot", Looks()
        self.done = self.path / "traites"
        self.path.mkdir(exist_ok=True)
        settings = folder.Settings.model_validate({"path": str(self.path)} | changed)
        self.adapter = folder.connect("depot", settings, tools(place, self.clock))
        self.watching = self.adapter.watch(None)
        self.following: asyncio.Future[Batch] | None = None

    async def look(self, count: int = 1) -> list[Envelope]:
        """What so many looks bring."""
        found: list[Envelope] = []
        for _ in range(count):
            if self.following is None:
                self.following = asyncio.ensure_future(anext(self.watching))
            else:
                self.clock.look()
            found += await self._until_asleep()
        return found

    async def _until_asleep(self) -> list[Envelope]:
        found: list[Envelope] = []
        async with asyncio.timeout(10):
            while True:
                assert self.following is not None
                asleep = asyncio.ensure_future(self.clock.asleep.wait())
                await asyncio.wait({asleep, self.following}, return_when=asyncio.FIRST_COMPLETED)
                asleep.cancel()
                if not self.following.done():
                    return found
                found += self.following.result().envelopes
                self.following = asyncio.ensure_future(anext(self.watching))

    async def settle(self) -> list[Envelope]:
        """What is found once everything there has been looked at often enough."""
        return await self.look(folder.LOOKS_UNTIL_SETTLED)

    async def end(self) -> None:
        if self.following is not None:
            self.following.cancel()
            await asyncio.gather(self.following, return_exceptions=True)

    def put(self, name: str, content: bytes = b"contenu") -> Path:
        (self.path / name).write_bytes(content)
        return self.path / name


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Callable[..., Depot]]:
    made: list[Depot] = []

    def make(**changed: object) -> Depot:
        made.append(Depot(tmp_path, **changed))
        return made[-1]

    yield make
    for depot in made:
        await depot.end()


@pytest.fixture
def depot(opened: Callable[..., Depot]) -> Depot:
    return opened()


# --------------------------------------------------------------------------------------------- when it is whole


async def test_a_file_is_taken_once_it_has_stopped_changing(depot: Depot) -> None:
    file = depot.put("lettre.xml", b"<debut")
    assert not await depot.look(folder.LOOKS_UNTIL_SETTLED - 1)
    with file.open("ab") as stream:
        stream.write(b"/>")
    assert not await depot.look(folder.LOOKS_UNTIL_SETTLED - 1), "it grew: counted anew"
    (envelope,) = await depot.look()
    assert envelope.raw == b"<debut/>"
    assert not await depot.settle(), "and once only"


async def test_a_file_written_over_in_place_is_not_taken_before_it_rests(depot: Depot) -> None:
    file = depot.put("lettre.xml", b"\0\0\0\0")  # Windows shows the final size first
    for number in range(4):
        assert not await depot.look(folder.LOOKS_UNTIL_SETTLED - 1)
        os.utime(file, (1_800_000_000 + number,) * 2)
    file.write_bytes(b"fini")
    assert [envelope.raw for envelope in await depot.settle()] == [b"fini"]


async def test_an_empty_file_is_waited_for_longer_and_not_for_ever(depot: Depot) -> None:
    depot.put("lettre.xml", b"")
    assert not await depot.look(folder.LOOKS_UNTIL_EMPTY - 1)
    (envelope,) = await depot.look()
    assert envelope.raw == b""


@pytest.mark.parametrize(
    "name", [".lettre.xml", "lettre.xml.tmp", "lettre.PART", "lettre.partial", "lettre.xml~", "~$lettre.txt"]
)
async def test_an_unfinished_name_is_left_alone_until_it_is_renamed(depot: Depot, name: str) -> None:
    file = depot.put(name)
    assert not await depot.settle()
    file.rename(depot.path / "lettre.xml")
    assert len(await depot.settle()) == 1


async def test_links_folders_and_pipes_are_not_followed(depot: Depot, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"secret")
    (depot.path / "lien.txt").symlink_to(secret)
    (depot.path / "archive").mkdir()
    (depot.path / "archive" / "vieux.txt").write_bytes(b"vieux")
    os.mkfifo(depot.path / "tuyau.txt")
    depot.put("lettre.txt", b"lettre")
    assert [envelope.raw for envelope in await depot.settle()] == [b"lettre"]


async def test_a_link_put_in_a_files_place_at_the_last_moment_is_not_followed(
    depot: Depot, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(b"secrets")
    file = depot.put("lettre.txt", b"contenu")
    stamp = folder._Stamp.at(file)
    assert stamp is not None
    file.unlink()
    file.symlink_to(secret)
    assert depot.adapter._envelope("lettre.txt", stamp) is None
    file.unlink()
    os.mkfifo(file)
    assert depot.adapter._envelope("lettre.txt", stamp) is None, "nor does a pipe keep us waiting"


# ------------------------------------------------------------------------------------------------ what it is


async def test_a_name_is_in_no_ref_and_in_no_log(depot: Depot, capfd: pytest.CaptureFixture[str]) -> None:
    depot.put("CORMERAIS_Odette_1948.pdf", b"%PDF-1.4 a")
    depot.put("courrier.cormerais", b"un courrier")
    depot.put("sans-extension", b"MSH|^~\\&|")
    envelopes = await depot.settle()
    await depot.adapter.acknowledge(envelopes)
    refs = sorted((envelope.ref for envelope in envelopes), key=len)
    assert [len(ref) for ref in refs] == [24, 24, 28]
    assert refs[2].endswith(".pdf"), "an ending of ours tells how to read it"
    said = "".join(capfd.readouterr()) + repr(envelopes)
    assert "cormerais" not in said.lower()


async def test_every_ending_kept_tells_the_reader_something(depot: Depot) -> None:
    for ending in sorted(folder.ENDINGS - {"eml", "txt"}):
        document = read_file(f"x.{ending}", b"\x01\x00\x02 rien")
        plain = read_file("x", b"\x01\x00\x02 rien")
        assert document.parts[0].media_type != plain.parts[0].media_type, ending


async def test_undecodable_names_are_taken_too(depot: Depot) -> None:
    name = os.fsdecode(b"lettre-\xe9t\xe9.xml")
    depot.put(name)
    envelopes = await depot.settle()
    assert len(envelopes) == 1
    await depot.adapter.acknowledge(envelopes)
    assert (depot.done / name).exists()


async def test_the_same_name_with_other_bytes_is_new_mail(depot: Depot) -> None:
    depot.put("lettre.xml", b"version 1")
    first = await depot.settle()
    await depot.adapter.acknowledge(first)
    depot.put("lettre.xml", b"version 2")
    second = await depot.settle()
    await depot.adapter.acknowledge(second)
    assert [envelope.raw for envelope in first + second] == [b"version 1", b"version 2"]
    assert first[0].id != second[0].id
    kept = {file.read_bytes() for file in depot.done.iterdir()}
    assert kept == {b"version 1", b"version 2"}, "nothing is written over"


async def test_a_crash_between_commit_and_renaming_brings_the_same_envelope(
    opened: Callable[..., Depot],
) -> None:
    before = opened()
    before.put("lettre.xml")
    (first,) = await before.settle()
    await before.end()
    (again,) = await opened().settle()
    assert (again.id, again.raw) == (first.id, first.raw)


async def test_a_file_too_large_is_held_with_its_head(opened: Callable[..., Depot]) -> None:
    depot = opened(max_bytes=100_000)
    depot.put("grand.txt", b"x" * 100_001)
    depot.put("petit.txt", b"y" * 100_000)
    envelopes = sorted(await depot.settle(), key=lambda each: each.raw)
    assert [(len(each.raw), each.flaw) for each in envelopes] == [
        (folder.HEAD_BYTES, Why.TOO_LARGE),
        (100_000, None),
    ]
    await depot.adapter.acknowledge(envelopes)
    assert sorted(file.stat().st_size for file in depot.done.iterdir()) == [100_000, 100_001]


async def test_batches_stay_below_eight_megabytes_oldest_first(depot: Depot) -> None:
    for number in (3, 1, 2):
        file = depot.put(f"{number}.txt", bytes([64 + number]) * 3 * 2**20)
        os.utime(file, (1_800_000_000 + number,) * 2)
    depot.following = None
    batches: list[Batch] = []
    watching = depot.watching
    waiting = asyncio.ensure_future(anext(watching))
    for _ in range(folder.LOOKS_UNTIL_SETTLED - 1):
        await depot.clock.asleep.wait()
        depot.clock.look()
    batches.append(await asyncio.wait_for(waiting, 10))
    batches.append(await asyncio.wait_for(anext(watching), 10))
    assert [[each.raw[:1] for each in batch.envelopes] for batch in batches] == [[b"A", b"B"], [b"C"]]


# -------------------------------------------------------------------------------------------- putting away


async def test_a_file_moves_after_our_commit_and_not_before(depot: Depot) -> None:
    file = depot.put("lettre.xml")
    envelopes = await depot.settle()
    await depot.settle()
    assert file.exists()
    await depot.adapter.acknowledge(envelopes)
    assert not file.exists()
    assert (depot.done / "lettre.xml").read_bytes() == b"contenu"


async def test_a_file_written_to_while_it_was_kept_stays_and_is_taken_anew(depot: Depot) -> None:
    file = depot.put("lettre.xml", b"debut")
    first = await depot.settle()
    with file.open("ab") as stream:
        stream.write(b" et fin")
    await depot.adapter.acknowledge(first)
    assert file.exists()
    second = await depot.settle()
    assert [envelope.raw for envelope in second] == [b"debut et fin"]
    await depot.adapter.acknowledge(first)
    assert file.exists(), "the word about the old one moves nothing of the new one"
    await depot.adapter.acknowledge(second)
    assert (depot.done / "lettre.xml").read_bytes() == b"debut et fin"


async def test_another_file_put_there_while_one_is_moved_comes_back(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = depot.put("lettre.xml", b"lue")
    envelopes = await depot.settle()
    real = os.replace

    def raced(source: Path, target: Path) -> None:
        if Path(source) == file and not (depot.path / ".raced").exists():
            (depot.path / ".raced").touch()
            file.write_bytes(b"jamais lue")
        real(source, target)

    monkeypatch.setattr(os, "replace", raced)
    await depot.adapter.acknowledge(envelopes)
    monkeypatch.undo()
    assert [envelope.raw for envelope in await depot.settle()] == [b"jamais lue"]


async def test_a_folder_of_finished_files_that_cannot_be_made_is_deferred_and_the_files_come_again(
    opened: Callable[..., Depot],
) -> None:
    depot = opened()
    depot.put("lettre.xml")
    envelopes = await depot.settle()
    depot.done.write_bytes(b"in the way")
    with pytest.raises(Deferred) as deferred:
        await depot.adapter.acknowledge(envelopes)
    assert "lettre" not in f"{deferred.value!r} {deferred.value.__cause__}"
    assert deferred.value.__suppress_context__
    depot.done.unlink()
    await depot.adapter.acknowledge(envelopes)
    assert (depot.done / "lettre.xml").exists()


async def test_files_that_can_never_be_put_away_keep_no_new_file_waiting(depot: Depot) -> None:
    for number in range(4):
        os.utime(depot.put(f"{number}.xml"), (number, number))
    first = await depot.settle()
    depot.done.write_bytes(b"in the way")
    with pytest.raises(Deferred):
        await depot.adapter.acknowledge(first)
    depot.done.unlink()
    await depot.end()
    depot.put("neuf.xml", b"neuf")
    depot.watching, depot.following = depot.adapter.watch(None), None
    depot.clock.asleep.clear()
    again = await depot.settle()
    assert [envelope.raw for envelope in again] == [b"neuf", *(envelope.raw for envelope in first)]


# ----------------------------------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize("number", [errno.EACCES, errno.EIO])
async def test_a_file_that_cannot_be_read_is_told_of_and_stops_no_other(
    depot: Depot, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    depot.put("illisible.xml")
    depot.put("lisible.xml", b"lisible")
    real = os.open

    def refused(path: Path, flags: int) -> int:
        if "illisible" in str(path):
            raise OSError(number, "no", str(path))
        return real(path, flags)

    monkeypatch.setattr(os, "open", refused)  # root may read everything
    envelopes = {envelope.raw: envelope.flaw for envelope in await depot.settle()}
    assert envelopes == {b"": Why.UNREADABLE, b"lisible": None}


async def test_a_share_that_fails_while_a_file_is_read_is_tried_again(
    depot: Depot, monkeypatch: pytest.MonkeyPatch
) -> None:
    depot.put("lettre.xml")

    def stale(path: Path, flags: int) -> int:
        raise OSError(errno.ESTALE, "stale", str(path))

    monkeypatch.setattr(os, "open", stale)
    with pytest.raises(Deferred) as deferred:
        await depot.settle()
    assert deferred.value.why == Why.CONNECTION
    assert "lettre" not in repr(deferred.value)


async def test_a_folder_whose_last_step_is_missing_is_made_and_no_more_than_that(tmp_path: Path) -> None:
    made = folder.connect("depot", folder.Settings(path=str(tmp_path / "depot")), tools(tmp_path))
    await made.probe()
    assert (tmp_path / "depot").is_dir()
    for missing in (tmp_path / "no" / "depot", tmp_path / "file"):
        (tmp_path / "file").touch()
        unmounted = folder.connect("depot", folder.Settings(path=str(missing)), tools(tmp_path))
        with pytest.raises(Deferred) as deferred:
            await unmounted.probe()
        assert (deferred.value.why, deferred.value.detail) == (Why.UNKNOWN_MAILBOX, "no such folder")


@pytest.mark.parametrize("done", ["", ".", "..", "a/b", "/absolute"])
def test_the_folder_of_finished_files_stands_in_the_watched_one(done: str) -> None:
    with pytest.raises(ValidationError, match="without a path"):
        folder.Settings(path="depot", done=done)


# ------------------------------------------------------------------------------------------------ the whole way

DEPOT = """
[adapters.depot]
kind = "folder"
path = "depot"
ward = { name = "Chirurgie", slug = "chirurgie", facility = "450000088", reply_to = "sorties@chr-exemple.mssante.fr" }
"""


def test_a_package_dropped_into_the_folder_reaches_the_gp(
    make_site: Callable[..., Site], dovecot: Dovecot
) -> None:
    site = make_site()
    with site.file.open("a", encoding="utf-8") as file:
        file.write(DEPOT)
    site.directory([MARTIN])
    site.patients([(ODETTE, [MARTIN])])
    package = letters.xdm()
    drop = site.folder / "depot"
    with site.running():
        site.until(drop.is_dir)
        (drop / "CORMERAIS.tmp").write_bytes(package)
        (drop / "CORMERAIS.tmp").rename(drop / "CORMERAIS.zip")
        (raw,) = dovecot.wait_messages(GP)
        sent = parsed(raw)
        assert package in documents(sent).values()
        (envelope,) = site.rows("envelopes", adapter="depot")
        assert envelope["state"] == "decided"
        assert reference(body(sent)) == envelope["reference"]
        site.until((drop / "traites" / "CORMERAIS.zip").exists)
        assert (drop / "traites" / "CORMERAIS.zip").read_bytes() == package
        # The same bytes under another name, and a file that is no letter.
        (drop / "copie.zip").write_bytes(package)
        (drop / "note.txt").write_bytes("Réunion de service jeudi.\n".encode())
        site.row("envelopes", adapter="depot", state="ignored", why="duplicate")
        site.row("envelopes", adapter="depot", state="ignored", why="not_a_notice")
        assert site.json("status")["balance"] == 0
    listed = site.relay("envelopes", "list", "--json")
    assert "CORMERAIS" not in site.logs + listed


def test_a_crash_after_the_commit_leaves_one_envelope_and_the_file_put_away(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    with site.file.open("a", encoding="utf-8") as file:
        file.write(DEPOT)
    drop = site.folder / "depot"
    drop.mkdir()
    (drop / "lettre.xml").write_bytes(letters.cda())
    site.start(env={"RELAIS_CRASH_AT": "accepted@depot"})
    assert site.died()
    assert (drop / "lettre.xml").exists()
    with site.running():
        site.until((drop / "traites" / "lettre.xml").exists)
    assert len(site.rows("envelopes", adapter="depot")) == 1
