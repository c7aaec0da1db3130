"""vᵀGv by differences of the outputs for a Jᵀ H J, or of the gradient for the Hessian.

They are computed in float64 on a copy of the model, whatever its precision. All v share the base
point.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bdhf.optim.diagnosis.surrogates import double
from bdhf.optim.forward.objective import Objective
from bdhf.optim.losses import OutputHessian
from bdhf.optim.losses.weights import LossFn
from bdhf.optim.products import BlockProduct
from bdhf.optim.products.weighted_sum import terms_of
from bdhf.optim.vectors.layout import split_like

#: Relative step of the finite difference, in float64 for every model; so small that a sample rarely
#: crosses the kink of a ReLU.
_STEP = 1e-8

#: Relative difference of the slopes on both sides above which a point is a kink.
_KINK = 1e-3


@dataclass(frozen=True)
class Differences:
    """A copy of a model in float64, and the values at the current parameters."""

    twin: Objective
    theta: Tensor  # (P,), float64
    parts: Sequence[tuple[float, Any, Any, Tensor]]  # weight, batch, H, value of a term

    @classmethod
    def of(cls, objective: Objective, product: BlockProduct) -> Differences | None:
        """None where the model has no copy in float64."""
        try:
            twin = Objective.of(*_doubled(objective.model, objective.loss_fn))
            parts = []
            for weight, part in product.parts:
                batch = double(part.batch)
                for share, term in terms_of(part):
                    value = _value(twin, batch, term.hessian)
                    parts.append((weight * share, batch, term.hessian, value))
        except (RuntimeError, TypeError):
            return None
        return cls(twin, twin.theta(), parts)

    def central(self, v: Tensor) -> float:
        """vᵀGv for v of shape (P,), in the order of the parameters; NaN at a kink."""
        total = 0.0
        for part, before, behind in zip(
            self.parts, self._slopes(v, -1.0), self._slopes(v, 1.0), strict=True
        ):
            if (before - behind).norm() > _KINK * (before.norm() + behind.norm()):
                return math.nan  # such as a ReLU at exactly 0: the derivative is a convention
            total += part[0] * _quadratic((before + behind) / 2, v, part[2])
        return total

    def forward(self, v: Tensor) -> float:
        """The same from one side, at half the cost; wrong at a kink."""
        pairs = zip(self.parts, self._slopes(v, 1.0), strict=True)
        return sum(part[0] * _quadratic(slope, v, part[2]) for part, slope in pairs)

    def _slopes(self, v: Tensor, sign: float) -> list[Tensor]:
        """The change of the values along ±v, per unit of v, for every term."""
        step = sign * _STEP * max(float(self.theta.norm()), 1.0) / float(v.norm())
        _set(self.twin.parameters, self.theta + step * v.double())
        values = [_value(self.twin, batch, hessian) for _, batch, hessian, _ in self.parts]
        pairs = zip(values, self.parts, strict=True)
        return [(value - part[3]) / step for value, part in pairs]


def _doubled(model: nn.Module, loss_fn: LossFn) -> tuple[nn.Module, LossFn]:
    """Copies in float64, made together: a shared parameter stays shared."""
    if not isinstance(loss_fn, nn.Module):
        return copy.deepcopy(model).double(), loss_fn
    model, loss_fn = copy.deepcopy((model, loss_fn))
    return model.double(), loss_fn.double()


def _value(twin: Objective, batch: Any, hessian: OutputHessian | None) -> Tensor:
    """The values to difference: the outputs, or without an H between them the gradient (P,)."""
    with torch.enable_grad():  # a model may differentiate in its forward
        if hessian is None:
            return twin.loss_and_gradient((batch,))[1]
        outputs: Tensor = twin.model(batch[0]).detach()
        return outputs


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
