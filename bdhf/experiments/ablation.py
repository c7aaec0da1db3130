"""An ablation from its spec to its tables: plan, run what is missing, collect."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bdhf.experiments.engines.local import default_workers, run_all
from bdhf.experiments.observe import Observer
from bdhf.experiments.plan import Cell, RunSpec, expand
from bdhf.experiments.provenance import resolve_device
from bdhf.experiments.schema import Spec
from bdhf.experiments.spec import load
from bdhf.experiments.store import Store
from bdhf.records import Status, collect


@dataclass(frozen=True)
class Ablation:
    """A checked spec with its plan and its results folder. Opening one writes nothing."""

    spec: Spec
    text: str
    cells: tuple[Cell, ...]
    store: Store

    @classmethod
    def open(cls, file: Path, out: Path | None = None) -> Ablation:
        """Read a spec; results go to `out`, by default results/<name>. Raises SpecError."""
        spec, source = load(file)
        return cls(spec, source.text, expand(spec), Store(out or Path("results") / spec.name))

    def labels(self) -> dict[str, str]:
        """Run id -> the cells that it stands for, in words."""
        labels: dict[str, list[str]] = {}
        for cell in self.cells:
            labels.setdefault(cell.run.run_id, []).append(f"{cell.arm} seed {cell.seed}")
        return {run_id: " = ".join(names) for run_id, names in labels.items()}

    def run(
        self, todo: list[RunSpec], *, workers: int | None, observer: Observer
    ) -> dict[str, Status]:
        """Execute the runs in `todo`, then collect; give the status of each run of the plan."""
        self.store.begin(self.text, self.cells)
        try:
            run_all(
                todo,
                self.store,
                workers=workers or default_workers(self.spec.threads),
                device=resolve_device(self.spec.device),
                safety_seconds=self.spec.safety.seconds,
                observer=observer,
            )
        finally:
            collect(self.store.folder)
        return self.statuses()

    def statuses(self) -> dict[str, Status]:
        """Status by run id, of the runs that have ended."""
        found = {cell.run.run_id: self.store.status(cell.run.run_id) for cell in self.cells}
        return {run_id: Status(s["status"]) for run_id, s in found.items() if s is not None}
