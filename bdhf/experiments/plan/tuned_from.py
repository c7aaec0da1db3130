"""How the settings of an ablation were tuned: its arms, compared with the record of its study.

    tuned_from: studies/block_vs_full

An arm is `tuned` if the study chose exactly its settings, on the same problem and at the same batch
sizes, under any name. Any other arm is compared with the arm of its name in the record, to report
the differences.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bdhf.experiments.plan.expand import Plan
from bdhf.experiments.plan.runspec import RunSpec, canonical
from bdhf.records import STUDY_FILE, ArmTuning, InputError, Tuned, TunedArm, Tuning, read_tuning
from bdhf.records.disk.files import table_sums
from bdhf.records.tuning import TRIALS_FILE
from bdhf.text.formatting import short

#: How many differing settings of an arm are named.
_NAMED = 6


def tuned(study: str, beside: Path, results: Path, plan: Plan) -> Tuned:
    """The tuning of the arms of a plan by a study, `studies/NAME`.

    Its record is `NAME.tuning.json` or study.json in the folder of the spec, `beside`; else
    study.json in `studies/NAME` of the folder `results`. A missing or unreadable record is
    reported in `missing`.
    """
    name = study.removeprefix("studies/")
    last = name.rpartition("/")[2]
    copy, own = beside / f"{last}.tuning.json", results / "studies" / name / STUDY_FILE
    record_file = next((file for file in (copy, beside / STUDY_FILE, own) if file.exists()), None)
    if record_file is None:
        neither = f"neither {copy} nor {own} exists"
        return Tuned(study=study, missing=f"{neither}: `bdhf tune STUDY --write SPEC` writes both")
    try:
        record = read_tuning(record_file, table_sums(record_file.with_name(TRIALS_FILE)))
    except InputError as error:
        return Tuned(study=study, missing=error.lines[0])
    if record.name != last:
        return Tuned(study=study, missing=f"{record_file}: is the record of study {record.name!r}")
    return _compared(study, record, plan)


def _compared(study: str, record: Tuning, plan: Plan) -> Tuned:
    """The arms of a plan, compared with a record."""
    runs = {cell.arm: cell.run for cell in reversed(plan.cells)}
    return Tuned(
        study=study,
        objective=record.objectives[0],
        target=record.target.label if record.target else "",
        seeds=record.seeds,
        shared_seeds=tuple(sorted({cell.seed for cell in plan.cells} & {*record.seeds})),
        sampler=record.sampler,
        pruner=record.pruner,
        arms={arm.label: _arm(arm.name, runs[arm.label], record) for arm in plan.arms},
    )


def _arm(name: str, run: RunSpec, record: Tuning) -> ArmTuning:
    """One arm of a plan, compared with equal content in the record, then with the same name."""
    problem = list(_differences(run.problem, record.problem))
    whole = [arm for arm in record.arms if arm.best is not None]
    namesakes = [arm for arm in whole if arm.name == name]
    here = [arm for arm in whole if not problem and _is_here(arm, run)]
    for arm in here:
        if canonical(arm.optimizer) == canonical(run.optimizer):
            return _chosen(arm, record)
    for arm in here:
        if arm.name == name:
            other = list(_differences(run.optimizer, arm.optimizer))
            return ArmTuning(how="changed", why=_few(other), trials=arm.finished)
    if namesakes:
        return ArmTuning(how="elsewhere", why=_where(namesakes, run, problem))
    tried = [arm for arm in record.arms if arm.name == name]
    return ArmTuning(how="untuned", why="no trial of it was completed" if tried else "")


def _chosen(arm: TunedArm, record: Tuning) -> ArmTuning:
    value, horizon = arm.best_value, arm.horizons.get(record.objectives[0])
    return ArmTuning(
        how="tuned",
        trials=arm.finished,
        best=value,
        missed=value is not None and horizon is not None and value > horizon,
        low=arm.least,
        high=arm.largest,
        at_edge=arm.at_edge,
    )


def _is_here(arm: TunedArm, run: RunSpec) -> bool:
    """Whether an arm was tuned at the batch sizes of a run."""
    sizes = run.gradient_batch, run.curvature_batch
    return (arm.gradient_batch, arm.curvature_batch) == sizes


def _where(arms: list[TunedArm], run: RunSpec, problem: list[str]) -> str:
    """Where an arm was tuned instead, in words."""
    if problem:
        return f"tuned on another problem: {_few(problem)}"
    here = [arm for arm in arms if arm.gradient_batch == run.gradient_batch]
    if here:
        sizes = sorted({arm.curvature_batch or arm.gradient_batch for arm in here})
        return f"curvature batch {run.curvature_batch or run.gradient_batch}, tuned at {_or(sizes)}"
    sizes = sorted({arm.gradient_batch for arm in arms})
    return f"gradient batch {run.gradient_batch}, tuned at {_or(sizes)}"


def _or(sizes: list[int]) -> str:
    return " and ".join(map(str, sizes))


def _differences(planned: Any, recorded: Any, path: str = "") -> Iterator[str]:
    """`lr 0.3, tuned 0.31` for every key with another value; a part of another type is one.

    >>> list(_differences({"lr": 0.3, "solver": {"type": "cg"}}, {"solver": {"type": "gmres"}}))
    ['lr 0.3, tuned not set', 'solver cg, tuned gmres']
    """
    planned, recorded = canonical(planned), canonical(recorded)
    both = isinstance(planned, Mapping) and isinstance(recorded, Mapping)
    if both and (not path or planned.get("type") == recorded.get("type")):
        for key in dict.fromkeys([*planned, *recorded]):
            inner = f"{path}.{key}" if path else key
            yield from _differences(planned.get(key), recorded.get(key), inner)
    elif planned != recorded:
        planned_text, recorded_text = _in_short(planned), _in_short(recorded)
        if planned_text == recorded_text:
            planned_text, recorded_text = json.dumps(planned), json.dumps(recorded)
        yield f"{path} {planned_text}, tuned {recorded_text}"


def _in_short(value: Any) -> str:
    """A value in short."""
    if value is None:
        return "not set"
    if isinstance(value, float):
        return short(value)
    if isinstance(value, Mapping):
        return str(value.get("type", json.dumps(value)))
    return value if isinstance(value, str) else json.dumps(value)


def _few(differences: list[str]) -> str:
    rest = len(differences) - _NAMED
    return " and ".join([*differences[:_NAMED], *([f"{rest} more"] if rest > 0 else [])])
