"""Matrices that must be equal although they are computed in different ways."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case, build
from tests.optim.curvatures import CURVATURES
from tests.optim.partitions import PARTITIONS
from tests.oracles import cut, dense_gradient, flat_parameters

EXACT = bdhf.CG(max_iters=5000, tol=0, residual_tol=1e-13)
DRAWS = 600
bce = F.binary_cross_entropy_with_logits


def matrix(case, curvature, partition=bdhf.Full(), seed=0):  # noqa: B008 - parts are frozen
    """The dense matrix of a curvature on a case."""
    return bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, curvature=curvature, partition=partition, seed=seed
    ).to_dense()


def network(outputs, inputs=2, samples=4):
    """A small net, and inputs for it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(inputs, 3), nn.Tanh(), nn.Linear(3, outputs)).double()
        return model, torch.randn(samples, inputs, dtype=torch.float64)


def regression_case(reduction):
    """Squared error of two outputs."""
    model, x = network(2)
    return Case(model, partial(F.mse_loss, reduction=reduction), (x, x.flip(0).square()))


def coin_case(reduction):
    """Binary cross-entropy of two outputs."""
    model, x = network(2)
    return Case(model, partial(bce, reduction=reduction), (x, x.sigmoid()))


def label_case(reduction, **options):
    """Cross-entropy of three classes; sample 0 has class 2, and sample 1 class 1."""
    model, x = network(3)
    loss_fn = partial(F.cross_entropy, reduction=reduction, **options)
    return Case(model, loss_fn, (x, torch.tensor([2, 1, 0, 2])))


def unlabelled_case(reduction):
    """Cross-entropy where two of four labels do not count."""
    case = label_case(reduction)
    return Case(case.model, case.loss_fn, (case.batch[0], torch.tensor([2, -100, 0, -100])))


def sequence_case(reduction):
    """Cross-entropy at three positions of every sample, one of which does not count."""
    model, x = network(9)
    model.append(nn.Unflatten(1, (3, 3)))
    y = torch.tensor([[0, 1, 2], [2, 2, -100], [1, 0, 0], [1, 1, 2]])
    return Case(model, partial(F.cross_entropy, reduction=reduction), (x, y))


LIKELIHOODS = {
    "squared_error": regression_case,
    "coins": coin_case,
    "labels": label_case,
    "labels_some_ignored": unlabelled_case,
    "labels_one_class_ignored": partial(label_case, ignore_index=1),
    "labels_of_sequences": sequence_case,
}
likelihoods = pytest.mark.parametrize("likelihood", LIKELIHOODS)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def spread(case, curvature=bdhf.Fisher(), seeds=30):  # noqa: B008 - parts are frozen
    """Mean of a curvature over seeds, and the root of the mean squared deviation from it."""
    drawn = torch.stack([matrix(case, curvature, seed=seed) for seed in range(seeds)])
    deviation = (drawn - drawn.mean(0)).square().sum((1, 2)).sum() / (seeds - 1)
    return drawn.mean(0), float(deviation.sqrt())


@likelihoods
@reductions
def test_fisher_is_the_ggn_in_expectation(likelihood, reduction):
    """K draws come as near to the GGN as K independent draws do: within 3 σ / √K."""
    case = LIKELIHOODS[likelihood](reduction)
    ggn = matrix(case, bdhf.GGN())
    bound = 3 * spread(case)[1] / DRAWS**0.5

    fisher = matrix(case, bdhf.Fisher(samples=DRAWS), seed=100)

    assert float((fisher - ggn).norm()) < bound
    assert bound < 0.4 * float(ggn.norm())


@likelihoods
@reductions
def test_fisher_has_the_scale_of_the_ggn(likelihood, reduction):
    """The ratio of the traces is 1 within the noise of the draws: no factor N, C or 2 is lost."""
    case = LIKELIHOODS[likelihood](reduction)

    ratio = matrix(case, bdhf.Fisher(samples=DRAWS)).trace() / matrix(case, bdhf.GGN()).trace()

    assert float(ratio) == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("likelihood", ["squared_error", "labels"])
