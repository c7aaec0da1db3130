"""Structural damping against dense matrices: λ(I + μS), with S = (1/N) Σ_n J_nᵀ J_n."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.nn import PeepholeLSTM
from bdhf.optim import ModelError, ModelTypeError, estimate
from bdhf.optim.forward.hidden_states import HiddenStates, hidden_modules
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.update.structural import structure_of
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of
from tests.oracles import blocked, dense_ggn, dense_gradient, derivative, flat_parameters, size

RECURRENT = ["lstm", "gru", "peephole"]
recurrent = pytest.mark.parametrize("name", RECURRENT)


class Elman(nn.Module):
    """A recurrent network from a cell, which runs once a step; its hidden states are by step."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.RNNCell(2, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        h = inputs.new_zeros(len(inputs), 3)
        for x in inputs.unbind(1):
            h = self.cell(x, h)
        return self.out(h)


class TimeFirst(nn.Module):
    """A recurrent layer of torch with the steps in dimension 0."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.RNN(2, 3), nn.Linear(3, 2)

    def forward(self, inputs):
        return self.out(self.rnn(inputs.transpose(0, 1))[0][-1])


def recurrent_case(kind):
    """A case of squared error with one of the modules above."""
    torch.manual_seed(0)
    return Case(
        kind().double(), F.mse_loss, (torch.randn(5, 3, 2).double(), torch.randn(5, 2).double())
    )


def dense_states(case, states):
    """S from J_h by one backward pass per hidden state; `states` runs the model up to them."""
    h = states(case)
    jacobian = torch.stack([derivative(number, case) for number in h.reshape(-1)])
    return jacobian.T @ jacobian / len(case.batch[0])


def of_layer(case):
    """The output sequence of the recurrent layer of `tests.cases`, called by hand."""
    (layer,) = [m for m in case.model.modules() if isinstance(m, (nn.RNNBase, PeepholeLSTM))]
    return layer(case.batch[0])[0]


def step(case, solver=None, partition="per_layer", damping=None, **parts):
    """The change of the parameters in one update with lr 1, and its report."""
    before = flat_parameters(case)
    solver = solver or bdhf.CG(max_iters=500, tol=0, residual_tol=1e-13)
    optimizer = optimizer_of(case, partition, solver=solver, damping=damping, lr=1.0, **parts)
    info = optimizer.step(case.batch)
    return flat_parameters(case) - before, info, optimizer


@torch.no_grad()
def loss(case):
    """The loss of a case at its present parameters."""
    return float(case.loss_fn(case.model(case.batch[0]), case.batch[1]))


def solved(case, states, optimizer, rate, weight):
    """-(G_bb + λ(I + μS_bb))⁻¹ g from dense matrices."""
    identity = torch.eye(size(case), dtype=torch.float64)
    matrix = dense_ggn(case) + rate * weight * dense_states(case, states)
    matrix = blocked(matrix, optimizer.blocks) + rate * identity
    return torch.linalg.solve(matrix, -dense_gradient(case))


@recurrent
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron", "blend"])
def test_a_step_is_that_of_the_dense_system(name, partition):
    """(G_bb + λ(I + μ S_bb)) d = -g in every block of every partition."""
    case, twin = build(name), build(name)

    moved, _, optimizer = step(
        case, partition=partition, damping=bdhf.Structural(bdhf.Constant(0.1), weight=5.0)
    )

    expected = solved(twin, of_layer, optimizer, 0.1, 5.0)
    assert_close(moved, expected, rtol=0, atol=1e-9)
    plain = solved(twin, of_layer, optimizer, 0.1, 0.0)
    assert (expected - plain).norm() > 1e-2 * plain.norm()  # S decides


@pytest.mark.filterwarnings("ignore:SampleSpace sweeps one row")
@pytest.mark.parametrize(
    "solver",
    [
        bdhf.Cholesky(),
        bdhf.SampleSpace(),
        bdhf.SampleSpace(gram="sites"),
        bdhf.CG(max_iters=500, tol=0),
        bdhf.CG(max_iters=500, tol=0, preconditioner=bdhf.KFAC()),
        bdhf.CG(max_iters=500, tol=0, preconditioner=bdhf.Nystrom(4)),
    ],
    ids=repr,
)
@pytest.mark.parametrize("partition", ["per_layer", "blend"])
def test_every_solver_solves_it(solver, partition):
    """The factor of the sum has the rows of both, each block with its own λ."""
    case, twin = build("peephole"), build("peephole")
    damping = bdhf.Structural(bdhf.Constant(0.2), weight=3.0)

    moved, _, optimizer = step(case, solver, partition, damping)

    assert_close(
        moved, solved(twin, of_layer, optimizer, 0.2, 3.0), rtol=0, atol=1e-8
    )  # fmt: skip


@pytest.mark.parametrize("solver", [bdhf.Cholesky(), bdhf.SampleSpace()], ids=repr)
def test_each_block_is_damped_by_its_own_rate(solver):
    """μ λ_b scales S in block b alone."""
    case, twin = build("lstm"), build("lstm")
    optimizer = optimizer_of(
        case, "per_layer", solver=solver, damping=bdhf.Structural(weight=4.0), lr=1.0
    )
    before, dense = flat_parameters(case), dense_states(twin, of_layer)
    rates = torch.zeros(size(case), dtype=torch.float64)
    for index, group in enumerate(optimizer.param_groups):
        group["damping"] = 0.1 * (index + 1)
    for block, group in zip(
        optimizer.blocks.positions(), optimizer.param_groups, strict=True
    ):  # fmt: skip
        rates[block] = group["damping"]

    optimizer.step(case.batch)

    matrix = blocked(dense_ggn(twin) + 4.0 * rates[:, None] * dense, optimizer.blocks)
    expected = torch.linalg.solve(matrix + rates.diag(), -dense_gradient(twin))
    assert_close(flat_parameters(case) - before, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "states"),
    [
        (TimeFirst, lambda case: case.model.rnn(case.batch[0].transpose(0, 1))[0]),
        (
            Elman,
            lambda case: nn.RNN.forward(unrolled(case.model.cell), case.batch[0])[0],
        ),
    ],
    ids=["steps_first", "cell"],
)
def test_every_layout_of_the_hidden_states_has_the_same_matrix(kind, states):
    """Steps in dimension 0, and a cell that is called once a step."""
    case, twin = recurrent_case(kind), recurrent_case(kind)

    moved, _, optimizer = step(case, damping=bdhf.Structural(bdhf.Constant(0.1), weight=5.0))

    assert_close(moved, solved(twin, states, optimizer, 0.1, 5.0), rtol=0, atol=1e-9)


def unrolled(cell):
    """The layer of torch that runs a cell over all steps, with the parameters of the cell."""
    layer = nn.RNN(2, 3, batch_first=True).double()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(layer, f"{name}_l0", getattr(cell, name))
    layer._flat_weights = [getattr(cell, n.removesuffix("_l0")) for n in layer._flat_weights_names]
    return layer


@recurrent
@pytest.mark.parametrize("weight", [0.5, 50.0])
def test_the_reduction_ratio_is_measured_without_damping(name, weight):
    """Actual ÷ (gᵀd + ½ dᵀGd), where G has neither λI nor μλS."""
    case, twin = build(name), build(name)
    start = loss(case)

    moved, info, _ = step(
        case, partition="full", damping=bdhf.Structural(bdhf.Constant(0.3), weight)
    )

    fall = loss(case) - start
    predicted = dense_gradient(twin) @ moved + 0.5 * moved @ dense_ggn(twin) @ moved
    assert info.reduction_ratio == pytest.approx(fall / float(predicted), rel=1e-6)


def test_a_larger_weight_moves_the_hidden_states_less():
    """‖J_h d‖ falls from weight to weight."""
    changes = []
    for weight in (0.0, 1.0, 10.0, 100.0):
        case, twin = build("lstm"), build("lstm")
        moved, *_ = step(
            case, partition="full", damping=bdhf.Structural(bdhf.Constant(0.1), weight)
        )  # fmt: skip
        changes.append(float(moved @ dense_states(twin, of_layer) @ moved))
    assert changes == sorted(changes, reverse=True)
    assert changes[-1] < 0.5 * changes[0]


@pytest.mark.parametrize("name", ["lstm", "mlp"])
@pytest.mark.parametrize("damping", [bdhf.Constant(0.1), bdhf.LevenbergMarquardt()], ids=repr)
def test_a_weight_of_0_is_the_damping_alone_to_the_bit(name, damping):
    """Three updates are the same, also for a model without hidden states."""
    after, infos = [], []
    for chosen in (damping, bdhf.Structural(damping, weight=0.0)):
        case = build(name)
        optimizer = optimizer_of(case, "per_layer", damping=chosen)
        infos.append([optimizer.step(case.batch) for _ in range(3)])
        after.append(flat_parameters(case))
    assert torch.equal(*after)
    assert infos[0] == infos[1]


def test_the_rule_of_the_rate_is_that_of_the_damping():
    """First value, per-block ratios and changes are delegated."""
    rule = bdhf.LevenbergMarquardt(2.0, per_block=True)
    damping = bdhf.Structural(rule)

    assert (damping.initial, damping.per_block) == (2.0, True)
    for ratio in (0.1, 0.5, 0.9, math.nan):
        assert damping.update(2.0, ratio) == rule.update(2.0, ratio)


@recurrent
@pytest.mark.parametrize("sizes", [[1, 3], [2, 2]])
def test_micro_batches_are_one_batch(name, sizes):
    """S is the mean over the samples of all of them."""
    damping = bdhf.Structural(bdhf.Constant(0.1), weight=5.0)
    whole, pieces = build(name), build(name)
    x, y = pieces.batch
    parts = list(zip(x.split(sizes), y.split(sizes), strict=True))

    for case, batch in ((whole, (x, y)), (pieces, parts)):
        optimizer_of(case, "per_layer", damping=damping, lr=1.0).step(batch)

    assert_close(flat_parameters(pieces), flat_parameters(whole), rtol=0, atol=1e-10)


def test_the_hidden_states_are_those_of_the_curvature_batch():
    """G and S are of the second batch, the gradient of the first."""
    case, twin = build("lstm"), build("lstm")
    x, y = case.batch
    part, before = (x[:2], y[:2]), flat_parameters(case)
    optimizer = optimizer_of(
        case, "per_layer", damping=bdhf.Structural(bdhf.Constant(0.1), 5.0), lr=1.0,
        solver=bdhf.Cholesky(),
    )  # fmt: skip

    optimizer.step((x, y), part)

    few = Case(twin.model, twin.loss_fn, part)
    matrix = dense_ggn(few) + 0.5 * dense_states(few, of_layer)
    matrix = blocked(matrix, optimizer.blocks) + 0.1 * torch.eye(size(twin), dtype=torch.float64)
    expected = torch.linalg.solve(matrix, -dense_gradient(twin))
    assert_close(flat_parameters(case) - before, expected, rtol=0, atol=1e-9)


def test_modules_are_named_by_patterns():
    """Any module may be named; None is every recurrent one."""
    model = nn.ModuleDict({"a": nn.LSTM(2, 2), "b": nn.Linear(2, 2), "c": nn.GRUCell(2, 2)})

    assert list(hidden_modules(model, None)) == ["a", "c"]
    assert list(hidden_modules(model, ["b", "c*"])) == ["b", "c"]


def test_the_states_of_any_named_module_are_held():
    """The first layer of a perceptron, whose outputs have a row for each sample."""
    case, twin = build("mlp"), build("mlp")
    name = next(n for n, m in case.model.named_modules() if isinstance(m, nn.Linear))
    damping = bdhf.Structural(bdhf.Constant(0.1), weight=5.0, modules=[name])

    moved, _, optimizer = step(case, damping=damping)

    expected = solved(
        twin, lambda c: c.model.get_submodule(name)(c.batch[0]), optimizer, 0.1, 5.0
    )  # fmt: skip
    assert_close(moved, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "facts"),
    [
        ({"weight": -1.0}, ("Structural", "weight", "-1.0")),
        ({"weight": math.inf}, ("Structural", "weight", "inf")),
        ({"modules": []}, ("Structural", "modules", "[]")),
        ({"modules": "lstm"}, ("Structural", "modules", "lstm")),
        ({"damping": bdhf.Structural()}, ("Structural", "damping", "constant")),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, facts):
    """The error names the class, the argument and the value."""
    with pytest.raises(ValueError, match=naming(*facts)):
        bdhf.Structural(**arguments)


def test_a_number_is_no_damping():
    """The part that holds λ is a part itself."""
    with pytest.raises(ModelTypeError, match=naming("damping", "Constant", "0.1")):
        bdhf.Structural(0.1)


@pytest.mark.parametrize(
    ("name", "modules", "facts"),
    [
        ("mlp", None, ("PeepholeLSTM", "nn.RNNBase", "modules=")),
        ("lstm", ["gru*"], ("gru*", "modules")),
    ],
)
def test_a_model_without_the_modules_is_refused_where_the_optimizer_is_built(name, modules, facts):
    """The error lists the modules that the model has."""
    case = build(name)
    names = [n for n, _ in case.model.named_modules() if n]
    with pytest.raises(ModelError, match=naming(*facts, *names)):
        optimizer_of(case, "per_layer", damping=bdhf.Structural(modules=modules))


class Packed(nn.Module):
    """A recurrent layer on packed sequences."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.RNN(2, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, inputs):
        lengths = torch.full((len(inputs),), 2)
        packed = nn.utils.rnn.pack_padded_sequence(inputs, lengths, batch_first=True)
        return self.out(self.rnn(packed)[1][-1])


