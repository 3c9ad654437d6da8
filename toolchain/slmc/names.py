"""The closed sets of names that recipes, targets and manifests share."""

from __future__ import annotations

from typing import Literal

TargetName = Literal["host", "ios", "android", "metal"]
BackendName = Literal["executorch", "coreml", "tvm", "mlc"]
SchemeName = Literal["int4-g32", "int4-g64", "int4-g128"]
