"""The classification problems: their models, the blocks of the paper, and invalid arguments."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from bdhf.nn import Glorot, Initialisation, PeepholeLSTM
from bdhf.optim.partitions import Groups
from bdhf.optim.vectors.layout import layout_of
from bdhf.problems import MLP, ResNet, SequenceLSTM, Transformer
from bdhf.problems.classification import Classification
from tests.messages import naming


def sizes(problem):
    """Parameters of every block."""
    return [rows.shape[1] for rows in Groups(problem.blocks)(layout_of(problem.build()))]


@dataclass(frozen=True)
class Narrow(Classification):
    """A problem with only a size, blocks and a model."""

    width: int = 3
    init: Initialisation = Glorot()  # noqa: RUF009 - parts are frozen, so sharing one is safe

    @property
    def blocks(self):
        """One block for everything."""
        return (("*",),)

    def build(self):
        """Build two linear layers."""
        return nn.Sequential(nn.Linear(784, self.width), nn.Linear(self.width, 10))


def test_a_problem_needs_sizes_blocks_and_a_model_only():
    """Data, loss and metric are those of every classification of images."""
    problem, other = Narrow(data_seed=1), MLP(data_seed=1)
    model = problem.build()
    problem.initialise(model, torch.Generator().manual_seed(0))
    outputs, targets = model(problem.example(6)[0]), problem.example(6)[1]

    assert repr(problem) == "Narrow(data='mnist5k', data_seed=1, width=3, init=Glorot())"
    assert all(map(torch.equal, problem.load().train, other.load().train))
    assert problem.measure(outputs, targets) == other.measure(outputs, targets)
    assert (problem.loss, problem.metrics) == (other.loss, other.metrics)


@pytest.mark.parametrize(
    ("hidden", "blocks", "counts"),
    [
        ((100, 50), (["0.*"], ["2.*", "4.*"]), [78500, 5560]),
        ((10, 10, 700), (["0.*", "2.*"], ["4.*", "6.*"]), [7960, 14710]),
        ((20,), (["0.*"], ["2.*"]), [15700, 210]),
    ],
)
def test_the_blocks_of_an_mlp_are_halves(hidden, blocks, counts):
    """Two blocks of whole layers, as equal in size as possible."""
    problem = MLP(hidden=hidden)

    assert problem.blocks == blocks
    assert sizes(problem) == counts


def test_an_mlp_has_its_activation_between_linear_layers():
    """Hidden layers have it; the scores of the classes are linear."""
    model = MLP(hidden=(8, 6), activation="relu").build()

    kinds = [type(module).__name__ for module in model]
    assert kinds == ["Linear", "ReLU", "Linear", "ReLU", "Linear", "Identity"]


def test_a_sequence_is_the_averaged_image_read_row_by_row():
    """Step 7 r + c is the mean of 4×4 pixels."""
    images = MLP().load().validation[0].reshape(-1, 28, 28)
    sequences = SequenceLSTM().load().validation[0]

    assert sequences.shape == (500, 49, 1)
    expected = images[:, 12:16, 8:12].mean((1, 2))
    assert_close(sequences[:, 7 * 3 + 2, 0], expected)


def test_peepholes_can_be_left_out():
    """Without them it is the LSTM of torch, with the same names and blocks."""
    with_them, without = SequenceLSTM().build(), SequenceLSTM(peepholes=False).build()

    assert isinstance(with_them.lstm, PeepholeLSTM)
    assert isinstance(without.lstm, nn.LSTM)
    names = [name for name, _ in with_them.named_parameters() if "peephole" not in name]
    assert names == [name for name, _ in without.named_parameters()]
    assert [len(SequenceLSTM(peepholes=p).blocks) for p in (True, False)] == [3, 3]


def test_the_classifier_reads_the_last_state_of_the_top_layer():
    """The scores come from h of the last layer after the last step."""
    problem = SequenceLSTM(hidden=5, layers=2)
    model = problem.build()
    inputs, _ = problem.example(3)

    _, (h, _) = model.lstm(inputs)
    assert_close(model(inputs), model.classifier(h[-1]))


def test_a_resnet_halves_the_image_from_the_second_block_on():
    """Shortcuts are convolutions where the shape changes, the identity elsewhere."""
    model = ResNet(channels=(4, 4, 8)).build()
    features = model.activation(model.stem(ResNet().example(2)[0]))
    shapes = []
    for block in model.blocks:
        features = block(features)
        shapes.append(tuple(features.shape[1:]))

    assert shapes == [(4, 28, 28), (4, 14, 14), (8, 7, 7)]
    kinds = [type(block.shortcut).__name__ for block in model.blocks]
    assert kinds == ["Identity", "Conv2d", "Conv2d"]


def test_activations_of_a_resnet_keep_their_scale_with_depth():
    """Forty blocks without normalisation neither vanish nor explode."""
    problem = ResNet(channels=(8,) * 40)
    blocks = problem.build().blocks.double()
    for block in blocks:  # keep the size of the image, to see the scale alone
        block.conv1.stride, block.shortcut = (1, 1), nn.Identity()
    problem.initialise(blocks, torch.Generator().manual_seed(0))
    inputs = torch.rand(4, 8, 6, 6, dtype=torch.float64)

    growth = float(blocks(inputs).detach().norm() / inputs.norm())
    assert 0.1 < growth < 10


def test_a_transformer_reads_rows_whose_order_counts():
    """Tokens are the 28 rows; positions distinguish them."""
    problem = Transformer(width=8, heads=2, layers=1, feedforward=8)
    model = problem.build()
    problem.initialise(model, torch.Generator().manual_seed(0))
    inputs, _ = problem.example(3)

    assert_close(inputs.flatten(1), MLP().example(3)[0])
    assert not torch.allclose(model(inputs), model(inputs.flip(1)), atol=1e-4)
    model.positions.data.zero_()
    assert_close(model(inputs), model(inputs.flip(1)))


def test_a_transformer_scores_alike_in_training_and_evaluation():
    """The fast path of evaluation computes the same function."""
    problem = Transformer()
    model = problem.build()
    inputs, _ = problem.example(5)
    with torch.no_grad():
        trained, evaluated = model.train()(inputs), model.eval()(inputs)

    assert_close(trained, evaluated, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("problem", "arguments", "message"),
    [
        (MLP, {"hidden": ()}, naming("hidden", "[]", 1)),
        (MLP, {"hidden": (10, 0)}, naming("hidden", "[10, 0]", 1)),
        (MLP, {"activation": "tan"}, naming("activation", "'tan'", "linear, relu")),
        (SequenceLSTM, {"hidden": 0}, naming("hidden", 1, 0)),
        (SequenceLSTM, {"layers": 0}, naming("layers", 1, 0)),
        (ResNet, {"channels": ()}, naming("channels", "[]", 1)),
        (ResNet, {"channels": (8, -1)}, naming("channels", "[8, -1]", 1)),
        (Transformer, {"layers": 0}, naming("layers", 1, 0)),
        (Transformer, {"width": 30}, naming("width", 30, 4, "heads")),
    ],
)
def test_a_model_that_cannot_be_built_says_why(problem, arguments, message):
    """The constructor checks sizes and names."""
    with pytest.raises(ValueError, match=message):
        problem(**arguments)


@pytest.mark.parametrize(
    "problem", [SequenceLSTM(hidden=4), ResNet(channels=(2, 3)), Transformer()]
)
def test_it_can_be_differentiated_twice_in_float32(problem):
    """Every kernel of the model has the derivatives that curvature products need."""
    model = problem.build()
    problem.initialise(model, torch.Generator().manual_seed(0))
    inputs, targets = problem.example(4)
    outputs = model(inputs)
    parameters = list(model.parameters())
    loss = problem.loss(outputs, targets)
    gradient = torch.autograd.grad(loss, parameters, create_graph=True)

    products = torch.autograd.grad(sum((g * g).sum() for g in gradient), parameters)

    assert all(product.isfinite().all() for product in products)
