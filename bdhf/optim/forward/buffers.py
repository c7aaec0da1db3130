"""Buffers that forward passes change: an update makes several passes, so they change repeatedly.

Examples are counters, running averages and the ranges of observers. Products are not affected, but
after training the buffers differ from those of plain training.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from bdhf.optim.forward.identity import few


class BufferWarning(UserWarning):
    """Buffers that every forward pass changes."""


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[Callable[[], list[str]]]:
    """Restore every buffer after the body; yields a function that lists the changed ones."""
    held = [
        (f"{path}.{name}" if path else name, module, name, buffer, buffer._version, buffer.clone())
        for path, module in model.named_modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]

    def moved() -> list[str]:
        return [
            path for path, module, name, buffer, version, value in held
            if (module._buffers.get(name) is not buffer or buffer._version != version)
            and not _same(module._buffers.get(name), value)
        ]  # fmt: skip

    try:
        yield moved
    finally:
        for _, module, name, buffer, version, value in held:
            module._buffers[name] = buffer
            if buffer._version != version:
                with torch.no_grad():
                    buffer.copy_(value)


def warn_of_moved(model: nn.Module, names: list[str]) -> None:
    """Warn which buffers every pass changes, and what to do."""
    if not names:
        return
    warnings.warn(
        f"every forward pass of {type(model).__name__} changes its buffers ({few(names)}), and an "
        "update makes several passes, including those of trial steps: put the module that holds "
        "them into eval mode, or write to them outside of forward, once per update",
        BufferWarning,
        stacklevel=5,
    )


def _same(now: Tensor | None, value: Tensor) -> bool:
    if now is None or now.layout != torch.strided or value.layout != torch.strided:
        return False
    if now.shape != value.shape or now.dtype != value.dtype:
        return False
    return bool(((now == value) | ((now != now) & (value != value))).all())
