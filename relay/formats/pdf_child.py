"""The process in which PDFium runs: it reads PDFs from standard input and answers with their words.

A page of a few hundred bytes can ask PDFium for gigabytes or for hours, and no code beside it in one process
can stop it. So it lives in a process of its own, with bounds the kernel keeps, without environment, unable to
open a file or a connection once it is set up; `relay.formats.pdf` ends it when it takes too long. Run as a
script, this file imports nothing of the relay.

Request: `HEAD`, then the PDF. Answer: length (4 bytes), then JSON: a list of pages, each a list of cells
`[words, left, right, low, high]`, or a word that says why there are none.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
import time
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import pypdfium2

HEAD: Final = struct.Struct(">IIId")  # bytes of the PDF, pages, characters, seconds
LENGTH: Final = struct.Struct(">I")
MEMORY: Final = 480 * 2**20
REFUSALS: Final = ("password", "damaged", "pages", "characters", "seconds")

_DROPPED: Final = dict.fromkeys((*range(9), *range(0xB, 0x20), 0x7F, 0xAD, 0xFFFE, 0xFFFF, 0x200B, 0xFEFF))
_SIGNS: Final = {
    sign: unicodedata.normalize("NFKC", chr(sign)) for sign in range(0xFB00, 0xFB07)
}  # ligatures
_BLANKS: Final = frozenset((0, 9, 10, 13, 32, 0xA0, 0x2002, 0x2003))


@dataclass(slots=True)
class Cell:
    """Words that stand together on one line; PDF units, y upwards."""

    words: str
    left: float
    right: float
    low: float
    high: float


def height(one: Cell, other: Cell) -> float:
    """Of the taller one."""
    return max(one.high - one.low, other.high - other.low, 1.0)


def same_line(one: Cell, other: Cell) -> bool:
    """Their heights overlap by half of the smaller one."""
    overlap = min(one.high, other.high) - max(one.low, other.low)
    return overlap > 0.5 * max(0.1, min(one.high - one.low, other.high - other.low))


class _Refused(Exception):
    """One of REFUSALS."""


def _pages(content: bytes, pages: int, characters: int, seconds: float) -> list[list[Cell]]:
    import pypdfium2

    end = time.monotonic() + seconds
    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as refusal:
        raise _Refused("password" if "password" in str(refusal).lower() else "damaged") from None
    try:
        if len(document) > pages:
            raise _Refused("pages")
        found: list[list[Cell]] = []
        for number in range(len(document)):
            cells, count = _cells(document, number, characters, end)
            characters -= count
            found.append(cells)
        return found
    finally:
        document.close()


def _cells(document: pypdfium2.PdfDocument, number: int, limit: int, end: float) -> tuple[list[Cell], int]:
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
            raise _Refused("characters")
        signs = []
        for place in range(count):
            signs.append(raw.FPDFText_GetUnicode(layer, place))
            if place % 4096 == 0 and time.monotonic() > end:
                raise _Refused("seconds")
        return list(_cut(layer, signs)), count
    finally:
        layer.close()
        page.close()


def _cut(layer: pypdfium2.PdfTextPage, signs: list[int]) -> Iterator[Cell]:
    """Cells: cut where the line ends, where it jumps, and at gaps wider than its letters are high."""
    cell: Cell | None = None
    start = 0
    for place in range(len(signs) + 1):
        if place < len(signs) and signs[place] not in _BLANKS:
            continue
        if place > start:
            word = "".join(
                chr(sign) if sign < 0x110000 and not 0xD800 <= sign < 0xE000 else "?"
                for sign in signs[start:place]
            )
            word = word.translate(_SIGNS).translate(_DROPPED)
            first, last = _box(layer, start), _box(layer, place - 1)
            if word and first and last:
                one = Cell(word, first[0], last[1], min(first[2], last[2]), max(first[3], last[3]))
                if (
                    cell is not None
                    and same_line(cell, one)
                    and -0.5 < (one.left - cell.right) / height(cell, one) < 1.2
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


def main() -> None:
    """Answer requests until standard input ends."""
    import resource

    import pypdfium2

    # PDFium's data are loaded now; from here on the kernel refuses more memory, any file, any connection.
    pypdfium2.PdfDocument.new().close()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    while len(head := requests.read(HEAD.size)) == HEAD.size:
        size, pages, characters, seconds = HEAD.unpack(head)
        content = requests.read(size)
        try:
            found: object = [
                [[one.words, one.left, one.right, one.low, one.high] for one in cells]
                for cells in _pages(content, pages, characters, seconds)
            ]
        except _Refused as refusal:
            found = str(refusal)
        del content
        answer = json.dumps(found).encode()
        answers.write(LENGTH.pack(len(answer)) + answer)
        answers.flush()


if __name__ == "__main__":
    main()
