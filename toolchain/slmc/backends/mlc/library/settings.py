"""What a model library is compiled with."""

from __future__ import annotations

from slmc.backends.mlc.tensors import Format
from slmc.names import TargetName
from slmc.strict import Strict


class Settings(Strict):
    target: TargetName
    form: Format
    context: int
    """Tokens."""
    chunk: int
    """Tokens that one call of prefill takes at most."""
    model_id: str
    """The folder with the weights' list."""
    name: str
    """By which an app asks for it."""
