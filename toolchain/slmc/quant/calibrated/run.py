"""A merged checkpoint to the quantized one by `gptq` or `tuned`, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from transformers import AutoConfig

from slmc.architecture import EMBEDDING
from slmc.artifacts import MergedCheckpoint
from slmc.checkpoint.reader import row_blocks
from slmc.console import Advance
from slmc.names import MethodName, Scheme
from slmc.quant.calibrated.batches import make_batches
from slmc.quant.calibrated.ends import ends_file, round_ends
from slmc.quant.calibrated.job import Job
from slmc.quant.calibrated.layer import LayerModel
from slmc.quant.calibrated.results import load_matrices
from slmc.quant.calibrated.stream import layer_file, quantize_layers
from slmc.quant.calibrated.survey import survey
from slmc.quant.calibration import Calibration
from slmc.quant.imported import merged_reader
from slmc.quant.writer import QuantizedWriter


def round_by_layers(
    merged: MergedCheckpoint,
    schemes: Mapping[str, Scheme],
    method: Literal["gptq", "tuned"],
    calibration: Calibration,
    seed: int,
    scratch: Path,
    advance: Advance,
) -> None:
    """Leave codes of the tensors that `schemes` names in the folder `scratch`, going on from what is there.

    `advance` counts weights. Raises QuantizationError for activations that are not finite numbers.
    """
    config = AutoConfig.from_pretrained(merged.folder, local_files_only=True)
    with merged_reader(merged) as reader:
        job = Job(
            reader=reader,
            architecture=merged.architecture,
            model=LayerModel(reader, merged.architecture, config),
            batches=make_batches(calibration),
            schemes=schemes,
            learning=method == "tuned",
            seed=seed,
            scratch=scratch,
            advance=advance,
        )
        found = survey(job)
        ends = round_ends(job, found)
        quantize_layers(job, ends.get(EMBEDDING), found)


def write_rounded(writer: QuantizedWriter, method: MethodName, layers: int, scratch: Path) -> None:
    """Every matrix of a finished scratch folder."""
    for path in (ends_file(scratch), *(layer_file(scratch, layer) for layer in range(layers))):
        for name, matrix in load_matrices(path).items():
            codes, scales = matrix.codes.numpy(), matrix.scales.numpy()
            for start, stop in row_blocks(codes.shape):
                writer.write(name, method, codes[start:stop], scales[start:stop])
