"""Hostile bytes in, a Document out: the walk through headers and MIME parts, under bounds, never raising.

Only the header blocks are looked at line by line; bodies are cut at their boundaries with one search and
decoded when somebody asks. Every part keeps its place in the raw bytes, so that what is sent on can be
copied as it stood. What breaks a rule or a bound is named in `Document.flaws`; what could be read stays.
"""

from __future__ import annotations

import binascii
import codecs
import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import ParamSpec, TypeVar
from urllib.parse import unquote_to_bytes

from lxml import etree, html

MAX_PARTS = 1000
MAX_DEPTH = 20
MAX_HEADER = 256 * 1024  # bytes of one header block
MAX_FIELDS = 1000  # of one header block
MAX_CONTENT = 100 * 2**20  # bytes of one decoded part
MAX_TEXT = 16 * 2**20  # bytes of one part read as text
_MAX_FALSE_BOUNDARIES = 10_000  # lines that begin like a boundary and are none

Argument = ParamSpec("Argument")
Result = TypeVar("Result")
Default = TypeVar("Default")


def never_raises(
    default: Default,
) -> Callable[[Callable[Argument, Result]], Callable[Argument, Result | Default]]:
    """Whatever the bytes do to the code below, the caller gets `default`: the one place where that is caught."""

    def guard(function: Callable[Argument, Result]) -> Callable[Argument, Result | Default]:
        @functools.wraps(function)
        def guarded(*args: Argument.args, **kwargs: Argument.kwargs) -> Result | Default:
            try:
                return function(*args, **kwargs)
            except Exception:  # noqa: BLE001  # RecursionError, LookupError, UnicodeError…: bytes from outside
                return default

        return guarded

    return guard


# ------------------------------------------------------------------------------------------------------ charsets

_TEXT_CODECS = ("utf", "iso8859", "cp", "koi8", "mac", "ascii", "latin", "big5", "gb", "euc", "shift_jis",
                "iso2022", "johab", "hz", "tis", "ptcp154", "kz1048", "hp-roman8")  # fmt: skip
_NEVER = frozenset({"utf-7", "utf_7", "utf8-sig"})  # UTF-7 hides markup; no mail of today needs it


@functools.lru_cache(maxsize=256)
def _codec(label: str) -> str | None:
    """Python's name of a charset label; None for one that is unknown or is no charset (punycode, idna: quadratic)."""
    try:
        name = codecs.lookup(label.strip().lower()).name
    except (LookupError, ValueError):
        return None
    if name in _NEVER or not name.startswith(_TEXT_CODECS):
        return None
    # What calls itself Latin-1 or ASCII is windows-1252 or UTF-8 in practice (WHATWG encoding standard §4.2).
    return {"iso8859-1": "cp1252", "ascii": None}.get(name, name)


def decode(content: bytes, label: str | None = None) -> str:
    """Text of bytes whose label may lie: the label where it fits, else UTF-8, else windows-1252. Never raises."""
    for codec in (_codec(label) if label else None, "utf-8"):
        if codec:
            try:
                return content.decode(codec)
            except (UnicodeDecodeError, LookupError):
                continue
    return content.decode("cp1252", "replace")


_ENCODED_WORD = re.compile(r"=\?([\w.:+-]+)(?:\*[\w-]*)?\?([bBqQ])\?([^?]*)\?=")
_BETWEEN_WORDS = re.compile(r"(\?=)\s+(?==\?[\w.:+*-]+\?[bBqQ]\?)")
_FOLD = re.compile(r"\r?\n[ \t]?|[\r\n]")


def decode_words(value: str) -> str:
    """RFC 2047, tolerant: neighbouring words of one charset are joined as bytes before they are decoded."""
    if "=?" not in value:
        return value
    value = _BETWEEN_WORDS.sub(r"\1", value)
    out: list[str] = []
    pending, charset, place = b"", "", 0
    for word in _ENCODED_WORD.finditer(value):
        if word.start() > place or word[1].lower() != charset:
            out.append(decode(pending, charset) if pending else "")
            pending, charset = b"", word[1].lower()
            out.append(value[place : word.start()])
        source = word[3].encode("utf-8", "surrogateescape")
        if word[2] in "bB":
            pending += _base64(source)
        else:
            pending += binascii.a2b_qp(source, header=True)
        place = word.end()
    out.append(decode(pending, charset) if pending else "")
    out.append(value[place:])
    return "".join(out)


