"""A user's own problems for the tests, each with one fault that a plan must detect."""

from __future__ import annotations

from pathlib import Path

from tests.experiments.specs import changed

#: A valid regression on four numbers, and variants of it.
MODULE = '''
from dataclasses import dataclass
import torch
from torch.nn import functional as F
from bdhf.nn import Glorot, Initialisation
from bdhf.problems.data import Data


@dataclass(frozen=True)
class Fits:
    init: Initialisation = Glorot()
    blocks = (("0.*",), ("2.*",))
    metrics = ("absolute",)
    samples = 40
    loads = 40

    @property
    def loss(self):
        return F.mse_loss

    def load(self):
        part = self.example(self.loads)
        return Data(part, part, part)

    def example(self, samples):
        inputs = torch.linspace(-1, 1, 4 * samples).reshape(samples, 4)
        return inputs, inputs.sum(1, keepdim=True)

    def build(self):
        return torch.nn.Sequential(torch.nn.Linear(4, 3), self.between(), torch.nn.Linear(3, 1))

    def between(self):
        return torch.nn.Tanh()

    def initialise(self, model, generator):
        self.init(model, generator)

    def measure(self, outputs, targets):
        return {"absolute": (outputs - targets).abs().mean()}


class Flat(Fits):
    """Targets (N,) against outputs (N, 1)."""

    def example(self, samples):
        inputs, targets = super().example(samples)
        return inputs, targets[:, 0]


def l1(outputs, targets):
    return F.l1_loss(outputs, targets)


def smooth(outputs, targets):
    return F.smooth_l1_loss(target=targets, input=outputs)


def by_hand(outputs, targets):
    return ((outputs - targets) ** 2).mean()


def squeezed(outputs, targets):
    return F.mse_loss(outputs.squeeze(1), targets)


class L1(Flat):
    loss = staticmethod(l1)


class Smooth(Flat):
    loss = staticmethod(smooth)


class Huber(Flat):
    loss = torch.nn.HuberLoss()


class ByHand(Flat):
    loss = staticmethod(by_hand)


class Squeezed(Flat):
    loss = staticmethod(squeezed)


class Wide(Fits):
    """Targets (N, 1) against outputs (N, 3), which torch broadcasts too."""

    def build(self):
        return torch.nn.Linear(4, 3)


class Many(Fits):
    samples = 5000


class Dropping(Fits):
    def between(self):
        return torch.nn.Dropout(0.5)


class Normed(Fits):
    def between(self):
        return torch.nn.BatchNorm1d(3)


class Plain(Fits):
    def load(self):
        return self.example(40), self.example(4), self.example(4)


class Bytes(Fits):
    def example(self, samples):
        inputs, targets = super().example(samples)
        return inputs.byte(), targets


class Other(Fits):
    """`load` gives images, `example` vectors."""

    def load(self):
        inputs, targets = self.example(40)
        part = inputs.reshape(40, 2, 2), targets
        return Data(part, part, part)


class Doubles(Fits):
    """`load` gives the other floating dtype, which every run casts."""

    def load(self):
        return super().load().map(lambda part: (part[0].double(), part[1].double()))


class Unpaired(Fits):
    def load(self):
        inputs, targets = self.example(40)
        return Data((inputs, targets[:30]), (inputs, targets), (inputs, targets))


class Failing(Fits):
    def load(self):
        raise FileNotFoundError("data.csv is gone")


class Unmeasured(Fits):
    metrics = ("absolute", "relative")


class Unwilling(Fits):
    def example(self, samples):
        raise NotImplementedError

    def load(self):
        part = Fits.example(self, 40)
        return Data(part, part, part)


class Infinite(Fits):
    def example(self, samples):
        inputs, targets = super().example(samples)
        return inputs * float("inf"), targets


class Drawing(Fits):
    """Draws without a generator wherever it can."""

    def example(self, samples):
        import random

        import numpy as np

        random.random(), np.random.rand()
        return torch.rand(samples, 4), torch.rand(samples, 1)

    def load(self):
        return Data(self.example(40), self.example(4), self.example(4))


@dataclass(frozen=True)
class Concrete(Fits):
    init: Glorot = Glorot()


@dataclass(frozen=True)
class Objects(Fits):
    init: Initialisation = Glorot()
    device: torch.device = torch.device("cpu")


@dataclass(frozen=True)
class Lambda(Fits):
    init: Initialisation = lambda model, generator: None


class Stubborn(torch.optim.Optimizer):
    """Takes matrices only, and says so in its first step."""

    def __init__(self, params, lr=0.1):
        super().__init__(params, {"lr": lr})

    def step(self, closure):
        with torch.enable_grad():
            loss = closure()
        if any(p.ndim != 2 for group in self.param_groups for p in group["params"]):
            raise ValueError("matrices only")
        return loss
'''

SPEC = """\
schema: 1
name: own
problem: "own_problems_here:Fits"
batch: {gradient: 20, curvature: 10}
arms:
  adam: {type: torch.Adam, lr: 3.0e-3}
  hf: {type: block_hf, partition: full, damping: 1.0e-2, solver: {type: cg, max_iters: 3}}
seeds: {count: 2}
budget: {updates: 2}
"""


def written(folder: Path, problem: str = "Fits", *changes: tuple[str, str]) -> Path:
    """Write a spec of one of these problems, changed, and their module."""
    (folder / "own_problems_here.py").write_text(MODULE)
    file = folder / "spec.yaml"
    file.write_text(changed((":Fits", f":{problem}"), *changes, text=SPEC))
    return file
