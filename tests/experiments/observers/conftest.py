"""No server, and only the settings of the test for MLflow."""

import pytest

from bdhf.experiments.observers.mlflow import DEFAULTS


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    """The tests must not use a server of the user."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)
