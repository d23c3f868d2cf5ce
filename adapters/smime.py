"""Opens S/MIME (RFC 8551): mail that is encrypted to the relay, and mail that is signed.

What reads CMS is loaded when the first such mail comes; any other mail costs one look at its headers. Nothing
is fetched: authorities and revocation lists are files, read again when they change. A signature counts for the
moment at which its mail arrived, so that deciding again later comes to the same.
"""

from __future__ import annotations

import asyncio
import logging
import re
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, SecretStr, model_validator

from relay import log, reading
from relay.errors import ConfigurationError
from relay.model import Why
from relay.ports import Opened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

    from relay.ports import Tools
    from relay.reading import Seal

    Private = RSAPrivateKey | EllipticCurvePrivateKey
    Extension = TypeVar("Extension", x509.KeyUsage, x509.BasicConstraints)

MAX_LAYERS: Final = 4
"""Signed, encrypted, signed again (RFC 2634 §1.1), and one for a gateway on the way."""
MAX_ELEMENTS: Final = 250_000  # of one ASN.1 structure: 50 MB in the pieces that streaming writers make
MAX_NESTING: Final = 40
MAX_RECIPIENTS: Final = 500
MAX_CERTIFICATES: Final = 12
_SAME_SUBJECT: Final = 2  # certificates that bear one name; more of them make the search for a path explode
_WEAK: Final = frozenset({"md2", "md4", "md5", "sha1"})


class Settings(BaseModel):
    """`[smime]`: paths of PEM files, and the word that opens the key."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    trust: str | None = None  # authorities: roots, and intermediates that senders may leave out
    crl: str | None = None  # revocation lists of every authority below the roots' own; checked when set
    certificate: str | None = None  # what others encrypt to; older ones may follow in the same file
    key: str | None = None  # the private keys of these certificates, in any order
    key_password: SecretStr | None = None

    @model_validator(mode="after")
    def _whole(self) -> Settings:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("`certificate` and `key` go together")
        if self.crl is not None and self.trust is None:
            raise ValueError("`crl` needs `trust`: the authorities whose lists these are")
        return self


def connect(name: str, settings: Settings, tools: Tools | None = None) -> Smime:
    """The opener; its files are read now. Raises ConfigurationError, `key` naming the setting to mend."""
    return Smime(settings)


# ------------------------------------------------------------------------------------------------------- the files


@dataclass(frozen=True, slots=True)
class _Ring:
    """What the files hold, in DER where pyhanko is to read it."""

    roots: tuple[bytes, ...] = ()
    intermediates: tuple[bytes, ...] = ()
    lists: tuple[x509.CertificateRevocationList, ...] = ()
    pairs: tuple[tuple[x509.Certificate, Private], ...] = field(default=(), repr=False)


_PRIVATE = re.compile(rb"-----BEGIN ([A-Z ]*)PRIVATE KEY-----.*?-----END \1PRIVATE KEY-----", re.DOTALL)
_LIST = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)


def _load(settings: Settings) -> _Ring:
    """Read every file. Raises ConfigurationError."""
    if settings == Settings():
        return _Ring()
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    def content(key: str, file: str) -> bytes:
        try:
            return Path(file).read_bytes()
        except OSError as error:
            raise ConfigurationError(f"{file} cannot be read ({type(error).__name__})", key=key) from None

    def certificates(key: str, file: str) -> list[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(content(key, file))
        except ValueError:
            raise ConfigurationError(f"{file} holds no certificate that can be read (PEM)", key=key) from None

    der = serialization.Encoding.DER
    roots: list[bytes] = []
    others: list[bytes] = []
    lists: list[x509.CertificateRevocationList] = []
    if settings.trust:
        for one in certificates("trust", settings.trust):
            (roots if one.issuer == one.subject else others).append(one.public_bytes(der))
        if not roots:
            raise ConfigurationError(
                f"{settings.trust} holds no root: no certificate that signed itself", key="trust"
            )
    if settings.crl:
        text = content("crl", settings.crl)
        try:
            lists = [x509.load_pem_x509_crl(each) for each in _LIST.findall(text)]
        except ValueError:
            lists = []
        if not lists:
            raise ConfigurationError(
                f"{settings.crl} holds no revocation list that can be read (PEM)", key="crl"
            )
    pairs: list[tuple[x509.Certificate, Private]] = []
    if settings.certificate and settings.key:
        if Path(settings.key).exists() and Path(settings.key).stat().st_mode & 0o007:
            raise ConfigurationError(f"{settings.key} may be read by everybody: chmod 600", key="key")
        password = settings.key_password.get_secret_value().encode() if settings.key_password else None
        keys: dict[bytes, Private] = {}
        for found in _PRIVATE.finditer(content("key", settings.key)):
            locked = b"ENCRYPTED" in found[0][:200]
            try:
                private = serialization.load_pem_private_key(found[0], password if locked else None)
            except (ValueError, TypeError):
                raise ConfigurationError(
                    f"a key of {settings.key} cannot be opened; is `key_password` right?", key="key"
                ) from None
            if not isinstance(private, (rsa.RSAPrivateKey, ec.EllipticCurvePrivateKey)):
                raise ConfigurationError(f"{settings.key} holds a key that is neither RSA nor EC", key="key")
            keys[_public(private)] = private
        held = certificates("certificate", settings.certificate)
        pairs = [(one, keys[_public(one)]) for one in held if _public(one) in keys]
        if not pairs:
            raise ConfigurationError(f"no key of {settings.key} belongs to {settings.certificate}", key="key")
    return _Ring(tuple(roots), tuple(others), tuple(lists), tuple(pairs))


def _public(bearer: x509.Certificate | Private) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return bearer.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


# ------------------------------------------------------------------------------------------------------ the opener


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer undone: what was within, and what its signature is worth."""

    kind: str  # "encrypted" | "signed"
    entity: bytes | None = None  # None: it could not be opened
    signed: bool | None = None
    why: Why | None = None


