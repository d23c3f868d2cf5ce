"""PDF: the words of the text layer, put into lines and columns by where they stand, read as labelled lines.

Only words are asked of PDFium: no form is opened, no script, link, action or attached file is looked at
(the build has no JavaScript). Without a text layer, locked or damaged, nothing is guessed: `no_text`.
PDFium takes one caller at a time, and a hostile page can keep it busy: read PDFs outside the event loop.
"""

from __future__ import annotations

import ctypes
import threading
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from relay.formats import text as letters
from relay.model import Notice, Problem
from relay.reading import never_raises

if TYPE_CHECKING:
    import pypdfium2

MAX_PDF = 50 * 2**20
MAX_PAGES = 200
MAX_CHARACTERS = 2_000_000
MAX_SECONDS = 5.0
_FEWEST = 10  # letters: fewer are a page number or a stamp on a scan

_ONE_AT_A_TIME = threading.Lock()
_DROPPED: Final = dict.fromkeys((*range(9), *range(0xB, 0x20), 0x7F, 0xAD, 0xFFFE, 0xFFFF, 0x200B, 0xFEFF))
_SIGNS: Final = {0x2002: " ", 0x2003: " ", 0xA0: " "} | {
    sign: unicodedata.normalize("NFKC", chr(sign))
    for sign in range(0xFB00, 0xFB07)  # ligatures
}


def no_text(text: str) -> Problem:
    """Nobody can read the words of this PDF without looking at it."""
    return Problem("no_text", text)


def looks_like_pdf(content: bytes) -> bool:
    """By its first bytes; readers allow some noise before them (ISO 32000-1 annex H)."""
    return b"%PDF-" in content[:1024]


def read(content: bytes) -> Notice | None:
    """The labelled lines of the text layer; None for a text that is no letter. Never raises.

    A PDF whose words cannot be had gives a notice with the problem `no_text` and nothing else.
    """
    if not looks_like_pdf(content):
        return None
    found = _text(content)
    if isinstance(found, Problem):
        return Notice(format="pdf", problems=(found,))
    letter = letters.read(found)
    if not letter.has_patient and not letter.is_discharge:
        return None
    notice = letter.notice if letter.has_patient else replace(letter.notice, patient=None)
    return replace(notice, format="pdf")


def text(content: bytes) -> str | None:
    """The words of a PDF in reading order, a line per line, blocks and columns parted by blank lines; None: no words."""
    found = _text(content)
    return found if isinstance(found, str) else None


@never_raises(no_text("le PDF ne peut pas être lu"))
def _text(content: bytes) -> str | Problem:
    if len(content) > MAX_PDF:
        return no_text("le PDF est trop grand")
    import pypdfium2

    end = time.monotonic() + MAX_SECONDS
    with _ONE_AT_A_TIME:
        try:
            document = pypdfium2.PdfDocument(content)
        except pypdfium2.PdfiumError as refusal:
            locked = "password" in str(refusal).lower()
            return no_text("le PDF est protégé par un mot de passe" if locked else "le PDF est abîmé")
        try:
            pages: list[str] = []
            characters = 0
            for number in range(len(document)):
                if number >= MAX_PAGES:
                    return no_text("le PDF a trop de pages")
                cells, count = _cells(document, number, MAX_CHARACTERS - characters, end)
                characters += count
                if characters >= MAX_CHARACTERS or time.monotonic() > end:
                    return no_text("le PDF est trop long à lire")
                pages.append(_laid_out(cells))
        finally:
            document.close()
    words = "\n\n".join(pages)
    if sum(sign.isalnum() for sign in words[:2000]) < _FEWEST:
        return no_text("le PDF n'a pas de texte : c'est une image")
    return words


# ----------------------------------------------------------------------------------------------------------- layout


@dataclass(slots=True)
class _Cell:
    """Words that stand together on one line; PDF units, y upwards."""

    words: str
    left: float
    right: float
    low: float
    high: float


def _cells(document: pypdfium2.PdfDocument, number: int, limit: int, end: float) -> tuple[list[_Cell], int]:
    """The cells of one page in the order of its content, and the number of its characters."""
    import pypdfium2
    from pypdfium2 import raw

    try:
        page = document[number]
    except pypdfium2.PdfiumError:
        return [], 0  # one damaged page; the others may say enough
    try:
        layer = page.get_textpage()
    except pypdfium2.PdfiumError:
        page.close()
        return [], 0
    try:
        count = layer.count_chars()
        if count > limit:
            return [], count
        signs = []
        for place in range(count):
            signs.append(raw.FPDFText_GetUnicode(layer, place))
            if place % 4096 == 4095 and time.monotonic() > end:
                return [], count
        return list(_cut(layer, signs)), count
    finally:
        layer.close()
        page.close()


