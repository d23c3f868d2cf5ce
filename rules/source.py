"""YAML with positions: a text becomes nodes that know their line and column, or findings that do.

Only the plain subset is admitted: no aliases, anchors, tags, merge keys, duplicate keys or second documents.
Scalars stay raw text; whoever reads a field types it, so `no`, `17:00` and `0123` mean what they look like.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from unicodedata import category, east_asian_width, normalize

import yaml

from rules.words import CLOSED, DID_YOU_MEAN, OPENED, PARSER, REPLACE, WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Severity: TypeAlias = Literal["error", "warning"]

MAX_BYTES: Final = 4_000_000
MAX_NODES: Final = 500_000
"""Words and collections of a file. 10,000 rules take some 2 MB and 260,000 of them, and load in two seconds."""
MAX_FINDINGS: Final = 10_000
"""Of one file: what has more of them is no rule file, and its findings must not take the memory of the relay."""
_MAX_DEPTH: Final = 16
_WIDTH: Final = 100
_LONG_LINE: Final = 2_000
_BREAK: Final = re.compile(r"\r\n|\n|\r")
_GAP: Final = re.compile(r"[ \t\r\n]+")
# What no admin types on purpose: control characters, lone surrogates, line separators that editors do not
# count, marks without width, and those that make a line read otherwise than it is (Unicode TR36 §3.2).
_HIDDEN: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028\u2029\u202a-\u202e\u2060-\u2069"
    "\ud800-\udfff\ufeff\ufffe\uffff]"
)
_WITHIN: Final = re.compile(rf"(?<!:){_HIDDEN.pattern}(?=[\w\"'])")
# No-break spaces come with text pasted from a word processor; YAML takes them for letters.
_TAB: Final = re.compile(r"(?:\A|(?<=[\r\n]))[ ]*([\t\xa0\u202f])(?=[^\r\n]*[^\s])")
_FOR_A_GAP: Final = re.compile(r"[ ]*(?:-|[\w-]+:)([\xa0\u202f])")
_APOSTROPHE: Final = re.compile(r"'\w")
# After a syntax error only what stands on its own is told of the part before it: a name or a key that is
# missing there may stand behind the error.
_SURE: Final = frozenset({"E101", "E102", "E104", "E107", "E113", "E120", "E130", "E131"})


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong, or doubtful, at one place of a file. Lines and columns count from 1, in characters.

    `message` and `fix` are in the language the file was checked for. `meant`: the word that stands at the
    place, and the one that was probably meant instead. `details`: further lines for people, before the fix.
    """

    code: str
    severity: Severity
    file: str
    line: int
    column: int
    message: str
    fix: str
    source_line: str = ""
    meant: tuple[str, str] | None = None
    details: tuple[str, ...] = ()

    def text(self, lang: str = "fr") -> str:
        """`file:line:col CODE message`, the line itself, a caret under the place, details, and the fix."""
        said = [f"{self.file}:{self.line}:{self.column} {self.code} {self.message}"]
        if self.source_line.strip():
            number, line, place = str(self.line), self.source_line, self.column - 1
            if place > _WIDTH:
                line, place = "…" + line[place - _WIDTH // 2 :], _WIDTH // 2 + 1
            line = line if len(line) <= place + _WIDTH else line[: place + _WIDTH - 1] + "…"
            said.append(f"  {number} | {line}")
            said.append(f"  {' ' * len(number)} | {''.join(map(_blank, line[:place]))}^")
        said += [f"  {line}" for line in self.details]
        if self.fix:
            said.append(f"  {'Correction :' if lang == 'fr' else 'Fix:'} {self.fix}")
        return "\n".join(said)

    def as_json(self) -> dict[str, str | int]:
        """The shape of `relay rules check --json` (docs/interface.md, Commands)."""
        return {
            "code": self.code,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "fix": self.fix,
        }


def _blank(character: str) -> str:
    """What is as wide as a character on a terminal: an accent of its own takes no room, an ideograph two places."""
    if character == "\t" or character.isascii():
        return "\t" if character == "\t" else " "
    if category(character) in ("Mn", "Me"):
        return ""
    return "  " if east_asian_width(character) in ("W", "F") else " "


class RulesError(Exception):
    """A rule file that must not be put in force; `findings` says why, errors and warnings in file order."""

    def __init__(self, findings: Iterable[Finding]) -> None:
        self.findings = tuple(findings)
        first = next((f for f in self.findings if f.severity == "error"), None)
        super().__init__(first.text().splitlines()[0] if first else "")


@dataclass(frozen=True, slots=True)
class Scalar:
    """A word or a text; `plain` when it was written without quotes."""

    line: int
    column: int
    text: str
    plain: bool = True

    @property
    def empty(self) -> bool:
        """Whether nothing, or YAML's null, was written."""
        return self.plain and self.text in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True, slots=True)
