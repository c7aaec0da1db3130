"""Products in bfloat16, vectors in the precision of the model; and nothing in any other."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bdhf
from tests.cases import Case, build

LOW = torch.bfloat16
METHODS = {
    "propagate": (bdhf.GGN(), bdhf.PerLayer(), "propagate"),
    "layer_io": (bdhf.GGN(), bdhf.PerLayer(), "layer_io"),
    "hessian": (bdhf.Hessian(), bdhf.PerLayer(), "propagate"),
}
#: Operators that bfloat16 makes faster.
PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "convolution", "convolution_backward", "addmm_")

methods = pytest.mark.parametrize("method", METHODS)


def convolutional():
    """A convolution, a hidden layer and ten classes."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Flatten(),
        nn.Linear(128, 32), nn.Tanh(), nn.Linear(32, 10),
    )  # fmt: skip
    return Case(model, F.cross_entropy, (torch.randn(16, 3, 6, 6), torch.randint(0, 10, (16,))))


def regression():
    """A small regression that a network of one hidden layer can fit."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 2))
    x = torch.randn(64, 4)
    return Case(model, F.mse_loss, (x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1)))


def curvature_of(case, method, **settings):
    """The curvature of a case by a method of the table."""
    curvature, partition, name = METHODS[method]
    return bdhf.block_curvature(
        case.model, case.loss_fn, case.batch,
        curvature=curvature, partition=partition, method=name, **settings,
    )  # fmt: skip


def vector(matrix):
    """A fixed vector for a matrix."""
    return torch.randn(matrix.shape[0], generator=torch.Generator().manual_seed(1))


class Seen(TorchDispatchMode):
    """The dtypes of the floating-point tensors that operators read or make."""

    def __init__(self, names=None):
        super().__init__()
        self.names, self.dtypes, self.operators = names, set(), set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if self.names is None or name in self.names:
            self.operators.add(name)
            self.dtypes |= {
                leaf.dtype
                for leaf in tree_leaves((args, kwargs, result))
                if isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
            }
        return result


@methods
@pytest.mark.parametrize("build_case", [convolutional, regression])
def test_a_product_in_bfloat16_is_that_of_float32_within_two_percent(method, build_case):
    """It is near, and it is another: the precision was really lower."""
    case = build_case()
    exact, low = curvature_of(case, method), curvature_of(case, method, product_dtype=LOW)
    expected, lowered = exact @ vector(exact), low @ vector(exact)

    assert lowered.dtype == torch.float32
    assert 1e-5 < float((lowered - expected).norm() / expected.norm()) < 0.02


@methods
def test_loss_and_gradient_stay_in_the_precision_of_the_model(method):
    """They are the same bits, with products in bfloat16 or without."""
    case = convolutional()
    exact, low = (
        curvature_of(case, method)._product,
        curvature_of(case, method, product_dtype=LOW)._product,
    )

    assert torch.equal(low.loss, exact.loss)
    assert torch.equal(low.gradient, exact.gradient)


@methods
def test_every_matrix_product_within_a_product_is_in_bfloat16(method):
    """No operator that is worth it reads or makes a float32 tensor; v and G v are float32."""
    G = curvature_of(convolutional(), method, product_dtype=LOW)
    with Seen(PRODUCTS) as seen:
        product = G @ vector(G)

    assert seen.dtypes == {LOW}
    assert seen.operators & {"mm", "addmm", "bmm", "baddbmm"}
    assert product.dtype == torch.float32


@methods
@pytest.mark.parametrize("settings", [{}, {"product_dtype": LOW}], ids=["float32", "bfloat16"])
def test_an_autocast_around_changes_nothing(method, settings):
    """Set up and multiplied under the caller's autocast, a product has the same bits."""
    case = convolutional()
    G = curvature_of(case, method, **settings)
    expected = G @ vector(G)
    with torch.autocast("cpu", dtype=LOW):
        within = curvature_of(case, method, **settings)
        both = within @ vector(G)
        multiplied = G @ vector(G)

    assert torch.equal(both, expected)
    assert torch.equal(multiplied, expected)
    assert torch.equal(within @ vector(G), expected)


