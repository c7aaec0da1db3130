"""The ablation of a study on held-out seeds: tuned against default settings, and tuned arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from bdhf.records import Comparison, Records, StudyRecords, TunedArm, Tuning, load
from bdhf.report.ablation.figures.forest import draw_forest
from bdhf.report.ablation.figures.scaling import draw_scaling
from bdhf.report.ablation.render import progress_of
from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.stats.caveats.twins import not_compared
from bdhf.stats.compare import compare
from bdhf.stats.result import Result, Verdict
from bdhf.stats.scaling.scaling import batch_scaling as fits_of
from bdhf.stats.scaling.scaling import drawn
from bdhf.stats.text.sentences import sentence

SECTION = "Held out"
_SUFFIX = ".tuned"


@dataclass(frozen=True)
class HeldOut:
    """The results on held-out seeds, each with its sentence, and their figures."""

    results: tuple[Result, ...]
    sentences: tuple[str, ...]
    drawings: tuple[Drawing, ...]
    progress: str  # how many runs are finished; "": all
    not_compared: tuple[str, ...] = ()  # comparisons whose arms were tuned to the same runs

    @property
    def answers(self) -> tuple[tuple[Result, str], ...]:
        """The results with their sentences."""
        return tuple(zip(self.results, self.sentences, strict=True))


def hold_out(records: StudyRecords) -> HeldOut | None:
    """Compare the runs in the folder `held_out`; None without that folder.

    Raises InputError for a folder that cannot be read.
    """
    if records.held_out is None:
        return None
    ablation = load(records.held_out).in_order()
    results = compare(ablation)
    return HeldOut(
        results=results,
        sentences=tuple(sentence(result) for result in results),
        drawings=(*_effects(ablation, results), *_scaling(ablation)),
        progress=progress_of(ablation),
        not_compared=not_compared(_tuned_alike(records.study)),
    )


def final_verdicts(records: StudyRecords, results: Sequence[Result]) -> Mapping[str, Verdict]:
    """The verdicts on held-out seeds of the comparisons of a study, by name, between tuned arms.

    Arms that were tuned to the same runs are undecided.
    """
    study = records.study
    target = study.target.label if study.target else ""
    held_out = {(r.candidate, r.baseline, r.estimand, r.target): r.verdict for r in results}
    names = {arm.label: arm.name for arm in study.arms}
    alike = _tuned_alike(study) if results else ()
    verdicts = {entry.name: Verdict.UNDECIDED for entry in alike}
    for entry in study.comparisons:
        sides = [_tuned(label, names.get(label, label))
                 for label in (entry.candidate, entry.baseline)]  # fmt: skip
        key = (sides[0], sides[1], entry.estimand, target if entry.is_to_target else "")
        if key in held_out:
            verdicts[entry.name] = held_out[key]
    return verdicts


def _tuned_alike(study: Tuning) -> tuple[Comparison, ...]:
    """The comparisons of a study whose two arms have the same best settings, so the same runs."""
    arms = {arm.label: arm for arm in study.arms if arm.best is not None}
    pairs = ((e, arms.get(e.candidate), arms.get(e.baseline)) for e in study.comparisons)
    return tuple(
        entry
        for entry, candidate, baseline in pairs
        if candidate and baseline and _runs(candidate) == _runs(baseline)
    )


def _runs(arm: TunedArm) -> tuple[object, ...]:
    """What determines the runs of a tuned arm, apart from what all arms of a study share."""
    return arm.optimizer, arm.gradient_batch, arm.curvature_batch, arm.budget


def _tuned(label: str, name: str) -> str:
    """The label of an arm with the best settings: `hf gradient=500` -> `hf.tuned gradient=500`."""
    return f"{name}{_SUFFIX}{label.removeprefix(name)}"


def _effects(ablation: Records, results: Sequence[Result]) -> tuple[Drawing, ...]:
    figures = draw_forest(Evidence(ablation, pd.DataFrame(), results))
    return tuple(replace(drawing, section=SECTION) for drawing in figures)


def _scaling(ablation: Records) -> tuple[Drawing, ...]:
    """Updates of the tuned arms against the batch size, from three sizes on."""
    if ablation.curves.empty:
        return ()
    tuned = {arm for arm in ablation.arms if ablation.names.get(arm, arm).endswith(_SUFFIX)}
    tuned_records = replace(
        ablation,
        arms=tuple(arm for arm in ablation.arms if arm in tuned),
        values={arm: v for arm, v in ablation.values.items() if arm in tuned},
    )
    evidence = Evidence(
        tuned_records, pd.DataFrame(), sizes=drawn(tuned_records), scaling=fits_of(tuned_records)
    )
    return tuple(replace(drawing, section=SECTION) for drawing in draw_scaling(evidence))
