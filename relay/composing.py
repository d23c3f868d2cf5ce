"""Write a mail from its recipe: the same recipe and the same original give the same bytes, for ever.

Attachments are copied from their place in the original, headers and encoded body, byte for byte: the PDF
and IHE_XDM.zip that arrive at the GP's are those the ward sent. Only what SMTP cannot carry as it stands
(bare line feeds, lines over 998 bytes) is encoded anew, and decodes to the same bytes. HL7 v2 and FHIR, which
nobody at a practice opens, give way to the documents they enclose; a movement that encloses none gives way to nothing.

HTML that says more than the plain words beside it leaves as words below them: those are read at once, load nothing
from elsewhere and run nothing. Where there are no plain words, the HTML is attached as well, as it stood.
"""

from __future__ import annotations

import base64
import binascii
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass

from relay.formats import fhir, hl7v2, hprim
from relay.formats.enclosed import Enclosed
from relay.model import MailRecipe
from relay.reading import BARE_LF, Document, Part, html_text, parse_addresses, read_alone

_LINE_LIMIT = 998  # RFC 5322 §2.1.1
_FOLD_AT = 76
_CONTROLS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")
_NAME = re.compile(r"[!-9;-~]{1,76}")
_PEOPLE = frozenset({"from", "to", "cc", "bcc", "reply-to", "sender", "disposition-notification-to", "resent-from",
                     "resent-to", "return-receipt-to"})  # fmt: skip
_OWN = frozenset({"content-type", "content-transfer-encoding", "content-disposition", "mime-version"})
_MAYBE_HPRIM = ("text/plain", "application/octet-stream", "application/x-hprim")
_WORD = re.compile(r"\w+")
_PATIENCE = 500_000_000  # characters compared before HTML is taken to say more: a hostile mail would go on for minutes
_ATOMS = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]*", re.ASCII)
_SIGNATURES = ("application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature")
_FILES = {
    "application/zip": ("application/zip", "IHE_XDM.zip"),
    "application/pdf": ("application/pdf", "lettre.pdf"),
    "text/xml": ("text/xml", "lettre.xml"),
    "x-application/hl7-v2+er7": ("x-application/hl7-v2+er7", "message.hl7"),
    "application/json": ("application/json", "message.json"),
}


def compose(recipe: MailRecipe, original: bytes | None) -> bytes:
    """The message with CRLF line ends. `original` is the whole of the arrival whose documents are carried.

    Line breaks in a recipe's header values are dropped: no value can add a header.
    """
    text = recipe.text
    parts: tuple[bytes, ...] = ()
    if original is not None and recipe.carries != "none":
        handed = hand_on(read_alone(original))
        if handed.words.strip():
            text = f"{text.rstrip()}\n\n{handed.words}"
        if recipe.carries == "documents":
            parts = handed.parts
    head = b"".join(_header(name, value) for name, value in recipe.headers if name.lower() not in _OWN)
    head += b"MIME-Version: 1.0\r\n"
    body = _text_part(text)
    if not parts:
        return head + body
    boundary = recipe.boundary.encode("ascii")
    line = b"\r\n--" + boundary + b"\r\n"
    return b"".join(
        (
            head,
            b'Content-Type: multipart/mixed; boundary="' + boundary + b'"\r\n',
            line,
            body,
            *(piece for part in parts for piece in (line, part)),
            b"\r\n--" + boundary + b"--\r\n",
        )
    )


# ------------------------------------------------------------------------------------------------------- documents


@dataclass(frozen=True, slots=True)
class HandedOn:
    """What of an arrival leaves with a copy: its words, and its documents as whole MIME parts."""

    words: str
    parts: tuple[bytes, ...]
    is_letter: bool  # a document stands among it, or a person wrote the words

    @property
    def size(self) -> int:
        """Bytes on the wire, boundaries aside."""
        return len(_text_part(self.words)) + sum(map(len, self.parts))


def hand_on(document: Document) -> HandedOn:
    """The words and documents of an arrival; nothing where a hospital's system only tells of a movement."""
    if not document.is_mail:
        return _of_file(document)
    words = _worded(document)
    if document.enclosed is not None:  # sent on as an attachment: its letter leaves, its headers stay here
        document = document.enclosed
        words = f"{words.rstrip()}\n\n{_worded(document)}"
    parts: list[bytes] = []
    explained = False  # the words only present an event of the hospital's system
    for part in _attached(document):
        content = part.content() if _is_wrapping(part.content(4096)) else b""
        inside = _unwrapped(content) if content else None
        if inside is None:
            parts.append(_copied(document, part))
            continue
        explained = True
        parts += map(_file, inside)
        if told := fhir.words(content):
            words = f"{words.rstrip()}\n\n{told}"
    return HandedOn(words, tuple(parts), bool(parts) or (bool(words.strip()) and not explained))


