"""The national samples, each field of its truth compared with what `relay recognise --json` and the notice say.

A truth field is either compared, or argued in `samples_french.toml` beside this file: why it has no place in
what the relay says, or why the truth is not what a careful reader says. An argument that is no longer needed
fails too, so the list stays short.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from relay.formats import receipts
from relay.model import Notice, Recognised
from relay.reading import Document, read_file
from relay.recognition import recognise
from tests.test_formats_fhir import from_shorthand

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"
FRENCH = sorted(
    path for path in (SAMPLES / "french").rglob("*") if path.is_file() and ".truth." not in path.name
)
ARGUED = Path(__file__).with_name("samples_french.toml")

pytestmark = pytest.mark.skipif(not FRENCH, reason="the shared samples are not here")

Json = dict[str, Any]  # Any: JSON as the command prints it


class Seen(NamedTuple):
    """One sample as the relay sees it."""

    path: Path
    row: Json  # of `relay recognise --json`
    document: Document
    found: Recognised

    @property
    def notice(self) -> Notice:
        return self.found.notice


def wire(path: Path) -> tuple[str, bytes]:
    """A sample as it would travel: the event guide's shorthand as the JSON it stands for."""
    raw = path.read_bytes()
    if path.suffix != ".fsh" or "SOR" not in path.stem:
        return path.name, raw
    beside = path.with_name("Exemple1_SOR.fsh").read_text("utf-8")
    return f"{path.stem}.json", json.dumps(from_shorthand(raw.decode(), beside)).encode()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Seen]:
    """Every sample through the command itself, by its name."""
    folder = tmp_path_factory.mktemp("samples")
    files: list[tuple[Path, Path]] = []
    for path in FRENCH:
        name, raw = wire(path)
        (folder / name).write_bytes(raw)
        files.append((path, folder / name))
    done = subprocess.run(
        [sys.executable, "-m", "relay", "recognise", "--json", *(str(file) for _, file in files)],
        capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == len(files)
    out = {}
    for (path, file), row in zip(files, rows, strict=True):
        document = read_file(file.name, file.read_bytes())
        out[path.name] = Seen(path, row, document, recognise(document))
    return out


# ------------------------------------------------------------------------------------------------- what is compared

Reader = Callable[[Seen, Json], object]


def at(row: Json | None, *steps: str | int) -> Any:  # Any: whatever stands there
    """What stands at a path of the command's object; None where the path ends early."""
    value: Any = row
    for step in steps:
        if value is None or (isinstance(step, int) and step >= len(value)):
            return None
        value = value[step]
    return value


def moment(text: str | None) -> datetime | None:
    """An ISO moment of the command, a day alone as its midnight in Paris time."""
    if not text:
        return None
    read = datetime.fromisoformat(text)
    return read.astimezone(UTC)


def truth_moment(text: str | None) -> datetime | None:
    """A moment as a truth writes it: HL7 or ISO."""
    if not text:
        return None
    if re.fullmatch(r"\d{8}(?:\d{4,6}[+-]\d{4})?", text):
        form = "%Y%m%d" if len(text) == 8 else "%Y%m%d%H%M%S%z"
        return datetime.strptime(text, form).astimezone(UTC)  # the day alone is local, as in the command
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)


def notice_kind(one: Seen, truth: Json) -> str:
    """yes, no or policy, after what the command says."""
    discharge = one.row["event"] == "discharge"
    if discharge and one.row["outcome"] == "notice":
        return "yes"
    if (
        truth["discharge_notice"] == "policy"
        and not discharge
        and one.row["outcome"] in ("notice", "unclear")
    ):
        return "policy"  # shown with its code, for a rule or a person to decide
    return "no"


def mailboxes(one: Seen) -> list[str | None]:
    return [recipient.mss_address for recipient in one.notice.recipients]


def folded(address: str | None) -> str | None:
    return address.rpartition("^")[2].strip().lower() if address else None


def given(one: Seen) -> str | None:
    names = at(one.row, "patient", "given_names")
    return names[0] if names else None


def family(one: Seen) -> str | None:
    return at(one.row, "patient", "birth_name") or at(one.row, "patient", "used_name")


def local_ids(one: Seen) -> list[str]:
    return sorted(f"{who['value']} {who['system']}" for who in at(one.row, "patient", "local_ids") or [])


def among_local_ids(one: Seen, truth: Json) -> list[str]:
    """Those of the package's own number for the patient that are told; the document may give others besides."""
    said = FORMS["metadata.*.sourcePatientId"](truth["metadata"][0]["sourcePatientId"])
    return [number for number in local_ids(one) if number in said]  # type: ignore[operator]


