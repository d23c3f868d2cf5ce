"""The words of files that word processors write: RTF, Word (ECMA-376) and OpenDocument text.

No letter is made of them, they leave as they came; they are looked through for another patient only. A line a
paragraph, and a line a row of a table with a tab between its cells. What cannot be read says nothing.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from relay import formats
from relay.reading import decode, never_raises

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lxml import etree

_MAX_RTF: Final = 8 * 2**20  # bytes looked through: pictures stand there as digits
_MAX_TOKENS: Final = 500_000  # a second; of a long letter a tenth
_WORD: Final = re.compile(r"word/(?:document|header\d*|footer\d*)\.xml")
_OPEN_DOCUMENT: Final = "content.xml"


def looks_like_rtf(head: bytes) -> bool:
    """By its first bytes."""
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"{\\rtf")


@never_raises("")
def packed(members: Mapping[str, bytes]) -> str:
    """The words of Word's or OpenDocument's archive, its files by their paths; "" for any other. Never raises."""
    names = sorted(name for name in members if _WORD.fullmatch(name))
    if not names and b"opendocument" in members.get("mimetype", b""):
        names = [name for name in members if name in (_OPEN_DOCUMENT, "styles.xml")]
    return "\n".join(map(_paragraphs, (formats.parse_xml(members[name]) for name in names)))


_WORDS: Final = frozenset({"t", "p", "h", "span", "a"})
"""Elements whose own text is words: Word's run, and OpenDocument's paragraphs and what marks words in them."""
_SPACES: Final = {"tab": "\t", "br": "\n", "cr": "\n", "line-break": "\n", "s": " "}


def _paragraphs(root: etree._Element) -> str:
    """Within a cell paragraphs share the line; of what was deleted under revision nothing is said."""
    pieces: list[str] = []
    cells = 0
    waiting: list[tuple[etree._Element, bool]] = [(root, False)]
    while waiting:
        one, ended = waiting.pop()
        name = one.tag.rpartition("}")[2] if isinstance(one.tag, str) else ""
        if not ended:
            if name in ("tracked-changes", "Fallback"):  # the latter says again what stands beside it
                pieces.append(_tail(one))
                continue
            cells += name in ("tc", "table-cell")
            pieces.append(_SPACES.get(name, "") or ((one.text or "") if name in _WORDS else ""))
            waiting.append((one, True))
            waiting.extend((child, False) for child in reversed(one))
            continue
        if name in ("p", "h"):
            pieces.append(" " if cells else "\n")
        elif name in ("tc", "table-cell"):
            cells -= 1
            pieces.append("\t")
        elif name in ("tr", "table-row"):
            pieces.append("\n")
        pieces.append(_tail(one))
    return "".join(pieces)


def _tail(one: etree._Element) -> str:
    above = one.getparent()
    name = above.tag.rpartition("}")[2] if above is not None and isinstance(above.tag, str) else ""
    return (one.tail or "") if name in _WORDS else ""


# ------------------------------------------------------------------------------------------------------------- RTF

_TOKEN = re.compile(
    rb"\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?\d{1,10})? ?|\\'(?P<hex>[0-9a-fA-F]{2})|\\(?P<sign>[^a-zA-Z])"
    rb"|(?P<brace>[{}])|(?P<text>[^\\{}\r\n]+)"
)
_UNSEEN: Final = frozenset(
    b"fonttbl colortbl stylesheet info pict object listtable listoverridetable themedata colorschememapping datastore"
    b" latentstyles generator xmlnstbl rsidtbl fldinst deleted bkmkstart bkmkend".split()
)
"""Groups whose text is no words of the document (RTF 1.9.1, destinations)."""
_BREAKS: Final = {
    b"par": "\n", b"line": "\n", b"row": "\n", b"sect": "\n", b"page": "\n", b"cell": "\t", b"tab": "\t",
    b"emdash": "-", b"endash": "-", b"lquote": "'", b"rquote": "'", b"ldblquote": '"', b"rdblquote": '"',
}  # fmt: skip
_SIGNS: Final = {b"~": " ", b"_": "-", b"\n": "\n", b"\r": "\n", b"{": "{", b"}": "}", b"\\": "\\"}


@never_raises("")
def rtf(content: bytes) -> str:
    """The words of an RTF file, as far as the bounds go. Never raises."""
    content = content[:_MAX_RTF]
    out: list[str] = []
    raw = bytearray()
    codec = "cp1252"
    # Of each open group: whether it is seen, and how many signs stand in for one of Unicode.
    groups: list[tuple[bool, int]] = []
    seen, instead, passing, place = True, 1, 0, 0
    for _ in range(_MAX_TOKENS):
        found = _TOKEN.search(content, place)
        if found is None:
            break
        place = found.end()
        kind = found.lastgroup
        if kind == "brace":
            if found["brace"] == b"{":
                groups.append((seen, instead))
            elif groups:
                seen, instead = groups.pop()
            passing = 0
            continue
        if found["word"] == b"bin":  # that many bytes of anything
            place += max(0, int(found["number"] or 0))
            continue
        if found["sign"] == b"*" or found["word"] in _UNSEEN:
            seen = False
        if not seen:
            continue
        if kind in ("hex", "text"):
            piece = bytes.fromhex(found["hex"].decode()) if kind == "hex" else found["text"]
            raw += piece[passing:]
            passing = max(0, passing - len(piece))
            continue
        out.append(decode(bytes(raw), codec))
        raw.clear()
        word, number = found["word"], int(found["number"] or 0)
        if word == b"u":
            out.append(chr(number % 65536))
            passing = instead
        elif word == b"uc":
            instead = min(max(0, number), 8)
        elif word == b"ansicpg":
            codec = f"cp{number}"
        elif word == b"mac":
            codec = "mac_roman"
        else:
            out.append(_BREAKS.get(word or b"", "") or _SIGNS.get(found["sign"] or b"", ""))
    return "".join((*out, decode(bytes(raw), codec)))
