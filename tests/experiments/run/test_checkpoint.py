"""Checkpoints: a run that was killed resumes, with the same curve."""

import errno
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from torch import nn

from bdhf.experiments.errors import SpecError
from bdhf.experiments.run import training, updaters
from bdhf.experiments.run.checkpoint import Checkpoint
from bdhf.experiments.run.execute import execute
from bdhf.experiments.spec.schema import Safety
from bdhf.problems import Autoencoder
from bdhf.records import Budget, Status, Target
from tests.experiments.specs import planned
from tests.messages import naming

#: An epoch ends within update 12; what keeps anything from update to update is in one of the arms.
LONG = """\
schema: 1
name: long
problem: {type: autoencoder, encoder: [49, 12, 4], downsample: 4}
batch: {gradient: 300, curvature: 60}
arms:
  adam: {type: torch.Adam, lr: 3.0e-3}
  momentum: {type: torch.SGD, lr: 0.1, momentum: 0.9}
  lbfgs: {type: torch.LBFGS, max_iter: 3, history_size: 5}
  full_hf: &hf {type: block_hf, partition: full, lr: 0.5, damping: 1.0e-2,
                solver: {type: cg, max_iters: 5, warm_start: 0.95}}
  block_hf: {<<: *hf, partition: groups}
  martens: {<<: *hf, partition: groups, acceptance: backtracking, lr: 1.0,
            damping: {type: levenberg_marquardt, initial: 0.1, per_block: true}}
  fisher: {<<: *hf, partition: per_layer, curvature: {type: fisher, samples: 2}}
  blend: {<<: *hf, partition: {type: blend, partition: groups, alpha: 0.5}}
seeds: {count: 1}
budget: {updates: 14}
evaluate: {every_updates: 2, off_block_energy: 2}
"""
ARMS = ("adam", "momentum", "lbfgs", "full_hf", "block_hf", "martens", "fisher", "blend")
PROBLEMS = {
    "dense": "{type: autoencoder, encoder: [49, 12, 4], downsample: 4}",
    "recurrent": "{type: sequence_lstm, hidden: 2, layers: 1}",
    "convolutional": "{type: resnet, channels: [3, 5], downsample: 4}",
}
KILLED_AT = 10  # saved at updates 4 and 8


class Killed(BaseException):
    """Ends a run with an exception that it does not catch."""


def spec_of(arm, *, problem=None, **update):
    """The run of an arm of the long spec."""
    text = (
        LONG
        if problem is None
        else LONG.replace("{type: autoencoder, encoder: [49, 12, 4], downsample: 4}", problem)
    )
    run = next(cell.run for cell in planned(text=text).cells if cell.arm == arm)
    return run.model_copy(update=update)


def kept(tmp_path, every=2, at_least_seconds=0.0):
    """A checkpoint that every second evaluation writes."""
    return Checkpoint(tmp_path / "run.ckpt", every, at_least_seconds)


def run(spec, checkpoint=None, observe=lambda row: None, seconds=600.0):
    """Execute a run."""
    safety = Safety(seconds=seconds)
    return execute(spec, device="cpu", safety=safety, observe=observe, checkpoint=checkpoint)


def killed(spec, checkpoint, at=KILLED_AT):
    """Execute a run until its evaluation at an update, where it is killed."""

    def die(row):
        if row["update"] == at:
            raise Killed

    with pytest.raises(Killed):
        run(spec, checkpoint, observe=die)


def assert_same_curve(curve, expected):
    """All columns but seconds have the same bits."""
    drop = {"columns": "seconds"}
    pd.testing.assert_frame_equal(curve.drop(**drop), expected.drop(**drop), check_exact=True)


def assert_continues(spec, checkpoint):
    """A killed run resumes after its last checkpoint, with the curve of an undisturbed run."""
    seen = []
    killed(spec, checkpoint)

    outcome = run(spec, checkpoint, observe=seen.append)

    assert outcome.resumed == 1
    assert [row["update"] for row in seen] == [10, 12, 14]
    assert_same_curve(outcome.curve, run(spec).curve)
    assert outcome.curve["seconds"].is_monotonic_increasing


