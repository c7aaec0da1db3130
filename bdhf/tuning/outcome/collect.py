"""From Optuna's storage to the files of a study: tables of trials, and the best settings.

Everything here can be made again from the storage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import optuna
import pandas as pd
from optuna.storages import BaseStorage

from bdhf.experiments.storage.store import Store
from bdhf.records import (
    STUDY_TABLES,
    Comparison,
    TunedArm,
    Tuning,
)
from bdhf.records.tuning import write_study
from bdhf.tuning.outcome import trial_rows
from bdhf.tuning.outcome.trial_rows import CellTrials
from bdhf.tuning.sampling.samplers import part_in_words
from bdhf.tuning.sampling.trial_slots import trial_slots
from bdhf.tuning.storage.storage import StudyLocation, quiet, study_of
from bdhf.tuning.study.space import Range, all_of, parameters
from bdhf.tuning.study.study import Study


def stored_trials(study: Study, storage: BaseStorage) -> tuple[CellTrials, ...]:
    """The stored trials of every cell. Raises InputError for trials of another definition."""
    arms = []
    for cell in study.cells:
        with quiet():
            of_cell = study_of(study, cell, storage)
            now = trial_slots(of_cell.get_trials(deepcopy=False), study.spec.trials)
        arms.append(CellTrials(cell, of_cell, now.finished))
    return tuple(arms)


def collect_study(study: Study, location: StudyLocation) -> Tuning:
    """Write study.yaml, study.json and the tables of a study. Raises InputError."""
    Store(location.folder).sweep()
    with location.losable():
        arms = stored_trials(study, location.open(waits=True))
    record = tuning(study, arms)
    tables = {
        "trials": [row for arm in arms for row in trial_rows.trial_rows(arm)],
        "parameters": [row for arm in arms for row in trial_rows.parameter_rows(arm)],
        "seeds": [row for arm in arms for row in trial_rows.seed_rows(arm)],
        "trial_curves": [row for arm in arms for row in trial_rows.curve_rows(arm)],
    }
    objectives = study.spec.objectives
    written: dict[str, pd.DataFrame] = {}
    for name, columns in STUDY_TABLES.items():
        more = objectives if name in ("trials", "seeds") else ()
        table = pd.DataFrame(tables[name])
        written[name] = table.reindex(
            columns=list(dict.fromkeys((*columns, *more, *table.columns)))
        )
    write_study(location.folder, study.text, study_text(record), written)
    return record


def study_text(record: Tuning) -> str:
    """The content of study.json."""
    return record.model_dump_json(indent=1) + "\n"


def tuning(study: Study, arms: Sequence[CellTrials]) -> Tuning:
    """The record of a study and its results."""
    first, goals = study.variants[0].spec, study.cells[0].goals
    return Tuning(
        name=study.name,
        ablation=study.spec.ablation,
        problem=first.problem,
        objectives=tuple(study.spec.objectives),
        target=goals[0].target,
        trials=study.spec.trials,
        seeds=study.seeds,
        held_out_seeds=study.held_out_seeds,
        sampler=part_in_words(study.spec.sampler),
        pruner=part_in_words(study.spec.pruner),
        comparisons=_comparisons(study),
        alpha=first.alpha,
        arms=tuple(_arm(arm) for arm in arms),
    )


def _comparisons(study: Study) -> tuple[Comparison, ...]:
    """The comparisons of the ablation between tuned arms."""
    tuned = {cell.label for cell in study.cells}
    return tuple(
        entry
        for entry in (question.comparison for question in study.plan.questions)
        if entry.candidate in tuned and entry.baseline in tuned
    )


def _arm(cell_trials: CellTrials) -> TunedArm:
    cell, best = cell_trials.cell, cell_trials.best
    settings = cell_trials.settings(best) if best is not None else {}
    spread = _spread(cell_trials, best)
    return TunedArm(
        label=cell.label,
        name=cell.planned.name,
        values=cell.planned.values,
        budget=cell.run.budget,
        gradient_batch=cell.run.gradient_batch,
        curvature_batch=cell.run.curvature_batch,
        space=parameters(cell.space, cell.arm),
        horizons={g.estimand: g.horizon for g in cell.goals if math.isfinite(g.horizon)},
        finished=len(cell_trials.trials),
        best=best,
        best_value=None if best is None else cell_trials.trials[best].values[0],
        least=min(spread, default=None),
        largest=max(spread, default=None),
        settings=settings,
        optimizer=cell.optimizer(settings) if best is not None else {},
        at_edge=_at_edge(cell_trials, best),
        importances=_importances(cell_trials),
    )


def _spread(cell_trials: CellTrials, best: int | None) -> list[float]:
    """The cost of the best trial on each tuning seed."""
    if best is None:
        return []
    name = cell_trials.cell.goals[0].estimand
    costs = [seed[name] for seed in cell_trials.trials[best].user_attrs.get("seeds", [])]
    return [float(cost) for cost in costs if cost is not None]


def _at_edge(cell_trials: CellTrials, best: int | None) -> tuple[str, ...]:
    if best is None:
        return ()
    there = cell_trials.trials[best].params
    return tuple(
        dimension.name
        for dimension, _ in all_of(cell_trials.cell.space)
        if isinstance(dimension, Range)
        and dimension.name in there
        and dimension.at_edge(there[dimension.name])
    )


def _importances(cell_trials: CellTrials) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al., 2023); empty where too few trials are completed."""
    try:
        with quiet():
            shares = optuna.importance.get_param_importances(
                cell_trials.optuna, target=lambda trial: float(trial.values[0])
            )
    except (ValueError, RuntimeError):  # a single trial, or equal values
        return {}
    finite = {name: float(share) for name, share in shares.items() if math.isfinite(share)}
    return dict(sorted(finite.items(), key=lambda entry: (-round(entry[1], 12), entry[0])))
