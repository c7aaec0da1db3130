"""Where torch fails inside a method, the next one is used, and `explain` has the reason."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CurvatureError
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut as cut_blocks
from bdhf.optim.products import Settings, Workspace, choose, linearise, per_sample
from bdhf.optim.products.layer_io import layer_io, output_factor, site_check
from bdhf.optim.products.propagate import bottleneck, jvp, propagate
from bdhf.optim.products.propagate.bottleneck import SampleMatrices
from bdhf.optim.products.tape import tape
from bdhf.optim.products.tape.replay import Replay
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case
from tests.messages import naming
from tests.oracles import cut, dense_ggn, dense_gradient
from tests.zoo.surrogates import Cube, OnceOnly

SAMPLES = 10

ERRORS = [
    RuntimeError("planted"), NotImplementedError("planted"), TypeError("planted"),
    ValueError("planted"), AssertionError("planted"), IndexError("planted"), KeyError("planted"),
    AttributeError("planted"), ZeroDivisionError("planted"), AssertionError(),
]  # fmt: skip

MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory: planted"),
    MemoryError("planted"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: planted"),
]

errors = pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__ + str(e)[:1])


def raising(error):
    """A function that raises an error, whatever it is given."""

    def fail(*arguments, **keywords):
        raise error

    return fail


def classifier():
    """A case for which "auto" takes layer_io with a block a neuron."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 24), nn.Tanh(), nn.Linear(24, 3)).double()
    batch = torch.randn(24, 30).double(), torch.randint(0, 3, (24,))
    return Case(model, F.cross_entropy, batch)


def autoencoder():
    """A case with a bottleneck."""
    torch.manual_seed(0)
    layers = [nn.Linear(12, 20), nn.Tanh(), nn.Linear(20, 2), nn.Linear(2, 20), nn.Tanh()]
    x = torch.randn(6, 12).double()
    return Case(nn.Sequential(*layers, nn.Linear(20, 12)).double(), F.mse_loss, (x, x))


def linearised(case, partition, workspace=None):
    """The GGN of a case, with what a workspace remembers; "auto" where that takes layer_io."""
    method = "auto" if isinstance(partition, bdhf.PerNeuron) else "propagate"
    return linearise(
        Objective.of(case.model, case.loss_fn), [case.batch], curvature=bdhf.GGN(),
        blocks=cut_blocks(layout_of(case.model), partition), flops=Flops(),
        settings=Settings(method), workspace=workspace or Workspace(),
    )  # fmt: skip


def assert_right(case, partition, method, reason, workspace=None):
    """Products are those of the dense matrix, by a method, for a reason in `why`."""
    G = linearised(case, partition, workspace)
    v = torch.randn(layout_of(case.model).size, dtype=torch.float64)
    expected = cut(dense_ggn(case), G.blocks.positions()) @ v

    assert_close(
        G.blocks.scatter(G(G.blocks.gather(v))), expected, rtol=0,
        atol=1e-10 * float(expected.norm()),
    )  # fmt: skip
    assert_close(G.blocks.scatter(G.gradient), dense_gradient(case))
    assert G.method == method
    assert reason in G.why


def told(error):
    """How a reason names an error."""
    return f"{type(error).__name__}: {error!s}" if str(error) else type(error).__name__


#: Seam: module and name of what fails, the case, its partition.
SET_UP = {
    "survey": (choose, "survey", classifier, bdhf.PerNeuron()),
    "forecast": (choose, "forecast", classifier, bdhf.PerNeuron()),
    "sites": (layer_io, "recorded", classifier, bdhf.PerNeuron()),
    "output_factor": (output_factor, "sweep_factor", classifier, bdhf.PerNeuron()),
    "check": (site_check, "compare_with_autograd", classifier, bdhf.PerNeuron()),
    "recording": (tape.Tape, "record", autoencoder, bdhf.Full()),
    "operator": (tape.Tape, "_add", autoencoder, bdhf.Full()),
    "bottleneck": (propagate, "at_bottleneck", autoencoder, bdhf.PerLayer()),
    "matrices": (bottleneck, "_matrices", autoencoder, bdhf.PerLayer()),
    "forward_mode": (jvp.TapeJVP, "__call__", autoencoder, bdhf.Full()),
}