def _of_file(document: Document) -> HandedOn:
    """A file or message by itself, without a mail around it."""
    raw, media_type = document.raw, document.parts[0].media_type
    if _is_wrapping(raw[:4096]):
        inside = _unwrapped(raw)
        if inside is not None:
            return HandedOn(fhir.words(raw), tuple(map(_file, inside)), bool(inside))
        if hl7v2.looks_like(raw[:4096]):
            media_type = "x-application/hl7-v2+er7"
    elif media_type in _MAYBE_HPRIM and hprim.looks_like(raw[:16_384]):
        return HandedOn(hprim.words(raw), (_file(Enclosed("lettre.hpr", "application/x-hprim", raw)),), True)
    if media_type == "text/plain":
        return HandedOn(document.text, (), bool(document.text.strip()))
    kind, name = _FILES.get(media_type, ("application/octet-stream", "document.bin"))
    return HandedOn("", (_file(Enclosed(name, kind, raw)),), True)


def _is_wrapping(head: bytes) -> bool:
    return hl7v2.looks_like(head) or fhir.looks_like_fhir(head)


def _unwrapped(content: bytes) -> tuple[Enclosed, ...] | None:
    """The documents inside HL7 v2 or FHIR; None where they cannot be had, and the file goes as it came."""
    return hl7v2.documents(content) if hl7v2.looks_like(content[:4096]) else fhir.documents(content)


def _attached(document: Document) -> Iterator[Part]:
    """The parts of a mail that are no words of its own, in their order."""
    worded = _is_worded(document)
    for part in document.parts:
        if part.media_type in _SIGNATURES:  # of a body that no longer is
            continue
        if part.is_text and (part.media_type == "text/plain" or (worded and not _is_closed(part))):
            continue
        yield part


def _worded(document: Document) -> str:
    """The words of a mail: its plain text as it stands, and below it whatever its HTML alone says."""
    words = document.text
    bodies = [part for part in document.parts if part.is_text and part.media_type == "text/html"]
    if not bodies or not _is_worded(document):
        return words  # where HTML is all there is, they are its words already
    said = f" {' '.join(_WORD.findall(words))} ".casefold()
    more = [told for part in bodies if _says_more(told := html_text(part.text()), said)]
    return "\n\n".join((words.rstrip(), *more)) if more else words


def _is_worded(document: Document) -> bool:
    return any(
        part.is_text and part.media_type == "text/plain" and part.text().strip() for part in document.parts
    )


def _is_closed(part: Part) -> bool:
    """HTML whose words cannot be had: it leaves as it came."""
    markup = part.text()
    return bool(markup.strip()) and not html_text(markup)


def _says_more(told: str, said: str) -> bool:
    """Whether a line of `told` stands nowhere in `said`, words parted by single spaces. Wrapping and marks do not count."""
    lines = [" ".join(_WORD.findall(line)) for line in told.casefold().split("\n")]
    if len(lines) * len(said) > _PATIENCE:
        return True
    return any(f" {line} " not in said for line in lines if line)


def _copied(document: Document, part: Part) -> bytes:
    """The part as it stood. The body of a message that is one attachment takes its content headers along."""
    raw = document.raw
    if part.is_text or not part.inside:
        headers = _content_headers(document, part)
        span = raw[part.body : part.end]
    else:
        headers = b""
        span = raw[part.start : part.end]
    if part.encoding == "binary" or not _fits(span):
        if part.is_message:  # may not be encoded (RFC 2046 §5.2.1): line ends only
            return headers + _crlf(span)
        if part.encoding in ("base64", "quoted-printable") and _short_lines(_crlf(span)):
            return headers + _crlf(span)
        return _encoded(part.content(), headers if headers else raw[part.start : part.body])
    return headers + span


def _content_headers(document: Document, part: Part) -> bytes:
    """The Content-* fields of the part, a disposition added where it would be shown as the mail's own words."""
    if part.inside:
        block = _crlf(document.raw[part.start : part.body]).rstrip(b"\r\n")
        lines = re.split(rb"\r\n(?![ \t])", block) if block else []
    else:
        lines = [
            name.title().encode("latin-1", "replace") + b":" + _crlf(value).rstrip()
            for name, value in document.fields
            if name.startswith("content-")
        ]
    if part.is_text:
        lines = [line for line in lines if not line.lower().startswith(b"content-disposition")]
        lines.append(b'Content-Disposition: attachment; filename="lettre.html"')
    return b"\r\n".join(lines) + b"\r\n\r\n"


def _fits(span: bytes) -> bool:
    """Whether SMTP carries it as it stands: CRLF only, no NUL, no line too long (RFC 5321 §4.5.3.1.6)."""
    return BARE_LF.search(span) is None and b"\x00" not in span and _short_lines(span)


def _short_lines(span: bytes, limit: int = _LINE_LIMIT) -> bool:
    """Whether no line is longer, looking at the last line end alone in each stretch of that length."""
    start, end = 0, len(span)
    while end - start > limit:
        line_end = span.rfind(b"\r\n", start, start + limit + 2)
        if line_end < 0:
            return False
        start = line_end + 2
    return True


