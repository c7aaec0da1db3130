"""A signal to end during a run: the run is saved first.

A signal raises KeyboardInterrupt at once, but after the save if a run that can be saved is under
way.
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

#: Seconds to save the runs under way after an interrupt; a scheduler kills about half a minute
#: after its signal to end.
SAVE_SECONDS = 20.0


def saving_line(runs: str) -> str:
    """The message while runs are saved.

    >>> saving_line("a run")
    'interrupted: saving a run under way, for 20 seconds at most; interrupt again to end at once'
    """
    return (
        f"interrupted: saving {runs} under way, for {SAVE_SECONDS:g} seconds at most; interrupt "
        "again to end at once"
    )


class Ending:
    """Whether this process received a signal to end, and whether the end can wait."""

    def __init__(self, run: str) -> None:
        self.can_wait = False  # a run is under way that can be saved after an update
        self.is_asked = False
        self._run = run

    def handle(self, handler: Callable[..., Any], number: int, frame: FrameType | None) -> None:
        """Call the handler of a signal, but raise later if the end can wait.

        A second signal is handled as usual, unless the handler of the first one ignores it.
        """
        is_first = self.can_wait and not self.is_asked
        if not is_first:
            if signal.getsignal(number) != signal.SIG_IGN:  # else both came at the same time
                handler(number, frame)
            return
        with suppress(KeyboardInterrupt):
            handler(number, frame)
        self.is_asked = True
        if self._run:
            with suppress(OSError):  # stderr may be closed
                os.write(2, f"{saving_line(self._run)}\n".encode())
        signal.signal(signal.SIGALRM, _no_longer)
        signal.setitimer(signal.ITIMER_REAL, SAVE_SECONDS)


@contextmanager
def saved_first(run: str = "") -> Iterator[Ending]:
    """Delay KeyboardInterrupt while a run that can be saved is under way; raise it at the end.

    `run` names the run in the message; "" prints none. Only the main thread receives signals; in
    other threads nothing changes.
    """
    ending = Ending(run)
    if threading.current_thread() is not threading.main_thread():
        yield ending
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    alarm = signal.getsignal(signal.SIGALRM)
    ours = {
        n: partial(ending.handle, handler) for n, handler in before.items() if callable(handler)
    }
    for number, handler in ours.items():
        signal.signal(number, handler)
    try:
        with suppress(Interrupted):  # the run was saved because of the signal
            yield ending
    finally:
        for number, handler in ours.items():
            if signal.getsignal(number) is handler:  # else the first signal has changed it
                signal.signal(number, before[number])
        if ending.is_asked:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm)
            raise KeyboardInterrupt


def _no_longer(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
