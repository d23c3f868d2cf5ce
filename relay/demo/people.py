"""Everybody in the demo. None of them exists: patients bear the names of birds and trees, INS are of the test OID."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

INS_TEST = "1.2.250.1.213.1.4.10"
FINESS = "450000088"

WARD = "cardiologie@chr-exemple.mssante.fr"  # the people
WATCHED = "sorties.cardiologie@chr-exemple.mssante.fr"  # where they send discharge letters
RELAY = "relais@relais45.mssante.fr"
DESK = "sorties@chr-exemple.mssante.fr"
ADMIN = "informatique@chr-exemple.mssante.fr"


def _luhn(digits: str) -> str:
    """`digits` and their check digit, as RPPS numbers end."""
    total = sum(sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(digits)))
    return f"{digits}{-total % 10}"


@dataclass(frozen=True, slots=True)
class Doctor:
    """A general practitioner with a secure mailbox and the built-in chat, which bears the name `chat`."""

    family: str
    given: str
    number: int
    town: str
    postcode: str
    address: str
    chat: str

    @property
    def rpps(self) -> str:
        """Eleven digits."""
        return _luhn(f"1009990{self.number:03d}")

    @property
    def name(self) -> str:
        """« Dr Camille Ambre »."""
        return f"Dr {self.given} {self.family}"


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient of the ward. `gp` is the registered one, if the hospital knows any."""

    family: str
    given: tuple[str, ...]
    sex: str
    born: date
    order: int
    gp: Doctor | None = None

    @property
    def ins(self) -> str:
        """A well-formed NIR with its key: born in Orléans (COG 45234)."""
        nir = f"{'1' if self.sex == 'M' else '2'}{self.born:%y%m}45234{self.order:03d}"
        return f"{nir}{97 - int(nir) % 97:02d}"

    @property
    def ipp(self) -> str:
        """The hospital's own number."""
        return f"9000{self.order:05d}"

    @property
    def name(self) -> str:
        """« Lucette PERVENCHE »."""
        return f"{self.given[0]} {self.family}"


AMBRE = Doctor("Ambre", "Camille", 12, "Orléans", "45000", "camille.ambre@medecin.mssante.fr", "ambre")
SAULE = Doctor("Saule", "Claude", 31, "Olivet", "45160", "claude.saule@medecin.mssante.fr", "saule")
SAULE_TOO = Doctor(
    "Saule", "Dominique", 47, "Fleury", "45400", "dominique.saule@medecin.mssante.fr", "saule2"
)
DOCTORS = (AMBRE, SAULE, SAULE_TOO)
AUTHOR = Doctor("Kerbellec", "Solenn", 50, "Orléans", "45000", "solenn.kerbellec@chr-exemple.mssante.fr", "")

PERVENCHE = Patient("PERVENCHE", ("Lucette", "Marie"), "F", date(1948, 3, 14), 101, AMBRE)
LORIOT = Patient("LORIOT", ("Anselme",), "M", date(1951, 7, 2), 102, AMBRE)
TILLEUL = Patient("TILLEUL", ("Colombe",), "F", date(1962, 11, 23), 103)
GENET = Patient("GENÊT", ("Fernand",), "M", date(1944, 5, 9), 104)
ORME = Patient("ORME", ("Violette",), "F", date(1939, 1, 30), 105, SAULE)
PATIENTS = (PERVENCHE, LORIOT, TILLEUL, GENET, ORME)

MAILBOXES = (WARD, WATCHED, RELAY, DESK, ADMIN, *(doctor.address for doctor in DOCTORS))
