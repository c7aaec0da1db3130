"""The verdicts of the page: each of the four is said, with every number of its test."""

import dataclasses

import pytest

from bdhf.report.ablation.render import page
from bdhf.stats.compare import compare
from bdhf.stats.result import Result, Verdict
from bdhf.stats.text.sentences import sentence
from bdhf.text.formatting import number, p_value
from tests.report.reading import Page
from tests.report.synthetic import ENTRIES, Arm, synthetic_records


@pytest.fixture(scope="module")
def study():
    """Two arms that are compared with a margin."""
    arms = {"full_hf": Arm(tau=12.0), "block_hf": Arm(tau=9.0)}
    entry = ENTRIES[0].model_copy(update={"margin": 1.2})
    return synthetic_records(arms, seeds=6, updates=60, comparisons=[entry])


def shown(study, result: Result) -> str:
    """The page of one result."""
    return page(study, [result], [sentence(result)])


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_its_badge_and_colour(study, verdict):
    """The word stands in the badge, and the style sheet has a colour of that name."""
    (result,) = compare(study)

    html = shown(study, dataclasses.replace(result, verdict=verdict))

    assert f'<span class="badge {verdict}">{verdict}</span>' in html
    assert html.count(f"--{verdict}: #") == 2  # for the light page, and for the dark one


def test_all_numbers_of_a_result_are_tabled(study):
    """Effect sizes and p-values of every test stand in the row of their comparison."""
    (result,) = compare(study)

    _, *rows = Page(shown(study, result)).table("verdicts")

    text = " ".join(row for row in rows if result.name in row)
    for p in ("p", "p_holm", "p_equivalence_holm", "p_wilcoxon", "p_sign", "p_mcnemar"):
        assert f" {p_value(getattr(result, p), result.alpha)} " in text, p
    for name in ("ratio_bca_low", "ratio_bca_high", "win_probability", "rank_biserial", "margin"):
        assert number(getattr(result, name), tidy=name == "margin") in text, name
    assert f" {result.wins} / {result.ties} / {result.losses} " in text


@pytest.mark.parametrize(("seeds", "said"), [(23.0, "about 23"), (float("inf"), "over 10,000")])
def test_seeds_that_would_decide_are_reported(study, seeds, said):
    """A number of seeds, or the largest number that was tried."""
    (result,) = compare(study)

    html = shown(study, dataclasses.replace(result, seeds_to_decide=seeds))

    assert any(f" {said} " in row for row in Page(html).table("verdicts"))


def test_a_comparison_of_losses_says_nothing_of_a_target(study):
    """Its question names the loss, and neither hits nor McNemar's test stand in its row."""
    entry = study.comparisons[0].model_copy(update={"estimand": "final_loss"})
    (result,) = compare(dataclasses.replace(study, comparisons=(entry,)))

    html = page(dataclasses.replace(study, comparisons=(entry,)), [result], [sentence(result)])

    text = Page(html).text
    assert f"block_hf better than full_hf in {result.question}" in text
    assert result.question == "final validation loss"
    assert "6 of 6 block_hf" not in text
