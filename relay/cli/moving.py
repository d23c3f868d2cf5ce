"""`relay threads migrate`: open follow-ups move to the rules in force, once somebody has seen what that means."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import typer

from relay.cli import shared
from relay.cli.paper import Paper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config import Settings
    from relay.model import Thread, Timer
    from relay.operations import Migration
    from relay.planning import Move

SHOWN: Final = 50
"""So many threads are told one by one to people; --json has them all."""


def register(commands: typer.Typer) -> None:
    """Add this command to `relay threads`."""
    commands.command("migrate")(migrate)


def migrate(
    refs: list[str] | None = typer.Argument(
        None, metavar="REF", help="References or ids; every open follow-up when left out."
    ),
    named: str | None = typer.Option(None, "--from", help="Only those on the follow-up of this name."),
    to: str | None = typer.Option(
        None, "--to", help="Move to this follow-up instead of that of the same name."
    ),
    apply: bool = typer.Option(False, "--apply", help="Move them; without it nothing changes."),
    reason: str = typer.Option("", "--reason", help="Why; needed with --apply."),
    by: str = typer.Option("admin", "--by", help="Who does it; stands in the trail."),
    lang: str = typer.Option("fr", "--lang", help="fr or en."),
) -> int:
    """Show, or --apply, a move of open follow-ups to the rules in force."""
    from relay import operations

    site = shared.settings()
    page = Paper(lang != "en")

    async def work() -> Migration:
        async with shared.opened(site) as store:
            return await operations.migrate(
                site, store, refs or (), named=named, to=to, apply=apply, by=by, reason=reason
            )

    done = shared.run(work())
    if shared.chosen.json:
        shared.emit(_document(done))
    else:
        _show(page, site, done, reason)
    return 1 if done.strays or done.busy else 0


# ------------------------------------------------------------------------------------------------------------ JSON


def _document(done: Migration) -> dict[str, object]:
    """`relay threads migrate --json`."""
    stuck = [(thread, "no_followup") for thread in done.strays] + [(each, "busy") for each in done.busy]
    return {
        "ok": not stuck,
        "applied": done.applied,
        "rules": {"revision": done.rules.revision, "digest": done.rules.digest},
        "open": done.looked_at,
        "unchanged": done.unchanged,
        "moved": len(done.moves),
        "at_once": dict(Counter(move.at_once for move in done.moves if move.at_once)),
        "lost": dict(Counter(who for move in done.moves for who in move.lost)),
        "threads": [
            {
                "id": move.after.id, "reference": move.after.reference, "at_once": move.at_once,
                "lost": list(move.lost), "from": _side(move.before, move.waited),
                "to": _side(move.after, move.waits), "problem": None,
            }
            for move in done.moves
        ]
        + [
            {
                "id": thread.id, "reference": thread.reference, "at_once": None, "lost": [],
                "from": _side(thread, ()), "to": None, "problem": problem,
            }
            for thread, problem in stuck
        ],
    }  # fmt: skip


def _side(thread: Thread, timers: Sequence[Timer]) -> dict[str, object]:
    pinned, coming = thread.followup, _next(timers)
    return {
        "followup": pinned.name if pinned else None,
        "ruleset": pinned.ruleset if pinned else None,
        "state": thread.state,
        "level": thread.level,
        "steps": len(pinned.ladder) if pinned else 0,
        "next": None if coming is None else _act(thread, coming),
        "next_at": None if coming is None else coming.due,
        "deadline": thread.deadline,
    }


def _next(timers: Sequence[Timer]) -> Timer | None:
    """What the thread waits for first, its wake-up and its evidence aside."""
    acting = [timer for timer in timers if timer.kind in ("step", "close", "ack_expires")]
    return min(acting, key=lambda timer: (timer.due, timer.level), default=None)


def _act(thread: Thread, timer: Timer) -> str:
    """« remind gp », « hand_to sorties », « close », « reopen »."""
    if timer.kind == "step" and thread.followup and timer.level < len(thread.followup.ladder):
        rung = thread.followup.ladder[timer.level]
        return f"hand_to {rung.hand_to}" if rung.hand_to else f"remind {rung.remind}"
    return "close" if timer.kind == "close" else "reopen"


# ---------------------------------------------------------------------------------------------------------- people


def _show(page: Paper, site: Settings, done: Migration, reason: str) -> None:
    since = page.moment(done.rules.active_since, site.zone)
    page.line(
        page.say(
            f"Règles en vigueur : révision {done.rules.revision}, depuis le {since}",
            f"Rules in force: revision {done.rules.revision}, since {since}",
        )
    )
    for move in done.moves[:SHOWN]:
        _show_move(page, site, move)
    if len(done.moves) > SHOWN:
        more = len(done.moves) - SHOWN
        page.line()
        page.line(
            page.say(f"… et {more} autres (--json les donne tous)", f"… and {more} more (--json has all)")
        )
    page.title(page.say("Suivis ouverts", "Open follow-ups"))
    moved = page.say("déplacés", "moved") if done.applied else page.say("à déplacer", "would move")
    for words, count, style in (
        (page.say("inchangés", "unchanged"), done.unchanged, ""),
        (moved, len(done.moves), ""),
        (page.say("sans suivi de ce nom", "no such follow-up"), len(done.strays), "red"),
        (page.say("modifiés entre-temps", "changed meanwhile"), len(done.busy), "yellow"),
    ):
        if count or not style:
            figure = f"{count:>7}"
            page.line(f"{words:<26}{page.style(figure, style) if style and count else figure}", 2)
    _show_effects(page, done)
    for thread in done.strays[:SHOWN]:
        name = thread.followup.name if thread.followup else "?"
        page.line(
            page.say(
                f"{thread.reference} reste sur « {name} » : --from {name} --to AUTRE le déplacerait",
                f"{thread.reference} stays on “{name}”: --from {name} --to OTHER would move it",
            ),
            2,
        )
    for thread in done.busy[:SHOWN]:
        page.line(
            page.say(
                f"{thread.reference} changeait à cet instant : à refaire",
                f"{thread.reference} was changing at this moment: try again",
            ),
            2,
        )
    page.line()
    if done.applied:
        count = len(done.moves)
        words = page.say(f"Suivis déplacés : {count} ({reason}).", f"Follow-ups moved: {count} ({reason}).")
        page.line(f"{page.style('✓', 'green')} {page.style(words, 'bold')}")
    elif done.moves:
        page.line(
            page.say(
                'Rien n\'a changé. Pour les déplacer : relay threads migrate --apply --reason "…"',
                'Nothing has changed. To move them: relay threads migrate --apply --reason "…"',
            )
        )
    else:
        page.line(page.say("Il n'y a rien à déplacer.", "There is nothing to move."))


def _show_effects(page: Paper, done: Migration) -> None:
    at_once = Counter(move.at_once for move in done.moves if move.at_once)
    if at_once:
        said = ", ".join(f"{_at_once(page, what)} × {count}" for what, count in sorted(at_once.items()))
        page.line(f"{page.say('tout de suite :', 'at once:')} {page.style(said, 'yellow')}", 2)
    lost = Counter(who for move in done.moves for who in move.lost)
    if lost:
        said = ", ".join(f"{page.who(who)} × {count}" for who, count in sorted(lost.items()))
        words = (
            page.say("ne sont plus prévenus :", "are told no more:")
            if done.applied
            else page.say("ne seraient plus prévenus :", "would not be told any more:")
        )
        page.line(f"{words} {page.style(said, 'red')}", 2)
    spans = [
        move.after.deadline - move.before.deadline
        for move in done.moves
        if move.after.deadline and move.before.deadline and move.after.deadline != move.before.deadline
    ]
    if spans:
        earlier = sum(span.total_seconds() < 0 for span in spans)
        furthest = page.span(max(abs(span) for span in spans))
        page.line(
            page.say(
                f"échéances déplacées : {earlier} plus tôt, {len(spans) - earlier} plus tard (au plus de {furthest})",
                f"deadlines moved: {earlier} earlier, {len(spans) - earlier} later (by {furthest} at most)",
            ),
            2,
        )


def _show_move(page: Paper, site: Settings, move: Move) -> None:
    before, after = move.before.followup, move.after.followup
    names = " → ".join(dict.fromkeys(each.name for each in (before, after) if each))
    page.line()
    page.line(f"{page.style(move.after.reference, 'bold')}  {names}")
    step = tuple(
        _coming(page, site, thread, timers)
        for thread, timers in ((move.before, move.waited), (move.after, move.waits))
    )
    page.line(page.say("étape : ", "step: ") + " → ".join(dict.fromkeys(step)), 4)
    if move.before.deadline != move.after.deadline:
        ends = (
            page.moment(at, site.zone) if at else page.say("aucune", "none")
            for at in (move.before.deadline, move.after.deadline)
        )
        page.line(page.say("échéance : ", "deadline: ") + " → ".join(ends), 4)
    if move.at_once:
        page.line(
            page.say("tout de suite : ", "at once: ") + page.style(_at_once(page, move.at_once), "yellow"), 4
        )
    for who in move.lost:
        page.line(page.style(f"− {page.who(who)}", "red"), 4)


def _coming(page: Paper, site: Settings, thread: Thread, timers: Sequence[Timer]) -> str:
    """What comes next, in words: « rappel gp (2 sur 3), ven. 4/12/2026 à 18:45 »."""
    from relay.wording import Words

    timer = _next(timers)
    if timer is None:
        words = Words("fr" if page.french else "en", site.timezone)
        state = words.state(thread.state)
        return f"{state} {_quoted(page, thread.desk)}" if thread.desk else state
    when, steps = page.moment(timer.due, site.zone), len(thread.followup.ladder) if thread.followup else 0
    act, _, target = _act(thread, timer).partition(" ")
    place = page.say(f"({timer.level + 1} sur {steps})", f"({timer.level + 1} of {steps})") if target else ""
    meant = _quoted(page, target) if target else ""
    return " ".join(filter(None, (_at_once(page, act), meant, place))) + f", {when}"


def _quoted(page: Paper, name: str) -> str:
    return page.say(f"« {name} »", f"“{name}”")


def _at_once(page: Paper, what: str) -> str:
    return {
        "remind": page.say("rappel", "reminder"),
        "hand_to": page.say("remise au bureau", "handed to a desk"),
        "close": page.say("clôture", "closing"),
        "reopen": page.say("réouverture", "opened again"),
    }[what]
