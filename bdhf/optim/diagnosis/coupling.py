"""Whether the samples of a batch are coupled: an output depends on the other samples.

Graph networks and attention over the batch do so by design, and products of one batch are right for
them. Their micro-batches do not add up to the batch, since they have other outputs.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from bdhf.optim.errors import ModelError
from bdhf.optim.forward.batches import Batches
from bdhf.optim.forward.objective import Objective

#: Relative change of the outputs that rounding may explain, by their precision.
_TOLERANCES = {torch.float64: 1e-7, torch.float32: 1e-3}
_COARSE = 0.1


#: Dimensions of inputs and outputs that may count the samples, which can follow the sequence.
COUNTING = ((0, 0), (1, 1), (1, 0))


def coupled(objective: Objective, inputs: Any) -> str:
    """Why micro-batches of this model do not add up to its batch, and what to do; empty if they do.

    The first half of the samples must have the same outputs alone as in the batch. Not tested for
    inputs that are not a tensor, or whose dimension 0 differs from that of the outputs.
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
        "samples of its batch, so micro-batches do not add up to the batch: pass one tuple "
        "(inputs, targets) of all samples"
    )


def refuse_coupled(objective: Objective, batches: Batches) -> None:
    """Raise ModelError for several micro-batches of a model that couples samples."""
    with objective.random_state_kept():
        if len(batches) > 1 and (problem := coupled(objective, batches[0][0])):
            raise ModelError(
                f"{problem} (check=False skips this check, for micro-batches that are each one "
                "unit, such as a graph)"
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
    except (RuntimeError, ValueError, IndexError):  # it needs this number of samples
        return math.inf
    if alone.shape != among.shape:
        return math.inf
    size = float(among.norm())
    change = float((alone - among).norm()) / size if size else 0.0
    return 0.0 if math.isnan(change) else change  # NaN in the outputs: not tested
