"""Figures of a study show its trials, however they ended."""

import dataclasses
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex

from bdhf.report.page import svg
from bdhf.report.page.style import INK, looks
from bdhf.report.study.evidence import FAILED, MISSED, gather_study
from bdhf.report.study.figures.budget import budget
from bdhf.report.study.figures.contour import contour, surface
from bdhf.report.study.figures.coordinates import coordinates
from bdhf.report.study.figures.front import front
from bdhf.report.study.figures.history import history
from bdhf.report.study.figures.importances import importances
from bdhf.report.study.figures.table import (
    MOST_CELLS,
    STUDY_CROWDED,
    STUDY_FIGURES,
    draw_study_figures,
)
from bdhf.report.study.figures.verdict_budget import verdict_budget
from bdhf.stats.result import Verdict
from bdhf.stats.studies.trials import PRUNED
from bdhf.stats.studies.tuning_budget import expected_best
from tests.report.study_cases import CASES
from tests.report.synthetic_study import (
    ARMS,
    ENTRIES,
    HORIZON,
    SIZES,
    UPDATES,
    Searched,
    synthetic_study,
)


@pytest.fixture(scope="module")
def evidence():
    """Three arms, with trials that missed, failed and were pruned."""
    return gather_study(synthetic_study())


@pytest.fixture(scope="module")
def gridded():
    """The same at five batch sizes."""
    return gather_study(synthetic_study(sizes=SIZES, trials=8))


@pytest.mark.parametrize("name", CASES)
def test_every_study_is_drawn(name):
    """Every figure is drawn in the ink of the page, has its own name, and an alternative text."""
    drawings = [
        d for group in draw_study_figures(gather_study(CASES[name])).values() for d in group
    ]

    assert {"History", "Budget curves"} <= {drawing.section for drawing in drawings}
    assert len({drawing.name for drawing in drawings}) == len(drawings)
    for drawing in drawings:
        inline = svg.to_svg(drawing.figure, drawing.name, drawing.alt).inline
        assert "currentColor" in inline
        assert not {INK, svg.WHITE, svg.DARK} & set(re.findall(r"#[0-9a-f]{6}", inline))
        assert re.search(r"\d", drawing.alt)
        assert "nan" not in drawing.alt
        assert drawing.caption
        assert drawing.figure.get_figwidth() < 6


def test_history_draws_every_trial_and_the_best_so_far(evidence):
    """Each trial has a mark by how it ended; the step line is the running minimum."""
    figure = history(evidence)[2].figure
    cell = evidence.cells[2]
    (axes,) = figure.axes
    marks = {line.get_marker(): line for line in axes.lines if line.get_linestyle() == "None"}
    (steps,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    (dotted,) = [line for line in axes.lines if line.get_linestyle() == ":"]

    assert sum(len(line.get_xdata()) for line in axes.lines if line in marks.values()) <= 16
    assert marks["X"].get_xdata().tolist() == [5]
    assert marks["|"].get_xdata().tolist() == [7]
    assert steps.get_ydata().tolist() == np.fmin.accumulate(cell.trials[UPDATES]).tolist()
    assert dotted.get_ydata()[0] == HORIZON
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"best so far", "horizon", FAILED, PRUNED} <= set(legend)


def test_a_miss_is_hollow_and_above_the_horizon(evidence):
    """Trials without a hit have their own mark."""
    (axes,) = history(evidence)[0].figure.axes
    kinds = evidence.cells[0].trials["kind"]
    hollow = [
        value
        for line in axes.lines
        if line.get_markerfacecolor() == "none"
        for value in line.get_ydata()
    ]

    assert len(hollow) == (kinds == MISSED).sum() > 0
    assert min(hollow) > HORIZON


def test_a_grid_is_small_multiples(gridded):
    """Five batch sizes are five panels of a figure per arm, or per pair of arms."""
    assert [len(drawing.figure.axes) for drawing in history(gridded)] == [5, 5, 5]
    assert [len(drawing.figure.axes) for drawing in verdict_budget(gridded)] == [5, 5]
    assert [d.title for d in budget(gridded)] == [f"gradient={size}" for size in SIZES]
    assert [d.title for d in importances(gridded)] == list(ARMS)
    assert {d.group for d in coordinates(gridded)} == set(ARMS)


