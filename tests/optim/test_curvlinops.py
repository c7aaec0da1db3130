"""The same matrices from an independent library, curvlinops."""

import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close

import bdhf
from bdhf.optim.vectors.layers import layers_of
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, Case, build
from tests.oracles import parameters

with warnings.catch_warnings():  # a dependency of it uses torch.jit.script, which warns
    warnings.filterwarnings("ignore", "`torch.jit.script")  # in a category of each release
    import curvlinops

#: torch.func.jvp compiles its rules by torch.jit.script too.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")

#: bdhf's curvature -> curvlinops' operator.
OPERATORS = {
    "ggn": (bdhf.GGN(), curvlinops.GGNLinearOperator),
    "empirical_fisher": (bdhf.EmpiricalFisher(), curvlinops.EFLinearOperator),
    "hessian": (bdhf.Hessian(), curvlinops.HessianLinearOperator),
}
MODULES = {F.mse_loss: nn.MSELoss, F.cross_entropy: nn.CrossEntropyLoss}

#: What curvlinops 3.0.1 cannot do, and why.
OUT_OF_REACH = {
    ("own_loss", "ggn"): "a loss has to be a module",
    ("own_loss", "empirical_fisher"): "a loss has to be a module",
    ("own_loss", "hessian"): "a loss has to be a module",
    ("unused", "ggn"): "gradients of parameters that the outputs do not reach have no batch axis",
    ("unused", "empirical_fisher"): "the same",
    ("unused", "hessian"): "the same",
    ("norms", "hessian"): "it needs a forward rule of group norm's backward, and torch has none",
    ("ignoring", "empirical_fisher"): "it divides by all labels, those that do not count included",
    ("tokens", "empirical_fisher"): "every position is a sample to it, and every label counts 1",
}
REACHED = [(name, kind) for name in CASES for kind in OPERATORS if (name, kind) not in OUT_OF_REACH]
pairs = pytest.mark.parametrize(("name", "kind"), REACHED)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def with_module(case, reduction):
    """The case with the module of its loss, under a reduction."""
    loss = case.loss_fn
    if isinstance(loss, partial):
        module = MODULES[loss.func](**loss.keywords)
    else:
        module = loss if isinstance(loss, nn.Module) else MODULES[loss]()
    module.reduction = reduction
    return Case(case.model, module, case.batch)


def theirs(case, kind, own, **options):
    """Curvlinops' dense matrix in the parameters `own`; it is given attention's plain kernel."""
    operator = OPERATORS[kind][1](
        case.model, case.loss_fn, own, [case.batch], check_deterministic=False, **options
    )
    with sdpa_kernel(SDPBackend.MATH):
        return operator @ torch.eye(operator.shape[0], dtype=own[0].dtype)


def ours(case, kind, partition=bdhf.Full()):  # noqa: B008 - parts are frozen
    """Our dense matrix, and its blocks."""
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, curvature=OPERATORS[kind][0], partition=partition
    )
    return G.to_dense(), G.blocks


@pairs
@reductions
def test_full_matrix_is_theirs(name, kind, reduction):
    """GGN, empirical Fisher and Hessian of the trainable parameters are those of curvlinops."""
    case, twin = (with_module(build(name), reduction) for _ in range(2))

    matrix, _ = ours(case, kind)

    # a twin, since torch.func leaves a model that reaches one module by two names changed
    assert_close(matrix, theirs(twin, kind, parameters(twin)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    "name", [name for name in CASES if (name, "hessian") in REACHED and name != "frozen"]
)
def test_hessian_per_layer_is_theirs(name):
    """Curvlinops' block sizes of the layers give our per-layer Hessian, all entries."""
    case, twin = (with_module(build(name), "mean") for _ in range(2))
    sizes = [len(members) for members in layers_of(layout_of(case.model)).values()]

    matrix, blocks = ours(case, "hessian", bdhf.PerLayer())

    expected = theirs(twin, "hessian", parameters(twin), block_sizes=sizes)
    assert len(blocks) == len(sizes)
    assert_close(matrix, expected, rtol=0, atol=1e-10)


# Curvlinops cuts the Hessian alone into blocks; for the others, a block is the operator of a layer.
@pytest.mark.parametrize("kind", ["ggn", "empirical_fisher"])
@pytest.mark.parametrize("name", ["mlp", "classifier", "conv", "frozen", "sum_bce", "embedding"])
def test_layers_are_their_matrices_of_the_layers_alone(name, kind):
    """A diagonal block is the matrix in the layer's parameters, the others held."""
    case = with_module(build(name), "mean")
    own = parameters(case)
    matrix, blocks = ours(case, kind, bdhf.PerLayer())
    layout = layout_of(case.model)

    for block, members in zip(blocks, layers_of(layout).values(), strict=True):
        layer = [own[layout.slots.index(member.slot)] for member in members]
        expected = theirs(case, kind, layer)
        assert_close(matrix[block[:, None], block], expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("name", ["mlp", "classifier", "conv", "sum_bce", "batch_norm", "peephole"])
def test_matrices_agree_in_single_precision(name, kind):
    """In float32 both libraries round, and stay within its tolerance of each other."""
    case = with_module(build(name, dtype=torch.float32), "mean")

    matrix, _ = ours(case, kind)

    expected = theirs(case, kind, parameters(case))
    assert matrix.dtype == torch.float32
    assert_close(matrix, expected, rtol=1e-4, atol=1e-5)