@errors
@pytest.mark.parametrize("seam", SET_UP)
def test_what_fails_in_a_set_up_gives_way_and_says_so(seam, error, monkeypatch):
    """The error of torch is the reason, and the products are right by the next method."""
    owner, name, case, partition = SET_UP[seam]
    monkeypatch.setattr(owner, name, raising(error))
    alone = str(error) or type(error).__name__
    reason = alone if seam == "forward_mode" else told(error)

    assert_right(case(), partition, "propagate", reason)


@errors
@pytest.mark.parametrize("seam", ["sites", "output_factor", "check"])
def test_layer_io_by_name_gives_way_to_nothing_and_says_what_to_do(seam, error, monkeypatch):
    """A named method is not replaced; the error of torch is the cause."""
    owner, name, case, partition = SET_UP[seam]
    monkeypatch.setattr(owner, name, raising(error))
    case = case()

    with pytest.raises(CurvatureError, match=naming("layer_io", "method='auto'")) as caught:
        bdhf.block_curvature(
            case.model, case.loss_fn, case.batch, partition=partition, method="layer_io"
        )
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("seam", SET_UP)
@pytest.mark.parametrize("error", MEMORY, ids=lambda e: type(e).__name__)
def test_lack_of_memory_is_raised(seam, error, monkeypatch):
    """Lack of memory is raised, since the next method takes as much."""
    owner, name, case, partition = SET_UP[seam]
    monkeypatch.setattr(owner, name, raising(error))

    with pytest.raises(type(error), match="planted"):
        linearised(case(), partition)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), CurvatureError("own"), bdhf.optim.ModelError("own")], ids=repr
)
@pytest.mark.parametrize("seam", SET_UP)
def test_interruptions_and_refusals_pass_every_seam(seam, error, monkeypatch):
    """What no method can help with is raised as it is."""
    owner, name, case, partition = SET_UP[seam]
    monkeypatch.setattr(owner, name, raising(error))

    with pytest.raises(type(error)) as caught:
        linearised(case(), partition)
    assert caught.value is error


#: What fails in a product only: owner, name, case, partition, words.
IN_PRODUCTS = {
    "layer_io": (layer_io.LayerIO, "_product", classifier, bdhf.PerNeuron(), "layer_io"),
    "bottleneck": (
        SampleMatrices,
        "__call__",
        autoencoder,
        bdhf.PerLayer(),
        "bottleneck",
    ),
    "tape": (Replay, "push", autoencoder, bdhf.Full(), "tape"),
}


@errors
@pytest.mark.parametrize("seam", IN_PRODUCTS)
def test_what_fails_in_a_product_gives_way_once(seam, error, monkeypatch):
    """The product in which it fails is right, has the reason, and decides later ones."""
    owner, name, case, partition, words = IN_PRODUCTS[seam]
    case, workspace = case(), Workspace()
    G = linearised(case, partition, workspace)
    fails = []

    def fail(*arguments):
        fails.append(1)
        raise error

    monkeypatch.setattr(owner, name, fail)
    v = torch.randn(layout_of(case.model).size, dtype=torch.float64)
    expected = cut(dense_ggn(case), G.blocks.positions()) @ v
    for _ in range(2):
        product = G.blocks.scatter(G(G.blocks.gather(v)))
        assert_close(product, expected, rtol=0, atol=1e-10 * float(expected.norm()))

    assert len(fails) == 1
    assert words in G.why
    assert told(error) in G.why
    assert G.method == "propagate"
    assert_right(case, partition, "propagate", "", workspace)
    assert len(fails) == 1


def test_forward_mode_that_fails_for_one_block_only_gives_way(monkeypatch):
    """All parameters together were compared; a block of biases has another route."""
    case, push = autoencoder(), Replay.push

    def failing(replay, tangents):
        if len(tangents) == 1:
            raise RuntimeError("planted for one tensor")
        return push(replay, tangents)

    monkeypatch.setattr(Replay, "push", failing)
    partition = bdhf.Groups([["0.weight"], ["0.bias", "2.*", "3.*", "5.*"]])

    G = linearised(case, partition)
    v = torch.randn(layout_of(case.model).size, dtype=torch.float64)
    expected = cut(dense_ggn(case), G.blocks.positions()) @ v
    assert_close(G.blocks.scatter(G(G.blocks.gather(v))), expected)
    assert "planted for one tensor" in G.why


