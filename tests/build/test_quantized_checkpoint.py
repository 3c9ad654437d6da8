"""A quantized folder as transformers and compressed-tensors load it, against its weights in a plain model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.reader import TensorReader, open_checkpoint
from slmc.names import Bits
from slmc.quant.packing import pack, unpack
from slmc.quant.quantizer import quantize
from slmc.quant.reader import QuantizedReader
from slmc.quant.schemes import SCHEMES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
packed_helpers = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
safetensors_torch = pytest.importorskip("safetensors.torch")
pytestmark = [
    pytest.mark.build,
    pytest.mark.filterwarnings("ignore"),  # of deprecated calls in the libraries
]
torch.set_num_threads(1)  # tiny tensors: threads only wait for each other

VOCABULARY = 96
CONFIGS = {
    "llama": (transformers.LlamaConfig, {}),
    "qwen2": (transformers.Qwen2Config, {}),
    "qwen3": (transformers.Qwen3Config, {"head_dim": 32}),
    "gemma3_text": (transformers.Gemma3TextConfig, {"head_dim": 32}),
    "phi3": (transformers.Phi3Config, {"pad_token_id": 0}),
    "smollm3": (transformers.SmolLM3Config, {"pad_token_id": 0}),
}


def make_base(folder: Path, family: str, *, tied: bool) -> transformers.PreTrainedModel:
    torch.manual_seed(7)
    kind, more = CONFIGS[family]
    config = kind(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
        **more,
    )
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return model


def quantized(base: Path, out: Path, scheme: str, keep: tuple[str, ...], wide: tuple[str, ...]) -> Path:
    checkpoint = open_checkpoint(base)
    out.mkdir()
    merged = MergedCheckpoint(checkpoint.folder, checkpoint.architecture, checkpoint.digest)
    bits: dict[str, Bits] = {spec.name: 8 for spec in merged.architecture.tensors() if spec.name.endswith(wide)}
    quantize(merged, SCHEMES[scheme], keep, out, lambda weights: None, bits)
    return out


def logits(model: torch.nn.Module) -> np.ndarray:
    with torch.inference_mode():
        return model(torch.arange(VOCABULARY)[None]).logits.float().numpy()


@pytest.mark.parametrize("family", CONFIGS)
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    ("scheme", "keep", "wide"),
    [
        ("int4-g32", (), ()),
        ("int4-g64", (), ()),
        ("int8-g32", (), ()),
        ("int4-g32", ("model.embed_tokens.weight",), ()),
        ("int4-g32", ("*.mlp.down_proj.weight", "model.layers.1.*"), ()),
        ("int4-g32", (), ("embed_tokens.weight",)),
        ("int4-g32", (), ("lm_head.weight",)),
        ("int4-g64", ("model.layers.1.*",), ("q_proj.weight", "0.mlp.down_proj.weight")),
    ],
)
def test_transformers_loads_it_exactly(
    tmp_path: Path, family: str, tied: bool, scheme: str, keep: tuple[str, ...], wide: tuple[str, ...]
) -> None:
    model = make_base(tmp_path / "base", family, tied=tied).float()
    out = quantized(tmp_path / "base", tmp_path / "out", scheme, keep, wide)
    before = logits(model)
    with QuantizedReader(out) as reader:
        for spec in reader.architecture.tensors():
            if reader.is_quantized(spec.name):
                assert reader.scheme(spec.name).bits == (8 if scheme == "int8-g32" or spec.name.endswith(wide) else 4)
            weights = torch.from_numpy(reader.dequantized(spec.name))
            model.get_parameter(spec.name).data.copy_(weights)
    wanted = logits(model)
    assert np.abs(wanted - before).max() > 1e-3
    loaded = transformers.AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) is tied
    assert np.array_equal(logits(loaded), wanted)


@pytest.mark.parametrize("bits", [4, 8])
def test_packing_is_compressed_tensors_own(bits: Bits) -> None:
    half = 1 << (bits - 1)
    codes = np.random.default_rng(0).integers(-half, half, (17, 96), dtype=np.int8)
    wanted = packed_helpers.pack_to_int32(torch.from_numpy(codes), bits)
    assert np.array_equal(pack(codes, bits), wanted.numpy())
    theirs = packed_helpers.unpack_from_int32(wanted, bits, torch.Size(codes.shape))
    assert np.array_equal(unpack(wanted.numpy(), bits), theirs.numpy())


def test_the_reader_reads_as_safetensors_does(tmp_path: Path) -> None:
    make_base(tmp_path / "base", "qwen3", tied=False)
    wanted = safetensors_torch.load_file(tmp_path / "base" / "model.safetensors")
    with TensorReader(tmp_path / "base") as reader:
        assert set(reader.names) == set(wanted)
        for name, values in wanted.items():
            assert np.array_equal(reader.array(name), values.float().numpy())
