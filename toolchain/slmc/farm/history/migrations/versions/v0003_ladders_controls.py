"""Where answers changed on the way to a device, what the control said of it, its class, and why speed is unclear."""

import sqlalchemy as sa
from alembic import op

from slmc.farm.history.migrations.append_only import refuse_changes

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "ladders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("digest", sa.Text, nullable=False, unique=True),
        sa.Column("content", sa.Text, nullable=False),
    )
    op.create_table(
        "controls",
        sa.Column("night", sa.Integer, sa.ForeignKey("nights.id"), primary_key=True),
        sa.Column("device", sa.Text, primary_key=True),
        sa.Column("place", sa.Integer, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("decision_ms_p50", sa.Double),
        sa.CheckConstraint("outcome in ('pass', 'fail', 'not run')", name="known_control"),
    )
    op.add_column("results", sa.Column("control_ms_p50", sa.Double))
    for name in ("device_class", "speed_reason", "conditions"):
        op.add_column("results", sa.Column(name, sa.Text))
    # SQLite takes a reference with its column alone.
    op.execute("alter table results add column ladder integer references ladders (id)")
    refuse_changes({"ladders": ("digest",), "controls": ("night", "device")})
