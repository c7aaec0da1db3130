"""A solve seldom waits for the device, stays on it, and makes no vectors that it does not need."""

import math
import warnings
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bdhf.optim import CG, Forcing, MartensProgress, RelativeResidual, SaddleFree, Stop
from bdhf.optim.products.linearisation import pick, slot_tensors
from bdhf.optim.solvers import System
from bdhf.optim.vectors import rows
from bdhf.optim.vectors.blocks import Blending, Blocks
from bdhf.optim.vectors.layout import flatten, layout_of
from tests.optim.devices import GPUS
from tests.optim.systems import SIZES, Diagonal, positive, system

#: Operators that return a value or a shape to the host, and methods that never dispatch.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal", "_unique2", "is_nonzero")
READING = ("tolist", "numpy", "cpu")


class Waits(TorchDispatchMode):
    """Counts what waits for the device, or would if the tensors were on one."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._overloadpacket.__name__ in WAITING
        return func(*args, **(kwargs or {}))


class Reads(TorchFunctionMode):
    """Counts reads of a whole tensor, which reach no dispatcher on the CPU."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.count += getattr(func, "__name__", "") in READING
        return func(*args, **(kwargs or {}))


class Driverless(TorchFunctionMode):
    """Python's ~ asks for the driver of a device; the operator behind it does not."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        inverts = getattr(func, "__name__", "") == "__invert__"
        return torch.bitwise_not(*args) if inverts else func(*args, **(kwargs or {}))


class Made(TorchDispatchMode):
    """Counts the new tensors of at least `size` entries."""

    def __init__(self, size):
        super().__init__()
        self.size, self.count = size, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        storages = {t.untyped_storage().data_ptr() for t in tensors((args, kwargs))}
        for tensor in tensors(result):
            new = tensor.untyped_storage().data_ptr() not in storages
            self.count += new and tensor.numel() >= self.size
        return result


def ones(shape):
    """Nested lists of ones."""
    return [ones(shape[1:]) for _ in range(shape[0])] if len(shape) else 1


def tensors(tree):
    """The tensors among arguments or results."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextmanager
def waits():
    """Yields a function that returns how often the block has waited."""
    with Waits() as dispatched, Reads() as read:
        yield lambda: dispatched.count + read.count


def rows_of_all_ends(keep_iterates=False):
    """Rows that converge, come to a stand, meet negative curvature, have nothing to do, are NaN."""
    sizes = (*SIZES, 3, 5, 60)
    matrices = [positive(n, seed) for seed, n in enumerate(sizes)]
    generator = torch.Generator().manual_seed(9)
    rhs = [torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]
    matrices[1] = matrices[1] - 5 * torch.eye(6, dtype=torch.float64)
    matrices[4] = -matrices[4]
    matrices[5] = torch.full_like(matrices[5], math.nan)
    matrices[6] = positive(60, 3, condition=1e4)
    rhs[2] = torch.zeros_like(rhs[2])
    return system(matrices, rhs, 0.01, keep_iterates)


def settings(solved, preconditioned):
    """A diagonal, and the settings of CG."""
    m = torch.linspace(1, 3, len(solved.rhs), dtype=torch.float64) if preconditioned else None
    return {"tol": 2e-3, "residual_tol": 1e-9, "preconditioner": Diagonal(m)}


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("every", [2, 3, 10, 500])
def test_the_answer_is_the_same_however_seldom_flags_are_read(every, warm, preconditioned):
    """Iterates, φ, counts and reasons are equal, bit by bit, for rows of every end."""
    solved = rows_of_all_ends(keep_iterates=True)
    setting = settings(solved, preconditioned)

    def solution(check_every):
        start = 0.1 * torch.ones_like(solved.rhs) if warm else None
        return CG(120, check_every=check_every, **setting).solve(solved, start)

    eager, seldom = solution(1), solution(every)

    assert {*eager.stop} >= {*Stop} - {Stop.MAX_ITERS}
    for field in ("iterations", "products", "stop"):
        assert getattr(seldom, field) == getattr(eager, field)
    assert len(seldom.iterates) == len(eager.iterates) > 3
    for iterate, other in zip(seldom.iterates, eager.iterates, strict=True):
        assert torch.equal(iterate.x, other.x)
        assert torch.equal(iterate.model, other.model)


@pytest.mark.parametrize("stop", [MartensProgress(2e-3), RelativeResidual(0.1), Forcing(0.2)])
@pytest.mark.parametrize("every", [3, 10, 500])
def test_a_stop_rule_gives_the_same_answer_however_seldom_flags_are_read(every, stop):
    """Iterates, counts and reasons under a rule are equal, bit by bit, for rows of every end."""
    solved = rows_of_all_ends(keep_iterates=True)

    eager = CG(120, check_every=1, stop=stop).solve(solved, 0.1 * torch.ones_like(solved.rhs))
    seldom = CG(120, check_every=every, stop=stop).solve(solved, 0.1 * torch.ones_like(solved.rhs))

    assert stop.reason in eager.stop
    for field in ("iterations", "products", "stop"):
        assert getattr(seldom, field) == getattr(eager, field)
    for iterate, other in zip(seldom.iterates, eager.iterates, strict=True):
        assert torch.equal(iterate.x, other.x)
        assert torch.equal(iterate.model, other.model)