def test_more_draws_have_less_noise_at_the_monte_carlo_rate(likelihood):
    """Nine times the draws have a third of the deviation, and all the seeds one mean: the GGN."""
    case = LIKELIHOODS[likelihood]("mean")
    ggn = matrix(case, bdhf.GGN())

    few, few_noise = spread(case, bdhf.Fisher(samples=2), seeds=60)
    many, many_noise = spread(case, bdhf.Fisher(samples=18), seeds=60)

    assert few_noise / many_noise == pytest.approx(3.0, rel=0.25)
    assert float((few - ggn).norm()) < 3 * few_noise / 60**0.5
    assert float((many - ggn).norm()) < 3 * many_noise / 60**0.5


@pytest.mark.parametrize("likelihood", LIKELIHOODS)
def test_fisher_is_one_matrix_within_a_linearisation(likelihood):
    """Two products and the dense matrix are of the same draws; another seed has others."""
    case = LIKELIHOODS[likelihood]("mean")
    v = torch.randn(flat_parameters(case).shape, dtype=torch.float64)

    def linearised(seed):
        return bdhf.block_curvature(
            case.model, case.loss_fn, case.batch, curvature=bdhf.Fisher(samples=2), seed=seed
        )

    G, again, other = linearised(0), linearised(0), linearised(1)

    assert torch.equal(G @ v, G @ v)
    assert_close(G.to_dense() @ v, G @ v)
    assert torch.equal(again @ v, G @ v)
    assert not torch.allclose(other @ v, G @ v)


@pytest.mark.parametrize("draws", [0, -1])
def test_a_fisher_without_draws_is_refused(draws):
    """One draw a sample is the least."""
    with pytest.raises(ValueError, match="at least 1"):
        bdhf.Fisher(samples=draws)


def linear_case(loss, outputs):
    """A model that is linear in its parameters: fixed features, and a linear layer on them."""
    model, x = network(outputs, inputs=3, samples=6)
    model[0].requires_grad_(False)
    y = torch.arange(6) % outputs
    return Case(model, loss, (x, y if loss is F.cross_entropy else F.one_hot(y).double()))


@pytest.mark.parametrize("loss", [F.cross_entropy, F.mse_loss, bce])
@pytest.mark.parametrize("partition", PARTITIONS)
def test_hessian_is_the_ggn_where_the_model_is_linear(loss, partition):
    """Without second derivatives of the outputs the two are one matrix, block by block."""
    case = linear_case(loss, 3)
    made = PARTITIONS[partition](layout_of(case.model))

    assert_close(matrix(case, bdhf.Hessian(), made), matrix(case, bdhf.GGN(), made))


def test_hessian_is_not_the_ggn_where_the_model_is_not_linear():
    """The two differ by the curvature of the outputs."""
    case = build("classifier")

    assert not torch.allclose(matrix(case, bdhf.Hessian()), matrix(case, bdhf.GGN()), rtol=0.1)


def test_hessian_per_neuron_of_a_two_layer_net_is_that_of_each_neuron_alone():
    """A block is the Hessian of the loss as a function of one unit's weights and bias."""
    case = regression_case("mean")
    named = {name: p.detach() for name, p in case.model.named_parameters()}
    G = bdhf.block_curvature(
        case.model, case.loss_fn, case.batch, curvature=bdhf.Hessian(), partition=bdhf.PerNeuron()
    )
    dense = G.to_dense()
    units = [(layer, unit) for layer, width in (("0", 3), ("2", 2)) for unit in range(width)]

    for block, (layer, unit) in zip(G.blocks, units, strict=True):
        weight, bias = named[f"{layer}.weight"], named[f"{layer}.bias"]

        def loss(neuron, layer=layer, unit=unit, weight=weight, bias=bias):
            moved = {
                f"{layer}.weight": weight.index_put((torch.tensor(unit),), neuron[:-1]),
                f"{layer}.bias": bias.index_put((torch.tensor(unit),), neuron[-1]),
            }
            z = functional_call(case.model, named | moved, (case.batch[0],))
            return case.loss_fn(z, case.batch[1])

        own = torch.cat([weight[unit], bias[unit : unit + 1]])
        assert_close(dense[block[:, None], block], hessian(loss, own))
    assert_close(dense, cut(dense, G.blocks))


