"""`layer_io` against `propagate`: the same matrix, loss and gradient, or a refusal."""

import gc
import re
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import bdhf
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings, Workspace, linearise
from bdhf.optim.products.layer_io.coverage import COUPLED, UNKNOWN_USE
from bdhf.optim.products.layer_io.layer_io import LayerIO
from bdhf.optim.products.layer_io.output_factor import OutputFactor, schedule
from bdhf.optim.products.layer_io.sites import Uncovered
from bdhf.optim.products.layer_io.survey import needs_of, recorded, survey
from bdhf.optim.products.propagate.propagate import Propagate
from bdhf.optim.products.propagate.sample_independence import graph_apart
from bdhf.optim.products.request import Request
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.curvatures import CURVATURES, DEFINED, INDEFINITE, NAMED_INSTEAD, SEED, UNDEFINED
from tests.optim.partitions import PARTITIONS
from tests.oracles import cut as cut_matrix
from tests.oracles import dense_ggn

#: The cases that are refused, and why; every other one is taken.
REFUSED = {
    "lstm": f"(recurrent: LSTM) {UNKNOWN_USE}",
    "gru": f"(recurrent: GRU) {UNKNOWN_USE}",
    "attention": UNKNOWN_USE,
    "own_loss": "binary_cross_entropy_with_logits",
}

#: (case, curvature) wherever the matrix has no negative eigenvalue.
POSITIVE = [(case, curvature) for case, curvature in DEFINED if curvature not in INDEFINITE]
GGN = CURVATURES["ggn"][0]


def request(case, partition="full", curvature=GGN, **settings):
    """The request of a product method for a case; `partition` is a name or a partition."""
    layout = layout_of(case.model)
    made = PARTITIONS[partition](layout) if isinstance(partition, str) else partition
    return Request(
        Objective.of(case.model, case.loss_fn),
        case.batch,
        curvature,
        cut(layout, made),
        torch.Generator().manual_seed(SEED),
        Flops(),
        Settings(**settings),
        Workspace(),
    )


def assert_same(layer_io, propagate, blocks, active=None, **tolerances):
    """Both give one product, with a random vector."""
    active = range(len(blocks.rows)) if active is None else active
    v = torch.randn(blocks.layout.size, dtype=propagate.gradient.dtype)
    cached, expected = (part.product(blocks, v, active) for part in (layer_io, propagate))
    tolerances = tolerances or {"rtol": 1e-9, "atol": 1e-9 * float(expected.norm())}
    assert_close(cached, expected, **tolerances)


def both(case, *arguments, **settings):
    """`layer_io` and `propagate` of the same request, and its blocks."""
    asked = request(case, *arguments, **settings)
    plain = request(case, *arguments)
    return (
        LayerIO(asked, asked.curvature), Propagate(plain, plain.curvature), asked.blocks
    )  # fmt: skip


def squared(model, *shape, samples=5):
    """A case of squared error on random inputs of a shape, in float64."""
    model, x = model.double(), torch.randn(samples, *shape).double()
    return Case(model, F.mse_loss, (x, torch.randn_like(model(x))))


@pytest.mark.parametrize(
    ("case", "curvature"), [pair for pair in POSITIVE if pair[0] not in REFUSED]
)
@pytest.mark.parametrize("partition", PARTITIONS)
def test_product_loss_and_gradient_are_those_of_propagate(case, curvature, partition):
    """Every case that is taken has the same matrix, for all blocks and for some of them."""
    case = build(case)
    layer_io, propagate, blocks = both(case, partition, CURVATURES[curvature][0])

    for matrix in [blocks] if blocks.blend is None else [blocks, blocks.blend.inner]:
        assert_same(layer_io, propagate, matrix)
        assert_same(layer_io, propagate, matrix, range(0, len(matrix.rows), 2))
    assert_close(layer_io.loss, propagate.loss)
    assert_close(layer_io.gradient, propagate.gradient)


