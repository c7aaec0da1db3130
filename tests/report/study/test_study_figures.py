"""Figures over comparisons, batch sizes and problems: what is drawn is what the tables say."""

import dataclasses
import math
import re
from typing import get_args

import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bdhf.records import Figure as Named
from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.captions import HOLLOW
from bdhf.report.ablation.evidence import gather
from bdhf.report.ablation.figures.diagnostics import STOP_METRICS, UPDATES, draw_diagnostics
from bdhf.report.ablation.figures.forest import VERDICTS, draw_forest, effects
from bdhf.report.ablation.figures.profile import draw_profile, draw_shares
from bdhf.report.ablation.figures.ranks import draw_ranks
from bdhf.report.ablation.figures.scaling import draw_scaling
from bdhf.report.ablation.figures.table import CROWDED, FIGURES, draw_figures
from bdhf.report.ablation.tuning import per_batch_size
from bdhf.report.page import svg
from bdhf.report.page.style import MOST_LINES, looks
from bdhf.stats.compare import compare
from bdhf.stats.result import Verdict
from bdhf.stats.scaling.means import between
from bdhf.text.formatting import interval, number
from tests.messages import naming
from tests.report.synthetic import ENTRIES, Arm, synthetic_records
from tests.report.synthetic_grids import CRITICAL, SIZES, batches, diagnosed, problems


def evidence_of(records):
    """The evidence for all figures."""
    return gather(records, compare(records), survival_curves(records))


def texts(figure: Figure) -> list[str]:
    """The texts in the panels."""
    return [text.get_text() for axes in figure.axes for text in axes.texts]


@pytest.fixture(scope="module")
def study():
    """Three arms with diagnostics, and one comparison with a margin."""
    entries = [ENTRIES[0].model_copy(update={"margin": 1.25}), ENTRIES[1]]
    return evidence_of(diagnosed(synthetic_records(updates=120, every=4, comparisons=entries)))


@pytest.fixture(scope="module")
def sized():
    """Three optimizers at five batch sizes."""
    return evidence_of(batches())


@pytest.fixture(scope="module")
def ranked():
    """Four solvers on six problems."""
    return evidence_of(problems())


def test_the_table_draws_what_a_spec_may_ask_for():
    """Every name of `report.figures` is drawn here, except the multiverse, a table of the page."""
    assert set(FIGURES) == set(get_args(Named)) - {"multiverse"}
    assert set(CROWDED) < set(get_args(Named))


def test_only_what_is_asked_is_drawn(study):
    """`report: {figures: [forest, curves]}` draws these two, and computes nothing for others."""
    records = dataclasses.replace(study.records, figures=("forest", "curves"))
    chosen = evidence_of(records)

    assert list(draw_figures(chosen)) == ["Effects", "Training curves"]
    assert chosen.profile.empty
    assert set(draw_figures(study)) > set(draw_figures(chosen))


def test_too_many_arms_leave_the_figures_without_a_line_for_each():
    """Beyond the limit curves and survival are not drawn; the forest of comparisons still is."""
    arms = {f"arm {i}": Arm(tau=10.0 + i) for i in range(MOST_LINES + 1)}
    entry = ENTRIES[0].model_copy(update={"candidate": "arm 0", "baseline": "arm 9"})
    records = synthetic_records(arms, seeds=2, updates=60, every=6, comparisons=[entry])

    assert list(draw_figures(evidence_of(records))) == ["Effects"]


def test_forest_draws_ratio_interval_and_margin(study):
    """A row has its ratio as marker in the colour of the verdict, and its interval as line."""
    (drawing,) = draw_forest(study)
    (axes,) = drawing.figure.axes
    spans = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    points = [line for line in axes.lines if len(line.get_xdata()) == 1]

    for row, result in enumerate(study.results):
        assert spans[row] == pytest.approx([result.ratio_low, result.ratio_high])
        assert points[row].get_xdata()[0] == result.ratio
        assert points[row].get_color() == VERDICTS[result.verdict].colour
    assert axes.get_xscale() == "log"
    (band,) = [patch for patch in axes.collections if patch.get_alpha() == 0.13]
    across = band.get_paths()[0].vertices[:, 0]
    assert [across.min(), across.max()] == pytest.approx([1 / 1.25, 1.25])
    assert "block vs full 7 of 8" in " ".join(drawing.caption)


def test_forest_gives_each_verdict_a_look_of_its_own(study):
    """Four verdicts differ in colour and in marker, and the legend names those that occur."""
    assert set(VERDICTS) == set(Verdict)
    assert len({look.colour for look in VERDICTS.values()}) == 4
    assert len({look.marker for look in VERDICTS.values()}) == 4

    results = [dataclasses.replace(study.results[0], verdict=v) for v in Verdict]
    legend = effects(results).legends[0]

    assert [text.get_text() for text in legend.get_texts()] == list(VERDICTS)


