"""What differs between the versions of torch that are supported, shown on any of them."""

import warnings

import pytest
import torch

import bdhf
from bdhf.optim.forward.objective import Objective
from bdhf.optim.products.tape import dual_numbers
from tests.cases import build

CURVATURES = [bdhf.GGN(), bdhf.Hessian(), bdhf.EmpiricalFisher()]


@pytest.fixture
def _zeros_of_2_9(monkeypatch):
    """Up to torch 2.9 the zeros of unreached inputs require a gradient."""
    new = torch.autograd.grad

    def old(outputs, inputs, *args, materialize_grads=False, **settings):
        made = new(outputs, inputs, *args, **settings)
        inputs = [inputs] if isinstance(inputs, torch.Tensor) else inputs
        zeros = [torch.zeros_like(x, requires_grad=True) for x in inputs]
        pairs = zip(made, zeros, strict=True)
        return tuple(z if m is None and materialize_grads else m for m, z in pairs)

    monkeypatch.setattr(torch.autograd, "grad", old)


@pytest.mark.usefixtures("_zeros_of_2_9")
@pytest.mark.parametrize("curvature", CURVATURES, ids=lambda c: type(c).__name__)
@pytest.mark.parametrize("name", ["mlp", "unused"])
def test_no_product_leads_to_a_graph(name, curvature):
    """A product, a gradient or a loss that kept a graph would hold memory, and warn in float()."""
    case = build(name)
    G = bdhf.block_curvature(case.model, case.loss_fn, case.batch, curvature=curvature)
    objective = Objective.of(case.model, case.loss_fn)
    made = [
        G._product(G._product.gradient),
        G._product.loss,
        *objective.loss_and_gradient([case.batch]),
    ]
    if not isinstance(curvature, bdhf.Hessian):
        made.append(G._product.factor(4))

    assert not any(tensor.requires_grad for tensor in made)
    assert G.check().passed


@pytest.mark.parametrize("category", [DeprecationWarning, FutureWarning, UserWarning])
def test_what_torch_says_of_its_own_script_reaches_nobody(category, monkeypatch):
    """While torch loads its rules of forward mode it warns, in a category of each release."""

    def load(name):
        warnings.warn(f"{name} is scripted", category, stacklevel=2)

    monkeypatch.setattr(dual_numbers.importlib, "import_module", load)

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        dual_numbers._load_forward_mode.__wrapped__()

    assert not heard
