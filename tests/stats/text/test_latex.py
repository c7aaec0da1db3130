"""LaTeX of results: valid for every name, and for every number of pairs."""

import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bdhf.stats.caveats.flags import too_few_pairs
from bdhf.stats.compare import compare
from bdhf.stats.text.latex import escaped, to_latex
from bdhf.stats.text.tables import rows
from tests.stats.synthetic import BLOCK_VS_FULL, synthetic, with_losses

ENDS = st.sampled_from([0, 10, 20, 40, None, "oom", "diverged", "planned"])
NAMES = st.text(min_size=1, max_size=12) | st.lists(
    st.sampled_from(["\n", "\r", "\x85", "\u2028", "\x1b[2K", "%", "&", "\\", "{", "}", "[x]", "*",
                     "\\input{x}", "$", "^^M", "#1", "~", "_", "a"]), min_size=1, max_size=6,
).map("".join)  # fmt: skip

#: Characters with a meaning in LaTeX, without a backslash before them.
BARE = re.compile(r"(?<!\\)[&%#_]")


def results_of(block, full, **names):
    """The results of one comparison with a margin, under other names."""
    entry = BLOCK_VS_FULL.model_copy(update={"margin": 1.1})
    records = synthetic({"block": block, "full": full}, comparisons=(entry,))
    return [dataclasses.replace(result, **names) for result in compare(records)]


(PLAIN,) = results_of([10] * 3, [20] * 3)


def check(latex, flags):
    """One row with seven separators, nothing bare, braces in pairs, and a comment a flag."""
    lines = latex.split("\n")

    assert lines[:4] == to_latex([]).replace("interval", r"95 \% interval").split("\n")[:4]
    assert lines[5:7] == [r"\bottomrule", r"\end{tabular}"]
    assert lines[-1] == ""
    assert len(lines[7:-1]) == flags
    assert all(line.startswith("% ") for line in lines[7:-1])
    assert latex.splitlines() == lines[:-1]
    assert latex.replace("\n", "").isprintable()
    row = lines[4].removesuffix(r" \\")
    assert row + r" \\" == lines[4]
    assert BARE.findall(row) == ["&"] * 7
    assert re.match(r"[\[*]", row) is None
    depth = 0
    for brace in re.findall(r"(?<!\\)[{}]", row):
        depth += 1 if brace == "{" else -1
        assert depth >= 0
    assert depth == 0
    assert len(re.findall(r"(?<!\\)\$", row)) % 2 == 0
    assert set(re.findall(r"\\([a-zA-Z]+)", row)) <= {
        "textbackslash", "textasciitilde", "textasciicircum", "textbar", "leq", "geq", "times",
        "div", "infty", "lambda",
    }  # fmt: skip


@settings(deadline=None)
@given(NAMES, NAMES, st.lists(NAMES, max_size=3))
def test_any_names_are_a_row_and_comments(name, target, flags):
    """Line breaks, control characters and commands are text, in the row and in comments."""
    result = dataclasses.replace(PLAIN, name=name, target=target, flags=tuple(flags))

    check(to_latex([result]), len(flags))


@settings(deadline=None, max_examples=10)
@given(
    st.integers(1, 5).flatmap(lambda n: st.tuples(*2 * [st.lists(ENDS, min_size=n, max_size=n)]))
)
def test_any_few_pairs_are_a_row_and_comments(ends):
    """For all ends of runs: intervals that begin at 0, no pairs, and costs of 0."""
    (result,) = results_of(*ends)

    check(to_latex([result]), len(result.flags))


@pytest.mark.parametrize("pairs", [1, 2, 3, 4, 5])
def test_an_interval_that_begins_at_zero_is_none(pairs):
    """Too few pairs for the level have a ratio without an interval."""
    latex = to_latex(results_of([10] * pairs, [20] * pairs))

    assert f" & 0.50 & {2 ** (1 - pairs):.3f} & ".replace("1.000", "1") in latex


def test_a_line_break_in_a_name_does_not_end_a_comment():
    """The text after it stays in the comment, and in the row."""
    latex = to_latex(results_of([10] * 3, [20] * 3, name="a\n\\input{x}"))

    assert r"a \textbackslash{}input\{x\} & updates to" in latex
    assert [line for line in latex.splitlines() if line.startswith("\\input")] == []
    (flag,) = too_few_pairs(3, 3, 0.05, 1)
    assert f"% a \\input{{x}}: {flag}" in latex


def test_what_is_not_latin_stays_and_symbols_are_set():
    """Escapes are those of LaTeX."""
    assert escaped("λ ≥ 3 ÷ ∞ | é") == (r"$\lambda$ $\geq$ 3 $\div$ $\infty$ \textbar{} é")


@settings(deadline=None)
@given(NAMES, NAMES)
def test_tables_in_words_are_lines(name, target):
    """For any names of arms and targets, a value is one printable line."""
    result = dataclasses.replace(PLAIN, candidate=name, target=target)

    assert all(value.isprintable() for _, value in rows(result))


def test_losses_without_ratios_have_no_interval_of_one():
    """The reason is the missing ratio, not tied or too few pairs."""
    losses = {"block": [[1, -0.2 + i / 100] for i in range(8)],
              "full": [[1, -0.3 + i / 90] for i in range(8)]}  # fmt: skip
    words = dict(rows(*compare(with_losses(losses))))

    none = "– (not every value is positive, so no ratio exists)"
    assert (words["interval"], words["BCa interval"]) == (none, none)
