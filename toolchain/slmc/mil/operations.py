"""What each operation type computes. Constants and what unpacks them are in `weights`, states in `states`."""

from __future__ import annotations

from slmc.mil.arithmetic import ARITHMETIC
from slmc.mil.movement import MOVEMENT
from slmc.mil.node import Kind
from slmc.mil.products import PRODUCTS

OPERATIONS: dict[str, Kind] = {**ARITHMETIC, **MOVEMENT, **PRODUCTS}
"""By MIL operation type, as of iOS 17 and 18 (opsets CoreML7 and CoreML8)."""
