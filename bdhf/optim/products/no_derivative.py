"""The errors where no method can compute a product: which module, why, and what to do."""

from __future__ import annotations

from bdhf.optim.diagnosis.faulty_module import not_differentiable_twice
from bdhf.optim.diagnosis.surrogates import surrogate
from bdhf.optim.errors import CurvatureError
from bdhf.optim.losses.hessians import no_curved_loss
from bdhf.optim.losses.own import loss_name
from bdhf.optim.products.request import Request
from bdhf.optim.torch_support.failures import Failure, attempt

_WAYS_OUT = "replace it with a module of differentiable operators, or freeze what is below it"


def no_second_derivative(request: Request, failure: Failure, problem: str) -> CurvatureError:
    """Neither double backward nor the tape gives J v; `problem` is why the tape does not."""
    name = _culprit(request) or type(request.objective.model).__name__
    return _caused(
        f"{name} cannot be differentiated twice ({failure.reason}), and a tape of the forward pass "
        f"does not give J v either ({problem or 'there is none'}): {_WAYS_OUT}; GGN, Fisher and "
        "EmpiricalFisher all need one of the two",
        failure,
    )


def no_hessian(request: Request, failure: Failure) -> CurvatureError:
    """The Hessian needs second derivatives of the model, and of the loss."""
    name = _culprit(request)
    if not name:
        return no_curved_loss(loss_name(request.objective.loss_fn), failure)
    return _caused(
        f"{name} cannot be differentiated twice ({failure.reason}), which the Hessian needs: "
        f"{_WAYS_OUT}, or use GGN, Fisher or EmpiricalFisher, which need first derivatives of the "
        "model only",
        failure,
    )


def no_gradient(request: Request, failure: Failure, what: str) -> CurvatureError:
    """Reverse mode fails, which every method needs."""
    name = _culprit(request) or type(request.objective.model).__name__
    return _caused(
        f"torch cannot compute {what} ({failure.reason}), since loss.backward() fails; suspect: "
        f"{name}. {_WAYS_OUT.capitalize()}",
        failure,
    )


def _caused(message: str, failure: Failure) -> CurvatureError:
    error = CurvatureError(message)
    error.__cause__ = failure.error
    return error


def _culprit(request: Request) -> str:
    """The module without a second derivative, or with a surrogate backward pass; empty: none."""
    model, inputs = request.objective.model, request.batch[0]
    with request.objective.random_state_kept():
        name = attempt(lambda: not_differentiable_twice(model, inputs))
        return name if isinstance(name, str) else surrogate(model, inputs)
