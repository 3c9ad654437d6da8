"""Folders of the mlc backend, for a model that a test has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers

from slmc.artifacts import QuantizedCheckpoint
from slmc.backends.mlc.compile import Order, compile_model
from slmc.models.mlc import MlcDecoder, read_mlc
from slmc.names import Activations, TargetName
from slmc.prompt import Codec, PromptFormat
from slmc.recipe import Example
from slmc.runners.mlc_engine import MlcEngine

from .variants import CONTEXT, VOCABULARY

CHUNK = 32
NAME = "a-test-1.0"


def order(
    target: TargetName = "host",
    activations: Activations = "float32",
    context: int = CONTEXT,
    examples: Sequence[Example] = (),
) -> Order:
    return Order(target, NAME, context, CHUNK, activations, 12345678, codec(), examples, None)


def compiled(model: QuantizedCheckpoint, folder: Path, wanted: Order) -> MlcDecoder:
    folder.mkdir(exist_ok=True)
    compile_model(model, folder, lambda _: None, wanted)
    return read_mlc(folder)


def engine(folder: Path) -> MlcEngine:
    """Of a folder for the host."""
    return MlcEngine(folder, folder / read_mlc(folder).library)


def codec() -> Codec:
    """A word for each token."""
    tokenizer = Tokenizer(models.WordLevel({f"w{number}": number for number in range(VOCABULARY)}, "w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    form = PromptFormat(
        prefix="w1 ",
        message="{text}",
        suffix=" w2",
        trim=False,
        answer_prefix="",
        special_tokens=False,
        end_token="w3",
        end_id=3,
    )
    return Codec(tokenizer, form)
