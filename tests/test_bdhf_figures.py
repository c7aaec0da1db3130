"""`bdhf.figures`: the figures of a report for notebooks, without torch, or a reason."""

import subprocess
import sys

import matplotlib.figure
import pytest

import bdhf
from bdhf.records import Target
from bdhf.report.page.style import looks
from tests.messages import naming
from tests.report.synthetic import ENTRIES, TARGET, synthetic_records
from tests.report.synthetic_grids import batches, diagnosed, problems

OTHER = Target(metric="val_loss", below=0.05)


@pytest.fixture(scope="module")
def records():
    """Three arms with diagnostics, and two comparisons on one axis."""
    return diagnosed(synthetic_records(updates=80, every=4, seeds=4, comparisons=ENTRIES[:2]))


@pytest.mark.parametrize("name", ["curves", "survival", "forest", "profile", "diagnostics"])
def test_every_figure_is_one_call(name, records):
    """Records in, a figure of matplotlib out."""
    figure = getattr(bdhf.figures, name)(records)

    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure.axes


def test_figures_over_grids_are_one_call():
    """Batch sizes and problems need the grid that holds them."""
    sized = batches(sizes=(100, 200, 400), seeds=2)
    ranked = problems(count=5, solvers=3, seeds=1)

    assert bdhf.figures.scaling(sized).axes[0].get_xscale() == "log"
    timed = bdhf.figures.scaling(sized, axis="seconds")
    assert timed.axes[0].get_ylabel().startswith("seconds")
    assert bdhf.figures.ranks(ranked).axes
    assert len(bdhf.figures.profile(ranked).legends[0].get_texts()) == 3


def test_colours_are_those_of_the_report(records):
    """Arms are in the order of their labels, as on the page."""
    expected = looks(sorted(records.arms))
    legend = bdhf.figures.curves(records).legends[0]

    colours = {
        text.get_text(): handle.get_color()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }

    assert colours == {arm: look.colour for arm, look in expected.items()}


def test_axes_metrics_targets_and_questions_can_be_chosen():
    """A target, a question or an axis is chosen by its label."""
    records = synthetic_records(updates=60, every=4, seeds=2, targets=(TARGET, OTHER))
    figures = bdhf.figures

    (panel,) = figures.curves(records, axis="seconds", metrics=["test_loss"]).axes
    assert panel.get_ylabel() == "test loss"
    assert figures.survival(records, target=OTHER.label, axis="seconds").axes
    assert figures.profile(records, OTHER.label).axes
    assert figures.forest(records, question=f"updates to {OTHER.label}").axes


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda f, r: f.scaling(r), ("scaling", "batch.gradient")),
        (lambda f, r: f.scaling(r, axis="epochs"), ("scaling", "epochs", "updates", "seconds")),
        (lambda f, r: f.ranks(r), ("ranks", 5, 3)),
        (lambda f, r: f.survival(r, "val_loss ≤ 1"), ("survival", "val_loss ≤ 1", TARGET.label)),
        (lambda f, r: f.survival(r, axis="products"), ("survival", "products")),
        (lambda f, r: f.curves(r, metrics=["val_los"]), ("curves", "val_los")),
        (lambda f, r: f.curves(r, axis="steps"), ("axis", "steps", "updates")),
        (lambda f, r: f.forest(r, "wins"), ("forest", "updates to val_loss ≤ 0.02")),
    ],
)
def test_where_there_is_nothing_to_draw_it_says_why(call, facts, records):
    """A ValueError with the reason, and never an empty picture."""
    with pytest.raises(ValueError, match=naming(*facts)):
        call(bdhf.figures, records)


def test_records_that_hold_little_say_what_they_lack():
    """No comparison, no diagnostics, no target, two targets."""
    small = {"updates": 40, "every": 4, "seeds": 2, "comparisons": ()}
    bare = synthetic_records(**small, targets=())

    with pytest.raises(ValueError, match=r"^forest: "):
        bdhf.figures.forest(bare)
    with pytest.raises(ValueError, match=r"^diagnostics: "):
        bdhf.figures.diagnostics(bare)
    with pytest.raises(ValueError, match=r"^profile: "):
        bdhf.figures.profile(bare)
    with pytest.raises(ValueError, match=naming(TARGET.label, OTHER.label)):
        bdhf.figures.survival(synthetic_records(**small, targets=(TARGET, OTHER)))


def test_they_start_without_torch():
    """A notebook that only draws does not import torch."""
    code = "import sys, bdhf; bdhf.figures.forest; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", code], check=True)
