"""Changing the text of a rule file and nothing else in it: taking one change back, promoting one rule."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from rules.source import Listing, Scalar, Table, as_text, compose

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rules.source import Node


_BREAK: Final = re.compile(r"(\r\n|\n|\r)")


class Overlap(ValueError):
    """Two changes touch the same lines; `line` is the first of them in the text as it is now, from 1."""

    def __init__(self, line: int) -> None:
        super().__init__(f"both changes touch line {line}")
        self.line = line


def take_back(now: str, changed: str, before: str) -> str:
    """`now` without the change that made `changed` out of `before`, later changes kept: a merge of three texts.

    An editor that ended all lines another way, or put a mark before the first, has changed that, and no line. Raises Overlap where a later change
    touches the same lines.
    """
    marked = [text.startswith("\ufeff") for text in (now, changed, before)]
    if any(marked):
        mark = "\ufeff" * (marked[2] if marked[0] == marked[1] else marked[0])
        return mark + take_back(*(text.removeprefix("\ufeff") for text in (now, changed, before)))
    ends = [set(_BREAK.findall(text)) for text in (now, changed, before)]
    if all(len(each) == 1 for each in ends):
        end = (ends[2] if ends[0] == ends[1] else ends[0]).pop()
        merged = _merged(*(_BREAK.sub("\n", text) for text in (now, changed, before)))
        return merged if end == "\n" else merged.replace("\n", end)
    return _merged(now, changed, before)


def _merged(now: str, changed: str, before: str) -> str:
    mine, base, theirs = (text.splitlines(keepends=True) for text in (now, changed, before))
    ours, back = _edits(base, mine), _edits(base, theirs)
    merged: list[str] = []
    place, last = 0, -1
    for start, end, lines in sorted({*ours, *back}):  # what both do is done once
        if start < place or start == last:
            moved = sum(len(new) - (high - low) for low, high, new in ours if high <= start)
            raise Overlap(start + moved + 1)
        merged += [*base[place:start], *lines]
        place, last = end, start
    return "".join(merged + base[place:])


def _edits(base: Sequence[str], other: Sequence[str]) -> list[tuple[int, int, tuple[str, ...]]]:
    """Which lines of the base are replaced by what."""
    matcher = SequenceMatcher(None, base, other, autojunk=False)
    return [
        (low, high, tuple(other[start:end]))
        for kind, low, high, start, end in matcher.get_opcodes()
        if kind != "equal"
    ]


def promoted(text: str, name: str) -> str:
    """The text with the rule or copy `name` no longer in `mode: observe`. Raises KeyError when none of it is."""
    content, report = as_text(text, "", "en")
    mode = _mode(compose(content, report), name)
    if mode is None or mode.text != "observe":
        raise KeyError(name)
    lines = _BREAK.split(content)
    at = 2 * (mode.line - 1)  # their ends stand between them
    line = lines[at]
    start = mode.column - 1
    assert line[start:].lstrip("\"'").startswith("observe")  # noqa: S101 - positions are exact
    before, after = line[:start], line[start:]
    lines[at] = before + after.replace("observe", "on", 1)
    return "\ufeff" * text.startswith("\ufeff") + "".join(lines)


def _mode(root: Node | None, name: str) -> Scalar | None:
    """The scalar after `mode` of that entry."""
    if not isinstance(root, Table):
        return None
    for section, listing in root.entries:
        if section.text not in ("rules", "also") or not isinstance(listing, Listing):
            continue
        for entry in listing.items:
            if not isinstance(entry, Table):
                continue
            found = {key.text: value for key, value in entry.entries}
            known = found.get("id")
            if isinstance(known, Scalar) and known.text == name:
                mode = found.get("mode")
                return mode if isinstance(mode, Scalar) else None
    return None