def broken(one: Seen) -> bool:
    return any(
        problem["code"] in ("broken_package", "unreadable_document") for problem in one.row["problems"]
    )


ACTIONS = {None: "create", "replacement": "replace", "retraction": "delete"}

# truth field (numbers in a path as *) → what the relay says of it, in the truth's own form
EVERYWHERE: dict[str, Reader] = {
    "discharge_notice": notice_kind,
    "patient.birth_date": lambda one, _: at(one.row, "patient", "birth_date"),
    "patient.sex": lambda one, _: at(one.row, "patient", "sex"),
    "patient.family": lambda one, _: family(one) or "",
    "patient.given": lambda one, _: given(one),
}  # fmt: skip

COMPARED: dict[str, dict[str, Reader]] = {
    "xdm": {
        "kind": lambda one, _: one.row["package"],
        "valid_xdm": lambda one, _: not broken(one),
        "french_ins": lambda one, _: bool(at(one.row, "patient", "ins")),
        "documents.*.code": lambda one, _: one.row["code"],
        "documents.*.title": lambda one, _: one.row["title"],
        "documents.*.patient.family": lambda one, _: family(one),
        "documents.*.patient.given": lambda one, _: given(one),
        "documents.*.patient.birth_date": lambda one, _: at(one.row, "patient", "birth_date"),
        "documents.*.admission": lambda one, _: moment(at(one.row, "stay", "admitted")),
        "documents.*.discharge": lambda one, _: moment(at(one.row, "stay", "discharged")),
        "documents.*.author_org": lambda one, _: one.notice.author.organisation if one.notice.author else None,
        "metadata.*.sourcePatientId": among_local_ids,
    },
    "hl7v2": {
        "kind": lambda one, _: one.row["format"],
        "patient.ins": lambda one, _: at(one.row, "patient", "ins"),
        "patient.all_given": lambda one, _: at(one.row, "patient", "given_names"),
        "patient.ids": lambda one, _: local_ids(one),
        "gp": lambda one, _: one.row["registered_gp"],
        "visit_number": lambda one, _: at(one.row, "stay", "number"),
        "admit_time_PV1_44": lambda one, _: at(one.row, "stay", "admitted"),
        "discharge_time_PV1_45": lambda one, _: at(one.row, "stay", "discharged"),
        "movement": lambda one, _: one.row["event"],
        "recipients": lambda one, _: mailboxes(one),
        "obx_flags.MASQUE_PS": lambda one, _: "Y" if one.row["consent"] == "masked" else "N",
        "fragment": lambda one, _: one.row["outcome"] == "unclear",
        "document_action": lambda one, _: ACTIONS[one.row["document"]],
        "document_type.code": lambda one, _: one.row["code"],
        "document_type.display": lambda one, _: one.row["title"],
        "mss_addresses": lambda one, _: sorted(address for address in mailboxes(one) if address),
    },
    "mdn": {
        "kind": lambda one, _: one.row["receipt"]["kind"],
        "from": lambda one, _: one.document.from_,
        "to": lambda one, _: one.document.addresses("to")[0][1],
        "original_message_id": lambda one, _: one.row["receipt"]["original_message_id"].strip("<>"),
        "final_recipient": lambda one, _: one.row["receipt"]["recipient"],
        "disposition_type": lambda one, _: "processed" if one.row["receipt"]["status"] in ("processed", "error") else "",
        "is_error": lambda one, _: one.row["receipt"]["status"] == "error",
        "error_code": lambda one, _: one.row["receipt"]["code"],
    },
    "ko_mail": {
        "kind": lambda one, _: f"{one.row['receipt']['kind']}_mail",
        "from": lambda one, _: one.document.from_,
        "to": lambda one, _: one.document.addresses("to")[0][1],
        "message_id": lambda one, _: one.document.message_id,
        "error_code": lambda one, _: one.row["receipt"]["code"],
    },
    "fhir": {
        "kind": lambda one, _: one.row["format"],
        "valid_json": lambda one, _: not broken(one),
    },
    "fsh": {
        "resource": lambda one, _: json.loads(one.document.raw)["resourceType"],
        "event_type": lambda one, _: one.row["code"],
        "event_time": lambda one, _: moment(at(one.row, "stay", "discharged")),
    },
}  # fmt: skip