@pytest.mark.parametrize(("case", "curvature"), [pair for pair in POSITIVE if pair[0] in REFUSED])
def test_what_cannot_be_taken_is_refused_with_its_reason(case, curvature):
    """Fused recurrent layers, the inside of nn.MultiheadAttention, and losses without a root."""
    asked = request(build(case), "per_layer", CURVATURES[curvature][0])

    with pytest.raises(Uncovered) as refusal:
        LayerIO(asked, asked.curvature)

    assert REFUSED[case] in refusal.value.reason
    fresh = torch.Generator().manual_seed(SEED)
    assert torch.equal(asked.generator.get_state(), fresh.get_state())  # for another method


@pytest.mark.parametrize(("case", "curvature"), UNDEFINED)
@pytest.mark.parametrize("partition", PARTITIONS)
@pytest.mark.parametrize("method", [LayerIO, Propagate])
def test_a_curvature_that_a_loss_does_not_have_is_no_matter_of_the_method(
    case, curvature, partition, method
):
    """Both refuse it, and neither leaves it to the other."""
    asked = request(build(case), partition, CURVATURES[curvature][0])

    with pytest.raises(ValueError, match=NAMED_INSTEAD):
        method(asked, asked.curvature)


@pytest.mark.parametrize("case", ["classifier", "conv", "embedding"])
def test_closed_form_is_the_general_reduction(case):
    """Where a block has one entry of y a sample, h = Σ_c S² gives what t and S give."""
    asked = request(build(case), "full")
    layer_io = LayerIO(asked, asked.curvature)
    blocks = cut(asked.blocks.layout, bdhf.PerNeuron())
    closed = LayerIO(replace(asked, blocks=blocks), asked.curvature)
    v = torch.randn(blocks.layout.size, dtype=torch.float64)
    every = range(len(blocks.rows))

    assert closed._factor.h
    assert not layer_io._factor.h
    general = torch.empty_like(v)
    for block in blocks.rows:
        entries = slice(block.start, block.stop)
        layer_io._single(block, v[entries], general[entries])
    assert_close(closed.product(blocks, v, every), general)


@pytest.mark.parametrize("asked", PARTITIONS)
@pytest.mark.parametrize("other", ["full", "per_layer", "per_neuron", "random"])
def test_products_under_other_blocks_are_with_the_same_matrix(asked, other):
    """What was cached for the blocks of a request serves any others, by more sweeps if need be."""
    layer_io, propagate, _ = both(build("conv"), asked)

    assert_same(layer_io, propagate, request(build("conv"), other).blocks)


class SequenceFirst(nn.Module):
    """Reads (N, T, 3) and works on (T, N, 3)."""

    def __init__(self):
        super().__init__()
        self.inner, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.inner(x.transpose(0, 1))).mean(0))


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (5, naming("'inner.weight'", "(3, 5, 4)", 5)),
        (3, re.escape(COUPLED)),
    ],
)
def test_samples_in_another_dimension_are_refused(samples, reason):
    """A wrong order of the samples is never a wrong product, even where the sizes agree."""
    asked = request(squared(SequenceFirst(), 3, 3, samples=samples))

    with pytest.raises(Uncovered, match=reason):
        LayerIO(asked, GGN)


def test_samples_that_come_first_in_a_longer_dimension_are_taken():
    """Tokens flattened into the samples, sample after sample, are positions of a sample."""
    model = nn.Sequential(
        nn.Flatten(0, 1), nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2), nn.Unflatten(0, (-1, 6))
    )
    for partition in PARTITIONS:
        assert_same(*both(squared(model, 6, 3), partition))


def test_unbatched_outputs_are_refused():
    """The class scores of one sample have no dimension of samples."""
    case = Case(nn.Linear(3, 4), F.cross_entropy, (torch.randn(3), torch.tensor(1)))
    asked = request(case)

    with pytest.raises(Uncovered, match="dimension"):
        LayerIO(asked, GGN)