class Smime:
    """Keeps `ports.Opener`. Safe to use from several tasks."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError."""
        self._settings = settings
        self._ring = _load(settings)
        self._read = self._stamp()

    async def open(self, raw: bytes, at: datetime) -> Opened:
        """`ports.Opener.open`. What takes time happens in a thread."""
        if not reading.may_be_sealed(raw):
            return Opened(raw)
        return await asyncio.to_thread(self._open, raw, at)

    def _open(self, raw: bytes, at: datetime) -> Opened:
        try:
            return self._opened(raw, at, self._fresh_ring())
        except Exception as error:  # noqa: BLE001 - bytes from outside in code that is not ours: a person looks
            log.failure("smime_not_opened", error)
            return Opened(raw, why=Why.NOT_OPENED)

    def _opened(self, raw: bytes, at: datetime, ring: _Ring) -> Opened:
        current, kinds = raw, list[str]()
        signed: bool | None = None
        why: Why | None = None
        for _ in range(MAX_LAYERS):
            found = reading.seal(current)
            if found is None:
                return Opened(current, signed, why, tuple(kinds))
            layer = _detached(found, at, ring) if found.signed is not None else _wrapped(found, at, ring)
            kinds.append(layer.kind)
            why = why or layer.why
            if layer.signed is not None:
                signed = layer.signed and signed is not False
            within = reading.unsealed(current, layer.entity) if layer.entity is not None else None
            if found.signed is not None:
                # Its parts stay where they are, unless another layer is among them.
                if within is None or reading.seal(within) is None:
                    return Opened(current, signed, why, tuple(kinds))
            elif within is None:
                return Opened(raw, signed, Why.NOT_OPENED, tuple(kinds))
            current = within
        if reading.seal(current) is None:
            return Opened(current, signed, why, tuple(kinds))
        return Opened(raw, signed, Why.NOT_OPENED, tuple(kinds))

    def _stamp(self) -> tuple[tuple[int, int], ...]:
        names = ("trust", "crl", "certificate", "key")
        files = [Path(file) for name in names if (file := getattr(self._settings, name))]
        return tuple((stat.st_mtime_ns, stat.st_size) for stat in map(Path.stat, files))

    def _fresh_ring(self) -> _Ring:
        """The files as they stand; while they cannot be read, as they stood."""
        try:
            read = self._stamp()
            if read != self._read:
                self._ring, self._read = _load(self._settings), read
        except (OSError, ConfigurationError) as error:
            log.get().warning("certificate_files_kept", error=type(error).__name__)
        return self._ring


