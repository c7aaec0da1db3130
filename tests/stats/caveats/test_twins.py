"""Arms that are the same runs: no verdict, no test, and no share of Holm's correction."""

import dataclasses

import pytest

from bdhf.records import Comparison
from bdhf.report.ablation.render import page
from bdhf.report.embedded.encoding import decode, encode
from bdhf.stats.caveats.twins import not_compared, shared_runs
from bdhf.stats.compare import compare
from bdhf.stats.multiverse import multiverse
from bdhf.stats.power_check import power_check
from bdhf.stats.result import Verdict
from bdhf.stats.text.latex import to_latex
from bdhf.stats.text.sentences import sentence
from tests.stats.synthetic import BLOCK_VS_FULL, TARGET, synthetic

FULL = [180, 185, 179, 195, 190, 188, 177, 191]
FAST = [50, 62, 55, 71, 64, 58, 49, 66]
TWIN = Comparison(name="twin", candidate="again", baseline="full", margin=1.1)
ESTIMANDS = ["updates_to_target", "seconds_to_target", "final_loss", "best_loss"]


def records(twin=TWIN, shared=8):
    """Block against full, and an arm whose first runs are those of full."""
    made = synthetic(
        {"block": FAST, "full": FULL, "again": FULL}, comparisons=(BLOCK_VS_FULL, twin)
    )
    ids = {f"again-{seed}": f"full-{seed}" for seed in range(shared)}
    return dataclasses.replace(
        made,
        comparisons=(BLOCK_VS_FULL, twin),
        runs=made.runs.assign(run_id=made.runs["run_id"].replace(ids)),
        curves=made.curves.assign(run_id=made.curves["run_id"].replace(ids)),
    )


@pytest.mark.parametrize("estimand", ESTIMANDS)
def test_records_of_an_older_plan_have_no_verdict_of_twins(estimand):
    """Whatever the estimand: it is no test, Holm counts the others, and a line reports it."""
    with_twins = records(TWIN.model_copy(update={"estimand": estimand}))

    (result,) = compare(with_twins)

    assert (result.name, result.tests, result.p_holm) == ("block vs full", 1, result.p)
    assert [entry.name for entry in with_twins.twins] == ["twin"]
    assert [universe.question for universe in multiverse(with_twins)] == ["block vs full"]
    (line,) = not_compared(with_twins.twins)
    assert line == ("twin: not compared, since again and full are the same runs")
    assert to_latex([result], [line]).endswith(f"% {line}\n")


def test_an_arm_against_itself_by_name_is_a_twin():
    """A folder whose entry names one arm twice has no test of it."""
    with_twins = records(
        Comparison(name="itself", candidate="full", baseline="full", margin=1.1), 0
    )

    assert [result.name for result in compare(with_twins)] == ["block vs full"]
    assert [entry.name for entry in with_twins.twins] == ["itself"]


def test_the_power_guard_does_not_count_twins():
    """The minimum number of seeds is that of the tests that are made."""
    with_twins = records()

    asked = power_check(
        with_twins.comparisons, with_twins.targets, alpha=0.05, seeds=8, finished=with_twins
    )

    assert (asked.tests, asked.needed) == (1, 6)


def test_what_a_page_carries_of_an_older_folder_is_judged_alike():
    """The page lists what is not compared without a verdict, also the second time."""
    with_twins = records()
    again = decode(encode(with_twins)).records

    results = compare(again)
    html = page(again, results, [sentence(result) for result in results])

    assert again.twins == with_twins.twins
    assert again.comparisons == with_twins.comparisons == (BLOCK_VS_FULL,)
    assert html.count("<article") == 1
    assert not_compared(with_twins.twins)[0] in html


def test_a_page_of_nothing_but_twins_says_why_there_is_no_verdict():
    """It does not claim that the spec has no comparison."""
    with_twins = records()
    only = dataclasses.replace(with_twins, comparisons=())

    html = page(only, (), ())

    assert not_compared(only.twins)[0] in html
    assert "<code>compare</code>" not in html


@pytest.mark.parametrize("shared", [1, 3, 7])
def test_arms_that_share_some_runs_are_compared_on_the_others(shared):
    """A seed with one run for both arms is no pair: neither a tie nor missing."""
    with_twins = records(shared=shared)

    result = compare(with_twins)[1]

    assert (result.name, result.tests) == ("twin", 2)
    assert result.planned == result.pairs == result.ties == 8 - shared
    assert result.flags[:1] == shared_runs(with_twins, with_twins.comparisons[1])
    assert result.flags[0].startswith(f"{shared} seed")
    assert (result.verdict is Verdict.EQUIVALENT) == (shared <= 3)


def test_nothing_is_reported_for_other_arms():
    """Two arms without shared runs have all their pairs, and no flag."""
    result = compare(records())[0]

    assert result.pairs == 8
    assert shared_runs(records(), BLOCK_VS_FULL) == ()
    assert not any("seed" in flag for flag in result.flags)
    assert compare(synthetic({"block": FAST, "full": FULL}, targets=(TARGET,)))[0].pairs == 8
