"""A JVM that looks at every call of a library's functions, and says so of a wrong one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence


def run_java(arguments: Sequence[str], timeout_s: int) -> list[str]:
    """The lines that a program prints; it must end well, and nothing may be wrong."""
    command = ["java", "-Xcheck:jni", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_s)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert not re.search("WARNING|FATAL|Exception in thread", said), said
    return done.stdout.splitlines()
