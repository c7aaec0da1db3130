"""Losses that are linear in the outputs: log-probabilities have curvature, others get a warning."""

import copy
import warnings
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import CurvatureWarning, ModelError
from bdhf.optim.curvature.output import expand_loss
from bdhf.optim.losses import recognise
from tests.messages import naming

N, C, T = 6, 4, 3
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 0.0], dtype=torch.float64)

pytestmark = pytest.mark.filterwarnings("ignore:reduction. 'mean' divides the total loss")


class Pixels(nn.Module):
    """Logits of every position, (N, 4) -> (N, C, T)."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, C * T))

    def forward(self, x):
        return self.inner(x).view(-1, C, T)


def logits(positions):
    """A network of logits, and inputs for it."""
    torch.manual_seed(0)
    model = Pixels() if positions else nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, C))
    return model.double(), torch.randn(N, 4, dtype=torch.float64)


def labels(*shape):
    """Class indices; the first label is the one that some losses ignore."""
    y = torch.randint(0, C, shape, generator=torch.Generator().manual_seed(1))
    y.view(-1)[0] = 2
    return y


def soft(*shape):
    """Class probabilities along dimension 1."""
    draws = torch.Generator().manual_seed(2)
    return torch.randn(shape, dtype=torch.float64, generator=draws).softmax(1)


def divergence(z, t, log_target=False, reduction="batchmean"):
    """`F.kl_div`, as a function of logits."""
    return F.kl_div(z.log_softmax(1), t, log_target=log_target, reduction=reduction)


#: name -> (loss of log-probabilities, the same of logits, targets).
LOSSES = {
    "nll": (F.nll_loss, F.cross_entropy, labels(N)),
    "nll_sum": (
        partial(F.nll_loss, reduction="sum"), partial(F.cross_entropy, reduction="sum"), labels(N),
    ),
    "nll_module": (nn.NLLLoss(), nn.CrossEntropyLoss(), labels(N)),
    "nll_bytes": (F.nll_loss, F.cross_entropy, labels(N).to(torch.uint8)),
    "nll_weighted": (
        nn.NLLLoss(weight=CLASS_WEIGHTS), nn.CrossEntropyLoss(weight=CLASS_WEIGHTS), labels(N),
    ),
    "nll_ignored": (
        partial(F.nll_loss, ignore_index=2), partial(F.cross_entropy, ignore_index=2), labels(N),
    ),
    "nll_positions": (
        nn.NLLLoss(weight=CLASS_WEIGHTS, ignore_index=2),
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS, ignore_index=2), labels(N, T),
    ),
    "kl_batchmean": (partial(F.kl_div, reduction="batchmean"), F.cross_entropy, soft(N, C)),
    "kl_mean": (nn.KLDivLoss(), partial(divergence, reduction="mean"), soft(N, C)),
    "kl_sum": (
        nn.KLDivLoss(reduction="sum"), partial(F.cross_entropy, reduction="sum"), soft(N, C),
    ),
    "kl_log": (
        nn.KLDivLoss(reduction="batchmean", log_target=True),
        partial(divergence, log_target=True), soft(N, C).log(),
    ),
    "kl_unnormalised": (partial(F.kl_div, reduction="batchmean"), F.cross_entropy, 3 * soft(N, C)),
    "kl_positions": (nn.KLDivLoss(reduction="batchmean"), divergence, soft(N, C, T)),
}  # fmt: skip
PLAIN = ["nll", "nll_sum", "nll_module", "nll_bytes", "nll_ignored"]


def pair(name):
    """Model, loss and batch of the log-probabilities, then of the logits."""
    loss_fn, reference, targets = LOSSES[name]
    model, x = logits(targets.dim() > 1 and targets.shape[-1] == T)
    ending = nn.Sequential(copy.deepcopy(model), nn.LogSoftmax(dim=1))
    return (ending, loss_fn, (x, targets)), (model, reference, (x, targets))


@pytest.mark.parametrize("method", ["propagate", "layer_io"])
@pytest.mark.parametrize("name", LOSSES)
def test_the_ggn_is_that_of_the_logits(name, method):
    """Log-probabilities have the GGN that autograd gives for the logits; so do their products."""
    own, (model, reference, batch) = pair(name)

    def by_autograd(z, y):  # a function of the user's is not recognised
        return reference(z, y)

    G = bdhf.block_curvature(*own, method=method)

    assert G.method == method
    expected = bdhf.block_curvature(model, by_autograd, batch).to_dense()
    assert expected.norm() > 1e-3
    assert_close(G.to_dense(), expected, rtol=1e-12, atol=1e-13)
    assert G.check().passed


@pytest.mark.parametrize(
    ("curvature", "names"),
    [(bdhf.Fisher(3), PLAIN), (bdhf.EmpiricalFisher(), list(LOSSES)[:7])],
    ids=["fisher", "empirical"],
)
@pytest.mark.parametrize("method", ["propagate", "layer_io"])
def test_fisher_matrices_are_those_of_the_logits(curvature, names, method):
    """Scores of log-probabilities and of logits are the same in the parameters."""
    for name in names:
        own, other = (
            bdhf.block_curvature(*arguments, curvature=curvature, method=method)
            for arguments in pair(name)
        )
        assert other.to_dense().norm() > 1e-3
        assert_close(own.to_dense(), other.to_dense(), rtol=1e-10, atol=1e-12)


SOLVERS = {
    "cg": bdhf.CG(),
    "preconditioned": bdhf.CG(preconditioner=bdhf.Martens()),
    "cholesky": bdhf.Cholesky(),
    "sample_space": bdhf.SampleSpace(),
    "saddle_free": bdhf.SaddleFree(),
}


@pytest.mark.parametrize("solver", SOLVERS)
def test_steps_are_those_of_the_logits(solver):
    """Torch's own MNIST example, LogSoftmax and nll_loss, trains as cross_entropy does."""
    losses = []
    for model, loss_fn, batch in pair("nll"):
        optimizer = bdhf.BlockHessianFree(
            model, loss_fn, solver=SOLVERS[solver], damping=bdhf.Constant(0.1)
        )
        losses.append([optimizer.step(batch).loss for _ in range(6)])

    assert losses[0][-1] < 0.6 * losses[0][0]
    assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["nll_weighted", "nll_ignored", "kl_batchmean", "kl_mean"])