@errors
def test_the_way_back_along_a_tape_gives_way_to_the_graph(error, monkeypatch):
    """In the comparison, and in a product."""
    torch.manual_seed(0)
    cell = bdhf.nn.PeepholeLSTM(2, 3)
    model = nn.Sequential(cell).double()
    model.forward = lambda x: cell(x)[0][:, -1]
    batch = torch.randn(4, 6, 2).double(), torch.randn(4, 3).double()
    case = Case(model, F.mse_loss, batch)
    G, pull = linearised(case, bdhf.Full()), Replay.pull
    monkeypatch.setattr(Replay, "pull", raising(error))
    v = torch.randn(layout_of(model).size, dtype=torch.float64)
    expected = dense_ggn(case) @ v

    assert_close(linearised(case, bdhf.Full())(v), expected)
    assert_close(G(v), expected)
    assert told(error) in G.why
    assert pull is not Replay.pull


@errors
def test_a_factor_is_made_row_by_row_where_rows_cannot_be_taken_at_once(error, monkeypatch):
    """AᵀA is still the matrix."""
    case = autoencoder()
    monkeypatch.setattr(propagate.Propagate, "_rows_at_once", raising(error))
    factor = linearised(case, bdhf.Full()).factor(5)

    assert_close(factor.T @ factor, dense_ggn(case), rtol=0, atol=1e-10)


@errors
def test_squared_gradients_take_a_plain_pass_where_torch_func_fails(error, monkeypatch):
    """Sample by sample, by autograd."""
    case = autoencoder()
    expected = linearised(case, bdhf.Full()).squared_gradients()
    monkeypatch.setattr(per_sample, "vjp", raising(error))

    assert_close(linearised(case, bdhf.Full()).squared_gradients(), expected)


class Refusing(nn.Module):
    """A user's model that raises an error."""

    def __init__(self, error):
        super().__init__()
        self.layer, self.error = nn.Linear(6, 3), error

    def forward(self, x):
        raise self.error


@errors
@pytest.mark.parametrize("method", ["auto", "propagate", "layer_io"])
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Hessian()], ids=["ggn", "hessian"])
def test_an_error_of_the_model_itself_is_raised_unchanged(error, method, curvature):
    """It is the user's, not torch's."""
    batch = torch.randn(4, 6), torch.randn(4, 3)

    with pytest.raises(type(error)) as caught:
        bdhf.block_curvature(Refusing(error), F.mse_loss, batch, method=method, curvature=curvature)
    assert caught.value is error


def test_an_error_of_the_loss_itself_is_raised_unchanged():
    """Labels out of range are the user's error."""
    batch = torch.randn(4, 6), torch.tensor([0, 1, 2, 7])

    with pytest.raises(IndexError, match="7 is out of bounds"):
        bdhf.block_curvature(nn.Linear(6, 3), F.cross_entropy, batch)


def routed(h):
    """Experts by the positions of the rows that are theirs."""
    out, expert = torch.zeros_like(h), h.argmax(1)
    for e in range(2):
        (rows,) = (expert == e).nonzero(as_tuple=True)
        out = out.index_add(0, rows, torch.tanh((e + 1) * h[rows]))
    return out


def positive(h):
    """Adds to the rows with a positive first entry."""
    n = (h[:, 0] > 0).nonzero()[:, 0]
    return h.index_add(0, n, torch.tanh(h[n]))


def counted(h):
    """Whole numbers out of values, taken apart, and used as positions."""
    order = h.argsort(0)
    first, *_ = order.unbind(1)
    return h[first] + h[order.select(1, 1)] * (order + 1)


def adjacency():
    """A graph of the samples."""
    return (torch.arange(SAMPLES)[:, None] % (torch.arange(SAMPLES) + 2) < 2).double()


class Middle(nn.Module):
    """A function between two linear layers of a narrow value."""

    def __init__(self, function):
        super().__init__()
        self.first, self.function, self.last = nn.Linear(6, 2), function, nn.Linear(2, 6)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


