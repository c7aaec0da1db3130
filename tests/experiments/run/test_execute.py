"""The training loop: its counts, its end, and failures as outcomes."""

import math
import time

import pandas as pd
import pytest
import torch
from torch import nn

from bdhf.experiments.parts.tables import problem_of
from bdhf.experiments.run import training, updaters
from bdhf.experiments.run.execute import execute
from bdhf.experiments.run.random_streams import BatchSampler, generator
from bdhf.experiments.run.stopping import Reached
from bdhf.experiments.spec.schema import Safety
from bdhf.problems import Autoencoder
from bdhf.records import CURVE_COLUMNS, Budget, Status, Target
from tests.experiments.specs import cell, outcome


def test_a_curve_has_a_row_at_the_start_and_at_every_interval():
    """Updates, samples and epochs are counted; evaluation happens every two updates."""
    result = outcome("block_hf")
    curve = result.curve

    assert result.status is Status.DONE
    assert result.reason == "budget of 6 updates spent"
    assert tuple(curve.columns[: len(CURVE_COLUMNS)]) == CURVE_COLUMNS
    assert curve["update"].tolist() == [0, 2, 4, 6]
    assert curve["samples"].tolist() == [0, 400, 800, 1200]
    assert curve["epoch"].tolist() == pytest.approx([0, 400 / 3500, 800 / 3500, 1200 / 3500])
    assert curve["seconds"].is_monotonic_increasing
    assert curve["seconds"].iloc[0] == 0
    assert curve["val_loss"].iloc[-1] < curve["val_loss"].iloc[0]
    assert curve.loc[1:, ["grad_norm", "step_norm", "cg_iterations"]].notna().all(axis=None)


def test_products_and_gradient_equivalents_are_totals():
    """Five CG iterations an update, one more product for each warm start after the first."""
    curve = outcome("full_hf").curve

    assert curve["products"].tolist() == [0, 11, 23, 35]
    assert curve["gradient_equivalents"].is_monotonic_increasing


def test_metrics_are_those_of_the_problem():
    """Mean and summed squared error on every part of the data, 784 pixels apart."""
    curve = outcome("adam").curve

    for part in ("train", "val", "test"):
        mean = curve[f"{part}_mean_squared_error"]
        assert mean.tolist() == pytest.approx(curve[f"{part}_loss"].tolist(), rel=1e-5)
        assert curve[f"{part}_squared_error"].tolist() == pytest.approx((784 * mean).tolist())


def test_adam_is_the_plain_training_loop():
    """The loop adds nothing to torch: the same loss as a plain loop with Adam."""
    run = cell("adam").run
    problem = problem_of(run.problem)
    model = problem.build()
    problem.initialise(model, generator(run.seed, "initialisation"))
    x, _ = problem.load().train
    adam = torch.optim.Adam(model.parameters(), lr=3e-3)
    order = BatchSampler(len(x), 200, generator(run.seed, "order"))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for _ in range(6):
        adam.zero_grad()
        batch = x[next(order)]
        torch.nn.functional.mse_loss(model(batch), batch).backward()
        adam.step()
    with torch.no_grad():
        expected = torch.nn.functional.mse_loss(model(x), x).item()
    torch.set_num_threads(threads)

    curve = execute(run, device="cpu", safety=Safety(seconds=60)).curve

    assert curve["train_loss"].iloc[-1] == pytest.approx(expected, rel=1e-6)
    assert curve["products"].eq(0).all()
    assert curve["gradient_equivalents"].tolist() == curve["update"].tolist()


def test_lbfgs_runs_through_the_same_loop():
    """An optimizer that calls its closure several times is counted by its gradients."""
    curve = outcome("adam", ("{type: torch.Adam, lr: 3.0e-3}", "{type: torch.LBFGS, max_iter: 3}"))

    assert curve.curve["gradient_equivalents"].iloc[-1] > 6
    assert curve.curve["val_loss"].iloc[-1] < curve.curve["val_loss"].iloc[0]


@pytest.mark.parametrize("arm", ["adam", "full_hf", "block_hf"])
def test_the_same_run_gives_the_same_bits(arm):
    """Two executions differ in their seconds only, whatever the caller drew in between."""
    first = outcome(arm).curve
    torch.rand(7)
    second = outcome(arm).curve

    pd.testing.assert_frame_equal(
        first.drop(columns="seconds"), second.drop(columns="seconds"), check_exact=True
    )


