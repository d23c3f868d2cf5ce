"""How long the searching tests search: once, the same each time, in `make test`; longer and at random in a campaign."""

from __future__ import annotations

import os

from hypothesis import settings

FUZZ = int(os.environ.get("RELAIS_FUZZ", "1"))
"""How many times as many examples as usual (`make fuzz`)."""

CHAOS = int(os.environ.get("RELAIS_CHAOS", "1"))
"""How many seeds the tests that kill at random try (`make chaos`)."""

settings.register_profile("test", derandomize=True, deadline=None, database=None)
settings.register_profile("campaign", derandomize=False, deadline=None, print_blob=True)
settings.load_profile("test" if FUZZ == 1 else "campaign")


def many(examples: int) -> int:
    """That many examples, or as many times more as the campaign wants."""
    return examples * FUZZ
