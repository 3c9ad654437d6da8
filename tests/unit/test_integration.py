"""What is added to an app lies in a bundle as it lies under targets/, in the flavour of the bundle's backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from slmc.integration import copy_integration, digest_of, integration, page
from slmc.names import BackendName, TargetName
from slmc.target import targets_folder


@pytest.mark.parametrize("target", ["ios", "metal"])
@pytest.mark.parametrize(("backend", "flavour", "other"), [("tvm", "native", "coreml"), ("coreml", "coreml", "native")])
def test_a_bundle_for_apple_is_a_package_of_one_flavour(
    tmp_path: Path, target: TargetName, backend: BackendName, flavour: str, other: str
) -> None:
    (tmp_path / "prefix.slm").touch()
    copy_integration(target, backend, tmp_path)
    (tmp_path / "prefix.slm").unlink()
    source = targets_folder() / "ios" / "integration"
    wanted = {path.relative_to(source) for name in ("Sources", "Tests") for path in (source / name).rglob("*.swift")}
    own = {path.relative_to(source / flavour) for path in (source / flavour).rglob("*.swift")}
    found = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == wanted | own
    assert Path("Package.swift") in own
    for name in own:
        assert (tmp_path / name).read_bytes() == (source / flavour / name).read_bytes()
        assert (tmp_path / name).read_bytes() != (source / other / "Package.swift").read_bytes()


def test_a_package_names_no_file_that_is_not_there(tmp_path: Path) -> None:
    copy_integration("ios", "tvm", tmp_path)
    delivered = targets_folder() / "ios" / "integration" / "native" / "Package.swift"
    whole = delivered.read_text(encoding="utf-8").splitlines()
    left = (tmp_path / "Package.swift").read_text(encoding="utf-8").splitlines()
    assert [line.strip() for line in whole if line not in left] == ['.copy("prefix.slm"),']
    assert len(left) == len(whole) - 1


@pytest.mark.parametrize("backend", ["tvm", "executorch"])
def test_a_bundle_for_android_has_a_module(tmp_path: Path, backend: BackendName) -> None:
    copy_integration("android", backend, tmp_path)
    source = targets_folder() / "android" / "integration"
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "android") for path in tmp_path.rglob("*") if path.is_file()} == files
    assert Path("build.gradle.kts") in files


@pytest.mark.parametrize(
    ("target", "backend"), [("host", "tvm"), ("android", "mlc"), ("ios", "executorch"), ("metal", "mlc")]
)
def test_others_have_none(tmp_path: Path, target: TargetName, backend: BackendName) -> None:
    copy_integration(target, backend, tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert (integration(target, backend), digest_of(target, backend), page(target, backend)) == (None, None, None)


def test_a_bundles_page_says_what_was_not_run() -> None:
    for target, backend in (("android", "tvm"), ("ios", "coreml")):
        assert "not run on a" in str(page(target, backend))  # type: ignore[arg-type]
