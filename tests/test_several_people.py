"""A file or a mail that brings letters of several people: held whole, with a reason, and nobody gets another's."""

# ruff: noqa: F811 - fixtures

from __future__ import annotations

from collections.abc import Callable
from datetime import date

import pytest

from relay.model import Purpose
from tests import letters
from tests.letters import hl7
from tests.letters.hprim import hprim
from tests.stores import place, store  # noqa: F401 - fixtures
from tests.test_joining import CDA, ODETTE, SENDER, arrive, his, house, mailed, to_gp  # noqa: F401 - a fixture
from tests.test_loops import House
from tests.test_planning import _secret  # noqa: F401 - a fixture

pytestmark = pytest.mark.parametrize("place", ["sqlite"], indirect=True)
OTHER = letters.patient("BOISGARD", "Rémi", born=date(1951, 4, 2), sex="M", order=11, ipp="900099999")
TWO_HPRIM = hprim(ODETTE).replace(b"****FINFICHIER****\r\n", b"") + hprim(OTHER)
TWO_HL7 = hl7.batch(
    hl7.mdm(patient=ODETTE, document=CDA), hl7.mdm(patient=OTHER, document=letters.cda(patient=OTHER))
)


def attached(name: str, content: bytes) -> tuple[bytes, str]:
    return mailed(
        letters.mail("Ci-joint.", sender=SENDER, to="relais@relais45.mssante.fr", subject="Lettres de sortie",
                     attachments=[(name, content, "application/octet-stream")])
    )  # fmt: skip


WAYS: dict[str, Callable[[], tuple[bytes, str]]] = {
    "a batch of HL7 v2 in the drop folder": lambda: his(TWO_HL7),
    "an HPRIM file in the drop folder": lambda: his(TWO_HPRIM),
    "a batch of HL7 v2 attached": lambda: attached("lettres.hl7", TWO_HL7),
    "an HPRIM file attached": lambda: attached("lettres.hpr", TWO_HPRIM),
    "two HPRIM files attached": lambda: mailed(
        letters.mail("Ci-joint.", sender=SENDER, to="relais@relais45.mssante.fr", subject="Lettres de sortie",
                     attachments=[("a.hpr", hprim(ODETTE), "application/octet-stream"),
                                  ("b.hpr", hprim(OTHER), "application/octet-stream")])
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
async def test_letters_of_two_people_in_one_arrival_are_held_with_the_reason(house: House, way: str) -> None:
    await arrive(house, WAYS[way]())
    (held,) = await house.store.holds()
    assert (held["why"], held["reason"]) == ("two_patients", "le message concerne deux patients")
    assert not to_gp(house)
    told = {each.to.partition(":")[0] for each in house.sender.sent if each.purpose is Purpose.HOLD_NOTE}
    assert told == {"desk", "ward"}


@pytest.mark.parametrize("alone", [hprim(ODETTE), hl7.batch(hl7.mdm(patient=ODETTE, document=CDA))])
async def test_the_same_file_about_one_of_them_leaves(house: House, alone: bytes) -> None:
    await arrive(house, his(alone))
    (row,) = await house.store.envelopes()
    assert (row["state"], row["kind"]) == ("decided", "notice"), (row["why"], await house.store.holds())
    assert len(to_gp(house)) == 1
