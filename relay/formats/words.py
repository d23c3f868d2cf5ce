"""The words of an arrival, whatever it came in, for the keyword groups of the rules: looked through, never kept.

Mail text, CDA narrative, PDF text layer, HPRIM, HL7 v2 and FHIR, packages and forwarded mails opened. What stands
there and cannot be read is told: nobody may conclude from its silence.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from relay import formats, reading
from relay.formats import fhir, hl7v2, hprim, pdf, xdm
from relay.reading import Document, Part, never_raises

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxml import etree

    from relay.formats.enclosed import Enclosed

MAX_CHARACTERS: Final = 4_000_000
MAX_DOCUMENTS: Final = 50
"""In one arrival; a PDF may take seconds."""
_MAX_DEPTH: Final = 4
_OPENING: Final = 64 * 1024
_FEWEST: Final = 20  # bytes: less is no document

_CUT: Final = frozenset(
    {"unreadable", "not_closed", "boundary_not_found", "no_boundary", "too_deep", "too_many_parts", "too_many_boundaries"}
)  # fmt: skip
_NO_WORDS: Final = (
    "application/pkcs7-signature", "application/x-pkcs7-signature", "application/pgp-signature", "text/calendar",
    "text/x-vcard", "text/vcard", "text/rfc822-headers", "text/css", "application/x-xsl", "text/xsl",
)  # fmt: skip
_AROUND: Final = ("METADATA.XML", "INDEX.HTM", "INDEX.HTML", "README.TXT", "STYLE.XSL")
"""Of a package (IHE XDM, ITI TF-2 §3.32): about the letter, not its words."""
_WITHIN_A_LINE: Final = frozenset({"content", "sub", "sup", "linkHtml", "footnoteRef"})
"""Of the CDA narrative block; every other element ends a line."""


@dataclass(frozen=True, slots=True)
class Words:
    """`text` is everything that could be read; `whole` is False where something could not."""

    text: str = field(repr=False)
    whole: bool


def of(document: Document) -> Words:
    """The words of an arrival. Seconds for a hostile PDF: call it outside the event loop. Never raises."""
    return _of(document) or Words("", whole=False)


@never_raises(None)
def _of(document: Document) -> Words:
    search = _Search()
    search.document(document, 0)
    return Words("\n\n".join(search.found), search.whole)


class _Search:
    """What was found so far, and whether that is all."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._characters = 0
        self._documents = 0
        self._missed = False
        self._scan = False
        self._letter = False

    @property
    def whole(self) -> bool:
        """A PDF without words beside a document that was read is its rendition, and hides nothing."""
        return not self._missed and (self._letter or not self._scan)

    def take(self, text: str | None) -> None:
        """Words, as many as there is room for."""
        if not text:
            return
        room = MAX_CHARACTERS - self._characters
        self._missed |= len(text) > room
        if room > 0:
            self.found.append(text[:room])
            self._characters += len(text[:room])

    def document(self, document: Document, depth: int) -> None:
        """A mail's own words and what hangs on it, or a file."""
        self._missed |= not _CUT.isdisjoint(document.flaws)
        if document.is_mail:
            self.take(document.subject)
            self.take(document.text)
        for part in document.parts:
            if document.is_mail and part.is_text:
                continue
            if part.is_message:
                self.message(part.content(), depth + 1)
            else:
                self.part(part, depth)

    def message(self, content: bytes, depth: int) -> None:
        """A mail within a mail."""
        inner = reading.read(content)
        if depth > _MAX_DEPTH or not inner.is_mail:
            self._missed = True
        else:
            self.document(inner, depth)

    def part(self, part: Part, depth: int) -> None:
        """An attachment; a picture that stands within the mail's text is a logo."""
        shown = part.disposition != "attachment" and "multipart/related" in part.inside
        if (
            part.media_type in _NO_WORDS
            or part.size < _FEWEST
            or (shown and part.media_type.startswith("image/"))
        ):
            return
        if part.media_type == "text/html":
            self.take(reading.html_text(part.text()))
        elif not self.content(part.content(), depth):
            if part.media_type == "text/plain":
                self.take(part.text())
            else:
                self._missed = True

    def content(self, content: bytes, depth: int) -> bool:
        """A document by its first bytes; False where they are of no known kind."""
        self._documents += 1
        if depth > _MAX_DEPTH or self._documents > MAX_DOCUMENTS:
            self._missed = True
            return True
        if xdm.looks_like_zip(content):
            self.package(content, depth)
        elif hl7v2.looks_like(content[:4096]):
            self.enclosed(hl7v2.documents(content), depth)
        elif fhir.looks_like_fhir(content):
            self.take(fhir.words(content))
            self.enclosed(fhir.documents(content), depth)
        elif content[:512].replace(b"\x00", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \t\r\n")[:1] == b"<":
            self.xml(content, depth)
        elif pdf.looks_like_pdf(content):
            text = pdf.text(content)
            self._scan |= text is None
            self.take(text)
        elif hprim.looks_like(content[:_OPENING]):
            self._letter = True
            self.take(hprim.words(content))
        else:
            return False
        return True

    def package(self, content: bytes, depth: int) -> None:
        """An IHE XDM archive, or any other."""
        members = xdm.members(content)
        if members is None:
            self._missed = True
            return
        for name, inside in members.items():
            if name.rsplit("/", 1)[-1].upper() in _AROUND or len(inside) < _FEWEST:
                continue
            if name.lower().endswith((".txt", ".htm", ".html")):
                text = reading.decode(inside)
                self.take(text if name.lower().endswith(".txt") else reading.html_text(text))
            elif not name.lower().endswith((".xsl", ".css", ".dtd", ".rels")):
                self._missed |= not self.content(inside, depth + 1)

    def enclosed(self, documents: Sequence[Enclosed] | None, depth: int) -> None:
        """What a message or a bundle wraps; a bundle that wraps nothing stands for itself, and was read already."""
        self._missed |= documents is None
        for each in documents or ():
            if each.media_type.startswith("text/plain"):
                self.take(reading.decode(each.content))
            elif each.media_type == "text/html":
                self.take(reading.html_text(reading.decode(each.content)))
            elif each.media_type != "application/fhir+json":
                self._missed |= not self.content(each.content, depth + 1)

    def xml(self, content: bytes, depth: int) -> None:
        """A CDA: its narrative, or the document that its body is; of other XML every text."""
        try:
            root = formats.parse_xml(content)
        except formats.RefusedXml:
            self._missed = True
            return
        for wrapped in root.iterfind(".//{*}nonXMLBody/{*}text"):
            text = "".join(str(piece) for piece in wrapped.itertext())
            if wrapped.get("representation") == "B64":
                try:
                    inside = base64.b64decode("".join(text.split()), validate=True)
                except binascii.Error:
                    inside = b""
                self._missed |= not self.content(inside, depth + 1)
            else:
                self.take(text)
        if root.find(".//{*}nonXMLBody") is None:
            self._letter = True
            body = root.find("{*}component") if str(root.tag).endswith("}ClinicalDocument") else root
            self.take(_narrative(body) if body is not None else None)
        title = root.find("{*}title")
        self.take(_narrative(title) if title is not None else None)


def _narrative(root: etree._Element) -> str:
    """Every text of an element, a line per block: words that markup cuts stay whole, cells stay apart."""
    pieces: list[str] = []
    waiting: list[etree._Element | str] = [root]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            pieces.append(one)
            continue
        inline = isinstance(one.tag, str) and one.tag.rpartition("}")[2] in _WITHIN_A_LINE
        waiting.append("" if inline else "\n")
        for child in reversed(one):
            waiting.append(child.tail or "")
            waiting.append(child)
        waiting.append(one.text or "")
        waiting.append("" if inline else "\n")
    return "\n".join(line for line in map(str.strip, "".join(pieces).split("\n")) if line)
