"""Patients are found through blind indexes only; professionals by RPPS, name or mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from itertools import islice

import pytest

from relay import identity
from relay.errors import NotFound, UsageError
from relay.model import Absence, Ask, Link, Mailbox, Professional, Registration
from relay.store import ImportCount, Store
from tests.stores import Place

TEST_OID = "1.2.250.1.213.1.4.10"
INS = "269054958815780"
MARIE = Registration(
    ins=INS,
    ins_oid=TEST_OID,
    facility="450000088",
    local_id="IPP1",
    birth_name="DUVAL-ESSAI",
    given_names=("Marie", "Anne"),
    birth_date=date(1969, 5, 12),
    sex="F",
    gp_rpps=("10000000001",),
    consent="allowed",
)
PAUL = Registration(birth_name="ESSAI", given_names=("Paul",), birth_date=date(1950, 1, 2), sex="M")
AMBRE = Professional(
    "10000000001", "AMBRE", "Léa", "Médecin", "MG", (Mailbox("lea.ambre@medecin.mssante.fr"),), "45000"
)
NOEL = Professional("10000000002", "NOËL DU PRÉ", "Jean", mailboxes=(Mailbox("Noel@medecin.mssante.fr"),))


async def enter(store: Store, *lines: Registration, complete: bool = False) -> ImportCount:
    return await store.import_registrations(lines, identity.keys_of, complete=complete)


async def list_directory(store: Store, *lines: Professional) -> ImportCount:
    return await store.import_professionals(lines, identity.fold)


# -------------------------------------------------------------------------------------------------------- patients


async def test_a_patient_is_found_under_each_of_their_keys(store: Store) -> None:
    assert await enter(store, MARIE, PAUL) == ImportCount(new=2)
    keys = identity.keys_of(MARIE)
    assert await store.registrations([keys, [keys[0]], [keys[-1]], identity.keys_of(PAUL), ["ins:nobody"], []]) == [
        (MARIE,), (MARIE,), (MARIE,), (PAUL,), (), (),
    ]  # fmt: skip


async def test_several_patients_under_one_key_all_come_back(store: Store) -> None:
    twin = replace(MARIE, ins="", ins_oid="", local_id="IPP2")
    await enter(store, MARIE, twin)
    key = next(key for key in identity.keys_of(MARIE) if key.startswith("born:"))
    (found,) = await store.registrations([[key]])
    assert set(found) == {MARIE, twin}


async def test_importing_again_tells_new_changed_and_same(store: Store, place: Place) -> None:
    await enter(store, MARIE, PAUL)
    place.clock.turn(hours=1)
    moved = replace(PAUL, gp_rpps=("10000000002",))
    other = replace(PAUL, birth_date=date(1951, 1, 2))
    assert await enter(store, MARIE, moved, other) == ImportCount(new=1, changed=1, same=1)
    (found,) = await store.registrations([identity.keys_of(PAUL)])
    assert moved in found
    assert PAUL not in found


async def test_a_patient_is_found_under_new_keys_and_no_more_under_old_ones(
    store: Store, place: Place
) -> None:
    await enter(store, MARIE)
    place.clock.turn(hours=1)
    married = replace(MARIE, birth_name="DUVALLE")
    await enter(store, married)
    gone = set(identity.keys_of(MARIE)) - set(identity.keys_of(married))
    assert gone
    assert await store.registrations([sorted(gone), identity.keys_of(married)]) == [(), (married,)]


async def test_several_lines_of_one_patient_are_one_patient_with_several_gps(store: Store) -> None:
    other = replace(MARIE, gp_rpps=("10000000002",), consent="")
    far_apart = [MARIE, *(replace(PAUL, local_id=str(n), facility="x") for n in range(2500)), other]
    count = await store.import_registrations(far_apart, identity.keys_of)
    assert count == ImportCount(new=2501)
    found = await store.registration_by_ins(INS)
    assert found is not None
    assert found.gp_rpps == ("10000000001", "10000000002")


def apart(*lines: Registration) -> Iterator[Registration]:
    """These lines with more than a batch between two."""
    for place, line in enumerate(lines):
        yield line
        for number in range(2500):
            yield replace(PAUL, local_id=f"{place}-{number}", facility="x")


async def test_an_import_forgets_no_second_doctor_and_no_objection_while_their_lines_are_still_to_come(
    store: Store, place: Place
) -> None:
    lines = MARIE, replace(MARIE, gp_rpps=("10000000002",), consent="opposed")
    both = replace(MARIE, gp_rpps=("10000000001", "10000000002"), consent="opposed")
    await store.import_registrations(apart(*lines), identity.keys_of)
    assert await store.registration_by_ins(INS) == both
    place.clock.turn(hours=1)

    def cut() -> Iterator[Registration]:
        yield from islice(apart(*lines), 2400)
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        await store.import_registrations(cut(), identity.keys_of)
    assert await store.registration_by_ins(INS) == both
    place.clock.turn(hours=1)
    assert await store.import_registrations(apart(*lines), identity.keys_of) == ImportCount(same=5001)
    assert await store.registration_by_ins(INS) == both
    place.clock.turn(hours=1)
    new = replace(MARIE, gp_rpps=("10000000003",))
    assert await enter(store, new, complete=True) == ImportCount(changed=1, ended=5000)
    assert await store.registration_by_ins(INS) == new


async def test_lines_of_one_patient_that_follow_one_another_count_at_once(store: Store, place: Place) -> None:
    lines = [replace(PAUL, local_id=str(n), facility="x") for n in range(1999)]
    lines += [MARIE, replace(MARIE, gp_rpps=("10000000002",), consent="opposed")]

    def cut() -> Iterator[Registration]:
        yield from lines[:2000]
        raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        await store.import_registrations(cut(), identity.keys_of)
    assert await store.registration_by_ins(INS) is None
    place.clock.turn(hours=1)
    assert await store.import_registrations(lines, identity.keys_of) == ImportCount(new=1, same=1999)
    found = await store.registration_by_ins(INS)
    assert found is not None
    assert (found.gp_rpps, found.consent) == (("10000000001", "10000000002"), "opposed")


async def test_rows_that_a_file_lacks_stay_unless_it_is_complete(store: Store, place: Place) -> None:
    await enter(store, MARIE, PAUL)
    place.clock.turn(hours=1)
    assert (await enter(store, PAUL)).ended == 0
    assert await store.registration_by_ins(INS) == MARIE
    place.clock.turn(hours=1)
    assert await enter(store, PAUL, complete=True) == ImportCount(same=1, ended=1)
    assert await store.registration_by_ins(INS) is None
    place.clock.turn(hours=1)
    assert await enter(store, MARIE) == ImportCount(changed=1)
    assert await store.registration_by_ins(INS) == MARIE


async def test_what_a_person_corrected_survives_imports_and_is_shown_as_differing(
    store: Store, place: Place
) -> None:
    await enter(store, MARIE)
    await store.set_gp(INS, "10000000007", by="admin:anne")
    place.clock.turn(hours=1)
    assert await enter(store, MARIE, PAUL, complete=True) == ImportCount(new=1, differing=1)
    place.clock.turn(hours=1)
    assert (await enter(store, PAUL, complete=True)).ended == 0
    found = await store.registration_by_ins(INS)
    assert found == replace(MARIE, gp_rpps=("10000000007",), corrected=True)
    place.clock.turn(hours=1)
    assert await enter(store, replace(MARIE, gp_rpps=("10000000007",))) == ImportCount(same=1)
    assert "gp_corrected" in {line["act"] for line in await store.audit_export()}


@pytest.mark.parametrize(
    ("scope", "consent", "copies"), [("gp", "opposed", False), ("copies", "allowed", True), ("all", "opposed", True)]
)  # fmt: skip
async def test_an_objection_holds_at_once_and_survives_imports(
    store: Store, place: Place, scope: str, consent: str, copies: bool
) -> None:
    await enter(store, MARIE)
    await store.object(INS[:13], scope, "admin:anne")
    place.clock.turn(hours=1)
    await enter(store, MARIE)
    found = await store.registration_by_ins(INS)
    assert found is not None
    assert (found.consent, found.copies_opposed) == (consent, copies)


async def test_a_patient_nobody_registered_may_object_too(store: Store) -> None:
    await store.object(INS, "all", "ward:cardiologie")
    (found,) = await store.registrations([[f"ins:{INS[:13]}"]])
    assert [each.consent for each in found] == ["opposed"]


async def test_correcting_nobody_is_not_found_and_nonsense_is_refused(store: Store) -> None:
    with pytest.raises(NotFound):
        await store.set_gp(INS, "10000000007", by="admin")
    with pytest.raises(UsageError):
        await store.registration_by_ins("Marie")


async def test_progress_is_told_in_lines(store: Store) -> None:
    told: list[int] = []
    lines = (replace(PAUL, local_id=str(number), facility="x") for number in range(4100))
    await store.import_registrations(lines, identity.keys_of, progress=told.append)
    assert told == [2000, 4000, 4100]


# --------------------------------------------------------------------------------------------------- professionals


async def test_professionals_are_found_by_rpps_and_by_folded_name(store: Store) -> None:
    assert await list_directory(store, AMBRE, NOEL) == ImportCount(new=2)
    lower = replace(NOEL, mailboxes=(Mailbox("noel@medecin.mssante.fr"),))
    assert await store.professionals(["10000000001"], [identity.fold("Noël du Pré")]) == (AMBRE, lower)
    assert await store.professionals(["10000000009"], ["nobody"]) == ()


async def test_lines_of_one_rpps_add_their_mailboxes_and_one_active_line_is_enough(store: Store) -> None:
    closed = replace(AMBRE, active=False, mailboxes=(Mailbox("old@medecin.mssante.fr", active=False),))
    filler = [replace(NOEL, rpps=f"2{number:010d}", mailboxes=()) for number in range(2500)]
    await store.import_professionals([closed, *filler, AMBRE], identity.fold)
    (found,) = await store.professionals([AMBRE.rpps], [])
    assert found.active
    assert {box.address for box in found.mailboxes} == {
        "old@medecin.mssante.fr",
        "lea.ambre@medecin.mssante.fr",
    }


async def test_while_an_import_runs_nobody_loses_a_mailbox_or_leaves(store: Store, place: Place) -> None:
    office = replace(AMBRE, mailboxes=(Mailbox("cabinet@medecin.mssante.fr", "CAB"),), active=False)
    await list_directory(store, AMBRE, office)
    place.clock.turn(hours=1)
    seen: list[tuple[Professional, ...]] = []
    filler = [replace(NOEL, rpps=f"2{number:010d}", mailboxes=()) for number in range(2500)]

    def lines() -> Iterator[Professional]:
        yield office
        yield from filler
        yield AMBRE

    watching = store.import_professionals(lines(), identity.fold, progress=lambda _: None)
    running = asyncio.ensure_future(watching)
    while not running.done():
        seen.append(await store.professionals([AMBRE.rpps], []))
        await asyncio.sleep(0)
    assert {(found.active, len(found.mailboxes)) for (found,) in seen} == {(True, 2)}
    assert await running == ImportCount(new=2500, same=1)


async def test_a_number_of_two_people_is_nobodys_before_the_last_line_of_a_file(
    store: Store, place: Place
) -> None:
    other = replace(AMBRE, family_name="BRUNEL", mailboxes=(Mailbox("brunel@medecin.mssante.fr"),))
    filler = [replace(NOEL, rpps=f"2{number:010d}", mailboxes=()) for number in range(2500)]

    async def torn() -> bool:
        (found,) = await store.professionals([AMBRE.rpps], [])
        return found.two_names

    def lines(*, cut: bool) -> Iterator[Professional]:
        yield from (AMBRE, *filler)
        if cut:
            raise OSError("cut")
        yield other

    assert await store.import_professionals(lines(cut=False), identity.fold) == ImportCount(new=2501)
    assert await torn()
    place.clock.turn(hours=1)
    with pytest.raises(OSError, match="cut"):
        await store.import_professionals(lines(cut=True), identity.fold)
    assert await torn()
    place.clock.turn(hours=1)
    again = await store.import_professionals(lines(cut=False), identity.fold)
    assert again.same + again.changed == 2501
    assert await torn()
    place.clock.turn(hours=1)
    assert (await list_directory(store, AMBRE)).changed == 1
    assert not await torn()


async def test_the_same_file_again_changes_nobody_though_sites_of_one_doctor_differ(
    store: Store, place: Place
) -> None:
    office = replace(AMBRE, mailboxes=(Mailbox("cabinet@medecin.mssante.fr", "CAB"),), postcode="57000")
    filler = [replace(NOEL, rpps=f"2{number:010d}") for number in range(2100)]
    lines = [AMBRE, *filler, office]
    assert await list_directory(store, *lines) == ImportCount(new=2101)
    for _ in range(2):
        place.clock.turn(hours=1)
        assert await list_directory(store, *lines) == ImportCount(same=2101)
    (found,) = await store.professionals([AMBRE.rpps], [])
    assert (found.postcode, len(found.mailboxes), found.as_of) == (AMBRE.postcode, 2, place.clock.now())


async def test_mailboxes_that_a_later_file_lacks_are_gone_but_people_stay(store: Store, place: Place) -> None:
    await list_directory(store, AMBRE, replace(AMBRE, mailboxes=(Mailbox("two@medecin.mssante.fr"),)), NOEL)
    place.clock.turn(hours=1)
    assert await list_directory(store, AMBRE) == ImportCount(changed=1)
    assert await store.professionals([AMBRE.rpps], []) == (AMBRE,)
    assert len(await store.professionals([NOEL.rpps], [])) == 1
    place.clock.turn(hours=1)
    assert await list_directory(store, replace(AMBRE, active=False)) == ImportCount(changed=1)
    assert not (await store.professionals([AMBRE.rpps], []))[0].active


@pytest.mark.parametrize(
    "typed", ["10000000001", "LEA.AMBRE@medecin.mssante.fr", "ambre", "Amb", "Ambre Léa", "Léa Ambre"]
)
async def test_people_are_found_as_they_are_typed(store: Store, typed: str) -> None:
    await list_directory(store, AMBRE, NOEL, replace(NOEL, rpps="10000000003", family_name="AMBROISE"))
    found = await store.find_professionals(typed)
    assert AMBRE in found
    assert NOEL.rpps not in {each.rpps for each in found}


async def test_nothing_typed_finds_nobody(store: Store) -> None:
    await list_directory(store, AMBRE)
    assert await store.find_professionals("  ") == ()


async def test_a_mailbox_of_several_people_names_nobody(store: Store) -> None:
    shared = Mailbox("cabinet@medecin.mssante.fr", "CAB")
    await list_directory(
        store, replace(AMBRE, mailboxes=(*AMBRE.mailboxes, shared)), replace(NOEL, mailboxes=(shared,))
    )
    asked = ["Lea.Ambre@medecin.mssante.fr", shared.address, "nobody@medecin.mssante.fr"]
    assert await store.owners(asked) == {asked[0]: AMBRE.rpps}
    (context,) = await store.contexts([Ask(addresses=tuple(asked))])
    assert context.owners == {asked[0]: AMBRE.rpps}


# ------------------------------------------------------------------------------------------------ links, absences


async def test_a_link_names_its_person_until_it_ends(store: Store, place: Place) -> None:
    doctor = Link(AMBRE.rpps, "telegram", "42", "42", linked_at=place.clock.now())
    office = Link(AMBRE.rpps, "telegram", "77", "77", "secrétariat", linked_at=place.clock.now())
    await store.link([doctor, office])
    await store.link([doctor])
    assert set(await store.links([AMBRE.rpps])) == set(await store.links()) == {doctor, office}
    (context,) = await store.contexts([Ask(account=("telegram", "77"))])
    assert set(context.links) == {doctor, office}
    (stranger,) = await store.contexts([Ask(account=("matrix", "77"))])
    assert stranger.links == ()
    assert await store.unlink(AMBRE.rpps, office) == 1
    assert await store.links([AMBRE.rpps]) == (doctor,)
    assert await store.unlink(AMBRE.rpps) == 1
    assert await store.unlink(AMBRE.rpps) == 0
    await store.link([doctor])
    assert await store.links([AMBRE.rpps]) == (doctor,)


async def test_absences_that_are_over_are_not_shown(store: Store, place: Place) -> None:
    today = place.clock.now().date()
    past = Absence(AMBRE.rpps, today - timedelta(days=9), today - timedelta(days=1))
    now = Absence(AMBRE.rpps, today, today, "10000000002")
    for absence in (past, replace(now, substitute=None), now):
        await store.away(absence)
    assert await store.absences([AMBRE.rpps]) == (now,)
    (context,) = await store.contexts([Ask(people=(AMBRE.rpps,))])
    assert context.absences == (now,)