def test_micro_batches_add_up(name):
    """Shares are by the terms of the loss."""
    model, loss_fn, (x, y) = pair(name)[0]

    whole = bdhf.block_curvature(model, loss_fn, (x, y))
    parts = bdhf.block_curvature(model, loss_fn, [(x[:2], y[:2]), (x[2:], y[2:])])

    assert_close(parts.to_dense(), whole.to_dense(), rtol=1e-10, atol=1e-12)
    assert_close(parts._product.gradient, whole._product.gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_probabilities_are_distinguished_from_other_outputs(dtype):
    """Within rounding they are; a shift of one per cent in one row is none."""
    z = (20 * torch.randn(N, C)).to(dtype).log_softmax(1)
    shifted = z.clone()
    shifted[2] += 0.01
    nll = recognise(F.nll_loss)

    assert nll.hessian(z, labels(N)) is not None
    assert nll.hessian(shifted, labels(N)) is None
    assert nll.hessian(shifted, labels(N).index_fill(0, torch.tensor(2), -100)) is not None


def test_divergence_takes_the_dimension_that_is_normalised():
    """kl_div names no class dimension: a transformer's is the last."""
    z = torch.randn(N, T, C, dtype=torch.float64)
    t = soft(N, C, T).transpose(1, 2)
    loss_fn = nn.KLDivLoss(reduction="sum")
    w = torch.randn(N, T, C, dtype=torch.float64)

    h = expand_loss(loss_fn, z.log_softmax(-1), t).hessian

    p = z.softmax(-1)
    assert_close(h(w), p * w - p * (p * w).sum(-1, keepdim=True), rtol=1e-12, atol=1e-14)


def test_outputs_that_are_no_log_probabilities_draw_no_labels():
    """A Fisher matrix needs a likelihood."""
    (_, _, batch), (model, _, _) = pair("nll")

    with pytest.raises(ModelError, match=naming("nll_loss", "LogSoftmax", "cross_entropy")):
        bdhf.block_curvature(model, F.nll_loss, batch, curvature=bdhf.Fisher())
    with pytest.raises(ModelError, match=naming("kl_div", "GGN", "nll_loss")):
        bdhf.block_curvature(*pair("kl_sum")[0], curvature=bdhf.Fisher())


def hinge(z, y):
    """Crammer and Singer's, as nn.MultiMarginLoss has it, by differentiable operators."""
    margins = 1 + z - z.gather(1, y[:, None])
    return (margins.relu().sum(1) - 1).mean()


#: name -> (loss that is linear in the outputs, or piecewise so, targets).
FLAT = {
    "l1": (F.l1_loss, soft(N, C)),
    "nll_of_logits": (F.nll_loss, labels(N)),
    "kl_of_logits": (nn.KLDivLoss(reduction="batchmean"), soft(N, C)),
    "hinge": (hinge, labels(N)),
    "linear": (lambda z, y: (z * y).sum(), soft(N, C)),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_curvature_of_zero_is_reported(name):
    """Once, before the first update, and by the self-check: steps would be g/λ."""
    model, x = logits(positions=False)
    loss_fn, targets = FLAT[name]
    G = bdhf.block_curvature(model, loss_fn, (x, targets))
    optimizer = bdhf.BlockHessianFree(model, loss_fn, damping=bdhf.Constant(10.0))

    with pytest.warns(CurvatureWarning, match=naming(0, "l1_loss", "damping")):
        assert G.check().passed
    assert not G.to_dense().any()
    with pytest.warns(CurvatureWarning, match=naming("damping")):
        optimizer.step((x, targets))
    optimizer.step((x, targets))  # no warning, which would be an error here


def test_a_hessian_of_zero_is_reported_too():
    """A linear loss of a linear model has no curvature at all; of a network it has."""
    model, x = logits(positions=False)
    line = nn.Linear(4, C).double()

    with pytest.warns(CurvatureWarning, match=r"^(?![\s\S]*\bl1_loss)" + naming(0, "damping")):
        bdhf.block_curvature(line, F.l1_loss, (x, soft(N, C)), curvature=bdhf.Hessian()).check()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = bdhf.block_curvature(model, F.l1_loss, (x, soft(N, C)), curvature=bdhf.Hessian())
        assert made.check().passed


@pytest.mark.parametrize(
    "loss_fn", [F.mse_loss, F.smooth_l1_loss, F.huber_loss, lambda z, y: (z - y).pow(4).sum()]
)
def test_a_loss_with_curvature_is_not_warned_of(loss_fn):
    """Nor is one at its minimum, where there is nothing to step along."""
    model, x = logits(positions=False)
    at_minimum = model(x).detach()

    for targets in (soft(N, C), at_minimum):
        assert bdhf.block_curvature(model, loss_fn, (x, targets)).check().passed


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_binary_cross_entropy_of_probabilities_is_convex_in_them(reduction):
    """H = y/p² + (1-y)/(1-p)², by differentiation: a GGN that is right and semi-definite."""
    model, x = logits(positions=False)
    model = nn.Sequential(model, nn.Sigmoid())
    y = (soft(N, C) > 0.25).double()
    loss_fn = nn.BCELoss(reduction=reduction)
    p = model(x)
    rows = [
        torch.cat([g.reshape(-1) for g in torch.autograd.grad(out, [*model.parameters()],
                                                             retain_graph=True)])
        for out in p.reshape(-1)
    ]  # fmt: skip
    jacobian, p = torch.stack(rows), p.detach()
    h = (y / p.square() + (1 - y) / (1 - p).square()) / (p.numel() if reduction == "mean" else 1)

    G = bdhf.block_curvature(model, loss_fn, (x, y)).to_dense()

    assert_close(G, jacobian.T @ (h.reshape(-1, 1) * jacobian), rtol=1e-8, atol=1e-10)
    assert torch.linalg.eigvalsh(G).min() > -1e-10 * G.norm()
