"""The history of the tables, one Alembic revision a step."""

HEAD = "0003"
"""The revision this release needs; a test compares it with the scripts."""
