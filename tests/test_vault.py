"""Keys live in one file that no crash can break; what they sealed opens nowhere else and never after them."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import ConfigurationError, NotFound
from relay.vault import FileKeyRing, Vault
from tests.campaign import many

DAY = "2026-11-20"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "keys.json"


@pytest.fixture
def vault(file: Path) -> Vault:
    return Vault(FileKeyRing.create(file))


def test_a_new_ring_is_for_its_owner_alone_and_never_overwritten(file: Path) -> None:
    ring = FileKeyRing.create(file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert len(ring.long_key("token")) == 32
    with pytest.raises(ConfigurationError, match="never overwritten"):
        FileKeyRing.create(file)
    assert FileKeyRing(file).long_key("token") == ring.long_key("token")


def test_purposes_and_days_have_keys_of_their_own(file: Path) -> None:
    ring = FileKeyRing.create(file)
    keys = {ring.long_key("index"), ring.long_key("token"), ring.long_key("made-later")}
    keys |= {ring.day_key(DAY, create=True), ring.day_key("2026-11-21", create=True)}
    assert len(keys) == 5
    assert FileKeyRing(file).long_key("made-later") == ring.long_key("made-later")


def test_a_day_has_no_key_until_it_is_made_and_none_after_it_is_destroyed(file: Path) -> None:
    ring = FileKeyRing.create(file)
    with pytest.raises(KeyError):
        ring.day_key(DAY)
    ring.day_key(DAY, create=True)
    ring.day_key("2026-11-21", create=True)
    assert ring.destroy_before("2026-11-21") == 1
    with pytest.raises(KeyError):
        ring.day_key(DAY)
    assert ring.day_key("2026-11-21")
    assert DAY not in file.read_text()


def test_a_day_must_look_like_one(file: Path) -> None:
    with pytest.raises(ValueError, match="YYYY-MM-DD"):
        FileKeyRing.create(file).day_key("today", create=True)


def test_what_another_process_changed_is_seen_at_once(file: Path) -> None:
    one = FileKeyRing.create(file)
    other = FileKeyRing(file)
    made = one.day_key(DAY, create=True)
    assert other.day_key(DAY) == made
    other.destroy_before("2027-01-01")
    with pytest.raises(KeyError):
        one.day_key(DAY)


def _make(file: str, answers: multiprocessing.Queue[bytes]) -> None:
    answers.put(FileKeyRing(Path(file)).day_key(DAY, create=True))


def test_processes_that_make_a_day_s_key_at_once_agree_on_it(file: Path) -> None:
    FileKeyRing.create(file)
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    makers = [context.Process(target=_make, args=(str(file), answers)) for _ in range(4)]
    for each in makers:
        each.start()
    found = {answers.get(timeout=60) for _ in makers}
    for each in makers:
        each.join()
    assert found == {FileKeyRing(file).day_key(DAY)}


def test_a_crash_before_the_new_ring_is_in_place_changes_nothing(file: Path) -> None:
    ring = FileKeyRing.create(file)
    file.with_name("keys.json.new").write_text("half a ri")
    made = ring.day_key(DAY, create=True)
    assert FileKeyRing(file).day_key(DAY) == made
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"long": {}, "days": 3}', '{"long": {"index": "c2hvcnQ="}, "days": {}}']
)
def test_a_broken_ring_is_named_and_its_keys_are_not(file: Path, content: str) -> None:
    FileKeyRing.create(file)
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=r"keys\.json") as told:
        FileKeyRing(file)
    assert "c2hvcnQ" not in str(told.value)


def test_a_ring_that_others_can_read_is_refused(file: Path) -> None:
    FileKeyRing.create(file)
    file.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        FileKeyRing(file)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root writes in another's name")
def test_the_ring_stays_the_relay_s_own_when_root_changes_it(file: Path) -> None:
    FileKeyRing.create(file)
    os.chown(file, 12345, 23456)
    lock = file.with_name(file.name + ".lock")
    lock.unlink()  # as after a restore from a backup
    ring = FileKeyRing(file)
    ring.day_key(DAY, create=True)
    for each in (file, lock):
        assert (each.stat().st_uid, each.stat().st_gid) == (12345, 23456)
        assert each.stat().st_mode & 0o777 == 0o600
    ring.destroy_before("2026-11-21")
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


def test_a_missing_ring_says_how_to_make_one(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="relay init"):
        FileKeyRing(file)


@settings(max_examples=many(60), deadline=None)
@given(st.one_of(st.binary(max_size=3000), st.text(max_size=3000).map(str.encode)))
def test_what_was_sealed_opens_again(shared: Vault, plain: bytes) -> None:
    sealed = shared.seal(plain, day=DAY, aad="content:1")
    assert shared.open(sealed, "content:1") == plain
    assert shared.day_of(sealed) == DAY
    if len(plain) >= 16:
        assert plain not in sealed


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return Vault(FileKeyRing.create(tmp_path_factory.mktemp("ring") / "keys.json"))


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 32767, 32768, 200_000])
def test_every_size_opens_again_whether_it_was_deflated_or_not(vault: Vault, size: int) -> None:
    for plain in (b"a" * size, os.urandom(size)):
        assert vault.open(vault.seal(plain, day=DAY, aad="x"), "x") == plain


def test_letters_of_a_usual_size_take_less_room(vault: Vault) -> None:
    plain = b"Compte rendu d'hospitalisation en cardiologie. " * 100
    assert len(vault.seal(plain, day=DAY, aad="x")) < len(plain) / 5


def test_one_text_is_never_sealed_alike_twice(vault: Vault) -> None:
    assert len({vault.seal(b"letter", day=DAY, aad="x") for _ in range(50)}) == 50


def test_what_is_moved_to_another_row_does_not_open(vault: Vault) -> None:
    with pytest.raises(NotFound, match="belongs elsewhere"):
        vault.open(vault.seal(b"letter", day=DAY, aad="content:1"), "content:2")
    with pytest.raises(NotFound, match="belongs elsewhere"):
        vault.open_long("registry", vault.seal_long("registry", b"x", "registration:1"), "registration:2")


def test_no_changed_byte_goes_unnoticed(vault: Vault) -> None:
    sealed = vault.seal(b"letter", day=DAY, aad="x")
    for place in range(len(sealed)):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(NotFound):
            vault.open(bytes(changed), "x")
    for end in range(len(sealed)):
        with pytest.raises(NotFound):
            vault.open(sealed[:end], "x")


def test_a_destroyed_day_takes_its_content_with_it(vault: Vault) -> None:
    old, new = (vault.seal(b"letter", day=day, aad="x") for day in (DAY, "2026-11-21"))
    assert vault.open(old, "x") == b"letter"
    vault.ring.destroy_before("2026-11-21")
    with pytest.raises(NotFound, match="content was destroyed"):
        vault.open(old, "x")
    assert vault.open(new, "x") == b"letter"


def test_what_has_no_day_opens_for_its_purpose_only(vault: Vault) -> None:
    sealed = vault.seal_long("registry", b"patient", "registration:1")
    assert vault.open_long("registry", sealed, "registration:1") == b"patient"
    with pytest.raises(NotFound):
        vault.open_long("token", sealed, "registration:1")


def test_a_blind_index_is_stable_and_says_nothing(vault: Vault, tmp_path: Path) -> None:
    name = vault.index("key", "ins:269054958815780")
    assert name == vault.index("key", "ins:269054958815780")
    assert len(name) == 26
    others = {vault.index("patient", "ins:269054958815780"), vault.index("key", "ins:269054958815781")}
    others.add(Vault(FileKeyRing.create(tmp_path / "other.json")).index("key", "ins:269054958815780"))
    assert name not in others
    assert len(others) == 3


def test_the_ring_s_file_is_plain_json_that_a_person_can_back_up(vault: Vault, file: Path) -> None:
    vault.seal(b"x", day=DAY, aad="x")
    content = json.loads(file.read_text())
    assert content["version"] == 1
    assert list(content["days"]) == [DAY]
