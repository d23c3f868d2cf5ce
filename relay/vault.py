"""In charge of keys and of everything sealed: the key ring's file, content under day keys, blind indexes.

Content is sealed with AES-256-GCM under a key of its own, which is wrapped by the key of its day. Destroying a
day's key destroys all that was sealed on that day, in every copy and backup of the database at once.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import threading
import zlib
from base64 import b64decode, b64encode
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from relay.errors import ConfigurationError, NotFound, Unavailable
from relay.model import base32

if TYPE_CHECKING:
    from collections.abc import Iterator

    from relay.ports import KeyRing

PURPOSES = ("index", "registry", "token", "audit", "console")
"""Long-lived keys made with the ring; another purpose gets its key when it is first asked for."""

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_EPOCH = date(1970, 1, 1)


# --------------------------------------------------------------------------------------------------- key ring


@dataclass(frozen=True, slots=True)
class _Keys:
    """The file as last read. `mark` tells whether it changed since."""

    mark: tuple[int, int, int]
    long: dict[str, bytes]
    days: dict[str, bytes]


class FileKeyRing:
    """The ring in one JSON file, mode 0600, shared by all nodes and read again whenever it changed.

    Changes are made under a lock beside the file and replace it in one step: a crash leaves the old ring or
    the new one. Safe to use from several threads and processes.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigurationError when the file is missing, broken, or readable by others."""
        self.path = path
        self._mutex = threading.Lock()
        self._keys = self._read()

    @classmethod
    def create(cls, path: Path) -> FileKeyRing:
        """Write a new ring with its long-lived keys. Raises ConfigurationError when the file exists."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path):
            if path.exists():
                raise ConfigurationError(
                    "the key ring exists already and is never overwritten", file=str(path)
                )
            _write(path, {purpose: os.urandom(32) for purpose in PURPOSES}, {})
        return cls(path)

    def day_key(self, day: str, *, create: bool = False) -> bytes:
        """32 bytes for the UTC day `YYYY-MM-DD`. Raises KeyError when it was destroyed or never made."""
        found = self._current().days.get(day)
        if found is not None:
            return found
        if not create:
            raise KeyError(day)
        if not _DAY.fullmatch(day):
            raise ValueError("a day is YYYY-MM-DD")
        return self._make("days", day)

    def long_key(self, purpose: str) -> bytes:
        """32 bytes for "index", "registry", "token"…; made at its first use when the ring has none."""
        return self._current().long.get(purpose) or self._make("long", purpose)

    def destroy_before(self, day: str) -> int:
        """Forget every day key older than `day`; answers how many."""
        with _locked(self.path), self._mutex:
            self._keys = self._read()
            kept = {name: key for name, key in self._keys.days.items() if name >= day}
            gone = len(self._keys.days) - len(kept)
            if gone:
                _write(self.path, self._keys.long, kept)
                self._keys = self._read()
        return gone

    def _current(self) -> _Keys:
        keys = self._keys
        if keys.mark != _mark(self.path):
            with self._mutex:
                self._keys = keys = self._read()
        return keys

    def _make(self, kind: str, name: str) -> bytes:
        with _locked(self.path), self._mutex:
            self._keys = self._read()  # another node may have made it while we waited
            group = self._keys.days if kind == "days" else self._keys.long
            if name not in group:
                group[name] = os.urandom(32)
                _write(self.path, self._keys.long, self._keys.days)
                self._keys = self._read()
                group = self._keys.days if kind == "days" else self._keys.long
            return group[name]

    def _read(self) -> _Keys:
        name = str(self.path)
        try:
            mark = _mark(self.path)
            if self.path.stat().st_mode & 0o077:
                raise ConfigurationError("others can read the key ring: chmod 600", file=name)
            content = json.loads(self.path.read_bytes())
            groups = [
                {str(key): b64decode(value, validate=True) for key, value in content[group].items()}
                for group in ("long", "days")
            ]
        except OSError as error:
            raise Unavailable(f"the key ring {name} cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, AttributeError):  # its text would quote keys
            raise ConfigurationError(
                "the key ring is broken: restore it from its backup", file=name
            ) from None
        if any(len(key) != 32 for group in groups for key in group.values()):
            raise ConfigurationError("a key of the ring has not 32 bytes", file=name)
        return _Keys(mark, groups[0], groups[1])


def _mark(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise ConfigurationError("no key ring here: `relay init` makes one", file=str(path)) from None
    return found.st_ino, found.st_mtime_ns, found.st_size


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Only one process at a time changes the ring; the lock dies with its holder."""
    descriptor = os.open(path.with_name(path.name + ".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        _keep_owner(descriptor, path)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _keep_owner(descriptor: int, path: Path) -> None:
    """Give a file of root's to whom the ring belongs: the relay must go on reading it after an admin's command."""
    if os.geteuid() == 0 and path.exists():
        ring = path.stat()
        with suppress(PermissionError):  # a share or a container where root may not: then nobody can
            os.fchown(descriptor, ring.st_uid, ring.st_gid)


def _write(path: Path, long: dict[str, bytes], days: dict[str, bytes]) -> None:
    """Replace the file in one step; on disk when this returns."""
    text = json.dumps(
        {
            "version": 1,
            "long": {name: b64encode(key).decode() for name, key in sorted(long.items())},
            "days": {name: b64encode(key).decode() for name, key in sorted(days.items())},
        },
        indent=1,
    )
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        _keep_owner(descriptor, path)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


# ------------------------------------------------------------------------------------------------------ vault

_PLAIN, _DEFLATED = 0, 1
_VERSION = 1
_HEAD = 4  # version, form, day (two bytes, days since 1970)
_NONCE = 12
_WRAPPED = 48  # 32 of key, 16 of tag
_BODY = _HEAD + _NONCE + _WRAPPED
_ONCE = bytes(_NONCE)  # a content key seals one text only, so its nonce may be constant
_WORTH = range(1024, 32768)
"""Sizes at which deflating pays: below, nothing to gain; above, mail is base64 of what is compressed already
(zlib level 1 then takes 20 ms a megabyte to save a quarter)."""


class Vault:
    """Seals and opens; knows no table. `aad` names the row a text belongs to: moved elsewhere it does not open."""

    def __init__(self, ring: KeyRing) -> None:
        self.ring = ring
        self._ciphers: dict[bytes, AESGCM] = {}

    def seal(self, plain: bytes, *, day: str, aad: str) -> bytes:
        """Seal under a fresh key wrapped by the key of `day` (UTC), which is made when missing.

        Layout: version, form, day, nonce, wrapped key, sealed text; 80 bytes more than the text.
        """
        form = _PLAIN
        if len(plain) in _WORTH:
            smaller = zlib.compress(plain, 1)
            if len(smaller) < len(plain) * 7 // 8:
                form, plain = _DEFLATED, smaller
        head = bytes((_VERSION, form)) + (date.fromisoformat(day) - _EPOCH).days.to_bytes(2, "big")
        fresh = os.urandom(_NONCE + 32)
        nonce, key = fresh[:_NONCE], fresh[_NONCE:]
        bound = head + aad.encode()
        wrapped = self._cipher(self.ring.day_key(day, create=True)).encrypt(nonce, key, bound)
        return b"".join((head, nonce, wrapped, AESGCM(key).encrypt(_ONCE, plain, bound)))

    def open(self, sealed: bytes, aad: str) -> bytes:
        """What was sealed. Raises NotFound when the key of its day was destroyed, or the bytes are not ours."""
        if len(sealed) < _BODY + 16 or sealed[0] != _VERSION:
            raise NotFound("this content cannot be opened: it is damaged")
        head = sealed[:_HEAD]
        bound = head + aad.encode()
        try:
            cipher = self._cipher(self.ring.day_key(self.day_of(sealed)))
            key = cipher.decrypt(sealed[_HEAD : _HEAD + _NONCE], sealed[_HEAD + _NONCE : _BODY], bound)
            plain = AESGCM(key).decrypt(_ONCE, sealed[_BODY:], bound)
        except KeyError:
            raise NotFound("content was destroyed") from None
        except InvalidTag:
            raise NotFound("this content cannot be opened: it is damaged or belongs elsewhere") from None
        return zlib.decompress(plain) if head[1] == _DEFLATED else plain

    @staticmethod
    def day_of(sealed: bytes) -> str:
        """The day under whose key it was sealed."""
        return (_EPOCH + timedelta(days=int.from_bytes(sealed[2:_HEAD], "big"))).isoformat()

    def seal_long(self, purpose: str, plain: bytes, aad: str) -> bytes:
        """Seal under a long-lived key: for what has no day, such as the registry."""
        nonce = os.urandom(_NONCE)
        cipher = self._cipher(self.ring.long_key(purpose))
        return bytes((_VERSION,)) + nonce + cipher.encrypt(nonce, plain, aad.encode())

    def open_long(self, purpose: str, sealed: bytes, aad: str) -> bytes:
        """What `seal_long` sealed. Raises NotFound when it does not open."""
        cipher = self._cipher(self.ring.long_key(purpose))
        try:
            return cipher.decrypt(sealed[1 : 1 + _NONCE], sealed[1 + _NONCE :], aad.encode())
        except InvalidTag:
            raise NotFound("this content cannot be opened: it is damaged or belongs elsewhere") from None

    def index(self, purpose: str, text: str) -> str:
        """A name for `text` that nobody can make or reverse without the ring: 26 characters (128 bits of HMAC)."""
        return base32(self.mac("index", f"{purpose}\x1f{text}")[:16])

    def mac(self, purpose: str, text: str) -> bytes:
        """HMAC-SHA256 under a long-lived key: 32 bytes."""
        return hmac.digest(self.ring.long_key(purpose), text.encode(), hashlib.sha256)

    def _cipher(self, key: bytes) -> AESGCM:
        cipher = self._ciphers.get(key)
        if cipher is None:
            if len(self._ciphers) > 512:  # also lets go of destroyed keys
                self._ciphers.clear()
            cipher = self._ciphers[key] = AESGCM(key)
        return cipher
