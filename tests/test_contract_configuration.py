"""The outside contract of config.toml: every mistake is one line with file, line and key, exit 2, nothing started."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay import config
from relay.vault import FileKeyRing
from tests.test_contract_commands import relay

WARD = 'ward = { name = "C", slug = "c", reply_to = "x@y.fr" }'
IMAP = '[adapters.m]\nkind = "imap"\nhost = "localhost"\nusername = "x"\npassword = { env = "HOME" }\n'
SMTP = '[adapters.m]\nkind = "smtp"\nhost = "localhost"\nport = 25\nfrom = "a@b.fr"\n'


@pytest.mark.parametrize(
    ("text", "line", "key", "says"),
    [
        ('[relay]\nname = "x"\nlangage = "fr"', 3, "relay.langage", "« language »"),
        ('[desk.x]\nmail = "a@b.fr"', 1, "desk", "« desks »"),
        ("[relay]\nname = 3", 2, "relay.name", "string"),
        ('[relay]\nmode = "observ"', 2, "relay.mode", "'observe'"),
        ('[relay]\ntimezone = "Europe/Pari"', 2, "relay.timezone", "time zone"),
        ('[relay]\ndomains = "x.fr"', 2, "relay.domains", ""),
        (SMTP + 'password = { env = "RELAIS_NOT_THERE" }', 6, "adapters.m.password", "RELAIS_NOT_THERE"),
        (SMTP + 'password = { file = "nothere" }', 6, "adapters.m.password", "nothere"),
        (SMTP + 'password = { credential = "nothere" }', 6, "adapters.m.password", "CREDENTIALS_DIRECTORY"),
        (SMTP + 'password = { vault = "nothere" }', 6, "adapters.m.password", "file, env, credential"),
        (SMTP + 'password = "hunter2-in-the-clear"', 6, "adapters.m.password", "never stands"),
        ('[adapters.m]\nkind = "smpt"', 2, "adapters.m.kind", "« smtp »"),
        ('[adapters.m]\nhost = "x"', 1, "adapters.m", "`kind` is missing"),
        (SMTP.replace("port", "prot"), 4, "adapters.m.prot", "« port »"),
        (SMTP.replace("25", '"25"'), 4, "adapters.m.port", "integer"),
        (SMTP.replace("localhost", "exemple.fr") + 'security = "none"', 1, "adapters.m", "loopback"),
        (IMAP, 1, "adapters.m", "`ward` or `role"),
        (IMAP + WARD.replace("reply_to", "repli_to"), 6, "adapters.m.ward.repli_to", "« reply_to »"),
        (IMAP + WARD + '\nreceipts = "never"', 7, "adapters.m.receipts", "'daily'"),
        (IMAP + 'role = "replies"\nsenders = ["*"]', 7, "adapters.m.senders", "ward"),
        (IMAP + 'role = "replies"\nsince = "hier"', 7, "adapters.m.since", "2026"),
        ('[desks.x]\nmail = "x@y.fr"\nsee = "document"', 3, "desks.x.see", "« sees »"),
        ('[desks.x]\nmail = "x@y.fr"\nsees = "all"', 3, "desks.x.sees", "'reference'"),
        ('[console]\nlisten = "8025"', 2, "console.listen", "127.0.0.1:8025"),
        ('[console]\nlisten = "0.0.0.0:8025"', 2, "console.listen", "public"),
        ('[retention]\ncontent = "90"', 2, "retention.content", "90d"),
        ('[delivery]\ngive_up = "soon"', 2, "delivery.give_up", "duration"),
        ('[database]\nurl = "mysql://x"', 2, "database.url", "postgresql"),
        ('[database]\nurl = "postgresql://u:geheim@h/n"', 2, "database.url", "password"),
        ('[chat]\ndpo_agreed = "oui"', 2, "chat.dpo_agreed", "date"),
        (IMAP + WARD.replace("x@y.fr", "secrétariat"), 6, "adapters.m.ward.reply_to", "no mail address"),
        ('[desks.x]\nmail = "sorties"', 2, "desks.x.mail", "no mail address"),
        ('[relay]\nadmins = ["a@b.fr", "moi"]', 2, "relay.admins", "« moi »"),
        ('[relay]\ndpo = "dpo"', 2, "relay.dpo", "no mail address"),
        ('[relay]\ndomains = ["@mssante.fr"]', 2, "relay.domains", "*.mssante.fr"),
        (IMAP + WARD + '\nsenders = ["chr.fr"]', 7, "adapters.m.senders", "*@chr.fr"),
        (SMTP.replace('from = "a@b.fr"\n', ""), 1, "adapters.m.from", "is missing"),
        (SMTP.replace("a@b.fr", "relais"), 5, "adapters.m.from", "no mail address"),
        (SMTP + 'reply = "a+{tokn}@b.fr"', 6, "adapters.m.reply", "{token}"),
        (SMTP + 'reply = "a+{token}+{token}@b.fr"', 6, "adapters.m.reply", "{token}"),
        (SMTP + 'reply = "relais{token}@b.fr"', 6, "adapters.m.reply", "relais+{token}"),
        (SMTP + 'senders = ["*@b.fr"]', 6, "adapters.m.senders", "concerns kind imap"),
        (SMTP + 'mode = "observe"', 6, "adapters.m.mode", "imap, mllp or folder"),
        (IMAP + WARD + '\nreply = "a+{token}@b.fr"', 7, "adapters.m.reply", "concerns kind smtp"),
        ('[adapters.m]\nkind = "folder"\npath = "d"', 1, "adapters.m.ward", "is missing"),
        ('[adapters.m]\nkind = "mllp"\nlisten = "127.0.0.1:2575"', 1, "adapters.m.ward", "is missing"),
        ('[adapters.m]\nkind = "folder"\npath = "d"\nrole = "replies"', 4, "adapters.m.role", "kind imap"),
        ("[relay", 1, "", "TOML"),
        ('[relay]\nname = "a"\nname = "b"', 3, "", "TOML"),
    ],
)
def test_a_mistake_is_one_line_that_names_its_place(
    tmp_path: Path, text: str, line: int, key: str, says: str
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text + "\n", encoding="utf-8")
    done = relay("check", "--config", file)
    assert done.code == 2, done.out
    assert done.out == ""
    assert done.line.startswith(f"relay: {file}:{line}: {key}")
    assert says in done.line
    assert "geheim" not in done.err
    assert "hunter2" not in done.err
    assert not (tmp_path / "state").exists()  # nothing was started


def test_run_refuses_what_check_refuses(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SMTP.replace("port", "prot"), encoding="utf-8")
    FileKeyRing.create(tmp_path / "state" / "keys.json")
    done = relay("run", "--config", file)
    assert done.code == 2
    assert "adapters.m.prot" in done.line
    assert not (tmp_path / "state" / "relay.db").exists()


def test_a_missing_or_open_key_ring_is_told(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[relay]\n", encoding="utf-8")
    missing = relay("status", "--config", file)
    assert missing.code == 2
    assert "keys.json" in missing.line
    FileKeyRing.create(tmp_path / "state" / "keys.json")
    (tmp_path / "state" / "keys.json").chmod(0o644)
    assert relay("status", "--config", file).code == 2


def test_missing_folders_and_schema_are_made(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[relay]\nstate = "etat/relais"\n[keys]\nfile = "cles/keys.json"\n', encoding="utf-8")
    FileKeyRing.create(tmp_path / "cles" / "keys.json")
    assert relay("envelopes", "list", "--config", file).code == 0
    assert (tmp_path / "etat" / "relais" / "relay.db").is_file()


def test_check_fails_when_nothing_watches_the_address_mail_is_sent_from(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert relay("init", folder, "--since", "now").code == 0
    file = folder / "config.toml"
    file.write_text(file.read_text() + SMTP.replace("[adapters.m]", "[adapters.mss]"), encoding="utf-8")
    done = relay("check", "--json", "--config", file)
    assert done.code == 1
    (found,) = [each for each in done.json["checks"] if each["name"] == "replies"]
    assert found["ok"] is False
    file.write_text(file.read_text() + IMAP + 'role = "replies"\n', encoding="utf-8")
    assert relay("check", "--config", file).code == 0
    # What our longest address holds before its @ is bounded; a longer one comes back from other servers.
    for prefix, code in (("reponses-relais", 0), ("reponses-relais45", 1)):
        reply = f'from = "a@b.fr"\nreply = "{prefix}+{{token}}@b.fr"\n'
        longer = folder / f"{prefix}.toml"
        longer.write_text(file.read_text().replace('from = "a@b.fr"\n', reply), encoding="utf-8")
        done = relay("check", "--json", "--config", longer)
        wrong = [each["name"] for each in done.json["checks"] if not each["ok"]]
        assert (done.code, wrong) == (code, ["reply address"] * code), prefix


def test_check_looks_at_certificates_and_keys(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert relay("init", folder, "--since", "now").code == 0
    file = folder / "config.toml"
    text = file.read_text()
    file.write_text(text + IMAP + 'role = "replies"\nca = "nothere.pem"\n', encoding="utf-8")
    done = relay("check", "--config", file)
    assert done.code == 2
    assert "adapters.m.ca" in done.line
    (folder / "state" / "keys.json").chmod(0o644)
    file.write_text(text, encoding="utf-8")
    assert relay("check", "--config", file).code == 1


def test_check_reads_each_rota(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert relay("init", folder, "--since", "now").code == 0
    file = folder / "config.toml"
    with file.open("a", encoding="utf-8") as more:
        more.write('\n[rotas.garde]\nfile = "garde.csv"\n')
    missing = relay("check", "--config", file)
    assert missing.code == 2
    assert "rotas.garde.file" in missing.line
    (folder / "garde.csv").write_text("from,to,rpps\n2026-12-24,2026-12-2x,10001234562\n", encoding="utf-8")
    wrong = relay("check", "--json", "--config", file)
    assert wrong.code == 1
    told = {each["name"]: each["text"] for each in wrong.json["checks"]}
    assert "garde.csv:2: " in told["rota garde"]
    assert "1 of 1 lines" in told["rota garde"]


def test_a_new_site_is_told_in_words_what_stands(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert relay("init", folder, "--since", "now").code == 0
    file = folder / "config.toml"
    last = relay("rules", "check", "--config", file).out.splitlines()[-1]
    assert last == "standard.yaml : rien à redire, 9 règles, 0 copie."
    last = relay("rules", "check", "--lang", "en", "--config", file).out.splitlines()[-1]
    assert last == "standard.yaml: nothing to object to, 9 rules, 0 copies."
    depot = '[adapters.depot]\nkind = "folder"\npath = "depot"\n'
    file.write_text(file.read_text() + depot + WARD)
    last = relay("rules", "check", "--config", file).out.splitlines()[-1]
    assert (
        last == "standard.yaml : 3 avertissements, aucune erreur, 9 règles, 0 copie."
    )  # by which nothing leaves
    assert relay("rules", "counts", "--config", file).out == "aucune règle n'a encore été en vigueur\n"
    assert "rules: none in force yet\n" in relay("status", "--config", file).out


def test_a_rule_file_with_errors_fails_the_check(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert relay("init", folder, "--since", "now").code == 0
    rules = folder / "rules" / "sets" / "standard.yaml"
    rules.write_text(rules.read_text().replace("followup: standard", "followup: standart"))
    done = relay("check", "--json", "--config", folder / "config.toml")
    assert done.code == 1
    assert any("standart" in each["text"] for each in done.json["checks"] if not each["ok"])


def test_what_is_left_out_has_the_value_the_contract_shows(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'{IMAP}{WARD}\n[desks.x]\nmail = "x@y.fr"\n', encoding="utf-8")
    read = config.read(file)
    assert (read.language, read.timezone, read.mode, read.test_ins) == ("fr", "Europe/Paris", "live", "hold")
    assert read.keys_file == tmp_path / "state" / "keys.json"
    assert read.database_url == f"sqlite:///{tmp_path / 'state' / 'relay.db'}"
    assert read.console == ("127.0.0.1", 8025)
    assert read.desks["x"].sees == "document"
    assert read.adapters["m"].max_bytes == 10485760
    assert read.wards["c"].receipts == "problems"
    assert (read.evidence.total_seconds(), read.give_up.days) == (3600, 5)
    assert (read.keep_content.days, read.keep_facts.days, read.keep_audit.days) == (90, 400, 360)
    assert (read.gp_page, read.dpo, read.admins, read.adapters["m"].senders) == (None, None, (), ())


def test_a_white_list_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "domaines.txt").write_text("# MSSanté\n*.mssante.fr\n\nApicrypt.org\n", encoding="utf-8")
    file = tmp_path / "config.toml"
    file.write_text('[relay]\ndomains = { file = "domaines.txt" }\n', encoding="utf-8")
    assert config.read(file).domains == ("*.mssante.fr", "apicrypt.org")
    (tmp_path / "domaines.txt").unlink()
    with pytest.raises(config.ConfigurationError, match="domains"):
        config.read(file)


def test_secrets_come_from_files_variables_or_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "m.password").write_text("de fichier\n")
    monkeypatch.setenv("RELAIS_SECRET", "de variable")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    os.mkdir(tmp_path / "credentials")
    (tmp_path / "credentials" / "mss").write_text("de systemd")
    file = tmp_path / "config.toml"
    for source, value in (
        ('{ file = "m.password" }', "de fichier"),
        ('{ env = "RELAIS_SECRET" }', "de variable"),
        ('{ credential = "mss" }', "de systemd"),
    ):
        file.write_text(f"{SMTP}password = {source}\n", encoding="utf-8")
        secret = config.read(file).adapters["m"].raw["password"]
        assert secret.get_secret_value() == value  # type: ignore[attr-defined]
        assert value not in repr(secret)
