"""Numbers for readers, one function for each form on a page, in a sentence or on a terminal.

A page has three significant digits, commas and `1.50 × 10⁻⁷`; a terminal and a sentence have plain
digits. Rounding keeps a p-value or a limit on its side of its mark (alpha, a ratio of 1): it gets
as many digits as this takes.
"""

from __future__ import annotations

import math

import pandas as pd

from bdhf.text.rounding import on_its_side, rounded_onto

#: Printed where there is no number.
NONE = "–"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

#: Unit -> the units in which it is printed, the largest first: (size, name).
_SCALES = {
    "seconds": ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")),
    "bytes": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")),
}


def number(value: object, *, tidy: bool = False, mark: float | None = None) -> str:
    """A number on a page, with three significant digits; `tidy` drops the zeros of a fraction.

    A value off the `mark` gets as many digits as keep it from being rounded onto the mark.

    >>> [number(v) for v in (0.0123456, 0.02, 12.3456, 250, 48210.4, 1.5e-7, 0, float("nan"))]
    ['0.0123', '0.0200', '12.3', '250', '48,210', '1.50 × 10⁻⁷', '0', '–']
    >>> number(0.02, tidy=True), number(0.9998, mark=1.0)
    ('0.02', '0.9998')
    """
    real = _as_float(value)
    if math.isnan(real):
        return NONE
    if math.isinf(real):
        return "∞" if real > 0 else "−∞"
    digits = 3
    while mark is not None and digits < 12 and rounded_onto(real, mark, digits):
        digits += 1
    if real and not 1e-4 <= abs(real) < 1e7:
        return _scientific(real, tidy)
    text = _with_digits(real, digits)
    if tidy and "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def whole(value: object) -> str:
    """A whole number on a page, with commas; other values as a `number`.

    >>> whole(12345.0), whole(0.5), whole(None)
    ('12,345', '0.500', '–')
    """
    real = _as_float(value)
    is_whole = math.isfinite(real) and real == round(real) and abs(real) < 1e12
    return f"{real:,.0f}" if is_whole else number(value)


def interval(low: object, high: object, mark: float) -> str:
    """The ends of an interval on a page, neither rounded onto the mark.

    >>> interval(0.41, 0.9997, mark=1.0), interval(0.0, math.inf, mark=1.0)
    ('0.410 to 0.9997', 'no interval')
    """
    if not math.isfinite(_as_float(high)):
        return "no interval"
    return f"{number(low, mark=mark)} to {number(high, mark=mark)}"


def p_value(value: object, alpha: float) -> str:
    """A p-value on a page: three decimals, or as many as show on which side of alpha it lies.

    >>> [p_value(p, 0.05) for p in (0.0078125, 1e-5, 0.05001, 1.0)]
    ['0.008', '< 0.001', '0.05001', '1.000']
    """
    p = _as_float(value)
    if math.isnan(p):
        return NONE
    return "< 0.001" if p < min(0.001, alpha) else on_its_side(p, alpha, digits=3)


def plain_p(p: float, alpha: float) -> str:
    """A p-value on a terminal or in a paper: as on a page, and a 1 without decimals.

    >>> plain_p(0.0078125, 0.05), plain_p(1.0, 0.05)
    ('0.008', '1')
    """
    return "1" if p == 1 else p_value(p, alpha)


def p_in_a_sentence(p: float, alpha: float) -> str:
    """A p-value with the sign to put after "p".

    >>> [p_in_a_sentence(p, 0.05) for p in (0.0078125, 1e-5, 1.0, float("nan"))]
    ['= 0.008', '< 0.001', '= 1', '–']
    """
    text = plain_p(p, alpha)
    return text if text.startswith(("<", NONE)) else f"= {text}"


def ratio(value: float) -> str:
    """A ratio in a sentence: two decimals, or as many as show on which side of 1 it lies.

    >>> ratio(0.714), ratio(0.9998), ratio(0.0123)
    ('0.71', '0.9998', '0.012')
    >>> ratio(0.0), ratio(1e-9), ratio(2.5e7), ratio(math.inf), ratio(math.nan)
    ('0', '1e-09', '2.5e+07', '∞', '–')
    """
    if math.isinf(value) or value == 0:
        return "∞" if value else "0"
    if not 1e-4 <= value < 1e6:
        return three_digits(value)
    digits = 2 if value >= 0.1 else 1 - math.floor(math.log10(value))
    return on_its_side(value, 1.0, digits)


