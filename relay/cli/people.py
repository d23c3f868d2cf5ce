"""`relay patients …` and `relay directory …`: who is a patient, whose GP, and where the mailboxes are."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from relay.cli import shared
from relay.errors import NotFound, UsageError

if TYPE_CHECKING:
    from relay.registers import BadLine
    from relay.store.people import ImportCount

T = TypeVar("T")

patients = typer.Typer(help="Patients and their registered GP.", no_args_is_help=True)
directory = typer.Typer(help="Professionals, their mailboxes and chat accounts.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(patients, name="patients")
    app.add_typer(directory, name="directory")


class _Counted:
    """Good rows pass; bad lines are kept with number and reason."""

    def __init__(self) -> None:
        self.bad: list[BadLine] = []
        self.count = 0

    @property
    def whole(self) -> bool:
        """Whether all of it was read: who stands on a line that was not is not gone."""
        return self.count > 0 and all(each.kept for each in self.bad)

    def good(self, rows: Iterable[T | BadLine]) -> Iterator[T]:
        from relay.registers import BadLine

        for row in rows:
            if isinstance(row, BadLine):
                self.bad.append(row)
            else:
                self.count += 1
                yield row


@contextlib.contextmanager
def _bar(file: Path) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, by rows; silent where nobody looks."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn(file.name), TextColumn("{task.completed:,} lines"), TimeElapsedColumn(),
        console=console, transient=True, disable=not console.is_terminal,
    ) as progress:  # fmt: skip
        task = progress.add_task(file.name, total=None)
        yield lambda done: progress.update(task, completed=done)


def _report(
    counts: dict[str, object], bad: list[BadLine], file: Path | None, extra: Sequence[str] = ()
) -> int:
    """Counts, bad lines with number and reason, and doubts about kept ones; exit 1 when a line was lost."""
    lost = [each for each in bad if not each.kept]
    if shared.chosen.json:
        shown = {
            name: [
                {"line": each.number, "column": each.column, "code": each.code, "reason": each.reason}
                for each in lines
            ]
            for name, lines in (("bad", lost), ("warnings", [each for each in bad if each.kept]))
        }
        shared.emit({**counts, **shown})
    else:
        print(", ".join(f"{name} {value}" for name, value in counts.items() if isinstance(value, int)))
        for each in bad:
            print(f"{file}:{each.number}: {'kept, but: ' if each.kept else ''}{each.reason}", file=sys.stderr)
        for line in extra:
            print(line, file=sys.stderr)
    return 1 if lost or extra else 0


def _rpps(text: str) -> str:
    """The bare 11 digits. Raises UsageError."""
    from relay import identity

    bare = identity.normal_rpps(text)
    if bare is None:
        raise UsageError(f"« {text} » is no RPPS: it has 11 digits")
    return bare


def _exists(file: Path) -> Path:
    if not file.is_file():
        raise UsageError(f"{file}: no such file")
    return file


# ------------------------------------------------------------------------------------------------- patients


@patients.command("import")
def import_patients(
    file: Path = typer.Argument(help="patients.csv"),
    complete: bool = typer.Option(False, "--complete", help="The file is whole: end the rows it lacks."),
) -> int:
    """Read patients and their registered GP; good lines are kept, bad ones named."""
    from relay import identity, registers

    site = shared.settings()
    counted = _Counted()

    async def work() -> ImportCount:
        async with shared.opened(site) as store:
            with _bar(_exists(file)) as progress, file.open("rb") as stream:
                return await store.import_registrations(
                    counted.good(registers.patients(stream, str(file))),
                    identity.keys_of,
                    complete=lambda: complete and counted.whole,
                    progress=progress,
                )

    done = asdict(shared.run(work()))
    kept = (
        [f"{file}: not all of it was read, so nobody's registration was ended"]
        if complete and not counted.whole
        else []
    )
    return _report(done, counted.bad, file, kept)


@patients.command("show")
def show_patient(ins: str = typer.Argument(help="The patient's INS.")) -> int:
    """Show one registered patient. Writes health data on the screen: mind who looks."""
    site = shared.settings()

    async def work() -> dict[str, object]:
        async with shared.opened(site) as store:
            found = await store.registration_by_ins(ins)
            if found is None:
                raise NotFound("no registered patient has this INS")
            return asdict(found)

    shared.show_one(shared.run(work()))
    return 0


@patients.command("set-gp")
def set_gp(
    ins: str = typer.Argument(help="The patient's INS."),
    rpps: str = typer.Argument(help="The RPPS of the registered GP."),
    by: str = typer.Option("admin", "--by", help="Who says so."),
) -> int:
    """Correct a patient's registered GP; the correction survives the next import."""
    site = shared.settings()
    bare = _rpps(rpps)

    async def work() -> None:
        async with shared.opened(site) as store:
            await store.set_gp(ins, bare, by=by)

    shared.run(work())
    shared.show_one({"ins": ins, "gp_rpps": bare})
    return 0


