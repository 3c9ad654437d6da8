"""What is in a table stays as it is, whoever tries to change it."""

from slmc.farm.history.migrations.append_only import refuse_changes

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    refuse_changes(
        {
            "nights": ("name",),
            "series": ("recipe", "target", "backend", "device"),
            "circumstances": ("digest",),
            "results": ("night", "series"),
        }
    )
