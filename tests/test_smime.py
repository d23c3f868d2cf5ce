"""S/MIME: what others sign and encrypt with the openssl program is opened, verified, or held with its reason."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters import smime
from relay import checking, config, daemon, reading, recognition
from relay.errors import ConfigurationError, Refused
from relay.model import MailMessage, Outcome, Why
from relay.planning import Correction
from tests import letters
from tests.campaign import many
from tests.conftest import GP, WARD
from tests.letters import MARTIN
from tests.servers.dovecot import Dovecot
from tests.site import answer, documents, parsed
from tests.stores import empty_sqlite, place, store  # noqa: F401 - fixtures
from tests.test_loops import SENDER, House, house, letter, mails, without_gp  # noqa: F401 - fixtures
from tests.test_main_path import MakeSite, ready
from tests.test_planning import RULES, _secret, make_site  # noqa: F401 - fixtures

AT = datetime(2026, 12, 1, 16, 30, tzinfo=UTC)
DAY = timedelta(days=1)
RELAY = "relais@relais45.mssante.fr"

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


# ------------------------------------------------------------------------------------------------- certificates


def name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def pem(thing: x509.Certificate | x509.CertificateRevocationList) -> bytes:
    return thing.public_bytes(serialization.Encoding.PEM)


def private_pem(key: Key, password: bytes | None = None) -> bytes:
    locked: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    )
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)


@dataclass
class Authority:
    """A certification authority of the year 2026, under `parent` or by itself."""

    title: str
    parent: Authority | None = None
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    revoked: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        above = self.parent or self
        self.certificate = (
            self.builder(self.title, self.key, above, AT - 300 * DAY, AT + 3000 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(above.key, hashes.SHA256())
        )

    def builder(
        self, common: str, key: Key, above: Authority, start: datetime, end: datetime
    ) -> x509.CertificateBuilder:
        public, signer = key.public_key(), above.key.public_key()
        return (
            x509.CertificateBuilder()
            .subject_name(name(common))
            .issuer_name(name(above.title))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
        )

    def issue(
        self,
        address: str,
        key: Key,
        *,
        start: datetime = AT - 30 * DAY,
        end: datetime = AT + 300 * DAY,
        purpose: x509.ObjectIdentifier = ExtendedKeyUsageOID.EMAIL_PROTECTION,
    ) -> x509.Certificate:
        return (
            self.builder(address, key, self, start, end)
            .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(address)]), critical=False)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
            .sign(self.key, hashes.SHA256())
        )

    def crl(self, at: datetime = AT, scope: x509.ExtensionType | None = None) -> bytes:
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(name(self.title))
            .last_update(at - DAY)
            .next_update(at + 7 * DAY)
            .add_extension(x509.CRLNumber(1), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False
            )
        )
        if scope is not None:
            builder = builder.add_extension(scope, critical=True)
        for serial in self.revoked:
            gone = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at - DAY).build()
            builder = builder.add_revoked_certificate(gone)
        return pem(builder.sign(self.key, hashes.SHA256()))


# ------------------------------------------------------------------------------------------------------ the post


@dataclass
class Post:
    """A ward's people with their certificates, and the openssl program that signs and encrypts for them."""

    folder: Path

    def __post_init__(self) -> None:
        self.root = Authority("Racine d'essai")
        self.issuing = Authority("Organisations d'essai", self.root)
        self.rogue = Authority("Racine d'ailleurs")
        self.key, self.curve = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
        self.certificates: dict[str, Path] = {}
        self.keys: dict[str, Path] = {}
        self.add("ward", self.issuing.issue(SENDER, self.key), self.key)
        self.add("curve", self.issuing.issue(SENDER, self.curve), self.curve)
        self.add("expired", self.issuing.issue(SENDER, self.curve, end=AT - DAY), self.curve)
        self.add("early", self.issuing.issue(SENDER, self.curve, start=AT + DAY), self.curve)
        self.add("stranger", self.rogue.issue(SENDER, self.curve), self.curve)
        server = ExtendedKeyUsageOID.SERVER_AUTH
        self.add("server", self.issuing.issue(SENDER, self.curve, purpose=server), self.curve)
        revoked = self.issuing.issue(SENDER, self.curve)
        self.issuing.revoked.append(revoked.serial_number)
        self.add("revoked", revoked, self.curve)
        gp = MARTIN.mss_address or ""
        self.add("gp", self.issuing.issue(gp, self.curve), self.curve)
        self.add("gp-stranger", self.rogue.issue(gp, self.curve), self.curve)
        self.add("relay", self.issuing.issue(RELAY, self.key), self.key)
        self.add("relay-curve", self.issuing.issue(RELAY, self.curve), self.curve)
        self.add("other", self.issuing.issue("autre@ailleurs.mssante.fr", other := _rsa()), other)
        self.file("chain.pem", pem(self.issuing.certificate))
        self.file("trust.pem", pem(self.root.certificate))
        self.file("crl.pem", self.issuing.crl() + self.root.crl())
        both = ("relay", "relay-curve")
        self.file("relay-certs.pem", b"".join(self.certificates[each].read_bytes() for each in both))
        self.file("relay-keys.pem", private_pem(self.key) + private_pem(self.curve)).chmod(0o600)

    def file(self, title: str, content: bytes) -> Path:
        path = self.folder / title
        path.write_bytes(content)
        return path

    def add(self, title: str, certificate: x509.Certificate, key: Key) -> None:
        self.certificates[title] = self.file(f"{title}.pem", pem(certificate))
        self.keys[title] = self.file(f"{title}.key", private_pem(key))

    def table(self, **more: Any) -> dict[str, Any]:
        at = {
            "trust": "trust.pem",
            "crl": "crl.pem",
            "certificate": "relay-certs.pem",
            "key": "relay-keys.pem",
        }
        found: dict[str, Any] = {key: str(self.folder / file) for key, file in at.items()} | more
        return {key: value for key, value in found.items() if value is not None}

    def opener(self, **more: Any) -> smime.Smime:
        return smime.connect("smime", smime.Settings.model_validate(self.table(**more)))

    def openssl(self, entity: bytes, *words: str | Path) -> bytes:
        """What openssl writes of a MIME entity: another entity, its headers first."""
        done = subprocess.run(
            ["openssl", "cms", "-in", "/dev/stdin", *map(str, words)],
            input=entity,
            capture_output=True,
            check=True,
        )
        return re.sub(rb"\r?\n", b"\r\n", done.stdout)

    def sign(self, mail: bytes, who: str = "ward", *words: str) -> bytes:
        outer, entity = taken_apart(mail)
        given = ("-sign", "-signer", self.certificates[who], "-inkey", self.keys[who])
        return outer + self.openssl(entity, *given, "-certfile", self.folder / "chain.pem", *words)

    def encrypt(self, mail: bytes, *who: str, words: tuple[str, ...] = ("-aes256",)) -> bytes:
        outer, entity = taken_apart(mail)
        return outer + self.openssl(
            entity, "-encrypt", *words, *(self.certificates[each] for each in who or ("relay",))
        )


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


