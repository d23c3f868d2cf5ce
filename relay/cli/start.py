"""`relay init|check|run|demo|recognise|status|pause|resume`: from nothing to a running relay."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import sys
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, cast

import typer

from relay.cli import shared
from relay.errors import UsageError

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.starter import Answers


GARBAGE_EVERY = 10_000
"""Objects more than before after which the youngest are looked through; a batch of letters makes about as many."""


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    for name, command in (
        ("init", init), ("check", check), ("run", run), ("demo", demo), ("recognise", recognise),
        ("status", status), ("pause", pause), ("resume", resume),
    ):  # fmt: skip
        app.command(name)(command)


# ----------------------------------------------------------------------------------------------------- init


def init(
    folder: Path = typer.Argument(metavar="DIR", help="The folder to write."),
    since: str | None = typer.Option(
        None, "--since", help="From when an already full mailbox is read: now, all or a date. Asks nothing."
    ),
) -> int:
    """Write a configuration, the rules, the keys and the database of a new site."""
    from relay import starter

    if since is None:
        if not sys.stdin.isatty():
            raise UsageError("nobody to ask here: say --since now, --since all or --since 2026-11-21")
        answers = _ask()
    else:
        answers = starter.Answers(since=_since(since))
    try:
        written = shared.run(starter.write(folder, answers))
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UsageError(f"{error.filename or folder} cannot be written ({error.strerror})") from None
    if shared.chosen.json:
        shared.emit({"folder": str(folder), "written": [str(each) for each in written]})
        return 0
    for each in written:
        print(each)
    print(f"\nNext: edit {folder / 'config.toml'}, then relay check --config {folder / 'config.toml'}")
    return 0


def _since(text: str) -> str:
    if text in ("now", "all"):
        return text
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise UsageError(f"--since « {text} » is neither now, all nor a date such as 2026-11-21") from None


def _ask() -> Answers:
    from relay import starter

    ask = typer.prompt
    return starter.Answers(
        name=ask("How the relay signs", default="Relais ville-hôpital"),
        ward=ask("First ward", default="Cardiologie"),
        watched_mail=_ask_address(
            "The mailbox it will send its letters to", "sorties.cardiologie@chr-exemple.mssante.fr"
        ),
        since=_ask_since(),
        ward_mail=_ask_address("The mailbox its people read", "cardiologie@chr-exemple.mssante.fr"),
        relay_mail=_ask_address("The relay's own secure mail address", "relais@relais45.mssante.fr"),
        imap_host=ask("IMAP server", default="imap.operateur.mssante.fr"),
        smtp_host=ask("SMTP server", default="smtp.operateur.mssante.fr"),
        desk_mail=_ask_address("The desk that takes what nobody took", "sorties@chr-exemple.mssante.fr"),
    )


def _ask_address(question: str, default: str) -> str:
    from relay.config import is_address

    while not is_address(answer := str(typer.prompt(question, default=default)).strip()):
        print(f"« {shared.visible(answer)} » is no mail address")
    return answer


def _ask_since() -> str:
    while True:
        answer = typer.prompt(
            "Letters that wait in it already: leave them (now), read all, or those from a date on",
            default="now",
        )
        try:
            return _since(answer.strip())
        except UsageError as error:
            print(str(error).removeprefix("--since "))


# ---------------------------------------------------------------------------------------------------- check


def check(
    online: bool = typer.Option(False, "--online", help="Connect and authenticate to every adapter."),
    flows: bool = typer.Option(False, "--flows", help="Print the network flow matrix."),
) -> int:
    """Check configuration, rules, keys, database, clock and certificates; exit 1 when something is wrong."""
    from relay import checking

    site = shared.settings()
    findings = shared.run(checking.examine(site, online=online))
    rows = checking.flow_matrix(site) if flows else []
    ok = not any(finding.wrong for finding in findings)
    if shared.chosen.json:
        document: dict[str, object] = {
            "ok": ok,
            "checks": [
                {"name": each.name, "ok": not each.wrong, "severity": each.severity, "text": each.text}
                for each in findings
            ],
        }
        if flows:
            document["flows"] = rows
        shared.emit(document)
    else:
        marks = {"ok": "✓", "warning": "!", "error": "✗"}
        for finding in findings:
            print(f"{marks[finding.severity]} {finding.name}: {finding.text}")
        if flows:
            shared.show_rows(rows, ("from", "to", "port", "protocol", "why"), "no network flow")
    unavailable = any(finding.wrong and finding.unavailable for finding in findings)
    return 0 if ok else 3 if unavailable and all(f.unavailable for f in findings if f.wrong) else 1


# ------------------------------------------------------------------------------------------------ run, demo


def run(
    only: str | None = typer.Option(
        None, "--only", help="One part of the daemon: intake, dispatch or console."
    ),
) -> int:
    """Run the relay until SIGTERM."""
    if only not in (None, "intake", "dispatch", "console"):
        raise UsageError(f"--only is intake, dispatch or console, not « {only} »")
    # Starting makes some hundred thousand objects that stay for life: looking through them time and again for
    # garbage cost a tenth of the start, and of every letter after it.
    gc.disable()
    from relay import checking, log
    from relay.daemon import Daemon, Role, check_adapter

    site = shared.settings()
    for table in site.adapters.values():
        check_adapter(site, table)
    for finding in checking.watched(site):
        if finding.severity != "ok":
            log.get().warning("check", step=finding.name, why=finding.text)
    part = cast("Role | None", only)
    daemon = Daemon(site, only=part, opened=_forget_the_start, overdue=_cut_off)
    asyncio.run(daemon.run())
    return 0


def _forget_the_start() -> None:
    """From here on garbage is looked for again, among what came since."""
    gc.freeze()
    gc.set_threshold(GARBAGE_EVERY)
    gc.enable()


def _cut_off(asked: bool) -> None:
    """End at once: what was committed stays, and what was on the wire is settled at the next start, as after a crash."""
    from relay import log

    log.get().warning("cut_off")
    os._exit(0 if asked else 3)


def demo(
    port: int = typer.Option(
        8025, "--port", min=0, max=65535, help="Port of the page on 127.0.0.1; 0 takes a free one."
    ),
    once: bool = typer.Option(
        False, "--once", help="Run the sample letters through, print each step, leave."
    ),
) -> int:
    """Show the whole relay on this machine: no account, no root, nothing leaves it."""
    from relay import demo as tour

    steps = asyncio.run(tour.run(port=port, once=once, out=sys.stderr if shared.chosen.json else sys.stdout))
    well = all(step["ok"] for step in steps)
    if shared.chosen.json:
        shared.emit({"ok": well, "steps": steps})
    return 0 if well else 1


# ------------------------------------------------------------------------------------------------ recognise


def recognise(files: list[Path] = typer.Argument(metavar="FILE", help="Messages or documents.")) -> int:
    """Say what the relay understands of files; exit 0 for any bytes."""
    import json

    from relay import reading, recognition

    for file in files:
        if not os.access(file, os.R_OK) or file.is_dir():
            raise UsageError(f"{file}: no file that can be read")
    for file in files:
        raw = file.read_bytes()
        opened = shared.unsealed(raw)
        document = reading.read_file(file.name, opened.raw if opened else raw)
        found = recognition.opened(recognition.recognise(document), opened.why if opened else None)
        row = recognition.to_json(found, file=str(file), signed=opened.signed if opened else None)
        if shared.chosen.json:
            shared.emit(row)
            continue
        print(shared.visible(f"{file}: {row['outcome']}" + (f" ({row['format']})" if row["format"] else "")))
        for key, value in row.items():
            if key not in ("file", "outcome", "format") and value not in (None, [], ""):
                text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
                print(f"  {key}: {shared.visible(text)}")
    return 0


# ------------------------------------------------------------------------------------- status, pause, resume


def status(watch: bool = typer.Option(False, "--watch", help="Show it again every two seconds.")) -> int:
    """One page: what came in, what waits, what is open, what is down."""
    from relay import __version__

    site = shared.settings()

    async def page() -> dict[str, object]:
        from relay import daemon, ruling

        async with shared.opened(site) as store:
            found = dict(await store.status())
            found["invariants"] = await store.invariants()
            found["rules"] = await ruling.standing(site, store)
            found["directory"] = await daemon.directory_standing(store, datetime.now(UTC))
        order = (
            "version", "now", "mode", "received", "decided", "held", "ignored", "corrupt", "open", "balance",
            "deliveries", "threads", "oldest_waiting_s", "adapters", "rules", "invariants",
        )  # fmt: skip
        found |= {"version": __version__, "mode": site.mode}
        waiting = {"state": "down", "since": None, "detail": "never_started"}
        said = {name: found["adapters"].get(name, waiting) for name in site.adapters}
        if site.database_url.startswith("sqlite"):  # whose relay runs here, or nowhere
            said = _believed(site, said, daemon.playing(site.state))
        found["adapters"] = said
        return {key: found[key] for key in order} | {k: v for k, v in found.items() if k not in order}

    while True:
        document = shared.run(page())
        if shared.chosen.json:
            shared.emit(document)
        else:
            if watch:
                print("\x1b[2J\x1b[H", end="")
            _status_page(document)
        if not watch:
            return 0
        with contextlib.suppress(KeyboardInterrupt):
            shared.run(asyncio.sleep(2))
            continue
        return 0


def _believed(
    site: Settings, said: dict[str, dict[str, object]], played: frozenset[str]
) -> dict[str, dict[str, object]]:
    """What the adapters said of themselves, but for those whose relay was killed after it."""
    away: dict[str, object] = {"state": "down", "since": None, "detail": "not_running"}
    leaving = _leaving(site)
    return {
        name: away
        if row["state"] in ("up", "starting") and ("dispatch" if name in leaving else "intake") not in played
        else row
        for name, row in said.items()
    }


def _status_page(document: dict[str, object]) -> None:
    print(f"Relais {document['version']} · {document['mode']} · {document['now']}")
    counts = ("received", "decided", "held", "ignored", "corrupt", "open")
    print("  ".join(f"{name} {document[name]}" for name in counts))
    for title in ("deliveries", "threads", "adapters", "rules", "invariants"):
        rows = document[title]
        assert isinstance(rows, dict)  # noqa: S101 - docs/interface.md, States
        shown = []
        for name, value in rows.items():
            if isinstance(value, dict):
                shown.append(" ".join(str(part) for part in (name, value["state"], value["detail"]) if part))
            elif isinstance(value, datetime):
                shown.append(f"{name} {value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
            elif value or title == "rules":
                shown.append(f"{name} {str(value)[:12] if name == 'digest' else value}")
        if title == "rules" and not rows["digest"]:
            shown = ["none in force yet"]
        print(f"{title}: {' · '.join(shown) or '–'}")
    _directory_lines(document["directory"])
    wait = document["oldest_waiting_s"]
    print(f"oldest waiting: {'–' if wait is None else f'{wait} s'}")


def _directory_lines(sources: object) -> None:
    assert isinstance(sources, dict)  # noqa: S101 - docs/interface.md, States
    shown = [f"{name} {each['entries']} people, {_age(each['age_s'])} old" for name, each in sources.items()]
    print(f"directory: {' · '.join(shown) or 'empty'}")


def _age(seconds: float) -> str:
    days, hours = int(seconds // 86400), int(seconds // 3600)
    return f"{days} d" if days else f"{hours} h" if hours else f"{int(seconds // 60)} min"


def pause(adapter: str | None = typer.Argument(None, help="One adapter; all when left out.")) -> int:
    """Emergency stop: nothing leaves; intake goes on."""
    return _pause(adapter, stop=True)


def resume(adapter: str | None = typer.Argument(None, help="One adapter; all when left out.")) -> int:
    """End a pause."""
    return _pause(adapter, stop=False)


def _pause(adapter: str | None, *, stop: bool) -> int:
    site = shared.settings()
    names = _outward(site, adapter)

    async def work() -> None:
        async with shared.opened(site) as store:
            if adapter is None and not stop:
                await store.resume()
            for name in names:
                await (store.pause(name) if stop else store.resume(name))

    shared.run(work())
    if shared.chosen.json:
        shared.emit({"paused" if stop else "resumed": names})
    else:
        print(f"{'paused' if stop else 'resumed'}: {', '.join(names)}")
    return 0


def _leaving(site: Settings) -> list[str]:
    """The adapters by which something leaves."""
    from relay.config import CHAT_KINDS

    return [name for name, table in site.adapters.items() if table.kind == "smtp" or table.kind in CHAT_KINDS]


def _outward(site: Settings, named: str | None) -> list[str]:
    """Those that a pause stops. One that only listens goes on, and its own state stays to be seen."""
    outward = _leaving(site)
    if named is None:
        if not outward:
            raise UsageError("no adapter that sends is configured: nothing can leave")
        return outward
    if named not in site.adapters:
        raise UsageError(f"no adapter « {named} »; known are {', '.join(outward) or 'none'}")
    if named not in outward:
        raise UsageError(
            f"nothing leaves by « {named} »; what can be paused is {', '.join(outward) or 'none'}"
        )
    return [named]
