"""Figures: an arm looks the same everywhere, and an SVG adapts its ink and stays the same."""

import io
import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bdhf.report.ablation.build import survival_curves
from bdhf.report.ablation.evidence import gather
from bdhf.report.ablation.figures.table import FIGURES, draw_figures
from bdhf.report.page import svg
from bdhf.report.page.drawing import Drawing, Evidence
from bdhf.report.page.style import INK, canvas, looks
from bdhf.stats.compare import compare
from tests.report.synthetic import Arm, synthetic_records
from tests.report.synthetic_grids import diagnosed

GROUPED = ("forest", "scaling", "ranks")  # figures whose lines are no single arms


@pytest.fixture(scope="module")
def evidence(quickstart) -> Evidence:
    """The evidence for the figures of the study, including diagnostics."""
    records = diagnosed(quickstart)
    return gather(records, compare(records), survival_curves(records))


@pytest.fixture(scope="module")
def drawings(evidence) -> list[Drawing]:
    """Its figures, not yet written as SVG."""
    return [drawing for group in draw_figures(evidence).values() for drawing in group]


def colours(figure: Figure) -> dict[str, str]:
    """The colour of every name in the legend."""
    legend = figure.legends[0]
    handles = zip(legend.get_texts(), legend.legend_handles, strict=True)
    return {text.get_text(): to_hex(handle.get_color()) for text, handle in handles}


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in GROUPED])
def test_arms_keep_their_colour_in_every_figure(name, evidence):
    """The legend of every figure gives an arm the colour of its place in the spec."""
    expected = {arm: look.colour for arm, look in looks(evidence.records.arms).items()}
    if name == "diagnostics":  # Adam has none
        del expected["adam"]

    legends = [colours(drawing.figure) for drawing in FIGURES[name](evidence)]

    assert legends
    assert all(legend == expected for legend in legends)


@pytest.mark.parametrize("name", ["curves", "survival"])
def test_colours_do_not_move_when_an_arm_has_no_run(name):
    """An arm without an outcome is left out of the legend; the others keep their colours."""
    status = dict.fromkeys(range(3), (None, ""))
    arms = {"first": Arm(tau=20.0, status=status), "second": Arm(tau=20.0)}
    records = synthetic_records(arms, seeds=3, updates=80, comparisons=())

    drawings = FIGURES[name](Evidence(records, survival_curves(records)))

    expected = {"second": looks(["first", "second"])["second"].colour}
    assert drawings
    assert all(colours(drawing.figure) == expected for drawing in drawings)


def test_eight_arms_differ_in_colour_and_without_it():
    """Up to eight arms differ in colour, and also in line style or marker alone."""
    eight = looks([f"arm {i}" for i in range(8)]).values()

    assert len({look.colour for look in eight}) == 8
    assert len({(look.dashes, look.marker) for look in eight}) == 8


def test_survival_steps_are_the_table(evidence):
    """The line of an arm goes through the rows of its survival curve and no others."""
    table = evidence.survival
    rows = table[(table["arm"] == "full_hf") & (table["axis"] == "updates")]
    colour = evidence.looks["full_hf"].colour

    (axes,) = FIGURES["survival"](evidence)[0].figure.axes

    line = next(line for line in axes.lines if line.get_color() == colour)
    assert line.get_drawstyle() == "steps-post"
    assert line.get_xdata().tolist() == rows["time"].tolist()
    assert line.get_ydata().tolist() == rows["surviving"].tolist()


def test_targets_lie_inside_the_panel_and_are_named(drawings, evidence):
    """The line of the target is within the limits of the validation panel, with its value."""
    below = evidence.records.targets[0].below
    for drawing in (drawing for drawing in drawings if drawing.view):
        axes = drawing.figure.axes[0]
        low, high = axes.get_ylim()

        assert low < below < high
        assert f"target\n{below}" in [text.get_text() for text in axes.texts]


def test_every_figure_says_what_is_seen(drawings, evidence):
    """The alternative text of a figure names every arm and a number of it."""
    for drawing in drawings:
        silent = ["adam"] * drawing.name.startswith("diagnostics")
        for arm in set(evidence.records.arms) - {*silent}:
            assert re.search(rf"{arm} [^;.]*\d", drawing.alt), (drawing.name, arm)


def test_ink_is_dark_on_disk_and_the_pages_own_inline(drawn):
    """The file has dark ink on white; the inline figure has the colour of the page."""
    inline = re.findall(r"<svg.*?</svg>", drawn.html, re.DOTALL)

    assert len(inline) > 13
    assert len(set(drawn.figures.values())) > 13
    for page in inline:
        assert "currentColor" in page
        assert not {svg.WHITE, svg.DARK, INK} & set(re.findall(r"#[0-9a-f]{6}", page))
    for disk in drawn.figures.values():
        assert {svg.WHITE.encode(), svg.DARK.encode()} <= set(re.findall(rb"#[0-9a-f]{6}", disk))
        assert INK.encode() not in disk


def test_rounded_coordinates_are_where_they_were(evidence):
    """No coordinate of an SVG moves by more than half a hundredth of a point; no scale changes."""
    figure, again = (FIGURES["survival"](evidence)[0].figure for _ in range(2))
    whole = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "name", "svg.fonttype": "path"}):
        figure.savefig(whole, format="svg", facecolor=svg.WHITE)

    rounded = svg.to_svg(again, "name", "").on_disk.decode()

    for name in ("d", "x", "y", "transform"):
        before = numbers(rf' {name}="([^"]*)"', whole.getvalue().decode())
        after = numbers(rf' {name}="([^"]*)"', rounded)
        np.testing.assert_allclose(after, before, rtol=0, atol=0.005 + 1e-9)
    scale = r"scale\(([^)]*)\)"
    assert numbers(scale, rounded) == numbers(scale, whole.getvalue().decode())
    assert not re.search(r' d="[^"]*\d\.\d{3}', rounded)


def numbers(pattern: str, text: str) -> list[float]:
    """All numbers within the places that a pattern finds."""
    matches = re.findall(pattern, text)
    return [float(n) for match in matches for n in re.findall(r"-?\d+(?:\.\d+)?", match)]


def test_ids_are_unique_in_the_page(drawn):
    """Inline figures share one document: no id occurs twice, and every reference resolves."""
    ids = re.findall(r'\bid="([^"]+)"', drawn.html)
    references = re.findall(r'(?:href="|url\()#([^")]+)', drawn.html)

    assert len(ids) == len(set(ids))
    assert references
    assert set(references) <= set(ids)


def test_long_labels_that_differ_in_the_middle_are_distinguished():
    """The labels of a grid stay different when they are shortened."""
    names = [f"block_hf partition={p} problem=autoencoder" for p in ("full", "random")]

    figure, _ = canvas(1, looks(names))

    assert [text.get_text() for text in figure.legends[0].get_texts()] == names


def test_odd_names_are_drawn_literally():
    """Names that matplotlib would typeset or clip, and markup, are drawn literally."""
    names = [r"$\oops$", "a-->b", "a\\b", '<b>&"', "x" * 80]
    records = synthetic_records(
        dict.fromkeys(names, Arm(tau=10.0)), seeds=2, updates=60, comparisons=()
    )

    (drawing,) = FIGURES["survival"](Evidence(records, survival_curves(records)))

    drawn = svg.to_svg(drawing.figure, drawing.name, drawing.alt)
    root = ElementTree.fromstring(drawn.inline)

    ElementTree.fromstring(drawn.on_disk)
    assert all(name in root.attrib["aria-label"] for name in names)
    shown = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert len(shown) == len(names)
    assert max(map(len, shown)) <= 32
