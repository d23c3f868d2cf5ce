"""The tests beside the rules: cases of facts with what must come of them, and their coverage."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rules import reach
from rules.difference import because, difference, relevant
from rules.engine import Decision, ack_due, decide, leaves_at
from rules.facts import FIELDS, UNKNOWN, FactValue, Field, facts_as_json, typed
from rules.meant import FRENCH, instant_meant
from rules.nodes import FOLLOWUPS, KEYWORDS, RULES, TARGETS, Reader, whole
from rules.reach import Witness
from rules.ruleset import RuleSet
from rules.source import Finding, Listing, Node, Report, Scalar, Table, as_text, compose, shown
from rules.writing import (
    USUAL_INSTANT,
    Case,
    as_yaml,
    case_for,
    has_place,
    new_file,
    only_remarks,
    with_cases,
)

EXPECTED: Final = (
    "rule",
    "action",
    "send",
    "hold",
    "file",
    "followup",
    "why",
    "undecided_at",
    "ack_due",
    "copy",
    "observed",
)
_EXPLAINED: Final = 200
_WITH_OFFSET: Final = len("2026-12-04T18:45:00+01:00")
_FILE: Final = ("le fichier de tests", "the test file")
_CASE: Final = ("un cas", "a case")
WHYS: Final = ("rule", "default", "undecided", "floor_identity", "floor_consent", "floor_gp")


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case as it ran; `got` has the keys of `expected`, and always `rule`. `finding` when it failed."""

    name: str
    ok: bool
    expected: Mapping[str, object]
    got: Mapping[str, object]
    finding: Finding | None = None

    def as_json(self) -> dict[str, object]:
        """The shape of `relay rules test --json` (docs/interface.md, Commands)."""
        return {"name": self.name, "ok": self.ok, "expected": dict(self.expected), "got": dict(self.got)}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Every case that could be read and run, and every finding: T001 of those that failed, E304, file errors."""

    results: tuple[CaseResult, ...]
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the rules may go in force as far as their tests say."""
        return all(r.ok for r in self.results) and not any(f.severity == "error" for f in self.findings)


@dataclass(frozen=True, slots=True)
class _Case:
    name: str
    place: Node
    at: datetime
    given: Mapping[str, FactValue]
    expected: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Written:
    """A test file's text with the cases it lacked; `names` are the new ones, `left` the ids without any."""

    text: str
    names: tuple[str, ...]
    left: tuple[str, ...]


def run(rules: RuleSet, text: str | bytes, file: str, lang: str | None = None) -> Outcome:
    """Run the test file that stands beside a rule set. Never raises; a case that can't be read does not run."""
    content, report = as_text(text, file, lang or rules.language)
    root = compose(content, report)
    if root is None:
        return Outcome((), report.findings)
    sound = not report.failed
    reading = _Cases(report, rules)
    cases, coverage = reading.cases(root)
    if not sound:
        # Cases out of a file that does not stand as YAML would prove whatever is left of them.
        return Outcome((), report.findings)
    results: list[CaseResult] = []
    covered: set[str] = set()
    for case in cases:
        decision = decide(rules, case.given, case.at)
        covered |= reach.reached(decision)
        results.append(_judge(rules, case, decision, report))
    findings = report.findings
    if coverage:
        findings += _uncovered(rules, covered, reading.names, "fr" if report.french else "en")
    return Outcome(tuple(results), findings)


def without_tests(file: str, lang: str = "fr") -> Finding:
    """W304, for a rule file that has no tests beside it."""
    return Report(file, "", lang).tell("no_tests", (1, 1), beside=tests_beside(file))


def tests_beside(file: str) -> str:
    """The name of the test file of a rule file: `x.yaml` → `x.test.yaml`."""
    stem, dot, suffix = file.rpartition(".")
    return f"{stem}.test.{suffix}" if dot and "/" not in suffix else f"{file}.test.yaml"


