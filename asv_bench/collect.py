"""What reading a results folder takes: seconds of `planned`, `collect` and `load`.

    python -m asv_bench.collect

The folders are made up, in a temporary folder: one in which every run has ended, and a plan of
which nothing has run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow

import bdhf
from bdhf.records import CURVE_COLUMNS, PLAN_INDEX, RECORDS_VERSION, collect, planned

ARMS = ("adam", "full_hf", "block_hf", "neuron_hf")
METRICS = ("train_squared_error", "val_squared_error", "test_squared_error")


def make(folder: Path, cells: int, runs: int, rows: int) -> Path:
    """A results folder of so many planned cells, of which the first runs have ended.

    Every curve has so many rows; its val_loss starts with the number of its cell.
    """
    (folder / "runs").mkdir(parents=True)
    index = {
        "records": RECORDS_VERSION,
        "arms": [_arm(name) for name in ARMS],
        "comparisons": [{"name": "b", "candidate": "block_hf", "baseline": "full_hf"}],
    }
    (folder / PLAN_INDEX).write_text(json.dumps(index), encoding="utf-8")
    spec = "schema: 1\nname: made-up\ntargets: [{metric: val_loss, below: 0.02}]\n"
    (folder / "spec.yaml").write_text(spec, encoding="utf-8")
    plan = [(ARMS[n % len(ARMS)], n // len(ARMS), f"{n:016x}", "") for n in range(cells)]
    table = pd.DataFrame(plan, columns=["arm", "seed", "run_id", "skip"])
    table.to_parquet(folder / "plan.parquet", index=False)
    for n in range(runs):
        _make_run(folder / "runs" / f"{n:016x}", n, rows)
    return folder


def _arm(name: str) -> dict[str, object]:
    return {"label": name, "name": name, "budget": {"updates": 300}, "evaluate_every": 2}


def _make_run(folder: Path, n: int, rows: int) -> None:
    folder.mkdir()
    curve = pd.DataFrame(
        np.random.default_rng(n).random((rows, len(CURVE_COLUMNS) + len(METRICS))),
        columns=[*CURVE_COLUMNS, *METRICS],
    )
    curve = curve.assign(update=np.arange(rows), samples=np.arange(rows) * 2000)
    curve["val_loss"] = np.arange(n, n + rows, dtype=float)
    curve.to_parquet(folder / "curve.parquet", index=False)
    status = {"records": RECORDS_VERSION, "status": "done", "reason": "every target reached"}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    (folder / "env.json").write_text(json.dumps({"host": "made-up", "threads": 1}))


def main(given: Sequence[str] | None = None) -> None:
    """Make the folders and print the seconds of every reader, each timed once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=2000, help="that have ended")
    parser.add_argument("--rows", type=int, default=50, help="of every curve")
    parser.add_argument("--cells", type=int, default=10_000, help="of the plan without runs")
    arguments = parser.parse_args(given)
    with tempfile.TemporaryDirectory() as temporary:
        runs, cells = arguments.runs, arguments.cells
        ended = make(Path(temporary) / "ended", runs, runs, arguments.rows)
        empty = make(Path(temporary) / "empty", cells, 0, 0)
        for name, folder in (f"{runs} runs that have ended", ended), (f"{cells} cells", empty):
            sys.stdout.write(f"{name}:\n")
            for reader in planned, collect, bdhf.load:
                start = time.perf_counter()
                reader(folder)
                took = time.perf_counter() - start
                sys.stdout.write(f"  {reader.__name__:<8} {took:.2f} s\n")
    sys.stdout.write(
        f"curves of {arguments.rows} rows; Python {platform.python_version()}, "
        f"pandas {pd.__version__}, pyarrow {pyarrow.__version__}\n"
    )


if __name__ == "__main__":
    main()
