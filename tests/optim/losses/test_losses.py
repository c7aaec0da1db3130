"""Losses as functions of the outputs: terms, gradients, Hessians, roots, and drawn targets."""

import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim import ModelError
from bdhf.optim.curvature.output import expand_loss
from bdhf.optim.losses import is_mean, likelihood_of, recognise, weights
from bdhf.optim.losses.hessians import Diagonal, Differentiated, Outer, Scaled, Softmax
from tests.messages import naming

N, C, T = 5, 4, 3
CLASS_WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 3.0], dtype=torch.float64)
bce = F.binary_cross_entropy_with_logits


def drawn(*shape, seed=0):
    """Normal outputs or targets, in float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=generator)


def labels(*shape, ignored=None):
    """Class indices, optionally with two ignored ones."""
    y = torch.randint(0, C, shape, generator=torch.Generator().manual_seed(1))
    if ignored is not None:
        y.view(-1)[0], y.view(-1)[-1] = ignored, ignored
    return y


def soft(*shape):
    """Probabilities along dimension 1, or 0 where there is no other."""
    return drawn(*shape, seed=2).softmax(0 if len(shape) == 1 else 1)


def bits(*shape):
    """Targets in [0, 1], some of them at the ends."""
    return drawn(*shape, seed=3).sigmoid().round(decimals=1)


#: name -> (loss by keywords, outputs, targets): every option of `recognise`.
LOSSES = {
    "ce": (F.cross_entropy, {}, drawn(N, C), labels(N)),
    "ce_ignored": (F.cross_entropy, {"ignore_index": 2}, drawn(N, C), labels(N, ignored=2)),
    "ce_ignored_default": (F.cross_entropy, {}, drawn(N, C), labels(N, ignored=-100)),
    "ce_smoothed": (F.cross_entropy, {"label_smoothing": 0.2}, drawn(N, C), labels(N)),
    "ce_weighted": (F.cross_entropy, {"weight": CLASS_WEIGHTS}, drawn(N, C), labels(N)),
    "ce_everything": (
        F.cross_entropy,
        {"weight": CLASS_WEIGHTS, "label_smoothing": 0.3, "ignore_index": 1},
        drawn(N, C),
        labels(N, ignored=1),
    ),
    "ce_soft": (F.cross_entropy, {}, drawn(N, C), soft(N, C)),
    "ce_soft_everything": (
        F.cross_entropy,
        {"weight": CLASS_WEIGHTS, "label_smoothing": 0.3},
        drawn(N, C),
        soft(N, C),
    ),
    "ce_positions": (F.cross_entropy, {}, drawn(N, C, T), labels(N, T, ignored=-100)),
    "ce_positions_everything": (
        F.cross_entropy,
        {"weight": CLASS_WEIGHTS, "label_smoothing": 0.3, "ignore_index": 0},
        drawn(N, C, T),
        labels(N, T, ignored=0),
    ),
    "ce_pixels": (F.cross_entropy, {}, drawn(2, C, 2, 2), labels(2, 2, 2)),
    "ce_soft_positions": (
        F.cross_entropy,
        {"weight": CLASS_WEIGHTS, "label_smoothing": 0.1},
        drawn(N, C, T),
        soft(N, C, T),
    ),
    "ce_unbatched": (F.cross_entropy, {"label_smoothing": 0.1}, drawn(C), labels()),
    "ce_unbatched_soft": (F.cross_entropy, {"weight": CLASS_WEIGHTS}, drawn(C), soft(C)),
    "mse": (F.mse_loss, {}, drawn(N, C), drawn(N, C, seed=4)),
    "mse_vector": (F.mse_loss, {}, drawn(N), drawn(N, seed=4)),
    "mse_positions": (F.mse_loss, {}, drawn(N, C, T), drawn(N, C, T, seed=4)),
    "bce": (bce, {}, drawn(N, C), bits(N, C)),
    "bce_vector": (bce, {}, drawn(N), bits(N)),
    "bce_pos_weight": (bce, {"pos_weight": CLASS_WEIGHTS}, drawn(N, C), bits(N, C)),
    "bce_everything": (
        bce,
        {"weight": drawn(N, 1, seed=5).exp(), "pos_weight": CLASS_WEIGHTS},
        drawn(N, C),
        bits(N, C),
    ),
}
MODULES = {F.cross_entropy: nn.CrossEntropyLoss, F.mse_loss: nn.MSELoss, bce: nn.BCEWithLogitsLoss}

every_loss = pytest.mark.parametrize("name", LOSSES)
reductions = pytest.mark.parametrize("reduction", ["mean", "sum"])


def loss_of(name, reduction):
    """The loss as functools.partial, with outputs and targets."""
    function, options, z, y = LOSSES[name]
    return partial(function, reduction=reduction, **options), z, y


def dense(loss_fn, z, y):
    """∇²_z L by autograd, (numel, numel)."""
    return hessian(lambda flat: loss_fn(flat.view(z.shape), y), z.reshape(-1))


def columns(multiply, shape):
    """The matrix whose columns are `multiply` of the unit vectors of a shape."""
    units = torch.eye(math.prod(shape), dtype=torch.float64)
    return torch.stack([multiply(unit.view(shape)).reshape(-1) for unit in units], dim=1)


def root(h):
    """B, (numel, columns): all unit vectors at once."""
    units = torch.eye(math.prod(h.root_shape), dtype=torch.float64)
    return h.root(units.view(-1, *h.root_shape)).flatten(1).T


@every_loss
@reductions
def test_expansion_is_that_of_autograd(name, reduction):
    """Loss, gradient and H w are those of the loss; B Bᵀ is its dense Hessian."""
    loss_fn, z, y = loss_of(name, reduction)

    expansion = expand_loss(loss_fn, z, y)

    leaf = z.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_fn(leaf, y), leaf)
    exact = dense(loss_fn, z, y)
    factor = root(expansion.hessian)
    assert_close(expansion.loss, loss_fn(z, y))
    assert_close(expansion.gradient, gradient)
    assert_close(columns(expansion.hessian, z.shape), exact)
    assert_close(factor @ factor.T, exact)


@every_loss
@reductions
def test_hessians_of_known_losses_are_in_closed_form(name, reduction):
    """None of them is differentiated."""
    loss_fn, z, y = loss_of(name, reduction)

    h = expand_loss(loss_fn, z, y).hessian

    assert isinstance(h.inner if reduction == "mean" else h, (Diagonal, Softmax))
    assert isinstance(h, Scaled) == (reduction == "mean")


@every_loss
def test_terms_make_the_mean_of_the_sum(name):
    """M is what torch divides by: mean = sum / M."""
    mean, z, y = loss_of(name, "mean")
    total, _, _ = loss_of(name, "sum")
    likelihood = recognise(mean)

    assert likelihood.is_mean
    assert not recognise(total).is_mean
    assert_close(total(z, y) / likelihood.terms(z, y), mean(z, y))


@every_loss
@reductions
def test_the_module_is_the_function(name, reduction):
    """A module of torch is recognised as the function with the same settings."""
    function, options, z, y = LOSSES[name]
    loss_fn = partial(function, reduction=reduction, **options)
    module = MODULES[function](reduction=reduction, **options)

    same, other = expand_loss(loss_fn, z, y), expand_loss(module, z, y)

    assert type(recognise(module)) is type(recognise(loss_fn))
    assert_close(other.loss, same.loss)
    assert_close(columns(other.hessian, z.shape), columns(same.hessian, z.shape))


@pytest.mark.parametrize("function", MODULES, ids=lambda function: function.__name__)
def test_the_bare_function_is_a_mean(function):
    """Without settings, function, partial and module are one likelihood."""
    bare = recognise(function)

    assert bare == recognise(partial(function)) == recognise(MODULES[function]())
    assert bare.is_mean


@pytest.mark.filterwarnings("ignore:Using a target size")  # it is what is tested
@pytest.mark.parametrize("shapes", [((N, 1), (N, C)), ((N, C), (1, C)), ((N,), (N, 1))])
@reductions
def test_broadcast_squared_error_is_differentiated(shapes, reduction):
    """Where torch broadcasts, the Hessian and the number of terms are those of what it computes."""
    z, y = drawn(*shapes[0]), drawn(*shapes[1], seed=4)
    loss_fn = partial(F.mse_loss, reduction=reduction)
    likelihood = recognise(loss_fn)

    h = expand_loss(loss_fn, z, y).hessian

    exact, factor = dense(loss_fn, z, y), root(h)
    assert_close(columns(h, z.shape), exact)
    assert_close(factor @ factor.T, exact)
    assert_close(F.mse_loss(z, y, reduction="sum") / likelihood.terms(z, y), F.mse_loss(z, y))
    with pytest.raises(ValueError, match=naming(tuple(z.shape), tuple(y.shape))):
        likelihood.draw(z, y, torch.Generator())


class Custom(nn.MSELoss):
    """A subclass may compute anything."""


@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda outputs, targets: F.mse_loss(outputs, targets),
        F.l1_loss,
        nn.HuberLoss(),
        Custom(),
        partial(F.mse_loss, reduction="none"),
        nn.CrossEntropyLoss(reduction="none"),
        nn.BCEWithLogitsLoss(reduction="none"),
        partial(F.cross_entropy, drawn(N, C)),
        partial(F.cross_entropy, size_average=False),
        partial(F.mse_loss, magic=1),
        partial(nn.MSELoss()),
    ],
)
def test_what_is_not_known_for_certain_is_not_recognised(loss_fn):
    """Functions of a user's own, subclasses, no reduction, settings that are not looked at."""
    assert recognise(loss_fn) is None
    with pytest.raises(ValueError, match=naming("Fisher", "bdhf.optim.Likelihood")):
        likelihood_of(loss_fn, "Fisher")


