"""Named places where a test may kill the relay, as a power cut would.

A hook for tests only: with RELAIS_CRASH_AT set to NAME, NAME@PLACE, NAME:N or NAME@PLACE:N the process kills
itself (SIGKILL: nothing is flushed, closed or told) when it passes that point for the first or the Nth time.
Unset, as everywhere outside tests, a point is one comparison.
"""

from __future__ import annotations

import os
import signal
from typing import Final

_wanted, _, _count = os.environ.get("RELAIS_CRASH_AT", "").partition(":")
_name, _, _place = _wanted.partition("@")
_spared = iter(range(int(_count or 1) - 1))

POINTS: Final = (
    "given",  # the mailbox gave a batch, nothing is accepted
    "accepted",  # on disk, upstream does not know
    "acknowledged",  # upstream knows, nothing is decided
    "pressed",  # a button press was accepted, nothing is decided
    "decided",  # nothing is recorded
    "recorded",
    "claimed",  # nothing on the wire
    "in_flight",  # committed, nothing on the wire
    "sent",  # the other side answered, nothing is finished
    "finished",  # with what it means for the thread
    "timer_due",  # nothing is recorded
)


def point(name: str, place: str = "") -> None:
    """Die here if the environment says so. `place` tells points of one name apart: an adapter."""
    if name == _name and _place in ("", place) and next(_spared, None) is None:
        os.kill(os.getpid(), signal.SIGKILL)


def armed(name: str) -> bool:
    """Whether the process is to die at this point: for the one row that two things at once may reach in either order."""
    return name == _name
