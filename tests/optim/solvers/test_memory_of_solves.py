"""Preconditioners that leave vectors to the next update: the optimizer's state, and answers."""

import copy
import math
import pickle

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CG, ModelError, Nystrom, Recycled, Stop
from bdhf.optim.estimate import estimate
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import dense_step, optimizer_of, regression
from tests.optim.systems import positive, seeded
from tests.oracles import flat_parameters

PARTS = {"nystrom": Nystrom(rank=6, refresh=2), "recycled": Recycled(vectors=4, directions=9)}
parts = pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)


def optimizer_on(model, part, **settings):
    """An optimizer with few iterations."""
    solver = CG(max_iters=6, tol=0, preconditioner=part)
    return bdhf.BlockHessianFree(model, F.mse_loss, solver=solver, **settings)


@parts
@pytest.mark.parametrize("case", ["mlp", "conv", "tied", "sum_bce", "gru"])
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron", "thirds", "blend"])
def test_converged_steps_do_not_depend_on_it(case, partition, part):
    """The first and the second update solve (G + λI) d = -g, to 1e-7 of the dense solution."""
    case = build(case)
    solver = CG(max_iters=2000, tol=0, residual_tol=1e-11, preconditioner=part)
    optimizer = optimizer_of(case, partition, solver=solver, damping=bdhf.Constant(0.05), lr=1.0)

    for _ in range(2):
        before, step = flat_parameters(case).clone(), dense_step(case, optimizer, 0.05)
        optimizer.step(case.batch)
        assert_close(flat_parameters(case) - before, step, rtol=0, atol=1e-7)


@parts
def test_state_dict_continues_bit_exactly(part, tmp_path):
    """Saved and loaded between two updates, parameters and reports stay the same bits."""
    model, batch = regression()
    optimizer = optimizer_on(model, part)
    for _ in range(3):
        optimizer.step(batch)
    twin = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = optimizer_on(twin, part)

    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))

    for _ in range(3):
        assert optimizer.step(batch) == resumed.step(batch)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)
        assert torch.equal(optimizer.state[p]["memory"], resumed.state[q]["memory"])


@parts
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_continues_like_the_original(copied, part):
    """Bit for bit, and apart from it."""
    model, batch = regression()
    optimizer = optimizer_on(model, part)
    optimizer.step(batch)

    twin, other = copied((model, optimizer))
    infos = [(optimizer.step(batch), other.step(batch)) for _ in range(2)]

    assert all(info == two for info, two in infos)
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p, q)


def test_without_it_the_state_holds_no_more_than_before():
    """The direction and the number of updates."""
    model, batch = regression()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss)

    optimizer.step(batch)

    assert {key for entry in optimizer.state.values() for key in entry} == {"direction", "step"}


@parts
def test_a_poisoned_batch_leaves_the_vectors_as_they_were(part):
    """Nothing moves, and nothing is learned."""
    model, (x, y) = regression()
    optimizer = optimizer_on(model, part)
    optimizer.step((x, y))
    kept = {p: entry["memory"].clone() for p, entry in optimizer.state.items()}

    optimizer.step((x, math.nan * y))

    assert all(torch.equal(optimizer.state[p]["memory"], before) for p, before in kept.items())


@parts
def test_vectors_of_another_model_are_refused(part):
    """Also without a warm start; it names the parameter, with both shapes."""
    model, batch = regression()
    optimizer = optimizer_on(model, part)
    optimizer.step(batch)
    other = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    solver = CG(max_iters=6, warm_start=0, preconditioner=part)
    loaded = bdhf.BlockHessianFree(other, F.mse_loss, solver=solver)
    loaded.load_state_dict(optimizer.state_dict())

    with pytest.raises(ModelError, match=naming("'0.weight'", "(8, 6)", "(5, 6)")):
        loaded.step(batch)


@parts
def test_a_block_that_is_not_finite_stays_alone(part):
    """Other blocks have the answers that they have without it, over three updates."""
    sizes = (9, 9, 5)
    matrices = [positive(n, seed) for seed, n in enumerate(sizes)]
    poisoned = [matrices[0], torch.full((9, 9), math.nan).double(), matrices[2]]
    cg = CG(max_iters=4, tol=0, preconditioner=part)
    memory, other = None, None
    for update in range(3):
        rhs = [torch.linspace(-1, 1 + update, n, dtype=torch.float64) for n in sizes]
        clean = cg.solve(seeded(matrices, rhs, 0.1, memory=memory, updates=update))
        torn = cg.solve(seeded(poisoned, rhs, 0.1, memory=other, updates=update))
        memory = memory if clean.memory is None else clean.memory
        other = other if torn.memory is None else torn.memory

    assert torn.stop[1] == Stop.NONFINITE
    assert other.isfinite().all()
    assert not torn.x[9:18].any()
    assert_close(torn.x[:9], clean.x[:9])
    assert_close(torn.x[18:], clean.x[18:])


@parts
def test_the_answer_does_not_depend_on_how_often_flags_are_read(part):
    """Bit for bit, over three updates, with rows that stop at different times."""
    sizes = (4, 9, 30)
    matrices = [positive(n, seed, 10.0 ** (seed + 1)) for seed, n in enumerate(sizes)]

    def answer(every):
        cg = CG(max_iters=60, tol=0, residual_tol=1e-6, preconditioner=part, check_every=every)
        memory = None
        for update in range(3):
            rhs = [torch.linspace(-1, 1 + update, n, dtype=torch.float64) for n in sizes]
            solution = cg.solve(seeded(matrices, rhs, 0.1, memory=memory, updates=update))
            memory = memory if solution.memory is None else solution.memory
        return solution

    often, seldom = answer(1), answer(7)

    assert often.iterations == seldom.iterations
    assert torch.equal(often.x, seldom.x)


@parts
def test_training_in_low_precision_goes_on(part):
    """Decompositions have float32 where the model has bfloat16."""
    model, batch = regression()
    model.bfloat16()
    optimizer = optimizer_on(model, part, check=False)

    infos = [optimizer.step(tuple(t.bfloat16() for t in batch)) for _ in range(3)]

    assert infos[-1].loss < infos[0].loss
    assert {entry["memory"].dtype for entry in optimizer.state.values()} == {torch.bfloat16}


@parts
@pytest.mark.parametrize("partition", [bdhf.Full(), bdhf.PerLayer(), bdhf.PerNeuron()])
def test_the_estimate_of_an_update_has_all_of_its_cost(partition, part):
    """Decompositions and M⁻¹ r count: the dearest of three updates takes over half of it."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 5))
    batch = torch.randn(64, 20), torch.randn(64, 5)
    solver = CG(max_iters=10, tol=0, preconditioner=part)
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, partition=partition, solver=solver)
    bound = estimate(optimizer, tuple(t[:8] for t in batch), gradient_batch=64)

    costs = [optimizer.step(batch).gradient_equivalents for _ in range(3)]

    assert 0.5 * bound < max(costs) < 1.05 * bound
