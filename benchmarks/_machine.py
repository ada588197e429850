"""Facts about the machine and the code: memory, caches, hardware, command and commit."""

import ctypes
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).resolve().parent
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
UNKNOWN_CACHE = 128 * 2**20


def hand_back_memory() -> None:
    """Return freed memory to the system if the C library can, so that it does not hide a peak."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def resident(field: str) -> int:
    """Resident bytes of this process, current (VmRSS) or peak (VmHWM)."""
    return 1024 * int(re.findall(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[0])


def free_memory(device: torch.device) -> int | None:
    """Free bytes, or None if the system does not report them."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    meminfo = Path("/proc/meminfo")
    found = re.findall(r"MemAvailable:\s+(\d+)", meminfo.read_text()) if meminfo.is_file() else []
    return 1024 * int(found[0]) if found else None


def command(script: Path) -> str:
    """The command line, with absolute paths reduced to their last part."""
    words = [re.sub(r"^(--[\w-]+=)?/.*/([^/]+)/?$", r"\1\2", word) for word in sys.argv[1:]]
    return shlex.join(["python", f"benchmarks/{script.name}", *words])


def cpu_name() -> str:
    """The model name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*:\s*(.+)", cpuinfo.read_text()) if cpuinfo.is_file() else []
    return names[0] if names else platform.processor() or platform.machine()


def commit() -> str | None:
    """The commit of the code, followed by + if files differ from it; None outside a repository."""
    if shutil.which("git") is None:
        return None
    describe = ["git", "-C", str(HERE), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    done = subprocess.run(describe, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def cache_bytes(device: torch.device) -> int:
    """Size of the largest cache, or a large default if the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).L2_cache_size
    sizes = [path.read_text().strip() for path in CACHES.glob("index*/size")]
    return max((int(size[:-1]) * 1024 for size in sizes if size.endswith("K")), default=UNKNOWN_CACHE)


def hardware(device: torch.device) -> dict[str, Any]:
    """The hardware of a result."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if device.type == "cuda" else None,
        "cache_bytes": cache_bytes(device),
    }
