"""The first update of an arm, on a few synthetic samples of its problem, on the CPU.

It does what a run does up to its first row, with less work: no data is loaded, nothing is compiled.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from bdhf.experiments.parts.meta_models import meta_model
from bdhf.experiments.parts.problem_fit import SAMPLES, example_of, refuse_misfit
from bdhf.experiments.parts.tables import optimizer_of, problem_of
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.random_streams import generator
from bdhf.experiments.run.updaters import updater_of
from bdhf.problems import Problem
from bdhf.problems.data import Part

#: Parameters of the largest model that is built: a larger one would take too long for a plan.
PARAMETERS = 20_000_000

#: Iterations of a solver, and the argument for them where a solver has one.
_ITERATIONS = 2
_ITERATIVE = {"cg": "max_iters", "saddle_free": "iterations"}


class NotTried(Exception):  # noqa: N818 - an outcome, not an error
    """The arm cannot be tried here, which is no fault of the arm."""


@contextmanager
def untouched() -> Iterator[None]:
    """Restore the random streams of this process, and hide warnings, which a run repeats."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def as_tried(run: RunSpec) -> RunSpec:
    """A run whose first update fails in the same cases, and takes less time.

    Arms of `block_hf` that differ in learning rate, a damping above 0 or the iterations of a solver
    share one, because these do not decide whether an update can be made. Nothing is compiled.
    """
    arm = run.optimizer
    if arm["type"] != "block_hf":
        return run
    arm = {**arm, "lr": 0.1, "compile": False}
    if arm["damping"]["type"] == "constant" and arm["damping"]["value"] > 0:
        arm["damping"] = {"type": "constant", "value": 0.01}
    key = _ITERATIVE.get(arm["solver"]["type"])
    if key is not None:
        arm["solver"] = {**arm["solver"], key: min(arm["solver"][key], _ITERATIONS)}
    return run.model_copy(update={"optimizer": arm})


def first_update(run: RunSpec, watch: Callable[[], None]) -> None:
    """Evaluate, check and update once; `watch` is called meanwhile, and may raise.

    Raises NotTried and NoExample if this shows nothing, Misfit for a problem whose parts do not fit
    each other, and any error of the arm.
    """
    problem = problem_of(run.problem)
    size = sum(parameter.numel() for parameter in meta_model(problem).parameters())
    if size > PARAMETERS:
        raise NotTried(f"its model has {size:,} parameters, above the {PARAMETERS:,} of this check")
    batch = as_in_run(example_of(problem, SAMPLES), run)
    model = model_of(run, problem)
    watch()
    refuse_misfit(problem, model, batch)
    with torch.no_grad():
        loss = float(problem.loss(model(batch[0]), batch[1]))
    if not math.isfinite(loss):
        raise NotTried(f"its loss on a synthetic batch is {loss}")
    updater = updater_of(optimizer_of(run.optimizer, model, problem), model, problem)
    half = (batch[0][: SAMPLES // 2], batch[1][: SAMPLES // 2])
    curvature = half if run.curvature_batch else None
    updater.check(batch, curvature, watch)
    updater.prepare()
    updater.step(batch, curvature, watch)
    updater.measure(1 if run.off_block_energy else None)


def model_of(run: RunSpec, problem: Problem) -> nn.Module:
    """The model that a run begins with, on the CPU."""
    model = problem.build()
    problem.initialise(model, generator(run.seed, "initialisation"))
    return model.to(dtype=getattr(torch, run.dtype))


def as_in_run(part: Part, run: RunSpec) -> Part:
    """Floating-point tensors in the dtype of the run."""
    dtype = getattr(torch, run.dtype)
    inputs, targets = (t.to(dtype) if t.is_floating_point() else t for t in part)
    return inputs, targets