class Idle(Elman):
    """A network with a recurrent layer that no pass calls."""

    def __init__(self):
        super().__init__()
        self.cell, self.idle = nn.Linear(2, 3), nn.GRU(2, 2)

    def forward(self, inputs):
        return self.out(self.cell(inputs[:, -1]))


@pytest.mark.parametrize(
    ("kind", "error", "facts"),
    [
        (Packed, ModelTypeError, ("module 'rnn' (RNN)", "PackedSequence", "pad")),
        (Idle, ModelError, ("idle", "modules")),
    ],
)
def test_hidden_states_without_a_row_for_each_sample_are_refused(kind, error, facts):
    """The parameters stay where they were."""
    case = recurrent_case(kind)
    before = flat_parameters(case)
    optimizer = optimizer_of(case, "per_layer", damping=bdhf.Structural(), check=False)

    with pytest.raises(error, match=naming(*facts)):
        optimizer.step(case.batch)
    assert torch.equal(flat_parameters(case), before)


def test_a_pass_leaves_no_hook():
    """Hooks are removed, also after an error."""
    model = recurrent_case(Packed).model
    with pytest.raises(ModelTypeError):
        HiddenStates(model, hidden_modules(model, None))(torch.randn(5, 3, 2).double())
    assert not model.rnn._forward_hooks


