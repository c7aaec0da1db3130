"""Whatever a label holds, a drawing is well-formed XML; and what it may hold is a short table."""

import json
import re
import warnings
from dataclasses import replace
from html import escape
from xml.etree import ElementTree

import matplotlib
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from bdhf.records import Comparison, Tuning
from bdhf.report.page.style import drawable, literal, styled
from bdhf.report.page.svg import to_svg
from bdhf.report.study.render import evidence_of, render_study
from bdhf.report.verify.svg_check import unknown_parts
from tests.report.conftest import report
from tests.report.synthetic import QUICKSTART, synthetic_records
from tests.report.synthetic_study import synthetic_study

#: Control characters, what ends a comment or an element, and what XML cannot hold.
HARD = ("a\x1b[2K\u202e", "\x00b", "c\x85\x7f", "d--><!--", "e</svg>&amp;", "f\ufffe", "]]>$_{")


def assert_well_formed(made):
    """All figures on disk and inline; inline figures contain only allowed parts."""
    inline = re.findall(r"(?s)<svg\b.*?</svg>", made.html)
    parts = [re.fullmatch(r'(?s)<svg (viewBox="[^"]*")[^>]*>(.*)</svg>', text) for text in inline]
    assert len(parts) > 2
    assert [fault for part in parts for fault in unknown_parts(part[1], part[2])] == []
    for content in (*made.figures.values(), *inline):
        ElementTree.fromstring(content)


def test_figures_of_an_ablation_with_hard_names_are_well_formed():
    """Names of arms, of comparisons and of a problem's own metric."""
    names = ("".join(HARD[:3]), HARD[3], "".join(HARD[4:]))
    arms = dict(zip(names, QUICKSTART.values(), strict=True))
    entries = [Comparison(name=f"{n} more", candidate=n, baseline=names[0]) for n in names[1:]]
    records = synthetic_records(arms, seeds=3, updates=40, every=8, comparisons=entries)
    records = replace(records, figures=("curves", "forest", "profile", "survival"))
    own = {"val_squared_error": f"val_{HARD[0]}", "test_squared_error": f"test_{HARD[0]}"}
    records = replace(records, curves=records.curves.rename(columns=own))

    assert_well_formed(report(records))


def test_figures_of_a_study_with_hard_names_are_well_formed():
    """Labels of its arms, parameters and choices."""
    study = synthetic_study()
    text = study.study.model_dump_json()
    for old, new in zip(("block_hf", "levenberg_marquardt", "full_hf"), HARD, strict=False):
        text = text.replace(old, json.dumps(new)[1:-1])
    names = dict(zip(("block_hf", "full_hf"), (HARD[0], HARD[2]), strict=True))
    tables = {
        name: getattr(study, name).assign(arm=lambda table: table["arm"].replace(names))
        for name in ("trials", "parameters", "seeds", "curves")
    }
    records = replace(study, study=Tuning.model_validate_json(text), **tables)

    assert_well_formed(render_study(evidence_of(records)))


@settings(deadline=None, max_examples=10)
@given(label=st.text(max_size=20), alt=st.text(max_size=20))
@example(label="".join(HARD), alt="".join(HARD))
@example(label="\ud800", alt="\udfff")
def test_any_text_of_a_figure_is_drawn_as_well_formed_xml(label, alt):
    """What XML cannot hold is left out of labels, comments and alt texts."""
    figure = Figure(figsize=(2, 1))
    figure.text(0.1, 0.5, label.replace("$", ""))

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # also where the font does not have a script
        drawn = to_svg(figure, "name", alt)

    ElementTree.fromstring(drawn.on_disk)
    root = ElementTree.fromstring(drawn.inline)
    assert root.attrib["aria-label"].split() == drawable(alt).split()


@pytest.mark.parametrize(
    "setting",
    [{"savefig.bbox": "tight"}, {"axes.unicode_minus": False}, {"font.size": 20},
     {"path.sketch": (1, 100, 2)}, {"axes.formatter.use_locale": True}],
)  # fmt: skip
def test_a_drawing_does_not_depend_on_a_matplotlibrc(setting):
    """Neither layout nor saving depends on it: otherwise an honest page would differ."""

    @styled()
    def drawn():
        figure = Figure(figsize=(3, 2), layout="constrained")
        figure.subplots().plot([0, 1], [-3, 2e6])
        return figure

    plainly = to_svg(drawn(), "name", "alt")
    with matplotlib.rc_context(setting):
        assert to_svg(drawn(), "name", "alt") == plainly


@pytest.mark.parametrize("name", HARD)
def test_a_plain_name_holds_nothing_that_xml_cannot(name):
    """Its visible characters stay."""
    ElementTree.fromstring(f"<a>{escape(literal(name))}</a>")

    assert [c for c in literal(name) if c.isalnum()] == [c for c in name if c.isalnum()]


FOREIGN = {
    "script": ("<script>1</script>", "an element 'script'"),
    "style": ("<style>a{}</style>", "an element 'style'"),
    "text": ('<text x="0">better</text>', "an element 'text'"),
    "image": ('<image width="1"/>', "an element 'image'"),
    "foreignObject": ("<foreignObject/>", "an element 'foreignObject'"),
    "link": ('<a id="b"><g/></a>', "an element 'a'"),
    "event": ('<g onclick="f()"/>', "an attribute 'onclick' of g"),
    "style attribute": ('<g style="display: none"/>', "an attribute 'style' of g"),
    "outside": ('<use xlink:href="https://example.org/a.svg#b"/>', "href"),
    "script in a link": ('<use xlink:href="javascript:0"/>', "href"),
    "outside clip": ('<g clip-path="url(https://example.org/#a)"/>', "the 'clip-path'"),
    "loose text": ("better", "the text 'better'"),
    "comment": ("<!-- better -->", "a comment, a declaration or an instruction"),
    "declaration": ("<!DOCTYPE svg>", "a comment, a declaration or an instruction"),
    "instruction": ("<?xml-stylesheet?>", "a comment, a declaration or an instruction"),
    "not closed": ("<g>", "malformed XML"),
    "closed twice": ("</g>", "malformed XML"),
    "HTML in it": ('<p xmlns="http://www.w3.org/1999/xhtml"/>', "xhtml}p"),
    "colour": ('<g fill="url(#a)"/>', "the 'fill' 'url(#a)' of g"),
    "capitals": ("<SCRIPT/>", "an element 'SCRIPT'"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_unknown_parts_of_a_drawing_are_reported(kind):
    """An element, an attribute, a value, a text, or ambiguous markup."""
    body, told = FOREIGN[kind]

    faults = unknown_parts(
        'viewBox="0 0 1 1"', f'<g id="a"><path d="M 0 1" fill="none"/></g>{body}'
    )

    assert told in faults[0]


def test_the_box_of_a_drawing_is_looked_at_too():
    """It must be four numbers."""
    assert unknown_parts('viewBox="0 0 1.5 1e3"', "<g/>") == ()
    assert unknown_parts('viewBox="0 0 1 1" onload="f()"', "<g/>") == (
        "an attribute 'onload' of svg",
    )
    assert len(unknown_parts('viewBox="0 0 100%"', "<g/>")) == 1
