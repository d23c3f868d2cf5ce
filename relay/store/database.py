"""In charge of the connection: threads, transactions, waking, and the one seam between SQLite and PostgreSQL.

A transaction is one synchronous function run in a worker thread: the event loop never waits for the disk, and
nothing of a function is seen before all of it is. The function may be run again after a clash with another
process, so it must not change anything but the database.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import re
import sqlite3
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, Insert, Select, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    SQLAlchemyError,
)

from relay import log
from relay.errors import ConfigurationError, RelaisError, Unavailable
from relay.store import schema
from relay.tls import is_loopback

if TYPE_CHECKING:
    from sqlalchemy import Table

Answer = TypeVar("Answer")
Result = TypeVar("Result")

BUSY_MS = 30_000
POLL_SECONDS = 0.5
START_SECONDS = 10
TRIES = 6
CHANNEL = "relais_changed"
LIBPQ: Mapping[str, Any] = {
    "connect_timeout": 10,
    "application_name": "relais",
    # A server whose machine is gone answers nothing: notice within a minute, not after two hours.
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
_NO_TLS = re.compile(r"certificate|does not support SSL")  # libpq says it in words alone


class Inconsistent(RelaisError):
    """The rows of a transaction contradict each other or the tables: a defect of ours. Nothing was written."""


class Bell:
    """Rings for all who wait. The rings are counted, so that none is missed between looking and waiting."""

    def __init__(self) -> None:
        self.rings = 0
        self._next = asyncio.Event()

    def ring(self) -> None:
        """Wake everybody."""
        self.rings += 1
        self._next.set()
        self._next = asyncio.Event()  # who waits from now on waits for the next one

    async def after(self, seen: int | None) -> int:
        """Return once it has rung more than `seen` times (None: than until now)."""
        seen = self.rings if seen is None else seen
        while self.rings <= seen:
            await self._next.wait()
        return self.rings


class Database(ABC):
    """One database, opened; the subclasses are the two dialects."""

    def __init__(self, readers: int, writers: int) -> None:
        self.mark = token_hex(8)  # tells our own notifications from those of others
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="store-read")
        self._writers = ThreadPoolExecutor(writers, thread_name_prefix="store-write")
        self._loop = asyncio.get_running_loop()
        self.changes = Bell()  # somebody committed
        self.work = Bell()  # ... and something may be due that was not
        self._watching = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._failed: str | None = None

    # ------------------------------------------------------------------------------------- transactions

    async def read(self, work: Callable[[Connection], Answer]) -> Answer:
        """Run `work` on one snapshot of the database. Raises Unavailable."""
        return await self._run(self._readers, self._read, work)

    async def write(
        self, work: Callable[[Connection], tuple[Answer, bool]], *, quiet: bool = False
    ) -> Answer:
        """Run `work` in one transaction, durable when this returns; it answers, and says whether to wake others.

        `quiet`: nothing falls due through it, so nobody of this process is called to work.
        Raises Unavailable, Inconsistent, and what `work` raises; then nothing was written.
        """
        return await self._run(self._writers, partial(self._write, quiet=quiet), work)

    async def _run(
        self,
        threads: ThreadPoolExecutor,
        how: Callable[[Callable[[Connection], Result]], Answer],
        work: Callable[[Connection], Result],
    ) -> Answer:
        if self._failed:
            raise Unavailable(self._failed)
        return await self._loop.run_in_executor(threads, how, work)

    def _read(self, work: Callable[[Connection], Answer]) -> Answer:
        for left in reversed(range(TRIES)):
            try:
                with self._snapshot() as connection:
                    return work(connection)
            except DBAPIError as error:
                if not left or not self._again(error, reading=True):
                    raise self._translated(error) from None
                time.sleep(0.05)
            except SQLAlchemyError as error:
                raise self._translated(error) from None
        raise AssertionError("unreachable")

    def _write(self, work: Callable[[Connection], tuple[Answer, bool]], *, quiet: bool = False) -> Answer:
        for left in reversed(range(TRIES)):
            try:
                answer, news = self._once(work)
            except DBAPIError as error:
                if not left or not self._again(error, reading=False):
                    raise self._translated(error) from None
                time.sleep(0.01 * (TRIES - left))
            except SQLAlchemyError as error:
                raise self._translated(error) from None
            else:
                if news:
                    self.announce(quiet=quiet)
                return answer
        raise AssertionError("unreachable")

    @abstractmethod
    def _once(self, work: Callable[[Connection], Answer]) -> Answer:
        """Begin, work, commit."""

    @abstractmethod
    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        """A connection on which every query sees the same state."""
        yield NotImplemented

    @abstractmethod
    def _again(self, error: DBAPIError, *, reading: bool) -> bool:
        """Whether the failed transaction is certain to have changed nothing and may well succeed now."""

    def _translated(self, error: Exception) -> RelaisError:
        """What a database says may quote rows: keep its type alone."""
        cause = getattr(error, "orig", None) or error
        if isinstance(error, IntegrityError | DataError):
            return Inconsistent(f"the store refuses this row ({type(cause).__name__})")
        if isinstance(error, OperationalError) and _NO_TLS.search(str(cause)):
            return Unavailable(
                "the database shows no certificate that is trusted for its name (ca in [database])"
            )
        return Unavailable(f"the database does not answer ({type(cause).__name__})")

    # ------------------------------------------------------------------------------------------- waking

    def announce(self, *, quiet: bool = False) -> None:
        """Wake those who wait here; called in a worker thread after a commit."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake, quiet)

    def _wake(self, quiet: bool = False) -> None:
        self.changes.ring()
        if not quiet:
            self.work.ring()

    @abstractmethod
    async def _watch(self) -> None:
        """Call `_wake` whenever another process committed; runs until cancelled."""

    # ------------------------------------------------------------------------------------------ dialect

    @abstractmethod
    def insert(self, table: Table) -> Any:  # the two dialects' Insert share on_conflict_* but no type
        """An INSERT that knows ON CONFLICT."""

    def insert_new(self, table: Table) -> Insert:
        """An INSERT that leaves rows alone which exist already."""
        statement: Insert = self.insert(table).on_conflict_do_nothing()
        return statement

    def locking(self, query: Select[Any], *, skip: bool = False) -> Select[Any]:
        """The same query, whose rows nobody else may change until we commit. SQLite has one writer anyway."""
        return query

    def alone(self, connection: Connection, what: str) -> None:  # noqa: B027 - SQLite has one writer anyway
        """Wait until no other transaction does `what`, and keep it so until the commit."""

    def tell(self, connection: Connection) -> None:  # noqa: B027 - SQLite is asked by the others
        """Let other processes know of this transaction when it commits."""

    # ---------------------------------------------------------------------------------------------- life

    async def start(self) -> None:
        """Connect, bring the schema up to date, and start listening. Raises ConfigurationError or Unavailable."""
        try:
            await self._loop.run_in_executor(self._writers, self._start)
        except BaseException:
            await self.close()
            raise
        self._watcher = asyncio.create_task(self._watch(), name="store-watch")
        # From now on nothing that others commit is missed.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._watching.wait(), START_SECONDS)

    def _start(self) -> None:
        """Prove the settings; make or change the tables where they are not what this release needs."""
        try:
            self._prove()
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise self._translated(error) from None
        if not self._read(schema.is_current):
            self._migrate()

    def _migrate(self) -> None:
        self._write(self._upgrade)

    def _upgrade(self, connection: Connection) -> tuple[None, bool]:
        self.alone(connection, "schema")
        if not schema.is_current(connection):  # another process may have been faster
            schema.upgrade(connection)
        return None, False

    @abstractmethod
    def _prove(self) -> None:
        """Connect and check that the database does what durability needs of it. Raises Unavailable."""

    async def close(self) -> None:
        """Let running transactions end, then let go of every connection."""
        if self._watcher:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
        for threads in (self._writers, self._readers):
            await asyncio.to_thread(threads.shutdown)
        self._dispose()

    @abstractmethod
    def _dispose(self) -> None:
        """Close the connections."""


