"""The tables, as the newest migration leaves them.

    nights ──< results >── series           what is followed: recipe, target, backend, device
        │         ├──────> circumstances    what it hung on: bundle, toolchain, OS, runtime, ...
        │         └──────> ladders          where answers changed on the way to the device
        └──< controls                       what the frozen control said of each device

A result has a night's numbers of a series in columns of their own, so that years of them are read without parsing.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Instant(TypeDecorator[datetime]):
    """A moment, which SQLite keeps without its zone: in UTC in both."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value and (value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC))


metadata = MetaData()

nights = Table(
    "nights",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("started", Instant, nullable=False),
    Column("finished", Instant, nullable=False),
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("recipe", Text, nullable=False),
    Column("target", Text, nullable=False),
    Column("backend", Text, nullable=False),
    Column("device", Text, nullable=False),
    UniqueConstraint("recipe", "target", "backend", "device"),
)

circumstances = Table(
    "circumstances",
    metadata,
    Column("id", Integer, primary_key=True),
    # Of all the others, as a unique constraint takes no missing control for another.
    Column("digest", Text, nullable=False, unique=True),
    Column("recipe", Text, nullable=False),
    Column("toolchain", Text, nullable=False),
    Column("bundle", Text, nullable=False),
    Column("control", Text),
    Column("model", Text, nullable=False),
    Column("os", Text, nullable=False),
    Column("runtime", Text, nullable=False),
)

ladders = Table(
    "ladders",
    metadata,
    Column("id", Integer, primary_key=True),
    # Night after night it is the same one, which is kept once.
    Column("digest", Text, nullable=False, unique=True),
    Column("content", Text, nullable=False),
)

controls = Table(
    "controls",
    metadata,
    Column("night", Integer, ForeignKey("nights.id"), primary_key=True),
    Column("device", Text, primary_key=True),
    # Where in the night's list it stood.
    Column("place", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("decision_ms_p50", Double),
)

results = Table(
    "results",
    metadata,
    Column("night", Integer, ForeignKey("nights.id"), primary_key=True),
    Column("series", Integer, ForeignKey("series.id"), primary_key=True),
    Column("circumstances", Integer, ForeignKey("circumstances.id")),
    # Where in the night's list the run stood.
    Column("place", Integer, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("peak_memory_bytes", BigInteger),
    Column("memory_limit_bytes", BigInteger),
    # Accuracy: all or none.
    Column("items", Integer),
    Column("right", Integer),
    Column("asked", Text),
    Column("answered", LargeBinary),
    # Speed: all or none, but for what not every device tells.
    Column("verdict", Text),
    Column("ratio", Double),
    Column("variation", Double),
    Column("rounds", Integer),
    Column("decision_ms_p50", Double),
    Column("decision_ms_p95", Double),
    Column("first_token_ms", Double),
    Column("prefill_tokens_per_s", Double),
    Column("decode_tokens_per_s", Double),
    Column("sustained", Double),
    Column("load_ms", Double),
    Column("energy_mj", Double),
    Column("control_ms_p50", Double),
    Column("device_class", Text),
    Column("ladder", Integer, ForeignKey("ladders.id")),
    Column("speed_reason", Text),
    # What the device told of itself meanwhile, as JSON.
    Column("conditions", Text),
)
