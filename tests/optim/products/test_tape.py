"""J v along the tape of a forward pass: the same numbers as two reverse sweeps, or not at all."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.func import jvp
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.utils.parametrizations import weight_norm
from torch.testing import assert_close

import bdhf
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings, Workspace, linearise
from bdhf.optim.products.propagate.choose_jvp import NOT_FINITE, choose_jvp
from bdhf.optim.products.propagate.jvp import DoubleBackwardJVP, TapeJVP
from bdhf.optim.products.tape.dual_numbers import by_dual_numbers
from bdhf.optim.products.tape.in_place import overwritten
from bdhf.optim.products.tape.jvp_rules import IN_PLACE, JVP_RULES, tangent_of
from bdhf.optim.products.tape.route import route
from bdhf.optim.products.tape.tape import NO_OUTPUT, Tape
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.cases import CASES, build
from tests.optim.tapes import (
    FUNCTIONS,
    NO_FORWARD_MODE,
    OFF_TAPE,
    Applied,
    Reversal,
    asked,
    recorded,
    squared,
    tensors_of,
)
from tests.oracles import cut as oracles_cut
from tests.oracles import dense_ggn
from tests.zoo.surrogates import Cube

aten = torch.ops.aten

dtypes = pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["f64", "f32"])
cases = pytest.mark.parametrize("case", CASES)


def chosen(case):
    """The way to J v that is chosen, and why it is not the tape."""
    z, tape = recorded(case)
    return choose_jvp(asked(case), tape, z)


def draws(case, slots=None):
    """Random tangents of the parameters, or of some of them."""
    parameters = [p for p in case.model.parameters() if p.requires_grad]
    every = range(len(parameters)) if slots is None else slots
    return {i: torch.randn_like(parameters[i]) for i in every}


def curvature(case, **settings):
    """The GGN of a case by propagation."""
    return bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, method="propagate", **settings
    )  # fmt: skip


def assert_exact(case, why=""):
    """The matrix is the dense one, and `explain` has the reason."""
    G = curvature(case)

    assert why in G.explain()
    assert_close(G.to_dense(), dense_ggn(case), rtol=0, atol=1e-10)


def patterns(entry):
    """Every choice of which of the values that an entry reads have a tangent, but none at all."""
    options = [(False,) if read is None else (False, True) for read in entry.reads]
    return [pattern for pattern in product(*options) if any(pattern)]


def assert_rules_are_derivatives(tape):
    """Every recorded operator with a rule gives torch's own tangent, slim too."""
    compared = set()
    for entry in tape.entries:
        call = entry.call
        if call.func not in JVP_RULES or overwritten(call.func, call.args, call.kwargs):
            continue
        for pattern in patterns(entry):
            tangents = [
                torch.randn_like(tensor) if has else None
                for tensor, has in zip(tensors_of(call), pattern, strict=True)
            ]
            expected = by_dual_numbers(call, *tangents)
            for same in (call, call.slim()):
                assert_close(tangent_of(same, tangents), expected)
        compared.add(call.func)
    return compared


@cases
@torch.no_grad()
def test_rules_of_the_cases_are_torchs_derivatives(case):
    """Every operator of a case gives the tangent of dual numbers, for every pattern of reads."""
    with torch.enable_grad():
        _, tape = recorded(build(case))

    assert_rules_are_derivatives(tape)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_other_rules_are_torchs_derivatives_too(function):
    """Operators that no case has: their tangents, and J v of a model that has them."""
    torch.manual_seed(0)
    case = squared(Applied(FUNCTIONS[function]), torch.randn(5, 3))
    z, tape = recorded(case)
    with torch.no_grad():
        assert assert_rules_are_derivatives(tape)
        v = draws(case)
        expected = DoubleBackwardJVP(z, list(case.model.parameters()))(v)

        assert_close(TapeJVP(tape, tape.output)(v), expected)


def test_every_rule_is_reached_by_some_test():
    """No rule is without a model that runs its operator."""
    torch.manual_seed(0)
    models = [build(name, dtype=dtype) for name in CASES for dtype in (torch.float64,)]
    models += [squared(Applied(f), torch.randn(5, 3)) for f in FUNCTIONS.values()]
    reached = {entry.call.func for case in models for entry in recorded(case)[1].entries}

    assert set(JVP_RULES) - set(IN_PLACE) - NO_FORWARD_MODE <= reached


