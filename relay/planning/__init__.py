"""Decisions and events → plans: every row one of them writes, for one transaction. Pure.

site     what planning knows of the site, of one arrival, of its people
copies   deliveries of mail and chat, written whole
draft    what a step of a thread asks for, as rows
notices  a decided letter: sent, held, filed, released
"""

from relay.planning.notices import (
    ask_of_notice,
    plan_corrupt,
    plan_hold,
    plan_ignore,
    plan_notice,
    plan_reject,
    plan_release,
)
from relay.planning.site import Arrival, Correction, Site, SiteSource
from relay.tokens import Tokens

__all__ = [
    "Arrival",
    "Correction",
    "Site",
    "SiteSource",
    "Tokens",
    "ask_of_notice",
    "plan_corrupt",
    "plan_hold",
    "plan_ignore",
    "plan_notice",
    "plan_reject",
    "plan_release",
]
