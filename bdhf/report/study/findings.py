"""The findings of a study as text: the best settings of every cell, and warnings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from bdhf.records import AXES, LOSSES, StudyRecords
from bdhf.report.page.formatting import listed
from bdhf.report.study.evidence import FAILED, HIT, CellEvidence, StudyEvidence, question
from bdhf.stats.studies.trials import PRUNED
from bdhf.text.formatting import NONE, counted, number, whole


@dataclass(frozen=True)
class Finding:
    """The finding of one cell, as text."""

    arm: str  # its label
    trial: str  # the best trial
    value: str
    spread: str  # smallest and largest over the tuning seeds
    hits: str
    default: str  # the value of trial 0
    ratio: str  # best ÷ default
    settings: str
    sentence: str


def findings(evidence: StudyEvidence) -> tuple[Finding, ...]:
    """The finding of every cell, in the order of the study."""
    return tuple(_finding(evidence, cell) for cell in evidence.cells)


def notices(evidence: StudyEvidence) -> tuple[str, ...]:
    """Warnings: cells in which no trial hit, and best settings at an end of their range."""
    study = evidence.records.study
    tried = [cell for cell in evidence.cells if len(cell.trials)]
    lost = [cell for cell in tried if study.target and not cell.hit]
    edges: dict[tuple[str, str], list[CellEvidence]] = {}
    for cell in (cell for cell in tried if cell.hit):
        for name in cell.arm.at_edge:
            edges.setdefault((cell.arm.name, name), []).append(cell)
    return (
        *(_all_missed(evidence, cell) for cell in lost),
        *(_at_edge(name, cells) for (_, name), cells in edges.items()),
    )


def unbeaten(evidence: StudyEvidence) -> list[str]:
    """Cells in which no trial improved on trial 0, which has the settings of the spec."""
    return [
        cell.arm.label
        for cell in evidence.cells
        if cell.best is not None and bool(cell.best["is_default"])
    ]


def progress(records: StudyRecords) -> str:
    """How many trials have been made, as text; "" when all have."""
    study = records.study
    if study.is_whole:
        return ""
    planned, made = study.trials * len(study.arms), sum(arm.finished for arm in study.arms)
    short = [f"{a.label} {a.finished} of {study.trials}"
             for a in study.arms if a.finished != study.trials]  # fmt: skip
    return f"{made} of {counted(planned, 'trial')} ({listed(short)})"


def trial_settings(cell: CellEvidence, trial: int) -> dict[str, str]:
    """Parameter -> value as text, for the parameters that a trial has."""
    rows = cell.places[cell.places.index == trial]
    return {
        p.name: p.choices[int(value)] if p.choices else number(value, tidy=True)
        for p in cell.arm.space
        for value in rows[p.name]
        if not math.isnan(value)
    }


def settings_in_words(settings: dict[str, str]) -> str:
    """Settings in one line."""
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


def value_words(cell: CellEvidence, value: float, *, done: bool = True) -> str:
    """The value of a trial; beyond the horizon it is a miss."""
    if math.isnan(value):
        return NONE
    if value <= cell.horizon or math.isnan(cell.horizon):
        return number(value)
    return "missed" if done else FAILED


def hits_words(records: StudyRecords, hits: int, seeds: int) -> str:
    """How many runs reached the target; a tuned loss has no target."""
    return NONE if records.study.target is None else f"{hits} of {seeds}"


def _finding(evidence: StudyEvidence, cell: CellEvidence) -> Finding:
    objective, best = evidence.objective, cell.best
    default = _default(cell)
    first = math.nan if default is None else float(default[objective])
    words = NONE if default is None else _kind_words(cell, default, first)
    if best is None:
        sentence = f"{cell.arm.label}: no completed trial"
        lost = counted(len(cell.trials), "trial")
        sentence += f" ({lost}, all pruned or failed)" if len(cell.trials) else ""
        return Finding(cell.arm.label, NONE, NONE, NONE, NONE, words, NONE, NONE, sentence)
    value = float(best[objective])
    both = best["kind"] == HIT and default is not None and default["kind"] == HIT and first > 0
    ratio = value / first if both else math.nan
    settings = settings_in_words(trial_settings(cell, int(best["trial"])))
    ends = (cell.arm.least, cell.arm.largest)
    low, high = (math.nan if end is None else end for end in ends)
    return Finding(
        arm=cell.arm.label,
        trial=f"{int(best['trial'])} of {len(cell.trials)}",
        value=_kind_words(cell, best, value),
        spread=f"{number(low)} to {number(high)}",
        hits=hits_words(evidence.records, int(best["hits"]), int(best["seeds"])),
        default=words,
        ratio=number(ratio, mark=1.0) + ("×" if not math.isnan(ratio) else ""),
        settings=settings,
        sentence=_sentence(evidence, cell, best, words, ratio, settings),
    )


def _sentence(
    evidence: StudyEvidence,
    cell: CellEvidence,
    best: pd.Series,
    default: str,
    ratio: float,
    settings: str,
) -> str:
    asked = question(evidence.records, evidence.objective)
    made = counted(len(cell.trials), "trial")
    value = float(best[evidence.objective])
    if best["kind"] == FAILED:
        return f"{cell.arm.label}: none of {made} completed; the best ended as {best['status']}"
    if value > cell.horizon:
        return f"{cell.arm.label}: none of {made} reached the target; the nearest has {settings}"
    hits = f"; {int(best['hits'])} of {counted(int(best['seeds']), 'seed')} reached it"
    hits = "" if evidence.objective in LOSSES else hits
    best_words = _measured(number(value), asked)
    best_words = f"{best_words} with {settings} (best of {made}{hits})"
    if bool(best["is_default"]):
        return f"{cell.arm.label}: {best_words}; these are the settings of the spec"
    if not math.isnan(ratio):
        times = number(ratio, mark=1.0)
        return f"{cell.arm.label}: {best_words}, {times}× the value of the spec ({default})"
    return f"{cell.arm.label}: {best_words}; value of the spec: {default}"


def _measured(value: str, asked: str) -> str:
    """A value with its unit: "41 updates to …", and for a loss "final validation loss 0.02"."""
    return f"{asked} {value}" if asked in LOSSES.values() else f"{value} {asked}"


def _default(cell: CellEvidence) -> pd.Series | None:
    rows = cell.trials[cell.trials["is_default"].astype(bool)]
    return None if rows.empty else rows.iloc[0]


def _kind_words(cell: CellEvidence, row: pd.Series, value: float) -> str:
    kinds = {PRUNED: PRUNED, FAILED: str(row["status"])}
    return kinds.get(row["kind"]) or value_words(cell, value)


def _all_missed(evidence: StudyEvidence, cell: CellEvidence) -> str:
    """A warning with how near a run came, and what may help."""
    study = evidence.records.study
    target, budget = study.target, cell.arm.budget
    kinds = cell.trials["kind"].value_counts()
    other = [f"{kinds[kind]} {kind}" for kind in (PRUNED, FAILED) if kind in kinds]
    lost = f" ({listed(other)})" if other else ""
    within = f"{whole(budget.limit)} {AXES[budget.axis][1]}"
    edges = [f"{name} at {_end(cell, name)}" for name in cell.arm.at_edge]
    wider = f"wider ranges ({listed(edges)})" if edges else "wider ranges"
    return (
        f"None of {counted(len(cell.trials), 'trial')} of {cell.arm.label}{lost} reached "
        f"{target.label if target else 'the target'} within {within}. {_nearest(evidence, cell)}"
        f"Possible remedies: a larger budget (budget.{budget.axis} under set in the study), an "
        f"easier target (targets of the ablation), or {wider} in spaces.{cell.arm.name}."
    )


def _nearest(evidence: StudyEvidence, cell: CellEvidence) -> str:
    runs = evidence.records.seeds
    runs = runs[(runs["arm"] == cell.arm.label) & runs["final"].notna()]
    target = evidence.records.study.target
    if runs.empty or target is None:
        return ""
    runs = runs.assign(short=target.short_of(runs["final"].to_numpy(float)))
    row = runs.sort_values(["short", "trial", "seed"], kind="stable").iloc[0]
    ratio = float(row["final"]) / target.value if target.value > 0 else math.nan
    times = f", {number(ratio, mark=1.0)} times the target" if target.value > 0 else ""
    return (
        f"The nearest run ended at {target.metric} {number(row['final'], mark=target.value)}"
        f"{times} (trial {int(row['trial'])}, seed {int(row['seed'])}). "
    )


def _at_edge(name: str, cells: list[CellEvidence]) -> str:
    """A warning that the range of a parameter may be too narrow, and where to widen it."""
    places = listed([f"{_end(cell, name)} ({cell.arm.label})" for cell in cells])
    return (
        f"The best {name} is {places}; better settings may lie beyond. Widen its range in "
        f"spaces.{cells[0].arm.name} of the study and tune again."
    )


def _end(cell: CellEvidence, name: str) -> str:
    parameter = next((p for p in cell.arm.space if p.name == name), None)
    value = cell.places[name].get(cell.arm.best, math.nan) if name in cell.places else math.nan
    if parameter is None or parameter.low is None or parameter.high is None or math.isnan(value):
        return "an end of its range"
    low, high = parameter.low, parameter.high
    middle = math.sqrt(low * high) if parameter.scale == "log" else (low + high) / 2
    words = f"{number(low, tidy=True)} to {number(high, tidy=True)}"
    side = "lower" if value < middle else "upper"
    return f"{number(value, tidy=True)}, the {side} end of its range {words}"
