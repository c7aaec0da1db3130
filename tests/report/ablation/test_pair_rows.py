"""The runs behind a verdict: every pair is listed, and every number leads to its runs."""

import dataclasses
import re

import numpy as np
import pytest

from bdhf.records import Comparison
from bdhf.report.ablation.pair_rows import linked, pair_rows
from bdhf.report.ablation.render import page
from bdhf.report.ablation.tables import runs
from bdhf.stats.compare import compare
from bdhf.stats.text.sentences import sentence
from tests.report.synthetic import ENTRIES, QUICKSTART, Arm, synthetic_records

LOSS = Comparison(name="loss", candidate="block_hf", baseline="adam", estimand="final_loss")


@pytest.fixture(scope="module")
def study():
    """Runs that hit, miss, diverge and are missing, compared by cost and by loss."""
    return synthetic_records(comparisons=[*ENTRIES[:2], LOSS])


def test_every_planned_pair_has_a_row_with_both_runs(study):
    """A row per seed; its sides are the rows of both arms under `Every run`."""
    rows = {row.anchor: row for row in runs(study.in_order()).rows}

    for entry, pairs in zip(study.comparisons, pair_rows(study.in_order()), strict=True):
        assert [pair.seed for pair in pairs] == [str(seed) for seed in range(8)]
        for pair in pairs:
            for arm, side in ((entry.candidate, pair.candidate), (entry.baseline, pair.baseline)):
                row = rows[side.anchor]
                assert (row.arm, row.seed, row.run_id) == (arm, pair.seed, side.run_id)


def test_the_effects_of_the_rows_average_to_the_ratio(study):
    """The geometric mean of the ratios of the rows is the ratio of the verdict."""
    for result, pairs in zip(compare(study), pair_rows(study.in_order()), strict=True):
        ratios = [float(pair.effect) for pair in pairs if pair.effect != "–"]

        assert len(ratios) == result.pairs
        assert np.exp(np.mean(np.log(ratios))) == pytest.approx(result.ratio, rel=5e-3)


def test_a_row_has_how_its_runs_ended(study):
    """A diverged run costs the budget and has a note; a missing run has its status as value."""
    by_cost = pair_rows(study.in_order())[0]

    diverged, missing = by_cost[5], by_cost[7]

    assert (diverged.baseline.value, diverged.baseline.note) == ("300", "diverged")
    assert (missing.candidate.value, missing.effect) == ("not run yet", "–")


def test_every_link_of_the_page_leads_somewhere(study):
    """References within the page are ids of it, each of which occurs once."""
    results = compare(study)
    html = page(study, results, [sentence(result) for result in results])
    ids = re.findall(r'\bid="([^"]+)"', html)

    targets = set(re.findall(r'href="#([^"]+)"', html))

    assert targets <= set(ids)
    assert len(ids) == len(set(ids))
    assert {f"pairs-{index}" for index in (1, 2, 3)} <= targets
    assert len([target for target in targets if target.startswith("run-")]) == 24


@pytest.mark.parametrize("candidate", ["block_hf", "hf (0.5× <b>)", "p", "8", "pairs"])
def test_numbers_are_linked_and_the_sentence_is_unchanged(study, candidate):
    """Whatever the arms are called, only links are added: ratio and evidence lead to the pairs."""
    result = dataclasses.replace(compare(study)[0], candidate=candidate)
    said = sentence(result)

    html = str(linked(said, result, "#pairs-1"))

    links = re.findall(r'<a href="#pairs-1">(.*?)</a>', html)
    assert re.sub(r"</?a[^>]*>", "", html).replace("&lt;", "<").replace("&gt;", ">") == said
    assert f"{result.ratio:.2f}×" in links
    assert any("interval" in link for link in links)


def test_cells_that_share_a_run_have_rows_of_their_own():
    """Two cells with one run id have two anchors, so that a link leads to its own arm."""
    records = synthetic_records(
        {"full_hf": Arm(tau=9.0), "adam": Arm(tau=12.0)}, seeds=2, updates=60
    )
    records = dataclasses.replace(records, runs=records.runs.assign(run_id="same"))

    anchors = [row.anchor for row in runs(records).rows]

    assert len(set(anchors)) == 4
    assert all(anchor.startswith("run-same-") for anchor in anchors)


def test_losses_that_are_not_positive_are_shown_as_differences():
    """Without ratios a row has the difference, and the head of the column is another."""
    records = synthetic_records(
        {k: QUICKSTART[k] for k in ("adam", "block_hf")}, comparisons=[LOSS]
    )
    curves = records.curves.assign(val_loss=100 * records.curves["val_loss"] - 50)
    records = dataclasses.replace(records, curves=curves)
    (result,) = compare(records)
    (pairs,) = pair_rows(records.in_order())

    html = page(records, [result], [sentence(result)])

    effects = [float(pair.effect.replace("−", "-")) for pair in pairs if pair.effect != "–"]
    assert np.mean(effects) == pytest.approx(result.difference, rel=5e-3)
    assert '<th scope="col" class="n">difference</th>' in html
