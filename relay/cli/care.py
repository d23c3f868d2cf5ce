"""`relay audit|purge`: the trail and the retention."""

from __future__ import annotations

import typer

from relay.cli import shared

audit = typer.Typer(help="The audit trail.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add these commands to the program."""
    app.add_typer(audit, name="audit")
    app.command("purge")(purge)


@audit.command("verify")
def verify() -> int:
    """Prove that no line of the trail was changed or removed."""
    site = shared.settings()

    async def work() -> dict[str, object]:
        async with shared.opened(site) as store:
            return dict(await store.audit_verify())

    found = shared.run(work())
    shared.show_one(found)
    return 0 if found["ok"] else 1


@audit.command("export")
def export(
    since: str | None = typer.Option(None, "--since", help="From this date, time, or this long ago."),
) -> int:
    """Print the trail as JSON lines; it holds no content."""
    site = shared.settings()

    async def work() -> list[dict[str, object]]:
        async with shared.opened(site) as store:
            return [dict(row) for row in await store.audit_export(shared.since(since, site.timezone))]

    rows = shared.run(work())
    if shared.chosen.json:
        shared.emit(rows)
    else:
        for row in rows:
            shared.emit(row)
    return 0


def purge() -> int:
    """Forget what the retention periods say, now: content keys, facts, trail."""
    from relay import operations

    site = shared.settings()

    async def work() -> dict[str, object]:
        async with shared.opened(site) as store:
            return await operations.purge(site, store)

    shared.show_one(shared.run(work()))
    return 0
