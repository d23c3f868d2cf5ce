"""In charge of the version of the tables; Alembic is loaded only when something must change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import inspect, text

from relay import migrations
from relay.errors import ConfigurationError

if TYPE_CHECKING:
    from sqlalchemy import Connection


def is_current(connection: Connection) -> bool:
    """Whether the tables are those of this release."""
    return _version(connection) == migrations.HEAD


def upgrade(connection: Connection) -> None:
    """Bring the tables to this release in the transaction that is open.

    Raises ConfigurationError when a newer release wrote them.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    found = _version(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise ConfigurationError(
            "a newer release of the relay has changed this database: install that release"
        )
    command.upgrade(config, "head")


def _version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return version
