"""Runs in MLflow: one experiment per ablation, one MLflow run each time a run is executed.

They go to MLFLOW_TRACKING_URI, else to a database in the results folder, which the full package
`mlflow` shows: `mlflow ui --backend-store-uri sqlite:///<results>/trackers/mlflow/mlflow.db`. It
is a database because MLflow 3 refuses to write plain files.

A repeated run is a new MLflow run with the same tag `run_id`: a server may be shared, so nothing on
it is replaced.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from bdhf.experiments.observers.tracker import measured, settings
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.records import Status

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: Environment variables of MLflow, unless they are set already.
DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",  # no data to any other server
    "MLFLOW_LOGGING_LEVEL": "WARNING",  # no log lines between the bars
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # an unreachable server costs seconds, not minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class MLflow:
    """Settings as parameters, the columns of a curve as metrics with step = update, tags as below.

    The tags are columns of runs.parquet: `arm, seed, run_id`, and at the end `status, reason`.
    Raises ImportError if the package `mlflow-skinny` (or `mlflow`) is not installed.
    """

    def __init__(self, folder: Path, ablation: str, labels: Mapping[str, str]) -> None:
        for name, value in DEFAULTS.items():
            os.environ.setdefault(name, value)
        import mlflow

        self._mlflow = mlflow
        self._folder = (folder / "trackers" / "mlflow").resolve()
        self._server = os.environ.get("MLFLOW_TRACKING_URI")
        self._ablation = ablation
        self._labels = labels
        self._ids: dict[str, str] = {}  # run id -> id of the MLflow run under way

    def started(self, run: RunSpec) -> None:
        """Begin an MLflow run."""
        label = self._labels[run.run_id]
        tags = {
            "arm": label.replace(f" seed {run.seed}", ""),
            "seed": str(run.seed),
            "run_id": run.run_id,
        }
        made = self._client.create_run(self._experiment, run_name=label, tags=tags)
        self._ids[run.run_id] = made.info.run_id
        param = self._mlflow.entities.Param
        params = [param(name, str(value)) for name, value in settings(run).items()]
        self._client.log_batch(made.info.run_id, params=params)

    def evaluated(self, run: RunSpec, row: Mapping[str, float]) -> None:
        """Log the measured values."""
        now, update = int(time.time() * 1000), int(row["update"])
        metric = self._mlflow.entities.Metric
        metrics = [metric(name, value, now, update) for name, value in measured(row).items()]
        self._client.log_batch(self._ids[run.run_id], metrics=metrics)

    def finished(self, run: RunSpec, status: str, reason: str) -> None:
        """Tag the run with status and reason. A diverged run has an outcome: it has not failed."""
        end = "FAILED" if Status(status).is_missing else "FINISHED"
        self._end(run.run_id, end, {"status": status, "reason": reason})

    def close(self) -> None:
        """End the MLflow runs of interrupted runs."""
        for run_id in tuple(self._ids):
            self._end(run_id, "KILLED", {"reason": "interrupted"})

    def _end(self, run_id: str, status: str, tags: Mapping[str, str]) -> None:
        mlflow_id = self._ids.pop(run_id)
        for name, value in tags.items():
            self._client.set_tag(mlflow_id, name, value)
        self._client.set_terminated(mlflow_id, status)

    @cached_property
    def _client(self) -> MlflowClient:
        """The client: the global active run of MLflow is only one, and runs interleave."""
        if not self._server:
            self._folder.mkdir(parents=True, exist_ok=True)
        local = f"sqlite:///{(self._folder / 'mlflow.db').as_posix()}"
        return self._mlflow.MlflowClient(tracking_uri=self._server or local)

    @cached_property
    def _experiment(self) -> str:
        """The id of the ablation's experiment, which is created if it is new."""
        experiment = self._client.get_experiment_by_name(self._ablation)
        if experiment is not None:
            return str(experiment.experiment_id)
        artifacts = None if self._server else (self._folder / "artifacts").as_uri()
        return str(self._client.create_experiment(self._ablation, artifact_location=artifacts))
