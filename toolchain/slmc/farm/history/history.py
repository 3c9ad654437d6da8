"""The history: nights are added and read, and that is all. There is no way to change or to remove one."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, func, select, text

from slmc.errors import HistoryError
from slmc.farm.history import schema
from slmc.farm.history.address import WRITES, Address
from slmc.farm.history.rows import circumstances_row, control_of, ladder_row, result_row, run_of
from slmc.farm.history.tables import circumstances, controls, ladders, nights, results, series
from slmc.farm.record import Circumstances, Night, Series
from slmc.farm.tracks import Evening, Past, Point, Track

_MEASURED = [results.c[name] for name in Point._fields[2:]]


@dataclass(frozen=True)
class History:
    """Safe with several processes at once."""

    address: Address
    _engine: Engine

    @classmethod
    def open(cls, where: Path | str, *, make: bool = True) -> History:
        """Make the tables, or bring them up to date. Without `make` a SQLite file must be there.

        Raises HistoryError for a database that is damaged, newer, another's, or doesn't answer; InputError for a URL
        that is none.
        """
        address = Address.parse(where)
        with address.telling():
            _look(address, make)
        history = cls(address, address.engine())
        with address.telling():
            with history._reading() as connection, connection.begin():
                current = schema.is_current(connection)
            if not current:
                with history._writing() as connection, connection.begin():
                    schema.bring_up_to_date(connection)
        return history

    def add(self, night: Night) -> bool:
        """In one transaction. False where that very night is there already.

        Raises HistoryError where the night is there with other content, or the database refuses it.
        """
        with self.address.telling(), self._writing() as connection, connection.begin():
            if connection.dialect.name == "postgresql":
                # One writer at a time, as in SQLite; readers go on.
                connection.execute(text("lock table nights in share row exclusive mode"))
            before = _night(connection, night.id)
            if before is not None:
                self._check_same(before, night)
                return False
            _insert(connection, night)
            return True

    def night(self, name: str) -> Night | None:
        """As it was added; None where there is none of that name."""
        with self.address.telling(), self._reading() as connection, connection.begin():
            return _night(connection, name)

    def past(self) -> Past:
        """All nights of all series."""
        with self.address.telling(), self._reading() as connection, connection.begin():
            return _past(connection)

    def _reading(self) -> Connection:
        """All that a transaction reads is of one moment, as in SQLite."""
        connection = self._engine.connect()
        if connection.dialect.name == "postgresql":
            connection = connection.execution_options(isolation_level="REPEATABLE READ")
        return connection

    def _writing(self) -> Connection:
        return self._engine.connect().execution_options(**{WRITES: True})

    def _check_same(self, before: Night, night: Night) -> None:
        differing = _differing(before, night)
        if differing is not None:
            raise HistoryError(
                f"night {night.id} is in the history with other content: {differing}",
                where=self.address,
                expected="each night once; what is in the history is never changed",
                todo="give another night another id",
            )


def _look(address: Address, make: bool) -> None:
    """Before SQLite makes an empty file. Raises OSError where there can't be one."""
    if address.file is None:
        return
    if not make and not address.file.exists():
        raise HistoryError(
            "there is no history yet", where=address.file, todo="run a night, or name another database with --db"
        )
    address.file.parent.mkdir(parents=True, exist_ok=True)


def _insert(connection: Connection, night: Night) -> None:
    row = {"name": night.id, "started": night.started, "finished": night.finished}
    number = connection.execute(nights.insert().values(row).returning(nights.c.id)).scalar_one()
    rows = [
        {
            "night": number,
            "series": _number(connection, series, run.series.model_dump()),
            "circumstances": run.circumstances
            and _number(connection, circumstances, circumstances_row(run.circumstances)),
            "ladder": run.ladder and _number(connection, ladders, ladder_row(run.ladder)),
            "place": place,
            **result_row(run),
        }
        for place, run in enumerate(night.runs)
    ]
    if rows:
        connection.execute(results.insert(), rows)
    checks = [{"night": number, "place": place, **one.model_dump()} for place, one in enumerate(night.controls)]
    if checks:
        connection.execute(controls.insert(), checks)


