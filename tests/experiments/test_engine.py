"""The local engine: worker processes that may die without losing a run or doing one twice."""

import os
import signal
from multiprocessing import active_children

import pandas as pd
import pytest

import bdhf
from bdhf.experiments.engines.local import Conditions, run_all
from bdhf.experiments.run import Outcome
from bdhf.experiments.store import Store
from bdhf.records import CURVE_COLUMNS, Status, collect
from tests.experiments.specs import SMALL, cells, planned

pytestmark = pytest.mark.slow


class Silent:
    """An observer that only remembers."""

    def __init__(self):
        self.log = []

    def started(self, run):
        self.log.append(("started", run.run_id))

    def evaluated(self, run, row):
        self.log.append(("evaluated", run.run_id, row["update"]))

    def finished(self, run, status, reason):
        self.log.append(("finished", run.run_id, status))


def engine(store, plan, workers=2, observer=None):
    """Run the plan."""
    conditions = Conditions(workers, safety_seconds=60)
    return run_all(store.unfinished(plan), store, conditions, observer or Silent())


def test_every_run_is_started_evaluated_and_finished_once(tmp_path):
    """Two workers do every run of the plan, and the observer is told of each row."""
    plan, store, watcher = cells(), Store(tmp_path), Silent()
    store.begin(SMALL, planned())

    statuses = engine(store, plan, observer=watcher)

    assert statuses == {cell.run.run_id: Status.DONE for cell in plan}
    for cell in plan:
        own = [entry for entry in watcher.log if entry[1] == cell.run.run_id]
        assert [entry[0] for entry in own] == ["started", *["evaluated"] * 4, "finished"]
        assert [entry[2] for entry in own[1:-1]] == [0, 2, 4, 6]
    assert store.unfinished(plan) == []
    assert not list(store.runs.glob(".tmp-*"))


def test_what_another_process_has_finished_is_not_done_again(tmp_path):
    """The disk is looked at again before each run: a finished one is not given to a worker."""
    plan, store, watcher = cells(("count: 2", "count: 1")), Store(tmp_path), Silent()
    store.begin(SMALL, planned(("count: 2", "count: 1")))
    todo = store.unfinished(plan)
    curve = pd.DataFrame(columns=list(CURVE_COLUMNS))
    store.write(todo[1], Outcome(Status.DONE, "elsewhere", curve), {}, {})

    statuses = run_all(todo, store, Conditions(1, safety_seconds=60), watcher)

    assert todo[1].run_id not in statuses
    assert set(statuses.values()) == {Status.DONE}
    assert store.status(todo[1].run_id)["reason"] == "elsewhere"


def test_a_worker_that_is_killed_costs_its_run_only(tmp_path):
    """A run whose process dies is an error with the signal; every other run is done."""
    plan, store = cells(("updates: 6", "updates: 60")), Store(tmp_path)
    store.begin(SMALL, planned(("updates: 6", "updates: 60")))

    class Killer(Silent):
        victim = None

        def evaluated(self, run, row):
            super().evaluated(run, row)
            if self.victim is None and run.optimizer["type"] == "block_hf" and row["update"] >= 4:
                self.victim = run.run_id
                (worker,) = active_children()
                os.kill(worker.pid, signal.SIGKILL)

    killer = Killer()
    statuses = engine(store, plan, workers=1, observer=killer)

    assert killer.victim is not None
    assert statuses.pop(killer.victim) is Status.ERROR
    assert set(statuses.values()) == {Status.DONE}
    assert "died by signal 9" in store.status(killer.victim)["reason"]
    collect(tmp_path)
    assert bdhf.load(tmp_path).runs["status"].value_counts().to_dict() == {"done": 5, "error": 1}
