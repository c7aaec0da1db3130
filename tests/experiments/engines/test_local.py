"""The local engine: a worker process that is killed loses no run, and no run is made twice."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict
from multiprocessing import active_children

import pandas as pd
import pytest

import bdhf
from bdhf.experiments.engines import process
from bdhf.experiments.engines.local import Conditions, run_all
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.spec.schema import Safety
from bdhf.experiments.storage.store import Store
from bdhf.records import CURVE_COLUMNS, Owner, Status, collect
from tests.experiments.engine_runs import Silent, engine
from tests.experiments.specs import SMALL, cells, planned

pytestmark = pytest.mark.slow


def test_every_run_is_started_evaluated_and_finished_once(tmp_path):
    """Two workers do every run of the plan, and the observer receives each row."""
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
    """The disk is read again before each run: a finished run is not given to a worker."""
    plan, store, watcher = cells(("count: 2", "count: 1")), Store(tmp_path), Silent()
    store.begin(SMALL, planned(("count: 2", "count: 1")))
    todo = store.unfinished(plan)
    curve = pd.DataFrame(columns=list(CURVE_COLUMNS))
    store.write(todo[1], Outcome(Status.DONE, "elsewhere", curve), {}, {})

    statuses = run_all(todo, store, Conditions(1, safety=Safety(seconds=60)), watcher)

    assert todo[1].run_id not in statuses
    assert set(statuses.values()) == {Status.DONE}
    assert store.status(todo[1].run_id)["reason"] == "elsewhere"


def test_a_worker_that_is_killed_costs_its_run_only(tmp_path):
    """A run whose process is killed is an error with the signal; every other run is done."""
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
    assert store.status(killer.victim)["reason"] == str(process.ExitStatus(-signal.SIGKILL))
    collect(tmp_path)
    assert bdhf.load(tmp_path).runs["status"].value_counts().to_dict() == {"done": 5, "error": 1}


@pytest.fixture
def peer():
    """Another process of this machine, and its name as an owner."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process, Owner.of(process.pid)
    process.kill()
    process.communicate()


def plant(folder, run_id, owner, generation=0):
    """A claim of another process."""
    path = folder / "claims" / f"{run_id}.{generation}"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**asdict(owner), "made": 1.5}))


def test_a_run_that_another_holds_is_waited_for_and_taken_over_when_it_dies(tmp_path, peer):
    """All other runs come first; the owner is reported once; then the run is done here."""
    changes = [("count: 2", "count: 1")]
    plan, store, watcher, told = cells(*changes), Store(tmp_path), Silent(), []
    store.begin(SMALL, planned(*changes))
    process, owner = peer
    plant(tmp_path, plan[0].run_id, owner)

    def waiting(holders):
        told.append([(claim.run_id, claim.owner) for claim in holders])
        process.kill()
        process.wait()

    conditions = Conditions(1, safety=Safety(seconds=60), waiting=waiting)
    statuses = run_all(store.unfinished(plan), store, conditions, watcher)

    assert told == [[(plan[0].run_id, owner)]]
    started = [entry[1] for entry in watcher.log if entry[0] == "started"]
    assert started == [cell.run_id for cell in (*plan[1:], plan[0])]
    assert statuses == {cell.run_id: Status.DONE for cell in plan}
    assert not list((tmp_path / "claims").iterdir())


def test_who_has_lost_a_run_drops_its_outcome(tmp_path, peer):
    """A run taken over while under way is not written; the process waits for its new owner."""
    changes = [("count: 2", "count: 1"), ("updates: 6", "updates: 60")]
    (plan, *_), store, (process, owner) = cells(*changes), Store(tmp_path), peer
    store.begin(SMALL, planned(*changes))
    seen = []

    class Robbed(Silent):
        def evaluated(self, run, row):
            if not seen:
                plant(tmp_path, run.run_id, owner, generation=1)
                seen.append("robbed")

    def waiting(holders):
        seen.append(store.status(plan.run_id))
        process.kill()
        process.wait()

    watcher = Robbed()
    conditions = Conditions(1, safety=Safety(seconds=60), waiting=waiting)
    run_all([plan.run], store, conditions, watcher)

    assert seen == ["robbed", None]
    assert [entry[0] for entry in watcher.log] == ["started", "started", "finished"]
    assert store.status(plan.run_id)["status"] == "done"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_reports_how_many_were_at_work_on_the_machine(tmp_path, workers):
    """1 for a run alone; for concurrent runs their number, so that seconds can be doubted."""
    plan, store = cells(("count: 2", "count: 1"))[:2], Store(tmp_path)
    store.begin(SMALL, planned(("count: 2", "count: 1")))

    engine(store, plan, workers)

    for cell in plan:
        env = json.loads((store.runs / cell.run_id / "env.json").read_text())
        assert env["concurrent"] == workers


@pytest.mark.parametrize(("kills", "status"), [((0, 0), "error"), ((0, 1), "oom")])
def test_only_a_kernel_that_says_so_makes_a_death_one_for_want_of_memory(
    tmp_path, monkeypatch, kills, status
):
    """SIGKILL alone does not show a lack of memory; the count of the kernel does."""
    (plan, *_), store = cells(("updates: 6", "updates: 60")), Store(tmp_path)
    store.begin(SMALL, planned())
    dead = []
    monkeypatch.setattr(process, "_memory_kills", lambda: kills[bool(dead)])

    class Killer(Silent):
        def evaluated(self, run, row):
            if not dead:
                (child,) = active_children()
                os.kill(child.pid, signal.SIGKILL)
                child.join()
                dead.append(child)

    receive = lost_after(dead, process.WorkerProcess.receive)
    monkeypatch.setattr(process.WorkerProcess, "receive", receive)
    run_all([plan.run], store, Conditions(1, safety=Safety(seconds=60)), Killer())

    ended = process.ExitStatus(-signal.SIGKILL, is_out_of_memory=status == "oom")
    written = store.status(plan.run_id)
    assert (written["status"], written["reason"]) == (status, str(ended))


def lost_after(dead, receive):
    """Further messages of a killed worker are lost."""

    def receive_until_killed(self):
        if dead:
            raise EOFError
        return receive(self)

    return receive_until_killed
