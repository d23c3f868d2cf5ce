"""`relay envelopes|hold|deliveries|threads|recall|incidents`: what came, what waits, what a person decides."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from relay.cli import moving, shared
from relay.errors import UsageError
from relay.model import DeliveryState, EnvelopeState, ThreadState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from relay.config import Settings
    from relay.store import Store

STATES = {
    "envelopes": [each.value for each in EnvelopeState],
    "deliveries": [each.value for each in DeliveryState],
    "threads": [each.value for each in ThreadState],
    "holds": ["open", "ended"],
    "incidents": ["open", "closed"],
}

envelopes = typer.Typer(help="What arrived.", no_args_is_help=True)
hold = typer.Typer(help="What waits for a person.", no_args_is_help=True)
deliveries = typer.Typer(help="What leaves.", no_args_is_help=True)
threads = typer.Typer(help="Follow-ups.", no_args_is_help=True)
incidents = typer.Typer(help="What may have to be notified.", no_args_is_help=True)

STATE = typer.Option(None, "--state", help="Only those in this state.")
SINCE = typer.Option(None, "--since", help="Only from this date, time, or this long ago (7d).")
LIMIT = typer.Option(
    None, "--limit", min=1, help="At most this many, the latest first; left out: all with --json, else 100."
)
PAGE = 100
ALL = 2**31 - 1

# What people see of each row; `--json` has all of it.
ENVELOPES = ("id", "adapter", "kind", "state", "why", "rule", "reference", "received_at")
DELIVERIES = ("id", "reference", "adapter", "to", "purpose", "state", "attempts", "next_at", "why")
THREADS = ("id", "reference", "state", "owner", "level", "deadline", "closed_reason")
HOLDS = ("id", "why", "rule", "since", "candidates", "reason", "detail")
INCIDENTS = ("id", "reference", "kind", "opened", "due", "closed")


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(envelopes, name="envelopes")
    app.add_typer(hold, name="hold")
    app.add_typer(deliveries, name="deliveries")
    app.add_typer(threads, name="threads")
    moving.register(threads)
    app.add_typer(incidents, name="incidents")
    app.command("recall")(recall)


def _with_store(work: Callable[[Settings, Store], Awaitable[object]]) -> object:
    site = shared.settings()

    async def opened() -> object:
        async with shared.opened(site) as store:
            return await work(site, store)

    return shared.run(opened())


def _list(
    name: str, state: str | None, since: str | None, limit: int | None, columns: Sequence[str], nothing: str
) -> int:
    known = STATES[name]
    if state is not None and state not in known:
        raise UsageError(f"--state « {state} » is none of {', '.join(known)}")

    most = limit or (ALL if shared.chosen.json else PAGE)

    async def work(site: Settings, store: Store) -> object:
        return await getattr(store, name)(state=state, since=shared.since(since, site.timezone), limit=most)

    rows = _with_store(work)
    assert isinstance(rows, (list, tuple))  # noqa: S101 - every list of the store
    shared.show_rows(rows, columns, nothing)
    if limit is None and not shared.chosen.json and len(rows) == PAGE:
        print(f"the latest {PAGE}; --limit shows more", file=sys.stderr)
    return 0


@envelopes.command("list")
def list_envelopes(state: str | None = STATE, since: str | None = SINCE, limit: int | None = LIMIT) -> int:
    """List arrivals."""
    return _list("envelopes", state, since, limit, ENVELOPES, "nothing arrived")


@deliveries.command("list")
def list_deliveries(state: str | None = STATE, since: str | None = SINCE, limit: int | None = LIMIT) -> int:
    """List copies."""
    return _list("deliveries", state, since, limit, DELIVERIES, "nothing leaves")


@threads.command("list")
def list_threads(state: str | None = STATE, since: str | None = SINCE, limit: int | None = LIMIT) -> int:
    """List follow-ups."""
    return _list("threads", state, since, limit, THREADS, "no follow-up")


@hold.command("list")
def list_holds(state: str | None = STATE, since: str | None = SINCE, limit: int | None = LIMIT) -> int:
    """List what waits for a person."""
    return _list("holds", state, since, limit, HOLDS, "nothing is held")


@incidents.command("list")
def list_incidents(state: str | None = STATE, since: str | None = SINCE, limit: int | None = LIMIT) -> int:
    """List incidents."""
    return _list("incidents", state, since, limit, INCIDENTS, "no incident")


def _act(name: str, *words: object, **named: object) -> int:
    """Do one act of `relay.operations` and show what it answers."""
    from relay import operations

    async def work(site: Settings, store: Store) -> object:
        return await getattr(operations, name)(site, store, *words, **named)

    result = _with_store(work)
    assert isinstance(result, dict)  # noqa: S101 - every act answers one row
    shared.show_one(result)
    return 0


@envelopes.command("show")
def show_envelope(
    envelope: str = typer.Argument(metavar="ID", help="The envelope's id."),
    raw: Path | None = typer.Option(None, "--raw", help="Write the original bytes to this file."),
) -> int:
    """Show one arrival and what was decided about it."""
    return _act("show_envelope", envelope, raw=raw)


@envelopes.command("replay")
def replay(envelope: str = typer.Argument(metavar="ID", help="The envelope's id.")) -> int:
    """Decide an arrival again; what exists already is not made twice."""
    return _act("replay", envelope)


@hold.command("release")
def release(
    held: str = typer.Argument(metavar="ID", help="The hold's id."),
    gp: str | None = typer.Option(None, "--gp", help="The RPPS of the registered GP."),
    patient: str | None = typer.Option(None, "--patient", help="The INS of the patient."),
    by: str = typer.Option("admin", "--by", help="Who decides: RPPS, ward:SLUG, desk:NAME or a name."),
) -> int:
    """Send a held letter on, with what a person decided."""
    return _act("release", held, gp=gp, patient=patient, by=by)


@hold.command("reject")
def reject(
    held: str = typer.Argument(metavar="ID", help="The hold's id."),
    reason: str = typer.Option(..., "--reason", help="Why it is not sent."),
    by: str = typer.Option("admin", "--by", help="Who decides."),
) -> int:
    """Set a held letter aside for good; its bytes stay for the retention period."""
    return _act("reject", held, reason=reason, by=by)


@deliveries.command("retry")
def retry(delivery: str = typer.Argument(metavar="ID", help="The delivery's id.")) -> int:
    """Try a failed or deferred copy again now."""
    return _act("retry", delivery)


@deliveries.command("cancel")
def cancel(delivery: str = typer.Argument(metavar="ID", help="The delivery's id.")) -> int:
    """Stop a copy that has not left."""
    return _act("cancel", delivery)


@threads.command("show")
def show_thread(ref: str = typer.Argument(help="Reference or id.")) -> int:
    """Show one follow-up with its copies and timers."""
    return _act("show_thread", ref)


BY = typer.Option(..., "--by", help="Who acts: RPPS, ward:SLUG or desk:NAME.")
TEXT = typer.Option(None, "--text", help="Words for the other side, carried by secure mail.")


def _verb(name: str, words: str) -> None:
    def command(
        ref: str = typer.Argument(help="Reference or id."), by: str = BY, text: str | None = TEXT
    ) -> int:
        return _act("thread_verb", name.replace("-", "_"), ref, by=by, text=text)

    command.__doc__ = words
    threads.command(name)(command)
    if "-" in name:  # as lists and logs write it
        threads.command(name.replace("-", "_"), hidden=True)(command)


for _name, _words in (
    ("ack", "Acknowledge: received at the practice, patient known."),
    ("ask", "Ask the ward (--text)."),
    ("answer", "Answer the GP (--text)."),
    ("snooze", "Put reminders off (--text 1h, tomorrow or monday)."),
    ("hand-over", "Hand over to somebody else (--text desk:NAME)."),
    ("refuse", "« Pas mon patient »: stop, tell the ward, a person decides."),
    ("recall", "Take the letter back: those who got it are asked to delete it unread."),
    ("close", "Close, with the reason as --text."),
    ("reopen", "Open again."),
    ("undo", "Take back the last act within 60 seconds."),
):
    _verb(_name, _words)


def recall(
    ref: str = typer.Argument(help="Reference or id of the follow-up."),
    by: str = typer.Option(..., "--by", help="Who recalls: ward:SLUG, desk:NAME or a name."),
    reason: str = typer.Option(..., "--reason", help="Why."),
) -> int:
    """Take a letter back: stop what is queued, ask those who got it to delete it unread."""
    if not reason.strip():
        raise UsageError("--reason must say why")
    return _act("recall", ref, by=by, reason=reason)
