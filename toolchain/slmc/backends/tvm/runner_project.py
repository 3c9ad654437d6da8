"""The Xcode project of the app that runs slm-run on an iPhone: targets/ios/runner, the library, and its digest.

By the digest, which the app tells, a phone's runner is known to be the one that a bundle is to be judged by.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from slmc import digest
from slmc.backends.tvm.package import identifier, write_module, write_plist
from slmc.backends.tvm.runner import HEADER, RUNNER
from slmc.backends.tvm.stored import stored_runner
from slmc.errors import InputError
from slmc.store import Store
from slmc.target import load_target, targets_folder

_MODULE = "slm_run"
_LIBRARY = f"lib{_MODULE}.a"
DIGEST = f"{RUNNER}.sha256"


def write_project(store: Store, folder: Path) -> None:
    """The same sources and tools give the same bytes. Raises InputError where the folder is there already, CompileError
    and MissingToolError.
    """
    if folder.exists():
        raise InputError("the folder of the runner app is there already", where=folder, todo="name a new one")
    triple = load_target("ios").native[0].triple
    library = stored_runner(store, triple)
    shutil.copytree(targets_folder() / "ios" / "runner", folder)
    framework = folder / f"{_MODULE}.xcframework"
    part = framework / identifier(triple)
    write_module(part, _MODULE, [HEADER])
    shutil.copyfile(library, part / _LIBRARY)
    write_plist(framework, {triple: _LIBRARY})
    (folder / DIGEST).write_text(f"{digest.of_file(library)}\n", encoding="ascii")
