"""In SQLite; PostgreSQL's turn is in tests/build."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from slmc.errors import HistoryError, InputError
from slmc.farm.history.address import Address
from slmc.farm.history.history import History

from .history_case import CONTROL, TABLES, HistoryCase
from .nights import night, run, series

SECRET = "hunter2"


class TestSqlite(HistoryCase):
    @pytest.fixture
    def where(self, tmp_path: Path) -> str:
        return str(tmp_path / "100% history.sqlite")

    @pytest.mark.parametrize("table", TABLES)
    def test_nothing_is_replaced(self, where: str, table: str) -> None:
        """`or replace` deletes a row without a word to triggers on deletion."""
        History.open(where).add(night(1, run(series()), controls=[CONTROL]))
        with sqlite3.connect(where) as raw:
            for columns in ("*", "rowid, *"):
                names = [row[1] for row in raw.execute(f"pragma table_info({table})")]
                listed = ", ".join((["rowid"] if columns != "*" else []) + [f'"{name}"' for name in names])
                with pytest.raises(sqlite3.IntegrityError, match=f"append-only: {table}"):
                    raw.execute(f"insert or replace into {table} ({listed}) select {columns} from {table}")
        raw.close()


def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    path.write_text("a diary\n" * 1000)
    with pytest.raises(HistoryError, match="file is not a database") as caught:
        History.open(path)
    assert caught.value.where == str(path)
    assert path.read_text() == "a diary\n" * 1000


@pytest.mark.parametrize("cut", [100, 5000, 20_000])
def test_half_a_database(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "history.sqlite"
    History.open(path).add(night(1, run(series(), [True] * 4000)))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(HistoryError, match=r"the history can't be used|is damaged"):
        History.open(path).night("night-1")


def test_a_directory(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="unable to open database file"):
        History.open(tmp_path)


def test_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HistoryError, match="the history can't be used"):
        History.open(tmp_path / "file" / "history.sqlite")


def test_its_folders_are_made(tmp_path: Path) -> None:
    History.open(tmp_path / "a" / "b" / "history.sqlite")
    assert (tmp_path / "a" / "b" / "history.sqlite").is_file()


def test_what_is_only_read_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with pytest.raises(HistoryError, match="there is no history yet"):
        History.open(path, make=False)
    assert not path.exists()


def test_answers_that_were_changed_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    History.open(path).add(night(1, run(series())))
    with sqlite3.connect(path) as raw:
        raw.execute("drop trigger results_no_update")
        raw.execute("update results set answered = x'ff'")
    raw.close()
    with pytest.raises(HistoryError, match="is damaged: night night-1"):
        History.open(path).night("night-1")


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://farm:{SECRET}@/",
        f"postgresql://farm:{SECRET}@host:port/database",
        f"postgres:/{SECRET}@host://",
        f"mysql://farm:{SECRET}@host/database",
        f"://{SECRET}",
        "sqlite://",
        f"postgresql://farm:{SECRET}%00@host/history",
        f"postgresql://farm@host/history?password={SECRET}%00",
        f"{SECRET}\0.sqlite",
    ],
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InputError) as caught:
        History.open(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://farm:{SECRET}@127.0.0.1:1/history",
        f"postgres://farm@127.0.0.1:1/history?password={SECRET}",
        f"postgresql+psycopg://farm:{SECRET}@127.0.0.1:1/history?sslmode={SECRET}",
    ],
)
def test_a_server_that_does_not_answer(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with pytest.raises(HistoryError, match="the history can't be used") as caught:
        History.open(url)
    assert caught.value.where == "postgresql://farm@127.0.0.1:1/history"
    assert SECRET not in str(caught.value) + repr(caught.value) + caplog.text


def test_an_address_shows_no_password() -> None:
    address = Address.parse(f"postgresql://farm:{SECRET}@host/history?password={SECRET}")
    assert SECRET not in f"{address} {address!r}"
    assert address.url.password == SECRET
