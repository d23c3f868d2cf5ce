"""What a failed case shows: expected and obtained side by side, and why the rules answer otherwise."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from rules.engine import Decision, explain, leaves_at
from rules.facts import Facts

if TYPE_CHECKING:
    from rules.ruleset import RuleSet

_DAYS: Final = (
    ("lun.", "mar.", "mer.", "jeu.", "ven.", "sam.", "dim."),
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
)
_HEAD: Final = (("attendu", "obtenu"), ("expected", "obtained"))
_SIGNS: Final = {"gte": "≥", "lte": "≤", "gt": ">", "lt": "<"}
_WIDEST: Final = 44
_INSTANT: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d(:\d\d([+-]\d\d:\d\d)?)?\Z", re.ASCII)


def difference(
    expected: Mapping[str, object], got: Mapping[str, object], wrong: Sequence[str], *, french: bool
) -> tuple[str, ...]:
    """A line for each key that differs, in columns under a head; lists say what is missing and what is more."""
    rows = [("", *_HEAD[not french], "")]
    for key in wrong:
        wanted, came = expected[key], got[key]
        rows.append(
            (key, _cell(wanted, french=french), _cell(came, french=french), _sets(wanted, came, french))
        )
    widths = [min(max(len(row[column]) for row in rows), _WIDEST) for column in range(3)]
    return tuple(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )


def _cell(value: object, *, french: bool) -> str:
    if isinstance(value, bool):
        return ("oui" if french else "yes") if value else ("non" if french else "no")
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "—"
    text = str(value)
    if _INSTANT.match(text):
        day = datetime.fromisoformat(text)
        return f"{_DAYS[not french][day.weekday()]} {text.replace('T', ' ')}"
    return {"none": "—"}.get(text, text)


def _sets(wanted: object, came: object, french: bool) -> str:
    if not (isinstance(wanted, list) and isinstance(came, list)):
        return ""
    less = ", ".join(each for each in wanted if each not in came)
    more = ", ".join(each for each in came if each not in wanted)
    said = [less and (f"{less} en moins" if french else f"{less} missing")]
    said.append(more and (f"{more} en plus" if french else f"{more} more"))
    return " ; ".join(filter(None, said)) if french else "; ".join(filter(None, said))


def relevant(rules: RuleSet, facts: Facts, decision: Decision, expected: object) -> tuple[str, ...]:
    """The fields of the facts that tell the rule that decided from the one that was expected."""
    if decision.undecided_field is not None:
        return (decision.undecided_field,)
    if decision.why.startswith("floor_"):
        return (decision.why.removeprefix("floor_"),)
    one, other = rules.rule(decision.rule), rules.rule(str(expected))
    mine = {(test.field, str(test.words)) for test in one.when.every_test()} if one else set()
    theirs = {(test.field, str(test.words)) for test in other.when.every_test()} if other else set()
    apart, asked = ({field for field, _ in tests} for tests in (mine ^ theirs, mine | theirs))
    return tuple(name for name in facts if name in apart) or tuple(name for name in facts if name in asked)


def because(
    rules: RuleSet,
    facts: Facts,
    at: datetime,
    decision: Decision,
    expected: object,
    *,
    due: bool,
    french: bool,
) -> str:
    """Why the expected rule did not decide, what held the notice, or, with `due`, from when its answer is due.

    "" where there is nothing to say.
    """

    def say(fr: str, en: str) -> str:
        return fr if french else en

    if decision.why == "undecided":
        field, rule = decision.undecided_field, decision.undecided_at
        return say(
            f"`{field}` est illisible : « {rule} » (l.{decision.line}) ne peut trancher, et retient",
            f"`{field}` is unknown: “{rule}” (line {decision.line}) can't tell, and holds",
        )
    if decision.why.startswith("floor_"):
        return say(
            f"« {decision.rule} » (l.{decision.line}) enverrait, mais aucune règle ne passe outre : {decision.reason}",
            f"“{decision.rule}” (line {decision.line}) would send, but no rule overrides this: {decision.reason}",
        )
    if expected is None or expected == decision.rule:
        if decision.followup is None or not due:
            return ""
        followup = rules.followups[decision.followup]
        sent = leaves_at(rules, decision, facts, at).astimezone(rules.zone)
        day = _cell(sent.isoformat(timespec="minutes")[:16], french=french)
        return say(
            f"« {followup.name} » : {followup.ack_within} sur l'horloge `{followup.clock}`, depuis l'envoi {day}",
            f"“{followup.name}”: {followup.ack_within} on the clock `{followup.clock}`, from the sending {day}",
        )
    trace = explain(rules, facts, at)["trace"]
    entry = next((e for e in trace if e["id"] == expected), None) if isinstance(trace, list) else None
    if entry is None:
        return say(
            f"« {decision.rule} » (l.{decision.line}) prend cet avis avant `default`",
            f"“{decision.rule}” (line {decision.line}) takes this notice before the default",
        )
    where = f"« {expected} » (l.{entry['line']})" if french else f"“{expected}” (line {entry['line']})"
    match entry["result"]:
        case "yes" | "unknown" if entry["mode"] == "observe":
            return say(
                f"{where} est en `mode: observe` : elle est notée et n'agit pas",
                f"{where} is in `mode: observe`: it is noted and does not act",
            )
        case "yes":
            return say(
                f"{where} conviendrait aussi, mais « {decision.rule} » (l.{decision.line}) vient avant",
                f"{where} would match as well, but “{decision.rule}” (line {decision.line}) comes first",
            )
        case "off":
            return say(f"{where} est en `mode: off`", f"{where} is in `mode: off`")
        case "not_in_force":
            return say(f"{where} n'est pas en vigueur ce jour-là", f"{where} is not in force on that day")
        case "unknown":
            return say(f"{where} ne pourrait trancher", f"{where} could not tell")
        case _:
            return say(f"{where} ne convient pas : ", f"{where} does not match: ") + _unmet(entry, say)


def _unmet(entry: Mapping[str, object], say: Callable[[str, str], str]) -> str:
    """The first matcher of a rule that is a sure no."""
    matchers = entry["matchers"]
    told = [each for each in matchers if each["result"] == "no"] if isinstance(matchers, list) else []
    unmet: Mapping[str, object] = told[0] if told else {}
    field = str(unmet.get("field", ""))
    if "groups" in unmet:
        return say(
            {"any": "aucun des cas de `any`", "all": "`all` n'est pas rempli", "unless": "`unless` l'écarte"}[
                field
            ],
            {"any": "no case of `any`", "all": "`all` is not met", "unless": "`unless` excludes it"}[field],
        )
    wanted, found = unmet.get("expected"), unmet.get("found")
    listed = ", ".join(map(str, wanted)) if isinstance(wanted, list) else wanted
    if isinstance(wanted, dict):
        listed = ", ".join(f"{_SIGNS.get(sign, sign)} {bound}" for sign, bound in wanted.items())
    came = say("absent", "absent") if found is None else found
    return say(f"`{field}` attendu {listed}, ici {came}", f"`{field}` expected {listed}, here {came}")
