"""Text in, decision out: a tokenizer, a prompt and its answers compiled into tables, and the C that reads them."""

from pathlib import Path

NATIVE = Path(__file__).parent / "native"
"""C that the native library is built from, beside the decoder's."""
HEADER = NATIVE / "slm_text.h"
