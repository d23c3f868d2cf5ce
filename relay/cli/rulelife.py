"""`relay rules preview|apply|rollback|promote|history`: the life of a change, from its effect to its undoing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import typer

from relay.cli import shared
from relay.cli.paper import Paper
from relay.errors import ConfigurationError, NotFound, Refused, Stale, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from relay.config import Settings
    from relay.ruling import Checked, OnDisk, Weighed
    from relay.store import ActiveRules, Store
    from rules.language import Finding, RuleSet
    from rules.replaying import Flow
    from rules.weakening import Compared

DAYS: Final = "7d"
FILE = typer.Argument(None, help="The rule file; the configured one when left out.")
BY = typer.Option("admin", "--by", help="Who does it; stands in the history.")
LANG = typer.Option("fr", "--lang", help="fr or en.")
SINCE = typer.Option(
    DAYS, "--since", help="Replay what was decided from this date, time, or this long ago (7d)."
)
ACCEPT = typer.Option(
    False, "--accept", help="Also when somebody is told no longer, or more is held than before."
)


def register(commands: typer.Typer) -> None:
    """Add these commands to `relay rules`."""
    for command in (preview, apply, rollback, promote, history, counts):
        commands.command(command.__name__)(command)


# ------------------------------------------------------------------------------------------------------- commands


def preview(file: Path | None = FILE, since: str = SINCE, lang: str = LANG) -> int:
    """Say what a changed rule file would have done with the notices of the last days."""
    site = shared.settings()
    page = Paper(lang != "en")

    async def work() -> int:
        from relay import ruling

        checked = _checked(site, file or site.rules, lang)
        if checked.rules is None:
            return _refused(checked.findings, lang)
        async with shared.opened(site) as store:
            active, before = await ruling.in_force(site, store)
            weighed = await _weigh(site, store, before, checked.rules, since)
            if shared.chosen.json:
                shared.emit(_document(weighed, active, checked.rules))
                return 0
            _head(page, checked.file.name, checked.rules, active)
            _show(page, weighed)
            _verdict(page, weighed, active, checked.rules)
        return 0

    return shared.run(work())


def apply(
    file: Path | None = FILE,
    reason: str = typer.Option(..., "--reason", help="Why; stands in the history and the trail."),
    accept: bool = ACCEPT,
    by: str = BY,
    since: str = SINCE,
    lang: str = LANG,
) -> int:
    """Put a rule file in force, when it checks, its tests pass and it takes nothing away, or with --accept."""
    site = shared.settings()
    _say_why(reason)
    checked = _checked(site, file or site.rules, lang)
    if checked.rules is None:
        return _refused(checked.findings, lang)
    rules = checked.rules

    async def work() -> int:
        async with shared.opened(site) as store:
            return await _put(
                site, store, rules, checked.file.name, reason, by, since, lang,
                accept=accept, configured=checked.file.resolve() == site.rules.resolve(),
            )  # fmt: skip

    return shared.run(work())


def rollback(
    revision: str | None = typer.Argument(
        None,
        help="The revision to go back to (relay rules history), or the beginning of its digest; left out: the one before.",
    ),
    only: bool = typer.Option(
        False, "--only", help="Take back the change of that revision alone; later changes stay."
    ),
    write: bool = typer.Option(False, "--write", help="Write the result into the configured rule file too."),
    reason: str = typer.Option("", "--reason", help="Why; stands in the history and the trail."),
    by: str = BY,
    since: str = SINCE,
    lang: str = LANG,
) -> int:
    """Put earlier rules in force again: all of a revision, or with --only without the change it brought."""
    site = shared.settings()
    page = Paper(lang != "en")

    async def work() -> int:
        from relay import ruling
        from rules import language

        async with shared.opened(site) as store:
            meant, past = await _meant(store, revision, only=only)
            text = _without(past, meant, page) if only else meant.text
            rules, findings = language.load(text, site.rules.name, ruling.rules_site(site), lang)
            if rules is None:
                return _refused(findings, lang)
            number = meant.revision
            name = page.say(f"révision {number}", f"revision {number}")
            undone = page.say(f"sans la modification {number}", f"without change {number}")
            words = reason or (undone if only else page.say(f"retour à la {name}", f"back to {name}"))
            code = await _put(
                site, store, rules, undone if only else name, words, by, since, lang,
                accept=True, undo=True, written=text if write else None, configured=write,
            )  # fmt: skip
            if code == 0 and not shared.chosen.json:
                _about_file(page, site, rules, written=write, lang=lang)
            return code

    return shared.run(work())


def promote(
    rule: str = typer.Argument(help="The id of a rule or copy in `mode: observe`."),
    reason: str = typer.Option(..., "--reason", help="Why; stands in the history and the trail."),
    accept: bool = ACCEPT,
    by: str = BY,
    since: str = SINCE,
    lang: str = LANG,
) -> int:
    """Let an observed rule act: `mode: observe` becomes `on` in the configured file, and the file is applied."""
    from relay import ruling
    from rules.facts import composed
    from rules.merging import promoted

    site = shared.settings()
    _say_why(reason)
    disk, before = _read(site.rules)
    try:
        text = promoted(before.decode("utf-8"), composed(rule))
    except (KeyError, UnicodeDecodeError):
        raise NotFound(f"no rule « {rule} » in mode: observe stands in {site.rules.name}") from None
    changed = ruling.OnDisk(text.encode(), disk.tests)
    checked = ruling.check(site.rules, changed, ruling.rules_site(site), lang)
    if checked.rules is None:
        return _refused(checked.findings, lang)
    rules = checked.rules

    async def work() -> int:
        async with shared.opened(site) as store:
            active = await store.rules_active()
            if active is not None and active.digest != disk.rules_digest:
                raise Refused(f"{site.rules.name} has other changes that are not in force: apply them first")
            return await _put(
                site, store, rules, site.rules.name, reason, by, since, lang,
                accept=accept, written=text, configured=True,
            )  # fmt: skip

    return shared.run(work())


def history(
    show: str | None = typer.Argument(None, help="A revision or the beginning of a digest: print its text."),
    limit: int = typer.Option(20, "--limit", min=1, help="At most this many, the latest first."),
    lang: str = LANG,
) -> int:
    """List the rules that were in force, with who put them there and why."""
    from relay import ruling
    from relay.wording import Words

    site = shared.settings()
    page = Paper(lang != "en")

    async def work() -> int:
        async with shared.opened(site) as store:
            if show is not None:
                meant, _ = await _meant(store, show, only=False)
                print(meant.text, end="")
                return 0
            past = await store.rules_history(limit)
            words = Words("fr" if page.french else "en", site.timezone)
            differs = await ruling.differing(site, store, words)
            rows = _rows(past)
            if shared.chosen.json:
                shared.emit(rows)
                return 0
            if not past:
                page.line(page.say("aucune règle n'a encore été en vigueur", "no rules were in force yet"))
                return 0
            page.columns(
                [
                    (
                        ("● " if number == 0 else "  ") + str(each.revision),
                        page.moment(each.active_since, site.zone),
                        each.digest[:8],
                        each.by,
                        page.say("pris du fichier", "from the file")
                        if each.reason == "file"
                        else each.reason,
                    )
                    for number, each in enumerate(past)
                ],
                0,
                {2: "dim"},
            )
            if differs:
                page.line()
                page.line(page.style(differs, "yellow"))
        return 0

    return shared.run(work())


def counts(lang: str = LANG) -> int:
    """How often each rule in force decided, was undecided, copied, or would have matched while observed."""
    from relay import ruling

    site = shared.settings()
    page = Paper(lang != "en")

    async def work() -> int:
        async with shared.opened(site) as store:
            _, rules = await ruling.in_force(site, store)
            found = ruling.counted(rules, await store.rule_counts())
        names = [] if rules is None else [*(entry.id for entry in rules.every()), "default"]
        gone = sorted(found.keys() - set(names))
        rows = [_counts_of(rules, name, found.get(name, {})) for name in (*names, *gone)]
        if shared.chosen.json:
            shared.emit(rows)
            return 0
        if not rows:
            page.line(page.say("aucune règle n'a encore été en vigueur", "no rules were in force yet"))
            return 0
        head = ("", "mode", *(page.say(*_COUNTED[what]) for what in _COUNTED))
        page.columns(
            [
                head,
                *(
                    (str(row["rule"]), str(row["mode"] or "—"), *(str(row[what] or "·") for what in _COUNTED))
                    for row in rows
                ),
            ],
            0,
        )
        return 0

    return shared.run(work())


_COUNTED: Final = {
    "decided": ("a décidé", "decided"),
    "undecided": ("indécise", "undecided"),
    "copied": ("a copié", "copied"),
    "observed": ("observée", "observed"),
    "passed": ("laissée de côté", "passed over"),
}


def _counts_of(rules: RuleSet | None, name: str, found: Mapping[str, int]) -> dict[str, object]:
    entry = None if rules is None else rules.rule(name)
    mode = entry.mode if entry is not None else "on" if name == "default" else None
    return {"rule": name, "mode": mode, **{what: found.get(what, 0) for what in _COUNTED}}


# ---------------------------------------------------------------------------------------------------------- steps


def _say_why(reason: str) -> None:
    if not reason.strip():
        raise UsageError("--reason must say why")


def _checked(site: Settings, file: Path, lang: str) -> Checked:
    from relay import ruling

    return ruling.check(file, _read(file)[0], ruling.rules_site(site), lang)


def _read(file: Path) -> tuple[OnDisk, bytes]:
    """A rule file with the tests beside it, and its text. Raises ConfigurationError where there is none."""
    from relay import ruling

    disk = ruling.on_disk(file)
    if disk.text is None:
        raise ConfigurationError("cannot be read", file=str(file))
    return disk, disk.text


def _refused(findings: tuple[Finding, ...], lang: str) -> int:
    if shared.chosen.json:
        shared.emit({"ok": False, "findings": [finding.as_json() for finding in findings]})
    else:
        for finding in findings:
            print(finding.text(lang))
        page = Paper(lang != "en")
        page.line(page.style(page.say("Rien n'a changé.", "Nothing has changed."), "bold"))
    return 1


async def _weigh(site: Settings, store: Store, before: RuleSet | None, after: RuleSet, since: str) -> Weighed:
    from relay import ruling

    now = datetime.now(UTC)
    start = shared.since(since, site.timezone) or now - timedelta(days=7)
    return await ruling.weigh(
        store, ruling.rules_site(site), before, after, now=now, since=start, most=1_000_000
    )


async def _put(
    site: Settings,
    store: Store,
    rules: RuleSet,
    name: str,
    reason: str,
    by: str,
    since: str,
    lang: str,
    *,
    accept: bool,
    undo: bool = False,
    written: str | None = None,
    configured: bool = False,
) -> int:
    """Weigh a rule set and put it in force, or say why it waits. `written` replaces the configured file then.

    `configured`: the set is what that file says, or says then.
    """
    from relay import ruling
    from relay.planning import followups_changed

    page = Paper(lang != "en")
    active, before = await ruling.in_force(site, store)
    if active is not None and active.digest == rules.digest:
        if written is not None:
            shared.write_whole(site.rules, written)
        return await _already(site, store, active, "" if undo else reason, by, page)
    weighed = await _weigh(site, store, before, rules, since)
    document = _document(weighed, active, rules)
    if not weighed.harmless and not accept:
        if shared.chosen.json:
            shared.emit({"ok": False, "error": "needs --accept", "changed": False, "preview": document})
        else:
            _head(page, name, rules, active)
            _show(page, weighed)
            _verdict(page, weighed, active, rules)
        return 1
    stood = ruling.on_disk(site.rules).text
    if written is not None:
        shared.write_whole(site.rules, written)
    try:
        revision = await ruling.put_in_force(
            site, store, rules, by=by, reason=reason, after=active.revision if active else 0,
            note=weighed.note(), now=datetime.now(UTC), configured=configured,
        )  # fmt: skip
    except Stale:
        now = await store.rules_active()
        if now is not None and now.digest == rules.digest:
            return await _already(site, store, now, "" if undo else reason, by, page)
        if written is not None and stood is not None:
            shared.write_whole(site.rules, stood)  # or the relay would take it over from the file
        raise Refused(
            "other rules were put in force at this moment; look again (relay rules history)"
        ) from None
    unwritten = _schemas_again(site)
    if shared.chosen.json:
        shared.emit(
            {
                "ok": True, "revision": revision, "digest": rules.digest, "changed": True,
                "accepted": not weighed.harmless, "preview": document,
            }
        )  # fmt: skip
        return 0
    _head(page, name, rules, active)
    _show(page, weighed)
    page.line()
    done = page.say(
        f"En vigueur : révision {revision} ({reason}).", f"In force: revision {revision} ({reason})."
    )
    page.line(f"{page.style('✓', 'green')} {page.style(done, 'bold')}")
    if not undo and active is not None:
        page.line(
            page.style(
                page.say(
                    f"Pour revenir en arrière : relay rules rollback {active.revision}",
                    f"To go back: relay rules rollback {active.revision}",
                ),
                "dim",
            )
        )
    if before is not None and followups_changed(before, rules):
        words = page.say(
            "Les suivis ouverts gardent leurs délais ; relay threads migrate montre ce que ceux-ci y changeraient.",
            "Open follow-ups keep their times; relay threads migrate shows what these would change.",
        )
        page.line(page.style(words, "dim"))
    _say_old(page, unwritten)
    return 0


async def _already(
    site: Settings, store: Store, active: ActiveRules, reason: str, by: str, page: Paper
) -> int:
    """Say that the rules are in force. A `reason` is noted where the relay, which knows none, was faster."""
    noted = reason and await store.give_rules_a_reason(active.revision, by=by, reason=reason)
    unwritten = _schemas_again(site)
    if shared.chosen.json:
        shared.emit({"ok": True, "revision": active.revision, "digest": active.digest, "changed": False})
        return 0
    _say_old(page, unwritten)
    page.line(
        page.say(
            f"Ces règles sont déjà en vigueur (révision {active.revision}).",
            f"These rules are in force already (revision {active.revision}).",
        )
    )
    if noted:
        page.line(
            page.say(
                f"Le relais les avait prises du fichier ; le motif est noté ({reason}).",
                f"The relay had taken them from the file; the reason is noted ({reason}).",
            )
        )
    return 0


def _schemas_again(site: Settings) -> list[Path]:
    """Write the schemas beside the rule file anew where `rules schema --write` put them; those that could not be.

    Else editors would go on checking with the names of the file as it was.
    """
    from relay import ruling
    from rules import schema

    disk = ruling.on_disk(site.rules)
    if disk.text is None:
        return []
    shipped = schema.files()
    unwritten: list[Path] = []
    for name, text in schema.files(ruling.rules_site(site), schema.names_in(disk.text)).items():
        beside = site.rules.parent / name
        try:
            stands = beside.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        if stands in (text, shipped[name]):
            continue
        try:
            shared.write_whole(beside, text)
        except ConfigurationError:
            unwritten.append(beside)
    return unwritten


def _say_old(page: Paper, schemas: list[Path]) -> None:
    for file in schemas:
        words = page.say(
            f"{file.name} n'a pas pu être réécrit : les éditeurs vérifient avec d'anciens noms.",
            f"{file.name} could not be rewritten: editors check with old names.",
        )
        page.line(page.style(words, "yellow"))


async def _meant(
    store: Store, name: str | None, *, only: bool
) -> tuple[ActiveRules, tuple[ActiveRules, ...]]:
    """The revision that is meant, and all there are. Raises NotFound, and UsageError where none can be told."""
    past = await store.rules_history(1_000)
    return _among(past, name, only=only), past


def _among(past: tuple[ActiveRules, ...], name: str | None, *, only: bool) -> ActiveRules:
    if not past:
        raise NotFound("no rules were ever in force")
    if name is None:
        if only:
            return past[0]
        for each in past:
            if each.digest != past[0].digest:
                return each
        raise NotFound("no other rules were ever in force")
    for each in past:
        if str(each.revision) == name:
            return each
    fitting = [each for each in past if len(name) >= 6 and each.digest.startswith(name.lower())]
    if not fitting:
        raise NotFound(f"no revision {name}; relay rules history lists them")
    return fitting[0]


def _without(past: tuple[ActiveRules, ...], meant: ActiveRules, page: Paper) -> str:
    """The rules in force without what that revision changed. Raises Refused where a later change touches the same."""
    from rules.merging import Overlap, take_back

    place = past.index(meant)
    if place + 1 == len(past):
        raise Refused(f"revision {meant.revision} is the first: there is nothing before it")
    try:
        return take_back(past[0].text, meant.text, past[place + 1].text)
    except Overlap as overlap:
        raise Refused(
            page.say(
                f"une modification plus récente touche les mêmes lignes (l.{overlap.line}) : reprenez le fichier à la main",
                f"a later change touches the same lines (line {overlap.line}): edit the file by hand",
            )
        ) from None


# -------------------------------------------------------------------------------------------------------- showing


def _rows(past: tuple[ActiveRules, ...]) -> list[dict[str, object]]:
    return [
        {
            "revision": each.revision, "digest": each.digest, "active_since": each.active_since,
            "until": past[number - 1].active_since if number else None, "by": each.by, "reason": each.reason,
            "active": number == 0,
        }
        for number, each in enumerate(past)
    ]  # fmt: skip


def _document(weighed: Weighed, active: ActiveRules | None, rules: RuleSet) -> dict[str, object]:
    """`relay rules preview --json`."""
    from rules.facts import facts_as_json

    compared = weighed.compared
    return {
        "ok": True,
        "since": weighed.since,
        "from": None if active is None else {"revision": active.revision, "digest": active.digest},
        "to": {"digest": rules.digest},
        **weighed.replay.as_json(),
        "any_facts": None
        if compared is None
        else {
            "complete": compared.complete,
            "weaker": [
                {
                    "from": each.rule, "to": each.instead, "held": each.loss.held,
                    "lost": list(map(str, each.loss.people)),
                    "facts": None if each.facts is None else facts_as_json(each.facts), "at": each.at,
                }
                for each in compared.weaker
            ],
        },
        "needs_acceptance": not weighed.harmless,
    }  # fmt: skip


def _head(page: Paper, name: str, rules: RuleSet, active: ActiveRules | None) -> None:
    name = page.style(name, "bold")
    if active is None:
        page.line(
            f"{name} · "
            + page.say(
                "aucune règle n'est en vigueur : tout est retenu", "no rules are in force: everything is held"
            )
        )
        return
    since = page.moment(active.active_since, rules.zone)
    page.line(
        f"{name} "
        + page.say(
            f"à côté des règles en vigueur (révision {active.revision}, depuis le {since})",
            f"beside the rules in force (revision {active.revision}, since {since})",
        )
    )


def _show(page: Paper, weighed: Weighed) -> None:
    replay = weighed.replay
    page.title(
        page.say(
            f"Les avis reçus depuis le {page.moment(weighed.since.astimezone(replay.after.zone))}",
            f"The notices received since {page.moment(weighed.since.astimezone(replay.after.zone))}",
        )
    )
    many = replay.flows
    for flow in many[:20]:
        _show_flow(page, flow)
    if len(many) > 20:
        page.line(page.say(f"… et {len(many) - 20} autres", f"… and {len(many) - 20} more"), 2)
    counts = [
        (page.say("inchangés", "unchanged"), replay.unchanged, ""),
        (page.say("changés", "changed"), replay.replayed - replay.unchanged, ""),
        (page.say("non rejouables", "cannot be replayed"), replay.not_replayable, "yellow"),
        (page.say("deviendraient retenus", "would be held"), replay.held, "red"),
        (page.say("ne seraient plus retenus", "would be held no longer"), replay.released, "green"),
    ]
    for words, count, style in counts:
        if count or words == counts[0][0]:
            figure = f"{count:>7}"
            page.line(f"{words:<26}{page.style(figure, style) if style else figure}", 2)
    for people, words, style in (
        (replay.lost, page.say("ne seraient plus prévenus :", "would not be told any more:"), "red"),
        (replay.gained, page.say("seraient prévenus en plus :", "would be told as well:"), "green"),
    ):
        if people:
            said = ", ".join(f"{page.who(who)} × {count}" for who, count in sorted(people.items()))
            page.line(f"{words} {page.style(said, style)}", 2)
    if replay.earlier or replay.later:
        span = page.span(replay.furthest)
        page.line(
            page.say(
                f"échéances déplacées : {replay.earlier} plus tôt, {replay.later} plus tard (au plus de {span})",
                f"deadlines moved: {replay.earlier} earlier, {replay.later} later (by {span} at most)",
            ),
            2,
        )


def _show_flow(page: Paper, flow: Flow) -> None:
    unit = page.say("avis", "notices" if flow.count != 1 else "notice")
    names = ", ".join(f"#{name}" for name in flow.examples) + (
        ", …" if flow.count > len(flow.examples) else ""
    )
    held = {"hold": page.say(" (retenu)", " (held)"), "file": page.say(" (classé)", " (filed)")}
    before = flow.before.rule + (
        held.get(flow.before.action, "") if flow.before.action != flow.after.action else ""
    )
    after = flow.after.rule + (
        held.get(flow.after.action, "") if flow.before.action != flow.after.action else ""
    )
    page.line(f"{before} → {page.style(after, 'bold')} : {flow.count} {unit} ({names})", 2)
    for sign, people, style in (("−", flow.lost, "red"), ("+", flow.gained, "green")):
        for who in people:
            page.line(page.style(f"{sign} {page.who(who)}", style), 6)


def _verdict(page: Paper, weighed: Weighed, active: ActiveRules | None, rules: RuleSet) -> None:
    if weighed.compared is not None:
        page.title(page.say("Et tout avis qui pourrait arriver", "And any notice that could arrive"))
        _show_compared(page, weighed.compared)
    page.line()
    if active is not None and active.digest == rules.digest:
        page.line(page.say("Ce sont les règles en vigueur.", "These are the rules in force."))
    elif weighed.harmless:
        page.line(
            page.say(
                'Rien ne s\'y oppose : relay rules apply --reason "…"',
                'Nothing stands in the way: relay rules apply --reason "…"',
            )
        )
    else:
        page.line(
            page.style(page.say("Attend votre accord : ", "Waits for your agreement: "), "bold", "yellow")
            + 'relay rules apply --accept --reason "…"'
        )


def _show_compared(page: Paper, compared: Compared) -> None:
    from rules.facts import facts_as_json

    if compared.harmless:
        words = page.say(
            "personne ne perd de message, rien de plus n'est retenu",
            "nobody loses a message, nothing more is held",
        )
        page.line(f"{page.style('✓', 'green')} {words}", 2)
    for each in compared.weaker:
        lost = ", ".join(page.who(str(person)) for person in each.loss.people)
        what = (
            page.say("serait retenu", "would be held")
            if each.loss.held
            else page.say(f"{lost} ne serait plus prévenu", f"{lost} would not be told")
        )
        way = each.rule if each.rule == each.instead else f"{each.rule} → {each.instead}"
        page.line(f"{page.style('✗', 'red')} {way} : {what}", 2)
        if each.facts is not None:
            facts = ", ".join(
                f"{key}: {page.fact(value)}" for key, value in facts_as_json(each.facts).items()
            )
            page.line(page.style(f"{page.say('par exemple', 'for instance')} {{ {facts} }}", "dim"), 6)
    if not compared.complete:
        page.line(
            page.say(
                "Trop de différences pour les comparer toutes ; d'autres pertes sont possibles.",
                "Too many differences to compare them all; there may be further losses.",
            ),
            2,
        )


def _about_file(page: Paper, site: Settings, rules: RuleSet, *, written: bool, lang: str) -> None:
    from relay import ruling

    disk = ruling.on_disk(site.rules)
    if disk.rules_digest == rules.digest:
        words = page.say(f"{site.rules.name} dit la même chose.", f"{site.rules.name} says the same.")
    elif written:
        words = page.say(f"{site.rules.name} a été réécrit.", f"{site.rules.name} was rewritten.")
    else:
        words = page.say(
            f"{site.rules.name} garde son texte ; il ne comptera qu'une fois modifié ou appliqué. --write l'aurait réécrit.",
            f"{site.rules.name} keeps its text; it counts once changed or applied. --write would have rewritten it.",
        )
    page.line(page.style(words, "dim"))
    if disk.rules_digest != rules.digest:
        return
    # The tests are not of the history: they may ask for what the change had brought.
    checked = ruling.check(site.rules, disk, ruling.rules_site(site), lang)
    if checked.error is not None:
        said = page.say("Les tests à côté ne vont plus avec", "The tests beside it no longer go with it")
        page.line(page.style(f"{said}{page.say(' :', ':')} {checked.first(lang)}", "yellow"))
