"""Trackers by name: the command calls them, and none can end a run."""

import subprocess
import sys

import pandas as pd
import pytest

from bdhf.experiments.errors import unknown
from bdhf.experiments.observers.several import GuardedObserver, together
from bdhf.experiments.observers.tracker import settings
from bdhf.experiments.observers.trackers import TRACKERS, tracking
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.storage.store import Store
from bdhf.records import InputError, Status
from tests.experiments.observers.synthetic import (
    LABELS,
    MAPS_ITS_TABLES,
    RUNS,
    row,
    tell_interleaved,
)
from tests.experiments.specs import SMALL, cells, planned

IMPORTS = {"tensorboard": "torch.utils.tensorboard", "mlflow": "mlflow"}


class Log:
    """A tracker that records its calls, and fails in the call `failing`."""

    def __init__(self, failing=None):
        self.failing, self.told = failing, []

    def started(self, run):
        self._tell("started", run.run_id)

    def evaluated(self, run, row):
        self._tell("evaluated", run.run_id, row["update"])

    def finished(self, run, status, reason):
        self._tell("finished", run.run_id, status, reason)

    def close(self):
        self._tell("close")

    def _tell(self, *what):
        self.told.append(what)
        if what[0] == self.failing:
            raise OSError(28, "No space left on device\nor anywhere")


def files(folder):
    """Every file of a folder with its content."""
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in paths}


@pytest.fixture
def table(monkeypatch):
    """Put trackers of the test into the table."""
    return lambda **trackers: [
        monkeypatch.setitem(TRACKERS, name, lambda *_, made=made: made)
        for name, made in trackers.items()
    ]


def test_all_observers_get_the_same():
    """Every event reaches every observer, whole and in order."""
    first, second, alone = Log(), Log(), Log()

    tell_interleaved(together(first, second))
    tell_interleaved(alone)

    assert first.told == second.told == alone.told


@pytest.mark.parametrize("failing", ["started", "evaluated", "finished", "close"])
def test_a_tracker_that_fails_is_off_and_reported_once(failing, table, tmp_path):
    """It is not called again; the others receive everything; one line gives the reason."""
    broken, whole, alone, lines = Log(failing), Log(), Log(), []
    table(broken=broken, whole=whole)

    with tracking(["broken", "whole"], tmp_path, "small", LABELS, lines.append) as tracker:
        tell_interleaved(tracker)
    tell_interleaved(alone)

    (line,) = lines
    assert line.startswith("warning: tracker broken ")
    assert "OSError: [Errno 28] No space left on device" in line
    assert "anywhere" not in line
    assert [told[0] for told in broken.told].count(failing) == 1
    assert broken.told[-1][0] == failing
    assert whole.told == [*alone.told, ("close",)]


def test_an_interrupt_is_no_failure_of_a_tracker():
    """Ctrl-C while a tracker works ends the ablation, as it does anywhere else."""

    class Interrupted(Log):
        def started(self, run):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GuardedObserver("tracker", Interrupted(), pytest.fail).started(RUNS["adam"])


def test_trackers_are_closed_when_the_ablation_is_interrupted(table, tmp_path):
    """A tracker is closed in any case."""
    log = Log()
    table(log=log)

    with (
        pytest.raises(KeyboardInterrupt),
        tracking(["log"], tmp_path, "small", LABELS, pytest.fail),
    ):
        raise KeyboardInterrupt

    assert log.told == [("close",)]


def test_a_name_twice_is_one_tracker(table, tmp_path):
    """Nothing is written twice."""
    log, alone = Log(), Log()
    table(log=log)

    with tracking(["log", "log"], tmp_path, "small", LABELS, pytest.fail) as tracker:
        tell_interleaved(tracker)
    tell_interleaved(alone)

    assert log.told == [*alone.told, ("close",)]


def test_an_unknown_tracker_is_refused_with_the_nearest_name(tmp_path):
    """Before anything is written, in one line."""
    with (
        pytest.raises(InputError) as caught,
        tracking(["tensorbord"], tmp_path, "small", LABELS, pytest.fail),
    ):
        pytest.fail("entered")

    assert caught.value.lines == (unknown("tracker", "tensorbord", TRACKERS),)


@pytest.mark.parametrize("name", TRACKERS)
def test_a_missing_package_is_refused_with_its_extra(name, monkeypatch, tmp_path):
    """Before anything is written, with the command that installs it."""
    monkeypatch.setitem(sys.modules, IMPORTS[name], None)  # as if it were not installed

    with (
        pytest.raises(InputError, match=rf"`pip install 'bdhf\[{name}\]'`"),
        tracking([name], tmp_path, "small", LABELS, pytest.fail),
    ):
        pytest.fail("entered")

    assert not any(tmp_path.iterdir())


@MAPS_ITS_TABLES
@pytest.mark.parametrize("name", TRACKERS)
def test_records_are_the_same_with_and_without(name, monkeypatch, tmp_path):
    """A tracker writes only into its folder: not into the records or the working directory."""
    results, elsewhere = tmp_path / "results", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    store = Store(results)
    store.begin(SMALL, planned())
    curve = pd.DataFrame([row(0, 0.5)])
    store.write(RUNS["adam"], Outcome(Status.DONE, "budget spent", curve), {}, {})
    before = files(results)

    with tracking([name], results, "small", LABELS, pytest.fail) as tracker:
        tell_interleaved(tracker)

    after = files(results)
    assert {path: after.pop(path) for path in before} == before
    assert {path.parts[:2] for path in after} == {("trackers", name)}
    assert not any(elsewhere.iterdir())


def test_nothing_of_a_tracker_is_imported_unless_it_is_asked_for():
    """`bdhf` starts, and its table of trackers can be read, without either package."""
    script = (
        "import sys, bdhf.cli, bdhf.experiments.ablation, bdhf.experiments.observers.trackers;"
        "assert not {'tensorboard', 'mlflow', 'torch.utils.tensorboard'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", script], check=True)


def test_settings_tell_the_runs_of_a_plan_apart():
    """As many different settings as run ids: flattening loses nothing that changes a result."""
    runs = {cell.run.run_id: cell.run for cell in cells()}

    assert len({tuple(settings(run).items()) for run in runs.values()}) == len(runs)
