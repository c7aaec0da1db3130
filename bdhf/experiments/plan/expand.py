"""From a spec to the cells of a plan: every arm with every seed, each with the id of its run.

Each combination of a grid makes arms, labelled by what varies in them: `hf partition=full`.
Combinations that do not change the runs of an arm give one arm. No model is built here: a second
pass (`limits`) finds the cells that are not run, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bdhf.experiments.errors import Keys
from bdhf.experiments.parts.tables import uses_curvature
from bdhf.experiments.plan.comparisons import Arm, Question, questions
from bdhf.experiments.plan.runspec import RunSpec, ids_of
from bdhf.experiments.spec.grid import Variant, picks_in_words
from bdhf.experiments.spec.schema import Spec
from bdhf.records import Comparison, PlannedArm


@dataclass(frozen=True)
class Cell:
    """One entry of the table of results. Two cells with the same content share one run."""

    arm: str  # its label
    seed: int
    run: RunSpec
    skip: str = ""  # why it is not run, set by `limits`; "": run it
    run_id: str = ""  # that of `run`

    def __post_init__(self) -> None:
        """Compute the id if the plan does not supply it."""
        object.__setattr__(self, "run_id", self.run_id or self.run.run_id)


@dataclass(frozen=True)
class Excluded:
    """An arm of the spec in a combination from which the spec excludes it."""

    arm: str
    combination: str  # in words
    why: str  # the entry of `exclude`


@dataclass(frozen=True)
class Plan:
    """The content of an ablation: arms by their labels, their cells, and the questions."""

    arms: tuple[PlannedArm, ...]
    cells: tuple[Cell, ...]
    questions: tuple[Question, ...]
    excluded: tuple[Excluded, ...] = ()

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The comparisons: every question except those of a run with itself."""
        return tuple(q.comparison for q in self.questions if not q.is_of_twins)

    @property
    def twins(self) -> tuple[Comparison, ...]:
        """The comparisons that are not made, because both arms are the same runs."""
        return tuple(q.comparison for q in self.questions if q.is_of_twins)


def expand(variants: Sequence[Variant]) -> Plan:
    """Every arm with every seed; seed by seed, so that pairs are complete early."""
    spec = variants[0].spec
    places = {name: _arms(name, variants) for name in spec.arms}
    arms = {arm.label: arm for by_variant in places.values() for arm in by_variant if arm}
    order = {arm.label: arm for together in zip(*places.values(), strict=True)
             for arm in together if arm}  # fmt: skip
    seeds = range(spec.seeds.base, spec.seeds.base + spec.seeds.count)
    ids = {label: ids_of(arm.run, seeds) for label, arm in order.items()}
    return Plan(
        arms=tuple(_planned(arm) for arm in arms.values()),
        cells=tuple(
            Cell(label, seed, arm.run.model_copy(update={"seed": seed}), run_id=ids[label][i])
            for i, seed in enumerate(seeds)
            for label, arm in order.items()
        ),
        questions=questions(spec.compare, places, variants),
        excluded=tuple(
            Excluded(name, picks_in_words(variant.picks), left.why)
            for variant in variants
            for name, left in variant.excluded.items()
        ),
    )


def plan_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """The rows of plan.parquet: `arm, seed, run_id, skip`."""
    rows = [(cell.arm, cell.seed, cell.run_id, cell.skip) for cell in cells]
    return pd.DataFrame(rows, columns=["arm", "seed", "run_id", "skip"])


def _arms(name: str, variants: Sequence[Variant]) -> list[Arm | None]:
    """The arm of each combination for one arm of the spec; equal runs give one arm."""
    kept = [variant for variant in variants if name not in variant.excluded]
    runs = [_run(v.spec, name, v.spec.seeds.base) for v in kept]
    ids = [run.run_id for run in runs]
    axes = _axes(name, ids, kept)
    arms: dict[str, Arm] = {}
    for run_id, run, variant in zip(ids, runs, kept, strict=True):
        if run_id not in arms:
            picks = [pick for pick in variant.picks if pick.axis in axes]
            picks.sort(key=lambda pick: _rank(pick.target, name))
            label = " ".join(filter(None, [name, picks_in_words(picks, name)]))
            arms[run_id] = Arm(label, name, tuple(picks), variant.spec, run, run_id)
    remaining_ids = iter(ids)
    return [None if name in variant.excluded else arms[next(remaining_ids)] for variant in variants]


def _axes(name: str, ids: Sequence[str], variants: Sequence[Variant]) -> list[str]:
    """The axes that the label needs: their values determine the run.

    Axes of other arms change the runs of this arm only by `settings`, and are dropped first; its
    own axes are dropped last.
    """
    picks = {pick.axis: pick for variant in variants for pick in variant.picks}
    axes = sorted(picks, key=lambda axis: -_rank(picks[axis].target, name))
    for axis in tuple(axes):
        rest = [other for other in axes if other != axis]
        seen: dict[tuple[str, ...], str] = {}
        if all(
            seen.setdefault(_key(v, rest), run) == run for v, run in zip(variants, ids, strict=True)
        ):
            axes = rest
    return axes


def _rank(target: Keys, name: str) -> int:
    """The rank of an axis in the label of an arm: own axes, shared axes, axes of another arm."""
    if target[0] != "arms":
        return 1
    return 0 if target[1] == name else 2


def _key(variant: Variant, axes: Sequence[str]) -> tuple[str, ...]:
    words = {pick.axis: pick.words for pick in variant.picks}
    return tuple(words.get(axis, "") for axis in axes)


def _planned(arm: Arm) -> PlannedArm:
    return PlannedArm(
        label=arm.label,
        name=arm.name,
        values={pick.axis: pick.words for pick in arm.picks},
        budget=arm.spec.budget,
        evaluate_every=arm.spec.evaluate.every_updates,
    )


def _run(spec: Spec, name: str, seed: int) -> RunSpec:
    arm = spec.arms[name]
    return RunSpec(
        problem=spec.problem,
        optimizer=arm,
        gradient_batch=spec.batch.gradient,
        curvature_batch=spec.batch.curvature_samples if uses_curvature(arm) else None,
        seed=seed,
        dtype=spec.dtype,
        threads=spec.threads,
        budget=spec.budget,
        stop_at=spec.targets if spec.stop == "at_target" else (),
        evaluate_every=spec.evaluate.every_updates,
        off_block_energy=spec.evaluate.off_block_energy if uses_curvature(arm) else None,
    )
