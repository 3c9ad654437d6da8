"""What backends say of their artifacts, for tests that have none."""

from __future__ import annotations

from slmc.models.exported import Delegation, ExportedDecoder


def exported(delegation: Delegation, foundation: str | None = None) -> ExportedDecoder:
    return ExportedDecoder(
        program_sha256="0" * 64,
        foundation_sha256=foundation,
        delegation=delegation,
        one_token=False,
        vocab_size=1,
        context=1,
        versions={},
    )
