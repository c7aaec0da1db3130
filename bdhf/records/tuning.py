"""The files of a study, and how an ablation records the study of its settings.

    results/studies/<study>/
      study.yaml  study.json
      trials.parquet  parameters.parquet  seeds.parquet  trial_curves.parquet
      journal.log  runs/  held_out/  report.html  figures/*.svg

The tables are derived from Optuna's storage; `load_study` is their only reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pandas as pd
from pydantic import Field

from bdhf.records.comparison import Comparison, Estimand
from bdhf.records.disk.checksums import digest, table_bytes
from bdhf.records.disk.files import (
    InputError,
    in_brief,
    read_table,
    read_whole,
    table_sums,
    write_atomically,
    write_table,
)
from bdhf.records.disk.version import RECORDS_VERSION
from bdhf.records.schema import Budget, Strict, Target

#: The file that describes a study and its results.
STUDY_FILE = "study.json"

#: The table that is written last, with the sums of all other files.
TRIALS_FILE = "trials.parquet"

#: A study's tables -> their minimum columns; `trials` and `seeds` have one more per objective,
#: `trial_curves` those of a curve.
STUDY_TABLES: Mapping[str, tuple[str, ...]] = {
    "trials": (
        "arm", "trial", "number", "status", "reason", "is_default", "on_front", "hits", "seeds",
        "updates", "products", "gradient_equivalents", "seconds", "wall_seconds", "started",
        "finished", "host",
    ),
    "parameters": ("arm", "trial", "parameter", "value", "text"),
    "seeds": ("arm", "trial", "seed", "run_id", "status", "reason", "hit", "final"),
    "trial_curves": ("arm", "trial", "seed", "update"),
}  # fmt: skip


class Parameter(Strict):
    """One dimension of a search space."""

    name: str  # below the arm, dotted: `lr`, `damping`, `damping.constant.value`
    scale: Literal["log", "linear", "choice"]
    low: float | None = None  # of a range
    high: float | None = None
    whole: bool = False  # whether only whole numbers are tried
    choices: tuple[str, ...] = ()  # in words
    default: float | str | None = None  # the value of the spec; None: not in this space

    parent: str = ""  # the choice that activates it, `damping=constant`; "": always active


class TunedArm(Strict):
    """One arm at one combination of the grid: its search space and its best trial."""

    label: str  # in the plan of the study's ablation: `full_hf gradient=500`
    name: str  # of the arm in the spec
    values: Mapping[str, str] = Field(default_factory=dict)  # axis of the grid -> value, in words
    budget: Budget
    gradient_batch: int
    curvature_batch: int | None = None
    space: tuple[Parameter, ...]
    horizons: Mapping[str, float] = Field(default_factory=dict)  # objective -> what a miss costs
    finished: int  # trials
    best: int | None = None  # the trial; None where none has been completed
    settings: Mapping[str, Any] = Field(default_factory=dict)  # dotted path below the arm -> value
    optimizer: Mapping[str, Any] = Field(default_factory=dict)  # the arm with them, resolved
    best_value: float | None = None  # of the best trial, in the first objective
    least: float | None = None  # its smallest and largest cost over the tuning seeds
    largest: float | None = None
    at_edge: tuple[str, ...] = ()  # parameters of the best trial that lie at an end of their range
    importances: Mapping[str, float] = Field(default_factory=dict)  # parameter -> share of 1


class Tuning(Strict):
    """The content of study.json."""

    records: int = RECORDS_VERSION
    name: str
    ablation: str  # the spec that is tuned, as the study names it
    problem: Mapping[str, Any]
    objectives: tuple[Estimand, ...] = Field(min_length=1)  # the first selects the best trial
    target: Target | None  # None: a loss is tuned
    trials: int  # of every arm
    seeds: tuple[int, ...]  # of every trial
    held_out_seeds: tuple[int, ...]  # of the ablation: no trial uses them
    sampler: str  # in words, its seed included
    pruner: str
    comparisons: tuple[Comparison, ...] = ()  # of the ablation, by the labels of `arms`
    alpha: float = 0.05
    arms: tuple[TunedArm, ...]

    @property
    def is_whole(self) -> bool:
        """Whether every arm has all its trials."""
        return all(arm.finished == self.trials for arm in self.arms)


@dataclass(frozen=True, repr=False)
class StudyRecords:
    """A study as tidy tables. Trials are numbered 0, 1, … within an arm, as they ended up.

    `trials`: a row per finished trial: `arm, trial, number` (Optuna's), `status` (`done`, `pruned`,
    or that of the run that ended it: `diverged`, `oom`, `error`, `timeout`), `reason`,
    `is_default` (the spec's own settings), `on_front` (no other trial of the arm is as good in
    every objective and better in one), `hits` of `seeds` that reached the target, the total
    cost of its runs, and its value in a column per objective, NaN where it was pruned. A value
    above the arm's horizon is a miss: between the horizon and twice that, smaller the nearer it
    came to the target, and twice the horizon for a run that failed.
    `parameters`: `value` of numbers, `text` of choices. `seeds`: a row per run, with its cost in
    every objective (a miss costs the horizon). `curves`: a row per evaluation.
    """

    folder: Path
    text: str  # study.yaml
    study: Tuning
    trials: pd.DataFrame
    parameters: pd.DataFrame
    seeds: pd.DataFrame
    curves: pd.DataFrame

    @property
    def held_out(self) -> Path | None:
        """The results folder of the ablation on held-out seeds, if it exists."""
        folder = self.folder / "held_out"
        return folder if (folder / "runs.parquet").exists() else None


def read_tuning(path: Path, sums: Mapping[str, str] = MappingProxyType({})) -> Tuning:
    """Read a study.json, or a copy of one. Raises InputError for any other file.

    `sums`: file name -> sum of the files of the study, as `table_sums` reads them.
    """
    try:
        return Tuning.model_validate_json(read_whole(path, sums))
    except (OSError, ValueError) as error:
        what = "no record of a study; `bdhf tune STUDY` writes it"
        raise InputError([f"{path}: {what} ({in_brief(error)})"]) from None


def refuse_study(folder: Path) -> None:
    """Raise InputError for the folder of a study instead of an ablation."""
    if (folder / STUDY_FILE).exists():
        held_out = folder / "held_out"
        raise InputError(
            [
                f"{folder}: the folder of a study; `bdhf report {folder}` reports its results, and "
                f"its comparison on held-out seeds is an ablation in {held_out}"
            ]
        )


def load_study(folder: str | Path) -> StudyRecords:
    """Read the folder of a study. Raises InputError where it has no whole one."""
    folder = Path(folder)
    sums = table_sums(folder / TRIALS_FILE)
    study = read_tuning(folder / STUDY_FILE, sums)
    tables = {
        name: read_table(folder / f"{name}.parquet", columns, sums=sums)
        for name, columns in STUDY_TABLES.items()
    }
    return StudyRecords(
        folder=folder,
        text=_text(folder / "study.yaml", sums),
        study=study,
        trials=tables["trials"],
        parameters=tables["parameters"],
        seeds=tables["seeds"],
        curves=tables["trial_curves"],
    )


def write_study(folder: Path, text: str, record: str, tables: Mapping[str, pd.DataFrame]) -> None:
    """Write study.yaml, study.json and the tables; that of the trials last, with all sums.

    Raises StorageError.
    """
    contents = {
        **{f"{name}.parquet": table_bytes(table) for name, table in tables.items()},
        "study.yaml": text.encode("utf-8"),
        STUDY_FILE: record.encode("utf-8"),
    }
    del contents[TRIALS_FILE]
    for name, content in contents.items():
        write_atomically(folder / name, content)
    sums = {name: digest(content) for name, content in contents.items()}
    write_table(folder / TRIALS_FILE, tables["trials"], sums)


def _text(path: Path, sums: Mapping[str, str]) -> str:
    """The text of a file; "" where there is none. Raises InputError for a changed one."""
    try:
        return read_whole(path, sums).decode("utf-8")
    except FileNotFoundError:
        if path.name not in sums:
            return ""
        why = "missing"
    except (OSError, ValueError) as error:
        why = in_brief(error)
    raise InputError([f"{path}: {why}; `bdhf tune STUDY` rewrites it"])


class ArmTuning(Strict):
    """How the settings of one arm of an ablation were chosen."""

    how: Literal["tuned", "changed", "elsewhere", "untuned"]
    why: str = ""  # in words, where it is not `tuned`: what differs
    trials: int = 0  # number of trials in the study
    best: float | None = None  # value of the first objective on the tuning seeds
    missed: bool = False  # whether the target was reached on no tuning seed, so `best` is no cost
    low: float | None = None  # smallest and largest over the tuning seeds
    high: float | None = None
    at_edge: tuple[str, ...] = ()


class Tuned(Strict):
    """What an ablation records of the tuning of its settings (`tuned_from`), by arm."""

    study: str  # the path in `tuned_from`
    missing: str = ""  # why the study could not be read; "": it was
    objective: Estimand | Literal[""] = ""  # that selects the best trial
    target: str = ""  # in words; "": a loss was tuned
    seeds: tuple[int, ...] = ()
    shared_seeds: tuple[int, ...] = ()  # that the ablation uses too
    sampler: str = ""
    pruner: str = ""
    arms: Mapping[str, ArmTuning] = Field(default_factory=dict)

    def in_order(self, arms: Sequence[str]) -> Tuned:
        """The same with its arms in this order."""
        return self.model_copy(update={"arms": {a: self.arms[a] for a in arms if a in self.arms}})