def missing(
    rules: RuleSet, text: str | bytes | None, file: str, lang: str | None = None
) -> Written | Outcome:
    """A test file (None: there is none yet) with a case for each rule, each copy and the default that lacks one.

    What stands in it stays as it is. An Outcome instead, with the findings, where it can't be read. Raises
    ValueError where it has no place for more.
    """
    content, report = as_text(text or "", file, lang or rules.language)
    bare = not report.failed and only_remarks(content)
    root = None if bare else compose(content, report)
    if not bare and (root is None or report.failed):
        return Outcome((), report.findings)
    reading = _Cases(report, rules)
    covered: set[str] = set()
    for case in reading.cases(root)[0] if root is not None else ():
        covered |= reach.reached(decide(rules, case.given, case.at))
    if root is not None and not has_place(root):
        return Outcome((), report.findings)
    added: list[Case] = []
    left: list[str] = []
    taken = set(reading.names)
    for entry in (*(each for each in rules.every() if each.mode != "off"), None):
        name = "default" if entry is None else entry.id
        found = reach.answer(rules, entry) if name not in covered else None
        if isinstance(found, Witness):
            added.append(case_for(rules, entry, found, _new_name(name, taken)))
            covered |= reach.reached(decide(rules, found.facts, found.at))
        elif name not in covered:
            left.append(name)
    remark = report.say(
        "Écrit d'après ce que font les règles, non d'après ce qu'elles devraient faire : à relire.",
        "Written from what the rules do, not from what they should do: read it again.",
    )
    if bare:
        content = new_file(added, remark, above=content)
    elif added:
        content = with_cases(content, added, remark)
    return Written(content, tuple(case.name for case in added), tuple(left))


def _new_name(name: str, taken: set[str]) -> str:
    """A name that no case has yet; noted as taken."""
    new, number = name, 1
    while new in taken:
        number += 1
        new = f"{name} ({number})"
    taken.add(new)
    return new


def _uncovered(rules: RuleSet, covered: set[str], taken: Collection[str], lang: str) -> tuple[Finding, ...]:
    """E304 for what no case reaches, with one that does; what nothing can reach is told elsewhere."""
    report = Report(rules.file, rules.text, lang)
    for entry in (*(each for each in rules.every() if each.mode != "off"), None):
        name = "default" if entry is None else entry.id
        place = (rules.default.line, 1) if entry is None else (entry.line, entry.column)
        found = reach.answer(rules, entry) if name not in covered else None
        if isinstance(found, Witness):
            case = case_for(rules, entry, found, _new_name(name, set(taken)))
            report.tell("no_case_but", place, word=name, facts=case.given, case=case.in_line())
        elif name not in covered and found is None:
            report.tell("no_case", place, word=name)
    return report.findings


def _fact(entry: Field, value: str | bool | float) -> FactValue:
    if entry.kind == "set":
        return frozenset({str(value)})
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _judge(rules: RuleSet, case: _Case, decision: Decision, report: Report) -> CaseResult:
    got = {"rule": decision.rule, **{key: _got(rules, case, decision, key) for key in case.expected}}
    wrong = [key for key, value in case.expected.items() if got[key] != value]
    if not wrong:
        return CaseResult(case.name, ok=True, expected=case.expected, got=got)
    # The rule first: it explains the rest.
    wrong.sort(key=lambda key: key != "rule")
    wanted = case.expected.get("rule")
    fields = relevant(rules, case.given, decision, wanted)
    facts = {key: value for key, value in facts_as_json(case.given).items() if key in fields or not fields}
    named = " ".join(f"{key}={as_yaml(value)}" for key, value in facts.items()) or "—"
    # It takes a search each; of hundreds of cases that fail alike nobody reads why.
    why = ""
    if report.count < _EXPLAINED:
        why = because(
            rules, case.given, case.at, decision, wanted, due="ack_due" in wrong, french=report.french
        )

    def words(values: Mapping[str, object]) -> str:
        return ", ".join(f"{key}={as_yaml(values[key])}" for key in wrong)

    finding = report.tell(
        "case_failed",
        case.place,
        details=(
            *difference(case.expected, got, wrong, french=report.french),
            *([f"→ {why}"] if why else []),
        ),
        word=shown(case.name),
        expected=words(case.expected),
        got=words(got),
        facts=named,
        rule=decision.rule,
        line=decision.line,
        why=decision.why,
    )
    return CaseResult(case.name, ok=False, expected=case.expected, got=got, finding=finding)


