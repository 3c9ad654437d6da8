"""What changes of a layer's matrices would do to the answers, all of them in one run backwards.

A matrix W is replaced by W + a ΔW, with an `a` of 0 for each sequence. The derivative of v·logits with respect
to it is what ΔW adds to them, to first order; half its square is the divergence that ΔW causes in the sequence,
in nats and in the mean over v (see `survey`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch


class Probe:
    """Hooks on a layer's linear modules."""

    def __init__(self, changes: Mapping[str, torch.Tensor]) -> None:
        self._changes = changes
        """ΔW by module, float32 [rows, columns]."""
        self.amounts: dict[str, torch.Tensor] = {}
        """The `a` of each sequence, by module, of the last run."""
        self.outputs: dict[str, torch.Tensor] = {}
        """What each linear module gave in the last run."""

    @contextmanager
    def on(self, layer: torch.nn.Module) -> Iterator[None]:
        handles = [
            module.register_forward_hook(self._hook(name))
            for name, module in layer.named_modules()
            if isinstance(module, torch.nn.Linear)
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str):  # type: ignore[no-untyped-def]  # torch's own type for a hook is private
        change = self._changes.get(name)

        def ran(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
            if change is not None:
                self.amounts[name] = torch.zeros(len(output), requires_grad=True)
                output = output + self.amounts[name][:, None, None] * (inputs[0] @ change.T)
            self.outputs[name] = output
            return output

        return ran
