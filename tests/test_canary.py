"""No health data in chat, logs or errors: words that stand nowhere but in letters are looked for everywhere else.

One site goes through everything it can meet (holds, refusals, recalls, bounces, a blocked chat, refused and lost
calls, bytes nobody can read, tables and keys gone while it runs), then every place that must stay clean is searched.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import quopri
import re
import signal
import sqlite3
import subprocess
import sys
import urllib.parse
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email.message import EmailMessage
from email.policy import default
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from relay import wording
from relay.model import Button, ChatFields, ChatKind, ChatRecipe, Delivery, Patient, Person, Purpose
from tests import letters
from tests.canaries import Flock, plain
from tests.conftest import GP, RELAY, WARD
from tests.letters import DUPONT, DURAND, MARTIN
from tests.outside import Books, ask, books, posted
from tests.servers.dovecot import Dovecot
from tests.servers.postfix import BOUNCING_ADDRESS
from tests.servers.telegram import Telegram
from tests.site import ROOT, Site, answer, body, parsed, reference

MakeSite = Callable[..., Site]

SENDER = "sorties.cardio@chr-exemple.mssante.fr"
WARD_PEOPLE = "sorties@chr-exemple.mssante.fr"
ADMIN = "informatique@chr-exemple.mssante.fr"
CHAT, BLOCKED, STRANGER = 9001, 9002, 9666
GONE = letters.doctor("Lointain", "Eve", 12, address=BOUNCING_ADDRESS)

WORDS = {
    "subject": "Xubralin",
    "file name": "Yvrazeau",
    "diagnosis": "glomécroserie",
    "ward": "Psychozanie",
    "phone": "06 87 41 93 52",
    "stay number": "Ж-774120-QX",
    "bytes": "Déchiraxou",
    "other mail": "Cantinoval",
    "unlisted letter": "Ombrevidal",
    "question": "Questrovilou",
    "answer": "Réponsadour",
    "correction": "Korrigoulven",
    "typed in chat": "Amoxiltrane",
    "typed by a stranger": "Inconnubal",
    "bad line": "Malforzine",
    "secret": "Secrétovan",
}


def invented(number: int) -> Patient:
    """A patient whose every trait is a canary."""
    name = ("Zérouvanel", "Ybrantelle", "Wezzokarn", "Uvrançaud", "Quibrézac", "Jolvrékine")[number]
    used = ("Ouxiprade", "Ipsolvène", "Exatrûmel", "Aquizorne", "Bruxovance", "Ciblozène")[number]
    given = ("Thiodrine", "Kalivette", "Moztarine", "Nyxélie", "Pradozie", "Vultanne")[number]
    return letters.patient(
        name, given, used_name=used, born=date(1931 + number, 5, 23 - number), place="45234", order=401 + number,
        ipp=f"94731562{number}",
    )  # fmt: skip


PATIENTS = [invented(number) for number in range(6)]


def traits(who: Patient, number: int) -> dict[str, str]:
    assert who.birth_date
    names = {"birth name": who.birth_name, "used name": who.used_name, "given name": who.given_names[0]}
    ids = {"INS": who.ins, "local id": who.local_ids[0].value}
    born = {form: f"{who.birth_date:{form}}" for form in ("%d/%m/%Y", "%Y-%m-%d", "%Y%m%d", "%d%m%Y")}
    return {f"{what} {number}": word for what, word in (names | ids | born).items() if word}


FLOCK = Flock(
    WORDS | {name: word for number, who in enumerate(PATIENTS) for name, word in traits(who, number).items()}
)

TEXT = (
    f"Cher confrère,\n\nUnité : {WORDS['ward']}. Le diagnostic de {WORDS['diagnosis']} est retenu. "
    f"Joindre la famille au {WORDS['phone']}.\n"
)


def letter(number: int, gp: Person | None, **options: Any) -> bytes:  # Any: what text_mail takes
    """A text letter full of canaries, with a document whose name is one."""
    lines = letters.labelled_lines(
        PATIENTS[number],
        gp,
        ward=WORDS["ward"],
        stay=f"{WORDS['stay number']}{number}",
    )
    document = letters.pdf(WORDS["diagnosis"])
    return letters.text_mail(
        patient=PATIENTS[number], body=f"{lines}\n{TEXT}", subject=f"Sortie {WORDS['subject']}",
        attachments=[(f"CR {WORDS['file name']}.pdf", document, "application/pdf")], **options,
    )  # fmt: skip


# ----------------------------------------------------------------------------------------------- the search itself


@pytest.mark.parametrize(("name", "word"), list(FLOCK.words.items()))
def test_a_planted_canary_is_found_however_it_is_written(name: str, word: str) -> None:
    alone = Flock({name: word})
    content = word.encode()
    planted = [
        word, word.upper(), plain(word), f"\\x00{word}\\xff", json.dumps(word), urllib.parse.quote(word),
        urllib.parse.quote_plus(word), quopri.encodestring(content).decode(), repr(word), repr(content), content.decode("latin-1"),
        *(base64.b64encode(b"x" * lead + content + b"yz").decode() for lead in range(3)),
        default.header_factory("Subject", f"Sortie de {word}").fold(policy=default),
    ]  # fmt: skip
    for text in planted:
        assert alone.hits(f"event=settled {text} count=3"), text
    assert not alone.hits("event=settled count=3 thread=7f3qk2m9 2026-12-01T17:41:00Z")


# ------------------------------------------------------------------------------------------------- the whole path


@pytest.mark.timeout(240)
def test_no_word_of_a_letter_leaves_the_secure_mail(
    make_site: MakeSite, dovecot: Dovecot, telegram: Telegram
) -> None:
    site = make_site(receipts="each")
    registries(site)
    telegram.block(BLOCKED)
    telegram.fault("sendMessage", status=429, retry_after=1)
    telegram.fault("sendMessage", status=500, html=True)
    telegram.fault("sendMessage", drop="after")
    dovecot.deliver(WARD, *everything(), sender=SENDER)
    site.start()
    processes = conversation(site, dovecot, telegram)
    metrics = site.get("/metrics")[1]
    # Notes to the desk still wait for their minute then.
    site.until(lambda: books(site).status["open"] == 0 and fates(books(site)) >= FAILURES, 30)
    seen = books(site)
    seen.check()
    incidents, *shown = ask(
        site, ["incidents", "list"], *(["threads", "show", row["reference"]] for row in seen.threads)
    )
    assert len(shown) > 3
    state = site.folder / "state"
    places: dict[str, str | bytes] = {
        f"{file.name}, running": file.read_bytes() for file in state.glob("relay.db*")
    }
    keys_gone(site, dovecot)
    table_gone(site, dovecot)
    spoken = failing_commands(site)

    places |= {
        "chat": json.dumps([call.parameters for call in telegram.calls], ensure_ascii=False),
        "logs": site.logs,
        "stderr": spoken,
        "metrics": metrics,
        "process": processes,
        "follow-ups": json.dumps(shown, ensure_ascii=False),
    }
    places |= {file.name: file.read_bytes() for file in state.iterdir()}
    mails = posted(dovecot)
    for number, mail in enumerate(mails):
        if not mail.subject.startswith("XDM/"):  # the package's own subject names the patient (CI-SIS)
            places[f"subject {number} {mail.subject}"] = headers(mail.raw)
        if mail.to == ADMIN:
            places[f"to the admins {number}"] = mail.raw
    assert {place: found for place, content in places.items() if (found := FLOCK.hits(content))} == {}
    # The search was no empty one: the letters arrived, and what may stand in these places is found there.
    assert any(FLOCK.hits(mail.text) for mail in mails if mail.to == GP)
    assert any(FLOCK.hits(mail.text) for mail in mails if "retenue" in mail.subject)
    assert Flock({"a doctor": "Lointain"}).hits(places["relay.db"])
    assert Flock({"a doctor": "Lointain"}).hits(places["relay.db-wal, running"] + places["relay.db, running"])  # type: ignore[operator]
    assert Flock({"the alert": "à lire dans votre messagerie"}).hits(places["chat"])
    outcomes = {(row["state"], row["why"]) for row in seen.envelopes}
    assert outcomes >= {
        ("decided", "rule"), ("decided", "reply"), ("decided", "press"), ("decided", "free_text"),
        ("held", "unlisted_sender"), ("held", "attachment_unread"), ("ignored", "not_a_notice"),
    }  # fmt: skip
    assert {row["kind"] for row in incidents} == {"wrong_recipient", "recall"}


FAILURES = {("letter", "failed", "unknown_mailbox"), ("alert", "failed", "blocked")}


def fates(seen: Books) -> set[tuple[str, str, str]]:
    return {(row["purpose"], row["state"], row["why"]) for row in seen.deliveries}


def registries(site: Site) -> None:
    site.directory([MARTIN, DUPONT, DURAND, GONE])
    doctors = [MARTIN, DUPONT, GONE, None, MARTIN, MARTIN]
    site.patients([(who, [gp]) for who, gp in zip(PATIENTS, doctors, strict=True) if gp is not None])
    links = site.folder / "links.csv"
    links.write_text(f"rpps,channel\n{MARTIN.rpps},telegram:{CHAT}\n{DUPONT.rpps},telegram:{BLOCKED}\n")
    site.relay("directory", "link", "--file", links, "--no-notice")


def everything() -> list[bytes]:
    """Letters of every fate."""
    broken = letter(0, MARTIN).replace(b"text/plain", b"text/plain; charset=x-rien; x=\xff\xfe", 1)
    return [
        letters.xdm_mail(
            patient=PATIENTS[0], gp=MARTIN,
            letter=letters.cda(patient=PATIENTS[0], gp=MARTIN, ward=WORDS["ward"], awaited=[WORDS["diagnosis"]]),
        ),
        letter(1, DUPONT),  # the phone is blocked
        letter(2, GONE),  # the mailbox bounces
        letter(3, None),  # held, then corrected
        letter(4, MARTIN),  # refused
        letter(5, MARTIN),  # recalled
        letter(0, MARTIN, sender=f"{WORDS['unlisted letter']} <x@ailleurs.mssante.fr>"),
        letters.mail(f"La {WORDS['other mail']} ferme.", sender=SENDER, to=WARD, subject=WORDS["other mail"]),
        letters.mail(
            "Voir le document.", sender=SENDER, to=WARD, subject=WORDS["subject"],
            attachments=[(f"{WORDS['file name']}.bin", WORDS["bytes"].encode() * 40, "application/x-rien")],
        ),
        f"Content-Type: multipart/mixed; boundary={WORDS['bytes']}\r\n\r\n--{WORDS['bytes']}".encode() + b"\xff\x00" * 99,
        broken,
        b"\xff\xfe" + WORDS["bytes"].encode("utf-16-le"),
    ]  # fmt: skip


def conversation(site: Site, dovecot: Dovecot, telegram: Telegram) -> bytes:
    """What people say by mail and in chat; answers what the process shows of itself meanwhile."""
    by_patient: dict[int, EmailMessage] = {}

    def all_there() -> bool:
        for raw in dovecot.messages(GP):
            mail = parsed(raw)
            for number in (0, 4, 5):
                if str(PATIENTS[number].birth_name) in body(mail) + str(mail["Subject"]):
                    by_patient[number] = mail
        return len(by_patient) == 3

    site.until(all_there, 30)
    ours = reference(body(by_patient[0]))
    site.until(lambda: any(ours in shown["text"] for shown in telegram.messages.values()), 30)
    (chat, message) = next(key for key, shown in telegram.messages.items() if ours in shown["text"])
    telegram.press(chat, message, "Bien reçu", user=STRANGER)
    telegram.press(chat, message, "Bien reçu")
    telegram.wait("answerCallbackQuery", 2, seconds=30)
    question = answer(by_patient[0], f"Que faire du {WORDS['question']} ?", sender=GP)
    refusal = answer(by_patient[4], "ERREUR", sender=GP)
    dovecot.deliver(RELAY, question, refusal, sender=GP)

    def to_ward(*words: str) -> EmailMessage:
        found: list[EmailMessage] = []

        def there() -> bool:
            mails = [parsed(raw) for raw in dovecot.messages(WARD_PEOPLE)]
            found[:] = [
                mail for mail in mails if all(word in f"{mail['Subject']}\n{body(mail)}" for word in words)
            ]
            return bool(found)

        site.until(there, 30)
        return found[-1]

    asked = to_ward(WORDS["question"])
    dovecot.deliver(
        RELAY, answer(asked, f"{WORDS['answer']}, à demi-dose.", sender=WARD_PEOPLE), sender=WARD_PEOPLE
    )
    held = to_ward("Lettre retenue", str(PATIENTS[3].birth_name))
    filled = f"Médecin traitant : Dr Durand\nRPPS : {DURAND.rpps}\n\nAvec l'accord de {WORDS['correction']}."
    dovecot.deliver(RELAY, answer(held, filled, sender=WARD_PEOPLE), sender=WARD_PEOPLE)
    receipt = to_ward("ANNULER", reference(body(by_patient[5])))
    dovecot.deliver(RELAY, answer(receipt, "ANNULER", sender=WARD_PEOPLE), sender=WARD_PEOPLE)

    telegram.say(CHAT, f"Et le {WORDS['typed in chat']} ?")
    telegram.say(STRANGER, f"{WORDS['typed by a stranger']}", user=STRANGER)
    dovecot.wait_messages("dr.durand@medecin.mssante.fr", seconds=30)
    site.until(lambda: any("supprimer sans lire" in m.text for m in posted(dovecot) if m.to == GP), 30)
    site.until(lambda: any(WORDS["answer"] in m.text for m in posted(dovecot) if m.to == GP), 30)
    assert site.process is not None
    place = Path("/proc") / str(site.process.pid)
    names = b"".join(task.read_bytes() for task in place.glob("task/*/comm"))
    return (place / "cmdline").read_bytes() + (place / "environ").read_bytes() + names


def keys_gone(site: Site, dovecot: Dovecot) -> None:
    """The key ring vanishes while the relay runs: whatever it does, it says no word of the letter."""
    keys = site.folder / "state" / "keys.json"
    away = site.folder / "keys.away"
    before = len(site.log.read_text())
    keys.rename(away)
    dovecot.deliver(WARD, letter(0, MARTIN), sender=SENDER)
    assert site.process is not None
    site.died(8)
    assert len(site.log.read_text()) > before
    away.rename(keys)
    with contextlib.suppress(subprocess.TimeoutExpired):
        site.stop()


def table_gone(site: Site, dovecot: Dovecot) -> None:
    """A table vanishes while the relay runs: the database's error would quote the row. Logs are text this time."""
    site.start("--log", "text", ready=False)
    site.until(lambda: "ready" in site.log.read_text(), 30)
    with contextlib.closing(sqlite3.connect(site.folder / "state" / "relay.db", timeout=20)) as database:
        database.execute("ALTER TABLE decision RENAME TO elsewhere")
    dovecot.deliver(WARD, letter(1, DUPONT, sent=letters.SENT + timedelta(hours=1)), sender=SENDER)
    assert site.died(30), "a lost table was not noticed"
    site.process = None


