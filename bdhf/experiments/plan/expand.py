"""From a spec to the cells of a plan: every arm with every seed, each with the id of its run.

A combination of a grid makes arms of its own, labelled by what varies in them: `hf partition=full`.
Combinations that do not change the runs of an arm leave it one arm. No model is built for it: which
cells are not run, and why, a second pass says (`limits`).
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
    """One place in the table of results. Two cells with the same content share one run."""

    arm: str  # its label
    seed: int
    run: RunSpec
    skip: str = ""  # why it cannot or shall not be run, once `limits` has said so; "": run it
    run_id: str = ""  # that of `run`

    def __post_init__(self) -> None:
        """Fill in the id where a plan has not done so."""
        object.__setattr__(self, "run_id", self.run_id or self.run.run_id)


@dataclass(frozen=True)
class Excluded:
    """An arm of the spec in a combination in which the spec leaves it out."""

    arm: str
    combination: str  # in words
    why: str  # the entry of `exclude`


@dataclass(frozen=True)
class Plan:
    """What an ablation consists of: arms by their labels, their cells, and what is asked."""

    arms: tuple[PlannedArm, ...]
    cells: tuple[Cell, ...]
    questions: tuple[Question, ...]
    excluded: tuple[Excluded, ...] = ()

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """What is compared: every question that is not of a run against itself."""
        return tuple(q.comparison for q in self.questions if not q.is_of_twins)

    @property
    def twins(self) -> tuple[Comparison, ...]:
        """What is not compared, since both arms are the same runs."""
        return tuple(q.comparison for q in self.questions if q.is_of_twins)


def expand(variants: Sequence[Variant]) -> Plan:
    """Every arm with every seed; seed by seed, so that pairs are complete as early as can be."""
    spec = variants[0].spec
    places = {name: _arms(name, variants) for name in spec.arms}
    arms = {arm.label: arm for of_one in places.values() for arm in of_one if arm}
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
    """The arm that an arm of the spec is in each combination: one, where its runs are one."""
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
    """The axes on which runs differ: without the others, the rest still tells which run it is.

    Those of other arms change the runs of this one by `settings` alone, and are the first to be
    left out; its own are the last.
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
    """The place of an axis in the label of an arm: its own, then the shared, then another arm's."""
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
