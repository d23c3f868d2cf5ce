"""What the work costs without a relay: every waiting letter fetched, handed over as it is, and a POST for each.

No decision, no state, no parsing: one process, the letters in one FETCH, one SMTP and one HTTP connection.
A relay's letters a second divided by this floor's can be compared across machines.

`python -m bench.floor IMAP USER PASSWORD SMTP HTTP`
"""

from __future__ import annotations

import re
import socket
import sys
import threading
from queue import Queue
from typing import IO, cast

LOOPBACK = "127.0.0.1"
_LITERAL = re.compile(rb"\{(\d+)\}\r\n$")
_BODY = '{"chat_id":"700000","text":"Lettre de sortie à lire. Réf. 0000-0000"}'.encode()


def _dial(port: int) -> tuple[socket.socket, IO[bytes]]:
    plug = socket.create_connection((LOOPBACK, port))
    plug.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plug, cast("IO[bytes]", plug.makefile("rb", 1 << 18))


def _mail(port: int, letters: Queue[bytes | None]) -> None:
    plug, answers = _dial(port)
    answers.readline()
    plug.sendall(b"EHLO floor\r\n")
    while answers.readline()[3:4] == b"-":
        pass
    while (letter := letters.get()) is not None:
        plug.sendall(
            b"MAIL FROM:<relais@relais45.mssante.fr>\r\nRCPT TO:<medecin@medecin.mssante.fr>\r\nDATA\r\n"
        )
        for _ in range(3):
            answers.readline()
        plug.sendall(letter + b"\r\n.\r\n")
        answers.readline()


def _post(port: int, letters: Queue[bytes | None]) -> None:
    plug, _ = _dial(port)
    head = b"POST /bot1:bench/sendMessage HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    request = head % len(_BODY) + _BODY
    while letters.get() is not None:
        plug.sendall(request)
        plug.recv(65536)


def run(imap: int, user: str, password: str, smtp: int, http: int) -> None:
    """Carry every waiting letter once."""
    plug, answers = _dial(imap)
    answers.readline()
    plug.sendall(f'a LOGIN "{user}" "{password}"\r\nb EXAMINE INBOX\r\n'.encode())
    while not answers.readline().startswith(b"b "):
        pass
    to_mail, to_post = Queue[bytes | None](64), Queue[bytes | None](64)
    carriers = [
        threading.Thread(target=_mail, args=(smtp, to_mail)),
        threading.Thread(target=_post, args=(http, to_post)),
    ]
    for each in carriers:
        each.start()
    plug.sendall(b"c UID FETCH 1:* (BODY.PEEK[])\r\n")
    while not (line := answers.readline()).startswith(b"c "):
        if literal := _LITERAL.search(line):
            letter = answers.read(int(literal[1]))
            to_mail.put(letter)
            to_post.put(letter)
    to_mail.put(None)
    to_post.put(None)
    for each in carriers:
        each.join()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))