@pytest.mark.parametrize(
    "stop", [MartensProgress(1e-9), RelativeResidual(1e-12), Forcing(1e-12)], ids=repr
)
@pytest.mark.parametrize("updated", [False, True])
def test_a_stop_rule_waits_for_nothing(stop, updated):
    """The waits of a solve are those without a rule, also with the numbers of an update before."""
    solved = rows_of_all_ends()
    last = torch.full((len(solved.damping), 2), 1e-12, dtype=torch.float64)
    last[:, 0] = 1e9  # the ratio of norms is small, and η with it
    solved = replace(solved, stopping=last if updated else None)

    with waits() as count:
        solution = CG(30, check_every=10, stop=stop).solve(solved)

    assert max(solution.iterations) > 20
    assert count() == 3 + 1


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("max_iters", [5, 30, 60])
def test_a_solve_waits_once_every_ten_iterations_and_once_for_its_answer(
    max_iters, warm, preconditioned
):
    """⌈max_iters / 10⌉ + 1 waits, whatever happens in the rows, true residuals and iterates too."""
    solved = rows_of_all_ends(keep_iterates=True)
    start = 0.1 * torch.ones_like(solved.rhs) if warm else None
    cg = CG(max_iters, check_every=10, **settings(solved, preconditioned) | {"tol": 0.0})

    with waits() as count:
        solution = cg.solve(solved, start)

    assert max(solution.iterations) > max_iters - 10  # some row is active at every look
    assert count() == math.ceil(max_iters / 10) + 1


def test_flags_are_read_at_every_iteration_on_the_cpu():
    """None is 1 there: once the last row is done, no product is wasted."""
    calls = []
    solved = system([torch.eye(4).double()], [torch.ones(4).double()])

    def product(v, active):
        calls.append(active)
        return v.clone()

    CG().solve(replace(solved, matrix=product))

    assert len(calls) == 1


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("dots", [False, True])
def test_no_operator_leaves_the_device(monkeypatch, warm, preconditioned, dots):
    """Tensors without values: an operator on two devices is an error, as is asking for a value."""
    solution, reads = solved_without_values(monkeypatch, warm, preconditioned, float64_dots=dots)

    assert {solution.x.device, solution.model.device} == {torch.device("cuda:0")}
    assert reads == 6 + 1  # None is 10 on a device


@pytest.mark.parametrize(
    ("stop", "dots"), [(RelativeResidual(0.1), False), (Forcing(), False), (Forcing(), True)]
)
def test_no_operator_of_a_stop_rule_leaves_the_device(monkeypatch, stop, dots):
    """A rule reads no value, and its numbers stay on the device."""
    solution, reads = solved_without_values(monkeypatch, True, False, float64_dots=dots, stop=stop)

    devices = {part.device for part in (solution.x, solution.stopping) if part is not None}
    assert devices == {torch.device("cuda:0")}
    assert reads == 6 + 1


def solved_without_values(monkeypatch, warm, preconditioned, **setting):
    """A solve of 60 iterations on a device that is not there, and how many lists it read.

    Lists are answered with ones: every row is active.
    """
    lists = []
    monkeypatch.setattr(
        FakeTensor, "tolist", lambda self: lists.append(self.device) or ones(self.shape)
    )
    blocks = Blocks.of(layout_of(nn.Linear(10, 1, bias=False)), [torch.arange(10).view(2, 5)])
    with FakeTensorMode(), Driverless():
        rhs, damping = torch.ones(10, device="cuda:0"), torch.ones(2, device="cuda:0")
        m = rhs + 1 if preconditioned else None
        solved = System(
            blocks, lambda v, active: 2 * v, rhs, damping, keep_iterates=True,
            stopping=torch.ones(2, 2, device="cuda:0"),
        )  # fmt: skip

        solution = CG(60, preconditioner=Diagonal(m), **setting).solve(
            solved, torch.ones_like(rhs) if warm else None
        )
    return solution, len(lists)


@pytest.mark.parametrize("every", [2, 3, 10, 500])
@pytest.mark.parametrize("iterations", [4, 20])
def test_a_saddle_free_answer_is_the_same_however_seldom_flags_are_read(every, iterations):
    """Iterates, φ, counts and reasons are equal, bit by bit, for rows of every end."""
    solved = rows_of_all_ends(keep_iterates=True)

    eager, seldom = (SaddleFree(iterations, each).solve(solved) for each in (1, every))

    assert {*eager.stop} >= {Stop.NEGATIVE_CURVATURE, Stop.NONFINITE, Stop.MAX_ITERS}
    for field in ("iterations", "products", "stop"):
        assert getattr(seldom, field) == getattr(eager, field)
    assert len(seldom.iterates) == len(eager.iterates)
    for iterate, other in zip(seldom.iterates, eager.iterates, strict=True):
        assert torch.equal(iterate.x, other.x)
        assert torch.equal(iterate.model, other.model)