def test_an_unbounded_interval_is_an_arrow(study):
    """Without bounds there is an arrow at both edges of the panel."""
    endless = dataclasses.replace(study.results[0], ratio_low=0.0, ratio_high=math.inf)

    (drawing,) = draw_forest(dataclasses.replace(study, results=[endless]))
    (axes,) = drawing.figure.axes

    arrows = {line.get_marker(): line.get_xdata()[0] for line in axes.lines}
    assert (arrows["<"], arrows[">"]) == axes.get_xlim()
    (bounded,) = draw_forest(dataclasses.replace(study, results=study.results[:1]))
    assert len(drawing.caption) == len(bounded.caption) + 1
    assert interval(0.0, math.inf, mark=1.0) in drawing.alt


def test_a_comparison_without_a_ratio_is_named(study):
    """It is left out, and the caption names it; without any ratio there is no figure."""
    lost = dataclasses.replace(study.results[0], ratio=math.nan, name="lost")

    (drawing,) = draw_forest(dataclasses.replace(study, results=[lost, study.results[1]]))

    assert "1 comparison (lost)" in " ".join(drawing.caption)
    assert "lost" not in texts(drawing.figure)
    assert draw_forest(dataclasses.replace(study, results=[lost])) == ()


def test_every_question_has_a_forest_of_its_own():
    """Updates and seconds are not drawn on one axis."""
    drawings = draw_forest(evidence_of(synthetic_records(updates=80, every=4, seeds=4)))

    assert [drawing.name for drawing in drawings] == ["forest_1", "forest_2"]
    assert [drawing.title.split()[0] for drawing in drawings] == ["Updates", "Seconds"]


def test_profile_steps_are_the_table(study):
    """The line of an arm passes through its rows and extends to the edge of the panel."""
    (drawing,) = draw_profile(study)
    (axes,) = drawing.figure.axes
    table = study.profile[study.profile["arm"] == "full_hf"]
    colour = study.looks["full_hf"].colour
    line = next(line for line in axes.lines if line.get_color() == colour)

    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata()[:-1] == pytest.approx(table["ratio"].tolist())
    assert line.get_ydata()[:-1] == pytest.approx(table["share"].tolist())
    assert line.get_xdata()[-1] == axes.get_xlim()[1]
    assert "7 of 8 instances" in " ".join(drawing.caption)


def test_wide_profiles_are_logarithmic(study):
    """Ratios beyond a decade would crowd the others on a linear axis."""
    wide = study.profile.assign(ratio=study.profile["ratio"] ** 6)

    assert draw_shares(wide, study.looks).axes[0].get_xscale() == "log"
    assert draw_shares(study.profile, study.looks).axes[0].get_xscale() == "linear"


def test_solvers_of_a_grid_of_problems_have_looks_of_their_own(ranked):
    """Twenty-four arms are four solvers with different colours; the caption defines an instance."""
    (drawing,) = draw_profile(ranked)
    legend = drawing.figure.legends[0]
    names = [text.get_text() for text in legend.get_texts()]

    assert names == [f"solver_{i}" for i in range(4)]
    assert len({to_hex(handle.get_color()) for handle in legend.legend_handles}) == 4
    assert re.match(naming("instance", "problem", "seed"), drawing.caption[0])


def test_scaling_marks_points_fit_and_critical_size(sized):
    """Every size has a point, every group a star at its B_crit, both axes are logarithmic."""
    drawing, _ = draw_scaling(sized)
    (axes,) = drawing.figure.axes
    stars = {line.get_color(): line.get_xdata()[0] for line in axes.lines
             if line.get_marker() == "*"}  # fmt: skip
    looks_by_group = looks(sorted(CRITICAL))

    assert axes.get_xscale() == axes.get_yscale() == "log"
    for scaling in sized.scaling:
        colour = looks_by_group[scaling.group].colour
        assert stars[colour] == scaling.b_crit
        dots = [x for line in axes.lines if line.get_color() == colour
                and line.get_marker() == looks_by_group[scaling.group].marker
                for x in line.get_xdata()]  # fmt: skip
        assert sorted(dots) == list(SIZES)
    caption = " ".join(drawing.caption)
    assert per_batch_size(sized.records, sorted(CRITICAL)) in caption
    assert (HOLLOW in caption) == (sized.sizes["hits"] < sized.sizes["runs"]).any()


def test_where_updates_are_few_the_caption_has_a_warning(sized):
    """With few updates the rounding to evaluations shifts B_crit more than seeds show."""

    def caption(s_min):
        fits = [dataclasses.replace(scaling, s_min=s_min) for scaling in sized.scaling]
        return draw_scaling(dataclasses.replace(sized, scaling=fits))[0].caption

    every = sized.records.evaluate_every
    assert len(caption(1.0)) == len(caption(20.0 * every - 1)) == len(caption(20.0 * every)) + 1


