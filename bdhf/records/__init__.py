"""The files of an ablation: what `experiments` writes, and `stats` and `report` read.

    results/<ablation>/
      spec.yaml  plan.json  plan.parquet
      runs/<run id>/  spec.yaml  status.json  env.json  curve.parquet  [traceback.txt]
      runs.parquet  curves.parquet  comparisons.parquet  report.html  figures/*.svg

Run folders are the truth; `collect` makes the tables of them, `load` is the one reader. Nothing
here imports torch, and nothing here computes a statistic.
"""

from bdhf.records.collect import collect, ended, planned, run_status, torn
from bdhf.records.files import (
    STALE_SECONDS,
    check_version,
    clock_of,
    sweep,
    temporary_folder,
    write_atomically,
    write_table,
)
from bdhf.records.load import Records, load
from bdhf.records.owner import Owner
from bdhf.records.schema import (
    AXES,
    CURVE_COLUMNS,
    DIAGNOSTICS,
    MISSING,
    PLAN_INDEX,
    RECORDS_VERSION,
    Budget,
    Comparison,
    Estimand,
    InputError,
    PlanIndex,
    PlannedArm,
    Status,
    Strict,
    Target,
)

__all__ = [
    "AXES",
    "CURVE_COLUMNS",
    "DIAGNOSTICS",
    "MISSING",
    "PLAN_INDEX",
    "RECORDS_VERSION",
    "STALE_SECONDS",
    "Budget",
    "Comparison",
    "Estimand",
    "InputError",
    "Owner",
    "PlanIndex",
    "PlannedArm",
    "Records",
    "Status",
    "Strict",
    "Target",
    "check_version",
    "clock_of",
    "collect",
    "ended",
    "load",
    "planned",
    "run_status",
    "sweep",
    "temporary_folder",
    "torn",
    "write_atomically",
    "write_table",
]
