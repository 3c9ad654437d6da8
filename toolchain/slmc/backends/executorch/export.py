"""A quantized checkpoint into a .pte file, as a program of its own.

torch and ExecuTorch are slow to load, write to standard error, and can die of a segmentation fault: `compile` starts
this and shows what it said where it failed. Prints a JSON line for each step.
"""

from __future__ import annotations

import itertools
import json
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

from slmc.backends.child import tell
from slmc.backends.executorch import delegates
from slmc.backends.executorch.profiles import PROFILES
from slmc.backends.executorch.program import trace, write
from slmc.backends.executorch.pte import PteFile
from slmc.backends.executorch.xnnpack import program
from slmc.names import DelegateName
from slmc.quant.reader import QuantizedReader


def export(reader: QuantizedReader, context: int, facts: Mapping[str, Any], out: Path, delegate: DelegateName) -> None:
    """Write the program; through a partitioner it has the one method `forward`."""
    if delegate == "xnnpack":
        program.export(reader, context, facts, out)
        return
    module, weights = delegates.find(delegate), reader.architecture.weights
    decoder = delegates.decoder(module, reader, context)
    tell(weights=weights // 2)
    edge = to_edge_transform_and_lower(
        trace(decoder, 1 if PROFILES[delegate].one_token else context),
        partitioner=[module.partitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False, _skip_dim_order=True),
        constant_methods=dict(facts),
    )
    tell(weights=weights - weights // 2)
    write(edge, out)


def main() -> None:
    uuid.uuid4 = _counted  # what delegates name things by: the same inputs are to give the same bytes
    folder, context, facts, out, delegate = sys.argv[1:]
    with QuantizedReader(Path(folder)) as reader:
        export(reader, int(context), json.loads(facts), Path(out), cast(DelegateName, delegate))
    file = PteFile(Path(out))
    outside = dict(sorted(file.operators("forward").items()))
    tell(outside=outside, graphs=len(file.payloads("forward")))


_count = itertools.count(1)


def _counted() -> uuid.UUID:
    return uuid.UUID(int=next(_count), version=4)


if __name__ == "__main__":
    main()
