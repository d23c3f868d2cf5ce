"""The outside contract of the command line: arguments, exit codes, one JSON document, one line for each error."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import letters

ROOT = Path(__file__).resolve().parent.parent
STATUS = {
    "version", "now", "mode", "received", "decided", "held", "ignored", "corrupt", "open", "balance",
    "deliveries", "threads", "oldest_waiting_s", "adapters", "rules", "invariants", "directory",
}  # fmt: skip
DELIVERIES = {
    "queued", "sending", "in_flight", "deferred", "ambiguous", "sent", "accepted", "seen", "failed", "held", "cancelled",
}  # fmt: skip
THREADS = {"awaiting_ack", "acknowledged", "awaiting_ward", "awaiting_gp", "with_desk", "closed"}
RECOGNISED = {
    "file", "outcome", "format", "package", "event", "document", "code", "title", "document_id", "set_id",
    "version", "replaces", "retracts", "status", "patient", "stay", "author", "registered_gp", "recipients",
    "follow_up", "awaited_results", "consent", "urgency", "receipt", "unknown", "problems",
}  # fmt: skip


@dataclass
class Done:
    """One command, ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:  # Any: whatever the command answers
        assert self.out.endswith("\n")
        return json.loads(self.out)  # fails on two documents

    @property
    def line(self) -> str:
        """What a person reads of an error: one line, after the log lines."""
        lines = [line for line in self.err.splitlines() if not line.startswith("{")]
        assert len(lines) == 1, self.err
        return lines[0]