class Odd(nn.Module):
    """Parameters in unusual places: views, products, shifts, a scalar, a padded embedding."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(5, 4, padding_idx=0)
        self.positions = nn.Parameter(torch.randn(1, 3, 4))
        self.mixed = nn.Parameter(torch.randn(4, 8))
        self.gate = nn.Parameter(torch.randn(()))
        self.scale = nn.Parameter(torch.randn(3, 1))
        self.norm = nn.RMSNorm(4)

    def forward(self, x):
        left, right = self.mixed.chunk(2, dim=1)
        h = self.norm(self.table(x) + self.positions)
        h = torch.tanh(h @ left * self.gate) * self.scale
        return torch.relu_(F.linear(h, right[:2]) + self.positions[0, :, :2]).flatten(1)


@pytest.mark.parametrize("partition", PARTITIONS)
def test_parameters_and_views_of_them_are_found_wherever_they_are_used(partition):
    """Chunks, slices and transposes of a parameter, broadcast scales and shifts, padding."""
    x = torch.tensor([[0, 1, 2], [3, 4, 0], [1, 1, 2], [2, 0, 3]])
    case = Case(Odd().double(), F.mse_loss, (x, torch.randn(4, 6).double()))

    assert_same(*both(case, partition))


def test_a_partition_may_separate_a_weight_from_its_bias():
    """They are parts of one site, in different blocks."""
    assert_same(*both(build("conv"), bdhf.Groups([["*.weight"], ["*.bias"]])))


def test_calls_that_are_alike_are_one_site():
    """The steps of a recurrent layer are positions: ih, hh and three peepholes a layer."""
    asked = request(build("peephole"))
    assert len(survey(asked, GGN).sites) == 2 * 5 + 1


class Shown(nn.Module):
    """A model with a gradient of 0 in the first layer while the last is zero."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x):
        return self.head(self.hidden(x, x, x, need_weights=False)[0].mean(1))


def test_a_use_that_shows_later_is_checked_later():
    """The check holds only for parameters that had a gradient then."""
    case = squared(Shown(), 3, 4)
    asked = request(case)
    LayerIO(asked, GGN)
    nn.init.ones_(case.model.head.weight)

    with pytest.raises(Uncovered, match="hidden"):
        LayerIO(asked, GGN)


class Switched(nn.Module):
    """A model with a setting that changes the use of its middle layer."""

    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.how = ""

    def forward(self, x):
        h = self.first(x).tanh()
        if self.how == "centred":
            h = self.middle(h - h.mean(0))
        elif self.how == "functional":
            h = F.linear(h, 2 * self.middle.weight)
        else:
            h = self.middle(h).cumsum(0 if self.how == "along samples" else 1)
        return self.last(h.tanh())


@pytest.mark.parametrize("how", ["centred", "functional", "along samples"])
def test_a_model_that_changes_its_ways_is_checked_again(how):
    """A flag that lets samples mix, or uses a parameter otherwise, leaves its shapes alone."""
    case = squared(Switched(), 4)
    asked = request(case)
    LayerIO(asked, GGN)
    case.model.how = how

    with pytest.raises(Uncovered):
        LayerIO(asked, GGN)


def test_check_runs_once_for_a_model_and_shapes(monkeypatch):
    """The second linearisation with one workspace compares nothing."""
    asked = request(build("mlp"))
    LayerIO(asked, GGN)
    monkeypatch.setattr("bdhf.optim.products.layer_io.site_check.exact_product", None)

    LayerIO(asked, GGN)


