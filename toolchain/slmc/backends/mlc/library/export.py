"""A decoder's model library, as a program of its own: `... -m slmc.backends.mlc.library.export FOLDER OUT SETTINGS`.

FOLDER is what the backend made, with config.json and the weights' list; SETTINGS JSON, see `Settings`. OUT becomes a
.tar of objects for an app's own linker, or a shared library. TVM can die of a segmentation fault, which no `except`
catches.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

import tvm

from slmc.backends.mlc.library.compile import compile_module
from slmc.backends.mlc.library.decoder import DecoderBuilder
from slmc.backends.mlc.library.metadata import library_metadata
from slmc.backends.mlc.library.settings import Settings
from slmc.backends.mlc.library.systems import system_of
from slmc.backends.mlc.shards import stored_codes
from slmc.backends.mlc.tensors import DTYPES, tensors
from slmc.backends.tvm.library import zig_tools
from slmc.config_json import read_architecture


def export(folder: Path, out: Path, settings: Settings) -> None:
    system = system_of(settings.target)
    executable = compiled(folder, settings, system.target, f"{settings.name}_" if system.is_static else None)
    with TemporaryDirectory() as made:
        archive = Path(made) / "library.tar"
        executable.export_library(str(archive))
        _write(archive, out) if system.is_static else _link(archive, out, system.triple)


def compiled(
    folder: Path, settings: Settings, target: tvm.target.Target, prefix: str | None = None
) -> tvm.relax.VMExecutable:
    """In memory."""
    form, context, chunk, a = settings.form, settings.context, settings.chunk, read_architecture(folder)
    listed = tensors(a, stored_codes(folder / settings.model_id), form)
    module = DecoderBuilder(a, listed, DTYPES[form], context, chunk, target).module()
    every = [tensor for parts in listed.values() for tensor in parts]
    return compile_module(module, target, library_metadata(a, every, form, context, chunk), prefix)


def _write(archive: Path, out: Path) -> None:
    """The same objects with no time and no owner: the same inputs give the same bytes."""
    with tarfile.open(archive) as made, tarfile.open(out, "w") as written:
        for member in sorted(made.getmembers(), key=lambda member: member.name):
            plain = tarfile.TarInfo(Path(member.name).name)
            plain.size, plain.mode = member.size, 0o644
            written.addfile(plain, made.extractfile(member))


def _link(archive: Path, out: Path, triple: str) -> None:
    """What it calls is the engine's, which is loaded before it."""
    with TemporaryDirectory() as folder, zig_tools() as zig:
        with tarfile.open(archive) as made:
            made.extractall(folder, filter="data")
        objects = [str(path) for path in sorted(Path(folder).glob("*.o"))]
        zig(["cc", *_flags(triple, out), *objects, "-o", str(out)], triple)


def _flags(triple: str, out: Path) -> list[str]:
    machine, _, system = triple.partition("-")
    if system.startswith("apple"):
        version = system.removeprefix("apple-macosx")
        flags = ["-Wl,-undefined,dynamic_lookup", f"-Wl,-install_name,@rpath/{out.name}"]
        return ["-target", f"aarch64-macos.{version}", "-shared", *flags]
    return ["-target", f"{machine}-linux-gnu", "-shared", "-Wl,--allow-shlib-undefined", "-Wl,-z,undefs"]


def main() -> None:
    folder, out, settings = sys.argv[1:]
    export(Path(folder), Path(out), Settings.model_validate_json(settings))


if __name__ == "__main__":
    main()