_TROUBLE: Mapping[int, str] = {
    sqlite3.SQLITE_FULL: "no space is left on its disk",
    sqlite3.SQLITE_READONLY: "its file or folder cannot be written to",
    sqlite3.SQLITE_CANTOPEN: "its file cannot be opened",
    sqlite3.SQLITE_BUSY: "another program keeps it locked",
    sqlite3.SQLITE_IOERR: "its disk fails",
}


class Sqlite(Database):
    """One file: one thread writes, two read, so that a long list does not keep a letter waiting."""

    READERS = 2

    def __init__(self, path: Path) -> None:
        super().__init__(readers=self.READERS, writers=1)
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Made by us and not by SQLite: its log files take the mode of the first.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise Unavailable(f"{path} cannot be opened ({error.strerror})") from None
        self._file: tuple[int, int] | None = None
        self._writer = self._engine("BEGIN IMMEDIATE", connections=1)
        self._reader = self._engine("BEGIN", connections=self.READERS)

    def _engine(self, begin: str, *, connections: int, foreign_keys: bool = True) -> Engine:
        engine = create_engine(
            URL.create("sqlite", database=str(self._path)),
            hide_parameters=True,
            pool_size=connections,
            max_overflow=0,
            connect_args={"check_same_thread": False, "timeout": BUSY_MS / 1000, "isolation_level": None},
        )

        @event.listens_for(engine, "connect")
        def _settings(connection: sqlite3.Connection, _: object) -> None:
            # isolation_level None: the driver begins nothing by itself, a deferred BEGIN would meet SQLITE_BUSY.
            for pragma in (
                f"busy_timeout = {BUSY_MS}",
                "journal_mode = WAL",
                "synchronous = FULL",
                f"foreign_keys = {int(foreign_keys)}",
                "cache_size = -32768",
                "temp_store = MEMORY",
                "journal_size_limit = 67108864",
            ):
                connection.execute(f"PRAGMA {pragma}").close()

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return engine

    def _prove(self) -> None:
        for engine in (self._writer, self._reader):
            raw = engine.raw_connection()
            try:
                cursor = raw.cursor()
                found = {
                    name: cursor.execute(f"PRAGMA {name}").fetchone()[0]
                    for name in ("journal_mode", "synchronous", "foreign_keys")
                }
                cursor.close()
            finally:
                raw.close()
            if found != {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1}:
                raise Unavailable(f"{self._path}: SQLite refuses WAL, synchronous=FULL or foreign keys")
        self._file = self._found()

    def _migrate(self) -> None:
        # Batch migrations drop and copy tables: with foreign keys on, dropping a parent deletes its children,
        # and the pragma has no effect inside a transaction.
        engine = self._engine("BEGIN IMMEDIATE", connections=1, foreign_keys=False)
        try:
            with engine.begin() as connection:
                self._upgrade(connection)
                if connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                    raise Unavailable(f"{self._path}: the migration would leave rows without their parents")
        except SQLAlchemyError as error:
            raise self._translated(error) from None
        finally:
            engine.dispose()

    def _found(self) -> tuple[int, int] | None:
        """Which file stands under our name; None where none does."""
        try:
            found = os.stat(self._path)  # never opened: closing it again would end SQLite's locks
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _once(self, work: Callable[[Connection], Answer]) -> Answer:
        with self._writer.begin() as connection:
            answer = work(connection)
            if self._found() != self._file:
                # SQLite would go on writing to a file that nobody opens again.
                raise Unavailable(
                    f"{self._path} was moved or replaced while it was in use: restart the relay"
                )
            return answer

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        with self._reader.begin() as connection:
            yield connection

    def _again(self, error: DBAPIError, *, reading: bool) -> bool:
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) and not reading:
            # After a failed fsync SQLite would go on as if nothing had happened; what was lost only a new
            # start can tell.
            self._failed = f"{self._path}: the disk failed; restart the relay"
        return code == sqlite3.SQLITE_BUSY

    def _translated(self, error: Exception) -> RelaisError:
        code = getattr(getattr(error, "orig", None) or error, "sqlite_errorcode", 0) & 0xFF
        if code in _TROUBLE:
            return Unavailable(f"the database does not answer: {_TROUBLE[code]} ({self._path})")
        return super()._translated(error)

    async def _watch(self) -> None:
        seen: int | None = None
        while True:
            try:
                found: int | None = await self._loop.run_in_executor(self._writers, self._data_version)
            except (sqlite3.Error, SQLAlchemyError) as error:
                # Who writes learns of it from their own statement; here we only go on listening.
                log.failure("database_poll_failed", error)
                found = seen
            if seen is not None and found != seen:
                self._wake()
            seen = found
            self._watching.set()
            await asyncio.sleep(POLL_SECONDS)

    def _data_version(self) -> int:
        """Asked on the writing connection: its own commits do not count."""
        raw = self._writer.raw_connection()
        try:
            cursor = raw.cursor()
            version: int = cursor.execute("PRAGMA data_version").fetchone()[0]
            cursor.close()
        finally:
            raw.close()
        return version

    def insert(self, table: Table) -> sqlite.Insert:
        """SQLite's INSERT."""
        return sqlite.insert(table)

    def _dispose(self) -> None:
        for engine in (self._reader, self._writer):
            engine.dispose()


