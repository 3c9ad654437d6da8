"""What is in a table stays as it is, whoever tries to change it."""

from alembic import op

revision = "0002"
down_revision = "0001"

KEYS = {
    "nights": ("name",),
    "series": ("recipe", "target", "backend", "device"),
    "circumstances": ("digest",),
    "results": ("night", "series"),
}
"""By table: what `INSERT OR REPLACE` of SQLite would replace, deleting without a trigger's notice."""


def upgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        _sqlite()
    else:
        _postgresql()


def _sqlite() -> None:
    for table, keys in KEYS.items():
        refuse = f"begin select raise(abort, 'the history is append-only: {table}'); end"
        for verb in ("update", "delete"):
            op.execute(f"create trigger {table}_no_{verb} before {verb} on {table} {refuse}")
        same = " and ".join(f"{key} = new.{key}" for key in keys)
        taken = f"exists (select 1 from {table} where {same} or rowid = new.rowid)"  # noqa: S608 - our own names
        op.execute(f"create trigger {table}_no_replace before insert on {table} when {taken} {refuse}")


def _postgresql() -> None:
    op.execute(
        "create function slmc_append_only() returns trigger language plpgsql as "
        "$$ begin raise exception 'the history is append-only: %', tg_table_name; end $$"
    )
    for table in KEYS:
        op.execute(
            f"create trigger {table}_append_only before update or delete or truncate on {table} "
            "for each statement execute function slmc_append_only()"
        )
