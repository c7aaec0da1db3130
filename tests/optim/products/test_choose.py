"""Which method is taken, and the reason: the request, the coverage, the cost."""

import itertools
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim.products import METHODS, Workspace, choose
from bdhf.optim.products.forecast import FLOPS_A_NEW_BYTE, FLOPS_A_START, PROPAGATE_STARTS, forecast
from bdhf.optim.products.layer_io.survey import survey
from tests.cases import Case, build
from tests.messages import naming
from tests.optim.tapes import asked
from tests.oracles import dense_ggn

SAMPLES = 128


def perceptron(*widths):
    """Linear layers of some widths, with tanh between them."""
    torch.manual_seed(0)
    pairs = itertools.pairwise(widths)
    layers = [layer for m, n in pairs for layer in (nn.Linear(m, n), nn.Tanh())]
    return nn.Sequential(*layers[:-1])


def classifier(*widths):
    """A perceptron with cross-entropy: H has one column per class."""
    classes = torch.randint(0, widths[-1], (SAMPLES,))
    return Case(perceptron(*widths), F.cross_entropy, (torch.randn(SAMPLES, widths[0]), classes))


def autoencoder():
    """A perceptron with squared error on many outputs, each a column of H."""
    x = torch.randn(SAMPLES, 100)
    return Case(perceptron(100, 60, 20, 60, 100), F.mse_loss, (x, x))


def matrix(case, **settings):
    """The curvature of a case."""
    return bdhf.block_curvature(case.model, case.loss_fn, case.batch, **settings)


def took(case, **settings):
    """The method that "auto" takes, and why."""
    G = matrix(case, **settings)
    return G.method, G.explain()


