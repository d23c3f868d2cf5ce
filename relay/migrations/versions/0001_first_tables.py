"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "absence",
        sa.Column("rpps", sa.Text(), nullable=False),
        sa.Column("since", sa.Text(), nullable=False),
        sa.Column("until", sa.Text(), nullable=False),
        sa.Column("substitute", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("rpps", "since", name=op.f("pk_absence")),
    )
    op.create_table(
        "adapter_state",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_adapter_state")),
    )
    op.create_table(
        "audit",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("act", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("writer", "number", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"])
    op.create_index(op.f("ix_audit_subject"), "audit", ["subject"])

    op.create_table(
        "audit_checkpoint",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.Column("cut", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("writer", "number", name=op.f("pk_audit_checkpoint")),
    )
    op.create_table(
        "audit_head",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("hash", sa.LargeBinary(), nullable=False),
        sa.Column("seal", sa.LargeBinary(), nullable=False),
        sa.Column("checkpoint_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", name=op.f("pk_audit_head")),
    )
    op.create_table(
        "button_grant",
        sa.Column("nonce", sa.Text(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("delivery", sa.Text(), nullable=False),
        sa.Column("choice", sa.Text(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("nonce", name=op.f("pk_button_grant")),
    )
    op.create_index("ix_button_grant_expires", "button_grant", ["expires"])
    op.create_index(
        "ix_button_grant_unused",
        "button_grant",
        ["thread"],
        sqlite_where=sa.text("used_at IS NULL"),
        postgresql_where=sa.text("used_at IS NULL"),
    )
    op.create_index(
        "ix_button_grant_used",
        "button_grant",
        ["used_at"],
        sqlite_where=sa.text("used_at IS NOT NULL"),
        postgresql_where=sa.text("used_at IS NOT NULL"),
    )

    op.create_table(
        "counter",
        sa.Column("writer", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("writer", "name", name=op.f("pk_counter")),
    )
    op.create_table(
        "cursor",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("position", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("account", name=op.f("pk_cursor")),
    )
    op.create_table(
        "delivery",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("to", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("medium", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=True),
        sa.Column("thread", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("box", sa.Text(), nullable=True),
        sa.Column("edits", sa.Text(), nullable=True),
        sa.Column("unfollowed", sa.Boolean(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=True),
        sa.Column("give_up_at", sa.BigInteger(), nullable=True),
        sa.Column("sent_at", sa.BigInteger(), nullable=True),
        sa.Column("remote", sa.Text(), nullable=True),
        sa.Column("resent", sa.Boolean(), nullable=False),
        sa.Column("was", sa.Text(), nullable=True),
        sa.Column("node", sa.Text(), nullable=True),
        sa.Column("life", sa.Integer(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_delivery")),
        sa.UniqueConstraint("id", name=op.f("uq_delivery_id")),
    )
    op.create_index(
        "ix_delivery_astray",
        "delivery",
        ["seq"],
        sqlite_where=sa.text(
            "purpose = 'letter' AND thread IS NULL AND NOT unfollowed AND sent_at IS NOT NULL"
        ),
        postgresql_where=sa.text(
            "purpose = 'letter' AND thread IS NULL AND NOT unfollowed AND sent_at IS NOT NULL"
        ),
    )
    op.create_index(
        "ix_delivery_claimed",
        "delivery",
        ["lease_until"],
        sqlite_where=sa.text("state IN ('sending', 'in_flight')"),
        postgresql_where=sa.text("state IN ('sending', 'in_flight')"),
    )
    op.create_index("ix_delivery_created", "delivery", ["created_at"])
    op.create_index(
        "ix_delivery_due",
        "delivery",
        ["adapter", "due", "seq"],
        sqlite_where=sa.text("state IN ('queued', 'deferred', 'ambiguous')"),
        postgresql_where=sa.text("state IN ('queued', 'deferred', 'ambiguous')"),
    )
    op.create_index(
        "ix_delivery_envelope",
        "delivery",
        ["envelope"],
        sqlite_where=sa.text("envelope IS NOT NULL"),
        postgresql_where=sa.text("envelope IS NOT NULL"),
    )
    op.create_index(
        "ix_delivery_lane",
        "delivery",
        ["lane", "seq"],
        sqlite_where=sa.text("state IN ('queued', 'deferred', 'sending', 'in_flight', 'ambiguous', 'held')"),
        postgresql_where=sa.text(
            "state IN ('queued', 'deferred', 'sending', 'in_flight', 'ambiguous', 'held')"
        ),
    )
    op.create_index(
        "ix_delivery_message_id",
        "delivery",
        ["message_id"],
        sqlite_where=sa.text("message_id IS NOT NULL"),
        postgresql_where=sa.text("message_id IS NOT NULL"),
    )
    op.create_index(
        "ix_delivery_thread",
        "delivery",
        ["thread", "seq"],
        sqlite_where=sa.text("thread IS NOT NULL"),
        postgresql_where=sa.text("thread IS NOT NULL"),
    )
    op.create_index(
        "ix_delivery_unfinished",
        "delivery",
        ["seq"],
        sqlite_where=sa.text("state IN ('queued', 'deferred', 'sending', 'in_flight', 'ambiguous', 'held')"),
        postgresql_where=sa.text(
            "state IN ('queued', 'deferred', 'sending', 'in_flight', 'ambiguous', 'held')"
        ),
    )

    op.create_table(
        "envelope",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("flaw", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("message_id", sa.Text(), nullable=True),
        sa.Column("fingerprint", sa.Text(), nullable=True),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("thread", sa.Text(), nullable=True),
        sa.Column("decided_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_envelope")),
        sa.UniqueConstraint("id", name=op.f("uq_envelope_id")),
    )
    op.create_index(
        "ix_envelope_fingerprint",
        "envelope",
        ["fingerprint"],
        sqlite_where=sa.text("fingerprint IS NOT NULL"),
        postgresql_where=sa.text("fingerprint IS NOT NULL"),
    )
    op.create_index(
        "ix_envelope_held",
        "envelope",
        ["seq"],
        sqlite_where=sa.text("state = 'held'"),
        postgresql_where=sa.text("state = 'held'"),
    )
    op.create_index(
        "ix_envelope_open",
        "envelope",
        ["seq"],
        sqlite_where=sa.text("state = 'open'"),
        postgresql_where=sa.text("state = 'open'"),
    )
    op.create_index("ix_envelope_received", "envelope", ["received_at"])
    op.create_index(
        "ix_envelope_unaccounted",
        "envelope",
        ["seq"],
        sqlite_where=sa.text(
            "(state = 'ignored' AND why IS NULL) OR (state = 'decided' AND rule IS NULL AND thread IS NULL AND reference IS NULL AND kind IN ('notice', 'reply'))"
        ),
        postgresql_where=sa.text(
            "(state = 'ignored' AND why IS NULL) OR (state = 'decided' AND rule IS NULL AND thread IS NULL AND reference IS NULL AND kind IN ('notice', 'reply'))"
        ),
    )
    op.create_index("uq_envelope_account_ref", "envelope", ["account", "ref"], unique=True)

    op.create_table(
        "habit",
        sa.Column("box", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("box", "kind", name=op.f("pk_habit")),
    )
    op.create_table(
        "incident",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("opened", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=True),
        sa.Column("closed", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
    )
    op.create_index(op.f("ix_incident_opened"), "incident", ["opened"])

    op.create_table(
        "link",
        sa.Column("rpps", sa.Text(), nullable=False),
        sa.Column("adapter_kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("chat", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("linked_at", sa.BigInteger(), nullable=False),
        sa.Column("unlinked_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("rpps", "adapter_kind", "account", name=op.f("pk_link")),
    )
    op.create_index("ix_link_account", "link", ["account"])

    op.create_table(
        "pause",
        sa.Column("adapter", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("adapter", name=op.f("pk_pause")),
    )
    op.create_table(
        "professional",
        sa.Column("rpps", sa.Text(), nullable=False),
        sa.Column("folded", sa.Text().with_variant(sa.TEXT(collation="C"), "postgresql"), nullable=False),
        sa.Column("family_name", sa.Text(), nullable=False),
        sa.Column("given_name", sa.Text(), nullable=False),
        sa.Column("profession", sa.Text(), nullable=False),
        sa.Column("speciality", sa.Text(), nullable=False),
        sa.Column("postcode", sa.Text(), nullable=False),
        sa.Column("phone", sa.Text(), nullable=False),
        sa.Column("cpts", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("pending", sa.Boolean(), nullable=False),
        sa.Column("load", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("rpps", name=op.f("pk_professional")),
    )
    op.create_index(op.f("ix_professional_folded"), "professional", ["folded"])

    op.create_table(
        "registration",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("corrected", sa.Boolean(), nullable=False),
        sa.Column("differing", sa.Boolean(), nullable=False),
        sa.Column("load", sa.BigInteger(), nullable=False),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_registration")),
    )
    op.create_index(op.f("ix_registration_load"), "registration", ["load"])

    op.create_table(
        "ruleset",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("active_since", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_ruleset")),
    )
    op.create_table(
        "thread",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("ward", sa.Text(), nullable=False),
        sa.Column("facility", sa.Text(), nullable=False),
        sa.Column("stay", sa.Text(), nullable=False),
        sa.Column("letter", sa.Text(), nullable=False),
        sa.Column("gp", sa.Text(), nullable=False),
        sa.Column("urgency", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("desk", sa.Text(), nullable=True),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=True),
        sa.Column("deadline", sa.BigInteger(), nullable=True),
        sa.Column("snoozed_until", sa.BigInteger(), nullable=True),
        sa.Column("followup", sa.Text(), nullable=True),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("closed_reason", sa.Text(), nullable=True),
        sa.Column("acknowledged_by", sa.Text(), nullable=True),
        sa.Column("acknowledged_at", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("patient", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_thread")),
        sa.UniqueConstraint("reference", name=op.f("uq_thread_reference")),
    )
    op.create_index(
        "ix_thread_alone",
        "thread",
        ["id"],
        sqlite_where=sa.text(
            "desk IS NULL AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
        postgresql_where=sa.text(
            "desk IS NULL AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
    )
    op.create_index(
        "ix_thread_desk",
        "thread",
        ["id"],
        sqlite_where=sa.text(
            "desk IS NOT NULL AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
        postgresql_where=sa.text(
            "desk IS NOT NULL AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
    )
    op.create_index(op.f("ix_thread_letter"), "thread", ["letter"])
    op.create_index(
        "ix_thread_open",
        "thread",
        ["id"],
        sqlite_where=sa.text(
            "state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
        postgresql_where=sa.text(
            "state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
    )
    op.create_index("ix_thread_opened", "thread", ["opened_at"])
    op.create_index(
        "ix_thread_gp",
        "thread",
        ["gp"],
        sqlite_where=sa.text(
            "gp <> '' AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
        postgresql_where=sa.text(
            "gp <> '' AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
    )
    op.create_index(
        "ix_thread_patient",
        "thread",
        ["patient"],
        sqlite_where=sa.text("patient IS NOT NULL"),
        postgresql_where=sa.text("patient IS NOT NULL"),
    )
    op.create_index(
        "ix_thread_stay",
        "thread",
        ["facility", "stay"],
        sqlite_where=sa.text(
            "stay <> '' AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
        postgresql_where=sa.text(
            "stay <> '' AND state IN ('awaiting_ack', 'acknowledged', 'awaiting_ward', 'awaiting_gp', 'with_desk')"
        ),
    )
    op.create_index("ix_thread_ward", "thread", ["ward", "facility"])

    op.create_table(
        "attempt",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("delivery", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=True),
        sa.Column("remote", sa.Text(), nullable=True),
        sa.Column("node", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["delivery"], ["delivery.id"], name=op.f("fk_attempt_delivery_delivery")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_attempt")),
    )
    op.create_index(op.f("ix_attempt_at"), "attempt", ["at"])
    op.create_index(op.f("ix_attempt_delivery"), "attempt", ["delivery"])

    op.create_table(
        "content",
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("day", sa.Text(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("event", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["envelope"], ["envelope.id"], name=op.f("fk_content_envelope_envelope")),
        sa.PrimaryKeyConstraint("envelope", name=op.f("pk_content")),
    )
    op.create_index(op.f("ix_content_day"), "content", ["day"])

    op.create_table(
        "decision",
        sa.Column(
            "seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("ruleset", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("followup", sa.Text(), nullable=True),
        sa.Column("trace", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["envelope"], ["envelope.id"], name=op.f("fk_decision_envelope_envelope")),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_decision")),
    )
    op.create_index(op.f("ix_decision_at"), "decision", ["at"])
    op.create_index(op.f("ix_decision_envelope"), "decision", ["envelope"])

    op.create_table(
        "document_key",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["envelope"], ["envelope.id"], name=op.f("fk_document_key_envelope_envelope")
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_document_key")),
    )
    op.create_index(op.f("ix_document_key_envelope"), "document_key", ["envelope"])

    op.create_table(
        "hold",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("envelope", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=True),
        sa.Column("desk", sa.Text(), nullable=True),
        sa.Column("thread", sa.Text(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("ended_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["envelope"], ["envelope.id"], name=op.f("fk_hold_envelope_envelope")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hold")),
    )
    op.create_index(op.f("ix_hold_envelope"), "hold", ["envelope"])
    op.create_index(
        "ix_hold_open",
        "hold",
        ["since"],
        sqlite_where=sa.text("ended_at IS NULL"),
        postgresql_where=sa.text("ended_at IS NULL"),
    )

    op.create_table(
        "mailbox",
        sa.Column("rpps", sa.Text(), nullable=False),
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("organisation", sa.Text(), nullable=False),
        sa.Column("finess", sa.Text(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("load", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rpps"], ["professional.rpps"], name=op.f("fk_mailbox_rpps_professional"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rpps", "address", name=op.f("pk_mailbox")),
    )
    op.create_index(op.f("ix_mailbox_address"), "mailbox", ["address"])

    op.create_table(
        "registration_key",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("registration", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["registration"],
            ["registration.id"],
            name=op.f("fk_registration_key_registration_registration"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("key", "registration", name=op.f("pk_registration_key")),
    )
    op.create_index(op.f("ix_registration_key_registration"), "registration_key", ["registration"])

    op.create_table(
        "stay_key",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["thread"], ["thread.id"], name=op.f("fk_stay_key_thread_thread")),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_stay_key")),
    )
    op.create_index(op.f("ix_stay_key_thread"), "stay_key", ["thread"])

    op.create_table(
        "timer",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("thread", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("level", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("due", sa.BigInteger(), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(["thread"], ["thread.id"], name=op.f("fk_timer_thread_thread")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_timer")),
    )
    op.create_index(
        "ix_timer_due",
        "timer",
        ["due"],
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )
    op.create_index("ix_timer_thread", "timer", ["thread"])
    op.create_index(
        "ix_timer_waiting",
        "timer",
        ["thread"],
        sqlite_where=sa.text("done_at IS NULL"),
        postgresql_where=sa.text("done_at IS NULL"),
    )


def downgrade() -> None:

    op.drop_table("timer")

    op.drop_table("stay_key")

    op.drop_table("registration_key")

    op.drop_table("mailbox")

    op.drop_table("hold")

    op.drop_table("document_key")

    op.drop_table("decision")

    op.drop_table("content")

    op.drop_table("attempt")

    op.drop_table("thread")
    op.drop_table("ruleset")

    op.drop_table("registration")

    op.drop_table("professional")
    op.drop_table("pause")

    op.drop_table("link")

    op.drop_table("incident")
    op.drop_table("habit")

    op.drop_table("envelope")

    op.drop_table("delivery")
    op.drop_table("cursor")
    op.drop_table("counter")

    op.drop_table("button_grant")
    op.drop_table("audit_head")
    op.drop_table("audit_checkpoint")

    op.drop_table("audit")
    op.drop_table("adapter_state")
    op.drop_table("absence")
