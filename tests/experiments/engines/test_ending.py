"""Two signals at nearly the same time: one of a scheduler, one of the parent of a worker."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Any

import pytest

from bdhf.experiments.engines.ending import Ending

CODE = Ending.handle.__code__
LINES = sorted({line for *_, line in CODE.co_lines() if line and line > CODE.co_firstlineno})


class Worker:
    """Ignores further signals at its first one, as a worker process does, and raises."""

    def __init__(self) -> None:
        self.ending, self.ignores = Ending(""), False
        self.ending.can_wait = True

    def signal(self) -> None:
        """Deliver a signal, which Python leaves out while it is ignored."""
        if not self.ignores:
            self.ending.handle(self.interrupt, signal.SIGTERM, None)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Do as `process._interrupt` does."""
        self.ignores = True
        raise KeyboardInterrupt


@pytest.mark.parametrize("line", LINES)
def test_a_second_signal_at_any_line_of_the_first_one_changes_nothing(
    line: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that receives two signals at once saves its run, and does not raise before."""
    monkeypatch.setattr(signal, "setitimer", lambda which, seconds: None)
    monkeypatch.setattr(signal, "signal", lambda number, handler: None)
    worker, raised = Worker(), False
    monkeypatch.setattr(signal, "getsignal", lambda number: worker.ignores and signal.SIG_IGN)

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code is not CODE:
            return None
        if event == "line" and frame.f_lineno == line:
            sys.settrace(None)
            worker.signal()
        return trace

    former = sys.gettrace()
    sys.settrace(trace)
    try:
        worker.signal()
    except KeyboardInterrupt:
        raised = True
    finally:
        sys.settrace(former)

    assert worker.ending.is_asked
    assert not raised
