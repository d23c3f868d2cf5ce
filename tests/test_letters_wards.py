"""Mails as wards write them, each field of their truth: what is there is read, what is not is not invented."""

from __future__ import annotations

import pytest

from relay.reading import read
from relay.recognition import recognise, to_json
from tests.letters import wards
from tests.letters.wards import MAILS, WardMail


@pytest.mark.parametrize("mail", MAILS.values(), ids=MAILS.keys())
def test_every_field_of_a_wards_mail_is_read(mail: WardMail) -> None:
    row = to_json(recognise(read(mail.raw)), file=mail.name)
    row["problems"] = [problem["code"] for problem in row["problems"]]  # type: ignore[attr-defined]
    if mail.truth["outcome"] == "unclear" and "format" not in mail.truth:
        row = {name: row[name] for name in ("outcome", "why")}  # what a person will see is not promised
    else:
        del row["file"]
    assert wards.full(row) == wards.full(mail.truth)
