"""A throwaway PostgreSQL cluster; a fresh database for each test, copied from a template where one is ready."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from psycopg import sql

from tests.servers import LOOPBACK, Unavailable, free_port, program, spawn, stop, wait_listening

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# Nothing of a test outlives it: durability would only cost time. What a crash does to a database is
# tested with `durable=True`.
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class Postgres:
    """One cluster in one folder, reachable over loopback TCP as user `postgres` without a password."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self.port = free_port()
        self._folder, self._cluster = folder, folder / "cluster"
        self._settings = () if durable else FAST
        self._numbers = itertools.count(1)
        self._templates: dict[str, str] = {}
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self._binaries = str(versions[-1]) if versions else ""
        self._initdb = program("initdb", "postgresql-15", self._binaries)
        self._server = program("postgres", "postgresql-15", self._binaries)

    def start(self) -> Postgres:
        log = self._folder / "postgres.log"
        if not self._cluster.exists():
            self._cluster.mkdir(mode=0o700)
            if os.geteuid() == 0:
                try:
                    shutil.chown(self._cluster, pwd.getpwnam("postgres").pw_uid)
                except KeyError as missing:
                    raise Unavailable("no user postgres: apt-get install postgresql-15") from missing
            options = ("-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C.UTF-8")
            done = subprocess.run(
                self._as_owner([self._initdb, "-D", str(self._cluster), *options]),
                capture_output=True,
                text=True,
                cwd="/",
                check=False,
            )
            if done.returncode:
                raise Unavailable(f"initdb: {done.stderr}")
        settings = [
            f"listen_addresses={LOOPBACK}",
            "unix_socket_directories=",
            "max_connections=200",
            *self._settings,
        ]
        flags = [flag for setting in settings for flag in ("-c", setting)]
        command = [self._server, "-D", str(self._cluster), "-p", str(self.port), *flags]
        self._process = spawn(self._as_owner(command), log)
        wait_listening(self.port, self._process, log)
        for _ in range(500):  # it listens a moment before it takes logins
            try:
                psycopg.connect(self.url("postgres")).close()
            except psycopg.OperationalError as starting:
                last = starting
            else:
                return self
        raise Unavailable(f"PostgreSQL takes no login: {last}")

    def stop(self) -> None:
        """End at once (SIGQUIT, "immediate"): what is there is thrown away, and open sessions must not hold it."""
        stop(self._process, signal.SIGQUIT)

    def crash(self) -> None:
        """Stop as a power cut would, keeping the files; `start` recovers."""
        self.stop()

    def url(self, database: str) -> str:
        return f"postgresql://postgres@{LOOPBACK}:{self.port}/{database}"

    def fresh(self, prepare: Callable[[str], object] | None = None, name: str = "") -> str:
        """Make a new database and return its URL.

        With `prepare` (told the URL of an empty database; it must close what it opens) and a name
        for what it makes, it runs once and every later call copies its result.
        """
        template = None
        if prepare is not None:
            if name not in self._templates:
                self._templates[name] = self._create()
                prepare(self.url(self._templates[name]))
            template = self._templates[name]
        return self.url(self._create(template))

    def drop(self, url: str) -> None:
        """Throw a database away, open connections and all."""
        self._run(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(url.rpartition("/")[2]))
        )

    def _create(self, template: str | None = None) -> str:
        database = f"relais_{next(self._numbers)}"
        self._run(
            sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                sql.Identifier(database), sql.Identifier(template or "template0")
            )
        )
        return database

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(statement)

    @staticmethod
    def _as_owner(command: Sequence[str]) -> list[str]:
        if os.geteuid() != 0:
            return list(command)
        # PostgreSQL refuses to run as root. Changing user clears the death signal: it is set again here.
        change = ["--reuid=postgres", "--regid=postgres", "--init-groups", "--pdeathsig", "QUIT"]
        return [program("setpriv", "util-linux"), *change, "--", *command]
