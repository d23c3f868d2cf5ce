"""A PostgreSQL on another machine is spoken to over TLS alone, and only with the server whose certificate fits its name."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy.engine import make_url

from relay import config, daemon
from relay.errors import ConfigurationError, Unavailable
from relay.store import Store, database
from relay.vault import FileKeyRing, Vault
from tests.servers import LOOPBACK, free_port
from tests.servers.pki import Authority, Pair, Pki
from tests.servers.postgres import Postgres
from tests.stores import HandClock, batch

ASKS_FOR_TLS = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"  # PostgreSQL's protocol, §55.7 « SSLRequest »
NAME = "db.chr.example"
SECRET = "Motdepassovan"


@dataclass
class Front:
    """What stands at the database's address: with `shown` it speaks TLS before `target`, without it has none."""

    target: int = 0
    shown: Pair | None = None
    port: int = field(default_factory=free_port)
    said: bytes = b""  # by clients, beside asking for TLS, as it can be read on the wire or behind our TLS
    protected: int = 0  # connections that came through TLS

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Front]:
        server = await asyncio.start_server(self._accept, LOOPBACK, self.port)
        try:
            yield self
        finally:
            server.close()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await server.wait_closed()

    def url(self, **said: str) -> str:
        """The database at a name that no resolver knows: its address is beside it."""
        query = urlencode({"hostaddr": LOOPBACK, **said})
        return f"postgresql://postgres@{NAME}:{self.port}/{self.database}?{query}"

    database: str = "relais"

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        plain = writer.transport
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await self._talk(reader, writer)
        for transport in {plain, writer.transport}:
            transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(len(ASKS_FOR_TLS))
        if first != ASKS_FOR_TLS:
            self.said += first
            return
        if self.shown is None:
            writer.write(b"N")
            self.said += await reader.read(4096)
            writer.write(b"R\x00\x00\x00\x08\x00\x00\x00\x03")  # « your password, in clear »
            self.said += await reader.read(4096)
            return
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.shown.cert, self.shown.key)
        writer.write(b"S")
        await writer.start_tls(context)
        if not self.target:
            self.said += await reader.read(4096)
            return
        self.protected += 1
        inner_reader, inner_writer = await asyncio.open_connection(LOOPBACK, self.target)
        await asyncio.gather(_pass(reader, inner_writer), _pass(inner_reader, writer))


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.fixture
def named(pki: Pki, tmp_path: Path) -> Pair:
    """A good certificate of the database's machine."""
    return pki.issuing.issue(tmp_path, "database", NAME, server_names=(NAME,))[0]


async def test_a_server_that_says_it_has_no_tls_hears_no_password() -> None:
    async with Front().running() as front:
        with pytest.raises(Unavailable, match="certificate"):
            await database.connect(front.url(), SECRET)
    assert front.said == b""


@pytest.mark.parametrize("which", ["rogue", "elsewhere", "expired", "trusted by nobody here"])
async def test_a_server_whose_certificate_does_not_fit_hears_nothing(
    which: str, pki: Pki, tmp_path: Path
) -> None:
    signer = Authority("Autre autorité") if which == "rogue" else pki.issuing
    name = "autre.chr.example" if which == "elsewhere" else NAME
    days = -1 if which == "expired" else 365
    shown, _ = signer.issue(tmp_path, "shown", name, server_names=(name,), days=days)
    trusted = {} if which == "trusted by nobody here" else {"sslrootcert": str(pki.ca)}
    async with Front(shown=shown).running() as front:
        with pytest.raises(Unavailable, match="certificate"):
            await database.connect(front.url(**trusted), SECRET)
    assert front.said == b""


async def test_the_server_whose_certificate_fits_is_spoken_to(pki: Pki, named: Pair) -> None:
    async with Front(shown=named).running() as front:
        with pytest.raises(Unavailable):
            await database.connect(front.url(sslrootcert=str(pki.ca)), SECRET)
    assert b"postgres" in front.said


