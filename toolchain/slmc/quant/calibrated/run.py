"""A merged checkpoint to the quantized one by a method that looks at activations, layer by layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from transformers import AutoConfig

from slmc.architecture import EMBEDDING, Architecture
from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.reader import row_blocks
from slmc.console import progress
from slmc.names import Bits, Scheme
from slmc.quant.budget import Matrix, widened
from slmc.quant.calibrated.batches import make_batches
from slmc.quant.calibrated.ends import ends_file, round_ends
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.layer import NORMS, STAGES, LayerModel, tensor_name
from slmc.quant.calibrated.results import Results
from slmc.quant.calibrated.stream import layer_file, quantize_layers
from slmc.quant.calibrated.survey import Survey, survey
from slmc.quant.calibration import Calibration, Order
from slmc.quant.decisions import Decision, decide
from slmc.quant.imported import merged_reader
from slmc.quant.quantizer import round_tensor
from slmc.quant.writer import QuantizedWriter, quantized_checkpoint


def quantize_calibrated(
    merged: MergedCheckpoint,
    scheme: Scheme,
    keep: tuple[str, ...],
    bits: Mapping[str, Bits],
    order: Order,
    calibration: Calibration,
    scratch: Path,
    out: Path,
) -> None:
    """Write the quantized checkpoint into the empty folder `out`, going on from what is in the folder `scratch`.

    As `slmc.quant.quantizer.quantize`. Raises QuantizationError for activations that are not finite numbers too.
    """
    decisions = decide(merged.architecture, scheme, keep, bits)
    with _threads(order.threads), _job(merged, decisions, order, calibration, scratch) as job:
        if order.budget is not None:
            decisions = _spend(decisions, order, survey(job, gains=True))
        job = replace(job, schemes=_schemes(decisions))
        if order.method != "rtn":
            found = survey(job, gains=order.budget is not None)
            quantize_layers(job, round_ends(job, found).matrices.get(EMBEDDING), found)
    files = [] if order.method == "rtn" else _files(scratch, merged.architecture)
    folds = {name: norm for path in files for name, norm in _folds(Results.load(path))}
    total = sum(decision.spec.size for decision in decisions)
    with (
        progress("quantize", total) as advance,
        quantized_checkpoint(merged, scheme, decisions, out, advance, folds) as writer,
    ):
        if order.method == "rtn":
            for decision in decisions:
                if decision.scheme is not None:
                    round_tensor(writer, decision.spec.name, decision.scheme)
        for path in files:
            _write(writer, order, Results.load(path))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _job(
    merged: MergedCheckpoint, decisions: Sequence[Decision], order: Order, calibration: Calibration, scratch: Path
) -> Iterator[Job]:
    config = AutoConfig.from_pretrained(merged.folder, local_files_only=True)
    with merged_reader(merged) as reader:
        yield Job(
            reader=reader,
            architecture=merged.architecture,
            model=LayerModel(reader, merged.architecture, config),
            batches=make_batches(calibration),
            schemes=_schemes(decisions),
            tuned=order.method == "tuned",
            prompt_weight=calibration.prompt_weight,
            seed=order.seed,
            scratch=scratch,
        )


def _schemes(decisions: Sequence[Decision]) -> dict[str, Scheme]:
    return {one.spec.name: one.scheme for one in decisions if one.scheme is not None}


def _spend(decisions: Sequence[Decision], order: Order, found: Survey) -> list[Decision]:
    """Wider codes where they help most, as far as the budget allows."""
    assert order.budget is not None
    schemes, sizes = _schemes(decisions), {one.spec.name: one.spec.size for one in decisions}
    matrices = [
        _matrix(tuple(name for name in names if name in schemes), schemes, sizes, found) for names in order.matrices
    ]
    wide = {name for matrix in widened([one for one in matrices if one.names], order.budget) for name in matrix.names}
    gains = {name: matrix.gain for matrix in matrices for name in matrix.names}
    return [
        replace(
            one,
            gain=gains.get(one.spec.name),
            scheme=one.scheme.wide if one.scheme is not None and one.spec.name in wide else one.scheme,
        )
        for one in decisions
    ]


def _matrix(names: tuple[str, ...], schemes: Mapping[str, Scheme], sizes: Mapping[str, int], found: Survey) -> Matrix:
    weights = sum(sizes[name] for name in names)
    return Matrix(
        names=names,
        weights=weights,
        bits=sum(sizes[name] * schemes[name].bits_per_weight for name in names) / max(weights, 1),
        wide=sum(sizes[name] * schemes[name].wide.bits_per_weight for name in names) / max(weights, 1),
        gain=found.gain(names) if names else 0.0,
    )


def _files(scratch: Path, architecture: Architecture) -> list[Path]:
    return [ends_file(scratch), *(layer_file(scratch, layer) for layer in range(architecture.layers))]


def _folds(results: Results) -> Iterator[tuple[str, str]]:
    """The matrices behind each folded norm."""
    for norm in results.norms:
        layer = int(norm.split(".")[2])
        stage = next(stage for stage, module in NORMS.items() if norm == tensor_name(layer, module))
        for module in STAGES[stage]:
            yield tensor_name(layer, module), norm


def _write(writer: QuantizedWriter, order: Order, results: Results) -> None:
    assert order.method != "rtn"
    for name, norm in results.norms.items():
        writer.replace(name, norm.numpy())
    for name, matrix in results.matrices.items():
        codes, scales = matrix.codes.numpy(), matrix.scales.numpy()
        for start, stop in row_blocks(codes.shape):
            writer.write(name, order.method, codes[start:stop], scales[start:stop])