@pytest.mark.parametrize("operator", IN_PLACE, ids=str)
def test_rules_in_place_are_derivatives_at_the_value_before(operator):
    """An overwritten value keeps the derivative from before."""
    plain = getattr(aten, operator._overloadpacket.__name__[:-1])
    count = len(plain.default._schema.arguments) if "Tensor" not in str(operator) else 2
    values = [torch.randn(4, 3, dtype=torch.float64) for _ in range(count)]
    tangents = [torch.randn_like(value) for value in values]
    _, expected = jvp(plain, tuple(values), tuple(tangents))
    tape = Tape(values[:1])
    tape.record(lambda: operator(*values))

    (entry,) = tape.entries
    for call in (entry.call, entry.call.slim()):
        assert_close(tangent_of(call, tangents), [expected])
    assert not tape.problem


@cases
@dtypes
def test_tangents_along_the_tape_are_those_of_two_reverse_sweeps(case, dtype):
    """J v for all parameters, and for each alone, wherever the tape is used; it is not for two."""
    name, case = case, build(case, dtype=dtype)
    z, tape = recorded(case)
    push, problem = choose_jvp(asked(case), tape, z)

    assert OFF_TAPE.get((name, dtype), "") in problem
    assert isinstance(push, TapeJVP) == ((name, dtype) not in OFF_TAPE)
    exact = DoubleBackwardJVP(z, [p for p in case.model.parameters() if p.requires_grad])
    with torch.no_grad():
        for slots in (None, *([i] for i in draws(case))):
            v = draws(case, slots)
            pushed, expected = (
                torch.zeros_like(z) if jv is None else jv for jv in (push(v), exact(v))
            )
            tolerance = 1e-10 if dtype == torch.float64 else 1e-4
            assert_close(pushed, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", [name for name in CASES if (name, torch.float64) not in OFF_TAPE])
def test_a_replay_is_its_route_operator_by_operator(case):
    """Fused steps give what the rules give one by one, whichever parameters have a tangent."""
    case = build(case)
    _, tape = recorded(case)
    push, count = TapeJVP(tape, tape.output), len(draws(case))
    with torch.no_grad():
        for slots in [range(count), *([i, (i + 2) % count] for i in range(count - 2))]:
            v = draws(case, sorted(set(slots)))
            pushed, expected = push(v), route(tape, tuple(v), tape.output)(v)
            assert (pushed is None) == (expected is None)
            if pushed is not None:
                assert_close(pushed, expected, rtol=1e-12, atol=1e-12)


class StraightThrough(torch.autograd.Function):
    """Rounds, with the gradient of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


def assert_two_sweeps(case, why):
    """Not replayed, for this reason; and the products are those that autograd makes."""
    push, problem = chosen(case)

    assert isinstance(push, DoubleBackwardJVP)
    assert why in problem
    assert_exact(case, f"two reverse sweeps ({problem})")


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (StraightThrough, NO_OUTPUT),
        (Reversal, "forward mode"),
    ],
)
def test_a_backward_that_is_no_derivative_is_not_replayed(function, why):
    """The gradient of a custom backward is in the products, as it is in the gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    model.forward = lambda x: function.apply(3 * nn.Sequential.forward(model, x))
    both = Applied(lambda h: function.apply(h) + h)

    assert_two_sweeps(squared(both, torch.randn(5, 3)), "forward mode")
    assert_two_sweeps(squared(model, torch.randn(5, 3)), why)


def overwritten_view(h):
    """Overwrites a value of which another view is used afterwards."""
    part = h[:, :2]
    h = h.relu_()
    return h * 2 + torch.cat([part, part], 1)


def overwritten_part(h):
    """Overwrites a part of a value."""
    h = h * 1
    h[:, 0] = 0
    return h


def overwritten_argument(h):
    """Overwrites a value from which torch's own derivative of `exp` does not start."""
    grown = h.exp()
    h += 1
    return grown * h


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (overwritten_view, "aten.relu_.default"),
        (overwritten_part, "aten."),
        (overwritten_argument, "forward mode"),
        (lambda h: (h * 1).mul_(h), "aten.mul_.Tensor"),
    ],
    ids=["view", "part", "argument", "operator"],
)
def test_an_overwritten_value_that_matters_is_not_replayed(function, why):
    """Where memory holds another value than the rule of an operator needs, autograd is used."""
    torch.manual_seed(0)

    assert_two_sweeps(squared(Applied(function), torch.randn(5, 3)), why)


