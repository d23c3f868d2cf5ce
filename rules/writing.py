"""Cases written for an admin: what a witness gives and what the engine says of it, put into a test file.

What stands in the file stays as it is, to the last blank: cases are only put behind the last one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Final

import yaml

from rules.engine import decide
from rules.facts import facts_as_json
from rules.ruleset import Copy, Rule, RuleSet
from rules.source import Listing, Scalar, Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rules.reach import Witness
    from rules.source import Node

USUAL_INSTANT: Final = "2026-01-06T10:00"
"""When a case without `at` happens, in the rule set's time zone: a Tuesday morning, no holiday near."""

# What YAML, and who reads it, take for one word whatever stands around it.
_PLAIN_WORD: Final = re.compile(r"(?!(?i:null)$)[^\W\d_](?:[\w./@-]*\w)?|[\d.-]*\d")
_BREAK: Final = re.compile(r"\r\n|\n|\r")


@dataclass(frozen=True, slots=True)
class Case:
    """A case as YAML: each part is written already. `name` is the plain name."""

    name: str
    parts: Mapping[str, str]

    @property
    def given(self) -> str:
        """The facts."""
        return self.parts["given"]

    def in_line(self) -> str:
        """All of it in one line."""
        return _flow(self.parts)

    def as_entry(self, indent: int, newline: str) -> str:
        """An entry of a list whose dashes stand at `indent`, a part a line."""
        lines = [f"{key}: {value}" for key, value in self.parts.items()]
        pad = " " * indent
        return f"{pad}- {lines[0]}{newline}" + "".join(f"{pad}  {line}{newline}" for line in lines[1:])


def case_for(rules: RuleSet, entry: Rule | Copy | None, found: Witness, name: str) -> Case:
    """The case that a witness of a rule or copy (None: the default) passes: it expects what the engine says."""
    decision = decide(rules, found.facts, found.at)
    expect: dict[str, object] = {"rule": decision.rule}
    if decision.why == "undecided":
        expect = {"undecided_at": decision.undecided_at, "hold": decision.hold}
    elif decision.action == "send":
        expect |= {"send": list(decision.targets), "followup": decision.followup or "none"}
    elif decision.action == "file":
        expect["file"] = True
    else:
        expect["hold"] = decision.hold
        if decision.why.startswith("floor"):
            expect["why"] = decision.why
    if isinstance(entry, Copy) and entry.mode == "on":
        expect["copy"] = sorted({target for _, target in decision.copies})
    if entry is not None and entry.mode == "observe":
        expect["observed"] = sorted(decision.observed)
    local = found.at.replace(tzinfo=None, fold=0)
    # The hour that a night has twice needs its offset.
    once = local.replace(tzinfo=rules.zone).astimezone(UTC) == found.at.astimezone(UTC)
    at = (local if once else found.at).isoformat(timespec="minutes")
    parts = {"name": as_yaml(name)}
    if at != USUAL_INSTANT:
        parts["at"] = f'"{at}"'
    parts["given"] = _flow_of(facts_as_json(found.facts))
    parts["expect"] = _flow_of(expect)
    return Case(name, parts)


def _flow(parts: Mapping[str, str]) -> str:
    return "{ " + ", ".join(f"{key}: {value}" for key, value in parts.items()) + " }" if parts else "{}"


def _flow_of(values: Mapping[str, object]) -> str:
    return _flow({key: as_yaml(value) for key, value in values.items()})