@pytest.mark.parametrize("how", ["hook", "pre-hook", "forward"])
def test_a_module_of_torch_that_is_changed_is_differentiated(how):
    """With a hook, or another forward, it is another loss than its class."""
    loss_fn, plain = nn.MSELoss(), nn.MSELoss()
    if how == "hook":
        loss_fn.register_forward_hook(lambda _module, _inputs, loss: 3 * loss)
    elif how == "pre-hook":
        loss_fn.register_forward_pre_hook(lambda _module, pair: (pair[0].sigmoid(), pair[1]))
    else:
        loss_fn.forward = lambda outputs, targets: plain(outputs.exp(), targets)
    z, y = drawn(N, C), drawn(N, C, seed=4)

    assert recognise(loss_fn) is None
    assert_close(columns(expand_loss(loss_fn, z, y).hessian, z.shape), dense(loss_fn, z, y))


def test_a_loss_that_cannot_be_hashed_is_one_that_is_not_known():
    """A callable with its own equality has no hash, but is a loss."""

    @dataclass
    class Weighted:
        weight: float

        def __call__(self, outputs, targets):
            return self.weight * F.mse_loss(outputs, targets)

    z, y = drawn(N, C), drawn(N, C, seed=4)

    assert recognise(Weighted(2.0)) is None
    assert_close(
        columns(expand_loss(Weighted(2.0), z, y).hessian, z.shape), dense(Weighted(2.0), z, y)
    )


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum])
def test_an_own_convex_loss_has_a_root(reduce):
    """B Bᵀ = ∇²_z L for an unknown loss that couples outputs."""

    def log_sum_exp(outputs, targets):
        return reduce(outputs.logsumexp(1) + (outputs - targets).cosh().log().sum(1))

    z, y = drawn(N, C), drawn(N, C, seed=4)
    expansion = expand_loss(log_sum_exp, z, y)
    factor = root(expansion.hessian)

    assert isinstance(expansion.hessian, Differentiated)
    assert_close(expansion.loss, log_sum_exp(z, y))
    assert_close(columns(expansion.hessian, z.shape), dense(log_sum_exp, z, y))
    assert_close(factor @ factor.T, dense(log_sum_exp, z, y))


