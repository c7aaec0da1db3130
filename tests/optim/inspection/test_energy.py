"""How much of a matrix lies outside its blocks: the estimate, its parts and its interval."""

from itertools import product as every

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import bdhf
from bdhf.optim.inspection.energy import Energy, squares_of
from tests.cases import Case, build
from tests.messages import naming
from tests.oracles import cut, dense_ggn

PARTITIONS = {
    "per_layer": bdhf.PerLayer(),
    "per_neuron": bdhf.PerNeuron(),
    "random": bdhf.Random(blocks=3, seed=1),
    "blend": bdhf.Blend(bdhf.PerLayer(), alpha=0.3),
}

partitions = pytest.mark.parametrize("partition", PARTITIONS.values(), ids=PARTITIONS)


def tiny():
    """Seven parameters, so that all signs can be tried."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(1, 2), nn.Tanh(), nn.Linear(2, 1)).double()
        return Case(model, F.mse_loss, (torch.randn(5, 1).double(), torch.randn(5, 1).double()))


def matrix(case, partition):
    """The matrix of a case."""
    return bdhf.block_curvature(case.model, case.loss_fn, case.batch, partition=partition)


def dense_parts(case, partition):
    """‖G - G_block‖²_F and ‖G_block‖²_F, with the blocks inside of a blend."""
    dense = dense_ggn(case)
    inner = partition.partition if isinstance(partition, bdhf.Blend) else partition
    block = cut(dense, matrix(case, inner).blocks)
    return (dense - block).square().sum(), block.square().sum()


def dense_energy(case, partition):
    """‖G - G_block‖_F ÷ ‖G‖_F."""
    off, on = dense_parts(case, partition)
    return float((off / (off + on)).sqrt())


@partitions
def test_means_over_all_signs_are_the_frobenius_norms(partition):
    """Σ over all 2^P sign vectors ÷ 2^P is exact for both parts: the estimates are unbiased."""
    case = tiny()
    G = matrix(case, partition)
    signs = torch.tensor(list(every([1.0, -1.0], repeat=G.shape[0])))

    with torch.no_grad():
        off, on = torch.tensor([squares_of(G._product, v) for v in signs]).double().unbind(1)

    expected_off, expected_on = dense_parts(case, partition)
    assert float(off.mean()) == pytest.approx(float(expected_off), rel=1e-6)
    assert float(on.mean()) == pytest.approx(float(expected_on), rel=1e-6)


@partitions
def test_no_estimate_leaves_0_to_1(partition):
    """A single probe is the hardest: cancellation in G v must not make the ratio exceed 1."""
    G = matrix(build("classifier"), partition)

    estimates = [G.off_block_energy(probes=1, seed=seed) for seed in range(30)]

    assert 0 < min(estimates) < max(estimates) <= 1


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_of_a_blend_it_is_that_of_the_partition_inside(alpha):
    """Whatever the weight: the question is whether the blended part is small."""
    case = build("classifier")

    blend = matrix(case, bdhf.Blend(bdhf.PerLayer(), alpha)).off_block_energy()

    assert blend == pytest.approx(matrix(case, bdhf.PerLayer()).off_block_energy(), rel=1e-12)


@pytest.mark.parametrize("name", ["mlp", "classifier"])
def test_the_interval_holds_the_exact_value_as_often_as_it_says(name):
    """Eight probes, 100 seeds: about 95 % of the intervals hold ‖G - G_block‖_F ÷ ‖G‖_F."""
    case, partition = build(name), bdhf.PerLayer()
    G, exact = matrix(case, partition), dense_energy(case, partition)

    ends = [G.off_block_energy_interval(8, seed=seed) for seed in range(100)]

    share = sum(low <= exact <= high for low, high in ends) / len(ends)
    assert share >= 0.9


@pytest.mark.parametrize("probes", [4, 8, 32])
@pytest.mark.parametrize("rank", [1, 3, 40])
def test_the_interval_covers_for_few_probes_of_any_rank(probes, rank):
    """Random G = UUᵀ in four blocks, those of rank 1 with the heaviest tails."""
    draws = torch.Generator().manual_seed(probes + rank)
    hits = []
    for _ in range(40):
        root = torch.randn(40, rank, generator=draws, dtype=torch.float64)
        whole = root @ root.T
        block = cut(whole, list(torch.arange(40).chunk(4)))
        exact = float((whole - block).norm() / whole.norm())
        for _ in range(25):
            signs = torch.randint(0, 2, (40, probes), generator=draws).double() * 2 - 1
            parts = [(part @ signs).square().sum(0) for part in (whole - block, block)]
            low, high = Energy(*parts).interval(0.95)
            hits.append(low <= exact <= high)

    assert 0.92 <= sum(hits) / len(hits) <= 0.995


def test_the_interval_stands_around_the_estimate_of_the_same_probes():
    """Higher levels are wider, and none leaves 0 to 1."""
    G = matrix(build("classifier"), bdhf.PerLayer())

    for seed in range(10):
        low, high = G.off_block_energy_interval(4, seed=seed)
        wide_low, wide_high = G.off_block_energy_interval(4, level=0.99, seed=seed)

        assert 0 <= wide_low < low < G.off_block_energy(4, seed=seed) < high < wide_high <= 1


@pytest.mark.parametrize(
    ("off", "on", "ratio", "interval"),
    [
        ([0.0, 0.0, 0.0], [1.0, 2.0, 3.0], 0.0, (0.0, 0.0)),
        ([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], 1.0, (1.0, 1.0)),
        ([1.0, 0.0, 0.0], [0.0, 2.0, 1.0], 0.5, (0.0, 1.0)),  # one probe is all that is outside
        ([2.0, 2.0, 2.0], [2.0, 2.0, 2.0], 0.5**0.5, (0.5**0.5, 0.5**0.5)),
    ],
)
def test_ends_where_a_part_is_zero(off, on, ratio, interval):
    """Nothing outside, nothing inside, all of it from one probe, or probes that agree."""
    energy = Energy(torch.tensor(off).double(), torch.tensor(on).double())

    assert energy.ratio == pytest.approx(ratio)
    assert energy.interval(0.95) == pytest.approx(interval)


def test_of_zero_there_is_none():
    """0 ÷ 0 has neither an estimate nor an interval."""
    energy = Energy(torch.zeros(3), torch.zeros(3))

    assert [energy.ratio, *energy.interval(0.95)] == pytest.approx([torch.nan] * 3, nan_ok=True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"probes": 2}, naming("probes", 3, 2)),
        ({"probes": 0}, naming("probe", 0)),
        ({"level": 1.0}, naming("level", 0, 1, 1.0)),
        ({"level": 95}, naming("level", 0, 1, 95)),
    ],
)
def test_an_interval_that_cannot_be_is_refused(settings, message):
    """Two probes leave half a degree of freedom; a level is a share."""
    G = matrix(tiny(), bdhf.PerLayer())

    with pytest.raises(ValueError, match=message):
        G.off_block_energy_interval(**settings)


def test_an_optimizer_draws_other_signs_after_every_update():
    """At parameters that hardly move, evaluations differ as independent estimates do."""
    case = build("classifier")
    optimizer = bdhf.BlockHessianFree(case.model, case.loss_fn, lr=1e-12)

    estimates = []
    for _ in range(6):
        estimates.append(optimizer.off_block_energy(case.batch, probes=2))
        assert optimizer.off_block_energy(case.batch, probes=2) == estimates[-1]
        optimizer.step(case.batch)

    assert len({round(estimate, 6) for estimate in estimates}) == 6


def test_an_optimizer_gives_the_interval_of_its_estimate():
    """Of the same probes, so it stands around it; neither changes the optimizer."""
    case = build("classifier")
    optimizer = bdhf.BlockHessianFree(case.model, case.loss_fn)

    low, high = optimizer.off_block_energy_interval(case.batch, probes=8)

    assert low < optimizer.off_block_energy(case.batch) < high
    assert not any(optimizer.state_dict()["state"].values())
