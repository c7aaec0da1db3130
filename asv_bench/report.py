"""What a report of 2,000 runs takes: seconds to build, and megabytes of the page.

    python -m asv_bench.report [--runs 2000] [--rows 50]

The runs are made up, in a temporary folder: 20 arms, each compared with the first, every curve of
random numbers that compress no better than real ones.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bdhf.records import CURVE_COLUMNS, PLAN_INDEX, RECORDS_VERSION, collect
from bdhf.report import build

ARMS = tuple(f"arm{n}" for n in range(20))
SPEC = """schema: 1
name: made-up
targets: [{metric: val_loss, below: 0.02}]
stop: at_budget
"""


def make(folder: Path, runs: int, rows: int) -> Path:
    """A results folder of so many finished runs, each with a curve of so many rows."""
    (folder / "runs").mkdir(parents=True)
    arms = [
        {"label": arm, "name": arm, "budget": {"updates": 2 * (rows - 1)}, "evaluate_every": 2}
        for arm in ARMS
    ]
    comparisons = [
        {"name": f"{arm} vs {ARMS[0]}", "candidate": arm, "baseline": ARMS[0], "margin": 1.1}
        for arm in ARMS[1:]
    ]
    index = {"records": RECORDS_VERSION, "arms": arms, "comparisons": comparisons}
    (folder / PLAN_INDEX).write_text(json.dumps(index), encoding="utf-8")
    (folder / "spec.yaml").write_text(SPEC, encoding="utf-8")
    plan = [(ARMS[n % len(ARMS)], n // len(ARMS), f"{n:016x}", "") for n in range(runs)]
    table = pd.DataFrame(plan, columns=["arm", "seed", "run_id", "skip"])
    table.to_parquet(folder / "plan.parquet", index=False)
    for n in range(runs):
        _make_run(folder / "runs" / f"{n:016x}", n, rows)
    return folder


def _make_run(folder: Path, n: int, rows: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(n)
    curve = pd.DataFrame(rng.random((rows, len(CURVE_COLUMNS))), columns=list(CURVE_COLUMNS))
    update = 2 * np.arange(rows)
    pace = 20.0 * (1 + 0.02 * (n % len(ARMS))) * np.exp(rng.normal(0, 0.2))
    loss = 0.012 + 0.2 * np.exp(-update / pace) * np.exp(rng.normal(0, 0.02, rows))
    curve = curve.assign(
        update=update,
        samples=1000 * update,
        epoch=update * 0.3,
        products=20.0 * update,
        seconds=np.cumsum(rng.random(rows)),
        train_loss=loss * 0.94,
        val_loss=loss,
        test_loss=loss * 1.03,
    )
    curve.to_parquet(folder / "curve.parquet", index=False)
    status = {"records": RECORDS_VERSION, "status": "done", "reason": "budget spent"}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    env = {"host": "lab", "cpu": "made up", "torch": "2.9.0", "threads": 1, "device": "cpu"}
    (folder / "env.json").write_text(json.dumps(env), encoding="utf-8")
    (folder / "spec.yaml").write_text(f"seed: {n}\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the seconds and the megabytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--rows", type=int, default=50)
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as place:
        folder = make(Path(place) / "results", chosen.runs, chosen.rows)
        begun = time.perf_counter()
        collect(folder)
        collected = time.perf_counter()
        _, path = build(folder)
        built = time.perf_counter()
        size = path.stat().st_size / 1e6
    sys.stdout.write(
        f"{chosen.runs} runs of {chosen.rows} evaluations, {len(ARMS)} arms: collect "
        f"{collected - begun:.1f} s, report {built - collected:.1f} s, {size:.1f} MB\n"
    )


if __name__ == "__main__":
    main()
