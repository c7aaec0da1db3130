"""A study whose runs are a formula: fast, and with a known optimum."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.trial import FrozenTrial

from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.execute import Outcome
from bdhf.experiments.spec.schema import Safety
from bdhf.records import CURVE_COLUMNS, Status
from bdhf.tuning.sampling.trial_slots import TrialSlots
from bdhf.tuning.storage.storage import StudyLocation
from bdhf.tuning.study.study import Study, StudyCell, open_study
from bdhf.tuning.workers.trial_loop import TrialLoop
from tests.experiments.specs import STUDY, TWO_ARMS, write_study

#: The learning rate with the fastest runs, and the one above which runs diverge.
BEST_LR, HIGHEST_LR = 3e-2, 0.5


def study(home: Path, *changes: tuple[str, str], text: str = STUDY, base: str = TWO_ARMS) -> Study:
    """The study in a folder, with parts of its text or of the ablation's text replaced."""
    return open_study(write_study(home, *changes, text=text, base=base))


def synthetic_run(
    spec: RunSpec,
    *,
    device: str,
    safety: Safety,
    observe: Callable[[dict[str, float]], None] = lambda row: None,
    **others: object,
) -> Outcome:
    """Replaces `execute`: exp(-rate t), with the highest rate at one learning rate."""
    lr, limit = float(spec.optimizer.get("lr", 1e-3)), int(spec.budget.updates or 0)
    if spec.optimizer["type"] == "torch.Adam" and lr > HIGHEST_LR:
        row = dict.fromkeys(CURVE_COLUMNS, 1.0) | {"update": 0}
        observe(row)
        return Outcome(Status.DIVERGED, "val_loss is nan at update 1", pd.DataFrame([row]))
    rate = 0.3 * math.exp(-abs(math.log(lr / BEST_LR)) / 2) * (1 + 0.1 * (spec.seed % 2))
    rows: list[dict[str, float]] = []
    for update in range(limit + 1):
        loss = math.exp(-rate * update)
        rows.append(
            dict.fromkeys(CURVE_COLUMNS, math.nan)
            | {
                "update": update, "samples": update, "epoch": update / 10, "seconds": update / 50,
                "products": 3.0 * update, "gradient_equivalents": 7.0 * update,
                "val_loss": loss, "train_loss": loss, "test_loss": loss,
            }
        )  # fmt: skip
        observe(rows[-1])
        if spec.stop_at and loss <= spec.stop_at[0].below:
            break
    return Outcome(Status.DONE, "ended", pd.DataFrame(rows))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Synthetic runs."""
    monkeypatch.setattr("bdhf.experiments.engines.execution.execute", synthetic_run)


def worked(
    of: Study,
    folder: Path,
    on_trial: Callable[[StudyCell, FrozenTrial, TrialSlots], None] | None = None,
) -> None:
    """Tune every arm in this process."""
    loop = TrialLoop(
        of, StudyLocation(folder), on_trial or (lambda *trial: None), poll_seconds=0.05
    )
    loop.run([cell.label for cell in of.cells])


def by_trial(table: pd.DataFrame, arm: str, *columns: str) -> list[Any]:
    """The values of an arm, trial by trial."""
    rows = table[table["arm"] == arm].sort_values("trial", kind="stable")
    return [tuple(row) for row in rows[list(columns)].replace({np.nan: None}).to_numpy()]
