"""Told to end in the midst of a run: it is saved first, as the runs of an ablation are.

A signal raises KeyboardInterrupt where it comes; of a run that can be saved, once that is done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Any

from bdhf.experiments.engines.local import SAVE_SECONDS

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Ending:
    """Whether this process was told to end, and whether it may do so later."""

    def __init__(self, label: str) -> None:
        self.can_wait = False  # a run is under way that may be saved after an update
        self.is_asked = False
        self._label = label

    def hear(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        """Do what a handler of signals does, but raise later where that can wait.

        A second signal is as it would be without this.
        """
        if not self.can_wait or self.is_asked:
            handler(number, frame)
            return
        self.is_asked = True
        with suppress(KeyboardInterrupt):
            handler(number, frame)
        line = (
            f"interrupted: saving a run of {self._label} that is under way, for {SAVE_SECONDS:g} "
            "seconds at most; once more ends at once\n"
        )
        with suppress(OSError):
            os.write(2, line.encode())  # what is printed may be interrupted in its midst
        signal.signal(signal.SIGALRM, _no_longer)
        signal.setitimer(signal.ITIMER_REAL, SAVE_SECONDS)


@contextmanager
def saved_first(label: str) -> Iterator[Ending]:
    """Put off KeyboardInterrupt while a run is under way that can be saved; raise it at the end.

    In other threads than the main one, which alone hears signals, nothing is changed.
    """
    ending = Ending(label)
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    alarm = signal.getsignal(signal.SIGALRM)
    ours = {n: partial(ending.hear, handler) for n, handler in before.items() if callable(handler)}
    for number, handler in ours.items():
        signal.signal(number, handler)
    try:
        yield ending
    finally:
        for number, handler in ours.items():
            if signal.getsignal(number) is handler:  # else a first signal has changed it
                signal.signal(number, before[number])
        if ending.is_asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
            raise KeyboardInterrupt


def _no_longer(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
