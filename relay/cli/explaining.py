"""`relay rules explain`: why a letter goes where it goes, from a file, from facts, or from what was decided."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from relay.cli import shared
from relay.cli.paper import Paper
from relay.errors import ConfigurationError, NotFound, Unavailable, UsageError
from relay.model import Why, is_reference
from relay.wording import Words

if TYPE_CHECKING:
    from relay.config import Settings
    from relay.store import ActiveRules, StoredDecision
    from rules.language import Facts, RuleSet, Site
    from rules.whynot import WhyNot

_ID: Final = re.compile(r"[a-z2-7]{24}")
Said = dict[str, Any]  # engine.explain's document, of many types

_ACTIONS: Final = {"send": ("ENVOYÉE", "SENT"), "hold": ("RETENUE", "HELD"), "file": ("CLASSÉE", "FILED")}
_RESULTS: Final = {
    "yes": ("oui", "yes", "green"),
    "no": ("non", "no", "dim"),
    "unknown": ("indécis", "undecided", "yellow"),
    "off": ("éteinte", "off", "dim"),
    "not_in_force": ("hors dates", "not in force", "dim"),
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be explained: facts at an instant, under a rule set; `stored` where it was decided so once."""

    rules: RuleSet
    facts: Facts
    at: datetime
    source: str = "facts"  # facts, letter (nobody is registered), registers (and directory), stored
    stored: StoredDecision | None = None
    active: ActiveRules | None = None  # the revision that decided
    deliveries: Sequence[Mapping[str, object]] = ()


def explain(
    letter: str | None = typer.Argument(
        None, help="A letter's file; or the id of an arrival or a reference, whose decision is explained."
    ),
    rules_file: Path | None = typer.Option(
        None, "--rules", help="The rule file; left out: the configured one, or the rules that decided."
    ),
    facts: str | None = typer.Option(None, "--facts", help="Facts as JSON instead of a letter."),
    at: str | None = typer.Option(None, "--at", help="The instant (site's time); now when left out."),
    why_not: str | None = typer.Option(
        None, "--why-not", help="A rule's id: the smallest change of facts with which it would decide."
    ),
    mailbox: str | None = typer.Option(
        None, "--mailbox", help="The watched mailbox a letter would have come by; left out: the only one."
    ),
    lang: str = typer.Option("fr", "--lang", help="fr or en."),
) -> int:
    """Say which rule decides, and why each earlier one did not."""
    from rules import engine, whynot
    from rules.facts import composed

    if (facts is None) == (letter is None):
        raise UsageError("name a letter, or give --facts")
    site = shared.settings_or_none()
    if site is not None and letter is not None and _names_an_arrival(letter):
        asked = shared.run(_decided(site, letter, rules_file, lang))
    else:
        rules = _rules(rules_file, site, lang)
        when = _instant(at, rules) or datetime.now(UTC)
        if facts is not None:
            asked = _Asked(rules, _given(facts), when)
        else:
            asked = _of_letter(site, letter or "", rules, when, mailbox)
    said: Said = engine.explain(asked.rules, asked.facts, asked.at)
    said["source"] = asked.source
    if asked.stored is not None:
        said["stored"] = _record(asked, said)
    found: WhyNot | None = None
    if why_not is not None:
        try:
            found = whynot.why_not(asked.rules, composed(why_not), asked.facts, asked.at)
        except KeyError:
            known = ", ".join([*(entry.id for entry in asked.rules.every()), "default"])
            raise UsageError(f"no rule « {why_not} »; there are {known}") from None
        said["why_not"] = found.as_json()
    if shared.chosen.json:
        shared.emit(said)
        return 0
    page = Paper(lang != "en")
    _show(page, asked, said)
    if found is not None:
        _show_why_not(page, found)
    return 0


# -- what is asked


def _names_an_arrival(word: str) -> bool:
    """Whether it is an envelope's id or a reference, and no file here is called so."""
    return (is_reference(word.upper()) or _ID.fullmatch(word) is not None) and not Path(word).exists()


