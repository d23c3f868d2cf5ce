"""Fixtures: the real servers, once a session; a server that can't be had skips its tests by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from tests import servers
from tests.servers.dovecot import Dovecot
from tests.servers.pki import Pki, build
from tests.servers.postfix import Postfix
from tests.servers.postgres import Postgres
from tests.servers.telegram import Telegram

Server = TypeVar("Server", Dovecot, Postfix, Postgres, Telegram)

PASSWORD = 'mot de passe "d\'essai" \\ 1'
RELAY = "relais@relais45.mssante.fr"
WARD = "cardiologie@chr-exemple.mssante.fr"
GP = "dr.martin@medecin.mssante.fr"
ACCOUNTS = dict.fromkeys(
    (
        RELAY,
        "retours@relais45.mssante.fr",
        WARD,
        "chirurgie@chr-exemple.mssante.fr",
        "sorties@chr-exemple.mssante.fr",
        "informatique@chr-exemple.mssante.fr",
        "dpo@chr-exemple.mssante.fr",
        GP,
        "dr.dupont@medecin.mssante.fr",
        "dr.durand@medecin.mssante.fr",
        "cabinet.bernard@medecin.mssante.fr",
        "coordination@cpts-exemple.mssante.fr",
    ),
    PASSWORD,
)


def _unavailable(reason: servers.Unavailable) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI=true: every real server has to start: {reason}", pytrace=False)
    pytest.skip(str(reason))


@pytest.fixture(scope="session")
def server_folder() -> Iterator[Callable[[str], Path]]:
    """Make folders which server processes of other users can enter; gone after the session."""
    made: list[Path] = []

    def make(name: str) -> Path:
        made.append(servers.new_folder(name))
        return made[-1]

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def pki(server_folder: Callable[[str], Path]) -> Pki:
    """A test certificate authority with good, revoked, expired and rogue certificates."""
    return build(server_folder("pki"))


@pytest.fixture(scope="session")
def dovecot(server_folder: Callable[[str], Path], pki: Pki) -> Iterator[Dovecot]:
    """IMAPS with a mandatory client certificate; the mailboxes of ACCOUNTS."""
    yield from _running(lambda: Dovecot(server_folder("dovecot"), pki, ACCOUNTS))


@pytest.fixture(scope="session")
def plain_dovecot(server_folder: Callable[[str], Path], dovecot: Dovecot, pki: Pki) -> Iterator[Dovecot]:
    """The same mailboxes over plain IMAP, STARTTLS and IMAPS, without certificates."""
    yield from _running(
        lambda: Dovecot(server_folder("plain"), pki, ACCOUNTS, client_certificates=False, mail=dovecot.mail)
    )


@pytest.fixture(scope="session")
def postfix(server_folder: Callable[[str], Path], dovecot: Dovecot) -> Iterator[Postfix]:
    """Submission in front of `dovecot`: what is sent to ACCOUNTS arrives in their mailboxes."""
    yield from _running(lambda: Postfix(server_folder("postfix"), dovecot))


@pytest.fixture(scope="session")
def postgres(server_folder: Callable[[str], Path]) -> Iterator[Postgres]:
    """A PostgreSQL cluster; `fresh()` makes a database and returns its URL."""
    yield from _running(lambda: Postgres(server_folder("postgres")))


@pytest.fixture(scope="session")
def telegram_server() -> Iterator[Telegram]:
    """The Bot API double, shared by the session; tests take `telegram`."""
    yield from _running(Telegram)


@pytest.fixture
def telegram(telegram_server: Telegram) -> Telegram:
    """The Bot API double with nothing in it."""
    telegram_server.reset()
    return telegram_server


def _running(make: Callable[[], Server]) -> Iterator[Server]:
    try:
        server = make()
    except servers.Unavailable as reason:
        _unavailable(reason)
        return
    try:
        server.start()
    except servers.Unavailable as reason:
        server.stop()
        _unavailable(reason)
        return
    yield server
    server.stop()
