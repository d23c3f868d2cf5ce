"""Signed names: reply addresses, Message-IDs, button nonces, MIME boundaries and references.

Everything here is an HMAC under one long-lived key, so that deciding again gives the same rows and nobody
outside can make one up. Nothing is random, nothing is stored: a name that verifies was made by us.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from relay.model import CROCKFORD, base32

if TYPE_CHECKING:
    from collections.abc import Mapping

THREAD_LENGTH: Final = 16
"""Characters of a thread id: 80 bits, short enough for a reply address (RFC 5321 §4.5.3.1.1: 64 octets)."""

TOKEN_LENGTH: Final = 48
"""Characters of a token: key id, thread, participant, MAC. Leaves 16 for the rest of the local part."""

_PARTICIPANT: Final = 5
_MAC: Final = 26  # base32 characters that hold 128 bits
_B32: Final = "[a-z2-7]"
_TOKEN: Final = re.compile(
    rf"(?<![a-z0-9])([0-9a-z])({_B32}{{{THREAD_LENGTH}}})({_B32}{{{_PARTICIPANT}}})({_B32}{{{_MAC}}})(?![a-z0-9])"
)
_MESSAGE_ID: Final = re.compile(
    rf"<?v1\.({_B32}{{{THREAD_LENGTH}}})\.({_B32}{{{_PARTICIPANT}}})\.({_B32}{{24}})\.({_B32}{{{_MAC}}})@([^\s<>@]+)>?"
)
_REFERENCE: Final = re.compile(r"(?<![0-9A-Z])([0-9A-Z]{4})[-\u2010-\u2013 ]?([0-9A-Z]{4})(?![0-9A-Z])")


@dataclass(frozen=True, slots=True)
class Ours:
    """What a Message-ID of ours says. `participant` is `participant_mark` of the participant's key."""

    thread: str
    participant: str
    delivery: str


@dataclass(frozen=True, slots=True)
class Address:
    """What the token of a reply address says: whose answer it is meant to be, and to which thread."""

    thread: str
    participant: str


def participant_mark(key: str) -> str:
    """A short name of a participant's key: tells apart the few people of one thread, says nothing about them."""
    return base32(hashlib.sha256(b"participant\x1f" + key.encode()).digest())[:_PARTICIPANT]


@dataclass(frozen=True, slots=True)
class Tokens:
    """Makes and checks every signed name. `key` is the ring's long key "token"; `domain` that of our own address.

    `earlier` holds keys that were rotated out, by key id: what they signed still verifies.
    """

    key: bytes = field(repr=False)
    domain: str
    key_id: str = "1"
    earlier: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    # ------------------------------------------------------------------------------------------- Message-ID

    def message_id(self, thread: str, participant: str, delivery: str) -> str:
        """`<v1.THREAD.PARTICIPANT.DELIVERY.MAC@domain>`; `participant` is the participant's key."""
        named = (thread, participant_mark(participant), delivery)
        return f"<v1.{'.'.join(named)}.{self._mac(self.key, 'message', *named)}@{self.domain}>"

    def read_message_id(self, text: str) -> Ours | None:
        """The first Message-ID in `text` that we signed, whatever its case; None when there is none."""
        return next(iter(self.read_message_ids(text)), None)

    def read_message_ids(self, text: str) -> tuple[Ours, ...]:
        """Every Message-ID in `text` (In-Reply-To, References) that we signed, in order, each once."""
        found: dict[Ours, None] = {}
        for match in _MESSAGE_ID.finditer(text.lower()):
            thread, participant, delivery, mac = match.group(1, 2, 3, 4)
            if self._verifies(mac, self._keys(), "message", thread, participant, delivery):
                found[Ours(thread, participant, delivery)] = None
        return tuple(found)

    # ---------------------------------------------------------------------------------------- reply address

    def token(self, thread: str, participant: str, direction: str = "in") -> str:
        """The variable part of a reply address: lower case, `TOKEN_LENGTH` characters, 128 bits of MAC."""
        mark = participant_mark(participant)
        mac = self._mac(self.key, "token", direction, self.key_id, thread, mark)
        return f"{self.key_id}{thread}{mark}{mac}"

    def reply_address(self, template: str, thread: str, participant: str) -> str:
        """`template` with `{token}` filled in; a template without it is the address itself."""
        return template.replace("{token}", self.token(thread, participant))

    def read_token(self, text: str, direction: str = "in") -> Address | None:
        """The first token in `text` (an address, a header) that we signed; None when there is none."""
        return next(iter(self.read_tokens(text, direction)), None)

    def read_tokens(self, text: str, direction: str = "in") -> tuple[Address, ...]:
        """Every token in `text` that we signed, in order, each once. Servers may have changed its case."""
        found: dict[Address, None] = {}
        for match in _TOKEN.finditer(text.lower()):
            key_id, thread, mark, mac = match.groups()
            key = self.key if key_id == self.key_id else self.earlier.get(key_id)
            if key and self._verifies(mac, (key,), "token", direction, key_id, thread, mark):
                found[Address(thread, mark)] = None
        return tuple(found)

    # ------------------------------------------------------------------------------------------ other names

    def nonce(self, delivery: str, verb: str, choice: str = "") -> str:
        """The callback data of one button of one copy: 26 bytes, within the 64 of the narrowest platform."""
        return self._mac(self.key, "nonce", delivery, verb, choice)

    def boundary(self, delivery: str) -> str:
        """A MIME boundary nobody can foresee, so that no letter can hold it by design (RFC 2046 §5.1.1)."""
        return f"=_{self._mac(self.key, 'boundary', delivery)}"

    def reference(self, thread: str, draw: int = 0) -> str:
        """XXXX-XXXX in Crockford base32. `draw` counts up when another thread bears it already."""
        number = int.from_bytes(self._digest(self.key, "reference", thread, str(draw))[:5], "big")
        letters = "".join(CROCKFORD[number >> shift & 31] for shift in range(35, -1, -5))
        return f"{letters[:4]}-{letters[4:]}"

    # ---------------------------------------------------------------------------------------------- signing

    def _keys(self) -> tuple[bytes, ...]:
        return (self.key, *self.earlier.values())

    @staticmethod
    def _digest(key: bytes, *parts: str) -> bytes:
        return hmac.digest(key, "\x1f".join(parts).encode(), "sha256")

    def _mac(self, key: bytes, *parts: str) -> str:
        return base32(self._digest(key, *parts)[:16])

    def _verifies(self, mac: str, keys: tuple[bytes, ...], *parts: str) -> bool:
        """In constant time for each key."""
        return any(hmac.compare_digest(mac, self._mac(key, *parts)) for key in keys)


def references_in(text: str) -> tuple[str, ...]:
    """Every visible « Réf. XXXX-XXXX » of a text, each once; a suggestion, never a proof.

    Crockford's letters forgive O for 0 and I or L for 1.
    """
    found: dict[str, None] = {}
    for mark in re.finditer(r"r[ée]f(?:\.|érence|erence)?\s*:?\s*", text, re.IGNORECASE):
        match = _REFERENCE.match(text[mark.end() : mark.end() + 12].upper())
        if match:
            plain = (match[1] + match[2]).translate(str.maketrans("OIL", "011"))
            if all(letter in CROCKFORD for letter in plain):
                found[f"{plain[:4]}-{plain[4:]}"] = None
    return tuple(found)
