"""An ablation from its spec to its tables: plan, run what is missing, collect."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from bdhf.experiments.dry_run.check import faults_of_data, try_out
from bdhf.experiments.duration import Duration, of_finished, time_updates
from bdhf.experiments.engines.interrupt import interruptible
from bdhf.experiments.engines.local import Conditions, default_workers, run_all
from bdhf.experiments.engines.retry import again
from bdhf.experiments.observers.observer import Observer
from bdhf.experiments.plan.cost import arm_cost, models_kept
from bdhf.experiments.plan.expand import Cell, Plan, expand
from bdhf.experiments.plan.limits import with_skips
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.plan.selection import Selection, Shard
from bdhf.experiments.plan.tuned_from import tuned
from bdhf.experiments.plan.twins import refuse_twins
from bdhf.experiments.preview import Preview, preview
from bdhf.experiments.run.provenance import resolve_devices
from bdhf.experiments.spec.load import load_spec
from bdhf.experiments.spec.schema import Spec
from bdhf.experiments.spec.yaml_source import Source
from bdhf.experiments.storage.claims import Claim
from bdhf.experiments.storage.replaced import replaced
from bdhf.experiments.storage.stale import Stale, set_aside, stale
from bdhf.experiments.storage.status import seconds_of
from bdhf.experiments.storage.store import Store
from bdhf.records import InputError, Status, Tuned, ended, run_labels


@dataclass(frozen=True)
class Ablation:
    """A checked spec with its plan and its results folder. Opening one writes nothing."""

    spec: Spec  # with a grid, its first combination; name, seeds and targets are the same in all
    text: str
    plan: Plan
    threads: int  # of the run with the most
    store: Store
    source: Source  # of the spec, with the lines of its values
    tuning: Tuned | None = None  # how its settings were tuned; None: it names no study

    @classmethod
    def open(cls, file: Path, out: Path | None = None, settings: Sequence[str] = ()) -> Ablation:
        """Read a spec, with `path=value` settings on top of it. Raises SpecError.

        Results go to `out`, by default results/<name>.
        """
        variants, source = load_spec(file, settings)
        spec, threads = variants[0].spec, max(variant.spec.threads for variant in variants)
        store = Store(out or Path("results") / spec.name)
        plan = with_skips(expand(variants), spec.safety)
        refuse_twins(plan, variants, source)
        tuning = spec.tuned_from and tuned(spec.tuned_from, file.parent, store.folder.parent, plan)
        return cls(spec, source.text, plan, threads, store, source, tuning or None)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of the plan."""
        return self.plan.cells

    def selected(self, only: Sequence[str] = (), shard: str | None = None) -> tuple[Cell, ...]:
        """The cells of these arms or runs, in this share `i/n`. Raises InputError."""
        share = Shard.parse(shard) if shard is not None else None
        return Selection(tuple(only), share).cells(self.plan)

    def left(self, cells: Sequence[Cell], retry: str | None = None) -> dict[str, RunSpec]:
        """The runs that are still to do, by their ids: in the plan's order, new ones first.

        `retry` names statuses that are tried again, in addition to the policy of the spec. Raises
        InputError for an unknown status.
        """
        return self.store.left(cells, again(self.spec.retry, retry).wants)

    def stale(self, cells: Sequence[Cell], left: Collection[str]) -> tuple[Stale, ...]:
        """By arm, the finished runs that were made with other code of own parts."""
        return stale(self.store.folder, cells, left)

    def set_aside(self, runs: Sequence[RunSpec]) -> None:
        """Move the stale ones of these runs aside. Raises StorageError."""
        with self.store.writing():
            set_aside(self.store, runs)

    def replaced(self) -> str:
        """The other spec that has since been run in the folder, in words; "": none.

        Raises InputError if the folder no longer has a plan.
        """
        return replaced(self.store.folder, self.text, self.plan)

    def labels(self) -> dict[str, str]:
        """Run id -> its cells, in words."""
        return run_labels((cell.arm, cell.seed, cell.run_id) for cell in self.cells)

    def check_arms(self, cells: Sequence[Cell]) -> list[str]:
        """Try a first update of every arm in these cells, on synthetic data; report skipped arms.

        Raises SpecError with a line for every arm that cannot make one.
        """
        tryout = try_out(cells, {arm.label: arm.name for arm in self.plan.arms})
        if tryout.faults:
            raise self.source.error(tryout.faults)
        return tryout.lines()

    def check_data(self, runs: Sequence[RunSpec]) -> None:
        """Load the data of users' own problems, and compare it with `samples` and `example`.

        Raises SpecError with a line for every problem whose data differ.
        """
        faults = faults_of_data(runs)
        if faults:
            raise self.source.error(faults)

    def costs(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Label -> largest gradient equivalents of one update; NaN for a skipped arm."""
        with models_kept():
            return {
                cell.arm: math.nan if cell.skip else _cost(cell.run)
                for cell in _first_of_arms(cells)
            }

    def durations(self, cells: Sequence[Cell], *, probing: bool) -> dict[str, Duration | str]:
        """Label -> the duration of one run, or why it is unknown.

        It is measured on finished runs; for an arm without any, and if `probing`, on a few updates.
        """
        seconds = seconds_of(self.store.folder, [cell.run_id for cell in cells])
        durations: dict[str, Duration | str] = {**of_finished(cells, seconds)}
        for cell in _first_of_arms(cells) if probing else ():
            if cell.arm not in durations and not cell.skip:
                device = resolve_devices(self.spec.device)[0]
                durations[cell.arm] = time_updates(cell.run, device=device, safety=self.spec.safety)
        return durations

    def preview(
        self,
        cells: Sequence[Cell],
        left: Collection[str],
        durations: Mapping[str, Duration | str] = MappingProxyType({}),
    ) -> Preview:
        """What `run` would do with these cells; `left` has the ids of the runs to do."""
        folder = str(self.store.folder)
        return preview(
            self.spec.name, folder, self.plan, cells, left, durations, self.spec.targets,
            self.statuses(cells),
        )  # fmt: skip

    def workers(self, wanted: int | None) -> int:
        """Runs at a time."""
        return wanted or default_workers(self.threads, resolve_devices(self.spec.device))

    def run(
        self,
        todo: Sequence[RunSpec],
        *,
        workers: int | None,
        observer: Observer,
        waiting: Callable[[Sequence[Claim]], None] = lambda holders: None,
        note: Callable[[str], None] = lambda line: None,
    ) -> None:
        """Execute the runs in `todo`, then collect; `waiting` receives the claims of others.

        `note` receives a line when a run cannot be saved, and when an interruption waits for a run.
        Raises KeyboardInterrupt on an interruption, and InputError if results cannot be written;
        finished runs are collected before.
        """
        conditions = Conditions(
            workers=self.workers(workers),
            devices=resolve_devices(self.spec.device),
            safety=self.spec.safety,
            again=again(self.spec.retry),
            waiting=waiting,
            note=partial(_note, note, self.labels()),
        )
        with interruptible():
            self.store.begin(self.text, self.plan, self.tuning)
            try:
                run_all(todo, self.store, conditions, observer)
            except BaseException:
                with suppress(InputError):  # the first error counts
                    self.store.end()
                raise
            self.store.end()

    def statuses(self, cells: Sequence[Cell]) -> dict[str, Status]:
        """The statuses of the runs of these cells that have ended, by run id."""
        records = ended(self.store.folder, {cell.run_id for cell in cells})
        return {run_id: Status(status["status"]) for run_id, status in records.items()}


def _note(say: Callable[[str], None], labels: Mapping[str, str], run_id: str, line: str) -> None:
    say(f"{labels[run_id]} ({run_id}): {line}" if run_id else line)


def _first_of_arms(cells: Sequence[Cell]) -> list[Cell]:
    return list({cell.arm: cell for cell in reversed(cells)}.values())


def _cost(run: RunSpec) -> float:
    return arm_cost(run.problem, run.optimizer, run.gradient_batch, run.curvature_batch)
