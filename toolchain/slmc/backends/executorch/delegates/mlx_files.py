"""ExecuTorch's wheel carries its MLX backend without the files that its own build generates from `schema.fbs`.

They are made here with the generator and the schema that the wheel does carry, in a copy of the backend which Python
then imports in its place: the installed package stays as it is.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib.util
import io
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp

import executorch.backends
from executorch.exir._serialize._flatbuffer import _get_flatc_path


def complete() -> None:
    """Before `executorch.backends.mlx` is imported. Nothing is done where it is whole."""
    installed = Path(executorch.backends.__path__[0]) / "mlx"
    if (installed / "serialization" / "mlx_graph_schema.py").exists():
        return
    beside = Path(mkdtemp(prefix="slmc-mlx-"))
    atexit.register(shutil.rmtree, beside, ignore_errors=True)
    copied = shutil.copytree(installed, beside / "mlx")
    with contextlib.redirect_stdout(io.StringIO()):
        _generate(copied / "serialization" / "generate.py")
    executorch.backends.__path__.insert(0, str(beside))


def _generate(script: Path) -> None:
    """What the script's own main does, but for the C++ sources, whose templates the wheel lacks."""
    spec = importlib.util.spec_from_file_location("slmc_mlx_generate", script)
    assert spec is not None
    assert spec.loader is not None
    generator = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # its dataclasses look there
    spec.loader.exec_module(generator)
    schema = generator.parse_fbs(generator.SCHEMA_FBS)
    assert generator.run_flatc(_get_flatc_path()), f"flatc failed on {generator.SCHEMA_FBS}"
    generator._fixup_flatc_imports()
    generator.GENERATED_SCHEMA_PY.write_text(generator.generate_python_schema(schema))
    generator.GENERATED_SERIALIZERS.write_text(generator.generate_python_serializers(schema))