class Listing:
    """A YAML sequence."""

    line: int
    column: int
    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A YAML mapping, its keys single and in order."""

    line: int
    column: int
    entries: tuple[tuple[Scalar, Node], ...]


Node: TypeAlias = Scalar | Listing | Table


class Report:
    """Collects the findings of one file, in one language: all of them, or 10,000 and one that says there are more."""

    def __init__(self, file: str, text: str, lang: str = "fr") -> None:
        self.file = file
        self.unread = False
        """Whether the text must not even be parsed."""
        self.cut: int | None = None
        """The line from which on the file could not be read as YAML."""
        self.quoted = 0, 0
        """The first and last line of the last text in quotes that has several."""
        self.french = lang != "en"
        self.lines = _BREAK.split(text.removeprefix("\ufeff"))
        self._findings: dict[Finding, None] = {}
        self._beyond: Finding | None = None
        self._errors = 0

    def say(self, fr: str, en: str) -> str:
        """The words in the report's language."""
        return fr if self.french else en

    def tell(
        self,
        entry: str,
        at: Node | tuple[int, int],
        guess: str | None = None,
        details: tuple[str, ...] = (),
        **words: object,
    ) -> Finding:
        """Note a finding: `entry` is one of `rules.words`, filled with `words`, pairs being (fr, en).

        A `guess` at what was meant ends the message and becomes the fix.
        """
        if self._beyond is not None and self.full:
            return self._beyond
        code, *texts = WORDS[entry]
        line, column = at if isinstance(at, tuple) else (at.line, at.column)
        english = not self.french
        filled = {
            name: value[english] if isinstance(value, tuple) else value for name, value in words.items()
        }
        message = texts[english].format(**filled)
        fix = texts[2 + english].format(**filled)
        if guess is not None:
            message += DID_YOU_MEAN[english].format(guess=guess)
            fix = REPLACE[english].format(guess=guess, **filled)
        severity: Severity = "warning" if code.startswith("W") else "error"
        shown_line = ""
        if line <= len(self.lines) and column <= _LONG_LINE:
            # A terminal would obey some of them.
            shown_line = _HIDDEN.sub("\ufffd", self.lines[line - 1][: column + _WIDTH])
        word = str(filled.get("word", ""))
        meant = (word, guess) if guess and shown_line[column - 1 :].startswith(word) else None
        finding = Finding(code, severity, self.file, line, column, message, fix, shown_line, meant, details)
        told = self.cut is None or (line < self.cut and code in _SURE)
        if told and finding not in self._findings:
            self._errors += severity == "error"
            if len(self._findings) < MAX_FINDINGS:
                self._findings[finding] = None
            elif self._beyond is None or severity == "error":
                self._say_there_are_more(finding)
        return finding

    def _say_there_are_more(self, first: Finding) -> None:
        """An error among those that are dropped makes it an error: nothing is put in force by half."""
        code, *texts = WORDS["too_many" if first.severity == "error" else "too_many_doubts"]
        english = not self.french
        self._beyond = replace(
            first, code=code, message=texts[english], fix=texts[2 + english], meant=None, details=()
        )

    @property
    def findings(self) -> tuple[Finding, ...]:
        """In file order; at the end that there are more, where there are."""
        ordered = sorted(self._findings, key=lambda f: (f.line, f.column, f.code))
        return (*ordered, *([self._beyond] if self._beyond is not None else []))

    @property
    def failed(self) -> bool:
        """Whether any of them is an error."""
        return self._errors > 0

    @property
    def full(self) -> bool:
        """Whether further errors are dropped: to read on is of no use."""
        return self._beyond is not None and self._beyond.severity == "error"

    @property
    def count(self) -> int:
        """How many were told."""
        return len(self._findings)


def shown(word: str) -> str:
    """A word as quoted in a message: on one line, short, and nothing in it that does not show."""
    word = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(_GAP.split(word[:500])))
    return word if len(word) <= 60 else word[:59] + "…"


