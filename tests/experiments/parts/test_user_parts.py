"""A user's own parts, named in a spec as `package.module:name`."""

import re

import pytest
import torch

from bdhf.experiments.errors import SpecError
from bdhf.experiments.parts.tables import optimizer_of, problem_of
from bdhf.experiments.plan.expand import expand
from bdhf.experiments.run.execute import execute
from bdhf.experiments.spec.load import load_spec
from bdhf.experiments.spec.schema import Safety
from bdhf.records import Status
from tests.experiments.specs import changed
from tests.messages import naming

MODULE = """
from dataclasses import dataclass
import torch
from bdhf.problems import MLP
from bdhf.optim import Constant


def halves(layout):
    places = torch.arange(layout.size)
    return [places[: layout.size // 2][None], places[layout.size // 2 :][None]]


@dataclass(frozen=True)
class Chunks:
    size: int = 1000

    def __post_init__(self):
        if self.size < 1:
            raise KeyError("size must be above 0")

    def __call__(self, layout):
        return [chunk[None] for chunk in torch.arange(layout.size).split(self.size)]


@dataclass(frozen=True)
class Decaying(Constant):
    factor: float = 0.9

    def update(self, damping, reduction_ratio):
        return damping * self.factor


class SignDescent(torch.optim.Optimizer):
    def __init__(self, params, lr=1e-3):
        super().__init__(params, {"lr": lr})

    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * p.grad.sign()
        return loss


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Torn:
    size: "Unheard" = 1


class Plain:
    pass


class Weighted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))

    def forward(self, outputs, targets):
        return torch.nn.functional.cross_entropy(outputs * self.scale.exp(), targets)


@dataclass(frozen=True)
class Scaled(MLP):
    @property
    def loss(self):
        return Weighted()


number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the user's modules, for specs."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "lab_parts.py").write_text(MODULE)
    (folder / "lab_broken.py").write_text("raise RuntimeError('of its own')")
    (folder / "lab_script.py").write_text("import sys\nsys.exit()")
    return folder


def opened(folder, *changes):
    """The small spec, changed, loaded from that folder."""
    (folder / "spec.yaml").write_text(changed(*changes))
    return load_spec(folder / "spec.yaml")[0]


OWN = {
    "function": ("partition: full", "partition: lab_parts:halves"),
    "dataclass": ("partition: full", "partition: {type: lab_parts:Chunks, size: 5000}"),
    "damping": ("damping: 1.0e-2", "damping: {type: lab_parts:Decaying, value: 0.1}"),
    "optimizer": ("{type: torch.Adam, lr: 3.0e-3}", "{type: lab_parts:SignDescent, lr: 1.0e-3}"),
    "in a part": ("partition: full",
                  "partition: {type: blend, partition: lab_parts:halves, alpha: 0.5}"),
}  # fmt: skip


@pytest.mark.parametrize("own", OWN)
def test_an_own_part_is_resolved_built_and_trained(folder, own):
    """It is used like a part of the tables: in the id, in the run's file, in training."""
    spec = opened(folder, OWN[own])[0].spec
    arm = "adam" if own == "optimizer" else "full_hf"

    cell = next(c for c in expand(opened(folder, OWN[own])).cells if c.arm == arm)
    outcome = execute(cell.run, device="cpu", safety=Safety(seconds=60))

    assert outcome.status is Status.DONE, outcome.reason
    assert "lab_parts:" in str(spec.arms[arm])
    assert outcome.curve["val_loss"].iloc[-1] < outcome.curve["val_loss"].iloc[0]


def test_defaults_of_an_own_part_are_written_out(folder):
    """The id contains them, so another default in the code makes other runs."""
    spec = opened(folder, ("partition: full", "partition: lab_parts:Chunks"))[0].spec
    arm = spec.arms["full_hf"]
    problem = problem_of(spec.problem)

    optimizer = optimizer_of(arm, problem.build(), problem)

    assert arm["partition"] == {"type": "lab_parts:Chunks", "size": 1000}
    assert isinstance(optimizer, torch.optim.Optimizer)
    sizes = [block.size for block in optimizer.blocks.rows]
    assert set(sizes[:-1]) == {1000}


def test_a_problem_whose_loss_is_trained_is_refused(folder):
    """Arms of torch train only the model's parameters, and runs keep only those."""
    with pytest.raises(SpecError) as caught:
        opened(
            folder, ("{type: autoencoder, encoder: [784, 12, 4]}", "lab_parts:Scaled"),
            ('[["encoder.*"], ["decoder.*"]]', '[["*"]]'),
        )  # fmt: skip

    assert re.search(naming("problem", "lab_parts:Scaled", "loss"), caught.value.lines[0])


#: A part that is refused -> what the line names.
WRONG = {
    "no module": ("lab_gone:Chunks", ("lab_gone", "ModuleNotFoundError")),
    "broken": ("lab_broken:Chunks", ("lab_broken", "RuntimeError: of its own")),
    "a script": ("lab_script:Chunks", ("lab_script", '`if __name__ == "__main__":`')),
    "no name": ("lab_parts:Chunk", ("lab_parts", "'Chunk'")),
    "its names": ("lab_parts:Chunk", ("halves, Chunks",)),
    "nearest": ("lab_parts:Chunk", ("'Chunks'",)),
    "number": ("lab_parts:number", ("lab_parts:number", "int", "dataclass")),
    "class": ("lab_parts:Plain", ("lab_parts:Plain", "class", "dataclass")),
    "spelling": ("lab_parts:", ("'lab_parts:'", "package.module:name")),
    "role": ("lab_parts:Nothing", ("lab_parts:Nothing", "partition", "__call__")),
    "annotation": ("lab_parts:Torn", ("lab_parts:Torn", "'Unheard'")),
    "key": ("{type: lab_parts:Chunks, sise: 3}", ("lab_parts:Chunks", "'sise'", "'size'")),
    "type": ("{type: lab_parts:Chunks, size: a}", ("size", "integer", "'a'")),
    "value": ("{type: lab_parts:Chunks, size: 0}", ("size", 0)),
    "builtin": ("os:system", ("os:system", "builtin_function_or_method")),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_part_is_reported_where_it_is_named(folder, wrong):
    """One line with the path, for anything that the module raises."""
    part, names = WRONG[wrong]
    quoted = f'"{part}"' if part.endswith(":") else part

    with pytest.raises(SpecError) as caught:
        opened(folder, ("partition: full", f"partition: {quoted}"))

    assert len(caught.value.lines) == 1
    assert "arms.full_hf.partition" in caught.value.lines[0]
    assert re.search(naming(*names), caught.value.lines[0])


@pytest.mark.parametrize("name", ["lab_parts:Chunks", "lab_parts:gone"])
def test_an_own_optimizer_is_one_of_torchs_kind(folder, name):
    """Anything else is a fault at the arm."""
    with pytest.raises(SpecError, match=r"arms\.adam"):
        opened(folder, ("{type: torch.Adam, lr: 3.0e-3}", f"{{type: {name}}}"))