class Postgres(Database):
    """A server: several processes, a few threads each."""

    THREADS = 4

    def __init__(self, url: URL) -> None:
        super().__init__(readers=self.THREADS, writers=self.THREADS)
        self._url = url
        self._engine = create_engine(
            url,
            hide_parameters=True,
            pool_size=2 * self.THREADS,
            max_overflow=0,
            pool_recycle=3600,
            connect_args=dict(LIBPQ),
        )

    def _prove(self) -> None:
        with self._engine.connect() as connection:
            found = connection.exec_driver_sql(
                "SELECT current_setting('server_encoding'), current_setting('server_version_num')::int"
            ).one()
        if found[0] != "UTF8" or found[1] < 120000:
            raise Unavailable("the database must be PostgreSQL 12 or newer with encoding UTF8")

    def _once(self, work: Callable[[Connection], Answer]) -> Answer:
        with self._engine.connect() as connection:
            transaction = connection.begin()
            try:
                number = str(connection.exec_driver_sql("SELECT pg_current_xact_id()::text").scalar_one())
                answer = work(connection)
            except BaseException:
                transaction.rollback()
                raise
            try:
                transaction.commit()
            except OperationalError as error:
                if not error.connection_invalidated:
                    raise
                with contextlib.suppress(DBAPIError):
                    transaction.close()
                if not self._committed(number):
                    raise
            return answer

    def _committed(self, number: str) -> bool:
        """How a COMMIT ended whose answer got lost. Raises OperationalError when nobody can be asked."""
        self._engine.dispose()
        for wait in (0, 0.1, 0.5, 1, 2, 4):
            time.sleep(wait)
            try:
                with self._engine.connect() as connection:
                    status = connection.exec_driver_sql(
                        "SELECT pg_xact_status(%s::text::xid8)", (number,)
                    ).scalar_one()
            except OperationalError:
                continue
            except DataError:
                return False  # a number still to come: another server took over, and never saw this commit
            if status != "in progress":
                return bool(status == "committed")
        raise Unavailable("the database went away during a commit: whether it happened is read back later")

    @contextmanager
    def _snapshot(self) -> Iterator[Connection]:
        with self._engine.connect() as connection:
            connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def _again(self, error: DBAPIError, *, reading: bool) -> bool:
        state = getattr(error.orig, "sqlstate", None)
        if isinstance(error, IntegrityError):
            # Somebody inserted the row between our look and our insert; the next look sees it.
            return state == "23505"
        if error.connection_invalidated:
            self._engine.dispose()
            return True
        return state in ("40001", "40P01")

    async def _watch(self) -> None:
        """LISTEN on a connection of its own; when it breaks, wake everybody once after it is back."""
        import psycopg  # 9 MB that a relay on SQLite does without

        # The same address as every other connection has: with what its URL says of TLS.
        _, options = self._engine.dialect.create_connect_args(self._url)
        pause = 0.2
        while True:
            try:
                async with await psycopg.AsyncConnection.connect(
                    **{**options, **LIBPQ}, autocommit=True
                ) as connection:
                    await connection.execute(f"LISTEN {CHANNEL}")
                    if self._watching.is_set():
                        self._wake()
                    self._watching.set()
                    pause = 0.2
                    async for notice in connection.notifies():
                        if notice.payload != self.mark:
                            self._wake()
            except psycopg.OperationalError as error:
                log.failure("database_listen_failed", error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, 10)

    def insert(self, table: Table) -> postgresql.Insert:
        """PostgreSQL's INSERT."""
        return postgresql.insert(table)

    def locking(self, query: Select[Any], *, skip: bool = False) -> Select[Any]:
        """FOR UPDATE; `skip` leaves out what somebody else has locked."""
        return _locked(query, skip)

    def alone(self, connection: Connection, what: str) -> None:
        """An advisory lock until the commit."""
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext(%s))", (f"relais {what}",))

    def tell(self, connection: Connection) -> None:
        """NOTIFY reaches the others when we commit."""
        connection.exec_driver_sql("SELECT pg_notify(%s, %s)", (CHANNEL, self.mark))

    def _dispose(self) -> None:
        self._engine.dispose()