def test_the_callers_random_state_is_untouched():
    """A run draws from its own streams and leaves torch's generator and threads as they were."""
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    outcome("adam")

    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_evaluation_is_in_eval_mode_and_training_in_train_mode(monkeypatch):
    """Modules that behave differently in training do so in training only."""
    modes = []
    scores, step = training.scores, updaters.TorchUpdater.step

    def scored(model, *arguments):
        modes.append(("evaluation", model.training))
        return scores(model, *arguments)

    def stepped(self, *arguments):
        modes.append(("training", self._model.training))
        return step(self, *arguments)

    monkeypatch.setattr(training, "scores", scored)
    monkeypatch.setattr(updaters.TorchUpdater, "step", stepped)

    outcome("adam")

    assert set(modes) == {("evaluation", False), ("training", True)}


def test_adams_norms_are_those_of_its_last_update():
    """The norm of the gradient and of the step, measured where the run is evaluated."""
    run = cell("adam", evaluate_every=1, budget=Budget(updates=1)).run
    problem = problem_of(run.problem)
    model = problem.build()
    problem.initialise(model, generator(run.seed, "initialisation"))
    x = problem.load().train[0][next(BatchSampler(3500, 200, generator(run.seed, "order")))]
    problem.loss(model(x), x).backward()
    gradient = torch.cat([p.grad.reshape(-1) for p in model.parameters()])
    step = 3e-3 * gradient / (gradient.abs() + 1e-8)  # Adam's first step

    curve = execute(run, device="cpu", safety=Safety(seconds=60)).curve

    assert math.isnan(curve["grad_norm"].iloc[0])
    assert curve["grad_norm"].iloc[1] == pytest.approx(gradient.norm().item(), rel=1e-4)
    assert curve["step_norm"].iloc[1] == pytest.approx(step.norm().item(), rel=1e-3)
    assert curve["step_size"].iloc[1] == 3e-3


@pytest.mark.parametrize("sustain", [1, 2, 3])
def test_a_target_is_reached_after_as_many_evaluations_as_it_asks(sustain):
    """A rise or a NaN resets the count."""
    reached = Reached([Target(metric="m", below=1.0, sustain=sustain)])

    ends = [reached.after({"m": m}) for m in (2.0, 1.0, math.nan, 0.5, 1.5, 0.9, 0.8, 0.7)]

    assert ends.index(True) == {1: 1, 2: 6, 3: 7}[sustain]


def test_every_target_must_be_reached_and_none_is_no_reason_to_stop():
    """A target once reached stays reached; without targets nothing ends."""
    easy, hard = Target(metric="m", below=2.0), Target(metric="m", below=1.0)
    reached = Reached([easy, hard])

    assert [reached.after({"m": m}) for m in (2.0, 3.0, 1.0)] == [False, False, True]
    assert not Reached([]).after({"m": 0.0})


def test_a_run_stops_at_its_sustained_target():
    """It ends at the evaluation that completes the count, with the reason."""
    target = Target(metric="val_loss", below=0.08, sustain=2)
    full = outcome("block_hf", budget=Budget(updates=40)).curve
    first = full.index[full["val_loss"] <= 0.08][0]

    result = outcome("block_hf", budget=Budget(updates=40), stop_at=(target,))

    assert result.reason == "every target reached"
    assert len(result.curve) == first + 2
    assert (result.curve["val_loss"].iloc[-2:] <= 0.08).all()
    assert 0 < first < len(full) - 2


@pytest.mark.parametrize(
    ("budget", "column", "limit"),
    [
        (Budget(epochs=0.2), "epoch", 0.2),
        (Budget(products=20), "products", 20),
        (Budget(gradient_equivalents=30), "gradient_equivalents", 30),
    ],
)
def test_a_run_ends_at_the_first_update_that_spends_its_budget(budget, column, limit):
    """The last row is at or past the limit, and evaluated whatever the interval."""
    curve = outcome("full_hf", budget=budget, evaluate_every=1).curve

    assert curve[column].iloc[-1] >= limit
    assert curve[column].iloc[-2] < limit
    coarse = outcome("full_hf", budget=budget, evaluate_every=1000).curve
    assert coarse["update"].tolist() == [0, curve["update"].iloc[-1]]


def test_seconds_are_training_only(monkeypatch):
    """Evaluation is outside the clock: a slow one leaves the seconds as they are."""
    scores = training.scores

    def slow(*arguments):
        time.sleep(0.05)
        return scores(*arguments)

    monkeypatch.setattr(training, "scores", slow)

    def instant(self, batch, curvature, watch):
        return updaters.UpdateRecord(1.0, 1.0, 0.0, 1.0)

    monkeypatch.setattr(updaters.BlockUpdater, "step", instant)

    curve = outcome("block_hf").curve

    assert len(curve) == 4  # 12 scores of 0.05 s
    assert curve["seconds"].iloc[-1] < 0.3


def test_observers_see_every_row():
    """Observed rows are the recorded rows."""
    seen = []

    curve = outcome("adam", observe=seen.append).curve

    assert [row["val_loss"] for row in seen] == curve["val_loss"].tolist()


