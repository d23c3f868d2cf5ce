"""Runs the revisions on the connection the store lends; `alembic` on its own has no database here."""

from alembic import context

from relay.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    compare_type=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
