"""Structured logs with an allow-list of fields: what is not on the list cannot be logged.

A patient, an address, a subject, a file name or a server's answer has no field here; an event is a slug.
Third-party loggers that print what passes over the wire are pinned to WARNING and pass through the same list.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
import warnings
from collections.abc import MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from types import TracebackType

ALLOWED = frozenset(
    {
        "event", "level", "timestamp", "version", "adapter", "kind", "account_kind", "state", "why", "count",
        "seconds", "bytes", "envelope", "delivery", "thread", "reference", "rule", "digest", "attempt", "code",
        "file", "line", "key", "address", "port", "signal", "step", "purpose", "outcome", "error", "where",
        "url", "database", "mode", "pid", "task", "since", "name", "errno",
    }
)  # fmt: skip
"""`address` is a listening address; `url` is the console's own; `name` is an adapter's or a file's of ours."""

PINNED = ("aiohttp", "aioimaplib", "httpx", "httpcore", "telegram", "aiosmtplib", "apscheduler", "sqlalchemy", "asyncio",
          "uvicorn", "uvicorn.error", "uvicorn.access", "mail.log", "pymap", "alembic")  # fmt: skip


def _only_allowed(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Drop every field that is not on the list, and say how many were dropped."""
    dropped = [key for key in event if key not in ALLOWED and not key.startswith("_")]
    for key in dropped:
        del event[key]
    return event


def frames(error: BaseException) -> str:
    """Where an error came from: type and places, never its text, its locals or its source lines."""
    return " < ".join(
        f"{frame.f_globals.get('__name__', '?')}:{line}"
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__)))
    )


class _Foreign(logging.Handler):
    """A library's warning: its logger and level only; its text may quote what passed over the wire."""

    def emit(self, record: logging.LogRecord) -> None:
        where = f"{record.name}:{record.lineno}"
        kind = record.exc_info[0].__name__ if record.exc_info and record.exc_info[0] else None
        fields: dict[str, str] = {"where": where}
        if kind:
            fields["error"] = kind
        get().warning("library_warning", **fields)


def set_up(form: str = "json", level: str = "info") -> None:
    """Logs go to standard error, as JSON lines or as text for people. Unhandled errors go through here too."""
    renderer: Any = (  # structlog's processors share no public type
        structlog.processors.JSONRenderer(ensure_ascii=False, sort_keys=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _only_allowed,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [_Foreign(level=logging.WARNING)]
    root.setLevel(logging.WARNING)
    for name in PINNED:
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.WARNING)
    warnings.showwarning = _warned
    sys.excepthook = _last_resort
    sys.unraisablehook = _unraisable
    threading.excepthook = _in_thread


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning of Python's own: its words, and the line of code shown below them, may quote values."""
    get().warning("library_warning", where=f"{Path(filename).stem}:{lineno}", error=category.__name__)


def _last_resort(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    """A traceback would show values: name the error's type and its places instead."""
    get().error("unhandled_error", error=kind.__name__, where=frames(error))


def _unraisable(left: sys.UnraisableHookArgs) -> None:
    """What a destructor raised; Python would print the error's words."""
    where = frames(left.exc_value) if left.exc_value is not None else ""
    get().error("unraisable_error", error=left.exc_type.__name__, where=where)


def _in_thread(ended: threading.ExceptHookArgs) -> None:
    """What ended a thread; Python would print the error's words."""
    where = frames(ended.exc_value) if ended.exc_value is not None else ""
    get().error("unhandled_error", error=ended.exc_type.__name__, where=where)


def get() -> Any:  # structlog's bound loggers are built at run time
    """The relay's logger: `get().info("event_slug", adapter="cardiologie", count=3)`."""
    return structlog.get_logger()


def failure(event: str, error: BaseException, **fields: object) -> None:
    """Log an error that was caught at an edge: its type and places, none of its words."""
    get().error(event, error=type(error).__name__, where=frames(error), **fields)