def updated(case, **settings):
    """θ after one update of a case, minus θ before it."""
    before = [p.detach().clone() for p in case.model.parameters()]
    optimizer = bdhf.BlockHessianFree(
        case.model, case.loss_fn, solver=bdhf.CG(max_iters=30), damping=bdhf.Constant(0.1), lr=1.0,
        **settings,
    )  # fmt: skip
    optimizer.step(case.batch)
    pairs = zip(case.model.parameters(), before, strict=True)
    return torch.cat([(after.detach() - start).flatten() for after, start in pairs])


@pytest.mark.parametrize("method", ["propagate", "layer_io"])
def test_a_step_by_bfloat16_products_is_near_that_of_float32(method):
    """Thirty iterations at λ = 0.1: the steps differ by less than 5 % of their length."""
    exact = updated(regression(), method=method)
    low = updated(regression(), method=method, product_dtype=LOW)

    assert 0 < float((low - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize("method", ["propagate", "layer_io"])
def test_an_optimizer_trains_by_bfloat16_products(method):
    """Twenty updates bring the loss of a small regression below a fifth."""
    case = regression()
    optimizer = bdhf.BlockHessianFree(
        case.model, case.loss_fn, damping=bdhf.LevenbergMarquardt(0.1), lr=1.0,
        method=method, product_dtype=LOW,
    )  # fmt: skip
    losses = [optimizer.step(case.batch).loss for _ in range(20)]

    assert losses[-1] < 0.2 * losses[0]


@methods
def test_an_update_in_float64_is_float64_throughout(method):
    """No operator reads or makes a floating-point tensor of another dtype.

    Of an update behind the first, which alone examines the products.
    """
    case = build("mlp")
    curvature, partition, name = METHODS[method]
    optimizer = bdhf.BlockHessianFree(
        case.model, case.loss_fn, curvature=curvature, partition=partition, method=name,
        damping=bdhf.LevenbergMarquardt(1.0),
    )  # fmt: skip
    optimizer.step(case.batch)
    with Seen() as seen:
        optimizer.step(case.batch)

    assert seen.dtypes == {torch.float64}


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.int8])
def test_other_precisions_are_refused(dtype):
    """The errors of the function and of the optimizer name the allowed values."""
    case = regression()
    message = rf"product_dtype must be torch.bfloat16, or None .*; got {dtype}"

    with pytest.raises(ValueError, match=message):
        bdhf.block_curvature(case.model, case.loss_fn, case.batch, product_dtype=dtype)
    with pytest.raises(ValueError, match=message):
        bdhf.BlockHessianFree(case.model, case.loss_fn, product_dtype=dtype)


@methods
def test_a_model_in_float64_may_have_products_in_bfloat16(method):
    """Vectors in and out, loss and gradient are float64."""
    case = build("classifier")
    exact, low = curvature_of(case, method), curvature_of(case, method, product_dtype=LOW)
    v = vector(exact).double()
    expected, lowered = exact @ v, low @ v

    assert lowered.dtype == low._product.gradient.dtype == torch.float64
    assert_close(lowered, expected, rtol=0, atol=0.03 * float(expected.norm()))


@pytest.mark.parametrize(
    ("dtype", "method"), [(torch.float64, "layer_io"), (torch.float32, "hessian")], ids=str
)
def test_rounding_of_products_in_bfloat16_is_no_fault(dtype, method):
    """The check expects of products what their precision can give, whatever that of the model."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    ).to(dtype)
    x = torch.randn(16, 6).to(dtype)
    case = Case(model, F.cross_entropy, (x, torch.randint(3, (16,))))

    assert curvature_of(case, method).check().problem == ""
    assert curvature_of(case, method, product_dtype=LOW).check().problem == ""