class Mapped(nn.Module):
    """A net that runs sample by sample under vmap."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(6, 2), nn.Tanh(), nn.Linear(2, 6))

    def forward(self, x):
        return torch.func.vmap(self.net)(x)


class Bag(nn.Module):
    """A bag of embeddings, perhaps with learned weights of its entries, and a linear layer."""

    def __init__(self, mode, weighted=False):
        super().__init__()
        self.bag, self.last = nn.EmbeddingBag(7, 4, mode=mode), nn.Linear(4, 6)
        self.weights = nn.Parameter(torch.rand(SAMPLES, 3)) if weighted else None

    def forward(self, x):
        return self.last(torch.tanh(self.bag(x, per_sample_weights=self.weights)))


class Distances(nn.Module):
    """Distances of codes from learned centres."""

    def __init__(self, p):
        super().__init__()
        self.first, self.centres, self.p = nn.Linear(6, 4), nn.Parameter(torch.randn(6, 4)), p

    def forward(self, x):
        return torch.cdist(torch.tanh(self.first(x)), self.centres, p=self.p)


MODELS = {
    "routed": lambda: Middle(routed),
    "positive": lambda: Middle(positive),
    "counted": lambda: Middle(counted),
    "sparse_coo": lambda: Middle(lambda h: torch.sparse.mm(adjacency().to_sparse(), h)),
    "sparse_csr": lambda: Middle(lambda h: torch.sparse.mm(adjacency().to_sparse_csr(), h)),
    "sparse_values": lambda: Middle(lambda h: h.to_sparse().to_dense() * 2),
    "vmap": Mapped,
    "hardsigmoid": lambda: Middle(F.hardsigmoid),
    "hardswish": lambda: Middle(F.hardswish),
    **{f"bag_{mode}": lambda mode=mode: Bag(mode) for mode in ("sum", "mean", "max")},
    "bag_weighted": lambda: Bag("sum", weighted=True),
    **{f"cdist_{p}": lambda p=p: Distances(p) for p in (1.0, 2.0, 3.0, float("inf"))},
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.parametrize("method", ["auto", "propagate"])
@pytest.mark.parametrize("model", MODELS)
def test_models_of_the_field_have_the_dense_matrix(model, method):
    """Expert routing, sparse graphs, vmap, and what torch can differentiate only once."""
    torch.manual_seed(0)
    net = MODELS[model]().double()
    x = torch.randn(SAMPLES, 6).double()
    x = torch.randint(0, 7, (SAMPLES, 3)) if model.startswith("bag") else x
    case = Case(net, F.mse_loss, (x, torch.randn(SAMPLES, 6).double()))
    G = bdhf.block_curvature(net, F.mse_loss, case.batch, partition=bdhf.PerLayer(), method=method)

    assert_close(G.to_dense(), cut(dense_ggn(case), G.blocks), rtol=0, atol=1e-10)


class Detaching(Cube):
    """x³, with a backward that has no graph."""

    @staticmethod
    def backward(ctx, grad):
        return 3 * ctx.saved_tensors[0] ** 2 * grad.detach()


class Cubed(nn.Module):
    """A function of autograd as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function.apply(x)


@pytest.mark.parametrize("method", ["auto", "propagate", "layer_io"])
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
@pytest.mark.parametrize("curvature", [bdhf.GGN(), bdhf.Fisher(), bdhf.Hessian()], ids=repr)
def test_a_function_that_may_be_differentiated_once_is_refused(curvature, beside, method):
    """Double backward is silently cut off there; `block_curvature` names the module."""
    net = nn.Sequential(nn.Linear(6, 3), Cubed(OnceOnly), nn.Linear(3, 3))
    if beside:
        net.forward = lambda x: nn.Sequential.forward(net, x) + net[0](x)
    batch = torch.randn(4, 6), torch.randn(4, 3)

    with pytest.raises(CurvatureError, match=r"module '1' \(Cubed\)"):
        bdhf.block_curvature(net, F.mse_loss, batch, curvature=curvature, method=method)


def test_a_backward_that_leaves_no_graph_is_refused():
    """The product of two reverse sweeps is not that of reverse mode."""
    net = nn.Sequential(nn.Linear(6, 3), Cubed(Detaching), nn.Linear(3, 3))
    net.forward = lambda x: nn.Sequential.forward(net, x) + net[0](x)

    with pytest.raises(CurvatureError, match="second derivative"):
        bdhf.block_curvature(net, F.mse_loss, (torch.randn(4, 6), torch.randn(4, 3)))


