"""Watches a drop folder: each finished file becomes an envelope, and moves to a subfolder once it is kept.

Whoever drops files writes them under a name that begins with a dot or ends in .tmp or .part, and renames
them when they are whole; a file that appears under its own name is taken when it has stopped changing.
Nothing is ever deleted or overwritten. A file's name may hold a patient's: it goes into no envelope, log or
error.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from relay import log
from relay.errors import Deferred
from relay.model import Batch, Envelope, Why, derived_id, envelope_id
from relay.ports import Tools

BATCH_FILES, BATCH_BYTES = 200, 8 * 2**20
LOOK_SECONDS = 1.0
# A network share tells of writing up to two seconds late (Samba's default), and shows the final size first.
LOOKS_UNTIL_SETTLED = 4
LOOKS_UNTIL_EMPTY = 60  # programs make a file, and begin to write it later
HEAD_BYTES = 64 * 1024  # kept of a file too large to be taken
OURS_TO_MEND_SECONDS = 300.0

UNFINISHED = (".tmp", ".part", ".partial", ".crdownload", "~")
# What `reading.read_file` tells apart by its ending. Any other ending is left out: « courrier.durand » names somebody.
ENDINGS = frozenset({"eml", "xml", "zip", "hl7", "er7", "hpr", "json", "pdf", "txt"})


class Settings(BaseModel):
    """The keys of `[adapters.NAME]` with `kind = "folder"` that concern the folder."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    path: str = Field(min_length=1)
    done: str = "traites"  # the subfolder where a file goes once it is kept
    max_bytes: int | None = Field(default=None, ge=1)  # a larger file is held, its head kept

    @field_validator("done")
    @classmethod
    def _one_step(cls, value: str) -> str:
        if value != os.path.basename(value) or value in ("", ".", ".."):
            raise ValueError("write the name of a subfolder, without a path")
        return value


