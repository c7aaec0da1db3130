"""Full precision inside an update: no autocast, no TF32, no compiled kernels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from bdhf.optim.torch_support.eager import caller_compiled_nothing


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Switch autocast and TF32 off for the body, and restore them after it.

    What the caller compiled runs uncompiled (`eager`), so that all losses are rounded alike.
    Torch has two names for the settings and raises on reading the older ones once the newer are
    set, so this uses the names that the caller used.
    """
    backends: Any = torch.backends  # whose modules are made at run time
    kinds = (
        backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn, backends.mkldnn.matmul,
    )  # fmt: skip
    before = [kind.fp32_precision for kind in kinds]
    older = _older_settings()
    if older is None:
        for kind in kinds:
            kind.fp32_precision = "ieee"
    else:
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = False
    try:
        with torch.autocast(device.type, enabled=False), caller_compiled_nothing():
            yield
    finally:
        if older is not None:
            torch.set_float32_matmul_precision(older[0])
            backends.cudnn.allow_tf32 = older[1]
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def _older_settings() -> tuple[str, bool] | None:
    """Matrix products and cuDNN by their older names; None where the newer were set."""
    try:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return None
