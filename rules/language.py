"""The rule language as others use it: facts, the values of a rule set, and `load`.

Specification: docs/rules.md. A file becomes a `RuleSet`, or findings that each name a place and one fix.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from rules.facts import (
    FIELDS,
    NEEDS_SOMEBODY,
    UNKNOWN,
    WHEN_ABSENT,
    Facts,
    FactValue,
    Field,
    facts_as_json,
    facts_from_json,
)
from rules.keywords import mentioned
from rules.reading import FileReader
from rules.ruleset import Copy, Default, Followup, Rule, RuleSet, Site, Step, Target, Test, When
from rules.source import Finding, Report, RulesError, as_text, compose

__all__ = [
    "FIELDS",
    "NEEDS_SOMEBODY",
    "UNKNOWN",
    "WHEN_ABSENT",
    "Copy",
    "Default",
    "FactValue",
    "Facts",
    "Field",
    "Finding",
    "Followup",
    "Rule",
    "RuleSet",
    "RulesError",
    "Site",
    "Step",
    "Target",
    "Test",
    "When",
    "facts_as_json",
    "facts_from_json",
    "load",
    "mentioned",
    "observed_long",
]


def load(
    text: str | bytes, file: str, site: Site | None = None, lang: str = "fr", *, explaining: bool = False
) -> tuple[RuleSet | None, tuple[Finding, ...]]:
    """Read and check a rule file. The set is None when any finding is an error; it never raises.

    `site` None: wards, desks and rotas are not resolved, and W305 is not raised; nor is it for a site without
    any adapter. With `explaining`, findings E2xx (a doubled id, a dead rule) don't stop the set from being
    built: `rules explain` runs on it.
    """
    content, report = as_text(text, file, lang)
    root = compose(content, report)
    if root is None:
        return None, report.findings
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    # A byte-order mark belongs to the text that is kept: read again, it must have the same digest.
    kept = raw.decode("utf-8", "replace")
    rules = FileReader(report, site).rule_set(root, file, hashlib.sha256(raw).hexdigest(), kept)
    fatal = [f for f in report.findings if f.severity == "error" and not (explaining and f.code[1] == "2")]
    return (None if fatal else rules), report.findings


def observed_long(
    rules: RuleSet, seen: Mapping[str, tuple[int, int]], lang: str | None = None, *, days: int = 30
) -> tuple[Finding, ...]:
    """W302 for each rule or copy that has been in `mode: observe` for at least so many days.

    `seen`: id → (whole days since it began to be observed, notices observed since then), from the store.
    """
    report = Report(rules.file, rules.text, lang or rules.language)
    for entry in rules.every():
        age, count = seen.get(entry.id, (0, 0))
        if entry.mode == "observe" and age >= days:
            french = f"{count} avis observé{'s' if count > 1 else ''}"
            english = f"{count} notice{'' if count == 1 else 's'} observed"
            report.tell(
                "observed_long",
                (entry.line, entry.column),
                word=entry.id,
                days=age,
                count=(french, english),
            )
    return report.findings