@pytest.mark.parametrize("name", ["peephole", "gru"])
def test_an_estimate_is_what_a_warm_update_spends(name):
    """Products with both matrices, both linearisations, and the product after the solve."""
    case = build(name)
    solver = bdhf.CG(max_iters=2, tol=0, residual_tol=0)
    optimizer = optimizer_of(
        case, "per_layer", solver=solver, damping=bdhf.Structural(bdhf.Constant(1.0), 2.0)
    )
    optimizer.step(case.batch)

    spent = optimizer.step(case.batch)

    expected = estimate(optimizer, case.batch, gradient_batch=len(case.batch[0]))
    assert set(spent.cg_iterations) == {2}
    assert expected == pytest.approx(spent.gradient_equivalents, rel=0.02)


def test_a_copy_of_model_and_optimizer_makes_the_same_steps():
    """The hooks of the copy are on the copied model."""
    case = build("lstm")
    optimizer = optimizer_of(case, "per_layer", damping=bdhf.Structural(weight=2.0))
    optimizer.step(case.batch)
    model, twin = copy.deepcopy((case.model, optimizer))

    infos = [each.step(case.batch) for each in (optimizer, twin)]

    assert infos[0] == infos[1]
    pairs = zip(model.parameters(), case.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_loss_with_parameters_has_no_hidden_states_in_them():
    """S is 0 in the rows of what only the loss has, and steps move those by -lr/λ g."""
    case = build("lstm")

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

        def forward(self, outputs, targets):
            return F.cross_entropy(outputs * self.scale, targets)

    loss_fn = Scaled()
    structure = structure_of(bdhf.Structural(), case.model, loss_fn, Settings())
    layout = layout_of(case.model, loss_fn)
    with torch.no_grad():
        blocks = cut(layout, bdhf.Full())
        states = structure.linearise((case.batch,), blocks, Flops(), 1)
        unit = torch.zeros(layout.size, dtype=torch.float64)
        unit[-1] = 1.0
        assert not states(unit).any()
        assert states(1 - unit).any()


def test_single_precision_is_within_its_tolerance():
    """The step of float32 is the step of float64 to three digits."""
    moves = []
    for dtype in (torch.float64, torch.float32):
        case = build("peephole", dtype=dtype)
        damping = bdhf.Structural(bdhf.Constant(0.1), weight=5.0)
        moves.append(step(case, bdhf.Cholesky(), damping=damping)[0].double())
    assert_close(moves[1], moves[0], rtol=1e-3, atol=1e-4)
