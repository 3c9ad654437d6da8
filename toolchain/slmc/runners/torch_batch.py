"""Many prompts through a torch model at once: padded on the right, continued from their keys and values.

What was read lies on the right of its padding when it is continued: a sliding window reaches back so many slots,
whatever is in them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from slmc.runners.choose import Logits
from slmc.runners.contract import Ids
from slmc.runners.torch_model import TorchModel

if TYPE_CHECKING:
    import torch

HEAD_ROWS = 128
"""Positions that go through the output head at once, so that logits of a large vocabulary stay small."""


@dataclass(frozen=True)
class Past:
    """What a batch has read. Slots that hold padding are masked and before all others; positions do not count them."""

    layers: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    """Keys and values, each [batch, key-value heads, slots, head size]."""
    mask: torch.Tensor
    """int64 [batch, slots], one where a slot holds a token."""
    lengths: torch.Tensor
    """int64 [batch], tokens read."""

    def select(self, wanted: Sequence[int]) -> Past:
        """Some of the rows, in the order given."""
        import torch

        rows = torch.tensor(wanted, device=self.lengths.device)
        layers = tuple((keys[rows], values[rows]) for keys, values in self.layers)
        return Past(layers, self.mask[rows], self.lengths[rows])


def read(loaded: TorchModel, rows: Sequence[Ids], past: Past | None = None) -> tuple[torch.Tensor, Past]:
    """Read each row after its past: hidden states [batch, longest row, hidden], and the new past.

    Hidden states beyond a row's own length are padding's.
    """
    import torch
    from transformers import DynamicCache

    counts = torch.tensor([len(row) for row in rows], device=loaded.device)
    steps = torch.arange(int(counts.max()), device=loaded.device)
    tokens = torch.zeros(len(rows), len(steps), dtype=torch.long)
    for index, row in enumerate(rows):
        tokens[index, : len(row)] = torch.tensor(row)
    mask = (steps < counts[:, None]).long()
    before = torch.zeros_like(counts) if past is None else past.lengths
    mask = mask if past is None else torch.cat((past.mask, mask), dim=1)
    output = loaded.model.model(
        input_ids=tokens.to(loaded.device),
        attention_mask=mask,
        position_ids=before[:, None] + steps,
        past_key_values=DynamicCache(() if past is None else past.layers),
        use_cache=True,
    )
    cache, padding = output.past_key_values, len(steps) - counts
    if padding.any():
        slots = torch.arange(mask.shape[1], device=loaded.device)
        order = (slots - padding[:, None]) % len(slots)
        mask = mask.gather(1, order)
        for layer in cache.layers:  # in place, so that one layer is there twice and not all of them
            layer.keys, layer.values = (_ordered(found, order) for found in (layer.keys, layer.values))
    layers = tuple((layer.keys, layer.values) for layer in cache.layers)
    return output.last_hidden_state, Past(layers, mask, before + counts)


def _ordered(found: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Keys or values [batch, heads, slots, size] with each row's slots in the order [batch, slots]."""
    return found.gather(2, order[:, None, :, None].expand_as(found))


def last_logits(loaded: TorchModel, hidden: torch.Tensor, rows: Sequence[Ids]) -> Iterator[Logits]:
    """Logits after each row's last token."""
    return logits_at(loaded, hidden, [(index, len(row) - 1) for index, row in enumerate(rows)])


def logits_at(loaded: TorchModel, hidden: torch.Tensor, places: Sequence[tuple[int, int]]) -> Iterator[Logits]:
    """Logits at (row, column) places of the hidden states, a few rows of the head's output at a time."""
    import torch

    rows, columns = torch.tensor(places, device=loaded.device).T
    for chunk in torch.split(hidden[rows, columns], HEAD_ROWS):
        yield from loaded.model.lm_head(chunk).float().cpu().numpy()
