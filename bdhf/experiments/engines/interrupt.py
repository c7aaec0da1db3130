"""Ctrl-C and signals to end: the first ends cleanly, the second at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from types import FrameType

#: From a user; from a scheduler or a machine that shuts down.
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt at the first signal; end the process at once at the second.

    Half-written files have temporary names, and the next process removes them. The old handlers
    are restored afterwards. Only the main thread may set handlers; in others nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def at_once(number: int, frame: FrameType | None) -> None:
        os._exit(128 + number)

    def cleanly(number: int, frame: FrameType | None) -> None:
        for other in SIGNALS:
            signal.signal(other, at_once)
        raise KeyboardInterrupt

    for number in SIGNALS:
        signal.signal(number, cleanly)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def shielded() -> Iterator[None]:
    """Block signals, also in processes started meanwhile, until these unblock them."""
    resource_tracker.ensure_running()  # first, because its start unblocks signals
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
