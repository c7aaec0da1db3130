"""Whether the samples of a batch are coupled: an output that hangs on the other samples.

Graph networks and attention over the batch are such on purpose, and products of one batch are right
for them. Micro-batches are not the batch then: each has outputs of its own.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.forward.batches import Batches
from bdhf.optim.forward.objective import Objective

#: Relative change of the outputs that is rounding, by their precision.
_TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}
_COARSE = 0.1


#: Dimensions of inputs and outputs that may count the samples; those of sequences may come first.
COUNTING = ((0, 0), (1, 1), (1, 0))


def coupled(objective: Objective, inputs: Any) -> str:
    """Why micro-batches of this model are not its batch, and the way out; empty if they are.

    The first half of the samples alone must have the outputs that it has among all. Inputs that are
    no tensor, or whose dimension 0 is not that of the outputs, tell nothing.
    """
    if not isinstance(inputs, Tensor) or inputs.dim() == 0 or len(inputs) < 2:
        return ""
    with torch.enable_grad():  # a model may differentiate in its forward
        whole = objective.outputs(inputs).detach()
        if whole.dim() == 0 or len(whole) != len(inputs):
            return ""
        tolerance = _TOLERANCES.get(whole.dtype, _COARSE)
        if any(_change(objective, inputs, whole, *pair) <= tolerance for pair in COUNTING):
            return ""
    return (
        f"the outputs of {type(objective.model).__name__} for a sample change with the other "
        "samples of its batch, so micro-batches are not the batch: give one tuple (inputs, "
        "targets) of all samples"
    )


def refuse_coupled(objective: Objective, batches: Batches) -> None:
    """Raise ModelError for several micro-batches of a model that couples samples."""
    with objective.random_state_kept():
        if len(batches) > 1 and (problem := coupled(objective, batches[0][0])):
            raise ModelError(
                f"{problem} (check=False skips this check, for micro-batches that are each a "
                "unit of its own, such as a graph)"
            )


def _change(
    objective: Objective, inputs: Tensor, whole: Tensor, of_inputs: int, of_outputs: int
) -> float:
    """Relative change of the outputs of half of the samples; infinite where they do not fit."""
    if inputs.dim() <= of_inputs or whole.dim() <= of_outputs:
        return math.inf
    samples = inputs.shape[of_inputs]
    if whole.shape[of_outputs] != samples or samples < 2:
        return math.inf
    among = whole.narrow(of_outputs, 0, samples // 2)
    try:
        alone = objective.outputs(inputs.narrow(of_inputs, 0, samples // 2)).detach()
    except (RuntimeError, ValueError, IndexError):  # it takes no other number of samples
        return math.inf
    if alone.shape != among.shape:
        return math.inf
    size = float(among.norm())
    change = float((alone - among).norm()) / size if size else 0.0
    return 0.0 if math.isnan(change) else change  # outputs that are no numbers tell nothing
