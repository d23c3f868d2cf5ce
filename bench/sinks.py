"""The far end, in one process of its own: swallows mail, plays the Bot API, and taps the watched mailbox.

`python -m bench.sinks SMTP HTTP TAP IMAP` listens on the first three loopback ports and forwards TAP to IMAP.
Everything is answered at once and kept as it came; it is looked at only when somebody asks, so that looking
costs the measured relay nothing. Times are `time.monotonic()`, one clock for all processes of a machine.

    GET /-/count    {"letters": n, "alerts": n, "notices": n}
    GET /-/records  {"letters": [...], "alerts": [...], "notices": [...], "cpu": seconds}
    POST /-/clear
"""

from __future__ import annotations

import asyncio
import email
import email.policy
import hashlib
import json
import re
import resource
import sys
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import cast

from bench.letters import MARK

LOOPBACK = "127.0.0.1"
REFERENCE = re.compile(r"Réf\.\s*([0-9A-HJKMNP-TV-Z]{4}-[0-9A-HJKMNP-TV-Z]{4})")
_END = b"\r\n.\r\n"
_EXISTS = re.compile(rb"\* (\d+) EXISTS\r\n")


@dataclass(slots=True)
class Book:
    """What came, unread."""

    letters: list[tuple[float, str, list[bytes]]] = field(default_factory=list)  # when, to, pieces
    alerts: list[tuple[float, bytes, bytes]] = field(default_factory=list)  # when, content type, body
    notices: list[tuple[float, int]] = field(
        default_factory=list
    )  # when an idling client heard, count in mailbox

    def clear(self) -> None:
        for each in (self.letters, self.alerts, self.notices):
            each.clear()

    def count(self) -> dict[str, int]:
        return {"letters": len(self.letters), "alerts": len(self.alerts), "notices": len(self.notices)}

    def records(self) -> dict[str, object]:
        """Everything, read now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return {
            "cpu": usage.ru_utime + usage.ru_stime,
            "letters": [_letter(when, to, b"".join(pieces)) for when, to, pieces in self.letters],
            "alerts": [_alert(*each) for each in self.alerts],
            "notices": self.notices,
        }


def _letter(when: float, to: str, wire: bytes) -> dict[str, object]:
    """One mail as its reader's program sees it."""
    message = email.message_from_bytes(
        wire.removesuffix(b".\r\n").replace(b"\r\n..", b"\r\n."), policy=email.policy.default
    )
    text, documents = "", []
    for part in message.walk():
        if part.is_multipart():
            continue
        if part.get_filename():
            content = cast("bytes", part.get_payload(decode=True))
            documents.append(hashlib.sha256(content).hexdigest())
        elif part.get_content_type() == "text/plain":
            text += str(part.get_content())
    mark, reference = MARK.search(text.encode()), REFERENCE.search(text)
    return {
        "when": when,
        "to": to,
        "bytes": len(wire),
        "mark": mark[0].decode() if mark else None,
        "reference": reference[1] if reference else None,
        "documents": documents,
    }


def _alert(when: float, kind: bytes, body: bytes) -> dict[str, object]:
    said = (
        json.loads(body) if b"json" in kind else dict(urllib.parse.parse_qsl(body.decode("utf-8", "replace")))
    )
    reference = REFERENCE.search(str(said.get("text", "")))
    return {
        "when": when,
        "to": str(said.get("chat_id")),
        "reference": reference[1] if reference else None,
        "mark": None,
    }