def _cut(layer: pypdfium2.PdfTextPage, signs: list[int]) -> Iterator[_Cell]:
    """Cells: cut where the line ends, where it jumps, and at gaps wider than its letters are high."""
    cell: _Cell | None = None
    start = 0
    for place in range(len(signs) + 1):
        if place < len(signs) and signs[place] not in (9, 10, 13, 32, 0xA0, 0x2002, 0x2003, 0):
            continue
        if place > start:
            word = "".join(
                chr(sign) if sign < 0x110000 and not 0xD800 <= sign < 0xE000 else "?"
                for sign in signs[start:place]
            )
            word = word.translate(_SIGNS).translate(_DROPPED)
            first, last = _box(layer, start), _box(layer, place - 1)
            if word and first and last:
                one = _Cell(word, first[0], last[1], min(first[2], last[2]), max(first[3], last[3]))
                if (
                    cell is not None
                    and _same_line(cell, one)
                    and -0.5 < (one.left - cell.right) / _height(cell, one) < 1.2
                ):
                    cell.words += f" {word}"
                    cell.right, cell.low, cell.high = (
                        one.right,
                        min(cell.low, one.low),
                        max(cell.high, one.high),
                    )
                else:
                    if cell is not None:
                        yield cell
                    cell = one
        start = place + 1
    if cell is not None:
        yield cell


def _box(layer: pypdfium2.PdfTextPage, place: int) -> tuple[float, float, float, float] | None:
    """(left, right, low, high) of one character: loose boxes, so that « : » is as high as « H »."""
    from pypdfium2 import raw

    box = raw.FS_RECTF()
    if not raw.FPDFText_GetLooseCharBox(layer, place, ctypes.byref(box)):
        return None
    return box.left, box.right, min(box.bottom, box.top), max(box.bottom, box.top)


def _height(one: _Cell, other: _Cell) -> float:
    return max(one.high - one.low, other.high - other.low, 1.0)


def _same_line(one: _Cell, other: _Cell) -> bool:
    """Their heights overlap by half of the smaller one."""
    overlap = min(one.high, other.high) - max(one.low, other.low)
    return overlap > 0.5 * max(0.1, min(one.high - one.low, other.high - other.low))


def _laid_out(cells: list[_Cell]) -> str:
    """Lines from top to bottom; where two columns of labelled lines stand side by side, one after the other.

    A doctor's number must not slip from one column under the name of another: columns are never mixed.
    """
    rows: list[list[_Cell]] = []
    for cell in sorted(cells, key=lambda one: -one.high):
        for row in rows[:-4:-1]:
            if _same_line(row[0], cell):
                row.append(cell)
                break
        else:
            rows.append([cell])
    out: list[str] = []
    block: list[list[_Cell]] = []
    for row in rows:
        row.sort(key=lambda one: one.left)
        if block and block[-1][0].low - row[0].high > 0.9 * _height(block[-1][0], row[0]):
            out += [*_columns(block), ""]
            block = []
        block.append(_values_joined(row))
    return "\n".join([*out, *_columns(block)])


def _values_joined(row: list[_Cell]) -> list[_Cell]:
    """« Nom :      MARTIN »: a label and the value that stands apart from it are one cell."""
    joined: list[_Cell] = []
    for cell in row:
        before = joined[-1] if joined else None
        bare = before is not None and (
            before.words.endswith((":", "："))
            or (letters.label_of(before.words) and letters.label_of(cell.words) is None)
        )
        if before is not None and bare and not _labelled(cell.words):
            colon = "" if before.words.endswith((":", "：")) else " :"
            joined[-1] = _Cell(f"{before.words}{colon} {cell.words}", before.left, cell.right,
                               min(before.low, cell.low), max(before.high, cell.high))  # fmt: skip
        else:
            joined.append(cell)
    return joined


def _labelled(words: str) -> bool:
    label, colon, _ = words.replace("：", ":").partition(":")
    return bool(colon and letters.label_of(label))


def _columns(block: list[list[_Cell]]) -> list[str]:
    """The lines of a block of rows: column by column where one of its rows has two labelled cells."""
    sides = [row for row in block if len(row) > 1]
    if not any(sum(_labelled(cell.words) for cell in row) > 1 for row in sides) and not any(
        _labelled(cell.words) for row in sides for cell in row
    ):
        return ["    ".join(cell.words for cell in row) for row in block]
    columns: list[list[_Cell]] = []
    for row in block:
        for cell in row:
            width = _height(cell, cell)
            for column in columns:
                if abs(column[0].left - cell.left) < 3 * width:
                    column.append(cell)
                    break
            else:
                columns.append([cell])
    lines: list[str] = []
    for column in sorted(columns, key=lambda one: one[0].left):
        lines += [*(cell.words for cell in column), ""]
    return lines[:-1]
