"""Numbers for human readers: three significant digits, and no 1e-05."""

from __future__ import annotations

import math

import pandas as pd

from bdhf.records import Records
from bdhf.stats.inference.power import MOST_SEEDS

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

#: Stands where there is no number.
NONE = "–"


def number(value: object, *, tidy: bool = False, mark: float | None = None) -> str:
    """A number with three significant digits; `tidy` drops the zeros that end a fraction.

    A value that is not at the `mark` is given as many digits as it takes not to be rounded onto it.

    >>> [number(v) for v in (0.0123456, 0.02, 12.3456, 250, 48210.4, 1.5e-7, 0, float("nan"))]
    ['0.0123', '0.0200', '12.3', '250', '48,210', '1.50 × 10⁻⁷', '0', '–']
    >>> number(0.02, tidy=True), number(0.9998, mark=1.0)
    ('0.02', '0.9998')
    """
    number = _as_float(value)
    if math.isnan(number):
        return NONE
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    digits = 3
    while mark is not None and digits < 12 and _rounded_onto(number, mark, digits):
        digits += 1
    if number and not 1e-4 <= abs(number) < 1e7:
        return _scientific(number, tidy)
    text = _plain(number, digits)
    if tidy and "." in text:
        text = text.rstrip("0").rstrip(".")
    return text.replace("-", "−")


def count(value: object) -> str:
    """A whole number, with commas; what is not whole is written as a number.

    >>> count(12345.0), count(0.5), count(None)
    ('12,345', '0.500', '–')
    """
    number_ = _as_float(value)
    whole = math.isfinite(number_) and number_ == round(number_) and abs(number_) < 1e12
    return f"{number_:,.0f}" if whole else number(value)


def p_value(value: object, alpha: float) -> str:
    """A p-value with three decimals, or as many as show on which side of alpha it lies.

    >>> [p_value(p, 0.05) for p in (0.0078125, 1e-5, 0.05001, 1.0)]
    ['0.008', '< 0.001', '0.05001', '1.000']
    """
    p = _as_float(value)
    if math.isnan(p):
        return NONE
    if p < min(0.001, alpha):
        return "< 0.001"
    digits = 3
    while digits < 12 and p != alpha and round(p, digits) == alpha:
        digits += 1
    return f"{p:.{digits}f}"


def interval(low: object, high: object, mark: float) -> str:
    """The two ends of an interval, neither rounded onto the mark that it may exclude.

    >>> interval(0.41, 0.9997, mark=1.0), interval(0.0, math.inf, mark=1.0)
    ('0.410 to 0.9997', 'no interval')
    """
    if not math.isfinite(_as_float(high)):
        return "no interval"
    return f"{number(low, mark=mark)} to {number(high, mark=mark)}"


def seeds(value: float) -> str:
    """How many seeds would decide, in a cell of a table.

    >>> seeds(23.0), seeds(math.inf), seeds(math.nan)
    ('about 23', 'over 10,000', '–')
    """
    if math.isinf(value):
        return f"over {MOST_SEEDS:,}"
    return NONE if math.isnan(value) else f"about {value:,.0f}"


def counted(amount: int, singular: str, plural: str | None = None) -> str:
    """An amount and its noun.

    >>> counted(1, "run"), counted(3, "run")
    ('1 run', '3 runs')
    """
    return f"{amount:,} {singular if amount == 1 else plural or singular + 's'}"


def listed(parts: list[str]) -> str:
    """Parts of a sentence with their commas and an "and".

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def budgets(records: Records) -> str:
    """The limit of every budget of the ablation, the smallest first."""
    limits = {records.budget_of(arm).limit for arm in records.arms} or {records.budget.limit}
    return listed([count(limit) for limit in sorted(limits)])


def metric_name(metric: str) -> str:
    """The name of a metric's column in words.

    >>> metric_name("val_loss"), metric_name("test_squared_error"), metric_name("accuracy")
    ('validation loss', 'test squared error', 'accuracy')
    """
    head, _, rest = metric.partition("_")
    spelt = {"val": "validation", "train": "training"}.get(head, head)
    return f"{spelt} {rest.replace('_', ' ')}".strip()


def _as_float(value: object) -> float:
    if value is None or value is pd.NA or value is pd.NaT:
        return math.nan
    return float(value)  # type: ignore[arg-type]


def _plain(number: float, digits: int) -> str:
    if number == 0 or (abs(number) >= 999.5 and digits == 3):
        return f"{number:,.0f}"
    return f"{number:#.{digits}g}".rstrip(".")


def _rounded_onto(number: float, mark: float, digits: int) -> bool:
    return number != mark and float(f"{number:.{digits}g}") == mark


def _scientific(number: float, tidy: bool) -> str:
    mantissa, exponent = f"{number:.2e}".split("e")
    if tidy:
        mantissa = mantissa.rstrip("0").rstrip(".")
    text = f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text if not text.startswith("-") else "−" + text[1:]
