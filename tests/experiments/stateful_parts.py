"""A user's own parts that hold state between updates, which a resumed run may lose.

`MODULE` is the text of a module; `OPTIMIZERS` and `PROBLEMS` state for each of its classes whether
a run with it can resume from a checkpoint.
"""

from __future__ import annotations

import random
import sys

import numpy as np
import torch

from bdhf.experiments.plan.expand import expand
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.spec.load import variants
from bdhf.experiments.spec.yaml_source import parse

NAME, MORE = "keeping_parts", "keeping_more"
MODULE = '''
import contextvars
import functools
import itertools
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bdhf.nn import Glorot, Initialisation
from bdhf.problems.data import Data

calls = 0
spread = {"rate": 0.1}
draws = np.random.default_rng(3)
counted = contextvars.ContextVar("counted", default=0)


@functools.cache
def cached_draws():
    return np.random.default_rng(3)


@functools.lru_cache
def share(made):
    return 1.0 / made


class Descent(torch.optim.Optimizer):
    """Gradient descent by a factor that each of these makes in its own way."""

    def __init__(self, params, lr=0.05):
        super().__init__(params, {"lr": lr})
        self.begin()

    def begin(self):
        pass

    def factor(self):
        return 1.0

    @property
    def first(self):
        return self.param_groups[0]["params"][0]

    def step(self, closure):
        loss = closure()
        factor = self.factor()
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    p -= group["lr"] * factor * p.grad
        return loss


class Scheduled(Descent):
    def begin(self):
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self, lambda n: 1.0 if n < 9 else 0.1)

    def factor(self):
        self.schedule.step()
        return 1.0


class ScheduledAndSaved(Scheduled):
    def state_dict(self):
        return {**super().state_dict(), "schedule": self.schedule.state_dict()}

    def load_state_dict(self, state):
        state = dict(state)
        self.schedule.load_state_dict(state.pop("schedule"))
        super().load_state_dict(state)


class Counting(Descent):
    def begin(self):
        self.made = 0

    def factor(self):
        self.made += 1
        return 1.0 if self.made < 9 else 0.1


class InState(Descent):
    def factor(self):
        state = self.state[self.first]
        state["made"] = state.get("made", 0) + 1
        return 1.0 / state["made"]


class InGroup(Descent):
    def factor(self):
        self.param_groups[0]["lr"] *= 0.9
        return 1.0


class InSlots(Descent):
    class Count:
        __slots__ = ("made",)

    def begin(self):
        self.count = self.Count()
        self.count.made = 0

    def factor(self):
        self.count.made += 1
        return 1.0 / self.count.made


class InClosure(Descent):
    def begin(self):
        made = 0

        def count():
            nonlocal made
            made += 1
            return made

        self.count = count

    def factor(self):
        return 1.0 / self.count()


class InClass(Descent):
    made = 0

    def factor(self):
        type(self).made += 1
        return 1.0 / type(self).made


class OnParameter(Descent):
    def factor(self):
        self.first.made = getattr(self.first, "made", 0) + 1
        return 1.0 / self.first.made


class InIterator(Descent):
    def begin(self):
        self.rates = itertools.cycle([1.0, 0.5, 0.1])

    def factor(self):
        return next(self.rates)


class InGenerator(Descent):
    def begin(self):
        self.rates = (1.0 / n for n in itertools.count(1))

    def factor(self):
        return next(self.rates)


class PythonsOwn(Descent):
    def begin(self):
        self.draws = random.Random(0)

    def factor(self):
        return self.draws.random()


class NumPysOwn(Descent):
    def begin(self):
        self.draws = np.random.default_rng(0)

    def factor(self):
        return float(self.draws.random())


class TorchsOwn(Descent):
    def begin(self):
        self.draws = torch.Generator().manual_seed(0)

    def factor(self):
        return float(torch.rand((), generator=self.draws))


class PythonsGlobal(Descent):
    def factor(self):
        return random.random() + random.gauss(0.0, 0.1)


class NumPysGlobal(Descent):
    def factor(self):
        return float(np.random.random() + np.random.normal(0.0, 0.1))


class TorchsGlobal(Descent):
    def factor(self):
        return float(torch.rand(()))


class OfModule(Descent):
    def factor(self):
        return float(draws.random())


class InCache(Descent):
    def factor(self):
        return float(cached_draws().random())


class OfContext(Descent):
    def factor(self):
        counted.set(counted.get() + 1)
        return 1.0 / counted.get()


class OfLateImport(Descent):
    """Counts in another module, and acts late."""

    def factor(self):
        import keeping_more

        keeping_more.made += 1
        return 1.0 if keeping_more.made < 9 else 0.1


class ByCache(Descent):
    def factor(self):
        state = self.state[self.first]
        state["made"] = state.get("made", 0) + 1
        return share(state["made"])


class Averaging(Descent):
    def begin(self):
        self.mean = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    def factor(self):
        with torch.no_grad():
            for mean, p in zip(self.mean, self.param_groups[0]["params"]):
                mean.lerp_(p, 0.1)
                p.lerp_(mean, 0.2)
        return 1.0


class AveragingInState(Descent):
    def factor(self):
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                mean = self.state[p].setdefault("mean", p.detach().clone())
                mean.lerp_(p, 0.1)
                p.lerp_(mean, 0.2)
        return 1.0


class Later(Descent):
    """Keeps something from the 7th update on; what counts the updates is saved."""

    def factor(self):
        state = self.state[self.first]
        state["made"] = state.get("made", 0) + 1
        if state["made"] >= 7:
            self.keep(state["made"])
        return self.later

    later = 1.0


class CountingLater(Later):
    def begin(self):
        self.bad = 0

    def keep(self, made):
        self.bad += 1

    @property
    def later(self):
        return 1.0 / (1 + self.bad)


class AveragingLater(Later):
    def begin(self):
        self.mean = torch.zeros_like(self.first)

    def keep(self, made):
        with torch.no_grad():
            self.mean.lerp_(self.first, 0.1)
            self.first.lerp_(self.mean, 0.3)


class FreezingLater(Later):
    def keep(self, made):
        if made == 7:
            self.first.requires_grad_(False)
        if self.first.grad is None:
            self.first.grad = torch.zeros_like(self.first)


class GroupingLater(Later):
    def keep(self, made):
        if made == 7:
            last = self.param_groups[0]["params"].pop()
            self.add_param_group({"params": [last], "lr": 0.01})


class Watching(Descent):
    """Keeps its parameters twice, and what every update replaces."""

    def begin(self):
        self.all = [p for group in self.param_groups for p in group["params"]]

    def factor(self):
        self.last = self.first.grad.clone()
        return 1.0


class LastGradient(Descent):
    def step(self, closure):
        before = [p.grad.clone() if p.grad is not None else 0.0
                  for p in self.param_groups[0]["params"]]
        loss = closure()
        with torch.no_grad():
            for p, old in zip(self.param_groups[0]["params"], before):
                p -= 0.05 * (p.grad + 0.5 * old)
        return loss


class Unreadable(Descent):
    def factor(self):
        self.state[self.first]["kind"] = Unreadable  # a class, which no checkpoint may hold
        return 1.0


@dataclass(frozen=True)
class Line:
    """Three features to one number, made up."""

    init: Initialisation = Glorot()

    blocks = (("*",),)
    metrics = ()
    samples = 40

    def __post_init__(self):
        object.__setattr__(self, "kept", {"calls": 0, "cache": None})

    @property
    def loss(self):
        return nn.functional.mse_loss

    def load(self):
        draws = torch.Generator().manual_seed(1)
        x = torch.randn(60, 3, generator=draws)
        y = x.sin().sum(1, keepdim=True)
        self.kept["cache"] = x
        return Data(train=(x[:40], y[:40]), validation=(x[40:50], y[40:50]), test=(x[50:], y[50:]))

    def example(self, samples):
        return torch.zeros(samples, 3), torch.zeros(samples, 1)

    def build(self):
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    def initialise(self, model, generator):
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=generator)

    def measure(self, outputs, targets):
        return {}


@dataclass(frozen=True)
class Matrices(Line):
    def build(self):
        return nn.Sequential(nn.Linear(3, 4, bias=False), nn.Tanh(), nn.Linear(4, 1, bias=False))


@dataclass(frozen=True)
class CountingLoss(Line):
    @property
    def loss(self):
        def loss(outputs, targets):
            self.kept["calls"] += 1
            return nn.functional.mse_loss(outputs, targets) / self.kept["calls"] ** 0.5

        return loss


def globally(outputs, targets):
    global calls
    calls += 1
    return nn.functional.mse_loss(outputs, targets) / calls ** 0.5


@dataclass(frozen=True)
class GlobalLoss(Line):
    @property
    def loss(self):
        return globally


class Gain(nn.Module):
    """Scales by what it has seen, in a buffer, and beside it."""

    def __init__(self, *, persistent, beside=False):
        super().__init__()
        self.register_buffer("seen", torch.ones(()), persistent=persistent)
        self.beside, self.times = beside, 1

    def forward(self, x):
        if self.training and torch.is_grad_enabled():
            self.times += self.beside
            self.seen = self.seen * 1.1
        return x * self.seen.log1p() / self.times


@dataclass(frozen=True)
class Buffered(Line):
    persistent = True
    beside = False

    def build(self):
        return nn.Sequential(*Line().build(), Gain(persistent=self.persistent, beside=self.beside))


@dataclass(frozen=True)
class Unbuffered(Buffered):
    persistent = False


@dataclass(frozen=True)
class Beside(Buffered):
    beside = True


@dataclass(frozen=True)
class Dropping(Line):
    def build(self):
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Dropout(0.5), nn.Linear(4, 1))


@dataclass(frozen=True)
class Rule:
    """Damping that counts its updates in a list."""

    value: float = 0.1
    per_block: bool = False

    def __post_init__(self):
        object.__setattr__(self, "made", [])

    @property
    def initial(self):
        return self.value

    def update(self, damping, ratio):
        self.made.append(ratio)
        return self.value / len(self.made)
'''

