"""Find what cannot run before the first trial, as `plan` and `run` of an ablation do.

We try every arm with the settings of the spec and with every choice of its space: a choice that
always fails costs trials, and looks like a bad choice. The ends of ranges need no update: their
faults show when the arm is resolved.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from bdhf.experiments.dry_run.check import faults_of_data, try_out
from bdhf.experiments.errors import Keys
from bdhf.experiments.plan.expand import Cell as Planned
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.spec.compose import read_spec
from bdhf.records import STUDY_FILE, read_tuning
from bdhf.tuning.study.space import Choice, corners
from bdhf.tuning.study.study import Study, path_of


def is_finished(study: Study, folder: Path) -> bool:
    """Whether the folder of a study has all its trials."""
    file = folder / STUDY_FILE
    if not file.exists():
        return False
    record = read_tuning(file)
    return record.is_whole and record.trials >= study.spec.trials


def check_study(study: Study) -> list[str]:
    """Try a first update of every arm on synthetic data, and load the data of users' problems.

    Returns a line for each group of arms that were not checked. Raises SpecError with a line for
    each one that cannot run.
    """
    runs = {cell.label: cell.run for cell in study.cells}
    names = {cell.label: cell.planned.name for cell in study.cells}
    arms = try_out(_as_planned(runs), names)
    if arms.faults:
        raise study.source.error(arms.faults)
    choices = {label: (where, run) for label, where, run in _choices(study)}
    others = {label: run for label, (_, run) in choices.items()}
    chosen = try_out(_as_planned(others), {label: label for label in choices})
    faults = [replace(f, path=choices[str(f.path[1])][0]) for f in chosen.faults if f.path[1:]]
    if faults:
        raise read_spec(study.file, study.settings).error(faults)
    wrong = faults_of_data(runs.values())
    if wrong:
        raise study.source.error(wrong)
    return [*arms.lines(), *chosen.lines()]


def _as_planned(runs: dict[str, RunSpec]) -> list[Planned]:
    return [Planned(label, run.seed, run) for label, run in runs.items()]


def _choices(study: Study) -> Iterator[tuple[str, Keys, RunSpec]]:
    """Every choice of every space: a description, its path in the study, and its run."""
    for cell in study.cells:
        for dimension, settings in corners(cell.space, cell.arm):
            if isinstance(dimension, Choice):
                run = cell.run.model_copy(update={"optimizer": cell.optimizer(settings)})
                chosen = settings[dimension.path]
                words = next(w for w, value in dimension.values.items() if value is chosen)
                where = path_of(("spaces", cell.planned.name), dimension, cell)
                yield f"{cell.label} with {dimension.name}={words}", where, run
