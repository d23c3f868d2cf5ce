"""What every command shares: the three options, the configuration, the store, and how results are shown."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from relay.errors import ConfigurationError, UsageError

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.ports import Opened, Opener
    from relay.store import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Chosen:
    """The options that every command takes, wherever they stand on the line."""

    config: Path | None = None
    json: bool = False
    log: str = "json"


chosen = Chosen()
shown = False
"""Whether a JSON document stands on standard output already: there is exactly one."""


def take_shared(words: Sequence[str]) -> tuple[list[str], Chosen]:
    """Split the shared options from the rest; what follows `--` is left alone. Raises UsageError."""
    rest: list[str] = []
    found = Chosen()
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "--":
            rest += [word, *waiting]
            break
        name, equals, value = word.partition("=")
        if word == "--json":
            found = replace(found, json=True)
        elif name in ("--config", "--log"):
            if not equals:
                if not waiting or waiting[0].startswith("--"):
                    raise UsageError(f"{name} needs a value")
                value = waiting.pop(0)
            found = replace(found, config=Path(value)) if name == "--config" else replace(found, log=value)
        else:
            rest.append(word)
    return rest, found


def config_file() -> Path:
    """The configuration's file: --config, else $RELAY_CONFIG, else ./config.toml."""
    return chosen.config or Path(os.environ.get("RELAY_CONFIG") or "config.toml")


def settings() -> Settings:
    """The configuration, checked. Raises ConfigurationError."""
    from relay import config

    return config.read(config_file())


def settings_or_none() -> Settings | None:
    """For commands that need no configuration: None when there is no file and none was asked for."""
    if chosen.config is None and "RELAY_CONFIG" not in os.environ and not config_file().exists():
        return None
    return settings()


@contextlib.asynccontextmanager
async def opened(site: Settings) -> AsyncIterator[Store]:
    """The store, closed at the end."""
    from relay import daemon

    store = await daemon.open_store(site)
    try:
        yield store
    finally:
        await store.close()


def unsealed(raw: bytes) -> Opened | None:
    """What a signed or encrypted mail holds; with a configuration, by its keys and authorities. None for any other."""
    from relay import reading

    if reading.seal(raw) is None:
        return None
    from adapters import smime

    opener: Opener = smime.connect("smime", smime.Settings())
    try:
        if (site := settings_or_none()) is not None:
            from relay import daemon

            opener = daemon.opener(site)
    except ConfigurationError:  # whoever looks at a file need not be able to read the relay's secrets
        if chosen.config is not None:
            raise
    return run(opener.open(raw, datetime.now(UTC)))


def run(work: Coroutine[object, object, T]) -> T:
    """Run one command's work to its end."""
    return asyncio.run(work)


# ------------------------------------------------------------------------------------------------- showing


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return str(value)


def emit(document: object) -> None:
    """Exactly one JSON document on standard output."""
    global shown  # noqa: PLW0603 - one process runs one command
    shown = True
    text = json.dumps(document, ensure_ascii=False, default=_plain)
    # JSON escapes some of what a terminal obeys; the rest stands in strings alone, where it may be escaped too.
    sys.stdout.write(_OBEYED.sub(lambda sign: f"\\u{ord(sign[0]):04x}", text) + "\n")


def show_rows(rows: Sequence[Mapping[str, object]], columns: Sequence[str], nothing: str) -> None:
    """A list command's result: JSON array, or a table for people."""
    if chosen.json:
        emit(list(rows))
        return
    if not rows:
        say(nothing)
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    # Where nobody looks, a row is a line: folded to a terminal's width it could not be searched.
    wide = None if sys.stdout.isatty() else 10_000
    console = Console(highlight=False, markup=False, width=wide, file=io.StringIO() if wide else None)
    console.print(table)
    if isinstance(console.file, io.StringIO):
        print("\n".join(line.rstrip() for line in console.file.getvalue().splitlines()))


# What a terminal obeys instead of showing it, and what turns the direction of a line.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """The text with nothing in it but signs to read: a letter's words must not clear, rename or paint a terminal."""
    return _OBEYED.sub("\ufffd", text)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, Mapping):
        return " ".join(f"{key}={_cell(each)}" for key, each in value.items()) or "–"
    if isinstance(value, (list, tuple)):
        return ("; " if any(isinstance(each, Mapping) for each in value) else ", ").join(
            map(_cell, value)
        ) or "–"
    plain = _plain(value) if not isinstance(value, (str, int, float)) else value
    return visible(str(plain))


def show_one(row: Mapping[str, object]) -> None:
    """One object: JSON, or one line a key."""
    if chosen.json:
        emit(row)
        return
    width = max((len(key) for key in row), default=0)
    for key, value in row.items():
        print(f"{key:<{width}}  {_cell(value)}")


def say(text: str) -> None:
    """A sentence for people; standard error when standard output belongs to JSON."""
    print(text, file=sys.stderr if chosen.json else sys.stdout)


def write_whole(file: Path, text: str | bytes) -> None:
    """Replace a file whole, on disk before it counts: nobody ever reads half of it. Raises ConfigurationError.

    A link stays: what it leads to is replaced. So do rights and, where that is allowed, the owner: the relay must
    go on reading what an administrator of the machine rewrote.
    """
    try:
        place = file.resolve()
        try:
            stood = place.stat()
        except FileNotFoundError:
            stood = None
        number, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with os.fdopen(number, "wb") as out:
                out.write(text.encode("utf-8") if isinstance(text, str) else text)
                out.flush()
                os.fsync(out.fileno())
            if stood is not None:
                with contextlib.suppress(PermissionError):
                    os.chown(name, stood.st_uid, stood.st_gid)
            Path(name).chmod(stood.st_mode & 0o777 if stood is not None else 0o644)
            Path(name).replace(place)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        raise ConfigurationError(f"cannot be written ({type(error).__name__})", file=str(file)) from None


def since(text: str | None, zone: str = "UTC") -> datetime | None:
    """`--since`: an ISO date or time (site's time zone when it has none), or a duration ago. Raises UsageError."""
    if text is None:
        return None
    from zoneinfo import ZoneInfo

    from relay.config import duration

    with contextlib.suppress(ValueError):
        return datetime.now(UTC) - duration(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since « {text} » is no date, time or duration (2026-11-21, 7d)") from None
    return at.replace(tzinfo=ZoneInfo(zone)) if at.tzinfo is None else at