def as_yaml(value: object) -> str:
    """A value as an admin would write it, quoted where it must be."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(as_yaml, value)) + "]"
    if isinstance(value, str) and not _PLAIN_WORD.fullmatch(value):
        return json.dumps(value, ensure_ascii=not value.isprintable())
    return f"{value:f}".rstrip("0") if isinstance(value, float) and not value.is_integer() else str(value)


def only_remarks(text: str) -> bool:
    """Whether a file has nothing but comments and blank lines."""
    return all(line.lstrip().startswith("#") for line in _BREAK.split(text) if line.strip())


def has_place(root: Node) -> bool:
    """Whether cases can be put into a test file: its `tests` are a list, or nothing yet."""
    listed = (value for key, value in root.entries if key.text == "tests") if isinstance(root, Table) else ()
    return isinstance(root, Table) and all(
        isinstance(value, Listing) or (isinstance(value, Scalar) and value.empty) for value in listed
    )


def new_file(cases: Sequence[Case], remark: str, above: str = "") -> str:
    """A test file of these cases, which wants one for every rule. `remark` stands above them.

    `above` is what the file has already: comments (`only_remarks`), which stay as they are.
    """
    newline = "\r\n" if "\r\n" in above else "\n"
    if above and above[-1] not in "\r\n":
        above += newline
    body = "".join(case.as_entry(2, newline) for case in cases)
    return f"{above}# {remark}{newline}tests:{newline}{body}coverage: every-rule{newline}"


def with_cases(text: str, cases: Sequence[Case], remark: str) -> str:
    """A test file's text with cases behind its last one; `remark` is a comment above them, where one fits.

    The text is one that `rules.source.compose` reads. Raises ValueError where it has no place for a list:
    one mapping in braces, without `tests`.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    pairs = root.value if isinstance(root, yaml.MappingNode) else []
    listed = next((value for key, value in pairs if key.value == "tests"), None)
    if isinstance(listed, yaml.ScalarNode) and listed.value:
        # `~` or `null`, which a list cannot follow.
        start, end = _offset(text, listed.start_mark), _offset(text, listed.end_mark)
        return with_cases(text[:start].rstrip(" ") + text[end:], cases, remark)
    if isinstance(listed, yaml.SequenceNode) and listed.flow_style:
        return _in_brackets(text, listed, cases, newline)
    if listed is None and isinstance(root, yaml.MappingNode) and root.flow_style:
        raise ValueError("a mapping in braces without `tests`")
    indent, head = 2, ""
    if listed is None:
        offset, head = len(text), f"tests:{newline}"
    else:
        if isinstance(listed, yaml.SequenceNode):
            indent = listed.start_mark.column
        offset = _line_behind(text, _end(listed))
    if text[:offset] and text[offset - 1] not in "\r\n":
        head = newline + head
    body = "".join(case.as_entry(indent, newline) for case in cases)
    return f"{text[:offset]}{head}{' ' * indent}# {remark}{newline}{body}{text[offset:]}"


def _in_brackets(text: str, listed: yaml.SequenceNode, cases: Sequence[Case], newline: str) -> str:
    """Behind the last case of a list in brackets, whether a comma or a comment follows it or not."""
    lines = [case.in_line() for case in cases]
    if not listed.value:
        offset = _offset(text, listed.start_mark) + 1
        return f"{text[:offset]} {', '.join(lines)} {text[offset:]}"
    last = listed.value[-1]
    own_line = last.start_mark.line > listed.start_mark.line
    comma = f",{newline}{' ' * last.start_mark.column}" if own_line else ", "
    offset = _offset(text, last.end_mark)
    return text[:offset] + "".join(comma + line for line in lines) + text[offset:]


def _end(node: yaml.Node) -> yaml.Mark:
    """Where the last word of a node ends; a collection without brackets ends, for libyaml, at what comes next."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    return node.end_mark


def _offset(text: str, mark: yaml.Mark) -> int:
    starts = [0, *(found.end() for found in _BREAK.finditer(text))]
    return starts[mark.line] + mark.column if mark.line < len(starts) else len(text)


def _line_behind(text: str, mark: yaml.Mark) -> int:
    """The start of the line after a mark, or of its own when nothing stands before it (a block of text ended)."""
    offset = _offset(text, mark)
    start = max(text.rfind("\n", 0, offset), text.rfind("\r", 0, offset)) + 1
    if not text[start:offset].strip():
        return start
    found = _BREAK.search(text, offset)
    return found.end() if found else len(text)