class Later(nn.Module):
    """A residual layer with a function of autograd, times a gate or for some inputs only."""

    def __init__(self, function, gate):
        super().__init__()
        self.first, self.last = nn.Linear(6, 3), nn.Linear(3, 3)
        self.cube, self.gate = Cubed(function), gate

    def forward(self, x):
        h = self.first(x)
        if self.gate is not None:
            h = h + self.gate * self.cube(h)
        elif x[0, 0] > 0:
            h = self.cube(h)
        return self.last(h)


def examined(model, x, curvature, workspace):
    """A linearisation with a workspace that is kept."""
    objective = Objective.of(model, F.mse_loss)
    return linearise(
        objective, [(x, torch.zeros(len(x), 3))], curvature=curvature,
        blocks=cut_blocks(objective.layout, bdhf.Full()), flops=Flops(), workspace=workspace,
    )  # fmt: skip


def test_a_backward_without_a_graph_behind_a_gate_is_refused_once_it_opens():
    """At a gate of 0 two reverse sweeps agree with one; they are compared again afterwards."""
    model, workspace = Later(Detaching, nn.Parameter(torch.zeros(()))), Workspace()
    x = torch.randn(4, 6)
    for _ in range(2):
        examined(model, x, bdhf.GGN(), workspace)
    with torch.no_grad():
        model.gate.fill_(1.0)

    with pytest.raises(CurvatureError, match="second derivative"):
        examined(model, x, bdhf.GGN(), workspace)


def test_a_graph_that_is_cut_in_a_later_batch_is_refused():
    """A Hessian without what lies behind such a function is refused for every batch."""
    model, workspace, x = Later(OnceOnly, None), Workspace(), torch.randn(4, 6)
    x[0, 0] = -1.0
    examined(model, x, bdhf.Hessian(), workspace)
    x[0, 0] = 1.0

    with pytest.raises(CurvatureError, match="once_differentiable"):
        examined(model, x, bdhf.Hessian(), workspace)


def test_an_operator_without_a_second_derivative_is_named_for_the_hessian():
    """With the curvatures that need the first only."""
    net = nn.Sequential(nn.Linear(6, 3), nn.Hardsigmoid(), nn.Linear(3, 3))
    batch = torch.randn(4, 6), torch.randn(4, 3)
    H = bdhf.block_curvature(net, F.mse_loss, batch, curvature=bdhf.Hessian())

    with pytest.raises(
        CurvatureError, match=naming("'1' (Hardsigmoid)", "GGN", "Fisher")
    ) as caught:
        H @ torch.ones(H.shape[0])
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert H.check().problem == str(caught.value)  # once, without a frame by the check
    with pytest.raises(CurvatureError, match=f"^{re.escape(str(caught.value))}$"):
        bdhf.BlockHessianFree(net, F.mse_loss, curvature=bdhf.Hessian()).check(batch)


@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.PerLayer()], ids=["full", "per_layer"])
def test_what_neither_tape_nor_double_backward_can_do_is_named(partition):
    """An operator without forward mode and without a second derivative."""
    net = nn.Sequential(nn.Linear(6, 4), Margins(), nn.Linear(1, 3))
    batch = torch.randn(4, 6), torch.randn(4, 3)

    with pytest.raises(CurvatureError, match=r"module '1' \(Margins\)") as caught:
        bdhf.block_curvature(net, F.mse_loss, batch, partition=partition)
    assert "multi_margin_loss" in str(caught.value)


class Margins(nn.Module):
    """By how much the first score of each sample exceeds the others."""

    def forward(self, x):
        first = torch.zeros(len(x), dtype=torch.long)
        return F.multi_margin_loss(x, first, reduction="none")[:, None]


@pytest.mark.parametrize("how", ["product", "factor"])
def test_a_loss_without_a_second_derivative_is_named(how):
    """The error does not name the model."""
    loss = nn.MultiMarginLoss()
    G = linearised(
        Case(nn.Linear(6, 3), loss, (torch.randn(4, 6), torch.randint(0, 3, (4,)))), bdhf.Full()
    )
    work = {"product": lambda: G(torch.ones(21)), "factor": lambda: G.factor(4)}

    with pytest.raises(CurvatureError, match=naming("MultiMarginLoss", "EmpiricalFisher")):
        work[how]()