def test_runs_without_recorded_hardware_are_counted_under_seconds(sized):
    """They are one kind of machine; its seconds are drawn if it is the most common."""
    without = dataclasses.replace(sized.records, environments=pd.DataFrame())

    recorded = draw_scaling(sized)[1].caption
    unrecorded = draw_scaling(dataclasses.replace(sized, records=without))[1].caption

    (sentence,) = set(unrecorded) - set(recorded)
    assert f"{len(sized.records.runs)} runs" in sentence


def test_sizes_with_misses_are_hollow(sized):
    """A mean with misses is drawn hollow, with an arrow upwards, on either axis."""
    sizes = sized.sizes.assign(hits=sized.sizes["runs"] - 1)

    for drawing in draw_scaling(dataclasses.replace(sized, sizes=sizes)):
        (axes,) = drawing.figure.axes
        hollow = [len(line.get_xdata()) for line in axes.lines if line.get_fillstyle() == "full"
                  and line.get_markerfacecolor() == "none"]  # fmt: skip
        assert sum(hollow) == len(axes.texts) == len(SIZES) * len(CRITICAL)
        assert HOLLOW in drawing.caption


def test_seconds_are_joined_points_with_the_critical_size_of_the_updates(sized):
    """A line goes through the means of its arm, without a fit; its star at B_crit is on it."""
    updates, drawing = draw_scaling(sized)
    (axes,) = drawing.figure.axes
    seconds = sized.sizes[sized.sizes["axis"] == "seconds"]
    looks_by_group = looks(sorted(CRITICAL))

    assert axes.get_xscale() == axes.get_yscale() == "log"
    for scaling in sized.scaling:
        lines = [
            line for line in axes.lines if line.get_color() == looks_by_group[scaling.group].colour
        ]
        line = next(line for line in lines if line.get_linestyle() != "None")
        star = next(line for line in lines if line.get_marker() == "*")
        means = seconds[seconds["group"] == scaling.group]
        assert line.get_xydata() == pytest.approx(means[["size", "cost"]].to_numpy())
        at = between(means, scaling.b_crit)
        assert star.get_xydata()[0] == pytest.approx([scaling.b_crit, at])
    assert (updates.title, drawing.title) == ("Updates to val_loss ≤ 0.02",
                                              "Seconds to val_loss ≤ 0.02")  # fmt: skip
    assert updates.figure.legends[0].get_texts()[0].get_text() == "adam"


def test_a_critical_size_beyond_the_sizes_is_not_on_a_line_of_seconds(sized):
    """A line without a model has no value there, but the fit of updates has."""
    far = [dataclasses.replace(scaling, b_crit=1.5 * SIZES[-1]) for scaling in sized.scaling]

    stars = [
        [line.get_marker() for line in drawing.figure.axes[0].lines].count("*")
        for drawing in draw_scaling(dataclasses.replace(sized, scaling=far))
    ]

    assert stars == [len(CRITICAL), 0]


def test_the_fewest_seconds_have_their_reservations(sized):
    """The lowest point of every arm, ends of the range, and sizes with misses that may be lower.

    Where runs missed at every size there is no lowest point.
    """
    costs = {"adam": (1, 2, 3, 4, 5), "block_hf": (5, 4, 3, 4, 5), "full_hf": (5, 2, 4, 3, 4)}
    sizes = sized.sizes.assign(hits=sized.sizes["runs"])
    for group, values in costs.items():
        sizes.loc[(sizes["group"] == group) & (sizes["axis"] == "seconds"), "cost"] = values
    sizes.loc[(sizes["group"] == "full_hf") & (sizes["size"] == 100), "hits"] = 1

    def caption(table):
        return " ".join(draw_scaling(dataclasses.replace(sized, sizes=table))[1].caption)

    adam, block, full = re.search("adam at B.*?[.](?= |$)", caption(sizes))[0].split("; ")
    assert re.match(naming("adam at B = 50 (1.00 s", "smallest"), adam)
    assert block == "block_hf at B = 200 (3.00 s)"
    assert re.match(naming("full_hf at B = 400 (3.00 s", "at B = 100"), full)
    assert " s)" not in caption(sizes.assign(hits=0))