class Mail(asyncio.Protocol):
    """One SMTP connection: every recipient exists, every letter is taken."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._lines = b""
        self._to = ""
        self._pieces: list[bytes] | None = None  # of the letter that is coming in
        self._tail = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"220 sink ESMTP\r\n")

    def data_received(self, chunk: bytes) -> None:
        rest: bytes | None = chunk
        while rest:
            rest = self._commands(rest) if self._pieces is None else self._content(rest, self._pieces)

    def _content(self, chunk: bytes, pieces: list[bytes]) -> bytes | None:
        seen = self._tail + chunk
        end = seen.find(_END)
        if end < 0:
            pieces.append(chunk)
            self._tail = seen[-4:]
            return None
        last = end + len(_END) - len(self._tail)
        pieces.append(chunk[:last])
        self._book.letters.append((time.monotonic(), self._to, pieces))
        self._pieces = None
        self._transport.write(b"250 2.0.0 taken\r\n")
        return chunk[last:]

    def _commands(self, chunk: bytes) -> bytes | None:
        lines = (self._lines + chunk).split(b"\r\n")
        self._lines = lines.pop()
        answers = []
        for place, line in enumerate(lines):
            verb = line[:4].upper()
            if verb == b"RCPT":
                self._to = line.partition(b"<")[2].partition(b">")[0].decode().lower()
                answers.append(b"250 2.1.5 known\r\n")
            elif verb == b"EHLO":
                answers.append(
                    b"250-sink\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-ENHANCEDSTATUSCODES\r\n"
                    b"250-8BITMIME\r\n250-DSN\r\n250 SMTPUTF8\r\n"
                )
            elif verb == b"DATA":
                answers.append(b"354 go on\r\n")
                self._transport.write(b"".join(answers))
                rest = b"\r\n".join([*lines[place + 1 :], self._lines])
                self._lines, self._pieces, self._tail = b"", [], b"\r\n"
                return rest
            elif verb == b"QUIT":
                self._transport.write(b"".join(answers) + b"221 2.0.0 bye\r\n")
                self._transport.close()
                return None
            else:
                answers.append(b"250 2.0.0 well\r\n")
        self._transport.write(b"".join(answers))
        return None


class BotApi(asyncio.Protocol):
    """One HTTP connection to the Bot API, or to the book."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._buffer = bytearray()
        self._poll: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._poll is not None:
            self._poll.cancel()

    def data_received(self, chunk: bytes) -> None:
        self._buffer += chunk
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._buffer[:end])
            length = _header(head, b"content-length")
            whole = end + 4 + int(length or 0)
            if len(self._buffer) < whole:
                return
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        path = head.split(b" ", 2)[1].partition(b"?")[0]
        method = path.rpartition(b"/")[2].lower()
        if path.startswith(b"/-/"):
            self._about(method)
        elif method == b"sendmessage":
            self._book.alerts.append((time.monotonic(), _header(head, b"content-type"), body))
            number = len(self._book.alerts)
            self._write(
                b'{"ok":true,"result":{"message_id":%d,"date":1767600000,"chat":{"id":1,"type":"private"},'
                b'"from":{"id":1,"is_bot":true,"first_name":"Relais"},"text":"."}}' % number
            )
        elif method == b"getupdates":
            # A long poll: nobody ever presses anything here.
            loop = asyncio.get_running_loop()
            self._poll = loop.call_later(20, self._write, b'{"ok":true,"result":[]}')
        elif method == b"getme":
            self._write(
                b'{"ok":true,"result":{"id":1,"is_bot":true,"first_name":"Relais","username":"relais_bot"}}'
            )
        else:
            self._write(b'{"ok":true,"result":true}')

    def _about(self, what: bytes) -> None:
        if what == b"clear":
            self._book.clear()
        answer = self._book.records() if what == b"records" else self._book.count()
        self._write(json.dumps(answer).encode())

    def _write(self, body: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (len(body), body)
            )


def _header(head: bytes, name: bytes) -> bytes:
    start = head.lower().find(b"\r\n" + name + b":")
    return head[start + len(name) + 3 :].partition(b"\r\n")[0].strip() if start >= 0 else b""


class Tap(asyncio.Protocol):
    """One IMAP connection passed through; notes when a client that idles is told of new mail."""

    def __init__(self, book: Book, port: int) -> None:
        self._book, self._port = book, port
        self._early: list[bytes] = []  # what the client said before the server's side stood
        self._server: asyncio.Transport | None = None
        self.idles = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.client = cast("asyncio.Transport", transport)
        self._connecting = asyncio.ensure_future(self._connect())

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._server, _ = await loop.create_connection(lambda: _Back(self, self._book), LOOPBACK, self._port)
        self._server.write(b"".join(self._early))

    def data_received(self, chunk: bytes) -> None:
        if chunk.rstrip().upper().endswith(b" IDLE"):
            self.idles = True
        if self._server is None:
            self._early.append(chunk)
        else:
            self._server.write(chunk)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connecting.cancel()
        if self._server is not None:
            self._server.close()


class _Back(asyncio.Protocol):
    """The server's side of a tapped connection."""

    def __init__(self, front: Tap, book: Book) -> None:
        self._front, self._book = front, book

    def data_received(self, chunk: bytes) -> None:
        # The connection that acknowledges never idles: what it hears on the way wakes nobody.
        if self._front.idles and (told := _EXISTS.search(chunk)):
            self._book.notices.append((time.monotonic(), int(told[1])))
        self._front.client.write(chunk)

    def connection_lost(self, exc: Exception | None) -> None:
        self._front.client.close()


async def serve(smtp: int, http: int, tap: int, imap: int) -> None:
    """Listen until standard input ends: so nothing stays behind, however the one who started us died."""
    book, loop, stop = Book(), asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(sys.stdin, stop.set)
    await loop.create_server(lambda: Mail(book), LOOPBACK, smtp)
    await loop.create_server(lambda: BotApi(book), LOOPBACK, http)
    await loop.create_server(lambda: Tap(book, imap), LOOPBACK, tap)
    await stop.wait()


if __name__ == "__main__":
    asyncio.run(serve(*map(int, sys.argv[1:5])))