def test_a_loss_that_is_not_convex_has_no_root():
    """It multiplies, and its root is refused with a way out."""

    def wave(outputs, targets):
        return (outputs - targets).sin().sum()

    z, y = drawn(N, C), drawn(N, C, seed=4)
    h = expand_loss(wave, z, y).hessian

    assert_close(columns(h, z.shape), dense(wave, z, y))
    with pytest.raises(ValueError, match=naming("CG")):
        root(h)


def test_a_linear_loss_has_a_hessian_of_zero():
    """Neither product nor root of a loss that is linear in the outputs is anything but 0."""
    z = drawn(N, C)

    h = expand_loss(
        lambda outputs, targets: (outputs * targets).sum(), z, drawn(N, C, seed=4)
    ).hessian

    assert not columns(h, z.shape).any()
    assert not root(h).any()


def test_a_loss_that_is_no_scalar_is_refused():
    """The reduction that is missing is named."""
    with pytest.raises(ValueError, match=naming("reduction='mean'", "'sum'")):
        expand_loss(nn.MSELoss(reduction="none"), drawn(N, C), drawn(N, C))


@pytest.mark.parametrize("shape", [(N,), (N, C), (N, C, T)])
@pytest.mark.parametrize("draws", [1, 3])
def test_outer_products_are_summed_over_draws_within_samples(shape, draws):
    """H = Σ_k s_k s_kᵀ sample by sample, and B has a column a draw and sample."""
    scores = drawn(draws, *shape)
    blocks = torch.einsum("kna,knb->nab", *[scores.reshape(draws, N, -1)] * 2)
    h = Outer(scores)
    factor = root(h)

    assert h.root_shape == (draws, N)
    assert_close(columns(h, shape), torch.block_diag(*blocks))
    assert_close(factor @ factor.T, torch.block_diag(*blocks))