def _number(connection: Connection, table: Table, row: Mapping[str, Any]) -> int:
    """The id of such a row, which is added where there is none yet."""
    # What a digest is of need not be compared too, and a missing control is equal to nothing in SQL.
    keys = {"digest": row["digest"]} if "digest" in row else row
    same = (table.c[name] == value for name, value in keys.items())
    found: int | None = connection.execute(select(table.c.id).where(*same)).scalar()
    if found is None:
        found = int(connection.execute(table.insert().values(row).returning(table.c.id)).scalar_one())
    return found


def _night(connection: Connection, name: str) -> Night | None:
    head = connection.execute(select(nights).where(nights.c.name == name)).mappings().one_or_none()
    if head is None:
        return None
    rows = _of_night(connection, results, head["id"])
    known_series, known_circumstances = (_by_number(connection, table) for table in (series, circumstances))
    its_ladders = _by_number(connection, ladders, {row["ladder"] for row in rows})
    try:
        runs = [
            run_of(
                known_series[row["series"]],
                known_circumstances.get(row["circumstances"]),
                its_ladders.get(row["ladder"]),
                row,
            )
            for row in rows
        ]
        checks = [control_of(row) for row in _of_night(connection, controls, head["id"])]
        return Night(
            id=head["name"],
            started=head["started"],
            finished=head["finished"],
            runs=tuple(runs),
            controls=tuple(checks),
        )
    except ValueError as error:
        raise HistoryError(f"the history is damaged: night {name}: {error}") from None


def _of_night(connection: Connection, table: Table, number: int) -> list[Mapping[str, Any]]:
    """In the order that they stood in."""
    every = select(table).where(table.c.night == number).order_by(table.c.place)
    return [dict(row) for row in connection.execute(every).mappings()]


def _by_number(
    connection: Connection, table: Table, wanted: Collection[int | None] | None = None
) -> dict[int | None, Mapping[str, Any]]:
    """All of its rows, or the wanted ones."""
    every = select(table) if wanted is None else select(table).where(table.c.id.in_(wanted))
    return {row["id"]: dict(row) for row in connection.execute(every).mappings()}


def _differing(before: Night, night: Night) -> str | None:
    """What of two nights of one name is not the same, in words; None where all is."""
    if (before.started, before.finished) != (night.started, night.finished):
        return "it started or finished at another time"
    was, now = ({run.series: run for run in one.runs} for one in (before, night))
    for key in [*was, *now]:
        if was.get(key) != now.get(key):
            state = "is not there" if key not in was else "is gone" if key not in now else "has other results"
            return f"the series {key} {state}"
    if before.controls != night.controls:
        return "its controls said otherwise"
    return None if before == night else "its series are in another order"


def _past(connection: Connection) -> Past:
    counted = select(results.c.night, func.count().label("runs")).group_by(results.c.night).subquery()
    heads = connection.execute(
        select(nights, func.coalesce(counted.c.runs, 0))
        .outerjoin(counted, counted.c.night == nights.c.id)
        .order_by(nights.c.started, nights.c.id)
    ).all()
    evening = {head[0]: index for index, head in enumerate(heads)}
    known = _by_number(connection, circumstances)
    index_of: dict[int | None, int | None] = {None: None, **{number: index for index, number in enumerate(known)}}
    checks = [dict(row) for row in connection.execute(select(controls).order_by(controls.c.place)).mappings()]
    points: dict[int | None, list[Point]] = {}
    columns = (results.c.series, results.c.night, results.c.circumstances, *_MEASURED)
    for number, night, its, *measured in connection.execute(select(*columns)):
        points.setdefault(number, []).append(Point(evening[night], index_of[its], *measured))
    tracks = [
        Track(Series(**{name: row[name] for name in Series.model_fields}), sorted(points.get(number, ())))
        for number, row in _by_number(connection, series).items()
    ]
    return Past(
        evenings=[Evening(*head[1:]) for head in heads],
        circumstances=[
            Circumstances(**{name: row[name] for name in Circumstances.model_fields}) for row in known.values()
        ],
        tracks=sorted(tracks, key=lambda track: tuple(track.series.model_dump().values())),
        controls=sorted(((evening[row["night"]], control_of(row)) for row in checks), key=lambda pair: pair[0]),
    )