def cost(value: float) -> str:
    """A cost in a sentence: four significant digits, and whole numbers whole.

    >>> cost(300.0), cost(41.23456), cost(12345.6), cost(math.nan)
    ('300', '41.23', '12346', '–')
    """
    if math.isnan(value):
        return NONE
    return f"{value:.0f}" if value.is_integer() or abs(value) >= 1000 else short(value)


def three_digits(value: float) -> str:
    """A number in a sentence, with at most three significant digits.

    >>> three_digits(0.5), three_digits(12345.6), three_digits(math.nan)
    ('0.5', '1.23e+04', '–')
    """
    return NONE if math.isnan(value) else f"{value:.3g}"


def short(value: float) -> str:
    """A setting, a loss or a value of a trial on a terminal: at most four significant digits.

    >>> short(0.003), short(12345.6), short(math.nan)
    ('0.003', '1.235e+04', 'nan')
    """
    return f"{value:.4g}"


def in_full(value: float) -> str:
    """A number of a record on a terminal: whole ones in full, others to six digits.

    >>> in_full(1234567.0), in_full(0.12345678), in_full(math.inf)
    ('1234567', '0.123457', 'inf')
    """
    return f"{value:.0f}" if value == value // 1 and abs(value) < 1e15 else f"{value:g}"


def percent(share: float) -> str:
    """A share in a sentence, with the digits of the spec.

    >>> percent(1 - 0.05), percent(0.125)
    ('95 %', '12.5 %')
    """
    return f"{100 * share:g} %"


def with_unit(value: float, unit: str) -> str:
    """A measured number with its unit; seconds and bytes by their size.

    >>> with_unit(0.00123, "seconds"), with_unit(2.5e6, "bytes"), with_unit(43.0, "iterations")
    ('1.23 ms', '2.5 MB', '43 iterations')
    """
    for size, name in _SCALES.get(unit, ()):
        if value >= size:
            return f"{value / size:.3g} {name}"
    return f"{value:.10g} {unit}" if unit else f"{value:.10g}"


def counted(amount: int, singular: str, plural: str | None = None) -> str:
    """An amount on a page, with commas, and its noun.

    >>> counted(1, "run"), counted(3000, "run"), counted(2, "miss", "misses")
    ('1 run', '3,000 runs', '2 misses')
    """
    return f"{amount:,} {_noun(amount, singular, plural)}"


def plain_count(amount: int, singular: str) -> str:
    """An amount in a sentence or on a terminal, without commas, and its noun.

    >>> plain_count(1, "pair"), plain_count(3000, "pair")
    ('1 pair', '3000 pairs')
    """
    return f"{amount} {_noun(amount, singular)}"


def seeds_in_a_sentence(number_of: float, most: int) -> str:
    """The number of seeds that would decide, in a sentence; at most `most` were considered.

    >>> seeds_in_a_sentence(23.0, 10_000), seeds_in_a_sentence(math.inf, 10_000)
    ('about 23 seeds would decide', 'no number of seeds up to 10,000 would decide')
    """
    if math.isinf(number_of):
        return f"no number of seeds up to {most:,} would decide"
    return f"about {number_of:.0f} seeds would decide"


def seeds_in_a_cell(number_of: float, most: int) -> str:
    """The number of seeds that would decide, in a table of a page.

    >>> [seeds_in_a_cell(n, 10_000) for n in (23.0, math.inf, math.nan)]
    ['about 23', 'over 10,000', '–']
    """
    if math.isinf(number_of):
        return f"over {most:,}"
    return NONE if math.isnan(number_of) else f"about {number_of:,.0f}"


def _noun(amount: int, singular: str, plural: str | None = None) -> str:
    return singular if amount == 1 else plural or f"{singular}s"


def _as_float(value: object) -> float:
    if value is None or value is pd.NA or value is pd.NaT:
        return math.nan
    return float(value)  # type: ignore[arg-type]


def _with_digits(real: float, digits: int) -> str:
    if real == 0 or (abs(real) >= 999.5 and digits == 3):
        return f"{real:,.0f}"
    return f"{real:#.{digits}g}".rstrip(".")


def _scientific(real: float, tidy: bool) -> str:
    mantissa, exponent = f"{real:.2e}".split("e")
    if tidy:
        mantissa = mantissa.rstrip("0").rstrip(".")
    text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text if not text.startswith("-") else "−" + text[1:]
