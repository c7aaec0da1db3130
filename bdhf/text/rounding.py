"""Rounding that moves no number onto its mark, or across it (alpha, a ratio of 1)."""

from __future__ import annotations


def rounded_onto(real: float, mark: float, digits: int) -> bool:
    """Whether a value off the mark would be rounded onto it, to so many significant digits.

    >>> rounded_onto(0.9998, 1.0, digits=3), rounded_onto(0.998, 1.0, digits=3)
    (True, False)
    """
    return real != mark and float(f"{real:.{digits}g}") == mark


def on_its_side(value: float, mark: float, digits: int) -> str:
    """A value with so many decimals, or with as many as show on which side of the mark it lies.

    >>> on_its_side(0.714, 1.0, digits=2), on_its_side(0.9998, 1.0, digits=2)
    ('0.71', '0.9998')
    """
    for decimals in range(digits, 12):
        if _side(round(value, decimals), mark) == _side(value, mark):
            return f"{value:.{decimals}f}"
    return f"{value:.{digits}f}"  # equal to the mark but for a rounding error


def _side(value: float, mark: float) -> int:
    return (value > mark) - (value < mark)
