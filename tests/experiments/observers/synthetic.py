"""Made-up runs: the calls of the engine to its observer, without training."""

from __future__ import annotations

import math
from types import MappingProxyType

import pytest

from bdhf.records import CURVE_COLUMNS
from tests.experiments.specs import cell

RUNS = {arm: cell(arm).run for arm in ("adam", "block_hf")}
LABELS = {run.run_id: f"{arm} seed {run.seed}" for arm, run in RUNS.items()}

#: MLflow maps its tables with a strategy that SQLAlchemy 2.1 is about to drop.
MAPS_ITS_TABLES = pytest.mark.filterwarnings(
    "ignore:The ``noload`` loader strategy:DeprecationWarning"
)


def row(update, loss, **more):
    """A row of a curve in which nothing was measured but these values."""
    values = dict.fromkeys(CURVE_COLUMNS, math.nan) | {"update": update, "val_loss": loss} | more
    return MappingProxyType(values)  # no observer may change a row


def tell_interleaved(observer):
    """Two runs at a time: Adam is done, block HF diverges in its last row."""
    adam, hf = RUNS["adam"], RUNS["block_hf"]
    observer.started(adam)
    observer.started(hf)
    observer.evaluated(adam, row(0, 0.5, seconds=0.0))
    observer.evaluated(hf, row(0, 0.5))
    observer.evaluated(hf, row(2, 0.25, damping=0.01, val_accuracy=0.75))
    observer.evaluated(adam, row(2, 0.4, seconds=0.1))
    observer.finished(adam, "done", "budget of 2 updates spent")
    observer.evaluated(hf, row(4, math.nan, damping=0.01))
    observer.finished(hf, "diverged", "val_loss is nan at update 4")
