"""Failed runs: each is an outcome with its reason."""

import math
import time
import weakref
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from bdhf.experiments.run import training, updaters
from bdhf.experiments.run.execute import execute
from bdhf.experiments.run.failures import classified
from bdhf.experiments.spec.schema import Safety
from bdhf.problems import Autoencoder
from bdhf.records import Budget, Status
from tests.experiments.specs import cell, outcome


def test_a_loss_that_is_not_finite_ends_the_run_as_diverged():
    """With the update and the value; the curve up to there is kept."""
    result = outcome("adam", ("lr: 3.0e-3", "lr: 1.0e+30"), budget=Budget(updates=50))

    assert result.status is Status.DIVERGED
    assert "at update" in result.reason
    assert "inf" in result.reason or "nan" in result.reason
    assert len(result.curve) >= 1


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_parameter_that_is_not_finite_ends_the_run_where_no_loss_shows_it(monkeypatch, value):
    """A saturated or unused unit hides it from every loss."""
    build, step = Autoencoder.build, updaters.TorchUpdater.step

    def with_a_spare(problem):
        model = build(problem)
        model.spare = nn.Parameter(torch.zeros(2))
        return model

    def spoiling(self, batch, curvature, watch):
        update = step(self, batch, curvature, watch)
        with torch.no_grad():
            self._model.spare[1] = value
        return update

    run = cell("adam").run
    monkeypatch.setattr(Autoencoder, "build", with_a_spare)
    monkeypatch.setattr(updaters.TorchUpdater, "step", spoiling)

    result = execute(run, device="cpu", safety=Safety(seconds=60))

    assert result.status is Status.DIVERGED
    assert result.reason == f"the largest parameter is {value} at update 2"
    assert result.curve["update"].tolist() == [0, 2]


def test_hessian_free_that_diverges_says_so():
    """A block HF run with an absurd rate ends as diverged, not at its budget with NaN."""
    result = outcome("block_hf", ("lr: 0.5", "lr: 1.0e+20"), budget=Budget(updates=50))

    assert result.status is Status.DIVERGED


class Clock:
    """A clock that advances by a second with each reading."""

    now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


LBFGS = ("{type: torch.Adam, lr: 3.0e-3}", "{type: torch.LBFGS, max_iter: 20}")
LINE_SEARCH = ("partition: full, lr: 0.5", "partition: full, lr: 1.0e+5, acceptance: backtracking")


@pytest.mark.parametrize(
    ("arm", "changes", "seconds", "doing", "updates"),
    [
        # readings of the clock: 3 at an evaluation; 2 at the check; at the updates 6, 7 and 7
        ("full_hf", (), 1, "in the evaluation at update 0", []),
        ("full_hf", (), 3, "in the check before update 1", [0]),
        ("full_hf", (), 8, "in update 1", [0]),
        ("full_hf", (), 19, "in the evaluation at update 2", [0]),
        ("full_hf", (), 24, "in update 3", [0, 2]),
        ("full_hf", (LINE_SEARCH,), 25, "in update 1", [0]),
        ("adam", (LBFGS,), 10, "in update 1", [0]),
    ],
)
def test_a_run_that_exceeds_the_safety_limit_times_out_where_it_is(
    monkeypatch, arm, changes, seconds, doing, updates
):
    """Inside CG, a line search, L-BFGS, the check before the first update, or an evaluation."""
    stand_in = SimpleNamespace(monotonic=Clock(), perf_counter=time.perf_counter)
    monkeypatch.setattr(training, "time", stand_in)

    result = outcome(arm, *changes, safety=Safety(seconds=seconds))

    assert result.status is Status.TIMEOUT
    assert result.reason == f"still running after {seconds} s, {doing}"
    assert result.curve["update"].tolist() == updates


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("planted"), Status.ERROR),
        (MemoryError("planted"), Status.OOM),
        (torch.OutOfMemoryError("planted"), Status.OOM),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
            ),
            Status.OOM,
        ),
    ],
)
def test_an_exception_is_an_outcome_with_reason_and_traceback(monkeypatch, error, status):
    """The rows before it are kept."""
    steps = []

    def failing(self, batch, curvature, watch):
        steps.append(1)
        if len(steps) == 3:
            raise error
        return updaters.UpdateRecord(1.0, 1.0, 0.0, 1.0)

    monkeypatch.setattr(updaters.BlockUpdater, "step", failing)

    result = outcome("block_hf")

    assert result.status is status
    assert "planted" in result.reason or "allocate" in result.reason
    assert type(error).__name__ in result.trace
    assert result.curve["update"].tolist() == [0, 2]


def raised(error, cause=None, context=None, hidden=False):
    """An exception with its causes."""
    error.__cause__, error.__context__ = cause, context
    error.__suppress_context__ = hidden or cause is not None
    return error


FULL = torch.OutOfMemoryError("CUDA out of memory: planted")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (raised(ValueError("a"), cause=FULL), Status.OOM),
        (raised(ValueError("a"), context=FULL), Status.OOM),
        (raised(ValueError("a"), cause=raised(KeyError("b"), context=MemoryError())), Status.OOM),
        (raised(ValueError("a"), context=FULL, hidden=True), Status.ERROR),
        (RuntimeError("CUDA error: out of memory"), Status.OOM),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), Status.OOM),
        (ValueError("out of memory"), Status.ERROR),
    ],
)
def test_a_want_of_memory_is_found_behind_the_error_it_became(error, status):
    """In the whole chain that a traceback shows."""
    assert classified(error)[0] is status


def test_the_reason_names_the_want_of_memory_and_a_loop_of_causes_ends():
    """Not the error that it was converted to; an exception may be its own cause."""
    itself = ValueError("mine")
    itself.__cause__ = itself

    assert classified(raised(ValueError("a"), cause=FULL)) == (
        Status.OOM,
        "OutOfMemoryError: CUDA out of memory: planted",
    )
    assert classified(itself) == (Status.ERROR, "ValueError: mine")


def test_a_run_that_failed_holds_no_memory(monkeypatch):
    """The model of a failed run is freed before its outcome is returned."""
    models = []

    def failing(self, batch, curvature, watch):
        models.append(weakref.ref(self._model))
        error = RuntimeError("planted")
        error.itself = error  # a cycle, which holds the frames, and they the model
        raise error

    monkeypatch.setattr(updaters.TorchUpdater, "step", failing)

    result = outcome("adam")

    assert "planted" in result.trace
    assert models[0]() is None
