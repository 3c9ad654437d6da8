"""What a result says of the machine that it was made on."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import psutil


def device_name() -> str:
    """The processor's own name where the system tells it, such as "AMD EPYC 7B13"."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Physical cores that this process may use; hyperthreads of one core only get in each other's way."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def system_name() -> str:
    return f"{platform.system()} {platform.release()} {platform.machine()}"


def peak_memory_bytes() -> int:
    """The most physical memory that this process has held."""
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    if sys.platform == "linux":
        # getrusage counts in what its parent held when it was started.
        [peak] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
        return int(peak.split()[1]) * 1024
    import resource  # not there on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
