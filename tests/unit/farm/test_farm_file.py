"""farm.yaml: what is read of it, and what is refused by its key."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmc.errors import RecipeError
from slmc.farm.farm_file import load_farm
from slmc.target import targets_folder

WHOLE = """
devices:
  here: {at: local, target: host}
  pixel8: {at: "adb:39V4C19114019806", target: android, device_class: 8 GB}
recipes: [recipes/intent-router]
controls: {android: controls/intent-router-1.0.0-android-tvm}
speed: {rounds: 5}
"""


def load(folder: Path, text: str) -> None:
    (folder / "farm.yaml").write_text(text)
    farm = load_farm(folder / "farm.yaml")
    assert farm.devices["pixel8"].device_class == "8 GB"
    assert farm.devices["here"].device_class is None
    assert farm.devices["here"].backends == ("tvm",)
    assert (farm.speed.rounds, farm.speed.items) == (5, 100)


def test_a_farm_is_read(tmp_path: Path) -> None:
    load(tmp_path, WHOLE)


@pytest.mark.parametrize(
    ("was", "now", "told"),
    [
        ("target: host", "target: hots", "devices.here.target"),
        ("at: local", "address: local", "devices.here"),
        ("8 GB", "9 GB", "'9 GB' is no class of target android: 4 GB, 6 GB, 8 GB, 12 GB"),
        ("target: host", "target: host, device_class: 8 GB", "no class of target host: none"),
        ("rounds: 5", "rounds: 2", "speed.rounds"),
        ("rounds: 5", "sustained_s: 3601", "speed.sustained_s"),
        ("rounds: 5", "sustained_s: -1", "speed.sustained_s"),
        ("rounds: 5", "sustained_s: 0.5", "speed.sustained_s"),
        ("target: host", "target: host, backends: []", "devices.here.backends"),
        ("target: host", "target: host, backends: [tvm, tvm]", "'tvm' twice"),
        ("target: host", "target: host, backends: [coreml]", "'coreml' is no backend of target host: tvm, executorch"),
        ("target: android,", "target: android, backends: [executorch],", "of executorch within an app alone"),
        ("here:", "'a b':", "devices"),
        ('"adb:39V4C19114019806"', "local", "two devices"),
        ("[recipes/intent-router]", "[]", "recipes"),
        ("[recipes/intent-router]", "[a/router, b/router]", "one name"),
        ("devices:", "devices: [", "can't be read"),
        ("speed:", "sped:", "sped"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, was: str, now: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        load(tmp_path, WHOLE.replace(was, now))
    assert told in str(error.value)


@pytest.mark.parametrize("name", ["farm.yaml", "emulated-farm.yaml"])
def test_the_farms_that_ship_are_farms(name: str) -> None:
    folder = targets_folder().parent / "recipes"
    farm = load_farm(folder / name)
    assert farm.devices["this-machine"].at == "local"
    assert all((folder / recipe).is_dir() for recipe in farm.recipes)


def test_the_emulated_phones_are_those_of_their_farm() -> None:
    root = targets_folder().parent
    script = (root / "scripts" / "emulated_phones.py").read_text()
    phones = [entry.at for entry in load_farm(root / "recipes" / "emulated-farm.yaml").devices.values()][1:]
    assert f"PHONES = 16800, ({', '.join(at.rpartition(':')[2] for at in phones)})" in script
