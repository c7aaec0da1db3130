"""A checked study: an ablation, and a space, a budget and goals for each of its arms."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from pydantic import ValidationError

from bdhf.experiments.errors import Fault, Faults, Keys, SpecError
from bdhf.experiments.parts.compatibility import why_not
from bdhf.experiments.parts.problems_and_arms import resolve_arm
from bdhf.experiments.parts.resolve import Resolved
from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.parts.torch_optimizers import written_out
from bdhf.experiments.plan.expand import Plan, expand
from bdhf.experiments.plan.limits import with_skips
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.spec.compose import read_spec
from bdhf.experiments.spec.grid import Variant
from bdhf.experiments.spec.load import load_spec
from bdhf.experiments.spec.schema import Safety
from bdhf.experiments.spec.validation_errors import validation_faults
from bdhf.experiments.spec.yaml_source import Source
from bdhf.records import PlannedArm, Target
from bdhf.tuning.study.contradictions import study_contradictions
from bdhf.tuning.study.objective import Goal, horizon_of
from bdhf.tuning.study.schema import StudySpec
from bdhf.tuning.study.space import ArmSettings, Dimension, corners, defaults, placed, settings_of
from bdhf.tuning.study.yaml_spaces import space_of


@dataclass(frozen=True)
class StudyCell:
    """One arm in one combination of the grid. Each has its own study of Optuna."""

    planned: PlannedArm
    run: RunSpec  # the run of the spec, with the first tuning seed
    space: tuple[Dimension, ...]
    goals: tuple[Goal, ...]  # the first one selects the best trial
    safety: Safety  # of the ablation

    @property
    def label(self) -> str:
        """Its label in the plan of the ablation."""
        return self.planned.label

    @property
    def arm(self) -> Resolved:
        """The arm of the spec, with every argument."""
        return written_out(self.run.optimizer)

    def optimizer(self, settings: ArmSettings) -> Resolved:
        """The resolved arm with these settings. Raises Faults."""
        arm = placed(self.arm, settings)
        return resolve_arm(self.planned.name, arm, problem_of(self.run.problem))

    def trial(self, settings: ArmSettings, seed: int) -> RunSpec:
        """The run of a trial on one seed; it ends at the target unless a loss is an objective."""
        targets = [goal.target for goal in self.goals if goal.target]
        return self.run.model_copy(
            update={
                "optimizer": self.optimizer(settings),
                "seed": seed,
                "stop_at": tuple(targets[:1]) if len(targets) == len(self.goals) else (),
            }
        )


@dataclass(frozen=True)
class Study:
    """A checked and complete study. Loading it writes nothing."""

    spec: StudySpec
    file: Path
    text: str
    settings: tuple[str, ...]  # `--set` of the command line
    variants: tuple[Variant, ...]
    source: Source  # of the ablation, with the changes of the study
    plan: Plan
    cells: tuple[StudyCell, ...]

    @property
    def name(self) -> str:
        """Its name."""
        return self.spec.name

    @property
    def ablation_file(self) -> Path:
        """The spec that is tuned."""
        return self.file.parent / self.spec.ablation

    @property
    def seeds(self) -> tuple[int, ...]:
        """The tuning seeds."""
        seeds = self.spec.seeds
        return tuple(range(seeds.base, seeds.base + seeds.count))

    @cached_property
    def held_out_seeds(self) -> tuple[int, ...]:
        """The seeds of the ablation."""
        seeds = self.variants[0].spec.seeds
        return tuple(range(seeds.base, seeds.base + seeds.count))

    def cell(self, label: str) -> StudyCell:
        """The cell of a label."""
        return next(cell for cell in self.cells if cell.label == label)

    def fingerprint(self, cell: StudyCell) -> str:
        """A hash of everything on which the trials of a cell depend. Never mix two fingerprints."""
        content = {
            "run": cell.run.model_dump(mode="json"),
            "seeds": self.seeds,
            "space": repr(cell.space),
            "goals": repr(cell.goals),
            "sampler": self.spec.sampler.model_dump(mode="json"),
            "pruner": self.spec.pruner.model_dump(mode="json"),
        }
        text = json.dumps(content, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def open_study(file: Path, settings: Sequence[str] = ()) -> Study:
    """Read a study and its ablation. Raises SpecError with a line for every fault."""
    source = read_spec(file, settings)
    spec = _spec(source)
    variants, ablation = _ablation(file, spec, source)
    plan = with_skips(expand(variants), variants[0].spec.safety)
    faults = study_contradictions(spec, variants)
    cells, wrong = _cells(spec, variants, plan) if not faults else ((), [])
    faults += wrong
    if faults:
        raise source.error(faults)
    return Study(spec, file, source.text, tuple(settings), variants, ablation, plan, cells)


def _spec(source: Source) -> StudySpec:
    if not isinstance(source.data, dict):
        raise source.error([Fault((), "a study is a mapping of keys; start with `schema: 1`")])
    try:
        spec = StudySpec.model_validate_json(json.dumps(source.data), strict=True)
    except ValidationError as error:
        raise source.error(validation_faults(error, StudySpec)) from None
    if source.faults:
        raise source.error(())
    return spec


def _ablation(file: Path, spec: StudySpec, source: Source) -> tuple[tuple[Variant, ...], Source]:
    """The ablation with the changes of the study. Raises SpecError at their lines in the study."""
    settings = {f"{path}={json.dumps(value)}": path for path, value in spec.set.items()}
    path = file.parent / spec.ablation
    try:
        return load_spec(path, list(settings))
    except SpecError as error:
        if not path.is_file():
            raise source.error([Fault(("ablation",), error.lines[0])]) from None
        lines = []
        for line in error.lines:
            ours = [s for s in settings if line.startswith(f"--set {s}: ")]
            if ours:
                there, message = settings[ours[0]], line.removeprefix(f"--set {ours[0]}: ")
                fault = Fault(("set", there), message.removeprefix(f"{there}: "), at_key=True)
                line = source.error([fault]).lines[0]
            lines.append(line)
        raise SpecError(lines) from None


def _cells(
    spec: StudySpec, variants: Sequence[Variant], plan: Plan
) -> tuple[tuple[StudyCell, ...], list[Fault]]:
    """Every cell of the plan whose arm has a space."""
    by_label = {cell.arm: cell for cell in reversed(plan.cells)}
    safety = variants[0].spec.safety
    cells, faults = list[StudyCell](), list[Fault]()
    for planned in plan.arms:
        if planned.name not in spec.spaces:
            continue
        first, space_path = by_label[planned.label], ("spaces", planned.name)
        if first.skip:
            faults.append(Fault(space_path, f"{planned.label} cannot be run: {first.skip}", True))
            continue
        run = first.run.model_copy(update={"seed": spec.seeds.base})
        try:
            cell = StudyCell(
                planned=planned,
                run=run,
                space=space_of(spec.spaces[planned.name], written_out(run.optimizer), space_path),
                goals=_goals(spec, run, variants[0].spec.targets, safety),
                safety=safety,
            )
            _try(cell, space_path)
            cells.append(cell)
        except Faults as wrong:
            faults += wrong.faults
    return tuple(cells), list(dict.fromkeys(faults))


def _goals(
    spec: StudySpec, run: RunSpec, targets: Sequence[Target], safety: Safety
) -> tuple[Goal, ...]:
    goals = []
    for estimand in spec.objectives:
        horizon = horizon_of(estimand, run.budget, safety)
        target = targets[0] if horizon == horizon and targets else None
        goals.append(Goal(estimand, target, horizon or 0.0, run.budget))
    return tuple(goals)


def _try(cell: StudyCell, space_path: Keys) -> None:
    """Resolve the arm at every end of its space. Raises Faults."""
    faults = []
    for dimension, settings in corners(cell.space, cell.arm):
        where = path_of(space_path, dimension, cell)
        try:
            arm = cell.optimizer(settings)
        except Faults as wrong:
            faults += [Fault(where, fault.message) for fault in wrong.faults]
            continue
        reason = why_not(arm, cell.run.problem)
        faults += [Fault(where, reason)] if reason else []
    if faults:
        raise Faults(*dict.fromkeys(faults))
    default_values = defaults(cell.space, cell.arm)
    own = settings_of(cell.space, lambda dimension: default_values[dimension.name])
    if cell.optimizer(own) != cell.run.optimizer:
        message = "a choice omits arguments that the spec has there: give them with its type"
        raise Faults(Fault(space_path, message, at_key=True))


def path_of(space_path: Keys, dimension: Dimension, cell: StudyCell) -> Keys:
    """The path in `spaces` that defines a dimension."""
    outer = (d.path for d in cell.space if f"{dimension.path}.".startswith(f"{d.path}."))
    return (*space_path, max(outer, key=len, default=dimension.path))
