"""Interrupted and resumed: the bits of an undisturbed run, or a message that it starts again."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd
import pytest
import torch

from bdhf.experiments.parts.tables import (
    ACCEPTANCES,
    CURVATURES,
    DAMPINGS,
    MOMENTUMS,
    PARTITIONS,
    PRECONDITIONERS,
    REGULARIZATIONS,
    SOLVERS,
    STOPS,
)
from bdhf.experiments.parts.torch_optimizers import torch_optimizers
from bdhf.experiments.plan.runspec import RunSpec
from bdhf.experiments.run.checkpoint import Checkpoint, Interrupted
from bdhf.experiments.run.execute import Outcome, execute
from bdhf.experiments.run.process_state import undisturbed
from bdhf.experiments.run.random_streams import global_state
from bdhf.experiments.run.training import Training
from bdhf.experiments.spec.schema import Safety
from bdhf.records import Status
from tests.experiments import stateful_parts
from tests.experiments.stateful_parts import LATER, NAME, OPTIMIZERS, PROBLEMS, importable, run_of


class Killed(BaseException):
    """Ends a run without a chance to save."""


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    """The module of own parts, where Python finds it."""
    yield from importable(tmp_path, monkeypatch)


class Case:
    """A run with a checkpoint, and its messages."""

    def __init__(self, spec: RunSpec, folder, every: int = 2):
        self.spec, self.told = spec, []
        self.checkpoint = Checkpoint(folder / "run.ckpt", every, 0.0)

    def run(self, *, saved=True, observe=lambda row: None, asked=lambda: False) -> Outcome:
        """Execute it as a new process does."""
        stateful_parts.anew()
        return execute(
            self.spec, device="cpu", safety=Safety(seconds=600), observe=observe, asked=asked,
            checkpoint=self.checkpoint if saved else None, note=self.told.append,
        )  # fmt: skip

    def kill(self, at: int) -> None:
        """End it at its evaluation at an update."""

        def die(row):
            if row["update"] == at:
                raise Killed

        with pytest.raises(Killed):
            self.run(observe=die)

    def interrupt(self, after: int) -> None:
        """Ask it to end after an update."""
        updates = iter(range(1, 100))
        with pytest.raises(Interrupted):
            self.run(asked=lambda: next(updates) == after)


INTERRUPTIONS = {
    "before the first checkpoint": lambda case: case.kill(2),
    "after it": lambda case: case.kill(10),
    "just after that of Ctrl-C": lambda case: case.interrupt(7),
    "after both": lambda case: (case.kill(8), case.interrupt(3)),
}


def assert_same_bits(first: pd.DataFrame, second: pd.DataFrame) -> None:
    """In every column but seconds."""
    drop = {"columns": "seconds"}
    pd.testing.assert_frame_equal(first.drop(**drop), second.drop(**drop), check_exact=True)


def check_interrupted(spec, folder, resumable, how):
    """Its curve is that of an undisturbed run, with a message if it could not be saved."""
    case = Case(spec, folder)
    whole = case.run(saved=False)
    INTERRUPTIONS[how](case)

    taken_up = case.run()

    assert whole.status is Status.DONE, whole.trace
    assert_same_bits(taken_up.curve, whole.curve)
    assert (taken_up.no_checkpoint == "") == resumable, taken_up.no_checkpoint
    assert bool(case.told) != resumable
    assert bool(taken_up.resumed) == (resumable and how != "before the first checkpoint")
    assert case.checkpoint.path.exists() == resumable


#: Arguments without which an optimizer of torch does not keep what it can keep.
TORCH_ARGUMENTS = {
    "torch.SGD": "momentum: 0.9", "torch.LBFGS": "max_iter: 3", "torch.Adam": "amsgrad: true",
    "torch.RMSprop": "momentum: 0.5, centered: true",
}  # fmt: skip

#: Settings of an arm of block HF that replace defaults: one line per entry of the tables.
BLOCK_HF = {
    "partition full": "partition: full",
    "partition per_layer": "partition: per_layer",
    "partition per_neuron": "partition: per_neuron",
    "partition groups": "partition: {type: groups, blocks: [['0.*'], ['2.*']]}",
    "partition random": "partition: {type: random, blocks: 2}",
    "partition blend": "partition: {type: blend, partition: per_layer, alpha: 0.5}",
    "solver cg": "solver: {type: cg, max_iters: 3, warm_start: 0}",
    "solver sample_space": "solver: sample_space",
    "solver cholesky": "solver: cholesky",
    "solver direction": "solver: direction",
    "solver saddle_free": "solver: {type: saddle_free, iterations: 3}",
    "damping constant": "damping: 0.2",
    "damping levenberg_marquardt": "damping: {type: levenberg_marquardt, initial: 0.1}",
    "damping structural": "damping: {type: structural, damping: 0.2, weight: 0.5, modules: ['0']}",
    "damping of each block": "damping: {type: levenberg_marquardt, per_block: true}",
    "regularization l2": "regularization: 0.01",
    "momentum quadratic": "momentum: quadratic",
    "a warm start": "solver: {type: cg, max_iters: 3, warm_start: 0.9}",
    **{f"curvature {name}": f"curvature: {name}, damping: 3.0" for name in CURVATURES},
    **{f"acceptance {name}": f"acceptance: {name}" for name in ACCEPTANCES},
    **{f"preconditioner {name}": f"solver: {{type: cg, preconditioner: {name}}}"
       for name in PRECONDITIONERS},
    **{f"stop {name}": f"solver: {{type: cg, stop: {name}}}" for name in STOPS},
}  # fmt: skip

#: Name -> (arm, problem, whether it resumes from a checkpoint).
CASES = {
    **{f"optimizer {name}": (f"{NAME}:{name}", "Line", resumes)
       for name, resumes in OPTIMIZERS.items()},
    **{f"problem {name}": ("{type: torch.SGD, lr: 0.05, momentum: 0.9}", name, resumes)
       for name, resumes in PROBLEMS.items()},
    "damping Rule": (f"{{type: block_hf, damping: {NAME}:Rule}}", "Line", False),
    **{name: (f"{{type: {name}, lr: 0.01, {TORCH_ARGUMENTS.get(name, '')}}}", "Matrices", True)
       for name in torch_optimizers() if name != "torch.SparseAdam"},  # no sparse gradients here
    **{name: (f"{{type: block_hf, {part}}}", "Line", True) for name, part in BLOCK_HF.items()},
}  # fmt: skip

#: The sample of the default suite: one case of each kind.
SAMPLE = {
    ("optimizer Scheduled", "after it"),
    ("optimizer OfModule", "after it"),
    ("optimizer OfLateImport", "after it"),
    ("optimizer ByCache", "after it"),
    ("optimizer NumPysGlobal", "just after that of Ctrl-C"),
    ("optimizer InGenerator", "before the first checkpoint"),
    ("problem CountingLoss", "just after that of Ctrl-C"),
    ("problem Unbuffered", "after it"),
    ("torch.Adam", "after both"),
    ("damping levenberg_marquardt", "just after that of Ctrl-C"),
    ("stop forcing", "after it"),
    ("momentum quadratic", "just after that of Ctrl-C"),
}


def cases():
    """Every case under every interruption; beyond the sample in the long suite only."""
    for name in CASES:
        for how in INTERRUPTIONS:
            marks = () if (name, how) in SAMPLE else (pytest.mark.long,)
            yield pytest.param(name, how, marks=marks, id=f"{name}, {how}")


@pytest.mark.parametrize(("name", "how"), [*cases()])
def test_an_interrupted_run_ends_as_if_undisturbed(name, how, tmp_path):
    """Bit for bit, whatever state its parts keep; or it reports that it starts again."""
    arm, problem, resumes = CASES[name]

    check_interrupted(run_of(arm, problem), tmp_path, resumes, how)


@pytest.mark.parametrize(
    "name",
    [n if n == "AveragingLater" else pytest.param(n, marks=pytest.mark.long) for n in LATER],
)
def test_what_a_part_keeps_later_ends_the_checkpoints(name, tmp_path):
    """The last earlier checkpoint stays, and the run resumes from there, bit for bit."""
    case = Case(run_of(f"{NAME}:{name}"), tmp_path)
    whole = case.run(saved=False)
    case.kill(12)

    taken_up = case.run()

    assert_same_bits(taken_up.curve, whole.curve)
    assert taken_up.resumed == 1
    assert taken_up.no_checkpoint
    assert case.checkpoint.path.exists()
    assert taken_up.no_checkpoint in case.told[-1]


@pytest.mark.parametrize(
    ("arm", "most"),
    [
        (f"{NAME}:Watching", 2),
        *(pytest.param(arm, 1, marks=pytest.mark.long)
          for arm in ("torch.Adam", "torch.LBFGS", "block_hf")),
    ],
)  # fmt: skip
def test_what_comes_again_is_not_tried_at_every_save(arm, most, tmp_path, monkeypatch):
    """One test for each change of unsaved state."""
    trials, replay = [], Training.replay
    monkeypatch.setattr(
        Training, "replay", lambda *arguments: trials.append(1) or replay(*arguments)
    )

    case = Case(run_of(arm), tmp_path, every=1)

    assert case.run().no_checkpoint == ""
    assert len(trials) == most


@pytest.mark.parametrize("name", ["PythonsGlobal", "NumPysGlobal"])
def test_who_watches_a_run_may_draw_as_well(name, tmp_path):
    """From the global generators, which the run uses: its curve stays."""

    def draw(row):
        random.random(), np.random.random(), torch.rand(())

    case = Case(run_of(f"{NAME}:{name}"), tmp_path)

    assert_same_bits(case.run(saved=False, observe=draw).curve, case.run(saved=False).curve)


def test_what_a_trial_does_to_the_process_is_put_back():
    """Generators, settings of torch and its global hooks are restored."""
    device = torch.device("cpu")
    before = global_state(device), torch.get_default_dtype(), torch.get_num_threads()
    hook = torch.nn.modules.module.register_module_forward_hook(lambda *_: None)
    hooks = torch.nn.modules.module._global_forward_hooks
    kept = dict(hooks)

    with undisturbed(device):
        random.random(), np.random.random(), torch.rand(())
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        torch.nn.modules.module.register_module_forward_hook(lambda *_: None)

    assert (global_state(device)["python"], *before[1:]) == (
        before[0]["python"], torch.get_default_dtype(), torch.get_num_threads()
    )  # fmt: skip
    assert global_state(device)["numpy"] == before[0]["numpy"]
    assert torch.equal(global_state(device)["torch"][0], before[0]["torch"][0])
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.is_grad_enabled()
    assert hooks == kept
    hook.remove()


def test_a_trial_leaves_no_trace_in_the_run(tmp_path):
    """Its curve is that of a run without checkpoints, also if the test fails."""
    for name in ("InGenerator", "TorchsGlobal", "InCache", "OfContext"):
        case = Case(run_of(f"{NAME}:{name}"), tmp_path)

        assert_same_bits(case.run().curve, case.run(saved=False).curve)


@pytest.mark.parametrize(
    ("table", "kind"),
    [(PARTITIONS, "partition"), (SOLVERS, "solver"), (DAMPINGS, "damping"),
     (REGULARIZATIONS, "regularization"), (MOMENTUMS, "momentum")],
)  # fmt: skip
def test_every_entry_of_the_tables_is_a_case(table, kind):
    """A new part needs a case here."""
    assert {f"{kind} {name}" for name in table} <= set(CASES)
