"""Bring a database's tables up to date by Alembic's steps, all of them or none."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from slmc.errors import HistoryError

VERSION_TABLE = "slmc_history_version"
_LOCK = 0x736C6D63
"""PostgreSQL's advisory lock while the tables are made: any number, always the same."""


def bring_up_to_date(connection: Connection, revision: str = "head") -> None:
    """To a version, in the caller's transaction. Raises HistoryError for tables that are newer, or not ours."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("select pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
    config = _config(connection)
    _check(connection, config)
    command.upgrade(config, revision)


def is_current(connection: Connection) -> bool:
    return version(connection) == ScriptDirectory.from_config(_config(connection)).get_current_head()


def version(connection: Connection) -> str | None:
    """Of the tables; None where there are none of ours."""
    return MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()


def _check(connection: Connection, config: Config) -> None:
    found = version(connection)
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    if found is not None and found not in known:
        raise HistoryError(
            f"the history has tables of version {found}, which a newer slmc wrote",
            expected=f"version {max(known)} or older",
            todo="update slmc, or name another database with --db",
        )
    others = sorted(set(inspect(connection).get_table_names()) - {VERSION_TABLE})
    if found is None and others:
        raise HistoryError(
            f"a database with other tables: {', '.join(others[:5])}",
            expected="an empty database, or a history",
            todo="name another with --db",
        )


def _config(connection: Connection) -> Config:
    # A percent sign in a path would be read as the beginning of a name to put in.
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", folder)
    config.set_main_option("path_separator", "os")
    return config
