"""From a spec to the cells of a plan: every arm with every seed, each with the id of its run.

A combination of a grid makes arms of its own, labelled by what varies in them: `hf partition=full`.
Combinations that do not change the runs of an arm leave it one arm.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

from bdhf.experiments.build import uses_curvature
from bdhf.experiments.compatibility import too_costly, too_many_rows, why_not
from bdhf.experiments.grid import Combination, Variant, in_words
from bdhf.experiments.parts import Resolved
from bdhf.experiments.schema import Spec
from bdhf.optim import ALGORITHM_VERSION
from bdhf.records import Budget, Comparison, PlannedArm, Strict, Target


class RunSpec(Strict):
    """Everything that changes the result of one run, and nothing else."""

    algorithm: int = ALGORITHM_VERSION
    problem: Resolved
    optimizer: Resolved
    gradient_batch: int
    curvature_batch: int | None  # None: the gradient batch itself, or an arm without curvature
    seed: int
    dtype: Literal["float32", "float64"]
    threads: int
    budget: Budget
    stop_at: tuple[Target, ...]  # ends the run once all are hit; empty: at the budget
    evaluate_every: int  # updates
    off_block_energy: int | None = None  # probes at each evaluation; None: not asked

    @property  # not cached: a copy of a model takes cached values with it
    def run_id(self) -> str:
        """A hash of the content: 1 and 1.0, and any order of keys, are the same."""
        canonical = json.dumps(_canonical(self.model_dump(mode="json")), sort_keys=True)
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class Cell:
    """One place in the table of results. Two cells with the same content share one run."""

    arm: str  # its label
    seed: int
    run: RunSpec
    skip: str = ""  # why it cannot or shall not be run; "": run it


@dataclass(frozen=True)
class Plan:
    """What an ablation consists of: arms by their labels, their cells, and what is compared."""

    arms: tuple[PlannedArm, ...]
    cells: tuple[Cell, ...]
    comparisons: tuple[Comparison, ...]


@dataclass(frozen=True)
class _Arm:
    """An arm of the spec, in the combinations in which its runs are the same."""

    label: str
    name: str  # in the spec
    picks: Combination  # on the axes on which its runs differ
    spec: Spec  # the first of these combinations
    run_id: str  # with the first seed
    skip: str


def expand(variants: Sequence[Variant]) -> Plan:
    """Every arm with every seed; seed by seed, so that pairs are complete as early as can be."""
    spec = variants[0].spec
    places = {name: _arms(name, variants) for name in spec.arms}  # a list by combination
    arms = {arm.label: arm for places_of_one in places.values() for arm in places_of_one}
    order = {arm.label: arm for together in zip(*places.values(), strict=True) for arm in together}
    return Plan(
        arms=tuple(_planned(arm) for arm in arms.values()),
        cells=tuple(
            Cell(arm.label, seed, _run(arm.spec, arm.name, seed), arm.skip)
            for seed in range(spec.seeds.base, spec.seeds.base + spec.seeds.count)
            for arm in order.values()
        ),
        comparisons=_comparisons(spec.compare, places, variants),
    )


def to_table(cells: Sequence[Cell]) -> pd.DataFrame:
    """The rows of plan.parquet: `arm, seed, run_id, skip`."""
    rows = [(cell.arm, cell.seed, cell.run.run_id, cell.skip) for cell in cells]
    return pd.DataFrame(rows, columns=["arm", "seed", "run_id", "skip"])


def _arms(name: str, variants: Sequence[Variant]) -> list[_Arm]:
    """The arm that an arm of the spec is in each combination: one, where its runs are one."""
    ids = [_run(v.spec, name, v.spec.seeds.base).run_id for v in variants]
    axes = _axes(ids, variants)
    arms: dict[str, _Arm] = {}
    for run_id, variant in zip(ids, variants, strict=True):
        if run_id not in arms:
            picks = [pick for pick in variant.picks if pick.axis in axes]
            picks.sort(key=lambda pick: pick.target[0] != "arms")  # its own before the shared
            label = " ".join(filter(None, [name, in_words(picks)]))
            skip = _skip(variant.spec, name)
            arms[run_id] = _Arm(label, name, tuple(picks), variant.spec, run_id, skip)
    return [arms[run_id] for run_id in ids]


def _axes(ids: Sequence[str], variants: Sequence[Variant]) -> list[str]:
    """The axes on which runs differ: without the others, the rest still tells which run it is."""
    axes = list(dict.fromkeys(pick.axis for variant in variants for pick in variant.picks))
    for axis in tuple(axes):
        rest = [other for other in axes if other != axis]
        seen: dict[tuple[str, ...], str] = {}
        if all(
            seen.setdefault(_key(v, rest), run) == run for v, run in zip(variants, ids, strict=True)
        ):
            axes = rest
    return axes


def _key(variant: Variant, axes: Sequence[str]) -> tuple[str, ...]:
    words = {pick.axis: pick.words for pick in variant.picks}
    return tuple(words.get(axis, "") for axis in axes)


def _comparisons(
    entries: Sequence[Comparison],
    places: Mapping[str, Sequence[_Arm]],
    variants: Sequence[Variant],
) -> tuple[Comparison, ...]:
    """Every entry once per pair of arms that a combination brings together."""
    found: dict[tuple[str, str, str], Comparison] = {}
    for entry in entries:
        sides = places[entry.candidate], places[entry.baseline]
        axes = {pick.axis for side in sides for arm in side for pick in arm.picks}
        for variant, candidate, baseline in zip(variants, *sides, strict=True):
            if variant.picks and candidate.run_id == baseline.run_id:
                continue  # nobody compares a run with itself
            words = in_words([pick for pick in variant.picks if pick.axis in axes])
            update = {
                "name": " ".join(filter(None, [entry.name, words])),
                "candidate": candidate.label,
                "baseline": baseline.label,
            }
            key = (entry.name, candidate.label, baseline.label)
            found.setdefault(key, entry.model_copy(update=update))
    return tuple(found.values())


def _planned(arm: _Arm) -> PlannedArm:
    return PlannedArm(
        label=arm.label,
        name=arm.name,
        values={pick.axis: pick.words for pick in arm.picks},
        budget=arm.spec.budget,
        evaluate_every=arm.spec.evaluate.every_updates,
    )


def _skip(spec: Spec, name: str) -> str:
    arm = spec.arms[name]
    return why_not(arm, spec.problem) or too_many_rows(spec, arm) or too_costly(spec, arm)


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


def _canonical(value: Any) -> Any:
    """Whole floats as integers, and nothing that is null: a key added later changes no id."""
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
