"""Reading a .pte file: ExecuTorch's program and the segments after it (executorch/schema/program.fbs)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
from executorch.exir import schema
from executorch.exir._serialize import _program as serialization
from executorch.exir._serialize._cord import Cord
from executorch.exir._serialize._flatbuffer_program import _flatbuffer_to_program, _program_to_flatbuffer
from executorch.exir._serialize.padding import aligned_size, pad_to
from executorch.extension.flat_tensor.serialize.serialize import FlatTensorSerializer

_SEGMENT_ALIGNMENT = 128
_MAGIC = r"ET[0-9a-zA-Z][0-9a-zA-Z]"


class PteFile:
    """A program with segments, mapped."""

    def __init__(self, path: Path) -> None:
        self._bytes = np.memmap(path, np.uint8, mode="r")
        header = serialization._get_extended_header(self._bytes[:64].tobytes())
        assert header is not None, f"{path} has no segments"
        self._base = header.segment_base_offset
        self.program: schema.Program = _flatbuffer_to_program(self._bytes[: header.program_size].tobytes())

    @property
    def segments(self) -> memoryview:
        """All of them, from the first one's start."""
        return self._bytes.data[self._base :]

    def segment(self, index: int) -> bytes:
        found = self.program.segments[index]
        return bytes(self.segments[found.offset : found.offset + found.size])

    def operators(self, method: str) -> Counter[str]:
        """How often a method calls each operator outside its delegates."""
        plan = self._plan(method)
        calls = (instruction.instr_args for chain in plan.chains for instruction in chain.instructions)
        return Counter(plan.operators[call.op_index].name for call in calls if isinstance(call, schema.KernelCall))

    def payloads(self, method: str) -> list[tuple[str, bytes]]:
        """Of each delegate of a method, in order: its name and what it gets."""
        return [(one.id, self.segment(one.processed.index)) for one in self._plan(method).delegates]

    def _plan(self, method: str) -> schema.ExecutionPlan:
        return next(plan for plan in self.program.execution_plan if plan.name == method)

    def named(self) -> dict[str, bytes]:
        """Constants of the delegates, by key."""
        return {entry.key: self.segment(entry.segment_index) for entry in self.program.named_data or []}

    def constant(self, size: int, content: bytes) -> schema.DataSegment | None:
        """Where the bytes of a constant tensor lie, as a segment of their own; None where it is not there."""
        constants = self.program.constant_segment
        start = self.program.segments[constants.segment_index].offset
        for offset in constants.offsets:
            if bytes(self.segments[start + offset : start + offset + size]) == content:
                return schema.DataSegment(offset=start + offset, size=size)
        return None


def read_data(path: Path) -> dict[str, bytes]:
    """Of a .ptd file: its tensors and constants by key."""
    payload = FlatTensorSerializer().deserialize(Cord(path.read_bytes()))
    return {key: bytes(payload.buffers[entry.buffer_index]) for key, entry in payload.named_data.items()}


def share_constants(path: Path, constants: dict[str, bytes], out: Path) -> None:
    """Write a program anew in which delegates find these constants, by key, where its own tensors lie.

    The file names places in itself, and nothing says that two of them may not be one: so a tied embedding is stored
    once. Raises ValueError where no tensor has these bytes.
    """
    file = PteFile(path)
    for key, content in constants.items():
        found = file.constant(len(content), content)
        if found is None:
            raise ValueError(f"no constant tensor has the bytes of {key}")
        file.program.segments.append(found)
        entry = schema.NamedData(key=key, segment_index=len(file.program.segments) - 1)
        file.program.named_data = [*(file.program.named_data or []), entry]
    _write(file, out)


def _write(file: PteFile, out: Path) -> None:
    """As ExecuTorch's `serialize_pte_binary` ends: header, program, and the segments as they are."""
    packed = _program_to_flatbuffer(file.program)
    header_size = aligned_size(serialization._ExtendedHeader.EXPECTED_LENGTH, packed.max_alignment)
    program_size = header_size + len(packed.data)
    base, segments = aligned_size(program_size, _SEGMENT_ALIGNMENT), file.segments
    header = serialization._ExtendedHeader(program_size, base, len(segments)).to_bytes()
    program = serialization._insert_flatbuffer_header(packed.data, _MAGIC, pad_to(header, header_size))
    with out.open("wb") as stream:
        stream.write(pad_to(program, base))
        stream.write(segments)