@patients.command("object")
def object_to(
    ins: str = typer.Argument(help="The patient's INS."),
    scope: str = typer.Option("all", "--scope", help="gp, copies or all."),
    by: str = typer.Option(..., "--by", help="Who recorded the objection."),
) -> int:
    """Record an objection: queued copies and reminders are cancelled at once, what left is listed."""
    from relay import operations

    if scope not in ("gp", "copies", "all"):
        raise UsageError(f"--scope is gp, copies or all, not « {scope} »")
    site = shared.settings()

    async def work() -> dict[str, object]:
        async with shared.opened(site) as store:
            return await operations.objection(site, store, ins, scope, by)

    found = shared.run(work())
    shared.show_one(found)
    return 0


# ------------------------------------------------------------------------------------------------ directory


@directory.command("import")
def import_directory(
    file: Path = typer.Argument(help="directory.csv or the Annuaire Santé extraction."),
) -> int:
    """Read professionals and their mailboxes."""
    from relay import identity, registers

    site = shared.settings()
    counted = _Counted()

    async def work() -> ImportCount:
        async with shared.opened(site) as store:
            with _bar(_exists(file)) as progress, file.open("rb") as stream:
                official = registers.is_extraction(stream.readline())
                stream.seek(0)
                return await store.import_professionals(
                    counted.good(registers.directory(stream, str(file))),
                    identity.fold,
                    progress=progress,
                    source="extraction" if official else "site",
                )

    return _report(asdict(shared.run(work())), counted.bad, file)


@directory.command("refresh")
def refresh(
    rpps: list[str] | None = typer.Argument(None, help="Whom to ask about; all in use when left out."),
) -> int:
    """Ask the directory's servers now about some professionals, or about all whom the relay writes to."""
    from relay import operations

    site = shared.settings()
    numbers = [_rpps(each) for each in rpps or ()]

    async def work() -> dict[str, object]:
        async with shared.opened(site) as store:
            return await operations.refresh_directory(site, store, numbers)

    done = shared.run(work())
    shared.show_one(done)
    return 1 if done["unknown"] else 0


@directory.command("find")
def find(
    text: str = typer.Argument(help="A family name, an RPPS or a mail address."),
    online: bool = typer.Option(False, "--online", help="Ask the directory's servers first."),
) -> int:
    """Find professionals."""
    from relay import operations

    site = shared.settings()

    async def work() -> list[dict[str, object]]:
        async with shared.opened(site) as store:
            if online:
                await operations.ask_directory(site, store, text)
            found = await store.find_professionals(text)
            return [
                {
                    "rpps": each.rpps,
                    "family_name": each.family_name,
                    "given_name": each.given_name,
                    "mailboxes": [box.address for box in each.mailboxes],
                    "active": each.active,
                    "postcode": each.postcode,
                    "as_of": each.as_of,
                    "channels": [
                        f"{link.adapter_kind}:{link.chat}" for link in await store.links([each.rpps])
                    ],
                }
                for each in found
            ]

    rows = shared.run(work())
    shared.show_rows(
        rows, ("rpps", "family_name", "given_name", "mailboxes", "active", "postcode", "as_of", "channels"),
        "nobody of that name",
    )  # fmt: skip
    return 0