class Peak(TorchDispatchMode):
    """The most bytes that were alive at once, of storages that were made under it."""

    def __init__(self):
        super().__init__()
        self.live, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        old = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if _is_tensor(t)}
        for storage in [t.untyped_storage() for t in tree_leaves(result) if _is_tensor(t)]:
            if storage._cdata not in old:
                self.live[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.live = {key: pair for key, pair in self.live.items() if not pair[0].expired()}
        self.most = max(self.most, sum(size for _, size in self.live.values()))
        return result


def _is_tensor(x):
    return isinstance(x, torch.Tensor)


def wide():
    """A case with six columns, each larger than the outputs that it starts from."""
    layers = [nn.Linear(20, 50), nn.Tanh(), nn.Linear(50, 40), nn.Tanh(), nn.Linear(40, 6)]
    return squared(nn.Sequential(*layers), 20, samples=30)


@pytest.mark.parametrize("partition", ["full", "per_neuron", "random"])
@pytest.mark.parametrize("columns", [4, 5, 7, 10, 100])
def test_cache_stays_below_max_bytes_and_the_matrix_stays_the_same(partition, columns):
    """What does not fit is swept again; set-up and cache never hold more than max_bytes."""
    case = wide()
    room = columns * survey(request(case, partition), GGN).column_bytes
    asked, plain = (request(case, partition, max_bytes=size) for size in (room, 2**30))
    z, sites = recorded(asked)
    needs = needs_of(asked, sites, z, 6)

    with Peak() as peak:
        OutputFactor(
            z, GGN.expand_loss(F.mse_loss, z, case.batch[1], asked.generator).hessian, sites,
            needs.open, needs.closed, needs.schedule, z.dtype,
        )  # fmt: skip

    assert peak.most < room
    assert survey(asked, GGN).kept_bytes < room
    assert (survey(asked, GGN).swept > 0) == (columns < 10 and partition != "per_neuron")
    assert_same(LayerIO(asked, GGN), LayerIO(plain, GGN), asked.blocks)


def test_cache_that_holds_no_column_is_refused():
    """The reason has the bytes of one column."""
    case = wide()
    column = survey(request(case), GGN).column_bytes + 8 * 30 * 6  # and of the outputs

    with pytest.raises(Uncovered, match=naming(f"{2 * column:,}", "max_bytes")):
        LayerIO(request(case, max_bytes=2 * column - 1), GGN)
    LayerIO(request(case, max_bytes=2 * column), GGN)


@pytest.mark.parametrize("fixed", [0, 50])
@pytest.mark.parametrize("kept", [0, 40, 100])
@pytest.mark.parametrize("columns", [1, 7, 784])
@pytest.mark.parametrize("max_bytes", [250, 500, 1234, 5000, 10**6])
def test_schedule_keeps_what_fits(fixed, kept, columns, max_bytes):
    """Kept columns, a sweep and the rest fit; all columns are kept where they do."""
    plan = schedule(columns, 100, kept, fixed, max_bytes)

    assert fixed + plan.kept * kept + 2 * 100 * plan.chunk <= max_bytes
    assert plan.spans[0][0] == 0
    assert plan.spans[-1][1] == columns
    assert plan.kept <= columns
    if fixed + columns * kept + 200 <= max_bytes:
        assert plan.kept == columns


def test_graph_is_let_go_when_every_column_is_kept():
    """What remains is the inputs and the output factor, and products still work."""
    layer_io, propagate, blocks = both(build("mlp"), "per_layer")
    assert layer_io._factor._graph is None
    assert not any(site.edges for site in layer_io._sites)
    assert_same(layer_io, propagate, blocks)


def test_linearisation_is_freed_without_the_garbage_collector():
    """There is no reference cycle, so that a large cache is freed with its update."""
    asked = request(build("conv"), "per_neuron")
    layer_io = LayerIO(asked, GGN)
    v = torch.randn(asked.blocks.layout.size, dtype=torch.float64)
    layer_io.product(asked.blocks, v, range(len(asked.blocks.rows)))
    gone = weakref.ref(layer_io._sites[0])
    gc.disable()
    try:
        del layer_io
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("case", ["classifier", "conv", "norms", "embedding", "peephole"])
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron", "random"])
def test_bfloat16_products_are_the_exact_ones_to_its_precision(case, partition):
    """Products of matrices in bfloat16, sums over a block in the precision of the model."""
    case = build(case, dtype=torch.float32)
    layer_io, propagate, blocks = both(case, partition, dtype=torch.bfloat16)
    v = torch.randn(blocks.layout.size, generator=torch.Generator().manual_seed(SEED))
    every = range(len(blocks.rows))
    exact = propagate.product(blocks, v, every)

    rounded = layer_io.product(blocks, v, every)

    assert rounded.dtype == torch.float32
    assert 0 < float((rounded - exact).norm()) < 2e-2 * float(exact.norm())
    assert_close(layer_io.gradient, propagate.gradient)


@pytest.mark.parametrize("curvature", ["ggn", "fisher"])
def test_factor_and_squared_gradients_are_those_of_propagate(curvature):
    """Nothing is drawn again for them."""
    layer_io, propagate, _ = both(build("classifier"), "per_layer", CURVATURES[curvature][0])

    assert layer_io.factor_rows == propagate.factor_rows
    assert_close(layer_io.factor(4), propagate.factor(4))
    assert_close(layer_io.squared_gradients(), propagate.squared_gradients())


def test_set_up_is_charged_as_a_gradient_and_the_factor_apart():
    """("linearise", shapes) costs a gradient; the sweeps of the columns are "output factor"."""
    layer_io, propagate, _ = both(build("classifier"), "per_layer")
    ours, theirs = layer_io.flops, propagate.flops
    key = ("linearise", layer_io.shapes)

    assert ours.cost(key) == theirs.cost(key)
    assert ours.cost(("output factor", layer_io.shapes)) == 2 * 3 * 9 * 3 * 5  # back to ReLU's y


def test_survey_counts_without_sweeping():
    """Columns, the cost of a push of every site, and bytes, for a network by hand."""
    surveyed = survey(request(build("mlp"), "per_neuron"), GGN)  # 4-5-4-3 on 7 samples

    assert surveyed.columns == 3
    assert surveyed.sites == (
        ((0, 1), 2 * 7 * 4 * 5), ((2, 3), 2 * 7 * 5 * 4), ((4, 5), 2 * 7 * 4 * 3)
    )  # fmt: skip
    assert surveyed.column_bytes == 8 * 7 * (5 + 4 + 3)
    assert surveyed.kept_bytes == surveyed.column_bytes  # h, whatever the columns
    assert not surveyed.mixed
    assert survey(request(build("mlp"), "random"), GGN).mixed
    assert survey(request(build("mlp"), "full"), GGN).kept_bytes == 3 * surveyed.column_bytes


def test_survey_draws_nothing():
    """A Fisher matrix is of the same draws with and without it."""
    asked = request(build("classifier"), "full", CURVATURES["fisher"][0])
    before = asked.generator.get_state()

    survey(asked, asked.curvature)

    assert torch.equal(asked.generator.get_state(), before)


class Square(nn.Module):
    """One parameter, in a function without a rule."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3))

    def forward(self, x):
        return x @ self.w.square()[:, None]


def test_model_without_a_known_function_is_refused():
    """There is no site at all."""
    with pytest.raises(Uncovered, match="layer_io"):
        LayerIO(request(squared(Square(), 3)), GGN)


class Graph(nn.Module):
    """A layer, the sum over neighbours, and another; nodes are the samples."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)

    def forward(self, inputs):
        x, adjacency = inputs
        return self.last(torch.tanh(adjacency @ self.first(x)))


@pytest.mark.parametrize("method", ["auto", "layer_io"])
def test_samples_that_are_coupled_on_a_later_batch_only_are_found_out(method):
    """The edges of a graph are data: a batch without edges is no test of later ones."""
    torch.manual_seed(0)
    model, workspace = Graph().double(), Workspace()
    x, y = torch.randn(8, 4).double(), torch.randint(0, 3, (8,))
    objective = Objective.of(model, F.cross_entropy)
    blocks = cut(objective.layout, bdhf.PerNeuron())
    v = torch.randn(objective.layout.size, dtype=torch.float64)
    ring = torch.eye(8).roll(1, 0).double() + torch.eye(8).double()
    for adjacency, expected in ((torch.eye(8).double(), "layer_io"), (ring, "propagate")):
        batch = (x, adjacency), y
        made = linearise(
            objective, [batch], curvature=bdhf.GGN(), blocks=blocks, flops=Flops(),
            settings=Settings(method), workspace=workspace,
        )  # fmt: skip

        assert made.method == expected
        exact = dense_ggn(Case(model, F.cross_entropy, batch))
        product = blocks.scatter(made(blocks.gather(v)))
        assert_close(product, cut_matrix(exact, blocks.positions()) @ v)


def residual():
    """A layer with its outputs added to its inputs."""
    layer = nn.Linear(4, 4)
    layer.forward = lambda x: x + torch.tanh(nn.Linear.forward(layer, x))
    return layer


#: A model of images (4, 1, 2, 2), and whether each sample is alone in it whatever the data are.
ALONE = {
    "perceptron": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh()), True),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.ReLU(), nn.Flatten()), True),
    "residual": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), residual()), True),
    "samples made channels": (
        lambda: nn.Sequential(nn.Conv2d(1, 4, 2), nn.Flatten(0), nn.Unflatten(0, (4, 4))), False
    ),
    "frozen matrix": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), Times(torch.rand(4, 4))), False
    ),
    "gate": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), Times(None)), False),
    "transposed": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 4), Transposed(), nn.Linear(4, 4)), False
    ),
}  # fmt: skip


