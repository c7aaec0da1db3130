"""The plan of a report against the one that its spec gives: whether runs were left out of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from bdhf.experiments.beside import look_beside
from bdhf.experiments.cost import together
from bdhf.experiments.plan import Plan, expand
from bdhf.experiments.source import parse
from bdhf.experiments.spec import variants
from bdhf.records import Records


def unplanned(records: Records, report: Path) -> tuple[str, ...]:
    """What the records have otherwise than the plan of their spec, in words; () for nothing.

    A user's own parts are looked for beside the report. Raises SpecError for a spec that cannot be
    run here.
    """
    look_beside(report)
    found = variants(parse(records.spec_text, f"{report}: its spec"))
    with together():
        plan = expand(found)
    spec = found[0].spec
    said = {
        "name": (records.name, spec.name),
        "alpha": (records.alpha, spec.alpha),
        "targets": (records.targets, spec.targets),
        "arms": (sorted(records.arms), sorted(arm.label for arm in plan.arms)),
        "budgets": (dict(records.budgets), {arm.label: arm.budget for arm in plan.arms}),
        "intervals": (dict(records.intervals), {a.label: a.evaluate_every for a in plan.arms}),
        "comparisons": (records.comparisons, plan.comparisons),
        "stop": (records.stops_at_target, spec.stop == "at_target"),
    }
    others = (f"{name}: {a!r} in the report, {b!r} by its spec"
              for name, (a, b) in said.items() if a != b)  # fmt: skip
    return (*others, *_cells(records, plan))


def _cells(records: Records, plan: Plan) -> Iterator[str]:
    """Cells that only one side has; a run of another id has another content."""
    carried = _by_cell(records.runs[["arm", "seed", "run_id"]].itertuples(index=False, name=None))
    planned = _by_cell((cell.arm, cell.seed, cell.run_id) for cell in plan.cells)
    for cell in dict.fromkeys([*planned, *carried]):
        one, other = carried.get(cell), planned.get(cell)
        name = f"{cell[0]} seed {cell[1]}"
        if one is None:
            yield f"{name}: planned by the spec, and left out of the report"
        elif other is None:
            yield f"{name}: in the report, not planned by its spec"
        elif one != other:
            yield f"{name}: run {one} in the report, {other} by its spec"


def _by_cell(rows: Iterable[tuple[str, int, str]]) -> dict[tuple[str, int], str]:
    return {(arm, int(seed)): run_id for arm, seed, run_id in rows}
