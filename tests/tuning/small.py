"""A study with tiny real runs, made by processes that a test may kill.

    python -m tests.tuning.small pool STUDY FOLDER WORKERS
    python -m tests.tuning.small join STUDY FOLDER URL START

The first command tunes it with a worker pool and collects its tables: `bdhf tune` without the steps
after the trials. The second joins it as `--worker` does, with synthetic runs, as soon as a file
START exists: so several processes start at the same moment.

With STOP_AFTER=WHAT:COUNT:FILE in the environment, a process that has written WHAT for the COUNT-th
time creates FILE and waits to be killed.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from bdhf.cli.app import errors_reported, say
from bdhf.experiments.engines import execution
from bdhf.experiments.engines.interrupt import interruptible
from bdhf.tuning.outcome.collect import collect_study, stored_trials
from bdhf.tuning.storage.storage import StudyLocation, quiet
from bdhf.tuning.study.study import Study, open_study
from bdhf.tuning.workers.arm_pool import ArmPool
from bdhf.tuning.workers.progress import line_of
from bdhf.tuning.workers.trial_loop import TrialLoop
from tests.experiments.specs import TINY, TINY_STUDY, write_study
from tests.tuning.synthetic import synthetic_run

#: Makes a trial last seconds, so that it can be killed while it runs.
LONG = (("updates: 6", "updates: 60"), ("stop: at_target", "stop: at_budget"),
        ("below: 0.08", "below: 1.0e-9"))  # fmt: skip


#: Moment of a trial -> pattern of its line in the journal.
MOMENTS = {
    "asked": '"op_code":4,.*"state":0',  # its settings are unknown
    "claimed": '"op_code":6,.*"state":0',  # it had been asked for before
    "proposed": '"user_attr":{"settings"',
    "begun": '"op_code":7,',
    "made": '"user_attr":{"status"',  # its value is not told
    "told": '"op_code":6,.*"state":1',
}


def stop_after(what: str, count: int, marker: Path) -> None:
    """Stop this process after the count-th line of the journal for a moment."""
    append, times = JournalFileBackend.append_logs, list[int]()

    def appended(backend: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        append(backend, logs)
        lines = [json.dumps(log, separators=(",", ":")) for log in logs]
        times.extend(1 for line in lines if re.search(MOMENTS[what], line))
        if len(times) >= count:
            marker.touch()
            time.sleep(600)

    JournalFileBackend.append_logs = appended


if "STOP_AFTER" in os.environ:  # also in workers of a pool, which import this module
    _what, _count, _marker = os.environ["STOP_AFTER"].split(":", 2)
    stop_after(_what, int(_count), Path(_marker))


def written(home: Path, *changes: tuple[str, str]) -> Path:
    """Write the study and its ablation into a folder, with parts of their text replaced."""
    return write_study(home, *changes, text=TINY_STUDY, base=TINY)


def begun(command: Sequence[object], log: Path, **more: str) -> subprocess.Popen[bytes]:
    """Start a Python module in its own process group, with its output in a file.

    `more` are additional variables of its environment.
    """
    with log.open("ab") as said:
        return subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            stdout=said,
            stderr=said,
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", **more},
        )


def killed(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> int:
    """Send a signal to a process and all of its workers; its exit code."""
    with suppress(ProcessLookupError):  # it has ended
        os.killpg(process.pid, number)
    return process.wait(timeout=60)


def trials_of(study: Study, storage: BaseStorage) -> dict[str, list[FrozenTrial]]:
    """All trials in the storage, by arm."""
    with quiet():
        summaries = optuna.get_all_study_summaries(storage)
    names = {summary.study_name: summary._study_id for summary in summaries}
    return {
        cell.label: storage.get_all_trials(names[f"{study.name}/{cell.label}"], deepcopy=False)
        for cell in study.cells
        if f"{study.name}/{cell.label}" in names
    }


def placed(study: Study, storage: BaseStorage) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """Parameters and values of the finished trials of every arm, by position."""
    return {
        arm.cell.label: [(trial.params, trial.values) for trial in arm.trials]
        for arm in stored_trials(study, storage)
    }


def finished(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Those that are completed or pruned."""
    return [t for t in trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]


def pool(file: str, folder: str, workers: str) -> None:
    """Tune a study with a worker pool."""
    study, location = open_study(Path(file)), StudyLocation(Path(folder))
    try:
        with interruptible():
            arms = stored_trials(study, location.open())
            left = [arm.cell.label for arm in arms if len(arm.trials) < study.spec.trials]
            ArmPool(study, location, int(workers), say).tune(left)
            collect_study(study, location)
    except KeyboardInterrupt:
        sys.exit(130)


def join(file: str, folder: str, url: str, start: str) -> None:
    """Work on a study in a database."""
    execution.execute = synthetic_run
    study, location = open_study(Path(file)), StudyLocation(Path(folder), url, heartbeat=20)
    Path(folder).mkdir()
    while not Path(start).exists():
        time.sleep(0.0005)
    loop = TrialLoop(study, location, lambda *of_trial: say(line_of(*of_trial)), poll_seconds=0.1)
    loop.run([cell.label for cell in study.cells])


if __name__ == "__main__":
    with errors_reported():
        {"pool": pool, "join": join}[sys.argv[1]](*sys.argv[2:])
