"""Models that the caller compiled: right products, and compiled as before behind an update."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from tests.cases import Case
from tests.oracles import dense_ggn, dense_hessian

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, on loading


class Backend:
    """Compiles nothing, and counts the calls of what dynamo made of a module."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph, _):
        def run(*arguments):
            self.calls += 1
            return graph(*arguments)

        return run


class Net(nn.Module):
    """Two linear layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, x):
        return self.second(self.first(x).tanh())


def wrapped(net, backend):
    """As `torch.compile(model)` gives it."""
    return torch.compile(net, backend=backend)


def in_place(net, backend):
    """As `model.compile()` leaves it."""
    net.compile(backend=backend)
    return net


def submodule(net, backend):
    """A compiled module within one that is not."""
    net.first = torch.compile(net.first, backend=backend)
    return net


WAYS = [wrapped, in_place, submodule]


@pytest.fixture(autouse=True)
def _fresh():
    """Neither what other tests compiled counts, nor what they made run uncompiled."""
    torch.manual_seed(0)
    torch._dynamo.reset()


@pytest.fixture
def batch():
    """A few samples with labels."""
    return torch.randn(8, 4, dtype=torch.float64), torch.randint(0, 3, (8,))


def compiled_calls(model, backend, inputs):
    """Graphs that one forward pass of the caller runs."""
    before = backend.calls
    model(inputs)
    return backend.calls - before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("curvature", "method"),
    [(bdhf.GGN(), "propagate"), (bdhf.GGN(), "layer_io"), (bdhf.Hessian(), "auto")],
    ids=["propagate", "layer_io", "hessian"],
)
def test_products_of_a_compiled_model_are_those_of_the_model(way, curvature, method, batch):
    """The matrix is the dense one, the check can copy the model, and no compiled graph has run."""
    backend, net = Backend(), Net().double()
    case = Case(net, F.cross_entropy, batch)
    exact = (dense_hessian if isinstance(curvature, bdhf.Hessian) else dense_ggn)(case)
    model = way(net, backend)

    G = bdhf.block_curvature(model, F.cross_entropy, batch, curvature=curvature, method=method)

    assert_close(G.to_dense(), exact, rtol=0, atol=1e-12)
    assert G.check().finite_difference < 1e-6
    assert backend.calls == 0


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"method": "propagate", "acceptance": bdhf.Backtracking()},
        {"curvature": bdhf.Hessian()},
        {"solver": bdhf.CG(preconditioner=bdhf.Martens())},
    ],
    ids=["auto", "line search", "hessian", "preconditioner"],
)
def test_a_model_stays_compiled_through_updates(way, settings, batch):
    """As many compiled graphs run behind two updates as before, of it and of its class."""
    backend, other = Backend(), Backend()
    model, sibling = way(Net().double(), backend), way(Net().double(), other)
    before = compiled_calls(model, backend, batch[0])

    optimizer = bdhf.BlockHessianFree(model, F.cross_entropy, **settings)
    infos = [optimizer.step(batch) for _ in range(2)]
    optimizer.off_block_energy(batch, probes=1)

    assert all(math.isfinite(info.loss) for info in infos)
    assert before == 1
    assert compiled_calls(model, backend, batch[0]) == before
    assert compiled_calls(sibling, other, batch[0]) == before


@pytest.mark.parametrize("way", WAYS)
def test_updates_of_a_compiled_model_are_those_of_the_model(way, batch):
    """The same parameters to the bit."""
    plain, net = Net().double(), Net().double()
    net.load_state_dict(plain.state_dict())
    model = way(net, Backend())
    for trained in (plain, model):
        optimizer = bdhf.BlockHessianFree(trained, F.cross_entropy)
        optimizer.step(batch)
        optimizer.step(batch)

    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert_close(ours, theirs, rtol=0, atol=0)


def test_a_compiled_loss_stays_compiled(batch):
    """A loss function is run as it was written inside an update, too."""
    backend = Backend()
    loss_fn = torch.compile(lambda z, y: F.cross_entropy(z, y) * 2, backend=backend)
    net = Net().double()
    outputs = net(batch[0]).detach()
    before = compiled_calls(lambda z: loss_fn(z, batch[1]), backend, outputs)

    bdhf.BlockHessianFree(net, loss_fn, check=False).step(batch)

    assert before == 1
    assert compiled_calls(lambda z: loss_fn(z, batch[1]), backend, outputs) == before


def test_the_stance_of_the_caller_is_back_behind_an_error(batch):
    """An update that raises leaves torch's compiler as it was."""
    backend = Backend()
    model = wrapped(Net().double(), backend)
    before = compiled_calls(model, backend, batch[0])

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        bdhf.BlockHessianFree(model, F.cross_entropy).step((batch[0][:, :2], batch[1]))

    assert compiled_calls(model, backend, batch[0]) == before == 1
