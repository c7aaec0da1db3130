"""Runs in worker processes of this machine.

Workers are spawned, do one run at a time, and write it themselves. A worker that dies costs its
run only; workers end when this process does, however it ends.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import pandas as pd

from bdhf.experiments.observe import Observer
from bdhf.experiments.provenance import environment
from bdhf.experiments.run import Outcome, execute
from bdhf.experiments.runspec import RunSpec
from bdhf.experiments.store import Store
from bdhf.records import CURVE_COLUMNS, Status


def default_workers(threads: int) -> int:
    """As many runs at a time as the cores of this process can carry."""
    usable = getattr(os, "sched_getaffinity", None)  # Linux only
    return max(1, (len(usable(0)) if usable else os.cpu_count() or 1) // threads)


def run_all(
    todo: Sequence[RunSpec],
    store: Store,
    *,
    workers: int,
    device: str,
    safety_seconds: float,
    observer: Observer,
) -> dict[str, Status]:
    """Execute every run, at most `workers` at a time; give the status of each by run id.

    A run that another process has finished meanwhile is not done again.
    """
    waiting = list(reversed(todo))
    statuses: dict[str, Status] = {}
    crew = [_Worker.hire(store.folder) for _ in range(min(workers, len(todo)))]
    try:
        while waiting or any(worker.run for worker in crew):
            for place, worker in enumerate(crew):
                run = _next(waiting, store) if worker.run is None else None
                if run is not None:
                    crew[place] = worker if worker.is_alive else _Worker.hire(store.folder)
                    crew[place].assign(run, device, safety_seconds)
                    observer.started(run)
            busy = {worker.pipe: worker for worker in crew if worker.run}
            for pipe in connection.wait(list(busy)):
                worker = busy[pipe]  # type: ignore[index]
                run = _current(worker)
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, OSError):
                    crew[crew.index(worker)] = _Worker.hire(store.folder)
                    kind, content = "ended", _bury(worker, run, store, device)
                if kind == "row":
                    observer.evaluated(run, content)
                else:
                    worker.run = None
                    statuses[run.run_id] = Status(content[0])
                    observer.finished(run, *content)
    finally:
        for worker in crew:
            worker.dismiss()
    return statuses


@dataclass
class _Worker:
    """A worker process as this process sees it."""

    process: SpawnProcess
    pipe: Connection
    run: RunSpec | None = None

    @classmethod
    def hire(cls, folder: Path) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(theirs, folder), daemon=True)
        with _ctrl_c_ignored():  # the child inherits it, from its first moment
            process.start()
        theirs.close()  # so that the death of the worker closes the pipe
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        return self.process.is_alive()

    def assign(self, run: RunSpec, device: str, safety_seconds: float) -> None:
        self.run = run
        with suppress(OSError):  # it died before: the next read of the pipe says so
            self.pipe.send((run.model_dump(mode="json"), device, safety_seconds))

    def dismiss(self) -> None:
        self.process.terminate()
        self.process.join()
        self.pipe.close()


def _next(waiting: list[RunSpec], store: Store) -> RunSpec | None:
    """The next run that still has no outcome."""
    while waiting:
        run = waiting.pop()
        if not store.has_outcome(run.run_id):
            return run
    return None


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Ctrl-C is for this process, which ends its workers; they need not print tracebacks."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signals, and only it receives them
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _current(worker: _Worker) -> RunSpec:
    if worker.run is None:
        raise RuntimeError("a worker without a run has spoken")
    return worker.run


def _bury(worker: _Worker, run: RunSpec, store: Store, device: str) -> tuple[str, str]:
    """Record the run of a worker that died as an error, unless it had been written before."""
    worker.process.join()
    reason = f"the worker process died {_how(worker.process.exitcode or 0)}"
    outcome = Outcome(Status.ERROR, reason, pd.DataFrame(columns=list(CURVE_COLUMNS)))
    store.write(run, outcome, environment(device, run.threads), {"finished": _now()})
    status = store.status(run.run_id) or {"status": Status.ERROR, "reason": reason}
    return str(status["status"]), str(status["reason"])


def _how(code: int) -> str:
    if code >= 0:
        return f"with exit code {code}; its traceback went to stderr"
    words = f"by signal {-code} ({signal.strsignal(-code)})"
    return words + ("; often the out-of-memory killer" if code == -signal.SIGKILL else "")


def _work(pipe: Connection, folder: Path) -> None:
    """The life of a worker process."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    store = Store(folder)
    while True:
        try:
            content, device, safety_seconds = pipe.recv()
        except EOFError:
            return
        run = RunSpec.model_validate(content)
        started = _now()
        outcome = execute(
            run,
            device=device,
            safety_seconds=safety_seconds,
            observe=lambda row: _tell(pipe, "row", row),
        )
        times = {"started": started, "finished": _now()}
        store.write(run, outcome, environment(device, run.threads), times)
        _tell(pipe, "ended", (str(outcome.status), outcome.reason))


def _tell(pipe: Connection, kind: str, content: Any) -> None:
    try:
        pipe.send((kind, content))
    except OSError:
        os._exit(1)  # nobody is there: an unfinished run must not be recorded as a failed one


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