#: Optimizer -> whether a run with it resumes from its checkpoint.
OPTIMIZERS = {
    "Descent": True, "Scheduled": False, "ScheduledAndSaved": True, "Counting": False,
    "InState": True, "InGroup": True, "InSlots": False, "InClosure": False, "InClass": False,
    "OnParameter": False, "InIterator": False, "InGenerator": False, "PythonsOwn": False,
    "NumPysOwn": False, "TorchsOwn": False, "PythonsGlobal": True, "NumPysGlobal": True,
    "TorchsGlobal": True, "OfModule": False, "Averaging": False, "AveragingInState": True,
    "LastGradient": False, "Unreadable": False, "Watching": True,
    "InCache": False, "OfContext": False, "OfLateImport": False, "ByCache": True,
}  # fmt: skip

#: Optimizers whose first checkpoints are valid, and later ones are not.
LATER = ("CountingLater", "AveragingLater", "FreezingLater", "GroupingLater")

#: Problem -> whether a run on it resumes from its checkpoint.
PROBLEMS = {
    "Line": True, "Matrices": True, "CountingLoss": False, "GlobalLoss": False, "Buffered": True,
    "Unbuffered": True, "Beside": False, "Dropping": True,
}  # fmt: skip

SPEC = """\
schema: 1
name: keeping
problem: keeping_parts:{problem}
batch: {{gradient: 16, curvature: {curvature}}}
arms: {{arm: {arm}}}
seeds: {{count: 1}}
budget: {{updates: 14}}
evaluate: {{every_updates: 2}}
"""


def anew() -> None:
    """Reset modules and generators, as in a new process."""
    for name in (NAME, MORE):
        sys.modules.pop(name, None)
    random.seed()
    np.random.seed()
    torch.seed()


def spec_of(arm: str, problem: str = "Line", curvature: int = 8) -> str:
    """The spec of an arm, in YAML, on a problem of the module."""
    return SPEC.format(arm=arm, problem=problem, curvature=curvature)


def run_of(arm: str, problem: str = "Line", curvature: int = 8) -> RunSpec:
    """Its run."""
    return expand(variants(parse(spec_of(arm, problem, curvature)))).cells[0].run


def importable(folder, monkeypatch):
    """Make the module importable for Python and its workers; for a fixture to yield from."""
    (folder / f"{NAME}.py").write_text(MODULE)
    (folder / f"{MORE}.py").write_text("made = 0")
    monkeypatch.syspath_prepend(str(folder))
    yield
    for name in (NAME, MORE):
        sys.modules.pop(name, None)
