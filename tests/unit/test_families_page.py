"""docs/families.md says what the code does."""

from __future__ import annotations

from slmc.architecture import CALIBRATED, FAMILIES

from .families_page import read_table


def test_the_table_has_every_family_and_which_can_be_calibrated() -> None:
    rows = read_table()
    assert [row["family"] for row in rows] == [f"`{family}`" for family in FAMILIES]
    assert {row["family"].strip("`") for row in rows if row["calibrated methods"] == "yes"} == set(CALIBRATED)
    assert {row["calibrated methods"] for row in rows} == {"yes", "no"}
    assert all(row["tested variants"] for row in rows)
