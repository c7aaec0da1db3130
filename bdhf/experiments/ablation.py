"""An ablation from its spec to its tables: plan, run what is missing, collect."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from bdhf.experiments.cost import estimate, together
from bdhf.experiments.engines.local import default_workers, run_all
from bdhf.experiments.observe import Observer
from bdhf.experiments.plan import Cell, Plan, RunSpec, expand
from bdhf.experiments.provenance import resolve_device
from bdhf.experiments.schema import Spec
from bdhf.experiments.spec import load
from bdhf.experiments.store import Store
from bdhf.records import Status, collect


@dataclass(frozen=True)
class Ablation:
    """A checked spec with its plan and its results folder. Opening one writes nothing."""

    spec: Spec  # of a grid the first combination: name, seeds and targets are those of all
    text: str
    plan: Plan
    threads: int  # of the run that uses the most
    store: Store

    @classmethod
    def open(cls, file: Path, out: Path | None = None) -> Ablation:
        """Read a spec; results go to `out`, by default results/<name>. Raises SpecError."""
        variants, source = load(file)
        spec, threads = variants[0].spec, max(variant.spec.threads for variant in variants)
        store = Store(out or Path("results") / spec.name)
        with together():
            plan = expand(variants)
        return cls(spec, source.text, plan, threads, store)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of the plan."""
        return self.plan.cells

    def labels(self) -> dict[str, str]:
        """Run id -> the cells that it stands for, in words."""
        labels: dict[str, list[str]] = {}
        for cell in self.cells:
            labels.setdefault(cell.run.run_id, []).append(f"{cell.arm} seed {cell.seed}")
        return {run_id: " = ".join(names) for run_id, names in labels.items()}

    def cost(self, cell: Cell) -> float:
        """Gradient equivalents of one update at most; NaN for a cell that is skipped."""
        return math.nan if cell.skip else self._costs[cell.arm]

    @cached_property
    def _costs(self) -> dict[str, float]:
        """What an update of every arm costs, by its label: one asks for all."""
        runs = {cell.arm: cell.run for cell in self.cells if not cell.skip}
        with together():
            return {
                label: estimate(r.problem, r.optimizer, r.gradient_batch, r.curvature_batch)
                for label, r in runs.items()
            }

    def run(
        self, todo: list[RunSpec], *, workers: int | None, observer: Observer
    ) -> dict[str, Status]:
        """Execute the runs in `todo`, then collect; give the status of each run of the plan."""
        self.store.begin(self.text, self.plan)
        try:
            run_all(
                todo,
                self.store,
                workers=workers or default_workers(self.threads),
                device=resolve_device(self.spec.device),
                safety_seconds=self.spec.safety.seconds,
                observer=observer,
            )
        finally:
            collect(self.store.folder)
        return self.statuses()

    def skipped(self) -> dict[str, str]:
        """Run id -> why it is skipped, of the runs that the plan leaves out and that are not there.

        A run that has ended is shown, whatever the plan says of it now.
        """
        reasons = {cell.run.run_id: cell.skip for cell in self.cells if cell.skip}
        return {run_id: why for run_id, why in reasons.items() if not self.store.status(run_id)}

    def statuses(self) -> dict[str, Status]:
        """Status by run id, of the runs that have ended."""
        found = {cell.run.run_id: self.store.status(cell.run.run_id) for cell in self.cells}
        return {run_id: Status(s["status"]) for run_id, s in found.items() if s is not None}