#: Losses of N samples whose settings do not depend on the sample.
SPLIT = [n for n in LOSSES if "unbatched" not in n and n not in ("ce_pixels", "bce_everything")]


@pytest.mark.parametrize("name", SPLIT)
@reductions
@pytest.mark.parametrize("sizes", [[1, 4], [2, 2, 1], [3, 2]])
def test_weights_add_micro_batches_up(name, reduction, sizes):
    """Σ w_i L_i is the loss of the whole batch, whatever the sizes of the pieces."""
    loss_fn, z, y = loss_of(name, reduction)
    pairs = list(zip(z.split(sizes), y.split(sizes), strict=True))

    shares = weights(loss_fn, pairs)

    losses = [loss_fn(*pair) for pair in pairs]
    counted = [share * loss for share, loss in zip(shares, losses, strict=True) if share]
    assert_close(sum(counted), loss_fn(z, y))


def test_a_micro_batch_without_a_term_has_no_weight():
    """Its NaN has no effect on the whole; weights count labels, not samples."""
    z, y = drawn(6, C), labels(6)
    y[:2], y[2] = -100, -100
    pairs = list(zip(z.split(2), y.split(2), strict=True))

    assert F.cross_entropy(*pairs[0]).isnan()
    assert weights(F.cross_entropy, pairs) == pytest.approx([0.0, 1 / 3, 2 / 3])
    assert weights(partial(F.cross_entropy, reduction="sum"), pairs) == [1.0, 1.0, 1.0]


def test_micro_batches_without_any_term_have_no_loss():
    """Their mean is 0 / 0, like torch's for the whole batch."""
    pairs = [(drawn(2, C), torch.full((2,), -100))] * 2

    assert all(math.isnan(share) for share in weights(F.cross_entropy, pairs))


def test_one_batch_of_any_loss_has_the_weight_one():
    """Its terms need not be known."""
    assert weights(F.l1_loss, [(drawn(N, C), drawn(N, C))]) == [1.0]
    assert is_mean(F.l1_loss)
    assert not is_mean(nn.MSELoss(reduction="sum"))


