"""Where a history is: the path of a SQLite file, or the URL of a PostgreSQL database. No password is ever told."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry, NullPool

from slmc.errors import HistoryError, InputError

WAIT_S = 60
"""For another process that is writing, or a server that doesn't answer."""
WRITES = "slmc_writes"
"""The option of a connection that will write: SQLite must know when it begins."""
_FORMS = "a path, sqlite:///PATH, or postgresql://USER@HOST/DATABASE"


@dataclass(frozen=True)
class Address:
    url: URL = field(repr=False)

    @classmethod
    def parse(cls, where: Path | str) -> Address:
        """Raises InputError for a URL that is none, or of another database."""
        if isinstance(where, Path) or "://" not in where:
            return cls._of_file(where)
        try:
            url = make_url(where)
            _check_text(url)
        except (ArgumentError, ValueError):
            # What is wrong may be the password: nothing of it is repeated.
            raise InputError("the history's URL can't be read", expected=_FORMS) from None
        backend = {"postgres": "postgresql"}.get(url.get_backend_name(), url.get_backend_name())
        if backend == "sqlite" and url.database:
            return cls._of_file(url.database)
        if backend == "postgresql" and url.database:
            return cls(url.set(drivername="postgresql+psycopg"))
        raise InputError("a history can't be kept at a URL of that kind, or without a database's name", expected=_FORMS)

    @classmethod
    def _of_file(cls, path: Path | str) -> Address:
        """By its whole path: SQLite takes some relative ones, such as :memory:, for no file at all."""
        if "\0" in str(path):
            raise InputError("a zero byte in the history's path", expected=_FORMS)
        return cls(URL.create("sqlite", database=str(Path(path).absolute())))

    @property
    def file(self) -> Path | None:
        """SQLite's; None of a server."""
        return Path(self.url.database or "") if self.url.get_backend_name() == "sqlite" else None

    def __str__(self) -> str:
        """For a person: no password, and none of the options, where one may stand too."""
        if self.file is not None:
            return str(self.file)
        url = self.url
        return str(URL.create("postgresql", url.username, host=url.host, port=url.port, database=url.database))

    def engine(self) -> Engine:
        """Whose connections are each used once; those of SQLite wait for a writer, and keep foreign keys."""
        if self.file is None:
            query = {"connect_timeout": str(WAIT_S), **self.url.query}
            return create_engine(self.url.set(query=query), poolclass=NullPool, hide_parameters=True)
        engine = create_engine(self.url, poolclass=NullPool, hide_parameters=True, connect_args={"timeout": WAIT_S})
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        return engine

    @contextmanager
    def telling(self) -> Iterator[None]:
        """What the database refuses becomes a HistoryError that names where."""
        try:
            yield
        except (DBAPIError, OSError) as error:
            cause = getattr(error, "orig", None) or error
            told = str(cause).strip() or type(cause).__name__
            raise HistoryError(
                f"the history can't be used: {self._without_passwords(told)}",
                where=self,
                expected="a SQLite file, or a PostgreSQL server that answers, which this user may read and write",
                todo="mend that, or name another with --db",
            ) from None

    def _without_passwords(self, text: str) -> str:
        queried = self.url.query.get("password")
        secrets = [self.url.password, *([queried] if isinstance(queried, str) else queried or ())]
        for secret in filter(None, secrets):
            text = text.replace(str(secret), "***")
        return text


def _check_text(url: URL) -> None:
    """A zero byte would end what the server's library reads of the address. Raises ValueError."""
    options = (value for values in url.normalized_query.values() for value in values)
    if any("\0" in part for part in (*url, *options) if isinstance(part, str)):
        raise ValueError("a zero byte")


def _prepare(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    assert isinstance(connection, sqlite3.Connection)
    connection.isolation_level = None  # the driver must not begin by itself: `_begin` does
    connection.execute("pragma foreign_keys = on")


def _begin(connection: Connection) -> None:
    """A writer takes its lock at once: one that first reads could not wait for another that has written since."""
    writes = connection.get_execution_options().get(WRITES, False)
    connection.exec_driver_sql("begin immediate" if writes else "begin")
