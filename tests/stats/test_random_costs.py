"""Random comparisons: properties for any costs, misses, failures and losses."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from bdhf.records import Comparison
from bdhf.stats.compare import compare
from bdhf.stats.inference.paired import sign_flip
from bdhf.stats.result import Verdict
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import synthetic

SAME = Comparison(name="x", candidate="block", baseline="full", margin=1.1)
TURNED = {Verdict.BETTER: Verdict.WORSE, Verdict.WORSE: Verdict.BETTER}

outcome = st.one_of(
    st.integers(40, 60), st.integers(1, 300), st.sampled_from([None, "diverged", "oom", "planned"])
)
seeds = st.lists(st.tuples(outcome, outcome), min_size=1, max_size=9)
drawn = settings(  # without shrinking, which takes minutes
    max_examples=40, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate)
)


def results_of(pairs, *, estimand="updates_to_target"):
    """The two results on these outcomes: block against full, and full against block."""
    entry = SAME.model_copy(update={"estimand": estimand})
    turned = entry.model_copy(update={"name": "y", "candidate": "full", "baseline": "block"})
    block, full = zip(*pairs, strict=True)
    return compare(synthetic({"block": block, "full": full}, comparisons=(entry, turned), last=300))


@drawn
@given(st.lists(st.integers(-40, 40), min_size=1, max_size=12), st.sampled_from([0.01, 0.05, 0.2]))
def test_p_and_interval_never_contradict_each_other(d, alpha):
    """The interval excludes 0 exactly when p ≤ alpha, and contains the mean."""
    test = sign_flip(np.array(d) / 7, alpha=alpha)

    assert (test.p <= alpha) == (test.low > 0 or test.high < 0)
    assert test.low - 1e-12 <= test.mean <= test.high + 1e-12


@drawn
@given(seeds, st.sampled_from(["updates_to_target", "final_loss"]))
def test_swapping_the_arms_turns_everything_around(pairs, estimand):
    """The ratio is inverted, the verdict reversed, and every p stays."""
    result, turned = results_of(pairs, estimand=estimand)

    assert turned.verdict is TURNED.get(result.verdict, result.verdict)
    assert (turned.wins, turned.ties, turned.losses) == (result.losses, result.ties, result.wins)
    for p in ("p", "p_holm", "p_equivalence", "p_wilcoxon", "p_sign", "p_mcnemar"):
        assert getattr(turned, p) == pytest.approx(getattr(result, p), nan_ok=True)
    assert turned.ratio == pytest.approx(1 / result.ratio, nan_ok=True)
    assert turned.win_probability == pytest.approx(1 - result.win_probability, nan_ok=True)
    assert turned.rank_biserial == pytest.approx(-result.rank_biserial, nan_ok=True)
    low = math.inf if result.ratio_low == 0 else 1 / result.ratio_low
    assert turned.ratio_high == pytest.approx(low, nan_ok=True)


@drawn
@given(seeds, st.randoms(use_true_random=False))
def test_order_of_seeds_does_not_matter(pairs, random):
    """A permutation of the seeds gives the same numbers, flags and words."""
    shuffled = random.sample(pairs, len(pairs))

    for original, permuted in zip(results_of(pairs), results_of(shuffled), strict=True):
        assert (original.verdict, original.flags) == (permuted.verdict, permuted.flags)
        assert sentence(original) == sentence(permuted)
        for field in dataclasses.fields(original):
            a, b = getattr(original, field.name), getattr(permuted, field.name)
            if isinstance(a, float):
                assert a == pytest.approx(b, nan_ok=True)


@drawn
@given(seeds)
def test_a_verdict_has_what_it_takes(pairs):
    """Better and worse have a p, equivalent has pairs and hits, undecided has neither."""
    result = results_of(pairs)[0]
    enough = min(result.candidate_hits, result.baseline_hits) >= 0.8 * result.pairs
    same = enough and result.p_equivalence_holm <= 0.05 < result.p_holm
    allowed = {
        Verdict.BETTER: result.p_holm <= 0.05 and result.ratio_high < 1,
        Verdict.WORSE: result.p_holm <= 0.05 and result.ratio_low > 1,
        Verdict.EQUIVALENT: same and result.pairs >= 5,
        Verdict.UNDECIDED: (result.p_holm > 0.05 and not same) or result.pairs < result.planned,
    }

    assert allowed[result.verdict]
    assert "nan" not in sentence(result)
    assert "nan" not in " ".join(result.flags)
