"""The 256 characters that byte-level tokenizers write bytes in (GPT-2's `bytes_to_unicode`)."""

from __future__ import annotations

from functools import cache


@cache
def alphabet() -> str:
    """The character of every byte: printable Latin-1 for itself, those from U+0100 on, in order, for the others."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return "".join(chr(byte if byte in printable else next(others)) for byte in range(256))


@cache
def byte_of() -> dict[str, int]:
    """The byte of every character."""
    return {letter: byte for byte, letter in enumerate(alphabet())}


def byte_level(token: str) -> bytes:
    """The bytes of a token; of one with other characters, which an added token may have, its UTF-8."""
    found = [byte_of().get(character) for character in token]
    return token.encode() if None in found else bytes(byte for byte in found if byte is not None)