def taken_apart(mail: bytes) -> tuple[bytes, bytes]:
    """The fields that say who wrote to whom; the MIME entity with its own."""
    head, _, body = mail.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", head)
    own = [each for each in fields if each.lower().startswith((b"content-", b"mime-"))]
    outer = [each for each in fields if each not in own]
    inner = [each for each in own if each.lower().startswith(b"content-")]
    return b"".join(each + b"\r\n" for each in outer), b"\r\n".join(inner) + b"\r\n\r\n" + body


@pytest.fixture(scope="session")
def post(tmp_path_factory: pytest.TempPathFactory) -> Post:
    if shutil.which("openssl") is None:
        pytest.skip("the openssl program is not installed")
    return Post(tmp_path_factory.mktemp("smime"))


@pytest.fixture
def opener(post: Post) -> smime.Smime:
    return post.opener()


def words_of(raw: bytes) -> str:
    return reading.read(raw).text


# ----------------------------------------------------------------------------------------------------- signatures


@pytest.mark.parametrize(
    "words",
    [(), ("-nodetach",), ("-nodetach", "-stream"), ("-keyid",), ("-noattr",), ("-md", "sha512")],
    ids=" ".join,
)
@pytest.mark.parametrize("who", ["ward", "curve"])
async def test_a_good_signature_is_known_and_its_letter_read(
    post: Post, opener: smime.Smime, who: str, words: tuple[str, ...]
) -> None:
    opened = await opener.open(post.sign(letter(), who, *words), AT)
    assert (opened.signed, opened.why, opened.layers) == (True, None, ("signed",))
    assert words_of(opened.raw).splitlines() == words_of(letter()).splitlines()
    assert reading.read(opened.raw).subject == reading.read(letter()).subject
    assert recognition.recognise(reading.read(opened.raw)).outcome is Outcome.NOTICE


@pytest.mark.parametrize(
    ("who", "words", "why"),
    [
        ("ward", ("-md", "md5"), Why.SIGNATURE_WEAK),
        ("ward", ("-md", "sha1"), Why.SIGNATURE_WEAK),
        ("expired", (), Why.SIGNATURE_EXPIRED),
        ("early", (), Why.SIGNATURE_EXPIRED),
        ("revoked", (), Why.SIGNATURE_REVOKED),
        ("stranger", (), Why.SIGNATURE_UNTRUSTED),
        ("server", (), Why.SIGNATURE_UNTRUSTED),
        ("other", (), Why.SIGNATURE_OF_ANOTHER),
        ("ward", ("-nocerts",), Why.SIGNATURE_UNCHECKED),
    ],
)
@pytest.mark.parametrize("shape", ["beside", "around"])
async def test_a_bad_signature_is_named_and_its_content_stays_readable(
    post: Post, opener: smime.Smime, shape: str, who: str, words: tuple[str, ...], why: Why
) -> None:
    around = ("-nodetach",) if shape == "around" else ()
    opened = await opener.open(post.sign(letter(), who, *words, *around), AT)
    assert (opened.signed, opened.why) == (False, why)
    assert words_of(opened.raw).splitlines() == words_of(letter()).splitlines()


async def test_one_changed_word_breaks_the_signature(post: Post, opener: smime.Smime) -> None:
    mail = post.sign(letter())
    opened = await opener.open(mail.replace(b"Martin", b"Durand", 1), AT)
    assert (opened.signed, opened.why) == (False, Why.SIGNATURE_BROKEN)


async def test_what_no_authority_is_configured_for_counts_as_unsigned_unless_it_was_changed(
    post: Post,
) -> None:
    bare = smime.connect("smime", smime.Settings())
    for who in ("ward", "expired", "stranger"):
        for words in ((), ("-nodetach",)):
            opened = await bare.open(post.sign(letter(), who, *words), AT)
            assert (opened.signed, opened.why) == (None, None)
            assert recognition.recognise(reading.read(opened.raw)).outcome is Outcome.NOTICE
    changed = await bare.open(post.sign(letter()).replace(b"Martin", b"Durand", 1), AT)
    assert (changed.signed, changed.why) == (False, Why.SIGNATURE_BROKEN)


async def test_a_part_beside_the_signed_one_is_no_part_of_it(post: Post, opener: smime.Smime) -> None:
    mail = post.sign(letter())
    boundary = re.search(rb'boundary="([^"]+)"', mail)
    assert boundary
    line = b"--" + boundary[1]
    smuggled = line + b"\r\nContent-Type: text/plain\r\n\r\nPatient : AUTRE\r\n"
    first, second, rest = mail.split(line + b"\r\n", 2)
    for spoilt in (
        first + smuggled + line + b"\r\n" + second + line + b"\r\n" + rest,
        first + line + b"\r\n" + second + smuggled + line + b"\r\n" + rest,
        mail.replace(line + b"--", smuggled + line + b"--"),
    ):
        opened = await opener.open(spoilt, AT)
        assert (opened.signed, opened.why) == (False, Why.SIGNATURE_BROKEN)
    assert (await opener.open(first + line + b"\r\n" + second + line + b"\r\n" + rest, AT)).signed is True


async def test_a_signature_counts_only_beside_its_content_and_as_one(post: Post, opener: smime.Smime) -> None:
    mail, around = post.sign(letter()), post.sign(letter(), "ward", "-nodetach")
    boundary = re.search(rb'boundary="([^"]+)"', mail)
    assert boundary
    line = b"--" + boundary[1]
    first, second, rest = mail.split(line + b"\r\n", 2)
    head, _, _ = rest.partition(b"\r\n\r\n")
    _, _, with_content = around.partition(b"\r\n\r\n")
    for title, third in {
        "never closed": rest.replace(line + b"--", b""),
        "of another kind": re.sub(rb"application/(?:x-)?pkcs7-signature", b"application/octet-stream", rest),
        "with a content of its own": head + b"\r\n\r\n" + with_content + b"\r\n" + line + b"--\r\n",
    }.items():
        assert third != rest
        opened = await opener.open(first + line + b"\r\n" + second + line + b"\r\n" + third, AT)
        assert (opened.signed, opened.why) == (False, Why.SIGNATURE_BROKEN), title


