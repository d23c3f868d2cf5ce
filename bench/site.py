"""A private site on loopback: Dovecot, the sinks, a configured relay with its registers, and a gauge on its processes."""

from __future__ import annotations

import contextlib
import http.client
import imaplib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from bench.letters import FACILITY, WARD_MAIL, WATCHED, Letter, Town
from tests.servers import LOOPBACK, free_port, wait_listening
from tests.servers.dovecot import Dovecot
from tests.servers.pki import build

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
OWN_MAIL = "relais@relais45.mssante.fr"
PASSWORD = "bench"

# Alerts leave at any hour here: a site's rules let them wait for the morning, and the clock would be measured.
RULES = """\
version: 1
timezone: Europe/Paris
hours:
  cabinet: { mon-fri: ["08:00-12:30", "13:30-19:00"], holidays: closed }
targets:
  gp: { who: registered_gp, via: [mss], carries: document }
  gp_ping: { who: registered_gp, via: [telegram], carries: pointer }
  sorties: { who: desk/sorties, via: [mss], carries: document }
followups:
  standard:
    await: seen
    ack: { within: 2d, clock: cabinet }
    ladder:
      - { after: 1d, remind: gp_ping }
      - { after: 2d, remind: gp }
      - { after: 3d, hand_to: sorties }
rules:
  - id: opposition
    when: { consent: [opposed, masked] }
    hold: sorties
    reason: "Opposition"
  - id: identite
    when: { identity: [doubtful, test] }
    hold: sorties
    reason: "Identité à vérifier"
  - id: sortie
    when: { event: [discharge, er_visit] }
    send: [gp, gp_ping]
    followup: standard
default: { hold: sorties, reason: "Aucune règle ne correspond" }
"""

CONFIGURATION = """\
[relay]
rules = "rules.yaml"
domains = ["*.mssante.fr"]

[database]
{database}

[adapters.cardiologie]
kind = "imap"
host = "127.0.0.1"
port = {imap}
security = "none"
username = "{watched}"
password = {{ env = "BENCH_PASSWORD" }}
since = "all"
senders = ["*@chr-exemple.mssante.fr"]
ward = {{ name = "Cardiologie", slug = "cardiologie", facility = "{facility}", reply_to = "{ward}" }}

[adapters.retours]
kind = "imap"
role = "replies"
host = "127.0.0.1"
port = {replies}
security = "none"
username = "{own}"
password = {{ env = "BENCH_PASSWORD" }}

[adapters.mss]
kind = "smtp"
host = "127.0.0.1"
port = {smtp}
security = "none"
from = "{own}"
reply = "relais+{{token}}@relais45.mssante.fr"

[chat]
dpo_agreed = "2026-01-01"

[adapters.telegram]
kind = "telegram"
token = {{ env = "BENCH_TOKEN" }}
base_url = "http://127.0.0.1:{http}"
rate = {{ total = 0, chat = 0 }}

[facilities]
"{facility}" = "CHR d'Exemple"

[desks.sorties]
mail = "sorties@chr-exemple.mssante.fr"
sees = "document"

[console]
listen = "127.0.0.1:{console}"
"""


class Gauge:
    """CPU seconds and peak memory of a process and its children, from start to end."""

    def __init__(self, process: subprocess.Popen[bytes], every: float = 0.02) -> None:
        self._process = psutil.Process(process.pid)
        self._every = every
        self._over = threading.Event()
        self.line: list[tuple[float, float]] = []  # (monotonic, CPU seconds so far)
        self.peak = 0  # bytes
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._over.wait(self._every):
            self.read()

    def read(self) -> None:
        """Look once."""
        cpu, memory = 0.0, 0
        with contextlib.suppress(psutil.Error):
            for each in (self._process, *self._process.children(recursive=True)):
                times = each.cpu_times()
                cpu += times.user + times.system
                memory += _high_water(each.pid)
        if cpu:
            self.line.append((time.monotonic(), cpu))
            self.peak = max(self.peak, memory)

    def stop(self) -> None:
        """Look a last time, while the process still stands."""
        self._over.set()
        self._thread.join()
        self.read()

    def cpu_at(self, moment: float) -> float:
        """CPU seconds spent until then."""
        before = [cpu for when, cpu in self.line if when <= moment]
        return before[-1] if before else 0.0

    @property
    def cpu(self) -> float:
        """CPU seconds spent in all."""
        return self.line[-1][1] if self.line else 0.0


