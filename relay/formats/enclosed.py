"""Documents that stood inside a message, under names and types that a practice's programs know.

HL7 v2 and FHIR wrap the letter; nobody at a practice opens either. What was inside leaves byte for byte, its kind
told by its first bytes, because what the wrapping says of it is wrong often enough.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from relay import formats

MAX_DOCUMENTS: Final = 50
"""In one message. A file with more is no letter, and is handed on as it came."""

_OPENING: Final = 1024
_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}/[a-z0-9][a-z0-9.+-]{0,60}")


@dataclass(frozen=True, slots=True)
class Enclosed:
    """One document: the name it gets, its media type, and its bytes as they were before they were wrapped."""

    name: str
    media_type: str
    content: bytes = field(repr=False)


def named(contents: Iterable[tuple[bytes, str]]) -> tuple[Enclosed, ...]:
    """Every content once, in its order, with a name of its own; the type beside it counts where the bytes tell none.

    A CDA that is only the wrapping of a PDF (body level 1) is followed by that PDF.
    """
    found: list[Enclosed] = []
    taken: dict[str, int] = {}
    waiting = [(content, said) for content, said in contents if content]
    waiting += [(printed, "") for content, _ in waiting for printed in (_printed(content),) if printed]
    for content, said in waiting:
        if any(content == other.content for other in found):
            continue
        media_type, stem, ending = _kind(content, said)
        taken[ending] = taken.get(ending, 0) + 1
        number = f"-{taken[ending]}" if taken[ending] > 1 else ""
        found.append(Enclosed(f"{stem}{number}.{ending}", media_type, content))
    return tuple(found)


def _kind(content: bytes, said: str) -> tuple[str, str, str]:
    """(media type, name, ending)."""
    opening = content[:_OPENING].replace(b"\x00", b"").lstrip(b"\xff\xfe").lstrip(_BLANKS)
    if b"%PDF-" in content[:_OPENING]:
        return "application/pdf", "lettre", "pdf"
    if content[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        names = content[-65536:].upper()  # the central directory stands last
        if b"METADATA.XML" in names:
            return "application/zip", "IHE_XDM", "zip"
        if b"WORD/DOCUMENT.XML" in names:
            kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
            return kind, "lettre", "docx"
        return "application/zip", "document", "zip"
    if re.match(rb"<(?:!doctype\s+)?html\b", opening, re.IGNORECASE):
        return "text/html", "lettre", "html"
    if opening[:1] == b"<":
        return "text/xml", "lettre", "xml"
    for mark, media_type, ending in (
        (b"{\\rtf", "application/rtf", "rtf"),
        (b"\x89PNG", "image/png", "png"),
        (b"\xff\xd8\xff", "image/jpeg", "jpg"),
        (b"II*\x00", "image/tiff", "tif"),
        (b"MM\x00*", "image/tiff", "tif"),
    ):
        if content.startswith(mark):
            return media_type, "lettre", ending
    word = said.split(";", maxsplit=1)[0].strip().lower()
    if word.startswith("text/") and b"\x00" not in content:
        return "text/plain; charset=utf-8" if _is_utf8(content) else "text/plain", "message", "txt"
    return word if _MEDIA_TYPE.fullmatch(word) else "application/octet-stream", "document", "bin"


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True


def _printed(content: bytes) -> bytes | None:
    """The PDF of a CDA whose body is that PDF (CDA R2 §4.3.1.2 nonXMLBody, template 1.3.6.1.4.1.19376.1.2.20)."""
    if b"nonXMLBody" not in content or b"%PDF-" in content[:_OPENING]:
        return None
    try:
        body = formats.parse_xml(content).find(".//{*}nonXMLBody/{*}text")
        if body is None or body.get("representation") != "B64":
            return None
        pdf = base64.b64decode("".join("".join(body.itertext()).split()), validate=True)
    except (formats.RefusedXml, binascii.Error, ValueError):
        return None
    return pdf if b"%PDF-" in pdf[:_OPENING] else None