def least_squares(samples=12):
    """Linear least squares: the model, the batch, and its matrix (2 / NC) I ⊗ XᵀX."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Linear(3, 2, bias=False).double()
        x = torch.randn(samples, 3, dtype=torch.float64)
        y = torch.randn(samples, 2, dtype=torch.float64)
    return model, (x, y), torch.block_diag(x.T @ x, x.T @ x) * 2 / y.numel()


@pytest.mark.parametrize("partition", PARTITIONS)
def test_least_squares_has_its_closed_form_under_every_partition(partition):
    """Matrix and step are those of (2 / NC) I ⊗ XᵀX cut to the blocks."""
    model, batch, closed = least_squares()
    case = Case(model, F.mse_loss, batch)
    made = PARTITIONS[partition](layout_of(model))
    G = bdhf.block_curvature(model, F.mse_loss, batch, partition=made)
    alpha = getattr(made, "alpha", 0.0)
    inner = bdhf.block_curvature(
        model, F.mse_loss, batch, partition=getattr(made, "partition", made)
    ).blocks
    expected = alpha * closed + (1 - alpha) * cut(closed, inner)
    start, gradient = flat_parameters(case).clone(), dense_gradient(case)
    optimizer = bdhf.BlockHessianFree(
        model, F.mse_loss, partition=made, solver=EXACT, damping=bdhf.Constant(0.0), lr=1.0
    )

    dense = G.to_dense()
    optimizer.step(batch)

    assert_close(dense, expected)
    assert_close(flat_parameters(case) - start, torch.linalg.solve(expected, -gradient))


def test_neurons_of_a_linear_model_are_independent():
    """Under squared error one per-neuron step is the least-squares solution, as one full one is."""
    model, (x, y), _ = least_squares()
    optimizer = bdhf.BlockHessianFree(
        model,
        F.mse_loss,
        partition=bdhf.PerNeuron(),
        solver=EXACT,
        damping=bdhf.Constant(0.0),
        lr=1.0,
    )

    optimizer.step((x, y))

    assert_close(model.weight.detach(), torch.linalg.lstsq(x, y).solution.T)


@reductions
def test_empirical_fisher_vanishes_where_the_data_are_fitted(reduction):
    """Its scores are residuals: zero at a perfect fit, where Fisher and GGN are not."""
    case = regression_case(reduction)
    x, _ = case.batch
    fitted = Case(case.model, case.loss_fn, (x, case.model(x).detach()))

    assert not matrix(fitted, bdhf.EmpiricalFisher()).any()
    assert matrix(fitted, bdhf.Fisher()).norm() > 0.1
    assert_close(matrix(fitted, bdhf.GGN()), matrix(case, bdhf.GGN()))


@likelihoods
def test_empirical_fisher_is_not_the_fisher(likelihood):
    """Nor does it come near to what many draws come near to."""
    case = LIKELIHOODS[likelihood]("mean")
    fisher = matrix(case, bdhf.Fisher(samples=500))

    difference = matrix(case, bdhf.EmpiricalFisher()) - fisher

    assert difference.norm() > 0.3 * fisher.norm()


INNER = [name for name in PARTITIONS if name not in ("blend", "full")]


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("partition", INNER)
def test_a_blend_is_linear_between_its_partition_and_the_full_matrix(curvature, partition):
    """Alpha 0 is the matrix of the partition, alpha 1 the full one, and between it is a line."""
    case = label_case("mean")
    made, kind = PARTITIONS[partition](layout_of(case.model)), CURVATURES[curvature][0]
    apart, whole = matrix(case, kind, made), matrix(case, kind)

    for alpha in (0.0, 0.3, 1.0):
        blend = matrix(case, kind, bdhf.Blend(made, alpha=alpha))
        assert_close(blend, (1 - alpha) * apart + alpha * whole)


@pytest.mark.parametrize("partition", INNER)
@pytest.mark.parametrize("curvature", ["ggn", "fisher"])
def test_a_blend_of_alpha_0_steps_like_its_partition(partition, curvature):
    """Solved to the end, one system and separate systems of the same matrix have one solution."""
    steps = []
    for alone in (True, False):
        case = regression_case("mean")
        made = PARTITIONS[partition](layout_of(case.model))
        start = flat_parameters(case).clone()
        optimizer = bdhf.BlockHessianFree(
            case.model,
            case.loss_fn,
            curvature=CURVATURES[curvature][0],
            partition=made if alone else bdhf.Blend(made, alpha=0.0),
            solver=EXACT,
            damping=bdhf.Constant(0.05),
            lr=1.0,
        )
        optimizer.step(case.batch)
        steps.append(flat_parameters(case) - start)

    assert_close(steps[1], steps[0], rtol=0, atol=1e-9)
    assert steps[0].norm() > 0.01