async def test_of_two_bad_signatures_the_outer_one_is_named(post: Post, opener: smime.Smime) -> None:
    for words in ((), ("-nodetach",)):
        opened = await opener.open(post.sign(post.sign(letter(), "expired", *words), "stranger", *words), AT)
        assert (opened.signed, opened.why) == (False, Why.SIGNATURE_UNTRUSTED)


async def test_a_letter_stays_signed_when_its_certificate_ends_or_is_revoked_later(
    post: Post, opener: smime.Smime
) -> None:
    mail = post.sign(letter())
    assert (await opener.open(mail, AT)).signed is True
    assert (await opener.open(mail, AT + 300 * DAY + DAY)).why is Why.SIGNATURE_EXPIRED
    later = Authority("Organisations d'essai", post.root, post.issuing.key)
    later.revoked.append(x509.load_pem_x509_certificate(post.certificates["ward"].read_bytes()).serial_number)
    post.file("later.pem", later.crl(AT + 10 * DAY) + post.root.crl(AT + 10 * DAY))
    newer = post.opener(crl=str(post.folder / "later.pem"))
    assert (await newer.open(mail, AT)).signed is True
    assert (await newer.open(mail, AT + 10 * DAY)).why is Why.SIGNATURE_REVOKED


async def test_a_revocation_list_that_is_missing_or_too_old_leaves_the_signature_to_a_person(
    post: Post,
) -> None:
    mail = post.sign(letter())
    assert (await post.opener().open(mail, AT + 20 * DAY)).why is Why.SIGNATURE_UNCHECKED
    post.file("half.pem", post.root.crl())
    half = post.opener(crl=str(post.folder / "half.pem"))
    assert (await half.open(mail, AT)).why is Why.SIGNATURE_UNCHECKED
    assert (await post.opener(crl=None).open(mail, AT + 20 * DAY)).signed is True


async def test_new_files_are_taken_without_a_restart_and_bad_ones_are_not(post: Post) -> None:
    lists = post.file(
        "daily.pem", post.root.crl() + Authority(post.issuing.title, post.root, post.issuing.key).crl()
    )
    opener, mail = post.opener(crl=str(lists)), post.sign(letter(), "revoked")
    assert (await opener.open(mail, AT)).signed is True
    lists.write_bytes(b"half writ")
    assert (await opener.open(mail, AT)).signed is True
    lists.write_bytes(post.issuing.crl() + post.root.crl())
    assert (await opener.open(mail, AT)).why is Why.SIGNATURE_REVOKED


# ----------------------------------------------------------------------------------------------------- encryption


@pytest.mark.parametrize(
    ("who", "words"),
    [
        (("relay",), ("-aes256",)),
        (("relay",), ("-aes128",)),
        (("relay",), ("-aes-256-gcm",)),
        (("relay",), ("-des3",)),
        (("relay",), ("-aes256", "-keyid")),
        (("relay-curve",), ("-aes256",)),
        (("relay-curve",), ("-aes-128-gcm",)),
        (("curve", "other", "relay"), ("-aes256",)),
        (("other", "relay-curve"), ("-aes256", "-stream")),
    ],
)
async def test_what_is_encrypted_to_the_relay_is_read(
    post: Post, opener: smime.Smime, who: tuple[str, ...], words: tuple[str, ...]
) -> None:
    opened = await opener.open(post.encrypt(letters.xdm_mail(), *who, words=words), AT)
    assert (opened.signed, opened.why, opened.layers) == (None, None, ("encrypted",))
    before, after = reading.read(letters.xdm_mail()), reading.read(opened.raw)
    assert [(p.filename, p.content()) for p in after.attachments] == [
        (p.filename, p.content()) for p in before.attachments
    ]
    assert (after.from_, after.to, after.message_id) == (before.from_, before.to, before.message_id)


async def test_oaep_is_read_too(post: Post, opener: smime.Smime) -> None:
    outer, entity = taken_apart(letter())
    oaep = ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256")
    mail = outer + post.openssl(entity, "-encrypt", "-aes256", "-recip", post.certificates["relay"], *oaep)
    assert words_of((await opener.open(mail, AT)).raw) == words_of(letter())


@pytest.mark.parametrize("words", [(), ("-nodetach",)], ids=["beside", "around"])
async def test_layers_are_undone_one_after_the_other(
    post: Post, opener: smime.Smime, words: tuple[str, ...]
) -> None:
    inside = post.encrypt(post.sign(letter(), "ward", *words))
    assert (await opener.open(inside, AT)).layers == ("encrypted", "signed")
    assert (await opener.open(inside, AT)).signed is True
    thrice = post.sign(inside, "curve", *words)
    opened = await opener.open(thrice, AT)
    assert (opened.signed, opened.layers) == (True, ("signed", "encrypted", "signed"))
    assert words_of(opened.raw).splitlines() == words_of(letter()).splitlines()
    bad = await opener.open(post.sign(inside, "stranger", *words), AT)
    assert (bad.signed, bad.why) == (False, Why.SIGNATURE_UNTRUSTED)