@directory.command("link")
def link(
    rpps: str | None = typer.Argument(None, help="The professional's RPPS."),
    channel: str | None = typer.Argument(
        None, help="telegram:CHAT[:USER], matrix:@USER:SERVER or webchat:NAME."
    ),
    file: Path | None = typer.Option(None, "--file", help="links.csv: rpps,channel."),
    no_notice: bool = typer.Option(False, "--no-notice", help="Mail nobody: for a bulk load."),
) -> int:
    """Link a chat account to a professional, as an admin's act; they are told by secure mail."""
    from relay import operations, registers

    site = shared.settings()
    if (file is None) == (rpps is None or channel is None):
        raise UsageError("give RPPS and CHANNEL, or --file links.csv")
    counted = _Counted()
    links = []
    if file is not None:
        with _exists(file).open("rb") as stream:
            links = list(counted.good(registers.links(stream, str(file))))
    elif rpps is not None and channel is not None:
        links = [registers.link(rpps, channel)]

    async def work() -> operations.Linked:
        async with shared.opened(site) as store:
            return await operations.link(site, store, links, notice=not no_notice)

    done = shared.run(work())
    if file is None and done.strangers:
        raise NotFound(f"not in the directory: {done.strangers[0]}")
    return _report(
        {"linked": done.linked, "not_in_directory": done.strangers}, counted.bad, file,
        [f"{file}: not in the directory: {stranger}" for stranger in done.strangers],
    )  # fmt: skip


@directory.command("unlink")
def unlink(
    rpps: str = typer.Argument(help="The professional's RPPS."),
    channel: str | None = typer.Argument(None, help="One account; all when left out."),
) -> int:
    """Take chat accounts from a professional."""
    from relay import registers

    site = shared.settings()
    bare = _rpps(rpps)
    one = registers.link(bare, channel) if channel else None

    async def work() -> int:
        async with shared.opened(site) as store:
            return await store.unlink(bare, one)

    count = shared.run(work())
    if not count:
        raise NotFound(f"no such account is linked to {bare}")
    shared.show_one({"rpps": bare, "unlinked": count})
    return 0


@directory.command("away")
def away(
    rpps: str = typer.Argument(help="Who is away."),
    first: str = typer.Option(..., "--from", help="First day, 2026-12-24."),
    last: str = typer.Option(..., "--to", help="Last day."),
    substitute: str | None = typer.Option(None, "--substitute", help="The RPPS of who stands in."),
) -> int:
    """Declare an absence, perhaps with a substitute."""
    from relay.model import Absence

    site = shared.settings()
    absent, stands_in = _rpps(rpps), _rpps(substitute) if substitute else None
    if absent == stands_in:
        raise UsageError("nobody stands in for themselves")
    try:
        days = date.fromisoformat(first), date.fromisoformat(last)
    except ValueError:
        raise UsageError("days are written 2026-12-24") from None
    if days[1] < days[0]:
        raise UsageError("the last day is before the first")
    if days[1] < datetime.now(UTC).date():
        raise UsageError("this absence is over already")

    async def work() -> None:
        async with shared.opened(site) as store:
            named = [each for each in (absent, stands_in) if each]
            known = {each.rpps for each in await store.professionals(named, [])}
            if strangers := [each for each in named if each not in known]:
                raise NotFound(f"not in the directory: {', '.join(strangers)}")
            await store.away(Absence(absent, days[0], days[1], stands_in))

    shared.run(work())
    shared.show_one({"rpps": absent, "from": days[0], "to": days[1], "substitute": stands_in})
    return 0