@pytest.mark.parametrize("arm", ARMS)
def test_a_killed_run_ends_with_the_curve_of_an_undisturbed_one(tmp_path, arm):
    """Bit for bit in every column but seconds, whatever state an optimizer keeps."""
    assert_continues(spec_of(arm), kept(tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["adam", "block_hf", "martens"])
@pytest.mark.parametrize("problem", ["recurrent", "convolutional"])
def test_so_does_one_on_sequences_or_images(tmp_path, arm, problem):
    """Recurrent and convolutional models, whose kind of product is chosen once per run."""
    few = {"gradient_batch": 40, "curvature_batch": 20, "off_block_energy": None}

    assert_continues(spec_of(arm, problem=PROBLEMS[problem], **few), kept(tmp_path))


def test_what_draws_from_the_global_generator_continues_drawing_the_same(tmp_path, monkeypatch):
    """Dropout draws from torch's global generator, which is saved too."""
    build = Autoencoder.build

    def dropping(problem):
        model = build(problem)
        model.encoder.append(nn.Dropout(0.3))
        return model

    monkeypatch.setattr(Autoencoder, "build", dropping)

    assert_continues(spec_of("adam"), kept(tmp_path))


def test_a_sustained_target_counts_evaluations_from_before(tmp_path):
    """The count of a target survives the kill: the run stops at the same evaluation."""
    whole = run(spec_of("adam")).curve
    value = float(whole.loc[whole["update"] == 4, "val_loss"].iloc[0])
    target = Target(metric="val_loss", below=value, sustain=5)  # at 4, 6, 8, 10 and 12
    spec = spec_of("adam", stop_at=(target,))
    killed(spec, kept(tmp_path))

    outcome = run(spec, kept(tmp_path))

    assert outcome.reason == "every target reached"
    assert outcome.curve["update"].iloc[-1] == 12


def test_a_run_may_be_killed_again_and_again(tmp_path):
    """It counts its resumptions, and repeats nothing that was saved."""
    spec, checkpoint, seen = spec_of("full_hf"), kept(tmp_path, every=1), []
    for at in (4, 8, 12):
        killed(spec, checkpoint, at)

    outcome = run(spec, checkpoint, observe=seen.append)

    assert outcome.resumed == 3
    assert [row["update"] for row in seen] == [12, 14]
    assert_same_curve(outcome.curve, run(spec).curve)


def test_what_is_decided_once_a_run_is_decided_again_on_the_same_batch(tmp_path, monkeypatch):
    """The check and the first update are repeated, on the same parameters and samples."""
    calls, check, step = [], updaters.BlockUpdater.check, updaters.BlockUpdater.step

    def seen(name, self, curvature):
        first = self._optimizer.objective.theta()
        calls.append((name, first.numpy().tobytes(), curvature[0].numpy().tobytes()))

    def checked(self, batch, curvature, watch):
        seen("check", self, curvature)
        check(self, batch, curvature, watch)

    def stepped(self, batch, curvature, watch):
        seen("step", self, curvature)
        return step(self, batch, curvature, watch)

    monkeypatch.setattr(updaters.BlockUpdater, "check", checked)
    monkeypatch.setattr(updaters.BlockUpdater, "step", stepped)
    killed(spec_of("block_hf"), kept(tmp_path))
    before, calls[:] = list(calls), []

    run(spec_of("block_hf"), kept(tmp_path))

    assert [name for name, *_ in calls] == ["check", "step"] + 6 * ["step"]  # from update 9 to 14
    assert calls[:2] == before[:2]
    assert calls[2:4] == before[-2:]


def test_saving_changes_nothing(tmp_path):
    """A run that is saved at every evaluation has the curve of one that never is."""
    spec = spec_of("martens")

    outcome = run(spec, kept(tmp_path, every=1))

    assert outcome.resumed == 0
    assert_same_curve(outcome.curve, run(spec).curve)


def test_how_often_a_run_is_saved_is_no_part_of_its_id():
    """`safety.checkpoint_every` is a number of evaluations, or null for never."""
    often, never = (
        planned(("seeds:", f"safety: {{checkpoint_every: {every}}}\nseeds:"), text=LONG)
        for every in ("3", "null")
    )

    assert [cell.run.run_id for cell in often.cells] == [cell.run.run_id for cell in never.cells]
    with pytest.raises(SpecError, match=naming("safety.checkpoint_every", 0)):
        planned(("seeds:", "safety: {checkpoint_every: 0}\nseeds:"), text=LONG)


def test_a_short_run_is_not_saved(tmp_path):
    """No file before `at_least_seconds` have passed, nor before `every` evaluations."""
    run(spec_of("adam"), kept(tmp_path, every=1, at_least_seconds=3600.0))
    run(spec_of("adam"), kept(tmp_path, every=8))

    assert list(tmp_path.iterdir()) == []


def test_a_discarded_checkpoint_is_gone(tmp_path):
    """Whether it was there or not."""
    checkpoint = kept(tmp_path)
    run(spec_of("adam"), checkpoint)
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]

    checkpoint.discard()
    checkpoint.discard()

    assert list(tmp_path.iterdir()) == []


def changed(**header):
    """Write another header over a checkpoint."""

    def change(path):
        torch.save(torch.load(path, weights_only=True) | header, path)

    return change


def cut(length):
    """Cut a file."""
    return lambda path: path.write_bytes(path.read_bytes()[:length])


