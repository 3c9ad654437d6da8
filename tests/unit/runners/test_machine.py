"""What a result says of its machine."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.skipif(sys.platform != "linux", reason="not run: of Linux")
def test_a_peak_of_memory_is_not_the_parents() -> None:
    ask = "from slmc.runners.machine import peak_memory_bytes as peak; print(peak())"
    parent = f"import subprocess, sys; held = b'x' * (1 << 29); subprocess.run([sys.executable, '-c', {ask!r}])"
    told = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True).stdout
    assert 1 << 20 < int(told) < 1 << 28
