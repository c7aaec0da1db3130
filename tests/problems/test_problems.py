"""Tests of every problem of the table."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bdhf.experiments.parts.tables import PROBLEMS
from bdhf.nn import Sparse
from bdhf.optim import Groups
from bdhf.optim.vectors.blocks import Blocks
from bdhf.optim.vectors.layout import layout_of
from tests.messages import naming

SMALL = {
    "autoencoder": {"encoder": (784, 50, 20)},
    "mlp": {"hidden": (30, 20)},
    "sequence_lstm": {"hidden": 16, "layers": 2},
    "resnet": {"channels": (4, 8, 16)},
    "transformer": {"width": 16, "heads": 2, "feedforward": 32},
}
every_problem = pytest.mark.parametrize("name", PROBLEMS)


def small(name, **more):
    """A problem of the table, in a size for tests."""
    return PROBLEMS[name](**SMALL.get(name, {}), **more)


def initialised(problem, seed=0):
    """The problem's model, initialised with a seed."""
    model = problem.build()
    problem.initialise(model, torch.Generator().manual_seed(seed))
    return model


@every_problem
def test_it_can_be_built_without_storage(name):
    """On the meta device no parameter has values, and outputs have their shape."""
    problem = PROBLEMS[name]()
    with torch.device("meta"):
        model = problem.build()
    inputs, targets = (tensor.to("meta") for tensor in problem.example(3))

    assert all(parameter.is_meta for parameter in model.parameters())
    assert problem.loss(model(inputs), targets).shape == ()


@every_problem
def test_an_example_is_like_the_data(name):
    """Shapes, dtypes and the range of values are those of every part; the values are fixed."""
    problem = small(name)
    data = problem.load()
    example = problem.example(7)

    assert len(data.train[0]) == problem.samples
    assert [len(tensor) for tensor in example] == [7, 7]
    for part in (data.train, data.validation, data.test):
        for made, real in zip(example, part, strict=True):
            assert made.shape[1:] == real.shape[1:]
            assert made.dtype == real.dtype
            assert 0 <= made.min() <= made.max() <= real.max()
    assert all(map(torch.equal, example, problem.example(7)))


@every_problem
def test_its_blocks_cover_the_model(name):
    """Every parameter is in exactly one block, and every pattern matches."""
    problem = PROBLEMS[name]()
    layout = layout_of(problem.build())

    blocks = Blocks.of(layout, Groups(problem.blocks)(layout))

    assert len(blocks.rows) == len(problem.blocks)


@every_problem
def test_its_blocks_are_contiguous_in_depth(name):
    """A block is a contiguous range of parameters in the order of the model."""
    problem = PROBLEMS[name]()
    layout = layout_of(problem.build())

    order = torch.cat([rows[0] for rows in Groups(problem.blocks)(layout)])

    assert torch.equal(order, torch.arange(layout.size))


@every_problem
def test_its_loss_is_one_that_torch_names(name):
    """The loss is always the same function of torch, so the optimizer recognises its likelihood."""
    problem = small(name)

    assert problem.loss in (F.mse_loss, F.cross_entropy)
    assert problem.loss is problem.loss


@every_problem
def test_it_measures_what_it_names(name):
    """One finite number for every metric, a mean over samples: halves average to the whole."""
    problem = small(name)
    inputs, targets = problem.example(8)
    outputs = initialised(problem)(inputs).detach()

    whole, *halves = (
        problem.measure(outputs[part], targets[part])
        for part in (slice(None), slice(None, 4), slice(4, None))
    )

    assert tuple(whole) == tuple(problem.metrics)
    for metric, value in whole.items():
        assert value.shape == ()
        assert value.dtype == torch.float32
        expected = sum(float(half[metric]) for half in halves) / 2
        assert float(value) == pytest.approx(expected, rel=1e-5)


@every_problem
def test_initialisation_comes_from_the_generator_alone(name):
    """Two models are byte-identical for one seed, for any state of the global generator."""
    problem = small(name)
    flat = []
    for seed in (0, 0, 1):
        torch.rand(3)
        model = initialised(problem, seed)
        flat.append(nn.utils.parameters_to_vector(model.parameters()))

    assert torch.equal(flat[0], flat[1])
    assert not torch.equal(flat[0], flat[2])


@every_problem
def test_its_initialisation_can_be_chosen(name):
    """The model has the parameters that `init` draws."""
    problem = small(name, init=Sparse(connections=2))
    chosen, expected = initialised(problem), problem.build()
    Sparse(connections=2)(expected, torch.Generator().manual_seed(0))

    for drawn, other in zip(chosen.parameters(), expected.parameters(), strict=True):
        assert torch.equal(drawn, other)


@every_problem
def test_sixty_updates_of_adam_beat_the_best_constant(name):
    """The training loss is below that of the class prior, or of the mean target."""
    problem = small(name)
    inputs, targets = problem.load().train
    model = initialised(problem)
    adam = torch.optim.Adam(model.parameters(), lr=5e-3)
    order = torch.Generator().manual_seed(0)
    for _ in range(60):
        index = torch.randint(len(inputs), (100,), generator=order)
        adam.zero_grad()
        problem.loss(model(inputs[index]), targets[index]).backward()
        adam.step()

    model.eval()
    with torch.no_grad():
        loss = float(problem.loss(model(inputs), targets))

    if targets.is_floating_point():
        assert loss < 0.9 * float(F.mse_loss(targets.mean(0).expand_as(targets), targets))
    else:
        assert loss < 0.9 * math.log(10)


@every_problem
def test_unknown_data_are_refused(name):
    """The error names the known data."""
    with pytest.raises(ValueError, match=naming("data", "'mnist6k'", "mnist5k")):
        PROBLEMS[name](data="mnist6k")