def _rules(named: Path | None, site: Settings | None, lang: str) -> RuleSet:
    """The rule set of a file. Findings other than dead or doubled rules are told, and end the command."""
    from rules import language

    file = named or (site.rules if site else None)
    if file is None:
        raise UsageError("no configuration here: name a rule file with --rules, or give --config")
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read ({type(error).__name__})", file=str(file)) from None
    rules, findings = language.load(text, str(file), _known(site), lang, explaining=True)
    if rules is None:
        if shared.chosen.json:
            shared.emit({"ok": False, "findings": [finding.as_json() for finding in findings]})
        else:
            print("\n".join(finding.text(lang) for finding in findings))
        raise typer.Exit(1)
    return rules


def _known(site: Settings | None) -> Site | None:
    if site is None:
        return None
    from relay import ruling

    return ruling.rules_site(site)


def _instant(text: str | None, rules: RuleSet) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--at « {text} » is no time; write 2026-12-04T18:45") from None
    if (
        not 2000 <= at.year < 2100
    ):  # as in rule files: what lies beyond has no holidays, and at its end no next day
        raise UsageError(f"--at « {text} » is not of the years 2000 to 2099")
    return at.replace(tzinfo=rules.zone) if at.tzinfo is None else at


def _given(text: str) -> Facts:
    from rules import language

    try:
        given = json.loads(text)
    except ValueError:
        raise UsageError("--facts is no JSON") from None
    if not isinstance(given, dict):
        raise UsageError('--facts is one JSON object, such as {"event": "discharge"}')
    try:
        return language.facts_from_json(given)
    except ValueError as error:
        raise UsageError(str(error)) from None


def _of_letter(
    site: Settings | None, letter: str, rules: RuleSet, at: datetime, mailbox: str | None
) -> _Asked:
    """A file's facts: by the site's registers where there are any, else of the letter alone."""
    from relay import intake, reading, recognition
    from relay.model import Outcome

    file = Path(letter)
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read ({type(error).__name__})", file=letter) from None
    opened = shared.unsealed(raw)
    if opened is not None and opened.why is not None:
        print(f"relay: whatever the rules say, such a mail is held: {opened.why.value}", file=sys.stderr)
    kind = recognition.recognise(reading.read_file(file.name, opened.raw if opened else raw)).outcome
    if kind is not Outcome.NOTICE:
        print(
            f"relay: no rule is asked about this, the relay takes it for: {kind.value} (relay recognise)",
            file=sys.stderr,
        )
    if site is not None:
        wards = [name for name, table in site.adapters.items() if table.ward is not None]
        if mailbox is not None and mailbox not in wards:
            raise UsageError(f"no watched mailbox « {mailbox} »; there are {', '.join(wards) or 'none'}")
        chosen = mailbox or (wards[0] if len(wards) == 1 else "")
        try:
            found = shared.run(_by_registers(site, file.name, raw, rules, at, chosen))
        except (Unavailable, ConfigurationError) as error:
            print(f"relay: the registers were not asked: {error}", file=sys.stderr)
        else:
            if found is not None:
                return _Asked(rules, found, at, "registers")
    if opened is not None:
        raw = opened.raw
    signed = opened.signed if opened is not None else None
    return _Asked(rules, intake.facts_of(file.name, raw, rules, at, signed=signed), at, "letter")


async def _by_registers(
    site: Settings, name: str, raw: bytes, rules: RuleSet, at: datetime, mailbox: str
) -> Facts | None:
    from relay import daemon
    from relay.clock import SystemClock
    from relay.intake import Intake

    async with shared.opened(site) as store:
        here = daemon.open_site(site, rules)
        asking = Intake(store, {}, lambda: here, SystemClock(), daemon.opener(site))
        return await asking.facts_as_if(name, raw, mailbox, at)