def test_seconds_count_the_runs_they_leave_out(sized):
    """Runs on other machines, on shared machines, and without recorded seconds."""
    records = sized.records
    where = records.environments.assign(concurrent=1)
    where.loc[:3, "cpu"], where.loc[4:9, "concurrent"] = "another", 3
    lost = records.runs["run_id"].iloc[-2:]
    curves, runs = (
        table.assign(seconds=table["seconds"].mask(table["run_id"].isin(lost)))
        for table in (records.curves, records.runs)
    )
    mixed = dataclasses.replace(records, environments=where, runs=runs, curves=curves)

    plain, counts = (
        " ".join(draw_scaling(evidence_of(version))[1].caption)
        for version in (dataclasses.replace(records, environments=records.environments[:0]), mixed)
    )

    facts = ("4 of 75 runs", "2 runs", "6 of 71 runs", "3 at once")
    assert re.match(naming(*facts), counts)
    assert not re.search("|".join(facts), plain)


def test_without_seconds_there_are_updates_alone(sized):
    """Without recorded seconds there is no second figure; an arm without them is named."""
    seconds = sized.sizes["axis"] == "seconds"
    none = dataclasses.replace(sized, sizes=sized.sizes[~seconds])
    some = dataclasses.replace(
        sized, sizes=sized.sizes[~seconds | (sized.sizes["group"] != "adam")]
    )

    (updates,) = draw_scaling(none)
    _, drawing = draw_scaling(some)

    assert updates.name == "scaling"
    assert any(sentence.endswith(": adam.") for sentence in drawing.caption)
    looks_by_group = looks(sorted(CRITICAL))
    handles = drawing.figure.legends[0].legend_handles
    assert [h.get_color() for h in handles] == [
        looks_by_group[g].colour for g in ("block_hf", "full_hf")
    ]


def test_a_critical_size_that_is_not_found_has_no_star(sized):
    """At a limit of the search there is no mark, and no value in caption and alternative text."""
    lost = [dataclasses.replace(scaling, at_limit=1) for scaling in sized.scaling]

    drawing, seconds = draw_scaling(dataclasses.replace(sized, scaling=lost))

    for figure in (drawing.figure, seconds.figure):
        assert "*" not in [line.get_marker() for line in figure.axes[0].lines]
    for text in (" ".join(drawing.caption), drawing.alt):
        (words,) = re.findall(r"adam not [^;]*1 / B[^;]*", text)
        assert number(lost[0].b_crit) not in words


def test_two_batch_sizes_are_no_scaling():
    """A fit needs three, and without a fit there is no figure."""
    assert draw_scaling(evidence_of(batches(sizes=(100, 400), seeds=2, updates=60))) == ()


def test_diagnostics_have_a_panel_for_each_that_was_measured(study):
    """Updates and stop reasons; a reason that never occurs has no panel and is named."""
    updates, stops = draw_diagnostics(study)

    assert [axes.get_ylabel() for axes in updates.figure.axes] == list(UPDATES.values())
    assert [axes.get_ylabel() for axes in stops.figure.axes] == list(STOP_METRICS.values())[:3]
    assert "negative curvature" in " ".join(stops.caption)
    assert any(sentence.endswith(" adam.") for sentence in updates.caption)


def test_diagnostics_of_records_without_stop_reasons_have_no_such_panels(study):
    """Older records have negative curvature at most."""
    curves = study.records.curves.drop(columns=list(STOP_METRICS)[:3])
    old = dataclasses.replace(study.records, curves=curves)
    met = dataclasses.replace(old, curves=curves.assign(negative_curvature=0.5))

    assert [d.name for d in draw_diagnostics(evidence_of(old))] == ["diagnostics"]
    assert len(draw_diagnostics(evidence_of(met))[1].figure.axes) == 1
    assert (
        draw_diagnostics(evidence_of(synthetic_records(seeds=2, updates=40, comparisons=()))) == ()
    )


def test_ranks_are_drawn_where_there_are_problems_enough(ranked, study):
    """A row per solver at its mean rank, a bar per group; none on one problem."""
    (drawing,) = draw_ranks(ranked)
    (axes,) = drawing.figure.axes
    (ranks,) = ranked.ranks
    dots = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"]
    bars = [line for line in axes.lines if line.get_linewidth() == 3.5]

    assert dots == pytest.approx(ranks.mean_ranks)
    assert len(bars) == len(ranks.groups)
    assert "solver_0" in texts(drawing.figure)
    assert draw_ranks(study) == ()


@pytest.mark.parametrize("name", ["study", "sized", "ranked"])
def test_figures_are_the_same_whatever_the_order_of_rows(name, request):
    """Reversed rows give the same bytes."""
    evidence = request.getfixturevalue(name)
    records = evidence.records
    turned = dataclasses.replace(records, runs=records.runs[::-1], curves=records.curves[::-1])
    names = [n for n in FIGURES if n in ("forest", "profile", "scaling", "diagnostics", "ranks")]

    def drawn(of):
        return [
            (d.caption, svg.to_svg(d.figure, d.name, d.alt)) for n in names for d in FIGURES[n](of)
        ]

    assert drawn(evidence)
    assert drawn(evidence_of(turned)) == drawn(evidence)
