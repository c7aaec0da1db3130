"""Can these products be right? Determinism, symmetry, and a finite difference, on random vectors.

Derivatives come from many formulas of many operators, and some are wrong: in torch 2.13 on the CPU
the Hessian through `parametrizations.weight_norm` is asymmetric by a third. What is found is pinned
to a module.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from bdhf.optim.blocks import Blocks
from bdhf.optim.curvature import Curvature, Hessian
from bdhf.optim.cutting import cut
from bdhf.optim.errors import CurvatureError
from bdhf.optim.layout import split_like
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.objective import Objective
from bdhf.optim.partitions import Full
from bdhf.optim.products import BlockProduct
from bdhf.optim.suspects import not_differentiable_twice, not_repeatable

#: What is too far from 0, by the precision of the parameters.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 2e-2}

#: Relative step of the finite difference, which is taken in float64 whatever the model, so small
#: that a sample rarely crosses the kink of a ReLU.
STEP = 1e-8

#: Relative difference of the slopes to both sides above which a point is a kink: no derivative.
KINK = 1e-3

#: Where the product is 0, a finite difference counts from this share of the gradient on.
FLOOR = 1e-3


@dataclass(frozen=True)
class Check:
    """What was found; each number is relative, 0 is perfect, NaN was not looked at."""

    repeatability: float  # change of the outputs from one forward pass to the next
    asymmetry: float  # |uᵀGv - vᵀGu| ÷ ‖Gv‖
    finite_difference: float  # |vᵀGv - its finite difference| ÷ ‖Gv‖ + |vᵀGv|
    tolerance: float
    problem: str = ""  # what is wrong, in which module, and what to do; empty: nothing

    @property
    def passed(self) -> bool:
        """Whether nothing was found."""
        return not self.problem


def examine(
    objective: Objective,
    product: BlockProduct,
    curvature: Curvature,
    watch: Callable[[], None] | None = None,
) -> Check:
    """Examine the products of one linearisation at the parameters as they are.

    `watch` is called before every product; it may raise.
    """
    tolerance = TOLERANCES.get(product.gradient.dtype, 0.2)
    found = Check(math.nan, math.nan, math.nan, tolerance)
    inputs = product.parts[0][1].batch[0]
    with objective.random_state_kept():
        change, module = not_repeatable(objective.model, inputs)
        found = replace(found, repeatability=change)
        if change > tolerance:
            return replace(
                found,
                problem=f"{module} gives other outputs at every forward pass (relative change "
                f"{change:.2g}): put it into eval mode, or draw its noise once per update",
            )
        message = ""
        try:
            probe = _Probe(objective, product, curvature, cut(product.blocks.layout, Full()), watch)
            found = _examine_products(probe, found)
        except (RuntimeError, NotImplementedError) as error:
            culprit, message = not_differentiable_twice(objective.model, inputs), str(error)
            if culprit is None:
                raise
        else:
            culprit = None if found.passed else not_differentiable_twice(objective.model, inputs)
    if culprit is None:
        return found
    reason = f" ({message.splitlines()[0]})" if message else ": products are cut off there"
    return replace(
        found,
        problem=f"{culprit} cannot be differentiated twice{reason}; replace it by a module made of "
        "differentiable operators, or freeze what is below it",
    )


def check_curvature(
    objective: Objective,
    product: BlockProduct,
    curvature: Curvature,
    watch: Callable[[], None] | None = None,
) -> None:
    """Raise CurvatureError if `examine` finds something."""
    found = examine(objective, product, curvature, watch)
    if not found.passed:
        raise CurvatureError(
            f"curvature products of {type(objective.model).__name__} cannot be right: "
            f"{found.problem} (check=False goes on all the same)"
        )


def _examine_products(probe: _Probe, found: Check) -> Check:
    draws = torch.Generator().manual_seed(0)
    u, v = (torch.randn(probe.full.layout.size, generator=draws) for _ in range(2))
    asymmetry, difference = probe(u, v)
    found = replace(found, asymmetry=asymmetry, finite_difference=difference)
    if not max(asymmetry, 0.0 if math.isnan(difference) else difference) > found.tolerance:
        return found
    module = _worst(probe, u, v)
    return replace(
        found,
        problem=f"the product is asymmetric by {asymmetry:.2g} and differs from a finite "
        f"difference by {difference:.2g} (tolerance {found.tolerance:g}); suspect: {module}. "
        "torch's second derivative of it is wrong here: replace it, use another curvature (GGN "
        "needs first derivatives of the outputs only), or report it to PyTorch",
    )


def _worst(probe: _Probe, u: Tensor, v: Tensor) -> str:
    """The module whose parameters, moved alone, give the largest error."""
    layout = probe.full.layout
    owners = list(dict.fromkeys(slot.owners[-1] for slot in layout.slots))
    errors = {}
    for path, module in owners:
        mask = torch.zeros(layout.size)
        for slot in layout.slots:
            if slot.owners[-1][0] == path:
                mask[slot.start : slot.stop] = 1.0
        error = max((e for e in probe(u * mask, v * mask) if not math.isnan(e)), default=0.0)
        errors[f"module {path or 'at the root'!r} ({type(module).__name__})"] = error
    return max(errors, key=errors.__getitem__)


@dataclass(frozen=True)
class _Probe:
    """Asymmetry and finite-difference error of the full matrix, for two vectors."""

    objective: Objective
    product: BlockProduct
    curvature: Curvature
    full: Blocks
    watch: Callable[[], None] | None

    def __call__(self, u: Tensor, v: Tensor) -> tuple[float, float]:
        like = self.product.gradient
        u, v = u.to(like), v.to(like)
        gu, gv = self._product(u), self._product(v)
        if not (gu.isfinite().all() and gv.isfinite().all()):
            return math.nan, math.nan  # not the business of this check: the update will say so
        norm = float(gv.norm() + gu.norm())
        asymmetry = float((u @ gv - v @ gu).abs()) / norm if norm else 0.0
        expected, actual = self._difference(v), float(v @ gv)
        scale = float(gv.norm()) + abs(actual) or FLOOR * float(like.norm())
        return asymmetry, abs(expected - actual) / scale if scale else math.nan

    def _product(self, v: Tensor) -> Tensor:
        if self.watch is not None:
            self.watch()
        return self.product.cut_to(self.full, v)

    def _difference(self, v: Tensor) -> float:
        """vᵀGv by a central difference, in float64 on a copy.

        NaN where no copy can be made, and at a kink.
        """
        try:
            twin = Objective.of(*_doubled(self.objective.model, self.objective.loss_fn))
        except (RuntimeError, TypeError):
            return math.nan
        theta = twin.theta()
        step = STEP * max(float(theta.norm()), 1.0) / float(v.norm())
        total = 0.0
        try:
            for weight, part in self.product.parts:
                inputs, targets = (_double(piece) for piece in part.batch)
                points = []
                for sign in (-1.0, 0.0, 1.0):
                    _set(twin.parameters, theta + sign * step * v.double())
                    points.append(_value(twin, inputs, targets, self.curvature))
                before, behind = (b - a for a, b in pairwise(points))
                if (before - behind).norm() > KINK * (before.norm() + behind.norm()):
                    return math.nan  # a ReLU at exactly 0, say: the derivative is a convention
                slope = (before + behind) / (2 * step)
                total += weight * _quadratic(slope, v, part.hessian)
        except RuntimeError:  # something in the model or the loss is not for float64
            return math.nan
        return total


def _doubled(model: nn.Module, loss_fn: LossFn) -> tuple[nn.Module, LossFn]:
    """Copies in float64, made together: a parameter that both hold stays one."""
    if not isinstance(loss_fn, nn.Module):
        return copy.deepcopy(model).double(), loss_fn
    model, loss_fn = copy.deepcopy((model, loss_fn))
    return model.double(), loss_fn.double()


def _value(twin: Objective, inputs: Any, targets: Any, curvature: Curvature) -> Tensor:
    """What is differenced: the outputs, or for the Hessian the gradient (P,)."""
    if not isinstance(curvature, Hessian):
        with torch.no_grad():
            outputs: Tensor = twin.model(inputs)
            return outputs
    with torch.enable_grad():
        return twin.loss_and_gradient(((inputs, targets),))[1]


def _quadratic(slope: Tensor, v: Tensor, hessian: Any) -> float:
    """(Jv)ᵀH(Jv), or vᵀ(∇²L v)."""
    if hessian is None:
        return float(slope @ v.double())
    w = slope.to(v.dtype)
    return float((w * hessian(w)).sum())


def _set(parameters: Sequence[nn.Parameter], flat: Tensor) -> None:
    with torch.no_grad():
        for parameter, value in zip(parameters, split_like(flat, parameters), strict=True):
            parameter.copy_(value)


def _double(piece: Any) -> Any:
    return tree_map(
        lambda x: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x, piece
    )