async def test_what_cannot_be_opened_comes_back_as_it_was(post: Post, opener: smime.Smime) -> None:
    good = post.encrypt(letter())
    head, _, body = good.partition(b"\r\n\r\n")
    content = base64.b64decode(body)
    deep = good
    for _ in range(smime.MAX_LAYERS - 1):
        deep = post.encrypt(deep)
    assert len((await opener.open(deep, AT)).layers) == smime.MAX_LAYERS
    deep = post.encrypt(deep)
    for title, mail in {
        "not for us": post.encrypt(letter(), "other"),
        "cut": head + b"\r\n\r\n" + base64.encodebytes(content[: len(content) // 2]),
        "damaged": head + b"\r\n\r\n" + base64.encodebytes(content[:-40] + bytes(40)),
        "no structure": head + b"\r\n\r\n" + base64.encodebytes(b"Bonjour" * 20),
        "empty": head + b"\r\n\r\n",
        "too many layers": deep,
    }.items():
        opened = await opener.open(mail, AT)
        assert (opened.raw, opened.why) == (mail, Why.NOT_OPENED), title
    keyless = post.opener(certificate=None, key=None)
    assert (await keyless.open(good, AT)).why is Why.NOT_OPENED


def resealed(post: Post, *, covers: bytes = b"", states: bytes = b"", tag: int = 16) -> bytes:
    """A letter under AES-GCM (RFC 5083), sealed anew under its key: openssl writes neither attributes nor short tags.

    `covers`: what the tag vouches for beside the content; `states`: the attributes that stand in the structure.
    """
    from asn1crypto import cms, core

    head, _, body = post.encrypt(letter(), words=("-aes-256-gcm",)).partition(b"\r\n\r\n")
    structure = cms.ContentInfo.load(base64.b64decode(body))
    content = structure["content"]
    recipient, encrypted = content["recipient_infos"][0].chosen, content["auth_encrypted_content_info"]
    assert isinstance(post.key, rsa.RSAPrivateKey)
    secret = post.key.decrypt(recipient["encrypted_key"].native, padding.PKCS1v15())
    parameters = encrypted["content_encryption_algorithm"]["parameters"].dump()
    sealing = Cipher(algorithms.AES(secret), modes.GCM(core.Sequence.load(parameters)[0].native)).encryptor()
    sealing.authenticate_additional_data(covers)
    encrypted["encrypted_content"] = sealing.update(taken_apart(letter())[1]) + sealing.finalize()
    content["mac"] = sealing.tag[:tag]
    if states:
        content["auth_attrs"] = cms.CMSAttributes.load(states)
    return head + b"\r\n\r\n" + base64.encodebytes(structure.dump(force=True))


async def test_what_a_seal_states_beside_its_content_counts_under_its_tag(
    post: Post, opener: smime.Smime
) -> None:
    from asn1crypto import cms

    one, other = (
        cms.CMSAttributes([{"type": "content_type", "values": [kind]}]).dump()
        for kind in ("data", "signed_data")
    )
    for title, mail, why in (
        ("nothing beside it", resealed(post), None),
        ("covered and stated", resealed(post, covers=one, states=one), None),
        ("changed on the way", resealed(post, covers=one, states=other), Why.NOT_OPENED),
        ("taken away", resealed(post, covers=one), Why.NOT_OPENED),
        ("put beside it", resealed(post, states=one), Why.NOT_OPENED),
    ):
        opened = await opener.open(mail, AT)
        assert opened.why is why, title
        assert (opened.raw == mail) is (why is not None), title


@pytest.mark.parametrize(("tag", "why"), [(16, None), (12, None), (11, Why.NOT_OPENED), (4, Why.NOT_OPENED)])
async def test_a_tag_that_chance_could_hit_seals_nothing(
    post: Post, opener: smime.Smime, tag: int, why: Why | None
) -> None:
    assert (await opener.open(resealed(post, tag=tag), AT)).why is why  # 12 to 16 bytes: RFC 5084 §3.2


async def test_a_gateway_that_forgot_the_type_does_not_hide_the_layer(
    post: Post, opener: smime.Smime
) -> None:
    mail = post.encrypt(letter())
    renamed = re.sub(
        rb"application/(?:x-)?pkcs7-mime; smime-type=enveloped-data; ", b"application/octet-stream; ", mail
    )
    assert renamed != mail
    assert words_of((await opener.open(renamed, AT)).raw) == words_of(letter())


async def test_a_letter_without_mime_fields_keeps_its_first_lines(post: Post, opener: smime.Smime) -> None:
    outer, _ = taken_apart(letter())
    bare = "Patient : CORMERAIS Odette\r\nNom : X\r\n\r\nSortie le 1er décembre.\r\n".encode()
    opened = await opener.open(
        outer + post.openssl(bare, "-encrypt", "-aes256", post.certificates["relay"]), AT
    )
    assert words_of(opened.raw).splitlines()[0] == "Patient : CORMERAIS Odette"


async def test_who_wrote_and_to_whom_is_what_stands_outside(post: Post, opener: smime.Smime) -> None:
    outer, entity = taken_apart(letter())
    within = b"From: autre@ailleurs.mssante.fr\r\nSubject: Re\r\nAuto-Submitted: auto-replied\r\n" + entity
    mail = outer + post.openssl(within, "-encrypt", "-aes256", post.certificates["relay"])
    opened = reading.read((await opener.open(mail, AT)).raw)
    assert [address for _, address in opened.addresses("from")] == [SENDER]
    assert opened.subject == reading.read(letter()).subject
    assert opened.header("auto-submitted") is None
    assert opened.text == words_of(letter())


async def test_what_is_within_and_neither_mime_nor_text_is_not_opened(
    post: Post, opener: smime.Smime
) -> None:
    outer, _ = taken_apart(letter())
    for content in (b"Bonjour\x00\x00", b"Bonjour \xe9"):
        mail = outer + post.openssl(content, "-encrypt", "-binary", "-aes256", post.certificates["relay"])
        opened = await opener.open(mail, AT)
        assert (opened.raw, opened.why) == (mail, Why.NOT_OPENED)


def test_certificates_sent_along_are_no_seal(post: Post) -> None:
    mail = post.sign(letter(), "ward", "-nodetach")
    sent = re.sub(rb"smime-type=signed-data", b"smime-type=certs-only", mail)
    assert sent != mail
    assert reading.seal(mail) is not None
    assert reading.seal(sent) is None


def test_ordinary_mail_is_not_touched_and_nothing_is_loaded_for_it() -> None:
    check = (
        "import asyncio, sys, datetime; from adapters import smime; from tests import letters;"
        "o = smime.connect('smime', smime.Settings());"
        "at = datetime.datetime(2026, 12, 1, tzinfo=datetime.UTC);"
        "m = letters.xdm_mail(); r = asyncio.run(o.open(m, at)); assert r.raw is m and r.signed is None;"
        "assert not [n for n in sys.modules if n.startswith(('pyhanko', 'asn1crypto'))]"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


# --------------------------------------------------------------------------------------------------------- bounds


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 128:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def test_structures_beyond_all_bounds_are_not_looked_into() -> None:
    deep = element(4, b"")
    for _ in range(smime.MAX_NESTING):
        deep = element(0x30, deep)
    assert smime._bounded(deep)
    assert not smime._bounded(element(0x30, deep))
    many_elements = element(0x30, b"\x05\x00" * smime.MAX_ELEMENTS)
    assert not smime._bounded(many_elements)
    assert not smime._bounded(b"\x30\x80" * 10_000)
    assert smime._bounded(b"\x30\x80\x04\x01a\x00\x00")
    assert not smime._bounded(b"\x30\x80\x04\x01a")
    assert not smime._bounded(b"\x30\x05\x04\x7fa")
    assert not smime._bounded(b"")


async def test_more_recipients_than_any_mail_has_are_not_tried(post: Post) -> None:
    mail = post.encrypt(letter(), *["other"] * smime.MAX_RECIPIENTS, "relay")
    assert (await post.opener().open(mail, AT)).why is Why.NOT_OPENED
    fewer = post.encrypt(letter(), *["other"] * 50, "relay")
    assert (await post.opener().open(fewer, AT)).why is None


async def test_certificates_that_lead_in_circles_are_refused_at_once(post: Post, opener: smime.Smime) -> None:
    twins = [Authority("Jumelle", None) for _ in range(9)]
    circle = [
        each.builder("Jumelle", each.key, other, AT - DAY, AT + DAY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(other.key, hashes.SHA256())
        for each in twins
        for other in twins[:1]
    ]
    chain = post.file("circle.pem", b"".join(map(pem, circle)))
    outer, entity = taken_apart(letter())
    given = ("-sign", "-signer", post.certificates["ward"], "-inkey", post.keys["ward"], "-certfile", chain)
    opened = await opener.open(outer + post.openssl(entity, *given), AT)
    assert opened.why is Why.SIGNATURE_UNCHECKED


def test_content_cut_into_many_pieces_is_joined_in_linear_time() -> None:
    from asn1crypto import core

    pieces = element(4, b"\x00" * 100) * 100_000
    value = core.OctetString.load(b"\x24\x80" + pieces + b"\x00\x00")
    began = time.process_time()
    assert smime._octets(value) == bytes(10_000_000)
    assert time.process_time() - began < 2  # joined one to the other it takes minutes


async def test_a_list_of_a_part_of_the_certificates_speaks_for_these_alone(post: Post) -> None:
    def only(*, users: bool = False, authorities: bool = False, indirect: bool = False) -> bytes:
        scope = x509.IssuingDistributionPoint(
            [x509.UniformResourceIdentifier("http://x.example/1.crl")],
            None,
            users,
            authorities,
            None,
            indirect,
            False,
        )
        return post.issuing.crl(scope=scope)

    mail = post.sign(letter(), "revoked")
    for content, why in {
        only(users=True): Why.SIGNATURE_REVOKED,
        only(authorities=True): Why.SIGNATURE_UNCHECKED,
        only(indirect=True): Why.SIGNATURE_UNCHECKED,
        Authority(post.issuing.title, post.root).crl(): Why.SIGNATURE_UNCHECKED,  # the name alone is no proof
    }.items():
        file = post.file("part.pem", content + post.root.crl())
        assert (await post.opener(crl=str(file)).open(mail, AT)).why is why


async def test_a_list_that_may_not_say_it_of_an_authority_leaves_its_signers_to_a_person(post: Post) -> None:
    mail = post.sign(letter())
    users = x509.IssuingDistributionPoint(
        [x509.UniformResourceIdentifier("http://x.example/1.crl")],
        None, only_contains_user_certs=True, only_contains_ca_certs=False, only_some_reasons=None,
        indirect_crl=False, only_contains_attribute_certs=False,
    )  # fmt: skip
    for scope in (users, x509.DeltaCRLIndicator(1)):
        file = post.file("part.pem", post.issuing.crl() + post.root.crl(scope=scope))
        assert (await post.opener(crl=str(file)).open(mail, AT)).why is Why.SIGNATURE_UNCHECKED


def _usage(*, sign: bool = False, lists: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=False, content_commitment=False, key_encipherment=not sign, data_encipherment=False,
        key_agreement=False, key_cert_sign=sign, crl_sign=lists, encipher_only=False, decipher_only=False,
    )  # fmt: skip


async def test_a_key_counts_for_what_its_certificate_says_it_is_for(post: Post) -> None:
    above = post.issuing
    encrypting = (
        above.builder(SENDER, post.curve, above, AT - DAY, AT + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.RFC822Name(SENDER)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=False)
        .add_extension(_usage(), critical=True)
        .sign(above.key, hashes.SHA256())
    )
    post.add("encrypting", encrypting, post.curve)
    opened = await post.opener().open(post.sign(letter(), "encrypting"), AT)
    assert (opened.signed, opened.why) == (False, Why.SIGNATURE_UNTRUSTED)
    root, found = Authority("Racine à deux clés"), []
    for lists in (False, True):
        root.certificate = (
            root.builder(root.title, root.key, root, AT - DAY, AT + DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(sign=True, lists=lists), critical=True)
            .sign(root.key, hashes.SHA256())
        )
        post.add("direct", root.issue(SENDER, post.curve), post.curve)
        files = {
            "trust": post.file("own.pem", pem(root.certificate)),
            "crl": post.file("own-crl.pem", root.crl()),
        }
        own = post.opener(**{key: str(file) for key, file in files.items()})
        found.append((await own.open(post.sign(letter(), "direct"), AT)).why)
    assert found == [Why.SIGNATURE_UNCHECKED, None]


async def test_a_certificate_that_names_no_purpose_serves_for_mail_too(
    post: Post, opener: smime.Smime
) -> None:
    above, mail_address = post.issuing, x509.SubjectAlternativeName([x509.RFC822Name(SENDER)])
    silent = above.builder(SENDER, post.curve, above, AT - DAY, AT + DAY).add_extension(mail_address, False)
    post.add("silent", silent.sign(above.key, hashes.SHA256()), post.curve)
    opened = await opener.open(post.sign(letter(), "silent"), AT)
    assert (opened.signed, opened.why) == (True, None)
    for purpose, why in (
        (ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE, None),
        (ExtendedKeyUsageOID.CLIENT_AUTH, Why.SIGNATURE_UNTRUSTED),
    ):
        post.add("purpose", above.issue(SENDER, post.curve, purpose=purpose), post.curve)
        assert (await opener.open(post.sign(letter(), "purpose"), AT)).why is why


async def test_more_certificates_than_any_mail_has_are_left_to_a_person(
    post: Post, opener: smime.Smime
) -> None:
    outer, entity = taken_apart(letter())
    signing = ("-sign", "-signer", post.certificates["ward"], "-inkey", post.keys["ward"])
    for more, why in (
        (smime.MAX_CERTIFICATES - 2, None),
        (smime.MAX_CERTIFICATES - 1, Why.SIGNATURE_UNCHECKED),
    ):
        others = b"".join(pem(Authority(f"Autorité {number}").certificate) for number in range(more))
        chain = post.file("long.pem", pem(post.issuing.certificate) + others)
        mail = outer + post.openssl(entity, *signing, "-certfile", chain)
        assert (await opener.open(mail, AT)).why is why


async def test_a_revoked_authority_takes_its_signers_along(post: Post) -> None:
    post.root.revoked.append(post.issuing.certificate.serial_number)
    try:
        file = post.file("root.pem", post.issuing.crl() + post.root.crl())
    finally:
        post.root.revoked.clear()
    assert (await post.opener(crl=str(file)).open(post.sign(letter()), AT)).why is Why.SIGNATURE_REVOKED


@pytest.fixture(scope="session")
def sealed(post: Post) -> list[bytes]:
    return [post.sign(letter()), post.sign(letter(), "curve", "-nodetach"), post.encrypt(letter()),
            post.encrypt(post.sign(letter()), "relay-curve", words=("-aes-256-gcm",))]  # fmt: skip


@settings(max_examples=many(80))
@given(data=st.data())
def test_no_mutation_raises_or_passes_for_signed(
    post: Post, sealed: list[bytes], data: st.DataObject
) -> None:
    opener = post.opener()
    mail = data.draw(st.sampled_from(sealed))
    head, _, body = mail.partition(b"\r\n\r\n")
    content = bytearray(base64.b64decode(body)) if b"base64" in head else bytearray(body)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        kind = data.draw(st.sampled_from(["flip", "cut", "double", "insert"]))
        if kind == "flip":
            content[at] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del content[at : at + data.draw(st.integers(1, 200))]
        elif kind == "double":
            content[at:at] = content[at : at + 100]
        else:
            content[at:at] = data.draw(st.binary(min_size=1, max_size=20))
        if not content:
            content = bytearray(b"x")
    spoilt = base64.encodebytes(bytes(content)) if b"base64" in head else bytes(content)
    raw = head + b"\r\n\r\n" + spoilt
    opened = opener._open(raw, AT)
    recognised = recognition.opened(recognition.recognise(reading.read(opened.raw)), opened.why)
    if opened.signed is True:  # whatever was changed was no part of what is read
        assert words_of(opened.raw).splitlines() == words_of(letter()).splitlines()
    if opened.why is not None:
        assert recognised.outcome is not Outcome.NOTICE


@settings(max_examples=many(150))
@given(st.binary(max_size=400))
def test_no_bytes_raise(content: bytes) -> None:
    opener = smime.connect("smime", smime.Settings())
    for media_type in ("application/pkcs7-mime", "multipart/signed; boundary=b"):
        raw = f"From: a@b.fr\r\nContent-Type: {media_type}; x=pkcs7\r\nContent-Transfer-Encoding: binary\r\n\r\n"
        opened = opener._open(raw.encode() + content, AT)
        assert opened.signed is not True
    smime._bounded(content)


# ------------------------------------------------------------------------------------------------------ the house


SIGNED_ONLY = RULES.replace("when: { event: discharge }", "when: { event: discharge, signed: yes }")


def shut(house: House, opener: smime.Smime | None) -> None:
    house.intake.opener = house.dispatch.opener = opener
    house.clock.at = AT


async def test_a_rule_may_ask_for_a_signature(house: House, post: Post) -> None:
    shut(house, post.opener())
    house.site = make_site(rules=SIGNED_ONLY)
    await house.take(letter())
    (held,) = await house.store.holds()
    assert (held["why"], held["reason"]) == ("default", "Aucune règle ne correspond")
    await house.take(post.sign(letter(stay="S-2")))
    await house.leave()
    assert [each.address for each in mails(house) if each.purpose == "letter"] == [MARTIN.mss_address]
    decided = next(row for row in await house.store.envelopes() if row["state"] == "decided")
    assert (await house.store.envelope(str(decided["id"])))["decision"]["facts"]["signed"] is True


@pytest.mark.parametrize("language", ["fr", "en"])
async def test_a_broken_signature_holds_whatever_the_rules_say_and_a_desk_may_let_it_go(
    house: House, post: Post, language: str
) -> None:
    shut(house, post.opener())
    house.site = replace(house.site, settings=replace(house.site.settings, language=language))
    await house.take(post.sign(letter(), "revoked", "-nodetach"))
    (held,) = await house.store.holds()
    assert held["why"] == "signature_revoked"
    assert ("révoqué" if language == "fr" else "revoked") in str(held["reason"])
    await house.leave()
    assert {each.purpose for each in mails(house)} == {"hold_note"}
    by_ward = Correction(by="ward:cardiologie", hold=str(held["id"]))
    with pytest.raises(Refused):
        await house.intake.release(by_ward)
    await house.intake.release(Correction(by="desk:sorties", hold=str(held["id"])))
    await house.leave()
    assert [each.address for each in mails(house) if each.purpose == "letter"] == [MARTIN.mss_address]
    assert not any((await house.store.invariants()).values())


async def test_the_gp_reads_what_was_encrypted_to_the_relay(house: House, post: Post) -> None:
    shut(house, post.opener())
    original = letter(attachments=[("Courrier de sortie.pdf", letters.pdf(), "application/pdf")])
    sealed = post.encrypt(post.sign(original, "ward", "-nodetach"))
    await house.take(sealed)
    await house.leave()
    (copy,) = [each for each in mails(house) if each.purpose == "letter"]
    assert isinstance(copy.message, MailMessage)
    got = message_from_bytes(copy.message.content, policy=policy.default)
    sent = message_from_bytes(original, policy=policy.default)
    assert attached(got) == attached(sent)
    assert list(attached(got)) == ["Courrier de sortie.pdf"]
    assert words_of(original).strip() in words_of(copy.message.content)
    (row,) = await house.store.envelopes()
    assert await house.store.raw(str(row["id"])) == sealed


def attached(message: Any) -> dict[str, bytes]:
    return {
        str(part.get_filename()): part.get_payload(decode=True)
        for part in message.walk()
        if part.get_filename()
    }


async def test_mail_that_nobody_can_open_is_held_and_decided_once_there_is_a_key(
    house: House, post: Post
) -> None:
    shut(house, post.opener(certificate=None, key=None))
    await house.take(post.encrypt(letter()))
    (held,) = await house.store.holds()
    assert held["why"] == "not_opened"
    await house.leave()
    (note,) = [each for each in mails(house) if each.to == "ward:cardiologie"]
    assert isinstance(note.message, MailMessage)
    text = message_from_bytes(note.message.content, policy=policy.default).get_body().get_content()
    assert "chiffré" in text
    shut(house, post.opener())
    await house.intake.replay(str(held["envelope"]))
    await house.leave()
    assert [each.address for each in mails(house) if each.purpose == "letter"] == [MARTIN.mss_address]


async def test_a_letter_whose_key_was_taken_away_before_it_left_fails_and_the_ward_is_told(
    house: House, post: Post
) -> None:
    shut(house, post.opener())
    await house.take(post.encrypt(letter()))
    house.dispatch.opener = post.opener(certificate=None, key=None)
    await house.leave()
    (copy,) = await house.copies(purpose="letter")
    assert (copy["state"], copy["why"]) == ("failed", "not_opened")
    assert any(each.to == "ward:cardiologie" for each in mails(house))


@pytest.mark.parametrize("kind", ["handed over", "held", "never opened"])
async def test_no_desk_gets_a_letter_that_is_sealed_and_it_hears_of_it_all_the_same(
    house: House, post: Post, kind: str
) -> None:
    shut(house, post.opener())
    keyless = post.opener(certificate=None, key=None)
    if kind == "never opened":
        house.intake.opener = keyless
    if kind != "held":
        await house.take(post.encrypt(letter()))
    else:
        await house.take(post.encrypt(without_gp("S-9")))
    if kind == "handed over":
        await house.leave()
        house.clock.turn(hours=30)
        while await house.schedule.turn():
            pass
    house.dispatch.opener = keyless
    await house.leave()
    house.clock.turn(minutes=2)
    await house.leave()
    (note,) = [each for each in mails(house) if each.to == "desk:sorties"]
    assert isinstance(note.message, MailMessage)
    got = message_from_bytes(note.message.content, policy=policy.default)
    assert got.get_content_type() == "text/plain"
    assert "chiffré" in got.get_content()
    assert str(note.reference) in got.get_content()
    lost = [row["why"] for row in await house.copies(state="failed")]
    assert lost == ([] if kind == "never opened" else ["not_opened"])


async def test_the_good_mail_that_follows_a_spoilt_one_is_no_duplicate(house: House, post: Post) -> None:
    shut(house, post.opener())
    good = post.sign(letter(), "ward", "-nodetach")
    await house.take(post.sign(letter(), "stranger", "-nodetach"), good)
    rows = await house.store.envelopes()
    assert sorted(str(row["state"]) for row in rows) == ["decided", "held"]
    await house.take(post.encrypt(letter()))
    (latest, *_) = await house.store.envelopes()
    assert (latest["state"], latest["why"]) == ("ignored", "duplicate")


async def test_a_strangers_newsletter_is_no_more_held_for_its_signature_than_without(
    house: House, post: Post
) -> None:
    shut(house, post.opener())
    news = letters.mail(
        "Nos offres", sender=SENDER, to="sorties.cardio@chr-exemple.mssante.fr", subject="Offres"
    )
    await house.take(post.sign(news, "stranger"))
    (row,) = await house.store.envelopes()
    assert (row["state"], row["why"]) == ("ignored", "not_a_notice")


@pytest.mark.parametrize(("who", "trusts", "state"), [
    ("gp", True, "acknowledged"), ("gp-stranger", True, "awaiting_ack"), ("gp-stranger", False, "acknowledged"),
])  # fmt: skip
async def test_an_answer_under_a_broken_signature_is_nobodys_word(
    house: House, post: Post, who: str, trusts: bool, state: str
) -> None:
    shut(house, post.opener() if trusts else smime.connect("smime", smime.Settings()))
    await house.take(letter())
    await house.leave()
    (copy,) = [each for each in mails(house) if each.purpose == "letter"]
    assert isinstance(copy.message, MailMessage)
    sent = message_from_bytes(copy.message.content, policy=policy.default)
    assert isinstance(sent, EmailMessage)
    reply = answer(sent, "OK", sender=MARTIN.mss_address or "")
    await house.take(post.sign(reply, who), adapter="retours")
    (thread,) = await house.store.threads()
    assert thread["state"] == state
    held = [row["why"] for row in await house.store.holds()]
    assert held == ([] if state == "acknowledged" else ["signature_untrusted"])


async def test_the_trail_says_what_was_undone(house: House, post: Post) -> None:
    shut(house, post.opener())
    await house.take(post.encrypt(post.sign(letter())), post.sign(letter(stay="S-3"), "expired"))
    lines = await house.store.audit_export()
    notes = {(line["why"], line["note"]) for line in lines if line["act"] == "opened"}
    assert notes == {(None, "encrypted signed valid"), ("signature_expired", "signed invalid")}


def test_the_daemon_opens_with_the_files_of_its_configuration(
    make_site: MakeSite, dovecot: Dovecot, post: Post
) -> None:
    site = ready(make_site())
    table = "\n".join(f'{key} = "{value}"' for key, value in post.table(trust=None, crl=None).items())
    with (site.folder / "config.toml").open("a") as file:
        file.write(f"[smime]\n{table}\n")
    mail = letters.xdm_mail(gp=MARTIN)
    dovecot.deliver(WARD, post.encrypt(mail), sender=SENDER)
    tampered = post.sign(letters.text_mail(gp=MARTIN, stay="S-9"))
    dovecot.deliver(WARD, tampered.replace(b"Martin", b"Durand", 1), sender=SENDER)
    with site.running():
        (raw,) = dovecot.wait_messages(GP)
        assert documents(parsed(raw)) == documents(parsed(mail))
        held = site.row("hold", why="signature_broken")
        assert held["reason"] == "la signature électronique ne correspond pas au contenu du message"
        # A command decides with the same keys.
        assert site.json("envelopes", "replay", str(held["envelope"]))["why"] == "signature_broken"


# ------------------------------------------------------------------------------------------------------ recognise


def recognised(folder: Path, mail: bytes, *words: str) -> dict[str, Any]:
    (folder / "mail.eml").write_bytes(mail)
    called = [sys.executable, "-m", "relay", "recognise", "mail.eml", "--json", *words]
    done = subprocess.run(called, cwd=folder, capture_output=True, check=True, env=ENVIRONMENT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}


def test_recognise_shows_what_a_signature_is_worth(post: Post, tmp_path: Path) -> None:
    """The certificates of these tests are of a year of their own: seen from today they are not valid, or no more."""
    unknown = recognised(tmp_path, post.sign(letter(), "ward", "-nodetach"))
    assert (unknown["outcome"], unknown["signed"], unknown["problems"]) == ("notice", None, [])
    changed = recognised(tmp_path, post.sign(letter()).replace(b"Martin", b"Durand", 1))
    assert (changed["outcome"], changed["signed"], changed["why"]) == ("unclear", False, "signature_broken")
    assert changed["registered_gp"]["family_name"] == "Durand"
    assert [each["code"] for each in changed["problems"]] == ["signature_broken"]
    closed = recognised(tmp_path, post.encrypt(letter()))
    assert (closed["outcome"], closed["why"], closed["patient"]) == ("unclear", "not_opened", None)
    table = "\n".join(f'{key} = "{value}"' for key, value in post.table(crl=None, trust=None).items())
    (tmp_path / "config.toml").write_text(f"[smime]\n{table}\n")
    opened = recognised(tmp_path, post.encrypt(letter()), "--config", "config.toml")
    assert (opened["outcome"], opened["signed"]) == ("notice", None)
    (tmp_path / "config.toml").write_text('[smime]\ntrust = "none.pem"\n')
    assert recognised(tmp_path, post.encrypt(letter()))["why"] == "not_opened"


EXPLAINED = """
version: 1
timezone: Europe/Paris
targets: { sorties: { who: desk/sorties, via: [mss], carries: document } }
rules:
  - { id: sortie, when: { event: discharge }, hold: sorties, reason: x }
default: { hold: sorties, reason: x }
"""


def test_rules_explain_opens_a_sealed_letter_as_the_relay_does(post: Post, tmp_path: Path) -> None:
    keys = "\n".join(f'{key} = "{value}"' for key, value in post.table(crl=None, trust=None).items())
    table = '[adapters.mss]\nkind = "smtp"\nhost = "127.0.0.1"\nport = 25\nsecurity = "none"\nfrom = "r@x.mssante.fr"\n'
    desk = '[desks.sorties]\nmail = "sorties@chr-exemple.mssante.fr"\n'
    (tmp_path / "site.toml").write_text(
        f'[relay]\ndomains = ["*.mssante.fr"]\n{table}{desk}[smime]\n{keys}\n'
    )
    (tmp_path / "rules.yaml").write_text(EXPLAINED)
    (tmp_path / "sealed.eml").write_bytes(post.encrypt(letter()))

    def explained(*more: str) -> tuple[dict[str, Any], str]:
        words = ["rules", "explain", "sealed.eml", "--rules", "rules.yaml", "--json", *more]
        called = [sys.executable, "-m", "relay", *words]
        done = subprocess.run(
            called, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout), done.stderr

    said, told = explained("--config", "site.toml")
    assert said["facts"]["identity"] == "qualified"
    assert "such a mail is held" not in told
    closed, told = explained()
    assert closed["facts"]["identity"] == "doubtful"
    assert "such a mail is held: not_opened" in told


# -------------------------------------------------------------------------------------------------- configuration


def site_of(text: str, folder: Path) -> Callable[[], object]:
    return lambda: daemon.opener(config.parse(text, folder / "config.toml"))


@pytest.mark.parametrize(
    ("table", "line", "words"),
    [
        ('trust = "none.pem"', 2, "cannot be read"),
        ('trust = "relay-keys.pem"', 2, "no certificate"),
        ('trust = "chain.pem"', 2, "no root"),
        ('trust = "trust.pem"\ncrl = "trust.pem"', 3, "no revocation list"),
        ('crl = "crl.pem"', 1, "needs `trust`"),
        ('certificate = "relay.pem"', 1, "go together"),
        ('certificate = "relay.pem"\nkey = "other.key"', 3, "no key of"),
        ('certificate = "relay.pem"\nkey = "open.key"', 3, "chmod 600"),
        ('certificate = "relay.pem"\nkey = "locked.key"', 3, "key_password"),
        ('key_password = "geheim"', 2, "a secret never stands in this file"),
        ('trsut = "trust.pem"', 2, "did you mean « trust »"),
        ("trust = 3", 2, "string"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_table_is_named_with_its_line(post: Post, table: str, line: int, words: str) -> None:
    post.file("open.key", private_pem(post.key)).chmod(0o644)
    post.file("locked.key", private_pem(post.key, b"secret")).chmod(0o600)
    post.keys["other"].chmod(0o600)
    with pytest.raises(ConfigurationError) as caught:
        site_of(f"[smime]\n{table}\n", post.folder)()
    assert (caught.value.line, caught.value.file) == (line, str(post.folder / "config.toml"))
    assert words in str(caught.value)


async def test_a_locked_key_opens_with_its_word(post: Post, monkeypatch: pytest.MonkeyPatch) -> None:
    post.file("locked.key", private_pem(post.key, b"secret")).chmod(0o600)
    monkeypatch.setenv("SMIME_WORD", "secret")
    table = 'certificate = "relay.pem"\nkey = "locked.key"\nkey_password = { env = "SMIME_WORD" }'
    opener: Any = site_of(f"[smime]\n{table}\n", post.folder)()
    assert (await opener.open(post.encrypt(letter()), AT)).why is None


def test_relay_check_says_when_the_files_end(post: Post) -> None:
    table = "\n".join(f'{key} = "{value}"' for key, value in post.table().items())
    found = list(checking.sealing(config.parse(f"[smime]\n{table}\n", post.folder / "config.toml"), AT))
    assert [(each.severity, each.name) for each in found] == [
        ("ok", "certificate smime"), ("ok", "revocation lists smime"),
    ]  # fmt: skip
    late = list(
        checking.sealing(config.parse(f"[smime]\n{table}\n", post.folder / "config.toml"), AT + 8 * DAY)
    )
    assert late[1].severity == "error"
    assert "expired" in late[1].text
