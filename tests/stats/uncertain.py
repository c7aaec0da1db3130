"""Simulated runs in seconds, some without a plain outcome, and independent rules for verdicts.

    slow      a run takes 200 times as long, and is stopped after an hour, before its target
    lost      a run never starts, or fails before the target
    diverged  a run diverges before the target
    coarse    every run reaches its target, and only every k-th update is evaluated
    costlier  the same, and an update of the candidate takes ten times as long

These rules are independent of `bdhf.stats`, which reads tables: they take arrays of one comparison
(2, n), the candidate first. `test_uncertain.py` compares the two.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from tests.stats import vectorised
from tests.stats.simulated_costs import CostModel

LIMIT, SAFETY = 1500, 3600.0  # updates of the budget, seconds of wall-clock
PACE, SLOWER = 0.1, 200.0  # seconds an update, and how many times that of a slow run
COSTLIER = np.array([[10.0], [1.0]])  # how many times that of an update of either arm
EVALUATED = ("coarse", "costlier")  # kinds whose share is k
KINDS = ("slow", "lost", "diverged")
ALPHA, MARGIN, LEAST_HITS, ALIKE = 0.05, 1.1, 0.8, 1.25


@dataclass(frozen=True)
class Drawn:
    """One ablation of two arms, (2, n) each: recorded runs and their true costs."""

    updates: np.ndarray  # at which an uninterrupted run reaches the target
    pace: np.ndarray  # seconds an update
    ended: np.ndarray  # updates that the run made; 0 where it was not started
    status: np.ndarray  # "done", "timeout", "error", "planned" or "diverged"
    every: int = 1  # updates between evaluations

    @property
    def hits(self):
        """Which runs reached their target."""
        return self.status == "done"

    @property
    def recorded(self):
        """Recorded updates of the hit, at the next evaluation."""
        return np.ceil(self.updates / self.every) * self.every

    @property
    def costs(self):
        """Seconds to target; NaN for runs without an outcome."""
        costs = np.where(self.hits, self.recorded * self.pace, np.nan)
        diverged = self.status == "diverged"
        return np.where(diverged, self._tau if diverged.any() else np.nan, costs)

    @property
    def earliest(self):
        """Seconds at which a hit may have been reached: one update after the evaluation before."""
        before = (self.recorded - self.every + 1) * self.pace
        return np.where(self.hits, before, self.costs)

    @property
    def ends(self):
        """Bounds on the cost of every run."""
        costs, spent = self.costs, self.ended * self.pace
        gave_up = self.status == "timeout"
        most = np.where(gave_up & (spent == 0), np.inf, self._slowest[:, None])
        least, most = spent, np.maximum(np.maximum(spent, most), np.where(gave_up, SAFETY, 0.0))
        missing = np.isnan(costs)
        least, most = np.where(missing, least, costs), np.where(missing, most, costs)
        return np.where(self.status == "diverged", self._largest, least), most

    @property
    def full_costs(self):
        """The true cost of every run, within the bounds."""
        costs = np.where(self.status == "timeout", np.maximum(self.updates * self.pace, SAFETY),
                         self.updates * self.pace)  # fmt: skip
        counts = np.maximum(LIMIT * self.pace, self._largest)
        return np.where(self.status == "diverged", counts, costs)

    @property
    def floor(self):
        """The smallest cost of an evaluation after the first; a cost of 0 counts as this."""
        first = np.minimum(self.every, self.ended) * self.pace
        return first[self.ended > 0].min()

    @property
    def _slowest(self):
        """The budget at the slowest pace of either arm; infinite where no run has one."""
        paces = np.where(self.ended > 0, self.pace, -np.inf)
        return np.where(paces.max(axis=1) > 0, LIMIT * paces.max(axis=1), np.inf)

    @property
    def _largest(self):
        """The largest cost observed, of a hit or a diverged run."""
        seen = np.where(self.hits, self.recorded * self.pace, 0.0)
        diverged = np.where(self.status == "diverged", self.ended * self.pace, 0.0)
        return max(seen.max(), diverged.max())

    @property
    def _tau(self):
        """The cost of a diverged run."""
        return max(self._slowest[(self.status == "diverged").any(axis=1)].max(), self._largest)


def draw(rng, cost_model, n, kind, share):
    """One ablation in which a share of all runs is of a kind, or `share` is k."""
    costs, _ = cost_model.draw(rng, 1, n)
    updates = np.minimum(costs[0], LIMIT)
    pace = PACE * np.exp(0.1 * rng.standard_normal((2, n)))
    status, ended = np.full((2, n), "done", dtype=object), updates.copy()
    if kind == "coarse":
        ended = np.ceil(updates / share) * share
        return Drawn(updates, pace, ended, status, every=int(share))
    if kind == "costlier":
        updates = np.maximum(np.rint(updates / COSTLIER), 1)
        ended = np.ceil(updates / share) * share
        return Drawn(updates, pace * COSTLIER, ended, status, every=int(share))
    struck = rng.random((2, n)) < share
    on_the_way = np.floor(updates * rng.random((2, n)))
    if kind == "slow":
        pace = np.where(struck, SLOWER * pace, pace)
        made = np.floor(SAFETY / pace)
        gave_up = made < updates
        return Drawn(updates, pace, np.where(gave_up, made, updates),
                     np.where(gave_up, "timeout", status))  # fmt: skip
    if kind == "diverged":
        ended = np.where(struck, np.maximum(on_the_way, 1), ended)
        return Drawn(updates, pace, ended, np.where(struck, "diverged", status))
    never = rng.random((2, n)) < 0.5
    ended = np.where(struck, np.where(never, 0, on_the_way), ended)
    failed = np.where(never, "planned", "error")
    return Drawn(updates, pace, ended, np.where(struck, failed, status))


def verdict(drawn):
    """The verdict of one test, with the bounds of its runs."""
    low, high = drawn.ends
    costs = drawn.costs
    complete = ~np.isnan(costs).any(axis=0)
    hits, n = drawn.hits[:, complete].sum(axis=1).min(), complete.sum()
    seen = _judged(costs[:, complete], drawn.earliest[:, complete], drawn.hits[:, complete],
                   enough=hits >= LEAST_HITS * n)  # fmt: skip
    late = [(costs - drawn.earliest)[arm, drawn.hits[arm] & complete] for arm in (0, 1)]
    late = [by.mean() if by.size else 0.0 for by in late]
    differ = max(late) > ALIKE * min(late)
    if seen == "undecided" or (not differ and ((low == costs) & (high == costs)).all()):
        return seen
    uncertain = np.isnan(costs) | (low < high)
    may_hit = drawn.hits | np.isnan(costs)
    sides = [np.where(uncertain, np.maximum(ends, drawn.floor), costs) for ends in
             (np.stack([low[0], high[1]]), np.stack([high[0], low[1]]))]  # fmt: skip
    early = [np.where(uncertain, side, drawn.earliest) for side in sides]
    enough = drawn.hits[:, complete].sum(axis=1).min() >= LEAST_HITS * len(complete)
    box = early[0][0] / sides[0][1], sides[1][0] / early[1][1]
    same = equivalence(*np.log(box), may_hit.any(axis=0)) if enough else 1.0
    ends = box if differ else [side[0] / side[1] for side in sides]
    bounds = {_decided(np.log(end), same) for end in ends}
    return seen if bounds == {seen} else "undecided"


def _judged(costs, earliest, hits, *, enough):
    """The verdict of complete pairs."""
    if not costs.shape[1]:
        return "undecided"
    box = np.log(earliest[0] / costs[1]), np.log(costs[0] / earliest[1])
    same = equivalence(*box, hits.any(axis=0)) if enough else 1.0
    return _decided(np.log(costs[0] / costs[1]), same)


def _decided(d, same):
    if np.isinf(d).any():
        d = np.where(np.isinf(d), np.sign(d) * 1e6, d)
    if vectorised.two_sided(d[None])[0] <= ALPHA:
        return "better" if d.mean() < 0 else "worse"
    return "equivalent" if same <= ALPHA else "undecided"


def equivalence(low, high, informative):
    """The largest p of two one-sided tests over the corners of the box, all of them."""
    low, high = low[informative], high[informative]
    if len(low) < 2 or not (np.isfinite(low) & np.isfinite(high)).all():
        return 1.0
    limit = np.log(MARGIN)
    flips = [vectorised.tost(end[None], MARGIN)[1][0] for end in (low, high)]
    halves = _corners(low - limit, high - limit), _corners(-high - limit, -low - limit)
    return max(*flips, *(_largest_t(half) for half in halves))


def _corners(low, high):
    """Every corner of a box (corners, n)."""
    free = np.flatnonzero(low < high)
    chosen = (np.arange(2 ** len(free))[:, None] >> np.arange(len(free))) & 1
    corners = np.repeat(low[None], len(chosen), axis=0)
    corners[:, free] += chosen * (high - low)[free]
    return corners


def _largest_t(d):
    """The largest one-sided p of Student's t of these rows."""
    mean, spread = d.mean(axis=1), d.std(axis=1, ddof=1)
    if (mean >= 0).any():
        return 1.0
    flat = spread <= 1e-12 * np.abs(d).max(axis=1)
    t = np.where(flat, -np.inf, mean / np.where(flat, 1.0, spread) * np.sqrt(d.shape[1]))
    return float(stats.t.cdf(t.max(), d.shape[1] - 1))


