"""Stop rules of CG: a row ends at the first iterate of textbook CG that satisfies its rule."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch.testing import assert_close

from bdhf.optim import (
    CG,
    Forcing,
    Martens,
    MartensProgress,
    ModelError,
    ModelTypeError,
    RelativeResidual,
    Stop,
)
from bdhf.optim.solvers import History
from tests.messages import naming
from tests.optim.systems import SIZES, Diagonal, positive, system, textbook

NORMS = (1.0, 0.5, 0.4, 0.39, 1e-3, 2.0, 1.9)


@pytest.fixture
def problem():
    """Matrices and right-hand sides of five rows, the last one ill-conditioned."""
    sizes = (*SIZES, 60)
    matrices = [positive(n, seed) for seed, n in enumerate(sizes)]
    matrices[-1] = positive(60, 3, condition=500)
    generator = torch.Generator().manual_seed(9)
    return matrices, [torch.randn(n, generator=generator, dtype=torch.float64) for n in sizes]


def solved_alike(solution, other):
    """Whether two solutions have equal bits, counts and reasons."""
    pairs = zip(solution.iterates, other.iterates, strict=True)
    same = all(torch.equal(a.x, b.x) and torch.equal(a.model, b.model) for a, b in pairs)
    fields = ("iterations", "products", "stop")
    return same and all(getattr(solution, field) == getattr(other, field) for field in fields)


def first_within(matrix, rhs, eta, start, diagonal):
    """The first i of textbook CG with ‖rhs - A x_i‖ ≤ η ‖rhs‖ and φ_i < 0."""
    x = torch.zeros_like(rhs) if start is None else start
    trace = [(x, 0.5 * x @ matrix @ x - rhs @ x), *textbook(matrix, rhs, 150, start, diagonal)]
    within = [(rhs - matrix @ x).norm() <= eta * rhs.norm() and phi < 0 for x, phi in trace]
    return within.index(True)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("tol", [0.9, 0.5, 0.1, 1e-2, 1e-4])
def test_relative_residual_stops_at_the_first_small_residual(problem, tol, warm, preconditioned):
    """Every row ends at its first i with ‖r_i‖ ≤ tol · ‖rhs‖, in the norm of r itself."""
    matrices, rhs = problem
    solved = system(matrices, rhs, damping=0.5)
    sizes = [len(b) for b in rhs]
    start = torch.linspace(-0.02, 0.1, sum(sizes), dtype=torch.float64) if warm else None
    starts = [None] * 5 if start is None else start.clone().split(sizes)
    m = torch.linspace(1, 3, sum(sizes), dtype=torch.float64)
    parts = m.split(sizes) if preconditioned else [1.0] * 5
    preconditioner = {"preconditioner": Diagonal(m)} if preconditioned else {}

    solution = CG(150, stop=RelativeResidual(tol), **preconditioner).solve(solved, start)

    damped = [a + 0.5 * torch.eye(len(a), dtype=a.dtype) for a in matrices]
    assert solution.iterations == tuple(
        first_within(*row) for row in zip(damped, rhs, [tol] * 5, starts, parts, strict=True)
    )
    assert solution.stop == (Stop.CONVERGED,) * 5
    assert solution.stopping is None


@pytest.mark.parametrize("tol", [0.5, 1e-2])
def test_forcing_stops_every_row_at_its_own_tolerance(problem, tol):
    """With ‖g_{k-1}‖ and η_{k-1} of each row, it ends at its first i with ‖r_i‖ ≤ η_k ‖g_k‖."""
    matrices, rhs = problem
    ratios = torch.tensor([0.9, 0.5, 0.1, 0.02, 0.05], dtype=torch.float64)
    norms = torch.stack([b.norm() for b in rhs])
    last = torch.stack([norms / ratios, torch.full_like(norms, tol)], 1)
    solved = replace(system(matrices, rhs), stopping=last)

    solution = CG(150, stop=Forcing()).solve(solved)

    etas = [next_eta(float(ratio), tol) for ratio in ratios]
    assert_close(solution.stopping, torch.stack([norms, torch.tensor(etas).to(norms)], 1))
    assert solution.iterations == tuple(
        first_within(a, b, eta, None, 1.0) for a, b, eta in zip(matrices, rhs, etas, strict=True)
    )
    assert len(set(solution.iterations)) > 2


@pytest.mark.parametrize("keep_iterates", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("tol", [0.0, 5e-4, 1e-2])
def test_martens_progress_is_the_rule_of_cg_without_a_rule(problem, tol, warm, keep_iterates):
    """Iterates, counts and reasons are those of `tol`, bit for bit."""
    solved = system(*problem, damping=0.01, keep_iterates=keep_iterates)

    def solution(**setting):
        start = 0.1 * torch.ones_like(solved.rhs) if warm else None
        return CG(120, **setting).solve(solved, start)

    plain, ruled = solution(tol=tol), solution(stop=MartensProgress(tol))

    assert solved_alike(ruled, plain)
    assert (Stop.PROGRESS in plain.stop) == (tol > 0)


@pytest.mark.parametrize("tol", [1.0, 1e6])
def test_martens_progress_compares_no_iterate_with_the_start(tol):
    """However large its tolerance, a row takes the eleven iterations of i > k = 10."""
    rhs = torch.ones(60, dtype=torch.float64)

    solution = CG(100, stop=MartensProgress(tol)).solve(
        system([positive(60, 3, condition=1e4)], [rhs])
    )

    assert solution.iterations == (11,)
    assert solution.stop == (Stop.PROGRESS,)


@pytest.mark.parametrize("tol", [0.0, 1e-6, 1e-2])
def test_relative_residual_is_residual_tol_from_a_cold_start(problem, tol):
    """Iterates, counts and reasons are those of CG(tol=0, residual_tol=tol), bit for bit."""
    solved = system(*problem, damping=0.01)

    plain = CG(500, tol=0, residual_tol=tol).solve(solved)

    assert solved_alike(CG(500, stop=RelativeResidual(tol)).solve(solved), plain)


@pytest.mark.parametrize("stop", [RelativeResidual(0.5), Forcing(0.5), MartensProgress(1.0)])
def test_the_reason_is_that_of_the_rule(stop):
    """A small residual is "converged", small progress is "progress"."""
    rhs = torch.ones(60, dtype=torch.float64)

    solution = CG(300, stop=stop).solve(system([positive(60, 3, condition=1e4)], [rhs]))

    assert solution.stop == (stop.reason,)
    assert 0 < solution.iterations[0] < 60


@pytest.mark.parametrize("stop", [RelativeResidual(0.3), Forcing(0.3)])
@pytest.mark.parametrize("scale", [0.8, 1.2])
def test_a_warm_start_that_is_good_enough_is_the_answer(problem, stop, scale):
    """With ‖r_0‖ ≤ η ‖rhs‖ and φ < 0 a row takes no iteration, and keeps its start."""
    matrices, rhs = problem
    start = scale * torch.cat([torch.linalg.solve(a, b) for a, b in zip(*problem, strict=True)])

    solution = CG(stop=stop).solve(system(matrices, rhs), start.clone())

    assert torch.equal(solution.x, start)
    assert solution.iterations == (0,) * 5
    assert solution.products == (1,) * 5
    assert solution.stop == (Stop.CONVERGED,) * 5


@pytest.mark.parametrize("stop", [RelativeResidual(0.9), Forcing(0.9)])
def test_a_warm_start_that_points_uphill_is_not_the_answer(stop):
    """A small residual with φ > 0 does not stop a row: the answer has rhsᵀx > 0."""
    matrix = torch.tensor([1.0, 1e-4], dtype=torch.float64).diag()
    rhs = torch.tensor([1.0, 1e-2], dtype=torch.float64)
    start = torch.tensor([0.5, -100.0], dtype=torch.float64)
    assert (rhs - matrix @ start).norm() < 0.9 * rhs.norm()
    assert rhs @ start < 0

    solution = CG(stop=stop).solve(system([matrix], [rhs]), start)

    assert solution.iterations[0] > 0
    assert solution.stop == (Stop.CONVERGED,)
    assert rhs @ solution.x > 0


def test_what_ends_every_row_ends_it_beside_a_rule():
    """Negative curvature, NaN, `max_iters` and a residual at rounding, each with its reason."""
    eye = torch.eye(3, dtype=torch.float64)
    matrices = [-eye, math.nan * eye, 2 * eye, positive(60, 3, condition=1e6)]
    rhs = [torch.ones(len(a), dtype=torch.float64) for a in matrices]

    solution = CG(5, stop=RelativeResidual(0.0)).solve(system(matrices, rhs))

    ends = (Stop.NEGATIVE_CURVATURE, Stop.NONFINITE, Stop.CONVERGED, Stop.MAX_ITERS)
    assert solution.stop == ends


def next_eta(ratio, last, gamma=0.9, exponent=2.0, most=0.9):
    """η_k of Eisenstat & Walker's choice 2 (1996, §2.1), by hand."""
    eta, floor = gamma * ratio**exponent, gamma * last**exponent
    return min(max(eta, floor) if floor > 0.1 else eta, most)


