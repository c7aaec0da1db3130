"""An evaluation: loss and metrics of a model on one part of the data."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from bdhf.optim.forward.objective import plain_kernels
from bdhf.optim.forward.passes import Passes
from bdhf.problems import Problem
from bdhf.problems.data import Part

_EVALUATION_BATCH = 4096  # samples at a time, to bound the memory of an evaluation


@torch.no_grad()
def scores(
    model: nn.Module, passes: Passes, problem: Problem, part: Part, watch: Callable[[], None]
) -> dict[str, float]:
    """Loss and metrics on one part of the data, each a mean over its samples.

    With the kernels of the updates, since others may compute another function (`plain_kernels`).
    `watch` is called before every batch, and may raise.
    """
    sums: dict[str, float] = {}
    for start in range(0, len(part[0]), _EVALUATION_BATCH):
        watch()
        inputs, targets = (tensor[start : start + _EVALUATION_BATCH] for tensor in part)
        with plain_kernels(model):
            outputs = passes.outputs(inputs, model)
        measured = {"loss": problem.loss(outputs, targets), **problem.measure(outputs, targets)}
        for name, value in measured.items():
            sums[name] = sums.get(name, 0.0) + float(value) * len(inputs)
    return {name: value / len(part[0]) for name, value in sums.items()}