def _got(rules: RuleSet, case: _Case, decision: Decision, key: str) -> object:
    if key == "send":
        return sorted(decision.targets) if decision.action == "send" else []
    if key == "hold":
        return decision.hold or "none"
    if key == "file":
        filed = decision.action == "file"
        return decision.reason if filed and not isinstance(case.expected[key], bool) else filed
    if key == "copy":
        return sorted(target for _, target in decision.copies)
    if key == "observed":
        return sorted(decision.observed)
    if key == "ack_due":
        if decision.followup is None:
            return "none"
        sent = leaves_at(rules, decision, case.given, case.at)
        due = ack_due(rules, decision.followup, sent).astimezone(rules.zone)
        wanted = case.expected[key]
        if isinstance(wanted, str) and len(wanted) == _WITH_OFFSET:
            return due.isoformat(timespec="seconds")
        local = due.isoformat(timespec="seconds")[:19]
        return local.removesuffix(":00") if isinstance(wanted, str) and len(wanted) == 16 else local
    value = {
        "action": decision.action,
        "rule": decision.rule,
        "followup": decision.followup,
        "why": decision.why,
        "undecided_at": decision.undecided_at,
    }[key]
    return "none" if value is None else value


class _Cases(Reader):
    """The reading of a test file."""

    def __init__(self, report: Report, rules: RuleSet) -> None:
        super().__init__(report)
        self.rules = rules
        self.names: dict[str, Node] = {}
        deciding = [rule.id for rule in rules.rules]
        self._known: Mapping[str, Mapping[str, None]] = {
            "rule": dict.fromkeys([*deciding, "default"]),
            "undecided_at": dict.fromkeys([*deciding, "none"]),
            "hold": dict.fromkeys([*rules.targets, "none"]),
            "followup": dict.fromkeys([*rules.followups, "none"]),
            "send": dict.fromkeys(rules.targets),
            "copy": dict.fromkeys(rules.targets),
            "observed": dict.fromkeys([*(entry.id for entry in rules.every()), "default"]),
        }

    def cases(self, root: Node) -> tuple[list[_Case], bool]:
        """The cases that could be read, and whether every rule must have one."""
        top = self.table(root, _FILE, ("tests", "coverage"))
        if top is None:
            return [], False
        coverage = False
        if "coverage" in top:
            coverage = self.one_of(top["coverage"][1], "coverage", ("every-rule", "none")) == "every-rule"
        listed = top["tests"][1] if "tests" in top else None
        if isinstance(listed, Table) or (isinstance(listed, Scalar) and not listed.empty):
            self.tell("no_list", listed, of="tests")
            return [], coverage
        if not isinstance(listed, Listing) or not listed.items:
            self.missing(root, "tests", _FILE, "tests: [ … ]")
            return [], coverage
        return [case for item in listed.items if (case := self._case(item)) is not None], coverage

    def _case(self, node: Node) -> _Case | None:
        before = self.report.count
        found = self.table(node, _CASE, ("name", "at", "given", "expect"))
        if found is None:
            return None
        for needed, hint in (
            ("name", "name: …"),
            ("given", "given: { … }"),
            ("expect", "expect: { rule: … }"),
        ):
            if needed not in found and whole(node, found):
                self.missing(node, needed, _CASE, hint)
        if not {"name", "given", "expect"} <= found.keys():
            return None
        scalar = self.word(found["name"][1], "name")
        name = scalar.text if scalar else ""
        first = self.names.setdefault(name, node)
        if scalar is not None and first is not node:
            self.tell("case_twice", scalar, word=shown(name), first=first.line)
        at = self._instant(found["at"][1], "at") if "at" in found else datetime.fromisoformat(USUAL_INSTANT)
        given = self._given(found["given"][1])
        expected = self._expected(*found["expect"])
        if self.report.count > before or self.report.full or at is None:
            return None
        if at.tzinfo is None:
            at = at.replace(tzinfo=self.rules.zone)
        return _Case(name, node, at, given, expected)

    def _instant(self, node: Node, of: str) -> datetime | None:
        scalar = self.word(node, of)
        if scalar is None:
            return None
        try:
            at = datetime.fromisoformat(scalar.text)
        except ValueError:
            at = None
        if at is None or not 2000 <= at.year < 2100:
            self.tell("instant", scalar, instant_meant(scalar.text[:60]), word=shown(scalar.text), of=of)
            return None
        return at

    def _given(self, node: Node) -> dict[str, FactValue]:
        if isinstance(node, Scalar) and node.empty:
            return {}
        given: dict[str, FactValue] = {}
        for name, (_, value) in (self.table(node, "given", tuple(FIELDS)) or {}).items():
            field = FIELDS[name]
            if field.kind == "set" or name == "ward":
                if isinstance(value, Listing) and not value.items:
                    given[name] = frozenset()
                    continue
                scalars = self.words(value, name)
                words = [scalar.text for scalar in scalars]
                if field.kind == "set" and words != ["unknown"]:
                    for each in scalars:
                        if each.text not in self.rules.keywords:
                            self.undefined(each, KEYWORDS, self.rules.keywords)
                if words:
                    given[name] = UNKNOWN if words == ["unknown"] else frozenset(words)
                    if name == "ward" and isinstance(value, Scalar):
                        given[name] = UNKNOWN if words == ["unknown"] else words[0]
                continue
            scalar = self.word(value, name)
            if scalar is None:
                continue
            if scalar.text == "unknown":
                given[name] = UNKNOWN
                continue
            read = typed(field, scalar.text)
            if read is None:
                values = {"yesno": ("yes", "no", "unknown"), "number": ("75", "unknown")}.get(field.kind)
                self.unknown_value(scalar, name, values or (*field.values, "unknown"))
            else:
                given[name] = scalar.text if field.kind == "text" else _fact(field, read)
        return given

    def _expected(self, key: Scalar, node: Node) -> dict[str, object]:
        if (isinstance(node, Scalar) and node.empty) or (isinstance(node, Table) and not node.entries):
            self.tell("expect_empty", key)
            return {}
        expected: dict[str, object] = {}
        for name, (_, value) in (self.table(node, "expect", EXPECTED) or {}).items():
            if name in ("send", "copy", "observed"):
                if isinstance(value, Listing) and not value.items:
                    expected[name] = []
                    continue
                scalars = self.words(value, name)
                for scalar in scalars:
                    if scalar.text not in self._known[name]:
                        self._undefined(name, scalar)
                expected[name] = sorted({s.text for s in scalars})
                continue
            one = self.word(value, name)
            if one is None:
                continue
            expected[name] = one.text
            if name in self._known and one.text not in self._known[name]:
                self._undefined(name, one)
            elif name in ("action", "why"):
                self.one_of(value, name, ("send", "hold", "file") if name == "action" else WHYS)
            elif name == "file":
                said, word = {"yes": True, "true": True, "no": False, "false": False}, one.text.casefold()
                expected[name] = said.get(word, one.text)
                if word not in said and {"yes", "no"} & set(FRENCH.get(word, ())):
                    # As a reason it would look, in the difference, like what was obtained.
                    self.unknown_value(one, name, ("yes", "no"))
            elif name == "ack_due" and one.text != "none":
                at = self._instant(one, name)
                if at is not None and at.tzinfo is not None:
                    # Its offset stays: one hour of the year comes twice.
                    expected[name] = at.astimezone(self.rules.zone).isoformat(timespec="seconds")
                elif at is not None:
                    expected[name] = at.isoformat(timespec="seconds")[: 19 if at.second else 16]
        return expected

    def _undefined(self, of: str, scalar: Scalar) -> None:
        nouns = {"rule": RULES, "undecided_at": RULES, "observed": RULES, "followup": FOLLOWUPS}
        self.undefined(scalar, nouns.get(of, TARGETS), self._known[of])
