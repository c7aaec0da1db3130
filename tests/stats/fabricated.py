"""A results folder written from tables, as an ablation would write it."""

import json
from pathlib import Path

import pandas as pd

from bdhf.records import Records, collect, write_table
from bdhf.records.columns import CURVE_COLUMNS

SPEC = """name: {name}
arms: {{{arms}}}
targets: {targets}
budget: {budget}
evaluate: {{every_updates: {every}}}
safety: {{seconds: {safety}}}
compare: {compare}
alpha: {alpha}
"""


def fabricate(folder: Path, records: Records) -> Path:
    """Write the files of these records; a run without a status has no folder."""
    folder.mkdir()
    (folder / "spec.yaml").write_text(
        SPEC.format(
            name=records.name,
            arms=", ".join(f"{arm}: {{type: torch.Adam}}" for arm in records.arms),
            targets=json.dumps([target.model_dump() for target in records.targets]),
            budget=json.dumps(records.budget.model_dump(exclude_none=True)),
            every=records.evaluate_every,
            safety=records.safety_seconds,
            compare=json.dumps([e.model_dump(exclude_none=True) for e in records.comparisons]),
            alpha=records.alpha,
        ),
        encoding="utf-8",
    )
    cells = records.runs[["arm", "seed", "run_id"]].assign(skip="")
    write_table(folder / "plan.parquet", cells)
    curves = dict(list(records.curves.groupby("run_id")))
    for run in records.runs.to_dict("records"):
        if pd.notna(run["status"]):
            _write_run(folder / "runs" / run["run_id"], run, curves[run["run_id"]])
    collect(folder)
    return folder


def _write_run(folder: Path, run: dict[str, object], curve: pd.DataFrame) -> None:
    folder.mkdir(parents=True)
    table = curve.reindex(columns=list(CURVE_COLUMNS)).astype("float64")
    (folder / "curve.parquet").write_bytes(table.to_parquet(index=False))
    status = {"records": 1, "status": run["status"], "reason": "made up"}
    (folder / "status.json").write_text(json.dumps(status), encoding="utf-8")
    (folder / "env.json").write_text(json.dumps({"records": 1}), encoding="utf-8")
