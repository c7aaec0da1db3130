"""What the page of a study tabulates and says beside its figures: every trial, and the verdicts."""

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
    """One trial, in words."""

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
    """A table for every cell; none of its trials is left out."""
    return tuple(_table(evidence.records, cell) for cell in evidence.cells)


def facts(records: StudyRecords) -> tuple[str, ...]:
    """The study in short."""
    study = records.study
    names = {arm.name for arm in study.arms}
    cells = counted(len(study.arms), "cell") + " (arms at their batch sizes)"
    seeds = counted(len(study.seeds), "tuning seed")
    return (
        counted(len(names), "arm"),
        *([cells] if len(study.arms) > len(names) else []),
        f"{counted(study.trials, 'trial')} of each",
        f"{seeds} ({listed([str(seed) for seed in study.seeds])})",
        f"objective {listed([question(records, name) for name in study.objectives])}",
        f"sampler {study.sampler}",
        f"pruner {study.pruner}",
        f"ablation {study.ablation}",
    )


def verdict_words(evidence: StudyEvidence) -> tuple[str, ...]:
    """A sentence or two for every comparison: does its verdict hang on the number of trials?"""
    return tuple(_about(ahead, evidence.verdicts) for ahead in evidence.ahead)


def not_in_study(evidence: StudyEvidence) -> str:
    """The comparisons of the ablation that the study says nothing of, and why; "": none."""
    told = {ahead.name for ahead in evidence.ahead}
    objectives = evidence.records.study.objectives
    left = [entry for entry in evidence.records.study.comparisons if entry.name not in told]
    other = [f"{e.name} ({unit_of(e.estimand)})" for e in left if e.estimand not in objectives]
    short = [entry.name for entry in left if entry.estimand in objectives]
    parts = []
    if other:
        parts.append(f"Not shown, since the study did not tune it: {listed(other)}.")
    if short:
        parts.append(f"Not shown, since an arm has no trial yet: {listed(short)}.")
    return " ".join(parts)


def _about(ahead: Ahead, verdicts: Mapping[str, Verdict]) -> str:
    held_out = verdicts.get(ahead.name)
    parts = [f"{ahead.name}: {_held(ahead, held_out)}.", _seen(ahead)]
    for k, leader, rival in (
        (ahead.ahead_of_all, ahead.candidate, ahead.baseline),
        (ahead.behind_of_all, ahead.baseline, ahead.candidate),
    ):
        if k:
            parts.append(
                f"The best of only {counted(k, 'trial')} of {leader} is ahead of the best of all "
                f"{ahead.trials} of {rival}."
            )
    return " ".join(parts)


def _held(ahead: Ahead, held_out: Verdict | None) -> str:
    """Whether the verdict holds, and from how many trials on."""
    where = "on held-out seeds" if held_out else "on the tuning seeds, with no held-out verdict yet"
    verdict = held_out or ahead.leads
    if verdict not in (Verdict.BETTER, Verdict.WORSE):
        return f"{verdict} {where}, so there is no verdict that could hold from some k on"
    first = ahead.holds_from(verdict)
    if first is None:
        level = percent(1 - ahead.alpha)
        return (
            f"{verdict} {where}, but after no number of trials up to {ahead.trials} do {level} of "
            "the resamples of the tuning agree: it may hang on the luck of the search"
        )
    return f"{verdict} {where}, and so in tuning from {counted(first, 'trial')} of each on"


def _seen(ahead: Ahead) -> str:
    share = f"{100 * ahead.shares[-1]:.3g} %"
    ends = interval(ahead.lows[-1], ahead.highs[-1], mark=1.0)
    return (
        f"With all {counted(ahead.trials, 'trial')}, {ahead.candidate} is ahead of {ahead.baseline} in "
        f"{share} of the resamples; its best is {number(ahead.ratios[-1], mark=1.0)}× the other’s "
        f"({ends})."
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
    """A value with what it is counted as; of the first objective a miss is told in words too."""
    value = float(str(row[objective]))
    words = number(value)
    if objective != objectives[0]:
        return words
    told = value_words(cell, value, done=row["kind"] != FAILED)
    return words if told == words else f"{words} ({told})" if words != told else told
