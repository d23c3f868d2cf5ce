"""A thread keeps what its ladder's times count from."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("thread", sa.Column("counts_from", sa.BigInteger(), nullable=True))
