"""What is said where no method can compute a product: which module, why, and the ways out."""

from __future__ import annotations

from bdhf.optim.errors import CurvatureError
from bdhf.optim.products.failures import Failure, attempt
from bdhf.optim.products.request import Request
from bdhf.optim.suspects import not_differentiable_twice

_WAYS_OUT = "replace it by a module made of differentiable operators, or freeze what is below it"
_FIRST = "replace the module that cannot by differentiable operators, or freeze what is below it"


def no_second_derivative(request: Request, failure: Failure, problem: str) -> CurvatureError:
    """Neither double backward nor the tape gives J v; `problem` is that of the tape."""
    error = CurvatureError(
        f"{_culprit(request)} cannot be differentiated twice ({failure.reason}), and J v along a "
        f"tape of the forward pass cannot stand in ({problem or 'there is none'}): {_WAYS_OUT}; "
        "GGN, Fisher and EmpiricalFisher all need one of the two"
    )
    error.__cause__ = failure.error
    return error


def no_hessian(request: Request, failure: Failure) -> CurvatureError:
    """The Hessian needs second derivatives."""
    error = CurvatureError(
        f"{_culprit(request)} cannot be differentiated twice ({failure.reason}), as the Hessian "
        f"needs: {_WAYS_OUT}, or use GGN, Fisher or EmpiricalFisher, which need first derivatives "
        "of the model only"
    )
    error.__cause__ = failure.error
    return error


def no_curved_loss(request: Request, failure: Failure) -> CurvatureError:
    """The loss has no second derivative in the outputs."""
    name = getattr(request.objective.loss_fn, "__name__", type(request.objective.loss_fn).__name__)
    error = CurvatureError(
        f"the loss {name} cannot be differentiated twice in the outputs ({failure.reason}), as "
        f"{type(request.curvature).__name__} needs: use a loss made of differentiable operators, "
        "or give it a closed form (the methods of a Likelihood); with those, EmpiricalFisher and "
        "Fisher need first derivatives of the loss only"
    )
    error.__cause__ = failure.error
    return error


def no_gradient(request: Request, failure: Failure, what: str) -> CurvatureError:
    """Reverse mode fails, with which everything begins."""
    error = CurvatureError(
        f"{what} of {type(request.objective.model).__name__} cannot be computed by torch "
        f"({failure.reason}): loss.backward() has to work; {_FIRST}"
    )
    error.__cause__ = failure.error
    return error


def _culprit(request: Request) -> str:
    """The module without a second derivative; the model or its loss where none can be told."""
    objective, inputs = request.objective, request.batch[0]
    with objective.random_state_kept():
        name = attempt(lambda: not_differentiable_twice(objective.model, inputs))
    if isinstance(name, str):
        return name
    return f"{type(objective.model).__name__}, or its loss,"
