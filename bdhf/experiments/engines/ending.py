"""Told to end in the midst of a run: it is saved first.

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

from bdhf.experiments.engines.interrupt import SIGNALS
from bdhf.experiments.run.checkpoint import Interrupted

#: Seconds in which runs that are under way may save themselves when a person ends them; a
#: scheduler kills about half a minute after it has told to end.
SAVE_SECONDS = 20.0


def saving_line(runs: str) -> str:
    """What a person is told who waits for runs to be saved.

    >>> saving_line("2 runs that are")
    'interrupted: saving 2 runs that are under way, for 20 seconds at most; once more ends at once'
    """
    return (
        f"interrupted: saving {runs} under way, for {SAVE_SECONDS:g} seconds at most; once more "
        "ends at once"
    )


class Ending:
    """Whether this process was told to end, and whether it may do so later."""

    def __init__(self, run: str) -> None:
        self.can_wait = False  # a run is under way that may be saved after an update
        self.is_asked = False
        self._run = run

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
        if self._run:
            with suppress(OSError):  # what is printed may be interrupted in its midst
                os.write(2, f"{saving_line(self._run)}\n".encode())
        signal.signal(signal.SIGALRM, _no_longer)
        signal.setitimer(signal.ITIMER_REAL, SAVE_SECONDS)


@contextmanager
def saved_first(run: str = "") -> Iterator[Ending]:
    """Put off KeyboardInterrupt while a run is under way that can be saved; raise it at the end.

    `run` names it in the line that a person is told; "" tells nothing. In other threads than the
    main one, which alone hears signals, nothing is changed.
    """
    ending = Ending(run)
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    alarm = signal.getsignal(signal.SIGALRM)
    ours = {n: partial(ending.hear, handler) for n, handler in before.items() if callable(handler)}
    for number, handler in ours.items():
        signal.signal(number, handler)
    try:
        with suppress(Interrupted):  # it has saved itself, for it was told to end
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
