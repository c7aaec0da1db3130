"""All forward passes of an update are of one function, by kernels that products can go through."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

import bdhf
from bdhf.optim import ModelError
from bdhf.optim.forward.objective import Objective
from tests.cases import Case
from tests.oracles import dense_ggn, dense_gradient, dense_hessian

CURVATURES = {"ggn": (bdhf.GGN(), dense_ggn), "hessian": (bdhf.Hessian(), dense_hessian)}


class Residual(nn.Module):
    """The derivatives of a network in its inputs, of an order, as in physics."""

    def __init__(self, order):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(1, 5), nn.Tanh(), nn.Linear(5, 1))
        self.order = order

    def forward(self, x):
        x = x.detach().requires_grad_()
        u = self.net(x)
        for _ in range(self.order):
            (u,) = torch.autograd.grad(u.sum(), x, create_graph=True)
        return u


class ByTransform(Residual):
    """The same by torch.func, sample by sample."""

    def forward(self, x):
        def scalar(point):
            return self.net(point)[0]

        for _ in range(self.order):
            scalar = _slope(scalar)
        return torch.func.vmap(scalar)(x)[:, None]


def _slope(function):
    return lambda point: torch.func.grad(function)(point)[0]


class Asks(nn.Module):
    """A forward pass that branches where gradients are off, as torch's fast paths do."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, x):
        return self.layer(x) if torch.is_grad_enabled() else torch.zeros_like(x)


def physical(build):
    """A model and its batch, in float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        x = torch.randn(12, 1, dtype=torch.float64)
        return Case(build().double(), F.mse_loss, (x, torch.sin(x)))


PHYSICAL = {
    "first derivative": lambda: Residual(1),
    "second derivative": lambda: Residual(2),
    "by torch.func": lambda: ByTransform(1),
    "asks for gradients": Asks,
}


@pytest.mark.parametrize("acceptance", [bdhf.FullStep(), bdhf.Backtracking()], ids=["full", "back"])
@pytest.mark.parametrize("name", PHYSICAL)
def test_a_model_that_needs_gradients_in_its_forward_is_updated_as_any_other(name, acceptance):
    """The check passes, the step solves the damped system, and its loss is of the same function."""
    case = physical(PHYSICAL[name])
    parameters = list(case.model.parameters())
    theta = torch.cat([p.detach().reshape(-1) for p in parameters])
    damped = dense_ggn(case) + torch.eye(len(theta), dtype=theta.dtype)
    direction = -torch.linalg.solve(damped, dense_gradient(case))
    optimizer = bdhf.BlockHessianFree(
        case.model, case.loss_fn, partition=bdhf.Full(), damping=bdhf.Constant(1.0), lr=0.5,
        solver=bdhf.CG(max_iters=60, tol=0.0, residual_tol=1e-12), acceptance=acceptance,
    )  # fmt: skip

    info = optimizer.step(case.batch)

    moved = torch.cat([p.detach().reshape(-1) for p in parameters]) - theta
    torch.testing.assert_close(moved, info.step_size[0] * direction, rtol=1e-6, atol=1e-9)
    assert 0.5 < info.reduction_ratio < 1.5


def test_a_loss_needs_its_graph_only_where_the_forward_does():
    """It is found out once for a shape, and leaves the caller's random state alone."""
    kept = {name: physical(build) for name, build in PHYSICAL.items()}
    kept["plain"] = physical(lambda: nn.Sequential(nn.Linear(1, 4), nn.Tanh(), nn.Linear(4, 1)))
    state = torch.get_rng_state()
    decided = {}
    for name, case in kept.items():
        objective = Objective.of(case.model, case.loss_fn)
        with torch.no_grad():
            loss = objective.loss((case.batch,))
        assert not loss.requires_grad
        decided[name] = list(objective.passes.graphless.values())

    needs_none = {"plain", "by torch.func"}
    assert decided == {name: [name in needs_none] for name in kept}
    assert torch.equal(torch.get_rng_state(), state)


class Curriculum(Residual):
    """A network that is fitted to values first and to derivatives later, by its own setting."""

    def __init__(self, later):
        super().__init__(0)
        self.physics, self.later = False, later

    def begin(self):
        """What differs later: a flag of the module, or a number without a flag."""
        if self.later == "flag":
            self.physics = True
        else:
            self.order = 1

    def forward(self, x):
        if self.physics:
            return self.net(x) if torch.is_grad_enabled() else torch.zeros_like(x)
        return super().forward(x)


@pytest.mark.parametrize("later", ["flag", "number"])
def test_a_forward_that_comes_to_need_gradients_is_looked_at_again(later):
    """A model that is trained without them first continues, with losses of the same function."""
    case = physical(lambda: Curriculum(later))
    optimizer = bdhf.BlockHessianFree(
        case.model, case.loss_fn, partition=bdhf.Full(), damping=bdhf.Constant(1.0), lr=0.1
    )
    optimizer.step(case.batch)
    case.model.begin()

    info = optimizer.step(case.batch)

    assert info.reduction_ratio == pytest.approx(1.0, abs=0.1)