async def _decided(site: Settings, name: str, named: Path | None, lang: str) -> _Asked:
    """A stored decision under the rules that made it, or under those of a file."""
    from relay import ruling
    from rules import language

    async with shared.opened(site) as store:
        try:
            stored = await store.decision(name)
        except NotFound:
            raise NotFound(
                f"{name} is no file, and no decision is kept about an arrival of that name"
            ) from None
        active = await store.rules_of(stored.ruleset) if stored.ruleset else None
        if named is not None:
            rules: RuleSet | None = _rules(named, site, lang)
        elif active is not None:
            where = f"{site.rules.name}@{active.revision}"
            rules, _ = language.load(active.text, where, ruling.rules_site(site), lang, explaining=True)
        else:
            rules = None
        if rules is None:
            raise NotFound("the rules that decided this are kept no more; name a file with --rules")
        try:
            facts = language.facts_from_json(stored.facts)
        except ValueError as error:
            raise UsageError(f"these facts are of another release: {error}") from None
        deliveries = await store.deliveries(envelope=stored.envelope)
    return _Asked(rules, facts, stored.at, "stored", stored, active if named is None else None, deliveries)


def _record(asked: _Asked, said: Said) -> Said:
    """What was recorded, and whether the trace rebuilt from it says the same."""
    from rules import engine

    stored = asked.stored
    assert stored is not None  # noqa: S101 - asked for stored decisions alone
    recorded = (stored.rule, stored.action, stored.why)
    same = recorded == (said["rule"], said["action"], said["why"])
    released = False
    if not same and asked.active is not None:
        # A desk or an admin who releases a letter asks the rules that send alone.
        sending = replace(
            asked.rules, rules=tuple(rule for rule in asked.rules.rules if rule.action == "send")
        )
        again = engine.decide(sending, asked.facts, asked.at)
        released = recorded == (again.rule, again.action, again.why)
    return {
        "envelope": stored.envelope,
        "reference": stored.reference,
        "at": stored.at,
        "ruleset": stored.ruleset,
        "revision": asked.active.revision if asked.active else None,
        "rule": stored.rule,
        "action": stored.action,
        "why": stored.why,
        "undecided": list(stored.undecided),
        "observed": list(stored.observed),
        "same": same,
        "released": released,
        "deliveries": [
            {key: each[key] for key in ("id", "to", "adapter", "purpose", "state", "why")}
            for each in asked.deliveries
        ],
    }


# -- showing it


def _show(page: Paper, asked: _Asked, said: Said) -> None:
    stored = asked.stored
    if stored is not None:
        name = f"Réf. {stored.reference}" if stored.reference else stored.envelope
        revision = f" · {page.say('révision', 'revision')} {asked.active.revision}" if asked.active else ""
        page.line(
            page.style(name, "bold")
            + f" · {page.say('décidé', 'decided')} {page.moment(stored.at, asked.rules.zone)}{revision}"
        )
    else:
        page.line(page.style(Path(asked.rules.file).name, "bold") + f" · {page.moment(said['at'])}")
    _show_facts(page, said["facts"], asked.source)
    _show_trace(page, said["trace"], said)
    _show_decision(page, asked, said)
    if stored is not None:
        _show_record(page, said["stored"])


_SOURCES: Final = {
    "facts": ("Les faits donnés", "The facts as given"),
    "letter": (
        "Ce que dit la lettre (ni registre des patients, ni annuaire)",
        "What the letter says (no register of patients, no directory)",
    ),
    "registers": (
        "Ce que l'on sait : la lettre, le registre des patients, l'annuaire",
        "What is known: the letter, the register of patients, the directory",
    ),
    "stored": ("Ce que l'on savait au moment de décider", "What was known when it was decided"),
}


def _show_facts(page: Paper, facts: Mapping[str, object], source: str) -> None:
    from rules.facts import FIELDS, WHEN_ABSENT

    page.title(page.say(*_SOURCES[source]))
    rows = [(name, page.fact(value)) for name, value in facts.items()]
    for name, value in WHEN_ABSENT.items():
        if name not in facts:
            rows.append((name, f"{value} {page.say('(la lettre se tait)', '(the letter says nothing)')}"))
    for row in rows:
        unknown = facts.get(row[0]) == "unknown"
        page.line(f"{row[0]:<11} {page.style(row[1], 'yellow') if unknown else row[1]}", 2)
    absent = [name for name in FIELDS if name not in facts and name not in WHEN_ABSENT]
    if absent:
        page.line(page.style(f"{page.say('absents :', 'absent:')} {', '.join(absent)}", "dim"), 2)


