"""What an installed package must carry beside its Python files."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from slmc.target import targets_folder

pytestmark = pytest.mark.build


def test_a_wheel_finds_its_targets_and_templates(tmp_path: Path) -> None:
    root = targets_folder().parent
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(installed)
    assert {"slmc/validate/report.html.j2", "slmc/guide_executorch.md.j2", "slmc/guide_coreml.md.j2"} < set(names)
    native = ("slm.h", "session.c", "jni.c", "java/org/slmc/Slm.java", "java/org/slmc/SlmException.java")
    assert {f"slmc/backends/tvm/native/{name}" for name in native} < set(names)
    assert not [name for name in names if name.endswith(".safetensors")]
    code = "from slmc.target import load_target, target_names; print([load_target(n).name for n in target_names()])"
    done = subprocess.run(
        [sys.executable, "-S", "-c", f"import sys; sys.path[:0] = {[str(installed), *sys.path]!r}; {code}"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout.strip() == "['android', 'host', 'ios', 'metal']"
    assert (installed / "slmc" / "_targets" / "ios" / "target.toml").is_file()
