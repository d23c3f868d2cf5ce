"""People who do not exist, and letters about them, with the collisions that make software pick the wrong one.

The same seed gives the same people. Every letter says what is true of it: whose it is, and whether it can
be decided without a person ("clear"), must not be ("doubt"), or is about somebody nobody registered
("nobody"). The truth comes from how the case was built, never from the code under test.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Literal

from relay.identity import NIR, ins_key
from relay.model import LocalId, Mailbox, Notice, Patient, Person, Professional, Registration, Stay

FACILITY = "450000088"
OTHER_FACILITY = "570000018"
DOMAINS = ("*.mssante.fr", "apicrypt.example")

_STARTS = [
    "Bar",
    "Cor",
    "Del",
    "Fau",
    "Gué",
    "Hér",
    "Jou",
    "Lan",
    "Mor",
    "Nau",
    "Pré",
    "Rou",
    "Sau",
    "Tré",
    "Vau",
    "Bœu",
    "Châ",
    "Lem",
    "Mén",
    "Péri",
]
_MIDDLES = ["be", "che", "do", "gi", "lé", "ma", "ni", "ra", "ti", "vè"]
_ENDS = ["ard", "aud", "court", "eau", "ert", "ière", "in", "on", "ot", "oux", "uel", "ville"]
_PARTICLES = ("", "", "", "", "", "", "", "", "d'", "de ", "de la ", "Le ", "L'")
_WOMEN = [
    "Adèle",
    "Agnès",
    "Anaïs",
    "Aurélie",
    "Béatrice",
    "Camille",
    "Cécile",
    "Chloé",
    "Éloïse",
    "Émilie",
    "Françoise",
    "Gaëlle",
    "Hélène",
    "Inès",
    "Jeanne",
    "Lætitia",
    "Maëlle",
    "Marie",
    "Noémie",
    "Odile",
    "Pauline",
    "Renée",
    "Solène",
    "Thérèse",
    "Zoé",
    "Marie-Thérèse",
    "Anne-Laure",
    "Marie-France",
]
_MEN = [
    "André",
    "Aurélien",
    "Benoît",
    "Cédric",
    "Didier",
    "Émile",
    "François",
    "Gaël",
    "Hervé",
    "Jérôme",
    "Joël",
    "Léon",
    "Loïc",
    "Mathéo",
    "Noël",
    "Pierre",
    "Raphaël",
    "Rémi",
    "Sébastien",
    "Théo",
    "Valéry",
    "Jean-Pierre",
    "Jean-Luc",
    "Pierre-Yves",
    "Gérard",
    "Étienne",
    "Gaëtan",
    "Maël",
]


@dataclass(frozen=True, slots=True)
class Case:
    """A letter, whose it is (an index of the registry; None: nobody's there), and what may be done with it."""

    notice: Notice
    truth: int | None
    kind: Literal["clear", "doubt", "nobody"]
    scenario: str


class Population:
    """A registry with `size` people, `collisions` of them made to be confused, and letters about all of them."""

    def __init__(self, size: int, collisions: int, seed: int = 2026) -> None:
        self.random = random.Random(seed)
        self.rows: list[Registration] = []
        self.cases: list[Case] = []
        self.order = 0
        scenarios = [
            self._twins, self._compound_twins, self._homonyms, self._namesakes, self._swapped, self._used_names,
            self._unregistered_twin, self._two_rows, self._undated_row, self._other_ins,
        ]  # fmt: skip
        turn = 0
        while len(self.rows) < collisions:
            scenarios[turn % len(scenarios)]()
            turn += 1
        self.collided = len(self.rows)
        while len(self.rows) < size:
            self._ordinary()

    # ------------------------------------------------------------------------------------------- people

    def family(self) -> str:
        """A family name; one in nine is a double one, some with a particle."""
        pick = self.random.choice
        name = pick(_PARTICLES) + pick(_STARTS) + pick(_MIDDLES) + pick(_ENDS)
        return f"{name}-{pick(_STARTS)}{pick(_ENDS)}" if self.random.random() < 0.11 else name

    def person(self, **fixed: object) -> Registration:
        """A registered person with INS, local id and GP, unless `fixed` says otherwise."""
        pick = self.random.choice
        sex = str(fixed.get("sex") or pick("MF"))
        born = date(1925, 1, 1) + timedelta(days=self.random.randrange(36_000))
        given = pick(_WOMEN if sex == "F" else _MEN)
        names = (given, *((pick(_WOMEN if sex == "F" else _MEN),) if self.random.random() < 0.3 else ()))
        self.order += 1
        made = Registration(
            ins_oid=NIR,
            facility=FACILITY,
            local_id=f"9{self.order:08d}",
            birth_name=self.family(),
            given_names=names,
            birth_date=born,
            sex=sex,
            birth_place=f"{self.random.randrange(10, 95)}{self.random.randrange(1, 999):03d}",
            gp_rpps=(f"10{self.random.randrange(10**9):09d}",),
        )
        made = replace(made, **fixed)  # type: ignore[arg-type]  # the caller names fields of Registration
        if sex == "F" and "used_name" not in fixed and self.random.random() < 0.4:
            made = replace(made, used_name=self.family())
        return made if "ins" in fixed else replace(made, ins=self.ins(made))

    def ins(self, row: Registration) -> str:
        """A well-formed NIR that nobody else has here."""
        self.order += 1
        assert row.birth_date is not None
        place = f"{self.order // 990 % 90 + 1:02d}{self.order // 89_100 % 900 + 1:03d}"
        body = f"{'1' if row.sex == 'M' else '2'}{row.birth_date:%y%m}{place}{self.order % 990 + 1:03d}"
        return body + ins_key(body)

    def register(self, row: Registration) -> int:
        """Its index."""
        self.rows.append(row)
        return len(self.rows) - 1

    # ------------------------------------------------------------------------------------------ letters

    def spell(self, name: str) -> str:
        """The same name as another machine writes it."""
        way = self.random.randrange(7)
        if way == 1:
            return unicodedata.normalize("NFD", name)
        if way == 2:
            plain = "".join(c for c in unicodedata.normalize("NFD", name) if not unicodedata.combining(c))
            return plain.replace("œ", "oe").replace("æ", "ae").upper()
        if way == 3:
            return name.upper()
        if way == 4:
            return name.replace("-", " ")
        if way == 5:
            return name.replace("'", "’").replace("-", "‐")
        return name.replace("'", " ") if way == 6 else name

    def letter(
        self,
        row: Registration,
        *,
        ins: bool = False,
        name: Literal["birth", "used", "unstated", "capitals"] = "birth",
        local: bool = True,
        **changed: object,
    ) -> Notice:
        """A discharge letter about that person, stating all the strict traits."""
        birth, given = self.spell(row.birth_name), tuple(self.spell(each) for each in row.given_names)
        if " " in given[0] or " " in birth:
            # A given name written without its hyphen comes apart in the reader.
            given = tuple(word for each in given for word in each.split())
        patient = Patient(
            ins=row.ins if ins else None,
            ins_oid=row.ins_oid if ins else None,
            ins_key_valid=True if ins else None,
            birth_name=birth,
            used_name=self.spell(row.used_name) if row.used_name and name == "birth" else None,
            given_names=given,
            sex=row.sex,  # type: ignore[arg-type]  # M or F here
            birth_date=row.birth_date,
            birth_place=row.birth_place,
            local_ids=(LocalId(FACILITY, row.local_id),) if local and row.local_id else (),
            name_kind="birth",
        )
        if name == "unstated":
            patient = replace(patient, name_kind="unstated")
        elif name == "capitals":
            first, last = birth.upper(), " ".join(given).upper()
            if self.random.random() < 0.5:
                first, last = last, first
            patient = replace(
                patient,
                name_kind="unstated",
                order_unsure=True,
                birth_name=first,
                given_names=tuple(last.split()),
            )
        elif name == "used":
            patient = replace(
                patient, name_kind="used", birth_name=None, used_name=row.used_name or row.birth_name
            )
        patient = replace(patient, **changed)  # type: ignore[arg-type]  # the caller names fields of Patient
        return Notice(format="text", event="discharge", patient=patient, stay=Stay(facility=FACILITY))

    def say(
        self, notice: Notice, truth: int | None, kind: Literal["clear", "doubt", "nobody"], scenario: str
    ) -> None:
        """Keep a case."""
        self.cases.append(Case(notice, truth, kind, scenario))

    # ---------------------------------------------------------------------------------------- scenarios

    def _ordinary(self) -> None:
        way = self.random.random()
        row = self.person(**({"ins": "", "ins_oid": ""} if way < 0.2 else {}))
        index = self.register(row)
        draw = self.random.random()
        if row.ins and draw < 0.6:
            kind = self.random.choice(("birth", "unstated", "capitals", "used"))
            self.say(self.letter(row, ins=True, name=kind), index, "clear", f"INS, {kind} name")  # type: ignore[arg-type]
        elif draw < 0.94:
            kind = self.random.choice(("birth", "unstated", "capitals"))
            self.say(self.letter(row, name=kind, local=draw < 0.8), index, "clear", f"traits, {kind} name")  # type: ignore[arg-type]
        elif draw < 0.96:
            self.say(self.letter(row, name="used"), index, "doubt", "used name alone")
        elif draw < 0.98:
            field, nothing = self.random.choice((("birth_date", None), ("sex", None), ("given_names", ())))
            self.say(self.letter(row, **{field: nothing}), index, "doubt", f"no {field}")
        elif row.ins:
            wrong = row.ins[:13] + f"{(int(row.ins[13:]) + 5) % 97 + 1:02d}"
            spoilt = self.letter(row, ins=True)
            assert spoilt.patient is not None
            spoilt = replace(spoilt, patient=replace(spoilt.patient, ins=wrong, ins_key_valid=False))
            self.say(spoilt, index, "doubt", "wrong key")
        else:
            stranger = self.person()
            self.say(self.letter(stranger), None, "nobody", "stranger")

    def _pair(self, **different: object) -> tuple[int, int]:
        """Two people alike in everything but their numbers, their GP and `different`."""
        one = self.person()
        two = replace(self.person(), birth_name=one.birth_name, used_name=one.used_name, given_names=one.given_names,
                      birth_date=one.birth_date, sex=one.sex, birth_place=one.birth_place)  # fmt: skip
        two = replace(two, **different)  # type: ignore[arg-type]  # fields of Registration
        two = replace(two, ins=self.ins(two))
        return self.register(one), self.register(two)

    def _twins(self) -> None:
        one, two = self._pair()
        names = [name for name in (_WOMEN if self.rows[one].sex == "F" else _MEN) if "-" not in name]
        first, second = self.random.sample(names, 2)
        self.rows[one] = replace(self.rows[one], given_names=(first,))
        self.rows[two] = replace(self.rows[two], given_names=(second,))
        for index, other in ((one, two), (two, one)):
            row = self.rows[index]
            self.say(self.letter(row, ins=True), index, "clear", "twin by INS")
            self.say(self.letter(row), index, "clear", "twin by traits")
            self.say(self.letter(row, name="capitals"), index, "clear", "twin in capitals")
            crossed = self.letter(row)
            assert crossed.patient is not None
            swapped = replace(
                crossed,
                patient=replace(crossed.patient, ins=self.rows[other].ins, ins_oid=NIR, ins_key_valid=True),
            )
            self.say(swapped, index, "doubt", "INS of the other twin")
            self.say(
                self.letter(row, local=False, given_names=(row.given_names[0][0],)), index, "doubt", "initial"
            )

    def _compound_twins(self) -> None:
        one, two = self._pair()
        self.rows[one] = replace(self.rows[one], given_names=("Jean",), sex="M", used_name="")
        self.rows[two] = replace(self.rows[two], given_names=("Jean-Pierre",), sex="M", used_name="")
        for index in (one, two):
            self.rows[index] = replace(self.rows[index], ins=self.ins(self.rows[index]))
        long, short = self.rows[two], self.rows[one]
        self.say(self.letter(short, given_names=("JEAN",)), one, "clear", "Jean")
        self.say(self.letter(long, given_names=("Jean-Pierre",)), two, "clear", "Jean-Pierre")
        self.say(self.letter(long, given_names=("Jean", "Pierre")), two, "doubt", "Jean Pierre")
        self.say(
            self.letter(short, given_names=("Jean", "Pierre"), local=False), one, "doubt", "Jean, Pierre"
        )

    def _homonyms(self) -> None:
        one, two = self._pair(birth_place="99352")
        for index in (one, two):
            row = self.rows[index]
            self.say(self.letter(row, ins=True), index, "clear", "homonym by INS")
            for kind in ("birth", "unstated", "capitals"):
                self.say(self.letter(row, name=kind), index, "doubt", f"homonym by traits, {kind} name")  # type: ignore[arg-type]
            self.say(self.letter(row, local=False, birth_place=None), index, "doubt", "homonym without place")

    def _namesakes(self) -> None:
        born = self.person().birth_date
        one, two = self._pair(birth_date=born)
        for index in (one, two):
            row = self.rows[index]
            self.say(self.letter(row, name="unstated"), index, "clear", "namesake born on another day")
            self.say(self.letter(row, birth_date=None), index, "doubt", "namesake without date")

    def _swapped(self) -> None:
        one, two = self._pair(birth_name="Benoît", used_name="", given_names=("Aubin",), sex="M")
        self.rows[one] = replace(
            self.rows[one], birth_name="Aubin", used_name="", given_names=("Benoît",), sex="M"
        )
        for index in (one, two):
            self.rows[index] = replace(self.rows[index], ins=self.ins(self.rows[index]))
            row = self.rows[index]
            self.say(self.letter(row), index, "clear", "swapped, labelled")
            self.say(self.letter(row, ins=True, name="capitals"), index, "clear", "swapped by INS")
            self.say(self.letter(row, name="capitals"), index, "doubt", "swapped in capitals")

    def _used_names(self) -> None:
        name = self.family()
        married = self.person(sex="F", used_name=name)
        one = self.register(replace(married, given_names=("Marie",)))
        born = replace(self.person(sex="F", used_name=""), birth_name=name, given_names=("Marie",),
                       birth_date=married.birth_date)  # fmt: skip
        two = self.register(replace(born, ins=self.ins(born)))
        wife, born = self.rows[one], self.rows[two]
        self.say(self.letter(wife), one, "clear", "birth and used name")
        self.say(self.letter(born), two, "clear", "birth name that is another's used name")
        bare = self.letter(born, name="unstated")
        self.say(bare, two, "doubt", "name that is one's birth and another's used name")
        self.say(
            self.letter(wife, name="unstated", birth_name=name.upper()), one, "doubt", "used name, unlabelled"
        )
        self.say(self.letter(wife, name="used"), one, "doubt", "used name alone")
        self.say(self.letter(wife, ins=True, name="used"), one, "clear", "used name by INS")
        self.say(self.letter(wife, used_name="Autrement"), one, "doubt", "another used name")

    def _unregistered_twin(self) -> None:
        index = self.register(replace(self.person(), given_names=("Camille",)))
        twin = replace(self.rows[index], given_names=("Dominique",), local_id="80000000")
        twin = replace(twin, ins=self.ins(twin))
        self.say(self.letter(twin, local=False), None, "nobody", "twin whom nobody registered")
        self.say(self.letter(twin, ins=True, local=False), None, "nobody", "that twin, by INS")
        stolen = self.letter(twin)
        assert stolen.patient is not None
        stolen = replace(
            stolen, patient=replace(stolen.patient, local_ids=(LocalId(FACILITY, self.rows[index].local_id),))
        )
        self.say(stolen, None, "doubt", "local id of the other twin")

    def _two_rows(self) -> None:
        row = self.person()
        one = self.register(row)
        self.register(
            replace(row, ins="", ins_oid="", facility=OTHER_FACILITY, local_id=f"7{self.order:08d}")
        )
        self.say(self.letter(row, ins=True), one, "clear", "two rows, by INS")
        self.say(self.letter(row, local=False), one, "doubt", "two rows, by traits")

    def _undated_row(self) -> None:
        row = self.person(used_name="")
        one = self.register(row)
        unknown = replace(self.person(), birth_name=row.birth_name, used_name="", given_names=row.given_names[:1],
                          birth_date=None, sex="")  # fmt: skip
        self.register(unknown)
        self.say(self.letter(row, ins=True), one, "clear", "beside a row without date, by INS")
        self.say(self.letter(row, local=False), one, "doubt", "beside a row without date")

    def _other_ins(self) -> None:
        row = self.person()
        self.register(row)
        fresh = replace(row, ins=self.ins(row), local_id="")
        self.say(self.letter(fresh, ins=True), None, "nobody", "namesake under another INS")


# ------------------------------------------------------------------------------------------------ doctors


@dataclass(frozen=True, slots=True)
class GpCase:
    """A letter of one certain patient, the directory around it, and what must come out."""

    notice: Notice
    row: Registration
    professionals: tuple[Professional, ...]
    gp: str
    rpps: str | None
    scenario: str


def doctor(number: int, family: str, given: str, *boxes: Mailbox, active: bool = True) -> Professional:
    """A doctor who does not exist."""
    rpps = f"10{number:09d}"
    return Professional(rpps, family, given, "10", "SM54", boxes, "45000", active=active)


def box(
    number: int, domain: str = "medecin.mssante.fr", kind: str = "PER", *, active: bool = True
) -> Mailbox:
    """A mailbox of theirs."""
    return Mailbox(f"dr{number}.{kind.lower()}@{domain}", kind, active=active)


def gp_cases(count: int, seed: int = 45) -> Iterator[GpCase]:
    """Homonyms, moved, left, without mailbox, outside the white list, contradicted, several, and clear ones."""
    people = Population(1, 0, seed)
    return (_gp_case(people, turn) for turn in range(count))


def _gp_case(people: Population, turn: int) -> GpCase:
    row = people.person(used_name="")
    number = 1000 + 10 * turn
    family, given = people.family(), people.random.choice(_MEN)
    mine = doctor(number, family, given, box(number))
    rival = doctor(number + 1, family, given, box(number + 1))  # a homonym in full
    cousin = doctor(number + 2, family, "Apolline", box(number + 2))
    other = doctor(number + 3, "Zwiller", "Ursule", box(number + 3))
    letter = people.letter(row, ins=True)

    def case(
        scenario: str,
        gp: str,
        rpps: str | None = None,
        *,
        stated: Person | None = None,
        known: tuple[str, ...] = (),
        doctors: tuple[Professional, ...] = (),
        letter: Notice = letter,
        row: Registration = row,
    ) -> GpCase:
        return GpCase(
            replace(letter, registered_gp=stated),
            replace(row, gp_rpps=known),
            doctors,
            gp,
            rpps,
            scenario,
        )

    by_rpps = Person(family_name=people.spell(family), given_name=given, rpps=mine.rpps)
    by_name = Person(name=f"Dr {given} {family.upper()}", family_name=family.upper(), given_name=given)
    left = replace(mine, active=False)
    everybody = (mine, rival, cousin, other)
    options = (
        lambda: case("named by RPPS", "found", mine.rpps, stated=by_rpps, doctors=everybody),
        lambda: case("by RPPS and registered", "found", mine.rpps, stated=by_rpps, known=(mine.rpps,), doctors=everybody),
        lambda: case("registered only", "found", mine.rpps, known=(mine.rpps,), doctors=everybody),
        lambda: case("registered, name agrees", "found", mine.rpps, stated=by_name, known=(mine.rpps,), doctors=everybody),
        lambda: case("name with homonyms", "many", stated=by_name, doctors=everybody),
        lambda: case("name of one", "none", stated=by_name, doctors=(mine, other)),
        lambda: case("name of nobody", "none", stated=by_name, doctors=(other,)),
        lambda: case("registered, another name", "conflict", stated=by_name, known=(other.rpps,), doctors=everybody),
        lambda: case("registered cousin", "conflict", stated=by_name, known=(cousin.rpps,), doctors=everybody),
        lambda: case("RPPS of another than registered", "conflict", stated=by_rpps, known=(other.rpps,), doctors=everybody),
        lambda: case("RPPS under another name", "conflict", stated=replace(by_rpps, family_name="Zwiller"), doctors=everybody),
        lambda: case("RPPS unknown", "none", stated=by_rpps, doctors=(rival, other)),
        lambda: case("RPPS unknown, registered lives", "conflict", stated=by_rpps, known=(other.rpps,), doctors=(rival, other)),
        lambda: case("RPPS left", "left", stated=by_rpps, doctors=(left, rival)),
        lambda: case("RPPS left, registered lives", "conflict", stated=by_rpps, known=(rival.rpps,), doctors=(left, rival)),
        lambda: case("registered left", "left", known=(mine.rpps,), doctors=(left, rival)),
        lambda: case("registered left, letter names the successor", "found", other.rpps,
                     stated=Person(family_name="ZWILLER", rpps=other.rpps), known=(mine.rpps,), doctors=(left, other)),
        lambda: case("no mailbox", "no_mailbox", stated=by_rpps, doctors=(replace(mine, mailboxes=()), rival)),
        lambda: case("mailbox closed", "no_mailbox", known=(mine.rpps,),
                     doctors=(replace(mine, mailboxes=(box(number, active=False),)), rival)),
        lambda: case("outside the white list", "no_mailbox", stated=by_rpps,
                     doctors=(replace(mine, mailboxes=(box(number, "orange.example"),)), rival)),
        lambda: case("one mailbox inside", "found", mine.rpps, stated=by_rpps,
                     doctors=(replace(mine, mailboxes=(box(number, "orange.example"), box(number, kind="CAB"))), rival)),
        lambda: case("two registered", "many", known=(mine.rpps, other.rpps), doctors=everybody),
        lambda: case("two registered, a name", "many", stated=by_name, known=(mine.rpps, other.rpps), doctors=everybody),
        lambda: case("two registered, RPPS of one", "found", mine.rpps, stated=by_rpps, known=(other.rpps, mine.rpps), doctors=everybody),
        lambda: case("nobody named", "none", doctors=everybody),
        lambda: case("moved: two lines, the new one counts", "found", mine.rpps, stated=by_rpps,
                     doctors=(replace(left, mailboxes=(box(number, "ancien.mssante.fr", active=False),)), mine, rival)),
        lambda: case("RPPS that is none", "none", stated=Person(family_name=family, rpps="0451234567"), doctors=everybody),
        lambda: case("RPPS that is none, registered lives", "conflict", stated=Person(family_name=family, rpps="0451234567"),
                     known=(mine.rpps,), doctors=everybody),
        lambda: case("two names under the RPPS", "conflict", stated=Person(rpps=mine.rpps),
                     doctors=(mine, replace(other, rpps=mine.rpps))),
        lambda: case("a pharmacist's RPPS", "conflict", stated=by_rpps, doctors=(replace(mine, profession="21"), rival)),
    )  # fmt: skip
    return options[turn % len(options)]()