def failing_commands(site: Site) -> str:
    """Commands that go wrong because of what they were given: their errors name places, never values."""
    bad = site.folder / "bad.csv"
    bad.write_text(
        "ins,ins_oid,facility,local_id,birth_name,used_name,given_names,birth_date,sex,birth_place,gp_rpps,consent\n"
        f"{PATIENTS[0].ins}9,1.2,450000088,,{PATIENTS[0].birth_name},,{WORDS['bad line']},23-05-1931,F,45234,1,oui\n"
        f'"{WORDS["bad line"]}\n',
        encoding="utf-8",
    )
    people = site.folder / "people.csv"
    people.write_text(f"rpps,family_name\n{WORDS['bad line']},{WORDS['bad line']}\n", encoding="utf-8")
    inline = site.folder / "inline.toml"
    inline.write_text(
        site.config.replace('password = { env = "RELAIS_TEST_PASSWORD" }', f'password = "{WORDS["secret"]}"')
    )
    broken = site.folder / "broken.toml"
    broken.write_text(site.config + f'\n[adapters.x]\nkind = "imap"\nport = "{WORDS["secret"]}"\n')
    raw = site.folder / "letter.eml"
    raw.write_bytes(everything()[9])
    commands: list[tuple[str, ...]] = [
        ("patients", "import", str(bad)),
        ("directory", "import", str(people)),
        ("recognise", str(raw)),
        ("threads", "list"),
        ("status",),
        ("hold", "list"),
        ("hold", "release", "nothing"),
        ("rules", "check", str(bad)),
    ]
    spoken = ""
    for form in ("json", "text"):
        done = subprocess.run(
            [sys.executable, "-c", RUN_ALL, str(site.file), str(inline), str(broken), form, json.dumps(commands)],
            capture_output=True, text=True, check=False, cwd=ROOT, timeout=90, env={**os.environ, **site.env},
        )  # fmt: skip
        assert done.stdout.strip() == "ran", done.stderr[-2000:]
        spoken += done.stderr
    assert "inline.toml" in spoken
    assert len(spoken.splitlines()) > 10
    return spoken


