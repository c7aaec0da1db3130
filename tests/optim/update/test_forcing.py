"""Forcing terms over updates: norms of every block, carried in the state of the optimizer."""

import copy
import math
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CG, Forcing, ModelError, RelativeResidual, Stop
from tests.cases import build
from tests.messages import naming
from tests.optim.optimizers import optimizer_of, regression
from tests.oracles import dense_gradient

SOLVER = CG(60, stop=Forcing())


def trained(updates, partition=None, solver=SOLVER):
    """A model, its batch, and an optimizer with forcing terms after some updates."""
    model, batch = regression()
    partition = partition or bdhf.PerLayer()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, partition=partition, solver=solver)
    for _ in range(updates):
        optimizer.step(batch)
    return model, batch, optimizer


def numbers(optimizer):
    """‖g‖ and η of every block at the last update, (rows, 2); None if there are none."""
    return optimizer.state[optimizer.objective.parameters[0]].get("stopping")


def parameters_equal(model, other):
    """Whether two models have the same bits."""
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(p, q) for p, q in pairs)


@pytest.mark.parametrize("case", ["mlp", "classifier"])
@pytest.mark.parametrize("partition", ["full", "per_layer", "per_neuron", "random"])
def test_every_block_has_the_norm_of_its_own_gradient(case, partition):
    """The state has ‖g_b‖ of every block b of the dense gradient, and η = initial at first."""
    case = build(case)
    optimizer = optimizer_of(case, partition, solver=CG(stop=Forcing(0.3)))
    gradient = optimizer.blocks.gather(dense_gradient(case))

    optimizer.step(case.batch)

    norms = [gradient[block.start : block.stop].norm() for block in optimizer.blocks.rows]
    assert_close(numbers(optimizer)[:, 0], torch.stack(norms))
    assert numbers(optimizer)[:, 1].tolist() == [0.3] * len(norms)


@pytest.mark.parametrize("warm_start", [0.0, 0.5])
def test_on_a_quadratic_loss_eta_bounds_the_next_gradient(warm_start):
    """Undamped with lr = 1, g_{k+1} is the residual of solve k: ‖g_{k+1}‖ ≤ η_k ‖g_k‖."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(50, 8 + 2, generator=generator, dtype=torch.float64).split([8, 2], dim=1)
    optimizer = bdhf.BlockHessianFree(
        nn.Linear(8, 2).double(), F.mse_loss, partition=bdhf.Full(), lr=1.0,
        damping=bdhf.Constant(0.0), solver=CG(200, warm_start=warm_start, stop=Forcing()),
    )  # fmt: skip

    norms, etas = [], []
    for _ in range(4):
        norms.append(optimizer.step((x, y)).grad_norm)
        etas.append(float(numbers(optimizer)[0, 1]))

    assert etas[0] == 0.5
    for k in range(3):
        assert norms[k + 1] <= (1 + 1e-9) * etas[k] * norms[k]
        eta, floor = 0.9 * (norms[k + 1] / norms[k]) ** 2, 0.9 * etas[k] ** 2
        assert etas[k + 1] == pytest.approx(max(eta, floor) if floor > 0.1 else eta)


def test_state_dict_continues_bit_exactly(tmp_path):
    """Saved, loaded into a new optimizer and continued, η and parameters stay the same bits."""
    model, batch, optimizer = trained(3)
    twin = copy.deepcopy(model)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    resumed = bdhf.BlockHessianFree(twin, F.mse_loss, solver=SOLVER)

    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    infos = [(optimizer.step(batch), resumed.step(batch)) for _ in range(3)]

    assert all(info == other for info, other in infos)
    assert torch.equal(numbers(optimizer), numbers(resumed))
    assert parameters_equal(model, twin)


def test_float64_dots_continue_bit_exactly():
    """A state is loaded in the precision of the parameters, so η is kept in it."""
    solver = CG(60, float64_dots=True, stop=Forcing())
    model, batch, optimizer = trained(3, solver=solver)
    twin = copy.deepcopy(model)
    resumed = bdhf.BlockHessianFree(twin, F.mse_loss, solver=solver)

    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    infos = [(optimizer.step(batch), resumed.step(batch)) for _ in range(3)]

    assert numbers(optimizer).dtype == torch.float32
    assert all(info == other for info, other in infos)
    assert parameters_equal(model, twin)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_continues_like_the_original(copied):
    """A model copied together with its optimizer trains on with the same η."""
    model, batch, optimizer = trained(2)

    twin, other = copied((model, optimizer))
    infos = [(optimizer.step(batch), other.step(batch)) for _ in range(2)]

    assert all(info == two for info, two in infos)
    assert numbers(optimizer) is not numbers(other)
    assert torch.equal(numbers(optimizer), numbers(other))
    assert parameters_equal(model, twin)


def test_eta_is_part_of_the_iteration():
    """A fresh optimizer at the same point has another η than one that knows the last gradient."""
    model, batch, optimizer = trained(3)
    fresh = bdhf.BlockHessianFree(copy.deepcopy(model), F.mse_loss, solver=SOLVER)

    optimizer.step(batch)
    fresh.step(batch)

    assert torch.equal(numbers(optimizer)[:, 0], numbers(fresh)[:, 0])
    assert not torch.equal(numbers(optimizer)[:, 1], numbers(fresh)[:, 1])


def test_a_failed_update_leaves_eta_as_it_was():
    """After an exception in a product the state has the numbers of the last update."""
    _, batch, optimizer = trained(2)
    before = numbers(optimizer).clone()

    def planted():
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        optimizer.step(batch, watch=planted)

    assert torch.equal(numbers(optimizer), before)


def test_eta_starts_again_after_an_update_without_a_model():
    """The update after a batch with NaN is that of a fresh optimizer."""
    model, (x, y), optimizer = trained(2)
    optimizer.step((x, math.nan * y))
    fresh = bdhf.BlockHessianFree(copy.deepcopy(model), F.mse_loss, solver=SOLVER)

    assert optimizer.step((x, y)) == fresh.step((x, y))
    assert numbers(optimizer)[:, 1].tolist() == [0.5, 0.5]


def test_another_solver_drops_the_numbers():
    """The state of an update without forcing terms has none, so that no old norm is used later."""
    _, batch, optimizer = trained(2)

    optimizer.solver = CG(stop=RelativeResidual(0.1))
    optimizer.step(batch)

    assert numbers(optimizer) is None


@dataclass(frozen=True)
class Counting:
    """A user's rule: as many iterations as updates so far."""

    reason: Stop = Stop.CONVERGED

    def begin(self, history, last):
        return torch.ones_like(history.rhs)[:, None] if last is None else last + 1

    def done(self, history, numbers):
        return numbers[:, 0] <= len(history.models) - 1


