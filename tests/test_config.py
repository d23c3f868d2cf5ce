"""config.toml: every key of the example is known, and every mistake is named with its place."""

from __future__ import annotations

import socket
from datetime import timedelta
from pathlib import Path

import pytest

from relay import checking, config, daemon
from relay.errors import ConfigurationError
from tests.servers.pki import Pki

ROOT = Path(__file__).resolve().parent.parent
SECRETS = ("CARDIO_PASSWORD", "MSS_PASSWORD", "TELEGRAM_TOKEN", "ESANTE_API_KEY")


@pytest.fixture
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS:
        monkeypatch.setenv(name, f"123456:{name.lower()}")


def refusal(text: str, tmp_path: Path) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        config.parse(text, tmp_path / "config.toml")
    return caught.value


def test_the_example_is_complete_and_loads(secrets: None) -> None:
    settings = config.read(ROOT / "config.example.toml")
    assert settings.domains == ("*.mssante.fr", "apicrypt.org")
    assert settings.wards["cardiologie"].reply_to == "cardiologie@chr-exemple.mssante.fr"
    assert settings.mail is not None
    assert settings.mail.sender == "relais@relais45.mssante.fr"
    assert settings.desks["sorties"].sees == "document"
    assert settings.evidence == timedelta(hours=1)
    assert settings.keep_audit == timedelta(days=360)
    assert settings.chat_agreed == "2026-11-01"
    for table in settings.adapters.values():
        daemon.check_adapter(settings, table)