# -------------------------------------------------------------------------------------------------------- structure


def _structure(ber: bytes) -> Any:  # asn1crypto is untyped
    """The CMS structure. Raises ValueError for what is none, or is larger than any mail needs."""
    if not _bounded(ber):
        raise ValueError("no ASN.1 structure, or one beyond all bounds")
    from asn1crypto import cms

    return cms.ContentInfo.load(ber)


def _header(ber: bytes, place: int) -> tuple[int, int, int]:
    """(first octet of the tag, length or -1 for an indefinite one, where the contents begin). Raises IndexError."""
    tag = ber[place]
    place += 1
    if tag & 0x1F == 0x1F:
        while ber[place] & 0x80:
            place += 1
        place += 1
    length = ber[place]
    place += 1
    if length == 0x80:
        return tag, -1, place
    if length > 0x80:
        end = place + (length & 0x7F)
        return tag, int.from_bytes(ber[place:end], "big"), end
    return tag, length, place


def _bounded(ber: bytes) -> bool:
    """Whether the bytes begin with one whole ASN.1 element that nests and counts within bounds (X.690 §8.1)."""
    ends: list[int] = []  # where each open element ends; -1: at its end-of-contents octets
    place, limit = 0, len(ber)
    for _ in range(MAX_ELEMENTS):
        try:
            tag, length, place = _header(ber, place)
        except IndexError:
            return False
        if place + max(length, 0) > limit:
            return False
        if tag == 0 and length == 0:
            if not ends or ends.pop() != -1:
                return False
        elif tag & 0x20:
            if len(ends) >= MAX_NESTING:
                return False
            ends.append(place + length if length >= 0 else -1)
        elif length < 0:
            return False
        else:
            place += length
        while ends and ends[-1] == place:
            ends.pop()
        if not ends:
            return True
        limit = next((end for end in reversed(ends) if end >= 0), len(ber))
    return False


def _octets(value: Any) -> bytes | None:
    """The bytes of an OCTET STRING, joined where its writer cut it in pieces (X.690 §8.7.3); None for none.

    asn1crypto joins them in quadratic time: a streamed mail of 40 MB would take seconds, a hostile one minutes.
    """
    from asn1crypto import core

    if isinstance(value, core.Void):
        return None
    if not value.method:
        return bytes(value.contents)
    contents, pieces, place = bytes(value.contents), list[bytes](), 0
    while place < len(contents):
        tag, length, place = _header(contents, place)
        if tag == 0 and length == 0:
            break
        if tag != 0x04 or length < 0:
            raise ValueError("a piece of a piece")  # which nobody writes
        pieces.append(contents[place : place + length])
        place += length
    return b"".join(pieces)


def _detached(found: Seal, at: datetime, ring: _Ring) -> _Layer:
    """A signature beside what it covers."""
    entity = found.signed or b""
    try:
        structure = _structure(found.cms)
        if structure["content_type"].native != "signed_data":
            raise ValueError("no signature")
        if _octets(structure["content"]["encap_content_info"]["content"]) is not None:
            raise ValueError("a second content, which nobody would read")
    except (ValueError, TypeError, KeyError, IndexError):
        return _Layer("signed", entity, signed=False, why=Why.SIGNATURE_BROKEN)
    signed, why = _judged(structure["content"], entity, found.author, at, ring)
    return _Layer("signed", entity, signed, why)