@pytest.mark.parametrize("iterations", [5, 30, 60])
def test_a_saddle_free_solve_waits_once_every_ten_products_and_twice_for_its_answer(iterations):
    """⌈k / 10⌉ + 2 waits, whatever happens in the rows; the decompositions follow the products."""
    solved = rows_of_all_ends(keep_iterates=True)

    with waits() as count:
        solution = SaddleFree(iterations, check_every=10).solve(solved)

    assert max(solution.iterations) == iterations
    assert count() == math.ceil(iterations / 10) + 2


@pytest.mark.parametrize("size", [60, 200])
def test_no_operator_of_a_saddle_free_solve_leaves_the_device(monkeypatch, size):
    """Tensors without values: an operator on two devices is an error, as is asking for a value.

    Lists are answered with ones, and so is the number of vectors.
    """
    lists = []
    monkeypatch.setattr(
        FakeTensor, "tolist", lambda self: lists.append(self.device) or ones(self.shape)
    )
    monkeypatch.setattr(FakeTensor, "__int__", lambda self: 30, raising=False)
    layout = layout_of(nn.Linear(size, 1, bias=False))
    blocks = Blocks.of(layout, [torch.arange(size).view(2, -1)])
    with FakeTensorMode(), Driverless():
        rhs, damping = torch.ones(size, device="cuda:0"), torch.ones(2, device="cuda:0")
        solved = System(blocks, lambda v, active: 2 * v, rhs, damping, keep_iterates=True)

        solution = SaddleFree(30).solve(solved)

    assert solution.x.device == rhs.device
    assert solution.model.device == rhs.device
    assert len(lists) == 3 + 1  # None is 10 on a device


class Copies(Waits):
    """Counts copies to another device."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func._overloadpacket.__name__ == "_to_copy"
        return func(*args, **(kwargs or {}))


def test_blocks_bring_their_positions_to_a_device_once():
    """After `to`, the ways between the orders move nothing: positions and vectors meet there."""
    order = torch.randperm(66, generator=torch.Generator().manual_seed(0))
    layout = layout_of(nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 2)))
    inner = Blocks.of(layout, [order[:60].view(6, 10), order[60:].view(1, 6)])
    blocks = replace(inner, blend=Blending(inner, 0.5))
    flat = torch.ones(66, device="meta")
    parts = [torch.ones(slot.shape, device="meta") for slot in layout.slots]

    moved = blocks.to(flat.device)

    with Copies() as copies:
        for some in (moved, moved.blend.inner):
            some.scatter(some.gather(flat))
            for row in some.rows:
                touched = [parts[i] for i in row.slots]
                pick(row, flatten(touched))
                slot_tensors(row, flat[: row.size], parts)
    positions = [
        moved.permutation,
        moved.blend.inner.permutation,
        *(row.within for row in moved.rows),
    ]
    positions += [view.positions for view in moved.views]
    assert {tensor.device for tensor in positions} == {flat.device}
    assert copies.count == 0


@pytest.mark.parametrize("start", [None, 0.1])
@pytest.mark.parametrize("cuts", [[1, -1], [3, -1], [-1, 4]])
def test_an_iteration_makes_no_vector_but_the_product(monkeypatch, start, cuts):
    """A solve makes x, r and p, or takes its start for x; else one product an iteration."""
    monkeypatch.setattr(rows, "SLAB_CPU", 16)
    size = 120
    layout = layout_of(nn.Linear(size, 1, bias=False))
    solved_blocks = Blocks.of(layout, [torch.arange(size).view(cuts)])
    shape = torch.linspace(1, 2, size)
    lam = torch.zeros(len(solved_blocks.rows))
    solved = System(solved_blocks, lambda v, active: shape * v, torch.ones(size), lam)
    first = None if start is None else torch.full((size,), start)

    with Made(size) as made:
        solution = CG(4, tol=0).solve(solved, first)

    assert made.count == 2 + (first is None) + max(solution.products)


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
def test_a_device_is_waited_for_as_seldom_as_promised(device):
    """On a real device, by its own account: ⌈30 / 10⌉ + 1 waits, and the answer of the CPU."""
    matrix = positive(60, 3, condition=1e4)
    solved = system([matrix], [torch.ones(60, dtype=torch.float64)])
    there = matrix.to(device)
    on_device = System(
        solved.blocks.to(torch.device(device)), lambda v, active: there @ v,
        solved.rhs.to(device), solved.damping.to(device),
    )  # fmt: skip
    CG(30, tol=0).solve(on_device)  # libraries wait when they are set up
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            solution = CG(30, tol=0).solve(on_device)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    assert sum("called a synchronizing" in str(warning.message) for warning in told) == 3 + 1
    assert_close(solution.x.cpu(), CG(30, tol=0).solve(solved).x)
