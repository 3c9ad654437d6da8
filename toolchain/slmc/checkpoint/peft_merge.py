"""Merge through peft itself, the whole model in memory: DoRA, biases, and tuners other than LoRA.

What peft merges must answer as the adapted model did before, or the merge is refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from slmc.artifacts import Checkpoint
from slmc.checkpoint.adapter import adaptable, weights_path
from slmc.checkpoint.dtypes import Float32
from slmc.checkpoint.merged import stored_name, write_merged
from slmc.checkpoint.reader import TensorReader
from slmc.console import Advance
from slmc.errors import AdapterError, MissingToolError

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

_TOLERANCE = 1e-3
"""Of the largest logit. Float32 merging differs by about 1e-6; peft's known mistakes by 0.1 and more."""


def merge_through_peft(base: Checkpoint, adapter: Path, reason: str, out: Path, advance: Advance) -> None:
    """As `lora.merge`. `reason` names the adapter's option that brought us here."""
    try:
        import peft  # noqa: F401
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingToolError(
            f"an adapter with {reason} is merged by peft, and {error.name} is not installed",
            where=adapter,
            todo="pip install 'slmc[reference]'",
        ) from None
    with TensorReader(base.folder) as reader:
        for name in reader.names:
            reader.array(name)  # finite, or it is the base's fault and not the adapter's
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            torch.manual_seed(0)  # some initialisations draw numbers before the weights are loaded
            # What matters in peft's warnings, keys without a place, is checked below and is an error.
            warnings.simplefilter("ignore")
            merged = _merged_tensors(base, adapter, reason)
        write_merged(base, _Merged(reader, merged), out, advance)


class _Merged:
    """The merged model's tensors; a `MergedTensors`."""

    def __init__(self, base: TensorReader, tensors: dict[str, Float32]) -> None:
        self._tensors = tensors
        self._changed = {
            name for name, values in tensors.items() if not np.array_equal(base.array(stored_name(base, name)), values)
        }

    def changed(self, name: str) -> bool:
        return name in self._changed

    def rows(self, name: str, start: int, stop: int) -> Float32:
        return self._tensors[name][start:stop]


def _merged_tensors(base: Checkpoint, adapter: Path, reason: str) -> dict[str, Float32]:
    """Each of the base's tensors after the merge; both of a tied pair."""
    with _told_as_adapter_errors(adapter, reason):
        model = _adapted(base, adapter)
        before = _logits(model, base.architecture.vocab_size)
        merged = model.merge_and_unload(safe_merge=True)
        after = _logits(merged, base.architecture.vocab_size)
        tensors = {name: values.detach().numpy() for name, values in merged.state_dict().items()}
    if tensors.keys() != adaptable(base.architecture).keys():
        other = sorted(tensors.keys() ^ adaptable(base.architecture).keys())
        raise AdapterError(
            f"an adapter with {reason} makes a model with other tensors than its base: {other[0]}", where=adapter
        )
    if not np.abs(after - before).max() <= _TOLERANCE * np.abs(before).max():
        raise AdapterError(
            f"peft's merge of an adapter with {reason} gives another model than the adapter itself",
            where=adapter,
            todo="merge it where it was trained, and give the merged model as the base",
        )
    return tensors


def _adapted(base: Checkpoint, adapter: Path) -> PeftModel:
    """The base in float32 with the adapter on it. Every key of the adapter has its place, and none is missing."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
    from safetensors.torch import load_file

    config = PeftConfig.from_pretrained(str(adapter))
    config.inference_mode = True
    config.base_model_name_or_path = str(base.folder)
    weights = load_file(weights_path(adapter))
    for key, values in weights.items():
        if not values.isfinite().all():
            raise AdapterError(f"{key} holds NaN or infinity", where=adapter, expected="finite weights")
    model = get_peft_model(
        _load_base(base, tied_by_peft=bool(getattr(config, "trainable_token_indices", None))), config
    )
    wanted = set(get_peft_model_state_dict(model))
    for key in sorted(wanted.symmetric_difference(weights)):
        if not key.endswith(".base_layer.weight"):  # the base's own, saved or not as it was asked for
            raise AdapterError(
                f"{key} is missing in the adapter" if key in wanted else f"{key} fits nothing in the base",
                where=adapter,
                expected="an adapter for this base, as its adapter_config.json says",
            )
    set_peft_model_state_dict(model, weights)
    return model.eval()


def _load_base(base: Checkpoint, *, tied_by_peft: bool) -> PreTrainedModel:
    """In float32. A tied head gets a copy of its own: peft's merge would add to the shared one twice.

    With trained tokens peft ties the head itself, and puts the same values into both.
    """
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base.folder, dtype=torch.float32, local_files_only=True)
    if base.architecture.tied and not tied_by_peft:
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(model.model.embed_tokens.weight.detach().clone())
    return model


def _logits(model: torch.nn.Module, vocabulary: int) -> Float32:
    """Of a few tokens, spread over the vocabulary."""
    import torch

    with torch.inference_mode():
        found: Float32 = model(torch.linspace(0, vocabulary - 1, 16).long()[None]).logits.numpy()
    return found


@contextmanager
def _told_as_adapter_errors(adapter: Path, reason: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, TypeError, KeyError, RuntimeError, NotImplementedError, AttributeError) as error:
        raise AdapterError(
            f"peft can't merge this adapter, with {reason}: {error}",
            where=adapter,
            todo="merge it where it was trained, and give the merged model as the base",
        ) from error