def connect(name: str, settings: Settings, tools: Tools) -> Folder:
    """Make the adapter; the disk is touched by `watch`, `acknowledge` and `probe` only."""
    return Folder(name, settings, tools)


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What changes when somebody writes to a file. No inode: network shares may invent a new one at each look."""

    size: int
    written: int  # ns

    @classmethod
    def of(cls, found: os.stat_result) -> _Stamp:
        return cls(found.st_size, found.st_mtime_ns)

    @classmethod
    def at(cls, path: Path) -> _Stamp | None:
        """None where nothing stands."""
        try:
            return cls.of(os.lstat(path))
        except FileNotFoundError:
            return None


_File = tuple[str, _Stamp]  # its name, and what was seen of it


@dataclass(frozen=True, slots=True)
class _Sight:
    """One look at one file, and how many looks in a row showed the same."""

    stamp: _Stamp
    looks: int = 1

    @property
    def settled(self) -> bool:
        return self.looks >= (LOOKS_UNTIL_SETTLED if self.stamp.size else LOOKS_UNTIL_EMPTY)


class Folder:
    """One watched folder."""

    kind = "folder"

    def __init__(self, name: str, settings: Settings, tools: Tools) -> None:
        self.name = name
        self.account = f"folder:{settings.path}"
        self._tools = tools
        self._path = Path(settings.path)
        self._done = self._path / settings.done
        self._max_bytes = settings.max_bytes or tools.max_bytes
        self._given: dict[str, _File] = {}  # ref → file, from its yielding until it is put away
        self._seen: set[_File] = set()  # given at any time, and still there
        self._turn = asyncio.Lock()

    async def probe(self) -> None:
        """Look whether files can be read here and moved; a folder of which only the last step is missing is made.

        Raises Deferred.
        """
        with _verdicts():
            await asyncio.to_thread(self._probe)

    async def close(self) -> None:
        """Nothing stays open between two looks."""

    async def watch(self, since: str | None) -> AsyncIterator[Batch]:
        """Yield files as they are finished, the oldest first; see `relay.ports.Inbox.watch`.

        What stands in the folder was not put away, so all of it comes; the cursor is not needed to go on.
        """
        self._given = {}
        sights: dict[str, _Sight] = {}
        while True:
            with _verdicts():
                found = await asyncio.to_thread(self._look)
            # A file that was written to after it was yielded is a new one.
            self._given = {ref: file for ref, file in self._given.items() if found.get(file[0]) == file[1]}
            given = {name for name, _ in self._given.values()}
            sights = {name: _seen(sights.get(name), stamp) for name, stamp in found.items()}
            ready = [
                (name, sight.stamp) for name, sight in sights.items() if sight.settled and name not in given
            ]
            # Where nothing can be put away, every file ever kept comes again: behind the new ones.
            self._seen.intersection_update(found.items())
            ready.sort(key=lambda file: (file in self._seen, file[1].written, file[0]))
            while ready:
                with _verdicts():
                    taken, count = await asyncio.to_thread(self._take, ready)
                del ready[:count]
                if taken:
                    self._given |= {envelope.ref: file for envelope, file in taken}
                    self._seen |= {file for _, file in taken}
                    envelopes = tuple(envelope for envelope, _ in taken)
                    yield Batch(self.account, envelopes, envelopes[-1].ref)
            await self._tools.clock.sleep(LOOK_SECONDS)

    async def acknowledge(self, envelopes: Sequence[Envelope]) -> None:
        """Move the files to the `done` subfolder. Raises Deferred.

        A file that was written to meanwhile stays where it is: it is taken anew at a later look.
        """
        async with self._turn:
            for envelope in envelopes:
                if (file := self._given.get(envelope.ref)) is not None:
                    with _verdicts():
                        await asyncio.to_thread(self._put_away, envelope.ref, *file)
                    self._given.pop(envelope.ref, None)

    # On the disk, outside the event loop

    def _probe(self) -> None:
        if not self._path.is_dir():
            self._path.mkdir()
            log.get().info("folder_made", adapter=self.name)
        if not os.access(self._path, os.R_OK | os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "folder")

    def _look(self) -> dict[str, _Stamp]:
        """The files that may be taken. Links are not followed: they could point at anything on this machine."""
        found: dict[str, _Stamp] = {}
        with os.scandir(self._path) as entries:
            for entry in entries:
                if entry.name.startswith((".", "~$")) or entry.name.lower().endswith(UNFINISHED):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        found[entry.name] = _Stamp.of(entry.stat(follow_symlinks=False))
        return found

    def _take(self, files: Sequence[_File]) -> tuple[list[tuple[Envelope, _File]], int]:
        """The envelopes of the first of these files, and of how many files that is."""
        taken: list[tuple[Envelope, _File]] = []
        weight = 0
        for count, (name, stamp) in enumerate(files):
            size = min(stamp.size, self._max_bytes)
            if taken and (len(taken) == BATCH_FILES or weight + size > BATCH_BYTES):
                return taken, count
            envelope = self._envelope(name, stamp)
            if envelope is not None:
                taken.append((envelope, (name, stamp)))
                weight += size
        return taken, len(files)

    def _envelope(self, name: str, stamp: _Stamp) -> Envelope | None:
        """One file as it stands; None when it is no longer what was seen."""
        flaw = Why.TOO_LARGE if stamp.size > self._max_bytes else None
        try:
            raw = self._read(name, stamp, HEAD_BYTES if flaw else stamp.size)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EIO):
                raise
            # One file that cannot be read must neither stop the others nor be passed over in silence.
            log.get().error("file_cannot_be_read", adapter=self.name, errno=error.errno)
            raw, flaw = b"", Why.UNREADABLE
        if raw is None:
            return None
        content = hashlib.sha256(raw).hexdigest()
        # The same file has the same ref for ever, and nobody reads its name out of it.
        ref = derived_id("file", os.fsencode(name).hex(), str(stamp.size), str(stamp.written), content)
        ref += _ending(name)
        return Envelope(
            id=envelope_id(self.account, ref),
            adapter=self.name,
            account=self.account,
            ref=ref,
            received_at=self._tools.clock.now(),
            raw=raw,
            flaw=flaw,
        )

    def _read(self, name: str, stamp: _Stamp, limit: int) -> bytes | None:
        """The bytes of this very file, if it did not change before or while it was read."""
        # A pipe put in the file's place would keep us waiting for ever.
        handle = os.open(self._path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                return None
            raw = stream.read(limit)
            return raw if _Stamp.of(os.fstat(handle)) == stamp and len(raw) == limit else None

    def _put_away(self, ref: str, name: str, stamp: _Stamp) -> None:
        source, target = self._path / name, self._done / name
        if _Stamp.at(source) != stamp:
            return
        self._done.mkdir(exist_ok=True)
        if os.path.lexists(target):  # an earlier file of the same name
            target = self._done / ref
        os.replace(source, target)
        if _Stamp.at(target) == stamp:
            return
        # Somebody wrote to it at the last moment, or put another in its place: that one nobody has read.
        back = source if not os.path.lexists(source) else self._path / f"{derived_id(ref)}{_ending(name)}"
        os.replace(target, back)
        log.get().warning("file_changed_while_put_away", adapter=self.name)


def _seen(before: _Sight | None, stamp: _Stamp) -> _Sight:
    return _Sight(stamp, before.looks + 1) if before is not None and before.stamp == stamp else _Sight(stamp)


def _ending(name: str) -> str:
    ending = name.rpartition(".")[2].lower()
    return f".{ending}" if ending in ENDINGS else ""


# -------------------------------------------------------------------------------------------------- verdicts


@contextlib.contextmanager
def _verdicts() -> Iterator[None]:
    """Translate what is raised inside; the names of files stay behind."""
    try:
        yield
    except OSError as error:
        raise _translate(error) from None


def _translate(error: OSError) -> Deferred:
    """A folder can always be looked at again: what was not put away stays in it."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | FileExistsError):
        return Deferred(Why.UNKNOWN_MAILBOX, retry_after=OURS_TO_MEND_SECONDS, detail="no such folder")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return Deferred(Why.REFUSED, retry_after=OURS_TO_MEND_SECONDS, detail="folder permissions")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Deferred(Why.MAILBOX_FULL, detail="disk full")
    return Deferred(Why.CONNECTION, detail=errno.errorcode.get(error.errno or 0, "disk"))
