"""Checks of products on random vectors: determinism, symmetry, and a finite difference.

Derivatives come from many formulas of many operators, and some are wrong: in torch 2.13 on the CPU
the Hessian through `parametrizations.weight_norm` is asymmetric by a third. The check names the
module that causes an error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from bdhf.optim.curvature import Curvature, hessian_share
from bdhf.optim.diagnosis.coupling import coupled
from bdhf.optim.diagnosis.faulty_module import first_change
from bdhf.optim.diagnosis.surrogates import surrogate
from bdhf.optim.errors import CurvatureError
from bdhf.optim.forward.buffers import buffers_kept, warn_of_moved
from bdhf.optim.forward.objective import Objective
from bdhf.optim.inspection.block_check import Errors, Probe
from bdhf.optim.products import BlockProduct
from bdhf.optim.refusals.refusals import named

#: Tolerances, by the precision of forward passes or of products.
_TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-2}

#: The same for a block alone, whose products may be small differences of large terms.
BLOCK_TOLERANCES = {torch.float64: 1e-4, torch.float32: 5e-2}

#: For any other precision.
_COARSE = 0.2


@dataclass(frozen=True)
class Check:
    """The result of the check; numbers are relative, 0 is perfect, NaN: not examined.

    Those of products are of the full matrix, or of the worst block where only blocks are wrong.
    """

    repeatability: float  # change of the outputs from one forward pass to the next
    asymmetry: float  # |uᵀGv - vᵀGu| ÷ ‖Gu‖ + ‖Gv‖
    finite_difference: float  # |vᵀGv - its finite difference| ÷ ‖Gv‖ + |vᵀGv|
    tolerance: float  # of products
    problem: str = ""  # what is wrong, in which module, and what to do; empty: nothing

    @property
    def passed(self) -> bool:
        """Whether there is no problem."""
        return not self.problem


def examine(objective: Objective, product: BlockProduct, curvature: Curvature) -> Check:
    """Examine the products of one linearisation at the current parameters."""
    check = _examine_passes(objective, product)
    if not check.passed:
        return check
    try:
        return _examine_products(Probe(objective, product, curvature, check.tolerance), check)
    except CurvatureError as error:  # there is no product; the error has the reason
        return replace(check, problem=str(error))


def check_curvature(
    objective: Objective,
    product: BlockProduct,
    curvature: Curvature,
    watch: Callable[[], None] | None = None,
) -> None:
    """Raise CurvatureError if there is a problem.

    `watch` is called before every product; it may raise.
    """
    check = _examine_passes(objective, product)
    if check.passed:
        probe = Probe(objective, product, curvature, check.tolerance, watch)
        check = _examine_products(probe, check)
    if not check.passed:
        raise CurvatureError(
            f"curvature products of {type(objective.model).__name__} cannot be right: "
            f"{check.problem} (check=False skips this check)"
        )


def _examine_passes(objective: Objective, product: BlockProduct) -> Check:
    """Whether the model is deterministic, and its micro-batches add up to the batch."""
    inputs = product.parts[0][1].batch[0]
    problem = ""
    with objective.random_state_kept(), buffers_kept(objective.model) as moved:
        change, module = first_change(objective.model, inputs)
        if moved():  # a cache that is filled once does not move again
            with buffers_kept(objective.model) as moved_again:
                first_change(objective.model, inputs)
                warn_of_moved(objective.model, moved_again())
        if change > _TOLERANCES.get(product.gradient.dtype, _COARSE):
            problem = (
                f"{module} returns other outputs in every forward pass (relative change "
                f"{change:.2g}): put it into eval mode, or draw its noise once per update"
            )
        elif len(product.parts) > 1:
            problem = coupled(objective, inputs)
    tolerance = _TOLERANCES.get(product.dtype, _COARSE)
    return Check(change, math.nan, math.nan, tolerance, problem)


def _examine_products(probe: Probe, check: Check) -> Check:
    """Errors of the full matrix, then those of blocks. Raises CurvatureError without products."""
    with probe.objective.random_state_kept(), buffers_kept(probe.objective.model):
        full = probe.of_full()
        check = replace(check, asymmetry=full.asymmetry, finite_difference=full.finite_difference)
        problem = _full_problem(probe, check) if full.worst > check.tolerance else ""
        if not problem:
            check, problem = _examine_blocks(probe, check)
        if not problem:
            return check
        return replace(check, problem=_surrogate_problem(probe, check) or problem)


def _surrogate_problem(probe: Probe, check: Check) -> str:
    """Whether a backward pass is not the derivative of its forward pass; empty: none is."""
    module = surrogate(probe.objective.model, probe.product.parts[0][1].batch[0])
    if not module:
        return ""
    return (
        f"the product {_errors(check)}; suspect: {module}: its backward pass is not the "
        "derivative of its forward pass, as with a straight-through estimator, a detach(), a "
        "no_grad() or a gradient hook. If that is intended, check=False uses this backward pass "
        "as the Jacobian; otherwise make the two agree"
    )


def _errors(check: Check) -> str:
    return (
        f"is asymmetric by {check.asymmetry:.2g} and differs from a finite difference by "
        f"{check.finite_difference:.2g}"
    )


def _full_problem(probe: Probe, check: Check) -> str:
    """What is wrong with the full matrix, where no module has a surrogate backward pass."""
    order, way_out = "first", "replace it, or report it to PyTorch"
    if hessian_share(probe.curvature):
        order = "second"
        way_out = (
            "replace it, use another curvature (GGN needs first derivatives of the outputs "
            "only), or report it to PyTorch"
        )
    return (
        f"the product {_errors(check)} (tolerance {check.tolerance:g}); suspect: {_worst(probe)}. "
        f"torch's {order} derivative of it is wrong here: {way_out}"
    )


def _worst(probe: Probe) -> str:
    """The module whose parameters, moved alone, give the largest error."""
    layout = probe.full.layout
    owners: dict[str, nn.Module] = dict(slot.owners[-1] for slot in layout.slots)
    errors = {}
    for path, module in owners.items():
        mask = torch.zeros(layout.size)
        for slot in layout.slots:
            if slot.owners[-1][0] == path:
                mask[slot.start : slot.stop] = 1.0
        errors[named(path, module)] = probe.of_full(mask).worst
    return max(errors, key=errors.__getitem__)


def _examine_blocks(probe: Probe, check: Check) -> tuple[Check, str]:
    """The check with the errors of blocks, and what is wrong with the worst of them."""
    errors = probe.of_blocks()
    if not errors:
        return check, ""
    index = max(errors, key=lambda block: errors[block].worst)
    tolerance = BLOCK_TOLERANCES.get(probe.product.dtype, _COARSE)
    if errors[index].worst <= tolerance:
        return check, ""
    worst: Errors = errors[index]
    check = replace(check, asymmetry=worst.asymmetry, finite_difference=worst.finite_difference)
    assert probe.blocks is not None  # it has errors
    names = [probe.blocks.layout.slots[i].name for i in probe.blocks.rows[index].slots]
    listed = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return check, (
        f"the product of block {index} ({listed}) {_errors(check)} (tolerance {tolerance:g}), "
        "while the full matrix is right. The method is wrong for this model "
        f"({probe.product.why}): try another method= ('propagate', 'layer_io') or Full(), and "
        "report it to bdhf"
    )