BARE_LF = re.compile(rb"\n(?<!\r\n)")
"""A line end without its CR. It begins with the LF, so that the search leaps from one to the next."""


def _base64(source: bytes | memoryview) -> bytes:
    """What can be decoded; damage at the end costs the last group only."""
    try:
        return binascii.a2b_base64(bytes(source).translate(None, b"\r\n"))  # twice as fast without line ends
    except binascii.Error:
        clean = re.sub(rb"[^A-Za-z0-9+/]", b"", bytes(source))
        clean = clean[: len(clean) - (len(clean) % 4 == 1)]
        return binascii.a2b_base64(clean + b"=" * (-len(clean) % 4))


# ------------------------------------------------------------------------------------------------------- headers

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)\n?")
_LINE = re.compile(rb"[^\n]*\n?")


def _unfolded(value: bytes) -> str:
    """The value on one line, still encoded. Bytes beyond ASCII are UTF-8 or windows-1252."""
    text = value.decode("ascii") if value.isascii() else decode(value)
    return _FOLD.sub(" ", text.strip()) if "\n" in text or "\r" in text else text.strip()


# One semicolon, never a run of them: from each place within a run the search would walk to its end.
_PARAMETER = re.compile(r';\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"?|([^;]*))', re.DOTALL)
_CONTINUED = re.compile(r"(.+?)(?:\*(\d{1,3}))?(\*)?$")


def parameters(value: str) -> tuple[str, dict[str, str]]:
    """`("text/plain", {"charset": "utf-8"})` of a structured field; RFC 2231 joined, RFC 2047 undone where misused."""
    head, _, _ = value.partition(";")
    plain: dict[str, str] = {}
    pieces: dict[str, dict[int, tuple[str, bool]]] = {}
    for found in _PARAMETER.finditer(value):
        name = found[1].lower()
        text = re.sub(r"\\(.)", r"\1", found[2]) if found[2] is not None else (found[3] or "").strip()
        shape = _CONTINUED.match(name)
        if shape and (shape[2] is not None or shape[3]):
            pieces.setdefault(shape[1], {})[int(shape[2] or 0)] = (text, bool(shape[3]))
        else:
            plain.setdefault(name, decode_words(text))
    for name, numbered in pieces.items():
        charset, raw = "", b""
        for number in sorted(numbered):
            text, extended = numbered[number]
            if extended and number == 0 and text.count("'") >= 2:
                charset, _, text = text.split("'", 2)
            source = text.encode("utf-8", "surrogateescape")
            raw += unquote_to_bytes(source) if extended else source
        plain[name] = decode(raw, charset or None)
    return head.strip().lower(), plain


_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def safe_filename(name: str) -> str | None:
    """The last step of a path without control or direction marks, at most 200 characters; None when nothing is left."""
    name = _UNSAFE.sub("", name).replace("\\", "/").rsplit("/", 1)[-1].strip().strip(".")
    if len(name) > 200:
        stem, dot, suffix = name.rpartition(".")
        name = f"{stem[: 199 - len(suffix)]}{dot}{suffix}" if dot and len(suffix) < 16 else name[:200]
    return name or None


_ADDRESS_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"?|[()<>,;:]|[^"()<>,;:]+', re.DOTALL)


@functools.lru_cache(maxsize=64)  # the same wards write to the same mailboxes all day
def parse_addresses(value: str) -> tuple[tuple[str, str], ...]:
    """(display name, address in lower case) of an address list as written; groups are opened, comments left out.

    An address that is no single `local@domain` is left out: whoever guesses sends to strangers.
    """
    found: list[tuple[str, str]] = []
    words: list[str] = []
    angle: list[str] | None = None
    closed = spoilt = False
    depth = 0

    def flush() -> None:
        nonlocal angle, closed, spoilt
        text = "".join(words).strip()
        address = "".join(angle).strip() if angle is not None else text
        display = text if angle is not None else ""
        if address.startswith("@") and ":" in address:  # a source route (RFC 5322 §4.4)
            address = address.rpartition(":")[2]
        local, at, domain = address.rpartition("@")
        if (
            at
            and local
            and domain
            and not re.search(r"\s", address)
            and ("@" not in local or local[0] == '"')
            and not spoilt
        ):
            if display[:1] == '"':
                display = re.sub(r"\\(.)", r"\1", display.strip('"'))
            found.append((decode_words(display).strip(), address.lower()))
        words.clear()
        angle, closed, spoilt = None, False, False

    for token in _ADDRESS_TOKEN.findall(value):
        if token == "(":
            depth += 1
        elif token == ")":
            depth = max(0, depth - 1)
        elif depth:
            continue
        elif token == "<" and angle is None:
            angle = []
        elif token == ">" and angle is not None:
            closed = True
        elif token in ",;" and (angle is None or closed):
            flush()
        elif angle is not None and not closed:
            angle.append(token)
        elif token == ":" and angle is None:
            words.clear()  # the name of a group
        elif not closed:
            words.append(token)
        elif "@" in token:  # `<one@a.fr> <two@b.fr>`: servers may vouch for either
            spoilt = True
    flush()
    return tuple(found)


