"""The only training loop: one RunSpec in, one outcome out; whatever happens is data."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor, nn

from bdhf.experiments.build import optimizer_of, problem_of
from bdhf.experiments.runspec import RunSpec
from bdhf.experiments.stopping import Reached
from bdhf.experiments.streams import batches, derive, generator, subsets
from bdhf.experiments.updaters import Updater, updater_of
from bdhf.problems import Problem
from bdhf.problems.data import Part
from bdhf.records import AXES, CURVE_COLUMNS, Status

Row = dict[str, float]
EVALUATION_BATCH = 4096  # samples at a time, so that an evaluation cannot exhaust the memory


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and everything that was measured up to then."""

    status: Status
    reason: str
    curve: pd.DataFrame
    trace: str = ""


class OutOfTime(Exception):  # noqa: N818 - an outcome, not an error
    """The safety limit on the wall-clock has passed."""


class Diverged(Exception):  # noqa: N818
    """A loss or gradient is no longer a finite number."""


def execute(
    spec: RunSpec,
    *,
    device: str,
    safety_seconds: float,
    observe: Callable[[Row], None] = lambda row: None,
) -> Outcome:
    """Train once. `observe` sees every row of the curve as it is measured."""
    rows: list[Row] = []

    def record(row: Row) -> None:
        rows.append(row)
        observe(row)

    status, reason, trace = Status.DONE, "", ""
    threads = torch.get_num_threads()
    try:
        with torch.random.fork_rng(devices=[]):
            torch.set_num_threads(spec.threads)
            reason = _Run(spec, torch.device(device), safety_seconds).train(record)
    except Diverged as error:
        status, reason = Status.DIVERGED, str(error)
    except OutOfTime as error:
        status, reason = Status.TIMEOUT, str(error)
    except Exception as error:  # a failed run is kept and shown, whatever failed it
        status = Status.OOM if _is_out_of_memory(error) else Status.ERROR
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        trace = traceback.format_exc()
    finally:
        torch.set_num_threads(threads)
    return Outcome(status, reason, _curve(rows), trace)


class _Run:
    """A run in the making: model, data, streams and clock."""

    def __init__(self, spec: RunSpec, device: torch.device, safety_seconds: float) -> None:
        torch.manual_seed(derive(spec.seed, "global"))  # for what draws without a generator
        self.spec, self.device = spec, device
        self.safety_seconds = safety_seconds
        self.problem: Problem = problem_of(spec.problem)
        dtype = getattr(torch, spec.dtype)
        self.data = self.problem.load().map(lambda part: _cast(part, device, dtype))
        self.model = self.problem.build()
        self.problem.initialise(self.model, generator(spec.seed, "initialisation"))
        self.model.to(device=device, dtype=dtype)
        optimizer = optimizer_of(
            spec.optimizer, self.model, self.problem, derive(spec.seed, "optimizer")
        )
        self.updater: Updater = updater_of(optimizer, self.model, self.problem)
        self.reached = Reached(spec.stop_at)
        self.update = self.samples = 0
        self.products = self.gradient_equivalents = self.seconds = 0.0

    def train(self, record: Callable[[Row], None]) -> str:
        """Update until the targets are reached or the budget is spent; say which."""
        spec = self.spec
        self.deadline = time.monotonic() + self.safety_seconds  # loading data is not counted
        order = batches(len(self.data.train[0]), spec.gradient_batch, generator(spec.seed, "order"))
        chosen = spec.curvature_batch or spec.gradient_batch
        subset = subsets(spec.gradient_batch, chosen, generator(spec.seed, "curvature subset"))
        while True:
            spent = self._spent()
            if spent or self.update % spec.evaluate_every == 0:
                row = self._evaluate()
                record(row)
                self._check_finite({name: row[name] for name in ("train_loss", "val_loss")})
                if self.reached.after(row):
                    return "every target reached"
            if spent:
                return f"budget of {spec.budget.limit:g} {spec.budget.axis} spent"
            self._step(next(order), next(subset))

    def _step(self, index: Tensor, subset: Tensor) -> None:
        """Make one update; its time, and nothing else, is counted."""
        batch = _take(self.data.train, index)
        curvature = _take(batch, subset) if self.spec.curvature_batch else None
        if not self.update:
            self.updater.check(batch, curvature)
        if (self.update + 1) % self.spec.evaluate_every == 0:
            self.updater.prepare()
        self._synchronise()
        start = time.perf_counter()
        update = self.updater.step(batch, curvature, self._watch)
        self._synchronise()
        self.seconds += time.perf_counter() - start
        self.update += 1
        self.samples += len(index)
        self.products += update.products
        self.gradient_equivalents += update.gradient_equivalents
        self._check_finite({"loss of the batch": update.loss, "norm of the gradient": update.norm})

    def _evaluate(self) -> Row:
        """One row of the curve."""
        row: Row = dict.fromkeys(CURVE_COLUMNS, math.nan)
        row |= {
            "update": self.update,
            "epoch": self.samples / len(self.data.train[0]),
            "samples": self.samples,
            "products": self.products,
            "gradient_equivalents": self.gradient_equivalents,
            "seconds": self.seconds,
        }
        if self.update:
            row |= self.updater.measure(self.spec.off_block_energy)
        self.model.eval()
        for part, pairs in (
            ("train", self.data.train),
            ("val", self.data.validation),
            ("test", self.data.test),
        ):
            scores = _scores(self.model, self.problem, pairs)
            row |= {f"{part}_{name}": value for name, value in scores.items()}
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
        if time.monotonic() > self.deadline:
            raise OutOfTime(
                f"still running after {self.safety_seconds:g} s, in update {self.update + 1}"
            )

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@torch.no_grad()
def _scores(model: nn.Module, problem: Problem, part: Part) -> Row:
    """Loss and metrics on one part of the data, each a mean over its samples."""
    sums: Row = {}
    for start in range(0, len(part[0]), EVALUATION_BATCH):
        inputs, targets = (tensor[start : start + EVALUATION_BATCH] for tensor in part)
        outputs = model(inputs)
        scores = {"loss": problem.loss(outputs, targets), **problem.measure(outputs, targets)}
        for name, value in scores.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(inputs)
    return {name: value / len(part[0]) for name, value in sums.items()}


def _cast(part: Part, device: torch.device, dtype: torch.dtype) -> Part:
    """Move to the device; floating-point tensors to the dtype of the run."""
    inputs, targets = (t.to(device, dtype if t.is_floating_point() else None) for t in part)
    return inputs, targets


def _take(part: Part, index: Tensor) -> Part:
    index = index.to(part[0].device)
    return part[0][index], part[1][index]


def _curve(rows: list[Row]) -> pd.DataFrame:
    """The rows as a table whose columns are those of every curve, then the problem's metrics."""
    curve = pd.DataFrame(rows, columns=None if rows else list(CURVE_COLUMNS))
    return curve.astype({"update": "int64", "samples": "int64"})


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "can't allocate memory" in text or "not enough memory" in text
    )
