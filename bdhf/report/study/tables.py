"""Tables and sentences of the page of a study: every trial, and the verdicts."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass

from bdhf.records import StudyRecords, unit_of
from bdhf.report.ablation.tables import EndReason, reason
from bdhf.report.page.formatting import listed
from bdhf.report.study.evidence import FAILED, CellEvidence, StudyEvidence, axis_label, question
from bdhf.report.study.findings import hits_words, settings_in_words, trial_settings, value_words
from bdhf.stats.result import Verdict
from bdhf.stats.studies.tuning_budget import Ahead
from bdhf.text.formatting import counted, interval, number, percent, whole


@dataclass(frozen=True)
class TrialRow:
    """One trial, as text."""

    trial: int
    notes: tuple[str, ...]  # best, default, on the front
    status: str
    values: tuple[str, ...]
    numbers: tuple[str, ...]
    settings: str
    reason: EndReason

    @property
    def is_best(self) -> bool:
        """Whether it is the best of its cell."""
        return "best" in self.notes


@dataclass(frozen=True)
class TrialTable:
    """Every trial of one cell, in the order in which they were made."""

    arm: str
    tally: str
    heads: tuple[str, ...]  # of values and numbers
    rows: tuple[TrialRow, ...]


def trial_tables(evidence: StudyEvidence) -> tuple[TrialTable, ...]:
    """A table for every cell, with all of its trials."""
    return tuple(_table(evidence.records, cell) for cell in evidence.cells)


def facts(records: StudyRecords) -> tuple[str, ...]:
    """The size of the study, its objectives, sampler and pruner."""
    study = records.study
    names = {arm.name for arm in study.arms}
    cells = counted(len(study.arms), "cell") + " (arms at their batch sizes)"
    seeds = counted(len(study.seeds), "tuning seed")
    return (
        counted(len(names), "arm"),
        *([cells] if len(study.arms) > len(names) else []),
        f"{counted(study.trials, 'trial')} each",
        f"{seeds} ({listed([str(seed) for seed in study.seeds])})",
        f"objective {listed([question(records, name) for name in study.objectives])}",
        f"sampler {study.sampler}",
        f"pruner {study.pruner}",
        f"ablation {study.ablation}",
    )


def verdict_words(evidence: StudyEvidence) -> tuple[str, ...]:
    """Sentences on whether the verdict of every comparison depends on the number of trials."""
    return tuple(_about(ahead, evidence.verdicts) for ahead in evidence.ahead)


def not_in_study(evidence: StudyEvidence) -> str:
    """The comparisons of the ablation that the study does not cover, and why; "": none."""
    decided = {ahead.name for ahead in evidence.ahead}
    objectives = evidence.records.study.objectives
    left = [entry for entry in evidence.records.study.comparisons if entry.name not in decided]
    other = [f"{e.name} ({unit_of(e.estimand)})" for e in left if e.estimand not in objectives]
    short = [entry.name for entry in left if entry.estimand in objectives]
    parts = []
    if other:
        parts.append(f"Not shown, because the study did not tune for it: {listed(other)}.")
    if short:
        parts.append(f"Not shown, because an arm has no trial yet: {listed(short)}.")
    return " ".join(parts)


def _about(ahead: Ahead, verdicts: Mapping[str, Verdict]) -> str:
    held_out = verdicts.get(ahead.name)
    parts = [f"{ahead.name}: {_held(ahead, held_out)}.", _seen(ahead)]
    for k, leader, other in (
        (ahead.ahead_of_all, ahead.candidate, ahead.baseline),
        (ahead.behind_of_all, ahead.baseline, ahead.candidate),
    ):
        if k:
            parts.append(
                f"The best of {counted(k, 'trial')} of {leader} is already ahead of the best of "
                f"all {ahead.trials} of {other}."
            )
    return " ".join(parts)


def _held(ahead: Ahead, held_out: Verdict | None) -> str:
    """Whether the verdict holds, and from how many trials on."""
    where = "on held-out seeds" if held_out else "on the tuning seeds (no held-out verdict yet)"
    verdict = held_out or ahead.leads
    if verdict not in (Verdict.BETTER, Verdict.WORSE):
        return f"{verdict} {where}, so no verdict can depend on the number of trials"
    first = ahead.holds_from(verdict)
    if first is None:
        level = percent(1 - ahead.alpha)
        return (
            f"{verdict} {where}, but {level} of the resamples of the tuning agree after no number "
            f"of trials up to {ahead.trials}, so the verdict may depend on the luck of the search"
        )
    return f"{verdict} {where}; the tuning agrees from {counted(first, 'trial')} per arm on"


def _seen(ahead: Ahead) -> str:
    share = f"{100 * ahead.shares[-1]:.3g} %"
    ends = interval(ahead.lows[-1], ahead.highs[-1], mark=1.0)
    return (
        f"With all {counted(ahead.trials, 'trial')}, {ahead.candidate} is ahead of "
        f"{ahead.baseline} in {share} of the resamples; its best value is "
        f"{number(ahead.ratios[-1], mark=1.0)}× the other’s ({ends})."
    )


def _table(records: StudyRecords, cell: CellEvidence) -> TrialTable:
    objectives = records.study.objectives
    kinds = cell.trials["kind"].value_counts().to_dict()
    return TrialTable(
        arm=cell.arm.label,
        tally=listed([f"{n} {kind}" for kind, n in kinds.items()]) or "no trial yet",
        heads=(*(axis_label(name) for name in objectives), "hits", "updates", "seconds"),
        rows=tuple(_row(records, cell, row) for row in cell.trials.to_dict("records")),
    )


def _row(records: StudyRecords, cell: CellEvidence, row: Mapping[Hashable, object]) -> TrialRow:
    objectives, trial = records.study.objectives, int(str(row["trial"]))
    status = str(row["status"])
    notes = {
        "best": trial == cell.arm.best,
        "default": bool(row["is_default"]),
        "on the front": bool(row["on_front"]) and len(objectives) > 1,
    }
    return TrialRow(
        trial=trial,
        notes=tuple(note for note, is_so in notes.items() if is_so),
        status=status,
        values=tuple(_value(cell, objectives, name, row) for name in objectives),
        numbers=(hits_words(records, int(str(row["hits"])), int(str(row["seeds"]))),
                 whole(row["updates"]), number(row["seconds"])),
        settings=settings_in_words(trial_settings(cell, trial)),
        reason=reason(row["reason"]),
    )  # fmt: skip


def _value(
    cell: CellEvidence, objectives: tuple[str, ...], objective: str, row: Mapping[Hashable, object]
) -> str:
    """A value; for the first objective also whether it is a miss or failed."""
    value = float(str(row[objective]))
    words = number(value)
    if objective != objectives[0]:
        return words
    value_text = value_words(cell, value, done=row["kind"] != FAILED)
    return (
        words
        if value_text == words
        else f"{words} ({value_text})"
        if words != value_text
        else value_text
    )
