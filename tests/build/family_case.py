"""A quantized model of each family's variants, and what transformers says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from slmc.artifacts import MergedCheckpoint, QuantizedCheckpoint
from slmc.checkpoint.reader import open_checkpoint
from slmc.names import SCHEMES, Bits, SchemeName
from slmc.quant.quantizer import quantize
from slmc.quant.reader import QuantizedReader, open_quantized

from .variants import VARIANTS, VOCABULARY, Variant, write_model

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

Logits = npt.NDArray[np.float32]
READ = 300
"""Tokens: longer than the windows, and than what the decoder reads at once."""


@dataclass(frozen=True)
class Case:
    """A quantized model, and what transformers says of it."""

    model: QuantizedCheckpoint
    network: transformers.PreTrainedModel
    """Read from the checkpoint's own config.json; its weights the dequantized ones."""
    tokens: Sequence[int]
    logits: Logits
    """After each of the tokens."""


@pytest.fixture(scope="module", params=VARIANTS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    variant, folder = VARIANTS[request.param], tmp_path_factory.mktemp("family")
    model = quantized(variant, folder)
    network = transformers.AutoModelForCausalLM.from_pretrained(folder / "base", dtype=torch.float32).eval()
    with QuantizedReader(model.folder) as reader:
        state = {spec.name: torch.from_numpy(reader.dequantized(spec.name)) for spec in model.architecture.tensors()}
    network.load_state_dict(state, strict=False)
    tokens = ids(READ)
    return Case(model, network, tokens, logits(network, tokens))


def quantized(variant: Variant, folder: Path) -> QuantizedCheckpoint:
    """In `folder/quantized`, of a model in `folder/base`."""
    write_model(variant, folder / "base")
    return quantized_again(folder / "base", folder / "quantized", variant.scheme)


def quantized_again(
    base: Path,
    out: Path,
    scheme: SchemeName = "int4-g32",
    keep: tuple[str, ...] = (),
    bits: Mapping[str, Bits] | None = None,
) -> QuantizedCheckpoint:
    """A base quantized by rounding into a new folder."""
    opened = open_checkpoint(base)
    out.mkdir()
    merged = MergedCheckpoint(opened.folder, opened.architecture, opened.digest)
    quantize(merged, SCHEMES[scheme], keep, out, lambda _: None, bits or {})
    return open_quantized(out)


def ids(count: int, seed: int = 0) -> list[int]:
    return [int(token) for token in np.random.default_rng(seed).integers(0, VOCABULARY, count)]


def logits(network: transformers.PreTrainedModel, tokens: Sequence[int]) -> Logits:
    with torch.inference_mode():
        found: Logits = network(torch.tensor([list(tokens)])).logits[0].numpy()
    return found
