"""Where a benchmark is computed, and the clock of that place."""

from __future__ import annotations

import time

import torch

#: Last parameter of every benchmark of the method: the CPU, and a GPU where torch finds one.
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


class Clock:
    """Seconds that grow: of the host, or of the device's own events once CUDA is in use.

    An event is recorded behind everything that was launched and waited for, so a stretch holds the
    kernels of the call that it is around, and nothing of the wait.
    """

    def __init__(self) -> None:
        self._seconds, self._last = 0.0, None

    def __call__(self) -> float:
        """A reading; only differences mean something."""
        if not torch.cuda.is_initialized():
            return time.perf_counter()
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        now.synchronize()
        if self._last is not None:
            self._seconds += self._last.elapsed_time(now) / 1000  # float32, so short
        self._last = now
        return self._seconds
