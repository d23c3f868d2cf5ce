"""Words that occur nowhere else, and how to find them again however they were written down.

A canary is searched as it stands, without case and accents, and as base64, quoted-printable,
URL, JSON and Python write it.
"""

from __future__ import annotations

import base64
import json
import quopri
import unicodedata
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass


def plain(text: str) -> str:
    """Without case and accents."""
    return "".join(c for c in unicodedata.normalize("NFD", text.casefold()) if not unicodedata.combining(c))


def base64_cores(content: bytes) -> list[bytes]:
    """What stands in base64 for these bytes wherever in a text they begin: one core for each of three places."""
    found = []
    for lead in range(3):
        coded = base64.b64encode(b"\0" * lead + content)
        # The first and last characters also depend on the neighbours.
        found.append(coded[(0, 2, 3)[lead] : len(coded) - (0, 3, 2)[(lead + len(content)) % 3] or None])
    return found


def writings(word: str) -> dict[str, set[bytes]]:
    """The word in every coding, as the bytes to look for."""
    forms = {word, plain(word), word.upper(), unicodedata.normalize("NFD", word)}
    coded = [form.encode(charset) for form in forms for charset in ("utf-8", "utf-16-le")]
    coded += [form.encode("latin-1", "ignore") for form in forms]
    return {
        "raw": set(coded),
        "base64": {core for content in coded for core in base64_cores(content) if len(core) > 6},
        "quoted-printable": {quopri.encodestring(content) for content in coded},
        "q-word": {quopri.encodestring(content, header=True) for content in coded},
        "url": {
            quote(form).encode() for form in forms for quote in (urllib.parse.quote, urllib.parse.quote_plus)
        },
        "misread": {form.encode().decode("latin-1").encode() for form in forms},
        "repr": {repr(content)[2:-1].encode() for content in coded},
        "json": {json.dumps(form)[1:-1].encode() for form in forms},
    }


@dataclass(frozen=True)
class Flock:
    """The canaries of a test by what they are: `{"birth name": "Zérouvanel"}`."""

    words: Mapping[str, str]

    def hits(self, haystack: str | bytes) -> list[str]:
        """Which canaries stand there, and in which coding."""
        content = haystack.encode("utf-8", "surrogatepass") if isinstance(haystack, str) else haystack
        found = []
        folded = plain(content.decode("utf-8", "replace"))
        for name, word in self.words.items():
            if plain(word) in folded:
                found.append(f"{name} (folded)")
            found += [
                f"{name} ({coding})"
                for coding, ways in writings(word).items()
                if any(way in content for way in ways)
            ]
        return found
