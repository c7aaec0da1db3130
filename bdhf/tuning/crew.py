"""Local workers: processes that each tune one arm after another.

An arm has one worker at a time, so its trials do not depend on how many arms are tuned at once. A
worker that dies is replaced; its trial is made again.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from bdhf.errors import BdhfError
from bdhf.experiments.engines.interrupt import interruptible, shielded
from bdhf.experiments.engines.local import SAVE_SECONDS
from bdhf.experiments.engines.safe_path import safe_path
from bdhf.experiments.engines.worker import die_with_parent
from bdhf.records import InputError, Owner
from bdhf.tuning.revive import MOST_DEATHS
from bdhf.tuning.standing import Standing
from bdhf.tuning.storage import Place
from bdhf.tuning.study import Cell, Study, open_study
from bdhf.tuning.words import line_of
from bdhf.tuning.work import Worker

#: Seconds that workers have to end cleanly, once their runs are saved.
_PATIENCE_SECONDS = 10.0


@dataclass
class _Hand:
    """A worker process and the arm that it is at."""

    label: str
    process: SpawnProcess
    pipe: Connection
    seat: int  # its place in the crew, from 0
    failures: int = 0


@dataclass
class Crew:
    """Tunes arms, so many at a time."""

    study: Study
    place: Place
    workers: int
    say: Callable[[str], None]
    _hands: list[_Hand] = field(default_factory=list)

    def tune(self, labels: Sequence[str]) -> None:
        """Tune these arms to their end.

        Raises KeyboardInterrupt when a person or the machine ends it, and InputError where the
        storage fails.
        """
        left = list(labels)
        with interruptible():
            try:
                while left or self._hands:
                    while left and len(self._hands) < self.workers:
                        self._hands.append(self._hire(left.pop(0), self._free_seat()))
                    self._hear()
            finally:
                self._dismiss()

    def _free_seat(self) -> int:
        taken = {hand.seat for hand in self._hands}
        return next(seat for seat in range(self.workers) if seat not in taken)

    def _hire(self, label: str, seat: int, failures: int = 0) -> _Hand:
        context = get_context("spawn")
        ours, theirs = context.Pipe(duplex=False)
        crew = str(Owner.here())
        arguments = (self.study.file, self.study.settings, self.place, label, seat, crew, theirs)
        process = context.Process(target=_life, args=arguments, daemon=True)
        with safe_path(), shielded():  # until it is there to hear them
            process.start()
        theirs.close()  # so that the death of the worker closes the pipe
        return _Hand(label, process, ours, seat, failures)

    def _hear(self) -> None:
        """Take in what a worker says, or that it has ended."""
        by_pipe = {hand.pipe: hand for hand in self._hands}
        for pipe in connection.wait(list(by_pipe)):
            hand = by_pipe[pipe]  # type: ignore[index]
            try:
                kind, content = hand.pipe.recv()
            except (EOFError, OSError):
                self._bury(hand)
                continue
            if kind == "fault":
                raise InputError(content)
            self.say(content)

    def _bury(self, hand: _Hand) -> None:
        """Put another worker in the place of one that has died before its arm was finished."""
        hand.process.join()
        hand.pipe.close()
        self._hands.remove(hand)
        if hand.process.exitcode == 0:
            return
        if hand.failures >= MOST_DEATHS * self.study.spec.trials:
            raise InputError(
                [f"{hand.label}: its workers end again and again; what they said went to stderr"]
            )
        self.say(f"{hand.label}: a worker ended with {hand.process.exitcode}; another takes over")
        self._hands.append(self._hire(hand.label, hand.seat, hand.failures + 1))

    def _dismiss(self) -> None:
        """End all workers: cleanly, so that runs are saved and trials count as interrupted."""
        for hand in self._hands:
            with suppress(OSError, ValueError):
                os.kill(hand.process.pid or 0, signal.SIGTERM)
        until = time.monotonic() + SAVE_SECONDS + _PATIENCE_SECONDS
        for hand in self._hands:
            hand.process.join(max(until - time.monotonic(), 0.0))
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()
            hand.pipe.close()


def _life(
    file: Path,
    settings: Sequence[str],
    place: Place,
    label: str,
    seat: int,
    crew: str,
    pipe: Connection,
) -> None:
    """The life of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the parent tells it to end
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=die_with_parent, daemon=True).start()

    def told(cell: Cell, trial: FrozenTrial, now: Standing) -> None:
        _tell(pipe, "trial", line_of(cell, trial, now))

    try:  # a signal that came while the process started is raised by its first line
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
        Worker(open_study(file, settings), place, told, seat=seat, crew=crew).work([label])
    except BdhfError as error:
        _tell(pipe, "fault", error.lines)
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGTERM)  # its arm is not finished
    except Exception:
        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)


def _interrupt(number: int, frame: Any) -> None:
    signal.signal(number, signal.SIG_IGN)  # what ends cleanly is not interrupted at that
    raise KeyboardInterrupt


def _tell(pipe: Connection, kind: str, content: Any) -> None:
    with suppress(OSError):  # nobody is there: the storage knows it all
        pipe.send((kind, content))