def _wrapped(found: Seal, at: datetime, ring: _Ring) -> _Layer:
    """Content within the structure: signed, or encrypted to us."""
    try:
        structure = _structure(found.cms)
        kind, content = structure["content_type"].native, structure["content"]
        if kind == "signed_data":
            within = content["encap_content_info"]
            entity = _octets(within["content"]) if within["content_type"].native == "data" else None
            if entity is None:
                return _Layer("signed")
            content["encap_content_info"] = {"content_type": "data"}  # judged by the bytes that are handed on
            signed, why = _judged(content, entity, found.author, at, ring)
            return _Layer("signed", entity, signed, why)
        if kind in ("enveloped_data", "authenticated_enveloped_data"):
            return _Layer("encrypted", _decrypted(kind, content, ring))
    except (ValueError, TypeError, KeyError, IndexError, NotImplementedError):
        pass
    return _Layer("encrypted")


# --------------------------------------------------------------------------------------------------------- signatures


def _judged(
    signed_data: Any, entity: bytes, author: str | None, at: datetime, ring: _Ring
) -> tuple[bool | None, Why | None]:
    """Whether the signature is good, and the reason why not. Without authorities nobody can vouch for it.

    A signature that does not fit its content counts against a mail even where no authority is configured.
    """
    try:
        why = _flaw(signed_data, entity, author, at, ring)
    except Exception as error:  # noqa: BLE001 - a certificate of somebody's making, in code that is not ours
        log.failure("signature_not_verified", error)
        why = Why.SIGNATURE_UNCHECKED
    if not ring.roots and why is not Why.SIGNATURE_BROKEN:
        return None, None
    return why is None, why


def _flaw(signed_data: Any, entity: bytes, author: str | None, at: datetime, ring: _Ring) -> Why | None:
    """What is wrong with a signature; None for one that is good."""
    from pyhanko.sign.ades.report import AdESIndeterminate as Indeterminate
    from pyhanko.sign.general import CMSExtractionError, extract_certificate_info
    from pyhanko.sign.validation.errors import SignatureValidationError

    logging.getLogger("pyhanko").setLevel(logging.CRITICAL)  # it would say whose certificate it was
    logging.getLogger("pyhanko_certvalidator").setLevel(logging.CRITICAL)
    along = {each.dump(): each for each in signed_data["certificates"] if each.name == "certificate"}
    names = [each.chosen.subject.hashable for each in along.values()]
    if (
        len(signed_data["signer_infos"]) != 1
        or len(signed_data["certificates"]) > MAX_CERTIFICATES
        or any(names.count(each) > _SAME_SUBJECT for each in names)
    ):
        return Why.SIGNATURE_UNCHECKED
    try:
        signing = extract_certificate_info(signed_data).signer_cert
    except CMSExtractionError:
        return Why.SIGNATURE_UNCHECKED  # its certificate did not come along
    (signer,) = signed_data["signer_infos"]
    digest = signer["digest_algorithm"]["algorithm"].native
    try:
        status = _status(signed_data, signing, _digested(entity, digest), at, ring)
    except SignatureValidationError:
        return Why.SIGNATURE_BROKEN
    if not (status.intact and status.valid):
        return Why.SIGNATURE_BROKEN
    trouble = status.trust_problem_indic
    too_weak = (Indeterminate.CRYPTO_CONSTRAINTS_FAILURE, Indeterminate.CRYPTO_CONSTRAINTS_FAILURE_NO_POE)
    if digest in _WEAK or trouble in too_weak:
        return Why.SIGNATURE_WEAK
    unknown = trouble is Indeterminate.NO_CERTIFICATE_CHAIN_FOUND
    if trouble and not unknown and not signing.not_valid_before <= at <= signing.not_valid_after:
        return Why.SIGNATURE_EXPIRED
    if trouble or not status.trusted:
        return Why.SIGNATURE_UNTRUSTED
    if ring.lists and (why := _revoked(status.validation_path, at, ring)):
        return why
    if author is None or author not in set(_addresses(signing)):
        return Why.SIGNATURE_OF_ANOTHER  # RFC 8550 §3
    return None