RUN_ALL = """
import contextlib, io, json, sys
from relay import cli
config, inline, broken, form, commands = sys.argv[1:]
runs = [(words, config) for words in json.loads(commands)] + [(["check"], inline), (["check"], broken), (["run"], inline)]
for words, file in runs:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
        cli.main([*words, "--config", file, "--log", form])
print("ran")
"""


def headers(raw: bytes) -> bytes:
    """The head of a mail, as it went and as it is read; the names of its attachments are no part of it."""
    head = raw.partition(b"\n\n")[0].partition(b"\r\n\r\n")[0]
    message = parsed(raw)
    return head + "\n".join(f"{name}: {value}" for name, value in message.items()).encode("utf-8", "replace")


# ----------------------------------------------------------------------------------------------- the last resorts

CRASHES = """
import asyncio, logging, sys, warnings
from relay import log
log.set_up(sys.argv[1])
word = sys.argv[2]
class Patient(Exception):
    pass
def fail():
    letter = word
    raise Patient(f"cannot read {letter}")
try:
    fail()
except Patient as error:
    log.failure("arrival_unreadable", error, envelope="e", patient=word, subject=word)
log.get().info("settled", patient=word, envelope="e", name_of_file=word)
warnings.warn(f"a library knows {word}", stacklevel=1)
for name in (*log.PINNED, "somebody.else"):
    logging.getLogger(name).debug("FETCH %s", word)
    logging.getLogger(name).warning("server said %s", word, extra={"body": word})
    try:
        fail()
    except Patient:
        logging.getLogger(name).exception("failed on %s", word)
async def lost():
    asyncio.get_running_loop().call_soon(fail)
    task = asyncio.ensure_future(asyncio.to_thread(fail))
    await asyncio.wait([task])
    del task
asyncio.run(lost())
fail()
"""


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_traceback_names_places_and_no_value(form: str) -> None:
    word = WORDS["diagnosis"]
    done = subprocess.run(
        [sys.executable, "-c", CRASHES, form, word],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=60,
    )
    assert done.returncode == 1
    assert "unhandled_error" in done.stderr
    assert "arrival_unreadable" in done.stderr
    assert "Patient" in done.stderr
    assert "UserWarning" in done.stderr
    assert Flock({"diagnosis": word}).hits(done.stderr + done.stdout) == []


