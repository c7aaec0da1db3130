"""Every benchmark gives a number, and their shared functions are right."""

import math
import time

import pytest
import torch

from asv_bench.benchmarks import convergence, devices, models, tracked
from asv_bench.benchmarks.products import subject
from asv_bench.benchmarks.updates import Training
from bdhf.bench.checkout import BENCHMARKS
from bdhf.bench.process import BenchmarkProcess, Skipped
from tests.bench.clones import ROOT

GPUS = [device for device in devices.DEVICES if device != "cpu"]


@pytest.fixture(scope="module")
def worker():
    """A process with the benchmarks of the working tree."""
    with BenchmarkProcess(ROOT, ROOT / BENCHMARKS) as made:
        yield made


def test_what_the_issue_of_benchmarks_has(worker):
    """Files and the numbers of convergence have the names that the site and CI use."""
    names = {case.name for case in worker.cases}

    assert not worker.broken
    assert {name.split(".")[0] for name in names} == {
        "convergence", "framework", "imports", "products", "solvers", "updates",
    }  # fmt: skip
    assert {f"convergence.Convergence.track_{what}" for what in (
        "updates_to_target", "products_to_target", "loss_at_budget", "target_missed",
    )} <= names  # fmt: skip


@pytest.mark.slow
def test_every_benchmark_gives_a_number(worker):
    """The first combination that a benchmark supports gives a finite number."""
    numbers = {}
    for case in worker.cases:
        if case.name in numbers:
            continue
        try:
            if case.kind == "track":
                numbers[case.name] = worker.value(case)
            else:
                worker.prepare(case)
                numbers[case.name] = worker.seconds(case, 1)
        except Skipped:
            continue

    assert numbers.keys() == {case.name for case in worker.cases}
    assert all(math.isfinite(value) and value >= 0 for value in numbers.values())


@pytest.mark.parametrize("model", models.MODELS)
def test_examples_are_the_same_again(model):
    """Parameters and batch of a model are bitwise the same each time."""
    first, second = (models.example(model, "cpu", torch.float64) for _ in range(2))

    pairs = zip(first.model.parameters(), second.model.parameters(), strict=True)
    assert all(torch.equal(a, b) and a.dtype is torch.float64 for a, b in pairs)
    assert all(torch.equal(a, b) for a, b in zip(first.batch, second.batch, strict=True))
    assert set(models.PARTITIONS) == {"full", "groups", "per_layer", "per_neuron"}
    assert all(first.partition(name) is not None for name in models.PARTITIONS)


def test_a_method_that_does_not_do_it_is_left_out():
    """A combination that a method passes to another method is not a benchmark of it."""
    with pytest.raises(NotImplementedError, match="layer_io"):
        subject("classifier", "hessian", "full", "layer_io", "cpu")


@pytest.mark.parametrize("recipe", ["martens2010", "zhang2017 groups", "adam"])
def test_the_update_is_the_same_each_time(recipe):
    """After a reset, an update ends at the same parameters."""
    training = Training(recipe, "autoencoder", "cpu", torch.float64)
    ends = []
    for _ in range(2):
        training.back()
        training.update()
        ends.append([p.detach().clone() for p in training.own.model.parameters()])

    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_a_combination_that_fails_leaves_the_others():
    """The error of one combination is raised only for that combination."""

    def take(letter, number):
        if (letter, number) == ("b", "1"):
            raise ValueError("not b")
        return {"x": float(number)}

    gathered = tracked.gathered(take, (("a", "b"), ("1", "2")))

    assert tracked.taken(gathered, ("b", "2")) == {"x": 2.0}
    with pytest.raises(RuntimeError, match="ValueError: not b"):
        tracked.taken(gathered, ("b", "1"))


def test_a_missed_target_costs_the_budget(monkeypatch):
    """A miss counts the updates of the budget and the products of the whole run."""
    monkeypatch.setattr(convergence, "SPEC", convergence.SPEC
        .replace(f"updates: {convergence.BUDGET}", "updates: 2").replace("count: 2", "count: 1")
        .replace("[250, 500, 1000]", "[250]"))  # fmt: skip

    monkeypatch.setattr(convergence, "BUDGET", 2)

    outcomes = convergence.results()

    runs = {
        optimizer: run for (optimizer, _, device), (run,) in outcomes.items() if device == "cpu"
    }
    assert set(runs) == set(convergence.OPTIMIZERS)
    assert all(run["updates"] == 2 and run["missed"] == 1 for run in runs.values())
    assert runs["adam"]["products"] == 0 < runs["full_hf"]["products"]


def test_the_clock_of_the_host():
    """Without CUDA a duration is measured by the clock of the host."""
    clock = devices.Clock()
    start = clock()
    time.sleep(0.01)

    assert clock() - start >= 0.01


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
def test_the_clock_of_a_gpu(device):
    """With CUDA a duration includes the launched kernels, by events of the device."""
    x = torch.rand(4096, 4096, device=device)
    x @ x
    clock = devices.Clock()
    start = clock()
    for _ in range(20):
        x @ x
    many = clock() - start
    start = clock()
    x @ x
    single = clock() - start

    assert many > 5 * single > 0


@pytest.mark.gpu
@pytest.mark.parametrize("device", GPUS)
def test_benchmarks_on_a_gpu(worker, device):
    """Time and peak memory of a product are measured on the device."""
    label = f"products.Product.{{}}(autoencoder, ggn, full, propagate, {device})"
    cases = {case.label: case for case in worker.cases}
    timed = cases[label.format("time_product")]
    worker.prepare(timed)

    assert worker.seconds(timed, 5) > 0
    assert worker.value(cases[label.format("track_peak_of_product")]) > 0