def _show_trace(page: Paper, trace: Sequence[Said], said: Said) -> None:
    page.title(
        page.say(
            "Les règles, dans l'ordre ; la première qui convient décide",
            "The rules in order; the first that fits decides",
        )
    )
    width = max((len(entry["id"]) for entry in trace), default=0)
    rules = [entry for entry in trace if entry["kind"] == "rule"]
    for entry in rules[: _place(rules) + 1]:
        _show_entry(page, entry, width)
    after = [entry["id"] for entry in rules[_place(rules) + 1 :]]
    if after:
        words = page.say("pas consultées :", "not asked:")
        page.line(page.style(f"{words} {', '.join(after)}", "dim"), 2)
    if said["rule"] == "default":
        page.line(
            page.style("→ ", "bold") + page.say("aucune ne convient : `default`", "none fits: `default`"), 2
        )
    copies = [entry for entry in trace if entry["kind"] == "also"]
    if copies:
        page.title(
            page.say("Les copies ; chacune qui convient s'ajoute", "The copies; each that fits is added")
        )
        for entry in copies:
            _show_entry(page, entry, width)


def _place(rules: Sequence[Said]) -> int:
    return next((number for number, entry in enumerate(rules) if entry["decides"]), len(rules))


def _show_entry(page: Paper, entry: Said, width: int) -> None:
    french, english, style = _RESULTS[entry["result"]]
    mark = page.style(f"{page.say(french, english):<10}", style)
    name = f"{entry['id']:<{width}}"
    place = page.style(f"{Path(entry['file']).name}:{entry['line']}", "dim")
    mode = f" {page.style('observe', 'cyan')}" if entry["mode"] == "observe" else ""
    arrow = page.style("  ◀", "bold") if entry["decides"] else ""
    page.line(f"{mark}{page.style(name, 'bold') if entry['decides'] else name}  {place}{mode}{arrow}", 2)
    if entry["result"] in ("off", "not_in_force"):
        return
    for matcher in entry["matchers"]:
        _show_matcher(page, matcher, entry, 12)


def _show_matcher(page: Paper, matcher: Said, entry: Said, indent: int) -> None:
    french, english, style = _RESULTS[matcher["result"]]
    result = page.style(page.say(french, english), style)
    if "groups" in matcher:
        page.line(f"{matcher['field']} · {result}", indent)
        for group in matcher["groups"]:
            for number, inner in enumerate(group["matchers"]):
                _show_matcher(page, inner, entry, indent + 2 + 2 * bool(number))
        return
    wanted = page.say("attendu", "expected")
    found = page.say("trouvé", "found")
    line = page.style(f"l.{matcher['line']}", "dim") if matcher["line"] != entry["line"] else ""
    page.line(
        f"{matcher['field']}{page.say(' :', ':')} {wanted} {page.fact(matcher['expected'])} · "
        f"{found} {page.fact(matcher['found'])} · {result}  {line}",
        indent,
    )


def _show_decision(page: Paper, asked: _Asked, said: Said) -> None:
    rules = asked.rules
    page.title(page.say("Décision", "Decision"))
    action = page.say(*_ACTIONS[said["action"]])
    style = {"send": "green", "hold": "yellow", "file": "dim"}[said["action"]]
    by = page.say(f"par « {said['rule']} »", f"by “{said['rule']}”")
    why = Words("fr" if page.french else "en").why(Why(said["why"]))
    page.line(f"{page.style(action, 'bold', style)} {by} ({why})", 2)
    if said["reason"]:
        page.line(said["reason"], 2)
    rows: list[tuple[str, str, str, str]] = []
    copies = [(each["target"], page.say("copie", "copy")) for each in said["copies"]]
    for name, kind in [*((name, "") for name in said["targets"]), *copies]:
        target = rules.targets[name]
        until = said["not_before"].get(name)
        quiet = ""
        if until:
            quiet = page.say(f"pas avant {page.moment(until)}", f"not before {page.moment(until)}")
            quiet += f" (quiet: {target.quiet})"
        rows.append(
            (
                name,
                page.who(target.who),
                f"{', '.join(target.via)} · {target.carries}",
                " ".join(filter(None, (kind, quiet))),
            )
        )
    if rows:
        page.columns(rows, 4, {0: "bold"})
    if said["followup"] and "ack_due" in said:
        due = page.moment(said["ack_due"])
        page.line(
            page.say(
                f"suite « {said['followup']} » : réponse attendue avant {due}",
                f"follow-up “{said['followup']}”: an answer is due by {due}",
            ),
            4,
        )
        for step in said["ladder"]:
            what = (
                page.say(f"rappel à {step['remind']}", f"remind {step['remind']}")
                if step["remind"]
                else page.say(f"remis à {step['hand_to']}", f"hand to {step['hand_to']}")
            )
            clock = page.style(f"(+{step['after']}, {step['clock']})", "dim")
            page.line(f"{page.moment(step['at'])}  {what} {clock}", 6)
    for key, words in (
        ("observed", page.say("auraient aussi convenu, en observation :", "would have matched, observed:")),
        ("undecided", page.say("laissées de côté, faute de savoir :", "passed over, undecided:")),
    ):
        if said[key]:
            page.line(page.style(f"{words} {', '.join(said[key])}", "cyan"), 2)