def _status(signed_data: Any, signing: Any, digest: bytes, at: datetime, ring: _Ring) -> Any:
    """What pyhanko says of it: `intact`, `valid`, `trusted`, `trust_problem_indic`, `validation_path`."""
    from asn1crypto import x509
    from pyhanko.sign.validation.generic_cms import async_validate_cms_signature
    from pyhanko.sign.validation.settings import KeyUsageConstraints
    from pyhanko_certvalidator import ValidationContext

    context = ValidationContext(
        trust_roots=[x509.Certificate.load(each) for each in ring.roots],
        other_certs=[x509.Certificate.load(each) for each in ring.intermediates],
        moment=at,
        allow_fetching=False,
    )
    # pyhanko passes on these two alone: what a certificate says nothing about must not be asked of it.
    uses = {"digital_signature", "non_repudiation"}  # one of them: RFC 8550 §4.4.2
    purposes = {"email_protection", "any_extended_key_usage"}  # RFC 8550 §4.4.4
    usage = KeyUsageConstraints(
        key_usage=uses if signing.key_usage_value is not None else set(),
        extd_key_usage=purposes if signing.extended_key_usage_value is not None else None,
    )
    return asyncio.run(
        async_validate_cms_signature(
            signed_data, raw_digest=digest, validation_context=context, key_usage_settings=usage
        )
    )


def _revoked(path: Any, at: datetime, ring: _Ring) -> Why | None:
    """Whether any certificate of a path was revoked when the mail came; each must be spoken for by its issuer's list.

    Not by pyhanko, which reads every line of a list as an object: a second for each mail where a national
    authority's list has 100,000.
    """
    from cryptography import x509

    chain = [x509.load_der_x509_certificate(each.dump()) for each in path.iter_certs(include_root=True)]
    for issuer, certificate in pairwise(chain):
        said = {_says(each, issuer, certificate, at) for each in ring.lists if each.issuer == issuer.subject}
        if True in said:
            return Why.SIGNATURE_REVOKED
        if False not in said:
            return Why.SIGNATURE_UNCHECKED
    return None


def _says(
    crl: x509.CertificateRevocationList, issuer: x509.Certificate, certificate: x509.Certificate, at: datetime
) -> bool | None:
    """Whether a list says that `certificate` was revoked by then; None when it cannot speak for it (RFC 5280 §6.3.3).

    A list that came after the mail still tells what was revoked before it. Of lists for a part of an authority's
    certificates only those for people or for authorities are understood; indirect and delta lists are not.
    """
    from cryptography import x509

    if (
        crl.next_update_utc is None
        or crl.next_update_utc < at
        or not crl.is_signature_valid(_lists_with(issuer))
    ):
        return None
    usage = _extension(issuer, x509.KeyUsage)
    authority = _extension(certificate, x509.BasicConstraints)
    for extension in crl.extensions:
        part = extension.value
        if isinstance(part, x509.IssuingDistributionPoint):
            if part.indirect_crl or part.only_some_reasons or part.only_contains_attribute_certs:
                return None
            if part.only_contains_user_certs and authority is not None and authority.ca:
                return None
            if part.only_contains_ca_certs and (authority is None or not authority.ca):
                return None
        elif extension.critical:
            return None
    if usage is not None and not usage.crl_sign:
        return None
    line = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
    return line is not None and line.revocation_date_utc <= at


def _lists_with(issuer: x509.Certificate) -> Any:  # the union of every kind of public key
    return issuer.public_key()


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension | None:
    from cryptography import x509

    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _addresses(certificate: Any) -> Iterator[str]:
    """The mail addresses a certificate is for, in lower case (RFC 8550 §3)."""
    for name in certificate.subject_alt_name_value or ():
        if name.name == "rfc822_name":
            yield str(name.native).lower()
    for part in certificate.subject.chosen:
        for attribute in part:
            if attribute["type"].native == "email_address":
                yield str(attribute["value"].native).lower()