def relay(*words: str | Path, env: dict[str, str] | None = None, cwd: Path = ROOT) -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "relay", *map(str, words)], capture_output=True, text=True, check=False, cwd=cwd,
        timeout=60, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `relay init` wrote; its config.toml."""
    folder = tmp_path_factory.mktemp("init") / "site"
    done = relay("init", folder, "--since", "now")
    assert done.code == 0, done.err
    return folder / "config.toml"


def test_init_writes_a_folder_that_works_at_once(site: Path) -> None:
    folder = site.parent
    assert stat.S_IMODE((folder / "state" / "keys.json").stat().st_mode) == 0o600
    assert (folder / "state" / "relay.db").is_file()
    assert list((folder / "rules").rglob("*.yaml"))
    assert relay("check", "--config", site).code == 0
    assert relay("rules", "check", "--config", site, "--json").json == {"ok": True, "findings": []}
    status = relay("status", "--json", "--config", site)
    assert status.code == 0
    assert status.json["received"] == 0


def test_what_init_lays_out_as_comments_is_a_whole_site_once_they_are_taken_off(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    assert relay("init", folder, "--since", "now").code == 0
    file = folder / "config.toml"
    file.write_text(re.sub(r"(?m)^# (?=\[|\w+ = )", "", file.read_text()))
    for name in ("cardiologie.password", "relais.password"):
        (folder / name).write_text("secret")
        (folder / name).chmod(0o600)
    (folder / "telegram.token").write_text("123456:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc")
    (folder / "telegram.token").chmod(0o600)
    checks = relay("check", "--config", file, "--json").json["checks"]
    assert [each["name"] for each in checks if each["severity"] != "ok"] == [
        "directory"
    ]  # none is read in yet
    for each in ("standard", "cautious"):
        found = relay("rules", "check", folder / f"rules/sets/{each}.yaml", "--config", file, "--json").json
        assert found == {"ok": True, "findings": []}


@pytest.mark.parametrize("words", [(), ("rules",)])
def test_help_cuts_no_sentence_and_names_what_a_command_takes(words: tuple[str, ...]) -> None:
    text = relay(*words, "--help").out
    commands = text.partition("Commands:")[2]
    assert "..." not in commands
    assert "why each earlier one did not." in commands or "ask those who got it" in commands
    assert relay("init", "--help").out.splitlines()[0].endswith("{DIR}")


def test_init_refuses_to_overwrite_and_changes_nothing(site: Path) -> None:
    before = {file: file.read_bytes() for file in site.parent.rglob("*") if file.is_file()}
    done = relay("init", site.parent, "--since", "all")
    assert done.code == 2
    assert "nothing was written" in done.line
    assert {file: file.read_bytes() for file in before} == before


@pytest.mark.parametrize(("since", "code"), [("all", 0), ("2026-01-31", 0), ("yesterday", 2)])
def test_init_says_from_when_a_full_mailbox_is_read(tmp_path: Path, since: str, code: int) -> None:
    done = relay("init", tmp_path / "x", "--since", since, "--json")
    assert done.code == code
    if code == 0:
        assert f'since = "{since}"' in (tmp_path / "x" / "config.toml").read_text()
        assert done.json["written"]
    else:
        assert not (tmp_path / "x").exists()


def test_status_has_exactly_the_shape_of_the_contract_when_nothing_ever_came(site: Path) -> None:
    status = relay("status", "--json", "--config", site).json
    assert set(status) == STATUS
    assert set(status["deliveries"]) == DELIVERIES
    assert set(status["threads"]) == THREADS
    assert set(status["rules"]) == {"digest", "active_since", "file_matches"}
    assert status["oldest_waiting_s"] is None
    assert status["mode"] == "live"
    assert not any(status["invariants"].values())
    page = relay("status", "--config", site)
    assert page.code == 0
    assert "received 0" in page.out


def test_every_list_prints_one_empty_array(site: Path) -> None:
    for what in ("envelopes", "deliveries", "threads", "hold", "incidents"):
        done = relay(what, "list", "--json", "--since", "7d", "--limit", "5", "--config", site)
        assert (done.code, done.json) == (0, []), what


def test_the_configuration_is_the_option_the_variable_or_the_file_here(site: Path, tmp_path: Path) -> None:
    by_variable = relay("status", "--json", cwd=tmp_path, env={"RELAY_CONFIG": str(site)})
    assert by_variable.code == 0
    here = relay("status", "--json", cwd=site.parent)
    assert here.code == 0
    option_wins = relay(
        "status", "--config", site, cwd=tmp_path, env={"RELAY_CONFIG": "/nowhere/config.toml"}
    )
    assert option_wins.code == 0
    none = relay("status", cwd=tmp_path)
    assert none.code == 2
    assert "config.toml" in none.line


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["bogus"], 2, "bogus"),
        ([], 2, ""),
        (["hold"], 2, ""),
        (["status", "--bogus"], 2, "--bogus"),
        (["status", "--log", "xml"], 2, "json or text"),
        (["status", "--config"], 2, "--config"),
        (["envelopes", "list", "--limit", "0"], 2, "--limit"),
        (["envelopes", "list", "--since", "yesterday"], 2, "yesterday"),
        (["deliveries", "list", "--state", "lost"], 2, "queued"),
        (["envelopes", "show", "nothere"], 1, "nothere"),
        (["envelopes", "replay", "nothere"], 1, "nothere"),
        (["hold", "release", "nothere"], 1, "nothere"),
        (["hold", "release", "nothere", "--gp", "12"], 2, "11 digits"),
        (["hold", "reject", "nothere"], 2, "--reason"),
        (["hold", "reject", "nothere", "--reason", "doublon"], 1, "nothere"),
        (["deliveries", "retry", "nothere"], 1, "delivery"),
        (["deliveries", "cancel", "nothere"], 1, "delivery"),
        (["threads", "show", "nothere"], 1, "follow-up"),
        (["threads", "ack", "nothere"], 2, "--by"),
        (["threads", "ack", "nothere", "--by", "ward:nowhere"], 2, "nowhere"),
        (["threads", "ack", "nothere", "--by", "desk:sorties"], 1, "follow-up"),
        (["recall", "nothere", "--by", "desk:sorties", "--reason", "essai"], 1, "follow-up"),
        (["recall", "nothere", "--by", "desk:sorties", "--reason", " "], 2, "--reason"),
        (["run", "--only", "sideways"], 2, "intake, dispatch or console"),
        (["pause", "nothere"], 2, "nothere"),
        (["recognise"], 2, "FILE"),
        (["recognise", "nothere.eml"], 2, "nothere.eml"),
        (["rules", "check", "nothere.yaml"], 2, "nothere.yaml"),
        (["rules", "explain", "--facts", "{"], 2, "JSON"),
        (["patients", "import", "nothere.csv"], 2, "nothere.csv"),
        (["directory", "away", "12", "--from", "2999-01-01", "--to", "2999-01-02"], 2, "11 digits"),
    ],
)  # fmt: skip
def test_a_call_that_cannot_be_carried_out_says_why(
    site: Path, words: Sequence[str], code: int, says: str
) -> None:
    done = relay(*words, "--json", env={"RELAY_CONFIG": str(site)})
    assert done.code == code, done.err
    assert says in [line for line in done.err.splitlines() if line.startswith("relay: ")][-1]
    answer = done.json
    assert answer["ok"] is False
    assert says in answer["error"]


def test_the_version_is_printed() -> None:
    from relay import __version__

    assert relay("--version").out.strip() == __version__


def test_a_database_that_does_not_answer_is_exit_3(site: Path) -> None:
    away = site.parent / "away.toml"
    away.write_text(site.read_text() + '\n[database]\nurl = "postgresql://relais@127.0.0.1:1/relais"\n')
    for words in (["status"], ["envelopes", "list"], ["run"], ["check"]):
        done = relay(*words, "--config", away)
        assert done.code == 3, (words, done.out, done.err)
        assert "relais@" not in done.err


def test_a_port_that_is_taken_is_exit_3_and_starts_nothing(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        file = site.parent / "taken.toml"
        file.write_text(site.read_text() + f'\n[console]\nlisten = "127.0.0.1:{port}"\n')
        done = relay("run", "--config", file)
    assert done.code == 3
    assert f"127.0.0.1:{port} (Address already in use); another relay may run" in done.err
    assert '"event": "ready"' not in done.err


def test_logs_are_json_lines_on_standard_error_or_text_for_people(site: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        file = site.parent / "taken2.toml"
        file.write_text(site.read_text() + f'\n[console]\nlisten = "127.0.0.1:{taken.getsockname()[1]}"\n')
        machine, people = relay("run", "--config", file), relay("run", "--log", "text", "--config", file)
    for line in machine.err.splitlines()[:-1]:
        assert json.loads(line)["event"]
    assert not any(line.startswith("{") for line in people.err.splitlines())
    assert machine.out == people.out == ""


def test_recognise_needs_no_configuration_and_takes_any_bytes(tmp_path: Path) -> None:
    files = {
        "lettre.eml": letters.text_mail(),
        "vide": b"",
        "bruit.zip": bytes(range(256)) * 20,
        "bruit.xml": b"<ClinicalDocument",
        "bruit.hl7": b"MSH|^~\\&|\xff",
        "xdm.eml": letters.xdm_mail(),
        "nu.xml": letters.cda(),
        "note.txt": b"Patient : X\n",
        "image.pdf": b"%PDF-1.4\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = relay("recognise", "--json", *files, cwd=tmp_path)
    assert done.code == 0
    rows = [json.loads(line) for line in done.out.splitlines()]
    assert [row["file"] for row in rows] == list(files)
    for row in rows:
        assert set(row) >= RECOGNISED
        assert row["outcome"] in ("notice", "reply", "receipt", "automatic", "unclear", "other")
    by_name = {row["file"]: row for row in rows}
    for name in ("lettre.eml", "xdm.eml", "nu.xml"):
        row = by_name[name]
        assert row["outcome"] == "notice"
        assert row["event"] == "discharge"
        assert row["patient"]["birth_name"] == "CORMERAIS"
        assert row["patient"]["given_names"][0] == "Odette"
        assert row["patient"]["birth_date"] == "1948-03-17"
        assert row["patient"]["ins_key_valid"] is True
        assert row["registered_gp"]["rpps"] == letters.MARTIN.rpps
        assert row["stay"]["number"] == "S-2026-004217"
    assert by_name["vide"]["patient"] is None
    assert by_name["vide"]["registered_gp"] is None
    assert (by_name["xdm.eml"]["package"], by_name["xdm.eml"]["format"]) == ("xdm", "cda")
    assert by_name["nu.xml"]["code"] == "11490-0"
    assert "notice" in relay("recognise", tmp_path / "lettre.eml").out


def test_rules_check_test_and_explain_need_no_configuration(tmp_path: Path) -> None:
    sets = ROOT / "rules" / "sets"
    for name in ("standard.yaml", "cautious.yaml", "cpts.yaml", "demo.yaml"):
        check = relay("rules", "check", sets / name, "--json", cwd=tmp_path)
        assert (check.code, check.json["ok"]) == (0, True), check.out
        test = relay("rules", "test", sets / name, "--json", cwd=tmp_path)
        assert (test.code, test.json["ok"]) == (0, True)
        assert test.json["cases"]
        assert {"name", "ok", "expected", "got"} <= set(test.json["cases"][0])
    facts = '{"event": "discharge", "identity": "qualified", "gp": "found", "urgency": "unknown"}'
    explain = relay(
        "rules", "explain", "--rules", sets / "standard.yaml", "--facts", facts, "--json", cwd=tmp_path
    )
    assert explain.code == 0
    assert {"rule", "action", "targets", "followup", "why", "undecided_at", "facts", "trace"} <= set(
        explain.json
    )
    assert explain.json["undecided_at"] == "sortie-urgente"
    assert explain.json["action"] == "hold"
    letter = tmp_path / "lettre.eml"
    letter.write_bytes(letters.text_mail())
    read = relay("rules", "explain", "--rules", sets / "standard.yaml", letter, "--json", cwd=tmp_path)
    assert read.code == 0
    assert read.json["facts"]["event"]


def test_rules_schema_needs_no_configuration_and_takes_the_names_of_a_file(tmp_path: Path) -> None:
    sets = ROOT / "rules" / "sets"
    bare = relay("rules", "schema", cwd=tmp_path)
    assert (bare.code, bare.out) == (0, (sets / "routes.v1.schema.json").read_text())
    tests = relay("rules", "schema", "--tests", cwd=tmp_path)
    assert (tests.code, tests.out) == (0, (sets / "routes.v1.test.schema.json").read_text())
    filled = relay("rules", "schema", sets / "standard.yaml", "--json", cwd=tmp_path)
    assert filled.json["definitions"]["desk_name"]["enum"] == ["sorties"]
    assert relay("rules", "schema", "--write", cwd=tmp_path).code == 2
    own = tmp_path / "routes.yaml"
    own.write_bytes((sets / "standard.yaml").read_bytes())
    assert relay("rules", "schema", own, "--write", cwd=tmp_path).code == 0
    assert json.loads((tmp_path / "routes.v1.schema.json").read_text()) == filled.json


def test_a_finding_names_its_place_and_a_bad_set_exits_1(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\ntimezone: Europe/Paris\ntargets:\n  gp: { who: registered_gp, via: [mss], carries: document }\n"
        "  sorties: { who: desk/sorties, via: [mss], carries: document }\nrules:\n  - id: a\n"
        "    when: { event: discharge, urgncy: urgent }\n    send: [gp]\n    followup: none\n"
        'default: { hold: sorties, reason: "x" }\n'
    )
    done = relay("rules", "check", file, "--json")
    assert done.code == 1
    assert done.json["ok"] is False
    (finding,) = [each for each in done.json["findings"] if each["code"] == "E101"]
    assert {"code", "severity", "file", "line", "column", "message", "fix"} <= set(finding)
    assert (finding["severity"], finding["line"], finding["column"]) == ("error", 8, 31)
    same = relay("rules", "check", file, "--format", "json")
    assert same.json == done.json
    sarif = relay("rules", "check", file, "--format", "sarif")
    assert (sarif.code, sarif.json["version"]) == (1, "2.1.0")
    assert [each["ruleId"] for each in sarif.json["runs"][0]["results"]] == ["E101"]
    assert str(tmp_path) not in sarif.out
    assert relay("rules", "check", file, "--format", "xml").code == 2
    assert relay("rules", "check", file, "--lang", "de").code == 2
    people = relay("rules", "check", file)
    assert people.code == 1
    assert "8:31 E101" in people.out
    assert "unknown key" in relay("rules", "check", file, "--lang", "en").out


def test_care_commands_answer_one_document(site: Path) -> None:
    verified = relay("audit", "verify", "--json", "--config", site)
    assert (verified.code, verified.json["ok"]) == (0, True)
    exported = relay("audit", "export", "--json", "--config", site)
    assert exported.code == 0
    assert isinstance(exported.json, list)
    purged = relay("purge", "--json", "--config", site)
    assert purged.code == 0
    assert isinstance(purged.json, dict)


def test_the_flow_matrix_lists_every_connection(site: Path) -> None:
    file = site.parent / "flows.toml"
    file.write_text(
        site.read_text()
        + '[adapters.mss]\nkind = "smtp"\nhost = "smtp.exemple.fr"\nport = 465\nfrom = "r@relais.mssante.fr"\n'
        '[adapters.retours]\nkind = "imap"\nrole = "replies"\nhost = "imap.exemple.fr"\nusername = "r"\n'
        'password = { env = "HOME" }\n'
    )
    done = relay("check", "--flows", "--json", "--config", file)
    assert done.code == 0, done.out
    flows = {(row["to"], row["port"]) for row in done.json["flows"]}
    assert {("smtp.exemple.fr", 465), ("imap.exemple.fr", 993), ("127.0.0.1", 8025)} <= flows


def test_a_terminal_that_knows_no_accents_gets_every_answer_and_json_is_utf_8_everywhere(
    site: Path, tmp_path: Path
) -> None:
    bare = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    checked = relay("check", "--config", site, env=bare)
    assert checked.code == 0, checked.err
    assert "? keys: " in checked.out
    letter = tmp_path / "lettre.eml"
    letter.write_bytes(letters.text_mail())
    assert relay("recognise", letter, "--json", env=bare).json["author"] is None
    assert relay("recognise", letter, "--json", env=bare).json["title"] == "Lettre de liaison à la sortie"


def test_a_file_may_have_any_name_and_a_word_that_cannot_be_read_is_told(site: Path, tmp_path: Path) -> None:
    letter = os.path.join(os.fsencode(tmp_path), b"caf\xe9.eml")
    with open(letter, "wb") as out:
        out.write(letters.text_mail())
    assert relay("recognise", os.fsdecode(letter), "--json").json["outcome"] == "notice"
    odd = relay("threads", "show", os.fsdecode(b"\xe9"), "--config", site)
    assert odd.code == 2
    assert odd.err.splitlines() == [
        "relay: a word of this call is not in the encoding of its locale (UTF-8 is expected)"
    ]


def test_what_cannot_be_written_down_is_one_line(site: Path) -> None:
    for words, code in ((("> /dev/full",), 3), ((">&-",), 0)):
        done = subprocess.run(
            ["sh", "-c", f'exec "$@" {words[0]}', "sh", sys.executable, "-m", "relay", "status", "--config", site],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=60,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        assert done.stderr.splitlines() == ["relay: no space is left where this is written"][: code // 3]
