"""Results folders without training, for tests that only read or remove results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd

from bdhf.experiments.plan.expand import Cell
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.storage.store import Store
from bdhf.records import CURVE_COLUMNS, Status
from bdhf.records.run import sealed
from tests.experiments.specs import changed, planned

CURVE = pd.DataFrame([{name: float(row) for name in CURVE_COLUMNS} for row in range(3)])


def begun(folder: Path, *changes: tuple[str, str]) -> tuple[Store, tuple[Cell, ...]]:
    """A results folder of the small spec, changed, without runs; and its cells."""
    store, plan = Store(folder), planned(*changes)
    store.begin(changed(*changes), plan)
    return store, plan.cells


def write(
    store: Store,
    cell: Cell,
    status: Status = Status.DONE,
    *,
    curve: pd.DataFrame = CURVE,
    trace: str = "",
    **times: Any,
) -> Path:
    """Write one run; return its folder."""
    outcome = Outcome(status, "a reason", curve, trace)
    store.write(cell.run, outcome, {"cpu": "x"}, {"wall_seconds": 10.0, **times})
    return store.runs / cell.run_id


def resealed(run: Path) -> None:
    """Write the present sums of a run's files into its status, as a forger would."""
    path = run / "status.json"
    status = json.loads(path.read_text())
    files = {name: (run / name).read_bytes() for name in status.pop("sha256")}
    del status["sum"]
    path.write_text(json.dumps(sealed(run.name, status, files)))


def claim(store: Store, cell: Cell, content: str) -> None:
    """A claim on a run, with this content."""
    home = store.folder / "claims"
    home.mkdir(exist_ok=True)
    (home / f"{cell.run_id}.0").write_text(content)


class Still:
    """A run that an update does not change, with the interface that a `Saver` needs."""

    update = 2

    def __init__(self, state):
        self._state = state

    def step(self):
        """Change nothing."""

    def state(self):
        """The state of the constructor."""
        return self._state

    def shared(self):
        """Nothing."""
        return {}

    def kept(self):
        """Nothing."""
        return {}

    def unsaved(self):
        """Nothing."""
        return {}

    def replay(self, state):
        """No difference."""
        return {}


def save(saver, state):
    """Write the first checkpoint, of this state."""
    run = Still(state)
    saver.offer(run, evaluated=True)
    saver.updated(run)
