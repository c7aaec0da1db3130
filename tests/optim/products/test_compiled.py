"""Products through torch.compile: the same numbers, compiled once a shape, counted as before."""

import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters
from torch.nn import functional as F
from torch.testing import assert_close

import bdhf
from bdhf.optim.forward.objective import Objective
from bdhf.optim.partitions.blocks_of import cut
from bdhf.optim.products import Settings, Workspace, linearise
from bdhf.optim.torch_support.flops import Flops
from bdhf.optim.vectors.layout import layout_of
from tests.cases import Case, build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, while it compiles
]


@pytest.fixture(autouse=True)
def _fresh():
    """What other tests compiled does not count."""
    torch._dynamo.reset()
    counters.clear()


def convolutional():
    """A convolution, a pool and a classifier."""
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)
    )  # fmt: skip
    return Case(model, F.cross_entropy, (torch.randn(5, 1, 6, 6), torch.randint(0, 3, (5,))))


def perceptron():
    """Two linear layers."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    return Case(model, F.mse_loss, (torch.randn(5, 4), torch.randn(5, 2)))


class Scaled(nn.Module):
    """A layer with outputs scaled by a number that is no tensor, and possibly flipped."""

    def __init__(self):
        super().__init__()
        self.linear, self.scale, self.turned = nn.Linear(3, 2), 1.0, False

    def forward(self, x):
        h = self.linear(x)
        return torch.tanh(h) * self.scale if self.turned else torch.sigmoid(h) * self.scale


def product(case, workspace=None, partition=None, seed=0, **settings):
    """A product with a random vector, after everything that it takes."""
    blocks = cut(layout_of(case.model), partition or bdhf.PerLayer())
    made = linearise(
        Objective.of(case.model, case.loss_fn), [case.batch], curvature=bdhf.GGN(), blocks=blocks,
        flops=Flops(), settings=Settings(method="propagate", **settings), workspace=workspace,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(blocks.layout.size, generator=generator).to(made.gradient)
    with torch.no_grad():
        made(v)  # the first one is counted, and runs one by one
        return made(v)


def programs(workspace):
    """Keys of what has been compiled."""
    return [key for key in workspace.kept if key[0] == "compiled"]


@pytest.mark.parametrize("build_case", [convolutional, perceptron])
def test_products_are_the_same_compiled(build_case):
    """All layers of a network, to 1e-5; and the program was made and used."""
    torch.manual_seed(0)
    case, workspace = build_case(), Workspace()
    expected = product(case)
    compiled = product(case, workspace, compile=True)

    assert programs(workspace)
    assert counters["stats"]["unique_graphs"] == len(programs(workspace))
    assert_close(compiled, expected, rtol=0, atol=1e-5 * float(expected.norm()))


def test_a_program_serves_every_update_of_its_shape():
    """The second update compiles nothing, at other parameters; another shape compiles again."""
    torch.manual_seed(0)
    case, workspace = perceptron(), Workspace()
    product(case, workspace, compile=True)
    made, compiled = len(programs(workspace)), counters["stats"]["unique_graphs"]
    with torch.no_grad():
        for parameter in case.model.parameters():
            parameter.add_(torch.randn_like(parameter))
    replayed = product(case, workspace, compile=True)

    assert made == compiled == 2  # layers
    assert len(programs(workspace)) == made
    assert counters["stats"]["unique_graphs"] == compiled
    assert_close(replayed, product(case))
    fewer = Case(case.model, case.loss_fn, tuple(part[:3] for part in case.batch))
    assert_close(product(fewer, workspace, compile=True), product(fewer))
    assert len(programs(workspace)) == 2 * made


def test_a_program_serves_only_the_pass_that_it_was_made_of():
    """A number or an operator that has changed since is not that of the old program."""
    torch.manual_seed(0)
    x = torch.randn(5, 3)
    case, workspace = Case(Scaled(), F.mse_loss, (x, torch.randn(5, 2))), Workspace()
    for scale, turned in ((1.0, False), (2.0, False), (2.0, True), (1.0, False)):
        case.model.scale, case.model.turned = scale, turned
        assert_close(product(case, workspace, compile=True), product(case))
    assert len(programs(workspace)) == 3


def test_costs_are_counted_as_without():
    """A count of FLOPs watches the operators one by one, so both updates report the same."""
    spent = []
    for compiled in (False, True):
        case = build("mlp", dtype=torch.float32)
        optimizer = bdhf.BlockHessianFree(
            case.model, case.loss_fn, solver=bdhf.CG(max_iters=3, tol=0), check=False,
            method="propagate", compile=compiled,
        )  # fmt: skip
        infos = [optimizer.step(case.batch) for _ in range(2)]
        spent.append([info.gradient_equivalents for info in infos])

    assert counters["stats"]["unique_graphs"] > 0
    assert spent[0] == spent[1]


def test_an_optimizer_takes_the_same_steps_compiled():
    """Three updates from the same start end at the same parameters."""
    ends = []
    for compiled in (False, True):
        case = build("classifier")
        optimizer = bdhf.BlockHessianFree(
            case.model, case.loss_fn, method="propagate", compile=compiled
        )  # fmt: skip
        for _ in range(3):
            optimizer.step(case.batch)
        ends.append(torch.cat([p.detach().flatten() for p in case.model.parameters()]))

    assert_close(ends[0], ends[1], rtol=1e-6, atol=1e-6)
