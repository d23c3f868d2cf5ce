"""PDF: the words of the text layer, put into lines and columns by where they stand, read as labelled lines.

Only words are asked of PDFium: no form is opened, no script, link, action or attached file is looked at
(the build has no JavaScript). Without a text layer, locked or damaged, nothing is guessed: `no_text`.
PDFium runs in a process of its own, which is kept for the next PDF (`relay.formats.pdf_child` says why); a
hostile page can keep it busy for seconds: read PDFs outside the event loop.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import json
import math
import os
import select
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import Final

from relay.formats import pdf_child
from relay.formats import text as letters
from relay.formats.pdf_child import Cell, height, same_line
from relay.model import Notice, Problem
from relay.reading import never_raises

MAX_PDF = 50 * 2**20
MAX_PAGES = 200
MAX_CHARACTERS = 2_000_000
MAX_SECONDS = 4.0
_PIPE = 2**20  # bytes: a PDF goes over in one piece, with one change of process
_FEWEST = 10  # letters: fewer are a page number or a stamp on a scan

_REFUSED: Final = {
    "password": "le PDF est protégé par un mot de passe",
    "damaged": "le PDF est abîmé",
    "pages": "le PDF a trop de pages",
    "characters": "le PDF est trop long à lire",
    "seconds": "le PDF est trop long à lire",
    "ended": "le PDF est abîmé",
}
_PERHAPS: Final = ("seconds", "ended")  # what a busy machine did not read this time it may the next


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


_last: tuple[tuple[bytes, str | Problem], ...] = ()
_KEPT, _KEPT_BYTES = 2, 4 * 2**20  # a PDF is looked at for what it says, and for whom else it may name


@never_raises(no_text("le PDF ne peut pas être lu"))
def _text(content: bytes) -> str | Problem:
    global _last  # noqa: PLW0603 - replaced whole, so that threads see the old ones or the new ones
    if len(content) > MAX_PDF:
        return no_text("le PDF est trop grand")
    for known, said in _last:
        if known == content:
            return said
    found = _words(pages := _CHILD.ask(content))
    if pages not in _PERHAPS and len(content) <= _KEPT_BYTES:
        _last = ((content, found), *_last[: _KEPT - 1])
    return found


def _words(pages: list[list[Cell]] | str) -> str | Problem:
    if isinstance(pages, str):
        return no_text(_REFUSED.get(pages, "le PDF ne peut pas être lu"))
    words = "\n\n".join(_laid_out(cells) for cells in pages)
    if sum(map(str.isalnum, words[:2000])) < _FEWEST:
        return no_text("le PDF n'a pas de texte : c'est une image")
    return words


# ---------------------------------------------------------------------------------------------------- the process


class _Child:
    """PDFium's process: started for the first PDF, asked one at a time, replaced when it dies or takes too long."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._one_at_a_time = threading.Lock()

    def ask(self, content: bytes) -> list[list[Cell]] | str:
        """The cells of each page, or a word that says why there are none."""
        with self._one_at_a_time:
            # One that earlier PDFs wore out gets a fresh successor; what kills a fresh one is not asked again.
            for _ in range(2):
                started = time.monotonic()
                child = self._running
                fresh = child is None or child.poll() is not None
                if child is None or fresh:
                    self.end()
                    child = self._started()
                try:
                    answer = self._exchange(child, content)
                except OSError:
                    answer = None
                if answer is not None:
                    return _cells(json.loads(answer))
                self.end()
                if fresh or time.monotonic() - started > 1:
                    break
            return "ended"

    def _started(self) -> subprocess.Popen[bytes]:
        # No environment: what the relay keeps there (a database's password, a key) is none of a document's business.
        self._running = subprocess.Popen(  # noqa: S603 - our own file, by our own interpreter
            [sys.executable, "-I", pdf_child.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={},
            cwd="/",
            start_new_session=True,
        )
        assert self._running.stdin is not None  # noqa: S101 - a pipe by construction
        with contextlib.suppress(
            OSError
        ):  # what a user may keep in pipes is used up: it works in smaller pieces
            fcntl.fcntl(self._running.stdin, fcntl.F_SETPIPE_SZ, _PIPE)
        os.set_blocking(self._running.stdin.fileno(), False)
        return self._running

    @staticmethod
    def _exchange(child: subprocess.Popen[bytes], content: bytes) -> bytes | None:
        """The answer; None when the child ended in the middle of it, or took too long. Raises OSError."""
        assert child.stdin is not None and child.stdout is not None  # noqa: S101, PT018 - pipes by construction
        asking, answering = child.stdin.fileno(), child.stdout.fileno()
        end = time.monotonic() + max(0.0, MAX_SECONDS) + 1.0
        request = memoryview(
            pdf_child.HEAD.pack(len(content), MAX_PAGES, MAX_CHARACTERS, MAX_SECONDS) + content
        )
        answer, size = bytearray(), pdf_child.LENGTH.size
        doors = select.poll()
        doors.register(asking, select.POLLOUT)
        doors.register(answering, select.POLLIN)
        while len(answer) < size:
            ready = doors.poll(max(0.0, end - time.monotonic()) * 1000)
            if not ready:
                return None
            for door, _ in ready:
                if door == answering:
                    piece = os.read(door, 2**20)
                    if not piece:
                        return None
                    answer += piece
                    if len(answer) >= pdf_child.LENGTH.size:
                        size = pdf_child.LENGTH.size + pdf_child.LENGTH.unpack_from(answer)[0]
                else:
                    request = request[os.write(door, request) :]
                    if not request:
                        doors.unregister(door)
        return bytes(answer[pdf_child.LENGTH.size :])

    def end(self) -> None:
        """Stop the process, if there is one."""
        child, self._running = self._running, None
        if child is not None:
            child.kill()
            with contextlib.suppress(OSError), child:  # closes its pipes and waits for it
                pass


_CHILD = _Child()
atexit.register(_CHILD.end)


def _cells(answer: object) -> list[list[Cell]] | str:
    """The child reads bytes from outside: its answer is checked like them."""
    if isinstance(answer, str):
        return answer
    pages: list[list[Cell]] = []
    for page in answer if isinstance(answer, list) else ():
        cells = [Cell(str(words), *(float(one) for one in box)) for words, *box in page]
        pages.append([one for one in cells if math.isfinite(one.left + one.right + one.low + one.high)])
    return pages


# ----------------------------------------------------------------------------------------------------------- layout


def _laid_out(cells: list[Cell]) -> str:
    """Lines from top to bottom; where two columns of labelled lines stand side by side, one after the other.

    A doctor's number must not slip from one column under the name of another: columns are never mixed.
    """
    rows: list[list[Cell]] = []
    for cell in sorted(cells, key=lambda one: -one.high):
        for row in rows[:-4:-1]:
            if same_line(row[0], cell):
                row.append(cell)
                break
        else:
            rows.append([cell])
    out: list[str] = []
    block: list[list[Cell]] = []
    for row in rows:
        row.sort(key=lambda one: one.left)
        if block and block[-1][0].low - row[0].high > 0.9 * height(block[-1][0], row[0]):
            out += [*_columns(block), ""]
            block = []
        block.append(_values_joined(row))
    return "\n".join([*out, *_columns(block)])


def _values_joined(row: list[Cell]) -> list[Cell]:
    """« Nom :      MARTIN »: a label and the value that stands apart from it are one cell."""
    joined: list[Cell] = []
    for cell in row:
        before = joined[-1] if joined else None
        bare = before is not None and (
            before.words.endswith((":", "："))
            or (letters.label_of(before.words) and letters.label_of(cell.words) is None)
        )
        if before is not None and bare and not _labelled(cell.words):
            colon = "" if before.words.endswith((":", "：")) else " :"
            joined[-1] = Cell(f"{before.words}{colon} {cell.words}", before.left, cell.right,
                               min(before.low, cell.low), max(before.high, cell.high))  # fmt: skip
        else:
            joined.append(cell)
    return joined


def _labelled(words: str) -> bool:
    label, colon, _ = words.replace("：", ":").partition(":")
    return bool(colon and letters.label_of(label))


def _columns(block: list[list[Cell]]) -> list[str]:
    """The lines of a block of rows: column by column where one of its rows has two labelled cells."""
    sides = [row for row in block if len(row) > 1]
    if not any(sum(_labelled(cell.words) for cell in row) > 1 for row in sides) and not any(
        _labelled(cell.words) for row in sides for cell in row
    ):
        return ["    ".join(cell.words for cell in row) for row in block]
    columns: list[list[Cell]] = []
    for row in block:
        for cell in row:
            width = height(cell, cell)
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
