"""Synthetic specs and results folders of any size."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bdhf.records import CURVE_COLUMNS, PLAN_INDEX, RECORDS_VERSION

_SPEC = """\
schema: 1
name: many
problem: {{type: autoencoder, encoder: [784, 12, 4]}}
batch: {{gradient: 200, curvature: 50}}
arms:
  adam: {{type: torch.Adam, lr: 3.0e-3}}
  full_hf: &hf {{type: block_hf, partition: full, lr: 0.5, damping: 1.0e-2}}
  block_hf: {{<<: *hf, partition: groups}}
grid:
  arms.full_hf.lr: {rates}
  arms.full_hf.damping: [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
  batch.curvature: [25, 50, 100, 150]
seeds: {{count: 10}}
budget: {{updates: 6}}
targets: [{{metric: val_loss, below: 0.08}}]
compare: [{{name: block vs full, candidate: block_hf, baseline: full_hf}}]
"""

FOUR = ("adam", "full_hf", "block_hf", "neuron_hf")
TWENTY = tuple(f"arm{n}" for n in range(20))


def spec_of(rates: int) -> str:
    """A spec with 400 cells for every learning rate, and 50 more."""
    return _SPEC.format(rates=[round(0.01 * (rate + 1), 2) for rate in range(rates)])


def folder_to_read(folder: Path, cells: int, runs: int, rows: int) -> Path:
    """A results folder of so many planned cells, of which the first runs have ended.

    Four arms, one comparison; every curve has so many rows of random numbers, but its val_loss
    starts with the number of its cell.
    """

    def curve(n: int) -> pd.DataFrame:
        metrics = ("train_squared_error", "val_squared_error", "test_squared_error")
        columns = [*CURVE_COLUMNS, *metrics]
        made = pd.DataFrame(np.random.default_rng(n).random((rows, len(columns))), columns=columns)
        made = made.assign(update=np.arange(rows), samples=np.arange(rows) * 2000)
        return made.assign(val_loss=np.arange(n, n + rows, dtype=float))

    arms = [{"label": a, "name": a, "budget": {"updates": 300}, "evaluate_every": 2} for a in FOUR]
    comparisons = [{"name": "b", "candidate": "block_hf", "baseline": "full_hf"}]
    return _write(folder, cells, runs, arms, comparisons, curve)


def folder_to_report(folder: Path, runs: int, rows: int, arms: Sequence[str] = TWENTY) -> Path:
    """A results folder of finished runs whose losses fall, every arm compared with the first.

    Curves are random numbers that compress no better than real ones.
    """

    def curve(n: int) -> pd.DataFrame:
        rng = np.random.default_rng(n)
        made = pd.DataFrame(rng.random((rows, len(CURVE_COLUMNS))), columns=list(CURVE_COLUMNS))
        update = 2 * np.arange(rows)
        pace = 20.0 * (1 + 0.02 * (n % len(arms))) * np.exp(rng.normal(0, 0.2))
        loss = 0.012 + 0.2 * np.exp(-update / pace) * np.exp(rng.normal(0, 0.02, rows))
        seconds = np.cumsum(rng.random(rows))
        made = made.assign(update=update, samples=1000 * update, epoch=update * 0.3)
        made = made.assign(products=20.0 * update, seconds=seconds)
        return made.assign(train_loss=loss * 0.94, val_loss=loss, test_loss=loss * 1.03)

    budget = {"updates": 2 * (rows - 1)}
    planned = [{"label": a, "name": a, "budget": budget, "evaluate_every": 2} for a in arms]
    comparisons = [
        {"name": f"{a} vs {arms[0]}", "candidate": a, "baseline": arms[0], "margin": 1.1}
        for a in arms[1:]
    ]
    return _write(folder, runs, runs, planned, comparisons, curve)


def _write(
    folder: Path,
    cells: int,
    runs: int,
    arms: Sequence[dict[str, object]],
    comparisons: Sequence[dict[str, object]],
    curve: Callable[[int], pd.DataFrame],
) -> Path:
    """The files of an ablation: cell n is the next seed of arm n modulo the number of arms."""
    (folder / "runs").mkdir(parents=True)
    index = {"records": RECORDS_VERSION, "arms": arms, "comparisons": comparisons}
    (folder / PLAN_INDEX).write_text(json.dumps(index), encoding="utf-8")
    spec = "schema: 1\nname: made-up\nstop: at_budget\ntargets: [{metric: val_loss, below: 0.02}]\n"
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")
    count = len(arms)
    plan = [(arms[n % count]["name"], n // count, f"{n:016x}", "") for n in range(cells)]
    table = pd.DataFrame(plan, columns=["arm", "seed", "run_id", "skip"])
    table.to_parquet(folder / "plan.parquet", index=False)
    status = {"records": RECORDS_VERSION, "status": "done", "reason": "every target reached"}
    env = {"host": "made-up", "cpu": "made up", "torch": "2.9.0", "threads": 1, "device": "cpu"}
    for n in range(runs):
        run = folder / "runs" / f"{n:016x}"
        run.mkdir()
        curve(n).to_parquet(run / "curve.parquet", index=False)
        (run / "status.json").write_text(json.dumps(status), encoding="utf-8")
        (run / "env.json").write_text(json.dumps(env), encoding="utf-8")
        (run / "spec.yaml").write_text(f"seed: {n}\n", encoding="utf-8")
    return folder