class Encoder(nn.Module):
    """Torch's encoder, with a fast path that zeroes masked positions, and the mean over tokens."""

    def __init__(self, dropout=0.1):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=dropout, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 1), nn.Linear(8, 2)

    def forward(self, batch):
        tokens, masked = batch
        return self.head(self.encoder(tokens, src_key_padding_mask=masked).mean(1))


def masked():
    """An encoder in eval mode, and a batch with two padded tokens of five."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Encoder().eval()
        mask = torch.zeros(6, 5, dtype=torch.bool)
        mask[:, 3:] = True
        return model, ((torch.randn(6, 5, 8), mask), torch.randint(0, 2, (6,)))


def test_losses_of_steps_are_of_the_function_that_was_differentiated():
    """With padding, a small step changes the loss as its model predicts."""
    model, batch = masked()
    optimizer = bdhf.BlockHessianFree(
        model, F.cross_entropy, damping=bdhf.Constant(1.0), partition=bdhf.Full(), lr=0.1
    )

    info = optimizer.step(batch)

    assert info.reduction_ratio == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("fast", [True, False])
def test_kernels_are_afterwards_as_the_caller_had_them(fast):
    """The fast path and fused attention, also where an update raises."""
    model, batch = masked()
    optimizer = bdhf.BlockHessianFree(model, F.cross_entropy, check=False)
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(fast)
    flash = torch.backends.cuda.flash_sdp_enabled()
    seen = []

    def stop():
        seen.append(torch.backends.mha.get_fastpath_enabled())
        raise KeyboardInterrupt

    try:
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(batch, watch=stop)
        assert torch.backends.mha.get_fastpath_enabled() is fast
        assert torch.backends.cuda.flash_sdp_enabled() == flash
        assert seen == [False]
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class Recomputed(nn.Module):
    """Attention, a recurrent layer or a perceptron that the backward pass computes again."""

    def __init__(self, part, reentrant=None):
        super().__init__()
        self.first, self.part, self.last = nn.Linear(4, 4), part(), nn.Linear(4, 2)
        self.reentrant = reentrant

    def forward(self, x):
        hidden = self.first(x)
        if self.reentrant is None:
            hidden = self.part(hidden)
        else:
            hidden = checkpoint(self.part, hidden, use_reentrant=self.reentrant)
        return self.last(hidden).mean(1)


class Attends(nn.Module):
    """Attention of tokens to each other, by torch's function."""

    def __init__(self):
        super().__init__()
        self.project = nn.Linear(4, 12)

    def forward(self, x):
        return F.scaled_dot_product_attention(*self.project(x).chunk(3, dim=-1))


class Recurs(nn.Module):
    """The outputs of a recurrent layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        return self.layer(x)[0]


PARTS = {
    "attention": Attends,
    "module": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
    "recurrent": Recurs,
    "perceptron": lambda: nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)),
}


def recomputed(part, reentrant):
    """A model with a part in a checkpoint, and the same without, with equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Recomputed(PARTS[part], reentrant).double()
        plain = Recomputed(PARTS[part]).double()
        plain.load_state_dict(model.state_dict())
        batch = torch.randn(5, 3, 4, dtype=torch.float64), torch.randint(0, 2, (5,))
    return model, plain, batch


@pytest.mark.parametrize("method", ["auto", "propagate"])
@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("part", PARTS)
def test_a_checkpointed_part_has_the_products_of_the_part(part, curvature, method):
    """It is recomputed by the same kernels."""
    model, plain, batch = recomputed(part, reentrant=False)
    chosen = CURVATURES[curvature][0]

    def product(of):
        G = bdhf.block_curvature(
            of, F.cross_entropy, batch, curvature=chosen, partition=bdhf.PerLayer(), method=method
        )
        draws = torch.Generator().manual_seed(1)
        return G @ torch.randn(G.shape[0], generator=draws, dtype=torch.float64)

    torch.testing.assert_close(product(model), product(plain), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("part", PARTS)
def test_an_update_of_a_checkpointed_model_is_that_of_the_model(part):
    """Check, gradient, products and losses."""
    model, plain, batch = recomputed(part, reentrant=False)
    losses = [
        bdhf.BlockHessianFree(of, F.cross_entropy, damping=bdhf.Constant(1.0)).step(batch)
        for of in (model, plain)
    ]

    assert losses[0].loss == pytest.approx(losses[1].loss, rel=1e-10)
    for a, b in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_a_reentrant_checkpoint_is_refused_with_the_way_out(curvature):
    """Its parameters are in no graph, so that their gradients would be 0."""
    model, _, batch = recomputed("perceptron", reentrant=True)

    with pytest.raises(ModelError, match="use_reentrant=False"):
        bdhf.block_curvature(model, F.cross_entropy, batch, curvature=CURVATURES[curvature][0])