def _digested(entity: bytes, name: str) -> bytes:
    from cryptography.hazmat.primitives import hashes

    digest = hashes.Hash(_hash(name))
    digest.update(entity)
    return digest.finalize()


def _hash(name: str) -> hashes.HashAlgorithm:
    """By the name asn1crypto gives it. Raises ValueError for one that no mail of today uses."""
    from cryptography.hazmat.primitives import hashes

    known: dict[str, Callable[[], hashes.HashAlgorithm]] = {
        "md5": hashes.MD5, "sha1": hashes.SHA1, "sha224": hashes.SHA224, "sha256": hashes.SHA256,
        "sha384": hashes.SHA384, "sha512": hashes.SHA512,
    }  # fmt: skip
    if name not in known:
        raise ValueError("unknown digest")
    return known[name]()


# --------------------------------------------------------------------------------------------------------- decryption


def _decrypted(kind: str, content: Any, ring: _Ring) -> bytes | None:
    """The content of an envelope that is addressed to us; None when we have no key for it."""
    recipients = content["recipient_infos"]
    if len(recipients) > MAX_RECIPIENTS:
        return None
    sealed = kind == "authenticated_enveloped_data"
    encrypted = content["auth_encrypted_content_info" if sealed else "encrypted_content_info"]
    if encrypted["content_type"].native != "data":
        return None
    for secret in _secrets(recipients, ring):
        mac = content["mac"].native if sealed else None
        attributes = content["auth_attrs"].untag().dump() if sealed and content["auth_attrs"] else None
        entity = _deciphered(secret, encrypted, mac, attributes)
        if entity is not None:
            return entity
    return None


def _secrets(recipients: Any, ring: _Ring) -> Iterator[bytes]:
    """The content key, as each of our keys finds it among the recipients'."""
    for recipient in recipients:
        for certificate, private in ring.pairs:
            try:
                if recipient.name == "ktri":
                    secret = _transported(recipient.chosen, certificate, private)
                elif recipient.name == "kari":
                    secret = _agreed(recipient.chosen, certificate, private)
                else:
                    continue
            except (ValueError, TypeError, KeyError, NotImplementedError):
                continue
            if secret is not None:
                yield secret


def _is_ours(named: Any, certificate: x509.Certificate) -> bool:
    """Whether a recipient identifier means this certificate (RFC 5652 §6.2.1, §6.2.2)."""
    from cryptography import x509 as certificates

    if named.name == "issuer_and_serial_number":
        ours: bool = certificate.issuer.public_bytes() == named.chosen["issuer"].dump()
        return ours and bool(certificate.serial_number == named.chosen["serial_number"].native)
    identifier = named.chosen["subjectKeyIdentifier"] if named.name == "r_key_id" else named.chosen
    try:
        known = certificate.extensions.get_extension_for_class(certificates.SubjectKeyIdentifier).value
    except certificates.ExtensionNotFound:
        known = certificates.SubjectKeyIdentifier.from_public_key(certificate.public_key())
    return known.digest == bytes(identifier.native)


def _transported(recipient: Any, certificate: x509.Certificate, private: Private) -> bytes | None:
    """RSA key transport: PKCS #1 v1.5 or OAEP (RFC 8551 §2.3)."""
    from cryptography.hazmat.primitives.asymmetric import padding, rsa

    if not isinstance(private, rsa.RSAPrivateKey) or not _is_ours(recipient["rid"], certificate):
        return None
    method = recipient["key_encryption_algorithm"]
    used: padding.AsymmetricPadding = padding.PKCS1v15()  # a bad padding gives a random key, never an error
    if method["algorithm"].native == "rsaes_oaep":
        oaep = method["parameters"]
        masking = oaep["mask_gen_algorithm"]["parameters"]["algorithm"].native
        used = padding.OAEP(
            padding.MGF1(_hash(masking)),
            _hash(oaep["hash_algorithm"]["algorithm"].native),
            None,
        )
    elif method["algorithm"].native not in ("rsaes_pkcs1v15", "rsa"):
        return None
    return private.decrypt(recipient["encrypted_key"].native, used)


