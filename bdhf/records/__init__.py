"""The files of an ablation: what `experiments` writes, and `stats` and `report` read.

    results/<ablation>/
      spec.yaml  plan.json  plan.parquet
      runs/<run id>/  spec.yaml  status.json  env.json  curve.parquet  [traceback.txt]
      runs.parquet  curves.parquet  comparisons.parquet  multiverse.parquet  report.html
      figures/*.svg

Run folders are the primary data; `collect` derives the tables from them, and `load` is the only
reader. Nothing here imports torch or computes a statistic. `docs/records.md` describes the files
for users; `columns.py` describes their columns.
"""

from bdhf.records.collect import collect, collected, ended, planned, run_labels, torn
from bdhf.records.columns import CURVE_COLUMNS, DIAGNOSTICS
from bdhf.records.comparison import LOSSES, Comparison, Estimand, axis_of, tests_of, unit_of
from bdhf.records.disk.files import (
    InputError,
    StorageError,
    in_brief,
    of_what_kind,
    unwritable,
    write_atomically,
    write_table,
)
from bdhf.records.disk.owner import Owner
from bdhf.records.disk.temporary import (
    STALE_SECONDS,
    clock_of,
    is_silent,
    remove_leftovers,
    temporary_folder,
)
from bdhf.records.disk.version import PLAN_INDEX, RECORDS_VERSION, refuse_newer
from bdhf.records.index import PlanIndex, PlannedArm
from bdhf.records.load import load
from bdhf.records.provenance.environment import MATTERS, TIMING
from bdhf.records.rises import Rise, rise_of, rises, rises_in
from bdhf.records.run import run_status
from bdhf.records.schema import (
    AXES,
    FAILED,
    MISSING,
    SAFETY_SECONDS,
    Budget,
    Figure,
    Status,
    Strict,
    Target,
)
from bdhf.records.tables import Records, natural
from bdhf.records.tuning import (
    STUDY_FILE,
    STUDY_TABLES,
    ArmTuning,
    Parameter,
    StudyRecords,
    Tuned,
    TunedArm,
    Tuning,
    load_study,
    read_tuning,
)
from bdhf.records.twins import twins_among
from bdhf.records.uncounted import NOT_RUN, UNCOUNTED, uncounted

__all__ = [
    "AXES",
    "CURVE_COLUMNS",
    "DIAGNOSTICS",
    "FAILED",
    "LOSSES",
    "MATTERS",
    "MISSING",
    "NOT_RUN",
    "PLAN_INDEX",
    "RECORDS_VERSION",
    "SAFETY_SECONDS",
    "STALE_SECONDS",
    "STUDY_FILE",
    "STUDY_TABLES",
    "TIMING",
    "UNCOUNTED",
    "ArmTuning",
    "Budget",
    "Comparison",
    "Estimand",
    "Figure",
    "InputError",
    "Owner",
    "Parameter",
    "PlanIndex",
    "PlannedArm",
    "Records",
    "Rise",
    "Status",
    "StorageError",
    "Strict",
    "StudyRecords",
    "Target",
    "Tuned",
    "TunedArm",
    "Tuning",
    "axis_of",
    "clock_of",
    "collect",
    "collected",
    "ended",
    "in_brief",
    "is_silent",
    "load",
    "load_study",
    "natural",
    "of_what_kind",
    "planned",
    "read_tuning",
    "refuse_newer",
    "remove_leftovers",
    "rise_of",
    "rises",
    "rises_in",
    "run_labels",
    "run_status",
    "temporary_folder",
    "tests_of",
    "torn",
    "twins_among",
    "uncounted",
    "unit_of",
    "unwritable",
    "write_atomically",
    "write_table",
]
