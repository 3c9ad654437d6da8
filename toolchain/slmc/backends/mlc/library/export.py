"""A decoder's model library, as a program of its own: `... -m slmc.backends.mlc.library.export FOLDER OUT SETTINGS`.

FOLDER is what the backend made, with config.json and the weights' list; SETTINGS JSON, see `Settings`. OUT becomes a
.tar of objects for an app's own linker, or a shared library. TVM can die of a segmentation fault, which no `except`
catches.
"""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import tvm

from slmc.backends.child import tell_error
from slmc.backends.mlc.library.compile import compile_module
from slmc.backends.mlc.library.decoder import DecoderBuilder
from slmc.backends.mlc.library.limits import check_limits
from slmc.backends.mlc.library.metadata import library_metadata
from slmc.backends.mlc.library.settings import Settings
from slmc.backends.mlc.library.systems import system_of
from slmc.backends.mlc.shards import stored_codes
from slmc.backends.mlc.tensors import DTYPES, tensors
from slmc.backends.tvm.library import zig_tools
from slmc.config_json import read_architecture
from slmc.errors import CompileError


def export(folder: Path, out: Path, settings: Settings) -> None:
    system = system_of(settings.target)

    def write(path: str, objects: Sequence[str]) -> None:
        if system.is_static:
            _write_archive(map(Path, objects), Path(path))
        else:
            _link(objects, Path(path), system.triple)

    executable = compiled(folder, settings, system.target, f"{settings.name}_" if system.is_static else None)
    check_limits(executable)
    executable.export_library(str(out), fcompile=write)


def compiled(
    folder: Path, settings: Settings, target: tvm.target.Target, prefix: str | None = None
) -> tvm.relax.VMExecutable:
    """In memory."""
    form, context, chunk, a = settings.form, settings.context, settings.chunk, read_architecture(folder)
    listed = tensors(a, stored_codes(folder / settings.model_id), form)
    module = DecoderBuilder(a, listed, DTYPES[form], context, chunk, target).module()
    every = [tensor for parts in listed.values() for tensor in parts]
    return compile_module(module, target, library_metadata(a, every, form, context, chunk), prefix)


def _write_archive(objects: Iterable[Path], out: Path) -> None:
    """Without time and owner: the same objects give the same bytes."""
    with tarfile.open(out, "w") as archive:
        for path in objects:
            member = tarfile.TarInfo(path.name)
            member.size, member.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                archive.addfile(member, file)


def _link(objects: Sequence[str], out: Path, triple: str) -> None:
    """What it calls is there before it is loaded: the engine's functions, and libc's."""
    with zig_tools() as zig:
        zig([*_linker(triple, out.name), *objects, "-o", str(out)], triple)


def _linker(triple: str, name: str) -> list[str]:
    _, found, version = triple.partition("-apple-macosx")
    if not found:
        return ["ld.lld", "-shared"]
    flags = ["-shared", "-Wl,-undefined,dynamic_lookup", f"-Wl,-install_name,@rpath/{name}"]
    return ["cc", "-target", f"aarch64-macos.{version}", *flags]


def main() -> None:
    folder, out, settings = sys.argv[1:]
    try:
        export(Path(folder), Path(out), Settings.model_validate_json(settings))
    except CompileError as error:
        tell_error(error)


if __name__ == "__main__":
    main()
