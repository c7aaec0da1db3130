"""The devices of benchmarks, and their clocks."""

from __future__ import annotations

import time

import torch

#: Last parameter of every benchmark of the method: the CPU, and a GPU where torch finds one.
DEVICES = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


class Clock:
    """Increasing seconds: of the host, or of the device's events once CUDA is in use.

    An event is recorded after all launched work and waited for, so a difference contains the
    kernels of the call between two readings, without the wait.
    """

    def __init__(self) -> None:
        self._seconds, self._last = 0.0, None

    def __call__(self) -> float:
        """A reading; only differences are meaningful."""
        if not torch.cuda.is_initialized():
            return time.perf_counter()
        now = torch.cuda.Event(enable_timing=True)
        now.record()
        now.synchronize()
        if self._last is not None:
            self._seconds += self._last.elapsed_time(now) / 1000  # float32, so short
        self._last = now
        return self._seconds