def as_text(raw: str | bytes, file: str, lang: str = "fr") -> tuple[str, Report]:
    """Decode a file, a leading byte-order mark taken off, and open its report.

    The report carries an error at the exact place when it is too large, is not UTF-8, or has hidden characters
    or tabs; what is only badly written is read on all the same, so that its other mistakes are told at once.
    """
    size = len(raw if isinstance(raw, bytes) else raw.encode("utf-8", errors="replace"))
    if size > MAX_BYTES:
        # Whatever it is, no more than what is shown of it is looked at.
        head = raw[:_LONG_LINE]
        head = head.decode("utf-8", errors="replace") if isinstance(head, bytes) else head
        report = Report(file, head.removeprefix("\ufeff"), lang)
        report.unread = True
        report.tell("too_large", (1, 1))
        return "", report
    bad: int | None = None
    if isinstance(raw, bytes):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            # One character a byte: places stay true, and accents mostly as well.
            bad = len(raw[: error.start].decode("utf-8").removeprefix("\ufeff"))
            text = raw[: error.start].decode("utf-8") + raw[error.start :].decode("cp1252", "replace")
    else:
        text = raw
    text = text.removeprefix("\ufeff")
    report = Report(file, text, lang)
    if bad is not None:
        report.tell("not_utf8", next(_places(text, [bad])))
    # One more than is told: that there are more is told as well.
    hidden = [*islice(_HIDDEN.finditer(text), MAX_FINDINGS + 1)]
    if bad is not None and hidden:
        # Not a text at all.
        report.unread = True
        return text, report
    for found, place in zip(hidden, _places(text, (each.start() for each in hidden)), strict=True):
        report.tell("hidden_character", place, name=f"U+{ord(found[0]):04X}")
    tabs = [*islice(_TAB.finditer(text), MAX_FINDINGS + 1)]
    for found, place in zip(tabs, _places(text, (each.start(1) for each in tabs)), strict=True):
        report.tell("tab" if found[1] == "\t" else "no_break_space", place)
    return text, report


