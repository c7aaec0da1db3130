"""Whether the sites cover all uses of the parameters: a comparison with autograd.

A use without a rule would make products silently wrong. So the gradient through the sites is
compared with autograd's, parameter by parameter, and the product with the full matrix with two
reverse sweeps, which also detects samples that are not in dimension 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from bdhf.optim.losses import OutputHessian
from bdhf.optim.products.layer_io.sites import Uncovered
from bdhf.optim.products.propagate.choose_jvp import choose_jvp, uncut
from bdhf.optim.products.propagate.jvp import JVP
from bdhf.optim.products.request import Request
from bdhf.optim.products.tape.tape import Tape
from bdhf.optim.products.vjp import vjp
from bdhf.optim.torch_support.failures import Failure, attempt
from bdhf.optim.vectors.layout import Slot, split_like

#: Relative differences that rounding may explain, by the precision of the products.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
_COARSE = 5e-2  # of any other precision

#: What is wrong with a parameter whose gradient differs, and with one whose product differs.
UNKNOWN_USE = "is used by a function for which layer_io has no rule"
COUPLED = (
    "takes part in a product that is not a sum over the samples: does dimension 0 count the "
    "samples everywhere?"
)


def compare_with_autograd(
    columns: Mapping[int, Tensor], exact: Sequence[Tensor], slots: Sequence[Slot],
    dtype: torch.dtype, why: str,
) -> None:  # fmt: skip
    """Raise Uncovered, naming the parameter that differs most, unless all agree within rounding."""
    ratios = _differences(columns, exact)
    if ratios is None:
        return
    worst = int(ratios.argmax())
    if ratios[worst] > _TOLERANCES.get(dtype, _COARSE):
        path, module = slots[worst].owners[-1]
        where = f"{path or 'the model itself'}: {type(module).__name__}"
        raise Uncovered(f"{slots[worst].name!r} ({where}) {why}")


def differing(
    columns: Mapping[int, Tensor], exact: Sequence[Tensor], dtype: torch.dtype
) -> list[int]:
    """The parameters that differ by more than rounding."""
    ratios = _differences(columns, exact)
    if ratios is None:
        return []
    return (ratios > _TOLERANCES.get(dtype, _COARSE)).nonzero().reshape(-1).tolist()


def _differences(columns: Mapping[int, Tensor], exact: Sequence[Tensor]) -> Tensor | None:
    """The relative difference of every parameter; None where there is nothing to compare."""
    exact = [part.detach() for part in exact]
    floor = 1e-3 * max(float(part.norm()) for part in exact)
    if not floor:
        return None
    errors = [part - columns[i].detach() if i in columns else part for i, part in enumerate(exact)]
    pairs = zip(errors, exact, strict=True)
    ratios = torch.tensor([float(e.norm()) / (float(part.norm()) + floor) for e, part in pairs])
    return ratios.nan_to_num(torch.inf)


def exact_product(
    request: Request, outputs: Tensor, hessian: OutputHessian, v: Sequence[Tensor]
) -> list[Tensor]:
    """Jᵀ H J v by propagation, v and the result of the shapes of the parameters.

    J v is by double backward; where torch has no second derivative, along the tape of another pass.
    Raises CurvatureError where neither works.
    """
    tangents = dict(enumerate(v))
    jv = attempt(lambda: uncut(request, outputs)(tangents))
    if isinstance(jv, Failure):
        jv = _along_a_tape(request)(tangents)
    assert jv is not None  # outputs that depend on no parameter have been refused
    parameters = request.objective.parameters
    return split_like(vjp(outputs, parameters, hessian(jv)), parameters)


def _along_a_tape(request: Request) -> JVP:
    objective, tape = request.objective, Tape(request.objective.parameters)
    with torch.enable_grad():
        z = tape.record(lambda: objective.outputs(request.batch[0], channels_last=False))
    return choose_jvp(request, tape, z)[0]