# ---------------------------------------------------------------------------------------------------------- parts


_SEALS = ("application/pkcs7-signature", "application/x-pkcs7-signature")


@dataclass(frozen=True, slots=True)
class Part:
    """One leaf of the message. `raw[start:end]` is the part verbatim, headers and encoded body."""

    raw: bytes = field(repr=False)
    start: int  # the first byte of its headers
    body: int
    end: int
    media_type: str = "text/plain"
    charset: str | None = None
    filename: str | None = None
    disposition: str = ""  # "", "inline", "attachment"
    encoding: str = "7bit"
    inside: tuple[str, ...] = ()  # media types of the multiparts around it, outermost first
    _decoded: list[bytes] = field(default_factory=list, repr=False, compare=False)

    @property
    def is_text(self) -> bool:
        """It is words to read at once: a text body, no file."""
        return (
            self.media_type in ("text/plain", "text/html")
            and self.disposition != "attachment"
            and self.filename is None
        )

    @property
    def is_message(self) -> bool:
        """Another message, kept closed."""
        return self.media_type in ("message/rfc822", "message/global", "message/news")

    @property
    def is_seal(self) -> bool:
        """The S/MIME signature of the part before it."""
        return self.media_type in _SEALS and self.inside[-1:] == ("multipart/signed",)

    @property
    def size(self) -> int:
        """Bytes of the encoded body."""
        return self.end - self.body

    def content(self, limit: int = MAX_CONTENT) -> bytes:
        """The decoded bytes, at most `limit` of them; damage gives what can be had. Never raises."""
        if self._decoded:
            return self._decoded[0][:limit]
        content = _content(self, limit)
        if limit >= MAX_CONTENT and self.encoding == "base64":
            self._decoded.append(content)  # several look at it
        return content

    def text(self) -> str:
        """The decoded text with `\\n` line ends, at most MAX_TEXT bytes of it. Never raises."""
        text = decode(self.content(MAX_TEXT), self.charset)
        return text.replace("\r\n", "\n").replace("\r", "\n")