def _places(text: str, offsets: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Line and column of each offset; they go upwards, and the text is gone through once."""
    line, start, at = 1, 0, 0
    for offset in offsets:
        for ended in _BREAK.finditer(text, at, offset):
            line, start = line + 1, ended.end()
        at = offset
        yield line, offset - start + 1


def compose(text: str, report: Report) -> Node | None:
    """The text's one document, or None with at least one error in the report. Never raises.

    Behind a syntax error nothing can be read; what stood before it is answered, and `report.cut` is set.
    """
    if report.unread:
        return None
    if report.failed:
        # Every place stays. What nobody sees within a word is no part of it, so that the name is known all the same.
        text = _HIDDEN.sub(" ", _WITHIN.sub("\ufffd", _TAB.sub(lambda found: " " * len(found[0]), text)))
    stack: list[_Open] = []
    try:
        return _compose(text, report, stack)
    except yaml.MarkedYAMLError as error:
        _unreadable(error, report)
    except yaml.YAMLError:
        report.tell("syntax", (1, 1), problem=PARSER[""])
        return None
    while len(stack) > 1:
        inner = stack.pop()
        stack[-1].items.append(_close(inner))
    return _close(stack[0]) if stack else None


def _unreadable(error: yaml.MarkedYAMLError, report: Report) -> None:
    """The syntax error, at its place, and where what it broke began."""
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    if line > len(report.lines) or (line == len(report.lines) and not report.lines[-1] and line > 1):
        # libyaml misses something at the end and points behind it, where an editor shows nothing.
        line = max(1, len(report.lines) - (not report.lines[-1]))
        column = len(report.lines[line - 1]) + 1
    if error.context == "while scanning a simple key" and error.context_mark:
        # It is missed only where the next line begins, with which nothing is wrong.
        line, column = error.context_mark.line + 1, error.context_mark.column + 1
    french, english = PARSER.get(error.problem or "", PARSER[""])
    begun = error.context_mark.line + 1 if error.context_mark else line
    opened = OPENED.get(error.context or "")
    if line == report.quoted[1]:
        # A quote that is missing is found only where the next one, of another text, ends the first.
        begun, opened = report.quoted[0], OPENED["while scanning a quoted scalar"]
    if opened and begun != line:
        french += opened[0].format(line=begun)
        english += opened[1].format(line=begun)
    if _APOSTROPHE.match(report.lines[line - 1], max(column - 2, 0)):
        french, english = french + CLOSED[0], english + CLOSED[1]
    gap = _gap(report.lines, sorted({begun, line - 1, line}), (line, column))
    # Beside a tab or an unseen character it is but their consequence.
    if not report.failed and gap is not None:
        report.tell(*gap)
    elif not report.failed:
        report.tell("syntax", (line, column), problem=(french, english))
    report.cut = min(line, begun if opened else line, gap[1][0] if gap is not None else line)


def _gap(
    lines: Sequence[str], near: Iterable[int], place: tuple[int, int]
) -> tuple[str, tuple[int, int]] | None:
    """A tab or a no-break space that stands where YAML wants an ordinary space, near a syntax error."""
    for line in near:
        found = _FOR_A_GAP.match(lines[line - 1]) if 0 < line <= len(lines) else None
        if found is not None:
            return "no_break_space", (line, found.start(1) + 1)
    line, column = place
    return ("tab", place) if lines[line - 1][column - 1 : column] == "\t" else None


class _Open:
    """A collection being read; a table's entries alternate key and value."""

    __slots__ = ("column", "items", "keys", "line", "table")

    def __init__(self, line: int, column: int, *, table: bool) -> None:
        self.line = line
        self.column = column
        self.table = table
        self.items: list[Node] = []
        self.keys: dict[str, int] = {}


def _compose(text: str, report: Report, stack: list[_Open]) -> Node | None:
    # Events and not `yaml.compose`: its nodes no longer tell an anchor, and it recurses.
    root: Node | None = None
    whole, nodes = True, 0
    mended = report.failed
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        mark = event.start_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        node: Node | None = None
        refused = _refused(event)
        if refused is not None:
            report.tell("refused", (line, column), what=refused)
        if isinstance(event, yaml.DocumentStartEvent) and (root is not None or event.version or event.tags):
            report.tell("second_document", (line, column))
        if report.full or (isinstance(event, yaml.DocumentStartEvent) and root is not None):
            return None
        nodes += isinstance(event, yaml.NodeEvent)
        if nodes > MAX_NODES:
            report.tell("too_many_nodes", (line, column))
            return None
        if isinstance(event, yaml.AliasEvent):
            # Nobody knows what would stand here: the rest is looked through for more of them only.
            node, whole = Scalar(line, column, ""), False
        elif isinstance(event, yaml.ScalarEvent):
            value = event.value.replace("\ufffd", "") if mended else event.value
            # « é » may be one character or two, and looks the same (UAX #15).
            node = Scalar(line, column, normalize("NFC", value), plain=not event.style)
            ends = event.end_mark.line + 1 if event.end_mark else line
            if ends > line and event.style in ("'", '"'):
                report.quoted = line, ends
            if event.style and (unseen := _HIDDEN.search(event.value)):
                report.tell("hidden_character", node, name=f"U+{ord(unseen[0]):04X}")
        elif isinstance(event, yaml.CollectionStartEvent):
            if len(stack) >= _MAX_DEPTH:
                report.tell("too_deep", (line, column))
                return None
            stack.append(_Open(line, column, table=isinstance(event, yaml.MappingStartEvent)))
        elif isinstance(event, yaml.CollectionEndEvent):
            node = _close(stack.pop())
        if node is None:
            continue
        if not stack:
            root = node
        elif not _put(stack[-1], node, report):
            whole = False
    if root is None:
        report.tell("empty_file", (1, 1))
    return root if whole else None


def _refused(event: yaml.Event) -> tuple[str, str] | None:
    """What, in this event, no rule file may use; in both languages."""
    if not isinstance(event, yaml.NodeEvent):
        return None
    name = shown(event.anchor or "")
    if isinstance(event, yaml.AliasEvent):
        return f"l'alias « *{name} »", f"the alias *{name}"
    if event.anchor is not None:
        return f"l'ancre « &{name} »", f"the anchor &{name}"
    tag: str | None = getattr(event, "tag", None)
    if tag is not None:
        written = shown(tag.replace("tag:yaml.org,2002:", "!!", 1))
        return f"le type « {written} »", f"the tag {written}"
    return None


def _close(done: _Open) -> Node:
    if not done.table:
        return Listing(done.line, done.column, tuple(done.items))
    # Where the text broke off the last key may have no value.
    pairs = zip(done.items[::2], done.items[1::2], strict=False)
    entries = tuple((key, value) for key, value in pairs if isinstance(key, Scalar))
    return Table(done.line, done.column, entries)


def _put(into: _Open, node: Node, report: Report) -> bool:
    """Add a node to its collection. False, with an error, for a key that can't stand there."""
    sound = True
    if into.table and len(into.items) % 2 == 0:
        if not isinstance(node, Scalar):
            report.tell("key_no_word", node)
            into.items.append(node)
            return False
        if node.plain and node.text == "<<":
            report.tell("refused", node, what=("la fusion « << »", "the merge key <<"))
            sound = False
        first = into.keys.get(node.text)
        if first is None:
            into.keys[node.text] = node.line
        else:
            report.tell("key_twice", node, word=shown(node.text), first=first)
    into.items.append(node)
    return sound
