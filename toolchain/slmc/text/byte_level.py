"""The 256 characters that byte-level tokenizers write bytes in (GPT-2's `bytes_to_unicode`)."""

from __future__ import annotations

from functools import cache


@cache
def byte_of() -> dict[str, int]:
    """Printable Latin-1 stands for itself, the other bytes for the characters from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}


def byte_level(token: str) -> bytes:
    """The bytes of a token; of one with other characters, which an added token may have, its UTF-8."""
    found = [byte_of().get(character) for character in token]
    return token.encode() if None in found else bytes(byte for byte in found if byte is not None)