DIES = """
import contextlib, os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
from relay import cli
with contextlib.suppress(SystemExit):
    cli.main(["recognise", sys.argv[1]])
print("cores:", *resource.getrlimit(resource.RLIMIT_CORE), flush=True)
os.abort()
"""


def test_a_process_that_crashes_leaves_its_memory_nowhere(tmp_path: Path) -> None:
    file = tmp_path / "lettre.eml"
    file.write_bytes(letter(0, MARTIN))
    died = subprocess.run(
        [sys.executable, "-c", DIES, str(file)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert died.returncode == -signal.SIGABRT
    assert "cores: 0 0" in died.stdout
    assert [each.name for each in tmp_path.iterdir()] == ["lettre.eml"]


# -------------------------------------------------------------------------------------------------- chat's words

BUTTONS = [Button(verb, "nonce") for verb, choice in wording._LABELS if not choice]
CODED = [Button(verb, "nonce", choice) for verb, choice in wording._LABELS if choice]


def said(kind: ChatKind, language: str, urgent: bool, reference: str, at: datetime, count: int) -> str:
    """All that a phone shows of one message, references, times and counts aside."""
    fields = ChatFields(
        kind,
        reference,
        urgent=urgent,
        arrived=at,
        count=count,
        at=at,
        references=((reference, at),),
        language=language,
    )
    rows = tuple((button,) for button in (*BUTTONS, *CODED))
    delivery = Delivery(
        id="d", adapter="telegram", to="rpps:1", address="9001", purpose=Purpose.ALERT, created_at=at,
        recipe=ChatRecipe(fields, rows, link="https://lettres.example.fr/x"),
    )  # fmt: skip
    recipe = delivery.recipe
    assert isinstance(recipe, ChatRecipe)
    message = wording.chat_message(delivery, recipe)
    labels = [label for row in message.buttons for label, _ in row]
    assert {nonce for row in message.buttons for _, nonce in row} == {"nonce"}
    link = message.link[0] if message.link else ""
    return re.sub(r"\d+", "#", "\n".join((message.text, *labels, link)).replace(reference, "REF"))


@pytest.mark.parametrize(("kind", "language", "urgent"), list(product(ChatKind, ("fr", "en"), (False, True))))
def test_a_chat_shows_fixed_words_and_its_reference_times_and_counts(
    kind: ChatKind, language: str, urgent: bool
) -> None:
    monday, tuesday = datetime(2026, 12, 7, 8, 5, tzinfo=UTC), datetime(2026, 12, 8, 19, 42, tzinfo=UTC)
    one = said(kind, language, urgent, "7F3Q-K2M9", monday, 3)
    other = said(kind, language, urgent, "0AB1-ZZ99", tuesday, 12)
    assert one == other  # nothing but reference, times and counts makes a difference
    catalog = {plain(text) for texts in (wording._catalog("en"), {}) for text in (*texts, *texts.values())}
    assert len(catalog) > 100
    known = set(re.findall(r"\w+", " ".join(catalog)))
    assert set(re.findall(r"[^\W\d_]+", plain(one))) - known <= {"ref", "h", "dec"}


@pytest.mark.parametrize(
    "word", [WORDS["diagnosis"], "Dr Martin", "7F3Q-K2M9\nVALBRUNE", "7f3q-k2m9", "7F3Q-K2M9 "]
)
def test_no_other_word_goes_into_a_chat_text(word: str) -> None:
    with pytest.raises(ValueError, match="reference"):
        ChatFields(ChatKind.ALERT, word)
    with pytest.raises(ValueError, match="reference"):
        replace(ChatFields(ChatKind.LIST), references=((word, datetime(2026, 12, 7, tzinfo=UTC)),))
