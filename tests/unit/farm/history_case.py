"""What holds of a history whatever database keeps it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from slmc.errors import HistoryError
from slmc.farm.history import schema
from slmc.farm.history.address import Address
from slmc.farm.history.history import History
from slmc.farm.history.rows import Row, circumstances_row, result_row
from slmc.farm.history.tables import metadata
from slmc.farm.record import Control, Night

from .nights import BEGAN, LADDER, WHERE, any_night, night, run, series

ROOT = Path(__file__).resolve().parents[3]
TABLES = ("nights", "series", "circumstances", "ladders", "results", "controls")
CONTROL = Control(device="shelf-1", outcome="pass", reason="", decision_ms_p50=2.0)
NEWER = ("control_ms_p50", "device_class", "speed_reason", "conditions")
"""Columns of results since version 0003."""
WRITER = """
import sys
from slmc.farm.history.history import History
from tests.unit.farm.nights import night, run, series

where, name = sys.argv[1:]
added = 0
for number in range(6):
    shared = night(number, run(series("shared", "any")))
    own = night(number, run(series(f"of {name}", f"device {number}")), run(series("shared", "any")))
    added += History.open(where).add(shared)
    History.open(where).add(own.model_copy(update={"id": f"{name}-{number}"}))
print(added)
"""


class HistoryCase:
    """Wants a fixture `where`: the address of an empty database."""

    def test_what_is_added_comes_back(self, where: str) -> None:
        history = History.open(where)
        nights = [night(n, run(series(), ratio=1 + n / 100), run(series(device="shelf-2"))) for n in range(3)]
        assert [history.add(one) for one in nights] == [True, True, True]
        assert [history.night(one.id) for one in nights] == nights
        assert history.night("another") is None

    def test_any_night_comes_back(self, where: str) -> None:
        history = History.open(where)
        kept: dict[str, Night] = {}

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(any_night)
        def holds(one: Night) -> None:
            if one.id in kept and kept[one.id] != one:
                with pytest.raises(HistoryError, match="other content"):
                    history.add(one)
            else:
                assert history.add(one) == (one.id not in kept)
                kept[one.id] = one
            assert history.night(one.id) == kept[one.id]

        holds()

    def test_all_of_the_past_in_the_order_of_nights(self, where: str) -> None:
        history = History.open(where)
        moved = WHERE.model_copy(update={"os": "17.2", "control": None})
        late = night(2, run(series("b"), [True] * 9, 1.5, moved))
        early = night(1, run(series("b"), [True] * 8 + [False]), run(series("a")))
        for one in (late, early, night(3)):
            history.add(one)
        past = history.past()
        assert [(one.id, one.runs) for one in past.evenings] == [("night-1", 2), ("night-2", 1), ("night-3", 0)]
        assert past.evenings[0].started > BEGAN
        assert [track.series for track in past.tracks] == [series("a"), series("b")]
        first, second = past.tracks[1].points
        assert (first.evening, first.items, first.right, first.answered) == (0, 9, 8, b"\xff\x00")
        assert (second.evening, second.ratio, second.verdict, second.answered) == (1, 1.5, "measured", b"\xff\x80")
        assert [past.circumstances[point.circumstances or 0] for point in (first, second)] == [WHERE, moved]

    def test_the_same_night_again_is_no_news_and_another_is_refused(self, where: str) -> None:
        history = History.open(where)
        one = night(1, run(series()), run(series(device="shelf-2")))
        assert history.add(one) is True
        assert History.open(where).add(one) is False
        other = night(1, run(series()), run(series(device="shelf-2"), ratio=1.01))
        with pytest.raises(HistoryError, match=r"night-1 .*router for android with tvm on shelf-2 has other results"):
            history.add(other)
        for less in (night(1, run(series())), night(1, *one.runs, run(series("third")))):
            with pytest.raises(HistoryError, match=r"night-1 .*(is gone|is not there)"):
                history.add(less)
        with pytest.raises(HistoryError, match="started or finished at another time"):
            history.add(night(2, *one.runs).model_copy(update={"id": "night-1"}))
        with pytest.raises(HistoryError, match="another order"):
            history.add(night(1, *one.runs[::-1]))
        assert history.night("night-1") == one

    def test_nothing_half_of_a_night_that_fails(self, where: str) -> None:
        history = History.open(where)
        history.add(night(1, run(series())))
        wrong = run(series("new")).model_copy(update={"outcome": "no such outcome"})
        with pytest.raises(HistoryError, match="known_outcome"):
            history.add(night(2, run(series("new", "other")), wrong))
        assert history.night("night-2") is None
        assert [track.series for track in history.past().tracks] == [series()]

    @pytest.mark.parametrize("table", TABLES)
    @pytest.mark.parametrize("verb", ["update {} set id = id + 1", "delete from {}"])
    def test_nothing_is_changed_or_removed(self, where: str, table: str, verb: str) -> None:
        history = History.open(where)
        one = night(1, run(series()), controls=[CONTROL])
        history.add(one)
        statement = verb.replace("id", "night") if table in ("results", "controls") else verb
        with pytest.raises(DBAPIError, match=f"append-only: {table}"), writing(history) as connection:
            connection.execute(text(statement.format(table)))
        assert history.night("night-1") == one

    def test_an_older_history_is_brought_up_to_date(self, where: str) -> None:
        """With what it holds: tables as version 0001 left them could still be changed, and knew no ladders."""
        history = History(Address.parse(where), Address.parse(where).engine())
        with writing(history) as connection:
            schema.bring_up_to_date(connection, "0001")
        its = run(series())
        assert its.circumstances is not None
        with writing(history) as connection:
            for table, row in (
                ("nights", {"name": "night-1", "started": BEGAN, "finished": BEGAN}),
                ("series", its.series.model_dump()),
                ("circumstances", circumstances_row(its.circumstances)),
                ("results", {"night": 1, "series": 1, "circumstances": 1, "place": 0, **older(result_row(its))}),
            ):
                connection.execute(metadata.tables[table].insert().values(row))
            connection.execute(text("update results set reason = ''"))
        opened = History.open(where)
        assert its.speed is not None
        speed = its.speed.model_copy(update={"control_ms_p50": None, "conditions": None})
        kept = its.model_copy(update={"speed": speed, "device_class": None, "ladder": None})
        assert opened.night("night-1") == Night(id="night-1", started=BEGAN, finished=BEGAN, runs=(kept,), controls=())
        with pytest.raises(DBAPIError, match="append-only"), writing(opened) as connection:
            connection.execute(text("update results set reason = ''"))
        assert opened.add(night(2, its)) is True

    def test_the_same_ladder_is_kept_once(self, where: str) -> None:
        history = History.open(where)
        for number in range(3):
            history.add(night(number, run(series()), run(series("other"))))
        with writing(history) as connection:
            assert connection.execute(text("select count(*) from ladders")).scalar() == 1
        other = night(4, run(series()).model_copy(update={"ladder": LADDER.model_copy(update={"more": 1})}))
        history.add(other)
        assert history.night("night-4") == other

    def test_what_the_control_said_of_devices(self, where: str) -> None:
        history = History.open(where)
        failed = CONTROL.model_copy(update={"outcome": "fail", "reason": "was killed"})
        late, early = night(2, run(series()), controls=[failed]), night(1, run(series()), controls=[CONTROL])
        for one in (late, early):
            history.add(one)
        assert history.past().controls == [(0, CONTROL), (1, failed)]
        with pytest.raises(HistoryError, match="its controls said otherwise"):
            history.add(early.model_copy(update={"controls": (failed,)}))

    def test_a_newer_history_is_refused(self, where: str) -> None:
        history = History.open(where)
        with writing(history) as connection:
            connection.execute(text(f"update {schema.VERSION_TABLE} set version_num = '9001'"))
        with pytest.raises(HistoryError, match="version 9001, which a newer slmc wrote"):
            History.open(where)

    def test_a_database_of_others_is_left_alone(self, where: str) -> None:
        history = History(Address.parse(where), Address.parse(where).engine())
        with writing(history) as connection:
            connection.execute(text("create table customers (id integer)"))
        with pytest.raises(HistoryError, match="other tables: customers"):
            History.open(where)
        with writing(history) as connection:
            connection.execute(text("drop table customers"))
        History.open(where)

    def test_two_processes_write_at_once(self, where: str) -> None:
        """And one reads, beginning with an empty database: one makes the tables, and each night is added by one."""
        command = [sys.executable, "-c", WRITER, where]
        writers = [
            subprocess.Popen([*command, name], cwd=ROOT, stdout=subprocess.PIPE, text=True) for name in ("one", "two")
        ]
        while any(writer.poll() is None for writer in writers):  # what is read meanwhile is of one moment
            past = History.open(where).past()
            points = sum(len(track.points) for track in past.tracks)
            assert points == sum(evening.runs for evening in past.evenings)
        said = [writer.communicate()[0] for writer in writers]
        assert [writer.returncode for writer in writers] == [0, 0]
        assert sum(map(int, said)) == 6
        past = History.open(where).past()
        assert len(past.evenings) == 18
        assert {track.series.recipe: len(track.points) for track in past.tracks if track.series.recipe == "shared"} == {
            "shared": 18
        }

    def test_the_tables_are_as_the_code_says(self, where: str) -> None:
        """No column that only the migrations know, or only the code."""
        from alembic.autogenerate import compare_metadata
        from alembic.migration import MigrationContext

        history = History.open(where)
        with writing(history) as connection:
            options = {"version_table": schema.VERSION_TABLE, "compare_type": True}
            context = MigrationContext.configure(connection, opts=options)
            assert compare_metadata(context, metadata) == []


def older(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in NEWER}


@contextmanager
def writing(history: History) -> Iterator[Connection]:
    """A connection past the code, as a person with a shell has it."""
    with history._engine.connect() as connection, connection.begin():
        yield connection