def test_an_arm_without_a_grid_stands_beside_every_size():
    """An arm that a batch size cannot change is drawn with each combination of the others."""
    records = synthetic_study(sizes=SIZES[:2], trials=4)
    arms = [arm.model_copy(update={"label": "adam", "values": {}}) if arm.name == "adam" else arm
            for arm in records.study.arms if arm.label != "adam gradient=250"]  # fmt: skip
    trials = records.trials.replace({"arm": {"adam gradient=125": "adam"}})
    study = records.study.model_copy(update={"arms": tuple(arms)})

    places = gather_study(dataclasses.replace(records, study=study, trials=trials)).by_place

    assert list(places) == ["gradient=125", "gradient=250"]
    assert all("adam" in [cell.arm.label for cell in cells] for cells in places.values())


def test_budget_curves_are_the_expected_best(evidence):
    """Above the closed form of every arm in its colour, below the best of the first k."""
    (drawing,) = budget(evidence)
    above, below = drawing.figure.axes
    colours = {name: look.colour for name, look in looks(list(ARMS)).items()}

    for cell in evidence.cells:
        values = np.minimum(cell.trials[UPDATES].fillna(HORIZON), HORIZON)
        lines = [line for line in above.lines if line.get_color() == colours[cell.arm.name]]
        assert lines[0].get_ydata().tolist() == pytest.approx(list(expected_best(values).mean))
        steps = [line for line in below.lines if line.get_color() == colours[cell.arm.name]]
        assert steps[0].get_ydata().tolist() == cell.so_far["best"].clip(upper=HORIZON).tolist()


def test_the_mark_is_where_the_verdict_begins_to_hold():
    """A diamond marks `holds_from` of the held-out verdict; another verdict has no mark."""
    records = synthetic_study(comparisons=ENTRIES[1:])
    better = gather_study(records, {"block vs adam": Verdict.BETTER})
    worse = gather_study(records, {"block vs adam": Verdict.WORSE})
    (ahead,) = better.ahead

    for evidence, expected in ((better, [ahead.holds_from(Verdict.BETTER)]), (worse, [])):
        (drawing,) = verdict_budget(evidence)
        (axes,) = drawing.figure.axes
        marks = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
        assert marks == expected
        levels = {line.get_ydata()[0] for line in axes.lines if line.get_linestyle() == ":"}
        assert levels == {0.05, 0.95}


def test_importances_are_bars_or_tiles(evidence, gridded):
    """Without a grid a bar per parameter; with a grid a tile per parameter and size."""
    (bars,) = importances(evidence)
    widths = [patch.get_width() for patch in bars.figure.axes[0].patches]
    shares = [share for cell in evidence.cells for share in cell.arm.importances.values()]

    assert sorted(widths) == pytest.approx(sorted(shares))
    tiles = importances(gridded)[1].figure.axes[0]
    assert len(tiles.patches) == 5 * 5
    ticks = [text.get_text() for text in tiles.get_xticklabels()]
    assert ticks == [str(size) for size in SIZES]


def test_what_a_choice_does_not_bring_in_is_a_gap(evidence):
    """A trial of constant damping has no value on the rows of Levenberg–Marquardt."""
    cell = evidence.cells[1]
    drawing = coordinates(evidence)[1]
    lines = [np.asarray(line.get_xdata(), float) for line in drawing.figure.axes[0].lines]
    names = [p.name for p in cell.arm.space]
    constant = names.index("damping.constant.value")
    martens = names.index("damping.levenberg_marquardt.initial")

    assert len(lines) == 16
    assert all(np.isnan(line[constant]) != np.isnan(line[martens]) for line in lines)
    inside = [line[np.isfinite(line)] for line in lines]
    assert all((line >= -0.01).all() and (line <= 1.01).all() for line in inside)
    ticks = " ".join(text.get_text() for text in drawing.figure.axes[0].get_yticklabels())
    assert "0.1 to 1, log" in ticks
    shown = [text.get_text() for text in drawing.figure.axes[0].texts]
    assert shown == ["constant", "levenberg_marquardt"]


