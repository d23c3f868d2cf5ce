"""Decisions and events → plans: every row one of them writes, for one transaction. Pure.

site     what planning knows of the site, of one arrival, of its people
copies   deliveries of mail and chat, written whole
notices  a decided letter: sent, held, filed
draft    what a step of a thread asks for, as rows
"""

from relay.planning.notices import plan_corrupt, plan_hold, plan_ignore, plan_notice
from relay.planning.site import Arrival, Site, SiteSource
from relay.tokens import Tokens

__all__ = [
    "Arrival",
    "Site",
    "SiteSource",
    "Tokens",
    "plan_corrupt",
    "plan_hold",
    "plan_ignore",
    "plan_notice",
]
