"""Typed access to a JSON object such as `config.json`; every error names the file and the key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slmc.errors import CheckpointError


@dataclass(frozen=True)
class Keys:
    """A key with null for its value is a missing one."""

    values: Mapping[str, object]
    path: Path
    prefix: str = ""
    """Of the key that the object itself has in the file."""

    def integer(self, key: str, default: int | None = None) -> int:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
            raise self.bad(key, "a positive integer")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self.bad(key, "a positive number")
        return float(value)

    def text(self, key: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str):
            raise self.bad(key, "a string")
        return value

    def list(self, key: str, length: int, what: str) -> Sequence[object]:
        value = self.values.get(key)
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != length:
            raise self.bad(key, f"a list of {length}, one for each {what}")
        return value

    def numbers(self, key: str, length: int, what: str) -> tuple[float, ...]:
        values = self.list(key, length, what)
        found = tuple(float(value) for value in values if isinstance(value, int | float) and value > 0)
        if len(found) != length:
            raise self.bad(key, "positive numbers")
        return found

    def section(self, key: str) -> Keys | None:
        """The object that is a key's value; None where there is none."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.bad(key, "an object")
        return Keys(value, self.path, f"{self.prefix}{key}.")

    def where(self, key: str) -> str:
        return f"{self.path}: {self.prefix}{key}"

    def bad(self, key: str, expected: str) -> CheckpointError:
        value = self.values.get(key)
        return CheckpointError(
            f"{self.prefix}{key} is {'missing' if value is None else repr(value)}",
            where=self.where(key),
            expected=expected,
        )
