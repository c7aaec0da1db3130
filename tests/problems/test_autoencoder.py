"""The autoencoder: mirrored, with a linear code, and the metrics of the literature."""

import pytest
import torch
from torch import nn

from bdhf.problems import Autoencoder
from tests.messages import naming


def layers(half):
    """Sizes and activations of one half, in words."""
    return [
        f"{m.in_features}-{m.out_features}" if isinstance(m, nn.Linear) else type(m).__name__
        for m in half
    ]


def test_the_decoder_mirrors_the_encoder():
    """Hidden layers have the activation, code and output are linear."""
    model = Autoencoder(encoder=(784, 20, 10, 3), activation="tanh").build()

    assert layers(model.encoder) == ["784-20", "Tanh", "20-10", "Tanh", "10-3", "Identity"]
    assert layers(model.decoder) == ["3-10", "Tanh", "10-20", "Tanh", "20-784", "Identity"]


def test_code_and_output_can_have_their_own_activation():
    """`code` and `output` set their activations."""
    model = Autoencoder(encoder=(784, 8, 3), activation="relu", code="tanh", output="sigmoid")

    assert layers(model.build().encoder)[1::2] == ["ReLU", "Tanh"]
    assert layers(model.build().decoder)[1::2] == ["ReLU", "Sigmoid"]


def test_initialisation_depends_on_the_generator_alone():
    """Two models are byte-identical for one seed, for any state of the global generator."""
    problem = Autoencoder(encoder=(784, 8, 3))
    models = []
    for seed in (0, 0, 1):
        torch.rand(3)
        model = problem.build()
        problem.initialise(model, torch.Generator().manual_seed(seed))
        models.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))

    assert torch.equal(models[0], models[1])
    assert not torch.equal(models[0], models[2])


def test_squared_error_is_summed_over_pixels_per_image():
    """784 times the mean squared error, as in papers on autoencoders."""
    problem = Autoencoder()
    outputs, targets = torch.rand(5, 784), torch.rand(5, 784)

    scores = problem.measure(outputs, targets)

    assert set(scores) == set(problem.metrics)
    expected = sum(float((o - t) @ (o - t)) for o, t in zip(outputs, targets, strict=True)) / 5
    assert float(scores["squared_error"]) == pytest.approx(expected, rel=1e-5)
    assert float(scores["mean_squared_error"]) == pytest.approx(expected / 784, rel=1e-5)
    assert float(problem.loss(outputs, targets)) == pytest.approx(expected / 784, rel=1e-5)


def test_targets_are_the_images_themselves():
    """An autoencoder learns its input, on every part of the data."""
    data = Autoencoder().load()

    assert all(x is y for x, y in (data.train, data.validation, data.test))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data": "mnist6k"}, naming("data", "'mnist6k'", "mnist5k")),
        ({"activation": "tan"}, naming("activation", "'tan'", "linear, relu, sigmoid, tanh")),
        ({"output": "x"}, naming("output", "'x'", "linear, relu, sigmoid, tanh")),
        ({"encoder": (10, 3)}, naming("encoder", "[10, 3]", 784, "mnist5k")),
        ({"encoder": (784,)}, naming("encoder", "[784]", 784, "mnist5k")),
        ({"encoder": (784, 0)}, naming("encoder", "[784, 0]", 784, "mnist5k")),
    ],
)
def test_an_autoencoder_that_cannot_be_built_says_why(arguments, message):
    """The constructor checks widths and names."""
    with pytest.raises(ValueError, match=message):
        Autoencoder(**arguments)