def etas_of(rule, norms):
    """η of every row over updates with these gradient norms, (updates, rows)."""
    last, etas = None, []
    for norm in norms:
        zero = torch.zeros_like(norm)
        last = rule.begin(History([zero], norm**2, norm**2), last)
        etas.append(last[:, 1])
    return torch.stack(etas)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", [Forcing(), Forcing(0.2, 0.6, 1.0, 1.5), Forcing(0.9, 0.5)])
def test_eta_is_choice_2_of_eisenstat_and_walker(rule, dtype):
    """η of every row is the recursion by hand over its own gradient norms; the first is bounded."""
    norms = torch.tensor([NORMS, NORMS[::-1]], dtype=dtype).T

    etas = etas_of(rule, norms)

    for row, sequence in enumerate((NORMS, NORMS[::-1])):
        expected = [min(rule.initial, rule.most)]
        for before, after in pairwise(sequence):
            ratio, last = after / before, expected[-1]
            expected.append(next_eta(ratio, last, rule.gamma, rule.exponent, rule.most))
        assert_close(etas[:, row], torch.tensor(expected, dtype=dtype))
    assert len({*etas.flatten().tolist()}) > 1


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_eta_stays_in_its_range_however_noisy_the_norms(scale):
    """Over norms that jump by orders of magnitude 0 ≤ η ≤ most."""
    jumps = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))

    etas = etas_of(Forcing(most=0.7), scale * 10 ** (3 * jumps))

    assert ((etas >= 0) & (etas <= 0.7)).all()


