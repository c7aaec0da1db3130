"""Where a run was made: machine, versions, commit. One flat record, strings and numbers."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import subprocess
from functools import cache
from typing import Any

import numpy as np
import torch

import bdhf
from bdhf.records import InputError
from bdhf.records.provenance.git import diff, git

#: Seconds to wait for git: a working tree may be large, or on a slow disk.
_PATIENCE = 20.0

#: Stands for the changes if git does not report them.
UNKNOWN_COMMIT = "unknown"


def run_environment(device: str, threads: int) -> dict[str, Any]:
    """What a reader needs to compare or repeat a run."""
    return {
        **_machine(),
        **_repository(),
        "device": device,
        "threads": threads,
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else "",
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def resolve_devices(wanted: str) -> tuple[str, ...]:
    """Every GPU for "cuda", and for "auto" if there is one; else the CPU.

    Raises InputError for "cuda" without a GPU.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "cpu" or (wanted == "auto" and not count):
        return ("cpu",)
    if not count:
        raise InputError(["device: cuda: torch sees no GPU here; use `cpu`, or `auto` for either"])
    return tuple(f"cuda:{index}" for index in range(count))


@cache
def _machine() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "platform": platform.platform(),
        "python": platform.python_version(),
        "bdhf": bdhf.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.version.cuda or "",
    }


def _cpu() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
    except OSError:
        models = []
    return models[0] if models else platform.processor() or platform.machine()


@cache
def _repository() -> dict[str, Any]:
    """The commit of the working directory, and a hash of the changes to its tracked files."""
    try:
        commit = git("rev-parse", "--verify", "HEAD", timeout=_PATIENCE).decode().strip()
    except (OSError, subprocess.SubprocessError):  # no repository, or no git
        return {"commit": "", "dirty": ""}
    try:
        difference = diff("HEAD", timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return {"commit": commit, "dirty": UNKNOWN_COMMIT}
    changed = hashlib.sha256(difference).hexdigest()[:12] if difference else ""
    return {"commit": commit, "dirty": changed}
