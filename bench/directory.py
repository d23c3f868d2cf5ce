"""`python -m bench.directory`: import an extraction of the Annuaire Santé as large as the real one.

The file is made, not real: 31 columns, 535,928 lines in no order, six in seven of people, some people with
several mailboxes. Imported twice, into an empty directory and over itself; wall time, CPU and peak memory of
the whole command are measured. Exit 1 when the first takes 60 s or either takes 200 MB.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from relay.registers import ANNUAIRE

LINES, ORGANISATIONS = 535_928, 79_886
MOST_SECONDS, MOST_BYTES = 60.0, 200 * 10**6
_BEGIN = (
    "Mar",
    "Ber",
    "Le G",
    "Du",
    "Cas",
    "Ro",
    "Gué",
    "Hé",
    "Fon",
    "Ver",
    "Bois",
    "Lan",
    "Cor",
    "Tis",
    "Ker",
    "Mou",
)
_END = (
    "tin",
    "nard",
    "rand",
    "tel",
    "lier",
    "mérais",
    "gard",
    "taine",
    "rière",
    "sèche",
    "vel",
    "quet",
    "bellec",
    "lin",
)
_GIVEN = (
    "Camille",
    "Anne-Sophie",
    "Noé",
    "Élodie",
    "Jean-Marc",
    "Odette",
    "Rémi",
    "Zoé",
    "Luc",
    "Aïcha",
    "Paul",
    "Inès",
)
_STREETS = ("DE LA RÉPUBLIQUE", "DES AYDES", "DU MARÉCHAL FOCH", "DE L'ÉGLISE", "JEAN JAURÈS")


def extraction(lines: int = LINES, seed: int = 45) -> Iterator[str]:
    """The lines of the file, header first."""
    dice = random.Random(seed)
    organisations = lines * ORGANISATIONS // LINES
    people = int((lines - organisations) / 1.12)  # RPPS; the others are their second mailboxes
    order = [*range(lines - 1)]
    dice.shuffle(order)
    yield "|".join(ANNUAIRE)
    for number in order:
        fields = [""] * len(ANNUAIRE)
        fields[17] = "N"
        fields[21:27] = ("", str(1 + number % 99), "", "RUE", _STREETS[number % 5], "")
        fields[27], fields[28], fields[29], fields[30] = (
            "45000 ORLÉANS",
            f"{45000 + number % 990}",
            "45",
            "FRANCE",
        )
        if number < organisations:
            fields[0], fields[1] = "ORG", f"service{number}@ch-exemple{number % 900}.mssante.fr"
            fields[5], fields[6], fields[7] = "FINESS", f"1450{number % 999999:06d}", "CARDIOLOGIE"
            fields[18] = "CENTRE HOSPITALIER D'EXEMPLE"
        else:
            who = (number - organisations) % people
            given = _GIVEN[who % 12]
            family = (
                _BEGIN[who % 16]
                + _END[who // 16 % 14]
                + ("" if who % 3 else "-" + _BEGIN[who // 7 % 16].strip() + "on")
            )
            fields[0] = "PER"
            fields[1] = f"{given}.{who}.{number}@medecin.mssante.fr".lower().translate(_PLAIN)
            fields[2], fields[3], fields[4] = "8", f"10{who:09d}", f"810{who:09d}"
            fields[8], fields[9], fields[10] = "DR", family.upper(), given
            fields[11:17] = ("C", "Civil", "10", "Médecin", "SM54", "Médecine générale")
            if who % 2:
                fields[5], fields[6], fields[18] = (
                    "FINESS",
                    f"1450{who % 999999:06d}",
                    "CABINET MÉDICAL DES AYDES",
                )
        yield "|".join(fields)


_PLAIN = str.maketrans("éèïç ", "eeic.")


def measured(command: list[str], log: Path) -> dict[str, float]:
    """Seconds, CPU seconds and peak bytes of one command. Raises RuntimeError when it fails."""
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(log.read_text()[-2000:])
    return {
        "seconds": round(time.monotonic() - began, 1),
        "cpu": round(usage.ru_utime + usage.ru_stime, 1),
        "mb": round(usage.ru_maxrss * 1024 / 1e6),
    }


def main() -> int:
    """Measure, print two lines and one JSON document."""
    asked = argparse.ArgumentParser(prog="python -m bench.directory", description=__doc__)
    asked.add_argument("--lines", type=int, default=LINES)
    asked.add_argument("--folder", help="where file and database stand")
    chosen = asked.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="relais-directory-", dir=chosen.folder))
    relay = [sys.executable, "-m", "relay"]
    try:
        file = folder / "Extraction_Correspondance_MSSante.txt"
        with file.open("w", encoding="utf-8") as stream:
            stream.writelines(f"{line}\n" for line in extraction(chosen.lines))
        measured([*relay, "init", str(folder / "site"), "--since", "now"], folder / "init.log")
        command = [*relay, "directory", "import", str(file), "--config", str(folder / "site" / "config.toml")]
        figures = {which: measured(command, folder / f"{which}.log") for which in ("first", "again")}
        size = file.stat().st_size
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for which, found in figures.items():
        print(f"{which:<6} {found['seconds']:>6.1f} s  {found['cpu']:>6.1f} s CPU  {found['mb']:>4.0f} MB")
    print(json.dumps({"lines": chosen.lines, "bytes": size, **figures}))
    slow = figures["first"]["seconds"] >= MOST_SECONDS
    return 1 if slow or any(found["mb"] * 1e6 >= MOST_BYTES for found in figures.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