def test_an_overwritten_value_that_does_not_matter_is_replayed():
    """The ordinary in-place activation, and a residual sum in place."""
    torch.manual_seed(0)

    def function(h):
        g = h.tanh_() * 2
        g += h
        return g.relu_()

    assert_exact(squared(Applied(function), torch.randn(5, 3)), "forward mode")


ROWS = torch.tensor([0, 1, 1, 2, 0])  # to which the five rows go
PAIR = torch.tensor([3, 1])
ONTO = {
    "index_add_": lambda h: torch.zeros_like(h).index_add_(0, ROWS, h),
    "scatter_add_": lambda h: torch.zeros_like(h).scatter_add_(0, ROWS[:, None].expand(5, 4), h),
    "scatter_": lambda h: torch.zeros_like(h).scatter_(0, PAIR[:, None].expand(2, 4), h[:2]),
    "index_put_": lambda h: torch.zeros_like(h).index_put_((ROWS,), h, accumulate=True),
    "index_copy_": lambda h: torch.ones_like(h).index_copy_(0, PAIR, h[:2]),
    "masked_scatter_": lambda h: torch.ones_like(h).masked_scatter_(ROWS[:, None] == 1, h),
    "copy_": lambda h: torch.zeros_like(h).copy_(h),
    "sub_": lambda h: torch.ones_like(h).sub_(h),
}


@pytest.mark.parametrize("function", ONTO.values(), ids=ONTO)
def test_values_written_onto_a_constant_are_replayed_and_stay(function):
    """Messages are added onto zeros in place in many graph networks, and the graph keeps them."""
    torch.manual_seed(0)

    assert_exact(squared(Applied(function), torch.randn(5, 3)), "forward mode")


def test_a_constant_that_is_multiplied_in_place_is_not_replayed():
    """The derivative needs the old value; at a scale of 1 the new one looks like it."""
    torch.manual_seed(0)
    model = Applied(lambda h: torch.full_like(h, 2.0).mul_(h))

    assert_two_sweeps(squared(model, torch.randn(5, 3)), "aten.mul_.Tensor")


def gated(h):
    """Multiplies by a gate that is made without a graph."""
    with torch.no_grad():
        gate = torch.sigmoid(2 * h)
    return gate * h


@pytest.mark.parametrize(
    ("function", "why"),
    [
        (gated, "forward mode"),
        (lambda h: h.detach().tanh() + h, "two reverse sweeps"),
        (lambda h: h.tanh().detach().clone() * h, "two reverse sweeps"),
    ],
    ids=["no_grad", "detach_first", "detach_last"],
)
def test_tangents_stop_where_gradients_stop(function, why):
    """A `no_grad` is a constant on the tape; a `detach` looks like its source, and is found out."""
    torch.manual_seed(0)

    assert_exact(squared(Applied(function), torch.randn(5, 3)), why)


def test_an_operator_without_forward_mode_is_named():
    """Weight norm's fused kernel has a reverse mode only, so products take two reverse sweeps."""
    torch.manual_seed(0)
    case = squared(nn.Sequential(weight_norm(nn.Linear(3, 4)), nn.Tanh()), torch.randn(5, 3))

    assert_two_sweeps(case, "_weight_norm_interface")


def test_slim_frees_what_no_rule_reads():
    """Pre-activations are gone, the products are not."""
    torch.manual_seed(0)
    case = squared(Applied(torch.tanh), torch.randn(5, 3))
    z, tape = recorded(case)
    hidden = [
        StorageWeakRef(entry.call.result.untyped_storage())
        for entry in tape.entries if entry.call.func is aten.addmm.default
    ]  # fmt: skip
    v = draws(case)
    with torch.no_grad():
        before = route(tape, tuple(v), tape.output)(v)
        assert not any(weak.expired() for weak in hidden)
        tape.slim()

        assert [weak.expired() for weak in hidden] == [True, False]  # the last one is z
        assert torch.equal(route(tape, tuple(v), tape.output)(v), before)
    assert z.requires_grad


