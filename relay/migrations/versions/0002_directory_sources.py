"""The directory has several sources: who named a mailbox, when each was last read, and one number with two names.

A hold says in words why patient or GP are not certain.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "professional", sa.Column("two_names", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(
        "professional", sa.Column("site_left", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.add_column(
        "professional", sa.Column("since", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("mailbox", sa.Column("source", sa.Text(), nullable=False, server_default=""))
    op.add_column("hold", sa.Column("detail", sa.Text(), nullable=False, server_default=""))
    op.create_table(
        "directory_source",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_directory_source")),
    )
    op.execute(
        "INSERT INTO directory_source (name, at, entries) "
        "SELECT 'site', MAX(load), COUNT(*) FROM professional HAVING COUNT(*) > 0"
    )
