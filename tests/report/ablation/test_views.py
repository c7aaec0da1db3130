"""Training curves on every axis and scale: which there are, what they show, which comes first."""

import dataclasses
import re

import pytest

from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.figures.curves import draw_curves
from bdhf.report.page.drawing import SCALES, Evidence
from bdhf.report.page.sections import sections
from tests.messages import naming
from tests.report.synthetic import QUICKSTART, Arm, synthetic_records


def views(records):
    """The drawings of the curves, by axis and scale."""
    drawings = draw_curves(Evidence(records, survival_curves(records)))
    return {(d.view.axis, d.view.scale): d for d in drawings}


@pytest.fixture(scope="module")
def drawn(quickstart):
    """Those of a study whose losses fall by more than ten times."""
    return views(quickstart)


def test_every_recorded_axis_is_drawn_on_every_scale(drawn):
    """Axes come in their order; the column that was not recorded has no view."""
    axes = ["updates", "epochs", "products", "seconds"]

    assert list(dict.fromkeys(axis for axis, _ in drawn)) == axes
    assert set(drawn) == {(axis, scale) for axis in axes for scale in SCALES}


def test_a_scale_is_what_it_says(drawn):
    """The axes of every panel are logarithmic exactly where the scale says so."""
    for (_, scale), drawing in drawn.items():
        for axes in drawing.figure.axes:
            assert (axes.get_xscale() == "log") == (scale == "log")
            assert (axes.get_yscale() == "log") == (scale != "linear")


def test_one_view_of_every_axis_is_shown_first(drawn):
    """Losses that fall by ten times are shown on logarithmic axes; one view an axis is default."""
    shown = {axis: scale for (axis, scale), drawing in drawn.items() if drawing.view.is_default}

    assert list(shown) == ["updates", "epochs", "products", "seconds"]
    assert shown["updates"] == "log_loss"


@pytest.mark.parametrize(
    ("tau", "floor", "scale"), [(20.0, 0.2, "linear"), (20.0, 0.001, "log_loss")]
)
def test_the_first_scale_hides_no_line(tau, floor, scale):
    """Losses within a factor of ten begin linear, others logarithmic."""
    arms = {"full_hf": Arm(tau=tau, floor=floor, noise=0)}

    drawn = views(synthetic_records(arms, seeds=2, updates=60, targets=(), comparisons=()))

    assert drawn["updates", scale].view.is_default


def test_arms_that_end_ten_times_apart_begin_on_logarithmic_axes():
    """An arm that is through at a tenth of another's updates would be a stroke at the left edge."""
    arms = {"adam": Arm(tau=200.0), "full_hf": Arm(tau=4.0)}

    assert views(synthetic_records(arms, seeds=2, comparisons=()))["updates", "log"].view.is_default


def test_an_axis_on_which_no_arm_moves_is_left_out(quickstart):
    """Without curvature products there is nothing to show against them."""
    idle = dataclasses.replace(quickstart, curves=quickstart.curves.assign(products=0.0))

    assert "products" not in {axis for axis, _ in views(idle)}


def test_an_arm_that_spends_nothing_is_named_and_not_drawn(quickstart):
    """Adam makes no curvature product: the caption names it, and no line is drawn at 0."""
    products = quickstart.curves["products"].mask(quickstart.curves["arm"] == "adam", 0.0)
    records = dataclasses.replace(quickstart, curves=quickstart.curves.assign(products=products))

    drawn = views(records)

    caption = " ".join(drawn["products", "log"].caption)
    legend = drawn["products", "log"].figure.legends[0].get_texts()
    assert re.search(naming("adam", "curvature products"), caption)
    assert "adam" not in " ".join(drawn["updates", "log_loss"].caption)
    assert {text.get_text() for text in legend} == {"full_hf", "block_hf"}


def test_losses_that_are_not_positive_stay_linear_on_every_scale():
    """A negative loss has no logarithm: its panel stays linear, whatever is chosen."""
    records = synthetic_records({"adam": QUICKSTART["adam"]}, seeds=2, targets=(), comparisons=())
    curves_ = records.curves.assign(val_loss=records.curves["val_loss"] - 1)

    drawn = views(dataclasses.replace(records, curves=curves_))

    assert drawn["updates", "log"].figure.axes[0].get_yscale() == "linear"
    assert drawn["updates", "log"].figure.axes[1].get_yscale() == "log"


def test_without_a_script_one_figure_of_every_axis_is_seen(drawn):
    """Hidden are the other scales alone, and the first choice is the first figure."""
    (section,) = sections({"Training curves": tuple(drawn.values())})

    shown = [figure.drawing.view for figure in section.figures if not figure.is_hidden]

    assert [view.axis for view in shown] == ["updates", "epochs", "products", "seconds"]
    assert section.chosen == ("updates", shown[0].scale)
    assert set(section.choices) == {"axis", "scale"}
