"""One process that recognises hostile bytes while the kernel watches: `python -m tests.torture [TEMPTATION]`.

It reads one letter of every kind first, so that all it will ever need is loaded; then it seals itself: from
there on any file, connection or program that it opens, from Python or from a C library, ends it with SIGSYS.
Standard input: frames of `HEAD`, the name, the content. Standard output: a JSON line for each. A TEMPTATION
makes it do what no content may bring about, to show that the seal holds.

What holds a PDF needs PDFium's own process, started again when a page kills it: such a frame is answered with
`"pdf": true` and is left to a process started with `--pdf`, where Python's audit hooks watch instead. PDFium
itself can open nothing (`relay.formats.pdf_child`).
"""

from __future__ import annotations

import ctypes
import encodings
import importlib
import json
import pkgutil
import platform
import resource
import struct
import sys
import time
from pathlib import Path

from relay.formats import pdf, pdf_child
from relay.reading import Document, read_file
from relay.recognition import recognise, to_json
from tests import letters
from tests.letters import fhir, hl7, hprim, printed, wards

HEAD = struct.Struct(">HI")  # bytes of the name, of the content

_NUMBERS = {  # open, creat, openat, openat2, socket, connect, execve, execveat, clone, fork, vfork, clone3
    "x86_64": (0xC000003E, (2, 85, 257, 437, 41, 42, 59, 322, 56, 57, 58, 435)),
    "aarch64": (0xC00000B7, (56, 437, 198, 203, 221, 281, 220, 435)),
}
SEALABLE = platform.system() == "Linux" and platform.machine() in _NUMBERS


def seal() -> None:
    """From here on this process dies of opening anything (seccomp, a filter that every thread and child inherits)."""
    arch, numbers = _NUMBERS[platform.machine()]
    kill, allow = 0x80000000, 0x7FFF0000
    load, equal, answer = 0x20, 0x15, 0x06  # BPF: load a word, jump if equal, return
    code = [(load, 0, 0, 4), (equal, 1, 0, arch), (answer, 0, 0, allow), (load, 0, 0, 0)]
    code += [(equal, len(numbers) - place, 0, number) for place, number in enumerate(numbers)]
    code += [(answer, 0, 0, allow), (answer, 0, 0, kill)]
    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in code))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    program = Program(len(code), ctypes.addressof(raw))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0, "PR_SET_SECCOMP"


class Opened(BaseException):  # no Exception: what guards against hostile bytes must not swallow it
    """Content made Python open something."""


def watch() -> None:
    """Python's own doors, for what needs PDFium: its process may be started, and nothing else."""

    def door(event: str, arguments: tuple[object, ...]) -> None:
        if event == "subprocess.Popen" and list(arguments[1])[-1:] == [pdf_child.__file__]:  # type: ignore[call-overload]
            return
        if event == "open" and (arguments[0] in ("/dev/null", None) or isinstance(arguments[0], int)):
            return
        if event in (
            "open",
            "subprocess.Popen",
            "os.exec",
            "os.system",
            "os.fork",
            "os.posix_spawn",
        ) or event.startswith(("socket.", "urllib.")):
            raise Opened(event)

    sys.addaudithook(door)


def load_everything() -> None:
    """One letter of each kind, every charset, every kind of file."""
    for module in pkgutil.iter_modules(encodings.__path__):
        if module.name not in ("mbcs", "oem", "cp65001"):
            importlib.import_module(f"encodings.{module.name}")
    every = [
        ("a.eml", letters.xdm_mail()), ("b.eml", letters.dsn(original_message_id="<a@b>")), ("c.pdf", printed.letter()),
        ("d.eml", letters.mdn(original_message_id="<a@b>")), ("e.json", fhir.dumped(fhir.document())), ("f.xml", b"<a"),
        ("g.json", b"{"), ("h.zip", b"PK\x03\x04"), ("i.pdf", b"%PDF-"), ("j.eml", wards.MAILS["outlook_table"].raw),
        *((name, one.content) for name, one in (hl7.LETTERS | hprim.LETTERS).items()),
    ]  # fmt: skip
    for name, content in every:
        json.dumps(to_json(recognise(read_file(name, content)), file=name))


def holds_pdf(document: Document) -> bool:
    """Whether reading it asks PDFium, by itself or inside a package, a message or a bundle."""
    return b"%PDF" in document.raw or b"JVBER" in document.raw or any(
        pdf.looks_like_pdf(part.content(2048)) for part in document.parts if not part.is_message
    )  # fmt: skip


def peak_again() -> int:
    """KiB: the most this process held since the last call."""
    with_peak = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    _CLEAR.write("5")
    return int(with_peak.split()[1])


class _Kept:
    """A file of /proc that stays open across the seal."""

    def __init__(self, name: str, mode: str) -> None:
        self.file = open(f"/proc/self/{name}", mode)  # noqa: SIM115  # for as long as the process runs

    def read_text(self) -> str:
        self.file.seek(0)
        return self.file.read()

    def write(self, text: str) -> None:
        self.file.write(text)
        self.file.flush()


_STATUS, _CLEAR = _Kept("status", "r"), _Kept("clear_refs", "w")


def tempted(by: str) -> None:
    """What a parser would do that content commands."""
    match by:
        case "file":
            Path("/etc/hostname").read_bytes()
        case "entity":  # opened by libxml2, unseen by Python
            from lxml import etree

            parser = etree.XMLParser(resolve_entities=True, load_dtd=True, no_network=False)
            etree.fromstring(b'<!DOCTYPE a SYSTEM "file:///etc/hostname"><a/>', parser)
        case "socket":
            import socket

            socket.socket().close()
        case "program":
            import os

            os.spawnv(os.P_WAIT, "/bin/true", ["true"])
        case "memory":
            bytearray(530 * 2**20)
        case "time":
            began = time.process_time()
            while time.process_time() - began < 0.5:
                pass
        case "error":
            raise RuntimeError("by content")


def main() -> None:
    with_pdf, temptations = "--pdf" in sys.argv, [one for one in sys.argv[1:] if not one.startswith("-")]
    load_everything()
    import socket  # noqa: F401

    from lxml import etree  # noqa: F401  # loaded before the seal

    resource.setrlimit(
        resource.RLIMIT_AS, (2 * 2**30, 2 * 2**30)
    )  # the machine's protection; 512 MB is measured
    peak_again()
    watch() if with_pdf else seal()
    requests = sys.stdin.buffer
    while len(head := requests.read(HEAD.size)) == HEAD.size:
        size, length = HEAD.unpack(head)
        name, content = requests.read(size).decode(), requests.read(length)
        row: dict[str, object] = {"name": name}
        peak_again()
        began = time.process_time(), time.monotonic()
        for one in temptations:
            tempted(one)
        document = read_file(name, content)
        if holds_pdf(document) and not with_pdf:
            row["pdf"] = True
        else:
            found = to_json(recognise(document), file=name)
            row |= {
                "outcome": found["outcome"],
                "why": found["why"],
                "event": found["event"],
                "mail": document.is_mail,
            }
            row |= {
                "patient": found["patient"] is not None,
                "problems": [one["code"] for one in found["problems"]],
            }  # type: ignore[attr-defined]
        row |= {
            "seconds": max(time.process_time() - began[0], time.monotonic() - began[1]),
            "peak": peak_again(),
        }
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