_DERIVED_WITH: Final = {
    "1.3.133.16.840.63.0.2": "sha1",
    "1.3.132.1.11.0": "sha224",
    "1.3.132.1.11.1": "sha256",
    "1.3.132.1.11.2": "sha384",
    "1.3.132.1.11.3": "sha512",
}
"""dhSinglePass-stdDH with X9.63 key derivation (RFC 5753 §7.1.4)."""


def _agreed(recipient: Any, certificate: x509.Certificate, private: Private) -> bytes | None:
    """Elliptic curve key agreement: ephemeral-static ECDH, AES key wrap (RFC 5753 §3.1)."""
    from cryptography.hazmat.primitives import keywrap
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
    from pyhanko.pdf_utils.crypt.pubkey import ECCCMSSharedInfo

    if not isinstance(private, ec.EllipticCurvePrivateKey):
        return None
    ours = [each for each in recipient["recipient_encrypted_keys"] if _is_ours(each["rid"], certificate)]
    method = recipient["key_encryption_algorithm"]
    derived = _DERIVED_WITH.get(method["algorithm"].dotted)
    if not ours or derived is None or recipient["originator"].name != "originator_key":
        return None
    from asn1crypto import cms

    wrapping = cms.KeyEncryptionAlgorithm.load(method["parameters"].dump())
    sizes = {"aes128_wrap": 16, "aes192_wrap": 24, "aes256_wrap": 32}
    size = sizes.get(wrapping["algorithm"].native)
    if size is None:
        return None
    point = recipient["originator"].chosen["public_key"]
    # The curve is our key's own: writers leave it out of the ephemeral key (RFC 5753 §7.1.2).
    other = ec.EllipticCurvePublicKey.from_encoded_point(private.curve, bytes(point))
    about = {
        "key_info": wrapping,
        "entityUInfo": recipient["ukm"].native,
        "suppPubInfo": (size * 8).to_bytes(4, "big"),
    }
    shared = ECCCMSSharedInfo(about).dump()
    secret = X963KDF(_hash(derived), size, shared).derive(private.exchange(ec.ECDH(), other))
    return keywrap.aes_key_unwrap(secret, ours[0]["encrypted_key"].native)


def _deciphered(secret: bytes, encrypted: Any, mac: bytes | None, attributes: bytes | None) -> bytes | None:
    """The content under its key; None when key and content do not fit."""
    from asn1crypto import core
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
    from cryptography.hazmat.primitives import padding
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    method = encrypted["content_encryption_algorithm"]
    name, content = method["algorithm"].native, _octets(encrypted["encrypted_content"])
    if content is None:
        return None
    try:
        if mac is not None:
            if not name.endswith("_gcm"):
                return None
            nonce = core.Sequence.load(method["parameters"].dump())[0].native  # RFC 5084 §3.2
            sealed = Cipher(algorithms.AES(secret), modes.GCM(nonce, mac, min_tag_length=12)).decryptor()
            sealed.authenticate_additional_data(attributes or b"")
            return sealed.update(content) + sealed.finalize()
        if name.startswith("aes") and name.endswith("_cbc"):
            cipher: Any = algorithms.AES(secret)
        elif name == "tripledes_3key":  # what older programs still write (RFC 5751 §2.7)
            cipher = TripleDES(secret)
        else:
            return None
        opening = Cipher(cipher, modes.CBC(method["parameters"].native)).decryptor()
        unpadding = padding.PKCS7(cipher.block_size).unpadder()
        padded = opening.update(content) + opening.finalize()
        return unpadding.update(padded) + unpadding.finalize()
    except (ValueError, InvalidTag):
        return None