@pytest.mark.parametrize("norm", [0.0, math.inf, math.nan])
def test_eta_starts_again_after_a_gradient_without_a_ratio(norm):
    """The update after such a gradient has η = initial; the next one has a ratio again."""
    norms = torch.tensor([[1.0], [norm], [2.0], [1.0]], dtype=torch.float64)

    etas = etas_of(Forcing(0.4), norms)[:, 0]

    assert etas.isfinite().all()
    assert etas[2] == 0.4
    assert etas[3] == pytest.approx(0.9 * 0.25)


def test_numbers_of_other_blocks_are_refused():
    """Both shapes are named, and what to do."""
    history = History([torch.zeros(3)], torch.ones(3), torch.ones(3))

    with pytest.raises(ModelError, match=naming("Forcing", "(3, 2)", "(4, 2)", "state")):
        Forcing().begin(history, torch.ones(4, 2))


def test_single_precision_meets_its_rule():
    """In float32 the true residual is within the tolerance, up to rounding."""
    matrix = positive(40, 5, condition=300).float()
    rhs = torch.randn(40, generator=torch.Generator().manual_seed(2))

    solution = CG(300, stop=Forcing(0.01), preconditioner=Diagonal(matrix.diagonal())).solve(
        system([matrix], [rhs])
    )

    assert solution.stopping.dtype == torch.float32
    assert solution.stop == (Stop.CONVERGED,)
    assert (rhs - matrix @ solution.x).norm() <= 0.0101 * rhs.norm()


@pytest.mark.parametrize(
    ("rule", "setting"),
    [
        (MartensProgress, {"tol": -1.0}),
        (MartensProgress, {"tol": math.nan}),
        (RelativeResidual, {"tol": 1.0}),
        (RelativeResidual, {"tol": -0.1}),
        (RelativeResidual, {"tol": math.nan}),
        (Forcing, {"initial": 1.0}),
        (Forcing, {"most": 1.0}),
        (Forcing, {"most": -0.1}),
        (Forcing, {"gamma": 0.0}),
        (Forcing, {"gamma": 1.1}),
        (Forcing, {"exponent": 1.0}),
        (Forcing, {"exponent": math.nan}),
    ],
)
def test_settings_out_of_range_are_errors(rule, setting):
    """The error names the rule, the argument and its value."""
    ((name, value),) = setting.items()
    with pytest.raises(ValueError, match=naming(rule.__name__, name, value)):
        rule(**setting)


@pytest.mark.parametrize("setting", [{"tol": 1e-3}, {"tol": 0.0}, {"residual_tol": 0.1}])
def test_a_rule_beside_a_tolerance_is_refused(setting):
    """A rule replaces `tol` and `residual_tol`: the error names the argument and what to do."""
    with pytest.raises(ValueError, match=naming("CG", "stop", *setting, "RelativeResidual")):
        CG(stop=RelativeResidual(0.1), **setting)


@pytest.mark.parametrize("stop", ["forcing", Forcing, 0.1, Martens])
def test_no_rule_in_place_of_a_rule_is_refused(stop):
    """A name, a class or a number in place of a rule."""
    with pytest.raises(ModelTypeError, match=naming("stop", "bdhf.RelativeResidual")):
        CG(stop=stop)