#: Widths of a classifier, its partition, and the method that "auto" takes.
CLASSIFIERS = {
    "neurons": ((100, 80, 60, 10), bdhf.PerNeuron(), "layer_io"),
    "layers_of_a_deep_one": ((100, *[200] * 8, 4), bdhf.PerLayer(), "layer_io"),
    "one_block": ((100, 80, 60, 10), bdhf.Full(), "propagate"),
    "through_rows": ((100, 80, 60, 10), bdhf.Random(like=bdhf.PerLayer()), "propagate"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_classifier_takes_layer_io_for_many_blocks(name):
    """Few columns serve many blocks at once; one block, or blocks through rows, gain nothing."""
    widths, partition, expected = CLASSIFIERS[name]
    method, why = took(classifier(*widths), partition=partition)

    assert method == expected
    assert why.startswith(expected)
    assert ("sites" in why) == (expected == "layer_io")
    assert ("forward mode" in why) == (expected == "propagate")


def test_an_autoencoder_takes_propagation():
    """A column of H for every output is too many for the few blocks that they would serve."""
    method, why = took(autoencoder(), partition=bdhf.PerLayer())

    assert method == "propagate"
    assert why.startswith("propagate")
    assert re.search(naming("bottleneck", 20), why)


def test_a_draw_is_one_column_whatever_the_outputs():
    """The Fisher of an autoencoder takes layer_io per layer, where the GGN does not."""
    fisher, ggn = (
        asked(autoencoder(), bdhf.PerLayer(), curvature)
        for curvature in (bdhf.Fisher(), bdhf.GGN())
    )
    costs = [forecast(request, survey(request, request.curvature)) for request in (fisher, ggn)]

    assert costs[0].setup < costs[1].setup / 50
    assert costs[0].layer_io < costs[1].layer_io
    assert costs[0].propagate == costs[1].propagate


@pytest.mark.parametrize("method", ["auto", "layer_io"])
def test_the_hessian_takes_propagation(method):
    """It is not of the form Jᵀ H J."""
    case = classifier(6, 5, 3)
    chosen, why = took(case, curvature=bdhf.Hessian(), partition=bdhf.PerNeuron(), method=method)

    assert chosen == "propagate"
    assert "Hessian" in why


@pytest.mark.parametrize("method", METHODS)
def test_what_is_asked_for_is_taken_where_it_can_be(method):
    """And `explain` names the argument."""
    chosen, why = took(classifier(6, 5, 3), partition=bdhf.PerLayer(), method=method)

    assert chosen == method
    assert "method=" in why


def test_uncovered_parameters_fall_back_with_their_name():
    """A layer without a rule in layer_io takes propagation, and its product is right."""
    case = build("attention")
    G = matrix(case, method="layer_io", partition=bdhf.Full())

    assert G.method == "propagate"
    assert "'attention." in G.explain()
    assert "forward mode" in G.explain()
    assert_close(G.to_dense(), dense_ggn(case), rtol=0, atol=1e-10)


@pytest.mark.parametrize("method", ["auto", "layer_io"])
def test_too_little_memory_for_a_column_falls_back_with_the_bytes(method):
    """A bound below one column is no error."""
    chosen, why = took(
        classifier(100, 80, 60, 10), partition=bdhf.PerNeuron(), max_bytes=1000, method=method
    )

    assert chosen == "propagate"
    assert re.search(naming("max_bytes", "1,000"), why)


def test_an_unknown_method_is_an_error_that_lists_the_known():
    """In the function, and in the optimizer before any step."""
    case, message = classifier(6, 5, 3), naming("'fast'", "auto", *METHODS)

    with pytest.raises(ValueError, match=message):
        matrix(case, method="fast")
    with pytest.raises(ValueError, match=message):
        bdhf.BlockHessianFree(case.model, case.loss_fn, method="fast")


def test_an_optimizer_takes_the_method_that_it_is_given():
    """The settings are those of `block_curvature`; steps are the same by either method."""
    ends = []
    for method in METHODS:
        case = build("classifier")
        optimizer = bdhf.BlockHessianFree(
            case.model, case.loss_fn, partition=bdhf.PerNeuron(), method=method, max_bytes=10**6
        )  # fmt: skip
        for _ in range(3):
            optimizer.step(case.batch)
        assert (optimizer.settings.method, optimizer.settings.max_bytes) == (method, 10**6)
        ends.append(torch.cat([p.detach().flatten() for p in case.model.parameters()]))

    assert_close(ends[0], ends[1])


def decided(case, workspace, partition=None):
    """Linearise a case with "auto", as an update does."""
    request = asked(case, partition or bdhf.PerNeuron())
    return choose.linearise(
        request.objective, [case.batch], curvature=request.curvature, blocks=request.blocks,
        flops=request.flops, workspace=workspace,
    )  # fmt: skip


def test_a_method_is_chosen_once_a_shape(monkeypatch):
    """The next update of a shape does not decide, another shape does; a new process does so too."""
    surveys = []

    def counted(*arguments):
        surveys.append(1)
        return survey(*arguments)

    monkeypatch.setattr(choose, "survey", counted)
    case, workspace = classifier(20, 15, 4), Workspace()
    first, second = decided(case, workspace), decided(case, workspace)
    assert len(surveys) == 1
    half = Case(case.model, case.loss_fn, tuple(part[: SAMPLES // 2] for part in case.batch))
    decided(half, workspace)
    assert len(surveys) == 2
    again = decided(case, Workspace())

    assert (first.method, first.why) == (second.method, second.why) == (again.method, again.why)


def test_what_does_not_cover_is_tried_once_a_shape(monkeypatch):
    """The refusal is remembered with its reason."""
    tried, kept = [], choose.METHODS["layer_io"]

    def counted(request):
        tried.append(1)
        return kept(request)

    monkeypatch.setitem(choose.METHODS, "layer_io", counted)
    case, workspace = build("lstm", dtype=torch.float32), Workspace()
    request = asked(case, bdhf.PerLayer(), method="layer_io")
    made = [
        choose.linearise(
            request.objective, [case.batch], curvature=request.curvature, blocks=request.blocks,
            flops=request.flops, settings=request.settings, workspace=workspace,
        )
        for _ in range(2)
    ]  # fmt: skip

    assert len(tried) == 1
    assert made[0].method == made[1].method == "propagate"
    assert made[0].why == made[1].why
    assert "layer_io" in made[0].why


def test_a_forecast_of_two_layers_counted_by_hand():
    """FLOPs of sweeps as in `test_cost.py`, and what their operators take to start."""
    case = classifier(8, 16, 4)
    first, second = 2 * SAMPLES * 8 * 16, 2 * SAMPLES * 16 * 4
    gradient = 3 * (first + second) - first
    start = PROPAGATE_STARTS * FLOPS_A_START
    full = 2 * (first + second) + 2 * second + 2 * start
    layers = 2 * (first + second) + 2 * start, 2 * second + start
    expected = {
        bdhf.Full(): full,
        bdhf.PerLayer(): sum(layers),
        bdhf.PerNeuron(): 16 * layers[0] + 4 * layers[1],
        bdhf.Blend(bdhf.PerLayer(), 0.5): full + sum(layers),
    }

    for partition, flops in expected.items():
        request = asked(case, partition)
        costs = forecast(request, survey(request, request.curvature))
        assert costs.propagate == pytest.approx(flops / gradient)
        columns = 4 * second + FLOPS_A_NEW_BYTE * costs.cache  # not to the inputs
        assert costs.setup == pytest.approx(columns / gradient)


def test_more_products_never_speak_for_the_method_with_a_start():
    """The more products are expected, the sooner layer_io pays; with none it does not."""
    methods = []
    for products in (0, 1, 30, 1000):
        request = asked(classifier(100, 80, 60, 10), bdhf.PerNeuron(), products=products)
        methods.append(forecast(request, survey(request, request.curvature)).method)

    assert methods[0] == "propagate"
    assert methods == sorted(methods, reverse=True)
    assert methods[-1] == "layer_io"