@dataclass(frozen=True)
class Poisson:
    """A user's own likelihood: exp(z) - y z for every element, as a mean."""

    asked: list[str]

    is_mean = True

    def __call__(self, outputs, targets):
        return (outputs.exp() - targets * outputs).mean()

    def terms(self, outputs, targets):
        self.asked.append("terms")
        return outputs.new_tensor(outputs.numel())

    def hessian(self, outputs, targets):
        self.asked.append("hessian")
        return Diagonal(outputs.exp())

    def draw(self, outputs, targets, generator):
        self.asked.append("draw")
        return torch.poisson(outputs.exp(), generator=generator)

    def score(self, outputs, targets, drawn):
        self.asked.append("score")
        return outputs.exp() - drawn


def test_a_users_own_likelihood_is_asked():
    """Its Hessian, its terms and its draws are what the curvatures use."""
    loss_fn, z = Poisson([]), drawn(N, C)
    y = torch.poisson(z.exp(), generator=torch.Generator().manual_seed(0))
    model = nn.Linear(C, C, bias=False, dtype=torch.float64)
    pieces = [(z[:2], y[:2]), (z[2:], y[2:])]

    h = expand_loss(loss_fn, z, y).hessian
    whole = bdhf.block_curvature(model, loss_fn, (z, y)).to_dense()
    parts = bdhf.block_curvature(model, loss_fn, pieces).to_dense()

    assert recognise(loss_fn) is loss_fn
    assert_close(columns(h, z.shape), dense(loss_fn, z, y))
    assert_close(parts, whole)
    assert set(loss_fn.asked) == {"terms", "hessian"}
    bdhf.block_curvature(model, loss_fn, (z, y), curvature=bdhf.Fisher())
    assert {"draw", "score"} <= set(loss_fn.asked)


def test_an_own_likelihood_may_leave_its_hessian_to_differentiation():
    """None in place of a Hessian is the Hessian by autograd, reduction included."""

    @dataclass(frozen=True)
    class Lazy(Poisson):
        def hessian(self, outputs, targets):
            return None

    z, y = drawn(N, C), drawn(N, C, seed=4).square().round()

    h = expand_loss(Lazy([]), z, y).hessian

    assert isinstance(h, Differentiated)
    assert_close(columns(h, z.shape), dense(Lazy([]), z, y))


DRAWING = ["ce", "ce_ignored", "ce_positions", "ce_pixels", "mse", "mse_positions", "bce"]


@pytest.mark.parametrize("name", DRAWING)
def test_draws_are_those_of_the_generator(name):
    """Same state, same targets; another state, others; torch's own generator does not move."""
    loss_fn, z, y = loss_of(name, "mean")
    likelihood, before = recognise(loss_fn), torch.get_rng_state()

    def draw(seed):
        return likelihood.draw(z, y, torch.Generator().manual_seed(seed))

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))
    assert draw(0).shape == y.shape
    assert torch.equal(torch.get_rng_state(), before)
    assert loss_fn(z, draw(0)).isfinite()


@pytest.mark.parametrize("name", ["ce_ignored", "ce_ignored_default", "ce_positions"])
def test_ignored_labels_stay_ignored(name):
    """What does not count is not drawn; what counts gets a class."""
    loss_fn, z, y = loss_of(name, "mean")
    likelihood = recognise(loss_fn)
    ignored = y == likelihood.ignore_index

    y_drawn = likelihood.draw(z, y, torch.Generator().manual_seed(0))

    assert ignored.sum() >= 2
    assert torch.equal(y_drawn[ignored], y[ignored])
    assert y_drawn[~ignored].min() >= 0
    assert y_drawn[~ignored].max() < C


@pytest.mark.parametrize(
    "name",
    ["ce_weighted", "ce_smoothed", "ce_soft", "ce_everything", "bce_pos_weight", "bce_everything"],
)
def test_losses_that_are_no_likelihood_refuse_to_draw(name):
    """Weights, smoothing and soft labels have a Hessian, and no targets to draw."""
    loss_fn, z, y = loss_of(name, "mean")

    with pytest.raises(ValueError, match=naming("GGN")):
        recognise(loss_fn).draw(z, y, torch.Generator())


SAMPLES = 20_000


def within(frequencies, p):
    """Whether all lie within five standard deviations of what they estimate."""
    return bool(((frequencies - p).abs() <= 5 * (p * (1 - p) / SAMPLES).sqrt()).all())