def test_a_rule_of_a_user_keeps_its_own_numbers():
    """`begin` gets what it returned at the last update, in any number per block."""
    _, batch, optimizer = trained(0, solver=CG(60, stop=Counting()))

    infos = [optimizer.step(batch) for _ in range(3)]

    assert [info.cg_iterations for info in infos] == [(1, 1), (2, 2), (3, 3)]
    assert {info.stop for info in infos} == {(Stop.CONVERGED,) * 2}


def test_the_state_of_other_blocks_is_refused():
    """Neurons and layers have the same param_groups, and other numbers; nothing moves."""
    state = trained(2)[2].state_dict()
    model, batch, optimizer = trained(0, partition=bdhf.PerNeuron())
    optimizer.load_state_dict(state)
    before = copy.deepcopy(model)

    with pytest.raises(ModelError, match=naming("Forcing", "(10, 2)", "(2, 2)")):
        optimizer.step(batch)

    assert parameters_equal(model, before)


def test_a_model_in_another_precision_continues_in_it():
    """Numbers that were kept in bfloat16 serve an update in float64."""
    model, batch = regression()
    model.bfloat16()
    optimizer = bdhf.BlockHessianFree(model, F.mse_loss, check=False, solver=SOLVER)
    optimizer.step(tuple(part.bfloat16() for part in batch))
    assert numbers(optimizer).dtype == torch.bfloat16
    model.double()

    optimizer.step(tuple(part.double() for part in batch))

    assert numbers(optimizer).dtype == torch.float64
    assert (numbers(optimizer)[:, 1] <= 0.9).all()


def test_training_takes_few_iterations_at_first_and_more_later():
    """While the gradient is large few iterations are enough for a loss that falls by half."""
    plain, forced = trained(0, solver=CG(60, tol=0)), trained(0)

    before, after = ([run[2].step(run[1]) for _ in range(12)] for run in (plain, forced))

    assert max(after[0].cg_iterations) < 10
    assert sum(after[0].cg_iterations) < sum(after[-1].cg_iterations)
    assert sum(info.products for info in after) < sum(info.products for info in before)
    assert after[-1].loss < 0.5 * after[0].loss
