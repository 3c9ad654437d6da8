"""Triggers that keep what is in a table as it is, whoever tries to change it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alembic import op


def refuse_changes(tables: Mapping[str, Sequence[str]]) -> None:
    """By table its key: what `INSERT OR REPLACE` of SQLite would replace, deleting without a trigger's notice."""
    if op.get_bind().dialect.name == "sqlite":
        _sqlite(tables)
    else:
        _postgresql(tables)


def _sqlite(tables: Mapping[str, Sequence[str]]) -> None:
    for table, keys in tables.items():
        refuse = f"begin select raise(abort, 'the history is append-only: {table}'); end"
        for verb in ("update", "delete"):
            op.execute(f"create trigger {table}_no_{verb} before {verb} on {table} {refuse}")
        same = " and ".join(f"{key} = new.{key}" for key in keys)
        taken = f"exists (select 1 from {table} where {same} or rowid = new.rowid)"  # noqa: S608 - our own names
        op.execute(f"create trigger {table}_no_replace before insert on {table} when {taken} {refuse}")


def _postgresql(tables: Mapping[str, Sequence[str]]) -> None:
    op.execute(
        "create or replace function slmc_append_only() returns trigger language plpgsql as "
        "$$ begin raise exception 'the history is append-only: %', tg_table_name; end $$"
    )
    for table in tables:
        op.execute(
            f"create trigger {table}_append_only before update or delete or truncate on {table} "
            "for each statement execute function slmc_append_only()"
        )
