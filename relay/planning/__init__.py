"""Decisions and events → plans: every row one of them writes, for one transaction. Pure.

site     what planning knows of the site, of one arrival, of its people
copies   deliveries of mail and chat, written whole
draft    what a step of a thread asks for, as rows
documents  what is remembered of documents and stays: known again, replaced, taken back, told in another form
holding  arrivals that go no further by themselves
sending  a letter that leaves: its thread, its copies, its alerts
notices  a decided letter: sent, held, filed, taken back, released
replies  what people answer by mail
lists    what a ward is told each day
events   receipts, what was sent or failed, timers, presses, commands
moving   open threads on the follow-up of other rules
"""

from relay.planning.documents import ask_of_notice
from relay.planning.events import (
    no_longer,
    objected,
    plan_admin,
    plan_cancelled,
    plan_failed,
    plan_linked,
    plan_objection,
    plan_press,
    plan_recall,
    plan_receipt,
    plan_rules,
    plan_sent,
    plan_timer,
    plan_typed,
    plan_verb,
    wants_sent,
)
from relay.planning.holding import plan_corrupt, plan_hold, plan_ignore, plan_still_held, tells_of_hold
from relay.planning.lists import plan_daily
from relay.planning.moving import Move, followup_for, followups_changed, plan_move, plan_moved
from relay.planning.notices import plan_notice, plan_reject, plan_release
from relay.planning.replies import ask_of_mail, authentic, names_another, plan_reply
from relay.planning.site import Arrival, Correction, Site, SiteSource, patient_ins, people_meant
from relay.tokens import Tokens

__all__ = [
    "Arrival",
    "Correction",
    "Move",
    "Site",
    "SiteSource",
    "Tokens",
    "ask_of_mail",
    "ask_of_notice",
    "authentic",
    "followup_for",
    "followups_changed",
    "names_another",
    "no_longer",
    "objected",
    "patient_ins",
    "people_meant",
    "plan_admin",
    "plan_cancelled",
    "plan_corrupt",
    "plan_daily",
    "plan_failed",
    "plan_hold",
    "plan_ignore",
    "plan_linked",
    "plan_move",
    "plan_moved",
    "plan_notice",
    "plan_objection",
    "plan_press",
    "plan_recall",
    "plan_receipt",
    "plan_reject",
    "plan_release",
    "plan_reply",
    "plan_rules",
    "plan_sent",
    "plan_still_held",
    "plan_timer",
    "plan_typed",
    "plan_verb",
    "tells_of_hold",
    "wants_sent",
]
