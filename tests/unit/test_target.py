from __future__ import annotations

from pathlib import Path

import pytest

from slmc import target as module
from slmc.errors import CompileError, InputError, RecipeError
from slmc.target import load_target, native_triples, target_names, targets_folder


def test_every_target_loads_and_is_documented() -> None:
    assert target_names() == ["android", "host", "ios", "metal"]
    readme = (targets_folder().parent / "README.md").read_text()
    for name in target_names():
        target = load_target(name)
        assert target.name == name
        assert f"`{name}`" in readme
        assert all(device.source and device.process_mib <= device.ram_mib for device in target.memory_classes())


def test_an_unknown_target_names_the_closest() -> None:
    with pytest.raises(InputError, match="no target 'andriod'") as caught:
        load_target("andriod")
    assert caught.value.todo == "did you mean 'android'?"


@pytest.mark.parametrize("name", ["../host", "host/..", "/etc"])
def test_a_name_is_not_a_path(name: str) -> None:
    with pytest.raises(InputError):
        load_target(name)


def test_a_bad_target_file_names_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "target.toml").write_text('name = "host"\ntitel = "x"\n')
    monkeypatch.setattr(module, "targets_folder", lambda: tmp_path)
    with pytest.raises(RecipeError, match="titel") as caught:
        load_target("host")
    assert caught.value.todo == "did you mean 'title'?"


@pytest.mark.parametrize(
    ("system", "machine", "triple"),
    [
        ("Linux", "x86_64", "x86_64-linux-gnu"),
        ("Linux", "aarch64", "aarch64-linux-gnu"),
        ("Darwin", "arm64", "arm64-apple-macosx13.0"),
    ],
)
def test_the_host_is_built_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, triple: str
) -> None:
    monkeypatch.setattr(module.platform, "system", lambda: system)
    monkeypatch.setattr(module.platform, "machine", lambda: machine)
    assert native_triples(load_target("host")) == (triple,)
    assert native_triples(load_target("ios")) == ("arm64-apple-ios18.0", "arm64-apple-ios18.0-simulator")


def test_a_machine_that_nothing_fits_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    with pytest.raises(CompileError, match="riscv64"):
        native_triples(load_target("host"))
