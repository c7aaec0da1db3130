"""The only training loop: batches, updates, evaluations, the clock and the end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bdhf.experiments.parts.problem_fit import loaded, refuse_misfit
from bdhf.experiments.parts.tables import new_problem_of, optimizer_of
from bdhf.experiments.parts.user_parts import is_own
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run import resume
from bdhf.experiments.run.checkpoint import RunState, Saver
from bdhf.experiments.run.evaluation import scores
from bdhf.experiments.run.object_state import ObjectState
from bdhf.experiments.run.random_streams import (
    BatchSampler,
    Subsets,
    derive,
    generator,
    global_state,
    seed_globals,
)
from bdhf.experiments.run.stopping import Reached
from bdhf.experiments.run.updaters import TensorBatch, UpdateRecord, updater_of
from bdhf.experiments.spec.schema import Safety
from bdhf.optim.forward.passes import Passes
from bdhf.problems import Problem
from bdhf.problems.data import Part
from bdhf.records import AXES, CURVE_COLUMNS

Row = dict[str, float]


class OutOfTime(Exception):  # noqa: N818 - an outcome, not an error
    """The safety limit on the wall-clock has passed."""


class Diverged(Exception):  # noqa: N818
    """A loss, a gradient or a parameter is no longer a finite number."""


@dataclass
class Log:
    """The record of a run so far."""

    observe: Callable[[Row], None]
    rows: list[Row] = field(default_factory=list)
    resumed: int = 0
    again: Callable[[Row], None] = lambda row: None  # receives the rows of before a resume

    def record(self, row: Row) -> None:
        """Keep a row, and show it."""
        self.rows.append(row)
        self.observe(row)


class Training:
    """A run under way: model, data, streams and clock."""

    def __init__(self, spec: RunSpec, device: torch.device, safety: Safety) -> None:
        seed_globals(spec.seed)
        self.spec, self.device, self.dtype = spec, device, getattr(torch, spec.dtype)
        self.safety = safety
        self.problem: Problem = new_problem_of(spec.problem)
        self.is_own = is_own(spec.problem["type"])
        data = loaded(self.problem) if self.is_own else self.problem.load()
        self.data = data.map(lambda part: _cast(part, device, self.dtype))
        self.log = Log(lambda row: None)
        self.built_from = global_state(device)
        self.build()

    def build(self) -> None:
        """Make everything that updates change, in its state before the first update."""
        spec = self.spec
        self.model = self.problem.build()
        self.problem.initialise(self.model, generator(spec.seed, "initialisation"))
        self.model.to(device=self.device, dtype=self.dtype)
        self.optimizer = optimizer_of(
            spec.optimizer, self.model, self.problem, derive(spec.seed, "optimizer")
        )
        self.passes = Passes(self.model)
        self.updater = updater_of(self.optimizer, self.model, self.problem)
        size, chosen = spec.gradient_batch, spec.curvature_batch or spec.gradient_batch
        self.order = BatchSampler(len(self.data.train[0]), size, generator(spec.seed, "order"))
        self.subset = Subsets(size, chosen, generator(spec.seed, "curvature subset"))
        self.reached = Reached(spec.stop_at)
        self.update = self.samples = 0
        self.products = self.gradient_equivalents = self.seconds = 0.0

    def train(self, log: Log, saver: Saver) -> str:
        """Update until the targets are reached or the budget is spent; return which.

        Raises Interrupted if the run is asked to end before.
        """
        if self.is_own:
            refuse_misfit(self.problem, self.model, self.data.train)
        self.begun, self.log = time.monotonic(), log  # loading data is not counted
        ended = "" if self._resumed(saver) else self._look(log)
        while not ended:
            self.step()
            saver.updated(self)
            is_looked_at = self._spent() or self.update % self.spec.evaluate_every == 0
            if is_looked_at:
                ended = self._look(log)
            if not ended:
                saver.offer(self, evaluated=is_looked_at)
        return ended

    def _look(self, log: Log) -> str:
        """Evaluate; return why the run ends here, or "" if it does not."""
        row = self._evaluate()
        log.record(row)
        self._check_finite({name: row[name] for name in ("train_loss", "val_loss")})
        parameters = [parameter.detach() for parameter in self.model.parameters()]
        largest = nn.utils.get_total_norm(parameters, math.inf)  # tanh hides an infinite weight
        self._check_finite({"the largest parameter": float(largest)})
        if self.reached.after(row):
            return "every target reached"
        budget = self.spec.budget
        return f"budget of {budget.limit:g} {budget.axis} spent" if self._spent() else ""

    def step(self) -> None:
        """Make one update; only its time counts."""
        batch, curvature = self._draw()
        if not self.update:
            self.doing = "in the check before update 1"
            self.updater.check(batch, curvature, self._watch)
        if (self.update + 1) % self.spec.evaluate_every == 0:
            self.updater.prepare()
        self.doing = f"in update {self.update + 1}"
        self._synchronise()
        start = time.perf_counter()
        update = self.updater.step(batch, curvature, self._watch)
        self._synchronise()
        self.seconds += time.perf_counter() - start
        self._count(update)

    def _draw(self) -> tuple[TensorBatch, TensorBatch | None]:
        """The next gradient batch, and the curvature batch in it."""
        batch, subset = _take(self.data.train, next(self.order)), next(self.subset)
        return batch, _take(batch, subset) if self.spec.curvature_batch else None

    def _count(self, update: UpdateRecord) -> None:
        self.update += 1
        self.samples += self.spec.gradient_batch
        self.products += update.products
        self.gradient_equivalents += update.gradient_equivalents
        self._check_finite({"loss of the batch": update.loss, "norm of the gradient": update.norm})

    def _evaluate(self) -> Row:
        """One row of the curve."""
        self.doing = f"in the evaluation at update {self.update}"
        row: Row = dict.fromkeys(CURVE_COLUMNS, math.nan)
        row |= {name: getattr(self, name) for name in resume.COUNTS}
        row["epoch"] = self.samples / len(self.data.train[0])
        if self.update:
            row |= self.updater.measure(self.spec.off_block_energy)
        parts = {"train": self.data.train, "val": self.data.validation, "test": self.data.test}
        self.model.eval()
        for part, pairs in parts.items():
            measured = scores(self.model, self.passes, self.problem, pairs, self._watch)
            row |= {f"{part}_{name}": value for name, value in measured.items()}
        self.model.train()
        return row

    def _check_finite(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                raise Diverged(f"{name} is {value} at update {self.update}")

    def _spent(self) -> bool:
        if self.spec.budget.axis == "epochs":
            return self.samples >= self.spec.budget.limit * len(self.data.train[0])
        column = AXES[self.spec.budget.axis][0]
        return bool(getattr(self, column) >= self.spec.budget.limit)

    def _watch(self) -> None:
        if time.monotonic() - self.begun > self.safety.seconds:
            raise OutOfTime(f"still running after {self.safety.seconds:g} s, {self.doing}")

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def state(self) -> RunState:
        """What the run resumes from, together with its spec."""
        passed = {"wall_clock": time.monotonic() - self.begun}
        return passed | resume.state_of(self) | {"rows": self.log.rows, "resumed": self.log.resumed}

    def shared(self) -> ObjectState:
        """The state of its problem and own modules, which no checkpoint has."""
        return resume.shared(self)

    def kept(self) -> ObjectState:
        """The state of model and optimizer, and everything that a checkpoint has."""
        return resume.kept(self)

    def unsaved(self) -> ObjectState:
        """The state of model and optimizer that no checkpoint has."""
        return resume.unsaved(self)

    def replay(self, state: RunState) -> ObjectState:
        """The `kept` of a second run after one update from a state."""
        return resume.replay(self, state)

    def _resumed(self, saver: Saver) -> bool:
        """Resume from the checkpoint, if there is one."""
        state = saver.load()
        if state is None:
            return False
        self.begun -= state["wall_clock"]
        self.log.rows += state["rows"]
        self.log.resumed = state["resumed"] + 1
        for row in state["rows"]:
            self.log.again(row)
        resume.restore(self, state)
        saver.resumed(self)
        return True


def _cast(part: Part, device: torch.device, dtype: torch.dtype) -> Part:
    """Move to the device; floating-point tensors to the dtype of the run."""
    inputs, targets = (t.to(device, dtype if t.is_floating_point() else None) for t in part)
    return inputs, targets


def _take(part: Part, index: Tensor) -> Part:
    index = index.to(part[0].device)
    inputs, targets = (tensor.index_select(0, index) for tensor in part)  # 4 times as fast as [ ]
    return inputs, targets