def test_labels_are_drawn_from_the_softmax():
    """Frequencies of 20,000 draws at every position are the probabilities of its classes."""
    z = drawn(2, C, T)
    many = z.repeat(SAMPLES, 1, 1)
    y = torch.zeros(2 * SAMPLES, T, dtype=torch.long)

    labels = recognise(F.cross_entropy).draw(many, y, torch.Generator().manual_seed(0))

    counts = F.one_hot(labels.view(SAMPLES, 2, T), C).double().mean(0).movedim(-1, 1)
    assert within(counts, z.softmax(1))
    assert not within(counts, z.flip(1).softmax(1))


def test_coins_are_drawn_from_the_sigmoid():
    """Frequencies of 20,000 draws are σ(z), and all draws are 0 or 1."""
    z = drawn(2, C)

    coins = recognise(bce).draw(
        z.repeat(SAMPLES, 1, 1), torch.zeros(SAMPLES, 2, C), torch.Generator().manual_seed(0)
    )

    assert set(coins.unique().tolist()) == {0.0, 1.0}
    assert within(coins.mean(0), z.sigmoid())
    assert not within(coins.mean(0), (-z).sigmoid())


def test_normal_targets_have_variance_one_half():
    """exp(-(z - y)²) is a normal density around z with variance ½."""
    z = drawn(2, C).repeat(SAMPLES, 1, 1)

    noise = recognise(F.mse_loss).draw(z, z, torch.Generator().manual_seed(0)) - z

    count = noise.numel()
    assert abs(float(noise.mean())) < 5 * (0.5 / count) ** 0.5
    assert abs(float(noise.square().mean()) - 0.5) < 5 * (0.5 / count) ** 0.5  # Var y² = 2 · ¼


#: Options of cross-entropy that look a label up.
BY_LABEL = {
    "plain": {},
    "weighted": {"weight": CLASS_WEIGHTS},
    "weightless_class": {"weight": torch.tensor([0.0, 2.0, 1.0, 3.0], dtype=torch.float64)},
    "ignored": {"weight": CLASS_WEIGHTS, "ignore_index": 2},
}