def rates(draws, n, kind, share):
    """Rates of verdicts for identical arms, arms at the margin, and arms with 0.75 of the costs."""
    number = KINDS.index(kind) if kind in KINDS else 9 + EVALUATED.index(kind)
    rng = np.random.default_rng([n, number, int(100 * share)])
    alike = [draw(rng, CostModel(1.0, 0.15, 0.0), n, kind, share) for _ in range(draws)]
    edge = [draw(rng, CostModel(1 / MARGIN, 0.1, 0.0), n, kind, share) for _ in range(draws)]
    faster = [draw(rng, CostModel(0.75, 0.15, 0.0), n, kind, share) for _ in range(draws)]
    called = {name: [verdict(d) for d in of_one] for name, of_one in
              (("alike", alike), ("edge", edge), ("faster", faster))}  # fmt: skip
    otherwise = [
        said not in ("undecided", in_full(d))
        for of_one, name in ((alike, "alike"), (edge, "edge"), (faster, "faster"))
        for d, said in zip(of_one, called[name], strict=True)
    ]
    if kind == "coarse":
        passed = [as_recorded(d) for d in edge]
        last = {"at the margin: equivalent as recorded": float(np.mean(passed))}
    elif kind == "costlier":
        passed = [_decided(np.log(d.costs[0] / d.costs[1]), 1.0) for d in alike]
        last = {"identical: better or worse as recorded": _share(passed, "better", "worse")}
    else:
        last = {"contradicts all runs": float(np.mean(otherwise))}
    return {
        "identical: better or worse": _share(called["alike"], "better", "worse"),
        "at the margin: equivalent": _share(called["edge"], "equivalent"),
        "faster: better": _share(called["faster"], "better"),
    } | last


def as_recorded(drawn):
    """Whether the test of recorded updates alone would report equivalence."""
    d = np.log(drawn.recorded[0] / drawn.recorded[1])
    return equivalence(d, d, np.full(len(d), True)) <= ALPHA


def in_full(drawn):
    """The verdict from the true costs of all runs: better, worse or neither."""
    d = np.log(drawn.full_costs[0] / drawn.full_costs[1])
    return _decided(d, 0.0)  # the rate of equivalent is that of `edge`


def _share(called, *names):
    return float(np.mean([name in names for name in called]))