async def test_every_connection_is_protected_the_one_that_listens_too(
    postgres: Postgres, pki: Pki, named: Pair, tmp_path: Path
) -> None:
    direct = postgres.fresh()
    vault = Vault(FileKeyRing.create(tmp_path / "keys.json"))
    front = Front(postgres.port, named, database=direct.rpartition("/")[2])
    async with front.running():
        store = await Store.open(
            front.url(sslrootcert=str(pki.ca)), vault, clock=HandClock(), node="n1", password=SECRET
        )
        other = await Store.open(direct, vault, clock=HandClock(), node="n2")
        try:
            assert front.protected >= 2  # one that asks, one that listens
            seen = store.generation
            await other.accept(batch(1))
            await asyncio.wait_for(store.changed(seen), 10)
        finally:
            await other.close()
            await store.close()


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@127.0.0.1:5433/x", "postgresql://u@localhost/x", "postgresql://u@[::1]:5433/x",
        "postgresql:///x?host=/run/postgresql", "postgresql://u@/x?host=localhost:5432",
    ],
)  # fmt: skip
def test_on_this_machine_nothing_is_asked_of_a_server(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    assert database.protected(make_url(url)) == make_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db.chr.example/x", "postgresql://u@10.0.0.7/x", "postgresql:///x?host=db.chr.example:5432",
        "postgresql://u@localhost,db.chr.example/x", "postgresql:///x?host=localhost&host=db.chr.example",
        "postgresql:///x?service=relais", "postgresql://u@localhost.chr.example/x",
        "postgresql://u@localhost/x?hostaddr=10.0.0.7",
    ],
)  # fmt: skip
def test_anywhere_else_chain_and_name_are_checked(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGHOST", raising=False)
    said = database.protected(make_url(url)).query
    assert said["sslmode"] == "verify-full"
    assert said["sslrootcert"]


def test_a_host_that_the_environment_names_counts_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "db.chr.example")
    assert database.protected(make_url("postgresql:///x")).query["sslmode"] == "verify-full"
    assert "sslmode" not in database.protected(make_url("postgresql://localhost/x")).query
    monkeypatch.setenv("PGHOSTADDR", "10.0.0.7")
    assert database.protected(make_url("postgresql://localhost/x")).query["sslmode"] == "verify-full"


@pytest.mark.parametrize("mode", ["disable", "prefer", "require", "verify-ca"])
async def test_less_is_refused_with_file_and_line(mode: str, place_of: Callable[[str], Path]) -> None:
    file = place_of(f'[database]\nurl = "postgresql://u@db.chr.example/x?sslmode={mode}"\n')
    with pytest.raises(ConfigurationError, match=r"config\.toml:2: database\.url: .*sslmode"):
        await daemon.open_store(config.read(file))


@pytest.fixture
def place_of(tmp_path: Path) -> Callable[[str], Path]:
    """A configuration with a key ring beside it."""
    FileKeyRing.create(tmp_path / "state" / "keys.json")

    def write(text: str) -> Path:
        file = tmp_path / "config.toml"
        file.write_text(text)
        return file

    return write


def test_the_files_of_the_configuration_count_from_its_folder(place_of: Callable[[str], Path]) -> None:
    file = place_of(
        '[database]\nurl = "postgresql://u@db.chr.example/x"\nca = "igc.pem"\nclient_cert = "a.pem"\nclient_key = "a.key"\n'
    )
    said = make_url(config.read(file).database_url).query
    folder = file.parent
    assert said == {
        "sslrootcert": str(folder / "igc.pem"), "sslcert": str(folder / "a.pem"), "sslkey": str(folder / "a.key"),
    }  # fmt: skip
    assert (
        database.protected(make_url(config.read(file).database_url)).query["sslrootcert"]
        == said["sslrootcert"]
    )
