"""Numbers for readers at the edges of their forms."""

import math

import pandas as pd
import pytest

from bdhf.text import formatting
from bdhf.text.formatting import (
    cost,
    in_full,
    interval,
    number,
    p_in_a_sentence,
    p_value,
    plain_count,
    plain_p,
    ratio,
    short,
    three_digits,
    whole,
    with_unit,
)

EDGES = (0.0, 1e-5, 0.9995, 999.5, math.nan, math.inf, -math.inf, -0.9995, -999.5)


@pytest.mark.parametrize(
    ("form", "texts"),
    [
        (number, ["0", "1.00 × 10⁻⁵", "1.00", "1,000", "–", "∞", "−∞", "−1.00", "−1,000"]),
        (whole, ["0", "1.00 × 10⁻⁵", "1.00", "1,000", "–", "∞", "−∞", "−1.00", "−1,000"]),
        (cost, ["0", "1e-05", "0.9995", "999.5", "–", "inf", "-inf", "-0.9995", "-999.5"]),
        (short, ["0", "1e-05", "0.9995", "999.5", "nan", "inf", "-inf", "-0.9995", "-999.5"]),
        (three_digits, ["0", "1e-05", "1", "1e+03", "–", "inf", "-inf", "-1", "-1e+03"]),
        (in_full, ["0", "1e-05", "0.9995", "999.5", "nan", "inf", "-inf", "-0.9995", "-999.5"]),
    ],
)
def test_every_form_at_the_edges(form, texts):
    """Zero, small values, values that round up to the next digit, NaN, infinities, below 0."""
    assert [form(value) for value in EDGES] == texts


def test_ratios_at_the_edges():
    """From 0 to ∞; a limit near 1 is distinguished from 1."""
    values = (0.0, 1e-5, 9.9e-5, 1e-4, 0.0995, 0.995, 0.9995, 1.0, 1.0004, 999.5, 1e6, math.inf)

    assert [ratio(value) for value in values] == [
        "0", "1e-05", "9.9e-05", "0.00010", "0.100", "0.99", "0.9995", "1.00", "1.0004", "999.50",
        "1e+06", "∞",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("p", "alpha", "page", "plain", "sentence"),
    [
        (0.0, 0.05, "< 0.001", "< 0.001", "< 0.001"),
        (1e-5, 0.05, "< 0.001", "< 0.001", "< 0.001"),
        (0.0007, 0.0005, "0.001", "0.001", "= 0.001"),
        (0.0499999, 0.05, "0.0499999", "0.0499999", "= 0.0499999"),
        (0.05, 0.05, "0.050", "0.050", "= 0.050"),
        (0.0501, 0.05, "0.0501", "0.0501", "= 0.0501"),
        (0.0124, 0.0123, "0.0124", "0.0124", "= 0.0124"),
        (0.9995, 0.05, "1.000", "1.000", "= 1.000"),
        (1.0, 0.05, "1.000", "1", "= 1"),
        (math.nan, 0.05, "–", "–", "–"),
    ],
)
def test_a_p_stays_on_its_side_of_alpha(p, alpha, page, plain, sentence):
    """On a page, on a terminal and in a sentence alike, also below 0.001."""
    assert [form(p, alpha) for form in (p_value, plain_p, p_in_a_sentence)] == [
        page, plain, sentence,
    ]  # fmt: skip


@pytest.mark.parametrize("missing", [None, pd.NA, pd.NaT, math.nan])
def test_what_is_missing_is_a_dash(missing):
    """In any form of a missing value."""
    assert number(missing) == whole(missing) == p_value(missing, 0.05) == formatting.NONE


def test_a_mark_is_never_rounded_onto():
    """Nor is the end of an interval; a value equal to the mark is written as usual."""
    assert [number(v, mark=1.0) for v in (0.9995, 1.0, 1.0004)] == ["0.9995", "1.00", "1.0004"]
    assert interval(-0.9995, 0.99951, mark=1.0) == "−1.00 to 0.9995"
    assert interval(0.5, math.nan, mark=1.0) == interval(0.5, math.inf, mark=1.0) == "no interval"


def test_where_a_page_turns_to_powers_of_ten():
    """Below a ten-thousandth and from ten million on."""
    values = (9.99e-5, 1e-4, 9_999_999.0, 1e7, -2.5e-7)

    assert [number(value) for value in values] == [
        "9.99 × 10⁻⁵", "0.000100", "9,999,999", "1.00 × 10⁷", "−2.50 × 10⁻⁷",
    ]  # fmt: skip
    assert [number(value, tidy=True) for value in (1e7, 0.5, 1000.0)] == ["1 × 10⁷", "0.5", "1,000"]


def test_units_change_at_their_sizes():
    """A value below the smallest unit, or without a scale, keeps its unit."""
    seconds = [with_unit(value, "seconds") for value in (1.0, 0.9995, 1e-3, 1e-6, 5e-7, 0.0)]

    assert seconds == ["1 s", "1e+03 ms", "1 ms", "1 µs", "5e-07 seconds", "0 seconds"]
    assert [with_unit(999.5, unit) for unit in ("bytes", "")] == ["999.5 bytes", "999.5"]


def test_commas_stand_on_pages_only():
    """Numbers on a terminal can be pasted."""
    assert (plain_count(0, "run"), formatting.counted(1000, "run")) == ("0 runs", "1,000 runs")
    assert (plain_count(1000, "run"), whole(1000)) == ("1000 runs", "1,000")
