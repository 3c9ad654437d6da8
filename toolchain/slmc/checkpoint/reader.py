"""Read a Hugging Face checkpoint: check all of it cheaply, then its tensors by blocks of rows.

Tensors are read with ranged reads into memory of our own. A mapped file would count into the
resident set page by page, and a build that must fit in a laptop can't afford its whole model there.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, KeysView, Mapping
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from slmc import digest
from slmc.architecture import EMBEDDING, HEAD, Architecture, TensorSpec
from slmc.artifacts import Checkpoint
from slmc.checkpoint import dtypes, folders, packed
from slmc.checkpoint.dtypes import DType, Float32
from slmc.checkpoint.stored import StoredTensor, read_header, stored_tensors, weight_files
from slmc.config_json import read_architecture
from slmc.errors import CheckpointError
from slmc.imported import imported_schemes
from slmc.names import Bits, Scheme

_BLOCK_BYTES = 4 << 20
"""About how much of a tensor is in memory at once while it streams through."""

_HARMLESS = ("*.rotary_emb.inv_freq",)
"""Extra tensors of old checkpoints that follow from config.json."""


def open_checkpoint(folder: Path) -> Checkpoint:
    """Parse the config, check every tensor's name and shape against it, and digest the content.

    Raises CheckpointError naming the file, key or tensor. Values are checked where they are read.
    """
    architecture = read_architecture(folder)
    if not (folder / "tokenizer.json").is_file():
        raise CheckpointError(
            "no tokenizer.json in the checkpoint",
            where=folder,
            expected="the fast tokenizer's one file",
            todo="save the tokenizer again with transformers (tokenizer.save_pretrained)",
        )
    with TensorReader(folder) as reader:
        _check_tensors(reader, architecture, imported_schemes(folder, architecture))
    return Checkpoint(folder, architecture, content_digest(folder))


def content_digest(folder: Path) -> str:
    """Digest of the config, weights and tokenizer files, whatever else lies in the folder."""
    files = [folder / "config.json", *weight_files(folder), *folders.side_files(folder)]
    return digest.of_value({path.relative_to(folder).as_posix(): digest.of_file(path) for path in files})


def _check_tensors(reader: TensorReader, architecture: Architecture, imported: Mapping[str, Scheme]) -> None:
    wanted: set[str] = set()
    for spec in architecture.tensors():
        if spec.name in imported:
            scheme, scales = imported[spec.name], reader.dtype(packed.scale_name(spec.name))
            wanted |= check_packed(reader, spec, scheme.bits, scheme.group_size, scales)
        else:
            check_tensor(reader, spec)
            wanted.add(spec.name)
    for name in reader.names:
        if name in wanted or any(fnmatch.fnmatchcase(name, pattern) for pattern in _HARMLESS):
            continue
        if name == HEAD and architecture.tied:
            _check_tied_head(reader)
            continue
        raise CheckpointError(
            f"{name} is no tensor of a {architecture.family} decoder",
            where=reader.place,
            todo="a model with other parts can't be built; an adapter is merged by naming it in the recipe",
        )


def check_tensor(reader: TensorReader, spec: TensorSpec) -> None:
    """Raises CheckpointError where the tensor is missing, has another shape, or is not of a float type."""
    if spec.name not in reader.names:
        raise CheckpointError(
            f"{spec.name} is missing", where=reader.place, expected=f"a tensor of shape {list(spec.shape)}"
        )
    if reader.shape(spec.name) != spec.shape:
        raise CheckpointError(
            f"{spec.name} has shape {list(reader.shape(spec.name))}",
            where=reader.place,
            expected=f"{list(spec.shape)}, by config.json",
        )
    if reader.dtype(spec.name) not in dtypes.FLOATS:
        raise reader.unsupported(spec.name, "F32, F16 or BF16")


def check_packed(
    reader: TensorReader, spec: TensorSpec, bits: Bits, group_size: int, scales: DType = "F32"
) -> set[str]:
    """The names that a quantized tensor is stored under.

    Raises CheckpointError where one is missing or has another form.
    """
    formats = packed.formats(spec, bits, group_size, scales if scales in dtypes.FLOATS else "F32")
    for wanted in formats:
        shape, dtype = reader.shape(wanted.name), reader.dtype(wanted.name)
        if (shape, dtype) != (wanted.shape, wanted.dtype):
            raise CheckpointError(
                f"{wanted.name} is {dtype} {list(shape)}",
                where=reader.place,
                expected=f"{wanted.dtype} {list(wanted.shape)}",
            )
    if tuple(reader.stored_rows(packed.shape_name(spec.name), 0, 2)) != spec.shape:
        raise CheckpointError(f"{packed.shape_name(spec.name)} is not {list(spec.shape)}", where=reader.place)
    return {wanted.name for wanted in formats}


def _check_tied_head(reader: TensorReader) -> None:
    """Some savers store a tied head too. It must be the embedding, byte for byte."""
    same = reader.shape(HEAD) == reader.shape(EMBEDDING) and reader.dtype(HEAD) == reader.dtype(EMBEDDING)
    if same:
        blocks = row_blocks(reader.shape(HEAD))
        same = all(
            reader.stored_rows(HEAD, *block).tobytes() == reader.stored_rows(EMBEDDING, *block).tobytes()
            for block in blocks
        )
    if not same:
        raise CheckpointError(
            f"config.json ties the head to the embedding, but {HEAD} is another tensor",
            where=reader.place,
            todo="set tie_word_embeddings to false in config.json if the model was trained with its own head",
        )


def row_blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that cover a tensor, each of about 4 MiB as float32."""
    row_bytes = 4 * int(np.prod(shape[1:], dtype=np.int64))
    rows = max(_BLOCK_BYTES // max(row_bytes, 1), 1)
    for start in range(0, shape[0], rows):
        yield start, min(start + rows, shape[0])


class TensorReader:
    """The tensors of a folder's weights, or of one safetensors file, read by ranges of rows. A context manager."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self._stored = read_header(place) if place.is_file() else stored_tensors(place)
        self._files: dict[Path, FileIO] = {}
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.clear()
        self._open.close()

    @property
    def names(self) -> KeysView[str]:
        return self._stored.keys()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensor(name).shape

    def dtype(self, name: str) -> DType:
        """Raises CheckpointError for an element type that we do not read (F64, F8_E4M3, ...)."""
        found = dtypes.known(self._tensor(name).dtype)
        if found is None:
            raise self.unsupported(name, ", ".join(dtypes.NUMPY))
        return found

    def rows(self, name: str, start: int, stop: int) -> Float32:
        """Rows [start, stop) of a float tensor as float32, exactly. Raises CheckpointError for NaN or infinity."""
        if self.dtype(name) not in dtypes.FLOATS:
            raise self.unsupported(name, "F32, F16 or BF16")
        found = dtypes.to_float32(self._read(name, start, stop))
        self._check_finite(name, found)
        return found

    def array(self, name: str) -> Float32:
        """A whole float tensor as float32, exactly."""
        return self.rows(name, 0, self.shape(name)[0])

    def stored_rows(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        """Rows [start, stop) in the tensor's own element type. Raises CheckpointError for NaN or infinity."""
        found = self._read(name, start, stop)
        if self.dtype(name) in dtypes.FLOATS:
            self._check_finite(name, dtypes.to_float32(found))
        return found

    def _read(self, name: str, start: int, stop: int) -> npt.NDArray[np.generic]:
        tensor, dtype = self._tensor(name), dtypes.NUMPY[self.dtype(name)]
        if not 0 <= start <= stop <= tensor.shape[0]:
            raise IndexError(f"rows {start}:{stop} of {name}, which has {tensor.shape[0]}")
        row_bytes = dtype.itemsize * int(np.prod(tensor.shape[1:], dtype=np.int64))
        found = np.empty((stop - start, *tensor.shape[1:]), dtype)
        self._fill(found.reshape(-1).view(np.uint8), tensor, tensor.offset + start * row_bytes)
        return found

    def _check_finite(self, name: str, values: Float32) -> None:
        # NaN passes through min and max, so that two passes without a temporary see everything.
        if values.size and not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise CheckpointError(
                f"{name} holds NaN or infinity",
                where=self._tensor(name).file,
                expected="finite weights",
                todo="train or export it again: no result of this model means anything",
            )

    def unsupported(self, name: str, expected: str) -> CheckpointError:
        tensor = self._tensor(name)
        return CheckpointError(f"{name} is stored as {tensor.dtype}", where=tensor.file, expected=expected)

    def _fill(self, target: npt.NDArray[np.uint8], tensor: StoredTensor, offset: int) -> None:
        file = self._files.get(tensor.file)
        if file is None:
            # Unbuffered: we read large blocks into our own memory, a buffer would only copy them again.
            file = self._files[tensor.file] = self._open.enter_context(tensor.file.open("rb", buffering=0))
        file.seek(offset)
        view = target.data
        while view:  # one read gives at most 2 GiB on Linux
            count = file.readinto(view)
            if not count:
                raise CheckpointError("the file ended early: it changed while it was read", where=tensor.file)
            view = view[count:]

    def _tensor(self, name: str) -> StoredTensor:
        try:
            return self._stored[name]
        except KeyError:
            raise CheckpointError(f"{name} is missing", where=self.place) from None
