"""The plan of a report against the plan of its spec: whether runs were left out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from bdhf.experiments.parts.user_modules import look_beside
from bdhf.experiments.plan.expand import Plan, expand
from bdhf.experiments.plan.limits import with_skips
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.schema import Safety, Spec
from bdhf.experiments.spec.yaml_source import parse
from bdhf.records import Records, Status


def unplanned(records: Records, report: Path) -> tuple[str, ...]:
    """The differences between the records and the plan of their spec, in words; () for none.

    A user's own parts are looked for in the folder of the report. Raises SpecError for a spec that
    cannot be run here.
    """
    look_beside(report)
    specs = variants(parse(records.spec_text, f"{report}: its spec"))
    plan = expand(specs)
    both = _both_sides(records, specs[0].spec, plan)
    others = (f"{name}: {a!r} in the report, {b!r} by its spec"
              for name, (a, b) in both.items() if a != b)  # fmt: skip
    return (*others, *_cells(records, plan), *_skipped(records, plan, specs[0].spec.safety))


def _both_sides(records: Records, spec: Spec, plan: Plan) -> dict[str, tuple[Any, Any]]:
    """Everything except cells that the page depends on: in the records, and by the spec."""
    arms = {arm.label: arm for arm in plan.arms}
    budgets = {label: arm.budget for label, arm in arms.items()}
    intervals = {label: arm.evaluate_every for label, arm in arms.items()}
    return {
        "name": (records.name, spec.name),
        "alpha": (records.alpha, spec.alpha),
        "targets": (records.targets, spec.targets),
        "arms": (sorted(records.arms), sorted(arms)),
        "arms of the spec": (dict(records.names), {a: arm.name for a, arm in arms.items()}),
        "grid": (_plain(records.values), _plain({a: arm.values for a, arm in arms.items()})),
        "budgets": (dict(records.budgets), budgets),
        "largest budget": (records.budget.limit, max(b.limit for b in budgets.values())),
        "intervals": (dict(records.intervals), intervals),
        "largest interval": (records.evaluate_every, max(intervals.values())),
        "comparisons": (records.comparisons, plan.comparisons),
        "not compared": (records.twins, plan.twins),
        "questions": (records.questions, tuple(entry.name for entry in spec.compare)),
        "stop": (records.stops_at_target, spec.stop == "at_target"),
        "figures": (records.figures, spec.report.figures),
        "safety.seconds": (records.safety_seconds, spec.safety.seconds),
        "tuned_from": (records.tuning and records.tuning.study, spec.tuned_from),
    }


def _plain(values: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    return {arm: dict(of_arm) for arm, of_arm in values.items()}


def _cells(records: Records, plan: Plan) -> Iterator[str]:
    """Cells that only one side has, or with another run id, and so with other content."""
    carried = _by_cell(records.runs[["arm", "seed", "run_id"]].itertuples(index=False, name=None))
    planned = _by_cell((cell.arm, cell.seed, cell.run_id) for cell in plan.cells)
    for cell in dict.fromkeys([*planned, *carried]):
        reported, expected = carried.get(cell), planned.get(cell)
        name = f"{cell[0]} seed {cell[1]}"
        if reported is None:
            yield f"{name}: planned by the spec, and left out of the report"
        elif expected is None:
            yield f"{name}: in the report, not planned by its spec"
        elif reported != expected:
            yield f"{name}: run {reported} in the report, {expected} by its spec"


def _skipped(records: Records, plan: Plan, safety: Safety) -> Iterator[str]:
    """Cells that the report states as skipped, but the plan does not skip."""
    rows = records.runs[records.runs["status"] == str(Status.SKIPPED)]
    skipped = [(arm, int(seed)) for arm, seed in rows[["arm", "seed"]].itertuples(False, None)]
    cells = {(cell.arm, cell.seed): cell for cell in plan.cells}
    asked = replace(plan, cells=tuple(cells[key] for key in skipped if key in cells))
    left_out = {(cell.arm, cell.seed) for cell in with_skips(asked, safety).cells if cell.skip}
    for arm, seed in skipped:
        if (arm, seed) not in left_out:
            yield f"{arm} seed {seed}: skipped in the report, not skipped by its spec"


def _by_cell(rows: Iterable[tuple[str, int, str]]) -> dict[tuple[str, int], str]:
    return {(arm, int(seed)): run_id for arm, seed, run_id in rows}
