"""The tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "nights",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        sa.Column("started", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("recipe", "target", "backend", "device")),
        sa.UniqueConstraint("recipe", "target", "backend", "device"),
    )
    op.create_table(
        "circumstances",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("recipe", "toolchain", "bundle")),
        sa.Column("control", sa.Text),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("model", "os", "runtime")),
    )
    _results()


def _results() -> None:
    numbers = ("ratio", "decision_ms_p50", "decision_ms_p95", "first_token_ms", "load_ms")
    optional = ("prefill_tokens_per_s", "decode_tokens_per_s", "sustained", "energy_mj")
    accuracy = ("items", "right", "asked", "answered")
    speed = ("verdict", "variation", "rounds", *numbers)
    op.create_table(
        "results",
        sa.Column("night", sa.Integer, sa.ForeignKey("nights.id"), primary_key=True),
        sa.Column("series", sa.Integer, sa.ForeignKey("series.id"), primary_key=True),
        sa.Column("circumstances", sa.Integer, sa.ForeignKey("circumstances.id")),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("peak_memory_bytes", sa.BigInteger),
        sa.Column("memory_limit_bytes", sa.BigInteger),
        sa.Column("items", sa.Integer),
        sa.Column("right", sa.Integer),
        sa.Column("asked", sa.Text),
        sa.Column("answered", sa.LargeBinary),
        sa.Column("verdict", sa.Text),
        sa.Column("variation", sa.Double),
        sa.Column("rounds", sa.Integer),
        *(sa.Column(name, sa.Double) for name in (*numbers, *optional)),
        sa.CheckConstraint("outcome in ('pass', 'fail', 'unclear', 'not run')", name="known_outcome"),
        sa.CheckConstraint("verdict in ('measured', 'unclear')", name="known_verdict"),
        sa.CheckConstraint(_all_or_none(accuracy), name="whole_accuracy"),
        sa.CheckConstraint(_all_or_none(speed), name="whole_speed"),
        sa.CheckConstraint('"right" between 0 and items', name="no_more_right_than_items"),
        *(sa.CheckConstraint(f"{name} > 0", name=f"positive_{name}") for name in ("items", "rounds", *numbers)),
    )


def _all_or_none(names: tuple[str, ...]) -> str:
    """In SQL."""
    quoted = [f'"{name}"' for name in names]
    every, none = (" and ".join(f"{name} is {what}" for name in quoted) for what in ("not null", "null"))
    return f"({every}) or ({none})"