def _crlf(text: bytes) -> bytes:
    return re.sub(rb"\r?\n", b"\r\n", text)


def _encoded(content: bytes, headers: bytes) -> bytes:
    """A part written anew in base64 under its own headers."""
    block = _crlf(headers).rstrip(b"\r\n")
    block = re.sub(rb"(?im)^content-transfer-encoding:[^\n]*(?:\n[ \t][^\n]*)*(?:\n|$)", b"", block).rstrip(
        b"\r\n"
    )
    lines = base64.encodebytes(content).replace(b"\n", b"\r\n")
    return block + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + lines


def _file(enclosed: Enclosed) -> bytes:
    """A document that stood in no MIME part before."""
    headers = (
        f'Content-Type: {enclosed.media_type}; name="{enclosed.name}"\r\n'
        f'Content-Disposition: attachment; filename="{enclosed.name}"\r\n'
    )
    return _encoded(enclosed.content, headers.encode("ascii"))


def _text_part(text: str) -> bytes:
    """UTF-8 text that any server passes on unchanged."""
    lines = _CONTROLS_BUT_LINES.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
    content = lines.rstrip("\n").replace("\n", "\r\n").encode("utf-8", "replace") + b"\r\n"
    head = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: "
    if content.isascii() and _short_lines(content, _FOLD_AT * 2):
        return head + b"7bit\r\n\r\n" + content
    sample = content[:4096]
    if len(sample.translate(None, _ASCII)) * 5 < len(sample):
        return head + b"quoted-printable\r\n\r\n" + binascii.b2a_qp(content, istext=True)
    return head + b"base64\r\n\r\n" + base64.encodebytes(content).replace(b"\n", b"\r\n")


_ASCII = bytes(range(128))
_CONTROLS_BUT_LINES = re.compile(r"[\x00-\x08\x0b\x0e-\x1f\x7f]")


# --------------------------------------------------------------------------------------------------------- headers


def _header(name: str, value: str) -> bytes:
    """One field, folded, in ASCII. Raises ValueError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise ValueError("not a header name")
    value = _CONTROLS.sub(" ", value).strip()
    if name.lower() in _PEOPLE:
        value = ", ".join(_mailbox(display, address) for display, address in _people(value)) or value
    if not value.isascii() or any(len(word) > _LINE_LIMIT - 80 for word in value.split(" ")):
        value = " ".join(_words(value))
    return f"{_folded(name, value)}\r\n".encode("ascii", "replace")


def _people(value: str) -> list[tuple[str, str]]:
    """(display name, address); one name with one address may hold any character."""
    angles = re.findall(r"<[^<>\s]+@[^<>\s]+>", value)
    if len(angles) == 1 and value.endswith(angles[0]):
        display = re.sub(r"[<>]", " ", value[: -len(angles[0])]).strip()
        return [(display.strip('"').replace('\\"', '"').strip(), angles[0][1:-1])]
    if re.fullmatch(r"[^\s<>,;]+@[^\s<>,;]+", value):
        return [("", value)]
    return list(parse_addresses(value))


def _mailbox(display: str, address: str) -> str:
    if not display:
        return address
    if not display.isascii() or "=?" in display:
        shown = _phrase(display)
    elif _ATOMS.fullmatch(display):
        shown = display
    else:
        shown = '"' + display.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{shown} <{address}>"


def _phrase(display: str) -> str:
    """Atoms as they stand, encoded words for the rest (RFC 2047 §5 (3)).

    Two encoded words side by side are one text, and some readers of addresses put a space between them:
    « (Relais ) ». So a run is encoded whole where it fits, and a ward's long name breaks at its plain words.
    """
    shown: list[str] = []
    for plain, run in itertools.groupby(display.split(), _is_atom):
        words = list(run)
        shown += words if plain else _words(" ".join(words))
    return " ".join(shown)


def _is_atom(word: str) -> bool:
    return _ATOMS.fullmatch(word) is not None and "=?" not in word and len(word) < _FOLD_AT


def _words(text: str) -> Iterator[str]:
    """RFC 2047 encoded words of at most 75 characters, cut between characters."""
    piece = b""
    for character in text:
        encoded = character.encode("utf-8", "replace")
        if len(piece) + len(encoded) > 39:  # the line with its field name stays within 76
            yield f"=?utf-8?B?{base64.b64encode(piece).decode('ascii')}?="
            piece = b""
        piece += encoded
    if piece:
        yield f"=?utf-8?B?{base64.b64encode(piece).decode('ascii')}?="


def _folded(name: str, value: str) -> str:
    """Broken before spaces so that lines stay short; a word that is longer stands on a line of its own."""
    lines = [f"{name}:"]
    for word in value.split(" "):
        if len(lines[-1]) + 1 + len(word) > _FOLD_AT and lines[-1].strip() and lines[-1] != f"{name}:":
            lines.append(f" {word}" if word else " ")
        else:
            lines[-1] += f" {word}"
    return "\r\n".join(line for line in lines if line.strip())