def test_the_best_trial_is_the_thickest_line(evidence):
    """One line stands out, and it is that of the best trial, in the best colour."""
    (axes,) = coordinates(evidence)[0].figure.axes
    cell = evidence.cells[0]
    (thick,) = [line for line in axes.lines if line.get_linewidth() == 3]
    lr = cell.places.loc[cell.arm.best, "lr"]

    assert thick.get_xdata()[0] == pytest.approx((np.log10(lr) + 4) / 3)
    assert thick.get_xdata()[-1] == 0
    assert to_hex(thick.get_color()) == "#0173b2"


def test_contours_are_over_learning_rate_and_damping(evidence):
    """Every trial that has both is a point, and the star is the best of them."""
    cell = evidence.cells[2]
    trials = surface(cell, UPDATES)

    assert trials.names[0].name == "lr"
    damping = trials.names[1].name
    assert damping == "damping.constant.value"  # the one that the best trial has
    is_known = cell.places[["lr", damping]].notna().all(axis=1).to_numpy()
    is_known = is_known & cell.trials[UPDATES].notna().to_numpy()
    np.testing.assert_allclose(10**trials.x, cell.places["lr"].to_numpy()[is_known])
    assert trials.best.sum() == 1
    assert trials.value.max() <= HORIZON


@pytest.mark.parametrize("kind", ["few", "on a line", "all alike"])
def test_what_cannot_be_interpolated_is_drawn_as_points(evidence, kind):
    """Few trials, trials on one line, or of one value: points only, with another caption."""
    cell = evidence.cells[2]
    lr, damping = cell.places["lr"], "damping.constant.value"
    places = {
        "few": cell.places.apply(lambda column: column.where(column.index < 4)),
        "on a line": cell.places.assign(**{damping: lr}),
        "all alike": cell.places.assign(**{damping: lr[::-1].to_numpy()}),
    }[kind]
    trials = cell.trials.assign(**{UPDATES: 50.0}) if kind == "all alike" else cell.trials
    cell = dataclasses.replace(cell, places=places, trials=trials)

    (drawing,) = contour(dataclasses.replace(evidence, cells=(cell,)))

    assert surface(cell, UPDATES).triangles is None
    (whole,) = [other for other in contour(evidence) if other.title == drawing.title]
    assert drawing.caption[0] != whole.caption[0]
    assert len(drawing.figure.axes) == 1  # no colour bar


def test_the_front_is_filled_and_joined():
    """Trials on the front are filled and joined; a single objective has no front."""
    evidence = gather_study(CASES["two objectives"])
    (drawing,) = front(evidence)
    (axes,) = drawing.figure.axes
    steps = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]

    assert len(steps) == 3
    for cell, line in zip(evidence.cells, steps, strict=True):
        front_trials = cell.trials[cell.trials["on_front"]].sort_values(UPDATES)
        assert line.get_xdata().tolist() == front_trials[UPDATES].tolist()
        assert (np.diff(line.get_ydata()) < 0).all()
    assert front(gather_study(CASES["one arm"])) == ()


def test_the_order_of_rows_changes_no_figure(evidence):
    """Tables backwards give the same bytes."""
    records = synthetic_study()
    backwards = dataclasses.replace(
        records,
        trials=records.trials[::-1],
        parameters=records.parameters[::-1],
        seeds=records.seeds.sample(frac=1, random_state=0),
    )

    for drawn, again in zip(history(evidence) + coordinates(evidence),
                          history(gather_study(backwards)) + coordinates(gather_study(backwards)),
                          strict=True):  # fmt: skip
        assert svg.to_svg(drawn.figure, drawn.name, drawn.alt) == svg.to_svg(
            again.figure, drawn.name, drawn.alt
        )


def test_too_many_cells_have_no_figure_each():
    """Beyond the limit the figures of single cells are left out, the others are drawn."""
    sizes = range(100, 100 * (MOST_CELLS + 2), 100)
    evidence = gather_study(synthetic_study({"adam": Searched()}, sizes=sizes, trials=2,
                                          comparisons=()))  # fmt: skip
    few = dataclasses.replace(evidence, cells=evidence.cells[:2])

    assert len(evidence.cells) > MOST_CELLS
    assert set(STUDY_CROWDED) < set(STUDY_FIGURES)
    assert "Parallel coordinates" in draw_study_figures(few)
    assert "Parallel coordinates" not in draw_study_figures(evidence)