def flip(path):
    """Change one byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    "spoil",
    [
        cut(0), cut(100), cut(-1), flip,
        lambda path: path.write_text("none of ours"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save({"state": print}, path),
        changed(format=0), changed(run="another"), changed(torch="1.0"), changed(device="cuda"),
        changed(numpy="1.0"), changed(bdhf="0"),
    ],
    ids=[
        "empty", "torn", "short by a byte", "flipped", "text", "a list", "code",
        "format", "run", "torch", "device", "numpy", "bdhf",
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_ignored(tmp_path, spoil):
    """The run starts again, with the same curve."""
    spec, checkpoint = spec_of("adam"), kept(tmp_path)
    killed(spec, checkpoint)
    spoil(checkpoint.path)

    outcome = run(spec, checkpoint)

    assert outcome.resumed == 0
    assert outcome.status is Status.DONE
    assert_same_curve(outcome.curve, run(spec).curve)


def test_a_checkpoint_of_another_run_is_not_taken_up(tmp_path):
    """A run does not resume from another seed."""
    killed(spec_of("adam"), kept(tmp_path))

    assert run(spec_of("adam", seed=1), kept(tmp_path)).resumed == 0


def test_a_run_that_cannot_be_saved_continues(tmp_path):
    """It warns once, and is done."""
    (tmp_path / "file").write_text("no folder")
    checkpoint = Checkpoint(tmp_path / "file" / "run.ckpt", 1, 0.0)

    with pytest.warns(RuntimeWarning, match=re.escape(str(checkpoint.path))) as caught:
        outcome = run(spec_of("adam"), checkpoint)

    assert len(caught) == 1
    assert outcome.status is Status.DONE


def test_a_save_that_fails_leaves_the_last_one(tmp_path, monkeypatch):
    """A full disk costs only the new checkpoint, and leaves no part of it."""
    spec, checkpoint, calls = spec_of("adam"), kept(tmp_path), []

    def full(handle):
        calls.append(handle)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.warns(RuntimeWarning, match="No space left on device"):
        killed(spec, checkpoint)

    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]
    seen = []
    monkeypatch.undo()
    assert_same_curve(run(spec, checkpoint, observe=seen.append).curve, run(spec).curve)
    assert seen[0]["update"] == 6


def test_the_safety_limit_counts_the_wall_clock_before_a_kill_and_not_the_time_between(
    tmp_path, monkeypatch
):
    """A run has one limit over all resumptions; the time in between does not count."""

    class Clock:
        now = 0.0

        def __call__(self):
            self.now += 1.0
            return self.now

    clock, spec, checkpoint = Clock(), spec_of("adam"), kept(tmp_path)
    stand_in = SimpleNamespace(monotonic=clock, perf_counter=training.time.perf_counter)
    monkeypatch.setattr(training, "time", stand_in)
    killed(spec, checkpoint)
    used = torch.load(checkpoint.path, weights_only=True)["state"]["wall_clock"]
    clock.now += 1e6

    assert used > 20
    assert run(spec, checkpoint, seconds=used).status is Status.TIMEOUT
    assert run(spec, checkpoint, seconds=2 * used).status is Status.DONE


CHILD = """
import os, signal, sys
from pathlib import Path
from bdhf.experiments.run.checkpoint import Checkpoint
from bdhf.experiments.run.execute import execute
from bdhf.experiments.spec.schema import Safety
from tests.experiments.run.test_checkpoint import spec_of

folder, arm, dies = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "dies"

def observe(row):
    if dies and row["update"] == 10:
        os.kill(os.getpid(), signal.SIGKILL)

checkpoint = Checkpoint(folder / "run.ckpt", 2, 0.0)
outcome = execute(
    spec_of(arm), device="cpu", safety=Safety(), observe=observe, checkpoint=checkpoint
)
outcome.curve.assign(resumed=outcome.resumed).to_parquet(folder / "curve.parquet")
"""


@pytest.mark.slow
def test_a_process_that_is_killed_loses_nothing_but_time(tmp_path):
    """SIGKILL, then a new process: the curve is that of an undisturbed run."""

    def child(last):
        command = [sys.executable, "-c", CHILD, str(tmp_path), "martens", last]
        return subprocess.run(command, env={**os.environ}, check=False).returncode

    assert child("dies") == -signal.SIGKILL
    assert not (tmp_path / "curve.parquet").exists()
    assert child("lives") == 0

    curve = pd.read_parquet(tmp_path / "curve.parquet")
    assert curve.pop("resumed").eq(1).all()
    assert_same_curve(curve, run(spec_of("martens")).curve)


def test_a_budget_of_seconds_continues_where_it_stood(tmp_path):
    """Seconds of training are saved too: a spent budget stays spent."""
    spec, checkpoint = spec_of("adam", budget=Budget(seconds=1e9)), kept(tmp_path)
    killed(spec, checkpoint)
    content = torch.load(checkpoint.path, weights_only=True)
    content["state"]["seconds"] = 2e9
    torch.save(content, checkpoint.path)

    outcome = run(spec, checkpoint)

    assert outcome.reason == "budget of 1e+09 seconds spent"
    assert outcome.curve["update"].iloc[-1] == 9
