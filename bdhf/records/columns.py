"""Every column of the tables and every key of the JSON files: its unit and its meaning.

`docs/records.md` has the same lines; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bdhf.records.schema import Status


class Column(NamedTuple):
    """A column of a table, or a key of a JSON file."""

    unit: str
    meaning: str


#: The columns that identify a cell of the plan, in every table.
CELL: Mapping[str, Column] = {
    "arm": Column("text", "the label of the arm: its name in the spec, and what a grid varies"),
    "seed": Column("whole number", "the seed of the random streams of the run; pairs arms"),
    "run_id": Column("text", "the run's folder in `runs`; cells with the same content share one"),
}

_TOTALS = {
    "update": Column("updates", "made so far; 0 is the evaluation before the first"),
    "epoch": Column("epochs", "samples ÷ size of the training set"),
    "samples": Column("samples", "of gradient batches so far"),
    "products": Column("products", "with the full curvature matrix so far; one with a block of "
                       "p of P parameters counts p/P"),
    "gradient_equivalents": Column("gradients", "FLOPs so far ÷ FLOPs of one gradient on the "
                                   "gradient batch"),
    "seconds": Column("seconds", "wall-clock time of updates so far, without evaluation"),
    "train_loss": Column("loss", "mean over the training set"),
    "val_loss": Column("loss", "mean over the validation set"),
    "test_loss": Column("loss", "mean over the test set"),
}  # fmt: skip

_DIAGNOSTICS = {
    "grad_norm": Column("norm", "of the gradient of the last update, on its gradient batch"),
    "step_norm": Column("norm", "of the last change of the parameters"),
    "damping": Column("λ", "of the last update, mean over groups"),
    "step_size": Column("factor", "on the direction of the last update, learning rate included, "
                        "mean over groups"),
    "cg_iterations": Column("iterations", "of the last update, mean over blocks"),
    "reduction_ratio": Column("ratio", "actual ÷ predicted change of the curvature batch's loss"),
    "stop_converged": Column("share", "of blocks whose solver met its residual tolerance, or was "
                             "exact"),
    "stop_progress": Column("share", "of blocks whose solver stopped by Martens’ relative "
                            "progress"),
    "stop_max_iters": Column("share", "of blocks whose solver used all its iterations"),
    "negative_curvature": Column("share", "of blocks whose solver found negative curvature"),
    "off_block_energy": Column("share", "‖G − G_block‖ ÷ ‖G‖ (Frobenius), estimated"),
}  # fmt: skip

#: A curve: one row per evaluation. The problem's own metrics follow these columns.
_CURVE: Mapping[str, Column] = {**_TOTALS, **_DIAGNOSTICS}
CURVE_COLUMNS = tuple(_CURVE)

#: Columns of a curve that describe the run up to that row: every curve has them.
TOTALS = tuple(_TOTALS)

#: Columns of a curve that describe one update.
DIAGNOSTICS = tuple(_DIAGNOSTICS)

#: Columns of a curve that hold whole numbers (Int64); the rest is float64.
WHOLE = ("update", "samples")

#: A problem's own metrics are named like its losses: `val_accuracy`.
METRIC_PREFIXES = ("train_", "val_", "test_")

_STATUS = {
    "status": Column("text", "how the run ended; missing: it has not ended"),
    "reason": Column("text", "why it ended like this, or why it is not counted"),
}

#: File -> its columns or keys.
TABLES: Mapping[str, Mapping[str, Column]] = {
    "plan.parquet": {**CELL, "skip": Column("text", "why the plan leaves the cell out; empty: "
                                            "it is run")},
    "runs.parquet": {**CELL, **_STATUS, **_TOTALS},
    "curves.parquet": {**CELL, **_CURVE},
    "curve.parquet": _CURVE,
    "status.json": {
        "records": Column("whole number", "the version of the records; missing: 0"),
        **_STATUS,
        "started": Column("time", "when a worker started the run; ISO 8601, UTC"),
        "finished": Column("time", "when it ended"),
        "wall_seconds": Column("seconds", "from its start to its end, loading and evaluation "
                               "included"),
        "attempts": Column("whole number", "times that the run was started, this one included"),
        "resumed": Column("whole number", "times that it was resumed from a checkpoint"),
        "run_id": Column("text", "the run that this status belongs to"),
        "sha256": Column("hash", "of every other file of the run, by its name"),
        "sum": Column("hash", "SHA-256 of the other keys, as JSON with sorted keys and no spaces"),
        "no_checkpoint": Column("text", "why the run cannot resume from a checkpoint; missing: "
                                "no obstacle is known"),
    },
    "env.json": {
        "host": Column("text", "name of the machine"),
        "cpu": Column("text", "model of its processor"),
        "cores": Column("whole number", "logical cores of the machine"),
        "platform": Column("text", "operating system"),
        "python": Column("version", "of Python"),
        "bdhf": Column("version", "of bdhf"),
        "torch": Column("version", "of torch"),
        "numpy": Column("version", "of NumPy"),
        "cuda": Column("version", "of CUDA that torch was built with; empty: none"),
        "commit": Column("hash", "commit of the working directory; empty: no repository"),
        "dirty": Column("hash", "of uncommitted changes to tracked files; empty: none; `unknown`: "
                        "git did not answer"),
        "device": Column("text", "torch device that the run was on"),
        "threads": Column("whole number", "threads of torch within an operator"),
        "gpu": Column("text", "model of the GPU; empty: not used"),
        "tf32": Column("yes or no", "whether matrix products on the GPU may round to TF32"),
        "deterministic": Column("yes or no", "whether torch used deterministic algorithms only"),
        "own_code": Column("text", "modules of a user's own parts, as they were imported, each "
                           "with a hash of its source; missing: the arm has no such part"),
        "concurrent": Column("whole number", "most runs of the ablation at once on this machine, "
                             "this one included"),
    },
}  # fmt: skip

#: Status -> what it means.
STATUSES: Mapping[Status, str] = {
    Status.DONE: "every target reached, or the budget used up",
    Status.DIVERGED: "a loss or the gradient is no longer finite: a miss",
    Status.OOM: "out of memory: missing data",
    Status.ERROR: "an exception, in traceback.txt, or a crashed worker: missing data",
    Status.TIMEOUT: "stopped after `safety.seconds` of the spec: missing data",
    Status.SKIPPED: "left out by the plan, for the reason in `reason`: missing data",
}
