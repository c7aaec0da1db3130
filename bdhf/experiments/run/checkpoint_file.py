"""The file of a checkpoint, from which a killed run resumes.

    {"format": 2, "run": "<run id>", "torch": "2.13.0", ..., "state": the state of the run}

A file that is torn, or of another run, machine, version or code of own parts, is ignored, because
a run resumed from it would have other bits.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.user_code import own_code
from bdhf.experiments.run.provenance import run_environment

#: Incremented when the saved state changes its form.
FORMAT = 2

#: Keys of env.json that hold for the whole run.
_WHERE = ("bdhf", "python", "numpy", "torch", "cuda", "cpu", "gpu")


def header(spec: RunSpec, device: str) -> Mapping[str, Any]:
    """What must agree for a run to resume with the same bits, and its seconds on one machine."""
    machine = run_environment(device, spec.threads)
    where = {key: str(machine[key]) for key in _WHERE}
    where |= own_code(spec)
    return {"format": FORMAT, "run": spec.run_id, "device": torch.device(device).type, **where}


def read(path: Path) -> dict[str, Any]:
    """Read a file; raises what `parsed` raises, and OSError."""
    return parsed(path.read_bytes())


def parsed(content: bytes) -> dict[str, Any]:
    """The content of a file, on the CPU. Raises any error if the file is torn."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:  # torch does not look at the checksums
        if (torn := archive.testzip()) is not None:
            raise zipfile.BadZipFile(torn)
    whole: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return whole


def serialised(content: Mapping[str, Any]) -> bytes:
    """The file's bytes, in memory first: on a full disk torch raises no OSError."""
    whole = io.BytesIO()
    torch.save(content, whole)
    return whole.getvalue()