def _show_record(page: Paper, record: Said) -> None:
    page.title(page.say("Ce qui a été enregistré", "What was recorded"))
    if record["same"]:
        words = page.say("la même décision", "the same decision")
        page.line(f"{page.style('✓', 'green')} {words}", 2)
    elif record["released"]:
        page.line(
            page.say(
                f"libérée par une personne : seules les règles d'envoi ont été consultées → « {record['rule']} »",
                f"released by a person: only rules that send were asked → “{record['rule']}”",
            ),
            2,
        )
    else:
        page.line(
            page.style("≠ ", "yellow")
            + page.say(
                f"« {record['rule']} » ({record['action']}, {record['why']}) : ce ne sont pas les mêmes règles",
                f"“{record['rule']}” ({record['action']}, {record['why']}): these are not the same rules",
            ),
            2,
        )
    rows = [
        (each["to"], each["purpose"], each["adapter"], each["state"], each["why"] or "")
        for each in record["deliveries"]
    ]
    if rows:
        page.columns(rows, 4)


def _show_why_not(page: Paper, found: WhyNot) -> None:
    page.title(page.say(f"Pourquoi pas « {found.rule} » ?", f"Why not “{found.rule}”?"))
    if found.obstacle is not None:
        words = {
            "off": page.say("Elle est éteinte (`mode: off`).", "It is off (`mode: off`)."),
            "observe": page.say(
                "Elle est en observation (`mode: observe`) : notée, jamais appliquée, jusqu'à sa promotion.",
                "It is observed (`mode: observe`): noted, never applied, until it is promoted.",
            ),
        }[found.obstacle]
        page.line(words, 2)
    if found.decides:
        page.line(page.say("C'est elle qui décide.", "It is the one that decides."), 2)
        return
    if found.changes is None:
        page.line(
            page.say(
                "Aucun changement de faits ne suffit : d'autres règles prennent tout ce qu'elle prendrait.",
                "No change of facts is enough: other rules take all that it would take.",
            )
            if found.complete
            else page.say(
                "Aucun changement simple n'a été trouvé (motifs de texte, ou trop de combinaisons).",
                "No simple change was found (text patterns, or too many combinations).",
            ),
            2,
        )
        return
    count = len(found.changes)
    if count:
        page.line(
            page.say(
                "Il suffirait d'un autre fait :"
                if count == 1
                else f"Il faudrait {count} autres faits, pas moins :",
                "One other fact is enough:" if count == 1 else f"It takes {count} other facts, no fewer:",
            ),
            2,
        )
        page.columns(
            [(each.field, page.fact(each.found), "→", page.fact(each.wanted)) for each in found.changes],
            4,
            {3: "bold"},
        )
    if found.decision is not None:
        action = page.say(*_ACTIONS[found.decision.action]).lower()
        targets = ", ".join(found.decision.targets)
        told = page.say(f"Elle serait alors {action}", f"It would then be {action}")
        page.line(f"{told}{page.say(' :', ':')} {targets}." if targets else f"{told}.", 2)