class Times(nn.Module):
    """A constant matrix from the left, or a learned factor."""

    def __init__(self, matrix):
        super().__init__()
        self.matrix, self.gate = matrix, nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x * self.gate if self.matrix is None else self.matrix @ x


class Transposed(nn.Module):
    """As many samples as features, in each other's place."""

    def forward(self, x):
        return x.T


@pytest.mark.parametrize("name", ALONE)
def test_samples_of_plain_layers_are_alone_by_the_graph(name):
    """Then no second look is needed at every linearisation; where data may mix, it is."""
    build_model, alone = ALONE[name]
    model = build_model()

    assert graph_apart(model(torch.randn(4, 1, 2, 2)), len(list(model.parameters()))) == alone


class Again(nn.Module):
    """A layer with a second use of its weight, by an operator that layer_io does not record."""

    def __init__(self, way):
        super().__init__()
        self.layer, self.way = nn.Linear(4, 3), way

    def forward(self, x):
        return self.layer(x[:, :4]) + self.way(x[:, 4:], self.layer.weight)


WAYS = {
    "plain product": lambda x, weight: torch.ops.aten.mm(x, weight.t()),
    "gated": lambda x, weight: torch.ops.aten.mm(x, weight.abs().t()).relu(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_use_that_data_hide_at_first_is_seen_later(way):
    """Inputs of 0 leave no trace of it in the gradient of a weight that has another use."""
    case = squared(Again(WAYS[way]), 8)
    asked = request(case)
    hidden = case.batch[0].clone()
    hidden[:, 4:] = 0
    for _ in range(2):
        LayerIO(replace(asked, batch=(hidden, case.batch[1])), GGN)

    with pytest.raises(Uncovered, match=UNKNOWN_USE):
        LayerIO(asked, GGN)


def test_plans_of_blocks_that_a_probe_cuts_are_not_gathered():
    """Of blocks that every call cuts again only the last are kept."""
    asked = request(build("mlp"), "per_layer")
    made = LayerIO(asked, GGN)
    v = torch.ones(asked.blocks.layout.size, dtype=torch.float64)
    sizes = set()
    for _ in range(3):
        made.product(cut(asked.blocks.layout, bdhf.Full()), v, [0])
        sizes.add(len(asked.workspace.kept))

    assert len(sizes) == 1
