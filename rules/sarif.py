"""Findings as SARIF 2.1.0 (OASIS), which code review tools show beside the line they are about."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from rules.words import CODES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rules.source import Finding

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(findings: Iterable[Finding], version: str, root: str = "", lang: str = "fr") -> dict[str, object]:
    """One SARIF log with one run, as JSON. Every rule of the checker is described, in `lang`.

    Files are named relative to the folder `root`, one outside it by its name alone: no absolute path leaves.
    `version` is the program's.
    """
    english = lang == "en"
    codes = list(CODES)
    described = [
        {
            "id": code,
            "name": CODES[code][1],
            "shortDescription": {"text": CODES[code][english]},
            "fullDescription": {"text": CODES[code][2 + english]},
            "help": {"text": CODES[code][2 + english]},
            "defaultConfiguration": {"level": _level(code)},
            # Both languages travel, so that a report can be read in the other one.
            "properties": {
                "fr": {"name": CODES[code][0], "help": CODES[code][2]},
                "en": {"name": CODES[code][1], "help": CODES[code][3]},
            },
        }
        for code in codes
    ]
    driver = {
        "name": "relay rules check",
        "semanticVersion": version,
        "language": "en" if english else "fr",
        "rules": described,
    }
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "language": "en" if english else "fr",
                "columnKind": "unicodeCodePoints",
                "results": [_result(finding, codes, root) for finding in findings],
            }
        ],
    }


def _level(code: str) -> str:
    return "warning" if code.startswith("W") else "error"


def _result(finding: Finding, codes: list[str], root: str) -> dict[str, object]:
    region: dict[str, object] = {"startLine": finding.line, "startColumn": finding.column}
    if finding.source_line:
        region["snippet"] = {"text": finding.source_line}
    place = {"uri": _relative(finding.file, root)}
    result: dict[str, object] = {
        "ruleId": finding.code,
        "level": _level(finding.code),
        "message": {"text": f"{finding.message}\n{finding.fix}" if finding.fix else finding.message},
        "locations": [{"physicalLocation": {"artifactLocation": place, "region": region}}],
    }
    if finding.code in codes:
        result["ruleIndex"] = codes.index(finding.code)
    if finding.meant is not None:
        word, guess = finding.meant
        end = finding.column + len(word)
        deleted = {"startLine": finding.line, "startColumn": finding.column, "endColumn": end}
        change = {"deletedRegion": deleted, "insertedContent": {"text": guess}}
        result["fixes"] = [
            {
                "description": {"text": finding.fix},
                "artifactChanges": [{"artifactLocation": place, "replacements": [change]}],
            }
        ]
    return result


def _relative(file: str, root: str) -> str:
    """A URI reference without scheme, host or leading slash."""
    kind = PureWindowsPath if "\\" in file or file[1:2] == ":" else PurePosixPath
    path = kind(file)
    if root and path.is_relative_to(kind(root)):
        path = path.relative_to(kind(root))
    if path.is_absolute() or path.drive or ".." in path.parts:
        path = kind(path.name)
    return quote(path.as_posix())