@pytest.mark.parametrize("options", BY_LABEL.values(), ids=BY_LABEL)
@pytest.mark.parametrize("samples", [N, C], ids=["more", "as_many_as_classes"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_labels_of_eight_bits_are_labels(options, samples, reduction):
    """Torch takes uint8; as an index it would be a mask, and has no ignored label of -100."""
    loss_fn = partial(F.cross_entropy, reduction=reduction, **options)
    z, y = drawn(samples, C), labels(samples)

    expansion = expand_loss(loss_fn, z, y.to(torch.uint8))

    assert_close(expansion.loss, loss_fn(z, y), rtol=1e-10, atol=1e-12)
    exact = dense(loss_fn, z, y)
    assert_close(columns(expansion.hessian, z.shape), exact, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("curvature", [bdhf.Fisher(2), bdhf.EmpiricalFisher()])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int16])
def test_scores_are_those_of_long_labels(curvature, dtype):
    """Draws and scores know labels by their value, whatever their type."""
    likelihood, z, y = recognise(F.cross_entropy), drawn(N, C), labels(N)
    made = [
        likelihood.draw(z, targets, torch.Generator().manual_seed(0))
        for targets in (y, y.to(dtype))
    ]

    assert torch.equal(*made)
    assert torch.equal(likelihood.score(z, y, made[0]), likelihood.score(z, y.to(dtype), made[1]))
    assert torch.equal(likelihood.terms(z, y), likelihood.terms(z, y.to(dtype)))
    if dtype == torch.uint8:
        model = nn.Linear(3, C).double()
        x = drawn(N, 3)
        own, other = (
            bdhf.block_curvature(model, F.cross_entropy, (x, targets), curvature=curvature)
            for targets in (y, y.to(dtype))
        )
        assert torch.equal(own.to_dense(), other.to_dense())


def differentiable_against(dtype):
    """Whether torch differentiates a squared error of such targets: of integers from 2.10 on."""
    z = drawn(N, C).requires_grad_()
    try:
        torch.autograd.grad(F.mse_loss(z, torch.ones_like(z, dtype=dtype)), z)
    except RuntimeError:
        return False
    return True


COUNTS = [torch.float32, torch.bool, torch.uint8, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", [*filter(differentiable_against, COUNTS)])
@pytest.mark.parametrize("loss_fn", [F.mse_loss, nn.MSELoss(reduction="sum")])
def test_squared_errors_of_counts_are_squared_errors(loss_fn, dtype):
    """Targets of integers or truth values are the numbers that they stand for."""
    z, y = drawn(N, C), (drawn(N, C, seed=5) > 0).to(dtype)

    expansion = expand_loss(loss_fn, z, y)

    exact = dense(loss_fn, z, y.to(z.dtype))
    assert_close(expansion.loss, loss_fn(z, y.to(z.dtype)), rtol=1e-10, atol=1e-12)
    assert_close(columns(expansion.hessian, z.shape), exact, rtol=1e-10, atol=1e-12)


#: Targets that a loss of outputs (N, C) does not take, and the facts of the error.
MISFITS = {
    "float_labels": (
        F.cross_entropy,
        labels(N).double(),
        naming("torch.float64", "targets.long()"),
    ),
    "float_nll": (F.nll_loss, labels(N).double(), naming("torch.float64", "targets.long()")),
    "short": (F.cross_entropy, labels(N).short(), naming("torch.int16", "targets.long()")),
    "smoothed_bytes": (
        partial(F.cross_entropy, label_smoothing=0.1),
        labels(N).to(torch.uint8),
        naming("torch.int64", "torch.uint8"),
    ),
    "truths": (F.cross_entropy, labels(N).bool(), naming("torch.bool")),
    "column": (F.cross_entropy, labels(N, 1), naming("(5,)", "(5, 1)", "targets.squeeze(1)")),
    "one_hot": (F.cross_entropy, labels(N, C), naming("targets.to(outputs.dtype)", "argmax(1)")),
    "module": (
        nn.CrossEntropyLoss(weight=CLASS_WEIGHTS),
        labels(N).double(),
        naming("targets.long()"),
    ),
    "few_probabilities": (F.cross_entropy, soft(N, C)[:, :1], naming("(5, 4)", "(5, 1)")),
    "binary_integers": (bce, labels(N, C), naming("torch.int64", "targets.to(outputs.dtype)")),
    "list": (F.cross_entropy, [0] * N, naming("Tensor", "list", "torch.as_tensor")),
    "none": (F.mse_loss, None, naming("Tensor", "NoneType")),
    "few": (F.cross_entropy, labels(N - 1), naming("(5,)", "(4,)")),
    "flat": (bce, labels(N).double(), naming("(5, 4)", "(5,)")),
    "binary_truths": (nn.BCEWithLogitsLoss(), labels(N, C).bool(), r"torch\.bool"),
}


@pytest.mark.parametrize("name", MISFITS)
@pytest.mark.parametrize(
    "curvature", [bdhf.GGN(), bdhf.Hessian(), bdhf.Fisher()], ids=["ggn", "hessian", "fisher"]
)
def test_targets_that_do_not_fit_are_refused(name, curvature):
    """The error names the targets, the right ones, and the conversion."""
    loss_fn, targets, message = MISFITS[name]

    with pytest.raises(ModelError, match=message):
        bdhf.block_curvature(
            nn.Linear(3, C).double(), loss_fn, (drawn(N, 3), targets), curvature=curvature
        )


def test_a_batch_whose_labels_are_all_ignored_moves_nothing():
    """Its mean over no term is no number, with labels of any type."""
    model, x = nn.Linear(3, C), torch.randn(N, 3)
    before = [p.detach().clone() for p in model.parameters()]
    loss_fn = nn.CrossEntropyLoss(ignore_index=2)

    info = bdhf.BlockHessianFree(model, loss_fn).step((x, torch.full((N,), 2, dtype=torch.uint8)))

    assert math.isnan(info.loss)
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))
