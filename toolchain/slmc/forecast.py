"""Bytes of a build, foretold from architecture and recipe alone, and what a limit leaves for wider codes."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass

from slmc.architecture import MATRICES, Architecture, TensorSpec
from slmc.errors import RecipeError
from slmc.names import Activations, BackendName, Bits, Scheme
from slmc.recipe import Quantization

_MEGABYTE = 10**6


@dataclass(frozen=True)
class Forecast:
    """Bytes."""

    weights: int
    kv_cache: int
    activations: int
    copies: int
    """Of weights that the runtime holds twice."""

    @property
    def memory(self) -> int:
        return self.weights + self.kv_cache + self.activations + self.copies


def foretell(
    architecture: Architecture,
    scheme: Scheme,
    bits: Mapping[str, Bits],
    quantization: Quantization,
    context: int,
    backend: BackendName,
    activations: Activations = "int8",
) -> Forecast:
    """Weights, KV cache (fp16; fp32 in ExecuTorch) and a full prefill's activations (fp32, one layer alive).

    XNNPACK packs the matrices of its products anew, and a tied embedding stays beside the head. MLC has a scale for
    each 32 weights, and scales and cache in the type of its activations.

    `bits` names tensors whose codes have others than the scheme's. Raises RecipeError for a limit
    that these alone exceed.
    """
    a, stored = architecture, _stored(architecture, scheme, bits, quantization)
    mean = _limit(stored, quantization) or stored.least
    executorch, wide = backend == "executorch", backend == "mlc" and activations == "float32"
    if backend == "mlc":
        mean = 4 + (32 if wide else 16) / 32
    kv_cache = 2 * a.layers * a.kv_heads * a.head_dim * context * (4 if executorch or wide else 2)
    qkv = (a.heads + 2 * a.kv_heads) * a.head_dim
    widest = max(qkv + a.heads * a.head_dim, 2 * a.intermediate_size) + 2 * a.hidden_size
    copies = round(a.vocab_size * a.hidden_size * scheme.bits_per_weight / 8) if executorch and a.tied else 0
    return Forecast(stored.size(mean), kv_cache, 4 * (context * widest + a.vocab_size), copies)


def bit_budget(
    architecture: Architecture, scheme: Scheme, bits: Mapping[str, Bits], quantization: Quantization
) -> float | None:
    """Mean bits, scales included, that the quantized tensors may take a weight; None where nothing limits them.

    Raises RecipeError for a limit that scheme and `bits` alone exceed.
    """
    return _limit(_stored(architecture, scheme, bits, quantization), quantization)


@dataclass(frozen=True)
class _Stored:
    kept: int
    """Bytes of what is not quantized."""
    weights: int
    """How many are quantized."""
    least: float
    """Their mean bits, scales included, with each tensor as the recipe has it."""
    most: float
    """The same where all of them have 8 bits."""

    def size(self, bits: float) -> int:
        """Bytes in all, where the quantized ones take so many bits a weight."""
        return self.kept + round(bits * self.weights / 8)


def _stored(
    architecture: Architecture, scheme: Scheme, bits: Mapping[str, Bits], quantization: Quantization
) -> _Stored:
    kept, weights, least = 0, 0, 0.0
    for tensor in architecture.tensors():
        size = _kept_bytes(tensor, quantization.keep, architecture.dtype)
        if size is not None:
            kept += size
        else:
            weights += tensor.size
            least += tensor.size * scheme.with_bits(bits.get(tensor.name, scheme.bits)).bits_per_weight
    return _Stored(kept, weights, least / max(weights, 1), scheme.wide.bits_per_weight)


def _kept_bytes(tensor: TensorSpec, keep: tuple[str, ...], dtype: str) -> int | None:
    """None for a tensor that is quantized."""
    if tensor.role not in MATRICES:
        return 4 * tensor.size
    if any(fnmatch.fnmatchcase(tensor.name, pattern) for pattern in keep):
        return (4 if dtype == "float32" else 2) * tensor.size
    return None


def _limit(stored: _Stored, quantization: Quantization) -> float | None:
    if quantization.max_size_mb is not None:
        if quantization.max_size_mb * _MEGABYTE < stored.size(stored.least):
            raise RecipeError(
                f"max_size_mb is {quantization.max_size_mb:g}",
                where="quantization.max_size_mb",
                expected=f"at least {stored.size(stored.least) / _MEGABYTE:.1f}, which the recipe's scheme takes",
            )
        bits = (quantization.max_size_mb * _MEGABYTE - stored.kept) * 8 / max(stored.weights, 1)
    elif quantization.budget_bits is not None:
        bits = quantization.budget_bits
        if bits < stored.least:
            raise RecipeError(
                f"budget is {quantization.budget}",
                where="quantization.budget",
                expected=f"at least {stored.least:.2f} bits, which the recipe's scheme takes, scales included",
            )
    else:
        return None
    return min(bits, stored.most)
