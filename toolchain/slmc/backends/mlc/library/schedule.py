"""Which loops of a kernel become what, by TVM's own rules (dlight) where they hold, and two of our own."""

from __future__ import annotations

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import dlight

_ROWS = 16
"""Of a matrix, that a CPU decodes at once."""


def schedule(module: tvm.IRModule, target: tvm.target.Target) -> tvm.IRModule:
    """Every kernel that is not scheduled yet."""
    if target.kind.name == "llvm":
        return dlight.ApplyDefaultSchedule(_CpuProduct())(module)
    gpu = dlight.gpu
    rules = (_TiledProduct(), gpu.GEMV(), gpu.Reduction(), gpu.GeneralReduction(), gpu.Fallback())
    return dlight.ApplyDefaultSchedule(*rules)(module)


class _TiledProduct(dlight.gpu.Matmul):  # type: ignore[misc]
    """Of many tokens, by tiles in shared memory.

    For Metal dlight tries the matrix units first, which takes half a minute a model and adds up in half precision,
    where it does not crash. Plain tiles need neither.
    """

    _PLAIN = tvm.target.Target({"kind": "webgpu"})
    """Any for which dlight has nothing of its own."""

    def apply(self, function: tirx.PrimFunc, target: tvm.target.Target, tunable: bool) -> s_tir.Schedule | None:
        return super().apply(function, self._PLAIN if target.kind.name == "metal" else target, tunable)

    def get_configs(self, target: tvm.target.Target) -> dlight.gpu.Matmul.Config:
        if target.kind.name != self._PLAIN.kind.name:
            return super().get_configs(target)
        # 32 tokens by 64 rows, 128 threads with 4 by 4 sums each.
        return self.Config(block_size_x=8, block_size_y=16, micro_size_x=4, micro_size_y=4, micro_size_k=16)


class _CpuProduct(dlight.base.ScheduleRule):  # type: ignore[misc]
    """A product by blocks of rows: each is decoded once, and then multiplied with every token."""

    def apply(self, function: tirx.PrimFunc, target: tvm.target.Target, _: bool) -> s_tir.Schedule | None:
        plan = s_tir.Schedule(function)
        blocks = {plan.get(block).name_hint: block for block in plan.get_child_blocks(plan.get_sblock("root"))}
        if "product" not in blocks:
            return None
        product = blocks["product"]
        batch, token, row, column = plan.get_loops(product)
        if int(plan.get(row).extent) % _ROWS:
            return None  # as it is: right, and slow
        outer, inner = plan.split(row, [None, _ROWS])
        plan.reorder(outer, batch, token, column, inner)
        plan.parallel(outer)
        plan.vectorize(inner)
        if "dequantize" in blocks:
            plan.transform_layout(blocks["dequantize"], ("write", 0), lambda n, k: (n // _ROWS, k, n % _ROWS))
            plan.compute_at(blocks["dequantize"], outer)
        plan.decompose_reduction(product, column)
        return plan