async def connect(url: str, password: str | None) -> Database:
    """The database of a URL, ready for use. Raises ConfigurationError or Unavailable."""
    try:
        address = make_url(url)
    except ArgumentError:
        address = URL.create("none")
    database: Database
    if address.drivername == "sqlite" and address.database and address.database != ":memory:":
        database = Sqlite(Path(address.database))
    elif address.drivername in ("postgresql", "postgresql+psycopg"):
        address = protected(address.set(drivername="postgresql+psycopg"))
        database = Postgres(address.set(password=password) if password else address)
    else:
        raise ConfigurationError("the database is sqlite:///FILE or postgresql://USER@HOST/NAME")
    await database.start()
    return database


DEBIAN_AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"


def protected(address: URL) -> URL:
    """The same address, with TLS whose chain and host name are checked wherever the server may be another machine.

    libpq by itself takes whatever answers, and goes on in plain text, password first, with a server that says it has
    no TLS. A Unix socket knows no TLS: libpq then passes over all of this. Raises ConfigurationError for less.
    """
    said = address.normalized_query
    named = [address.host or "", *said.get("host", ())]
    hosts = [host for each in named for host in each.split(",") if host] or [os.environ.get("PGHOST", "")]
    # Where it goes whatever the name is.
    addresses = [*said.get("hostaddr", ()), os.environ.get("PGHOSTADDR", "")]
    hosts += [host for each in addresses for host in each.split(",") if host]
    if all(host.startswith("/") or is_loopback(_bare(host)) for host in hosts):
        return address
    if any(mode != "verify-full" for mode in said.get("sslmode", ())):
        raise ConfigurationError(
            "the database is on another machine: leave sslmode out of its URL, its certificate is always checked",
            key="database.url",
        )
    trusted = {} if "sslrootcert" in said else {"sslrootcert": _authorities()}
    return address.update_query_dict({"sslmode": "verify-full", **trusted})


def _bare(host: str) -> str:
    """Without the port that libpq's lists of hosts may give: `db.example:5432`, `[::1]:5432`."""
    found = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::\d*)?", host)
    return found[1] if found else host


def _authorities() -> str:
    """The system's store. psycopg brings an OpenSSL of its own along, which does not know where that is."""
    known = (ssl.get_default_verify_paths().cafile, DEBIAN_AUTHORITIES)
    return next((file for file in known if file and Path(file).is_file()), "system")


@functools.lru_cache(maxsize=256)  # the same query is the same object, for which SQLAlchemy has its SQL ready
def _locked(query: Select[Any], skip: bool) -> Select[Any]:
    return query.with_for_update(skip_locked=skip)


def chunks(texts: Iterable[str], size: int = 5000) -> Iterator[list[str]]:
    """At most `size` at a time: both databases bound the parameters of a statement (32,766 and 65,535)."""
    listed = list(texts)
    for start in range(0, len(listed), size):
        yield listed[start : start + size]