def test_double_precision_is_double_throughout():
    """dtype: float64 trains in float64: the curve differs from single precision in late digits."""
    single, double = (outcome("full_hf", dtype=d).curve["val_loss"] for d in ("float32", "float64"))

    assert not single.equals(double)
    assert double.tolist() == pytest.approx(single.tolist(), rel=1e-3)
    assert not math.isnan(double.iloc[-1])


def test_off_block_energy_is_recorded_on_request_and_changes_nothing():
    """Asked for, the curve has it, 0 for full HF; the rest of the curve stays the same bits."""
    ask = ("every_updates: 2", "every_updates: 2, off_block_energy: 4")
    plain, asked = outcome("block_hf").curve, outcome("block_hf", ask).curve
    whole = outcome("full_hf", ask).curve
    others = [c for c in plain if c not in ("seconds", "off_block_energy")]

    assert plain["off_block_energy"].isna().all()
    assert asked["off_block_energy"][1:].between(0.01, 1).all()
    assert (whole["off_block_energy"][1:] == 0).all()
    pd.testing.assert_frame_equal(plain[others], asked[others], check_exact=True)
    assert cell("block_hf").run.run_id != cell("block_hf", ask).run.run_id
    assert cell("adam").run.run_id == cell("adam", ask).run.run_id


def test_draws_of_the_fisher_matrix_come_from_the_seed_of_the_run():
    """The same seed gives the same curve, whatever the state of torch's global generator."""
    fisher = ("partition: full,", "partition: full, curvature: fisher,")
    first = outcome("full_hf", fisher).curve
    torch.rand(3)
    second = outcome("full_hf", fisher).curve
    rest = first.columns.drop("seconds")

    pd.testing.assert_frame_equal(first[rest], second[rest], check_exact=True)
    assert not first["train_loss"].equals(outcome("full_hf").curve["train_loss"])


def test_negative_curvature_is_a_column_of_the_curve():
    """A run with the Hessian says in what share of the blocks CG met negative curvature."""
    hessian = ("partition: full,", "partition: full, curvature: hessian,")
    small = ("damping: 1.0e-2", "damping: 1.0e-6")
    curve = outcome("full_hf", hessian, small).curve

    assert curve["negative_curvature"][0] != curve["negative_curvature"][0]
    assert curve["negative_curvature"][1:].isin([0.0, 1.0]).all()
    assert (outcome("full_hf").curve["negative_curvature"][1:] == 0).all()


@pytest.mark.parametrize(
    ("solver", "reason"),
    [
        ("max_iters: 5", "stop_max_iters"),
        ("max_iters: 5, residual_tol: 0.999", "stop_converged"),
        ("max_iters: 30, tol: 0.9", "stop_progress"),
    ],
)
def test_the_curve_says_why_solvers_stopped(solver, reason):
    """Every block of every update stops for one reason; before the first there is none."""
    shares = ["stop_converged", "stop_progress", "stop_max_iters", "negative_curvature"]

    curve = outcome("full_hf", ("max_iters: 5", solver)).curve

    assert curve.loc[0, shares].isna().all()
    assert curve.loc[1:, shares].sum(axis=1).tolist() == pytest.approx([1, 1, 1])
    assert (curve.loc[1:, reason] == 1).all()


class Doubled(torch.autograd.Function):
    """The identity, with a derivative of 2."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient


class Wrong(nn.Module):
    """A module whose derivative is wrong."""

    def forward(self, x):
        return Doubled.apply(x)


def test_products_that_cannot_be_right_end_the_run_as_an_error(monkeypatch):
    """The check comes before the first update, and its reason names a module."""
    build = Autoencoder.build

    def broken(problem):
        model = build(problem)
        model.encoder.append(Wrong())
        return model

    monkeypatch.setattr(Autoencoder, "build", broken)
    result = outcome("full_hf")

    assert result.status is Status.ERROR
    assert "CurvatureError" in result.reason
    assert "'encoder." in result.reason
    assert result.curve["update"].tolist() == [0]


def test_a_budget_of_gradients_buys_a_fused_lstm_its_updates():
    """Torch counts no FLOPs in the fused layer; the unit is the gradient of the whole model."""
    lstm = "{type: sequence_lstm, hidden: 8, layers: 1, peepholes: false}"
    changes = (
        ("{type: autoencoder, encoder: [784, 12, 4]}", lstm),
        ('{type: groups, blocks: [["encoder.*"], ["decoder.*"]]}', "per_layer"),
    )

    result = outcome(
        "full_hf", *changes, budget=Budget(gradient_equivalents=25), evaluate_every=1000
    )

    assert result.curve["update"].iloc[-1] in range(6, 10)  # with peepholes: 8
