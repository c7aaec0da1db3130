"""From Optuna's storage to the files of a study: tables of trials, and what was best.

The storage is the truth. Everything here can be made of it again.
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
    """What the storage holds of every cell. Raises InputError for trials of another definition."""
    found = []
    for cell in study.cells:
        with quiet():
            of_cell = study_of(study, cell, storage)
            now = trial_slots(of_cell.get_trials(deepcopy=False), study.spec.trials)
        found.append(CellTrials(cell, of_cell, now.finished))
    return tuple(found)


def collect_study(study: Study, place: StudyLocation) -> Tuning:
    """Write study.yaml, study.json and the tables of a study. Raises InputError."""
    Store(place.folder).sweep()
    with place.losable():
        arms = stored_trials(study, place.open(waits=True))
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
    write_study(place.folder, study.text, study_text(record), written)
    return record


def study_text(record: Tuning) -> str:
    """The content of study.json."""
    return record.model_dump_json(indent=1) + "\n"


def tuning(study: Study, found: Sequence[CellTrials]) -> Tuning:
    """What a study is, and what it found."""
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
        arms=tuple(_arm(one) for one in found),
    )


def _comparisons(study: Study) -> tuple[Comparison, ...]:
    """Those of the ablation between arms that are tuned."""
    tuned = {cell.label for cell in study.cells}
    return tuple(
        entry
        for entry in (question.comparison for question in study.plan.questions)
        if entry.candidate in tuned and entry.baseline in tuned
    )


def _arm(found: CellTrials) -> TunedArm:
    cell, best = found.cell, found.best
    settings = found.settings(best) if best is not None else {}
    spread = _spread(found, best)
    return TunedArm(
        label=cell.label,
        name=cell.planned.name,
        values=cell.planned.values,
        budget=cell.run.budget,
        gradient_batch=cell.run.gradient_batch,
        curvature_batch=cell.run.curvature_batch,
        space=parameters(cell.space, cell.arm),
        horizons={g.estimand: g.horizon for g in cell.goals if math.isfinite(g.horizon)},
        finished=len(found.trials),
        best=best,
        best_value=None if best is None else found.trials[best].values[0],
        least=min(spread, default=None),
        largest=max(spread, default=None),
        settings=settings,
        optimizer=cell.optimizer(settings) if best is not None else {},
        at_edge=_at_edge(found, best),
        importances=_importances(found),
    )


def _spread(found: CellTrials, best: int | None) -> list[float]:
    """What the best trial cost on each tuning seed."""
    if best is None:
        return []
    name = found.cell.goals[0].estimand
    costs = [seed[name] for seed in found.trials[best].user_attrs.get("seeds", [])]
    return [float(cost) for cost in costs if cost is not None]


def _at_edge(found: CellTrials, best: int | None) -> tuple[str, ...]:
    if best is None:
        return ()
    there = found.trials[best].params
    return tuple(
        one.name
        for one, _ in all_of(found.cell.space)
        if isinstance(one, Range) and one.name in there and one.at_edge(there[one.name])
    )


def _importances(found: CellTrials) -> dict[str, float]:
    """PED-ANOVA (Watanabe et al., 2023); nothing where too few trials are completed."""
    try:
        with quiet():
            shares = optuna.importance.get_param_importances(
                found.optuna, target=lambda trial: float(trial.values[0])
            )
    except (ValueError, RuntimeError):  # one trial, or all values alike
        return {}
    finite = {name: float(share) for name, share in shares.items() if math.isfinite(share)}
    return dict(sorted(finite.items(), key=lambda one: (-round(one[1], 12), one[0])))
