"""Signed names: what we made verifies, what anybody else made does not."""

from __future__ import annotations

from base64 import b32encode

from hypothesis import given
from hypothesis import strategies as st

from relay.model import base32, derived_id, is_reference
from relay.tokens import TOKEN_LENGTH, Tokens, participant_mark, references_in

TOKENS = Tokens(b"k" * 32, "relais45.mssante.fr")
THREAD = derived_id("thread", "a")[:16]
OTHER = derived_id("thread", "b")[:16]
DELIVERY = derived_id("delivery", "a")
GP = "rpps:10003456789"


def test_a_message_id_of_ours_says_thread_participant_and_delivery():
    text = TOKENS.message_id(THREAD, GP, DELIVERY)
    assert text.startswith(f"<v1.{THREAD}.")
    assert text.endswith("@relais45.mssante.fr>")
    ours = TOKENS.read_message_id(f"<other@example.org>\r\n {text}")
    assert ours is not None
    assert (ours.thread, ours.participant, ours.delivery) == (THREAD, participant_mark(GP), DELIVERY)


def test_a_message_id_with_one_changed_letter_is_not_ours():
    text = TOKENS.message_id(THREAD, GP, DELIVERY)
    for place in range(4, len(text) - len("@relais45.mssante.fr>")):
        if text[place] == ".":
            continue
        changed = text[:place] + ("b" if text[place] == "a" else "a") + text[place + 1 :]
        assert TOKENS.read_message_id(changed) is None


def test_a_message_id_signed_with_another_key_is_not_ours():
    theirs = Tokens(b"x" * 32, TOKENS.domain).message_id(THREAD, GP, DELIVERY)
    assert TOKENS.read_message_id(theirs) is None


def test_a_message_id_shows_neither_rpps_nor_ward():
    assert "10003456789" not in TOKENS.message_id(THREAD, GP, DELIVERY)


def test_a_reply_address_survives_upper_casing_and_fits_a_local_part():
    address = TOKENS.reply_address("relais+{token}@relais45.mssante.fr", THREAD, GP)
    assert len(address.partition("@")[0]) <= 64
    assert len(TOKENS.token(THREAD, GP)) == TOKEN_LENGTH
    found = TOKENS.read_token(f"Dr X <{address.upper()}>")
    assert found is not None
    assert (found.thread, found.participant) == (THREAD, participant_mark(GP))


def test_a_template_without_token_is_the_address_itself():
    assert TOKENS.reply_address("relais@example.fr", THREAD, GP) == "relais@example.fr"
    assert TOKENS.read_token("relais@example.fr") is None


def test_a_token_of_one_thread_or_person_does_not_open_another():
    token = TOKENS.token(THREAD, GP)
    assert TOKENS.read_token(token.replace(THREAD, OTHER)) is None
    assert TOKENS.read_token(token.replace(participant_mark(GP), participant_mark("ward:x"))) is None
    assert TOKENS.read_token(token, direction="out") is None


def test_what_a_rotated_key_signed_still_verifies():
    rotated = Tokens(b"n" * 32, TOKENS.domain, key_id="2", earlier={"1": TOKENS.key})
    assert rotated.read_token(TOKENS.token(THREAD, GP)) is not None
    assert rotated.read_message_id(TOKENS.message_id(THREAD, GP, DELIVERY)) is not None
    assert TOKENS.read_token(rotated.token(THREAD, GP)) is None


def test_button_nonces_differ_by_copy_verb_and_choice_and_fit_every_platform():
    made = {TOKENS.nonce(d, v, c) for d in ("a", "b") for v in ("ack", "ask") for c in ("", "1h")}
    assert len(made) == 8
    assert all(len(nonce.encode()) <= 64 for nonce in made)


@given(st.text(max_size=40), st.integers(0, 5))
def test_references_are_crockford_and_the_same_each_time(thread: str, draw: int):
    reference = TOKENS.reference(thread, draw)
    assert is_reference(reference)
    assert reference == TOKENS.reference(thread, draw)


def test_drawing_again_gives_another_reference():
    assert len({TOKENS.reference(THREAD, draw) for draw in range(50)}) == 50


def test_visible_references_are_found_as_people_retype_them():
    assert references_in("Re: Lettre de liaison – Réf. 7F3Q-K2M9") == ("7F3Q-K2M9",)
    assert references_in("ref 7f3qk2mo puis Référence : 7F3Q K2M0") == ("7F3Q-K2M0",)
    assert references_in("réf. de mon dossier, tel 0238000000") == ()


@given(st.text(max_size=300))
def test_reading_any_text_finds_nothing_and_never_fails(text: str):
    assert TOKENS.read_tokens(text) == ()
    assert TOKENS.read_message_ids(text) == ()
    references_in(text)


@given(st.binary(max_size=40))
def test_base32_is_that_of_the_standard_library_in_lower_case_without_padding(raw: bytes):
    assert base32(raw) == b32encode(raw).decode().rstrip("=").lower()