@pytest.mark.parametrize(
    ("name", "forward"), [("conv", 3), ("peephole", 1), ("norms", 2), ("lstm", 1)]
)
def test_products_neither_run_the_model_nor_draw(name, forward):
    """One forward pass a linearisation, none a product; the caller's generator does not move.

    Where images play a part, one more tells once for their shape in which order they may lie, and
    another one is observed in that order.
    """
    case = build(name)
    passes, state = [], torch.get_rng_state()
    case.model.register_forward_hook(lambda *_: passes.append(1))
    G = curvature(case)
    v = torch.ones(G.shape[0], dtype=torch.float64)
    for _ in range(3):
        G @ v

    assert len(passes) == forward
    assert torch.equal(torch.get_rng_state(), state)


def linearised(case, workspace, partition=None):
    """The GGN of a case, with what a workspace remembers."""
    return linearise(
        Objective.of(case.model, case.loss_fn), [case.batch], curvature=bdhf.GGN(),
        blocks=cut(layout_of(case.model), partition or bdhf.Full()), flops=Flops(),
        settings=Settings(method="propagate"), workspace=workspace,
    )  # fmt: skip


def test_what_is_not_finite_decides_nothing():
    """With NaN in the parameters products are NaN; what comes after them is on the tape again."""
    case, workspace = build("mlp"), Workspace()
    v = torch.ones(layout_of(case.model).size, dtype=torch.float64)
    sound = case.model[0].weight.detach().clone()
    with torch.no_grad():
        case.model[0].weight.fill_(torch.nan)
    broken = linearised(case, workspace)
    decisions = [key for key in workspace.kept if key[0] != "method"]

    assert NOT_FINITE in broken.why
    assert broken(v).isnan().any()
    assert not decisions
    with torch.no_grad():
        case.model[0].weight.copy_(sound)
    mended = linearised(case, workspace)
    assert "forward mode" in mended.why
    assert mended(v).isfinite().all()


def test_a_pass_that_goes_another_way_is_decided_again():
    """A model that branches on its inputs is examined on every branch, though shapes are equal."""
    torch.manual_seed(0)
    model = Applied(lambda h: Reversal.apply(h) + 2 * h if h[0, 0] > 0 else h.tanh())
    x, workspace = torch.randn(5, 3).double(), Workspace()
    case = squared(model, x)
    for sign in (-1, 1):
        with torch.no_grad():
            model.first.bias[0] = 100.0 * sign
        product_ = linearised(case, workspace)
        v = torch.randn(layout_of(model).size, dtype=torch.float64)

        assert_close(product_(v), dense_ggn(case) @ v, rtol=1e-10, atol=1e-10)
    assert "reverse sweeps" in product_.why


class Gated(nn.Module):
    """A residual layer with a function of the user's own, times a gate that is 0 at first."""

    def __init__(self):
        super().__init__()
        self.first, self.inner, self.last = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        h = self.first(x)
        return self.last(h + self.gate * Cube.apply(self.inner(h)))


@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.PerLayer()])
def test_a_function_behind_a_gate_that_opens_later_is_not_replayed(partition):
    """At a gate of 0 the tape agrees with autograd, though it lacks all that is behind it."""
    torch.manual_seed(0)
    model, workspace = Gated().double(), Workspace()
    case = squared(model, torch.randn(5, 3).double())
    v = torch.randn(layout_of(model).size, dtype=torch.float64)
    for gate in (0.0, 0.5):
        with torch.no_grad():
            model.gate.fill_(gate)
        product_ = linearised(case, workspace, partition)
        blocks = product_.blocks

        product = blocks.scatter(product_(blocks.gather(v)))
        assert_close(product, oracles_cut(dense_ggn(case), blocks.positions()) @ v)
        assert "autograd.Function" in product_.why
