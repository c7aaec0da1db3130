"""MLflow's own store, read back with its client."""

import pytest
from mlflow import MlflowClient

from bdhf.experiments.observers.trackers import tracking
from tests.experiments.observers.synthetic import (
    LABELS,
    MAPS_ITS_TABLES,
    RUNS,
    row,
    tell_interleaved,
)

pytestmark = MAPS_ITS_TABLES


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One results folder for all tests: a new database takes seconds."""
    return tmp_path_factory.mktemp("some results")


@pytest.fixture
def read(folder):
    """A reader of the runs of an experiment, the latest first."""

    def runs(experiment):
        client = MlflowClient(f"sqlite:///{folder}/trackers/mlflow/mlflow.db")
        experiment_id = client.get_experiment_by_name(experiment).experiment_id
        return client, client.search_runs([experiment_id])

    return runs


def track(folder, experiment):
    """Open the tracker; a warning of it fails the test."""
    return tracking(["mlflow"], folder, experiment, LABELS, pytest.fail)


def test_interleaved_runs_are_runs_of_their_own(folder, read):
    """Each keeps its arm, its metrics against the update, and how it ended."""
    with track(folder, "interleaved") as tracker:
        tell_interleaved(tracker)

    client, runs = read("interleaved")
    adam, hf = sorted(runs, key=lambda run: run.data.tags["arm"])
    assert adam.info.run_name == "adam seed 0"
    assert adam.info.artifact_uri.startswith((folder / "trackers/mlflow/artifacts").as_uri())
    for run, arm in ((adam, "adam"), (hf, "block_hf")):
        expected = {"arm": arm, "seed": "0", "run_id": RUNS[arm].run_id}
        assert expected.items() <= run.data.tags.items()
    assert (adam.info.status, adam.data.tags["status"]) == ("FINISHED", "done")
    assert (hf.info.status, hf.data.tags["status"]) == ("FINISHED", "diverged")
    assert hf.data.tags["reason"] == "val_loss is nan at update 4"
    history = client.get_metric_history(adam.info.run_id, "val_loss")
    assert [(point.step, point.value) for point in history] == [(0, 0.5), (2, 0.4)]


def test_what_was_not_measured_is_left_out(folder, read):
    """A NaN is no point, and a column of NaN no metric."""
    with track(folder, "gaps") as tracker:
        tell_interleaved(tracker)

    client, runs = read("gaps")
    hf = next(run for run in runs if run.data.tags["arm"] == "block_hf")
    assert set(hf.data.metrics) == {"val_loss", "val_accuracy", "damping"}
    assert [p.step for p in client.get_metric_history(hf.info.run_id, "val_loss")] == [0, 2]


def test_settings_are_parameters(folder, read):
    """Dotted names as in the spec; what is null is left out."""
    with track(folder, "settings") as tracker:
        tracker.started(RUNS["adam"])
        tracker.finished(RUNS["adam"], "error", "the worker process ended")

    _, (adam,) = read("settings")
    expected = {"optimizer.type": "torch.Adam", "optimizer.lr": "0.003", "budget.updates": "6"}
    assert expected.items() <= adam.data.params.items()
    assert adam.data.params["problem.encoder"] == "[784, 12, 4]"
    assert "curvature_batch" not in adam.data.params
    assert adam.info.status == "FAILED"


def test_an_interrupted_run_does_not_stay_running(folder, read):
    """It ends as killed; repeated, it is another run with the same id."""
    with track(folder, "interrupted") as tracker:
        tracker.started(RUNS["adam"])
    with track(folder, "interrupted") as tracker:
        tracker.started(RUNS["adam"])
        tracker.evaluated(RUNS["adam"], row(0, 0.5))
        tracker.finished(RUNS["adam"], "done", "budget spent")

    _, runs = read("interrupted")
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
    assert {run.data.tags["run_id"] for run in runs} == {RUNS["adam"].run_id}


def test_a_server_that_is_away_costs_no_run(tmp_path, monkeypatch):
    """The variable of MLflow names the server; an unreachable server is one warning."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # the port of nothing
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    lines = []

    with tracking(["mlflow"], tmp_path, "small", LABELS, lines.append) as tracker:
        tell_interleaved(tracker)

    (line,) = lines
    assert "tracker mlflow " in line
    assert "MlflowException: " in line
    assert not any(tmp_path.iterdir())