def _high_water(pid: int) -> int:
    """The kernel's own record of the most memory a process held, in bytes; no sampling can miss it."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


class Site:
    """The servers, and one relay at a time between them."""

    def __init__(self, folder: Path, *, postgres: str | None = None) -> None:
        self.folder = folder
        self.town = Town()
        (folder / "pki").mkdir(parents=True)
        self.dovecot = Dovecot(
            folder / "dovecot",
            build(folder / "pki"),
            {WATCHED: PASSWORD, OWN_MAIL: PASSWORD},
            client_certificates=False,
        )
        self.smtp, self.http, self.tap, self.console = (free_port() for _ in range(4))
        self.postgres = postgres
        self.lives = 0

    def __enter__(self) -> Self:
        self.dovecot.start()
        with (self.folder / "sinks.log").open("ab") as log:
            ports = (self.smtp, self.http, self.tap, self.dovecot.imap_port)
            self.sinks = subprocess.Popen(
                [sys.executable, "-m", "bench.sinks", *map(str, ports)],
                stdin=subprocess.PIPE, stdout=log, stderr=log, cwd=ROOT,
            )  # fmt: skip
        wait_listening(self.tap, self.sinks, self.folder / "sinks.log")
        return self

    def __exit__(self, *_: object) -> None:
        self.sinks.communicate()  # its standard input ends, and so does it
        self.dovecot.stop()

    # ----------------------------------------------------------------------------------------- the mailbox

    def empty(self) -> None:
        """A new, empty mailbox, and sinks that have seen nothing."""
        self.dovecot.empty(WATCHED)
        self.ask("clear", post=True)

    @contextlib.contextmanager
    def ward(self) -> Iterator[imaplib.IMAP4]:
        """The connection by which letters come into the mailbox."""
        with self.dovecot.session(WATCHED) as session:
            yield session

    def fill(self, letters: Iterable[Letter]) -> None:
        """Letters that wait, put there as any server would: its index knows them."""
        with self.ward() as session:
            for letter in letters:
                arrive(session, letter)

    # ------------------------------------------------------------------------------------------- the sinks

    def ask(self, what: str, *, post: bool = False) -> Any:  # Any: JSON
        """Ask the sinks' book."""
        connection = http.client.HTTPConnection(LOOPBACK, self.http, timeout=120)
        try:
            connection.request("POST" if post else "GET", f"/-/{what}")
            return json.loads(connection.getresponse().read())
        finally:
            connection.close()

    # ------------------------------------------------------------------------------------------- the relay

    def prepare(self) -> None:
        """Make a site with its registers, once; every run starts from a copy of it."""
        self._template = self.folder / "template"
        self._relay(self._template, "init", str(self._template), "--since", "all", config=False)
        (self._template / "rules.yaml").write_text(RULES, encoding="utf-8")
        (self._template / "config.toml").write_text(self._configuration(self.dovecot.imap_port))
        patients, directory, links = self.town.write_registers(self._template)
        for words in (
            ("directory", "import", str(directory)),
            ("patients", "import", str(patients)),
            ("directory", "link", "--file", str(links), "--no-notice"),
        ):
            self._relay(self._template, *words)

    def fresh(self, *, tapped: bool) -> Path:
        """A site that has seen no letter yet. `tapped`: the relay reaches its mailbox through the tap."""
        self.lives += 1
        place = self.folder / f"site-{self.lives}"
        shutil.copytree(self._template, place)
        (place / "config.toml").write_text(
            self._configuration(self.tap if tapped else self.dovecot.imap_port)
        )
        return place

    def start(self, place: Path) -> subprocess.Popen[bytes]:
        """`relay run`, without waiting for anything."""
        with (place / "log.jsonl").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "relay", "run", "--config", str(place / "config.toml")],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=log, cwd=ROOT,
                env=self._environment, start_new_session=True,
            )  # fmt: skip

    def died(self, place: Path, process: subprocess.Popen[bytes]) -> None:
        """Say the relay's last words, and end, when it ended by itself."""
        if (code := process.poll()) is not None:
            words = (place / "log.jsonl").read_text(errors="replace").splitlines()[-5:]
            raise SystemExit("\n".join([f"the relay ended by itself, exit {code}:", *words]))

    def status(self, place: Path) -> dict[str, Any]:  # Any: JSON
        """What the relay says of itself."""
        found: dict[str, Any] = json.loads(self._relay(place, "status", "--json"))
        return found

    def _relay(self, place: Path, *words: str, config: bool = True) -> str:
        command = [sys.executable, "-m", "relay", *words]
        if config:
            command += ["--config", str(place / "config.toml")]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, env=self._environment
        )
        if done.returncode:
            raise SystemExit(
                f"relay {' '.join(words[:2])}: exit {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    @property
    def _environment(self) -> dict[str, str]:
        return {**os.environ, "BENCH_PASSWORD": PASSWORD, "BENCH_TOKEN": "1:bench"}

    def _configuration(self, imap: int) -> str:
        return CONFIGURATION.format(
            database=f'url = "{self.postgres}"' if self.postgres else 'url = "sqlite:///state/relay.db"',
            imap=imap,
            replies=self.dovecot.imap_port,
            smtp=self.smtp,
            http=self.http,
            console=self.console,
            watched=WATCHED,
            own=OWN_MAIL,
            ward=WARD_MAIL,
            facility=FACILITY,
        )


def arrive(session: imaplib.IMAP4, letter: Letter) -> float:
    """Put one letter in the mailbox; the moment the server had it (monotonic)."""
    answer, _ = session.append("INBOX", "", "", letter.content)
    if answer != "OK":
        raise RuntimeError(f"APPEND: {answer}")
    return time.monotonic()


def end(process: subprocess.Popen[bytes], gauge: Gauge, *, killed: bool = False) -> int:
    """End the relay, by SIGTERM or by SIGKILL, after the last look at its gauge; the exit code."""
    gauge.stop()
    if killed:
        process.kill()
    else:
        process.terminate()
    try:
        return process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def moments(records: Sequence[dict[str, Any]]) -> list[float]:  # Any: JSON
    """When each came, in order."""
    return sorted(float(each["when"]) for each in records)