def test_an_empty_file_has_the_defaults(tmp_path: Path) -> None:
    settings = config.parse("", tmp_path / "config.toml")
    assert (settings.language, settings.mode, settings.test_ins) == ("fr", "live", "hold")
    assert settings.database_url == f"sqlite:///{tmp_path / 'state/relay.db'}"
    assert settings.keys_file == tmp_path / "state/keys.json"
    assert settings.console == ("127.0.0.1", 8025)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('[relay]\nname = "x"\nlangauge = "fr"\n', 3, "did you mean « language »"),
        ('[relay]\nmode = "dry"\n', 2, "'live' or 'observe'"),
        ("[relay]\nadmins = 3\n", 2, "list"),
        ('[relay]\ndomains = ["*mssante.fr"]\n', 2, "autremssante.fr"),
        ('[relay]\ndomains = ["*"]\n', 2, "strangers"),
        ('[relay]\ndomains = ["mssante.*"]\n', 2, "strangers"),
        ('[relay]\n\ntimezone = "Europe/Pris"\n', 3, "Europe/Pris"),
        ('[delivery]\nevidence = "soon"\n', 2, "soon"),
        ('[desks.x]\nsees = "all"\nmail = "a@b"\n', 2, "'document' or 'reference'"),
        ('[adapters.w]\nkind = "imapp"\n', 2, "did you mean « imap »"),
        ('[adapters.w]\nhost = "x"\n', 1, "`kind` is missing"),
        ('[adapters.w]\nkind = "imap"\nhost = "x"\n', 1, "either `ward` or `role"),
        ('[adapters.w]\nkind = "smtp"\npassword = "geheim"\n', 3, "a secret never stands in this file"),
        ('[adapters.w]\nkind = "smtp"\npassword = { env = "NOBODY_SET_THIS" }\n', 3, "NOBODY_SET_THIS is not set"),
        ('[adapters.w]\nkind = "smtp"\npassword = { file = "gone" }\n', 3, "cannot be read"),
        ('[database]\nurl = "postgresql://relais:geheim@db/relais"\n', 2, "take the password out"),
        ('[database]\nurl = "postgresql://relais:gehe/im@db/relais"\n', 2, "take the password out"),
        ('[database]\nurl = "postgresql://relais@db/relais?Password=geheim"\n', 2, "take the password out"),
        ('[database]\nurl = "sqlite:///x.db"\nca = "igc.pem"\n', 1, "concern PostgreSQL"),
        ('[database]\nurl = "mysql://db/x"\n', 2, "sqlite:///FILE"),
        ("[relay\n", 1, "no valid TOML"),
        ("x = " + "[" * 5000 + "]" * 5000, 1, "nested"),
        ("[console]\nlisten = '8025'\n", 2, "127.0.0.1:8025"),
        ("[console]\nlisten = '0:8025'\n", 2, "« 0 » stands for an address"),
        ("[console]\nlisten = '0x08080808:8025'\n", 2, "nobody reads in it"),
        ("[console]\nlisten = '127.1:8025'\n", 2, "write 127.0.0.1:8025"),
        ("[gp_page]\nlisten = '127.0.0.1:1'\n", 1, "missing"),
        ('[relay]\nname = "x"\n[desk.x]\nmail = "a@b"\n', 3, "did you mean « desks »"),
        ('[desks.x]\nsees = "document"\nmial = "a@b"\n', 3, "did you mean « mail »"),
        ('[relay]\nname = x\n', 2, "a string stands in quotes"),
        ('[relay]\nname = 3\n', 2, "write a string, in quotes"),
        ('[relay]\ndomains = "*.mssante.fr"\n', 2, "write a list"),
        ('[adapters.w]\nkind = "imap"\nward = { name = "X", slug = "Soins X", reply_to = "a@b" }\n', 3, "small letters"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_file_line_and_what_to_do(
    text: str, line: int, words: str, tmp_path: Path
) -> None:
    error = refusal(text, tmp_path)
    assert error.line == line
    assert words in str(error)
    assert str(error).startswith(f"{tmp_path / 'config.toml'}:{line}: ")
    assert "\n" not in str(error)
    assert "geheim" not in str(error)


def test_an_adapters_own_mistake_is_named_in_the_same_way(tmp_path: Path) -> None:
    text = '[adapters.mss]\nkind = "smtp"\nhost = "h"\nfrom = "a@b.fr"\nsecurty = "tls"\n'
    settings = config.parse(text, tmp_path / "config.toml")
    with pytest.raises(ConfigurationError, match="did you mean « security »") as caught:
        daemon.check_adapter(settings, settings.adapters["mss"])
    assert caught.value.line == 5


@pytest.mark.parametrize(
    ("kind", "key", "meant"),
    [
        ("smtp", 'form = "a@b.fr"', "from"),
        ("imap", 'sender = ["*@b.fr"]', "senders"),
        ("smtp", 'hots = "h"', "host"),
    ],
)
def test_a_key_of_an_adapter_that_is_misspelt_is_told_before_the_one_it_leaves_missing(
    kind: str, key: str, meant: str, tmp_path: Path
) -> None:
    role = 'role = "replies"\n' if kind == "imap" else ""
    settings = config.parse(f'[adapters.w]\nkind = "{kind}"\n{role}{key}\n', tmp_path / "config.toml")
    with pytest.raises(ConfigurationError, match=f"did you mean « {meant} »") as caught:
        daemon.check_adapter(settings, settings.adapters["w"])
    assert caught.value.line == (4 if role else 3)


def test_the_first_of_several_mistakes_in_the_file_is_the_one_told(tmp_path: Path) -> None:
    error = refusal('[relay]\nnme = "x"\nmode = "dry"\n', tmp_path)
    assert error.line == 2


def test_two_wards_may_not_share_a_slug(tmp_path: Path) -> None:
    ward = 'kind = "imap"\nhost = "h"\nward = {{ name = "{}", slug = "c", reply_to = "{}@x.fr" }}\n'
    text = f"[adapters.a]\n{ward.format('A', 'a')}[adapters.b]\n{ward.format('B', 'b')}"
    assert "names another ward already" in str(refusal(text, tmp_path))


def test_secrets_do_not_show_when_settings_are_printed(secrets: None) -> None:
    settings = config.read(ROOT / "config.example.toml")
    assert "mss_password" not in repr(settings)


def test_a_listeners_expired_certificate_is_found_like_a_clients(tmp_path: Path, pki: Pki) -> None:
    text = (
        f'[adapters.his]\nkind = "mllp"\nlisten = "127.0.0.1:0"\nsecurity = "tls"\n'
        f'cert = "{pki.server_expired.cert}"\nkey = "{pki.server_expired.key}"\n'
        'ward = { name = "Tous", slug = "his", reply_to = "dim@chr-exemple.mssante.fr" }\n'
    )
    settings = config.parse(text, tmp_path / "config.toml")
    found = [each for each in checking._certificates(settings) if each.wrong]
    assert [each.name for each in found] == ["certificate his"]
    assert "expired" in found[0].text


def test_the_file_of_domains_is_checked_like_the_list(tmp_path: Path) -> None:
    (tmp_path / "domaines.txt").write_text(
        "\ufeff*.mssante.fr\n# ceux de la région\napicrypt.org\n", encoding="utf-8"
    )
    settings = config.parse('[relay]\ndomains = { file = "domaines.txt" }\n', tmp_path / "config.toml")
    assert settings.domains == ("*.mssante.fr", "apicrypt.org")
    (tmp_path / "domaines.txt").write_text("*.mssante.fr\n*apicrypt.org\n")
    assert "autreapicrypt.org" in str(refusal('[relay]\ndomains = { file = "domaines.txt" }\n', tmp_path))


OPEN = """
[adapters.retours]
kind = "imap"
role = "replies"
host = "localhost"
username = "relais"
password = { file = "relais.password" }
client_cert = "app.pem"
client_key = "app.key"

[adapters.mss]
kind = "smtp"
host = "localhost"
username = "relais"
password = { file = "relais.password" }
client_cert = "both.pem"
from = "relais@x.mssante.fr"

[adapters.his]
kind = "mllp"
listen = "LISTEN"
security = "tls"
cert = "his.pem"
key = "his.key"
ward = { name = "Tous", slug = "his", reply_to = "dim@x.mssante.fr" }
"""


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o600])
async def test_a_secret_that_others_can_read_and_a_door_open_to_anybody_are_told(
    mode: int, tmp_path: Path, pki: Pki
) -> None:
    (tmp_path / "relais.password").write_text("geheim")
    for name, pair in (("app", pki.client), ("his", pki.server)):
        (tmp_path / f"{name}.pem").write_bytes(pair.cert.read_bytes())
        (tmp_path / f"{name}.key").write_bytes(pair.key.read_bytes())
    (tmp_path / "both.pem").write_bytes(pki.client.cert.read_bytes() + pki.client.key.read_bytes())
    for secret in ("relais.password", "app.key", "both.pem", "his.key"):
        (tmp_path / secret).chmod(mode)
    for name in ("app.pem", "his.pem"):  # a certificate is anybody's to read
        (tmp_path / name).chmod(0o644)
    listen = "10.0.0.7:2575" if mode == 0o644 else "127.0.0.1:2575"
    settings = config.parse(OPEN.replace("LISTEN", listen), tmp_path / "config.toml")
    told = [each for each in await checking.examine(settings) if each.severity == "warning"]
    names = {each.name for each in told if each.name.startswith(("secret", "adapter"))}
    wanted = {"secret relais.password", "secret app.key", "secret both.pem", "secret his.key", "adapter his"}
    assert names == (wanted if mode == 0o644 else set())


async def test_a_name_that_stands_for_a_public_address_is_not_listened_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("0.0.0.0", 0))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: there)
    settings = config.parse('[console]\nlisten = "console.chr.example:0"\n', tmp_path / "config.toml")
    with pytest.raises(ConfigurationError, match=r"console\.listen: .*public address"):
        await daemon.Daemon(settings)._listen()
