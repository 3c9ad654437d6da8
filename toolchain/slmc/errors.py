"""Every failure slmc can name, its exit code, and how it is told.

    SlmcError                     1   anything named, not otherwise listed
    ├── InputError                2   an argument or option
    ├── RecipeError               10  recipe.yaml, its data files, target.toml
    ├── CheckpointError           11  config.json, weights, tokenizer of a base
    ├── AdapterError              12  a LoRA adapter that can't be merged exactly
    ├── QuantizationError         13  a tensor that the scheme can't hold
    ├── CompileError              14  a backend that failed, or can't build this
    ├── BundleError               15  a bundle that is damaged or not what it says
    ├── RunnerError               16  a runner that died, hung or answered nonsense
    ├── StoreError                17  the store: damage, no space, no permission
    ├── MissingToolError          18  an optional package or program is not installed
    ├── HistoryError              19  the nights' database: damage, another's, another night of that name
    ├── DeviceError               22  a device that can't be reached, or is not fit to be measured
    └── GateError                     raised after the report is written
        ├── GateFailed            20  the recipe's promise is broken
        └── GateUnclear           21  the sample can't tell

An unnamed exception is a bug in slmc and keeps its traceback (exit code 70, from sysexits.h).
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from typing import ClassVar


class SlmcError(Exception):
    """A failure told to a person: what happened, where, what was expected, what to do next."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        todo: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = None if where is None else str(where)
        self.expected = None if expected is None else str(expected)
        self.todo = todo

    def __reduce__(self) -> tuple[object, ...]:
        """Whatever a kind's own constructor takes: an error crosses to another process as it is."""
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]

    def __str__(self) -> str:
        named = (("where", self.where), ("expected", self.expected), ("next", self.todo))
        return "\n".join([self.what, *(f"  {name}: {text}" for name, text in named if text)])


class InputError(SlmcError):
    exit_code = 2


class RecipeError(SlmcError):
    exit_code = 10


class CheckpointError(SlmcError):
    exit_code = 11


class AdapterError(SlmcError):
    exit_code = 12


class QuantizationError(SlmcError):
    exit_code = 13


class CompileError(SlmcError):
    exit_code = 14


class BundleError(SlmcError):
    exit_code = 15


class RunnerError(SlmcError):
    exit_code = 16


class StoreError(SlmcError):
    exit_code = 17


class MissingToolError(SlmcError):
    exit_code = 18


class HistoryError(SlmcError):
    exit_code = 19


class DeviceError(SlmcError):
    exit_code = 22


class GateError(SlmcError):
    pass


class GateFailed(GateError):
    exit_code = 20


class GateUnclear(GateError):
    exit_code = 21


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """A hint naming the closest known word, else the known words; None where there are none."""
    choices = sorted(known)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"known: {', '.join(choices)}" if choices else None
