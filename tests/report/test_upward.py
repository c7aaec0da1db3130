"""Figures and pages of a target that is reached from below."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from bdhf.records import Records, Target
from bdhf.report.ablation import captions
from bdhf.report.ablation.curve_bands import bands
from bdhf.report.ablation.figures.curves import draw_lines
from bdhf.report.ablation.render import page
from bdhf.report.embedded.encoding import decode, encode
from bdhf.report.page.style import looks
from bdhf.report.page.templating import template_environment
from bdhf.report.study.evidence import gather_study
from bdhf.report.study.findings import notices
from bdhf.stats.compare import compare
from bdhf.stats.multiverse import multiverse
from bdhf.stats.text.sentences import sentence
from tests.report.reading import Page
from tests.report.study_cases import LOST
from tests.report.synthetic import ENTRIES, QUICKSTART, Arm, synthetic_records
from tests.report.synthetic_study import synthetic_study

UP = Target(metric="val_accuracy", above=0.98)
LOST_ARM = {**QUICKSTART, "adam": Arm(tau=30.0, status=dict.fromkeys(range(3), ("diverged", "x")))}


def mirrored(records: Records) -> Records:
    """The same runs, measured by 1 - loss."""
    curves = records.curves.assign(val_accuracy=1 - records.curves["val_loss"])
    return dataclasses.replace(records, curves=curves, targets=(UP,))


@pytest.mark.parametrize("arms", [QUICKSTART, LOST_ARM], ids=["quickstart", "many diverged"])
def test_bands_are_those_of_the_mirror_image(arms):
    """Runs at the target rank as better, and diverged runs as worse, than the others."""
    down = synthetic_records(arms)
    bands_down = bands(down, "updates", ["val_loss"])
    bands_up = bands(mirrored(down), "updates", ["val_accuracy"])

    assert bands_down[["arm", "x", "runs", "end"]].equals(bands_up[["arm", "x", "runs", "end"]])
    for edge, opposite in (("low", "high"), ("median", "median"), ("high", "low")):
        np.testing.assert_allclose(1 - bands_up[opposite], bands_down[edge], rtol=1e-12)


def test_a_figure_shows_what_rises_whole_with_its_target():
    """No multiple of the first value cuts an accuracy off."""
    records = mirrored(synthetic_records(LOST_ARM))
    records = dataclasses.replace(
        records, curves=records.curves.assign(val_accuracy=records.curves["val_accuracy"] - 0.76)
    )
    target = Target(metric="val_accuracy", above=0.22)
    records = dataclasses.replace(records, targets=(target,))
    table = bands(records, "updates", ["val_accuracy"])

    figure = draw_lines(table, looks(records.arms), records.targets, "updates", "linear")

    low, high = figure.axes[0].get_ylim()
    top = table.loc[np.isfinite(table["high"]), "high"].max()
    assert table["median"].iloc[0] * 3 < top < high
    assert low < 0.22 < high
    assert any(np.allclose(line.get_ydata(), 0.22) for line in figure.axes[0].lines)


def test_a_page_writes_at_or_above():
    """In labels, sentences and captions; the page carries the records that it was made from."""
    records = mirrored(synthetic_records(LOST_ARM, updates=120, every=4)).in_order()
    results = compare(records)

    html = page(records, results, [sentence(result) for result in results])
    caption = captions.curves_caption(
        records, bands(records, "updates", ["val_accuracy"]), "updates"
    )

    assert decode(encode(records)).records.targets == (UP,)
    assert UP.label in html
    assert all(sentence(result) in Page(html).text for result in results)
    assert captions.STOPPED_ABOVE in caption
    assert captions.STOPPED not in caption


def test_the_multiverse_of_a_page_explains_targets_that_are_reached_from_below():
    """The note mentions ≥ only where a target has it."""
    down = synthetic_records(
        {"full_hf": Arm(tau=30.0), "block_hf": Arm(tau=21.0)}, comparisons=ENTRIES[:1]
    )
    template = template_environment().get_template("multiverse.html.j2")

    def note(records):
        html = template.render(records=records, universes=multiverse(records))
        return html.partition('class="note">')[2].partition("</p>")[0]

    assert "≥" in note(mirrored(down))
    assert "≥" not in note(down)


def test_the_nearest_trial_of_a_rising_target_is_the_highest():
    """Where all trials missed, the notice names the run that rose the farthest."""
    records = synthetic_study({"adam": LOST}, comparisons=())
    study = records.study.model_copy(update={"target": UP})
    seeds = records.seeds.assign(final=1 - records.seeds["final"])
    highest = seeds["final"].max()

    (notice, *_) = notices(gather_study(dataclasses.replace(records, study=study, seeds=seeds), {}))

    assert UP.label in notice
    assert f"val_accuracy {highest:.3g}"[:18] in notice
    assert pd.notna(highest)