FORMS: dict[str, Callable[[Any], object]] = {  # Any: a leaf of a truth
    "documents.*.admission": truth_moment,
    "documents.*.discharge": truth_moment,
    "event_time": truth_moment,
    "from": str.lower,
    "to": str.lower,
    "final_recipient": str.lower,
    "metadata.*.sourcePatientId": lambda ids: sorted(
        f"{one.split('^')[0]} {one.replace('&amp;', '&').split('&')[1]}" for one in ids
    ),
    "recipients": lambda all_: [folded(one) for one in all_],
    "mss_addresses": lambda all_: sorted(one.lower() for one in all_),
}
WHOLE = {"recipients", "mss_addresses", "patient.ids", "metadata.*.sourcePatientId"}  # lists compared as one
ABOUT = ("source", "traps")  # said of the file, not of what stands in it


def leaves(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """(path, value) of each leaf of a truth; numbers of lists become *."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            if path or name not in ABOUT:
                yield from leaves(inner, f"{path}.{name}".strip("."))
    elif isinstance(value, list) and path not in WHOLE:
        for inner in value:
            yield from leaves(inner, f"{path}.*")
    else:
        yield path, value


@cache
def argued() -> tuple[Json, ...]:
    listed: list[Json] = tomllib.loads(ARGUED.read_text("utf-8"))["exception"]
    return tuple(listed)


def argument(sample: str, field: str) -> int | None:
    """The number of the argument that covers this field of this sample."""
    return next(
        (
            number
            for number, one in enumerate(argued())
            if fnmatchcase(sample, one["sample"]) and any(fnmatchcase(field, each) for each in one["fields"])
        ),
        None,
    )


def disagreements(one: Seen) -> Iterator[tuple[str, str]]:
    """(field, what is wrong) of each field of the truth that is not said, or not so."""
    truth = json.loads(one.path.with_name(f"{one.path.name}.truth.json").read_text("utf-8"))
    readers = EVERYWHERE | COMPARED[truth["kind"]]
    for field, said in leaves(truth):
        reader = readers.get(field)
        if reader is None:
            if said is not None:  # nothing stands there, and nothing is said
                yield field, "is nowhere in what the relay says"
            continue
        form = FORMS.get(field)
        expected = form(said) if form and said is not None else said
        got = reader(one, truth)
        if got != expected:
            yield field, f"is {expected!r}, read as {got!r}"


@pytest.mark.parametrize("path", FRENCH, ids=lambda path: path.name)
def test_every_field_of_the_truth_is_right_or_argued(path: Path, seen: dict[str, Seen]) -> None:
    wrong = [
        f"{field} {what}"
        for field, what in disagreements(seen[path.name])
        if argument(path.name, field) is None
    ]
    assert wrong == []


def test_every_argument_is_needed_and_argued(seen: dict[str, Seen]) -> None:
    needed = {argument(one.path.name, field) for one in seen.values() for field, _ in disagreements(one)}
    assert [one for number, one in enumerate(argued()) if number not in needed] == []
    assert all(len(one["why"]) > 40 for one in argued())
    assert len(argued()) <= 20


def test_most_fields_are_compared(seen: dict[str, Seen]) -> None:
    """The list of arguments must not swallow the campaign."""
    every = Counted()
    for one in seen.values():
        truth = json.loads(one.path.with_name(f"{one.path.name}.truth.json").read_text("utf-8"))
        every.fields += sum(1 for _ in leaves(truth))
        every.wrong += sum(1 for _ in disagreements(one))
    assert every.fields > 500
    assert every.wrong / every.fields < 0.35


class Counted:
    fields = wrong = 0


# ------------------------------------------------------------------------------------------------- the other corpus

HEALTH = sorted(path for path in (SAMPLES / "health").rglob("*") if path.is_file() and path.name != "LICENSE")


@pytest.mark.parametrize("path", HEALTH, ids=lambda path: path.name)
def test_foreign_health_mail_is_no_discharge_and_its_receipts_are_receipts(path: Path) -> None:
    document = read_file(path.name, path.read_bytes())
    found = recognise(document)
    assert found.notice.event != "discharge"
    reports = {part.media_type for part in document.parts} & {*receipts.DSN, *receipts.MDN}
    if reports:
        assert found.receipt is not None
        assert found.outcome.value == "receipt"
        assert found.receipt.kind == ("mdn" if reports & {*receipts.MDN} else "dsn")
        assert found.notice == Notice(), "what is enclosed in a report is never read"
    elif document.is_mail:
        assert found.outcome.value in ("other", "unclear", "automatic")
