"""What every night measured, kept in SQLite or PostgreSQL; added to, never changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from slmc.errors import MissingToolError

if TYPE_CHECKING:
    from slmc.farm.history.history import History


def open_history(where: Path | str, *, make: bool = True) -> History:
    """`History.open`. Raises MissingToolError where the packages for it are not installed."""
    try:
        from slmc.farm.history.history import History

        return History.open(where, make=make)
    except ImportError as error:
        raise MissingToolError(
            f"a history needs SQLAlchemy, Alembic and psycopg: {error}", todo="pip install 'slmc[farm]'"
        ) from None
