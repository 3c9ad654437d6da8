"""`slmc verify`: is this bundle what its manifest says?"""

from __future__ import annotations

from pathlib import Path

import click

from slmc.bundle.verify import verify
from slmc.cli.common import as_json, bundle_argument, megabytes, print_json
from slmc.console import out


@click.command("verify")
@bundle_argument
@as_json
def command(bundle: Path, as_json: bool) -> None:
    """Check every file of BUNDLE against its digest, and every golden prompt against its tokens."""
    manifest = verify(bundle)
    if as_json:
        print_json({"bundle": manifest.name, "digest": manifest.digest, "files": len(manifest.files), "ok": True})
        return
    out.print(
        f"[green]ok[/] {bundle.name}: {len(manifest.files)} files, {megabytes(manifest.size)}, "
        f"digest {manifest.digest[:16]}"
    )
    out.print(f"device: {manifest.device}")
    judged = manifest.validation.verdict if manifest.validation else "not run"
    out.print(f"validation: {judged}")