@never_raises(b"")
def _content(part: Part, limit: int) -> bytes:
    body = memoryview(part.raw)[part.body : part.end]
    if part.encoding == "base64":
        return _base64(body[: limit // 3 * 4 + limit // 16])[:limit]
    if part.encoding == "quoted-printable":
        return binascii.a2b_qp(body[: limit * 3])[:limit]
    return bytes(body[:limit])


_HEADER_NAMES = frozenset({b"from", b"to", b"subject", b"date", b"message-id", b"received", b"mime-version",
                           b"content-type", b"return-path", b"sender", b"delivered-to"})  # fmt: skip


@dataclass(frozen=True)
class Document:
    """What arrived, taken apart. Nothing here raises, whatever the bytes are."""

    raw: bytes = field(repr=False)
    fields: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)  # names in lower case, values raw
    parts: tuple[Part, ...] = ()
    flaws: tuple[str, ...] = ()
    is_mail: bool = False
    name: str | None = None  # of a file that is no mail

    @never_raises(None)
    def header(self, name: str) -> str | None:
        """The first field of this name, unfolded and decoded."""
        wanted = name.lower()
        for known, value in self.fields:
            if known == wanted:
                return decode_words(_unfolded(value))
        return None

    @never_raises(())
    def headers(self, name: str) -> tuple[str, ...]:
        """Every field of this name, in order."""
        wanted = name.lower()
        return tuple(decode_words(_unfolded(value)) for known, value in self.fields if known == wanted)

    @never_raises(())
    def addresses(self, name: str) -> tuple[tuple[str, str], ...]:
        """(display name, address in lower case) of every field of this name."""
        wanted = name.lower()
        return tuple(
            one
            for known, value in self.fields
            if known == wanted
            for one in parse_addresses(_unfolded(value))
        )

    @functools.cached_property
    def media_type(self) -> str:
        """Of the whole message."""
        return parameters(self.header("content-type") or "text/plain")[0]

    @functools.cached_property
    def message_id(self) -> str | None:
        """With its angle brackets."""
        ids = _ids(self.header("message-id"))
        return ids[0] if ids else None

    @functools.cached_property
    def subject(self) -> str:
        """Decoded, on one line."""
        return self.header("subject") or ""

    @functools.cached_property
    def from_(self) -> str | None:
        """The author's address in lower case; None where there is none, or where several fields or authors stand."""
        senders = {address for _, address in self.addresses("from")}
        return senders.pop() if len(senders) == 1 else None

    @functools.cached_property
    def reply_to(self) -> str | None:
        """Where the author wants answers, if it was said."""
        found = self.addresses("reply-to")
        return found[0][1] if found else None

    @functools.cached_property
    def to(self) -> tuple[str, ...]:
        """The addresses of To and Cc."""
        return tuple(dict.fromkeys(a for name in ("to", "cc") for _, a in self.addresses(name)))

    @functools.cached_property
    def date(self) -> datetime | None:
        """The Date field in UTC."""
        return _date(self.header("date") or "")

    @functools.cached_property
    def in_reply_to(self) -> tuple[str, ...]:
        """Message-IDs with their angle brackets."""
        return _ids(self.header("in-reply-to"))

    @functools.cached_property
    def references(self) -> tuple[str, ...]:
        """Message-IDs with their angle brackets, oldest first."""
        return _ids(self.header("references"))

    @functools.cached_property
    def text(self) -> str:
        """The words to read: plain text parts joined, else HTML turned into text; quotations of HTML bear `>`."""
        plain = [part.text() for part in self.parts if part.is_text and part.media_type == "text/plain"]
        if any(text.strip() for text in plain):
            return "\n".join(plain)
        return "\n".join(html_text(part.text()) for part in self.parts if part.is_text)

    @functools.cached_property
    def enclosed(self) -> Document | None:
        """The one mail that somebody sent on as an attachment, opened; None when there is none, or more hangs on it."""
        if (
            self.media_type == "multipart/report"
            or len(self.attachments) != 1
            or not self.attachments[0].is_message
        ):
            return None
        inner = read(self.attachments[0].content())
        return inner if inner.is_mail else None

    @property
    def attachments(self) -> tuple[Part, ...]:
        """Every leaf that is no text body, nor the signature of one, in order; a report's or a forwarded message too."""
        return tuple(part for part in self.parts if not (part.is_text or part.is_seal))


_MESSAGE_ID = re.compile(r"<[^<>]{1,900}>")


def _ids(value: str | None) -> tuple[str, ...]:
    """Message-IDs without inner spaces; a lone word without brackets counts as one."""
    if not value:
        return ()
    value = re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\ud800-\udfff]", "", value)  # what no database takes as text
    found = [re.sub(r"\s", "", one) for one in _MESSAGE_ID.findall(value)[:200]]
    if not found and "@" in value and not re.search(r"\s", value.strip()):
        found = [f"<{value.strip()}>"]
    return tuple(dict.fromkeys(found))


