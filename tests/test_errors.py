"""The errors of bdhf: one base for all, which crosses processes and is reported in one way."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
from pathlib import Path

import pytest
import torch
import typer
from optuna.exceptions import StorageInternalError
from torch import nn

import bdhf
from bdhf.cli.app import errors_reported
from bdhf.errors import BdhfError
from bdhf.experiments.errors import Fault, Faults, SpecError
from bdhf.experiments.parts.problem_fit import Misfit
from bdhf.optim import CurvatureError, ModelError, ModelTypeError
from bdhf.optim.losses.own import OutsideParameterError
from bdhf.records import InputError, StorageError
from bdhf.records.disk.files import ReadOnlyError, UnreadableError
from bdhf.records.disk.version import NewerRecordsError
from bdhf.stats.observations.targets import MetricError
from bdhf.tuning.storage.patience import LostError

#: An error of every class, and what else it has always been.
ERRORS = {
    BdhfError("a line\nanother"): Exception,
    InputError(["a line", "another\nof two"]): Exception,
    SpecError(["spec.yaml:1:1: name: missing"]): InputError,
    UnreadableError(["env.json: cannot be read"]): InputError,
    StorageError(["results: cannot write"]): InputError,
    ReadOnlyError(["results: cannot write"]): StorageError,
    NewerRecordsError(Path("plan.json"), 99): InputError,
    MetricError(["no metric 'val_los'"]): ValueError,
    Faults(Fault(("arms", "hf"), "unknown"), Fault(("name",), "missing")): Exception,
    Misfit("example(4) makes up 3 samples"): ValueError,
    ModelError("module '1' (Dropout) draws"): ValueError,
    ModelTypeError("no nn.Module"): TypeError,
    OutsideParameterError(nn.MSELoss(), [torch.ones(2, requires_grad=True)]): ModelError,
    CurvatureError("no product"): RuntimeError,
    LostError("the server has gone"): StorageInternalError,
}

#: Exceptions that never leave the code -> what they mean there.
INTERNAL = {
    "bdhf.bench.process.Failed": "a benchmark that could not be measured: a row of the table",
    "bdhf.bench.process.Skipped": "a combination that a benchmark leaves out: a row of the table",
    "bdhf.bench.process._Lost": "a process that has ended: reported as Failed",
    "bdhf.experiments.run.checkpoint.Interrupted": "an interruption, no `Exception`",
    "bdhf.experiments.dry_run.first_update.NotTried": "an arm that a plan does not try: a line",
    "bdhf.experiments.parts.problem_fit.NoExample": "a problem without an example: a line",
    "bdhf.experiments.run.training.Diverged": "an outcome: the status of a run",
    "bdhf.experiments.run.training.OutOfTime": "an outcome: the status of a run",
    "bdhf.optim.products.layer_io.sites.Uncovered": "a method that cannot be used: another one is",
    "bdhf.tuning.workers.trial._GivenUp": "a run that the pruner ends, no `Exception`",
    "bdhf.tuning.workers.trial_loop._Surplus": "a trial that nobody needs: failed for Optuna",
}


def defined():
    """Every class of exceptions in bdhf that is no warning, by its dotted name."""
    for module in pkgutil.walk_packages(bdhf.__path__, "bdhf."):
        for cls in vars(importlib.import_module(module.name)).values():
            is_error = isinstance(cls, type) and issubclass(cls, BaseException)
            if is_error and cls.__module__ == module.name and not issubclass(cls, Warning):
                yield f"{cls.__module__}.{cls.__qualname__}", cls


def test_every_error_has_the_base_or_steers_the_code():
    """`bdhf.BdhfError` catches all; internal exceptions are listed with their reason."""
    classes = dict(defined())

    assert {name for name, cls in classes.items() if not issubclass(cls, BdhfError)} == {*INTERNAL}
    assert {cls for cls in classes.values() if issubclass(cls, BdhfError)} == {*map(type, ERRORS)}


def test_the_base_has_one_class_by_all_its_names():
    """An `except` with the name in `bdhf.optim` catches all errors."""
    assert bdhf.BdhfError is bdhf.optim.BdhfError is bdhf.optim.errors.BdhfError is BdhfError


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_what_it_was(error):
    """An `except ValueError` that caught it before the common base still does."""
    with pytest.raises(ERRORS[error]):
        raise error


@pytest.mark.parametrize("made", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_crosses_processes(error, made):
    """Its copy has the same text, lines and attributes."""
    again = made(error)

    assert type(again) is type(error)
    assert (str(again), again.args, again.lines) == (str(error), error.args, error.lines)
    assert vars(again).keys() == vars(error).keys()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_command_reports_an_error_in_its_lines(error, capsys):
    """Every fault is a line on stderr, and the exit code is 2."""
    with pytest.raises(typer.Exit) as ended, errors_reported():
        raise error

    assert ended.value.exit_code == 2
    assert len(capsys.readouterr().err.splitlines()) == len(error.lines) > 0
