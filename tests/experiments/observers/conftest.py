"""No server, and no settings of MLflow but those of the test."""

import pytest

from bdhf.experiments.observers.mlflow import DEFAULTS


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch):
    """Whoever runs the tests may have a server, which is none of theirs."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, value in DEFAULTS.items():
        monkeypatch.setenv(name, value)