@never_raises(None)
def _date(value: str) -> datetime:
    moment = parsedate_to_datetime(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


# ---------------------------------------------------------------------------------------------------------- reading


def read(raw: bytes) -> Document:
    """A mail as it came. Bytes that are no mail give `is_mail` False and the flaw `not_mail`. Never raises."""
    found = _read(raw)
    if found is not None:
        return found
    return Document(raw, parts=(Part(raw, 0, 0, len(raw), "application/octet-stream"),),
                                  flaws=("unreadable",))  # fmt: skip


@never_raises(None)
def _read(raw: bytes) -> Document:
    given = raw
    if b"\r" in raw and b"\n" not in raw:
        raw = raw.replace(b"\r", b"\n")  # lines of another age; every place stays where it was
    walk = _Walk(raw)
    start = _first(raw)
    fields, body = walk.header_block(start, len(raw))
    is_mail = any(name in _HEADER_NAMES for name, _ in fields)
    if not is_mail:
        whole = Part(given, 0, 0, len(given), _sniffed(given[:4096]), encoding="8bit")
        return Document(given, parts=(whole,), flaws=("not_mail",))
    if sum(name == b"from" for name, _ in fields) > 1:
        walk.flaw("many_from")
    walk.leaf_or_parts(start, body, len(raw), fields, (), "text/plain")
    named = tuple((name.decode("latin-1"), value) for name, value in fields)
    return Document(raw, named, tuple(walk.parts), tuple(walk.flaws), is_mail=True)


class _Walk:
    """The state of one walk: the leaves found and the flaws met."""

    __slots__ = ("flaws", "parts", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.parts: list[Part] = []
        self.flaws: list[str] = []

    def flaw(self, slug: str) -> None:
        if slug not in self.flaws:
            self.flaws.append(slug)

    def header_block(self, start: int, end: int) -> tuple[list[tuple[bytes, bytes]], int]:
        """The fields, names in lower case, and where the body begins."""
        raw, place = self.raw, start
        fields: list[tuple[bytes, bytes]] = []
        limit = min(end, start + MAX_HEADER)
        while len(fields) < MAX_FIELDS:
            found = _FIELD.match(raw, place, limit)
            if found is not None:
                fields.append((found[1].lower(), found[2]))
                place = found.end()
                continue
            if raw.startswith(b"\r\n", place):
                return fields, min(place + 2, end)
            if raw.startswith(b"\n", place):
                return fields, min(place + 1, end)
            if raw.startswith(b"\r\r\n", place):  # gateways that turn CRLF into CRCRLF
                return fields, min(place + 3, end)
            if place >= end:
                return fields, end
            line = _LINE.match(raw, place, limit)
            after = line.end() if line else limit
            if fields and place < limit and _FIELD.match(raw, after, limit) is not None:
                # One spoilt line must not hide the fields below it, nor the attachments they announce.
                self.flaw("bad_header_line")
                place = after
                continue
            self.flaw("header_too_large" if place >= limit else "header_not_closed")
            return fields, place
        self.flaw("too_many_headers")
        blank = re.compile(rb"\n\r?\n").search(raw, place - 1, end)
        return fields, blank.end() if blank else end

    def leaf_or_parts(
        self,
        start: int,
        body: int,
        end: int,
        fields: list[tuple[bytes, bytes]],
        inside: tuple[str, ...],
        default: str,
    ) -> None:
        wanted = {b"content-type", b"content-transfer-encoding", b"content-disposition"}
        said: dict[bytes, str] = {}
        for key, value in fields:
            if key in wanted and key not in said:
                said[key] = _unfolded(value)
        media_type, settings = parameters(said.get(b"content-type", ""))
        if media_type.count("/") != 1:
            media_type = default if not media_type or media_type == "text" else "application/octet-stream"
        if media_type.startswith("multipart/"):
            if len(inside) >= MAX_DEPTH:
                self.flaw("too_deep")
                media_type = "application/octet-stream"
            elif settings.get("boundary"):
                regions = self.regions(body, end, settings["boundary"])
                if regions:
                    inner = (*inside, media_type)
                    kind = "message/rfc822" if media_type == "multipart/digest" else "text/plain"
                    for first, last in regions:
                        if len(self.parts) >= MAX_PARTS:
                            self.flaw("too_many_parts")
                            return
                        own, own_body = self.header_block(first, last)
                        self.leaf_or_parts(first, own_body, last, own, inner, kind)
                    return
                self.flaw("boundary_not_found")
                media_type = "text/plain"
            else:
                self.flaw("no_boundary")
                media_type = "text/plain"
        disposition, more = parameters(said.get(b"content-disposition", ""))
        name = more.get("filename") or settings.get("name")
        self.parts.append(
            Part(
                self.raw,
                start,
                body,
                end,
                media_type,
                settings.get("charset"),
                safe_filename(name) if name else None,
                disposition
                if disposition in ("inline", "attachment")
                else "attachment"
                if disposition
                else "",
                said.get(b"content-transfer-encoding", "7bit").split(";")[0].strip().lower() or "7bit",
                inside,
            )
        )

    def regions(self, body: int, end: int, boundary: str) -> list[tuple[int, int]]:
        """(first byte, byte after the last) of each part; the line end before a boundary belongs to the boundary."""
        raw = self.raw
        out: list[tuple[int, int]] = []
        mark = b"\n--" + boundary.rstrip().encode("utf-8", "surrogateescape")
        place, opened, false = body - 1, -1, 0
        if body == 0 or raw[body - 1 : body] != b"\n":
            place = body  # only where a header block was cut: the boundary must follow a line end
        while (found := raw.find(mark, place, end)) >= 0:
            after = found + len(mark)
            closing = raw.startswith(b"--", after)
            line_end = raw.find(b"\n", after, min(end, after + 200))
            tail = raw[after + 2 * closing : line_end if line_end >= 0 else min(end, after + 200)]
            if tail.strip(b" \t\r"):
                false += 1
                if false > _MAX_FALSE_BOUNDARIES:
                    self.flaw("too_many_boundaries")
                    break
                place = after
                continue
            if opened >= 0:
                out.append((opened, max(opened, found - (raw[found - 1 : found] == b"\r"))))
                if len(out) > MAX_PARTS:
                    self.flaw("too_many_parts")
                    return out
            opened = line_end + 1 if line_end >= 0 else end
            if closing:
                return out
            place = opened - 1 if opened > found + 1 else after
        if opened >= 0:
            self.flaw("not_closed")  # perhaps cut on the way
            out.append((opened, end))
        return out


# ----------------------------------------------------------------------------------------------------------- S/MIME

_SEALED = ("application/pkcs7-mime", "application/x-pkcs7-mime")
_ENDS = re.compile(rb"\n\r?\n")


@dataclass(frozen=True, slots=True)
class Seal:
    """The outermost S/MIME layer of a mail (RFC 8551 §3.2, §3.5).

    `cms`: its structure, DER or BER; empty where the layer is announced and cannot be found. `signed`: the
    entity that a signature beside it covers, with CRLF line ends; None when the content is within `cms`.
    `author`: the address in From.
    """

    cms: bytes = field(repr=False)
    signed: bytes | None = field(repr=False)
    author: str | None


def may_be_sealed(raw: bytes) -> bool:
    """Whether the first header block speaks of S/MIME at all: a look of microseconds."""
    blank = _ENDS.search(raw, 0, MAX_HEADER)
    head = raw[: blank.start() if blank else MAX_HEADER].lower()
    return b"pkcs7" in head or b".p7m" in head


def seal(raw: bytes) -> Seal | None:
    """The layer around a mail; None for any other mail. Never raises."""
    return _seal(raw) if may_be_sealed(raw) else None


@never_raises(None)
def _seal(raw: bytes) -> Seal | None:
    document = read(raw)
    if not document.is_mail:
        return None
    media_type, settings = parameters(document.header("content-type") or "")
    if media_type == "multipart/signed":
        if "pkcs7" not in settings.get("protocol", "pkcs7").lower():
            return None
        # Exactly two parts (RFC 1847 §2.1): what stands beside them would be read and was never signed.
        walk = _Walk(raw)
        _, body = walk.header_block(_first(raw), len(raw))
        regions = walk.regions(body, len(raw), settings.get("boundary", ""))
        broken = Seal(b"", b"", document.from_)
        if len(regions) != 2 or "not_closed" in walk.flaws or not settings.get("boundary"):
            return broken
        (first, last), (own, end) = regions
        beside = [part for part in document.parts if part.start == own]
        if len(beside) != 1 or beside[0].media_type not in _SEALS or beside[0].end != end:
            return broken
        signed = raw[first:last]
        if BARE_LF.search(signed):
            signed = re.sub(rb"\r?\n", b"\r\n", signed)
        return Seal(beside[0].content(), signed, document.from_)
    if len(document.parts) != 1 or media_type.startswith("multipart/"):
        return None
    (part,) = document.parts
    named = part.media_type == "application/octet-stream" and (part.filename or "").lower().endswith(".p7m")
    if part.media_type not in _SEALED and not named:  # gateways forget the type (RFC 8551 §3.2.1)
        return None
    if settings.get("smime-type", "").lower() == "certs-only":
        return None
    return Seal(part.content(), None, document.from_)


def _first(raw: bytes) -> int:
    """Where the header block of a mail begins."""
    if raw[:5] == b"From " or raw[:6] == b">From ":  # an mbox line left by a delivery agent
        return raw.find(b"\n") + 1
    return 3 if raw[:3] == codecs.BOM_UTF8 else 0


def unsealed(raw: bytes, entity: bytes) -> bytes | None:
    """The mail `raw` with the MIME entity that its seal held in the place of its body.

    Content fields come from the entity, all others from the mail: who opens it reads the same From and
    Subject as who does not. Text without any field counts as plain text; None for what is neither.
    """
    fields, _ = _Walk(raw).header_block(_first(raw), len(raw))
    outer = [(name, value) for name, value in fields if not name.startswith(b"content-")]
    inner, body = _Walk(entity).header_block(0, len(entity))
    own = [(name, value) for name, value in inner if name.startswith(b"content-")]
    if not own:
        body = 0  # « Patient : … » at its top is a line of the letter, no field
        try:
            entity.decode("utf-8")
        except UnicodeDecodeError:
            return None
        if b"\x00" in entity:
            return None
        own = [(b"content-type", b" text/plain; charset=utf-8")]
    head = b"".join(name + b":" + value.rstrip(b"\r") + b"\r\n" for name, value in (*outer, *own))
    return head + b"\r\n" + entity[body:]


# ------------------------------------------------------------------------------------------------------------ files

_SUFFIXES = {
    "eml": "message/rfc822", "xml": "text/xml", "zip": "application/zip", "hl7": "x-application/hl7-v2+er7",
    "er7": "x-application/hl7-v2+er7", "hpr": "application/x-hprim", "json": "application/json",
    "pdf": "application/pdf", "txt": "text/plain",
}  # fmt: skip


def _sniffed(head: bytes) -> str:
    """The media type that the first bytes show."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")
    if head[:4] == b"PK\x03\x04" or head[:4] == b"PK\x05\x06":
        return "application/zip"
    if b"%PDF-" in head[:1024]:
        return "application/pdf"
    if text[:4] == b"MSH|":
        return "x-application/hl7-v2+er7"
    if text[:1] == b"<" or head[:4] in (b"\xff\xfe<\x00", b"\xfe\xff\x00<"):
        return "text/xml"
    if text[:1] in (b"{", b"["):
        return "application/json"
    return "application/octet-stream" if b"\x00" in head else "text/plain"


def read_file(name: str, raw: bytes) -> Document:
    """A file by its bytes, and by its name where the bytes do not tell. Mail is read as mail. Never raises."""
    suffix = name.rpartition(".")[2].lower()
    seen = _sniffed(raw[:4096])
    if seen in ("text/plain", "application/octet-stream"):
        if suffix in ("eml", "") or suffix not in _SUFFIXES or seen == "text/plain":
            document = read(raw)
            if document.is_mail and (suffix != "txt" or _heads_a_mail(document)):
                return document
        seen = _SUFFIXES.get(suffix, seen)
        if seen == "message/rfc822":
            return read(raw)
    part = Part(raw, 0, 0, len(raw), seen, None, safe_filename(name), "" if seen == "text/plain" else "attachment",
                "8bit")  # fmt: skip
    if seen == "text/plain":
        part = Part(raw, 0, 0, len(raw), seen, encoding="8bit")
    return Document(raw, parts=(part,), name=safe_filename(name))


def read_alone(raw: bytes) -> Document:
    """What arrived, by its bytes alone: as `read_file` takes it that knows its name. Never raises."""
    document = read(raw)
    return document if not document.is_mail or _heads_a_mail(document) else read_file("lettre.txt", raw)


_MAIL_MARKS = frozenset(
    {"received", "message-id", "mime-version", "content-type", "return-path", "delivered-to"}
)


def _heads_a_mail(document: Document) -> bool:
    """A text file may begin with « Date: … »; a mail bears what only programs write, or says from whom to whom."""
    names = {name for name, _ in document.fields}
    return bool(names & _MAIL_MARKS) or ("from" in names and bool(names & {"to", "subject"}))


# ---------------------------------------------------------------------------------------------------------- identity

_TRACE = frozenset({b"received", b"return-path", b"delivered-to", b"x-original-to", b"envelope-to", b"x-envelope-to",
                    b"authentication-results", b"received-spf", b"dkim-signature", b"domainkey-signature",
                    b"x-received", b"x-sieve", b"status", b"x-status", b"x-uid", b"x-keywords", b"lines",
                    b"x-loop", b"x-google-dkim-signature", b"x-mozilla-status", b"x-mozilla-status2"})  # fmt: skip
_TRACE_PREFIXES = (
    b"x-spam",
    b"x-virus",
    b"x-ms-exchange",
    b"x-forefront",
    b"arc-",
    b"resent-",
    b"x-rspam",
    b"x-amavis",
)


def fingerprint(raw: bytes) -> str:
    """SHA-256 of the message without what its way wrote on it: the same mail submitted again has the same."""
    digest = hashlib.sha256()
    walk = _Walk(raw)
    start = raw.find(b"\n") + 1 if raw[:5] == b"From " else 0
    fields, body = walk.header_block(start, len(raw))
    for name, value in fields:
        if name not in _TRACE and not name.startswith(_TRACE_PREFIXES):
            digest.update(name + b":" + b" ".join(value.split()) + b"\n")
    end = len(raw) - 64 + len(raw[-64:].rstrip()) if len(raw) > 64 else len(raw.rstrip())
    if BARE_LF.search(raw, body, end) is None:  # the ordinary case needs no copy
        digest.update(memoryview(raw)[body : max(body, end)])
    else:
        digest.update(re.sub(rb"\r?\n", b"\r\n", raw[body : max(body, end)]))
    return digest.hexdigest()


# -------------------------------------------------------------------------------------------------------------- HTML

_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "center",
        "div",
        "dl",
        "dt",
        "fieldset",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "tr",
        "ul",
    ]
)
_HIDDEN = frozenset(
    ["head", "noscript", "object", "script", "select", "style", "template", "textarea", "title"]
)
_STRUCK = frozenset(["del", "s", "strike"])
"""What somebody crossed out must not be read as said, by people or by the formats."""
_CELLS = frozenset(["td", "th", "dd"])
"""They stand on the line of what came before: a row's first cell, a list's term."""


@never_raises("")
def html_text(markup: str) -> str:
    """The words of HTML: a line per block, cells parted by tabs, quotations marked with `> `."""
    if not markup.strip():
        return ""
    parser = html.HTMLParser(encoding="utf-8", no_network=True, remove_comments=True, remove_pis=True)
    root = html.document_fromstring(markup.encode("utf-8", "replace"), parser=parser)
    lines: list[str] = []
    line: list[str] = []
    rows: list[tuple[list[str], int]] = []  # what stood before each open cell, and how many lines
    quoted = hidden = set_out = 0

    def end_line(*, always: bool = False) -> None:
        text = re.sub(r"[ \r\n]+", " ", "".join(line)).strip(" \t")
        line.clear()
        if text or always:
            lines.append("> " * min(quoted, 5) + text)

    def say(words: str) -> None:
        if set_out:  # `pre`: its line ends are meant
            *whole, words = words.replace("\r\n", "\n").split("\n")
            for each in whole:
                line.append(each)
                end_line(always=True)
        line.append(words)

    def end_cell() -> None:
        """Paragraphs in a cell break its line only where it has several: Word puts one into every cell."""
        nonlocal line
        before, mark = rows.pop()
        end_line()
        said = [one for one in lines[mark:] if one.strip("> ")]
        if len(said) <= 1:
            del lines[mark:]
            before.extend(one.removeprefix("> " * min(quoted, 5)) for one in said)
            line = before
        elif before:
            words = re.sub(r"[ \r\n]+", " ", "".join(before)).strip(" \t")
            lines.insert(mark, "> " * min(quoted, 5) + words)

    for event, element in etree.iterwalk(root, events=("start", "end")):
        tag = element.tag
        if event == "start":
            hidden += tag in _HIDDEN
            if tag in _BLOCKS:
                end_line()
            elif tag == "br":
                end_line(always=True)
            elif tag in _CELLS:
                if line:
                    line.append("\t")
                rows.append((line, len(lines)))
                line = []
            quoted += tag == "blockquote"
            set_out += tag == "pre"
            if tag in _STRUCK:
                line.append("[barré : ")
            if element.text and not hidden:
                say(element.text)
        else:
            if tag in _STRUCK:
                line.append("]")
            if tag in _CELLS and rows:
                end_cell()
                if tag == "dd":
                    end_line()
            elif tag in _BLOCKS and tag != "dt":
                end_line(always=tag == "p")
            hidden -= tag in _HIDDEN
            quoted -= tag == "blockquote"
            set_out -= tag == "pre"
            if element.tail and not hidden:
                say(element.tail)
    end_line()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip("\n") + "\n"
